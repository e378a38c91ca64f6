//! What the raft thread's decisions set off in a running member.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, SnapshotMetadata};
use tokio::runtime::Handle;
use tracing::warn;

use super::applying::ApplyJob;
use crate::apply::Arrived;
use crate::lease::primary;
use crate::peer::snapshot;
use crate::peer::streams::{Opened, Streams};
use crate::peer::transport::Network as _;
use crate::raft::driver::{Event, Outside};
use crate::raft::inbox::Inbox;
use crate::raft::log_thread::fatal;
use crate::raft::node::MAX_MESSAGE_BYTES;
use crate::raft::older::Fetch;
use crate::server::EtcdServer;
use crate::wal::past::Past;

pub struct ServerOutside {
    streams: Streams,
    server: Arc<EtcdServer>,
    runtime: Handle,
    /// At the last word about leadership.
    led: bool,
    /// What raft has not decided about yet.
    arrived: Option<Box<Arrived>>,
    past: Arc<Past>,
}

impl ServerOutside {
    pub fn new(server: &Arc<EtcdServer>, past: Past) -> Result<Self> {
        Ok(ServerOutside {
            streams: Streams::new(&server.events).context("cannot wait for peers")?,
            server: server.clone(),
            runtime: Handle::current(),
            led: false,
            arrived: None,
            past: Arc::new(past),
        })
    }
}

impl Outside for ServerOutside {
    fn apply(&mut self, entries: Vec<Entry>) {
        // Applying a change of the configuration asks this thread.
        if entries
            .iter()
            .any(|entry| entry.entry_type != EntryType::EntryNormal as i32)
        {
            self.server.apply_jobs.leave();
        }
        self.server.apply_jobs.push(ApplyJob::Entries(entries));
    }

    /// A store goes its own way; raft is told when it has arrived.
    fn send(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let is_store = |message: &Message| message.msg_type == MessageType::MsgSnapshot as i32;
        let (stores, messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_store);
        let unsent: Vec<_> = messages
            .into_iter()
            .filter_map(|message| self.streams.send(message))
            .collect();
        self.server.transport.send(unsent);
        for message in stores {
            match self.server.transport.peer(message.to) {
                Some(peer) => {
                    let sending = snapshot::send(self.server.clone(), peer, message);
                    self.runtime.spawn(sending);
                }
                None => self.server.events.push(Event::Snapshot(message.to, false)),
            }
        }
    }

    fn flush(&mut self) {
        self.streams.flush();
    }

    fn wait(&mut self, events: &Inbox<Event>, batch: &mut Vec<Event>, timeout: Duration) {
        self.streams.wait(events, batch, timeout);
    }

    fn open(&mut self, opened: Opened) {
        self.streams.open(opened);
    }

    fn close_stopped(&mut self) {
        self.streams.close_stopped();
    }

    fn arrived(&mut self, arrived: Box<Arrived>) {
        self.arrived = Some(arrived);
    }

    fn install(&mut self, snapshot: &SnapshotMetadata) {
        let of = |arrived: &mut Box<Arrived>| arrived.imported.frame.index == snapshot.index;
        match self.arrived.take_if(of) {
            Some(arrived) => self.server.apply_jobs.push(ApplyJob::Install(arrived)),
            // Nothing of it was written yet: a restart begins where the store is.
            None => fatal(&"the snapshot that raft wants is gone"),
        }
    }

    fn fetch(&mut self, fetch: Fetch) {
        let (past, events) = (self.past.clone(), self.server.events.clone());
        self.runtime.spawn_blocking(move || {
            let entries = past.read(&fetch, MAX_MESSAGE_BYTES);
            let entries = entries.inspect_err(|error| {
                warn!(index = fetch.low, error = %error, "older entries cannot be read; whoever lacks them is sent the store");
            });
            events.push(Event::Fetched(fetch.low, entries.ok()));
        });
    }

    /// Its files go, which may take longer than a heartbeat may.
    fn decided(&mut self) {
        if let Some(unwanted) = self.arrived.take() {
            self.runtime.spawn_blocking(move || drop(unwanted));
        }
    }

    fn leadership(&mut self, leading: bool) {
        self.server.leader_changed();
        let led = std::mem::replace(&mut self.led, leading);
        if !leading && !led {
            return;
        }
        primary::leadership(&*self.server, leading);
        self.server.space.notify_one();
    }

    fn stalled(&mut self, gap: Duration) {
        warn!(gap = ?gap, "this process stood still for longer than an election; leases are extended by that");
        primary::stalled(&*self.server, gap);
    }

    fn space_changed(&mut self) {
        self.server.space.notify_one();
    }
}
