//! Conntrack entries of UDP flows whose endpoint is gone.
//!
//! A UDP client that keeps its source port would be sent to a removed endpoint for as long as it talks, or into the void
//! if it began before the Service had endpoints. TCP notices; UDP does not, so those entries are deleted.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, recv, sendto};

use crate::nft::Family;
use crate::nft::kernel::open_netfilter_socket;
use crate::ruleset::{Protocol, ServicePort};

const SUBSYS_CTNETLINK: u16 = 1;
const GET: u16 = (SUBSYS_CTNETLINK << 8) | 1;
const DELETE: u16 = (SUBSYS_CTNETLINK << 8) | 2;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 20;
const DUMP_BYTES: usize = 256 * 1024;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

/// Which endpoints the frontends of changed Services may lead to now.
#[derive(Default)]
pub struct Expected {
    frontends: HashMap<(IpAddr, u16), HashSet<(IpAddr, u16)>>,
    node_ports: HashMap<u16, HashSet<(IpAddr, u16)>>,
}

impl Expected {
    /// A Service port as it was or as it is: `endpoints` are those that flows may keep.
    pub fn add(&mut self, port: &ServicePort, endpoints: &ServicePort) {
        if port.protocol != Protocol::Udp {
            return;
        }
        let allowed = || {
            endpoints
                .endpoints
                .iter()
                .chain(&endpoints.local_endpoints)
                .map(|endpoint| (endpoint.ip, endpoint.port))
        };
        // What was said of a frontend before no longer holds.
        for ip in port.external_ips().chain([port.cluster_ip]) {
            self.frontends.insert((ip, port.port), allowed().collect());
        }
        if let Some(node_port) = port.node_port {
            self.node_ports.insert(node_port, allowed().collect());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.node_ports.is_empty()
    }

    fn is_stale(&self, flow: &Flow) -> bool {
        let allowed = self
            .frontends
            .get(&flow.destination)
            .or_else(|| self.node_ports.get(&flow.destination.1));
        allowed.is_some_and(|allowed| !allowed.contains(&flow.answered_by))
    }
}

/// One conntrack entry: where the client sent to, who answers, and what names it to the kernel.
struct Flow {
    destination: (IpAddr, u16),
    answered_by: (IpAddr, u16),
    protocol: u8,
    identity: Vec<u8>,
}

/// Deletes stale UDP flows and returns how many.
pub fn reconcile(expected: &Expected, family: Family) -> io::Result<usize> {
    if expected.is_empty() {
        return Ok(0);
    }
    let stale: Vec<Flow> = dump(family)?
        .into_iter()
        .filter(|flow| flow.protocol == Protocol::Udp.number() && expected.is_stale(flow))
        .collect();
    let socket = open_netfilter_socket()?;
    for flow in &stale {
        send(&socket, &request(DELETE, ACK, family, &flow.identity))?;
        let mut answer = [0u8; 4096];
        // An entry that ended meanwhile answers "not found", which is as good.
        recv(&socket, &mut answer[..], RecvFlags::empty())?;
    }
    Ok(stale.len())
}

fn dump(family: Family) -> io::Result<Vec<Flow>> {
    let socket = open_netfilter_socket()?;
    send(&socket, &request(GET, DUMP, family, &[]))?;
    let mut flows = Vec::new();
    let mut buffer = vec![0u8; DUMP_BYTES];
    loop {
        let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..len];
        while let Some((kind, message, next)) = next_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(flows),
                NLMSG_ERROR => return Err(error_of(message)),
                _ => flows.extend(message.get(4..).and_then(flow)),
            }
            rest = next;
        }
    }
}

fn send(socket: &rustix::fd::OwnedFd, message: &[u8]) -> io::Result<()> {
    sendto(socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn request(kind: u16, flags: u16, family: Family, attributes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + attributes.len());
    out.extend_from_slice(&((HEADER + attributes.len()) as u32).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[family.nfproto(), 0, 0, 0]);
    out.extend_from_slice(attributes);
    out
}

fn error_of(message: &[u8]) -> io::Error {
    let code = message
        .first_chunk::<4>()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(-code)
}

/// Type, body behind the netlink header, and what follows.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(16..len)?;
    Some((kind, body, bytes.get(len.next_multiple_of(4)..).unwrap_or(&[])))
}

/// Attributes as (type without flags, body, whole with padding).
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let body = bytes.get(4..len)?;
        let whole = bytes.get(..len.next_multiple_of(4)).unwrap_or(bytes);
        bytes = &bytes[whole.len()..];
        Some((kind, body, whole))
    })
}

fn flow(message: &[u8]) -> Option<Flow> {
    let (mut original, mut reply, mut identity) = (None, None, Vec::new());
    for (kind, body, whole) in attributes(message) {
        match kind {
            TUPLE_ORIGINAL => {
                original = tuple(body);
                identity.extend_from_slice(whole);
            }
            TUPLE_REPLY => reply = tuple(body),
            ZONE => identity.extend_from_slice(whole),
            _ => (),
        }
    }
    let (original, reply) = (original?, reply?);
    Some(Flow {
        destination: original.destination,
        answered_by: reply.source,
        protocol: original.protocol,
        identity,
    })
}

struct Tuple {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut protocol, mut source_port, mut destination_port) =
        (None, None, None, None, None);
    for (kind, body, _) in attributes(bytes) {
        for (field, value, _) in attributes(body) {
            match (kind, field) {
                (TUPLE_IP, 1 | 3) => source = address(value),
                (TUPLE_IP, 2 | 4) => destination = address(value),
                (TUPLE_PROTO, 1) => protocol = value.first().copied(),
                (TUPLE_PROTO, 2) => source_port = value.first_chunk().map(|port| u16::from_be_bytes(*port)),
                (TUPLE_PROTO, 3) => {
                    destination_port = value.first_chunk().map(|port| u16::from_be_bytes(*port))
                }
                _ => (),
            }
        }
    }
    Some(Tuple {
        source: (source?, source_port?),
        destination: (destination?, destination_port?),
        protocol: protocol?,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
