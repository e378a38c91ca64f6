//! etcd's "msgappv2" stream: appends that follow the one before them are sent as entries alone.
//!
//! `0` is a heartbeat of the link; `1`, a count, then each entry behind its length, and the commit index is an append whose index and term
//! follow from the one before; `2` and a length is a whole message. Numbers are big-endian and eight bytes wide.

use bytes::{Buf as _, BufMut as _, BytesMut};
use etcd_api::raftpb;
use prost::Message as _;

use super::reader::{ReadError, Reader};

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

    /// The next message; None for a heartbeat of the link.
    pub async fn decode(&mut self, reader: &mut Reader) -> Result<Option<raftpb::Message>, ReadError> {
        match reader.take(1).await?[0] {
            LINK_HEARTBEAT => Ok(None),
            APP_ENTRIES => self.entries(reader).await.map(Some),
            APP => self.whole(reader).await.map(Some),
            kind => Err(ReadError::Malformed(format!(
                "failed to parse type {kind} in msgappv2 stream"
            ))),
        }
    }

    async fn entries(&mut self, reader: &mut Reader) -> Result<raftpb::Message, ReadError> {
        let mut message = raftpb::Message {
            r#type: MSG_APP,
            from: self.remote,
            to: self.local,
            term: self.term,
            log_term: self.term,
            index: self.index,
            ..raftpb::Message::default()
        };
        let count = number(reader).await?;
        let mut bytes: u64 = 0;
        for _ in 0..count {
            let length = number(reader).await?;
            bytes = bytes.saturating_add(length).saturating_add(ENTRY_BYTES);
            reader.check_length(bytes)?;
            let entry = reader.take(length as usize).await?;
            message.entries.push(raftpb::Entry::decode(entry)?);
            self.index += 1;
        }
        message.commit = number(reader).await?;
        Ok(message)
    }

    async fn whole(&mut self, reader: &mut Reader) -> Result<raftpb::Message, ReadError> {
        let length = number(reader).await?;
        reader.check_length(length)?;
        let message = raftpb::Message::decode(reader.take(length as usize).await?)?;
        self.term = message.term;
        self.index = message.entries.last().map_or(message.index, |entry| entry.index);
        Ok(message)
    }
}

pub async fn number(reader: &mut Reader) -> Result<u64, ReadError> {
    Ok(reader.take(8).await?.get_u64())
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

    #[tokio::test]
    async fn what_follows_is_short_and_everything_comes_back() {
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
        let mut reader = Reader::of(component_base::http::full(out.freeze()), 1 << 20);
        let mut decoder = Decoder::new(1, 2);
        for message in sent {
            assert_eq!(decoder.decode(&mut reader).await.unwrap(), Some(message));
        }
        assert_eq!(decoder.decode(&mut reader).await.unwrap(), None);
        assert!(matches!(decoder.decode(&mut reader).await, Err(ReadError::Ended)));
    }

    #[tokio::test]
    async fn a_length_beyond_all_bounds_is_refused_before_anything_is_read() {
        for kind in [APP_ENTRIES, APP] {
            let mut out = BytesMut::new();
            out.put_u8(kind);
            out.put_u64(u64::MAX);
            out.put_u64(u64::MAX);
            let mut reader = Reader::of(component_base::http::full(out.freeze()), 1 << 20);
            let refused = Decoder::new(1, 2).decode(&mut reader).await;
            assert!(matches!(refused, Err(ReadError::TooLarge(_))), "{refused:?}");
        }
    }
}
