//! Removes certificate requests that nobody needs any more.

use super::hear;
use super::request::is_issued;
use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Outcome, Reconciler, Requeue, synced};
use crate::meta::{name, seconds_since};
use client::Client;
use client::informer::Store;
use client::workqueue::WorkQueue;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::pem::parse_x509_pem;

/// Issued, denied and failed ones.
const SETTLED: i64 = 3600;
/// Those that wait for approval or for a signature.
const WAITING: i64 = 24 * 3600;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("certificate_cleaner");
    let requests = context.informers.signing_requests.start();
    hear(&context.informers.signing_requests, &queue);
    let needs = vec![synced(&requests)];
    let reconciler = Arc::new(Cleaner {
        client: context.client_for("certificate-controller"),
        requests,
    });
    Some(Box::new(Driver {
        name: "certificatesigningrequest-cleaner-controller",
        queue,
        reconciler,
        workers: 1,
        needs,
    }))
}

struct Cleaner {
    client: Client,
    requests: Store<CertificateSigningRequest>,
}

impl Reconciler for Cleaner {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(csr) = self.requests.get(key) else {
            return Ok(Requeue::Done);
        };
        match seconds_left(&csr) {
            Some(left) if left <= 0 => {
                tracing::info!(csr = key, "Cleaning CSR as it is past its deadline");
                match self
                    .client
                    .all::<CertificateSigningRequest>()
                    .delete(name(&csr.metadata), &Default::default())
                    .await
                {
                    Err(error) if !error.is_not_found() => Err(error.into()),
                    _ => Ok(Requeue::Done),
                }
            }
            Some(left) => Ok(Requeue::After(Duration::from_secs(left.unsigned_abs()))),
            None => Ok(Requeue::Done),
        }
    }
}

/// The first of its deadlines.
fn seconds_left(csr: &CertificateSigningRequest) -> Option<i64> {
    let conditions = csr
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    if conditions.is_empty() {
        return csr
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|t| WAITING - seconds_since(t));
    }
    let expiry = conditions
        .iter()
        .any(|c| c.type_ == "Approved")
        .then(|| seconds_to_expiry(csr))
        .flatten();
    conditions
        .iter()
        .filter_map(|c| deadline_of(c, is_issued(csr)))
        .chain(expiry)
        .min()
}

fn deadline_of(condition: &CertificateSigningRequestCondition, issued: bool) -> Option<i64> {
    let kept = match (condition.type_.as_str(), issued) {
        ("Denied" | "Failed", _) | ("Approved", true) => SETTLED,
        ("Approved", false) => WAITING,
        _ => return None,
    };
    condition
        .last_update_time
        .as_ref()
        .map(|t| kept - seconds_since(t))
}

fn seconds_to_expiry(csr: &CertificateSigningRequest) -> Option<i64> {
    let pem = csr.status.as_ref()?.certificate.as_ref()?;
    let (_, pem) = parse_x509_pem(&pem.0).ok()?;
    let end = pem.parse_x509().ok()?.validity().not_after.timestamp();
    Some(end - k8s_openapi::jiff::Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn csr(age: i64, condition: Option<&str>) -> CertificateSigningRequest {
        let at =
            k8s_openapi::jiff::Timestamp::from_second(k8s_openapi::jiff::Timestamp::now().as_second() - age)
                .unwrap()
                .to_string();
        let conditions: Vec<_> = condition
            .into_iter()
            .map(|c| json!({"type": c, "status": "True", "lastUpdateTime": at}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "c", "creationTimestamp": at}, "spec": {"request": "", "signerName": "s", "usages": []}, "status": {"conditions": conditions}})).unwrap()
    }

    #[test]
    fn the_denied_go_after_an_hour_and_the_waiting_after_a_day() {
        assert!(seconds_left(&csr(3500, Some("Denied"))).unwrap() > 0);
        assert!(seconds_left(&csr(3700, Some("Denied"))).unwrap() <= 0);
        assert!(seconds_left(&csr(3700, None)).unwrap() > 0);
        assert!(seconds_left(&csr(90_000, None)).unwrap() <= 0);
        assert!(seconds_left(&csr(3700, Some("Approved"))).unwrap() > 0);
    }
}
