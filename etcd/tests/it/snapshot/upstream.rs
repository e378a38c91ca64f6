//! Clusters that move to the real etcd and back, where there is one.

use super::*;

/// Directories with programs of the real etcd, colon-separated; `/usr/bin` is always looked at.
const UPSTREAM_VARIABLE: &str = "FERROKUBE_UPSTREAM_ETCD";

/// The programs of one real etcd.
struct Upstream {
    dir: PathBuf,
}

impl Upstream {
    fn all() -> Vec<Upstream> {
        let more = std::env::var(UPSTREAM_VARIABLE).unwrap_or_default();
        let dirs = more.split(':').filter(|dir| !dir.is_empty()).chain(["/usr/bin"]);
        let found: Vec<Upstream> = dirs
            .map(|dir| Upstream { dir: dir.into() })
            .filter(|upstream| upstream.has("etcd") && upstream.has("etcdctl"))
            .collect();
        if found.is_empty() {
            eprintln!(
                "skipped: no real etcd (apt-get install etcd-client etcd-server, or {UPSTREAM_VARIABLE}=<directory>)"
            );
        }
        found
    }

    fn has(&self, program: &str) -> bool {
        self.dir.join(program).exists()
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new(self.dir.join(program))
            .env("ETCDCTL_API", "3")
            .args(args)
            .output()
            .unwrap()
    }

    fn ctl(&self, port: u16, args: &[&str]) -> String {
        let endpoint = format!("--endpoints=127.0.0.1:{port}");
        stdout(self.run("etcdctl", &[&[endpoint.as_str()], args].concat()))
    }

    /// From 3.5 on restoring is etcdutl's.
    fn restore(&self, file: &Path, dir: &Path, peer_port: u16) {
        let program = if self.has("etcdutl") { "etcdutl" } else { "etcdctl" };
        let [cluster, advertised] = cluster_flags(peer_port);
        let data_dir = format!("--data-dir={}", dir.display());
        stdout(self.run(
            program,
            &[
                "snapshot",
                "restore",
                path(file),
                "--name=it",
                &data_dir,
                &cluster,
                &advertised,
            ],
        ));
    }

    fn start(&self, dir: &Path) -> Running {
        let (port, peer_port) = (free_port(), peer_port_of(dir));
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let log = std::fs::File::create(dir.with_extension("log")).unwrap();
        let child = Command::new(self.dir.join("etcd"))
            .args(["--name=it", &format!("--data-dir={}", dir.display())])
            .args([
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
            ])
            .args([format!("--listen-peer-urls={peer}")])
            .args(cluster_flags(peer_port))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        let running = Running { child, port };
        let start = Instant::now();
        while crate::harness::try_get(port, "/health").is_none_or(|(status, _)| status != 200) {
            let log = std::fs::read_to_string(dir.with_extension("log")).unwrap();
            assert!(
                start.elapsed() < PATIENCE,
                "the real etcd did not begin to serve:\n{log}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        running
    }
}

/// A test's directory bears its peer port.
fn peer_port_of(dir: &Path) -> u16 {
    dir.file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .rsplit('-')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

struct Running {
    child: std::process::Child,
    port: u16,
}

impl Running {
    /// In order, so that its database holds everything.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What can be compared of two members: keys with all revisions, hash and leases.
fn shown(upstream: &Upstream, port: u16) -> (serde_json::Value, u64, String) {
    let keys: serde_json::Value =
        serde_json::from_str(&upstream.ctl(port, &["get", "", "--prefix", "-w", "json"])).unwrap();
    let hash: serde_json::Value =
        serde_json::from_str(&upstream.ctl(port, &["endpoint", "hashkv", "-w", "json"])).unwrap();
    let lease = upstream.ctl(port, &["lease", "timetolive", "1267", "--keys"]);
    let lease = lease.split("remaining").next().unwrap().to_owned() + lease.rsplit(',').next().unwrap();
    (
        keys["kvs"].clone(),
        hash[0]["HashKV"]["hash"].as_u64().unwrap(),
        lease,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_to_the_real_etcd_and_back() {
    for upstream in Upstream::all() {
        let etcd = Etcd::start();
        let revision = fill(&etcd).await;
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("ours.db");
        upstream.ctl(etcd.port, &["snapshot", "save", path(&file)]);
        let expected = shown(&upstream, etcd.port);
        assert!(expected.2.contains("attached keys([leased])"), "{expected:?}");

        let peer_port = free_port();
        let theirs = folder.path().join(format!("theirs-{peer_port}"));
        upstream.restore(&file, &theirs, peer_port);
        let running = upstream.start(&theirs);
        assert_eq!(shown(&upstream, running.port), expected);
        let hash_of_file = |file: &Path| stdout(etcdutl(&["hashkv", path(file)]));
        let hashes = |file: &Path| hash_of_file(file).split(", ").next().unwrap().to_owned();
        assert_eq!(hashes(&file), expected.1.to_string());
        // Its own pages by now.
        for number in 0..50 {
            upstream.ctl(
                running.port,
                &["put", &format!("more{number}"), &"y".repeat(number * 100)],
            );
        }
        let saved = folder.path().join("theirs.db");
        upstream.ctl(running.port, &["snapshot", "save", path(&saved)]);
        let expected = shown(&upstream, running.port);
        assert_eq!(hashes(&saved), expected.1.to_string());
        running.stop();

        // Once from the snapshot, and once from the database of the stopped member, as the refusal to start tells.
        let database = theirs.join("member/snap/db");
        for (name, file, flag) in [
            ("a", &saved, "--skip-hash-check=false"),
            ("b", &database, "--skip-hash-check"),
        ] {
            let dir = folder.path().join(name);
            stdout(restore(file, &dir, &[flag]));
            let back = Etcd::start_in(&dir, "http", &[]);
            assert_eq!(shown(&upstream, back.port), expected);
            let written = revision_of(&mut back.kv().await, put("new", "value")).await;
            assert_eq!(written, revision + 51);
        }
    }
}

#[test]
fn the_database_of_a_running_etcd_is_refused() {
    for upstream in Upstream::all() {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().join(format!("theirs-{}", free_port()));
        let _running = upstream.start(&dir);
        let output = restore(
            &dir.join("member/snap/db"),
            &folder.path().join("new"),
            &["--skip-hash-check"],
        );
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("in use by a running etcd"));
    }
}
