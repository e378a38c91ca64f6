//! `%q`: Go's quoted strings, there and back.

/// `strconv.Quote` of bytes that need not be UTF-8.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut text, c));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push(text: &mut String, c: char) {
    match c {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\u{7}' => text.push_str("\\a"),
        '\u{8}' => text.push_str("\\b"),
        '\u{c}' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\u{b}' => text.push_str("\\v"),
        c if is_print(c) => text.push(c),
        c if (c as u32) < 0x20 || c == '\u{7f}' => text.push_str(&format!("\\x{:02x}", c as u32)),
        c if (c as u32) < 0x10000 => text.push_str(&format!("\\u{:04x}", c as u32)),
        c => text.push_str(&format!("\\U{:08x}", c as u32)),
    }
}

/// `unicode.IsPrint`. Rust's own table says the same; behind another character it does not single out combining marks.
fn is_print(c: char) -> bool {
    let pair = String::from_iter(['a', c]);
    matches!(c, '\'' | '"' | '\\') || pair.escape_debug().count() == 2
}

/// `%#q`: backquotes where the text allows them.
pub fn quote_raw(text: &str) -> String {
    let plain = |c: char| c != '`' && c != '\u{feff}' && (c == '\t' || (c >= ' ' && c != '\u{7f}'));
    if text.chars().all(plain) {
        format!("`{text}`")
    } else {
        quote(text.as_bytes())
    }
}

/// Reads one quoted string (double quotes or backquotes) at the start; what it says and what follows it.
pub fn unquote_prefix(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(rest) = text.strip_prefix('`') {
        let (inner, rest) = rest.split_once('`')?;
        return Some((inner.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((bytes, rest)),
            '\n' => return None,
            '\\' => rest = escape(rest, &mut bytes)?,
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// One escape after its backslash; what follows it.
fn escape<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let c = rest.chars().next()?;
    let after = &rest[c.len_utf8()..];
    let plain = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' => c as u8,
        'x' => return number(after, 2, 16, bytes, true),
        'u' => return number(after, 4, 16, bytes, false),
        'U' => return number(after, 8, 16, bytes, false),
        '0'..='7' => return number(rest, 3, 8, bytes, true),
        _ => return None,
    };
    bytes.push(plain);
    Some(after)
}

fn number<'a>(rest: &'a str, digits: usize, radix: u32, bytes: &mut Vec<u8>, raw: bool) -> Option<&'a str> {
    let value = u32::from_str_radix(rest.get(..digits)?, radix).ok()?;
    if raw {
        bytes.push(u8::try_from(value).ok()?);
    } else {
        bytes.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    rest.get(digits..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_quoted_as_go_quotes_them() {
        assert_eq!(quote(b"a\"\\\n\x01\x7f\xff"), r#""a\"\\\n\x01\x7f\xff""#);
        assert_eq!(
            quote("é'\u{a0}e\u{301}世😀\u{e000}".as_bytes()),
            "\"é'\\u00a0e\u{301}世😀\\ue000\""
        );
        assert_eq!(quote_raw("bogus"), "`bogus`");
        assert_eq!(quote_raw("a`b"), "\"a`b\"");
    }

    #[test]
    fn quoted_text_reads_back_and_tells_what_follows() {
        assert_eq!(
            unquote_prefix(r#""a\x62\u0063\101\n") rest"#).unwrap(),
            (b"abcA\n".to_vec(), ") rest")
        );
        assert_eq!(unquote_prefix("`a\\` x").unwrap(), (b"a\\".to_vec(), " x"));
        assert!(unquote_prefix("\"open").is_none());
        assert!(unquote_prefix(r#""bad \q""#).is_none());
        assert!(unquote_prefix("plain").is_none());
    }
}
