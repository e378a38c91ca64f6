//! The Cluster service.

use etcd_api::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};

use super::caller::Caller;
use super::grpc::{Answer, message};
use super::status::{Code, Status};
use crate::server::EtcdServer;

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

fn known(server: &EtcdServer, id: u64) -> Result<(), Status> {
    match server.state.membership.read().members.contains_key(&id) {
        true => Ok(()),
        false => Err(Status::new(Code::NotFound, "etcdserver: member not found")),
    }
}

fn not_yet() -> Answer {
    Err(Status::unimplemented(
        "etcdserver: this version serves a cluster of one member; its members cannot be changed yet",
    ))
}

pub async fn add(server: Caller, request: MemberAddRequest) -> Answer {
    server.admin().await?;
    if request.peer_ur_ls.is_empty() {
        return Err(Status::new(
            Code::InvalidArgument,
            "etcdserver: given member URLs are invalid",
        ));
    }
    not_yet()
}

pub async fn remove(server: Caller, request: MemberRemoveRequest) -> Answer {
    server.admin().await?;
    known(&server, request.id)?;
    // The last member cannot go: nobody would be left to agree on it.
    Err(Status::new(
        Code::FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members",
    ))
}

pub async fn update(server: Caller, request: MemberUpdateRequest) -> Answer {
    server.admin().await?;
    known(&server, request.id)?;
    not_yet()
}

pub async fn promote(server: Caller, request: MemberPromoteRequest) -> Answer {
    server.admin().await?;
    known(&server, request.id)?;
    Err(Status::new(
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member",
    ))
}
