//! Where the binaries are, and how they are run.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    V34,
    V35,
}

impl Rival {
    /// Folder of its `etcd` and `etcdctl`. None when there is none, with the reason printed.
    fn folder(self) -> Option<PathBuf> {
        let (variable, default, remedy) = match self {
            Rival::V34 => (
                "FERROKUBE_ETCD_34",
                "/usr/bin",
                "apt-get install etcd-server etcd-client",
            ),
            Rival::V35 => (
                "FERROKUBE_ETCD_35",
                "",
                "set FERROKUBE_ETCD_35 to a folder with etcd 3.5's binaries",
            ),
        };
        let folder = std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
        let there = folder.join("etcd").exists() && folder.join("etcdctl").exists();
        if !there {
            eprintln!("skipped: {self:?} is not here ({remedy})");
        }
        there.then_some(folder)
    }

    pub fn etcd(self) -> Option<PathBuf> {
        Some(self.folder()?.join("etcd"))
    }

    pub fn etcdctl(self) -> Option<PathBuf> {
        Some(self.folder()?.join("etcdctl"))
    }
}

pub fn our_etcd() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_BIN_EXE_etcdctl")).with_file_name("etcd");
    let path = std::env::var_os("FERROKUBE_ETCD").map_or_else(beside, PathBuf::from);
    if !path.exists() {
        eprintln!("skipped: {} is not here (cargo build -p etcd)", path.display());
        return None;
    }
    Some(path)
}

pub fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_etcdctl"))
}

#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

pub fn command(program: &Path, api: u8, endpoints: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCDCTL_") {
            command.env_remove(name);
        }
    }
    command
        .env("ETCDCTL_API", api.to_string())
        .env("ETCDCTL_ENDPOINTS", endpoints);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn run(command: &mut Command, stdin: &str) -> Output {
    let mut running = Running::start(command);
    running.say(stdin);
    running.child.stdin = None;
    running.finish()
}

/// A process whose output is read as it comes.
pub struct Running {
    pub child: Child,
    readers: Vec<JoinHandle<Vec<u8>>>,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.spawn().unwrap();
        let seen = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let copy = seen.clone();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                copy.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
            Vec::new()
        });
        let err = std::thread::spawn(move || {
            let mut all = Vec::new();
            stderr.read_to_end(&mut all).unwrap();
            all
        });
        Running {
            child,
            readers: vec![out, err],
            seen,
        }
    }

    pub fn say(&mut self, text: &str) {
        // One that refuses its arguments does not read them.
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).ok();
    }

    /// Waits until stdout has said something.
    pub fn wait_for(&self, what: &str) {
        let start = Instant::now();
        while !String::from_utf8_lossy(&self.seen.lock().unwrap()).contains(what) {
            assert!(
                start.elapsed() < PATIENCE,
                "{what:?} never came, but {:?}",
                self.so_far()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn finish(mut self) -> Output {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                panic!("it did not end, but said {:?}", self.so_far());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut read: Vec<Vec<u8>> = std::mem::take(&mut self.readers)
            .into_iter()
            .map(|r| r.join().unwrap())
            .collect();
        let stdout = std::mem::take(&mut *self.seen.lock().unwrap());
        Output {
            code: status.code(),
            stdout,
            stderr: read.pop().unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
