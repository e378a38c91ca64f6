//! The text of `--help`.

use std::fmt::Write as _;

use super::value::Kind;
use super::{FlagSet, Spec};

pub(super) fn text(set: &FlagSet) -> String {
    let mut specs: Vec<&Spec> = set.specs.iter().filter(|spec| spec.removed.is_none()).collect();
    specs.sort_by_key(|spec| spec.name);
    let mut out = format!("{}\n\nUsage:\n  {} [flags]\n\nFlags:\n", set.about, set.component);
    let width = specs.iter().map(|spec| left(spec).len()).max().unwrap_or(0) + 3;
    for spec in specs {
        // Writing to a String cannot fail.
        writeln!(out, "{:width$}{}{}", left(spec), spec.help, default(spec)).ok();
    }
    writeln!(out, "{:width$}help for {}", "  -h, --help", set.component).ok();
    out
}

fn left(spec: &Spec) -> String {
    let short = if spec.name == "v" { "  -v, " } else { "      " };
    format!("{short}--{} {}", spec.name, spec.kind.name())
}

fn default(spec: &Spec) -> String {
    let empty = spec.default.is_empty() || spec.default == "false" || spec.default == "0";
    let mut text = match spec.kind {
        _ if empty => String::new(),
        Kind::String => format!(" (default {:?})", spec.default),
        _ => format!(" (default {})", spec.kind.display(&spec.default)),
    };
    if let Some(advice) = spec.deprecated {
        text.push_str(&format!(" (DEPRECATED: {advice})"));
    }
    text
}
