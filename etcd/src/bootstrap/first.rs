//! The first start: a new cluster from the flags, or a member of one that runs already.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use raft::eraftpb::{Entry, HardState};
use tracing::info;

use super::discovery;
use crate::config::Config;
use crate::disk::Disk;
use crate::membership::{Change, Member, Membership};
use crate::peer::client::Client;
use crate::peer::join;
use crate::raft::conf_change;
use crate::wal::format::{Group, Ids};
use crate::wal::reader::Replay;
use crate::wal::{self, Wal};

/// Of the entries that a new cluster begins with.
pub const TERM: u64 = 1;

pub async fn start(
    disk: &Arc<dyn Disk>,
    config: &Config,
    wal_dir: &Path,
    client: &Client,
) -> Result<(Ids, Wal, Replay, Vec<Member>)> {
    let configured = discovery::configured(config).await?;
    match config.initial_cluster_state == "existing" {
        true => join_cluster(disk, config, wal_dir, client, &configured).await,
        false => new_cluster(disk, config, wal_dir, client, &configured).await,
    }
}

fn create(disk: &Arc<dyn Disk>, wal_dir: &Path, ids: Ids) -> Result<Wal> {
    info!("local-member-id" = %format!("{:x}", ids.member), "cluster-id" = %format!("{:x}", ids.cluster), "starting local member");
    Ok(Wal::create(disk.clone(), wal_dir, ids, wal::SEGMENT_BYTES)?)
}

/// The log is empty: everything comes from the leader.
async fn join_cluster(
    disk: &Arc<dyn Disk>,
    config: &Config,
    wal_dir: &Path,
    client: &Client,
    configured: &Membership,
) -> Result<(Ids, Wal, Replay, Vec<Member>)> {
    let (existing, local) = join::existing(client, configured, &config.name).await?;
    let ids = Ids {
        cluster: existing.cluster_id,
        member: local.id,
    };
    let wal = create(disk, wal_dir, ids)?;
    Ok((ids, wal, Replay::default(), existing.list()))
}

/// As etcd does it: the first entries of a new cluster are its members, committed by definition.
async fn new_cluster(
    disk: &Arc<dyn Disk>,
    config: &Config,
    wal_dir: &Path,
    client: &Client,
    configured: &Membership,
) -> Result<(Ids, Wal, Replay, Vec<Member>)> {
    let local = discovery::local(configured, config).await?;
    if join::is_bootstrapped(client, configured, &config.name, local.id).await {
        bail!(
            "member {:x} has already been bootstrapped: its data directory was lost; remove the member and add it again, then start it with --initial-cluster-state=existing",
            local.id
        );
    }
    let ids = Ids {
        cluster: configured.cluster_id,
        member: local.id,
    };
    let mut wal = create(disk, wal_dir, ids)?;
    let replay = begin(&mut wal, configured)?;
    Ok((ids, wal, replay, configured.list()))
}

/// A first start that ended between the log's file and its first entries left a log that says nothing: it is begun again.
pub fn resume(wal: &mut Wal, replay: &mut Replay, ids: Ids, configured: &Membership) -> Result<()> {
    if is_blank(replay) && ids.cluster == configured.cluster_id {
        *replay = begin(wal, configured)?;
    }
    Ok(())
}

pub fn is_blank(replay: &Replay) -> bool {
    replay.entries.is_empty() && replay.snapshot.index == 0 && replay.hard_state == HardState::default()
}

/// The first entries of a new cluster's log, the same in every member's.
pub fn begin(wal: &mut Wal, configured: &Membership) -> Result<Replay> {
    let mut replay = Replay::default();
    for (member, index) in configured.members.values().zip(1..) {
        replay.entries.push(Entry {
            term: TERM,
            index,
            ..conf_change::entry(&Change::Add(member.clone()).entry(0))
        });
    }
    replay.hard_state = HardState {
        term: TERM,
        vote: 0,
        commit: replay.entries.len() as u64,
    };
    let mut group = Group::default();
    replay.entries.iter().for_each(|entry| group.entry(entry));
    group.hard_state(&replay.hard_state);
    wal.append(&mut group).context("cannot write the log")?;
    Ok(replay)
}
