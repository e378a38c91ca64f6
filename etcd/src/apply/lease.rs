//! Entries about leases.

use etcd_api::etcdserverpb::{LeaseCheckpointRequest, LeaseGrantRequest};

use super::{Answer, Applier, ApplyError};
use crate::meta;

impl Applier {
    pub(super) fn lease_grant(&mut self, request: &LeaseGrantRequest) -> Result<Answer, ApplyError> {
        self.check_space()?;
        let ttl_seconds = self
            .state
            .lessor
            .lock()
            .grant(request.id, request.ttl, self.clock.now())?;
        meta::put_lease(&mut self.writer, request.id, ttl_seconds, 0);
        self.effects.leases_changed();
        Ok(Answer::LeaseGrant {
            id: request.id,
            ttl_seconds,
        })
    }

    /// The keys go first, then the lease: it detaches nothing that it does not find.
    pub(super) fn lease_revoke(&mut self, id: i64) -> Result<Answer, ApplyError> {
        self.check_intact()?;
        let keys = self.state.lessor.lock().keys_of(id)?;
        self.write(|txn| {
            txn.delete_keys(&keys);
            Ok(())
        })?;
        self.state.lessor.lock().revoke(id)?;
        meta::delete_lease(&mut self.writer, id);
        Ok(Answer::Done)
    }

    pub(super) fn lease_checkpoint(&mut self, request: &LeaseCheckpointRequest) {
        let mut lessor = self.state.lessor.lock();
        for checkpoint in &request.checkpoints {
            let known = lessor.checkpoint(checkpoint.id, checkpoint.remaining_ttl);
            if let Some(ttl_seconds) = known
                && self.rules.persist_checkpoints
            {
                meta::put_lease(
                    &mut self.writer,
                    checkpoint.id,
                    ttl_seconds,
                    checkpoint.remaining_ttl,
                );
            }
        }
    }
}
