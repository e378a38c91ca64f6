//! Namespaces, configuration, quotas, component status, certificates, registrations.

use apimachinery::value::Value;

use super::text::{NONE, Row, human_duration};
use super::{Printer, age, boolean, integer, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        resource: "namespaces",
        columns: &[name(), string("Status"), age()],
        cells: namespace,
    },
    Printer {
        group: "",
        resource: "configmaps",
        columns: &[name(), string("Data"), age()],
        cells: config_map,
    },
    Printer {
        group: "",
        resource: "secrets",
        columns: &[name(), string("Type"), string("Data"), age()],
        cells: secret,
    },
    Printer {
        group: "",
        resource: "serviceaccounts",
        columns: &[name(), age()],
        cells: name_and_age,
    },
    Printer {
        group: "",
        resource: "limitranges",
        columns: &[name(), super::date("Created At")],
        cells: created,
    },
    Printer {
        group: "",
        resource: "resourcequotas",
        columns: &[name(), string("Request"), string("Limit"), age()],
        cells: quota,
    },
    Printer {
        group: "",
        resource: "componentstatuses",
        columns: &[name(), string("Status"), string("Message"), string("Error")],
        cells: component_status,
    },
    Printer {
        group: "scheduling.k8s.io",
        resource: "priorityclasses",
        columns: &[
            name(),
            integer("Value"),
            boolean("Global-Default"),
            age(),
            wide("PreemptionPolicy"),
        ],
        cells: priority_class,
    },
    Printer {
        group: "certificates.k8s.io",
        resource: "certificatesigningrequests",
        columns: &[
            name(),
            age(),
            string("SignerName"),
            string("Requestor"),
            string("RequestedDuration"),
            string("Condition"),
        ],
        cells: signing_request,
    },
    Printer {
        group: "admissionregistration.k8s.io",
        resource: "validatingwebhookconfigurations",
        columns: &[name(), integer("Webhooks"), age()],
        cells: webhooks,
    },
    Printer {
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        columns: &[name(), integer("Webhooks"), age()],
        cells: webhooks,
    },
    Printer {
        group: "apiregistration.k8s.io",
        resource: "apiservices",
        columns: &[name(), string("Service"), string("Available"), age()],
        cells: api_service,
    },
];

fn name_and_age(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.age()]
}

fn created(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("metadata.creationTimestamp")]
}

fn namespace(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("status.phase"), row.age()]
}

fn size(object: &Value, key: &str) -> i64 {
    object
        .get(key)
        .and_then(Value::as_object)
        .map_or(0, |o| o.len() as i64)
}

fn config_map(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        (size(row.object, "data") + size(row.object, "binaryData")).into(),
        row.age(),
    ]
}

fn secret(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.text("type"),
        size(row.object, "data").into(),
        row.age(),
    ]
}

fn quota(row: &Row<'_>) -> Vec<Value> {
    let hard = row.object.at("status.hard").and_then(Value::as_object);
    let mut names: Vec<&str> = hard.into_iter().flat_map(|h| h.keys()).collect();
    names.sort_unstable();
    let entry = |name: &&str| {
        let of = |which: &str| {
            row.object
                .at(which)
                .and_then(|m| m.get(name))
                .and_then(Value::as_str)
                .unwrap_or("0")
                .to_owned()
        };
        format!("{name}: {}/{}", of("status.used"), of("status.hard"))
    };
    let (limits, requests): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|n| n.starts_with("limits."));
    let join = |names: Vec<&str>| names.iter().map(entry).collect::<Vec<_>>().join(", ");
    vec![row.name(), join(requests).into(), join(limits).into(), row.age()]
}

fn component_status(row: &Row<'_>) -> Vec<Value> {
    let healthy = row
        .object
        .list_at("conditions")
        .iter()
        .find(|c| c.str_at("type") == "Healthy");
    let Some(condition) = healthy else {
        return vec![row.name(), "Unknown".into(), "".into(), "".into()];
    };
    let status = if condition.str_at("status") == "True" {
        "Healthy"
    } else {
        "Unhealthy"
    };
    vec![
        row.name(),
        status.into(),
        condition.str_at("message").into(),
        condition.str_at("error").into(),
    ]
}

fn priority_class(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        row.int("value"),
        row.object.bool_at("globalDefault").into(),
        row.age(),
        row.text("preemptionPolicy"),
    ]
}

fn signing_request(row: &Row<'_>) -> Vec<Value> {
    let duration = row
        .object
        .int_at("spec.expirationSeconds")
        .map_or_else(|| NONE.to_owned(), human_duration);
    vec![
        row.name(),
        row.age(),
        row.text_or("spec.signerName", NONE),
        row.text("spec.username"),
        duration.into(),
        condition(row.object).into(),
    ]
}

fn condition(request: &Value) -> String {
    let has = |kind: &str| {
        request
            .list_at("status.conditions")
            .iter()
            .any(|c| c.str_at("type") == kind)
    };
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !request.str_at("status.certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn webhooks(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        (row.object.list_at("webhooks").len() as i64).into(),
        row.age(),
    ]
}

fn api_service(row: &Row<'_>) -> Vec<Value> {
    let service = match row.object.at("spec.service") {
        Some(s) if !s.is_null() => format!("{}/{}", s.str_at("namespace"), s.str_at("name")),
        _ => "Local".to_owned(),
    };
    let available = row
        .object
        .list_at("status.conditions")
        .iter()
        .find(|c| c.str_at("type") == "Available");
    let shown = match available {
        Some(c) if c.str_at("status") != "True" => format!("{} ({})", c.str_at("status"), c.str_at("reason")),
        Some(c) => c.str_at("status").to_owned(),
        None => "Unknown".to_owned(),
    };
    vec![row.name(), service.into(), shown.into(), row.age()]
}
