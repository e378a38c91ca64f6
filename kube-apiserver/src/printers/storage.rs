//! Volumes, claims and classes.

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::text::{NONE, Row, UNSET, or};
use super::{Printer, age, boolean, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        resource: "persistentvolumes",
        columns: &[
            name(),
            string("Capacity"),
            string("Access Modes"),
            string("Reclaim Policy"),
            string("Status"),
            string("Claim"),
            string("StorageClass"),
            string("VolumeAttributesClass"),
            string("Reason"),
            age(),
            wide("VolumeMode"),
        ],
        cells: volume,
    },
    Printer {
        group: "",
        resource: "persistentvolumeclaims",
        columns: &[
            name(),
            string("Status"),
            string("Volume"),
            string("Capacity"),
            string("Access Modes"),
            string("StorageClass"),
            string("VolumeAttributesClass"),
            age(),
            wide("VolumeMode"),
        ],
        cells: claim,
    },
    Printer {
        group: "storage.k8s.io",
        resource: "storageclasses",
        columns: &[
            name(),
            string("Provisioner"),
            string("ReclaimPolicy"),
            string("VolumeBindingMode"),
            string("AllowVolumeExpansion"),
            age(),
        ],
        cells: class,
    },
    Printer {
        group: "storage.k8s.io",
        resource: "volumeattachments",
        columns: &[
            name(),
            string("Attacher"),
            string("PV"),
            string("Node"),
            boolean("Attached"),
            age(),
        ],
        cells: attachment,
    },
    Printer {
        group: "storage.k8s.io",
        resource: "csidrivers",
        columns: &[
            name(),
            boolean("AttachRequired"),
            boolean("PodInfoOnMount"),
            boolean("StorageCapacity"),
            string("TokenRequests"),
            boolean("RequiresRepublish"),
            string("Modes"),
            age(),
        ],
        cells: driver,
    },
    Printer {
        group: "storage.k8s.io",
        resource: "volumeattributesclasses",
        columns: &[name(), string("DriverName"), age()],
        cells: attributes_class,
    },
];

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn phase(row: &Row<'_>) -> Value {
    if row.is_deleting() {
        "Terminating".into()
    } else {
        row.text("status.phase")
    }
}

fn class_name(object: &Value) -> &str {
    object
        .annotation(BETA_CLASS)
        .unwrap_or_else(|| object.str_at("spec.storageClassName"))
}

fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.iter().any(|m| m.as_str() == Some(mode));
    SHORT
        .iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

fn volume(row: &Row<'_>) -> Vec<Value> {
    let object = row.object;
    let claim = match object.at("spec.claimRef") {
        Some(claim) => format!("{}/{}", claim.str_at("namespace"), claim.str_at("name")),
        None => String::new(),
    };
    vec![
        row.name(),
        row.text_or("spec.capacity.storage", "0"),
        access_modes(object.list_at("spec.accessModes")).into(),
        row.text("spec.persistentVolumeReclaimPolicy"),
        phase(row),
        claim.into(),
        class_name(object).into(),
        row.text_or("spec.volumeAttributesClassName", UNSET),
        row.text("status.reason"),
        row.age(),
        row.text_or("spec.volumeMode", UNSET),
    ]
}

fn claim(row: &Row<'_>) -> Vec<Value> {
    let object = row.object;
    let bound = !object.str_at("spec.volumeName").is_empty();
    let (capacity, modes) = match bound {
        true => (
            or(object.str_at("status.capacity.storage"), "0"),
            access_modes(object.list_at("status.accessModes")),
        ),
        false => ("", String::new()),
    };
    vec![
        row.name(),
        phase(row),
        row.text("spec.volumeName"),
        capacity.into(),
        modes.into(),
        class_name(object).into(),
        row.text_or("spec.volumeAttributesClassName", UNSET),
        row.age(),
        row.text_or("spec.volumeMode", UNSET),
    ]
}

fn class(row: &Row<'_>) -> Vec<Value> {
    let default = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    let is_default = default
        .iter()
        .any(|key| row.object.annotation(key) == Some("true"));
    let name = format!(
        "{}{}",
        row.object.name(),
        if is_default { " (default)" } else { "" }
    );
    vec![
        name.into(),
        row.text("provisioner"),
        row.text_or("reclaimPolicy", "Delete"),
        row.text_or("volumeBindingMode", "Immediate"),
        row.object.bool_at("allowVolumeExpansion").into(),
        row.age(),
    ]
}

fn attachment(row: &Row<'_>) -> Vec<Value> {
    let attached = row.object.bool_at("status.attached").into();
    vec![
        row.name(),
        row.text("spec.attacher"),
        row.text("spec.source.persistentVolumeName"),
        row.text("spec.nodeName"),
        attached,
        row.age(),
    ]
}

fn driver(row: &Row<'_>) -> Vec<Value> {
    let spec = |key: &str| row.object.get("spec").map(|s| s.bool_at(key)).unwrap_or_default();
    let attach = row
        .object
        .at("spec.attachRequired")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let texts = |path: &str, key: Option<&str>| -> String {
        let item = |v: &Value| {
            key.map_or_else(
                || v.as_str().unwrap_or_default().to_owned(),
                |k| v.str_at(k).to_owned(),
            )
        };
        row.object
            .list_at(path)
            .iter()
            .map(item)
            .collect::<Vec<_>>()
            .join(",")
    };
    let tokens = if row.object.at("spec.tokenRequests").is_some() {
        texts("spec.tokenRequests", Some("audience"))
    } else {
        UNSET.to_owned()
    };
    vec![
        row.name(),
        attach.into(),
        spec("podInfoOnMount").into(),
        spec("storageCapacity").into(),
        tokens.into(),
        spec("requiresRepublish").into(),
        or(&texts("spec.volumeLifecycleModes", None), NONE).into(),
        row.age(),
    ]
}

fn attributes_class(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("driverName"), row.age()]
}
