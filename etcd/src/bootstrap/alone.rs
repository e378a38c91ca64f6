//! `--force-new-cluster`: this member goes on without the others, with all that it knows to be committed.

use anyhow::{Context, Result};
use raft::eraftpb::{Entry, HardState};
use tracing::warn;

use crate::membership::{Change, Member};
use crate::meta;
use crate::raft::conf_change;
use crate::wal::Wal;
use crate::wal::format::Group;
use crate::wal::reader::Replay;

/// Puts entries behind the log that remove everybody else. All of the log counts as committed: what was acknowledged is in it, and the commit
/// index is written too lazily to tell it from the rest.
pub fn force(
    wal: &mut Wal,
    replay: &mut Replay,
    state: &meta::State,
    local: u64,
    applied: u64,
) -> Result<()> {
    let mut members = state.membership.clone();
    let pending = replay.entries.iter().filter(|entry| entry.index > applied);
    for change in pending.filter_map(conf_change::decode) {
        if let Some(change) = Change::read(&change) {
            members.apply(&change);
        }
    }
    let term = replay.hard_state.term.max(replay.snapshot.term);
    let mut index = replay.last_index();
    let mut group = Group::default();
    for change in changes(&members.list(), local) {
        index += 1;
        let entry = Entry {
            term,
            index,
            ..conf_change::entry(&change.entry(0))
        };
        warn!(change = ?change, index, "forcing a new cluster");
        group.entry(&entry);
        replay.entries.push(entry);
    }
    replay.hard_state = HardState {
        term,
        vote: replay.hard_state.vote,
        commit: index,
    };
    group.hard_state(&replay.hard_state);
    wal.append(&mut group).context("cannot write the log")
}

fn changes(members: &[Member], local: u64) -> Vec<Change> {
    let this = members.iter().find(|member| member.id == local);
    let mut changes: Vec<Change> = match this {
        Some(this) if this.is_learner => vec![Change::Promote(local)],
        _ => Vec::new(),
    };
    let others = members.iter().filter(|member| member.id != local);
    changes.extend(others.map(|member| Change::Remove(member.id)));
    changes
}
