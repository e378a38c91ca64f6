//! Subresources and resources that are no stored object of their own kind.

use std::sync::Arc;

use apimachinery::schema::registry;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use component_base::http::Body;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;

use super::Endpoints;
use super::audited;
use super::body;
use super::query::Query;
use super::respond;
use super::seam::{Creater, RequestContext};
use super::write::{self, tree_answer};
use crate::registry::ResourceEndpoint;

pub mod binding;
pub mod eviction;
pub mod scale;

/// POST of something that is answered and not kept.
pub async fn review(
    creater: &dyn Creater,
    ctx: &RequestContext,
    endpoint: &ResourceEndpoint,
    headers: &HeaderMap,
    query: &Query,
    incoming: Incoming,
) -> Result<Response<Body>, StatusError> {
    let gvk = match ctx.info.subresource.as_str() {
        "" => endpoint.resource.gvk(),
        name => endpoint
            .resource
            .subresource(name)
            .map(|sub| sub.gvk)
            .ok_or_else(status::not_found_path)?,
    };
    let ty = registry()
        .kind(gvk)
        .ok_or_else(|| status::internal(format!("{} is not in the schema", gvk.kind)))?;
    let bytes = body::read(ctx, headers, incoming).await?;
    let mut warnings = Vec::new();
    let object = body::decode(
        &bytes,
        headers,
        gvk,
        ty,
        body::field_validation(query)?,
        &mut warnings,
    )?;
    audited::request_object(ctx, &object);
    let answer = creater
        .create(ctx, &ctx.info.namespace, &ctx.info.name, object)
        .await?;
    let mut response = tree_answer(StatusCode::CREATED, headers, query, &answer)?;
    respond::add_warnings(response.headers_mut(), &warnings);
    Ok(response)
}

/// Resources without a store of their own that no plug serves: `bindings`, `componentstatuses`.
pub async fn storeless(
    endpoints: &Endpoints,
    ctx: &RequestContext,
    endpoint: &Arc<ResourceEndpoint>,
    headers: &HeaderMap,
    query: &Query,
    incoming: Incoming,
) -> Result<Response<Body>, StatusError> {
    match (endpoint.resource.resource, ctx.info.verb.as_str()) {
        ("bindings", "create") => {
            let pods = endpoints
                .registry
                .endpoint("", "v1", "pods")
                .ok_or_else(status::not_found_path)?;
            let store = pods.store.as_ref().ok_or_else(status::not_found_path)?;
            let body = body::read(ctx, headers, incoming).await?;
            binding::create(&write::Call {
                endpoints,
                ctx,
                endpoint: pods,
                store,
                headers,
                query,
                body,
            })
            .await
        }
        _ => Err(status::not_found_path()),
    }
}

/// `{"kind":"Status","status":"Success","code":201}`
fn created() -> Value {
    Value::from([
        ("kind", "Status".into()),
        ("apiVersion", "v1".into()),
        ("metadata", Value::Object(Default::default())),
        ("status", "Success".into()),
        ("code", Value::Int(201)),
    ])
}
