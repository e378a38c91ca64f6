//! Files: whole or not at all, with their modes, and never over a key.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Mode of keys and kubeconfigs.
pub const SECRET: u32 = 0o600;
/// Mode of certificates and public keys.
pub const PUBLIC: u32 = 0o644;
/// Mode of folders that this tool makes.
const DIRECTORY: u32 = 0o755;

/// Writes a file that must not exist yet.
pub fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let temporary = write_temporary(path, text, mode)?;
    // A hard link fails where a rename would replace.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary).with_context(|| temporary.display().to_string())?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(
                "{} exists and is not overwritten; move it away if it is not wanted",
                path.display()
            )
        }
        other => other.with_context(|| path.display().to_string()),
    }
}

/// Replaces a file; readers see the old or the new text.
pub fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let temporary = write_temporary(path, text, mode)?;
    std::fs::rename(&temporary, path).with_context(|| path.display().to_string())
}

fn write_temporary(path: &Path, text: &str, mode: u32) -> Result<PathBuf> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(directory)
        .with_context(|| directory.display().to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        // The umask may have taken bits away.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| temporary.display().to_string())?;
    Ok(temporary)
}

/// `dir/etcd/ca` -> `dir/etcd/ca.crt`; names may hold dots, so `with_extension` will not do.
pub fn crt(base: &Path) -> PathBuf {
    PathBuf::from(format!("{}.crt", base.display()))
}

pub fn key(base: &Path) -> PathBuf {
    PathBuf::from(format!("{}.key", base.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_never_overwritten_by_write_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/sa.key");
        write_new(&path, "one", SECRET).unwrap();
        assert!(
            write_new(&path, "two", SECRET)
                .unwrap_err()
                .to_string()
                .contains("exists and is not overwritten")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        replace(&path, "three", PUBLIC).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(std::fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
    }
}
