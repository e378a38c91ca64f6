//! Load for any etcd endpoint, ours or the original: rates, latencies, and what an operation costs the server.
//!
//! ```text
//! etcd-bench --endpoints https://127.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --pid <etcd> run
//! etcd-bench --endpoints http://127.0.0.1:2379 --pid <etcd> run --shapes put,range --clients 100 --sizes 1024 --seconds 10
//! etcd-bench verdict runs/2026-11-28-vm/etcd.txt
//! ```
//!
//! [`shapes`] is the table of loads (etcd's own benchmark, and the transactions of Kubernetes), [`measure`] runs one cell of the matrix,
//! [`space`] fills and compacts. [`connect`] and [`grpc`] are the client, [`usage`] reads the servers' CPU time and memory from /proc,
//! [`probe`] asks the disk, [`verdict`] compares what was kept. Any error ends the run: a measured run has none.

mod connect;
mod floor;
mod grpc;
mod measure;
mod probe;
mod shapes;
mod space;
mod usage;
mod verdict;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use connect::Target;
use measure::Settings;
use shapes::{SHAPES, Shape};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As etcd's benchmark in its documented runs: more clients share connections.
const MAX_CONNECTIONS: usize = 100;

/// One thread: the servers are to have the rest of the machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let matches = command().get_matches();
    let pids: Vec<u32> = matches
        .get_many("pid")
        .map_or_else(Vec::new, |pids| pids.copied().collect());
    let target = || Target::from_args(&matches);
    match matches.subcommand() {
        Some(("run", of)) => run(target()?, pids, of).await,
        Some(("list", _)) => {
            for shape in SHAPES {
                println!("{:<16} {}", shape.name, shape.about);
            }
            Ok(())
        }
        Some(("fill", of)) => {
            let size = number(of, "size") as usize;
            space::fill(&target()?, number(of, "keys"), number(of, "total"), size).await
        }
        Some(("compact", _)) => space::compact(&target()?, &pids).await,
        Some(("ready", _)) => space::ready(&target()?, &pids).await,
        Some(("probe", of)) => probe::disk(Path::new(text(of, "path"))),
        Some(("floor", of)) => floor::run(Path::new(text(of, "path"))),
        Some(("verdict", of)) => verdict::print(Path::new(text(of, "path"))),
        _ => Ok(command().print_help()?),
    }
}

async fn run(mut target: Target, pids: Vec<u32>, of: &ArgMatches) -> Result<()> {
    target.leader_first().await?;
    let settings = Settings {
        pids,
        window: Duration::from_secs_f64(of.get_one("seconds").copied().unwrap_or(1.0)),
    };
    let named: Option<Vec<&String>> = of.get_many("shapes").map(Iterator::collect);
    if let Some(unknown) = named
        .iter()
        .flatten()
        .find(|name| !SHAPES.iter().any(|shape| shape.name == name.as_str()))
    {
        bail!("there is no shape {unknown}; `etcd-bench list` names them");
    }
    let wanted = |shape: &&Shape| {
        named
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| *name == shape.name))
    };
    let cells: Vec<(&'static Shape, usize, usize)> = SHAPES
        .iter()
        .filter(wanted)
        .flat_map(|shape| cells(shape, of))
        .collect();
    let most = cells.iter().map(|(_, clients, _)| *clients).max().unwrap_or(1);
    let connections = target.connections(most.min(MAX_CONNECTIONS)).await?;
    for (number, (shape, clients, size)) in cells.into_iter().enumerate() {
        let share = &connections[..clients.min(connections.len())];
        measure::run(shape, clients, size, number as u64, share, &settings)
            .await
            .with_context(|| format!("{} with {clients} clients and {size} bytes", shape.name))?;
    }
    Ok(())
}

/// A shape's own cells, as far as they were asked for; a shape for which none of them was has its only one.
fn cells(shape: &'static Shape, of: &ArgMatches) -> Vec<(&'static Shape, usize, usize)> {
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

fn number(of: &ArgMatches, name: &str) -> u64 {
    of.get_one(name).copied().unwrap_or_default()
}

fn text<'a>(of: &'a ArgMatches, name: &str) -> &'a str {
    of.get_one::<String>(name).map_or("", String::as_str)
}

fn command() -> Command {
    let text = |name: &'static str| Arg::new(name).long(name);
    let list = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .value_delimiter(',')
            .action(ArgAction::Append)
    };
    let numbers = |name: &'static str| list(name).value_parser(value_parser!(usize));
    let number = |name: &'static str, default: &'static str| {
        text(name).default_value(default).value_parser(value_parser!(u64))
    };
    let path = || Arg::new("path").required(true);
    Command::new("etcd-bench")
        .about("Measures an etcd endpoint")
        .arg(text("endpoints").default_value("http://127.0.0.1:2379"))
        .arg(text("cacert"))
        .arg(text("cert"))
        .arg(text("key"))
        .arg(
            list("pid")
                .value_parser(value_parser!(u32))
                .help("the servers' process ids"),
        )
        .subcommand(
            Command::new("run")
                .about("one line for each shape, number of clients and size of values")
                .arg(list("shapes"))
                .arg(numbers("clients"))
                .arg(numbers("sizes"))
                .arg(
                    text("seconds")
                        .default_value("1.5")
                        .value_parser(value_parser!(f64))
                        .help("the window of each cell"),
                ),
        )
        .subcommand(Command::new("list").about("names the shapes"))
        .subcommand(
            Command::new("fill")
                .about("puts values over a number of keys")
                .arg(number("keys", "1000000"))
                .arg(number("total", "1000000"))
                .arg(number("size", "1024")),
        )
        .subcommand(Command::new("compact").about("compacts and defragments under a constant load of puts"))
        .subcommand(Command::new("ready").about("waits for a linearizable read"))
        .subcommand(
            Command::new("probe")
                .about("fdatasync in a directory")
                .arg(path()),
        )
        .subcommand(
            Command::new("floor")
                .about("what one client's requests take of the kernel alone")
                .arg(path()),
        )
        .subcommand(
            Command::new("verdict")
                .about("which rows of a kept comparison meet the bar")
                .arg(path()),
        )
}
