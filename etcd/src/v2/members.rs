//! `/v2/members` and `/v2/machines`. Changes go the way of gRPC's Cluster service.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use component_base::http::{Body, empty, full, read_limited, typed};
use etcd_api::etcdserverpb::{MemberAddRequest, MemberAddResponse, MemberRemoveRequest, MemberUpdateRequest};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::membership::Member;
use crate::rpc::grpc::{Inbound, PREFIX_BYTES, seal};
use crate::rpc::serve;
use crate::server::EtcdServer;

/// A list of URLs is small.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct MemberJson<'a> {
    id: String,
    name: &'a str,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "clientURLs")]
    client_urls: &'a [String],
}

#[derive(Serialize)]
struct Members<'a> {
    members: Vec<MemberJson<'a>>,
}

#[derive(Deserialize)]
struct PeerUrls {
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        MemberJson {
            id: format!("{:x}", member.id),
            name: &member.name,
            peer_urls: &member.peer_urls,
            client_urls: &member.client_urls,
        }
    }
}

fn line(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut out = serde_json::to_vec(value).unwrap_or_default();
    out.push(b'\n');
    typed(status, super::JSON, out)
}

/// Client URLs, as clients of the first versions read them.
pub fn machines(server: &EtcdServer) -> String {
    let membership = server.state.membership.read();
    let mut urls: Vec<&str> = membership
        .members
        .values()
        .flat_map(|member| member.client_urls.iter().map(String::as_str))
        .collect();
    urls.sort_unstable();
    urls.join(", ")
}

pub async fn serve(server: Arc<EtcdServer>, id: &str, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    match (&method, id) {
        (&Method::GET, "") => {
            let membership = server.state.membership.read();
            let members = membership.members.values().map(MemberJson::from).collect();
            line(StatusCode::OK, &Members { members })
        }
        (&Method::GET, "leader") => leader(&server),
        (&Method::GET, _) => super::refusal(StatusCode::NOT_FOUND, "Not found"),
        (&Method::POST, _) => add(server, request).await,
        (&Method::DELETE | &Method::PUT, "") => super::not_allowed("GET,POST,DELETE,PUT"),
        (&Method::DELETE | &Method::PUT, id) => match u64::from_str_radix(id, 16) {
            Ok(number) => change(server, number, request).await,
            Err(_) => no_such_member(id),
        },
        _ => super::not_allowed("GET,POST,DELETE,PUT"),
    }
}

fn leader(server: &EtcdServer) -> Response<Body> {
    let membership = server.state.membership.read();
    match membership.members.get(&server.leader()) {
        Some(member) => line(StatusCode::OK, &MemberJson::from(member)),
        None => super::refusal(StatusCode::SERVICE_UNAVAILABLE, "During election"),
    }
}

fn no_such_member(id: &str) -> Response<Body> {
    super::refusal(StatusCode::NOT_FOUND, &format!("No such member: {id}"))
}

/// What came of a change that gRPC was asked for.
enum Called {
    Done(bytes::Bytes),
    Refused { code: u16, message: String },
}

async fn add(server: Arc<EtcdServer>, request: Request<Incoming>) -> Response<Body> {
    let token = request.headers().get(AUTHORIZATION).cloned();
    let urls = match peer_urls(request).await {
        Ok(urls) => urls,
        Err(response) => return *response,
    };
    let message = MemberAddRequest {
        peer_ur_ls: urls,
        is_learner: false,
    };
    match call(server, "/etcdserverpb.Cluster/MemberAdd", token, &message).await {
        Called::Done(bytes) => match MemberAddResponse::decode(bytes).map(|response| response.member) {
            Ok(Some(added)) => {
                let member = MemberJson {
                    id: format!("{:x}", added.id),
                    name: &added.name,
                    peer_urls: &added.peer_ur_ls,
                    client_urls: &added.client_ur_ls,
                };
                line(StatusCode::CREATED, &member)
            }
            _ => super::refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        },
        Called::Refused { code, message } => refused(code, &message, ""),
    }
}

async fn change(server: Arc<EtcdServer>, id: u64, request: Request<Incoming>) -> Response<Body> {
    let token = request.headers().get(AUTHORIZATION).cloned();
    let called = if request.method() == Method::DELETE {
        let message = MemberRemoveRequest { id };
        call(server, "/etcdserverpb.Cluster/MemberRemove", token, &message).await
    } else {
        let urls = match peer_urls(request).await {
            Ok(urls) => urls,
            Err(response) => return *response,
        };
        let message = MemberUpdateRequest { id, peer_ur_ls: urls };
        call(server, "/etcdserverpb.Cluster/MemberUpdate", token, &message).await
    };
    match called {
        Called::Done(_) => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Called::Refused { code, message } => refused(code, &message, &format!("{id:x}")),
    }
}

/// gRPC's codes tell what v2 tells by its own: 5 not found, 6 and 9 in conflict with what is, 7 and 16 not allowed, 3 not understood.
fn refused(code: u16, message: &str, id: &str) -> Response<Body> {
    let status = match code {
        5 => return no_such_member(id),
        3 => StatusCode::BAD_REQUEST,
        6 | 9 => StatusCode::CONFLICT,
        7 | 16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    super::refusal(status, message)
}

async fn peer_urls(request: Request<Incoming>) -> Result<Vec<String>, Box<Response<Body>>> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    if kind != super::JSON {
        let message = format!("Bad Content-Type {kind}, accept application/json");
        return Err(Box::new(super::refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            &message,
        )));
    }
    let bad = |message: String| Box::new(super::refusal(StatusCode::BAD_REQUEST, &message));
    let body = read_limited(request.into_body(), MAX_BODY_BYTES)
        .await
        .map_err(|error| bad(error.to_string()))?;
    let urls: PeerUrls = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    Ok(urls.peer_urls)
}

/// As a gRPC client in this process, with the token of whoever asks.
async fn call(
    server: Arc<EtcdServer>,
    method: &'static str,
    token: Option<HeaderValue>,
    message: &impl Message,
) -> Called {
    let mut frame = BytesMut::new();
    frame.put_bytes(0, PREFIX_BYTES);
    message.encode_raw(&mut frame);
    let mut request = Request::new(Inbound::Made(full(seal(frame))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(method);
    if let Some(token) = token {
        request.headers_mut().insert("token", token.clone());
        request.headers_mut().insert(AUTHORIZATION, token);
    }
    let (parts, body) = serve::serve(server, request).await.into_parts();
    let collected = body.collect().await.ok();
    let trailers = collected
        .as_ref()
        .and_then(|collected| collected.trailers().cloned())
        .unwrap_or(parts.headers);
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match (text("grpc-status").and_then(|code| code.parse().ok()), collected) {
        (Some(0), Some(collected)) => {
            let bytes = collected.to_bytes();
            Called::Done(bytes.slice(PREFIX_BYTES.min(bytes.len())..))
        }
        (code, _) => Called::Refused {
            code: code.unwrap_or(13),
            message: text("grpc-message").unwrap_or_default().to_owned(),
        },
    }
}
