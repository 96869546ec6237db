//! The check put back for many attachments at once, after others have flushed all or some of it.

use std::collections::{HashMap, HashSet};

use nix::errno::Errno;

use super::{
    CHAIN, GENUINE, GUARDED, TABLE, chain, drop_rule, mac_in, name_key, new_set, pair_key,
};
use crate::cni::Error;
use crate::net::Mac;
use crate::nl::nft::{self, rule, set};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Socket};

/// How many attachments a transaction is given, each of at most four messages.
const CHUNK: usize = 256;

/// What is to be guarded: what comes in by `link`, of the attachment of this label, is from `mac`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Wanted {
    /// The attachment's label.
    pub label: String,
    /// The host's end.
    pub link: String,
    /// The container's address.
    pub mac: Mac,
}

/// What is not there of what is wanted.
#[derive(Default, Debug)]
pub struct Missing {
    sets: Vec<set::Set<'static>>,
    rule: bool,
    /// Attachments of which an element is missing, or names another address.
    pub attachments: Vec<Wanted>,
    /// Elements in the way of theirs, or whose other has gone.
    old: Vec<(set::Set<'static>, Vec<u8>)>,
}

impl Missing {
    /// How many rules and elements there are to put back.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (usize::from(self.rule), 2 * self.attachments.len())
    }
}

/// Compares what is wanted with what there is.
///
/// # Errors
/// The kernel's refusal.
pub fn missing(rules: &mut Socket, wanted: &[Wanted]) -> Result<Missing, Error> {
    let mut missing = Missing::default();
    if wanted.is_empty() {
        return Ok(missing);
    }
    let there = set::names(rules, TABLE)?;
    missing.sets.extend(
        [GUARDED, GENUINE].into_iter().filter(|set| !there.iter().any(|name| name == set.name)),
    );
    missing.rule = !rule::looks_up(rules, TABLE, CHAIN, GUARDED.name)?;
    let guarded: HashMap<_, _> =
        set::elements(rules, GUARDED)?.into_iter().map(|e| (e.key, e.comment)).collect();
    let genuine: HashSet<_> = set::elements(rules, GENUINE)?.into_iter().map(|e| e.key).collect();
    for wanted in wanted {
        let (name, pair) = (name_key(&wanted.link), pair_key(&wanted.link, wanted.mac));
        let comment = guarded.get(&name);
        let is_named = comment.is_some_and(|c| *c == super::with_mac(&wanted.label, wanted.mac));
        if is_named && genuine.contains(&pair) {
            continue;
        }
        let other = comment.and_then(|comment| mac_in(comment)).filter(|mac| *mac != wanted.mac);
        let other = other.map(|mac| pair_key(&wanted.link, mac));
        for pair in [Some(pair), other].into_iter().flatten().filter(|p| genuine.contains(p)) {
            missing.old.push((GENUINE, pair));
        }
        if comment.is_some() {
            missing.old.push((GUARDED, name));
        }
        missing.attachments.push(wanted.clone());
    }
    Ok(missing)
}

/// Puts back what is missing, in few transactions. What others change meanwhile is left for another look.
///
/// # Errors
/// The kernel's refusal.
pub fn put(rules: &mut Socket, missing: &Missing) -> Result<(), Error> {
    for set in &missing.sets {
        nft::create_once(rules, &[&rule::AddTable(TABLE), &new_set(*set)])?;
    }
    if missing.rule {
        nft::commit(rules, &[&rule::AddTable(TABLE), &chain(), &drop_rule()])?;
    }
    let old: Vec<_> =
        missing.old.iter().map(|(set, key)| set::DeleteElement { set: *set, key }).collect();
    let old: Vec<_> = old.iter().map(|request| request as &dyn NlRequest).collect();
    for chunk in old.chunks(CHUNK) {
        nft::delete(rules, chunk)?;
    }
    for chunk in missing.attachments.chunks(CHUNK) {
        insert(rules, chunk).or_else(|error| match error.errno {
            Errno::ENOENT | Errno::EEXIST => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

fn insert(rules: &mut Socket, attachments: &[Wanted]) -> Result<(), nl::Error> {
    let keys: Vec<_> = attachments
        .iter()
        .map(|w| (name_key(&w.link), pair_key(&w.link, w.mac), super::with_mac(&w.label, w.mac)))
        .collect();
    let mut additions = Vec::new();
    for (wanted, (name, pair, with_mac)) in attachments.iter().zip(&keys) {
        additions.push(set::AddElement { set: GUARDED, key: name, comment: with_mac });
        additions.push(set::AddElement { set: GENUINE, key: pair, comment: &wanted.label });
    }
    let additions: Vec<_> = additions.iter().map(|request| request as &dyn NlRequest).collect();
    nft::commit(rules, &additions)
}
