//! The JSON gateway under `/v3/`: what etcd's grpc-gateway answers, over the same methods as gRPC.
//!
//! A request's way: [`routes`] names the method and its two messages, [`decode`] turns JSON into the message's bytes, the bytes go to
//! [`crate::rpc::table`] as a gRPC request made in this process, and [`encode`] turns the answer's bytes into JSON. What a message looks like is one
//! table, [`messages`]; no method has code of its own here, so a method that appears in the table of gRPC is served at once.
//!
//! [`split`] cuts a body that is a stream of JSON values, [`answer`] makes responses: one object, or one line for each message of a stream.

mod answer;
mod decode;
mod descriptor;
mod encode;
mod messages;
mod routes;
mod split;

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use component_base::http::{self as bodies, Body, ReadError};
use component_base::serve::ConnInfo;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::rpc::grpc::{self, Inbound, PREFIX_BYTES, seal};
use crate::rpc::serve;
use crate::rpc::status::{Code, Status};
use crate::rpc::unfinished::at_most;
use crate::server::EtcdServer;
use descriptor::Message;
use routes::Route;

const PREFIX: &str = "/v3/";
const LEGACY_PREFIX: &str = "/v3beta/";
/// JSON is larger than the message it stands for: base64, and the names of fields.
const JSON_FACTOR: usize = 2;
/// Requests of one stream that were read and not yet taken.
const REQUESTS_AHEAD: usize = 4;
/// Where etcd's gRPC methods look for a token.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// By this etcd knows a request that a gateway made.
const GATEWAY_ACCEPT: HeaderName = HeaderName::from_static("grpcgateway-accept");

pub fn is_for(path: &str) -> bool {
    path.starts_with(PREFIX) || path.starts_with(LEGACY_PREFIX)
}

pub async fn serve(server: Arc<EtcdServer>, request: Request<Incoming>) -> Response<Body> {
    let Some(route) = routes::find(request.uri().path()) else {
        return answer::refusal(&Status::new(Code::NotFound, "Not Found"));
    };
    if request.method() != Method::POST {
        return answer::refusal(&Status::unimplemented("Method Not Allowed"));
    }
    let max_bytes = (server.limits.max_request_bytes + grpc::OVERHEAD_BYTES) * JSON_FACTOR;
    let (parts, body) = request.into_parts();
    let (body, refused) = if route.client_streams {
        let (body, refused) = requests(body, route.input, max_bytes);
        (body, Some(refused))
    } else {
        match one_request(&server, body, route.input, max_bytes).await {
            Ok(frame) => (bodies::full(frame), None),
            Err(status) => return answer::refusal(&status),
        }
    };
    let response = serve::serve(server, grpc_request(&parts, route, body)).await;
    if route.server_streams {
        answer::stream(response, route.output, refused).await
    } else {
        answer::unary(response, route.output).await
    }
}

/// Who calls is told by the token alone: a certificate would let any page that a browser shows speak with its owner's name, which etcd refuses too.
fn grpc_request(parts: &Parts, route: &Route, body: Body) -> Request<Inbound> {
    let mut request = Request::new(Inbound::Made(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(route.method);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let accept = parts.headers.get(ACCEPT).cloned();
    headers.insert(GATEWAY_ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")));
    if let Some(token) = parts.headers.get(AUTHORIZATION) {
        headers.insert(TOKEN, token.clone());
        headers.insert(AUTHORIZATION, token.clone());
    }
    if let Some(connection) = parts.extensions.get::<Arc<ConnInfo>>() {
        let anonymous = ConnInfo {
            client_cert: None,
            ..ConnInfo::clone(connection)
        };
        request.extensions_mut().insert(Arc::new(anonymous));
    }
    request
}

/// The one message of a unary request. No body at all is the empty message; what follows the first value is not read, as in etcd.
async fn one_request(
    server: &EtcdServer,
    body: Incoming,
    input: &'static Message,
    max_bytes: usize,
) -> Result<Bytes, Status> {
    let bytes = at_most(&body, max_bytes);
    let read = server
        .unfinished
        .read(bytes, bodies::read_limited(body, max_bytes));
    let json = read.await?.map_err(|error| match error {
        ReadError::TooLarge(max) => too_large(max),
        ReadError::Transport(_) => Status::new(Code::Cancelled, error.to_string()),
    })?;
    let json = if json.iter().all(u8::is_ascii_whitespace) {
        Bytes::from_static(b"{}")
    } else {
        json
    };
    frame(&json, input)
}

fn too_large(max: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("received JSON message larger than max ({max})"),
    )
}

fn frame(json: &[u8], input: &'static Message) -> Result<Bytes, Status> {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + json.len());
    out.put_bytes(0, PREFIX_BYTES);
    decode::decode(json, input, &mut out)
        .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    Ok(seal(out))
}

/// The messages of a streaming request, read while they are asked for, and what was wrong with the one that was not understood. The reading ends
/// with the call: nobody takes what it read then.
fn requests(
    mut body: Incoming,
    input: &'static Message,
    max_bytes: usize,
) -> (Body, oneshot::Receiver<Status>) {
    let (sender, channel) = grpc::Channel::open(REQUESTS_AHEAD);
    let (refuse, refused) = oneshot::channel();
    tokio::spawn(async move {
        let mut values = split::Values::new(max_bytes);
        loop {
            let data = tokio::select! {
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                    Some(Err(_)) => return,
                    None => break,
                },
                () = sender.closed() => return,
            };
            values.push(&data);
            while let Some(value) = values.cut() {
                let frame = value
                    .ok_or_else(|| too_large(max_bytes))
                    .and_then(|json| frame(&json, input));
                // Neither here nor below must anybody be left to hear of it.
                match frame {
                    Err(status) => return drop(refuse.send(status)),
                    Ok(frame) => {
                        if sender.send(Ok(frame)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
        match values.rest().map(|rest| frame(rest, input)) {
            Some(Err(status)) => drop(refuse.send(status)),
            Some(Ok(frame)) => drop(sender.send(Ok(frame)).await),
            None => {}
        }
    });
    (channel, refused)
}
