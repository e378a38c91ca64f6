//! What a user's roles grant together: intervals of keys, merged, so that a request asks one binary search.

use bytes::Bytes;
use etcd_api::authpb::{Permission, permission::Type};

use crate::mvcc::key::KeyRange;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// Sorted by start; neither overlapping nor touching. No end is the end of all keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct Intervals(Vec<(Bytes, Option<Bytes>)>);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Granted {
    read: Intervals,
    write: Intervals,
}

impl Granted {
    pub fn merge<'a>(permissions: impl Iterator<Item = &'a Permission> + Clone) -> Granted {
        let of = |wanted: [Type; 2]| {
            let kept = permissions.clone().filter(move |permission| {
                // An unknown type grants nothing.
                Type::try_from(permission.perm_type).is_ok_and(|kind| wanted.contains(&kind))
            });
            Intervals::merge(kept.filter_map(interval).collect())
        };
        Granted {
            read: of([Type::Read, Type::Readwrite]),
            write: of([Type::Write, Type::Readwrite]),
        }
    }

    pub fn covers(&self, range: &KeyRange, kind: Kind) -> bool {
        match kind {
            Kind::Read => self.read.covers(range),
            Kind::Write => self.write.covers(range),
        }
    }
}

/// A key alone, a range, or everything from a key on.
fn interval(permission: &Permission) -> Option<(Bytes, Option<Bytes>)> {
    let (key, end) = (permission.key.clone(), &permission.range_end);
    match &end[..] {
        [] => {
            let after = after(&key);
            Some((key, Some(after)))
        }
        [0] => Some((key, None)),
        _ => (key < *end).then(|| (key, Some(end.clone()))),
    }
}

/// The smallest key behind this one.
fn after(key: &[u8]) -> Bytes {
    let mut after = Vec::with_capacity(key.len() + 1);
    after.extend_from_slice(key);
    after.push(0);
    after.into()
}

impl Intervals {
    fn merge(mut all: Vec<(Bytes, Option<Bytes>)>) -> Intervals {
        all.sort();
        let mut merged: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match merged.last_mut() {
                Some((_, None)) => break,
                Some((_, Some(last))) if start <= *last => match end {
                    Some(end) => *last = std::cmp::max(last.clone(), end),
                    None => merged_to_the_end(&mut merged),
                },
                _ => merged.push((start, end)),
            }
        }
        Intervals(merged)
    }

    fn covers(&self, range: &KeyRange) -> bool {
        let place = self.0.partition_point(|(start, _)| start <= range.first());
        let Some((_, end)) = place.checked_sub(1).map(|place| &self.0[place]) else {
            return false;
        };
        match (end, range) {
            _ if range.is_empty() => false,
            (None, _) => true,
            (Some(end), KeyRange::Single(key)) => key < end,
            (Some(end), KeyRange::Range(_, asked)) => asked <= end,
            (Some(_), KeyRange::From(_)) => false,
        }
    }
}

fn merged_to_the_end(merged: &mut [(Bytes, Option<Bytes>)]) {
    if let Some((_, end)) = merged.last_mut() {
        *end = None;
    }
}

/// As etcd: a key is needed, and an end lies behind it or is the one zero byte.
pub fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end == [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, end: &str) -> KeyRange {
        KeyRange::new(&key.to_owned().into(), &end.to_owned().into())
    }

    fn granted(permissions: &[(Type, &str, &str)]) -> Granted {
        let permissions: Vec<Permission> = permissions
            .iter()
            .map(|(kind, key, end)| Permission {
                perm_type: *kind as i32,
                key: (*key).to_owned().into(),
                range_end: (*end).to_owned().into(),
            })
            .collect();
        Granted::merge(permissions.iter())
    }

    #[test]
    fn ranges_that_touch_cover_together() {
        let granted = granted(&[
            (Type::Read, "a", "c"),
            (Type::Readwrite, "c", "f"),
            (Type::Read, "x", ""),
            (Type::Write, "m", "\0"),
        ]);
        for (key, end, read, write) in [
            ("a", "", true, false),
            ("a", "f", true, false),
            ("b", "e", true, false),
            ("c", "f", true, true),
            ("c", "g", false, false),
            ("f", "", false, false),
            ("x", "", true, true),
            ("x\0", "", false, true),
            ("x", "x\0", true, true),
            ("m", "\0", false, true),
            ("l", "\0", false, false),
            ("a", "\0", false, false),
            ("e", "b", false, false),
            ("z", "n", false, false),
        ] {
            assert_eq!(
                granted.covers(&range(key, end), Kind::Read),
                read,
                "read {key:?} {end:?}"
            );
            assert_eq!(
                granted.covers(&range(key, end), Kind::Write),
                write,
                "write {key:?} {end:?}"
            );
        }
    }

    #[test]
    fn an_unknown_type_grants_nothing() {
        let permission = Permission {
            perm_type: 7,
            key: "a".into(),
            range_end: "b".into(),
        };
        assert_eq!(Granted::merge([permission].iter()), Granted::default());
    }

    #[test]
    fn one_key_is_not_everything_from_it_on() {
        let granted = granted(&[(Type::Readwrite, "\0", "")]);
        assert!(granted.covers(&range("\0", ""), Kind::Read));
        assert!(!granted.covers(&range("\0", "\0"), Kind::Read));
        assert!(!granted.covers(&range("\0\0", ""), Kind::Read));
    }

    #[test]
    fn merging_is_what_the_parts_say_one_by_one() {
        use rand::rngs::StdRng;
        use rand::{Rng as _, SeedableRng as _};
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..500 {
            let parts: Vec<(Bytes, Option<Bytes>)> = (0..random.random_range(0..6))
                .map(|_| {
                    let start = random.random_range(1..9_u8);
                    let end = random.random_range(start + 1..=10);
                    (
                        Bytes::from(vec![start]),
                        (end < 10).then(|| Bytes::from(vec![end])),
                    )
                })
                .collect();
            let merged = Intervals::merge(parts.clone());
            for key in 0..12_u8 {
                let inside = |(start, end): &(Bytes, Option<Bytes>)| {
                    key >= start[0] && end.as_ref().is_none_or(|end| key < end[0])
                };
                let expected = parts.iter().any(inside);
                assert_eq!(
                    merged.covers(&KeyRange::Single(Bytes::from(vec![key]))),
                    expected,
                    "{parts:?} {key}"
                );
            }
        }
    }

    #[test]
    fn permission_ranges_are_checked_as_etcd_checks_them() {
        for (key, end, valid) in [
            ("a", "", true),
            ("a", "b", true),
            ("a", "\0", true),
            ("\0", "\0", true),
            ("a", "a", false),
            ("b", "a", false),
            ("", "", false),
            ("", "a", false),
        ] {
            assert_eq!(is_valid(key.as_bytes(), end.as_bytes()), valid, "{key:?} {end:?}");
        }
    }
}
