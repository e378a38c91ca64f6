//! What members send each other, and what becomes of it where it arrives.

use std::sync::atomic::Ordering;

use etcd::peer::{snapshot, wire};
use etcd::raft::driver::Event;
use raft::eraftpb::{self, Message, MessageType};
use rand::Rng as _;

use crate::member::MIN_LEASE_TTL;
use crate::network::Envelope;
use crate::world::World;

impl World {
    pub fn send(&mut self, who: usize, message: Message) {
        let Some(to) = self
            .members
            .iter()
            .position(|member| member.ids.member == message.to)
        else {
            return;
        };
        let is_store = message.msg_type == MessageType::MsgSnapshot as i32;
        if !self.find_each_other(who, to) {
            return self.not_reached(who, to, is_store);
        }
        let (message, database) = match is_store {
            true => match self.export(who, message) {
                Some((message, database)) => (message, Some(database)),
                None => return self.report_snapshot(who, to, false),
            },
            false => (message, None),
        };
        let sent = self
            .network
            .send(who, to, message, database, self.now, &self.plan, &mut self.random);
        if !sent && is_store {
            self.report_snapshot(who, to, false);
        }
    }

    fn export(&mut self, who: usize, mut message: Message) -> Option<(Message, Vec<u8>)> {
        let life = self.members[who].life.as_ref()?;
        let (export, metadata) = snapshot::export(&life.state.store, || Some(life.applier.view())).ok()?;
        let mut database = Vec::new();
        export.write(&mut database).ok()?;
        message.snapshot = Some(eraftpb::Snapshot {
            metadata: Some(metadata),
            ..eraftpb::Snapshot::default()
        });
        Some((message, database))
    }

    fn report_snapshot(&mut self, from: usize, to: usize, arrived: bool) {
        let to = self.members[to].ids.member;
        self.tell(from, Event::Snapshot(to, arrived));
    }

    pub fn tell(&mut self, who: usize, event: Event) {
        if let Some(life) = &self.members[who].life {
            life.events.push(event);
            self.plan_turns(who);
        }
    }

    pub fn arrive(&mut self) {
        let Some(envelope) = self.network.arrive() else {
            return;
        };
        let (from, to) = (envelope.from, envelope.to);
        let unreachable = self.network.is_cut(from, to, self.now) || self.members[to].life.is_none();
        if unreachable {
            return self.not_reached(from, to, envelope.database.is_some());
        }
        if self.members[to].paused_until > self.now {
            let at = self.members[to].paused_until + self.random.random_range(0..1000);
            return self.network.put(at, envelope);
        }
        if self.is_refused(&envelope) {
            self.members[from].leaving = true;
            return;
        }
        let message = wire::decode(&envelope.bytes[..])
            .unwrap_or_else(|error| panic!("a message that cannot be decoded: {error}"));
        assert!(
            wire::is_sound(&message),
            "a message that is not sound: {message:?}"
        );
        match &envelope.database {
            Some(database) => self.take_store(&envelope, message, database),
            None => self.tell(to, Event::Step(Box::new(message))),
        }
    }

    fn not_reached(&mut self, from: usize, to: usize, with_store: bool) {
        if with_store {
            self.report_snapshot(from, to, false);
        }
        if self.random.random_bool(0.3) {
            let id = self.members[to].ids.member;
            self.tell(from, Event::Unreachable(id));
        }
    }

    /// Whoever was removed is told so by those that know, and stops.
    fn is_refused(&self, envelope: &Envelope) -> bool {
        let sender = self.members[envelope.from].ids.member;
        let life = self.members[envelope.to].life.as_ref();
        life.is_some_and(|life| life.state.membership.read().is_removed(sender))
    }

    fn take_store(&mut self, envelope: &Envelope, message: Message, database: &[u8]) {
        let (from, to) = (envelope.from, envelope.to);
        let path = self.scratch.path().join("arrived.db");
        std::fs::write(&path, database).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let metadata = message
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.metadata.clone())
            .unwrap_or_default();
        let taken = self.guarded(to, |world| {
            let life = world.members[to].life.as_ref()?;
            let arrived = snapshot::import(&life.state.store, MIN_LEASE_TTL, &path, &metadata);
            match arrived {
                Ok(arrived) => {
                    life.events
                        .push(Event::Arrived(Box::new(message), Box::new(arrived)));
                    Some(())
                }
                Err(_) if world.members[to].disk.is_burnt() || world.members[to].full_until.is_some() => None,
                Err(error) => panic!("a snapshot that cannot be taken in: {error}"),
            }
        });
        let arrived = taken.flatten().is_some();
        self.snapshots += u64::from(arrived);
        self.say(|| format!("snapshot {} from {from} to {to}: {arrived}", metadata.index));
        if self.members[to].life.is_some() {
            self.plan_turns(to);
        }
        self.report_snapshot(from, to, arrived);
    }

    /// Whatever a member's step has set off.
    pub fn after(&mut self, who: usize) {
        let Some(life) = &self.members[who].life else {
            return;
        };
        let messages = life.take_messages();
        if life.is_leader() {
            let (term, id) = (
                life.status.term.load(Ordering::SeqCst),
                self.members[who].ids.member,
            );
            let leader = *self.leaders.entry(term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {term}");
        }
        for message in messages {
            self.send(who, message);
        }
        self.judge_ended(who);
        self.hear_of_members(who);
        self.plan_turns(who);
        self.poll_clients(who);
        self.plan_turns(who);
    }
}
