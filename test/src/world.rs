//! Where a cluster's processes run.
//!
//! On the host, daemons listen on free ports of 127.0.0.1. With root, a cluster can have network, mount and process
//! namespaces of its own: fixed ports, its own `/run`, `/var/log` and `/var/lib/cni`, and when its first process is
//! killed the kernel kills all the others, container shims included.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::wait::until;

/// The node's address in a world of its own.
const NODE_ADDRESS: &str = "10.89.0.2";

pub enum World {
    Host,
    Own(Namespaces),
}

/// Namespaces held open by their first process.
pub struct Namespaces {
    holder: Child,
    /// PID 1 of the process namespace, seen from outside. `None` until it is known.
    init: Option<u32>,
}

/// Makes the places that a node writes to its own, gives the network an address, and then reaps orphans for ever.
const INIT: &str = r#"
set -e
for dir in /run /var/log /var/lib/cni /var/lib/kubelet /etc/cni; do
  mkdir -p "$dir"; mount -t tmpfs e2e "$dir"
done
mkdir -p /run/netns /run/lock; mount --make-rshared /run; mount --make-rshared /var/lib/kubelet
ip link set lo up
ip link add e2e0 type veth peer name e2e1; ip address add ADDRESS/24 dev e2e0
ip link set e2e0 up; ip link set e2e1 up; ip route add default dev e2e0
sysctl -qw net.ipv4.ip_forward=1 || true
touch "$1"
while :; do sleep 3600 & wait $!; done
"#;

impl World {
    /// Namespaces of our own; `folder` is for the sign that they are ready.
    pub fn own(folder: &Path) -> Result<Self> {
        let ready = folder.join("world-is-ready");
        let script = INIT.replace("ADDRESS", NODE_ADDRESS);
        let log = std::fs::File::create(folder.join("world.log"))?;
        let holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=KILL",
            ])
            .args([
                "--mount-proc",
                "--propagation",
                "private",
                "bash",
                "-c",
                &script,
                "init",
            ])
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("unshare")?;
        let mut namespaces = Namespaces { holder, init: None };
        until("namespaces", Duration::from_secs(10), || {
            if let Some(status) = namespaces.holder.try_wait()? {
                bail!(
                    "ended with {status}: {}",
                    std::fs::read_to_string(folder.join("world.log"))?
                );
            }
            if !ready.exists() {
                bail!("not ready");
            }
            Ok(())
        })?;
        namespaces.init = Some(only_child(namespaces.holder.id())?);
        Ok(Self::Own(namespaces))
    }

    /// The command as it is run from outside. It dies with the thread that started it.
    pub fn wrap(&self, command: &[String]) -> Vec<String> {
        let mut words: Vec<String> = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        if let Self::Own(Namespaces { init: Some(init), .. }) = self {
            let init = init.to_string();
            words.extend(["nsenter", "--target", &init, "--net", "--mount", "--pid"].map(str::to_owned));
        }
        words.extend_from_slice(command);
        words
    }

    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The address that daemons advertise.
    pub fn address(&self) -> &'static str {
        if self.is_own() { NODE_ADDRESS } else { "127.0.0.1" }
    }

    /// `default` in a world of its own, a free port on the host.
    pub fn port(&self, default: u16) -> Result<u16> {
        match self {
            Self::Own(_) => Ok(default),
            Self::Host => Ok(free_port::free_port()),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // PID 1 first: with it the kernel kills everything inside. All of them may be gone already.
        if let Some(init) = self.init {
            let _ = process::signal("KILL", init);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn only_child(pid: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children
        .split_whitespace()
        .next()
        .context("unshare has no child")?;
    Ok(first.parse()?)
}

/// Why a world of its own is not possible here; `None` if it is.
pub fn why_not_own() -> Option<String> {
    let id = Command::new("id")
        .arg("-u")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    if id.as_deref().unwrap_or("?") != "0" {
        return Some("needs root for namespaces of its own".to_owned());
    }
    let tools = ["unshare", "nsenter", "setpriv", "ip", "containerd", "runc", "ctr"];
    let missing: Vec<&str> = tools
        .into_iter()
        .filter(|t| crate::binaries::on_path(t).is_none())
        .collect();
    (!missing.is_empty()).then(|| format!("these programs are missing: {}", missing.join(", ")))
}
