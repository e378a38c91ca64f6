//! How a command ends when it does not simply succeed: upstream's exit codes and the line on stderr.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Upstream's `cobrautl` codes.
pub mod code {
    pub const ERROR: u8 = 1;
    pub const BAD_CONNECTION: u8 = 2;
    pub const INVALID_INPUT: u8 = 3;
    pub const BAD_FEATURE: u8 = 4;
    pub const INTERRUPTED: u8 = 5;
    pub const BAD_ARGS: u8 = 128;
    /// What a shell reports of a process that SIGPIPE ended; Go's runtime ends so when stdout is a closed pipe.
    pub const BROKEN_PIPE: u8 = 141;
}

/// Carried up to `main` by `?`.
#[derive(Debug)]
pub struct Exit {
    pub code: u8,
    /// Printed as `Error: ...` on stderr. None when everything has been said.
    pub message: Option<String>,
}

impl Exit {
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Exit {
            code,
            message: Some(message.to_string()),
        }
    }

    pub fn error(message: impl fmt::Display) -> Self {
        Exit::new(code::ERROR, message)
    }

    pub fn bad_args(message: impl fmt::Display) -> Self {
        Exit::new(code::BAD_ARGS, message)
    }

    pub fn silent(code: u8) -> Self {
        Exit { code, message: None }
    }

    pub fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            // Nobody is left to tell when stderr is gone.
            writeln!(io::stderr(), "Error: {message}").ok();
        }
        ExitCode::from(self.code)
    }
}

impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(code::BROKEN_PIPE),
            _ => Exit::error(error),
        }
    }
}
