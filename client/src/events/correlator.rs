//! core/v1 events: similar ones aggregated, equal ones counted, talkative sources held back. Upstream's keys and numbers.

use super::{EventSource, Occurrence, Write, event_name, namespace_of};
use k8s_openapi::api::core::v1::{Event, EventSource as CoreSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};

const MAX_ENTRIES: usize = 4096;
/// So many events that differ in their message only become one.
const AGGREGATE_FROM: usize = 10;
const AGGREGATE_WITHIN_SECONDS: i64 = 600;
/// A source may say this much about one object at once, and then one more each five minutes.
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL_SECONDS: f64 = 300.0;

pub(super) struct Correlator {
    source: EventSource,
    aggregates: Recent<Aggregate>,
    observed: Recent<Observed>,
    budgets: Recent<Budget>,
}

struct Aggregate {
    messages: BTreeSet<String>,
    last: Timestamp,
}

#[derive(Clone)]
struct Observed {
    count: i32,
    first: Time,
    name: String,
}

struct Budget {
    tokens: f64,
    at: Timestamp,
}

impl Correlator {
    pub fn new(source: EventSource) -> Self {
        Correlator {
            source,
            aggregates: Recent::default(),
            observed: Recent::default(),
            budgets: Recent::default(),
        }
    }

    /// What to write and the key to confirm it by; `None` when the source has said too much about the object.
    pub fn correlate(&mut self, occurrence: &Occurrence, now: Timestamp) -> Option<(Write<Event>, String)> {
        let (message, key) = self.aggregate(occurrence, now);
        let (event, again) = self.observe(occurrence, message, &key, now);
        if !self.within_budget(occurrence, now) {
            return None;
        }
        let write = if again {
            patch_of(event)
        } else {
            Write::Create(Box::new(event))
        };
        Some((write, key))
    }

    /// The server may have chosen another name or count than we assumed.
    pub fn written(&mut self, key: &str, event: &Event) {
        let first = event
            .first_timestamp
            .clone()
            .unwrap_or_else(|| Time(Timestamp::now()));
        let name = event.metadata.name.clone().unwrap_or_default();
        self.observed.put(
            key.to_owned(),
            Observed {
                count: event.count.unwrap_or(1),
                first,
                name,
            },
        );
    }

    fn aggregate(&mut self, o: &Occurrence, now: Timestamp) -> (String, String) {
        let similar = similar_key(&self.source, o);
        let known = self
            .aggregates
            .get_mut(&similar)
            .filter(|a| now.as_second() - a.last.as_second() <= AGGREGATE_WITHIN_SECONDS);
        let aggregate = match known {
            Some(aggregate) => aggregate,
            None => self.aggregates.put(
                similar.clone(),
                Aggregate {
                    messages: BTreeSet::new(),
                    last: now,
                },
            ),
        };
        aggregate.messages.insert(o.message.clone());
        aggregate.last = now;
        if aggregate.messages.len() < AGGREGATE_FROM {
            return (o.message.clone(), equal_key(&self.source, o));
        }
        aggregate.messages.pop_first();
        (format!("(combined from similar events): {}", o.message), similar)
    }

    fn observe(&mut self, o: &Occurrence, message: String, key: &str, now: Timestamp) -> (Event, bool) {
        let before = self.observed.get_mut(key).cloned();
        let again = before.is_some();
        let observed = before.map_or_else(
            || Observed {
                count: 1,
                first: Time(now),
                name: event_name(&o.regarding, now.as_nanosecond()),
            },
            |before| Observed {
                count: before.count.saturating_add(1),
                ..before
            },
        );
        self.observed.put(key.to_owned(), observed.clone());
        (self.event(o, message, observed, now), again)
    }

    fn event(&self, o: &Occurrence, message: String, observed: Observed, now: Timestamp) -> Event {
        let host = Some(self.source.host.clone()).filter(|h| !h.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(observed.name),
                namespace: Some(namespace_of(&o.regarding)),
                ..ObjectMeta::default()
            },
            count: Some(observed.count),
            first_timestamp: Some(observed.first),
            last_timestamp: Some(Time(now)),
            involved_object: o.regarding.clone(),
            message: Some(message),
            reason: Some(o.reason.clone()),
            type_: Some(o.type_.clone()),
            reporting_component: Some(self.source.component.clone()),
            reporting_instance: host.clone(),
            source: Some(CoreSource {
                component: Some(self.source.component.clone()),
                host,
            }),
            ..Event::default()
        }
    }

    fn within_budget(&mut self, o: &Occurrence, now: Timestamp) -> bool {
        let key = spam_key(&self.source, o);
        let mut tokens = match self.budgets.get_mut(&key) {
            Some(budget) => {
                let elapsed = now.duration_since(budget.at).as_secs_f64().max(0.0);
                (budget.tokens + elapsed / SPAM_REFILL_SECONDS).min(SPAM_BURST)
            }
            None => SPAM_BURST,
        };
        let accepted = tokens >= 1.0;
        if accepted {
            tokens -= 1.0;
        }
        self.budgets.put(key, Budget { tokens, at: now });
        accepted
    }
}

/// Only what changes when an event is said again.
fn patch_of(event: Event) -> Write<Event> {
    let patch = serde_json::json!({
        "count": event.count,
        "lastTimestamp": event.last_timestamp,
        "message": event.message,
    });
    Write::Patch {
        name: event.metadata.name.clone().unwrap_or_default(),
        patch,
        otherwise: Box::new(event),
    }
}

fn spam_key(source: &EventSource, o: &Occurrence) -> String {
    join(&[&source.component, &source.host, &identity(&o.regarding), &o.type_])
}

fn similar_key(source: &EventSource, o: &Occurrence) -> String {
    join(&[&spam_key(source, o), &o.reason])
}

fn equal_key(source: &EventSource, o: &Occurrence) -> String {
    let field = o.regarding.field_path.as_deref().unwrap_or("");
    join(&[&similar_key(source, o), field, &o.message])
}

fn identity(reference: &ObjectReference) -> String {
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    join(&[
        &part(&reference.kind),
        &part(&reference.namespace),
        &part(&reference.name),
        &part(&reference.uid),
        &part(&reference.api_version),
    ])
}

/// A separator that no part contains keeps distinct events distinct.
fn join(parts: &[&str]) -> String {
    parts.join("\u{1}")
}

/// A map that holds two generations: when the young one is full, the old one is forgotten.
pub(super) struct Recent<V> {
    young: HashMap<String, V>,
    old: HashMap<String, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<V> Recent<V> {
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        if let Some(value) = self.old.remove(key) {
            self.put(key.to_owned(), value);
        }
        self.young.get_mut(key)
    }

    pub fn put(&mut self, key: String, value: V) -> &mut V {
        self.old.remove(&key);
        if self.young.len() >= MAX_ENTRIES / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).insert_entry(value).into_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        Occurrence {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("web".into()),
                namespace: Some("ns".into()),
                ..Default::default()
            },
            related: None,
            type_: "Normal".into(),
            reason: "Pulled".into(),
            action: String::new(),
            message: message.into(),
        }
    }

    fn correlator() -> Correlator {
        Correlator::new(EventSource {
            component: "kubelet".into(),
            host: "n1".into(),
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn the_same_event_again_is_a_patch_of_its_count() {
        let mut correlator = correlator();
        let first = correlator.correlate(&occurrence("a"), at(0)).unwrap();
        let Write::Create(event) = first.0 else {
            panic!("first is a create")
        };
        assert_eq!(event.metadata.name.as_deref(), Some("web.17979cfe362a0000"));
        let Write::Patch { name, patch, .. } = correlator.correlate(&occurrence("a"), at(5)).unwrap().0
        else {
            panic!("second is a patch")
        };
        assert_eq!(
            (Some(name), &patch["count"]),
            (event.metadata.name, &serde_json::json!(2))
        );
    }

    #[test]
    fn the_tenth_message_about_one_reason_is_combined() {
        let mut correlator = correlator();
        let mut messages = Vec::new();
        for n in 0..12 {
            let write = correlator
                .correlate(&occurrence(&format!("m{n}")), at(n))
                .unwrap()
                .0;
            messages.push(match write {
                Write::Create(event) => event.message.unwrap(),
                Write::Patch { patch, .. } => patch["message"].as_str().unwrap().to_owned(),
                Write::Nothing => panic!("an event is always written"),
            });
        }
        assert_eq!(messages[8], "m8");
        assert_eq!(messages[9], "(combined from similar events): m9");
        assert_eq!(messages[11], "(combined from similar events): m11");
    }

    #[test]
    fn the_26th_event_in_a_row_about_one_object_is_dropped() {
        let mut correlator = correlator();
        let accepted = (0..40)
            .filter(|n| {
                correlator
                    .correlate(&occurrence(&format!("m{n}")), at(0))
                    .is_some()
            })
            .count();
        assert_eq!(accepted, 25);
        assert!(correlator.correlate(&occurrence("later"), at(301)).is_some());
    }

    #[test]
    fn memory_for_keys_is_bounded() {
        let mut recent = Recent::default();
        for n in 0..3 * MAX_ENTRIES {
            recent.put(n.to_string(), ());
        }
        assert!(recent.young.len() + recent.old.len() <= MAX_ENTRIES);
        assert!(recent.get_mut(&(3 * MAX_ENTRIES - 1).to_string()).is_some());
    }
}
