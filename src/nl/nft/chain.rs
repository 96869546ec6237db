//! All chains of the ruleset, whoever made them: `nft list chains`.

use std::fmt;

use super::super::error::Error;
use super::super::request::{Query, Request};
use super::super::socket::{Channel, Socket};
use super::super::wire::{Encoder, Malformed, Message};
use super::{HEADER, header, kind};

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// `NF_DROP` (linux/netfilter.h)
const NF_DROP: u32 = 0;

/// A chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Family of its table (`NFPROTO_…`, linux/netfilter.h).
    pub family: u8,
    /// Name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook at which the kernel calls it (`NF_INET_…`); none if only rules do.
    pub hook: Option<u32>,
    /// Whether it drops what its rules say nothing about.
    pub drops: bool,
    /// How many rules it has, and rules that jump to it.
    pub uses: u32,
}

/// Asks for the chains of all families.
struct List;

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("list chains of nf_tables")
    }
}

impl Request for List {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_GETCHAIN)
    }

    fn body(&self, out: &mut Encoder) {
        header(out, 0, 0);
    }
}

impl Query for List {
    type Reply = Chain;

    fn decode(&self, message: &Message<'_>) -> Result<Chain, Malformed> {
        if message.kind != kind(libc::NFT_MSG_NEWCHAIN) {
            return Err(Malformed("expected a chain"));
        }
        let ([family, ..], attributes) = message.split::<HEADER>()?;
        let mut chain = Chain {
            family: *family,
            table: String::new(),
            name: String::new(),
            hook: None,
            drops: false,
            uses: 0,
        };
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_CHAIN_TABLE => chain.table = attribute.text(),
                NFTA_CHAIN_NAME => chain.name = attribute.text(),
                NFTA_CHAIN_POLICY => chain.drops = attribute.be32()? == NF_DROP,
                NFTA_CHAIN_USE => chain.uses = attribute.be32()?,
                NFTA_CHAIN_HOOK => {
                    for hook in attribute.nested() {
                        let hook = hook?;
                        if hook.kind == NFTA_HOOK_HOOKNUM {
                            chain.hook = Some(hook.be32()?);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(chain)
    }
}

/// Reads all chains, of all tables of all families.
///
/// # Errors
/// The kernel's refusal.
pub fn list<C: Channel>(socket: &mut Socket<C>) -> Result<Vec<Chain>, Error> {
    socket.dump(&List)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nl::testing::{answered, done, hex, sent};

    /// As `nft list chains` has it.
    #[test]
    fn chains_of_all_families_are_asked_for() {
        let expected = hex("
            14000000 040a 0103 01000000 00000000   # NFT_MSG_GETCHAIN, REQUEST | DUMP
            00000000                               # struct nfgenmsg: NFPROTO_UNSPEC
            ");
        assert_eq!(sent(list), expected);
    }

    #[test]
    fn a_base_chain_is_read_with_its_policy() {
        let answer = hex("
            58000000 030a 0200 01000000 00000000   # NFT_MSG_NEWCHAIN, MULTI
            02000000                               # struct nfgenmsg: NFPROTO_IPV4
            0b00 0100 66696c74657200 00            # NFTA_CHAIN_TABLE filter
            0c00 0300 464f525741524400             # NFTA_CHAIN_NAME FORWARD
            1400 0480 0800 0100 00000002 0800 0200 00000000   # NFTA_CHAIN_HOOK: 2, priority 0
            0800 0500 00000000                     # NFTA_CHAIN_POLICY NF_DROP
            0800 0600 00000003                     # NFTA_CHAIN_USE 3
            ");
        let mut answer = answer.0;
        let length = u32::try_from(answer.len()).unwrap();
        answer[..4].copy_from_slice(&length.to_ne_bytes());
        answer.extend(done(1, 0));
        let chains = answered(&[crate::nl::testing::Bytes(answer)], list).unwrap();
        let expected = Chain {
            family: 2,
            table: "filter".into(),
            name: "FORWARD".into(),
            hook: Some(2),
            drops: true,
            uses: 3,
        };
        assert_eq!(chains, [expected]);
    }
}
