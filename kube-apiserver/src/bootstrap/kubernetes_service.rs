//! The `kubernetes` Service in default, and the Endpoints and EndpointSlice with every live API server in them.
//!
//! Each server keeps a key with a lease of its own under `/registry/masterleases/`: an address is in the
//! endpoints for as long as its key lives.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::schema::{self, Gvk};
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use bytes::Bytes;
use component_base::drain::Drain;

use super::system::object;
use super::write;
use crate::registry::Registry;
use crate::storage::etcd::{self, lease::LeasePool};

/// `--endpoint-reconciler-type=lease`'s times.
const LEASE_SECONDS: i64 = 15;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Removing our own address must not hold up the shutdown.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(2);
const NAME: &str = "kubernetes";

#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// First address of `--service-cluster-ip-range`.
    pub cluster_ip: IpAddr,
    /// `--kubernetes-service-node-port`; 0 = none.
    pub node_port: u16,
    /// `--advertise-address`.
    pub advertise_address: IpAddr,
    pub port: u16,
}

pub struct KubernetesService {
    pub config: ServiceConfig,
    pub registry: Arc<Registry>,
    pub etcd: etcd::Client,
    pub leases: LeasePool,
    /// `/registry`
    pub prefix: String,
}

impl KubernetesService {
    /// Once at start: afterwards the service is there and points here.
    pub async fn ensure(&self) -> Result<(), StatusError> {
        if let Some(store) = self.registry.store("", "services") {
            write::ensure(store, "default", NAME, self.service()).await?;
        }
        self.heartbeat().await
    }

    /// Until drain; then our address leaves the endpoints before the server stops answering.
    pub async fn run(&self, drain: Drain) {
        // The process must not end before its address is gone.
        let _hold = drain.hold();
        tokio::select! {
            () = self.keep() => {}
            () = drain.signaled() => {}
        }
        if tokio::time::timeout(REMOVAL_DEADLINE, self.leave())
            .await
            .is_err()
        {
            tracing::warn!("Unable to remove this server from the kubernetes service's endpoints in time");
        }
    }

    async fn keep(&self) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(error) = self.heartbeat().await {
                tracing::warn!(err = %error, "Unable to keep the kubernetes service's endpoints");
            }
        }
    }

    async fn heartbeat(&self) -> Result<(), StatusError> {
        let lease = self
            .leases
            .lease(&self.etcd, LEASE_SECONDS)
            .await
            .map_err(internal)?;
        let key = self.key();
        let guard = self
            .etcd
            .get(key.clone())
            .await
            .map_err(internal)?
            .map_or(0, |kv| kv.mod_revision);
        self.etcd
            .put(key, self.lease_value()?, guard, lease)
            .await
            .map_err(internal)?;
        self.reconcile(&self.live_addresses().await?).await
    }

    async fn leave(&self) {
        let Ok(Some(kv)) = self.etcd.get(self.key()).await else {
            return;
        };
        // The key dies with its lease anyway if this fails.
        if self.etcd.delete(self.key(), kv.mod_revision).await.is_err() {
            return;
        }
        if let Ok(others) = self.live_addresses().await
            && let Err(error) = self.reconcile(&others).await
        {
            tracing::debug!(err = %error, "Endpoints not updated at shutdown");
        }
    }

    fn folder(&self) -> String {
        format!("{}/masterleases/", self.prefix.trim_end_matches('/'))
    }

    fn key(&self) -> Bytes {
        format!("{}{}", self.folder(), self.config.advertise_address).into()
    }

    /// An Endpoints object with the one address, as upstream stores it.
    fn lease_value(&self) -> Result<Bytes, StatusError> {
        const GVK: Gvk<'static> = Gvk::new("", "v1", "Endpoints");
        let mut endpoints = Value::Object(Default::default());
        let address = Value::from([("ip", self.config.advertise_address.to_string().into())]);
        endpoints.set(
            "subsets",
            vec![Value::from([("addresses", vec![address].into())])],
        );
        let ty = schema::registry()
            .kind(GVK)
            .ok_or_else(|| status::internal("no type Endpoints"))?;
        let mut raw = Vec::new();
        apimachinery::protobuf::encode(&endpoints, ty, &mut raw).map_err(internal)?;
        let mut wrapped = Vec::with_capacity(raw.len() + 32);
        apimachinery::protobuf::wrap(GVK, &raw, &mut wrapped);
        Ok(wrapped.into())
    }

    /// Every live server's address, from the names of the keys.
    async fn live_addresses(&self) -> Result<BTreeSet<IpAddr>, StatusError> {
        const MAX_SERVERS: i64 = 100;
        let start = Bytes::from(self.folder());
        let page = self
            .etcd
            .page(start.clone(), etcd::prefix_end(&start), MAX_SERVERS, 0)
            .await
            .map_err(internal)?;
        let address = |key: &[u8]| std::str::from_utf8(key.get(start.len()..)?).ok()?.parse().ok();
        Ok(page.kvs.iter().filter_map(|kv| address(&kv.key)).collect())
    }

    async fn reconcile(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), StatusError> {
        self.put("", "endpoints", self.endpoints(addresses), &["subsets"])
            .await?;
        self.put(
            "discovery.k8s.io",
            "endpointslices",
            self.endpoint_slice(addresses),
            &["endpoints", "ports", "addressType"],
        )
        .await
    }

    /// Creates the object, or updates `fields` of it where they differ.
    async fn put(
        &self,
        group: &str,
        resource: &str,
        wanted: Value,
        fields: &'static [&'static str],
    ) -> Result<(), StatusError> {
        let Some(store) = self.registry.store(group, resource) else {
            return Ok(());
        };
        let Some(existing) = store.get("default", NAME) else {
            return write::create(store, "default", wanted).await;
        };
        let existing = existing.value();
        if fields.iter().all(|f| existing.get(f) == wanted.get(f)) {
            return Ok(());
        }
        let change = move |stored: &Value| {
            let mut object = stored.clone();
            for field in fields {
                object.set(*field, wanted.get(field).cloned().unwrap_or_default());
            }
            Ok(object)
        };
        write::update(store, "default", NAME, &change).await
    }

    fn service(&self) -> Value {
        let mut service = object("v1", "Service", "default", NAME);
        service.set_at("metadata.labels.component", "apiserver");
        service.set_at("metadata.labels.provider", "kubernetes");
        let mut port = port("https", 443);
        port.set("targetPort", i64::from(self.config.port));
        let kind = if self.config.node_port > 0 {
            "NodePort"
        } else {
            "ClusterIP"
        };
        if self.config.node_port > 0 {
            port.set("nodePort", i64::from(self.config.node_port));
        }
        service.set_at("spec.clusterIP", self.config.cluster_ip.to_string());
        service.set_at("spec.clusterIPs", vec![self.config.cluster_ip.to_string()]);
        service.set_at("spec.ipFamilies", vec![self.family()]);
        service.set_at("spec.ipFamilyPolicy", "SingleStack");
        service.set_at("spec.internalTrafficPolicy", "Cluster");
        service.set_at("spec.ports", vec![port]);
        service.set_at("spec.sessionAffinity", "None");
        service.set_at("spec.type", kind);
        service
    }

    fn family(&self) -> &'static str {
        if self.config.advertise_address.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        }
    }

    fn endpoints(&self, addresses: &BTreeSet<IpAddr>) -> Value {
        let mut endpoints = object("v1", "Endpoints", "default", NAME);
        endpoints
            .object_mut_at("metadata.labels")
            .insert("endpointslice.kubernetes.io/skip-mirror", "true".into());
        let items: Vec<Value> = addresses
            .iter()
            .map(|ip| Value::from([("ip", ip.to_string().into())]))
            .collect();
        let subset = Value::from([
            ("addresses", items.into()),
            ("ports", vec![port("https", i64::from(self.config.port))].into()),
        ]);
        endpoints.set("subsets", vec![subset]);
        endpoints
    }

    fn endpoint_slice(&self, addresses: &BTreeSet<IpAddr>) -> Value {
        let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", "default", NAME);
        slice
            .object_mut_at("metadata.labels")
            .insert("kubernetes.io/service-name", NAME.into());
        slice.set("addressType", self.family());
        let endpoint = |ip: &IpAddr| {
            let ready = Value::from([("ready", true.into())]);
            Value::from([("addresses", vec![ip.to_string()].into()), ("conditions", ready)])
        };
        slice.set("endpoints", addresses.iter().map(endpoint).collect::<Vec<_>>());
        slice.set("ports", vec![port("https", i64::from(self.config.port))]);
        slice
    }
}

fn port(name: &str, number: i64) -> Value {
    Value::from([
        ("name", name.into()),
        ("port", number.into()),
        ("protocol", "TCP".into()),
    ])
}

fn internal(error: impl std::fmt::Display) -> StatusError {
    status::internal(error)
}
