//! Certificate signing requests: approves those of kubelets, signs those that are approved, removes the old ([`cleaner`]).

mod authority;
pub mod cleaner;
mod request;

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::meta::{name, now};
use crate::options::{Signing, SigningPair};
use client::Client;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use request::{
    APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, Request, has_condition, is_issued,
};
use std::sync::Arc;

/// Each of the two loops has little to do.
const WORKERS: usize = 5;

pub fn build_approver(context: &Context) -> Option<Box<dyn Controller>> {
    let (queue, requests) = started(context, "csrapproving");
    let needs = vec![synced(&requests)];
    let reconciler = Arc::new(Approver {
        client: context.client_for("certificate-controller"),
        requests,
    });
    Some(Box::new(Driver {
        name: "certificatesigningrequest-approving-controller",
        queue,
        reconciler,
        workers: WORKERS,
        needs,
    }))
}

/// Without a CA there is nobody to sign.
pub fn build_signer(context: &Context) -> Option<Box<dyn Controller>> {
    let signing = &context.options.signing;
    let any = [
        &signing.kubelet_client,
        &signing.kubelet_serving,
        &signing.apiserver_client,
        &signing.legacy_unknown,
    ]
    .into_iter()
    .any(Option::is_some);
    if !any {
        tracing::info!("Skipping CSR signer controller because no csr cert/key was specified");
        return None;
    }
    let (queue, requests) = started(context, "csrsigning");
    let needs = vec![synced(&requests)];
    let reconciler = Arc::new(Signer {
        client: context.client_for("certificate-controller"),
        requests,
        signing: signing.clone(),
    });
    Some(Box::new(Driver {
        name: "certificatesigningrequest-signing-controller",
        queue,
        reconciler,
        workers: WORKERS,
        needs,
    }))
}

fn started(context: &Context, queue: &str) -> (WorkQueue<String>, Store<CertificateSigningRequest>) {
    let queue = WorkQueue::new(queue);
    let requests = context.informers.signing_requests.start();
    hear(&context.informers.signing_requests, &queue);
    (queue, requests)
}

fn hear(requests: &Informer<CertificateSigningRequest>, queue: &WorkQueue<String>) {
    let queue = queue.clone();
    requests.on_event(move |event| match event {
        Event::Added(csr) | Event::Modified(_, csr) => queue.add(name(&csr.metadata).to_owned()),
        Event::Deleted(_) | Event::Synced => {}
    });
}

fn parsed(csr: &CertificateSigningRequest) -> Result<Request, Failure> {
    Request::parse(&csr.spec.request.0)
        .map_err(|e| Failure::other(format!("unable to parse csr {:?}: {e}", name(&csr.metadata))))
}

fn condition(type_: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now()),
        last_transition_time: Some(now()),
    }
}

fn add_condition(csr: &mut CertificateSigningRequest, condition: CertificateSigningRequestCondition) {
    csr.status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default()
        .push(condition);
}

/// Approves the client certificates of kubelets whose user may have them: a node its own, a bootstrapper those of others.
struct Approver {
    client: Client,
    requests: Store<CertificateSigningRequest>,
}

impl Reconciler for Approver {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(csr) = self.requests.get(key) else {
            return Ok(Requeue::Done);
        };
        if is_issued(&csr) || has_condition(&csr, "Approved") || has_condition(&csr, "Denied") {
            return Ok(Requeue::Done);
        }
        let tried = permissions(&csr, &parsed(&csr)?);
        for (subresource, message) in &tried {
            if self.is_allowed(&csr, subresource).await? {
                let mut approved = (*csr).clone();
                add_condition(&mut approved, condition("Approved", "AutoApproved", message));
                let api = self.client.all::<CertificateSigningRequest>();
                let _: CertificateSigningRequest =
                    api.replace_subresource(key, "approval", &approved).await?;
                return Ok(Requeue::Done);
            }
        }
        match tried.is_empty() {
            true => Ok(Requeue::Done),
            false => Err(Failure::NotYet(format!(
                "recognized csr {key:?} but subject access review was not approved"
            ))),
        }
    }
}

impl Approver {
    async fn is_allowed(
        &self,
        csr: &CertificateSigningRequest,
        subresource: &str,
    ) -> Result<bool, client::Error> {
        let attributes = ResourceAttributes {
            group: Some("certificates.k8s.io".into()),
            resource: Some("certificatesigningrequests".into()),
            subresource: Some(subresource.to_owned()),
            verb: Some("create".into()),
            version: Some("*".into()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let answer = self.client.all::<SubjectAccessReview>().create(&review).await?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }
}

/// The permissions of which one is enough, with what is said when it is there.
fn permissions(csr: &CertificateSigningRequest, request: &Request) -> Vec<(&'static str, &'static str)> {
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    if csr.spec.signer_name != KUBELET_CLIENT || request.check_kubelet_client(usages).is_err() {
        return Vec::new();
    }
    let own = csr.spec.username.as_deref() == Some(&request.common_name);
    let own = own.then_some((
        "selfnodeclient",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    ));
    own.into_iter()
        .chain([(
            "nodeclient",
            "Auto approving kubelet client certificate after SubjectAccessReview.",
        )])
        .collect()
}

struct Signer {
    client: Client,
    requests: Store<CertificateSigningRequest>,
    signing: Signing,
}

impl Reconciler for Signer {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(csr) = self.requests.get(key) else {
            return Ok(Requeue::Done);
        };
        let waits = has_condition(&csr, "Approved")
            && !has_condition(&csr, "Denied")
            && !has_condition(&csr, "Failed")
            && !is_issued(&csr);
        let Some(pair) = self.pair(&csr.spec.signer_name).filter(|_| waits) else {
            return Ok(Requeue::Done);
        };
        let request = parsed(&csr)?;
        let mut changed = (*csr).clone();
        match refusal(&csr, &request) {
            Some(reason) => add_condition(
                &mut changed,
                condition("Failed", "SignerValidationFailure", &reason),
            ),
            None => changed.status.get_or_insert_default().certificate = Some(self.signed(&csr, pair)?),
        }
        self.client
            .all::<CertificateSigningRequest>()
            .update_status(&changed)
            .await?;
        Ok(Requeue::Done)
    }
}

impl Signer {
    fn pair(&self, signer: &str) -> Option<&SigningPair> {
        match signer {
            KUBELET_CLIENT => self.signing.kubelet_client.as_ref(),
            KUBELET_SERVING => self.signing.kubelet_serving.as_ref(),
            APISERVER_CLIENT => self.signing.apiserver_client.as_ref(),
            LEGACY_UNKNOWN => self.signing.legacy_unknown.as_ref(),
            _ => None,
        }
    }

    fn signed(&self, csr: &CertificateSigningRequest, pair: &SigningPair) -> Result<ByteString, Failure> {
        let pem = String::from_utf8_lossy(&csr.spec.request.0);
        let lifetime = authority::duration(csr.spec.expiration_seconds, self.signing.duration);
        let usages = csr.spec.usages.as_deref().unwrap_or_default();
        let certificate = authority::sign(pair, &pem, usages, lifetime)
            .map_err(|e| Failure::other(format!("error auto signing csr: {e}")))?;
        Ok(ByteString(certificate.into_bytes()))
    }
}

fn refusal(csr: &CertificateSigningRequest, request: &Request) -> Option<String> {
    // The signing library keeps one value of each attribute: better none than a certificate without some of its groups.
    if request.organizations.len() > 1 {
        return Some("requests with several organizations cannot be signed here: ask for one organization, or sign with openssl".into());
    }
    request::check(csr, request)?.err()
}

#[cfg(test)]
mod tests;
