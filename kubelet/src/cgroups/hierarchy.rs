//! The kernel's files of control groups, version 1 or 2. The root is a parameter: tests have their own.

use std::io;
use std::path::{Path, PathBuf};

use crate::resources;

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
    missing: Vec<&'static str>,
}

const V1_CONTROLLERS: [&str; 9] = [
    "cpu", "cpuacct", "memory", "pids", "cpuset", "blkio", "devices", "freezer", "hugetlb",
];
const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

impl Hierarchy {
    pub fn new(root: &Path) -> Self {
        let version = detect_version(root);
        let missing = match version {
            Version::V1 => Vec::new(),
            Version::V2 => missing_controllers(root),
        };
        Self {
            root: root.into(),
            version,
            missing,
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

    fn has(&self, controller: &str) -> bool {
        self.missing.iter().all(|missing| *missing != controller)
    }

    /// Controllers that pods' limits need and the kernel's version 2 does not offer.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
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

    pub fn exists_anywhere(&self, group: &Path) -> bool {
        self.bases().iter().any(|base| base.join(group).is_dir())
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
            // The kernel has no such controller.
            if !path.parent().is_some_and(Path::is_dir) || !self.has(controller) {
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

fn missing_controllers(root: &Path) -> Vec<&'static str> {
    let offered = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let lacks = |name: &&str| offered.split_whitespace().all(|offer| offer != *name);
    ["cpu", "memory", "pids"].into_iter().filter(lacks).collect()
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
pub(super) fn weight(shares: i64) -> i64 {
    1 + ((shares.max(2) - 2) * 9999) / 262_142
}
