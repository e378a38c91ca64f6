//! Requests and the answers they must get, one file for each subject.
//!
//! ```text
//! # what this step shows
//! > POST /api/v1/namespaces/default/configmaps
//! {"kind":"ConfigMap", ...}
//! < 201
//! {"metadata":{"name":"a"}}
//! ```
//! The expected document is a part of the answer: fields it does not name may be anything. `"*"` is any value, `"~text"` a string
//! that contains text, `null` an absent field. A list must have as many items. `> PATCH path content/type` sets the content type.

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::Value;

use crate::server::Cluster;

struct Step {
    title: String,
    method: Method,
    path: String,
    content_type: String,
    body: String,
    code: u16,
    expected: Option<Value>,
}

fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut title, mut answering) = (String::new(), false);
    let mut expected = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            title = comment.to_owned();
        } else if let Some(request) = line.strip_prefix("> ") {
            finish(&mut steps, &mut expected)?;
            answering = false;
            let words: Vec<&str> = request.split_whitespace().collect();
            let [method, path, rest @ ..] = &words[..] else {
                bail!("bad request line {line:?}")
            };
            let content_type = rest.first().unwrap_or(&"application/json").to_string();
            steps.push(Step {
                title: title.clone(),
                method: method.parse()?,
                path: path.to_string(),
                content_type,
                body: String::new(),
                code: 0,
                expected: None,
            });
        } else if let Some(code) = line.strip_prefix("< ") {
            steps.last_mut().context("an answer without request")?.code = code.trim().parse()?;
            answering = true;
        } else if answering {
            expected.push_str(line);
        } else if let Some(step) = steps.last_mut() {
            step.body.push_str(line);
            step.body.push('\n');
        }
    }
    finish(&mut steps, &mut expected)?;
    Ok(steps)
}

fn finish(steps: &mut [Step], expected: &mut String) -> Result<()> {
    if let Some(step) = steps.last_mut().filter(|_| !expected.trim().is_empty()) {
        step.expected = Some(
            serde_json::from_str(expected)
                .with_context(|| format!("expected document of {:?}", step.title))?,
        );
    }
    expected.clear();
    Ok(())
}

fn differs(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::String(any), found) if any == "*" => found.is_null().then(|| format!("{path}: absent")),
        (Value::String(part), Value::String(found)) if part.starts_with('~') => (!found.contains(&part[1..]))
            .then(|| format!("{path}: {found:?} does not contain {:?}", &part[1..])),
        (Value::Object(expected), Value::Object(found)) => expected.iter().find_map(|(key, value)| {
            differs(
                &format!("{path}.{key}"),
                value,
                found.get(key).unwrap_or(&Value::Null),
            )
        }),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => expected
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(i, (e, f))| differs(&format!("{path}[{i}]"), e, f)),
        (expected, found) => {
            (expected != found).then(|| format!("{path}: expected {expected}, found {found}"))
        }
    }
}

async fn play(name: &str, text: &str) -> Result<()> {
    let cluster = Cluster::start().await?;
    for step in parse(text)? {
        let body = Some(step.body.trim()).filter(|body| !body.is_empty());
        let answer = cluster
            .call_with(step.method.clone(), &step.path, &step.content_type, body)
            .await?;
        let at = format!("{name}: {}: {} {}", step.title, step.method, step.path);
        let shown = || String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status.as_u16() != step.code {
            bail!("{at}: expected {}, got {}: {}", step.code, answer.status, shown());
        }
        if let Some(difference) = step
            .expected
            .as_ref()
            .and_then(|expected| differs("", expected, &answer.json()))
        {
            bail!("{at}: {difference}\n{}", shown());
        }
    }
    Ok(())
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() -> Result<()> {
                play(stringify!($name), include_str!(concat!("transcripts/", stringify!($name), ".txt"))).await
            }
        )*
    };
}

transcripts! { objects pods services deletion lists errors access admission }
