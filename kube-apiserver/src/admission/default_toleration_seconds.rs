//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable.

use apimachinery::value::Value;

use super::{Operation, Plugin, Verdict};
use crate::registry::admission::Attributes;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// `--default-not-ready-toleration-seconds` and its twin.
const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if !super::is_main(a, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &mut a.object else { return Ok(()) };
        for taint in TAINTS {
            if !pod
                .list_at("spec.tolerations")
                .iter()
                .any(|t| tolerates(t, taint))
            {
                let toleration = Value::from([
                    ("key", taint.into()),
                    ("operator", "Exists".into()),
                    ("effect", "NoExecute".into()),
                    ("tolerationSeconds", SECONDS.into()),
                ]);
                pod.list_mut_at("spec.tolerations").push(toleration);
            }
        }
        Ok(())
    }
}

/// An empty key or effect stands for all.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    matches!(toleration.str_at("effect"), "" | "NoExecute")
        && (toleration.str_at("key").is_empty() || toleration.str_at("key") == taint)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{new_pod, object};
    use super::*;
    use serde_json::json;

    fn added(tolerations: serde_json::Value) -> usize {
        let before = tolerations.as_array().map_or(0, Vec::len);
        let mut a = new_pod(json!({"spec": {"tolerations": tolerations}}));
        DefaultTolerationSeconds.admit(&mut a).expect("admitted");
        object(&a)["spec"]["tolerations"].as_array().map_or(0, Vec::len) - before
    }

    #[test]
    fn both_tolerations_are_added_unless_the_pod_says_its_own() {
        assert_eq!(added(json!([])), 2);
        assert_eq!(
            added(
                json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}])
            ),
            1
        );
        assert_eq!(added(json!([{"operator": "Exists"}])), 0);
        assert_eq!(
            added(json!([{"key": TAINTS[1], "operator": "Exists", "effect": "NoSchedule"}])),
            2
        );
    }
}
