//! Load for any etcd endpoint, ours or the original: rates, latencies, and what an operation costs the server.
//!
//! ```text
//! etcd-bench --endpoints https://127.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --pid <etcd> run
//! etcd-bench --endpoints http://127.0.0.1:2379 --pid <etcd> run --shapes put,range --clients 100 --sizes 1024 --seconds 10
//! etcd-bench --endpoints http://127.0.0.1:2379 --pid <etcd> run --bar --seconds 5
//! etcd-bench verdict runs/2026-11-28-vm/etcd.txt
//! ```
//!
//! Without `--shapes`, `--clients` and `--sizes` a run is the whole matrix: every shape with 1, 100 and 1,000 clients and values of 256 B, 1 KiB
//! and 10 KiB. `--bar` is six rows instead, those that the bar is set by. `compare` runs either against two binaries in turn.
//!
//! [`shapes`] is the table of loads (etcd's own benchmark, and the transactions of Kubernetes), [`matrix`] says which cells a run has and lets
//! the servers rest between them, [`measure`] runs one cell, [`space`] fills and compacts, [`hold`] tells what idle clients cost. [`connect`] and
//! [`grpc`] are the client, [`usage`] reads the servers' CPU time (to the nanosecond, [`cpu_clock`]) and memory, [`probe`] and [`floor`] ask the
//! machine, [`verdict`] compares what was kept. Any error ends the run: a measured run has none.

mod connect;
mod cpu_clock;
mod floor;
mod grpc;
mod hold;
mod matrix;
mod measure;
mod probe;
mod shapes;
mod space;
mod usage;
mod verdict;

use std::path::Path;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use connect::Target;
use shapes::SHAPES;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One thread: the servers are to have the rest of the machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let matches = command().get_matches();
    let pids: Vec<u32> = matches
        .get_many("pid")
        .map_or_else(Vec::new, |pids| pids.copied().collect());
    let target = || Target::from_args(&matches);
    match matches.subcommand() {
        Some(("run", of)) => matrix::run(target()?, pids, of).await,
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
        Some(("hold", of)) => hold::run(&target()?, &pids, number(of, "count")).await,
        Some(("ready", _)) => space::ready(&target()?, &pids).await,
        Some(("probe", of)) => probe::disk(Path::new(text(of, "path"))),
        Some(("floor", of)) => floor::run(Path::new(text(of, "path"))),
        Some(("verdict", of)) => verdict::print(Path::new(text(of, "path"))),
        _ => Ok(command().print_help()?),
    }
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
                .arg(
                    text("bar")
                        .action(ArgAction::SetTrue)
                        .conflicts_with_all(["shapes", "clients", "sizes"])
                        .help("only the rows that the bar is set by"),
                )
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
        .subcommand(
            Command::new("hold")
                .about("what idle leases, watchers, streams and connections cost the server's memory")
                .arg(number("count", "1000")),
        )
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
