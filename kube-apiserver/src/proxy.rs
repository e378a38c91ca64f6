//! Requests that end at a kubelet, a pod or a service: logs, exec, attach, port-forward, proxy.
//!
//! `kubelet` finds where a node is reached, `dial` opens the connection to an address that was checked,
//! `forward` carries a request or an upgraded stream over it. Nothing here follows a redirect.

pub mod component_status;
mod dial;
mod forward;
pub mod http_proxy;
pub mod kubelet;
pub mod pod_log;
pub mod pod_stream;

use apimachinery::status::StatusError;
use component_base::http::Body;
use http::Response;

use crate::filters::refuse;

/// A refusal is an answer like another here: the connection itself is the result.
fn answer(result: Result<Response<Body>, StatusError>) -> Response<Body> {
    result.unwrap_or_else(|error| refuse(&error))
}
