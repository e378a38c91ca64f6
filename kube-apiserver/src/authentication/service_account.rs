//! Service account tokens: claims bound to the account and to a pod, node or secret, checked against what exists now.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::time::Timestamp;
use arc_swap::ArcSwap;
use serde::Deserialize;

use super::jwt::Unverified;
use super::keys::PublicKey;
use super::{Authenticated, Outcome, TokenAuthenticator, same_secret, unix_now};
use crate::admission::objects::Objects;
use crate::storage::object::CachedObject;
use crate::user::UserInfo;

pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const USERNAME_PREFIX: &str = "system:serviceaccount:";
const ALL_GROUP: &str = "system:serviceaccounts";
/// Clock difference forgiven to a token, as go-jose does.
const LEEWAY_SECONDS: i64 = 60;
const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    legacy_namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    legacy_secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    legacy_name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    legacy_uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
    warnafter: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: String,
    uid: String,
}

/// One string or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Audience::Many(Vec::new())
    }
}

impl Audience {
    fn into_vec(self) -> Vec<String> {
        match self {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many,
        }
    }
}

pub struct ServiceAccounts {
    /// `--service-account-issuer`, all of them accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`, the issuers by default.
    pub audiences: Vec<String>,
    pub keys: Arc<ArcSwap<Vec<PublicKey>>>,
    /// `--service-account-lookup`: legacy tokens must match their secret.
    pub lookup: bool,
    pub objects: Arc<dyn Objects>,
}

impl TokenAuthenticator for ServiceAccounts {
    fn authenticate(&self, token: &str, audiences: &[String]) -> Outcome {
        let Some(jwt) = Unverified::parse(token) else {
            return Ok(None);
        };
        let Ok(claims) = jwt.claims::<Claims>() else {
            return Ok(None);
        };
        let legacy = claims.iss == LEGACY_ISSUER;
        if !legacy && !self.issuers.contains(&claims.iss) {
            return Ok(None);
        }
        jwt.verify(&self.keys.load())?;
        if legacy {
            self.legacy(token, claims, audiences).map(Some)
        } else {
            self.bound(claims, audiences).map(Some)
        }
    }
}

impl ServiceAccounts {
    fn bound(&self, claims: Claims, audiences: &[String]) -> Result<Authenticated, String> {
        let now = unix_now();
        check_times(&claims, now)?;
        let mut known = Authenticated::new(UserInfo::default());
        known.audiences = self.accepted_audiences(claims.aud.into_vec(), audiences)?;
        let bound = claims.bound;
        self.check_account(&bound, now)?;
        known.user = user(
            &bound.namespace,
            &bound.serviceaccount.name,
            &bound.serviceaccount.uid,
        );
        known.user.extra = self.check_bound_object(&bound, now)?;
        if !claims.jti.is_empty() {
            known.user.extra.insert(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![format!("JTI={}", claims.jti)],
            );
        }
        if let Some(late) = bound
            .warnafter
            .filter(|w| *w != 0)
            .map(|w| now - w)
            .filter(|late| *late > 0)
        {
            let note = format!("subject: {}, seconds after warning threshold: {late}", claims.sub);
            known
                .annotations
                .push(("authentication.k8s.io/stale-token".to_owned(), note));
        }
        Ok(known)
    }

    fn accepted_audiences(
        &self,
        mut token: Vec<String>,
        requested: &[String],
    ) -> Result<Vec<String>, String> {
        if token.is_empty() {
            token.clone_from(&self.audiences);
        }
        let wanted = if requested.is_empty() {
            &self.audiences
        } else {
            requested
        };
        let accepted: Vec<String> = token.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if accepted.is_empty() && !self.audiences.is_empty() {
            let quote = super::super::authorization::rules::quoted_list;
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                quote(&token),
                quote(wanted)
            ));
        }
        Ok(accepted)
    }

    fn check_account(&self, bound: &Bound, now: i64) -> Result<(), String> {
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount);
        let found = self.objects.get("", "serviceaccounts", namespace, &account.name);
        let found = found.ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
        if *found.uid != *account.uid {
            return Err(format!(
                "service account UID ({}) does not match claim ({})",
                found.uid, account.uid
            ));
        }
        if deleted_before(&found, now - LEEWAY_SECONDS) {
            return Err(format!(
                "service account {namespace}/{} has been deleted",
                account.name
            ));
        }
        Ok(())
    }

    /// The object the token is bound to must still be that object; what is told about it becomes the user's extra.
    fn check_bound_object(&self, bound: &Bound, now: i64) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        let mut tell = |key: &str, value: &str| {
            extra.insert(
                format!("authentication.kubernetes.io/{key}"),
                vec![value.to_owned()],
            )
        };
        if let Some(secret) = &bound.secret {
            self.check_reference("secrets", "secret", &bound.namespace, secret, now)?;
        }
        if let Some(pod) = &bound.pod {
            self.check_reference("pods", "pod", &bound.namespace, pod, now)?;
            tell("pod-name", &pod.name);
            tell("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            if bound.pod.is_none() {
                self.check_reference("nodes", "node", "", node, now)?;
            }
            tell("node-name", &node.name);
            if !node.uid.is_empty() {
                tell("node-uid", &node.uid);
            }
        }
        Ok(extra)
    }

    fn check_reference(
        &self,
        resource: &str,
        what: &str,
        namespace: &str,
        reference: &Reference,
        now: i64,
    ) -> Result<(), String> {
        let invalidated = || "service account token has been invalidated".to_owned();
        let found = self
            .objects
            .get("", resource, namespace, &reference.name)
            .ok_or_else(invalidated)?;
        if *found.uid != *reference.uid {
            return Err(format!(
                "{what} UID ({}) does not match service account {what} ref claim ({})",
                found.uid, reference.uid
            ));
        }
        if deleted_before(&found, now - LEEWAY_SECONDS) {
            Err(invalidated())
        } else {
            Ok(())
        }
    }

    fn legacy(&self, token: &str, claims: Claims, audiences: &[String]) -> Result<Authenticated, String> {
        for (value, name) in [
            (&claims.sub, "sub"),
            (&claims.legacy_namespace, "namespace"),
            (&claims.legacy_secret, "secretName"),
            (&claims.legacy_name, "serviceAccountName"),
            (&claims.legacy_uid, "serviceAccountUID"),
        ] {
            if value.is_empty() {
                return Err(format!("{name} claim is missing"));
            }
        }
        let (namespace, name) = (&claims.legacy_namespace, &claims.legacy_name);
        if claims.sub != format!("{USERNAME_PREFIX}{namespace}:{name}") {
            return Err("sub claim is invalid".to_owned());
        }
        if self.lookup {
            self.check_legacy_secret(token, &claims)?;
        }
        let mut known = Authenticated::new(user(namespace, name, &claims.legacy_uid));
        known.annotations.push((
            "authentication.k8s.io/legacy-token".to_owned(),
            claims.sub.clone(),
        ));
        known.audiences = self.accepted_audiences(claims.aud.into_vec(), audiences)?;
        Ok(known)
    }

    fn check_legacy_secret(&self, token: &str, claims: &Claims) -> Result<(), String> {
        let (namespace, name) = (&claims.legacy_namespace, &claims.legacy_name);
        let invalidated = || "Token has been invalidated".to_owned();
        let secret = self
            .objects
            .get("", "secrets", namespace, &claims.legacy_secret)
            .filter(|s| !s.deleting)
            .ok_or_else(invalidated)?;
        if !secret_holds(&secret, token) {
            return Err("Token does not match server's copy".to_owned());
        }
        let account = self
            .objects
            .get("", "serviceaccounts", namespace, name)
            .ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
        if account.deleting {
            return Err(format!("ServiceAccount {namespace}/{name} has been deleted"));
        }
        if *account.uid != *claims.legacy_uid {
            return Err(format!(
                "ServiceAccount UID ({}) does not match claim ({})",
                account.uid, claims.legacy_uid
            ));
        }
        if secret.label(INVALID_SINCE_LABEL).is_some_and(|v| !v.is_empty()) {
            return Err(format!(
                "the token in secret {namespace}/{} for service account {namespace}/{name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE_LABEL}' label from the secret to temporarily allow use of this token",
                claims.legacy_secret
            ));
        }
        Ok(())
    }
}

pub fn username(namespace: &str, name: &str) -> String {
    format!("{USERNAME_PREFIX}{namespace}:{name}")
}

/// The groups every service account of a namespace belongs to.
pub fn groups(namespace: &str) -> Vec<String> {
    vec![ALL_GROUP.to_owned(), format!("{ALL_GROUP}:{namespace}")]
}

fn user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: username(namespace, name),
        uid: uid.to_owned(),
        groups: groups(namespace),
        ..Default::default()
    }
}

fn check_times(claims: &Claims, now: i64) -> Result<(), String> {
    let (now, leeway) = (now as f64, LEEWAY_SECONDS as f64);
    if claims.nbf.is_some_and(|nbf| now + leeway < nbf) {
        return Err("service account token is not valid yet".to_owned());
    }
    if claims.exp.is_some_and(|exp| now - leeway > exp) {
        return Err("service account token has expired".to_owned());
    }
    if claims.iat.is_some_and(|iat| now + leeway < iat) {
        return Err("service account token is issued in the future".to_owned());
    }
    Ok(())
}

fn deleted_before(object: &CachedObject, limit: i64) -> bool {
    object.deleting
        && Timestamp::parse(object.value().str_at("metadata.deletionTimestamp"))
            .is_none_or(|at| at.seconds < limit)
}

fn secret_holds(secret: &CachedObject, token: &str) -> bool {
    use base64::Engine;
    let value = secret.value();
    let stored = base64::engine::general_purpose::STANDARD
        .decode(value.str_at("data.token"))
        .unwrap_or_default();
    same_secret(&stored, token.as_bytes())
}
