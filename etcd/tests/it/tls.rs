//! TLS and client certificates with Debian's etcdctl.

use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::tls::{Certificate, ClientTls, Pem, alpn, describe_refusal, load_certs};
use free_port::free_port;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Etcd, PATIENCE, etcdctl, put};
use crate::members::Cluster;
use crate::network::ADDRESSES;

pub struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Pki {
        let folder = TempDir::new().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = ca.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        let issuer = Issuer::new(ca, key);
        let pki = Pki { folder, issuer };
        pki.issue("server");
        pki.issue("client");
        pki
    }

    /// A certificate with the name as its common name.
    fn issue(&self, name: &str) {
        let hosts: Vec<&str> = ["127.0.0.1", "localhost"].into_iter().chain(ADDRESSES).collect();
        self.issue_for(name, &hosts);
    }

    fn issue_for(&self, name: &str, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut leaf = CertificateParams::new(hosts).unwrap();
        leaf.serial_number = Some(serial(name));
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn start(&self) -> Etcd {
        let flags = [
            flag("cert-file", &self.path("server.crt")),
            flag("key-file", &self.path("server.key")),
            flag("trusted-ca-file", &self.path("ca.crt")),
            "--client-cert-auth".to_owned(),
            "--bcrypt-cost=4".to_owned(),
        ];
        Etcd::start_in(&self.path("data"), "https", &flags.each_ref().map(String::as_str))
    }

    /// Takes the certificates of these names back.
    pub fn revoke(&self, names: &[&str], file: &str) {
        let now = OffsetDateTime::now_utc();
        let revoked = names.iter().map(|name| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::from_secs(3600),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        std::fs::write(self.path(file), list.pem().unwrap()).unwrap();
    }

    /// One request over TLS with the certificate of that name; what came back, or why nothing did.
    async fn get(&self, port: u16, name: &str) -> Result<String, String> {
        let file = |name: String| Pem::File(self.path(&name));
        let tls = ClientTls {
            ca: Some(file("ca.crt".to_owned())),
            cert: Some((file(format!("{name}.crt")), file(format!("{name}.key")))),
            alpn: vec![alpn::HTTP11.to_vec()],
            ..ClientTls::default()
        };
        get_over(port, tls).await
    }

    /// Debian's etcdctl with that certificate; what it said on both streams, if it is installed.
    fn ctl(&self, etcd: &Etcd, name: &str, args: &[&str]) -> Option<Result<String, String>> {
        let endpoint = format!("--endpoints=https://127.0.0.1:{}", etcd.port);
        let flags = [
            endpoint,
            flag("cacert", &self.path("ca.crt")),
            flag("cert", &self.path(&format!("{name}.crt"))),
            flag("key", &self.path(&format!("{name}.key"))),
        ];
        let all = [&flags.each_ref().map(String::as_str), args].concat();
        let output = etcdctl(&all, "")?;
        Some(match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Of the certificate of that name.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(&[&[1], name.as_bytes()].concat())
}

async fn get_over(port: u16, tls: ClientTls) -> Result<String, String> {
    let config = tls.load().unwrap().current();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let host = ServerName::try_from("127.0.0.1").unwrap();
    let session = TlsConnector::from(config).connect(host, stream).await;
    let mut session = session.map_err(|error| describe_refusal(&error))?;
    let request = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    session
        .write_all(request)
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    let read = session.read_to_string(&mut answer).await;
    match answer.contains("etcdserver") {
        true => Ok(answer),
        false => Err(format!("{read:?} {answer:?}")),
    }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
fn a_client_needs_a_certificate_of_the_trusted_ca() {
    let pki = Pki::new();
    let etcd = pki.start();
    let endpoint = format!("--endpoints=https://127.0.0.1:{}", etcd.port);
    let ca = flag("cacert", &pki.path("ca.crt"));
    let (cert, key) = (
        flag("cert", &pki.path("client.crt")),
        flag("key", &pki.path("client.key")),
    );
    let Some(put) = etcdctl(&[&endpoint, &ca, &cert, &key, "put", "secret", "kept"], "") else {
        return;
    };
    assert!(
        put.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&put.stderr),
        etcd.log()
    );
    let status = etcdctl(&[&endpoint, &ca, &cert, &key, "endpoint", "status"], "").unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("3.6.8"));
    let refused = etcdctl(&[&endpoint, &ca, "--command-timeout=2s", "get", "secret"], "").unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(etcd.log().contains("serving client traffic securely"));
}

#[test]
fn a_certificates_common_name_is_a_user() {
    let pki = Pki::new();
    for name in ["root", "alice", "eve"] {
        pki.issue(name);
    }
    let mut etcd = pki.start();
    if pki.ctl(&etcd, "root", &["put", "app/a", "1"]).is_none() {
        return;
    }
    let ctl = |etcd: &Etcd, name: &str, args: &[&str]| pki.ctl(etcd, name, args).unwrap();
    for args in [
        &["user", "add", "root", "--no-password"][..],
        &["user", "add", "alice", "--no-password"],
        &["role", "add", "app"],
        &[
            "role",
            "grant-permission",
            "app",
            "--prefix=true",
            "readwrite",
            "app/",
        ],
        &["user", "grant-role", "alice", "app"],
        &["auth", "enable"],
    ] {
        ctl(&etcd, "root", args).unwrap();
    }
    for life in ["first", "after kill -9"] {
        assert_eq!(
            ctl(&etcd, "alice", &["get", "app/a"]).unwrap(),
            "app/a\n1\n",
            "{life}"
        );
        assert_eq!(
            ctl(&etcd, "alice", &["put", "app/b", "2"]).unwrap(),
            "OK\n",
            "{life}"
        );
        let outside = ctl(&etcd, "alice", &["get", "other"]).unwrap_err();
        assert!(
            outside.contains("etcdserver: permission denied"),
            "{life}: {outside}"
        );
        let stranger = ctl(&etcd, "eve", &["get", "app/a"]).unwrap_err();
        assert!(
            stranger.contains("etcdserver: permission denied"),
            "{life}: {stranger}"
        );
        let member = ctl(&etcd, "alice", &["compaction", "1"]).unwrap_err();
        assert!(
            member.contains("etcdserver: permission denied"),
            "{life}: {member}"
        );
        assert_eq!(
            ctl(&etcd, "root", &["user", "list"]).unwrap(),
            "alice\nroot\n",
            "{life}"
        );
        etcd.restart();
    }
}

/// Until the answer is of that kind: files are read again a moment after they changed.
async fn comes_to(what: &str, condition: impl AsyncFn() -> bool) {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A member whose peer URL speaks TLS too, with these flags beside.
fn start_secure(pki: &Pki, peer_port: u16, extra: &[String]) -> Etcd {
    let peer = format!("https://127.0.0.1:{peer_port}");
    let mut flags: Vec<String> = ["", "peer-"]
        .iter()
        .flat_map(|prefix| {
            [
                flag(&format!("{prefix}cert-file"), &pki.path("server.crt")),
                flag(&format!("{prefix}key-file"), &pki.path("server.key")),
                flag(&format!("{prefix}trusted-ca-file"), &pki.path("ca.crt")),
            ]
        })
        .collect();
    flags.push(format!("--listen-peer-urls={peer}"));
    flags.push(format!("--initial-advertise-peer-urls={peer}"));
    flags.extend_from_slice(extra);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Etcd::start_in(&pki.path("data"), "https", &flags)
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_every_listener_as_soon_as_the_list_says_so() {
    let pki = Pki::new();
    pki.issue("stolen");
    pki.revoke(&[], "client.crl");
    pki.revoke(&["client"], "peer.crl");
    let (split, metrics, peer) = (free_port(), free_port(), free_port());
    let etcd = start_secure(
        &pki,
        peer,
        &[
            flag("client-crl-file", &pki.path("client.crl")),
            flag("peer-crl-file", &pki.path("peer.crl")),
            format!("--listen-client-http-urls=https://127.0.0.1:{split}"),
            format!("--listen-metrics-urls=https://127.0.0.1:{metrics}"),
        ],
    );
    let client_ports = [etcd.port, split, metrics];
    for port in client_ports {
        for name in ["client", "stolen"] {
            pki.get(port, name).await.unwrap();
        }
    }
    // Lists of clients and of peers are two.
    assert!(pki.get(peer, "client").await.is_err());
    pki.get(peer, "stolen").await.unwrap();
    assert!(etcd.log().contains("revoked (by "), "{}", etcd.log());
    pki.revoke(&["other", "stolen"], "client.crl");
    for port in client_ports {
        comes_to("the stolen one is refused", async || {
            pki.get(port, "stolen").await.is_err()
        })
        .await;
        pki.get(port, "client").await.unwrap();
    }
    // What is no list changes nothing.
    std::fs::write(pki.path("client.crl"), "nonsense").unwrap();
    comes_to("it is told", async || {
        etcd.log().contains("the previous ones stay")
    })
    .await;
    assert!(pki.get(etcd.port, "stolen").await.is_err());
    pki.get(etcd.port, "client").await.unwrap();
}

#[tokio::test]
async fn only_certificates_with_an_allowed_name_are_let_in() {
    let pki = Pki::new();
    pki.issue_for("far", &["10.9.9.9"]);
    pki.issue_for("named", &["localhost", "a.clients.example"]);
    let peer = free_port();
    let etcd = start_secure(
        &pki,
        peer,
        &[
            "--client-cert-allowed-hostname=b.clients.example,a.clients.example".to_owned(),
            "--peer-cert-allowed-cn=server,named,far".to_owned(),
        ],
    );
    pki.get(etcd.port, "named").await.unwrap();
    assert!(pki.get(etcd.port, "client").await.is_err());
    pki.get(peer, "server").await.unwrap();
    assert!(pki.get(peer, "client").await.is_err());
    assert!(
        etcd.log().contains("client certificate authentication failed"),
        "{}",
        etcd.log()
    );
    // A member calls from where its certificate says: by a name that leads there, or by the address.
    pki.get(peer, "named").await.unwrap();
    assert!(pki.get(peer, "far").await.is_err());
    assert!(
        etcd.log()
            .contains("rejected connection on client certificate address"),
        "{}",
        etcd.log()
    );
    drop(etcd);
    let pki = Pki::new();
    pki.issue_for("far", &["10.9.9.9"]);
    let peer = free_port();
    let skip = [
        "--peer-skip-client-san-verification".to_owned(),
        "--peer-cert-allowed-hostname=10.9.9.9,127.0.0.1".to_owned(),
    ];
    let etcd = start_secure(&pki, peer, &skip);
    pki.get(peer, "far").await.unwrap();
    drop(etcd);
    let pki = Pki::new();
    pki.issue_for("named", &["localhost"]);
    let names = ["--client-cert-allowed-cn=other,named".to_owned()];
    let etcd = start_secure(&pki, free_port(), &names);
    pki.get(etcd.port, "named").await.unwrap();
    assert!(pki.get(etcd.port, "client").await.is_err());
}

#[tokio::test]
async fn members_that_make_their_own_certificates_form_a_cluster() {
    let flags = ["--peer-auto-tls", "--self-signed-cert-validity=3"];
    let mut cluster = Cluster::start(3, None, &flags).await;
    let leader = cluster.leader().await;
    let mut kv = cluster.nodes[leader].kv().await;
    kv.put(put("k", "v")).await.unwrap();
    cluster.agree().await;
    let file = cluster.nodes[0].dir.join("fixtures/peer/cert.pem");
    let made = std::fs::read(&file).unwrap();
    let certs = load_certs(&Pem::File(file.clone())).unwrap();
    let days = (Certificate::parse(&certs[0]).unwrap().not_after() - OffsetDateTime::now_utc()).whole_days();
    assert!((3 * 365 - 1..=3 * 365).contains(&days), "{days}");
    cluster.nodes[0].kill();
    cluster.spawn(0, "new", &[]);
    cluster.wait_ready().await;
    assert_eq!(std::fs::read(&file).unwrap(), made, "it is made once");
}

#[tokio::test]
async fn clients_speak_tls_with_a_certificate_that_a_member_made() {
    let folder = TempDir::new().unwrap();
    let etcd = Etcd::start_in(&folder.path().join("data"), "https", &["--auto-tls"]);
    let insecure = ClientTls {
        insecure: true,
        alpn: vec![alpn::HTTP11.to_vec()],
        ..ClientTls::default()
    };
    get_over(etcd.port, insecure).await.unwrap();
    let pinned = ClientTls {
        ca: Some(Pem::File(etcd.dir.join("fixtures/client/cert.pem"))),
        alpn: vec![alpn::HTTP11.to_vec()],
        ..ClientTls::default()
    };
    get_over(etcd.port, pinned).await.unwrap();
}
