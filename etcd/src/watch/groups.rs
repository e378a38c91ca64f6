//! Which watchers want a key: groups of equal interest, found without asking every one of them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::Interest;
use crate::mvcc::key::KeyRange;

pub type GroupId = usize;
/// A watcher: its stream and its id there.
pub type WatcherId = (u64, i64);

#[derive(Default)]
pub struct Groups {
    groups: Vec<Option<Group>>,
    free: Vec<GroupId>,
    by_interest: HashMap<Interest, GroupId>,
    by_key: HashMap<Bytes, Vec<GroupId>>,
    ranges: Ranges,
}

pub struct Group {
    pub interest: Interest,
    pub members: Vec<WatcherId>,
}

impl Groups {
    pub fn join(&mut self, interest: Interest, watcher: WatcherId) -> GroupId {
        let id = match self.by_interest.get(&interest) {
            Some(id) => *id,
            None => self.open(interest),
        };
        if let Some(group) = &mut self.groups[id] {
            group.members.push(watcher);
        }
        id
    }

    fn open(&mut self, interest: Interest) -> GroupId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        match &interest.range {
            KeyRange::Single(key) => self.by_key.entry(key.clone()).or_default().push(id),
            range => self.ranges.insert(id, range.clone()),
        }
        self.by_interest.insert(interest.clone(), id);
        self.groups[id] = Some(Group {
            interest,
            members: Vec::new(),
        });
        id
    }

    pub fn leave(&mut self, id: GroupId, watcher: WatcherId) {
        let Some(group) = self.groups.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        group.members.retain(|member| *member != watcher);
        if group.members.is_empty() {
            self.close(id);
        }
    }

    fn close(&mut self, id: GroupId) {
        let Some(group) = self.groups[id].take() else {
            return;
        };
        self.by_interest.remove(&group.interest);
        self.free.push(id);
        match &group.interest.range {
            KeyRange::Single(key) => {
                if let Some(ids) = self.by_key.get_mut(key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_key.remove(key);
                    }
                }
            }
            _ => self.ranges.remove(id),
        }
    }

    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)?.as_ref()
    }

    /// Calls `found` for every group whose range contains `key`.
    pub fn matching(&mut self, key: &[u8], mut found: impl FnMut(GroupId)) {
        if let Some(ids) = self.by_key.get(key) {
            ids.iter().for_each(|id| found(*id));
        }
        self.ranges.matching(key, found);
    }
}

/// Ranges sorted by start, each with the highest end of all up to it: a search goes back from the key until no earlier range can reach it.
#[derive(Default)]
struct Ranges {
    all: BTreeMap<GroupId, KeyRange>,
    sorted: Vec<Item>,
    open_ended: Vec<(Bytes, GroupId)>,
    dirty: bool,
}

struct Item {
    start: Bytes,
    end: Bytes,
    highest_end: Bytes,
    id: GroupId,
}

impl Ranges {
    fn insert(&mut self, id: GroupId, range: KeyRange) {
        self.all.insert(id, range);
        self.dirty = true;
    }

    fn remove(&mut self, id: GroupId) {
        self.all.remove(&id);
        self.dirty = true;
    }

    fn rebuild(&mut self) {
        self.sorted.clear();
        self.open_ended.clear();
        for (id, range) in &self.all {
            match range {
                KeyRange::Range(start, end) => {
                    self.sorted.push(Item {
                        start: start.clone(),
                        end: end.clone(),
                        highest_end: Bytes::new(),
                        id: *id,
                    });
                }
                KeyRange::From(start) | KeyRange::Single(start) => self.open_ended.push((start.clone(), *id)),
            }
        }
        self.sorted.sort_by(|left, right| left.start.cmp(&right.start));
        let mut highest = Bytes::new();
        for item in &mut self.sorted {
            if item.end > highest {
                highest = item.end.clone();
            }
            item.highest_end = highest.clone();
        }
        self.dirty = false;
    }

    fn matching(&mut self, key: &[u8], mut found: impl FnMut(GroupId)) {
        if self.dirty {
            self.rebuild();
        }
        self.open_ended
            .iter()
            .filter(|(start, _)| key >= &start[..])
            .for_each(|(_, id)| found(*id));
        let candidates = self.sorted.partition_point(|item| &item.start[..] <= key);
        for item in self.sorted[..candidates].iter().rev() {
            if &item.highest_end[..] <= key {
                return;
            }
            if key < &item.end[..] {
                found(item.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(key: &'static str, end: &'static str) -> Interest {
        let range = KeyRange::new(
            &Bytes::from_static(key.as_bytes()),
            &Bytes::from_static(end.as_bytes()),
        );
        Interest {
            range,
            prev_kv: false,
            no_put: false,
            no_delete: false,
        }
    }

    #[test]
    fn a_key_finds_every_range_around_it_and_no_other() {
        let mut groups = Groups::default();
        let wide = groups.join(interest("a", "z"), (1, 0));
        let inner = groups.join(interest("d", "f"), (1, 1));
        let exact = groups.join(interest("e", ""), (1, 2));
        let open = groups.join(interest("e", "\0"), (1, 3));
        groups.join(interest("x", "y"), (1, 4));
        let mut find = |key: &str| {
            let mut found = Vec::new();
            groups.matching(key.as_bytes(), |id| found.push(id));
            found.sort_unstable();
            found
        };
        assert_eq!(find("e"), [wide, inner, exact, open]);
        assert_eq!(find("f"), [wide, open]);
        assert_eq!(find("b"), [wide]);
        assert_eq!(find("zz"), [open]);
        assert!(find("A").is_empty());
    }

    #[test]
    fn equal_interests_share_a_group_that_ends_with_its_last_member() {
        let mut groups = Groups::default();
        let first = groups.join(interest("a", "b"), (1, 0));
        assert_eq!(groups.join(interest("a", "b"), (2, 0)), first);
        groups.leave(first, (1, 0));
        assert_eq!(groups.get(first).unwrap().members, [(2, 0)]);
        groups.leave(first, (2, 0));
        assert!(groups.get(first).is_none());
        groups.matching(b"a", |_| panic!("nobody watches"));
    }
}
