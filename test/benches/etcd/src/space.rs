//! Space: filling a store, and what puts wait for while its history goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use etcd_api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse, StatusRequest,
    StatusResponse,
};
use tokio::task::JoinSet;

use crate::connect::Target;
use crate::grpc::Connection;
use crate::measure::percentile;
use crate::shapes::kv;
use crate::usage;

const CONNECTIONS: usize = 16;
const FILLERS: u64 = 128;
const READY_RETRY: Duration = Duration::from_millis(10);
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The constant load beside a compaction.
const LOAD_CLIENTS: usize = 8;
const LOAD_INTERVAL: Duration = Duration::from_millis(10);
const LOAD_VALUE_BYTES: usize = 1024;
const QUIET: Duration = Duration::from_secs(3);
/// After each step, for what goes on in the background.
const AFTER: Duration = Duration::from_secs(12);

/// Puts `total` values over `keys` keys: all beyond the first round is history.
pub async fn fill(target: &Target, keys: u64, total: u64, size: usize) -> Result<()> {
    let connections = target.connections(CONNECTIONS).await?;
    let (next, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS as usize {
        let (connection, next) = (connections[filler % CONNECTIONS].clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(());
                }
                let key = format!("bench/fill/{:012}", number % keys);
                kv::put_key(&connection, key.into(), vec![number as u8; size].into()).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    println!(
        "filled {total} values of {size} bytes over {keys} keys: {:.0}/s",
        total as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Until a linearizable read is answered.
pub async fn ready(target: &Target, pids: &[u32]) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = read(target).await {
        if start.elapsed() > READY_WITHIN {
            return Err(error).context("not ready");
        }
        tokio::time::sleep(READY_RETRY).await;
    }
    for pid in pids {
        println!(
            "a linearizable read was answered after {:.2} s, resident {:.1} MiB",
            start.elapsed().as_secs_f64(),
            usage::of(*pid)?.resident_mib
        );
    }
    Ok(())
}

async fn read(target: &Target) -> Result<()> {
    for connection in target.each().await? {
        kv::get(&connection, Bytes::from_static(b"bench")).await?;
    }
    Ok(())
}

/// Compacts everything and then defragments, under a constant load of puts.
pub async fn compact(target: &Target, pids: &[u32]) -> Result<()> {
    let connections = target.connections(LOAD_CLIENTS).await?;
    let connection = connections[0].clone();
    let load = Load::start(connections);
    report("before", &connection, pids, load.during(QUIET).await?).await?;
    let start = Instant::now();
    compact_now(&connection, false).await?;
    println!(
        "compaction was answered after {:.3} s",
        start.elapsed().as_secs_f64()
    );
    report("compaction", &connection, pids, load.during(AFTER).await?).await?;
    let start = Instant::now();
    let _: DefragmentResponse = connection
        .unary("etcdserverpb.Maintenance/Defragment", &DefragmentRequest {})
        .await?;
    println!(
        "defragmentation was answered after {:.3} s",
        start.elapsed().as_secs_f64()
    );
    report("defragmentation", &connection, pids, load.during(AFTER).await?).await
}

/// All history; answered when the compaction is decided, or `physical`, when history is gone.
pub async fn compact_now(connection: &Connection, physical: bool) -> Result<()> {
    let revision = status(connection).await?.header.context("no header")?.revision;
    let request = CompactionRequest { revision, physical };
    let _: CompactionResponse = connection.unary("etcdserverpb.KV/Compact", &request).await?;
    Ok(())
}

pub async fn status(connection: &Connection) -> Result<StatusResponse> {
    connection
        .unary("etcdserverpb.Maintenance/Status", &StatusRequest {})
        .await
}

async fn report(step: &str, connection: &Connection, pids: &[u32], mut waits: Vec<Duration>) -> Result<()> {
    waits.sort_unstable();
    let mib = 1024.0 * 1024.0;
    let status = status(connection).await?;
    let mut resident = 0.0;
    for pid in pids {
        resident += usage::of(*pid)?.resident_mib;
    }
    println!(
        "{step:<16} {} puts: p50 {:.2} ms  p99 {:.2} ms  max {:.2} ms; database {:.0} MiB, in use {:.0} MiB; resident {resident:.1} MiB",
        waits.len(),
        percentile(&waits, 50),
        percentile(&waits, 99),
        percentile(&waits, 100),
        status.db_size as f64 / mib,
        status.db_size_in_use as f64 / mib
    );
    Ok(())
}

/// Puts that go on whatever happens.
struct Load {
    waits: Arc<std::sync::Mutex<Vec<Duration>>>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    fn start(connections: Vec<Connection>) -> Load {
        let waits: Arc<std::sync::Mutex<Vec<Duration>>> = Arc::default();
        let mut tasks = JoinSet::new();
        for (client, connection) in connections.into_iter().enumerate() {
            let waits = waits.clone();
            tasks.spawn(async move {
                let key = Bytes::from(format!("bench/load/{client}"));
                let mut ticks = tokio::time::interval(LOAD_INTERVAL);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let start = Instant::now();
                    kv::put_key(&connection, key.clone(), vec![0; LOAD_VALUE_BYTES].into()).await?;
                    if let Ok(mut waits) = waits.lock() {
                        waits.push(start.elapsed());
                    }
                }
            });
        }
        Load { waits, tasks }
    }

    /// What the puts that ended since the last call waited.
    async fn during(&self, time: Duration) -> Result<Vec<Duration>> {
        tokio::time::sleep(time).await;
        anyhow::ensure!(self.tasks.len() == LOAD_CLIENTS, "a put failed");
        let mut waits = self.waits.lock().map_err(|_| anyhow::anyhow!("a put panicked"))?;
        Ok(std::mem::take(&mut *waits))
    }
}
