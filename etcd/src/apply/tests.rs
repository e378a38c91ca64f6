//! A member without threads on a disk that loses power: propose, persist, apply, checkpoint, compact, reclaim, crash, read back.

mod auth;
mod checkpoint;
mod damaged;
mod install;
mod watched;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, request_op::Request,
};
use etcd_api::raftpb;
use raft::eraftpb::ConfState;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::clock::FakeClock;
use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::meta;
use crate::mvcc::txn::{ReadTxn, View as _};
use crate::raft::log::Log;
use crate::raft::node::{Node, Timing};
use crate::storage::keeper::Keeper;
use crate::storage::load;
use crate::storage::record::Loc;
use crate::wal::Wal;
use crate::wal::format::{Group, Ids};

const IDS: Ids = Ids {
    cluster: 5,
    member: 1,
};
const WAL_SEGMENT: u64 = 16 * 1024;
const STORE_SEGMENT: u64 = 32 * 1024;

/// Tells of frames that were written, and of nothing else.
struct Quiet(Box<dyn FnMut() + Send>);

impl Default for Quiet {
    fn default() -> Self {
        Quiet(Box::new(|| ()))
    }
}

impl Effects for Quiet {
    fn conf_change(&mut self, _: u64, _: raftpb::ConfChange) -> Option<ConfState> {
        None
    }
    fn members_changed(&mut self) {}
    fn removed(&mut self) {}
    fn compacted(&mut self, _: i64) {}
    fn checkpoint(&mut self) {}
    fn frame_written(&mut self, _: u64, _: u64) {
        (self.0)();
    }
    fn store_full(&mut self, _: bool) {}
    fn leases_changed(&mut self) {}
    fn fatal(&mut self, source: &io::Error) -> ! {
        std::panic::panic_any(source.to_string())
    }
}

struct Machine {
    node: Node,
    wal: Wal,
    applier: Applier,
    keeper: Keeper,
    next_id: u64,
}

#[derive(Debug)]
struct PowerLost;

impl From<io::Error> for PowerLost {
    fn from(_: io::Error) -> Self {
        PowerLost
    }
}

impl Machine {
    fn open(disk: &FakeDisk) -> Machine {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (wal_dir, store_dir) = (Path::new("/wal"), Path::new("/store"));
        let (wal, replay) = match Wal::identify(&*shared, wal_dir).unwrap() {
            Some(ids) => Wal::open(shared.clone(), wal_dir, ids, WAL_SEGMENT).unwrap(),
            None => (
                Wal::create(shared.clone(), wal_dir, IDS, WAL_SEGMENT).unwrap(),
                Default::default(),
            ),
        };
        let loaded = load::load(shared, store_dir, IDS.cluster, STORE_SEGMENT).unwrap();
        let mut lessor = Lessor::new(1);
        let read = meta::read(&loaded, &mut lessor).unwrap();
        let load::Loaded {
            storage,
            versions,
            meta,
            frame,
            durable,
            active,
        } = loaded;
        let store = Arc::new(Store::open(
            storage.clone(),
            versions,
            frame.revision,
            read.compacted,
        ));
        let mut hard_state = replay.hard_state;
        hard_state.commit = hard_state.commit.max(frame.index);
        let conf_state = ConfState {
            voters: vec![1],
            ..ConfState::default()
        };
        let log = Log::new(
            hard_state,
            conf_state,
            (replay.snapshot.index, replay.snapshot.term),
            replay.entries,
        );
        let node = Node::new(
            1,
            log,
            frame.index,
            &Timing {
                election_ticks: 10,
                pre_vote: true,
                timeout_ticks: None,
            },
        )
        .unwrap();
        let writer = Writer::new(storage.clone(), active, meta, frame).unwrap();
        let keeper = Keeper::new(storage, 1, writer.written(), store.clone(), durable);
        let state = State::new(store, lessor, read, &crate::auth::Options::default()).unwrap();
        let applier = Applier::new(
            Arc::new(state),
            writer,
            Arc::new(Hub::default()),
            Arc::new(FakeClock::default()),
            Box::<Quiet>::default(),
            1,
            frame,
        );
        Machine {
            node,
            wal,
            applier,
            keeper,
            next_id: 1,
        }
    }

    fn store(&self) -> &Arc<Store> {
        &self.applier.state.store
    }

    fn work(&mut self) -> Result<(), PowerLost> {
        while let Some(work) = self.node.work() {
            if !work.committed.is_empty() {
                let last = work.committed.last().unwrap().index;
                catch_unwind(AssertUnwindSafe(|| self.applier.apply(work.committed)))
                    .map_err(|_| PowerLost)?;
                self.node.applied(last);
            }
            if let Some(persist) = work.persist {
                let mut group = Group::default();
                persist.entries.iter().for_each(|entry| group.entry(entry));
                persist
                    .hard_state
                    .iter()
                    .for_each(|state| group.hard_state(state));
                self.wal.append(&mut group)?;
                self.node.persisted(persist.number);
            }
        }
        Ok(())
    }

    fn elect(&mut self) -> Result<(), PowerLost> {
        self.work()?;
        self.node.campaign_if_alone().unwrap();
        self.work()
    }

    fn propose(&mut self, mut request: InternalRaftRequest) -> Result<Applied, PowerLost> {
        self.next_id += 1;
        request.header = Some(etcd_api::etcdserverpb::RequestHeader {
            id: self.next_id,
            ..Default::default()
        });
        let mut answer = self.applier.state.waits.register(self.next_id);
        self.node.propose([request.encode_to_vec()]).unwrap();
        self.work()?;
        answer.try_recv().map_err(|_| PowerLost)
    }

    /// What the keeper's thread does.
    fn keep(&mut self) -> Result<(), PowerLost> {
        let frame = self.keeper.checkpoint()?;
        let mut group = Group::default();
        group.snapshot(&etcd_api::walpb::Snapshot {
            index: frame.index,
            term: frame.term,
            conf_state: None,
        });
        self.wal.append(&mut group)?;
        self.wal.release(frame.index, 0)?;
        self.keeper.reclaim()?;
        Ok(())
    }

    fn read(&self, key: &str, revision: i64) -> Result<Option<Bytes>, mvcc::Error> {
        let store = self.store();
        let view = ReadTxn::new(store);
        let request = RangeRequest {
            key: key.to_owned().into(),
            revision,
            ..Default::default()
        };
        let Response::Range { kvs, .. } = view.range(&request)? else {
            panic!("a range")
        };
        Ok(kvs.first().map(|kv| mvcc::range::value_of(kv.clone()).unwrap()))
    }
}

/// What must be there: every acknowledged write by its revision.
#[derive(Default)]
struct Model {
    history: BTreeMap<i64, (String, Option<Bytes>)>,
    compacted: i64,
}

impl Model {
    fn expected(&self, key: &str, revision: i64) -> Option<Bytes> {
        self.history
            .range(..=revision)
            .rev()
            .find(|(_, (changed, _))| changed == key)
            .and_then(|(_, (_, value))| value.clone())
    }

    fn verify(&self, machine: &Machine, what: &str) {
        let newest = self.history.keys().next_back().copied().unwrap_or(1);
        assert!(
            machine.store().current() >= newest,
            "{what}: the revision went back from {newest} to {}",
            machine.store().current()
        );
        assert!(
            machine.store().compacted() >= self.compacted,
            "{what}: an acknowledged compaction was forgotten"
        );
        for revision in self.compacted.max(2)..=newest {
            for key in KEYS {
                match machine.read(key, revision) {
                    Ok(value) => {
                        assert_eq!(value, self.expected(key, revision), "{what}: {key} at {revision}")
                    }
                    Err(mvcc::Error::Compacted) => assert!(machine.store().compacted() > revision),
                    Err(error) => panic!("{what}: {key} at {revision}: {error}"),
                }
            }
        }
    }
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// One random change. `in_flight` is what may have happened when the power goes during it.
fn change(
    machine: &mut Machine,
    model: &mut Model,
    random: &mut StdRng,
    in_flight: &mut Option<(String, Option<Bytes>)>,
) -> Result<(), PowerLost> {
    let key = KEYS[random.random_range(0..KEYS.len())].to_owned();
    match random.random_range(0..10) {
        0..6 => {
            let value = Bytes::from(vec![random.random_range(1..=255u8); random.random_range(1..3000)]);
            *in_flight = Some((key.clone(), Some(value.clone())));
            let put = PutRequest {
                key: key.clone().into(),
                value: value.clone(),
                ..Default::default()
            };
            let applied = machine.propose(InternalRaftRequest {
                put: Some(put),
                ..Default::default()
            })?;
            model.history.insert(applied.revision, (key, Some(value)));
        }
        6..8 => {
            *in_flight = Some((key.clone(), None));
            let before = machine.store().current();
            let delete = DeleteRangeRequest {
                key: key.clone().into(),
                ..Default::default()
            };
            let applied = machine.propose(InternalRaftRequest {
                delete_range: Some(delete),
                ..Default::default()
            })?;
            if applied.revision > before {
                model.history.insert(applied.revision, (key, None));
            }
        }
        8 => {
            let revision = random.random_range(1..=machine.store().current());
            *in_flight = None;
            let compaction = CompactionRequest {
                revision,
                physical: false,
            };
            let applied = machine.propose(InternalRaftRequest {
                compaction: Some(compaction),
                ..Default::default()
            })?;
            if applied.result.is_ok() {
                model.compacted = revision;
                machine.store().compact_index(revision);
            }
        }
        _ => {
            *in_flight = None;
            machine.keep()?;
        }
    }
    *in_flight = None;
    Ok(())
}

/// The change that the power interrupted either happened or did not.
fn settle(machine: &Machine, model: &mut Model, in_flight: Option<(String, Option<Bytes>)>) {
    let newest = model.history.keys().next_back().copied().unwrap_or(1);
    let current = machine.store().current();
    if let Some((key, value)) = in_flight
        && current > newest
    {
        assert_eq!(current, newest + 1, "one change was in flight");
        assert_eq!(machine.read(&key, current).unwrap(), value);
        model.history.insert(current, (key, value));
    }
    assert_eq!(
        model.history.keys().next_back().copied().unwrap_or(1).max(1),
        current.max(1),
        "a revision that nobody asked for"
    );
}

fn live(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = FakeDisk::new();
    let mut model = Model::default();
    drop(Machine::open(&disk));
    for life in 0..6 {
        let what = format!("seed {seed} life {life}");
        let mut machine = Machine::open(&disk);
        let mut in_flight = None;
        if machine.elect().is_err() {
            disk.crash(random.random());
            continue;
        }
        model.compacted = machine.store().compacted();
        model.verify(&machine, &what);
        disk.burn_after(random.random_range(0..160));
        while change(&mut machine, &mut model, &mut random, &mut in_flight).is_ok() {}
        drop(machine);
        disk.crash(random.random());
        let mut machine = Machine::open(&disk);
        machine.elect().unwrap();
        model.compacted = machine.store().compacted();
        settle(&machine, &mut model, in_flight);
        model.verify(&machine, &what);
    }
}

#[test]
fn whatever_is_acknowledged_survives_power_loss_at_any_step() {
    let silent = std::panic::take_hook();
    // The harness turns the end of a disk into a panic on purpose.
    std::panic::set_hook(Box::new(move |info| {
        if info
            .payload()
            .downcast_ref::<String>()
            .is_none_or(|text| !text.contains("lost power"))
        {
            silent(info);
        }
    }));
    let seeds = std::env::var("ETCD_CRASH_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    (0..seeds).for_each(live);
}

#[test]
fn compaction_alone_gives_space_back() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    for round in 0..600 {
        let put = PutRequest {
            key: format!("k{}", round % 7).into(),
            value: vec![1; 1000].into(),
            ..Default::default()
        };
        machine
            .propose(InternalRaftRequest {
                put: Some(put),
                ..Default::default()
            })
            .unwrap();
    }
    machine.keep().unwrap();
    let before = machine.store().storage.total_bytes();
    let revision = machine.store().current();
    let compaction = CompactionRequest {
        revision,
        physical: false,
    };
    machine
        .propose(InternalRaftRequest {
            compaction: Some(compaction),
            ..Default::default()
        })
        .unwrap();
    machine.store().compact_index(revision);
    machine.keep().unwrap();
    let after = machine.store().storage.total_bytes();
    assert!(before > 500_000 && after < 100_000, "{before} -> {after}");
    assert!(machine.store().storage.live_bytes() < 10_000);
    let machine = Machine::open(&disk);
    assert_eq!((machine.store().keys(), machine.store().current()), (7, revision));
}

/// A dead put in an old segment must not rise again when the tombstone that hid it was reclaimed first.
#[test]
fn a_deleted_key_stays_deleted_after_its_tombstone_was_reclaimed() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    let put = |machine: &mut Machine, key: String| {
        let put = PutRequest {
            key: key.into(),
            value: vec![1; 900].into(),
            ..Default::default()
        };
        machine
            .propose(InternalRaftRequest {
                put: Some(put),
                ..Default::default()
            })
            .unwrap();
    };
    put(&mut machine, "victim".into());
    (0..60).for_each(|number| put(&mut machine, format!("static{number}")));
    let delete = DeleteRangeRequest {
        key: "victim".into(),
        ..Default::default()
    };
    machine
        .propose(InternalRaftRequest {
            delete_range: Some(delete),
            ..Default::default()
        })
        .unwrap();
    (0..300).for_each(|_| put(&mut machine, "busy".into()));
    let revision = machine.store().current();
    let compaction = CompactionRequest {
        revision,
        physical: false,
    };
    machine
        .propose(InternalRaftRequest {
            compaction: Some(compaction),
            ..Default::default()
        })
        .unwrap();
    machine.store().compact_index(revision);
    machine.keep().unwrap();
    let machine = Machine::open(&disk);
    assert_eq!(machine.read("victim", 0).unwrap(), None);
    assert_eq!(machine.store().keys(), 61);
}

#[test]
fn a_transaction_happens_whole_or_not_at_all() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    let put = |key: &'static str, lease| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.into(),
            value: "v".into(),
            lease,
            ..Default::default()
        })),
    };
    let refused = TxnRequest {
        success: vec![put("x", 0), put("y", 77)],
        ..Default::default()
    };
    let applied = machine
        .propose(InternalRaftRequest {
            txn: Some(refused),
            ..Default::default()
        })
        .unwrap();
    assert!(matches!(
        applied.result,
        Err(ApplyError::Mvcc(mvcc::Error::LeaseNotFound))
    ));
    assert_eq!((applied.revision, machine.read("x", 0).unwrap()), (1, None));
    let done = TxnRequest {
        success: vec![put("x", 0), put("y", 0)],
        ..Default::default()
    };
    let applied = machine
        .propose(InternalRaftRequest {
            txn: Some(done),
            ..Default::default()
        })
        .unwrap();
    assert_eq!(applied.revision, 2, "one revision for both");
    assert_eq!(machine.store().hash_kv(0).unwrap().revision, 2);
}

#[test]
fn leases_and_their_keys_survive_a_restart_and_go_together() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    let grant = LeaseGrantRequest { id: 7, ttl: 60 };
    machine
        .propose(InternalRaftRequest {
            lease_grant: Some(grant),
            ..Default::default()
        })
        .unwrap();
    let put = PutRequest {
        key: "k".into(),
        value: "v".into(),
        lease: 7,
        ..Default::default()
    };
    machine
        .propose(InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        })
        .unwrap();
    machine.keep().unwrap();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    assert_eq!(machine.applier.state.lessor.lock().ids(), [7]);
    crate::mvcc::txn::Leases::attach(&mut *machine.applier.state.lessor.lock(), 7, &"k".into());
    let revoke = LeaseRevokeRequest { id: 7 };
    machine
        .propose(InternalRaftRequest {
            lease_revoke: Some(revoke),
            ..Default::default()
        })
        .unwrap();
    assert_eq!(machine.read("k", 0).unwrap(), None);
    let machine = Machine::open(&disk);
    assert!(machine.applier.state.lessor.lock().is_empty());
}

/// Sets of the v2 API until the power goes, and how many were acknowledged. Every value is the index of its change.
fn set_v2_until_power_loss(machine: &mut Machine) -> u64 {
    let mut acknowledged = machine.applier.state.v2.read().index();
    loop {
        let next = acknowledged + 1;
        let request = etcd_api::etcdserverpb::Request {
            method: "PUT".to_owned(),
            path: format!("/1/dir{}/key{}", next % 3, next % 5),
            val: format!("{next:01000}"),
            ..Default::default()
        };
        let applied = machine.propose(InternalRaftRequest {
            v2: Some(request),
            ..Default::default()
        });
        match applied.map(|applied| applied.result) {
            Ok(Ok(Answer::V2(Ok(Some(event))))) => assert_eq!(event.index, next),
            Ok(other) => panic!("{other:?}"),
            Err(PowerLost) => return acknowledged,
        }
        acknowledged = next;
        if next.is_multiple_of(7) && machine.keep().is_err() {
            return acknowledged;
        }
    }
}

#[test]
fn keys_of_the_v2_api_survive_power_loss_at_any_step() {
    for steps in 0..150 {
        let disk = FakeDisk::new();
        let mut machine = Machine::open(&disk);
        machine.elect().unwrap();
        disk.burn_after(steps);
        let acknowledged = set_v2_until_power_loss(&mut machine);
        drop(machine);
        disk.crash(steps);
        let mut machine = Machine::open(&disk);
        machine.elect().unwrap();
        let v2 = machine.applier.state.v2.read();
        let index = v2.index();
        assert!(
            index == acknowledged || index == acknowledged + 1,
            "{steps}: {index} after {acknowledged}"
        );
        for change in index.saturating_sub(14)..=index {
            if change == 0 {
                continue;
            }
            let key = format!("/dir{}/key{}", change % 3, change % 5);
            let event = v2.get(&key, false, 0).unwrap();
            let event: serde_json::Value = serde_json::from_slice(&event.line()).unwrap();
            let node = &event["node"];
            assert_eq!(node["modifiedIndex"], change, "{steps}: {key}");
            assert_eq!(node["value"], format!("{change:01000}"), "{steps}: {key}");
        }
    }
}
