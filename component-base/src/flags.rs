//! Command line flags with the behaviour of Go's pflag: `--k v`, `--k=v`, booleans that never eat the next word,
//! repeated slices that append, `_` for `-` in names, Go's durations.
//!
//! clap's builder splits the words; declared types, Go's error texts, deprecation and environment are ours.

mod go_duration;
mod help;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

pub use go_duration::{format_duration, parse_duration};
use value::Kind;

/// Names that klog and component-base had once; unit files of old courses still carry them.
const REMOVED_KLOG: &[(&str, bool)] = &[
    ("add-dir-header", false),
    ("alsologtostderr", false),
    ("log-backtrace-at", true),
    ("log-dir", true),
    ("log-file", true),
    ("log-file-max-size", true),
    ("logtostderr", false),
    ("one-output", false),
    ("skip-headers", false),
    ("skip-log-headers", false),
    ("stderrthreshold", true),
];
const REMOVED_KLOG_ADVICE: &str = "logs always go to stderr";
/// Where the words that are no flag end up while clap sorts them.
const WORDS: &str = " words";

/// The declared flags of one command.
pub struct FlagSet {
    component: &'static str,
    about: &'static str,
    specs: Vec<Spec>,
    env_prefix: Option<&'static str>,
    single_dash_long: bool,
    arguments: bool,
}

#[derive(Clone)]
struct Spec {
    name: &'static str,
    help: &'static str,
    default: String,
    kind: Kind,
    deprecated: Option<&'static str>,
    removed: Option<&'static str>,
}

/// Why a command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("unknown flag: --{name}{}", suggest(.nearest))]
    Unknown { name: String, nearest: Option<String> },
    #[error("unknown shorthand flag: '{0}' in -{0}")]
    UnknownShort(String),
    #[error("flag needs an argument: --{0}")]
    NeedsArgument(String),
    #[error("invalid argument {value:?} for {flag:?} flag: {reason}")]
    Invalid {
        flag: String,
        value: String,
        reason: String,
    },
    #[error("{component:?} does not take any arguments, got {words:?}")]
    Arguments {
        component: &'static str,
        words: Vec<String>,
    },
    #[error("{0}")]
    Other(String),
    /// Not a mistake: `--help` was asked, this is the text.
    #[error("{0}")]
    Help(String),
}

fn suggest(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or(String::new(), |name| format!("\n\nDid you mean --{name}?"))
}

impl FlagSet {
    /// Brings `-v/--v`, `--vmodule`, `--logging-format`, `--log-flush-frequency`, `--help`, `--version` and klog's removed flags.
    pub fn new(component: &'static str, about: &'static str) -> Self {
        let set = FlagSet::plain(component, about)
            .int("v", 0, "number for the log level verbosity")
            .string("vmodule", "", "comma-separated list of pattern=N settings for file-filtered logging (only works for text log format)")
            .string("logging-format", "text", "Sets the log format. Permitted formats: \"json\", \"text\".")
            .duration("log-flush-frequency", "5s", "Maximum number of seconds between log flushes")
            .version_flag();
        REMOVED_KLOG.iter().fold(set, |set, (name, takes_value)| {
            set.removed(name, *takes_value, REMOVED_KLOG_ADVICE)
        })
    }

    /// Without the daemons' common flags: for command line tools.
    pub fn plain(component: &'static str, about: &'static str) -> Self {
        FlagSet {
            component,
            about,
            specs: Vec::new(),
            env_prefix: None,
            single_dash_long: false,
            arguments: false,
        }
    }

    fn version_flag(self) -> Self {
        self.declare(
            "version",
            "false",
            "--version, --version=raw prints version information and quits",
            Kind::Version,
        )
    }

    pub fn string(self, name: &'static str, default: &'static str, help: &'static str) -> Self {
        self.declare(name, default, help, Kind::String)
    }

    pub fn bool(self, name: &'static str, default: bool, help: &'static str) -> Self {
        self.declare(name, if default { "true" } else { "false" }, help, Kind::Bool)
    }

    pub fn int(self, name: &'static str, default: i64, help: &'static str) -> Self {
        self.declare(name, default.to_string(), help, Kind::Int)
    }

    pub fn float(self, name: &'static str, default: f64, help: &'static str) -> Self {
        self.declare(name, default.to_string(), help, Kind::Float)
    }

    pub fn duration(self, name: &'static str, default: &'static str, help: &'static str) -> Self {
        self.declare(name, default, help, Kind::Duration)
    }

    pub fn strings(self, name: &'static str, default: &'static str, help: &'static str) -> Self {
        self.declare(name, default, help, Kind::Strings)
    }

    pub fn map(self, name: &'static str, default: &'static str, help: &'static str) -> Self {
        self.declare(name, default, help, Kind::Map)
    }

    /// Still works (declare it too), warns.
    pub fn deprecated(mut self, name: &'static str, advice: &'static str) -> Self {
        if let Some(spec) = self.specs.iter_mut().find(|spec| spec.name == name) {
            spec.deprecated = Some(advice);
        }
        self
    }

    /// Accepted, ignored, warns. Upstream removed it, but unit files still carry it.
    pub fn removed(mut self, name: &'static str, takes_value: bool, advice: &'static str) -> Self {
        let kind = if takes_value { Kind::String } else { Kind::Version };
        self = self.declare(name, "", "", kind);
        if let Some(spec) = self.specs.last_mut() {
            spec.removed = Some(advice);
        }
        self
    }

    /// Reads `PREFIX_NAME` from the environment for flags that the command line does not set.
    pub fn env_prefix(mut self, prefix: &'static str) -> Self {
        self.env_prefix = Some(prefix);
        self
    }

    /// Also accepts `-name` for `--name`, as Go's flag package does.
    pub fn single_dash_long(mut self) -> Self {
        self.single_dash_long = true;
        self
    }

    /// Words that are no flags are kept for [`Flags::arguments`] instead of refused.
    pub fn with_arguments(mut self) -> Self {
        self.arguments = true;
        self
    }

    pub fn component(&self) -> &'static str {
        self.component
    }

    /// A later declaration of the same name replaces the earlier one.
    fn declare(
        mut self,
        name: &'static str,
        default: impl Into<String>,
        help: &'static str,
        kind: Kind,
    ) -> Self {
        self.specs.retain(|spec| spec.name != name);
        self.specs.push(Spec {
            name,
            help,
            default: default.into(),
            kind,
            deprecated: None,
            removed: None,
        });
        self
    }

    /// Parses the words after the program's name.
    pub fn parse<I: IntoIterator<Item = OsString>>(self, args: I) -> Result<Flags, UsageError> {
        let words = self.normalize(args)?;
        let matches = self
            .command()
            .try_get_matches_from(&words)
            .map_err(|error| self.explain(&error))?;
        let given: Vec<String> = matches
            .get_many::<String>(WORDS)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        if !given.is_empty() && !self.arguments {
            return Err(UsageError::Arguments {
                component: self.component,
                words: given,
            });
        }
        let mut flags = Flags::defaults(&self);
        flags.arguments = given;
        flags.read_environment(&self)?;
        for spec in &self.specs {
            let Some(values) = matches.get_many::<String>(spec.name) else {
                continue;
            };
            flags.assign_all(spec, values.map(String::as_str), "flag")?;
        }
        Ok(flags)
    }

    /// `--foo_bar` is `--foo-bar`; `-name` is `--name` where asked for; `--` ends flags.
    fn normalize<I: IntoIterator<Item = OsString>>(&self, args: I) -> Result<Vec<String>, UsageError> {
        let mut words = Vec::new();
        let mut args = args.into_iter();
        for arg in args.by_ref() {
            let word = arg
                .into_string()
                .map_err(|bad| UsageError::Other(format!("argument {bad:?} is not valid UTF-8")))?;
            if word == "--" {
                words.push(word);
                break;
            }
            if word == "--help" || word == "-h" {
                return Err(UsageError::Help(help::text(self)));
            }
            words.push(self.normalize_word(word));
        }
        let rest: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
        words.extend(rest);
        Ok(words)
    }

    fn normalize_word(&self, word: String) -> String {
        let long = word.strip_prefix("--").or_else(|| {
            let name = word.strip_prefix('-').filter(|_| self.single_dash_long)?;
            self.specs
                .iter()
                .any(|spec| spec.name == name.split('=').next().unwrap_or(name))
                .then_some(name)
        });
        let Some(long) = long else { return word };
        match long.split_once('=') {
            Some((name, value)) => format!("--{}={value}", name.replace('_', "-")),
            None => format!("--{}", long.replace('_', "-")),
        }
    }

    fn command(&self) -> Command {
        let command = Command::new(self.component)
            .no_binary_name(true)
            .disable_help_flag(true)
            .disable_version_flag(true);
        let words = Arg::new(WORDS).num_args(0..).action(ArgAction::Append);
        self.specs
            .iter()
            .fold(command.arg(words), |command, spec| command.arg(spec.arg()))
    }

    fn explain(&self, error: &clap::Error) -> UsageError {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.trim_start_matches('-').to_owned()),
            Some(ContextValue::Strings(texts)) => {
                texts.first().map(|text| text.trim_start_matches('-').to_owned())
            }
            _ => None,
        };
        let name = text(ContextKind::InvalidArg).unwrap_or_default();
        let name = name.split([' ', '=']).next().unwrap_or_default().to_owned();
        match error.kind() {
            ErrorKind::UnknownArgument if name.chars().count() == 1 => UsageError::UnknownShort(name),
            ErrorKind::UnknownArgument => UsageError::Unknown {
                nearest: text(ContextKind::SuggestedArg),
                name,
            },
            ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
                UsageError::NeedsArgument(name)
            }
            _ => UsageError::Other(
                error
                    .to_string()
                    .trim_start_matches("error: ")
                    .trim_end()
                    .to_owned(),
            ),
        }
    }
}

impl Spec {
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).action(ArgAction::Append);
        let arg = if self.name == "v" { arg.short('v') } else { arg };
        match self.kind {
            Kind::Bool | Kind::Version => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg.num_args(1).allow_hyphen_values(true),
        }
    }
}

/// The values of a command line. `flags.string("name")` of an undeclared name is a programming error and answers empty.
#[derive(Clone, Debug)]
pub struct Flags {
    component: &'static str,
    values: BTreeMap<&'static str, Value>,
    warnings: Vec<String>,
    arguments: Vec<String>,
}

#[derive(Clone, Debug)]
struct Value {
    kind: Kind,
    text: String,
    set: bool,
    hidden: bool,
}

impl Flags {
    fn defaults(set: &FlagSet) -> Self {
        let value = |spec: &Spec| Value {
            kind: spec.kind,
            text: spec.default.clone(),
            set: false,
            hidden: spec.removed.is_some(),
        };
        let values = set.specs.iter().map(|spec| (spec.name, value(spec))).collect();
        Flags {
            component: set.component,
            values,
            warnings: Vec::new(),
            arguments: Vec::new(),
        }
    }

    fn read_environment(&mut self, set: &FlagSet) -> Result<(), UsageError> {
        let Some(prefix) = set.env_prefix else {
            return Ok(());
        };
        for spec in &set.specs {
            let variable = format!("{prefix}_{}", spec.name.to_uppercase().replace('-', "_"));
            let Ok(text) = std::env::var(&variable) else {
                continue;
            };
            if !text.is_empty() {
                self.assign_all(
                    spec,
                    [text.as_str()].into_iter(),
                    &format!("{variable} environment variable, flag"),
                )?;
            }
        }
        Ok(())
    }

    fn assign_all<'a>(
        &mut self,
        spec: &Spec,
        given: impl Iterator<Item = &'a str>,
        what: &str,
    ) -> Result<(), UsageError> {
        if let Some(advice) = spec.removed {
            self.warnings.push(format!(
                "Flag --{} has been removed and is ignored: {advice}",
                spec.name
            ));
            return Ok(());
        }
        if let Some(advice) = spec.deprecated {
            self.warnings
                .push(format!("Flag --{} has been deprecated, {advice}", spec.name));
        }
        let invalid = |value: &str, reason: String| UsageError::Invalid {
            flag: if what == "flag" {
                format!("--{}", spec.name)
            } else {
                format!("--{} ({what})", spec.name)
            },
            value: value.to_owned(),
            reason,
        };
        let mut text: Option<String> = None;
        for value in given {
            let canonical = spec
                .kind
                .canonical(value)
                .map_err(|reason| invalid(value, reason))?;
            text = Some(match text {
                Some(before) if spec.kind.appends() && !before.is_empty() => format!("{before},{canonical}"),
                _ => canonical,
            });
        }
        if let Some(value) = self.values.get_mut(spec.name) {
            value.text = text.unwrap_or_default();
            value.set = true;
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Option<&Value> {
        let value = self.values.get(name);
        debug_assert!(value.is_some(), "flag --{name} is not declared");
        value
    }

    pub fn component(&self) -> &'static str {
        self.component
    }

    pub fn string(&self, name: &str) -> &str {
        self.value(name).map_or("", |value| &value.text)
    }

    pub fn bool(&self, name: &str) -> bool {
        self.string(name) == "true"
    }

    pub fn int(&self, name: &str) -> i64 {
        self.string(name).parse().unwrap_or_default()
    }

    pub fn float(&self, name: &str) -> f64 {
        self.string(name).parse().unwrap_or_default()
    }

    /// Negative durations read as zero.
    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.string(name)).unwrap_or_default()
    }

    pub fn strings(&self, name: &str) -> Vec<String> {
        value::split_list(self.string(name)).unwrap_or_default()
    }

    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        let pair = |item: String| match item.split_once('=') {
            Some((key, value)) => (key.trim().to_owned(), value.trim().to_owned()),
            None => (item, String::new()),
        };
        self.strings(name).into_iter().map(pair).collect()
    }

    /// Whether the command line, the environment or [`Flags::set`] gave a value.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.set)
    }

    pub fn is_declared(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// For values from config files. The command line should win: ask [`Flags::is_set`] first.
    pub fn set(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let Some(value) = self.values.get_mut(name) else {
            anyhow::bail!("there is no flag --{name}")
        };
        let canonical = value
            .kind
            .canonical(text)
            .map_err(|reason| anyhow::anyhow!("invalid argument {text:?} for \"--{name}\": {reason}"))?;
        value.text = canonical;
        value.set = true;
        Ok(())
    }

    /// The words that are no flags, see [`FlagSet::with_arguments`].
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Lines about deprecated and removed flags that were given.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every flag with its value, by name, as the start-up log and `/flagz` list them.
    pub fn each(&self) -> impl Iterator<Item = (&str, String)> {
        self.values
            .iter()
            .filter(|(_, value)| !value.hidden)
            .map(|(name, value)| (*name, value.kind.display(&value.text)))
    }
}

#[cfg(test)]
mod tests;
