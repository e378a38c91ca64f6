//! The Maintenance service.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use component_base::version::ETCD_VERSION;
use etcd_api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, InternalRaftRequest, MoveLeaderRequest,
    StatusRequest, StatusResponse, alarm_request::AlarmAction,
};

use super::caller::Caller;
use super::grpc::{Answer, message};
use super::status::{Code, Status};
use crate::apply;
use crate::mvcc::hash::KvHash;
use crate::server::{EtcdServer, ServerError};
use crate::snapshot::schema::STORAGE_VERSION_VALUE;
use crate::storage::keeper::Asked;

pub async fn alarm(server: Caller, request: AlarmRequest) -> Answer {
    match request.action() {
        AlarmAction::Get => server.known().await?,
        AlarmAction::Activate | AlarmAction::Deactivate => server.admin().await?,
    }
    if request.action() == AlarmAction::Get {
        let alarms = server.state.alarms.read();
        let wanted = |member: u64, kind: i32| {
            (request.member_id == 0 || request.member_id == member)
                && (request.alarm == AlarmType::None as i32 || request.alarm == kind)
        };
        let found = alarms.iter().filter(|(member, kind)| wanted(*member, *kind));
        let alarms = found
            .map(|(member, kind)| etcd_api::etcdserverpb::AlarmMember {
                member_id: *member,
                alarm: *kind,
            })
            .collect();
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

pub async fn status(server: Caller, _: StatusRequest) -> Answer {
    server.known().await?;
    let storage = &server.store().storage;
    let leader = server.leader();
    let downgrade = server.state.membership.read().downgrade.clone();
    let mut errors: Vec<String> = Vec::new();
    if leader == 0 {
        errors.push("etcdserver: no leader".to_owned());
    }
    for (member, kind) in server.state.alarms.read().iter() {
        errors.push(format!(
            "memberID:{member} alarm:{}",
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
        storage_version: STORAGE_VERSION_VALUE.to_owned(),
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
    server.bell.ask(Asked {
        reclaim: true,
        ..Asked::default()
    });
    message(&DefragmentResponse {
        header: Some(server.header(server.store().current())),
    })
}

async fn compute_hash(server: &Arc<EtcdServer>, revision: i64) -> Result<KvHash, Status> {
    let store = server.store().clone();
    let hash = tokio::task::spawn_blocking(move || store.hash_kv(revision)).await;
    hash.map_err(|error| Status::new(Code::Internal, error.to_string()))?
        .map_err(Status::from)
}

pub async fn hash(server: Caller, _: HashRequest) -> Answer {
    server.admin().await?;
    let hash = compute_hash(&server, 0).await?;
    message(&HashResponse {
        header: Some(server.header(hash.revision)),
        hash: hash.hash,
    })
}

pub async fn hash_kv(server: Caller, request: HashKvRequest) -> Answer {
    server.admin().await?;
    let hash = compute_hash(&server, request.revision).await?;
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
