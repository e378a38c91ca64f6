//! `application/yaml` bodies: one document, read with Go's YAML rules, turned to JSON, then the same path as JSON.
//!
//! Go's rules are YAML 1.1's as `sigs.k8s.io/yaml` applies them: `on`, `yes` and `y` are booleans, `0777` is octal, keys become
//! strings, timestamps stay strings. Of several documents the first counts.

mod read;
mod scalar;

use crate::json::{self, DecodeError, Decoded, FieldValidation};
use crate::schema::TypeId;

/// Nodes of one document after aliases are expanded: a bound for documents that refer to themselves a billion times.
pub const MAX_NODES: usize = 1_000_000;

/// Reads one document against `ty`, or as plain YAML without it.
pub fn decode(bytes: &[u8], ty: Option<TypeId>, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    json::decode(&to_json(bytes)?, ty, validation)
}

/// The first document as JSON text. Duplicate keys stay, for the JSON decoder to report.
pub fn to_json(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| failed("invalid leading UTF-8 octet"))?;
    let document = read::document(text)?;
    let mut out = Vec::with_capacity(bytes.len());
    document.write(&mut out);
    Ok(out)
}

fn failed(why: impl std::fmt::Display) -> DecodeError {
    DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(text: &str) -> String {
        String::from_utf8(to_json(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn scalars_resolve_as_go_resolves_them() {
        let text = "a: on\nb: 'on'\nc: 0777\nd: 0x1F\ne: 1_000\nf: 1e3\ng: ~\nh:\ni: 2001-12-14\nj: .5\nk: 1.0\nl: y\nm: nO\nw: 0o7\no: \"\\u00e9\"\np: !!str 1\nq: 08\nr: -0b11\ns: +1\nt: 1:30";
        assert_eq!(
            converted(text),
            r#"{"a":true,"b":"on","c":511,"d":31,"e":1000,"f":1000,"g":null,"h":null,"i":"2001-12-14","j":0.5,"k":1,"l":true,"m":"nO","w":7,"o":"é","p":"1","q":8,"r":-3,"s":1,"t":"1:30"}"#
        );
    }

    #[test]
    fn structures_aliases_and_merges_expand() {
        let text = "base: &b\n  x: 1\n  z: [a, {b: c}]\ncopy: *b\nmerged:\n  <<: *b\n  x: 2\n1: int\ntrue: bool\n---\nsecond: document\n";
        assert_eq!(
            converted(text),
            r#"{"base":{"x":1,"z":["a",{"b":"c"}]},"copy":{"x":1,"z":["a",{"b":"c"}]},"merged":{"x":2,"z":["a",{"b":"c"}]},"1":"int","true":"bool"}"#
        );
        assert_eq!(converted(""), "null");
        assert_eq!(
            converted("{\"already\": [\"json\", 1]}"),
            r#"{"already":["json",1]}"#
        );
        assert_eq!(converted("t: |\n  two\n  lines\n"), r#"{"t":"two\nlines\n"}"#);
    }

    #[test]
    fn duplicate_keys_are_reported_by_path() {
        let error = decode(b"a:\n  b: 1\n  b: 2\n", None, FieldValidation::Strict).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"strict decoding error: duplicate field "a.b""#
        );
    }

    #[test]
    fn hostile_documents_are_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            bomb.push_str(&format!(
                "a{i}: &a{i} [{}]\n",
                vec![format!("*a{}", i - 1); 10].join(",")
            ));
        }
        assert!(
            to_json(bomb.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("document is too large")
        );
        assert!(to_json("[".repeat(300).as_bytes()).is_err());
        for text in ["a: b: c", "{a: [}", "*x", "a: &a [*a]"] {
            assert!(
                to_json(text.as_bytes())
                    .unwrap_err()
                    .to_string()
                    .starts_with("error converting YAML to JSON: yaml: "),
                "{text}"
            );
        }
        assert!(to_json(&[0xff, 0xfe, 0xfd]).is_err());
    }
}
