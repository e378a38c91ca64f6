//! A member that was away for longer than memory holds entries for is sent entries from the log's files, not the store.

use etcd_api::etcdserverpb::MoveLeaderRequest;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::harness::{http_get, put};
use crate::members::{Cluster, read, serializable};

const VALUE_BYTES: usize = 10 * 1024;
/// Together twenty mebibytes.
const PUTS: usize = 2048;

/// How often a member has sent its store, and how much memory it holds.
fn stores_sent(cluster: &Cluster, place: usize) -> usize {
    let (_, metrics) = http_get(cluster.nodes[place].port, "/metrics");
    let of_stores = |line: &&str| line.starts_with("etcd_network_snapshot_send_");
    let resident = metrics
        .lines()
        .find(|line| line.starts_with("process_resident_memory_bytes"));
    println!(
        "{}: {}",
        cluster.nodes[place].name,
        resident.unwrap_or("no memory is told of")
    );
    metrics
        .lines()
        .filter(of_stores)
        .filter(|line| !line.ends_with(" 0"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_far_behind_is_sent_entries_also_by_the_next_leader() {
    let cluster = Cluster::start(3, None, &[]).await;
    let leader = cluster.leader().await;
    let (stopped, next) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut kv = cluster.nodes[leader].kv().await;
    kv.put(put("first", "v")).await.unwrap();
    cluster.agree().await;
    let target = cluster.id(next).await;
    cluster.nodes[stopped].signal("-STOP");
    for number in 0..PUTS {
        kv.put(put(format!("k/{number}"), vec![b'x'; VALUE_BYTES]))
            .await
            .unwrap();
    }
    let mut client = MaintenanceClient::new(cluster.nodes[leader].channel().await);
    let request = MoveLeaderRequest { target_id: target };
    client.move_leader(request).await.unwrap();
    assert_eq!(cluster.leader_but(stopped).await, next);
    // The new leader has forgotten what the others have, too.
    cluster.nodes[next]
        .kv()
        .await
        .put(put("last", "v"))
        .await
        .unwrap();
    cluster.nodes[stopped].signal("-CONT");
    cluster
        .until("the stopped member has caught up", async || {
            read(&cluster.nodes[stopped], serializable("last"))
                .await
                .is_some()
        })
        .await;
    cluster.agree().await;
    for place in [leader, next] {
        assert_eq!(
            stores_sent(&cluster, place),
            0,
            "{} sent its store",
            cluster.nodes[place].name
        );
    }
    assert!(!cluster.nodes[stopped].log().contains("applied snapshot"));
}
