//! `snapshot save`: the whole store of one member into a file. What reads such files is in [`files`].

mod files;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use component_base::flags::format_duration;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use sha2::{Digest as _, Sha256};
use tonic::Streaming;

use super::{Ctl, Run, run};
use crate::client::{Client, Config, Context, Error, errno_text};
use crate::cobra::Command;
use crate::exit::{Exit, code};
use crate::go::humanize;
use crate::go::json::string;
use crate::zap::{self, Source};

const EXAMPLE: &str = "  # Save snapshot to a given file
  etcdctl snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address and save it to file
  etcdctl snapshot save --endpoints=127.0.0.1:3000 /backup/etcd-snapshot.db
  
  # Get snapshot from given address with certificates
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/etcd.crt --key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot wih certain user and password
  etcdctl --user=root --password=password123 snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address with timeout
  etcdctl --endpoints=https://127.0.0.1:2379 --dial-timeout=20s snapshot save /backup/etcd-snapshot.db
  
  # Save snapshot with desirable time format
  etcdctl snapshot save /mnt/backup/etcd/backup_$(date +%Y%m%d_%H%M%S).db";
const CREATED: Source = Source::new("", "snapshot/v3_snapshot.go:83");
const OPENED: Source = Source::new("client", "v3/maintenance.go:236");
const FETCHING: Source = Source::new("", "snapshot/v3_snapshot.go:96");
const COMPLETED: Source = Source::new("client", "v3/maintenance.go:302");
const FETCHED: Source = Source::new("", "snapshot/v3_snapshot.go:111");
const SAVED: Source = Source::new("", "snapshot/v3_snapshot.go:121");
/// The smallest sector of a disk: the store's pages are multiples of it, so what is over is the digest.
const SECTOR: u64 = 512;
const DIGEST: usize = 32;

pub fn command() -> Command<Run> {
    let save = "Stores an etcd node backend snapshot to a given file";
    let mut subcommands = vec![Command::new("save <filename>", save, run!(self::save)).example(EXAMPLE)];
    subcommands.extend(files::commands());
    Command::group(
        "snapshot <subcommand>",
        "Manages etcd node snapshots",
        subcommands,
    )
    .example(EXAMPLE)
}

async fn save(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args("snapshot save expects one argument <filename>"));
    }
    let config = ctl.config().await?;
    // Without the flag a large store may take as long as it takes.
    let context = if ctl.command_timeout_is_set() {
        ctl.context()
    } else {
        Context::background()
    };
    let path = ctl.arg(0).to_owned();
    let interrupted = |error| Exit::new(code::INTERRUPTED, error);
    let version = download(config, &context, Path::new(&path))
        .await
        .map_err(interrupted)?;
    ctl.say(&format!("Snapshot saved at {path}"))?;
    // Servers before 3.6 do not tell.
    if version.is_empty() {
        Ok(())
    } else {
        ctl.say(&format!("Server version {version}"))
    }
}

async fn download(config: Config, context: &Context, path: &Path) -> Result<String, Error> {
    let [endpoint] = config.endpoints.as_slice() else {
        let all = config.endpoints.join(" ");
        return Err(Error::text(format!(
            "snapshot must be requested to one selected node, not multiple [{all}]"
        )));
    };
    let endpoint = endpoint.clone();
    let client = Client::named(config, "client").await?;
    let mut part = Part::create(path)?;
    zap::info(
        CREATED,
        "created temporary db file",
        &[("path", string(&part.path.display().to_string()))],
    );
    let start = Instant::now();
    let limit = client.max_receive_bytes();
    let opening = client.open(context, SnapshotRequest {}, |channel, request| async move {
        MaintenanceClient::new(channel)
            .max_decoding_message_size(limit)
            .snapshot(request)
            .await
    });
    let mut stream = opening
        .await
        .map_err(|status| Error::from_status(status, context))?;
    zap::info(OPENED, "opened snapshot stream; downloading", &[]);
    zap::info(FETCHING, "fetching snapshot", &[("endpoint", string(&endpoint))]);
    let version = receive(&mut stream, context, &mut part).await?;
    zap::info(COMPLETED, "completed snapshot read; closing", &[]);
    let size = part.size;
    part.check()?;
    part.finish(path, || {
        let fields = [
            ("endpoint", string(&endpoint)),
            ("size", string(&humanize::bytes(size))),
            ("took", string(&format_duration(start.elapsed()))),
            ("etcd-version", string(&version)),
        ];
        zap::info(FETCHED, "fetched snapshot", &fields);
    })?;
    zap::info(SAVED, "saved", &[("path", string(&path.display().to_string()))]);
    Ok(version)
}

/// One message at a time: the server waits for the disk.
async fn receive(
    stream: &mut Streaming<SnapshotResponse>,
    context: &Context,
    part: &mut Part,
) -> Result<String, Error> {
    let mut version = String::new();
    loop {
        let message = context
            .limit(stream.message())
            .await
            .ok_or(Error::DeadlineExceeded)?;
        let message = message.map_err(|status| {
            Error::text(format!(
                "could not write snapshot: {}",
                Error::from_status(status, context)
            ))
        })?;
        let Some(message) = message else {
            return Ok(version);
        };
        if version.is_empty() {
            version = message.version;
        }
        part.write(&message.blob)?;
    }
}

/// The file while it is incomplete. Removed unless it is finished.
struct Part {
    path: PathBuf,
    file: File,
    size: u64,
    /// Over everything but the last 32 bytes seen so far.
    hash: Sha256,
    tail: Vec<u8>,
}

impl Part {
    fn create(target: &Path) -> Result<Part, Error> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(|error| {
            let name = path.display();
            Error::text(format!(
                "could not open {name} (open {name}: {})",
                errno_text(&error)
            ))
        })?;
        Ok(Part {
            path,
            file,
            size: 0,
            hash: Sha256::new(),
            tail: Vec::new(),
        })
    }

    fn write(&mut self, blob: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(blob);
        written.map_err(|error| Error::text(format!("could not write snapshot: {}", errno_text(&error))))?;
        self.size += blob.len() as u64;
        self.tail.extend_from_slice(blob);
        let settled = self.tail.len().saturating_sub(DIGEST);
        self.hash.update(&self.tail[..settled]);
        self.tail.drain(..settled);
        Ok(())
    }

    /// The stream ends with the digest of all before it. Upstream only looks whether one can be there.
    fn check(&self) -> Result<(), Error> {
        if self.size % SECTOR != DIGEST as u64 {
            return Err(Error::text(format!(
                "sha256 checksum not found [bytes: {}]",
                self.size
            )));
        }
        let (expected, computed) = (&self.tail[..], self.hash.clone().finalize());
        if computed[..] != *expected {
            let text = format!(
                "expected sha256 {expected:?}, got {:?}; the snapshot was damaged on its way",
                &computed[..]
            );
            return Err(Error::text(text));
        }
        Ok(())
    }

    fn finish(self, target: &Path, fetched: impl FnOnce()) -> Result<(), Error> {
        let synced = self.file.sync_all();
        synced.map_err(|error| Error::text(format!("could not fsync snapshot: {}", errno_text(&error))))?;
        fetched();
        std::fs::rename(&self.path, target).map_err(|error| {
            let (from, to) = (self.path.display(), target.display());
            let cause = errno_text(&error);
            Error::text(format!(
                "could not rename {from} to {to} (rename {from} {to}: {cause})"
            ))
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        std::fs::remove_file(&self.path).ok();
    }
}
