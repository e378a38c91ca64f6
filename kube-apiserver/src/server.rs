//! The assembly: etcd client -> feed -> stores -> endpoints -> filters -> listener, and what runs beside them.
//!
//! Everything that can be wrong with flags and files is found before the port opens. The port opens before the caches are
//! full: requests wait for what they need, `/readyz` for all of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use component_base::drain::Drain;
use component_base::health::{Gate, Health};
use component_base::serve::{self, Handler, Limits};
use component_base::tls::{
    ClientAuth, Pem, ServerConfigHandle, ServerTls, parse_cipher_suites, parse_min_version, self_signed,
};
use component_base::{metrics, sd_notify};

use crate::bootstrap::{self, AuthenticationInfo, KubernetesService, ServiceConfig};
use crate::endpoints::Endpoints;
use crate::filters::assembly::{Parts, assemble};
use crate::options::Options;
use crate::registry::Registry;
use crate::registry::store::Backend;
use storage::Storage;

mod storage;

/// Checks of `/readyz` that open once the server has written what every cluster has.
const POST_START_HOOKS: [&str; 4] = [
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/bootstrap-controller",
];

pub async fn run(options: Options, drain: Drain) -> Result<()> {
    let health = Health::new();
    let tls = serving_tls(&options)?;
    let mut storage = Storage::new(&options)?;
    let address = SocketAddr::new(options.advertise_address, options.secure_port);
    let parts = Parts {
        flags: &options.flags,
        registry: &storage.registry,
        address,
        health: &health,
    };
    let around = assemble(&parts)?;
    storage.admit_with(around.admission);
    let hooks: Vec<Gate> = POST_START_HOOKS.iter().map(|name| health.gate(name)).collect();
    storage.start(&health);
    add_checks(&health, &storage, &drain);
    export_object_counts(&storage.registry);

    let endpoints = Endpoints::new(
        storage.registry.clone(),
        around.plugs,
        drain.clone(),
        options.min_watch,
    );
    let handler = around.filters.around(Arc::new(endpoints));
    let listening = listen(&options, tls, handler, drain.clone())?;
    let service = kubernetes_service(&options, &storage);
    tokio::spawn(post_start(
        storage.registry.clone(),
        storage.backend.clone(),
        around.authentication,
        service,
        hooks,
        drain.clone(),
    ));
    tokio::spawn(storage::compact(
        storage.backend.etcd.clone(),
        options.flags.duration("etcd-compaction-interval"),
        drain,
    ));
    listening.await
}

fn serving_tls(options: &Options) -> Result<ServerConfigHandle> {
    let (cert, key) = certificate(options)?;
    let mut tls = ServerTls::from_pem(cert, key);
    if let Some(ca) = options.file("client-ca-file") {
        tls = tls.client_ca(ca, ClientAuth::Optional);
    }
    tls.min_version = parse_min_version(options.flags.string("tls-min-version"))?;
    tls.cipher_suites = parse_cipher_suites(&options.flags.strings("tls-cipher-suites"))?;
    tls.load()
}

/// Without one of the flags' pair the server makes its own below `--cert-dir`, as upstream.
fn certificate(options: &Options) -> Result<(Pem, Pem)> {
    let flags = &options.flags;
    match (
        options.file("tls-cert-file"),
        options.file("tls-private-key-file"),
    ) {
        (Some(cert), Some(key)) => Ok((Pem::File(cert.into()), Pem::File(key.into()))),
        _ => {
            let advertised = options.advertise_address.to_string();
            let service = options.service_ranges[0].nth(1).to_string();
            let names = [
                "kubernetes.default.svc",
                "kubernetes.default",
                "kubernetes",
                &service,
                flags.string("bind-address"),
            ];
            self_signed(flags.string("cert-dir"), "apiserver", &advertised, &names)
        }
    }
}

fn add_checks(health: &Health, storage: &Storage, drain: &Drain) {
    let feed = storage.backend.feed.clone();
    health.add("etcd", move || feed.connected());
    let feed = storage.backend.feed.clone();
    health.add_ready("etcd-readiness", move || feed.connected());
    let drain = drain.clone();
    health.add_ready("shutdown", move || {
        if drain.is_draining() {
            Err("process is shutting down".to_owned())
        } else {
            Ok(())
        }
    });
}

/// `apiserver_storage_objects{resource}`, counted when asked.
fn export_object_counts(registry: &Arc<Registry>) {
    const NAME: &str = "apiserver_storage_objects";
    let registry = registry.clone();
    metrics::collector(NAME, move |out| {
        out.push_str("# HELP apiserver_storage_objects [STABLE] Number of stored objects at the time of last check split by kind.\n# TYPE apiserver_storage_objects gauge\n");
        for store in registry.stores() {
            let count = store.snapshot().objects.len();
            out.push_str(&format!(
                "{NAME}{{resource=\"{}\"}} {count}\n",
                store.group_resource()
            ));
        }
    });
}

fn kubernetes_service(options: &Options, storage: &Storage) -> Arc<KubernetesService> {
    Arc::new(KubernetesService {
        config: ServiceConfig {
            cluster_ip: options.service_ranges[0].nth(1),
            node_port: options.flags.int("kubernetes-service-node-port") as u16,
            advertise_address: options.advertise_address,
            port: options.secure_port,
        },
        registry: storage.registry.clone(),
        etcd: storage.backend.etcd.clone(),
        leases: Default::default(),
        prefix: storage.prefix.clone(),
    })
}

/// Pause between attempts while etcd is not there yet.
const RETRY: Duration = Duration::from_secs(1);

/// What the server writes for itself, once the caches can tell what is there already.
async fn post_start(
    registry: Arc<Registry>,
    backend: Arc<Backend>,
    published: AuthenticationInfo,
    service: Arc<KubernetesService>,
    hooks: Vec<Gate>,
    drain: Drain,
) {
    backend.feed.synced().await;
    while let Err(error) = bootstrap::start(&registry, &published, &service).await {
        tracing::warn!(err = %error, "Start-up writes failed, will retry");
        tokio::time::sleep(RETRY).await;
    }
    hooks.iter().for_each(Gate::open);
    sd_notify::ready();
    let address = SocketAddr::new(service.config.advertise_address, service.config.port);
    sd_notify::status(&format!("Serves the API on {address}"));
    service.run(drain).await;
    drop(hooks);
}

/// Opens the port; the future serves it.
fn listen(
    options: &Options,
    tls: ServerConfigHandle,
    handler: Handler,
    drain: Drain,
) -> Result<impl Future<Output = Result<()>>> {
    let listener = serve::bind(SocketAddr::new(options.bind_address, options.secure_port))?;
    tracing::info!(address = %listener.local_addr()?, "Serving securely");
    let mut limits = Limits::default();
    match options.flags.int("http2-max-streams-per-connection") {
        0 => {}
        streams => limits.max_h2_streams = streams as u32,
    }
    Ok(serve::serve(listener, Some(tls), handler, limits, drain))
}
