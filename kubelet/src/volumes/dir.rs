//! A directory by handle. Every path below it is resolved by the kernel with RESOLVE_BENEATH: whatever a container puts there
//! in the meantime (symlinks, `..`, swapped directories), nothing outside is ever reached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

/// Deeper trees are refused rather than followed into stack exhaustion.
const MAX_DEPTH: usize = 256;

pub struct Dir {
    fd: OwnedFd,
    /// For messages only; never used to resolve anything.
    shown: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// `openat2` may be asked again by the kernel when something is renamed below its feet.
const MAX_RETRIES: usize = 64;

impl Dir {
    /// Opens a path that the kubelet owns all the way down.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::openat(CWD, path, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| at(path, e))?;
        Ok(Self {
            fd,
            shown: path.into(),
        })
    }

    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        std::fs::create_dir_all(path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        let dir = Self::open(path)?;
        // The umask must not decide over what containers see.
        rustix::fs::fchmod(&dir.fd, Mode::from_raw_mode(mode)).map_err(|e| at(path, e))?;
        Ok(dir)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn shown(&self) -> &Path {
        &self.shown
    }

    fn at(&self, path: &Path, e: rustix::io::Errno) -> io::Error {
        at(&self.shown.join(path), e)
    }

    /// Follows symlinks that stay inside; anything that leads out is EXDEV.
    pub fn open_beneath(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..MAX_RETRIES {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return other.map_err(|e| self.at(path, e)),
            }
        }
        Err(self.at(path, rustix::io::Errno::AGAIN))
    }

    pub fn subdir(&self, path: &Path) -> io::Result<Dir> {
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Dir {
            fd,
            shown: self.shown.join(path),
        })
    }

    /// Makes what is missing of `path`, one step at a time, each relative to the handle of the one before.
    pub fn make_dirs(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        let mut parent = self.subdir(Path::new("."))?;
        for component in relative_components(path)? {
            so_far.push(component);
            parent = match parent.subdir(Path::new(component)) {
                Ok(dir) => dir,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    parent.make_dir(component, mode)?;
                    parent.subdir(Path::new(component))?
                }
                // A symlink from here to elsewhere inside is resolved from the top.
                Err(_) => self.subdir(&so_far)?,
            };
        }
        Ok(())
    }

    fn make_dir(&self, name: &std::ffi::OsStr, mode: u32) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            Err(e) => return Err(self.at(Path::new(name), e)),
        }
        let made = self.subdir(Path::new(name))?;
        rustix::fs::fchmod(&made.fd, Mode::from_raw_mode(mode)).map_err(|e| self.at(Path::new(name), e))
    }

    /// A new file; an existing one of that name is an error.
    pub fn write_new(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<u32>) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let parent = if parent.as_os_str().is_empty() {
            self.subdir(Path::new("."))?
        } else {
            self.subdir(parent)?
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::from_raw_mode(mode))
            .map_err(|e| self.at(path, e))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| self.at(path, e))?;
        if let Some(uid) = owner {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), None).map_err(|e| self.at(path, e))?;
        }
        let mut file = std::fs::File::from(fd);
        io::Write::write_all(&mut file, bytes)
    }

    pub fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let fd = self.open_beneath(path, OFlags::RDONLY)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::from(fd), max), &mut bytes)?;
        Ok(bytes)
    }

    pub fn symlink(&self, target: &Path, name: &str) -> io::Result<()> {
        rustix::fs::symlinkat(target, &self.fd, name).map_err(|e| self.at(Path::new(name), e))
    }

    pub fn read_link(&self, name: &str) -> io::Result<PathBuf> {
        let target =
            rustix::fs::readlinkat(&self.fd, name, Vec::new()).map_err(|e| self.at(Path::new(name), e))?;
        Ok(PathBuf::from(
            String::from_utf8_lossy(target.as_bytes()).into_owned(),
        ))
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to).map_err(|e| self.at(Path::new(to), e))
    }

    pub fn unlink(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(self.at(Path::new(name), e)),
        }
    }

    pub fn entries(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes a child and all below it. Stops with an error at a file system that is still mounted there: its contents are not ours.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        self.remove_tree_at_depth(name, 0)
    }

    fn remove_tree_at_depth(&self, name: &str, depth: usize) -> io::Result<()> {
        let stat = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(e) => return Err(self.at(Path::new(name), e)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.unlink(name);
        }
        let own = rustix::fs::fstat(&self.fd)?;
        if own.st_dev != stat.st_dev || depth > MAX_DEPTH {
            return Err(self.at(Path::new(name), rustix::io::Errno::BUSY));
        }
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty())
            .map_err(|e| self.at(Path::new(name), e))?;
        let child = Dir {
            fd,
            shown: self.shown.join(name),
        };
        for entry in child.entries()? {
            child.remove_tree_at_depth(&entry, depth + 1)?;
        }
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(self.at(Path::new(name), e)),
        }
    }

    /// Gives everything below to the group, as `fsGroup` asks: readable (and writable unless `read_only`), directories setgid.
    pub fn give_to_group(&self, gid: u32, read_only: bool) -> io::Result<()> {
        self.give_to_group_at_depth(gid, read_only, 0)
    }

    fn give_to_group_at_depth(&self, gid: u32, read_only: bool, depth: usize) -> io::Result<()> {
        let group = Some(Gid::from_raw(gid));
        let rights = if read_only { 0o440 } else { 0o660 };
        for name in self.entries()? {
            let stat = rustix::fs::statat(&self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < MAX_DEPTH => {
                    let fd = rustix::fs::openat(&self.fd, name.as_str(), DIRECTORY, Mode::empty())?;
                    let child = Dir {
                        fd,
                        shown: self.shown.join(&name),
                    };
                    child.give_to_group_at_depth(gid, read_only, depth + 1)?;
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                    let fd = rustix::fs::openat(&self.fd, name.as_str(), flags, Mode::empty())?;
                    rustix::fs::fchown(&fd, None, group)?;
                    rustix::fs::fchmod(&fd, Mode::from_raw_mode((stat.st_mode & 0o7777) | rights))?;
                }
                _ => rustix::fs::chownat(&self.fd, name.as_str(), None, group, AtFlags::SYMLINK_NOFOLLOW)?,
            }
        }
        let stat = rustix::fs::fstat(&self.fd)?;
        rustix::fs::fchown(&self.fd, None, group)?;
        let mode = (stat.st_mode & 0o7777) | rights | 0o2110;
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?;
        Ok(())
    }
}

fn at(path: &Path, e: rustix::io::Errno) -> io::Error {
    let e = io::Error::from(e);
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn split(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other(format!("{} names no file", path.display())))?;
    Ok((path.parent().unwrap_or(Path::new("")), name))
}

fn relative_components(path: &Path) -> io::Result<Vec<&std::ffi::OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return Err(io::Error::other(format!("{} leaves its volume", path.display()))),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_path_that_leads_out_is_not_opened() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("volume");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(tmp.path().join("secret"), "s").unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink(tmp.path().join("secret"), root.join("absolute")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        std::fs::write(root.join("inside"), "i").unwrap();
        symlink("inside", root.join("link")).unwrap();
        let dir = Dir::open(&root).unwrap();
        for bad in ["relative", "absolute", "slash", "../secret", "slash/etc/passwd"] {
            assert!(dir.read(Path::new(bad), 10).is_err(), "{bad}");
        }
        assert_eq!(dir.read(Path::new("link"), 10).unwrap(), b"i");
        assert!(dir.make_dirs(Path::new("slash/tmp/x"), 0o755).is_err());
        assert!(dir.make_dirs(Path::new("../x"), 0o755).is_err());
    }

    /// CVE-2021-25741: a container swaps a directory for a symlink between check and use.
    #[test]
    fn a_directory_swapped_for_a_symlink_under_race_never_leads_out() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("volume");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::create_dir_all(tmp.path().join("host")).unwrap();
        std::fs::write(root.join("a/f"), "inside").unwrap();
        std::fs::write(tmp.path().join("host/f"), "outside").unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (flag, volume, host) = (stop.clone(), root.clone(), tmp.path().join("host"));
        let attacker = std::thread::spawn(move || {
            while !flag.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::rename(volume.join("a"), volume.join("b"));
                let _ = symlink(&host, volume.join("a"));
                let _ = std::fs::remove_file(volume.join("a"));
                let _ = std::fs::rename(volume.join("b"), volume.join("a"));
            }
        });
        let dir = Dir::open(&root).unwrap();
        for _ in 0..5000 {
            if let Ok(bytes) = dir.read(Path::new("a/f"), 100) {
                assert_eq!(bytes, b"inside");
            }
            let _ = dir.make_dirs(Path::new("a/made"), 0o755);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        attacker.join().unwrap();
        assert!(!tmp.path().join("host/made").exists());
    }

    #[test]
    fn remove_tree_does_not_follow_symlinks() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("gone/deep")).unwrap();
        std::fs::create_dir(tmp.path().join("kept")).unwrap();
        std::fs::write(tmp.path().join("kept/f"), "").unwrap();
        symlink("../../kept", tmp.path().join("gone/deep/link")).unwrap();
        Dir::open(tmp.path()).unwrap().remove_tree("gone").unwrap();
        assert!(!tmp.path().join("gone").exists() && tmp.path().join("kept/f").exists());
    }

    #[test]
    fn a_group_gets_files_and_setgid_directories() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("d")).unwrap();
        std::fs::write(tmp.path().join("d/f"), "").unwrap();
        std::fs::set_permissions(tmp.path().join("d/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let gid = rustix::process::getgid().as_raw();
        Dir::open(tmp.path()).unwrap().give_to_group(gid, true).unwrap();
        assert_eq!(
            std::fs::metadata(tmp.path().join("d/f")).unwrap().mode() & 0o7777,
            0o640
        );
        assert_ne!(
            std::fs::metadata(tmp.path().join("d")).unwrap().mode() & 0o2000,
            0
        );
    }
}
