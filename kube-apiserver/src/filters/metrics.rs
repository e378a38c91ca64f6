//! The request metrics that dashboards and alerts are built on, with upstream's names, labels and buckets.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use component_base::metrics::{self, Counter, CounterValue, Gauge, GaugeValue, Histogram, HistogramValue};
use component_base::serve::ConnInfo;
use hashbrown::{Equivalent, HashMap};
use http::{Method, StatusCode, Uri};
use parking_lot::{Mutex, RwLock};

use crate::request_info::RequestInfo;
use crate::user::UserInfo;

const LATENCY_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const SLI_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const EXPIRATION_BUCKETS: &[f64] = &[
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21600.0,
    43200.0,
    86400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];
/// Distinct series kept; requests beyond share one, so that no caller can grow memory by inventing paths.
const MAX_SERIES: usize = 2000;
const COMPONENT: &str = "apiserver";

static REQUESTS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "apiserver_request_total",
        "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        &[
            "verb",
            "dry_run",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
            "code",
        ],
    )
});
static DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "apiserver_request_duration_seconds",
        "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        &[
            "verb",
            "dry_run",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
        ],
        LATENCY_BUCKETS,
    )
});
static SLI: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "apiserver_request_sli_duration_seconds",
        "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
        &[
            "verb",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
        ],
        SLI_BUCKETS,
    )
});
static LONG_RUNNING: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::gauge(
        "apiserver_longrunning_requests",
        "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        &[
            "verb",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
        ],
    )
});
static RESPONSE_SIZES: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "apiserver_response_sizes",
        "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
        &[
            "verb",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
        ],
        &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9],
    )
});
static TERMINATIONS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "apiserver_request_terminations_total",
        "[ALPHA] Number of requests which apiserver terminated in self-defense.",
        &[
            "verb",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
            "code",
        ],
    )
});
static DROPPED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "apiserver_dropped_requests_total",
        "[ALPHA] Number of requests dropped with 'Try again later' response",
        &["request_kind"],
    )
});
static ATTEMPTS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "authentication_attempts",
        "[ALPHA] Counter of authenticated attempts.",
        &["result"],
    )
});
static USERS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "authenticated_user_requests",
        "[ALPHA] Counter of authenticated requests broken out by username.",
        &["username"],
    )
});
static EXPIRATION: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "apiserver_client_certificate_expiration_seconds",
        "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        &[],
        EXPIRATION_BUCKETS,
    )
});

/// The handles of one label set, found once and kept.
pub struct Series {
    labels: Labels<String>,
    duration: Arc<HistogramValue>,
    sli: Option<Arc<HistogramValue>>,
    sizes: Arc<HistogramValue>,
    by_code: Mutex<Vec<(StatusCode, Arc<CounterValue>)>>,
}

/// Owned as a key; borrowed from the request to look one up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Labels<S> {
    verb: &'static str,
    dry_run: &'static str,
    group: S,
    version: S,
    resource: S,
    subresource: S,
    scope: &'static str,
}

impl Equivalent<Labels<String>> for Labels<&str> {
    fn equivalent(&self, key: &Labels<String>) -> bool {
        *self == key.as_ref()
    }
}

impl Labels<String> {
    fn as_ref(&self) -> Labels<&str> {
        let Labels {
            verb, dry_run, scope, ..
        } = *self;
        Labels {
            verb,
            dry_run,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            scope,
        }
    }
}

/// A long-running request in progress.
pub struct Running(Arc<GaugeValue>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub fn series(info: &RequestInfo, method: &Method, uri: &Uri) -> Arc<Series> {
    static ALL: LazyLock<RwLock<HashMap<Labels<String>, Arc<Series>>>> = LazyLock::new(RwLock::default);
    let labels = Labels::of(info, method, uri.query().unwrap_or(""));
    if let Some(series) = ALL.read().get(&labels) {
        return series.clone();
    }
    let mut all = ALL.write();
    let labels = if all.len() < MAX_SERIES {
        labels
    } else {
        Labels::default()
    }
    .to_owned();
    all.entry(labels.clone())
        .or_insert_with(|| Arc::new(Series::new(labels)))
        .clone()
}

impl Series {
    fn new(labels: Labels<String>) -> Self {
        let l = &labels;
        let values = [
            l.verb,
            &l.group,
            &l.version,
            &l.resource,
            &l.subresource,
            l.scope,
            COMPONENT,
        ];
        let with_dry_run = [
            l.verb,
            l.dry_run,
            &l.group,
            &l.version,
            &l.resource,
            &l.subresource,
            l.scope,
            COMPONENT,
        ];
        Series {
            duration: DURATION.with(&with_dry_run),
            sli: (!matches!(l.verb, "WATCH" | "CONNECT")).then(|| SLI.with(&values)),
            sizes: RESPONSE_SIZES.with(&values),
            by_code: Mutex::default(),
            labels,
        }
    }

    pub fn observe(&self, info: &RequestInfo, code: StatusCode, took: Duration, sent: u64) {
        self.code(code).inc();
        self.duration.observe(took.as_secs_f64());
        if let Some(sli) = &self.sli {
            sli.observe(took.as_secs_f64());
        }
        if info.is_read_only() {
            self.sizes.observe(sent as f64);
        }
    }

    fn code(&self, code: StatusCode) -> Arc<CounterValue> {
        let mut known = self.by_code.lock();
        if let Some((_, value)) = known.iter().find(|(c, _)| *c == code) {
            return value.clone();
        }
        let l = &self.labels;
        let value = REQUESTS.with(&[
            l.verb,
            l.dry_run,
            &l.group,
            &l.version,
            &l.resource,
            &l.subresource,
            l.scope,
            COMPONENT,
            code.as_str(),
        ]);
        known.push((code, value.clone()));
        value
    }

    pub fn running(&self, _: &RequestInfo) -> Running {
        let l = &self.labels;
        let gauge = LONG_RUNNING.with(&[
            l.verb,
            &l.group,
            &l.version,
            &l.resource,
            &l.subresource,
            l.scope,
            COMPONENT,
        ]);
        gauge.inc();
        Running(gauge)
    }
}

impl<'a> Labels<&'a str> {
    fn to_owned(self) -> Labels<String> {
        let Labels {
            verb, dry_run, scope, ..
        } = self;
        let [group, version, resource, subresource] =
            [self.group, self.version, self.resource, self.subresource].map(str::to_owned);
        Labels {
            verb,
            dry_run,
            group,
            version,
            resource,
            subresource,
            scope,
        }
    }

    fn of(info: &'a RequestInfo, method: &Method, query: &str) -> Self {
        let dry_run = if query.contains("dryRun=All") { "All" } else { "" };
        let verb = reported_verb(info, method);
        if !info.is_resource_request {
            // The path is a client's word: only the ones served as fixed paths become a label.
            let known = [
                "/healthz",
                "/livez",
                "/readyz",
                "/version",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/api",
                "/apis",
            ];
            let path = known.into_iter().find(|p| info.path == *p).unwrap_or("");
            return Labels {
                verb,
                dry_run,
                subresource: path,
                ..Labels::default()
            };
        }
        Labels {
            verb,
            dry_run,
            group: &info.api_group,
            version: &info.api_version,
            resource: &info.resource,
            subresource: &info.subresource,
            scope: info.scope(),
        }
    }
}

fn reported_verb(info: &RequestInfo, method: &Method) -> &'static str {
    if matches!(
        info.subresource.as_str(),
        "exec" | "attach" | "portforward" | "proxy" | "log"
    ) {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "list" => "LIST",
        "watch" => "WATCH",
        "deletecollection" => "DELETECOLLECTION",
        _ => match method.as_str() {
            "GET" | "HEAD" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "other",
        },
    }
}

pub fn terminated(info: &RequestInfo, code: StatusCode) {
    let verb = info.verb.to_ascii_uppercase();
    TERMINATIONS
        .with(&[
            &verb,
            &info.api_group,
            &info.api_version,
            &info.resource,
            &info.subresource,
            info.scope(),
            COMPONENT,
            code.as_str(),
        ])
        .inc();
}

pub fn dropped(info: &RequestInfo) {
    DROPPED
        .with(&[if info.is_read_only() {
            "readOnly"
        } else {
            "mutating"
        }])
        .inc();
    terminated(info, StatusCode::TOO_MANY_REQUESTS);
}

/// People's names are many and secret-ish; only the system's own are told apart.
fn username_label(user: &UserInfo) -> &str {
    match user.name.as_str() {
        name if name == "admin" || name == "apiserver" || name == "kube_proxy" => name,
        "system:anonymous" => "anonymous",
        name if name.starts_with("system:node:") || name == "kubelet" => "kubelet",
        name if name.starts_with("system:serviceaccount:kube-system:") || name.starts_with("system:") => {
            ":system"
        }
        _ => "other",
    }
}

pub fn authenticated(user: &UserInfo, conn: Option<&ConnInfo>) {
    static SUCCESS: LazyLock<Arc<CounterValue>> = LazyLock::new(|| ATTEMPTS.with(&["success"]));
    SUCCESS.inc();
    USERS.with(&[username_label(user)]).inc();
    if let Some(cert) = conn.and_then(|c| c.client_cert.as_ref()) {
        EXPIRATION.observe((cert.not_after.unix_timestamp() - crate::authentication::unix_now()) as f64);
    }
}

pub fn authentication_failed(wrong_credential: bool) {
    ATTEMPTS
        .with(&[if wrong_credential { "error" } else { "failure" }])
        .inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(method: &str, uri: &str) -> Labels<String> {
        let (method, uri): (Method, Uri) = (method.parse().expect("method"), uri.parse().expect("uri"));
        let info = RequestInfo::new(&method, &uri).expect("path");
        Labels::of(&info, &method, uri.query().unwrap_or("")).to_owned()
    }

    #[test]
    fn labels_follow_upstream() {
        let l = labels("GET", "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(
            (l.verb, l.group.as_str(), l.resource.as_str(), l.scope),
            ("LIST", "apps", "deployments", "namespace")
        );
        let l = labels("POST", "/api/v1/namespaces/a/pods/p/exec?dryRun=All");
        assert_eq!(
            (l.verb, l.subresource.as_str(), l.dry_run, l.scope),
            ("CONNECT", "exec", "All", "resource")
        );
        assert_eq!(labels("GET", "/api/v1/nodes?watch=1").verb, "WATCH");
    }

    #[test]
    fn invented_paths_share_one_series() {
        assert!(labels("GET", "/nonsense/1") == labels("GET", "/nonsense/2"));
        assert_eq!(labels("GET", "/healthz").subresource, "/healthz");
    }
}
