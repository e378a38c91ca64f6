//! A value that cannot be read any more: what needs it, and what does not.

use etcd_api::etcdserverpb::{
    Compare, compare::CompareResult, compare::CompareTarget, compare::TargetUnion, request_op,
};

use super::*;

/// `a` cannot be read, `b` can; a restart takes both from a sealed segment, of which it reads the footer alone.
fn damaged() -> (Machine, FakeDisk) {
    let disk = FakeDisk::default();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    for key in ["a", "b"] {
        done(&mut machine, put(key, "old")).unwrap();
    }
    while machine.store().storage.segments().len() < 2 {
        large(&mut machine, "filler");
    }
    // The first frame of the next segment: now the one before it can be sealed.
    large(&mut machine, "filler");
    machine.keep().unwrap();
    damage(&machine, &disk, "a");
    (machine, disk)
}

fn damage(machine: &Machine, disk: &FakeDisk, key: &str) {
    let store = machine.store();
    let loc = store.get(key.as_bytes(), i64::MAX).unwrap().loc;
    let segment = store.storage.find(&Default::default(), loc.segment).unwrap();
    disk.flip(&segment.path, (loc.offset + loc.length) as usize - 1);
}

fn large(machine: &mut Machine, key: &'static str) -> i64 {
    let put = PutRequest {
        key: key.into(),
        value: vec![7; 3000].into(),
        ..Default::default()
    };
    let request = InternalRaftRequest {
        put: Some(put),
        ..Default::default()
    };
    machine.propose(request).unwrap().revision
}

fn done(machine: &mut Machine, request: InternalRaftRequest) -> Result<Answer, ApplyError> {
    machine.propose(request).unwrap().result
}

fn put_request(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn put(key: &'static str, value: &'static str) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(put_request(key, value)),
        ..Default::default()
    }
}

fn txn(compare: Vec<Compare>, ops: Vec<request_op::Request>) -> InternalRaftRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let txn = TxnRequest {
        compare,
        success: ops.into_iter().map(op).collect(),
        failure: Vec::new(),
    };
    InternalRaftRequest {
        txn: Some(txn),
        ..Default::default()
    }
}

fn value_is(key: &'static str, value: &'static str) -> Compare {
    Compare {
        key: key.into(),
        result: CompareResult::Equal as i32,
        target: CompareTarget::Value as i32,
        target_union: Some(TargetUnion::Value(value.into())),
        range_end: Bytes::new(),
    }
}

/// Why the process would have ended.
fn last_words(machine: &mut Machine, request: InternalRaftRequest) -> String {
    let apply = || {
        let mut entry = Entry {
            index: machine.applier.frame.index + 1,
            term: machine.applier.frame.term,
            ..Default::default()
        };
        entry.data = request.encode_to_vec().into();
        machine.applier.apply(vec![entry]);
    };
    let ended = catch_unwind(AssertUnwindSafe(apply)).expect_err("it was applied");
    *ended.downcast::<String>().unwrap()
}

#[test]
fn what_only_the_answer_lacks_keeps_nothing_from_being_written() {
    let with_prev = |key| PutRequest {
        prev_kv: true,
        ..put_request(key, "new")
    };
    let range = |key: &'static str| RangeRequest {
        key: key.into(),
        ..Default::default()
    };
    let delete = DeleteRangeRequest {
        key: "a".into(),
        range_end: "c".into(),
        prev_kv: true,
    };
    for request in [
        InternalRaftRequest {
            put: Some(with_prev("a")),
            ..Default::default()
        },
        InternalRaftRequest {
            delete_range: Some(delete.clone()),
            ..Default::default()
        },
        txn(
            vec![],
            vec![
                Request::RequestRange(range("a")),
                Request::RequestPut(put_request("a", "new")),
                Request::RequestPut(put_request("c", "new")),
            ],
        ),
        txn(vec![], vec![Request::RequestDeleteRange(delete)]),
    ] {
        let (mut machine, _disk) = damaged();
        let before = machine.store().current();
        let error = done(&mut machine, request.clone()).unwrap_err();
        assert!(
            matches!(error, ApplyError::Mvcc(mvcc::Error::Unanswerable(_))),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("is written") && text.contains("corrupt at offset"),
            "{text}"
        );
        assert_eq!(machine.store().current(), before + 1, "{request:?}");
        let now = machine.read("a", 0).unwrap();
        assert_ne!(now.as_deref(), Some(&b"old"[..]), "{request:?}");
        // Nothing of it is left for the next one.
        done(&mut machine, put("b", "newer")).unwrap();
    }
}

#[test]
fn revisions_versions_and_leases_are_compared_without_a_value() {
    let (mut machine, _disk) = damaged();
    let targets = [
        (CompareTarget::Version, TargetUnion::Version(1)),
        (CompareTarget::Create, TargetUnion::CreateRevision(2)),
        (CompareTarget::Mod, TargetUnion::ModRevision(2)),
        (CompareTarget::Lease, TargetUnion::Lease(0)),
    ];
    let compares = targets.map(|(target, wanted)| Compare {
        target: target as i32,
        target_union: Some(wanted),
        ..value_is("a", "")
    });
    let request = txn(
        compares.to_vec(),
        vec![Request::RequestPut(put_request("a", "new"))],
    );
    let Ok(Answer::Kv(Response::Txn { succeeded: true, .. })) = done(&mut machine, request) else {
        panic!("the conditions hold")
    };
    assert!(machine.store().storage.damage().is_none(), "it was read");
}

#[test]
fn who_cannot_read_what_an_entry_depends_on_ends_and_says_so() {
    let keep_value = PutRequest {
        ignore_value: true,
        ..put_request("a", "")
    };
    for request in [
        txn(
            vec![value_is("b", "old"), value_is("a", "old")],
            vec![Request::RequestPut(put_request("b", "new"))],
        ),
        InternalRaftRequest {
            put: Some(keep_value),
            ..Default::default()
        },
    ] {
        let (mut machine, disk) = damaged();
        let says_why = |machine: &mut Machine| {
            let words = last_words(machine, request.clone());
            for part in [
                "\"a\"",
                "0000000000000001.seg",
                "corrupt at offset",
                "cannot be applied",
            ] {
                assert!(words.contains(part), "{part}: {words}");
            }
        };
        assert!(machine.propose(request.clone()).is_err());
        says_why(&mut machine);
        drop(machine);
        // The log has it: the next life comes as far and no further.
        let mut again = Machine::open(&disk);
        assert!(again.elect().is_err());
        says_why(&mut again);
    }
}

#[test]
fn a_request_is_refused_before_the_log_has_it_when_what_decides_it_cannot_be_read() {
    let (machine, _disk) = damaged();
    let now = ReadTxn::new(machine.store());
    let foreseen = |request: InternalRaftRequest| now.foresee(&request.txn.unwrap());
    let nested = |request: InternalRaftRequest| Request::RequestTxn(request.txn.unwrap());
    let keep_value = |key| PutRequest {
        ignore_value: true,
        ..put_request(key, "")
    };
    let whole = Compare {
        range_end: "z".into(),
        ..value_is("a", "old")
    };
    for request in [
        txn(vec![value_is("a", "old")], vec![]),
        txn(vec![whole], vec![]),
        txn(vec![], vec![nested(txn(vec![value_is("a", "old")], vec![]))]),
        txn(vec![], vec![Request::RequestPut(keep_value("a"))]),
    ] {
        let error = foreseen(request.clone()).unwrap_err();
        assert!(
            matches!(error, mvcc::Error::Undecidable { .. }),
            "{request:?}: {error}"
        );
    }
    for request in [
        txn(vec![value_is("b", "old"), value_is("none", "")], vec![]),
        txn(vec![], vec![Request::RequestPut(put_request("a", "new"))]),
        txn(vec![], vec![Request::RequestPut(keep_value("b"))]),
    ] {
        foreseen(request).unwrap();
    }
    assert!(now.foresee_put(&keep_value("a")).is_err());
    assert!(now.foresee_put(&put_request("a", "new")).is_ok());
}

#[test]
fn a_damaged_record_is_neither_copied_nor_lost_and_goes_when_its_key_does() {
    let disk = FakeDisk::default();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    let compact = |machine: &mut Machine, revision: i64| {
        let compaction = CompactionRequest {
            revision,
            physical: false,
        };
        let request = InternalRaftRequest {
            compaction: Some(compaction),
            ..Default::default()
        };
        machine.propose(request).unwrap();
        machine.store().compact_index(revision);
        machine.keep().unwrap();
    };
    // The key lies in the first segment, most of which is dead by the end, as are others behind it.
    large(&mut machine, "a");
    let mut revision = 0;
    for _ in 0..60 {
        revision = large(&mut machine, "b");
    }
    machine.keep().unwrap();
    damage(&machine, &disk, "a");
    let numbers = |machine: &Machine| -> Vec<u32> {
        let segments = machine.store().storage.segments();
        segments.iter().map(|segment| segment.number).collect()
    };
    let before = numbers(&machine).len();
    compact(&mut machine, revision);
    let kept = numbers(&machine);
    assert!(kept.contains(&1), "{kept:?}");
    assert!(kept.len() < before, "{kept:?} of {before}");
    let damage = machine.store().storage.damage().unwrap();
    assert!(damage.to_string().contains("0000000000000001.seg"), "{damage}");
    assert!(matches!(machine.read("a", 0), Err(mvcc::Error::Io(_))));
    // Nothing else became unreadable, and a second attempt is no other.
    assert_eq!(machine.read("b", 0).unwrap().unwrap().len(), 3000);
    machine.keep().unwrap();
    assert!(numbers(&machine).contains(&1));

    let delete = DeleteRangeRequest {
        key: "a".into(),
        ..Default::default()
    };
    let deleted = machine
        .propose(InternalRaftRequest {
            delete_range: Some(delete),
            ..Default::default()
        })
        .unwrap();
    compact(&mut machine, deleted.revision);
    assert!(!numbers(&machine).contains(&1), "{:?}", numbers(&machine));
    assert!(machine.store().storage.damage().is_none());
}
