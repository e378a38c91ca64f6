//! Part of a volume for one container. The target is opened once, beneath the volume, and that very inode is bound to a path
//! that only the kubelet can write; the runtime never resolves anything that a container could have changed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use super::dir::Dir;
use super::mounts;

/// Returns the host path that the runtime mounts.
pub fn prepare(volume: &Path, subpath: &str, place: &Place<'_>) -> io::Result<PathBuf> {
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(io::Error::other(format!(
            "unable to provision subPath {subpath:?}: must be relative without '..'"
        )));
    }
    let dir = Dir::open(volume)?;
    let source = open_or_make(&dir, Path::new(subpath))?;
    let target = place.path();
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode) == FileType::Directory;
    if mounts::is_mount_point(&target) {
        // Of an earlier run of this container: what it bound may have been replaced since.
        mounts::unmount(&target)?;
    }
    make_target(&target, is_dir)?;
    mounts::bind_fd(&source, &target)?;
    Ok(target)
}

pub struct Place<'a> {
    pub pod_dir: &'a Path,
    pub volume: &'a str,
    pub container: &'a str,
    pub index: usize,
}

impl Place<'_> {
    fn path(&self) -> PathBuf {
        self.pod_dir
            .join("volume-subpaths")
            .join(self.volume)
            .join(self.container)
            .join(self.index.to_string())
    }
}

fn open_or_make(dir: &Dir, subpath: &Path) -> io::Result<OwnedFd> {
    match dir.open_beneath(subpath, OFlags::PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mode = rustix::fs::fstat(dir.fd())?.st_mode & 0o777;
            dir.make_dirs(subpath, mode)?;
            dir.open_beneath(subpath, OFlags::PATH)
        }
        other => other,
    }
}

fn make_target(target: &Path, is_dir: bool) -> io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    if target.is_dir() != is_dir && target.exists() {
        if is_dir {
            std::fs::remove_file(target)?
        } else {
            std::fs::remove_dir(target)?
        }
    }
    if is_dir {
        return std::fs::create_dir_all(target);
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target)
        .map(drop)
}
