//! StorageObjectInUseProtection: claims and volumes are held by a finalizer until nothing uses them.

use apimachinery::meta::Meta;

use super::{Operation, Plugin, Verdict};
use crate::registry::admission::Attributes;

pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        let finalizer = match a.resource.as_str() {
            _ if !a.subresource.is_empty() || !a.resource_group.is_empty() => return Ok(()),
            "persistentvolumes" => "kubernetes.io/pv-protection",
            "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
            _ => return Ok(()),
        };
        let Some(object) = &mut a.object else {
            return Ok(());
        };
        let held = object.finalizers().any(|f| f == finalizer);
        if !held {
            object.list_mut_at("metadata.finalizers").push(finalizer.into());
        }
        Ok(())
    }
}
