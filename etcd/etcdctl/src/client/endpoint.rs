//! Endpoint names: `host:port`, `http(s)://host:port`, `unix(s):path`, `unix(s)://path`.

use std::path::PathBuf;

/// Whether TLS is spoken to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    Require,
    Drop,
    /// If there are certificates or TLS was asked for.
    Optional,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, or a host alone for gRPC's default port.
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub credentials: Credentials,
}

impl Endpoint {
    pub fn parse(text: &str) -> Endpoint {
        if let Some(unix) = unix(text) {
            return unix;
        }
        let (credentials, authority) = match text.split_once("://") {
            Some(("https", rest)) => (Credentials::Require, rest),
            Some(("http", rest)) => (Credentials::Drop, rest),
            Some((_, rest)) => (Credentials::Optional, rest),
            None => (Credentials::Optional, text),
        };
        let authority = authority.split('/').next().unwrap_or(authority);
        Endpoint {
            address: Address::Tcp(authority.to_owned()),
            credentials,
        }
    }

    /// Where TCP connects to, with gRPC's default port.
    pub fn host_port(authority: &str) -> String {
        let after_bracket = authority.rsplit(']').next().unwrap_or(authority);
        if after_bracket.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:443")
        }
    }

    /// Without the port: what a certificate must be for.
    pub fn host(authority: &str) -> &str {
        let host = match authority.rsplit_once(':') {
            Some((host, _)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => host,
            _ => authority,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

fn unix(text: &str) -> Option<Endpoint> {
    let (credentials, rest) = match text.strip_prefix("unixs:") {
        Some(rest) => (Credentials::Require, rest),
        None => (Credentials::Optional, text.strip_prefix("unix:")?),
    };
    Some(Endpoint {
        address: Address::Unix(rest.strip_prefix("//").unwrap_or(rest).into()),
        credentials,
    })
}

/// Upstream's `authority`: what the log calls the target.
pub fn authority(text: &str) -> &str {
    match text.split_once("://") {
        Some((_, rest)) => rest,
        None => text
            .strip_prefix("unixs:")
            .or_else(|| text.strip_prefix("unix:"))
            .unwrap_or(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_endpoint_is_understood() {
        for (text, address, credentials) in [
            ("10.0.0.1:2379", "10.0.0.1:2379", Credentials::Optional),
            ("http://a:1", "a:1", Credentials::Drop),
            ("https://[::1]:2379/", "[::1]:2379", Credentials::Require),
        ] {
            let endpoint = Endpoint::parse(text);
            assert_eq!(
                (endpoint.address, endpoint.credentials),
                (Address::Tcp(address.to_owned()), credentials)
            );
        }
        assert_eq!(
            Endpoint::parse("unix:///a/b:0").address,
            Address::Unix("/a/b:0".into())
        );
        assert_eq!(Endpoint::parse("unixs://c").credentials, Credentials::Require);
        assert_eq!(Endpoint::host("[::1]:2379"), "::1");
        assert_eq!(Endpoint::host("a.example:2379"), "a.example");
        assert_eq!(Endpoint::host_port("a"), "a:443");
    }
}
