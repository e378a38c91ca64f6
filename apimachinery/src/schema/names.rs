//! From a field's name to its place: a small open hash for each struct.

/// Places by hash; `EMPTY` where none. At most half full, so that a miss ends soon.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<u16>,
}

const EMPTY: u16 = u16::MAX;

impl Index {
    pub fn new(names: &[&'static str]) -> Index {
        let mut slots = vec![EMPTY; (names.len() * 2).next_power_of_two()];
        let mask = slots.len() - 1;
        for (name, place) in names.iter().zip(0..) {
            let mut slot = hash(name) & mask;
            while slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            slots[slot] = place;
        }
        Index { slots }
    }

    pub fn find(&self, name: &str, name_of: impl Fn(usize) -> &'static str) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(name) & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return None,
                place if name_of(usize::from(place)) == name => return Some(usize::from(place)),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

/// Length and three letters tell the names of a struct apart well enough; what they do not, probing does.
fn hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let at = |i: usize| usize::from(bytes.get(i).copied().unwrap_or_default());
    let len = bytes.len();
    len.wrapping_mul(31)
        ^ at(0).wrapping_mul(7)
        ^ at(len / 2).wrapping_mul(131)
        ^ at(len.wrapping_sub(1)).wrapping_mul(1031)
}
