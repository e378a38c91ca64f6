//! Flags as pflag reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use component_base::flags::parse_duration;

use crate::go::quote::quote;
use crate::go::strconv::{parse_bool, parse_int, parse_uint};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    String,
    Int,
    Uint,
    Duration,
    Strings,
}

#[derive(Clone, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub default: &'static str,
    pub usage: &'static str,
    /// Accepted, not shown.
    pub hidden: bool,
}

impl Flag {
    pub fn new(kind: Kind, name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Flag {
            name,
            short: None,
            kind,
            default,
            usage,
            hidden: false,
        }
    }

    pub fn bool(name: &'static str, usage: &'static str) -> Self {
        Flag::new(Kind::Bool, name, "false", usage)
    }

    pub fn string(name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Flag::new(Kind::String, name, default, usage)
    }

    pub fn int(name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Flag::new(Kind::Int, name, default, usage)
    }

    pub fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// As pflag names it in errors.
    fn title(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

pub fn help(command: &str) -> Flag {
    // A few short texts in a process that runs one command.
    let usage: &'static str = Box::leak(format!("help for {command}").into_boxed_str());
    Flag::bool("help", usage).short('h')
}

/// Values by flag name. Every value fits its kind.
#[derive(Clone, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, Value>,
}

#[derive(Clone)]
struct Value {
    kind: Kind,
    /// One, or for [`Kind::Strings`] any number.
    items: Vec<String>,
    changed: bool,
}

impl Flags {
    fn defaults(flags: &[Flag]) -> Self {
        let value = |flag: &Flag| Value {
            kind: flag.kind,
            items: vec![flag.default.to_owned()],
            changed: false,
        };
        Flags {
            values: flags.iter().map(|flag| (flag.name, value(flag))).collect(),
        }
    }

    pub fn changed(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.changed)
    }

    pub fn string(&self, name: &str) -> &str {
        let value = self.values.get(name);
        value
            .and_then(|value| value.items.first())
            .map_or("", String::as_str)
    }

    pub fn strings(&self, name: &str) -> Vec<String> {
        self.values
            .get(name)
            .map(|value| value.items.clone())
            .unwrap_or_default()
    }

    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.string(name)) == Ok(true)
    }

    /// Checked when it was set; 0 for a flag that does not exist.
    pub fn int(&self, name: &str) -> i64 {
        parse_int(self.string(name), 0).unwrap_or_default()
    }

    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.string(name)).unwrap_or_default()
    }

    /// The value as Go prints it with `%v`.
    pub fn display(&self, name: &str) -> String {
        match self.values.get(name) {
            Some(value) if value.kind == Kind::Strings => format!("[{}]", value.items.join(",")),
            Some(value) if value.kind == Kind::Duration => {
                component_base::flags::format_duration(self.duration(name))
            }
            _ => self.string(name).to_owned(),
        }
    }

    /// Keeps what is set when the text does not fit.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let Some(value) = self.values.get_mut(name) else {
            return Err(format!("no such flag -{name}"));
        };
        check(value.kind, text)?;
        if value.kind == Kind::Strings {
            let items = text.split(',').filter(|_| !text.is_empty()).map(str::to_owned);
            if value.changed {
                value.items.extend(items);
            } else {
                value.items = items.collect();
            }
        } else {
            value.items = vec![text.to_owned()];
        }
        value.changed = true;
        Ok(())
    }
}

fn check(kind: Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::Bool => parse_bool(text).map(drop),
        Kind::Int => parse_int(text, 0).map(drop),
        Kind::Uint => parse_uint(text, 10).map(drop),
        Kind::Duration => parse_duration(text).map(drop),
        Kind::String | Kind::Strings => Ok(()),
    }
}

pub struct Parsed {
    pub flags: Flags,
    pub args: Vec<String>,
}

/// Reads flags wherever they stand; `--` ends them and is dropped.
pub fn parse(declared: &[Flag], words: &[String]) -> Result<Parsed, String> {
    let mut flags = Flags::defaults(declared);
    let mut args = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            args.extend(words.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            parse_long(declared, &mut flags, long, &mut words)?;
        } else if let Some(shorts) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            parse_shorts(declared, &mut flags, shorts, &mut words)?;
        } else {
            args.push(word.clone());
        }
    }
    Ok(Parsed { flags, args })
}

fn parse_long<'a>(
    declared: &[Flag],
    flags: &mut Flags,
    long: &str,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: --{long}"));
    }
    let Some(flag) = declared.iter().find(|flag| flag.name == name) else {
        return Err(format!("unknown flag: --{name}"));
    };
    let value = match value {
        Some(value) => value,
        None if flag.kind == Kind::Bool => "true",
        None => words
            .next()
            .ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    assign(flags, flag, value)
}

fn parse_shorts<'a>(
    declared: &[Flag],
    flags: &mut Flags,
    shorts: &str,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let mut rest = shorts;
    while let Some(c) = rest.chars().next() {
        let Some(flag) = declared.iter().find(|flag| flag.short == Some(c)) else {
            return Err(format!("unknown shorthand flag: {} in -{rest}", quote_char(c)));
        };
        let after = &rest[c.len_utf8()..];
        if let Some(value) = after.strip_prefix('=').filter(|value| !value.is_empty()) {
            return assign(flags, flag, value);
        }
        if flag.kind == Kind::Bool {
            assign(flags, flag, "true")?;
            rest = after;
            continue;
        }
        if !after.is_empty() {
            return assign(flags, flag, after);
        }
        let missing = || format!("flag needs an argument: {} in -{rest}", quote_char(c));
        return assign(flags, flag, words.next().ok_or_else(missing)?);
    }
    Ok(())
}

fn quote_char(c: char) -> String {
    format!("'{c}'")
}

fn assign(flags: &mut Flags, flag: &Flag, value: &str) -> Result<(), String> {
    let invalid = |reason| {
        let (value, title) = (quote(value.as_bytes()), quote(flag.title().as_bytes()));
        format!("invalid argument {value} for {title} flag: {reason}")
    };
    flags.set(flag.name, value).map_err(invalid)
}

/// The words that are neither flags nor values of flags.
pub fn strip(declared: &[Flag], words: &[String]) -> Vec<String> {
    walk(declared, words)
        .into_iter()
        .map(|index| words[index].clone())
        .collect()
}

/// `words` without the first occurrence of `name` that is not a flag's value.
pub fn without_first(declared: &[Flag], words: &[String], name: &str) -> Vec<String> {
    let mut rest = words.to_vec();
    if let Some(index) = walk(declared, words)
        .into_iter()
        .find(|index| words[*index] == name)
    {
        rest.remove(index);
    }
    rest
}

/// Indices of the words that are neither flags nor values of flags, up to `--`.
fn walk(declared: &[Flag], words: &[String]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < words.len() && words[index] != "--" {
        let word = &words[index];
        if takes_next(declared, word) {
            index += 1;
        } else if !word.is_empty() && !word.starts_with('-') {
            found.push(index);
        }
        index += 1;
    }
    found
}

/// Unknown flags count as those that take a value.
fn takes_next(declared: &[Flag], word: &str) -> bool {
    if word.contains('=') {
        return false;
    }
    let flag = if let Some(long) = word.strip_prefix("--") {
        declared.iter().find(|flag| flag.name == long)
    } else if word.starts_with('-') && word.len() == 2 {
        declared.iter().find(|flag| word.chars().nth(1) == flag.short)
    } else {
        return false;
    };
    flag.is_none_or(|flag| flag.kind != Kind::Bool)
}
