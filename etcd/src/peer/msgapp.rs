//! etcd's "msgappv2" stream: appends that follow the one before them are sent as entries alone.
//!
//! `0` is a heartbeat of the link; `1`, a count, then each entry behind its length, and the commit index is an append whose index and term
//! follow from the one before; `2` and a length is a whole message. Numbers are big-endian and eight bytes wide.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use etcd_api::raftpb;
use prost::Message as _;

use super::reader::ReadError;
use super::remote::MAX_MESSAGE_BYTES;

const LINK_HEARTBEAT: u8 = 0;
const APP_ENTRIES: u8 = 1;
const APP: u8 = 2;
/// What an entry takes beside its own bytes.
const ENTRY_BYTES: u64 = 64;
const MSG_APP: i32 = raftpb::MessageType::MsgApp as i32;

/// Where the stream stands: what the next append is expected to follow.
#[derive(Default)]
pub struct Encoder {
    term: u64,
    index: u64,
}

impl Encoder {
    pub fn heartbeat(out: &mut BytesMut) {
        out.put_u8(LINK_HEARTBEAT);
    }

    pub fn encode(&mut self, message: &raftpb::Message, out: &mut BytesMut) {
        let follows =
            self.index == message.index && self.term == message.log_term && message.log_term == message.term;
        if follows {
            out.put_u8(APP_ENTRIES);
            out.put_u64(message.entries.len() as u64);
            for entry in &message.entries {
                let length = entry.encoded_len();
                out.put_u64(length as u64);
                out.reserve(length);
                entry.encode_raw(out);
                self.index += 1;
            }
            return out.put_u64(message.commit);
        }
        let length = message.encoded_len();
        out.put_u8(APP);
        out.put_u64(length as u64);
        out.reserve(length);
        message.encode_raw(out);
        self.note(message);
    }

    fn note(&mut self, message: &raftpb::Message) {
        self.term = message.term;
        self.index = message.entries.last().map_or(message.index, |entry| entry.index);
    }
}

#[derive(Debug, PartialEq)]
pub enum Incoming {
    Message(Box<raftpb::Message>),
    /// Of the link.
    Heartbeat,
}

pub struct Decoder {
    local: u64,
    remote: u64,
    term: u64,
    index: u64,
}

impl Decoder {
    pub fn new(local: u64, remote: u64) -> Decoder {
        Decoder {
            local,
            remote,
            term: 0,
            index: 0,
        }
    }

    /// The next message that is whole.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, ReadError> {
        let Some(kind) = buffer.first() else {
            return Ok(None);
        };
        match *kind {
            LINK_HEARTBEAT => {
                buffer.advance(1);
                Ok(Some(Incoming::Heartbeat))
            }
            APP_ENTRIES => self.entries(buffer),
            APP => self.whole(buffer),
            kind => Err(ReadError::Malformed(format!(
                "failed to parse type {kind} in msgappv2 stream"
            ))),
        }
    }

    fn entries(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, ReadError> {
        let Some(length) = entries_length(buffer)? else {
            return Ok(None);
        };
        let mut bytes = own(buffer, length);
        bytes.advance(1);
        let mut message = raftpb::Message {
            r#type: MSG_APP,
            from: self.remote,
            to: self.local,
            term: self.term,
            log_term: self.term,
            index: self.index,
            ..raftpb::Message::default()
        };
        for _ in 0..bytes.get_u64() {
            let length = bytes.get_u64() as usize;
            message
                .entries
                .push(raftpb::Entry::decode(bytes.split_to(length))?);
            self.index += 1;
        }
        message.commit = bytes.get_u64();
        Ok(Some(Incoming::Message(Box::new(message))))
    }

    fn whole(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, ReadError> {
        let Some(length) = number_at(buffer, 1) else {
            return Ok(None);
        };
        check_length(length)?;
        let end = 9 + length as usize;
        if buffer.len() < end {
            return Ok(None);
        }
        let mut bytes = own(buffer, end);
        bytes.advance(9);
        let message = raftpb::Message::decode(bytes)?;
        self.term = message.term;
        self.index = message.entries.last().map_or(message.index, |entry| entry.index);
        Ok(Some(Incoming::Message(Box::new(message))))
    }
}

/// How long an append of entries alone is. None when it is not whole.
fn entries_length(buffer: &BytesMut) -> Result<Option<usize>, ReadError> {
    let Some(count) = number_at(buffer, 1) else {
        return Ok(None);
    };
    let (mut at, mut total) = (9_usize, 0_u64);
    for _ in 0..count {
        let Some(length) = number_at(buffer, at) else {
            return Ok(None);
        };
        total = total.saturating_add(length).saturating_add(ENTRY_BYTES);
        check_length(total)?;
        at += 8 + length as usize;
    }
    Ok((buffer.len() >= at + 8).then_some(at + 8))
}

/// Of a message that came: what is kept of it keeps nothing else.
pub fn own(buffer: &mut BytesMut, length: usize) -> Bytes {
    let bytes = Bytes::copy_from_slice(&buffer[..length]);
    buffer.advance(length);
    bytes
}

pub fn number_at(buffer: &BytesMut, at: usize) -> Option<u64> {
    buffer.get(at..at + 8).map(|mut bytes| bytes.get_u64())
}

pub fn check_length(length: u64) -> Result<(), ReadError> {
    match length <= MAX_MESSAGE_BYTES {
        true => Ok(()),
        false => Err(ReadError::TooLarge(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(term: u64, log_term: u64, index: u64, entries: &[u64]) -> raftpb::Message {
        raftpb::Message {
            r#type: MSG_APP,
            to: 1,
            from: 2,
            term,
            log_term,
            index,
            commit: index,
            entries: entries
                .iter()
                .map(|index| raftpb::Entry {
                    term,
                    index: *index,
                    data: Some("x".into()),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn what_follows_is_short_and_everything_comes_back() {
        let sent = [
            append(2, 1, 4, &[5, 6]),
            append(2, 2, 6, &[7]),
            append(2, 2, 7, &[]),
            append(3, 2, 7, &[8]),
            append(3, 3, 9, &[10]),
        ];
        let mut encoder = Encoder::default();
        let mut out = BytesMut::new();
        let kinds: Vec<u8> = sent
            .iter()
            .map(|message| {
                let start = out.len();
                encoder.encode(message, &mut out);
                out[start]
            })
            .collect();
        Encoder::heartbeat(&mut out);
        assert_eq!(kinds, [APP, APP_ENTRIES, APP_ENTRIES, APP, APP]);
        let mut decoder = Decoder::new(1, 2);
        let mut came = BytesMut::new();
        let mut messages = Vec::new();
        // Byte by byte: nothing is taken before it is whole.
        for byte in out {
            came.put_u8(byte);
            messages.extend(decoder.decode(&mut came).unwrap());
        }
        assert!(came.is_empty());
        let mut expected: Vec<_> = sent.into_iter().map(Box::new).map(Incoming::Message).collect();
        expected.push(Incoming::Heartbeat);
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_length_beyond_all_bounds_is_refused_before_anything_is_read() {
        for kind in [APP_ENTRIES, APP] {
            let mut out = BytesMut::new();
            out.put_u8(kind);
            out.put_u64(u64::MAX);
            out.put_u64(u64::MAX);
            let refused = Decoder::new(1, 2).decode(&mut out);
            assert!(matches!(refused, Err(ReadError::TooLarge(_))), "{refused:?}");
        }
    }
}
