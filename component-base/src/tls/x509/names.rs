//! Subject names as text, and whether a certificate may speak for a host.

use std::net::IpAddr;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{GeneralName, X509Certificate, X509Name};

use super::{Certificate, VerifyError};

/// `CN=kubernetes-admin,O=kubeadm:cluster-admins`, as Go's `pkix.Name` prints: last attribute first.
pub fn format_name(name: &X509Name<'_>) -> String {
    let attributes: Vec<_> = name.iter_attributes().collect();
    let text = |attribute: &&x509_parser::x509::AttributeTypeAndValue<'_>| {
        let key = oid2abbrev(attribute.attr_type(), oid_registry())
            .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
        format!("{key}={}", attribute.as_str().unwrap_or("?"))
    };
    attributes.iter().rev().map(text).collect::<Vec<_>>().join(",")
}

fn general_names<'a>(cert: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = cert.subject_alternative_name().ok().flatten();
    extension
        .into_iter()
        .flat_map(|extension| extension.value.general_names.iter())
}

pub(super) fn dns(cert: &X509Certificate<'_>) -> Vec<String> {
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    general_names(cert).filter_map(name).collect()
}

pub(super) fn addresses(cert: &X509Certificate<'_>) -> Vec<IpAddr> {
    let address = |name: &GeneralName<'_>| match name {
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    general_names(cert).filter_map(address).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Go's VerifyHostname.
pub(super) fn check(cert: &Certificate<'_>, host: &str) -> Result<(), VerifyError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let (dns, addresses) = (cert.dns_names(), cert.ip_addresses());
    if let Ok(wanted) = bare.parse::<IpAddr>() {
        return match addresses
            .iter()
            .any(|address| address.to_canonical() == wanted.to_canonical())
        {
            true => Ok(()),
            false if addresses.is_empty() => Err(VerifyError::NoIpNames(bare.to_owned())),
            false => Err(wrong(addresses.iter().map(ToString::to_string), bare)),
        };
    }
    if dns.is_empty() && addresses.is_empty() {
        return Err(VerifyError::LegacyCommonName);
    }
    match dns.iter().any(|pattern| matches(pattern, bare)) {
        true => Ok(()),
        false => Err(wrong(dns.into_iter(), bare)),
    }
}

fn wrong(valid: impl Iterator<Item = String>, wanted: &str) -> VerifyError {
    VerifyError::WrongName {
        valid: valid.collect::<Vec<_>>().join(", "),
        wanted: wanted.to_owned(),
    }
}

/// `*` stands for exactly the leftmost label.
fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.trim_end_matches('.'), host.trim_end_matches('.'));
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, suffix)| !label.is_empty() && suffix.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_one_leftmost_label() {
        assert!(matches("*.svc.cluster.local", "a.svc.cluster.local"));
        assert!(!matches("*.cluster.local", "a.svc.cluster.local"));
        assert!(!matches("*.cluster.local", "cluster.local"));
        assert!(matches("Kubernetes", "kubernetes."));
    }
}
