//! Strategic merge patch: a merge patch that knows from the schema how lists merge, with directives for the rest.
//!
//! `$patch: replace|delete` in an object or list item, `$retainKeys` (the only fields an object keeps),
//! `$setElementOrder/x` (the order of list x), `$deleteFromPrimitiveList/x` (values that leave list x).

use super::{PatchError, open, take_all};
use crate::json;
use crate::schema::{Field, Shape, TypeId};
use crate::value::{Object, Value};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, PatchError>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `value`, an object of type `ty`.
pub fn strategic(value: &mut Value, patch: &Value, ty: TypeId) -> Result<()> {
    let (Value::Object(original), Value::Object(patch)) = (value, patch) else {
        return Err(PatchError::BadRequest("invalid JSON document".to_owned()));
    };
    merge_object(original, patch.clone(), Some(&Shape::Struct(ty)))
}

fn malformed(what: &str) -> PatchError {
    PatchError::BadRequest(format!("invalid patch format of {what}"))
}

/// The schema of a key, where there is one: a field of a struct.
fn field_of(shape: Option<&Shape>, key: &str) -> Option<&'static Field> {
    match shape? {
        Shape::Struct(ty) | Shape::SchemaOr(ty, _) => ty.get().field(key),
        _ => None,
    }
}

fn shape_of<'a>(shape: Option<&'a Shape>, key: &str) -> Option<&'a Shape> {
    match shape? {
        Shape::Map(item) => Some(item),
        _ => field_of(shape, key).map(|field| &field.shape),
    }
}

fn merge_object(original: &mut Object, mut patch: Object, shape: Option<&Shape>) -> Result<()> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return whole_object(original, patch, &directive);
    }
    retain_keys(original, &mut patch)?;
    order_lists(original, &mut patch, shape)?;
    for (key, patch) in take_all(&mut patch) {
        match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            Some(list) => delete_from_list(original, list, &patch)?,
            None => merge_field(original, &key, patch, shape)?,
        }
    }
    Ok(())
}

fn whole_object(original: &mut Object, patch: Object, directive: &Value) -> Result<()> {
    match directive.as_str() {
        Some("replace") => *original = patch,
        Some("delete") => *original = Object::new(),
        _ => return Err(unknown_directive(directive)),
    }
    Ok(())
}

fn unknown_directive(directive: &Value) -> PatchError {
    let text = String::from_utf8_lossy(&json::to_vec(directive)).into_owned();
    PatchError::BadRequest(format!("unknown patch type: {text}"))
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys: Vec<&str> = keys
        .as_list()
        .ok_or_else(|| malformed("retainKeys"))?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let is_list_directive =
        |key: &str| key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    let strays = patch
        .iter()
        .any(|(key, value)| !value.is_null() && !is_list_directive(key) && !keys.contains(&key));
    if strays {
        return Err(malformed("retainKeys"));
    }
    original.retain(|key, _| keys.contains(&key));
    Ok(())
}

/// Carries out `$setElementOrder` together with the patch of the list that it names.
fn order_lists(original: &mut Object, patch: &mut Object, shape: Option<&Shape>) -> Result<()> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
        .map(str::to_owned)
        .collect();
    for directive in directives {
        let key = &directive[SET_ELEMENT_ORDER.len()..];
        let Some(Value::List(order)) = patch.remove(&directive) else {
            return Err(malformed("setElementOrder list"));
        };
        let field = field_of(shape, key);
        let merge_key = field.and_then(|field| field.merge_key);
        let patched = match patch.remove(key) {
            None => None,
            Some(Value::List(items)) => Some(items),
            Some(other) => return Err(expected_list(&other)),
        };
        if let Some(items) = &patched {
            check_order(items, &order, merge_key)?;
        }
        let before = match original.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::List(items)) => Some(items.clone()),
            Some(other) => return Err(expected_list(other)),
        };
        let merged = match (before.clone(), patched) {
            (None, None) => continue,
            (Some(items), None) => items,
            (None, Some(items)) => items.into_iter().filter_map(without_directives).collect(),
            (Some(items), Some(patch)) => merge_list(items, patch, field)?,
        };
        let sorted = sort_as(merged, &order, before.as_deref().unwrap_or_default(), merge_key)?;
        original.insert(key, Value::List(sorted));
    }
    Ok(())
}

fn expected_list(found: &Value) -> PatchError {
    PatchError::BadRequest(format!(
        "expected a []interface {{}}, but received a {}",
        found.json_type()
    ))
}

/// The items of the patch must stand in the order that the directive demands.
fn check_order(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<()> {
    let mut wanted = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let own = key_of(item, merge_key)?;
        let found = wanted
            .by_ref()
            .map(|other| key_of(other, merge_key))
            .find(|other| other.as_ref() == Ok(&own));
        if found.is_none() && !order.is_empty() {
            return Err(PatchError::BadRequest(
                "The order in patch list doesn't match $setElementOrder list".to_owned(),
            ));
        }
    }
    Ok(())
}

fn delete_from_list(original: &mut Object, key: &str, values: &Value) -> Result<()> {
    let values = values.as_list().ok_or_else(|| malformed("primitive list"))?;
    if let Some(Value::List(items)) = original.get_mut(key) {
        let gone: HashMap<Vec<u8>, ()> = values.iter().map(|value| (json::to_vec(value), ())).collect();
        items.retain(|item| !gone.contains_key(&json::to_vec(item)));
    }
    Ok(())
}

fn merge_field(original: &mut Object, key: &str, patch: Value, shape: Option<&Shape>) -> Result<()> {
    if patch.is_null() {
        original.remove(key);
        return Ok(());
    }
    let field = field_of(shape, key);
    let replaces = field.is_some_and(|field| field.patch.replace);
    if let Some(value) = original.get_mut(key) {
        open(value);
        match (value, patch) {
            (Value::Object(object), Value::Object(patch)) if !replaces => {
                return merge_object(object, patch, shape_of(shape, key));
            }
            (Value::List(items), Value::List(patch)) if field.is_some_and(|field| field.patch.merge) => {
                *items = merge_list(std::mem::take(items), patch, field)?;
            }
            (value, patch) => match without_directives(patch) {
                Some(patch) => *value = patch,
                None => drop(original.remove(key)),
            },
        }
        return Ok(());
    }
    if let Some(value) = without_directives(without_nulls(patch)) {
        original.insert(key, value);
    }
    Ok(())
}

/// Null means nothing in an object that is new.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(Object::from_pairs(
                kept.map(|(key, value)| (key, without_nulls(value))).collect(),
            ))
        }
        Value::List(items) => Value::List(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Drops objects that carry a directive: there is nothing for it to act on.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(object) if object.contains_key(DIRECTIVE) => None,
        Value::Object(object) => {
            let kept = object
                .into_iter()
                .filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(Object::from_pairs(kept.collect())))
        }
        Value::List(items) => Some(Value::List(
            items.into_iter().filter_map(without_directives).collect(),
        )),
        other => Some(other),
    }
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, field: Option<&'static Field>) -> Result<Vec<Value>> {
    let is_object = |value: &Value| matches!(value, Value::Object(_));
    let objects = original
        .iter()
        .chain(&patch)
        .filter(|value| is_object(value))
        .count();
    if original
        .iter()
        .chain(&patch)
        .any(|value| matches!(value, Value::List(_)))
    {
        return Err(PatchError::Unprocessable(
            "lists of lists are not supported".to_owned(),
        ));
    }
    if objects == 0 {
        return merge_scalars(original, patch);
    }
    if objects < original.len() + patch.len() {
        return Err(PatchError::BadRequest(
            "list element types are not identical".to_owned(),
        ));
    }
    let Some((field, key)) = field.and_then(|field| Some((field, field.merge_key?))) else {
        return Err(PatchError::BadRequest(
            "cannot merge lists without merge key".to_owned(),
        ));
    };
    merge_objects(original, patch, field, key)
}

fn merge_scalars(original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>> {
    let mut seen: HashMap<Vec<u8>, ()> = HashMap::new();
    let both = original.iter().chain(&patch);
    let merged = both
        .filter(|value| seen.insert(json::to_vec(value), ()).is_none())
        .cloned()
        .collect();
    sort_as(merged, &patch, &original, None)
}

fn merge_objects(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    field: &'static Field,
    key: &'static str,
) -> Result<Vec<Value>> {
    let item_shape = match &field.shape {
        Shape::List(item) => Some(&**item),
        _ => None,
    };
    let mut additions = Vec::new();
    let mut replace = false;
    for item in patch {
        match item
            .get(DIRECTIVE)
            .map(|directive| (directive.as_str(), directive))
        {
            None => additions.push(item),
            Some((Some("replace"), _)) => replace = true,
            Some((Some("delete"), _)) => {
                let gone = key_of(&item, Some(key))?;
                original.retain(|value| key_of(value, Some(key)) != Ok(gone.clone()));
            }
            Some((_, directive)) => return Err(unknown_directive(directive)),
        }
    }
    if replace {
        return Ok(additions);
    }
    let before = original.clone();
    let mut merged = original;
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    for (i, value) in merged.iter().enumerate() {
        places.entry(key_of(value, Some(key))?).or_insert(i);
    }
    for item in &additions {
        let own = key_of(item, Some(key))?;
        match (places.get(&own).map(|&i| &mut merged[i]), item) {
            (Some(Value::Object(object)), Value::Object(patch)) => {
                merge_object(object, patch.clone(), item_shape)?
            }
            _ => {
                places.insert(own, merged.len());
                merged.push(item.clone());
            }
        }
    }
    sort_as(merged, &additions, &before, Some(key))
}

/// What identifies a list item: the value of its merge key, or itself.
fn key_of(item: &Value, merge_key: Option<&str>) -> Result<Vec<u8>> {
    let Some(key) = merge_key else {
        return Ok(json::to_vec(item));
    };
    match item.get(key) {
        Some(value) => Ok(json::to_vec(value)),
        None => {
            let text = String::from_utf8_lossy(&json::to_vec(item)).into_owned();
            Err(PatchError::BadRequest(format!(
                "map: {text} does not contain declared merge key: {key}"
            )))
        }
    }
}

/// Items named by `order` in that order; the others keep `before`'s order and stand before those that they stood before.
fn sort_as(
    items: Vec<Value>,
    order: &[Value],
    before: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>> {
    let places = |list: &[Value]| -> Result<HashMap<Vec<u8>, usize>> {
        let mut places = HashMap::new();
        for (i, item) in list.iter().enumerate() {
            places.entry(key_of(item, merge_key)?).or_insert(i);
        }
        Ok(places)
    };
    let (order, before) = (places(order)?, places(before)?);
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let key = key_of(&item, merge_key)?;
        let was = before.get(&key).copied();
        match order.get(&key) {
            Some(&place) => named.push((place, was, item)),
            None => others.push((was.unwrap_or(usize::MAX), was, item)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(place, ..)| *place);
    Ok(interleave(others, named))
}

type Placed = (usize, Option<usize>, Value);

/// Merges two sorted lists: the left item goes first only if both stood in the old list and it stood first.
fn interleave(left: Vec<Placed>, right: Vec<Placed>) -> Vec<Value> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut merged = Vec::new();
    loop {
        let left_first = match (left.peek(), right.peek()) {
            (None, None) => return merged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, Some(l), _)), Some((_, Some(r), _))) => l < r,
            _ => false,
        };
        let next = if left_first { left.next() } else { right.next() };
        merged.extend(next.map(|(_, _, item)| item));
    }
}
