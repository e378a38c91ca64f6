//! Entries about keys, and what keeps any entry from writing.

use etcd_api::etcdserverpb::{AlarmType, CompactionRequest, DeleteRangeRequest, PutRequest, TxnRequest};

use super::{Answer, Applier, ApplyError};
use crate::metrics::Operations;
use crate::mvcc;
use crate::mvcc::response::Response;
use crate::mvcc::txn::WriteTxn;
use crate::{meta, quota};

impl Applier {
    pub(super) fn put(&mut self, request: &PutRequest) -> Result<Answer, ApplyError> {
        self.check_space()?;
        let response = self.write(|txn| {
            txn.check_put(request)?;
            txn.put(request)
        });
        response.map(Answer::Kv)
    }

    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<Answer, ApplyError> {
        match quota::takes_space(request) {
            true => self.check_space()?,
            false => self.check_intact()?,
        }
        self.write(|txn| txn.txn(request)).map(Answer::Kv)
    }

    pub(super) fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<Answer, ApplyError> {
        self.check_intact()?;
        self.write(|txn| Ok(txn.delete_range(request))).map(Answer::Kv)
    }

    pub(super) fn compaction(&mut self, request: &CompactionRequest) -> Result<Answer, ApplyError> {
        self.check_intact()?;
        let store = &self.state.store;
        if request.revision <= store.compacted() {
            return Err(mvcc::Error::Compacted.into());
        }
        if request.revision > self.revision {
            return Err(mvcc::Error::FutureRevision.into());
        }
        meta::put_compacted(&mut self.writer, request.revision);
        store.set_compacted(request.revision);
        self.compactions.push(request.revision);
        Ok(Answer::Kv(Response::Compaction))
    }

    /// Runs one transaction under the next revision. What cannot be read for its answer is missing there and nowhere else; who cannot read what it
    /// depends on cannot do what the other members do.
    pub(super) fn write<T>(
        &mut self,
        run: impl FnOnce(&mut WriteTxn<'_>) -> Result<T, mvcc::Error>,
    ) -> Result<T, ApplyError> {
        let mut lessor = self.state.lessor.lock();
        let segments = self.state.store.storage.segments();
        if self.watched && self.before.is_none() {
            self.before = Some(segments.clone());
        }
        let mut txn = WriteTxn {
            store: &self.state.store,
            writer: &mut self.writer,
            leases: &mut *lessor,
            segments,
            begin: self.revision,
            sub: 0,
            changes: self.watched.then_some(&mut self.changes),
            operations: Operations::default(),
            unanswerable: None,
        };
        let result = run(&mut txn);
        self.revision = txn.end();
        match (result, txn.unanswerable) {
            (Err(error @ mvcc::Error::Undecidable { .. }), _) => {
                self.effects.undecidable(self.frame.index, &error)
            }
            (Ok(_), Some(source)) => Err(mvcc::Error::Unanswerable(source).into()),
            (result, _) => Ok(result?),
        }
    }

    pub(super) fn check_space(&self) -> Result<(), ApplyError> {
        self.check_intact()?;
        match self.has_alarm(AlarmType::Nospace) {
            true => Err(ApplyError::NoSpace),
            false => Ok(()),
        }
    }

    /// Whoever is corrupt, nobody writes: what the members have would only differ more.
    pub(super) fn check_intact(&self) -> Result<(), ApplyError> {
        match self.has_alarm(AlarmType::Corrupt) {
            true => Err(ApplyError::Corrupt),
            false => Ok(()),
        }
    }

    fn has_alarm(&self, wanted: AlarmType) -> bool {
        let alarms = self.state.alarms.read();
        alarms.iter().any(|(_, kind)| *kind == wanted as i32)
    }
}
