//! Defaulting: the table's defaults, then the named hooks for what depends on other fields.
//!
//! The walk visits only what can have defaults. In each struct it fills in the table's defaults, goes down, and then runs the
//! struct's hook, so a hook sees its children complete. Values that need a clock (`DeviceTaint.timeAdded`) are left to strategies.

mod hooks;
mod image_name;
mod pod;

use crate::image::put;
use crate::quantity::Quantity;
use crate::schema::{Shape, Type, TypeId, registry};
use crate::value::{Object, Value};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Computes what depends on other fields of the same struct.
type Hook = fn(&mut Object, &'static Type);

/// What to do in one struct.
#[derive(Default)]
struct Plan {
    /// Indexes of fields with a default.
    defaults: Vec<usize>,
    /// Indexes of fields below which there is something to do.
    children: Vec<usize>,
    hook: Option<Hook>,
}

/// Fills in what upstream's defaulting fills in for `ty`. The value must be in Go's image.
pub fn apply(value: &mut Value, ty: TypeId) {
    if let Value::Object(object) = value {
        visit(object, ty);
    }
}

fn plans() -> &'static HashMap<TypeId, Plan> {
    static PLANS: OnceLock<HashMap<TypeId, Plan>> = OnceLock::new();
    PLANS.get_or_init(plan_all)
}

fn visit(object: &mut Object, id: TypeId) {
    let Some(plan) = plans().get(&id) else { return };
    let ty = id.get();
    for field in plan.defaults.iter().map(|&i| &ty.fields[i]) {
        let set = object
            .get(field.name)
            .is_some_and(|value| !value.is_null() && (field.pointer || !value.is_zero()));
        if let (false, Some(default)) = (set, &field.default) {
            put(object, ty, field.name, default.clone());
        }
    }
    for field in plan.children.iter().map(|&i| &ty.fields[i]) {
        if let Some(value) = object.get_mut(field.name) {
            descend(value, &field.shape);
        }
    }
    if let Some(hook) = plan.hook {
        hook(object, ty);
    }
}

fn descend(value: &mut Value, shape: &Shape) {
    match (shape, value) {
        (Shape::Struct(ty), Value::Object(object)) => visit(object, *ty),
        (Shape::List(item), Value::List(items)) => items.iter_mut().for_each(|value| descend(value, item)),
        (Shape::Map(item), Value::Object(map)) if **item == Shape::Quantity => round_up_to_milli(map),
        (Shape::Map(item), Value::Object(map)) => map.iter_mut().for_each(|(_, value)| descend(value, item)),
        _ => {}
    }
}

/// Resource lists are kept in thousandths.
fn round_up_to_milli(resources: &mut Object) {
    for (_, value) in resources.iter_mut() {
        let Some(text) = value.as_str() else { continue };
        // Only these can be finer.
        if !text.contains(['n', 'u', '.', 'e', 'E']) {
            continue;
        }
        if let Ok(mut quantity) = Quantity::parse(text) {
            quantity.round_up_to_milli();
            *value = quantity.to_string().into();
        }
    }
}

/// Grows the set of types with something to do from the leaves up, until nothing is added.
fn plan_all() -> HashMap<TypeId, Plan> {
    let mut plans: HashMap<TypeId, Plan> = HashMap::new();
    for id in registry().ids() {
        let plan = own_plan(id.get());
        if plan.hook.is_some() || !plan.defaults.is_empty() {
            plans.insert(id, plan);
        }
    }
    loop {
        let grown: Vec<(TypeId, Vec<usize>)> = registry()
            .ids()
            .map(|id| (id, busy_children(id.get(), &plans)))
            .collect();
        let before: usize = plans.values().map(|plan| plan.children.len()).sum();
        for (id, children) in grown.into_iter().filter(|(_, children)| !children.is_empty()) {
            plans.entry(id).or_default().children = children;
        }
        if plans.values().map(|plan| plan.children.len()).sum::<usize>() == before {
            return plans;
        }
    }
}

fn own_plan(ty: &'static Type) -> Plan {
    let defaults = (0..ty.fields.len())
        .filter(|&i| ty.fields[i].default.is_some())
        .collect();
    Plan {
        defaults,
        children: Vec::new(),
        hook: hooks::of(ty),
    }
}

fn busy_children(ty: &'static Type, plans: &HashMap<TypeId, Plan>) -> Vec<usize> {
    (0..ty.fields.len())
        .filter(|&i| is_busy(&ty.fields[i].shape, plans))
        .collect()
}

fn is_busy(shape: &Shape, plans: &HashMap<TypeId, Plan>) -> bool {
    match shape {
        Shape::Struct(ty) => plans.contains_key(ty),
        Shape::Map(item) if **item == Shape::Quantity => true,
        Shape::List(item) | Shape::Map(item) => is_busy(item, plans),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
