//! TaintNodesByCondition: a new node takes no pods before it is ready.

use apimachinery::value::Value;

use super::{Operation, Plugin, Verdict};
use crate::registry::admission::Attributes;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if !super::is_main(a, "", "nodes") {
            return Ok(());
        }
        let Some(node) = &mut a.object else { return Ok(()) };
        let is_it = |t: &Value| t.str_at("key") == NOT_READY && t.str_at("effect") == "NoSchedule";
        if !node.list_at("spec.taints").iter().any(is_it) {
            node.list_mut_at("spec.taints").push(Value::from([
                ("key", NOT_READY.into()),
                ("effect", "NoSchedule".into()),
            ]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{attributes, object};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_new_node_is_tainted_once() {
        let mut a = attributes(Operation::Create, "", "nodes", "", "n", Some(json!({})));
        for _ in 0..2 {
            TaintNodesByCondition.admit(&mut a).expect("admitted");
        }
        assert_eq!(
            object(&a)["spec"]["taints"],
            json!([{"key": NOT_READY, "effect": "NoSchedule"}])
        );
    }
}
