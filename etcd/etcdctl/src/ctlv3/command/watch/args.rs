//! Which words of a watch name the range and which the command to run.
//!
//! Upstream compares cobra's words with the raw command line, because cobra drops the `--` between the two.

use etcd_api::etcdserverpb::WatchCreateRequest;

use super::Environment;
use crate::client::kv::{OPEN_END, prefix_end};
use crate::cobra::flags::{self, Flag, Flags};

const BAD_NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";

/// What is watched, and what runs for each event.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    pub words: Vec<String>,
    pub exec: Option<Vec<String>>,
}

/// How it is watched.
pub struct Settings {
    prefix: bool,
    revision: i64,
    prev_kv: bool,
    progress_notify: bool,
}

impl Settings {
    pub fn of(flags: &Flags) -> Settings {
        Settings {
            prefix: flags.bool("prefix"),
            revision: flags.int("rev"),
            prev_kv: flags.bool("prev-kv"),
            progress_notify: flags.bool("progress-notify"),
        }
    }
}

/// From the command line: `raw` is all of it, `words` are those that are no flags.
pub fn parse(raw: &[String], words: &[String], environment: &Environment) -> Result<Question, String> {
    let start = raw
        .iter()
        .position(|word| word == "watch")
        .map_or(0, |index| index + 1);
    let raw = &raw[start..];
    let exec = match raw.iter().position(|word| word == "--") {
        Some(index) if index + 1 == raw.len() => return Err(NO_COMMAND.to_owned()),
        Some(index) => Some(raw[index + 1..].to_vec()),
        None if raw.is_empty() && environment.key.is_empty() => return Err(BAD_NUMBER.to_owned()),
        None => None,
    };
    // Behind the separator nothing is a flag, so the command's words are the last of all.
    let own = words.len().saturating_sub(exec.as_ref().map_or(0, Vec::len));
    if own > 0 && !environment.key.is_empty() {
        return Err(CONFLICT.to_owned());
    }
    Ok(Question {
        words: with_environment(&words[..own], environment),
        exec,
    })
}

/// From a line of the interactive mode, `watch` first.
pub fn parse_line(
    line: &[String],
    declared: &[Flag],
    environment: &Environment,
) -> Result<(Question, Settings), String> {
    let rest = &line[1..];
    let separator = rest.iter().position(|word| word == "--");
    if separator.is_some_and(|index| index + 1 == rest.len()) {
        return Err(NO_COMMAND.to_owned());
    }
    let (own, exec) = match separator {
        Some(index) => (&rest[..index], Some(rest[index + 1..].to_vec())),
        None => (rest, None),
    };
    let parsed = flags::parse(declared, own)?;
    if exec.is_none() && environment.key.is_empty() && parsed.args.is_empty() {
        return Err(BAD_NUMBER.to_owned());
    }
    if exec.is_none() && !parsed.args.is_empty() && !environment.key.is_empty() {
        return Err(CONFLICT.to_owned());
    }
    let question = Question {
        words: with_environment(&parsed.args, environment),
        exec,
    };
    Ok((question, Settings::of(&parsed.flags)))
}

fn with_environment(words: &[String], environment: &Environment) -> Vec<String> {
    let variables = [&environment.key, &environment.range_end];
    let variables = variables.into_iter().filter(|value| !value.is_empty());
    variables.chain(words).cloned().collect()
}

pub fn request(question: &Question, settings: &Settings) -> Result<WatchCreateRequest, String> {
    let Some(key) = question.words.first() else {
        return Err(BAD_NUMBER.to_owned());
    };
    let end = question.words.get(1).filter(|_| question.words.len() == 2);
    if end.is_some() && settings.prefix {
        return Err("`range_end` and `--prefix` are mutually exclusive".to_owned());
    }
    let (key, range_end) = match end {
        _ if settings.prefix && key.is_empty() => (b"\0".as_slice().into(), OPEN_END.into()),
        _ if settings.prefix => (key.clone().into(), prefix_end(key.as_bytes())),
        Some(end) => (key.clone().into(), end.clone().into()),
        None => (key.clone().into(), Default::default()),
    };
    Ok(WatchCreateRequest {
        key,
        range_end,
        start_revision: settings.revision,
        prev_kv: settings.prev_kv,
        progress_notify: settings.progress_notify,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn environment(key: &str, end: &str) -> Environment {
        Environment {
            key: key.to_owned(),
            range_end: end.to_owned(),
        }
    }

    fn read(raw: &str, args: &str, key: &str, end: &str) -> Result<(String, Option<String>), String> {
        let question = parse(&words(raw), &words(args), &environment(key, end))?;
        Ok((question.words.join(" "), question.exec.map(|exec| exec.join(" "))))
    }

    #[test]
    fn words_before_the_separator_are_the_range() {
        assert_eq!(
            read("etcdctl watch foo bar", "foo bar", "", "").unwrap(),
            ("foo bar".to_owned(), None)
        );
        let both = read(
            "etcdctl watch foo --rev 1 bar -- echo foo",
            "foo bar echo foo",
            "",
            "",
        )
        .unwrap();
        assert_eq!(both, ("foo bar".to_owned(), Some("echo foo".to_owned())));
        let variable = read("etcdctl watch -- echo hi", "echo hi", "foo", "fop").unwrap();
        assert_eq!(variable, ("foo fop".to_owned(), Some("echo hi".to_owned())));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(read("etcdctl watch", "", "", "").unwrap_err(), BAD_NUMBER);
        assert_eq!(
            read("etcdctl watch foo --", "foo", "", "").unwrap_err(),
            NO_COMMAND
        );
        assert_eq!(read("etcdctl watch foo", "foo", "key", "").unwrap_err(), CONFLICT);
        assert_eq!(
            read("etcdctl watch foo -- echo", "foo echo", "key", "").unwrap_err(),
            CONFLICT
        );
    }

    #[test]
    fn a_line_has_flags_of_its_own() {
        let (question, settings) = parse_line(
            &words("watch a --prefix --rev=3 -- echo x"),
            &super::super::flags(),
            &environment("", ""),
        )
        .unwrap();
        assert_eq!(question.exec, Some(words("echo x")));
        let request = request(&question, &settings).unwrap();
        assert_eq!((request.start_revision, request.range_end), (3, "b".into()));
    }
}
