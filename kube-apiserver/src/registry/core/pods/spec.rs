//! Validation of a pod's spec, in pods and in templates.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::validation;
use apimachinery::value::{Object, Value};

mod container;
mod volume;

pub struct Rules {
    /// `--allow-privileged`.
    pub allow_privileged: bool,
    /// Ephemeral containers have no ports, probes and resources.
    pub ephemeral: bool,
}

pub fn validate(spec: &Value, path: &Path<'_>, rules: &Rules) -> ErrorList {
    let mut errors = ErrorList::new();
    volume::validate(spec.list_at("volumes"), &path.child("volumes"), &mut errors);
    validate_containers(spec, path, rules, &mut errors);
    one_of(
        spec,
        "restartPolicy",
        path,
        &["Always", "OnFailure", "Never"],
        true,
        &mut errors,
    );
    one_of(
        spec,
        "dnsPolicy",
        path,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        true,
        &mut errors,
    );
    validate_numbers(spec, path, &mut errors);
    validate_names(spec, path, &mut errors);
    validate_host_ports(spec, path, &mut errors);
    validate_tolerations(spec, path, &mut errors);
    validate_spread(spec, path, &mut errors);
    errors
}

fn validate_containers(spec: &Value, path: &Path<'_>, rules: &Rules, errors: &mut ErrorList) {
    let volumes: Vec<&str> = spec.list_at("volumes").iter().map(|v| v.str_at("name")).collect();
    let mut names = Vec::new();
    if spec.list_at("containers").is_empty() {
        errors.push(field::required(&path.child("containers"), ""));
    }
    for list in ["containers", "initContainers"] {
        let list_path = path.child(list);
        for (i, container) in spec.list_at(list).iter().enumerate() {
            let at = list_path.index(i);
            container::validate(container, &at, &volumes, rules, errors);
            let name = container.str_at("name");
            if !name.is_empty() && names.contains(&name) {
                errors.push(field::duplicate(&at.child("name"), name));
            }
            names.push(name);
            if list == "initContainers" {
                container::validate_init(container, &at, errors);
            }
        }
    }
}

pub fn validate_ephemeral_containers(spec: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let volumes: Vec<&str> = spec.list_at("volumes").iter().map(|v| v.str_at("name")).collect();
    let mut names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|l| spec.list_at(l))
        .map(|c| c.str_at("name"))
        .collect();
    let rules = Rules {
        allow_privileged: true,
        ephemeral: true,
    };
    for (i, container) in spec.list_at("ephemeralContainers").iter().enumerate() {
        let at = path.index(i);
        container::validate(container, &at, &volumes, &rules, &mut errors);
        let name = container.str_at("name");
        if names.contains(&name) {
            errors.push(field::duplicate(&at.child("name"), name));
        }
        names.push(name);
        for forbidden in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if container.get(forbidden).is_some_and(|v| !v.is_zero()) {
                errors.push(field::forbidden(
                    &at.child(forbidden),
                    "cannot be set for an Ephemeral Container",
                ));
            }
        }
        if container.get("resources").is_some_and(|v| !v.is_zero()) {
            errors.push(field::forbidden(
                &at.child("resources"),
                "cannot be set for an Ephemeral Container",
            ));
        }
    }
    errors
}

/// A string field that is one of a few words.
pub fn one_of(
    value: &Value,
    name: &'static str,
    path: &Path<'_>,
    allowed: &[&str],
    required: bool,
    errors: &mut ErrorList,
) {
    match value.str_at(name) {
        "" if required => errors.push(field::required(&path.child(name), "")),
        "" => {}
        word if allowed.contains(&word) => {}
        word => errors.push(field::not_supported(&path.child(name), word, allowed)),
    }
}

pub fn push_all(errors: &mut ErrorList, path: &Path<'_>, value: &str, messages: Vec<String>) {
    errors.extend(
        messages
            .into_iter()
            .map(|message| field::invalid(path, value, message)),
    );
}

fn validate_numbers(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(seconds) = spec.int_at("terminationGracePeriodSeconds").filter(|s| *s < 0) {
        errors.push(field::invalid(
            &path.child("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(seconds) = spec
        .int_at("activeDeadlineSeconds")
        .filter(|s| !(1..=i64::from(i32::MAX)).contains(s))
    {
        errors.push(field::invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
}

fn validate_names(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for name in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let value = spec.str_at(name);
        if !value.is_empty() {
            push_all(
                errors,
                &path.child(name),
                value,
                validation::dns1123_subdomain(value),
            );
        }
    }
    for name in ["hostname", "subdomain"] {
        let value = spec.str_at(name);
        if !value.is_empty() {
            push_all(errors, &path.child(name), value, validation::dns1123_label(value));
        }
    }
    let selector = path.child("nodeSelector");
    crate::registry::store::meta::validate_labels(
        spec.get("nodeSelector").and_then(Value::as_object),
        &selector,
        errors,
    );
    for (i, secret) in spec.list_at("imagePullSecrets").iter().enumerate() {
        if secret.str_at("name").is_empty() {
            let list = path.child("imagePullSecrets");
            errors.push(field::required(&list.index(i).child("name"), ""));
        }
    }
}

/// With the host's network, a container's port is the host's port; and no two may want the same one.
fn validate_host_ports(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let host_network = spec.bool_at("hostNetwork");
    let list = path.child("containers");
    let mut taken: Vec<(String, i64, String)> = Vec::new();
    for (i, container) in spec.list_at("containers").iter().enumerate() {
        let ports = list.index(i);
        let ports = ports.child("ports");
        for (j, port) in container.list_at("ports").iter().enumerate() {
            let at = ports.index(j);
            let (container_port, host_port) = (
                port.int_at("containerPort").unwrap_or(0),
                port.int_at("hostPort").unwrap_or(0),
            );
            if host_network && host_port != 0 && host_port != container_port {
                errors.push(field::invalid(
                    &at.child("hostPort"),
                    host_port,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
            if host_port == 0 {
                continue;
            }
            let wanted = (
                port.str_at("protocol").to_owned(),
                host_port,
                port.str_at("hostIP").to_owned(),
            );
            if taken.contains(&wanted) {
                errors.push(field::duplicate(
                    &at.child("hostPort"),
                    format!("{}/{}/{}", wanted.0, wanted.2, wanted.1),
                ));
            }
            taken.push(wanted);
        }
    }
}

fn validate_tolerations(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("tolerations");
    for (i, toleration) in spec.list_at("tolerations").iter().enumerate() {
        let at = list.index(i);
        let (key, operator) = (toleration.str_at("key"), toleration.str_at("operator"));
        if !key.is_empty() {
            push_all(errors, &at.child("key"), key, validation::qualified_name(key));
        } else if operator != "Exists" {
            errors.push(field::invalid(
                &at.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        one_of(
            toleration,
            "operator",
            &at,
            &["Equal", "Exists", "Gt", "Lt"],
            false,
            errors,
        );
        if operator == "Exists" && !toleration.str_at("value").is_empty() {
            errors.push(field::invalid(
                &at.child("operator"),
                toleration.str_at("value"),
                "value must be empty when `operator` is 'Exists'",
            ));
        }
        one_of(
            toleration,
            "effect",
            &at,
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            false,
            errors,
        );
        if toleration.get("tolerationSeconds").is_some() && toleration.str_at("effect") != "NoExecute" {
            errors.push(field::invalid(
                &at.child("effect"),
                toleration.str_at("effect"),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
    }
}

fn validate_spread(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("topologySpreadConstraints");
    for (i, constraint) in spec.list_at("topologySpreadConstraints").iter().enumerate() {
        let at = list.index(i);
        let skew = constraint.int_at("maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(field::invalid(
                &at.child("maxSkew"),
                skew,
                "must be greater than zero",
            ));
        }
        if constraint.str_at("topologyKey").is_empty() {
            errors.push(field::required(&at.child("topologyKey"), "can not be empty"));
        }
        one_of(
            constraint,
            "whenUnsatisfiable",
            &at,
            &["DoNotSchedule", "ScheduleAnyway"],
            true,
            errors,
        );
    }
}

/// Requests and limits: well-formed, not negative, requests within limits.
pub fn validate_resources(resources: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(resources) = resources else { return };
    let empty = Object::new();
    let side = |name: &str| resources.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let (limits, requests) = (side("limits"), side("requests"));
    for (name, list) in [("limits", limits), ("requests", requests)] {
        let list_path = path.child(name);
        for (resource, text) in list.iter() {
            let at = list_path.key(resource);
            push_all(errors, &at, resource, validation::qualified_name(resource));
            let text = text.as_str().unwrap_or_default();
            if Quantity::parse(text).is_ok_and(|q| q.sign() < 0) {
                errors.push(field::invalid(&at, text, "must be greater than or equal to 0"));
            }
        }
    }
    for (resource, text) in requests.iter() {
        let request = text.as_str().unwrap_or_default();
        let Some(limit) = limits.get(resource).and_then(Value::as_str) else {
            continue;
        };
        if let (Ok(want), Ok(most)) = (Quantity::parse(request), Quantity::parse(limit))
            && want > most
        {
            errors.push(field::invalid(
                &path.child("requests"),
                request,
                format!("must be less than or equal to {resource} limit of {limit}"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    const SPEC: Path<'static> = Path::new("spec");

    fn errors(json: &str) -> Vec<String> {
        let base = r#""restartPolicy":"Always","dnsPolicy":"ClusterFirst""#;
        let spec = decode_untyped(format!("{{{base},{json}}}").as_bytes()).unwrap();
        validate(
            &spec,
            &SPEC,
            &Rules {
                allow_privileged: false,
                ephemeral: false,
            },
        )
        .iter()
        .map(ToString::to_string)
        .collect()
    }

    fn container(more: &str) -> String {
        format!(
            r#""containers":[{{"name":"c","image":"i","terminationMessagePolicy":"File","imagePullPolicy":"Always"{more}}}]"#
        )
    }

    #[test]
    fn a_plain_pod_is_valid() {
        assert_eq!(errors(&container("")), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_named_in_upstreams_words() {
        assert_eq!(errors(r#""containers":[]"#), ["spec.containers: Required value"]);
        let bad_name = errors(
            r#""containers":[{"name":"C_","image":"i","terminationMessagePolicy":"File","imagePullPolicy":"Always"}]"#,
        );
        assert!(
            bad_name[0]
                .starts_with("spec.containers[0].name: Invalid value: \"C_\": a lowercase RFC 1123 label"),
            "{bad_name:?}"
        );
        assert_eq!(
            errors(&container(r#","volumeMounts":[{"name":"v","mountPath":"/x"}]"#)),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
        );
        let privileged = errors(&container(r#","securityContext":{"privileged":true}"#));
        assert_eq!(
            privileged,
            ["spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"]
        );
        let port = errors(&container(
            r#","ports":[{"containerPort":70000,"protocol":"TCP"}]"#,
        ));
        assert_eq!(
            port,
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ]
        );
    }

    #[test]
    fn requests_stay_within_limits() {
        let found = errors(&container(
            r#","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}"#,
        ));
        assert_eq!(
            found,
            [
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
            ]
        );
    }

    #[test]
    fn volumes_have_one_source_and_one_name() {
        let two = errors(&format!(
            r#"{},"volumes":[{{"name":"v","emptyDir":{{}},"hostPath":{{"path":"/x"}}}}]"#,
            container("")
        ));
        assert!(
            two[0].contains("may not specify more than 1 volume type"),
            "{two:?}"
        );
        let none = errors(&format!(r#"{},"volumes":[{{"name":"v"}}]"#, container("")));
        assert_eq!(
            none,
            ["spec.volumes[0]: Required value: must specify a volume type"]
        );
    }
}
