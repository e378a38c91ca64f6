//! Where log lines go: stderr, unless etcd's `--log-outputs` says otherwise.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use parking_lot::{Mutex, RwLock};
use tracing::Level;

use super::journal::Journal;
use super::rotate::Rotating;

/// Empty for stderr.
static SINKS: RwLock<Vec<Sink>> = RwLock::new(Vec::new());

pub(super) enum Sink {
    Stderr,
    Stdout,
    Journal(Journal),
    File(File),
    Rotating(Mutex<Rotating>),
}

pub(super) fn set(sinks: Vec<Sink>) {
    *SINKS.write() = sinks;
}

/// Whoever closed what we write to, or let it fill up, cannot be told about it there.
pub(super) fn write(level: Level, line: &[u8]) {
    let sinks = SINKS.read();
    if sinks.is_empty() {
        io::stderr().write_all(line).ok();
    }
    for sink in sinks.iter() {
        sink.write(level, line).ok();
    }
}

impl Sink {
    /// Appends to a file, which is made when it is not there.
    pub fn file(path: &Path) -> io::Result<Sink> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o644).open(path)?;
        Ok(Sink::File(file))
    }

    fn write(&self, level: Level, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stderr => io::stderr().write_all(line),
            Sink::Stdout => io::stdout().write_all(line),
            Sink::Journal(journal) => journal.send(level, line),
            // One call, so that lines of several threads do not mix.
            Sink::File(file) => (&mut &*file).write_all(line),
            Sink::Rotating(file) => file.lock().write(line),
        }
    }
}
