//! AlwaysPullImages: every container pulls, so that a cached private image is nobody's without credentials.

use super::pod_references::{containers, containers_mut};
use super::{Operation, Plugin, Verdict, forbidden};
use crate::registry::admission::Attributes;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub struct AlwaysPullImages;

impl AlwaysPullImages {
    fn applies(a: &Attributes) -> bool {
        a.is_resource("", "pods") && matches!(a.subresource.as_str(), "" | "ephemeralcontainers")
    }
}

impl Plugin for AlwaysPullImages {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if Self::applies(a)
            && let Some(pod) = &mut a.object
        {
            containers_mut(pod, &LISTS, &mut |container| {
                container.set("imagePullPolicy", "Always")
            });
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(pod) = a.object.as_ref().filter(|_| Self::applies(a)) else {
            return Ok(());
        };
        match containers(pod).find(|c| c.str_at("imagePullPolicy") != "Always") {
            Some(container) => Err(forbidden(
                a,
                format!(
                    "spec.containers[{}].imagePullPolicy: Unsupported value: supported values: \"Always\"",
                    container.str_at("name")
                ),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{new_pod, object};
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_container_pulls() {
        let mut a = new_pod(
            json!({"spec": {"containers": [{"name": "a", "imagePullPolicy": "Never"}], "ephemeralContainers": [{"name": "e"}]}}),
        );
        assert!(AlwaysPullImages.validate(&a).is_err());
        AlwaysPullImages.admit(&mut a).expect("admitted");
        assert_eq!(
            object(&a)["spec"]["ephemeralContainers"][0]["imagePullPolicy"],
            "Always"
        );
        assert!(AlwaysPullImages.validate(&a).is_ok());
    }
}
