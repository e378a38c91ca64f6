//! SRV and PTR records, which the standard library has no call for: one question to the servers of `/etc/resolv.conf`, over UDP, and over TCP when the answer
//! does not fit. Addresses of hosts are the C library's matter. A resolver's crate would bring dozens
//! of others along for this one question.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// A server gets this long for each of [`ATTEMPTS`]; the C library's defaults.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;
/// What fits a UDP answer without extensions is 512 bytes; servers that send more are read up to here.
const MAX_DATAGRAM: usize = 4096;
const TYPE_PTR: u16 = 12;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
const TRUNCATED: u8 = 0x02;
const NAME_ERROR: u8 = 3;
/// A name has at most 128 labels; more jumps than that is a loop.
const MAX_LABELS: usize = 128;
const MAX_LABEL: usize = 63;

/// Where one instance of a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    /// With its final dot.
    pub host: String,
    pub port: u16,
}

/// What an answer is read as.
trait Record: Sized {
    const TYPE: u16;

    /// From its data at `at`.
    fn read(packet: &[u8], at: usize) -> Option<Self>;
}

impl Record for Srv {
    const TYPE: u16 = TYPE_SRV;

    fn read(packet: &[u8], at: usize) -> Option<Srv> {
        Some(Srv {
            priority: u16_at(packet, at)?,
            weight: u16_at(packet, at + 2)?,
            port: u16_at(packet, at + 4)?,
            host: name_at(packet, at + 6)?.0,
        })
    }
}

/// The name of an address.
struct Ptr(String);

impl Record for Ptr {
    const TYPE: u16 = TYPE_PTR;

    fn read(packet: &[u8], at: usize) -> Option<Ptr> {
        Some(Ptr(name_at(packet, at)?.0))
    }
}

/// With Go's words.
#[derive(Debug, thiserror::Error)]
#[error("lookup {name}{on}: {reason}")]
pub struct LookupError {
    name: String,
    on: String,
    reason: String,
}

/// The records of `_service._tcp.domain`, those of the best priority first. None at all is an error.
pub async fn lookup_srv(service: &str, domain: &str) -> Result<Vec<Srv>, LookupError> {
    let name = format!("_{service}._tcp.{}", domain.trim_end_matches('.'));
    let mut found: Vec<Srv> = lookup(&configured().await, &name).await?;
    found.sort_by_key(|record| (record.priority, std::cmp::Reverse(record.weight)));
    Ok(found)
}

/// What an address is called, with final dots. None at all is an error.
pub async fn lookup_ptr(address: IpAddr) -> Result<Vec<String>, LookupError> {
    let found: Vec<Ptr> = lookup(&configured().await, &reverse_name(address)).await?;
    Ok(found.into_iter().map(|Ptr(name)| name).collect())
}

fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev();
            let nibbles = nibbles.map(|byte| format!("{:x}.{:x}.", byte & 0xf, byte >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    }
}

async fn configured() -> Vec<SocketAddr> {
    servers(&tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default())
}

fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let addresses = resolv_conf.lines().filter_map(|line| {
        let address: IpAddr = line.trim().strip_prefix("nameserver")?.trim().parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    });
    addresses.collect()
}

async fn lookup<R: Record>(servers: &[SocketAddr], name: &str) -> Result<Vec<R>, LookupError> {
    let failed = |on: Option<&SocketAddr>, reason: String| LookupError {
        name: name.to_owned(),
        on: on.map(|server| format!(" on {server}")).unwrap_or_default(),
        reason,
    };
    let mut last = failed(None, format!("{RESOLV_CONF} names no server"));
    for server in std::iter::repeat_n(servers, ATTEMPTS).flatten() {
        match tokio::time::timeout(ANSWER_WITHIN, ask(*server, name)).await {
            Ok(Ok(found)) if found.is_empty() => return Err(failed(Some(server), "no such host".to_owned())),
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = failed(Some(server), error.to_string()),
            Err(_) => last = failed(Some(server), "i/o timeout".to_owned()),
        }
    }
    Err(last)
}

async fn ask<R: Record>(server: SocketAddr, name: &str) -> io::Result<Vec<R>> {
    let mut id = [0; 2];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| io::Error::other("no random number"))?;
    let question = question(id, name, R::TYPE)?;
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut answer).await?;
        let answer = &answer[..length];
        // An answer to another question is somebody's guess.
        if !answers(answer, &question) {
            continue;
        }
        if answer[2] & TRUNCATED != 0 {
            return read(&ask_over_tcp(server, &question).await?);
        }
        return read(answer);
    }
}

async fn ask_over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut request = (question.len() as u16).to_be_bytes().to_vec();
    request.extend_from_slice(question);
    stream.write_all(&request).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    match answers(&answer, question) {
        true => Ok(answer),
        false => Err(io::Error::other("the answer is to another question")),
    }
}

/// A response with our id and our question.
fn answers(packet: &[u8], question: &[u8]) -> bool {
    packet.len() >= question.len()
        && packet[..2] == question[..2]
        && packet[2] & 0x80 != 0
        && packet[12..question.len()].eq_ignore_ascii_case(&question[12..])
}

fn question(id: [u8; 2], name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut packet = id.to_vec();
    // Recursion desired, one question.
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(io::Error::other("no name of DNS"));
        }
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    Ok(packet)
}

fn read<R: Record>(packet: &[u8]) -> io::Result<Vec<R>> {
    match packet.get(3).map(|flags| flags & 0x0f) {
        Some(0) => parse(packet).ok_or_else(|| io::Error::other("the answer cannot be read")),
        Some(NAME_ERROR) => Ok(Vec::new()),
        _ => Err(io::Error::other("server misbehaving")),
    }
}

fn parse<R: Record>(packet: &[u8]) -> Option<Vec<R>> {
    let questions = u16_at(packet, 4)?;
    let answers = u16_at(packet, 6)?;
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(packet, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        let record = name_at(packet, at)?.1;
        let length = usize::from(u16_at(packet, record + 8)?);
        let data = record + 10;
        if u16_at(packet, record)? == R::TYPE {
            found.push(R::read(packet, data)?);
        }
        at = data + length;
    }
    Some(found)
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
    use tokio::net::TcpListener;

    use super::*;

    const NAME: &str = "_etcd-client._tcp.example.org";

    /// The answer with one record: a.example.org, port 2379.
    fn answer(question: &[u8]) -> Vec<u8> {
        let mut packet = question.to_vec();
        packet[2] |= 0x80;
        packet[7] = 1;
        packet.extend_from_slice(&[
            0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10, 0, 1, 0, 2, 0x09, 0x4b, 1, b'a', 0xc0, 30,
        ]);
        packet
    }

    fn expected() -> Vec<Srv> {
        vec![Srv {
            priority: 1,
            weight: 2,
            host: "a.example.org.".to_owned(),
            port: 2379,
        }]
    }

    #[test]
    fn records_are_read_and_loops_are_not_followed() {
        let question = question([0, 7], NAME, TYPE_SRV).unwrap();
        let packet = answer(&question);
        assert!(answers(&packet, &question));
        assert!(!answers(
            &packet,
            &super::question([0, 8], NAME, TYPE_SRV).unwrap()
        ));
        assert_eq!(parse::<Srv>(&packet).unwrap(), expected());
        assert!(parse::<Ptr>(&packet).unwrap().is_empty());
        assert!(name_at(&[0xc0, 0], 0).is_none());
        for length in 0..packet.len() {
            assert!(parse::<Srv>(&packet[..length]).is_none(), "{length}");
        }
        assert!(super::question([0, 7], "a..b", TYPE_SRV).is_err());
        assert_eq!(reverse_name([10, 0, 2, 1].into()), "1.2.0.10.in-addr.arpa");
        assert!(reverse_name("2001:db8::1".parse().unwrap()).starts_with("1.0.0.0."));
        assert!(reverse_name("2001:db8::1".parse().unwrap()).ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"));
        assert_eq!(
            servers("# nameserver 1.1.1.1\nnameserver 127.0.0.1\nsearch x\nnameserver ::1\n"),
            ["127.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_comes_over_tcp_and_guesses_are_ignored() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(server).await.unwrap();
        let serving = async {
            let mut packet = vec![0; 512];
            let (length, from) = udp.recv_from(&mut packet).await.unwrap();
            let question = packet[..length].to_vec();
            let mut guess = answer(&question);
            guess[0] ^= 1;
            udp.send_to(&guess, from).await.unwrap();
            let mut truncated = question.clone();
            truncated[2] |= 0x80 | TRUNCATED;
            udp.send_to(&truncated, from).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut asked = vec![0; length.into()];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, question);
            let whole = answer(&asked);
            stream.write_u16(whole.len() as u16).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        let servers = [server];
        let (found, ()) = tokio::join!(lookup::<Srv>(&servers, NAME), serving);
        assert_eq!(found.unwrap(), expected());
    }

    #[tokio::test]
    async fn a_name_that_is_not_there_is_told_with_its_server() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = udp.local_addr().unwrap();
        let serving = async {
            let mut packet = vec![0; 512];
            let (length, from) = udp.recv_from(&mut packet).await.unwrap();
            packet[2] |= 0x80;
            packet[3] = NAME_ERROR;
            udp.send_to(&packet[..length], from).await.unwrap();
        };
        let servers = [server];
        let (found, ()) = tokio::join!(lookup::<Srv>(&servers, NAME), serving);
        assert_eq!(
            found.unwrap_err().to_string(),
            format!("lookup {NAME} on {server}: no such host")
        );
    }
}
