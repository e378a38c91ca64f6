//! `--unsafe-no-fsync`: a disk that says it has synced. What a loss of power leaves is anybody's guess.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, Fill};

pub struct Unsynced<D>(pub D);

struct UnsyncedFile(Arc<dyn DiskFile>);

fn unsynced(file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
    Arc::new(UnsyncedFile(file))
}

impl<D: Disk> Disk for Unsynced<D> {
    /// Zeros would be written to be synced.
    fn create(&self, path: &Path, size: u64, _: Fill) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(path, size, Fill::Reserve).map(unsynced)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path).map(unsynced)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}
