//! Validation of Services.

use std::net::IpAddr;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::validation;
use apimachinery::value::Value;

use super::families::family_of;
use super::needs_address;
use crate::registry::core::pods::spec::{one_of, push_all};

const SPEC: Path<'static> = Path::new("spec");
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub fn create(service: &Value, families: &[&'static str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = service.get("spec").unwrap_or(&Value::Null);
    one_of(spec, "type", &SPEC, &TYPES, true, &mut errors);
    one_of(
        spec,
        "sessionAffinity",
        &SPEC,
        &["ClientIP", "None"],
        false,
        &mut errors,
    );
    one_of(
        spec,
        "internalTrafficPolicy",
        &SPEC,
        &["Cluster", "Local"],
        false,
        &mut errors,
    );
    one_of(
        spec,
        "externalTrafficPolicy",
        &SPEC,
        &["Cluster", "Local"],
        false,
        &mut errors,
    );
    one_of(
        spec,
        "ipFamilyPolicy",
        &SPEC,
        &["SingleStack", "PreferDualStack", "RequireDualStack"],
        false,
        &mut errors,
    );
    let selector = SPEC.child("selector");
    crate::registry::store::meta::validate_labels(
        spec.get("selector").and_then(Value::as_object),
        &selector,
        &mut errors,
    );
    match spec.str_at("type") {
        "ExternalName" => external_name(spec, &mut errors),
        _ => addresses(spec, families, &mut errors),
    }
    ports(spec, &mut errors);
    external_ips(spec, &mut errors);
    errors
}

pub fn update(new: &Value, old: &Value, families: &[&'static str]) -> ErrorList {
    let mut errors = create(new, families);
    // An address stays with its Service; only giving it up (ExternalName) and getting one are changes.
    let (before, now) = (old.list_at("spec.clusterIPs"), new.list_at("spec.clusterIPs"));
    let keeps = old.str_at("spec.type") != "ExternalName" && new.str_at("spec.type") != "ExternalName";
    if keeps
        && (needs_address(old) || needs_address(new))
        && let (Some(before), Some(now_first)) = (before.first(), now.first())
        && before != now_first
    {
        let list = SPEC.child("clusterIPs");
        errors.push(field::invalid(
            &list.index(0),
            Value::List(now.to_vec()),
            "may not change once set",
        ));
    }
    errors
}

fn external_name(spec: &Value, errors: &mut ErrorList) {
    let name = spec.str_at("externalName");
    let path = SPEC.child("externalName");
    let plain = name.strip_suffix('.').unwrap_or(name);
    match plain {
        "" => errors.push(field::required(&path, "")),
        plain => push_all(errors, &path, name, validation::dns1123_subdomain(plain)),
    }
    if spec.str_at("clusterIP") == "None" {
        errors.push(field::invalid(
            &SPEC.child("clusterIPs"),
            spec.str_at("clusterIP"),
            "may not be set to 'None' for ExternalName services",
        ));
    }
}

fn addresses(spec: &Value, families: &[&'static str], errors: &mut ErrorList) {
    let path = SPEC.child("clusterIPs");
    let ips = super::texts(spec.list_at("clusterIPs"));
    let single = spec.str_at("clusterIP");
    if ips.first().is_some_and(|first| first != single) {
        errors.push(field::invalid(
            &path.index(0),
            Value::from(ips.clone()),
            "first value must match `clusterIP`",
        ));
    }
    if spec.str_at("type") != "ClusterIP" && single == "None" {
        errors.push(field::invalid(
            &path.index(0),
            single,
            format!("may not be set to 'None' for {} services", spec.str_at("type")),
        ));
    }
    for (i, ip) in ips
        .iter()
        .enumerate()
        .filter(|(_, ip)| *ip != "None" && !ip.is_empty())
    {
        if ip.parse::<IpAddr>().is_err() {
            errors.push(field::invalid(
                &path.index(i),
                ip.as_str(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
    let list = SPEC.child("ipFamilies");
    for (i, family) in super::texts(spec.list_at("ipFamilies")).iter().enumerate() {
        match family.as_str() {
            "IPv4" | "IPv6" => {}
            other => errors.push(field::not_supported(&list.index(i), other, &["IPv4", "IPv6"])),
        }
        let headless = single == "None" && spec.get("selector").is_none_or(Value::is_zero);
        if !headless && !families.contains(&family.as_str()) {
            errors.push(field::invalid(
                &list.index(i),
                family.as_str(),
                "not configured on this cluster",
            ));
        }
        if let Some(own) = ips
            .get(i)
            .and_then(|ip| family_of(ip))
            .filter(|own| own != family)
        {
            errors.push(field::invalid(
                &path.index(i),
                ips[i].as_str(),
                format!("expected an {family} value as indicated by `ipFamilies[{i}]`, got {own}"),
            ));
        }
    }
    if spec.str_at("ipFamilyPolicy") == "RequireDualStack" && families.len() < 2 && single != "None" {
        errors.push(field::invalid(
            &SPEC.child("ipFamilyPolicy"),
            "RequireDualStack",
            "this cluster is not configured for dual-stack services",
        ));
    }
}

fn ports(spec: &Value, errors: &mut ErrorList) {
    let list = SPEC.child("ports");
    let ports = spec.list_at("ports");
    let optional = spec.str_at("clusterIP") == "None" || spec.str_at("type") == "ExternalName";
    if ports.is_empty() && !optional {
        errors.push(field::required(&list, ""));
    }
    let mut names: Vec<&str> = Vec::new();
    let mut numbers: Vec<(&str, i64)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let at = list.index(i);
        let name = port.str_at("name");
        if ports.len() > 1 && name.is_empty() {
            errors.push(field::required(&at.child("name"), ""));
        }
        if !name.is_empty() {
            push_all(errors, &at.child("name"), name, validation::dns1123_label(name));
            if names.contains(&name) {
                errors.push(field::duplicate(&at.child("name"), name));
            }
            names.push(name);
        }
        let number = port.int_at("port").unwrap_or(0);
        errors.extend(
            validation::port_number(number)
                .into_iter()
                .map(|m| field::invalid(&at.child("port"), number, m)),
        );
        one_of(port, "protocol", &at, &["SCTP", "TCP", "UDP"], true, errors);
        target_port(port.get("targetPort"), &at.child("targetPort"), errors);
        let own = (port.str_at("protocol"), number);
        if numbers.contains(&own) {
            errors.push(field::duplicate(
                &at,
                Value::from([("port", Value::Int(number)), ("protocol", own.0.into())]),
            ));
        }
        numbers.push(own);
    }
}

fn target_port(port: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    match port {
        Some(Value::Str(name)) => push_all(errors, path, name.as_str(), validation::port_name(name.as_str())),
        Some(Value::Int(number)) => errors.extend(
            validation::port_number(*number)
                .into_iter()
                .map(|m| field::invalid(path, *number, m)),
        ),
        _ => {}
    }
}

/// Addresses that would catch other nodes' or this node's own traffic are no external addresses.
fn external_ips(spec: &Value, errors: &mut ErrorList) {
    let list = SPEC.child("externalIPs");
    for (i, ip) in super::texts(spec.list_at("externalIPs")).iter().enumerate() {
        let at = list.index(i);
        let message = match ip.parse::<IpAddr>() {
            Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            Ok(address) if address.is_unspecified() => "may not be unspecified (0.0.0.0 or ::)",
            Ok(address) if address.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)",
            Ok(IpAddr::V4(v4)) if v4.is_link_local() => {
                "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
            }
            Ok(address) if address.is_multicast() => {
                "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
            }
            Ok(_) => continue,
        };
        errors.push(field::invalid(&at, ip.as_str(), message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    fn errors(spec: &str) -> Vec<String> {
        let service = decode_untyped(format!(r#"{{"spec":{spec}}}"#).as_bytes()).unwrap();
        create(&service, &["IPv4"])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn ports_are_named_and_numbered() {
        assert_eq!(errors(r#"{"type":"ClusterIP"}"#), ["spec.ports: Required value"]);
        let two = errors(
            r#"{"type":"ClusterIP","ports":[{"port":80,"protocol":"TCP"},{"port":80,"protocol":"TCP","name":"b"}]}"#,
        );
        assert!(
            two.contains(&"spec.ports[0].name: Required value".to_owned()),
            "{two:?}"
        );
        assert!(
            two.iter()
                .any(|e| e.starts_with("spec.ports[1]: Duplicate value")),
            "{two:?}"
        );
        let range = errors(r#"{"type":"ClusterIP","ports":[{"port":0,"protocol":"TCP"}]}"#);
        assert_eq!(
            range,
            ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]
        );
    }

    #[test]
    fn an_address_stays_with_its_service() {
        let service = |ip: &str| {
            decode_untyped(format!(r#"{{"spec":{{"type":"ClusterIP","clusterIP":"{ip}","clusterIPs":["{ip}"],"ports":[{{"port":80,"protocol":"TCP"}}]}}}}"#).as_bytes()).unwrap()
        };
        assert!(update(&service("10.0.0.1"), &service("10.0.0.1"), &["IPv4"]).is_empty());
        let errors = update(&service("10.0.0.2"), &service("10.0.0.1"), &["IPv4"]);
        assert_eq!(
            errors[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
        );
    }

    #[test]
    fn external_addresses_do_not_catch_the_nodes_own_traffic() {
        let found = errors(
            r#"{"type":"ClusterIP","ports":[{"port":80,"protocol":"TCP"}],"externalIPs":["127.0.0.1"]}"#,
        );
        assert!(found[0].contains("loopback"), "{found:?}");
    }
}
