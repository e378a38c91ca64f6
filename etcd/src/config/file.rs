//! `--config-file`: YAML whose keys are the flags, but for two sections for TLS and what [`PATHS`] names.

use std::path::Path;

use anyhow::{Context, Result, bail};
use component_base::{config, flags::Flags};
use serde_json::Value;

use super::table;

/// Sections, the flags' prefix, and how their keys are called as flags.
const SECTIONS: &[(&str, &str)] = &[
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
];

/// Keys, with those that they lie below, which are not called as their flags.
const PATHS: &[(&str, &str)] = &[
    ("discovery-config.token", "discovery-token"),
    ("discovery-config.client.endpoints", "discovery-endpoints"),
    ("discovery-config.client.dial-timeout", "discovery-dial-timeout"),
    (
        "discovery-config.client.request-timeout",
        "discovery-request-timeout",
    ),
    (
        "discovery-config.client.keepalive-time",
        "discovery-keepalive-time",
    ),
    (
        "discovery-config.client.keepalive-timeout",
        "discovery-keepalive-timeout",
    ),
    ("discovery-config.client.secure.cert", "discovery-cert"),
    ("discovery-config.client.secure.key", "discovery-key"),
    ("discovery-config.client.secure.cacert", "discovery-cacert"),
    (
        "discovery-config.client.secure.insecure-transport",
        "discovery-insecure-transport",
    ),
    (
        "discovery-config.client.secure.insecure-skip-tls-verify",
        "discovery-insecure-skip-tls-verify",
    ),
    ("discovery-config.client.auth.username", "discovery-user"),
    ("discovery-config.client.auth.password", "discovery-password"),
    ("socket-options.reuse-port", "socket-reuse-port"),
    ("socket-options.reuse-address", "socket-reuse-address"),
    (
        "experimental-snapshot-catch-up-entries",
        "experimental-snapshot-catchup-entries",
    ),
];

pub fn read(flags: &mut Flags) -> Result<()> {
    let path = flags.string("config-file").to_owned();
    let text = std::fs::read_to_string(&path).with_context(|| format!("--config-file {path}"))?;
    let given: Vec<String> = flags
        .each()
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "config-file" && flags.is_set(name))
        .collect();
    if !given.is_empty() {
        tracing::warn!(path = %path, flags = ?given, "loaded server configuration from file, other configuration command line flags and environment variables will be ignored if provided");
    }
    let value = config::yaml_to_json(&text).with_context(|| format!("--config-file {path}"))?;
    let Value::Object(entries) = value else {
        bail!("--config-file {path}: want a mapping of flag names to values")
    };
    for (name, value) in &entries {
        apply(flags, name, value)
            .with_context(|| format!("--config-file {}: {name}", Path::new(&path).display()))?;
    }
    Ok(())
}

fn apply(flags: &mut Flags, name: &str, value: &Value) -> Result<()> {
    if let Some((_, prefix)) = SECTIONS.iter().find(|(section, _)| *section == name) {
        let Value::Object(entries) = value else {
            bail!("want a mapping")
        };
        return entries
            .iter()
            .try_for_each(|(key, value)| set(flags, &section_flag(prefix, key), value));
    }
    let flag = PATHS
        .iter()
        .find(|(path, _)| *path == name)
        .map_or(name, |(_, flag)| flag);
    match value {
        Value::Object(entries) => entries
            .iter()
            .try_for_each(|(key, value)| apply(flags, &format!("{name}.{key}"), value)),
        // A file that etcd starts with may hold what a version before or after it knows. What is misspelt in a section for
        // TLS is refused: it would leave a door open.
        _ if !flags.is_declared(flag) => {
            tracing::warn!(
                field = name,
                "this field of --config-file is not known and passed over"
            );
            Ok(())
        }
        value => set(flags, flag, value).with_context(|| name.to_owned()),
    }
}

fn section_flag(prefix: &str, key: &str) -> String {
    match (prefix, key) {
        ("", "allowed-cn" | "allowed-hostname") => format!("client-cert-{key}"),
        ("peer-", "allowed-cn" | "allowed-hostname") => format!("peer-cert-{key}"),
        _ => format!("{prefix}{key}"),
    }
}

fn set(flags: &mut Flags, name: &str, value: &Value) -> Result<()> {
    let text = match value {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        Value::Number(number) if table::is_duration(name) => format!("{number}ns"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        Value::Object(_) => bail!("want a single value"),
    };
    flags.set(name, &text)
}
