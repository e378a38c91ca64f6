//! The steps: resize, roll, recreate, clean up.

use super::replica_sets::{annotate_sizes, revision};
use super::sizes::{
    healthy_next, is_active, is_saturated, new_size, old_to_scale_down, proportional, total, unhealthy_first,
};
use super::status::is_complete;
use super::{Deployments, Pass, is_rolling, set_name, set_replicas, spec};
use crate::driver::{Failure, Outcome};
use crate::informers::OWNER;
use crate::meta::{is_deleted, namespace, uid};
use crate::pod::is_terminal;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

impl Deployments {
    /// A change of size without a change of template, or anything while paused: no set is made.
    pub(super) async fn resize(&self, mut pass: Pass) -> Outcome {
        self.sync_new_set(&mut pass, false).await?;
        self.scale_all(&mut pass).await?;
        if spec(&pass.deployment).paused == Some(true) {
            self.clean_up(&pass).await?;
        }
        self.write_status_only(pass).await
    }

    async fn scale_all(&self, pass: &mut Pass) -> Result<(), Failure> {
        let wanted = pass.wanted();
        if let Some(name) = single(pass) {
            return self.scale_named(pass, &[(name, wanted)]).await;
        }
        let sizes = if is_saturated(pass) {
            pass.old
                .iter()
                .filter(|s| is_active(s))
                .map(|s| (set_name(s).to_owned(), 0))
                .collect()
        } else if is_rolling(&pass.deployment) {
            proportional(&pass.deployment, pass.all().filter(|s| is_active(s)).collect())
        } else {
            Vec::new()
        };
        self.scale_named(pass, &sizes).await
    }

    async fn scale_named(&self, pass: &mut Pass, sizes: &[(String, i32)]) -> Result<(), Failure> {
        let Pass { deployment, new, old } = pass;
        for set in old.iter_mut().chain(new) {
            if let Some((_, size)) = sizes.iter().find(|(name, _)| name == set_name(set)) {
                self.scale(deployment, set, *size).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn roll(&self, mut pass: Pass) -> Outcome {
        self.sync_new_set(&mut pass, true).await?;
        if self.grow_new(&mut pass).await? || self.shrink_old(&mut pass).await? {
            return self.write_rollout_status(pass).await;
        }
        self.finish(pass).await
    }

    async fn grow_new(&self, pass: &mut Pass) -> Result<bool, Failure> {
        let (wanted, all) = (pass.wanted(), total(pass.all()));
        let Pass {
            deployment,
            new: Some(new),
            ..
        } = pass
        else {
            return Ok(false);
        };
        let size = set_replicas(new);
        if size == wanted {
            return Ok(false);
        }
        let target = if size > wanted {
            wanted
        } else {
            new_size(deployment, all, size)
        };
        self.scale(deployment, new, target).await
    }

    async fn shrink_old(&self, pass: &mut Pass) -> Result<bool, Failure> {
        let budget = old_to_scale_down(pass);
        if total(&pass.old) == 0 || budget <= 0 {
            return Ok(false);
        }
        let mut scaled = false;
        for (index, size) in unhealthy_first(&pass.old, budget) {
            scaled |= self.scale(&pass.deployment, &mut pass.old[index], size).await?;
        }
        for (index, size) in healthy_next(pass) {
            scaled |= self.scale(&pass.deployment, &mut pass.old[index], size).await?;
        }
        Ok(scaled)
    }

    pub(super) async fn recreate(&self, mut pass: Pass) -> Outcome {
        self.sync_new_set(&mut pass, false).await?;
        let mut scaled = false;
        for set in pass.old.iter_mut().filter(|s| is_active(s)) {
            scaled |= self.scale(&pass.deployment, set, 0).await?;
        }
        if scaled || self.old_pods_run(&pass) {
            return self.write_rollout_status(pass).await;
        }
        if pass.new.is_none() {
            self.sync_new_set(&mut pass, true).await?;
        }
        let wanted = pass.wanted();
        if let Some(new) = &mut pass.new {
            self.scale(&pass.deployment, new, wanted).await?;
        }
        self.finish(pass).await
    }

    fn old_pods_run(&self, pass: &Pass) -> bool {
        let counted = |set: &ReplicaSet| set.status.as_ref().is_some_and(|s| s.replicas > 0);
        let has_pods = |set: &ReplicaSet| {
            self.pods
                .by_index(OWNER, uid(&set.metadata))
                .iter()
                .any(|p| !is_terminal(p))
        };
        pass.old.iter().any(|set| counted(set) || has_pods(set))
    }

    async fn finish(&self, pass: Pass) -> Outcome {
        if pass
            .deployment
            .status
            .as_ref()
            .is_some_and(|status| is_complete(&pass.deployment, status))
        {
            self.clean_up(&pass).await?;
        }
        self.write_rollout_status(pass).await
    }

    /// Old sets beyond the history limit go, the oldest revisions first.
    async fn clean_up(&self, pass: &Pass) -> Result<(), Failure> {
        let Some(limit) = spec(&pass.deployment)
            .revision_history_limit
            .filter(|l| *l != i32::MAX)
        else {
            return Ok(());
        };
        let mut sets: Vec<_> = pass.old.iter().filter(|s| !is_deleted(&s.metadata)).collect();
        let excess = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        sets.sort_by_key(|s| revision(s));
        for set in sets.into_iter().take(excess).filter(|s| is_idle(s)) {
            match self
                .client
                .namespaced::<ReplicaSet>(namespace(&set.metadata))
                .delete(set_name(set), &Default::default())
                .await
            {
                Err(error) if error.is_not_found() => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// True when the size changed. The annotations that remember what the sizes were meant for change along.
    async fn scale(&self, deployment: &Deployment, set: &mut ReplicaSet, size: i32) -> Result<bool, Failure> {
        let before = set_replicas(set);
        let mut changed = set.clone();
        changed.spec.get_or_insert_default().replicas = Some(size);
        let annotated = annotate_sizes(deployment, &mut changed);
        if before == size && !annotated {
            return Ok(false);
        }
        *set = self
            .client
            .namespaced(namespace(&changed.metadata))
            .update(&changed)
            .await?;
        if before != size {
            let direction = if size > before { "up" } else { "down" };
            self.tell(
                deployment,
                "Normal",
                "ScalingReplicaSet",
                &format!(
                    "Scaled {direction} replica set {} from {before} to {size}",
                    set_name(set)
                ),
            );
        }
        Ok(before != size)
    }
}

/// The only set that runs pods, or the newest when none does: it takes any size as it is.
fn single(pass: &Pass) -> Option<String> {
    let active: Vec<_> = pass.all().filter(|s| is_active(s)).collect();
    match active.as_slice() {
        [] => pass
            .new
            .as_ref()
            .or_else(|| pass.old.last())
            .map(|s| set_name(s).to_owned()),
        [only] => Some(set_name(only).to_owned()),
        _ => None,
    }
}

fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.replicas == 0 && set_replicas(set) == 0 && set.metadata.generation <= status.observed_generation
}
