//! etcdctl's usage text: NAME, USAGE, COMMANDS, OPTIONS, GLOBAL OPTIONS in tab-aligned columns.

use super::flags::{self, Kind};
use super::{Command, Flag, Found, Version};
use crate::go::quote::quote;
use crate::go::tabwriter::{Pad, format};

pub fn text<R>(found: &Found<'_, R>, version: &Version) -> String {
    let command = found.command();
    let mut text = format!(
        "NAME:\n  {} - {}\n\nUSAGE:\n  {}\n",
        title(found),
        command.short,
        use_line(found)
    );
    if found.parents().is_empty() {
        text.push_str(&format!("\nVERSION:\n  {}\n", version.binary));
    }
    if !command.subcommands.is_empty() {
        text.push_str(&format!("\nAPI VERSION:\n  {}\n", version.api));
    }
    if !command.example.is_empty() {
        text.push_str(&format!("\nExamples:\n{}\n", command.example));
    }
    if !command.subcommands.is_empty() {
        text.push_str("\nCOMMANDS:\n");
        text.push_str(&commands(found));
    }
    if !command.long.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        let lines = command.long.trim_matches(['\n', '\t', ' ']).split('\n');
        lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    let help = flags::help(command.name());
    let local = super::sorted(found.local().into_iter().chain([&help]));
    text.push_str(&format!("\nOPTIONS:\n{}", options(&local)));
    if !found.inherited().is_empty() {
        text.push_str(&format!("\nGLOBAL OPTIONS:\n{}", options(&found.inherited())));
    }
    text.push('\n');
    format(&text, Pad::Tabs)
}

fn title<R>(found: &Found<'_, R>) -> String {
    let names: Vec<&str> = found.path.iter().map(|command| command.name()).collect();
    names[names.len().min(2) - 1..].join(" ")
}

fn use_line<R>(found: &Found<'_, R>) -> String {
    let mut parts: Vec<&str> = found.parents().iter().map(|parent| parent.name()).collect();
    parts.push(found.command().usage);
    parts.push("[flags]");
    parts.join(" ")
}

/// Runnable subcommands of every depth, named from here, in order of their names.
fn commands<R>(found: &Found<'_, R>) -> String {
    let mut lines = Vec::new();
    collect(found.command(), "", &mut lines);
    if found.parents().is_empty() {
        lines.push(("help".to_owned(), "Help about any command"));
    }
    lines.sort();
    lines
        .iter()
        .map(|(name, short)| format!("  {name}\t{short}\n"))
        .collect()
}

fn collect<R>(command: &Command<R>, prefix: &str, lines: &mut Vec<(String, &'static str)>) {
    for sub in &command.subcommands {
        let name = format!("{prefix}{}", sub.name());
        if sub.run.is_some() {
            lines.push((name.clone(), sub.short));
        }
        collect(sub, &format!("{name} "), lines);
    }
}

fn options(flags: &[&Flag]) -> String {
    flags
        .iter()
        .filter(|flag| !flag.hidden)
        .map(|flag| option(flag))
        .collect()
}

fn option(flag: &Flag) -> String {
    let name = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let value = match flag.kind {
        Kind::Bool => format!("[={}]", flag.default),
        Kind::String => format!("={}", quote(flag.default.as_bytes())),
        Kind::Strings => format!("=[{}]", flag.default),
        _ => format!("={}", flag.default),
    };
    format!("{name}{value}\t{}\n", flag.usage)
}
