//! `--discovery-srv`: the members are the records of `_etcd-server-ssl._tcp.DOMAIN` and `_etcd-server._tcp.DOMAIN`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, bail};
use component_base::dns::lookup_srv;
use tracing::{info, warn};

use super::resolved;

/// In the form of `--initial-cluster`. A record is this member when it is at an address that this member advertises; the others get numbers,
/// for names are no part of who they are.
pub async fn initial_cluster(
    domain: &str,
    service_name: &str,
    name: &str,
    advertised: &[String],
) -> Result<String> {
    let suffix = match service_name {
        "" => String::new(),
        given => format!("-{given}"),
    };
    let Some(own) = resolved(advertised).await else {
        bail!(
            "--initial-advertise-peer-urls: {} cannot be resolved",
            advertised.join(",")
        )
    };
    let (mut members, mut errors) = (Vec::new(), Vec::new());
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        match members_of(scheme, &format!("{service}{suffix}"), domain, name, &own).await {
            Ok(found) => members.extend(found),
            Err(error) => errors.push(error),
        }
    }
    if members.is_empty() {
        bail!("--discovery-srv {domain}: {}", errors.join("; "));
    }
    for member in &members {
        info!(node = member, "got bootstrap from DNS for etcd-server");
    }
    let prefix = format!("{name}=");
    if !members.iter().any(|member| member.starts_with(&prefix)) {
        bail!(
            "cannot find local etcd member {name:?} in SRV records: none of them is at {}",
            advertised.join(",")
        );
    }
    Ok(members.join(","))
}

async fn members_of(
    scheme: &str,
    service: &str,
    domain: &str,
    name: &str,
    own: &BTreeSet<SocketAddr>,
) -> Result<Vec<String>, String> {
    let records = lookup_srv(service, domain).await;
    let records =
        records.map_err(|error| format!("error querying DNS SRV records for _{service}: {error}"))?;
    let (mut members, mut unnamed) = (Vec::new(), 0);
    for record in records {
        // The records' hosts end with a dot, the URLs' do not.
        let host = record.host.trim_end_matches('.');
        let url = format!("{scheme}://{host}:{}", record.port);
        let Some(addresses) = resolved(std::slice::from_ref(&url)).await else {
            warn!(host, "the host of an SRV record has no address");
            continue;
        };
        let member = match addresses.is_disjoint(own) {
            false => name.to_owned(),
            true => {
                unnamed += 1;
                (unnamed - 1).to_string()
            }
        };
        members.push(format!("{member}={url}"));
    }
    match members.is_empty() {
        true => Err(format!(
            "no host of the SRV records for _{service} has an address"
        )),
        false => Ok(members),
    }
}
