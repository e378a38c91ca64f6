//! What the directory holds, read back: the log and the store agree when they leave this file, and the process did not end between two
//! writes that belong together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use etcd_api::{raftpb, walpb};
use raft::eraftpb::ConfState;
use tracing::warn;

use super::{alone, discovery, first};
use crate::config::Config;
use crate::disk::Disk;
use crate::lease::Lessor;
use crate::membership::{Change, Member};
use crate::meta;
use crate::peer::client::Client;
use crate::raft::conf_change;
use crate::raft::log::Log;
use crate::raft::node::{Node, Timing};
use crate::storage;
use crate::storage::load::{self, Loaded};
use crate::wal::format::{Group, Ids};
use crate::wal::{self, Wal, reader::Replay};

pub struct Opened {
    pub ids: Ids,
    /// Who is there, until the log says so.
    pub members: Vec<Member>,
    pub wal: Wal,
    pub replay: Replay,
    pub loaded: Loaded,
    pub state: meta::State,
    pub lessor: Lessor,
}

pub async fn open(disk: &Arc<dyn Disk>, config: &Config, client: &Client) -> Result<Opened> {
    let wal_dir = &config.wal_dir;
    let (ids, mut wal, mut replay, joined) = match Wal::identify(&**disk, wal_dir)? {
        Some(ids) => {
            let (mut wal, mut replay) = Wal::open(disk.clone(), wal_dir, ids, wal::SEGMENT_BYTES)?;
            if config.initial_cluster_state != "existing" && first::is_blank(&replay) {
                let configured = discovery::configured(config).await?;
                first::resume(&mut wal, &mut replay, ids, &configured)?;
            }
            (ids, wal, replay, Vec::new())
        }
        None => first::start(disk, config, wal_dir, client).await?,
    };
    if replay.torn_bytes > 0 {
        warn!(
            bytes = replay.torn_bytes,
            "repaired the torn tail of the WAL: nothing of it was acknowledged"
        );
    }
    let loaded = load::load(
        disk.clone(),
        &config.data_dir.join("member/store"),
        ids.cluster,
        storage::SEGMENT_BYTES,
    )?;
    let mut lessor = Lessor::new(config.min_lease_ttl());
    let state = meta::read(&loaded, &mut lessor)?;
    finish_install(&mut wal, &mut replay, &loaded, &state)?;
    check_consistent(&config.data_dir, &replay, &loaded)?;
    if config.force_new_cluster {
        alone::force(&mut wal, &mut replay, &state, ids.member, loaded.frame.index)?;
    }
    let members = match (state.membership.members.is_empty(), joined.is_empty()) {
        (false, _) => state.membership.list(),
        (true, false) => joined,
        (true, true) => members_of(&replay),
    };
    Ok(Opened {
        ids,
        members,
        wal,
        replay,
        loaded,
        state,
        lessor,
    })
}

/// The store was replaced by a leader's, and the process ended before the log said so: now it does.
pub fn finish_install(
    wal: &mut Wal,
    replay: &mut Replay,
    loaded: &Loaded,
    state: &meta::State,
) -> Result<()> {
    let installed = loaded.storage.installed.load(Ordering::SeqCst);
    let index = loaded.frame.index;
    if installed <= replay.snapshot.index || installed != index {
        return Ok(());
    }
    let snapshot = walpb::Snapshot {
        index,
        term: loaded.frame.term,
        conf_state: Some(state.conf_state.clone()),
    };
    let mut group = Group::default();
    group.snapshot(&snapshot);
    wal.append(&mut group).context("cannot write the log")?;
    replay.covered(snapshot);
    Ok(())
}

/// The log must reach from where the store is durable to where the store is.
pub fn check_consistent(data_dir: &Path, replay: &Replay, loaded: &Loaded) -> Result<()> {
    let index = loaded.frame.index;
    if index < replay.snapshot.index {
        bail!(
            "{}: the store ends at index {index} but the log begins after {}; the store was replaced or lost: restore a snapshot into a new data directory",
            data_dir.display(),
            replay.snapshot.index
        );
    }
    if index > replay.last_index() {
        bail!(
            "{}: the store is at index {index} but the log ends at {}; the log was replaced or lost: restore a snapshot into a new data directory",
            data_dir.display(),
            replay.last_index()
        );
    }
    Ok(())
}

/// What the store says as of its index; before the first entry was applied, the members that the first entries add.
pub fn conf_state(stored: &raftpb::ConfState, replay: &Replay) -> ConfState {
    if stored.voters.is_empty() {
        return ConfState {
            voters: first_changes(replay).map(|change| change.node_id).collect(),
            ..ConfState::default()
        };
    }
    conf_change::raft_conf_state(stored)
}

pub fn node(timing: &Timing, id: u64, conf_state: &ConfState, replay: Replay, applied: u64) -> Result<Node> {
    let mut hard_state = replay.hard_state;
    // The commit index is written lazily; what was applied was committed.
    hard_state.commit = hard_state.commit.max(applied);
    // A store may have been replaced by one of a later term, of which the log does not know.
    if hard_state.term < replay.snapshot.term {
        (hard_state.term, hard_state.vote) = (replay.snapshot.term, 0);
    }
    let log = Log::new(
        hard_state,
        conf_state.clone(),
        (replay.snapshot.index, replay.snapshot.term),
        replay.entries,
    );
    Node::new(id, log, applied, timing).context("cannot start raft")
}

fn members_of(replay: &Replay) -> Vec<Member> {
    first_changes(replay)
        .filter_map(|change| match Change::read(&change)? {
            Change::Add(member) => Some(member),
            _ => None,
        })
        .collect()
}

/// The members that the first entries of a log add: those are committed by definition.
fn first_changes(replay: &Replay) -> impl Iterator<Item = raftpb::ConfChange> + '_ {
    let entries = replay.entries.iter().zip(1..);
    entries
        .take_while(|(entry, index)| entry.index == *index && entry.term == first::TERM)
        .map_while(|(entry, _)| conf_change::decode(entry))
}
