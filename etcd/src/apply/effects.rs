//! What applying sets off elsewhere.

use std::io;
use std::time::Duration;

use etcd_api::raftpb;
use raft::eraftpb::ConfState;

use crate::mvcc;

/// How often a write to a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);

pub trait Effects: Send {
    /// Raft must know a configuration change when it is applied. None when the server stops.
    fn conf_change(&mut self, index: u64, change: raftpb::ConfChange) -> Option<ConfState>;
    /// The members are others than before.
    fn members_changed(&mut self);
    /// This member is none any more.
    fn removed(&mut self);
    fn compacted(&mut self, revision: i64);
    /// The store is to be made durable soon.
    fn checkpoint(&mut self);
    fn frame_written(&mut self, index: u64, bytes: u64);
    fn store_full(&mut self, full: bool);
    /// What was applied cannot be written before there is space.
    fn wait_for_space(&mut self) {
        std::thread::sleep(FULL_RETRY);
    }
    fn leases_changed(&mut self);
    fn alarms_changed(&mut self) {}
    /// Members of the version before may come: they cannot read what the log says before `index`.
    fn version_lowered(&mut self, _index: u64) {}
    /// The disk failed, and only a restart knows what it holds.
    fn fatal(&mut self, source: &io::Error) -> !;
    /// The entry at `index` depends on what this member cannot read: applied in another way it would make this member another than the others.
    fn undecidable(&mut self, index: u64, error: &mvcc::Error) -> ! {
        self.fatal(&io::Error::other(format!(
            "entry {index} cannot be applied: {error}"
        )))
    }
}
