//! Probes, metrics and debug pages on the secure port, for whom the API server says may see them.

use crate::options::COMPONENT;
use crate::options::Options;
use anyhow::{Context, Result};
use client::Client;
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::http::{Body, text};
use component_base::serve::{self, ConnInfo, DebugRoutes, Limits};
use component_base::tls::{ClientAuth, Pem, ServerConfigHandle, ServerTls, parse_min_version, self_signed};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Answers of the API server that are remembered; beyond this the memory starts anew.
const MAX_REMEMBERED: usize = 1024;

pub fn start(options: &Options, flags: &Flags, health: Health, client: &Client, drain: Drain) -> Result<()> {
    let port = flags.int("secure-port");
    if port == 0 {
        return Ok(());
    }
    let address = flags.string("bind-address");
    let address = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    let tls = server_tls(flags)?;
    let listener =
        serve::bind(&address).with_context(|| format!("--bind-address, --secure-port: {address}"))?;
    let gate = Gatekeeper::new(flags, client, options)?;
    let routes = DebugRoutes::new(COMPONENT, &health, serde_json::json!({})).flags(flags);
    let handler = serve::handler(move |request: Request<Incoming>| {
        let (gate, routes) = (gate.clone(), routes.clone());
        async move { answer(&gate, &routes, request).await }
    });
    tokio::spawn(async move {
        if let Err(error) = serve::serve(listener, Some(tls), handler, Limits::default(), drain).await {
            tracing::error!(err = %format!("{error:#}"), "Secure server ended");
        }
    });
    Ok(())
}

async fn answer(gate: &Gatekeeper, routes: &DebugRoutes, request: Request<Incoming>) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    if !gate.is_open(uri.path()) {
        let info = request.extensions().get::<Arc<ConnInfo>>().cloned();
        if let Err(refusal) = gate.admit(&method, uri.path(), request.headers(), info).await {
            return refusal;
        }
    }
    let answer = routes.respond(&method, uri.path(), uri.query());
    answer.unwrap_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found\n"))
}

fn server_tls(flags: &Flags) -> Result<ServerConfigHandle> {
    let (cert, key) = certificate(flags)?;
    let mut tls = ServerTls::from_pem(cert, key);
    let ca = flags.string("client-ca-file");
    if !ca.is_empty() {
        tls = tls.client_ca(ca, ClientAuth::Optional);
    }
    tls.min_version = parse_min_version(flags.string("tls-min-version")).context("--tls-min-version")?;
    tls.cipher_suites = flags.strings("tls-cipher-suites");
    tls.load().context("--tls-cert-file")
}

/// Without a certificate one is made, as upstream does.
fn certificate(flags: &Flags) -> Result<(Pem, Pem)> {
    match (
        flags.string("tls-cert-file"),
        flags.string("tls-private-key-file"),
    ) {
        ("", "") => self_signed(
            flags.string("cert-dir"),
            COMPONENT,
            "localhost",
            &["127.0.0.1", flags.string("bind-address")],
        ),
        ("", _) | (_, "") => {
            anyhow::bail!("--tls-cert-file and --tls-private-key-file must be set together")
        }
        (cert, key) => Ok((Pem::File(cert.into()), Pem::File(key.into()))),
    }
}

/// Delegates to the API server who a token is and what a user may see.
#[derive(Clone)]
struct Gatekeeper {
    inner: Arc<Delegation>,
}

struct Delegation {
    open: Vec<String>,
    authentication: Client,
    authorization: Client,
    users: Memory<Option<User>>,
    verdicts: Memory<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

impl Gatekeeper {
    fn new(flags: &Flags, client: &Client, options: &Options) -> Result<Self> {
        let delegate = |flag: &str| -> Result<Client> {
            let path = PathBuf::from(flags.string(flag));
            if path.as_os_str().is_empty() || Some(&path) == options.kubeconfig.as_ref() {
                return Ok(client.clone());
            }
            let config = client::kubeconfig::load(&path).with_context(|| format!("--{flag}"))?;
            Client::new(config, COMPONENT).with_context(|| format!("--{flag}"))
        };
        let inner = Delegation {
            open: flags.strings("authorization-always-allow-paths"),
            authentication: delegate("authentication-kubeconfig")?,
            authorization: delegate("authorization-kubeconfig")?,
            users: Memory::new(flags.duration("authentication-token-webhook-cache-ttl")),
            verdicts: Memory::new(flags.duration("authorization-webhook-cache-authorized-ttl")),
        };
        Ok(Gatekeeper {
            inner: Arc::new(inner),
        })
    }

    /// `/metrics` is exact, `/metrics*` a prefix.
    fn is_open(&self, path: &str) -> bool {
        self.inner.open.iter().any(|open| match open.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == open,
        })
    }

    async fn admit(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        info: Option<Arc<ConnInfo>>,
    ) -> Result<(), Response<Body>> {
        let user = match self.user(headers, info).await {
            Ok(user) => user,
            Err(()) => return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized\n")),
        };
        let verb = method.as_str().to_lowercase();
        match self.may(&user, &verb, path).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(text(
                StatusCode::FORBIDDEN,
                &format!(
                    "forbidden: User \"{}\" cannot {verb} path \"{path}\"\n",
                    user.name
                ),
            )),
            Err(error) => {
                tracing::error!(%error, "Cannot authorize a request");
                Err(text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "authorization is not available\n",
                ))
            }
        }
    }

    /// A verified certificate, else a token the API server knows, else anonymous.
    async fn user(&self, headers: &HeaderMap, info: Option<Arc<ConnInfo>>) -> Result<User, ()> {
        let certificate = info
            .as_ref()
            .and_then(|i| i.client_cert.clone())
            .filter(|c| c.verified.is_ok());
        if let Some(certificate) = certificate {
            return Ok(authenticated(
                &certificate.common_name,
                &certificate.organizations,
            ));
        }
        let bearer = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "));
        match bearer {
            Some(token) => self.review_token(token.trim()).await.ok().flatten().ok_or(()),
            None => Ok(User {
                name: "system:anonymous".into(),
                uid: String::new(),
                groups: vec!["system:unauthenticated".into()],
            }),
        }
    }

    async fn review_token(&self, token: &str) -> Result<Option<User>, client::Error> {
        if let Some(known) = self.inner.users.get(token) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer: TokenReview = self
            .inner
            .authentication
            .post_json("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .await?;
        let status = answer.status.unwrap_or_default();
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|user| User {
                name: user.username.unwrap_or_default(),
                uid: user.uid.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
            });
        self.inner.users.put(token.to_owned(), user.clone());
        Ok(user)
    }

    async fn may(&self, user: &User, verb: &str, path: &str) -> Result<bool, client::Error> {
        let key = format!(
            "{}\n{}\n{}\n{verb}\n{path}",
            user.name,
            user.uid,
            user.groups.join(",")
        );
        if let Some(known) = self.inner.verdicts.get(&key) {
            return Ok(known);
        }
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()),
            groups: Some(user.groups.clone()),
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some(verb.to_owned()),
            }),
            ..Default::default()
        };
        let review = SubjectAccessReview {
            spec,
            ..Default::default()
        };
        let answer: SubjectAccessReview = self
            .inner
            .authorization
            .post_json("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
            .await?;
        let allowed = answer.status.is_some_and(|s| s.allowed);
        self.inner.verdicts.put(key, allowed);
        Ok(allowed)
    }
}

fn authenticated(name: &str, groups: &[String]) -> User {
    let mut groups = groups.to_vec();
    groups.push("system:authenticated".into());
    User {
        name: name.to_owned(),
        uid: String::new(),
        groups,
    }
}

/// Recent answers, each for a limited time.
struct Memory<V> {
    ttl: Duration,
    entries: Mutex<HashMap<String, (Instant, V)>>,
}

impl<V: Clone> Memory<V> {
    fn new(ttl: Duration) -> Self {
        Memory {
            ttl,
            entries: Mutex::default(),
        }
    }

    fn get(&self, key: &str) -> Option<V> {
        let entries = self.entries.lock();
        entries
            .get(key)
            .filter(|(at, _)| at.elapsed() < self.ttl)
            .map(|(_, value)| value.clone())
    }

    fn put(&self, key: String, value: V) {
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_REMEMBERED {
            entries.clear();
        }
        entries.insert(key, (Instant::now(), value));
    }
}
