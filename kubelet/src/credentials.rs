//! Registry credentials from image pull secrets.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

const DEFAULT_REGISTRY: &str = "docker.io";

/// The longest matching prefix first.
pub fn lookup(image: &str, secrets: &[Arc<Secret>]) -> Vec<AuthConfig> {
    let image = qualified(image);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for (registry, entry) in secrets.iter().flat_map(|s| entries(s)) {
        let key = normalized(&registry);
        if matches(&key, &image) {
            found.push((key.len(), auth(&registry, entry)));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let Some(data) = &secret.data else {
        return Vec::new();
    };
    if let Some(bytes) = data.get(".dockerconfigjson") {
        let config: DockerConfig = serde_json::from_slice(&bytes.0).unwrap_or_default();
        return config.auths.into_iter().collect();
    }
    let Some(bytes) = data.get(".dockercfg") else {
        return Vec::new();
    };
    let config: HashMap<String, Entry> = serde_json::from_slice(&bytes.0).unwrap_or_default();
    config.into_iter().collect()
}

fn auth(registry: &str, entry: Entry) -> AuthConfig {
    let decoded = STANDARD
        .decode(&entry.auth)
        .ok()
        .and_then(|b| String::from_utf8(b).ok());
    let (username, password) = match decoded.as_deref().and_then(|d| d.split_once(':')) {
        Some((user, password)) => (user.to_string(), password.trim_end_matches('\0').to_string()),
        None => (entry.username, entry.password),
    };
    AuthConfig {
        username,
        password,
        identity_token: entry.identity_token,
        server_address: registry.to_string(),
        ..Default::default()
    }
}

/// With its registry written out.
fn qualified(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let names_host = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if names_host {
        image.to_string()
    } else {
        format!("{DEFAULT_REGISTRY}/{image}")
    }
}

fn normalized(registry: &str) -> String {
    let bare = registry
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    if bare == "index.docker.io" {
        DEFAULT_REGISTRY.into()
    } else {
        bare.into()
    }
}

/// Host labels may be `*`; the path is a prefix.
fn matches(key: &str, image: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let (want, have): (Vec<&str>, Vec<&str>) = (key_host.split('.').collect(), host.split('.').collect());
    let hosts = want.len() == have.len() && want.iter().zip(&have).all(|(w, h)| *w == "*" || w == h);
    hosts && (key_path.is_empty() || path.starts_with(key_path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn the_most_specific_credential_comes_first() {
        let json = r#"{"auths": {"https://reg.example.com": {"auth": "YTpi"}, "reg.example.com/team": {"username": "t", "password": "p"},
            "*.other.com": {"username": "o"}, "https://index.docker.io/v1/": {"username": "hub"}}}"#;
        let data = [(".dockerconfigjson".to_string(), ByteString(json.into()))].into();
        let secrets = [Arc::new(Secret {
            data: Some(data),
            ..Default::default()
        })];
        let users = |image: &str| {
            lookup(image, &secrets)
                .into_iter()
                .map(|a| a.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(users("reg.example.com/team/app:1"), ["t", "a"]);
        assert_eq!(users("reg.example.com/x"), ["a"]);
        assert_eq!(users("a.other.com/x"), ["o"]);
        assert_eq!(users("busybox"), ["hub"]);
        assert!(users("third.io/x").is_empty());
    }
}
