//! Leases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use etcd_api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
};

use crate::grpc::Connection;
use crate::measure::{Cell, Client};

const GRANT: &str = "etcdserverpb.Lease/LeaseGrant";
pub const KEEP_ALIVE: &str = "etcdserverpb.Lease/LeaseKeepAlive";
const TTL_SECONDS: i64 = 3600;

pub async fn grant(connection: Connection, _: Arc<Cell>) -> Result<()> {
    granted(&connection).await.map(drop)
}

pub async fn granted(connection: &Connection) -> Result<i64> {
    let request = LeaseGrantRequest {
        ttl: TTL_SECONDS,
        id: 0,
    };
    let response: LeaseGrantResponse = connection.unary(GRANT, &request).await?;
    ensure!(response.ttl == TTL_SECONDS, "a lease of {} s", response.ttl);
    Ok(response.id)
}

pub async fn keep_alive(mut client: Client) -> Result<Vec<Duration>> {
    let connection = client.connection();
    let id = granted(&connection).await?;
    let (mut requests, mut responses) = connection.streaming(KEEP_ALIVE).await?;
    client.ready().await;
    while client.is_running() {
        let began = Instant::now();
        requests.send(&LeaseKeepAliveRequest { id })?;
        let answer: LeaseKeepAliveResponse = responses.message().await?.context("the stream ended")?;
        ensure!(answer.ttl == TTL_SECONDS, "the lease is gone");
        client.done(began);
    }
    Ok(client.tally())
}
