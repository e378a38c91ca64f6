//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network, e.g. 10.96.0.0/12. Host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u128,
    prefix: u32,
    ipv4: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidCidr(String);

impl Cidr {
    pub fn is_ipv4(&self) -> bool {
        self.ipv4
    }

    /// 32 or 128.
    pub fn width(&self) -> u32 {
        if self.ipv4 { 32 } else { 128 }
    }

    pub fn host_bits(&self) -> u32 {
        self.width() - self.prefix
    }

    /// Addresses in it, network address included; saturates for large IPv6 networks.
    pub fn size(&self) -> u128 {
        1u128.checked_shl(self.host_bits()).unwrap_or(u128::MAX)
    }

    /// The address at `offset` from the base.
    pub fn nth(&self, offset: u128) -> IpAddr {
        let address = self.base.wrapping_add(offset);
        if self.ipv4 {
            IpAddr::V4(Ipv4Addr::from(address as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from(address))
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.offset(address).is_some()
    }

    /// Distance from the base, if the address lies in it.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        let number = match address {
            IpAddr::V4(v4) if self.ipv4 => u128::from(u32::from(v4)),
            IpAddr::V6(v6) if !self.ipv4 => u128::from(v6),
            _ => return None,
        };
        number
            .checked_sub(self.base)
            .filter(|offset| *offset < self.size())
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Cidr, InvalidCidr> {
        let bad = || InvalidCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let (address, prefix): (IpAddr, u32) = (
            address.parse().map_err(|_| bad())?,
            prefix.parse().map_err(|_| bad())?,
        );
        let (number, ipv4, width) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), true, 32),
            IpAddr::V6(v6) => (u128::from(v6), false, 128),
        };
        if prefix > width {
            return Err(bad());
        }
        let host = width - prefix;
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        Ok(Cidr {
            base: number & mask,
            prefix,
            ipv4,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.nth(0), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_base() {
        let range: Cidr = "10.96.3.7/12".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/12");
        assert_eq!(range.nth(1).to_string(), "10.96.0.1");
        assert_eq!(range.offset("10.96.0.10".parse().unwrap()), Some(10));
        assert!(!range.contains("10.95.255.255".parse().unwrap()));
        assert!(!range.contains("fd00::1".parse().unwrap()));
        let v6: Cidr = "fd00::/112".parse().unwrap();
        assert_eq!(v6.size(), 65536);
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
    }
}
