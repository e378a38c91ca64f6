use super::*;
use crate::schema::{Gvk, TypeId, registry};

fn tree(text: &str) -> Value {
    json::decode_untyped(text.as_bytes()).unwrap()
}

fn pod() -> TypeId {
    registry().kind(Gvk::new("", "v1", "Pod")).unwrap()
}

fn patched(document: &str, ops: &str) -> Result<Value, PatchError> {
    let mut value = tree(document);
    json_patch(&mut value, &tree(ops)).map(|()| value)
}

fn merged(document: &str, patch: &str) -> Value {
    let mut value = tree(document);
    strategic(&mut value, &tree(patch), pod()).unwrap();
    value
}

fn refusal(document: &str, patch: &str) -> PatchError {
    strategic(&mut tree(document), &tree(patch), pod()).unwrap_err()
}

#[test]
fn json_patch_does_what_rfc_6902_says() {
    let cases = [
        (
            r#"{"a":1}"#,
            r#"[{"op":"add","path":"/b","value":2}]"#,
            r#"{"a":1,"b":2}"#,
        ),
        (
            r#"{"a":[1,3]}"#,
            r#"[{"op":"add","path":"/a/1","value":2}]"#,
            r#"{"a":[1,2,3]}"#,
        ),
        (
            r#"{"a":[1]}"#,
            r#"[{"op":"add","path":"/a/-","value":2}]"#,
            r#"{"a":[1,2]}"#,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"remove","path":"/a/-1"}]"#,
            r#"{"a":[1]}"#,
        ),
        (
            r#"{"a/b":{"c~d":1}}"#,
            r#"[{"op":"replace","path":"/a~1b/c~0d","value":2}]"#,
            r#"{"a/b":{"c~d":2}}"#,
        ),
        (
            r#"{"a":1,"b":{}}"#,
            r#"[{"op":"move","from":"/a","path":"/b/c"}]"#,
            r#"{"b":{"c":1}}"#,
        ),
        (
            r#"{"a":{"x":[1]}}"#,
            r#"[{"op":"copy","from":"/a","path":"/b"}]"#,
            r#"{"a":{"x":[1]},"b":{"x":[1]}}"#,
        ),
        (
            r#"{"a":null}"#,
            r#"[{"op":"test","path":"/a","value":null},{"op":"test","path":"/b","value":null}]"#,
            r#"{"a":null}"#,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"test","path":"/a","value":1},{"op":"remove","path":"/a"}]"#,
            "{}",
        ),
    ];
    for (document, ops, expected) in cases {
        assert_eq!(patched(document, ops), Ok(tree(expected)), "{ops}");
    }
}

#[test]
fn json_patches_that_do_not_fit_are_unprocessable() {
    for ops in [
        r#"[{"op":"remove","path":"/x"}]"#,
        r#"[{"op":"replace","path":"/x","value":1}]"#,
        r#"[{"op":"add","path":"/x/y","value":1}]"#,
        r#"[{"op":"add","path":"/l/5","value":1}]"#,
        r#"[{"op":"test","path":"/a","value":2}]"#,
        r#"[{"op":"add","path":"/a"}]"#,
        r#"[{"op":"fly","path":"/a"}]"#,
        r#"[{"op":"add","path":"/a/b","value":1}]"#,
    ] {
        assert!(
            matches!(
                patched(r#"{"a":1,"l":[]}"#, ops),
                Err(PatchError::Unprocessable(_))
            ),
            "{ops}"
        );
    }
    assert!(matches!(patched("{}", "{}"), Err(PatchError::BadRequest(_))));
}

#[test]
fn json_patches_are_limited() {
    let op = r#"{"op":"add","path":"/a","value":1},"#;
    let many = format!(
        "[{}{}]",
        op.repeat(MAX_JSON_PATCH_OPERATIONS),
        op.trim_end_matches(',')
    );
    assert_eq!(
        patched("{}", &many).unwrap_err().to_string(),
        "The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    let bomb = format!(
        r#"[{{"op":"add","path":"/a","value":["x"]}}{}]"#,
        r#",{"op":"copy","from":"/a","path":"/a/-"}"#.repeat(60)
    );
    assert!(
        patched("{}", &bomb)
            .unwrap_err()
            .to_string()
            .contains("accumulated size")
    );
}

#[test]
fn merge_patch_does_what_rfc_7386_says() {
    let cases = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":{"b":"d","c":null}}"#,
            r#"{"a":{"b":"d"}}"#,
        ),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
    ];
    for (document, patch, expected) in cases {
        let mut value = tree(document);
        merge_patch(&mut value, &tree(patch));
        assert_eq!(value, tree(expected), "{patch}");
    }
}

#[test]
fn merge_patch_steps_into_carried_json() {
    let mut value = Value::from([("data", Value::Raw(r#"{"a":1,"b":2}"#.into()))]);
    merge_patch(&mut value, &tree(r#"{"data":{"a":null,"c":3}}"#));
    assert_eq!(value, tree(r#"{"data":{"b":2,"c":3}}"#));
}

#[test]
fn lists_merge_by_the_schemas_keys() {
    assert_eq!(
        merged(
            r#"{"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"1"}],"tolerations":[{"key":"x"}]}}"#,
            r#"{"spec":{"containers":[{"name":"b","image":"2"},{"name":"c","image":"1"}],"tolerations":[{"key":"y"}]}}"#
        ),
        tree(
            r#"{"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"2"},{"name":"c","image":"1"}],"tolerations":[{"key":"y"}]}}"#
        )
    );
}

#[test]
fn directives_delete_replace_and_order() {
    let document = r#"{"metadata":{"finalizers":["a","b"]},"spec":{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}],"volumes":[{"name":"v","emptyDir":{}}],"nodeSelector":{"x":"1","y":"2"}}}"#;
    let spec = |patch: &str| {
        merged(document, &format!(r#"{{"spec":{patch}}}"#))
            .get("spec")
            .unwrap()
            .clone()
    };
    let names = |spec: Value| {
        spec.list_at("containers")
            .iter()
            .map(|c| c.str_at("name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(spec(r#"{"containers":[{"name":"b","$patch":"delete"}]}"#)),
        ["a", "c"]
    );
    assert_eq!(
        names(spec(r#"{"containers":[{"$patch":"replace"},{"name":"z"}]}"#)),
        ["z"]
    );
    assert_eq!(
        names(spec(
            r#"{"$setElementOrder/containers":[{"name":"c"},{"name":"d"},{"name":"a"}],"containers":[{"name":"d"}]}"#
        )),
        ["b", "c", "d", "a"]
    );
    assert_eq!(
        spec(r#"{"nodeSelector":{"$patch":"replace","z":"3"}}"#).get("nodeSelector"),
        Some(&tree(r#"{"z":"3"}"#))
    );
    assert_eq!(
        spec(r#"{"nodeSelector":{"x":null}}"#).get("nodeSelector"),
        Some(&tree(r#"{"y":"2"}"#))
    );
    assert_eq!(
        spec(r#"{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}]}"#)
            .list_at("volumes")[0],
        tree(r#"{"name":"v","hostPath":{"path":"/"}}"#)
    );
    let metadata = merged(
        document,
        r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["c"]}}"#,
    );
    assert_eq!(metadata.list_at("metadata.finalizers"), ["c".into(), "b".into()]);
}

#[test]
fn malformed_strategic_patches_are_refused() {
    let document = r#"{"spec":{"containers":[{"name":"a"}]}}"#;
    assert_eq!(
        refusal(document, r#"{"spec":{"containers":[{"image":"x"}]}}"#).to_string(),
        r#"map: {"image":"x"} does not contain declared merge key: name"#
    );
    assert_eq!(
        refusal(document, r#"{"spec":{"$retainKeys":"containers"}}"#),
        PatchError::BadRequest("invalid patch format of retainKeys".to_owned())
    );
    assert_eq!(
        refusal(document, r#"{"spec":{"$patch":"explode"}}"#).to_string(),
        r#"unknown patch type: "explode""#
    );
    assert_eq!(refusal(document, "[]").to_string(), "invalid JSON document");
}

#[test]
fn new_fields_lose_nulls_and_directives() {
    assert_eq!(
        merged(
            "{}",
            r#"{"spec":{"a":null,"b":{"c":null},"containers":[{"$patch":"delete","name":"x"}]}}"#
        ),
        tree(r#"{"spec":{"b":{},"containers":[]}}"#)
    );
}
