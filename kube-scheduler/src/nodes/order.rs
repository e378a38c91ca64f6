//! The order in which nodes are tried: zones in turn, and nodes of a zone in the order they came.

use std::collections::HashMap;

use super::Row;
use crate::selector::Labels;

/// Region and zone of a node, as one key.
type Zone = String;

#[derive(Default)]
pub struct ZoneOrder {
    /// Zones in the order in which they were first seen.
    zones: Vec<(Zone, Vec<Row>)>,
    zone_of: HashMap<Row, Zone>,
    interleaved: Vec<Row>,
    stale: bool,
}

impl ZoneOrder {
    pub(crate) fn len(&self) -> usize {
        self.zone_of.len()
    }

    pub fn put(&mut self, row: Row, labels: Option<&Labels>) {
        let zone = zone_key(labels);
        if self.zone_of.get(&row) == Some(&zone) {
            return;
        }
        self.remove(row);
        match self.zones.iter_mut().find(|(name, _)| *name == zone) {
            Some((_, rows)) => rows.push(row),
            None => self.zones.push((zone.clone(), vec![row])),
        }
        self.zone_of.insert(row, zone);
        self.stale = true;
    }

    pub fn remove(&mut self, row: Row) {
        let Some(zone) = self.zone_of.remove(&row) else {
            return;
        };
        self.zones.retain_mut(|(name, rows)| {
            if *name == zone {
                rows.retain(|r| *r != row);
            }
            !rows.is_empty()
        });
        self.stale = true;
    }

    pub fn rows(&mut self) -> &[Row] {
        if self.stale {
            self.interleave();
            self.stale = false;
        }
        &self.interleaved
    }

    fn interleave(&mut self) {
        self.interleaved.clear();
        let longest = self.zones.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
        for at in 0..longest {
            self.interleaved
                .extend(self.zones.iter().filter_map(|(_, rows)| rows.get(at)));
        }
    }
}

fn zone_key(labels: Option<&Labels>) -> Zone {
    let get = |beta: &str, stable: &str| {
        let found = labels.and_then(|l| l.get(beta).or_else(|| l.get(stable)));
        found.map(String::as_str).unwrap_or_default()
    };
    let zone = get(
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    );
    let region = get(
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    );
    // Labels hold no NUL, so two different pairs never make one key.
    format!("{region}\0{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    fn in_zone(zone: &str) -> Labels {
        labels(&[("topology.kubernetes.io/zone", zone)])
    }

    #[test]
    fn zones_take_turns_until_the_longest_is_exhausted() {
        let mut order = ZoneOrder::default();
        for (row, zone) in [(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            order.put(row, Some(&in_zone(zone)));
        }
        assert_eq!(order.rows(), [0, 2, 4, 1, 3]);
        order.remove(2);
        order.put(3, Some(&in_zone("b")));
        assert_eq!(order.rows(), [0, 4, 3, 1]);
    }

    #[test]
    fn an_update_in_the_same_zone_keeps_the_place() {
        let mut order = ZoneOrder::default();
        order.put(0, None);
        order.put(1, None);
        order.put(0, None);
        assert_eq!(order.rows(), [0, 1]);
        assert_eq!(order.len(), 2);
    }
}
