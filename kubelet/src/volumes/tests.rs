use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::*;
use crate::objects::fake::FakeObjects;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u-1", "labels": {"app": "x"}}, "spec": spec})).unwrap()
}

fn facts() -> PodFacts<'static> {
    static NONE: std::sync::LazyLock<Amounts> = std::sync::LazyLock::new(Amounts::new);
    PodFacts {
        pod_ips: &[],
        host_ips: &[],
        allocatable: &NONE,
    }
}

fn volumes(dir: &tempfile::TempDir, objects: Arc<FakeObjects>) -> Volumes {
    Volumes::new(dir.path(), objects)
}

#[tokio::test]
async fn a_config_map_volume_follows_its_object() {
    let tmp = tempfile::tempdir().unwrap();
    let objects = Arc::new(FakeObjects::default().with_config_map("n", "m", &[("a", "1"), ("b", "2")]));
    let v = volumes(&tmp, objects.clone());
    let p = pod(json!({"containers": [], "volumes": [
        {"name": "all", "configMap": {"name": "m", "defaultMode": 0o400}},
        {"name": "one", "configMap": {"name": "m", "items": [{"key": "a", "path": "x/y"}]}}]}));
    let map = v.set_up(&p, &facts()).await.unwrap();
    let all = map.get("all").unwrap().path.clone();
    assert!(all.ends_with("pods/u-1/volumes/kubernetes.io~configmap/all"));
    assert_eq!(std::fs::read_to_string(all.join("a")).unwrap(), "1");
    assert_eq!(std::fs::metadata(all.join("a")).unwrap().mode() & 0o777, 0o400);
    assert_eq!(
        std::fs::read_to_string(map.get("one").unwrap().path.join("x/y")).unwrap(),
        "1"
    );
    objects.set_config_map("n", "m", &[("a", "changed")]);
    v.set_up(&p, &facts()).await.unwrap();
    assert_eq!(std::fs::read_to_string(all.join("a")).unwrap(), "changed");
    assert!(!all.join("b").exists());
}

#[tokio::test]
async fn a_missing_object_or_key_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let v = volumes(
        &tmp,
        Arc::new(FakeObjects::default().with_config_map("n", "m", &[("a", "1")])),
    );
    let fails = |source: serde_json::Value| {
        let p = pod(json!({"containers": [], "volumes": [{"name": "v", "configMap": source}]}));
        let v = &v;
        async move { v.set_up(&p, &facts()).await.map(drop) }
    };
    let error = fails(json!({"name": "none"})).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found"
    );
    let error = fails(json!({"name": "m", "items": [{"key": "z", "path": "z"}]}))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "MountVolume.SetUp failed for volume \"v\" : references non-existent config key: z"
    );
    fails(json!({"name": "none", "optional": true})).await.unwrap();
}

#[tokio::test]
async fn an_empty_dir_keeps_its_content_and_is_gone_after_tear_down() {
    let tmp = tempfile::tempdir().unwrap();
    let v = volumes(&tmp, Arc::new(FakeObjects::default()));
    let p = pod(json!({"containers": [], "volumes": [{"name": "e", "emptyDir": {}}]}));
    v.make_pod_dirs(&p.uid()).unwrap();
    let path = v
        .set_up(&p, &facts())
        .await
        .unwrap()
        .get("e")
        .unwrap()
        .path
        .clone();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o777);
    std::fs::write(path.join("f"), "x").unwrap();
    v.set_up(&p, &facts()).await.unwrap();
    assert!(path.join("f").exists());
    assert_eq!(v.pods_on_disk(), [p.uid()]);
    v.tear_down(&p.uid()).unwrap();
    assert!(!v.exists(&p.uid()));
}

#[test]
fn host_path_types_are_checked() {
    let tmp = tempfile::tempdir().unwrap();
    let check = |path: &str, kind: &str| {
        let path = tmp.path().join(path).display().to_string();
        check_host_path(&HostPathVolumeSource {
            path,
            type_: Some(kind.into()),
        })
        .map_err(|e| e.to_string())
    };
    assert!(check("new/dir", "DirectoryOrCreate").is_ok());
    assert!(check("new/file", "FileOrCreate").is_ok());
    assert!(check("new/dir", "File").unwrap_err().ends_with("is not a file"));
    assert!(
        check("new/file", "Directory")
            .unwrap_err()
            .ends_with("is not a directory")
    );
    assert!(
        check("absent", "Directory")
            .unwrap_err()
            .ends_with("does not exist")
    );
    assert!(check("new/../../x", "").is_err());
    assert!(check("absent", "").is_ok());
}

#[tokio::test]
async fn volumes_that_are_not_known_say_so() {
    let tmp = tempfile::tempdir().unwrap();
    let v = volumes(&tmp, Arc::new(FakeObjects::default()));
    let p = pod(json!({"containers": [], "volumes": [{"name": "g", "gitRepo": {"repository": "x"}}]}));
    assert!(
        v.set_up(&p, &facts())
            .await
            .unwrap_err()
            .to_string()
            .contains("gitRepo volumes are disabled")
    );
}

/// tmpfs needs privileges that a test may lack.
fn may_mount() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn tokens_and_secrets_lie_in_memory_and_tokens_are_not_asked_for_twice() {
    if !may_mount() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let objects =
        Arc::new(FakeObjects::default().with_config_map("n", "kube-root-ca.crt", &[("ca.crt", "CA")]));
    let v = volumes(&tmp, objects.clone());
    let p = pod(
        json!({"securityContext": {"runAsUser": 1000}, "containers": [{"name": "c"}], "volumes": [{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}]}),
    );
    let path = v
        .set_up(&p, &facts())
        .await
        .unwrap()
        .get("t")
        .unwrap()
        .path
        .clone();
    v.set_up(&p, &facts()).await.unwrap();
    assert!(mounts::is_mount_point(&path));
    assert_eq!(objects.tokens.lock().as_slice(), [3607]);
    let token = std::fs::metadata(path.join("token")).unwrap();
    assert_eq!((token.uid(), token.mode() & 0o777), (1000, 0o600));
    assert_eq!(std::fs::read_to_string(path.join("namespace")).unwrap(), "n");
    assert_eq!(std::fs::read_to_string(path.join("ca.crt")).unwrap(), "CA");
    v.tear_down(&p.uid()).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_subpath_is_bound_by_handle_and_cannot_leave_its_volume() {
    if !may_mount() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let (volume, pod_dir) = (tmp.path().join("volume"), tmp.path().join("pod"));
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(tmp.path().join("outside"), "o").unwrap();
    std::os::unix::fs::symlink(tmp.path(), volume.join("out")).unwrap();
    std::fs::write(volume.join("file"), "inside").unwrap();
    let place = |index| subpath::Place {
        pod_dir: &pod_dir,
        volume: "v",
        container: "c",
        index,
    };
    assert!(subpath::prepare(&volume, "out/outside", &place(0)).is_err());
    assert!(subpath::prepare(&volume, "../outside", &place(0)).is_err());
    let file = subpath::prepare(&volume, "file", &place(1)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "inside");
    let made = subpath::prepare(&volume, "made/here", &place(2)).unwrap();
    std::fs::write(made.join("f"), "x").unwrap();
    assert!(volume.join("made/here/f").exists());
    for mount in mounts::below(tmp.path()).unwrap() {
        mounts::unmount(&mount).unwrap();
    }
}
