//! Errors as clients see them: codes and texts are etcd's, clients match on both.

use std::borrow::Cow;

use crate::apply::ApplyError;
use crate::auth::AuthError;
use crate::lease::LeaseError;
use crate::membership::MemberError;
use crate::mvcc::{self, check::Invalid};
use crate::server::ServerError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// What trailers say.
    pub fn of(trailers: &http::HeaderMap) -> Option<Code> {
        let number: i32 = trailers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        CODES.iter().copied().find(|code| *code as i32 == number)
    }

    /// As the label of `grpc_server_handled_total`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Cancelled => "Canceled",
            Code::Unknown => "Unknown",
            Code::InvalidArgument => "InvalidArgument",
            Code::DeadlineExceeded => "DeadlineExceeded",
            Code::NotFound => "NotFound",
            Code::PermissionDenied => "PermissionDenied",
            Code::ResourceExhausted => "ResourceExhausted",
            Code::FailedPrecondition => "FailedPrecondition",
            Code::OutOfRange => "OutOfRange",
            Code::Unimplemented => "Unimplemented",
            Code::Internal => "Internal",
            Code::Unavailable => "Unavailable",
            Code::DataLoss => "DataLoss",
            Code::Unauthenticated => "Unauthenticated",
        }
    }
}

const CODES: [Code; 15] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: Cow<'static, str>,
}

/// As Go prints a status, which clients of a watch compare with.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "rpc error: code = {} desc = {}",
            self.code.name(),
            self.message
        )
    }
}

impl Status {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status {
            code,
            message: message.into(),
        }
    }

    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Status {
        Status::new(Code::Unimplemented, message)
    }
}

impl From<ServerError> for Status {
    fn from(error: ServerError) -> Status {
        Status::new(code(&error), error.to_string())
    }
}

impl From<Invalid> for Status {
    fn from(error: Invalid) -> Status {
        Status::new(Code::InvalidArgument, error.to_string())
    }
}

impl From<mvcc::Error> for Status {
    fn from(error: mvcc::Error) -> Status {
        ServerError::from(error).into()
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Status {
        Status::new(auth_code(error), error.to_string())
    }
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Status {
        ServerError::from(error).into()
    }
}

fn code(error: &ServerError) -> Code {
    match error {
        ServerError::Apply(error) => apply_code(error),
        ServerError::Invalid(_) | ServerError::RequestTooLarge => Code::InvalidArgument,
        ServerError::TooManyRequests => Code::ResourceExhausted,
        ServerError::Timeout
        | ServerError::LeaderFailed
        | ServerError::ConnectionLost
        | ServerError::NoLeader
        | ServerError::Stopped
        | ServerError::LeaderChanged
        | ServerError::AppliedTimeout => Code::Unavailable,
        ServerError::NotLeader | ServerError::Learner => Code::FailedPrecondition,
        ServerError::Member(error) => member_code(*error),
        ServerError::Lease(error) => lease_code(*error),
    }
}

fn member_code(error: MemberError) -> Code {
    match error {
        MemberError::NotFound | MemberError::Removed => Code::NotFound,
        MemberError::BadUrls => Code::InvalidArgument,
        MemberError::Unhealthy => Code::Unavailable,
        // etcd gives the second one no code either.
        MemberError::TransferTimeout | MemberError::NotEnoughStarted => Code::Unknown,
        MemberError::Exists
        | MemberError::PeerUrlExists
        | MemberError::NotLearner
        | MemberError::TooManyLearners
        | MemberError::LearnerNotReady
        | MemberError::BadTransferee => Code::FailedPrecondition,
    }
}

fn lease_code(error: LeaseError) -> Code {
    match error {
        LeaseError::NotFound | LeaseError::Ending => Code::NotFound,
        LeaseError::Exists => Code::FailedPrecondition,
        LeaseError::TtlTooLarge => Code::OutOfRange,
        LeaseError::NotPrimary => Code::Unknown,
    }
}

fn apply_code(error: &ApplyError) -> Code {
    match error {
        ApplyError::Mvcc(mvcc::Error::Compacted | mvcc::Error::FutureRevision) => Code::OutOfRange,
        ApplyError::Mvcc(mvcc::Error::LeaseNotFound) => Code::NotFound,
        ApplyError::Lease(error) => lease_code(*error),
        ApplyError::Member(error) => member_code(*error),
        ApplyError::Mvcc(mvcc::Error::KeyNotFound) => Code::InvalidArgument,
        ApplyError::Mvcc(
            mvcc::Error::Io(_) | mvcc::Error::Undecidable { .. } | mvcc::Error::Unanswerable(_),
        )
        | ApplyError::Corrupt => Code::DataLoss,
        ApplyError::Auth(error) => auth_code(*error),
        ApplyError::NoSpace => Code::ResourceExhausted,
        ApplyError::Unsupported => Code::Unimplemented,
    }
}

fn auth_code(error: AuthError) -> Code {
    match error {
        AuthError::RootUserNotExist
        | AuthError::RootRoleNotExist
        | AuthError::UserAlreadyExist
        | AuthError::UserNotFound
        | AuthError::RoleAlreadyExist
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::PermissionNotGranted
        | AuthError::AuthNotEnabled => Code::FailedPrecondition,
        AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::AuthFailed
        | AuthError::PermissionNotGiven
        | AuthError::InvalidAuthMgmt
        | AuthError::AuthOldRevision => Code::InvalidArgument,
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::InvalidAuthToken => Code::Unauthenticated,
        // etcd has no codes for these.
        AuthError::NoPasswordUser | AuthError::VerifyOnly | AuthError::PasswordTooLong => Code::Unknown,
        AuthError::Busy => Code::ResourceExhausted,
    }
}
