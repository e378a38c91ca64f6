//! Priority: a pod's priority number comes from its PriorityClass, or from the class marked as default.

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict, forbidden, is_main};
use crate::registry::admission::Attributes;

const GROUP: &str = "scheduling.k8s.io";
const DEFAULT_POLICY: &str = "PreemptLowerPriority";

pub struct Priority {
    objects: Arc<dyn Objects>,
}

impl Priority {
    pub fn new(seams: &Seams) -> Self {
        Priority {
            objects: seams.objects.clone(),
        }
    }

    /// The default class with the lowest value, should there be several.
    fn default_class(&self) -> Option<Value> {
        let classes = self.objects.list(GROUP, "priorityclasses");
        let defaults = classes
            .iter()
            .map(|c| c.value())
            .filter(|c| c.bool_at("globalDefault"));
        defaults.min_by_key(|c| c.int_at("value").unwrap_or_default())
    }

    fn create(&self, a: &mut Attributes) -> Verdict {
        let named = a
            .object
            .as_ref()
            .map(|p| p.str_at("spec.priorityClassName").to_owned())
            .unwrap_or_default();
        let class = if named.is_empty() {
            self.default_class()
        } else {
            self.objects
                .get(GROUP, "priorityclasses", "", &named)
                .map(|c| c.value())
        };
        if class.is_none() && !named.is_empty() {
            return Err(forbidden(
                a,
                format!("no PriorityClass with name {named} was found"),
            ));
        }
        let value = class.as_ref().and_then(|c| c.int_at("value")).unwrap_or_default();
        let policy = class
            .as_ref()
            .map_or(DEFAULT_POLICY, |c| c.str_at("preemptionPolicy"))
            .to_owned();
        self.check_given(a, value, &policy)?;
        let Some(pod) = &mut a.object else { return Ok(()) };
        if let Some(class) = &class {
            pod.set_at("spec.priorityClassName", class.name());
        }
        pod.set_at("spec.priority", value);
        if !policy.is_empty() {
            pod.set_at("spec.preemptionPolicy", policy);
        }
        Ok(())
    }

    fn check_given(&self, a: &Attributes, value: i64, policy: &str) -> Verdict {
        let Some(pod) = &a.object else { return Ok(()) };
        const MUST_NOT: &str = "must not be provided in pod spec; priority admission controller computed";
        if let Some(given) = pod.int_at("spec.priority").filter(|given| *given != value) {
            return Err(forbidden(
                a,
                format!(
                    "the integer value of priority ({given}) {MUST_NOT} {value} from the given PriorityClass name"
                ),
            ));
        }
        let given = pod.str_at("spec.preemptionPolicy");
        if !given.is_empty() && !policy.is_empty() && given != policy {
            return Err(forbidden(
                a,
                format!(
                    "the string value of PreemptionPolicy ({given}) {MUST_NOT} {policy} from the given PriorityClass name"
                ),
            ));
        }
        Ok(())
    }
}

impl Plugin for Priority {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if !is_main(a, "", "pods") {
            return Ok(());
        }
        if a.operation == Operation::Create {
            return self.create(a);
        }
        let (Some(pod), Some(old)) = (&mut a.object, &a.old) else {
            return Ok(());
        };
        let missing = |pod: &Value, path: &str| pod.at(path).is_none_or(Value::is_null);
        if missing(pod, "spec.priority") || missing(pod, "spec.preemptionPolicy") {
            let old = old.value();
            for path in ["spec.priority", "spec.preemptionPolicy"] {
                if let (true, Some(kept)) = (missing(pod, path), old.at(path)) {
                    pod.set_at(path, kept.clone());
                }
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(class) = a
            .object
            .as_ref()
            .filter(|c| is_main(a, GROUP, "priorityclasses") && c.bool_at("globalDefault"))
        else {
            return Ok(());
        };
        match self.default_class() {
            Some(default) if a.operation == Operation::Create || default.name() != class.name() => {
                Err(forbidden(
                    a,
                    format!(
                        "PriorityClass {} is already marked as default. Only one default can exist",
                        default.name()
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, message, new_pod, object, seams};
    use super::*;
    use serde_json::json;

    fn class(name: &str, value: i64, default: bool) -> serde_json::Value {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"})
    }

    fn plugin(with_default: bool) -> Priority {
        let cluster = Cluster::default().with(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            class("high", 1000, false),
        );
        let cluster = if with_default {
            cluster.with("scheduling.k8s.io/v1", "PriorityClass", class("usual", 5, true))
        } else {
            cluster
        };
        Priority::new(&seams(cluster))
    }

    fn admitted(plugin: &Priority, spec: serde_json::Value) -> serde_json::Value {
        let mut a = new_pod(json!({ "spec": spec }));
        plugin.admit(&mut a).expect("admitted");
        object(&a)["spec"].clone()
    }

    #[test]
    fn priority_comes_from_the_class() {
        assert_eq!(
            admitted(&plugin(false), json!({"priorityClassName": "high"})),
            json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"})
        );
        assert_eq!(
            admitted(&plugin(false), json!({})),
            json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"})
        );
        assert_eq!(admitted(&plugin(true), json!({}))["priorityClassName"], "usual");
    }

    #[test]
    fn other_numbers_and_unknown_classes_are_refused() {
        let refused =
            |spec: serde_json::Value| message(plugin(false).admit(&mut new_pod(json!({ "spec": spec }))));
        assert_eq!(
            refused(json!({"priorityClassName": "no"})),
            r#"pods "p" is forbidden: no PriorityClass with name no was found"#
        );
        assert!(
            refused(json!({"priority": 7}))
                .contains("the integer value of priority (7) must not be provided")
        );
    }

    #[test]
    fn one_default_is_enough() {
        let second = attributes(
            Operation::Create,
            GROUP,
            "priorityclasses",
            "",
            "more",
            Some(class("more", 1, true)),
        );
        assert!(
            message(plugin(true).validate(&second))
                .contains("PriorityClass usual is already marked as default")
        );
        assert!(plugin(false).validate(&second).is_ok());
    }
}
