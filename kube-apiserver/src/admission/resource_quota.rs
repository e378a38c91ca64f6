//! ResourceQuota: how many objects a namespace may hold.
//!
//! Counts are taken from the caches at the time of the request. Sums of requests and limits (`requests.cpu`, ...)
//! need the quota controller's accounting and are not enforced yet.

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::quantity::Quantity;
use apimachinery::value::Value;

use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict, forbidden};
use crate::registry::admission::Attributes;

/// Resources with a name of their own among the quota's, besides `count/...`.
const NAMED: [&str; 7] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];

pub struct ResourceQuota {
    objects: Arc<dyn Objects>,
}

impl ResourceQuota {
    pub fn new(seams: &Seams) -> Self {
        ResourceQuota {
            objects: seams.objects.clone(),
        }
    }

    fn used(&self, a: &Attributes) -> i64 {
        let objects = self
            .objects
            .list_namespace(&a.resource_group, &a.resource, &a.namespace);
        let counts = |o: &&Arc<crate::storage::object::CachedObject>| {
            a.resource != "pods"
                || !a.resource_group.is_empty()
                || !matches!(o.field("status.phase"), Some("Succeeded" | "Failed"))
        };
        objects.iter().filter(counts).count() as i64
    }
}

impl Plugin for ResourceQuota {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        if a.namespace.is_empty() || !a.subresource.is_empty() {
            return Ok(());
        }
        let names = quota_names(a);
        for quota in self.objects.list_namespace("", "resourcequotas", &a.namespace) {
            let quota = quota.value();
            // Scopes choose among pods by what they are: such a quota is not a plain count.
            if !quota.list_at("spec.scopes").is_empty()
                || quota.at("spec.scopeSelector").is_some_and(|s| !s.is_null())
            {
                continue;
            }
            for name in &names {
                let Some(hard) = limit(&quota, name) else { continue };
                let used = self.used(a);
                if used + 1 > hard {
                    let why = format!(
                        "exceeded quota: {}, requested: {name}=1, used: {name}={used}, limited: {name}={hard}",
                        quota.name()
                    );
                    return Err(forbidden(a, why));
                }
            }
        }
        Ok(())
    }
}

fn limit(quota: &Value, name: &str) -> Option<i64> {
    let text = quota.at("spec.hard")?.get(name)?.as_str()?;
    Quantity::parse(text).ok().map(|q| q.value())
}

/// `pods`, `count/pods`, `count/deployments.apps`.
fn quota_names(a: &Attributes) -> Vec<String> {
    let group = if a.resource_group.is_empty() {
        String::new()
    } else {
        format!(".{}", a.resource_group)
    };
    let mut names = vec![format!("count/{}{group}", a.resource)];
    if group.is_empty() && NAMED.contains(&a.resource.as_str()) {
        names.push(a.resource.clone());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, message, seams};
    use super::*;
    use serde_json::json;

    fn plugin(hard: serde_json::Value) -> ResourceQuota {
        let cluster = Cluster::default()
            .with(
                "v1",
                "ResourceQuota",
                json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}}),
            )
            .with(
                "v1",
                "ConfigMap",
                json!({"metadata": {"namespace": "ns", "name": "one"}}),
            )
            .with(
                "v1",
                "ConfigMap",
                json!({"metadata": {"namespace": "other", "name": "two"}}),
            );
        ResourceQuota::new(&seams(cluster))
    }

    #[test]
    fn objects_of_the_namespace_are_counted() {
        let create = |namespace: &str| {
            attributes(
                Operation::Create,
                "",
                "configmaps",
                namespace,
                "new",
                Some(json!({})),
            )
        };
        assert!(plugin(json!({"configmaps": "2"})).validate(&create("ns")).is_ok());
        let refused = message(plugin(json!({"configmaps": "1"})).validate(&create("ns")));
        assert_eq!(
            refused,
            r#"configmaps "new" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1"#
        );
        assert!(
            plugin(json!({"count/configmaps": "1"}))
                .validate(&create("ns"))
                .is_err()
        );
        assert!(
            plugin(json!({"configmaps": "0"}))
                .validate(&create("other"))
                .is_ok(),
            "a quota counts in its own namespace"
        );
    }
}
