use etcd_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest, compare, request_op::Request};
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::response::Response;
use super::txn::{ReadTxn, View as _};
use super::*;
use crate::storage::tests::Fixture;

/// a: 2, 6; b: 3; c: 4; d: 5, with values in the opposite order.
fn store() -> Store {
    let mut fixture = Fixture::new();
    for (main, version, key, value) in [
        (2, 1, "a", "w"),
        (3, 1, "b", "z"),
        (4, 1, "c", "y"),
        (5, 1, "d", "x"),
        (6, 2, "a", "zz"),
    ] {
        fixture.put(main, version, key, value.as_bytes());
    }
    Store::open(
        fixture.storage.clone(),
        std::mem::take(&mut fixture.versions),
        6,
        0,
    )
}

fn read(store: &Store, request: RangeRequest) -> Result<(Vec<String>, bool, i64), Error> {
    let view = ReadTxn {
        store,
        segments: store.storage.segments(),
        revision: store.current(),
    };
    let Response::Range { kvs, more, count } = view.range(&request)? else {
        panic!("a range")
    };
    let text = |kv: &Bytes| {
        let kv = KeyValue::decode(kv.clone()).unwrap();
        format!(
            "{}={}",
            String::from_utf8_lossy(&kv.key),
            String::from_utf8_lossy(&kv.value)
        )
    };
    Ok((kvs.iter().map(text).collect(), more, count))
}

fn all() -> RangeRequest {
    RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        ..Default::default()
    }
}

#[test]
fn a_range_has_all_of_etcds_options() {
    let store = store();
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..all()
    };
    for (request, expected, more, count) in [
        (all(), "a=zz b=z c=y d=x", false, 4),
        (RangeRequest { revision: 3, ..all() }, "a=w b=z", false, 2),
        (RangeRequest { limit: 2, ..all() }, "a=zz b=z", true, 4),
        (
            RangeRequest {
                keys_only: true,
                limit: 1,
                ..all()
            },
            "a=",
            true,
            4,
        ),
        (
            RangeRequest {
                count_only: true,
                ..all()
            },
            "",
            false,
            4,
        ),
        (
            RangeRequest {
                range_end: "\0".into(),
                key: "c".into(),
                ..Default::default()
            },
            "c=y d=x",
            false,
            2,
        ),
        (
            RangeRequest {
                range_end: Bytes::new(),
                ..all()
            },
            "a=zz",
            false,
            1,
        ),
        (
            sorted(SortTarget::Key, SortOrder::Descend),
            "d=x c=y b=z a=zz",
            false,
            4,
        ),
        (
            sorted(SortTarget::Value, SortOrder::Ascend),
            "d=x c=y b=z a=zz",
            false,
            4,
        ),
        (
            sorted(SortTarget::Mod, SortOrder::None),
            "b=z c=y d=x a=zz",
            false,
            4,
        ),
        (
            RangeRequest {
                limit: 1,
                ..sorted(SortTarget::Version, SortOrder::Descend)
            },
            "a=zz",
            true,
            4,
        ),
        (
            RangeRequest {
                min_mod_revision: 4,
                max_mod_revision: 5,
                ..all()
            },
            "c=y d=x",
            false,
            4,
        ),
        (
            RangeRequest {
                max_create_revision: 3,
                ..all()
            },
            "b=z",
            false,
            4,
        ),
    ] {
        let found = read(&store, request.clone()).unwrap();
        assert_eq!(
            (found.0.join(" "), found.1, found.2),
            (expected.to_owned(), more, count),
            "{request:?}"
        );
    }
}

#[test]
fn revisions_outside_history_are_refused() {
    let store = store();
    assert!(matches!(
        read(&store, RangeRequest { revision: 7, ..all() }),
        Err(Error::FutureRevision)
    ));
    store.set_compacted(4);
    store.compact_index(4);
    assert!(matches!(
        read(&store, RangeRequest { revision: 3, ..all() }),
        Err(Error::Compacted)
    ));
    assert_eq!(
        read(&store, RangeRequest { revision: 4, ..all() })
            .unwrap()
            .0
            .join(" "),
        "a=w b=z c=y"
    );
}

#[test]
fn conditions_hold_as_etcd_says() {
    use compare::{CompareResult::*, CompareTarget as Target, TargetUnion};
    let store = store();
    let view = ReadTxn {
        store: &store,
        segments: store.storage.segments(),
        revision: store.current(),
    };
    let on = |key: &'static str,
              end: &'static str,
              target: Target,
              result: compare::CompareResult,
              union: TargetUnion| Compare {
        key: key.into(),
        range_end: end.into(),
        target: target as i32,
        result: result as i32,
        target_union: Some(union),
    };
    for (compare, expected) in [
        (on("a", "", Target::Version, Equal, TargetUnion::Version(2)), true),
        (
            on("a", "", Target::Create, Less, TargetUnion::CreateRevision(3)),
            false,
        ),
        (
            on("a", "", Target::Mod, Greater, TargetUnion::ModRevision(5)),
            true,
        ),
        (
            on("a", "", Target::Value, NotEqual, TargetUnion::Value("w".into())),
            true,
        ),
        (
            on("none", "", Target::Mod, Equal, TargetUnion::ModRevision(0)),
            true,
        ),
        (
            on(
                "none",
                "",
                Target::Value,
                NotEqual,
                TargetUnion::Value("w".into()),
            ),
            false,
        ),
        (
            on("b", "e", Target::Version, Equal, TargetUnion::Version(1)),
            true,
        ),
        (
            on("a", "e", Target::Version, Equal, TargetUnion::Version(1)),
            false,
        ),
        (on("x", "z", Target::Lease, Equal, TargetUnion::Lease(0)), true),
    ] {
        let get = RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: "a".into(),
                ..Default::default()
            })),
        };
        let txn = TxnRequest {
            compare: vec![compare.clone()],
            success: vec![get],
            failure: Vec::new(),
        };
        let Response::Txn { succeeded, responses } = view.txn(&txn).unwrap() else {
            panic!("a txn")
        };
        assert_eq!(
            (succeeded, responses.len()),
            (expected, usize::from(expected)),
            "{compare:?}"
        );
    }
}
