//! Lines of a transaction: `mod("key") > "0"` and `put key value`.

use etcd_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::etcdserverpb::request_op::Request;
use etcd_api::etcdserverpb::{Compare, RequestOp};

use crate::cobra::flags::{self, Parsed};
use crate::ctlv3::command::{del, get, put};
use crate::exit::{Exit, code};
use crate::go::quote::quote;
use crate::go::{scan, strconv::parse_int};

pub fn compare(line: &str) -> Result<Compare, String> {
    let Some((target, rest)) = line.split_once('(') else {
        return Err(format!("malformed comparison: {line}"));
    };
    let read = scan::comparison(rest);
    if read.parts != 3 {
        let (key, value) = (quote(&read.key), quote(&read.value));
        let operator = read.operator;
        return Err(format!(
            "malformed comparison: {line}; got {target}({key}) {operator} {value}"
        ));
    }
    let number = || {
        let text = String::from_utf8_lossy(&read.value);
        parse_int(&text, 10).map_err(|_| format!("invalid txn compare request: {line}"))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (
            CompareTarget::Value,
            TargetUnion::Value(read.value.clone().into()),
        ),
        "lease" => (
            CompareTarget::Lease,
            TargetUnion::Lease(lease(&read.value, line)?),
        ),
        unknown => return Err(format!("malformed comparison: {line} (unknown target {unknown})")),
    };
    Ok(Compare {
        result: result(&read.operator, line)?.into(),
        target: target.into(),
        key: read.key.into(),
        target_union: Some(union),
        ..Default::default()
    })
}

/// Upstream's dies here; in hexadecimal, as everywhere else.
fn lease(value: &[u8], line: &str) -> Result<i64, String> {
    let text = String::from_utf8_lossy(value);
    parse_int(&text, 16).map_err(|_| format!("invalid txn compare request: {line}"))
}

fn result(operator: &str, line: &str) -> Result<CompareResult, String> {
    match operator {
        "=" => Ok(CompareResult::Equal),
        "!=" => Ok(CompareResult::NotEqual),
        ">" => Ok(CompareResult::Greater),
        "<" => Ok(CompareResult::Less),
        // Upstream's dies here with a stack trace.
        unknown => Err(format!(
            "malformed comparison: {line} (unknown result op {unknown})"
        )),
    }
}

pub async fn request(line: &str) -> Result<RequestOp, Exit> {
    let words = argify(line);
    let invalid = |what: &str| Exit::new(code::INVALID_INPUT, format!("invalid {what}: {line}"));
    let Some((name, rest)) = words.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(invalid("txn compare request"));
    };
    let read = |declared: Vec<flags::Flag>| flags::parse(&declared, rest).map_err(|_| invalid("txn request"));
    let request = match name.as_str() {
        "put" => {
            let Parsed { flags, args } = read(put::flags())?;
            Request::RequestPut(put::request(&flags, &args)?)
        }
        "get" => {
            let Parsed { flags, args } = read(get::flags())?;
            Request::RequestRange(get::request(&flags, &args)?)
        }
        "del" => {
            let Parsed { flags, args } = read(del::flags())?;
            Request::RequestDeleteRange(del::request(&flags, &args).await?)
        }
        _ => return Err(invalid("txn request")),
    };
    Ok(RequestOp {
        request: Some(request),
    })
}

/// Words of a line: blanks part them, quotes of both kinds hold them together.
pub fn argify(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = word(rest);
        words.extend(word);
        rest = after.trim_start();
    }
    words
}

fn word(rest: &str) -> (Option<String>, &str) {
    if let Some(inner) = rest.strip_prefix('\'') {
        return match inner.split_once('\'') {
            Some((word, after)) => (Some(word.to_owned()), after),
            None => (None, inner),
        };
    }
    if let Some(inner) = rest.strip_prefix('"') {
        return match crate::go::quote::unquote_prefix(rest) {
            Some((bytes, after)) => (Some(String::from_utf8_lossy(&bytes).into_owned()), after),
            None => (None, inner),
        };
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    (Some(rest[..end].to_owned()), &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_of_every_target() {
        let read = compare(r#"mod("key1") > "7""#).unwrap();
        assert_eq!(
            (read.result(), read.target()),
            (CompareResult::Greater, CompareTarget::Mod)
        );
        assert_eq!(read.target_union, Some(TargetUnion::ModRevision(7)));
        let value = compare(r#"val("k 2") != "a\n""#).unwrap();
        assert_eq!(value.target_union, Some(TargetUnion::Value("a\n".into())));
        assert_eq!(value.key, "k 2");
        assert_eq!(
            compare(r#"lease("k") = "1f""#).unwrap().target_union,
            Some(TargetUnion::Lease(31))
        );
    }

    #[test]
    fn malformed_ones_are_told_with_upstreams_words() {
        assert_eq!(
            compare(r#"mod(a) > "0""#).unwrap_err(),
            "malformed comparison: mod(a) > \"0\"; got mod(\"\")  \"\""
        );
        assert_eq!(
            compare(r#"foo("a") > "0""#).unwrap_err(),
            "malformed comparison: foo(\"a\") > \"0\" (unknown target foo)"
        );
        assert_eq!(
            compare(r#"mod("a") > "x""#).unwrap_err(),
            "invalid txn compare request: mod(\"a\") > \"x\""
        );
        assert_eq!(compare("mod").unwrap_err(), "malformed comparison: mod");
    }

    #[test]
    fn words_keep_what_quotes_hold() {
        assert_eq!(
            argify(r#"put key1 "a \"b\"" 'c d' --x"#),
            ["put", "key1", "a \"b\"", "c d", "--x"]
        );
        assert_eq!(argify("  "), Vec::<String>::new());
    }

    #[tokio::test]
    async fn requests_are_read_as_commands() {
        let Some(Request::RequestPut(put)) = request(r#"put a "x y" --lease=1f"#).await.unwrap().request
        else {
            panic!("no put");
        };
        assert_eq!((put.key, put.value, put.lease), ("a".into(), "x y".into(), 31));
        let refused = |line: &'static str| async move { request(line).await.unwrap_err() };
        assert_eq!(
            refused("foo bar").await.message.unwrap(),
            "invalid txn request: foo bar"
        );
        assert_eq!(
            refused("put").await.message.unwrap(),
            "invalid txn compare request: put"
        );
        assert_eq!(refused("put a --bogus").await.code, 3);
    }
}
