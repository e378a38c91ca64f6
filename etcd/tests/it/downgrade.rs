//! Downgrade's rules, and gRPC's health service.

use etcd_api::etcdserverpb::cluster_client::ClusterClient;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    DowngradeRequest, MemberAddRequest, MemberRemoveRequest, StatusRequest,
    downgrade_request::DowngradeAction,
};
use etcd_api::health::HealthCheckRequest;
use etcd_api::health::health_check_response::ServingStatus;
use etcd_api::health::health_client::HealthClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, PATIENCE, http_get, prefix, put};
use crate::members::Cluster;

async fn ask(
    client: &mut MaintenanceClient<Channel>,
    action: DowngradeAction,
    version: &str,
) -> Result<String, (Code, String)> {
    let request = DowngradeRequest {
        action: action as i32,
        version: version.to_owned(),
    };
    match client.downgrade(request).await {
        Ok(response) => Ok(response.into_inner().version),
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

#[tokio::test]
async fn a_downgrade_takes_the_cluster_to_the_version_before_and_back() {
    use DowngradeAction::{Cancel, Enable, Validate};
    let mut etcd = Etcd::start();
    let mut client = MaintenanceClient::new(etcd.channel().await);
    let refused = |code, text: &str| Err((code, format!("etcdserver: {text}")));
    let version = || Ok("3.6".to_owned());
    assert_eq!(ask(&mut client, Validate, "3.5").await, version());
    assert_eq!(ask(&mut client, Validate, "3.5.9").await, version());
    for target in ["3.4", "3.6", "3.7", "2.5"] {
        let expected = refused(Code::InvalidArgument, "invalid downgrade target version");
        assert_eq!(ask(&mut client, Validate, target).await, expected, "{target}");
    }
    let expected = refused(Code::InvalidArgument, "wrong downgrade target version format");
    assert_eq!(ask(&mut client, Enable, "soon").await, expected);
    assert_eq!(ask(&mut client, Cancel, "").await, version());
    let shown = |etcd: &Etcd| etcd.get("/version").1;
    assert!(shown(&etcd).contains(r#""storage":"3.6.0""#));
    assert!(ask(&mut client, Enable, "3.5.0").await.is_ok());
    wait_for(|| shown(&etcd).contains(r#""etcdcluster":"3.5.0","#));
    assert!(shown(&etcd).contains(r#""storage":"3.5.0""#), "{}", shown(&etcd));
    etcd.restart();
    let mut client = MaintenanceClient::new(etcd.channel().await);
    wait_for(|| shown(&etcd).contains(r#""etcdcluster":"3.5.0","#));
    let expected = refused(
        Code::FailedPrecondition,
        "cluster has a downgrade job in progress",
    );
    assert_eq!(ask(&mut client, Validate, "3.4").await, expected);
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    let info = status.downgrade_info.unwrap();
    assert_eq!((info.enabled, info.target_version.as_str()), (true, "3.5.0"));
    assert_eq!(status.storage_version, "3.5.0");
    assert!(ask(&mut client, Cancel, "").await.is_ok());
    wait_for(|| shown(&etcd).contains(r#""etcdcluster":"3.6.0","#));
    assert_eq!(ask(&mut client, Validate, "3.5").await, version());
    let info = client
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .downgrade_info
        .unwrap();
    assert_eq!((info.enabled, info.target_version.as_str()), (false, ""));
}

#[tokio::test]
async fn health_is_checked_and_watched() {
    let etcd = Etcd::start();
    let mut client = HealthClient::new(etcd.channel().await);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let status = client.check(ask("")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    let unknown = client.check(ask("nothing")).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "unknown service")
    );
    for (service, expected) in [
        ("", ServingStatus::Serving),
        ("nothing", ServingStatus::ServiceUnknown),
    ] {
        let mut watched = client.watch(ask(service)).await.unwrap().into_inner();
        let first = tokio::time::timeout(PATIENCE, watched.message())
            .await
            .expect("no status came");
        assert_eq!(first.unwrap().unwrap().status(), expected, "{service:?}");
    }
}

/// The members of a downgraded cluster give way to those of the version before, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_version_before_take_over() {
    let Ok(binary) = std::env::var("FERROKUBE_ETCD_35") else {
        eprintln!("skipped: FERROKUBE_ETCD_35 does not name a folder with etcd 3.5's binaries");
        return;
    };
    let mut cluster = Cluster::start(3, None, &[]).await;
    let mut kv = cluster.nodes[0].kv().await;
    for number in 0..30 {
        kv.put(put(format!("k{number}"), "v")).await.unwrap();
    }
    let mut client = MaintenanceClient::new(cluster.nodes[0].channel().await);
    assert!(ask(&mut client, DowngradeAction::Enable, "3.5").await.is_ok());
    let (peer, client) = (cluster.nodes[0].peer_port, cluster.nodes[0].port);
    wait_for(|| {
        http_get(client, "/version")
            .1
            .contains(r#""etcdcluster":"3.5.0""#)
    });
    assert_eq!(http_get(peer, "/downgrade/enabled"), (200, "false".to_owned()));
    for place in 0..3 {
        let other = (place + 1) % 3;
        let members = ClusterClient::new(cluster.nodes[other].channel().await);
        let remove = MemberRemoveRequest {
            id: cluster.id(place).await,
        };
        // A cluster whose members have not been together for long changes none of them.
        cluster
            .until("the member is removed", async || {
                members.clone().member_remove(remove).await.is_ok()
            })
            .await;
        cluster.nodes[place].kill();
        std::fs::remove_dir_all(&cluster.nodes[place].dir).unwrap();
        let add = MemberAddRequest {
            peer_ur_ls: vec![format!("http://127.0.0.1:{}", cluster.nodes[place].peer_port)],
            is_learner: false,
        };
        cluster
            .until("the member is added", async || {
                members.clone().member_add(add.clone()).await.is_ok()
            })
            .await;
        cluster.nodes[place].binary = std::path::Path::new(&binary).join("etcd");
        cluster.spawn(place, "existing", &[]);
        cluster.wait_ready().await;
    }
    for node in &cluster.nodes {
        let found = node.kv().await.range(prefix("k")).await.unwrap().into_inner();
        assert_eq!(found.kvs.len(), 30);
        assert_eq!(node.status().await.unwrap().version[..4], *"3.5.");
    }
}
