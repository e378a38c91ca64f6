//! Whether a client is where its certificate says it is.

use std::net::IpAddr;

use super::ClientIdentity;
use super::x509::Certificate;
use crate::dns;

/// etcd's rule for members: a certificate that names addresses or hosts is good from these alone; one that names none, from anywhere.
pub async fn is_at(client: &ClientIdentity, address: IpAddr) -> Result<(), String> {
    let address = address.to_canonical();
    let (names, refusal) = {
        let cert = Certificate::parse(client.der()).map_err(|error| error.to_string())?;
        let (names, addresses) = (cert.dns_names(), cert.ip_addresses());
        if names.is_empty() && addresses.is_empty() {
            return Ok(());
        }
        match addresses.is_empty() {
            true => (names, None),
            false => match cert.check_host(&address.to_string()) {
                Ok(()) => return Ok(()),
                Err(error) if names.is_empty() => return Err(error.to_string()),
                Err(error) => (names, Some(error.to_string())),
            },
        }
    };
    let (wildcards, hosts): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| name.starts_with("*."));
    for host in &hosts {
        let found = tokio::net::lookup_host((host.as_str(), 0)).await;
        if found.is_ok_and(|mut found| found.any(|found| found.ip().to_canonical() == address)) {
            return Ok(());
        }
    }
    let called = dns::lookup_ptr(address).await.unwrap_or_default();
    let fits = |name: &String| {
        let name = name.trim_end_matches('.');
        hosts.iter().any(|host| host == name)
            || wildcards.iter().any(|wildcard| name.ends_with(&wildcard[1..]))
    };
    match called.iter().any(fits) {
        true => Ok(()),
        false => Err(refusal.unwrap_or_else(|| {
            format!(
                "tls: \"{address}\" does not match any of DNSNames {:?}",
                [hosts, wildcards].concat()
            )
        })),
    }
}
