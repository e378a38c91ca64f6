//! ResourceQuota: how many objects a namespace may hold.
//!
//! Counts are taken from the caches at the time of the request, and what was admitted and is not in the cache yet counts too:
//! requests that come together cannot pass together. Between several API servers that is not so: there, and for sums of
//! requests and limits (`requests.cpu`, ...), it takes the quota controller's accounting in `status.used`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::meta::Meta;
use apimachinery::quantity::Quantity;
use apimachinery::value::Value;
use parking_lot::Mutex;

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

/// An object that was admitted and did not come: refused later, or deleted at once. Until then it counts, as upstream's do
/// until the controller's next round.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct ResourceQuota {
    objects: Arc<dyn Objects>,
    admitted: Mutex<HashMap<Place, Vec<Admitted>>>,
}

/// Group, resource and namespace.
type Place = (String, String, String);

/// An object on its way into the cache.
struct Admitted {
    name: String,
    at: Instant,
}

impl ResourceQuota {
    pub fn new(seams: &Seams) -> Self {
        ResourceQuota {
            objects: seams.objects.clone(),
            admitted: Mutex::default(),
        }
    }

    /// In the cache, and on the way into it.
    fn used(&self, a: &Attributes, admitted: &mut Vec<Admitted>) -> i64 {
        let objects = self
            .objects
            .list_namespace(&a.resource_group, &a.resource, &a.namespace);
        let counts = |o: &&Arc<crate::storage::object::CachedObject>| {
            a.resource != "pods"
                || !a.resource_group.is_empty()
                || !matches!(o.field("status.phase"), Some("Succeeded" | "Failed"))
        };
        admitted.retain(|one| {
            one.at.elapsed() < PATIENCE && !objects.iter().any(|object| *object.name == *one.name)
        });
        (objects.iter().filter(counts).count() + admitted.len()) as i64
    }

    fn check(&self, a: &Attributes, quotas: &[Limited], admitted: &mut Vec<Admitted>) -> Verdict {
        let used = self.used(a, admitted);
        match quotas.iter().find(|quota| used + 1 > quota.hard) {
            Some(Limited { quota, name, hard }) => {
                let why = format!(
                    "exceeded quota: {quota}, requested: {name}=1, used: {name}={used}, limited: {name}={hard}"
                );
                Err(forbidden(a, why))
            }
            None => Ok(()),
        }
    }

    /// What the namespace's quotas say of objects like this one.
    fn limits(&self, a: &Attributes) -> Vec<Limited> {
        let names = quota_names(a);
        let mut limits = Vec::new();
        for quota in self.objects.list_namespace("", "resourcequotas", &a.namespace) {
            let quota = quota.value();
            // Scopes choose among pods by what they are: such a quota is not a plain count.
            if !quota.list_at("spec.scopes").is_empty()
                || quota.at("spec.scopeSelector").is_some_and(|s| !s.is_null())
            {
                continue;
            }
            limits.extend(names.iter().filter_map(|name| {
                Some(Limited {
                    quota: quota.name().to_owned(),
                    name: name.clone(),
                    hard: limit(&quota, name)?,
                })
            }));
        }
        limits
    }
}

struct Limited {
    quota: String,
    /// `pods`, `count/pods`
    name: String,
    hard: i64,
}

impl Plugin for ResourceQuota {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        if a.namespace.is_empty() || !a.subresource.is_empty() {
            return Ok(());
        }
        let quotas = self.limits(a);
        if quotas.is_empty() {
            return Ok(());
        }
        let place = (a.resource_group.clone(), a.resource.clone(), a.namespace.clone());
        let mut all = self.admitted.lock();
        let admitted = all.entry(place.clone()).or_default();
        let verdict = self.check(a, &quotas, admitted);
        if verdict.is_ok() && !a.dry_run {
            let (name, at) = (a.name.clone(), Instant::now());
            admitted.push(Admitted { name, at });
        }
        if admitted.is_empty() {
            all.remove(&place);
        }
        verdict
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

    #[test]
    fn requests_that_come_together_cannot_pass_together() {
        let create = |name: &str, dry_run: bool| {
            let object = Some(json!({"metadata": {"name": name}}));
            let mut a = attributes(Operation::Create, "", "configmaps", "ns", name, object);
            a.dry_run = dry_run;
            a
        };
        // One is in the cache; a second may come, and its object is not in the cache when the third asks.
        let plugin = plugin(json!({"configmaps": "2"}));
        assert!(
            plugin.validate(&create("a", true)).is_ok(),
            "a dry run takes no place"
        );
        assert!(plugin.validate(&create("b", false)).is_ok());
        let refused = message(plugin.validate(&create("c", false)));
        assert!(
            refused.ends_with("used: configmaps=2, limited: configmaps=2"),
            "{refused}"
        );
        // What came into the cache counts once.
        plugin
            .admitted
            .lock()
            .values_mut()
            .for_each(|all| all[0].name = "one".to_owned());
        assert!(plugin.validate(&create("d", false)).is_ok());
    }
}
