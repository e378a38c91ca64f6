//! A client of one member at a time, and what it writes down for the checker.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use etcd::apply::{Answer as Done, Applied};
use etcd::lease::primary::Primary as _;
use etcd::mvcc::txn::ReadTxn;
use etcd::raft::read;
use etcd::server::ServerError;
use etcd_api::etcdserverpb::request_op::Request as Op;
use etcd_api::etcdserverpb::response_op::Response as OpResponse;
use etcd_api::etcdserverpb::{
    DeleteRangeResponse, InternalRaftRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use etcd_checker::history::{Answer, Change};
use etcd_checker::requests::{delete, guarded, guarded_response, put, range};
use etcd_checker::{Operation, Request, Response};
use prost::Message as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use crate::member::Life;
use crate::plan::Plan;
use crate::server::Server;

const TIMEOUT_US: u64 = 3_000_000;

pub struct Client {
    number: usize,
    pub member: usize,
    count: u64,
    known: BTreeMap<Bytes, i64>,
    pending: Option<Pending>,
    /// When it does something by itself next: begins, or gives up.
    pub wake: u64,
    pub operations: Vec<Operation>,
    /// What it read without asking the leader, mostly of the past.
    pub reads: Vec<Operation>,
    pub answered: u64,
    /// Whether it reads as the server does.
    pub asks: bool,
}

struct Pending {
    request: Request,
    called: u64,
    deadline: u64,
    waiting: Waiting,
}

enum Waiting {
    Write(u64, Receiver<Applied>),
    Read(Receiver<Result<(), ServerError>>),
}

impl Client {
    pub fn new(number: usize, member: usize) -> Client {
        Client {
            number,
            member,
            count: 0,
            known: BTreeMap::new(),
            pending: None,
            wake: 0,
            operations: Vec::new(),
            reads: Vec::new(),
            answered: 0,
            asks: true,
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// As Kubernetes mixes them: mostly guarded updates, few blind ones.
    pub fn draw(&mut self, plan: &Plan, random: &mut StdRng) -> Request {
        let key = Bytes::from(format!("k/{}", random.random_range(0..plan.keys)));
        self.count += 1;
        let value = Bytes::from(format!("{}-{}", self.number, self.count));
        let expected = self.known.get(&key).copied().unwrap_or(0);
        let guarded = |change| Request::Guarded {
            key: key.clone(),
            expected,
            change,
        };
        match random.random_range(0..100) {
            0..20 => Request::Get { key },
            20..30 => Request::List,
            30..40 => Request::Put { key, value },
            40..47 => Request::Delete { key },
            47..57 if expected > 0 => guarded(Change::Delete),
            _ => guarded(Change::Put(value)),
        }
    }

    /// Asks the member that it talks to. False when that refuses at once.
    pub fn ask(&mut self, life: &mut Life, plan: &Plan, stamp: u64, now: u64, random: &mut StdRng) -> bool {
        if random.random_bool(0.2) {
            self.read_past(life, plan, random);
        }
        let request = self.draw(plan, random);
        if life.is_full() && request.change().is_some() {
            return false;
        }
        self.begin(request, life, stamp, now);
        true
    }

    /// A serializable read, at a revision that may not be there.
    fn read_past(&mut self, life: &Life, plan: &Plan, random: &mut StdRng) {
        let store = &life.state.store;
        let (compacted, current) = (store.compacted(), store.current());
        let revision = random.random_range(compacted - 1..=current + 1);
        let request = match random.random_bool(0.5) {
            true => Request::List,
            false => Request::Get {
                key: Bytes::from(format!("k/{}", random.random_range(0..plan.keys))),
            },
        };
        match read_at(&request, life, revision) {
            Step::Answered(of, response) => {
                let of = if revision > 0 { revision } else { of };
                assert!(
                    (compacted..=current).contains(&of),
                    "a read at {of} of a store from {compacted} to {current}"
                );
                self.reads.push(Operation {
                    called: 0,
                    request,
                    answer: Some(Answer {
                        returned: 0,
                        revision: of,
                        response,
                    }),
                });
            }
            Step::Wait => {}
            Step::Failed => assert!(
                !(compacted..=current).contains(&revision) || life.is_burnt(),
                "no read at {revision} of a store from {compacted} to {current}"
            ),
        }
    }

    pub fn begin(&mut self, request: Request, life: &mut Life, stamp: u64, now: u64) {
        let waiting = match write_of(&request) {
            Some(write) => {
                let (id, receiver) = life.propose(write);
                Waiting::Write(id, receiver)
            }
            None => Waiting::Read(readable(&life.server, self.asks)),
        };
        self.pending = Some(Pending {
            request,
            called: stamp,
            deadline: now + TIMEOUT_US,
            waiting,
        });
        self.wake = now + TIMEOUT_US;
    }

    /// Looks whether the answer is there. True when it was.
    pub fn poll(&mut self, life: &Life, stamp: u64) -> bool {
        let Some(mut pending) = self.pending.take() else {
            return false;
        };
        match poll(&mut pending, life) {
            Step::Wait => {
                self.wake = pending.deadline;
                self.pending = Some(pending);
                false
            }
            Step::Answered(revision, response) => {
                let answer = Answer {
                    returned: stamp,
                    revision,
                    response,
                };
                self.learn(&pending.request, &answer);
                self.answered += 1;
                self.finish(pending, Some(answer));
                true
            }
            Step::Failed => {
                self.finish(pending, None);
                true
            }
        }
    }

    /// What it waits for may still happen.
    pub fn give_up(&mut self, life: Option<&Life>) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        if let (Some(life), Waiting::Write(id, _)) = (life, &pending.waiting) {
            life.state.waits.forget(*id);
        }
        self.finish(pending, None);
    }

    pub fn is_overdue(&self, now: u64) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.deadline <= now)
    }

    pub fn lost(&mut self, member: usize, now: u64) {
        if self.member == member {
            self.give_up(None);
            self.wake = self.wake.min(now);
        }
    }

    /// What is published on a member now.
    pub fn read_now(&mut self, request: Request, life: &Life) -> Option<Operation> {
        match read(&request, life) {
            Step::Answered(revision, response) => Some(Operation {
                called: 0,
                request,
                answer: Some(Answer {
                    returned: 0,
                    revision,
                    response,
                }),
            }),
            Step::Wait | Step::Failed => None,
        }
    }

    fn finish(&mut self, pending: Pending, answer: Option<Answer>) {
        self.operations.push(Operation {
            called: pending.called,
            request: pending.request,
            answer,
        });
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        if let Some(key) = request.key().cloned() {
            self.known.insert(key, answer.changed_at(request));
        }
    }
}

enum Step {
    Wait,
    Answered(i64, Response),
    Failed,
}

fn poll(pending: &mut Pending, life: &Life) -> Step {
    match &mut pending.waiting {
        Waiting::Write(_, receiver) => match receiver.try_recv() {
            Ok(applied) => answer(&pending.request, life, applied),
            Err(TryRecvError::Empty) => Step::Wait,
            Err(TryRecvError::Closed) => Step::Failed,
        },
        Waiting::Read(receiver) => match receiver.try_recv() {
            Ok(Ok(())) => read(&pending.request, life),
            Err(TryRecvError::Empty) => Step::Wait,
            Ok(Err(_)) | Err(TryRecvError::Closed) => Step::Failed,
        },
    }
}

/// Answered once what is published may be read: as the server asks, or at once.
fn readable(server: &Arc<Server>, asks: bool) -> Receiver<Result<(), ServerError>> {
    let (sender, receiver) = oneshot::channel();
    let member = server.clone();
    server.spawn(async move {
        let may = match asks {
            true => read::linearizable(&*member).await,
            false => Ok(()),
        };
        // Who does not wait any more does not need the answer.
        sender.send(may).ok();
    });
    receiver
}

fn answer(request: &Request, life: &Life, applied: Applied) -> Step {
    let Ok(Done::Kv(response)) = applied.result else {
        return Step::Failed;
    };
    let header = life.header(applied.revision);
    let mut bytes = BytesMut::new();
    response.encode(&header, &mut bytes);
    let heard = match request {
        Request::Put { .. } => Some(Response::Put),
        Request::Delete { .. } => DeleteRangeResponse::decode(bytes)
            .ok()
            .map(|response| Response::Deleted(response.deleted)),
        Request::Guarded { .. } => TxnResponse::decode(bytes).ok().map(guarded_response),
        Request::Get { .. } | Request::List => None,
    };
    heard.map_or(Step::Failed, |heard| Step::Answered(applied.revision, heard))
}

/// As the server reads once it may.
fn read(request: &Request, life: &Life) -> Step {
    read_at(request, life, 0)
}

fn read_at(request: &Request, life: &Life, revision: i64) -> Step {
    let range = match request {
        Request::Get { key } => RangeRequest {
            revision,
            ..range(key)
        },
        // All keys, those with leases too.
        _ => RangeRequest {
            key: Bytes::from_static(b"k/"),
            range_end: Bytes::from_static(b"m"),
            revision,
            ..RangeRequest::default()
        },
    };
    let store = &life.state.store;
    let read = ReadTxn::new(store);
    let txn = TxnRequest {
        success: vec![op(Op::RequestRange(range))],
        ..TxnRequest::default()
    };
    let mut bytes = BytesMut::new();
    match read.txn(&txn) {
        Ok(response) => response.encode(&life.header(read.revision), &mut bytes),
        // The revision is not there; or the disk failed, and the member is about to find out.
        Err(_) => return Step::Failed,
    }
    let kvs = TxnResponse::decode(bytes)
        .ok()
        .and_then(|response| response.responses.into_iter().next()?.response)
        .map(|response| match response {
            OpResponse::ResponseRange(range) => range.kvs,
            _ => Vec::new(),
        });
    match (request, kvs) {
        (_, None) => Step::Failed,
        (Request::List, Some(kvs)) => Step::Answered(read.revision, Response::Listed(kvs)),
        (_, Some(kvs)) => Step::Answered(read.revision, Response::Found(kvs.into_iter().next())),
    }
}

fn write_of(request: &Request) -> Option<InternalRaftRequest> {
    let mut write = InternalRaftRequest::default();
    match request {
        Request::Get { .. } | Request::List => return None,
        Request::Put { key, value } => write.put = Some(put(key, value)),
        Request::Delete { key } => write.delete_range = Some(delete(key)),
        Request::Guarded {
            key,
            expected,
            change,
        } => write.txn = Some(guarded(key, *expected, change)),
    }
    Some(write)
}

fn op(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}
