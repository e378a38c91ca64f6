//! The command line with the manners of Go's cobra and pflag, which `component_base::flags` (one command, no shorthands,
//! hints of its own in error texts) does not have: subcommands found by a unique prefix, persistent flags of parents,
//! shorthands, flags between words, cobra's error lines and etcdctl's own usage text.

pub mod complete;
pub mod flags;
mod suggest;
mod usage;

use std::collections::BTreeMap;
use std::io::{self, Write as _};

pub use flags::{Flag, Flags, Kind};

use crate::exit::{Exit, code};
use crate::go::quote::{quote, quote_raw};

/// One command. `run` is None for those that only group others.
pub struct Command<R> {
    /// The first word is the name.
    pub usage: &'static str,
    pub short: &'static str,
    pub long: &'static str,
    /// Printed as it stands.
    pub example: &'static str,
    pub flags: Vec<Flag>,
    /// Also flags of every subcommand.
    pub persistent: Vec<Flag>,
    pub subcommands: Vec<Command<R>>,
    /// Words that its first argument may be.
    pub arguments: &'static [&'static str],
    pub run: Option<R>,
}

impl<R> Command<R> {
    pub fn new(usage: &'static str, short: &'static str, run: R) -> Self {
        Command {
            run: Some(run),
            ..Command::group(usage, short, Vec::new())
        }
    }

    pub fn group(usage: &'static str, short: &'static str, subcommands: Vec<Command<R>>) -> Self {
        Command {
            usage,
            short,
            long: "",
            example: "",
            flags: Vec::new(),
            persistent: Vec::new(),
            subcommands,
            arguments: &[],
            run: None,
        }
    }

    pub fn long(mut self, long: &'static str) -> Self {
        self.long = long;
        self
    }

    pub fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    pub fn flags(mut self, flags: Vec<Flag>) -> Self {
        self.flags = flags;
        self
    }

    pub fn persistent(mut self, flags: Vec<Flag>) -> Self {
        self.persistent = flags;
        self
    }

    pub fn arguments(mut self, arguments: &'static [&'static str]) -> Self {
        self.arguments = arguments;
        self
    }

    pub fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or(self.usage)
    }
}

/// What a command line asked for.
pub struct Invocation<'a, R> {
    pub run: &'a R,
    pub flags: Flags,
    pub args: Vec<String>,
    /// Flags that the command has from its parents: those that environment variables may set.
    pub inherited: Vec<&'static str>,
}

/// What the version block of the usage text says.
pub struct Version {
    pub binary: &'static str,
    pub api: &'static str,
}

/// Finds the command and reads its flags. Help and usage errors end here, printed.
pub fn parse<'a, R>(
    root: &'a Command<R>,
    version: &Version,
    args: &[String],
) -> Result<Invocation<'a, R>, Exit> {
    let found = find(root, args).map_err(|error| unknown_command(root, &error))?;
    if found.help_topic {
        return Err(help_topic(root, version, &found.rest));
    }
    let parsed = flags::parse(&found.all_flags(), &found.rest)
        .map_err(|error| usage_error(&found, version, &error))?;
    let Some(run) = found
        .command()
        .run
        .as_ref()
        .filter(|_| !parsed.flags.bool("help"))
    else {
        io::stdout().write_all(usage::text(&found, version).as_bytes())?;
        return Err(Exit::silent(0));
    };
    Ok(Invocation {
        run,
        flags: parsed.flags,
        args: parsed.args,
        inherited: found.inherited().iter().map(|flag| flag.name).collect(),
    })
}

/// The command and its parents, root first, with the words that are not names of commands.
pub struct Found<'a, R> {
    path: Vec<&'a Command<R>>,
    rest: Vec<String>,
    help_topic: bool,
}

impl<'a, R> Found<'a, R> {
    fn command(&self) -> &'a Command<R> {
        self.path[self.path.len() - 1]
    }

    fn parents(&self) -> &[&'a Command<R>] {
        &self.path[..self.path.len() - 1]
    }

    fn inherited(&self) -> Vec<&'a Flag> {
        sorted(self.parents().iter().flat_map(|parent| &parent.persistent))
    }

    /// Without the help flag.
    fn local(&self) -> Vec<&'a Flag> {
        sorted(self.command().flags.iter().chain(&self.command().persistent))
    }

    fn all_flags(&self) -> Vec<Flag> {
        let own = self.local().into_iter().chain(self.inherited()).cloned();
        own.chain([flags::help(self.command().name())]).collect()
    }
}

fn sorted<'a>(flags: impl Iterator<Item = &'a Flag>) -> Vec<&'a Flag> {
    let by_name: BTreeMap<&str, &Flag> = flags.map(|flag| (flag.name, flag)).collect();
    by_name.into_values().collect()
}

fn find<'a, R>(root: &'a Command<R>, args: &[String]) -> Result<Found<'a, R>, String> {
    let mut found = Found {
        path: vec![root],
        rest: args.to_vec(),
        help_topic: false,
    };
    loop {
        let flags = found.all_flags();
        let words = flags::strip(&flags, &found.rest);
        let Some(word) = words.first() else {
            return Ok(found);
        };
        let at_root = found.path.len() == 1;
        match next(found.command(), word) {
            Some(command) => {
                found.rest = flags::without_first(&flags, &found.rest, word);
                found.path.push(command);
            }
            None if at_root && "help".starts_with(word.as_str()) => {
                found.rest = words[1..].to_vec();
                found.help_topic = true;
                return Ok(found);
            }
            None if at_root => return Err(word.clone()),
            None => return Ok(found),
        }
    }
}

/// By its name, or by a prefix that only one has.
fn next<'a, R>(command: &'a Command<R>, word: &str) -> Option<&'a Command<R>> {
    let exact = command.subcommands.iter().find(|sub| sub.name() == word);
    exact.or_else(|| {
        let mut matches = command
            .subcommands
            .iter()
            .filter(|sub| sub.name().starts_with(word));
        matches.next().filter(|_| matches.next().is_none())
    })
}

fn unknown_command<R>(root: &Command<R>, word: &str) -> Exit {
    let names: Vec<&str> = root.subcommands.iter().map(Command::name).collect();
    let mut message = format!(
        "unknown command {} for {}",
        quote(word.as_bytes()),
        quote(root.name().as_bytes())
    );
    let suggestions = suggest::suggestions(word, &names);
    if !suggestions.is_empty() {
        message.push_str("\n\nDid you mean this?\n");
        suggestions
            .iter()
            .for_each(|name| message.push_str(&format!("\t{name}\n")));
    }
    let name = root.name();
    eprint_text(&format!("Error: {message}\nRun '{name} --help' for usage.\n"));
    Exit::silent(code::ERROR)
}

/// The usage goes to stdout and leaves an empty line on stderr, as upstream's does.
fn usage_error<R>(found: &Found<'_, R>, version: &Version, error: &str) -> Exit {
    eprint_text(&format!("Error: {error}\n"));
    if let Err(error) = io::stdout().write_all(usage::text(found, version).as_bytes()) {
        return error.into();
    }
    eprint_text("\n");
    Exit::silent(code::ERROR)
}

fn help_topic<R>(root: &Command<R>, version: &Version, words: &[String]) -> Exit {
    let topic = find(root, words);
    let known = topic.as_ref().is_ok_and(|found| !found.help_topic);
    if !known {
        let words: Vec<String> = words.iter().map(|word| quote_raw(word)).collect();
        eprint_text(&format!("Unknown help topic [{}]\n", words.join(" ")));
    }
    let text = match topic {
        Ok(found) if known => usage::text(&found, version),
        _ => usage::text(
            &Found {
                path: vec![root],
                rest: Vec::new(),
                help_topic: false,
            },
            version,
        ),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::silent(0),
        Err(error) => error.into(),
    }
}

fn eprint_text(text: &str) {
    // Nobody is left to tell when stderr is gone.
    io::stderr().write_all(text.as_bytes()).ok();
}

#[cfg(test)]
mod tests;
