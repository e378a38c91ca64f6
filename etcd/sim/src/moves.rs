//! Members that are to be found elsewhere from now on.

use std::sync::Arc;

use etcd::apply::Applied;
use etcd::membership::{Change, Member as Told};
use tokio::sync::oneshot::Receiver;

use crate::machine::Moving;
use crate::server::Server;
use crate::world::World;

impl World {
    /// None while it is on its way: nobody knows what became of the request before, and it may still take the member back.
    pub fn moving(&self, id: u64) -> Option<Change> {
        let member = &self.members[self.place_of(id)?];
        let to = Told {
            id,
            peer_urls: vec![format!("http://m{}:1", self.stamp)],
            ..Told::default()
        };
        member.moving.is_none().then_some(Change::Update(to))
    }

    /// It listens where it is to be found before anybody is told.
    pub fn moves(&mut self, to: &Told, asked: Arc<Server>, answer: Receiver<Applied>) {
        let place = self.place_of(to.id);
        if let (Some(place), Some(url)) = (place, to.peer_urls.first().cloned()) {
            self.members[place].moving = Some(Moving { url, asked, answer });
        }
    }

    pub fn hear_of_moves(&mut self) {
        for place in 0..self.members.len() {
            if self.members[place].moving.is_some() {
                self.judge_move(place);
                self.finish_move(place);
            }
        }
    }

    /// Whoever has answered that a member is elsewhere now knows where.
    fn judge_move(&mut self, place: usize) {
        let member = &mut self.members[place];
        let Some(moving) = &mut member.moving else { return };
        let answer = moving.answer.try_recv();
        if answer.is_ok_and(|applied| applied.result.is_ok()) {
            let known = moving.asked.state.membership.read();
            let there = |member: &Told| member.peer_urls == [moving.url.clone()];
            assert!(
                known.members.get(&member.ids.member).is_none_or(there),
                "it was said that {place} is at {}",
                moving.url
            );
        }
    }

    /// It stops to listen where it was once most of the voters know, and do not forget it with the power: its operator looks.
    fn finish_move(&mut self, place: usize) {
        let member = &self.members[place];
        let Some(moving) = &member.moving else { return };
        let knows = |voter: &usize| {
            let life = self.members[*voter].life.as_ref();
            life.is_some_and(|life| life.knows_place(member.ids.member, &moving.url))
        };
        if !self.most_voters(knows) {
            return;
        }
        self.moved += 1;
        let member = &mut self.members[place];
        if let Some(moving) = member.moving.take() {
            member.url = moving.url;
        }
        self.say(|| format!("member {place} listens at {} only", self.members[place].url));
    }

    /// A stream between two is dialed by whoever knows where the other one is, and messages are posted there.
    pub fn find_each_other(&self, one: usize, other: usize) -> bool {
        self.finds(one, other) || self.finds(other, one)
    }

    pub fn finds(&self, one: usize, other: usize) -> bool {
        let other = &self.members[other];
        self.members[one].life.as_ref().is_some_and(|life| {
            let known = life.state.membership.read();
            // Where one was that was removed, nobody knows: its operator tells it.
            let id = other.ids.member;
            let urls = known.members.get(&id).map(|member| &member.peer_urls);
            known.is_removed(id) || urls.is_some_and(|urls| urls.iter().any(|url| other.listens_at(url)))
        })
    }
}
