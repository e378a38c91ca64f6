//! The answer to a Range: small ones at once, large ones in pieces that are read when the client is ready for them, so that a list of everything
//! costs the places of its values and not the values.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd_api::etcdserverpb::ResponseHeader;

use super::grpc::{Answer, Frames, PREFIX_BYTES, Reply};
use super::status::{Code, Status};
use crate::mvcc::range::{Items, Selected};
use crate::mvcc::response::{header_len, range_len, write_header, write_message, write_range_end};
use crate::mvcc::{Error, Store};
use crate::storage::Segments;
use crate::storage::fetch::Fetched;
use crate::storage::record::{Loc, RECORD_HEADER_BYTES};

/// Up to this size an answer of one piece is one buffer.
const SMALL_BYTES: usize = 32 * 1024;
/// Records are fetched in pieces of at most so many, and so many bytes: what little time passes over does not leave the processor's caches.
const PIECE_RECORDS: usize = 1024;
const PIECE_BYTES: usize = 48 * 1024;
/// HTTP/2's frames, where nobody asks for larger ones: what does not fill one goes with the next piece.
const FRAME_BYTES: usize = 16 * 1024;
/// gRPC's lengths are read as signed by some clients.
const MAX_BYTES: usize = i32::MAX as usize;

struct RangeBody {
    pieces: Pieces,
    head: BytesMut,
    more: bool,
    count: i64,
    /// Items are still to come.
    unfinished: bool,
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
    let pieces = Pieces::new(store.clone(), segments, items);
    let is_small = length <= SMALL_BYTES && pieces.is_last();
    let mut body = RangeBody {
        pieces,
        head,
        more,
        count,
        unfinished: true,
    };
    if !is_small {
        return Ok(Reply::Stream(Frames::of(body)));
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

impl Iterator for RangeBody {
    type Item = Result<Bytes, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.unfinished.then(|| self.piece())?;
        Some(piece.map_err(|source| Error::Io(source).into()))
    }
}

impl RangeBody {
    /// The next bytes.
    fn piece(&mut self) -> io::Result<Bytes> {
        let mut out = std::mem::take(&mut self.head);
        while self.unfinished && out.len() < FRAME_BYTES {
            let left = self.pieces.fetch()?;
            out.reserve(self.pieces.kvs().map(|kv| kv.len() + 6).sum::<usize>() + 16);
            self.pieces.kvs().for_each(|kv| write_message(2, kv, &mut out));
            if left == 0 {
                write_range_end(self.more, self.count, &mut out);
                self.unfinished = false;
            }
        }
        if self.unfinished {
            let whole = out.len() - out.len() % FRAME_BYTES;
            self.head = BytesMut::from(&out[whole..]);
            out.truncate(whole);
        }
        Ok(out.freeze())
    }
}

/// What a Range selected, piece by piece.
pub struct Pieces {
    store: Arc<Store>,
    segments: Segments,
    items: Items,
    /// Of the items, in the piece at hand.
    at_hand: Range<usize>,
    fetched: Fetched,
}

impl Pieces {
    pub fn new(store: Arc<Store>, segments: Segments, items: Items) -> Pieces {
        Pieces {
            store,
            segments,
            items,
            at_hand: 0..0,
            fetched: Fetched::default(),
        }
    }

    fn next(&self) -> Range<usize> {
        let start = self.at_hand.end;
        let length = match &self.items {
            Items::Stored(locs) => piece_of(&locs[start..]),
            Items::Encoded(kvs) => PIECE_RECORDS.min(kvs.len() - start),
        };
        start..start + length
    }

    /// Whether nothing follows the next piece.
    fn is_last(&self) -> bool {
        self.next().end == self.items.len()
    }

    /// Goes on to the next piece. Returns how many items follow it.
    pub fn fetch(&mut self) -> io::Result<usize> {
        let next = self.next();
        if let Items::Stored(locs) = &self.items {
            self.fetched
                .read(&self.store.storage, &self.segments, &locs[next.clone()])?;
        }
        self.at_hand = next;
        Ok(self.items.len() - self.at_hand.end)
    }

    /// The encoded KeyValues of the piece at hand.
    pub fn kvs(&self) -> impl Iterator<Item = &[u8]> {
        let encoded = match &self.items {
            Items::Stored(_) => &[][..],
            Items::Encoded(kvs) => &kvs[self.at_hand.clone()],
        };
        self.fetched.iter().chain(encoded.iter().map(|kv| &kv[..]))
    }
}

/// How many of the records make a piece.
fn piece_of(locs: &[Loc]) -> usize {
    let mut bytes = 0;
    let fits = |loc: &&Loc| {
        let first = bytes == 0;
        bytes += loc.length as usize;
        first || bytes <= PIECE_BYTES
    };
    locs.iter().take(PIECE_RECORDS).take_while(fits).count()
}
