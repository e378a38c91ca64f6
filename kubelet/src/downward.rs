//! The downward API: a pod's own fields and resources as text, for environment variables and volume files.

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::pod::{Labels, PodExt};
use crate::resources::{self, Amounts};

/// What a pod's status does not say yet while its containers are being made.
pub struct Addresses<'a> {
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
}

/// `None`: no such field.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, addresses: &Addresses<'_>) -> Option<String> {
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return None,
        };
        return Some(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec();
    Some(match path {
        "metadata.name" => pod.name().to_string(),
        "metadata.namespace" => pod.namespace().to_string(),
        "metadata.uid" => pod.uid().to_string(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "spec.restartPolicy" => pod.restart_policy().to_string(),
        "status.hostIP" => addresses.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => addresses.host_ips.join(","),
        "status.podIP" => addresses.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => addresses.pod_ips.join(","),
        _ => return None,
    })
}

/// `metadata.labels['key']`
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` a line, sorted, quoted as Go quotes.
fn format_map(map: Option<&Labels>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", go_quote(v)))
        .collect();
    lines.join("\n")
}

fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `limits.cpu` and the like in units of the divisor, rounded up. A limit that is not set is what the node can give.
pub fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: &Amounts,
) -> Option<String> {
    let (which, name) = selector.resource.split_once('.')?;
    let own = match which {
        "limits" => resources::limit(container, name).or_else(|| allocatable.get(name).copied()),
        "requests" => resources::request(container, name),
        _ => return None,
    };
    let amount = own.unwrap_or(0);
    let divisor = selector
        .divisor
        .as_ref()
        .filter(|q| !q.0.is_empty() && q.0 != "0");
    let amount_milli = if name == "cpu" {
        amount
    } else {
        amount.saturating_mul(1000)
    };
    let divisor_milli = divisor.map_or(1000, resources::milli).max(1);
    Some(((i128::from(amount_milli) + i128::from(divisor_milli) - 1) / i128::from(divisor_milli)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u",
            "labels": {"b": "2", "a": "x\"y\n"}, "annotations": {"k/z": "v"}}, "spec": {"containers": []}}))
        .unwrap()
    }

    fn read(path: &str) -> Option<String> {
        let addresses = Addresses {
            pod_ips: &["10.0.0.2".into(), "fd00::2".into()],
            host_ips: &["192.168.0.1".into()],
        };
        field(
            &pod(),
            &ObjectFieldSelector {
                api_version: None,
                field_path: path.into(),
            },
            &addresses,
        )
    }

    #[test]
    fn fields_are_read_as_upstream_prints_them() {
        assert_eq!(read("metadata.labels").unwrap(), "a=\"x\\\"y\\n\"\nb=\"2\"");
        assert_eq!(read("metadata.annotations['k/z']").unwrap(), "v");
        assert_eq!(read("metadata.labels['none']").unwrap(), "");
        assert_eq!(read("status.podIPs").unwrap(), "10.0.0.2,fd00::2");
        assert_eq!(read("status.hostIP").unwrap(), "192.168.0.1");
        assert_eq!(read("spec.nonsense"), None);
    }

    #[test]
    fn resources_round_up_to_the_divisor_and_fall_back_to_the_node() {
        let container: Container = serde_json::from_value(
            json!({"name": "c", "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "65Mi"}}}),
        )
        .unwrap();
        let node = Amounts::from([("memory".to_string(), 1 << 30)]);
        let get = |resource: &str, divisor: &str| {
            let divisor = Some(Quantity(divisor.into()));
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor,
                resource: resource.into(),
            };
            super::resource(&container, &selector, &node).unwrap()
        };
        assert_eq!(get("limits.cpu", "1"), "1");
        assert_eq!(get("limits.cpu", "1m"), "250");
        assert_eq!(get("limits.memory", "1Mi"), "1024");
        assert_eq!(get("requests.memory", "10Mi"), "7");
    }
}
