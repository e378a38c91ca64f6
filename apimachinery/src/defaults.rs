//! Defaulting: the table's defaults, then the named hooks for what depends on other fields.
//!
//! The walk visits only what can have defaults. In each struct it fills in the table's defaults, goes down, and then runs the
//! struct's hook, so a hook sees its children complete. Fields that mirror another (`mirrors`) are brought in line on the way. Values that need a clock (`DeviceTaint.timeAdded`) are left to strategies.

mod hooks;
mod image_name;
mod mirrors;
mod pod;

use crate::image::add;
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
    /// A bit for each field below which there is something to do.
    children: u128,
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
    let mut seen = 0u128;
    for (key, value) in object.pairs_mut() {
        let Some(index) = ty.index_of_key(key) else {
            continue;
        };
        let field = &ty.fields[index];
        if !value.is_null() && (field.pointer || field.default.is_none() || !value.is_zero()) {
            seen |= 1 << index;
        }
        if plan.children & (1 << index) != 0 {
            descend(value, &field.shape);
        }
    }
    for &index in plan.defaults.iter().filter(|&&index| seen & (1 << index) == 0) {
        let Some(default) = &ty.fields[index].default else {
            continue;
        };
        set_default(
            object,
            ty,
            index,
            default.clone(),
            plan.children & (1 << index) != 0,
        );
    }
    if let Some(hook) = plan.hook {
        hook(object, ty);
    }
}

/// A default may itself be a struct with defaults.
fn set_default(object: &mut Object, ty: &'static Type, index: usize, mut default: Value, has_children: bool) {
    if has_children {
        descend(&mut default, &ty.fields[index].shape);
    }
    match object.get_mut(ty.fields[index].name) {
        Some(slot) => *slot = default,
        None => add(object, ty, index, default),
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
            let known = plans[id.index()].as_ref().map_or(0, |plan| plan.children);
            if children != known {
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
        children: 0,
        hook,
    })
}

fn busy_children(ty: &'static Type, plans: &Plans) -> u128 {
    let busy = (0..ty.fields.len()).filter(|&i| is_busy(&ty.fields[i].shape, plans));
    busy.fold(0, |bits, i| bits | 1 << i)
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
