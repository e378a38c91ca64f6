//! The Maintenance service.

use std::sync::atomic::Ordering;
use std::time::Instant;

use component_base::version::ETCD_VERSION;
use etcd_api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, InternalRaftRequest, MoveLeaderRequest,
    StatusRequest, StatusResponse, alarm_request::AlarmAction,
};

use super::caller::Caller;
use super::grpc::{Answer, message};
use crate::membership::storage_version;
use crate::metrics;
use crate::peer::corrupt;
use crate::server::{EtcdServer, ServerError};
use crate::storage::keeper::Request;
use crate::{apply, meta};

pub async fn alarm(server: Caller, request: AlarmRequest) -> Answer {
    match request.action() {
        AlarmAction::Get => server.known().await?,
        AlarmAction::Activate | AlarmAction::Deactivate => server.admin().await?,
    }
    if request.action() == AlarmAction::Get {
        // etcd asks through the log, which a full disk refuses; what was disarmed elsewhere is not to be seen here either.
        server.linearizable().await?;
        let alarms = meta::alarms_of(&known_alarms(&server), request.alarm);
        return message(&AlarmResponse {
            header: Some(server.header(server.store().current())),
            alarms,
        });
    }
    let applied = server
        .propose(InternalRaftRequest {
            alarm: Some(request),
            ..Default::default()
        })
        .await?;
    let apply::Answer::Alarms(alarms) = applied.result? else {
        return Err(ServerError::Stopped.into());
    };
    message(&AlarmResponse {
        header: Some(server.header(applied.revision)),
        alarms,
    })
}

/// The cluster's, and CORRUPT of this member when something of its own store cannot be read: who asks this member for its health is to hear of
/// it, and nobody is kept from writing by it.
fn known_alarms(server: &EtcdServer) -> meta::Alarms {
    let mut alarms = server.state.alarms.read().clone();
    if server.store().storage.damage().is_some() {
        alarms.insert((server.member, AlarmType::Corrupt as i32));
    }
    alarms
}

pub async fn status(server: Caller, _: StatusRequest) -> Answer {
    server.known().await?;
    let storage = &server.store().storage;
    let leader = server.leader();
    let (downgrade, cluster_version) = {
        let membership = server.state.membership.read();
        (membership.downgrade.clone(), membership.version.clone())
    };
    let mut errors: Vec<String> = Vec::new();
    if leader == 0 {
        errors.push("etcdserver: no leader".to_owned());
    }
    if let Some(damage) = storage.damage() {
        errors.push(format!("memberID:{} {damage}", server.member));
    }
    // The space at the end is the one that Go's text form of a message has.
    for (member, kind) in server.state.alarms.read().iter() {
        errors.push(format!(
            "memberID:{member} alarm:{} ",
            AlarmType::try_from(*kind).map_or("NONE", |kind| kind.as_str_name())
        ));
    }
    let response = StatusResponse {
        header: Some(server.header(server.store().current())),
        version: ETCD_VERSION.to_owned(),
        db_size: storage.total_bytes() as i64,
        leader,
        raft_index: server.raft.committed.load(Ordering::SeqCst),
        raft_term: server.raft.term.load(Ordering::SeqCst),
        raft_applied_index: server.raft.applied.load(Ordering::SeqCst),
        errors,
        db_size_in_use: storage.live_bytes() as i64,
        is_learner: server.is_learner(),
        storage_version: storage_version(&cluster_version),
        db_size_quota: server.limits.quota_bytes as i64,
        downgrade_info: Some(DowngradeInfo {
            enabled: downgrade.enabled,
            target_version: downgrade.ver,
        }),
    };
    message(&response)
}

/// Space comes back without being asked; asking only makes it soon.
pub async fn defragment(server: Caller, _: DefragmentRequest) -> Answer {
    server.admin().await?;
    server.keeper.ask(Request::RECLAIM);
    message(&DefragmentResponse::default())
}

pub async fn hash(server: Caller, _: HashRequest) -> Answer {
    server.admin().await?;
    let start = Instant::now();
    let hash = corrupt::hash(server.store(), 0).await?;
    metrics::HASH.observe_since(start);
    message(&HashResponse {
        header: Some(server.header(hash.revision)),
        hash: hash.hash,
    })
}

pub async fn hash_kv(server: Caller, request: HashKvRequest) -> Answer {
    server.admin().await?;
    let hash = corrupt::hash(server.store(), request.revision).await?;
    let header = Some(server.header(server.store().current()));
    message(&HashKvResponse {
        header,
        hash: hash.hash,
        compact_revision: hash.compacted,
        hash_revision: hash.revision,
    })
}

pub async fn move_leader(server: Caller, request: MoveLeaderRequest) -> Answer {
    server.admin().await?;
    server.move_leader(request.target_id).await?;
    message(&etcd_api::etcdserverpb::MoveLeaderResponse {
        header: Some(server.header(0)),
    })
}
