//! What a watcher wants to see, as its creation says it.

use bytes::Bytes;
use etcd_api::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};

use crate::mvcc::key::KeyRange;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    pub range: KeyRange,
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
}

impl Interest {
    pub fn of(request: &WatchCreateRequest) -> Self {
        let filters = |kind: FilterType| request.filters.contains(&(kind as i32));
        Interest {
            range: range_of(request),
            prev_kv: request.prev_kv,
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
        }
    }
}

/// An empty key is the smallest one.
pub fn range_of(request: &WatchCreateRequest) -> KeyRange {
    let key = if request.key.is_empty() {
        Bytes::from_static(&[0])
    } else {
        Bytes::copy_from_slice(&request.key)
    };
    KeyRange::new(&key, &Bytes::copy_from_slice(&request.range_end))
}
