//! etcd, the feed and the stores.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use apimachinery::schema;
use component_base::drain::Drain;
use component_base::health::Health;
use component_base::tls::{ClientConfigHandle, ClientTls, Pem, alpn};

use crate::options::Options;
use crate::registry::Registry;
use crate::registry::admission::Admission;
use crate::registry::build::{Enabled, build};
use crate::registry::core::services::allocator::{Addresses, NodePorts};
use crate::registry::store::Backend;
use crate::registry::strategies::Shared;
use crate::storage::encryption::{self, Transformer};
use crate::storage::etcd::{self, Config};
use crate::storage::feed::{Feed, Routes};

pub struct Storage {
    pub registry: Arc<Registry>,
    pub backend: Arc<Backend>,
    /// `/registry`
    pub prefix: String,
    routes: Routes,
}

impl Storage {
    pub fn new(options: &Options) -> Result<Storage> {
        let client = etcd::Client::new(&Config::new(&options.etcd_servers, etcd_tls(options)?)?)?;
        let prefix = format!("/{}", options.flags.string("etcd-prefix").trim_matches('/'));
        let transformer = transformer(options, &prefix)?;
        let backend = Arc::new(Backend {
            feed: Feed::new(client.clone(), &prefix, transformer.clone()),
            etcd: client,
            admission: OnceLock::new(),
            transformer,
            event_ttl_s: options.event_ttl_s,
            leases: Default::default(),
        });
        let enabled = Enabled::new(options.flags.map("runtime-config"));
        let shared = Shared {
            allow_privileged: options.flags.bool("allow-privileged"),
            addresses: Arc::new(Addresses::new(&options.service_ranges)),
            ports: Arc::new(NodePorts::new(options.node_ports)),
        };
        let built = build(&backend, &prefix, &enabled, &shared);
        Ok(Storage {
            registry: Arc::new(built.registry),
            backend,
            prefix,
            routes: built.routes,
        })
    }

    /// The chain is made after the stores, because its plugins read them.
    pub fn admit_with(&self, chain: Arc<dyn Admission>) {
        // Called once: a second chain would be ignored.
        drop(self.backend.admission.set(chain));
    }

    /// Starts to fill the caches; `informer-sync` is ready when they first are.
    pub fn start(&mut self, health: &Health) {
        let synced = health.gate("informer-sync");
        let routes = std::mem::take(&mut self.routes);
        tokio::spawn(self.backend.feed.clone().run(routes, synced));
    }
}

fn transformer(options: &Options, prefix: &str) -> Result<Arc<dyn Transformer>> {
    let Some(path) = options.file("encryption-provider-config") else {
        return Ok(Arc::new(encryption::Identity));
    };
    let stored = schema::resources().iter().filter(|r| !r.key_prefix.is_empty());
    let folders = stored.map(|r| (r.storage.group, r.resource, format!("{prefix}/{}/", r.key_prefix)));
    Ok(Arc::new(encryption::AtRest::load(path.as_ref(), folders)?))
}

/// `None` = no endpoint needs TLS.
pub fn etcd_tls(options: &Options) -> Result<Option<ClientConfigHandle>> {
    if !Config::wants_tls(&options.etcd_servers) {
        return Ok(None);
    }
    let pem = |name: &str| options.file(name).map(|path| Pem::File(path.into()));
    let tls = ClientTls {
        ca: pem("etcd-cafile"),
        cert: pem("etcd-certfile").zip(pem("etcd-keyfile")),
        insecure: false,
        server_name: None,
        alpn: vec![alpn::H2.to_vec()],
    };
    tls.load()
        .context("--etcd-cafile, --etcd-certfile, --etcd-keyfile")
        .map(Some)
}

/// etcd's history is ours to shorten: every interval, what was there an interval ago is compacted.
pub async fn compact(client: etcd::Client, every: Duration, drain: Drain) {
    if every.is_zero() {
        return;
    }
    let mut before = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = drain.signaled() => return,
        }
        let now = client.revision().await.ok();
        if let Some(revision) = before {
            match client.compact(revision).await {
                Ok(()) => tracing::debug!(revision, "etcd history compacted"),
                Err(etcd::Error::Compacted) => {}
                Err(error) => tracing::warn!(revision, err = %error, "Compacting etcd's history failed"),
            }
        }
        before = now;
    }
}
