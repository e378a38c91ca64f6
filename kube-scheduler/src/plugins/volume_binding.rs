//! VolumeBinding: pods wait for their claims, and go where their volumes can be reached.
//!
//! Served: claims that are bound, and the refusals for those that are not. Not served yet: choosing or provisioning
//! a volume for a claim that waits for its first consumer.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Volume as PodVolume;
use serde_json::Value;

use crate::framework::block::{Block, Verdict};
use crate::framework::events::{Actions, Kind};
use crate::framework::world::{Claim, Volumes, World};
use crate::framework::{NodeFilter, Plugin, Point, PreFilter, Rejection};
use crate::nodes::Nodes;
use crate::pod::PodInfo;
use crate::selector::NodeTerm;

struct VolumeBinding;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(VolumeBinding))
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        const ADD_OR_UPDATE: Actions = Actions::ADD.or(Actions::UPDATE);
        const {
            &[
                (Kind::PersistentVolumeClaim, ADD_OR_UPDATE),
                (Kind::PersistentVolume, ADD_OR_UPDATE),
                (Kind::StorageClass, ADD_OR_UPDATE),
                (Kind::Node, Actions::ADD.or(Actions::NODE_LABEL)),
            ]
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, world: &mut World) -> PreFilter {
        let Some(volumes) = pod.spec().and_then(|s| s.volumes.as_deref()) else {
            return PreFilter::Skip;
        };
        let mut reach = Reach::default();
        for (claim, ephemeral) in volumes.iter().filter_map(|v| claim_name(pod, v)) {
            if let Err(message) = reach.add(&world.volumes, &pod.namespace, &claim, ephemeral) {
                return PreFilter::Reject(Rejection { message });
            }
        }
        if reach.is_empty() {
            PreFilter::Skip
        } else {
            PreFilter::Filter(Box::new(reach))
        }
    }
}

/// The claim behind a pod's volume, and whether the pod's own template makes it.
fn claim_name(pod: &PodInfo, volume: &PodVolume) -> Option<(String, bool)> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some((claim.claim_name.clone(), false));
    }
    volume
        .ephemeral
        .as_ref()
        .map(|_| (format!("{}-{}", pod.name, volume.name), true))
}

/// Where all of a pod's volumes can be reached.
#[derive(Default)]
struct Reach {
    required: Vec<Box<[NodeTerm]>>,
    /// Some claim waits for its first consumer.
    unbound: bool,
}

const CONFLICT: u64 = 1;
const NOTHING_TO_BIND: u64 = 1 << 1;

impl Reach {
    fn is_empty(&self) -> bool {
        self.required.is_empty() && !self.unbound
    }

    fn add(&mut self, volumes: &Volumes, namespace: &str, name: &str, ephemeral: bool) -> Result<(), String> {
        let Some(claim) = volumes.claims.get(&format!("{namespace}/{name}")) else {
            return Err(if ephemeral {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        check_usable(name, claim)?;
        if claim.volume.is_empty() {
            if !volumes
                .late_binding_classes
                .get(&claim.class)
                .copied()
                .unwrap_or(false)
            {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            self.unbound = true;
        }
        let required = volumes
            .volumes
            .get(&claim.volume)
            .and_then(|v| v.required.clone());
        self.required.extend(required);
        Ok(())
    }
}

fn check_usable(name: &str, claim: &Claim) -> Result<(), String> {
    if claim.lost {
        let volume = &claim.volume;
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.terminating {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    Ok(())
}

impl NodeFilter for Reach {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[
            Cow::Borrowed("node(s) had volume node affinity conflict"),
            Cow::Borrowed("node(s) didn't find available persistent volumes to bind"),
        ]
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        block.retain(|row| {
            let reaches = |terms: &[NodeTerm]| {
                terms
                    .iter()
                    .any(|t| t.matches(nodes.name(row), nodes.node_labels(row)))
            };
            if !self.required.iter().all(|terms| reaches(terms)) {
                Verdict::Unresolvable(CONFLICT)
            } else if self.unbound {
                Verdict::Unresolvable(NOTHING_TO_BIND)
            } else {
                Verdict::Pass
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::framework::world::{Claim, Volume};
    use crate::selector::{NodeTerm, Operator, Requirement};
    use crate::testing::{Filtering, node, pod};

    fn filtering(claim: Claim) -> Filtering {
        let mut filtering = Filtering::new("VolumeBinding")
            .node(node("a").label("zone", "a"))
            .node(node("b").label("zone", "b"));
        let volumes = &mut filtering.world.volumes;
        volumes.claims.insert("default/data".into(), claim);
        volumes.late_binding_classes.insert("late".into(), true);
        let zone = Requirement {
            key: "zone".into(),
            operator: Operator::In,
            values: Box::new(["b".into()]),
        };
        let term = NodeTerm {
            labels: Box::new([zone]),
            fields: Box::new([]),
            valid: true,
        };
        volumes.volumes.insert(
            "pv".into(),
            Volume {
                required: Some(Box::new([term])),
            },
        );
        filtering
    }

    #[test]
    fn a_bound_claim_pins_the_pod_to_where_its_volume_is() {
        let bound = filtering(Claim {
            volume: "pv".into(),
            ..Claim::default()
        });
        let run = bound.run(pod("p").claim("data").build());
        assert_eq!(run.passing, ["b"]);
        assert_eq!(
            run.refusal("a"),
            "unresolvable: node(s) had volume node affinity conflict"
        );
    }

    #[test]
    fn pods_wait_for_claims_that_are_missing_unbound_or_unusable() {
        let rejected = |claim: Claim, name: &str| filtering(claim).run(pod("p").claim(name).build()).rejected;
        let cases = [
            (
                Claim::default(),
                "other",
                "persistentvolumeclaim \"other\" not found",
            ),
            (
                Claim::default(),
                "data",
                "pod has unbound immediate PersistentVolumeClaims",
            ),
            (
                Claim {
                    volume: "gone".into(),
                    lost: true,
                    ..Claim::default()
                },
                "data",
                "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"gone\"",
            ),
            (
                Claim {
                    volume: "pv".into(),
                    terminating: true,
                    ..Claim::default()
                },
                "data",
                "persistentvolumeclaim \"data\" is being deleted",
            ),
        ];
        for (claim, name, wanted) in cases {
            assert_eq!(rejected(claim, name).as_deref(), Some(wanted));
        }
        let late = filtering(Claim {
            class: "late".into(),
            ..Claim::default()
        });
        let run = late.run(pod("p").claim("data").build());
        let wanted = "unresolvable: node(s) didn't find available persistent volumes to bind";
        assert_eq!(run.refusal("a"), wanted);
    }
}
