//! RuntimeClass: a pod's overhead and placement come from its runtime class.

use std::sync::Arc;

use apimachinery::value::Value;

use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict, forbidden, is_main};
use crate::registry::admission::Attributes;

pub struct RuntimeClass {
    objects: Arc<dyn Objects>,
}

impl RuntimeClass {
    pub fn new(seams: &Seams) -> Self {
        RuntimeClass {
            objects: seams.objects.clone(),
        }
    }

    /// `None`: the pod names no class.
    fn class(&self, a: &Attributes) -> Result<Option<Value>, super::Refusal> {
        let name = a
            .object
            .as_ref()
            .map(|p| p.str_at("spec.runtimeClassName"))
            .unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        match self.objects.get("node.k8s.io", "runtimeclasses", "", name) {
            Some(class) => Ok(Some(class.value())),
            None => Err(forbidden(
                a,
                format!("pod rejected: RuntimeClass {name:?} not found"),
            )),
        }
    }
}

impl Plugin for RuntimeClass {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if !is_main(a, "", "pods") {
            return Ok(());
        }
        let Some(class) = self.class(a)? else {
            return Ok(());
        };
        let Some(pod) = &mut a.object else { return Ok(()) };
        if let Some(overhead) = class.at("overhead.podFixed") {
            match pod.at("spec.overhead").filter(|o| !o.is_zero()) {
                Some(given) if given != overhead => {
                    return Err(forbidden(
                        a,
                        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
                    ));
                }
                Some(_) => {}
                None => pod.set_at("spec.overhead", overhead.clone()),
            }
        }
        let Some(pod) = &mut a.object else { return Ok(()) };
        let selector = class
            .at("scheduling.nodeSelector")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for (key, value) in selector.iter() {
            let given = pod
                .at("spec.nodeSelector")
                .and_then(|s| s.get(key))
                .and_then(Value::as_str);
            if given.is_some_and(|g| Some(g) != value.as_str()) {
                let text = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    value.as_str().unwrap_or_default(),
                    given.unwrap_or_default()
                );
                return Err(forbidden(a, text));
            }
            pod.object_mut_at("spec.nodeSelector")
                .insert(key.to_owned(), value.clone());
        }
        for toleration in class.list_at("scheduling.tolerations") {
            if !pod.list_at("spec.tolerations").contains(toleration) {
                pod.list_mut_at("spec.tolerations").push(toleration.clone());
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(pod) = a.object.as_ref().filter(|_| is_main(a, "", "pods")) else {
            return Ok(());
        };
        let overhead = pod.at("spec.overhead").is_some_and(|o| !o.is_zero());
        let declared = self
            .class(a)?
            .is_some_and(|c| c.at("overhead.podFixed").is_some());
        if overhead && !declared {
            return Err(forbidden(
                a,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, message, new_pod, object, seams};
    use super::*;
    use serde_json::json;

    fn plugin() -> RuntimeClass {
        let class = json!({"metadata": {"name": "vm"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": {"nodeSelector": {"vm": "yes"}}});
        RuntimeClass::new(&seams(Cluster::default().with(
            "node.k8s.io/v1",
            "RuntimeClass",
            class,
        )))
    }

    #[test]
    fn overhead_and_placement_come_from_the_class() {
        let mut a = new_pod(json!({"spec": {"runtimeClassName": "vm"}}));
        plugin().admit(&mut a).expect("admitted");
        assert_eq!(
            (
                &object(&a)["spec"]["overhead"],
                &object(&a)["spec"]["nodeSelector"]
            ),
            (&json!({"cpu": "100m"}), &json!({"vm": "yes"}))
        );
        assert!(plugin().validate(&a).is_ok());
    }

    #[test]
    fn unknown_classes_and_own_overheads_are_refused() {
        assert_eq!(
            message(plugin().admit(&mut new_pod(json!({"spec": {"runtimeClassName": "x"}})))),
            r#"pods "p" is forbidden: pod rejected: RuntimeClass "x" not found"#
        );
        assert!(
            plugin()
                .validate(&new_pod(json!({"spec": {"overhead": {"cpu": "1"}}})))
                .is_err()
        );
        assert!(
            plugin()
                .admit(&mut new_pod(
                    json!({"spec": {"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}})
                ))
                .is_err()
        );
    }
}
