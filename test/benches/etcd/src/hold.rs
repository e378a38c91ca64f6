//! What the server keeps for whoever only stays: leases, watch streams, watchers of one stream, keepalive streams, connections.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::task::JoinSet;

use crate::connect::Target;
use crate::grpc::{Connection, Requests, Responses};
use crate::shapes::{kv, lease, watch};
use crate::usage;

/// Streams share so many connections.
const CONNECTIONS: usize = 16;
const SETTLE: Duration = Duration::from_secs(2);
/// The first of everything makes room that all of them share.
const FIRST: u64 = 64;

pub async fn run(target: &Target, pids: &[u32], count: u64) -> Result<()> {
    ensure!(count > FIRST, "more than {FIRST} are needed");
    let connections = target.connections(CONNECTIONS).await?;
    for connection in &connections {
        kv::get(connection, "bench".into()).await?;
    }
    let on = |number: u64| &connections[number as usize % CONNECTIONS];
    let mut held = Held::new(pids).await?;
    for number in 0..count {
        let one = watch_stream(on(number), number).await?;
        held.keep(number, one, "watch stream with its watcher").await?;
    }
    held.report("watch stream with its watcher", count - FIRST)
        .await?;
    let (mut requests, mut responses) = watch_stream(on(0), count).await?;
    for number in 0..count {
        create(&mut requests, &mut responses, count + 1 + number).await?;
        held.first(number, "watcher on one stream").await?;
    }
    held.report("watcher on one stream", count - FIRST).await?;
    held.streams.push((requests, responses));
    for number in 0..count {
        let one = keepalive_stream(on(number)).await?;
        held.keep(number, one, "keepalive stream with its lease").await?;
    }
    held.report("keepalive stream with its lease", count - FIRST)
        .await?;
    leases(&connections, count * 10).await?;
    held.report("lease", count * 10).await?;
    let mut others = Vec::new();
    for number in 0..count {
        others.extend(target.connections(1).await?);
        kv::get(&others[number as usize], "bench".into()).await?;
        held.first(number, "connection").await?;
    }
    held.report("connection", count - FIRST).await?;
    ensure!(others.len() as u64 == count, "connections are gone");
    Ok(())
}

struct Held<'a> {
    pids: &'a [u32],
    resident_mib: f64,
    streams: Vec<(Requests, Responses)>,
}

impl Held<'_> {
    async fn new(pids: &[u32]) -> Result<Held<'_>> {
        let mut held = Held {
            pids,
            resident_mib: 0.0,
            streams: Vec::new(),
        };
        held.look().await?;
        println!("resident {:.1} MiB", held.resident_mib);
        Ok(held)
    }

    /// Returns how much was added since the last look.
    async fn look(&mut self) -> Result<f64> {
        tokio::time::sleep(SETTLE).await;
        let now = usage::of_all(self.pids)?.resident_mib;
        let added = now - self.resident_mib;
        self.resident_mib = now;
        Ok(added)
    }

    async fn first(&mut self, number: u64, what: &str) -> Result<()> {
        if number + 1 == FIRST {
            let added = self.look().await?;
            println!("{what:<32} the first {FIRST}: {added:.1} MiB");
        }
        Ok(())
    }

    async fn keep(&mut self, number: u64, stream: (Requests, Responses), what: &str) -> Result<()> {
        self.streams.push(stream);
        self.first(number, what).await
    }

    async fn report(&mut self, what: &str, count: u64) -> Result<()> {
        let added = self.look().await?;
        println!(
            "{what:<32} {count:>6}: {:>7.0} bytes each; resident {:.1} MiB",
            added * 1024.0 * 1024.0 / count as f64,
            self.resident_mib
        );
        Ok(())
    }
}

async fn watch_stream(connection: &Connection, number: u64) -> Result<(Requests, Responses)> {
    let (mut requests, mut responses) = connection.streaming(watch::WATCH).await?;
    create(&mut requests, &mut responses, number).await?;
    Ok((requests, responses))
}

async fn create(requests: &mut Requests, responses: &mut Responses, number: u64) -> Result<()> {
    let create = WatchCreateRequest {
        key: format!("bench/hold/{number:08}/").into(),
        range_end: format!("bench/hold/{number:08}0").into(),
        ..Default::default()
    };
    requests.send(&WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    })?;
    let created: WatchResponse = responses.message().await?.context("the stream ended")?;
    ensure!(created.created, "the watch was not created");
    Ok(())
}

async fn keepalive_stream(connection: &Connection) -> Result<(Requests, Responses)> {
    let id = lease::granted(connection).await?;
    let (mut requests, mut responses) = connection.streaming(lease::KEEP_ALIVE).await?;
    requests.send(&LeaseKeepAliveRequest { id })?;
    let answer: LeaseKeepAliveResponse = responses.message().await?.context("the stream ended")?;
    ensure!(answer.id == id, "the lease is gone");
    Ok((requests, responses))
}

async fn leases(connections: &[Connection], count: u64) -> Result<()> {
    let mut tasks = JoinSet::new();
    let share = count / connections.len() as u64;
    for connection in connections {
        let connection = connection.clone();
        tasks.spawn(async move {
            for _ in 0..share {
                lease::granted(&connection).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
