//! DenyServiceExternalIPs: no new external addresses on services; they could catch other people's traffic.

use apimachinery::value::Value;

use super::{Operation, Plugin, Verdict, forbidden};
use crate::registry::admission::Attributes;

pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(service) = a.object.as_ref().filter(|_| super::is_main(a, "", "services")) else {
            return Ok(());
        };
        let old = a.old.as_ref().map(|o| o.value()).unwrap_or_default();
        let kept = |ip: &Value| old.list_at("spec.externalIPs").contains(ip);
        if service.list_at("spec.externalIPs").iter().all(kept) {
            return Ok(());
        }
        Err(forbidden(
            a,
            "Use of external IPs is denied by admission control.",
        ))
    }
}
