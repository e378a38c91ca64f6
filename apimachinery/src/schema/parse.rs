//! Parser of the embedded text files.

use super::Schema;

pub(super) fn embedded() -> Schema {
    Schema { types: Vec::new(), by_name: Default::default(), kinds: Default::default() }
}
