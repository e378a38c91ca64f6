//! kill -9 under load: what was acknowledged is there.

use std::collections::HashMap;
use std::time::Duration;

use etcd_api::etcdserverpb::RangeRequest;

use crate::harness::{Etcd, prefix, put};

const ROUNDS: usize = 4;
const WRITERS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9_under_load() {
    let mut etcd = Etcd::start();
    let mut acknowledged: HashMap<String, (i64, String)> = HashMap::new();
    for round in 0..ROUNDS {
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let client = etcd.kv().await;
            writers.push(tokio::spawn(async move {
                write_until_error(client, round, writer).await
            }));
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        etcd.kill();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        etcd.start_again();
        verify(&etcd, &acknowledged).await;
    }
    assert!(
        acknowledged.len() > ROUNDS * WRITERS,
        "only {} writes were acknowledged",
        acknowledged.len()
    );
}

async fn write_until_error(
    mut client: etcd_api::etcdserverpb::kv_client::KvClient<tonic::transport::Channel>,
    round: usize,
    writer: usize,
) -> HashMap<String, (i64, String)> {
    let mut done = HashMap::new();
    for number in 0.. {
        let (key, value) = (
            format!("k/{round}/{writer}/{}", number % 50),
            format!("{number}-{}", "v".repeat(500)),
        );
        match client.put(put(key.clone(), value.clone())).await {
            Ok(response) => done.insert(key, (response.into_inner().header.unwrap().revision, value)),
            Err(_) => break,
        };
    }
    done
}

async fn verify(etcd: &Etcd, acknowledged: &HashMap<String, (i64, String)>) {
    let response = etcd.kv().await.range(prefix("k/")).await.unwrap().into_inner();
    let found: HashMap<&[u8], (i64, &[u8])> = response
        .kvs
        .iter()
        .map(|kv| (&kv.key[..], (kv.mod_revision, &kv.value[..])))
        .collect();
    for (key, (revision, value)) in acknowledged {
        let (found_revision, found_value) = found
            .get(key.as_bytes())
            .unwrap_or_else(|| panic!("{key} is lost"));
        // A later write of the same key may have been in flight; an earlier one may not be all that is left.
        assert!(
            found_revision >= revision,
            "{key}: revision {found_revision} after {revision}"
        );
        if found_revision == revision {
            assert_eq!(found_value, &value.as_bytes());
        }
    }
    let newest = acknowledged
        .values()
        .map(|(revision, _)| *revision)
        .max()
        .unwrap_or(0);
    assert!(response.header.unwrap().revision >= newest);
}

#[tokio::test]
async fn history_leases_and_compaction_survive_a_restart() {
    let mut etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    let lease = etcd
        .lease()
        .await
        .lease_grant(etcd_api::etcdserverpb::LeaseGrantRequest { ttl: 100, id: 0 })
        .await
        .unwrap()
        .into_inner();
    kv.put(put("a", "1")).await.unwrap();
    let mut leased = put("b", "2");
    leased.lease = lease.id;
    kv.put(leased).await.unwrap();
    kv.put(put("a", "3")).await.unwrap();
    etcd.restart();
    let mut kv = etcd.kv().await;
    let old = RangeRequest {
        key: "a".into(),
        revision: 2,
        ..Default::default()
    };
    assert_eq!(
        kv.range(old.clone()).await.unwrap().into_inner().kvs[0].value,
        "1"
    );
    let request = etcd_api::etcdserverpb::LeaseTimeToLiveRequest {
        id: lease.id,
        keys: true,
    };
    let told = etcd
        .lease()
        .await
        .lease_time_to_live(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((told.granted_ttl, &told.keys[0][..]), (100, &b"b"[..]));
    kv.compact(etcd_api::etcdserverpb::CompactionRequest {
        revision: 3,
        physical: true,
    })
    .await
    .unwrap();
    etcd.restart();
    let refused = etcd.kv().await.range(old).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
}
