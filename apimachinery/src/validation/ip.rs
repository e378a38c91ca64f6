//! Addresses and CIDRs: Go's old lenient reading, and the strict one of newer fields.

use super::Messages;
use std::net::IpAddr;

/// Old fields accept IPv4 octets with leading zeros.
pub fn parse_ip_sloppy(text: &str) -> Option<IpAddr> {
    match text.contains(':') {
        true => text.parse().ok(),
        false => text
            .split('.')
            .map(without_zeros)
            .collect::<Option<Vec<&str>>>()?
            .join(".")
            .parse()
            .ok(),
    }
}

fn without_zeros(octet: &str) -> Option<&str> {
    let digits = !octet.is_empty() && octet.bytes().all(|b| b.is_ascii_digit());
    let stripped = octet.trim_start_matches('0');
    digits.then_some(if stripped.is_empty() { "0" } else { stripped })
}

/// The address and the prefix length.
pub fn parse_cidr_sloppy(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = parse_ip_sloppy(address)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = without_zeros(length)?.parse().ok()?;
    (length <= bits).then_some((address, length))
}

/// For fields that exist since before the strict rules.
pub fn ip_for_legacy_field(text: &str) -> Messages {
    match parse_ip_sloppy(text) {
        Some(_) => Messages::new(),
        None => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

pub fn cidr_for_legacy_field(text: &str) -> Messages {
    match parse_cidr_sloppy(text) {
        Some(_) => Messages::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

/// The strict rule: canonical, no leading zeros, no IPv4 inside IPv6.
pub fn ip(text: &str) -> Messages {
    let mut messages = ip_for_legacy_field(text);
    let Some(address) = parse_ip_sloppy(text) else {
        return messages;
    };
    if text.parse::<IpAddr>().is_err() {
        messages.push("must not have leading 0s".to_owned());
    }
    if is_mapped(address) {
        messages.push("must not be an IPv4-mapped IPv6 address".to_owned());
    }
    if messages.is_empty() && address.to_string() != text {
        messages.push(format!("must be in canonical form (\"{address}\")"));
    }
    messages
}

pub fn cidr(text: &str) -> Messages {
    let mut messages = cidr_for_legacy_field(text);
    let Some((address, length)) = parse_cidr_sloppy(text) else {
        return messages;
    };
    let network = masked(address, length);
    let strict = text
        .split_once('/')
        .is_some_and(|(ip, len)| ip.parse::<IpAddr>().is_ok() && len == length.to_string());
    if !strict {
        messages.push("must not have leading 0s in IP or prefix length".to_owned());
    } else if is_mapped(address) {
        messages.push("must not have an IPv4-mapped IPv6 address".to_owned());
    } else if network != address {
        messages.push("must not have bits set beyond the prefix length".to_owned());
    } else if format!("{network}/{length}") != text {
        messages.push(format!("must be in canonical form (\"{network}/{length}\")"));
    }
    messages
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_fields_take_leading_zeros_and_strict_ones_do_not() {
        assert!(ip_for_legacy_field("010.009.8.7").is_empty());
        assert_eq!(ip("010.009.8.7"), ["must not have leading 0s"]);
        assert!(ip("2001:db8::ffff").is_empty());
        assert_eq!(ip("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(
            ip("1.2.3"),
            ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
        );
        assert!(parse_ip_sloppy("1.2.3.256").is_none());
    }

    #[test]
    fn cidrs_are_networks() {
        assert!(cidr("10.0.0.0/8").is_empty());
        assert!(cidr("0.0.0.0/0").is_empty());
        assert_eq!(
            cidr("10.0.0.1/8"),
            ["must not have bits set beyond the prefix length"]
        );
        assert!(cidr_for_legacy_field("10.0.0.1/8").is_empty());
        assert_eq!(
            cidr("10.0.0.0/33"),
            ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
        );
    }
}
