//! Bootstrap tokens (`--enable-bootstrap-token-auth`): `abcdef.0123456789abcdef`, a Secret in kube-system.

use std::sync::Arc;

use apimachinery::time::Timestamp;
use apimachinery::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Authenticated, Outcome, TokenAuthenticator, same_secret, unix_now};
use crate::admission::objects::Objects;
use crate::user::UserInfo;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";
const GROUP_PREFIX: &str = "system:bootstrappers:";

pub struct BootstrapTokens {
    pub objects: Arc<dyn Objects>,
}

impl TokenAuthenticator for BootstrapTokens {
    fn authenticate(&self, token: &str, _: &[String]) -> Outcome {
        let Some((id, secret)) = parse(token) else {
            return Ok(None);
        };
        let found = self
            .objects
            .get("", "secrets", "kube-system", &format!("bootstrap-token-{id}"));
        let Some(found) = found.filter(|s| !s.deleting) else {
            return Ok(None);
        };
        Ok(user_of(&found.value(), id, secret, unix_now()).map(Authenticated::new))
    }
}

/// Six and sixteen characters of [a-z0-9].
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str, length| {
        s.len() == length && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

fn user_of(object: &Value, id: &str, secret: &str, now: i64) -> Option<UserInfo> {
    let data = |key: &str| -> String {
        let encoded = object
            .get("data")
            .and_then(|d| d.get(key))
            .and_then(Value::as_str)
            .unwrap_or_default();
        STANDARD
            .decode(encoded)
            .ok()
            .and_then(|b| String::from_utf8(b).ok())
            .unwrap_or_default()
    };
    let refuse = |why: &str| {
        tracing::debug!(secret = id, "Bootstrap secret matching bearer token {why}");
        None
    };
    if object.str_at("type") != SECRET_TYPE {
        return refuse("has an invalid type");
    }
    if !same_secret(data("token-secret").as_bytes(), secret.as_bytes()) {
        return refuse("has another token-secret");
    }
    if data("token-id") != id {
        return refuse("has another token-id");
    }
    if has_expired(&data("expiration"), now) {
        return refuse("has expired");
    }
    if data("usage-bootstrap-authentication") != "true" {
        return refuse("is not marked usage-bootstrap-authentication=true");
    }
    let mut groups = vec![DEFAULT_GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').filter(|g| !g.is_empty()) {
        if !group.starts_with(GROUP_PREFIX) {
            return refuse("has an extra group outside system:bootstrappers:");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(UserInfo {
        name: format!("system:bootstrap:{id}"),
        groups,
        ..Default::default()
    })
}

/// An expiration that cannot be read has passed.
fn has_expired(expiration: &str, now: i64) -> bool {
    !expiration.is_empty() && Timestamp::parse(expiration).is_none_or(|at| at.seconds < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "abcdef";
    const SECRET: &str = "0123456789abcdef";

    fn secret(change: &[(&str, &str)]) -> Value {
        let mut object = Value::Null;
        object.set_at("type", SECRET_TYPE);
        let base = [
            ("token-id", ID),
            ("token-secret", SECRET),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:kubeadm"),
        ];
        for (key, value) in base.iter().chain(change) {
            object
                .object_mut_at("data")
                .insert(*key, STANDARD.encode(value).into());
        }
        object
    }

    #[test]
    fn a_valid_token_is_a_bootstrap_user_with_its_groups() {
        let user = user_of(&secret(&[]), ID, SECRET, 0).expect("known");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(
            user.groups,
            ["system:bootstrappers", "system:bootstrappers:kubeadm"]
        );
    }

    #[test]
    fn every_condition_is_needed() {
        for (key, value) in [
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdeg"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("expiration", "2020-01-01T00:00:00Z"),
            ("expiration", "soon"),
        ] {
            assert_eq!(
                user_of(&secret(&[(key, value)]), ID, SECRET, 1_700_000_000),
                None,
                "{key}={value}"
            );
        }
        assert!(
            user_of(
                &secret(&[("expiration", "2100-01-01T00:00:00Z")]),
                ID,
                SECRET,
                1_700_000_000
            )
            .is_some()
        );
    }

    #[test]
    fn only_its_own_form_is_looked_at() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some((ID, SECRET)));
        for other in ["abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123", "a.b.c"] {
            assert_eq!(parse(other), None);
        }
    }
}
