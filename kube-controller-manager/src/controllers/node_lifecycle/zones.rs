//! How fast nodes may be given up: one at a time in a zone that is well, slower or not at all in one that is not, and never when
//! no zone is well, because then the fault is more likely ours.

use super::health::ready_status;
use crate::meta::{label, name};
use crate::options::NodeLifecycle;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Normal,
    PartialDisruption,
    FullDisruption,
}

#[derive(Debug, PartialEq)]
pub(super) enum Permit {
    Now,
    Later(Duration),
    /// Taints that evict are even taken away. Ask again after this.
    Never(Duration),
}

pub(super) struct Zones {
    options: NodeLifecycle,
    state: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Zone and readiness by node.
    nodes: HashMap<String, (String, bool)>,
    /// When the next node of a zone may be tainted.
    next: HashMap<String, Instant>,
}

fn zone_of(node: &Node) -> String {
    let part = |key: &str, old: &str| {
        label(&node.metadata, key)
            .or_else(|| label(&node.metadata, old))
            .unwrap_or("")
            .to_owned()
    };
    let region = part(
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/region",
    );
    let zone = part(
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/zone",
    );
    format!("{region}:{zone}")
}

impl Zones {
    pub fn new(options: NodeLifecycle) -> Self {
        Zones {
            options,
            state: Mutex::default(),
        }
    }

    pub fn saw(&self, node: &Node) {
        let key = name(&node.metadata).to_owned();
        let mut state = self.state.lock();
        match label(&node.metadata, EXCLUDED) {
            Some(_) => state.nodes.remove(&key),
            None => state
                .nodes
                .insert(key, (zone_of(node), ready_status(node) == Some("True"))),
        };
    }

    pub fn forget(&self, node: &Node) {
        self.state.lock().nodes.remove(name(&node.metadata));
    }

    /// `take` uses up the permit.
    pub fn permit(&self, node: &Node, take: bool) -> Permit {
        let mut state = self.state.lock();
        let zones = state.zones();
        let states: HashMap<_, _> = zones
            .iter()
            .map(|(zone, (ready, not))| (zone.clone(), self.judge(*ready, *not)))
            .collect();
        if !states.is_empty() && states.values().all(|s| *s == State::FullDisruption) {
            return Permit::Never(self.options.monitor_period);
        }
        let zone = zone_of(node);
        let size = zones.get(&zone).map_or(0, |(ready, not)| ready + not);
        let rate = self.rate(states.get(&zone).copied().unwrap_or(State::Normal), size);
        if rate <= 0.0 {
            return Permit::Later(self.options.monitor_period);
        }
        state.take(zone, rate, take)
    }

    fn judge(&self, ready: usize, not_ready: usize) -> State {
        let share = not_ready as f64 / (ready + not_ready).max(1) as f64;
        match (ready, not_ready) {
            (0, 1..) => State::FullDisruption,
            (_, 3..) if share >= self.options.unhealthy_zone => State::PartialDisruption,
            _ => State::Normal,
        }
    }

    fn rate(&self, state: State, size: usize) -> f64 {
        match state {
            State::Normal | State::FullDisruption => self.options.eviction_rate,
            State::PartialDisruption if size > self.options.large_cluster => {
                self.options.secondary_eviction_rate
            }
            State::PartialDisruption => 0.0,
        }
    }
}

impl Inner {
    /// Ready and not ready nodes of each zone.
    fn zones(&self) -> HashMap<String, (usize, usize)> {
        let mut zones: HashMap<String, (usize, usize)> = HashMap::new();
        for (zone, ready) in self.nodes.values() {
            let counts = zones.entry(zone.clone()).or_default();
            if *ready { counts.0 += 1 } else { counts.1 += 1 }
        }
        zones
    }

    fn take(&mut self, zone: String, rate: f64, take: bool) -> Permit {
        let now = Instant::now();
        let next = self.next.get(&zone).copied().filter(|next| *next > now);
        match next {
            Some(next) => Permit::Later(next - now),
            None => {
                if take {
                    self.next.insert(zone, now + Duration::from_secs_f64(1.0 / rate));
                }
                Permit::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, zone: &str, ready: bool) -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}]}}),
        )
        .unwrap()
    }

    fn zones(nodes: &[Node]) -> Zones {
        let zones = Zones::new(crate::options::Options::for_tests().node_lifecycle);
        nodes.iter().for_each(|n| zones.saw(n));
        zones
    }

    #[test]
    fn nodes_of_a_zone_are_given_up_one_at_a_time() {
        let sick = [node("a", "z", false), node("b", "z", false)];
        let zones = zones(&[
            sick[0].clone(),
            sick[1].clone(),
            node("c", "z", true),
            node("d", "z", true),
        ]);
        assert_eq!(zones.permit(&sick[0], true), Permit::Now);
        let Permit::Later(wait) = zones.permit(&sick[1], true) else {
            panic!("the second waits")
        };
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10));
    }

    #[test]
    fn nobody_is_given_up_when_all_are_silent() {
        let sick = node("a", "z", false);
        assert!(matches!(
            zones(std::slice::from_ref(&sick)).permit(&sick, true),
            Permit::Never(_)
        ));
        assert_eq!(
            zones(&[sick.clone(), node("b", "other", true)]).permit(&sick, true),
            Permit::Now
        );
    }

    #[test]
    fn a_small_zone_that_is_mostly_down_is_left_alone() {
        let mut nodes: Vec<_> = (0..3).map(|n| node(&format!("s{n}"), "z", false)).collect();
        nodes.push(node("ok", "z", true));
        assert!(matches!(zones(&nodes).permit(&nodes[0], true), Permit::Later(_)));
    }
}
