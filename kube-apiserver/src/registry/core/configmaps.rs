//! ConfigMaps.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::validation;
use apimachinery::value::{Object, Value};

use super::pods::spec::push_all;
use crate::registry::strategy::{Request, Strategy};

/// All data of a ConfigMap or Secret together.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate_create(&self, _: &Request<'_>, map: &Value) -> ErrorList {
        validate(map)
    }

    fn validate_update(&self, _: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = validate(new);
        immutable(new, old, &["data", "binaryData"], &mut errors);
        errors
    }
}

fn entries<'a>(map: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    map.get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Object::iter)
}

fn validate(map: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for name in ["data", "binaryData"] {
        let path = Path::new(name);
        for (key, value) in entries(map, name) {
            push_all(&mut errors, &path.key(key), key, validation::config_map_key(key));
            let length = value.as_str().map_or(0, str::len);
            size += if name == "data" { length } else { length / 4 * 3 };
        }
    }
    let both =
        entries(map, "data").filter(|(key, _)| entries(map, "binaryData").any(|(other, _)| other == *key));
    for (key, _) in both {
        let path = Path::new("data");
        errors.push(field::invalid(
            &path.key(key),
            key,
            "duplicate of key present in binaryData",
        ));
    }
    if size > MAX_DATA_BYTES {
        errors.push(field::too_long(&Path::new(""), MAX_DATA_BYTES));
    }
    errors
}

/// `immutable: true` cannot be taken back, and nothing under it changes.
pub fn immutable(new: &Value, old: &Value, fields: &[&'static str], errors: &mut ErrorList) {
    if !old.bool_at("immutable") {
        return;
    }
    let text = "field is immutable when `immutable` is set";
    if !new.bool_at("immutable") {
        errors.push(field::forbidden(&Path::new("immutable"), text));
    }
    for name in fields {
        if new.get(name) != old.get(name) {
            errors.push(field::forbidden(&Path::new(name), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    #[test]
    fn keys_are_file_names() {
        let map = decode_untyped(br#"{"data":{"a/b":"x"}}"#).unwrap();
        assert!(
            validate(&map)[0]
                .to_string()
                .starts_with("data[a/b]: Invalid value")
        );
    }

    #[test]
    fn an_immutable_map_stays_as_it_is() {
        let old = decode_untyped(br#"{"data":{"a":"x"},"immutable":true}"#).unwrap();
        let new = decode_untyped(br#"{"data":{"a":"y"}}"#).unwrap();
        let mut errors = ErrorList::new();
        immutable(&new, &old, &["data"], &mut errors);
        assert_eq!(errors.len(), 2);
        assert_eq!(
            errors[1].to_string(),
            "data: Forbidden: field is immutable when `immutable` is set"
        );
    }
}
