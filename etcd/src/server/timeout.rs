//! How long a request may wait, and what is said of one that waited in vain.

use std::time::{Duration, Instant};

use super::{EtcdServer, ServerError};

/// etcd's share for queues, computation and disks; two elections come on top.
const QUEUES_AND_DISKS: Duration = Duration::from_secs(5);

pub fn request_timeout(election: Duration) -> Duration {
    QUEUES_AND_DISKS + 2 * election
}

impl EtcdServer {
    pub fn request_timeout(&self) -> Duration {
        request_timeout(self.limits.election)
    }

    /// Why a proposal was not applied in time, told as etcd tells it.
    pub(super) fn why_late(&self) -> ServerError {
        let waited = self.request_timeout();
        let connected = match self.leader() {
            0 => true,
            leader if leader == self.member => self.has_quorum_for(waited),
            leader => self.is_connected_for(leader, waited),
        };
        let elected = self.elected.lock().map(|elected| elected.elapsed());
        why_late(waited, self.limits.election, elected, connected)
    }

    /// Raft has told who leads now, or that nobody does.
    pub fn leader_changed(&self) {
        if self.leader() != 0 {
            *self.elected.lock() = Some(Instant::now());
        }
    }

    fn has_quorum_for(&self, time: Duration) -> bool {
        let membership = self.state.membership.read();
        let connected = membership
            .members
            .keys()
            .filter(|id| **id == self.member || self.is_connected_for(**id, time));
        connected.count() > membership.members.len() / 2
    }

    fn is_connected_for(&self, id: u64, time: Duration) -> bool {
        self.active_for(id).is_some_and(|active| active > time)
    }
}

/// With how long ago the leader of now was elected, and whether it, or for a leader its quorum, was within reach all the time.
fn why_late(waited: Duration, election: Duration, elected: Option<Duration>, connected: bool) -> ServerError {
    // Proposed before this leader was elected, and not long before the one in front of it can have been lost.
    if elected.is_some_and(|elected| elected < waited && waited < elected + 2 * election) {
        ServerError::LeaderFailed
    } else if connected {
        ServerError::Timeout
    } else {
        ServerError::ConnectionLost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(elected: Option<u64>, connected: bool) -> String {
        let election = Duration::from_millis(1000);
        let waited = request_timeout(election);
        why_late(waited, election, elected.map(Duration::from_millis), connected).to_string()
    }

    #[test]
    fn a_late_request_is_told_what_stood_in_its_way() {
        let plain = "etcdserver: request timed out";
        let leader = "etcdserver: request timed out, possibly due to previous leader failure";
        let connection = "etcdserver: request timed out, possibly due to connection lost";
        assert_eq!(said(None, true), plain);
        assert_eq!(said(Some(5_500), true), leader);
        assert_eq!(said(Some(5_500), false), leader);
        // The leader was there before the request, or came long after it.
        assert_eq!(said(Some(7_500), true), plain);
        assert_eq!(said(Some(4_500), true), plain);
        assert_eq!(said(Some(7_500), false), connection);
    }
}
