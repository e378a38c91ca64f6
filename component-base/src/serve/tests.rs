use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::http::{empty, text};

async fn answer(request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/panic" => panic!("asked for"),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            text(StatusCode::OK, "slow")
        }
        "/upgrade" => {
            tokio::spawn(echo(request));
            Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", "echo")
                .body(empty())
                .unwrap()
        }
        _ => {
            let info = request.extensions().get::<Arc<ConnInfo>>().unwrap();
            text(
                StatusCode::OK,
                &format!("{:?} {}", request.version(), info.peer.ip()),
            )
        }
    }
}

async fn echo(request: Request<Incoming>) {
    let upgraded = hyper::upgrade::on(request).await.unwrap();
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    tokio::io::copy(&mut read, &mut write).await.unwrap();
}

async fn start(limits: Limits) -> (SocketAddr, Drain, tokio::task::JoinHandle<()>) {
    let listener = bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let serving = serve(listener, None, handler(answer), limits, drain.clone());
    (
        address,
        drain,
        tokio::spawn(async move { serving.await.unwrap() }),
    )
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const CLOSE: &str = "Host: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn http_1_and_http_2_are_served_on_one_plain_port() {
    let (address, _drain, _task) = start(Limits::default()).await;
    assert!(
        ask(address, &format!("GET / HTTP/1.1\r\n{CLOSE}"))
            .await
            .ends_with("HTTP/1.1 127.0.0.1")
    );
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://{address}/")).body(empty()).unwrap();
    let body = crate::http::read_limited(sender.send_request(request).await.unwrap().into_body(), 100)
        .await
        .unwrap();
    assert_eq!(body, "HTTP/2.0 127.0.0.1");
}

async fn thread_name(_: Request<Incoming>) -> Response<Body> {
    text(StatusCode::OK, std::thread::current().name().unwrap_or_default())
}

#[tokio::test]
async fn connections_keep_to_threads_of_their_own_and_spread_over_them() {
    let (threads, drain) = (Threads::start("kept", 2).unwrap(), Drain::new());
    let listener = bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve_on(
        Some(threads),
        listener,
        None,
        handler(thread_name),
        Limits::default(),
        drain.clone(),
    );
    let task = tokio::spawn(serving);
    let open = format!("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n{CLOSE}");
    // The first stays open while the second one comes.
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 512];
    let length = kept.read(&mut answer).await.unwrap();
    let first = String::from_utf8_lossy(&answer[..length]).into_owned();
    let second = ask(address, &open).await;
    let on = |answer: &str, name: &str| answer.matches(name).count();
    let counts = (on(&first, "kept-0"), on(&second, "kept-1"));
    assert_eq!(counts, (1, 2), "{first}\n{second}");
    drain.start();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_costs_its_request_only() {
    let (address, _drain, _task) = start(Limits::default()).await;
    let answer = ask(
        address,
        &format!("GET /panic HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n{CLOSE}"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("HTTP/1.1 200"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let (address, _drain, _task) = start(Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await
        .unwrap();
    let mut head = vec![0; 512];
    let length = stream.read(&mut head).await.unwrap();
    assert!(head[..length].starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_closes_idle_connections() {
    let (address, drain, task) = start(Limits::default()).await;
    let slow = tokio::spawn(async move { ask(address, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await });
    let _idle = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drain.start();
    let begun = Instant::now();
    task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(slow.await.unwrap().ends_with("slow"));
    assert!(TcpStream::connect(address).await.is_err());
}

/// HTTP/2 without a library: the preface, settings, and what is asked.
async fn raw_h2(address: SocketAddr, pieces: &[&[u8]]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // A byte alone does not make it another protocol.
    stream.write_all(b"P").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let begin = b"RI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(begin).await.unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
    }
    stream
}

const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    read.expect("the connection is not closed").unwrap();
    rest
}

fn tells(bytes: &[u8], reason: &str) -> bool {
    let calm = [&[0, 0, 0, 11], reason.as_bytes()].concat();
    bytes.windows(calm.len()).any(|window| window == calm)
}

#[tokio::test]
async fn who_pings_too_often_is_told_so_and_let_go() {
    let limits = Limits {
        h2_ping_rule: Some(PingRule {
            min_interval: Duration::from_secs(5),
            over_tls: false,
        }),
        ..Limits::default()
    };
    let (address, _drain, _task) = start(limits).await;
    let told = rest(raw_h2(address, &[PING; 4]).await).await;
    assert!(tells(&told, "too_many_pings"), "{told:?}");
    // Where nobody minds, they are answered.
    let (address, _drain, _task) = start(Limits::default()).await;
    let mut stream = raw_h2(address, &[PING; 50]).await;
    let (mut seen, mut piece) = (Vec::<u8>::new(), [0; 4096]);
    while seen.windows(8).filter(|window| window == b"pingpong").count() < 50 {
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "closed");
        seen.extend(&piece[..length]);
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_who_ignores_it() {
    let (address, drain, task) = start(Limits::default()).await;
    let idle = raw_h2(address, &[]).await;
    // GET /slow, as HPACK's static table and one literal have it.
    let slow = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x04\x05/slow";
    let asking = raw_h2(address, &[slow]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drain.start();
    let begun = Instant::now();
    // Neither acknowledges anything; what was asked for is answered.
    let answer = rest(asking).await;
    assert!(answer.ends_with(b"slow"), "{answer:?}");
    rest(idle).await;
    task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_unix_socket_is_a_listener_as_any_other() {
    let folder = tempfile::TempDir::new().unwrap();
    let (path, drain) = (folder.path().join("s"), Drain::new());
    let serving = serve_on(
        Some(Threads::start("unix", 1).unwrap()),
        bind_unix(&path).unwrap(),
        None,
        handler(answer),
        Limits::default(),
        drain.clone(),
    );
    let task = tokio::spawn(serving);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(format!("GET / HTTP/1.1\r\n{CLOSE}").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("HTTP/1.1 127.0.0.1"), "{text}");
    drain.start();
    task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn connections_that_say_nothing_are_dropped_at_the_deadline() {
    let limits = Limits {
        header_deadline: Duration::from_millis(100),
        ..Limits::default()
    };
    let (address, _drain, _task) = start(limits).await;
    assert_eq!(ask(address, "").await, "");
    let cut = ask(address, "GET / HTTP/1.1\r\nHos").await;
    assert!(cut.is_empty() || cut.starts_with("HTTP/1.1 4"), "{cut}");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_a_slot() {
    let (address, _drain, _task) = start(Limits {
        max_connections: 1,
        ..Limits::default()
    })
    .await;
    let first = TcpStream::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\n{CLOSE}");
    let second = tokio::spawn(async move { ask(address, &request).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn debug_routes_answer_what_every_daemon_has() {
    let routes = debug_routes("kube-test", &crate::health::Health::new(), configz("test", &1));
    let ask = |path: &str| routes(&Request::get(path).body(()).unwrap());
    for path in [
        "/healthz",
        "/livez",
        "/readyz/ping",
        "/metrics",
        "/version",
        "/configz",
        "/statusz",
        "/flagz",
    ] {
        assert_eq!(ask(path).unwrap().status(), StatusCode::OK, "{path}");
    }
    assert!(ask("/api").is_none());
    assert_eq!(
        routes(&Request::post("/metrics").body(()).unwrap())
            .unwrap()
            .status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named() {
    let taken = bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    assert!(format!("{:#}", bind(address).unwrap_err()).contains(&format!("failed to listen on {address}")));
    assert!(
        bind("localhost")
            .unwrap_err()
            .to_string()
            .contains("invalid listen address")
    );
}
