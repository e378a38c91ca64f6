//! `--runtime-config`: which group versions are served. `api/all`, `api/ga`, `api/beta`, `api/alpha`, `group/version`.

use std::collections::BTreeMap;

use apimachinery::schema::Resource;

#[derive(Clone, Debug, Default)]
pub struct RuntimeConfig(BTreeMap<String, bool>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuntimeConfigError {
    #[error("--runtime-config: invalid value {value:?} for {key}, use true or false")]
    Value { key: String, value: String },
    #[error("--runtime-config: unknown api group or version {0:?}; use api/all, api/ga, api/beta, api/alpha or group/version as in `kubectl api-versions`")]
    Unknown(String),
}

const STAGES: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];

impl RuntimeConfig {
    /// A key without a value means true, as the old form `api/all` did.
    pub fn parse(flag: &BTreeMap<String, String>, known: &[Resource]) -> Result<RuntimeConfig, RuntimeConfigError> {
        let mut parsed = BTreeMap::new();
        for (key, value) in flag {
            let on = match value.as_str() {
                "" | "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(RuntimeConfigError::Value { key: key.clone(), value: value.clone() }),
            };
            let names = |r: &Resource| *key == group_version(r) || *key == format!("{}/{}", group_version(r), r.resource);
            if !STAGES.contains(&key.as_str()) && !known.iter().any(names) {
                return Err(RuntimeConfigError::Unknown(key.clone()));
            }
            parsed.insert(key.clone(), on);
        }
        Ok(RuntimeConfig(parsed))
    }

    /// The most specific word wins: resource, version, stage, all, default.
    pub fn serves(&self, resource: &Resource) -> bool {
        let version = group_version(resource);
        let by = |key: &str| self.0.get(key).copied();
        by(&format!("{version}/{}", resource.resource))
            .or_else(|| by(&version))
            .or_else(|| by(stage(resource.version)))
            .or_else(|| by("api/all"))
            .unwrap_or(resource.served)
    }
}

/// `api/v1` for the core group, as the flag's help has it; else `group/version`.
fn group_version(resource: &Resource) -> String {
    let group = if resource.group.is_empty() { "api" } else { resource.group };
    format!("{group}/{}", resource.version)
}

fn stage(version: &str) -> &'static str {
    if version.contains("alpha") {
        "api/alpha"
    } else if version.contains("beta") {
        "api/beta"
    } else {
        "api/ga"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::schema::{resource, resources};

    fn config(pairs: &[(&str, &str)]) -> Result<RuntimeConfig, RuntimeConfigError> {
        let flag = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RuntimeConfig::parse(&flag, resources())
    }

    fn serves(pairs: &[(&str, &str)], group: &str, version: &str, name: &str) -> bool {
        config(pairs).expect("parses").serves(resource(group, version, name).expect("known"))
    }

    #[test]
    fn stable_is_on_and_the_rest_is_asked_for() {
        assert!(serves(&[], "apps", "v1", "deployments"));
        assert!(!serves(&[], "storage.k8s.io", "v1beta1", "volumeattributesclasses"));
        assert!(serves(&[("api/all", "true")], "storage.k8s.io", "v1beta1", "volumeattributesclasses"));
        assert!(serves(&[("api/beta", "")], "storage.k8s.io", "v1beta1", "volumeattributesclasses"));
    }

    #[test]
    fn the_specific_word_wins() {
        let flag = [("api/all", "true"), ("batch/v1", "false")];
        assert!(!serves(&flag, "batch", "v1", "jobs"));
        assert!(serves(&flag, "apps", "v1", "deployments"));
        assert!(!serves(&[("apps/v1/deployments", "false")], "apps", "v1", "deployments"));
    }

    #[test]
    fn typos_are_named() {
        assert_eq!(config(&[("aps/v1", "true")]).err(), Some(RuntimeConfigError::Unknown("aps/v1".into())));
        assert!(config(&[("api/all", "yes")]).is_err());
    }
}
