//! From JSON to a message's bytes, in one pass and without a tree in between.
//!
//! proto3's mapping: fields by either name, unknown ones passed over, null as if absent, 64-bit numbers as strings or numbers, bytes as base64 of either
//! alphabet with or without padding, enums by name or number. serde_json bounds the depth.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::descriptor::{Enum, Field, Kind, Label, Message};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_BYTES: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_SAFE_BYTES: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Appends the message that the first value in `json` stands for.
pub fn decode(json: &[u8], message: &'static Message, out: &mut BytesMut) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Object { message, out }.deserialize(&mut reader)
}

struct Object<'a> {
    message: &'static Message,
    out: &'a mut BytesMut,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an object for {}", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Seen::default();
        while let Some((place, field)) = map.next_key_seed(Name(self.message))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = Value {
                field,
                out: &mut *self.out,
            };
            if map.next_value_seed(value)? {
                seen.set(place, field)?;
            }
        }
        Ok(())
    }
}

/// Which fields had a value: no field twice, and one of a oneof.
#[derive(Default)]
struct Seen {
    places: u64,
    either: Option<&'static str>,
}

impl Seen {
    fn set<E: Error>(&mut self, place: usize, field: &'static Field) -> Result<(), E> {
        if self.places & (1u64 << place) != 0 {
            return Err(E::custom(format_args!("duplicate field {:?}", field.name)));
        }
        self.places |= 1 << place;
        if field.label == Label::Either
            && let Some(other) = self.either.replace(field.name)
        {
            return Err(E::custom(format_args!(
                "{:?} and {other:?} cannot both be set",
                field.name
            )));
        }
        Ok(())
    }
}

/// A key, as the field it names; an unknown one is place 0 and no field.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = (usize, Option<&'static Field>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = (usize, Option<&'static Field>);

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a field of {}", self.0.name)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match self.0.field(name) {
            Some((place, field)) => (place, Some(field)),
            None => (0, None),
        })
    }
}

/// A field's value. False when it was null.
struct Value<'a> {
    field: &'a Field,
    out: &'a mut BytesMut,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    fn varint<E>(self, value: u64) -> Result<bool, E> {
        encode_key(self.field.number, WireType::Varint, self.out);
        encode_varint(value, self.out);
        Ok(true)
    }

    fn bytes<E>(self, bytes: &[u8]) -> Result<bool, E> {
        encode_key(self.field.number, WireType::LengthDelimited, self.out);
        encode_varint(bytes.len() as u64, self.out);
        self.out.put_slice(bytes);
        Ok(true)
    }

    fn number<E: Error>(self, number: i128, given: Unexpected<'_>) -> Result<bool, E> {
        let fits = match self.field.kind {
            Kind::Choice(_) => i32::try_from(number).is_ok(),
            Kind::Int64 => i64::try_from(number).is_ok(),
            Kind::Uint32 => u32::try_from(number).is_ok(),
            Kind::Uint64 => u64::try_from(number).is_ok(),
            _ => false,
        };
        match fits {
            // Negative ones are sign-extended to 64 bits on the wire.
            true => self.varint(number as u64),
            false => Err(E::invalid_value(given, &self)),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = bool;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.field.kind {
            Kind::Bool => "a bool",
            Kind::Int64 => "an int64",
            Kind::Uint32 => "a uint32",
            Kind::Uint64 => "a uint64",
            Kind::String => "a string",
            Kind::Bytes => "bytes in base64",
            Kind::Choice(_) => "an enum value",
            Kind::Nested(message) => message.name,
        };
        let list = if self.field.label == Label::Many {
            "a list of "
        } else {
            ""
        };
        write!(out, "{list}{kind} for field {:?}", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        match (self.field.kind, self.field.label) {
            (Kind::Bool, Label::One | Label::Either) => self.varint(value.into()),
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        single(&self, Unexpected::Signed(value))?;
        self.number(value.into(), Unexpected::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        single(&self, Unexpected::Unsigned(value))?;
        self.number(value.into(), Unexpected::Unsigned(value))
    }

    /// `1e3` and `1.0` are integers in JSON.
    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        single(&self, Unexpected::Float(value))?;
        match value.fract() == 0.0 && value.abs() < 2f64.powi(64) {
            true => self.number(value as i128, Unexpected::Float(value)),
            false => Err(E::invalid_value(Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        let given = Unexpected::Str(text);
        single(&self, given)?;
        match self.field.kind {
            Kind::String => self.bytes(text.as_bytes()),
            Kind::Bytes => match base64_bytes(text) {
                Some(bytes) => self.bytes(&bytes),
                None => Err(E::invalid_value(given, &self)),
            },
            Kind::Choice(choice) => self.choice(choice, text),
            Kind::Int64 | Kind::Uint32 | Kind::Uint64 => match text.parse() {
                Ok(number) => self.number(number, given),
                Err(_) => Err(E::invalid_value(given, &self)),
            },
            Kind::Bool | Kind::Nested(_) => Err(E::invalid_type(given, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        match (self.field.kind, self.field.label) {
            (Kind::Nested(message), Label::One | Label::Either) => {
                let mut nested = BytesMut::new();
                Object {
                    message,
                    out: &mut nested,
                }
                .visit_map(map)?;
                self.bytes(&nested)
            }
            _ => Err(A::Error::invalid_type(Unexpected::Map, &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        if self.field.label != Label::Many {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        while let Some(present) = items.next_element_seed(Item {
            field: self.field,
            out: &mut *self.out,
        })? {
            if !present {
                return Err(A::Error::invalid_value(Unexpected::Unit, &self));
            }
        }
        Ok(true)
    }
}

impl Value<'_> {
    fn choice<E: Error>(self, choice: &'static Enum, text: &str) -> Result<bool, E> {
        match choice.number(text) {
            // A misspelt target or order would mean something else if it were passed over.
            None => Err(E::invalid_value(Unexpected::Str(text), &self)),
            Some(number) => self.varint(number as u64),
        }
    }
}

fn single<E: Error>(value: &Value<'_>, given: Unexpected<'_>) -> Result<(), E> {
    match value.field.label {
        Label::Many => Err(E::invalid_type(given, value)),
        Label::One | Label::Either => Ok(()),
    }
}

/// One item of a list: as the value of a field that is there once.
struct Item<'a> {
    field: &'a Field,
    out: &'a mut BytesMut,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let field = Field {
            label: Label::One,
            ..*self.field
        };
        Value {
            field: &field,
            out: self.out,
        }
        .deserialize(deserializer)
    }
}

fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) {
        URL_SAFE_BYTES
    } else {
        STANDARD_BYTES
    };
    engine.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use etcd_api::etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
        compare::TargetUnion, request_op::Request, watch_request::RequestUnion,
    };
    use prost::Message as _;

    use super::*;
    use crate::gateway::messages;

    fn bytes(json: &str, message: &'static Message) -> Result<BytesMut, String> {
        let mut out = BytesMut::new();
        decode(json.as_bytes(), message, &mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }

    fn range(json: &str) -> RangeRequest {
        RangeRequest::decode(bytes(json, &messages::RANGE_REQUEST).unwrap()).unwrap()
    }

    #[test]
    fn every_spelling_of_a_range_is_the_same_range() {
        let want = RangeRequest {
            key: "fo~".into(),
            range_end: "fo?".into(),
            limit: 5,
            sort_order: 2,
            sort_target: 3,
            serializable: true,
            ..Default::default()
        };
        for json in [
            r#"{"key":"Zm9+","range_end":"Zm8/","limit":"5","sort_order":"DESCEND","sort_target":"MOD","serializable":true}"#,
            r#"{"key":"Zm9-","rangeEnd":"Zm8_","limit":5,"sortOrder":2,"sortTarget":"MOD","serializable":true,"unknown":{"a":[1]}}"#,
            r#" {"limit":5.0,"serializable":true,"sort_target":3,"sort_order":2,"range_end":"Zm8/","key":"Zm9+","revision":null} rest"#,
        ] {
            assert_eq!(range(json), want, "{json}");
        }
        assert_eq!(range(r#"{"key":"Zg"}"#).key, "f");
        assert_eq!(range(r#"{"key":"Zg==","revision":"-1"}"#).revision, -1);
    }

    #[test]
    fn nested_messages_and_oneofs_arrive() {
        let json = r#"{"compare":[{"result":"EQUAL","target":"VERSION","key":"a2V5","version":"0"}],
            "success":[{"request_put":{"key":"a2V5","value":"dmFs"}},{"requestTxn":{"success":[{"request_range":{}}]}}]}"#;
        let txn = TxnRequest::decode(bytes(json, &messages::TXN_REQUEST).unwrap()).unwrap();
        let op = |request| RequestOp {
            request: Some(request),
        };
        let want = TxnRequest {
            compare: vec![Compare {
                key: "key".into(),
                target_union: Some(TargetUnion::Version(0)),
                ..Default::default()
            }],
            success: vec![
                op(Request::RequestPut(PutRequest {
                    key: "key".into(),
                    value: "val".into(),
                    ..Default::default()
                })),
                op(Request::RequestTxn(TxnRequest {
                    success: vec![op(Request::RequestRange(RangeRequest::default()))],
                    ..Default::default()
                })),
            ],
            ..Default::default()
        };
        assert_eq!(txn, want);
        let json = r#"{"create_request":{"key":"YQ==","filters":["NODELETE",0]}}"#;
        let watch = WatchRequest::decode(bytes(json, &messages::WATCH_REQUEST).unwrap()).unwrap();
        let create = WatchCreateRequest {
            key: "a".into(),
            filters: vec![1, 0],
            ..Default::default()
        };
        assert_eq!(watch.request_union, Some(RequestUnion::CreateRequest(create)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, want) in [
            ("", "EOF while parsing"),
            ("{", "EOF while parsing an object at line 1 column 1"),
            ("[]", "an object for etcdserverpb.RangeRequest"),
            (r#"{"key":"!"}"#, r#"bytes in base64 for field "key" at line 1"#),
            (r#"{"key":1}"#, r#"bytes in base64 for field "key""#),
            (r#"{"limit":"x"}"#, r#"an int64 for field "limit""#),
            (r#"{"limit":1.5}"#, r#"an int64 for field "limit""#),
            (
                r#"{"limit":9223372036854775808}"#,
                r#"an int64 for field "limit""#,
            ),
            (
                r#"{"sort_order":"UP"}"#,
                r#"string "UP", expected an enum value for field "sort_order""#,
            ),
            (r#"{"serializable":"true"}"#, r#"a bool for field "serializable""#),
            (r#"{"key":"","key":""}"#, r#"duplicate field "key""#),
            (
                r#"{"rangeEnd":"","range_end":""}"#,
                r#"duplicate field "range_end""#,
            ),
        ] {
            let error = bytes(json, &messages::RANGE_REQUEST).unwrap_err();
            assert!(error.contains(want), "{json}: {error}");
        }
        let both = r#"{"request_put":{},"request_range":{}}"#;
        let error = bytes(both, &messages::REQUEST_OP).unwrap_err();
        assert!(
            error.contains(r#""request_range" and "request_put" cannot both be set"#),
            "{error}"
        );
    }

    #[test]
    fn depth_is_bounded() {
        let text = |open: &str| bytes(&open.repeat(100_000), &messages::TXN_REQUEST).unwrap_err();
        let error = text(r#"{"success":[{"request_txn":"#);
        assert!(error.contains("recursion limit exceeded"), "{error}");
        // What is passed over is not recursed into.
        let error = text(r#"{"unknown":["#);
        assert!(error.contains("EOF while parsing"), "{error}");
    }
}
