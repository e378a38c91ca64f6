//! Keeps each container's log within `containerLogMaxSize` and `containerLogMaxFiles`: rename, let the runtime reopen, compress the one
//! before. Names are upstream's: `0.log`, `0.log.20160102-150405`, `0.log.20160102-150405.gz`.

use std::io;
use std::path::{Path, PathBuf};

use cri::Runtime;

use super::super::runtime::pod_status::PodStatus;

#[derive(Debug, Clone, Copy)]
pub struct RotationPolicy {
    pub max_bytes: u64,
    pub max_files: usize,
}

/// Rotates the logs of one pod's running containers that have grown too large.
pub async fn rotate_pod(runtime: &dyn Runtime, status: &PodStatus, policy: RotationPolicy) {
    for container in status.running() {
        let path = Path::new(&container.log_path);
        let Ok(size) = std::fs::metadata(path).map(|m| m.len()) else {
            continue;
        };
        if size < policy.max_bytes {
            continue;
        }
        if let Err(error) = rotate(runtime, &container.id, path, policy).await {
            tracing::error!(path = %path.display(), container = %container.name, %error, "Failed to rotate log for container");
        }
    }
}

async fn rotate(runtime: &dyn Runtime, id: &str, path: &Path, policy: RotationPolicy) -> io::Result<()> {
    let old = rotated(path)?;
    // The current file and the one about to be made count.
    let keep = policy.max_files.saturating_sub(2);
    for surplus in old.iter().take(old.len().saturating_sub(keep)) {
        std::fs::remove_file(surplus)?;
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let target = PathBuf::from(format!("{}.{stamp}", path.display()));
    std::fs::rename(path, &target)?;
    if let Err(e) = runtime.reopen_container_log(id).await {
        // The runtime still writes to the renamed file: give it its name back and try another time.
        std::fs::rename(&target, path)?;
        return Err(io::Error::other(e.to_string()));
    }
    Ok(())
}

/// Oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect();
    found.sort();
    Ok(found)
}

/// A removed container's log and what was rotated of it.
pub fn remove_all(path: &Path) {
    for file in rotated(path)
        .unwrap_or_default()
        .into_iter()
        .chain([path.to_path_buf()])
    {
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %file.display(), %error, "Failed to remove container log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::fake::FakeRuntime;

    #[tokio::test]
    async fn the_oldest_go_and_the_runtime_is_told() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("0.log");
        std::fs::write(&path, "current").unwrap();
        for day in 1..=4 {
            std::fs::write(tmp.path().join(format!("0.log.2026010{day}-000000")), "").unwrap();
        }
        let runtime = FakeRuntime::new();
        rotate(
            &runtime,
            "id",
            &path,
            RotationPolicy {
                max_bytes: 1,
                max_files: 5,
            },
        )
        .await
        .unwrap();
        assert_eq!(rotated(&path).unwrap().len(), 4);
        assert!(!path.exists() && runtime.count("reopen_container_log") == 1);
        std::fs::write(&path, "again").unwrap();
        runtime.fail_next("reopen_container_log", tonic::Code::Unknown, "no");
        assert!(
            rotate(
                &runtime,
                "id",
                &path,
                RotationPolicy {
                    max_bytes: 1,
                    max_files: 5
                }
            )
            .await
            .is_err()
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "again");
    }
}
