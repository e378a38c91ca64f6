//! The Cluster service.

use std::sync::Arc;

use etcd_api::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use super::grpc::{Answer, message};
use crate::membership::Member;
use crate::server::EtcdServer;

fn messages(members: &[Member]) -> Vec<MemberMessage> {
    members.iter().map(Member::message).collect()
}

pub async fn list(server: Arc<EtcdServer>, request: MemberListRequest) -> Answer {
    if request.linearizable {
        server.linearizable().await?;
    }
    let members = server.state.membership.read().messages();
    message(&MemberListResponse {
        header: Some(server.header(0)),
        members,
    })
}

pub async fn add(server: Arc<EtcdServer>, request: MemberAddRequest) -> Answer {
    let (member, members) = server.add_member(request.peer_ur_ls, request.is_learner).await?;
    message(&MemberAddResponse {
        header: Some(server.header(0)),
        member: Some(member.message()),
        members: messages(&members),
    })
}

pub async fn remove(server: Arc<EtcdServer>, request: MemberRemoveRequest) -> Answer {
    let members = server.remove_member(request.id).await?;
    message(&MemberRemoveResponse {
        header: Some(server.header(0)),
        members: messages(&members),
    })
}

pub async fn update(server: Arc<EtcdServer>, request: MemberUpdateRequest) -> Answer {
    let members = server.update_member(request.id, request.peer_ur_ls).await?;
    message(&MemberUpdateResponse {
        header: Some(server.header(0)),
        members: messages(&members),
    })
}

pub async fn promote(server: Arc<EtcdServer>, request: MemberPromoteRequest) -> Answer {
    let members = server.promote_member(request.id).await?;
    message(&MemberPromoteResponse {
        header: Some(server.header(0)),
        members: messages(&members),
    })
}
