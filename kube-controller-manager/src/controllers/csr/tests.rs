use super::*;
use client::fake::FakeServer;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::json;
use std::time::Duration;

fn kubelet_request(common_name: &str) -> String {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn csr(pem: &str, signer: &str) -> CertificateSigningRequest {
    let mut csr: CertificateSigningRequest = serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"request": "", "signerName": signer, "username": "system:bootstrap:abc",
        "usages": ["digital signature", "client auth"]}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}}))
    .unwrap();
    csr.spec.request = ByteString(pem.as_bytes().to_vec());
    csr
}

/// A CA in files.
fn authority_in(dir: &std::path::Path) -> SigningPair {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test-ca");
    let key = KeyPair::generate().unwrap();
    let pair = SigningPair {
        cert_file: dir.join("ca.crt"),
        key_file: dir.join("ca.key"),
    };
    std::fs::write(&pair.cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&pair.key_file, key.serialize_pem()).unwrap();
    pair
}

#[test]
fn a_kubelet_is_recognised_and_others_are_not() {
    let csr = csr(&kubelet_request("system:node:n1"), KUBELET_CLIENT);
    let request = parsed(&csr).unwrap();
    assert_eq!(
        (request.common_name.as_str(), request.organizations.as_slice()),
        ("system:node:n1", &["system:nodes".to_owned()][..])
    );
    assert_eq!(
        permissions(&csr, &request)
            .iter()
            .map(|p| p.0)
            .collect::<Vec<_>>(),
        ["nodeclient"]
    );
    let mut own = csr.clone();
    own.spec.username = Some("system:node:n1".into());
    assert_eq!(
        permissions(&own, &request)
            .iter()
            .map(|p| p.0)
            .collect::<Vec<_>>(),
        ["selfnodeclient", "nodeclient"]
    );
    let mut serving = csr.clone();
    serving.spec.usages = Some(vec!["server auth".into()]);
    assert!(permissions(&serving, &request).is_empty());
    let admin = Request::parse(kubelet_request("admin").as_bytes()).unwrap();
    assert!(permissions(&csr, &admin).is_empty());
}

#[tokio::test]
async fn an_approved_request_is_signed_and_a_bad_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let pair = authority_in(dir.path());
    let server = FakeServer::new();
    let signing = Signing {
        kubelet_client: Some(pair),
        duration: Duration::from_secs(3600 * 24),
        ..Signing::default()
    };
    for (common_name, issued) in [("system:node:n1", true), ("admin", false)] {
        let mut wanted = csr(&kubelet_request(common_name), KUBELET_CLIENT);
        wanted.metadata.name = Some(common_name.replace(':', "-"));
        let made = server.client().all().create(&wanted).await.unwrap();
        let key = made.metadata.name.clone().unwrap();
        let signer = Signer {
            client: server.client(),
            requests: Store::of([made]),
            signing: signing.clone(),
        };
        signer.reconcile(&key).await.unwrap();
        let after = server
            .client()
            .all::<CertificateSigningRequest>()
            .get(&key)
            .await
            .unwrap();
        assert_eq!(
            (is_issued(&after), has_condition(&after, "Failed")),
            (issued, !issued)
        );
        if issued {
            check_certificate(&after.status.unwrap().certificate.unwrap().0);
        }
    }
}

fn check_certificate(pem: &[u8]) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert!(certificate.subject().to_string().contains("system:node:n1"));
    assert!(certificate.issuer().to_string().contains("test-ca"));
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
    assert_eq!(life, 3600 * 24);
}
