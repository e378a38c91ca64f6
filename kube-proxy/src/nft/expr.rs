//! The expressions that rules are made of, on the sixteen 32-bit registers of the kernel's machine.

use super::Field;

/// One of NFT_REG32_00 to NFT_REG32_15, by its index. A value of n bytes fills the next n/4 registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
}

/// A verdict ends or redirects the packet's way through a hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Source or destination address of the packet.
    SourceAddress(Reg),
    DestinationAddress(Reg),
    DestinationPort(Reg),
    L4Protocol(Reg),
    /// The packet's mark, host order.
    Mark(Reg),
    SetMark(Reg),
    /// Type of an address in the routing tables (RTN_LOCAL = 2).
    SourceAddressType(Reg),
    DestinationAddressType(Reg),
    /// Conntrack state bits and status bits, host order.
    ConntrackState(Reg),
    ConntrackStatus(Reg),
    /// `reg = (reg & mask) ^ xor` over the length of the mask.
    Bitwise {
        reg: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Goes on with the rule only where the comparison holds.
    Compare {
        op: Compare,
        reg: Reg,
        data: Vec<u8>,
    },
    /// Goes on only where the key is in the set; a map's value is loaded into `into`.
    Lookup {
        set: &'static str,
        key: Reg,
        into: Option<Reg>,
    },
    /// Ends in the verdict that the map has for the key; goes on with the next rule where it has none.
    VerdictMap {
        set: &'static str,
        key: Reg,
    },
    /// A random number in `offset .. offset + modulus`.
    Random {
        into: Reg,
        modulus: u32,
        offset: u32,
    },
    /// Adds or refreshes an element of a dynamic map.
    Update {
        set: &'static str,
        key: Reg,
        value: Reg,
        timeout_ms: u64,
    },
    /// Removes the key from a dynamic map, if it is there.
    /// The kernel wants a register with a value here too, and does not look at it.
    Forget {
        set: &'static str,
        key: Reg,
        value: Reg,
    },
    DestinationNat {
        address: Reg,
        port: Reg,
    },
    Masquerade,
    /// TCP: reset; everything else: port unreachable.
    Reject {
        tcp: bool,
    },
    Verdict(Verdict),
}

impl Reg {
    /// The register behind a value of this field.
    pub fn after(self, field: Field, family: super::Family) -> Self {
        Self(self.0 + (field.padded_len(family) / 4) as u8)
    }
}
