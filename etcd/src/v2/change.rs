//! What a request wants to change, and what must hold for it.

use bytes::Bytes;
use etcd_api::etcdserverpb::Request;

use super::node::Node;

/// What a PUT or POST wants.
pub struct Change<'a> {
    pub key: &'a str,
    pub dir: bool,
    pub value: Bytes,
    pub expires: i64,
    pub refresh: bool,
}

impl<'a> Change<'a> {
    pub fn of(key: &'a str, request: &Request) -> Change<'a> {
        Change {
            key,
            dir: request.dir,
            value: Bytes::copy_from_slice(request.val.as_bytes()),
            expires: request.expiration,
            refresh: request.refresh.unwrap_or(false),
        }
    }

    /// A refresh leaves the value as it is.
    pub fn keeping(&self, node: &Node) -> Change<'a> {
        Change {
            value: node.value.clone().unwrap_or_default(),
            ..*self
        }
    }
}

/// What must hold for it.
pub struct Condition<'a> {
    value: &'a str,
    index: u64,
}

impl Condition<'_> {
    pub fn of(request: &Request) -> Option<Condition<'_>> {
        (request.prev_index > 0 || !request.prev_value.is_empty()).then_some(Condition {
            value: &request.prev_value,
            index: request.prev_index,
        })
    }

    /// What does not hold.
    pub fn failure(&self, node: &Node) -> Option<String> {
        let current = node.value.as_deref().unwrap_or_default();
        let same_value = self.value.is_empty() || self.value.as_bytes() == current;
        let same_index = self.index == 0 || self.index == node.modified;
        let value = || format!("[{} != {}]", self.value, String::from_utf8_lossy(current));
        let index = || format!("[{} != {}]", self.index, node.modified);
        match (same_value, same_index) {
            (true, true) => None,
            (true, false) => Some(index()),
            (false, true) => Some(value()),
            (false, false) => Some(format!("{} {}", value(), index())),
        }
    }
}
