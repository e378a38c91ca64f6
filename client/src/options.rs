//! The parameters of a request, in the words of the API.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub resource_version: Option<String>,
    pub resource_version_match: Option<String>,
    pub limit: Option<u32>,
    pub continue_token: Option<String>,
    pub timeout_seconds: Option<u32>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: bool,
}

impl ListOptions {
    pub fn fields(selector: impl Into<String>) -> Self {
        ListOptions {
            field_selector: Some(selector.into()),
            ..Self::default()
        }
    }

    pub fn labels(selector: impl Into<String>) -> Self {
        ListOptions {
            label_selector: Some(selector.into()),
            ..Self::default()
        }
    }

    pub(crate) fn query(&self, watch: bool) -> Query {
        let mut query = Query::default();
        if watch {
            query.add("watch", "true");
        }
        query.option("labelSelector", self.label_selector.as_deref());
        query.option("fieldSelector", self.field_selector.as_deref());
        query.option("resourceVersion", self.resource_version.as_deref());
        query.option("resourceVersionMatch", self.resource_version_match.as_deref());
        query.option("limit", self.limit.map(|l| l.to_string()).as_deref());
        query.option("continue", self.continue_token.as_deref());
        query.option(
            "timeoutSeconds",
            self.timeout_seconds.map(|t| t.to_string()).as_deref(),
        );
        if self.allow_watch_bookmarks {
            query.add("allowWatchBookmarks", "true");
        }
        if self.send_initial_events {
            query.add("sendInitialEvents", "true");
        }
        query
    }
}

/// A patch body with its media type.
#[derive(Clone, Debug)]
pub enum Patch {
    Merge(serde_json::Value),
    Strategic(serde_json::Value),
    Json(serde_json::Value),
    Apply {
        body: serde_json::Value,
        manager: String,
        force: bool,
    },
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Json(_) => "application/json-patch+json",
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> &serde_json::Value {
        match self {
            Patch::Merge(body) | Patch::Strategic(body) | Patch::Json(body) | Patch::Apply { body, .. } => {
                body
            }
        }
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        if let Patch::Apply { manager, force, .. } = self {
            query.add("fieldManager", manager);
            query.add("force", if *force { "true" } else { "false" });
        }
        query
    }
}

pub fn background() -> DeleteOptions {
    propagation("Background")
}

pub fn propagation(policy: &str) -> DeleteOptions {
    DeleteOptions {
        propagation_policy: Some(policy.to_owned()),
        ..DeleteOptions::default()
    }
}

pub fn precondition_uid(uid: &str) -> DeleteOptions {
    let preconditions = Preconditions {
        uid: Some(uid.to_owned()),
        ..Preconditions::default()
    };
    DeleteOptions {
        preconditions: Some(preconditions),
        ..DeleteOptions::default()
    }
}

/// A query string under construction; values are percent-encoded as they are added.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        encode_into(value, &mut self.0);
    }

    pub fn option(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters: right in a path segment and in a query.
pub fn encode_into(value: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => {
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_percent_encoded() {
        let options = ListOptions {
            limit: Some(500),
            ..ListOptions::fields("spec.nodeName=a b")
        };
        assert_eq!(
            options.query(true).as_str(),
            "?watch=true&fieldSelector=spec.nodeName%3Da%20b&limit=500"
        );
    }

    #[test]
    fn a_name_cannot_leave_its_path_segment() {
        let mut out = String::new();
        encode_into("../x?y", &mut out);
        assert_eq!(out, "..%2Fx%3Fy");
    }
}
