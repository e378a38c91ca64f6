//! `endpoint health`: a linearizable read and the list of alarms, of all endpoints at once.

use std::time::Instant;

use component_base::flags::format_duration;
use etcd_api::etcdserverpb::AlarmType;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::client::{Client, Config, Context, Error};
use crate::ctlv3::global::Ctl;
use crate::exit::Exit;
use crate::printer::{Health, Reply};

pub async fn health(ctl: &mut Ctl) -> Result<(), Exit> {
    let config = ctl.config().await?;
    let endpoints = ctl.cluster_endpoints().await?;
    let probes: FuturesUnordered<_> = endpoints
        .iter()
        .map(|endpoint| probe(config.for_endpoint(endpoint), endpoint, ctl))
        .collect();
    // In the order in which they answer, as upstream's.
    let list: Vec<Health> = probes.filter_map(|probe| async { probe }).collect().await;
    if list.len() < endpoints.len() {
        return Err(refused(&config).await);
    }
    let unhealthy = list.iter().any(|health| !health.error.is_empty());
    ctl.print(&Reply::EndpointHealth(list))?;
    if unhealthy {
        Err(Exit::error("unhealthy cluster"))
    } else {
        Ok(())
    }
}

/// A configuration that makes no client: the same for every endpoint.
async fn refused(config: &Config) -> Exit {
    match Client::new(config.clone()).await {
        Err(error) => Exit::bad_args(error),
        Ok(_) => Exit::error("unhealthy cluster"),
    }
}

/// None when no client could be made of the configuration.
async fn probe(config: Config, endpoint: &str, ctl: &Ctl) -> Option<Health> {
    let unhealthy = |error: String, took: String| Health {
        endpoint: endpoint.to_owned(),
        health: false,
        took,
        error,
    };
    let client = match Client::named(config, "client").await {
        Ok(client) => client,
        Err(Error::Text(_)) => return None,
        Err(error) => return Some(unhealthy(error.to_string(), String::new())),
    };
    let start = Instant::now();
    let context = ctl.context();
    let answer = client.get(&context, "health").await;
    let took = format_duration(start.elapsed());
    let error = match answer {
        // A refusal went through consensus too.
        Err(error) if !error.is_permission_denied() => error.to_string(),
        _ => alarms(&client, &context).await,
    };
    if error.is_empty() {
        return Some(Health {
            endpoint: endpoint.to_owned(),
            health: true,
            took,
            error,
        });
    }
    Some(unhealthy(error, took))
}

/// Empty when there are none.
async fn alarms(client: &Client, context: &Context) -> String {
    let Ok(answer) = client.alarm_list(context).await else {
        return "Unable to fetch the alarm list".to_owned();
    };
    let name = |kind| match kind {
        AlarmType::Nospace => "NOSPACE ",
        AlarmType::Corrupt => "CORRUPT ",
        AlarmType::None => "UNKNOWN ",
    };
    let names: String = answer.alarms.iter().map(|alarm| name(alarm.alarm())).collect();
    if names.is_empty() {
        names
    } else {
        format!("Active Alarm(s): {names}")
    }
}
