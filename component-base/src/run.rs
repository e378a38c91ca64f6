//! The page that every `main` is: flags, logging, signals, watchdog, the daemon, drain, exit code.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::{self, Drain};
use crate::flags::{FlagSet, Flags, UsageError};
use crate::logging::{self, Format};
use crate::{program, sd_notify, version};

/// Enough for one control plane on a small machine; more threads cost memory before they give speed.
const WORKERS: usize = 2;
const WORKERS_VARIABLE: &str = "FERROKUBE_WORKERS";
const BLOCKING_THREADS: usize = 32;
const STACK_BYTES: usize = 1024 * 1024;

/// Parses the command line, then runs `app` until it returns or a signal drains it.
pub fn run<F, Fut>(component: &'static str, flags: FlagSet, app: F) -> ExitCode
where
    F: FnOnce(Flags, Drain) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let flags = match flags.parse(std::env::args_os().skip(1)) {
        Ok(flags) => flags,
        Err(UsageError::Help(text)) => {
            say(&text);
            return ExitCode::SUCCESS;
        }
        Err(error) => return wrong_flags(component, &error.to_string()),
    };
    if flags.is_set("version") && flags.string("version") != "false" {
        print_version(component, flags.string("version"));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = start_logging(component, &flags) {
        return usage(component, &error);
    }
    match runtime() {
        Ok(runtime) => runtime.block_on(supervise(component, flags, app)),
        Err(error) => usage(component, &format!("cannot start threads: {error}")),
    }
}

/// Go's own flags say 2, cobra's 1.
fn wrong_flags(component: &str, message: &str) -> ExitCode {
    match (usage(component, message), component) {
        (_, "etcd") => ExitCode::from(2),
        (code, _) => code,
    }
}

fn usage(component: &str, message: &str) -> ExitCode {
    eprintln!("Error: {message}\n\nSee '{component} --help' for usage.");
    ExitCode::FAILURE
}

fn print_version(component: &str, form: &str) {
    say(&match (component, form) {
        ("etcd", _) => format!(
            "etcd Version: {}\nGit SHA: {}\nGo Version: {}\nGo OS/Arch: {}\n",
            version::ETCD_VERSION,
            version::info().git_commit,
            version::info().go_version,
            version::info().platform
        ),
        (_, "raw") => format!("{:?}\n", version::info()),
        _ => format!("Kubernetes {}\n", version::GIT_VERSION),
    });
}

/// Whoever closed the pipe has read enough.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn start_logging(component: &'static str, flags: &Flags) -> Result<(), String> {
    let format = match (component, flags.string("logging-format")) {
        ("etcd", _) => Format::Zap,
        (_, "" | "text") => Format::Text,
        (_, "json") => Format::Json,
        (_, other) => {
            return Err(format!(
                "[logging.format: Invalid value: {other:?}: Unsupported log format]"
            ));
        }
    };
    let verbosity = u32::try_from(flags.int("v")).map_err(|_| {
        format!(
            "invalid argument \"{}\" for \"--v\" flag: must not be negative",
            flags.int("v")
        )
    })?;
    if component == "etcd" {
        logging::follow_etcd_flags(flags)?;
    }
    let verbosity = verbosity.max(logging::verbosity());
    logging::init_with_modules(component, format, verbosity, modules(flags.string("vmodule"))?);
    logging::install_panic_hook();
    flags
        .warnings()
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
    if verbosity >= 1 {
        flags
            .each()
            .for_each(|(name, value)| tracing::info!("FLAG: --{name}={value:?}"));
    }
    Ok(())
}

fn modules(text: &str) -> Result<Vec<(String, u32)>, String> {
    let parse = |item: &str| {
        let (pattern, level) = item.split_once('=')?;
        Some((pattern.to_owned(), level.parse().ok()?))
    };
    let bad =
        |item: &str| format!("invalid argument {text:?} for \"--vmodule\" flag: {item:?} is not pattern=N");
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| parse(item).ok_or_else(|| bad(item)))
        .collect()
}

fn runtime() -> std::io::Result<Runtime> {
    let workers = std::env::var(WORKERS_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|count| *count > 0);
    Builder::new_multi_thread()
        .worker_threads(workers.unwrap_or(WORKERS))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
}

async fn supervise<F, Fut>(component: &'static str, flags: Flags, app: F) -> ExitCode
where
    F: FnOnce(Flags, Drain) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let drain = Drain::new();
    // Before the daemon starts: a signal that finds no handler ends the process without a drain.
    match Signals::listen() {
        Ok(signals) => drop(tokio::spawn(signals.follow(drain.clone()))),
        Err(error) => return usage(component, &format!("cannot listen for signals: {error}")),
    }
    tokio::spawn(sd_notify::watchdog());
    tokio::spawn(program::let_go_of_start());
    sd_notify::status(&format!("{} is starting", version::GIT_VERSION));
    tracing::info!(version = version::GIT_VERSION, component, "Starting");
    let result = tokio::select! {
        result = app(flags, drain.clone()) => result,
        () = overdue(&drain) => Err(anyhow::anyhow!("not stopped {} s after the signal", drain::GRACE.as_secs())),
    };
    drain.start();
    if !drain.wait(drain::GRACE).await {
        tracing::warn!(
            left = drain.holds(),
            "Work was still in flight when the grace ended"
        );
    }
    match result {
        Ok(()) => {
            tracing::info!("Stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(err = %format!("{error:#}"), "Command failed");
            ExitCode::FAILURE
        }
    }
}

/// The daemon's own future must end within the grace after the drain began.
async fn overdue(drain: &Drain) {
    drain.signaled().await;
    tokio::time::sleep(drain::GRACE).await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The first SIGTERM or SIGINT drains, the second one exits at once.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the run that decides exit codes; whoever signals twice wants no drain"
    )]
    async fn follow(mut self, drain: Drain) {
        for count in 0.. {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            };
            if count > 0 {
                std::process::exit(1);
            }
            tracing::info!(signal = name, "Received signal, shutting down");
            sd_notify::stopping();
            drain.start();
        }
    }
}
