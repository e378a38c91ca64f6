//! What a row of the message table is.

pub struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

pub struct Field {
    pub number: u32,
    /// As declared; JSON has it in this form, and requests may have it in lowerCamelCase.
    pub name: &'static str,
    pub kind: Kind,
    pub label: Label,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Label {
    One,
    Many,
    /// In the message's oneof; no message has two of them.
    Either,
}

#[derive(Clone, Copy)]
pub enum Kind {
    Bool,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Choice(&'static Enum),
    Nested(&'static Message),
}

pub struct Enum {
    pub values: &'static [(&'static str, i32)],
}

/// At most 64 fields: which ones were seen is one word.
pub const fn message(name: &'static str, fields: &'static [Field]) -> Message {
    assert!(fields.len() <= 64);
    Message { name, fields }
}

pub const fn enumeration(values: &'static [(&'static str, i32)]) -> Enum {
    Enum { values }
}

pub const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        label: Label::One,
    }
}

pub const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        label: Label::Many,
        ..one(number, name, kind)
    }
}

pub const fn either(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        label: Label::Either,
        ..one(number, name, kind)
    }
}

impl Message {
    /// By either of its names.
    pub fn field(&self, name: &str) -> Option<(usize, &'static Field)> {
        let place = self
            .fields
            .iter()
            .position(|field| field.name == name || is_camel(field.name, name))?;
        Some((place, &self.fields[place]))
    }
}

impl Enum {
    pub fn number(&self, name: &str) -> Option<i32> {
        self.values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
    }

    pub fn name(&self, number: i32) -> Option<&'static str> {
        self.values
            .iter()
            .find(|(_, known)| *known == number)
            .map(|(name, _)| *name)
    }
}

/// Whether `given` is the lowerCamelCase of `declared`: underscores go, and the letter after each is upper case.
fn is_camel(declared: &str, given: &str) -> bool {
    let mut upper = false;
    let mut given = given.chars();
    for letter in declared.chars() {
        if letter == '_' {
            upper = true;
            continue;
        }
        let want = if std::mem::take(&mut upper) {
            letter.to_ascii_uppercase()
        } else {
            letter
        };
        if given.next() != Some(want) {
            return false;
        }
    }
    given.next().is_none()
}

#[cfg(test)]
mod tests {
    use crate::gateway::messages;

    #[test]
    fn a_field_has_two_names() {
        let range = &messages::RANGE_REQUEST;
        for name in ["range_end", "rangeEnd"] {
            assert_eq!(range.field(name).unwrap().1.number, 2);
        }
        assert!(range.field("rangeend").is_none());
        assert!(range.field("range_endx").is_none());
        assert_eq!(messages::LEASE_GRANT_REQUEST.field("TTL").unwrap().1.number, 1);
    }
}
