//! Segments that stay readable for as long as somebody means to read them, whatever is reclaimed meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::segment::Segment;
use super::{Segments, Storage, contains};

/// Collects, during a walk over the index, the segments that its versions lie in. A version must be held under the lock of the index that it was
/// found under: reclaiming removes a segment only after the index was pointed elsewhere, so then it is always still found.
#[derive(Default)]
pub struct Held {
    before: Segments,
    added: BTreeMap<u32, Arc<Segment>>,
    last: Option<u32>,
    missing: Option<io::Error>,
}

impl Held {
    /// Begins with all of `before`: only what was added since costs anything.
    pub fn since(before: Segments) -> Held {
        Held {
            before,
            ..Held::default()
        }
    }

    pub fn hold(&mut self, storage: &Storage, number: u32) {
        if self.last.replace(number) == Some(number)
            || contains(&self.before, number)
            || self.added.contains_key(&number)
        {
            return;
        }
        match storage.find(&Segments::default(), number) {
            Ok(segment) => drop(self.added.insert(number, segment)),
            Err(error) => self.missing = Some(error),
        }
    }

    pub fn list(self) -> io::Result<Segments> {
        if let Some(error) = self.missing {
            return Err(error);
        }
        if self.added.is_empty() {
            return Ok(self.before);
        }
        let mut all: Vec<Arc<Segment>> = self
            .before
            .iter()
            .cloned()
            .chain(self.added.into_values())
            .collect();
        all.sort_by_key(|segment| segment.number);
        Ok(Arc::new(all))
    }
}
