//! One sorted map from path to node: what lies in a directory is a range of it. The root is not in the map. Invariant: a node's parent is in
//! the map, and a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::Code;
use super::node::{Node, View};
use super::path;

/// Keys and values; all of them are repeated at the head of every segment of the store, so they must stay well below its size.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What a node takes beside its key and value.
const NODE_BYTES: usize = 128;
const ROOT: Node = Node {
    created: 0,
    modified: 0,
    expires: 0,
    value: None,
};

#[derive(Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    pub bytes: usize,
    /// When, and what.
    pub expirations: BTreeSet<(i64, String)>,
    /// Rung when a key with a time to live came and there was none before.
    pub expiring: Arc<Notify>,
}

impl Tree {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.nodes.get(key)
    }

    /// The root too. Otherwise why not, and which part of the path is to blame.
    pub fn find<'a>(&self, key: &'a str) -> Result<Node, (Code, &'a str)> {
        if key.is_empty() {
            return Ok(ROOT);
        }
        if let Some(node) = self.nodes.get(key) {
            return Ok(node.clone());
        }
        for place in path::ancestors_and_self(key) {
            match self.nodes.get(place) {
                None => return Err((Code::KeyNotFound, place)),
                Some(node) if !node.is_dir() => return Err((Code::NotDir, place)),
                Some(_) => {}
            }
        }
        Err((Code::KeyNotFound, key))
    }

    /// What lies directly in `dir`, in order, without what is hidden. Recursion ends at [`path::MAX_DEPTH`].
    pub fn children(&self, dir: &str, recursive: bool, now: i64) -> Vec<View> {
        let (prefix, end) = (format!("{dir}/"), format!("{dir}0"));
        let mut cursor = Bound::Included(prefix.clone());
        let mut views = Vec::new();
        while let Some((key, node)) = self
            .nodes
            .range::<str, _>((cursor.as_ref().map(String::as_str), Bound::Excluded(end.as_str())))
            .next()
        {
            if let Some(place) = key[prefix.len()..].find('/') {
                // Below a child that had its turn: '0' is the letter after '/'.
                cursor = Bound::Included(format!("{}0", &key[..prefix.len() + place]));
                continue;
            }
            cursor = Bound::Excluded(key.clone());
            if path::is_hidden(key) {
                continue;
            }
            let mut view = node.view(key, now);
            if recursive && view.dir {
                view.nodes = self.children(key, true, now);
            }
            views.push(view);
        }
        views
    }

    /// Everything below `dir`, the deepest last.
    pub fn below(&self, dir: &str) -> impl DoubleEndedIterator<Item = &String> {
        let range = (
            Bound::Included(format!("{dir}/")),
            Bound::Excluded(format!("{dir}0")),
        );
        self.nodes.range::<String, _>(range).map(|(key, _)| key)
    }

    /// What is replaced makes room for what replaces it, and what becomes smaller always fits.
    pub fn has_room(&self, key: &str, value: &[u8]) -> bool {
        let replaced = self.nodes.get(key).and_then(|node| node.value.as_ref());
        let grown = match replaced {
            Some(old) => value.len().saturating_sub(old.len()),
            None => value.len() + path::depth(key) * (key.len() + NODE_BYTES),
        };
        grown == 0 || self.bytes + grown <= MAX_BYTES
    }

    pub fn keep(&mut self, key: &str, node: Node) {
        if let Some(old) = self.nodes.get(key).cloned() {
            self.discount(key, &old);
        }
        self.bytes += cost(key, &node);
        if node.expires != 0 {
            if self.expirations.is_empty() {
                self.expiring.notify_one();
            }
            self.expirations.insert((node.expires, key.to_owned()));
        }
        self.nodes.insert(key.to_owned(), node);
    }

    /// False when it was not there.
    pub fn forget(&mut self, key: &str) -> bool {
        let node = self.nodes.remove(key);
        if let Some(node) = &node {
            self.discount(key, node);
        }
        node.is_some()
    }

    fn discount(&mut self, key: &str, node: &Node) {
        self.bytes -= cost(key, node);
        if node.expires != 0 {
            self.expirations.remove(&(node.expires, key.to_owned()));
        }
    }
}

fn cost(key: &str, node: &Node) -> usize {
    key.len() + node.value.as_ref().map_or(0, Bytes::len) + NODE_BYTES
}
