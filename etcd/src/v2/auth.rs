//! `/v2/auth`: there are no users and roles of this API, so its auth is off and cannot be turned on. Who would make some is told what
//! there is instead.

use component_base::http::{Body, typed};
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::{JSON, not_allowed, refusal};

const INSTEAD: &str = "auth: users and roles of the v2 API are not supported; enable auth of v3 (etcdctl auth enable), under which its keys are root's alone";

/// `path` is what follows `/v2/auth`. None where etcd has nothing either.
pub fn serve(method: &Method, path: &str) -> Option<Response<Body>> {
    let (collection, name) = path
        .strip_prefix('/')?
        .split_once('/')
        .unwrap_or((&path[1..], ""));
    let allowed = match (collection, name) {
        ("enable", "") => "GET,PUT,DELETE",
        ("users" | "roles", "") => "GET",
        ("users" | "roles", _) => "GET,PUT,DELETE",
        _ => return None,
    };
    if !allowed.split(',').any(|known| known == method.as_str()) {
        return Some(not_allowed(allowed));
    }
    if *method == Method::PUT {
        return Some(refusal(StatusCode::NOT_IMPLEMENTED, INSTEAD));
    }
    let reads = *method == Method::GET;
    Some(match (collection, name) {
        ("enable", _) if reads => listed(&json!({"enabled": false})),
        ("enable", _) => refusal(StatusCode::CONFLICT, "auth: already disabled"),
        ("users", "") => listed(&json!({"users": null})),
        ("roles", "") => listed(&json!({"roles": [root()]})),
        (_, name) if name.contains('/') => refusal(StatusCode::BAD_REQUEST, "Invalid path"),
        ("roles", "root") if reads => listed(&root()),
        ("roles", "root") => refusal(
            StatusCode::FORBIDDEN,
            "auth: Cannot modify role root: is root role.",
        ),
        ("roles", name) => refusal(
            StatusCode::NOT_FOUND,
            &format!("auth: Role {name} does not exist."),
        ),
        (_, name) => refusal(
            StatusCode::NOT_FOUND,
            &format!("auth: User {name} does not exist."),
        ),
    })
}

/// What etcd has from the start.
fn root() -> serde_json::Value {
    json!({"role": "root", "permissions": {"kv": {"read": ["/*"], "write": ["/*"]}}})
}

fn listed(value: &serde_json::Value) -> Response<Body> {
    typed(StatusCode::OK, JSON, format!("{value}\n"))
}
