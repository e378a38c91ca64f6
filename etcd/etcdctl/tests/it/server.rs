//! An etcd of any make, in a folder and on ports of its own.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use free_port::free_port;
use tempfile::TempDir;

use crate::programs::{Output, PATIENCE, command, ours, run};

pub struct Server {
    child: Child,
    pub port: u16,
    pub peer_port: u16,
    scheme: &'static str,
    pub folder: TempDir,
}

impl Server {
    pub fn start(program: &Path, extra: &[&str]) -> Server {
        Server::start_with(program, "http", extra)
    }

    pub fn start_with(program: &Path, scheme: &'static str, extra: &[&str]) -> Server {
        let folder = TempDir::new().unwrap();
        let (port, peer_port) = (free_port(), free_port());
        let (client, peer) = (
            format!("{scheme}://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args([
                "--name=it",
                &format!("--data-dir={}", folder.path().join("data").display()),
            ])
            .args([
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
            ])
            .args([
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ])
            .arg(format!("--initial-cluster=it={peer}"))
            .args(extra)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Server {
            child,
            port,
            peer_port,
            scheme,
            folder,
        };
        server.wait_ready();
        server
    }

    fn wait_ready(&self) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let open = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            if open && (self.scheme == "https" || self.answers()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("etcd did not begin to serve:\n{}", self.log());
    }

    fn answers(&self) -> bool {
        self.ctl(&["get", "x", "--command-timeout=1s"]).code == Some(0)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// As etcdctl's v3 face takes it.
    pub fn endpoint(&self) -> String {
        match self.scheme {
            "http" => format!("127.0.0.1:{}", self.port),
            scheme => format!("{scheme}://127.0.0.1:{}", self.port),
        }
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Our etcdctl on it.
    pub fn ctl(&self, args: &[&str]) -> Output {
        run(&mut command(&ours(), 3, &self.endpoint(), args), "")
    }

    /// What it prints when it succeeds.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert_eq!(
            output.code,
            Some(0),
            "etcdctl {args:?}: {}\n{}",
            output.errors(),
            self.log()
        );
        output.text()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
