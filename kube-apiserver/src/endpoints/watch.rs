//! WATCH: frames of events, most of them shared with every other watcher of the resource.
//!
//! A watch's life: initial events (from a snapshot, or from history after a resourceVersion), the bookmark that ends them if
//! asked for, then live events until the timeout, a slow client, or a relist ends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::{self, StatusError};
use bytes::{BufMut, Bytes, BytesMut};
use component_base::drain::Drain;
use component_base::http::Body;
use component_base::metrics::{self, Counter};
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::Rng;
use tokio::time::{Instant, Sleep};

use super::list::{interest, parse_version};
use super::negotiation::{Form, Media, Output};
use super::present::Presenter;
use super::query::Query;
use super::respond;
use super::seam::Printers;
use crate::registry::{ResourceEndpoint, Store};
use crate::storage::object::CachedObject;
use crate::storage::watch_cache::{self, EventKind, Queued};
use crate::storage::watcher::{Closed, Watch};

/// Bookmarks come about this often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Events that are waiting anyway go out together up to this size.
const BATCH: usize = 64 * 1024;

static TERMINATED: std::sync::LazyLock<Counter> = std::sync::LazyLock::new(|| {
    metrics::counter(
        "apiserver_terminated_watchers_total",
        "Counter of watchers closed due to unresponsiveness broken by resource type.",
        &["group", "resource"],
    )
});

pub struct WatchRequest<'a> {
    pub endpoint: &'a Arc<ResourceEndpoint>,
    pub store: &'a Arc<Store>,
    pub printers: &'a Arc<dyn Printers>,
    pub namespace: &'a str,
    pub name: &'a str,
    pub headers: &'a HeaderMap,
    pub query: &'a Query,
    /// `--min-request-timeout`.
    pub min_timeout: Duration,
    pub drain: &'a Drain,
}

struct Options {
    version: Option<i64>,
    bookmarks: bool,
    initial_events: Option<bool>,
    timeout: Duration,
}

impl Options {
    fn parse(query: &Query, min_timeout: Duration) -> Result<Options, StatusError> {
        let version = match query.get("resourceVersion") {
            "" => None,
            text => Some(parse_version(text)?),
        };
        let initial_events = query.optional_flag("sendInitialEvents");
        let bookmarks = query.flag("allowWatchBookmarks");
        match (initial_events, query.get("resourceVersionMatch")) {
            (None, "") | (Some(_), "NotOlderThan") => {}
            (None, _) => {
                return Err(invalid(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            (Some(_), "") => {
                return Err(invalid(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            (Some(_), _) => {
                return Err(invalid(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
        }
        let timeout = match query.int("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds as u64),
            _ => min_timeout.mul_f64(rand::rng().random_range(1.0..2.0)),
        };
        Ok(Options {
            version,
            bookmarks,
            initial_events,
            timeout,
        })
    }
}

fn invalid(field: &'static str, why: &str) -> StatusError {
    let error = apimachinery::field::forbidden(&apimachinery::field::Path::new(field), why);
    status::invalid("meta.k8s.io", "ListOptions", "", &vec![error])
}

pub async fn watch(request: WatchRequest<'_>) -> Result<Response<Body>, StatusError> {
    let output = Output::negotiate(request.headers, request.query)?;
    let options = Options::parse(request.query, request.min_timeout)?;
    let interest = interest(request.endpoint, request.namespace, request.name, request.query)?;
    let store = request.store;
    let mut stream = Events {
        endpoint: request.endpoint.clone(),
        printers: request.printers.clone(),
        store: store.clone(),
        output,
        include: request.query.get("includeObject").to_owned(),
        watch: None,
        initial: VecDeque::new(),
        after_initial: None,
        after: 0,
        sent: 0,
        bookmarks: options
            .bookmarks
            .then(|| Box::pin(tokio::time::sleep(jittered(BOOKMARK_EVERY)))),
        end: Box::pin(tokio::time::sleep(options.timeout)),
        first_row: true,
        drain: request.drain.clone(),
        failure: None,
    };
    stream.open(interest, &options).await?;
    let body = futures_util::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((
            Ok::<_, component_base::http::BoxError>(Frame::data(bytes)),
            stream,
        ))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(body.boxed())));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type(output.media)));
    Ok(response)
}

fn content_type(media: Media) -> &'static str {
    match media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Media::Yaml | Media::Json => "application/json",
    }
}

/// So that a thousand watches that began together do not act together ever after.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.8..1.2))
}

struct Events {
    endpoint: Arc<ResourceEndpoint>,
    printers: Arc<dyn Printers>,
    store: Arc<Store>,
    output: Output,
    include: String,
    watch: Option<Watch>,
    initial: VecDeque<Arc<CachedObject>>,
    /// Revision of the bookmark that ends the initial events.
    after_initial: Option<i64>,
    /// Events up to here are known to the client.
    after: i64,
    /// The last revision the client was told.
    sent: i64,
    bookmarks: Option<std::pin::Pin<Box<Sleep>>>,
    end: std::pin::Pin<Box<Sleep>>,
    first_row: bool,
    drain: Drain,
    /// Told as the only event.
    failure: Option<StatusError>,
}

impl Events {
    async fn open(
        &mut self,
        interest: crate::storage::watcher::Interest,
        options: &Options,
    ) -> Result<(), StatusError> {
        let with_state = options
            .initial_events
            .unwrap_or(matches!(options.version, None | Some(0)));
        match (with_state, options.version) {
            (true, None) => drop(self.store.consistent().await?),
            (true, Some(version)) => self.store.reached(version).await?,
            (false, None) => drop(self.store.consistent().await?),
            (false, Some(_)) => {}
        }
        if with_state {
            return self.open_with_state(interest, options);
        }
        let from = match options.version {
            None | Some(0) => self.store.feed_revision(),
            Some(version) => version,
        };
        self.after = from;
        match self.store.cache.watch_from(interest, from) {
            Ok(watch) => self.watch = Some(watch),
            Err(too_old) => self.failure = Some(status::expired(too_old.to_string())),
        }
        Ok(())
    }

    fn open_with_state(
        &mut self,
        interest: crate::storage::watcher::Interest,
        options: &Options,
    ) -> Result<(), StatusError> {
        let before = self.store.feed_revision();
        let (snapshot, watch) = self.store.cache.watch_with_state(interest);
        let revision = before.max(snapshot.revision);
        let interest = watch.interest();
        self.initial = match (interest.namespace.as_deref(), interest.name.as_deref()) {
            (Some(namespace), _) => snapshot
                .namespace(namespace)
                .filter(|o| interest.matches(o))
                .cloned()
                .collect(),
            (None, _) => snapshot.iter().filter(|o| interest.matches(o)).cloned().collect(),
        };
        if options.initial_events == Some(true) && options.bookmarks {
            self.after_initial = Some(revision);
        }
        self.after = revision;
        self.watch = Some(watch);
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(failure) = self.failure.take() {
            self.watch = None;
            return Some(self.error_frame(&failure));
        }
        if !self.initial.is_empty() {
            return Some(self.initial_batch());
        }
        if let Some(revision) = self.after_initial.take() {
            self.sent = revision;
            return Some(self.bookmark(revision, true));
        }
        self.live().await
    }

    fn initial_batch(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(BATCH);
        while out.len() < BATCH {
            let Some(object) = self.initial.pop_front() else {
                break;
            };
            let frame = self.frame_of(EventKind::Added, &object);
            out.extend_from_slice(&frame);
        }
        out.freeze()
    }

    async fn live(&mut self) -> Option<Bytes> {
        loop {
            let watch = self.watch.as_mut()?;
            let bookmark_due = async {
                match self.bookmarks.as_mut() {
                    Some(timer) => timer.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = watch.next() => match event {
                    Ok(event) => {
                        if let Some(bytes) = self.batch(event) {
                            return Some(bytes);
                        }
                    }
                    Err(why) => return self.closed(why),
                },
                () = bookmark_due => {
                    if let Some(bytes) = self.due_bookmark() {
                        return Some(bytes);
                    }
                }
                () = &mut self.end => return self.farewell(),
                () = self.drain.signaled() => return None,
            }
        }
    }

    /// The event, and those that wait behind it. A single shared frame is passed on as it is.
    fn batch(&mut self, first: Queued) -> Option<Bytes> {
        let mut single = self.frame(first);
        let mut out = BytesMut::new();
        while let Some(event) = self.watch.as_mut().and_then(Watch::try_next) {
            let Some(frame) = self.frame(event) else { continue };
            if let Some(single) = single.take() {
                out.reserve(single.len() + frame.len() + 4096);
                out.extend_from_slice(&single);
            }
            match out.is_empty() {
                true => single = Some(frame),
                false => out.extend_from_slice(&frame),
            }
            if out.len() >= BATCH {
                break;
            }
        }
        single.or_else(|| (!out.is_empty()).then(|| out.freeze()))
    }

    fn frame(&mut self, (seen, event): Queued) -> Option<Bytes> {
        if event.revision <= self.after {
            return None;
        }
        self.sent = event.revision;
        let kind = seen.0;
        if kind == event.kind && self.output.form == Form::Object {
            let presenter = Presenter::new(&self.endpoint, &*self.printers, self.output, &self.include);
            if presenter.is_plain() {
                let media = if self.output.media == Media::Protobuf {
                    watch_cache::Media::Protobuf
                } else {
                    watch_cache::Media::Json
                };
                return Some(event.frame(media, || encode_frame(&presenter, kind, &event.object)));
            }
        }
        if kind == EventKind::Deleted && event.kind != EventKind::Deleted {
            // It left the selection: the client is shown what it knew, at the revision of the change.
            let last = event.previous.as_ref()?.deleted_at(event.revision).ok()?;
            return Some(self.frame_of(kind, &last));
        }
        let object = event.object.clone();
        Some(self.frame_of(kind, &object))
    }

    fn frame_of(&mut self, kind: EventKind, object: &CachedObject) -> Bytes {
        let presenter = Presenter::new(&self.endpoint, &*self.printers, self.output, &self.include);
        if let Form::Table(version) = self.output.form {
            let metadata = format!("\"resourceVersion\":\"{}\"", object.resource_version);
            let mut table = presenter.table_head(version, &metadata, std::mem::take(&mut self.first_row));
            presenter.row(object, version, &mut table);
            table.extend_from_slice(b"]}");
            return envelope(self.output.media, kind.as_str(), &table);
        }
        encode_frame(&presenter, kind, object)
    }

    fn due_bookmark(&mut self) -> Option<Bytes> {
        if let Some(timer) = &mut self.bookmarks {
            timer.as_mut().reset(Instant::now() + jittered(BOOKMARK_EVERY));
        }
        self.progress()
    }

    /// All events up to the feed's revision are in the queue before it is published; with an empty queue they are sent.
    fn progress(&mut self) -> Option<Bytes> {
        let revision = self.store.feed_revision();
        if let Some(event) = self.watch.as_mut().and_then(Watch::try_next) {
            return self.batch(event);
        }
        let revision = revision.max(self.after);
        (revision > self.sent).then(|| {
            self.sent = revision;
            self.bookmark(revision, false)
        })
    }

    /// A last bookmark lets the client resume where it was, however quiet the resource.
    fn farewell(&mut self) -> Option<Bytes> {
        let last = self.bookmarks.take().and_then(|_| self.progress());
        self.watch = None;
        last
    }

    fn closed(&mut self, why: Closed) -> Option<Bytes> {
        self.watch = None;
        if why == Closed::TooSlow {
            let resource = self.endpoint.resource;
            TERMINATED.with(&[resource.group, resource.resource]).inc();
            tracing::warn!(
                group = resource.group,
                resource = resource.resource,
                "Watch closed: the client reads slower than events come"
            );
        }
        None
    }

    fn bookmark(&self, revision: i64, ends_initial: bool) -> Bytes {
        let shape = &self.endpoint.shape;
        let annotations = match ends_initial {
            true => ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}",
            false => "",
        };
        let metadata = format!("{{\"resourceVersion\":\"{revision}\"{annotations}}}");
        let (kind, version) = match self.output.form {
            Form::Object => (&*shape.kind, &*shape.api_version),
            Form::Table(version) => ("Table", version),
            Form::Metadata(version) => ("PartialObjectMetadata", version),
        };
        let json = match self.output.form {
            Form::Table(_) => format!(
                "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"columnDefinitions\":[],\"rows\":[{{\"cells\":[],\"object\":{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",\"metadata\":{metadata}}}}}]}}"
            ),
            _ => format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata}}}"),
        };
        match self.output.media {
            Media::Protobuf => envelope(
                Media::Protobuf,
                "BOOKMARK",
                &self.bookmark_message(kind, version, revision, ends_initial),
            ),
            media => envelope(media, "BOOKMARK", json.as_bytes()),
        }
    }

    /// An object with nothing but metadata: resourceVersion (6) and the annotation (12).
    fn bookmark_message(&self, kind: &str, version: &str, revision: i64, ends_initial: bool) -> Vec<u8> {
        use crate::storage::header::{put_text, put_varint};
        let mut metadata = Vec::new();
        put_text(&mut metadata, 6, &revision.to_string());
        if ends_initial {
            let mut entry = Vec::new();
            put_text(&mut entry, 1, "k8s.io/initial-events-end");
            put_text(&mut entry, 2, "true");
            metadata.push(12 << 3 | 2);
            put_varint(&mut metadata, entry.len() as u64);
            metadata.extend_from_slice(&entry);
        }
        let mut raw = vec![1 << 3 | 2];
        put_varint(&mut raw, metadata.len() as u64);
        raw.extend_from_slice(&metadata);
        let mut out = Vec::new();
        apimachinery::protobuf::wrap(apimachinery::schema::Gvk::parse(version, kind), &raw, &mut out);
        out
    }

    fn error_frame(&self, error: &StatusError) -> Bytes {
        let output = Output {
            pretty: false,
            form: Form::Object,
            ..self.output
        };
        let output = if output.media == Media::Yaml {
            Output::JSON
        } else {
            output
        };
        let mut body = respond::encode(output, &error.to_value());
        if output.media == Media::Json {
            body.pop();
        }
        envelope(output.media, "ERROR", &body)
    }
}

fn encode_frame(presenter: &Presenter<'_>, kind: EventKind, object: &CachedObject) -> Bytes {
    if presenter.is_plain() && presenter.output.media != Media::Protobuf {
        return envelope(Media::Json, kind.as_str(), object.json());
    }
    envelope(presenter.output.media, kind.as_str(), &presenter.document(object))
}

/// One watch event around an encoded object. Protobuf: a length, then WatchEvent{type 1, object 2 {raw 1}}.
fn envelope(media: Media, kind: &str, object: &[u8]) -> Bytes {
    if media == Media::Protobuf {
        return protobuf_envelope(kind, object);
    }
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

fn protobuf_envelope(kind: &str, object: &[u8]) -> Bytes {
    use crate::storage::header::{put_text, put_varint};
    let mut extension = vec![1 << 3 | 2];
    put_varint(&mut extension, object.len() as u64);
    extension.extend_from_slice(object);
    let mut event = Vec::with_capacity(extension.len() + 32);
    put_text(&mut event, 1, kind);
    event.push(2 << 3 | 2);
    put_varint(&mut event, extension.len() as u64);
    event.extend_from_slice(&extension);
    let mut out = BytesMut::with_capacity(event.len() + 4);
    out.put_u32(event.len() as u32);
    out.put_slice(&event);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_frames_are_one_line() {
        let frame = envelope(Media::Json, "ADDED", br#"{"kind":"Pod"}"#);
        assert_eq!(
            &frame[..],
            b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\"}}\n"
        );
    }

    #[test]
    fn protobuf_frames_carry_their_length() {
        let frame = envelope(Media::Protobuf, "ADDED", b"k8s\0x");
        assert_eq!(
            u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize,
            frame.len() - 4
        );
        assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
        assert!(frame.ends_with(b"k8s\0x"));
    }

    #[test]
    fn initial_events_need_their_match() {
        let parse = |query: &str| Options::parse(&Query::parse(Some(query)), Duration::from_secs(1800));
        assert!(
            parse("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
                .is_ok()
        );
        assert_eq!(parse("sendInitialEvents=true").err().map(|e| e.code), Some(422));
        assert_eq!(
            parse("resourceVersionMatch=NotOlderThan").err().map(|e| e.code),
            Some(422)
        );
        assert!(parse("timeoutSeconds=x").is_err());
        assert!(parse("").unwrap().timeout >= Duration::from_secs(1800));
    }
}
