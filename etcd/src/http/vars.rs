//! `/debug/vars`: what etcd publishes by Go's expvar, but for the memory of Go's runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use component_base::http::{Body, typed};
use component_base::metrics;
use http::{Response, StatusCode};
use raft::{ProgressState, StateRole};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::clock;
use crate::raft::driver::Event;
use crate::raft::node::Report;
use crate::server::EtcdServer;

pub const PATH: &str = "/debug/vars";
/// For raft's thread to answer: whoever looks for the reason of a standstill is told what is known without it.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

pub async fn respond(server: &EtcdServer) -> Response<Body> {
    let (sender, receiver) = oneshot::channel();
    server.events.push(Event::Report(sender));
    let report = tokio::time::timeout(REPORT_TIMEOUT, receiver).await;
    let report = report.ok().and_then(Result::ok);
    let vars = json!({
        "cmdline": without_secrets(std::env::args_os().map(|word| word.to_string_lossy().into_owned())),
        "file_descriptor_limit": metrics::max_fds(),
        "raft.status": raft_status(server, report.as_ref()),
        "raft.last_tick_ms_ago": clock::uptime_ms(Instant::now())
            .saturating_sub(server.raft.last_tick_ms.load(Ordering::SeqCst)),
    });
    // One line for each, as expvar writes them.
    let lines = vars.as_object().into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{:?}: {value}", name))
        .collect();
    let body = format!("{{\n{}\n}}\n", lines.join(",\n"));
    typed(StatusCode::OK, "application/json; charset=utf-8", body)
}

/// Flags whose values let somebody in.
const SECRETS: &[&str] = &["--discovery-user", "--discovery-password"];

/// Who may ask here is anybody.
fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut follows = false;
    let shown = |word: String| {
        if std::mem::take(&mut follows) {
            return "***".to_owned();
        }
        let (flag, value) = word
            .split_once('=')
            .map_or((&*word, None), |(flag, value)| (flag, Some(value)));
        if !SECRETS.contains(&flag) {
            return word;
        }
        follows = value.is_none();
        value.map_or_else(|| flag.to_owned(), |_| format!("{flag}=***"))
    };
    words.map(shown).collect()
}

fn raft_status(server: &EtcdServer, report: Option<&Report>) -> Value {
    let raft = &server.raft;
    let number = |value: &AtomicU64| value.load(Ordering::SeqCst);
    let mut status = Map::new();
    let mut put = |name: &str, value: Value| drop(status.insert(name.to_owned(), value));
    put("id", hex(server.member));
    put("term", number(&raft.term).into());
    put("commit", number(&raft.committed).into());
    put("lead", hex(server.leader()));
    put("applied", number(&raft.applied).into());
    if let Some(report) = report {
        put("vote", hex(report.vote));
        put("raftState", role(report.role).into());
        put("progress", progress(report));
        put("leadtransferee", hex(report.transferee));
    }
    status.into()
}

fn hex(id: u64) -> Value {
    format!("{id:x}").into()
}

fn role(role: StateRole) -> &'static str {
    match role {
        StateRole::Follower => "StateFollower",
        StateRole::Candidate => "StateCandidate",
        StateRole::Leader => "StateLeader",
        StateRole::PreCandidate => "StatePreCandidate",
    }
}

fn progress(report: &Report) -> Value {
    let each = report.followers.iter().map(|follower| {
        let state = match follower.state {
            ProgressState::Probe => "StateProbe",
            ProgressState::Replicate => "StateReplicate",
            ProgressState::Snapshot => "StateSnapshot",
        };
        let progress = json!({"match": follower.matched, "next": follower.next, "state": state});
        (format!("{:x}", follower.id), progress)
    });
    Value::Object(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_shown_without_passwords() {
        let words = [
            "etcd",
            "--name=a",
            "--discovery-user=u:p",
            "--discovery-password",
            "p",
            "--name",
            "b",
        ];
        let shown = without_secrets(words.map(str::to_owned).into_iter());
        assert_eq!(
            shown.join(" "),
            "etcd --name=a --discovery-user=*** --discovery-password *** --name b"
        );
    }
}
