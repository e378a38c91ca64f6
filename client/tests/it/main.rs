//! The client against a real server: TLS, HTTP/2, many streams, restarts.

use bytes::Bytes;
use client::kubeconfig::{RestConfig, Server};
use client::transport::{Pool, Transport};
use client::{Client, Error};
use component_base::drain::Drain;
use component_base::http::text;
use component_base::serve::{ConnInfo, Limits, bind, handler, serve};
use component_base::tls::{Pem, ServerTls};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

struct TestServer {
    address: SocketAddr,
    folder: PathBuf,
    /// Peers that were seen: one for each connection.
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
}

/// Answers `/slow` after 300 ms, `/never` never, and everything else at once.
async fn server(address: &str, folder: PathBuf, streams: u32) -> TestServer {
    let listener = bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let tls = ServerTls::new(folder.join("tls.crt"), folder.join("tls.key"))
        .load()
        .unwrap();
    let (peers, drain) = (Arc::new(Mutex::new(HashSet::new())), Drain::new());
    let seen = peers.clone();
    let answer = handler(move |request: Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            if let Some(info) = request.extensions().get::<Arc<ConnInfo>>() {
                seen.lock().insert(info.peer);
            }
            match request.uri().path() {
                "/slow" => tokio::time::sleep(Duration::from_millis(300)).await,
                "/never" => std::future::pending().await,
                _ => {}
            }
            text(StatusCode::OK, "{}")
        }
    });
    let limits = Limits {
        max_h2_streams: streams,
        ..Limits::default()
    };
    let task = tokio::spawn({
        let drain = drain.clone();
        async move { drop(serve(listener, Some(tls), answer, limits, drain).await) }
    });
    TestServer {
        address,
        folder,
        peers,
        drain,
        task,
    }
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("client-it-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    certificate(&folder);
    folder
}

fn config(server: &TestServer) -> RestConfig {
    let url = format!("https://{}", server.address);
    RestConfig {
        server: Server::parse(&url).unwrap(),
        ca: Some(Pem::File(server.folder.join("tls.crt"))),
        ..RestConfig::default()
    }
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let server = server("127.0.0.1:0", folder(), 250).await;
    let client = Client::new(config(&server), "test").unwrap();
    let all = (0..50).map(|_| client.raw(get("/slow")));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(
            answer.unwrap().into_body().collect().await.unwrap().to_bytes(),
            "{}"
        );
    }
    assert_eq!(server.peers.lock().len(), 1);
}

#[tokio::test]
async fn a_second_connection_opens_only_when_streams_run_out() {
    let server = server("127.0.0.1:0", folder(), 20).await;
    let pool = Pool::new(&config(&server)).unwrap();
    // The server's limit comes with its settings and is looked at with each request that follows.
    for _ in 0..2 {
        drop(pool.send(get("/"), None).await.unwrap());
    }
    let held: Vec<_> = futures_util::future::join_all((0..30).map(|_| pool.send(get("/slow"), None))).await;
    assert!(held.iter().all(Result::is_ok));
    assert_eq!(server.peers.lock().len(), 2);
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_that_names_the_request() {
    let server = server("127.0.0.1:0", folder(), 250).await;
    let client = Client::new(config(&server), "test")
        .unwrap()
        .with_deadline(Duration::from_millis(200));
    let error = client.raw(get("/never")).await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }));
    assert!(error.to_string().contains("GET /never"), "{error}");
    client
        .raw(get("/"))
        .await
        .expect("the next request gets a connection that answers");
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let first = server("127.0.0.1:0", folder(), 250).await;
    let client = Client::new(config(&first), "test").unwrap();
    client.raw(get("/")).await.unwrap();
    let (address, kept) = (first.address.to_string(), folder());
    for file in ["tls.crt", "tls.key"] {
        std::fs::copy(first.folder.join(file), kept.join(file)).unwrap();
    }
    first.drain.start();
    drop(first);
    let error = client.raw(get("/")).await.map(drop);
    let second = server(&address, kept, 250).await;
    for _ in 0..100 {
        if client.raw(get("/")).await.is_ok() {
            assert_eq!(second.peers.lock().len(), 1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not reconnected; while it was down: {error:?}");
}

#[tokio::test]
async fn a_server_that_the_ca_did_not_sign_is_refused_and_named() {
    let server = server("127.0.0.1:0", folder(), 250).await;
    let other = folder();
    let config = RestConfig {
        ca: Some(Pem::File(other.join("tls.crt"))),
        ..config(&server)
    };
    let error = Client::new(config, "test")
        .unwrap()
        .raw(get("/"))
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
    std::fs::remove_dir_all(other).unwrap();
}
