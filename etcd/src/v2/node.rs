//! A file or directory: as it is kept, as it is stored, and as clients see it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Serialize, Serializer};

const NANOS: i64 = 1_000_000_000;
const FILE: u8 = 0;
const DIR: u8 = 1;
/// Created, modified, expiration, kind.
const HEADER_BYTES: usize = 25;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub created: u64,
    pub modified: u64,
    /// In nanoseconds of the time of day; 0 is never.
    pub expires: i64,
    /// None in a directory.
    pub value: Option<Bytes>,
}

#[derive(Debug, thiserror::Error)]
#[error("a record of {0} bytes that is no node")]
pub struct Damaged(usize);

impl Node {
    pub fn is_dir(&self) -> bool {
        self.value.is_none()
    }

    pub fn encode(&self) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + value.len());
        out.put_u64_le(self.created);
        out.put_u64_le(self.modified);
        out.put_i64_le(self.expires);
        out.put_u8(if self.is_dir() { DIR } else { FILE });
        out.put_slice(value);
        out.freeze()
    }

    /// The value stays a piece of the record: it is in memory once.
    pub fn decode(mut record: Bytes) -> Result<Node, Damaged> {
        let length = record.len();
        if length < HEADER_BYTES {
            return Err(Damaged(length));
        }
        let (created, modified, expires) = (record.get_u64_le(), record.get_u64_le(), record.get_i64_le());
        let value = match record.get_u8() {
            FILE => Some(record),
            DIR if record.is_empty() => None,
            _ => return Err(Damaged(length)),
        };
        Ok(Node {
            created,
            modified,
            expires,
            value,
        })
    }

    /// As clients see it at `now`, without what lies below.
    pub fn view(&self, key: &str, now: i64) -> View {
        View {
            dir: self.is_dir(),
            value: self.value.clone().map(Value),
            ..View::bare(key, self.modified, self.created).expiring(self.expires, now)
        }
    }
}

pub fn decode_index(record: &[u8]) -> Result<u64, Damaged> {
    record
        .try_into()
        .map(u64::from_le_bytes)
        .map_err(|_| Damaged(record.len()))
}

/// The `node` and `prevNode` of an answer. What is zero is left out, as etcd does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dir: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Expiration>,
    #[serde(skip_serializing_if = "is_zero")]
    pub ttl: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<View>,
    #[serde(rename = "modifiedIndex", skip_serializing_if = "is_zero_index")]
    pub modified: u64,
    #[serde(rename = "createdIndex", skip_serializing_if = "is_zero_index")]
    pub created: u64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_zero_index(number: &u64) -> bool {
    *number == 0
}

impl View {
    pub fn bare(key: &str, modified: u64, created: u64) -> View {
        View {
            key: key.to_owned(),
            value: None,
            dir: false,
            expiration: None,
            ttl: 0,
            nodes: Vec::new(),
            modified,
            created,
        }
    }

    /// The seconds that are left are rounded up.
    pub fn expiring(mut self, expires: i64, now: i64) -> View {
        if expires != 0 {
            let left = expires.saturating_sub(now);
            self.ttl = left / NANOS + i64::from(left % NANOS > 0);
            self.expiration = Some(Expiration(expires));
        }
        self
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<View>() + self.key.len() + self.value.as_ref().map_or(0, |value| value.0.len())
    }
}

/// Came as a string and is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(pub Bytes);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

/// RFC 3339 in UTC, with as many digits as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiration(i64);

impl Serialize for Expiration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

pub fn rfc3339(nanos: i64) -> String {
    // Nanoseconds in 64 bits end in the year 2262: all of them are timestamps.
    jiff::Timestamp::from_nanosecond(nanos.into())
        .unwrap_or_default()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_survive_their_records() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"v"))] {
            let node = Node {
                created: 1,
                modified: u64::MAX,
                expires: -5,
                value,
            };
            assert_eq!(Node::decode(node.encode()).unwrap(), node);
        }
        assert!(Node::decode(Bytes::from_static(b"short")).is_err());
        assert!(Node::decode(vec![9; HEADER_BYTES].into()).is_err());
        assert!(decode_index(b"short").is_err());
    }

    #[test]
    fn seconds_are_rounded_up_and_times_are_short() {
        let ttl = |left| View::bare("", 0, 0).expiring(100 * NANOS + left, 100 * NANOS).ttl;
        assert_eq!((ttl(1), ttl(NANOS), ttl(NANOS + 1), ttl(-1)), (1, 1, 2, 0));
        assert_eq!(rfc3339(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339(i64::MAX), "2262-04-11T23:47:16.854775807Z");
    }
}
