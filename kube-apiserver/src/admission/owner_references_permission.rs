//! OwnerReferencesPermissionEnforcement: changing owners can delete an object, so it needs the right to delete it;
//! holding up an owner's deletion needs the right to set the owner's finalizers.

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::schema::{self, Gvk};
use apimachinery::value::Value;

use super::{Operation, Plugin, Seams, Verdict, forbidden};
use crate::authorization::{Attributes as Question, Authorizers};
use crate::registry::admission::Attributes;

pub struct OwnerReferencesPermission {
    authorizers: Arc<Authorizers>,
}

impl OwnerReferencesPermission {
    pub fn new(seams: &Seams) -> Self {
        OwnerReferencesPermission {
            authorizers: seams.authorizers.clone(),
        }
    }

    fn may_delete(&self, a: &Attributes) -> bool {
        let question = Question::of_resource(
            &a.user,
            "delete",
            &a.resource_group,
            &a.resource,
            &a.namespace,
            &a.name,
        );
        self.authorizers.authorize(&question).allowed()
    }

    fn may_block(&self, a: &Attributes, owner: &Value) -> bool {
        let gvk = Gvk::parse(owner.str_at("apiVersion"), owner.str_at("kind"));
        let found = schema::resources()
            .iter()
            .find(|r| r.group == gvk.group && r.version == gvk.version && r.kind == gvk.kind);
        let Some(resource) = found else { return false };
        let namespace = if resource.namespaced {
            a.namespace.as_str()
        } else {
            ""
        };
        let name = owner.str_at("name");
        let update = Question::of_resource(
            &a.user,
            "update",
            resource.group,
            resource.resource,
            namespace,
            name,
        );
        self.authorizers
            .authorize(&Question {
                subresource: "finalizers",
                ..update
            })
            .allowed()
    }
}

impl Plugin for OwnerReferencesPermission {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(new) = a.object.as_ref().filter(|_| a.subresource != "status") else {
            return Ok(());
        };
        let old = a.old.as_ref().map(|o| o.value()).unwrap_or_default();
        if new.owner_references() == old.owner_references() {
            return Ok(());
        }
        if a.operation == Operation::Update && !self.may_delete(a) {
            return Err(forbidden(
                a,
                "cannot set an ownerRef on a resource you can't delete",
            ));
        }
        let blocked = |o: &Value, uid: &str| o.str_at("uid") == uid && o.bool_at("blockOwnerDeletion");
        let newly = |o: &&Value| {
            let uid = o.str_at("uid");
            blocked(o, uid) && !old.owner_references().iter().any(|before| blocked(before, uid))
        };
        match new
            .owner_references()
            .iter()
            .filter(newly)
            .find(|owner| !self.may_block(a, owner))
        {
            Some(_) => Err(forbidden(
                a,
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, cached, message, seams};
    use super::*;
    use crate::authorization::rbac::{Binding, Metadata, Rbac, Role, RoleRef, Subject};
    use crate::authorization::rules::PolicyRule;
    use serde_json::json;

    fn plugin(verb: &str, resource: &str) -> OwnerReferencesPermission {
        let rbac = Rbac::default();
        let one = |s: &str| vec![s.to_owned()];
        let rule = PolicyRule {
            verbs: one(verb),
            api_groups: one("*"),
            resources: one(resource),
            ..Default::default()
        };
        rbac.set_role(Role {
            metadata: Metadata {
                name: "r".into(),
                ..Default::default()
            },
            rules: vec![rule],
        });
        rbac.set_binding(Binding {
            metadata: Metadata {
                name: "b".into(),
                ..Default::default()
            },
            subjects: vec![Subject {
                kind: "User".into(),
                name: "jane".into(),
                ..Default::default()
            }],
            role_ref: RoleRef {
                kind: "ClusterRole".into(),
                name: "r".into(),
            },
        });
        let authorizers = Authorizers::new(&["RBAC".to_owned()], Default::default(), vec![], rbac);
        OwnerReferencesPermission::new(&Seams {
            authorizers: Arc::new(authorizers),
            ..seams(Cluster::default())
        })
    }

    fn owned(operation: Operation, block: bool) -> Attributes {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "blockOwnerDeletion": block});
        let object = json!({"metadata": {"ownerReferences": [owner]}});
        let mut a = attributes(operation, "", "configmaps", "ns", "c", Some(object));
        if operation == Operation::Update {
            let stored = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "c"}});
            a.old = Some(cached(&stored));
        }
        a
    }

    #[test]
    fn an_owner_is_a_way_to_delete() {
        assert!(
            plugin("delete", "configmaps")
                .validate(&owned(Operation::Update, false))
                .is_ok()
        );
        let refused = message(plugin("update", "configmaps").validate(&owned(Operation::Update, false)));
        assert!(
            refused.ends_with("cannot set an ownerRef on a resource you can't delete"),
            "{refused}"
        );
        assert!(
            plugin("get", "pods")
                .validate(&owned(Operation::Create, false))
                .is_ok()
        );
    }

    #[test]
    fn blocking_needs_the_owners_finalizers() {
        assert!(
            plugin("update", "deployments/finalizers")
                .validate(&owned(Operation::Create, true))
                .is_ok()
        );
        assert!(
            plugin("update", "deployments")
                .validate(&owned(Operation::Create, true))
                .is_err()
        );
    }
}
