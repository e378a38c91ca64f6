//! One container.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::validation;
use apimachinery::value::Value;

use super::{Rules, one_of, push_all, validate_resources};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

pub fn validate(container: &Value, path: &Path<'_>, volumes: &[&str], rules: &Rules, errors: &mut ErrorList) {
    let name = container.str_at("name");
    match name {
        "" => errors.push(field::required(&path.child("name"), "")),
        _ => push_all(errors, &path.child("name"), name, validation::dns1123_label(name)),
    }
    let image = container.str_at("image");
    if image.is_empty() {
        errors.push(field::required(&path.child("image"), ""));
    } else if image.trim() != image {
        errors.push(field::invalid(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(
        container,
        "terminationMessagePolicy",
        path,
        &["File", "FallbackToLogsOnError"],
        true,
        errors,
    );
    one_of(container, "imagePullPolicy", path, &PULL_POLICIES, true, errors);
    ports(container, path, errors);
    env(container, path, errors);
    mounts(container, path, volumes, errors);
    validate_resources(container.get("resources"), &path.child("resources"), errors);
    security(container, path, rules, errors);
    if !rules.ephemeral {
        probes(container, path, errors);
        lifecycle(container, path, errors);
    }
}

/// Init containers run to their end, unless they are sidecars (restartPolicy Always).
pub fn validate_init(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if container.str_at("restartPolicy") == "Always" {
        return;
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        if container.get(name).is_some() {
            errors.push(field::forbidden(
                &path.child(name),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("ports");
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in container.list_at("ports").iter().enumerate() {
        let at = list.index(i);
        let name = port.str_at("name");
        if !name.is_empty() {
            push_all(errors, &at.child("name"), name, validation::port_name(name));
            if names.contains(&name) {
                errors.push(field::duplicate(&at.child("name"), name));
            }
            names.push(name);
        }
        match port.int_at("containerPort").unwrap_or(0) {
            0 => errors.push(field::required(&at.child("containerPort"), "")),
            number => number_in(&at.child("containerPort"), number, errors),
        }
        match port.int_at("hostPort").unwrap_or(0) {
            0 => {}
            number => number_in(&at.child("hostPort"), number, errors),
        }
        one_of(port, "protocol", &at, &PROTOCOLS, true, errors);
    }
}

fn number_in(path: &Path<'_>, number: i64, errors: &mut ErrorList) {
    errors.extend(
        validation::port_number(number)
            .into_iter()
            .map(|m| field::invalid(path, number, m)),
    );
}

fn env(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("env");
    for (i, variable) in container.list_at("env").iter().enumerate() {
        let at = list.index(i);
        let name = variable.str_at("name");
        match name {
            "" => errors.push(field::required(&at.child("name"), "")),
            _ => push_all(
                errors,
                &at.child("name"),
                name,
                validation::relaxed_env_var_name(name),
            ),
        }
        let Some(source) = variable.get("valueFrom") else {
            continue;
        };
        let from = at.child("valueFrom");
        let sources = source
            .as_object()
            .map_or(0, |o| o.iter().filter(|(_, v)| !v.is_null()).count());
        if !variable.str_at("value").is_empty() && sources > 0 {
            errors.push(field::invalid(
                &from,
                "",
                "may not be specified when `value` is not empty",
            ));
        }
        match sources {
            0 => errors.push(field::invalid(&from, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")),
            1 => key_refs(source, &from, errors),
            _ => errors.push(field::invalid(&from, "", "may not have more than one field specified at a time")),
        }
    }
    let list = path.child("envFrom");
    for (i, from) in container.list_at("envFrom").iter().enumerate() {
        let at = list.index(i);
        match (from.get("configMapRef"), from.get("secretRef")) {
            (None, None) => errors.push(field::invalid(
                &at,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            (Some(_), Some(_)) => errors.push(field::invalid(
                &at,
                "",
                "may not have more than one field specified at a time",
            )),
            (Some(r), _) if r.str_at("name").is_empty() => {
                errors.push(field::required(&at.child("configMapRef").child("name"), ""))
            }
            (_, Some(r)) if r.str_at("name").is_empty() => {
                errors.push(field::required(&at.child("secretRef").child("name"), ""))
            }
            _ => {}
        }
    }
}

fn key_refs(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = source.get(kind) else {
            continue;
        };
        let at = path.child(kind);
        if reference.str_at("name").is_empty() {
            errors.push(field::required(&at.child("name"), ""));
        }
        match reference.str_at("key") {
            "" => errors.push(field::required(&at.child("key"), "")),
            key => push_all(errors, &at.child("key"), key, validation::config_map_key(key)),
        }
    }
    if let Some(reference) = source.get("fieldRef")
        && reference.str_at("fieldPath").is_empty()
    {
        errors.push(field::required(&path.child("fieldRef").child("fieldPath"), ""));
    }
}

fn mounts(container: &Value, path: &Path<'_>, volumes: &[&str], errors: &mut ErrorList) {
    let list = path.child("volumeMounts");
    let mut points: Vec<&str> = Vec::new();
    for (i, mount) in container.list_at("volumeMounts").iter().enumerate() {
        let at = list.index(i);
        match mount.str_at("name") {
            "" => errors.push(field::required(&at.child("name"), "")),
            name if volumes.contains(&name) => {}
            name => errors.push(field::not_found(&at.child("name"), name)),
        }
        let point = mount.str_at("mountPath");
        if point.is_empty() {
            errors.push(field::required(&at.child("mountPath"), ""));
        }
        if points.contains(&point) {
            errors.push(field::invalid(&at.child("mountPath"), point, "must be unique"));
        }
        points.push(point);
        sub_path(mount, "subPath", &at, errors);
        sub_path(mount, "subPathExpr", &at, errors);
        if !mount.str_at("subPath").is_empty() && !mount.str_at("subPathExpr").is_empty() {
            errors.push(field::invalid(
                &at.child("subPathExpr"),
                mount.str_at("subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
}

fn sub_path(mount: &Value, name: &'static str, path: &Path<'_>, errors: &mut ErrorList) {
    let text = mount.str_at(name);
    if text.starts_with('/') {
        errors.push(field::invalid(&path.child(name), text, "must be a relative path"));
    }
    if text.split('/').any(|part| part == "..") {
        errors.push(field::invalid(&path.child(name), text, "must not contain '..'"));
    }
}

fn security(container: &Value, path: &Path<'_>, rules: &Rules, errors: &mut ErrorList) {
    let Some(context) = container.get("securityContext") else {
        return;
    };
    let at = path.child("securityContext");
    if context.bool_at("privileged") && !rules.allow_privileged {
        errors.push(field::forbidden(
            &at.child("privileged"),
            "disallowed by cluster policy",
        ));
    }
    for (name, check) in [
        ("runAsUser", validation::user_id as fn(i64) -> Vec<String>),
        ("runAsGroup", validation::group_id),
    ] {
        if let Some(id) = context.int_at(name) {
            errors.extend(
                check(id)
                    .into_iter()
                    .map(|m| field::invalid(&at.child(name), id, m)),
            );
        }
    }
    let escalates = context.get("allowPrivilegeEscalation").and_then(Value::as_bool);
    if escalates == Some(false) {
        if context.bool_at("privileged") {
            errors.push(field::invalid(
                &at,
                "",
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        if context
            .list_at("capabilities.add")
            .iter()
            .any(|c| c.as_str() == Some("CAP_SYS_ADMIN"))
        {
            errors.push(field::invalid(
                &at,
                "",
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
    if let Some(seccomp) = context.get("seccompProfile") {
        seccomp_profile(seccomp, &at.child("seccompProfile"), errors);
    }
}

/// An empty localhostProfile once switched confinement off unnoticed.
pub fn seccomp_profile(profile: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    one_of(
        profile,
        "type",
        path,
        &["Localhost", "RuntimeDefault", "Unconfined"],
        true,
        errors,
    );
    let file = profile.str_at("localhostProfile");
    if profile.str_at("type") != "Localhost" {
        if !file.is_empty() {
            errors.push(field::invalid(
                &path.child("localhostProfile"),
                file,
                "can only be set when seccomp type is Localhost",
            ));
        }
    } else if file.is_empty() {
        errors.push(field::required(
            &path.child("localhostProfile"),
            "must be set when seccomp type is Localhost",
        ));
    } else {
        sub_path(profile, "localhostProfile", path, errors);
    }
}

fn probes(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(name) else {
            continue;
        };
        let at = path.child(name);
        handler(probe, &at, errors);
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            if let Some(n) = probe.int_at(number).filter(|n| *n < 0) {
                errors.push(field::invalid(
                    &at.child(number),
                    n,
                    "must be greater than or equal to 0",
                ));
            }
        }
        let successes = probe.int_at("successThreshold").unwrap_or(1);
        if name != "readinessProbe" && successes > 1 {
            errors.push(field::invalid(
                &at.child("successThreshold"),
                successes,
                "must be 1",
            ));
        }
    }
}

fn lifecycle(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at = path.child("lifecycle");
    for name in ["postStart", "preStop"] {
        let Some(hook) = container.at("lifecycle").and_then(|l| l.get(name)) else {
            continue;
        };
        if hook.get("sleep").is_none() {
            handler(hook, &at.child(name), errors);
        }
    }
}

fn handler(action: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let given: Vec<&str> = HANDLERS
        .into_iter()
        .filter(|kind| action.get(kind).is_some_and(|v| !v.is_null()))
        .collect();
    match given.as_slice() {
        [] => errors.push(field::required(path, "must specify a handler type")),
        [kind] => handler_of(kind, action, path, errors),
        [_, more @ ..] => more.iter().for_each(|kind| {
            errors.push(field::forbidden(
                &path.child(kind),
                "may not specify more than 1 handler type",
            ))
        }),
    }
}

fn handler_of(kind: &str, action: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match kind {
        "exec" if action.list_at("exec.command").is_empty() => {
            errors.push(field::required(&path.child("exec").child("command"), ""))
        }
        "httpGet" => {
            let at = path.child("httpGet");
            if action.str_at("httpGet.path").is_empty() {
                errors.push(field::required(&at.child("path"), ""));
            }
            port(action.at("httpGet.port"), &at.child("port"), errors);
        }
        "tcpSocket" => port(
            action.at("tcpSocket.port"),
            &path.child("tcpSocket").child("port"),
            errors,
        ),
        "grpc" => port(action.at("grpc.port"), &path.child("grpc").child("port"), errors),
        _ => {}
    }
}

fn port(port: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    match port {
        Some(Value::Str(name)) => push_all(errors, path, name.as_str(), validation::port_name(name.as_str())),
        other => number_in(path, other.and_then(Value::as_int).unwrap_or(0), errors),
    }
}
