//! Paths with `//`, `.` and `..` are sent to the ones they mean, as by Go's ServeMux.

use component_base::http::{Body, empty, full};
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};

use crate::v2;

/// None for a request whose path is clean. 307, as Go's of late: who follows a 301 may come back with a GET where it was a PUT.
pub fn redirect<B>(request: &Request<B>) -> Option<Response<Body>> {
    let path = request.uri().path();
    let clean = clean(path);
    if clean == path {
        return None;
    }
    let location = match request.uri().query() {
        Some(query) => format!("{clean}?{query}"),
        None => clean,
    };
    let mut response = Response::new(empty());
    // What was a URI's is one still, and fits into a header.
    let header = HeaderValue::from_str(&location).ok()?;
    if request.method() == Method::GET {
        *response.body_mut() = full(format!(
            "<a href=\"{}\">Temporary Redirect</a>.\n\n",
            escaped(&location)
        ));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, header);
    Some(response)
}

/// A slash at the end stays.
fn clean(path: &str) -> String {
    let mut clean = v2::clean(path);
    if path.ends_with('/') || clean.is_empty() {
        clean.push('/');
    }
    clean
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    fn location(target: &'static str) -> Option<String> {
        let request = Request::builder().method("PUT").uri(Uri::from_static(target));
        let response = redirect(&request.body(()).unwrap())?;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        Some(response.headers()[LOCATION].to_str().unwrap().to_owned())
    }

    #[test]
    fn only_unclean_paths_are_sent_elsewhere() {
        for clean in [
            "/",
            "/v2/keys/a",
            "/v2/keys/a/",
            "/v2/keys/a?x=//..",
            "/v2/keys/..a/b.",
        ] {
            assert_eq!(location(clean), None, "{clean}");
        }
        for (given, want) in [
            ("/v2//keys/a", "/v2/keys/a"),
            ("/v2/keys/a/../b?wait=true", "/v2/keys/b?wait=true"),
            ("/v2/keys/./a/", "/v2/keys/a/"),
            ("/../../version", "/version"),
            ("/v2/..", "/"),
            ("//evil.example/x", "/evil.example/x"),
        ] {
            assert_eq!(location(given).as_deref(), Some(want), "{given}");
        }
    }
}
