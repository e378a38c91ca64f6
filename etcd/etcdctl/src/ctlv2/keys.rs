//! `/v2/keys`.

use http::Method;
use serde::Deserialize;

use super::http::{Client, Error, EtcdError};
use crate::client::Context;
use crate::fetch::{Answer, Request};

const FORM: &str = "application/x-www-form-urlencoded";

#[derive(Debug, Deserialize)]
pub struct Response {
    pub action: String,
    #[serde(default)]
    pub node: Node,
    #[serde(rename = "prevNode")]
    pub prev_node: Option<Node>,
    /// The store's index when it answered.
    #[serde(skip)]
    pub index: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    pub key: String,
    pub dir: bool,
    pub value: String,
    pub nodes: Option<Vec<Node>>,
    pub created_index: u64,
    pub modified_index: u64,
    pub expiration: Option<String>,
    pub ttl: i64,
}

/// A request to one key.
pub struct Action {
    method: Method,
    key: String,
    query: Vec<(&'static str, String)>,
    form: Vec<(&'static str, String)>,
    /// Not repeated at the next endpoint: the first may have done it.
    once: bool,
    wait: bool,
}

impl Action {
    fn new(method: Method, key: &str) -> Self {
        Action {
            method,
            key: key.to_owned(),
            query: Vec::new(),
            form: Vec::new(),
            once: false,
            wait: false,
        }
    }

    pub fn get(key: &str, recursive: bool, sorted: bool, quorum: bool) -> Self {
        let query = vec![
            ("quorum", quorum.to_string()),
            ("recursive", recursive.to_string()),
            ("sorted", sorted.to_string()),
        ];
        Action {
            query,
            ..Action::new(Method::GET, key)
        }
    }

    pub fn set(key: &str, value: &str) -> Self {
        Action::new(Method::PUT, key).form("value", value.to_owned())
    }

    pub fn set_dir(key: &str) -> Self {
        Action::new(Method::PUT, key).query("dir", "true".to_owned())
    }

    pub fn create_in_order(key: &str, value: &str) -> Self {
        Action::new(Method::POST, key).form("value", value.to_owned())
    }

    pub fn delete(key: &str) -> Self {
        Action {
            once: true,
            ..Action::new(Method::DELETE, key)
        }
    }

    pub fn watch(key: &str, index: u64, recursive: bool) -> Self {
        let query = vec![
            ("recursive", recursive.to_string()),
            ("wait", "true".to_owned()),
            ("waitIndex", index.to_string()),
        ];
        Action {
            query,
            wait: true,
            ..Action::new(Method::GET, key)
        }
    }

    pub fn query(mut self, name: &'static str, value: String) -> Self {
        self.query.push((name, value));
        self
    }

    fn form(mut self, name: &'static str, value: String) -> Self {
        self.form.push((name, value));
        self
    }

    /// The key must be new (`false`), or be there already. Creating is not repeated.
    pub fn prev_exist(mut self, exists: bool) -> Self {
        self.once |= !exists;
        self.query("prevExist", exists.to_string())
    }

    pub fn ttl(self, seconds: i64) -> Self {
        if seconds > 0 {
            self.form("ttl", seconds.to_string())
        } else {
            self
        }
    }

    fn request(&self) -> Request {
        let mut query = self.query.clone();
        query.sort();
        let mut form = self.form.clone();
        form.sort();
        let mut url = format!("/v2/keys{}", path(&self.key));
        if !query.is_empty() {
            url.push_str(&format!("?{}", encode_pairs(&query)));
        }
        let changes = self.method != Method::GET;
        Request {
            content_type: changes.then_some(FORM),
            body: matches!(self.method, Method::PUT | Method::POST).then(|| encode_pairs(&form)),
            ..Request::new(self.method.clone(), url)
        }
    }

    pub async fn send(&self, client: &mut Client, context: &Context) -> Result<Response, Error> {
        loop {
            let answer = client
                .send(context, &self.request(), self.once, self.wait)
                .await?;
            // A wait that timed out on the server's side is an empty answer.
            if self.wait && answer.status == 200 && answer.body.is_empty() {
                continue;
            }
            return read(answer);
        }
    }
}

fn read(answer: Answer) -> Result<Response, Error> {
    let invalid = |_| {
        Error::Text(
            "client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint"
                .to_owned(),
        )
    };
    if answer.status != 200 && answer.status != 201 {
        let error: EtcdError = serde_json::from_slice(&answer.body).map_err(invalid)?;
        return Err(Error::Etcd(error));
    }
    if answer.body.is_empty() {
        return Err(Error::Text("client: response body is empty".to_owned()));
    }
    let mut response: Response = serde_json::from_slice(&answer.body).map_err(invalid)?;
    let index = answer
        .headers
        .get("X-Etcd-Index")
        .and_then(|value| value.to_str().ok());
    response.index = index.and_then(|index| index.parse().ok()).unwrap_or(0);
    Ok(response)
}

/// Begins with a slash, has no empty, `.` or `..` parts, and keeps a last slash.
fn path(key: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut path: String = parts
        .iter()
        .map(|part| format!("/{}", encode(part, PATH)))
        .collect();
    if key.ends_with('/') && !path.is_empty() {
        path.push('/');
    }
    path
}

/// Besides letters and digits, what Go leaves as it is in a path and in a query.
const PATH: &str = "-_.~$&+,:;=@";
const QUERY: &str = "-_.~";

fn encode(text: &str, keep: &str) -> String {
    let byte = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) => {
            char::from(byte).to_string()
        }
        b' ' if keep == QUERY => "+".to_owned(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn encode_pairs(pairs: &[(&str, String)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value, QUERY)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_original() {
        let request = Action::get("a/../b c//", true, false, true).request();
        assert_eq!(
            request.url,
            "/v2/keys/b%20c/?quorum=true&recursive=true&sorted=false"
        );
        let request = Action::set("/k", "a b&c")
            .ttl(5)
            .query("prevIndex", "3".to_owned())
            .request();
        assert_eq!(
            (request.url.as_str(), request.body.as_deref()),
            ("/v2/keys/k?prevIndex=3", Some("ttl=5&value=a+b%26c"))
        );
        assert_eq!(
            Action::get("/", false, false, false)
                .request()
                .url
                .split('?')
                .next(),
            Some("/v2/keys")
        );
    }
}
