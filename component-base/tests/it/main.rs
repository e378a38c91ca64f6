//! A real daemon process, met by curl, openssl, signals and systemd's socket.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Cargo builds examples beside the tests.
fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().and_then(|deps| deps.parent()).unwrap();
    target.join("examples/daemon")
}

fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Killed when dropped.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(args: &[&str], notify: Option<&str>) -> Self {
        let mut command = Command::new(binary());
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(socket) = notify {
            command
                .env("NOTIFY_SOCKET", socket)
                .env("WATCHDOG_USEC", "200000");
        }
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Daemon {
            child,
            address: address.trim().to_owned(),
        }
    }

    fn signal(&self, name: &str) {
        assert!(
            Command::new("kill")
                .args([name, &self.child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Exit code and log.
    fn wait(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the daemon does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn bad_usage_ends_with_exit_code_1_before_a_port_opens() {
    for (args, wanted) in [
        (
            &["--bind-addres=127.0.0.1:0"][..],
            "Error: unknown flag: --bind-addres\n\nDid you mean --bind-address?",
        ),
        (&["--v=x"], "Error: invalid argument \"x\" for \"--v\" flag"),
        (
            &["extra"],
            "Error: \"daemon\" does not take any arguments, got [\"extra\"]",
        ),
        (&["--logging-format=xml"], "Unsupported log format"),
        (&["--vmodule=nonsense"], "\"nonsense\" is not pattern=N"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output.stderr).contains(wanted),
            "{wanted} not in {}",
            text(&output.stderr)
        );
        assert!(
            output.stdout.is_empty(),
            "{args:?} opened {}",
            text(&output.stdout)
        );
    }
}

#[test]
fn help_and_version_are_answered_on_stdout() {
    let help = run(&["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--bind-address string"));
    assert_eq!(
        text(&run(&["--version"]).stdout),
        "Kubernetes v1.36.2+ferrokube\n"
    );
}

#[test]
fn a_failing_start_is_an_error_line_and_exit_code_1() {
    let output = run(&["--bind-address=nowhere"]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        log.lines().any(|line| line.starts_with('E')
            && line.contains("] \"Command failed\" err=\"invalid listen address")),
        "{log}"
    );
}

#[test]
fn sigterm_drains_and_ends_with_exit_code_0() {
    let daemon = Daemon::start(&["--v=1", "--old_flag=x"], None);
    daemon.signal("-TERM");
    let (code, log) = daemon.wait();
    assert_eq!(code, Some(0), "{log}");
    for wanted in [
        "Flag --old-flag has been removed and is ignored",
        "FLAG: --bind-address=\\\"127.0.0.1:0\\\"",
        "\"Received signal, shutting down\" signal=\"SIGTERM\"",
        "\"Stopped\"",
    ] {
        assert!(log.contains(wanted), "{wanted} not in {log}");
    }
}

#[test]
fn systemd_hears_of_readiness_and_the_watchdog_is_fed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _daemon = Daemon::start(&[], path.to_str());
    let mut heard = std::collections::BTreeMap::new();
    while !heard.contains_key("READY=1") || heard.get("WATCHDOG=1").copied().unwrap_or(0) < 3 {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).unwrap();
        *heard.entry(text(&buffer[..length])).or_insert(0) += 1;
    }
    let status = heard.keys().find(|message| message.starts_with("STATUS="));
    assert!(status.is_some_and(|s| s.ends_with("is starting")), "{heard:?}");
}

/// An authority, a server certificate for 127.0.0.1, and a version-1 client certificate as the courses make it.
fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 5 -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -subj /CN=server -out server.csr
        printf 'subjectAltName=IP:127.0.0.1\\n' > ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 5 -extfile ext -out server.crt
        openssl req -newkey rsa:2048 -nodes -keyout admin.key -subj /CN=admin/O=system:masters -out admin.csr
        openssl x509 -req -in admin.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 5 -out admin.crt";
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    dir
}

fn over_tls(dir: &TempDir) -> Daemon {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.path().join(name).display());
    let args = [
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("client-ca-file", "ca.crt"),
    ];
    Daemon::start(&args.iter().map(String::as_str).collect::<Vec<_>>(), None)
}

#[test]
fn curl_speaks_both_protocols_with_and_without_a_version_1_certificate() {
    let dir = certificates();
    let daemon = over_tls(&dir);
    let curl = |args: &str| {
        let url = format!("https://{}/whoami", daemon.address);
        let output = Command::new("curl")
            .args(["-sS", "--cacert", "ca.crt"])
            .args(args.split_whitespace())
            .arg(url)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(curl("--http1.1"), "HTTP/1.1 nobody");
    assert_eq!(curl("--http2"), "HTTP/2.0 nobody");
    for version in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
        assert_eq!(
            curl(&format!("{version} --cert admin.crt --key admin.key")),
            "HTTP/2.0 admin verified=true"
        );
    }
}

#[test]
fn openssl_verifies_the_server_and_old_protocols_are_refused() {
    let dir = certificates();
    let daemon = over_tls(&dir);
    let client = |args: &str| {
        let line = format!(
            "s_client -connect {} -CAfile ca.crt -verify_return_error {args}",
            daemon.address
        );
        let output = Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.success(), text(&output.stdout))
    };
    let (good, said) = client("-verify_ip 127.0.0.1 -alpn h2");
    assert!(
        good && said.contains("Verify return code: 0 (ok)") && said.contains("ALPN protocol: h2"),
        "{said}"
    );
    assert!(
        said.contains("Acceptable client certificate CA names\nCN = ca"),
        "{said}"
    );
    assert!(!client("-tls1_1 -cipher ALL:@SECLEVEL=0").0);
}
