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

/// One plan for each type, by its index; `None` where there is nothing to do.
type Plans = Vec<Option<Plan>>;

fn plans() -> &'static Plans {
    static PLANS: OnceLock<Plans> = OnceLock::new();
    PLANS.get_or_init(plan_all)
}

fn visit(object: &mut Object, id: TypeId) {
    let Some(plan) = &plans()[id.index()] else { return };
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
fn plan_all() -> Plans {
    let mut plans: Plans = registry().ids().map(|id| own_plan(id.get())).collect();
    loop {
        let mut grown = false;
        for id in registry().ids() {
            let children = busy_children(id.get(), &plans);
            let known = plans[id.index()].as_ref().map_or(0, |plan| plan.children.len());
            if children.len() > known {
                plans[id.index()].get_or_insert_default().children = children;
                grown = true;
            }
        }
        if !grown {
            return plans;
        }
    }
}

fn own_plan(ty: &'static Type) -> Option<Plan> {
    let defaults: Vec<usize> = (0..ty.fields.len())
        .filter(|&i| ty.fields[i].default.is_some())
        .collect();
    let hook = hooks::of(ty);
    let busy = hook.is_some() || !defaults.is_empty();
    busy.then_some(Plan {
        defaults,
        children: Vec::new(),
        hook,
    })
}

fn busy_children(ty: &'static Type, plans: &Plans) -> Vec<usize> {
    (0..ty.fields.len())
        .filter(|&i| is_busy(&ty.fields[i].shape, plans))
        .collect()
}

fn is_busy(shape: &Shape, plans: &Plans) -> bool {
    match shape {
        Shape::Struct(ty) => plans[ty.index()].is_some(),
        Shape::Map(item) if **item == Shape::Quantity => true,
        Shape::List(item) | Shape::Map(item) => is_busy(item, plans),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
