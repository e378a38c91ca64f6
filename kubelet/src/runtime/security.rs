//! Effective security contexts: the container's settings over the pod's, in the runtime's words.

use std::path::Path;

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

use crate::pod::PodExt;

#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RunAsUserIsRoot { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    NonNumericUser {
        user: String,
        pod: String,
        container: String,
    },
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    NoLocalhostProfile,
    #[error("localhostProfile {0:?} must be a relative path below the seccomp profile directory")]
    ProfileEscapes(String),
    #[error("unsupported supplementalGroupsPolicy: {0}")]
    GroupsPolicy(String),
}

/// What the image says about its user.
#[derive(Debug, Clone, Default)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

pub fn verify_run_as_non_root(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
) -> Result<(), SecurityError> {
    let own = container.security_context.as_ref();
    let pods = pod.spec().security_context.as_ref();
    let non_root = own
        .and_then(|s| s.run_as_non_root)
        .or_else(|| pods.and_then(|s| s.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let (described, name) = (pod.described(), container.name.clone());
    match run_as_user(pod, container) {
        Some(0) => {
            return Err(SecurityError::RunAsUserIsRoot {
                pod: described,
                container: name,
            });
        }
        Some(_) => return Ok(()),
        None => {}
    }
    match image {
        ImageUser { uid: Some(0), .. } => Err(SecurityError::ImageIsRoot {
            pod: described,
            container: name,
        }),
        ImageUser {
            uid: None,
            name: user,
        } if !user.is_empty() => Err(SecurityError::NonNumericUser {
            user: user.clone(),
            pod: described,
            container: name,
        }),
        _ => Ok(()),
    }
}

fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|s| s.run_as_user);
    own.or_else(|| pod.spec().security_context.as_ref().and_then(|s| s.run_as_user))
}

fn run_as_group(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|s| s.run_as_group);
    own.or_else(|| pod.spec().security_context.as_ref().and_then(|s| s.run_as_group))
}

pub fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    use v1::NamespaceMode as Mode;
    let spec = pod.spec();
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => Mode::Node,
        (_, Some(true)) => Mode::Pod,
        _ => Mode::Container,
    };
    v1::NamespaceOption {
        network: if pod.is_host_network() {
            Mode::Node
        } else {
            Mode::Pod
        } as i32,
        pid: pid as i32,
        ipc: if spec.host_ipc == Some(true) {
            Mode::Node
        } else {
            Mode::Pod
        } as i32,
        ..Default::default()
    }
}

pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|s| s.privileged) == Some(true)
}

pub fn has_privileged_container(pod: &Pod) -> bool {
    pod.spec()
        .containers
        .iter()
        .chain(pod.init_containers())
        .any(is_privileged)
}

fn int64(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

fn supplemental_groups(pods: Option<&PodSecurityContext>) -> Vec<i64> {
    let fs_group = pods.and_then(|s| s.fs_group);
    let listed = pods
        .and_then(|s| s.supplemental_groups.clone())
        .unwrap_or_default();
    fs_group.into_iter().chain(listed).collect()
}

fn groups_policy(pods: Option<&PodSecurityContext>) -> Result<i32, SecurityError> {
    match pods.and_then(|s| s.supplemental_groups_policy.as_deref()) {
        None | Some("Merge") => Ok(v1::SupplementalGroupsPolicy::Merge as i32),
        Some("Strict") => Ok(v1::SupplementalGroupsPolicy::Strict as i32),
        Some(other) => Err(SecurityError::GroupsPolicy(other.into())),
    }
}

pub fn sandbox_context(pod: &Pod) -> Result<v1::LinuxSandboxSecurityContext, SecurityError> {
    let pods = pod.spec().security_context.as_ref();
    Ok(v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        privileged: has_privileged_container(pod),
        // The sandbox itself needs nothing: the tightest profile for it, whatever its containers ask for.
        seccomp: Some(profile(
            v1::security_profile::ProfileType::RuntimeDefault,
            String::new(),
        )),
        run_as_user: int64(pods.and_then(|s| s.run_as_user)),
        run_as_group: int64(pods.and_then(|s| s.run_as_group)),
        supplemental_groups: supplemental_groups(pods),
        supplemental_groups_policy: groups_policy(pods)?,
        selinux_options: pods.and_then(|s| s.se_linux_options.as_ref()).map(selinux),
        ..Default::default()
    })
}

fn selinux(options: &k8s_openapi::api::core::v1::SELinuxOptions) -> v1::SeLinuxOption {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    v1::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn profile(kind: v1::security_profile::ProfileType, localhost_ref: String) -> v1::SecurityProfile {
    v1::SecurityProfile {
        profile_type: kind as i32,
        localhost_ref,
    }
}

pub struct SecurityDefaults<'a> {
    pub seccomp_default: bool,
    pub seccomp_root: &'a Path,
}

pub fn container_context(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    defaults: &SecurityDefaults<'_>,
) -> Result<v1::LinuxContainerSecurityContext, SecurityError> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let pods = pod.spec().security_context.as_ref();
    let user = run_as_user(pod, container);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| v1::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.privileged == Some(true),
        namespace_options: Some(namespaces(pod)),
        selinux_options: own
            .se_linux_options
            .as_ref()
            .or(pods.and_then(|s| s.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: int64(user.or(image.uid)),
        run_as_username: if user.is_some() {
            String::new()
        } else {
            image.name.clone()
        },
        run_as_group: int64(run_as_group(pod, container)),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(pods),
        supplemental_groups_policy: groups_policy(pods)?,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { masked_paths() },
        readonly_paths: if unmasked {
            Vec::new()
        } else {
            READONLY_PATHS.map(String::from).to_vec()
        },
        seccomp: Some(seccomp(
            own.seccomp_profile
                .as_ref()
                .or(pods.and_then(|s| s.seccomp_profile.as_ref())),
            defaults,
        )?),
        apparmor: apparmor(own, pods),
        ..Default::default()
    })
}

fn seccomp(
    wanted: Option<&SeccompProfile>,
    defaults: &SecurityDefaults<'_>,
) -> Result<v1::SecurityProfile, SecurityError> {
    use v1::security_profile::ProfileType as Type;
    let Some(wanted) = wanted else {
        let kind = if defaults.seccomp_default {
            Type::RuntimeDefault
        } else {
            Type::Unconfined
        };
        return Ok(profile(kind, String::new()));
    };
    match wanted.type_.as_str() {
        "RuntimeDefault" => Ok(profile(Type::RuntimeDefault, String::new())),
        "Localhost" => {
            let name = wanted.localhost_profile.as_deref().filter(|n| !n.is_empty());
            let name = name.ok_or(SecurityError::NoLocalhostProfile)?;
            if Path::new(name).is_absolute() || name.split('/').any(|part| part == "..") {
                return Err(SecurityError::ProfileEscapes(name.into()));
            }
            Ok(profile(
                Type::Localhost,
                defaults.seccomp_root.join(name).display().to_string(),
            ))
        }
        _ => Ok(profile(Type::Unconfined, String::new())),
    }
}

fn apparmor(own: &SecurityContext, pods: Option<&PodSecurityContext>) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType as Type;
    let wanted = own
        .app_armor_profile
        .as_ref()
        .or_else(|| pods?.app_armor_profile.as_ref())?;
    Some(match wanted.type_.as_str() {
        "RuntimeDefault" => profile(Type::RuntimeDefault, String::new()),
        "Localhost" => profile(
            Type::Localhost,
            wanted.localhost_profile.clone().unwrap_or_default(),
        ),
        _ => profile(Type::Unconfined, String::new()),
    })
}

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The fixed ones and, where the machine has it, each CPU's thermal throttle counters, which leak what neighbours do.
fn masked_paths() -> Vec<String> {
    static PATHS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let throttle = (0..cpus).map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
        let present = throttle.filter(|p| Path::new(p).exists());
        MASKED_PATHS
            .map(String::from)
            .into_iter()
            .chain(present)
            .collect()
    });
    PATHS.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(pod_context: serde_json::Value, context: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": context}]}}))
        .unwrap()
    }

    fn context(p: &Pod) -> Result<v1::LinuxContainerSecurityContext, SecurityError> {
        let defaults = SecurityDefaults {
            seccomp_default: false,
            seccomp_root: Path::new("/var/lib/kubelet/seccomp"),
        };
        container_context(p, &p.spec().containers[0], &ImageUser::default(), &defaults)
    }

    #[test]
    fn the_containers_settings_beat_the_pods() {
        let p = pod(
            json!({"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3]}),
            json!({"runAsUser": 5}),
        );
        let c = context(&p).unwrap();
        assert_eq!(c.run_as_user.unwrap().value, 5);
        assert_eq!(c.supplemental_groups, [2000, 3]);
        assert_eq!(sandbox_context(&p).unwrap().run_as_user.unwrap().value, 1000);
    }

    #[test]
    fn run_as_non_root_is_enforced_with_upstreams_texts() {
        let p = pod(json!({"runAsNonRoot": true}), json!({}));
        let c = &p.spec().containers[0];
        let root = ImageUser {
            uid: Some(0),
            name: String::new(),
        };
        assert_eq!(
            verify_run_as_non_root(&p, c, &root).unwrap_err().to_string(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        let named = ImageUser {
            uid: None,
            name: "www".into(),
        };
        assert!(
            verify_run_as_non_root(&p, c, &named)
                .unwrap_err()
                .to_string()
                .contains("non-numeric user (www)")
        );
        let p = pod(json!({"runAsNonRoot": true}), json!({"runAsUser": 0}));
        assert!(verify_run_as_non_root(&p, &p.spec().containers[0], &named).is_err());
        let p = pod(json!({"runAsNonRoot": true}), json!({"runAsUser": 7}));
        assert!(verify_run_as_non_root(&p, &p.spec().containers[0], &root).is_ok());
    }

    #[test]
    fn an_empty_or_escaping_localhost_profile_is_refused() {
        let with = |name: serde_json::Value| {
            pod(
                json!({}),
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}}),
            )
        };
        assert!(context(&with(json!(""))).is_err());
        assert!(context(&with(json!(null))).is_err());
        assert!(context(&with(json!("../../etc/x"))).is_err());
        let seccomp = context(&with(json!("a.json"))).unwrap().seccomp.unwrap();
        assert_eq!(seccomp.localhost_ref, "/var/lib/kubelet/seccomp/a.json");
    }

    #[test]
    fn namespaces_follow_the_spec() {
        let mut p = pod(json!({}), json!({}));
        assert_eq!(namespaces(&p).pid, v1::NamespaceMode::Container as i32);
        p.spec.as_mut().unwrap().share_process_namespace = Some(true);
        p.spec.as_mut().unwrap().host_network = Some(true);
        let n = namespaces(&p);
        assert_eq!(
            (n.pid, n.network),
            (v1::NamespaceMode::Pod as i32, v1::NamespaceMode::Node as i32)
        );
    }
}
