//! A web server to see a cluster with: it says which pod on which node answered.
//!
//! `GET /` names host, pod address, node and path; `/hostname` only the host; `/env` the environment;
//! `/healthz` and `/readyz` are for probes. SIGTERM makes `/readyz` fail, waits `--grace-ms`, then exits 0.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use images::signals::{Blocked, Signal, reap_children};

/// Requests answered at the same time; more wait in the listen backlog.
const MAX_CONNECTIONS: usize = 256;
/// A request head longer than this is refused.
const MAX_HEAD_BYTES: u64 = 8 * 1024;
/// A request body is read up to here, so that closing does not reset the connection under the client.
const MAX_BODY_BYTES: u64 = 1024 * 1024;
/// How long a client may take over its request or over reading the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

const USAGE: &str = "usage: demo-web [--port 8080] [--grace-ms 0]
  --port N      the port to listen on, on all addresses (default 8080)
  --grace-ms N  milliseconds between SIGTERM and the exit, during which /readyz answers 503 (default 0)";

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(options) => run(options).unwrap_or_else(|error| fail(&format!("demo-web: {error}"))),
        Err(Usage::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(Usage::Wrong(why)) => fail(&format!("demo-web: {why}\n{USAGE}")),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}

#[derive(Debug, PartialEq)]
struct Options {
    port: u16,
    grace: Duration,
}

#[derive(Debug, PartialEq)]
enum Usage {
    Help,
    Wrong(String),
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, Usage> {
        let mut options = Self {
            port: 8080,
            grace: Duration::ZERO,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            if name == "--help" || name == "-h" {
                return Err(Usage::Help);
            }
            let value = value.or_else(|| args.next());
            options.set(&name, value.as_deref())?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Usage> {
        let wrong = |wanted: &str| Usage::Wrong(format!("{name} wants {wanted}, not {value:?}"));
        match name {
            "--port" => {
                self.port = value
                    .and_then(|v| v.parse().ok())
                    .ok_or_else(|| wrong("a port"))?;
            }
            "--grace-ms" => {
                let millis = value
                    .and_then(|v| v.parse().ok())
                    .ok_or_else(|| wrong("a number"))?;
                self.grace = Duration::from_millis(millis);
            }
            _ => return Err(Usage::Wrong(format!("unknown argument {name}"))),
        }
        Ok(())
    }
}

/// What all connections share.
struct Server {
    draining: AtomicBool,
    connections: AtomicUsize,
}

fn run(options: Options) -> io::Result<ExitCode> {
    let signals = Blocked::new()?;
    // Both families in one socket where the kernel has IPv6, plain IPv4 where it does not.
    let listener = TcpListener::bind(("::", options.port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", options.port)))
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on port {}: {e}", options.port)))?;
    println!("demo-web: {} listens on {}", hostname(), listener.local_addr()?);
    let server = Arc::new(Server {
        draining: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
    });
    let accepting = Arc::clone(&server);
    std::thread::Builder::new().spawn(move || accept(&listener, &accepting))?;
    while signals.wait() == Signal::Child {
        reap_children();
    }
    println!("demo-web: terminating in {} ms", options.grace.as_millis());
    server.draining.store(true, Ordering::Relaxed);
    std::thread::sleep(options.grace);
    Ok(ExitCode::SUCCESS)
}

fn accept(listener: &TcpListener, server: &Arc<Server>) {
    loop {
        // An error here is the client's (reset before accept) or a shortage; both pass.
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        while server.connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            std::thread::sleep(ACCEPT_PAUSE);
        }
        server.connections.fetch_add(1, Ordering::Relaxed);
        let on_thread = Arc::clone(server);
        let spawned = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            // The client went away or was too slow: there is nobody to tell.
            let _ = answer(stream, &on_thread);
            on_thread.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            server.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(stream: TcpStream, server: &Server) -> io::Result<()> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let mut reader = BufReader::new(&stream);
    let Some(request) = Request::read(&mut reader)? else {
        return respond(&stream, 400, "Bad Request", "not an HTTP request\n", false);
    };
    io::copy(
        &mut reader.by_ref().take(request.body_bytes.min(MAX_BODY_BYTES)),
        &mut io::sink(),
    )?;
    let draining = server.draining.load(Ordering::Relaxed);
    let (status, reason, body) = route(&request.path, draining);
    println!("demo-web: {} {} {status}", request.method, request.path);
    respond(&stream, status, reason, &body, request.method == "HEAD")
}

#[derive(Debug, PartialEq)]
struct Request {
    method: String,
    path: String,
    body_bytes: u64,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.take(MAX_HEAD_BYTES);
        let mut line = String::new();
        head.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Ok(None);
        };
        if !version.starts_with("HTTP/1.") {
            return Ok(None);
        }
        let mut request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            body_bytes: 0,
        };
        loop {
            let mut header = String::new();
            if head.read_line(&mut header)? == 0 {
                return Ok(None);
            }
            match header.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    request.body_bytes = value.trim().parse().unwrap_or(0);
                }
                Some(_) => {}
                None => return Ok(Some(request)),
            }
        }
    }
}

fn route(path: &str, draining: bool) -> (u16, &'static str, String) {
    match path.split('?').next().unwrap_or(path) {
        "/healthz" => (200, "OK", "ok\n".to_owned()),
        "/readyz" if draining => (503, "Service Unavailable", "terminating\n".to_owned()),
        "/readyz" => (200, "OK", "ok\n".to_owned()),
        "/hostname" => (200, "OK", format!("{}\n", hostname())),
        "/env" => (200, "OK", environment()),
        _ => (200, "OK", greeting(path)),
    }
}

fn greeting(path: &str) -> String {
    let from_env = |name: &str| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    format!(
        "hostname: {}\npod ip: {}\nnode: {}\npath: {path}\n",
        hostname(),
        from_env("POD_IP"),
        from_env("NODE_NAME"),
    )
}

fn environment() -> String {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy()))
        .collect();
    lines.sort();
    lines.concat()
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .or_else(|_| std::env::var("HOSTNAME").map_err(io::Error::other))
        .unwrap_or_else(|_| "unknown".to_owned())
}

fn respond(mut to: &TcpStream, status: u16, reason: &str, body: &str, head_only: bool) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let sent = if head_only { head } else { head + body };
    to.write_all(sent.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, Usage> {
        Options::parse(args.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn both_flag_spellings_are_understood() {
        let wanted = Ok(Options {
            port: 9000,
            grace: Duration::from_millis(5),
        });
        assert_eq!(parse(&["--port", "9000", "--grace-ms=5"]), wanted);
        assert!(matches!(parse(&["--port", "http"]), Err(Usage::Wrong(_))));
        assert!(matches!(parse(&["--prot=1"]), Err(Usage::Wrong(_))));
    }

    #[test]
    fn a_request_is_read_with_its_body_length() {
        let mut text: &[u8] = b"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let request = Request::read(&mut text).expect("reads").expect("is HTTP");
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.body_bytes),
            ("POST", "/x?y", 3)
        );
        assert_eq!(text, b"abc");
    }

    #[test]
    fn garbage_and_endless_heads_are_refused() {
        assert_eq!(
            Request::read(&mut &b"\x16\x03\x01 hello\r\n"[..]).expect("reads"),
            None
        );
        let endless = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(10_000)].concat();
        assert_eq!(Request::read(&mut endless.as_slice()).expect("reads"), None);
    }

    #[test]
    fn readiness_ends_with_the_drain_and_health_does_not() {
        assert_eq!(route("/readyz", false).0, 200);
        assert_eq!(route("/readyz", true).0, 503);
        assert_eq!(route("/healthz", true).0, 200);
    }
}
