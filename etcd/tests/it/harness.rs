//! An etcd process in a folder of its own, on ports of its own, killed by its id when the test ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::lease_client::LeaseClient;
use etcd_api::etcdserverpb::watch_client::WatchClient;
use etcd_api::etcdserverpb::{PutRequest, RangeRequest};
use free_port::free_port;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Debian's.
pub const ETCDCTL: &str = "/usr/bin/etcdctl";

pub struct Etcd {
    pub child: Child,
    pub port: u16,
    pub peer_port: u16,
    pub dir: PathBuf,
    pub extra: Vec<String>,
    pub scheme: &'static str,
    starts: usize,
    _folder: Option<TempDir>,
}

pub fn command(dir: &Path, scheme: &str, port: u16, peer_port: u16, extra: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
    let (client, peer) = (
        format!("{scheme}://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer_port}"),
    );
    command.args([
        "--name=it",
        &format!("--data-dir={}", dir.display()),
        &format!("--listen-client-urls={client}"),
    ]);
    command.args([
        &format!("--advertise-client-urls={client}"),
        &format!("--listen-peer-urls={peer}"),
    ]);
    command
        .args([&format!("--initial-advertise-peer-urls={peer}")])
        .args(extra);
    command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    command
}

impl Etcd {
    pub fn start() -> Etcd {
        Etcd::start_with(&[])
    }

    pub fn start_with(extra: &[&str]) -> Etcd {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().join("data");
        let mut etcd = Etcd::start_in(&dir, "http", extra);
        etcd._folder = Some(folder);
        etcd
    }

    pub fn start_in(dir: &Path, scheme: &'static str, extra: &[&str]) -> Etcd {
        let extra: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
        let (port, peer_port) = (free_port(), free_port());
        let child = spawn(dir, scheme, port, peer_port, &extra);
        let mut etcd = Etcd {
            child,
            port,
            peer_port,
            dir: dir.to_owned(),
            extra,
            scheme,
            starts: 1,
            _folder: None,
        };
        etcd.wait_ready();
        etcd
    }

    fn log_path(&self) -> PathBuf {
        log_path(&self.dir)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("etcd ended with {status}:\n{}", self.log());
            }
            // Its ports are open before it has read its data.
            if self.log().matches("ready to serve client requests").count() >= self.starts {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("etcd did not begin to serve:\n{}", self.log());
    }

    /// SIGKILL, as a power switch for the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// By its id alone: STOP, CONT.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success(), "kill -{name}");
    }

    /// Waits until it has ended by itself.
    pub fn ends(&mut self) {
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    pub fn start_again(&mut self) {
        self.starts += 1;
        self.child = spawn(&self.dir, self.scheme, self.port, self.peer_port, &self.extra);
        self.wait_ready();
    }

    /// Starts it and waits until it ends by itself; its exit code and what it said.
    pub fn start_refused(&self) -> (Option<i32>, String) {
        let output = command(&self.dir, self.scheme, self.port, self.peer_port, &self.extra)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    pub async fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel().await)
    }

    pub async fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel().await)
    }

    /// Debian's etcdctl. None when it is not installed, with the reason printed.
    pub fn etcdctl(&self, args: &[&str]) -> Option<Output> {
        let endpoint = format!("--endpoints=127.0.0.1:{}", self.port);
        etcdctl(&[&[endpoint.as_str()], args].concat(), "")
    }

    /// What it prints when it succeeds.
    pub fn ctl(&self, args: &[&str]) -> Option<String> {
        let output = self.etcdctl(args)?;
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.port, path)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.with_extension("log")
}

fn spawn(dir: &Path, scheme: &str, port: u16, peer_port: u16, extra: &[String]) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path(dir))
        .unwrap();
    command(dir, scheme, port, peer_port, extra)
        .stderr(log)
        .spawn()
        .unwrap()
}

pub fn etcdctl(args: &[&str], input: &str) -> Option<Output> {
    if !Path::new(ETCDCTL).exists() {
        eprintln!("skipped: {ETCDCTL} is not installed (apt-get install etcd-client)");
        return None;
    }
    let mut child = Command::new(ETCDCTL)
        .env("ETCDCTL_API", "3")
        .args(["--dial-timeout=5s", "--command-timeout=10s"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

/// None while nobody listens.
pub fn try_get(port: u16, path: &str) -> Option<(u16, String)> {
    TcpStream::connect(("127.0.0.1", port)).ok()?;
    Some(http_get(port, path))
}

/// Status and body of a plain HTTP/1.1 GET.
pub fn http_get(port: u16, path: &str) -> (u16, String) {
    http_get_as(port, path, "localhost")
}

pub fn http_get_as(port: u16, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    (
        status,
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default(),
    )
}

pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> PutRequest {
    PutRequest {
        key: key.into().into(),
        value: value.into().into(),
        ..Default::default()
    }
}

/// Puts, and says at which revision.
pub async fn revision_of(kv: &mut KvClient<Channel>, request: PutRequest) -> i64 {
    let answer = kv.put(request).await.unwrap().into_inner();
    answer.header.unwrap().revision
}

pub fn prefix(key: &str) -> RangeRequest {
    let mut end = key.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    RangeRequest {
        key: key.to_owned().into(),
        range_end: end.into(),
        ..Default::default()
    }
}

/// What an HTTP request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }
}

/// One request on a connection of its own.
pub fn http(port: u16, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = Streaming::begin(port, method, target, headers, Some(body));
    let mut text = String::new();
    if method != "HEAD" {
        while let Some(line) = stream.line() {
            text.push_str(&line);
        }
    }
    Answer {
        status: stream.status,
        headers: std::mem::take(&mut stream.headers),
        body: text,
    }
}

/// A response that is read while it comes, over HTTP/1.1.
pub struct Streaming {
    reader: BufReader<TcpStream>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    chunked: bool,
    /// Of the current chunk, or of the whole body.
    left: Option<usize>,
    pending: Vec<u8>,
}

impl Streaming {
    pub fn get(port: u16, target: &str) -> Streaming {
        Streaming::begin(port, "GET", target, &[], Some(""))
    }

    pub fn post(port: u16, target: &str, body: &str) -> Streaming {
        Streaming::begin(port, "POST", target, &[], Some(body))
    }

    /// With a body that [`Streaming::send`] adds to; the response is read when its first line is asked for.
    pub fn open(port: u16, target: &str) -> Streaming {
        Streaming::begin(port, "POST", target, &[], None)
    }

    fn begin(
        port: u16,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Streaming {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        match body {
            Some(body) => request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len())),
            None => request.push_str("Transfer-Encoding: chunked\r\n\r\n"),
        }
        // Who refuses a large body may answer before it has read it.
        (&stream).write_all(request.as_bytes()).ok();
        let mut streaming = Streaming {
            reader: BufReader::new(stream),
            status: 0,
            headers: Vec::new(),
            chunked: false,
            left: None,
            pending: Vec::new(),
        };
        if body.is_some() {
            streaming.read_head();
        }
        streaming
    }

    pub fn send(&mut self, data: &str) {
        let mut stream = self.reader.get_ref();
        write!(stream, "{:x}\r\n{data}\r\n", data.len()).unwrap();
    }

    fn read_head(&mut self) {
        let status = self.raw_line();
        self.status = status.split(' ').nth(1).unwrap_or_default().parse().unwrap();
        loop {
            let line = self.raw_line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            match name {
                "transfer-encoding" => self.chunked = value == "chunked",
                "content-length" => self.left = Some(value.parse().unwrap()),
                _ => {}
            }
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn raw_line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line with its end, or what is left at the end.
    pub fn line(&mut self) -> Option<String> {
        if self.status == 0 {
            self.read_head();
        }
        loop {
            if let Some(place) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=place).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.fill() {
                let rest = std::mem::take(&mut self.pending);
                return (!rest.is_empty()).then(|| String::from_utf8(rest).unwrap());
            }
        }
    }

    fn fill(&mut self) -> bool {
        if self.chunked {
            let size = usize::from_str_radix(&self.raw_line(), 16).unwrap_or(0);
            self.left = Some(size);
            if size == 0 {
                return false;
            }
        }
        let mut data = vec![0; self.left.take().unwrap_or(0)];
        self.reader.read_exact(&mut data).unwrap();
        if self.chunked {
            self.raw_line();
        }
        self.pending.extend_from_slice(&data);
        !data.is_empty()
    }

    pub fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.line().expect("the stream has ended")).unwrap()
    }

    pub fn ended(&mut self) -> bool {
        self.line().is_none()
    }
}
