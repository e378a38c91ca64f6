//! The machine of a member: its disk, its clock, and when each part of its process has its next turn.

use std::sync::Arc;
use std::time::Duration;

use etcd::apply::Applied;
use etcd::disk::fake::FakeDisk;
use etcd::wal::format::Ids;
use tokio::sync::oneshot::Receiver;

use crate::faults::Down;
use crate::member::{Life, PARTS, TICK_US};
use crate::server::Server;

/// What outlives a process.
pub struct Member {
    pub ids: Ids,
    pub disk: FakeDisk,
    pub life: Option<Life>,
    /// Where it listens for the others.
    pub url: String,
    pub moving: Option<Moving>,
    /// Begins with nothing, as a member of a cluster that runs already.
    pub joins: bool,
    /// The cluster has removed it, and it has heard of that.
    pub leaving: bool,
    pub gone: bool,
    pub restart_at: u64,
    pub paused_until: u64,
    pub slow_until: u64,
    pub full_until: Option<u64>,
    /// How a burnt fuse ends the process.
    pub ends: Down,
    /// By the world's clock: skewed, it is longer or shorter than what the member believes it to be.
    pub tick_us: u64,
    pub next_tick: u64,
    /// When its tasks look at the clock.
    pub next_look: u64,
    /// Up to where its clock has gone on.
    wound: u64,
    /// When each part takes its next turn, if it has something to do.
    pub turns: [Option<u64>; PARTS.len()],
}

/// A change of a member's peer URL that is not settled. It listens at both meanwhile.
pub struct Moving {
    pub url: String,
    /// The process that was asked for it, and its answer.
    pub asked: Arc<Server>,
    pub answer: Receiver<Applied>,
}

impl Member {
    pub fn new(ids: Ids, url: &str, tick_us: u64) -> Member {
        Member {
            ids,
            disk: FakeDisk::new(),
            life: None,
            url: url.to_owned(),
            moving: None,
            joins: false,
            leaving: false,
            gone: false,
            restart_at: 0,
            paused_until: 0,
            slow_until: 0,
            full_until: None,
            ends: Down::PowerLoss,
            tick_us,
            next_tick: 0,
            next_look: 0,
            wound: 0,
            turns: [None; PARTS.len()],
        }
    }

    pub fn begin(&mut self, life: Life, now: u64) {
        self.life = Some(life);
        self.next_look = now;
        self.wound = now;
    }

    /// Its clock goes on, at its own speed.
    pub fn wind(&mut self, now: u64) {
        let own_ns = (now - self.wound) * 1000 * TICK_US / self.tick_us;
        if let Some(life) = &self.life {
            life.server.clock.advance(Duration::from_nanos(own_ns));
        }
        self.wound = now;
    }

    pub fn listens_at(&self, url: &String) -> bool {
        self.url == *url || self.moving.as_ref().is_some_and(|moving| moving.url == *url)
    }

    /// False when it was down already.
    pub fn end(&mut self, how: Down, seed: u64) -> bool {
        // Whatever a dying process still does to its disk does not happen.
        self.disk.burn_after(0);
        let lived = self.life.take().is_some();
        self.turns = [None; PARTS.len()];
        self.paused_until = 0;
        self.make_room();
        match how {
            Down::PowerLoss => self.disk.crash(seed),
            Down::Kill => self.disk.revive(),
        }
        lived
    }

    pub fn make_room(&mut self) {
        self.disk.set_capacity(None);
        self.full_until = None;
    }
}
