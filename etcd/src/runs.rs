//! A sorted map of byte strings that costs little more than the strings: what there are millions of lies in it.
//!
//! A tree of two levels. Up to a hundred neighbours are a [`Run`]: what they begin with is there once, and none has an allocation of its own or
//! pointers to it. A run is found by its fence, a key that is not behind any of its keys, and behind all of those of the run before.

mod run;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use run::Run;

pub struct Runs<V> {
    /// The first one's fence is empty.
    runs: BTreeMap<Box<[u8]>, Run<V>>,
    keys: usize,
}

impl<V> Default for Runs<V> {
    fn default() -> Self {
        Runs {
            runs: BTreeMap::new(),
            keys: 0,
        }
    }
}

impl<V> Runs<V> {
    pub fn len(&self) -> usize {
        self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    pub fn get(&self, key: &[u8]) -> Option<&V> {
        let (_, run) = self.runs.range::<[u8], _>(until(key)).next_back()?;
        run.place(key).ok().map(|place| run.value(place))
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let (_, run) = self.runs.range_mut::<[u8], _>(until(key)).next_back()?;
        run.place(key).ok().map(|place| run.value_mut(place))
    }

    /// Changes the value that is there, or puts a new one there.
    pub fn enter(&mut self, key: &[u8], change: impl FnOnce(&mut V), new: impl FnOnce() -> V) {
        let Some((_, run)) = self.runs.range_mut::<[u8], _>(until(key)).next_back() else {
            self.runs.insert(Box::default(), Run::default());
            return self.enter(key, change, new);
        };
        let place = match run.place(key) {
            Ok(place) => return change(run.value_mut(place)),
            Err(place) => place,
        };
        if run.is_full_for(key) {
            let later = run.split(place);
            let fence = later.fence(run);
            self.runs.insert(fence, later);
            return self.enter(key, change, new);
        }
        run.insert(place, key, new());
        self.keys += 1;
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let (fence, run) = self.runs.range_mut::<[u8], _>(until(key)).next_back()?;
        let value = run.remove(run.place(key).ok()?);
        self.keys -= 1;
        let shrunk = run.is_small().then(|| fence.clone());
        shrunk.into_iter().for_each(|fence| self.join(&fence));
        Some(value)
    }

    /// Visits keys in order from `first` on.
    pub fn visit(
        &self,
        first: &[u8],
        mut visit: impl FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut key = Vec::new();
        let begin = self.runs.range::<[u8], _>(until(first)).next_back();
        let begin = begin.map(|(_, run)| (run.place(first).unwrap_or_else(|place| place), run));
        let behind = (Bound::Excluded(first), Bound::Unbounded);
        let behind = self.runs.range::<[u8], _>(behind).map(|(_, run)| (0, run));
        for (begin, run) in begin.into_iter().chain(behind) {
            for place in begin..run.len() {
                run.read_key(place, &mut key);
                visit(&key, run.value(place))?;
            }
        }
        ControlFlow::Continue(())
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.runs.values_mut().flat_map(Run::values_mut)
    }

    /// Keeps what is to be kept of the runs from the one at `fence` on, until `count` keys were looked at. Returns where to go on.
    pub fn retain(
        &mut self,
        fence: &[u8],
        count: usize,
        mut keep: impl FnMut(&mut V) -> bool,
    ) -> Option<Box<[u8]>> {
        let (mut seen, mut shrunk, mut next) = (0, Vec::new(), None);
        let from = (Bound::Included(fence), Bound::Unbounded);
        for (fence, run) in self.runs.range_mut::<[u8], _>(from) {
            if seen >= count {
                next = Some(fence.clone());
                break;
            }
            seen += run.len();
            let gone = run.retain(&mut keep);
            self.keys -= gone;
            if gone > 0 {
                shrunk.push(fence.clone());
            }
        }
        shrunk.iter().for_each(|fence| self.join(fence));
        next
    }

    /// A run that lost keys is joined to the one before, so that few keys do not keep many runs. The first one stays.
    fn join(&mut self, fence: &[u8]) {
        let before = (Bound::Unbounded, Bound::Excluded(fence));
        let previous = self.runs.range::<[u8], _>(before).next_back();
        let fits = previous
            .zip(self.runs.get(fence))
            .is_some_and(|((_, previous), run)| run.is_empty() || previous.can_take(run));
        if fits
            && let Some(run) = self.runs.remove(fence)
            && !run.is_empty()
            && let Some((_, previous)) = self.runs.range_mut::<[u8], _>(before).next_back()
        {
            previous.append(run);
        }
    }
}

fn until(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

#[cfg(test)]
mod tests;
