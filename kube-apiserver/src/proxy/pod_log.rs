//! pods/log: the kubelet's container log, streamed.

use std::sync::Arc;

use apimachinery::field::{self, Path};
use apimachinery::status::{self, GroupResource, StatusError};
use component_base::http::{Body, BoxError, read_limited};
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::kubelet::{Kubelets, container};
use super::{answer, forward};
use crate::endpoints::seam::{Connecter, RequestContext};
use crate::registry::ResourceEndpoint;
use crate::request_info::query_value;

/// What of a kubelet's refusal is shown.
const MAX_REFUSAL: usize = 10 * 1024;
/// Options handed on as they are, once checked.
const OPTIONS: [&str; 8] = [
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
];

pub struct PodLog(pub Arc<Kubelets>);

impl Connecter for PodLog {
    fn connect<'a>(
        &'a self,
        ctx: &'a RequestContext,
        _: &'a ResourceEndpoint,
        req: Request<Incoming>,
    ) -> BoxFuture<'a, Response<Body>> {
        Box::pin(async move { answer(self.log(ctx, req.uri().query().unwrap_or("")).await) })
    }
}

impl PodLog {
    async fn log(&self, ctx: &RequestContext, query: &str) -> Result<Response<Body>, StatusError> {
        let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
        check_options(query, name)?;
        let pod = self.0.pod(namespace, name)?.value();
        let asked = query_value(query, "container").unwrap_or_default();
        let container = container(&pod, &asked)?;
        let node = pod.str_at("spec.nodeName");
        if node.is_empty() {
            // Nothing has run yet: an empty log.
            return Ok(text(component_base::http::empty()));
        }
        let target = self.0.target(node)?;
        let path = format!("/containerLogs/{namespace}/{name}/{container}{}", options(query));
        let answered = forward::get(&target, &path).await?;
        match answered.status() {
            code if code.is_success() => {
                Ok(text(answered.into_body().map_err(BoxError::from).boxed_unsync()))
            }
            code => Err(refusal(code, name, answered).await),
        }
    }
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The options present, as a query.
fn options(query: &str) -> String {
    let given = OPTIONS
        .iter()
        .filter_map(|name| Some(format!("{name}={}", encode(&query_value(query, name)?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() {
        String::new()
    } else {
        format!("?{}", given.join("&"))
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~:".contains(&b) {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn check_options(query: &str, pod: &str) -> Result<(), StatusError> {
    let mut errors = Vec::new();
    let number = |name: &str| {
        query_value(query, name)
            .map(|v| {
                v.parse::<i64>().map_err(|_| {
                    status::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax"))
                })
            })
            .transpose()
    };
    for (name, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(value) = number(name)?.filter(|value| *value < least) {
            errors.push(field::invalid(&Path::new(name), value, why));
        }
    }
    if query_value(query, "sinceSeconds").is_some() && query_value(query, "sinceTime").is_some() {
        errors.push(field::forbidden(
            &Path::new("sinceSeconds"),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid("", "PodLogOptions", pod, &errors))
    }
}

async fn refusal(code: StatusCode, pod: &str, answered: Response<Incoming>) -> StatusError {
    let body = read_limited(answered.into_body(), MAX_REFUSAL)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    match code {
        StatusCode::BAD_REQUEST => status::bad_request(text),
        StatusCode::NOT_FOUND => {
            let mut error = status::not_found(GroupResource::new("", "pods"), pod);
            error.message = if text.is_empty() {
                "the server could not find the requested resource".to_owned()
            } else {
                format!("the server could not find the requested resource ( pods/log {pod}): {text}")
            };
            error
        }
        code if code.is_redirection() => {
            status::internal("the kubelet answered with a redirect, which is not followed")
        }
        _ => status::internal(format!(
            "an error on the server ({text:?}) has prevented the request from succeeding ( pods/log {pod})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_options_are_passed_on_encoded() {
        assert_eq!(
            options("container=c&follow=true&tailLines=5&pretty=true"),
            "?follow=true&tailLines=5"
        );
        assert_eq!(
            options("sinceTime=2024-01-01T00:00:00%2B02:00"),
            "?sinceTime=2024-01-01T00:00:00%2B02:00"
        );
        assert_eq!(options(""), "");
    }

    #[test]
    fn impossible_options_are_refused() {
        assert!(check_options("tailLines=0&limitBytes=1", "p").is_ok());
        assert_eq!(check_options("tailLines=-1", "p").expect_err("refused").code, 422);
        assert_eq!(check_options("limitBytes=x", "p").expect_err("refused").code, 400);
        assert!(check_options("sinceSeconds=5&sinceTime=2024-01-01T00:00:00Z", "p").is_err());
    }
}
