//! Where a node's kubelet is reached, and with which credentials.

use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::Value;
use component_base::tls::{ClientConfigHandle, ClientTls, Pem};

use super::dial::Target;
use crate::admission::objects::Objects;
use crate::storage::object::CachedObject;

const DEFAULT_PORT: u16 = 10250;

pub struct Kubelets {
    objects: Arc<dyn Objects>,
    tls: ClientConfigHandle,
    /// For backends whose certificate nobody can know: `https:` pods and services.
    unverified: ClientConfigHandle,
    /// `--kubelet-preferred-address-types`
    preferred: Vec<String>,
}

/// `--kubelet-certificate-authority`, `--kubelet-client-certificate`, `--kubelet-client-key`.
#[derive(Clone, Debug, Default)]
pub struct KubeletFiles {
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Kubelets {
    /// Without a CA the kubelet's certificate is not checked, as upstream.
    pub fn new(
        objects: Arc<dyn Objects>,
        files: KubeletFiles,
        preferred: Vec<String>,
    ) -> anyhow::Result<Kubelets> {
        let insecure = files.ca.is_none();
        let cert = files.certificate.map(Pem::File).zip(files.key.map(Pem::File));
        let tls = ClientTls {
            ca: files.ca.map(Pem::File),
            cert,
            insecure,
            server_name: None,
            alpn: http1(),
        }
        .load()?;
        let unverified = ClientTls {
            ca: None,
            cert: None,
            insecure: true,
            server_name: None,
            alpn: http1(),
        }
        .load()?;
        Ok(Kubelets {
            objects,
            tls,
            unverified,
            preferred,
        })
    }

    pub fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }

    pub fn unverified(&self) -> Arc<rustls::ClientConfig> {
        self.unverified.current()
    }

    pub fn target(&self, node: &str) -> Result<Target, StatusError> {
        let found = self.objects.get("", "nodes", "", node);
        let node = found
            .ok_or_else(|| status::not_found(GroupResource::new("", "nodes"), node))?
            .value();
        let host = address(&node, &self.preferred)
            .ok_or_else(|| status::internal("no preferred addresses found; known addresses: []"))?;
        let port = node
            .int_at("status.daemonEndpoints.kubeletEndpoint.Port")
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p != 0);
        Ok(Target {
            host,
            port: port.unwrap_or(DEFAULT_PORT),
            tls: Some(self.tls.current()),
            public_only: false,
        })
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Result<Arc<CachedObject>, StatusError> {
        let found = self.objects.get("", "pods", namespace, name);
        found.ok_or_else(|| status::not_found(GroupResource::new("", "pods"), name))
    }
}

/// Upgrades exist in HTTP/1.1 only.
fn http1() -> Vec<Vec<u8>> {
    vec![b"http/1.1".to_vec()]
}

/// The first address of the first preferred type that the node has.
fn address(node: &Value, preferred: &[String]) -> Option<String> {
    let addresses = node.list_at("status.addresses");
    let of = |kind: &String| {
        addresses
            .iter()
            .find(|a| a.str_at("type") == kind)
            .map(|a| a.str_at("address").to_owned())
    };
    preferred.iter().find_map(of)
}

/// The container that a request means: the named one, or the only one.
pub fn container<'a>(pod: &'a Value, asked: &'a str) -> Result<&'a str, StatusError> {
    let name = pod.str_at("metadata.name");
    let names = |list: &str| -> Vec<&'a str> {
        pod.get("spec")
            .map(|s| s.list_at(list))
            .unwrap_or_default()
            .iter()
            .map(|c| c.str_at("name"))
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        let known = containers
            .iter()
            .chain(&init)
            .chain(&names("ephemeralContainers"))
            .any(|c| *c == asked);
        return if known {
            Ok(asked)
        } else {
            Err(status::bad_request(format!(
                "container {asked} is not valid for pod {name}"
            )))
        };
    }
    match containers.as_slice() {
        [only] => Ok(only),
        [] => Err(status::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        many => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(status::bad_request(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(v: serde_json::Value) -> Value {
        serde_json::from_value(v).expect("value")
    }

    #[test]
    fn the_preferred_address_type_wins() {
        let node = value(
            json!({"status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}]}}),
        );
        let types = |t: &[&str]| t.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            address(&node, &types(&["InternalIP", "Hostname"])).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(
            address(&node, &types(&["ExternalIP", "Hostname"])).as_deref(),
            Some("h")
        );
        assert_eq!(address(&node, &types(&["ExternalIP"])), None);
    }

    #[test]
    fn a_container_must_be_named_where_there_are_several() {
        let pod = |containers: serde_json::Value| {
            value(
                json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "initContainers": [{"name": "i"}]}}),
            )
        };
        let one = pod(json!([{"name": "a"}]));
        assert_eq!(container(&one, "").expect("the only one"), "a");
        assert_eq!(container(&one, "i").expect("init containers too"), "i");
        assert_eq!(
            container(&one, "x").expect_err("unknown").message,
            "container x is not valid for pod p"
        );
        let two = pod(json!([{"name": "a"}, {"name": "b"}]));
        assert_eq!(
            container(&two, "").expect_err("ambiguous").message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }
}
