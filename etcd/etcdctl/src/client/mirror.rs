//! Reads a prefix as it is, page by page, then everything that happens to it: upstream's `mirror` package.

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::etcdserverpb::{RangeRequest, RangeResponse, WatchCreateRequest};

use super::kv::prefix_end;
use super::watch::Watcher;
use super::{Client, Context, Error};

/// Keys in one page.
const BATCH_LIMIT: i64 = 1000;

pub struct Syncer {
    client: Client,
    prefix: Bytes,
    revision: i64,
    /// Where the next page begins; None behind the last.
    next: Option<Bytes>,
}

impl Syncer {
    /// Revision 0 for the newest.
    pub async fn new(client: &Client, prefix: Bytes, revision: i64) -> Result<Syncer, Error> {
        let mut syncer = Syncer {
            client: client.clone(),
            next: Some(syncer_start(&prefix)),
            prefix,
            revision,
        };
        if revision == 0 {
            let probe = if syncer.prefix.is_empty() {
                Bytes::from_static(b"foo")
            } else {
                syncer.prefix.clone()
            };
            let answer = client.get(&Context::background(), probe).await?;
            syncer.revision = answer.header.unwrap_or_default().revision;
        }
        Ok(syncer)
    }

    pub async fn next_page(&mut self) -> Result<Option<RangeResponse>, Error> {
        let Some(key) = self.next.take() else {
            return Ok(None);
        };
        let request = RangeRequest {
            key,
            range_end: prefix_end(&self.prefix),
            limit: BATCH_LIMIT,
            revision: self.revision,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Key.into(),
            ..Default::default()
        };
        let page = self.client.range(&Context::background(), request).await?;
        if let Some(last) = page.kvs.last().filter(|_| page.more) {
            let mut next = BytesMut::from(&last.key[..]);
            next.put_u8(0);
            self.next = Some(next.freeze());
        }
        Ok(Some(page))
    }

    pub fn updates(&self) -> Watcher {
        self.client.watch(WatchCreateRequest {
            key: syncer_start(&self.prefix),
            range_end: prefix_end(&self.prefix),
            start_revision: self.revision + 1,
            ..Default::default()
        })
    }
}

/// The whole key space begins behind the empty key.
fn syncer_start(prefix: &Bytes) -> Bytes {
    if prefix.is_empty() {
        Bytes::from_static(b"\0")
    } else {
        prefix.clone()
    }
}
