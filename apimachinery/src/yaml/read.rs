//! From parser events to a tree that keeps the order of keys and their repeats.

use super::{MAX_NODES, failed, scalar};
use crate::json::{self, DecodeError, MAX_DEPTH};
use crate::value::Value;
use granit_parser::{Event, Parser, ScanError, StrInput};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, DecodeError>;

#[derive(Clone)]
pub(super) enum Node {
    Leaf(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Node::Leaf(value) => json::encode(value, out),
            Node::List(items) => write_all(out, [b'[', b']'], items, |item, out| item.write(out)),
            Node::Map(entries) => write_all(out, [b'{', b'}'], entries, |(key, node), out| {
                json::string(key, out);
                out.push(b':');
                node.write(out);
            }),
        }
    }

    fn size(&self) -> usize {
        1 + match self {
            Node::Leaf(_) => 0,
            Node::List(items) => items.iter().map(Node::size).sum(),
            Node::Map(entries) => entries.iter().map(|(_, node)| node.size()).sum(),
        }
    }
}

fn write_all<T>(out: &mut Vec<u8>, brackets: [u8; 2], items: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(brackets[0]);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

/// The first document; null where there is none.
pub(super) fn document(text: &str) -> Result<Node> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        depth: 0,
    };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Node::Leaf(Value::Null)),
            Event::StreamStart | Event::DocumentStart(..) => {}
            event => return reader.node(event),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Ok(Event::StreamEnd),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<()> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            Err(failed("document is too large"))
        } else {
            Ok(())
        }
    }

    fn node(&mut self, event: Event<'a>) -> Result<Node> {
        self.count(1)?;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, Node::Leaf(scalar::resolve(&text, style, tag.as_deref())?))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.nested(Self::list)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.nested(Self::map)?),
            Event::Alias(anchor) => return self.alias(anchor),
            _ => return Err(failed("did not find expected node content")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize) -> Result<Node> {
        let node = self
            .anchors
            .get(&anchor)
            .ok_or_else(|| failed("anchor value contains itself"))?
            .clone();
        self.count(node.size())?;
        Ok(node)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Node>) -> Result<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        let node = read(self)?;
        self.depth -= 1;
        Ok(node)
    }

    fn list(&mut self) -> Result<Node> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node::List(items)),
                event => items.push(self.node(event)?),
            }
        }
    }

    fn map(&mut self) -> Result<Node> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => break,
                event => self.node(event)?,
            };
            let event = self.next()?;
            let value = self.node(event)?;
            match key_text(&key)? {
                key if key == "<<" => merged.push(value),
                key => entries.push((key, value)),
            }
        }
        for source in merged {
            merge(&mut entries, source)?;
        }
        Ok(Node::Map(entries))
    }
}

/// `<<` adds what the mapping does not say itself.
fn merge(entries: &mut Vec<(String, Node)>, source: Node) -> Result<()> {
    match source {
        Node::Map(inherited) => {
            for (key, node) in inherited {
                if !entries.iter().any(|(own, _)| *own == key) {
                    entries.push((key, node));
                }
            }
            Ok(())
        }
        Node::List(sources) => sources.into_iter().try_for_each(|source| merge(entries, source)),
        Node::Leaf(_) => Err(failed("map merge requires map or sequence of maps as the value")),
    }
}

fn key_text(key: &Node) -> Result<String> {
    match key {
        Node::Leaf(Value::Str(text)) => Ok(text.to_string()),
        Node::Leaf(value @ (Value::Int(_) | Value::Float(_) | Value::Bool(_))) => {
            Ok(String::from_utf8_lossy(&json::to_vec(value)).into_owned())
        }
        _ => Err(failed("unsupported map key")),
    }
}

fn scan_error(error: &ScanError) -> DecodeError {
    failed(format!("line {}: {}", error.marker().line(), error.info()))
}
