//! Key intervals as requests give them.

use std::ops::Bound;

use bytes::Bytes;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    Single(Bytes),
    Range(Bytes, Bytes),
    From(Bytes),
}

impl KeyRange {
    /// No end is one key; an end of one zero byte is everything from the key on.
    pub fn new(key: &Bytes, end: &Bytes) -> KeyRange {
        match &end[..] {
            [] => KeyRange::Single(key.clone()),
            [0] => KeyRange::From(key.clone()),
            _ => KeyRange::Range(key.clone(), end.clone()),
        }
    }

    pub fn all() -> KeyRange {
        KeyRange::From(Bytes::new())
    }

    pub fn first(&self) -> &Bytes {
        match self {
            KeyRange::Single(key) | KeyRange::Range(key, _) | KeyRange::From(key) => key,
        }
    }

    pub fn end(&self) -> Bound<&[u8]> {
        match self {
            KeyRange::Single(key) => Bound::Included(key),
            KeyRange::Range(_, end) => Bound::Excluded(end),
            KeyRange::From(_) => Bound::Unbounded,
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.first()[..] && self.is_before_end(key)
    }

    pub fn is_before_end(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Single(only) => key == only,
            KeyRange::Range(_, end) => key < &end[..],
            KeyRange::From(_) => true,
        }
    }

    /// Whether no key can be inside.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Range(start, end) if start >= end)
    }

    pub fn intersects(&self, other: &KeyRange) -> bool {
        self.is_before_end_or_contains(other.first()) && other.is_before_end_or_contains(self.first())
    }

    fn is_before_end_or_contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Single(only) => key <= &only[..],
            _ => self.is_before_end(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(
            &Bytes::from_static(key.as_bytes()),
            &Bytes::from_static(end.as_bytes()),
        )
    }

    #[test]
    fn the_three_forms_contain_what_etcd_says() {
        assert!(range("a", "").contains(b"a") && !range("a", "").contains(b"aa"));
        assert!(range("a", "c").contains(b"bzz") && !range("a", "c").contains(b"c"));
        assert!(range("b", "\0").contains(b"zzz") && !range("b", "\0").contains(b"a"));
        assert!(range("c", "a").is_empty());
    }

    #[test]
    fn intersection_is_symmetric() {
        for (left, right, expected) in [
            (range("a", "c"), range("b", ""), true),
            (range("a", "c"), range("c", ""), false),
            (range("a", ""), range("a", ""), true),
            (range("a", ""), range("b", ""), false),
            (range("a", "c"), range("b", "d"), true),
            (range("a", "b"), range("b", "d"), false),
            (range("x", "\0"), range("a", "y"), true),
            (range("x", "\0"), range("a", ""), false),
        ] {
            assert_eq!(left.intersects(&right), expected, "{left:?} {right:?}");
            assert_eq!(right.intersects(&left), expected, "{right:?} {left:?}");
        }
    }
}
