//! What a lease's end does to its keys.

use etcd_api::mvccpb::Event;

use crate::timeline::{Keys, is_delete, key_of};

/// The lease whose end these events of one revision are, if they are one: all of its keys are deleted, and nothing else.
pub fn ended(events: &[Event], before: &Keys) -> Option<i64> {
    let lease = before.get(key_of(events.first()?))?.lease;
    if lease == 0 {
        return None;
    }
    let holds = |key| before.get(key).is_some_and(|kv| kv.lease == lease);
    let all = before.values().filter(|kv| kv.lease == lease).count();
    let only = events
        .iter()
        .all(|event| is_delete(event) && holds(key_of(event)));
    (only && all == events.len()).then_some(lease)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use etcd_api::mvccpb::KeyValue;

    use super::*;
    use crate::timeline::tests::{delete, put};

    fn keys(of: &[(&'static str, i64)]) -> Keys {
        let kv = |(key, lease): &(&'static str, i64)| {
            let kv = KeyValue {
                key: Bytes::from_static(key.as_bytes()),
                lease: *lease,
                ..KeyValue::default()
            };
            (kv.key.clone(), kv)
        };
        of.iter().map(kv).collect()
    }

    #[test]
    fn all_of_its_keys_go_and_no_other() {
        let before = keys(&[("a", 7), ("b", 7), ("c", 8), ("d", 0)]);
        assert_eq!(ended(&[delete("a", 5), delete("b", 5)], &before), Some(7));
        assert_eq!(ended(&[delete("c", 5)], &before), Some(8));
        assert_eq!(ended(&[delete("a", 5)], &before), None, "one is left");
        assert_eq!(
            ended(&[delete("a", 5), delete("b", 5), delete("c", 5)], &before),
            None
        );
        assert_eq!(ended(&[delete("d", 5)], &before), None, "none holds it");
        assert_eq!(ended(&[delete("a", 5), put("b", "x", 5, 1, 2)], &before), None);
    }
}
