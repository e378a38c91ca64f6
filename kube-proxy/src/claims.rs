//! Who owns a frontend that several Service ports ask for.
//!
//! Cluster IPs are handed out once, but anybody may name an address as an external IP: one that another Service names too,
//! or even a cluster IP. The kernel takes a key once, so a cluster IP goes before external ones, then the first by name gets
//! it, and the next one takes over when the first goes away.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::proxier::ServicePortName;
use crate::ruleset::{Protocol, ServicePort};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontendKey {
    Ip(IpAddr, Protocol, u16),
    NodePort(Protocol, u16),
}

/// The smaller one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    ClusterIp,
    Other,
}

type Claimant = (Rank, ServicePortName);

fn frontends(port: &ServicePort) -> impl Iterator<Item = (Rank, FrontendKey)> {
    let ip = |ip| FrontendKey::Ip(ip, port.protocol, port.port);
    let external = port
        .external_ips()
        .map(move |external| (Rank::Other, ip(external)));
    let node_port = port
        .node_port
        .map(|number| (Rank::Other, FrontendKey::NodePort(port.protocol, number)));
    std::iter::once((Rank::ClusterIp, ip(port.cluster_ip)))
        .chain(external)
        .chain(node_port)
}

#[derive(Default)]
pub struct Claims(HashMap<FrontendKey, BTreeSet<Claimant>>);

impl Claims {
    pub fn owns(&self, name: &ServicePortName, key: FrontendKey) -> bool {
        self.0
            .get(&key)
            .and_then(BTreeSet::first)
            .is_some_and(|(_, owner)| owner == name)
    }

    /// Returns whose ownership changes by this claim, other than the claimant's.
    pub fn claim(&mut self, name: &ServicePortName, port: &ServicePort) -> Vec<ServicePortName> {
        frontends(port)
            .filter_map(|(rank, key)| {
                let claimants = self.0.entry(key).or_default();
                let claim = (rank, name.clone());
                let before = claimants.first().cloned();
                claimants.insert(claim.clone());
                before.filter(|before| *before > claim).map(|(_, loser)| loser)
            })
            .collect()
    }

    /// Returns who takes over.
    pub fn release(&mut self, name: &ServicePortName, port: &ServicePort) -> Vec<ServicePortName> {
        frontends(port)
            .filter_map(|(rank, key)| {
                let claimants = self.0.get_mut(&key)?;
                let claim = (rank, name.clone());
                let owned = claimants.first() == Some(&claim);
                claimants.remove(&claim);
                let next = claimants.first().cloned();
                if next.is_none() {
                    self.0.remove(&key);
                }
                next.filter(|_| owned).map(|(_, heir)| heir)
            })
            .collect()
    }
}
