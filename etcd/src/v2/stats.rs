//! `/v2/stats`: counts of what the store did, and what this member and its leader say of themselves.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use component_base::http::{Body, typed};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::event::Action;
use super::node::rfc3339;
use crate::server::EtcdServer;

/// How often each kind of request went well and how often not, since the start.
#[derive(Default)]
pub struct Counts {
    actions: [[AtomicU64; 2]; ACTIONS.len()],
    /// Those gets that were recursive.
    recursive: [AtomicU64; 2],
}

/// How often something was asked for, and how often that failed.
pub struct ActionCount {
    pub name: &'static str,
    pub all: u64,
    pub failed: u64,
}

const ACTIONS: [Action; 8] = [
    Action::Get,
    Action::Create,
    Action::Set,
    Action::Update,
    Action::Delete,
    Action::CompareAndSwap,
    Action::CompareAndDelete,
    Action::Expire,
];

/// etcd's names, in its order.
const NAMES: [(Action, &str, &str); 7] = [
    (Action::Get, "getsSuccess", "getsFail"),
    (Action::Set, "setsSuccess", "setsFail"),
    (Action::Delete, "deleteSuccess", "deleteFail"),
    (Action::Update, "updateSuccess", "updateFail"),
    (Action::Create, "createSuccess", "createFail"),
    (
        Action::CompareAndSwap,
        "compareAndSwapSuccess",
        "compareAndSwapFail",
    ),
    (
        Action::CompareAndDelete,
        "compareAndDeleteSuccess",
        "compareAndDeleteFail",
    ),
];

const WRITES: [(Action, &str); 6] = [
    (Action::Set, "set"),
    (Action::Create, "create"),
    (Action::Update, "update"),
    (Action::Delete, "delete"),
    (Action::CompareAndSwap, "compareAndSwap"),
    (Action::CompareAndDelete, "compareAndDelete"),
];

impl ActionCount {
    fn of(name: &'static str, ok: u64, failed: u64) -> ActionCount {
        ActionCount {
            name,
            all: ok + failed,
            failed,
        }
    }
}

impl Counts {
    pub fn count(&self, action: Action, ok: bool) {
        self.actions[action as usize][usize::from(!ok)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_get(&self, recursive: bool, ok: bool) {
        self.count(Action::Get, ok);
        if recursive {
            self.recursive[usize::from(!ok)].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self, action: Action, ok: bool) -> u64 {
        self.actions[action as usize][usize::from(!ok)].load(Ordering::Relaxed)
    }

    pub fn expired(&self) -> u64 {
        self.read(Action::Expire, true)
    }

    pub fn reads(&self) -> Vec<ActionCount> {
        let [ok, failed] = [0, 1].map(|place: usize| self.recursive[place].load(Ordering::Relaxed));
        let recursive = ActionCount::of("getRecursive", ok, failed);
        let [ok, failed] = [true, false].map(|ok| self.read(Action::Get, ok));
        let plain = ActionCount::of(
            "get",
            ok.saturating_sub(recursive.all - recursive.failed),
            failed.saturating_sub(recursive.failed),
        );
        vec![plain, recursive]
    }

    pub fn writes(&self) -> Vec<ActionCount> {
        let count = |(action, name)| {
            let [ok, failed] = [true, false].map(|ok| self.read(action, ok));
            ActionCount::of(name, ok, failed)
        };
        WRITES.map(count).into()
    }
}

pub fn store(server: &EtcdServer) -> String {
    let store = server.state.v2.read();
    let mut out = Map::new();
    for (action, ok, failed) in NAMES {
        out.insert(ok.to_owned(), store.counts.read(action, true).into());
        out.insert(failed.to_owned(), store.counts.read(action, false).into());
    }
    out.insert("expireCount".to_owned(), store.counts.expired().into());
    out.insert("watchers".to_owned(), store.watchers().into());
    Value::Object(out).to_string()
}

static START: LazyLock<(i64, Instant)> = LazyLock::new(|| (super::now(), Instant::now()));

/// Remembers when this process began.
pub fn begin() {
    LazyLock::force(&START);
}

/// Messages between members are not counted here: the counts are those of etcd before any was sent.
pub fn own(server: &EtcdServer) -> String {
    let (started, since) = *START;
    let leader = server.leader();
    let name = server
        .state
        .membership
        .read()
        .members
        .get(&server.member)
        .map_or_else(String::new, |member| member.name.clone());
    let leading = leader == server.member && leader != 0;
    json!({
        "name": name,
        "id": format!("{:x}", server.member),
        "state": if leading { "StateLeader" } else { "StateFollower" },
        "startTime": rfc3339(started),
        "leaderInfo": {
            "leader": if leader == 0 { String::new() } else { format!("{leader:x}") },
            "uptime": go_duration(since.elapsed()),
            "startTime": rfc3339(started),
        },
        "recvAppendRequestCnt": 0,
        "sendAppendRequestCnt": 0,
    })
    .to_string()
}

/// `1h2m3.5s`, as Go writes it.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = Duration::new(seconds % 60, duration.subsec_nanos()).as_secs_f64();
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

pub fn leader(server: &EtcdServer) -> Response<Body> {
    let leader = server.leader();
    if leader == 0 || leader != server.member {
        return super::refusal(StatusCode::FORBIDDEN, "not current leader");
    }
    let mut followers = Map::new();
    for id in server.state.membership.read().members.keys() {
        if *id != leader {
            followers.insert(
                format!("{id:x}"),
                json!({
                    "latency": {"current": 0, "average": 0, "standardDeviation": 0, "minimum": 0, "maximum": 0},
                    "counts": {"fail": 0, "success": 0},
                }),
            );
        }
    }
    let body = json!({"leader": format!("{leader:x}"), "followers": followers}).to_string();
    typed(StatusCode::OK, super::JSON, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let text = |ms| go_duration(Duration::from_millis(ms));
        assert_eq!(
            (text(1500), text(61_000), text(7_325_250)),
            ("1.5s".into(), "1m1s".into(), "2h2m5.25s".into())
        );
    }

    #[test]
    fn every_action_has_its_own_count() {
        for (place, action) in ACTIONS.iter().enumerate() {
            assert_eq!(*action as usize, place);
        }
    }
}
