//! Audit events: the policy decides a level for each request, the log backend writes the stages it asks for.
//!
//! Without `--audit-policy-file` nothing is logged, whatever the other flags say, as upstream.

use std::sync::Arc;

use apimachinery::time::Timestamp;
use component_base::serve::ConnInfo;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::authorization::Attributes;
use crate::endpoints::seam::RequestContext;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

pub mod log;
pub mod policy;

use log::Log;
use policy::{Decision, Level, Policy, Stage};

#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Backend>>);

struct Backend {
    policy: Policy,
    log: Log,
}

/// One request's event, filled as the request goes on and written at its stages.
pub struct Event {
    backend: Arc<Backend>,
    decision: Decision,
    body: Value,
    ctx: Option<RequestContext>,
}

impl Audit {
    pub fn new(policy: Policy, log: Log) -> Self {
        Audit(Some(Arc::new(Backend { policy, log })))
    }

    pub fn enabled(&self) -> bool {
        self.0.is_some()
    }

    pub fn begin<B>(
        &self,
        req: &Request<B>,
        info: &RequestInfo,
        user: &UserInfo,
        audit_id: &str,
        conn: Option<&ConnInfo>,
    ) -> Option<Event> {
        let backend = self.0.as_ref()?;
        let decision = backend.policy.decide(&Attributes::of_request(user, info));
        if decision.level == Level::None {
            return None;
        }
        let received = now();
        let body = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": decision.level.as_str(),
            "auditID": audit_id,
            "stage": "RequestReceived",
            "requestURI": req.uri().path_and_query().map(|p| p.as_str()).unwrap_or_default(),
            "verb": info.verb,
            "user": user_json(user),
            "sourceIPs": source_ips(req, conn),
            "userAgent": req.headers().get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default(),
            "requestReceivedTimestamp": received,
            "stageTimestamp": received,
        });
        let mut event = Event {
            backend: backend.clone(),
            decision,
            body,
            ctx: None,
        };
        if info.is_resource_request {
            event.body["objectRef"] = object_ref(info);
        }
        event.write(Stage::RequestReceived);
        Some(event)
    }
}

impl Event {
    /// From here on the acting user is known, and handlers leave their notes in the context.
    pub fn with_context(mut self, ctx: &RequestContext, _: &Audit) -> Self {
        if self.body["user"]["username"] != ctx.user.name.as_str() {
            self.body["impersonatedUser"] = user_json(&ctx.user);
        }
        let mut notes = ctx.notes();
        notes.audited = true;
        notes.want_request = self.decision.level >= Level::Request;
        notes.want_response = self.decision.level == Level::RequestResponse;
        drop(notes);
        self.ctx = Some(ctx.clone());
        self
    }

    pub fn response_started(&mut self, code: StatusCode) {
        self.body["responseStatus"] = json!({ "metadata": {}, "code": code.as_u16() });
        self.write(Stage::ResponseStarted);
    }

    pub fn complete(mut self, code: StatusCode) {
        self.body["responseStatus"] = json!({ "metadata": {}, "code": code.as_u16() });
        if let Some(ctx) = self.ctx.take() {
            self.take_notes(&ctx);
        }
        self.write(Stage::ResponseComplete);
    }

    fn take_notes(&mut self, ctx: &RequestContext) {
        let mut notes = ctx.notes();
        for (key, value) in &notes.audit_annotations {
            self.body["annotations"][key] = value.as_str().into();
        }
        if let Some(status) = notes.response_status.take() {
            // Of a refusal the code is there already.
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = status.get(key) {
                    self.body["responseStatus"][key] = value.clone();
                }
            }
        }
        // A token that was just made or is asked about never reaches the log, whatever the policy says.
        let token = matches!(
            (ctx.info.resource.as_str(), ctx.info.subresource.as_str()),
            ("tokenreviews", _) | ("serviceaccounts", "token")
        );
        if token {
            return;
        }
        if let Some(object) = notes.request_object.take() {
            self.body["requestObject"] = self.decision.strip(object);
        }
        if let Some(object) = notes.response_object.take() {
            self.body["responseObject"] = self.decision.strip(object);
        }
    }

    fn write(&mut self, stage: Stage) {
        if self.decision.omits(stage) {
            return;
        }
        self.body["stage"] = stage.as_str().into();
        self.body["stageTimestamp"] = now().into();
        self.backend.log.write(&self.body);
    }
}

fn user_json(user: &UserInfo) -> Value {
    let mut value = json!({ "username": user.name });
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn object_ref(info: &RequestInfo) -> Value {
    let mut value = json!({});
    for (key, text) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.api_group),
        ("apiVersion", &info.api_version),
        ("subresource", &info.subresource),
    ] {
        if !text.is_empty() {
            value[key] = text.as_str().into();
        }
    }
    value
}

fn source_ips<B>(req: &Request<B>, conn: Option<&ConnInfo>) -> Vec<String> {
    let forwarded = req
        .headers()
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','));
    let mut ips: Vec<String> = forwarded
        .map(str::trim)
        .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
        .map(str::to_owned)
        .collect();
    ips.extend(
        conn.map(|c| c.peer.ip().to_string())
            .filter(|peer| ips.last() != Some(peer)),
    );
    ips
}

fn now() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
    .format_micro()
}
