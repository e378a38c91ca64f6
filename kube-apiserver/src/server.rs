//! The assembly: etcd client -> feed -> stores -> endpoints -> filters -> listener, and what runs beside them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use component_base::drain::Drain;
use component_base::health::Health;
use component_base::serve::{self, Handler, Limits};
use component_base::tls::{ClientTls, Pem, ServerTls, alpn};

use crate::options::Options;
use crate::registry::Registry;
use crate::registry::build::{Enabled, build};
use crate::registry::store::Backend;
use crate::registry::core::services::allocator::{Addresses, NodePorts};
use crate::registry::strategies::Shared;
use crate::storage::encryption::{Identity, Transformer};
use crate::storage::etcd::{self, Config};
use crate::storage::feed::{Feed, Routes};

/// The stores and what feeds them.
pub struct Storage {
    pub registry: Arc<Registry>,
    pub backend: Arc<Backend>,
    routes: Routes,
}

impl Storage {
    pub fn new(options: &Options) -> Result<Storage> {
        let client = etcd::Client::new(&etcd_config(options)?)?;
        let transformer: Arc<dyn Transformer> = Arc::new(Identity);
        let prefix = format!("/{}", options.flags.string("etcd-prefix").trim_matches('/'));
        let feed = Feed::new(client.clone(), &prefix, transformer.clone());
        let backend = Arc::new(Backend {
            etcd: client,
            feed,
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
        Ok(Storage { registry: Arc::new(built.registry), backend, routes: built.routes })
    }

    /// Starts to fill the caches; `informer-sync` is ready when they first are.
    pub fn start(&mut self, health: &Health) {
        let synced = health.gate("informer-sync");
        let routes = std::mem::take(&mut self.routes);
        tokio::spawn(self.backend.feed.clone().run(routes, synced));
    }
}

fn etcd_config(options: &Options) -> Result<Config> {
    let servers = &options.etcd_servers;
    if !Config::wants_tls(servers) {
        return Config::new(servers, None);
    }
    let pem = |name: &str| options.file(name).map(|path| Pem::File(path.into()));
    let tls = ClientTls {
        ca: pem("etcd-cafile"),
        cert: pem("etcd-certfile").zip(pem("etcd-keyfile")),
        insecure: false,
        server_name: None,
        alpn: vec![alpn::H2.to_vec()],
    };
    Config::new(servers, Some(tls.load().context("--etcd-cafile, --etcd-certfile, --etcd-keyfile")?))
}

/// Serves until drained.
pub async fn listen(options: &Options, handler: Handler, drain: Drain) -> Result<()> {
    let listener = serve::bind(std::net::SocketAddr::new(options.bind_address, options.secure_port))?;
    let tls = ServerTls::new(options.flags.string("tls-cert-file"), options.flags.string("tls-private-key-file"));
    let tls = tls.load()?;
    let mut limits = Limits::default();
    match options.flags.int("http2-max-streams-per-connection") {
        0 => {}
        streams => limits.max_h2_streams = streams as u32,
    }
    serve::serve(listener, Some(tls), handler, limits, drain).await
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
