//! What members tell each other in headers, and what must fit before a word is said.

use component_base::version::ETCD_VERSION;
use http::{HeaderMap, HeaderValue};

pub const SERVER_FROM: &str = "x-server-from";
pub const SERVER_VERSION: &str = "x-server-version";
pub const MIN_CLUSTER_VERSION: &str = "x-min-cluster-version";
pub const CLUSTER_ID: &str = "x-etcd-cluster-id";
pub const RAFT_TO: &str = "x-raft-to";
pub const PEER_URLS: &str = "x-peerurls";

/// The oldest cluster that etcd 3.6 joins.
pub const OUR_MIN_CLUSTER_VERSION: &str = "3.0.0";

/// Who speaks.
#[derive(Clone, Debug)]
pub struct Local {
    pub member: u64,
    pub cluster: u64,
    pub peer_urls: Vec<String>,
}

impl Local {
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        put(SERVER_FROM, format!("{:x}", self.member));
        put(SERVER_VERSION, ETCD_VERSION.to_owned());
        put(MIN_CLUSTER_VERSION, OUR_MIN_CLUSTER_VERSION.to_owned());
        put(CLUSTER_ID, format!("{:x}", self.cluster));
        put(PEER_URLS, self.peer_urls.join(","));
        headers
    }
}

/// Texts are etcd's: the other side compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    #[error("incompatible version")]
    Version,
    #[error("cluster ID mismatch")]
    Cluster,
}

pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Hexadecimal, as members write ids.
pub fn id(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

pub fn check(headers: &HeaderMap, cluster: u64) -> Result<(), Incompatible> {
    let version = |name| minor(text(headers, name)).unwrap_or((2, 0));
    let (ours, our_oldest) = (minor(ETCD_VERSION), minor(OUR_MIN_CLUSTER_VERSION));
    let too_old = Some(version(SERVER_VERSION)) < our_oldest;
    let too_new = Some(version(MIN_CLUSTER_VERSION)) > ours;
    if too_old || too_new {
        return Err(Incompatible::Version);
    }
    match id(text(headers, CLUSTER_ID)) == Some(cluster) {
        true => Ok(()),
        false => Err(Incompatible::Cluster),
    }
}

/// Major and minor of a version.
pub fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_of_the_same_cluster_and_of_versions_that_fit_may_speak() {
        let local = Local {
            member: 0xa,
            cluster: 0xbeef,
            peer_urls: vec!["http://h:1".into()],
        };
        let headers = local.headers();
        assert_eq!(check(&headers, 0xbeef), Ok(()));
        assert_eq!(text(&headers, SERVER_FROM), "a");
        assert_eq!(check(&headers, 0xdead), Err(Incompatible::Cluster));
        let mut old = headers.clone();
        old.remove(SERVER_VERSION);
        assert_eq!(check(&old, 0xbeef), Err(Incompatible::Version));
        let mut new = headers;
        new.insert(MIN_CLUSTER_VERSION, HeaderValue::from_static("3.7.0"));
        assert_eq!(check(&new, 0xbeef), Err(Incompatible::Version));
    }
}
