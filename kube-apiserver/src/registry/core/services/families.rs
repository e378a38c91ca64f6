//! clusterIP and clusterIPs, ipFamilies and ipFamilyPolicy: filled in from each other and from what the cluster has.

use apimachinery::value::Value;

/// `families` are the cluster's, first the preferred one: `IPv4`, `IPv6`.
pub fn complete(service: &mut Value, families: &[&'static str]) {
    if service.str_at("spec.type") == "ExternalName" {
        return;
    }
    mirror_addresses(service);
    let headless = service.str_at("spec.clusterIP") == "None";
    let selectorless = service.at("spec.selector").is_none_or(Value::is_zero);
    if service.str_at("spec.ipFamilyPolicy").is_empty() {
        // Such a Service's endpoints are made by hand and may be of any family.
        let both = headless && selectorless
            || service.list_at("spec.ipFamilies").len() > 1
            || service.list_at("spec.clusterIPs").len() > 1;
        service.set_at(
            "spec.ipFamilyPolicy",
            if both { "RequireDualStack" } else { "SingleStack" },
        );
    }
    complete_families(service, families, headless && selectorless);
    trim_to_policy(service);
}

/// Either of the two names may be given.
fn mirror_addresses(service: &mut Value) {
    let single = service.str_at("spec.clusterIP").to_owned();
    let list = service.list_at("spec.clusterIPs").len();
    if list == 0 && !single.is_empty() {
        service.set_at("spec.clusterIPs", vec![single]);
    } else if single.is_empty() && list > 0 {
        let first = service.list_at("spec.clusterIPs")[0]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        service.set_at("spec.clusterIP", first);
    }
}

fn complete_families(service: &mut Value, families: &[&'static str], any: bool) {
    let mut wanted: Vec<String> = super::texts(service.list_at("spec.ipFamilies"));
    for (i, ip) in super::texts(service.list_at("spec.clusterIPs"))
        .iter()
        .enumerate()
    {
        if wanted.len() == i {
            wanted.extend(family_of(ip).map(str::to_owned));
        }
    }
    if wanted.is_empty() {
        wanted.extend(families.first().map(|f| (*f).to_owned()));
    }
    let policy = service.str_at("spec.ipFamilyPolicy");
    let dual = policy == "RequireDualStack" || policy == "PreferDualStack" && families.len() == 2;
    if dual && wanted.len() == 1 && (families.len() == 2 || any) {
        let other = if wanted[0] == "IPv4" { "IPv6" } else { "IPv4" };
        wanted.push(other.to_owned());
    }
    service.set_at("spec.ipFamilies", wanted);
}

/// A Service that goes back to one family keeps its first one.
fn trim_to_policy(service: &mut Value) {
    if service.str_at("spec.ipFamilyPolicy") == "SingleStack" {
        for list in ["spec.ipFamilies", "spec.clusterIPs"] {
            if service.list_at(list).len() > 1 {
                service.list_mut_at(list).truncate(1);
            }
        }
    }
}

pub fn family_of(ip: &str) -> Option<&'static str> {
    match ip.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => Some("IPv4"),
        Ok(std::net::IpAddr::V6(_)) => Some("IPv6"),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    fn completed(json: &str, families: &[&'static str]) -> Value {
        let mut service = decode_untyped(json.as_bytes()).unwrap();
        complete(&mut service, families);
        service
    }

    fn families(service: &Value) -> Vec<String> {
        super::super::texts(service.list_at("spec.ipFamilies"))
    }

    #[test]
    fn a_plain_service_has_one_family() {
        let service = completed(r#"{"spec":{"type":"ClusterIP","selector":{"a":"b"}}}"#, &["IPv4"]);
        assert_eq!(service.str_at("spec.ipFamilyPolicy"), "SingleStack");
        assert_eq!(families(&service), ["IPv4"]);
    }

    #[test]
    fn a_headless_service_without_selector_has_both() {
        let service = completed(r#"{"spec":{"type":"ClusterIP","clusterIP":"None"}}"#, &["IPv4"]);
        assert_eq!(service.str_at("spec.ipFamilyPolicy"), "RequireDualStack");
        assert_eq!(families(&service), ["IPv4", "IPv6"]);
        assert_eq!(super::super::texts(service.list_at("spec.clusterIPs")), ["None"]);
    }

    #[test]
    fn preferring_two_families_takes_what_there_is() {
        let json = r#"{"spec":{"type":"ClusterIP","selector":{"a":"b"},"ipFamilyPolicy":"PreferDualStack"}}"#;
        assert_eq!(families(&completed(json, &["IPv4"])), ["IPv4"]);
        assert_eq!(families(&completed(json, &["IPv6", "IPv4"])), ["IPv6", "IPv4"]);
    }
}
