//! Puts and ranges.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use etcd_api::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use tokio::task::JoinSet;

use super::{BoxFuture, scattered};
use crate::grpc::Connection;
use crate::measure::Cell;

pub const PUT: &str = "etcdserverpb.KV/Put";
pub const RANGE: &str = "etcdserverpb.KV/Range";
/// Puts go to so many keys, so that a longer run does not make a larger store.
const PUT_KEYS: u64 = 10_000;
/// Keys that are there before a shape that reads begins.
pub const PREPARED: u64 = 1000;
const LISTED: u64 = 10_000;
const PREPARERS: u64 = 64;

pub async fn put(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let key = format!("bench/put/{:016x}", scattered(cell.next()) % PUT_KEYS);
    put_key(&connection, key.into(), cell.value.clone()).await
}

pub async fn put_key(connection: &Connection, key: Bytes, value: Bytes) -> Result<()> {
    let request = PutRequest {
        key,
        value,
        ..Default::default()
    };
    let _: PutResponse = connection.unary(PUT, &request).await?;
    Ok(())
}

pub fn prepared_key(number: u64) -> Bytes {
    format!("bench/key/{:012}", number % PREPARED).into()
}

pub async fn range(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let response = get(&connection, prepared_key(scattered(cell.next()))).await?;
    ensure!(response.kvs.len() == 1, "the key is missing");
    Ok(())
}

pub async fn get(connection: &Connection, key: Bytes) -> Result<RangeResponse> {
    let request = RangeRequest {
        key,
        ..Default::default()
    };
    connection.unary(RANGE, &request).await
}

pub async fn list(connection: Connection, _: Arc<Cell>) -> Result<()> {
    let request = RangeRequest {
        key: "bench/list/".into(),
        range_end: "bench/list0".into(),
        ..Default::default()
    };
    let response: RangeResponse = connection.unary(RANGE, &request).await?;
    ensure!(
        response.kvs.len() as u64 == LISTED,
        "{} keys instead of {LISTED}",
        response.kvs.len()
    );
    Ok(())
}

pub fn prepare(cell: Arc<Cell>) -> BoxFuture<Result<()>> {
    Box::pin(fill(cell, PREPARED, prepared_key))
}

pub fn prepare_many(cell: Arc<Cell>) -> BoxFuture<Result<()>> {
    let key = |number| format!("bench/list/{number:012}").into();
    Box::pin(fill(cell, LISTED, key))
}

async fn fill(cell: Arc<Cell>, keys: u64, key: fn(u64) -> Bytes) -> Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..PREPARERS {
        let connection = cell.connections[first as usize % cell.connections.len()].clone();
        let value = cell.value.clone();
        tasks.spawn(async move {
            for number in (first..keys).step_by(PREPARERS as usize) {
                put_key(&connection, key(number), value.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
