//! v3lock and v3election with a client, and the commands of Debian's etcdctl, which do the same with plain keys.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use etcd_api::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, RangeRequest};
use etcd_api::v3electionpb::election_client::ElectionClient;
use etcd_api::v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest};
use etcd_api::v3lockpb::lock_client::LockClient;
use etcd_api::v3lockpb::{LockRequest, UnlockRequest};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::harness::{Etcd, PATIENCE, prefix};

async fn lock_client(etcd: &Etcd) -> LockClient<Channel> {
    LockClient::new(etcd.channel().await)
}

async fn election_client(etcd: &Etcd) -> ElectionClient<Channel> {
    ElectionClient::new(etcd.channel().await)
}

fn lock(name: &str, lease: i64) -> LockRequest {
    LockRequest {
        name: name.to_owned().into(),
        lease,
    }
}

async fn grant(etcd: &Etcd, id: i64) {
    let grant = LeaseGrantRequest { ttl: 1000, id };
    etcd.lease().await.lease_grant(grant).await.unwrap();
}

async fn waiting(etcd: &Etcd, name: &str, count: i64) {
    let mut kv = etcd.kv().await;
    let under = RangeRequest {
        count_only: true,
        ..prefix(&format!("{name}/"))
    };
    let wait = async {
        while kv.range(under.clone()).await.unwrap().into_inner().count != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("there were never {count} keys under {name}"));
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next() {
    let etcd = Etcd::start();
    for id in [1, 2, 3] {
        grant(&etcd, id).await;
    }
    let mut client = lock_client(&etcd).await;
    let held = client.lock(lock("l", 1)).await.unwrap().into_inner();
    assert_eq!(held.key, "l/1");
    assert!(held.header.unwrap().revision > 1);
    let again = client.lock(lock("l", 1)).await.unwrap().into_inner();
    assert_eq!(again.key, "l/1", "who holds it has it");

    let start = |id| {
        let mut client = client.clone();
        tokio::spawn(async move { client.lock(lock("l", id)).await })
    };
    let second = start(2);
    waiting(&etcd, "l", 2).await;
    let third = start(3);
    waiting(&etcd, "l", 3).await;
    assert!(!second.is_finished() && !third.is_finished());

    // Who stops waiting leaves no key behind.
    second.abort();
    waiting(&etcd, "l", 2).await;
    client.unlock(UnlockRequest { key: held.key }).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, third)
        .await
        .expect("nobody was let in")
        .unwrap()
        .unwrap();
    assert_eq!(next.into_inner().key, "l/3");
}

#[tokio::test]
async fn a_lock_without_a_lease_is_given_one_and_one_with_a_lost_lease_is_refused() {
    let etcd = Etcd::start();
    let mut client = lock_client(&etcd).await;
    let held = client.lock(lock("l", 0)).await.unwrap().into_inner();
    let own = RangeRequest {
        key: held.key.clone(),
        ..Default::default()
    };
    let kv = etcd
        .kv()
        .await
        .range(own)
        .await
        .unwrap()
        .into_inner()
        .kvs
        .remove(0);
    assert_eq!(String::from_utf8_lossy(&held.key), format!("l/{:x}", kv.lease));
    assert_ne!(kv.lease, 0);
    let lost = client.lock(lock("m", 77)).await.unwrap_err();
    assert_eq!(
        (lost.code(), lost.message()),
        (Code::Unknown, "etcdserver: requested lease not found"),
        "etcd's own client gives no codes to its services"
    );

    grant(&etcd, 5).await;
    let mut waiting_client = client.clone();
    let waiter = tokio::spawn(async move { waiting_client.lock(lock("l", 5)).await });
    waiting(&etcd, "l", 2).await;
    etcd.lease()
        .await
        .lease_revoke(LeaseRevokeRequest { id: 5 })
        .await
        .unwrap();
    client.unlock(UnlockRequest { key: held.key }).await.unwrap();
    let expired = tokio::time::timeout(PATIENCE, waiter)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (expired.code(), expired.message()),
        (Code::Unknown, "mutex: session is expired")
    );
}

async fn next_leader(observed: &mut Streaming<etcd_api::v3electionpb::LeaderResponse>) -> String {
    let response = tokio::time::timeout(PATIENCE, observed.message())
        .await
        .expect("no leader was observed");
    let kv = response.unwrap().unwrap().kv.unwrap();
    String::from_utf8_lossy(&kv.value).into_owned()
}

#[tokio::test]
async fn an_election_has_one_leader_whom_everybody_observes() {
    let etcd = Etcd::start();
    for id in [1, 2] {
        grant(&etcd, id).await;
    }
    let mut client = election_client(&etcd).await;
    let name = || LeaderRequest { name: "e".into() };
    let none = client.leader(name()).await.unwrap_err();
    assert_eq!(
        (none.code(), none.message()),
        (Code::Unknown, "election: no leader")
    );
    let mut observer = client.clone();
    let observing = tokio::spawn(async move { observer.observe(name()).await });
    let campaign = |lease, value: &'static str| CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
    };
    let first = client
        .campaign(campaign(1, "one"))
        .await
        .unwrap()
        .into_inner()
        .leader
        .unwrap();
    assert_eq!((&first.key[..], first.lease), (&b"e/1"[..], 1));
    let mut observed = tokio::time::timeout(PATIENCE, observing)
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .into_inner();
    assert_eq!(next_leader(&mut observed).await, "one");
    let mut other = client.clone();
    let second = tokio::spawn(async move { other.campaign(campaign(2, "two")).await });
    waiting(&etcd, "e", 2).await;
    let proclaim = ProclaimRequest {
        leader: Some(first.clone()),
        value: "still one".into(),
    };
    client.proclaim(proclaim.clone()).await.unwrap();
    assert_eq!(next_leader(&mut observed).await, "still one");
    let leader = client.leader(name()).await.unwrap().into_inner().kv.unwrap();
    assert_eq!(
        (&leader.key[..], &leader.value[..]),
        (&b"e/1"[..], &b"still one"[..])
    );
    assert!(!second.is_finished());
    let resign = ResignRequest { leader: Some(first) };
    client.resign(resign.clone()).await.unwrap();
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(second.into_inner().leader.unwrap().key, "e/2");
    assert_eq!(next_leader(&mut observed).await, "two");
    client.resign(resign).await.unwrap();
    let late = client.proclaim(proclaim).await.unwrap_err();
    assert_eq!(
        (late.code(), late.message()),
        (Code::Unknown, "election: not leader")
    );
    let nameless = client.resign(ResignRequest { leader: None }).await.unwrap_err();
    assert_eq!(nameless.message(), "\"leader\" field must be provided");
}

#[tokio::test]
async fn who_stops_campaigning_is_no_candidate() {
    let etcd = Etcd::start();
    for id in [1, 2] {
        grant(&etcd, id).await;
    }
    let mut client = election_client(&etcd).await;
    let campaign = |lease| CampaignRequest {
        name: "e".into(),
        lease,
        value: "v".into(),
    };
    client.campaign(campaign(1)).await.unwrap();
    let mut other = client.clone();
    let waiter = tokio::spawn(async move { other.campaign(campaign(2)).await });
    waiting(&etcd, "e", 2).await;
    waiter.abort();
    waiting(&etcd, "e", 1).await;
}

#[test]
fn etcdctl_locks_and_elects() {
    let etcd = Etcd::start();
    let Some(locked) = etcd.ctl(&["lock", "l", "echo", "held"]) else {
        return;
    };
    assert_eq!(locked, "held\n");
    assert_eq!(
        etcd.ctl(&["get", "l/", "--prefix"]).unwrap(),
        "",
        "the lock was given back"
    );
    let mut elected = Command::new("/usr/bin/etcdctl")
        .env("ETCDCTL_API", "3")
        .args([
            &format!("--endpoints=127.0.0.1:{}", etcd.port),
            "elect",
            "e",
            "me",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(elected.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("e/"));
    assert_eq!(lines.next().unwrap().unwrap(), "me");
    elected.kill().unwrap();
    elected.wait().unwrap();
}
