//! Tells when the content of some files changed: inotify on their directories, and an audit each minute for what
//! inotify cannot see (network file systems, a directory that was replaced).
//!
//! Directories are watched, not files: editors and kubelets replace files by rename, and mounted Secrets swap the
//! `..data` symlink. One thread serves the whole process and sleeps in the kernel.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchMask, Watches};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const AUDIT: Duration = Duration::from_secs(60);
/// Certificate and key are written one after the other; wait for the second.
const SETTLE: Duration = Duration::from_millis(50);
/// The symlink that the kubelet swaps to publish a new version of a mounted Secret or ConfigMap.
const DATA_LINK: &str = "..data";

static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);

/// Dropping it ends the watch.
pub struct FileWatch {
    _entry: Arc<Entry>,
}

struct Entry {
    paths: Vec<PathBuf>,
    names: Mutex<HashSet<OsString>>,
    digest: Mutex<Digest>,
    on_change: Box<dyn Fn() + Send + Sync>,
}

type Digest = [u8; 32];

struct Service {
    entries: Arc<Mutex<Vec<Weak<Entry>>>>,
    watches: Option<Mutex<Watches>>,
}

/// Calls `on_change` on the watch thread after the content of any of `paths` changed. Changes are found by content:
/// touching a file calls nothing. A file that is missing counts as empty.
pub fn files(paths: Vec<PathBuf>, on_change: impl Fn() + Send + Sync + 'static) -> FileWatch {
    let mut names = HashSet::from([OsString::from(DATA_LINK)]);
    for path in &paths {
        SERVICE.watch_directory_of(path, &mut names);
    }
    let digest = Mutex::new(digest(&paths));
    let entry = Arc::new(Entry {
        paths,
        names: Mutex::new(names),
        digest,
        on_change: Box::new(on_change),
    });
    SERVICE.entries.lock().push(Arc::downgrade(&entry));
    FileWatch { _entry: entry }
}

impl Service {
    fn start() -> Self {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let inotify = Inotify::init()
            .map_err(
                |error| tracing::warn!(err = %error, "No inotify, changed files are found once a minute"),
            )
            .ok();
        let watches = inotify.as_ref().map(|inotify| Mutex::new(inotify.watches()));
        let seen = entries.clone();
        let thread = std::thread::Builder::new()
            .name("file-watch".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || attend(inotify, &seen));
        if let Err(error) = thread {
            tracing::error!(err = %error, "Cannot start the file watch, changed files are not noticed");
        }
        Service { entries, watches }
    }

    /// Watches the directory the path names and the one where symlinks lead.
    fn watch_directory_of(&self, path: &Path, names: &mut HashSet<OsString>) {
        let resolved = std::fs::canonicalize(path).ok();
        for path in [Some(path.to_path_buf()), resolved].into_iter().flatten() {
            names.extend(path.file_name().map(OsString::from));
            let directory = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let Some(watches) = &self.watches else { continue };
            let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE;
            if let Err(error) = watches.lock().add(directory, mask) {
                tracing::debug!(directory = %directory.display(), err = %error, "Cannot watch the directory, changes are found once a minute");
            }
        }
    }
}

fn attend(mut inotify: Option<Inotify>, entries: &Mutex<Vec<Weak<Entry>>>) {
    let mut audited = Instant::now();
    loop {
        let names = wait(inotify.as_mut(), AUDIT.saturating_sub(audited.elapsed()));
        let audit = audited.elapsed() >= AUDIT;
        if audit {
            audited = Instant::now();
            alive(entries).iter().for_each(|entry| entry.watch_again());
        }
        if names.is_empty() && !audit {
            continue;
        }
        for entry in alive(entries) {
            if audit || entry.names.lock().iter().any(|name| names.contains(name)) {
                entry.check();
            }
        }
    }
}

fn alive(entries: &Mutex<Vec<Weak<Entry>>>) -> Vec<Arc<Entry>> {
    let mut entries = entries.lock();
    entries.retain(|entry| entry.strong_count() > 0);
    entries.iter().filter_map(Weak::upgrade).collect()
}

impl Entry {
    fn check(&self) {
        let now = digest(&self.paths);
        let changed = std::mem::replace(&mut *self.digest.lock(), now) != now;
        if changed {
            // A symlink may lead to another directory now.
            self.watch_again();
            (self.on_change)();
        }
    }

    /// Watching a directory that is watched already changes nothing; one that was replaced is watched anew.
    fn watch_again(&self) {
        let mut names = self.names.lock();
        self.paths
            .iter()
            .for_each(|path| SERVICE.watch_directory_of(path, &mut names));
    }
}

/// Names of files that changed, after they settled; empty when the time was up.
fn wait(inotify: Option<&mut Inotify>, time: Duration) -> HashSet<OsString> {
    let Some(inotify) = inotify else {
        std::thread::sleep(time);
        return HashSet::new();
    };
    let mut names = HashSet::new();
    if readable(inotify, time) {
        std::thread::sleep(SETTLE);
        read_names(inotify, &mut names);
    }
    names
}

fn readable(inotify: &Inotify, time: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let mut fds = [PollFd::new(inotify, PollFlags::IN)];
    // An interrupted poll reads as "time is up"; the loop comes back.
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

fn read_names(inotify: &mut Inotify, names: &mut HashSet<OsString>) {
    let mut buffer = [0; 8192];
    while let Ok(events) = inotify.read_events(&mut buffer) {
        names.extend(events.filter_map(|event| event.name.map(OsString::from)));
    }
}

fn digest(paths: &[PathBuf]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for path in paths {
        let content = std::fs::read(path).unwrap_or_default();
        context.update(&(content.len() as u64).to_le_bytes());
        context.update(&content);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    fn watched(path: PathBuf) -> (FileWatch, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel();
        (
            files(vec![path], move || sender.send(()).unwrap_or_default()),
            receiver,
        )
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_file_written_or_renamed_over_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls.crt");
        std::fs::write(&path, "one").unwrap();
        let (_watch, changes) = watched(path.clone());
        std::fs::write(&path, "two").unwrap();
        changes.recv_timeout(SOON).unwrap();
        std::fs::write(dir.path().join("new"), "three").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        changes.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn a_swapped_data_symlink_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        for (version, content) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("tls.crt"), content).unwrap();
        }
        symlink("v1", dir.path().join("..data")).unwrap();
        symlink("..data/tls.crt", dir.path().join("tls.crt")).unwrap();
        let (_watch, changes) = watched(dir.path().join("tls.crt"));
        symlink("v2", dir.path().join("tmp")).unwrap();
        std::fs::rename(dir.path().join("tmp"), dir.path().join("..data")).unwrap();
        changes.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn a_symlink_that_leads_elsewhere_is_followed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("one"), "1").unwrap();
        std::fs::write(other.path().join("two"), "2").unwrap();
        let link = dir.path().join("ca.crt");
        symlink("one", &link).unwrap();
        let (_watch, changes) = watched(link.clone());
        symlink(other.path().join("two"), dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), &link).unwrap();
        changes.recv_timeout(SOON).unwrap();
        std::fs::write(other.path().join("two"), "3").unwrap();
        changes.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn the_same_content_written_again_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls.crt");
        std::fs::write(&path, "one").unwrap();
        let (_watch, changes) = watched(path.clone());
        std::fs::write(&path, "one").unwrap();
        assert!(changes.recv_timeout(Duration::from_millis(300)).is_err());
    }
}
