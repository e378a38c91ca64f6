use etcd_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest, compare, request_op::Request};
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::range::Items;
use super::response::Response;
use super::txn::{ReadTxn, View as _};
use super::*;
use crate::storage::keeper::Keeper;
use crate::storage::load::Loaded;
use crate::storage::record::Loc;
use crate::storage::tests::{Fixture, load};
use crate::storage::{Segments, Writer};

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
        std::mem::take(&mut fixture.versions).into_iter().collect(),
        6,
        0,
    )
}

fn read(store: &Store, request: RangeRequest) -> Result<(Vec<String>, bool, i64), Error> {
    let view = ReadTxn::new(store);
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
    let view = ReadTxn::new(&store);
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

/// Every key twice in a row, then all of them again; the compactions that drop the older ones, and a keeper that gives their space back.
struct Reclaimed {
    store: Arc<Store>,
    keeper: Keeper,
}

const KEYS: i64 = 40;

impl Reclaimed {
    fn new() -> Reclaimed {
        let mut fixture = Fixture::new();
        let mut revision = 1;
        let writes = (0..KEYS).flat_map(|key| [(key, 1), (key, 2)]);
        for (key, version) in writes.chain((0..KEYS).map(|key| (key, 3))) {
            revision += 1;
            fixture.put(revision, version, &format!("k{key:02}"), &[version as u8; 4000]);
            fixture.writer.roll_if_full().unwrap();
        }
        fixture.keep();
        let Loaded {
            storage,
            versions,
            meta,
            frame,
            durable,
            active,
        } = load(&fixture.disk).unwrap();
        let store = Arc::new(Store::open(storage.clone(), versions, revision, 0));
        let writer = Writer::new(storage.clone(), active, meta, frame).unwrap();
        let mut keeper = Keeper::new(storage, 1, writer.written(), store.clone(), durable);
        keeper.checkpoint().unwrap();
        Reclaimed { store, keeper }
    }

    fn compact(&mut self, revision: i64) {
        self.store.set_compacted(revision);
        self.store.compact_index(revision);
        assert!(self.keeper.reclaim().unwrap() > 0, "nothing was given back");
    }
}

#[test]
fn a_slow_reader_finds_what_was_moved_while_it_selected_and_dropped_while_it_read() {
    let mut reclaimed = Reclaimed::new();
    let store = reclaimed.store.clone();
    let request = RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..Default::default()
    };
    let second = 1 + 2 * KEYS;
    let before = store.storage.segments();
    // The reader has listed the segments, and has not yet looked at the index.
    reclaimed.compact(second);
    let read = |segments: &Segments, locs: &[Loc]| store.storage.read_many(segments, locs);
    let selected = store.select(&request, second, &before, &read).unwrap();
    reclaimed.compact(second + KEYS);
    let Items::Stored(locs) = &selected.items else {
        panic!("places")
    };
    let kvs = read(&selected.segments, locs).unwrap();
    assert_eq!(kvs.len() as i64, KEYS);
    assert!(
        kvs.iter()
            .all(|kv| KeyValue::decode(kv.clone()).unwrap().value[0] == 2)
    );
    assert!(read(&before, locs).is_err(), "the test met no move");
}

#[test]
fn what_a_compaction_finds_is_hashed_while_its_space_comes_back() {
    let mut reclaimed = Reclaimed::new();
    let store = reclaimed.store.clone();
    let second = 1 + 2 * KEYS;
    let expected = store.hash_kv(second).unwrap();
    reclaimed.compact(second);
    assert!(store.hashes.newest().is_empty(), "nobody wants it");
    assert_ne!(
        store.hash_kv(second).unwrap(),
        expected,
        "the compacted revision is another"
    );
    store.hashes.want(true);
    let after = store.hash_kv(second + KEYS).unwrap();
    reclaimed.compact(second + KEYS);
    store.compute_planned().unwrap();
    // As it was before the compaction, and with the one before it.
    assert_eq!(store.hashes.newest(), [after]);
    assert_eq!(after.compacted, second);
    assert_eq!(store.hash_kv(second + KEYS).unwrap(), after);
    assert_eq!(store.hash_kv(0).unwrap().compacted, second + KEYS);
    store.hashes.forget();
    assert_ne!(store.hash_kv(second + KEYS).unwrap(), after);
}
