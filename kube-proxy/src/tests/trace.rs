//! A small machine that runs the batches' rules on packets, as the kernel would: sets, chains, registers.
//!
//! It interprets what is sent to the kernel, not what was meant: keys are compared byte by byte.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::nft::batch::{Element, Value};
use crate::nft::expr::Reg;
use crate::nft::{Batch, Compare, Expr, Family, Operation, Verdict};

#[derive(Clone)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub port: u16,
    pub protocol: u8,
    pub local_addresses: Vec<IpAddr>,
    /// What the kernel's random generator gives, before the modulus.
    pub random: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Passed,
    Dropped,
    Rejected {
        tcp_reset: bool,
    },
    Sent {
        address: IpAddr,
        port: u16,
        masqueraded: bool,
    },
}

#[derive(Default)]
pub struct World {
    sets: HashMap<&'static str, BTreeMap<Vec<u8>, Value>>,
    chains: HashMap<String, Vec<Vec<Expr>>>,
}

/// The packet on its way, and the registers.
struct Machine<'a> {
    world: &'a mut World,
    packet: Packet,
    mark: u32,
    destination_nat: bool,
    masqueraded: bool,
    registers: [u8; 64],
}

enum Outcome {
    /// On with the next rule.
    Next,
    Return,
    End(Fate),
    /// DNAT and masquerade end the hook.
    Accepted,
}

impl World {
    pub fn replay(batches: &[Batch]) -> Self {
        let mut world = Self::default();
        batches.iter().for_each(|batch| world.apply(batch));
        world
    }

    pub fn apply(&mut self, batch: &Batch) {
        assert_eq!(batch.family, Family::Ipv4);
        for operation in &batch.operations {
            self.operation(operation);
        }
    }

    /// As strict as the kernel: no element twice, none deleted that is not there, no verdict to an unknown chain.
    fn operation(&mut self, operation: &Operation) {
        match operation {
            Operation::ReplaceTable | Operation::DeleteTable => *self = Self::default(),
            Operation::AddChain { name, .. } => assert!(
                self.chains.insert(name.clone(), Vec::new()).is_none(),
                "chain {name} twice"
            ),
            Operation::AddRule { chain, rule } => {
                rule.iter().for_each(|expr| {
                    if let Expr::Verdict(verdict) = expr {
                        self.check_verdict(verdict)
                    }
                });
                self.chains
                    .get_mut(chain)
                    .expect("rule of an unknown chain")
                    .push(rule.clone());
            }
            Operation::AddSet(spec) => drop(self.sets.insert(spec.name, BTreeMap::new())),
            Operation::AddElements(set, elements) => {
                elements.iter().for_each(|element| self.add(set, element))
            }
            Operation::DeleteElements(set, elements) => {
                for element in elements {
                    assert!(
                        self.sets.get_mut(set).unwrap().remove(&element.key).is_some(),
                        "{element:?} was not there"
                    );
                }
            }
        }
    }

    fn add(&mut self, set: &str, element: &Element) {
        if let Value::Verdict(verdict) = &element.value {
            self.check_verdict(verdict);
        }
        let before = self
            .sets
            .get_mut(set)
            .unwrap()
            .insert(element.key.clone(), element.value.clone());
        assert!(before.is_none(), "{element:?} twice");
    }

    fn check_verdict(&self, verdict: &Verdict) {
        if let Verdict::Goto(chain) | Verdict::Jump(chain) = verdict {
            assert!(
                self.chains.contains_key(chain),
                "verdict to unknown chain {chain}"
            );
        }
    }

    pub fn elements(&self) -> BTreeMap<(&'static str, Vec<u8>), Value> {
        self.sets
            .iter()
            .flat_map(|(set, elements)| {
                elements
                    .iter()
                    .map(|(key, value)| ((*set, key.clone()), value.clone()))
            })
            .collect()
    }

    /// The hooks in the kernel's order: NAT before routing, filters, NAT after routing.
    pub fn send(&mut self, packet: &Packet) -> Fate {
        let local_source = packet.local_addresses.contains(&packet.source);
        let mut machine = Machine {
            world: self,
            packet: packet.clone(),
            mark: 0,
            destination_nat: false,
            masqueraded: false,
            registers: [0; 64],
        };
        let local_destination = |machine: &Machine<'_>| {
            machine
                .packet
                .local_addresses
                .contains(&machine.packet.destination)
        };
        let mut hooks = match local_source {
            true => vec!["filter-output-pre-dnat", "nat-output"],
            false => vec!["filter-prerouting-pre-dnat", "nat-prerouting"],
        };
        if let Some(fate) = machine.hooks(&hooks) {
            return fate;
        }
        hooks = match (local_source, local_destination(&machine)) {
            (true, _) => vec!["filter-output", "nat-postrouting"],
            (false, true) => vec!["filter-input"],
            (false, false) => vec!["filter-forward", "nat-postrouting"],
        };
        if let Some(fate) = machine.hooks(&hooks) {
            return fate;
        }
        match machine.destination_nat {
            true => Fate::Sent {
                address: machine.packet.destination,
                port: machine.packet.port,
                masqueraded: machine.masqueraded,
            },
            false => Fate::Passed,
        }
    }
}

impl Machine<'_> {
    fn hooks(&mut self, hooks: &[&str]) -> Option<Fate> {
        hooks.iter().find_map(|hook| match self.chain(hook) {
            Outcome::End(fate) => Some(fate),
            _ => None,
        })
    }

    fn chain(&mut self, name: &str) -> Outcome {
        for rule in self.world.chains[name].clone() {
            match self.rule(&rule) {
                Outcome::Next => (),
                Outcome::Return => return Outcome::Next,
                ended => return ended,
            }
        }
        Outcome::Next
    }

    fn rule(&mut self, rule: &[Expr]) -> Outcome {
        for expr in rule {
            match self.expression(expr) {
                Some(Outcome::Next) => return Outcome::Next,
                Some(outcome) => return outcome,
                None => (),
            }
        }
        Outcome::Next
    }

    /// None goes on with the next expression.
    fn expression(&mut self, expr: &Expr) -> Option<Outcome> {
        match expr {
            Expr::SourceAddress(reg) => self.load(*reg, &octets(self.packet.source)),
            Expr::DestinationAddress(reg) => self.load(*reg, &octets(self.packet.destination)),
            Expr::DestinationPort(reg) => self.load(*reg, &self.packet.port.to_be_bytes()),
            Expr::L4Protocol(reg) => self.load(*reg, &[self.packet.protocol]),
            Expr::Mark(reg) => self.load(*reg, &self.mark.to_ne_bytes()),
            Expr::SetMark(reg) => self.mark = u32::from_ne_bytes(self.read(*reg, 4).try_into().unwrap()),
            Expr::SourceAddressType(reg) => self.load_type(*reg, self.packet.source),
            Expr::DestinationAddressType(reg) => self.load_type(*reg, self.packet.destination),
            Expr::ConntrackState(reg) => self.load(*reg, &(1u32 << 3).to_ne_bytes()),
            Expr::ConntrackStatus(reg) => {
                self.load(*reg, &(u32::from(self.destination_nat) << 5).to_ne_bytes())
            }
            Expr::Bitwise { reg, mask, xor } => {
                let value: Vec<u8> = self
                    .read(*reg, mask.len())
                    .iter()
                    .zip(mask)
                    .zip(xor)
                    .map(|((value, mask), xor)| (value & mask) ^ xor)
                    .collect();
                self.load(*reg, &value);
            }
            Expr::Compare { op, reg, data } => return self.compare(*op, *reg, data),
            Expr::Lookup { set, key, into } => return self.lookup(set, *key, *into),
            Expr::VerdictMap { set, key } => match self.find(set, *key) {
                Some(Value::Verdict(verdict)) => return Some(self.verdict(&verdict)),
                found => assert!(found.is_none()),
            },
            Expr::Random {
                into,
                modulus,
                offset,
            } => self.load(*into, &(offset + self.packet.random % modulus).to_ne_bytes()),
            Expr::Update { set, key, value, .. } => {
                // As the kernel: an element that is there keeps its value.
                let (key, value) = (self.read(*key, key_len(set)), self.read(*value, 8));
                self.world
                    .sets
                    .get_mut(set)
                    .unwrap()
                    .entry(key)
                    .or_insert(Value::Data(value));
            }
            Expr::Forget { set, key, .. } => {
                let key = self.read(*key, key_len(set));
                self.world.sets.get_mut(set).unwrap().remove(&key);
            }
            Expr::DestinationNat { address, port } => return Some(self.destination_nat(*address, *port)),
            Expr::Masquerade => {
                self.masqueraded = true;
                return Some(Outcome::Accepted);
            }
            Expr::Reject { tcp } => return Some(Outcome::End(Fate::Rejected { tcp_reset: *tcp })),
            Expr::Verdict(verdict) => return Some(self.verdict(verdict)),
        }
        None
    }

    fn destination_nat(&mut self, address: Reg, port: Reg) -> Outcome {
        self.packet.destination = IpAddr::from(<[u8; 4]>::try_from(self.read(address, 4)).unwrap());
        self.packet.port = u16::from_be_bytes(self.read(port, 2).try_into().unwrap());
        self.destination_nat = true;
        Outcome::Accepted
    }

    fn compare(&self, op: Compare, reg: Reg, data: &[u8]) -> Option<Outcome> {
        let holds = (self.read(reg, data.len()) == data) == (op == Compare::Equal);
        (!holds).then_some(Outcome::Next)
    }

    fn lookup(&mut self, set: &str, key: Reg, into: Option<Reg>) -> Option<Outcome> {
        match (self.find(set, key), into) {
            (None, _) => return Some(Outcome::Next),
            (Some(Value::Data(data)), Some(into)) => self.load(into, &data),
            _ => (),
        }
        None
    }

    fn find(&self, set: &str, key: Reg) -> Option<Value> {
        self.world.sets[set].get(&self.read(key, key_len(set))).cloned()
    }

    fn verdict(&mut self, verdict: &Verdict) -> Outcome {
        match verdict {
            Verdict::Drop => Outcome::End(Fate::Dropped),
            Verdict::Return => Outcome::Return,
            Verdict::Jump(chain) => self.chain(chain),
            Verdict::Goto(chain) => match self.chain(chain) {
                Outcome::Next => Outcome::Return,
                ended => ended,
            },
        }
    }

    /// As the kernel, fills the last register's rest with zeroes.
    fn load(&mut self, reg: Reg, value: &[u8]) {
        let at = usize::from(reg.0) * 4;
        self.registers[at..at + value.len().next_multiple_of(4)].fill(0);
        self.registers[at..at + value.len()].copy_from_slice(value);
    }

    fn load_type(&mut self, reg: Reg, address: IpAddr) {
        let local = self.packet.local_addresses.contains(&address);
        self.load(reg, &(if local { 2u32 } else { 1 }).to_ne_bytes());
    }

    fn read(&self, reg: Reg, len: usize) -> Vec<u8> {
        let at = usize::from(reg.0) * 4;
        self.registers[at..at + len].to_vec()
    }
}

fn key_len(set: &str) -> usize {
    let spec = crate::ruleset::ALL_SETS
        .iter()
        .find(|spec| spec.name == set)
        .expect("a declared set");
    crate::nft::concatenation(spec.key, Family::Ipv4).0 as usize
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
