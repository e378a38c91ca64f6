//! Hears a container's end from the kernel. A runtime without events (containerd 1.6) still tells a container's process; a pidfd of
//! it becomes readable when it exits, and the pod is looked at then instead of at the next relist.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use cri::Runtime;
use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags};

use super::pidfd;
use super::pod_status::PodStatus;
use crate::pod::PodUid;

/// The runtime hears of the exit at the same time as we do and needs a moment to note it.
const LOOK_AFTER_MS: [u64; 4] = [5, 20, 60, 200];

pub struct ExitWatch {
    runtime: Arc<dyn Runtime>,
    watched: Arc<Mutex<HashSet<String>>>,
    exited: Arc<dyn Fn(&PodUid) + Send + Sync>,
}

impl ExitWatch {
    pub fn new(runtime: Arc<dyn Runtime>, exited: Arc<dyn Fn(&PodUid) + Send + Sync>) -> Self {
        Self {
            runtime,
            watched: Arc::default(),
            exited,
        }
    }

    pub fn watch(&self, status: &PodStatus) {
        for container in status.running() {
            if !self.watched.lock().insert(container.id.clone()) {
                continue;
            }
            let (runtime, watched, exited) =
                (self.runtime.clone(), self.watched.clone(), self.exited.clone());
            let (uid, id) = (status.uid.clone(), container.id.clone());
            tokio::spawn(async move {
                // No process to wait for: it has left already, and that is what is to be told.
                let left = match open(runtime.as_ref(), &id).await {
                    Some(pidfd) => pidfd::exited(pidfd).await.is_ok(),
                    None => true,
                };
                if left {
                    for delay in LOOK_AFTER_MS {
                        tokio::time::sleep(Duration::from_millis(delay)).await;
                        exited(&uid);
                        if !is_running(runtime.as_ref(), &id).await {
                            break;
                        }
                    }
                }
                watched.lock().remove(&id);
            });
        }
    }
}

async fn is_running(runtime: &dyn Runtime, id: &str) -> bool {
    let status = runtime
        .container_status(id, false)
        .await
        .ok()
        .and_then(|s| s.status);
    status.is_some_and(|s| s.state() == cri::v1::ContainerState::ContainerRunning)
}

async fn open(runtime: &dyn Runtime, id: &str) -> Option<OwnedFd> {
    let answer = runtime.container_status(id, true).await.ok()?;
    let pid = pid_of(answer.info.get("info")?)?;
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
}

fn pid_of(info: &str) -> Option<Pid> {
    let value: serde_json::Value = serde_json::from_str(info).ok()?;
    Pid::from_raw(i32::try_from(value.get("pid")?.as_i64()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_heard() {
        let mut child = std::process::Command::new("sleep").arg("0.1").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).unwrap();
        assert!(
            tokio::time::timeout(Duration::from_secs(5), pidfd::exited(pidfd))
                .await
                .unwrap()
                .is_ok()
        );
        child.wait().unwrap();
    }

    #[test]
    fn the_process_is_read_from_containerds_answer() {
        assert_eq!(
            pid_of(r#"{"sandboxID":"x","pid":42}"#)
                .unwrap()
                .as_raw_nonzero()
                .get(),
            42
        );
        assert!(pid_of(r#"{"pid":0}"#).is_none() && pid_of("nonsense").is_none());
    }
}
