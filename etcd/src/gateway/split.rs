//! Cuts a stream of bytes into JSON values by counting brackets, without reading them: what is malformed within is found by whoever decodes it.

use bytes::{Bytes, BytesMut};

pub struct Values {
    buffer: BytesMut,
    /// Up to where the buffer was looked at.
    seen: usize,
    depth: usize,
    within_string: bool,
    escaped: bool,
    max_bytes: usize,
}

impl Values {
    /// Holds at most `max_bytes` of a value, and the piece that was pushed last.
    pub fn new(max_bytes: usize) -> Values {
        Values {
            buffer: BytesMut::new(),
            seen: 0,
            depth: 0,
            within_string: false,
            escaped: false,
            max_bytes,
        }
    }

    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole value; Some(None) when it became too large.
    pub fn cut(&mut self) -> Option<Option<Bytes>> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            self.seen += 1;
            if self.ends(byte) {
                let value = self.buffer.split_to(self.seen).freeze();
                self.seen = 0;
                return Some((value.len() <= self.max_bytes).then_some(value));
            }
        }
        (self.buffer.len() > self.max_bytes).then_some(None)
    }

    /// Whether a value ends with this byte. A bracket that closes nothing is a value too, one that cannot be decoded.
    fn ends(&mut self, byte: u8) -> bool {
        if self.within_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.within_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.within_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// What is left at the end of the body, if it is anything.
    pub fn rest(&self) -> Option<&[u8]> {
        let rest = &self.buffer[..];
        (!rest.iter().all(u8::is_ascii_whitespace)).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pieces: &[&str]) -> (Vec<String>, Option<String>) {
        let mut values = Values::new(64);
        let mut out = Vec::new();
        for piece in pieces {
            values.push(piece.as_bytes());
            while let Some(Some(value)) = values.cut() {
                out.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        let rest = values
            .rest()
            .map(|rest| String::from_utf8(rest.to_vec()).unwrap());
        (out, rest)
    }

    #[test]
    fn values_are_cut_wherever_the_pieces_end() {
        let text = r#"{"a":"}\""} {"b":[{},"{"]}"#;
        let whole = (
            vec![r#"{"a":"}\""}"#.to_owned(), r#" {"b":[{},"{"]}"#.to_owned()],
            None,
        );
        assert_eq!(values(&[text]), whole);
        let letters: Vec<String> = text.chars().map(|letter| letter.to_string()).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(values(&letters), whole);
    }

    #[test]
    fn what_is_no_value_is_left_or_cut_and_never_kept() {
        assert_eq!(values(&["{} \n"]), (vec!["{}".to_owned()], None));
        assert_eq!(
            values(&["}{\"a\""]),
            (vec!["}".to_owned()], Some("{\"a\"".to_owned()))
        );
        let mut large = Values::new(8);
        large.push(b"{\"aaaaaaaaaa");
        assert!(matches!(large.cut(), Some(None)));
    }
}
