//! Transactions.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use etcd_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    request_op::Request,
};

use super::kv::{get, prepared_key};
use super::scattered;
use crate::grpc::Connection;
use crate::measure::Cell;

const TXN: &str = "etcdserverpb.KV/Txn";

pub async fn put(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let key = prepared_key(scattered(cell.next()));
    let succeeded = commit(&connection, Vec::new(), vec![put_of(key, &cell)], Vec::new()).await?;
    ensure!(succeeded, "a transaction without a condition failed");
    Ok(())
}

pub async fn mixed(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let number = cell.next();
    let key = prepared_key(scattered(number));
    let operation = match number % 2 {
        0 => put_of(key, &cell),
        _ => get_of(key),
    };
    let succeeded = commit(&connection, Vec::new(), vec![operation], Vec::new()).await?;
    ensure!(succeeded, "a transaction without a condition failed");
    Ok(())
}

/// Half of them write. A conflict begins anew, within the same operation.
pub async fn stm(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let number = cell.next();
    let key = prepared_key(scattered(number));
    loop {
        let read = get(&connection, key.clone()).await?;
        let revision = read.kvs.first().context("the key is missing")?.mod_revision;
        let writes = match number % 2 {
            0 => vec![put_of(key.clone(), &cell)],
            _ => Vec::new(),
        };
        let unchanged = vec![modified_at(&key, revision)];
        if commit(&connection, unchanged, writes, vec![get_of(key.clone())]).await? {
            return Ok(());
        }
    }
}

pub async fn pair(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let key = object_key(&cell);
    let created = put_if(&connection, &key, 0, &cell).await?;
    put_if(&connection, &key, created, &cell).await.map(drop)
}

/// A whole life of an object.
pub async fn kubernetes(connection: Connection, cell: Arc<Cell>) -> Result<()> {
    let key = object_key(&cell);
    let created = put_if(&connection, &key, 0, &cell).await?;
    let read = get(&connection, key.clone()).await?;
    let kv = read.kvs.first().context("the key is missing")?;
    ensure!(kv.mod_revision == created, "read another revision");
    let updated = put_if(&connection, &key, created, &cell).await?;
    let delete = Request::RequestDeleteRange(DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    });
    let unchanged = vec![modified_at(&key, updated)];
    let deleted = commit(&connection, unchanged, vec![delete], vec![get_of(key)]).await?;
    ensure!(deleted, "the delete was refused");
    Ok(())
}

/// Of an object that was never there.
fn object_key(cell: &Cell) -> Bytes {
    format!("/registry/pods/default/{}-{:012}", cell.number, cell.next()).into()
}

async fn put_if(connection: &Connection, key: &Bytes, revision: i64, cell: &Cell) -> Result<i64> {
    let response = transact(
        connection,
        vec![modified_at(key, revision)],
        vec![put_of(key.clone(), cell)],
        vec![get_of(key.clone())],
    )
    .await?;
    ensure!(response.succeeded, "the write was refused");
    Ok(response.header.context("no header")?.revision)
}

async fn commit(
    connection: &Connection,
    compare: Vec<Compare>,
    success: Vec<Request>,
    failure: Vec<Request>,
) -> Result<bool> {
    Ok(transact(connection, compare, success, failure).await?.succeeded)
}

async fn transact(
    connection: &Connection,
    compare: Vec<Compare>,
    success: Vec<Request>,
    failure: Vec<Request>,
) -> Result<TxnResponse> {
    let operations = |requests: Vec<Request>| {
        let operation = |request| RequestOp {
            request: Some(request),
        };
        requests.into_iter().map(operation).collect()
    };
    let request = TxnRequest {
        compare,
        success: operations(success),
        failure: operations(failure),
    };
    connection.unary(TXN, &request).await
}

fn modified_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

fn put_of(key: Bytes, cell: &Cell) -> Request {
    Request::RequestPut(PutRequest {
        key,
        value: cell.value.clone(),
        ..Default::default()
    })
}

fn get_of(key: Bytes) -> Request {
    Request::RequestRange(RangeRequest {
        key,
        ..Default::default()
    })
}
