//! The shapes of load.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use etcd_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::watch_client::WatchClient;
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
    request_op::Request,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::connect::Target;
use crate::usage;

/// Clients share connections as etcd's benchmark has them share.
const CLIENTS_PER_CONNECTION: usize = 8;
const KEYS: usize = 10_000;
const WATCH_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_MESSAGE: usize = 256 << 20;

#[derive(Clone, Copy)]
pub struct Shape {
    pub clients: usize,
    pub total: usize,
    pub size: usize,
}

pub async fn all(target: &Target, pid: u32) -> Result<()> {
    for (name, clients, total, size) in [
        ("put", 1, 2000, 256),
        ("put", 256, 100_000, 256),
        ("txn", 256, 20_000, 1024),
        ("get", 256, 100_000, 256),
        ("range", 4, 200, 256),
        ("watch", 50, 4000, 512),
    ] {
        run(name, target, pid, &Shape { clients, total, size }).await?;
    }
    Ok(())
}

pub async fn run(name: &str, target: &Target, pid: u32, shape: &Shape) -> Result<()> {
    let channels = target
        .channels(shape.clients.div_ceil(CLIENTS_PER_CONNECTION))
        .await?;
    match name {
        "put" => measure(name, channels, pid, shape, put).await,
        "fill" => measure(name, channels, pid, shape, fill).await,
        "txn" => measure(name, channels, pid, shape, txn_pair).await,
        "get" => {
            prepare(&channels[0], 1, shape.size).await?;
            measure(name, channels, pid, shape, get).await
        }
        "range" => {
            prepare(&channels[0], KEYS, shape.size).await?;
            measure(name, channels, pid, shape, range).await
        }
        "watch" => watch(channels, pid, shape).await,
        other => bail!("there is no workload {other}"),
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

fn value(size: usize) -> Bytes {
    Bytes::from(vec![b'v'; size])
}

/// A cheap sequence that looks random.
fn scattered(number: usize) -> u64 {
    (number as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

async fn put(mut client: KvClient<Channel>, number: usize, size: usize) -> Result<()> {
    let key = format!("bench/put/{:016x}", scattered(number) % 1_000_000);
    client
        .put(PutRequest {
            key: key.into(),
            value: value(size),
            ..Default::default()
        })
        .await?;
    Ok(())
}

async fn fill(mut client: KvClient<Channel>, number: usize, size: usize) -> Result<()> {
    let key = format!("bench/fill/{number:012}");
    client
        .put(PutRequest {
            key: key.into(),
            value: value(size),
            ..Default::default()
        })
        .await?;
    Ok(())
}

async fn get(mut client: KvClient<Channel>, _: usize, _: usize) -> Result<()> {
    let response = client
        .range(RangeRequest {
            key: range_key(0),
            ..Default::default()
        })
        .await?
        .into_inner();
    ensure!(response.kvs.len() == 1, "the key is missing");
    Ok(())
}

async fn range(mut client: KvClient<Channel>, _: usize, _: usize) -> Result<()> {
    let request = RangeRequest {
        key: "bench/range/".into(),
        range_end: "bench/range0".into(),
        ..Default::default()
    };
    let response = client.range(request).await?.into_inner();
    ensure!(
        response.kvs.len() == KEYS,
        "{} keys instead of {KEYS}",
        response.kvs.len()
    );
    Ok(())
}

fn range_key(number: usize) -> Bytes {
    format!("bench/range/{number:08}").into()
}

async fn prepare(channel: &Channel, keys: usize, size: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..32 {
        let mut client = kv(channel.clone());
        tasks.spawn(async move {
            for number in (first..keys).step_by(32) {
                client
                    .put(PutRequest {
                        key: range_key(number),
                        value: value(size),
                        ..Default::default()
                    })
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// As the storage of kube-apiserver: create when absent, then update what was read.
async fn txn_pair(mut client: KvClient<Channel>, number: usize, size: usize) -> Result<()> {
    let key: Bytes = format!("bench/txn/{}/{number:012}", std::process::id()).into();
    let created = client.txn(guarded(&key, 0, size)).await?.into_inner();
    ensure!(created.succeeded, "the create was refused");
    let revision = created.header.context("no header")?.revision;
    let updated = client.txn(guarded(&key, revision, size)).await?.into_inner();
    ensure!(updated.succeeded, "the update was refused");
    Ok(())
}

fn guarded(key: &Bytes, revision: i64, size: usize) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    };
    let put = Request::RequestPut(PutRequest {
        key: key.clone(),
        value: value(size),
        ..Default::default()
    });
    let get = Request::RequestRange(RangeRequest {
        key: key.clone(),
        ..Default::default()
    });
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(put) }],
        failure: vec![RequestOp { request: Some(get) }],
    }
}

async fn measure<F, Fut>(
    name: &str,
    channels: Vec<Channel>,
    pid: u32,
    shape: &Shape,
    operation: F,
) -> Result<()>
where
    F: Fn(KvClient<Channel>, usize, usize) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    usage::reset_peak(pid);
    let (before, start) = (usage::of(pid)?, Instant::now());
    let mut tasks = JoinSet::new();
    for client in 0..shape.clients {
        let (next, shape, client) = (
            next.clone(),
            *shape,
            kv(channels[client % channels.len()].clone()),
        );
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= shape.total {
                    return anyhow::Ok(latencies);
                }
                let start = Instant::now();
                operation(client.clone(), number, shape.size).await?;
                latencies.push(start.elapsed());
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    report(
        name,
        shape,
        shape.total,
        start.elapsed(),
        &mut latencies,
        pid,
        before,
    )
}

fn report(
    name: &str,
    shape: &Shape,
    operations: usize,
    took: Duration,
    latencies: &mut [Duration],
    pid: u32,
    before: usage::Usage,
) -> Result<()> {
    let after = usage::of(pid)?;
    latencies.sort_unstable();
    let ms = |percent: usize| {
        latencies
            .get(latencies.len() * percent / 100)
            .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    println!(
        "{name:<6} clients {:>4} size {:>5}: {:>9.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms  cpu {:>8.1} us each  resident {:>6.1} MiB (peak {:.1})",
        shape.clients,
        shape.size,
        operations as f64 / took.as_secs_f64(),
        ms(50),
        ms(99),
        (after.cpu - before.cpu).as_secs_f64() * 1e6 / operations as f64,
        after.resident_kib as f64 / 1024.0,
        after.peak_kib as f64 / 1024.0,
    );
    Ok(())
}

/// Every watcher sees every put; an operation is one event received.
async fn watch(channels: Vec<Channel>, pid: u32, shape: &Shape) -> Result<()> {
    let seen = Arc::new(AtomicUsize::new(0));
    let mut watchers = JoinSet::new();
    for client in 0..shape.clients {
        let stream = open_watch(channels[client % channels.len()].clone()).await?;
        watchers.spawn(read_watch(stream, shape.total, seen.clone()));
    }
    usage::reset_peak(pid);
    let (before, start) = (usage::of(pid)?, Instant::now());
    let mut puts = JoinSet::new();
    for first in 0..16 {
        let (mut client, shape) = (kv(channels[first % channels.len()].clone()), *shape);
        puts.spawn(async move {
            for number in (first..shape.total).step_by(16) {
                let key = format!("bench/watch/{number:06}");
                client
                    .put(PutRequest {
                        key: key.into(),
                        value: value(shape.size),
                        ..Default::default()
                    })
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = puts.join_next().await {
        done??;
    }
    tokio::time::timeout(WATCH_TIMEOUT, async {
        while let Some(done) = watchers.join_next().await {
            done??;
        }
        anyhow::Ok(())
    })
    .await
    .with_context(|| format!("only {} events arrived", seen.load(Ordering::Relaxed)))??;
    report(
        "watch",
        shape,
        shape.total * shape.clients,
        start.elapsed(),
        &mut [],
        pid,
        before,
    )
}

type Events = (
    tokio::sync::mpsc::Sender<WatchRequest>,
    tonic::Streaming<etcd_api::etcdserverpb::WatchResponse>,
);

async fn open_watch(channel: Channel) -> Result<Events> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let create = WatchCreateRequest {
        key: "bench/watch/".into(),
        range_end: "bench/watch0".into(),
        ..Default::default()
    };
    sender
        .send(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        })
        .await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut events = WatchClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .watch(requests)
        .await?
        .into_inner();
    let created = events.message().await?.context("the stream ended")?;
    ensure!(created.created, "the watch was not created");
    Ok((sender, events))
}

async fn read_watch((sender, mut events): Events, total: usize, seen: Arc<AtomicUsize>) -> Result<()> {
    let (mut count, mut last) = (0, 0);
    while count < total {
        let response = events.message().await?.context("the stream ended")?;
        for event in &response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            ensure!(revision > last, "revision {revision} after {last}");
            last = revision;
        }
        count += response.events.len();
        seen.fetch_add(response.events.len(), Ordering::Relaxed);
    }
    drop(sender);
    Ok(())
}
