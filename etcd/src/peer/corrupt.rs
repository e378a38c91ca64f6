//! Do the members have the same keys? Each hashes its own at one revision and asks the others for theirs, at `/members/hashkv`.

use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::mvcc::hash::KvHash;
use crate::mvcc::{self, Store};
use crate::server::{EtcdServer, REQUEST_TIMEOUT};

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

async fn hash(store: &Arc<Store>, revision: i64) -> Result<KvHash, mvcc::Error> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.hash_kv(revision))
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

async fn ask(server: &EtcdServer, url: &str, revision: i64) -> Result<HashResponse> {
    let mut headers = server.transport.local().headers();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::to_vec(&HashRequest { revision })?;
    let answer = server
        .transport
        .client()
        .call(url, Method::GET, PATH, &headers, body.into(), REQUEST_TIMEOUT)
        .await?;
    match answer.status {
        StatusCode::OK => Ok(serde_json::from_slice(&answer.body)?),
        _ => bail!("{}", String::from_utf8_lossy(&answer.body).trim()),
    }
}

/// The feature `InitialCorruptCheck`: a member whose keys differ from another's does not serve them.
pub async fn initial_check(server: &Arc<EtcdServer>) -> Result<()> {
    info!("local-member-id" = %format!("{:x}", server.member), "starting initial corruption check");
    let ours = hash(server.store(), 0).await?;
    let members = server.state.membership.read().list();
    let mut differing = Vec::new();
    for member in members.iter().filter(|member| member.id != server.member) {
        for url in &member.peer_urls {
            match ask(server, url, ours.revision).await {
                Ok(theirs) if theirs.hash == ours.hash => {}
                Ok(theirs) if theirs.compact_revision != ours.compacted => {
                    warn!("remote-peer-id" = %format!("{:x}", member.id), "local-member-compact-revision" = ours.compacted, "remote-peer-compact-revision" = theirs.compact_revision, "found different compact revision values from remote peer");
                }
                Ok(theirs) => {
                    warn!("remote-peer-id" = %format!("{:x}", member.id), revision = ours.revision, "local-member-hash" = ours.hash, "remote-peer-hash" = theirs.hash, "found different hash values from remote peer");
                    differing.push(format!("{:x}", member.id));
                }
                // One that lags, has compacted, or is not there says nothing against our keys.
                Err(error) => {
                    warn!("remote-peer-id" = %format!("{:x}", member.id), error = %error, "cannot fetch hash from remote peer");
                    continue;
                }
            }
            break;
        }
    }
    if !differing.is_empty() {
        bail!(
            "{:x} found data inconsistency with peers {} at revision {}: find out which member is right, remove the others and add them again",
            server.member,
            differing.join(", "),
            ours.revision
        );
    }
    info!("local-member-id" = %format!("{:x}", server.member), "initial corruption checking passed; no corruption");
    Ok(())
}
