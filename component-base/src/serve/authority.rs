//! Clients that put a URL where HTTP/2 has an authority, or the path of a Unix socket: etcd's of 3.4 do, for every plain endpoint that they are
//! told of. Go's server lets it pass; h2 calls it a protocol error. Here the scheme is taken out before h2 sees it, and a path is localhost.
//!
//! The first request of a connection decides: of one that does as it should nothing more is looked at. Of the others every block of headers is
//! walked, and an authority is written anew where it stands literally; the entries of HPACK's table keep their places by that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// What a frame may have before settings permit more, which ours never do.
const MAX_FRAME_BYTES: usize = 16 * 1024;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// Of `:authority` in HPACK's static table.
const AUTHORITY_INDEX: usize = 1;
const SCHEMES: [&str; 2] = ["http://", "https://"];

/// Huffman's code of HPACK, as far as an authority needs it: length, first code, and whom it and those after it stand for.
const HUFFMAN: [(u32, u32, &str); 5] = [
    (5, 0x0, "012aceiost"),
    (6, 0x14, " %-./3456789=A_bdfghlmnpru"),
    (7, 0x5c, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0xf8, "&*,;XZ"),
    (13, 0x1ffa, "@[]~"),
];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Preface,
    /// Nothing was asked yet.
    First,
    Rewriting,
    /// Whatever comes is handed on.
    Passing,
}

/// A server's side of a connection with prior knowledge of HTTP/2.
pub(super) struct UrlAuthority<S> {
    stream: S,
    mode: Mode,
    /// Not looked at yet, because a frame is not whole.
    incoming: BytesMut,
    ready: BytesMut,
}

impl<S> UrlAuthority<S> {
    pub fn new(stream: S) -> Self {
        UrlAuthority {
            stream,
            mode: Mode::Preface,
            incoming: BytesMut::new(),
            ready: BytesMut::new(),
        }
    }

    /// Moves what is whole from `incoming` to `ready`.
    fn look(&mut self) {
        loop {
            let whole = match self.mode {
                Mode::Preface => PREFACE_BYTES,
                Mode::Passing => return self.ready.unsplit(self.incoming.split()),
                Mode::First | Mode::Rewriting => match *self.incoming {
                    [a, b, c, ..] => FRAME_HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize,
                    _ => return,
                },
            };
            if whole > FRAME_HEADER_BYTES + MAX_FRAME_BYTES {
                self.mode = Mode::Passing;
                continue;
            }
            if self.incoming.len() < whole {
                return;
            }
            let piece = self.incoming.split_to(whole);
            match self.mode {
                Mode::Preface => {
                    self.mode = Mode::First;
                    self.ready.unsplit(piece);
                }
                _ => self.frame(piece),
            }
        }
    }

    fn frame(&mut self, frame: BytesMut) {
        if frame[3] != HEADERS {
            return self.ready.unsplit(frame);
        }
        match rewritten(&frame) {
            Some(rewritten) => {
                self.mode = Mode::Rewriting;
                self.ready.extend_from_slice(&rewritten);
            }
            None => {
                if self.mode == Mode::First {
                    self.mode = Mode::Passing;
                }
                self.ready.unsplit(frame);
            }
        }
    }
}

/// The frame with an authority that is none made one; None when there is nothing to change, or nothing that can be understood.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at(FRAME_HEADER_BYTES);
    let flags = head[4];
    if flags & END_HEADERS == 0 {
        return None;
    }
    let (padding, mut start) = match flags & PADDED {
        0 => (0, 0),
        _ => (usize::from(*payload.first()?), 1),
    };
    if flags & PRIORITY != 0 {
        start += PRIORITY_BYTES;
    }
    let block = payload.get(start..payload.len().checked_sub(padding)?)?;
    let mut fields = Fields { block, at: 0 };
    let mut out = Vec::new();
    let mut copied = 0;
    while fields.at < block.len() {
        let Some((from, authority)) = fields.next()? else {
            continue;
        };
        out.extend_from_slice(&block[copied..from]);
        // Shorter than 127 bytes, so that one byte tells its length.
        out.push(
            u8::try_from(authority.len())
                .ok()
                .filter(|length| *length < 0x7f)?,
        );
        out.extend_from_slice(authority.as_bytes());
        copied = fields.at;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&block[copied..]);
    // Neither padding nor priorities: the block alone.
    let length = u32::try_from(out.len()).ok()?.to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[HEADERS, flags & !(PADDED | PRIORITY)]);
    frame.extend_from_slice(&head[5..]);
    frame.extend_from_slice(&out);
    Some(frame)
}

/// Walks the fields of a block.
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    /// The next field; for an authority that is none, where its value begins, and what it should have been. None for what cannot be read.
    #[allow(clippy::option_option, reason = "unreadable, uninteresting, to be changed")]
    fn next(&mut self) -> Option<Option<(usize, String)>> {
        let first = *self.block.get(self.at)?;
        let name_bits = match first {
            0x80.. => {
                self.number(7)?;
                return Some(None);
            }
            0x40.. => 6,
            0x20.. => {
                self.number(5)?;
                return Some(None);
            }
            _ => 4,
        };
        let name = self.number(name_bits)?;
        if name == 0 {
            self.string()?;
        }
        let from = self.at;
        let (huffman, value) = self.string()?;
        if name != AUTHORITY_INDEX {
            return Some(None);
        }
        let value = match huffman {
            true => decoded(value)?,
            false => String::from_utf8(value.to_vec()).ok()?,
        };
        let host = match value.starts_with('/') {
            true => Some("localhost"),
            false => SCHEMES.iter().find_map(|scheme| value.strip_prefix(scheme)),
        };
        Some(host.map(|host| (from, host.to_owned())))
    }

    /// A number in the low bits of a byte, and the bytes after it where these do not suffice.
    fn number(&mut self, bits: u32) -> Option<usize> {
        let mask = (1_usize << bits) - 1;
        let mut number = usize::from(*self.block.get(self.at)?) & mask;
        self.at += 1;
        if number < mask {
            return Some(number);
        }
        for shift in [0, 7, 14] {
            let byte = usize::from(*self.block.get(self.at)?);
            self.at += 1;
            number += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn string(&mut self) -> Option<(bool, &[u8])> {
        let huffman = self.block.get(self.at)? & 0x80 != 0;
        let length = self.number(7)?;
        let start = self.at;
        self.at = start.checked_add(length)?;
        Some((huffman, self.block.get(start..self.at)?))
    }
}

fn decoded(bytes: &[u8]) -> Option<String> {
    let (mut out, mut code, mut length) = (String::new(), 0_u32, 0_u32);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |place| (byte >> place) & 1))
    {
        (code, length) = ((code << 1) | u32::from(bit), length + 1);
        let symbol = HUFFMAN.iter().find_map(|(bits, first, symbols)| {
            let place = code.checked_sub(*first).filter(|_| *bits == length)?;
            symbols.as_bytes().get(place as usize)
        });
        if let Some(symbol) = symbol {
            out.push(char::from(*symbol));
            (code, length) = (0, 0);
        }
        if length > 13 {
            return None;
        }
    }
    // What is left is padding: ones, fewer than a byte.
    (length < 8 && code + 1 == 1 << length).then_some(out)
}

impl<S: AsyncRead + Unpin> AsyncRead for UrlAuthority<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            if this.mode == Mode::Passing {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            let mut piece = [0; 4096];
            let mut read = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // The end: what is not whole is h2's to judge.
                this.mode = Mode::Passing;
            }
            this.incoming.extend_from_slice(read.filled());
            this.look();
        }
        let length = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready[..length]);
        this.ready.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for UrlAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags, 0, 0, 0, 1]);
        out.extend(payload);
        out
    }

    /// Byte by byte, as a slow network would.
    fn through(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut connection = UrlAuthority::new(());
        for byte in PREFACE.iter().chain(pieces.iter().flatten()) {
            connection.incoming.extend_from_slice(&[*byte]);
            connection.look();
        }
        connection.ready.split_off(PREFACE.len()).to_vec()
    }

    fn literal(value: &str) -> Vec<u8> {
        let mut field = vec![0x41, value.len() as u8];
        field.extend(value.as_bytes());
        field
    }

    #[test]
    fn the_scheme_of_an_authority_is_taken_out_and_nothing_else() {
        let block = |value: &str| {
            [
                &[0x83, 0x86][..],
                &literal(value),
                &[0x40, 1, b'x', 2, b'y', b'z', 0xc0],
            ]
            .concat()
        };
        let settings = frame(4, 0, &[0; 6]);
        let data = frame(0, 1, b"http://");
        let sent = [
            settings.clone(),
            frame(HEADERS, 4, &block("http://127.0.0.1:2379")),
            data.clone(),
        ];
        let wanted = [
            settings.clone(),
            frame(HEADERS, 4, &block("127.0.0.1:2379")),
            data.clone(),
        ];
        assert_eq!(through(&sent), wanted.concat());
        let by_path = through(&[settings.clone(), frame(HEADERS, 4, &block("/run/etcd.sock"))]);
        assert_eq!(
            by_path,
            [settings.clone(), frame(HEADERS, 4, &block("localhost"))].concat()
        );
        // Padding and priority go along with it.
        let padded = [&[2][..], &[0, 0, 0, 0, 15], &block("https://etcd:2379"), &[0, 0]].concat();
        let sent = [settings.clone(), frame(HEADERS, 4 | PADDED | PRIORITY, &padded)];
        assert_eq!(
            through(&sent),
            [settings.clone(), frame(HEADERS, 4, &block("etcd:2379"))].concat()
        );
        for untouched in [
            block("127.0.0.1:2379"),
            vec![0x41, 0xff],
            vec![0xff, 0xff, 0xff, 0xff],
            literal("http://x")[..5].to_vec(),
        ] {
            let sent = [settings.clone(), frame(HEADERS, 4, &untouched), data.clone()];
            assert_eq!(through(&sent), sent.concat());
        }
        // Once a connection did as it should, it is left alone.
        let sent = [
            frame(HEADERS, 4, &block("x")),
            frame(HEADERS, 4, &block("http://x")),
        ];
        assert_eq!(through(&sent), sent.concat());
    }

    #[test]
    fn huffmans_code_is_read_and_what_is_none_is_not() {
        let encode = |text: &str| {
            let mut bits = String::new();
            for symbol in text.chars() {
                let (length, first, symbols) = HUFFMAN
                    .iter()
                    .find(|(_, _, symbols)| symbols.contains(symbol))
                    .unwrap();
                let code = first + symbols.find(symbol).unwrap() as u32;
                bits.push_str(&format!("{code:0width$b}", width = *length as usize));
            }
            while !bits.len().is_multiple_of(8) {
                bits.push('1');
            }
            let bytes = (0..bits.len()).step_by(8);
            bytes
                .map(|at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap())
                .collect::<Vec<u8>>()
        };
        // The example of RFC 7541, C.4.1.
        let example = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(encode("www.example.com"), example);
        for text in [
            "",
            "http://127.0.0.1:2379",
            "http://[::1]:2379",
            "https://etcd-0.ETCD.Svc:2379/",
        ] {
            assert_eq!(decoded(&encode(text)).as_deref(), Some(text));
        }
        assert_eq!(decoded(&[0xff]), None);
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None);
        let value = encode("http://127.0.0.1:2379");
        let block = [&[0x41, 0x80 | value.len() as u8][..], &value].concat();
        let sent = [frame(HEADERS, 4, &block)];
        assert_eq!(through(&sent), frame(HEADERS, 4, &literal("127.0.0.1:2379")));
    }
}
