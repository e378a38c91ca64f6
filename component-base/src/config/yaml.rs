//! Parser events to JSON values.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use serde_json::{Map, Value};

use super::scalar::resolve;

/// Deeper nesting is refused: nothing that people write needs it, and the stack is finite.
const MAX_DEPTH: usize = 100;
/// Aliases copy their anchors; a few lines could otherwise ask for gigabytes.
const MAX_NODES: usize = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    #[error("yaml: {0}")]
    Syntax(#[from] ScanError),
    #[error("yaml: line {line}: {text}")]
    Content { line: usize, text: String },
}

pub(super) fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next?;
        builder.event(event, span.start.line())?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    nodes_before: usize,
    kind: Collection,
}

enum Collection {
    List(Vec<Value>),
    Map {
        fields: Map<String, Value>,
        merged: Vec<Value>,
        key: Option<Key>,
    },
}

enum Key {
    Name(String),
    /// `<<`
    Merge,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if plain && text == "<<" && self.wants_key() {
                    return self.key(Key::Merge);
                }
                let value = scalar(&text, plain, tag.as_deref(), line)?;
                self.count(1, line)?;
                self.remember(anchor, &value, 1);
                self.place(value, line)?;
            }
            Event::SequenceStart(_, anchor, _) => self.open(anchor, Collection::List(Vec::new()), line)?,
            Event::MappingStart(_, anchor, _) => {
                self.open(
                    anchor,
                    Collection::Map {
                        fields: Map::new(),
                        merged: Vec::new(),
                        key: None,
                    },
                    line,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(line)?,
            Event::Alias(id) => {
                let (value, nodes) = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| content(line, "an alias inside its own anchor"))?;
                self.count(nodes, line)?;
                self.place(value, line)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                kind: Collection::Map { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, name: Key) -> Result<(), YamlError> {
        if let Some(Open {
            kind: Collection::Map { key, .. },
            ..
        }) = self.open.last_mut()
        {
            *key = Some(name);
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(content(line, "document contains excessive aliasing"));
        }
        Ok(())
    }

    fn remember(&mut self, anchor: usize, value: &Value, nodes: usize) {
        // The parser numbers anchors from 1; 0 is "none".
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), nodes));
        }
    }

    fn open(&mut self, anchor: usize, kind: Collection, line: usize) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(content(line, "exceeded max depth of 100"));
        }
        self.count(1, line)?;
        self.open.push(Open {
            anchor,
            nodes_before: self.nodes - 1,
            kind,
        });
        Ok(())
    }

    fn close(&mut self, line: usize) -> Result<(), YamlError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.kind {
            Collection::List(items) => Value::Array(items),
            Collection::Map { fields, merged, .. } => merge(fields, merged, line)?,
        };
        let nodes = self.nodes - open.nodes_before;
        self.remember(open.anchor, &value, nodes);
        self.place(value, line)
    }

    /// Puts a finished value where it belongs: a list, a map's key or value, or the end of a document.
    fn place(&mut self, value: Value, line: usize) -> Result<(), YamlError> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            None if value.is_null() => {}
            None => self.documents.push(value),
            Some(Collection::List(items)) => items.push(value),
            Some(Collection::Map { fields, merged, key }) => match key.take() {
                None => *key = Some(Key::Name(key_text(value, line)?)),
                Some(Key::Merge) => merged.push(value),
                Some(Key::Name(name)) => {
                    if fields.insert(name.clone(), value).is_some() {
                        return Err(content(line, &format!("key {name:?} already set in map")));
                    }
                }
            },
        }
        Ok(())
    }
}

/// Keys of the map itself win over merged ones.
fn merge(mut fields: Map<String, Value>, merged: Vec<Value>, line: usize) -> Result<Value, YamlError> {
    for source in merged {
        let sources = match source {
            Value::Array(items) => items,
            other => vec![other],
        };
        for source in sources {
            let Value::Object(entries) = source else {
                return Err(content(
                    line,
                    "map merge requires map or sequence of maps as the value",
                ));
            };
            for (key, value) in entries {
                fields.entry(key).or_insert(value);
            }
        }
    }
    Ok(Value::Object(fields))
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>, line: usize) -> Result<Value, YamlError> {
    match tag.and_then(Tag::core_suffix) {
        Some("str" | "binary") => Ok(Value::String(text.to_owned())),
        Some("int" | "float" | "bool" | "null") => match resolve(text) {
            Value::String(_) => Err(content(line, &format!("cannot decode {text:?} as its tag says"))),
            value => Ok(value),
        },
        _ if plain => Ok(resolve(text)),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Keys of JSON are strings; Go prints the others.
fn key_text(value: Value, line: usize) -> Result<String, YamlError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(content(line, "map key is not a scalar")),
    }
}

fn content(line: usize, text: &str) -> YamlError {
    YamlError::Content {
        line,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Value {
        documents(text).unwrap().remove(0)
    }

    #[test]
    fn quoted_scalars_stay_text() {
        assert_eq!(
            one("a: \"yes\"\nb: '0777'\nc: |\n  on\n"),
            json!({"a": "yes", "b": "0777", "c": "on\n"})
        );
    }

    #[test]
    fn anchors_aliases_and_merges_are_followed() {
        let text = "base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\nlist: [*b]\n";
        assert_eq!(
            one(text),
            json!({"base": {"x": 1, "z": 2}, "use": {"x": 1, "z": 3}, "list": [{"x": 1, "z": 2}]})
        );
    }

    #[test]
    fn keys_are_text_and_may_not_repeat() {
        assert_eq!(one("80: a\ntrue: b\n"), json!({"80": "a", "true": "b"}));
        let error = documents("a: 1\nb: 2\na: 3\n").unwrap_err().to_string();
        assert_eq!(error, "yaml: line 3: key \"a\" already set in map");
    }

    #[test]
    fn bombs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(
            documents(&text)
                .unwrap_err()
                .to_string()
                .contains("excessive aliasing")
        );
        assert!(documents(&"[".repeat(200)).is_err());
    }

    #[test]
    fn broken_text_is_an_error_with_a_place() {
        let error = documents("a: [1, 2\nb: 3\n").unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
    }
}
