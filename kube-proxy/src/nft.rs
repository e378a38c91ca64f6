//! nf_tables as plain data, and its way into the kernel.
//!
//! A [`Batch`] is a list of operations; [`message`] turns it into one nfnetlink transaction, which the kernel
//! applies whole or not at all; [`kernel`] sends it. Nothing is ever read back: what was committed is known.

pub mod batch;
pub mod expr;
pub mod kernel;
mod message;

pub use batch::{Batch, Operation};
pub use expr::{Compare, Expr, Verdict};
pub use kernel::{Kernel, KernelError, Netlink};

/// Address family of a table, and with it the width of addresses in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn of(ip: std::net::IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    pub fn address_len(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
        }
    }

    /// NFPROTO_IPV4, NFPROTO_IPV6.
    pub fn nfproto(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

/// One field of a concatenated key. In a key every field begins on a 32-bit boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Address,
    Protocol,
    Port,
    Index,
}

impl Field {
    pub fn len(self, family: Family) -> usize {
        match self {
            Self::Address => family.address_len(),
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Index => 4,
        }
    }

    pub fn padded_len(self, family: Family) -> usize {
        self.len(family).next_multiple_of(4)
    }

    /// The number that the `nft` program knows this type by; the kernel only stores it.
    fn datatype(self, family: Family) -> u32 {
        match (self, family) {
            (Self::Address, Family::Ipv4) => 7,
            (Self::Address, Family::Ipv6) => 8,
            (Self::Protocol, _) => 12,
            (Self::Port, _) => 13,
            (Self::Index, _) => 19,
        }
    }
}

/// Length of a concatenation and its type number: six bits for each field.
pub fn concatenation(fields: &[Field], family: Family) -> (u32, u32) {
    fields.iter().fold((0, 0), |(len, kind), field| {
        (
            len + field.padded_len(family) as u32,
            (kind << 6) | field.datatype(family),
        )
    })
}

/// What a set maps its keys to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    None,
    Verdict,
    Data(&'static [Field]),
}

/// The declaration of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    pub name: &'static str,
    pub key: &'static [Field],
    pub values: Values,
    /// Filled by rules (`update @set`), each element with its own timeout.
    pub dynamic: bool,
}

/// Where a base chain hooks into the packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

pub const PREROUTING: u32 = 0;
pub const INPUT: u32 = 1;
pub const FORWARD: u32 = 2;
pub const OUTPUT: u32 = 3;
pub const POSTROUTING: u32 = 4;
