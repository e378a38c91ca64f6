//! `check perf`: puts at a rate for a minute.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::etcdserverpb::PutRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::load::{self, Report};
use super::progress::Progress;
use crate::client::{Client, Context};
use crate::ctlv3::global::Ctl;
use crate::exit::{Exit, code};

struct Load {
    /// Puts a second.
    limit: u32,
    clients: usize,
}

const LOADS: [Load; 4] = [
    Load {
        limit: 150,
        clients: 50,
    },
    Load {
        limit: 1000,
        clients: 200,
    },
    Load {
        limit: 8000,
        clients: 500,
    },
    Load {
        limit: 15000,
        clients: 1000,
    },
];
const DURATION: Duration = Duration::from_secs(60);
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// Of the load's rate.
const MIN_THROUGHPUT: f64 = 0.9;
/// Seconds.
const MAX_LATENCY: f64 = 0.5;
/// Seconds.
const MAX_DEVIATION: f64 = 0.1;

pub async fn perf(ctl: &mut Ctl) -> Result<(), Exit> {
    let load = &LOADS[super::model(ctl)?];
    let config = ctl.config().await?;
    let clients = super::clients(&config, load.clients).await?;
    let prefix = ctl.flags.string("prefix").to_owned();
    let how = format!("'etcdctl del --prefix {prefix}'");
    super::refuse_used(&clients[0], &prefix, &how).await?;
    let progress = Arc::new(Progress::new(DURATION.as_secs() as usize));
    let (sender, requests) = mpsc::channel(load.clients);
    let feed = tokio::spawn(feed(prefix.clone(), load.limit, sender));
    let clock = tokio::spawn(tick(progress.clone()));
    let report = tokio::select! {
        report = load::run(&clients, requests, None) => Some(report),
        _ = tokio::signal::ctrl_c() => None,
    };
    feed.abort();
    clock.abort();
    progress.finish();
    clean_up(ctl, &clients[0], &prefix).await?;
    let Some(report) = report else {
        return Err(Exit::silent(code::ERROR));
    };
    if ctl.flags.bool("auto-defrag") {
        super::defrag(ctl, &config).await?;
    }
    judge(ctl, load, &report)
}

/// Ends by dropping the sender.
async fn feed(prefix: String, limit: u32, sender: mpsc::Sender<PutRequest>) {
    let value = Bytes::from(vec![0; VALUE_BYTES]);
    let mut pace = interval(Duration::from_secs(1) / limit);
    // A burst after a stall would measure the stall twice.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + DURATION;
    loop {
        tokio::select! {
            _ = pace.tick() => {}
            () = sleep_until(end) => return,
        }
        if sender
            .send(load::request(&prefix, KEY_BYTES, &value))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn tick(progress: Arc<Progress>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        progress.add(1);
    }
}

async fn clean_up(ctl: &Ctl, client: &Client, prefix: &str) -> Result<(), Exit> {
    let context = Context::timeout(super::CLEANUP_WITHIN);
    match super::delete_all(client, &context, prefix).await {
        Err(error) => ctl.say(&format!(
            "FAIL: Cleanup failed during key deletion: ERROR({error})"
        )),
        Ok(revision) if ctl.flags.bool("auto-compact") => super::compact(ctl, client, revision).await,
        Ok(_) => Ok(()),
    }
}

fn judge(ctl: &Ctl, load: &Load, report: &Report) -> Result<(), Exit> {
    let mut passed = report.errors.is_empty();
    if !passed {
        ctl.say("FAIL: too many errors")?;
        for (error, count) in &report.errors {
            ctl.say(&format!("FAIL: ERROR({error}) -> {count}"))?;
        }
    }
    let rate = report.rate() as i64 + 1;
    if report.rate() / f64::from(load.limit) <= MIN_THROUGHPUT {
        ctl.say(&format!("FAIL: Throughput too low: {rate} writes/s"))?;
        passed = false;
    } else {
        ctl.say(&format!("PASS: Throughput is {rate} writes/s"))?;
    }
    let (slowest, deviation) = (report.slowest(), report.deviation());
    if slowest > MAX_LATENCY {
        ctl.say(&format!("Slowest request took too long: {slowest:.6}s"))?;
        passed = false;
    } else {
        ctl.say(&format!("PASS: Slowest request took {slowest:.6}s"))?;
    }
    if deviation > MAX_DEVIATION {
        ctl.say(&format!("Stddev too high: {deviation:.6}s"))?;
        passed = false;
    } else {
        ctl.say(&format!("PASS: Stddev is {deviation:.6}s"))?;
    }
    ctl.say(if passed { "PASS" } else { "FAIL" })?;
    if passed {
        Ok(())
    } else {
        Err(Exit::silent(code::ERROR))
    }
}
