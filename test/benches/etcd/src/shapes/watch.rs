//! Watchers that see every put, and whoever puts for them. A value begins with the time of its put.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};

use super::kv;
use crate::grpc::{Requests, Responses};
use crate::measure::Client;

pub const WATCH: &str = "etcdserverpb.Watch/Watch";
pub const PUTTERS: usize = 4;
/// Of the shape with a fixed number of puts.
pub const FAN_OUT_PUTTERS: usize = 64;
const FAN_OUT_PUTS: u64 = 4000;
/// So far puts may run ahead of the watchers, on average.
const AHEAD: u64 = 64;
const PAUSE: Duration = Duration::from_millis(1);
/// Of the shape that puts at a rate: events that all watchers get together, and puts, in a second.
const EVENTS_PER_SECOND: u64 = 5000;
const PUTS_PER_SECOND: std::ops::RangeInclusive<u64> = 10..=200;
const KEYS: u64 = 1000;
const STAMP_BYTES: usize = 8;

/// Until the time is over.
pub async fn watch(mut client: Client) -> Result<Vec<Duration>> {
    let mut watch = Watch::open(&client).await?;
    client.ready().await;
    let over = client.over();
    tokio::pin!(over);
    loop {
        let response = tokio::select! {
            response = watch.events.message() => response?,
            () = &mut over => return Ok(client.tally()),
        };
        watch.seen(&mut client, response)?;
    }
}

/// Until every put was seen.
pub async fn watch_all(mut client: Client) -> Result<Vec<Duration>> {
    let mut watch = Watch::open(&client).await?;
    client.ready().await;
    while watch.count < FAN_OUT_PUTS {
        let response = watch.events.message().await?;
        watch.seen(&mut client, response)?;
    }
    Ok(client.tally())
}

struct Watch {
    /// The watch ends with it.
    _requests: Requests,
    events: Responses,
    /// Revision of the last event.
    last: i64,
    count: u64,
}

impl Watch {
    async fn open(client: &Client) -> Result<Watch> {
        let (requests, events) = open(client).await?;
        Ok(Watch {
            _requests: requests,
            events,
            last: 0,
            count: 0,
        })
    }

    fn seen(&mut self, client: &mut Client, response: Option<WatchResponse>) -> Result<()> {
        for event in &response.context("the stream ended")?.events {
            let kv = event.kv.as_ref().context("an event has no key")?;
            ensure!(
                kv.mod_revision > self.last,
                "revision {} after {}",
                kv.mod_revision,
                self.last
            );
            self.last = kv.mod_revision;
            self.count += 1;
            client.cell.seen.fetch_add(1, Ordering::Relaxed);
            client.done(put_at(client, &kv.value)?);
        }
        Ok(())
    }
}

async fn open(client: &Client) -> Result<(Requests, Responses)> {
    let (mut requests, mut events) = client.connection().streaming(WATCH).await?;
    let create = WatchCreateRequest {
        key: prefix(client).into(),
        range_end: format!("bench/watch/{}0", client.cell.number).into(),
        ..Default::default()
    };
    requests.send(&WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    })?;
    let created: WatchResponse = events.message().await?.context("the stream ended")?;
    ensure!(created.created, "the watch was not created");
    Ok((requests, events))
}

fn prefix(client: &Client) -> String {
    format!("bench/watch/{}/", client.cell.number)
}

/// As fast as the watchers can follow.
pub async fn put_ahead(client: Client) -> Result<Vec<Duration>> {
    client.ready().await;
    while client.is_running() {
        let cell = client.cell.clone();
        let seen = cell.seen.load(Ordering::Relaxed) / cell.clients as u64;
        match cell.sent.load(Ordering::Relaxed) < seen + AHEAD {
            true => put(&client, cell.next()).await?,
            false => tokio::time::sleep(PAUSE).await,
        }
    }
    Ok(Vec::new())
}

pub async fn put_at_a_rate(client: Client) -> Result<Vec<Duration>> {
    let rate = (EVENTS_PER_SECOND / client.cell.clients as u64)
        .clamp(*PUTS_PER_SECOND.start(), *PUTS_PER_SECOND.end());
    client.ready().await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
    while client.is_running() {
        ticks.tick().await;
        put(&client, client.cell.next()).await?;
    }
    Ok(Vec::new())
}

/// As fast as they are answered.
pub async fn put_all(client: Client) -> Result<Vec<Duration>> {
    client.ready().await;
    loop {
        match client.cell.next() {
            number if number < FAN_OUT_PUTS => put(&client, number).await?,
            _ => return Ok(Vec::new()),
        }
    }
}

async fn put(client: &Client, number: u64) -> Result<()> {
    let cell = &client.cell;
    let key = format!("{}{:06}", prefix(client), number % KEYS);
    let mut value = cell.value.to_vec();
    let stamp = (cell.epoch.elapsed().as_nanos() as u64).to_be_bytes();
    value[..STAMP_BYTES].copy_from_slice(&stamp);
    kv::put_key(&client.connection(), key.into(), value.into()).await
}

fn put_at(client: &Client, value: &Bytes) -> Result<Instant> {
    let stamp = value.first_chunk().context("a value without a time")?;
    Ok(client.cell.epoch + Duration::from_nanos(u64::from_be_bytes(*stamp)))
}
