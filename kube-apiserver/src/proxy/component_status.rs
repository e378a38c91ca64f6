//! componentstatuses: asks the scheduler, the controller manager and etcd whether they are well.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::json;
use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::{Object, Value};
use component_base::http::{Body, read_limited, typed};
use component_base::tls::ClientConfigHandle;
use futures_util::future::{BoxFuture, join_all};
use http::header::ACCEPT;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::dial::Target;
use super::{answer, forward};
use crate::endpoints::seam::{Connecter, Printers, RequestContext};
use crate::printers::Tables;
use crate::registry::ResourceEndpoint;

const PROBE_DEADLINE: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 10 * 1024;

pub struct ComponentStatuses {
    pub servers: Vec<Server>,
}

/// One component and where it tells its health.
pub struct Server {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub path: &'static str,
    pub tls: Option<Arc<ClientConfigHandle>>,
    /// etcd says it in JSON: `{"health":"true"}`.
    pub is_etcd: bool,
}

impl Connecter for ComponentStatuses {
    fn connect<'a>(
        &'a self,
        ctx: &'a RequestContext,
        _: &'a ResourceEndpoint,
        req: Request<Incoming>,
    ) -> BoxFuture<'a, Response<Body>> {
        Box::pin(async move { answer(self.show(&ctx.info.name, req.headers()).await) })
    }
}

impl ComponentStatuses {
    async fn show(&self, name: &str, headers: &HeaderMap) -> Result<Response<Body>, StatusError> {
        let wanted = self.servers.iter().filter(|s| name.is_empty() || s.name == name);
        let mut items: Vec<Value> = join_all(wanted.map(Server::probe)).await;
        if items.is_empty() && !name.is_empty() {
            return Err(status::not_found(GroupResource::new("", "componentstatus"), name));
        }
        let body = match wants_table(headers) {
            true => table(&items),
            false if !name.is_empty() => items.swap_remove(0),
            false => list(items),
        };
        Ok(typed(StatusCode::OK, "application/json", json::to_vec(&body)))
    }
}

impl Server {
    async fn probe(&self) -> Value {
        let outcome = match tokio::time::timeout(PROBE_DEADLINE, self.ask()).await {
            Ok(outcome) => outcome,
            Err(_) => Err("Client.Timeout exceeded while awaiting headers".to_owned()),
        };
        let mut condition = Value::from([("type", "Healthy".into())]);
        match outcome {
            Ok(message) => {
                condition.set("status", "True");
                condition.set("message", message);
            }
            Err(message) => {
                condition.set("status", "False");
                condition.set("message", message);
            }
        }
        let mut metadata = Value::Object(Object::new());
        metadata.set("name", self.name.as_str());
        Value::from([
            ("kind", "ComponentStatus".into()),
            ("apiVersion", "v1".into()),
            ("metadata", metadata),
            ("conditions", vec![condition].into()),
        ])
    }

    async fn ask(&self) -> Result<String, String> {
        let tls = self.tls.as_ref().map(|handle| handle.current());
        let target = Target {
            host: self.host.clone(),
            port: self.port,
            tls,
            public_only: false,
        };
        let answered = forward::get(&target, self.path).await.map_err(|e| e.message)?;
        let code = answered.status();
        let body = read_limited(answered.into_body(), MAX_MESSAGE)
            .await
            .map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        let healthy = code.is_success() && (!self.is_etcd || is_healthy_etcd(&text));
        match (healthy, self.is_etcd) {
            (true, true) => Ok(r#"{"health":"true"}"#.to_owned()),
            (true, false) => Ok(text),
            (false, _) => Err(format!("HTTP probe failed with statuscode: {}", code.as_u16())),
        }
    }
}

fn is_healthy_etcd(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text)
        .is_ok_and(|v| v["health"] == "true" || v["health"] == true)
}

fn wants_table(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    accept
        .split(',')
        .next()
        .is_some_and(|first| first.contains("as=Table") && first.contains("g=meta.k8s.io"))
}

fn list(items: Vec<Value>) -> Value {
    let strip = |mut item: Value| {
        item.remove("kind");
        item.remove("apiVersion");
        item
    };
    let items: Vec<Value> = items.into_iter().map(strip).collect();
    Value::from([
        ("kind", "ComponentStatusList".into()),
        ("apiVersion", "v1".into()),
        ("metadata", Value::Object(Object::new())),
        ("items", items.into()),
    ])
}

fn table(items: &[Value]) -> Value {
    let columns = Tables.columns("", "componentstatuses").iter().map(|c| {
        Value::from([
            ("name", c.name.into()),
            ("type", c.type_.into()),
            ("format", c.format.into()),
            ("description", c.description.into()),
            ("priority", i64::from(c.priority).into()),
        ])
    });
    let columns: Vec<Value> = columns.collect();
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            Value::from([
                ("cells", Tables.cells("", "componentstatuses", item, 0).into()),
                ("object", item.clone()),
            ])
        })
        .collect();
    Value::from([
        ("kind", "Table".into()),
        ("apiVersion", "meta.k8s.io/v1".into()),
        ("metadata", Value::Object(Object::new())),
        ("columnDefinitions", columns.into()),
        ("rows", rows.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_that_does_not_answer_is_unhealthy() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a port")
            .port();
        let server = Server {
            name: "scheduler".into(),
            host: "127.0.0.1".into(),
            port,
            path: "/healthz",
            tls: None,
            is_etcd: false,
        };
        let statuses = ComponentStatuses {
            servers: vec![server],
        };
        let status = statuses.servers[0].probe().await;
        assert_eq!(status.list_at("conditions")[0].str_at("status"), "False");
        assert!(
            status.list_at("conditions")[0]
                .str_at("message")
                .ends_with(&format!("dial tcp 127.0.0.1:{port}: connect: connection refused"))
        );
        assert_eq!(
            statuses
                .show("nobody", &HeaderMap::new())
                .await
                .expect_err("unknown")
                .code,
            404
        );
    }

    #[test]
    fn etcd_says_its_health_in_json() {
        assert!(is_healthy_etcd(r#"{"health":"true","reason":""}"#));
        assert!(!is_healthy_etcd(r#"{"health":"false"}"#));
        assert!(!is_healthy_etcd("ok"));
    }
}
