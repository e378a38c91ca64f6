//! The node's heartbeat: its Lease in `kube-node-lease`, renewed at a quarter of its duration.

use std::time::Duration;

use client::{Api, Client};
use component_base::drain::Drain;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};

const NAMESPACE: &str = "kube-node-lease";
const MAX_BACKOFF: Duration = Duration::from_secs(7);

pub struct LeaseController {
    pub client: Client,
    pub node_name: String,
    pub duration_seconds: i32,
    /// The node's uid once it is registered: the lease goes with the node.
    pub node_uid: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl LeaseController {
    pub async fn run(self, drain: Drain) {
        let api: Api<Lease> = self.client.namespaced(NAMESPACE);
        let period = Duration::from_secs(u64::try_from(self.duration_seconds).unwrap_or(40)) / 4;
        let mut held: Option<Lease> = None;
        let mut backoff = Duration::from_millis(200);
        loop {
            let wait = match self.renew(&api, held.as_ref()).await {
                Ok(lease) => {
                    held = Some(lease);
                    backoff = Duration::from_millis(200);
                    period
                }
                Err(error) => {
                    // Ours is old, or gone: read it again.
                    held = None;
                    tracing::warn!(%error, "Failed to update lease");
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    backoff
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.signaled() => return,
            }
        }
    }

    async fn renew(&self, api: &Api<Lease>, held: Option<&Lease>) -> Result<Lease, client::Error> {
        let current = match held {
            Some(lease) => Some(lease.clone()),
            None => match api.get(&self.node_name).await {
                Ok(lease) => Some(lease),
                Err(e) if e.is_not_found() => None,
                Err(e) => return Err(e),
            },
        };
        match current {
            Some(lease) => api.update(&self.renewed(lease)).await,
            None => api.create(&self.renewed(Lease::default())).await,
        }
    }

    fn renewed(&self, mut lease: Lease) -> Lease {
        if lease.metadata.name.is_none() {
            lease.metadata = ObjectMeta {
                name: Some(self.node_name.clone()),
                namespace: Some(NAMESPACE.into()),
                ..Default::default()
            };
        }
        if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
            && let Some(uid) = (self.node_uid)()
        {
            lease.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: self.node_name.clone(),
                uid,
                ..Default::default()
            }]);
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.node_name.clone());
        spec.lease_duration_seconds = Some(self.duration_seconds);
        spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        lease
    }
}
