//! PersistentVolumes and their claims are born Pending.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::value::Value;

use crate::registry::strategy::{Request, Strategy};

pub struct VolumeStrategy;
pub struct ClaimStrategy;

const SPEC: Path<'static> = Path::new("spec");

impl Strategy for VolumeStrategy {
    fn prepare_create(&self, _: &Request<'_>, volume: &mut Value) {
        volume.set_at("status.phase", "Pending");
    }

    fn validate_create(&self, _: &Request<'_>, volume: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        required_list(volume, "accessModes", &mut errors);
        if volume.at("spec.capacity").is_none_or(Value::is_zero) {
            errors.push(field::required(&SPEC.child("capacity"), ""));
        }
        errors
    }
}

impl Strategy for ClaimStrategy {
    fn prepare_create(&self, _: &Request<'_>, claim: &mut Value) {
        claim.set_at("status.phase", "Pending");
    }

    fn validate_create(&self, _: &Request<'_>, claim: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        required_list(claim, "accessModes", &mut errors);
        if claim
            .at("spec.resources.requests")
            .and_then(|r| r.get("storage"))
            .is_none()
        {
            let path = SPEC.child("resources");
            errors.push(field::required(&path.key("storage"), ""));
        }
        errors
    }

    /// A claim may grow, be bound, and change its attributes class.
    fn validate_update(&self, request: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        if request.subresource == "status" {
            return ErrorList::new();
        }
        let mut munged = new.clone();
        for path in ["spec.resources.requests", "spec.volumeAttributesClassName"] {
            put_back(&mut munged, old, path);
        }
        if old.str_at("spec.volumeName").is_empty() {
            put_back(&mut munged, old, "spec.volumeName");
        }
        if old.at("spec.storageClassName").is_none() {
            put_back(&mut munged, old, "spec.storageClassName");
        }
        if munged.get("spec") == old.get("spec") {
            return ErrorList::new();
        }
        vec![field::forbidden(
            &SPEC,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )]
    }
}

fn put_back(new: &mut Value, old: &Value, path: &str) {
    match old.at(path) {
        Some(value) => new.set_at(path, value.clone()),
        None => drop(new.remove_at(path)),
    }
}

fn required_list(object: &Value, name: &'static str, errors: &mut ErrorList) {
    if object
        .get("spec")
        .is_none_or(|spec| spec.list_at(name).is_empty())
    {
        errors.push(field::required(
            &SPEC.child(name),
            "at least 1 access mode is required",
        ));
    }
}
