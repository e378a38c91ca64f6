//! CertificateSigningRequests: who asks is what authentication said, and each subresource has its part of the status.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::value::Value;

use super::store::keep;
use super::strategy::{NameRule, Request, Strategy};
use crate::clock;

pub struct CsrStrategy;

impl Strategy for CsrStrategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn prepare_create(&self, request: &Request<'_>, csr: &mut Value) {
        let user = request.user;
        let spec = csr.object_mut_at("spec");
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        csr.set_at("spec.username", user.name.clone());
        if !user.uid.is_empty() {
            csr.set_at("spec.uid", user.uid.clone());
        }
        if !user.groups.is_empty() {
            csr.set_at("spec.groups", user.groups.clone());
        }
        for (key, values) in &user.extra {
            csr.object_mut_at("spec.extra")
                .insert(key.clone(), Value::from(values.clone()));
        }
    }

    fn split(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        match request.subresource {
            "approval" => keep_certificate(new, old),
            "status" => keep_decision(new, old),
            _ => keep(new, old, "status"),
        }
    }

    fn prepare_update(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        if request.subresource.is_empty() {
            return;
        }
        let now = clock::rfc3339(request.now);
        let before = old.list_at("status.conditions");
        for condition in new.list_at_mut("status.conditions") {
            let same = before
                .iter()
                .find(|c| c.str_at("type") == condition.str_at("type"));
            if same.is_none_or(|c| c != condition)
                && condition.get("lastUpdateTime").is_none_or(Value::is_null)
            {
                condition.set("lastUpdateTime", now.clone());
            }
            if condition.get("lastTransitionTime").is_none_or(Value::is_null) {
                condition.set("lastTransitionTime", now.clone());
            }
        }
    }

    fn validate_create(&self, _: &Request<'_>, csr: &Value) -> ErrorList {
        let path = Path::new("spec");
        let mut errors = ErrorList::new();
        if csr.list_at("spec.usages").is_empty() {
            errors.push(field::required(&path.child("usages"), ""));
        }
        if csr.str_at("spec.request").is_empty() {
            errors.push(field::invalid(
                &path.child("request"),
                Value::Null,
                "PEM block type must be CERTIFICATE REQUEST",
            ));
        }
        let signer = csr.str_at("spec.signerName");
        if !signer.is_empty()
            && !signer
                .split_once('/')
                .is_some_and(|(domain, name)| domain.contains('.') && !name.is_empty())
        {
            errors.push(field::invalid(
                &path.child("signerName"),
                signer,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ));
        }
        errors
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, _: &Value) -> ErrorList {
        let has = |kind: &str| {
            new.list_at("status.conditions")
                .iter()
                .any(|c| c.str_at("type") == kind)
        };
        if request.subresource == "approval" && has("Approved") && has("Denied") {
            let path = Path::new("status");
            return vec![field::invalid(
                &path.child("conditions"),
                new.at("status.conditions").cloned().unwrap_or_default(),
                "Approved and Denied conditions are mutually exclusive",
            )];
        }
        ErrorList::new()
    }
}

/// /approval writes conditions only.
fn keep_certificate(new: &mut Value, old: &Value) {
    match old.at("status.certificate") {
        Some(certificate) => new.set_at("status.certificate", certificate.clone()),
        None => drop(new.remove_at("status.certificate")),
    }
}

/// /status may neither approve nor deny, nor take that back.
fn keep_decision(new: &mut Value, old: &Value) {
    let decides = |condition: &Value| matches!(condition.str_at("type"), "Approved" | "Denied");
    let decided: Vec<Value> = old
        .list_at("status.conditions")
        .iter()
        .filter(|c| decides(c))
        .cloned()
        .collect();
    let conditions = new.list_mut_at("status.conditions");
    conditions.retain(|condition| !decides(condition));
    conditions.splice(0..0, decided);
    if conditions.is_empty() {
        new.remove_at("status.conditions");
    }
}
