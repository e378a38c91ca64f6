//! The arithmetic of rollouts: how many pods a step may add or take. No IO.

use super::replica_sets::{DESIRED_REPLICAS, MAX_REPLICAS};
use super::{Pass, is_rolling, replicas_of, set_name, set_replicas, spec};
use crate::meta::annotation;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::cmp::Reverse;

/// Surge and unavailability for `wanted` pods. Both zero would never move: then one pod may be missing.
fn fenceposts(deployment: &Deployment, wanted: i32) -> (i32, i32) {
    let spec = spec(deployment);
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), wanted, true);
    let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), wanted, false);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// A percentage rounds up for surge and down for unavailability; 25 % is the API's default.
fn resolve(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return *number,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse::<i64>().unwrap_or(0),
        None => 25,
    };
    let scaled = percent * i64::from(of);
    let rounded = if up {
        (scaled + 99).div_euclid(100)
    } else {
        scaled.div_euclid(100)
    };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) {
        fenceposts(deployment, replicas_of(deployment)).0
    } else {
        0
    }
}

pub fn max_unavailable(deployment: &Deployment) -> i32 {
    let wanted = replicas_of(deployment);
    if !is_rolling(deployment) || wanted == 0 {
        return 0;
    }
    fenceposts(deployment, wanted).1.min(wanted)
}

pub fn total(sets: impl IntoIterator<Item = impl std::borrow::Borrow<ReplicaSet>>) -> i32 {
    sets.into_iter().map(|set| set_replicas(set.borrow())).sum()
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|s| s.available_replicas)
        .unwrap_or(0)
}

pub fn is_active(set: &ReplicaSet) -> bool {
    set_replicas(set) > 0
}

/// The size of the new set: as large as the surge allows.
pub fn new_size(deployment: &Deployment, sets: i32, new: i32) -> i32 {
    let wanted = replicas_of(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - sets;
    if room <= 0 {
        new
    } else {
        new + room.min(wanted - new)
    }
}

/// The user changed the size since the sets were last sized.
pub fn is_scaling_event(pass: &Pass) -> bool {
    let wanted = pass.wanted();
    pass.all()
        .filter(|set| is_active(set))
        .any(|set| number(set, DESIRED_REPLICAS).is_some_and(|desired| desired != wanted))
}

fn number(set: &ReplicaSet, annotation_name: &str) -> Option<i32> {
    annotation(&set.metadata, annotation_name)?.parse().ok()
}

pub fn is_saturated(pass: &Pass) -> bool {
    let wanted = pass.wanted();
    pass.new.as_ref().is_some_and(|new| {
        set_replicas(new) == wanted
            && number(new, DESIRED_REPLICAS) == Some(wanted)
            && available(new) == wanted
    })
}

/// Sizes of the active sets when a rollout under way is resized: in proportion, the rest to the largest.
pub fn proportional(deployment: &Deployment, mut active: Vec<&ReplicaSet>) -> Vec<(String, i32)> {
    let wanted = replicas_of(deployment);
    let allowed = if wanted > 0 {
        wanted + max_surge(deployment)
    } else {
        0
    };
    let to_add = allowed - total(active.iter().copied());
    if to_add > 0 {
        active.sort_by_key(|set| {
            (
                Reverse(set_replicas(set)),
                Reverse(created(set)),
                set_name(set).to_owned(),
            )
        });
    } else {
        active.sort_by_key(|set| (Reverse(set_replicas(set)), created(set), set_name(set).to_owned()));
    }
    let mut added = 0;
    let mut sizes: Vec<_> = active
        .into_iter()
        .map(|set| {
            let share = share(set, deployment, to_add, added);
            added += share;
            (set_name(set).to_owned(), set_replicas(set) + share)
        })
        .collect();
    if let Some((_, largest)) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    sizes
}

fn created(set: &ReplicaSet) -> Option<k8s_openapi::jiff::Timestamp> {
    set.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

fn share(set: &ReplicaSet, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if set_replicas(set) == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, deployment);
    let left = to_add - added;
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    let (size, wanted) = (set_replicas(set), replicas_of(deployment));
    if wanted == 0 {
        return -size;
    }
    let before = number(set, MAX_REPLICAS)
        .filter(|n| *n != 0)
        .or_else(|| deployment.status.as_ref().and_then(|s| s.replicas))
        .unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let max = f64::from(wanted + max_surge(deployment));
    (f64::from(size) * max / f64::from(before)).round() as i32 - size
}

/// How many old pods may go now, so that enough stay available: new pods that are not available yet count as missing.
pub fn old_to_scale_down(pass: &Pass) -> i32 {
    let Some(new) = &pass.new else { return 0 };
    let min_available = pass.wanted() - max_unavailable(&pass.deployment);
    total(pass.all()) - min_available - (set_replicas(new) - available(new))
}

/// Old pods that are not available serve nobody: they go first. New sizes by index.
pub fn unhealthy_first(old: &[ReplicaSet], budget: i32) -> Vec<(usize, i32)> {
    let (mut left, mut sizes) = (budget, Vec::new());
    for index in by_age(old) {
        let (size, healthy) = (set_replicas(&old[index]), available(&old[index]));
        if left <= 0 {
            break;
        }
        if size == 0 || size == healthy {
            continue;
        }
        let down = left.min(size - healthy);
        left -= down;
        if down > 0 {
            sizes.push((index, size - down));
        }
    }
    sizes
}

/// Then available old pods, as many as are available above the minimum.
pub fn healthy_next(pass: &Pass) -> Vec<(usize, i32)> {
    let min_available = pass.wanted() - max_unavailable(&pass.deployment);
    let mut left = pass.all().map(available).sum::<i32>() - min_available;
    let mut sizes = Vec::new();
    for index in by_age(&pass.old) {
        let size = set_replicas(&pass.old[index]);
        if left <= 0 {
            break;
        }
        if size == 0 {
            continue;
        }
        let down = size.min(left);
        left -= down;
        sizes.push((index, size - down));
    }
    sizes
}

fn by_age(sets: &[ReplicaSet]) -> Vec<usize> {
    let mut indexes: Vec<_> = (0..sets.len()).collect();
    indexes.sort_by_key(|i| (created(&sets[*i]), set_name(&sets[*i])));
    indexes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .unwrap()
    }

    fn set(name: &str, replicas: i32, available: i32, max: i32) -> ReplicaSet {
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": {MAX_REPLICAS: max.to_string()}}, "spec": {"replicas": replicas, "selector": {}},
            "status": {"replicas": replicas, "availableReplicas": available}}))
        .unwrap()
    }

    #[test]
    fn percentages_round_surge_up_and_unavailability_down() {
        let d = deployment(5, json!("30%"), json!("30%"));
        assert_eq!((max_surge(&d), max_unavailable(&d)), (2, 1));
        let stuck = deployment(5, json!(0), json!("10%"));
        assert_eq!((max_surge(&stuck), max_unavailable(&stuck)), (0, 1));
        assert_eq!(max_unavailable(&deployment(2, json!(1), json!(10))), 2);
    }

    #[test]
    fn the_new_set_grows_into_the_surge() {
        let d = deployment(10, json!("25%"), json!("25%"));
        assert_eq!(new_size(&d, 10, 0), 3);
        assert_eq!(new_size(&d, 13, 3), 3);
        assert_eq!(new_size(&d, 0, 0), 10);
    }

    #[test]
    fn a_resize_in_the_middle_of_a_rollout_is_proportional() {
        let d = deployment(15, json!(3), json!(2));
        let (old, new) = (set("old", 8, 8, 13), set("new", 5, 5, 13));
        let sizes = proportional(&d, vec![&old, &new]);
        assert_eq!(sizes, [("old".to_owned(), 11), ("new".to_owned(), 7)]);
        assert_eq!(sizes.iter().map(|(_, n)| n).sum::<i32>(), 18);
        let zero = deployment(0, json!(3), json!(2));
        assert!(proportional(&zero, vec![&old, &new]).iter().all(|(_, n)| *n == 0));
    }

    #[test]
    fn enough_pods_stay_available_during_a_rollout() {
        let pass = Pass {
            deployment: deployment(10, json!(2), json!(1)),
            new: Some(set("new", 2, 0, 12)),
            old: vec![set("old", 10, 10, 12)],
        };
        assert_eq!(old_to_scale_down(&pass), 1);
        assert_eq!(healthy_next(&pass), [(0, 9)]);
        let broken = vec![set("old", 10, 4, 12)];
        assert_eq!(unhealthy_first(&broken, 3), [(0, 7)]);
    }
}
