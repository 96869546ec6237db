//! Rules that other programs have made: what of them tells whose they are, and how they are deleted.

use std::fmt;

use nix::errno::Errno;

use super::super::error::Error;
use super::super::request::{Query, Request};
use super::super::socket::{Channel, Socket};
use super::super::wire::{Attributes, Encoder, Malformed, Message};
use super::set::comment;
use super::{HEADER, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, Table, kind};

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// `NFTA_MATCH_NAME`, `NFTA_MATCH_INFO`: what iptables' own matches are wrapped in.
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;

/// A rule, as far as it tells whose it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rule {
    /// Its number within the table.
    pub handle: u64,
    /// Its comment: nft(8)'s, or that of iptables' match `comment` (`struct xt_comment_info`,
    /// linux/netfilter/xt_comment.h).
    pub comment: String,
    /// What it compares with, such as addresses.
    pub compared: Vec<Vec<u8>>,
    /// The chain that it jumps or goes to.
    pub jump: Option<String>,
}

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
    type Reply = Rule;

    fn decode(&self, message: &Message<'_>) -> Result<Rule, Malformed> {
        if message.kind != kind(libc::NFT_MSG_NEWRULE) {
            return Err(Malformed("expected a rule"));
        }
        let mut rule = Rule::default();
        let (_, attributes) = message.split::<HEADER>()?;
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_RULE_HANDLE => {
                    let bytes = attribute.payload.try_into();
                    rule.handle = bytes.map(u64::from_be_bytes).map_err(|_| Malformed("handle"))?;
                }
                NFTA_RULE_USERDATA => rule.comment = comment(attribute.payload),
                NFTA_RULE_EXPRESSIONS => {
                    for expression in attribute.nested() {
                        rule.read_expression(expression?.nested())?;
                    }
                }
                _ => {}
            }
        }
        Ok(rule)
    }
}

impl Rule {
    /// The name of an expression comes before the data that it gives a meaning to.
    fn read_expression(&mut self, expression: Attributes<'_>) -> Result<(), Malformed> {
        let mut name = String::new();
        for attribute in expression {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_EXPR_NAME => name = attribute.text(),
                NFTA_EXPR_DATA => match name.as_str() {
                    "cmp" => self.read_comparison(attribute.nested())?,
                    "immediate" => self.read_verdict(attribute.nested())?,
                    "match" => self.read_match(attribute.nested())?,
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn read_comparison(&mut self, data: Attributes<'_>) -> Result<(), Malformed> {
        for attribute in data {
            let attribute = attribute?;
            if attribute.kind == NFTA_CMP_DATA {
                for value in attribute.nested() {
                    let value = value?;
                    if value.kind == NFTA_DATA_VALUE {
                        self.compared.push(value.payload.to_vec());
                    }
                }
            }
        }
        Ok(())
    }

    fn read_verdict(&mut self, data: Attributes<'_>) -> Result<(), Malformed> {
        for attribute in data {
            let attribute = attribute?;
            if attribute.kind != NFTA_IMMEDIATE_DATA {
                continue;
            }
            for verdict in attribute.nested() {
                let verdict = verdict?;
                if verdict.kind == NFTA_DATA_VERDICT {
                    for part in verdict.nested() {
                        let part = part?;
                        if part.kind == NFTA_VERDICT_CHAIN {
                            self.jump = Some(part.text());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn read_match(&mut self, data: Attributes<'_>) -> Result<(), Malformed> {
        let mut is_comment = false;
        for attribute in data {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_MATCH_NAME => is_comment = attribute.text() == "comment",
                NFTA_MATCH_INFO if is_comment => self.comment = attribute.text(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads the rules of a chain; none if it is missing.
///
/// # Errors
/// The kernel's refusal.
pub fn rules<C: Channel>(
    socket: &mut Socket<C>,
    table: Table<'_>,
    chain: &str,
) -> Result<Vec<Rule>, Error> {
    match socket.dump(&List { table, chain }) {
        Err(error) if error.errno == Errno::ENOENT => Ok(Vec::new()),
        other => other,
    }
}

/// Deletes a rule: `nft delete rule ip nat POSTROUTING handle 5`; `ENOENT` if it is not there.
#[derive(Clone, Copy, Debug)]
pub struct DeleteRule<'a> {
    /// The chain's table.
    pub table: Table<'a>,
    /// The rule's chain.
    pub chain: &'a str,
    /// Its number.
    pub handle: u64,
}

impl fmt::Display for DeleteRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete rule {} of chain {} of {}", self.handle, self.chain, self.table)
    }
}

impl Request for DeleteRule<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_DELRULE)
    }

    fn body(&self, out: &mut Encoder) {
        self.table.header(out);
        out.put(NFTA_RULE_TABLE, self.table.name);
        out.put(NFTA_RULE_CHAIN, self.chain);
        out.put(NFTA_RULE_HANDLE, self.handle.to_be_bytes().as_slice());
    }
}

/// Deletes a chain and the rules in it; `EBUSY` if a rule jumps to it, `ENOENT` if it is not there.
#[derive(Clone, Copy, Debug)]
pub struct DeleteChain<'a> {
    /// The chain's table.
    pub table: Table<'a>,
    /// Its name.
    pub chain: &'a str,
}

impl fmt::Display for DeleteChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete chain {} of {}", self.chain, self.table)
    }
}

impl Request for DeleteChain<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_DELCHAIN)
    }

    fn body(&self, out: &mut Encoder) {
        self.table.header(out);
        out.put(NFTA_CHAIN_TABLE, self.table.name);
        out.put(NFTA_CHAIN_NAME, self.chain);
    }
}
