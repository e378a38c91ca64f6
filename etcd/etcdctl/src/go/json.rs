//! JSON as `encoding/json` marshals it: fields in order, empty ones left out where the struct's tag says so, bytes in
//! base64, `<`, `>` and `&` escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An object being written. Methods without `always` leave the field out when it is zero (`omitempty`).
pub struct Object {
    text: String,
}

impl Object {
    pub fn new() -> Self {
        Object { text: "{".to_owned() }
    }

    pub fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }

    /// `value` is JSON already.
    pub fn always(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str(&string(name));
        self.text.push(':');
        self.text.push_str(value.as_ref());
        self
    }

    pub fn some(self, name: &str, value: Option<String>) -> Self {
        match value {
            Some(value) => self.always(name, value),
            None => self,
        }
    }

    pub fn number<N: Into<i128>>(self, name: &str, value: N) -> Self {
        match value.into() {
            0 => self,
            value => self.always(name, value.to_string()),
        }
    }

    pub fn flag(self, name: &str, value: bool) -> Self {
        if value { self.always(name, "true") } else { self }
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            self
        } else {
            self.always(name, string(value))
        }
    }

    pub fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() {
            self
        } else {
            self.always(name, bytes(value))
        }
    }

    pub fn list(self, name: &str, items: Vec<String>) -> Self {
        if items.is_empty() {
            self
        } else {
            self.always(name, array(items))
        }
    }
}

pub fn array(items: Vec<String>) -> String {
    format!("[{}]", items.join(","))
}

pub fn strings(items: &[String]) -> Vec<String> {
    items.iter().map(|item| string(item)).collect()
}

pub fn bytes(value: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(value))
}

pub fn string(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                text.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_fields_are_left_out_and_html_is_escaped() {
        let object = Object::new()
            .number("a", 0)
            .number("b", -1)
            .text("c", "<x>&\"\n\u{1}")
            .bytes("d", b"\xffv")
            .flag("e", false)
            .list("f", Vec::new())
            .always("g", "null");
        assert_eq!(
            object.end(),
            r#"{"b":-1,"c":"\u003cx\u003e\u0026\"\n\u0001","d":"/3Y=","g":null}"#
        );
    }
}
