//! The parameters of a request for keys: from its query and, for PUT and POST, its body.

use etcd_api::etcdserverpb::Request;
use http::Method;

use super::error::{Code, Error};
use super::path;
use super::store::KEYS_PREFIX;

/// Parameters in one request; what needs more is no request for keys.
const MAX_PARAMETERS: usize = 256;

/// In order of precedence: the body's come first, and of several with one name the first counts.
pub struct Form(Vec<(String, String)>);

/// A request as it goes into the log, and how its answer is wanted.
#[derive(Debug)]
pub struct Parsed {
    pub request: Request,
    pub no_value_on_success: bool,
}

impl Form {
    pub fn parse(query: &str, body: &str) -> Result<Form, Error> {
        let mut pairs = Vec::new();
        for pair in body.split('&').chain(query.split('&')) {
            if pair.is_empty() {
                continue;
            }
            if pairs.len() == MAX_PARAMETERS {
                return Err(Error::request(
                    Code::InvalidForm,
                    format!("more than {MAX_PARAMETERS} parameters"),
                ));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Form(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn bool(&self, name: &str) -> Result<bool, Error> {
        Ok(self.optional_bool(name)?.unwrap_or(false))
    }

    /// As Go reads them.
    fn optional_bool(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(_) => Err(Error::request(
                Code::InvalidField,
                format!("invalid value for \"{name}\""),
            )),
        }
    }

    fn number(&self, name: &str, code: Code) -> Result<u64, Error> {
        match self.get(name) {
            None => Ok(0),
            Some(text) if text.bytes().all(|digit| digit.is_ascii_digit()) => text
                .parse()
                .map_err(|_| Error::request(code, format!("invalid value for \"{name}\""))),
            Some(_) => Err(Error::request(code, format!("invalid value for \"{name}\""))),
        }
    }

    /// Checks in etcd's order. `now` is when a time to live begins.
    pub fn request(&self, method: &Method, key: &str, now: i64) -> Result<Parsed, Error> {
        let prev_index = self.number("prevIndex", Code::IndexNotANumber)?;
        let since = self.number("waitIndex", Code::IndexNotANumber)?;
        let recursive = self.bool("recursive")?;
        let sorted = self.bool("sorted")?;
        let wait = self.bool("wait")?;
        let dir = self.bool("dir")?;
        let quorum = self.bool("quorum")?;
        let stream = self.bool("stream")?;
        if wait && method != Method::GET {
            let cause = "\"wait\" can only be used with GET requests";
            return Err(Error::request(Code::InvalidField, cause));
        }
        if self.get("prevValue") == Some("") {
            let cause = "\"prevValue\" cannot be empty";
            return Err(Error::request(Code::PrevValueRequired, cause));
        }
        let no_value_on_success = self.bool("noValueOnSuccess")?;
        let expiration = self.expiration(now)?;
        let prev_exist = self.optional_bool("prevExist").map_err(unquoted)?;
        let refresh = self.refresh(expiration.is_some())?;
        let request = Request {
            method: method.to_string(),
            path: format!("{KEYS_PREFIX}{}", path::clean(key)),
            val: self.text("value"),
            dir,
            prev_value: self.text("prevValue"),
            prev_index,
            prev_exist,
            expiration: expiration.unwrap_or(0),
            wait,
            since,
            recursive,
            sorted,
            quorum,
            time: now,
            stream,
            refresh,
            id: 0,
        };
        Ok(Parsed {
            request,
            no_value_on_success,
        })
    }

    /// When the time to live that was given ends.
    fn expiration(&self, now: i64) -> Result<Option<i64>, Error> {
        if self.get("ttl").is_none_or(str::is_empty) {
            return Ok(None);
        }
        let seconds = self.number("ttl", Code::TtlNotANumber)?;
        let nanos = i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000_000);
        Ok(Some(now.saturating_add(nanos)))
    }

    fn refresh(&self, has_ttl: bool) -> Result<Option<bool>, Error> {
        let refresh = self.optional_bool("refresh").map_err(unquoted)?;
        if refresh == Some(true) {
            if self.get("value").is_some_and(|value| !value.is_empty()) {
                let cause = "A value was provided on a refresh";
                return Err(Error::request(Code::RefreshValue, cause));
            }
            if !has_ttl {
                return Err(Error::request(Code::RefreshTtlRequired, "No TTL value set"));
            }
        }
        Ok(refresh)
    }
}

/// etcd has no quotes in the text for these two.
fn unquoted(error: Error) -> Error {
    Error {
        cause: error.cause.replace('"', ""),
        ..error
    }
}

/// Percent-decoding; `+` is a space in forms and not in paths.
pub fn decode(text: &str, form: bool) -> Result<String, Error> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' if form => out.push(b' '),
            b'%' => {
                let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(byte) = byte else {
                    let escape: String = format!("%{}", String::from_utf8_lossy(rest))
                        .chars()
                        .take(3)
                        .collect();
                    return Err(Error::request(
                        Code::InvalidForm,
                        format!("invalid URL escape {escape:?}"),
                    ));
                };
                out.push(byte);
                rest = &rest[2..];
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out)
        .map_err(|_| Error::request(Code::InvalidForm, "keys and values of the v2 API must be UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, query: &str, body: &str) -> Result<Parsed, String> {
        Form::parse(query, body)
            .and_then(|form| form.request(&method, "/foo", 1_000_000_000))
            .map_err(|error| error.json())
    }

    #[test]
    fn body_and_query_are_read_and_the_body_comes_first() {
        let parsed = parse(
            Method::PUT,
            "value=q&prevExist=true&dir=0",
            "value=a+b%26%C3%A9&ttl=5&noValueOnSuccess=1",
        )
        .unwrap();
        let request = parsed.request;
        assert_eq!((request.val.as_str(), request.path.as_str()), ("a b&é", "/1/foo"));
        assert_eq!(
            (request.prev_exist, request.refresh, request.dir),
            (Some(true), None, false)
        );
        assert_eq!((request.time, request.expiration), (1_000_000_000, 6_000_000_000));
        assert!(parsed.no_value_on_success);
        assert_eq!(parse(Method::GET, "", "").unwrap().request.expiration, 0);
    }

    #[test]
    fn what_is_wrong_has_etcds_number_and_text() {
        for (method, query, code, cause) in [
            (
                Method::GET,
                "recursive",
                209,
                "invalid value for \\\"recursive\\\"",
            ),
            (
                Method::PUT,
                "prevIndex=x",
                203,
                "invalid value for \\\"prevIndex\\\"",
            ),
            (
                Method::GET,
                "waitIndex=-1",
                203,
                "invalid value for \\\"waitIndex\\\"",
            ),
            (
                Method::PUT,
                "wait=true",
                209,
                "\\\"wait\\\" can only be used with GET requests",
            ),
            (
                Method::PUT,
                "prevValue=",
                201,
                "\\\"prevValue\\\" cannot be empty",
            ),
            (Method::PUT, "ttl=x", 202, "invalid value for \\\"ttl\\\""),
            (Method::PUT, "prevExist=x", 209, "invalid value for prevExist"),
            (
                Method::PUT,
                "refresh=true&value=x&ttl=1",
                211,
                "A value was provided on a refresh",
            ),
            (Method::PUT, "refresh=true", 212, "No TTL value set"),
            (Method::PUT, "value=%zz", 210, "invalid URL escape \\\"%zz\\\""),
            (Method::PUT, "value=%ff", 210, "must be UTF-8"),
        ] {
            let error = parse(method, query, "").unwrap_err();
            assert!(
                error.contains(&format!("\"errorCode\":{code},")) && error.contains(cause),
                "{query}: {error}"
            );
        }
        let many = "a=b&".repeat(MAX_PARAMETERS + 1);
        assert!(parse(Method::PUT, &many, "").unwrap_err().contains("210"));
    }
}
