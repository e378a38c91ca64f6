//! `2016-10-06T00:17:09.669794202Z stdout F text`: time, stream, tags (`P` for part of a line), content.

pub struct Line<'a> {
    pub timestamp: &'a [u8],
    pub stderr: bool,
    /// The line goes on in the next entry.
    pub partial: bool,
    pub content: &'a [u8],
}

/// Without its newline. `None`: not a line of this format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let timestamp = parts.next().filter(|t| t.len() >= 20)?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = parts.next()?.split(|b| *b == b':').next() == Some(b"P");
    Some(Line {
        timestamp,
        stderr,
        partial,
        content: parts.next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = parse(b"2016-10-06T00:17:09.669794202Z stderr P:x a  b").unwrap();
        assert_eq!(
            (line.stderr, line.partial, line.content),
            (true, true, b"a  b".as_slice())
        );
        assert_eq!(
            parse(b"2016-10-06T00:17:09.669794202Z stdout F ")
                .unwrap()
                .content,
            b""
        );
        assert!(parse(b"hello world").is_none() && parse(b"").is_none());
    }
}
