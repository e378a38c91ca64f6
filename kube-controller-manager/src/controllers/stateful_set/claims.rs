//! The volume claims of members: made before the pod, owned as the retention policy says.

use super::identity::{claims, range};
use super::{StatefulSets, spec};
use crate::driver::Failure;
use crate::meta::{controller_reference, is_deleted, key_in, name, namespace, uid};
use client::Patch;
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

impl StatefulSets {
    pub(super) async fn make_claims(
        &self,
        set: &StatefulSet,
        pod_name: &str,
        ordinal: i32,
    ) -> Result<(), Failure> {
        for claim in claims(set, ordinal) {
            let claim_name = name(&claim.metadata).to_owned();
            match self.claims.get(&key_in(namespace(&set.metadata), &claim_name)) {
                Some(known) if is_deleted(&known.metadata) => {
                    return Err(Failure::other(format!("pvc {claim_name} is being deleted")));
                }
                Some(_) => {}
                None => self.make_claim(set, pod_name, &claim).await?,
            }
        }
        Ok(())
    }

    async fn make_claim(
        &self,
        set: &StatefulSet,
        pod_name: &str,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Failure> {
        let (set_name, claim_name) = (name(&set.metadata), name(&claim.metadata));
        match self
            .client
            .namespaced(namespace(&set.metadata))
            .create(claim)
            .await
        {
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                self.tell(set, "Warning", "FailedCreate", &format!("Create Claim {claim_name} for Pod {pod_name} in StatefulSet {set_name} failed error: {error}"));
                Err(error.into())
            }
            Ok(_) => {
                self.tell(
                    set,
                    "Normal",
                    "SuccessfulCreate",
                    &format!("Create Claim {claim_name} Pod {pod_name} in StatefulSet {set_name} success"),
                );
                Ok(())
            }
        }
    }

    /// Owner references make the garbage collector delete a claim with the set, or with a pod that was scaled away.
    pub(super) async fn own_claims(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), Failure> {
        for wanted in claims(set, ordinal) {
            let key = key_in(namespace(&set.metadata), name(&wanted.metadata));
            let Some(claim) = self.claims.get(&key) else {
                continue;
            };
            let Some(references) = owners(set, pod, ordinal, &claim) else {
                continue;
            };
            let patch = json!({"metadata": {"uid": uid(&claim.metadata), "resourceVersion": claim.metadata.resource_version, "ownerReferences": references}});
            let api = self
                .client
                .namespaced::<PersistentVolumeClaim>(namespace(&set.metadata));
            api.patch(name(&claim.metadata), &Patch::Merge(patch), None)
                .await?;
        }
        Ok(())
    }

    /// A claim that belongs to an earlier pod of this name goes with that pod: the new one must wait for it.
    pub(super) fn has_stale_claim(&self, set: &StatefulSet, ordinal: i32, pod_name: &str) -> bool {
        policy(set).1
            && claims(set, ordinal).iter().any(|wanted| {
                let claim = self
                    .claims
                    .get(&key_in(namespace(&set.metadata), name(&wanted.metadata)));
                claim.is_some_and(|c| {
                    c.metadata
                        .owner_references
                        .iter()
                        .flatten()
                        .any(|r| r.kind == Pod::KIND && r.name == pod_name)
                })
            })
    }
}

/// Whether claims go with the set, and whether they go with pods that are scaled away.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let spec = spec(set);
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|w| w == "Delete");
    (
        deletes(policy.and_then(|p| p.when_deleted.as_ref())),
        deletes(policy.and_then(|p| p.when_scaled.as_ref())),
    )
}

/// The references the claim should have; `None` when it has them, or when somebody else's stand in the way.
fn owners(
    set: &StatefulSet,
    pod: &Pod,
    ordinal: i32,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let known = claim.metadata.owner_references.clone().unwrap_or_default();
    let is_set = |r: &OwnerReference| r.kind == StatefulSet::KIND && r.name == name(&set.metadata);
    let is_pod = |r: &OwnerReference| r.kind == Pod::KIND && r.name == name(&pod.metadata);
    let stale = known
        .iter()
        .any(|r| (is_set(r) && r.uid != uid(&set.metadata)) || (is_pod(r) && r.uid != uid(&pod.metadata)));
    if stale {
        return None;
    }
    let mut wanted: Vec<_> = known
        .iter()
        .filter(|r| !is_set(r) && !is_pod(r))
        .cloned()
        .collect();
    let (with_set, with_scale) = policy(set);
    let foreign = wanted.iter().any(|r| r.controller == Some(true));
    let scaled_away = !range(set).contains(&ordinal);
    if !foreign && with_scale && scaled_away {
        wanted.push(controller_reference(pod));
    } else if !foreign && with_set {
        wanted.push(controller_reference(set));
    }
    let same = wanted.len() == known.len() && wanted.iter().all(|w| known.contains(w));
    (!same).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(with_set: &str, with_scale: &str, ordinal: i32) -> Vec<String> {
        let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "web", "uid": "s"}, "spec": {"replicas": 2, "selector": {}, "template": {},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": with_set, "whenScaled": with_scale}}}))
        .unwrap();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": format!("web-{ordinal}"), "uid": "p"}}))
                .unwrap();
        let references = owners(&set, &pod, ordinal, &PersistentVolumeClaim::default()).unwrap_or_default();
        references.into_iter().map(|r| r.kind).collect()
    }

    #[test]
    fn the_retention_policy_decides_who_owns_a_claim() {
        assert!(kinds("Retain", "Retain", 5).is_empty());
        assert_eq!(kinds("Delete", "Retain", 5), ["StatefulSet"]);
        assert_eq!(kinds("Delete", "Delete", 5), ["Pod"]);
        assert_eq!(kinds("Delete", "Delete", 1), ["StatefulSet"]);
        assert!(kinds("Retain", "Delete", 1).is_empty());
    }
}
