//! A pod's volumes on disk: made before its containers, kept current while it lives, removed after it.
//!
//! Layout (upstream's): `pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`, sub-path binds under
//! `pods/<uid>/volume-subpaths/<volume>/<container>/<index>`. What a volume contains is decided in [`sources`], written by
//! [`atomic_writer`] through a directory handle ([`dir`]), and mounted by [`mounts`].

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};

use crate::objects::{ObjectError, Objects};
use crate::pod::{PodExt, PodUid};
use crate::resources::{self, Amounts};
use dir::Dir;

pub mod atomic_writer;
pub mod dir;
pub mod mounts;
mod sources;
pub mod subpath;

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    SetUp { volume: String, source: SetUpError },
}

#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPathType { path: String, wanted: &'static str },
    #[error("hostPath type check failed: {0} does not exist")]
    HostPathMissing(String),
    #[error("references non-existent {kind} key: {key}")]
    Key { kind: &'static str, key: String },
    #[error("unsupported downward API field {0:?}")]
    Downward(String),
    #[error("no volume plugin matched: {0}")]
    Unsupported(&'static str),
}

/// Where each volume of a pod lies on the host.
#[derive(Debug, Clone, Default)]
pub struct VolumeMap(HashMap<String, MountedVolume>);

#[derive(Debug, Clone)]
pub struct MountedVolume {
    pub path: PathBuf,
    /// The whole volume is read-only, whatever a mount says.
    pub read_only: bool,
}

impl VolumeMap {
    pub fn get(&self, name: &str) -> Option<&MountedVolume> {
        self.0.get(name)
    }
}

/// What the downward API needs beside the pod.
pub struct PodFacts<'a> {
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
    pub allocatable: &'a Amounts,
}

pub struct Volumes {
    /// `<root-dir>/pods`
    pods: PathBuf,
    objects: Arc<dyn Objects>,
    tokens: sources::TokenCache,
}

impl Volumes {
    pub fn new(root_dir: &Path, objects: Arc<dyn Objects>) -> Self {
        Self {
            pods: root_dir.join("pods"),
            objects,
            tokens: sources::TokenCache::default(),
        }
    }

    pub fn pod_dir(&self, uid: &PodUid) -> PathBuf {
        self.pods.join(uid.as_str())
    }

    fn volume_path(&self, uid: &PodUid, plugin: &str, name: &str) -> PathBuf {
        self.pod_dir(uid)
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(name)
    }

    /// The directories that every pod has.
    pub fn make_pod_dirs(&self, uid: &PodUid) -> io::Result<()> {
        let pod = self.pod_dir(uid);
        for (path, mode) in [
            (pod.clone(), 0o750),
            (pod.join("volumes"), 0o750),
            (pod.join("plugins"), 0o750),
        ] {
            Dir::create(&path, mode)?;
        }
        Ok(())
    }

    /// Makes what is missing and brings content up to date. Called at every sync of the pod; cheap when nothing changed.
    pub async fn set_up(&self, pod: &Pod, facts: &PodFacts<'_>) -> Result<VolumeMap, VolumeError> {
        let mut map = VolumeMap::default();
        for volume in pod.spec().volumes.iter().flatten() {
            let mounted = self.set_up_one(pod, volume, facts).await;
            let mounted = mounted.map_err(|source| VolumeError::SetUp {
                volume: volume.name.clone(),
                source,
            })?;
            map.0.insert(volume.name.clone(), mounted);
        }
        Ok(map)
    }

    async fn set_up_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        facts: &PodFacts<'_>,
    ) -> Result<MountedVolume, SetUpError> {
        if let Some(source) = &volume.host_path {
            check_host_path(source)?;
            return Ok(MountedVolume {
                path: source.path.clone().into(),
                read_only: false,
            });
        }
        if let Some(source) = &volume.empty_dir {
            return self.set_up_empty_dir(pod, &volume.name, source);
        }
        let Some(kind) = sources::AtomicSource::of(volume) else {
            return Err(SetUpError::Unsupported(unsupported_kind(volume)));
        };
        let payload =
            sources::payload(&kind, pod, volume, facts, self.objects.as_ref(), &self.tokens).await?;
        let path = self.volume_path(&pod.uid(), kind.plugin(), &volume.name);
        // Secrets and tokens never touch a disk.
        let dir = if kind.in_memory() {
            memory_dir(&path, None)?
        } else {
            Dir::create(&path, 0o777)?
        };
        let group = fs_group(pod);
        let prepare = |fresh: &Dir| group.map_or(Ok(()), |gid| fresh.give_to_group(gid, true));
        atomic_writer::write(&dir, &payload, &prepare)?;
        Ok(MountedVolume {
            path,
            read_only: true,
        })
    }

    fn set_up_empty_dir(
        &self,
        pod: &Pod,
        name: &str,
        source: &EmptyDirVolumeSource,
    ) -> Result<MountedVolume, SetUpError> {
        let path = self.volume_path(&pod.uid(), "empty-dir", name);
        let existed = path.exists();
        let dir = match source.medium.as_deref().unwrap_or_default() {
            "" => {
                if existed {
                    // Its mode and owner are the pod's to change.
                    return Ok(MountedVolume {
                        path,
                        read_only: false,
                    });
                }
                Dir::create(&path, 0o777)?
            }
            "Memory" if mounts::is_mount_point(&path) => {
                return Ok(MountedVolume {
                    path,
                    read_only: false,
                });
            }
            "Memory" => memory_dir(&path, memory_size(pod, source))?,
            _ => {
                return Err(SetUpError::Unsupported(
                    "emptyDir medium other than \"\" and \"Memory\"",
                ));
            }
        };
        if let Some(gid) = fs_group(pod) {
            dir.give_to_group(gid, false)?;
        }
        Ok(MountedVolume {
            path,
            read_only: false,
        })
    }

    /// Unmounts and removes everything of a pod whose containers are gone. Blocking: a large emptyDir takes its time.
    pub fn tear_down(&self, uid: &PodUid) -> io::Result<()> {
        let pod_dir = self.pod_dir(uid);
        for mount in mounts::below(&pod_dir)? {
            mounts::unmount(&mount)?;
        }
        self.tokens.forget(uid);
        match Dir::open(&self.pods) {
            Ok(pods) => pods.remove_tree(uid.as_str()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Pods that have a directory here: what an earlier kubelet left is found by it.
    pub fn pods_on_disk(&self) -> Vec<PodUid> {
        let Ok(entries) = std::fs::read_dir(&self.pods) else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|e| PodUid::new(&e.file_name().to_string_lossy()))
            .collect()
    }

    pub fn exists(&self, uid: &PodUid) -> bool {
        self.pod_dir(uid).exists()
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    u32::try_from(pod.spec().security_context.as_ref()?.fs_group?).ok()
}

fn memory_dir(path: &Path, size: Option<i64>) -> io::Result<Dir> {
    Dir::create(path, 0o777)?;
    if !mounts::is_mount_point(path) {
        let options = size.map_or("mode=0777".to_string(), |bytes| format!("mode=0777,size={bytes}"));
        mounts::mount_tmpfs(path, &options)?;
    }
    Dir::open(path)
}

/// The smaller of the volume's own limit and what the pod may use of memory.
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource) -> Option<i64> {
    let own = source
        .size_limit
        .as_ref()
        .map(resources::value)
        .filter(|n| *n > 0);
    let limited = pod
        .spec()
        .containers
        .iter()
        .all(|c| resources::limit(c, "memory").is_some());
    let pods = resources::pod_amounts(pod, resources::Which::Limits)
        .get("memory")
        .copied();
    let pods = pods.filter(|n| limited && *n > 0);
    own.into_iter().chain(pods).min()
}

fn check_host_path(source: &HostPathVolumeSource) -> Result<(), SetUpError> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    if source.path.split('/').any(|part| part == "..") {
        return Err(SetUpError::Io(io::Error::other(format!(
            "hostPath {} must not contain '..'",
            source.path
        ))));
    }
    match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if !path.exists() => {
            Dir::create(path, 0o755)?;
        }
        "FileOrCreate" if !path.exists() => {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        _ => {}
    }
    let Ok(meta) = std::fs::metadata(path) else {
        return Err(SetUpError::HostPathMissing(source.path.clone()));
    };
    let file = meta.file_type();
    let (holds, wanted) = match kind {
        "Directory" | "DirectoryOrCreate" => (file.is_dir(), "directory"),
        "File" | "FileOrCreate" => (file.is_file(), "file"),
        "Socket" => (file.is_socket(), "socket file"),
        "CharDevice" => (file.is_char_device(), "character device"),
        "BlockDevice" => (file.is_block_device(), "block device"),
        _ => (false, "known hostPath type"),
    };
    if holds {
        Ok(())
    } else {
        Err(SetUpError::HostPathType {
            path: source.path.clone(),
            wanted,
        })
    }
}

fn unsupported_kind(volume: &Volume) -> &'static str {
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        "persistent volume claims are not mounted by this kubelet yet"
    } else if volume.csi.is_some() {
        "CSI volumes are not mounted by this kubelet yet"
    } else if volume.git_repo.is_some() {
        "gitRepo volumes are disabled: they ran the repository's hooks as root on the node"
    } else if volume.image.is_some() {
        "image volumes are not mounted by this kubelet yet"
    } else {
        "only emptyDir, hostPath, configMap, secret, projected and downwardAPI volumes are known"
    }
}

#[cfg(test)]
#[path = "volumes/tests.rs"]
mod tests;
