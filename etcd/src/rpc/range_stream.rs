//! RangeStream: what a Range answers, in messages of bounded size. Merged they are the Range's answer; what is about all of them is in the last.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd_api::etcdserverpb::{
    RangeRequest, ResponseHeader, range_request::SortOrder, range_request::SortTarget,
};

use super::caller::Caller;
use super::grpc::{Answer, Frames, PREFIX_BYTES, Reply, seal};
use super::range_body::Pieces;
use super::status::{Code, Status};
use crate::mvcc::range::Selected;
use crate::mvcc::response::{header_len, range_len, write_header, write_message, write_range_end};
use crate::mvcc::{self, check};
use crate::server::EtcdServer;

/// How often a read of the current revision is repeated when compactions keep passing it.
const READ_ATTEMPTS: usize = 8;
/// The field of RangeStreamResponse.
const RANGE_RESPONSE: u32 = 1;
const KVS: u32 = 2;

pub async fn range_stream(server: Caller, request: RangeRequest) -> Answer {
    check::range(&request)?;
    supported(&request)?;
    if !request.serializable {
        server.linearizable().await?;
    }
    server
        .reading(|check| check.range(&request), || select(&server, &request))
        .await
}

/// A stream goes in the order in which keys are stored, and can leave none out.
fn supported(request: &RangeRequest) -> Result<(), Status> {
    let stored_order = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    };
    if !stored_order {
        return Err(Status::unimplemented(
            "RangeStream does not support custom sort orders",
        ));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    match filters.iter().all(|filter| *filter == 0) {
        true => Ok(()),
        false => Err(Status::unimplemented(
            "RangeStream does not support revision filters",
        )),
    }
}

/// The places are found at once and under one revision; the values are read as the client takes them.
fn select(server: &EtcdServer, request: &RangeRequest) -> Answer {
    let request = RangeRequest {
        sort_order: SortOrder::None as i32,
        sort_target: SortTarget::Key as i32,
        ..request.clone()
    };
    let store = server.store();
    for _ in 0..READ_ATTEMPTS {
        let (segments, current) = (store.storage.segments(), store.current());
        let revision = store.revision(request.revision, current)?;
        let selected = store.select(&request, revision, &segments, &|segments, locs| {
            store.storage.read_many(segments, locs)
        });
        match selected {
            Err(mvcc::Error::Compacted) if request.revision == 0 => {}
            selected => {
                let Selected {
                    items,
                    more,
                    count,
                    segments,
                } = selected?;
                let body = StreamBody {
                    pieces: Pieces::new(store.clone(), segments, items),
                    header: server.header(current),
                    more,
                    count,
                    unfinished: true,
                };
                return Ok(Reply::Stream(Frames::of(body)));
            }
        }
    }
    Err(mvcc::Error::Compacted.into())
}

struct StreamBody {
    pieces: Pieces,
    header: ResponseHeader,
    more: bool,
    count: i64,
    /// Messages are still to come.
    unfinished: bool,
}

impl Iterator for StreamBody {
    type Item = Result<Bytes, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = self.unfinished.then(|| self.next_message())?;
        Some(message.map_err(|source| Status::new(Code::DataLoss, source.to_string())))
    }
}

impl StreamBody {
    fn next_message(&mut self) -> io::Result<Bytes> {
        let left = self.pieces.fetch()?;
        self.unfinished = left > 0;
        Ok(self.message(left == 0))
    }

    fn message(&self, last: bool) -> Bytes {
        let (more, count) = if last { (self.more, self.count) } else { (false, 0) };
        let header = if last { header_len(&self.header) } else { 0 };
        let length = header + range_len(self.pieces.kvs().map(<[u8]>::len), more, count);
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + length + 11);
        out.put_bytes(0, PREFIX_BYTES);
        prost::encoding::encode_key(
            RANGE_RESPONSE,
            prost::encoding::WireType::LengthDelimited,
            &mut out,
        );
        prost::encoding::encode_varint(length as u64, &mut out);
        if last {
            write_header(&self.header, &mut out);
        }
        self.pieces.kvs().for_each(|kv| write_message(KVS, kv, &mut out));
        write_range_end(more, count, &mut out);
        seal(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_cannot_do_is_refused_as_etcd_refuses_it() {
        let refused = |request: RangeRequest| {
            supported(&request)
                .err()
                .map(|status| (status.code, status.message))
        };
        assert_eq!(refused(RangeRequest::default()), None);
        let ascending = RangeRequest {
            sort_order: SortOrder::Ascend as i32,
            ..Default::default()
        };
        assert_eq!(refused(ascending.clone()), None);
        let by_value = RangeRequest {
            sort_target: SortTarget::Value as i32,
            ..ascending
        };
        let (code, text) = refused(by_value).unwrap();
        assert_eq!(
            (code, &*text),
            (
                Code::Unimplemented,
                "RangeStream does not support custom sort orders"
            )
        );
        let filtered = RangeRequest {
            min_mod_revision: 1,
            ..Default::default()
        };
        assert!(refused(filtered).unwrap().1.contains("revision filters"));
    }
}
