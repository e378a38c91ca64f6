//! ServiceAccount: every pod runs as an account, and gets that account's token by a projected volume.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta::Meta;
use apimachinery::value::{Object, Value};
use rand::Rng;

use super::objects::Objects;
use super::pod_references::{containers_mut, secret_names};
use super::{Operation, Plugin, Refusal, Seams, Verdict, forbidden};
use crate::authentication::token_request::WARN_ONLY_EXPIRATION_SECONDS;
use crate::authorization::node::populate::is_mirror;
use crate::registry::admission::Attributes;
use crate::storage::object::CachedObject;

const DEFAULT_ACCOUNT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ENFORCE_ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
const DEFAULT_MODE: i64 = 0o644;
/// The default account of a new namespace is made by a controller.
const DEFAULT_ACCOUNT_ATTEMPTS: u32 = 10;
const DEFAULT_ACCOUNT_PAUSE: Duration = Duration::from_millis(150);

pub struct ServiceAccount {
    objects: Arc<dyn Objects>,
}

impl ServiceAccount {
    pub fn new(seams: &Seams) -> Self {
        ServiceAccount {
            objects: seams.objects.clone(),
        }
    }

    fn account(&self, a: &Attributes, name: &str) -> Result<Arc<CachedObject>, Refusal> {
        self.objects
            .get("", "serviceaccounts", &a.namespace, name)
            .ok_or_else(|| {
                let why = format!(
                    "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                    a.namespace
                );
                match forbidden(a, why) {
                    Refusal::Status(error) if name == DEFAULT_ACCOUNT => Refusal::NotYet {
                        error,
                        attempts: DEFAULT_ACCOUNT_ATTEMPTS,
                        pause: DEFAULT_ACCOUNT_PAUSE,
                    },
                    other => other,
                }
            })
    }

    fn validate_mountable(&self, a: &Attributes, pod: &Value, lists: &[(&str, &str)]) -> Verdict {
        let account = self.account(a, pod.str_at("spec.serviceAccountName"))?.value();
        if !matches!(
            account.annotation(ENFORCE_ANNOTATION),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True")
        ) {
            return Ok(());
        }
        check_secrets(&account, pod, lists).map_err(|why| forbidden(a, why))
    }
}

impl Plugin for ServiceAccount {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if a.operation != Operation::Create || !super::is_main(a, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &a.object else { return Ok(()) };
        if is_mirror(pod) {
            return Ok(());
        }
        let name = match pod.str_at("spec.serviceAccountName") {
            "" => DEFAULT_ACCOUNT.to_owned(),
            name => name.to_owned(),
        };
        let account = self.account(a, &name)?.value();
        let Some(pod) = &mut a.object else { return Ok(()) };
        pod.set_at("spec.serviceAccountName", name.as_str());
        pod.set_at("spec.serviceAccount", name.as_str());
        if wants_token(&account, pod) {
            mount_token(pod);
        }
        let pull_secrets = account.list_at("imagePullSecrets");
        if pod.list_at("spec.imagePullSecrets").is_empty() && !pull_secrets.is_empty() {
            pod.set_at("spec.imagePullSecrets", pull_secrets.to_vec());
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(pod) = a.object.as_ref().filter(|_| a.is_resource("", "pods")) else {
            return Ok(());
        };
        match (a.operation, a.subresource.as_str()) {
            (Operation::Update, "ephemeralcontainers") => {
                self.validate_mountable(a, pod, &[("ephemeralContainers", "ephemeral container")])
            }
            (Operation::Create, "") if is_mirror(pod) => validate_mirror(a, pod),
            (Operation::Create, "") => self.validate_mountable(
                a,
                pod,
                &[("initContainers", "init container"), ("containers", "container")],
            ),
            _ => Ok(()),
        }
    }
}

fn wants_token(account: &Value, pod: &Value) -> bool {
    let said = |v: &Value, path: &str| v.at(path).and_then(Value::as_bool);
    said(pod, "spec.automountServiceAccountToken")
        .or_else(|| said(account, "automountServiceAccountToken"))
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    let existing = pod
        .list_at("spec.volumes")
        .iter()
        .map(|v| v.str_at("name"))
        .find(|n| n.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    let mut mounted = false;
    containers_mut(pod, &["initContainers", "containers"], &mut |container| {
        if container
            .list_at("volumeMounts")
            .iter()
            .any(|m| m.str_at("mountPath") == MOUNT_PATH)
        {
            return;
        }
        let mount = Value::from([
            ("name", name.as_str().into()),
            ("readOnly", true.into()),
            ("mountPath", MOUNT_PATH.into()),
        ]);
        container.list_mut_at("volumeMounts").push(mount);
        mounted = true;
    });
    if mounted && existing.is_none() {
        pod.list_mut_at("spec.volumes").push(token_volume(&name));
    }
}

/// Token, the cluster's CA and the pod's namespace under one folder.
fn token_volume(name: &str) -> Value {
    let one = |key: &'static str, value: Value| Value::from([(key, value)]);
    let token = one(
        "serviceAccountToken",
        Value::from([
            ("expirationSeconds", WARN_ONLY_EXPIRATION_SECONDS.into()),
            ("path", "token".into()),
        ]),
    );
    let ca_item = Value::from([("key", "ca.crt".into()), ("path", "ca.crt".into())]);
    let ca = one(
        "configMap",
        Value::from([
            ("name", "kube-root-ca.crt".into()),
            ("items", vec![ca_item].into()),
        ]),
    );
    let field = Value::from([
        ("apiVersion", "v1".into()),
        ("fieldPath", "metadata.namespace".into()),
    ]);
    let item = Value::from([("path", "namespace".into()), ("fieldRef", field)]);
    let downward = one("downwardAPI", one("items", vec![item].into()));
    let projected = Value::from([
        ("sources", vec![token, ca, downward].into()),
        ("defaultMode", DEFAULT_MODE.into()),
    ]);
    let mut volume = Value::Object(Object::new());
    volume.set("name", name);
    volume.set("projected", projected);
    volume
}

/// Five characters that spell no words, as generated names end.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5)
        .map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char)
        .collect()
}

fn validate_mirror(a: &Attributes, pod: &Value) -> Verdict {
    if !pod.str_at("spec.serviceAccountName").is_empty() {
        return Err(forbidden(a, "a mirror pod may not reference service accounts"));
    }
    let mut secrets = false;
    secret_names(pod, &mut |_| secrets = true);
    if secrets {
        return Err(forbidden(a, "a mirror pod may not reference secrets"));
    }
    let sources = pod
        .list_at("spec.volumes")
        .iter()
        .flat_map(|v| v.list_at("projected.sources"));
    if sources
        .into_iter()
        .any(|s| s.get("serviceAccountToken").is_some())
    {
        return Err(forbidden(
            a,
            "a mirror pod may not use ServiceAccountToken volume projections",
        ));
    }
    Ok(())
}

/// With the annotation, a pod may name only the secrets that its account lists: in volumes, in every kind of
/// container's env and envFrom, and for pulling images.
fn check_secrets(account: &Value, pod: &Value, lists: &[(&str, &str)]) -> Result<(), String> {
    let listed = |path: &str, name: &str| account.list_at(path).iter().any(|s| s.str_at("name") == name);
    let owner = account.name();
    let refuse = |what: String| {
        Err(format!(
            "{what} is not allowed because service account {owner} does not reference that secret"
        ))
    };
    let whole_pod = lists.iter().any(|(list, _)| *list == "containers");
    for volume in pod.list_at("spec.volumes").iter().filter(|_| whole_pod) {
        let name = volume.str_at("secret.secretName");
        if volume.get("secret").is_some() && !listed("secrets", name) {
            return refuse(format!("volume with secret.secretName={name:?}"));
        }
    }
    for (list, kind) in lists {
        for container in pod.get("spec").map(|s| s.list_at(list)).unwrap_or_default() {
            let of = container.str_at("name");
            for env in container.list_at("env") {
                let name = env.str_at("valueFrom.secretKeyRef.name");
                if env.at("valueFrom.secretKeyRef").is_some() && !listed("secrets", name) {
                    return refuse(format!(
                        "{kind} {of} with envVar {} referencing secret.secretName={name:?}",
                        env.str_at("name")
                    ));
                }
            }
            for source in container.list_at("envFrom") {
                let name = source.str_at("secretRef.name");
                if source.get("secretRef").is_some() && !listed("secrets", name) {
                    return refuse(format!(
                        "{kind} {of} with envFrom referencing secret.secretName={name:?}"
                    ));
                }
            }
        }
    }
    for (at, reference) in pod
        .list_at("spec.imagePullSecrets")
        .iter()
        .enumerate()
        .filter(|_| whole_pod)
    {
        let name = reference.str_at("name");
        if !listed("imagePullSecrets", name) {
            return Err(format!(
                "imagePullSecrets[{at}].name={name:?} is not allowed because service account {owner} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, message, new_pod, object, seams};
    use super::*;
    use serde_json::json;

    fn plugin(account: serde_json::Value) -> ServiceAccount {
        let mut account = account;
        account["metadata"]["name"] = "default".into();
        account["metadata"]["namespace"] = "ns".into();
        ServiceAccount::new(&seams(Cluster::default().with("v1", "ServiceAccount", account)))
    }

    fn pod() -> serde_json::Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}})
    }

    #[test]
    fn a_pod_gets_the_default_account_and_its_token() {
        let mut a = new_pod(pod());
        plugin(json!({"imagePullSecrets": [{"name": "reg"}]}))
            .admit(&mut a)
            .expect("admitted");
        let spec = &object(&a)["spec"];
        assert_eq!(
            (&spec["serviceAccountName"], &spec["imagePullSecrets"]),
            (&json!("default"), &json!([{"name": "reg"}]))
        );
        let volume = &spec["volumes"][0];
        assert!(
            volume["name"]
                .as_str()
                .is_some_and(|n| n.len() == VOLUME_PREFIX.len() + 5 && n.starts_with(VOLUME_PREFIX))
        );
        assert_eq!(
            volume["projected"]["sources"][0]["serviceAccountToken"],
            json!({"expirationSeconds": 3607, "path": "token"})
        );
        assert_eq!(volume["projected"]["defaultMode"], 420);
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(
            spec["containers"][1]["volumeMounts"]
                .as_array()
                .expect("mounts")
                .len(),
            1,
            "its own mount stays"
        );
    }

    #[test]
    fn automount_can_be_refused_by_pod_or_account() {
        let volumes = |account: serde_json::Value, said: serde_json::Value| {
            let mut wanted = pod();
            wanted["spec"]["automountServiceAccountToken"] = said;
            let mut a = new_pod(wanted);
            plugin(account).admit(&mut a).expect("admitted");
            object(&a)["spec"]["volumes"].as_array().map_or(0, Vec::len)
        };
        assert_eq!(volumes(json!({}), json!(false)), 0);
        assert_eq!(
            volumes(json!({"automountServiceAccountToken": false}), json!(null)),
            0
        );
        assert_eq!(
            volumes(json!({"automountServiceAccountToken": false}), json!(true)),
            1
        );
    }

    #[test]
    fn a_missing_account_is_waited_for_only_if_it_is_the_default() {
        let mut named = pod();
        named["spec"]["serviceAccountName"] = "robot".into();
        let refused = plugin(json!({})).admit(&mut new_pod(named)).expect_err("refused");
        assert!(
            matches!(refused, Refusal::Status(e) if e.message == r#"pods "p" is forbidden: error looking up service account ns/robot: serviceaccount "robot" not found"#)
        );
        let empty = ServiceAccount::new(&seams(Cluster::default()));
        assert!(matches!(
            empty.admit(&mut new_pod(pod())),
            Err(Refusal::NotYet { .. })
        ));
    }

    #[test]
    fn enforced_secrets_cover_env_from_and_every_kind_of_container() {
        let account =
            json!({"metadata": {"annotations": {ENFORCE_ANNOTATION: "true"}}, "secrets": [{"name": "ok"}]});
        let check = |extra: serde_json::Value, sub: &str| {
            let mut wanted =
                json!({"spec": {"serviceAccountName": "default", "containers": [{"name": "a"}]}});
            for (key, value) in extra.as_object().expect("fields") {
                wanted["spec"][key] = value.clone();
            }
            let mut a = new_pod(wanted);
            if !sub.is_empty() {
                a.operation = Operation::Update;
                a.subresource = sub.into();
            }
            plugin(account.clone()).validate(&a)
        };
        let from = |name: &str| json!([{"name": "x", "envFrom": [{"secretRef": {"name": name}}]}]);
        assert!(check(json!({"containers": from("ok")}), "").is_ok());
        assert!(
            message(check(json!({"containers": from("other")}), "")).contains("container x with envFrom")
        );
        assert!(message(check(json!({"initContainers": from("other")}), "")).contains("init container x"));
        assert!(
            message(check(
                json!({"ephemeralContainers": from("other")}),
                "ephemeralcontainers"
            ))
            .contains("ephemeral container x")
        );
        assert!(
            message(check(
                json!({"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}),
                ""
            ))
            .contains("volume with secret.secretName")
        );
        assert!(check(json!({"imagePullSecrets": [{"name": "other"}]}), "").is_err());
    }
}
