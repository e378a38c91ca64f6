//! Who asks: a client certificate, a bearer token (TokenReview), or nobody. Whether they may: SubjectAccessReview on `nodes` and the subresource
//! that the path stands for. Answers are kept for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use component_base::http as reply;
use component_base::http::Body;
use component_base::serve::ConnInfo;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::kubelet_config::KubeletConfiguration;

/// Answers kept of each kind; beyond it the oldest half goes.
const MAX_CACHED: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

pub struct Auth {
    client: Option<Client>,
    node_name: String,
    anonymous: bool,
    token_webhook: bool,
    always_allow: bool,
    token_ttl: Duration,
    allowed_ttl: Duration,
    denied_ttl: Duration,
    tokens: Mutex<HashMap<[u8; 32], (Instant, Option<User>)>>,
    decisions: Mutex<HashMap<(User, String, String), (Instant, bool)>>,
}

impl Auth {
    pub fn new(config: &KubeletConfiguration, client: Option<Client>, node_name: &str) -> Self {
        Self {
            node_name: node_name.to_string(),
            anonymous: config.authentication.anonymous.enabled,
            token_webhook: config.authentication.webhook.enabled && client.is_some(),
            always_allow: config.authorization.mode == "AlwaysAllow",
            token_ttl: config.authentication.webhook.cache_ttl.0,
            allowed_ttl: config.authorization.webhook.cache_authorized_ttl.0,
            denied_ttl: config.authorization.webhook.cache_unauthorized_ttl.0,
            client,
            tokens: Mutex::default(),
            decisions: Mutex::default(),
        }
    }

    pub async fn check<B>(&self, request: &Request<B>) -> Result<(), Response<Body>> {
        let Some(user) = self.authenticate(request).await else {
            return Err(reply::text(StatusCode::UNAUTHORIZED, "Unauthorized"));
        };
        if self.always_allow {
            return Ok(());
        }
        let verb = verb(request.method());
        let subresources = subresources(request.uri().path());
        for subresource in &subresources {
            match self.authorize(&user, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(user = %user.name, verb, subresource, %error, "Authorization error");
                    let text = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
                        user.name,
                        subresources.join(" ")
                    );
                    return Err(reply::text(StatusCode::INTERNAL_SERVER_ERROR, &text));
                }
            }
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            subresources.join(" ")
        );
        tracing::debug!(user = %user.name, verb, "Forbidden");
        Err(reply::text(StatusCode::FORBIDDEN, &text))
    }

    async fn authenticate<B>(&self, request: &Request<B>) -> Option<User> {
        let connection = request.extensions().get::<Arc<ConnInfo>>();
        if let Some(cert) = connection
            .and_then(|c| c.client_cert.as_ref())
            .filter(|c| c.verified.is_ok())
        {
            return Some(authenticated(
                cert.common_name.clone(),
                cert.organizations.clone(),
            ));
        }
        let header = request
            .headers()
            .get(http::header::AUTHORIZATION)
            .and_then(|h| h.to_str().ok());
        if let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")) {
            // A token that is not valid is not anonymous.
            return self.review(token.trim()).await;
        }
        let nobody = User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        };
        self.anonymous.then_some(nobody)
    }

    async fn review(&self, token: &str) -> Option<User> {
        if !self.token_webhook || token.is_empty() {
            return None;
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some((until, user)) = self.tokens.lock().get(&key)
            && *until > Instant::now()
        {
            return user.clone();
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_string(),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = self.client.as_ref()?.all::<TokenReview>().create(&review).await;
        let status = match answer {
            Ok(review) => review.status?,
            Err(error) => {
                tracing::error!(%error, "Unable to authenticate the request");
                return None;
            }
        };
        let info = status.user.filter(|_| status.authenticated == Some(true));
        let user = info.map(|u| authenticated(u.username.unwrap_or_default(), u.groups.unwrap_or_default()));
        remember(&self.tokens, key, Instant::now() + self.token_ttl, user.clone());
        user
    }

    async fn authorize(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        let key = (user.clone(), verb.to_string(), subresource.to_string());
        if let Some((until, allowed)) = self.decisions.lock().get(&key)
            && *until > Instant::now()
        {
            return Ok(*allowed);
        }
        let client = self
            .client
            .as_ref()
            .ok_or("authorization.mode is Webhook but there is no API server (--kubeconfig)")?;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.node_name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = client
            .all::<SubjectAccessReview>()
            .create(&review)
            .await
            .map_err(|e| e.to_string())?;
        let allowed = answer.status.is_some_and(|s| s.allowed);
        let ttl = if allowed {
            self.allowed_ttl
        } else {
            self.denied_ttl
        };
        remember(&self.decisions, key, Instant::now() + ttl, allowed);
        Ok(allowed)
    }
}

fn authenticated(name: String, mut groups: Vec<String>) -> User {
    let everyone = "system:authenticated".to_string();
    if !groups.contains(&everyone) {
        groups.push(everyone);
    }
    User { name, groups }
}

fn remember<K: std::hash::Hash + Eq, V>(
    cache: &Mutex<HashMap<K, (Instant, V)>>,
    key: K,
    until: Instant,
    value: V,
) {
    let mut cache = cache.lock();
    if cache.len() >= MAX_CACHED {
        let now = Instant::now();
        cache.retain(|_, (until, _)| *until > now);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
    }
    cache.insert(key, (until, value));
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Any one of them suffices: the fine-grained one, then what stood for everything before it.
fn subresources(path: &str) -> Vec<&'static str> {
    let under = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}/"));
    match path {
        _ if under("/stats") => vec!["stats"],
        _ if under("/metrics") => vec!["metrics"],
        _ if under("/logs") => vec!["log"],
        _ if under("/checkpoint") => vec!["checkpoint"],
        _ if under("/statusz") => vec!["statusz"],
        _ if under("/flagz") => vec!["flagz"],
        _ if under("/healthz") => vec!["healthz", "proxy"],
        _ if under("/pods") || under("/runningpods") || under("/runningPods") => vec!["pods", "proxy"],
        _ if under("/configz") => vec!["configz", "proxy"],
        _ => vec!["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(anonymous: bool, mode: &str) -> Auth {
        let mut config = KubeletConfiguration::default();
        config.authentication.anonymous.enabled = anonymous;
        config.authorization.mode = mode.into();
        Auth::new(&config, None, "n")
    }

    async fn status(auth: &Auth, header: Option<&str>) -> u16 {
        let mut request = Request::get("/pods");
        if let Some(value) = header {
            request = request.header("authorization", value);
        }
        match auth.check(&request.body(()).unwrap()).await {
            Ok(()) => 200,
            Err(response) => response.status().as_u16(),
        }
    }

    #[tokio::test]
    async fn nobody_gets_in_unless_it_is_allowed() {
        assert_eq!(status(&auth(false, "AlwaysAllow"), None).await, 401);
        assert_eq!(status(&auth(true, "AlwaysAllow"), None).await, 200);
        assert_eq!(
            status(&auth(true, "AlwaysAllow"), Some("Bearer x")).await,
            401,
            "a bad token is not anonymous"
        );
        assert_eq!(
            status(&auth(true, "Webhook"), None).await,
            500,
            "no one to ask is no permission"
        );
    }

    #[tokio::test]
    async fn a_decision_is_kept_and_decides() {
        let a = auth(true, "Webhook");
        let user = User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        };
        let later = Instant::now() + Duration::from_secs(60);
        for (sub, allowed) in [("pods", false), ("proxy", false)] {
            remember(
                &a.decisions,
                (user.clone(), "get".into(), sub.into()),
                later,
                allowed,
            );
        }
        assert_eq!(status(&a, None).await, 403);
        remember(&a.decisions, (user, "get".into(), "proxy".into()), later, true);
        assert_eq!(status(&a, None).await, 200);
    }

    #[test]
    fn paths_stand_for_subresources() {
        assert_eq!(subresources("/metrics/cadvisor"), ["metrics"]);
        assert_eq!(subresources("/metricsx"), ["proxy"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
    }
}
