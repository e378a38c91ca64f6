//! Fills ClusterRoles that have an aggregation rule with the rules of all roles that it selects.

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Outcome, Reconciler, Requeue, synced};
use crate::meta::name;
use crate::selector;
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, Patch};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;
use std::sync::Arc;

const MANAGER: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 5;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("ClusterRoleAggregator");
    let roles = context.informers.cluster_roles.start();
    context.informers.cluster_roles.on_event({
        let (queue, roles) = (queue.clone(), roles.clone());
        // Any role may be selected by any aggregating one, and those are few.
        move |event| {
            if matches!(event, Event::Synced) || roles.is_synced() {
                roles
                    .list()
                    .iter()
                    .filter(|r| r.aggregation_rule.is_some())
                    .for_each(|r| queue.add(name(&r.metadata).to_owned()));
            }
        }
    });
    let reconciler = Arc::new(Aggregator {
        client: context.client_for(MANAGER),
        roles: roles.clone(),
    });
    Some(Box::new(Driver {
        name: MANAGER,
        queue,
        reconciler,
        workers: WORKERS,
        needs: vec![synced(&roles)],
    }))
}

struct Aggregator {
    client: Client,
    roles: Store<ClusterRole>,
}

impl Reconciler for Aggregator {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(role) = self.roles.get(key).filter(|r| r.aggregation_rule.is_some()) else {
            return Ok(Requeue::Done);
        };
        let rules = self.collected(&role);
        if rules == role.rules.clone().unwrap_or_default() {
            return Ok(Requeue::Done);
        }
        let body = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": key}, "rules": rules});
        let patch = Patch::Apply {
            body,
            manager: MANAGER.into(),
            force: true,
        };
        match self.client.all::<ClusterRole>().patch(key, &patch, None).await {
            // Server-side apply may be off; then the whole role is written, guarded by its version.
            Err(error) if error.code() == Some(415) => self
                .client
                .all()
                .update(&ClusterRole {
                    rules: Some(rules),
                    ..(*role).clone()
                })
                .await
                .map(drop)?,
            outcome => drop(outcome?),
        }
        Ok(Requeue::Done)
    }
}

impl Aggregator {
    /// In the order of names, each rule once: the same on every pass.
    fn collected(&self, role: &ClusterRole) -> Vec<PolicyRule> {
        let selectors = role
            .aggregation_rule
            .as_ref()
            .and_then(|a| a.cluster_role_selectors.as_deref())
            .unwrap_or_default();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in selectors {
            let mut chosen: Vec<_> = self
                .roles
                .list()
                .into_iter()
                .filter(|r| r.metadata.name != role.metadata.name && selector::selects(selector, &r.metadata))
                .collect();
            chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            for rule in chosen.iter().flat_map(|r| r.rules.iter().flatten()) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;

    fn role(value: serde_json::Value) -> ClusterRole {
        serde_json::from_value(value).unwrap()
    }

    #[tokio::test]
    async fn selected_rules_are_collected_once_and_then_nothing_is_written() {
        let server = FakeServer::new();
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let labels = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
        let parts =
            ["a", "b"].map(|n| role(json!({"metadata": {"name": n, "labels": labels}, "rules": [rule]})));
        let view = role(
            json!({"metadata": {"name": "view"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": labels}]}}),
        );
        let view = server.client().all().create(&view).await.unwrap();
        let roles = Store::of(parts.iter().cloned().chain([view]));
        Aggregator {
            client: server.client(),
            roles,
        }
        .reconcile("view")
        .await
        .unwrap();
        let filled = server.client().all::<ClusterRole>().get("view").await.unwrap();
        assert_eq!(filled.rules.as_ref().unwrap().len(), 1);
        server.forget_writes();
        let roles = Store::of(parts.into_iter().chain([filled]));
        Aggregator {
            client: server.client(),
            roles,
        }
        .reconcile("view")
        .await
        .unwrap();
        assert!(server.writes().is_empty());
    }
}
