//! `EncryptionConfiguration`.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct EncryptionConfiguration {
    pub resources: Vec<ResourceConfiguration>,
}

#[derive(Deserialize)]
pub struct ResourceConfiguration {
    pub resources: Vec<String>,
    pub providers: Vec<ProviderConfiguration>,
}

/// One of them is set.
#[derive(Deserialize)]
pub struct ProviderConfiguration {
    pub aescbc: Option<Keys>,
    pub aesgcm: Option<Keys>,
    pub secretbox: Option<Keys>,
    pub identity: Option<serde_json::Value>,
    pub kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
pub struct Keys {
    pub keys: Vec<Key>,
}

#[derive(Deserialize)]
pub struct Key {
    pub name: String,
    /// Base64 of the raw key.
    pub secret: String,
}

/// The second form is what tutorials before 1.13 wrote.
pub fn load(path: &Path) -> Result<EncryptionConfiguration> {
    component_base::config::load(
        path,
        &[
            ("apiserver.config.k8s.io/v1", "EncryptionConfiguration"),
            ("v1", "EncryptionConfig"),
        ],
    )
}

/// `secrets`, `deployments.apps`, `*.apps` (a group), `*.` (the core group), `*.*` (everything).
pub fn covers(pattern: &str, group: &str, resource: &str) -> bool {
    match pattern.split_once('.') {
        None => group.is_empty() && pattern == resource,
        Some(("*", "*")) => true,
        Some(("*", wanted)) => wanted == group,
        Some((name, wanted)) => name == resource && wanted == group,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns_name_resources_groups_or_everything() {
        assert!(covers("secrets", "", "secrets"));
        assert!(!covers("secrets", "apps", "secrets"));
        assert!(covers("deployments.apps", "apps", "deployments"));
        assert!(covers("*.apps", "apps", "replicasets"));
        assert!(covers("*.", "", "pods"));
        assert!(!covers("*.", "apps", "deployments"));
        assert!(covers("*.*", "batch", "jobs"));
    }
}
