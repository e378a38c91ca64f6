//! Sets of completion indexes in the API's form: `1,3-5,7`.

use crate::meta::annotation;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::fmt;

pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Sorted, disjoint and not adjacent; both ends are in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Intervals(Vec<(i32, i32)>);

impl Intervals {
    /// What cannot be read, and what is not below `completions`, is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let bounds = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((
                first.parse::<i32>().ok()?,
                last.parse::<i32>().ok()?.min(completions - 1),
            ))
        });
        let mut found: Vec<_> = bounds
            .filter(|(first, last)| *first >= 0 && first <= last)
            .collect();
        found.sort_unstable();
        Intervals(found).joined()
    }

    pub fn with(&self, indexes: &BTreeSet<i32>) -> Self {
        self.merged(&Intervals(indexes.iter().map(|i| (*i, *i)).collect()))
    }

    pub fn merged(&self, other: &Intervals) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        Intervals(all).joined()
    }

    fn joined(self) -> Self {
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(self.0.len());
        for (first, last) in self.0 {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Intervals(joined)
    }

    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub fn overlap(&self, other: &Intervals) -> i32 {
        let (mut a, mut b, mut common) = (0, 0, 0);
        while let (Some(x), Some(y)) = (self.0.get(a), other.0.get(b)) {
            common += (x.1.min(y.1) - x.0.max(y.0) + 1).max(0);
            if x.1 < y.1 { a += 1 } else { b += 1 }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not in here.
    pub fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            missing.extend((candidate..first.min(completions)).take(count - missing.len()));
            candidate = last.saturating_add(1);
        }
        missing
    }
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

pub fn index_of(pod: &Pod) -> Option<i32> {
    annotation(&pod.metadata, COMPLETION_INDEX)?
        .parse()
        .ok()
        .filter(|i| *i >= 0)
}

pub fn indexes<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<i32> {
    pods.into_iter().filter_map(index_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_and_write_the_api_s_form() {
        let read = |text| Intervals::parse(text, 10).to_string();
        assert_eq!(read("1,3-5,7"), "1,3-5,7");
        assert_eq!(read("1,2,3"), "1-3");
        assert_eq!(read("3,4"), "3,4");
        assert_eq!(read("8-20,nonsense,12"), "8,9");
        assert_eq!(read(""), "");
    }

    #[test]
    fn sets_are_merged_counted_and_searched() {
        let set = Intervals::parse("1,3-5", 10);
        assert_eq!(set.with(&[2, 9].into()).to_string(), "1-5,9");
        assert_eq!(set.total(), 4);
        assert!(set.has(4) && !set.has(2) && !set.has(6));
        assert_eq!(set.overlap(&Intervals::parse("0-3", 10)), 2);
        assert_eq!(set.first_missing(3, 8), [0, 2, 6]);
        assert_eq!(set.first_missing(9, 7), [0, 2, 6]);
    }
}
