//! events.k8s.io/v1 Event is stored as core/v1 Event: the same facts under other names.

use apimachinery::value::Value;

/// events.k8s.io name, core name.
const RENAMED: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];
const COUNT: (&str, &str) = ("deprecatedCount", "count");

pub fn to_core(event: &mut Value) {
    for (theirs, core) in RENAMED.into_iter().chain([COUNT]) {
        rename(event, theirs, core);
    }
}

pub fn from_core(event: &mut Value) {
    for (theirs, core) in RENAMED.into_iter().chain([COUNT]) {
        rename(event, core, theirs);
    }
}

fn rename(event: &mut Value, from: &str, to: &'static str) {
    if let Some(value) = event.remove(from) {
        event.set(to, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_the_same() {
        let mut event = Value::from([
            ("reason", "Started".into()),
            ("note", "hello".into()),
            ("deprecatedCount", Value::Int(3)),
        ]);
        let before = event.clone();
        to_core(&mut event);
        assert_eq!(event.str_at("message"), "hello");
        assert_eq!(event.int_at("count"), Some(3));
        from_core(&mut event);
        assert_eq!(event, before);
    }
}
