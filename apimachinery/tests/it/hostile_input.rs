//! Bytes from anyone: no decoder may panic, and what two decoders accept they must agree on.

use crate::generate::{Rng, object};
use apimachinery::json::{self, FieldValidation};
use apimachinery::protobuf::{self, Inject};
use apimachinery::quantity::Quantity;
use apimachinery::schema::{Gvk, TypeId, registry};
use apimachinery::selector::{FieldSelector, LabelSelector};
use apimachinery::time::Timestamp;
use apimachinery::value::Value;
use apimachinery::{patch, yaml};

const ROUNDS: u64 = 3000;

fn some_kind(rng: &mut Rng) -> TypeId {
    let kinds = [
        ("", "Pod"),
        ("", "ConfigMap"),
        ("apps", "Deployment"),
        ("apps", "ControllerRevision"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("coordination.k8s.io", "Lease"),
        ("authentication.k8s.io", "TokenReview"),
    ];
    let (group, kind) = kinds[rng.below(kinds.len())];
    registry().kind(Gvk::new(group, "v1", kind)).unwrap()
}

#[test]
fn mangled_json_and_yaml_never_panic() {
    for seed in 0..ROUNDS {
        let mut rng = Rng::new(seed);
        let ty = some_kind(&mut rng);
        let bytes = json::to_vec(&object(&mut rng, ty, 0));
        let bytes = rng.mangle(&bytes);
        if let Ok(decoded) = json::decode(&bytes, Some(ty), FieldValidation::Warn) {
            let again = json::conform(&decoded.value, ty, FieldValidation::Strict)
                .unwrap()
                .value;
            let print = |value| String::from_utf8(json::to_vec(value)).unwrap();
            assert_eq!(print(&again), print(&decoded.value), "seed {seed}");
            let mut raw = Vec::new();
            protobuf::encode(&decoded.value, ty, &mut raw).unwrap();
        }
        // Only a panic would be a failure.
        drop(yaml::decode(&bytes, Some(ty), FieldValidation::Warn));
    }
}

#[test]
fn mangled_protobuf_never_panics_and_both_readers_agree() {
    for seed in 0..ROUNDS {
        let mut rng = Rng::new(seed);
        let ty = some_kind(&mut rng);
        let sent = json::to_vec(&object(&mut rng, ty, 0));
        let value = json::decode(&sent, Some(ty), FieldValidation::Ignore)
            .unwrap()
            .value;
        let mut raw = Vec::new();
        protobuf::encode(&value, ty, &mut raw).unwrap();
        let raw = rng.mangle(&raw);
        let mut streamed = Vec::new();
        let streamed_ok = protobuf::to_json(&raw, ty, &Inject::default(), &mut streamed).is_ok();
        if protobuf::decode(&raw, ty).is_ok() {
            assert!(streamed_ok, "seed {seed}");
            json::decode(&streamed, Some(ty), FieldValidation::Ignore)
                .unwrap_or_else(|e| panic!("seed {seed}: {e}: {}", String::from_utf8_lossy(&streamed)));
        }
        let mut spliced = Vec::new();
        drop(protobuf::with_resource_version(&raw, ty, "1", &mut spliced));
        drop(protobuf::unwrap(&rng.mangle(
            b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x00\x1a\x00\x22\x00",
        )));
    }
}

#[test]
fn random_patches_never_panic() {
    const KEYS: [&str; 8] = [
        "spec",
        "containers",
        "name",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/x",
        "x",
    ];
    fn tree(rng: &mut Rng, depth: usize) -> Value {
        match rng.below(if depth > 4 { 4 } else { 7 }) {
            0 => Value::Null,
            1 => rng.pick(&["a", "b", "delete", "replace", "merge"]).into(),
            2 => (rng.below(3) as i64).into(),
            3 => rng.one_in(2).into(),
            4 => Value::List((0..rng.below(4)).map(|_| tree(rng, depth + 1)).collect()),
            _ => {
                let keys: Vec<&str> = (0..rng.below(4)).map(|_| rng.pick(&KEYS)).collect();
                Value::Object(keys.into_iter().map(|key| (key, tree(rng, depth + 1))).collect())
            }
        }
    }
    for seed in 0..ROUNDS {
        let mut rng = Rng::new(seed);
        let ty = registry().kind(Gvk::new("", "v1", "Pod")).unwrap();
        let document = tree(&mut rng, 0);
        let change = tree(&mut rng, 0);
        patch::merge_patch(&mut document.clone(), &change);
        drop(patch::strategic(&mut document.clone(), &change, ty));
        let pointers = [
            "",
            "/",
            "/spec",
            "/spec/0",
            "/x/-",
            "/spec/containers/-1/name",
            "x",
            "/x/99999999999999999999",
        ];
        let op = Value::from([
            (
                "op",
                rng.pick(&["add", "remove", "replace", "move", "copy", "test"])
                    .into(),
            ),
            ("path", rng.pick(&pointers).into()),
            ("from", rng.pick(&pointers).into()),
            ("value", change),
        ]);
        drop(patch::json_patch(&mut document.clone(), &Value::List(vec![op])));
    }
}

#[test]
fn random_scalars_and_selectors_never_panic() {
    const ATOMS: [&str; 24] = [
        "1",
        "0",
        "-",
        "+",
        ".",
        "e",
        "E",
        "Ki",
        "m",
        "n",
        "Ei",
        "9999999999999999999",
        "in",
        "notin",
        "(",
        ")",
        ",",
        "=",
        "!",
        ">",
        " ",
        "\\",
        "2024-02-29T12:00:00",
        "Z",
    ];
    for seed in 0..ROUNDS * 10 {
        let mut rng = Rng::new(seed);
        let text: String = (0..rng.below(8)).map(|_| rng.pick(&ATOMS)).collect();
        if let Ok(quantity) = Quantity::parse(&text) {
            // Upstream loses suffixes beyond E; all else must read back as the same amount.
            let printed = quantity.to_string();
            assert!(Quantity::parse(&printed).is_ok(), "{text} -> {printed}");
            assert_eq!(Quantity::canonicalize(&printed).unwrap(), printed, "{text}");
        }
        if let Ok(selector) = LabelSelector::parse(&text) {
            assert_eq!(
                LabelSelector::parse(&selector.to_string()).as_ref(),
                Ok(&selector),
                "{text}"
            );
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            assert_eq!(
                FieldSelector::parse(&selector.to_string()).as_ref(),
                Ok(&selector),
                "{text}"
            );
        }
        if let Some(time) = Timestamp::parse(&text) {
            assert_eq!(
                Timestamp::parse(&time.format()).map(|t| t.seconds),
                Some(time.seconds),
                "{text}"
            );
        }
    }
}
