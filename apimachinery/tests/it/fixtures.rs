//! Objects with their bytes on the wire, as hexadecimal text. The bytes were read back with protoc against upstream's `.proto`
//! files when they were made.

use apimachinery::json::{self, FieldValidation};
use apimachinery::meta::Meta;
use apimachinery::protobuf::{self, Inject};
use apimachinery::schema::registry;

struct Fixture {
    name: &'static str,
    json: &'static str,
    hex: &'static str,
}

macro_rules! fixtures {
    ($($name:literal)*) => {
        [$(Fixture {
            name: $name,
            json: include_str!(concat!("fixtures/", $name, ".json")),
            hex: include_str!(concat!("fixtures/", $name, ".hex")),
        }),*]
    };
}

const FIXTURES: &[Fixture] =
    &fixtures!("config_map" "custom_resource_definition" "deployment" "lease" "service" "token_review");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

#[test]
fn objects_have_their_known_bytes_and_come_back_from_them() {
    for fixture in FIXTURES {
        let text = fixture.json.trim();
        let untyped = json::decode_untyped(text.as_bytes()).unwrap();
        let ty = registry().kind(untyped.gvk()).unwrap();
        let value = json::decode(text.as_bytes(), Some(ty), FieldValidation::Strict)
            .unwrap()
            .value;
        assert_eq!(
            String::from_utf8(json::to_vec(&value)).unwrap(),
            text,
            "{}",
            fixture.name
        );
        let (mut raw, mut streamed) = (Vec::new(), Vec::new());
        protobuf::encode(&value, ty, &mut raw).unwrap();
        assert_eq!(raw, bytes(fixture.hex), "{}", fixture.name);
        assert_eq!(protobuf::decode(&raw, ty).unwrap(), value, "{}", fixture.name);
        let inject = Inject {
            resource_version: "",
            api_version: untyped.str_at("apiVersion"),
            kind: untyped.str_at("kind"),
        };
        protobuf::to_json(&raw, ty, &inject, &mut streamed).unwrap();
        assert_eq!(String::from_utf8(streamed).unwrap(), text, "{}", fixture.name);
    }
}
