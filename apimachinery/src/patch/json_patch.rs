//! RFC 6902, with the liberties of the Go library: negative indexes count from the end, and a missing field tests equal to null.

use super::{MAX_JSON_PATCH_COPY_BYTES, MAX_JSON_PATCH_OPERATIONS, PatchError, open};
use crate::json;
use crate::value::Value;

type Result<T> = std::result::Result<T, PatchError>;

/// Applies a list of operations. On error the value is left half changed: throw it away.
pub fn json_patch(value: &mut Value, ops: &Value) -> Result<()> {
    let ops = ops.as_list().ok_or_else(|| {
        let found = ops.json_type();
        PatchError::BadRequest(format!(
            "json: cannot unmarshal {found} into Go value of type jsonpatch.Patch"
        ))
    })?;
    if ops.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            ops.len()
        )));
    }
    let mut copied = 0;
    ops.iter().try_for_each(|op| apply(value, op, &mut copied))
}

fn apply(document: &mut Value, op: &Value, copied: &mut usize) -> Result<()> {
    match op.str_at("op") {
        "add" => add(document, pointer(op, "path")?, operand(op)?),
        "remove" => remove(document, pointer(op, "path")?).map(drop),
        "replace" => replace(document, pointer(op, "path")?, operand(op)?),
        "move" => {
            let moved = remove(document, pointer(op, "from")?)?;
            add(document, pointer(op, "path")?, moved)
        }
        "copy" => copy(document, op, copied),
        "test" => test(
            document,
            pointer(op, "path")?,
            op.get("value").unwrap_or(&Value::Null),
        ),
        other => Err(PatchError::Unprocessable(format!("Unexpected kind: {other}"))),
    }
}

fn pointer<'a>(op: &'a Value, name: &str) -> Result<&'a str> {
    let missing = || PatchError::Unprocessable(format!("operation missing {name} field: missing value"));
    op.get(name).and_then(Value::as_str).ok_or_else(missing)
}

fn operand(op: &Value) -> Result<Value> {
    let missing = || PatchError::Unprocessable("operation, missing value field: missing value".to_owned());
    op.get("value").cloned().ok_or_else(missing)
}

fn copy(document: &mut Value, op: &Value, copied: &mut usize) -> Result<()> {
    let from = pointer(op, "from")?;
    let value = find(document, from)
        .cloned()
        .ok_or_else(|| missing("copy", from))?;
    *copied += json::to_vec(&value).len();
    if *copied > MAX_JSON_PATCH_COPY_BYTES {
        return Err(PatchError::Unprocessable(format!(
            "Unable to complete the copy, the accumulated size increase of the copies exceeds {MAX_JSON_PATCH_COPY_BYTES} bytes"
        )));
    }
    add(document, pointer(op, "path")?, value)
}

fn missing(operation: &str, path: &str) -> PatchError {
    PatchError::Unprocessable(format!(
        "{operation} operation does not apply: doc is missing path: \"{path}\": missing value"
    ))
}

fn bad_index(key: &str) -> PatchError {
    PatchError::Unprocessable(format!(
        "Unable to access invalid index: {key}: invalid index referenced"
    ))
}

/// The parts of a pointer, unescaped.
fn steps(path: &str) -> impl Iterator<Item = String> {
    path.split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
}

fn find<'a>(document: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    steps(path).try_fold(document, |value, key| child(value, &key))
}

fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    open(value);
    match value {
        Value::Object(object) => object.get_mut(key),
        Value::List(items) => {
            let i = index(key, items.len())?;
            items.get_mut(i)
        }
        _ => None,
    }
}

/// An index into a list of `len` places.
fn index(key: &str, len: usize) -> Option<usize> {
    let number: i64 = key.parse().ok()?;
    match usize::try_from(number) {
        Ok(i) => (i < len).then_some(i),
        Err(_) => len.checked_sub(usize::try_from(number.unsigned_abs()).ok()?),
    }
}

/// The container that a path's last step is in, and that step.
fn parent<'a>(document: &'a mut Value, path: &str, operation: &str) -> Result<(&'a mut Value, String)> {
    let mut keys: Vec<String> = steps(path).collect();
    let last = keys.pop().ok_or_else(|| missing(operation, path))?;
    let container = keys
        .iter()
        .try_fold(document, |value, key| child(value, key))
        .ok_or_else(|| missing(operation, path))?;
    open(container);
    match container {
        Value::Object(_) | Value::List(_) => Ok((container, last)),
        _ => Err(missing(operation, path)),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<()> {
    match parent(document, path, "add")? {
        (Value::Object(object), key) => drop(object.insert(key, value)),
        (Value::List(items), key) if key == "-" => items.push(value),
        (Value::List(items), key) => {
            let at = index(&key, items.len() + 1).ok_or_else(|| bad_index(&key))?;
            items.insert(at, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value> {
    match parent(document, path, "remove")? {
        (Value::Object(object), key) => object.remove(&key).ok_or_else(|| {
            PatchError::Unprocessable(format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
            ))
        }),
        (Value::List(items), key) => {
            let at = index(&key, items.len()).ok_or_else(|| bad_index(&key))?;
            Ok(items.remove(at))
        }
        _ => Err(missing("remove", path)),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<()> {
    let place = find(document, path).ok_or_else(|| {
        PatchError::Unprocessable(format!(
            "replace operation does not apply: doc is missing key: {path}: missing value"
        ))
    })?;
    *place = value;
    Ok(())
}

fn test(document: &mut Value, path: &str, wanted: &Value) -> Result<()> {
    let mut wanted = wanted.clone();
    let equal = match find(document, path) {
        Some(found) => {
            open(found);
            open(&mut wanted);
            *found == wanted
        }
        None => {
            parent(document, path, "test")?;
            wanted.is_null()
        }
    };
    match equal {
        true => Ok(()),
        false => Err(PatchError::Unprocessable(format!(
            "testing value {path} failed: test failed"
        ))),
    }
}
