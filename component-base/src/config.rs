//! Configuration files: YAML or JSON, read as Go's `sigs.k8s.io/yaml` reads them.
//!
//! YAML becomes JSON under YAML 1.1 rules (`yes`, `on`, `0777`), then serde. A config type should carry
//! `#[serde(deny_unknown_fields)]`, so that a misspelt field is an error with file, line and field.

mod scalar;
mod yaml;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Larger files are refused before they are parsed.
const MAX_FILE_BYTES: u64 = 3 * 1024 * 1024;

/// Reads a config object of one of the accepted `(apiVersion, kind)`. An empty `kinds` accepts anything.
pub fn load<T: DeserializeOwned>(path: &Path, kinds: &[(&str, &str)]) -> Result<T> {
    let text = read(path)?;
    parse(&text, kinds).with_context(|| format!("config file {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("config file {}", path.display()))?
        .len();
    if size > MAX_FILE_BYTES {
        bail!(
            "config file {}: {size} bytes are more than the {MAX_FILE_BYTES} that a config may have",
            path.display()
        );
    }
    std::fs::read_to_string(path).with_context(|| format!("config file {}", path.display()))
}

/// As [`load`] from text.
pub fn parse<T: DeserializeOwned>(text: &str, kinds: &[(&str, &str)]) -> Result<T> {
    let mut value = yaml_to_json(text)?;
    check_kind(&value, kinds)?;
    if !kinds.is_empty()
        && let Value::Object(fields) = &mut value
    {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    serde_json::from_value(value).map_err(|error| anyhow::anyhow!("{}", located(text, &error.to_string())))
}

fn check_kind(value: &Value, kinds: &[(&str, &str)]) -> Result<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    let field = |name| value.get(name).and_then(Value::as_str).unwrap_or("");
    let found = (field("apiVersion"), field("kind"));
    if kinds.contains(&found) {
        return Ok(());
    }
    let wanted: Vec<String> = kinds
        .iter()
        .map(|(version, kind)| format!("apiVersion: {version}, kind: {kind}"))
        .collect();
    match found {
        ("", "") => bail!("no apiVersion and kind are set, wanted {}", wanted.join(" or ")),
        (version, kind) => bail!(
            "no kind {kind:?} is registered for version {version:?}, wanted {}",
            wanted.join(" or ")
        ),
    }
}

/// serde names the field; the line is where the text first mentions it.
fn located(text: &str, error: &str) -> String {
    let Some(field) = error.split('`').nth(1) else {
        return error.to_owned();
    };
    let mentions = |line: &str| {
        let line = line.trim_start_matches([' ', '-', '{', '"', '\'']);
        line.strip_prefix(field)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    match text.lines().position(mentions) {
        Some(index) => format!("line {}: {error}", index + 1),
        None => error.to_owned(),
    }
}

/// The first document as JSON; an empty text is null.
pub fn yaml_to_json(text: &str) -> Result<Value> {
    Ok(yaml_documents(text)?.into_iter().next().unwrap_or(Value::Null))
}

/// Every document of a multi-document text, empty ones left out. JSON is YAML and takes the faster way.
pub fn yaml_documents(text: &str) -> Result<Vec<Value>> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(vec![value]);
    }
    Ok(yaml::documents(text)?)
}

pub use yaml::YamlError;

/// A duration in a config file: Go's `1m0s`. Zero when absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub std::time::Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(GoDuration::default()),
            Value::String(text) => crate::flags::parse_duration(&text)
                .map(GoDuration)
                .map_err(serde::de::Error::custom),
            // metav1.Duration only reads strings; 0 is what people write.
            Value::Number(number) if number.as_i64() == Some(0) => Ok(GoDuration::default()),
            other => Err(serde::de::Error::custom(format!(
                "{other} is not a duration such as \"1m0s\""
            ))),
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::flags::format_duration(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Sample {
        fail_swap_on: bool,
        sync_period: GoDuration,
        ports: Vec<u16>,
    }

    const KINDS: &[(&str, &str)] = &[("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")];
    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn booleans_octals_and_durations_are_read_as_go_reads_them() {
        let sample: Sample = parse(
            &format!("{HEAD}failSwapOn: off\nsyncPeriod: 1m30s\nports: [010, 0x10]\n"),
            KINDS,
        )
        .unwrap();
        assert_eq!(
            sample,
            Sample {
                fail_swap_on: false,
                sync_period: GoDuration(std::time::Duration::from_secs(90)),
                ports: vec![8, 16]
            }
        );
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let error = parse::<Sample>(&format!("{HEAD}failSwapOnn: true\n"), KINDS)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("line 3: unknown field `failSwapOnn`, expected one of"),
            "{error}"
        );
    }

    #[test]
    fn a_foreign_kind_is_refused_with_the_wanted_one() {
        let error = parse::<Sample>("apiVersion: v1\nkind: Pod\n", KINDS)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"Pod\"") && error.contains("kind: KubeletConfiguration"),
            "{error}"
        );
    }

    #[test]
    fn json_is_accepted_and_documents_are_separated() {
        assert_eq!(
            yaml_to_json("{\"a\": [1, null]}").unwrap(),
            json!({"a": [1, null]})
        );
        assert_eq!(
            yaml_documents("a: 1\n---\n---\nb: 2\n").unwrap(),
            [json!({"a": 1}), json!({"b": 2})]
        );
    }
}
