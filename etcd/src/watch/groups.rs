//! Which watchers want a key: groups of equal interest, found without asking every one of them.

use std::collections::HashMap;
use std::sync::Arc;

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
    by_interest: HashMap<Arc<Interest>, GroupId>,
    by_key: HashMap<Bytes, Vec<GroupId>>,
    ranges: Ranges,
    /// A group came or went since `ranges` were sorted.
    dirty: bool,
}

pub struct Group {
    pub interest: Arc<Interest>,
    pub members: Vec<WatcherId>,
}

impl Groups {
    pub fn join(&mut self, interest: Interest, watcher: WatcherId) -> (GroupId, Arc<Interest>) {
        let known = self.by_interest.get_key_value(&interest);
        let (interest, id) = match known {
            Some((interest, id)) => (interest.clone(), *id),
            None => self.open(Arc::new(interest)),
        };
        if let Some(group) = &mut self.groups[id] {
            group.members.push(watcher);
        }
        (id, interest)
    }

    fn open(&mut self, interest: Arc<Interest>) -> (Arc<Interest>, GroupId) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        match &interest.range {
            KeyRange::Single(key) => self.by_key.entry(key.clone()).or_default().push(id),
            _ => self.dirty = true,
        }
        self.by_interest.insert(interest.clone(), id);
        self.groups[id] = Some(Group {
            interest: interest.clone(),
            // Most have one member.
            members: Vec::with_capacity(1),
        });
        (interest, id)
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
            _ => self.dirty = true,
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
        if std::mem::take(&mut self.dirty) {
            self.ranges = Ranges::of(&self.groups);
        }
        self.ranges.matching(key, found);
    }
}

/// Ranges sorted by start, each with the highest end of all up to it: a search goes back from the key until no earlier range can reach it.
#[derive(Default)]
struct Ranges {
    sorted: Vec<Item>,
    open_ended: Vec<(Arc<Interest>, GroupId)>,
}

struct Item {
    interest: Arc<Interest>,
    /// Where the one with the highest end is.
    highest: usize,
    id: GroupId,
}

impl Item {
    fn start(&self) -> &[u8] {
        self.interest.range.first()
    }

    fn end(&self) -> &[u8] {
        match &self.interest.range {
            KeyRange::Range(_, end) => end,
            KeyRange::Single(_) | KeyRange::From(_) => &[],
        }
    }
}

impl Ranges {
    fn of(groups: &[Option<Group>]) -> Ranges {
        let mut ranges = Ranges::default();
        for (id, group) in groups.iter().enumerate() {
            let Some(Group { interest, .. }) = group else {
                continue;
            };
            match &interest.range {
                KeyRange::Range(..) => ranges.sorted.push(Item {
                    interest: interest.clone(),
                    highest: 0,
                    id,
                }),
                KeyRange::From(_) => ranges.open_ended.push((interest.clone(), id)),
                KeyRange::Single(_) => {}
            }
        }
        ranges.sorted.shrink_to_fit();
        ranges
            .sorted
            .sort_by(|left, right| left.start().cmp(right.start()));
        let mut highest = 0;
        for place in 0..ranges.sorted.len() {
            if ranges.sorted[place].end() > ranges.sorted[highest].end() {
                highest = place;
            }
            ranges.sorted[place].highest = highest;
        }
        ranges
    }

    fn matching(&self, key: &[u8], mut found: impl FnMut(GroupId)) {
        self.open_ended
            .iter()
            .filter(|(interest, _)| interest.range.contains(key))
            .for_each(|(_, id)| found(*id));
        let candidates = self.sorted.partition_point(|item| item.start() <= key);
        for item in self.sorted[..candidates].iter().rev() {
            if self.sorted[item.highest].end() <= key {
                return;
            }
            if key < item.end() {
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
        let (wide, _) = groups.join(interest("a", "z"), (1, 0));
        let (inner, _) = groups.join(interest("d", "f"), (1, 1));
        let (exact, _) = groups.join(interest("e", ""), (1, 2));
        let (open, _) = groups.join(interest("e", "\0"), (1, 3));
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
        let (first, interest_of) = groups.join(interest("a", "b"), (1, 0));
        let (second, shared) = groups.join(interest("a", "b"), (2, 0));
        assert!(second == first && Arc::ptr_eq(&shared, &interest_of));
        groups.leave(first, (1, 0));
        assert_eq!(groups.get(first).unwrap().members, [(2, 0)]);
        groups.leave(first, (2, 0));
        assert!(groups.get(first).is_none());
        groups.matching(b"a", |_| panic!("nobody watches"));
    }

    #[test]
    fn ranges_are_found_whatever_came_and_went_before() {
        let (mut groups, mut known, mut dice) = (Groups::default(), Vec::new(), 7_u64);
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (dice >> 33) % sides
        };
        for watcher in 0..600 {
            if roll(3) == 0 && !known.is_empty() {
                let gone = roll(known.len() as u64) as usize;
                let (id, _, watcher) = known.swap_remove(gone);
                groups.leave(id, watcher);
            }
            let (first, length) = (roll(40), roll(12) * roll(4));
            let end = match length {
                0 => Bytes::from_static(b"\0"),
                1 => Bytes::new(),
                _ => format!("{:03}", first + length).into(),
            };
            let interest = Interest {
                range: KeyRange::new(&format!("{first:03}").into(), &end),
                prev_kv: roll(2) == 0,
                no_put: false,
                no_delete: false,
            };
            let (id, interest) = groups.join(interest, (watcher, 0));
            known.push((id, interest, (watcher, 0)));
            let key = format!("{:03}", roll(60));
            let mut found = Vec::new();
            groups.matching(key.as_bytes(), |id| found.push(id));
            let contains =
                |known: &&(GroupId, Arc<Interest>, WatcherId)| known.1.range.contains(key.as_bytes());
            let mut expected: Vec<GroupId> = known.iter().filter(contains).map(|known| known.0).collect();
            expected.sort_unstable();
            expected.dedup();
            found.sort_unstable();
            assert_eq!(found, expected, "{key}");
        }
    }
}
