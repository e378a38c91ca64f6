//! What operators set and do: listeners, pings, logs, and the end.

use std::process::Command;
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use free_port::free_port;
use tempfile::TempDir;
use tonic::Code;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, Streaming, command, etcdctl, put, try_get};
use crate::http2::{Connection, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, call, frame};

const PATIENCE: Duration = Duration::from_secs(5);
/// No timeout of anybody is as short.
const AT_ONCE: Duration = Duration::from_secs(2);
const ENHANCE_YOUR_CALM: u8 = 11;

fn terminated(etcd: &mut Etcd) -> Duration {
    let start = Instant::now();
    etcd.signal("TERM");
    wait_for(|| etcd.child.try_wait().unwrap().is_some());
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_only_waits_delays_the_end() {
    let mut etcd = Etcd::start_with(&["--enable-v2"]);
    let port = etcd.port;
    // Idle, and deaf to GOAWAY; one with a watch that it never closes; one that polls for a change, one that streams them.
    let _idle = Connection::open(port);
    let mut deaf = Connection::open(port);
    deaf.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        &call("/etcdserverpb.Watch/Watch"),
    ));
    let poll = tokio::task::spawn_blocking(move || {
        let mut poll = Streaming::get(port, "/v2/keys/k?wait=true");
        assert!(poll.ended());
    });
    let mut stream = Streaming::open(port, "/v3/watch");
    stream.send(r#"{"create_request": {"key": "aw=="}}"#);
    assert_eq!(stream.json()["result"]["created"], true);
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let create = WatchCreateRequest {
        key: "k".into(),
        ..Default::default()
    };
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    sender.send(request).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut watch = etcd.watch().await.watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let took = tokio::task::spawn_blocking(move || (terminated(&mut etcd), etcd.log()));
    // Clients of etcd go on elsewhere after this one.
    let status = watch.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    let (took, log) = took.await.unwrap();
    assert!(took < AT_ONCE, "{took:?}\n{log}");
    poll.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_before_the_end_is_answered() {
    let mut etcd = Etcd::start();
    let mut asking = Vec::new();
    for number in 0..50 {
        let mut kv = etcd.kv().await;
        asking.push(tokio::spawn(async move {
            let mut done = 0;
            // Until it is refused, which only a new request may be.
            loop {
                match kv.put(put(format!("{number}/{done}"), "v")).await {
                    Ok(_) => done += 1,
                    Err(_) => return done,
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = tokio::task::spawn_blocking(move || (terminated(&mut etcd), etcd));
    let mut answered = 0;
    for asking in asking {
        let done = asking.await.unwrap();
        assert!(done > 0);
        answered += done;
    }
    let (took, mut etcd) = took.await.unwrap();
    assert!(took < AT_ONCE, "{took:?}");
    etcd.start_again();
    let all = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        count_only: true,
        ..Default::default()
    };
    let count = etcd.kv().await.range(all).await.unwrap().into_inner().count;
    assert!(count >= answered, "{count} of {answered} that were answered");
}

#[test]
fn who_pings_too_often_is_closed_and_who_does_not_is_pinged() {
    let flags = [
        "--grpc-keepalive-min-time=1s",
        "--grpc-keepalive-interval=1s",
        "--grpc-keepalive-timeout=1s",
    ];
    let etcd = Etcd::start_with(&flags);
    let mut hasty = Connection::open(etcd.port);
    for _ in 0..4 {
        hasty.send(&frame(PING, 0, 0, b"are you?"));
    }
    let goaway = hasty.wait_for(GOAWAY, PATIENCE).expect("a GOAWAY");
    assert_eq!(goaway.payload[7], ENHANCE_YOUR_CALM);
    assert_eq!(&goaway.payload[8..], b"too_many_pings");
    // One that does not answer pings is closed; one that does stays.
    let mut silent = Connection::open(etcd.port);
    let mut alive = Connection::open(etcd.port);
    let start = Instant::now();
    while let Some(frame) = alive.next(PATIENCE) {
        if frame.kind == PING && frame.flags == 0 {
            alive.send(&crate::http2::frame(PING, 1, 0, &frame.payload));
        }
        if start.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    assert!(alive.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &call("/x"))));
    assert!(alive.wait_for(HEADERS, PATIENCE).is_some());
    assert!(silent.wait_for(PING, PATIENCE).is_some());
    assert!(silent.wait_for(PING, Duration::from_millis(100)).is_none());
    assert!(silent.is_closed());
}

#[test]
fn a_unix_socket_serves_etcdctl_and_http() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("etcd.sock");
    let url = format!("unix://{}", socket.display());
    let port = free_port();
    let clients = format!("http://127.0.0.1:{port},{url}");
    let mut etcd = Etcd::start_with(&[
        &format!("--listen-client-urls={clients}"),
        &format!("--advertise-client-urls={clients}"),
    ]);
    let ctl = |args: &[&str]| {
        let output = etcdctl(&[&[format!("--endpoints={url}").as_str()], args].concat(), "")?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if let Some(said) = ctl(&["put", "k", "v"]) {
        assert_eq!(said, "OK\n");
        assert_eq!(ctl(&["get", "k"]).unwrap(), "k\nv\n");
    }
    let curl = Command::new("curl")
        .args([
            "-sS",
            "--unix-socket",
            &socket.display().to_string(),
            "http://localhost/health",
        ])
        .output();
    match curl {
        Ok(said) => assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            r#"{"health":"true","reason":""}"#
        ),
        Err(_) => eprintln!("skipped: curl is not installed"),
    }
    etcd.restart();
    assert!(socket.exists(), "what the killed process left is replaced");
    terminated(&mut etcd);
    assert!(!socket.exists());
}

#[test]
fn lines_go_where_the_flags_say() {
    let folder = TempDir::new().unwrap();
    let (plain, rotating) = (
        folder.path().join("plain.log"),
        folder.path().join("deeper/etcd.log"),
    );
    let etcd = Etcd::start_with(&[
        &format!("--log-outputs=stderr,{}", plain.display()),
        "--log-format=console",
    ]);
    let text = std::fs::read_to_string(&plain).unwrap();
    // What comes through the pipe is read a moment later.
    wait_for(|| etcd.log().starts_with(&text));
    assert!(
        text.contains("\tinfo\t") && text.contains("\tready to serve client requests\t{"),
        "{text}"
    );
    let etcd = Etcd::start_with(&[
        &format!("--log-outputs=stderr,{}", rotating.display()),
        "--enable-log-rotation",
    ]);
    let text = std::fs::read_to_string(&rotating).unwrap();
    assert!(text.contains("ready to serve"), "{text}");
    wait_for(|| etcd.log().starts_with(&text));
    let file = folder.path().join("quiet.log");
    let quiet = [
        format!("--log-outputs={}", file.display()),
        "--log-level=error".to_owned(),
    ];
    let dir = folder.path().join("quiet");
    let port = free_port();
    let mut child = command(&dir, "http", port, free_port(), &quiet).spawn().unwrap();
    wait_for(|| try_get(port, "/health").is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    for (flags, reason) in [
        (&["--log-outputs=default,stdout"][..], "multi logoutput"),
        (&["--enable-log-rotation"], "requires a single file path"),
        (&["--log-format=xml"], "unknown log format"),
        (&["--log-level=loud"], "unrecognized level"),
        (
            &["--log-outputs=/nowhere/at/all/etcd.log"],
            "/nowhere/at/all/etcd.log",
        ),
        (&["--logger=capnslog"], "unknown logger"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_etcd"))
            .args(flags)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && text.contains(reason),
            "{flags:?}: {text}"
        );
    }
}

#[test]
fn without_fsync_and_with_locked_memory_it_serves_and_says_so() {
    let etcd = Etcd::start_with(&["--unsafe-no-fsync"]);
    assert!(etcd.log().contains("what is acknowledged is not durable"));
    let locked = |etcd: &Etcd| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", etcd.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap() != "0"
    };
    assert!(!locked(&etcd));
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: --memory-mlock needs a limit that only root has");
        return;
    }
    assert!(locked(&Etcd::start_with(&["--memory-mlock"])));
}

#[test]
fn the_probe_times_the_disk_of_the_log_and_that_of_the_store_where_it_is_another() {
    let probed = |etcd: &Etcd| -> Vec<String> {
        let log = etcd.log();
        let lines = log.lines().filter(|line| line.contains("fdatasync"));
        let dir = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["dir"].as_str().unwrap().to_owned()
        };
        lines.map(dir).collect()
    };
    let etcd = Etcd::start();
    assert_eq!(probed(&etcd), [etcd.dir.join("member/wal").display().to_string()]);
    let folder = TempDir::new().unwrap();
    let wal = folder.path().join("wal").display().to_string();
    let etcd = Etcd::start_with(&[&format!("--wal-dir={wal}")]);
    assert_eq!(
        probed(&etcd),
        [wal, etcd.dir.join("member").display().to_string()]
    );
}
