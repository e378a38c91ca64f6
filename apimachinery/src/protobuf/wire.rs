//! Protobuf's wire format: tags, varints and lengths.

use super::Error;

/// Nesting of messages.
pub(super) const MAX_DEPTH: usize = crate::json::MAX_DEPTH;

/// The fields of one message, in the order in which they stand.
pub(super) struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// A field number with what it carries.
pub(super) type Entry<'a> = (u32, Payload<'a>);

const TRUNCATED: Error = Error::Wire("unexpected EOF");
const WRONG_TYPE: Error = Error::Wire("wrong wireType");

impl<'a> Wire<'a> {
    pub fn new(bytes: &'a [u8]) -> Wire<'a> {
        Wire { bytes, at: 0 }
    }

    /// Where the next field begins.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn next(&mut self) -> Result<Option<Entry<'a>>, Error> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3)
            .ok()
            .filter(|&tag| tag > 0)
            .ok_or(Error::Wire("illegal tag"))?;
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => Payload::Bytes(self.delimited()?),
            5 => {
                self.fixed::<4>()?;
                Payload::Fixed32
            }
            _ => return Err(Error::Wire("illegal wireType")),
        };
        Ok(Some((tag, payload)))
    }

    pub fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(TRUNCATED)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Wire("integer overflow"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .ok_or(TRUNCATED)?;
        self.at += N;
        Ok(*bytes)
    }

    fn delimited(&mut self) -> Result<&'a [u8], Error> {
        let len = usize::try_from(self.varint()?)
            .map_err(|_| Error::Wire("negative length found during unmarshaling"))?;
        let end = self.at.checked_add(len).ok_or(TRUNCATED)?;
        let bytes = self.bytes.get(self.at..end).ok_or(TRUNCATED)?;
        self.at = end;
        Ok(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

impl<'a> Payload<'a> {
    pub fn varint(self) -> Result<u64, Error> {
        match self {
            Payload::Varint(value) => Ok(value),
            _ => Err(WRONG_TYPE),
        }
    }

    pub fn bytes(self) -> Result<&'a [u8], Error> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes),
            _ => Err(WRONG_TYPE),
        }
    }

    pub fn double(self) -> Result<f64, Error> {
        match self {
            Payload::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WRONG_TYPE),
        }
    }
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(tag: u32, wire_type: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(tag) << 3 | u64::from(wire_type), out);
}

pub(super) fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_tag(tag, 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes a length-delimited field whose length is known only after `body` ran. Short bodies stay where they are written,
/// long ones move up by the bytes that their length takes.
pub(super) fn put_delimited<E>(
    tag: u32,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_tag(tag, 2, out);
    let length_at = out.len();
    out.push(0);
    body(out)?;
    let len = out.len() - length_at - 1;
    if len < 0x80 {
        out[length_at] = len as u8;
        return Ok(());
    }
    let mut length = [0; 10];
    let width = varint_bytes(len as u64, &mut length);
    let end = out.len();
    out.resize(end + width - 1, 0);
    out.copy_within(length_at + 1..end, length_at + width);
    out[length_at..length_at + width].copy_from_slice(&length[..width]);
    Ok(())
}

fn varint_bytes(mut value: u64, bytes: &mut [u8; 10]) -> usize {
    let mut width = 0;
    while value >= 0x80 {
        bytes[width] = value as u8 | 0x80;
        value >>= 7;
        width += 1;
    }
    bytes[width] = value as u8;
    width + 1
}
