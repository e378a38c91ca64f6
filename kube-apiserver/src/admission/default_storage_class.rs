//! DefaultStorageClass: a claim that names no class gets the default one, the newest if there are several.

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict};
use crate::registry::admission::Attributes;

const DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass {
    objects: Arc<dyn Objects>,
}

impl DefaultStorageClass {
    pub fn new(seams: &Seams) -> Self {
        DefaultStorageClass {
            objects: seams.objects.clone(),
        }
    }

    fn default_class(&self) -> Option<String> {
        let classes = self.objects.list("storage.k8s.io", "storageclasses");
        let defaults = classes
            .iter()
            .map(|c| c.value())
            .filter(|c| DEFAULT.iter().any(|d| c.annotation(d) == Some("true")));
        newest(defaults)
    }
}

/// The name of the newest, the first by name among equals.
pub fn newest(objects: impl Iterator<Item = Value>) -> Option<String> {
    let mut all: Vec<Value> = objects.collect();
    all.sort_by(|a, b| {
        b.creation_timestamp()
            .cmp(a.creation_timestamp())
            .then_with(|| a.name().cmp(b.name()))
    });
    all.first().map(|o| o.name().to_owned())
}

impl Plugin for DefaultStorageClass {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if !super::is_main(a, "", "persistentvolumeclaims") {
            return Ok(());
        }
        let Some(claim) = &mut a.object else { return Ok(()) };
        // An empty name asks for no class at all.
        let said = claim.at("spec.storageClassName").is_some_and(|c| !c.is_null())
            || claim.annotation(BETA_CLASS).is_some();
        if let (false, Some(class)) = (said, self.default_class()) {
            claim.set_at("spec.storageClassName", class);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, object, seams};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_is_taken_where_no_class_is_named() {
        let class = |name: &str, time: &str| json!({"metadata": {"name": name, "creationTimestamp": time, "annotations": {DEFAULT[0]: "true"}}, "provisioner": "p"});
        let cluster = Cluster::default()
            .with(
                "storage.k8s.io/v1",
                "StorageClass",
                class("old", "2020-01-01T00:00:00Z"),
            )
            .with(
                "storage.k8s.io/v1",
                "StorageClass",
                class("new", "2021-01-01T00:00:00Z"),
            );
        let plugin = DefaultStorageClass::new(&seams(cluster));
        let class_of = |spec: serde_json::Value| {
            let mut a = attributes(
                Operation::Create,
                "",
                "persistentvolumeclaims",
                "ns",
                "c",
                Some(json!({ "spec": spec })),
            );
            plugin.admit(&mut a).expect("admitted");
            object(&a)["spec"]["storageClassName"].clone()
        };
        assert_eq!(class_of(json!({})), "new");
        assert_eq!(class_of(json!({"storageClassName": ""})), "");
        assert_eq!(class_of(json!({"storageClassName": "x"})), "x");
    }
}
