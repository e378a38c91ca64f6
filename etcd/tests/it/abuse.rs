//! Clients that mean no good, without a password and with nothing to lose: what they take is bounded, they are told off with etcd's own errors,
//! and everybody else goes on.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::{AuthenticateRequest, RangeRequest};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, put};
use crate::http2::{
    self, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, call, fields,
    frame, message,
};
use crate::members::Cluster;
use crate::tls::Pki;

const ENHANCE_YOUR_CALM: u8 = 11;
const PATIENCE: Duration = Duration::from_secs(5);
/// A request of the others may take so long while the abuse goes on, on a machine that has other tests to run.
const SLOWEST: Duration = Duration::from_millis(1500);
/// How long others are watched beside what was opened and is held.
const WHILE_IT_LASTS: Duration = Duration::from_secs(1);
const USUAL: Duration = Duration::from_millis(150);
/// Longer than the server gives a handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);
const MIB: usize = 1024 * 1024;

/// Somebody else, who reads and writes all the while.
struct Neighbour {
    stop: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<Vec<Duration>>,
    etcd: u32,
    resident_before: usize,
}

impl Neighbour {
    async fn of(etcd: &Etcd) -> Neighbour {
        Neighbour::on(etcd.kv().await, etcd.child.id()).await
    }

    async fn on(mut kv: KvClient<Channel>, etcd: u32) -> Neighbour {
        kv.put(put("neighbour", "0")).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let asking = tokio::spawn(async move {
            let mut times = Vec::new();
            while !stopping.load(Ordering::SeqCst) {
                let start = Instant::now();
                kv.put(put("neighbour", "1")).await.unwrap();
                let request = RangeRequest {
                    key: "neighbour".into(),
                    ..RangeRequest::default()
                };
                assert_eq!(kv.range(request).await.unwrap().into_inner().kvs.len(), 1);
                times.push(start.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            times
        });
        Neighbour {
            stop,
            asking,
            etcd,
            resident_before: resident(etcd),
        }
    }

    /// Ends it: nothing it asked for failed or took long, and the server has not grown by more than that.
    async fn goes_on_beside(self, what: &str, grown_at_most: usize) {
        tokio::time::sleep(WHILE_IT_LASTS).await;
        let grown = resident(self.etcd).saturating_sub(self.resident_before);
        self.stop.store(true, Ordering::SeqCst);
        let mut times = self.asking.await.unwrap();
        times.sort_unstable();
        let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{what}: {} put and get, median {median:?}, slowest {slowest:?}; resident grew by {} KiB",
            times.len(),
            grown / 1024
        );
        assert!(
            median < USUAL && slowest < SLOWEST,
            "{what}: {median:?}, {slowest:?}"
        );
        assert!(
            grown < grown_at_most,
            "{what}: resident grew by {} KiB",
            grown / 1024
        );
    }
}

fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// As many descriptors as are permitted, and how many that is.
fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .unwrap();
    limit.maximum.unwrap_or(u64::MAX) as usize
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

type Sender = hyper::client::conn::http2::SendRequest<UnsyncBoxBody<Bytes, Infallible>>;

async fn connect(port: u16) -> Sender {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

fn post(
    port: u16,
    path: &str,
    body: UnsyncBoxBody<Bytes, Infallible>,
) -> http::Request<UnsyncBoxBody<Bytes, Infallible>> {
    http::Request::post(format!("http://127.0.0.1:{port}{path}"))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

/// A gRPC call with whatever body: its status and message.
async fn raw_call(port: u16, path: &str, body: Vec<u8>) -> (i32, String) {
    let request = post(port, path, Full::new(Bytes::from(body)).boxed_unsync());
    let response = connect(port).await.send_request(request).await.unwrap();
    let mut headers = response.headers().clone();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
    headers.extend(trailers.unwrap_or_default());
    let text = |name: &str| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned()
    };
    (text("grpc-status").parse().unwrap(), text("grpc-message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_leave_room_for_others() {
    const IDLE: usize = 10_000;
    let descriptors = descriptors();
    if descriptors < IDLE + 1000 {
        eprintln!("skipped: {descriptors} descriptors are not enough for {IDLE} connections (ulimit -Hn)");
        return;
    }
    let etcd = Etcd::start();
    let neighbour = Neighbour::of(&etcd).await;
    let port = etcd.port;
    let idle =
        blocking(move || -> Vec<Connection> { (0..IDLE).map(|_| Connection::open(port)).collect() }).await;
    // All of them were accepted and greeted.
    let mut idle = blocking(move || {
        let mut idle = idle;
        for connection in &mut idle {
            assert!(connection.next(PATIENCE).is_some());
        }
        idle
    })
    .await;
    assert_eq!(
        etcd.kv()
            .await
            .put(put("new", "client"))
            .await
            .unwrap()
            .into_inner()
            .prev_kv,
        None
    );
    neighbour
        .goes_on_beside("10,000 idle connections", IDLE * 48 * 1024)
        .await;
    // They are not dead either.
    assert!(idle[0].send(&frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &call("/etcdserverpb.KV/Nothing")
    )));
    assert!(idle[0].wait_for(HEADERS, PATIENCE).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_finish_are_ended_at_their_deadline() {
    let cluster = Cluster::start(1, Some(Pki::new()), &[]).await;
    let etcd = &cluster.nodes[0];
    let neighbour = Neighbour::on(etcd.kv().await, etcd.child.as_ref().unwrap().id()).await;
    let port = etcd.tls_port;
    let held: Vec<TcpStream> = blocking(move || {
        let open = |number: usize| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Silence, or the beginning of a long ClientHello.
            if number.is_multiple_of(2) {
                stream
                    .write_all(&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3])
                    .unwrap();
            }
            stream
        };
        (0..2000).map(open).collect()
    })
    .await;
    neighbour
        .goes_on_beside("2,000 unfinished handshakes", 64 * MIB)
        .await;
    let ended = blocking(move || held.into_iter().all(is_ended));
    assert!(ended.await, "a handshake goes on beyond its deadline");
    assert!(etcd.log().contains("TLS handshake timed out"));
}

/// Whether the server has closed it, or does soon.
fn is_ended(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(HANDSHAKE)).unwrap();
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            // An alert.
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_are_cut_off() {
    let etcd = Etcd::start();
    let neighbour = Neighbour::of(&etcd).await;
    let port = etcd.port;
    let told = blocking(move || {
        let more = fields((0..100).map(|_| ("x-more", "and more, and more, and more, and more, and more")));
        let mut told = Vec::new();
        for _ in 0..20 {
            let mut connection = Connection::open(port);
            connection.send(&frame(HEADERS, 0, 1, &call("/etcdserverpb.KV/Range")));
            let mut sent = 0;
            while sent < 64 * MIB && connection.send(&frame(CONTINUATION, 0, 1, &more)) {
                sent += more.len();
            }
            assert!(sent < 64 * MIB, "the server reads on");
            told.push(
                connection
                    .wait_for(GOAWAY, PATIENCE)
                    .map(|frame| frame.payload[7]),
            );
        }
        // The same in HTTP/1.
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n").unwrap();
        let mut sent = 0;
        while sent < 64 * MIB
            && stream
                .write_all(b"X-More: and more, and more, and more\r\n")
                .is_ok()
        {
            sent += 40;
        }
        assert!(sent < 64 * MIB, "the server reads on");
        told
    })
    .await;
    // A reset may overtake it.
    assert!(
        told.iter().flatten().all(|reason| *reason == ENHANCE_YOUR_CALM),
        "{told:?}"
    );
    neighbour.goes_on_beside("headers that never end", 48 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_at_once_leave_nothing_behind() {
    let etcd = Etcd::start();
    let neighbour = Neighbour::of(&etcd).await;
    let port = etcd.port;
    let (sent, told) = blocking(move || {
        let (start, mut sent, head) = (Instant::now(), 0_u64, call("/etcdserverpb.Watch/Watch"));
        let mut told = Vec::new();
        while start.elapsed() < Duration::from_secs(3) {
            let mut connection = Connection::open(port);
            for number in 0..5_000 {
                let stream = 2 * number + 1;
                let mut both = frame(HEADERS, END_HEADERS, stream, &head);
                both.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                if !connection.send(&both) {
                    break;
                }
                sent += 1;
            }
            let goaway = connection.wait_for(GOAWAY, PATIENCE);
            told.push(goaway.map(|frame| frame.payload[7]));
        }
        (sent, told)
    })
    .await;
    println!("{sent} streams were reset on {} connections", told.len());
    // A reset may overtake it.
    assert!(told.contains(&Some(ENHANCE_YOUR_CALM)), "{told:?}");
    assert!(
        told.iter().flatten().all(|reason| *reason == ENHANCE_YOUR_CALM),
        "{told:?}"
    );
    neighbour.goes_on_beside("rapid reset", 64 * MIB).await;
    wait_for(|| {
        etcd.get("/metrics")
            .1
            .contains("etcd_debugging_mvcc_watcher_total 0\n")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_frames_and_messages_are_refused_as_etcd_does() {
    let etcd = Etcd::start();
    let neighbour = Neighbour::of(&etcd).await;
    let port = etcd.port;
    for (body, code, text) in [
        (
            message(0, 5, &[0xff; 5]),
            Code::Internal,
            "grpc: error unmarshalling request",
        ),
        (message(0, 100, b"short"), Code::Internal, ""),
        (message(1, 5, b"12345"), Code::Unimplemented, "grpc: "),
        (
            message(0, u32::MAX, b"endless"),
            Code::ResourceExhausted,
            "grpc: received message larger than max (4294967295 vs. ",
        ),
        (vec![0, 0], Code::Internal, ""),
        (Vec::new(), Code::Internal, ""),
    ] {
        let (found, told) = raw_call(port, "/etcdserverpb.KV/Put", body.clone()).await;
        assert!(
            found == code as i32 && told.starts_with(text),
            "{body:?}: {found} {told}"
        );
    }
    let (found, _) = raw_call(port, "/etcdserverpb.KV/Nothing", Vec::new()).await;
    assert_eq!(found, Code::Unimplemented as i32);
    blocking(move || {
        // Beyond HTTP/2 itself.
        for garbage in [
            frame(DATA, 0, 0, b"on no stream"),
            frame(HEADERS, END_HEADERS, 2, &call("/even")),
            frame(HEADERS, END_HEADERS, 1, &[0x80]),
            frame(CONTINUATION, END_HEADERS, 7, b"of nothing"),
            vec![0xff; 64 * 1024],
        ] {
            let mut connection = Connection::open(port);
            connection.send(&garbage);
            let closed = connection.wait_for(GOAWAY, PATIENCE).is_some()
                || !connection.send(&frame(http2::SETTINGS, 0, 0, &[]));
            assert!(closed, "{garbage:?}");
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"\0\x01\x02 not HTTP at all\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
    })
    .await;
    neighbour.goes_on_beside("malformed frames", 16 * MIB).await;
    let mut kv = etcd.kv().await;
    let large = kv.put(put("k", vec![0; 1_600_000])).await.unwrap_err();
    assert_eq!(
        (large.code(), large.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let larger = kv.put(put("k", vec![0; 3_000_000])).await.unwrap_err();
    assert_eq!(larger.code(), Code::ResourceExhausted);
    assert!(
        larger
            .message()
            .starts_with("grpc: received message larger than max ("),
        "{larger:?}"
    );
}

/// Many connections with as many streams as they may have, each with a large message that lacks its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_that_never_end_share_a_budget() {
    let etcd = Etcd::start();
    let neighbour = Neighbour::of(&etcd).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut sender = connect(etcd.port).await;
        for _ in 0..100 {
            let piece = message(0, 1_500_000, &[1; 250 * 1024]);
            let begun = tokio_stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))]);
            let body = StreamBody::new(begun.chain(tokio_stream::pending())).boxed_unsync();
            held.push(sender.send_request(post(etcd.port, "/etcdserverpb.KV/Put", body)));
        }
    }
    // Each is polled, so that its body goes out; none is answered.
    let holding: Vec<_> = held.into_iter().map(|asked| tokio::spawn(asked)).collect();
    neighbour
        .goes_on_beside("large requests without an end", 256 * MIB)
        .await;
    holding.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_without_credentials_is_refused_and_leaves_others_alone() {
    let etcd = Etcd::start();
    let Some(_) = etcd.ctl(&["user", "add", "root:pw"]) else {
        return;
    };
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    let token = {
        let mut auth = AuthClient::new(etcd.channel().await);
        let request = AuthenticateRequest {
            name: "root".into(),
            password: "pw".into(),
        };
        auth.authenticate(request).await.unwrap().into_inner().token
    };
    let before = resident(etcd.child.id());
    let stop = Arc::new(AtomicBool::new(false));
    let mut flood = Vec::new();
    for number in 0..64 {
        let (channel, stop) = (etcd.channel().await, stop.clone());
        flood.push(tokio::spawn(async move {
            let mut kv = KvClient::new(channel.clone());
            let mut auth = AuthClient::new(channel);
            let mut refused = 0;
            while !stop.load(Ordering::SeqCst) {
                let status = match number % 4 {
                    0 => {
                        let request = AuthenticateRequest {
                            name: "root".into(),
                            password: format!("guess {refused}"),
                        };
                        auth.authenticate(request).await.unwrap_err()
                    }
                    _ => kv.put(put("k", "v")).await.unwrap_err(),
                };
                let known = [
                    (Code::InvalidArgument, "etcdserver: user name is empty"),
                    (
                        Code::InvalidArgument,
                        "etcdserver: authentication failed, invalid user ID or password",
                    ),
                    (Code::ResourceExhausted, "etcdserver: too many requests"),
                ];
                assert!(known.contains(&(status.code(), status.message())), "{status:?}");
                refused += 1;
            }
            refused
        }));
    }
    let mut kv = etcd.kv().await;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(3) {
        let mut request = tonic::Request::new(put("k", "mine"));
        request.metadata_mut().insert("token", token.parse().unwrap());
        let asked = Instant::now();
        kv.put(request).await.unwrap();
        times.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut refused = 0;
    for flooding in flood {
        refused += flooding.await.unwrap();
    }
    times.sort_unstable();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let grown = resident(etcd.child.id()).saturating_sub(before);
    println!(
        "{refused} refused; {} put, median {median:?}, slowest {slowest:?}; resident grew by {} KiB",
        times.len(),
        grown / 1024
    );
    assert!(
        refused > 64 && median < USUAL && slowest < SLOWEST,
        "{refused} refused, {median:?}, {slowest:?}"
    );
    assert!(grown < 64 * MIB);
}
