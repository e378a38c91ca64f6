//! Control groups of the node, its classes and its pods: `kubepods[/burstable|/besteffort]/pod<uid>`; the runtime makes the containers' below.
//!
//! [`path`] spells a group for either driver, [`Hierarchy`] writes the kernel's files, [`Systemd`] is told the same beforehand
//! where it owns the tree.

mod hierarchy;
mod systemd;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::metrics;
use crate::pod::{PodExt, PodUid};
use crate::resources::{self, Amounts, QosClass, Which};

pub use hierarchy::{Hierarchy, Limits, Version, detect_version};
use systemd::Systemd;

pub const KERNEL_ROOT: &str = "/sys/fs/cgroup";
const ALL: &str = "kubepods";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

impl Driver {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// Parts of a group's name from the top: `["kubepods", "burstable", "pod1"]`.
pub type Parts<'a> = [&'a str];

/// As a path below the hierarchy's root.
pub fn path(parts: &Parts<'_>, driver: Driver) -> PathBuf {
    match driver {
        Driver::Cgroupfs => parts.iter().collect(),
        Driver::Systemd => (1..=parts.len()).map(|n| slice(&parts[..n])).collect(),
    }
}

/// systemd's slices carry their parents in their names, joined by `-`; a `-` within a part becomes `_`.
fn slice(parts: &Parts<'_>) -> String {
    let escaped: Vec<String> = parts.iter().map(|p| p.replace('-', "_")).collect();
    format!("{}.slice", escaped.join("-"))
}

/// What the runtime is told.
pub fn parent_for_runtime(parts: &Parts<'_>, driver: Driver) -> String {
    match driver {
        Driver::Cgroupfs => format!("/{}", parts.join("/")),
        Driver::Systemd => slice(parts),
    }
}

pub struct Cgroups {
    hierarchy: Hierarchy,
    driver: Driver,
    /// Absent with the other driver, and in tests, whose root no systemd owns.
    systemd: Option<Systemd>,
    /// `cgroupsPerQOS: false`: the runtime places containers where it likes.
    enabled: bool,
    pod_pids_limit: Option<i64>,
    burstable: Mutex<BTreeMap<PodUid, i64>>,
}

impl Cgroups {
    pub fn new(root: &Path, driver: Driver, enabled: bool, pod_pids_limit: Option<i64>) -> Self {
        Self {
            hierarchy: Hierarchy::new(root),
            driver,
            systemd: None,
            enabled,
            pod_pids_limit,
            burstable: Mutex::default(),
        }
    }

    /// The kernel's own tree, with systemd's consent where the driver asks for it.
    pub async fn of_kernel(driver: Driver, enabled: bool, pod_pids_limit: Option<i64>) -> io::Result<Self> {
        let mut groups = Self::new(Path::new(KERNEL_ROOT), driver, enabled, pod_pids_limit);
        if enabled && driver == Driver::Systemd {
            groups.systemd = Some(Systemd::connect().await?);
        }
        Ok(groups)
    }

    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The node's own groups: what all pods together may use.
    pub async fn set_up(&self, allocatable: &Amounts) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let all = Limits {
            cpu_shares: allocatable.get("cpu").map(|m| resources::cpu_shares(*m)),
            memory_bytes: allocatable.get("memory").copied(),
            ..Limits::default()
        };
        let least = Limits {
            cpu_shares: Some(resources::MIN_SHARES),
            ..Limits::default()
        };
        self.ensure(&[ALL], &all).await?;
        self.ensure(&[ALL, "besteffort"], &least).await?;
        self.ensure(&[ALL, "burstable"], &least).await
    }

    async fn ensure(&self, parts: &Parts<'_>, limits: &Limits) -> io::Result<()> {
        if let Some(systemd) = &self.systemd {
            systemd
                .ensure(&slice(parts), limits, self.hierarchy.version())
                .await?;
        }
        self.hierarchy.ensure(&path(parts, self.driver), limits)
    }

    async fn apply(&self, parts: &Parts<'_>, limits: &Limits) -> io::Result<()> {
        if let Some(systemd) = &self.systemd {
            systemd
                .set(&slice(parts), limits, self.hierarchy.version())
                .await?;
        }
        self.hierarchy.apply(&path(parts, self.driver), limits)
    }

    async fn remove(&self, parts: &Parts<'_>) -> io::Result<()> {
        let group = path(parts, self.driver);
        if let Some(systemd) = &self.systemd
            && self.hierarchy.exists_anywhere(&group)
        {
            systemd.stop(&slice(parts)).await?;
        }
        self.hierarchy.remove(&group)
    }

    /// Empty when groups are not ours to make.
    pub fn parent(&self, pod: &Pod) -> String {
        if !self.enabled {
            return String::new();
        }
        let name = pod_name(&pod.uid());
        parent_for_runtime(&pod_parts(resources::qos_class(pod), &name), self.driver)
    }

    pub fn pod_path(&self, pod: &Pod) -> PathBuf {
        let name = pod_name(&pod.uid());
        path(&pod_parts(resources::qos_class(pod), &name), self.driver)
    }

    pub async fn ensure_pod(&self, pod: &Pod) -> io::Result<()> {
        if !self.enabled || self.hierarchy.exists(&self.pod_path(pod)) {
            return Ok(());
        }
        let begin = Instant::now();
        let class = resources::qos_class(pod);
        if class == QosClass::Burstable {
            let cpu = resources::pod_amounts(pod, Which::Requests)
                .get("cpu")
                .copied()
                .unwrap_or(0);
            self.burstable.lock().insert(pod.uid(), cpu);
            self.update_burstable().await?;
        }
        let name = pod_name(&pod.uid());
        let limits = pod_limits(pod, self.pod_pids_limit);
        let made = self.ensure(&pod_parts(class, &name), &limits).await;
        metrics::CGROUP_DURATION
            .with(&["create"])
            .observe(begin.elapsed().as_secs_f64());
        made
    }

    async fn update_burstable(&self) -> io::Result<()> {
        let sum: i64 = self.burstable.lock().values().sum();
        let limits = Limits {
            cpu_shares: Some(resources::cpu_shares(sum)),
            ..Limits::default()
        };
        self.apply(&[ALL, "burstable"], &limits).await
    }

    pub async fn remove_pod(&self, uid: &PodUid) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let begin = Instant::now();
        let name = pod_name(uid);
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            self.remove(&pod_parts(class, &name)).await?;
        }
        let was_burstable = self.burstable.lock().remove(uid).is_some();
        if was_burstable {
            self.update_burstable().await?;
        }
        metrics::CGROUP_DURATION
            .with(&["destroy"])
            .observe(begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// Pods that have a group, by what an earlier kubelet left.
    pub fn pods_on_disk(&self) -> Vec<PodUid> {
        let mut found = Vec::new();
        for parts in [&[ALL][..], &[ALL, "burstable"], &[ALL, "besteffort"]] {
            for name in self.hierarchy.children(&path(parts, self.driver)) {
                let name = name.strip_suffix(".slice").unwrap_or(&name);
                let uid = match self.driver {
                    Driver::Cgroupfs => name.strip_prefix("pod").map(String::from),
                    Driver::Systemd => name.rsplit_once("-pod").map(|(_, uid)| uid.replace('_', "-")),
                };
                found.extend(uid.map(|u| PodUid::new(&u)));
            }
        }
        found
    }
}

fn pod_name(uid: &PodUid) -> String {
    format!("pod{uid}")
}

fn pod_parts(class: QosClass, name: &str) -> Vec<&str> {
    match class {
        QosClass::Guaranteed => vec![ALL, name],
        QosClass::Burstable => vec![ALL, "burstable", name],
        QosClass::BestEffort => vec![ALL, "besteffort", name],
    }
}

/// A limit holds for the pod only if every container has one.
fn pod_limits(pod: &Pod, pids: Option<i64>) -> Limits {
    let requests = resources::pod_amounts(pod, Which::Requests);
    let limits = resources::pod_amounts(pod, Which::Limits);
    let pod_level = pod.spec().resources.as_ref().and_then(|r| r.limits.as_ref());
    let limited = |name: &str| {
        let containers = pod.spec().containers.iter().chain(pod.init_containers());
        let everyone = containers
            .clone()
            .all(|c| resources::limit(c, name).is_some_and(|n| n > 0));
        (everyone || pod_level.is_some_and(|l| l.contains_key(name)))
            .then(|| limits.get(name).copied())
            .flatten()
    };
    let cpu_request = requests
        .get("cpu")
        .or_else(|| limits.get("cpu"))
        .copied()
        .unwrap_or(0);
    let quota = limited("cpu").map(|m| resources::cpu_quota(m, resources::QUOTA_PERIOD_US));
    Limits {
        cpu_shares: Some(resources::cpu_shares(cpu_request)),
        cpu_quota_us: quota,
        cpu_period_us: quota.map(|_| resources::QUOTA_PERIOD_US),
        memory_bytes: limited("memory"),
        pids: pids.filter(|p| *p > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid}, "spec": {"containers": [{"name": "a", "resources": resources}]}})).unwrap()
    }

    fn v1() -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory", "pids"] {
            std::fs::create_dir(tmp.path().join(controller)).unwrap();
        }
        tmp
    }

    fn v2() -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        tmp
    }

    #[test]
    fn names_are_upstreams_for_both_drivers() {
        let parts = ["kubepods", "burstable", "pod1-2"];
        assert_eq!(
            path(&parts, Driver::Cgroupfs),
            Path::new("kubepods/burstable/pod1-2")
        );
        assert_eq!(
            path(&parts, Driver::Systemd),
            Path::new("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice")
        );
        assert_eq!(
            parent_for_runtime(&parts, Driver::Cgroupfs),
            "/kubepods/burstable/pod1-2"
        );
        assert_eq!(
            parent_for_runtime(&parts, Driver::Systemd),
            "kubepods-burstable-pod1_2.slice"
        );
    }

    #[tokio::test]
    async fn version_1_gets_shares_quota_and_limit_and_is_removed_again() {
        let tmp = v1();
        let groups = Cgroups::new(tmp.path(), Driver::Cgroupfs, true, Some(100));
        groups
            .set_up(&Amounts::from([("cpu".into(), 2000), ("memory".into(), 1 << 30)]))
            .await
            .unwrap();
        let both = json!({"cpu": "500m", "memory": "64Mi"});
        let p = pod("u", json!({"requests": {"cpu": "250m"}, "limits": both}));
        groups.ensure_pod(&p).await.unwrap();
        let read = |file: &str| std::fs::read_to_string(tmp.path().join(file)).unwrap();
        assert_eq!(read("cpu/kubepods/cpu.shares"), "2048");
        assert_eq!(read("cpu/kubepods/burstable/cpu.shares"), "256");
        assert_eq!(read("cpu/kubepods/burstable/podu/cpu.shares"), "256");
        assert_eq!(read("cpu/kubepods/burstable/podu/cpu.cfs_quota_us"), "50000");
        assert_eq!(
            read("memory/kubepods/burstable/podu/memory.limit_in_bytes"),
            (64 << 20).to_string()
        );
        assert_eq!(read("pids/kubepods/burstable/podu/pids.max"), "100");
        assert_eq!(groups.pods_on_disk(), [PodUid::new("u")]);
    }

    #[tokio::test]
    async fn version_2_gets_weight_and_max_and_delegates_controllers() {
        let tmp = v2();
        let groups = Cgroups::new(tmp.path(), Driver::Systemd, true, None);
        groups.set_up(&Amounts::new()).await.unwrap();
        groups
            .ensure_pod(&pod("a-b", json!({"limits": {"cpu": "1", "memory": "64Mi"}})))
            .await
            .unwrap();
        let read = |file: &str| std::fs::read_to_string(tmp.path().join(file)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+cpu +memory +pids");
        let pod = "kubepods.slice/kubepods-poda_b.slice";
        assert_eq!(read(&format!("{pod}/cpu.max")), "100000 100000");
        assert_eq!(read(&format!("{pod}/cpu.weight")), "39");
        assert_eq!(read(&format!("{pod}/memory.max")), (64 << 20).to_string());
        assert_eq!(groups.pods_on_disk(), [PodUid::new("a-b")]);
    }

    #[test]
    fn a_pod_is_limited_only_if_all_its_containers_are() {
        let p: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "1Mi"}}}, {"name": "b"}]}}))
        .unwrap();
        assert_eq!(pod_limits(&p, None).memory_bytes, None);
    }
}
