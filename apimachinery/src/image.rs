//! Go's image of a struct: which fields it prints, and what a zero value looks like.
//!
//! Decoders gather the fields that a document has and leave here what Go would print of them, in its order.

use crate::schema::{Field, SchemaAlternative, Shape, Type};
use crate::value::{Object, Str, Value};

/// Fields gathered by a decoder: place in the schema and value. Decoders use one such stack for all nested objects.
pub(crate) type Gathered = Vec<(usize, Value)>;

/// The fields above `base` in schema order, joined by those that Go always prints.
pub(crate) fn take_object(ty: &'static Type, gathered: &mut Gathered, base: usize) -> Object {
    if !gathered[base..].is_sorted_by_key(|(index, _)| *index) {
        gathered[base..].sort_unstable_by_key(|(index, _)| *index);
    }
    let mut fields = Vec::with_capacity(gathered.len() - base + ty.always.len());
    let mut always = ty.always.iter().copied().peekable();
    for (index, value) in gathered.drain(base..) {
        while let Some(missing) = always.next_if(|&i| i < index) {
            fields.push(zero_field(ty, missing));
        }
        always.next_if_eq(&index);
        fields.push((ty.key(index), value));
    }
    fields.extend(always.map(|missing| zero_field(ty, missing)));
    Object::from_ordered(fields)
}

/// False for what Go's `omitempty` leaves out. A pointer to Go's zero time counts as unset: Go prints it as null and reads that
/// as unset.
pub(crate) fn is_kept(field: &Field, value: &Value) -> bool {
    if field.pointer {
        return !value.is_null();
    }
    match field.shape {
        Shape::Struct(_) | Shape::SchemaOr(..) | Shape::IntOrString | Shape::Quantity => true,
        // The message around it tells an empty list from none.
        Shape::Items(_) if field.always => !value.is_null(),
        // A written zero is what an absent field becomes anyway.
        _ => !value.is_zero(),
    }
}

fn zero_field(ty: &'static Type, index: usize) -> (Str, Value) {
    let field = &ty.fields[index];
    let value = if field.pointer {
        Value::Null
    } else {
        zero(&field.shape)
    };
    (ty.key(index), value)
}

/// Gives the items of a `kinded` list their `kind` and `apiVersion`.
pub(crate) fn set_kinds(items: &mut Value, shape: &Shape) {
    let Shape::List(item) = shape else { return };
    let Shape::Struct(id) = &**item else { return };
    let ty = id.get();
    let Some(gvk) = ty.gvk else { return };
    for object in items
        .as_list_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        put(object, ty, "kind", gvk.kind.into());
        put(object, ty, "apiVersion", gvk.api_version().into());
    }
}

/// Go's zero value as JSON.
pub(crate) fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::Int(0),
        Shape::String => Value::Str(Str::default()),
        Shape::Quantity => Value::Str(Str::from_static("0")),
        Shape::Struct(ty) => {
            let ty = ty.get();
            Value::Object(Object::from_ordered(
                ty.always.iter().map(|&i| zero_field(ty, i)).collect(),
            ))
        }
        Shape::SchemaOr(_, SchemaAlternative::Bool) => Value::Bool(false),
        _ => Value::Null,
    }
}

/// Sets a field at its place in the schema's order. Unknown names are appended.
pub(crate) fn put(object: &mut Object, ty: &'static Type, name: &'static str, value: Value) {
    if let Some(slot) = object.get_mut(name) {
        *slot = value;
        return;
    }
    match ty.index_of(name) {
        Some(index) => add(object, ty, index, value),
        None => object.insert_at(object.len(), Str::from_static(name), value),
    }
}

/// Adds a field that is not there yet at its place in the schema's order.
pub(crate) fn add(object: &mut Object, ty: &'static Type, index: usize, value: Value) {
    let later = |(key, _): &(Str, Value)| ty.index_of_key(key).is_some_and(|other| other > index);
    let place = object.pairs().iter().position(later).unwrap_or(object.len());
    object.insert_at(place, ty.key(index), value);
}
