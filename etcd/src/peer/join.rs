//! Joining a cluster that is already there: who its members are, and whether the flags agree.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tracing::warn;

use super::client::Client;
use super::headers;
use crate::membership::{Member, Membership};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Upstream's for asking whether a member was there before.
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);
/// Oldest and newest cluster that this member may join.
const OLDEST_CLUSTER: (u32, u32) = (3, 0);
const NEWEST_CLUSTER: (u32, u32) = (3, 6);

/// The cluster as the first of `urls` that answers knows it.
pub async fn cluster_of(client: &Client, urls: &[String], timeout: Duration) -> Result<Membership> {
    for url in urls {
        match members(client, url, timeout).await {
            Ok(membership) => return Ok(membership),
            Err(error) => {
                warn!(address = %format!("{url}/members"), error = %error, "failed to get cluster response")
            }
        }
    }
    bail!(
        "could not retrieve cluster information from the given URLs: {}",
        urls.join(",")
    )
}

async fn members(client: &Client, url: &str, timeout: Duration) -> Result<Membership> {
    let answer = client
        .call(
            url,
            Method::GET,
            "/members",
            &HeaderMap::new(),
            Bytes::new(),
            timeout,
        )
        .await?;
    if answer.status != StatusCode::OK {
        bail!("{}", answer.status);
    }
    let Some(cluster_id) = headers::id(headers::text(&answer.headers, headers::CLUSTER_ID)) else {
        bail!("no cluster ID in the answer");
    };
    let members: Vec<Member> = serde_json::from_slice(&answer.body)?;
    if members.is_empty() {
        bail!("failed to get raft cluster member(s) from the given URLs");
    }
    Ok(Membership {
        cluster_id,
        members: members.into_iter().map(|member| (member.id, member)).collect(),
        ..Membership::default()
    })
}

fn urls_of_others(membership: &Membership, name: &str) -> Vec<String> {
    let mut urls: Vec<String> = membership
        .members
        .values()
        .filter(|member| member.name != name)
        .flat_map(|member| member.peer_urls.clone())
        .collect();
    urls.sort();
    urls
}

/// Whether the others already know this member as started: it lost its data, and would vote twice.
pub async fn is_bootstrapped(client: &Client, configured: &Membership, name: &str, id: u64) -> bool {
    let urls = urls_of_others(configured, name);
    for url in &urls {
        if let Ok(cluster) = members(client, url, SHORT_TIMEOUT).await {
            return cluster
                .members
                .get(&id)
                .is_some_and(|member| !member.client_urls.is_empty());
        }
    }
    false
}

/// The running cluster, and which of its members this process is.
pub async fn existing(client: &Client, configured: &Membership, name: &str) -> Result<(Membership, Member)> {
    let urls = urls_of_others(configured, name);
    let existing = match cluster_of(client, &urls, TIMEOUT).await {
        Ok(existing) => existing,
        Err(error) => {
            bail!("--initial-cluster-state=existing: cannot fetch cluster info from peer urls: {error:#}")
        }
    };
    check_version(client, &urls).await?;
    let local = agree(configured, &existing, name)?;
    Ok((existing, local))
}

/// The members of the flags must be those of the cluster, by their peer URLs.
fn agree(configured: &Membership, existing: &Membership, name: &str) -> Result<Member> {
    if configured.members.len() != existing.members.len() {
        bail!(
            "error validating peerURLs: member count is unequal: --initial-cluster has {} members, the cluster has {}: add this member with `etcdctl member add` first and use the --initial-cluster that it prints",
            configured.members.len(),
            existing.members.len()
        );
    }
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    let mut local = None;
    for member in existing.members.values() {
        let found = configured
            .members
            .values()
            .find(|configured| sorted(&configured.peer_urls) == sorted(&member.peer_urls));
        match found {
            None => bail!(
                "error validating peerURLs: no match found for existing member ({:x}, {}): --initial-cluster must name it",
                member.id,
                member.peer_urls.join(",")
            ),
            Some(found) if found.name == name => {
                local = Some(Member {
                    name: name.to_owned(),
                    ..member.clone()
                });
            }
            Some(_) => {}
        }
    }
    match local {
        Some(local) => Ok(local),
        None => bail!("couldn't find local name {name:?} in the initial cluster configuration"),
    }
}

#[derive(Deserialize)]
struct Versions {
    etcdserver: String,
    etcdcluster: String,
}

async fn versions(client: &Client, url: &str) -> Option<Versions> {
    let answer = client
        .call(
            url,
            Method::GET,
            "/version",
            &HeaderMap::new(),
            Bytes::new(),
            SHORT_TIMEOUT,
        )
        .await;
    serde_json::from_slice(&answer.ok()?.body).ok()
}

/// Major and minor version of the member at one of `urls`. None when none answers.
pub async fn version_of(client: &Client, urls: &[String]) -> Option<(u32, u32)> {
    for url in urls {
        if let Some(versions) = versions(client, url).await {
            return headers::minor(&versions.etcdserver);
        }
    }
    None
}

async fn check_version(client: &Client, urls: &[String]) -> Result<()> {
    for url in urls {
        let Some(versions) = versions(client, url).await else {
            continue;
        };
        let Some(version) = headers::minor(&versions.etcdcluster) else {
            continue;
        };
        if !(OLDEST_CLUSTER..=NEWEST_CLUSTER).contains(&version) {
            bail!(
                "incompatible with current running cluster: its version is {}, this member joins {}.{} to {}.{}",
                versions.etcdcluster,
                OLDEST_CLUSTER.0,
                OLDEST_CLUSTER.1,
                NEWEST_CLUSTER.0,
                NEWEST_CLUSTER.1
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_must_name_the_members_of_the_cluster() {
        let existing = Membership::initial("x=http://h:1,y=http://h:2", "other").unwrap();
        let configured = Membership::initial("a=http://h:1,b=http://h:2", "token").unwrap();
        let local = agree(&configured, &existing, "b").unwrap();
        assert_eq!(local.peer_urls, ["http://h:2"]);
        assert!(
            existing.members.contains_key(&local.id),
            "the id is the cluster's"
        );
        let short = Membership::initial("b=http://h:2", "token").unwrap();
        assert!(
            agree(&short, &existing, "b")
                .unwrap_err()
                .to_string()
                .contains("member count is unequal")
        );
        let wrong = Membership::initial("a=http://h:1,b=http://h:3", "token").unwrap();
        assert!(
            agree(&wrong, &existing, "b")
                .unwrap_err()
                .to_string()
                .contains("no match found")
        );
    }
}
