//! Which addresses and node ports are taken.
//!
//! A value is taken from the moment a write reserves it until the event of its Service's change or deletion says that it is free.
//! Explicitly asked values and free choices come from different ends of a range, so that they seldom collide.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use apimachinery::value::Value;
use parking_lot::Mutex;
use rand::Rng;

use super::{node_ports, texts};
use crate::options::cidr::Cidr;
use crate::storage::watch_cache::{EventKind, WatchEvent};

/// Random tries before the range is walked.
const RANDOM_TRIES: usize = 16;

pub struct Addresses {
    ranges: Vec<Cidr>,
    families: Vec<&'static str>,
    taken: Mutex<HashSet<IpAddr>>,
}

impl Addresses {
    pub fn new(ranges: &[Cidr]) -> Addresses {
        let families = ranges
            .iter()
            .map(|range| if range.is_ipv4() { "IPv4" } else { "IPv6" })
            .collect();
        Addresses {
            ranges: ranges.to_vec(),
            families,
            taken: Mutex::default(),
        }
    }

    pub fn families(&self) -> &[&'static str] {
        &self.families
    }

    pub fn take(&self, text: &str) -> Result<(), String> {
        let address: IpAddr = text.parse().map_err(|_| "not a valid IP address".to_owned())?;
        let range = self.ranges.iter().find(|range| range.contains(address));
        let Some(range) = range.filter(|range| usable(range, address)) else {
            let list = self
                .ranges
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {list}"
            ));
        };
        debug_assert!(range.contains(address));
        match self.taken.lock().insert(address) {
            true => Ok(()),
            false => Err("provided IP is already allocated".to_owned()),
        }
    }

    pub fn take_any(&self, family: &str) -> Result<String, String> {
        let at = self
            .families
            .iter()
            .position(|f| *f == family)
            .ok_or_else(|| format!("no {family} range is configured"))?;
        let range = &self.ranges[at];
        let mut taken = self.taken.lock();
        let found = free_in(range, |address| !taken.contains(&address));
        let address = found.ok_or("range is full")?;
        taken.insert(address);
        Ok(address.to_string())
    }

    pub fn give_back(&self, text: &str) {
        if let Ok(address) = text.parse() {
            self.taken.lock().remove(&address);
        }
    }

    pub fn follow(&self, event: &WatchEvent) {
        let now = if event.kind == EventKind::Deleted {
            Vec::new()
        } else {
            texts(event.object.value().list_at("spec.clusterIPs"))
        };
        let before = event
            .previous
            .as_ref()
            .map(|p| texts(p.value().list_at("spec.clusterIPs")))
            .unwrap_or_default();
        let mut taken = self.taken.lock();
        before
            .iter()
            .filter(|ip| !now.contains(ip))
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .for_each(|ip| {
                taken.remove(&ip);
            });
        taken.extend(now.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
    }
}

/// Network and (IPv4) broadcast addresses serve nobody.
fn usable(range: &Cidr, address: IpAddr) -> bool {
    let Some(offset) = range.offset(address) else {
        return false;
    };
    offset > 0 && !(range.is_ipv4() && range.size() > 2 && offset == range.size() - 1)
}

/// The lower part of a range is left to addresses that people choose (the DNS service's, say).
fn reserved_offsets(size: u128) -> u128 {
    if size <= 32 { 0 } else { (size / 16).clamp(16, 256) }
}

fn free_in(range: &Cidr, free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let size = range.size();
    let low = reserved_offsets(size);
    let mut rng = rand::rng();
    let candidate =
        |offset: u128| Some(range.nth(offset)).filter(|address| usable(range, *address) && free(*address));
    let random = (0..RANDOM_TRIES).find_map(|_| candidate(rng.random_range(low..size)));
    random.or_else(|| (low..size).chain(0..low).take(1 << 20).find_map(candidate))
}

pub struct NodePorts {
    first: u16,
    last: u16,
    /// How many Services hold a port: a change of type may let two hold it for a moment.
    taken: Mutex<HashMap<u16, u32>>,
}

impl NodePorts {
    pub fn new((first, last): (u16, u16)) -> NodePorts {
        NodePorts {
            first,
            last,
            taken: Mutex::default(),
        }
    }

    pub fn take(&self, number: i64) -> Result<u16, String> {
        let port = u16::try_from(number)
            .ok()
            .filter(|port| (self.first..=self.last).contains(port));
        let Some(port) = port else {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.first, self.last
            ));
        };
        let mut taken = self.taken.lock();
        if taken.contains_key(&port) {
            return Err("provided port is already allocated".to_owned());
        }
        taken.insert(port, RESERVED);
        Ok(port)
    }

    pub fn take_any(&self) -> Result<u16, String> {
        let mut taken = self.taken.lock();
        let mut rng = rand::rng();
        let random = (0..RANDOM_TRIES)
            .map(|_| rng.random_range(self.first..=self.last))
            .find(|port| !taken.contains_key(port));
        let found = random.or_else(|| (self.first..=self.last).find(|port| !taken.contains_key(port)));
        let port = found.ok_or_else(|| "failed to allocate a nodePort: range is full".to_owned())?;
        taken.insert(port, RESERVED);
        Ok(port)
    }

    pub fn give_back(&self, port: u16) {
        let mut taken = self.taken.lock();
        if taken.get(&port) == Some(&RESERVED) {
            taken.remove(&port);
        }
    }

    pub fn follow(&self, event: &WatchEvent) {
        let ports = |value: &Value| {
            let mut ports = node_ports(value);
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let now = if event.kind == EventKind::Deleted {
            Vec::new()
        } else {
            ports(&event.object.value())
        };
        let before = event
            .previous
            .as_ref()
            .map(|p| ports(&p.value()))
            .unwrap_or_default();
        let mut taken = self.taken.lock();
        for port in now.iter().filter(|port| !before.contains(port)) {
            *taken.entry(*port).or_insert(RESERVED) += 1;
        }
        for port in before.iter().filter(|port| !now.contains(port)) {
            if let Some(holders) = taken.get_mut(port) {
                *holders = holders.saturating_sub(1);
                if *holders == RESERVED {
                    taken.remove(port);
                }
            }
        }
    }
}

/// Holders of a port that a write has reserved and no stored Service has yet.
const RESERVED: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_once() {
        let addresses = Addresses::new(&["10.0.0.0/29".parse().unwrap()]);
        addresses.take("10.0.0.1").unwrap();
        assert_eq!(
            addresses.take("10.0.0.1").unwrap_err(),
            "provided IP is already allocated"
        );
        let mut rest: Vec<String> = (0..5).map(|_| addresses.take_any("IPv4").unwrap()).collect();
        rest.sort();
        assert_eq!(rest, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(addresses.take_any("IPv4").unwrap_err(), "range is full");
        addresses.give_back("10.0.0.4");
        assert_eq!(addresses.take_any("IPv4").unwrap(), "10.0.0.4");
    }

    #[test]
    fn addresses_outside_of_the_range_are_refused() {
        let addresses = Addresses::new(&["10.0.0.0/24".parse().unwrap()]);
        for ip in ["10.0.1.1", "10.0.0.0", "10.0.0.255", "fd00::1"] {
            assert!(
                addresses.take(ip).unwrap_err().contains("not in the valid range"),
                "{ip}"
            );
        }
    }

    #[test]
    fn a_reserved_port_is_free_again_after_a_failed_write() {
        let ports = NodePorts::new((30000, 30001));
        assert_eq!(ports.take(30000), Ok(30000));
        assert!(ports.take(30000).is_err());
        assert!(ports.take(80).unwrap_err().contains("30000-30001"));
        assert_eq!(ports.take_any(), Ok(30001));
        assert!(ports.take_any().is_err());
        ports.give_back(30000);
        assert_eq!(ports.take_any(), Ok(30000));
    }
}
