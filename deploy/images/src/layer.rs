//! One image layer: a tar of files, links and directories whose bytes depend on nothing but its entries.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

/// Every entry carries this time: an image packed twice from the same files is the same image.
const MTIME: u64 = 0;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    File { bytes: Vec<u8>, mode: u32 },
    Dir { mode: u32 },
    Symlink { target: String },
}

/// Entries by absolute path. Parents of an entry appear by themselves.
#[derive(Default)]
pub struct Layer(BTreeMap<String, Entry>);

impl Layer {
    /// Adds an entry; a path may be given once.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<()> {
        let inside = relative(path)?;
        if self.0.insert(inside.to_owned(), entry).is_some() {
            bail!("{path} is given twice");
        }
        Ok(())
    }

    /// The uncompressed tar.
    pub fn into_tar(self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let parents = self.missing_parents();
        let with_parents: BTreeMap<String, Entry> = parents
            .into_iter()
            .map(|path| (path, Entry::Dir { mode: 0o755 }))
            .chain(self.0)
            .collect();
        for (path, entry) in &with_parents {
            append(&mut tar, path, entry).with_context(|| format!("cannot pack /{path}"))?;
        }
        Ok(tar.into_inner()?)
    }

    fn missing_parents(&self) -> BTreeSet<String> {
        let ancestors = |path: &str| -> Vec<String> {
            path.match_indices('/')
                .map(|(at, _)| path[..at].to_owned())
                .collect()
        };
        self.0
            .keys()
            .flat_map(|path| ancestors(path))
            .filter(|dir| !self.0.contains_key(dir))
            .collect()
    }
}

/// The path as tar has it: no leading slash, nothing that climbs.
fn relative(path: &str) -> Result<&str> {
    let inside = path
        .strip_prefix('/')
        .with_context(|| format!("{path:?} must be absolute in the image"))?;
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !inside.split('/').all(plain) {
        bail!("{path:?} must be a plain path without empty, . or .. parts");
    }
    Ok(inside)
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(0);
    match entry {
        Entry::File { bytes, mode } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_slice())?;
        }
        Entry::Dir { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            tar.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Entry::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Entry {
        Entry::File {
            bytes: text.as_bytes().to_vec(),
            mode: 0o755,
        }
    }

    #[test]
    fn the_same_entries_give_the_same_bytes_in_any_order() {
        let pack = |paths: &[&str]| {
            let mut layer = Layer::default();
            for path in paths {
                layer.add(path, file(path)).expect("adds");
            }
            layer.into_tar().expect("packs")
        };
        assert_eq!(pack(&["/a", "/bin/b"]), pack(&["/bin/b", "/a"]));
    }

    #[test]
    fn parents_come_before_what_they_hold_and_keep_a_given_mode() {
        let mut layer = Layer::default();
        layer.add("/usr/bin/x", file("x")).expect("adds");
        layer.add("/tmp", Entry::Dir { mode: 0o1777 }).expect("adds");
        layer
            .add(
                "/tmp/y",
                Entry::Symlink {
                    target: "/usr/bin/x".into(),
                },
            )
            .expect("adds");
        let bytes = layer.into_tar().expect("packs");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let seen: Vec<(String, u32)> = archive
            .entries()
            .expect("reads")
            .map(|e| {
                let e = e.expect("entry");
                (
                    e.path().expect("path").display().to_string(),
                    e.header().mode().expect("mode"),
                )
            })
            .collect();
        let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tmp/", "tmp/y", "usr/", "usr/bin/", "usr/bin/x"]);
        assert_eq!(seen[0].1, 0o1777);
    }

    #[test]
    fn climbing_relative_and_double_paths_are_refused() {
        let mut layer = Layer::default();
        for bad in ["bin/x", "/a/../b", "//a", "/a/", "/"] {
            assert!(layer.add(bad, file("")).is_err(), "{bad} was taken");
        }
        layer.add("/a", file("1")).expect("adds");
        assert!(layer.add("/a", file("2")).is_err());
    }
}
