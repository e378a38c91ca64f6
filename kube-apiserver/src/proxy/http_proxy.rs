//! nodes/proxy, pods/proxy, services/proxy: any HTTP request to what is behind the name.

use std::sync::Arc;

use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::Value;
use component_base::http::Body;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use rand::seq::IndexedRandom;

use super::dial::Target;
use super::kubelet::Kubelets;
use super::{answer, forward};
use crate::endpoints::seam::{Connecter, RequestContext};
use crate::registry::ResourceEndpoint;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Node,
    Pod,
    Service,
}

pub struct HttpProxy {
    pub backend: Backend,
    pub kubelets: Arc<Kubelets>,
}

impl Connecter for HttpProxy {
    fn connect<'a>(
        &'a self,
        ctx: &'a RequestContext,
        _: &'a ResourceEndpoint,
        req: Request<Incoming>,
    ) -> BoxFuture<'a, Response<Body>> {
        Box::pin(async move { answer(self.proxy(ctx, req).await) })
    }
}

/// `https:name:port`, `name:port` or `name`.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

fn parse(id: &str) -> Option<Id<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    match parts.as_slice() {
        [name] => Some(Id {
            https: false,
            name,
            port: "",
        }),
        [name, port] => Some(Id {
            https: false,
            name,
            port,
        }),
        ["http" | "", name, port] => Some(Id {
            https: false,
            name,
            port,
        }),
        ["https", name, port] => Some(Id {
            https: true,
            name,
            port,
        }),
        _ => None,
    }
}

impl HttpProxy {
    async fn proxy(
        &self,
        ctx: &RequestContext,
        req: Request<Incoming>,
    ) -> Result<Response<Body>, StatusError> {
        let id = parse(&ctx.info.name)
            .ok_or_else(|| status::bad_request(format!("invalid proxy request {:?}", ctx.info.name)))?;
        let target = match self.backend {
            Backend::Node => self.node(&id)?,
            Backend::Pod => self.pod(ctx, &id)?,
            Backend::Service => self.service(ctx, &id)?,
        };
        let path = backend_path(req.uri());
        forward::request(&target, &path, req).await
    }

    fn node(&self, id: &Id<'_>) -> Result<Target, StatusError> {
        let kubelet = self.kubelets.target(id.name)?;
        match id.port {
            "" => Ok(kubelet),
            port if port == kubelet.port.to_string() => Ok(kubelet),
            port => Ok(Target {
                port: number(port)?,
                tls: id.https.then(|| self.kubelets.unverified()),
                public_only: true,
                ..kubelet
            }),
        }
    }

    fn pod(&self, ctx: &RequestContext, id: &Id<'_>) -> Result<Target, StatusError> {
        let pod = self.kubelets.pod(&ctx.info.namespace, id.name)?.value();
        let host = pod
            .list_at("status.podIPs")
            .first()
            .map_or_else(|| pod.str_at("status.podIP"), |p| p.str_at("ip"))
            .to_owned();
        if host.is_empty() {
            return Err(status::bad_request("address not allowed"));
        }
        let first = || {
            pod.list_at("spec.containers")
                .iter()
                .flat_map(|c| c.list_at("ports"))
                .find_map(|p| u16::try_from(p.int_at("containerPort")?).ok())
        };
        let default = if id.https { 443 } else { 80 };
        let port = if id.port.is_empty() {
            first().unwrap_or(default)
        } else {
            number(id.port)?
        };
        Ok(self.outside(host, port, id.https))
    }

    /// One of the service's ready endpoints.
    fn service(&self, ctx: &RequestContext, id: &Id<'_>) -> Result<Target, StatusError> {
        let namespace = &ctx.info.namespace;
        let objects = self.kubelets.objects();
        let service = objects.get("", "services", namespace, id.name);
        let service = service
            .ok_or_else(|| status::not_found(GroupResource::new("", "services"), id.name))?
            .value();
        let wanted = port_name(&service, id.port).ok_or_else(|| unavailable(id, "no such port"))?;
        let slices = objects.list_namespace("discovery.k8s.io", "endpointslices", namespace);
        let of_service = slices
            .iter()
            .filter(|s| s.label("kubernetes.io/service-name") == Some(id.name))
            .map(|s| s.value());
        let choices: Vec<(String, u16)> = of_service.flat_map(|slice| ready(&slice, wanted)).collect();
        let (host, port) = choices
            .choose(&mut rand::rng())
            .cloned()
            .ok_or_else(|| unavailable(id, "no endpoints available for service"))?;
        Ok(self.outside(host, port, id.https))
    }

    fn outside(&self, host: String, port: u16, https: bool) -> Target {
        Target {
            host,
            port,
            tls: https.then(|| self.kubelets.unverified()),
            public_only: true,
        }
    }
}

fn unavailable(id: &Id<'_>, why: &str) -> StatusError {
    status::service_unavailable(format!("{why} {:?}", id.name))
}

fn number(port: &str) -> Result<u16, StatusError> {
    port.parse()
        .ok()
        .filter(|p| *p != 0)
        .ok_or_else(|| status::bad_request(format!("invalid port {port:?}")))
}

/// The name of the service port asked for by name or number; "" asks for the only or unnamed one.
fn port_name<'a>(service: &'a Value, asked: &str) -> Option<&'a str> {
    let ports = service.list_at("spec.ports");
    let found = match asked {
        "" => ports
            .first()
            .filter(|p| ports.len() == 1 || p.str_at("name").is_empty()),
        _ => ports
            .iter()
            .find(|p| p.str_at("name") == asked || p.int_at("port").is_some_and(|n| n.to_string() == asked)),
    };
    found.map(|p| p.str_at("name"))
}

fn ready(slice: &Value, port: &str) -> Vec<(String, u16)> {
    let number = slice
        .list_at("ports")
        .iter()
        .find(|p| p.str_at("name") == port)
        .and_then(|p| u16::try_from(p.int_at("port")?).ok());
    let Some(number) = number else { return Vec::new() };
    let is_ready = |e: &&Value| e.at("conditions.ready").and_then(Value::as_bool).unwrap_or(true);
    let addresses = slice
        .list_at("endpoints")
        .iter()
        .filter(is_ready)
        .flat_map(|e| e.list_at("addresses"));
    addresses
        .filter_map(|a| Some((a.as_str()?.to_owned(), number)))
        .collect()
}

/// What follows `/proxy` in the request's own, still encoded path, and the query.
fn backend_path(uri: &http::Uri) -> String {
    let path = uri.path();
    let rest = path
        .find("/proxy/")
        .map_or("/", |at| &path[at + "/proxy".len()..]);
    match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
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
    fn names_carry_scheme_and_port() {
        assert_eq!(
            parse("web"),
            Some(Id {
                https: false,
                name: "web",
                port: ""
            })
        );
        assert_eq!(
            parse("web:80"),
            Some(Id {
                https: false,
                name: "web",
                port: "80"
            })
        );
        assert_eq!(
            parse("https:web:api"),
            Some(Id {
                https: true,
                name: "web",
                port: "api"
            })
        );
        assert_eq!(parse("ftp:web:21"), None);
    }

    #[test]
    fn the_backend_sees_what_follows_proxy() {
        let path = |uri: &str| backend_path(&uri.parse().expect("uri"));
        assert_eq!(path("/api/v1/namespaces/a/pods/p/proxy"), "/");
        assert_eq!(
            path("/api/v1/namespaces/a/pods/p/proxy/x%2Fy/proxy/?a=b"),
            "/x%2Fy/proxy/?a=b"
        );
    }

    #[test]
    fn services_lead_to_ready_endpoints_of_the_port() {
        let service =
            value(json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "api", "port": 81}]}}));
        assert_eq!(port_name(&service, "81"), Some("api"));
        assert_eq!(port_name(&service, "http"), Some("http"));
        assert_eq!(port_name(&service, ""), None);
        let slice = value(json!({
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}],
        }));
        assert_eq!(ready(&slice, "http"), [("10.0.0.1".to_owned(), 8080)]);
        assert!(ready(&slice, "api").is_empty());
    }
}
