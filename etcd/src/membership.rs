//! Who is in the cluster; one store only, the v3 one.

mod change;
mod initial;
mod v2_store;
mod validate;

use std::collections::{BTreeMap, BTreeSet};

use etcd_api::etcdserverpb::Member as MemberMessage;
use etcd_api::membershippb;
use serde::{Deserialize, Serialize};

pub use self::change::{Change, ChangeContext};
pub use self::initial::{BootstrapError, member_id};
pub use self::v2_store::V2Change;
pub use self::validate::MemberError;
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

impl Membership {
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub fn is_learner(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.is_learner)
    }

    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_learner)
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
mod tests;
