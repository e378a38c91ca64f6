//! A client that holds a lease: it has it granted, hangs keys on it, keeps it alive, gives it up or forgets it.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use etcd::apply::{Answer as Done, Applied, ApplyError};
use etcd::lease::LeaseError;
use etcd::mvcc;
use etcd::raft::read;
use etcd_api::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest, PutRequest};
use etcd_checker::history::Answer;
use etcd_checker::{Operation, Request, Response};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::leases::{Leads, checkpoint, revoke};
use crate::world::World;

const TIMEOUT_US: u64 = 3_000_000;
const POLL_US: u64 = 20_000;
/// Some of its pauses are longer than its leases live.
const PAUSE_US: u64 = 1_500_000;
const KEYS: u32 = 4;
const TTLS: std::ops::RangeInclusive<i64> = 1..=4;

pub struct Holder {
    number: usize,
    count: i64,
    pub wake: u64,
    /// Its lease, and for how many seconds that was granted.
    held: Option<(i64, i64)>,
    pending: Option<Pending>,
    pub operations: Vec<Operation>,
}

struct Pending {
    member: usize,
    what: What,
    called: u64,
    stamp: u64,
    waiting: Waiting,
}

#[derive(Clone, Debug)]
enum What {
    Grant(i64, i64),
    Put { key: Bytes, value: Bytes, lease: i64 },
    Revoke(i64),
    KeepAlive(i64),
}

enum Waiting {
    Applied(Receiver<Applied>),
    /// What was committed when a renewal came is applied first.
    Behind(u64),
    /// A leader must know that it leads before it renews.
    Leads(Option<Receiver<u64>>),
    /// A leader without the lease asks whether it still leads.
    Confirms(Receiver<u64>),
    /// A checkpoint is taken back before a renewal is answered.
    TakenBack(Receiver<Applied>),
}

enum Heard {
    Nothing,
    /// It did not happen, or nobody knows.
    Lost,
    Done(i64),
    NoSuchLease,
}

impl Holder {
    pub fn new(number: usize) -> Holder {
        Holder {
            number,
            count: 0,
            wake: 0,
            held: None,
            pending: None,
            operations: Vec::new(),
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    fn draw(&mut self, random: &mut StdRng) -> What {
        self.count += 1;
        let Some((lease, _)) = self.held else {
            let id = ((self.number as i64 + 1) << 32) | self.count;
            return What::Grant(id, random.random_range(TTLS));
        };
        match random.random_range(0..100) {
            0..45 => What::KeepAlive(lease),
            45..93 => What::Put {
                key: Bytes::from(format!("l/{}", random.random_range(0..KEYS))),
                value: Bytes::from(format!("h{}-{}", self.number, self.count)),
                lease: if random.random_bool(0.8) { lease } else { 0 },
            },
            _ => What::Revoke(lease),
        }
    }
}

fn write_of(what: &What) -> Option<InternalRaftRequest> {
    let mut write = InternalRaftRequest::default();
    match what {
        What::Grant(id, ttl) => write.lease_grant = Some(LeaseGrantRequest { id: *id, ttl: *ttl }),
        What::Put { key, value, lease } => {
            write.put = Some(PutRequest {
                key: key.clone(),
                value: value.clone(),
                lease: *lease,
                ..PutRequest::default()
            });
        }
        What::Revoke(id) => write = revoke(*id),
        What::KeepAlive(_) => return None,
    }
    Some(write)
}

impl World {
    pub fn holder(&mut self, number: usize) {
        self.holders[number].wake = self.now + self.random.random_range(1..POLL_US);
        let Some(mut pending) = self.holders[number].pending.take() else {
            return self.holder_begins(number);
        };
        let heard = self.hear(&mut pending);
        let overdue = self.now > pending.called + TIMEOUT_US;
        match heard {
            Heard::Nothing if !overdue => self.holders[number].pending = Some(pending),
            Heard::Nothing => self.holder_heard(number, pending, Heard::Lost),
            heard => self.holder_heard(number, pending, heard),
        }
    }

    fn holder_begins(&mut self, number: usize) {
        let mut member = self.any_member();
        let what = self.holders[number].draw(&mut self.random);
        // Some are forgotten, and end by themselves.
        if self.random.random_bool(0.03) {
            self.holders[number].held = None;
        }
        if matches!(what, What::KeepAlive(_)) {
            match self.leader_as_seen_by(member) {
                Some(leader) => member = leader,
                None => return,
            }
        }
        let now = self.now;
        let Some(life) = &mut self.members[member].life else {
            return;
        };
        let write = write_of(&what);
        if life.is_learner() || (life.is_full() && write.is_some()) {
            return;
        }
        if let What::Revoke(id) = what {
            self.book.give_up(id);
        }
        let waiting = match write {
            Some(write) => Waiting::Applied(life.propose(write).1),
            None => Waiting::Behind(life.status.committed.load(Ordering::SeqCst)),
        };
        self.holders[number].pending = Some(Pending {
            member,
            what,
            called: now,
            stamp: self.stamp,
            waiting,
        });
        self.plan_turns(member);
    }

    /// A member passes a renewal on to whom it takes for the leader.
    fn leader_as_seen_by(&self, member: usize) -> Option<usize> {
        let life = self.members[member].life.as_ref()?;
        let id = life.status.leader.load(Ordering::SeqCst);
        let leader = self.members.iter().position(|member| member.ids.member == id)?;
        (!self.network.is_cut(member, leader, self.now)).then_some(leader)
    }

    fn hear(&mut self, pending: &mut Pending) -> Heard {
        let who = pending.member;
        let member = &mut self.members[who];
        let (paused, since_tick, tick_us) = (
            member.paused_until > self.now,
            self.now - member.last_tick.min(self.now),
            member.tick_us,
        );
        let Some(life) = &mut member.life else {
            return Heard::Lost;
        };
        if paused {
            return Heard::Nothing;
        }
        let id = match &pending.what {
            What::KeepAlive(id) => *id,
            _ => 0,
        };
        let heard = match &mut pending.waiting {
            Waiting::Applied(receiver) => heard(receiver),
            Waiting::Behind(index) => {
                if life.status.applied.load(Ordering::SeqCst) >= *index {
                    pending.waiting = Waiting::Leads(None);
                }
                Heard::Nothing
            }
            Waiting::Confirms(receiver) => match receiver.try_recv() {
                Ok(index) if index <= life.status.applied.load(Ordering::SeqCst) => renew(life, id),
                Err(TryRecvError::Empty) => Heard::Nothing,
                _ => Heard::Lost,
            },
            Waiting::TakenBack(receiver) => match heard(receiver) {
                Heard::Done(_) => renew(life, id),
                other => other,
            },
            Waiting::Leads(asked) => match life.leads(asked, since_tick, tick_us) {
                Leads::No => Heard::Lost,
                Leads::Asks => Heard::Nothing,
                Leads::Yes if !life.status.settled.load(Ordering::SeqCst) => Heard::Lost,
                Leads::Yes if life.state.lessor.lock().has_checkpoint(id) => {
                    let term = life.status.term.load(Ordering::SeqCst);
                    let receiver = life.propose_leading(checkpoint(vec![(id, 0)]), term);
                    pending.waiting = Waiting::TakenBack(receiver);
                    Heard::Nothing
                }
                Leads::Yes => renew(life, id),
            },
        };
        let is_sure =
            !matches!(pending.what, What::KeepAlive(_)) || matches!(pending.waiting, Waiting::Confirms(_));
        let heard = match heard {
            Heard::NoSuchLease if !is_sure => match read::ask(&life.status, &life.events) {
                Some(receiver) => {
                    pending.waiting = Waiting::Confirms(receiver);
                    Heard::Nothing
                }
                None => Heard::NoSuchLease,
            },
            heard => heard,
        };
        self.plan_turns(who);
        heard
    }

    fn holder_heard(&mut self, number: usize, pending: Pending, heard: Heard) {
        self.stamp += 1;
        let (now, returned) = (self.now, self.stamp);
        let holder = &mut self.holders[number];
        holder.wake = now + self.random.random_range(1..PAUSE_US);
        let named = match &pending.what {
            What::Grant(id, _) | What::Revoke(id) | What::KeepAlive(id) => *id,
            What::Put { lease, .. } => *lease,
        };
        match (&pending.what, &heard) {
            (_, Heard::NoSuchLease) => {
                assert!(
                    self.book.may_be_over(named, now),
                    "lease {named} is not there before its time: {:?}",
                    pending.what
                );
                holder.held = None;
            }
            (What::Grant(id, ttl), Heard::Done(_)) => {
                holder.held = Some((*id, *ttl));
                self.book.promised(*id, pending.called, *ttl, &self.plan);
            }
            (What::KeepAlive(id), Heard::Done(_)) => {
                if let Some((_, ttl)) = holder.held {
                    self.book.promised(*id, pending.called, ttl, &self.plan);
                }
            }
            (What::Revoke(_), _) => holder.held = None,
            _ => {}
        }
        if let What::Put { key, value, .. } = pending.what {
            let answer = match heard {
                Heard::Done(revision) => Some(Answer {
                    returned,
                    revision,
                    response: Response::Put,
                }),
                Heard::NoSuchLease => return,
                _ => None,
            };
            holder.operations.push(Operation {
                called: pending.stamp,
                request: Request::Put { key, value },
                answer,
            });
        }
    }
}

fn renew(life: &crate::member::Life, id: i64) -> Heard {
    let now = etcd::clock::Clock::now(&*life.clock);
    match life.state.lessor.lock().renew(id, now) {
        Ok(_) => Heard::Done(0),
        Err(LeaseError::NotFound) => Heard::NoSuchLease,
        // Its end is waited for.
        Err(LeaseError::Ending) => Heard::Nothing,
        Err(_) => Heard::Lost,
    }
}

fn heard(receiver: &mut Receiver<Applied>) -> Heard {
    match receiver.try_recv() {
        Ok(applied) => match applied.result {
            Ok(Done::Kv(_) | Done::LeaseGrant { .. } | Done::Done) => Heard::Done(applied.revision),
            Err(ApplyError::Lease(LeaseError::NotFound) | ApplyError::Mvcc(mvcc::Error::LeaseNotFound)) => {
                Heard::NoSuchLease
            }
            Ok(_) | Err(_) => Heard::Lost,
        },
        Err(TryRecvError::Empty) => Heard::Nothing,
        Err(TryRecvError::Closed) => Heard::Lost,
    }
}
