//! The command line as urfave/cli 1 reads it: Go's flag package, with a command's flags allowed behind its words.

mod help;

use std::collections::BTreeMap;
use std::time::Duration;

use component_base::flags::parse_duration;

use super::command::Run;
use crate::go::quote::quote;
use crate::go::strconv::{parse_bool, parse_int};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    String,
    Int,
    Duration,
}

/// Names, longest first; the usage names the value in backquotes or not at all.
pub struct Flag {
    pub kind: Kind,
    pub names: &'static [&'static str],
    pub default: &'static str,
    pub usage: &'static str,
}

pub const fn flag(
    kind: Kind,
    names: &'static [&'static str],
    default: &'static str,
    usage: &'static str,
) -> Flag {
    Flag {
        kind,
        names,
        default,
        usage,
    }
}

/// One command, or one that groups others.
pub struct Command {
    pub name: &'static str,
    pub usage: &'static str,
    pub args_usage: &'static str,
    pub description: &'static str,
    pub flags: &'static [Flag],
    pub subcommands: Vec<Command>,
    pub run: Option<Run>,
}

impl Command {
    pub fn new(
        name: &'static str,
        usage: &'static str,
        args_usage: &'static str,
        flags: &'static [Flag],
        run: Run,
    ) -> Self {
        let (description, subcommands, run) = ("", Vec::new(), Some(run));
        Command {
            name,
            usage,
            args_usage,
            description,
            flags,
            subcommands,
            run,
        }
    }
}

pub const GLOBAL: &[Flag] = &[
    flag(
        Kind::Bool,
        &["debug"],
        "",
        "output cURL commands which can be used to reproduce the request",
    ),
    flag(
        Kind::Bool,
        &["no-sync"],
        "",
        "don't synchronize cluster information before sending request",
    ),
    flag(
        Kind::String,
        &["output", "o"],
        "simple",
        "output response in the given format (`simple`, `extended` or `json`)",
    ),
    flag(
        Kind::String,
        &["discovery-srv", "D"],
        "",
        "domain name to query for SRV records describing cluster endpoints",
    ),
    flag(
        Kind::Bool,
        &["insecure-discovery"],
        "",
        "accept insecure SRV records describing cluster endpoints",
    ),
    flag(
        Kind::String,
        &["peers", "C"],
        "",
        "DEPRECATED - \"--endpoints\" should be used instead",
    ),
    flag(
        Kind::String,
        &["endpoint"],
        "",
        "DEPRECATED - \"--endpoints\" should be used instead",
    ),
    flag(
        Kind::String,
        &["endpoints"],
        "",
        "a comma-delimited list of machine addresses in the cluster (default: \"http://127.0.0.1:2379,http://127.0.0.1:4001\")",
    ),
    flag(
        Kind::String,
        &["cert-file"],
        "",
        "identify HTTPS client using this SSL certificate file",
    ),
    flag(
        Kind::String,
        &["key-file"],
        "",
        "identify HTTPS client using this SSL key file",
    ),
    flag(
        Kind::String,
        &["ca-file"],
        "",
        "verify certificates of HTTPS-enabled servers using this CA bundle",
    ),
    flag(
        Kind::String,
        &["username", "u"],
        "",
        "provide username[:password] and prompt if password is not supplied.",
    ),
    flag(
        Kind::Duration,
        &["timeout"],
        "2s",
        "connection timeout per request",
    ),
    flag(
        Kind::Duration,
        &["total-timeout"],
        "5s",
        "timeout for the command execution (except watch)",
    ),
];
const HELP: Flag = flag(Kind::Bool, &["help", "h"], "", "show help");
const VERSION: Flag = flag(Kind::Bool, &["version", "v"], "", "print the version");

pub struct App<'a> {
    pub program: &'a str,
    pub commands: Vec<Command>,
}

/// A command with its flags, the global ones among them, and words.
pub struct Call {
    pub run: Run,
    global: Values,
    local: Values,
    pub args: Vec<String>,
}

/// Why nothing is run.
#[derive(Debug)]
pub enum Stop {
    /// Help or version, asked for.
    Text(String),
    Usage {
        text: String,
        error: String,
    },
    UnknownCommand(String),
}

type Values = BTreeMap<&'static str, String>;

impl Call {
    fn value<'a>(values: &'a Values, name: &str) -> &'a str {
        values.get(name).map_or("", String::as_str)
    }

    pub fn global(&self, name: &str) -> &str {
        Call::value(&self.global, name)
    }

    pub fn global_bool(&self, name: &str) -> bool {
        self.global(name) == "true"
    }

    pub fn global_duration(&self, name: &str) -> Duration {
        parse_duration(self.global(name)).unwrap_or_default()
    }

    pub fn string(&self, name: &str) -> &str {
        Call::value(&self.local, name)
    }

    pub fn bool(&self, name: &str) -> bool {
        self.string(name) == "true"
    }

    pub fn int(&self, name: &str) -> i64 {
        parse_int(self.string(name), 0).unwrap_or_default()
    }
}

impl App<'_> {
    pub fn parse(&self, words: &[String]) -> Result<Call, Stop> {
        let app_help = || help::app(self);
        let (global, rest) = read(&[GLOBAL, &[HELP, VERSION]], words).map_err(|error| Stop::Usage {
            text: format!("Incorrect Usage. {error}\n\n{}", app_help()),
            error,
        })?;
        if global.get("version").is_some_and(|value| value == "true") {
            return Err(Stop::Text(version()));
        }
        let asked = global.get("help").is_some_and(|value| value == "true");
        let Some((name, rest)) = rest.split_first().filter(|_| !asked) else {
            return Err(Stop::Text(app_help()));
        };
        match self.commands.iter().find(|command| command.name == name) {
            Some(command) => self.command(command, &format!("{} ", self.program), global, rest),
            None if name == "help" || name == "h" => self.help(rest),
            None => Err(Stop::UnknownCommand(name.clone())),
        }
    }

    fn help(&self, words: &[String]) -> Result<Call, Stop> {
        let Some(name) = words.first() else {
            return Err(Stop::Text(help::app(self)));
        };
        let found = self.commands.iter().find(|command| command.name == name);
        let command = found.ok_or_else(|| Stop::UnknownCommand(name.clone()))?;
        Err(Stop::Text(help::command(command, &format!("{} ", self.program))))
    }

    fn command(
        &self,
        command: &Command,
        prefix: &str,
        global: Values,
        words: &[String],
    ) -> Result<Call, Stop> {
        let text = || help::command(command, prefix);
        // A group reads its own flags only; what stands behind a subcommand's name is the subcommand's.
        let words = if command.run.is_some() {
            reorder(words)
        } else {
            words.to_vec()
        };
        let (local, args) = read(&[command.flags, &[HELP]], &words).map_err(|error| Stop::Usage {
            text: format!("Incorrect Usage: {error}\n\n{}", text()),
            error,
        })?;
        if local.get("help").is_some_and(|value| value == "true") {
            return Err(Stop::Text(text()));
        }
        if let Some(run) = command.run {
            return Ok(Call {
                run,
                global,
                local,
                args,
            });
        }
        let Some((name, rest)) = args.split_first() else {
            return Err(Stop::Text(text()));
        };
        match command.subcommands.iter().find(|sub| sub.name == name) {
            Some(sub) => self.command(sub, &format!("{prefix}{} ", command.name), global, rest),
            None => Err(Stop::UnknownCommand(name.clone())),
        }
    }
}

fn version() -> String {
    format!(
        "etcdctl version: {}\nAPI version: 2\n",
        component_base::version::ETCD_VERSION
    )
}

/// Go's flag package stops at the first word; urfave puts a command's flags before its words for it.
fn reorder(words: &[String]) -> Vec<String> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let is_flag = |word: &String| word.starts_with('-') && word != "-";
    let Some(first) = words[..end].iter().position(is_flag) else {
        return words.to_vec();
    };
    [&words[first..end], &words[..first], &words[end..]].concat()
}

/// Flags up to the first word that is none. Values by each flag's longest name.
fn read(sets: &[&[Flag]], words: &[String]) -> Result<(Values, Vec<String>), String> {
    let declared: Vec<&Flag> = sets.iter().copied().flatten().collect();
    let mut values: Values = declared
        .iter()
        .map(|flag| (flag.names[0], flag.default.to_owned()))
        .collect();
    let mut rest = words.iter();
    loop {
        let left = rest.as_slice();
        let Some(word) = left.first() else { break };
        if word == "--" {
            return Ok((values, left[1..].to_vec()));
        }
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
            break;
        };
        rest.next();
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: {word}"));
        }
        let flag = declared.iter().find(|flag| flag.names.contains(&name));
        let flag = flag.ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => rest
                .next()
                .cloned()
                .ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        values.insert(flag.names[0], check(flag.kind, name, value)?);
    }
    Ok((values, rest.cloned().collect()))
}

fn check(kind: Kind, name: &str, value: String) -> Result<String, String> {
    let quoted = quote(value.as_bytes());
    let invalid = || format!("invalid value {quoted} for flag -{name}: parse error");
    match kind {
        Kind::String => Ok(value),
        Kind::Bool => match parse_bool(&value) {
            Ok(value) => Ok(value.to_string()),
            Err(_) => Err(format!("invalid boolean value {quoted} for -{name}: parse error")),
        },
        Kind::Int => parse_int(&value, 0).map(|_| value).map_err(|_| invalid()),
        Kind::Duration => parse_duration(&value).map(|_| value).map_err(|_| invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn parse(text: &str) -> Result<Call, Stop> {
        let commands = crate::ctlv2::command::all();
        App {
            program: "etcdctl",
            commands,
        }
        .parse(&words(text))
    }

    #[test]
    fn flags_may_stand_behind_words() {
        let call = parse("--output json -debug set /a b --ttl 100").ok().unwrap();
        assert_eq!((call.global("output"), call.int("ttl")), ("json", 100));
        assert!(call.global_bool("debug") && !call.global_bool("no-sync"));
        assert_eq!(call.args, ["/a", "b"]);
        let call = parse("set -- /a -b").ok().unwrap();
        assert_eq!(call.args, ["/a", "-b"]);
        assert!(parse("rm -r /a").ok().unwrap().bool("recursive"));
    }

    #[test]
    fn mistakes_are_told_with_gos_words() {
        let error = |text| match parse(text).err().unwrap() {
            Stop::Usage { error, .. } => error,
            Stop::Text(text) | Stop::UnknownCommand(text) => text,
        };
        assert_eq!(error("--bogus"), "flag provided but not defined: -bogus");
        assert_eq!(
            error("set a b --ttl x"),
            "invalid value \"x\" for flag -ttl: parse error"
        );
        // The flag comes before the words then.
        assert_eq!(
            error("set a b --ttl"),
            "invalid value \"a\" for flag -ttl: parse error"
        );
        assert_eq!(error("ls --bogus"), "flag provided but not defined: -bogus");
        assert_eq!(error("--output"), "flag needs an argument: -output");
        assert_eq!(error("bogus"), "bogus");
        assert_eq!(error("-v"), "etcdctl version: 3.6.8\nAPI version: 2\n");
    }

    #[test]
    fn help_of_a_command_has_its_shape() {
        let Stop::Text(text) = parse("get --help").err().unwrap() else {
            panic!("no help")
        };
        assert_eq!(
            text,
            "NAME:\n   etcdctl get - retrieve the value of a key\n\nUSAGE:\n   etcdctl get [command options] <key>\n\n\
             OPTIONS:\n   --sort        returns result in sorted order\n   --quorum, -q  require quorum for get request\n   \n"
        );
    }
}
