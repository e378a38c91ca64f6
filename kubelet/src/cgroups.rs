//! Control groups of the node, its classes and its pods: `kubepods[/burstable|/besteffort]/pod<uid>`; the runtime makes the containers' below.
//!
//! [`name`] spells a group for either driver, [`Hierarchy`] writes version 1 or 2 of the kernel's files. The root is a parameter: tests have their own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::metrics;
use crate::pod::{PodExt, PodUid};
use crate::resources::{self, Amounts, QosClass, Which};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

pub fn detect_version(root: &Path) -> Version {
    if root.join("cgroup.controllers").exists() {
        Version::V2
    } else {
        Version::V1
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

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: Option<i64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub pids: Option<i64>,
}

pub struct Hierarchy {
    root: PathBuf,
    version: Version,
}

const V1_CONTROLLERS: [&str; 9] = [
    "cpu", "cpuacct", "memory", "pids", "cpuset", "blkio", "devices", "freezer", "hugetlb",
];
const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

impl Hierarchy {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            version: detect_version(root),
        }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Each mounted hierarchy of version 1; the one of version 2.
    fn bases(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V2 => vec![self.root.clone()],
            Version::V1 => {
                let mounted = V1_CONTROLLERS
                    .iter()
                    .map(|c| self.root.join(c))
                    .chain([self.root.join("systemd")]);
                mounted.filter(|p| p.is_dir()).collect()
            }
        }
    }

    fn base(&self, controller: &str) -> PathBuf {
        match self.version {
            Version::V1 => self.root.join(controller),
            Version::V2 => self.root.clone(),
        }
    }

    pub fn exists(&self, group: &Path) -> bool {
        self.bases().iter().all(|base| base.join(group).is_dir())
    }

    pub fn ensure(&self, group: &Path, limits: &Limits) -> io::Result<()> {
        for base in self.bases() {
            self.make(&base, group)?;
        }
        self.apply(group, limits)
    }

    fn make(&self, base: &Path, group: &Path) -> io::Result<()> {
        let mut at = base.to_path_buf();
        for part in group {
            if self.version == Version::V2 {
                delegate(&at)?;
            }
            let parent = at.clone();
            at.push(part);
            match std::fs::create_dir(&at) {
                Ok(()) => inherit_cpuset(&parent, &at)?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(named(&at, e)),
            }
        }
        if self.version == Version::V2 {
            delegate(&at)
        } else {
            Ok(())
        }
    }

    pub fn apply(&self, group: &Path, limits: &Limits) -> io::Result<()> {
        for (controller, file, value) in settings(self.version, limits) {
            let path = self.base(controller).join(group).join(file);
            if !path.parent().is_some_and(Path::is_dir) {
                // The kernel has no such controller.
                continue;
            }
            std::fs::write(&path, &value).map_err(|e| named(&path, e))?;
        }
        Ok(())
    }

    /// Children first: a container's group may outlive it by a moment.
    pub fn remove(&self, group: &Path) -> io::Result<()> {
        for base in self.bases() {
            remove_tree(&base.join(group))?;
        }
        Ok(())
    }

    /// Names of child groups.
    pub fn children(&self, group: &Path) -> Vec<String> {
        let base = self.base("memory").join(group);
        let Ok(entries) = std::fs::read_dir(base) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|e| e.path().is_dir())
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Bytes in use that cannot be given back: usage without inactive file pages.
    pub fn working_set(&self, group: &Path) -> Option<i64> {
        let dir = self.base("memory").join(group);
        let (usage, inactive) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.current", "inactive_file"),
        };
        let usage = read_number(&dir.join(usage))?;
        let stat = std::fs::read_to_string(dir.join("memory.stat")).ok()?;
        let inactive = stat
            .lines()
            .find_map(|l| l.strip_prefix(inactive)?.trim().parse::<i64>().ok())
            .unwrap_or(0);
        Some((usage - inactive).max(0))
    }

    pub fn cpu_usage_nanos(&self, group: &Path) -> Option<u64> {
        match self.version {
            Version::V1 => u64::try_from(read_number(
                &self.root.join("cpuacct").join(group).join("cpuacct.usage"),
            )?)
            .ok(),
            Version::V2 => {
                let stat = std::fs::read_to_string(self.root.join(group).join("cpu.stat")).ok()?;
                let micros = stat
                    .lines()
                    .find_map(|l| l.strip_prefix("usage_usec ")?.parse::<u64>().ok())?;
                Some(micros * 1000)
            }
        }
    }
}

fn named(path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn read_number(path: &Path) -> Option<i64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Gives a group's children the controllers that it has itself.
fn delegate(group: &Path) -> io::Result<()> {
    let Ok(available) = std::fs::read_to_string(group.join("cgroup.controllers")) else {
        return Ok(());
    };
    let file = group.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    let missing: Vec<String> = V2_CONTROLLERS
        .iter()
        .filter(|c| {
            available.split_whitespace().any(|a| a == **c) && !enabled.split_whitespace().any(|e| e == **c)
        })
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    std::fs::write(&file, missing.join(" ")).map_err(|e| named(&file, e))
}

/// A version 1 cpuset without CPUs and memory nodes takes no process.
fn inherit_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = std::fs::read_to_string(parent.join(file))
            && child.join(file).exists()
            && std::fs::read_to_string(child.join(file)).is_ok_and(|v| v.trim().is_empty())
        {
            std::fs::write(child.join(file), value.trim()).map_err(|e| named(child, e))?;
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    let Ok(entries) = std::fs::read_dir(group) else {
        return Ok(());
    };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    match std::fs::remove_dir(group) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named(group, e)),
        _ => Ok(()),
    }
}

fn settings(version: Version, limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let mut out = Vec::new();
    match version {
        Version::V1 => {
            if let Some(shares) = limits.cpu_shares {
                out.push(("cpu", "cpu.shares", shares.to_string()));
            }
            if let Some(period) = limits.cpu_period_us {
                out.push(("cpu", "cpu.cfs_period_us", period.to_string()));
            }
            if let Some(quota) = limits.cpu_quota_us {
                out.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
            if let Some(bytes) = limits.memory_bytes {
                out.push(("memory", "memory.limit_in_bytes", bytes.to_string()));
            }
        }
        Version::V2 => {
            if let Some(shares) = limits.cpu_shares {
                out.push(("cpu", "cpu.weight", weight(shares).to_string()));
            }
            if let Some(quota) = limits.cpu_quota_us {
                let period = limits.cpu_period_us.unwrap_or(resources::QUOTA_PERIOD_US);
                let quota = if quota < 0 {
                    "max".to_string()
                } else {
                    quota.to_string()
                };
                out.push(("cpu", "cpu.max", format!("{quota} {period}")));
            }
            if let Some(bytes) = limits.memory_bytes {
                out.push(("memory", "memory.max", bytes.to_string()));
            }
        }
    }
    if let Some(pids) = limits.pids {
        out.push((
            "pids",
            "pids.max",
            if pids < 0 { "max".into() } else { pids.to_string() },
        ));
    }
    out
}

/// [2, 262144] shares to [1, 10000] of weight.
fn weight(shares: i64) -> i64 {
    1 + ((shares.max(2) - 2) * 9999) / 262_142
}

pub struct Cgroups {
    hierarchy: Hierarchy,
    driver: Driver,
    /// `cgroupsPerQOS: false`: the runtime places containers where it likes.
    enabled: bool,
    pod_pids_limit: Option<i64>,
    burstable: Mutex<BTreeMap<PodUid, i64>>,
}

impl Cgroups {
    pub fn new(root: &Path, driver: Driver, enabled: bool, pod_pids_limit: Option<i64>) -> Self {
        let hierarchy = Hierarchy::new(root);
        Self {
            hierarchy,
            driver,
            enabled,
            pod_pids_limit,
            burstable: Mutex::default(),
        }
    }

    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The node's own groups: what all pods together may use.
    pub fn set_up(&self, allocatable: &Amounts) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let all = Limits {
            cpu_shares: allocatable.get("cpu").map(|m| resources::cpu_shares(*m)),
            memory_bytes: allocatable.get("memory").copied(),
            ..Limits::default()
        };
        self.hierarchy.ensure(&path(&[ALL], self.driver), &all)?;
        let least = Limits {
            cpu_shares: Some(resources::MIN_SHARES),
            ..Limits::default()
        };
        self.hierarchy
            .ensure(&path(&[ALL, "besteffort"], self.driver), &least)?;
        self.hierarchy
            .ensure(&path(&[ALL, "burstable"], self.driver), &least)
    }

    fn with_parts<R>(&self, class: QosClass, uid: &PodUid, f: impl FnOnce(&Parts<'_>) -> R) -> R {
        let pod = format!("pod{uid}");
        match class {
            QosClass::Guaranteed => f(&[ALL, &pod]),
            QosClass::Burstable => f(&[ALL, "burstable", &pod]),
            QosClass::BestEffort => f(&[ALL, "besteffort", &pod]),
        }
    }

    /// Empty when groups are not ours to make.
    pub fn parent(&self, pod: &Pod) -> String {
        if !self.enabled {
            return String::new();
        }
        self.with_parts(resources::qos_class(pod), &pod.uid(), |parts| {
            parent_for_runtime(parts, self.driver)
        })
    }

    pub fn pod_path(&self, pod: &Pod) -> PathBuf {
        self.with_parts(resources::qos_class(pod), &pod.uid(), |parts| {
            path(parts, self.driver)
        })
    }

    pub fn ensure_pod(&self, pod: &Pod) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let group = self.pod_path(pod);
        if self.hierarchy.exists(&group) {
            return Ok(());
        }
        let begin = Instant::now();
        if resources::qos_class(pod) == QosClass::Burstable {
            let cpu = resources::pod_amounts(pod, Which::Requests)
                .get("cpu")
                .copied()
                .unwrap_or(0);
            self.burstable.lock().insert(pod.uid(), cpu);
            self.update_burstable()?;
        }
        let made = self
            .hierarchy
            .ensure(&group, &pod_limits(pod, self.pod_pids_limit));
        metrics::CGROUP_DURATION
            .with(&["create"])
            .observe(begin.elapsed().as_secs_f64());
        made
    }

    fn update_burstable(&self) -> io::Result<()> {
        let sum: i64 = self.burstable.lock().values().sum();
        let limits = Limits {
            cpu_shares: Some(resources::cpu_shares(sum)),
            ..Limits::default()
        };
        self.hierarchy
            .apply(&path(&[ALL, "burstable"], self.driver), &limits)
    }

    pub fn remove_pod(&self, uid: &PodUid) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let begin = Instant::now();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let group = self.with_parts(class, uid, |parts| path(parts, self.driver));
            self.hierarchy.remove(&group)?;
        }
        if self.burstable.lock().remove(uid).is_some() {
            self.update_burstable()?;
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

    #[test]
    fn version_1_gets_shares_quota_and_limit_and_is_removed_again() {
        let tmp = v1();
        let groups = Cgroups::new(tmp.path(), Driver::Cgroupfs, true, Some(100));
        groups
            .set_up(&Amounts::from([("cpu".into(), 2000), ("memory".into(), 1 << 30)]))
            .unwrap();
        let both = json!({"cpu": "500m", "memory": "64Mi"});
        let p = pod("u", json!({"requests": {"cpu": "250m"}, "limits": both}));
        groups.ensure_pod(&p).unwrap();
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

    #[test]
    fn version_2_gets_weight_and_max_and_delegates_controllers() {
        let tmp = v2();
        let groups = Cgroups::new(tmp.path(), Driver::Systemd, true, None);
        groups.set_up(&Amounts::new()).unwrap();
        groups
            .ensure_pod(&pod("a-b", json!({"limits": {"cpu": "1", "memory": "64Mi"}})))
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
