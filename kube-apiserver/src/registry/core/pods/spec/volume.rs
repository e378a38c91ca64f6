//! Volumes of a pod.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::validation;
use apimachinery::value::Value;

use super::push_all;

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

pub fn validate(volumes: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    let mut names: Vec<&str> = Vec::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let name = volume.str_at("name");
        match name {
            "" => errors.push(field::required(&at.child("name"), "")),
            _ => push_all(errors, &at.child("name"), name, validation::dns1123_label(name)),
        }
        if names.contains(&name) {
            errors.push(field::duplicate(&at.child("name"), name));
        }
        names.push(name);
        sources(volume, &at, errors);
    }
}

fn sources(volume: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let fields = volume.as_object().into_iter().flat_map(|o| o.iter());
    let mut given = fields.filter(|(name, source)| *name != "name" && !source.is_null());
    let Some((kind, source)) = given.next() else {
        errors.push(field::required(path, "must specify a volume type"));
        return;
    };
    source_of(kind, source, &path.child(kind), errors);
    for (extra, _) in given {
        errors.push(field::forbidden(
            &path.child(extra),
            "may not specify more than 1 volume type",
        ));
    }
}

fn source_of(kind: &str, source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let mut required = |name: &'static str| {
        if source.str_at(name).is_empty() {
            errors.push(field::required(&path.child(name), ""));
        }
    };
    match kind {
        "hostPath" => {
            required("path");
            host_path(source, path, errors);
        }
        "secret" => {
            required("secretName");
            mode_and_items(source, path, errors);
        }
        "configMap" => {
            required("name");
            mode_and_items(source, path, errors);
        }
        "persistentVolumeClaim" => required("claimName"),
        "nfs" => {
            required("server");
            required("path");
        }
        "csi" => required("driver"),
        "downwardAPI" | "projected" => mode_and_items(source, path, errors),
        _ => {}
    }
}

fn host_path(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if source.str_at("path").split('/').any(|part| part == "..") {
        errors.push(field::invalid(
            &path.child("path"),
            source.str_at("path"),
            "must not contain '..'",
        ));
    }
    let kind = source.str_at("type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(field::not_supported(&path.child("type"), kind, &HOST_PATH_TYPES));
    }
}

fn mode_and_items(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(mode) = source.int_at("defaultMode").filter(|m| !(0..=0o777).contains(m)) {
        errors.push(field::invalid(
            &path.child("defaultMode"),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
    let list = path.child("items");
    for (i, item) in source.list_at("items").iter().enumerate() {
        let at = list.index(i);
        let target = item.str_at("path");
        if target.is_empty() {
            errors.push(field::required(&at.child("path"), ""));
        }
        if target.starts_with('/') {
            errors.push(field::invalid(
                &at.child("path"),
                target,
                "must be a relative path",
            ));
        }
        if target.split('/').any(|part| part == "..") {
            errors.push(field::invalid(&at.child("path"), target, "must not contain '..'"));
        }
    }
}
