//! A new cluster that begins with the keys of a snapshot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcd_api::{raftpb, walpb};
use raft::eraftpb::{ConfState, HardState};
use tracing::info;

use super::SnapshotError;
use super::load::{self, is_empty_or_missing};
use super::read::{self, Contents};
use crate::disk::Disk;
use crate::membership::{BootstrapError, Membership};
use crate::meta;
use crate::wal::format::{Group, Ids};
use crate::wal::{self, Wal, WalError};
use etcd_api::etcdserverpb::AlarmType;

/// The term in which the members' entries of a new cluster are.
const FIRST_TERM: u64 = 1;
/// Where the member is made before it gets its name, so that what was interrupted is never started.
const STAGING: &str = "member.restoring";

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("data-dir {0:?} not empty or could not be read")]
    DataDir(PathBuf),
    #[error("wal-dir {0:?} exists")]
    WalDir(PathBuf),
    #[error("cannot restore: the revision of the snapshot and --bump-revision {0} together are too large")]
    Bump(u64),
}

pub struct Restore<'a> {
    pub snapshot: &'a Path,
    pub name: &'a str,
    pub data_dir: &'a Path,
    /// None for the usual place below `data_dir`.
    pub wal_dir: Option<&'a Path>,
    pub initial_cluster: &'a str,
    pub initial_cluster_token: &'a str,
    pub advertise_peer_urls: &'a [String],
    pub skip_hash_check: bool,
    /// Added to the newest revision, which then counts as compacted: clients of the old cluster never see one again.
    pub bump_revision: u64,
}

impl Restore<'_> {
    pub fn run(&self, disk: &Arc<dyn Disk>) -> Result<(), RestoreError> {
        let membership = Membership::initial(self.initial_cluster, self.initial_cluster_token)?;
        let local = membership.local(self.name, self.advertise_peer_urls)?;
        let ids = Ids {
            cluster: membership.cluster_id,
            member: local.id,
        };
        if !is_empty_or_missing(self.data_dir).unwrap_or(false) {
            return Err(RestoreError::DataDir(self.data_dir.to_owned()));
        }
        if let Some(dir) = self.wal_dir.filter(|dir| dir.exists()) {
            return Err(RestoreError::WalDir(dir.to_owned()));
        }
        info!(path = %self.snapshot.display(), "data-dir" = %self.data_dir.display(), "restoring snapshot");
        let staging = self.data_dir.join(STAGING);
        let made = self.make(disk, &staging, &membership, ids);
        if made.is_err() {
            // Best effort: without its name it does no harm.
            std::fs::remove_dir_all(&staging).ok();
        }
        made?;
        info!(path = %self.snapshot.display(), "data-dir" = %self.data_dir.display(), "local-member-id" = %format!("{:x}", ids.member), "cluster-id" = %format!("{:x}", ids.cluster), "restored snapshot");
        Ok(())
    }

    fn make(
        &self,
        disk: &Arc<dyn Disk>,
        staging: &Path,
        membership: &Membership,
        ids: Ids,
    ) -> Result<(), RestoreError> {
        let database = read::open(self.snapshot, self.skip_hash_check)?;
        let mut contents = read::contents(&database)?;
        let bump = i64::try_from(self.bump_revision)
            .ok()
            .filter(|bump| bump.checked_add(i64::MAX / 2).is_some())
            .ok_or(RestoreError::Bump(self.bump_revision))?;
        begin_anew(&mut contents, membership);
        let state = ConfState {
            voters: membership.members.keys().copied().collect(),
            ..ConfState::default()
        };
        load::store(
            disk,
            &staging.join("store"),
            ids,
            &database,
            contents,
            bump,
            |writer| {
                membership
                    .members
                    .values()
                    .for_each(|member| meta::put_member(writer, member));
                meta::put_conf_state(writer, &state);
            },
        )?;
        let wal_dir = self.wal_dir.map_or(staging.join("wal"), Path::to_owned);
        write_wal(disk, &wal_dir, ids, &state)?;
        let io = SnapshotError::io;
        disk.sync_dir(staging).map_err(io(staging))?;
        disk.rename(staging, &self.data_dir.join("member"))
            .and_then(|()| disk.sync_dir(self.data_dir))
            .map_err(io(self.data_dir))?;
        Ok(())
    }
}

/// Members, versions and raft's index are the new cluster's; an alarm about space named a member of the old one.
fn begin_anew(contents: &mut Contents, membership: &Membership) {
    let space = AlarmType::Nospace as i32;
    contents.meta.retain(|(bucket, key), _| match *bucket {
        meta::MEMBERS | meta::MEMBERS_REMOVED | meta::CLUSTER => false,
        meta::ALARM => !key.ends_with(&space.to_be_bytes()),
        _ => true,
    });
    contents.index = membership.members.len() as u64;
    contents.term = FIRST_TERM;
}

/// The log begins behind the entries that would have added the members.
fn write_wal(disk: &Arc<dyn Disk>, dir: &Path, ids: Ids, state: &ConfState) -> Result<(), RestoreError> {
    let mut wal = Wal::create(disk.clone(), dir, ids, wal::SEGMENT_BYTES)?;
    let index = state.voters.len() as u64;
    let mut group = Group::default();
    group.hard_state(&HardState {
        term: FIRST_TERM,
        vote: 0,
        commit: index,
    });
    group.snapshot(&walpb::Snapshot {
        index,
        term: FIRST_TERM,
        conf_state: Some(raftpb::ConfState {
            voters: state.voters.clone(),
            ..Default::default()
        }),
    });
    wal.append(&mut group).map_err(WalError::io(dir))?;
    Ok(())
}
