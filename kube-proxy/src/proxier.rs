//! Keeps the kernel's table equal to what the Services ask for.
//!
//! It knows what it committed, so a change costs the difference: the elements of the Service ports that changed, in one
//! transaction, within which an element with a new value is deleted and added again. If the kernel refuses (somebody
//! else touched the table), the next commit replaces the table as a whole, again in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tracing::{error, info};

use crate::claims::Claims;
use crate::nft::batch::Element;
use crate::nft::{Batch, Family, Kernel, KernelError, Operation};
use crate::ruleset::{Chain, Contribution, ServicePort, Settings, TABLE, contribution, skeleton};

/// Namespace, name and port name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    pub namespace: String,
    pub name: String,
    pub port: String,
}

pub struct Proxier<K> {
    kernel: K,
    settings: Settings,
    desired: Desired,
    changed: BTreeSet<ServicePortName>,
    committed: Option<Committed>,
}

#[derive(Default)]
struct Desired {
    ports: BTreeMap<ServicePortName, ServicePort>,
    claims: Claims,
}

impl Desired {
    fn contribution(&self, name: &ServicePortName) -> Option<Contribution> {
        self.ports
            .get(name)
            .map(|port| contribution(port, |key| self.claims.owns(name, key)))
    }

    /// Returns the ports whose contribution changes by this, the named one included.
    fn set(&mut self, name: &ServicePortName, port: Option<ServicePort>) -> Vec<ServicePortName> {
        if self.ports.get(name) == port.as_ref() {
            return Vec::new();
        }
        let mut changed = vec![name.clone()];
        if let Some(old) = self.ports.remove(name) {
            changed.extend(self.claims.release(name, &old));
        }
        if let Some(port) = port {
            changed.extend(self.claims.claim(name, &port));
            self.ports.insert(name.clone(), port);
        }
        changed
    }
}

/// What the kernel holds.
#[derive(Default)]
struct Committed {
    ports: HashMap<ServicePortName, Contribution>,
    shared: HashMap<Element, u32>,
    /// How many Service ports dispatch to it; chains stay when unused (their number is bounded by the number of
    /// distinct endpoint counts) until the table is next replaced.
    chains: HashSet<Chain>,
}

impl<K: Kernel> Proxier<K> {
    pub fn new(kernel: K, settings: Settings) -> Self {
        Self {
            kernel,
            settings,
            desired: Desired::default(),
            changed: BTreeSet::new(),
            committed: None,
        }
    }

    /// All ports that a Service has now; those that it had before and has no more are removed.
    pub fn set_service(&mut self, namespace: &str, name: &str, ports: Vec<(String, ServicePort)>) {
        let key = |port: &str| ServicePortName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port: port.to_owned(),
        };
        let gone: Vec<ServicePortName> = self
            .ports_of(namespace, name)
            .map(|(port, _)| port.clone())
            .filter(|old| ports.iter().all(|(port, _)| *port != old.port))
            .collect();
        for name in gone {
            self.changed.extend(self.desired.set(&name, None));
        }
        for (port, value) in ports {
            self.changed.extend(self.desired.set(&key(&port), Some(value)));
        }
    }

    pub fn ports_of<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a ServicePortName, &'a ServicePort)> {
        let first = ServicePortName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port: String::new(),
        };
        self.desired
            .ports
            .range(first..)
            .take_while(move |(port, _)| port.namespace == namespace && port.name == name)
    }

    pub fn family(&self) -> Family {
        self.settings.family
    }

    pub fn is_dirty(&self) -> bool {
        self.committed.is_none() || !self.changed.is_empty()
    }

    /// Brings the kernel up to date. After an error nothing has changed in the kernel, and the next call tries again.
    pub fn sync(&mut self) -> Result<(), KernelError> {
        if self.committed.is_some() {
            match self.sync_changes() {
                Ok(()) => return Ok(()),
                Err(refusal) => error!(err = %refusal, "Partial sync failed, replacing the whole table"),
            }
            self.committed = None;
        }
        self.replace_table()
    }

    fn sync_changes(&mut self) -> Result<(), KernelError> {
        let Some(committed) = &mut self.committed else {
            return Ok(());
        };
        let change = Change::between(committed, &self.desired, &self.changed);
        let batch = change.batch(&self.settings, &committed.chains);
        if !batch.is_empty() {
            self.kernel.commit(&batch)?;
        }
        change.apply(committed);
        self.changed.clear();
        Ok(())
    }

    fn replace_table(&mut self) -> Result<(), KernelError> {
        let mut committed = Committed::default();
        let all = self.desired.ports.keys().cloned().collect();
        let change = Change::between(&committed, &self.desired, &all);
        let mut batch = skeleton(&self.settings);
        batch
            .operations
            .extend(change.batch(&self.settings, &committed.chains).operations);
        self.kernel.commit(&batch)?;
        change.apply(&mut committed);
        info!(servicePorts = committed.ports.len(), family = ?self.settings.family, "Replaced the nftables table");
        self.committed = Some(committed);
        self.changed.clear();
        Ok(())
    }

    /// Removes the table: `--cleanup`.
    pub fn cleanup(&mut self) -> Result<(), KernelError> {
        let mut batch = Batch::new(self.settings.family, TABLE);
        batch.push(Operation::DeleteTable);
        self.kernel.commit(&batch)
    }
}

/// The difference between what is committed and what is desired, for the ports that changed.
struct Change {
    ports: Vec<(ServicePortName, Option<Contribution>)>,
    add: Vec<Element>,
    delete: Vec<Element>,
    shared: HashMap<Element, i64>,
    chains: BTreeSet<Chain>,
}

impl Change {
    fn between(committed: &Committed, desired: &Desired, changed: &BTreeSet<ServicePortName>) -> Self {
        let mut change = Self {
            ports: Vec::new(),
            add: Vec::new(),
            delete: Vec::new(),
            shared: HashMap::new(),
            chains: BTreeSet::new(),
        };
        for name in changed {
            let new = desired.contribution(name);
            change.port(committed.ports.get(name), new.as_ref());
            change.ports.push((name.clone(), new));
        }
        change.count_shared(committed);
        change
    }

    fn port(&mut self, old: Option<&Contribution>, new: Option<&Contribution>) {
        let elements = |side: Option<&Contribution>| -> HashSet<Element> {
            side.map(|side| side.elements.iter().cloned().collect())
                .unwrap_or_default()
        };
        let (before, after) = (elements(old), elements(new));
        self.delete.extend(before.difference(&after).cloned());
        self.add.extend(after.difference(&before).cloned());
        for element in old.into_iter().flat_map(|old| &old.shared) {
            *self.shared.entry(element.clone()).or_default() -= 1;
        }
        for element in new.into_iter().flat_map(|new| &new.shared) {
            *self.shared.entry(element.clone()).or_default() += 1;
        }
        self.chains
            .extend(new.into_iter().flat_map(|new| new.chains.iter().cloned()));
    }

    fn count_shared(&mut self, committed: &Committed) {
        for (element, delta) in &self.shared {
            let before = i64::from(committed.shared.get(element).copied().unwrap_or(0));
            match (before > 0, before + delta > 0) {
                (false, true) => self.add.push(element.clone()),
                (true, false) => self.delete.push(element.clone()),
                _ => (),
            }
        }
    }

    /// Deletions stand before additions, so that an element may change its value and a frontend its Service.
    fn batch(&self, settings: &Settings, known: &HashSet<Chain>) -> Batch {
        let mut batch = Batch::new(settings.family, TABLE);
        for chain in self.new_chains(known) {
            batch.push(Operation::AddChain {
                name: chain.to_string(),
                hook: None,
            });
            for rule in chain.rules(settings) {
                batch.push(Operation::AddRule {
                    chain: chain.to_string(),
                    rule,
                });
            }
        }
        batch.delete_elements(self.delete.clone());
        batch.add_elements(self.add.clone());
        batch
    }

    /// Each chain behind those that its rules go to.
    fn new_chains(&self, known: &HashSet<Chain>) -> Vec<Chain> {
        let mut new = Vec::new();
        for chain in &self.chains {
            for chain in chain.needs().into_iter().chain([chain.clone()]) {
                if !known.contains(&chain) && !new.contains(&chain) {
                    new.push(chain);
                }
            }
        }
        new
    }

    fn apply(self, committed: &mut Committed) {
        let new_chains = self.new_chains(&committed.chains);
        committed.chains.extend(new_chains);
        for (element, delta) in self.shared {
            let count = i64::from(committed.shared.get(&element).copied().unwrap_or(0)) + delta;
            if count > 0 {
                committed.shared.insert(element, count as u32);
            } else {
                committed.shared.remove(&element);
            }
        }
        for (name, contribution) in self.ports {
            match contribution {
                Some(contribution) => committed.ports.insert(name, contribution),
                None => committed.ports.remove(&name),
            };
        }
    }
}
