//! Builds everything that stands around the endpoints from the command line: authentication, authorization,
//! admission, audit, and what plugs in behind. Nothing is written to the cluster here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::http::Body;
use component_base::serve::{DebugRoutes, Handler as ServeHandler};
use component_base::tls::{CaBundle, ClientTls, Pem};
use component_base::watch::{self, FileWatch};
use http::header::HeaderValue;
use http::{Request, Response};
use hyper::body::Incoming;

use super::Chain;
use super::audit::{Audit, log, policy};
use super::in_flight::InFlight;
use crate::admission;
use crate::admission::objects::Objects;
use crate::authentication::bootstrap_token::BootstrapTokens;
use crate::authentication::keys::{self, PublicKey, Signer};
use crate::authentication::openid::OpenId;
use crate::authentication::request_header::{HeaderNames, RequestHeader};
use crate::authentication::review::{SelfSubjectReviews, TokenReviews};
use crate::authentication::service_account::ServiceAccounts;
use crate::authentication::token_file::TokenFile;
use crate::authentication::token_request::TokenRequests;
use crate::authentication::{Authenticators, TokenAuthenticator, Tokens};
use crate::authorization::escalation::EscalationCheck;
use crate::authorization::node::graph::Graph;
use crate::authorization::rbac::Rbac;
use crate::authorization::review::{Kind as ReviewKind, Reviews};
use crate::authorization::{Authorizers, check_modes, subscribe};
use crate::bootstrap::AuthenticationInfo;
use crate::bootstrap::policy::node_rules;
use crate::bootstrap::system::RequestHeaderInfo;
use crate::discovery::Discovery;
use crate::endpoints::seam::{Connecter, Creater, Handler, NonResource, Plugs, RequestContext};
use crate::openapi::OpenApi;
use crate::printers::Tables;
use crate::proxy::component_status::{ComponentStatuses, Server};
use crate::proxy::http_proxy::{Backend, HttpProxy};
use crate::proxy::kubelet::{KubeletFiles, Kubelets};
use crate::proxy::pod_log::PodLog;
use crate::proxy::pod_stream::{Kind as StreamKind, PodStream};
use crate::registry::Registry;
use crate::registry::admission::Admission;

/// Used where the flag is absent, as kubeadm sets it; upstream demands the flag, old tutorials do not have it.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What is needed besides the flags.
pub struct Parts<'a> {
    pub flags: &'a Flags,
    pub registry: &'a Arc<Registry>,
    /// What clients are told to connect to.
    pub address: SocketAddr,
    pub health: &'a Health,
}

pub struct Assembly {
    pub plugs: Plugs,
    pub admission: Arc<dyn Admission>,
    pub authentication: AuthenticationInfo,
    pub filters: Filters,
}

/// The chain without its innermost handler.
pub struct Filters {
    authenticators: Authenticators,
    authorizers: Arc<Authorizers>,
    audit: Audit,
    in_flight: InFlight,
    timeout: std::time::Duration,
    hsts: Option<HeaderValue>,
    reload: Option<FileWatch>,
}

impl Filters {
    pub fn around(self, handler: Arc<dyn Handler>) -> ServeHandler {
        let chain = Chain {
            authenticators: self.authenticators,
            authorizers: self.authorizers,
            audit: self.audit,
            in_flight: self.in_flight,
            timeout: self.timeout,
            hsts: self.hsts,
            handler,
            _reload: self.reload,
        };
        chain.into_handler()
    }
}

pub fn assemble(parts: &Parts<'_>) -> Result<Assembly> {
    let flags = parts.flags;
    let objects: Arc<dyn Objects> = parts.registry.clone();
    let (authorizers, rbac) = authorizers(flags, parts.registry)?;
    let accounts = Accounts::new(flags, &objects)?;
    let tokens = tokens(flags, &objects, &accounts)?;
    let (request_header, info) = front_proxy(flags)?;
    let modes_allow_all = authorization_modes(flags).iter().any(|m| m == "AlwaysAllow");
    let anonymous = flags.bool("anonymous-auth") && (!modes_allow_all || flags.is_set("anonymous-auth"));
    let in_flight = InFlight::new(
        flags.int("max-requests-inflight").max(0) as usize,
        flags.int("max-mutating-requests-inflight").max(0) as usize,
    );
    in_flight.export();
    let admission = admission(flags, &objects, &authorizers, rbac)?;
    let plugs = plugs(parts, &objects, &authorizers, &accounts, &tokens, &admission)?;
    let filters = Filters {
        authenticators: Authenticators {
            request_header,
            client_certificates: !flags.string("client-ca-file").is_empty(),
            tokens,
            anonymous,
        },
        authorizers,
        audit: audit(flags)?,
        in_flight,
        timeout: flags.duration("request-timeout"),
        hsts: hsts(flags)?,
        reload: accounts.watch,
    };
    Ok(Assembly {
        plugs,
        admission,
        authentication: info,
        filters,
    })
}

fn file(flags: &Flags, name: &str) -> Option<PathBuf> {
    Some(flags.string(name))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn authorization_modes(flags: &Flags) -> Vec<String> {
    let modes = flags.strings("authorization-mode");
    if modes.is_empty() {
        vec!["AlwaysAllow".to_owned()]
    } else {
        modes
    }
}

fn authorizers(flags: &Flags, registry: &Arc<Registry>) -> Result<(Arc<Authorizers>, Rbac)> {
    let modes = authorization_modes(flags);
    check_modes(&modes)?;
    let (rbac, graph) = (Rbac::default(), Graph::default());
    subscribe::subscribe(registry, &rbac, &graph);
    Ok((
        Arc::new(Authorizers::new(&modes, graph, node_rules(), rbac.clone())),
        rbac,
    ))
}

/// Service account tokens: the keys that check them, the one that signs them, what they say.
struct Accounts {
    issuers: Vec<String>,
    audiences: Vec<String>,
    keys: Arc<ArcSwap<Vec<PublicKey>>>,
    signer: Option<Signer>,
    watch: Option<FileWatch>,
}

impl Accounts {
    fn new(flags: &Flags, _: &Arc<dyn Objects>) -> Result<Accounts> {
        let mut issuers = flags.strings("service-account-issuer");
        if issuers.is_empty() {
            tracing::warn!(
                issuer = DEFAULT_ISSUER,
                "--service-account-issuer is not set; using the default"
            );
            issuers.push(DEFAULT_ISSUER.to_owned());
        }
        let signer = file(flags, "service-account-signing-key-file")
            .map(|path| Signer::load(&path).context("--service-account-signing-key-file"))
            .transpose()?;
        let files: Vec<PathBuf> = flags
            .strings("service-account-key-file")
            .iter()
            .map(PathBuf::from)
            .collect();
        let own = signer.as_ref().map(|s| s.public.clone());
        let keys = Arc::new(ArcSwap::from_pointee(public_keys(&files, own.as_ref())?));
        let watch = (!files.is_empty()).then(|| watch_keys(files, own, keys.clone()));
        let audiences = flags.strings("api-audiences");
        let audiences = if audiences.is_empty() {
            issuers.clone()
        } else {
            audiences
        };
        Ok(Accounts {
            issuers,
            audiences,
            keys,
            signer,
            watch,
        })
    }
}

/// The keys of all files; without any, the signing key's public half.
fn public_keys(files: &[PathBuf], own: Option<&PublicKey>) -> Result<Vec<PublicKey>> {
    if files.is_empty() {
        return Ok(own.cloned().into_iter().collect());
    }
    let mut all = Vec::new();
    for path in files {
        all.extend(keys::load_public(path).context("--service-account-key-file")?);
    }
    Ok(all)
}

fn watch_keys(files: Vec<PathBuf>, own: Option<PublicKey>, keys: Arc<ArcSwap<Vec<PublicKey>>>) -> FileWatch {
    watch::files(files.clone(), move || match public_keys(&files, own.as_ref()) {
        Ok(fresh) => keys.store(Arc::new(fresh)),
        Err(error) => {
            tracing::error!(err = %format!("{error:#}"), "Service account keys not reloaded; the former ones stay in use")
        }
    })
}

fn tokens(flags: &Flags, objects: &Arc<dyn Objects>, accounts: &Accounts) -> Result<Tokens> {
    let mut all: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(path) = file(flags, "token-auth-file") {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("--token-auth-file: cannot read {}", path.display()))?;
        all.push(Arc::new(
            TokenFile::parse(&text).with_context(|| format!("--token-auth-file: {}", path.display()))?,
        ));
    }
    if !accounts.keys.load().is_empty() {
        all.push(Arc::new(ServiceAccounts {
            issuers: accounts.issuers.clone(),
            audiences: accounts.audiences.clone(),
            keys: accounts.keys.clone(),
            lookup: flags.bool("service-account-lookup"),
            objects: objects.clone(),
        }));
    }
    if flags.bool("enable-bootstrap-token-auth") {
        all.push(Arc::new(BootstrapTokens {
            objects: objects.clone(),
        }));
    }
    Ok(Tokens(all))
}

fn front_proxy(flags: &Flags) -> Result<(Option<RequestHeader>, AuthenticationInfo)> {
    let read = |name: &str| -> Result<Option<String>> {
        file(flags, name)
            .map(|path| {
                std::fs::read_to_string(&path)
                    .with_context(|| format!("--{name}: cannot read {}", path.display()))
            })
            .transpose()
    };
    let mut info = AuthenticationInfo {
        client_ca: read("client-ca-file")?,
        request_header: None,
    };
    let Some(path) = file(flags, "requestheader-client-ca-file") else {
        return Ok((None, info));
    };
    let ca = CaBundle::watch(&path).context("--requestheader-client-ca-file")?;
    let headers = HeaderNames {
        username: flags.strings("requestheader-username-headers"),
        uid: flags.strings("requestheader-uid-headers"),
        group: flags.strings("requestheader-group-headers"),
        extra_prefix: flags.strings("requestheader-extra-headers-prefix"),
    };
    let allowed_names = flags.strings("requestheader-allowed-names");
    info.request_header = Some(RequestHeaderInfo {
        client_ca: read("requestheader-client-ca-file")?.unwrap_or_default(),
        allowed_names: allowed_names.clone(),
        username_headers: headers.username.clone(),
        uid_headers: headers.uid.clone(),
        group_headers: headers.group.clone(),
        extra_headers_prefix: headers.extra_prefix.clone(),
    });
    Ok((
        Some(RequestHeader {
            ca,
            allowed_names,
            headers,
        }),
        info,
    ))
}

fn admission(
    flags: &Flags,
    objects: &Arc<dyn Objects>,
    authorizers: &Arc<Authorizers>,
    rbac: Rbac,
) -> Result<Arc<dyn Admission>> {
    let names = admission::selected(
        &flags.strings("enable-admission-plugins"),
        &flags.strings("disable-admission-plugins"),
    )?;
    let seams = admission::Seams {
        objects: objects.clone(),
        authorizers: authorizers.clone(),
    };
    let escalation = EscalationCheck {
        authorizers: authorizers.clone(),
        rbac,
    };
    Ok(Arc::new(admission::Chain::new(&names, &seams, escalation)))
}

fn audit(flags: &Flags) -> Result<Audit> {
    let (Some(policy_file), path) = (file(flags, "audit-policy-file"), flags.string("audit-log-path")) else {
        return Ok(Audit::default());
    };
    let policy: policy::Policy = component_base::config::load(&policy_file, &[("audit.k8s.io/v1", "Policy")])
        .context("--audit-policy-file")?;
    if let Err(reason) = policy.check() {
        bail!("--audit-policy-file: {}: {reason}", policy_file.display());
    }
    if path.is_empty() {
        return Ok(Audit::default());
    }
    let number = |name: &str| flags.int(name).max(0) as u64;
    let rotation = log::Rotation {
        max_size_mb: number("audit-log-maxsize"),
        max_age_days: number("audit-log-maxage"),
        max_backups: number("audit-log-maxbackup") as usize,
    };
    Ok(Audit::new(policy, log::Log::open(Path::new(path), rotation)?))
}

fn hsts(flags: &Flags) -> Result<Option<HeaderValue>> {
    let directives = flags.strings("strict-transport-security-directives");
    if directives.is_empty() {
        return Ok(None);
    }
    let known = |d: &&String| {
        *d == "includeSubDomains"
            || *d == "preload"
            || d.strip_prefix("max-age=")
                .is_some_and(|s| s.parse::<u64>().is_ok())
    };
    if let Some(bad) = directives.iter().find(|d| !known(d)) {
        bail!(
            "--strict-transport-security-directives: invalid directive {bad:?}; use max-age=<seconds>, includeSubDomains, preload"
        );
    }
    Ok(Some(
        HeaderValue::from_str(&directives.join("; ")).context("--strict-transport-security-directives")?,
    ))
}

fn plugs(
    parts: &Parts<'_>,
    objects: &Arc<dyn Objects>,
    authorizers: &Arc<Authorizers>,
    accounts: &Accounts,
    tokens: &Tokens,
    admission: &Arc<dyn Admission>,
) -> Result<Plugs> {
    Ok(Plugs {
        non_resource: documents(parts, accounts),
        printers: Arc::new(Tables),
        creaters: creaters(parts.flags, objects, authorizers, accounts, tokens, admission),
        connecters: connecters(parts.flags, objects, authorizers)?,
    })
}

fn documents(parts: &Parts<'_>, accounts: &Accounts) -> Vec<Arc<dyn NonResource>> {
    let flags = parts.flags;
    let resources: Vec<_> = parts.registry.endpoints().map(|e| e.resource).collect();
    let address = parts.address.to_string();
    let debug = DebugRoutes::new("kube-apiserver", parts.health, serde_json::Value::Null).flags(flags);
    let mut all: Vec<Arc<dyn NonResource>> = vec![
        Arc::new(Debug(debug)),
        Arc::new(Discovery::new(&resources, &address)),
        Arc::new(OpenApi::new(resources)),
    ];
    let external = match flags.string("external-hostname") {
        "" => address,
        name => format!("{name}:{}", parts.address.port()),
    };
    let openid = OpenId::new(
        &accounts.issuers[0],
        flags.string("service-account-jwks-uri"),
        &external,
        &accounts.keys.load(),
    );
    if let Some(openid) = openid {
        all.push(Arc::new(openid));
    }
    all
}

/// Health, metrics, version: behind the filters like everything.
struct Debug(DebugRoutes);

impl NonResource for Debug {
    fn serve(&self, _: &RequestContext, req: &Request<Incoming>) -> Option<Response<Body>> {
        self.0.respond(req.method(), req.uri().path(), req.uri().query())
    }

    fn paths(&self) -> Vec<String> {
        [
            "/configz", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

type Creaters = Vec<((&'static str, &'static str, &'static str), Arc<dyn Creater>)>;
type Connecters = Vec<((&'static str, &'static str, &'static str), Arc<dyn Connecter>)>;

fn creaters(
    flags: &Flags,
    objects: &Arc<dyn Objects>,
    authorizers: &Arc<Authorizers>,
    accounts: &Accounts,
    tokens: &Tokens,
    admission: &Arc<dyn Admission>,
) -> Creaters {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    const AUTHORIZATION: &str = "authorization.k8s.io";
    let reviews = |kind| -> Arc<dyn Creater> {
        Arc::new(Reviews {
            kind,
            authorizers: authorizers.clone(),
        })
    };
    let mut all: Creaters = vec![
        (
            (AUTHENTICATION, "tokenreviews", ""),
            Arc::new(TokenReviews {
                tokens: tokens.clone(),
                audiences: accounts.audiences.clone(),
            }),
        ),
        (
            (AUTHENTICATION, "selfsubjectreviews", ""),
            Arc::new(SelfSubjectReviews),
        ),
        (
            (AUTHORIZATION, "subjectaccessreviews", ""),
            reviews(ReviewKind::Subject),
        ),
        (
            (AUTHORIZATION, "localsubjectaccessreviews", ""),
            reviews(ReviewKind::LocalSubject),
        ),
        (
            (AUTHORIZATION, "selfsubjectaccessreviews", ""),
            reviews(ReviewKind::SelfSubject),
        ),
        (
            (AUTHORIZATION, "selfsubjectrulesreviews", ""),
            reviews(ReviewKind::SelfRules),
        ),
    ];
    if let Some(signer) = &accounts.signer {
        let requests = TokenRequests {
            signer: signer.clone(),
            issuer: accounts.issuers[0].clone(),
            audiences: accounts.audiences.clone(),
            max_expiration_s: flags.duration("service-account-max-token-expiration").as_secs() as i64,
            extend_expiration: flags.bool("service-account-extend-token-expiration"),
            objects: objects.clone(),
            admission: admission.clone(),
        };
        all.push((("", "serviceaccounts", "token"), Arc::new(requests)));
    }
    all
}

fn connecters(
    flags: &Flags,
    objects: &Arc<dyn Objects>,
    authorizers: &Arc<Authorizers>,
) -> Result<Connecters> {
    let files = KubeletFiles {
        ca: file(flags, "kubelet-certificate-authority"),
        certificate: file(flags, "kubelet-client-certificate"),
        key: file(flags, "kubelet-client-key"),
    };
    let preferred = flags.strings("kubelet-preferred-address-types");
    let kubelets = Kubelets::new(objects.clone(), files, preferred)
        .context("--kubelet-certificate-authority, --kubelet-client-certificate, --kubelet-client-key")?;
    let kubelets = Arc::new(kubelets);
    let stream = |kind| -> Arc<dyn Connecter> {
        Arc::new(PodStream {
            kind,
            kubelets: kubelets.clone(),
            authorizers: authorizers.clone(),
        })
    };
    let proxy = |backend| -> Arc<dyn Connecter> {
        Arc::new(HttpProxy {
            backend,
            kubelets: kubelets.clone(),
        })
    };
    Ok(vec![
        (("", "pods", "log"), Arc::new(PodLog(kubelets.clone()))),
        (("", "pods", "exec"), stream(StreamKind::Exec)),
        (("", "pods", "attach"), stream(StreamKind::Attach)),
        (("", "pods", "portforward"), stream(StreamKind::PortForward)),
        (("", "nodes", "proxy"), proxy(Backend::Node)),
        (("", "pods", "proxy"), proxy(Backend::Pod)),
        (("", "services", "proxy"), proxy(Backend::Service)),
        (
            ("", "componentstatuses", ""),
            Arc::new(component_statuses(flags)?),
        ),
    ])
}

fn component_statuses(flags: &Flags) -> Result<ComponentStatuses> {
    let http1 = || vec![b"http/1.1".to_vec()];
    let local = Arc::new(
        ClientTls {
            insecure: true,
            alpn: http1(),
            ..Default::default()
        }
        .load()?,
    );
    let daemon = |name: &str, port| Server {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        path: "/healthz",
        tls: Some(local.clone()),
        is_etcd: false,
    };
    let mut servers = vec![daemon("controller-manager", 10257), daemon("scheduler", 10259)];
    let pem = |name: &str| file(flags, name).map(Pem::File);
    let tls = ClientTls {
        ca: pem("etcd-cafile"),
        cert: pem("etcd-certfile").zip(pem("etcd-keyfile")),
        insecure: false,
        server_name: None,
        alpn: http1(),
    };
    let urls = flags.strings("etcd-servers");
    let tls = urls
        .iter()
        .any(|u| u.starts_with("https"))
        .then(|| tls.load().map(Arc::new))
        .transpose()
        .context("--etcd-cafile, --etcd-certfile, --etcd-keyfile")?;
    for (at, url) in urls.iter().enumerate() {
        let Ok(uri) = url.parse::<http::Uri>() else {
            continue;
        };
        let Some(host) = uri.host() else { continue };
        let tls = tls.clone().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.trim_matches(['[', ']']).to_owned();
        servers.push(Server {
            name: format!("etcd-{at}"),
            host,
            port: uri.port_u16().unwrap_or(2379),
            path: "/health",
            tls,
            is_etcd: true,
        });
    }
    Ok(ComponentStatuses { servers })
}
