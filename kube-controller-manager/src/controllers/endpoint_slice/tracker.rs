//! What we wrote and the cache has yet to show.

use crate::meta::uid;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
pub struct Tracker {
    /// By service, then by uid of the slice.
    services: Mutex<HashMap<String, HashMap<String, Expected>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Expected {
    AtLeast(i64),
    Gone,
}

fn generation(slice: &EndpointSlice) -> i64 {
    slice.metadata.generation.unwrap_or(0)
}

impl Tracker {
    pub fn wrote(&self, service: &str, slice: &EndpointSlice) {
        self.put(service, slice, Expected::AtLeast(generation(slice)));
    }

    pub fn deleted(&self, service: &str, slice: &EndpointSlice) {
        self.put(service, slice, Expected::Gone);
    }

    fn put(&self, service: &str, slice: &EndpointSlice, expected: Expected) {
        self.services
            .lock()
            .entry(service.to_owned())
            .or_default()
            .insert(uid(&slice.metadata).to_owned(), expected);
    }

    /// True when the deletion was ours.
    pub fn saw_deletion(&self, service: &str, slice: &EndpointSlice) -> bool {
        let mut services = self.services.lock();
        let known = services
            .get_mut(service)
            .and_then(|s| s.remove(uid(&slice.metadata)));
        known == Some(Expected::Gone)
    }

    /// Somebody else wrote this state.
    pub fn is_foreign(&self, service: &str, slice: &EndpointSlice) -> bool {
        let services = self.services.lock();
        let known = services.get(service).and_then(|s| s.get(uid(&slice.metadata)));
        match known {
            Some(Expected::AtLeast(ours)) => generation(slice) > *ours,
            Some(Expected::Gone) => false,
            None => true,
        }
    }

    /// The cache lacks something that we wrote, or still has what we deleted.
    pub fn is_stale(&self, service: &str, cached: &[Arc<EndpointSlice>]) -> bool {
        let services = self.services.lock();
        let Some(expected) = services.get(service) else {
            return false;
        };
        expected.iter().any(|(wanted, expected)| {
            let found = cached.iter().find(|s| uid(&s.metadata) == wanted);
            match (expected, found) {
                (Expected::AtLeast(ours), Some(slice)) => generation(slice) < *ours,
                (Expected::AtLeast(_), None) | (Expected::Gone, Some(_)) => true,
                (Expected::Gone, None) => false,
            }
        })
    }

    pub fn forget(&self, service: &str) {
        self.services.lock().remove(service);
    }
}
