//! From the watch to the kernel: informers mark Services as changed, one task commits them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use client::informer::{Event, Informer, Store};
use client::kubeconfig::{self, RestConfig};
use client::{Client, ListOptions, object_key};
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::serve::{self, DebugRoutes, Limits, configz};
use component_base::{http, sd_notify};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::conntrack::{self, Expected};
use crate::healthcheck::ProxyHealth;
use crate::metrics;
use crate::nft::{Family, Netlink};
use crate::options::{Options, announce_mode};
use crate::proxier::Proxier;
use crate::ruleset::{ServicePort, Settings};
use crate::services::{SERVICE_NAME_LABEL, service_ports};
use crate::sysctl;

/// Services that somebody else proxies, and headless ones, are not even watched.
const PROXIED: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
const BY_SERVICE: &str = "service";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// After the kernel refused a whole table.
const RETRY: Duration = Duration::from_secs(5);

pub async fn run(flags: Flags, drain: Drain) -> Result<()> {
    if flags.bool("cleanup") {
        return cleanup();
    }
    let options = Options::load(&flags)?;
    if let path @ [_, ..] = flags.string("write-config-to").as_bytes() {
        let path = String::from_utf8_lossy(path).into_owned();
        let text = serde_json::to_string_pretty(&options.configuration)?;
        return std::fs::write(&path, text)
            .with_context(|| format!("--write-config-to: cannot write {path}"));
    }
    if flags.bool("init-only") {
        return Ok(());
    }
    announce_mode(&options.mode);
    let client = Client::new(rest_config(&options)?, "kube-proxy")?;
    let families = open_families(&options)?;
    sysctl::apply(&options);
    let health = ProxyHealth::default();
    serve_endpoints(&options, &flags, &health, &drain)?;
    let watched = watch(&client, &options, &health);
    let families = families
        .into_iter()
        .map(|proxier| (proxier, Expected::default()))
        .collect();
    let syncer = Syncer {
        families,
        watched,
        node_name: options.node_name.clone(),
        health,
    };
    tokio::select! {
        () = syncer.run() => Ok(()),
        // The rules stay: traffic goes on while kube-proxy is replaced.
        () = drain.signaled() => Ok(()),
    }
}

fn cleanup() -> Result<()> {
    for family in [Family::Ipv4, Family::Ipv6] {
        Proxier::new(Netlink::open()?, settings(None, family))
            .cleanup()
            .with_context(|| format!("cannot remove the {family:?} table"))?;
    }
    info!("Removed the nftables tables");
    Ok(())
}

fn rest_config(options: &Options) -> Result<RestConfig> {
    let mut config = match &options.kubeconfig {
        Some(path) => kubeconfig::load(path)?,
        None if options.master.is_some() => RestConfig::default(),
        None => kubeconfig::in_cluster()
            .context("neither --kubeconfig nor --master was given, and this is not a pod")?,
    };
    if let Some(master) = &options.master {
        config.server = kubeconfig::Server::parse(master)
            .map_err(anyhow::Error::msg)
            .context("--master")?;
    }
    Ok(config)
}

fn settings(options: Option<&Options>, family: Family) -> Settings {
    let of_family = |cidrs: &[(std::net::IpAddr, u8)]| {
        cidrs
            .iter()
            .copied()
            .filter(|(ip, _)| Family::of(*ip) == family)
            .collect()
    };
    Settings {
        family,
        masquerade_bit: options.map_or(14, |options| options.masquerade_bit),
        masquerade_all: options.is_some_and(|options| options.masquerade_all),
        cluster_cidrs: options.map_or_else(Vec::new, |options| of_family(&options.cluster_cidrs)),
        node_port_cidrs: options.map_or_else(Vec::new, |options| of_family(&options.node_port_cidrs)),
    }
}

/// IPv4 always; IPv6 where this kernel has it.
fn open_families(options: &Options) -> Result<Vec<Proxier<Netlink>>> {
    let mut families = vec![Family::Ipv4];
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        families.push(Family::Ipv6);
    }
    families
        .into_iter()
        .map(|family| {
            let kernel = Netlink::open()
                .context("cannot open a netfilter socket: kube-proxy needs root or CAP_NET_ADMIN")?;
            Ok(Proxier::new(kernel, settings(Some(options), family)))
        })
        .collect()
}

fn serve_endpoints(options: &Options, flags: &Flags, health: &ProxyHealth, drain: &Drain) -> Result<()> {
    let checks = Health::new();
    let probe = health.clone();
    checks.add("proxier", move || {
        if probe.is_live() {
            Ok(())
        } else {
            Err("the rules are not in the kernel".to_owned())
        }
    });
    sd_notify::guard(&checks);
    let mode = if options.mode.is_empty() {
        "nftables"
    } else {
        &options.mode
    }
    .to_owned();
    let debug = DebugRoutes::new(
        "kube-proxy",
        &checks,
        configz("kubeproxy.config.k8s.io", &options.configuration),
    )
    .flags(flags);
    listen(
        &options.healthz_bind_address,
        options.bind_address_hard_fail,
        drain,
        {
            let health = health.clone();
            move |path, _| health.respond(path)
        },
    )?;
    listen(
        &options.metrics_bind_address,
        options.bind_address_hard_fail,
        drain,
        move |path, query| match path {
            "/proxyMode" => Some(http::text(hyper::StatusCode::OK, &mode)),
            _ => debug.respond(&hyper::Method::GET, path, query),
        },
    )
}

type Answer = hyper::Response<http::Body>;

fn listen(
    address: &str,
    hard_fail: bool,
    drain: &Drain,
    answer: impl Fn(&str, Option<&str>) -> Option<Answer> + Send + Sync + 'static,
) -> Result<()> {
    if address.is_empty() {
        return Ok(());
    }
    let listener = match serve::bind(address) {
        Ok(listener) => listener,
        Err(failure) if hard_fail => return Err(failure),
        Err(failure) => {
            error!(address, err = %failure, "Cannot listen; going on without (see --bind-address-hard-fail)");
            return Ok(());
        }
    };
    let handler = serve::handler(move |request: hyper::Request<hyper::body::Incoming>| {
        let response = answer(request.uri().path(), request.uri().query());
        std::future::ready(
            response.unwrap_or_else(|| http::text(hyper::StatusCode::NOT_FOUND, "404 page not found\n")),
        )
    });
    let drain = drain.clone();
    tokio::spawn(async move {
        if let Err(failure) = serve::serve(listener, None, handler, Limits::default(), drain).await {
            error!(err = %failure, "Server stopped");
        }
    });
    Ok(())
}

/// The stores, and the keys of Services that changed since they were last looked at.
struct Watched {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    changed: Arc<Changed>,
}

#[derive(Default)]
struct Changed {
    keys: Mutex<BTreeSet<String>>,
    /// When the oldest not yet committed endpoint change was triggered, by its annotation.
    triggers: Mutex<Vec<SystemTime>>,
    wake: Notify,
}

impl Changed {
    fn mark(&self, key: String) {
        self.keys.lock().insert(key);
        self.wake.notify_one();
    }
}

fn watch(client: &Client, options: &Options, health: &ProxyHealth) -> Watched {
    let changed = Arc::new(Changed::default());
    let services = Informer::new(client.all::<Service>(), ListOptions::labels(PROXIED));
    let slices = Informer::new(client.all::<EndpointSlice>(), ListOptions::labels(PROXIED))
        .index(BY_SERVICE, |slice| service_of(slice).into_iter().collect());
    services.on_event({
        let (changed, health) = (changed.clone(), health.clone());
        move |event| {
            each_object(event, |service| {
                metrics::SERVICE_CHANGES.with(&["IPv4"]).inc();
                queue(&changed, &health, object_key(&**service));
            })
        }
    });
    slices.on_event({
        let (changed, health) = (changed.clone(), health.clone());
        move |event| {
            each_object(event, |slice| {
                metrics::ENDPOINT_CHANGES
                    .with(&[slice.address_type.as_str()])
                    .inc();
                changed.triggers.lock().extend(trigger_time(slice));
                if let Some(key) = service_of(slice) {
                    queue(&changed, &health, key);
                }
            })
        }
    });
    watch_node(client, options, health);
    Watched {
        services: services.start(),
        slices: slices.start(),
        changed,
    }
}

fn watch_node(client: &Client, options: &Options, health: &ProxyHealth) {
    let node = Informer::new(
        client.all::<Node>(),
        ListOptions::fields(format!("metadata.name={}", options.node_name)),
    );
    let health = health.clone();
    node.on_event(move |event| match event {
        Event::Added(node) | Event::Modified(_, node) => health.set_node_is_leaving(is_leaving(node)),
        Event::Deleted(_) => health.set_node_is_leaving(true),
        Event::Synced => (),
    });
    // The handler is all that is wanted of it; the task lives on its own.
    drop(node.start());
}

/// The taint is the cluster autoscaler's.
fn is_leaving(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|taint| taint.key == TO_BE_DELETED)
}

fn each_object<T>(event: Event<&Arc<T>>, mut act: impl FnMut(&Arc<T>)) {
    match event {
        Event::Added(object) | Event::Deleted(object) => act(object),
        // Both: a slice may have moved to another Service.
        Event::Modified(old, new) => {
            act(old);
            act(new);
        }
        Event::Synced => (),
    }
}

fn queue(changed: &Changed, health: &ProxyHealth, key: String) {
    metrics::LAST_QUEUED
        .with(&["IPv4"])
        .set(unix_seconds(SystemTime::now()));
    health.queued();
    changed.mark(key);
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(format!(
        "{}/{name}",
        slice.metadata.namespace.as_deref().unwrap_or("")
    ))
}

fn trigger_time(slice: &EndpointSlice) -> Option<SystemTime> {
    let text = slice.metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Owns the kernel's tables.
struct Syncer {
    families: Vec<(Proxier<Netlink>, Expected)>,
    watched: Watched,
    node_name: String,
    health: ProxyHealth,
}

impl Syncer {
    /// Nothing is written before both lists are complete: half a list would take endpoints away.
    async fn run(mut self) {
        self.watched.services.wait_synced().await;
        self.watched.slices.wait_synced().await;
        info!(
            services = self.watched.services.len(),
            "Caches are synced, writing the first rules"
        );
        let mut ready = false;
        loop {
            let succeeded = self.sync_changed();
            if succeeded && !ready {
                sd_notify::ready();
                sd_notify::status("Services and endpoints are in the kernel and followed");
                ready = true;
            }
            let wake = self.watched.changed.wake.notified();
            if succeeded {
                wake.await;
            } else {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn sync_changed(&mut self) -> bool {
        let keys = std::mem::take(&mut *self.watched.changed.keys.lock());
        let triggers = std::mem::take(&mut *self.watched.changed.triggers.lock());
        let mut succeeded = true;
        for (proxier, flows) in &mut self.families {
            update(proxier, &self.watched, &self.node_name, &keys, flows);
            if proxier.is_dirty() {
                succeeded &= commit(proxier, flows);
            }
        }
        if succeeded {
            self.health.updated();
            let now = SystemTime::now();
            for latency in triggers
                .iter()
                .filter_map(|trigger| now.duration_since(*trigger).ok())
            {
                metrics::PROGRAMMING_DURATION
                    .with(&["IPv4"])
                    .observe(latency.as_secs_f64());
            }
        }
        succeeded
    }
}

/// Tells the proxier what the changed Services want now, and `flows` which UDP flows may stay.
fn update(
    proxier: &mut Proxier<Netlink>,
    watched: &Watched,
    node_name: &str,
    keys: &BTreeSet<String>,
    flows: &mut Expected,
) {
    let family = proxier.family();
    for key in keys {
        let Some((namespace, name)) = key.split_once('/') else {
            continue;
        };
        let before: Vec<(String, ServicePort)> = proxier
            .ports_of(namespace, name)
            .map(|(name, port)| (name.port.clone(), port.clone()))
            .collect();
        let slices = watched.slices.by_index(BY_SERVICE, key);
        let ports = match watched.services.get(key) {
            Some(service) => service_ports(&service, slices.iter().map(|slice| &**slice), node_name, family),
            None => Vec::new(),
        };
        expect_flows(flows, &before, &ports);
        proxier.set_service(namespace, name, ports);
    }
}

fn expect_flows(flows: &mut Expected, before: &[(String, ServicePort)], after: &[(String, ServicePort)]) {
    for (name, old) in before {
        let current = after
            .iter()
            .find(|(candidate, _)| candidate == name)
            .map(|(_, port)| port);
        let gone = ServicePort {
            endpoints: Vec::new(),
            local_endpoints: Vec::new(),
            ..old.clone()
        };
        if current != Some(old) {
            flows.add(old, current.unwrap_or(&gone));
        }
    }
    for (_, port) in after {
        flows.add(port, port);
    }
}

/// The flows are kept until a commit succeeds.
fn commit(proxier: &mut Proxier<Netlink>, flows: &mut Expected) -> bool {
    let family = match proxier.family() {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    };
    let began = Instant::now();
    if let Err(failure) = proxier.sync() {
        metrics::SYNC_FAILURES.with(&[family]).inc();
        error!(ipFamily = family, err = %failure, retryAfter = ?RETRY, "Cannot write the rules");
        return false;
    }
    metrics::SYNC_DURATION
        .with(&[family])
        .observe(began.elapsed().as_secs_f64());
    metrics::LAST_SYNC
        .with(&[family])
        .set(unix_seconds(SystemTime::now()));
    // Only now: a flow deleted earlier could have found its way to the old endpoint again.
    match conntrack::reconcile(&std::mem::take(flows), proxier.family()) {
        Ok(deleted) => metrics::STALE_FLOWS.with(&[family]).add(deleted as f64),
        Err(failure) => warn!(ipFamily = family, err = %failure, "Cannot delete stale conntrack entries"),
    }
    true
}
