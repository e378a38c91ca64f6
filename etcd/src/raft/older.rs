//! Entries that memory no longer holds and that are still in the log's files: raft may ask for them, for a member that is far behind. Whoever
//! reads the files does so beside raft, and raft asks again once they are there.

use std::collections::{HashMap, VecDeque};

use raft::GetEntriesContext;
use raft::eraftpb::Entry;

/// Pieces that were read and not asked for again; each is one message.
const MAX_PIECES: usize = 4;
/// Questions that one answer is for.
const MAX_CONTEXTS: usize = 4;
/// A member that has not followed for so long is sent one piece more.
const STILL_TICKS: u32 = 5;
/// Pieces that are being read; a member that is not among those asks again.
const MAX_READS: usize = 8;

/// What is to be read: entries from `low`, before `high`, as many as one message holds and at least one.
#[derive(Debug)]
pub struct Fetch {
    pub low: u64,
    pub high: u64,
    /// Each term with its first index: what the files hold besides was superseded.
    pub terms: VecDeque<(u64, u64)>,
}

impl Fetch {
    pub fn term(&self, index: u64) -> Option<u64> {
        term_of(&self.terms, index)
    }
}

fn term_of(terms: &VecDeque<(u64, u64)>, index: u64) -> Option<u64> {
    let place = terms.partition_point(|(from, _)| *from <= index);
    terms.get(place.checked_sub(1)?).map(|(_, term)| *term)
}

/// Which older entries can be had.
pub struct Older {
    /// Each term with its first index; the first is that of the entry before those that can be read.
    terms: VecDeque<(u64, u64)>,
    reads: Vec<Read>,
    pieces: VecDeque<(u64, Vec<Entry>)>,
}

struct Read {
    low: u64,
    high: u64,
    contexts: Vec<GetEntriesContext>,
    running: bool,
}

impl Older {
    /// None at all: `before` is index and term of the entry before the first.
    pub fn none(before: (u64, u64)) -> Older {
        Older {
            terms: [before].into(),
            reads: Vec::new(),
            pieces: VecDeque::new(),
        }
    }

    /// Index of the entry before the first that can be read.
    pub fn before(&self) -> u64 {
        self.terms.front().map_or(0, |(index, _)| *index)
    }

    /// Memory has given up the entry after the last.
    pub fn push(&mut self, index: u64, term: u64) {
        if self.terms.back().is_none_or(|(_, last)| *last != term) {
            self.terms.push_back((index, term));
        }
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        term_of(&self.terms, index)
    }

    /// Entries up to `index` cannot be had any more.
    pub fn cut(&mut self, index: u64) {
        while self.terms.get(1).is_some_and(|(from, _)| *from <= index) {
            self.terms.pop_front();
        }
        if let Some((before, _)) = self.terms.front_mut() {
            *before = index.max(*before);
        }
    }

    /// What was read; None where it is to be read first.
    pub fn take(&mut self, low: u64, high: u64, context: GetEntriesContext) -> Option<Vec<Entry>> {
        if let Some(place) = self.pieces.iter().position(|(from, _)| *from == low) {
            return self.pieces.remove(place).map(|(_, entries)| entries);
        }
        if let Some(read) = self.reads.iter_mut().find(|read| read.low == low) {
            if read.contexts.len() < MAX_CONTEXTS {
                read.contexts.push(context);
            }
        } else if self.reads.len() < MAX_READS {
            self.reads.push(Read {
                low,
                high,
                contexts: vec![context],
                running: false,
            });
        }
        None
    }

    /// What is to be read now; what is not `wanted` is asked for again.
    pub fn fetches(&mut self, mut wanted: impl FnMut(u64) -> bool) -> Vec<Fetch> {
        self.reads.retain(|read| read.running || wanted(read.low));
        let begun = self.reads.iter_mut().filter(|read| !read.running);
        let terms = &self.terms;
        begun
            .map(|read| {
                read.running = true;
                Fetch {
                    low: read.low,
                    high: read.high,
                    terms: terms.clone(),
                }
            })
            .collect()
    }

    /// Who has asked for what was read, or cannot be read.
    pub fn fetched(&mut self, low: u64, entries: Option<Vec<Entry>>) -> Vec<GetEntriesContext> {
        match entries {
            Some(entries) => self.pieces.push_back((low, entries)),
            None => self.cut(low),
        }
        if self.pieces.len() > MAX_PIECES {
            self.pieces.pop_front();
        }
        let place = self.reads.iter().position(|read| read.low == low);
        place.map_or_else(Vec::new, |place| self.reads.swap_remove(place).contexts)
    }

    /// Whether anything is to be read.
    pub fn is_asked(&self) -> bool {
        !self.reads.is_empty()
    }

    pub fn forget_pieces(&mut self) {
        self.pieces.clear();
    }
}

/// How much is on its way to whom: two pieces for each member, so that neither memory nor streams hold all that a member lacks.
#[derive(Default)]
pub struct Flow {
    term: u64,
    begun: HashMap<u64, Begun>,
}

/// The last piece for a member.
struct Begun {
    low: u64,
    matched: u64,
    /// For so many ticks the member has not followed.
    still: u32,
}

impl Flow {
    pub fn begin(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.begun.clear();
        }
    }

    /// Whether the piece from `low` may be read for a member that has all up to `matched`.
    pub fn may_begin(&mut self, member: u64, matched: u64, low: u64) -> bool {
        let last = self.begun.get(&member).map(|last| last.low);
        let may = last.is_none_or(|last| low <= last || last <= matched + 1);
        if may {
            let still = 0;
            self.begun.insert(member, Begun { low, matched, still });
        }
        may
    }

    /// Both pieces may have been lost: what comes after them makes the member say so.
    pub fn tick(&mut self, matched: impl Fn(u64) -> u64) {
        self.begun.retain(|member, last| {
            let now = matched(*member);
            last.still = if now > last.matched { 0 } else { last.still + 1 };
            last.matched = now;
            last.still < STILL_TICKS
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_older_entries_are_known_as_far_as_they_can_be_read() {
        let mut older = Older::none((10, 1));
        for (index, term) in [(11, 1), (12, 3), (13, 3), (14, 4)] {
            older.push(index, term);
        }
        let terms = |older: &Older| [9, 10, 11, 12, 13, 14].map(|index| older.term(index));
        assert_eq!(terms(&older), [None, Some(1), Some(1), Some(3), Some(3), Some(4)]);
        older.cut(12);
        assert_eq!(
            (older.before(), older.term(11), older.term(12)),
            (12, None, Some(3))
        );
        older.cut(9);
        assert_eq!(older.before(), 12, "it does not come back");
    }

    #[test]
    fn what_is_wanted_is_read_once_and_given_once() {
        let mut older = Older::none((0, 0));
        (1..100).for_each(|index| older.push(index, 1));
        let context = || GetEntriesContext::empty(true);
        assert!(older.take(5, 50, context()).is_none());
        assert!(older.take(5, 50, context()).is_none());
        let fetches = older.fetches(|_| true);
        assert_eq!(
            fetches
                .iter()
                .map(|fetch| (fetch.low, fetch.high))
                .collect::<Vec<_>>(),
            [(5, 50)]
        );
        assert_eq!((fetches[0].term(0), fetches[0].term(5)), (Some(0), Some(1)));
        assert!(older.fetches(|_| true).is_empty());
        assert_eq!(older.fetched(5, Some(vec![Entry::default()])).len(), 2);
        assert_eq!(older.take(5, 50, context()).map(|entries| entries.len()), Some(1));
        assert!(older.take(5, 50, context()).is_none());
        assert!(older.fetches(|_| false).is_empty() && older.reads.is_empty());
        older.fetched(7, None);
        assert_eq!(older.before(), 7, "it cannot be had");
    }

    #[test]
    fn two_pieces_are_on_their_way_to_a_member() {
        let mut flow = Flow::default();
        flow.begin(1);
        assert!(flow.may_begin(2, 0, 100), "what it has is not known yet");
        assert!(flow.may_begin(2, 99, 200) && !flow.may_begin(2, 99, 300));
        assert!(flow.may_begin(2, 99, 200), "once more");
        assert!(flow.may_begin(2, 199, 300));
        (1..STILL_TICKS).for_each(|_| flow.tick(|_| 199));
        assert!(!flow.may_begin(2, 199, 400));
        flow.tick(|_| 199);
        assert!(flow.may_begin(2, 199, 400), "they may have been lost");
        flow.begin(2);
        assert!(flow.may_begin(2, 0, 900));
    }
}
