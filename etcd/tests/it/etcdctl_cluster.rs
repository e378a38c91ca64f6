//! What operators do with a cluster of several members: Debian's etcdctl 3.4 and ours, over TLS and over plain HTTP.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::ETCDCTL;
use crate::members::{Cluster, Node};
use crate::tls::Pki;

/// An etcdctl that is told of the first member.
struct Tool {
    path: PathBuf,
    flags: Vec<String>,
}

impl Tool {
    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.path)
            .env("ETCDCTL_API", "3")
            .args(&self.flags)
            .args(args)
            .output()
            .unwrap()
    }

    /// What it prints when it succeeds.
    fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} {args:?}: {errors}",
            self.path.display()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn succeeds_at_last(&self, cluster_of: &Node, args: &[&str]) {
        let start = std::time::Instant::now();
        loop {
            let output = self.run(args);
            if output.status.success() {
                return;
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                start.elapsed() < crate::harness::PATIENCE,
                "{args:?}: {errors}\n{}",
                cluster_of.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Debian's, and the one that was built beside our etcd; those that are here, and why the others are not.
fn tools(cluster: &Cluster) -> Vec<Tool> {
    let ours = Path::new(env!("CARGO_BIN_EXE_etcd")).with_file_name("etcdctl");
    let node = &cluster.nodes[0];
    let flags = match &cluster.pki {
        None => vec![format!("--endpoints=http://127.0.0.1:{}", node.port)],
        Some(pki) => vec![
            format!("--endpoints=https://127.0.0.1:{}", node.tls_port),
            format!("--cacert={}", pki.path("ca.crt").display()),
        ],
    };
    let remedies = [
        (PathBuf::from(ETCDCTL), "apt-get install etcd-client"),
        (ours, "cargo build -p etcdctl"),
    ];
    let here = remedies.into_iter().filter(|(path, remedy)| {
        if !path.exists() {
            eprintln!("skipped: {} is not here ({remedy})", path.display());
        }
        path.exists()
    });
    here.map(|(path, _)| Tool {
        path,
        flags: flags.clone(),
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_is_asked_and_leadership_is_moved() {
    for pki in [Some(Pki::new()), None] {
        let cluster = Cluster::start(3, pki, &[]).await;
        let tools = tools(&cluster);
        let mut lists = Vec::new();
        for tool in &tools {
            tool.says(&["put", "k", "v"]);
            cluster.agree().await;
            let list = tool.says(&["member", "list", "-w", "table"]);
            assert_eq!(list.matches("started").count(), 3, "{list}");
            lists.push(list);
            let status = tool.says(&["endpoint", "status", "--cluster", "-w", "table"]);
            assert_eq!(status.matches("3.6.8").count(), 3, "{status}");
            let leads = |line: &&str| line.split('|').any(|cell| cell.trim() == "true");
            assert_eq!(status.lines().filter(leads).count(), 1, "{status}");
            let health = tool.run(&["endpoint", "health", "--cluster"]);
            let health = String::from_utf8_lossy(&[health.stdout, health.stderr].concat()).into_owned();
            assert_eq!(health.matches("is healthy").count(), 3, "{health}");
            let hash = tool.says(&["endpoint", "hashkv", "--cluster"]);
            let values: Vec<&str> = hash.lines().filter_map(|line| line.split(", ").nth(1)).collect();
            assert!(
                values.len() == 3 && values.iter().all(|value| *value == values[0]),
                "{hash}"
            );
            let leader = cluster.leader().await;
            let target = (leader + 1) % 3;
            let to = format!("{:x}", cluster.id(target).await);
            // Only the leader can do it: it is looked for among those that are named.
            let all: Vec<String> = cluster
                .nodes
                .iter()
                .map(|node| format!("127.0.0.1:{}", node.port))
                .collect();
            let plain = Tool {
                path: tool.path.clone(),
                flags: vec![format!("--endpoints={}", all.join(","))],
            };
            let moved = plain.says(&["move-leader", &to]);
            assert!(moved.contains("Leadership transferred"), "{moved}");
            assert_eq!(cluster.leader().await, target);
        }
        assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "{lists:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_added_promoted_updated_and_removed() {
    let mut cluster = Cluster::start(3, Some(Pki::new()), &[]).await;
    for (number, tool) in tools(&cluster).into_iter().enumerate() {
        let place = cluster.nodes.len();
        let node = Node::new(&cluster.folder, place + number);
        let (name, url) = (
            node.name.clone(),
            format!("--peer-urls=https://127.0.0.1:{}", node.peer_port),
        );
        cluster.nodes.push(node);
        tool.succeeds_at_last(&cluster.nodes[0], &["member", "add", &name, &url, "--learner"]);
        assert!(tool.says(&["member", "list"]).contains("unstarted"));
        cluster.spawn(place, "existing", &[]);
        cluster.wait_ready().await;
        let id = format!("{:x}", cluster.id(place).await);
        let list = tool.says(&["member", "list"]);
        let line = list.lines().find(|line| line.starts_with(&id)).unwrap();
        assert!(line.contains("started") && line.ends_with("true"), "{list}");
        tool.succeeds_at_last(&cluster.nodes[place], &["member", "promote", &id]);
        let status = tool.says(&["endpoint", "status", "--cluster"]);
        assert_eq!(status.lines().count(), 4, "{status}");
        let updated = tool.says(&["member", "update", &id, &url]);
        assert!(updated.contains("updated in cluster"), "{updated}");
        tool.succeeds_at_last(&cluster.nodes[place], &["member", "remove", &id]);
        cluster.nodes[place].ends();
        // It is no member any more, and the next one must not be told of it.
        cluster.nodes.pop();
        assert_eq!(tool.says(&["member", "list"]).lines().count(), 3);
    }
}
