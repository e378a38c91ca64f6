//! Changing who is in the cluster, and who leads it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::etcdserverpb::InternalRaftRequest;
use etcd_api::membershippb::ClusterVersionSetRequest;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{EtcdServer, ServerError};
use crate::membership::{Change, Member, MemberError, member_id};
use crate::metrics;
use crate::peer::{headers, join};
use crate::raft::driver::Event;
use crate::raft::read;

/// etcd's: a peer counts once it has been reachable for so long.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// A learner is in sync when it has so much of the leader's log, in percent.
const READY_PERCENT: u64 = 90;
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_RETRY: Duration = Duration::from_millis(50);
const VERSION_INTERVAL: Duration = Duration::from_secs(1);
/// After so many attempts a member that is not there has no say in the first version.
const VERSION_ATTEMPTS: u32 = 5;
const ADVANCE_INTERVAL: Duration = Duration::from_millis(50);
const ADVANCE_ATTEMPTS: usize = 100;

impl EtcdServer {
    /// The new member and all members.
    pub async fn add_member(
        &self,
        mut peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<(Member, Vec<Member>), ServerError> {
        crate::config::check_urls(&peer_urls).map_err(|_| MemberError::BadUrls)?;
        peer_urls.sort();
        let member = Member {
            id: member_id(&peer_urls, "", Some(crate::clock::unix_seconds())),
            peer_urls,
            is_learner,
            ..Member::default()
        };
        self.may_add(&member)?;
        let members = self.configure(Change::Add(member.clone())).await?;
        Ok((member, members))
    }

    pub async fn remove_member(&self, id: u64) -> Result<Vec<Member>, ServerError> {
        self.may_remove(id)?;
        self.configure(Change::Remove(id)).await
    }

    pub async fn update_member(
        &self,
        id: u64,
        mut peer_urls: Vec<String>,
    ) -> Result<Vec<Member>, ServerError> {
        if crate::config::check_urls(&peer_urls).is_err() {
            // As in etcd, who it is comes before where it is.
            let is_known = self.state.membership.read().members.contains_key(&id);
            return Err(if is_known {
                MemberError::BadUrls
            } else {
                MemberError::NotFound
            }
            .into());
        }
        peer_urls.sort();
        let member = Member {
            id,
            peer_urls,
            ..Member::default()
        };
        self.configure(Change::Update(member)).await
    }

    /// Wherever the leader is: only it knows how far a learner has followed.
    pub async fn promote_member(&self, id: u64) -> Result<Vec<Member>, ServerError> {
        match self.promote_here(id).await {
            Err(ServerError::NotLeader) => {}
            result => return result,
        }
        let ask = async {
            loop {
                for url in self.leader_urls().await.unwrap_or_default() {
                    match self.promote_at(&url, id).await {
                        Err(ServerError::NotLeader) => {}
                        result => return result,
                    }
                }
                tokio::time::sleep(ASK_RETRY).await;
                if self.is_leader() {
                    return self.promote_here(id).await;
                }
            }
        };
        tokio::time::timeout(self.request_timeout(), ask)
            .await
            .unwrap_or(Err(ServerError::Timeout))
    }

    async fn promote_at(&self, url: &str, id: u64) -> Result<Vec<Member>, ServerError> {
        let path = format!("/members/promote/{id}");
        let headers = HeaderMap::new();
        let client = self.transport.client();
        let call = client.call(
            url,
            Method::POST,
            &path,
            &headers,
            Bytes::new(),
            self.request_timeout(),
        );
        let Ok(answer) = call.await else {
            return Err(ServerError::NotLeader);
        };
        let said = String::from_utf8_lossy(&answer.body);
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|_| ServerError::NotLeader),
            StatusCode::NOT_FOUND => Err(MemberError::NotFound.into()),
            StatusCode::REQUEST_TIMEOUT => Err(ServerError::Timeout),
            StatusCode::PRECONDITION_FAILED if said.contains("in sync with leader") => {
                Err(MemberError::LearnerNotReady.into())
            }
            StatusCode::PRECONDITION_FAILED => Err(MemberError::NotLearner.into()),
            _ if said.contains("not enough started members") => Err(MemberError::NotEnoughStarted.into()),
            _ => Err(ServerError::NotLeader),
        }
    }

    pub async fn promote_here(&self, id: u64) -> Result<Vec<Member>, ServerError> {
        let promoted = self.promote_leading(id).await;
        match &promoted {
            Ok(_) => metrics::PROMOTED.inc(),
            Err(ServerError::NotLeader) => {}
            Err(error) => metrics::PROMOTE_FAILURES.with(&[&error.to_string()]).inc(),
        }
        promoted
    }

    async fn promote_leading(&self, id: u64) -> Result<Vec<Member>, ServerError> {
        read::wait_applied(self, APPLY_TIMEOUT).await?;
        self.is_learner_ready(id).await?;
        if self.limits.strict_reconfig && !self.state.membership.read().is_ready_to_promote() {
            warn!("requested-member-promote-id" = %format!("{id:x}"), "rejecting member promote request; not enough healthy members");
            return Err(MemberError::NotEnoughStarted.into());
        }
        self.configure(Change::Promote(id)).await
    }

    async fn is_learner_ready(&self, id: u64) -> Result<(), ServerError> {
        let (sender, receiver) = oneshot::channel();
        self.events.push(Event::Followers(sender));
        let followers = receiver.await.map_err(|_| ServerError::NotLeader)?;
        let matched = |id| {
            followers
                .iter()
                .find(|follower| follower.id == id)
                .map(|found| found.matched)
        };
        let (Some(learner), Some(leader)) = (matched(id), matched(self.member)) else {
            return Err(MemberError::NotFound.into());
        };
        if learner * 100 < leader * READY_PERCENT {
            warn!("learner-id" = %format!("{id:x}"), learner, leader, "rejecting promote learner: learner is not ready");
            return Err(MemberError::LearnerNotReady.into());
        }
        Ok(())
    }

    fn may_add(&self, member: &Member) -> Result<(), MemberError> {
        if !self.limits.strict_reconfig {
            return Ok(());
        }
        let membership = self.state.membership.read();
        if !member.is_learner && !membership.is_ready_to_add_voter() {
            warn!(member = ?member, "rejecting member add request; not enough healthy members");
            return Err(MemberError::NotEnoughStarted);
        }
        let voters = membership.voters().count();
        if self.connected(membership.voters()) < voters {
            warn!(member = ?member, "rejecting member add request; local member has not been connected to all peers, reconfigure breaks active quorum");
            return Err(MemberError::Unhealthy);
        }
        Ok(())
    }

    fn may_remove(&self, id: u64) -> Result<(), MemberError> {
        let membership = self.state.membership.read();
        if !self.limits.strict_reconfig || membership.is_learner(id) {
            return Ok(());
        }
        // One that does not exist is told so by whoever applies the change, as in etcd.
        if !membership.is_ready_to_remove(id) {
            warn!("requested-member-remove-id" = %format!("{id:x}"), "rejecting member remove request; not enough healthy members");
            return Err(MemberError::NotEnoughStarted);
        }
        // One that is down is no part of the active quorum.
        if id != self.member && self.active_for(id).is_none() {
            return Ok(());
        }
        let voters = membership.voters().count();
        let active = self.connected(membership.voters());
        if active.saturating_sub(1) < 1 + voters.saturating_sub(1) / 2 {
            warn!("requested-member-remove" = %format!("{id:x}"), "active-peers" = active, "rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum");
            return Err(MemberError::Unhealthy);
        }
        Ok(())
    }

    /// How many of them have been reachable for a while; this member always is.
    fn connected<'a>(&self, members: impl Iterator<Item = &'a Member>) -> usize {
        let is_connected = |member: &&Member| {
            member.id == self.member
                || self
                    .active_for(member.id)
                    .is_some_and(|since| since >= HEALTH_INTERVAL)
        };
        members.filter(is_connected).count()
    }

    /// Through the log, to every member; returns the members after it.
    async fn configure(&self, change: Change) -> Result<Vec<Member>, ServerError> {
        let id = self.next_id();
        let event = Event::ProposeConfChange(change.entry(id));
        let applied = self.submit(id, event).await?;
        applied.result?;
        // Raft takes the next change only once it knows that this one was applied; its waiter is told a moment before.
        read::wait_applied(self, APPLY_TIMEOUT).await.ok();
        self.events.push(Event::Applied);
        Ok(self.state.membership.read().list())
    }

    /// A cluster has the version of its oldest member; its leader decides, and raises it once the last member was upgraded. A downgrade takes
    /// it to its target. A member that cannot be asked keeps it as it is, until `patience` has run out.
    pub async fn decide_version(&self, patience: &mut u32) {
        let (current, downgrade) = {
            let membership = self.state.membership.read();
            (membership.version.clone(), membership.downgrade.clone())
        };
        let settled = match downgrade.enabled {
            true => downgrade.ver == current,
            false => current == crate::config::CLUSTER_VERSION,
        };
        if !self.is_leader() || settled {
            return;
        }
        let Some(oldest) = self.oldest_version(patience).await else {
            return;
        };
        let version = match downgrade.enabled {
            true => downgrade.ver,
            false => oldest.clone(),
        };
        let allowed = match downgrade.enabled {
            true => is_minor_before(&version, &current) && is_minor_before(&version, &oldest),
            false => headers::minor(&version) > headers::minor(&current),
        };
        if !allowed {
            return;
        }
        info!(from = current, to = version, "updating cluster version");
        let request = InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest { ver: version }),
            ..Default::default()
        };
        if let Err(error) = self.propose(request).await {
            warn!(error = %error, "failed to update cluster version");
        }
    }

    async fn oldest_version(&self, patience: &mut u32) -> Option<String> {
        let mut oldest = headers::minor(crate::config::CLUSTER_VERSION)?;
        let members = self.state.membership.read().list();
        for member in members.iter().filter(|member| member.id != self.member) {
            match join::version_of(self.transport.client(), &member.peer_urls).await {
                Some(version) => oldest = oldest.min(version),
                None if *patience == 0 => {}
                None => {
                    *patience -= 1;
                    return None;
                }
            }
        }
        Some(format!("{}.{}.0", oldest.0, oldest.1))
    }

    /// Whoever leads later does it when the first leader did not.
    pub async fn watch_version(self: Arc<Self>) {
        let mut patience = VERSION_ATTEMPTS;
        loop {
            tokio::time::sleep(VERSION_INTERVAL).await;
            self.decide_version(&mut patience).await;
        }
    }

    /// `--initial-election-tick-advance`: once the others are there, a leader among them would have been heard within two ticks.
    pub async fn advance_ticks(self: Arc<Self>, election_ticks: usize) {
        for _ in 0..ADVANCE_ATTEMPTS {
            tokio::time::sleep(ADVANCE_INTERVAL).await;
            let others: Vec<u64> = {
                let membership = self.state.membership.read();
                let others = membership.members.keys().filter(|id| **id != self.member);
                others.copied().collect()
            };
            let active = others.iter().filter(|id| self.active_for(**id).is_some()).count();
            if active > 0 && active >= others.len().min(2) {
                let ticks = election_ticks.saturating_sub(2);
                info!(
                    "forward-ticks" = ticks,
                    "active-remote-members" = active,
                    "initialized peer connections; fast-forwarding election ticks"
                );
                return self.events.push(Event::AdvanceTicks(ticks));
            }
        }
    }

    /// Hands leadership over, and waits until it has gone.
    pub async fn move_leader(&self, target: u64) -> Result<(), ServerError> {
        if !self.is_leader() {
            return Err(ServerError::NotLeader);
        }
        let is_voter = {
            let membership = self.state.membership.read();
            membership
                .members
                .get(&target)
                .is_some_and(|member| !member.is_learner)
        };
        if !is_voter {
            return Err(MemberError::BadTransferee.into());
        }
        info!("current-leader-member-id" = %format!("{:x}", self.member), "transferee-member-id" = %format!("{target:x}"), "leadership transfer starting");
        self.events.push(Event::TransferLeader(target));
        let moved = async {
            while self.leader() != target {
                tokio::time::sleep(self.limits.heartbeat / 4).await;
            }
        };
        tokio::time::timeout(self.request_timeout(), moved)
            .await
            .map_err(|_| MemberError::TransferTimeout)?;
        info!("new-leader-member-id" = %format!("{target:x}"), "leadership transfer finished");
        Ok(())
    }

    /// Before this member stops: whoever has been connected longest leads, so that nobody has to wait for an election.
    pub async fn hand_over(self: &Arc<Self>) {
        if !self.is_leader() {
            return;
        }
        let longest = {
            let membership = self.state.membership.read();
            let others = membership.voters().filter(|member| member.id != self.member);
            others
                .filter_map(|member| Some((self.active_for(member.id)?, member.id)))
                .max()
        };
        if let Some((_, target)) = longest
            && let Err(error) = self.move_leader(target).await
        {
            warn!(error = %error, "leadership transfer failed");
        }
    }
}

fn is_minor_before(version: &str, of: &str) -> bool {
    match (headers::minor(version), headers::minor(of)) {
        (Some(version), Some((major, minor))) => version == (major, minor.wrapping_sub(1)),
        _ => false,
    }
}
