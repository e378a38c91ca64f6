//! events.k8s.io/v1 events: an event said again becomes a series, which is written when it begins and then seldom.

use super::correlator::Recent;
use super::{EventSource, Occurrence, Write, event_name, namespace_of};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

/// A series silent for this long is over; the next occurrence is a new event.
const FINISH_SECONDS: i64 = 6 * 60;
/// A series that goes on is written again this often, so that it does not expire.
const REFRESH_SECONDS: i64 = 30 * 60;

pub(super) struct SeriesCache {
    source: EventSource,
    known: Recent<Known>,
}

struct Known {
    event: Event,
    last: Timestamp,
    written: Timestamp,
}

impl SeriesCache {
    pub fn new(source: EventSource) -> Self {
        SeriesCache {
            source,
            known: Recent::default(),
        }
    }

    pub fn record(&mut self, o: &Occurrence, now: Timestamp) -> Write<Event> {
        let key = key(o);
        let known = self
            .known
            .get_mut(&key)
            .filter(|k| now.as_second() - k.last.as_second() < FINISH_SECONDS);
        if let Some(known) = known {
            return known.again(now);
        }
        let event = self.event(o, now);
        self.known.put(
            key,
            Known {
                event: event.clone(),
                last: now,
                written: now,
            },
        );
        Write::Create(Box::new(event))
    }

    fn event(&self, o: &Occurrence, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(event_name(&o.regarding, now.as_nanosecond())),
                namespace: Some(namespace_of(&o.regarding)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.source.component.clone()),
            reporting_instance: Some(self.source.host.clone()),
            action: Some(o.action.clone()),
            reason: Some(o.reason.clone()),
            regarding: Some(o.regarding.clone()),
            related: o.related.clone(),
            note: Some(o.message.clone()),
            type_: Some(o.type_.clone()),
            ..Event::default()
        }
    }
}

impl Known {
    fn again(&mut self, now: Timestamp) -> Write<Event> {
        self.last = now;
        let first = self.event.series.is_none();
        let count = self
            .event
            .series
            .as_ref()
            .map_or(2, |s| s.count.saturating_add(1));
        self.event.series = Some(EventSeries {
            count,
            last_observed_time: MicroTime(now),
        });
        if !first && now.as_second() - self.written.as_second() < REFRESH_SECONDS {
            return Write::Nothing;
        }
        self.written = now;
        let patch = serde_json::json!({ "series": self.event.series });
        Write::Patch {
            name: self.event.metadata.name.clone().unwrap_or_default(),
            patch,
            otherwise: Box::new(self.event.clone()),
        }
    }
}

fn key(o: &Occurrence) -> String {
    let related = o.related.as_ref().map(identity).unwrap_or_default();
    [&o.type_, &o.action, &o.reason, &identity(&o.regarding), &related]
        .map(String::as_str)
        .join("\u{1}")
}

fn identity(r: &ObjectReference) -> String {
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    [
        part(&r.kind),
        part(&r.namespace),
        part(&r.name),
        part(&r.uid),
        part(&r.api_version),
        part(&r.field_path),
    ]
    .join("\u{1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_event_is_created_then_made_a_series_then_only_counted() {
        let mut cache = SeriesCache::new(EventSource {
            component: "default-scheduler".into(),
            host: "default-scheduler-h".into(),
        });
        let o = Occurrence {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("p".into()),
                namespace: Some("ns".into()),
                ..Default::default()
            },
            related: None,
            type_: "Warning".into(),
            reason: "FailedScheduling".into(),
            action: "Scheduling".into(),
            message: "0/1 nodes are available".into(),
        };
        let at = |s: i64| Timestamp::from_second(1_700_000_000 + s).unwrap();
        assert!(matches!(cache.record(&o, at(0)), Write::Create(_)));
        assert!(
            matches!(cache.record(&o, at(1)), Write::Patch { patch, .. } if patch["series"]["count"] == 2)
        );
        assert!(matches!(cache.record(&o, at(2)), Write::Nothing));
        assert!(
            matches!(cache.record(&o, at(2 + FINISH_SECONDS)), Write::Create(_)),
            "a silent series is over"
        );
    }
}
