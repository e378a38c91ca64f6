//! The Range request: which keys, in which order; values are fetched by whoever writes the answer.

use std::cmp::Ordering;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use etcd_api::etcdserverpb::{RangeRequest, range_request::SortOrder, range_request::SortTarget};
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::key::KeyRange;
use super::{Error, Store};
use crate::storage::Segments;
use crate::storage::held::Held;
use crate::storage::record::{Loc, Version};

/// What a range found.
#[derive(Default)]
pub struct Selected {
    pub items: Items,
    pub more: bool,
    /// All keys in the range, whatever limit and filters say.
    pub count: i64,
    /// Where the items lie; they stay readable.
    pub segments: Segments,
}

#[derive(Debug)]
pub enum Items {
    Stored(Vec<Loc>),
    /// Already encoded: keys without values, or values that had to be read for sorting.
    Encoded(Vec<Bytes>),
}

impl Items {
    pub fn len(&self) -> usize {
        match self {
            Items::Stored(locs) => locs.len(),
            Items::Encoded(kvs) => kvs.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Items {
    fn default() -> Self {
        Items::Stored(Vec::new())
    }
}

/// Reads encoded KeyValues; the apply thread's sees its own unfinished frame.
pub type Reader<'a> = &'a dyn Fn(&Segments, &[Loc]) -> io::Result<Vec<Bytes>>;

type Fetch<'a> = &'a dyn Fn(&[Loc]) -> io::Result<Vec<Bytes>>;

impl Store {
    /// Selects at `revision`, which [`Store::revision`] has allowed. `before` are the segments as they were a moment ago.
    pub fn select(
        &self,
        request: &RangeRequest,
        revision: i64,
        before: &Segments,
        read: Reader<'_>,
    ) -> Result<Selected, Error> {
        let held = Held::since(before.clone());
        let range = KeyRange::new(&request.key, &request.range_end);
        let order = Order::of(request);
        let selected = match (request.count_only, order, filtered(request)) {
            (true, ..) => self.count(&range, revision),
            (_, Order::Stored, false) => self.select_plain(request, &range, revision, held)?,
            (_, order, _) => self.select_sorted(request, &range, revision, held, (order, read))?,
        };
        self.still_there(revision)?;
        Ok(selected)
    }

    fn count(&self, range: &KeyRange, revision: i64) -> Selected {
        let mut count = 0;
        self.walk(range, revision, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        Selected {
            count,
            ..Selected::default()
        }
    }

    fn select_plain(
        &self,
        request: &RangeRequest,
        range: &KeyRange,
        revision: i64,
        mut held: Held,
    ) -> io::Result<Selected> {
        let limit = if request.limit > 0 {
            request.limit
        } else {
            i64::MAX
        };
        let mut count = 0;
        let (mut locs, mut keys) = (Vec::new(), Vec::new());
        self.walk(range, revision, |key, version| {
            count += 1;
            match request.keys_only {
                _ if count > limit => {}
                true => keys.push(without_value(key, version)),
                false => {
                    held.hold(&self.storage, version.loc.segment);
                    locs.push(version.loc);
                }
            }
            ControlFlow::Continue(())
        });
        let items = if request.keys_only {
            Items::Encoded(keys)
        } else {
            Items::Stored(locs)
        };
        Ok(Selected {
            items,
            more: count > limit,
            count,
            segments: held.list()?,
        })
    }

    fn select_sorted(
        &self,
        request: &RangeRequest,
        range: &KeyRange,
        revision: i64,
        mut held: Held,
        (order, read): (Order, Reader<'_>),
    ) -> Result<Selected, Error> {
        let mut count = 0;
        let mut found = Vec::new();
        self.walk(range, revision, |key, version| {
            count += 1;
            if accepts(request, version) {
                held.hold(&self.storage, version.loc.segment);
                found.push((
                    *version,
                    if request.keys_only {
                        without_value(key, version)
                    } else {
                        Bytes::new()
                    },
                ));
            }
            ControlFlow::Continue(())
        });
        let segments = held.list()?;
        order.sort(&mut found, &|locs| read(&segments, locs))?;
        let limit = if request.limit > 0 {
            request.limit as usize
        } else {
            usize::MAX
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let items = match request.keys_only {
            true => Items::Encoded(found.into_iter().map(|(_, key)| key).collect()),
            false => Items::Stored(found.iter().map(|(version, _)| version.loc).collect()),
        };
        Ok(Selected {
            items,
            more,
            count,
            segments,
        })
    }
}

/// How a range is ordered; keys ascending is how it is stored.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Stored,
    By(SortTarget, bool),
}

impl Order {
    fn of(request: &RangeRequest) -> Order {
        match (request.sort_target(), request.sort_order()) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => Order::Stored,
            (target, order) => Order::By(target, order == SortOrder::Descend),
        }
    }

    fn sort(self, found: &mut Vec<(Version, Bytes)>, read: Fetch<'_>) -> Result<(), Error> {
        match self {
            Order::Stored => {}
            Order::By(SortTarget::Key, _) => found.reverse(),
            Order::By(SortTarget::Value, descend) => sort_by_value(found, descend, read)?,
            Order::By(target, descend) => {
                found.sort_by(|left, right| directed(compare(target, &left.0, &right.0), descend))
            }
        }
        Ok(())
    }
}

fn sort_by_value(found: &mut Vec<(Version, Bytes)>, descend: bool, read: Fetch<'_>) -> Result<(), Error> {
    let locs: Vec<Loc> = found.iter().map(|(version, _)| version.loc).collect();
    let mut valued = Vec::with_capacity(found.len());
    for (kv, item) in read(&locs)?.into_iter().zip(found.drain(..)) {
        valued.push((value_of(kv)?, item));
    }
    valued.sort_by(|left, right| directed(left.0.cmp(&right.0), descend));
    found.extend(valued.into_iter().map(|(_, item)| item));
    Ok(())
}

/// The value of a stored KeyValue.
pub fn value_of(kv: Bytes) -> io::Result<Bytes> {
    KeyValue::decode(kv)
        .map(|kv| kv.value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn compare(target: SortTarget, left: &Version, right: &Version) -> Ordering {
    match target {
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.create.cmp(&right.create),
        _ => (left.main, left.sub).cmp(&(right.main, right.sub)),
    }
}

fn directed(order: Ordering, descend: bool) -> Ordering {
    if descend { order.reverse() } else { order }
}

fn filtered(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn accepts(request: &RangeRequest, version: &Version) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(version.main, request.min_mod_revision, request.max_mod_revision)
        && within(
            version.create,
            request.min_create_revision,
            request.max_create_revision,
        )
}

fn without_value(key: &[u8], version: &Version) -> Bytes {
    let kv = KeyValue {
        key: Bytes::copy_from_slice(key),
        create_revision: version.create,
        mod_revision: version.main,
        version: version.version,
        value: Bytes::new(),
        lease: version.lease,
    };
    kv.encode_to_vec().into()
}
