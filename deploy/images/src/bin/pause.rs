//! The sandbox container: sleeps, reaps orphans of a shared PID namespace, exits on SIGTERM or SIGINT.

use std::process::ExitCode;

use images::signals::{self, Blocked, Signal};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("-v") {
        println!("pause {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match Blocked::new() {
        Ok(signals) => pause(&signals),
        Err(error) => {
            eprintln!("pause: cannot block signals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pause(blocked: &Blocked) -> ExitCode {
    while blocked.wait() == Signal::Child {
        signals::reap_children();
    }
    ExitCode::SUCCESS
}
