//! One pass over the pods of a StatefulSet, in the order of their ordinals unless it is parallel.

use super::history::History;
use super::identity::{has_identity, labels, new_pod, ordinal, range, revision, start};
use super::{StatefulSets, is_rolling, spec};
use crate::controllers::controller_revision;
use crate::driver::Failure;
use crate::meta::{is_deleted, name, namespace, uid};
use crate::pod::{is_available, is_ready, is_terminal, phase};
use client::{DeleteOptions, Patch, Preconditions};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;

/// Pods by ordinal, and those whose ordinal is out of range, the highest first.
pub struct Members {
    pub replicas: Vec<Member>,
    pub condemned: Vec<Member>,
}

#[derive(Clone)]
pub struct Member {
    pub ordinal: i32,
    /// `None`: to be created.
    pub pod: Option<Arc<Pod>>,
}

/// Whether the pass goes on.
#[derive(PartialEq)]
enum Next {
    Continue,
    Stop,
}

impl Members {
    pub fn of(set: &StatefulSet, pods: &[Arc<Pod>]) -> Self {
        let mut replicas: Vec<_> = range(set).map(|ordinal| Member { ordinal, pod: None }).collect();
        let mut condemned = Vec::new();
        for pod in pods {
            let Some(ordinal) = ordinal(pod) else { continue };
            let at = usize::try_from(ordinal - start(set)).ok();
            match at.and_then(|at| replicas.get_mut(at)) {
                Some(member) => member.pod = Some(pod.clone()),
                None => condemned.push(Member {
                    ordinal,
                    pod: Some(pod.clone()),
                }),
            }
        }
        condemned.sort_by_key(|m| std::cmp::Reverse(m.ordinal));
        Members { replicas, condemned }
    }

    /// The lowest of the replicas, else of the condemned.
    fn first_unavailable(&self, min_ready: i32) -> Option<i32> {
        self.replicas
            .iter()
            .chain(self.condemned.iter().rev())
            .find(|m| m.is_unavailable(min_ready))
            .map(|m| m.ordinal)
    }
}

impl Member {
    fn is_unavailable(&self, min_ready: i32) -> bool {
        self.pod
            .as_ref()
            .is_none_or(|p| !is_available(p, min_ready) || is_deleted(&p.metadata))
    }
}

impl StatefulSets {
    pub(super) async fn roll(
        &self,
        set: &StatefulSet,
        members: &Members,
        history: &History,
    ) -> Result<(), Failure> {
        let ordered = spec(set).pod_management_policy.as_deref() != Some("Parallel");
        for member in &members.replicas {
            if self.keep(set, member, history, ordered).await? == Next::Stop && ordered {
                return Ok(());
            }
        }
        for member in &members.condemned {
            if let Some(pod) = &member.pod {
                self.own_claims(set, pod, member.ordinal).await?;
            }
        }
        let first_unavailable = members.first_unavailable(spec(set).min_ready_seconds.unwrap_or(0));
        for member in &members.condemned {
            if self.condemn(set, member, first_unavailable, ordered).await? == Next::Stop && ordered {
                return Ok(());
            }
        }
        match is_rolling(set) {
            true => self.replace_outdated(set, members, history).await,
            false => Ok(()),
        }
    }

    /// Makes one replica exist, and waits for it where order matters.
    async fn keep(
        &self,
        set: &StatefulSet,
        member: &Member,
        history: &History,
        ordered: bool,
    ) -> Result<Next, Failure> {
        let Some(pod) = &member.pod else {
            self.create(set, member.ordinal, history).await?;
            return Ok(Next::Stop);
        };
        if is_terminal(pod) {
            // Its successor comes when it is gone.
            if !is_deleted(&pod.metadata) {
                self.delete(set, pod).await?;
            }
            return Ok(Next::Stop);
        }
        if phase(pod) == "Pending" {
            self.make_claims(set, name(&pod.metadata), member.ordinal).await?;
        }
        if ordered
            && (is_deleted(&pod.metadata)
                || phase(pod) != "Running"
                || !is_available(pod, spec(set).min_ready_seconds.unwrap_or(0)))
        {
            return Ok(Next::Stop);
        }
        self.own_claims(set, pod, member.ordinal).await?;
        if !has_identity(pod) {
            self.give_identity(set, pod, member.ordinal).await?;
        }
        Ok(Next::Continue)
    }

    async fn condemn(
        &self,
        set: &StatefulSet,
        member: &Member,
        first_unavailable: Option<i32>,
        ordered: bool,
    ) -> Result<Next, Failure> {
        let Some(pod) = &member.pod else {
            return Ok(Next::Continue);
        };
        if is_deleted(&pod.metadata) {
            return Ok(if ordered { Next::Stop } else { Next::Continue });
        }
        // An unhealthy one goes only when it is the one that holds up all others.
        let healthy = phase(pod) == "Running"
            && is_ready(pod)
            && is_available(pod, spec(set).min_ready_seconds.unwrap_or(0));
        if ordered && !healthy && first_unavailable != Some(member.ordinal) {
            return Ok(Next::Stop);
        }
        self.delete(set, pod).await?;
        Ok(Next::Stop)
    }

    /// From the highest ordinal down to the partition, one at a time. An outdated pod goes whether it is well or not.
    async fn replace_outdated(
        &self,
        set: &StatefulSet,
        members: &Members,
        history: &History,
    ) -> Result<(), Failure> {
        let min_ready = spec(set).min_ready_seconds.unwrap_or(0);
        let target = name(&history.update.metadata);
        let from = usize::try_from(partition(set))
            .unwrap_or(0)
            .min(members.replicas.len());
        for member in members.replicas[from..].iter().rev() {
            let outdated = member
                .pod
                .as_ref()
                .filter(|p| revision(p) != target && !is_deleted(&p.metadata));
            if let Some(pod) = outdated {
                return self.delete(set, pod).await;
            }
            if member.is_unavailable(min_ready) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn create(&self, set: &StatefulSet, ordinal: i32, history: &History) -> Result<(), Failure> {
        let of_update = !is_of_current(set, ordinal);
        let revision = if of_update {
            &history.update
        } else {
            &history.current
        };
        let template = if of_update {
            Some(spec(set).template.clone())
        } else {
            controller_revision::template_of(revision)
        };
        let template = template.ok_or_else(|| {
            Failure::other(format!(
                "controllerrevision {} holds no template",
                name(&revision.metadata)
            ))
        })?;
        let pod = new_pod(set, &template, name(&revision.metadata), ordinal);
        let pod_name = name(&pod.metadata);
        if self.has_stale_claim(set, ordinal, pod_name) {
            return Ok(());
        }
        if let Err(failure) = self.make_claims(set, pod_name, ordinal).await {
            self.tell_pod("Create", set, pod_name, Some(&failure.to_string()));
            return Err(failure);
        }
        let created = self
            .client
            .namespaced::<Pod>(namespace(&set.metadata))
            .create(&pod)
            .await;
        match created {
            // Our cache is behind: the pod's event will wake us.
            Err(error) if error.is_already_exists() => return Err(Failure::NotYet(error.to_string())),
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => {
                self.tell_pod("Create", set, pod_name, Some(&error.to_string()));
                return Err(error.into());
            }
            Ok(created) => self.own_claims(set, &created, ordinal).await?,
        }
        self.tell_pod("Create", set, pod_name, None);
        Ok(())
    }

    /// By uid: a cache that is behind must not delete the successor, which has the same name.
    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Failure> {
        let preconditions = Preconditions {
            uid: Some(uid(&pod.metadata).to_owned()),
            ..Preconditions::default()
        };
        let options = DeleteOptions {
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        let deleted = self
            .client
            .namespaced::<Pod>(namespace(&pod.metadata))
            .delete(name(&pod.metadata), &options)
            .await;
        match deleted {
            Err(error) if error.is_conflict() => Err(Failure::NotYet(error.to_string())),
            Err(error) if !error.is_not_found() => {
                self.tell_pod("Delete", set, name(&pod.metadata), Some(&error.to_string()));
                Err(error.into())
            }
            _ => {
                self.tell_pod("Delete", set, name(&pod.metadata), None);
                Ok(())
            }
        }
    }

    async fn give_identity(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), Failure> {
        let pod_name = name(&pod.metadata);
        let patch = json!({"metadata": {"uid": uid(&pod.metadata), "labels": labels(pod_name, ordinal).into_iter().collect::<std::collections::BTreeMap<_, _>>()}});
        self.client
            .namespaced::<Pod>(namespace(&pod.metadata))
            .patch(pod_name, &Patch::Merge(patch), None)
            .await?;
        self.tell_pod("Update", set, pod_name, None);
        Ok(())
    }

    fn tell_pod(&self, verb: &str, set: &StatefulSet, pod: &str, error: Option<&str>) {
        let set_name = name(&set.metadata);
        match error {
            None => self.tell(
                set,
                "Normal",
                &format!("Successful{verb}"),
                &format!("{verb} Pod {pod} in StatefulSet {set_name} successful"),
            ),
            Some(error) => self.tell(
                set,
                "Warning",
                &format!("Failed{verb}"),
                &format!("{verb} Pod {pod} in StatefulSet {set_name} failed error: {error}"),
            ),
        }
    }
}

fn partition(set: &StatefulSet) -> i32 {
    let spec = spec(set);
    spec.update_strategy
        .as_ref()
        .and_then(|s| s.rolling_update.as_ref())
        .and_then(|r| r.partition)
        .unwrap_or(0)
}

/// Pods below the partition stay at, and come back at, the revision from before.
fn is_of_current(set: &StatefulSet, ordinal: i32) -> bool {
    let spec = spec(set);
    let rolling = spec
        .update_strategy
        .as_ref()
        .and_then(|s| s.rolling_update.as_ref());
    match rolling {
        Some(_) => ordinal < start(set) + partition(set),
        None => {
            is_rolling(set)
                && ordinal < start(set) + set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0)
        }
    }
}
