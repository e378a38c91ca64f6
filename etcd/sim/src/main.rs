//! Runs seeds until one fails: `etcd-sim --seeds 0..100000`; many on all cores, past every failure: `etcd-sim --seeds 0..1000000 --keep-going`;
//! or one again: `etcd-sim --seed 7 --verbose`.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};
use etcd_sim::plan::Broken;
use etcd_sim::{Plan, Summary};

/// Seeds between two lines about the progress.
const REPORT: u64 = 1000;

fn main() -> Result<ExitCode> {
    let broken = Broken::ALL.map(Broken::name);
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
            Arg::new("jobs")
                .long("jobs")
                .value_name("N")
                .help("seeds at once; as many as there are cores by default"),
        )
        .arg(
            Arg::new("keep-going")
                .long("keep-going")
                .action(ArgAction::SetTrue)
                .help("go on after a seed that failed"),
        )
        .arg(
            Arg::new("broken")
                .long("broken")
                .value_parser(broken)
                .help("break this on purpose, to see that it is found"),
        )
        .arg(Arg::new("verbose").long("verbose").action(ArgAction::SetTrue))
        .get_matches();
    let name = arguments.get_one::<String>("broken");
    let broken = name.and_then(|name| Broken::ALL.into_iter().find(|broken| broken.name() == name));
    if let Some(seed) = arguments.get_one::<String>("seed") {
        let seed = seed.parse().context("--seed takes a number")?;
        return Ok(one(seed, broken, arguments.get_flag("verbose")));
    }
    let run = Run {
        seeds: range(arguments.get_one::<String>("seeds").map_or("", String::as_str))?,
        broken,
        keep_going: arguments.get_flag("keep-going"),
        begin: Instant::now(),
        next: AtomicU64::default(),
        held: AtomicU64::default(),
        steps: AtomicU64::default(),
        failed: AtomicU64::default(),
    };
    Ok(run.all(jobs(&arguments)?))
}

fn jobs(arguments: &ArgMatches) -> Result<usize> {
    match arguments.get_one::<String>("jobs") {
        Some(jobs) => jobs.parse().context("--jobs takes a number"),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

fn range(text: &str) -> Result<Range<u64>> {
    let (from, to) = text
        .split_once("..")
        .context("--seeds takes a range as 0..1000")?;
    Ok(from.parse().context("--seeds: the first number")?..to.parse().context("--seeds: the last number")?)
}

fn simulate(seed: u64, broken: Option<Broken>, verbose: bool) -> Result<Summary, String> {
    let plan = Plan {
        broken,
        ..Plan::draw(seed)
    };
    etcd_sim::run_plan(plan, verbose)
}

fn one(seed: u64, broken: Option<Broken>, verbose: bool) -> ExitCode {
    match simulate(seed, broken, verbose) {
        Ok(summary) => {
            println!("seed {seed}: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// Many seeds, on several threads.
struct Run {
    seeds: Range<u64>,
    broken: Option<Broken>,
    keep_going: bool,
    begin: Instant,
    next: AtomicU64,
    held: AtomicU64,
    steps: AtomicU64,
    failed: AtomicU64,
}

impl Run {
    fn all(self, jobs: usize) -> ExitCode {
        self.next.store(self.seeds.start, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| self.work());
            }
        });
        self.report(self.held.load(Ordering::SeqCst), "hold");
        match self.failed.load(Ordering::SeqCst) {
            0 => ExitCode::SUCCESS,
            failed => {
                eprintln!("{failed} seeds failed");
                ExitCode::FAILURE
            }
        }
    }

    fn work(&self) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::SeqCst);
            let stopped = !self.keep_going && self.failed.load(Ordering::SeqCst) > 0;
            if !self.seeds.contains(&seed) || stopped {
                return;
            }
            match simulate(seed, self.broken, false) {
                Ok(summary) => self.held(&summary),
                Err(what) => {
                    self.failed.fetch_add(1, Ordering::SeqCst);
                    eprintln!("{what}\nreplay: cargo run -p etcd-sim -- --seed {seed} --verbose");
                }
            }
        }
    }

    fn held(&self, summary: &Summary) {
        self.steps.fetch_add(summary.steps, Ordering::Relaxed);
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        if held.is_multiple_of(REPORT) {
            self.report(held, "so far");
        }
    }

    fn report(&self, held: u64, what: &str) {
        let steps = self.steps.load(Ordering::Relaxed);
        println!("{held} seeds {what}, {steps} steps, {:?}", self.begin.elapsed());
    }
}
