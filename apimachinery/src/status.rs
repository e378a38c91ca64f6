//! `metav1.Status`: every failure that a client sees, with upstream's reasons, codes, messages and details.

use crate::field::{self, ErrorList, quote};
use crate::json::{self, DecodeError};
use crate::patch::PatchError;
use crate::schema::Gvk;
use crate::value::Value;
use std::fmt;

/// A resource named in an error; prints as `pods` or `deployments.apps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl<'a> GroupResource<'a> {
    pub const fn new(group: &'a str, resource: &'a str) -> GroupResource<'a> {
        GroupResource { group, resource }
    }
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

/// A failed request. `message` is what `kubectl` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Details>,
}

pub type StatusError = Status;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// A resource's plural in most errors, a kind in `Invalid`, as upstream.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, resource: GroupResource<'_>, name: &str) -> Status {
        self.details = Some(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.resource.to_owned(),
            ..Details::default()
        });
        self
    }

    pub fn with_cause(mut self, reason: &str, field: &str, message: &str) -> Status {
        let cause = Cause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Status {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub fn to_value(&self) -> Value {
        let mut status = Value::from([
            ("kind", "Status".into()),
            ("apiVersion", "v1".into()),
            ("metadata", Value::Object(Default::default())),
            ("status", "Failure".into()),
        ]);
        set_nonempty(&mut status, "message", &self.message);
        set_nonempty(&mut status, "reason", self.reason);
        if let Some(details) = &self.details {
            status.set("details", details.to_value());
        }
        if self.code != 0 {
            status.set("code", i64::from(self.code));
        }
        status
    }

    pub fn to_json(&self) -> Vec<u8> {
        json::to_vec(&self.to_value())
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut details = Value::Object(Default::default());
        set_nonempty(&mut details, "name", &self.name);
        set_nonempty(&mut details, "group", &self.group);
        set_nonempty(&mut details, "kind", &self.kind);
        set_nonempty(&mut details, "uid", &self.uid);
        if !self.causes.is_empty() {
            details.set(
                "causes",
                Value::List(self.causes.iter().map(Cause::to_value).collect()),
            );
        }
        if self.retry_after_seconds > 0 {
            details.set("retryAfterSeconds", i64::from(self.retry_after_seconds));
        }
        details
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut cause = Value::Object(Default::default());
        set_nonempty(&mut cause, "reason", &self.reason);
        set_nonempty(&mut cause, "message", &self.message);
        set_nonempty(&mut cause, "field", &self.field);
        cause
    }
}

fn set_nonempty(object: &mut Value, key: &'static str, text: &str) {
    if !text.is_empty() {
        object.set(key, text);
    }
}

/// A `Status` of success, as deletes answer: `details` name what was deleted.
pub fn success(resource: GroupResource<'_>, name: &str, uid: &str) -> Value {
    let details = Details {
        uid: uid.to_owned(),
        ..Status::default()
            .about(resource, name)
            .details
            .unwrap_or_default()
    };
    let mut status = Value::from([
        ("kind", "Status".into()),
        ("apiVersion", "v1".into()),
        ("metadata", Value::Object(Default::default())),
        ("status", "Success".into()),
    ]);
    if details != Details::default() {
        status.set("details", details.to_value());
    }
    status
}

pub fn not_found(resource: GroupResource<'_>, name: &str) -> Status {
    Status::new(404, "NotFound", format!("{resource} {} not found", quote(name))).about(resource, name)
}

/// For paths that name no resource: Go's generic answer.
pub fn not_found_path() -> Status {
    Status::new(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
    .with_details()
}

pub fn already_exists(resource: GroupResource<'_>, name: &str) -> Status {
    Status::new(
        409,
        "AlreadyExists",
        format!("{resource} {} already exists", quote(name)),
    )
    .about(resource, name)
}

pub fn generate_name_conflict(resource: GroupResource<'_>, name: &str, retry_after: u32) -> Status {
    let message = format!(
        "{resource} {} already exists, the server was not able to generate a unique name for the object",
        quote(name)
    );
    Status::new(409, "AlreadyExists", message)
        .about(resource, name)
        .with_retry_after(retry_after)
}

pub fn conflict(resource: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Status {
    let message = format!(
        "Operation cannot be fulfilled on {resource} {}: {why}",
        quote(name)
    );
    Status::new(409, "Conflict", message).about(resource, name)
}

/// The text of a lost update, which clients match on.
pub const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// `causes` are `(manager text, field)` pairs, each a `FieldManagerConflict`.
pub fn apply_conflict(
    message: impl Into<String>,
    causes: impl IntoIterator<Item = (String, String)>,
) -> Status {
    let status = Status::new(409, "Conflict", message).with_details();
    causes.into_iter().fold(status, |status, (text, field)| {
        status.with_cause("FieldManagerConflict", &field, &text)
    })
}

pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Status {
    let qualified = GroupResource::new(group, kind);
    let message = match errors.len() {
        0 => format!("{qualified} {} is invalid", quote(name)),
        _ => format!(
            "{qualified} {} is invalid: {}",
            quote(name),
            field::aggregate(errors)
        ),
    };
    let status = Status::new(422, "Invalid", message).about(qualified, name);
    errors.iter().fold(status, |status, e| {
        status.with_cause(e.kind.reason(), &e.field, &e.body())
    })
}

pub fn bad_request(message: impl Into<String>) -> Status {
    Status::new(400, "BadRequest", message)
}

pub fn unauthorized(message: &str) -> Status {
    Status::new(
        401,
        "Unauthorized",
        if message.is_empty() {
            "not authorized"
        } else {
            message
        },
    )
}

pub fn forbidden(resource: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Status {
    let message = match (resource.resource, name) {
        ("", _) => format!("forbidden: {why}"),
        (_, "") => format!("{resource} is forbidden: {why}"),
        _ => format!("{resource} {} is forbidden: {why}", quote(name)),
    };
    Status::new(403, "Forbidden", message).about(resource, name)
}

pub fn gone(message: impl Into<String>) -> Status {
    Status::new(410, "Gone", message)
}

/// A resourceVersion or continue token that history no longer reaches.
pub fn expired(message: impl Into<String>) -> Status {
    Status::new(410, "Expired", message)
}

pub fn timeout(message: impl fmt::Display, retry_after: u32) -> Status {
    Status::new(504, "Timeout", format!("Timeout: {message}"))
        .with_details()
        .with_retry_after(retry_after)
}

pub fn server_timeout(resource: GroupResource<'_>, operation: &str, retry_after: u32) -> Status {
    let message = format!(
        "The {operation} operation against {resource} could not be completed at this time, please try again."
    );
    Status::new(500, "ServerTimeout", message)
        .about(resource, operation)
        .with_retry_after(retry_after)
}

pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Status {
    Status::new(429, "TooManyRequests", message)
        .with_details()
        .with_retry_after(retry_after)
}

pub fn request_entity_too_large(message: impl fmt::Display) -> Status {
    Status::new(
        413,
        "RequestEntityTooLarge",
        format!("Request entity too large: {message}"),
    )
}

pub fn method_not_supported(resource: GroupResource<'_>, action: &str) -> Status {
    let message = format!(
        "{action} is not supported on resources of kind {}",
        quote(&resource.to_string())
    );
    Status::new(405, "MethodNotAllowed", message).about(resource, "")
}

/// For methods that the path does not know at all.
pub fn method_not_allowed() -> Status {
    Status::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
    .with_details()
}

pub fn not_acceptable(accepted: &[&str]) -> Status {
    let message = format!(
        "only the following media types are accepted: {}",
        accepted.join(", ")
    );
    Status::new(406, "NotAcceptable", message)
}

pub fn unsupported_media_type(accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Status::new(415, "UnsupportedMediaType", message)
}

pub fn internal(why: impl fmt::Display) -> Status {
    let why = why.to_string();
    Status::new(500, "InternalError", format!("Internal error occurred: {why}")).with_cause("", "", &why)
}

pub fn service_unavailable(message: impl Into<String>) -> Status {
    Status::new(503, "ServiceUnavailable", message)
}

/// A body that cannot be read as `gvk`.
pub fn undecodable(gvk: Gvk<'_>, error: &DecodeError) -> Status {
    let kind = gvk.kind;
    bad_request(format!(
        "{kind} in version {} cannot be handled as a {kind}: {error}",
        quote(gvk.version)
    ))
}

/// A patch that cannot be read or applied.
pub fn unpatchable(error: PatchError) -> Status {
    match error {
        PatchError::BadRequest(message) => bad_request(message),
        // Upstream does not say what of the patch did not fit.
        PatchError::Unprocessable(_) => Status::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
        .with_details(),
        PatchError::TooLarge(message) => request_entity_too_large(message),
    }
}

impl Status {
    /// Upstream prints `details: {}` where it fills in nothing.
    fn with_details(mut self) -> Status {
        self.details.get_or_insert_default();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENTS: GroupResource<'static> = GroupResource::new("apps", "deployments");

    #[test]
    fn a_missing_object_reads_as_upstream() {
        let status = not_found(DEPLOYMENTS, "web");
        assert_eq!(
            String::from_utf8(status.to_json()).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"web\" not found","reason":"NotFound","details":{"name":"web","group":"apps","kind":"deployments"},"code":404}"#
        );
    }

    #[test]
    fn invalid_lists_each_field_as_a_cause() {
        let errors = vec![field::required(&field::Path::new("spec.selector"), "")];
        let status = invalid("apps", "Deployment", "web", &errors);
        assert_eq!(
            status.message,
            "Deployment.apps \"web\" is invalid: spec.selector: Required value"
        );
        assert_eq!(
            status.to_value().list_at("details.causes")[0].str_at("reason"),
            "FieldValueRequired"
        );
        assert_eq!((status.code, status.reason), (422, "Invalid"));
    }

    #[test]
    fn a_lost_update_carries_the_text_clients_match_on() {
        assert_eq!(
            conflict(DEPLOYMENTS, "web", OPTIMISTIC_LOCK).message,
            "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"
        );
    }

    #[test]
    fn success_names_what_was_deleted() {
        let value = success(GroupResource::new("", "pods"), "p", "u1");
        assert_eq!(value.str_at("status"), "Success");
        assert_eq!(value.str_at("details.uid"), "u1");
    }
}
