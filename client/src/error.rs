//! What a request can end in, typed once for every caller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::time::Duration;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and the answer is a refusal.
    #[error("{}", describe(.0))]
    Api(Box<Status>),
    /// No answer: connect, TLS, broken stream. The request may or may not have been carried out.
    #[error("{request}: {source}")]
    Transport { request: String, source: BoxError },
    /// An answer that is not what it claims to be. `what` names the object or the request.
    #[error("cannot decode {what}: {source}")]
    Decode { what: String, source: serde_json::Error },
    #[error("cannot encode {what}: {source}")]
    Encode { what: String, source: serde_json::Error },
    #[error("{request}: no answer within {after:?}")]
    Timeout { request: String, after: Duration },
    #[error("leadership of {0} was lost: the write was not sent")]
    Fenced(String),
    #[error(transparent)]
    Config(#[from] crate::kubeconfig::ConfigError),
}

impl Error {
    pub fn transport(request: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Error::Transport {
            request: request.into(),
            source: source.into(),
        }
    }

    pub fn api(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Error::Api(Box::new(Status {
            code: Some(i32::from(code)),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }))
    }

    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    pub fn code(&self) -> Option<u16> {
        self.status()
            .and_then(|s| s.code)
            .and_then(|c| u16::try_from(c).ok())
    }

    pub fn reason(&self) -> &str {
        self.status().and_then(|s| s.reason.as_deref()).unwrap_or("")
    }

    /// What the server asked to wait, from `details.retryAfterSeconds` (filled from Retry-After when absent).
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds?;
        u64::try_from(seconds)
            .ok()
            .filter(|s| *s > 0)
            .map(Duration::from_secs)
    }

    pub fn is_not_found(&self) -> bool {
        self.has("NotFound", 404)
    }

    pub fn is_conflict(&self) -> bool {
        self.has("Conflict", 409)
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// 410 in both forms: `Gone` (an old resourceVersion) and `Expired` (a continue token or watch start).
    pub fn is_gone(&self) -> bool {
        matches!(self.reason(), "Gone" | "Expired") || self.has("", 410)
    }

    pub fn is_forbidden(&self) -> bool {
        self.has("Forbidden", 403)
    }

    pub fn is_invalid(&self) -> bool {
        self.has("Invalid", 422)
    }

    pub fn is_too_many_requests(&self) -> bool {
        self.has("TooManyRequests", 429)
    }

    pub fn is_method_not_supported(&self) -> bool {
        self.has("MethodNotAllowed", 405)
    }

    /// A create refused because its namespace is being deleted: retrying cannot help.
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self
            .status()
            .and_then(|s| s.details.as_ref())
            .and_then(|d| d.causes.as_ref());
        causes.is_some_and(|c| {
            c.iter()
                .any(|c| c.reason.as_deref() == Some("NamespaceTerminating"))
        })
    }

    /// The server was not reached or not able: the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Transport { .. } | Error::Timeout { .. } => true,
            Error::Api(_) => matches!(self.code(), Some(429 | 500 | 503 | 504)),
            _ => false,
        }
    }

    /// The reason decides when there is one, because upstream gives `AlreadyExists` and `Conflict` the same code.
    fn has(&self, reason: &str, code: u16) -> bool {
        match self.reason() {
            "" => self.code() == Some(code),
            given => given == reason,
        }
    }
}

fn describe(status: &Status) -> String {
    match (&status.message, &status.reason, status.code) {
        (Some(message), _, _) if !message.is_empty() => message.clone(),
        (_, Some(reason), code) => format!("{reason} ({})", code.unwrap_or(0)),
        (_, None, code) => format!("the server answered {}", code.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn already_exists_is_not_a_conflict_though_both_are_409() {
        let error = Error::api(409, "AlreadyExists", "pods \"a\" already exists");
        assert!(error.is_already_exists() && !error.is_conflict());
        assert!(Error::api(409, "Conflict", "").is_conflict());
        assert!(Error::api(409, "", "").is_conflict());
    }

    #[test]
    fn expired_and_gone_both_ask_for_a_relist() {
        assert!(Error::api(410, "Expired", "").is_gone());
        assert!(Error::api(410, "Gone", "").is_gone());
        assert!(!Error::api(404, "NotFound", "").is_gone());
    }
}
