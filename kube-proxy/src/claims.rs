//! Who owns a frontend that several Service ports ask for.
//!
//! Cluster IPs are handed out once, but two Services may name the same external IP and port. The kernel takes a key once,
//! so the first by name gets it, and the next one takes over when the first goes away.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::proxier::ServicePortName;
use crate::ruleset::{Protocol, ServicePort};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontendKey {
    External(IpAddr, Protocol, u16),
    NodePort(Protocol, u16),
}

pub fn frontends(port: &ServicePort) -> impl Iterator<Item = FrontendKey> {
    let external = port.external_ips.iter().map(|ip| FrontendKey::External(*ip, port.protocol, port.port));
    external.chain(port.node_port.map(|number| FrontendKey::NodePort(port.protocol, number)))
}

#[derive(Default)]
pub struct Claims(HashMap<FrontendKey, BTreeSet<ServicePortName>>);

impl Claims {
    pub fn owns(&self, name: &ServicePortName, key: FrontendKey) -> bool {
        self.0.get(&key).and_then(BTreeSet::first) == Some(name)
    }

    /// Returns whose ownership changes by this claim, other than the claimant's.
    pub fn claim(&mut self, name: &ServicePortName, port: &ServicePort) -> Vec<ServicePortName> {
        frontends(port)
            .filter_map(|key| {
                let claimants = self.0.entry(key).or_default();
                let before = claimants.first().cloned();
                claimants.insert(name.clone());
                before.filter(|before| before > name)
            })
            .collect()
    }

    /// Returns who takes over.
    pub fn release(&mut self, name: &ServicePortName, port: &ServicePort) -> Vec<ServicePortName> {
        frontends(port)
            .filter_map(|key| {
                let claimants = self.0.get_mut(&key)?;
                let owned = claimants.first() == Some(name);
                claimants.remove(name);
                let next = claimants.first().cloned();
                if next.is_none() {
                    self.0.remove(&key);
                }
                next.filter(|_| owned)
            })
            .collect()
    }
}
