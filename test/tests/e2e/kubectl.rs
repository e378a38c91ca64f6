//! The tour with every kubectl there is, from transcripts: what a user types and the lines he must see.
//!
//! ```text
//! == name of the group                     one cell of the table that is printed
//! $ create configmap c --from-literal=a=1  must succeed; `!` must fail, `~` is asked again until it is as expected,
//!                                          `%` is stopped after a while (watches)
//! @ KUBE_EDITOR=sed -i s/a/b/              a variable of its environment
//! | kind: ConfigMap                        a line of its input
//! > NAME * READY                           some line of its output has these parts in this order
//! = yes                                    some line is exactly this
//! < error                                  no line has this
//! $[>=24] create token default             only for these versions: `>=24`, `<27`
//! ```
//! `{ns}` is the namespace of the version under test. Each version runs in its own, two at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use e2e::{Cluster, Kubectl, Output, kubectl, until};

use crate::nodes::{deploy_web, with_node};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a watch is watched, in seconds, and how long any other command may take.
const WATCH: &str = "2";
const ANY: &str = "120";
const WORKERS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Succeeds,
    Fails,
    Becomes,
    Watches,
}

#[derive(Debug)]
struct Step {
    group: String,
    line: usize,
    manner: Manner,
    /// `>=24` as (true, 24), `<27` as (false, 27).
    versions: Option<(bool, u32)>,
    words: Vec<String>,
    env: Vec<(String, String)>,
    stdin: String,
    has: Vec<String>,
    is: Vec<String>,
    has_not: Vec<String>,
}

fn parse(text: &str) -> Result<Vec<Step>> {
    let (mut steps, mut group) = (Vec::<Step>::new(), String::new());
    for (at, line) in text.lines().enumerate() {
        let (mark, rest) = line.split_at(line.len().min(1));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match (mark, steps.last_mut()) {
            ("", _) | ("#", _) => {}
            ("=", _) if rest.starts_with("= ") => group = rest[2..].to_owned(),
            ("$" | "!" | "~" | "%", _) => steps.push(step(&group, at + 1, mark, rest)?),
            (_, None) => bail!("line {}: {line:?} belongs to no command", at + 1),
            ("@", Some(step)) => {
                let (key, value) = rest.split_once('=').context("KEY=VALUE")?;
                step.env.push((key.to_owned(), value.to_owned()));
            }
            ("|", Some(step)) => step.stdin.push_str(&format!("{rest}\n")),
            (">", Some(step)) => step.has.push(rest.to_owned()),
            ("=", Some(step)) => step.is.push(rest.to_owned()),
            ("<", Some(step)) => step.has_not.push(rest.to_owned()),
            _ => bail!("line {}: {line:?} is none of a transcript", at + 1),
        }
    }
    Ok(steps)
}

fn step(group: &str, line: usize, mark: &str, rest: &str) -> Result<Step> {
    let (versions, command) = match rest.strip_prefix('[').and_then(|r| r.split_once("] ")) {
        Some((condition, command)) => (Some(versions(condition)?), command),
        None => (None, rest),
    };
    Ok(Step {
        group: group.to_owned(),
        line,
        manner: match mark {
            "!" => Manner::Fails,
            "~" => Manner::Becomes,
            "%" => Manner::Watches,
            _ => Manner::Succeeds,
        },
        versions,
        words: words(command),
        env: Vec::new(),
        stdin: String::new(),
        has: Vec::new(),
        is: Vec::new(),
        has_not: Vec::new(),
    })
}

fn versions(condition: &str) -> Result<(bool, u32)> {
    let (at_least, number) = match condition.strip_prefix(">=") {
        Some(number) => (true, number),
        None => (false, condition.strip_prefix('<').context("`>=24` or `<27`")?),
    };
    Ok((at_least, number.parse()?))
}

/// Words between spaces; single quotes keep what is in them together.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in command.trim().chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|w| w.push(c)),
        }
    }
    words
}

/// Are the parts between `*` in `line`, in this order?
fn has(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('*').all(|part| match rest.split_once(part.trim()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// One version's way through a transcript.
struct Tourist<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: String,
    home: PathBuf,
}

impl<'a> Tourist<'a> {
    fn new(cluster: &'a Cluster, kubectl: &'a Kubectl, tour: &str) -> Result<Self> {
        let namespace = format!("v{}", kubectl.minor);
        let home = cluster.path().join(format!("{tour}-{namespace}"));
        std::fs::create_dir_all(&home)?;
        let tourist = Tourist {
            cluster,
            kubectl,
            namespace,
            home,
        };
        tourist
            .kubectl(&["create", "namespace", &tourist.namespace], &[], None)?
            .ok()?;
        until("its service account", LIMIT, || {
            tourist
                .kubectl(&["get", "serviceaccount", "default"], &[], None)?
                .ok()
        })?;
        Ok(tourist)
    }

    fn kubectl(&self, args: &[&str], env: &[(&str, &str)], stdin: Option<&str>) -> Result<Output> {
        self.wrapped(&[], args, env, stdin)
    }

    fn wrapped(
        &self,
        before: &[&str],
        args: &[&str],
        env: &[(&str, &str)],
        stdin: Option<&str>,
    ) -> Result<Output> {
        let (program, home) = (
            self.kubectl.path.display().to_string(),
            self.home.display().to_string(),
        );
        let namespace = format!("--namespace={}", self.namespace);
        let mut words = before.to_vec();
        words.extend([program.as_str(), namespace.as_str()]);
        words.extend_from_slice(args);
        let mut all = vec![("HOME", home.as_str())];
        all.extend_from_slice(env);
        self.cluster.run(&words, &all, stdin)
    }

    fn applies(&self, step: &Step) -> bool {
        step.versions
            .is_none_or(|(at_least, version)| (self.kubectl.minor >= version) == at_least)
    }

    fn take(&self, step: &Step) -> Result<()> {
        match step.manner {
            Manner::Becomes => until("as expected", LIMIT, || self.once(step)),
            _ => self.once(step),
        }
    }

    fn once(&self, step: &Step) -> Result<()> {
        let fill = |text: &str| text.replace("{ns}", &self.namespace);
        let words: Vec<String> = step.words.iter().map(|w| fill(w)).collect();
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> = step.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let stdin = fill(&step.stdin);
        let stdin = (!stdin.is_empty()).then_some(stdin.as_str());
        let patience = if step.manner == Manner::Watches {
            WATCH
        } else {
            ANY
        };
        let output = self.wrapped(&["timeout", patience], &args, &env, stdin)?;
        self.judge(step, &output)
            .with_context(|| format!("exited with {}\n{}{}", output.code, output.stdout, output.stderr))
    }

    fn judge(&self, step: &Step, output: &Output) -> Result<()> {
        let as_wanted = match step.manner {
            Manner::Succeeds | Manner::Becomes => output.code == 0,
            Manner::Fails => output.code != 0,
            Manner::Watches => matches!(output.code, 0 | 124),
        };
        anyhow::ensure!(as_wanted, "the exit code is wrong");
        let all = format!("{}\n{}", output.stdout, output.stderr);
        for wanted in &step.has {
            let wanted = wanted.replace("{ns}", &self.namespace);
            anyhow::ensure!(
                all.lines().any(|line| has(line, &wanted)),
                "no line has {wanted:?}"
            );
        }
        for wanted in &step.is {
            let wanted = wanted.replace("{ns}", &self.namespace);
            anyhow::ensure!(
                all.lines().any(|line| line.trim_end() == wanted),
                "no line is {wanted:?}"
            );
        }
        for unwanted in &step.has_not {
            anyhow::ensure!(
                !all.lines().any(|line| has(line, unwanted)),
                "a line has {unwanted:?}"
            );
        }
        Ok(())
    }
}

/// group -> version -> what went wrong
type Table = BTreeMap<String, BTreeMap<u32, Vec<String>>>;

/// All versions through all steps; every failure is told, not only the first.
fn tour(cluster: &Cluster, name: &str, transcript: &str) -> Result<()> {
    let steps = parse(transcript)?;
    let waiting = Mutex::new(kubectl::installed()?);
    let table = Mutex::new(Table::new());
    let tainting = Mutex::new(());
    let work = || -> Result<()> {
        while let Some(kubectl) = pop(&waiting) {
            let tourist = Tourist::new(cluster, &kubectl, name)?;
            for step in steps.iter().filter(|step| tourist.applies(step)) {
                // It reads all of a node's taints and writes them back without a word about the version that it read.
                let alone = step
                    .words
                    .first()
                    .is_some_and(|word| word == "taint")
                    .then(|| tainting.lock());
                let result = tourist.take(step);
                drop(alone);
                note(&table, step, kubectl.minor, result);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let table = table
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    report(name, &table)
}

fn pop(waiting: &Mutex<Vec<Kubectl>>) -> Option<Kubectl> {
    waiting.lock().ok()?.pop()
}

fn note(table: &Mutex<Table>, step: &Step, minor: u32, result: Result<()>) {
    let Ok(mut table) = table.lock() else { return };
    let failures = table
        .entry(step.group.clone())
        .or_default()
        .entry(minor)
        .or_default();
    if let Err(error) = result {
        let command = step.words.join(" ");
        failures.push(format!(
            "kubectl 1.{minor}, line {}: `{command}`: {error:#}",
            step.line
        ));
    }
}

fn report(name: &str, table: &Table) -> Result<()> {
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    for (group, versions) in table {
        let cells = versions.iter().map(|(minor, failed)| match failed.len() {
            0 => format!("1.{minor} ok"),
            n => format!("1.{minor} FAIL({n})"),
        });
        lines.push(format!(
            "{name}: {group:<28} {}",
            cells.collect::<Vec<_>>().join("  ")
        ));
        failures.extend(versions.values().flatten().cloned());
    }
    eprintln!("{}", lines.join("\n"));
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} failed:\n{}", failures.len(), failures.join("\n----\n"))
}

#[test]
fn every_kubectl_reads_and_writes_objects() -> Result<()> {
    let cluster = Cluster::builder("kubectl")
        .controller_manager()
        .scheduler()
        .start()?;
    tour(&cluster, "objects", include_str!("kubectl/objects.txt"))?;
    cluster.finish()
}

#[test]
fn every_kubectl_describes_and_deletes() -> Result<()> {
    let cluster = Cluster::builder("kubectl")
        .controller_manager()
        .scheduler()
        .start()?;
    tour(&cluster, "kinds", include_str!("kubectl/kinds.txt"))?;
    cluster.finish()
}

#[test]
fn every_kubectl_runs_containers() -> Result<()> {
    let Some(cluster) = with_node("kubectl")? else {
        return Ok(());
    };
    deploy_web(&cluster)?;
    tour(&cluster, "node", include_str!("kubectl/node.txt"))?;
    cluster.finish()
}

#[test]
fn patterns_are_parts_in_order() {
    assert!(has("NAME   READY   STATUS", "NAME * STATUS") && has("a b", "b"));
    assert!(!has("STATUS NAME", "NAME * STATUS"));
    assert_eq!(
        words("patch -p '{\"a\": 1}' x"),
        ["patch", "-p", "{\"a\": 1}", "x"]
    );
    assert!(parse("> orphan").is_err());
}
