//! One page while it is being filled.

use crate::format::{BRANCH, ELEMENT_BYTES, PAGE_BYTES, PAGE_HEADER_BYTES, PageHeader};

/// What stands behind a key.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    Value { flags: u32, value: Value<'a> },
    Child(u64),
}

/// A plan knows the lengths of values alone.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Bytes(&'a [u8]),
    Length(usize),
}

impl Value<'_> {
    pub fn len(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Length(length) => *length,
        }
    }
}

impl Body<'_> {
    fn len(&self) -> usize {
        match self {
            Body::Value { value, .. } => value.len(),
            Body::Child(_) => 0,
        }
    }
}

#[derive(Clone, Copy)]
struct Element {
    flags: u32,
    key: u32,
    value: u32,
    child: u64,
}

pub struct Node {
    kind: u16,
    elements: Vec<Element>,
    /// Keys and values as they lie behind the elements; a plan's has no values.
    data: Vec<u8>,
    size: usize,
}

impl Node {
    pub fn new(kind: u16) -> Node {
        Node {
            kind,
            elements: Vec::new(),
            data: Vec::new(),
            size: PAGE_HEADER_BYTES,
        }
    }

    pub fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
        self.data.shrink_to(PAGE_BYTES);
        self.size = PAGE_HEADER_BYTES;
    }

    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Bytes that it takes, before padding.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A larger item gets a page of its own, with overflow.
    pub fn fits(&self, key: &[u8], body: &Body<'_>) -> bool {
        self.is_empty() || self.size + ELEMENT_BYTES + key.len() + body.len() <= PAGE_BYTES
    }

    pub fn push(&mut self, key: &[u8], body: &Body<'_>) {
        self.data.extend_from_slice(key);
        let (flags, child) = match body {
            Body::Value { flags, value } => {
                if let Value::Bytes(bytes) = value {
                    self.data.extend_from_slice(bytes);
                }
                (*flags, 0)
            }
            Body::Child(page) => (0, *page),
        };
        self.elements.push(Element {
            flags,
            key: key.len() as u32,
            value: body.len() as u32,
            child,
        });
        self.size += ELEMENT_BYTES + key.len() + body.len();
    }

    pub fn first_key(&self) -> &[u8] {
        let length = self.elements.first().map_or(0, |element| element.key as usize);
        &self.data[..length]
    }

    pub fn overflow(&self) -> u32 {
        (self.size.div_ceil(PAGE_BYTES) - 1) as u32
    }

    /// As it lies in its parent's value: page 0.
    pub fn encode_inline(&self, out: &mut Vec<u8>) {
        self.encode(0, 0, out);
    }

    /// Without padding. Of a plan's node the values are missing.
    pub fn encode(&self, id: u64, overflow: u32, out: &mut Vec<u8>) {
        let header = PageHeader {
            id,
            flags: self.kind,
            // A node of more than one element is no larger than a page, which holds few.
            count: self.elements.len() as u16,
            overflow,
        };
        out.extend_from_slice(&header.encode());
        let mut at = 0;
        for (place, element) in self.elements.iter().enumerate() {
            // Counted from the element itself.
            let position = ((self.elements.len() - place) * ELEMENT_BYTES) as u32 + at;
            self.encode_element(element, position, out);
            at += element.key + element.value;
        }
        out.extend_from_slice(&self.data);
    }

    fn encode_element(&self, element: &Element, position: u32, out: &mut Vec<u8>) {
        if self.kind == BRANCH {
            out.extend_from_slice(&position.to_le_bytes());
            out.extend_from_slice(&element.key.to_le_bytes());
            out.extend_from_slice(&element.child.to_le_bytes());
            return;
        }
        for word in [element.flags, position, element.key, element.value] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}
