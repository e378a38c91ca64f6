//! A watch's frames, decoded one by one in the buffer that they arrived in.

use crate::error::Error;
use crate::object::{Object, PartialObjectMetadata};
use crate::transport::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// One frame above this is refused: etcd takes objects of 1.5 MiB, the rest is headroom for JSON.
const MAX_FRAME_BYTES: usize = 32 << 20;
/// Upstream's reflectors ask for five to ten minutes, spread so that watches do not end together.
const MIN_WATCH_SECONDS: u64 = 300;

pub(crate) fn timeout_seconds() -> u64 {
    MIN_WATCH_SECONDS + rand::random_range(0..MIN_WATCH_SECONDS)
}

#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    /// Everything before `resource_version` has been delivered.
    Bookmark {
        resource_version: String,
        initial_events_end: bool,
    },
}

pub struct WatchStream<T> {
    body: Body,
    request: String,
    /// The chunk being read, from the first byte not yet decoded.
    chunk: Bytes,
    /// The beginning of a frame that did not end within its chunk.
    partial: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: Object> WatchStream<T> {
    pub(crate) fn new(body: Body, request: String) -> Self {
        WatchStream {
            body,
            request,
            chunk: Bytes::new(),
            partial: Vec::new(),
            of: PhantomData,
        }
    }

    /// The next event; `None` when the server ended the watch, which it does regularly.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<T>, Error>> {
        loop {
            if let Some(event) = self.decode_buffered() {
                return Some(event);
            }
            match self.body.frame().await? {
                Ok(frame) => self.chunk = frame.into_data().unwrap_or_default(),
                Err(source) => return Some(Err(Error::transport(format!("watch {}", self.request), source))),
            }
        }
    }

    /// A frame that lies whole in the chunk is decoded there; only one cut by a chunk's end is copied.
    fn decode_buffered(&mut self) -> Option<Result<WatchEvent<T>, Error>> {
        while !self.chunk.is_empty() {
            let Some(end) = self.chunk.iter().position(|b| *b == b'\n') else {
                self.partial.extend_from_slice(&self.chunk);
                self.chunk.clear();
                return self.oversized();
            };
            let line = self.chunk.split_to(end + 1);
            if self.partial.is_empty() {
                if line.len() > 1 {
                    return Some(decode(&line, &self.request));
                }
                continue;
            }
            self.partial.extend_from_slice(&line);
            let whole = std::mem::take(&mut self.partial);
            return Some(decode(&whole, &self.request));
        }
        None
    }

    fn oversized(&self) -> Option<Result<WatchEvent<T>, Error>> {
        let error = || {
            Error::transport(
                format!("watch {}", self.request),
                format!("a frame exceeds {MAX_FRAME_BYTES} bytes"),
            )
        };
        (self.partial.len() > MAX_FRAME_BYTES).then(|| Err(error()))
    }
}

fn decode<T: Object>(line: &[u8], request: &str) -> Result<WatchEvent<T>, Error> {
    match serde_json::from_slice::<Frame<T>>(line) {
        Ok(Frame::Error(status)) => Err(Error::Api(status)),
        Ok(Frame::Event(event)) => Ok(event),
        Err(source) => Err(Error::Decode {
            what: name_of(line, request),
            source,
        }),
    }
}

/// Which object did not decode.
fn name_of(line: &[u8], request: &str) -> String {
    #[derive(Deserialize)]
    struct Named {
        object: PartialObjectMetadata,
    }
    match serde_json::from_slice::<Named>(line) {
        Ok(Named { object }) => format!(
            "{} {} in watch {request}",
            object.kind,
            crate::object_key(&object)
        ),
        Err(_) => format!("a frame of watch {request}"),
    }
}

enum Frame<T> {
    Event(WatchEvent<T>),
    Error(Box<Status>),
}

impl<'de, T: Object> Deserialize<'de> for Frame<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FrameVisitor(PhantomData))
    }
}

struct FrameVisitor<T>(PhantomData<T>);

impl<'de, T: Object> Visitor<'de> for FrameVisitor<T> {
    type Value = Frame<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a watch event with type and object")
    }

    /// Servers write `type` first, and then the object is decoded straight from the buffer.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame<T>, A::Error> {
        let (mut kind, mut early, mut frame) = (None::<Cow<'de, str>>, None::<&'de RawValue>, None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match (&*key, &kind) {
                ("type", _) => kind = Some(map.next_value()?),
                ("object", Some(kind)) => frame = Some(from_map(kind, &mut map)?),
                ("object", None) => early = Some(map.next_value()?),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        let kind = kind.ok_or_else(|| de::Error::missing_field("type"))?;
        match (frame, early) {
            (Some(frame), _) => Ok(frame),
            (None, Some(raw)) => from_raw(&kind, raw).map_err(de::Error::custom),
            (None, None) => Err(de::Error::missing_field("object")),
        }
    }
}

fn from_map<'de, T: Object, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<Frame<T>, A::Error> {
    match kind {
        "ERROR" => Ok(Frame::Error(map.next_value()?)),
        "BOOKMARK" => Ok(bookmark(map.next_value()?)),
        kind => event(kind, map.next_value()?).ok_or_else(|| de::Error::unknown_variant(kind, KINDS)),
    }
}

fn from_raw<T: Object>(kind: &str, raw: &RawValue) -> Result<Frame<T>, serde_json::Error> {
    fn parse<R: DeserializeOwned>(raw: &RawValue) -> Result<R, serde_json::Error> {
        serde_json::from_str(raw.get())
    }
    match kind {
        "ERROR" => Ok(Frame::Error(parse(raw)?)),
        "BOOKMARK" => Ok(bookmark(parse(raw)?)),
        kind => event(kind, parse(raw)?).ok_or_else(|| de::Error::unknown_variant(kind, KINDS)),
    }
}

const KINDS: &[&str] = &["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"];
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

fn event<T>(kind: &str, object: T) -> Option<Frame<T>> {
    Some(Frame::Event(match kind {
        "ADDED" => WatchEvent::Added(object),
        "MODIFIED" => WatchEvent::Modified(object),
        "DELETED" => WatchEvent::Deleted(object),
        _ => return None,
    }))
}

fn bookmark<T>(object: PartialObjectMetadata) -> Frame<T> {
    let annotations = object.metadata.annotations.unwrap_or_default();
    Frame::Event(WatchEvent::Bookmark {
        resource_version: object.metadata.resource_version.unwrap_or_default(),
        initial_events_end: annotations.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;
    use http_body::Frame as BodyFrame;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn stream(chunks: Vec<&'static str>) -> WatchStream<ConfigMap> {
        let frames = chunks
            .into_iter()
            .map(|c| Ok::<_, BoxError>(BodyFrame::data(Bytes::from_static(c.as_bytes()))));
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        WatchStream::new(body.boxed_unsync(), "/api/v1/configmaps".into())
    }

    async fn all(mut stream: WatchStream<ConfigMap>) -> Vec<Result<WatchEvent<ConfigMap>, Error>> {
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event);
        }
        events
    }

    fn name(event: &Result<WatchEvent<ConfigMap>, Error>) -> String {
        match event.as_ref().unwrap() {
            WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => {
                o.metadata.name.clone().unwrap()
            }
            WatchEvent::Bookmark { resource_version, .. } => format!("bookmark {resource_version}"),
        }
    }

    #[tokio::test]
    async fn frames_are_found_wherever_chunks_cut_them() {
        let events = all(stream(vec![
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"MODI",
            "FIED\",\"object\":{\"metadata\":{\"na",
            "me\":\"b\"}}}\n\n{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"c\"}}}\n",
            "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"12\"}}}\n",
        ]))
        .await;
        let names: Vec<_> = events.iter().map(name).collect();
        assert_eq!(names, ["a", "b", "c", "bookmark 12"]);
    }

    #[tokio::test]
    async fn an_object_before_its_type_is_decoded_too() {
        let events = all(stream(vec![
            "{\"object\":{\"metadata\":{\"name\":\"a\"}},\"type\":\"ADDED\"}\n",
        ]))
        .await;
        assert_eq!(name(&events[0]), "a");
    }

    #[tokio::test]
    async fn an_error_frame_is_the_status_that_it_carries() {
        let events = all(stream(vec![
            "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"reason\":\"Expired\",\"code\":410,\"message\":\"too old resource version\"}}\n",
        ]))
        .await;
        assert!(events[0].as_ref().unwrap_err().is_gone());
    }

    #[tokio::test]
    async fn a_decode_error_names_the_object() {
        let events = all(stream(vec!["{\"type\":\"ADDED\",\"object\":{\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"bad\",\"namespace\":\"ns\"},\"data\":7}}\n"])).await;
        let text = events[0].as_ref().unwrap_err().to_string();
        assert!(text.contains("ConfigMap ns/bad"), "{text}");
    }
}
