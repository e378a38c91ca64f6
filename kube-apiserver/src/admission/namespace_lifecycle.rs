//! NamespaceLifecycle: nothing is made in a namespace that is not there or is going, and three namespaces never go.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::{self, GroupResource};

use super::objects::Objects;
use super::{Operation, Plugin, Refusal, Seams, Verdict, forbidden};
use crate::registry::admission::Attributes;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// A namespace made a moment ago may not have reached our cache.
const MISSING_PAUSE: Duration = Duration::from_millis(50);

pub struct NamespaceLifecycle {
    objects: Arc<dyn Objects>,
}

impl NamespaceLifecycle {
    pub fn new(seams: &Seams) -> Self {
        NamespaceLifecycle {
            objects: seams.objects.clone(),
        }
    }

    fn check(&self, a: &Attributes) -> Verdict {
        if a.operation == Operation::Delete
            && super::is_main(a, "", "namespaces")
            && IMMORTAL.contains(&a.name.as_str())
        {
            return Err(forbidden(a, "this namespace may not be deleted"));
        }
        let in_namespace = !a.namespace.is_empty() && !a.is_resource("", "namespaces");
        let review = a.is_resource("authorization.k8s.io", "localsubjectaccessreviews");
        if !in_namespace || review || a.operation == Operation::Delete {
            return Ok(());
        }
        let Some(namespace) = self.objects.get("", "namespaces", "", &a.namespace) else {
            let error = status::not_found(GroupResource::new("", "namespaces"), &a.namespace);
            let attempts = if a.operation == Operation::Create { 1 } else { 0 };
            return Err(Refusal::NotYet {
                error,
                attempts,
                pause: MISSING_PAUSE,
            });
        };
        if a.operation == Operation::Create
            && (namespace.deleting || namespace.field("status.phase") == Some("Terminating"))
        {
            return Err(terminating(a));
        }
        Ok(())
    }
}

fn terminating(a: &Attributes) -> Refusal {
    let namespace = &a.namespace;
    match forbidden(
        a,
        format!("unable to create new content in namespace {namespace} because it is being terminated"),
    ) {
        Refusal::Status(error) => Refusal::Status(error.with_cause(
            "NamespaceTerminating",
            "metadata.namespace",
            &format!("namespace {namespace} is being terminated"),
        )),
        other => other,
    }
}

impl Plugin for NamespaceLifecycle {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update, Operation::Delete]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        self.check(a)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, message, seams};
    use super::*;
    use serde_json::json;

    fn plugin() -> NamespaceLifecycle {
        let cluster = Cluster::default().with("v1", "Namespace", json!({"metadata": {"name": "there"}})).with(
            "v1",
            "Namespace",
            json!({"metadata": {"name": "going", "deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Terminating"}}),
        );
        NamespaceLifecycle::new(&seams(cluster))
    }

    fn create(namespace: &str) -> Attributes {
        attributes(
            Operation::Create,
            "",
            "configmaps",
            namespace,
            "c",
            Some(json!({})),
        )
    }

    #[test]
    fn objects_are_made_in_living_namespaces_only() {
        assert!(plugin().check(&create("there")).is_ok());
        let refused = message(plugin().check(&create("going")));
        assert_eq!(
            refused,
            r#"configmaps "c" is forbidden: unable to create new content in namespace going because it is being terminated"#
        );
        assert_eq!(
            message(plugin().check(&create("nowhere"))),
            r#"namespaces "nowhere" not found"#
        );
        let update = Attributes {
            operation: Operation::Update,
            ..create("going")
        };
        assert!(plugin().check(&update).is_ok(), "what is there may still change");
    }

    #[test]
    fn three_namespaces_never_go() {
        let delete = |name: &str| attributes(Operation::Delete, "", "namespaces", name, name, None);
        assert_eq!(
            message(plugin().check(&delete("kube-system"))),
            r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#
        );
        assert!(plugin().check(&delete("there")).is_ok());
    }
}
