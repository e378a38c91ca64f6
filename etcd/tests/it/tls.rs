//! TLS and client certificates with Debian's etcdctl.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use tempfile::TempDir;

use crate::harness::{Etcd, etcdctl};
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
        let hosts = ["127.0.0.1", "localhost"].iter().chain(&ADDRESSES);
        let mut leaf =
            CertificateParams::new(hosts.map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
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
