//! All peers: who they are, what is sent to whom, and since when each of them is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use raft::eraftpb::Message;
use tokio::runtime::Handle;
use tracing::info;

use super::client::Client;
use super::headers::Local;
use super::remote::{Acquaintance, Peer, Shared};
use crate::membership::Member;

/// Strangers that gave us an address to answer to.
const MAX_REMOTES: usize = 64;

/// What the server needs of the way to other members. [`Transport`] is rafthttp; tests have a network in memory.
pub trait Network: Send + Sync {
    /// Never waits and may lose messages, which is reported to raft.
    fn send(&self, messages: Vec<Message>);
    /// From now on these are the members.
    fn set_members(&self, members: &[Member]);
    /// These are members too.
    fn add_members(&self, members: &[Member]);
    /// How long it has been reachable without a break; None while it is not.
    fn active_for(&self, id: u64) -> Option<Duration>;
}

pub struct Transport {
    shared: Arc<Shared>,
    runtime: Handle,
    peers: RwLock<HashMap<u64, Arc<Peer>>>,
    /// Members that this one has not heard of yet, by the address in their requests.
    remotes: RwLock<HashMap<u64, Arc<Peer>>>,
}

impl Transport {
    /// Peers live on the runtime that this is called in.
    pub fn new(shared: Shared) -> Transport {
        Transport {
            shared: Arc::new(shared),
            runtime: Handle::current(),
            peers: RwLock::default(),
            remotes: RwLock::default(),
        }
    }

    pub fn local(&self) -> &Local {
        &self.shared.local
    }

    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        let known = self.peers.read().get(&id).cloned();
        known.or_else(|| self.remotes.read().get(&id).cloned())
    }

    /// One of the members that we know.
    pub fn member(&self, id: u64) -> Option<Arc<Peer>> {
        self.peers.read().get(&id).cloned()
    }

    /// Notes where an unknown member can be answered: we may have fallen behind its joining.
    pub fn add_remote(&self, id: u64, urls: &str) {
        let known = id == self.shared.local.member
            || self.peers.read().contains_key(&id)
            || self.remotes.read().contains_key(&id);
        if known || urls.is_empty() {
            return;
        }
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        let mut remotes = self.remotes.write();
        if remotes.len() < MAX_REMOTES && !remotes.contains_key(&id) {
            info!("local-member-id" = %format!("{:x}", self.shared.local.member), "remote-peer-id" = %format!("{id:x}"), "remote-peer-urls" = ?urls, "added new remote peer");
            let _entered = self.runtime.enter();
            remotes.insert(id, Peer::start(&self.shared, id, urls, Acquaintance::Remote));
        }
    }

    /// Ends every stream, so that the listeners can end.
    pub fn stop(&self) {
        let peers: Vec<_> = self.peers.write().drain().collect();
        let remotes: Vec<_> = self.remotes.write().drain().collect();
        peers.into_iter().chain(remotes).for_each(|(_, peer)| peer.stop());
    }
}

impl Network for Transport {
    /// What finds no stream.
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            // The last a removed member hears is that it was removed: it finds out by itself.
            if let Some(peer) = self.peer(message.to) {
                peer.send(message);
            }
        }
    }

    fn set_members(&self, members: &[Member]) {
        self.peers.write().retain(|id, peer| {
            let stays = members.iter().any(|member| member.id == *id);
            if !stays {
                peer.stop();
            }
            stays
        });
        self.add_members(members);
    }

    fn add_members(&self, members: &[Member]) {
        let _entered = self.runtime.enter();
        let mut peers = self.peers.write();
        for member in members
            .iter()
            .filter(|member| member.id != self.shared.local.member)
        {
            match peers.get(&member.id) {
                Some(peer) => peer.update(&member.peer_urls),
                None => {
                    let urls = member.peer_urls.clone();
                    let peer = Peer::start(&self.shared, member.id, urls, Acquaintance::Member);
                    peers.insert(member.id, peer);
                }
            }
        }
        self.remotes.write().retain(|id, peer| {
            let stays = !peers.contains_key(id);
            if !stays {
                peer.stop();
            }
            stays
        });
    }

    fn active_for(&self, id: u64) -> Option<Duration> {
        let peer = self.member(id)?;
        peer.active_since().map(|since| Instant::now() - since)
    }
}
