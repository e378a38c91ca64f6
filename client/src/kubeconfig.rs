//! Where the server is and who we are: a kubeconfig file, or the files that a pod finds mounted.

use crate::error::Error;
use base64::Engine;
use component_base::tls::{ClientTls, Pem};
use http::header::{HeaderName, HeaderValue};
use http::uri::Authority;
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The kubelet rewrites projected tokens long before they expire; upstream reads the file again this often.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);
/// A kubeconfig holds a few certificates; anything larger is another file.
const MAX_KUBECONFIG_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {detail}", path.display())]
    Syntax { path: PathBuf, detail: String },
    #[error("{}: {field}: {detail}", path.display())]
    Field {
        path: PathBuf,
        field: String,
        detail: String,
    },
    #[error("not running in a pod: {0}")]
    NotInCluster(String),
}

/// All that [`crate::Client::new`] needs.
#[derive(Debug, Default)]
pub struct RestConfig {
    pub server: Server,
    pub ca: Option<Pem>,
    pub client_cert: Option<(Pem, Pem)>,
    pub insecure: bool,
    pub tls_server_name: Option<String>,
    pub credentials: Credentials,
    /// The context's default namespace.
    pub namespace: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub authority: Authority,
    /// The path in front of every request's, without a slash at its end.
    pub prefix: String,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            tls: false,
            host: "localhost".into(),
            port: 8080,
            authority: Authority::from_static("localhost:8080"),
            prefix: String::new(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.authority.as_str())
    }
}

impl Server {
    /// `https://host[:port][/path]`; a bare `host:port` is http, as in upstream.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => return Err(format!("{url:?}: scheme {scheme:?} is neither https nor http")),
            None => (false, url),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let authority: Authority = authority.parse().map_err(|e| format!("{url:?}: {e}"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(format!("{url:?} names no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Server {
            tls,
            host,
            port,
            authority,
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl RestConfig {
    /// A server without TLS and without identity, as `--master` gives.
    pub fn plain(url: &str) -> Result<Self, String> {
        Ok(RestConfig {
            server: Server::parse(url)?,
            ..RestConfig::default()
        })
    }

    /// The same server without any identity: for identities that are put into single requests. A client certificate would
    /// win over them.
    pub fn anonymous(&self) -> Self {
        RestConfig {
            server: self.server.clone(),
            ca: self.ca.clone(),
            insecure: self.insecure,
            tls_server_name: self.tls_server_name.clone(),
            namespace: self.namespace.clone(),
            ..RestConfig::default()
        }
    }

    pub(crate) fn tls(&self) -> Result<ClientTls, Error> {
        Ok(ClientTls {
            ca: self.ca.clone(),
            cert: self.client_cert.clone(),
            insecure: self.insecure,
            server_name: self.tls_server_name.clone(),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        })
    }
}

/// What a request carries to say who sends it, besides the client certificate.
#[derive(Debug, Default)]
pub struct Credentials {
    source: Option<Source>,
    impersonation: Vec<(HeaderName, HeaderValue)>,
}

enum Source {
    Fixed(HeaderValue),
    File {
        path: PathBuf,
        cached: Mutex<Option<(Instant, HeaderValue)>>,
    },
}

/// Secrets stay out of logs.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Fixed(_) => f.write_str("Fixed(…)"),
            Source::File { path, .. } => write!(f, "File({})", path.display()),
        }
    }
}

impl Credentials {
    pub fn token(token: &str) -> Result<Self, String> {
        Ok(Credentials {
            source: Some(Source::Fixed(bearer(token)?)),
            impersonation: Vec::new(),
        })
    }

    pub fn token_file(path: PathBuf) -> Self {
        Credentials {
            source: Some(Source::File {
                path,
                cached: Mutex::default(),
            }),
            impersonation: Vec::new(),
        }
    }

    fn basic(username: &str, password: &str) -> Result<Self, String> {
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{username}:{password}"));
        Ok(Credentials {
            source: Some(Source::Fixed(secret(&format!("Basic {pair}"))?)),
            impersonation: Vec::new(),
        })
    }

    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, ConfigError> {
        match &self.source {
            None => Ok(None),
            Some(Source::Fixed(value)) => Ok(Some(value.clone())),
            Some(Source::File { path, cached }) => current_token(path, &mut cached.lock()).map(Some),
        }
    }

    pub(crate) fn impersonation(&self) -> &[(HeaderName, HeaderValue)] {
        &self.impersonation
    }
}

/// An unreadable file does not take a token away that may still be good.
fn current_token(
    path: &Path,
    cached: &mut Option<(Instant, HeaderValue)>,
) -> Result<HeaderValue, ConfigError> {
    if let Some((read, value)) = cached
        .as_ref()
        .filter(|(read, _)| read.elapsed() < TOKEN_FILE_PERIOD)
    {
        let _: &Instant = read;
        return Ok(value.clone());
    }
    match (read_token(path), cached.as_mut()) {
        (Ok(value), _) => {
            *cached = Some((Instant::now(), value.clone()));
            Ok(value)
        }
        (Err(error), Some((read, value))) => {
            tracing::warn!(path = %path.display(), %error, "Token file cannot be read, keeping the last token");
            *read = Instant::now();
            Ok(value.clone())
        }
        (Err(error), None) => Err(error),
    }
}

fn read_token(path: &Path) -> Result<HeaderValue, ConfigError> {
    let text = read(path)?;
    let token = text.trim();
    let field = |detail: String| ConfigError::Field {
        path: path.to_owned(),
        field: "token".into(),
        detail,
    };
    if token.is_empty() {
        return Err(field("the file is empty".into()));
    }
    bearer(token).map_err(field)
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    secret(&format!("Bearer {token}"))
}

fn secret(value: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| "contains characters that no header may hold".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > MAX_KUBECONFIG_BYTES {
        let detail = format!("{size} bytes are more than a kubeconfig may have ({MAX_KUBECONFIG_BYTES})");
        return Err(ConfigError::Syntax {
            path: path.to_owned(),
            detail,
        });
    }
    std::fs::read_to_string(path).map_err(fail)
}

// The file's form. Unknown fields are ignored, as upstream's loader does.

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
    current_context: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: Option<Cluster>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Option<Context>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: Option<String>,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    as_uid: Option<String>,
    as_groups: Option<Vec<String>>,
    as_user_extra: Option<BTreeMap<String, Vec<String>>>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

/// The current context of a kubeconfig. Files named in it are relative to it.
pub fn load(path: &Path) -> Result<RestConfig, ConfigError> {
    parse(&read(path)?, path)
}

/// As [`load`], with the text already at hand; `path` is for errors and for relative files.
pub fn parse(text: &str, path: &Path) -> Result<RestConfig, ConfigError> {
    let file = File { path };
    let syntax = |e: String| ConfigError::Syntax {
        path: path.to_owned(),
        detail: e,
    };
    let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|e| syntax(e.to_string()))?;
    file.check_type(&config)?;
    let context = file.context(&config)?;
    let cluster = file.cluster(&config, &context.cluster)?;
    let user = file.user(&config, &context.user)?;
    file.assemble(&context, &cluster, &user)
}

struct File<'a> {
    path: &'a Path,
}

impl File<'_> {
    fn error(&self, field: impl Into<String>, detail: impl Into<String>) -> ConfigError {
        ConfigError::Field {
            path: self.path.to_owned(),
            field: field.into(),
            detail: detail.into(),
        }
    }

    fn check_type(&self, config: &Kubeconfig) -> Result<(), ConfigError> {
        match (config.api_version.as_deref(), config.kind.as_deref()) {
            (None | Some("v1" | ""), None | Some("Config" | "")) => Ok(()),
            (version, kind) => {
                let got = format!("{}/{}", version.unwrap_or(""), kind.unwrap_or(""));
                Err(self.error(
                    "apiVersion, kind",
                    format!("{got} is not a kubeconfig: v1/Config is"),
                ))
            }
        }
    }

    fn context(&self, config: &Kubeconfig) -> Result<Context, ConfigError> {
        let contexts = config.contexts.as_deref().unwrap_or_default();
        let name = config.current_context.as_deref().unwrap_or("");
        if name.is_empty() {
            return self.only_context(config, contexts);
        }
        let found = contexts.iter().find(|c| c.name == name);
        found.and_then(|c| c.context.clone()).ok_or_else(|| {
            let known: Vec<_> = contexts.iter().map(|c| c.name.as_str()).collect();
            self.error(
                "current-context",
                format!(
                    "context {name:?} does not exist (there are: {})",
                    known.join(", ")
                ),
            )
        })
    }

    /// Without a current context the single cluster, and the single user, is meant.
    fn only_context(&self, config: &Kubeconfig, contexts: &[NamedContext]) -> Result<Context, ConfigError> {
        let clusters = config.clusters.as_deref().unwrap_or_default();
        let users = config.users.as_deref().unwrap_or_default();
        match (contexts, clusters, users) {
            ([only], _, _) => Ok(only.context.clone().unwrap_or_default()),
            (_, [cluster], [] | [_]) => {
                let user = users.first().map(|u| u.name.clone()).unwrap_or_default();
                Ok(Context { cluster: cluster.name.clone(), user, namespace: None })
            }
            _ => Err(self.error("current-context", "is not set, and the file does not have exactly one context: kubectl config use-context sets it")),
        }
    }

    fn cluster(&self, config: &Kubeconfig, name: &str) -> Result<Cluster, ConfigError> {
        let found = config.clusters.iter().flatten().find(|c| c.name == name);
        found
            .and_then(|c| c.cluster.clone())
            .ok_or_else(|| self.error("clusters", format!("cluster {name:?} does not exist")))
    }

    fn user(&self, config: &Kubeconfig, name: &str) -> Result<User, ConfigError> {
        if name.is_empty() {
            return Ok(User::default());
        }
        let found = config.users.iter().flatten().find(|u| u.name == name);
        let found = found.ok_or_else(|| self.error("users", format!("user {name:?} does not exist")))?;
        Ok(found.user.clone().unwrap_or_default())
    }

    fn assemble(&self, context: &Context, cluster: &Cluster, user: &User) -> Result<RestConfig, ConfigError> {
        let (of_cluster, of_user) = (
            format!("clusters[{}].cluster", context.cluster),
            format!("users[{}].user", context.user),
        );
        let insecure = cluster.insecure_skip_tls_verify.unwrap_or(false);
        let ca = self.pem(
            &of_cluster,
            "certificate-authority",
            &cluster.certificate_authority,
            &cluster.certificate_authority_data,
        )?;
        if insecure && ca.is_some() {
            return Err(self.error(
                of_cluster,
                "certificate-authority and insecure-skip-tls-verify exclude each other",
            ));
        }
        if cluster.proxy_url.as_deref().is_some_and(|p| !p.is_empty()) {
            return Err(self.error(
                format!("{of_cluster}.proxy-url"),
                "proxies are not supported: remove it and make the server reachable",
            ));
        }
        Ok(RestConfig {
            server: self.server(&of_cluster, cluster)?,
            ca,
            client_cert: self.client_cert(&of_user, user)?,
            insecure,
            tls_server_name: cluster.tls_server_name.clone().filter(|n| !n.is_empty()),
            credentials: self.credentials(&of_user, user)?,
            namespace: context.namespace.clone().filter(|n| !n.is_empty()),
        })
    }

    fn server(&self, of: &str, cluster: &Cluster) -> Result<Server, ConfigError> {
        let field = format!("{of}.server");
        let url = cluster
            .server
            .as_deref()
            .filter(|s| !s.is_empty())
            .ok_or_else(|| self.error(&field, "is not set"))?;
        Server::parse(url).map_err(|e| self.error(field, e))
    }

    /// Data beats the file, as in upstream.
    fn pem(
        &self,
        of: &str,
        name: &str,
        file: &Option<String>,
        data: &Option<String>,
    ) -> Result<Option<Pem>, ConfigError> {
        if let Some(data) = data.as_deref().filter(|d| !d.is_empty()) {
            let compact: String = data.split_whitespace().collect();
            let bytes = base64::prelude::BASE64_STANDARD.decode(compact);
            return bytes
                .map(|b| Some(Pem::Data(b)))
                .map_err(|e| self.error(format!("{of}.{name}-data"), format!("is not base64: {e}")));
        }
        let Some(file) = file.as_deref().filter(|f| !f.is_empty()) else {
            return Ok(None);
        };
        let path = self.relative(file);
        std::fs::metadata(&path)
            .map_err(|e| self.error(format!("{of}.{name}"), format!("{}: {e}", path.display())))?;
        Ok(Some(Pem::File(path)))
    }

    fn relative(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn client_cert(&self, of: &str, user: &User) -> Result<Option<(Pem, Pem)>, ConfigError> {
        let cert = self.pem(
            of,
            "client-certificate",
            &user.client_certificate,
            &user.client_certificate_data,
        )?;
        let key = self.pem(of, "client-key", &user.client_key, &user.client_key_data)?;
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.error(of, "client-certificate is set, client-key is not")),
            (None, Some(_)) => Err(self.error(of, "client-key is set, client-certificate is not")),
        }
    }

    fn credentials(&self, of: &str, user: &User) -> Result<Credentials, ConfigError> {
        if user.exec.is_some() {
            return Err(self.error(
                format!("{of}.exec"),
                "credential plugins are not run by this component: give it a certificate, token or tokenFile",
            ));
        }
        if user.auth_provider.is_some() {
            return Err(self.error(
                format!("{of}.auth-provider"),
                "was removed from Kubernetes: give a certificate, token or tokenFile",
            ));
        }
        let credentials = self.bearer_or_basic(of, user)?;
        Ok(Credentials {
            impersonation: self.impersonation(of, user)?,
            ..credentials
        })
    }

    /// A tokenFile beats a token, because only it stays fresh.
    fn bearer_or_basic(&self, of: &str, user: &User) -> Result<Credentials, ConfigError> {
        if let Some(file) = user.token_file.as_deref().filter(|f| !f.is_empty()) {
            let path = self.relative(file);
            read_token(&path)?;
            return Ok(Credentials::token_file(path));
        }
        if let Some(token) = user.token.as_deref().filter(|t| !t.is_empty()) {
            return Credentials::token(token).map_err(|e| self.error(format!("{of}.token"), e));
        }
        match user.username.as_deref().filter(|u| !u.is_empty()) {
            Some(name) => {
                let password = user.password.as_deref().unwrap_or("");
                Credentials::basic(name, password).map_err(|e| self.error(format!("{of}.username"), e))
            }
            None => Ok(Credentials::default()),
        }
    }

    fn impersonation(&self, of: &str, user: &User) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        let mut headers = Vec::new();
        let mut add = |name: &str, value: &str| -> Result<(), ConfigError> {
            let bad = |_| {
                self.error(
                    format!("{of}.as"),
                    format!("{value:?} cannot be sent in a header"),
                )
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                self.error(
                    format!("{of}.as-user-extra"),
                    format!("{name:?} is not a header name"),
                )
            })?;
            headers.push((name, HeaderValue::from_str(value).map_err(bad)?));
            Ok(())
        };
        for user in user.impersonate.iter().filter(|u| !u.is_empty()) {
            add("impersonate-user", user)?;
        }
        for uid in user.as_uid.iter().filter(|u| !u.is_empty()) {
            add("impersonate-uid", uid)?;
        }
        for group in user.as_groups.iter().flatten() {
            add("impersonate-group", group)?;
        }
        for (key, values) in user.as_user_extra.iter().flatten() {
            for value in values {
                add(&format!("impersonate-extra-{}", key.to_lowercase()), value)?;
            }
        }
        Ok(headers)
    }
}

/// The identity that the kubelet mounts into each pod.
pub fn in_cluster() -> Result<RestConfig, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let (Some(host), Some(port)) = (
        variable("KUBERNETES_SERVICE_HOST"),
        variable("KUBERNETES_SERVICE_PORT"),
    ) else {
        return Err(ConfigError::NotInCluster(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined".into(),
        ));
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let server = Server::parse(&format!("https://{host}:{port}")).map_err(ConfigError::NotInCluster)?;
    let folder = Path::new(SERVICE_ACCOUNT);
    let token = folder.join("token");
    read_token(&token)?;
    let namespace = std::fs::read_to_string(folder.join("namespace"))
        .ok()
        .map(|n| n.trim().to_owned());
    Ok(RestConfig {
        server,
        ca: Some(Pem::File(folder.join("ca.crt"))),
        credentials: Credentials::token_file(token),
        namespace,
        ..RestConfig::default()
    })
}

#[cfg(test)]
mod tests;
