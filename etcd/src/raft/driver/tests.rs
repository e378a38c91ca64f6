//! Members in one thread: driver and log by turns, on disks in memory, over a network that loses, reorders and is cut.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use raft::eraftpb::{Entry, HardState, SnapshotMetadata};
use tokio::sync::oneshot;

use super::*;
use crate::disk::fake::FakeDisk;
use crate::lease::Lessor;
use crate::peer::fake::{Chance, FakeNetwork};
use crate::peer::transport::Network as _;
use crate::raft::log::Log;
use crate::raft::log_thread::{LogStatus, LogThread};
use crate::raft::node::Timing;
use crate::raft::older::Fetch;
use crate::storage::Storage;
use crate::storage::import::Import;
use crate::storage::record::FrameHeader;
use crate::storage::writer::Meta;
use crate::wal::Wal;
use crate::wal::format::Ids;

/// What a member has applied, in order.
type Applied = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

struct Recorder {
    applied: Applied,
    network: FakeNetwork,
    snapshots: Arc<Mutex<Vec<u64>>>,
    arrived: Option<Box<Arrived>>,
    /// In the order in which they came.
    calls: Vec<&'static str>,
}

impl Outside for Recorder {
    fn apply(&mut self, entries: Vec<Entry>) {
        let mut applied = self.applied.lock();
        applied.extend(
            entries
                .into_iter()
                .map(|entry| (entry.index, entry.data.to_vec())),
        );
    }
    fn send(&mut self, messages: Vec<Message>) {
        self.network.send(messages);
    }
    fn arrived(&mut self, arrived: Box<Arrived>) {
        self.arrived = Some(arrived);
    }
    fn install(&mut self, snapshot: &SnapshotMetadata) {
        if let Some(arrived) = self.arrived.take() {
            assert_eq!(arrived.imported.frame.index, snapshot.index);
        }
        self.snapshots.lock().push(snapshot.index);
    }
    fn decided(&mut self) {
        self.arrived = None;
    }
    fn leadership(&mut self, _: bool) {}
    fn fetch(&mut self, _: Fetch) {}
    fn stalled(&mut self, _: Duration) {
        self.calls.push("stalled");
    }
    fn space_changed(&mut self) {
        self.calls.push("space changed");
    }
}

struct Machine {
    driver: Driver<Recorder>,
    log: LogThread,
    applied: Applied,
    snapshots: Arc<Mutex<Vec<u64>>>,
}

impl Machine {
    fn open(id: u64, disk: &FakeDisk, network: &FakeNetwork) -> Machine {
        let conf_state = ConfState {
            voters: vec![1, 2, 3],
            ..ConfState::default()
        };
        Machine::of(conf_state, id, disk, network)
    }

    fn of(conf_state: ConfState, id: u64, disk: &FakeDisk, network: &FakeNetwork) -> Machine {
        let ids = Ids {
            cluster: 7,
            member: id,
        };
        let (disk, dir) = (Arc::new(disk.clone()), Path::new("/wal"));
        let (wal, replay) = match Wal::identify(&*disk, dir).unwrap() {
            Some(ids) => Wal::open(disk, dir, ids, 1 << 20).unwrap(),
            None => (Wal::create(disk, dir, ids, 1 << 20).unwrap(), Default::default()),
        };
        let hard_state: HardState = replay.hard_state;
        let log = Log::new(hard_state, conf_state.clone(), (0, 0), replay.entries);
        let timing = Timing {
            election_ticks: 10,
            pre_vote: true,
            timeout_ticks: None,
        };
        let node = Node::new(id, log, 0, &timing).unwrap();
        let (events, jobs): (Arc<Inbox<Event>>, Arc<Inbox<Job>>) = Default::default();
        let (applied, snapshots) = (Applied::default(), Arc::default());
        let outside = Recorder {
            applied: applied.clone(),
            network: network.clone(),
            snapshots: Arc::clone(&snapshots),
            arrived: None,
            calls: Vec::new(),
        };
        let tick = Duration::from_millis(100);
        let mut driver = Driver::new(
            node,
            id,
            events.clone(),
            jobs.clone(),
            Arc::default(),
            outside,
            tick,
            conf_state,
        );
        driver.start(Instant::now());
        Machine {
            driver,
            log: LogThread::new(wal, jobs, events, Arc::new(LogStatus::default())),
            applied,
            snapshots,
        }
    }

    /// All that can be done without time passing.
    fn settle(&mut self) {
        let (mut events, mut jobs) = (Vec::new(), Vec::new());
        loop {
            self.driver.events.drain(&mut events, Some(Duration::ZERO));
            self.log.jobs.drain(&mut jobs, Some(Duration::ZERO));
            if events.is_empty() && jobs.is_empty() {
                return;
            }
            self.log.turn(&mut jobs);
            self.driver.turn(&mut events);
            self.apply();
        }
    }

    /// Applying is at once and by itself.
    fn apply(&mut self) {
        let last = self.applied.lock().last().map_or(0, |(index, _)| *index);
        self.driver.status.applied.store(last, Ordering::SeqCst);
    }

    fn event(&self, event: Event) {
        self.driver.events.push(event);
    }
}

struct Cluster {
    members: BTreeMap<u64, Machine>,
    disks: BTreeMap<u64, FakeDisk>,
    network: FakeNetwork,
    chance: Chance,
}

impl Cluster {
    fn new(seed: u64, loss_percent: u32) -> Cluster {
        let network = FakeNetwork::default();
        let disks: BTreeMap<u64, FakeDisk> = (1..=3).map(|id| (id, FakeDisk::new())).collect();
        let members = disks
            .iter()
            .map(|(id, disk)| (*id, Machine::open(*id, disk, &network)))
            .collect();
        Cluster {
            members,
            disks,
            network,
            chance: Chance::new(seed, loss_percent),
        }
    }

    /// A tick for everyone, and everything that comes of it.
    fn tick(&mut self) {
        for member in self.members.values_mut() {
            member.driver.on_tick();
            member.settle();
        }
        while let Some((to, message)) = self.network.deliver(&mut self.chance) {
            if let Some(member) = self.members.get_mut(&to) {
                member.event(Event::Step(Box::new(message)));
                member.settle();
            }
        }
    }

    fn until(&mut self, what: &str, condition: impl Fn(&Cluster) -> bool) {
        for _ in 0..2000 {
            if condition(self) {
                return;
            }
            self.tick();
        }
        panic!("never: {what}");
    }

    fn leader(&self) -> Option<u64> {
        let leads = |member: &&Machine| member.driver.node.is_leader();
        let newest = self
            .members
            .values()
            .filter(leads)
            .max_by_key(|member| member.driver.node.term());
        newest.map(|member| member.driver.id)
    }

    fn has(&self, id: u64, data: &[u8]) -> bool {
        self.members[&id]
            .applied
            .lock()
            .iter()
            .any(|(_, applied)| applied == data)
    }

    fn propose(&mut self, id: u64, data: &[u8]) {
        let member = self.members.get_mut(&id).unwrap();
        member.event(Event::Propose(data.to_vec()));
        member.settle();
    }

    /// What one has applied, the others have at the same index or not yet.
    fn agree(&self) {
        let mut by_index = BTreeMap::new();
        for member in self.members.values() {
            for (index, data) in member.applied.lock().iter() {
                let first = by_index.entry(*index).or_insert_with(|| data.clone());
                assert_eq!(first, data, "two entries at {index}");
            }
        }
    }
}

#[test]
fn members_elect_one_and_agree_on_what_each_of_them_proposes() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 5);
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        for id in 1..=3u64 {
            let data = format!("from {id}").into_bytes();
            // What is lost on the way is proposed again, as a client would.
            for attempt in 0..50 {
                if (1..=3).all(|other| cluster.has(other, &data)) {
                    break;
                }
                if attempt % 5 == 0 {
                    cluster.propose(id, &data);
                }
                (0..10).for_each(|_| cluster.tick());
            }
            assert!(
                (1..=3).all(|other| cluster.has(other, &data)),
                "seed {seed}, member {id}"
            );
        }
        cluster.agree();
    }
}

#[test]
fn a_cut_leader_is_replaced_and_follows_when_it_comes_back() {
    let mut cluster = Cluster::new(1, 0);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let old = cluster.leader().unwrap();
    cluster.network.cut(old);
    cluster.propose(old, b"never committed");
    cluster.until("another leader", |cluster| {
        cluster.leader().is_some_and(|leader| leader != old)
    });
    let new = cluster.leader().unwrap();
    // Check-quorum: nobody follows it, so it does not lead.
    cluster.until("the old one steps down", |cluster| {
        !cluster.members[&old].driver.node.is_leader()
    });
    cluster.propose(new, b"kept");
    cluster.network.mend(old);
    cluster.until("the old one follows", |cluster| cluster.has(old, b"kept"));
    assert!(!cluster.has(new, b"never committed"));
    cluster.agree();
}

#[test]
fn what_was_committed_survives_a_crash_of_every_member_in_turn() {
    let mut cluster = Cluster::new(2, 0);
    for round in 0..6u64 {
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        let (leader, data) = (cluster.leader().unwrap(), round.to_be_bytes());
        cluster.propose(leader, &data);
        cluster.until("applied by all", |cluster| {
            (1..=3).all(|id| cluster.has(id, &data))
        });
        let id = round % 3 + 1;
        cluster.members.remove(&id);
        let disk = cluster.disks[&id].clone();
        disk.crash(round);
        let machine = Machine::open(id, &disk, &cluster.network);
        cluster.members.insert(id, machine);
        cluster.until("applied again", |cluster| {
            (0..=round).all(|past| cluster.has(id, &past.to_be_bytes()))
        });
        cluster.agree();
    }
}

#[test]
fn a_read_through_a_follower_waits_for_what_the_leader_has_committed() {
    let mut cluster = Cluster::new(3, 0);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, b"x");
    cluster.until("committed", |cluster| cluster.has(leader, b"x"));
    let committed = cluster.members[&leader].driver.node.committed();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let (sender, mut receiver) = oneshot::channel();
    cluster.members[&follower].event(Event::ReadIndex(sender));
    for _ in 0..20 {
        cluster.tick();
    }
    assert_eq!(receiver.try_recv(), Ok(committed));
}

#[test]
fn a_proposal_of_a_leader_is_not_made_in_the_name_of_the_next() {
    let mut cluster = Cluster::new(4, 0);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let old = cluster.leader().unwrap();
    let term = cluster.members[&old].driver.node.term();
    let target = (1..=3).find(|id| *id != old).unwrap();
    cluster.members[&old].event(Event::TransferLeader(target));
    cluster.until("the leadership has moved", |cluster| {
        cluster.leader() == Some(target)
    });
    let before = cluster.members[&target].driver.node.committed();
    cluster.members[&old].event(Event::ProposeLeading(b"revoke".to_vec(), term));
    (0..20).for_each(|_| cluster.tick());
    assert!((1..=3).all(|id| !cluster.has(id, b"revoke")));
    assert_eq!(cluster.members[&target].driver.node.committed(), before);
}

#[test]
fn a_leader_is_settled_once_an_entry_of_its_own_was_applied() {
    let mut cluster = Cluster::new(7, 0);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    (0..20).for_each(|_| cluster.tick());
    let old = cluster.leader().unwrap();
    let id = (1..=3).find(|id| *id != old).unwrap();
    let member = cluster.members.get_mut(&id).unwrap();
    let (term, next) = (member.driver.node.term(), member.driver.node.committed() + 1);
    let from_old = |kind, term, index| {
        let mut message = Message {
            from: old,
            to: id,
            term,
            index,
            ..Message::default()
        };
        message.set_msg_type(kind);
        Event::Step(Box::new(message))
    };
    let settled = |member: &Machine| member.driver.status.settled.load(Ordering::SeqCst);
    member.event(from_old(MessageType::MsgTimeoutNow, term, 0));
    member.settle();
    member.event(from_old(MessageType::MsgRequestVoteResponse, term + 1, 0));
    member.settle();
    assert!(member.driver.node.is_leader() && !settled(member));
    member.event(from_old(MessageType::MsgAppendResponse, term + 1, next));
    member.settle();
    member.driver.on_tick();
    assert!(settled(member));
}

/// The learner may have become a voter by an entry that is not applied here yet.
#[test]
fn the_only_voter_does_not_answer_reads_by_itself_while_there_is_a_learner() {
    let alone = |learners: Vec<u64>| {
        let conf_state = ConfState {
            voters: vec![1],
            learners,
            ..ConfState::default()
        };
        let mut member = Machine::of(conf_state, 1, &FakeDisk::new(), &FakeNetwork::default());
        member.settle();
        member.driver.on_tick();
        assert!(member.driver.node.is_leader());
        member.driver.status.alone.load(Ordering::SeqCst)
    };
    assert!(alone(vec![]));
    assert!(!alone(vec![2]));
}

fn snapshot(index: u64) -> Message {
    let mut snapshot = Message {
        from: 2,
        to: 1,
        term: 4,
        snapshot: Some(raft::eraftpb::Snapshot {
            metadata: Some(SnapshotMetadata {
                conf_state: Some(ConfState {
                    voters: vec![1, 2, 3],
                    ..ConfState::default()
                }),
                index,
                term: 3,
            }),
            ..Default::default()
        }),
        ..Message::default()
    };
    snapshot.set_msg_type(MessageType::MsgSnapshot);
    snapshot
}

/// The store that comes with [`snapshot`].
fn arrival(index: u64) -> Event {
    let disk: Arc<FakeDisk> = Arc::default();
    let storage = Storage::new(disk, "/store".into(), 7, 1 << 16, Vec::new());
    let frame = FrameHeader {
        index,
        term: 3,
        revision: 1,
    };
    let imported = Import::new(Arc::new(storage)).finish(Meta::new(), frame);
    let mut lessor = Lessor::new(1);
    let state = crate::meta::read_from(7, &Meta::new(), &mut lessor).unwrap();
    let arrived = Arrived {
        imported: imported.unwrap(),
        state,
        lessor,
    };
    Event::Arrived(Box::new(snapshot(index)), Box::new(arrived))
}

#[test]
fn a_store_finds_its_own_snapshot_however_many_arrive_at_once() {
    let mut cluster = Cluster::new(6, 0);
    let member = cluster.members.get_mut(&1).unwrap();
    [50, 40, 60, 60, 70]
        .into_iter()
        .for_each(|index| member.event(arrival(index)));
    member.settle();
    assert_eq!(*member.snapshots.lock(), [50, 60, 70]);
    assert!(member.driver.outside.arrived.is_none());
}

/// Its store is still being brought up to date, one entry after the other.
#[test]
fn a_change_from_before_a_snapshot_does_not_undo_what_the_snapshot_says() {
    let mut cluster = Cluster::new(5, 0);
    let member = cluster.members.get_mut(&1).unwrap();
    member.event(Event::Step(Box::new(snapshot(50))));
    let mut change = |index, kind| {
        let change = raftpb::ConfChange {
            id: 1,
            r#type: kind as i32,
            node_id: 3,
            context: None,
        };
        let (sender, receiver) = mpsc::channel();
        member.event(Event::ConfChange(index, Box::new(change), sender));
        member.settle();
        let answer: ConfState = receiver.try_recv().unwrap();
        (answer.voters, member.driver.conf_state.voters.clone())
    };
    use raftpb::ConfChangeType::{ConfChangeAddLearnerNode, ConfChangeAddNode};
    let all = vec![1, 2, 3];
    assert_eq!(change(49, ConfChangeAddLearnerNode), (vec![1, 2], all.clone()));
    assert_eq!(change(50, ConfChangeAddNode), (all.clone(), all));
    assert_eq!(change(51, ConfChangeAddLearnerNode), (vec![1, 2], vec![1, 2]));
}

#[test]
fn nothing_of_a_snapshot_is_written_before_the_store_was_replaced() {
    let mut cluster = Cluster::new(5, 0);
    let member = cluster.members.get_mut(&1).unwrap();
    member.event(Event::Step(Box::new(snapshot(50))));
    member.settle();
    assert_eq!(*member.snapshots.lock(), [50]);
    assert_eq!(member.driver.node.applied(50), 0, "raft must not count on it yet");
    // A checkpoint of the old store changes nothing.
    member.event(Event::Durable(10, 1));
    member.settle();
    assert!(
        Wal::open(
            Arc::new(cluster.disks[&1].clone()),
            Path::new("/wal"),
            Ids {
                cluster: 7,
                member: 1
            },
            1 << 20
        )
        .unwrap()
        .1
        .snapshot
        .index
            < 50
    );
    let member = cluster.members.get_mut(&1).unwrap();
    member.event(Event::Durable(50, 3));
    member.settle();
    assert_eq!(member.driver.node.applied(50), 50);
    let disk = cluster.disks[&1].clone();
    let (_, replay) = Wal::open(
        Arc::new(disk),
        Path::new("/wal"),
        Ids {
            cluster: 7,
            member: 1,
        },
        1 << 20,
    )
    .unwrap();
    assert_eq!((replay.snapshot.index, replay.hard_state.term), (50, 4));
}

#[test]
fn a_stall_is_known_before_anything_that_came_meanwhile_is_heard() {
    let mut cluster = Cluster::new(8, 0);
    let driver = &mut cluster.members.get_mut(&1).unwrap().driver;
    let now = Instant::now();
    let mut round = |since| {
        driver.pace.last_tick = now - since;
        driver.woken(now);
        driver.turn(&mut vec![Event::SpaceChanged])
    };
    assert!(round(Duration::from_millis(999)));
    assert!(round(Duration::from_secs(1)));
    assert_eq!(
        driver.outside.calls,
        ["space changed", "stalled", "space changed"]
    );
}
