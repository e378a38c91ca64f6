//! `--audit-log-path`: one JSON event a line, written by its own thread, rotated by size, age and number.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// Events waiting for the disk; more are dropped and counted, requests never wait.
const QUEUE: usize = 10_000;
const MEGABYTE: u64 = 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Rotation {
    /// `--audit-log-maxsize` in megabytes; 0 = lumberjack's default of 100.
    pub max_size_mb: u64,
    /// `--audit-log-maxage` in days; 0 = keep.
    pub max_age_days: u64,
    /// `--audit-log-maxbackup`; 0 = keep all.
    pub max_backups: usize,
}

pub struct Log(SyncSender<Vec<u8>>);

#[derive(Debug, thiserror::Error)]
#[error("--audit-log-path: cannot open {path}: {source}")]
pub struct OpenError {
    path: String,
    source: io::Error,
}

impl Log {
    /// "-" is standard output.
    pub fn open(path: &Path, rotation: Rotation) -> Result<Log, OpenError> {
        let error = |source| OpenError {
            path: path.display().to_string(),
            source,
        };
        let (sender, events) = sync_channel(QUEUE);
        let mut writer = Writer::open(path, rotation).map_err(error)?;
        std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || writer.run(&events))
            .map_err(error)?;
        Ok(Log(sender))
    }

    pub fn write(&self, event: &Value) {
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        if let Err(TrySendError::Full(_)) = self.0.try_send(line) {
            tracing::error!(queue = QUEUE, "Audit event dropped: the log cannot keep up");
        }
    }
}

struct Writer {
    path: PathBuf,
    rotation: Rotation,
    out: Box<dyn Write + Send>,
    written: u64,
}

impl Writer {
    fn open(path: &Path, rotation: Rotation) -> io::Result<Writer> {
        if path == Path::new("-") {
            return Ok(Writer {
                path: path.to_owned(),
                rotation,
                out: Box::new(io::stdout()),
                written: 0,
            });
        }
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let written = file.metadata()?.len();
        Ok(Writer {
            path: path.to_owned(),
            rotation,
            out: Box::new(file),
            written,
        })
    }

    fn run(&mut self, events: &Receiver<Vec<u8>>) {
        while let Ok(line) = events.recv() {
            if let Err(error) = self.line(&line) {
                tracing::error!(err = %error, path = %self.path.display(), "Audit event could not be written");
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let limit = if self.rotation.max_size_mb == 0 {
            100
        } else {
            self.rotation.max_size_mb
        } * MEGABYTE;
        if self.written > 0 && self.written + line.len() as u64 > limit && self.path != Path::new("-") {
            self.rotate()?;
        }
        self.written += line.len() as u64;
        self.out.write_all(line)
    }

    /// The full file gets the time into its name, `audit-2006-01-02T15-04-05.000.log`, as lumberjack does.
    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, backup_name(&self.path, SystemTime::now()))?;
        self.out = Box::new(append(&self.path)?);
        self.written = 0;
        self.remove_old_backups()
    }

    fn remove_old_backups(&self) -> io::Result<()> {
        let backups = backups(&self.path)?;
        let too_many = if self.rotation.max_backups == 0 {
            0
        } else {
            backups.len().saturating_sub(self.rotation.max_backups)
        };
        let max_age = Duration::from_secs(self.rotation.max_age_days * 24 * 3600);
        for (at, backup) in backups.iter().enumerate() {
            let age = backup
                .metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|m| m.elapsed().ok())
                .unwrap_or_default();
            if at < too_many || (!max_age.is_zero() && age > max_age) {
                std::fs::remove_file(backup)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn backup_name(path: &Path, now: SystemTime) -> PathBuf {
    let (prefix, extension) = name_parts(path);
    let now = jiff::Timestamp::try_from(now).unwrap_or_default();
    path.with_file_name(format!(
        "{prefix}{}{extension}",
        now.strftime("%Y-%m-%dT%H-%M-%S%.3f")
    ))
}

/// ("audit-", ".log")
fn name_parts(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path
        .extension()
        .map(|e| format!(".{}", e.to_string_lossy()))
        .unwrap_or_default();
    (format!("{stem}-"), extension)
}

/// Oldest first: the names sort by time.
fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (prefix, extension) = name_parts(path);
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name
            .strip_prefix(&prefix)
            .and_then(|n| n.strip_suffix(&extension))
            .is_some_and(|time| time.len() == 23)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.log");
        let rotation = Rotation {
            max_size_mb: 1,
            max_age_days: 0,
            max_backups: 2,
        };
        let mut writer = Writer::open(&path, rotation).expect("opens");
        let line = vec![b'x'; 700 * 1024];
        for _ in 0..5 {
            writer.line(&line).expect("written");
            std::thread::sleep(Duration::from_millis(3));
        }
        assert_eq!(backups(&path).expect("listed").len(), 2);
        assert_eq!(
            std::fs::metadata(&path).expect("current").len(),
            line.len() as u64
        );
    }

    #[test]
    fn an_unwritable_path_is_named() {
        let error = Log::open(
            Path::new("/proc/nothing/audit.log"),
            Rotation {
                max_size_mb: 0,
                max_age_days: 0,
                max_backups: 0,
            },
        )
        .err()
        .expect("error");
        assert!(
            error
                .to_string()
                .starts_with("--audit-log-path: cannot open /proc/nothing/audit.log"),
            "{error}"
        );
    }
}
