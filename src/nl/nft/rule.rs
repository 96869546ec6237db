//! Tables, chains, rules, and the expressions that rules are made of.
//!
//! A rule is a small program over registers: an expression loads, masks, compares or looks up, and one
//! that does not match ends the rule. Registers are given as the kernel's 4-byte ones.

use std::fmt;

use nix::errno::Errno;

use super::super::error::Error;
use super::super::request::{Query, Request};
use super::super::socket::{Channel, Socket};
use super::super::wire::{Attributes, Be32, Encoder, Flags, Malformed, Message, NESTED};
use super::{HEADER, NFTA_DATA_VERDICT, NFTA_LIST_ELEM, Table, kind, put_data};

/// `NLM_F_APPEND` (linux/netlink.h): behind the chain's other rules.
const NLM_F_APPEND: Flags = Flags::from_bits_retain(0x800);

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;

const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;

const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;

const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;

const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFT_LOOKUP_F_INV: u32 = 1;

const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_DROP: u32 = 0;

/// Makes a table if it is not there: `nft add table inet plumb`
#[derive(Clone, Copy, Debug)]
pub struct AddTable<'a>(pub Table<'a>);

impl fmt::Display for AddTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create nf_tables {}", self.0)
    }
}

impl Request for AddTable<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_NEWTABLE)
    }

    fn flags(&self) -> Flags {
        Flags::CREATE
    }

    fn body(&self, out: &mut Encoder) {
        self.0.header(out);
        out.put(NFTA_TABLE_NAME, self.0.name);
        out.put(NFTA_TABLE_FLAGS, &Be32(0));
    }
}

/// Where in the kernel a chain is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// `nat` or `filter`.
    pub chain_type: &'static str,
    /// `NF_INET_…` or `NF_BR_…` (linux/netfilter.h, linux/netfilter_bridge.h).
    pub number: u32,
    /// Chains of lower priority come first.
    pub priority: i32,
}

/// Makes a chain that the kernel calls, if it is not there:
/// `nft add chain inet plumb postrouting { type nat hook postrouting priority 100; }`
#[derive(Clone, Copy, Debug)]
pub struct AddChain<'a> {
    /// The chain's table.
    pub table: Table<'a>,
    /// Its name.
    pub name: &'a str,
    /// Where it is called.
    pub hook: Hook,
}

impl fmt::Display for AddChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create {} chain {} in {}", self.hook.chain_type, self.name, self.table)
    }
}

impl Request for AddChain<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_NEWCHAIN)
    }

    fn flags(&self) -> Flags {
        Flags::CREATE
    }

    fn body(&self, out: &mut Encoder) {
        self.table.header(out);
        out.put(NFTA_CHAIN_TABLE, self.table.name);
        out.put(NFTA_CHAIN_NAME, self.name);
        out.put(NFTA_CHAIN_TYPE, self.hook.chain_type);
        out.nest(NFTA_CHAIN_HOOK | NESTED, |out| {
            out.put(NFTA_HOOK_HOOKNUM, &Be32(self.hook.number));
            out.put(NFTA_HOOK_PRIORITY, &Be32(self.hook.priority.cast_unsigned()));
        });
    }
}

/// Appends a rule to a chain: `nft add rule …`
#[derive(Clone, Copy, Debug)]
pub struct AppendRule<'a> {
    /// The chain's table.
    pub table: Table<'a>,
    /// The chain.
    pub chain: &'a str,
    /// What the rule does, in order.
    pub expressions: &'a [Expression<'a>],
}

impl fmt::Display for AppendRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "add a rule to chain {} of {}", self.chain, self.table)
    }
}

impl Request for AppendRule<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_NEWRULE)
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | NLM_F_APPEND
    }

    fn body(&self, out: &mut Encoder) {
        self.table.header(out);
        out.put(NFTA_RULE_TABLE, self.table.name);
        out.put(NFTA_RULE_CHAIN, self.chain);
        out.nest(NFTA_RULE_EXPRESSIONS | NESTED, |out| {
            for expression in self.expressions {
                out.nest(NFTA_LIST_ELEM | NESTED, |out| expression.write(out));
            }
        });
    }
}

/// Asks for the rules of a chain.
struct List<'a> {
    table: Table<'a>,
    chain: &'a str,
}

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list rules of chain {} of {}", self.chain, self.table)
    }
}

impl Request for List<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_GETRULE)
    }

    fn body(&self, out: &mut Encoder) {
        self.table.header(out);
        out.put(NFTA_RULE_TABLE, self.table.name);
        out.put(NFTA_RULE_CHAIN, self.chain);
    }
}

impl Query for List<'_> {
    /// The sets that the rule looks up in.
    type Reply = Vec<String>;

    fn decode(&self, message: &Message<'_>) -> Result<Vec<String>, Malformed> {
        if message.kind != kind(libc::NFT_MSG_NEWRULE) {
            return Err(Malformed("expected a rule"));
        }
        let mut sets = Vec::new();
        let (_, attributes) = message.split::<HEADER>()?;
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == NFTA_RULE_EXPRESSIONS {
                for expression in attribute.nested() {
                    sets.extend(looked_up(expression?.nested())?);
                }
            }
        }
        Ok(sets)
    }
}

/// The set of an expression that is a look-up. Its name comes before the data that it gives a meaning to.
fn looked_up(expression: Attributes<'_>) -> Result<Option<String>, Malformed> {
    let mut is_lookup = false;
    for attribute in expression {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_EXPR_NAME => is_lookup = attribute.text() == "lookup",
            NFTA_EXPR_DATA if is_lookup => {
                for data in attribute.nested() {
                    let data = data?;
                    if data.kind == NFTA_LOOKUP_SET {
                        return Ok(Some(data.text()));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a rule of the chain looks up in `set`; false if the chain is missing.
///
/// # Errors
/// The kernel's refusal.
pub fn looks_up<C: Channel>(
    socket: &mut Socket<C>,
    table: Table<'_>,
    chain: &str,
    set: &str,
) -> Result<bool, Error> {
    match socket.dump(&List { table, chain }) {
        Ok(rules) => Ok(rules.iter().flatten().any(|name| name == set)),
        Err(error) if error.errno == Errno::ENOENT => Ok(false),
        Err(error) => Err(error),
    }
}

/// A register: `NFT_REG_1`–`4` (16 bytes) or `NFT_REG32_00`–`15` (4 bytes). Both name the same 64
/// bytes: `NFT_REG_2` begins at `NFT_REG32_04`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register(pub u32);

/// `NFT_REG_1`: bytes 0–15.
pub const REG_1: Register = Register(libc::NFT_REG_1 as u32);
/// `NFT_REG_2`: bytes 16–31.
pub const REG_2: Register = Register(libc::NFT_REG_2 as u32);
/// `NFT_REG32_01`: bytes 4–7.
pub const REG32_01: Register = Register(libc::NFT_REG32_01 as u32);

/// `NFT_META_…`: what is known of a packet beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Meta {
    /// Name of the link it came in by.
    InputName = libc::NFT_META_IIFNAME as u32,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    Protocol = libc::NFT_META_NFPROTO as u32,
}

/// `NFT_PAYLOAD_…_HEADER`: what an offset counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Base {
    /// The Ethernet header.
    Link = libc::NFT_PAYLOAD_LL_HEADER as u32,
    /// The IP header.
    Network = libc::NFT_PAYLOAD_NETWORK_HEADER as u32,
}

/// `NFT_CMP_…`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Compare {
    /// Goes on if equal.
    Equal = libc::NFT_CMP_EQ as u32,
    /// Goes on if different.
    NotEqual = libc::NFT_CMP_NEQ as u32,
}

/// One step of a rule.
#[derive(Clone, Copy, Debug)]
pub enum Expression<'a> {
    /// Loads what is known of the packet.
    Meta {
        /// What.
        key: Meta,
        /// Where to.
        to: Register,
    },
    /// Loads bytes of the packet.
    Payload {
        /// What the offset counts from.
        base: Base,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
        /// Where to.
        to: Register,
    },
    /// Clears the bits that are not in the mask.
    Mask {
        /// Where, in place.
        register: Register,
        /// As many bytes as are masked.
        mask: &'a [u8],
    },
    /// Compares with a constant.
    Compare {
        /// What to compare.
        register: Register,
        /// How.
        operation: Compare,
        /// With what.
        with: &'a [u8],
    },
    /// Looks up in a set.
    Lookup {
        /// The set, of the same table.
        set: &'a str,
        /// Where the key begins.
        register: Register,
        /// Goes on if the key is not there, rather than if it is.
        inverted: bool,
    },
    /// Gives the packet the address of the link that it leaves by.
    Masquerade,
    /// Drops the packet.
    Drop,
}

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Expression::Meta { .. } => "meta",
            Expression::Payload { .. } => "payload",
            Expression::Mask { .. } => "bitwise",
            Expression::Compare { .. } => "cmp",
            Expression::Lookup { .. } => "lookup",
            Expression::Masquerade => "masq",
            Expression::Drop => "immediate",
        }
    }

    fn write(&self, out: &mut Encoder) {
        out.put(NFTA_EXPR_NAME, self.name());
        out.nest(NFTA_EXPR_DATA | NESTED, |out| match *self {
            Expression::Meta { key, to } => {
                out.put(NFTA_META_KEY, &Be32(key as u32));
                out.put(NFTA_META_DREG, &Be32(to.0));
            }
            Expression::Payload { base, offset, length, to } => {
                out.put(NFTA_PAYLOAD_DREG, &Be32(to.0));
                out.put(NFTA_PAYLOAD_BASE, &Be32(base as u32));
                out.put(NFTA_PAYLOAD_OFFSET, &Be32(offset));
                out.put(NFTA_PAYLOAD_LEN, &Be32(length));
            }
            Expression::Mask { register, mask } => {
                #[expect(clippy::cast_possible_truncation, reason = "a mask is 16 bytes at most")]
                let length = mask.len() as u32;
                out.put(NFTA_BITWISE_SREG, &Be32(register.0));
                out.put(NFTA_BITWISE_DREG, &Be32(register.0));
                out.put(NFTA_BITWISE_LEN, &Be32(length));
                put_data(out, NFTA_BITWISE_MASK, mask);
                put_data(out, NFTA_BITWISE_XOR, vec![0; mask.len()].as_slice());
            }
            Expression::Compare { register, operation, with } => {
                out.put(NFTA_CMP_SREG, &Be32(register.0));
                out.put(NFTA_CMP_OP, &Be32(operation as u32));
                put_data(out, NFTA_CMP_DATA, with);
            }
            Expression::Lookup { set, register, inverted } => {
                out.put(NFTA_LOOKUP_SREG, &Be32(register.0));
                out.put(NFTA_LOOKUP_SET, set);
                if inverted {
                    out.put(NFTA_LOOKUP_FLAGS, &Be32(NFT_LOOKUP_F_INV));
                }
            }
            Expression::Masquerade => {}
            Expression::Drop => {
                out.put(NFTA_IMMEDIATE_DREG, &Be32(libc::NFT_REG_VERDICT.cast_unsigned()));
                out.nest(NFTA_IMMEDIATE_DATA | NESTED, |out| {
                    out.nest(NFTA_DATA_VERDICT | NESTED, |out| {
                        out.put(NFTA_VERDICT_CODE, &Be32(NF_DROP));
                    });
                });
            }
        });
    }
}

#[cfg(test)]
mod tests;
