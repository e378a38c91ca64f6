//! Who the first members are: from `--initial-cluster`, from DNS, or from an etcd where they meet.

mod service;
mod srv;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;

use crate::config::{Config, Discovery};
use crate::membership::{Member, Membership};

/// The members that this one begins with, or joins.
pub async fn configured(config: &Config) -> Result<Membership> {
    let (name, advertised) = (&config.name, &config.initial_advertise_peer_urls);
    Ok(match &config.discovery {
        Discovery::Static => Membership::initial(&config.initial_cluster, &config.initial_cluster_token)?,
        Discovery::Srv { domain, service_name } => {
            let found = srv::initial_cluster(domain, service_name, name, advertised).await?;
            Membership::initial(&found, &config.initial_cluster_token)?
        }
        // Members that met under a token are a cluster of that token.
        Discovery::Service(service) => {
            let found = service::join(service, name, advertised).await?;
            Membership::initial(&found, &service.token)?
        }
    })
}

/// The member that this process is. What it advertises may name the same addresses in other words.
pub async fn local(configured: &Membership, config: &Config) -> Result<Member> {
    let (name, advertised) = (&config.name, &config.initial_advertise_peer_urls);
    let refused = match configured.local(name, advertised) {
        Ok(member) => return Ok(member.clone()),
        Err(refused) => refused,
    };
    let named = configured.members.values().find(|member| member.name == *name);
    if let Some(member) = named
        && let Some(addresses) = resolved(&member.peer_urls).await
        && resolved(advertised).await == Some(addresses)
    {
        return Ok(member.clone());
    }
    Err(refused.into())
}

/// None when one of them has no address.
async fn resolved(urls: &[String]) -> Option<BTreeSet<SocketAddr>> {
    let mut all = BTreeSet::new();
    for url in urls {
        let (_, authority) = url.split_once("://")?;
        all.extend(
            tokio::net::lookup_host(authority.trim_end_matches('/'))
                .await
                .ok()?,
        );
    }
    (!all.is_empty()).then_some(all)
}
