//! Endpoints from DNS SRV records: `_etcd-client-ssl._tcp.DOMAIN` and `_etcd-client._tcp.DOMAIN`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::Error;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What fits a UDP answer without extensions is 512 bytes; servers that send more are read up to here.
const MAX_ANSWER: usize = 4096;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
/// A name has at most 128 labels; more jumps than that is a loop.
const MAX_LABELS: usize = 128;

/// URLs of both services, TLS first. An error when neither has records.
pub async fn endpoints(domain: &str, service_name: &str) -> Result<Vec<String>, Error> {
    let secure = lookup(&service("etcd-client-ssl", service_name), domain).await;
    let plain = lookup(&service("etcd-client", service_name), domain).await;
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(Error::text(format!("dns lookup errors: {secure} and {plain}")));
    }
    let urls = |scheme: &'static str, found: Result<Vec<Target>, String>| {
        let found = found.unwrap_or_default();
        found
            .into_iter()
            .map(move |target| format!("{scheme}://{}:{}", target.host, target.port))
    };
    Ok(urls("https", secure).chain(urls("http", plain)).collect())
}

fn service(service: &str, name: &str) -> String {
    if name.is_empty() {
        service.to_owned()
    } else {
        format!("{service}-{name}")
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    priority: u16,
    /// With its final dot, as Go gives it.
    host: String,
    port: u16,
}

async fn lookup(service: &str, domain: &str) -> Result<Vec<Target>, String> {
    let name = format!("_{service}._tcp.{}", domain.trim_end_matches('.'));
    let mut last = format!("lookup {name}: no such host");
    for server in servers() {
        match tokio::time::timeout(ANSWER_WITHIN, ask(server, &name)).await {
            Ok(Ok(targets)) if !targets.is_empty() => return Ok(targets),
            Ok(Ok(_)) => return Err(format!("lookup {name} on {server}: no such host")),
            Ok(Err(error)) => last = format!("lookup {name} on {server}: {error}"),
            Err(_) => last = format!("lookup {name} on {server}: i/o timeout"),
        }
    }
    Err(last)
}

fn servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let addresses = text.lines().filter_map(|line| {
        let address: IpAddr = line.trim().strip_prefix("nameserver")?.trim().parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    addresses.collect()
}

async fn ask(server: SocketAddr, name: &str) -> std::io::Result<Vec<Target>> {
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    let id: u16 = rand::random();
    socket.send(&question(id, name)).await?;
    let mut answer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut answer).await?;
        // An answer to another question is somebody's guess.
        if answer.get(..2) == Some(&id.to_be_bytes()) {
            let mut targets = parse(&answer[..length]).unwrap_or_default();
            targets.sort_by_key(|target| target.priority);
            return Ok(targets);
        }
    }
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let label = &label.as_bytes()[..label.len().min(63)];
        packet.push(label.len() as u8);
        packet.extend_from_slice(label);
    }
    packet.push(0);
    packet.extend_from_slice(&TYPE_SRV.to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    packet
}

fn parse(packet: &[u8]) -> Option<Vec<Target>> {
    let questions = u16_at(packet, 4)?;
    let answers = u16_at(packet, 6)?;
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(packet, at)?.1 + 4;
    }
    let mut targets = Vec::new();
    for _ in 0..answers {
        let record = name_at(packet, at)?.1;
        let length = usize::from(u16_at(packet, record + 8)?);
        let data = record + 10;
        if u16_at(packet, record)? == TYPE_SRV {
            targets.push(Target {
                priority: u16_at(packet, data)?,
                port: u16_at(packet, data + 4)?,
                host: name_at(packet, data + 6)?.0,
            });
        }
        at = data + length;
    }
    Some(targets)
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

/// A name, following compression, and where the record goes on behind it.
fn name_at(packet: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut end, mut name) = (start, None, String::new());
    for _ in 0..MAX_LABELS {
        let length = *packet.get(at)?;
        if length == 0 {
            return Some((name, end.unwrap_or(at + 1)));
        }
        if length & 0xc0 == 0xc0 {
            end = end.or(Some(at + 2));
            at = usize::from(u16_at(packet, at)? & 0x3fff);
            continue;
        }
        let label = packet.get(at + 1..at + 1 + usize::from(length))?;
        name.push_str(&String::from_utf8_lossy(label));
        name.push('.');
        at += 1 + usize::from(length);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_loops_are_not_followed() {
        let mut packet = question(7, "_etcd-client._tcp.example.org");
        packet[7] = 1;
        packet.extend_from_slice(&[
            0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10, 0, 1, 0, 2, 0x09, 0x4b, 1, b'a', 0xc0, 30,
        ]);
        let name = name_at(&packet, 30).unwrap().0;
        assert_eq!(
            parse(&packet).unwrap(),
            [Target {
                priority: 1,
                host: format!("a.{name}"),
                port: 2379
            }]
        );
        assert!(name_at(&[0xc0, 0], 0).is_none());
        assert!(parse(&packet[..packet.len() - 3]).is_none());
    }
}
