use super::*;
use crate::timeline::tests::{delete, put};

fn timeline() -> Timeline {
    Timeline::new([
        put("a", "1", 2, 2, 1),
        put("b", "2", 3, 3, 1),
        put("a", "3", 4, 2, 2),
        put("ab", "3", 4, 4, 1),
        delete("a", 5),
    ])
    .unwrap()
}

fn watched(key: &str, start: i64) -> Watched {
    Watched {
        key: Bytes::copy_from_slice(key.as_bytes()),
        prefix: true,
        start,
        prev_kv: false,
    }
}

fn seen(revision: i64, events: &[Event]) -> Seen {
    Seen {
        revision,
        events: events.to_vec(),
    }
}

fn all_of_a() -> Vec<Seen> {
    vec![
        seen(2, &[put("a", "1", 2, 2, 1)]),
        seen(3, &[]),
        seen(
            5,
            &[put("a", "3", 4, 2, 2), put("ab", "3", 4, 4, 1), delete("a", 5)],
        ),
    ]
}

#[test]
fn a_true_watch_is_accepted() {
    check(&watched("a", 1), &all_of_a(), &timeline()).unwrap();
    check(&watched("a", 4), &all_of_a()[2..], &timeline()).unwrap();
    check(&watched("a", 1), &all_of_a()[..1], &timeline()).unwrap();
}

#[test]
fn repeats_and_old_events_are_found() {
    let mut twice = all_of_a();
    twice.push(seen(5, &[delete("a", 5)]));
    assert_eq!(
        check(&watched("a", 1), &twice, &timeline()),
        Err(Violation::Order { after: 5, found: 5 })
    );
    assert_eq!(
        check(&watched("a", 3), &all_of_a(), &timeline()),
        Err(Violation::BeforeStart { start: 3, found: 2 })
    );
}

#[test]
fn a_skipped_revision_is_found() {
    let skipped = [all_of_a().remove(2)];
    assert!(matches!(
        check(&watched("a", 1), &skipped, &timeline()),
        Err(Violation::Missing { revision: 2, .. })
    ));
}

#[test]
fn half_a_revision_is_found() {
    let half = [
        seen(2, &[put("a", "1", 2, 2, 1)]),
        seen(4, &[put("a", "3", 4, 2, 2)]),
    ];
    assert!(matches!(
        check(&watched("a", 1), &half, &timeline()),
        Err(Violation::Different { revision: 4, .. })
    ));
}

#[test]
fn progress_that_promised_too_much_is_found() {
    let ahead = [seen(2, &[put("a", "1", 2, 2, 1)]), seen(4, &[])];
    assert!(matches!(
        check(&watched("a", 1), &ahead, &timeline()),
        Err(Violation::Missing { revision: 4, .. })
    ));
    let back = [seen(3, &[]), seen(3, &[put("b", "2", 3, 3, 1)])];
    assert_eq!(check(&watched("b", 4), &[seen(5, &[])], &timeline()), Ok(()));
    assert!(check(&watched("b", 1), &back, &timeline()).is_err());
}

#[test]
fn a_previous_value_that_was_not_there_is_found() {
    let mut with_previous = watched("a", 4);
    with_previous.prev_kv = true;
    let mut first = put("a", "3", 4, 2, 2);
    first.prev_kv = put("a", "1", 2, 2, 1).kv;
    let good = [seen(4, &[first.clone(), put("ab", "3", 4, 4, 1)])];
    check(&with_previous, &good, &timeline()).unwrap();
    first.prev_kv = None;
    let bad = [seen(4, &[first, put("ab", "3", 4, 4, 1)])];
    assert!(matches!(
        check(&with_previous, &bad, &timeline()),
        Err(Violation::Previous { revision: 4, .. })
    ));
}
