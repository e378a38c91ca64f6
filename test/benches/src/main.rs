//! Measures a running cluster from outside: rates, latencies, CPU and memory of each daemon.
//!
//! ```text
//! cluster-bench --kubeconfig /etc/kubernetes/admin.conf rates --pods 10000   create, get, list, watch, leases
//! cluster-bench --kubeconfig /etc/kubernetes/admin.conf pods --count 20      pod create to Running on a warm node
//! cluster-bench --kubeconfig /etc/kubernetes/admin.conf idle --seconds 30    memory and CPU of the six at rest
//! ```
//!
//! It knows the daemons by their process names, so the Go components are measured by the same command. CPU is user plus
//! system time of the process over the workload, divided by the operations. Any error ends the run: a measured
//! run has none.

mod idle;
mod latency;
mod pods;
mod process;
mod rates;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};
use client::{Client, kubeconfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let matches = command().get_matches();
    let path = matches
        .get_one::<PathBuf>("kubeconfig")
        .context("--kubeconfig is required")?;
    let client = Client::new(kubeconfig::load(path)?, "cluster-bench")?;
    println!("# {}", std::env::args().collect::<Vec<_>>().join(" "));
    match matches.subcommand() {
        Some(("rates", of)) => rates::run(&client, number(of, "pods"), number(of, "in-flight")).await,
        Some(("pods", of)) => pods::run(&client, number(of, "count"), text(of, "image")).await,
        Some(("idle", of)) => idle::run(number(of, "seconds")).await,
        _ => Ok(command().print_help()?),
    }
}

fn command() -> Command {
    let count = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(value_parser!(usize))
    };
    Command::new("cluster-bench")
        .subcommand_required(true)
        .arg(
            Arg::new("kubeconfig")
                .long("kubeconfig")
                .default_value("/etc/kubernetes/admin.conf")
                .value_parser(value_parser!(PathBuf)),
        )
        .subcommand(
            Command::new("rates")
                .arg(count("pods", "2000"))
                .arg(count("in-flight", "32")),
        )
        .subcommand(
            Command::new("pods").arg(count("count", "20")).arg(
                Arg::new("image")
                    .long("image")
                    .default_value("localhost/ferrokube/demo-web:0.1"),
            ),
        )
        .subcommand(Command::new("idle").arg(count("seconds", "30")))
}

fn number(matches: &ArgMatches, name: &str) -> usize {
    matches.get_one::<usize>(name).copied().unwrap_or(0)
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}
