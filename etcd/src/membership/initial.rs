//! The members that a new cluster begins with, and ids as etcd computes them.

use std::collections::BTreeMap;

use ring::digest;

use super::{Member, Membership};

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

/// The first eight bytes of a SHA-1, which is how etcd makes ids.
fn id_of(bytes: &[u8]) -> u64 {
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&sum.as_ref()[..8]);
    u64::from_be_bytes(first)
}
