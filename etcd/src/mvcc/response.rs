//! KV responses on the wire, written around stored KeyValues that are never decoded.

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd_api::etcdserverpb::ResponseHeader;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The answer to one operation.
#[derive(Debug, Clone)]
pub enum Response {
    Range {
        kvs: Vec<Bytes>,
        more: bool,
        count: i64,
    },
    Put {
        prev_kv: Option<Bytes>,
    },
    DeleteRange {
        deleted: i64,
        prev_kvs: Vec<Bytes>,
    },
    Txn {
        succeeded: bool,
        responses: Vec<(i64, Response)>,
    },
    Compaction,
}

impl Response {
    /// The message with `header`.
    pub fn encode(&self, header: &ResponseHeader, out: &mut BytesMut) {
        out.reserve(self.len(header));
        self.write(header, out);
    }

    pub fn len(&self, header: &ResponseHeader) -> usize {
        let body: usize = match self {
            Response::Range { kvs, more, count } => range_len(kvs.iter().map(Bytes::len), *more, *count),
            Response::Put { prev_kv } => prev_kv.iter().map(|kv| message_len(kv.len())).sum(),
            Response::DeleteRange { deleted, prev_kvs } => {
                int_len(*deleted) + prev_kvs.iter().map(|kv| message_len(kv.len())).sum::<usize>()
            }
            Response::Txn { succeeded, responses } => {
                usize::from(*succeeded) * 2
                    + responses
                        .iter()
                        .map(|(revision, op)| message_len(op_len(*revision, op)))
                        .sum::<usize>()
            }
            Response::Compaction => 0,
        };
        message_len(header.encoded_len()) + body
    }

    fn write(&self, header: &ResponseHeader, out: &mut BytesMut) {
        write_header(header, out);
        match self {
            Response::Range { kvs, more, count } => {
                kvs.iter().for_each(|kv| write_message(2, kv, out));
                write_range_end(*more, *count, out);
            }
            Response::Put { prev_kv } => prev_kv.iter().for_each(|kv| write_message(2, kv, out)),
            Response::DeleteRange { deleted, prev_kvs } => {
                write_int(2, *deleted, out);
                prev_kvs.iter().for_each(|kv| write_message(3, kv, out));
            }
            Response::Txn { succeeded, responses } => {
                write_int(2, i64::from(*succeeded), out);
                responses
                    .iter()
                    .for_each(|(revision, op)| write_op(*revision, op, out));
            }
            Response::Compaction => {}
        }
    }

    /// The field of ResponseOp.
    fn tag(&self) -> u32 {
        match self {
            Response::Range { .. } | Response::Compaction => 1,
            Response::Put { .. } => 2,
            Response::DeleteRange { .. } => 3,
            Response::Txn { .. } => 4,
        }
    }
}

fn inner_header(revision: i64) -> ResponseHeader {
    ResponseHeader {
        revision,
        ..Default::default()
    }
}

fn op_len(revision: i64, op: &Response) -> usize {
    message_len(op.len(&inner_header(revision)))
}

fn write_op(revision: i64, op: &Response, out: &mut BytesMut) {
    let header = inner_header(revision);
    encode_key(3, WireType::LengthDelimited, out);
    encode_varint(op_len(revision, op) as u64, out);
    encode_key(op.tag(), WireType::LengthDelimited, out);
    encode_varint(op.len(&header) as u64, out);
    op.write(&header, out);
}

/// Length of a RangeResponse without its header.
pub fn range_len(kvs: impl Iterator<Item = usize>, more: bool, count: i64) -> usize {
    kvs.map(message_len).sum::<usize>() + usize::from(more) * 2 + int_len(count)
}

pub fn write_header(header: &ResponseHeader, out: &mut BytesMut) {
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint(header.encoded_len() as u64, out);
    header.encode_raw(out);
}

pub fn header_len(header: &ResponseHeader) -> usize {
    message_len(header.encoded_len())
}

pub fn write_message(tag: u32, body: &[u8], out: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(body.len() as u64, out);
    out.put_slice(body);
}

pub fn write_range_end(more: bool, count: i64, out: &mut BytesMut) {
    write_int(3, i64::from(more), out);
    write_int(4, count, out);
}

fn write_int(tag: u32, value: i64, out: &mut BytesMut) {
    if value != 0 {
        prost::encoding::int64::encode(tag, &value, out);
    }
}

/// With a one-byte key, as all fields here have.
fn message_len(body: usize) -> usize {
    1 + encoded_len_varint(body as u64) + body
}

fn int_len(value: i64) -> usize {
    if value == 0 {
        0
    } else {
        1 + encoded_len_varint(value as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_api::etcdserverpb::{RangeResponse, TxnResponse, response_op};
    use etcd_api::mvccpb::KeyValue;

    fn kv(key: &str, value: usize) -> Bytes {
        KeyValue {
            key: key.to_owned().into(),
            value: vec![7; value].into(),
            mod_revision: 300,
            ..Default::default()
        }
        .encode_to_vec()
        .into()
    }

    #[test]
    fn what_is_written_is_what_prost_reads() {
        let header = ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 5,
            revision: 300,
            raft_term: 2,
        };
        let range = Response::Range {
            kvs: vec![kv("a", 3), kv("b", 400)],
            more: true,
            count: 1000,
        };
        let mut out = BytesMut::new();
        range.encode(&header, &mut out);
        assert_eq!(out.len(), range.len(&header));
        let read = RangeResponse::decode(out.freeze()).unwrap();
        assert_eq!(
            (
                read.kvs.len(),
                read.more,
                read.count,
                read.header.unwrap().cluster_id
            ),
            (2, true, 1000, u64::MAX)
        );
        assert_eq!(read.kvs[1].value.len(), 400);

        let nested = Response::Txn {
            succeeded: false,
            responses: vec![(300, range)],
        };
        let put = Response::Put {
            prev_kv: Some(kv("c", 1)),
        };
        let delete = Response::DeleteRange {
            deleted: 2,
            prev_kvs: vec![kv("d", 1)],
        };
        let txn = Response::Txn {
            succeeded: true,
            responses: vec![(300, nested), (300, put), (300, delete)],
        };
        let mut out = BytesMut::new();
        txn.encode(&header, &mut out);
        assert_eq!(out.len(), txn.len(&header));
        let read = TxnResponse::decode(out.freeze()).unwrap();
        assert!(read.succeeded);
        let Some(response_op::Response::ResponseTxn(inner)) = &read.responses[0].response else {
            panic!("a nested txn")
        };
        let Some(response_op::Response::ResponseRange(range)) = &inner.responses[0].response else {
            panic!("a range")
        };
        assert_eq!((range.kvs.len(), range.header.unwrap().revision), (2, 300));
        let Some(response_op::Response::ResponseDeleteRange(delete)) = &read.responses[2].response else {
            panic!("a delete")
        };
        assert_eq!((delete.deleted, &delete.prev_kvs[0].key[..]), (2, &b"d"[..]));
    }
}
