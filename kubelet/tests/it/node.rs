//! One kubelet in a temporary directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use component_base::drain::Drain;
use cri::fake::FakeRuntime;
use kubelet::app::{FoundRuntime, Pieces, start};
use kubelet::cgroups::Driver;
use kubelet::kubelet_config::KubeletConfiguration;
use kubelet::node::machine::Machine;

pub struct TestNode {
    pub dir: tempfile::TempDir,
    pub runtime: FakeRuntime,
    running: Option<(Drain, tokio::task::JoinHandle<anyhow::Result<()>>)>,
    client: Option<Client>,
}

impl TestNode {
    pub async fn new(runtime: FakeRuntime, client: Option<Client>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        let mut node = Self {
            dir,
            runtime,
            running: None,
            client,
        };
        node.start();
        node
    }

    pub fn start(&mut self) {
        let root = self.dir.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        let flags = kubelet::options::flags()
            .parse(std::iter::empty::<OsString>())
            .unwrap();
        let config = KubeletConfiguration {
            static_pod_path: self.manifests().display().to_string(),
            enable_server: false,
            healthz_port: 0,
            cgroups_per_qos: false,
            pod_logs_dir: self.dir.path().join("logs").display().to_string(),
            eviction_hard: Default::default(),
            ..Default::default()
        };
        let machine = Machine::look(&config, "node", "127.0.0.1", &root).unwrap();
        let found = FoundRuntime {
            name: "fake".into(),
            version: "fake://1".into(),
            driver: Driver::Cgroupfs,
        };
        let pieces = Pieces {
            flags,
            config,
            root_dir: root,
            machine,
            runtime: Arc::new(self.runtime.clone()),
            found,
            client: self.client.clone(),
        };
        let drain = Drain::new();
        self.running = Some((drain.clone(), tokio::spawn(start(pieces, drain))));
    }

    pub async fn stop(&mut self) {
        if let Some((drain, task)) = self.running.take() {
            drain.start();
            task.await.unwrap().unwrap();
        }
    }

    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.manifests().join(name), text).unwrap();
    }

    pub fn pods_on_disk(&self) -> usize {
        count(&self.dir.path().join("root/pods"))
    }
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Waits until `check` holds; says what it waited for when it never does.
pub async fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
