//! One ordered stream of everything below the prefix, from etcd into the caches.
//!
//! All resources share one etcd watch. That makes the order of events total, gives every resource the same revision to
//! wait for and to bookmark, and costs etcd and us one stream instead of seventy. A resource's cache knows nothing of it: it is
//! told changes in order.
//!
//! Consistent reads: `consistent` learns the store's current revision (one linearizable read of no key, shared by
//! everybody who asks while it is under way) and waits until the stream has reached it. Where the last writes were not ours
//! (another prefix, a lease), a progress request makes etcd say so.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use apimachinery::status::{self, StatusError};
use bytes::Bytes;
use component_base::health::Gate;
use etcd_api::etcdserverpb as pb;
use etcd_api::mvccpb::{self, event::EventType};
use parking_lot::Mutex;
use pb::watch_request::RequestUnion;
use tokio::sync::{mpsc, oneshot, watch};

use super::encryption::Transformer;
use super::etcd::{self, Client, prefix_end, revision_of};
use super::object::CachedObject;
use super::watch_cache::{Change, WatchCache};

/// Objects in a page of the initial list.
const PAGE: i64 = 2000;

/// How long a consistent read waits for the stream before the request fails; upstream's limit.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Time given to events on their way before etcd is asked for progress.
const PROGRESS_AFTER: Duration = Duration::from_millis(4);
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// Own writes whose events are on their way; more in flight than this are read from the event instead.
const MAX_WRITTEN: usize = 256;

const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

pub struct Feed {
    client: Client,
    prefix: String,
    revision: watch::Sender<i64>,
    /// Events up to here have come: where a broken watch goes on. Never ahead of an event on its way.
    resume: AtomicI64,
    reads: mpsc::UnboundedSender<oneshot::Sender<Result<i64, etcd::Error>>>,
    progress: Mutex<Option<mpsc::Sender<pb::WatchRequest>>>,
    transformer: Arc<dyn Transformer>,
    written: Mutex<VecDeque<Arc<CachedObject>>>,
    /// Why etcd's events do not come at the moment.
    trouble: Mutex<Option<String>>,
}

/// Caches by the key prefix of their resource (with the trailing slash).
pub type Routes = BTreeMap<String, Arc<WatchCache>>;

impl Feed {
    pub fn new(client: Client, prefix: &str, transformer: Arc<dyn Transformer>) -> Arc<Feed> {
        let (reads, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer_reads(client.clone(), asked));
        Arc::new(Feed {
            client,
            prefix: prefix.to_owned(),
            revision: watch::Sender::new(0),
            resume: AtomicI64::new(0),
            reads,
            progress: Mutex::default(),
            transformer,
            written: Mutex::default(),
            trouble: Mutex::new(Some("not connected yet".to_owned())),
        })
    }

    /// The revision up to which every event was dispatched. 0 = not listed yet.
    pub fn revision(&self) -> i64 {
        *self.revision.borrow()
    }

    /// Returns when the caches were filled for the first time.
    pub async fn synced(&self) {
        // The sender is `self`'s own: the wait ends with a revision.
        drop(self.revision.subscribe().wait_for(|revision| *revision > 0).await);
    }

    /// For health checks: events come from etcd, or why they do not.
    pub fn connected(&self) -> Result<(), String> {
        self.trouble.lock().clone().map_or(Ok(()), Err)
    }

    pub async fn consistent(&self) -> Result<i64, StatusError> {
        let (answer, asked) = oneshot::channel();
        // The answering task ends only with the runtime.
        let gone = || status::internal("the server is shutting down");
        self.reads.send(answer).map_err(|_| gone())?;
        let revision = asked.await.map_err(|_| gone())??;
        self.reached(revision).await?;
        Ok(revision)
    }

    /// Waits until the caches are at `revision` or later.
    pub async fn reached(&self, revision: i64) -> Result<(), StatusError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut seen = self.revision.subscribe();
        let arrived = async {
            let mut wait = PROGRESS_AFTER;
            // The sender lives as long as `self`: only the timeout ends this wait early.
            while tokio::time::timeout(wait, seen.wait_for(|now| *now >= revision))
                .await
                .is_err()
            {
                self.ask_progress();
                wait = PROGRESS_EVERY;
            }
        };
        match tokio::time::timeout(READ_TIMEOUT, arrived).await {
            Ok(()) => Ok(()),
            Err(_) => Err(too_large(revision, self.revision())),
        }
    }

    fn ask_progress(&self) {
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
        };
        if let Some(stream) = self.progress.lock().as_ref() {
            // A full queue holds such a request already.
            drop(stream.try_send(request));
        }
    }

    /// Keeps the caches fed for ever. `synced` opens when they first hold everything.
    pub async fn run(self: Arc<Self>, routes: Routes, synced: Gate) {
        let mut backoff = RECONNECT_MIN;
        let mut listed = false;
        loop {
            if !listed {
                match self.list(&routes).await {
                    Ok(()) => listed = true,
                    Err(error) => {
                        tracing::warn!(err = %error, "Listing from etcd failed, will retry");
                        *self.trouble.lock() = Some(error.to_string());
                        self.pause(&mut backoff).await;
                        continue;
                    }
                }
                synced.open();
            }
            let from = self.revision();
            match self.follow(&routes).await {
                Err(etcd::Error::Compacted) => listed = false,
                Err(error) => {
                    tracing::warn!(err = %error, revision = self.revision(), "The watch on etcd broke, will resume");
                    *self.trouble.lock() = Some(error.to_string());
                }
                Ok(()) => tracing::debug!(revision = self.revision(), "etcd ended the watch, will resume"),
            }
            if self.revision() > from {
                backoff = RECONNECT_MIN;
            }
            self.pause(&mut backoff).await;
        }
    }

    async fn pause(&self, backoff: &mut Duration) {
        tokio::time::sleep(*backoff).await;
        *backoff = (*backoff * 2).min(RECONNECT_MAX);
    }

    /// Everything below the prefix as of one revision.
    async fn list(&self, routes: &Routes) -> Result<(), etcd::Error> {
        let mut lists: BTreeMap<&str, Vec<Arc<CachedObject>>> =
            routes.keys().map(|key| (key.as_str(), Vec::new())).collect();
        let mut start = Bytes::from(format!("{}/", self.prefix));
        let end = prefix_end(&start);
        let mut revision = 0;
        loop {
            let page = self.client.page(start, end.clone(), PAGE, revision).await?;
            revision = if revision == 0 { page.revision } else { revision };
            for kv in &page.kvs {
                if let Some((prefix, cache)) = route(routes, &kv.key) {
                    lists.entry(prefix).or_default().extend(self.read(cache, kv));
                }
            }
            match page.kvs.last().filter(|_| page.more) {
                Some(last) => start = after(&last.key),
                None => break,
            }
        }
        for (prefix, objects) in lists {
            routes[prefix].replace(objects, revision);
        }
        self.resume.store(revision, Ordering::Relaxed);
        self.revision.send_replace(revision);
        Ok(())
    }

    fn read(&self, cache: &WatchCache, kv: &mvccpb::KeyValue) -> Option<Arc<CachedObject>> {
        match CachedObject::from_etcd(&cache.shape, &*self.transformer, kv) {
            Ok(object) => Some(Arc::new(object)),
            Err(reason) => {
                tracing::error!(key = %String::from_utf8_lossy(&kv.key), err = %reason, "Cannot read a stored object, it is not served");
                None
            }
        }
    }

    /// Watches from the caches' revision on until the stream breaks.
    async fn follow(&self, routes: &Routes) -> Result<(), etcd::Error> {
        let mut progress = Progress::of_version(&self.client.version().await?);
        let (requests, outgoing) = mpsc::channel(4);
        let start = Bytes::from(format!("{}/", self.prefix));
        let create = pb::WatchCreateRequest {
            range_end: prefix_end(&start),
            key: start,
            start_revision: self.resume.load(Ordering::Relaxed) + 1,
            progress_notify: true,
            ..Default::default()
        };
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        // The receiver is alive: it is handed over two lines below.
        drop(requests.try_send(create));
        let stream = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut answers = self.client.watch.clone().watch(stream).await?.into_inner();
        *self.progress.lock() = Some(requests);
        *self.trouble.lock() = None;
        while let Some(answer) = answers.message().await? {
            if answer.canceled {
                return Err(cancelled(&answer));
            }
            self.dispatch(routes, answer, &mut progress);
        }
        Ok(())
    }

    fn dispatch(&self, routes: &Routes, answer: pb::WatchResponse, progress: &mut Progress) {
        if answer.created {
            return;
        }
        let Some(last) = answer
            .events
            .last()
            .and_then(|event| event.kv.as_ref())
            .map(|kv| kv.mod_revision)
        else {
            if let Some(revision) = progress.told(revision_of(&answer.header)) {
                self.advance(revision);
                if progress.trusted {
                    self.resume.fetch_max(revision, Ordering::Relaxed);
                }
            }
            return;
        };
        progress.claim = None;
        let mut events = answer
            .events
            .into_iter()
            .filter_map(|event| Some((event.r#type, event.kv?)))
            .peekable();
        while let Some((kind, kv)) = events.next() {
            let Some((prefix, cache)) = route(routes, &kv.key) else {
                continue;
            };
            let first = self.change(prefix, cache, kind, &kv);
            let rest = std::iter::from_fn(|| {
                let (kind, kv) = events.next_if(|(_, kv)| kv.key.starts_with(prefix.as_bytes()))?;
                Some(self.change(prefix, cache, kind, &kv))
            });
            cache.apply(std::iter::once(first).chain(rest).flatten());
        }
        self.resume.fetch_max(last, Ordering::Relaxed);
        self.advance(last);
    }

    fn change(&self, prefix: &str, cache: &WatchCache, kind: i32, kv: &mvccpb::KeyValue) -> Option<Change> {
        if kind == EventType::Delete as i32 {
            let key = std::str::from_utf8(&kv.key[prefix.len()..]).ok()?;
            return Some(Change::Delete {
                key: key.to_owned(),
                revision: kv.mod_revision,
            });
        }
        self.take_written(kv.mod_revision)
            .or_else(|| self.read(cache, kv))
            .map(Change::Put)
    }

    /// An object this server has just written: its event will come, and takes the object with what is encoded of it already.
    pub fn offer(&self, object: &Arc<CachedObject>) {
        if self.revision() >= object.resource_version {
            return;
        }
        let mut written = self.written.lock();
        if written.len() == MAX_WRITTEN {
            written.pop_front();
        }
        written.push_back(object.clone());
    }

    fn take_written(&self, revision: i64) -> Option<Arc<CachedObject>> {
        let mut written = self.written.lock();
        let at = written
            .iter()
            .position(|object| object.resource_version == revision)?;
        written.remove(at)
    }

    fn advance(&self, revision: i64) {
        self.revision.send_if_modified(|now| {
            let later = revision > *now;
            *now = revision.max(*now);
            later
        });
    }
}

/// What a progress answer is worth. Before 3.4.31 and 3.5.13 etcd could send it ahead of events it had not sent yet.
struct Progress {
    trusted: bool,
    /// A revision that such an etcd told, and when.
    claim: Option<(i64, Instant)>,
}

/// How long events that an early progress answer overtook may still take: they lie in etcd's queue to us.
const SETTLED: Duration = Duration::from_millis(10);

impl Progress {
    fn of_version(version: &str) -> Progress {
        let mut parts = version
            .split(['.', '-'])
            .map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let version = (next(), next(), next());
        let trusted = match version {
            (3, 4, patch) => patch >= 31,
            (3, 5, patch) => patch >= 13,
            other => other >= (3, 6, 0),
        };
        Progress { trusted, claim: None }
    }

    /// The revision that all events are known to have come up to.
    fn told(&mut self, revision: i64) -> Option<i64> {
        if self.trusted {
            return Some(revision);
        }
        match self.claim {
            Some((claimed, since)) if since.elapsed() >= SETTLED => {
                self.claim = Some((revision, Instant::now()));
                Some(claimed)
            }
            Some(_) => None,
            None => {
                self.claim = Some((revision, Instant::now()));
                None
            }
        }
    }
}

fn cancelled(answer: &pb::WatchResponse) -> etcd::Error {
    if answer.compact_revision > 0 {
        return etcd::Error::Compacted;
    }
    etcd::Error::Failed(Arc::new(tonic::Status::cancelled(answer.cancel_reason.clone())))
}

fn too_large(wanted: i64, now: i64) -> StatusError {
    let status = status::timeout(format!("Too large resource version: {wanted}, current: {now}"), 1);
    status.with_cause("ResourceVersionTooLarge", "", "Too large resource version")
}

fn after(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    Bytes::from(next)
}

/// The resource a key belongs to. No resource's prefix begins with another's, so the nearest smaller one decides.
fn route<'a>(routes: &'a Routes, key: &[u8]) -> Option<(&'a str, &'a Arc<WatchCache>)> {
    let key = std::str::from_utf8(key).ok()?;
    let (prefix, cache) = routes
        .range::<str, _>((Bound::Unbounded, Bound::Included(key)))
        .next_back()?;
    key.starts_with(prefix.as_str())
        .then_some((prefix.as_str(), cache))
}

/// Answers everybody who waits with one read of etcd; those who come while it is under way wait for the next.
async fn answer_reads(
    client: Client,
    mut asked: mpsc::UnboundedReceiver<oneshot::Sender<Result<i64, etcd::Error>>>,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, usize::MAX).await > 0 {
        let revision = client.revision().await;
        for reader in waiting.drain(..) {
            // A reader whose client went away does not listen.
            drop(reader.send(revision.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_trusted_from_the_versions_that_order_it() {
        for (version, trusted) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("3.6.8", true),
            ("", false),
        ] {
            assert_eq!(Progress::of_version(version).trusted, trusted, "{version}");
        }
    }

    #[test]
    fn an_untrusted_answer_counts_once_it_had_time_to_be_overtaken() {
        let mut progress = Progress::of_version("3.4.23");
        assert_eq!(progress.told(7), None);
        assert_eq!(progress.told(8), None);
        std::thread::sleep(SETTLED);
        assert_eq!(progress.told(9), Some(7));
        assert_eq!(Progress::of_version("3.6.8").told(7), Some(7));
    }
}
