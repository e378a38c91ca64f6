//! Three members under load, killed, paused, cut off and filled up, over TLS; what clients and watchers saw is judged by the checker, and what the
//! members hold is compared at the end.

use std::time::Duration;

use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{AlarmRequest, AlarmType};

use crate::members::Cluster;
use crate::network::Network;
use crate::tls::Pki;
use crate::traffic::Traffic;

/// A member that was away for a moment is sent a snapshot.
const FLAGS: &[&str] = &[
    "--watch-progress-notify-interval=100ms",
    "--snapshot-count=200",
    "--snapshot-catchup-entries=50",
];
/// Longer than a leader stays one without hearing of the others, and than they wait for it.
const LOSES_LEADERSHIP: Duration = Duration::from_millis(2500);
/// Room for what a member has, and beside it for the store that one that lags is sent.
const DISK_MEGABYTES: usize = 160;
const VALUE_BYTES: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_leaders_and_followers_breaks_no_promise() {
    let mut cluster = Cluster::start(3, Some(Pki::new()), FLAGS).await;
    let traffic = Traffic::start(&cluster.addresses(), 11);
    for distance in [0, 1, 0, 2, 0] {
        traffic.progress(200).await;
        let victim = (cluster.leader().await + distance) % 3;
        cluster.nodes[victim].kill();
        traffic.progress(300).await;
        cluster.spawn(victim, "new", &[]);
        cluster.wait_ready().await;
    }
    traffic.progress(200).await;
    (0..3).for_each(|place| cluster.nodes[place].kill());
    (0..3).for_each(|place| cluster.spawn(place, "new", &[]));
    ends_well(&cluster, traffic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_for_longer_than_an_election_breaks_no_promise() {
    let cluster = Cluster::start(3, Some(Pki::new()), FLAGS).await;
    let traffic = Traffic::start(&cluster.addresses(), 12);
    for distance in [0, 1, 0] {
        traffic.progress(200).await;
        let leader = cluster.leader().await;
        let victim = (leader + distance) % 3;
        cluster.nodes[victim].signal("-STOP");
        tokio::time::sleep(LOSES_LEADERSHIP).await;
        if victim == leader {
            cluster.leader_but(victim).await;
        }
        traffic.progress(100).await;
        cluster.nodes[victim].signal("-CONT");
    }
    ends_well(&cluster, traffic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_also_of_one_direction_break_no_promise() {
    let Some(cluster) = Cluster::start_in_namespaces(Some(Pki::new()), FLAGS).await else {
        return;
    };
    let network = cluster.network.as_ref().unwrap();
    let traffic = Traffic::start(&cluster.addresses(), 13);
    traffic.progress(200).await;
    for (cut, heal) in [
        (
            Network::pull_cable as fn(&Network, usize),
            Network::plug_cable as fn(&Network, usize),
        ),
        (Network::mute, Network::unblock),
        (Network::deafen, Network::unblock),
    ] {
        let leader = cluster.leader().await;
        cut(network, leader);
        // It notices, and the others choose another one.
        cluster
            .until("the leader that was cut off steps down", async || {
                let status = cluster.nodes[leader].status().await;
                status.is_some_and(|status| status.leader != status.header.unwrap().member_id)
            })
            .await;
        cluster.leader_but(leader).await;
        traffic.progress(100).await;
        heal(network, leader);
        cluster.wait_ready().await;
        traffic.progress(100).await;
    }
    // A follower that comes back does not cost the others their leader; a busy machine may, now and then.
    let mut kept = false;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let term = cluster.term(leader).await;
        let follower = (leader + 1) % 3;
        network.pull_cable(follower);
        tokio::time::sleep(LOSES_LEADERSHIP).await;
        traffic.progress(100).await;
        network.plug_cable(follower);
        cluster.wait_ready().await;
        kept = cluster.term(leader).await == term;
        if kept {
            break;
        }
    }
    assert!(kept, "pre-vote");
    ends_well(&cluster, traffic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_refuse_writes_and_recover_without_loss() {
    let Some(mut cluster) = Cluster::start_on_disks(DISK_MEGABYTES, Some(Pki::new()), FLAGS).await else {
        return;
    };
    let traffic = Traffic::start_with_values(&cluster.addresses(), 14, VALUE_BYTES);
    traffic.progress(200).await;
    let leader = cluster.leader().await;
    for full in [vec![(leader + 1) % 3], vec![leader], vec![0, 1, 2]] {
        let ballast: Vec<_> = full.iter().map(|place| cluster.disks[*place].fill()).collect();
        cluster
            .until("there is an alarm", async || {
                is_full(&cluster).await == Some(true)
            })
            .await;
        // Reads go on.
        traffic.progress(50).await;
        if full.len() == 3 {
            (0..3).for_each(|place| cluster.nodes[place].kill());
            (0..3).for_each(|place| cluster.spawn(place, "new", &[]));
            // One that lags may have no room for what it is sent before there is some; the others go on.
            cluster.leader().await;
            traffic.progress(50).await;
        }
        ballast
            .iter()
            .for_each(|file| std::fs::remove_file(file).unwrap());
        cluster
            .until("the alarm is gone", async || {
                is_full(&cluster).await == Some(false)
            })
            .await;
        traffic.progress(200).await;
    }
    ends_well(&cluster, traffic).await;
}

/// Whether some member has no space; None when that could not be asked.
async fn is_full(cluster: &Cluster) -> Option<bool> {
    let mut client = MaintenanceClient::new(cluster.nodes[cluster.leader().await].channel().await);
    let request = AlarmRequest {
        alarm: AlarmType::Nospace as i32,
        ..AlarmRequest::default()
    };
    let alarms = client.alarm(request).await.ok()?.into_inner().alarms;
    Some(!alarms.is_empty())
}

async fn ends_well(cluster: &Cluster, traffic: Traffic) {
    cluster.wait_ready().await;
    traffic.progress(100).await;
    traffic.judge().await;
    cluster.agree().await;
}
