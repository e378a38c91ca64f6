//! The leader's loop: flush what has waited, decide until nothing is left, sleep until something changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use tokio::task::JoinSet;

use super::Shared;
use super::effects::Effects;
use crate::metrics;
use crate::scheduler::{Outcome, Scheduler};

/// Decisions made under one lock, so that watch events are not kept waiting for long.
const BATCH: usize = 32;
/// Gauges that need a walk over the queue are refreshed at most this often.
const GAUGE_PERIOD: Duration = Duration::from_secs(1);

/// Runs until it is dropped. What it spawned ends with it.
pub async fn run(client: Client, shared: Arc<Shared>) {
    shared.change(Scheduler::forget_unconfirmed);
    let effects = Arc::new(Effects::new(client, Arc::clone(&shared)));
    let mut tasks = JoinSet::new();
    let mut gauges = Instant::now();
    loop {
        let outcomes = decide(&shared, &mut gauges);
        while tasks.try_join_next().is_some() {}
        if outcomes.is_empty() {
            rest(&shared).await;
            continue;
        }
        for (outcome, took) in outcomes {
            let permit = effects.permit().await;
            let effects = Arc::clone(&effects);
            tasks.spawn(async move { effects.carry_out(outcome, took, permit).await });
        }
    }
}

/// Up to a batch of decisions, each with the time it took.
fn decide(shared: &Shared, gauges: &mut Instant) -> Vec<(Outcome, Duration)> {
    let mut scheduler = shared.scheduler.lock();
    scheduler.flush(Instant::now());
    let mut outcomes = Vec::new();
    while outcomes.len() < BATCH {
        let start = Instant::now();
        let Some(outcome) = scheduler.schedule_next(start) else {
            break;
        };
        let took = start.elapsed();
        metrics::ALGORITHM_DURATION.observe(took.as_secs_f64());
        outcomes.push((outcome, took));
    }
    count_incoming(&mut scheduler);
    if outcomes.is_empty() || gauges.elapsed() > GAUGE_PERIOD {
        *gauges = Instant::now();
        set_gauges(&scheduler);
    }
    outcomes
}

async fn rest(shared: &Shared) {
    let wakeup = shared.scheduler.lock().next_wakeup();
    let timer = async {
        match wakeup {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shared.wake.notified() => {}
        () = timer => {}
    }
}

fn count_incoming(scheduler: &mut Scheduler) {
    for incoming in scheduler.take_incoming() {
        metrics::QUEUE_INCOMING_PODS
            .with(&[incoming.queue, &incoming.event])
            .inc();
    }
}

fn set_gauges(scheduler: &Scheduler) {
    let pending = scheduler.pending();
    let queues = [
        ("active", pending.active),
        ("backoff", pending.backoff),
        ("unschedulable", pending.unschedulable),
        ("gated", pending.gated),
    ];
    for (queue, pods) in queues {
        metrics::PENDING_PODS.with(&[queue]).set(pods as f64);
    }
    let (nodes, pods, assumed) = scheduler.cache_size();
    for (kind, size) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
        metrics::CACHE_SIZE.with(&[kind]).set(size as f64);
    }
    metrics::UNSCHEDULABLE_PODS.clear();
    for ((plugin, profile), pods) in scheduler.refused_by_plugin() {
        metrics::UNSCHEDULABLE_PODS
            .with(&[plugin, &profile])
            .set(pods as f64);
    }
}
