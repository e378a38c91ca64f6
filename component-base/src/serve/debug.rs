//! The endpoints that every daemon has: health, /metrics, /version, /configz, /statusz, /flagz.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::flags::Flags;
use crate::health::Health;
use crate::http::{Body, json, text, typed};
use crate::{metrics, version};

/// Answers for the debug endpoints; see [`debug_routes`].
#[derive(Clone)]
pub struct DebugRoutes {
    component: &'static str,
    health: Health,
    configz: Arc<Value>,
    flags: Option<Arc<Flags>>,
    started: SystemTime,
}

/// `configz` is `{"<group>": {...}}` as upstream's `/configz`. The result answers None for paths that are not its own.
pub fn debug_routes<B>(
    component: &'static str,
    health: &Health,
    configz: Value,
) -> impl Fn(&Request<B>) -> Option<Response<Body>> + Clone + Send + Sync + 'static {
    let routes = DebugRoutes::new(component, health, configz);
    move |request: &Request<B>| routes.respond(request.method(), request.uri().path(), request.uri().query())
}

impl DebugRoutes {
    pub fn new(component: &'static str, health: &Health, configz: Value) -> Self {
        DebugRoutes {
            component,
            health: health.clone(),
            configz: Arc::new(configz),
            flags: None,
            started: SystemTime::now(),
        }
    }

    /// For `/flagz`.
    pub fn flags(mut self, flags: &Flags) -> Self {
        self.flags = Some(Arc::new(flags.clone()));
        self
    }

    pub fn respond(&self, method: &Method, path: &str, query: Option<&str>) -> Option<Response<Body>> {
        let answer = self.health.respond(path, query).or_else(|| self.other(path))?;
        match *method {
            Method::GET | Method::HEAD => Some(answer),
            _ => Some(text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")),
        }
    }

    fn other(&self, path: &str) -> Option<Response<Body>> {
        match path {
            "/metrics" => Some(typed(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render())),
            "/version" => Some(json(StatusCode::OK, &version::info())),
            "/configz" => Some(json(StatusCode::OK, &*self.configz)),
            "/statusz" => Some(text(StatusCode::OK, &self.statusz())),
            "/flagz" => Some(text(StatusCode::OK, &self.flagz())),
            _ => None,
        }
    }

    fn statusz(&self) -> String {
        let up = self.started.elapsed().unwrap_or_default().as_secs();
        let info = version::info();
        format!(
            "\n{} statusz\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n\n\
             Up: {} hr {:02} min {:02} sec\nGo version: {}\nBinary version: {}\nEmulation version: {}.{}\n",
            self.component,
            up / 3600,
            up / 60 % 60,
            up % 60,
            info.go_version,
            info.git_version,
            info.major,
            info.minor
        )
    }

    fn flagz(&self) -> String {
        let mut out = format!(
            "\n{} flagz\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n\n",
            self.component
        );
        for (name, value) in self.flags.iter().flat_map(|flags| flags.each()) {
            // Writing to a String cannot fail.
            writeln!(out, "{name}={value}").ok();
        }
        out
    }
}

/// `{"<group>": config}`, the shape of `/configz`.
pub fn configz(group: &str, config: &impl serde::Serialize) -> Value {
    json!({ group: serde_json::to_value(config).unwrap_or(Value::Null) })
}
