//! Static pods: a file or a directory of manifests, read again when it changes. A pod's uid follows from its content, so that the same file is the
//! same pod across restarts and a changed file is another one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::defaults;
use crate::pod::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE, PodExt, PodUid, SOURCE_FILE};
use crate::sync_loop::{Event, Source};

/// `fileCheckFrequency`: what inotify may miss (a path on a network file system) is found by then.
pub const DEFAULT_AUDIT: Duration = Duration::from_secs(20);
/// Editors write in several steps; a file is read when it has been quiet for this long.
const SETTLE: Duration = Duration::from_millis(50);
const MAX_MANIFEST_BYTES: u64 = 10 << 20;

#[derive(Debug, thiserror::Error)]
#[error("static pod manifest {path}: {problem}")]
pub struct ManifestError {
    path: String,
    problem: String,
}

pub struct FileSource {
    pub path: PathBuf,
    pub node_name: String,
    pub audit: Duration,
    pub tx: mpsc::UnboundedSender<Event>,
}

impl FileSource {
    pub async fn run(self) {
        let mut known: HashMap<PodUid, Arc<Pod>> = HashMap::new();
        let mut said: BTreeMap<String, String> = BTreeMap::new();
        let mut first = true;
        loop {
            // Watch first: what changes while it is read is heard.
            let mut events = watch(&self.path);
            self.look(&mut known, &mut said);
            if std::mem::take(&mut first) {
                self.send(Event::Synced(Source::Files));
            }
            let changed = async {
                match events.as_mut() {
                    Some(events) => drop(events.next().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(self.audit) => {}
            }
        }
    }

    fn look(&self, known: &mut HashMap<PodUid, Arc<Pod>>, said: &mut BTreeMap<String, String>) {
        let (pods, errors) = read(&self.path, &self.node_name);
        let mut now = BTreeMap::new();
        for error in errors {
            // Once for each problem, not at every look.
            if said.get(&error.path) != Some(&error.problem) {
                tracing::error!(path = %error.path, error = %error.problem, "Can't process manifest file");
            }
            now.insert(error.path, error.problem);
        }
        let failed: Vec<String> = now.keys().cloned().collect();
        *said = now;
        // A manifest that became unreadable is no order to stop the pod it described.
        let keeps = |p: &Pod| {
            p.annotation(MANIFEST)
                .is_some_and(|f| failed.iter().any(|e| e == f))
        };
        let gone: Vec<PodUid> = known
            .iter()
            .filter(|(uid, p)| !pods.contains_key(*uid) && !keeps(p))
            .map(|(u, _)| u.clone())
            .collect();
        for uid in gone {
            if let Some(pod) = known.remove(&uid) {
                self.send(Event::Removed(pod));
            }
        }
        for (uid, pod) in pods {
            if let Entry::Vacant(free) = known.entry(uid) {
                free.insert(pod.clone());
                self.send(Event::Pod(pod));
            }
        }
    }

    fn send(&self, event: Event) {
        // The loop ends only with the process.
        let _ = self.tx.send(event);
    }
}

/// Which file it came from; for us alone.
const MANIFEST: &str = "ferrokube.io/manifest";

fn watch(path: &Path) -> Option<inotify::EventStream<[u8; 4096]>> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::CREATE;
    let place = if path.is_dir() { path } else { path.parent()? };
    inotify.watches().add(place, mask).ok()?;
    inotify.into_event_stream([0; 4096]).ok()
}

fn read(path: &Path, node_name: &str) -> (HashMap<PodUid, Arc<Pod>>, Vec<ManifestError>) {
    let (mut pods, mut errors) = (HashMap::new(), Vec::new());
    for file in files(path) {
        match read_manifest(&file, node_name) {
            Ok(pod) => {
                pods.insert(pod.uid(), Arc::new(pod));
            }
            Err(problem) => errors.push(ManifestError {
                path: file.display().to_string(),
                problem,
            }),
        }
    }
    (pods, errors)
}

/// Hidden files are not manifests: editors and config managers leave them.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.into()];
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_file() && !is_hidden(p))
        .collect();
    found.sort();
    found
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|n| n.to_string_lossy().starts_with('.'))
}

fn read_manifest(file: &Path, node_name: &str) -> Result<Pod, String> {
    let size = std::fs::metadata(file).map_err(|e| e.to_string())?.len();
    if size > MAX_MANIFEST_BYTES {
        return Err(format!(
            "{size} bytes is larger than a manifest may be ({MAX_MANIFEST_BYTES})"
        ));
    }
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let value = component_base::config::yaml_to_json(&text).map_err(|e| e.to_string())?;
    let kind = value.get("kind").and_then(|k| k.as_str()).unwrap_or_default();
    if kind != "Pod" || value.get("apiVersion").and_then(|v| v.as_str()) != Some("v1") {
        return Err(format!("kind {kind:?} is not a v1 Pod"));
    }
    let pod: Pod = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    prepare(pod, &value, file, node_name)
}

fn prepare(mut pod: Pod, value: &serde_json::Value, file: &Path, node_name: &str) -> Result<Pod, String> {
    let name = pod
        .metadata
        .name
        .clone()
        .filter(|n| !n.is_empty())
        .ok_or("metadata.name is required")?;
    if pod.spec.as_ref().is_none_or(|s| s.containers.is_empty()) {
        return Err("spec.containers is required".into());
    }
    let problems = apimachinery::validation::dns1123_subdomain(&name);
    if !problems.is_empty() {
        return Err(format!("metadata.name {name:?}: {}", problems.join("; ")));
    }
    refuse_references(&pod)?;
    let shown = file.display().to_string();
    let own_uid = pod.metadata.uid.clone().filter(|u| !u.is_empty());
    let uid = own_uid.unwrap_or_else(|| content_uid(value, &shown, node_name));
    pod.metadata.uid = Some(uid.clone());
    pod.metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    let annotations = pod.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(CONFIG_SOURCE.into(), SOURCE_FILE.into());
    annotations.insert(CONFIG_HASH.into(), uid);
    annotations.insert(CONFIG_SEEN.into(), jiff::Timestamp::now().to_string());
    annotations.insert(MANIFEST.into(), shown);
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.into());
        // It stays through anything that befalls the node.
        let everything = Toleration {
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            ..Default::default()
        };
        spec.tolerations.get_or_insert_with(Vec::new).push(everything);
        defaults::apply(spec);
    }
    pod.status = Some(k8s_openapi::api::core::v1::PodStatus {
        phase: Some("Pending".into()),
        ..Default::default()
    });
    Ok(pod)
}

/// A static pod must be able to start without the API server.
fn refuse_references(pod: &Pod) -> Result<(), String> {
    if pod
        .spec()
        .service_account_name
        .as_deref()
        .is_some_and(|s| !s.is_empty())
    {
        return Err("static pods may not reference serviceaccounts".into());
    }
    if !crate::objects::references(pod).is_empty() {
        return Err("static pods may not reference secrets or configmaps".into());
    }
    Ok(())
}

fn content_uid(value: &serde_json::Value, file: &str, node_name: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("host:{node_name}\nfile:{file}\n{value}"));
    hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: kube-system\nspec:\n  containers:\n  - name: a\n    image: i\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("web.yaml"), POD).unwrap();
        std::fs::write(tmp.path().join(".hidden.yaml"), "nonsense").unwrap();
        std::fs::write(
            tmp.path().join("bad.yaml"),
            "kind: Deployment\napiVersion: apps/v1\n",
        )
        .unwrap();
        let (pods, errors) = read(tmp.path(), "Node-1");
        let pod = pods.values().next().unwrap();
        assert_eq!(
            (pods.len(), pod.key().as_str(), pod.is_static()),
            (1, "kube-system/web-node-1", true)
        );
        assert_eq!(pod.restart_policy(), "Always");
        assert!(
            errors[0]
                .to_string()
                .contains("bad.yaml: kind \"Deployment\" is not a v1 Pod")
        );
        let (again, _) = read(tmp.path(), "Node-1");
        assert_eq!(
            again.keys().next(),
            pods.keys().next(),
            "the same file is the same pod"
        );
        std::fs::write(tmp.path().join("web.yaml"), POD.replace("image: i", "image: j")).unwrap();
        let (changed, _) = read(tmp.path(), "Node-1");
        assert_ne!(changed.keys().next(), pods.keys().next());
    }

    #[test]
    fn a_static_pod_may_not_need_the_api_server() {
        let tmp = tempfile::tempdir().unwrap();
        let text = POD.replace("spec:\n", "spec:\n  volumes: [{name: v, configMap: {name: m}}]\n");
        std::fs::write(tmp.path().join("web.yaml"), text).unwrap();
        let (_, errors) = read(tmp.path(), "n");
        assert!(errors[0].to_string().contains("may not reference"));
    }

    #[tokio::test]
    async fn a_file_is_heard_when_it_comes_changes_and_goes() {
        let tmp = tempfile::tempdir().unwrap();
        let (tx, mut rx) = mpsc::unbounded_channel();
        let source = FileSource {
            path: tmp.path().into(),
            node_name: "n".into(),
            audit: Duration::from_secs(60),
            tx,
        };
        let task = tokio::spawn(source.run());
        let mut next = async || {
            tokio::time::timeout(Duration::from_secs(5), rx.recv())
                .await
                .unwrap()
                .unwrap()
        };
        assert!(matches!(next().await, Event::Synced(Source::Files)));
        std::fs::write(tmp.path().join("web.yaml"), POD).unwrap();
        let Event::Pod(pod) = next().await else { panic!() };
        std::fs::write(tmp.path().join("web.yaml"), "broken: [").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::fs::remove_file(tmp.path().join("web.yaml")).unwrap();
        let Event::Removed(gone) = next().await else {
            panic!("a broken manifest must not stop its pod")
        };
        assert_eq!(gone.uid(), pod.uid());
        task.abort();
    }
}
