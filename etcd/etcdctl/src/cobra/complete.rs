//! What may follow on an unfinished command line: cobra's `__complete` request, which the scripts of `completion` ask with.

use std::io::{self, Write as _};

use super::{Command, Found, find};
use crate::exit::Exit;

/// With a description behind each word, and without.
const REQUESTS: [(&str, bool); 2] = [("__complete", true), ("__completeNoDesc", false)];
/// Cobra's: the shell need not look for files.
const NO_FILES: &str = ":4";

/// Answers a request. None when `args` is none.
pub fn answer<R>(root: &Command<R>, args: &[String]) -> Option<Result<(), Exit>> {
    let (request, words) = args.split_first()?;
    let (_, described) = REQUESTS.iter().find(|(name, _)| name == request)?;
    let mut text = String::new();
    for (word, description) in candidates(root, words) {
        text.push_str(&word);
        if *described && !description.is_empty() {
            text.push('\t');
            text.push_str(description);
        }
        text.push('\n');
    }
    text.push_str(NO_FILES);
    text.push('\n');
    Some(io::stdout().write_all(text.as_bytes()).map_err(Exit::from))
}

/// Words that may stand in the place of the last of `words`.
fn candidates<'a, R>(root: &'a Command<R>, words: &[String]) -> Vec<(String, &'a str)> {
    let Some((last, before)) = words.split_last() else {
        return Vec::new();
    };
    let Ok(found) = find(root, before) else {
        return Vec::new();
    };
    match last.starts_with('-') {
        true => flags(&found, last),
        false => names(&found, last),
    }
}

fn names<'a, R>(found: &Found<'a, R>, start: &str) -> Vec<(String, &'a str)> {
    let command = found.command();
    // Behind the first argument of a command there are no more names.
    if found.rest.iter().any(|word| !word.starts_with('-')) && command.run.is_some() {
        return Vec::new();
    }
    let subcommands = command.subcommands.iter().map(|sub| (sub.name(), sub.short));
    let arguments = command.arguments.iter().map(|argument| (*argument, ""));
    let fits = |(name, _): &(&str, &str)| name.starts_with(start);
    let both = subcommands.chain(arguments).filter(fits);
    both.map(|(name, short)| (name.to_owned(), short)).collect()
}

fn flags<'a, R>(found: &Found<'a, R>, start: &str) -> Vec<(String, &'a str)> {
    let all = found.local().into_iter().chain(found.inherited());
    let shown = all.filter(|flag| !flag.hidden);
    let named = shown.map(|flag| (format!("--{}", flag.name), flag.usage));
    named.filter(|(name, _)| name.starts_with(start)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Flag;
    use super::*;

    #[test]
    fn names_flags_and_arguments_are_offered_where_they_may_stand() {
        let leaf = |usage| Command::new(usage, "of it", ()).flags(vec![Flag::bool("deep", "how deep")]);
        let root = Command::group(
            "ctl",
            "",
            vec![
                Command::group("member", "members", vec![leaf("add <name>"), leaf("list")]),
                leaf("move-leader <id>"),
                leaf("completion <shell>").arguments(&["bash", "zsh"]),
            ],
        )
        .persistent(vec![
            Flag::string("endpoints", "", "where"),
            Flag::string("secret", "", "hidden").hidden(),
        ]);
        for (line, expected) in [
            ("m", "member move-leader"),
            ("", "member move-leader completion"),
            ("member ", "add list"),
            ("--endpoints x member l", "list"),
            ("member add x ", ""),
            ("completion ", "bash zsh"),
            ("completion bash ", ""),
            ("member list --", "--deep --endpoints"),
            ("member list --e", "--endpoints"),
            ("nonsense ", ""),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let found: Vec<String> = candidates(&root, &words)
                .into_iter()
                .map(|(word, _)| word)
                .collect();
            assert_eq!(found.join(" "), expected, "{line:?}");
        }
        assert!(answer(&root, &["member".to_owned()]).is_none());
    }
}
