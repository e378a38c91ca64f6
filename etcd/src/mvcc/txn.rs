//! Writing: one raft entry's operations under one revision.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use etcd_api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare::CompareResult,
    compare::CompareTarget, compare::TargetUnion, request_op::Request,
};
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::key::KeyRange;
use super::range::{Items, Selected, value_of};
use super::response::Response;
use super::{Error, Store};
use crate::metrics::Operations;
use crate::storage::record::{Loc, Version};
use crate::storage::{Segments, Writer};

/// What a write needs of the lessor.
pub trait Leases {
    fn exists(&self, lease: i64) -> bool;
    fn attach(&mut self, lease: i64, key: &Bytes);
    fn detach(&mut self, lease: i64, key: &[u8]);
}

/// A change for watchers: the new version and the one before it.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub version: Version,
    pub prev: Option<Version>,
}

pub struct WriteTxn<'a> {
    pub store: &'a Store,
    pub writer: &'a mut Writer,
    pub leases: &'a mut dyn Leases,
    pub segments: Segments,
    /// The revision before this transaction; later than the published one while a batch is being applied.
    pub begin: i64,
    pub sub: u32,
    /// Where changes go when somebody watches.
    pub changes: Option<&'a mut Vec<Change>>,
    pub operations: Operations,
}

/// Where conditions are looked up and ranges read: the transaction itself, or a revision that was published.
pub trait View {
    fn store(&self) -> &Store;
    /// What a range without a revision reads.
    fn revision(&self) -> i64;
    fn segments(&self) -> &Segments;
    fn operations(&self) -> &Operations;
    fn read(&self, segments: &Segments, locs: &[Loc]) -> std::io::Result<Vec<Bytes>>;

    fn range(&self, request: &RangeRequest) -> Result<Response, Error> {
        self.operations().range();
        let revision = self.store().revision(request.revision, self.revision())?;
        let Selected {
            items,
            more,
            count,
            segments,
        } = self
            .store()
            .select(request, revision, self.segments(), &|segments, locs| {
                self.read(segments, locs)
            })?;
        let kvs = match items {
            Items::Stored(locs) => self.read(&segments, &locs)?,
            Items::Encoded(kvs) => kvs,
        };
        Ok(Response::Range { kvs, more, count })
    }
}

impl View for WriteTxn<'_> {
    fn store(&self) -> &Store {
        self.store
    }

    fn revision(&self) -> i64 {
        self.end()
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn operations(&self) -> &Operations {
        &self.operations
    }

    fn read(&self, segments: &Segments, locs: &[Loc]) -> std::io::Result<Vec<Bytes>> {
        locs.iter().map(|loc| self.writer.read(segments, *loc)).collect()
    }
}

impl WriteTxn<'_> {
    /// The revision after what was done so far.
    pub fn end(&self) -> i64 {
        self.begin + i64::from(self.sub > 0)
    }

    fn take_sub(&mut self) -> u32 {
        self.sub += 1;
        self.sub - 1
    }

    pub fn check_put(&self, request: &PutRequest) -> Result<(), Error> {
        if request.lease != 0 && !self.leases.exists(request.lease) {
            return Err(Error::LeaseNotFound);
        }
        if request.ignore_value || request.ignore_lease {
            self.operations.range();
            if self.live(&request.key).is_none() {
                return Err(Error::KeyNotFound);
            }
        }
        Ok(())
    }

    fn live(&self, key: &[u8]) -> Option<Version> {
        self.store
            .index
            .read()
            .newest(key)
            .filter(|version| !version.is_tombstone())
    }

    /// [`WriteTxn::check_put`] has passed.
    pub fn put(&mut self, request: &PutRequest) -> Result<Response, Error> {
        if request.prev_kv || request.ignore_value || request.ignore_lease {
            self.operations.range();
        }
        let prev = self.live(&request.key);
        let prev_bytes = match prev {
            Some(prev) if request.prev_kv || request.ignore_value => {
                Some(self.writer.read(&self.segments, prev.loc)?)
            }
            _ => None,
        };
        let value = match &prev_bytes {
            Some(bytes) if request.ignore_value => value_of(bytes.clone())?,
            _ => request.value.clone(),
        };
        let lease = if request.ignore_lease {
            prev.map_or(0, |prev| prev.lease)
        } else {
            request.lease
        };
        self.write(&request.key, value, lease, prev);
        Ok(Response::Put {
            prev_kv: prev_bytes.filter(|_| request.prev_kv),
        })
    }

    fn write(&mut self, key: &Bytes, value: Bytes, lease: i64, prev: Option<Version>) {
        self.operations.put(key.len() + value.len());
        let main = self.begin + 1;
        let (create, version) = prev.map_or((main, 1), |prev| (prev.create, prev.version + 1));
        let sub = self.take_sub();
        let kv = KeyValue {
            key: key.clone(),
            create_revision: create,
            mod_revision: main,
            version,
            value,
            lease,
        };
        let version = Version {
            main,
            create,
            version,
            lease,
            sub,
            loc: Loc::default(),
        };
        let version = self.append(version, |out| {
            out.reserve(kv.encoded_len());
            kv.encode_raw(out);
        });
        self.enter(key, version, prev);
    }

    fn append(&mut self, version: Version, write: impl FnOnce(&mut BytesMut)) -> Version {
        self.writer.put(version, write)
    }

    fn enter(&mut self, key: &Bytes, version: Version, prev: Option<Version>) {
        self.store.index.write().insert(key, version);
        let before = prev.map_or(0, |prev| prev.lease);
        if before != version.lease {
            if before != 0 {
                self.leases.detach(before, key);
            }
            if version.lease != 0 {
                self.leases.attach(version.lease, key);
            }
        }
        if let Some(changes) = &mut self.changes {
            changes.push(Change { version, prev });
        }
    }

    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<Response, Error> {
        self.operations.delete();
        if request.prev_kv {
            self.operations.range();
        }
        let range = KeyRange::new(&request.key, &request.range_end);
        let mut found = Vec::new();
        self.store.walk(&range, i64::MAX, |key, version| {
            found.push((Bytes::copy_from_slice(key), *version));
            ControlFlow::Continue(())
        });
        let prev_kvs = match request.prev_kv {
            true => self.read(
                &self.segments,
                &found.iter().map(|(_, version)| version.loc).collect::<Vec<_>>(),
            )?,
            false => Vec::new(),
        };
        found.iter().for_each(|(key, prev)| self.delete(key, *prev));
        Ok(Response::DeleteRange {
            deleted: found.len() as i64,
            prev_kvs,
        })
    }

    fn delete(&mut self, key: &Bytes, prev: Version) {
        let tombstone = Version {
            main: self.begin + 1,
            create: 0,
            version: 0,
            lease: 0,
            sub: self.take_sub(),
            loc: Loc::default(),
        };
        let kv = KeyValue {
            key: key.clone(),
            ..KeyValue::default()
        };
        let tombstone = self.append(tombstone, |out| {
            out.reserve(kv.encoded_len());
            kv.encode_raw(out);
        });
        self.enter(key, tombstone, Some(prev));
    }

    pub fn delete_keys(&mut self, keys: &[Bytes]) {
        for key in keys {
            self.operations.delete();
            if let Some(prev) = self.live(key) {
                self.delete(key, prev);
            }
        }
    }

    /// Conditions, then checks, then operations: when anything is refused, nothing was changed.
    pub fn txn(&mut self, request: &TxnRequest) -> Result<Response, Error> {
        let path = Path::choose(self, request)?;
        // etcd's conditions are a transaction before this one.
        self.operations.settle();
        self.check(&path)?;
        self.execute(&path)
    }

    fn check(&self, path: &Path<'_>) -> Result<(), Error> {
        path.steps.iter().try_for_each(|step| match step {
            Step::Range(request) => self.store.revision(request.revision, self.begin).map(|_| ()),
            Step::Put(request) => self.check_put(request),
            Step::DeleteRange(_) => Ok(()),
            Step::Txn(nested) => self.check(nested),
        })
    }

    fn execute(&mut self, path: &Path<'_>) -> Result<Response, Error> {
        let mut responses = Vec::with_capacity(path.steps.len());
        for step in &path.steps {
            let response = match step {
                Step::Range(request) => self.range(request)?,
                Step::Put(request) => self.put(request)?,
                Step::DeleteRange(request) => self.delete_range(request)?,
                Step::Txn(nested) => self.execute(nested)?,
            };
            responses.push((self.end(), response));
        }
        Ok(Response::Txn {
            succeeded: path.succeeded,
            responses,
        })
    }
}

/// The operations that the conditions chose, before any of them was done.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    DeleteRange(&'a DeleteRangeRequest),
    Txn(Path<'a>),
}

impl<'a> Path<'a> {
    fn choose(view: &dyn View, request: &'a TxnRequest) -> Result<Path<'a>, Error> {
        let succeeded = holds_all(view, &request.compare)?;
        let ops = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let steps = ops
            .iter()
            .map(|op| Path::step(view, op))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Path {
            succeeded,
            steps: steps.into_iter().flatten().collect(),
        })
    }

    fn step(view: &dyn View, op: &'a RequestOp) -> Result<Option<Step<'a>>, Error> {
        Ok(match &op.request {
            Some(Request::RequestRange(request)) => Some(Step::Range(request)),
            Some(Request::RequestPut(request)) => Some(Step::Put(request)),
            Some(Request::RequestDeleteRange(request)) => Some(Step::DeleteRange(request)),
            Some(Request::RequestTxn(request)) => Some(Step::Txn(Path::choose(view, request)?)),
            None => None,
        })
    }
}

/// A transaction that only reads, at one published revision.
pub struct ReadTxn<'a> {
    pub store: &'a Store,
    segments: Segments,
    pub revision: i64,
    operations: Operations,
}

impl View for ReadTxn<'_> {
    fn store(&self) -> &Store {
        self.store
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn operations(&self) -> &Operations {
        &self.operations
    }

    fn read(&self, segments: &Segments, locs: &[Loc]) -> std::io::Result<Vec<Bytes>> {
        self.store.storage.read_many(segments, locs)
    }
}

impl<'a> ReadTxn<'a> {
    /// At the revision that is published now.
    pub fn new(store: &'a Store) -> Self {
        ReadTxn {
            store,
            // Before the revision is read: what it shows lies in these.
            segments: store.storage.segments(),
            revision: store.current(),
            operations: Operations::default(),
        }
    }

    pub fn txn(&self, request: &TxnRequest) -> Result<Response, Error> {
        let path = Path::choose(self, request)?;
        let response = self.execute(&path)?;
        self.store.still_there(self.revision)?;
        Ok(response)
    }

    fn execute(&self, path: &Path<'_>) -> Result<Response, Error> {
        let mut responses = Vec::with_capacity(path.steps.len());
        for step in &path.steps {
            match step {
                Step::Range(request) => responses.push((self.revision, self.range(request)?)),
                Step::Txn(nested) => responses.push((self.revision, self.execute(nested)?)),
                // Not in a transaction that only reads.
                Step::Put(_) | Step::DeleteRange(_) => {}
            }
        }
        Ok(Response::Txn {
            succeeded: path.succeeded,
            responses,
        })
    }
}

fn holds_all(view: &dyn View, compares: &[Compare]) -> Result<bool, Error> {
    for compare in compares {
        if !holds(view, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A condition on an absent key compares with zeros, but for values, which an absent key never matches.
fn holds(view: &dyn View, compare: &Compare) -> Result<bool, Error> {
    view.operations().range();
    let range = KeyRange::new(&compare.key, &compare.range_end);
    if compare.target() == CompareTarget::Value {
        return values_hold(view, compare, &range);
    }
    let (mut any, mut all) = (false, true);
    view.store().walk(&range, view.revision(), |_, version| {
        any = true;
        all &= numbers_hold(compare, version);
        if all {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    Ok(if any { all } else { numbers_hold(compare, &ABSENT) })
}

const ABSENT: Version = Version {
    main: 0,
    create: 0,
    version: 0,
    lease: 0,
    sub: 0,
    loc: Loc {
        segment: 0,
        offset: 0,
        length: 0,
    },
};

fn numbers_hold(compare: &Compare, found: &Version) -> bool {
    let (actual, wanted) = match (compare.target(), &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(wanted))) => (found.version, *wanted),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => (found.create, *wanted),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => (found.main, *wanted),
        (CompareTarget::Lease, Some(TargetUnion::Lease(wanted))) => (found.lease, *wanted),
        (CompareTarget::Version, _) => (found.version, 0),
        (CompareTarget::Create, _) => (found.create, 0),
        (CompareTarget::Mod, _) => (found.main, 0),
        _ => (found.lease, 0),
    };
    satisfied(compare.result(), actual.cmp(&wanted))
}

fn values_hold(view: &dyn View, compare: &Compare, range: &KeyRange) -> Result<bool, Error> {
    let wanted = match &compare.target_union {
        Some(TargetUnion::Value(value)) => &value[..],
        _ => &[],
    };
    let mut locs = Vec::new();
    view.store().walk(range, view.revision(), |_, version| {
        locs.push(version.loc);
        ControlFlow::Continue(())
    });
    for kv in view.read(view.segments(), &locs)? {
        if !satisfied(compare.result(), value_of(kv)?[..].cmp(wanted)) {
            return Ok(false);
        }
    }
    Ok(!locs.is_empty())
}

fn satisfied(wanted: CompareResult, order: Ordering) -> bool {
    match wanted {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}
