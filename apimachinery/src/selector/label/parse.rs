//! The string form: words, the symbols `= == != > < ! ( ) ,` and the keywords `in` and `notin`, which are words again where a
//! key or a value is expected.

use super::{Operator, Requirement};
use crate::field::{self, Path};
use crate::selector::SelectorError;
use crate::validation;

/// Requirements in one selector; nothing real comes near.
const MAX_REQUIREMENTS: usize = 1000;

type Result<T> = std::result::Result<T, SelectorError>;

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Symbol("!") => {}
            Token::End => return Ok(requirements),
            other => {
                return fail(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        }
        let requirement = parser
            .requirement()
            .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        if requirements.len() > MAX_REQUIREMENTS {
            return fail(format!("more than {MAX_REQUIREMENTS} requirements"));
        }
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => {
                    return fail(format!(
                        "found '{}', expected: identifier after ','",
                        other.text()
                    ));
                }
            },
            other => {
                return fail(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    other.text()
                ));
            }
        }
    }
}

fn fail<T>(text: String) -> Result<T> {
    Err(SelectorError(text))
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    /// Symbols that mean nothing together.
    Nonsense(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Nonsense(text) => text,
            Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

const SPECIAL: [char; 7] = ['=', '!', '(', ')', ',', '>', '<'];

/// Longest first.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            return tokens;
        }
        let len = if rest.starts_with(SPECIAL) {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
            tokens.push(symbol.map_or(Token::Nonsense(&rest[..1]), Token::Symbol));
            symbol.map_or(1, str::len)
        } else {
            let len = rest
                .find(|c: char| SPECIAL.contains(&c) || c.is_ascii_whitespace())
                .unwrap_or(rest.len());
            tokens.push(Token::Word(&rest[..len]));
            len
        };
        rest = &rest[len..];
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return fail(format!("found '{}', expected: identifier", token.text()));
        };
        check_key(key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort_unstable();
        values.dedup();
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator> {
        Ok(match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => {
                return fail(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        })
    }

    /// `(a,b)`. A missing word is the empty string.
    fn values(&mut self) -> Result<Vec<String>> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return fail(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = Vec::new();
        loop {
            let mut value = "";
            if let Token::Word(word) = self.peek() {
                value = word;
                self.at += 1;
            }
            values.push(value.to_owned());
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return fail(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(word) => {
                self.at += 1;
                Ok(word.to_owned())
            }
            other => fail(format!("found '{}', expected: identifier", other.text())),
        }
    }
}

/// Upstream checks the key before anything else and names no field.
fn check_key(key: &str) -> Result<()> {
    let messages = validation::label_key(key);
    match messages.is_empty() {
        true => Ok(()),
        false => fail(field::invalid(&Path::new("<nil>"), key, messages.join("; ")).to_string()),
    }
}
