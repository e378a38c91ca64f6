//! pods/exec, pods/attach, pods/portforward: an upgraded connection handed through to the kubelet.

use std::sync::Arc;

use apimachinery::status::{self, StatusError};
use component_base::http::Body;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;

use super::answer;
use super::forward::{self, is_upgrade};
use super::kubelet::{Kubelets, container};
use crate::authorization::{Attributes, Authorizers};
use crate::endpoints::seam::{Connecter, RequestContext};
use crate::filters::forbidden;
use crate::registry::ResourceEndpoint;
use crate::request_info::{query_pairs, query_value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Exec,
    Attach,
    PortForward,
}

pub struct PodStream {
    pub kind: Kind,
    pub kubelets: Arc<Kubelets>,
    pub authorizers: Arc<Authorizers>,
}

impl Connecter for PodStream {
    fn connect<'a>(
        &'a self,
        ctx: &'a RequestContext,
        _: &'a ResourceEndpoint,
        req: Request<Incoming>,
    ) -> BoxFuture<'a, Response<Body>> {
        Box::pin(async move { answer(self.stream(ctx, req).await) })
    }
}

impl PodStream {
    async fn stream(
        &self,
        ctx: &RequestContext,
        req: Request<Incoming>,
    ) -> Result<Response<Body>, StatusError> {
        self.check_create(ctx)?;
        let query = req.uri().query().unwrap_or("").to_owned();
        let pod = self.kubelets.pod(&ctx.info.namespace, &ctx.info.name)?.value();
        let path = self.path(ctx, &query, &pod)?;
        let node = pod.str_at("spec.nodeName");
        if node.is_empty() {
            return Err(status::bad_request(format!(
                "pod {} does not have a host assigned",
                ctx.info.name
            )));
        }
        if !is_upgrade(req.headers()) {
            return Err(status::bad_request("Upgrade request required"));
        }
        forward::request(&self.kubelets.target(node)?, &path, req).await
    }

    /// A WebSocket begins with GET, which RBAC calls `get`; running a command is nobody's reading right.
    fn check_create(&self, ctx: &RequestContext) -> Result<(), StatusError> {
        if ctx.info.verb == "create" {
            return Ok(());
        }
        let create = Attributes {
            verb: "create",
            ..Attributes::of_request(&ctx.user, &ctx.info)
        };
        let verdict = self.authorizers.authorize(&create);
        if verdict.allowed() {
            Ok(())
        } else {
            Err(forbidden(&create, &verdict.reason))
        }
    }

    fn path(
        &self,
        ctx: &RequestContext,
        query: &str,
        pod: &apimachinery::value::Value,
    ) -> Result<String, StatusError> {
        let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
        if self.kind == Kind::PortForward {
            let ports: Vec<String> = query_pairs(query)
                .filter(|(k, _)| k == "ports")
                .map(|(_, v)| format!("port={v}"))
                .collect();
            let query = if ports.is_empty() {
                String::new()
            } else {
                format!("?{}", ports.join("&"))
            };
            return Ok(format!("/portForward/{namespace}/{name}{query}"));
        }
        let asked = query_value(query, "container").unwrap_or_default();
        let container = container(pod, &asked)?;
        let verb = if self.kind == Kind::Exec { "exec" } else { "attach" };
        Ok(format!(
            "/{verb}/{namespace}/{name}/{container}?{}",
            self.options(query)?
        ))
    }

    /// The API's options in the kubelet's words.
    fn options(&self, query: &str) -> Result<String, StatusError> {
        let mut out = Vec::new();
        for (api, kubelet) in [
            ("stdin", "input"),
            ("stdout", "output"),
            ("stderr", "error"),
            ("tty", "tty"),
        ] {
            if matches!(query_value(query, api).as_deref(), Some("true" | "1" | "")) {
                out.push(format!("{kubelet}=1"));
            }
        }
        if out.iter().all(|o| o == "tty=1") {
            return Err(status::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        if self.kind == Kind::Exec {
            let raw = query.split('&').filter_map(|pair| pair.strip_prefix("command="));
            out.extend(raw.map(|command| format!("command={command}")));
        }
        Ok(out.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::kubelet::KubeletFiles;
    use super::*;
    use crate::admission::fake::Cluster;
    use crate::authorization::rbac::{Binding, Metadata, Rbac, Role, RoleRef, Subject};
    use crate::authorization::rules::PolicyRule;
    use crate::request_info::RequestInfo;
    use crate::user::UserInfo;
    use serde_json::json;

    fn stream(kind: Kind, verbs: &[&str]) -> PodStream {
        let rbac = Rbac::default();
        let strings = |s: &[&str]| s.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let rule = PolicyRule {
            verbs: strings(verbs),
            api_groups: strings(&[""]),
            resources: strings(&["pods/exec"]),
            ..Default::default()
        };
        rbac.set_role(Role {
            metadata: Metadata {
                name: "r".into(),
                ..Default::default()
            },
            rules: vec![rule],
        });
        rbac.set_binding(Binding {
            metadata: Metadata {
                name: "b".into(),
                ..Default::default()
            },
            subjects: vec![Subject {
                kind: "User".into(),
                name: "jane".into(),
                ..Default::default()
            }],
            role_ref: RoleRef {
                kind: "ClusterRole".into(),
                name: "r".into(),
            },
        });
        let kubelets =
            Kubelets::new(Arc::new(Cluster::default()), KubeletFiles::default(), vec![]).expect("kubelets");
        let authorizers = Arc::new(Authorizers::new(
            &["RBAC".to_owned()],
            Default::default(),
            vec![],
            rbac,
        ));
        PodStream {
            kind,
            kubelets: Arc::new(kubelets),
            authorizers,
        }
    }

    fn ctx(method: http::Method, uri: &str) -> RequestContext {
        let info = RequestInfo::new(&method, &uri.parse().expect("uri")).expect("path");
        RequestContext::new(Arc::new(UserInfo::new("jane", &[])), Arc::new(info), "".into())
    }

    #[test]
    fn exec_by_websocket_needs_the_right_to_create() {
        let get = ctx(http::Method::GET, "/api/v1/namespaces/a/pods/p/exec");
        let refused = stream(Kind::Exec, &["get"])
            .check_create(&get)
            .expect_err("refused");
        assert!(
            refused
                .message
                .contains(r#"User "jane" cannot create resource "pods/exec""#),
            "{}",
            refused.message
        );
        assert!(stream(Kind::Exec, &["get", "create"]).check_create(&get).is_ok());
    }

    #[test]
    fn options_become_the_kubelets() {
        let pod = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .expect("value");
        let ctx = ctx(http::Method::POST, "/api/v1/namespaces/a/pods/p/exec");
        let exec = stream(Kind::Exec, &[])
            .path(
                &ctx,
                "stdin=true&stdout=true&tty=false&command=sh&command=-c&command=a%20b",
                &pod,
            )
            .expect("path");
        assert_eq!(
            exec,
            "/exec/a/p/c?input=1&output=1&command=sh&command=-c&command=a%20b"
        );
        let forward = stream(Kind::PortForward, &[])
            .path(&ctx, "ports=80&ports=81", &pod)
            .expect("path");
        assert_eq!(forward, "/portForward/a/p?port=80&port=81");
        assert!(stream(Kind::Attach, &[]).path(&ctx, "tty=true", &pod).is_err());
    }
}
