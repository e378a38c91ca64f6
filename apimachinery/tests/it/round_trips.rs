use crate::generate::{Rng, object};
use apimachinery::json::{self, FieldValidation};
use apimachinery::protobuf::{self, Inject};
use apimachinery::schema::{Gvk, Schema, Shape, TypeId, registry};
use apimachinery::value::Value;
use apimachinery::{defaults, patch, yaml};

const ROUNDS: u64 = 12;

/// Kinds whose messages protobuf carries.
fn kinds(schema: &'static Schema) -> Vec<(Gvk<'static>, TypeId)> {
    let mut kinds: Vec<_> = schema.kinds().collect();
    kinds.sort_unstable_by_key(|(gvk, _)| *gvk);
    kinds
}

fn image(text: &[u8], ty: TypeId) -> Value {
    let decoded = json::decode(text, Some(ty), FieldValidation::Ignore);
    decoded
        .unwrap_or_else(|e| panic!("{ty:?}: {e}: {}", String::from_utf8_lossy(text)))
        .value
}

fn text(value: &Value) -> String {
    String::from_utf8(json::to_vec(value)).unwrap()
}

fn for_each_object(check: impl Fn(&mut Rng, Gvk<'static>, TypeId, Value)) {
    for (seed, (gvk, ty)) in kinds(registry()).into_iter().enumerate() {
        for round in 0..ROUNDS {
            let mut rng = Rng::new(seed as u64 * 1000 + round);
            let sent = json::to_vec(&object(&mut rng, ty, 0));
            check(&mut rng, gvk, ty, image(&sent, ty));
        }
    }
}

#[test]
fn the_image_of_an_image_is_itself() {
    for_each_object(|_, _, ty, value| {
        assert_eq!(
            text(&json::conform(&value, ty, FieldValidation::Strict).unwrap().value),
            text(&value)
        );
    });
}

#[test]
fn protobuf_keeps_all_that_json_says_but_empty_lists() {
    for_each_object(|_, gvk, ty, value| {
        let mut raw = Vec::new();
        protobuf::encode(&value, ty, &mut raw).unwrap();
        let mut back = protobuf::decode(&raw, ty).unwrap();
        // These two are in the envelope.
        back.remove("kind");
        back.remove("apiVersion");
        assert_eq!(text(&back), text(&value), "{gvk}");
        let mut streamed = Vec::new();
        protobuf::to_json(&raw, ty, &Inject::default(), &mut streamed).unwrap();
        assert_eq!(String::from_utf8(streamed).unwrap(), text(&value), "{gvk}");
    });
}

#[test]
fn a_spliced_resource_version_is_the_only_change() {
    for_each_object(|_, gvk, ty, mut value| {
        if !matches!(
            ty.field("metadata").map(|field| &field.shape),
            Some(Shape::Struct(_))
        ) {
            return;
        }
        let (mut raw, mut spliced, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        protobuf::encode(&value, ty, &mut raw).unwrap();
        protobuf::with_resource_version(&raw, ty, "12345", &mut spliced).unwrap();
        value.set_at("metadata.resourceVersion", "12345");
        protobuf::encode(&value, ty, &mut wanted).unwrap();
        assert_eq!(spliced, wanted, "{gvk}");
    });
}

#[test]
fn defaulting_twice_is_defaulting_once_and_stays_in_the_image() {
    for_each_object(|_, gvk, ty, mut value| {
        defaults::apply(&mut value, ty);
        let once = value.clone();
        defaults::apply(&mut value, ty);
        assert_eq!(value, once, "{gvk}");
        let conformed = json::conform(&value, ty, FieldValidation::Strict).unwrap().value;
        assert_eq!(text(&conformed), text(&value), "{gvk}");
    });
}

#[test]
fn yaml_that_is_json_means_the_same() {
    for_each_object(|_, gvk, ty, value| {
        let decoded = yaml::decode(text(&value).as_bytes(), Some(ty), FieldValidation::Strict);
        assert_eq!(
            decoded
                .unwrap_or_else(|e| panic!("{gvk}: {e}\n{}", text(&value)))
                .value,
            value,
            "{gvk}"
        );
    });
}

#[test]
fn an_empty_patch_changes_nothing_and_a_whole_one_everything() {
    for_each_object(|_, gvk, ty, value| {
        let empty = Value::Object(Default::default());
        let (mut merged, mut strategic) = (value.clone(), value.clone());
        patch::merge_patch(&mut merged, &empty);
        patch::strategic(&mut strategic, &empty, ty).unwrap();
        assert_eq!((&merged, &strategic), (&value, &value), "{gvk}");
        let mut fresh = empty;
        patch::merge_patch(
            &mut fresh,
            &json::decode_untyped(text(&value).as_bytes()).unwrap(),
        );
        let fresh = json::conform(&fresh, ty, FieldValidation::Strict).unwrap().value;
        assert_eq!(text(&fresh), text(&value), "{gvk}");
    });
}
