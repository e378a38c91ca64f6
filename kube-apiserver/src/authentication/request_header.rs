//! A front proxy (the aggregator's peer) names the user in headers and proves itself by a client certificate.

use std::collections::BTreeMap;

use component_base::serve::ConnInfo;
use component_base::tls::CaBundle;
use http::HeaderMap;

use super::Authenticated;
use crate::request_info::percent_decode;
use crate::user::UserInfo;

pub struct RequestHeader {
    /// `--requestheader-client-ca-file`.
    pub ca: CaBundle,
    /// `--requestheader-allowed-names`; empty allows every name that the CA signed.
    pub allowed_names: Vec<String>,
    pub headers: HeaderNames,
}

#[derive(Clone, Debug, Default)]
pub struct HeaderNames {
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
}

impl RequestHeader {
    /// Callers that are not the proxy keep their headers: they mean nothing and are never forwarded.
    pub fn authenticate(
        &self,
        conn: Option<&ConnInfo>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Authenticated>, String> {
        let Some(cert) = conn.and_then(|c| c.client_cert.as_ref()) else {
            return Ok(None);
        };
        if first(headers, &self.headers.username).is_none() || self.ca.verify_client(&cert.chain).is_err() {
            return Ok(None);
        }
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&cert.common_name) {
            return Err(format!(
                "x509: subject with cn={} is not in the allowed list",
                cert.common_name
            ));
        }
        Ok(self.headers.take_user(headers).map(Authenticated::new))
    }
}

impl HeaderNames {
    fn take_user(&self, headers: &mut HeaderMap) -> Option<UserInfo> {
        let name = first(headers, &self.username)?;
        let user = UserInfo {
            name,
            uid: first(headers, &self.uid).unwrap_or_default(),
            groups: self
                .group
                .iter()
                .flat_map(|h| headers.get_all(h.as_str()))
                .filter_map(text)
                .collect(),
            extra: self.extra(headers),
        };
        self.clear(headers);
        Some(user)
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            if let (Some(key), Some(value)) = (self.extra_key(name.as_str()), value.to_str().ok()) {
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        extra
    }

    fn extra_key(&self, header: &str) -> Option<String> {
        let prefix = self
            .extra_prefix
            .iter()
            .find(|p| header.get(..p.len()).is_some_and(|h| h.eq_ignore_ascii_case(p)))?;
        Some(percent_decode(&header[prefix.len()..], false))
    }

    fn clear(&self, headers: &mut HeaderMap) {
        for name in self.username.iter().chain(&self.uid).chain(&self.group) {
            headers.remove(name.as_str());
        }
        let extra: Vec<_> = headers
            .keys()
            .filter(|k| self.extra_key(k.as_str()).is_some())
            .cloned()
            .collect();
        for name in extra {
            headers.remove(name);
        }
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names
        .iter()
        .find_map(|name| headers.get(name.as_str()).and_then(text))
}

fn text(value: &http::HeaderValue) -> Option<String> {
    value.to_str().ok().filter(|v| !v.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_groups_and_extra_come_from_the_headers_and_leave_them() {
        let names = HeaderNames {
            username: vec!["X-Remote-User".into()],
            uid: vec!["X-Remote-Uid".into()],
            group: vec!["X-Remote-Group".into()],
            extra_prefix: vec!["X-Remote-Extra-".into()],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.org%2fscope", "read"),
            ("accept", "*/*"),
        ] {
            headers.append(name, value.parse().expect("value"));
        }
        let user = names.take_user(&mut headers).expect("user");
        assert_eq!(
            (user.name.as_str(), user.uid.as_str(), user.groups.join(",")),
            ("jane", "7", "a,b".to_owned())
        );
        assert_eq!(user.extra["example.org/scope"], ["read"]);
        assert_eq!(headers.len(), 1, "only accept is left");
    }
}
