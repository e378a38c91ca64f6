//! PersistentVolumeClaimResize: a claim grows only if it is bound and its class allows it.

use std::sync::Arc;

use apimachinery::quantity::Quantity;
use apimachinery::value::Value;

use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict, forbidden};
use crate::registry::admission::Attributes;

pub struct PersistentVolumeClaimResize {
    objects: Arc<dyn Objects>,
}

impl PersistentVolumeClaimResize {
    pub fn new(seams: &Seams) -> Self {
        PersistentVolumeClaimResize {
            objects: seams.objects.clone(),
        }
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Update]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        if !super::is_main(a, "", "persistentvolumeclaims") {
            return Ok(());
        }
        let (Some(new), Some(old)) = (&a.object, a.old.as_ref().map(|o| o.value())) else {
            return Ok(());
        };
        if requested(new) <= requested(&old) {
            return Ok(());
        }
        if old.str_at("status.phase") != "Bound" {
            return Err(forbidden(
                a,
                "Only bound persistent volume claims can be expanded",
            ));
        }
        let class = self.objects.get(
            "storage.k8s.io",
            "storageclasses",
            "",
            new.str_at("spec.storageClassName"),
        );
        if class.is_some_and(|c| c.value().bool_at("allowVolumeExpansion")) {
            return Ok(());
        }
        Err(forbidden(
            a,
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

fn requested(claim: &Value) -> Option<i64> {
    Quantity::parse(claim.str_at("spec.resources.requests.storage"))
        .ok()
        .map(|q| q.value())
}
