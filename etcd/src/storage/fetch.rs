//! Many records at once: few reads, into one buffer that may be used again.

use std::io;
use std::ops::Range;

use super::record::{Loc, RECORD_HEADER_BYTES};
use super::{Segments, Storage};

/// Neighbouring records are fetched with one read of at most this size.
const READ_BYTES: usize = 256 * 1024;
/// Records closer than this are read together with what lies between them.
const READ_GAP: u32 = 4096;

/// The encoded KeyValues of records, in the order in which they were asked for.
#[derive(Default)]
pub struct Fetched {
    /// Keeps its length: what comes next is written over it.
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
    order: Vec<(Loc, u32)>,
}

impl Fetched {
    /// Takes the place of what was fetched before.
    pub fn read(&mut self, storage: &Storage, before: &Segments, locs: &[Loc]) -> io::Result<()> {
        self.places.clear();
        self.places.resize(locs.len(), 0..0);
        self.order.clear();
        self.order.extend(locs.iter().copied().zip(0..));
        self.order
            .sort_unstable_by_key(|(loc, _)| (u64::from(loc.segment) << 32) | u64::from(loc.offset));
        let order = std::mem::take(&mut self.order);
        let (mut rest, mut at) = (&order[..], 0);
        while !rest.is_empty() {
            let (run, tail) = rest.split_at(run_length(rest));
            at = self.read_run(storage, before, run, at)?;
            rest = tail;
        }
        self.order = order;
        Ok(())
    }

    /// Reads to `at` of the buffer on; returns where that ends.
    fn read_run(
        &mut self,
        storage: &Storage,
        before: &Segments,
        run: &[(Loc, u32)],
        at: usize,
    ) -> io::Result<usize> {
        let (first, last) = (run[0].0, run[run.len() - 1].0);
        let segment = storage.find(before, first.segment)?;
        let end = at + (last.offset + last.length - first.offset) as usize;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        segment.read_at(&mut self.bytes[at..end], first.offset.into())?;
        for (loc, place) in run {
            let start = at + (loc.offset - first.offset) as usize;
            let end = start + loc.length as usize;
            segment.check(&self.bytes[start..end], loc.offset)?;
            self.places[*place as usize] = start + RECORD_HEADER_BYTES..end;
        }
        Ok(end)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.bytes[place.clone()])
    }
}

/// How many of the sorted places lie close enough together for one read.
fn run_length(sorted: &[(Loc, u32)]) -> usize {
    let first = sorted[0].0;
    let mut end = first.offset + first.length;
    let mut length = 1;
    for (loc, _) in &sorted[1..] {
        let next_end = loc.offset + loc.length;
        if loc.segment != first.segment
            || loc.offset > end.saturating_add(READ_GAP)
            || (next_end - first.offset) as usize > READ_BYTES
        {
            break;
        }
        end = end.max(next_end);
        length += 1;
    }
    length
}
