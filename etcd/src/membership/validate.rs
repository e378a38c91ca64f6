//! Which changes of the members are refused: by every member alike when they are applied, and before they are proposed.

use super::{Change, Member, Membership};

/// Texts are those that clients see; [`MemberError::internal`] has those that members tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("etcdserver: member not found")]
    NotFound,
    #[error("etcdserver: member not found")]
    Removed,
    #[error("etcdserver: member ID already exist")]
    Exists,
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: given member URLs are invalid")]
    BadUrls,
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TransferTimeout,
}

impl MemberError {
    pub fn internal(self) -> String {
        match self {
            MemberError::NotFound => "membership: ID not found".to_owned(),
            MemberError::NotLearner => "membership: can only promote a learner member".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Membership {
    /// What every member asks alike when the change is applied; a change that fails changes nothing.
    pub fn validate(&self, change: &Change, max_learners: usize) -> Result<(), MemberError> {
        let known = |id: &u64| match (self.is_removed(*id), self.members.get(id)) {
            (true, _) => Err(MemberError::Removed),
            (false, None) => Err(MemberError::NotFound),
            (false, Some(member)) => Ok(member),
        };
        match change {
            Change::Remove(id) => {
                let member = known(id)?;
                // Raft knows no cluster without voters.
                match !member.is_learner && self.voters().count() == 1 {
                    true => Err(MemberError::NotEnoughStarted),
                    false => Ok(()),
                }
            }
            Change::Promote(id) => match known(id)?.is_learner {
                true => Ok(()),
                false => Err(MemberError::NotLearner),
            },
            Change::Update(member) => {
                known(&member.id)?;
                self.check_urls(member)
            }
            Change::Add(member) => {
                if self.is_removed(member.id) {
                    return Err(MemberError::Removed);
                }
                if self.members.contains_key(&member.id) {
                    return Err(MemberError::Exists);
                }
                self.check_urls(member)?;
                let learners = self.members.values().filter(|member| member.is_learner).count();
                match member.is_learner && learners >= max_learners {
                    true => Err(MemberError::TooManyLearners),
                    false => Ok(()),
                }
            }
        }
    }

    fn check_urls(&self, member: &Member) -> Result<(), MemberError> {
        let taken = |url: &String| {
            self.members
                .values()
                .any(|other| other.id != member.id && other.peer_urls.contains(url))
        };
        match member.peer_urls.iter().any(taken) {
            true => Err(MemberError::PeerUrlExists),
            false => Ok(()),
        }
    }

    /// `--strict-reconfig-check`: a member that is added but does not start must not cost the quorum.
    pub fn is_ready_to_add_voter(&self) -> bool {
        let (members, started) = self.count(None);
        // A cluster of one that was restored from a snapshot has no other way to grow.
        (started == 1 && members == 1) || started > members.div_ceil(2)
    }

    pub fn is_ready_to_promote(&self) -> bool {
        let (members, started) = self.count(None);
        started + 1 > members.div_ceil(2)
    }

    pub fn is_ready_to_remove(&self, id: u64) -> bool {
        let (members, started) = self.count(Some(id));
        started > members / 2
    }

    /// Voters, and those of them that have told their name.
    fn count(&self, without: Option<u64>) -> (usize, usize) {
        let voters = self.voters().filter(|member| Some(member.id) != without);
        voters.fold((0, 0), |(members, started), member| {
            (members + 1, started + usize::from(!member.name.is_empty()))
        })
    }
}
