//! The conditions of a transaction, and what is read to judge them.

use std::cmp::Ordering;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    Compare, PutRequest, TxnRequest, compare::CompareResult, compare::CompareTarget, compare::TargetUnion,
    request_op::Request,
};

use super::Error;
use super::key::KeyRange;
use super::range::value_of;
use super::txn::{ReadTxn, View};
use crate::storage::held::Held;
use crate::storage::record::{Loc, Version};

pub fn holds_all(view: &dyn View, compares: &[Compare]) -> Result<bool, Error> {
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
    let values = values(view, range).map_err(Error::undecidable(&compare.key))?;
    let holds = |value: &Bytes| satisfied(compare.result(), value[..].cmp(wanted));
    Ok(!values.is_empty() && values.iter().all(holds))
}

fn values(view: &dyn View, range: &KeyRange) -> io::Result<Vec<Bytes>> {
    let mut held = Held::since(view.segments().clone());
    let mut locs = Vec::new();
    view.store().walk(range, view.revision(), |_, version| {
        held.hold(&view.store().storage, version.loc.segment);
        locs.push(version.loc);
        ControlFlow::Continue(())
    });
    let kvs = view.read(&held.list()?, &locs)?;
    kvs.into_iter().map(value_of).collect()
}

fn satisfied(wanted: CompareResult, order: Ordering) -> bool {
    match wanted {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

/// Whether a value decides what the request will write.
pub fn depends_on_values(request: &TxnRequest) -> bool {
    let mut compares = request.compare.iter();
    let mut ops = request.success.iter().chain(&request.failure);
    compares.any(|compare| compare.target() == CompareTarget::Value)
        || ops.any(|op| match &op.request {
            Some(Request::RequestPut(put)) => put.ignore_value,
            Some(Request::RequestTxn(nested)) => depends_on_values(nested),
            _ => false,
        })
}

impl ReadTxn<'_> {
    /// Reads whatever decides what the request will write. Once the log has it, a member that cannot read that has to end.
    pub fn foresee(&self, request: &TxnRequest) -> Result<(), Error> {
        for compare in &request.compare {
            if compare.target() == CompareTarget::Value {
                self.foresee_values(&compare.key, &compare.range_end)?;
            }
        }
        let mut ops = request.success.iter().chain(&request.failure);
        ops.try_for_each(|op| match &op.request {
            Some(Request::RequestPut(put)) => self.foresee_put(put),
            Some(Request::RequestTxn(nested)) => self.foresee(nested),
            _ => Ok(()),
        })
    }

    pub fn foresee_put(&self, request: &PutRequest) -> Result<(), Error> {
        match request.ignore_value {
            true => self.foresee_values(&request.key, &Bytes::new()),
            false => Ok(()),
        }
    }

    fn foresee_values(&self, key: &Bytes, range_end: &Bytes) -> Result<(), Error> {
        let read = values(self, &KeyRange::new(key, range_end));
        read.map(drop).map_err(Error::undecidable(key))
    }
}
