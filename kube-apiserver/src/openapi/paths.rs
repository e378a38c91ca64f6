//! Operations: enough for clients to learn verbs, bodies and parameters of each resource.

use apimachinery::schema::{self, Gvk, Resource};
use serde_json::{Map, Value, json};

use super::schemas::{Definitions, Dialect};

pub fn of_resources(resources: &[&Resource], definitions: &mut Definitions) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resources {
        of_resource(resource, definitions, &mut paths);
    }
    paths
}

/// The paths of one resource; what they refer to is among `definitions` then.
pub fn of_resource(resource: &Resource, definitions: &mut Definitions, paths: &mut Map<String, Value>) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let scope = if resource.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{root}{scope}/{}", resource.resource);
    let gvk = resource.gvk();
    let mut add =
        |path: String, verbs: &[(&str, &'static str, &'static str)], offered: &[&str], gvk: Gvk<'_>| {
            let mut item = Map::new();
            for (verb, method, action) in verbs {
                if offered.contains(verb) {
                    item.insert(
                        (*method).to_owned(),
                        operation(action, gvk, resource, definitions),
                    );
                }
            }
            if !item.is_empty() {
                item.insert(
                    "parameters".to_owned(),
                    path_parameters(&path, definitions.dialect()),
                );
                paths.insert(path, item.into());
            }
        };
    let on_collection = [
        ("list", "get", "list"),
        ("create", "post", "post"),
        ("deletecollection", "delete", "deletecollection"),
    ];
    let on_object = [
        ("get", "get", "get"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ];
    if resource.namespaced {
        add(
            format!("{root}/{}", resource.resource),
            &on_collection[..1],
            &resource.verbs,
            gvk,
        );
    }
    add(collection.clone(), &on_collection, &resource.verbs, gvk);
    add(format!("{collection}/{{name}}"), &on_object, &resource.verbs, gvk);
    let on_subresource = [
        ("get", "get", "get"),
        ("create", "post", "post"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
    ];
    for sub in &resource.subresources {
        add(
            format!("{collection}/{{name}}/{}", sub.name),
            &on_subresource,
            &sub.verbs,
            sub.gvk,
        );
    }
}

fn operation(
    action: &'static str,
    gvk: Gvk<'_>,
    resource: &Resource,
    definitions: &mut Definitions,
) -> Value {
    let schema = schema::registry()
        .kind(gvk)
        .map(|ty| definitions.reference(ty))
        .unwrap_or_else(|| json!({ "type": "object" }));
    let answered = match action {
        "list" => schema::registry()
            .kind(Gvk {
                kind: &format!("{}List", gvk.kind),
                ..gvk
            })
            .map_or_else(|| schema.clone(), |ty| definitions.reference(ty)),
        _ => schema.clone(),
    };
    let tag = if resource.group.is_empty() {
        format!("core_{}", resource.version)
    } else {
        format!("{}_{}", resource.group.replace('.', ""), resource.version)
    };
    let mut operation = json!({
        "tags": [tag],
        "parameters": parameters(action, definitions.dialect()),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": { "group": gvk.group, "version": gvk.version, "kind": gvk.kind },
    });
    let takes_body = matches!(action, "post" | "put" | "patch");
    let body = if action == "patch" {
        json!({ "type": "object" })
    } else {
        schema
    };
    match definitions.dialect() {
        Dialect::V2 => {
            operation["responses"] = json!({ "200": { "description": "OK", "schema": answered } });
            if takes_body {
                let parameter = json!({ "name": "body", "in": "body", "required": true, "schema": body });
                operation["parameters"]
                    .as_array_mut()
                    .map(|p| p.push(parameter))
                    .unwrap_or_default();
            }
        }
        Dialect::V3 => {
            operation["responses"] = json!({ "200": { "description": "OK", "content": { "application/json": { "schema": answered } } } });
            if takes_body {
                operation["requestBody"] = json!({ "required": true, "content": media(action, body) });
            }
        }
    }
    operation
}

/// What stands in braces in the path.
fn path_parameters(path: &str, dialect: Dialect) -> Value {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| match dialect {
        Dialect::V2 => {
            json!({ "name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true })
        }
        Dialect::V3 => {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
        }
    };
    names.map(parameter).collect::<Vec<_>>().into()
}

fn media(action: &str, body: Value) -> Value {
    if action != "patch" {
        return json!({ "application/json": { "schema": body } });
    }
    let types = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    types
        .into_iter()
        .map(|t| (t.to_owned(), json!({ "schema": body })))
        .collect::<Map<_, _>>()
        .into()
}

/// `fieldValidation` on a patch is how kubectl learns that the server checks fields itself.
fn parameters(action: &str, dialect: Dialect) -> Value {
    let names: &[(&str, &str)] = match action {
        "list" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        "post" | "put" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
        ],
        "patch" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        "delete" | "deletecollection" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        _ => &[],
    };
    let parameter = |(name, kind): &(&str, &str)| match dialect {
        Dialect::V2 => json!({ "name": name, "in": "query", "type": kind, "uniqueItems": true }),
        Dialect::V3 => {
            json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
        }
    };
    names.iter().map(parameter).collect::<Vec<_>>().into()
}
