//! `/livez` and `/readyz`: etcd's checks, all of an endpoint or one by its name, with etcd's bodies and codes.

use std::sync::{Arc, LazyLock};

use component_base::http::{Body, text};
use component_base::metrics::{self, Counter, Gauge};
use etcd_api::etcdserverpb::AlarmType;
use http::{Response, StatusCode};

use super::{excluded, has_alarm};
use crate::server::EtcdServer;

static LAST: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::gauge(
        "etcd_server_healthcheck",
        "The result of each kind of healthcheck.",
        &["type", "name"],
    )
});
static RESULTS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_server_healthchecks_total",
        "The total number of each kind of healthcheck.",
        &["type", "name", "status"],
    )
});

#[derive(Clone, Copy)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

struct Endpoint {
    name: &'static str,
    checks: &'static [Check],
}

const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        name: "livez",
        checks: &[Check::SerializableRead],
    },
    Endpoint {
        name: "readyz",
        checks: &[
            Check::DataCorruption,
            Check::SerializableRead,
            Check::LinearizableRead,
            Check::NonLearner,
        ],
    },
];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, server: &EtcdServer) -> Result<(), String> {
        match self {
            Check::DataCorruption if has_alarm(server, AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::DataCorruption => match server.store().storage.damage() {
                Some(damage) => Err(damage.to_string()),
                None => Ok(()),
            },
            Check::SerializableRead => {
                server.store().get(b"\0", server.store().current());
                Ok(())
            }
            Check::LinearizableRead if server.leader() == 0 => Err("etcdserver: no leader".to_owned()),
            Check::LinearizableRead => server.linearizable().await.map_err(|error| error.to_string()),
            Check::NonLearner => match server.is_learner() {
                true => Err("not supported for learner".to_owned()),
                false => Ok(()),
            },
        }
    }
}

/// None where the path is no check's.
pub async fn respond(server: &Arc<EtcdServer>, path: &str, query: &str) -> Option<Response<Body>> {
    let path = path.strip_prefix('/')?;
    let (name, check) = path
        .split_once('/')
        .map_or((path, None), |(name, check)| (name, Some(check)));
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.name == name)?;
    let checks: Vec<Check> = match check {
        Some(wanted) => vec![*endpoint.checks.iter().find(|check| check.name() == wanted)?],
        None => {
            let left_out: Vec<&str> = excluded(query).collect();
            let stays = |check: &&Check| !left_out.contains(&check.name());
            endpoint.checks.iter().filter(stays).copied().collect()
        }
    };
    let (mut lines, mut failed) = (String::new(), false);
    for check in checks {
        let result = check.run(server).await;
        failed |= result.is_err();
        note(endpoint.name, check.name(), result.is_ok());
        lines.push_str(&match result {
            Ok(()) => format!("[+]{} ok\n", check.name()),
            Err(reason) => format!("[-]{} failed: {reason}\n", check.name()),
        });
    }
    if failed {
        tracing::error!(endpoint = endpoint.name, reason = %lines.trim_end(), "Health check error");
        return Some(text(StatusCode::SERVICE_UNAVAILABLE, &format!("{lines}\n")));
    }
    let verbose = query
        .split('&')
        .any(|pair| pair.split('=').next() == Some("verbose"));
    let shown = if verbose { lines.as_str() } else { "" };
    Some(text(StatusCode::OK, &format!("{shown}ok\n")))
}

fn note(endpoint: &str, check: &str, good: bool) {
    LAST.with(&[endpoint, check]).set(f64::from(u8::from(good)));
    let status = if good { "success" } else { "error" };
    RESULTS.with(&[endpoint, check, status]).inc();
}
