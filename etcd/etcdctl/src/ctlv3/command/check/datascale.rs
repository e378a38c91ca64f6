//! `check datascale`: many keys, and what the server's memory grows by.

use std::sync::Arc;

use bytes::Bytes;
use component_base::tls::alpn;
use etcd_api::etcdserverpb::PutRequest;
use tokio::sync::mpsc;

use super::load;
use super::progress::Progress;
use crate::client::{Config, Context};
use crate::ctlv3::global::Ctl;
use crate::exit::{Exit, code};
use crate::fetch::{self, Request};

struct Load {
    /// Pairs of keys and values.
    limit: usize,
    clients: usize,
}

const LOADS: [Load; 4] = [
    Load {
        limit: 10_000,
        clients: 50,
    },
    Load {
        limit: 100_000,
        clients: 200,
    },
    Load {
        limit: 1_000_000,
        clients: 500,
    },
    // Three versions of a million: the upper bound, aggressively.
    Load {
        limit: 3_000_000,
        clients: 1000,
    },
];
const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;
const RESIDENT: &str = "process_resident_memory_bytes";

pub async fn datascale(ctl: &mut Ctl) -> Result<(), Exit> {
    let load = &LOADS[super::model(ctl)?];
    let config = ctl.config().await?;
    let clients = super::clients(&config, load.clients).await?;
    let prefix = ctl.flags.string("prefix").to_owned();
    super::refuse_used(&clients[0], &prefix, &format!("etcdctl del --prefix {prefix}")).await?;
    let before = memory(ctl, &config, "before").await?;
    ctl.say(&format!(
        "Start data scale check for work load [{} key-value pairs, {} bytes per key-value, {} concurrent clients].",
        load.limit,
        KEY_BYTES + VALUE_BYTES,
        load.clients
    ))?;
    let progress = Arc::new(Progress::new(load.limit));
    let (sender, requests) = mpsc::channel(load.clients);
    tokio::spawn(feed(prefix.clone(), load.limit, sender));
    let report = load::run(&clients, requests, Some(progress.clone())).await;
    progress.finish();
    let after = memory(ctl, &config, "after").await?;
    let revision = super::delete_all(&clients[0], &Context::background(), &prefix)
        .await
        .map_err(Exit::error)?;
    if ctl.flags.bool("auto-compact") {
        super::compact(ctl, &clients[0], revision).await?;
    }
    if ctl.flags.bool("auto-defrag") {
        super::defrag(ctl, &config).await?;
    }
    if report.errors.is_empty() {
        let megabytes = (after - before) / (1024.0 * 1024.0);
        return ctl.say(&format!(
            "PASS: Approximate system memory used : {megabytes:.2} MB."
        ));
    }
    ctl.say("FAIL: too many errors")?;
    for (error, count) in &report.errors {
        ctl.say(&format!("FAIL: ERROR({error}) -> {count}"))?;
    }
    Err(Exit::silent(code::ERROR))
}

async fn feed(prefix: String, limit: usize, sender: mpsc::Sender<PutRequest>) {
    let value = Bytes::from(vec![0; VALUE_BYTES]);
    for _ in 0..limit {
        if sender
            .send(load::request(&prefix, KEY_BYTES, &value))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Of the first endpoint, from its metrics.
async fn memory(ctl: &Ctl, config: &Config, when: &str) -> Result<f64, Exit> {
    match resident(config).await {
        Ok(bytes) if bytes > 0.0 => return Ok(bytes),
        Ok(_) => ctl.say(&format!("could not find: {RESIDENT}"))?,
        Err(error) => ctl.say(&format!("fetch error: {error}"))?,
    }
    ctl.say(&format!(
        "FAIL: Could not read {RESIDENT} {when} the put operations."
    ))?;
    Err(Exit::silent(code::ERROR))
}

async fn resident(config: &Config) -> Result<f64, String> {
    let endpoint = config.endpoints.first().map_or("", String::as_str);
    let base = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    };
    let tls = crate::client::tls::load(&config.secure, alpn::HTTP11).map_err(|error| error.to_string())?;
    let request = Request::get(format!("{base}/metrics"));
    let answer = fetch::send(&request, tls)
        .await
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().find_map(|line| line.strip_prefix(RESIDENT));
    Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0))
}
