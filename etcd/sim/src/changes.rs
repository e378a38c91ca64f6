//! Members that come and go.

use std::sync::atomic::Ordering;

use etcd::lease::primary::Primary as _;
use etcd::membership::{Change, Member as Joining, member_id};
use etcd::raft::driver::Event;
use etcd::wal::format::Ids;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;

use crate::faults::Down;
use crate::machine::Member;
use crate::member::TICK_US;
use crate::world::World;

/// Machines of one run, those that were removed among them.
const MOST: usize = 9;
/// Voters beyond those that the cluster began with.
const MORE: usize = 2;
/// etcd's: a learner that has so much of the leader's log may be promoted, in percent.
const READY: u64 = 90;
const NEVER: u64 = u64::MAX;

impl World {
    /// Proposes one change, if one is possible now; whether it happens is the cluster's affair.
    pub fn change_members(&mut self) {
        self.next_change = self.now + self.random.random_range(1..=self.plan.change_interval_us * 2);
        let Some(leader) = self.leader() else { return };
        let Some(change) = self.draw_change(leader) else {
            return;
        };
        self.say(|| format!("proposes {change:?}"));
        let who = self.any_member();
        self.propose_change(who, &change);
    }

    pub fn propose_change(&mut self, who: usize, change: &Change) {
        let Some(life) = &self.members[who].life else {
            return;
        };
        let server = life.server.clone();
        let id = server.next_id();
        let answer = server.state.waits.register(id);
        life.events.push(Event::ProposeConfChange(change.entry(id)));
        if let Change::Update(to) = change {
            self.moves(to, server, answer);
        }
        self.plan_turns(who);
    }

    pub fn place_of(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.ids.member == id)
    }

    fn draw_change(&mut self, leader: usize) -> Option<Change> {
        let life = self.members[leader].life.as_ref()?;
        let membership = life.state.membership.read().clone();
        let voters = membership.voters().count();
        let learner = membership.members.values().find(|member| member.is_learner);
        match (self.random.random_range(0..12), learner) {
            (0..6, Some(learner)) if life.followed(learner.id).is_some_and(|percent| percent >= READY) => {
                Some(Change::Promote(learner.id))
            }
            (0..6, None) if self.members.len() < MOST => Some(self.joining(true)),
            (6, _) if self.members.len() < MOST && voters < self.plan.members + MORE => {
                Some(self.joining(false))
            }
            (7..10, _) if voters > 1 => {
                let id = membership.members.keys().choose(&mut self.random)?;
                Some(Change::Remove(*id))
            }
            (10.., _) => {
                let id = membership.members.keys().choose(&mut self.random)?;
                self.moving(*id)
            }
            _ => None,
        }
    }

    /// A machine for it is there at once; it starts when some member has applied that it may.
    pub fn joining(&mut self, is_learner: bool) -> Change {
        let peer_urls = vec![format!("http://m{}:1", self.members.len())];
        let id = member_id(&peer_urls, "", Some(self.now));
        let skew = self.draw_skew();
        let ids = Ids {
            cluster: self.members[0].ids.cluster,
            member: id,
        };
        let mut member = Member::new(ids, &peer_urls[0], TICK_US * skew / 100);
        (member.joins, member.restart_at) = (true, NEVER);
        self.members.push(member);
        Change::Add(Joining {
            id,
            peer_urls,
            is_learner,
            ..Joining::default()
        })
    }

    /// Starts those that were added, and stops this one if it was removed.
    pub fn hear_of_members(&mut self, who: usize) {
        self.hear_of_moves();
        let Some(life) = &mut self.members[who].life else {
            return;
        };
        let has_nothing = life.has_nothing();
        if life.told.removed.load(Ordering::SeqCst) {
            self.members[who].leaving = true;
        }
        // One that was removed before anybody spoke to it hears of nothing: its operator stops it.
        let leaves = self.members[who].leaving || has_nothing;
        if leaves && self.may_leave(who) {
            return self.leave(who);
        }
        let Some(life) = &mut self.members[who].life else {
            return;
        };
        if !life.told.members_changed.swap(false, Ordering::SeqCst) {
            return;
        }
        life.members_at = life.status.applied.load(Ordering::SeqCst);
        let known = life.state.membership.read().members.clone();
        for place in 0..self.members.len() {
            let waits = self.members[place].restart_at == NEVER && self.members[place].life.is_none();
            if waits && known.contains_key(&self.members[place].ids.member) {
                self.members[place].restart_at = self.until(TICK_US * 10);
            }
        }
    }

    /// Whoever leaves before most of the others know that it does takes a vote with it that they may need: a server waits a second, and here its
    /// operator looks.
    fn may_leave(&self, who: usize) -> bool {
        let id = self.members[who].ids.member;
        let knows = |place: &usize| {
            let life = self.members[*place].life.as_ref();
            life.is_some_and(|life| life.knows_removed(id))
        };
        self.most_voters(knows)
    }

    pub fn most_voters(&self, which: impl Fn(&usize) -> bool) -> bool {
        let voters = self.known(|member| !member.is_learner);
        let having = voters.iter().filter(|place| which(place)).count();
        having * 2 > voters.len()
    }

    fn leave(&mut self, who: usize) {
        if !std::mem::replace(&mut self.members[who].gone, true) {
            self.say(|| format!("member {who} was removed"));
            self.down(who, Down::Kill);
        }
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |place: &usize| {
            self.members[*place]
                .life
                .as_ref()
                .is_some_and(|life| life.is_leader())
        };
        let term = |place: &usize| {
            let life = self.members[*place].life.as_ref();
            life.map(|life| life.status.term.load(Ordering::SeqCst))
        };
        (0..self.members.len()).filter(leads).max_by_key(term)
    }

    /// Whom a client might turn to.
    pub fn any_member(&mut self) -> usize {
        (0..self.members.len())
            .filter(|place| !self.members[*place].gone && self.members[*place].restart_at != NEVER)
            .choose(&mut self.random)
            .unwrap_or(0)
    }

    /// Who belongs to the cluster.
    pub fn belonging(&self) -> Vec<usize> {
        self.known(|_| true)
    }

    /// As whoever has applied most knows them.
    fn known(&self, wanted: impl Fn(&Joining) -> bool) -> Vec<usize> {
        let lives = self.members.iter().filter_map(|member| member.life.as_ref());
        let newest = lives.max_by_key(|life| life.status.applied.load(Ordering::SeqCst));
        let Some(newest) = newest else { return Vec::new() };
        let known = newest.state.membership.read();
        let belongs = |place: &usize| {
            let member = known.members.get(&self.members[*place].ids.member);
            member.is_some_and(&wanted)
        };
        (0..self.members.len()).filter(belongs).collect()
    }
}
