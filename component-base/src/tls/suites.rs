//! Go's names of cipher suites and versions, as `--tls-cipher-suites` and `--tls-min-version` take them.

use std::sync::Arc;

use anyhow::{Result, bail};
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite as ring, default_provider};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}

const SUITES: &[(&str, rustls::SupportedCipherSuite)] = &[
    ("TLS_AES_128_GCM_SHA256", ring::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", ring::TLS13_AES_256_GCM_SHA384),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        ring::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// What Go knows and we do not: CBC and RC4 suites, and those without forward secrecy.
const REFUSED: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// `--tls-min-version`: VersionTLS10 to VersionTLS13, empty for the default.
pub fn parse_min_version(name: &str) -> Result<MinVersion> {
    match name {
        "" | "VersionTLS12" | "TLS1.2" => Ok(MinVersion::Tls12),
        "VersionTLS13" | "TLS1.3" => Ok(MinVersion::Tls13),
        "VersionTLS10" | "VersionTLS11" => {
            bail!("TLS version {name} is insecure and not supported here, use VersionTLS12 or VersionTLS13")
        }
        other => bail!("unknown tls version {other:?}, use VersionTLS12 or VersionTLS13"),
    }
}

/// `--tls-cipher-suites` in Go's names. Checks each; the result goes into [`super::ServerTls::cipher_suites`].
pub fn parse_cipher_suites(names: &[String]) -> Result<Vec<String>> {
    for name in names {
        if REFUSED.contains(&name.as_str()) {
            bail!(
                "Cipher suite {name} is not supported: it uses CBC, RC4, 3DES or RSA key exchange. Supported: {}",
                supported()
            );
        }
        if !SUITES.iter().any(|(known, _)| known == name) {
            bail!(
                "Cipher suite {name} not supported or doesn't exist. Supported: {}",
                supported()
            );
        }
    }
    Ok(names.to_vec())
}

fn supported() -> String {
    SUITES
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The provider with only these suites of TLS 1.2; TLS 1.3's are always on, as in Go.
pub(super) fn provider(names: &[String]) -> Result<Arc<CryptoProvider>> {
    let mut provider = default_provider();
    if names.is_empty() {
        return Ok(Arc::new(provider));
    }
    let names = parse_cipher_suites(names)?;
    let chosen = |suite: &rustls::SupportedCipherSuite| {
        suite.tls13().is_some()
            || SUITES
                .iter()
                .any(|(name, known)| known == suite && names.iter().any(|wanted| wanted == name))
    };
    provider.cipher_suites.retain(chosen);
    Ok(Arc::new(provider))
}

static FROM_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
pub(super) static ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static FROM_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

pub(super) fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        MinVersion::Tls12 => FROM_12,
        MinVersion::Tls13 => FROM_13,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_choose_suites_and_weak_ones_are_refused_by_name() {
        let provider = provider(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()]).unwrap();
        assert_eq!(provider.cipher_suites.len(), 4);
        let error = parse_cipher_suites(&["TLS_RSA_WITH_AES_128_CBC_SHA".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("RSA key exchange"), "{error}");
        assert!(
            parse_cipher_suites(&["NOPE".into()])
                .unwrap_err()
                .to_string()
                .contains("doesn't exist")
        );
    }

    #[test]
    fn versions_below_1_2_are_refused() {
        assert_eq!(parse_min_version("VersionTLS13").unwrap(), MinVersion::Tls13);
        assert!(parse_min_version("VersionTLS10").is_err());
    }
}
