//! The real `pki` binary, judged by the machine's openssl.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Host(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pki(&self, command: &str, args: &[&str]) -> Output {
        let cert_dir = format!("--cert-dir={}", self.path("pki").display());
        let mut all = vec![command];
        if command != "verify" && command != "explain" {
            all.push(&cert_dir);
        }
        all.extend(args);
        Command::new(env!("CARGO_BIN_EXE_pki"))
            .args(all)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn ok(&self, command: &str, args: &[&str]) -> String {
        let output = self.pki(command, args);
        assert!(
            output.status.success(),
            "{command} {args:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn refused(&self, command: &str, args: &[&str]) -> String {
        let output = self.pki(command, args);
        assert_eq!(output.status.code(), Some(1), "{command} {args:?}");
        text(&output.stdout) + &text(&output.stderr)
    }

    fn init(&self, more: &[&str]) -> String {
        let mut args = vec![
            "--node-name=node-1",
            "--apiserver-advertise-address=192.0.2.10",
            "--service-cidr=10.96.0.0/12",
        ];
        args.extend(more);
        self.ok("init", &args)
    }

    fn openssl(&self, args: &str) -> String {
        let output = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "openssl {args}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const LEAVES: &[(&str, &str, &str)] = &[
    ("apiserver", "ca", "sslserver"),
    ("apiserver-kubelet-client", "ca", "sslclient"),
    ("apiserver-etcd-client", "etcd/ca", "sslclient"),
    ("front-proxy-client", "front-proxy-ca", "sslclient"),
    ("etcd/server", "etcd/ca", "sslserver"),
    ("etcd/peer", "etcd/ca", "sslclient"),
    ("etcd/healthcheck-client", "etcd/ca", "sslclient"),
    ("kubelet/kubelet", "ca", "sslserver"),
];

#[test]
fn init_makes_kubeadms_layout_that_openssl_verifies() {
    let host = Host::new();
    host.init(&["--apiserver-cert-extra-sans=lb.example.com,203.0.113.7"]);
    for (leaf, ca, purpose) in LEAVES {
        host.openssl(&format!(
            "verify -x509_strict -purpose {purpose} -CAfile pki/{ca}.crt pki/{leaf}.crt"
        ));
        assert_eq!(mode(&host.path(&format!("pki/{leaf}.key"))), 0o600);
        assert_eq!(mode(&host.path(&format!("pki/{leaf}.crt"))), 0o644);
    }
    let apiserver = host.openssl("x509 -in pki/apiserver.crt -noout -text");
    for name in [
        "DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:kubernetes.default.svc.cluster.local, DNS:node-1",
        "DNS:lb.example.com",
        "IP Address:10.96.0.1, IP Address:192.0.2.10, IP Address:203.0.113.7",
        "Subject: CN = kube-apiserver",
        "id-ecPublicKey",
    ] {
        assert!(apiserver.contains(name), "{name} not in {apiserver}");
    }
    let etcd = host.openssl("x509 -in pki/etcd/server.crt -noout -text");
    assert!(
        etcd.contains("DNS:node-1, DNS:localhost, IP Address:127.0.0.1") && etcd.contains("CN = node-1"),
        "{etcd}"
    );
    let public = host.openssl("pkey -in pki/sa.key -pubout");
    assert_eq!(public, std::fs::read_to_string(host.path("pki/sa.pub")).unwrap());
    for conf in [
        "admin",
        "super-admin",
        "controller-manager",
        "scheduler",
        "kubelet",
        "kube-proxy",
    ] {
        let file = host.path(&format!("{conf}.conf"));
        assert_eq!(mode(&file), 0o600);
        assert!(
            host.ok("verify", &[file.to_str().unwrap()])
                .contains(": ok: for https://192.0.2.10:6443: ")
        );
    }
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path)
            } else {
                found.push((path.clone(), std::fs::read(path).unwrap()))
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_init_changes_nothing_and_a_new_name_only_its_certificate() {
    let host = Host::new();
    host.init(&[]);
    let before = contents(host.0.path());
    let said = host.init(&[]);
    assert!(said.lines().all(|line| line.ends_with(": kept")), "{said}");
    assert_eq!(before, contents(host.0.path()));
    let said = host.init(&["--apiserver-cert-extra-sans=new.example.com"]);
    assert!(
        said.contains("apiserver.crt: issued again: it lacked the names new.example.com"),
        "{said}"
    );
    let after = contents(host.0.path());
    let keys = |files: &[(PathBuf, Vec<u8>)]| {
        files
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|ext| ext == "key"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&before), keys(&after));
}

#[test]
fn an_rsa_ca_that_openssl_made_is_adopted() {
    let host = Host::new();
    std::fs::create_dir(host.path("pki")).unwrap();
    host.openssl("genrsa -traditional -out pki/ca.key 2048");
    host.openssl(
        "req -x509 -new -key pki/ca.key -subj /CN=KUBERNETES-CA/O=Kubernetes -days 1000 -out pki/ca.crt",
    );
    let before = std::fs::read(host.path("pki/ca.crt")).unwrap();
    let said = host.init(&[]);
    assert!(said.contains("pki/ca.crt: kept"), "{said}");
    assert_eq!(before, std::fs::read(host.path("pki/ca.crt")).unwrap());
    host.openssl("verify -CAfile pki/ca.crt pki/apiserver.crt");
    host.ok(
        "issue",
        &[
            "apiserver-kubelet-client",
            "--key-algorithm=RSA-2048",
            "--out-dir=out",
            "--apiserver-advertise-address=192.0.2.10",
        ],
    );
    let text = host.openssl("x509 -in out/apiserver-kubelet-client.crt -noout -text");
    assert!(
        text.contains("Public-Key: (2048 bit)") && text.contains("sha256WithRSAEncryption"),
        "{text}"
    );
    assert!(
        std::fs::read_to_string(host.path("out/apiserver-kubelet-client.key"))
            .unwrap()
            .contains("BEGIN RSA PRIVATE KEY")
    );
    host.openssl("rsa -in out/apiserver-kubelet-client.key -check -noout");
    host.openssl("verify -CAfile pki/ca.crt out/apiserver-kubelet-client.crt");
}

#[test]
fn a_ca_whose_key_is_elsewhere_says_what_to_sign() {
    let host = Host::new();
    std::fs::create_dir(host.path("pki")).unwrap();
    host.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout elsewhere.key -subj /CN=outside -out pki/ca.crt");
    let said = host.refused(
        "init",
        &["--node-name=n", "--apiserver-advertise-address=192.0.2.10"],
    );
    assert!(
        said.contains("(an external CA): sign \"kube-apiserver\" where it is"),
        "{said}"
    );
}

#[test]
fn renew_keeps_key_subject_and_names() {
    let host = Host::new();
    host.init(&[]);
    let look = |file: &str| {
        host.openssl(&format!(
            "x509 -in pki/{file}.crt -noout -subject -ext subjectAltName,extendedKeyUsage -pubkey"
        ))
    };
    let serial = || host.openssl("x509 -in pki/apiserver.crt -noout -serial");
    let (before, first) = (look("apiserver"), serial());
    host.ok("renew", &["--validity=100h"]);
    assert_eq!(before, look("apiserver"));
    assert_ne!(first, serial());
    host.openssl("verify -CAfile pki/ca.crt pki/apiserver.crt");
    let table = host.ok("check-expiration", &[]);
    assert!(table.starts_with("CERTIFICATE                EXPIRES                  RESIDUAL TIME   CERTIFICATE AUTHORITY   EXTERNALLY MANAGED\nadmin.conf "), "{table}");
    let (leaves, authorities) = table.split_once("\n\n").unwrap();
    assert!(
        leaves.lines().skip(1).all(|line| line.contains("   4d ")),
        "{table}"
    );
    assert!(
        authorities.contains("front-proxy-ca")
            && authorities.contains("   9y ") | authorities.contains("   10y "),
        "{table}"
    );
    assert!(
        host.refused("renew", &["nonsense"])
            .contains("there is no certificate nonsense")
    );
}

#[test]
fn verify_names_each_reason_to_refuse() {
    let host = Host::new();
    host.init(&[]);
    let other = Host::new();
    other.init(&[]);
    assert!(
        host.ok(
            "verify",
            &["pki/ca.crt", "pki/ca.key", "pki/etcd/peer.crt", "pki/sa.pub"]
        )
        .lines()
        .all(|line| line.contains(": ok: "))
    );
    let refuse = |args: &[&str], part: &str| {
        let said = host.refused("verify", args);
        assert!(
            said.contains(": refused: ") && said.contains(part) && said.trim_end().lines().count() == 1,
            "{part} not in {said}"
        );
    };
    let foreign = other.path("pki/ca.crt");
    refuse(
        &["pki/apiserver.crt", "--ca", foreign.to_str().unwrap()],
        "with another key",
    );
    refuse(
        &["pki/apiserver.crt", "--ca=pki/etcd/ca.crt"],
        "offered subject=\"CN=kube-apiserver\" issuer=\"CN=kubernetes\"",
    );
    refuse(
        &["pki/apiserver.crt", "--host=example.com"],
        "x509: certificate is valid for kubernetes, ",
    );
    refuse(
        &["pki/apiserver.crt", "--key=pki/sa.key"],
        "private key does not match public key",
    );
    refuse(
        &["pki/apiserver-kubelet-client.crt", "--usage=server"],
        "incompatible key usage",
    );
    refuse(&["missing.crt"], "cannot be read");
    std::fs::set_permissions(host.path("admin.conf"), std::fs::Permissions::from_mode(0o644)).unwrap();
    refuse(&["admin.conf"], "mode 0644 lets others at it, want 0600");
    host.openssl("req -new -key pki/apiserver.key -subj /CN=old -out old.csr");
    host.openssl(
        "x509 -req -in old.csr -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 0 -out old.crt",
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    refuse(&["old.crt", "--ca=pki/ca.crt"], "x509: certificate has expired");
    host.openssl(
        "x509 -req -in old.csr -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 5 -out v1.crt",
    );
    assert!(
        host.ok("verify", &["v1.crt", "--ca=pki/ca.crt"])
            .contains("version 1 without extensions")
    );
}

#[test]
fn a_workers_kubelet_gets_certificates_and_kubeconfig() {
    let host = Host::new();
    host.init(&[]);
    let worker = [
        "--node=worker-7",
        "--node-ip=192.0.2.77",
        "--apiserver-advertise-address=192.0.2.10",
    ];
    host.ok("issue", &[&["kubelet", "--out-dir=out"][..], &worker].concat());
    let text = host.openssl("x509 -in out/kubelet.crt -noout -text");
    assert!(
        text.contains("O = system:nodes, CN = system:node:worker-7")
            && text.contains("DNS:worker-7, IP Address:192.0.2.77"),
        "{text}"
    );
    host.openssl("verify -purpose sslclient -CAfile pki/ca.crt out/kubelet-client.crt");
    host.ok(
        "kubeconfig",
        &[&["kubelet", "--out=out/kubelet.conf"][..], &worker].concat(),
    );
    assert!(
        host.ok("explain", &["out/kubelet.conf"])
            .contains("system:node:worker-7")
    );
}

#[test]
fn bad_usage_is_an_error_with_a_remedy() {
    let host = Host::new();
    for (command, args, part) in [
        (
            "init",
            &["--service-cidr=banana"][..],
            "--service-cidr=\"banana\" is not a range",
        ),
        ("init", &["--node-name=Bad_Name"], "is not a DNS name"),
        ("init", &["--key-algorithm=DSA"], "none of ECDSA-P256"),
        ("init", &["--nod-name=x"], "Did you mean --node-name?"),
        ("issue", &["nothing"], "there is no profile \"nothing\""),
        ("banana", &[], "unknown command \"banana\""),
    ] {
        let said = host.refused(command, args);
        assert!(said.contains(part), "{part} not in {said}");
    }
    assert!(!host.path("pki").exists());
}
