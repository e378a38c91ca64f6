//! List, then watch, then watch on from where the last watch ended; list again only when the server forgot that place.

use super::Informer;
use crate::error::Error;
use crate::object::{Object, object_key};
use crate::watch::{WatchEvent, WatchStream};
use crate::{ListOptions, jitter};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Objects in one page of a list: bounds what is in flight, not what is stored.
const PAGE: u32 = 500;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A watch that lived this long was healthy: the next failure starts from the smallest backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Two failing watches in this time are a broken server, not two restarts.
const QUICK_END: Duration = Duration::from_secs(1);

pub(super) async fn run<T: Object>(informer: Informer<T>) {
    let mut backoff = Backoff::default();
    loop {
        match list(&informer).await {
            Ok(from) => {
                informer.synced();
                follow(&informer, from, &mut backoff).await;
            }
            Err(error) => {
                tracing::warn!(kind = T::KIND, path = %informer.inner.api.path_of_collection(), %error, "Failed to list, will retry");
                backoff.wait(error.retry_after()).await;
            }
        }
    }
}

/// Reads a snapshot page by page into the store, then removes what the snapshot does not have.
async fn list<T: Object>(informer: &Informer<T>) -> Result<String, Error> {
    let mut options = ListOptions {
        limit: Some(PAGE),
        ..informer.inner.options.clone()
    };
    let mut seen = HashSet::new();
    loop {
        let page = informer.inner.api.list(&options).await?;
        let (version, token) = (
            page.resource_version().to_owned(),
            page.continue_token().map(str::to_owned),
        );
        for object in page.items {
            seen.insert(object_key(&object));
            take(informer, object);
        }
        let Some(token) = token else {
            forget_absent(informer, &seen);
            return Ok(version);
        };
        options.continue_token = Some(token);
    }
}

fn forget_absent<T: Object>(informer: &Informer<T>, seen: &HashSet<String>) {
    for key in informer.inner.store.keys() {
        if !seen.contains(&*key) {
            informer.remove(&key, None);
        }
    }
}

/// A relist brings mostly what is known already; only what changed is told.
fn take<T: Object>(informer: &Informer<T>, mut object: T) {
    let known = informer.inner.store.get(&object_key(&object));
    let same = |old: &T| {
        let (old, new) = (old.metadata(), object.metadata());
        old.resource_version == new.resource_version && old.uid == new.uid && new.resource_version.is_some()
    };
    if known.is_some_and(|old| same(&old)) {
        return;
    }
    informer.cut(&mut object);
    informer.upsert(object);
}

/// Watches until the server no longer knows the place to continue from.
async fn follow<T: Object>(informer: &Informer<T>, mut from: String, backoff: &mut Backoff) {
    loop {
        let started = Instant::now();
        let end = watch(informer, &mut from).await;
        let lived = started.elapsed();
        if lived > HEALTHY_AFTER {
            backoff.reset();
        }
        match end {
            Ok(()) if lived > QUICK_END => {}
            Ok(()) => backoff.wait(None).await,
            Err(error) if error.is_gone() => {
                tracing::debug!(kind = T::KIND, %error, "Watch start is too old, listing again");
                return backoff.wait_if_repeated().await;
            }
            // What the stream said cannot be trusted to be complete after a frame that did not decode.
            Err(error @ Error::Decode { .. }) => {
                tracing::error!(kind = T::KIND, %error, "Watch frame cannot be decoded, listing again");
                return backoff.wait(None).await;
            }
            Err(error) => {
                tracing::debug!(kind = T::KIND, %error, "Watch ended, will resume");
                backoff.wait(error.retry_after()).await;
            }
        }
    }
}

async fn watch<T: Object>(informer: &Informer<T>, from: &mut String) -> Result<(), Error> {
    let options = ListOptions {
        resource_version: Some(from.clone()),
        allow_watch_bookmarks: true,
        ..informer.inner.options.clone()
    };
    let mut stream: WatchStream<T> = informer.inner.api.watch(&options).await?;
    while let Some(event) = stream.next().await {
        if let Some(version) = apply(informer, event?) {
            *from = version;
        }
    }
    Ok(())
}

/// The place to continue from.
fn apply<T: Object>(informer: &Informer<T>, event: WatchEvent<T>) -> Option<String> {
    match event {
        WatchEvent::Bookmark { resource_version, .. } => Some(resource_version),
        WatchEvent::Added(mut object) | WatchEvent::Modified(mut object) => {
            let version = object.metadata().resource_version.clone();
            informer.cut(&mut object);
            informer.upsert(object);
            version
        }
        WatchEvent::Deleted(mut object) => {
            let version = object.metadata().resource_version.clone();
            informer.cut(&mut object);
            informer.remove(&object_key(&object), Some(object));
            version
        }
    }
}

#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    async fn wait(&mut self, asked: Option<Duration>) {
        let own = MIN_BACKOFF
            .saturating_mul(1 << self.failures.min(12))
            .min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(jitter(asked.unwrap_or(own), 0.5)).await;
    }

    /// One relist is routine and happens at once; a second without a healthy watch between waits.
    async fn wait_if_repeated(&mut self) {
        if self.failures > 0 {
            return self.wait(None).await;
        }
        self.failures = 1;
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}
