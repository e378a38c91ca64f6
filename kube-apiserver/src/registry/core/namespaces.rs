//! Namespaces: held by spec.finalizers until the namespace controller has emptied them.

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use crate::registry::store::{keep, split_by_status};
use crate::registry::strategy::{NameRule, Request, Strategy};

const FINALIZER: &str = "kubernetes";

pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn prepare_create(&self, _: &Request<'_>, namespace: &mut Value) {
        namespace.set_at("status.phase", "Active");
        let finalizers = namespace.list_mut_at("spec.finalizers");
        if !finalizers.iter().any(|f| f.as_str() == Some(FINALIZER)) {
            finalizers.push(FINALIZER.into());
        }
        label_with_name(namespace);
    }

    fn prepare_update(&self, _: &Request<'_>, new: &mut Value, _: &Value) {
        label_with_name(new);
    }

    fn split(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        match request.subresource {
            "" => {
                keep(new, old, "spec");
                keep(new, old, "status");
            }
            "finalize" => keep(new, old, "status"),
            _ => split_by_status(request, new, old),
        }
    }

    fn mark_deleting(&self, namespace: &mut Value) {
        namespace.set_at("status.phase", "Terminating");
    }

    fn held(&self, namespace: &Value) -> bool {
        !namespace.list_at("spec.finalizers").is_empty()
    }
}

/// Selectors may count on every namespace carrying its own name.
fn label_with_name(namespace: &mut Value) {
    let name = namespace.name().to_owned();
    if !name.is_empty() {
        namespace
            .object_mut_at("metadata.labels")
            .insert("kubernetes.io/metadata.name", Value::from(name));
    }
}
