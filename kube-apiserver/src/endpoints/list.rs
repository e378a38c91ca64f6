//! LIST: one snapshot, selected, cut into pages, written as a stream of slices that lie encoded in memory already.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use apimachinery::selector::{FieldSelector, LabelSelector};
use apimachinery::status::{self, StatusError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use component_base::http::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;

use super::negotiation::{Form, Media, Output};
use super::present::{Presenter, metadata_raw};
use super::query::Query;
use super::respond::{self, Gzip};
use super::seam::Printers;
use crate::registry::{ResourceEndpoint, Store};
use crate::storage::header::put_varint;
use crate::storage::object::CachedObject;
use crate::storage::watch_cache::{ObjectKey, Snapshot, object_key};
use crate::storage::watcher::Interest;

/// Size at which a chunk of the answer is handed to the connection.
const CHUNK: usize = 64 * 1024;

/// Selectors and scope from the query; the request's path gives namespace and (for watches of one object) name.
pub fn interest(
    endpoint: &ResourceEndpoint,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Interest, StatusError> {
    let mut interest = Interest::in_namespace(namespace);
    if !name.is_empty() {
        interest.name = Some(name.to_owned());
    }
    interest.labels =
        LabelSelector::parse(query.get("labelSelector")).map_err(|e| unparsable(endpoint, query, e))?;
    interest.fields =
        FieldSelector::parse(query.get("fieldSelector")).map_err(|e| unparsable(endpoint, query, e))?;
    for term in interest.fields.terms() {
        if !supported(endpoint, &term.field) {
            return Err(unparsable(
                endpoint,
                query,
                format!("field label not supported: {}", term.field),
            ));
        }
    }
    Ok(interest)
}

fn supported(endpoint: &ResourceEndpoint, field: &str) -> bool {
    let store = endpoint.store.as_ref();
    match field {
        "metadata.name" => true,
        "metadata.namespace" => endpoint.resource.namespaced,
        _ => store.is_some_and(|store| store.shape.selectable.iter().any(|s| s.label == field)),
    }
}

fn unparsable(endpoint: &ResourceEndpoint, query: &Query, why: impl std::fmt::Display) -> StatusError {
    let resource = endpoint.resource;
    let gvr = match resource.group {
        "" => format!("{}, Resource={}", resource.version, resource.resource),
        group => format!("{group}/{}, Resource={}", resource.version, resource.resource),
    };
    let (labels, fields) = (query.get("labelSelector"), query.get("fieldSelector"));
    status::bad_request(format!(
        "Unable to find \"{gvr}\" that match label selector \"{labels}\", field selector \"{fields}\": {why}"
    ))
}

/// What a list is a list of.
struct Page {
    snapshot: Snapshot,
    revision: i64,
    /// Key after which it starts.
    start: Option<String>,
    limit: usize,
    interest: Interest,
}

pub async fn list(
    endpoint: &Arc<ResourceEndpoint>,
    store: &Arc<Store>,
    printers: &Arc<dyn Printers>,
    namespace: &str,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, StatusError> {
    let output = Output::negotiate(headers, query)?;
    let interest = interest(endpoint, namespace, "", query)?;
    let page = open(store, interest, namespace, query).await?;
    if page.limit > 0 && page.snapshot.objects.len() > page.limit {
        store.keep(page.revision, &page.snapshot);
    }
    let gzip = respond::accepts_gzip(headers);
    let include = query.get("includeObject").to_owned();
    Ok(write(
        endpoint.clone(),
        printers.clone(),
        output,
        include,
        gzip,
        namespace,
        page,
    ))
}

/// The snapshot that resourceVersion, resourceVersionMatch, limit and continue ask for.
async fn open(
    store: &Store,
    interest: Interest,
    namespace: &str,
    query: &Query,
) -> Result<Page, StatusError> {
    let limit = query.int("limit")?.filter(|n| *n > 0).unwrap_or(0) as usize;
    let version = query.get("resourceVersion");
    let exact = query.get("resourceVersionMatch");
    let token = query.get("continue");
    check_options(version, exact, token)?;
    let mut start = None;
    let (snapshot, revision) = if !token.is_empty() {
        let token = Token::decode(token, version)?;
        start = Some(token.absolute(namespace));
        match token.revision {
            -1 => store.current().await?,
            revision => store.at(revision).await?,
        }
    } else {
        match version {
            "" => store.current().await?,
            "0" => store.now(),
            version => {
                let revision = parse_version(version)?;
                let wants_exact = exact == "Exact" || (exact.is_empty() && limit > 0);
                if wants_exact {
                    store.at(revision).await?
                } else {
                    store.not_older(revision).await?
                }
            }
        }
    };
    Ok(Page {
        snapshot,
        revision,
        start,
        limit,
        interest,
    })
}

fn check_options(version: &str, exact: &str, token: &str) -> Result<(), StatusError> {
    let refuse = |message: &str| Err(status::bad_request(message));
    match (exact, version, token) {
        ("", ..) => Ok(()),
        ("Exact" | "NotOlderThan", _, token) if !token.is_empty() => {
            refuse("resourceVersionMatch is forbidden when continue is provided")
        }
        ("Exact" | "NotOlderThan", "", _) => {
            refuse("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        ("Exact", "0", _) => refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        ("Exact" | "NotOlderThan", ..) => Ok(()),
        _ => refuse("resourceVersionMatch: supported values: \"Exact\", \"NotOlderThan\", \"\""),
    }
}

pub fn parse_version(version: &str) -> Result<i64, StatusError> {
    version
        .parse::<u64>()
        .ok()
        .and_then(|n| i64::try_from(n).ok())
        .ok_or_else(|| {
            status::bad_request(format!(
                "Invalid value: \"{version}\": strconv.ParseUint: parsing \"{version}\": invalid syntax"
            ))
        })
}

/// `{"v":"meta.k8s.io/v1","rv":123,"start":"name\u0000"}` in base64; the start is relative to the namespace listed.
struct Token {
    revision: i64,
    start: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct WireToken {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    fn decode(text: &str, version: &str) -> Result<Token, StatusError> {
        if !matches!(version, "" | "0") {
            return Err(status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let bad = |why: &str| status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|e| bad(&e.to_string()))?;
        let token: WireToken = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(bad(&format!(
                "server does not recognize this encoded version {}",
                token.v
            )));
        }
        if token.rv == 0 || token.rv < -1 {
            return Err(bad(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if token.start.is_empty() || token.start.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(bad("invalid start key"));
        }
        Ok(Token {
            revision: token.rv,
            start: token.start,
        })
    }

    fn encode(revision: i64, key: &str, namespace: &str) -> String {
        let relative = key
            .strip_prefix(namespace)
            .map_or(key, |rest| rest.strip_prefix('/').unwrap_or(key));
        let token = WireToken {
            v: "meta.k8s.io/v1".to_owned(),
            rv: revision,
            start: format!("{relative}\0"),
        };
        // Strings and a number always serialize.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn absolute(&self, namespace: &str) -> String {
        if namespace.is_empty() {
            self.start.clone()
        } else {
            format!("{namespace}/{}", self.start)
        }
    }
}

/// Selected objects of a page, and where the next one starts.
struct Selected {
    objects: Vec<Arc<CachedObject>>,
    more: Option<More>,
}

struct More {
    after: ObjectKey,
    /// Only known without selectors.
    remaining: Option<usize>,
}

fn select(page: &Page) -> Selected {
    if let (Some(name), Some(namespace)) = (
        page.interest.fields.requires("metadata.name"),
        page.interest.namespace.as_deref(),
    ) {
        let found = page
            .snapshot
            .get(namespace, name)
            .filter(|object| page.interest.matches(object));
        return Selected {
            objects: found.cloned().into_iter().collect(),
            more: None,
        };
    }
    let prefix = page
        .interest
        .namespace
        .as_ref()
        .map(|namespace| format!("{namespace}/"));
    let from: ObjectKey = page
        .start
        .as_deref()
        .or(prefix.as_deref())
        .unwrap_or_default()
        .into();
    let in_scope = |key: &ObjectKey| prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix));
    let mut scope = page
        .snapshot
        .objects
        .range(from..)
        .take_while(|(key, _)| in_scope(key));
    let mut selected = Selected {
        objects: Vec::new(),
        more: None,
    };
    let mut last: Option<ObjectKey> = None;
    let everything = page.interest.selects_all();
    while let Some((key, object)) = scope.next() {
        if !everything && !page.interest.matches(object) {
            continue;
        }
        if page.limit > 0 && selected.objects.len() == page.limit {
            let remaining = everything.then(|| 1 + scope.count());
            selected.more = last.map(|after| More { after, remaining });
            break;
        }
        selected.objects.push(object.clone());
        last = Some(key.clone());
    }
    selected
}

fn write(
    endpoint: Arc<ResourceEndpoint>,
    printers: Arc<dyn Printers>,
    output: Output,
    include: String,
    gzip: bool,
    namespace: &str,
    page: Page,
) -> Response<Body> {
    let selected = select(&page);
    let metadata = ListMeta {
        revision: page.revision,
        token: selected
            .more
            .as_ref()
            .map(|more| Token::encode(page.revision, &more.after, namespace)),
        remaining: selected.more.as_ref().and_then(|more| more.remaining),
    };
    let mut chunks = Chunks {
        endpoint,
        printers,
        output,
        include,
        metadata,
        objects: selected.objects,
        at: 0,
        stage: Stage::Head,
    };
    let media = output.media;
    let buffered = media == Media::Yaml || output.pretty;
    let (body, gzipped) = if buffered {
        chunks.whole(gzip)
    } else {
        chunks.streamed(gzip)
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    if gzipped {
        respond::mark_gzip(response.headers_mut());
    }
    response
}

struct ListMeta {
    revision: i64,
    token: Option<String>,
    remaining: Option<usize>,
}

impl ListMeta {
    fn json(&self) -> String {
        let mut out = format!("\"resourceVersion\":\"{}\"", self.revision);
        if let Some(token) = &self.token {
            out.push_str(&format!(",\"continue\":\"{token}\""));
        }
        if let Some(remaining) = self.remaining {
            out.push_str(&format!(",\"remainingItemCount\":{remaining}"));
        }
        out
    }

    /// The ListMeta message: selfLink 1, resourceVersion 2, continue 3, remainingItemCount 4.
    fn message(&self) -> Vec<u8> {
        let mut out = Vec::new();
        crate::storage::header::put_text(&mut out, 1, "");
        crate::storage::header::put_text(&mut out, 2, &self.revision.to_string());
        crate::storage::header::put_text(&mut out, 3, self.token.as_deref().unwrap_or_default());
        if let Some(remaining) = self.remaining {
            put_varint(&mut out, 4 << 3);
            put_varint(&mut out, remaining as u64);
        }
        out
    }
}

#[derive(PartialEq)]
enum Stage {
    Head,
    Items,
    Done,
}

/// These objects as a list of one page: what a delete of a collection answers.
pub fn write_all(
    endpoint: &Arc<ResourceEndpoint>,
    printers: &Arc<dyn Printers>,
    headers: &HeaderMap,
    query: &Query,
    namespace: &str,
    objects: Vec<Arc<CachedObject>>,
    revision: i64,
) -> Result<Response<Body>, StatusError> {
    let output = Output::negotiate(headers, query)?;
    let objects = objects
        .into_iter()
        .map(|o| (ObjectKey::from(object_key(&o.namespace, &o.name)), o))
        .collect();
    let page = Page {
        snapshot: Snapshot { objects, revision },
        revision,
        start: None,
        limit: 0,
        interest: Interest::default(),
    };
    let include = query.get("includeObject").to_owned();
    Ok(write(
        endpoint.clone(),
        printers.clone(),
        output,
        include,
        respond::accepts_gzip(headers),
        namespace,
        page,
    ))
}

/// Writes the list piece by piece.
struct Chunks {
    endpoint: Arc<ResourceEndpoint>,
    printers: Arc<dyn Printers>,
    output: Output,
    include: String,
    metadata: ListMeta,
    objects: Vec<Arc<CachedObject>>,
    at: usize,
    stage: Stage,
}

impl Chunks {
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.stage == Stage::Done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK + 4096);
        // The presenter borrows what `self` owns: take the Arcs out for its life.
        let (endpoint, printers) = (self.endpoint.clone(), self.printers.clone());
        let presenter = Presenter::new(&endpoint, &*printers, self.output, &self.include);
        if self.stage == Stage::Head {
            self.head(&presenter, &mut out);
            self.stage = Stage::Items;
        }
        while self.at < self.objects.len() && out.len() < CHUNK {
            self.item(&presenter, &mut out);
            self.at += 1;
        }
        if self.at == self.objects.len() {
            self.tail(&presenter, &mut out);
            self.stage = Stage::Done;
        }
        Some(out)
    }

    fn head(&self, presenter: &Presenter<'_>, out: &mut Vec<u8>) {
        let metadata = self.metadata.json();
        match (self.output.form, self.output.media) {
            (_, Media::Protobuf) => {}
            (Form::Table(version), _) => *out = presenter.table_head(version, &metadata, true),
            (Form::Metadata(version), _) => {
                out.extend_from_slice(format!("{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"{version}\",\"metadata\":{{{metadata}}},\"items\":[").as_bytes());
            }
            (Form::Object, _) => {
                let shape = &self.endpoint.shape;
                let head = format!(
                    "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{{{metadata}}},\"items\":[",
                    shape.kind, shape.api_version
                );
                out.extend_from_slice(head.as_bytes());
            }
        }
    }

    fn item(&self, presenter: &Presenter<'_>, out: &mut Vec<u8>) {
        let object = &self.objects[self.at];
        if self.output.media == Media::Protobuf {
            return;
        }
        if self.at > 0 {
            out.push(b',');
        }
        match self.output.form {
            Form::Table(version) => presenter.row(object, version, out),
            Form::Metadata(version) => out.extend_from_slice(&super::present::metadata_json(object, version)),
            Form::Object if presenter.is_plain() => {
                let item = object.json_item();
                out.extend_from_slice(item.open);
                out.extend_from_slice(item.rest);
            }
            Form::Object => out.extend_from_slice(&item_of(
                &presenter.json(object),
                &self.endpoint.shape.json_prefix,
            )),
        }
    }

    fn tail(&self, presenter: &Presenter<'_>, out: &mut Vec<u8>) {
        match self.output.media {
            Media::Protobuf => self.protobuf(presenter, out),
            Media::Json if !self.output.pretty => out.extend_from_slice(b"]}\n"),
            _ => out.extend_from_slice(b"]}"),
        }
    }

    /// The envelope carries the length of the whole message, so it is made in one piece.
    fn protobuf(&self, presenter: &Presenter<'_>, out: &mut Vec<u8>) {
        let mut raw = Vec::with_capacity(self.objects.iter().map(|o| o.size() / 2 + 16).sum());
        let metadata = self.metadata.message();
        raw.push(1 << 3 | 2);
        put_varint(&mut raw, metadata.len() as u64);
        raw.extend_from_slice(&metadata);
        for object in &self.objects {
            raw.push(2 << 3 | 2);
            match object.protobuf().filter(|_| presenter.is_plain()) {
                Some(message) => put_message(&mut raw, message),
                None if matches!(self.output.form, Form::Metadata(_)) => {
                    put_message(&mut raw, &metadata_raw(object))
                }
                None => put_message(&mut raw, &presenter.message(object)),
            }
        }
        let (version, kind) = match self.output.form {
            Form::Metadata(version) => (version, "PartialObjectMetadataList".to_owned()),
            _ => (
                &*self.endpoint.shape.api_version,
                format!("{}List", self.endpoint.shape.kind),
            ),
        };
        apimachinery::protobuf::wrap(apimachinery::schema::Gvk::parse(version, &kind), &raw, out);
    }

    fn whole(mut self, gzip: bool) -> (Body, bool) {
        let mut all = Vec::new();
        while let Some(chunk) = self.next() {
            all.extend_from_slice(&chunk);
        }
        let all = match self.output.media {
            Media::Yaml => respond::to_yaml(&all),
            _ => respond::finish_json(self.output, all),
        };
        compressed(all, gzip)
    }

    /// The first chunk tells whether the answer is long: a short one goes out with its length, uncompressed.
    fn streamed(&mut self, gzip: bool) -> (Body, bool) {
        let first = self.next().unwrap_or_default();
        if self.stage == Stage::Done {
            return compressed(first, gzip);
        }
        let rest = std::mem::replace(
            self,
            Chunks {
                objects: Vec::new(),
                stage: Stage::Done,
                include: String::new(),
                metadata: ListMeta {
                    revision: 0,
                    token: None,
                    remaining: None,
                },
                endpoint: self.endpoint.clone(),
                printers: self.printers.clone(),
                output: self.output,
                at: 0,
            },
        );
        let body = Stream {
            first: Some(first),
            rest,
            gzip: gzip.then(Gzip::new),
        };
        (BodyExt::boxed_unsync(body), gzip)
    }
}

fn compressed(all: Vec<u8>, gzip: bool) -> (Body, bool) {
    if !gzip || all.len() < respond::GZIP_THRESHOLD {
        return (component_base::http::full(all), false);
    }
    let mut encoder = Gzip::new();
    let mut out = encoder.push(&all).to_vec();
    out.extend_from_slice(&encoder.finish());
    (component_base::http::full(out), true)
}

fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

/// A list item is shown without its kind and apiVersion.
fn item_of(json: &[u8], prefix: &str) -> Vec<u8> {
    match json.strip_prefix(prefix.as_bytes()) {
        Some(rest) => [b"{", rest].concat(),
        None => json.to_vec(),
    }
}

struct Stream {
    first: Option<Vec<u8>>,
    rest: Chunks,
    gzip: Option<Gzip>,
}

impl Stream {
    fn chunk(&mut self) -> Option<Vec<u8>> {
        self.first.take().or_else(|| self.rest.next())
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = component_base::http::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            let Some(chunk) = this.chunk() else {
                let last = this.gzip.take().map(Gzip::finish);
                return Poll::Ready(last.map(|bytes| Ok(Frame::data(bytes))));
            };
            let bytes = match &mut this.gzip {
                Some(gzip) => gzip.push(&chunk),
                None => Bytes::from(chunk),
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_is_relative_to_the_namespace() {
        let text = Token::encode(7, "default/web", "default");
        let token = Token::decode(&text, "").unwrap();
        assert_eq!((token.revision, token.start.as_str()), (7, "web\0"));
        assert_eq!(token.absolute("default"), "default/web\0");
        assert_eq!(
            Token::decode(&Token::encode(7, "default/web", ""), "")
                .unwrap()
                .absolute(""),
            "default/web\0"
        );
    }

    #[test]
    fn bad_tokens_and_option_pairs_are_refused() {
        assert!(Token::decode("%%%", "").is_err());
        assert!(
            Token::decode(
                &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"../secrets/x"}"#),
                ""
            )
            .is_err()
        );
        assert!(Token::decode(&Token::encode(7, "a", ""), "5").is_err());
        assert!(check_options("0", "Exact", "").is_err());
        assert!(check_options("", "NotOlderThan", "").is_err());
        assert!(check_options("5", "Exact", "").is_ok());
    }
}
