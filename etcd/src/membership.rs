//! Who is in the cluster: members, their ids computed as etcd computes them, one store only.

mod v2_store;

pub use v2_store::V2Change;

use std::collections::{BTreeMap, BTreeSet};

use etcd_api::etcdserverpb::Member as MemberMessage;
use etcd_api::{membershippb, raftpb};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::config::CLUSTER_VERSION;
use crate::peer::headers;

/// JSON as etcd writes it into the context of a configuration change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    #[serde(rename = "id")]
    pub id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "nullable")]
    pub peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    #[serde(rename = "name", default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(
        rename = "clientURLs",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub client_urls: Vec<String>,
}

/// Go writes a list without elements as null.
fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub cluster_id: u64,
    pub members: BTreeMap<u64, Member>,
    /// Ids are never used again: whoever bears one of these must not come back.
    pub removed: BTreeSet<u64>,
    /// "3.6.0" once it was agreed on.
    pub version: String,
    /// Which version the cluster is being prepared for, if any.
    pub downgrade: membershippb::DowngradeInfoSetRequest,
}

/// The layout that the data correspond to: they go to an older one with the cluster's version, and come back with it.
pub fn storage_version(cluster_version: &str) -> String {
    let older = headers::minor(cluster_version)
        .is_some_and(|version| Some(version) < headers::minor(CLUSTER_VERSION));
    let version = if older { cluster_version } else { CLUSTER_VERSION };
    version.to_owned()
}

/// The context of a configuration change: a member, and whether it only becomes a voter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeContext {
    #[serde(flatten)]
    pub member: Member,
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

/// What a configuration change does, read from its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Add(Member),
    Promote(u64),
    Remove(u64),
    Update(Member),
}

impl Change {
    /// None when the entry's context does not fit its kind.
    pub fn read(change: &raftpb::ConfChange) -> Option<Change> {
        use raftpb::ConfChangeType as Kind;
        let context = change.context.as_deref().unwrap_or_default();
        let parsed = || {
            let context: ChangeContext = serde_json::from_slice(context).ok()?;
            (context.member.id == change.node_id).then_some(context)
        };
        match Kind::try_from(change.r#type).ok()? {
            Kind::ConfChangeRemoveNode => Some(Change::Remove(change.node_id)),
            Kind::ConfChangeUpdateNode => Some(Change::Update(parsed()?.member)),
            Kind::ConfChangeAddNode | Kind::ConfChangeAddLearnerNode => {
                let context = parsed()?;
                Some(match context.is_promote {
                    true => Change::Promote(change.node_id),
                    false => Change::Add(context.member),
                })
            }
        }
    }

    /// As etcd puts it into an entry.
    pub fn entry(&self, id: u64) -> raftpb::ConfChange {
        use raftpb::ConfChangeType as Kind;
        let (kind, node_id, context) = match self {
            Change::Add(member) => {
                let kind = match member.is_learner {
                    true => Kind::ConfChangeAddLearnerNode,
                    false => Kind::ConfChangeAddNode,
                };
                (kind, member.id, serde_json::to_vec(member))
            }
            Change::Promote(id) => {
                let context = ChangeContext {
                    member: Member {
                        id: *id,
                        ..Member::default()
                    },
                    is_promote: true,
                };
                (Kind::ConfChangeAddNode, *id, serde_json::to_vec(&context))
            }
            Change::Remove(id) => (Kind::ConfChangeRemoveNode, *id, Ok(Vec::new())),
            Change::Update(member) => (Kind::ConfChangeUpdateNode, member.id, serde_json::to_vec(member)),
        };
        // Strings, numbers and lists always have a JSON form.
        let context = context.unwrap_or_default();
        raftpb::ConfChange {
            id,
            r#type: kind as i32,
            node_id,
            context: (!context.is_empty()).then(|| context.into()),
        }
    }
}

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

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    #[error("--initial-cluster: {0:?} is not of the form name=url")]
    Malformed(String),
    #[error(
        "couldn't find local name {name:?} in the initial cluster configuration: --initial-cluster must name --name"
    )]
    LocalNameMissing { name: String },
    #[error(
        "--initial-cluster has {member} at {in_cluster} but --initial-advertise-peer-urls is {advertised}: both must be the same"
    )]
    Advertised {
        member: String,
        in_cluster: String,
        advertised: String,
    },
    #[error("--initial-cluster: the peer URLs of {0} and {1} are the same")]
    Duplicate(String, String),
}

/// The first eight bytes of a SHA-1, which is how etcd makes ids.
fn id_of(bytes: &[u8]) -> u64 {
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&sum.as_ref()[..8]);
    u64::from_be_bytes(first)
}

/// Over the sorted peer URLs, the cluster's token, and for a member that is added later the time.
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<u64>) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut bytes = urls.concat().into_bytes();
    bytes.extend_from_slice(token.as_bytes());
    if let Some(seconds) = added_at {
        bytes.extend_from_slice(seconds.to_string().as_bytes());
    }
    id_of(&bytes)
}

impl Membership {
    /// From `--initial-cluster`.
    pub fn initial(initial_cluster: &str, token: &str) -> Result<Membership, BootstrapError> {
        let mut urls: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for item in initial_cluster.split(',').filter(|item| !item.trim().is_empty()) {
            let (name, url) = item
                .trim()
                .split_once('=')
                .ok_or_else(|| BootstrapError::Malformed(item.to_owned()))?;
            urls.entry(name.to_owned()).or_default().push(url.to_owned());
        }
        let mut membership = Membership::default();
        for (name, mut peer_urls) in urls {
            peer_urls.sort();
            let id = member_id(&peer_urls, token, None);
            if let Some(other) = membership.members.get(&id) {
                return Err(BootstrapError::Duplicate(other.name.clone(), name));
            }
            membership.members.insert(
                id,
                Member {
                    id,
                    peer_urls,
                    name,
                    ..Member::default()
                },
            );
        }
        membership.cluster_id = membership.compute_cluster_id();
        Ok(membership)
    }

    fn compute_cluster_id(&self) -> u64 {
        let bytes: Vec<u8> = self.members.keys().flat_map(|id| id.to_be_bytes()).collect();
        id_of(&bytes)
    }

    /// The member that this process is, by name.
    pub fn local(&self, name: &str, advertised: &[String]) -> Result<&Member, BootstrapError> {
        let member = self.members.values().find(|member| member.name == name);
        let member = member.ok_or_else(|| BootstrapError::LocalNameMissing {
            name: name.to_owned(),
        })?;
        let mut advertised = advertised.to_vec();
        advertised.sort();
        if advertised != member.peer_urls {
            let (in_cluster, advertised) = (member.peer_urls.join(","), advertised.join(","));
            return Err(BootstrapError::Advertised {
                member: name.to_owned(),
                in_cluster,
                advertised,
            });
        }
        Ok(member)
    }

    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub fn is_learner(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.is_learner)
    }

    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_learner)
    }

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

    /// [`Membership::validate`] has passed. Returns the changed member, None when it went.
    pub fn apply(&mut self, change: &Change) -> Option<&Member> {
        let id = match change {
            Change::Remove(id) => {
                self.members.remove(id);
                self.removed.insert(*id);
                return None;
            }
            Change::Add(member) => {
                self.members.insert(member.id, member.clone());
                member.id
            }
            Change::Promote(id) => {
                self.members.get_mut(id)?.is_learner = false;
                *id
            }
            Change::Update(member) => {
                self.members
                    .get_mut(&member.id)?
                    .peer_urls
                    .clone_from(&member.peer_urls);
                member.id
            }
        };
        self.members.get(&id)
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

    pub fn list(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    pub fn set_attributes(&mut self, request: &membershippb::ClusterMemberAttrSetRequest) -> Option<&Member> {
        let member = self.members.get_mut(&request.member_id)?;
        let attributes = request.member_attributes.clone().unwrap_or_default();
        member.name = attributes.name;
        member.client_urls = attributes.client_urls;
        Some(member)
    }

    pub fn messages(&self) -> Vec<MemberMessage> {
        self.members.values().map(Member::message).collect()
    }
}

impl Member {
    pub fn message(&self) -> MemberMessage {
        MemberMessage {
            id: self.id,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_etcds() {
        // `etcd` without flags is known by these two ids the world over.
        let membership = Membership::initial("default=http://localhost:2380", "etcd-cluster").unwrap();
        assert_eq!(
            format!("{:x}", membership.members.keys().next().unwrap()),
            "8e9e05c52164694d"
        );
        assert_eq!(format!("{:x}", membership.cluster_id), "cdf818194e3a8c32");
    }

    fn three() -> Membership {
        let mut membership = Membership::initial("a=http://h:1,b=http://h:2,c=http://h:3", "t").unwrap();
        for member in membership.members.values_mut() {
            member.client_urls = vec!["http://h:9".to_owned()];
        }
        membership
    }

    fn newcomer(id: u64, url: &str, is_learner: bool) -> Change {
        Change::Add(Member {
            id,
            peer_urls: vec![url.to_owned()],
            is_learner,
            ..Member::default()
        })
    }

    #[test]
    fn changes_are_refused_as_etcd_refuses_them() {
        let mut membership = three();
        let id = *membership.members.keys().next().unwrap();
        let refused = |membership: &Membership, change: &Change| membership.validate(change, 1).unwrap_err();
        assert_eq!(refused(&membership, &Change::Remove(9)), MemberError::NotFound);
        let alone = Membership::initial("a=http://h:1", "t").unwrap();
        let last = *alone.members.keys().next().unwrap();
        assert_eq!(
            refused(&alone, &Change::Remove(last)),
            MemberError::NotEnoughStarted
        );
        assert_eq!(
            refused(&membership, &Change::Promote(id)),
            MemberError::NotLearner
        );
        assert_eq!(
            refused(&membership, &newcomer(id, "http://h:4", false)),
            MemberError::Exists
        );
        assert_eq!(
            refused(&membership, &newcomer(9, "http://h:1", false)),
            MemberError::PeerUrlExists
        );
        membership.apply(&newcomer(8, "http://h:4", true));
        assert_eq!(
            refused(&membership, &newcomer(9, "http://h:5", true)),
            MemberError::TooManyLearners
        );
        assert_eq!(membership.validate(&newcomer(9, "http://h:5", true), 2), Ok(()));
        membership.apply(&Change::Promote(8));
        assert!(!membership.is_learner(8));
        assert_eq!(membership.apply(&Change::Remove(8)), None);
        assert_eq!(
            refused(&membership, &newcomer(8, "http://h:4", false)),
            MemberError::Removed
        );
    }

    #[test]
    fn a_change_survives_its_entry() {
        for change in [
            newcomer(8, "u", true),
            newcomer(8, "u", false),
            Change::Promote(8),
            Change::Remove(8),
        ] {
            assert_eq!(Change::read(&change.entry(3)), Some(change));
        }
        let promote = Change::Promote(8).entry(3);
        let text = String::from_utf8(promote.context.unwrap().to_vec()).unwrap();
        assert_eq!(text, r#"{"id":8,"peerURLs":[],"isPromote":true}"#);
        let of_go: ChangeContext =
            serde_json::from_str(r#"{"id":8,"peerURLs":null,"isPromote":true}"#).unwrap();
        assert!(of_go.is_promote && of_go.member.peer_urls.is_empty());
    }

    #[test]
    fn reconfiguration_is_strict_about_quorums() {
        let mut membership = three();
        assert!(membership.is_ready_to_add_voter() && membership.is_ready_to_promote());
        let ids: Vec<u64> = membership.members.keys().copied().collect();
        membership.members.get_mut(&ids[0]).unwrap().name.clear();
        // Two of three started: a fourth member makes the quorum three.
        assert!(!membership.is_ready_to_add_voter());
        assert!(membership.is_ready_to_remove(ids[0]));
        membership.members.get_mut(&ids[1]).unwrap().name.clear();
        assert!(!membership.is_ready_to_remove(ids[2]));
        let one = Membership::initial("a=http://h:1", "t").unwrap();
        assert!(one.is_ready_to_add_voter());
        assert!(!one.is_ready_to_remove(*one.members.keys().next().unwrap()));
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_named() {
        let membership = Membership::initial("a=http://h:1,b=http://h:2", "t").unwrap();
        assert!(matches!(
            membership.local("c", &[]),
            Err(BootstrapError::LocalNameMissing { .. })
        ));
        assert!(matches!(
            membership.local("a", &["http://h:9".into()]),
            Err(BootstrapError::Advertised { .. })
        ));
        assert_eq!(
            Membership::initial("a", "t"),
            Err(BootstrapError::Malformed("a".into()))
        );
        assert!(matches!(
            Membership::initial("a=http://h:1,b=http://h:1", "t"),
            Err(BootstrapError::Duplicate(..))
        ));
    }
}
