//! DefaultIngressClass: an ingress that names no class gets the default one.

use std::sync::Arc;

use apimachinery::meta::Meta;

use super::default_storage_class::newest;
use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict};
use crate::registry::admission::Attributes;

const GROUP: &str = "networking.k8s.io";
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass {
    objects: Arc<dyn Objects>,
}

impl DefaultIngressClass {
    pub fn new(seams: &Seams) -> Self {
        DefaultIngressClass {
            objects: seams.objects.clone(),
        }
    }
}

impl Plugin for DefaultIngressClass {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if !super::is_main(a, GROUP, "ingresses") {
            return Ok(());
        }
        let Some(ingress) = &mut a.object else {
            return Ok(());
        };
        if ingress.at("spec.ingressClassName").is_some_and(|c| !c.is_null())
            || ingress.annotation(OLD_CLASS).is_some()
        {
            return Ok(());
        }
        let classes = self.objects.list(GROUP, "ingressclasses");
        if let Some(class) = newest(
            classes
                .iter()
                .map(|c| c.value())
                .filter(|c| c.annotation(DEFAULT) == Some("true")),
        ) {
            ingress.set_at("spec.ingressClassName", class);
        }
        Ok(())
    }
}
