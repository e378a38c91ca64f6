//! One cell of the matrix: a shape with so many clients and values of such a size, for a fixed time.
//!
//! All clients get ready, then start together; what ends within the window, which begins after a warm-up, counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::grpc::Connection;
use crate::shapes::Shape;
use crate::usage::{self, Usage};

/// Part of the window's length.
const WARM_UP: u32 = 5;

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
    window: Duration,
}

impl Cell {
    pub fn begins_after(&self) -> Duration {
        self.window / WARM_UP
    }

    pub fn length(&self) -> Duration {
        self.begins_after() + self.window
    }

    pub fn next(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed)
    }
}

/// One of a cell's clients, and what it has seen.
pub struct Client {
    pub cell: Arc<Cell>,
    pub number: usize,
    start: Instant,
    latencies: Vec<Duration>,
}

impl Client {
    fn new(cell: &Arc<Cell>, number: usize) -> Client {
        Client {
            cell: cell.clone(),
            number,
            start: cell.epoch,
            latencies: Vec::new(),
        }
    }

    pub fn connection(&self) -> Connection {
        self.cell.connections[self.number % self.cell.connections.len()].clone()
    }

    /// Waits until all clients are ready; the clock starts here.
    pub async fn ready(&mut self) {
        self.cell.ready.wait().await;
        self.start = Instant::now();
    }

    pub fn ends(&self) -> Instant {
        self.start + self.cell.length()
    }

    pub fn is_running(&self) -> bool {
        Instant::now() < self.ends()
    }

    /// An operation that began then has just ended.
    pub fn done(&mut self, began: Instant) {
        let now = Instant::now();
        if now >= self.start + self.cell.begins_after() && now < self.ends() {
            self.latencies.push(now - began);
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
        window: settings.window,
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
    tokio::select! {
        _ = cell.ready.wait() => {}
        // The others would wait for it for ever.
        Some(failed) = tasks.join_next() => drop(failed??),
    }
    tokio::time::sleep(cell.begins_after()).await;
    settings.pids.iter().copied().for_each(usage::reset_peak);
    let (own, before, start) = (usage::own()?, total(settings)?, Instant::now());
    tokio::time::sleep(settings.window).await;
    let (own_after, after, took) = (usage::own()?, total(settings)?, start.elapsed());
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_unstable();
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / latencies.len().max(1) as f64;
    println!(
        "{:<15} {clients:>5} {size:>6} {:>10.1}/s  p50 {:>8.2} ms  p99 {:>8.2} ms  max {:>8.2} ms  cpu {:>8.1} us  resident {:>7.1} MiB  peak {:>7.1} MiB  client {:>6.1} us",
        shape.name,
        latencies.len() as f64 / took.as_secs_f64(),
        percentile(&latencies, 50),
        percentile(&latencies, 99),
        percentile(&latencies, 100),
        each(after.cpu - before.cpu),
        after.resident_mib,
        after.peak_mib,
        each(own_after.cpu - own.cpu),
    );
    Ok(())
}

/// Of all members: their CPU together, and the memory of the largest.
fn total(settings: &Settings) -> Result<Usage> {
    let mut total = Usage::default();
    for pid in &settings.pids {
        let used = usage::of(*pid)?;
        total.cpu += used.cpu;
        total.resident_mib = total.resident_mib.max(used.resident_mib);
        total.peak_mib = total.peak_mib.max(used.peak_mib);
    }
    Ok(total)
}

/// In milliseconds.
pub fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
