use super::*;
use crate::timeline::tests::{delete, put};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn operation(called: u64, returned: u64, request: Request, revision: i64, response: Response) -> Operation {
    Operation {
        called,
        request,
        answer: Some(Answer {
            returned,
            revision,
            response,
        }),
    }
}

fn put_of(key: &str, value: &str) -> Request {
    Request::Put {
        key: bytes(key),
        value: bytes(value),
    }
}

fn get(key: &str) -> Request {
    Request::Get { key: bytes(key) }
}

fn timeline() -> Timeline {
    let events = [put("a", "1", 2, 2, 1), put("a", "2", 3, 2, 2), delete("a", 4)];
    Timeline::new(events).unwrap()
}

fn true_history() -> Vec<Operation> {
    let guarded = Request::Guarded {
        key: bytes("a"),
        expected: 2,
        change: Change::Put(bytes("2")),
    };
    vec![
        operation(1, 2, put_of("a", "1"), 2, Response::Put),
        operation(3, 6, guarded, 3, Response::Changed),
        operation(4, 5, get("a"), 2, Response::Found(put("a", "1", 2, 2, 1).kv)),
        operation(7, 8, Request::Delete { key: bytes("a") }, 4, Response::Deleted(1)),
        operation(9, 10, get("a"), 4, Response::Found(None)),
        operation(9, 11, Request::List, 4, Response::Listed(vec![])),
    ]
}

#[test]
fn a_true_history_is_accepted() {
    check(&true_history(), &timeline()).unwrap();
}

#[test]
fn an_unanswered_request_may_have_happened_or_not() {
    let mut history = true_history();
    history[3].answer = None;
    history.push(Operation {
        called: 1,
        request: put_of("a", "never"),
        answer: None,
    });
    check(&history, &timeline()).unwrap();
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    let mut history = true_history();
    history.push(operation(12, 13, put_of("b", "9"), 5, Response::Put));
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::NoSuchRevision { revision: 5, .. })
    ));
    history.pop();
    history[0] = operation(1, 2, put_of("a", "other"), 2, Response::Put);
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::Lost { revision: 2, .. })
    ));
}

#[test]
fn a_read_of_the_past_is_found() {
    let mut history = true_history();
    history.push(operation(
        12,
        13,
        get("a"),
        3,
        Response::Found(put("a", "2", 3, 2, 2).kv),
    ));
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::Stale { before: 4, .. })
    ));
}

#[test]
fn a_read_that_is_not_true_is_found() {
    let mut history = true_history();
    history[4] = operation(9, 10, get("a"), 4, Response::Found(put("a", "2", 3, 2, 2).kv));
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::Untrue { .. })
    ));
}

#[test]
fn a_guard_that_did_not_hold_is_found() {
    let mut history = true_history();
    history[1].request = Request::Guarded {
        key: bytes("a"),
        expected: 1,
        change: Change::Put(bytes("2")),
    };
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::Untrue { .. })
    ));
}

#[test]
fn a_change_that_nobody_asked_for_is_found() {
    let mut history = true_history();
    history.remove(3);
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::Unasked { revision: 4, .. })
    ));
}

#[test]
fn a_change_before_its_request_is_found() {
    let mut history = true_history();
    // Its answer was lost, and revision 3 was read before the request was made.
    history[1].answer = None;
    history[1].called = 20;
    history[2] = operation(4, 5, get("a"), 3, Response::Found(put("a", "2", 3, 2, 2).kv));
    assert!(matches!(
        check(&history, &timeline()),
        Err(Violation::Early { revision: 3, .. })
    ));
}
