//! Events expire by lease, and speak of an object of their own namespace.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::Meta;
use apimachinery::value::Value;

use crate::registry::store::Store;
use crate::registry::strategy::{NameRule, Request, Strategy};

pub struct EventStrategy;

impl Strategy for EventStrategy {
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    fn validates_required_fields(&self) -> bool {
        true
    }

    fn validate_create(&self, _: &Request<'_>, event: &Value) -> ErrorList {
        let about = event.str_at("involvedObject.namespace");
        let fits = match about {
            "" => matches!(event.namespace(), "default" | "kube-system" | ""),
            about => about == event.namespace(),
        };
        if fits {
            return ErrorList::new();
        }
        let path = Path::new("involvedObject");
        vec![field::invalid(
            &path.child("namespace"),
            about,
            "does not match event.namespace",
        )]
    }

    fn ttl_s(&self, store: &Store) -> i64 {
        store.backend.event_ttl_s
    }
}
