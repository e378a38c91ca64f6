//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may have what signed.

use std::sync::Arc;

use apimachinery::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Operation, Plugin, Seams, Verdict, forbidden};
use crate::authorization::{Attributes as Question, Authorizers, SYSTEM_MASTERS};
use crate::registry::admission::Attributes;
use crate::user::UserInfo;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

pub struct Approval {
    authorizers: Arc<Authorizers>,
}

impl Approval {
    pub fn new(seams: &Seams) -> Self {
        Approval {
            authorizers: seams.authorizers.clone(),
        }
    }
}

impl Plugin for Approval {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Update]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(old) = a
            .old
            .as_ref()
            .filter(|_| a.subresource == "approval" && a.is_resource(GROUP, RESOURCE))
        else {
            return Ok(());
        };
        let signer = old.value().str_at("spec.signerName").to_owned();
        if may(&self.authorizers, &a.user, "approve", &signer) {
            return Ok(());
        }
        Err(forbidden(
            a,
            format!("user not permitted to approve requests with signerName {signer:?}"),
        ))
    }
}

pub struct Signing {
    authorizers: Arc<Authorizers>,
}

impl Signing {
    pub fn new(seams: &Seams) -> Self {
        Signing {
            authorizers: seams.authorizers.clone(),
        }
    }
}

impl Plugin for Signing {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Update]
    }

    /// Only a write of the certificate or of the conditions is signing.
    fn validate(&self, a: &Attributes) -> Verdict {
        let (Some(new), Some(old)) = (
            &a.object,
            a.old
                .as_ref()
                .filter(|_| a.subresource == "status" && a.is_resource(GROUP, RESOURCE)),
        ) else {
            return Ok(());
        };
        let old = old.value();
        let same =
            |path: &str| old.at(path).filter(|v| !v.is_zero()) == new.at(path).filter(|v| !v.is_zero());
        let signer = old.str_at("spec.signerName");
        if (same("status.certificate") && same("status.conditions"))
            || may(&self.authorizers, &a.user, "sign", signer)
        {
            return Ok(());
        }
        Err(forbidden(
            a,
            format!("user not permitted to sign requests with signerName {signer:?}"),
        ))
    }
}

pub struct SubjectRestriction;

impl Plugin for SubjectRestriction {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let Some(request) = a.object.as_ref().filter(|_| super::is_main(a, GROUP, RESOURCE)) else {
            return Ok(());
        };
        let signer = request.str_at("spec.signerName");
        if signer != "kubernetes.io/kube-apiserver-client" {
            return Ok(());
        }
        let subject =
            parse_request(request).map_err(|why| forbidden(a, format!("failed to parse CSR: {why}")))?;
        if subject.organizations.iter().any(|o| o == SYSTEM_MASTERS) {
            return Err(forbidden(
                a,
                format!("use of {signer} signer with {SYSTEM_MASTERS} group is not allowed"),
            ));
        }
        Ok(())
    }
}

/// The right on this signer, or on all of its domain (`example.org/*`).
fn may(authorizers: &Authorizers, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let asks = |name: &str| {
        authorizers
            .authorize(&Question::of_resource(user, verb, GROUP, "signers", "", name))
            .allowed()
    };
    asks(signer)
        || signer
            .split_once('/')
            .is_some_and(|(domain, _)| asks(&format!("{domain}/*")))
}

pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// The subject of a CertificateSigningRequest object's PEM in base64.
pub fn parse_request(object: &Value) -> Result<Subject, String> {
    let pem = STANDARD
        .decode(object.str_at("spec.request"))
        .map_err(|e| e.to_string())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| e.to_string())?;
    let subject = &request.certification_request_info.subject;
    let texts = |names: Vec<Result<&str, _>>| {
        names
            .into_iter()
            .filter_map(|n: Result<&str, x509_parser::error::X509Error>| n.ok())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    Ok(Subject {
        common_name: texts(subject.iter_common_name().map(|n| n.as_str()).collect())
            .pop()
            .unwrap_or_default(),
        organizations: texts(subject.iter_organization().map(|n| n.as_str()).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, cached, message, seams};
    use super::*;
    use crate::authorization::rbac::Subject as RbacSubject;
    use crate::authorization::rbac::{Binding, Metadata, Rbac, Role, RoleRef};
    use crate::authorization::rules::PolicyRule;
    use serde_json::json;

    /// CN=jane, O=system:masters; made with openssl, the key is gone.
    const MASTERS: &str = "-----BEGIN CERTIFICATE REQUEST-----\nMIHkMIGKAgEAMCgxFzAVBgNVBAoMDnN5c3RlbTptYXN0ZXJzMQ0wCwYDVQQDDARq\nYW5lMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEc0MVOGm1QZScmtW4rQ+aGKtn\nSMtFyWOz0zIlKmgYqR8jXukefck7r98sgJ1LeAntcko5rwp6M4JqOCUB7ONHjKAA\nMAoGCCqGSM49BAMCA0kAMEYCIQCHozb4yBjmp+GehHkv6TyAhezLyNrlMuRHUIzc\nEWR1nAIhAKLPfqX9cAlojocnZJNWj4H2xbPTwNxyuDuFu4CFRX5P\n-----END CERTIFICATE REQUEST-----\n";

    fn authorizers(signer: &str) -> Seams {
        let rbac = Rbac::default();
        let strings = |s: &[&str]| s.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let rule = PolicyRule {
            verbs: strings(&["approve", "sign"]),
            api_groups: strings(&[GROUP]),
            resources: strings(&["signers"]),
            resource_names: strings(&[signer]),
            ..Default::default()
        };
        rbac.set_role(Role {
            metadata: Metadata {
                name: "r".into(),
                ..Default::default()
            },
            rules: vec![rule],
        });
        rbac.set_binding(Binding {
            metadata: Metadata {
                name: "b".into(),
                ..Default::default()
            },
            subjects: vec![RbacSubject {
                kind: "User".into(),
                name: "jane".into(),
                ..Default::default()
            }],
            role_ref: RoleRef {
                kind: "ClusterRole".into(),
                name: "r".into(),
            },
        });
        Seams {
            authorizers: Arc::new(Authorizers::new(
                &["RBAC".to_owned()],
                Default::default(),
                vec![],
                rbac,
            )),
            ..seams(Cluster::default())
        }
    }

    fn update(sub: &str, status: serde_json::Value) -> Attributes {
        let stored = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"}, "spec": {"signerName": "example.org/x", "request": ""}});
        let mut a = attributes(
            Operation::Update,
            GROUP,
            RESOURCE,
            "",
            "c",
            Some(json!({ "status": status })),
        );
        a.subresource = sub.into();
        a.old = Some(cached(&stored));
        a
    }

    #[test]
    fn approval_needs_the_signer_or_its_domain() {
        let approve =
            |signer: &str| Approval::new(&authorizers(signer)).validate(&update("approval", json!({})));
        assert!(approve("example.org/x").is_ok());
        assert!(approve("example.org/*").is_ok());
        assert!(
            message(approve("example.org/y"))
                .ends_with(r#"user not permitted to approve requests with signerName "example.org/x""#)
        );
    }

    #[test]
    fn signing_is_writing_the_certificate() {
        let sign = |signer: &str, status: serde_json::Value| {
            Signing::new(&authorizers(signer)).validate(&update("status", status))
        };
        assert!(sign("other", json!({})).is_ok());
        assert!(sign("other", json!({"certificate": "Y2VydA=="})).is_err());
        assert!(sign("example.org/x", json!({"certificate": "Y2VydA=="})).is_ok());
    }

    #[test]
    fn nobody_becomes_a_master_by_certificate() {
        let request = |pem: &str, signer: &str| {
            let spec = json!({"signerName": signer, "request": STANDARD.encode(pem)});
            SubjectRestriction.validate(&attributes(
                Operation::Create,
                GROUP,
                RESOURCE,
                "",
                "c",
                Some(json!({ "spec": spec })),
            ))
        };
        assert!(
            message(request(MASTERS, "kubernetes.io/kube-apiserver-client"))
                .ends_with("signer with system:masters group is not allowed")
        );
        assert!(request(MASTERS, "example.org/x").is_ok());
        assert!(
            message(request("garbage", "kubernetes.io/kube-apiserver-client"))
                .contains("failed to parse CSR")
        );
    }
}
