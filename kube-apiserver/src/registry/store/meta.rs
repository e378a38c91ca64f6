//! metadata: what the server sets, and what clients may write there.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::Meta;
use apimachinery::schema::{Shape, TypeId};
use apimachinery::status::{self, StatusError};
use apimachinery::validation;
use apimachinery::value::{Object, Value};
use rand::Rng;

use super::Store;
use crate::clock;
use crate::registry::strategy::{NameRule, Request};

/// All keys and values of an object's annotations together.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Generated names end in this many random characters, and the whole stays a DNS label.
const SUFFIX_LENGTH: usize = 5;
const MAX_GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;
/// No vowels, no look-alikes: upstream's alphabet.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const METADATA: Path<'static> = Path::new("metadata");

/// The object's namespace must be that of the path, and becomes it where the body says none.
pub(super) fn match_namespace(store: &Store, namespace: &str, object: &mut Value) -> Result<(), StatusError> {
    let own = object.namespace();
    if !store.resource.namespaced || own == namespace {
        return Ok(());
    }
    if own.is_empty() {
        object.metadata_mut().insert("namespace", Value::from(namespace));
        return Ok(());
    }
    Err(status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request".to_string(),
    ))
}

pub(super) fn fill_system_fields(request: &Request<'_>, object: &mut Value) {
    let metadata = object.metadata_mut();
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "resourceVersion",
        "generation",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid", Value::from(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp", Value::from(clock::rfc3339(request.now)));
}

/// System fields of an update come from the stored object. Where the body states another value for an immutable one,
/// validation says so.
pub(super) fn keep_system_fields(new: &mut Value, old: &Value) {
    let stored = old.at("metadata").and_then(Value::as_object);
    let metadata = new.metadata_mut();
    metadata.remove("selfLink");
    metadata.remove("managedFields");
    for field in ["creationTimestamp", "generation", "deletionTimestamp"] {
        copy(metadata, stored, field);
    }
    for field in ["uid", "deletionGracePeriodSeconds"] {
        if metadata.get(field).is_none_or(Value::is_zero) {
            copy(metadata, stored, field);
        }
    }
}

fn copy(metadata: &mut Object, stored: Option<&Object>, field: &'static str) {
    match stored.and_then(|s| s.get(field)) {
        Some(value) => drop(metadata.insert(field, value.clone())),
        None => drop(metadata.remove(field)),
    }
}

pub(super) fn generate_name(object: &mut Value) {
    let base: String = object.generate_name().chars().take(MAX_GENERATED_BASE).collect();
    let mut rng = rand::rng();
    let suffix: String = (0..SUFFIX_LENGTH)
        .map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())]))
        .collect();
    object
        .metadata_mut()
        .insert("name", Value::from(format!("{base}{suffix}")));
}

pub(super) fn version_required(store: &Store, name: &str) -> StatusError {
    let error = field::invalid(
        &METADATA.child("resourceVersion"),
        0i64,
        "must be specified for an update",
    );
    status::invalid(&store.shape.group, &store.shape.kind, name, &vec![error])
}

pub(super) fn version_invalid(store: &Store, name: &str, version: &str) -> StatusError {
    let error = field::invalid(
        &METADATA.child("resourceVersion"),
        version,
        format!(
            "strconv.ParseUint: parsing {}: invalid syntax",
            field::quote(version)
        ),
    );
    status::invalid(&store.shape.group, &store.shape.kind, name, &vec![error])
}

pub(super) fn validate_create(store: &Store, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let rule = store.strategy.name_rule();
    let name_path = METADATA.child("name");
    if !object.generate_name().is_empty() {
        let masked = mask_trailing_dash(object.generate_name());
        push_all(
            &mut errors,
            &METADATA.child("generateName"),
            object.generate_name(),
            name_errors(rule, &masked),
        );
    }
    if object.name().is_empty() {
        errors.push(field::required(&name_path, "name or generateName is required"));
    } else {
        push_all(
            &mut errors,
            &name_path,
            object.name(),
            name_errors(rule, object.name()),
        );
    }
    validate_namespace(store, object, &mut errors);
    validate_maps(object, &mut errors);
    validate_owners(object, &mut errors);
    validate_finalizers(object, &mut errors);
    errors
}

fn validate_namespace(store: &Store, object: &Value, errors: &mut ErrorList) {
    let path = METADATA.child("namespace");
    match (store.resource.namespaced, object.namespace()) {
        (true, "") => errors.push(field::required(&path, "")),
        (true, namespace) => push_all(errors, &path, namespace, validation::dns1123_label(namespace)),
        (false, "") => {}
        (false, _) => errors.push(field::forbidden(&path, "not allowed on this type")),
    }
}

pub fn name_errors(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::Subdomain => validation::dns1123_subdomain(name),
        NameRule::Label => validation::dns1123_label(name),
        NameRule::Label1035 => validation::dns1035_label(name),
        NameRule::PathSegment => path_segment(name),
    }
}

/// What no name may be, because it stands in URLs and keys.
fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be {}", field::quote(name).replace('"', "'"))];
    }
    let illegal = ["/", "%"].into_iter().filter(|c| name.contains(c));
    illegal.map(|c| format!("may not contain '{c}'")).collect()
}

fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(base) if !base.is_empty() => format!("{base}a"),
        _ => name.to_owned(),
    }
}

fn push_all(errors: &mut ErrorList, path: &Path<'_>, value: &str, messages: Vec<String>) {
    errors.extend(
        messages
            .into_iter()
            .map(|message| field::invalid(path, value, &message)),
    );
}

fn validate_maps(object: &Value, errors: &mut ErrorList) {
    validate_labels(object.labels(), &METADATA.child("labels"), errors);
    let path = METADATA.child("annotations");
    let mut total = 0;
    for (key, value) in object.annotations().into_iter().flat_map(Object::iter) {
        push_all(
            errors,
            &path,
            key,
            validation::qualified_name(&key.to_lowercase()),
        );
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX_ANNOTATION_BYTES {
        errors.push(field::too_long(&path, MAX_ANNOTATION_BYTES));
    }
}

pub fn validate_labels(labels: Option<&Object>, path: &Path<'_>, errors: &mut ErrorList) {
    for (key, value) in labels.into_iter().flat_map(Object::iter) {
        push_all(errors, path, key, validation::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        push_all(errors, path, value, validation::label_value(value));
    }
}

fn validate_owners(object: &Value, errors: &mut ErrorList) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<&Value> = None;
    for (i, owner) in object.owner_references().iter().enumerate() {
        let at = path.index(i);
        if owner.str_at("apiVersion").is_empty() {
            errors.push(field::invalid(
                &at.child("apiVersion"),
                "",
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            if owner.str_at(name).is_empty() {
                errors.push(field::invalid(&at.child(name), "", "must not be empty"));
            }
        }
        if owner.bool_at("controller") {
            match controller {
                Some(first) => errors.push(field::invalid(
                    &path,
                    object.at("metadata.ownerReferences").cloned().unwrap_or_default(),
                    two_controllers(first, owner),
                )),
                None => controller = Some(owner),
            }
        }
    }
}

fn two_controllers(first: &Value, second: &Value) -> String {
    let show = |owner: &Value| format!("{}/{}", owner.str_at("kind"), owner.str_at("name"));
    format!(
        "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
        show(first),
        show(second)
    )
}

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

fn validate_finalizers(object: &Value, errors: &mut ErrorList) {
    let path = METADATA.child("finalizers");
    let mut both = 0;
    for finalizer in object.finalizers() {
        push_all(errors, &path, finalizer, validation::qualified_name(finalizer));
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            errors.push(field::invalid(
                &path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
        both += usize::from(matches!(finalizer, "orphan" | "foregroundDeletion"));
    }
    if both > 1 {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(field::invalid(
            &path,
            object.at("metadata.finalizers").cloned().unwrap_or_default(),
            message,
        ));
    }
}

pub(super) fn validate_update(_store: &Store, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_maps(new, &mut errors);
    validate_owners(new, &mut errors);
    validate_finalizers(new, &mut errors);
    if old.deletion_timestamp().is_some() {
        refuse_new_finalizers(new, old, &mut errors);
    }
    for name in ["name", "namespace", "uid", "deletionGracePeriodSeconds"] {
        let (new, old) = (metadata_field(new, name), metadata_field(old, name));
        if new != old && !(new.is_zero() && old.is_zero()) {
            errors.push(field::invalid(
                &METADATA.child(name),
                new.clone(),
                "field is immutable",
            ));
        }
    }
    errors
}

fn metadata_field<'a>(object: &'a Value, name: &str) -> &'a Value {
    const NULL: &Value = &Value::Null;
    object.get("metadata").and_then(|m| m.get(name)).unwrap_or(NULL)
}

fn refuse_new_finalizers(new: &Value, old: &Value, errors: &mut ErrorList) {
    let added: Vec<&str> = new
        .finalizers()
        .filter(|f| !old.finalizers().any(|o| o == *f))
        .collect();
    if !added.is_empty() {
        let list = added
            .iter()
            .map(|f| field::quote(f))
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.push(field::forbidden(&METADATA.child("finalizers"), &message));
    }
}

/// Required strings may be empty here: Go's own validation lets them.
const MAY_BE_EMPTY: [(&str, &str); 3] = [
    ("HTTPHeader", "value"),
    ("Event", "note"),
    ("RoleRef", "apiGroup"),
];

/// What the schema calls required and Go's zero value does not satisfy. Status is the servers' own business.
pub(super) fn required_fields(store: &Store, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if store.strategy.validates_required_fields() {
        return errors;
    }
    for field in store
        .shape
        .ty
        .get()
        .fields
        .iter()
        .filter(|f| !matches!(f.name, "metadata" | "status" | "kind" | "apiVersion"))
    {
        let path = Path::new(field.name);
        check_required(
            store.shape.ty,
            field.name,
            object.get(field.name),
            &path,
            &mut errors,
        );
    }
    errors
}

fn check_required(
    ty: TypeId,
    name: &'static str,
    value: Option<&Value>,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let Some(field) = ty.get().field(name) else { return };
    let missing = match (&field.shape, value) {
        (Shape::String, value) => {
            value.is_none_or(Value::is_zero) && !MAY_BE_EMPTY.contains(&(ty.get().short, name))
        }
        (Shape::Struct(_), None) => true,
        _ => false,
    };
    if field.required && missing {
        errors.push(field::required(path, ""));
    }
    if let Some(value) = value {
        descend(&field.shape, value, path, errors);
    }
}

fn descend(shape: &Shape, value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match (shape, value) {
        (Shape::Struct(ty), Value::Object(_)) => {
            for field in &ty.get().fields {
                check_required(
                    *ty,
                    field.name,
                    value.get(field.name),
                    &path.child(field.name),
                    errors,
                );
            }
        }
        (Shape::List(item), Value::List(items)) => {
            for (i, value) in items.iter().enumerate() {
                descend(item, value, &path.index(i), errors);
            }
        }
        (Shape::Map(item), Value::Object(entries)) if matches!(**item, Shape::Struct(_)) => {
            for (key, value) in entries.iter() {
                descend(item, value, &path.key(key), errors);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_the_base_and_stay_labels() {
        let mut object = Value::Null;
        object.set_at("metadata.generateName", "x".repeat(100));
        generate_name(&mut object);
        assert_eq!(object.name().len(), 63);
        assert!(validation::dns1123_label(object.name()).is_empty());
    }

    #[test]
    fn names_in_paths_exclude_what_breaks_urls() {
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
        assert_eq!(path_segment(".."), ["may not be '..'"]);
        assert!(path_segment("system:node:a").is_empty());
    }

    #[test]
    fn an_update_cannot_move_an_object_or_add_finalizers_while_it_goes() {
        let mut old = Value::Null;
        old.set_at("metadata.name", "a");
        old.set_at("metadata.deletionTimestamp", "2026-01-01T00:00:00Z");
        let mut new = old.clone();
        new.set_at("metadata.name", "b");
        new.set_at("metadata.finalizers", vec!["x/y"]);
        let mut errors = ErrorList::new();
        refuse_new_finalizers(&new, &old, &mut errors);
        assert!(errors[0].to_string().contains("no new finalizers can be added"));
    }
}
