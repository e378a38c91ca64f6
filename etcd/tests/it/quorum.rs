//! Members with and without a majority: what goes on, what is refused and how, who is told.

use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::lease_client::LeaseClient;
use etcd_api::etcdserverpb::watch_client::WatchClient;
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, RangeRequest, WatchCreateRequest, WatchRequest,
};
use tokio_stream::StreamExt as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::harness::{http_get, put};
use crate::members::{Cluster, read, serializable};

/// Long enough for an election and some retries, shorter than a request waits.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_go_on_without_two_and_refuse_without_three() {
    let mut cluster = Cluster::start(5, None, &[]).await;
    let mut kv = cluster.nodes[4].kv().await;
    kv.put(put("k", "five")).await.unwrap();
    let leader = cluster.leader().await;
    let lost = [leader, (leader + 1) % 5, (leader + 2) % 5];
    let survivor = (leader + 3) % 5;
    for place in &lost[..2] {
        cluster.nodes[*place].kill();
    }
    cluster
        .until("three of five go on", async || {
            let mut kv = cluster.nodes[survivor].kv().await;
            matches!(
                tokio::time::timeout(SOON, kv.put(put("k", "three"))).await,
                Ok(Ok(_))
            )
        })
        .await;
    cluster.agree().await;
    cluster.nodes[lost[2]].kill();
    cluster
        .until("two of five know that nobody leads", async || {
            let status = cluster.nodes[survivor].status().await;
            status.is_some_and(|status| status.leader == 0)
        })
        .await;
    let mut kv = cluster.nodes[survivor].kv().await;
    let write = kv.clone();
    let (refused, unread) = tokio::join!(
        async { write.clone().put(put("k", "two")).await.unwrap_err() },
        kv.range(RangeRequest {
            key: "k".into(),
            ..RangeRequest::default()
        })
    );
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.message(), "etcdserver: request timed out");
    let (_, metrics) = http_get(cluster.nodes[survivor].port, "/metrics");
    let failed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("etcd_server_proposals_failed_total "));
    assert!(failed.is_some_and(|failed| failed != "0"), "{failed:?}");
    assert_eq!(unread.unwrap_err().code(), Code::Unavailable);
    // What was agreed on is still there for who asks for no more.
    let found = read(&cluster.nodes[survivor], serializable("k")).await;
    assert_eq!(found, Some(b"three".to_vec()));
    for place in lost {
        cluster.spawn(place, "new", &[]);
    }
    cluster.wait_ready().await;
    cluster
        .until("five of five go on", async || {
            cluster.nodes[lost[0]]
                .kv()
                .await
                .put(put("k", "again"))
                .await
                .is_ok()
        })
        .await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_require_a_leader_are_told_when_it_is_lost() {
    let flags = ["--heartbeat-interval=50", "--election-timeout=500"];
    let mut cluster = Cluster::start(3, None, &flags).await;
    let channel = cluster.nodes[0].channel().await;
    let mut leases = LeaseClient::new(channel.clone());
    let lease = leases
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
        .await
        .unwrap()
        .into_inner();
    let mut watches = WatchClient::new(channel);
    let watch = || {
        let create = WatchCreateRequest {
            key: "k".into(),
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        Request::new(tokio_stream::iter([request]).chain(tokio_stream::pending()))
    };
    let mut patient = watches.watch(watch()).await.unwrap().into_inner();
    let mut watching = watches
        .watch(requiring_leader(watch()))
        .await
        .unwrap()
        .into_inner();
    let keep = tokio_stream::iter([LeaseKeepAliveRequest { id: lease.id }]).chain(tokio_stream::pending());
    let mut keeping = leases
        .lease_keep_alive(requiring_leader(Request::new(keep)))
        .await
        .unwrap()
        .into_inner();
    assert!(watching.message().await.unwrap().unwrap().created);
    assert!(patient.message().await.unwrap().unwrap().created);
    assert_eq!(keeping.message().await.unwrap().unwrap().ttl, 600);
    // An election alone breaks no stream.
    let leader = cluster.leader().await;
    if leader != 0 {
        cluster.nodes[leader].kill();
        cluster.leader().await;
        cluster.spawn(leader, "new", &[]);
        cluster.wait_ready().await;
    }
    cluster.nodes[0].kv().await.put(put("k", "v")).await.unwrap();
    assert_eq!(watching.message().await.unwrap().unwrap().events.len(), 1);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let start = Instant::now();
    for lost in [
        watching.message().await.unwrap_err(),
        keeping.message().await.unwrap_err(),
    ] {
        assert_eq!(
            (lost.code(), lost.message()),
            (Code::Unavailable, "etcdserver: no leader")
        );
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let refused = watches.watch(requiring_leader(watch())).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: no leader");
    // Who did not ask for it waits for better times.
    assert_eq!(patient.message().await.unwrap().unwrap().events.len(), 1);
    cluster.spawn(1, "new", &[]);
    cluster.spawn(2, "new", &[]);
    cluster.wait_ready().await;
    cluster.nodes[1].kv().await.put(put("k", "w")).await.unwrap();
    assert_eq!(patient.message().await.unwrap().unwrap().events.len(), 1);
}

fn requiring_leader<T>(mut request: Request<T>) -> Request<T> {
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}

/// The proposal lies with the leader that stands still; who made it hears of that once the members have another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_its_leader_took_along_is_told_of_the_leaders_failure() {
    // A new leader must be there within two elections of the proposal, which a busy machine may miss.
    for attempt in 1.. {
        let cluster = Cluster::start(3, None, &[]).await;
        let leader = cluster.leader().await;
        let follower = &cluster.nodes[(leader + 1) % 3];
        let mut kv = follower.kv().await;
        kv.put(put("k", "before")).await.unwrap();
        cluster.nodes[leader].signal("-STOP");
        let refused = kv.put(put("k", "after")).await.unwrap_err();
        cluster.nodes[leader].signal("-CONT");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        match refused.message() {
            "etcdserver: request timed out, possibly due to previous leader failure" => return,
            message => assert!(attempt < 3, "{message}"),
        }
    }
}
