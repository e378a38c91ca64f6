//! From a message's bytes to JSON: proto3's mapping with the declared names, without what is not set, as etcd's marshaler is configured.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::descriptor::{Field, Kind, Label, Message};

#[derive(Debug, thiserror::Error)]
#[error("a message that cannot be decoded")]
pub struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Malformed
    }
}

/// Appends the object that `bytes` stand for.
pub fn encode(bytes: &[u8], message: &Message, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.push(b'{');
    let start = out.len();
    for field in message.fields {
        match field.label {
            Label::Many => many(bytes, field, start, out)?,
            Label::One | Label::Either => one(bytes, field, start, out)?,
        }
    }
    out.push(b'}');
    Ok(())
}

/// An object that is written while its message arrives: what lies at the top level is forgotten once it is written. Fields must come in the order of
/// their declaration and singular ones once, as this server's encoders write them.
pub struct Arriving {
    message: &'static Message,
    begun: bool,
    /// The repeated field whose list is open.
    list: Option<u32>,
}

impl Arriving {
    pub fn new(message: &'static Message) -> Arriving {
        Arriving {
            message,
            begun: false,
            list: None,
        }
    }

    /// Writes the fields that are whole, and returns how many bytes they were.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut entries = Entries(bytes);
        loop {
            let before = entries.0;
            match entries.next() {
                Some(Ok((number, wire))) => self.entry(number, wire, out)?,
                // Nothing is left, or a piece of a field.
                None | Some(Err(_)) => return Ok(bytes.len() - before.len()),
            }
        }
    }

    fn entry(&mut self, number: u32, wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let Some(field) = self.message.fields.iter().find(|field| field.number == number) else {
            return Ok(());
        };
        if self.list == Some(number) {
            out.push(b',');
            return items(field.kind, wire, out);
        }
        if field.label == Label::One && is_zero(field.kind, wire) {
            return Ok(());
        }
        self.close_list(out);
        out.push(if std::mem::replace(&mut self.begun, true) {
            b','
        } else {
            b'{'
        });
        // The separator is written: for the name this is the first field.
        name(field, out.len(), out);
        if field.label != Label::Many {
            return value(field.kind, wire, out);
        }
        self.list = Some(number);
        out.push(b'[');
        items(field.kind, wire, out)
    }

    fn close_list(&mut self, out: &mut Vec<u8>) {
        if self.list.take().is_some() {
            out.push(b']');
        }
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close_list(out);
        if !self.begun {
            out.push(b'{');
        }
        out.push(b'}');
    }
}

/// The last value on the wire counts. One that is its kind's zero is as if not there, but in a oneof.
fn one(bytes: &[u8], field: &Field, start: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut last = None;
    for entry in Entries(bytes) {
        let (number, wire) = entry?;
        if number == field.number {
            last = Some(wire);
        }
    }
    match last {
        Some(wire) if field.label == Label::Either || !is_zero(field.kind, wire) => {
            name(field, start, out);
            value(field.kind, wire, out)
        }
        _ => Ok(()),
    }
}

fn many(bytes: &[u8], field: &Field, start: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut any = false;
    for entry in Entries(bytes) {
        let (number, wire) = entry?;
        if number != field.number {
            continue;
        }
        if std::mem::replace(&mut any, true) {
            out.push(b',');
        } else {
            name(field, start, out);
            out.push(b'[');
        }
        items(field.kind, wire, out)?;
    }
    if any {
        out.push(b']');
    }
    Ok(())
}

/// One entry of a repeated field: numbers may be packed into one.
fn items(kind: Kind, wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let packed = match (kind, wire) {
        (Kind::String | Kind::Bytes | Kind::Nested(_), _) | (_, Wire::Number(_)) => {
            return value(kind, wire, out);
        }
        (_, Wire::Bytes(packed)) => packed,
    };
    let mut rest = packed;
    let mut first = true;
    while !rest.is_empty() {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        value(kind, Wire::Number(decode_varint(&mut rest)?), out)?;
    }
    Ok(())
}

fn name(field: &Field, start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn is_zero(kind: Kind, wire: Wire<'_>) -> bool {
    match (kind, wire) {
        (Kind::Nested(_), _) => false,
        (_, Wire::Number(number)) => number == 0,
        (_, Wire::Bytes(bytes)) => bytes.is_empty(),
    }
}

fn value(kind: Kind, wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match (kind, wire) {
        (Kind::Bool, Wire::Number(number)) => {
            out.extend_from_slice(if number == 0 { b"false" } else { b"true" });
        }
        (Kind::Uint32, Wire::Number(number)) => plain(number as u32, out),
        // JavaScript's numbers end at 53 bits.
        (Kind::Int64, Wire::Number(number)) => quoted(number as i64, out),
        (Kind::Uint64, Wire::Number(number)) => quoted(number, out),
        (Kind::Choice(choice), Wire::Number(number)) => match choice.name(number as i32) {
            Some(name) => quoted(name, out),
            None => plain(number as i32, out),
        },
        (Kind::String, Wire::Bytes(bytes)) => string(&String::from_utf8_lossy(bytes), out),
        (Kind::Bytes, Wire::Bytes(bytes)) => base64(bytes, out),
        (Kind::Nested(message), Wire::Bytes(bytes)) => encode(bytes, message, out)?,
        (_, Wire::Number(_) | Wire::Bytes(_)) => return Err(Malformed),
    }
    Ok(())
}

fn plain(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn quoted(text: impl std::fmt::Display, out: &mut Vec<u8>) {
    out.push(b'"');
    plain(text, out);
    out.push(b'"');
}

pub fn string(text: &str, out: &mut Vec<u8>) {
    // Writing a str to a Vec cannot fail; an empty one keeps the JSON whole should that ever change.
    match serde_json::to_writer(&mut *out, text) {
        Ok(()) => {}
        Err(_) => out.extend_from_slice(b"\"\""),
    }
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// The fields of a message as they lie on the wire.
struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Result<(u32, Wire<'a>), Malformed> {
        let (number, wire_type) = decode_key(&mut self.0)?;
        let wire = match wire_type {
            WireType::Varint => Wire::Number(decode_varint(&mut self.0)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0)? as usize;
                Wire::Bytes(self.take(length)?)
            }
            WireType::SixtyFourBit => Wire::Bytes(self.take(8)?),
            WireType::ThirtyTwoBit => Wire::Bytes(self.take(4)?),
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        };
        Ok((number, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.0.get(..length).ok_or(Malformed)?;
        self.0.advance(length);
        Ok(taken)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u32, Wire<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use etcd_api::etcdserverpb::{
        PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse, WatchResponse,
        response_op::Response,
    };
    use etcd_api::mvccpb::{Event, KeyValue};
    use prost::Message as _;

    use super::*;
    use crate::gateway::messages;

    fn json(bytes: &[u8], message: &'static Message) -> String {
        let mut out = Vec::new();
        encode(bytes, message, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_range_looks_as_etcds() {
        let response = RangeResponse {
            header: Some(ResponseHeader {
                cluster_id: u64::MAX,
                member_id: 1,
                revision: -1,
                raft_term: 0,
            }),
            kvs: vec![
                KeyValue {
                    key: "a".into(),
                    value: vec![0xff, 0xfe].into(),
                    ..Default::default()
                },
                KeyValue::default(),
            ],
            more: true,
            count: 2,
        };
        assert_eq!(
            json(&response.encode_to_vec(), &messages::RANGE_RESPONSE),
            r#"{"header":{"cluster_id":"18446744073709551615","member_id":"1","revision":"-1"},"kvs":[{"key":"YQ==","value":"//4="},{}],"more":true,"count":"2"}"#
        );
        assert_eq!(json(&[], &messages::RANGE_RESPONSE), "{}");
    }

    #[test]
    fn what_arrives_in_pieces_is_the_same() {
        let kv = KeyValue {
            key: "a".into(),
            value: "value".into(),
            ..Default::default()
        };
        let full = RangeResponse {
            header: Some(ResponseHeader::default()),
            kvs: vec![kv.clone(), KeyValue::default(), kv],
            more: false,
            count: 3,
        };
        for response in [full, RangeResponse::default()] {
            let bytes = response.encode_to_vec();
            for piece in 1..=bytes.len().max(1) {
                let mut arriving = Arriving::new(&messages::RANGE_RESPONSE);
                let (mut out, mut buffer) = (Vec::new(), Vec::new());
                for chunk in bytes.chunks(piece) {
                    buffer.extend_from_slice(chunk);
                    let written = arriving.push(&buffer, &mut out).unwrap();
                    buffer.drain(..written);
                }
                assert!(buffer.is_empty());
                arriving.finish(&mut out);
                let whole = json(&bytes, &messages::RANGE_RESPONSE);
                assert_eq!(String::from_utf8(out).unwrap(), whole, "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn oneofs_and_enums_are_named() {
        let response = TxnResponse {
            responses: vec![ResponseOp {
                response: Some(Response::ResponsePut(PutResponse::default())),
            }],
            ..Default::default()
        };
        assert_eq!(
            json(&response.encode_to_vec(), &messages::TXN_RESPONSE),
            r#"{"responses":[{"response_put":{}}]}"#
        );
        let response = WatchResponse {
            watch_id: 1,
            cancel_reason: "a \"b\"\n".into(),
            events: vec![Event {
                r#type: 1,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            json(&response.encode_to_vec(), &messages::WATCH_RESPONSE),
            r#"{"watch_id":"1","cancel_reason":"a \"b\"\n","events":[{"type":"DELETE"}]}"#
        );
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        for bytes in [&[0x0a, 5, 1][..], &[0xff], &[0x0b], &[0x18]] {
            assert!(
                encode(bytes, &messages::RANGE_RESPONSE, &mut Vec::new()).is_err(),
                "{bytes:?}"
            );
        }
    }
}
