//! Which cells a run has, and what is between them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ArgMatches;

use crate::connect::Target;
use crate::grpc::Connection;
use crate::measure::{self, Settings};
use crate::shapes::{SHAPES, Shape};
use crate::{space, usage};

/// As etcd's benchmark in its documented runs: more clients share connections.
const MAX_CONNECTIONS: usize = 100;
/// The rows that the bar is set by, as (shape, clients, bytes of a value).
const BAR: &[(&str, usize, usize)] = &[
    ("put", 1, 256),
    ("put", 256, 256),
    ("pairs", 256, 1024),
    ("range", 256, 256),
    ("list", 4, 256),
    ("fan-out", 50, 512),
];
/// More than so much is compacted between two cells: neither the quota nor the disk nor the cells that came before are to be measured.
const HISTORY_BYTES: i64 = 256 << 20;
/// Between two cells: until the servers use no more than a twentieth of a core, for no longer than this.
const QUIET_WITHIN: Duration = Duration::from_secs(15);
const QUIET_STEP: Duration = Duration::from_millis(200);
const QUIET_PART: u32 = 20;

type At = (&'static Shape, usize, usize);

pub async fn run(mut target: Target, pids: Vec<u32>, of: &ArgMatches) -> Result<()> {
    target.leader_first().await?;
    let settings = Settings {
        pids,
        window: Duration::from_secs_f64(of.get_one("seconds").copied().unwrap_or(1.0)),
    };
    let cells = match of.get_flag("bar") {
        true => BAR
            .iter()
            .map(|(name, clients, size)| Ok((named(name)?, *clients, *size)))
            .collect::<Result<Vec<At>>>()?,
        false => asked(of)?,
    };
    let most = cells.iter().map(|(_, clients, _)| *clients).max().unwrap_or(1);
    let connections = target.connections(most.min(MAX_CONNECTIONS)).await?;
    for (number, (shape, clients, size)) in cells.into_iter().enumerate() {
        rest(&connections[0], &settings.pids).await?;
        let share = &connections[..clients.min(connections.len())];
        measure::run(shape, clients, size, number as u64, share, &settings)
            .await
            .with_context(|| format!("{} with {clients} clients and {size} bytes", shape.name))?;
    }
    Ok(())
}

fn named(name: &str) -> Result<&'static Shape> {
    match SHAPES.iter().find(|shape| shape.name == name) {
        Some(shape) => Ok(shape),
        None => bail!("there is no shape {name}; `etcd-bench list` names them"),
    }
}

fn asked(of: &ArgMatches) -> Result<Vec<At>> {
    let shapes: Vec<&'static Shape> = match of.get_many::<String>("shapes") {
        Some(names) => names.map(|name| named(name)).collect::<Result<_>>()?,
        None => SHAPES.iter().collect(),
    };
    Ok(shapes.into_iter().flat_map(|shape| cells(shape, of)).collect())
}

/// A shape's own cells, as far as they were asked for; a shape for which none of them was has its only one.
fn cells(shape: &'static Shape, of: &ArgMatches) -> Vec<At> {
    let chosen = |name: &str, all: &'static [usize]| -> Vec<usize> {
        let asked: Vec<usize> = of
            .get_many(name)
            .map_or_else(Vec::new, |asked| asked.copied().collect());
        match all.len() == 1 || asked.is_empty() {
            true => all.to_vec(),
            false => asked,
        }
    };
    let sizes = chosen("sizes", shape.sizes);
    chosen("clients", shape.clients)
        .into_iter()
        .flat_map(|clients| sizes.iter().map(move |size| (shape, clients, *size)))
        .collect()
}

/// What one cell has left behind is not to be the next one's cost, with whatever rival.
async fn rest(connection: &Connection, pids: &[u32]) -> Result<()> {
    if space::status(connection).await?.db_size_in_use > HISTORY_BYTES {
        space::compact_now(connection, true).await?;
    }
    let start = Instant::now();
    loop {
        let before = usage::of_all(pids)?.cpu;
        tokio::time::sleep(QUIET_STEP).await;
        if usage::of_all(pids)?.cpu - before <= QUIET_STEP / QUIET_PART {
            return Ok(());
        }
        if start.elapsed() > QUIET_WITHIN {
            println!("# not quiet after {} s", QUIET_WITHIN.as_secs());
            return Ok(());
        }
    }
}
