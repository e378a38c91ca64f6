//! TLS on rustls and ring, with Go's rules for certificates: version-1 leaf certificates are accepted in both roles,
//! and what Go refuses is refused with Go's words.
//!
//! [`ServerTls::load`] and [`ClientTls::load`] give handles whose `current()` follows the files on disk.
//! `x509` decides (pure), with `crl`, `allowed` and `address` for what a server may demand beside; `verifier` asks it on behalf of rustls, `pem` reads files, `self_signed` makes what no flag
//! names, `suites` knows Go's names.

mod address;
mod allowed;
mod client;
mod crl;
mod pem;
mod self_signed;
mod server;
mod suites;
mod verifier;
mod x509;

use std::path::PathBuf;

pub use allowed::Allowed;
pub use client::{ClientConfigHandle, ClientTls};
pub use pem::{KeyPair, load_certs, load_key, load_key_pair};
pub use self_signed::{SelfSigned, self_signed};
pub use server::{CaBundle, ClientIdentity, ServerConfigHandle, ServerTls};
pub use suites::{MinVersion, parse_cipher_suites, parse_min_version};
pub use x509::{CertPool, Certificate, Offered, Refusal, Usage, VerifyError, format_name};

/// Whether a server asks for client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    /// As kube-apiserver: asked for, and one that does not verify does not fail the handshake. See [`ClientIdentity::verified`].
    Optional,
    /// As etcd with `--client-cert-auth`: the handshake fails without a certificate that verifies.
    Required,
}

/// Where PEM text comes from.
#[derive(Clone, Debug)]
pub enum Pem {
    File(PathBuf),
    Data(Vec<u8>),
}

pub mod alpn {
    pub const H2: &[u8] = b"h2";
    pub const HTTP11: &[u8] = b"http/1.1";

    /// What our servers and clients offer.
    pub fn both() -> Vec<Vec<u8>> {
        vec![H2.to_vec(), HTTP11.to_vec()]
    }
}

/// One line on why a peer was refused, from any error of a TLS handshake: CA file, wanted and offered issuer,
/// names, expiry, and what to do. Errors that are none of ours print as they are.
pub fn describe_refusal(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(refusal) = refusal(cause) {
            return refusal.to_string();
        }
        current = cause.source().or_else(|| inner(cause));
    }
    error.to_string()
}

/// `io::Error` hides what it wraps from `source`.
fn inner<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    let wrapped = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    Some(wrapped)
}

fn refusal<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refusal> {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return Some(refusal);
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<Refusal>()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
