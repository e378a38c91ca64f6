//! Certificates, in both faces.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::programs::{Rival, command, our_etcd, ours, run};
use crate::server::Server;

struct Pki {
    folder: TempDir,
}

impl Pki {
    fn new() -> Pki {
        let folder = TempDir::new().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.crt"), ca.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(ca, key);
        for name in ["server", "client"] {
            let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            leaf.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            let certificate = leaf.signed_by(&key, &issuer).unwrap().pem();
            std::fs::write(folder.path().join(format!("{name}.crt")), certificate).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Pki { folder }
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.folder.path().join(file).display())
    }

    fn server(&self, etcd: &Path, extra: &[&str]) -> Server {
        let flags = [
            self.flag("cert-file", "server.crt"),
            self.flag("key-file", "server.key"),
            self.flag("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".to_owned(),
        ];
        let flags: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .chain(extra.iter().copied())
            .collect();
        Server::start_with(etcd, "https", &flags)
    }
}

#[test]
fn the_v3_face_shows_its_certificate_and_checks_the_servers() {
    let pki = Pki::new();
    for etcd in [our_etcd(), Rival::V35.etcd(), Rival::V34.etcd()]
        .into_iter()
        .flatten()
    {
        let server = pki.server(&etcd, &[]);
        let (ca, cert, key) = (
            pki.flag("cacert", "ca.crt"),
            pki.flag("cert", "client.crt"),
            pki.flag("key", "client.key"),
        );
        let put = server.ctl(&[&ca, &cert, &key, "put", "a", "1"]);
        assert_eq!(
            (put.code, put.text().as_str()),
            (Some(0), "OK\n"),
            "{}\n{}",
            put.errors(),
            server.log()
        );
        let blind = server.ctl(&["--insecure-skip-tls-verify", &cert, &key, "get", "a"]);
        assert_eq!(blind.text(), "a\n1\n", "{}", blind.errors());
        let stranger = server.ctl(&[&ca, "--command-timeout=1s", "get", "a"]);
        assert_eq!((stranger.code, stranger.text().as_str()), (Some(1), ""));
        let trusting = server.ctl(&[&cert, &key, "--command-timeout=1s", "get", "a"]);
        assert_eq!(trusting.code, Some(1));
        assert!(
            trusting.errors().contains("authentication handshake failed"),
            "{}",
            trusting.errors()
        );
    }
}

#[test]
fn the_v2_face_shows_its_certificate_too() {
    let Some(etcd) = Rival::V34.etcd() else { return };
    let pki = Pki::new();
    let server = pki.server(&etcd, &["--enable-v2"]);
    let flags = [
        pki.flag("ca-file", "ca.crt"),
        pki.flag("cert-file", "client.crt"),
        pki.flag("key-file", "client.key"),
    ];
    let args = |last: &[&'static str]| [flags.iter().map(String::as_str).collect(), last.to_vec()].concat();
    let set = run(
        &mut command(&ours(), 2, &server.url(), &args(&["set", "/a", "b"])),
        "",
    );
    assert_eq!(
        (set.code, set.text().as_str()),
        (Some(0), "b\n"),
        "{}",
        set.errors()
    );
    let health = run(
        &mut command(&ours(), 2, &server.url(), &args(&["cluster-health"])),
        "",
    );
    assert!(
        health.text().ends_with("cluster is healthy\n"),
        "{}{}",
        health.text(),
        health.errors()
    );
}
