//! Virtual time, and what happens in it, one thing after the other.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;

use etcd::membership::Membership;
use etcd::raft::driver::Event;
use etcd::wal::format::Ids;
use etcd::watch::hub::HubEvent;
use etcd_api::etcdserverpb::{CompactionRequest, InternalRaftRequest};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::client::Client;
use crate::holder::Holder;
use crate::leases::Book;
use crate::machine::Member;
use crate::member::{ELECTION_TICKS, Life, PARTS, Part, TICK_US};
use crate::network::Network;
use crate::outside::Ended;
use crate::plan::{Broken, Plan};
use crate::watcher::Watcher;

/// How far compaction goes back behind the collector at most.
const HISTORY: i64 = 30;

/// A tick is never so early by the member's clock, which is rounded down, that it does not count.
const LATE_TICK_US: u64 = 10;

pub struct World {
    pub plan: Plan,
    pub random: StdRng,
    pub now: u64,
    /// Counts everything that happens: the clients' common clock.
    pub stamp: u64,
    pub members: Vec<Member>,
    pub network: Network,
    pub clients: Vec<Client>,
    pub holders: Vec<Holder>,
    pub book: Book,
    pub watchers: Vec<Watcher>,
    pub collector: Watcher,
    pub next_fault: u64,
    pub next_compaction: u64,
    pub next_change: u64,
    pub healing: bool,
    /// Nobody asks for anything any more.
    pub settling: bool,
    pub trace: DefaultHasher,
    /// Revisions at which a compaction was asked for.
    pub compactions: BTreeSet<i64>,
    pub snapshots: u64,
    pub crashes: u64,
    /// Changes of peer URLs that came to their end.
    pub moved: u64,
    configured: Membership,
    pub leaders: BTreeMap<u64, u64>,
    verbose: bool,
    pub scratch: tempfile::TempDir,
}

#[derive(Clone, Copy, Debug, Hash)]
enum Action {
    Part(usize, usize),
    Tick(usize),
    Look(usize),
    Space(usize),
    Restart(usize),
    Arrive,
    Client(usize),
    Holder(usize),
    Watcher(usize),
    Collect,
    Compact,
    Change,
    Fault,
}

impl World {
    pub fn new(plan: Plan, verbose: bool) -> World {
        let mut random = StdRng::seed_from_u64(plan.seed ^ 0x5eed);
        let (configured, order) = cluster(plan.members);
        let member = |id: &u64| {
            let skew = skew(&plan, &mut random);
            let url = &configured.members[id].peer_urls[0];
            Member::new(
                Ids {
                    cluster: configured.cluster_id,
                    member: *id,
                },
                url,
                TICK_US * skew / 100,
            )
        };
        let members: Vec<Member> = order.iter().map(member).collect();
        if plan.broken == Some(Broken::Sync) {
            members.iter().for_each(|member| member.disk.lie());
        }
        let client = |number: usize| {
            let mut client = Client::new(number, number % plan.members);
            client.asks = plan.broken != Some(Broken::ReadIndex);
            client
        };
        World {
            clients: (0..plan.clients).map(client).collect(),
            holders: (0..plan.holders).map(Holder::new).collect(),
            book: Book::default(),
            watchers: (0..plan.watchers).map(|_| Watcher::new(false)).collect(),
            collector: Watcher::new(true),
            next_fault: plan.fault_interval_us,
            next_compaction: plan.compaction_interval_us,
            next_change: plan.change_interval_us,
            members,
            plan,
            random,
            now: 0,
            stamp: 0,
            network: Network::default(),
            healing: false,
            settling: false,
            trace: DefaultHasher::new(),
            compactions: BTreeSet::new(),
            snapshots: 0,
            crashes: 0,
            moved: 0,
            configured,
            leaders: BTreeMap::new(),
            verbose,
            scratch: tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary directory: {error}")),
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>10} us {:>6}: {}", self.now, self.stamp, what());
        }
    }

    /// Does what comes next.
    pub fn step(&mut self) {
        let Some((at, action)) = self.next() else {
            return;
        };
        self.now = self.now.max(at);
        self.stamp += 1;
        (self.now, action).hash(&mut self.trace);
        if let Action::Part(who, _) | Action::Tick(who) | Action::Look(who) = action {
            self.members[who].wind(self.now);
        }
        match action {
            Action::Part(who, part) => self.turn(who, PARTS[part]),
            Action::Tick(who) => self.tick(who),
            Action::Look(who) => self.look(who),
            Action::Space(who) => self.make_room(who),
            Action::Restart(who) => self.restart(who),
            Action::Arrive => self.arrive(),
            Action::Client(number) => self.client(number),
            Action::Holder(number) => self.holder(number),
            Action::Watcher(number) => self.watcher(number),
            Action::Collect => self.collect(),
            Action::Compact => self.compact(),
            Action::Change => self.change_members(),
            Action::Fault => self.fault(),
        }
    }

    fn next(&self) -> Option<(u64, Action)> {
        let mut first: Option<(u64, Action)> = None;
        let mut offer = |at: u64, action: Action| {
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, action));
            }
        };
        for (who, member) in self.members.iter().enumerate() {
            if member.gone {
                continue;
            }
            if let Some(at) = member.full_until {
                offer(at, Action::Space(who));
            }
            if member.life.is_none() {
                offer(member.restart_at, Action::Restart(who));
                continue;
            }
            for (part, at) in member.turns.iter().enumerate() {
                if let Some(at) = at {
                    offer((*at).max(member.paused_until), Action::Part(who, part));
                }
            }
            offer(member.next_look.max(member.paused_until), Action::Look(who));
            offer(member.next_tick.max(member.paused_until), Action::Tick(who));
        }
        if let Some(at) = self.network.next() {
            offer(at, Action::Arrive);
        }
        for (number, client) in self.clients.iter().enumerate() {
            offer(client.wake, Action::Client(number));
        }
        for (number, holder) in self.holders.iter().enumerate() {
            offer(holder.wake, Action::Holder(number));
        }
        for (number, watcher) in self.watchers.iter().enumerate() {
            offer(watcher.wake, Action::Watcher(number));
        }
        offer(self.collector.wake, Action::Collect);
        offer(self.next_compaction, Action::Compact);
        if !self.healing {
            offer(self.next_fault, Action::Fault);
            offer(self.next_change, Action::Change);
        }
        first
    }

    /// Runs something of a member that may end its process.
    pub fn guarded<T>(&mut self, who: usize, run: impl FnOnce(&mut World) -> T) -> Option<T> {
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(self)));
        match result {
            Ok(value) if !self.members[who].disk.is_burnt() => Some(value),
            Ok(_) => {
                self.burnt(who);
                None
            }
            Err(payload) => {
                self.ended(who, payload);
                None
            }
        }
    }

    fn ended(&mut self, who: usize, payload: Box<dyn Any + Send>) {
        match payload.downcast::<Ended>() {
            Ok(ended) if !self.members[who].disk.is_burnt() => {
                panic!("member {who} ended without a fault: {}", ended.0)
            }
            Ok(_) => self.burnt(who),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    fn burnt(&mut self, who: usize) {
        self.crashes += 1;
        let how = self.members[who].ends;
        self.down(who, how);
    }

    fn restart(&mut self, who: usize) {
        // A full disk would refuse the start and nothing else.
        self.members[who].make_room();
        let timeout = ELECTION_TICKS + self.random.random_range(0..ELECTION_TICKS);
        let next_id = ((who as u64) << 48) | (self.stamp << 16);
        if !self.healing && !self.plan.faults.is_empty() && self.random.random_bool(0.1) {
            let operations = self.random.random_range(1..30);
            self.members[who].disk.burn_after(operations);
        }
        let started = self.guarded(who, |world| {
            let member = &world.members[who];
            Life::start(
                &member.disk,
                member.ids,
                member.joins,
                &world.configured,
                &world.plan,
                timeout,
                next_id,
            )
        });
        match started {
            Some(Ok(life)) => {
                self.say(|| format!("member {who} started"));
                let member = &mut self.members[who];
                // What the process before has heard of may have gone with it.
                life.told.members_changed.store(true, Ordering::SeqCst);
                member.begin(life, self.now);
                member.next_tick = self.now + self.random.random_range(1..=member.tick_us);
                self.after(who);
            }
            Some(Err(error)) => panic!("member {who} does not start: {error:?}"),
            // It went down again.
            None if self.members[who].restart_at <= self.now => {
                self.members[who].restart_at = self.now + TICK_US;
            }
            None => {}
        }
    }

    pub fn turn(&mut self, who: usize, part: Part) {
        self.members[who].turns[part as usize] = None;
        self.guarded(who, |world| {
            if let Some(life) = &mut world.members[who].life {
                life.turn(part);
            }
        });
        self.after(who);
    }

    fn tick(&mut self, who: usize) {
        let now = self.now;
        let member = &mut self.members[who];
        member.next_tick = now + member.tick_us + LATE_TICK_US;
        // Raft draws its timeout for each term; here it is one for a life, and elections are hastened at random instead.
        let hasten = self
            .random
            .random_bool(0.1)
            .then(|| self.random.random_range(1..ELECTION_TICKS));
        self.guarded(who, |world| {
            if let Some(life) = &mut world.members[who].life {
                life.turn(Part::Driver);
                if let (Some(ticks), 0) = (hasten, life.status.leader.load(Ordering::SeqCst)) {
                    life.events.push(Event::AdvanceTicks(ticks));
                }
                life.hub.send(HubEvent::Tick);
            }
        });
        self.after(who);
    }

    pub fn plan_turns(&mut self, who: usize) {
        let member = &mut self.members[who];
        let Some(life) = &member.life else { return };
        for part in PARTS {
            if member.turns[part as usize].is_none() && life.is_due(part) {
                let slow = member.slow_until > self.now;
                let delay = delay(part, slow, &mut self.random);
                member.turns[part as usize] = Some(self.now + delay);
            }
        }
    }

    pub fn poll_clients(&mut self, who: usize) {
        let member = &mut self.members[who];
        let Some(life) = &member.life else { return };
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.member == who && client.is_waiting())
        {
            self.stamp += 1;
            if client.poll(life, self.stamp) {
                client.wake = self.now + self.random.random_range(1..=self.plan.think_us * 2);
            }
        }
    }

    fn client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let who = client.member;
        let usable = self.members[who].life.is_some();
        if client.is_overdue(self.now) || !usable {
            client.give_up(self.members[who].life.as_ref());
            self.clients[number].member = self.any_member();
            let client = &mut self.clients[number];
            client.wake = self.now + self.random.random_range(1..=self.plan.think_us * 2);
            return;
        }
        let begun = match &mut self.members[who].life {
            Some(life) if !life.is_learner() => {
                client.ask(life, &self.plan, self.stamp, self.now, &mut self.random)
            }
            _ => false,
        };
        if !begun {
            self.clients[number].member = self.any_member();
            self.clients[number].wake = self.now + self.random.random_range(1..=self.plan.think_us * 2);
            return;
        }
        self.plan_turns(who);
        if self.members[who].paused_until <= self.now {
            self.poll_clients(who);
        }
    }

    fn watcher(&mut self, number: usize) {
        let (random, watcher) = (&mut self.random, &mut self.watchers[number]);
        let interval = if random.random_bool(0.05) || self.settling {
            400_000
        } else {
            10_000
        };
        watcher.wake = self.now + random.random_range(1..interval);
        let who = match &self.watchers[number].connection {
            Some(connection) => connection.member,
            None => self.any_member(),
        };
        let (random, watcher) = (&mut self.random, &mut self.watchers[number]);
        let Some(life) = &self.members[who].life else {
            return;
        };
        match watcher.connection {
            None => {
                watcher.open(who, life, self.plan.outbox_bytes, random);
                let said = format!(
                    "watcher {number} opens at {who}: {:?}, current {}",
                    watcher.watched(),
                    life.state.store.current()
                );
                self.say(|| said);
            }
            Some(_) => {
                watcher.poll(Some(life), false, random);
                match random.random_range(0..60) {
                    0..2 => watcher.close(Some(life)),
                    2..6 => watcher.ask_progress(life),
                    _ => {}
                }
            }
        }
        self.plan_turns(who);
    }

    fn collect(&mut self) {
        let interval = if self.settling { 100_000 } else { 10_000 };
        self.collector.wake = self.now + self.random.random_range(1..interval);
        let who = match &self.collector.connection {
            Some(connection) => connection.member,
            None => self.any_member(),
        };
        let Some(life) = &self.members[who].life else {
            return;
        };
        match self.collector.connection {
            None => self
                .collector
                .open(who, life, self.plan.outbox_bytes, &mut self.random),
            Some(_) => {
                self.collector.poll(Some(life), true, &mut self.random);
                if self.random.random_ratio(1, 100) {
                    self.collector.close(Some(life));
                }
            }
        }
        self.plan_turns(who);
    }

    fn compact(&mut self) {
        self.next_compaction = self.now + self.random.random_range(1..=self.plan.compaction_interval_us * 2);
        let who = self.any_member();
        let revision = self.collector.collected() - self.random.random_range(0..HISTORY);
        let Some(life) = &self.members[who].life else {
            return;
        };
        if revision > 1 {
            self.compactions.insert(revision);
            let request = InternalRaftRequest {
                compaction: Some(CompactionRequest {
                    revision,
                    physical: false,
                }),
                ..InternalRaftRequest::default()
            };
            life.events.push(Event::Propose(request.encode_to_vec()));
            self.plan_turns(who);
        }
    }

    /// Somebody has made room on a disk that was full.
    fn make_room(&mut self, who: usize) {
        self.members[who].make_room();
        self.guarded(who, |world| {
            if let Some(life) = &mut world.members[who].life {
                life.made_room();
            }
        });
        self.after(who);
    }

    pub fn draw_skew(&mut self) -> u64 {
        skew(&self.plan, &mut self.random)
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }
}

/// How long a member's tick takes, in percent of what it believes.
fn skew(plan: &Plan, random: &mut StdRng) -> u64 {
    random.random_range(100 - plan.skew / 2..=100 + plan.skew)
}

/// How long a part lets its work wait: mostly little, sometimes much.
fn delay(part: Part, slow: bool, random: &mut StdRng) -> u64 {
    let (usual, rare) = match part {
        Part::Driver => (50, 2_000),
        Part::Wal => (500, 200_000),
        Part::Apply => (200, 100_000),
        Part::Keeper => (20_000, 500_000),
        Part::Hub => (300, 100_000),
        Part::History => (2_000, 200_000),
        Part::Spare => (2_000, 2_000_000),
        Part::Past => (1_000, 200_000),
        Part::Tasks => (100, 50_000),
    };
    let most = if random.random_ratio(1, 100) { rare } else { usual };
    let factor = if slow && matches!(part, Part::Wal | Part::Keeper | Part::Spare | Part::Past) {
        50
    } else {
        1
    };
    random.random_range(0..most) * factor
}

fn cluster(members: usize) -> (Membership, Vec<u64>) {
    let names: Vec<String> = (0..members)
        .map(|name| format!("m{name}=http://m{name}:1"))
        .collect();
    let configured = Membership::initial(&names.join(","), "sim")
        .unwrap_or_else(|error| panic!("a cluster that cannot be: {error}"));
    let order = configured.members.keys().copied().collect();
    (configured, order)
}
