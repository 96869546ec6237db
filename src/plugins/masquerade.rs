//! `ipMasq`: what a container sends out of its own network gets the address of the host.
//!
//! ```text
//! table inet plumb {
//!     set masq4_16 {
//!         type ipv4_addr . ipv4_addr
//!         elements = { 10.244.0.5 . 10.244.0.0 comment "plumb:net/container/eth0" }
//!     }
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr . ip saddr & 255.255.0.0 @masq4_16 ip saddr . ip daddr & 255.255.0.0 != @masq4_16 \
//!             ip daddr != 224.0.0.0/4 masquerade
//!     }
//! }
//! ```
//!
//! A container is one element per address: the address, and its network. Two look-ups decide: source and
//! network of the source are in the set if the source is a container; source and network of the
//! destination are if the destination is in that container's own network. So one set serves both questions, a packet costs two look-ups whatever the
//! number of containers, and there is one rule for each length of prefix in use, made once and together
//! with its set. Nothing is shared between attachments, so nothing has to be counted.

pub mod restore;

use std::net::IpAddr;

use nix::errno::Errno;

use crate::cni::error::Errors;
use crate::cni::{Code, Error};
use crate::net::{Cidr, from_bits};
use crate::nl::nft::rule::{self, Base, Compare, Expression, Hook, Meta, REG_1, REG_2, REG32_01};
use crate::nl::nft::set::{self, Field, Set};
use crate::nl::nft::{self, Family, Table};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Socket};

/// The table that holds all of this.
pub const TABLE: Table<'_> = Table { family: Family::Inet, name: "plumb" };
const CHAIN: &str = "postrouting";
/// `nat` at `NF_INET_POST_ROUTING` with `NF_IP_PRI_NAT_SRC` (linux/netfilter.h, netfilter_ipv4.h).
const HOOK: Hook = Hook { chain_type: "nat", number: 4, priority: 100 };
const ADD_TABLE: rule::AddTable<'_> = rule::AddTable(TABLE);
const ADD_CHAIN: rule::AddChain<'_> = rule::AddChain { table: TABLE, name: CHAIN, hook: HOOK };
/// Sets of ours begin with this.
const PREFIX: &str = "masq";
/// How many elements a transaction is given: it takes a few thousand.
const CHUNK: usize = 512;
/// How often a change is tried again that others' changes have thwarted.
const ATTEMPTS: usize = 8;

/// Sees whether the kernel answers at all.
///
/// # Errors
/// It has no nf_tables.
pub fn probe(rules: &mut Socket) -> Result<(), Error> {
    set::names(rules, TABLE)?;
    Ok(())
}

/// Masquerades these addresses for the attachment of this label. What a vanished attachment has left
/// for one of them is replaced.
///
/// # Errors
/// The kernel's refusal.
pub fn add(rules: &mut Socket, label: &str, addresses: &[Cidr]) -> Result<(), Error> {
    let entries: Vec<_> = addresses.iter().map(|cidr| Entry::of(*cidr)).collect();
    for _ in 0..ATTEMPTS {
        match insert(rules, label, &entries, &[]) {
            Err(error) if error.errno == Errno::ENOENT => {
                for cidr in addresses {
                    make_set(rules, *cidr)?;
                }
            }
            Err(error) if error.errno == Errno::EEXIST => {
                let old = existing(rules, &entries)?;
                match insert(rules, label, &entries, &old) {
                    Err(error) if is_overtaken(&error) => {}
                    other => return other.map_err(unsupported),
                }
            }
            other => return other.map_err(unsupported),
        }
    }
    Err(overtaken())
}

/// Ends the masquerading of those of the addresses that are the attachment's of this label, and says whether there
/// were any.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(rules: &mut Socket, label: &str, addresses: &[Cidr]) -> Result<bool, Error> {
    let entries = addresses.iter().map(|cidr| Entry::of(*cidr)).collect();
    let is_own = |comment: &str| comment == label;
    let removed = delete(rules, entries, is_own)?;
    if removed == addresses.len() {
        return Ok(true);
    }
    // The network may have had another length of prefix when the address was added.
    let mut entries = Vec::new();
    for name in sets(rules)? {
        entries.extend(addresses.iter().filter_map(|cidr| Entry::of_set(&name, *cidr)));
    }
    Ok(removed + delete(rules, entries, is_own)? > 0)
}

/// Ends all masquerading of the attachment of this label, whose addresses are not known: the one
/// operation here, beside [`sweep`], that looks at every element.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_by_label(rules: &mut Socket, label: &str) -> Result<(), Error> {
    sweep(rules, |comment| comment == label)
}

/// Ends the masquerading of all attachments whose label is `unwanted`.
///
/// # Errors
/// The kernel's refusal.
pub fn sweep(rules: &mut Socket, unwanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    let mut entries = Vec::new();
    for name in sets(rules)? {
        for element in set::elements_once(rules, Set { table: TABLE, name: &name })? {
            if unwanted(&element.comment) {
                entries.push(Entry { set: name.clone(), key: element.key });
            }
        }
    }
    delete(rules, entries, unwanted).map(drop)
}

/// Sees whether these addresses are masqueraded for the attachment of this label.
///
/// # Errors
/// One is not.
pub fn check(rules: &mut Socket, label: &str, addresses: &[Cidr]) -> Result<(), Error> {
    for cidr in addresses {
        let entry = Entry::of(*cidr);
        match set::element(rules, entry.set(), &entry.key)? {
            Some(element) if element.comment == label => {}
            _ => {
                let msg = format!("masquerading of {cidr} is missing from {TABLE}");
                return Err(Error::new(Code::Internal, msg));
            }
        }
        if !rule::looks_up(rules, TABLE, CHAIN, &entry.set)? {
            let msg = format!("masquerading of {cidr}: no rule of {TABLE} uses {}", entry.set);
            return Err(Error::new(Code::Internal, msg));
        }
    }
    Ok(())
}

/// Adds the entries in one transaction, in place of those in `old`.
fn insert(rules: &mut Socket, label: &str, new: &[Entry], old: &[Entry]) -> Result<(), nl::Error> {
    let deletions: Vec<_> = old.iter().map(Entry::deletion).collect();
    let additions: Vec<_> = new.iter().map(|entry| entry.addition(label)).collect();
    let deletions = deletions.iter().map(|request| request as &dyn NlRequest);
    let additions = additions.iter().map(|request| request as &dyn NlRequest);
    nft::commit(rules, &deletions.chain(additions).collect::<Vec<_>>())
}

/// Names of the sets that there are of ours.
fn sets(rules: &mut Socket) -> Result<Vec<String>, Error> {
    match set::names(rules, TABLE) {
        Ok(mut names) => {
            names.retain(|name| name.starts_with(PREFIX));
            Ok(names)
        }
        Err(error) if nft::is_absence(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn existing(rules: &mut Socket, entries: &[Entry]) -> Result<Vec<Entry>, Error> {
    let mut existing = Vec::new();
    for entry in entries {
        if set::element(rules, entry.set(), &entry.key)?.is_some() {
            existing.push(entry.clone());
        }
    }
    Ok(existing)
}

/// Deletes those of the entries whose comment is `unwanted`, and tells how many there were.
fn delete(
    rules: &mut Socket,
    entries: Vec<Entry>,
    unwanted: impl Fn(&str) -> bool,
) -> Result<usize, Error> {
    let mut ours = Vec::new();
    for entry in entries {
        match set::element(rules, entry.set(), &entry.key) {
            Ok(Some(element)) if unwanted(&element.comment) => ours.push(entry),
            Ok(_) => {}
            Err(error) if nft::is_absence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut errors = Errors::default();
    for chunk in ours.chunks(CHUNK) {
        let deletions: Vec<_> = chunk.iter().map(Entry::deletion).collect();
        let deletions: Vec<_> = deletions.iter().map(|r| r as &dyn NlRequest).collect();
        errors.note(nft::delete(rules, &deletions));
    }
    errors.into_result().map(|()| ours.len())
}

/// Makes the table, the chain, and for the length of prefix the set and the rule, all in one transaction
/// that fails if the set is there, so that many doing this at once end with one rule.
fn make_set(rules: &mut Socket, cidr: Cidr) -> Result<(), Error> {
    let (name, rule) = (Entry::of(cidr).set, Rule::of(cidr));
    let set = set::New { table: TABLE, name: &name, key: &[rule.field, rule.field] };
    let expressions = rule.expressions(&name);
    let append = rule::AppendRule { table: TABLE, chain: CHAIN, expressions: &expressions };
    nft::create_once(rules, &[&ADD_TABLE, &set, &ADD_CHAIN, &append]).map_err(unsupported)
}

/// One address as an element.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    set: String,
    key: Vec<u8>,
}

impl Entry {
    fn of(cidr: Cidr) -> Self {
        let family = if cidr.address.is_ipv4() { 4 } else { 6 };
        let set = format!("{PREFIX}{family}_{}", cidr.prefix);
        let key = [octets(cidr.address), octets(cidr.network())].concat();
        Self { set, key }
    }

    /// The address as an element of the set of this name; `None` if that is of the other family, or no
    /// set of ours.
    fn of_set(name: &str, cidr: Cidr) -> Option<Self> {
        let (_, prefix) = name.strip_prefix(PREFIX)?.split_once('_')?;
        let entry = Self::of(Cidr { prefix: prefix.parse().ok()?, ..cidr });
        (entry.set == name).then_some(entry)
    }

    fn set(&self) -> Set<'_> {
        Set { table: TABLE, name: &self.set }
    }

    fn addition<'a>(&'a self, label: &'a str) -> set::AddElement<'a> {
        set::AddElement { set: self.set(), key: &self.key, comment: label }
    }

    fn deletion(&self) -> set::DeleteElement<'_> {
        set::DeleteElement { set: self.set(), key: &self.key }
    }
}

/// What differs between the rules of the two families, and of the lengths of prefix.
struct Rule {
    field: Field,
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`
    protocol: [u8; 1],
    /// Offsets of the addresses in the header, and their length (RFC 791, RFC 8200).
    source: u32,
    destination: u32,
    length: u32,
    mask: Vec<u8>,
    /// Multicast, which is not masqueraded: as many bits of the destination have this value.
    multicast_mask: &'static [u8],
    multicast: &'static [u8],
}

impl Rule {
    fn of(cidr: Cidr) -> Self {
        let mask = octets(from_bits(cidr.address, cidr.mask()));
        if cidr.address.is_ipv4() {
            Self {
                field: Field::Ipv4,
                protocol: [2],
                source: 12,
                destination: 16,
                length: 4,
                mask,
                multicast_mask: &[0xf0, 0, 0, 0],
                multicast: &[224, 0, 0, 0],
            }
        } else {
            Self {
                field: Field::Ipv6,
                protocol: [10],
                source: 8,
                destination: 24,
                length: 16,
                mask,
                multicast_mask: &[],
                multicast: &[0xff],
            }
        }
    }

    fn expressions<'a>(&'a self, set: &'a str) -> Vec<Expression<'a>> {
        // The second half of a key lies right behind the first.
        let second = if self.length == 4 { REG32_01 } else { REG_2 };
        let load =
            |offset, length, to| Expression::Payload { base: Base::Network, offset, length, to };
        let mut expressions = vec![
            Expression::Meta { key: Meta::Protocol, to: REG_1 },
            Expression::Compare {
                register: REG_1,
                operation: Compare::Equal,
                with: &self.protocol,
            },
        ];
        for (side, inverted) in [(self.source, false), (self.destination, true)] {
            expressions.extend([
                load(self.source, self.length, REG_1),
                load(side, self.length, second),
                Expression::Mask { register: second, mask: &self.mask },
                Expression::Lookup { set, register: REG_1, inverted },
            ]);
        }
        if self.multicast_mask.is_empty() {
            expressions.push(load(self.destination, 1, REG_1));
        } else {
            expressions.push(load(self.destination, self.length, REG_1));
            expressions.push(Expression::Mask { register: REG_1, mask: self.multicast_mask });
        }
        expressions.push(Expression::Compare {
            register: REG_1,
            operation: Compare::NotEqual,
            with: self.multicast,
        });
        expressions.push(Expression::Masquerade);
        expressions
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn is_overtaken(error: &nl::Error) -> bool {
    matches!(error.errno, Errno::ENOENT | Errno::EEXIST)
}

fn overtaken() -> Error {
    let msg = "cannot add masquerading: other processes keep changing the same elements";
    Error::new(Code::TryAgainLater, msg)
}

/// Names what a kernel lacks that has nf_tables but not all of it.
fn unsupported(error: nl::Error) -> Error {
    let lacking = matches!(error.errno, Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EAFNOSUPPORT);
    let mut error = Error::from(error);
    if lacking {
        error.msg.push_str(
            "; ipMasq needs nf_tables with inet NAT and masquerading in the kernel \
             (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)",
        );
    }
    error
}
