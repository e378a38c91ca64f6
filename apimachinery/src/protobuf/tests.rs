use super::*;
use crate::json::{self, FieldValidation};
use crate::schema::registry;

fn kind(group: &str, version: &str, kind: &str) -> TypeId {
    registry().kind(Gvk::new(group, version, kind)).unwrap()
}

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"ns","creationTimestamp":"2024-02-29T12:00:00Z","labels":{"app":"web","zone":"<a>"},"managedFields":[{"manager":"m","operation":"Update","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{}}}}}]},"spec":{"volumes":[{"name":"v","configMap":{"name":"cm","items":[{"key":"k","path":"p"}],"defaultMode":420}}],"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"protocol":"TCP"}],"env":[{"name":"E","value":"1"}],"resources":{"limits":{"cpu":"500m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"path":"/","port":"http"},"timeoutSeconds":1}}],"terminationGracePeriodSeconds":0,"hostNetwork":true,"securityContext":{"supplementalGroups":[1,-2]}},"status":{"phase":"Running","startTime":"2024-02-29T12:00:01Z"}}"#;

fn tree(text: &str, ty: TypeId) -> Value {
    json::decode(text.as_bytes(), Some(ty), FieldValidation::Strict)
        .unwrap()
        .value
}

fn bytes(value: &Value, ty: TypeId) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, ty, &mut out).unwrap();
    out
}

fn streamed(raw: &[u8], ty: TypeId, inject: &Inject<'_>) -> String {
    let mut out = Vec::new();
    to_json(raw, ty, inject, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn zero_fields_are_written_and_map_keys_sorted() {
    let ty = kind("", "v1", "ConfigMap");
    let value = tree(r#"{"data":{"y":"2","x":""},"immutable":false}"#, ty);
    let metadata = b"\x0a\x10\x0a\0\x12\0\x1a\0\x22\0\x2a\0\x32\0\x38\0\x42\0";
    let data = b"\x12\x05\x0a\x01x\x12\0\x12\x06\x0a\x01y\x12\x012";
    assert_eq!(
        bytes(&value, ty),
        [&metadata[..], &data[..], &b"\x20\0"[..]].concat()
    );
}

#[test]
fn json_survives_the_round_trip_through_protobuf() {
    let ty = kind("", "v1", "Pod");
    let value = tree(POD, ty);
    let out = bytes(&value, ty);
    assert_eq!(decode(&out, ty).unwrap(), value);
    let inject = Inject {
        resource_version: "",
        api_version: "v1",
        kind: "Pod",
    };
    assert_eq!(
        streamed(&out, ty, &inject),
        String::from_utf8(json::to_vec(&value)).unwrap()
    );
}

#[test]
fn the_resource_version_is_put_in_on_the_way_out() {
    let ty = kind("", "v1", "Pod");
    let out = bytes(&tree(POD, ty), ty);
    let mut versioned = Vec::new();
    with_resource_version(&out, ty, "42", &mut versioned).unwrap();
    assert_eq!(
        decode(&versioned, ty).unwrap().str_at("metadata.resourceVersion"),
        "42"
    );
    let inject = Inject {
        resource_version: "42",
        api_version: "v1",
        kind: "Pod",
    };
    assert_eq!(
        streamed(&out, ty, &inject),
        streamed(
            &versioned,
            ty,
            &Inject {
                resource_version: "",
                ..inject
            }
        )
    );
    let mut twice = Vec::new();
    with_resource_version(&versioned, ty, "43", &mut twice).unwrap();
    assert_eq!(twice.len(), versioned.len());
}

#[test]
fn the_envelope_names_its_content() {
    let ty = kind("apps", "v1", "Deployment");
    let value = tree(
        r#"{"metadata":{"name":"d"},"spec":{"selector":{},"template":{"metadata":{},"spec":{"containers":[]}}}}"#,
        ty,
    );
    let gvk = Gvk::new("apps", "v1", "Deployment");
    let raw = bytes(&value, ty);
    let (mut wrapped, mut at_once) = (Vec::new(), Vec::new());
    wrap(gvk, &raw, &mut wrapped);
    encode_wrapped(&value, ty, gvk, &mut at_once).unwrap();
    assert_eq!(wrapped, at_once);
    let unknown = unwrap(&wrapped).unwrap();
    assert_eq!(
        (unknown.api_version, unknown.kind, unknown.raw),
        ("apps/v1", "Deployment", &raw[..])
    );
    assert!(unwrap(b"{}").is_err());
}

#[test]
fn broken_messages_are_errors() {
    let ty = kind("", "v1", "Pod");
    let out = bytes(&tree(POD, ty), ty);
    for end in 1..out.len() {
        let (cut, mut json) = (&out[..end], Vec::new());
        assert_eq!(
            decode(cut, ty).is_ok(),
            to_json(cut, ty, &Inject::default(), &mut json).is_ok(),
            "cut at {end}"
        );
    }
    assert!(decode(&[0x08, 1], ty).is_err());
    assert!(
        decode(
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            ty
        )
        .is_err()
    );
}
