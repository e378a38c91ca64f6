//! What leases promise: none ends before its time, each ends at last, and its keys go with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd::raft::read;
use etcd_api::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest,
};
use rand::Rng as _;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::member::{ELECTION_TICKS, Life, TICK_US};
use crate::plan::Plan;
use crate::world::World;

/// Between two looks for leases that have ended.
const LOOK_US: u64 = 300_000;
const MOST_REVOKED: usize = 1000;
/// etcd's: raft's thread is not stuck when its clock went on within so many ticks.
const ACTIVE_TICKS: u64 = 3;

/// Leases as their holders know them.
#[derive(Default)]
pub struct Book {
    leases: BTreeMap<i64, Held>,
}

struct Held {
    /// Until when it must not end.
    until: u64,
    /// Its holder has asked for its end.
    given_up: bool,
}

impl Book {
    /// A grant or a renewal that was asked for at `called` was answered.
    pub fn promised(&mut self, id: i64, called: u64, ttl_seconds: i64, plan: &Plan) {
        let until = called + own_to_least(ttl_seconds as u64 * 1_000_000, plan).saturating_sub(slack(plan));
        let held = self.leases.entry(id).or_insert(Held {
            until,
            given_up: false,
        });
        held.until = held.until.max(until);
    }

    pub fn give_up(&mut self, id: i64) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.given_up = true;
        }
    }

    /// Whether the lease may have ended by now.
    pub fn may_be_over(&self, id: i64, now: u64) -> bool {
        self.leases
            .get(&id)
            .is_none_or(|held| held.given_up || held.until <= now)
    }
}

/// How long a member may take such a time for, by its own clock, if that is the fastest.
fn own_to_least(us: u64, plan: &Plan) -> u64 {
    us * (100 - plan.skew / 2) / 100
}

/// For how long an old leader with a slow clock may renew leases after a new one with a fast clock began to count.
fn slack(plan: &Plan) -> u64 {
    let election = TICK_US * ELECTION_TICKS as u64;
    let apart = plan.skew + plan.skew / 2;
    ACTIVE_TICKS * TICK_US * 2 + 2 * election * apart / 100
}

/// Whether a leader knows that it leads.
pub enum Leads {
    Yes,
    No,
    /// It has asked the others.
    Asks,
}

impl Life {
    /// As `EtcdServer::ensure_leadership`: one whose clock stood still asks the others first.
    pub fn leads(&self, asked: &mut Option<Receiver<u64>>, since_tick: u64, tick_us: u64) -> Leads {
        if !self.is_leader() {
            *asked = None;
            return Leads::No;
        }
        let Some(receiver) = asked else {
            if since_tick <= ACTIVE_TICKS * tick_us {
                return Leads::Yes;
            }
            *asked = Some(read::ask_raft(&self.events));
            return Leads::Asks;
        };
        let answer = receiver.try_recv();
        if !matches!(answer, Err(TryRecvError::Empty)) {
            *asked = None;
        }
        match answer {
            Ok(index) if index <= self.status.applied.load(Ordering::SeqCst) => Leads::Yes,
            Err(TryRecvError::Empty) => Leads::Asks,
            _ => Leads::No,
        }
    }
}

impl World {
    /// A leader ends the leases whose time is over, and tells what the others have left.
    pub fn look_for_leases(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.next_look = self.now + self.random.random_range(1..LOOK_US);
        let (last_tick, tick_us) = (member.last_tick, member.tick_us);
        let Some(life) = &mut member.life else { return };
        let term = life.status.term.load(Ordering::SeqCst);
        let mut sure = life.sure.take();
        let leads = life.leads(&mut sure, self.now - last_tick, tick_us);
        life.sure = sure;
        if !matches!(leads, Leads::Yes) {
            return self.plan_turns(who);
        }
        let state = Arc::clone(&life.state);
        let now = etcd::clock::Clock::now(&*life.clock);
        let expired = state.lessor.lock().expired(now, MOST_REVOKED);
        for id in expired {
            assert!(
                self.book.may_be_over(id, self.now),
                "member {who} ends lease {id} before its time"
            );
            // Whether it was proposed does not matter: what was not is looked for again.
            drop(life.propose_leading(revoke(id), term));
            life.revoking.push((id, self.now));
        }
        if self.random.random_ratio(self.plan.checkpoints, 100) {
            let due = state.lessor.lock().to_checkpoint(1000, now);
            drop(life.propose_leading(checkpoint(due), term));
        }
        life.retry_revoking(self.now);
        self.plan_turns(who);
    }
}

impl Life {
    /// As the server does when a revocation times out.
    fn retry_revoking(&mut self, now: u64) {
        let clock = etcd::clock::Clock::now(&*self.clock);
        let mut lessor = self.state.lessor.lock();
        self.revoking.retain(|(id, at)| {
            let waits = at + 1_000_000 > now;
            if !waits {
                lessor.not_revoked(*id, clock);
            }
            waits
        });
    }
}

pub fn revoke(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..InternalRaftRequest::default()
    }
}

pub fn checkpoint(leases: Vec<(i64, i64)>) -> InternalRaftRequest {
    let checkpoints = leases
        .into_iter()
        .map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl });
    InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: checkpoints.collect(),
        }),
        ..InternalRaftRequest::default()
    }
}
