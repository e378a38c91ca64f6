//! The Maintenance service, and what little of Auth and gRPC health there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use component_base::version::ETCD_VERSION;
use etcd_api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, AuthDisableRequest, AuthStatusRequest, AuthStatusResponse,
    AuthenticateRequest, DefragmentRequest, DefragmentResponse, DowngradeInfo, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, InternalRaftRequest,
    MoveLeaderRequest, StatusRequest, StatusResponse, alarm_request::AlarmAction,
    downgrade_request::DowngradeAction,
};
use etcd_api::health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::grpc::{Answer, message};
use super::status::{Code, Status};
use crate::apply;
use crate::mvcc::hash::KvHash;
use crate::server::{EtcdServer, ServerError};
use crate::snapshot::schema::STORAGE_VERSION_VALUE;
use crate::storage::keeper::Asked;

pub async fn alarm(server: Arc<EtcdServer>, request: AlarmRequest) -> Answer {
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

pub async fn status(server: Arc<EtcdServer>, _: StatusRequest) -> Answer {
    let storage = &server.store().storage;
    let leader = server.leader();
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
            enabled: false,
            target_version: String::new(),
        }),
    };
    message(&response)
}

/// Space comes back without being asked; asking only makes it soon.
pub async fn defragment(server: Arc<EtcdServer>, _: DefragmentRequest) -> Answer {
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

pub async fn hash(server: Arc<EtcdServer>, _: HashRequest) -> Answer {
    let hash = compute_hash(&server, 0).await?;
    message(&HashResponse {
        header: Some(server.header(hash.revision)),
        hash: hash.hash,
    })
}

pub async fn hash_kv(server: Arc<EtcdServer>, request: HashKvRequest) -> Answer {
    let hash = compute_hash(&server, request.revision).await?;
    let header = Some(server.header(server.store().current()));
    message(&HashKvResponse {
        header,
        hash: hash.hash,
        compact_revision: hash.compacted,
        hash_revision: hash.revision,
    })
}

pub async fn move_leader(server: Arc<EtcdServer>, request: MoveLeaderRequest) -> Answer {
    server.move_leader(request.target_id).await?;
    message(&etcd_api::etcdserverpb::MoveLeaderResponse {
        header: Some(server.header(0)),
    })
}

pub async fn downgrade(server: Arc<EtcdServer>, request: DowngradeRequest) -> Answer {
    match request.action() {
        DowngradeAction::Validate => validate_downgrade(&request.version)?,
        DowngradeAction::Enable => {
            validate_downgrade(&request.version)?;
            return Err(Status::unimplemented(
                "etcdserver: downgrading is not supported yet by this version",
            ));
        }
        DowngradeAction::Cancel => {
            return Err(Status::new(
                Code::FailedPrecondition,
                "etcdserver: no inflight downgrade job",
            ));
        }
    }
    let version = server.state.membership.read().version.clone();
    message(&DowngradeResponse {
        header: Some(server.header(0)),
        version,
    })
}

/// Only the minor version before this one can be a target.
fn validate_downgrade(target: &str) -> Result<(), Status> {
    let parts: Option<Vec<u32>> = target.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([3, 5] | [3, 5, _]) => Ok(()),
        Some([_, _] | [_, _, _]) => Err(Status::new(
            Code::InvalidArgument,
            "etcdserver: invalid downgrade target version",
        )),
        _ => Err(Status::new(
            Code::InvalidArgument,
            "etcdserver: wrong downgrade target version format",
        )),
    }
}

pub async fn auth_status(server: Arc<EtcdServer>, _: AuthStatusRequest) -> Answer {
    message(&AuthStatusResponse {
        header: Some(server.header(server.store().current())),
        enabled: false,
        auth_revision: 1,
    })
}

pub async fn auth_disable(server: Arc<EtcdServer>, _: AuthDisableRequest) -> Answer {
    message(&etcd_api::etcdserverpb::AuthDisableResponse {
        header: Some(server.header(server.store().current())),
    })
}

pub async fn authenticate(_: Arc<EtcdServer>, _: AuthenticateRequest) -> Answer {
    Err(Status::new(
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
    ))
}

pub async fn health_check(server: Arc<EtcdServer>, _: HealthCheckRequest) -> Answer {
    let status = if server.leader() == 0 {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    };
    message(&HealthCheckResponse {
        status: status as i32,
    })
}
