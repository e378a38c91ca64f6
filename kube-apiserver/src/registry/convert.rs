//! Between the version a client speaks and the version that is stored.
//!
//! Most served versions of a resource have one shape and only their apiVersion differs. The two that do not are written out here.

use apimachinery::value::Value;

use super::ResourceEndpoint;

mod autoscaling;
mod events;

fn needed(endpoint: &ResourceEndpoint) -> bool {
    endpoint
        .store
        .as_ref()
        .is_some_and(|store| store.shape.api_version != endpoint.shape.api_version)
}

pub fn to_storage(endpoint: &ResourceEndpoint, object: &mut Value) {
    let Some(store) = endpoint.store.as_ref().filter(|_| needed(endpoint)) else {
        return;
    };
    convert(object, &endpoint.shape.api_version, &store.shape.api_version);
}

pub fn from_storage(endpoint: &ResourceEndpoint, object: &mut Value) {
    let Some(store) = endpoint.store.as_ref().filter(|_| needed(endpoint)) else {
        return;
    };
    convert(object, &store.shape.api_version, &endpoint.shape.api_version);
}

fn convert(object: &mut Value, from: &str, to: &str) {
    match (from, to) {
        ("events.k8s.io/v1", "v1") => events::to_core(object),
        ("v1", "events.k8s.io/v1") => events::from_core(object),
        ("autoscaling/v1", "autoscaling/v2") => autoscaling::v1_to_v2(object),
        ("autoscaling/v2", "autoscaling/v1") => autoscaling::v2_to_v1(object),
        _ => {}
    }
    object.set("apiVersion", to.to_owned());
}
