//! Who a request is from, read here and nowhere else; and the server as that user may use it.
//!
//! While auth is disabled a brief request is not even looked at: all it costs is one load.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use component_base::serve::ConnInfo;
use component_base::tls::ClientIdentity;
use etcd_api::etcdserverpb::InternalRaftRequest;
use http::{HeaderMap, HeaderValue, Request};

use super::serve::is_grpc;
use super::status::Status;
use crate::apply::{Applied, ApplyError};
use crate::auth::check::Check;
use crate::auth::token::TokenProvider;
use crate::auth::{AuthError, AuthInfo, simple_token};
use crate::server::{EtcdServer, Proposal, ServerError};

/// etcd's name of the token in gRPC, and the one that HTTP clients use.
const TOKEN_HEADERS: [&str; 2] = ["token", "authorization"];
/// A gateway's certificate is not its user's: a common name counts only for gRPC that no gateway made.
const GATEWAY_HEADER: &str = "grpcgateway-accept";
/// How often a request is asked about again when the rules changed meanwhile. Changes in a row share the disk's rhythm with it, so that it
/// may well meet each of them.
const ATTEMPTS: usize = 100;

#[derive(Clone)]
pub struct Caller {
    server: Arc<EtcdServer>,
    credential: Credential,
}

/// What the request brought along.
#[derive(Clone, Default)]
struct Credential {
    token: Option<HeaderValue>,
    client: Option<Arc<ClientIdentity>>,
}

impl Credential {
    fn of<B>(request: &Request<B>) -> Credential {
        let headers = request.headers();
        let client = request
            .extensions()
            .get::<Arc<ConnInfo>>()
            .and_then(|info| info.client_cert.clone())
            .filter(|client| client.verified.is_ok())
            .filter(|_| is_grpc(request) && !headers.contains_key(GATEWAY_HEADER));
        Credential {
            token: token_of(headers),
            client,
        }
    }
}

fn token_of(headers: &HeaderMap) -> Option<HeaderValue> {
    TOKEN_HEADERS.iter().find_map(|name| headers.get(*name)).cloned()
}

impl Deref for Caller {
    type Target = Arc<EtcdServer>;

    fn deref(&self) -> &Arc<EtcdServer> {
        &self.server
    }
}

impl Caller {
    pub fn brief<B>(server: Arc<EtcdServer>, request: &Request<B>) -> Caller {
        match server.state.auth.is_enabled() {
            true => Caller::lasting(server, request),
            false => Caller {
                server,
                credential: Credential::default(),
            },
        }
    }

    /// For what may go on after auth was enabled.
    pub fn lasting<B>(server: Arc<EtcdServer>, request: &Request<B>) -> Caller {
        let credential = Credential::of(request);
        Caller { server, credential }
    }

    /// The user under the present rules; None while auth is disabled, and nobody for a request without a credential.
    async fn who(&self) -> Result<Option<AuthInfo>, AuthError> {
        let auth = &self.server.state.auth;
        if !auth.is_enabled() {
            return Ok(None);
        }
        // Before the user is looked up: a change in between makes this old, never the other way round.
        let revision = auth.revision();
        if let Some(token) = &self.credential.token {
            let token = token.to_str().map_err(|_| AuthError::InvalidAuthToken)?;
            let token = token.strip_prefix("Bearer ").unwrap_or(token);
            return self.by_token(token, revision).await.map(Some);
        }
        let client = self.credential.client.as_ref().filter(|_| auth.client_cert_auth);
        Ok(Some(client.map_or_else(AuthInfo::default, |client| AuthInfo {
            username: client.common_name.clone(),
            revision,
        })))
    }

    async fn by_token(&self, token: &str, revision: u64) -> Result<AuthInfo, AuthError> {
        match &self.server.state.auth.tokens {
            TokenProvider::Nop => Err(AuthError::InvalidAuthToken),
            TokenProvider::Jwt(jwt) => jwt
                .verify(token, unix_seconds())
                .ok_or(AuthError::InvalidAuthToken),
            TokenProvider::Simple(tokens) => {
                let now = || self.server.clock.now();
                let mut username = tokens.user(token, now());
                if username.is_none() {
                    self.catch_up(token).await?;
                    username = tokens.user(token, now());
                }
                let username = username.ok_or(AuthError::InvalidAuthToken)?;
                Ok(AuthInfo { username, revision })
            }
        }
    }

    /// A token that another member gave out is known here once its entry was applied.
    async fn catch_up(&self, token: &str) -> Result<(), AuthError> {
        let index = simple_token::index_of(token).ok_or(AuthError::InvalidAuthToken)?;
        if self.server.raft.alone.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut applied = self.server.applied.subscribe();
        let waiting = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(self.server.request_timeout(), waiting).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(AuthError::InvalidAuthToken),
        }
    }

    fn ask(
        &self,
        who: &AuthInfo,
        check: impl FnOnce(&Check<'_>) -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let state = &self.server.state;
        let keys_of = |lease| state.lessor.lock().keys_of(lease).unwrap_or_default();
        check(&Check {
            rules: &state.auth.rules(),
            who,
            keys_of: &keys_of,
        })
    }

    /// Refuses everyone but root.
    pub async fn admin(&self) -> Result<(), AuthError> {
        match self.who().await? {
            Some(who) => self.ask(&who, |check| check.admin()),
            None => Ok(()),
        }
    }

    /// Refuses those who did not say who they are.
    pub async fn known(&self) -> Result<(), AuthError> {
        match self.who().await? {
            Some(who) if who.is_anonymous() => Err(AuthError::UserEmpty),
            _ => Ok(()),
        }
    }

    /// Reads what `check` permits. When the rules changed while it was being read, what was read may be what the new rules forbid.
    pub async fn reading<T>(
        &self,
        check: impl Fn(&Check<'_>) -> Result<(), AuthError>,
        read: impl Fn() -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut asked = None;
        for _ in 0..ATTEMPTS {
            let Some(who) = self.who().await? else {
                return read();
            };
            // A signed token stays as old as it is.
            if asked == Some(who.revision) {
                break;
            }
            match self.ask(&who, &check) {
                Err(AuthError::AuthOldRevision) => {}
                Err(refused) => return Err(refused.into()),
                Ok(()) => {
                    let result = read();
                    if who.is_anonymous() || who.revision >= self.server.state.auth.revision() {
                        return result;
                    }
                }
            }
            asked = Some(who.revision);
        }
        Err(AuthError::AuthOldRevision.into())
    }

    /// Proposes as this user. An entry that was refused because the rules had changed before it is proposed again under the new ones.
    pub fn propose(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<Applied, ServerError>> + Send + '_ {
        self.propose_written(request.into())
    }

    async fn propose_written(&self, proposal: Proposal) -> Result<Applied, ServerError> {
        let Some(mut who) = self.who().await? else {
            return self.server.propose_as(proposal, AuthInfo::default()).await;
        };
        for _ in 1..ATTEMPTS {
            let before = who.revision;
            let applied = self.server.propose_as(proposal.clone(), who).await?;
            if !matches!(applied.result, Err(ApplyError::Auth(AuthError::AuthOldRevision))) {
                return Ok(applied);
            }
            match self.who().await? {
                Some(again) if again.revision != before => who = again,
                _ => return Ok(applied),
            }
        }
        self.server.propose_as(proposal, who).await
    }
}

pub fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_from_either_header_and_gateways_certificates_are_not() {
        let mut request = Request::new(());
        assert!(Credential::of(&request).token.is_none());
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static("Bearer b"));
        assert_eq!(Credential::of(&request).token.unwrap(), "Bearer b");
        request
            .headers_mut()
            .insert("token", HeaderValue::from_static("a"));
        assert_eq!(Credential::of(&request).token.unwrap(), "a");
        let identity = |verified: Result<(), String>| ClientIdentity {
            common_name: "alice".to_owned(),
            organizations: Vec::new(),
            dns_names: Vec::new(),
            serial: String::new(),
            not_after: x509_parser::time::ASN1Time::from_timestamp(0)
                .unwrap()
                .to_datetime(),
            chain: Vec::new(),
            verified,
        };
        let info = |verified| {
            Arc::new(ConnInfo {
                peer: ([127, 0, 0, 1], 1).into(),
                local: ([127, 0, 0, 1], 2).into(),
                tls: true,
                client_cert: Some(Arc::new(identity(verified))),
            })
        };
        request
            .extensions_mut()
            .insert(info(Err("unknown authority".to_owned())));
        assert!(Credential::of(&request).client.is_none());
        request.extensions_mut().insert(info(Ok(())));
        assert!(Credential::of(&request).client.is_none(), "plain HTTP");
        let kind = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        assert!(Credential::of(&request).client.is_some());
        request
            .headers_mut()
            .insert(GATEWAY_HEADER, HeaderValue::from_static("application/json"));
        assert!(Credential::of(&request).client.is_none());
    }
}
