//! A disk in memory that can lose power: what was not synced is lost or torn, sector by sector, as the seed decides.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Disk, DiskFile, Fill};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What a process sees now.
    files: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    /// The directory entries that survive a crash.
    durable: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    /// What was done to directories since they were synced, in order.
    unsynced: Vec<Entry>,
    capacity: Option<u64>,
    /// Operations until every further one fails, as a process that was killed in between.
    fuse: Option<u64>,
    /// Says that it has synced what it has not.
    lies: bool,
}

/// One change of a directory.
enum Entry {
    Create(PathBuf, Arc<Mutex<Content>>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    /// Sectors that were written since the last sync, as they were then.
    unsynced: BTreeMap<usize, Vec<u8>>,
    synced_len: usize,
}

struct FakeFile {
    state: Arc<Mutex<State>>,
    content: Arc<Mutex<Content>>,
}

impl FakeDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// Total bytes that files may occupy.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes that files occupy.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// After `operations` more changes everything fails until [`FakeDisk::crash`].
    pub fn burn_after(&self, operations: u64) {
        self.state.lock().fuse = Some(operations);
    }

    /// Syncs of files are answered and do nothing, as on the worst of disks.
    pub fn lie(&self) {
        self.state.lock().lies = true;
    }

    /// Whether nothing can be changed any more.
    pub fn is_burnt(&self) -> bool {
        self.state.lock().fuse == Some(0)
    }

    /// The process was killed and the machine went on: everything written is still seen, synced or not.
    pub fn revive(&self) {
        self.state.lock().fuse = None;
    }

    /// Power loss: unsynced sectors are kept or lost at random; of unsynced changes of directories the first ones are kept, as a journal does
    /// that was written by itself up to there.
    pub fn crash(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut state = self.state.lock();
        state.fuse = None;
        let unsynced = std::mem::take(&mut state.unsynced);
        let kept = random.random_range(0..=unsynced.len());
        for entry in unsynced.into_iter().take(kept) {
            entry.apply(&mut state.durable);
        }
        state.files = state.durable.clone();
        for content in state.files.values() {
            let mut content = content.lock();
            content.tear(&mut random);
        }
    }

    /// Changes one byte of what is on the platter.
    pub fn flip(&self, path: &Path, offset: usize) {
        let state = self.state.lock();
        let Some(content) = state.files.get(path) else {
            return;
        };
        content.lock().seen[offset] ^= 0x40;
    }
}

impl Entry {
    fn dir(&self) -> Option<&Path> {
        match self {
            Entry::Create(path, _) | Entry::Rename(_, path) | Entry::Remove(path) => path.parent(),
        }
    }

    fn apply(self, entries: &mut BTreeMap<PathBuf, Arc<Mutex<Content>>>) {
        match self {
            Entry::Create(path, content) => {
                entries.insert(path, content);
            }
            Entry::Rename(from, to) => {
                if let Some(content) = entries.remove(&from) {
                    entries.insert(to, content);
                }
            }
            Entry::Remove(path) => {
                entries.remove(&path);
            }
        }
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], start: usize) {
        let end = start + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.seen.len()));
            self.unsynced
                .entry(sector)
                .or_insert_with(|| self.seen[from..to].to_vec());
        }
        self.seen[start..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.synced_len = self.seen.len();
    }

    fn tear(&mut self, random: &mut StdRng) {
        for (sector, before) in std::mem::take(&mut self.unsynced) {
            let start = sector * SECTOR;
            if random.random_bool(0.5) && start < self.seen.len() {
                let end = (start + before.len()).min(self.seen.len());
                self.seen[start..end].copy_from_slice(&before[..end - start]);
            }
        }
        if random.random_bool(0.5) {
            self.seen.resize(self.synced_len, 0);
        }
        self.synced_len = self.seen.len();
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the machine lost power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        let length = |content: &Arc<Mutex<Content>>| content.lock().seen.len() as u64;
        self.files.values().map(length).sum()
    }

    fn reserve(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used() + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for FakeDisk {
    fn create(&self, path: &Path, size: u64, fill: Fill) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step()?;
        if state.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.reserve(size)?;
        let synced_len = if fill == Fill::Zeroes { size as usize } else { 0 };
        let content = Arc::new(Mutex::new(Content {
            seen: vec![0; size as usize],
            unsynced: BTreeMap::new(),
            synced_len,
        }));
        state.files.insert(path.to_owned(), content.clone());
        state
            .unsynced
            .push(Entry::Create(path.to_owned(), content.clone()));
        Ok(Arc::new(FakeFile {
            state: self.state.clone(),
            content,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let content = state.files.get(path).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Arc::new(FakeFile {
            state: self.state.clone(),
            content,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        state.unsynced.push(Entry::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.unsynced.push(Entry::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.unsynced.retain(|entry| entry.dir() != Some(dir));
        state.durable.retain(|path, _| path.parent() != Some(dir));
        let inside: Vec<_> = state
            .files
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir))
            .map(|(path, content)| (path.clone(), content.clone()))
            .collect();
        state.durable.extend(inside);
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.content.lock();
        let start = offset as usize;
        let bytes = content
            .seen
            .get(start..start + buffer.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let end = offset as usize + bytes.len();
        let grow = end.saturating_sub(self.content.lock().seen.len());
        state.reserve(grow as u64)?;
        self.content.lock().write(bytes, offset as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if !state.lies {
            self.content.lock().sync();
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().seen.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.state.lock().step()?;
        self.content.lock().seen.resize(len as usize, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn after_power_loss(seed: u64) -> Vec<String> {
        let disk = FakeDisk::new();
        let dir = Path::new("/d");
        disk.create(&dir.join("kept"), 4, Fill::Reserve).unwrap();
        disk.sync_dir(dir).unwrap();
        disk.create(&dir.join("a"), 4, Fill::Reserve).unwrap();
        disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
        disk.remove(&dir.join("kept")).unwrap();
        disk.crash(seed);
        disk.list(dir).unwrap()
    }

    /// Any beginning of what was done, and nothing else.
    #[test]
    fn synced_names_survive_and_of_others_a_beginning() {
        let left: BTreeSet<Vec<String>> = (0..100).map(after_power_loss).collect();
        let possible = [&["kept"][..], &["a", "kept"], &["b", "kept"], &["b"]];
        let possible = possible.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(left, BTreeSet::from(possible));
    }

    #[test]
    fn synced_bytes_survive() {
        let disk = FakeDisk::new();
        let dir = Path::new("/d");
        let kept = disk.create(&dir.join("kept"), 4, Fill::Reserve).unwrap();
        kept.write_at(b"abcd", 0).unwrap();
        kept.sync().unwrap();
        disk.sync_dir(dir).unwrap();
        disk.crash(1);
        assert_eq!(super::super::read_all(&disk, &dir.join("kept")).unwrap(), b"abcd");
    }

    #[test]
    fn a_full_disk_refuses_and_recovers() {
        let disk = FakeDisk::new();
        disk.set_capacity(Some(10));
        let path = Path::new("/d/a");
        assert!(super::super::is_full(
            &disk.create(path, 11, Fill::Zeroes).err().unwrap()
        ));
        disk.set_capacity(None);
        disk.create(path, 11, Fill::Zeroes).unwrap();
    }
}
