//! The shapes of load: etcd's own benchmark, and what Kubernetes does.

pub mod kv;
pub mod lease;
mod txn;
pub mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::grpc::Connection;
use crate::measure::{Cell, Client};

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub struct Shape {
    pub name: &'static str,
    pub about: &'static str,
    pub clients: &'static [usize],
    pub sizes: &'static [usize],
    pub prepare: Option<fn(Arc<Cell>) -> BoxFuture<Result<()>>>,
    /// What every client does; its tally is what the cell counts.
    pub client: fn(Client) -> BoxFuture<Result<Vec<Duration>>>,
    /// Measured from the first operation to the last, however long that is.
    pub fixed_work: bool,
    /// So many tasks beside the clients do [`Shape::load`].
    pub loaders: usize,
    pub load: fn(Client) -> BoxFuture<Result<Vec<Duration>>>,
}

const CLIENTS: &[usize] = &[1, 100, 1000];
const SIZES: &[usize] = &[256, 1024, 10 * 1024];

pub static SHAPES: &[Shape] = &[
    shape("put", "puts of random keys", |client| repeat(client, kv::put)),
    shape("txn-put", "transactions of one put", |client| {
        repeat(client, txn::put)
    }),
    Shape {
        prepare: Some(kv::prepare),
        ..shape("txn-mixed", "transactions, half puts and half ranges", |client| {
            repeat(client, txn::mixed)
        })
    },
    Shape {
        prepare: Some(kv::prepare),
        ..shape("range", "linearizable ranges of one key", |client| {
            repeat(client, kv::range)
        })
    },
    Shape {
        prepare: Some(kv::prepare_many),
        clients: &[4],
        sizes: &[256],
        ..shape("list", "ranges of 10,000 keys", |client| repeat(client, kv::list))
    },
    Shape {
        prepare: Some(kv::prepare),
        ..shape(
            "stm",
            "software transactional memory: read, then commit if unchanged",
            |client| repeat(client, txn::stm),
        )
    },
    shape(
        "kubernetes",
        "as kube-apiserver: create if absent, read, update if unchanged, delete if unchanged",
        |client| repeat(client, txn::kubernetes),
    ),
    Shape {
        clients: &[256],
        sizes: &[1024],
        ..shape(
            "pairs",
            "as kube-apiserver: create if absent, then update if unchanged",
            |client| repeat(client, txn::pair),
        )
    },
    Shape {
        loaders: watch::PUTTERS,
        load: |client| Box::pin(watch::put_ahead(client)),
        ..shape(
            "watch",
            "watchers of every put; one event is an operation",
            |client| Box::pin(watch::watch(client)),
        )
    },
    Shape {
        clients: &[50],
        sizes: &[512],
        fixed_work: true,
        loaders: watch::FAN_OUT_PUTTERS,
        load: |client| Box::pin(watch::put_all(client)),
        ..shape(
            "fan-out",
            "watchers of 4,000 puts, until each has seen all; one event is an operation",
            |client| Box::pin(watch::watch_all(client)),
        )
    },
    Shape {
        loaders: 1,
        load: |client| Box::pin(watch::put_at_a_rate(client)),
        ..shape(
            "watch-latency",
            "from a put's beginning to its event, at a fixed rate",
            |client| Box::pin(watch::watch(client)),
        )
    },
    Shape {
        sizes: &[0],
        ..shape("lease-keepalive", "keepalives on one stream each", |client| {
            Box::pin(lease::keep_alive(client))
        })
    },
    Shape {
        sizes: &[0],
        ..shape("lease-grant", "a flood of new leases", |client| {
            repeat(client, lease::grant)
        })
    },
];

const fn shape(
    name: &'static str,
    about: &'static str,
    client: fn(Client) -> BoxFuture<Result<Vec<Duration>>>,
) -> Shape {
    Shape {
        name,
        about,
        clients: CLIENTS,
        sizes: SIZES,
        prepare: None,
        client,
        fixed_work: false,
        loaders: 0,
        load: |client| Box::pin(async { Ok(client.tally()) }),
    }
}

/// One operation after the other until the window ends.
fn repeat<F, Fut>(mut client: Client, operation: F) -> BoxFuture<Result<Vec<Duration>>>
where
    F: Fn(Connection, Arc<Cell>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    Box::pin(async move {
        client.ready().await;
        while client.is_running() {
            let began = Instant::now();
            operation(client.connection(), client.cell.clone()).await?;
            client.done(began);
        }
        Ok(client.tally())
    })
}

/// A cheap sequence that looks random.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
