//! The v2 client: one request to one endpoint after another until one answers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::tls::alpn;
use rustls::ClientConfig;
use serde::Deserialize;

use super::cli::Call;
use super::members;
use crate::client::{Context, Secure, discovery, tls};
use crate::exit::Exit;
use crate::fetch::{self, Answer, FetchError, Request};
use crate::go::quote::quote;
use crate::terminal;

/// The v2 face's exit codes.
pub mod code {
    pub const BAD_ARGS: u8 = 1;
    pub const BAD_CONNECTION: u8 = 2;
    pub const SERVER_ERROR: u8 = 4;
    pub const CLUSTER_NOT_HEALTHY: u8 = 5;
}

const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";
/// As upstream's.
const MAX_REDIRECTS: usize = 10;

/// What a server answers when it refuses.
#[derive(Debug, Deserialize)]
pub struct EtcdError {
    #[serde(rename = "errorCode", default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    index: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {} ({}) [{}]", .0.code, .0.message, .0.cause, .0.index)]
    Etcd(EtcdError),
    /// What each endpoint had to say.
    #[error("client: etcd cluster is unavailable or misconfigured{}", each(.0, "; "))]
    Cluster(Vec<FetchError>),
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    #[error("{0}")]
    Text(String),
}

/// Every error on a line of its own.
fn each(errors: &[FetchError], before: &str) -> String {
    let lines = errors
        .iter()
        .enumerate()
        .map(|(index, error)| format!("{before}error #{index}: {error}\n"));
    lines.collect()
}

impl Error {
    fn is_connection(&self) -> bool {
        let refused = |error: &FetchError| matches!(error, FetchError::Connection(_));
        matches!(self, Error::Cluster(errors) if errors.iter().all(refused))
    }

    /// The line on stderr, and for a cluster the details once more.
    pub fn exit(self, code: u8) -> Exit {
        match &self {
            // Upstream meant to print these as JSON too, but tests for a pointer that never comes.
            Error::Cluster(errors) => eprintln!("Error:  {self}\n{}", each(errors, "")),
            _ => eprintln!("Error:  {self}"),
        }
        Exit::silent(code)
    }
}

pub struct Client {
    endpoints: Vec<String>,
    pinned: usize,
    tls: Option<Arc<ClientConfig>>,
    header_timeout: Duration,
    authorization: Option<String>,
    debug: bool,
}

impl Client {
    /// With the endpoints that the cluster itself names, unless told not to ask.
    pub async fn synced(call: &Call) -> Result<Client, Exit> {
        let mut client = Client::new(call).await?;
        if !call.global_bool("no-sync") {
            client.sync(call).await?;
        }
        client.tell_endpoints(", ");
        Ok(client)
    }

    pub async fn new(call: &Call) -> Result<Client, Exit> {
        let failed = |error: String| {
            eprintln!("{error}");
            Exit::silent(code::BAD_ARGS)
        };
        let endpoints = endpoints(call).await.map_err(failed)?;
        Ok(Client {
            endpoints,
            pinned: 0,
            tls: transport(call).map_err(failed)?,
            header_timeout: call.global_duration("timeout"),
            authorization: authorization(call).map_err(failed)?,
            debug: call.global_bool("debug"),
        })
    }

    pub fn tell_endpoints(&self, separator: &str) {
        if self.debug {
            eprintln!("Cluster-Endpoints: {}", self.endpoints.join(separator));
        }
    }

    async fn sync(&mut self, call: &Call) -> Result<(), Exit> {
        if self.debug {
            eprintln!(
                "start to sync cluster using endpoints({})",
                self.endpoints.join(",")
            );
        }
        let listed = members::list(self, &total_timeout(call)).await;
        match listed {
            Ok(members) => {
                let urls: Vec<String> = members
                    .into_iter()
                    .flat_map(|member| member.client_urls)
                    .collect();
                if urls.is_empty() {
                    return Err(self.no_endpoints());
                }
                if urls != self.endpoints {
                    self.endpoints = urls;
                    self.pinned = 0;
                }
            }
            Err(error) if error.is_connection() => return Err(error.exit(code::BAD_CONNECTION)),
            // The command itself will meet whatever is wrong.
            Err(_) => {}
        }
        if self.debug {
            eprintln!("got endpoints({}) after sync", self.endpoints.join(","));
        }
        Ok(())
    }

    fn no_endpoints(&self) -> Exit {
        eprintln!("etcd cluster has no published client endpoints.");
        let endpoints = self.endpoints.join(",");
        eprintln!("Try '--no-sync' if you want to access non-published client endpoints({endpoints}).");
        Error::Text("client: no endpoints available".to_owned()).exit(code::SERVER_ERROR)
    }

    pub fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.clone()
    }

    /// `request` has the path alone; `wait` means that the answer may come late.
    pub async fn send(
        &mut self,
        context: &Context,
        request: &Request,
        once: bool,
        wait: bool,
    ) -> Result<Answer, Error> {
        let mut errors = Vec::new();
        for turn in 0..self.endpoints.len() {
            let index = (self.pinned + turn) % self.endpoints.len();
            let endpoint = self.endpoints[index].clone();
            let error = match context.limit(self.follow(&endpoint, request, wait)).await {
                None => return Err(Error::DeadlineExceeded),
                Some(Ok(answer)) if answer.status / 100 != 5 => {
                    self.pinned = index;
                    return Ok(answer);
                }
                Some(Ok(answer)) => FetchError::Exchange(server_error(&endpoint, answer.status)),
                Some(Err(error)) => error,
            };
            if once {
                self.pinned = (index + 1) % self.endpoints.len();
                return Err(Error::Text(error.to_string()));
            }
            errors.push(error);
        }
        Err(Error::Cluster(errors))
    }

    /// To one endpoint, and where it sends us.
    async fn follow(&self, endpoint: &str, request: &Request, wait: bool) -> Result<Answer, FetchError> {
        let mut request = Request {
            url: format!("{}{}", endpoint.trim_end_matches('/'), request.url),
            authorization: self.authorization.clone(),
            ..request.clone()
        };
        for _ in 0..MAX_REDIRECTS {
            let answer = self.once(endpoint, &request, wait).await?;
            if answer.status / 100 != 3 {
                return Ok(answer);
            }
            let location = answer
                .headers
                .get(http::header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let Some(location) = location else {
                return Err(FetchError::Exchange("location header not set".to_owned()));
            };
            request.url = location.to_owned();
        }
        Err(FetchError::Exchange("client: too many redirects".to_owned()))
    }

    async fn once(&self, endpoint: &str, request: &Request, wait: bool) -> Result<Answer, FetchError> {
        if self.debug {
            let body = request
                .body
                .as_ref()
                .map(|body| format!(" -d {}", quote(body.as_bytes())));
            eprintln!(
                "cURL Command: curl -X {} {}{}",
                request.method,
                request.url,
                body.unwrap_or_default()
            );
        }
        let limit = if wait {
            Context::background()
        } else {
            Context::within(self.header_timeout)
        };
        let answer = limit.limit(fetch::send(request, self.tls.clone())).await;
        answer.unwrap_or_else(|| {
            Err(FetchError::Exchange(format!(
                "client: endpoint {endpoint} exceeded header timeout"
            )))
        })
    }
}

fn server_error(endpoint: &str, status: u16) -> String {
    if status == 500 || status == 503 {
        return format!("client: etcd member {endpoint} has no leader");
    }
    let text = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    format!(
        "client: etcd member {endpoint} returns server error [{}]",
        text.unwrap_or_default()
    )
}

pub fn total_timeout(call: &Call) -> Context {
    Context::timeout(call.global_duration("total-timeout"))
}

/// The flag, or the first variable that says something.
fn setting(call: &Call, flag: &str, variable: &str) -> String {
    match call.global(flag) {
        "" => std::env::var(variable).unwrap_or_default(),
        value => value.to_owned(),
    }
}

async fn endpoints(call: &Call) -> Result<Vec<String>, String> {
    let mut found = discovered(call).await?;
    if found.is_empty() {
        let sources = [
            ("endpoints", "ETCDCTL_ENDPOINTS"),
            ("endpoint", "ETCDCTL_ENDPOINT"),
            ("peers", "ETCDCTL_PEERS"),
        ];
        let given = sources
            .iter()
            .map(|(flag, variable)| setting(call, flag, variable))
            .find(|text| !text.is_empty());
        found = given
            .as_deref()
            .unwrap_or(DEFAULT_ENDPOINTS)
            .split(',')
            .map(str::to_owned)
            .collect();
    }
    found.into_iter().map(|endpoint| with_scheme(&endpoint)).collect()
}

fn with_scheme(endpoint: &str) -> Result<String, String> {
    let refused = |reason: &str| format!("parse {}: {reason}", quote(endpoint.as_bytes()));
    let has_scheme = endpoint.contains("://");
    // Go takes a name before a colon for a scheme, and a number for nothing at all.
    if !has_scheme && endpoint.contains(':') && endpoint.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(refused("first path segment in URL cannot contain colon"));
    }
    let url = if has_scheme {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    };
    let parsed: Result<http::Uri, _> = url.parse();
    parsed.map(|_| url).map_err(|error| refused(&error.to_string()))
}

fn discovery_domain(call: &Call) -> (String, bool) {
    let insecure =
        call.global_bool("insecure-discovery") || std::env::var_os("ETCDCTL_INSECURE_DISCOVERY").is_some();
    (setting(call, "discovery-srv", "ETCDCTL_DISCOVERY_SRV"), insecure)
}

async fn discovered(call: &Call) -> Result<Vec<String>, String> {
    let (domain, insecure) = discovery_domain(call);
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let service = std::env::var("ETCDCTL_DISCOVERY_SRV_NAME").unwrap_or_default();
    let found = discovery::endpoints(&domain, &service)
        .await
        .map_err(|error| error.to_string())?;
    let usable = found.into_iter().filter(|url| {
        let ignored = !insecure && url.starts_with("http://");
        if ignored {
            eprintln!("ignoring discovered insecure endpoint {}", quote(url.as_bytes()));
        }
        !ignored
    });
    Ok(usable.collect())
}

fn transport(call: &Call) -> Result<Option<Arc<ClientConfig>>, String> {
    let (domain, insecure) = discovery_domain(call);
    let secure = Secure {
        cacert: setting(call, "ca-file", "ETCDCTL_CA_FILE"),
        cert: setting(call, "cert-file", "ETCDCTL_CERT_FILE"),
        key: setting(call, "key-file", "ETCDCTL_KEY_FILE"),
        server_name: if insecure { String::new() } else { domain },
        insecure_transport: true,
        insecure_skip_verify: false,
    };
    tls::load(&secure, alpn::HTTP11).map_err(|error| error.to_string())
}

fn authorization(call: &Call) -> Result<Option<String>, String> {
    let user = setting(call, "username", "ETCDCTL_USERNAME");
    if user.is_empty() {
        return Ok(None);
    }
    let pair = match user.contains(':') {
        true => user,
        false => {
            let password = terminal::ask_password("Password: ").map_err(|error| error.to_string())?;
            format!("{user}:{password}")
        }
    };
    Ok(Some(format!("Basic {}", STANDARD.encode(pair))))
}
