//! Downgrade: the cluster notes which version it is being prepared for, and its leader takes the cluster's version there
//! ([`EtcdServer::decide_version`](crate::server::EtcdServer::decide_version)).
//!
//! From then on members of that version may join in the place of these, and a snapshot is a database of theirs. Cancelling takes everything
//! back.

use etcd_api::etcdserverpb::{
    DowngradeRequest, DowngradeResponse, InternalRaftRequest, downgrade_request::DowngradeAction,
};
use etcd_api::membershippb::DowngradeInfoSetRequest;
use tracing::warn;

use super::caller::Caller;
use super::grpc::{Answer, message};
use super::status::{Code, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Minor {
    major: u64,
    minor: u64,
}

fn refused(code: Code, text: &'static str) -> Status {
    Status::new(code, text)
}

/// `3.5` or `3.5.1`: the patch does not matter.
fn parse(version: &str) -> Option<Minor> {
    let parts: Option<Vec<u64>> = version.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([major, minor] | [major, minor, _]) => Some(Minor {
            major: *major,
            minor: *minor,
        }),
        _ => None,
    }
}

pub async fn downgrade(server: Caller, request: DowngradeRequest) -> Answer {
    server.admin().await?;
    let Ok(action) = DowngradeAction::try_from(request.action) else {
        return Err(refused(Code::Unknown, "etcdserver: unknown method"));
    };
    match action {
        DowngradeAction::Validate => {
            validate(&server, &request.version).await?;
        }
        DowngradeAction::Enable => {
            let target = validate(&server, &request.version).await?;
            let ver = format!("{}.{}.0", target.major, target.minor);
            note(&server, DowngradeInfoSetRequest { enabled: true, ver }).await?;
        }
        DowngradeAction::Cancel => cancel(&server).await?,
    }
    let cluster = server.state.membership.read().version.clone();
    let version = parse(&cluster).map_or(cluster, |cluster| format!("{}.{}", cluster.major, cluster.minor));
    message(&DowngradeResponse {
        header: Some(server.header(server.store().current())),
        version,
    })
}

/// Only the minor version before the cluster's, and one job at a time.
async fn validate(server: &Caller, target: &str) -> Result<Minor, Status> {
    let target = parse(target).ok_or_else(|| {
        refused(
            Code::InvalidArgument,
            "etcdserver: wrong downgrade target version format",
        )
    })?;
    server.linearizable().await?;
    let membership = server.state.membership.read();
    let cluster = parse(&membership.version).ok_or_else(|| {
        refused(
            Code::FailedPrecondition,
            "etcdserver: cluster version not found during downgrade",
        )
    })?;
    if target.major != cluster.major || target.minor + 1 != cluster.minor {
        return Err(refused(
            Code::InvalidArgument,
            "etcdserver: invalid downgrade target version",
        ));
    }
    match membership.downgrade.enabled {
        true => Err(refused(
            Code::FailedPrecondition,
            "etcdserver: cluster has a downgrade job in progress",
        )),
        false => Ok(target),
    }
}

/// As etcd 3.6: cancelling what is not there is only worth a line in the log.
async fn cancel(server: &Caller) -> Result<(), Status> {
    server.linearizable().await?;
    if !server.state.membership.read().downgrade.enabled {
        warn!(error = "no inflight downgrade job", "failed to cancel downgrade");
        return Ok(());
    }
    note(server, DowngradeInfoSetRequest::default()).await
}

async fn note(server: &Caller, info: DowngradeInfoSetRequest) -> Result<(), Status> {
    let request = InternalRaftRequest {
        downgrade_info_set: Some(info),
        ..Default::default()
    };
    server.propose(request).await?.result?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_patch() {
        let minor = Some(Minor { major: 3, minor: 5 });
        for (text, expected) in [
            ("3.5", minor),
            ("3.5.17", minor),
            ("3", None),
            ("3.x", None),
            ("", None),
            ("3.5.1.2", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
