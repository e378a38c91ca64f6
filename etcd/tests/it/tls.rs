//! TLS and client certificates with Debian's etcdctl.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::harness::{Etcd, etcdctl};

pub struct Pki {
    folder: TempDir,
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
        for name in ["server", "client"] {
            let mut leaf =
                CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
            leaf.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            std::fs::write(
                folder.path().join(format!("{name}.crt")),
                leaf.signed_by(&key, &issuer).unwrap().pem(),
            )
            .unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Pki { folder }
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
    let flags = [
        flag("cert-file", &pki.path("server.crt")),
        flag("key-file", &pki.path("server.key")),
        flag("trusted-ca-file", &pki.path("ca.crt")),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start_in(&pki.path("data"), "https", &flags.each_ref().map(String::as_str));
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
