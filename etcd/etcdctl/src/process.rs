//! Commands that etcdctl runs for the user, with Go's error texts.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// SIGINT or SIGTERM. Listens from the moment that this returns.
pub fn interrupt() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Without stdin, as Go's `exec.Command` starts it.
pub async fn run(words: &[String], environment: &[(&str, String)]) -> Result<(), Failure> {
    let Some((program, args)) = words.split_first() else {
        return Ok(());
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    let status = command
        .status()
        .await
        .map_err(|error| Failure::start(program, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::exit(status))
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
    pub code: u8,
}

impl Failure {
    fn start(program: &str, error: &io::Error) -> Self {
        let text = match error.kind() {
            io::ErrorKind::NotFound if !program.contains('/') => {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            _ => format!("fork/exec {program}: {}", crate::client::errno_text(error)),
        };
        Failure { text, code: 1 }
    }

    fn exit(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Failure {
                text: format!("exit status {code}"),
                code: u8::try_from(code).unwrap_or(u8::MAX),
            },
            // Go gives -1 here, which the shell sees as 255.
            None => Failure {
                text: format!(
                    "signal: {}",
                    status.signal().map_or_else(String::new, signal_name)
                ),
                code: u8::MAX,
            },
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        6 => "aborted",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        15 => "terminated",
        other => return format!("signal {other}"),
    }
    .to_owned()
}
