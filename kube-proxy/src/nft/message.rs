//! The wire form: netlink messages with nested attributes, one batch between begin and end.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h`; integers in attributes are
//! big-endian unless the kernel compares them with a register, which is host order.

use super::batch::{Element, Operation, Value};
use super::expr::{Compare, Expr, Reg, Verdict};
use super::{Batch, Family, Hook, SetSpec, Values, concatenation};

const SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const REQUEST: u16 = 0x1;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY: source ports are chosen at random.
const FULLY_RANDOM: u32 = 0x10;
const DATATYPE_VERDICT: u32 = 0xffff_ff00;

/// NFT_REG_VERDICT, and NFT_REG32_00 where the 32-bit registers begin.
const VERDICT_REGISTER: u32 = 0;
const FIRST_REGISTER: u32 = 8;

/// Elements that rules may add to a set; without a size the kernel stops at 65,535.
const DYNAMIC_SET_SIZE: u32 = 1 << 20;

/// A nested attribute's length is a u16, so a list of elements is cut well below 64 KiB.
const MAX_LIST_BYTES: usize = 60 * 1024;

/// The batch on the wire, and for each message of it what it was for: an error of the kernel names a sequence number.
pub struct Encoded {
    pub bytes: Vec<u8>,
    pub purposes: Vec<String>,
}

pub fn encode(batch: &Batch) -> Encoded {
    let mut writer = Writer {
        out: Vec::with_capacity(4096),
        purposes: Vec::new(),
        family: batch.family,
    };
    writer.frame(BATCH_BEGIN, 0, SUBSYS_NFTABLES, "begin".to_owned(), |_| ());
    for operation in &batch.operations {
        writer.operation(batch.table, operation);
    }
    writer.frame(BATCH_END, 0, SUBSYS_NFTABLES, "end".to_owned(), |_| ());
    Encoded {
        bytes: writer.out,
        purposes: writer.purposes,
    }
}

struct Writer {
    out: Vec<u8>,
    purposes: Vec<String>,
    family: Family,
}

impl Writer {
    fn operation(&mut self, table: &str, operation: &Operation) {
        match operation {
            Operation::ReplaceTable => {
                self.table(NEWTABLE, CREATE, table);
                self.table(DELTABLE, 0, table);
                self.table(NEWTABLE, CREATE, table);
            }
            Operation::DeleteTable => {
                self.table(NEWTABLE, CREATE, table);
                self.table(DELTABLE, 0, table);
            }
            Operation::AddChain { name, hook } => self.add_chain(table, name, *hook),
            Operation::AddRule { chain, rule } => {
                self.message(NEWRULE, CREATE | APPEND, format!("rule of {chain}"), |writer| {
                    writer.string(1, table);
                    writer.string(2, chain);
                    writer.nested(4, |writer| rule.iter().for_each(|expr| writer.expression(expr)));
                })
            }
            Operation::AddSet(spec) => self.add_set(table, spec),
            Operation::AddElements(set, elements) => self.elements(NEWSETELEM, CREATE, table, set, elements),
            Operation::DeleteElements(set, elements) => self.elements(DELSETELEM, 0, table, set, elements),
        }
    }

    fn table(&mut self, kind: u16, flags: u16, table: &str) {
        self.message(kind, flags, format!("table {table}"), |writer| {
            writer.string(1, table)
        });
    }

    fn add_chain(&mut self, table: &str, name: &str, hook: Option<Hook>) {
        self.message(NEWCHAIN, CREATE, format!("chain {name}"), |writer| {
            writer.string(1, table);
            writer.string(3, name);
            if let Some(hook) = hook {
                writer.nested(4, |writer| {
                    writer.be32(1, hook.number);
                    writer.be32(2, hook.priority as u32);
                });
                writer.string(7, hook.kind);
            }
        });
    }

    fn add_set(&mut self, table: &str, spec: &SetSpec) {
        let family = self.family;
        let (key_len, key_type) = concatenation(spec.key, family);
        let mut flags = if spec.dynamic { SET_TIMEOUT | SET_EVAL } else { 0 };
        flags |= if spec.values == Values::None { 0 } else { SET_MAP };
        let id = self.purposes.len() as u32;
        self.message(NEWSET, CREATE, format!("set {}", spec.name), |writer| {
            writer.string(1, table);
            writer.string(2, spec.name);
            writer.be32(3, flags);
            writer.be32(4, key_type);
            writer.be32(5, key_len);
            match spec.values {
                Values::None => (),
                Values::Verdict => {
                    writer.be32(6, DATATYPE_VERDICT);
                    writer.be32(7, 16);
                }
                Values::Data(fields) => {
                    let (len, kind) = concatenation(fields, family);
                    writer.be32(6, kind);
                    writer.be32(7, len);
                }
            }
            if spec.dynamic {
                writer.nested(9, |writer| writer.be32(1, DYNAMIC_SET_SIZE));
            }
            writer.be32(10, id);
        });
    }

    /// As many messages as the elements need.
    fn elements(&mut self, kind: u16, flags: u16, table: &str, set: &str, elements: &[Element]) {
        let mut rest = elements;
        while !rest.is_empty() {
            let taken = self.element_message(kind, flags, table, set, rest);
            rest = &rest[taken..];
        }
    }

    fn element_message(
        &mut self,
        kind: u16,
        flags: u16,
        table: &str,
        set: &str,
        elements: &[Element],
    ) -> usize {
        let mut taken = 0;
        // A deletion names keys only: what a map held for them does not matter.
        let with_values = kind == NEWSETELEM;
        self.message(kind, flags, format!("elements of {set}"), |writer| {
            writer.string(1, table);
            writer.string(2, set);
            writer.nested(3, |writer| {
                let began = writer.out.len();
                for element in elements {
                    if writer.out.len() - began > MAX_LIST_BYTES {
                        break;
                    }
                    writer.nested(1, |writer| writer.element(element, with_values));
                    taken += 1;
                }
            });
        });
        taken
    }

    fn element(&mut self, element: &Element, with_value: bool) {
        self.nested(1, |writer| writer.bytes(1, &element.key));
        match &element.value {
            Value::Verdict(verdict) if with_value => self.nested(2, |writer| writer.verdict(verdict)),
            Value::Data(data) if with_value => self.nested(2, |writer| writer.bytes(1, data)),
            _ => (),
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        self.nested(2, |writer| {
            writer.be32(1, code as u32);
            if let Some(chain) = chain {
                writer.string(2, chain);
            }
        });
    }

    fn expression(&mut self, expr: &Expr) {
        match expr {
            Expr::SourceAddress(reg) => self.address(*reg, true),
            Expr::DestinationAddress(reg) => self.address(*reg, false),
            Expr::DestinationPort(reg) => self.payload(*reg, 2, 2, 2),
            Expr::L4Protocol(reg) => self.meta(*reg, 16),
            Expr::Mark(reg) => self.meta(*reg, 3),
            Expr::SetMark(reg) => self.named("meta", |writer| {
                writer.be32(2, 3);
                writer.register(3, *reg);
            }),
            Expr::SourceAddressType(reg) => self.fib(*reg, 1),
            Expr::DestinationAddressType(reg) => self.fib(*reg, 2),
            Expr::ConntrackState(reg) => self.conntrack(*reg, 0),
            Expr::ConntrackStatus(reg) => self.conntrack(*reg, 2),
            Expr::Bitwise { reg, mask, xor } => self.bitwise(*reg, mask, xor),
            Expr::Compare { op, reg, data } => self.named("cmp", |writer| {
                writer.register(1, *reg);
                writer.be32(2, if *op == Compare::Equal { 0 } else { 1 });
                writer.nested(3, |writer| writer.bytes(1, data));
            }),
            Expr::Lookup { set, key, into } => self.named("lookup", |writer| {
                writer.string(1, set);
                writer.register(2, *key);
                if let Some(into) = into {
                    writer.register(3, *into);
                }
            }),
            Expr::VerdictMap { set, key } => self.named("lookup", |writer| {
                writer.string(1, set);
                writer.register(2, *key);
                writer.be32(3, VERDICT_REGISTER);
            }),
            Expr::Random {
                into,
                modulus,
                offset,
            } => self.named("numgen", |writer| {
                writer.register(1, *into);
                writer.be32(2, *modulus);
                writer.be32(3, 1);
                writer.be32(4, *offset);
            }),
            Expr::Update {
                set,
                key,
                value,
                timeout_ms,
            } => self.named("dynset", |writer| {
                writer.string(1, set);
                writer.be32(3, 1);
                writer.register(4, *key);
                writer.register(5, *value);
                writer.bytes(6, &timeout_ms.to_be_bytes());
            }),
            Expr::Forget { set, key, value } => self.named("dynset", |writer| {
                writer.string(1, set);
                writer.be32(3, 2);
                writer.register(4, *key);
                writer.register(5, *value);
            }),
            Expr::DestinationNat { address, port } => self.named("nat", |writer| {
                writer.be32(1, 1);
                writer.be32(2, u32::from(writer.family.nfproto()));
                writer.register(3, *address);
                writer.register(5, *port);
            }),
            Expr::Masquerade => self.named("masq", |writer| writer.be32(1, FULLY_RANDOM)),
            Expr::Reject { tcp } => self.named("reject", |writer| {
                writer.be32(1, u32::from(*tcp));
                writer.bytes(2, &[if writer.family == Family::Ipv4 { 3 } else { 4 }]);
            }),
            Expr::Verdict(verdict) => self.named("immediate", |writer| {
                writer.be32(1, VERDICT_REGISTER);
                writer.nested(2, |writer| writer.verdict(verdict));
            }),
        }
    }

    fn address(&mut self, reg: Reg, source: bool) {
        let (first, len) = match self.family {
            Family::Ipv4 => (12, 4),
            Family::Ipv6 => (8, 16),
        };
        self.payload(reg, 1, if source { first } else { first + len }, len);
    }

    /// `base` 1 is the network header, 2 the transport header.
    fn payload(&mut self, reg: Reg, base: u32, offset: u32, len: u32) {
        self.named("payload", |writer| {
            writer.register(1, reg);
            writer.be32(2, base);
            writer.be32(3, offset);
            writer.be32(4, len);
        });
    }

    fn meta(&mut self, reg: Reg, key: u32) {
        self.named("meta", |writer| {
            writer.register(1, reg);
            writer.be32(2, key);
        });
    }

    /// Result 3 is the type of the address; flag 1 asks for the source's, 2 for the destination's.
    fn fib(&mut self, reg: Reg, flag: u32) {
        self.named("fib", |writer| {
            writer.register(1, reg);
            writer.be32(2, 3);
            writer.be32(3, flag);
        });
    }

    fn conntrack(&mut self, reg: Reg, key: u32) {
        self.named("ct", |writer| {
            writer.register(1, reg);
            writer.be32(2, key);
        });
    }

    fn bitwise(&mut self, reg: Reg, mask: &[u8], xor: &[u8]) {
        self.named("bitwise", |writer| {
            writer.register(1, reg);
            writer.register(2, reg);
            writer.be32(3, mask.len() as u32);
            writer.nested(4, |writer| writer.bytes(1, mask));
            writer.nested(5, |writer| writer.bytes(1, xor));
        });
    }

    fn named(&mut self, name: &str, data: impl FnOnce(&mut Self)) {
        self.nested(1, |writer| {
            writer.string(1, name);
            writer.nested(2, data);
        });
    }

    fn register(&mut self, attribute: u16, reg: Reg) {
        self.be32(attribute, FIRST_REGISTER + u32::from(reg.0));
    }

    fn be32(&mut self, attribute: u16, value: u32) {
        self.bytes(attribute, &value.to_be_bytes());
    }

    fn string(&mut self, attribute: u16, text: &str) {
        let began = self.begin(attribute);
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
        self.end(began);
    }

    fn bytes(&mut self, attribute: u16, data: &[u8]) {
        let began = self.begin(attribute);
        self.out.extend_from_slice(data);
        self.end(began);
    }

    fn nested(&mut self, attribute: u16, body: impl FnOnce(&mut Self)) {
        let began = self.begin(attribute | NESTED);
        body(self);
        self.end(began);
    }

    fn begin(&mut self, attribute: u16) -> usize {
        let began = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        self.out.extend_from_slice(&attribute.to_ne_bytes());
        began
    }

    /// Writes the length, then pads to four bytes (the padding is not part of the length).
    fn end(&mut self, began: usize) {
        let len = (self.out.len() - began) as u16;
        self.out[began..began + 2].copy_from_slice(&len.to_ne_bytes());
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    fn message(&mut self, kind: u16, flags: u16, purpose: String, body: impl FnOnce(&mut Self)) {
        self.frame((SUBSYS_NFTABLES << 8) | kind, flags, 0, purpose, body);
    }

    /// struct nlmsghdr, struct nfgenmsg, attributes.
    fn frame(&mut self, kind: u16, flags: u16, resource: u16, purpose: String, body: impl FnOnce(&mut Self)) {
        let began = self.out.len();
        let sequence = self.purposes.len() as u32;
        self.purposes.push(purpose);
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(&kind.to_ne_bytes());
        self.out.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.out.extend_from_slice(&sequence.to_ne_bytes());
        self.out.extend_from_slice(&[0; 4]);
        let family = if resource == 0 { self.family.nfproto() } else { 0 };
        self.out.extend_from_slice(&[family, 0]);
        self.out.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let len = (self.out.len() - began) as u32;
        self.out[began..began + 4].copy_from_slice(&len.to_ne_bytes());
    }
}
