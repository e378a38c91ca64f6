//! Handshakes in memory with certificates that the machine's openssl made, in the shapes of the classic tutorials.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// A folder of certificates.
struct Pki(TempDir);

impl Pki {
    fn new() -> Self {
        let pki = Pki(tempfile::tempdir().unwrap());
        pki.ca("ca", "/CN=kubernetes-ca");
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let mut command = Command::new("openssl");
        command.args(args.split_whitespace());
        let output = command.current_dir(self.0.path()).output().unwrap();
        assert!(
            output.status.success(),
            "openssl {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn ca(&self, name: &str, subject: &str) {
        self.openssl(&format!("genrsa -out {name}.key 2048"));
        self.openssl(&format!(
            "req -x509 -new -key {name}.key -subj {subject} -days 10 -out {name}.crt"
        ));
    }

    /// The course's way: `openssl x509 -req` without an extension file makes version 1.
    fn version_1(&self, name: &str, subject: &str, key: &str) {
        self.key(name, key);
        self.openssl(&format!(
            "req -new -key {name}.key -subj {subject} -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 10 -out {name}.crt"
        ));
    }

    fn version_3(&self, name: &str, subject: &str, extensions: &str, days: i32) {
        self.key(name, "ec");
        std::fs::write(self.path("ext.cnf"), extensions).unwrap();
        self.openssl(&format!(
            "req -new -key {name}.key -subj {subject} -out {name}.csr"
        ));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} -extfile ext.cnf -out {name}.crt"));
    }

    fn key(&self, name: &str, kind: &str) {
        match kind {
            "rsa-pkcs8" => self.openssl(&format!("genrsa -out {name}.key 2048")),
            "rsa-pkcs1" => self.openssl(&format!("genrsa -traditional -out {name}.key 2048")),
            _ => self.openssl(&format!("ecparam -name prime256v1 -genkey -out {name}.key")),
        }
    }

    fn serving(&self) {
        self.version_3(
            "server",
            "/CN=kubernetes",
            "subjectAltName=DNS:kubernetes,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
            10,
        );
    }

    fn server(&self, name: &str, auth: ClientAuth) -> ServerTls {
        ServerTls::new(
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
        )
        .client_ca(self.path("ca.crt"), auth)
    }

    fn client(&self, name: Option<&str>) -> ClientTls {
        let file = |name: String| Pem::File(self.path(&name));
        ClientTls {
            ca: Some(file("ca.crt".to_owned())),
            cert: name.map(|name| (file(format!("{name}.crt")), file(format!("{name}.key")))),
            ..ClientTls::default()
        }
    }

    fn verify(&self, name: &str, usage: Usage) -> Result<(), Box<Refusal>> {
        let pool = CertPool::load(&Pem::File(self.path("ca.crt"))).unwrap();
        let chain = load_certs(&Pem::File(self.path(&format!("{name}.crt")))).unwrap();
        pool.verify(&chain, usage, time::OffsetDateTime::now_utc())
    }
}

type Outcome = (Result<(), String>, Result<Option<Arc<ClientIdentity>>, String>);

/// What the client and the server say of a handshake.
async fn handshake(server: &ServerConfigHandle, client: ClientTls, host: &str) -> Outcome {
    let (left, right) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(client.load().unwrap().current());
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let acceptor = TlsAcceptor::from(server.current());
    let (client, served) = tokio::join!(
        async {
            let mut stream = connector.connect(name, left).await?;
            // The server's verdict on a TLS 1.3 client certificate arrives after the client's handshake ended.
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0])
                .await
                .map(drop)
        },
        async {
            let mut stream = acceptor.accept(right).await?;
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await?;
            let identity = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| server.identify(chain));
            Ok::<_, std::io::Error>(identity)
        }
    );
    (
        client.map_err(|error| describe_refusal(&error)),
        served.map_err(|error| describe_refusal(&error)),
    )
}

#[tokio::test]
async fn version_1_client_certificates_of_every_key_form_are_accepted() {
    let pki = Pki::new();
    pki.serving();
    for (name, key) in [("admin", "rsa-pkcs8"), ("legacy", "rsa-pkcs1"), ("curve", "ec")] {
        pki.version_1(name, "/CN=admin/O=system:masters", key);
        let leaf = load_certs(&Pem::File(pki.path(&format!("{name}.crt")))).unwrap();
        assert!(Certificate::parse(&leaf[0]).unwrap().is_version_1());
        for auth in [ClientAuth::Optional, ClientAuth::Required] {
            let server = pki.server("server", auth).load().unwrap();
            let (client, served) = handshake(&server, pki.client(Some(name)), "127.0.0.1").await;
            client.unwrap();
            let identity = served.unwrap().unwrap();
            assert_eq!(identity.verified, Ok(()));
            assert_eq!(
                (identity.common_name.as_str(), &identity.organizations[..]),
                ("admin", &["system:masters".to_owned()][..])
            );
        }
    }
}

#[tokio::test]
async fn a_version_1_server_certificate_serves_but_has_no_name_to_verify() {
    let pki = Pki::new();
    pki.version_1("old", "/CN=kubernetes", "rsa-pkcs8");
    let server = pki.server("old", ClientAuth::None).load().unwrap();
    let (client, _) = handshake(&server, pki.client(None), "kubernetes").await;
    assert!(
        client
            .unwrap_err()
            .starts_with("x509: certificate relies on legacy Common Name field, use SANs instead")
    );
    let (client, _) = handshake(
        &server,
        ClientTls {
            insecure: true,
            ..pki.client(None)
        },
        "kubernetes",
    )
    .await;
    client.unwrap();
}

#[tokio::test]
async fn an_optional_certificate_of_a_foreign_ca_is_reported_and_a_required_one_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.serving();
    other.version_1("spy", "/CN=spy", "ec");
    let client = || ClientTls {
        cert: other.client(Some("spy")).cert,
        ..pki.client(None)
    };
    let server = pki.server("server", ClientAuth::Optional).load().unwrap();
    let (outcome, served) = handshake(&server, client(), "kubernetes").await;
    outcome.unwrap();
    let reason = served.unwrap().unwrap().verified.clone().unwrap_err();
    assert!(
        reason.contains("another key") && reason.contains("ca.crt"),
        "{reason}"
    );
    let server = pki.server("server", ClientAuth::Required).load().unwrap();
    let (outcome, served) = handshake(&server, client(), "kubernetes").await;
    assert!(
        outcome.is_err()
            && served
                .unwrap_err()
                .contains("x509: certificate signed by unknown authority")
    );
    let (outcome, served) = handshake(&server, pki.client(None), "kubernetes").await;
    assert!(outcome.is_err() && served.is_err());
}

#[tokio::test]
async fn a_server_is_known_by_its_names_only() {
    let pki = Pki::new();
    pki.serving();
    let server = pki.server("server", ClientAuth::None).load().unwrap();
    for host in ["kubernetes", "127.0.0.1"] {
        handshake(&server, pki.client(None), host).await.0.unwrap();
    }
    let (client, _) = handshake(&server, pki.client(None), "10.0.0.1").await;
    let reason = client.unwrap_err();
    assert!(
        reason.starts_with(
            "x509: certificate is valid for 127.0.0.1, not 10.0.0.1; offered subject=\"CN=kubernetes\""
        ),
        "{reason}"
    );
    handshake(
        &server,
        ClientTls {
            server_name: Some("kubernetes".into()),
            ..pki.client(None)
        },
        "10.0.0.1",
    )
    .await
    .0
    .unwrap();
}

#[test]
fn chains_times_and_usages_are_judged_as_go_does() {
    let pki = Pki::new();
    pki.version_3("client", "/CN=c", "extendedKeyUsage=clientAuth\n", 10);
    pki.version_3("any", "/CN=a", "subjectAltName=DNS:a\n", 10);
    pki.version_3("expired", "/CN=e", "subjectAltName=DNS:e\n", -1);
    assert_eq!(pki.verify("client", Usage::ClientAuth), Ok(()));
    assert_eq!(
        pki.verify("client", Usage::ServerAuth).unwrap_err().error,
        VerifyError::Usage("serverAuth")
    );
    assert_eq!(pki.verify("any", Usage::ServerAuth), Ok(()));
    assert!(matches!(
        pki.verify("expired", Usage::ClientAuth).unwrap_err().error,
        VerifyError::Expired { .. }
    ));
    assert_eq!(pki.verify("ca", Usage::ClientAuth), Ok(()));
}

#[test]
fn intermediates_are_followed_and_leaves_may_not_sign() {
    let pki = Pki::new();
    for (name, constraints, wanted) in [("inter", "CA:TRUE", true), ("leaf", "CA:FALSE", false)] {
        pki.version_3(
            name,
            &format!("/CN={name}"),
            &format!("basicConstraints=critical,{constraints}\n"),
            10,
        );
        pki.key("end", "ec");
        pki.openssl("req -new -key end.key -subj /CN=end -out end.csr");
        pki.openssl(&format!(
            "x509 -req -in end.csr -CA {name}.crt -CAkey {name}.key -CAcreateserial -days 5 -out end.crt"
        ));
        let joined = ["end.crt", &format!("{name}.crt")]
            .map(|file| std::fs::read_to_string(pki.path(file)).unwrap())
            .concat();
        std::fs::write(pki.path("chain.crt"), joined).unwrap();
        let verdict = pki.verify("chain", Usage::ClientAuth);
        assert_eq!(verdict.is_ok(), wanted, "{verdict:?}");
        assert_eq!(
            pki.verify("end", Usage::ClientAuth).unwrap_err().error,
            VerifyError::UnknownAuthority
        );
    }
}

#[test]
fn a_refusal_is_one_line_that_names_file_issuers_and_remedy() {
    let (pki, other) = (Pki::new(), Pki::new());
    other.ca("ca", "/CN=other-ca/O=Elsewhere");
    other.version_1("spy", "/CN=spy", "ec");
    std::fs::copy(other.path("spy.crt"), pki.path("spy.crt")).unwrap();
    let line = pki.verify("spy", Usage::ClientAuth).unwrap_err().to_string();
    assert!(!line.contains('\n'));
    for part in [
        "x509: certificate signed by unknown authority; offered subject=\"CN=spy\" issuer=\"O=Elsewhere,CN=other-ca\"",
        "ca.crt: \"CN=kubernetes-ca\"",
        "issue the certificate from that CA",
    ] {
        assert!(line.contains(part), "{part} not in {line}");
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let pki = Pki::new();
    pki.version_1("one", "/CN=one", "ec");
    pki.version_1("two", "/CN=two", "ec");
    let pem = |name: &str| Pem::File(pki.path(name));
    let error = |cert: &str, key: &str| format!("{:#}", load_key_pair(&pem(cert), &pem(key)).err().unwrap());
    assert!(error("one.crt", "two.key").contains("private key does not match public key"));
    assert!(
        error("one.key", "one.key")
            .contains("one.key: data does not contain any valid RSA or ECDSA certificates")
    );
    assert!(error("one.crt", "one.crt").contains("one.crt: no usable private key"));
    assert!(error("missing.crt", "one.key").contains("missing.crt"));
    std::fs::write(
        pki.path("cut.crt"),
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    assert!(error("cut.crt", "one.key").contains("malformed certificate"));
}

fn wait_until(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn changed_files_are_served_and_broken_ones_are_not() {
    let pki = Pki::new();
    pki.serving();
    let server = pki.server("server", ClientAuth::Required).load().unwrap();
    let before = server.current();
    std::fs::write(pki.path("server.crt"), "broken").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(Arc::ptr_eq(&before, &server.current()));
    replace(&pki.path("server.crt"), || pki.serving());
    wait_until("a new config", || !Arc::ptr_eq(&before, &server.current()));
    let pool = server.client_ca().unwrap().pool();
    pki.ca("ca", "/CN=new-ca");
    wait_until("a new client CA", || {
        server.client_ca().unwrap().pool().authorities() != pool.authorities()
    });
}

fn replace(path: &Path, make: impl FnOnce()) {
    std::fs::remove_file(path).unwrap();
    make();
}
