//! The pods' slices as systemd's units. Under the systemd driver the tree is systemd's: whatever it was not told about a slice, it
//! sets back to its defaults as soon as a container's scope makes it look there.

use std::io;

use parking_lot::Mutex;
use zbus::Connection;
use zbus::Variant;

use super::hierarchy::{self, Limits, Version};
use crate::resources;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// systemd keeps CPU quotas as whole per cent of a CPU.
const QUOTA_STEP_US: i64 = 10_000;

type Property = (&'static str, Variant<'static>);

/// A connection ends when the bus is restarted: the next call makes another.
pub struct Systemd(Mutex<Connection>);

impl Systemd {
    pub async fn connect() -> io::Result<Self> {
        let connection = Connection::system().await.map_err(|error| {
            io::Error::other(format!(
                "the systemd cgroup driver needs systemd on the system bus: {error}; install dbus, or set cgroupDriver: cgroupfs here and in the container runtime"
            ))
        })?;
        Ok(Self(Mutex::new(connection)))
    }

    /// Starts the slice; one that is there gets the limits.
    pub async fn ensure(&self, slice: &str, limits: &Limits, version: Version) -> io::Result<()> {
        let mut all: Vec<Property> = vec![
            (
                "Description",
                Variant::from(format!("Pods of Kubernetes: {slice}")),
            ),
            ("DefaultDependencies", Variant::from(false)),
        ];
        all.extend(
            [
                "CPUAccounting",
                "MemoryAccounting",
                "IOAccounting",
                "TasksAccounting",
            ]
            .map(|name| (name, Variant::from(true))),
        );
        all.extend(properties(limits, version));
        let auxiliary: Vec<(String, Vec<(String, Variant<'_>)>)> = Vec::new();
        let started = self
            .call("StartTransientUnit", &(slice, "replace", all, auxiliary))
            .await;
        match started {
            Err(error) if is(&error, "UnitExists") => self.set(slice, limits, version).await,
            other => other.map_err(|error| named(slice, &error)),
        }
    }

    /// Until the next start of the machine: a slice of pods does not outlive it.
    pub async fn set(&self, slice: &str, limits: &Limits, version: Version) -> io::Result<()> {
        let body = (slice, true, properties(limits, version));
        let set = self.call("SetUnitProperties", &body).await;
        set.map_err(|error| named(slice, &error))
    }

    pub async fn stop(&self, slice: &str) -> io::Result<()> {
        match self.call("StopUnit", &(slice, "replace")).await {
            Err(error) if is(&error, "NoSuchUnit") => Ok(()),
            other => other.map_err(|error| named(slice, &error)),
        }
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<()>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let connection = self.0.lock().clone();
        match ask(&connection, method, body).await {
            Err(zbus::Error::InputOutput(_)) => {
                let fresh = Connection::system().await?;
                *self.0.lock() = fresh.clone();
                ask(&fresh, method, body).await
            }
            other => other,
        }
    }
}

async fn ask<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<()>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    let reply = connection.call_method(Some(NAME), PATH, Some(MANAGER), method, body);
    reply.await.map(drop)
}

fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(error, ..) if error.rsplit('.').next() == Some(name))
}

fn named(slice: &str, error: &zbus::Error) -> io::Error {
    io::Error::other(format!("systemd refused {slice}: {error}"))
}

fn properties(limits: &Limits, version: Version) -> Vec<Property> {
    let mut out = Vec::new();
    let mut put =
        |name, value: i64| out.push((name, Variant::from(u64::try_from(value).unwrap_or(u64::MAX))));
    if let Some(shares) = limits.cpu_shares {
        match version {
            Version::V1 => put("CPUShares", shares),
            Version::V2 => put("CPUWeight", hierarchy::weight(shares)),
        }
    }
    if let Some(bytes) = limits.memory_bytes {
        match version {
            Version::V1 => put("MemoryLimit", bytes),
            Version::V2 => put("MemoryMax", bytes),
        }
    }
    if let Some(quota) = limits.cpu_quota_us {
        let period = limits.cpu_period_us.unwrap_or(resources::QUOTA_PERIOD_US);
        let per_second = if quota < 0 {
            -1
        } else {
            quota.saturating_mul(1_000_000) / period.max(1)
        };
        let rounded = if per_second < 0 {
            per_second
        } else {
            (per_second + QUOTA_STEP_US - 1) / QUOTA_STEP_US * QUOTA_STEP_US
        };
        put("CPUQuotaPerSecUSec", rounded);
    }
    if let Some(pids) = limits.pids {
        put("TasksMax", pids);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_the_properties_of_the_kernels_version() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(12_345),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(64 << 20),
            pids: Some(-1),
        };
        let number = |value: u64| Variant::from(value);
        assert_eq!(
            properties(&limits, Version::V2),
            [
                ("CPUWeight", number(39)),
                ("MemoryMax", number(64 << 20)),
                ("CPUQuotaPerSecUSec", number(130_000)),
                ("TasksMax", number(u64::MAX)),
            ]
        );
        assert_eq!(
            properties(&limits, Version::V1)[..2],
            [("CPUShares", number(1024)), ("MemoryLimit", number(64 << 20))]
        );
    }
}
