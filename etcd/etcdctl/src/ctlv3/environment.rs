//! `ETCDCTL_*` variables: values for flags that the command line leaves alone.

use crate::cobra::Flags;
use crate::exit::{Exit, code};
use crate::go::json::string;
use crate::zap::{self, Source};

const PREFIX: &str = "ETCDCTL_";
/// Read by `main`, and no flag.
const API: &str = "ETCDCTL_API";
const WARNING: Source = Source::new("", "flags/flag.go:94");
const FATAL: Source = Source::new("", "flags/flag.go:86");

/// `known` are the flags that may come from variables. One that the command line sets too ends the command, as upstream's
/// does: nobody can tell which of the two was meant.
pub fn apply(flags: &mut Flags, known: &[&str]) -> Result<(), Exit> {
    let mut used = Vec::new();
    let mut shadowed = Vec::new();
    for name in known {
        let variable = variable(name);
        if flags.changed(name) {
            shadowed.push(variable);
            continue;
        }
        let Some(value) = std::env::var(&variable).ok().filter(|value| !value.is_empty()) else {
            continue;
        };
        // Upstream keeps the default when the value does not fit, without a word.
        flags.set(name, &value).ok();
        used.push(variable);
    }
    check(&used, &shadowed)
}

pub fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

fn check(used: &[String], shadowed: &[String]) -> Result<(), Exit> {
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if used.iter().any(|used| *used == name) || name == API {
            continue;
        }
        if shadowed.iter().any(|shadowed| *shadowed == name) {
            let message = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
            zap::fatal(FATAL, message, &[("environment-variable", string(&name))]);
            return Err(Exit::silent(code::ERROR));
        }
        if name.starts_with(PREFIX) {
            let pair = format!("{name}={value}");
            zap::warn(
                WARNING,
                "unrecognized environment variable",
                &[("environment-variable", string(&pair))],
            );
        }
    }
    Ok(())
}
