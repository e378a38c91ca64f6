//! Who is asking? The authenticators in upstream's order, the first that knows the caller wins.
//!
//! Front proxy headers, client certificate, bearer token (header or WebSocket subprotocol: token file,
//! service account, bootstrap token), anonymous. A credential that is present and wrong is a 401, never
//! anonymous; everyone who is known belongs to system:authenticated.

use std::sync::Arc;

use component_base::serve::ConnInfo;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};

use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

pub mod bootstrap_token;
pub mod jwt;
pub mod keys;
pub mod openid;
pub mod request_header;
pub mod review;
pub mod service_account;
pub mod token_file;
pub mod token_request;
pub mod x509;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    pub user: UserInfo,
    /// What the credential was accepted for; empty when it is not bound to audiences.
    pub audiences: Vec<String>,
    /// Annotations for the audit event (`authentication.k8s.io/...`).
    pub annotations: Vec<(String, String)>,
}

impl Authenticated {
    pub fn new(user: UserInfo) -> Self {
        Authenticated {
            user,
            audiences: Vec::new(),
            annotations: Vec::new(),
        }
    }
}

/// `Ok(None)`: no credential of this kind; `Err`: there is one and it is wrong.
pub type Outcome = Result<Option<Authenticated>, String>;

pub trait TokenAuthenticator: Send + Sync {
    /// `audiences` is what the caller must be addressed as; empty means the server's own.
    fn authenticate(&self, token: &str, audiences: &[String]) -> Outcome;
}

/// Longest bearer token looked at.
const MAX_TOKEN_LENGTH: usize = 64 * 1024;
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

pub struct Authenticators {
    pub request_header: Option<request_header::RequestHeader>,
    pub client_certificates: bool,
    pub tokens: Tokens,
    /// `--anonymous-auth`.
    pub anonymous: bool,
}

/// The bearer token authenticators in order; shared with TokenReview.
#[derive(Clone, Default)]
pub struct Tokens(pub Vec<Arc<dyn TokenAuthenticator>>);

impl Tokens {
    /// The first authenticator that knows the token. One that refuses it leaves the word to the others, as in upstream's union.
    pub fn authenticate(&self, token: &str, audiences: &[String]) -> Outcome {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err("token is too long".to_owned());
        }
        let mut errors = Vec::new();
        for authenticator in &self.0 {
            match authenticator.authenticate(token, audiences) {
                Ok(None) => {}
                Ok(Some(mut known)) => {
                    add_authenticated(&mut known.user);
                    return Ok(Some(known));
                }
                Err(reason) => errors.push(reason),
            }
        }
        match errors.len() {
            0 => Ok(None),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }
}

impl Authenticators {
    /// Takes the credentials out of the headers: handlers and proxied backends must never see them.
    pub fn authenticate(&self, conn: Option<&ConnInfo>, headers: &mut HeaderMap) -> Outcome {
        let proxied = match &self.request_header {
            Some(request_header) => request_header.authenticate(conn, headers)?,
            None => None,
        };
        let token = take_token(headers);
        if let Some(known) = proxied {
            return Ok(Some(authenticated(known)));
        }
        let certificate = conn.filter(|_| self.client_certificates);
        match certificate.and_then(x509::authenticate) {
            Some(Ok(known)) => Ok(Some(authenticated(known))),
            Some(Err(reason)) => self.despite(reason, token),
            None => self.by_token(token),
        }
    }

    /// A good token counts even beside a certificate that does not verify; without one the caller is not anonymous.
    fn despite(&self, reason: String, token: Option<Result<String, String>>) -> Outcome {
        if token.is_none() {
            return Err(reason);
        }
        self.by_token(token)
            .map_err(|other| format!("[{reason}, {other}]"))
    }

    fn by_token(&self, token: Option<Result<String, String>>) -> Outcome {
        let Some(token) = token else {
            return Ok(self.anonymous.then(anonymous));
        };
        match self.tokens.authenticate(&token?, &[])? {
            Some(known) => Ok(Some(known)),
            None => Err("invalid bearer token".to_owned()),
        }
    }
}

fn authenticated(mut known: Authenticated) -> Authenticated {
    add_authenticated(&mut known.user);
    known
}

/// Anonymous and already marked users stay as they are.
fn add_authenticated(user: &mut UserInfo) {
    if user.name == ANONYMOUS || user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED) {
        return;
    }
    user.groups.push(AUTHENTICATED.to_owned());
}

fn anonymous() -> Authenticated {
    Authenticated::new(UserInfo::new(ANONYMOUS, &[UNAUTHENTICATED]))
}

fn take_token(headers: &mut HeaderMap) -> Option<Result<String, String>> {
    let bearer = headers
        .remove(AUTHORIZATION)
        .and_then(|value| bearer_token(&value));
    let websocket = take_websocket_token(headers);
    bearer.map(Ok).or(websocket)
}

/// Other schemes (Basic) are not a credential here; the request goes on as anonymous.
fn bearer_token(value: &HeaderValue) -> Option<String> {
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// Browsers cannot set headers on a WebSocket: the token comes as a subprotocol, which is taken off the list.
fn take_websocket_token(headers: &mut HeaderMap) -> Option<Result<String, String>> {
    use base64::Engine;
    const NAME: &str = "sec-websocket-protocol";
    let offered: Vec<String> = headers
        .get_all(NAME)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .collect();
    let (tokens, rest): (Vec<String>, Vec<String>) = offered
        .into_iter()
        .partition(|p| p.starts_with(WEBSOCKET_TOKEN_PREFIX));
    let encoded = tokens.first()?.strip_prefix(WEBSOCKET_TOKEN_PREFIX)?.to_owned();
    headers.remove(NAME);
    let Ok(rest_value) = HeaderValue::from_str(&rest.join(", ")) else {
        return Some(Err("invalid bearer token".to_owned()));
    };
    if rest.is_empty() {
        return Some(Err("missing additional subprotocol".to_owned()));
    }
    headers.insert(NAME, rest_value);
    if tokens.len() > 1 {
        return Some(Err(
            "multiple bearer tokens in the WebSocket protocol header".to_owned()
        ));
    }
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()
        .and_then(|b| String::from_utf8(b).ok());
    Some(decoded.ok_or_else(|| "invalid bearer token".to_owned()))
}

/// Takes the same time wherever the two differ.
pub(crate) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.iter().zip(b).fold(0u8, |different, (x, y)| different | (x ^ y))) == 0
}

/// Unix seconds, for expiry checks.
pub(crate) fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static str, &'static str);
    impl TokenAuthenticator for Fixed {
        fn authenticate(&self, token: &str, _: &[String]) -> Outcome {
            Ok((token == self.0).then(|| Authenticated::new(UserInfo::new(self.1, &["dev"]))))
        }
    }

    fn chain(anonymous: bool) -> Authenticators {
        Authenticators {
            request_header: None,
            client_certificates: true,
            tokens: Tokens(vec![Arc::new(Fixed("secret", "jane"))]),
            anonymous,
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("header"));
        headers
    }

    #[test]
    fn a_known_token_is_its_user_and_leaves_the_request() {
        let mut h = headers("authorization", "bearer secret");
        let known = chain(true).authenticate(None, &mut h).expect("ok").expect("user");
        assert_eq!(
            (known.user.name.as_str(), known.user.groups),
            ("jane", vec!["dev".to_owned(), AUTHENTICATED.to_owned()])
        );
        assert!(h.is_empty());
    }

    #[test]
    fn a_wrong_token_is_refused_and_no_token_is_anonymous() {
        assert_eq!(
            chain(true).authenticate(None, &mut headers("authorization", "Bearer nope")),
            Err("invalid bearer token".to_owned())
        );
        let anonymous = chain(true)
            .authenticate(None, &mut HeaderMap::new())
            .expect("ok")
            .expect("user");
        assert_eq!(
            (anonymous.user.name.as_str(), anonymous.user.groups),
            (ANONYMOUS, vec![UNAUTHENTICATED.to_owned()])
        );
        assert_eq!(chain(false).authenticate(None, &mut HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_websocket_token_is_taken_off_the_subprotocols() {
        let mut h = headers(
            "sec-websocket-protocol",
            "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0",
        );
        assert_eq!(
            chain(true)
                .authenticate(None, &mut h)
                .expect("ok")
                .expect("user")
                .user
                .name,
            "jane"
        );
        assert_eq!(h["sec-websocket-protocol"], "v5.channel.k8s.io");
        let mut alone = headers(
            "sec-websocket-protocol",
            "base64url.bearer.authorization.k8s.io.c2VjcmV0",
        );
        assert!(chain(true).authenticate(None, &mut alone).is_err());
    }
}
