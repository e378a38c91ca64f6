//! The answer to a Range: small ones at once, large ones in pieces that are read when the client is ready for them, so that a list of everything
//! costs the places of its values and not the values.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use component_base::http::BoxError;
use etcd_api::etcdserverpb::ResponseHeader;
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::grpc::{Answer, PREFIX_BYTES, Reply, ok_trailers, trailers};
use super::status::{Code, Status};
use crate::mvcc::range::{Items, Selected};
use crate::mvcc::response::{header_len, range_len, write_header, write_message, write_range_end};
use crate::mvcc::{Error, Store};
use crate::storage::Segments;
use crate::storage::record::{Loc, RECORD_HEADER_BYTES};

/// Up to this size an answer of one piece is one buffer.
const SMALL_BYTES: usize = 64 * 1024;
/// Records are fetched in pieces of at most so many, and so many bytes.
const PIECE_RECORDS: usize = 1024;
const PIECE_BYTES: usize = 128 * 1024;
/// gRPC's lengths are read as signed by some clients.
const MAX_BYTES: usize = i32::MAX as usize;

struct RangeBody {
    store: Arc<Store>,
    segments: Segments,
    items: Items,
    place: usize,
    head: BytesMut,
    more: bool,
    count: i64,
    state: Sending,
}

#[derive(PartialEq)]
enum Sending {
    Items,
    Trailers,
    Done,
}

pub fn reply(store: &Arc<Store>, header: ResponseHeader, selected: Selected) -> Answer {
    let Selected {
        items,
        more,
        count,
        segments,
    } = selected;
    let length = header_len(&header) + body_len(&items, more, count);
    if length > MAX_BYTES {
        return Err(Status::new(
            Code::ResourceExhausted,
            "etcdserver: the range is larger than one gRPC message can be; use a limit",
        ));
    }
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + 64);
    head.put_u8(0);
    head.put_u32(length as u32);
    write_header(&header, &mut head);
    let mut body = RangeBody {
        store: store.clone(),
        segments,
        items,
        place: 0,
        head,
        more,
        count,
        state: Sending::Items,
    };
    if length > SMALL_BYTES || body.items.len() > PIECE_RECORDS {
        return Ok(Reply::Stream(body.boxed_unsync()));
    }
    body.head.reserve(length);
    Ok(Reply::Message(body.piece().map_err(Error::Io)?))
}

fn body_len(items: &Items, more: bool, count: i64) -> usize {
    match items {
        Items::Stored(locs) => range_len(
            locs.iter().map(|loc| loc.length as usize - RECORD_HEADER_BYTES),
            more,
            count,
        ),
        Items::Encoded(kvs) => range_len(kvs.iter().map(Bytes::len), more, count),
    }
}

impl RangeBody {
    /// The next bytes; the state moves on behind the last item.
    fn piece(&mut self) -> io::Result<Bytes> {
        let mut out = std::mem::take(&mut self.head);
        let (fetched, left) = next_piece(&self.store, &self.segments, &self.items, self.place)?;
        out.reserve(fetched.iter().map(|kv| kv.len() + 6).sum::<usize>() + 16);
        fetched.iter().for_each(|kv| write_message(2, kv, &mut out));
        self.place += fetched.len();
        if left == 0 {
            write_range_end(self.more, self.count, &mut out);
            self.state = Sending::Trailers;
        }
        Ok(out.freeze())
    }
}

/// The encoded KeyValues of the piece that begins at `place`, and how many items follow it.
pub fn next_piece(
    store: &Store,
    segments: &Segments,
    items: &Items,
    place: usize,
) -> io::Result<(Vec<Bytes>, usize)> {
    match items {
        Items::Stored(locs) => {
            let piece = piece_of(&locs[place..]);
            let left = locs.len() - place - piece.len();
            Ok((store.storage.read_many(segments, piece)?, left))
        }
        Items::Encoded(kvs) => {
            let end = kvs.len().min(place + PIECE_RECORDS);
            Ok((kvs[place..end].to_vec(), kvs.len() - end))
        }
    }
}

fn piece_of(locs: &[Loc]) -> &[Loc] {
    let mut bytes = 0;
    let fits = |loc: &&Loc| {
        let first = bytes == 0;
        bytes += loc.length as usize;
        first || bytes <= PIECE_BYTES
    };
    let count = locs.iter().take(PIECE_RECORDS).take_while(fits).count();
    &locs[..count]
}

impl http_body::Body for RangeBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.state {
            Sending::Items => match self.piece() {
                Ok(bytes) => Frame::data(bytes),
                Err(source) => {
                    self.state = Sending::Done;
                    Frame::trailers(trailers(&Status::from(Error::Io(source))))
                }
            },
            Sending::Trailers => {
                self.state = Sending::Done;
                Frame::trailers(ok_trailers())
            }
            Sending::Done => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.state == Sending::Done
    }
}
