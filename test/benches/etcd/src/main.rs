//! Load for any etcd endpoint, ours or the original: rates, latencies, and what an operation costs the server.
//!
//! ```text
//! etcd-bench --endpoint https://127.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --pid <etcd> all
//! etcd-bench --endpoint http://127.0.0.1:2379 --pid <etcd> put --clients 256 --total 100000 --size 256
//! ```
//!
//! [`workload`] has the shapes (etcd's own benchmark, and the transactions of Kubernetes), [`connect`] the connections, [`usage`] reads the server's
//! CPU time and memory from /proc. Any error ends the run: a measured run has none.

mod connect;
mod usage;
mod workload;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use connect::Target;
use workload::Shape;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let matches = command().get_matches();
    let target = Target::from_args(&matches)?;
    let pid = matches
        .get_one::<u32>("pid")
        .copied()
        .context("--pid is required: the server's process id")?;
    match matches.subcommand() {
        Some(("all", _)) => workload::all(&target, pid).await,
        Some((name, of)) => workload::run(name, &target, pid, &shape(of)).await,
        None => Ok(command().print_help()?),
    }
}

fn shape(of: &ArgMatches) -> Shape {
    let number = |name| of.get_one::<usize>(name).copied().unwrap_or_default();
    Shape {
        clients: number("clients"),
        total: number("total"),
        size: number("size"),
    }
}

fn command() -> Command {
    let text = |name: &'static str| Arg::new(name).long(name);
    let number = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(value_parser!(usize))
    };
    let workload = |name: &'static str, about: &'static str, clients, total, size| {
        Command::new(name)
            .about(about)
            .arg(number("clients", clients))
            .arg(number("total", total))
            .arg(number("size", size))
    };
    Command::new("etcd-bench")
        .about("Measures an etcd endpoint")
        .arg(text("endpoint").default_value("http://127.0.0.1:2379"))
        .arg(text("cacert"))
        .arg(text("cert"))
        .arg(text("key"))
        .arg(text("pid").value_parser(value_parser!(u32)))
        .subcommand(workload("put", "put random keys", "256", "100000", "256"))
        .subcommand(workload(
            "txn",
            "create and update transactions as Kubernetes makes them",
            "256",
            "20000",
            "1024",
        ))
        .subcommand(workload(
            "get",
            "linearizable get of one key",
            "256",
            "100000",
            "256",
        ))
        .subcommand(workload("range", "ranges over 10,000 keys", "4", "200", "256"))
        .subcommand(workload(
            "watch",
            "watchers that see every put",
            "50",
            "4000",
            "512",
        ))
        .subcommand(workload(
            "fill",
            "sequential keys, for sizes",
            "64",
            "1000000",
            "1024",
        ))
        .subcommand(Command::new("all").about("the rows of the table, one after the other"))
}
