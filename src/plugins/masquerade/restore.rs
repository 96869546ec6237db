//! Masquerading put back for many attachments at once, after others have flushed all or some of it.

use std::collections::HashMap;

use super::{ADD_CHAIN, ADD_TABLE, CHAIN, CHUNK, Entry, Rule, TABLE, unsupported};
use crate::cni::Error;
use crate::net::Cidr;
use crate::nl::nft::{self, rule, set};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Socket};

/// What is to be masqueraded: an address of the attachment of this label.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Wanted {
    /// The attachment's label.
    pub label: String,
    /// The address.
    pub address: Cidr,
}

/// What is not there of what is wanted.
#[derive(Default, Debug)]
pub struct Missing {
    /// An address of each length of prefix that has no set, or no rule that asks for its set.
    sets: Vec<Cidr>,
    rules: Vec<Cidr>,
    /// Elements; of those whose key another attachment has, which can't be a live one's, that one goes.
    pub elements: Vec<Wanted>,
    taken: Vec<Entry>,
}

impl Missing {
    /// How many rules and elements there are to put back.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.sets.len() + self.rules.len(), self.elements.len())
    }
}

/// Compares what is wanted with what there is, in one dump per length of prefix. Of several who want the same
/// address one has it.
///
/// # Errors
/// The kernel's refusal.
pub fn missing(rules: &mut Socket, wanted: &[Wanted]) -> Result<Missing, Error> {
    let mut missing = Missing::default();
    let mut by_set: HashMap<String, Vec<(Entry, &Wanted)>> = HashMap::new();
    for wanted in wanted {
        let entry = Entry::of(wanted.address);
        by_set.entry(entry.set.clone()).or_default().push((entry, wanted));
    }
    if by_set.is_empty() {
        return Ok(missing);
    }
    let there = set::names(rules, TABLE)?;
    for (name, entries) in by_set {
        let Some((_, first)) = entries.first() else { continue };
        if !there.contains(&name) {
            missing.sets.push(first.address);
        } else if !rule::looks_up(rules, TABLE, CHAIN, &name)? {
            missing.rules.push(first.address);
        }
        let found = set::elements(rules, set::Set { table: TABLE, name: &name })?;
        let found: HashMap<_, _> = found.into_iter().map(|e| (e.key, e.comment)).collect();
        let mut claims: HashMap<Vec<u8>, Vec<(Entry, &Wanted)>> = HashMap::new();
        for (entry, wanted) in entries {
            claims.entry(entry.key.clone()).or_default().push((entry, wanted));
        }
        for (key, claims) in claims {
            let holder = found.get(&key);
            if holder.is_some_and(|label| claims.iter().any(|(_, w)| w.label == *label)) {
                continue;
            }
            let Some((entry, wanted)) = claims.into_iter().next() else { continue };
            missing.elements.push(wanted.clone());
            if holder.is_some() {
                missing.taken.push(entry);
            }
        }
    }
    Ok(missing)
}

/// Puts back what is missing, in few transactions. What others change meanwhile is left for another look.
///
/// # Errors
/// The kernel's refusal.
pub fn put(rules: &mut Socket, missing: &Missing) -> Result<(), Error> {
    for address in &missing.sets {
        super::make_set(rules, *address)?;
    }
    for address in &missing.rules {
        let (name, rule) = (Entry::of(*address).set, Rule::of(*address));
        let expressions = rule.expressions(&name);
        let append = rule::AppendRule { table: TABLE, chain: CHAIN, expressions: &expressions };
        overtaken_is_no_error(nft::commit(rules, &[&ADD_TABLE, &ADD_CHAIN, &append]))?;
    }
    let taken: Vec<_> = missing.taken.iter().map(Entry::deletion).collect();
    let taken: Vec<_> = taken.iter().map(|request| request as &dyn NlRequest).collect();
    for chunk in taken.chunks(CHUNK) {
        nft::delete(rules, chunk)?;
    }
    for chunk in missing.elements.chunks(CHUNK) {
        let entries: Vec<_> = chunk.iter().map(|w| (Entry::of(w.address), &w.label)).collect();
        let additions: Vec<_> =
            entries.iter().map(|(entry, label)| entry.addition(label)).collect();
        let additions: Vec<_> = additions.iter().map(|r| r as &dyn NlRequest).collect();
        overtaken_is_no_error(nft::commit(rules, &additions))?;
    }
    Ok(())
}

fn overtaken_is_no_error(outcome: Result<(), nl::Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if super::is_overtaken(&error) => Ok(()),
        other => other.map_err(unsupported),
    }
}
