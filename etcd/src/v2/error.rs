//! v2's errors: numbers and texts that clients know.

use component_base::http::{Body, typed};
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

pub const INDEX: HeaderName = HeaderName::from_static("x-etcd-index");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    KeyNotFound = 100,
    TestFailed = 101,
    NotFile = 102,
    NotDir = 104,
    NodeExist = 105,
    RootReadOnly = 107,
    DirNotEmpty = 108,
    Unauthorized = 110,
    PrevValueRequired = 201,
    TtlNotANumber = 202,
    IndexNotANumber = 203,
    InvalidField = 209,
    InvalidForm = 210,
    RefreshValue = 211,
    RefreshTtlRequired = 212,
    RaftInternal = 300,
    LeaderElect = 301,
    EventIndexCleared = 401,
}

impl Code {
    fn message(self) -> &'static str {
        match self {
            Code::KeyNotFound => "Key not found",
            Code::TestFailed => "Compare failed",
            Code::NotFile => "Not a file",
            Code::NotDir => "Not a directory",
            Code::NodeExist => "Key already exists",
            Code::RootReadOnly => "Root is read only",
            Code::DirNotEmpty => "Directory not empty",
            Code::Unauthorized => "The request requires user authentication",
            Code::PrevValueRequired => "PrevValue is Required in POST form",
            Code::TtlNotANumber => "The given TTL in POST form is not a number",
            Code::IndexNotANumber => "The given index in POST form is not a number",
            Code::InvalidField => "Invalid field",
            Code::InvalidForm => "Invalid POST form",
            Code::RefreshValue => "Value provided on refresh",
            Code::RefreshTtlRequired => "A TTL must be provided on refresh",
            Code::RaftInternal => "Raft Internal Error",
            Code::LeaderElect => "During Leader Election",
            Code::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Code::KeyNotFound => StatusCode::NOT_FOUND,
            Code::NotFile | Code::DirNotEmpty => StatusCode::FORBIDDEN,
            Code::TestFailed | Code::NodeExist => StatusCode::PRECONDITION_FAILED,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::RaftInternal | Code::LeaderElect => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub cause: String,
    /// Of the store when it refused; 0 when the request did not get so far.
    pub index: u64,
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(rename = "errorCode")]
    code: u16,
    message: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    index: u64,
}

impl Error {
    pub fn new(code: Code, cause: impl Into<String>, index: u64) -> Error {
        Error {
            code,
            cause: cause.into(),
            index,
        }
    }

    pub fn request(code: Code, cause: impl Into<String>) -> Error {
        Error::new(code, cause, 0)
    }

    pub fn json(&self) -> String {
        let wire = Wire {
            code: self.code as u16,
            message: self.code.message(),
            cause: &self.cause,
            index: self.index,
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    pub fn response(&self) -> Response<Body> {
        let mut response = typed(self.code.status(), super::JSON, self.json() + "\n");
        response
            .headers_mut()
            .insert(INDEX, HeaderValue::from(self.index));
        response
    }
}
