//! Distinct taint sets. Thousands of nodes share a handful of them, so a pod's tolerations are weighed once per set.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::Row;

type SetId = u32;

/// What of a taint matters to scheduling: key, value, effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key(Box<[(String, String, String)]>);

struct Set {
    taints: Arc<[Taint]>,
    rows: u32,
}

#[derive(Default)]
pub struct TaintSets {
    by_row: Vec<Option<SetId>>,
    sets: Vec<Set>,
    ids: HashMap<Key, SetId>,
}

impl TaintSets {
    pub fn grow(&mut self, rows: usize) {
        self.by_row.resize(rows, None);
    }

    pub fn set(&mut self, row: Row, taints: &[Taint]) {
        let new = if taints.is_empty() {
            None
        } else {
            Some(self.intern(taints))
        };
        if let Some(id) = new {
            self.sets[id as usize].rows += 1;
        }
        if let Some(old) = std::mem::replace(&mut self.by_row[row as usize], new) {
            self.release(old);
        }
    }

    fn intern(&mut self, taints: &[Taint]) -> SetId {
        let part = |t: &Taint| {
            (
                t.key.clone(),
                t.value.clone().unwrap_or_default(),
                t.effect.clone(),
            )
        };
        let key = Key(taints.iter().map(part).collect());
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let set = Set {
            taints: taints.into(),
            rows: 0,
        };
        let free = self.sets.iter().position(|s| s.rows == 0 && s.taints.is_empty());
        let at = free.unwrap_or_else(|| {
            self.sets.push(Set {
                taints: Arc::from([]),
                rows: 0,
            });
            self.sets.len() - 1
        });
        self.sets[at] = set;
        // There are never more sets than rows.
        let id = SetId::try_from(at).unwrap_or(SetId::MAX);
        self.ids.insert(key, id);
        id
    }

    fn release(&mut self, id: SetId) {
        let set = &mut self.sets[id as usize];
        set.rows -= 1;
        if set.rows == 0 {
            set.taints = Arc::from([]);
            self.ids.retain(|_, other| *other != id);
        }
    }

    pub fn of(&self, row: Row) -> &[Taint] {
        self.by_row[row as usize].map_or(&[], |id| &self.sets[id as usize].taints)
    }

    /// `weigh` applied to each distinct set; rows without taints get `untainted`.
    pub fn weigh<T: Copy>(&self, untainted: T, weigh: impl Fn(&[Taint]) -> T) -> ByTaints<T> {
        ByTaints {
            untainted,
            by_set: self.sets.iter().map(|s| weigh(&s.taints)).collect(),
        }
    }

    pub fn look_up<T: Copy>(&self, weighed: &ByTaints<T>, row: Row) -> T {
        self.by_row[row as usize].map_or(weighed.untainted, |id| weighed.by_set[id as usize])
    }
}

/// A value for each taint set, made by [`TaintSets::weigh`].
pub struct ByTaints<T> {
    untainted: T,
    by_set: Vec<T>,
}

/// Does the toleration cover the taint? An empty key with `Exists` covers all, an empty effect every effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty_or_equal = |field: &Option<String>, wanted: &str| {
        field
            .as_deref()
            .is_none_or(|value| value.is_empty() || value == wanted)
    };
    if !empty_or_equal(&toleration.effect, &taint.effect) || !empty_or_equal(&toleration.key, &taint.key) {
        return false;
    }
    let value = toleration.value.as_deref().unwrap_or_default();
    let tainted = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == tainted,
        "Exists" => true,
        "Gt" => compare(tainted, value, |taint, bound| taint > bound),
        "Lt" => compare(tainted, value, |taint, bound| taint < bound),
        _ => false,
    }
}

fn compare(taint: &str, bound: &str, by: impl Fn(i64, i64) -> bool) -> bool {
    matches!((taint.parse(), bound.parse()), (Ok(taint), Ok(bound)) if by(taint, bound))
}

pub fn keeps_pods_out(taint: &Taint) -> bool {
    taint.effect == "NoSchedule" || taint.effect == "NoExecute"
}

/// Some taint that keeps pods out is not tolerated.
pub fn has_untolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let untolerated = |taint: &&Taint| !tolerations.iter().any(|t| tolerates(t, taint));
    taints
        .iter()
        .filter(|t| keeps_pods_out(t))
        .any(|t| untolerated(&t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{taint, toleration};

    #[test]
    fn tolerations_match_by_key_value_effect_and_operator() {
        let cases = [
            (toleration("k", "Equal", "v", "NoSchedule"), true),
            (toleration("k", "", "v", ""), true),
            (toleration("k", "Equal", "other", ""), false),
            (toleration("k", "Exists", "", "NoSchedule"), true),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("x", "Exists", "", ""), false),
            (toleration("k", "Unknown", "v", ""), false),
        ];
        for (toleration, wanted) in cases {
            assert_eq!(
                tolerates(&toleration, &taint("k", "v", "NoSchedule")),
                wanted,
                "{toleration:?}"
            );
        }
    }

    #[test]
    fn a_preference_keeps_no_pod_out() {
        assert!(!has_untolerated(&[taint("k", "v", "PreferNoSchedule")], &[]));
        assert!(has_untolerated(&[taint("k", "v", "NoExecute")], &[]));
    }

    #[test]
    fn rows_with_equal_taints_share_one_set_and_sets_are_reused() {
        let mut sets = TaintSets::default();
        sets.grow(3);
        sets.set(0, &[taint("a", "", "NoSchedule")]);
        sets.set(1, &[taint("a", "", "NoSchedule")]);
        for round in 0..100 {
            sets.set(2, &[taint("b", &round.to_string(), "NoSchedule")]);
        }
        assert!(sets.sets.len() <= 3);
        let weighed = sets.weigh(0, <[Taint]>::len);
        sets.set(0, &[]);
        assert_eq!((sets.look_up(&weighed, 0), sets.look_up(&weighed, 1)), (0, 1));
        assert_eq!(sets.of(1)[0].key, "a");
    }
}
