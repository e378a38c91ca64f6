//! `Str`: the 24-byte string of the tree. Schema names are borrowed, short strings live inside, the rest is one allocation.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// The hint of text that is no field's name.
const NO_FIELD: u16 = u16::MAX;

/// Bytes that fit beside the tag and the length.
const INLINE: usize = 22;

#[derive(Clone)]
pub struct Str(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    /// Text of the program or the schema; for a field's name, its place in the struct that it was made for.
    Static(u16, &'static str),
    Heap(Box<str>),
}

impl Str {
    pub const fn from_static(text: &'static str) -> Str {
        Str(Repr::Static(NO_FIELD, text))
    }

    /// The name of a struct's field. The place is only a hint: values move between structs.
    pub(crate) const fn from_field(name: &'static str, place: u16) -> Str {
        Str(Repr::Static(place, name))
    }

    pub(crate) fn field_hint(&self) -> Option<(usize, &'static str)> {
        match self.0 {
            Repr::Static(place, name) if place != NO_FIELD => Some((usize::from(place), name)),
            _ => None,
        }
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Only `inline` builds this variant, from a whole `&str`, so the check cannot fail.
            Repr::Inline(len, bytes) => std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default(),
            Repr::Static(_, text) => text,
            Repr::Heap(text) => text,
        }
    }

    fn inline(text: &str) -> Option<Str> {
        let mut bytes = [0; INLINE];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Str(Repr::Inline(text.len() as u8, bytes)))
    }
}

impl Default for Str {
    fn default() -> Str {
        Str::from_static("")
    }
}

impl Deref for Str {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str::inline(text).unwrap_or_else(|| Str(Repr::Heap(text.into())))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str::inline(&text).unwrap_or_else(|| Str(Repr::Heap(text.into_boxed_str())))
    }
}

impl From<&String> for Str {
    fn from(text: &String) -> Str {
        text.as_str().into()
    }
}

impl From<std::borrow::Cow<'_, str>> for Str {
    fn from(text: std::borrow::Cow<'_, str>) -> Str {
        match text {
            std::borrow::Cow::Borrowed(text) => text.into(),
            std::borrow::Cow::Owned(text) => text.into(),
        }
    }
}

impl From<Str> for String {
    fn from(text: Str) -> String {
        text.as_str().to_owned()
    }
}

impl PartialEq for Str {
    fn eq(&self, other: &Str) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Str {}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Str {
    fn partial_cmp(&self, other: &Str) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Str {
    fn cmp(&self, other: &Str) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
