//! Field selectors: `spec.nodeName=n1,status.phase!=Running`.

use super::SelectorError;
use std::fmt;

/// One comparison. `not` is `!=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub not: bool,
    pub value: String,
}

/// A conjunction of comparisons; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut parts = split(text);
        parts.sort_unstable();
        let terms = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| term(text, part));
        Ok(FieldSelector {
            terms: terms.collect::<Result<_, _>>()?,
        })
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if one is demanded.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.field == field && !term.not)
            .map(|term| term.value.as_str())
    }

    /// `get` yields a field's value; the empty string for absent ones.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.terms
            .iter()
            .all(|term| (get(&term.field) == term.value) != term.not)
    }
}

/// At commas that no backslash protects.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn term(selector: &str, part: &str) -> Result<FieldTerm, SelectorError> {
    let unclear = || {
        SelectorError(format!(
            "invalid selector: '{selector}'; can't understand '{part}'"
        ))
    };
    let at = part.find(['=', '!']).ok_or_else(unclear)?;
    // A lone `!` is part of the name.
    let at = if part[at..].starts_with('!') && !part[at..].starts_with("!=") {
        part[at..].find('=').map(|next| at + next).ok_or_else(unclear)?
    } else {
        at
    };
    let (not, rest) = match &part[at..] {
        rest if rest.starts_with("!=") => (true, &rest[2..]),
        rest if rest.starts_with("==") => (false, &rest[2..]),
        rest => (false, &rest[1..]),
    };
    Ok(FieldTerm {
        field: part[..at].to_owned(),
        not,
        value: unescape(rest)?,
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.not { "!=" } else { "=" };
            let value = term
                .value
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(field: &str) -> &'static str {
        match field {
            "spec.nodeName" => "n1",
            "status.phase" => "Running",
            _ => "",
        }
    }

    #[test]
    fn terms_are_compared_one_by_one() {
        for (text, expected) in [
            ("", true),
            ("spec.nodeName=n1", true),
            ("spec.nodeName==n1,status.phase!=Failed", true),
            ("spec.nodeName!=n1", false),
            ("absent=", true),
        ] {
            assert_eq!(
                FieldSelector::parse(text).unwrap().matches(fields),
                expected,
                "{text}"
            );
        }
        assert_eq!(
            FieldSelector::parse("spec.nodeName=n1")
                .unwrap()
                .requires("spec.nodeName"),
            Some("n1")
        );
    }

    #[test]
    fn escapes_survive_printing() {
        let selector = FieldSelector::parse(r"a=x\,y\=z\\").unwrap();
        assert_eq!(selector.terms()[0].value, r"x,y=z\");
        assert_eq!(selector.to_string(), r"a=x\,y\=z\\");
    }

    #[test]
    fn malformed_selectors_get_upstreams_words() {
        for (text, expected) in [
            ("foo", "invalid selector: 'foo'; can't understand 'foo'"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            (
                "a=b=c",
                "invalid field selector: unescaped character in value: 61",
            ),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
