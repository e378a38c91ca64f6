//! urfave's help texts.

use super::{App, Command, Flag, GLOBAL, HELP, Kind, VERSION};
use crate::go::tabwriter::{Pad, format};

const GAP: Pad = Pad::Blanks(2);

pub fn app(app: &App<'_>) -> String {
    let mut text = format!(
        "NAME:\n   etcdctl - A simple command line client for etcd.\n\nUSAGE:\n   {} [global options] command [command options] \
         [arguments...]\n\nVERSION:\n   {}\n\nCOMMANDS:\n",
        app.program,
        component_base::version::ETCD_VERSION
    );
    for command in &app.commands {
        text.push_str(&format!("   {}\t{}\n", command.name, command.usage));
    }
    text.push_str("   help, h\tShows a list of commands or help for one command\n\nGLOBAL OPTIONS:\n");
    for flag in GLOBAL.iter().chain([&HELP, &VERSION]) {
        text.push_str(&format!("   {}\n", option(flag)));
    }
    format(&text, GAP)
}

pub fn command(command: &Command, prefix: &str) -> String {
    if !command.subcommands.is_empty() {
        return group(command);
    }
    let name = format!("{prefix}{}", command.name);
    let options = if command.flags.is_empty() {
        ""
    } else {
        " [command options]"
    };
    let args = if command.args_usage.is_empty() {
        "[arguments...]"
    } else {
        command.args_usage
    };
    let mut text = format!(
        "NAME:\n   {name} - {}\n\nUSAGE:\n   {name}{options} {args}",
        command.usage
    );
    if !command.description.is_empty() {
        text.push_str(&format!("\n\nDESCRIPTION:\n   {}", command.description));
    }
    if !command.flags.is_empty() {
        text.push_str("\n\nOPTIONS:\n   ");
        command
            .flags
            .iter()
            .for_each(|flag| text.push_str(&format!("{}\n   ", option(flag))));
    }
    text.push('\n');
    format(&text, GAP)
}

/// A group is an application of its own, named after this one whatever the binary is called.
fn group(command: &Command) -> String {
    let name = format!("etcdctl {}", command.name);
    let mut text = format!(
        "NAME:\n   {name} - {}\n\nUSAGE:\n   {name} command [command options] [arguments...]\n\nCOMMANDS:\n",
        command.usage
    );
    for sub in &command.subcommands {
        text.push_str(&format!("   {}\t{}\n", sub.name, sub.usage));
    }
    text.push_str(&format!("\nOPTIONS:\n   {}\n   \n", option(&HELP)));
    format(&text, GAP)
}

fn option(flag: &Flag) -> String {
    let (placeholder, usage) = placeholder(flag.usage);
    let name = |name: &&str| {
        let dashes = if name.len() > 1 { "--" } else { "-" };
        match flag.kind {
            Kind::Bool => format!("{dashes}{name}"),
            _ => format!("{dashes}{name} {placeholder}"),
        }
    };
    let names: Vec<String> = flag.names.iter().map(name).collect();
    let default = match flag.kind {
        Kind::String if !flag.default.is_empty() => format!(" (default: {:?})", flag.default),
        Kind::Int | Kind::Duration => format!(" (default: {})", flag.default),
        _ => String::new(),
    };
    format!("{}\t{usage}{default}", names.join(", "))
}

/// What stands in the first backquotes is the value's name.
fn placeholder(usage: &str) -> (&str, String) {
    match usage.splitn(3, '`').collect::<Vec<_>>()[..] {
        [before, name, after] => (name, format!("{before}{name}{after}")),
        _ => ("value", usage.to_owned()),
    }
}
