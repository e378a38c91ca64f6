//! Secrets: stringData is written into data, some types must have certain keys.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::Meta;
use apimachinery::validation;
use apimachinery::value::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::configmaps::{MAX_DATA_BYTES, immutable};
use super::pods::spec::push_all;
use crate::registry::strategy::{Request, Strategy};

pub struct SecretStrategy;

const DATA: Path<'static> = Path::new("data");
const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

impl Strategy for SecretStrategy {
    fn prepare_create(&self, _: &Request<'_>, secret: &mut Value) {
        merge_string_data(secret);
    }

    fn prepare_update(&self, _: &Request<'_>, new: &mut Value, old: &Value) {
        merge_string_data(new);
        // An update without a type means the type it has.
        if matches!(new.str_at("type"), "" | "Opaque")
            && !old.str_at("type").is_empty()
            && new.str_at("type").is_empty()
        {
            new.set("type", old.str_at("type").to_owned());
        }
    }

    fn validate_create(&self, _: &Request<'_>, secret: &Value) -> ErrorList {
        validate(secret)
    }

    fn validate_update(&self, _: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = validate(new);
        if new.str_at("type") != old.str_at("type") {
            errors.push(field::invalid(
                &Path::new("type"),
                new.str_at("type"),
                "field is immutable",
            ));
        }
        immutable(new, old, &["data"], &mut errors);
        errors
    }
}

fn merge_string_data(secret: &mut Value) {
    let Some(Value::Object(strings)) = secret.remove("stringData") else {
        return;
    };
    let data = secret.object_mut_at("data");
    for (key, text) in strings.iter() {
        let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
        data.insert(key.to_owned(), Value::from(encoded));
    }
}

fn validate(secret: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in secret
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Object::iter)
    {
        push_all(&mut errors, &DATA.key(key), key, validation::config_map_key(key));
        size += value.as_str().map_or(0, str::len) / 4 * 3;
    }
    if size > MAX_DATA_BYTES {
        errors.push(field::too_long(&DATA, MAX_DATA_BYTES));
    }
    by_type(secret, &mut errors);
    errors
}

fn by_type(secret: &Value, errors: &mut ErrorList) {
    let bytes = |key: &str| {
        secret
            .get("data")
            .and_then(|d| d.get(key))
            .and_then(Value::as_str)
    };
    match secret.str_at("type") {
        "kubernetes.io/service-account-token"
            if secret
                .annotation(SERVICE_ACCOUNT_NAME)
                .unwrap_or_default()
                .is_empty() =>
        {
            let path = Path::new("metadata");
            let path = path.child("annotations");
            errors.push(field::required(&path.key(SERVICE_ACCOUNT_NAME), ""));
        }
        "kubernetes.io/dockerconfigjson" => json_key(bytes(".dockerconfigjson"), ".dockerconfigjson", errors),
        "kubernetes.io/dockercfg" => json_key(bytes(".dockercfg"), ".dockercfg", errors),
        "kubernetes.io/basic-auth" if bytes("username").is_none() && bytes("password").is_none() => {
            errors.push(field::required(&DATA.key("username"), ""));
            errors.push(field::required(&DATA.key("password"), ""));
        }
        "kubernetes.io/ssh-auth" if bytes("ssh-privatekey").is_none_or(str::is_empty) => {
            errors.push(field::required(&DATA.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"]
                .into_iter()
                .filter(|key| bytes(key).is_none())
            {
                errors.push(field::required(&DATA.key(key), ""));
            }
        }
        _ => {}
    }
}

fn json_key(encoded: Option<&str>, key: &'static str, errors: &mut ErrorList) {
    let Some(encoded) = encoded else {
        errors.push(field::required(&DATA.key(key), ""));
        return;
    };
    let plain = STANDARD.decode(encoded).unwrap_or_default();
    if let Err(reason) = serde_json::from_slice::<serde::de::IgnoredAny>(&plain) {
        errors.push(field::invalid(
            &DATA.key(key),
            "<secret contents redacted>",
            reason.to_string(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    #[test]
    fn string_data_wins_over_data() {
        let mut secret = decode_untyped(br#"{"data":{"a":"eA=="},"stringData":{"a":"y","b":"z"}}"#).unwrap();
        merge_string_data(&mut secret);
        assert_eq!(
            secret.at("data").unwrap().get("a").unwrap().as_str(),
            Some("eQ==")
        );
        assert!(secret.get("stringData").is_none());
    }

    #[test]
    fn types_demand_their_keys() {
        let secret = decode_untyped(br#"{"type":"kubernetes.io/tls","data":{"tls.crt":""}}"#).unwrap();
        assert_eq!(
            validate(&secret)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["data[tls.key]: Required value"]
        );
        let secret = decode_untyped(
            br#"{"type":"kubernetes.io/dockerconfigjson","data":{".dockerconfigjson":"eA=="}}"#,
        )
        .unwrap();
        assert!(
            validate(&secret)[0]
                .to_string()
                .contains("<secret contents redacted>")
        );
    }
}
