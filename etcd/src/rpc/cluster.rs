//! The Cluster service.

use etcd_api::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use super::caller::Caller;
use super::grpc::{Answer, message};
use crate::membership::Member;

fn messages(members: &[Member]) -> Vec<MemberMessage> {
    members.iter().map(Member::message).collect()
}

pub async fn list(server: Caller, request: MemberListRequest) -> Answer {
    if request.linearizable {
        server.linearizable().await?;
    }
    server.known().await?;
    let members = server.state.membership.read().messages();
    message(&MemberListResponse {
        header: Some(server.header(0)),
        members,
    })
}

pub async fn add(server: Caller, request: MemberAddRequest) -> Answer {
    server.admin().await?;
    let (member, members) = server.add_member(request.peer_ur_ls, request.is_learner).await?;
    message(&MemberAddResponse {
        header: Some(server.header(0)),
        member: Some(member.message()),
        members: messages(&members),
    })
}

pub async fn remove(server: Caller, request: MemberRemoveRequest) -> Answer {
    server.admin().await?;
    let members = server.remove_member(request.id).await?;
    message(&MemberRemoveResponse {
        header: Some(server.header(0)),
        members: messages(&members),
    })
}

pub async fn update(server: Caller, request: MemberUpdateRequest) -> Answer {
    server.admin().await?;
    let members = server.update_member(request.id, request.peer_ur_ls).await?;
    message(&MemberUpdateResponse {
        header: Some(server.header(0)),
        members: messages(&members),
    })
}

pub async fn promote(server: Caller, request: MemberPromoteRequest) -> Answer {
    server.admin().await?;
    let members = server.promote_member(request.id).await?;
    message(&MemberPromoteResponse {
        header: Some(server.header(0)),
        members: messages(&members),
    })
}
