//! Removes what is dead: old incarnations of containers, sandboxes without containers, logs of pods that are gone.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cri::{Runtime, v1};

use super::labels;
use crate::pod::PodUid;

/// Dead incarnations kept of each container, for `logs --previous`.
const MAX_PER_CONTAINER: usize = 1;

pub struct Knowledge<'a> {
    /// The time of this knowledge. Of what was made later it says nothing: listing takes its time, and pods come meanwhile.
    pub as_of: SystemTime,
    /// Every pod that is known here, deleted or not.
    pub known: &'a (dyn Fn(&PodUid) -> bool + Sync),
    /// Its containers are not coming back: all dead ones may go.
    pub removable: &'a (dyn Fn(&PodUid) -> bool + Sync),
}

impl Knowledge<'_> {
    /// The pod of something that was made then is here no more.
    fn gone(&self, uid: &PodUid, made: SystemTime) -> bool {
        made < self.as_of && !(self.known)(uid)
    }
}

/// CRI's times are nanoseconds.
fn time(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

pub async fn collect(runtime: &dyn Runtime, knowledge: &Knowledge<'_>, logs: &Path) -> cri::Result<()> {
    let containers = runtime.list_containers(None).await?;
    for id in containers_to_remove(&containers, knowledge) {
        remove_container(runtime, &id, &containers).await;
    }
    let left: HashSet<String> = runtime
        .list_containers(None)
        .await?
        .into_iter()
        .map(|c| c.pod_sandbox_id)
        .collect();
    for id in sandboxes_to_remove(&runtime.list_pod_sandboxes(None).await?, &left, knowledge) {
        let stopped = runtime.stop_pod_sandbox(&id).await;
        if let Err(error) = match stopped {
            Ok(()) => runtime.remove_pod_sandbox(&id).await,
            e => e,
        } {
            tracing::warn!(sandbox = id, %error, "Failed to remove sandbox");
        }
    }
    remove_logs_of_gone_pods(logs, knowledge);
    remove_dangling_links(Path::new("/var/log/containers"));
    Ok(())
}

fn containers_to_remove(containers: &[v1::Container], knowledge: &Knowledge<'_>) -> Vec<String> {
    let mut dead: HashMap<(PodUid, &str), Vec<&v1::Container>> = HashMap::new();
    for container in containers {
        let Some(identity) = labels::pod_identity(&container.labels) else {
            continue;
        };
        if container.state() == v1::ContainerState::ContainerExited {
            let name = container
                .labels
                .get(labels::CONTAINER_NAME)
                .map_or("", String::as_str);
            dead.entry((identity.uid, name)).or_default().push(container);
        }
    }
    let mut remove = Vec::new();
    for ((uid, name), mut incarnations) in dead {
        incarnations.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        let runs = containers.iter().any(|c| {
            c.state() != v1::ContainerState::ContainerExited
                && c.labels.get(labels::CONTAINER_NAME).is_some_and(|n| n == name)
                && labels::pod_identity(&c.labels).is_some_and(|i| i.uid == uid)
        });
        let newest = incarnations.first().map_or(UNIX_EPOCH, |c| time(c.created_at));
        let over = (knowledge.removable)(&uid) || knowledge.gone(&uid, newest);
        let keep = match (over, runs) {
            (true, _) => 0,
            (false, true) => MAX_PER_CONTAINER,
            // The newest is what the status is made of.
            (false, false) => MAX_PER_CONTAINER + 1,
        };
        remove.extend(incarnations.into_iter().skip(keep).map(|c| c.id.clone()));
    }
    remove
}

async fn remove_container(runtime: &dyn Runtime, id: &str, all: &[v1::Container]) {
    let log = match runtime.container_status(id, false).await {
        Ok(answer) => answer.status.map(|s| s.log_path).unwrap_or_default(),
        Err(_) => String::new(),
    };
    if let Err(error) = runtime.remove_container(id).await {
        tracing::warn!(id, %error, "Failed to remove container");
        return;
    }
    if !log.is_empty() {
        crate::logs::rotation::remove_all(Path::new(&log));
    }
    let Some(container) = all.iter().find(|c| c.id == id) else {
        return;
    };
    if let (Some(i), Some(name)) = (
        labels::pod_identity(&container.labels),
        container.labels.get(labels::CONTAINER_NAME),
    ) {
        let link = format!("/var/log/containers/{}_{}_{name}-{id}.log", i.name, i.namespace);
        // Absent when the log never appeared.
        let _ = std::fs::remove_file(link);
    }
}

fn sandboxes_to_remove(
    sandboxes: &[v1::PodSandbox],
    in_use: &HashSet<String>,
    knowledge: &Knowledge<'_>,
) -> Vec<String> {
    let mut newest: HashMap<PodUid, i64> = HashMap::new();
    for sandbox in sandboxes {
        if let Some(identity) = labels::pod_identity(&sandbox.labels) {
            let latest = newest.entry(identity.uid).or_insert(sandbox.created_at);
            *latest = (*latest).max(sandbox.created_at);
        }
    }
    let gone = |s: &&v1::PodSandbox| {
        let Some(identity) = labels::pod_identity(&s.labels) else {
            return false;
        };
        if s.state() == v1::PodSandboxState::SandboxReady || in_use.contains(&s.id) {
            return false;
        }
        let over = (knowledge.removable)(&identity.uid) || knowledge.gone(&identity.uid, time(s.created_at));
        over || newest.get(&identity.uid).is_some_and(|t| *t > s.created_at)
    };
    sandboxes.iter().filter(gone).map(|s| s.id.clone()).collect()
}

fn remove_logs_of_gone_pods(logs: &Path, knowledge: &Knowledge<'_>) {
    let Ok(entries) = std::fs::read_dir(logs) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // namespace_name_uid: no part contains an underscore.
        let Some(uid) = name.split('_').nth(2).map(PodUid::new) else {
            continue;
        };
        // Removed by someone else in between: then there is nothing to do.
        let Ok(changed) = entry.metadata().and_then(|m| m.modified()) else {
            continue;
        };
        if knowledge.gone(&uid, changed)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "Failed to remove pod logs directory");
        }
    }
}

fn remove_dangling_links(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_symlink() && !path.exists() {
            // Removed by someone else in between: the same result.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(
        id: &str,
        uid: &str,
        name: &str,
        created_at: i64,
        state: v1::ContainerState,
    ) -> v1::Container {
        let labels = [
            (labels::POD_UID, uid),
            (labels::POD_NAME, "p"),
            (labels::POD_NAMESPACE, "n"),
            (labels::CONTAINER_NAME, name),
        ];
        v1::Container {
            id: id.into(),
            created_at,
            state: state as i32,
            labels: labels.map(|(k, v)| (k.to_string(), v.to_string())).into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_last_dead_incarnation_of_a_living_container_is_kept() {
        use v1::ContainerState::{ContainerExited as Dead, ContainerRunning as Alive};
        let list = [
            container("1", "u", "a", 1, Dead),
            container("2", "u", "a", 2, Dead),
            container("3", "u", "a", 3, Alive),
            container("4", "gone", "b", 1, Dead),
            container("5", "u", "c", 1, Dead),
        ];
        let mut removed = containers_to_remove(&list, &only_u(SystemTime::now()));
        removed.sort();
        assert_eq!(removed, ["1", "4"]);
    }

    fn only_u(as_of: SystemTime) -> Knowledge<'static> {
        Knowledge {
            as_of,
            known: &|uid| uid.as_str() == "u",
            removable: &|_| false,
        }
    }

    #[test]
    fn a_pod_that_came_during_the_round_keeps_its_containers_and_logs() {
        let dead = [container(
            "1",
            "new",
            "a",
            2_000,
            v1::ContainerState::ContainerExited,
        )];
        assert_eq!(containers_to_remove(&dead, &only_u(time(3_000))), ["1"]);
        assert_eq!(
            containers_to_remove(&dead, &only_u(time(1_000))),
            Vec::<String>::new()
        );
        let logs = tempfile::tempdir().expect("a folder");
        let of_pod = logs.path().join("ns_pod_new");
        std::fs::create_dir(&of_pod).expect("made");
        remove_logs_of_gone_pods(logs.path(), &only_u(UNIX_EPOCH));
        assert!(of_pod.exists());
        remove_logs_of_gone_pods(logs.path(), &only_u(SystemTime::now() + Duration::from_secs(1)));
        assert!(!of_pod.exists());
    }
}
