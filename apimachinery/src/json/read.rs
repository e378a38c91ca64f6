//! The tokens of a JSON document: a cursor over bytes with Go's syntax errors. It never looks back and never panics.

use super::scan::plain_input;
use super::{DecodeError, MAX_DEPTH};
use crate::field::quote;
use std::borrow::Cow;

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            depth: 0,
        }
    }

    /// The next byte that is not white space, unread.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    pub fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("after top-level value")),
        }
    }

    pub fn begin(&mut self) -> Result<u8> {
        self.peek().ok_or_else(end_of_input)
    }

    /// Enters an object or list. Call after `begin` has shown its bracket; pair with `close`.
    pub fn open(&mut self) -> Result<()> {
        self.depth += 1;
        self.at += 1;
        if self.depth > MAX_DEPTH {
            Err(DecodeError::TooDeep)
        } else {
            Ok(())
        }
    }

    /// The next key of an object with its colon, or `None` at the closing brace.
    pub fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>> {
        match self.begin()? {
            b'}' if first => return Ok(self.close()),
            b'"' if first => {}
            b'}' => return Ok(self.close()),
            b',' if !first => {
                self.at += 1;
                if self.begin()? != b'"' {
                    return Err(self.unexpected("looking for beginning of object key string"));
                }
            }
            _ if first => return Err(self.unexpected("looking for beginning of object key string")),
            _ => return Err(self.unexpected("after object key:value pair")),
        }
        let key = self.string()?;
        if self.begin()? != b':' {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// True if the list has another item.
    pub fn item(&mut self, first: bool) -> Result<bool> {
        match self.begin()? {
            b']' => {
                self.close::<()>();
                Ok(false)
            }
            _ if first => Ok(true),
            b',' => {
                self.at += 1;
                if self.begin()? == b']' {
                    return Err(self.unexpected("looking for beginning of value"));
                }
                Ok(true)
            }
            _ => Err(self.unexpected("after array element")),
        }
    }

    fn close<T>(&mut self) -> Option<T> {
        self.depth -= 1;
        self.at += 1;
        None
    }

    /// A quoted string. Bad UTF-8 and lone surrogates become U+FFFD, as in Go.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        let start = self.at + 1;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let stop = plain_input(rest);
        self.at = start + stop;
        match rest.get(stop) {
            None => Err(end_of_input()),
            Some(b'"') => {
                self.at += 1;
                Ok(String::from_utf8_lossy(&rest[..stop]))
            }
            Some(_) => self
                .escaped_string(String::from_utf8_lossy(&rest[..stop]).into_owned())
                .map(Cow::Owned),
        }
    }

    fn escaped_string(&mut self, mut text: String) -> Result<String> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let stop = plain_input(rest);
            text.push_str(&String::from_utf8_lossy(&rest[..stop]));
            self.at += stop;
            match rest.get(stop) {
                None => return Err(end_of_input()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.unexpected("in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        self.at += 1;
        let c = match self.bytes.get(self.at).ok_or_else(end_of_input)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let first = self.four_hex()?;
        if !(0xD800..0xDC00).contains(&first) || self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let back = self.at;
        self.at += 1;
        let second = self.four_hex()?;
        if (0xDC00..0xE000).contains(&second) {
            let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = back;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    /// The digits after `\u`; the cursor stands on the `u`.
    fn four_hex(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            self.at += 1;
            let digit = char::from(*self.bytes.get(self.at).ok_or_else(end_of_input)?).to_digit(16);
            code = code * 16 + digit.ok_or_else(|| self.unexpected("in \\u hexadecimal character escape"))?;
        }
        self.at += 1;
        Ok(code)
    }

    /// The text of a number.
    pub fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        self.at += usize::from(self.here() == Some(b'-'));
        match self.here() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected_or_end("in numeric literal")),
        }
        if self.here() == Some(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.here(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.here(), Some(b'+' | b'-')));
            self.some_digits("in exponent of numeric literal")?;
        }
        // Only ASCII was passed.
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default())
    }

    fn here(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn digits(&mut self) {
        while matches!(self.here(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<()> {
        if !matches!(self.here(), Some(b'0'..=b'9')) {
            return Err(self.unexpected_or_end(context));
        }
        self.digits();
        Ok(())
    }

    /// `true`, `false` or `null`.
    pub fn literal(&mut self, text: &'static str) -> Result<()> {
        for (i, &wanted) in text.as_bytes().iter().enumerate() {
            match self.here() {
                Some(byte) if byte == wanted => self.at += 1,
                None => return Err(end_of_input()),
                Some(_) if i == 0 => return Err(self.unexpected("looking for beginning of value")),
                Some(_) => {
                    return Err(
                        self.unexpected(&format!("in literal {text} (expecting '{}')", char::from(wanted)))
                    );
                }
            }
        }
        Ok(())
    }

    /// Passes over one value, checking its syntax.
    pub fn skip(&mut self) -> Result<()> {
        match self.begin()? {
            b'{' => {
                self.open()?;
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.open()?;
                let mut first = true;
                while self.item(first)? {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            b'"' => self.string().map(drop),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    /// One value as it stands, white space between tokens dropped.
    pub fn raw(&mut self) -> Result<Box<str>> {
        self.begin()?;
        let start = self.at;
        self.skip()?;
        Ok(compact(&self.bytes[start..self.at]))
    }

    fn unexpected_or_end(&self, context: &str) -> DecodeError {
        if self.at >= self.bytes.len() {
            end_of_input()
        } else {
            self.unexpected(context)
        }
    }

    /// Go's `invalid character 'x' looking for …` about the byte under the cursor.
    pub fn unexpected(&self, context: &str) -> DecodeError {
        let byte = self.here().unwrap_or_default();
        let shown = match byte {
            b'\'' => "\\'".to_owned(),
            b'"' => "\"".to_owned(),
            _ => quote(&char::from(byte).to_string()).trim_matches('"').to_owned(),
        };
        DecodeError::Syntax(format!("invalid character '{shown}' {context}"))
    }
}

fn end_of_input() -> DecodeError {
    DecodeError::Syntax("unexpected end of JSON input".to_owned())
}

/// Drops white space outside strings. The text has been checked.
fn compact(bytes: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out.into_boxed_str()
}
