//! Looks for the next byte that needs attention, eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes of `word` that are zero. Bytes above the first marked one may be marked wrongly.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

const fn equal(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * byte as u64))
}

/// Marks control characters.
const fn controls(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word & HIGH
}

/// Bytes before the first that ends or breaks a string being read: a quote, a backslash or a control character.
pub(super) fn plain_input(bytes: &[u8]) -> usize {
    let special = |word| equal(word, b'"') | equal(word, b'\\') | controls(word);
    find(bytes, special, |byte| matches!(byte, b'"' | b'\\') || byte < 0x20)
}

/// Bytes before the first that is escaped in Go's output, or that begins a character which is.
pub(super) fn plain_output(bytes: &[u8]) -> usize {
    // `<` and `>` differ in one bit.
    let angles = |word: u64| zeros((word & (ONES * 0xFD)) ^ (ONES * 0x3C));
    let special = |word| {
        equal(word, b'"')
            | equal(word, b'\\')
            | controls(word)
            | angles(word)
            | equal(word, b'&')
            | equal(word, 0xE2)
    };
    find(bytes, special, |byte| {
        matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xE2) || byte < 0x20
    })
}

/// Like `plain_output` for JSON that is carried: its quotes, backslashes and controls are part of it.
pub(super) fn plain_raw(bytes: &[u8]) -> usize {
    let angles = |word: u64| zeros((word & (ONES * 0xFD)) ^ (ONES * 0x3C));
    let special = |word| angles(word) | equal(word, b'&') | equal(word, 0xE2);
    find(bytes, special, |byte| matches!(byte, b'<' | b'>' | b'&' | 0xE2))
}

#[inline]
fn find(bytes: &[u8], special: impl Fn(u64) -> u64, is_special: impl Fn(u8) -> bool) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let marks = special(u64::from_le_bytes(*word));
        if marks != 0 {
            return i * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest
        .iter()
        .position(|&byte| is_special(byte))
        .unwrap_or(rest.len());
    words.len() * 8 + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_judged_alike_in_words_and_alone() {
        for byte in 0..=255u8 {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = byte;
                let expected = |special: bool| if special { place } else { text.len() };
                let control = byte < 0x20;
                assert_eq!(
                    plain_input(&text),
                    expected(control || matches!(byte, b'"' | b'\\')),
                    "{byte} {place}"
                );
                let html = matches!(byte, b'<' | b'>' | b'&' | 0xE2);
                assert_eq!(
                    plain_output(&text),
                    expected(control || html || matches!(byte, b'"' | b'\\')),
                    "{byte} {place}"
                );
                assert_eq!(plain_raw(&text), expected(html), "{byte} {place}");
            }
        }
    }
}
