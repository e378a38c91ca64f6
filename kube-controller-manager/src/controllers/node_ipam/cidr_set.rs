//! A range cut into equal pieces, one bit each.

use crate::options::Cidr;
use std::net::IpAddr;

pub(super) struct CidrSet {
    range: Cidr,
    mask: u8,
    taken: Vec<bool>,
    /// Where the next search begins: pieces are reused as late as possible.
    next: usize,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The lowest address of a block of this prefix length.
fn base(address: IpAddr, prefix: u8) -> u128 {
    let host = bits(address) - prefix;
    if host == 128 {
        0
    } else {
        number(address) >> host << host
    }
}

impl CidrSet {
    /// `mask` is at most 16 longer than the range's: see the options.
    pub fn new(range: Cidr, mask: u8) -> Self {
        CidrSet {
            range,
            mask,
            taken: vec![false; 1 << (mask - range.prefix)],
            next: 0,
        }
    }

    pub fn allocate(&mut self) -> Option<Cidr> {
        let count = self.taken.len();
        let free = (0..count)
            .map(|n| (self.next + n) % count)
            .find(|n| !self.taken[*n])?;
        self.taken[free] = true;
        self.next = (free + 1) % count;
        Some(self.piece(free))
    }

    fn piece(&self, index: usize) -> Cidr {
        let address = base(self.range.address, self.range.prefix)
            + ((index as u128) << (bits(self.range.address) - self.mask));
        let address = match self.range.address {
            IpAddr::V4(_) => IpAddr::V4((address as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(address.into()),
        };
        Cidr {
            address,
            prefix: self.mask,
        }
    }

    /// Marks every piece that overlaps; false when none does.
    pub fn occupy(&mut self, cidr: Cidr) -> bool {
        self.mark(cidr, true)
    }

    pub fn release(&mut self, cidr: Cidr) {
        self.mark(cidr, false);
    }

    fn mark(&mut self, cidr: Cidr, taken: bool) -> bool {
        if cidr.address.is_ipv4() != self.range.address.is_ipv4() {
            return false;
        }
        let width = bits(self.range.address);
        let ends = |c: Cidr| {
            (
                base(c.address, c.prefix),
                base(c.address, c.prefix)
                    + (if c.prefix == 0 {
                        u128::MAX >> (128 - width)
                    } else {
                        (1u128 << (width - c.prefix)) - 1
                    }),
            )
        };
        let ((low, high), (first, last)) = (ends(cidr), ends(self.range));
        if high < first || low > last {
            return false;
        }
        let index = |address: u128| ((address - first) >> (width - self.mask)) as usize;
        for piece in index(low.max(first))..=index(high.min(last)) {
            self.taken[piece] = taken;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    #[test]
    fn pieces_that_overlap_a_foreign_range_are_not_given() {
        let mut set = CidrSet::new(cidr("10.96.0.0/22"), 24);
        assert!(set.occupy(cidr("10.96.0.0/23")));
        assert_eq!(set.allocate(), Some(cidr("10.96.2.0/24")));
        assert!(!set.occupy(cidr("192.168.0.0/16")) && !set.occupy(cidr("fd00::/8")));
        assert!(set.occupy(cidr("10.96.3.128/25")));
        assert_eq!(set.allocate(), None);
    }

    #[test]
    fn ranges_at_the_ends_of_the_address_space_do_not_overflow() {
        let mut set = CidrSet::new(cidr("255.255.255.0/24"), 28);
        assert!(set.occupy(cidr("0.0.0.0/0")));
        assert_eq!(set.allocate(), None);
        let mut set = CidrSet::new(cidr("ffff:ffff:ffff:ffff::/64"), 80);
        assert_eq!(set.allocate(), Some(cidr("ffff:ffff:ffff:ffff::/80")));
    }
}
