//! Who may read what: asked of the API server by TokenReview and SubjectAccessReview, answers kept for a moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Error};
use component_base::serve::ConnInfo;
use hyper::Request;
use hyper::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use parking_lot::Mutex;

/// Answers kept; when there are more, all are forgotten.
const MAX_CACHED: usize = 1024;

pub enum Verdict {
    Allowed,
    /// A token that nobody knows.
    Unauthorized,
    Forbidden(String),
    /// The API server could not be asked.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

/// User, verb and path.
type Question = (User, String, String);

pub struct Delegated {
    authentication: Client,
    authorization: Client,
    always_allowed: Vec<String>,
    ttl: Duration,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
}

impl Delegated {
    pub fn new(
        authentication: Client,
        authorization: Client,
        always_allowed: Vec<String>,
        ttl: Duration,
    ) -> Self {
        Self {
            authentication,
            authorization,
            always_allowed,
            ttl,
            answers: Mutex::default(),
        }
    }

    pub async fn judge<B>(&self, request: &Request<B>) -> Verdict {
        let path = request.uri().path().to_owned();
        if self.always_allowed.iter().any(|allowed| covers(allowed, &path)) {
            return Verdict::Allowed;
        }
        let verb = if request.method() == hyper::Method::HEAD {
            "get"
        } else {
            request.method().as_str()
        };
        let verb = verb.to_ascii_lowercase();
        let certificate = request
            .extensions()
            .get::<Arc<ConnInfo>>()
            .and_then(|info| by_certificate(info));
        let token = bearer(request);
        let user = match (certificate, token) {
            (Some(user), _) => user,
            (None, Some(token)) => match self.by_token(token).await {
                Ok(Some(user)) => user,
                Ok(None) => return Verdict::Unauthorized,
                Err(error) => return Verdict::Unknown(format!("cannot review the token: {error}\n")),
            },
            (None, None) => User {
                name: "system:anonymous".to_owned(),
                groups: vec!["system:unauthenticated".to_owned()],
            },
        };
        if user.groups.iter().any(|g| g == "system:masters") {
            return Verdict::Allowed;
        }
        self.authorize((user, verb, path)).await
    }

    async fn by_token(&self, token: String) -> Result<Option<User>, Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                audiences: None,
            },
            ..TokenReview::default()
        };
        let status = self
            .authentication
            .all::<TokenReview>()
            .create(&review)
            .await?
            .status
            .unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.map(|u| User {
            name: u.username.unwrap_or_default(),
            groups: u.groups.unwrap_or_default(),
        }))
    }

    async fn authorize(&self, question: Question) -> Verdict {
        let cached = self.answers.lock().get(&question).copied();
        let allowed = match cached.filter(|(at, _)| at.elapsed() < self.ttl) {
            Some((_, allowed)) => allowed,
            None => match self.review(&question).await {
                Ok(allowed) => self.keep(question.clone(), allowed),
                Err(error) => return Verdict::Unknown(format!("cannot review access: {error}\n")),
            },
        };
        let (user, verb, path) = question;
        if allowed {
            Verdict::Allowed
        } else {
            Verdict::Forbidden(format!(
                "forbidden: User {:?} cannot {verb} path {path:?}\n",
                user.name
            ))
        }
    }

    async fn review(&self, (user, verb, path): &Question) -> Result<bool, Error> {
        let attributes = NonResourceAttributes {
            path: Some(path.clone()),
            verb: Some(verb.clone()),
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                non_resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self
            .authorization
            .all::<SubjectAccessReview>()
            .create(&review)
            .await?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    fn keep(&self, question: Question, allowed: bool) -> bool {
        let mut answers = self.answers.lock();
        if answers.len() >= MAX_CACHED {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), allowed));
        allowed
    }
}

/// The path itself, or with a trailing `*` everything below.
fn covers(allowed: &str, path: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => allowed == path,
    }
}

fn by_certificate(info: &ConnInfo) -> Option<User> {
    let identity = info.client_cert.as_ref().filter(|c| c.verified.is_ok())?;
    let mut groups = identity.organizations.clone();
    groups.push("system:authenticated".to_owned());
    Some(User {
        name: identity.common_name.clone(),
        groups,
    })
}

fn bearer<B>(request: &Request<B>) -> Option<String> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    header
        .strip_prefix("Bearer ")
        .map(|token| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn allowed_paths_are_exact_unless_starred() {
        assert!(covers("/healthz", "/healthz"));
        assert!(!covers("/healthz", "/healthz/ping"));
        assert!(covers("/healthz/*", "/healthz/ping"));
        assert!(!covers("/healthz", "/metrics"));
    }
}
