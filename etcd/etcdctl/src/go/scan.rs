//! `fmt.Sscanf` for the one format that comparisons of a transaction have: `%q) %s %q`.

use super::quote::unquote_prefix;

/// What was read before the first part that does not fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub key: Vec<u8>,
    pub operator: String,
    pub value: Vec<u8>,
    pub parts: usize,
}

pub fn comparison(text: &str) -> Comparison {
    let mut read = Comparison::default();
    let Some((key, rest)) = unquote_prefix(text.trim_start_matches([' ', '\t'])) else {
        return read;
    };
    read.key = key;
    read.parts = 1;
    let Some(rest) = rest.strip_prefix(')') else {
        return read;
    };
    let rest = rest.trim_start();
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    if end == 0 {
        return read;
    }
    read.operator = rest[..end].to_owned();
    read.parts = 2;
    if let Some((value, _)) = unquote_prefix(rest[end..].trim_start()) {
        read.value = value;
        read.parts = 3;
    }
    read
}

#[cfg(test)]
mod tests {
    use super::comparison;

    #[test]
    fn three_parts_or_as_many_as_fit() {
        let whole = comparison(r#""k 1") > "0""#);
        assert_eq!((whole.parts, whole.operator.as_str()), (3, ">"));
        assert_eq!((whole.key, whole.value), (b"k 1".to_vec(), b"0".to_vec()));
        assert_eq!(comparison(r#"k) > "0""#).parts, 0);
        assert_eq!(comparison(r#""k" > "0""#).parts, 1);
        assert_eq!(comparison(r#""k") > 0"#).parts, 2);
    }
}
