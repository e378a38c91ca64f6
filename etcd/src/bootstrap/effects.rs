//! What the apply thread's entries set off in a running member.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_api::raftpb;
use parking_lot::Mutex;
use raft::eraftpb::ConfState;
use tracing::{error, info, warn};

use crate::apply::Effects;
use crate::mvcc;
use crate::raft::driver::Event;
use crate::raft::log_thread::fatal;
use crate::server::EtcdServer;
use crate::storage::damage::REMEDY;
use crate::storage::keeper::Request;

/// A checkpoint is taken after so many bytes of frames.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;

pub struct ServerEffects {
    server: Arc<EtcdServer>,
    /// For the keeper to sweep.
    compactions: Arc<Mutex<Vec<i64>>>,
    /// Bytes of frames.
    since_checkpoint: u64,
}

impl ServerEffects {
    pub fn new(server: Arc<EtcdServer>, compactions: Arc<Mutex<Vec<i64>>>) -> Self {
        ServerEffects {
            server,
            compactions,
            since_checkpoint: 0,
        }
    }
}

impl Effects for ServerEffects {
    fn members_changed(&mut self) {
        self.server.members_changed();
    }

    fn removed(&mut self) {
        self.server.removed.send_replace(true);
    }

    fn conf_change(&mut self, index: u64, change: raftpb::ConfChange) -> Option<ConfState> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.server
            .events
            .push(Event::ConfChange(index, Box::new(change), sender));
        // The driver may have stopped with the question in its inbox.
        receiver.recv_timeout(self.server.request_timeout()).ok()
    }

    fn compacted(&mut self, revision: i64) {
        self.compactions.lock().push(revision);
        self.server.keeper.ask(Request::RECLAIM);
    }

    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        self.server.keeper.ask(Request::CHECKPOINT);
    }

    fn frame_written(&mut self, _: u64, bytes: u64) {
        self.server
            .live_bytes
            .store(self.server.store().storage.live_bytes(), Ordering::Relaxed);
        self.since_checkpoint += bytes;
        if self.since_checkpoint >= CHECKPOINT_BYTES {
            self.checkpoint();
        }
    }

    fn store_full(&mut self, full: bool) {
        self.server.store_full.store(full, Ordering::SeqCst);
        match full {
            true => {
                warn!(
                    "the disk is full: writes are refused until there is space for the next segment of the store"
                );
                self.server.keeper.ask(Request::RECLAIM);
            }
            false => info!("there is space for the store again"),
        }
        self.server.space.notify_one();
    }

    fn leases_changed(&mut self) {
        self.server.leases_changed.notify_one();
    }

    fn alarms_changed(&mut self) {
        self.server.space.notify_one();
    }

    fn version_lowered(&mut self, index: u64) {
        self.checkpoint();
        self.server.events.push(Event::Forget(index));
    }

    fn fatal(&mut self, source: &std::io::Error) -> ! {
        fatal(source)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a drain would wait for the entry that cannot be applied"
    )]
    fn undecidable(&mut self, index: u64, error: &mvcc::Error) -> ! {
        error!(
            index,
            error = %error,
            remedy = REMEDY,
            "an entry cannot be applied; the process ends, because whatever it wrote might be other than what the other members write"
        );
        std::process::exit(1)
    }
}
