//! Errors with clientv3's texts: what etcd is known to say is printed alone, everything else with gRPC's frame around it.

use tonic::{Code, Status};

use super::Context;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of etcd's own errors.
    #[error("{}", .0.message())]
    Etcd(Status),
    #[error("{}", status_text(.0))]
    Grpc(Status),
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// A configuration that cannot be used, or a state of the protocol that has a text of its own.
    #[error("{0}")]
    Text(String),
}

pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";
pub const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const PERMISSION_DENIED: &str = "etcdserver: permission denied";
const ROOT_ROLE_NOT_EXIST: &str = "etcdserver: root user does not have root role";
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

impl Error {
    pub fn text(text: impl Into<String>) -> Self {
        Error::Text(text.into())
    }

    /// `context` tells whether a deadline was ours or the server's.
    pub fn from_status(status: Status, context: &Context) -> Self {
        if is_known(status.message()) {
            return Error::Etcd(status);
        }
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled if context.expired() => Error::DeadlineExceeded,
            _ => Error::Grpc(status),
        }
    }

    pub fn is_permission_denied(&self) -> bool {
        self.says(PERMISSION_DENIED)
    }

    pub fn is_root_role_not_exist(&self) -> bool {
        self.says(ROOT_ROLE_NOT_EXIST)
    }

    pub fn is_auth_not_enabled(&self) -> bool {
        self.says(AUTH_NOT_ENABLED)
    }

    /// The texts are the protocol: etcd's clients tell its errors apart by them and by nothing else.
    fn says(&self, text: &str) -> bool {
        matches!(self, Error::Etcd(status) if status.message() == text)
    }
}

/// `rpc error: code = NotFound desc = ...`.
pub fn status_text(status: &Status) -> String {
    format!(
        "rpc error: code = {} desc = {}",
        code_name(status.code()),
        status.message()
    )
}

fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

/// tonic calls a broken connection unknown; gRPC calls it unavailable, which is worth another attempt where that is safe.
pub fn lost_connection(status: Status) -> Status {
    let transport =
        std::error::Error::source(&status).is_some_and(|source| source.is::<tonic::transport::Error>());
    if transport && status.code() == Code::Unknown {
        return Status::unavailable("error reading from server: EOF");
    }
    status
}

pub fn is_known(message: &str) -> bool {
    KNOWN.contains(&message)
}

/// Upstream's `rpctypes` errors.
const KNOWN: &[&str] = &[
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid client api version",
    "etcdserver: invalid sort option",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
    "etcdserver: watch canceled",
    "etcdserver: member ID already exist",
    "etcdserver: Peer URLs already exists",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: given member URLs are invalid",
    "etcdserver: member not found",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: too many learner members in cluster",
    "etcdserver: cluster ID mismatch",
    "etcdserver: request is too large",
    "etcdserver: too many requests",
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: permission not given",
    "etcdserver: permission denied",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth token",
    "etcdserver: invalid auth management",
    "etcdserver: revision of auth store is old",
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: leader changed",
    "etcdserver: not capable",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: request timed out, waiting for the applied index took too long",
    "etcdserver: unhealthy cluster",
    "etcdserver: corrupt cluster",
    "etcdserver: rpc not supported for learner",
    "etcdserver: bad leader transferee",
    "etcdserver: wrong downgrade target version format",
    "etcdserver: invalid downgrade target version",
    "etcdserver: cluster version not found during downgrade",
    "etcdserver: cluster has a downgrade job in progress",
    "etcdserver: no inflight downgrade job",
    "etcdserver: request canceled",
    "etcdserver: context deadline exceeded",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_errors_stand_alone_and_others_in_grpcs_frame() {
        let context = Context::background();
        let known = Error::from_status(Status::not_found(LEASE_NOT_FOUND), &context);
        assert_eq!(known.to_string(), LEASE_NOT_FOUND);
        let unknown = Error::from_status(Status::cancelled("etcdserver: new words"), &context);
        assert_eq!(
            unknown.to_string(),
            "rpc error: code = Canceled desc = etcdserver: new words"
        );
        let late = Error::from_status(
            Status::deadline_exceeded("x"),
            &Context::timeout(Default::default()),
        );
        assert_eq!(late.to_string(), "context deadline exceeded");
    }
}
