//! Runs seeds until one fails: `etcd-sim --seeds 0..100000`, or one again: `etcd-sim --seed 7 --verbose`.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, Command};
use etcd_sim::Plan;
use etcd_sim::plan::Broken;

/// Seeds between two lines about the progress.
const REPORT: u64 = 1000;

fn main() -> Result<ExitCode> {
    let arguments = Command::new("etcd-sim")
        .about("Simulates clusters of etcd, one for each seed, and judges them")
        .arg(
            Arg::new("seeds")
                .long("seeds")
                .value_name("FROM..TO")
                .default_value("0..1000"),
        )
        .arg(Arg::new("seed").long("seed").value_name("N"))
        .arg(
            Arg::new("broken")
                .long("broken")
                .value_parser(["sync", "read-index"])
                .help("break this on purpose, to see that it is found"),
        )
        .arg(Arg::new("verbose").long("verbose").action(ArgAction::SetTrue))
        .get_matches();
    let verbose = arguments.get_flag("verbose");
    let seeds = match arguments.get_one::<String>("seed") {
        Some(seed) => {
            let seed = seed.parse().context("--seed takes a number")?;
            seed..seed + 1
        }
        None => range(arguments.get_one::<String>("seeds").map_or("", String::as_str))?,
    };
    let broken = match arguments.get_one::<String>("broken").map(String::as_str) {
        Some("sync") => Some(Broken::Sync),
        Some(_) => Some(Broken::ReadIndex),
        None => None,
    };
    Ok(run(seeds, broken, verbose))
}

fn range(text: &str) -> Result<Range<u64>> {
    let (from, to) = text
        .split_once("..")
        .context("--seeds takes a range as 0..1000")?;
    Ok(from.parse().context("--seeds: the first number")?..to.parse().context("--seeds: the last number")?)
}

fn run(seeds: Range<u64>, broken: Option<Broken>, verbose: bool) -> ExitCode {
    let (begin, single) = (Instant::now(), seeds.end == seeds.start + 1);
    let (mut count, mut steps) = (0, 0);
    for seed in seeds {
        let plan = Plan {
            broken,
            ..Plan::draw(seed)
        };
        match etcd_sim::run_plan(plan, verbose) {
            Ok(summary) => {
                (count, steps) = (count + 1, steps + summary.steps);
                if single {
                    println!("seed {seed}: {summary:?}");
                }
            }
            Err(what) => {
                eprintln!("{what}\nreplay: cargo run -p etcd-sim -- --seed {seed} --verbose");
                return ExitCode::FAILURE;
            }
        }
        if count % REPORT == 0 {
            println!("{count} seeds, {steps} steps, {:?}", begin.elapsed());
        }
    }
    println!("{count} seeds hold, {steps} steps, {:?}", begin.elapsed());
    ExitCode::SUCCESS
}
