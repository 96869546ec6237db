//! `macspoofchk`: a container may send only from its own link-layer address.
//!
//! ```text
//! table bridge plumb {
//!     set guarded { type ifname; elements = { "veth…" comment "plumb:net/container/eth0 02:…" } }
//!     set genuine { type ifname . ether_addr; elements = { "veth…" . 02:… comment "plumb:…" } }
//!     chain prerouting {
//!         type filter hook prerouting priority dstnat; policy accept;
//!         iifname @guarded iifname . ether saddr != @genuine drop
//!     }
//! }
//! ```
//!
//! An attachment is one element in each set; the rule is made once. The comment in `guarded` also holds
//! the address, so that from the link's name alone both can be found and removed.

pub mod restore;

use nix::errno::Errno;

use crate::cni::error::Errors;
use crate::cni::{Code, Error};
use crate::net::Mac;
use crate::nl::nft::rule::{self, Base, Expression, Hook, Meta, REG_1, REG_2};
use crate::nl::nft::set::{self, Field, Set};
use crate::nl::nft::{self, Family, Table};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Socket, wire};

/// The table that holds all of this.
pub const TABLE: Table<'_> = Table { family: Family::Bridge, name: "plumb" };
const CHAIN: &str = "prerouting";
/// `filter` at `NF_BR_PRE_ROUTING` with `NF_BR_PRI_NAT_DST_BRIDGED` (linux/netfilter_bridge.h).
const HOOK: Hook = Hook { chain_type: "filter", number: 0, priority: -300 };
const GUARDED: Set<'_> = Set { table: TABLE, name: "guarded" };
const GENUINE: Set<'_> = Set { table: TABLE, name: "genuine" };
const IFNAMSIZ: usize = 16;
/// How often a change is tried that others' changes thwart.
const ATTEMPTS: usize = 8;

/// Sees whether the kernel answers at all.
///
/// # Errors
/// It has no nf_tables.
pub fn probe(rules: &mut Socket) -> Result<(), Error> {
    set::names(rules, TABLE)?;
    Ok(())
}

/// Lets what comes in by `link`, of the attachment of this label, pass from `mac` only.
///
/// # Errors
/// The kernel's refusal.
pub fn add(rules: &mut Socket, label: &str, link: &str, mac: Mac) -> Result<(), Error> {
    // What an attachment of the same name has left would let its old address pass.
    remove(rules, link)?;
    let mut attempts = 0;
    while let Err(error) = insert(rules, label, link, mac) {
        attempts += 1;
        match error.errno {
            Errno::ENOENT if attempts < ATTEMPTS => make_sets(rules)?,
            // One in `genuine` whose other has been flushed away; or both have been put back meanwhile.
            Errno::EEXIST if attempts < ATTEMPTS => {
                let (name, pair) = (name_key(link), pair_key(link, mac));
                let guarded = set::DeleteElement { set: GUARDED, key: &name };
                let genuine = set::DeleteElement { set: GENUINE, key: &pair };
                nft::delete(rules, &[&genuine, &guarded])?;
            }
            _ => return Err(error.into()),
        }
    }
    // Somebody may have flushed the chain: then the elements are there, and nothing asks for them.
    if !rule::looks_up(rules, TABLE, CHAIN, GUARDED.name)? {
        nft::commit(rules, &[&rule::AddTable(TABLE), &chain(), &drop_rule()])?;
    }
    Ok(())
}

/// Ends the check of what comes in by `link`, if there is one.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(rules: &mut Socket, link: &str) -> Result<(), Error> {
    let name = name_key(link);
    let guarded = match set::element(rules, GUARDED, &name) {
        Ok(Some(guarded)) => guarded,
        Ok(None) => return Ok(()),
        Err(error) if nft::is_absence(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let pair = mac_in(&guarded.comment).map(|mac| pair_key(link, mac));
    let guarded = set::DeleteElement { set: GUARDED, key: &name };
    let genuine = pair.as_ref().map(|key| set::DeleteElement { set: GENUINE, key });
    // The one in `guarded` goes last, since by it the other is found.
    let genuine = genuine.iter().map(|request| request as &dyn NlRequest);
    let both: Vec<_> = genuine.chain([&guarded as &dyn NlRequest]).collect();
    Ok(nft::delete(rules, &both)?)
}

/// Ends the check of all attachments whose label is `unwanted`.
///
/// # Errors
/// The kernel's refusal.
pub fn sweep(rules: &mut Socket, unwanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    let mut errors = Errors::default();
    let elements = match set::elements_once(rules, GUARDED) {
        Err(error) if nft::is_absence(&error) => return Ok(()),
        other => other?,
    };
    for element in elements {
        let label = element.comment.split(' ').next().unwrap_or_default();
        if unwanted(label) {
            errors.note(remove(rules, &wire::up_to_nul(&element.key)));
        }
    }
    // Those in `genuine` whose other has been flushed away.
    for element in set::elements_once(rules, GENUINE)? {
        if unwanted(&element.comment) {
            let deletion = set::DeleteElement { set: GENUINE, key: &element.key };
            errors.note(nft::delete(rules, &[&deletion]));
        }
    }
    errors.into_result()
}

/// Sees whether what comes in by `link` is checked to be from `mac`.
///
/// # Errors
/// It is not.
pub fn check(rules: &mut Socket, link: &str, mac: Mac) -> Result<(), Error> {
    for (set, key) in [(GUARDED, name_key(link)), (GENUINE, pair_key(link, mac))] {
        if set::element(rules, set, &key)?.is_none() {
            let msg = format!("macspoofchk: link {link:?} with {mac} is missing from {set}");
            return Err(Error::new(Code::Internal, msg));
        }
        if !rule::looks_up(rules, TABLE, CHAIN, set.name)? {
            let msg = format!("macspoofchk: no rule of {TABLE} uses {}", set.name);
            return Err(Error::new(Code::Internal, msg));
        }
    }
    Ok(())
}

fn insert(rules: &mut Socket, label: &str, link: &str, mac: Mac) -> Result<(), nl::Error> {
    let (name, pair) = (name_key(link), pair_key(link, mac));
    let with_mac = with_mac(label, mac);
    let guarded = set::AddElement { set: GUARDED, key: &name, comment: &with_mac };
    let genuine = set::AddElement { set: GENUINE, key: &pair, comment: label };
    nft::commit(rules, &[&guarded, &genuine])
}

/// Makes table, sets, chain and rule, in one transaction that fails if they are there, so that many doing
/// this at once end with one rule.
fn make_sets(rules: &mut Socket) -> Result<(), Error> {
    let (guarded, genuine) = (new_set(GUARDED), new_set(GENUINE));
    let requests: [&dyn NlRequest; 5] =
        [&rule::AddTable(TABLE), &guarded, &genuine, &chain(), &drop_rule()];
    Ok(nft::create_once(rules, &requests)?)
}

/// A new one of the two sets.
fn new_set(set: Set<'static>) -> set::New<'static> {
    let key: &[_] = if set == GENUINE { &[Field::Ifname, Field::Ether] } else { &[Field::Ifname] };
    set::New { table: TABLE, name: set.name, key }
}

fn chain() -> rule::AddChain<'static> {
    rule::AddChain { table: TABLE, name: CHAIN, hook: HOOK }
}

/// What comes in by a link in `guarded` is dropped if link and source address are not in `genuine`.
fn drop_rule() -> rule::AppendRule<'static> {
    rule::AppendRule {
        table: TABLE,
        chain: CHAIN,
        expressions: &[
            Expression::Meta { key: Meta::InputName, to: REG_1 },
            Expression::Lookup { set: GUARDED.name, register: REG_1, inverted: false },
            Expression::Meta { key: Meta::InputName, to: REG_1 },
            Expression::Payload { base: Base::Link, offset: 6, length: 6, to: REG_2 },
            Expression::Lookup { set: GENUINE.name, register: REG_1, inverted: true },
            Expression::Drop,
        ],
    }
}

fn name_key(link: &str) -> Vec<u8> {
    let mut key = link.as_bytes().to_vec();
    key.resize(IFNAMSIZ, 0);
    key
}

fn pair_key(link: &str, mac: Mac) -> Vec<u8> {
    let mut key = name_key(link);
    key.extend_from_slice(&mac.0);
    key.extend_from_slice(&[0; 2]);
    key
}

/// The comment of an element of `guarded`.
fn with_mac(label: &str, mac: Mac) -> String {
    format!("{label} {mac}")
}

fn mac_in(comment: &str) -> Option<Mac> {
    comment.split_once(' ')?.1.parse().ok()
}
