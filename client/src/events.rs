//! Events: what was done to an object, told to its user without flooding the store.
//!
//! A recorder hands an occurrence to one task through a bounded queue (full means dropped, and counted). The task
//! correlates as upstream does, and then creates an Event or patches the count of one that says the same.

mod correlator;
mod series;

use crate::error::Error;
use crate::object::Object;
use crate::{Client, Patch};
use component_base::metrics::{Counter, counter};
use correlator::Correlator;
use k8s_openapi::api::core::v1::{Event as CoreEvent, ObjectReference};
use k8s_openapi::api::events::v1::Event as SeriesEvent;
use series::SeriesCache;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// Upstream's broadcaster holds as many.
const QUEUE: usize = 1000;
const ATTEMPTS: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_secs(1);

static DROPPED: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "event_recorder_dropped_total",
        "[ALPHA] Events that were not written: the queue was full, the source too talkative, or the server refused.",
        &["reason"],
    )
});

/// Where events come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventSource {
    pub component: String,
    pub host: String,
}

/// Which API events are written to.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// core/v1 with counts: kubelet and controllers.
    Core,
    /// events.k8s.io/v1 with series: the scheduler and kube-proxy.
    Series,
}

#[derive(Clone)]
pub struct EventRecorder {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    source: EventSource,
    form: Form,
    /// Opened with the first event, when there is surely a runtime.
    queue: OnceLock<mpsc::Sender<Occurrence>>,
}

/// One call of [`EventRecorder::event`].
#[derive(Clone, Debug)]
pub(crate) struct Occurrence {
    pub regarding: ObjectReference,
    pub related: Option<ObjectReference>,
    pub type_: String,
    pub reason: String,
    pub action: String,
    pub message: String,
}

impl EventRecorder {
    /// core/v1 events with upstream's aggregation; `host` is the node for node agents and empty elsewhere.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        Self::with_form(client, component, host, Form::Core)
    }

    /// events.k8s.io/v1 events, whose repetition is a series; `instance` becomes reportingInstance.
    pub fn series(client: Client, component: &str, instance: &str) -> Self {
        Self::with_form(client, component, instance, Form::Series)
    }

    fn with_form(client: Client, component: &str, host: &str, form: Form) -> Self {
        let source = EventSource {
            component: component.to_owned(),
            host: host.to_owned(),
        };
        EventRecorder {
            inner: Arc::new(Inner {
                client,
                source,
                form,
                queue: OnceLock::new(),
            }),
        }
    }

    /// `type_` is Normal or Warning.
    pub fn event(&self, regarding: &ObjectReference, type_: &str, reason: &str, message: &str) {
        self.event_with_action(regarding, None, type_, reason, "", message);
    }

    /// As [`EventRecorder::event`], with what only events.k8s.io knows: the action and a second object.
    pub fn event_with_action(
        &self,
        regarding: &ObjectReference,
        related: Option<&ObjectReference>,
        type_: &str,
        reason: &str,
        action: &str,
        message: &str,
    ) {
        tracing::debug!(object = %reference_key(regarding), kind = regarding.kind.as_deref().unwrap_or(""), r#type = type_, reason, message, "Event occurred");
        let occurrence = Occurrence {
            regarding: regarding.clone(),
            related: related.cloned(),
            type_: type_.to_owned(),
            reason: reason.to_owned(),
            action: action.to_owned(),
            message: message.to_owned(),
        };
        if self.queue().try_send(occurrence).is_err() {
            DROPPED.with(&["queue_full"]).inc();
        }
    }

    fn queue(&self) -> &mpsc::Sender<Occurrence> {
        self.inner.queue.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let (client, source) = (self.inner.client.clone(), self.inner.source.clone());
            match self.inner.form {
                Form::Core => tokio::spawn(write_core(client, source, receiver)),
                Form::Series => tokio::spawn(write_series(client, source, receiver)),
            };
            sender
        })
    }
}

/// The reference that an event about `object` carries.
pub fn object_reference<T: Object>(object: &T) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(T::API_VERSION.to_owned()),
        kind: Some(T::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

fn reference_key(reference: &ObjectReference) -> String {
    let name = reference.name.as_deref().unwrap_or("");
    match reference.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    }
}

/// Events about what has no namespace live in `default`.
pub(crate) fn namespace_of(regarding: &ObjectReference) -> String {
    regarding
        .namespace
        .clone()
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "default".into())
}

/// `<object>.<nanoseconds in hex>`: upstream's names. An object whose name leaves no room for it gives way to a uuid.
pub(crate) fn event_name(regarding: &ObjectReference, nanoseconds: i128) -> String {
    const MAX_NAME: usize = 253;
    let name = format!("{}.{nanoseconds:x}", regarding.name.as_deref().unwrap_or(""));
    if name.len() <= MAX_NAME {
        name
    } else {
        uuid::Uuid::new_v4().to_string()
    }
}

/// What the correlator decided.
pub(crate) enum Write<E> {
    Create(Box<E>),
    /// The event to create should the one to patch be gone already.
    Patch {
        name: String,
        patch: serde_json::Value,
        otherwise: Box<E>,
    },
    Nothing,
}

async fn write_core(client: Client, source: EventSource, mut queue: mpsc::Receiver<Occurrence>) {
    let mut correlator = Correlator::new(source);
    while let Some(occurrence) = queue.recv().await {
        let namespace = namespace_of(&occurrence.regarding);
        match correlator.correlate(&occurrence, k8s_openapi::jiff::Timestamp::now()) {
            None => DROPPED.with(&["spam_filter"]).inc(),
            Some((write, key)) => {
                if let Some(written) = send::<CoreEvent>(&client, &namespace, write).await {
                    correlator.written(&key, &written);
                }
            }
        }
    }
}

async fn write_series(client: Client, source: EventSource, mut queue: mpsc::Receiver<Occurrence>) {
    let mut cache = SeriesCache::new(source);
    while let Some(occurrence) = queue.recv().await {
        let namespace = namespace_of(&occurrence.regarding);
        let write = cache.record(&occurrence, k8s_openapi::jiff::Timestamp::now());
        // The cache knows the event by its content already; its name was ours to choose.
        drop(send::<SeriesEvent>(&client, &namespace, write).await);
    }
}

async fn send<E: Object>(client: &Client, namespace: &str, write: Write<E>) -> Option<E> {
    for attempt in 1..=ATTEMPTS {
        let error = match send_once(client, namespace, &write).await {
            Ok(written) => return written,
            Err(error) => error,
        };
        // A refusal will not change; an event about a namespace that is going away is of no use.
        if !error.is_transient() {
            tracing::warn!(%error, "Server rejected event, it will not be retried");
            break;
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(crate::jitter(RETRY_AFTER * attempt, 0.5)).await;
        }
    }
    DROPPED.with(&["server"]).inc();
    None
}

async fn send_once<E: Object>(
    client: &Client,
    namespace: &str,
    write: &Write<E>,
) -> Result<Option<E>, Error> {
    let api = client.namespaced::<E>(namespace);
    match write {
        Write::Nothing => Ok(None),
        Write::Create(event) => api.create(event).await.map(Some),
        Write::Patch {
            name,
            patch,
            otherwise,
        } => match api.patch(name, &Patch::Strategic(patch.clone()), None).await {
            Err(error) if error.is_not_found() => api.create(otherwise).await.map(Some),
            outcome => outcome.map(Some),
        },
    }
}
