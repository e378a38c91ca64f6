//! Which version this is, as `/version`, `--version` and `kubernetes_build_info` say it.

use serde::Serialize;

pub const GIT_VERSION: &str = "v1.36.2+ferrokube";
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
/// Kubernetes gates features on this version, so it must be one that etcd released.
pub const ETCD_VERSION: &str = "3.6.8";

/// The body of `/version`.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    pub major: &'static str,
    pub minor: &'static str,
    pub emulation_major: &'static str,
    pub emulation_minor: &'static str,
    pub min_compatibility_major: &'static str,
    pub min_compatibility_minor: &'static str,
    pub git_version: &'static str,
    pub git_commit: &'static str,
    pub git_tree_state: &'static str,
    pub build_date: &'static str,
    pub go_version: &'static str,
    pub compiler: &'static str,
    pub platform: &'static str,
}

/// Clients parse `goVersion` and `compiler` as free text; ours say what really built the binary.
pub fn info() -> VersionInfo {
    VersionInfo {
        major: MAJOR,
        minor: MINOR,
        emulation_major: MAJOR,
        emulation_minor: MINOR,
        min_compatibility_major: MAJOR,
        min_compatibility_minor: "35",
        git_version: GIT_VERSION,
        git_commit: option_env!("FERROKUBE_COMMIT").unwrap_or("0000000000000000000000000000000000000000"),
        git_tree_state: "clean",
        build_date: option_env!("FERROKUBE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        go_version: "rust",
        compiler: "rustc",
        platform: PLATFORM,
    }
}

#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "linux/amd64";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "linux/arm64";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const PLATFORM: &str = "linux/unknown";
