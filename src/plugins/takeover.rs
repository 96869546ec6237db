//! Take-over from the reference plugins: the packet rules that their `ipMasq` has made for a container, as far as
//! nf_tables has them.
//!
//! ```text
//! table ip nat {                               and ip6; by iptables, where that is backed by nf_tables
//!     chain POSTROUTING { … ip saddr 10.1.0.2 comment "name: \"net\" id: \"container\"" jump CNI-0b3c… }
//!     chain CNI-0b3c… { ip daddr 10.1.0.0/16 accept; ip daddr != 224.0.0.0/4 masquerade }
//! }
//! table inet cni_plugins_masquerade {          since 1.6, with "ipMasqBackend": "nftables"
//!     chain masq_checks { ip saddr == 10.1.0.2 ip daddr != 10.1.0.0/16 masquerade \
//!         comment "a1b2…-c3d4…, net: net, if: eth0, id: container" }
//! }
//! ```
//!
//! All rules of a chain have to be looked at, which grows with the node. So DEL does this only if an address is
//! leased to the attachment, in a network with `ipMasq`, and none of it is in our own rules. The rules of legacy
//! iptables are beyond netlink.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::cni::error::Errors;
use crate::cni::{Attachment, Error};
use crate::net::Cidr;
use crate::nl::nft::foreign::{self, DeleteChain, DeleteRule, Rule};
use crate::nl::nft::{self, Family, Table};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Socket};

const TABLES: [Table<'_>; 2] =
    [Table { family: Family::Ipv4, name: "nat" }, Table { family: Family::Ipv6, name: "nat" }];
const POSTROUTING: &str = "POSTROUTING";
/// What the chain of a container begins with.
const PREFIX: &str = "CNI-";
const MASQUERADE: Table<'_> = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const CHECKS: &str = "masq_checks";
/// A comment is cut to so many bytes there.
const COMMENT_MAX: usize = 128;
/// What a comment has there of digests: twice 16 digits, and a hyphen.
const DIGESTS: usize = 33;

/// Removes what masquerades these addresses for the attachment. A container's chain goes with the last rule that
/// leads there: another interface of it in the same network shares it.
///
/// # Errors
/// The first refusal, with the others behind it.
pub fn remove(
    rules: &mut Socket,
    attachment: &Attachment,
    addresses: &[Cidr],
) -> Result<(), Error> {
    let addresses: HashSet<_> = addresses.iter().map(|cidr| octets(cidr.address)).collect();
    let concerns = |rule: &Rule| rule.compared.iter().any(|value| addresses.contains(value));
    let by_iptables = iptables_comment(&attachment.network, &attachment.container);
    let by_nft = nft_comment(attachment);
    sweep_by(
        rules,
        |rule| rule.comment == by_iptables && concerns(rule),
        |rule| rule.comment.get(DIGESTS..) == Some(by_nft.as_str()) && concerns(rule),
    )
}

/// Removes the rules of the containers of this network that are not in `valid`.
///
/// # Errors
/// The first refusal, with the others behind it.
pub fn sweep(rules: &mut Socket, network: &str, valid: &HashSet<&str>) -> Result<(), Error> {
    let is_stale = |container: &str| !valid.contains(container);
    let before = format!("name: \"{network}\" id: \"");
    let container_of =
        |comment: &str| comment.strip_prefix(&before)?.strip_suffix('"').map(str::to_owned);
    let named = format!(", net: {network}, if: ");
    let nft_container_of = |comment: &str| {
        // One that is cut does not tell.
        let whole = comment.get(DIGESTS..).filter(|_| comment.len() < COMMENT_MAX)?;
        whole.strip_prefix(&named)?.split_once(", id: ").map(|(_, id)| id.to_owned())
    };
    sweep_by(
        rules,
        |rule| container_of(&rule.comment).is_some_and(|container| is_stale(&container)),
        |rule| nft_container_of(&rule.comment).is_some_and(|container| is_stale(&container)),
    )
}

fn sweep_by(
    rules: &mut Socket,
    is_iptables_jump: impl Fn(&Rule) -> bool,
    is_nft_rule: impl Fn(&Rule) -> bool,
) -> Result<(), Error> {
    let mut errors = Errors::default();
    for table in TABLES {
        errors.note(remove_jumps(rules, table, &is_iptables_jump));
    }
    if let Some(found) = errors.note(read(rules, MASQUERADE, CHECKS)) {
        let found = found.iter().filter(|rule| is_nft_rule(rule));
        let deletions: Vec<_> = found.map(|rule| deletion(MASQUERADE, CHECKS, rule)).collect();
        errors.note(nft::delete(rules, &as_requests(&deletions)).map_err(Error::from));
    }
    errors.into_result()
}

/// Removes jumps to containers' chains, and those chains that no other jump leads to.
fn remove_jumps(
    rules: &mut Socket,
    table: Table<'_>,
    is_one: impl Fn(&Rule) -> bool,
) -> Result<(), Error> {
    let found = read(rules, table, POSTROUTING)?;
    let leads_to_ours = |rule: &Rule| rule.jump.as_ref().is_some_and(|to| to.starts_with(PREFIX));
    let (gone, kept): (Vec<_>, Vec<_>) =
        found.iter().partition(|rule| leads_to_ours(rule) && is_one(rule));
    let kept: HashSet<_> = kept.into_iter().filter_map(|rule| rule.jump.as_deref()).collect();
    let mut chains: Vec<_> = gone.iter().filter_map(|rule| rule.jump.as_deref()).collect();
    chains.sort_unstable();
    chains.dedup();
    let deletions: Vec<_> = gone.iter().map(|rule| deletion(table, POSTROUTING, rule)).collect();
    nft::delete(rules, &as_requests(&deletions))?;
    let chains = chains.into_iter().filter(|chain| !kept.contains(chain));
    let chains: Vec<_> = chains.map(|chain| DeleteChain { table, chain }).collect();
    let chains: Vec<_> = chains.iter().map(|request| request as &dyn NlRequest).collect();
    Ok(nft::delete(rules, &chains)?)
}

/// The rules of a chain; none if there can be none.
fn read(rules: &mut Socket, table: Table<'_>, chain: &str) -> Result<Vec<Rule>, nl::Error> {
    match foreign::rules(rules, table, chain) {
        Err(error) if nft::is_absence(&error) => Ok(Vec::new()),
        other => other,
    }
}

fn deletion<'a>(table: Table<'a>, chain: &'a str, rule: &Rule) -> DeleteRule<'a> {
    DeleteRule { table, chain, handle: rule.handle }
}

fn as_requests<'a>(deletions: &'a [DeleteRule<'_>]) -> Vec<&'a dyn NlRequest> {
    deletions.iter().map(|request| request as &dyn NlRequest).collect()
}

fn iptables_comment(network: &str, container: &str) -> String {
    format!("name: \"{network}\" id: \"{container}\"")
}

/// A comment of `masq_checks` behind its digests, cut as the whole is.
fn nft_comment(attachment: &Attachment) -> String {
    let Attachment { network, container, ifname } = attachment;
    let mut comment = format!(", net: {network}, if: {ifname}, id: {container}");
    // The names are ASCII.
    comment.truncate(COMMENT_MAX - DIGESTS);
    comment
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
