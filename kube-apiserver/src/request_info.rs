//! A request's path, parsed once: which verb on which resource, or a non-resource path.
//!
//! Every filter after this one and every handler reads `RequestInfo`; nobody parses the path again.

use http::Method;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource_request: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, ... for resources; the lowercased method otherwise.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    pub api_group: String,
    pub api_version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Path segments from the resource on; a proxy subresource reads its target from the fourth.
    pub parts: Vec<String>,
    /// Raw selectors, kept for authorizers that decide by them.
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unable to determine kind and namespace from url, {0}")]
pub struct UnparsablePath(pub String);

/// Subresources of a namespace itself; anything else below a namespace name is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    pub fn new(method: &Method, uri: &http::Uri) -> Result<RequestInfo, UnparsablePath> {
        let mut info = RequestInfo {
            path: decode_path(uri.path()),
            verb: method.as_str().to_ascii_lowercase(),
            ..Default::default()
        };
        let path = info.path.clone();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let Some(parts) = info.take_group_version(&parts) else {
            return Ok(info);
        };
        info.is_resource_request = true;
        let (parts, verb_in_path) = info.take_verb(parts, method, uri)?;
        let parts = info.take_namespace(parts);
        info.take_resource(parts);
        let query = uri.query().unwrap_or("");
        info.refine_collection_verbs(query);
        if !verb_in_path && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            info.field_selector = query_value(query, "fieldSelector").unwrap_or_default();
            info.label_selector = query_value(query, "labelSelector").unwrap_or_default();
        }
        Ok(info)
    }

    fn take_group_version<'a, 'b>(&mut self, parts: &'a [&'b str]) -> Option<&'a [&'b str]> {
        if parts.len() < 3 {
            return None;
        }
        let mut rest = match parts[0] {
            "api" | "apis" => &parts[1..],
            _ => return None,
        };
        self.api_prefix = parts[0].to_owned();
        if parts[0] == "apis" {
            if rest.len() < 3 {
                return None;
            }
            self.api_group = rest[0].to_owned();
            rest = &rest[1..];
        }
        self.api_version = rest[0].to_owned();
        Some(&rest[1..])
    }

    /// The legacy forms `/watch/...` and `/proxy/...` carry the verb in the path.
    fn take_verb<'a, 'b>(
        &mut self,
        parts: &'a [&'b str],
        method: &Method,
        uri: &http::Uri,
    ) -> Result<(&'a [&'b str], bool), UnparsablePath> {
        if matches!(parts[0], "proxy" | "watch") {
            if parts.len() < 2 {
                return Err(UnparsablePath(uri.to_string()));
            }
            self.verb = parts[0].to_owned();
            return Ok((&parts[1..], true));
        }
        self.verb = verb_of(method).to_owned();
        Ok((parts, false))
    }

    fn take_namespace<'a, 'b>(&mut self, parts: &'a [&'b str]) -> &'a [&'b str] {
        if parts[0] != "namespaces" || parts.len() < 2 {
            return parts;
        }
        self.namespace = parts[1].to_owned();
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
            &parts[2..]
        } else {
            parts
        }
    }

    fn take_resource(&mut self, parts: &[&str]) {
        self.parts = parts.iter().map(|p| (*p).to_owned()).collect();
        self.resource = parts[0].to_owned();
        if let Some(name) = parts.get(1) {
            self.name = (*name).to_owned();
        }
        // The legacy proxy verb's tail is the proxied path, not a subresource.
        if let (Some(sub), true) = (parts.get(2), self.verb != "proxy") {
            self.subresource = (*sub).to_owned();
        }
    }

    fn refine_collection_verbs(&mut self, query: &str) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb.as_str() {
            "get" => {
                self.verb = if wants_watch(query) { "watch" } else { "list" }.to_owned();
                if let Some(name) =
                    query_value(query, "fieldSelector").and_then(|s| exact_match(&s, "metadata.name"))
                {
                    self.name = name;
                }
            }
            "delete" => self.verb = "deletecollection".to_owned(),
            _ => {}
        }
    }

    /// Requests without a deadline and outside the in-flight limits: watches and streams.
    pub fn is_long_running(&self) -> bool {
        if self.is_resource_request {
            matches!(self.verb.as_str(), "watch" | "proxy")
                || matches!(
                    self.subresource.as_str(),
                    "attach" | "exec" | "proxy" | "log" | "portforward"
                )
        } else {
            self.path.starts_with("/debug/pprof/")
        }
    }

    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch" | "head")
    }

    /// The `scope` label of the request metrics.
    pub fn scope(&self) -> &'static str {
        if !self.name.is_empty() || self.verb == "create" {
            "resource"
        } else if !self.namespace.is_empty() {
            "namespace"
        } else if self.is_resource_request {
            "cluster"
        } else {
            ""
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Any value but `false` and `0` asks for a watch, as upstream's lenient query decoding has it.
fn wants_watch(query: &str) -> bool {
    query_value(query, "watch").is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
}

/// The value that a field selector demands of `field`, if it does and if it can be a path segment.
fn exact_match(selector: &str, field: &str) -> Option<String> {
    field_requirements(selector)
        .into_iter()
        .find_map(|(key, value)| (key == field && is_path_segment(&value)).then_some(value))
}

fn is_path_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

/// The equality terms of a field selector, `a=b,c==d`; inequalities carry no grant and are left out.
pub fn field_requirements(selector: &str) -> Vec<(String, String)> {
    split_unescaped(selector)
        .into_iter()
        .filter(|term| !term.contains("!="))
        .filter_map(|term| {
            let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
            Some((key.trim().to_owned(), unescape(value)))
        })
        .collect()
}

fn split_unescaped(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in selector.char_indices() {
        match c {
            ',' if !escaped => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    terms.push(&selector[start..]);
    terms
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            c
        });
    }
    out
}

/// The first value of a query parameter, percent-decoded. A bare `?watch` has the value "".
pub fn query_value(query: &str, name: &str) -> Option<String> {
    query_pairs(query)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

pub fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key, true), percent_decode(value, true))
    })
}

fn decode_path(path: &str) -> String {
    if path.contains('%') {
        percent_decode(path, false)
    } else {
        path.to_owned()
    }
}

pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', _, _) if plus_is_space => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::new(&method.parse().expect("method"), &uri.parse().expect("uri")).expect("path")
    }

    /// verb, group, version, namespace, resource, subresource, name
    fn summary(i: &RequestInfo) -> [&str; 7] {
        [
            &i.verb,
            &i.api_group,
            &i.api_version,
            &i.namespace,
            &i.resource,
            &i.subresource,
            &i.name,
        ]
    }

    #[test]
    fn resource_paths_give_verb_scope_and_name() {
        let cases: &[(&str, &str, [&str; 7])] = &[
            (
                "GET",
                "/api/v1/namespaces",
                ["list", "", "v1", "", "namespaces", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/other",
                ["get", "", "v1", "other", "namespaces", "", "other"],
            ),
            (
                "GET",
                "/api/v1/namespaces/other/pods",
                ["list", "", "v1", "other", "pods", "", ""],
            ),
            (
                "HEAD",
                "/api/v1/namespaces/other/pods/foo",
                ["get", "", "v1", "other", "pods", "", "foo"],
            ),
            (
                "GET",
                "/api/v1/pods?watch=true",
                ["watch", "", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/pods?watch",
                ["watch", "", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/pods?watch=0",
                ["list", "", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/other/pods",
                ["watch", "", "v1", "other", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/proxy/namespaces/other/pods/foo/x",
                ["proxy", "", "v1", "other", "pods", "", "foo"],
            ),
            (
                "PUT",
                "/api/v1/namespaces/other/finalize",
                ["update", "", "v1", "other", "namespaces", "finalize", "other"],
            ),
            (
                "PATCH",
                "/api/v1/namespaces/other/status",
                ["patch", "", "v1", "other", "namespaces", "status", "other"],
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/exec?command=ls",
                ["create", "", "v1", "a", "pods", "exec", "p"],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                ["deletecollection", "apps", "v1", "a", "deployments", "", ""],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments/d",
                ["delete", "apps", "v1", "a", "deployments", "", "d"],
            ),
            (
                "GET",
                "/apis/apps/v1/deployments?fieldSelector=metadata.name%3Dx",
                ["list", "apps", "v1", "", "deployments", "", "x"],
            ),
            (
                "GET",
                "/api/v1/pods?fieldSelector=metadata.name%3Da%2Fb",
                ["list", "", "v1", "", "pods", "", ""],
            ),
            ("OPTIONS", "/api/v1/pods/x", ["", "", "v1", "", "pods", "", "x"]),
        ];
        for (method, uri, want) in cases {
            let info = parse(method, uri);
            assert!(info.is_resource_request, "{uri}");
            assert_eq!(&summary(&info), want, "{method} {uri}");
        }
    }

    #[test]
    fn paths_without_a_resource_keep_the_method_as_verb() {
        for uri in [
            "/",
            "/api",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/logs/kubelet.log",
            "/openapi/v3/apis/apps/v1",
        ] {
            let info = parse("GET", uri);
            assert!(!info.is_resource_request, "{uri}");
            assert_eq!((info.verb.as_str(), info.path.as_str()), ("get", uri));
        }
    }

    #[test]
    fn a_watch_prefix_without_a_resource_is_refused() {
        assert!(RequestInfo::new(&Method::GET, &"/api/v1/watch".parse().expect("uri")).is_err());
        assert!(RequestInfo::new(&Method::GET, &"/apis/apps/v1/proxy".parse().expect("uri")).is_err());
    }

    #[test]
    fn selectors_are_kept_for_collections_only() {
        let info = parse(
            "GET",
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,status.phase!=Failed&labelSelector=a%3Db",
        );
        assert_eq!(info.field_selector, "spec.nodeName=n1,status.phase!=Failed");
        assert_eq!(info.label_selector, "a=b");
        assert_eq!(
            field_requirements(&info.field_selector),
            [("spec.nodeName".to_owned(), "n1".to_owned())]
        );
        assert_eq!(
            parse("GET", "/api/v1/namespaces/a/pods/p?fieldSelector=a%3Db").field_selector,
            ""
        );
    }

    #[test]
    fn escaped_selector_values_are_read_whole() {
        assert_eq!(
            field_requirements(r"a==x\,y,b=z\=1"),
            [
                ("a".to_owned(), "x,y".to_owned()),
                ("b".to_owned(), "z=1".to_owned())
            ]
        );
    }

    #[test]
    fn streams_and_watches_are_long_running() {
        for uri in [
            "/api/v1/pods?watch=1",
            "/api/v1/namespaces/a/pods/p/log",
            "/api/v1/nodes/n/proxy/metrics",
        ] {
            assert!(parse("GET", uri).is_long_running(), "{uri}");
        }
        assert!(!parse("GET", "/api/v1/pods").is_long_running());
    }
}
