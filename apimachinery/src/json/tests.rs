use super::*;
use crate::schema::{Gvk, registry};

fn pod() -> TypeId {
    registry().kind(Gvk::new("", "v1", "Pod")).unwrap()
}

fn kind(group: &str, version: &str, kind: &str) -> TypeId {
    registry().kind(Gvk::new(group, version, kind)).unwrap()
}

fn image(text: &str, ty: TypeId) -> String {
    let decoded = decode(text.as_bytes(), Some(ty), FieldValidation::Strict).unwrap();
    String::from_utf8(to_vec(&decoded.value)).unwrap()
}

fn error(text: &str, ty: TypeId) -> String {
    decode(text.as_bytes(), Some(ty), FieldValidation::Strict)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_document_becomes_gos_image_of_it() {
    let text = r#"{"spec":{"containers":[{"image":"i","name":"c","resources":{"limits":{"memory":"1024Mi","cpu":"0.5"}},
        "command":[],"stdin":false,"livenessProbe":{"httpGet":{"port":"http"},"timeoutSeconds":0}}],"nodeName":"",
        "terminationGracePeriodSeconds":0,"securityContext":null},"metadata":{"name":"p","labels":{"b":"1","a":"2"},
        "creationTimestamp":null},"apiVersion":"v1","kind":"Pod"}"#;
    assert_eq!(
        image(text, pod()),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","labels":{"a":"2","b":"1"}},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"500m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":"http"}}}],"terminationGracePeriodSeconds":0},"status":{}}"#
    );
}

#[test]
fn fields_that_go_always_prints_are_there() {
    assert_eq!(
        image(
            r#"{"spec":{"selector":null,"template":{}}}"#,
            kind("apps", "v1", "Deployment")
        ),
        r#"{"metadata":{},"spec":{"selector":null,"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}},"status":{}}"#
    );
}

#[test]
fn unknown_and_duplicate_fields_are_named_by_path() {
    let text = r#"{"foo":1,"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}},"spec":{"containers":[{"name":"c"},{"imag":"x"}]}}"#;
    assert_eq!(
        error(text, pod()),
        r#"strict decoding error: unknown field "foo", duplicate field "metadata.name", duplicate field "metadata.labels.x", unknown field "spec.containers[1].imag""#
    );
    let warned = decode(text.as_bytes(), Some(pod()), FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings.len(), 4);
    assert_eq!(warned.value.str_at("metadata.name"), "b");
    let ignored = decode(text.as_bytes(), Some(pod()), FieldValidation::Ignore).unwrap();
    assert!(ignored.warnings.is_empty());
}

#[test]
fn names_are_case_sensitive() {
    assert_eq!(
        error(r#"{"Spec":{}}"#, pod()),
        r#"strict decoding error: unknown field "Spec""#
    );
}

#[test]
fn wrong_types_are_named_as_go_names_them() {
    let deployment = kind("apps", "v1", "Deployment");
    assert_eq!(
        error(r#"{"spec":{"replicas":"3"}}"#, deployment),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        error(r#"{"spec":{"replicas":3000000000}}"#, deployment),
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        error(r#"{"spec":{"containers":{}}}"#, pod()),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
    assert_eq!(
        error(r#"{"spec":{"containers":[{"env":[{"value":1}]}]}}"#, pod()),
        "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string"
    );
    assert!(error(r#"{"spec":{"overhead":{"cpu":"1x"}}}"#, pod()).starts_with("quantities must match"));
}

#[test]
fn broken_documents_get_gos_words() {
    let cases = [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (
            r#"{"a":1,}"#,
            "invalid character '}' looking for beginning of object key string",
        ),
        (
            r#"{"a":[1,]}"#,
            "invalid character ']' looking for beginning of value",
        ),
        (r#"{"a":1} x"#, "invalid character 'x' after top-level value"),
        (
            r#"{"a":tru}"#,
            "invalid character '}' in literal true (expecting 'e')",
        ),
        ("\"a\nb\"", "invalid character '\\n' in string literal"),
        ("é", "invalid character 'Ã' looking for beginning of value"),
        (
            "\u{1}",
            "invalid character '\\x01' looking for beginning of value",
        ),
        ("'", "invalid character '\\'' looking for beginning of value"),
        ("01", "invalid character '1' after top-level value"),
    ];
    for (text, expected) in cases {
        assert_eq!(
            decode_untyped(text.as_bytes()).unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn strings_keep_every_character() {
    let text = r#""a\u00e9\ud83d\ude00\ud800x\n\/""#;
    assert_eq!(
        decode_untyped(text.as_bytes()).unwrap().as_str(),
        Some("aé😀\u{fffd}x\n/")
    );
    let mut out = Vec::new();
    encode(&Value::from("<a>&\u{2028}\u{1}\t\"\\é"), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#""\u003ca\u003e\u0026\u2028\u0001\t\"\\é""#
    );
}

#[test]
fn numbers_print_as_gos() {
    for (f, expected) in [
        (1.5, "1.5"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (1e20, "100000000000000000000"),
        (0.0, "0"),
        (1.0, "1"),
    ] {
        let mut out = Vec::new();
        encode(&Value::Float(f), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn untyped_numbers_stay_integers_while_they_fit() {
    assert_eq!(
        decode_untyped(b"9223372036854775807").unwrap(),
        Value::Int(i64::MAX)
    );
    assert_eq!(
        decode_untyped(b"9223372036854775808").unwrap(),
        Value::Float(9223372036854775808.0)
    );
    assert_eq!(decode_untyped(b"1.0").unwrap(), Value::Float(1.0));
}

#[test]
fn nesting_is_limited() {
    let deep = "[".repeat(MAX_DEPTH + 1);
    assert_eq!(decode_untyped(deep.as_bytes()), Err(DecodeError::TooDeep));
    let fits = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    assert!(decode_untyped(fits.as_bytes()).is_ok());
}

#[test]
fn carried_json_stays_as_written_but_for_white_space() {
    let revision = kind("apps", "v1", "ControllerRevision");
    assert_eq!(
        image(
            r#"{"metadata":{}, "data": {"b" : [1, "x y"], "a":{}}, "revision":1}"#,
            revision
        ),
        r#"{"metadata":{},"data":{"b":[1,"x y"],"a":{}},"revision":1}"#
    );
}

#[test]
fn json_schema_alternatives_keep_their_form() {
    let crd = kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let text = r#"{"metadata":{},"spec":{"group":"g","names":{"plural":"p","kind":"K"},"scope":"Cluster","versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"type":"object","additionalProperties":{"type":"string"}},"b":{"items":{"type":"string"},"additionalProperties":false}}}}}]},"status":{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}}"#;
    assert_eq!(image(text, crd), text);
}
