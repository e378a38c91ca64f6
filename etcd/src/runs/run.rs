//! Neighbouring keys with their values. What all of its keys begin with is there once.

/// Values of 40 bytes for so many keys fill an allocation of 4 KiB, and seven eighths of them one of 3.5 KiB.
const MAX_KEYS: usize = 102;
/// Long keys fill a run before they are many.
const MAX_KEY_BYTES: usize = 8 * 1024;
/// Room is made for so many keys at once.
const GROWTH_KEYS: usize = 8;
const GROWTH_BYTES: usize = 64;

pub struct Run<V> {
    /// What all keys begin with, then what follows it in each of them.
    bytes: Vec<u8>,
    prefix: usize,
    /// Where in `bytes` each key ends.
    ends: Vec<u32>,
    values: Vec<V>,
}

impl<V> Default for Run<V> {
    fn default() -> Self {
        Run {
            bytes: Vec::new(),
            prefix: 0,
            ends: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<V> Run<V> {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether `key` must find another run, once this one was split.
    pub fn is_full_for(&self, key: &[u8]) -> bool {
        let is_long = self.bytes.len() + key.len() > MAX_KEY_BYTES;
        self.len() >= MAX_KEYS || is_long && self.len() > 1
    }

    pub fn is_small(&self) -> bool {
        self.len() < MAX_KEYS / 4
    }

    pub fn can_take(&self, other: &Run<V>) -> bool {
        self.len() + other.len() <= MAX_KEYS / 2 && self.bytes.len() + other.bytes.len() <= MAX_KEY_BYTES / 2
    }

    /// Where `key` is, or where it belongs.
    pub fn place(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = &self.bytes[..self.prefix];
        let Some(rest) = key.strip_prefix(prefix) else {
            // All keys are on the same side of it.
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.rest(middle).cmp(rest) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    pub fn value(&self, place: usize) -> &V {
        &self.values[place]
    }

    pub fn value_mut(&mut self, place: usize) -> &mut V {
        &mut self.values[place]
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.values.iter_mut()
    }

    /// Writes the key over what is in `out`.
    pub fn read_key(&self, place: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.bytes[..self.prefix]);
        out.extend_from_slice(self.rest(place));
    }

    fn key(&self, place: usize) -> Vec<u8> {
        [&self.bytes[..self.prefix], self.rest(place)].concat()
    }

    fn start(&self, place: usize) -> usize {
        let before = place.checked_sub(1);
        before.map_or(self.prefix, |before| self.ends[before] as usize)
    }

    fn rest(&self, place: usize) -> &[u8] {
        &self.bytes[self.start(place)..self.ends[place] as usize]
    }

    /// At the place where it belongs.
    pub fn insert(&mut self, place: usize, key: &[u8], value: V) {
        let shared = match self.is_empty() {
            true => key.len(),
            false => common(&self.bytes[..self.prefix], key),
        };
        self.shorten_prefix(shared, key);
        let (at, rest) = (self.start(place), &key[shared..]);
        reserve(&mut self.bytes, rest.len(), GROWTH_BYTES);
        let length = self.bytes.len();
        self.bytes.resize(length + rest.len(), 0);
        self.bytes.copy_within(at..length, at + rest.len());
        self.bytes[at..at + rest.len()].copy_from_slice(rest);
        self.ends[place..]
            .iter_mut()
            .for_each(|end| *end += rest.len() as u32);
        reserve(&mut self.ends, 1, GROWTH_KEYS);
        self.ends.insert(place, (at + rest.len()) as u32);
        reserve(&mut self.values, 1, GROWTH_KEYS);
        self.values.insert(place, value);
    }

    /// So that a key which shares only `shared` bytes fits in. An empty run takes all of `key`.
    fn shorten_prefix(&mut self, shared: usize, key: &[u8]) {
        if self.is_empty() {
            (self.bytes, self.prefix) = (key.to_vec(), shared);
        } else if shared < self.prefix {
            let items = std::mem::take(self).into_items();
            *self = Run::sharing(shared, items);
        }
    }

    /// Takes the later part off, of a run that is full for a key at `place`: where keys come in order, what stays is left full, for nothing
    /// will be added to it.
    pub fn split(&mut self, place: usize) -> Run<V> {
        let (most, least) = (self.len() * 7 / 8, self.len() / 8);
        let at = match place {
            late if late >= most => most,
            early if early <= least => least,
            _ => self.len() / 2,
        };
        let mut left = std::mem::take(self).into_items();
        let right = left.split_off(at.max(1));
        *self = Run::of(left);
        Run::of(right)
    }

    pub fn remove(&mut self, place: usize) -> V {
        let (start, end) = (self.start(place), self.ends.remove(place) as usize);
        self.bytes.drain(start..end);
        self.ends[place..]
            .iter_mut()
            .for_each(|behind| *behind -= (end - start) as u32);
        self.values.remove(place)
    }

    /// Takes over what `later`, with keys behind all of this one's, has.
    pub fn append(&mut self, later: Run<V>) {
        let mut items = std::mem::take(self).into_items();
        items.extend(later.into_items());
        *self = Run::of(items);
    }

    /// Returns how many keys went.
    pub fn retain(&mut self, keep: impl FnMut(&mut V) -> bool) -> usize {
        let kept: Vec<bool> = self.values.iter_mut().map(keep).collect();
        let gone = kept.iter().filter(|kept| !**kept).count();
        if gone > 0 {
            let items = std::mem::take(self).into_items();
            let left = items.into_iter().zip(kept);
            *self = Run::of(left.filter_map(|(item, kept)| kept.then_some(item)).collect());
        }
        gone
    }

    /// The shortest key that is behind all of `before` and not behind any of this.
    pub fn fence(&self, before: &Run<V>) -> Box<[u8]> {
        let (last, mut first) = (before.key(before.len() - 1), self.key(0));
        first.truncate(common(&last, &first) + 1);
        first.into()
    }

    fn into_items(mut self) -> Vec<(Vec<u8>, V)> {
        let values = std::mem::take(&mut self.values).into_iter().enumerate();
        values.map(|(place, value)| (self.key(place), value)).collect()
    }

    /// In order.
    fn of(items: Vec<(Vec<u8>, V)>) -> Run<V> {
        match (items.first(), items.last()) {
            (Some(first), Some(last)) => Run::sharing(common(&first.0, &last.0), items),
            _ => Run::default(),
        }
    }

    /// Of keys in order that begin with the same `prefix` bytes; with no more room than they need.
    fn sharing(prefix: usize, items: Vec<(Vec<u8>, V)>) -> Run<V> {
        let size: usize = items.iter().map(|(key, _)| key.len() - prefix).sum();
        let mut run = Run {
            bytes: Vec::with_capacity(prefix + size),
            prefix,
            ends: Vec::with_capacity(items.len()),
            values: Vec::with_capacity(items.len()),
        };
        for (key, value) in items {
            let from = if run.is_empty() { 0 } else { prefix };
            run.bytes.extend_from_slice(&key[from..]);
            run.ends.push(run.bytes.len() as u32);
            run.values.push(value);
        }
        run
    }

    #[cfg(test)]
    pub fn allocated(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.values.capacity() * size_of::<V>()
    }
}

/// A run seldom grows to twice its size: room for a few more is enough.
fn reserve<T>(items: &mut Vec<T>, more: usize, growth: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.max(growth));
    }
}

fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}
