//! The disk behind two small traits: what the WAL and the store need of a file system and nothing more.
//!
//! [`real`] is the kernel's; [`unsynced`] is any other that syncs nothing; [`fake`] forgets and tears what was not synced when it is told to
//! crash.

pub mod fake;
pub mod real;
pub mod unsynced;

use std::io;
use std::path::Path;
use std::sync::Arc;

/// How the bytes of a new file come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Written with zeros and synced: later writes inside change no file metadata.
    Zeroes,
    /// Space reserved only.
    Reserve,
}

pub trait Disk: Send + Sync + 'static {
    /// A new file of `size` bytes. When the space cannot be had, nothing is left behind.
    fn create(&self, path: &Path, size: u64, fill: Fill) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// File names in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; a short file is an `UnexpectedEof`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync.
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn truncate(&self, len: u64) -> io::Result<()>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Reads a whole small file.
pub fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

pub fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Replaces a file so that a crash leaves either the old or the new one.
pub fn replace(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    remove_if_there(disk, &temporary)?;
    let file = disk.create(&temporary, bytes.len() as u64, Fill::Reserve)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir)
}

pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
