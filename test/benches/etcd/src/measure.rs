//! One cell of the matrix: a shape with so many clients and values of such a size, for a fixed time or a fixed amount of work.
//!
//! All clients get ready, then start together. What ends while the servers' CPU time is measured counts: after a warm-up, until the time is
//! over; of a fixed amount of work everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

use crate::grpc::Connection;
use crate::shapes::Shape;
use crate::usage;

/// Part of the window's length.
const WARM_UP: u32 = 5;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    WarmUp,
    Counted,
    Over,
}

pub struct Cell {
    pub clients: usize,
    pub connections: Vec<Connection>,
    /// Puts this cell's keys apart from those of others.
    pub number: u64,
    pub value: Bytes,
    /// Counters that the clients of a shape share.
    pub sent: AtomicU64,
    pub seen: AtomicU64,
    pub epoch: Instant,
    ready: Barrier,
    phase: watch::Sender<Phase>,
}

impl Cell {
    pub fn next(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed)
    }
}

/// One of a cell's clients, and what it has seen.
pub struct Client {
    pub cell: Arc<Cell>,
    pub number: usize,
    latencies: Vec<Duration>,
}

impl Client {
    fn new(cell: &Arc<Cell>, number: usize) -> Client {
        Client {
            cell: cell.clone(),
            number,
            latencies: Vec::new(),
        }
    }

    pub fn connection(&self) -> Connection {
        self.cell.connections[self.number % self.cell.connections.len()].clone()
    }

    /// Waits until all clients are ready.
    pub async fn ready(&self) {
        self.cell.ready.wait().await;
    }

    pub fn is_running(&self) -> bool {
        *self.cell.phase.borrow() != Phase::Over
    }

    /// Returns when no more is counted.
    pub fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.cell.phase.subscribe();
        async move {
            // The cell ends with its sender.
            phase.wait_for(|phase| *phase == Phase::Over).await.ok();
        }
    }

    /// An operation that began then has just ended.
    pub fn done(&mut self, began: Instant) {
        if *self.cell.phase.borrow() == Phase::Counted {
            self.latencies.push(began.elapsed());
        }
    }

    pub fn tally(self) -> Vec<Duration> {
        self.latencies
    }
}

pub struct Settings {
    pub pids: Vec<u32>,
    pub window: Duration,
}

pub async fn run(
    shape: &'static Shape,
    clients: usize,
    size: usize,
    number: u64,
    connections: &[Connection],
    settings: &Settings,
) -> Result<()> {
    let cell = Arc::new(Cell {
        clients,
        connections: connections.to_vec(),
        number,
        value: vec![b'v'; size].into(),
        sent: AtomicU64::new(0),
        seen: AtomicU64::new(0),
        epoch: Instant::now(),
        ready: Barrier::new(clients + shape.loaders + 1),
        phase: watch::Sender::new(Phase::WarmUp),
    });
    if let Some(prepare) = shape.prepare {
        prepare(cell.clone()).await.context("preparing")?;
    }
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        tasks.spawn((shape.client)(Client::new(&cell, number)));
    }
    for number in 0..shape.loaders {
        tasks.spawn((shape.load)(Client::new(&cell, number)));
    }
    if shape.fixed_work {
        cell.phase.send_replace(Phase::Counted);
    }
    tokio::select! {
        _ = cell.ready.wait() => {}
        // The others would wait for it for ever.
        Some(failed) = tasks.join_next() => drop(failed??),
    }
    if !shape.fixed_work {
        tokio::time::sleep(settings.window / WARM_UP).await;
    }
    settings.pids.iter().copied().for_each(usage::reset_peak);
    let (own, before, start) = (usage::own()?, usage::of_all(&settings.pids)?, Instant::now());
    cell.phase.send_replace(Phase::Counted);
    let mut latencies = Vec::new();
    if shape.fixed_work {
        join(&mut tasks, &mut latencies).await?;
    } else {
        tokio::time::sleep(settings.window).await;
    }
    cell.phase.send_replace(Phase::Over);
    let (own_after, after, took) = (usage::own()?, usage::of_all(&settings.pids)?, start.elapsed());
    join(&mut tasks, &mut latencies).await?;
    latencies.sort_unstable();
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / latencies.len().max(1) as f64;
    println!(
        "{:<15} {clients:>5} {size:>6} {:>10.1}/s  p50 {:>8.2} ms  p99 {:>8.2} ms  max {:>8.2} ms  cpu {:>8.1} us  resident {:>7.1} MiB  peak {:>7.1} MiB  client {:>6.1} us  system {:>3.0} %",
        shape.name,
        latencies.len() as f64 / took.as_secs_f64(),
        percentile(&latencies, 50),
        percentile(&latencies, 99),
        percentile(&latencies, 100),
        each(after.cpu - before.cpu),
        after.resident_mib,
        after.peak_mib,
        each(own_after.cpu - own.cpu),
        after.system_percent(&before),
    );
    Ok(())
}

async fn join(tasks: &mut JoinSet<Result<Vec<Duration>>>, latencies: &mut Vec<Duration>) -> Result<()> {
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    Ok(())
}

/// In milliseconds.
pub fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
