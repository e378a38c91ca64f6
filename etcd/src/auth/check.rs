//! Permission for whole requests: every range in them, however deep, and every key that comes along with a lease.

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};

use super::range_perm_cache::Kind;
use super::rules::Rules;
use super::{AuthError, AuthInfo};
use crate::mvcc::key::KeyRange;

type Checked = Result<(), AuthError>;

/// Asks the rules on behalf of one user.
pub struct Check<'a> {
    pub rules: &'a Rules,
    pub who: &'a AuthInfo,
    /// The keys attached to a lease; none if there is no such lease.
    pub keys_of: &'a dyn Fn(i64) -> Vec<Bytes>,
}

impl Check<'_> {
    pub fn admin(&self) -> Checked {
        self.rules.permits_admin(self.who)
    }

    pub fn read(&self, range: &KeyRange) -> Checked {
        self.rules.permits(self.who, range, Kind::Read)
    }

    pub fn write(&self, range: &KeyRange) -> Checked {
        self.rules.permits(self.who, range, Kind::Write)
    }

    pub fn range(&self, request: &RangeRequest) -> Checked {
        self.read(&KeyRange::new(&request.key, &request.range_end))
    }

    /// A lease brings the keys that are attached to it already: they will go when it does.
    pub fn put(&self, request: &PutRequest) -> Checked {
        let key = KeyRange::Single(request.key.clone());
        self.write(&key)?;
        if request.lease != 0 {
            self.lease_write(request.lease)?;
        }
        match request.prev_kv {
            true => self.read(&key),
            false => Ok(()),
        }
    }

    pub fn delete_range(&self, request: &DeleteRangeRequest) -> Checked {
        let range = KeyRange::new(&request.key, &request.range_end);
        self.write(&range)?;
        match request.prev_kv {
            true => self.read(&range),
            false => Ok(()),
        }
    }

    /// Both paths, whichever will be taken: an answer about a condition says something about its key.
    pub fn txn(&self, request: &TxnRequest) -> Checked {
        for compare in &request.compare {
            self.read(&KeyRange::new(&compare.key, &compare.range_end))?;
        }
        let mut ops = request.success.iter().chain(&request.failure);
        ops.try_for_each(|op| self.operation(op))
    }

    fn operation(&self, op: &RequestOp) -> Checked {
        match &op.request {
            Some(Request::RequestRange(request)) => self.range(request),
            Some(Request::RequestPut(request)) => self.put(request),
            Some(Request::RequestDeleteRange(request)) => self.delete_range(request),
            Some(Request::RequestTxn(request)) => self.txn(request),
            None => Ok(()),
        }
    }

    /// Whether every key of the lease may be written: ending or renewing it is writing them.
    pub fn lease_write(&self, lease: i64) -> Checked {
        self.each_key(lease, Kind::Write)
    }

    pub fn lease_read(&self, lease: i64) -> Checked {
        self.each_key(lease, Kind::Read)
    }

    fn each_key(&self, lease: i64, kind: Kind) -> Checked {
        if self.admin().is_ok() {
            return Ok(());
        }
        let keys = (self.keys_of)(lease);
        keys.into_iter()
            .try_for_each(|key| self.rules.permits(self.who, &KeyRange::Single(key), kind))
    }

    /// An entry, just before it takes effect.
    pub fn entry(&self, request: &InternalRaftRequest) -> Checked {
        if let Some(put) = &request.put {
            return self.put(put);
        }
        if let Some(txn) = &request.txn {
            return self.txn(txn);
        }
        if let Some(delete) = &request.delete_range {
            return self.delete_range(delete);
        }
        if let Some(range) = &request.range {
            return self.range(range);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.lease_write(revoke.id);
        }
        if let Some(get) = &request.auth_user_get
            && get.name == self.who.username
        {
            return Ok(());
        }
        if let Some(get) = &request.auth_role_get
            && self.rules.holds_role(&self.who.username, &get.role)
        {
            return Ok(());
        }
        match changes_auth(request) {
            true => self.admin(),
            false => Ok(()),
        }
    }
}

/// What only root may do, or see.
fn changes_auth(request: &InternalRaftRequest) -> bool {
    request.auth_enable.is_some()
        || request.auth_disable.is_some()
        || request.auth_status.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_get.is_some()
        || request.auth_user_change_password.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_user_list.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_role_get.is_some()
        || request.auth_role_list.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some()
}
