//! Fields that say the same twice. Upstream's internal types have one of the two and write both; the older one decides.

use super::hooks::str_of;
use crate::image::put;
use crate::schema::Type;
use crate::value::{Object, Value};

/// `serviceAccount` is the deprecated name of `serviceAccountName`.
pub(super) fn pod_spec(spec: &mut Object, ty: &'static Type) {
    let name = match str_of(spec, "serviceAccountName") {
        "" => str_of(spec, "serviceAccount"),
        name => name,
    };
    if name.is_empty() {
        return;
    }
    let name = Value::from(name);
    put(spec, ty, "serviceAccountName", name.clone());
    put(spec, ty, "serviceAccount", name);
}

/// `podIP` is the first of `podIPs`.
pub(super) fn pod_status(status: &mut Object, ty: &'static Type) {
    let first = status
        .get("podIPs")
        .and_then(Value::as_list)
        .and_then(|ips| ips.first())
        .map(|ip| ip.str_at("ip"));
    match (str_of(status, "podIP"), first.unwrap_or_default()) {
        ("", "") => {}
        ("", first) => {
            let first = Value::from(first);
            put(status, ty, "podIP", first);
        }
        (ip, first) if ip != first => {
            let ips = vec![Value::from([("ip", ip.into())])];
            put(status, ty, "podIPs", ips.into());
        }
        _ => {}
    }
}

/// `podCIDR` is the first of `podCIDRs`.
pub(super) fn node_spec(spec: &mut Object, ty: &'static Type) {
    let first = spec
        .get("podCIDRs")
        .and_then(Value::as_list)
        .and_then(|cidrs| cidrs.first())
        .and_then(Value::as_str);
    match (str_of(spec, "podCIDR"), first.unwrap_or_default()) {
        ("", "") => {}
        ("", first) => {
            let first = Value::from(first);
            put(spec, ty, "podCIDR", first);
        }
        (cidr, first) if cidr != first => {
            let cidrs = vec![Value::from(cidr)];
            put(spec, ty, "podCIDRs", cidrs.into());
        }
        _ => {}
    }
}
