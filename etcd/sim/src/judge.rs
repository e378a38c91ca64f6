//! The end of a run: everything heals, and everything is judged.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etcd::meta;
use etcd::storage::writer::Meta;
use etcd_api::raftpb;
use etcd_checker::watch::{Seen, Violation, Watched};
use etcd_checker::{Operation, Request, Response, Timeline, serializable, watch};
use prost::Message as _;

use crate::faults::Down;
use crate::member::Life;
use crate::world::World;

/// How long the busy part may take.
const BUSY_US: u64 = 20_000_000;
/// Within which a healed cluster must answer again, and all members must be equal.
const RECOVERY_US: u64 = 60_000_000;
/// Answers that show that the cluster lives.
const ANSWERS: u64 = 10;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub steps: u64,
    pub answered: u64,
    pub unanswered: u64,
    pub revisions: i64,
    pub watches: u64,
    pub reads: u64,
    /// Machines beyond those that the cluster began with.
    pub joined: u64,
    /// Members that are to be found elsewhere.
    pub moved: u64,
    pub crashes: u64,
    pub snapshots: u64,
    /// The same for every run of one seed.
    pub trace: u64,
}

impl World {
    pub fn run(mut self) -> Result<Summary, String> {
        self.say_plan();
        let begun = |world: &World| -> u64 {
            world
                .clients
                .iter()
                .map(|client| client.operations.len() as u64)
                .sum()
        };
        while self.now < BUSY_US && begun(&self) < self.plan.operations {
            self.step();
        }
        self.heal();
        self.recover()?;
        self.settle("the members do not become equal", |_| true)?;
        self.lessors_are_equal()?;
        self.settle("leases do not end", |world| world.has_no_lease())?;
        self.judge()
    }

    fn say_plan(&self) {
        self.say(|| format!("{:#?}", self.plan));
    }

    fn heal(&mut self) {
        self.say(|| "everything heals".to_owned());
        self.healing = true;
        self.network.heal();
        (self.plan.lost, self.plan.repeated, self.plan.late) = (0, 0, 0);
        for who in 0..self.members.len() {
            // What has not burnt yet does not burn any more.
            if self.members[who].disk.is_burnt() {
                self.down(who, Down::PowerLoss);
            }
            self.members[who].disk.revive();
            let member = &mut self.members[who];
            member.make_room();
            if member.restart_at != u64::MAX {
                member.restart_at = member.restart_at.min(self.now);
            }
            member.paused_until = member.paused_until.min(self.now);
            member.slow_until = 0;
        }
    }

    fn answered(&self) -> Vec<u64> {
        self.clients.iter().map(|client| client.answered).collect()
    }

    fn recover(&mut self) -> Result<(), String> {
        let (before, deadline) = (self.answered(), self.now + RECOVERY_US);
        let lives = |now: &[u64]| {
            now.iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + ANSWERS)
        };
        while !lives(&self.answered()) {
            if self.now > deadline {
                return Err(format!(
                    "no progress after everything healed: {}",
                    self.describe()
                ));
            }
            self.step();
        }
        Ok(())
    }

    /// Clients stop asking; what is on its way arrives.
    fn settle(&mut self, what: &str, and: impl Fn(&World) -> bool) -> Result<(), String> {
        let deadline = self.now + RECOVERY_US;
        self.next_compaction = u64::MAX;
        self.settling = true;
        loop {
            for client in &mut self.clients {
                if !client.is_waiting() {
                    client.wake = u64::MAX;
                }
            }
            for holder in &mut self.holders {
                if !holder.is_waiting() {
                    holder.wake = u64::MAX;
                }
            }
            if self.is_settled() && and(self) {
                return Ok(());
            }
            if self.now > deadline {
                return Err(format!("{what}: {}", self.describe()));
            }
            self.step();
        }
    }

    fn has_no_lease(&self) -> bool {
        let has_none = |place: &usize| {
            let life = self.members[*place].life.as_ref();
            life.is_some_and(|life| life.state.lessor.lock().is_empty())
        };
        self.belonging().iter().all(has_none)
    }

    fn lessors_are_equal(&self) -> Result<(), String> {
        let leases = |place: usize| {
            let lessor = self.members[place].life.as_ref()?.state.lessor.lock();
            let mut ids = lessor.ids();
            ids.sort_unstable();
            let lease = |id: &i64| {
                let now = etcd::clock::Millis(0);
                let granted = lessor.time_to_live(*id, now)?.granted_seconds;
                Some((*id, granted, lessor.keys_of(*id).ok()?))
            };
            Some(ids.iter().filter_map(lease).collect::<Vec<_>>())
        };
        let belonging = self.belonging();
        let first = belonging.first().and_then(|place| leases(*place));
        match belonging.iter().find(|place| leases(**place) != first) {
            Some(place) => Err(format!(
                "the leases of member {place} differ: {:?} and {first:?}",
                leases(*place)
            )),
            None => Ok(()),
        }
    }

    fn is_settled(&self) -> bool {
        let waiting = self.clients.iter().any(|client| client.is_waiting())
            || self.holders.iter().any(|holder| holder.is_waiting());
        let belonging = self.belonging();
        let applied = |place: usize| {
            let life = self.members[place].life.as_ref()?;
            let (applied, committed) = (
                life.status.applied.load(Ordering::SeqCst),
                life.status.committed.load(Ordering::SeqCst),
            );
            (applied == committed).then_some((applied, life.state.store.current()))
        };
        let first = belonging.first().and_then(|place| applied(*place));
        !waiting
            && first.is_some_and(|(_, revision)| self.collector.collected() == revision)
            && belonging.iter().all(|place| {
                applied(*place) == first
                    && self.members[*place]
                        .life
                        .as_ref()
                        .is_some_and(|life| life.is_idle())
            })
    }

    fn describe(&self) -> String {
        let member = |member: &crate::machine::Member| {
            let status = member.life.as_ref().map(|life| {
                (
                    life.status.term.load(Ordering::SeqCst),
                    life.status.leader.load(Ordering::SeqCst),
                    life.status.committed.load(Ordering::SeqCst),
                    life.status.applied.load(Ordering::SeqCst),
                    life.state.store.current(),
                    life.raft(),
                )
            });
            format!(
                "{:x}: (term, leader, committed, applied, revision, raft) {status:?}",
                member.ids.member
            )
        };
        let members: Vec<String> = self.members.iter().map(member).collect();
        let due = self
            .members
            .iter()
            .map(|member| member.life.as_ref().map(Life::due));
        let due: Vec<_> = due.collect();
        let waiting: Vec<bool> = self.clients.iter().map(|client| client.is_waiting()).collect();
        format!(
            "{members:#?}, collected {}, parts with work {due:?}, clients that wait {waiting:?}",
            self.collector.collected()
        )
    }

    fn judge(mut self) -> Result<Summary, String> {
        self.members_are_equal()?;
        self.members_are_found()?;
        let mut summary = Summary {
            steps: self.stamp,
            joined: (self.members.len() - self.plan.members) as u64,
            moved: self.moved,
            crashes: self.crashes,
            snapshots: self.snapshots,
            trace: self.trace_hash(),
            ..Summary::default()
        };
        let mut operations: Vec<Operation> = Vec::new();
        for client in &mut self.clients {
            operations.append(&mut client.operations);
        }
        for holder in &mut self.holders {
            operations.append(&mut holder.operations);
        }
        summary.answered = operations
            .iter()
            .filter(|operation| operation.answer.is_some())
            .count() as u64;
        summary.unanswered = operations.len() as u64 - summary.answered;
        let events = std::mem::take(&mut self.collector.events);
        let timeline = Timeline::new(events).map_err(|untrue| untrue.to_string())?;
        summary.revisions = timeline.last();
        self.last_list_is_true(&timeline)?;
        serializable::check(&operations, &timeline).map_err(|violation| violation.to_string())?;
        for client in &self.clients {
            summary.reads += client.reads.len() as u64;
            serializable::check_reads(&client.reads, &timeline)
                .map_err(|violation| format!("a read of the past: {violation}"))?;
        }
        for watcher in &mut self.watchers {
            watcher.poll(None, true, &mut self.random);
            watcher.close(None);
            for (watched, seen) in &watcher.lives {
                summary.watches += 1;
                check_watch(watched, seen, &timeline, &self.compactions)?;
            }
        }
        Ok(summary)
    }

    /// What is stored is what happened.
    fn last_list_is_true(&mut self, timeline: &Timeline) -> Result<(), String> {
        let place = self.belonging().first().copied().unwrap_or(0);
        let Some(life) = &mut self.members[place].life else {
            return Err("a healed member is down".to_owned());
        };
        let mut client = crate::client::Client::new(usize::MAX, 0);
        let list = client
            .read_now(Request::List, life)
            .ok_or_else(|| "the last read fails".to_owned())?;
        if let Some(Response::Listed(kvs)) = list.answer.as_ref().map(|answer| &answer.response)
            && let Some(kv) = kvs.iter().find(|kv| kv.lease != 0)
        {
            return Err(format!("{:?} outlives its lease {}", kv.key, kv.lease));
        }
        serializable::check(&[list], timeline)
            .or_else(|violation| match violation {
                // The changes of the others are not in this history.
                serializable::Violation::Unasked { .. } => Ok(()),
                violation => Err(violation),
            })
            .map_err(|violation| violation.to_string())
    }

    fn members_are_found(&self) -> Result<(), String> {
        let belonging = self.belonging();
        for one in &belonging {
            if let Some(other) = belonging.iter().find(|other| !self.finds(*one, **other)) {
                return Err(format!("member {one} does not know where {other} is"));
            }
        }
        Ok(())
    }

    fn members_are_equal(&self) -> Result<(), String> {
        let state = |place: usize| -> Result<_, String> {
            let life = self.members[place]
                .life
                .as_ref()
                .ok_or_else(|| "a healed member is down".to_owned())?;
            let hash = life
                .state
                .store
                .hash_kv(0)
                .map_err(|error| format!("member {place} cannot be hashed: {error}"))?;
            let mut view = life.applier.view();
            make_alike(&mut view.meta);
            Ok((
                (hash.hash, hash.compacted, hash.revision),
                (view.index, view.term, view.revision, view.compacted),
                view.meta,
            ))
        };
        let belonging = self.belonging();
        let first = state(belonging.first().copied().unwrap_or(0))?;
        for place in belonging {
            let other = state(place)?;
            if other != first {
                return Err(format!(
                    "member {place} differs from the first: {other:?} and {first:?}"
                ));
            }
        }
        Ok(())
    }
}

/// A compaction keeps the event of its own revision and not what was there before: etcd's watch tells no previous value then.
fn check_watch(
    watched: &Watched,
    seen: &[Seen],
    timeline: &Timeline,
    compactions: &BTreeSet<i64>,
) -> Result<(), String> {
    let violated = |violation: &dyn Display| format!("{watched:?}: {violation}; it saw {}", shown(seen));
    match watch::check(watched, seen, timeline) {
        Err(Violation::Previous { revision, .. })
            if compactions.contains(&revision) && tells_no_previous(seen, revision) =>
        {
            let without = Watched {
                prev_kv: false,
                ..watched.clone()
            };
            watch::check(&without, seen, timeline).map_err(|violation| violated(&violation))
        }
        result => result.map_err(|violation| violated(&violation)),
    }
}

/// The revisions of the responses, and of the events in them.
fn shown(seen: &[Seen]) -> String {
    let one = |seen: &Seen| {
        let revisions: Vec<i64> = seen
            .events
            .iter()
            .filter_map(|event| Some(event.kv.as_ref()?.mod_revision))
            .collect();
        format!("{}: {revisions:?}", seen.revision)
    };
    seen.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn tells_no_previous(seen: &[Seen], revision: i64) -> bool {
    seen.iter()
        .flat_map(|seen| &seen.events)
        .filter(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision))
        .all(|event| event.prev_kv.is_none())
}

/// What members need not write down alike: the order in which raft tells the voters, and that nothing was compacted.
fn make_alike(rows: &mut Meta) {
    rows.retain(|(bucket, _), _| *bucket != meta::REVISION);
    let place = (meta::CLUSTER, Bytes::from_static(meta::CONF_STATE));
    if let Some(state) = rows.get_mut(&place)
        && let Ok(mut read) = raftpb::ConfState::decode(state.clone())
    {
        read.voters.sort_unstable();
        read.learners.sort_unstable();
        *state = read.encode_to_vec().into();
    }
}
