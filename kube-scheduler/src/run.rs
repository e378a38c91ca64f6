//! The daemon around the scheduler: one owner of the state, informers that feed it, a loop that asks it for
//! decisions, and tasks that carry them out.
//!
//! [`informers`] turn watch events into calls of [`crate::scheduler::Scheduler`]; [`lead`] is the loop of the leader;
//! [`effects`] posts bindings, conditions and evictions; [`serving`] answers health and metrics.

mod effects;
mod informers;
mod lead;
mod serving;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::Client;
use client::leaderelection::{self, LeaderElection};
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::sd_notify;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::{self, Configuration};
use crate::options;
use crate::queue::Settings;
use crate::scheduler::Scheduler;

const USER_AGENT: &str = concat!("kube-scheduler/v", env!("CARGO_PKG_VERSION"), " ferrokube");

/// The state that handlers, loop and effects share. A decision holds the lock for tens of microseconds.
pub struct Shared {
    scheduler: Mutex<Scheduler>,
    /// Something may have become schedulable.
    wake: Notify,
}

impl Shared {
    /// Runs `change` on the scheduler and wakes the loop.
    fn change(&self, change: impl FnOnce(&mut Scheduler, Instant)) {
        change(&mut self.scheduler.lock(), Instant::now());
        self.wake.notify_one();
    }
}

pub async fn run(flags: Flags, drain: Drain) -> Result<()> {
    let configuration = options::configuration(&flags)?;
    if flags.is_set("write-config-to") {
        return options::write_config(&configuration, flags.string("write-config-to"));
    }
    let profiles = config::build_profiles(&configuration)?;
    let settings = Settings {
        initial_backoff: seconds(configuration.pod_initial_backoff_seconds),
        max_backoff: seconds(configuration.pod_max_backoff_seconds),
        max_in_unschedulable: flags.duration("pod-max-in-unschedulable-pods-duration"),
    };
    let election = election(&configuration)?;
    let client = Client::new(options::rest_config(&configuration, &flags)?, USER_AGENT)?;
    let percentage = configuration.percentage_of_nodes_to_score;
    let scheduler = Scheduler::new(profiles, settings, percentage, rand::random(), Instant::now());
    let shared = Arc::new(Shared {
        scheduler: Mutex::new(scheduler),
        wake: Notify::new(),
    });

    let health = Health::new();
    let synced = health.gate("sched-handler-sync");
    let serving = serving::start(&flags, &configuration, &client, &health, drain.clone()).await?;
    sd_notify::guard(&health);
    let informers = informers::start(&client, &shared);
    tokio::select! {
        () = informers.synced() => synced.open(),
        () = drain.signaled() => return serving.finish().await,
    }
    sd_notify::ready();
    lead(client, election, shared, drain).await?;
    serving.finish().await
}

/// Schedules while this instance is the leader, or always without an election.
async fn lead(
    client: Client,
    election: Option<LeaderElection>,
    shared: Arc<Shared>,
    drain: Drain,
) -> Result<()> {
    let Some(election) = election else {
        tokio::select! {
            () = lead::run(client, shared) => {}
            () = drain.signaled() => {}
        }
        return Ok(());
    };
    let term = |token| {
        tracing::info!("Became the leader, scheduling begins");
        lead::run(client.clone().fenced(token), Arc::clone(&shared))
    };
    leaderelection::run(client.clone(), election, drain, term)
        .await
        .context("leader election")
}

fn election(configuration: &Configuration) -> Result<Option<LeaderElection>> {
    let wire = &configuration.leader_election;
    if !wire.leader_elect {
        return Ok(None);
    }
    let identity = leaderelection::identity();
    let election = LeaderElection {
        lease_duration: wire.lease_duration.0,
        renew_deadline: wire.renew_deadline.0,
        retry_period: wire.retry_period.0,
        ..LeaderElection::new(&wire.resource_namespace, &wire.resource_name, identity)
    };
    election.validate().map_err(anyhow::Error::msg)?;
    Ok(Some(election))
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
