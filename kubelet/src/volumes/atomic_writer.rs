//! Files that change together. A volume's content lies in a directory named by the time of writing; `..data` points to the current one and
//! is swapped by one rename, so that a reader sees the old set or the new one, never a mixture. The layout is upstream's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::dir::Dir;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    pub data: Vec<u8>,
    pub mode: u32,
    pub owner: Option<u32>,
}

/// Relative path to content.
pub type Payload = BTreeMap<String, Projection>;

/// True when something was written. `prepare` sees the new directory before it becomes visible.
pub fn write(dir: &Dir, payload: &Payload, prepare: &dyn Fn(&Dir) -> io::Result<()>) -> io::Result<bool> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = dir.read_link(DATA).ok().map(|p| p.display().to_string());
    if old.as_deref().is_some_and(|name| is_current(dir, name, payload)) {
        link_names(dir, payload)?;
        return Ok(false);
    }
    let name = timestamp_name();
    dir.make_dirs(Path::new(&name), 0o755)?;
    let fresh = dir.subdir(Path::new(&name))?;
    for (path, file) in payload {
        if let Some(parent) = Path::new(path).parent().filter(|p| !p.as_os_str().is_empty()) {
            fresh.make_dirs(parent, 0o755)?;
        }
        fresh.write_new(Path::new(path), &file.data, file.mode, file.owner)?;
    }
    prepare(&fresh)?;
    link_names(dir, payload)?;
    dir.unlink(NEW_DATA)?;
    dir.symlink(Path::new(&name), NEW_DATA)?;
    dir.rename(NEW_DATA, DATA)?;
    remove_stale(dir, payload, &name)?;
    Ok(true)
}

fn validate(path: &str) -> io::Result<()> {
    let bad = |why: &str| Err(io::Error::other(format!("invalid path {path:?}: {why}")));
    if path.is_empty() || path.len() > MAX_PATH {
        return bad("must be 1 to 4096 bytes");
    }
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) if part.len() <= MAX_NAME => {}
            Component::Normal(_) => return bad("a name must not be longer than 255 bytes"),
            _ => return bad("must be relative and must not contain '..'"),
        }
    }
    if path.starts_with("..") {
        return bad("must not start with '..'");
    }
    Ok(())
}

/// A pod's spec does not change: modes and owners are what they were when the same content was written.
fn is_current(dir: &Dir, name: &str, payload: &Payload) -> bool {
    let Ok(current) = dir.subdir(Path::new(name)) else {
        return false;
    };
    let mut on_disk = Vec::new();
    if files(&current, Path::new(""), &mut on_disk).is_err() || on_disk.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let max = file.data.len() as u64 + 1;
        current
            .read(Path::new(path), max)
            .is_ok_and(|bytes| bytes == file.data)
    })
}

fn files(dir: &Dir, prefix: &Path, out: &mut Vec<PathBuf>) -> io::Result<()> {
    for name in dir.entries()? {
        let path = prefix.join(&name);
        match dir.subdir(Path::new(&name)) {
            Ok(child) => files(&child, &path, out)?,
            Err(_) => out.push(path),
        }
    }
    Ok(())
}

fn timestamp_name() -> String {
    let stamp = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    format!("..{stamp}.{}", rand::random::<u32>())
}

fn first_component(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn link_names(dir: &Dir, payload: &Payload) -> io::Result<()> {
    for path in payload.keys() {
        let name = first_component(path);
        if dir.read_link(name).is_err() {
            dir.symlink(&Path::new(DATA).join(name), name)?;
        }
    }
    Ok(())
}

fn remove_stale(dir: &Dir, payload: &Payload, current: &str) -> io::Result<()> {
    let wanted: std::collections::HashSet<&str> = payload.keys().map(|p| first_component(p)).collect();
    for name in dir.entries()? {
        if name.starts_with("..") {
            if name != DATA && name != current {
                dir.remove_tree(&name)?;
            }
        } else if !wanted.contains(name.as_str()) && dir.read_link(&name).is_ok() {
            dir.unlink(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| {
                (
                    p.to_string(),
                    Projection {
                        data: d.as_bytes().to_vec(),
                        mode: 0o640,
                        owner: None,
                    },
                )
            })
            .collect()
    }

    fn put(dir: &Dir, files: &[(&str, &str)]) -> bool {
        write(dir, &payload(files), &|_| Ok(())).unwrap()
    }

    #[test]
    fn a_set_of_files_is_replaced_by_one_swap() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path()).unwrap();
        assert!(put(&dir, &[("a", "1"), ("d/e", "2")]));
        assert_eq!(std::fs::read_to_string(tmp.path().join("a")).unwrap(), "1");
        assert_eq!(
            std::fs::read_link(tmp.path().join("d")).unwrap(),
            Path::new("..data/d")
        );
        assert_eq!(
            std::fs::metadata(tmp.path().join("a")).unwrap().mode() & 0o777,
            0o640
        );
        let first = std::fs::read_link(tmp.path().join("..data")).unwrap();
        assert!(
            !put(&dir, &[("a", "1"), ("d/e", "2")]),
            "the same content is not written again"
        );
        assert!(put(&dir, &[("a", "new")]));
        assert_eq!(std::fs::read_to_string(tmp.path().join("a")).unwrap(), "new");
        assert!(!tmp.path().join("d").exists() && !tmp.path().join(first).exists());
    }

    #[test]
    fn what_a_crash_left_behind_is_removed_by_the_next_write() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("..2020_01_01_00_00_00.1")).unwrap();
        std::os::unix::fs::symlink("nowhere", tmp.path().join("..data_tmp")).unwrap();
        let dir = Dir::open(tmp.path()).unwrap();
        assert!(put(&dir, &[("a", "1")]));
        assert_eq!(dir.entries().unwrap().len(), 3);
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path()).unwrap();
        for bad in ["../x", "/x", "a/../b", "..x", ""] {
            assert!(write(&dir, &payload(&[(bad, "")]), &|_| Ok(())).is_err(), "{bad}");
        }
    }
}
