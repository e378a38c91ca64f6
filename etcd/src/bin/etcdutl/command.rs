//! Choosing a subcommand and telling what was wrong, in cobra's manners.

use std::ffi::OsString;
use std::process::ExitCode;

use component_base::flags::{FlagSet, Flags, UsageError};

const PROGRAM: &str = "etcdutl";
const ABOUT: &str = "An administrative command line tool for etcd3.";

/// etcd's exit codes.
const ERROR: u8 = 1;
const BAD_FEATURE: u8 = 4;
const BAD_ARGUMENTS: u8 = 128;

pub struct Command {
    /// The words that choose it.
    pub path: &'static [&'static str],
    /// What stands behind them in a usage line.
    pub usage: &'static str,
    pub about: &'static str,
    pub flags: fn(FlagSet) -> FlagSet,
    pub required: &'static [&'static str],
    pub run: fn(&Flags) -> Result<(), Failure>,
}

/// Why a command failed, and with which exit code.
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub fn bad_arguments(message: impl Into<String>) -> Failure {
        Failure {
            code: BAD_ARGUMENTS,
            message: message.into(),
        }
    }

    pub fn bad_feature(message: impl Into<String>) -> Failure {
        Failure {
            code: BAD_FEATURE,
            message: message.into(),
        }
    }

    pub fn error(message: impl Into<String>) -> Failure {
        Failure {
            code: ERROR,
            message: message.into(),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::error(error.to_string())
    }
}

/// The only argument of a command that takes one file.
pub fn one_argument<'a>(flags: &'a Flags, command: &str) -> Result<&'a str, Failure> {
    match flags.arguments() {
        [only] => Ok(only),
        _ => Err(Failure::bad_arguments(format!(
            "{command} requires exactly one argument"
        ))),
    }
}

pub fn run(commands: &'static [Command], args: Vec<OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().flat_map(spell_out).collect();
    let (path, rest) = split(commands, &args);
    match choose(commands, &path) {
        Choice::Command(command) => start(command, rest),
        Choice::Group => {
            print!(
                "{}",
                overview(commands, if wants_help(&path) { &[] } else { &path })
            );
            ExitCode::SUCCESS
        }
        Choice::None => {
            let word = path.last().map_or("", String::as_str);
            fail(
                ERROR,
                &format!("unknown command {word:?} for {PROGRAM:?}\nRun '{PROGRAM} --help' for usage."),
            )
        }
    }
}

/// `-w` is `--write-out`, with its value behind `=`, a blank or nothing.
fn spell_out(word: OsString) -> Vec<OsString> {
    match word.to_str().and_then(|text| text.strip_prefix("-w")) {
        Some("") => vec!["--write-out".into()],
        Some(value) => vec![
            "--write-out".into(),
            value.strip_prefix('=').unwrap_or(value).into(),
        ],
        None => vec![word],
    }
}

/// The words that choose a command, and all others. `--write-out` may stand before the command.
fn split(commands: &[Command], args: &[OsString]) -> (Vec<String>, Vec<OsString>) {
    let (mut path, mut rest): (Vec<String>, Vec<OsString>) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(word) = args.next() {
        let text = word.to_string_lossy();
        if text.starts_with('-') || !takes_word(commands, &path) {
            rest.push(word.clone());
        } else {
            path.push(text.into_owned());
        }
        if word == "--write-out" {
            rest.extend(args.next().cloned());
        }
    }
    (path, rest)
}

/// Whether a further word chooses a command below `path`.
fn takes_word(commands: &[Command], path: &[String]) -> bool {
    commands
        .iter()
        .any(|command| command.path.len() > path.len() && begins(command, path))
}

enum Choice {
    Command(&'static Command),
    Group,
    None,
}

/// A word may be cut short as long as it is clear.
fn begins(command: &Command, path: &[String]) -> bool {
    path.len() <= command.path.len()
        && path
            .iter()
            .zip(command.path)
            .all(|(word, whole)| whole.starts_with(word.as_str()))
}

fn wants_help(path: &[String]) -> bool {
    path.first().is_some_and(|word| word == "help")
}

fn choose(commands: &'static [Command], path: &[String]) -> Choice {
    let found: Vec<&'static Command> = commands.iter().filter(|command| begins(command, path)).collect();
    match &found[..] {
        [] if wants_help(path) => Choice::Group,
        [] => Choice::None,
        [only] if only.path.len() == path.len() => Choice::Command(only),
        _ => Choice::Group,
    }
}

fn start(command: &'static Command, args: Vec<OsString>) -> ExitCode {
    let set = (command.flags)(FlagSet::plain(PROGRAM, command.about))
        .string(
            "write-out",
            "simple",
            "set the output format (fields, json, protobuf, simple, table)",
        )
        .with_arguments();
    let flags = match set.parse(args) {
        Ok(flags) => flags,
        Err(UsageError::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(ERROR, &format!("{error}\n{}", usage(command))),
    };
    let missing: Vec<String> = command
        .required
        .iter()
        .filter(|name| !flags.is_set(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !missing.is_empty() {
        let message = format!("required flag(s) {} not set", missing.join(", "));
        return fail(ERROR, &format!("{message}\n{}", usage(command)));
    }
    match (command.run)(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(failure.code, &failure.message),
    }
}

fn usage(command: &Command) -> String {
    format!(
        "Usage:\n  {PROGRAM} {}{} [flags]\n\nUse \"{PROGRAM} {} --help\" for the flags.",
        command.path.join(" "),
        command.usage,
        command.path.join(" ")
    )
}

fn overview(commands: &[Command], path: &[String]) -> String {
    let mut text = format!("{ABOUT}\n\nUsage:\n  {PROGRAM} [command]\n\nAvailable Commands:\n");
    for command in commands.iter().filter(|command| begins(command, path)) {
        text += &format!("  {:<18}{}\n", command.path.join(" "), command.about);
    }
    text + &format!("\nUse \"{PROGRAM} [command] --help\" for more information about a command.\n")
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("Error: {message}");
    ExitCode::from(code)
}
