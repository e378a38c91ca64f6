//! Bodies for the audit log: what came and what went out, as JSON, kept in the request's notes when the policy wants them.
//!
//! One place for all verbs. Bodies beyond `MAX_BODY` are left out and the event says so.

use std::io::Read;

use apimachinery::json;
use apimachinery::protobuf;
use apimachinery::schema::registry;
use apimachinery::status::StatusError;
use apimachinery::value::Value;
use bytes::{Bytes, BytesMut};
use component_base::http::{Body, BoxError, full};
use flate2::read::GzDecoder;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};

use super::negotiation::Media;
use super::seam::RequestContext;

/// Bodies larger than this are left out of events.
const MAX_BODY: usize = 1 << 20;

/// As upstream marks events that lost their bodies.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// A body as it came: patches and options are logged so, objects once they are decoded.
pub fn request_bytes(ctx: &RequestContext, headers: &HeaderMap, body: &Bytes) {
    if !ctx.notes().want_request || body.is_empty() {
        return;
    }
    // Patches have media types of their own, and all are JSON but one that is not taken.
    let media = Media::of_content_type(headers).unwrap_or(Media::Json);
    let object = bounded(ctx, body).and_then(|body| to_json(media, body));
    ctx.notes().request_object = object;
}

/// The object that was decoded from the body, defaults included.
pub fn request_object(ctx: &RequestContext, object: &Value) {
    if !ctx.notes().want_request {
        return;
    }
    let bytes = json::to_vec(object);
    let object = bounded(ctx, &bytes).and_then(|bytes| serde_json::from_slice(bytes).ok());
    ctx.notes().request_object = object;
}

/// A Status that is the answer, or stands for it.
pub fn status(ctx: &RequestContext, error: &StatusError) {
    if ctx.notes().audited {
        ctx.notes().response_status = serde_json::from_slice(error.to_json().as_ref()).ok();
    }
}

/// Looks at an answer's body as it goes by.
pub async fn response(ctx: &RequestContext, response: Response<Body>) -> Response<Body> {
    let wanted = ctx.notes().want_response && !ctx.info.is_long_running();
    let Some(media) = media(response.headers()).filter(|_| wanted) else {
        return response;
    };
    let gzip = response.headers().contains_key(CONTENT_ENCODING);
    let (parts, body) = response.into_parts();
    let (gathered, body) = gather(body).await;
    let plain = match gathered {
        Some(bytes) if gzip => unzip(&bytes),
        other => other,
    };
    let object = match plain {
        Some(bytes) => bounded(ctx, &bytes).and_then(|bytes| to_json(media, bytes)),
        None => {
            truncated(ctx);
            None
        }
    };
    ctx.notes().response_object = object;
    Response::from_parts(parts, body)
}

fn media(headers: &HeaderMap) -> Option<Media> {
    headers.get(CONTENT_TYPE)?;
    Media::of_content_type(headers).ok()
}

fn bounded<'a>(ctx: &RequestContext, body: &'a [u8]) -> Option<&'a [u8]> {
    if body.len() <= MAX_BODY {
        return Some(body);
    }
    truncated(ctx);
    None
}

fn truncated(ctx: &RequestContext) {
    ctx.notes()
        .audit_annotations
        .push((TRUNCATED.to_owned(), "true".to_owned()));
}

fn to_json(media: Media, body: &[u8]) -> Option<serde_json::Value> {
    match media {
        Media::Json => serde_json::from_slice(body).ok(),
        Media::Yaml => {
            let decoded = apimachinery::yaml::decode(body, None, json::FieldValidation::Ignore).ok()?;
            serde_json::from_slice(&json::to_vec(&decoded.value)).ok()
        }
        Media::Protobuf => {
            let unknown = protobuf::unwrap(body).ok()?;
            let ty = registry().kind(protobuf::gvk(&unknown))?;
            let object = protobuf::decode(unknown.raw, ty).ok()?;
            serde_json::from_slice(&json::to_vec(&object)).ok()
        }
    }
}

/// The whole body if it is not too large, and a body that gives the same.
async fn gather(mut body: Body) -> (Option<Bytes>, Body) {
    let mut all = BytesMut::new();
    let mut frames: Vec<Result<Frame<Bytes>, BoxError>> = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        all.extend_from_slice(data.map_or(&[], |data| data));
        let broken = frame.is_err();
        frames.push(frame);
        if broken || all.len() > MAX_BODY {
            let rest = stream::iter(frames).chain(BodyStream::new(body));
            return (None, StreamBody::new(rest).boxed_unsync());
        }
    }
    let all = all.freeze();
    (Some(all.clone()), full(all))
}

fn unzip(bytes: &[u8]) -> Option<Bytes> {
    let mut plain = Vec::new();
    // One byte more than is allowed tells that it is too much.
    let limited = GzDecoder::new(bytes)
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut plain);
    limited.is_ok().then(|| plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::respond::Gzip;
    use http::HeaderValue;

    fn context() -> RequestContext {
        let ctx = RequestContext::loopback();
        let mut notes = ctx.notes();
        (notes.audited, notes.want_request, notes.want_response) = (true, true, true);
        drop(notes);
        ctx
    }

    async fn answered(ctx: &RequestContext, body: Body, gzip: bool) -> Bytes {
        let mut given = Response::new(body);
        given
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if gzip {
            given
                .headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let passed = response(ctx, given).await;
        passed.into_body().collect().await.expect("a body").to_bytes()
    }

    #[tokio::test]
    async fn an_answer_is_noted_and_passes_unchanged() {
        let ctx = context();
        let body = br#"{"kind":"Pod"}"#;
        assert_eq!(answered(&ctx, full(&body[..]), false).await, &body[..]);
        assert_eq!(
            ctx.notes().response_object,
            Some(serde_json::json!({"kind": "Pod"}))
        );
        let mut gzip = Gzip::new();
        let zipped = [gzip.push(body), gzip.finish()].concat();
        ctx.notes().response_object = None;
        assert_eq!(answered(&ctx, full(zipped.clone()), true).await, zipped);
        assert!(ctx.notes().response_object.is_some());
    }

    #[tokio::test]
    async fn a_large_answer_passes_and_is_left_out() {
        let ctx = context();
        let chunk = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b' '; MAX_BODY / 2])));
        let body = StreamBody::new(stream::iter((0..5).map(move |_| chunk()))).boxed_unsync();
        assert_eq!(answered(&ctx, body, false).await.len(), 5 * (MAX_BODY / 2));
        let notes = ctx.notes();
        assert!(notes.response_object.is_none());
        assert_eq!(
            notes.audit_annotations,
            [(TRUNCATED.to_owned(), "true".to_owned())]
        );
    }

    #[test]
    fn a_request_is_noted_in_the_form_it_came_only_if_wanted() {
        let (ctx, mut headers) = (context(), HeaderMap::new());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json-patch+json"),
        );
        request_bytes(&ctx, &headers, &Bytes::from_static(b"[{\"op\":\"test\"}]"));
        assert_eq!(
            ctx.notes().request_object,
            Some(serde_json::json!([{"op": "test"}]))
        );
        let deaf = RequestContext::loopback();
        request_bytes(&deaf, &headers, &Bytes::from_static(b"[]"));
        assert_eq!(deaf.notes().request_object, None);
    }
}
