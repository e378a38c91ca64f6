//! What types and fields are for, in upstream's words: `build.rs` gathers them from the source of k8s-openapi.
//!
//! The text is part of the program's file and is read only while a document is made, so that it costs no memory before.

use std::collections::HashMap;

/// `type literal` lines, each followed by ` field literal` lines.
static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/descriptions.txt"));

pub struct Descriptions {
    types: HashMap<&'static str, Block>,
}

struct Block {
    own: &'static str,
    /// The lines of the fields.
    fields: &'static str,
}

impl Descriptions {
    pub fn read() -> Descriptions {
        let mut types = HashMap::new();
        let mut rest = TEXT;
        while !rest.is_empty() {
            let (head, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let (fields, next) = split_fields(after);
            let (name, own) = head.split_once(' ').unwrap_or((head, ""));
            types.insert(name, Block { own, fields });
            rest = next;
        }
        Descriptions { types }
    }

    pub fn of_type(&self, name: &str) -> Option<String> {
        unescape(self.types.get(name)?.own)
    }

    pub fn of_field(&self, name: &str, field: &str) -> Option<String> {
        let mut lines = self.types.get(name)?.fields.lines();
        lines.find_map(|line| {
            let (found, literal) = line.strip_prefix(' ')?.split_once(' ')?;
            (found == field).then(|| unescape(literal))?
        })
    }
}

/// Up to the first line that does not begin with a space.
fn split_fields(text: &'static str) -> (&'static str, &'static str) {
    if !text.starts_with(' ') {
        return ("", text);
    }
    let starts = text.match_indices('\n').map(|(at, _)| at + 1);
    let end = starts.into_iter().find(|at| !text[*at..].starts_with(' '));
    text.split_at(end.unwrap_or(text.len()))
}

/// The generator's literals use no escape that JSON does not have.
fn unescape(literal: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{literal}\""))
        .ok()
        .filter(|text: &String| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let descriptions = Descriptions::read();
        let port = "io.k8s.api.core.v1.ContainerPort";
        let of_type = descriptions.of_type(port).expect("the type is described");
        assert!(of_type.contains("ContainerPort"), "{of_type}");
        let protocol = descriptions
            .of_field(port, "protocol")
            .expect("the field is described");
        assert!(protocol.contains("\"TCP\""), "escapes are undone: {protocol}");
        assert_eq!(descriptions.of_field(port, "proto"), None);
        assert_eq!(
            descriptions.of_field("io.k8s.api.core.v1.Nothing", "protocol"),
            None
        );
    }

    #[test]
    fn no_literal_is_lost() {
        for line in TEXT.lines() {
            let (_, literal) = line.trim_start().split_once(' ').expect("a name and a literal");
            assert!(literal.is_empty() || unescape(literal).is_some(), "{line}");
        }
    }
}
