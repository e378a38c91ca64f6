//! What a change of leaders, a stall and a growing cluster leave whole.

use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::cluster_client::ClusterClient;
use etcd_api::etcdserverpb::lease_client::LeaseClient;
use etcd_api::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest, MemberAddRequest, PutRequest};
use free_port::free_port;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, prefix, put};
use crate::members::Cluster;

/// Far under the election's timeout: nobody has waited for it.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Clients that are there must be able to hear that it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let flags = ["--election-timeout=20000", "--heartbeat-interval=100"];
    let mut cluster = Cluster::start(3, None, &flags).await;
    let old = cluster.leader().await;
    let other = (old + 1) % 3;
    cluster.nodes[old].signal("-TERM");
    let start = Instant::now();
    cluster.nodes[old].ends();
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.nodes[other].kv().await.put(put("k", "v")).await.unwrap();
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    let log = cluster.nodes[old].log();
    assert!(log.contains("leadership transfer finished"), "{log}");
}

#[tokio::test]
async fn a_stalled_leader_gives_leases_the_time_that_it_was_away() {
    let etcd = Etcd::start();
    let mut leases = etcd.lease().await;
    let granted = leases.lease_grant(LeaseGrantRequest { id: 0, ttl: 4 }).await;
    let lease = granted.unwrap().into_inner().id;
    let mut kv = etcd.kv().await;
    let request = PutRequest {
        lease,
        ..put("k", "v")
    };
    kv.put(request).await.unwrap();
    etcd.signal("STOP");
    tokio::time::sleep(Duration::from_secs(6)).await;
    etcd.signal("CONT");
    let ask = LeaseTimeToLiveRequest {
        id: lease,
        keys: false,
    };
    let left = leases.lease_time_to_live(ask).await.unwrap().into_inner();
    assert!(left.ttl > 0, "{left:?}");
    assert_eq!(kv.range(prefix("k")).await.unwrap().into_inner().kvs.len(), 1);
    assert!(
        etcd.log().contains("leases are extended by that"),
        "{}",
        etcd.log()
    );
    // Not for ever.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(kv.range(prefix("k")).await.unwrap().into_inner().kvs.is_empty());
}

/// The kernel keeps its connection, and a leader would wait for it for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_to_a_member_that_takes_nothing_is_given_up_and_made_anew() {
    let flags = ["--raft-write-timeout=1s", "--log-level=debug"];
    let cluster = Cluster::start(3, None, &flags).await;
    let leader = cluster.leader().await;
    let stopped = (leader + 1) % 3;
    cluster.nodes[stopped].signal("-STOP");
    let mut kv = cluster.nodes[leader].kv().await;
    for number in 0..20 {
        kv.put(put(format!("k{number}"), vec![0; 1024 * 1024]))
            .await
            .unwrap();
    }
    wait_for(|| cluster.nodes[leader].log().contains("nothing was taken for 1s"));
    cluster.nodes[stopped].signal("-CONT");
    cluster.agree().await;
}

#[tokio::test]
async fn as_many_learners_join_as_the_flag_says() {
    let etcd = Etcd::start_with(&["--max-learners=2"]);
    let mut members = ClusterClient::new(etcd.channel().await);
    let mut add = async || {
        let request = MemberAddRequest {
            peer_ur_ls: vec![format!("http://127.0.0.1:{}", free_port())],
            is_learner: true,
        };
        members.member_add(request).await.map(|_| ())
    };
    add().await.unwrap();
    add().await.unwrap();
    let refused = add().await.unwrap_err();
    assert_eq!(
        refused.message(),
        "etcdserver: too many learner members in cluster"
    );
}

#[tokio::test]
async fn leases_count_on_under_checkpoints_through_leaders_and_restarts() {
    let flags = ["--feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=true"];
    let mut cluster = Cluster::start(3, None, &flags).await;
    let first = cluster.leader().await;
    let mut leases = LeaseClient::new(cluster.nodes[first].channel().await);
    let granted = leases.lease_grant(LeaseGrantRequest { id: 77, ttl: 600 }).await;
    assert_eq!(granted.unwrap().into_inner().ttl, 600);
    cluster.nodes[first].kill();
    let second = cluster.leader().await;
    let mut leases = LeaseClient::new(cluster.nodes[second].channel().await);
    let ask = LeaseTimeToLiveRequest { id: 77, keys: false };
    let left = leases.lease_time_to_live(ask).await.unwrap().into_inner();
    assert!((590..=601).contains(&left.ttl), "{left:?}");
    cluster.spawn(first, "new", &[]);
    cluster.wait_ready().await;
}
