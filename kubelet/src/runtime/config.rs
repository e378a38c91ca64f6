//! Sandbox and container configurations in the runtime's words.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::env::{Env, expand};
use super::labels;
use super::security::{self, ImageUser, SecurityDefaults, SecurityError};
use crate::network::{dns, hosts};
use crate::pod::PodExt;
use crate::resources;
use crate::volumes::{VolumeMap, subpath};

/// What does not change between pods.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub seccomp_default: bool,
    pub cpu_cfs_quota: bool,
    pub cpu_cfs_quota_period_us: i64,
    pub memory_capacity: i64,
    pub dns: dns::DnsSettings,
    /// cgroup v2 with `singleProcessOOMKill: false`: the kernel kills a container as a whole.
    pub group_oom_kill: bool,
    pub has_swap: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Hostname(String),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Env(#[from] super::env::EnvError),
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    Volume { volume: String, container: String },
    #[error(
        "failed to create subPath directory for volumeMount {volume:?} of container {container:?}: {source}"
    )]
    SubPath {
        volume: String,
        container: String,
        source: std::io::Error,
    },
    #[error("{0}")]
    Runtime(String),
}

pub fn pod_logs_dir(settings: &RuntimeSettings, pod: &Pod) -> PathBuf {
    settings
        .pod_logs_dir
        .join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

/// The second value is a warning for an event.
pub fn sandbox_config(
    pod: &Pod,
    settings: &RuntimeSettings,
    attempt: u32,
    cgroup_parent: &str,
) -> Result<(v1::PodSandboxConfig, Option<String>), ConfigError> {
    let (dns, warning) = dns::pod_dns(pod, &settings.dns)?;
    let hostname = if pod.is_host_network() {
        String::new()
    } else {
        let (name, domain) =
            hosts::hostname_and_domain(pod, &settings.dns.cluster_domain).map_err(ConfigError::Hostname)?;
        hosts::kernel_hostname(pod, &name, &domain).map_err(ConfigError::Hostname)?
    };
    let sysctls = pod
        .spec()
        .security_context
        .iter()
        .flat_map(|s| s.sysctls.iter().flatten());
    let linux = v1::LinuxPodSandboxConfig {
        cgroup_parent: cgroup_parent.to_string(),
        security_context: Some(security::sandbox_context(pod)?),
        // Both spellings are allowed in the API, the kernel's file names know one.
        sysctls: sysctls
            .map(|s| (s.name.replace('/', "."), s.value.clone()))
            .collect(),
        ..Default::default()
    };
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name().into(),
            namespace: pod.namespace().into(),
            uid: pod.uid().to_string(),
            attempt,
        }),
        hostname,
        log_directory: pod_logs_dir(settings, pod).display().to_string(),
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(linux),
        windows: None,
    };
    Ok((config, warning))
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let ports = pod
        .spec()
        .containers
        .iter()
        .chain(pod.init_containers())
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .map(|p| v1::PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            } as i32,
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or(0),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// Everything of one start of one container.
pub struct Start<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub restart_count: u32,
    /// What the runtime calls the image.
    pub image_ref: &'a str,
    pub image_user: &'a ImageUser,
    pub pod_ips: &'a [String],
    pub env: Env,
    pub volumes: &'a VolumeMap,
    /// For an ephemeral container: the id of the one whose processes it sees.
    pub target: Option<&'a str>,
}

pub fn container_config(
    start: Start<'_>,
    settings: &RuntimeSettings,
) -> Result<v1::ContainerConfig, ConfigError> {
    let (pod, container) = (start.pod, start.container);
    security::verify_run_as_non_root(pod, container, start.image_user)?;
    let mounts = mounts(&start, settings)?;
    let lookup = |name: &str| start.env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let expanded = |words: &Option<Vec<String>>| words.iter().flatten().map(|w| expand(w, &lookup)).collect();
    let log_dir = pod_logs_dir(settings, pod).join(&container.name);
    std::fs::create_dir_all(&log_dir)?;
    let defaults = SecurityDefaults {
        seccomp_default: settings.seccomp_default,
        seccomp_root: &settings.root_dir.join("seccomp"),
    };
    let mut context = security::container_context(pod, container, start.image_user, &defaults)?;
    if let (Some(target), Some(options)) = (start.target, context.namespace_options.as_mut())
        && options.pid == v1::NamespaceMode::Container as i32
    {
        options.pid = v1::NamespaceMode::Target as i32;
        options.target_id = target.to_string();
    }
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: container.name.clone(),
            attempt: start.restart_count,
        }),
        image: Some(v1::ImageSpec {
            image: start.image_ref.to_string(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, start.restart_count),
        log_path: format!("{}/{}.log", container.name, start.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(linux_resources(pod, container, settings)),
            security_context: Some(context),
        }),
        stop_signal: stop_signal(container),
        envs: start
            .env
            .into_iter()
            .map(|(key, value)| v1::KeyValue {
                key,
                value: value.into_bytes(),
            })
            .collect(),
        ..Default::default()
    })
}

/// `SIGTERM` as the enum has it; anything else is the runtime's default.
fn stop_signal(container: &Container) -> i32 {
    let name = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.as_deref())
        .unwrap_or_default();
    v1::Signal::from_str_name(name).unwrap_or(v1::Signal::RuntimeDefault) as i32
}

pub fn linux_resources(
    pod: &Pod,
    container: &Container,
    settings: &RuntimeSettings,
) -> v1::LinuxContainerResources {
    let pods = |which: &str| {
        let own = pod.spec().resources.as_ref()?;
        own.limits.as_ref()?.get(which).map(|q| {
            if which == "cpu" {
                resources::milli(q)
            } else {
                resources::value(q)
            }
        })
    };
    let limit = |name: &str| {
        resources::limit(container, name)
            .filter(|n| *n > 0)
            .or_else(|| pods(name))
    };
    let cpu_limit = limit("cpu").unwrap_or(0);
    let cpu_request = resources::request(container, "cpu").unwrap_or(cpu_limit);
    let memory = limit("memory").unwrap_or(0);
    let mut made = v1::LinuxContainerResources {
        cpu_shares: resources::cpu_shares(cpu_request),
        memory_limit_in_bytes: memory,
        oom_score_adj: resources::oom_score_adj(pod, container, settings.memory_capacity),
        hugepage_limits: hugepage_limits(container),
        ..Default::default()
    };
    if settings.cpu_cfs_quota {
        made.cpu_period = settings.cpu_cfs_quota_period_us;
        made.cpu_quota = resources::cpu_quota(cpu_limit, settings.cpu_cfs_quota_period_us);
    }
    if settings.has_swap && memory > 0 {
        // NoSwap: memory and swap together may be no more than the memory.
        made.memory_swap_limit_in_bytes = memory;
    }
    if settings.group_oom_kill {
        made.unified.insert("memory.oom.group".into(), "1".into());
    }
    made
}

fn hugepage_limits(container: &Container) -> Vec<v1::HugepageLimit> {
    let limits = container.resources.iter().flat_map(|r| r.limits.iter().flatten());
    let pages = limits.filter_map(|(name, q)| Some((name.strip_prefix("hugepages-")?, resources::value(q))));
    pages
        .map(|(size, n)| v1::HugepageLimit {
            page_size: size.replace("Ki", "KB").replace("Mi", "MB").replace("Gi", "GB"),
            limit: u64::try_from(n).unwrap_or(0),
        })
        .collect()
}

fn mounts(start: &Start<'_>, settings: &RuntimeSettings) -> Result<Vec<v1::Mount>, ConfigError> {
    let (pod, container) = (start.pod, start.container);
    let pod_dir = settings.root_dir.join("pods").join(pod.uid().as_str());
    let mut made = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        made.push(volume_mount(start, mount, index, &pod_dir)?);
    }
    let own_hosts = made.iter().any(|m| m.container_path == "/etc/hosts");
    if !own_hosts && (pod.is_host_network() || !start.pod_ips.is_empty()) {
        let path = write_hosts(pod, start.pod_ips, settings, &pod_dir)?;
        made.push(bind("/etc/hosts", &path, false));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or_default();
    if !message_path.is_empty() {
        let file = make_message_file(&pod_dir, &container.name)?;
        made.push(bind(message_path, &file, false));
    }
    Ok(made)
}

fn bind(container_path: &str, host_path: &Path, readonly: bool) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_string(),
        host_path: host_path.display().to_string(),
        readonly,
        ..Default::default()
    }
}

fn volume_mount(
    start: &Start<'_>,
    mount: &VolumeMount,
    index: usize,
    pod_dir: &Path,
) -> Result<v1::Mount, ConfigError> {
    let container = start.container.name.clone();
    let missing = || ConfigError::Volume {
        volume: mount.name.clone(),
        container: container.clone(),
    };
    let volume = start.volumes.get(&mount.name).ok_or_else(missing)?;
    let lookup = |name: &str| start.env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let wanted = match mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        Some(expr) => expand(expr, &lookup),
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let host_path = if wanted.is_empty() {
        volume.path.clone()
    } else {
        let place = subpath::Place {
            pod_dir,
            volume: &mount.name,
            container: &container,
            index,
        };
        subpath::prepare(&volume.path, &wanted, &place).map_err(|source| ConfigError::SubPath {
            volume: mount.name.clone(),
            container: container.clone(),
            source,
        })?
    };
    let container_path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    let readonly = mount.read_only == Some(true) || volume.read_only;
    Ok(v1::Mount {
        propagation: propagation as i32,
        ..bind(&container_path, &host_path, readonly)
    })
}

fn write_hosts(
    pod: &Pod,
    ips: &[String],
    settings: &RuntimeSettings,
    pod_dir: &Path,
) -> Result<PathBuf, ConfigError> {
    let aliases = pod.spec().host_aliases.clone().unwrap_or_default();
    let text = if pod.is_host_network() {
        hosts::host_network_hosts(&std::fs::read_to_string("/etc/hosts")?, &aliases)
    } else {
        let (name, domain) =
            hosts::hostname_and_domain(pod, &settings.dns.cluster_domain).map_err(ConfigError::Hostname)?;
        let valid: Vec<String> = ips
            .iter()
            .filter(|ip| ip.parse::<IpAddr>().is_ok())
            .cloned()
            .collect();
        hosts::managed_hosts(&valid, &name, &domain, &aliases)
    };
    let path = pod_dir.join("etc-hosts");
    std::fs::create_dir_all(pod_dir)?;
    // Written in place: the file is already bound into containers that run.
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(path)
}

/// One file for each start: an earlier incarnation's message is not the next one's.
fn make_message_file(pod_dir: &Path, container: &str) -> std::io::Result<PathBuf> {
    let dir = pod_dir.join("containers").join(container);
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{:08x}", rand::random::<u32>()));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(root: &Path) -> RuntimeSettings {
        RuntimeSettings {
            root_dir: root.into(),
            pod_logs_dir: root.join("logs"),
            seccomp_default: false,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period_us: resources::QUOTA_PERIOD_US,
            memory_capacity: 8 << 30,
            dns: dns::DnsSettings::default(),
            group_oom_kill: false,
            has_swap: false,
        }
    }

    fn pod(container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"hostAliases": [{"ip": "9.9.9.9", "hostnames": ["nine"]}], "containers": [container]}}))
        .unwrap()
    }

    #[test]
    fn a_container_is_configured_as_upstream_does() {
        let tmp = tempfile::tempdir().unwrap();
        let p = pod(
            json!({"name": "c", "image": "i:1", "command": ["sh", "$(X)"], "args": ["$$(X)"],
            "terminationMessagePath": "/dev/termination-log",
            "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}),
        );
        let start = Start {
            pod: &p,
            container: &p.spec().containers[0],
            restart_count: 2,
            image_ref: "sha256:1",
            image_user: &ImageUser::default(),
            pod_ips: &["10.0.0.2".to_string()],
            env: vec![("X".into(), "y".into())],
            volumes: &VolumeMap::default(),
            target: None,
        };
        let c = container_config(start, &settings(tmp.path())).unwrap();
        assert_eq!(
            (c.command, c.args),
            (vec!["sh".to_string(), "y".into()], vec!["$(X)".to_string()])
        );
        assert_eq!(c.log_path, "c/2.log");
        assert!(tmp.path().join("logs/n_p_u/c").is_dir());
        let r = c.linux.unwrap().resources.unwrap();
        assert_eq!(
            (r.cpu_shares, r.cpu_quota, r.cpu_period, r.memory_limit_in_bytes),
            (256, 50_000, 100_000, 64 << 20)
        );
        let paths: Vec<&str> = c.mounts.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(paths, ["/etc/hosts", "/dev/termination-log"]);
        assert!(
            std::fs::read_to_string(&c.mounts[0].host_path)
                .unwrap()
                .contains("9.9.9.9\tnine")
        );
    }

    #[test]
    fn a_mount_of_no_volume_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let p = pod(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
        let start = Start {
            pod: &p,
            container: &p.spec().containers[0],
            restart_count: 0,
            image_ref: "i",
            image_user: &ImageUser::default(),
            pod_ips: &[],
            env: vec![],
            volumes: &VolumeMap::default(),
            target: None,
        };
        let error = container_config(start, &settings(tmp.path()))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot find volume \"v\" to mount into container \"c\"");
    }
}
