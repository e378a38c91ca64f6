//! Members tell each other the hashes of their keys, at `/members/hashkv`. What they conclude is in [`crate::server::corruption`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::warn;

use crate::membership::Member;
use crate::metrics;
use crate::mvcc::hash::KvHash;
use crate::mvcc::{self, Store};
use crate::server::EtcdServer;

pub const PATH: &str = "/members/hashkv";

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct HashRequest {
    revision: i64,
}

/// As Go writes the message: what is zero is left out.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct HashResponse {
    header: HashHeader,
    hash: u32,
    compact_revision: i64,
    hash_revision: i64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct HashHeader {
    revision: i64,
}

/// What another member said of itself.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub hash: KvHash,
    pub current: i64,
}

/// A member that was asked; None when it gave no hash.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub member: u64,
    pub told: Option<Told>,
}

pub async fn hash(store: &Arc<Store>, revision: i64) -> Result<KvHash, mvcc::Error> {
    let store = store.clone();
    let hash = move || {
        let start = Instant::now();
        let hash = store.hash_kv(revision);
        metrics::HASH_BY_REVISION.observe_since(start);
        hash
    };
    tokio::task::spawn_blocking(hash)
        .await
        .map_err(|error| mvcc::Error::Io(std::io::Error::other(error)))?
}

/// Another member's question; an error is a text for it.
pub async fn serve(server: &EtcdServer, body: Bytes) -> Result<String, String> {
    let request: HashRequest =
        serde_json::from_slice(&body).map_err(|_| "error unmarshalling request".to_owned())?;
    // Members tell each other the errors without the client's prefix.
    let hash = hash(server.store(), request.revision)
        .await
        .map_err(|error| error.to_string().trim_start_matches("etcdserver: ").to_owned())?;
    let response = HashResponse {
        header: HashHeader {
            revision: server.store().current(),
        },
        hash: hash.hash,
        compact_revision: hash.compacted,
        hash_revision: hash.revision,
    };
    serde_json::to_string(&response).map_err(|error| error.to_string())
}

/// Of a cluster with so many others.
pub fn quorum(others: usize) -> usize {
    others.div_ceil(2) + 1
}

/// All other members at once. When a quorum has been heard, the others get no more than `straggle` each.
pub async fn ask_all(server: &Arc<EtcdServer>, revision: i64, straggle: Duration) -> Vec<Heard> {
    let mut members = server.state.membership.read().list();
    members.retain(|member| member.id != server.member && !member.peer_urls.is_empty());
    let mut heard: BTreeMap<u64, Option<Told>> = members.iter().map(|member| (member.id, None)).collect();
    let quorum = quorum(heard.len());
    let mut asked = JoinSet::new();
    for member in members {
        let server = server.clone();
        asked.spawn(async move { (member.id, ask_member(&server, &member, revision).await) });
    }
    loop {
        let told = heard.values().flatten().count();
        let wait = if told + 1 >= quorum {
            straggle
        } else {
            server.request_timeout()
        };
        match tokio::time::timeout(wait, asked.join_next()).await {
            Ok(Some(answer)) => heard.extend(answer.ok()),
            Ok(None) | Err(_) => break,
        }
    }
    heard
        .into_iter()
        .map(|(member, told)| Heard { member, told })
        .collect()
}

async fn ask_member(server: &EtcdServer, member: &Member, revision: i64) -> Option<Told> {
    for url in &member.peer_urls {
        match ask(server, url, revision).await {
            Ok(theirs) => {
                return Some(Told {
                    hash: KvHash {
                        hash: theirs.hash,
                        compacted: theirs.compact_revision,
                        revision: theirs.hash_revision,
                    },
                    current: theirs.header.revision,
                });
            }
            // One that lags, has compacted, or is not there says nothing against anybody's keys.
            Err(error) => {
                warn!("remote-peer-id" = %format!("{:x}", member.id), "requested-revision" = revision, error = %error, "failed hash kv request")
            }
        }
    }
    None
}

async fn ask(server: &EtcdServer, url: &str, revision: i64) -> Result<HashResponse> {
    let mut headers = server.transport.local().headers();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::to_vec(&HashRequest { revision })?;
    let answer = server
        .transport
        .client()
        .call(
            url,
            Method::GET,
            PATH,
            &headers,
            body.into(),
            server.request_timeout(),
        )
        .await?;
    match answer.status {
        StatusCode::OK => Ok(serde_json::from_slice(&answer.body)?),
        _ => bail!("{}", String::from_utf8_lossy(&answer.body).trim()),
    }
}
