//! Services: addresses and node ports out of the cluster's ranges, kept for as long as the Service needs them.
//!
//! `begin` runs just before the write and puts what it reserved into the object; a write that fails gives it back. The books
//! follow the store's events, so another server's Services are known here as soon as they are stored.

use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::Meta;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use futures_util::future::BoxFuture;

use crate::registry::store::Store;
use crate::registry::strategy::{NameRule, Request, Rollback, Strategy};

pub mod allocator;
mod families;
mod validate;

use allocator::{Addresses, NodePorts};

pub struct ServiceStrategy {
    pub addresses: Arc<Addresses>,
    pub ports: Arc<NodePorts>,
}

const SPEC: Path<'static> = Path::new("spec");

/// Fields that only Services with an address of their own have.
fn needs_address(service: &Value) -> bool {
    service.str_at("spec.type") != "ExternalName" && service.str_at("spec.clusterIP") != "None"
}

fn needs_ports(service: &Value) -> bool {
    match service.str_at("spec.type") {
        "NodePort" => true,
        "LoadBalancer" => service
            .at("spec.allocateLoadBalancerNodePorts")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        _ => false,
    }
}

fn needs_health_port(service: &Value) -> bool {
    service.str_at("spec.type") == "LoadBalancer" && service.str_at("spec.externalTrafficPolicy") == "Local"
}

impl Strategy for ServiceStrategy {
    fn name_rule(&self) -> NameRule {
        NameRule::Label1035
    }

    fn validates_required_fields(&self) -> bool {
        true
    }

    fn prepare_create(&self, _: &Request<'_>, service: &mut Value) {
        drop_unneeded(service);
        families::complete(service, self.addresses.families());
    }

    fn prepare_update(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        if request.subresource == "status" {
            return;
        }
        keep_allocations(new, old);
        drop_unneeded(new);
        families::complete(new, self.addresses.families());
    }

    fn validate_create(&self, _: &Request<'_>, service: &Value) -> ErrorList {
        validate::create(service, self.addresses.families())
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        if request.subresource == "status" {
            ErrorList::new()
        } else {
            validate::update(new, old, self.addresses.families())
        }
    }

    fn begin<'a>(
        &'a self,
        request: &'a Request<'a>,
        service: &'a mut Value,
        old: Option<&'a Value>,
    ) -> Option<BoxFuture<'a, Result<Option<Rollback>, StatusError>>> {
        if request.subresource == "status" {
            return None;
        }
        Some(Box::pin(async move { self.reserve(service, old).map(Some) }))
    }

    fn attach(&self, store: &Store) {
        let (addresses, ports) = (self.addresses.clone(), self.ports.clone());
        store.observe(move |event| {
            addresses.follow(event);
            ports.follow(event);
        });
    }
}

impl ServiceStrategy {
    fn reserve(&self, service: &mut Value, old: Option<&Value>) -> Result<Rollback, StatusError> {
        let mut taken = Reservation {
            addresses: self.addresses.clone(),
            ports: self.ports.clone(),
            ips: Vec::new(),
            numbers: Vec::new(),
        };
        let result = self.reserve_all(service, old, &mut taken);
        match result {
            Ok(()) => Ok(Box::new(move || taken.give_back())),
            Err(error) => {
                taken.give_back();
                Err(status::invalid("", "Service", service.name(), &vec![error]))
            }
        }
    }

    fn reserve_all(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &mut Reservation,
    ) -> Result<(), field::Error> {
        if needs_address(service) {
            self.reserve_addresses(service, old, taken)?;
        }
        if needs_ports(service) {
            self.reserve_ports(service, old, taken)?;
        }
        if needs_health_port(service) {
            self.reserve_health_port(service, old, taken)?;
        }
        Ok(())
    }

    fn reserve_addresses(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &mut Reservation,
    ) -> Result<(), field::Error> {
        let has: Vec<String> = texts(service.list_at("spec.clusterIPs"));
        let had: Vec<String> = old
            .map(|old| texts(old.list_at("spec.clusterIPs")))
            .unwrap_or_default();
        let families = texts(service.list_at("spec.ipFamilies"));
        let mut ips = Vec::new();
        for (i, family) in families.iter().enumerate() {
            let ip = match has.get(i).filter(|ip| !ip.is_empty()) {
                Some(ip) if had.contains(ip) => ip.clone(),
                Some(ip) => taken.address(ip).map_err(|why| {
                    let shown = Value::from(has.clone());
                    field::invalid(
                        &SPEC.child("clusterIPs"),
                        shown,
                        format!("failed to allocate IP {ip}: {why}"),
                    )
                })?,
                None => taken.any_address(family).map_err(|why| {
                    field::internal(
                        &SPEC.child("clusterIPs"),
                        format!("failed to allocate a serviceIP: {why}"),
                    )
                })?,
            };
            ips.push(ip);
        }
        if let Some(first) = ips.first() {
            service.set_at("spec.clusterIP", first.clone());
        }
        service.set_at("spec.clusterIPs", ips);
        Ok(())
    }

    fn reserve_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &mut Reservation,
    ) -> Result<(), field::Error> {
        let had = old.map(node_ports).unwrap_or_default();
        // One number serves the same port under several protocols.
        let mut given: Vec<(i64, String, u16)> = Vec::new();
        let list = SPEC.child("ports");
        for (i, port) in service.list_at_mut("spec.ports").iter_mut().enumerate() {
            let at = list.index(i);
            let at = at.child("nodePort");
            let (number, protocol) = (
                port.int_at("port").unwrap_or(0),
                port.str_at("protocol").to_owned(),
            );
            let wanted = port.int_at("nodePort").filter(|n| *n != 0);
            let shared = given.iter().find(|(n, p, assigned)| {
                *n == number && *p != protocol && wanted.is_none_or(|w| w == i64::from(*assigned))
            });
            let assigned = match (wanted, shared) {
                (_, Some((_, _, assigned))) => *assigned,
                (Some(wanted), None) => {
                    let known = u16::try_from(wanted)
                        .ok()
                        .filter(|w| had.contains(w) || given.iter().any(|g| g.2 == *w));
                    match known {
                        Some(known) => known,
                        None => taken
                            .port(wanted)
                            .map_err(|why| field::invalid(&at, wanted, why))?,
                    }
                }
                (None, None) => taken.any_port().map_err(|why| field::internal(&at, why))?,
            };
            port.set("nodePort", i64::from(assigned));
            given.push((number, protocol, assigned));
        }
        Ok(())
    }

    fn reserve_health_port(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &mut Reservation,
    ) -> Result<(), field::Error> {
        let path = SPEC.child("healthCheckNodePort");
        let had = old
            .and_then(|old| old.int_at("spec.healthCheckNodePort"))
            .unwrap_or(0);
        let assigned = match service.int_at("spec.healthCheckNodePort").filter(|n| *n != 0) {
            Some(wanted) if wanted == had => return Ok(()),
            Some(wanted) => taken
                .port(wanted)
                .map_err(|why| field::invalid(&path, wanted, why))?,
            None => taken.any_port().map_err(|why| field::internal(&path, why))?,
        };
        service.set_at("spec.healthCheckNodePort", i64::from(assigned));
        Ok(())
    }
}

/// What one write has reserved so far.
struct Reservation {
    addresses: Arc<Addresses>,
    ports: Arc<NodePorts>,
    ips: Vec<String>,
    numbers: Vec<u16>,
}

impl Reservation {
    fn address(&mut self, ip: &str) -> Result<String, String> {
        self.addresses.take(ip)?;
        self.ips.push(ip.to_owned());
        Ok(ip.to_owned())
    }

    fn any_address(&mut self, family: &str) -> Result<String, String> {
        let ip = self.addresses.take_any(family)?;
        self.ips.push(ip.clone());
        Ok(ip)
    }

    fn port(&mut self, number: i64) -> Result<u16, String> {
        let number = self.ports.take(number)?;
        self.numbers.push(number);
        Ok(number)
    }

    fn any_port(&mut self) -> Result<u16, String> {
        let number = self.ports.take_any()?;
        self.numbers.push(number);
        Ok(number)
    }

    fn give_back(self) {
        self.ips.iter().for_each(|ip| self.addresses.give_back(ip));
        self.numbers
            .iter()
            .for_each(|number| self.ports.give_back(*number));
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// All node ports a Service holds, the health check's among them.
fn node_ports(service: &Value) -> Vec<u16> {
    let ports = service
        .list_at("spec.ports")
        .iter()
        .filter_map(|port| port.int_at("nodePort"));
    ports
        .chain(service.int_at("spec.healthCheckNodePort"))
        .filter_map(|n| u16::try_from(n).ok())
        .filter(|n| *n != 0)
        .collect()
}

/// Clients send back what they know of; allocated fields they leave out stay as they are.
fn keep_allocations(new: &mut Value, old: &Value) {
    if needs_address(old) && needs_address(new) {
        if new.str_at("spec.clusterIP").is_empty() {
            new.set_at("spec.clusterIP", old.str_at("spec.clusterIP").to_owned());
        }
        if new.list_at("spec.clusterIPs").is_empty()
            && new.str_at("spec.clusterIP") == old.str_at("spec.clusterIP")
            && let Some(ips) = old.at("spec.clusterIPs")
        {
            new.set_at("spec.clusterIPs", ips.clone());
        }
    }
    if needs_ports(old) && needs_ports(new) {
        let before: Vec<Value> = old.list_at("spec.ports").to_vec();
        for port in new
            .list_at_mut("spec.ports")
            .iter_mut()
            .filter(|port| port.int_at("nodePort").unwrap_or(0) == 0)
        {
            let same = |b: &&Value| {
                b.int_at("port") == port.int_at("port") && b.str_at("protocol") == port.str_at("protocol")
            };
            if let Some(number) = before
                .iter()
                .find(same)
                .and_then(|b| b.int_at("nodePort"))
                .filter(|n| *n != 0)
            {
                port.set("nodePort", number);
            }
        }
    }
    if needs_health_port(old)
        && needs_health_port(new)
        && new.int_at("spec.healthCheckNodePort").unwrap_or(0) == 0
        && let Some(number) = old.int_at("spec.healthCheckNodePort").filter(|n| *n != 0)
    {
        new.set_at("spec.healthCheckNodePort", number);
    }
}

/// After a change of type, what the new type has no use for goes, as long as the client did not ask for it anew.
fn drop_unneeded(service: &mut Value) {
    let kind = service.str_at("spec.type").to_owned();
    if kind == "ExternalName" {
        for name in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            service.remove_at(&format!("spec.{name}"));
        }
    }
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        for port in service.list_at_mut("spec.ports") {
            port.remove("nodePort");
        }
        service.remove_at("spec.externalTrafficPolicy");
    }
    if kind != "LoadBalancer" {
        service.remove_at("spec.allocateLoadBalancerNodePorts");
        service.remove_at("spec.loadBalancerClass");
        service.remove_at("spec.healthCheckNodePort");
    }
}
