//! Writing: one raft entry's operations under one revision.

use std::io;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use etcd_api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::compare::holds_all;
use super::key::KeyRange;
use super::range::{Items, Selected, value_of};
use super::response::Response;
use super::{Error, Store};
use crate::metrics::Operations;
use crate::storage::held::Held;
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
    /// Why the answer cannot be given. Members must do alike what they are told, so it keeps nothing from being written.
    pub unanswerable: Option<io::Error>,
}

/// Where conditions are looked up and ranges read: the transaction itself, or a revision that was published.
pub trait View {
    fn store(&self) -> &Store;
    /// What a range without a revision reads.
    fn revision(&self) -> i64;
    fn segments(&self) -> &Segments;
    fn operations(&self) -> &Operations;
    fn read(&self, segments: &Segments, locs: &[Loc]) -> io::Result<Vec<Bytes>>;

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

    fn read(&self, segments: &Segments, locs: &[Loc]) -> io::Result<Vec<Bytes>> {
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

    /// For the answer alone: nothing when it cannot be read.
    fn answer<T: Default>(&mut self, read: io::Result<T>) -> T {
        read.unwrap_or_else(|source| {
            self.unanswerable.get_or_insert(source);
            T::default()
        })
    }

    /// [`WriteTxn::check_put`] has passed.
    pub fn put(&mut self, request: &PutRequest) -> Result<Response, Error> {
        if request.prev_kv || request.ignore_value || request.ignore_lease {
            self.operations.range();
        }
        let prev = self.live(&request.key);
        let value = match prev {
            Some(prev) if request.ignore_value => self
                .writer
                .read(&self.segments, prev.loc)
                .and_then(value_of)
                .map_err(Error::undecidable(&request.key))?,
            _ => request.value.clone(),
        };
        let prev_kv = prev
            .filter(|_| request.prev_kv)
            .map(|prev| self.writer.read(&self.segments, prev.loc))
            .transpose();
        let prev_kv = self.answer(prev_kv);
        let lease = if request.ignore_lease {
            prev.map_or(0, |prev| prev.lease)
        } else {
            request.lease
        };
        self.write(&request.key, value, lease, prev);
        Ok(Response::Put { prev_kv })
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

    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Response {
        self.operations.delete();
        if request.prev_kv {
            self.operations.range();
        }
        let range = KeyRange::new(&request.key, &request.range_end);
        let mut held = Held::since(self.segments.clone());
        let mut found = Vec::new();
        self.store.walk(&range, i64::MAX, |key, version| {
            held.hold(&self.store.storage, version.loc.segment);
            found.push((Bytes::copy_from_slice(key), *version));
            ControlFlow::Continue(())
        });
        let prev_kvs = match request.prev_kv {
            true => {
                let locs: Vec<Loc> = found.iter().map(|(_, version)| version.loc).collect();
                let read = held.list().and_then(|segments| self.read(&segments, &locs));
                self.answer(read)
            }
            false => Vec::new(),
        };
        found.iter().for_each(|(key, prev)| self.delete(key, *prev));
        Response::DeleteRange {
            deleted: found.len() as i64,
            prev_kvs,
        }
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

    /// A range within a write, of which nothing but the answer needs values.
    fn range_within(&mut self, request: &RangeRequest) -> Result<Response, Error> {
        match self.range(request) {
            Err(Error::Io(source)) => Ok(Response::Range {
                kvs: self.answer(Err(source)),
                more: false,
                count: 0,
            }),
            response => response,
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
                Step::Range(request) => self.range_within(request)?,
                Step::Put(request) => self.put(request)?,
                Step::DeleteRange(request) => self.delete_range(request),
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

    fn read(&self, segments: &Segments, locs: &[Loc]) -> io::Result<Vec<Bytes>> {
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
