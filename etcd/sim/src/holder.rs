//! A client that holds a lease: it has it granted, hangs keys on it, keeps it alive, gives it up or forgets it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etcd::apply::{Answer as Done, Applied, ApplyError};
use etcd::lease::LeaseError;
use etcd::lease::primary::{self, Primary as _};
use etcd::mvcc;
use etcd::server::ServerError;
use etcd_api::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest};
use etcd_checker::history::Answer;
use etcd_checker::{Operation, Request, Response};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use crate::server::Server;
use crate::world::World;

/// Well within the time that a lease lives: who waits for a leader that is away asks the next one.
const TIMEOUT_US: u64 = 600_000;
const POLL_US: u64 = 20_000;
/// Between two requests of those who renew in good time.
const PAUSE_US: u64 = 700_000;
const KEYS: u32 = 4;
const TTLS: [i64; 5] = [1, 2, 3, 4, 8];

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
    Renewed(Receiver<Result<i64, ServerError>>),
}

#[derive(Debug)]
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

    /// Every other one renews late, and sometimes too late.
    fn longest_pause_us(&self) -> u64 {
        match self.held {
            Some((_, ttl)) if self.number % 2 == 1 => ttl as u64 * 1_100_000,
            _ => PAUSE_US,
        }
    }

    fn draw(&mut self, random: &mut StdRng) -> What {
        self.count += 1;
        let Some((lease, _)) = self.held else {
            let id = ((self.number as i64 + 1) << 32) | self.count;
            return What::Grant(id, TTLS.choose(random).copied().unwrap_or(1));
        };
        match random.random_range(0..100) {
            0..65 => What::KeepAlive(lease),
            65..97 => What::Put {
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
        What::Revoke(id) => write.lease_revoke = Some(LeaseRevokeRequest { id: *id }),
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
        let waiting = match (write, &what) {
            (None, What::KeepAlive(id)) => {
                let with_others = self.random.random_bool(0.5);
                Waiting::Renewed(renewed(&life.server, *id, with_others))
            }
            (write, _) => Waiting::Applied(life.propose(write.unwrap_or_default()).1),
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
        let reached = member == leader
            || (self.finds(member, leader) && !self.network.is_cut(member, leader, self.now));
        reached.then_some(leader)
    }

    fn hear(&mut self, pending: &mut Pending) -> Heard {
        let member = &self.members[pending.member];
        match &mut pending.waiting {
            _ if member.life.is_none() => Heard::Lost,
            _ if member.paused_until > self.now => Heard::Nothing,
            Waiting::Applied(receiver) => heard(receiver),
            Waiting::Renewed(receiver) => match receiver.try_recv() {
                Ok(Ok(_)) => Heard::Done(0),
                Ok(Err(ServerError::Lease(LeaseError::NotFound))) => Heard::NoSuchLease,
                Err(TryRecvError::Empty) => Heard::Nothing,
                Ok(Err(_)) | Err(TryRecvError::Closed) => Heard::Lost,
            },
        }
    }

    fn holder_heard(&mut self, number: usize, pending: Pending, heard: Heard) {
        self.stamp += 1;
        let (now, returned) = (self.now, self.stamp);
        self.say(|| {
            format!(
                "holder {number}: {:x?} is {heard:?}, at {}",
                pending.what, pending.member
            )
        });
        let holder = &mut self.holders[number];
        holder.wake = now + self.random.random_range(1..holder.longest_pause_us());
        let named = match &pending.what {
            What::Grant(id, _) | What::Revoke(id) | What::KeepAlive(id) => *id,
            What::Put { lease, .. } => *lease,
        };
        match (&pending.what, &heard) {
            (_, Heard::NoSuchLease) => {
                assert!(
                    self.book.may_be_over(named, now),
                    "lease {named:x} is not there before its time: {:?}",
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

/// As a leader answers a follower that asks for a client: for many leases at once, and what that leaves out one by one.
pub fn renewed(server: &Arc<Server>, id: i64, with_others: bool) -> Receiver<Result<i64, ServerError>> {
    let (sender, receiver) = oneshot::channel();
    let member = server.clone();
    server.spawn(async move {
        let many = match with_others {
            true => primary::renew_many(&*member, vec![id]).await.unwrap_or_default(),
            false => Vec::new(),
        };
        let renewed = match many.first() {
            Some((_, ttl)) => Ok(*ttl),
            None => primary::renew(&*member, id).await,
        };
        // Who does not wait any more does not need the answer.
        sender.send(renewed).ok();
    });
    receiver
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
