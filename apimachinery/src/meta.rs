//! ObjectMeta read from and written to the tree.

use crate::schema::Gvk;
use crate::value::{Object, Value};

/// Accessors of the fields that every object has. Absent strings read as empty, as in Go.
pub trait Meta {
    fn gvk(&self) -> Gvk<'_>;
    fn name(&self) -> &str;
    fn generate_name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn resource_version(&self) -> &str;
    fn generation(&self) -> i64;
    fn creation_timestamp(&self) -> &str;
    fn deletion_timestamp(&self) -> Option<&str>;
    fn deletion_grace_period_seconds(&self) -> Option<i64>;
    fn labels(&self) -> Option<&Object>;
    fn label(&self, key: &str) -> Option<&str>;
    fn annotations(&self) -> Option<&Object>;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn finalizers(&self) -> impl Iterator<Item = &str>;
    fn owner_references(&self) -> &[Value];
    fn controller_of(&self) -> Option<&Value>;
    fn metadata_mut(&mut self) -> &mut Object;
    /// `namespace/name`, or `name` for cluster-scoped objects.
    fn key(&self) -> String;
}

impl Meta for Value {
    fn gvk(&self) -> Gvk<'_> {
        Gvk::parse(self.str_at("apiVersion"), self.str_at("kind"))
    }

    fn name(&self) -> &str {
        self.str_at("metadata.name")
    }

    fn generate_name(&self) -> &str {
        self.str_at("metadata.generateName")
    }

    fn namespace(&self) -> &str {
        self.str_at("metadata.namespace")
    }

    fn uid(&self) -> &str {
        self.str_at("metadata.uid")
    }

    fn resource_version(&self) -> &str {
        self.str_at("metadata.resourceVersion")
    }

    fn generation(&self) -> i64 {
        self.int_at("metadata.generation").unwrap_or_default()
    }

    fn creation_timestamp(&self) -> &str {
        self.str_at("metadata.creationTimestamp")
    }

    fn deletion_timestamp(&self) -> Option<&str> {
        self.at("metadata.deletionTimestamp")?.as_str()
    }

    fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.int_at("metadata.deletionGracePeriodSeconds")
    }

    fn labels(&self) -> Option<&Object> {
        self.at("metadata.labels")?.as_object()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }

    fn annotations(&self) -> Option<&Object> {
        self.at("metadata.annotations")?.as_object()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)?.as_str()
    }

    fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.list_at("metadata.finalizers")
            .iter()
            .filter_map(Value::as_str)
    }

    fn owner_references(&self) -> &[Value] {
        self.list_at("metadata.ownerReferences")
    }

    fn controller_of(&self) -> Option<&Value> {
        self.owner_references()
            .iter()
            .find(|owner| owner.bool_at("controller"))
    }

    fn metadata_mut(&mut self) -> &mut Object {
        self.object_mut_at("metadata")
    }

    fn key(&self) -> String {
        match self.namespace() {
            "" => self.name().to_owned(),
            namespace => format!("{namespace}/{}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_metadata_reads_as_zero_values() {
        let pod = Value::Null;
        assert_eq!((pod.name(), pod.namespace(), pod.generation()), ("", "", 0));
        assert_eq!(pod.deletion_timestamp(), None);
        assert_eq!(pod.finalizers().count(), 0);
    }

    #[test]
    fn the_controller_is_the_owner_marked_so() {
        let mut pod = Value::Null;
        pod.set_at("metadata.name", "p");
        pod.set_at("metadata.namespace", "ns");
        let owners = vec![
            Value::from([("uid", "a".into())]),
            Value::from([("uid", "b".into()), ("controller", true.into())]),
        ];
        pod.set_at("metadata.ownerReferences", owners);
        assert_eq!(pod.controller_of().unwrap().str_at("uid"), "b");
        assert_eq!(pod.key(), "ns/p");
    }
}
