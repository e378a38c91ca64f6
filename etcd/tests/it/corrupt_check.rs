//! A member whose keys are others than its peers': refused at start, found while it serves, and told apart from those that are right.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, MoveLeaderRequest,
    PutRequest, TxnRequest, alarm_request::AlarmAction,
};

use crate::harness::{http_get, prefix, put, revision_of};
use crate::members::Cluster;
use crate::records::{self, Place};

/// Changes the value of a key where it lies, with checksums that fit: what a disk would not tell.
fn change_offline(dir: &Path, key: &str) {
    let Place { path, frame, record } = records::find(dir, key);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[record.end - 1] ^= 1;
    let check = crc32c::crc32c(&bytes[record.start + 4..record.end]);
    bytes[record.start..record.start + 4].copy_from_slice(&check.to_le_bytes());
    let check = crc32c::crc32c(&bytes[frame.start + 8..frame.end]);
    bytes[frame.start + 4..frame.start + 8].copy_from_slice(&check.to_le_bytes());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
}

/// Three members with the same keys, one of whom is changed while it is away. Its clients must be able to hear that it stops.
async fn with_one_changed(flags: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::start(3, None, flags).await;
    let leader = cluster.leader().await;
    let mut kv = cluster.nodes[leader].kv().await;
    for number in 0..20 {
        kv.put(put(format!("k{number}"), "value")).await.unwrap();
    }
    cluster.agree().await;
    let victim = (leader + 1) % 3;
    cluster.nodes[victim].signal("-TERM");
    cluster.nodes[victim].ends();
    change_offline(&cluster.nodes[victim].dir, "k7");
    (cluster, victim)
}

async fn alarms(cluster: &Cluster, place: usize) -> Vec<AlarmMember> {
    let mut client = MaintenanceClient::new(cluster.nodes[place].channel().await);
    let answer = client.alarm(AlarmRequest::default()).await;
    answer.map_or_else(|_| Vec::new(), |answer| answer.into_inner().alarms)
}

/// The alarm is the victim's, nobody takes writes, everybody still answers reads.
async fn refuses_writes(cluster: &Cluster, victim: u64) {
    let expected = AlarmMember {
        member_id: victim,
        alarm: AlarmType::Corrupt as i32,
    };
    cluster
        .until("the victim's alarm is raised, and no other", async || {
            alarms(cluster, 0).await.as_slice() == std::slice::from_ref(&expected)
        })
        .await;
    for node in &cluster.nodes {
        let mut kv = node.kv().await;
        let delete = DeleteRangeRequest {
            key: "k1".into(),
            ..Default::default()
        };
        let compact = CompactionRequest {
            revision: 10,
            physical: false,
        };
        let refusals = [
            kv.put(put("new", "value")).await.err(),
            kv.delete_range(delete.clone()).await.err(),
            kv.compact(compact).await.err(),
            kv.txn(TxnRequest {
                success: vec![etcd_api::etcdserverpb::RequestOp {
                    request: Some(etcd_api::etcdserverpb::request_op::Request::RequestDeleteRange(
                        delete,
                    )),
                }],
                ..Default::default()
            })
            .await
            .err(),
        ];
        for (number, refusal) in refusals.into_iter().enumerate() {
            let refusal = refusal.unwrap_or_else(|| panic!("{}: write {number} was taken", node.name));
            assert_eq!(refusal.code(), tonic::Code::DataLoss, "{refusal}");
            assert_eq!(refusal.message(), "etcdserver: corrupt cluster");
        }
        assert_eq!(kv.range(prefix("k")).await.unwrap().into_inner().kvs.len(), 20);
        let (status, body) = http_get(node.port, "/health");
        assert_eq!(status, 503);
        assert!(body.contains("ALARM CORRUPT"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_member_does_not_start() {
    let (mut cluster, victim) = with_one_changed(&[]).await;
    cluster.spawn(victim, "new", &[]);
    cluster.nodes[victim].ends();
    let log = cluster.nodes[victim].log();
    assert!(log.contains("found data inconsistency with peers"), "{log}");
    assert!(log.contains("remove the others and add them again"), "{log}");
    // The same store starts where the check is switched off.
    cluster.spawn(victim, "new", &["--feature-gates=InitialCorruptCheck=false"]);
    cluster.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_follower_is_found_from_time_to_time() {
    let flags = [
        "--feature-gates=InitialCorruptCheck=false,CompactHashCheck=false",
        "--corrupt-check-time=500ms",
    ];
    let (mut cluster, victim) = with_one_changed(&flags).await;
    cluster.spawn(victim, "new", &[]);
    cluster.wait_ready().await;
    let id = cluster.id(victim).await;
    refuses_writes(&cluster, id).await;
    // An operator who knows better disarms it; the next check raises it again.
    let leader = cluster.leader().await;
    let mut client = MaintenanceClient::new(cluster.nodes[leader].channel().await);
    let disarm = AlarmRequest {
        action: AlarmAction::Deactivate as i32,
        member_id: id,
        alarm: AlarmType::Corrupt as i32,
    };
    let disarmed = client.alarm(disarm).await.unwrap().into_inner();
    assert_eq!(disarmed.alarms.len(), 1);
    refuses_writes(&cluster, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_leader_is_found_by_what_a_compaction_found() {
    let flags = [
        "--feature-gates=InitialCorruptCheck=false",
        "--corrupt-check-time=0s",
        "--compact-hash-check-time=1s",
    ];
    let (mut cluster, victim) = with_one_changed(&flags).await;
    cluster.spawn(victim, "new", &[]);
    cluster.wait_ready().await;
    let (leader, id) = (cluster.leader().await, cluster.id(victim).await);
    let mut client = MaintenanceClient::new(cluster.nodes[leader].channel().await);
    client
        .move_leader(MoveLeaderRequest { target_id: id })
        .await
        .unwrap();
    cluster
        .until("the changed member leads", async || {
            cluster.leader().await == victim
        })
        .await;
    assert!(alarms(&cluster, victim).await.is_empty());
    let mut kv = cluster.nodes[victim].kv().await;
    let more: PutRequest = put("k7-later", "value");
    let revision = revision_of(&mut kv, more).await;
    kv.delete_range(DeleteRangeRequest {
        key: "k7-later".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    kv.compact(CompactionRequest {
        revision,
        physical: true,
    })
    .await
    .unwrap();
    refuses_writes(&cluster, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_members_pass_every_check() {
    let flags = ["--corrupt-check-time=300ms", "--compact-hash-check-time=300ms"];
    let mut cluster = Cluster::start(3, None, &flags).await;
    let leader = cluster.leader().await;
    let mut kv = cluster.nodes[leader].kv().await;
    for number in 0..60 {
        let request = put(format!("k{}", number % 20), format!("{number}"));
        let revision = revision_of(&mut kv, request).await;
        if number % 20 == 19 {
            kv.compact(CompactionRequest {
                revision: revision - 5,
                physical: false,
            })
            .await
            .unwrap();
        }
    }
    let log = |cluster: &Cluster| cluster.nodes[leader].log();
    cluster
        .until("both checks have passed", async || {
            log(&cluster).contains("successfully checked hash on whole cluster")
                && log(&cluster).contains("finished peer corruption check")
        })
        .await;
    let other = (leader + 1) % 3;
    cluster.nodes[other].kill();
    cluster.spawn(other, "new", &[]);
    cluster.wait_ready().await;
    assert!(
        cluster.nodes[other]
            .log()
            .contains("initial corruption checking passed")
    );
    assert!(alarms(&cluster, leader).await.is_empty());
}
