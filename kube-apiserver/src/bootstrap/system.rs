//! What every cluster has from its first minute: system namespaces, priority classes, the authentication ConfigMap.

use apimachinery::status::StatusError;
use apimachinery::value::Value;

use super::write;
use crate::registry::Registry;

pub const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// (name, value, description)
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

pub async fn namespaces(registry: &Registry) -> Result<(), StatusError> {
    let Some(store) = registry.store("", "namespaces") else {
        return Ok(());
    };
    for name in SYSTEM_NAMESPACES {
        write::ensure(store, "", name, object("v1", "Namespace", "", name)).await?;
    }
    Ok(())
}

pub async fn priority_classes(registry: &Registry) -> Result<(), StatusError> {
    let Some(store) = registry.store("scheduling.k8s.io", "priorityclasses") else {
        return Ok(());
    };
    for (name, value, description) in PRIORITY_CLASSES {
        let mut class = object("scheduling.k8s.io/v1", "PriorityClass", "", name);
        class.set("value", value);
        class.set("description", description);
        write::ensure(store, "", name, class).await?;
    }
    Ok(())
}

/// What `extension-apiserver-authentication` in kube-system tells extension servers and the other daemons.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationInfo {
    pub client_ca: Option<String>,
    /// PEM, and the flags' values.
    pub request_header: Option<RequestHeaderInfo>,
}

#[derive(Clone, Debug, Default)]
pub struct RequestHeaderInfo {
    pub client_ca: String,
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

const CONFIG_MAP: &str = "extension-apiserver-authentication";

pub async fn authentication_configmap(
    registry: &Registry,
    info: &AuthenticationInfo,
) -> Result<(), StatusError> {
    let Some(store) = registry.store("", "configmaps") else {
        return Ok(());
    };
    let data = data(info);
    if data.as_object().is_none_or(|d| d.is_empty()) {
        return Ok(());
    }
    let Some(existing) = store.get("kube-system", CONFIG_MAP) else {
        let mut map = object("v1", "ConfigMap", "kube-system", CONFIG_MAP);
        map.set("data", data);
        return write::create(store, "kube-system", map).await;
    };
    if existing.value().get("data") == Some(&data) {
        return Ok(());
    }
    let change = move |stored: &Value| {
        let mut wanted = stored.clone();
        wanted.set("data", data.clone());
        Ok(wanted)
    };
    write::update(store, "kube-system", CONFIG_MAP, &change).await
}

fn data(info: &AuthenticationInfo) -> Value {
    let mut data = Value::Object(Default::default());
    if let Some(ca) = &info.client_ca {
        data.set("client-ca-file", ca.as_str());
    }
    if let Some(headers) = &info.request_header {
        let list = |items: &[String]| serde_json::to_string(items).unwrap_or_else(|_| "[]".to_owned());
        data.set("requestheader-client-ca-file", headers.client_ca.as_str());
        data.set("requestheader-allowed-names", list(&headers.allowed_names));
        data.set("requestheader-username-headers", list(&headers.username_headers));
        data.set("requestheader-uid-headers", list(&headers.uid_headers));
        data.set("requestheader-group-headers", list(&headers.group_headers));
        data.set(
            "requestheader-extra-headers-prefix",
            list(&headers.extra_headers_prefix),
        );
    }
    data
}

pub fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = Value::Null;
    object.set("kind", kind);
    object.set("apiVersion", api_version);
    object.set_at("metadata.name", name);
    if !namespace.is_empty() {
        object.set_at("metadata.namespace", namespace);
    }
    object
}
