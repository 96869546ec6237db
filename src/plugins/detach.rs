//! DEL and GC, as all interface plugins do them: only how a link is deleted is each plugin's own.

use std::collections::{HashMap, HashSet};

use super::container::{Container, Ipv6};
use super::origin::Origin;
use super::{deletion, masquerade, spoof_check, takeover};
use crate::cni::error::Errors;
use crate::cni::queue::Collection;
use crate::cni::{Attachment, Code, Error, Request};
use crate::ipam::Ipam;
use crate::net::Cidr;
use crate::nl::link::Link;
use crate::nl::{Family, Socket, link, nft};

/// Detaches a container: ends its masquerading, deletes its link by `delete_link`, which says whether
/// there was one, and releases its addresses. Goes on after a failure; but an address is released only
/// if all else went, since what could not be removed still has it, and is found by its lease next time. What was
/// leased over the link is released over it, before it goes.
///
/// # Errors
/// The first failure, with the others behind it.
pub fn detach(
    request: &Request,
    delete_link: impl FnOnce() -> Result<bool, Error>,
) -> Result<(), Error> {
    let label = request.attachment().label();
    let mut errors = Errors::default();
    match request.take_turn() {
        // What another call is about is not to be taken away under its hands.
        Err(error) if error.code == Code::TryAgainLater as u32 => return Err(error),
        other => errors.note(other),
    };
    let ipam = errors.note(Ipam::of(request)).flatten();
    // What can't be read counts as set: to look is cheap, to leave something behind is not.
    let is_masqueraded = request.conf.root().flag("ipMasq").unwrap_or(true);

    // Which addresses are masqueraded shows in the leases, which go last.
    let held = match &ipam {
        Some(ipam) if is_masqueraded => errors.note(ipam.held()).flatten(),
        _ => None,
    };
    let leases_tell = held.is_some();
    let known = known_addresses(request, held);

    // The kernel frees elements after an RCU grace period, and closing the socket waits for that. To
    // delete a link takes longer, so with the socket open until then nobody waits twice.
    let mut rules = None;
    if is_masqueraded && !known.is_empty() {
        rules = errors.note(nft::open_if_supported()).flatten();
        if let Some(rules) = &mut rules {
            let was_ours = errors.note(masquerade::remove(rules, &label, &known));
            if was_ours == Some(false) {
                errors.note(takeover::remove(rules, &request.attachment(), &known));
            }
        }
    }
    let (over_link, ipam) = match ipam {
        Some(ipam) if ipam.needs_link() => (Some(ipam), None),
        ipam => (None, ipam),
    };
    if let Some(ipam) = over_link {
        errors.note(ipam.del());
    }
    let there_was_a_link = errors.note(delete_link()).unwrap_or(false);
    drop(rules);
    if is_masqueraded && known.is_empty() && (there_was_a_link || !leases_tell) {
        // Somebody has taken the leases away; or address management is foreign, and the runtime does
        // not tell what ADD has returned.
        if let Some(mut rules) = errors.note(nft::open_if_supported()).flatten() {
            errors.note(masquerade::remove_by_label(&mut rules, &label));
        }
    }
    if let Some(ipam) = ipam
        && errors.is_empty()
    {
        errors.note(ipam.del());
    }
    errors.into_result()
}

/// Deletes the attachment's link in the container, and says whether there was one: a link of its name that
/// the plugin could have made and that does not say that it is another's. The reference's plugins give it no
/// label.
///
/// # Errors
/// The kernel's refusal.
pub fn delete_inside(
    request: &Request,
    could_be_ours: impl FnOnce(&Link) -> bool,
) -> Result<bool, Error> {
    let Some(netns) = request.netns_if_any()? else { return Ok(false) };
    let attachment = request.attachment();
    let container = Container::enter(netns, &attachment.ifname, Ipv6::DEFAULT)?;
    let Some(mut container) = container else { return Ok(false) };
    let Some(link) = container.find()? else { return Ok(false) };
    let of_another = link.alias.as_deref().and_then(Attachment::from_label);
    if !could_be_ours(&link) || of_another.is_some_and(|other| other != attachment) {
        return Ok(false);
    }
    container.delete().map(|()| true)
}

/// All addresses that the attachment is known to have: those that it holds, and those that ADD returned.
fn known_addresses(request: &Request, held: Option<Vec<Cidr>>) -> Vec<Cidr> {
    let prev = request.conf.prev_result().ok().flatten().unwrap_or_default();
    let mut addresses = held.unwrap_or_default();
    addresses.extend(prev.ips.iter().map(|ip| ip.address));
    addresses.sort_by_key(|cidr| (cidr.address, cidr.prefix));
    addresses.dedup();
    addresses
}

/// Removes what belongs to the request's network and to none of its valid attachments: links by their
/// alias, elements by their comment, then leases. What a call is about that is under way or begins meanwhile is left
/// alone: the list of valid attachments does not know of it.
///
/// # Errors
/// The valid attachments are not told; or the first failure, with the others behind it.
pub fn collect_garbage(request: &Request) -> Result<(), Error> {
    let collection = Collection::begin()?;
    let valid = request.conf.valid_attachments()?;
    let valid: HashSet<_> =
        valid.iter().map(|a| (a.container.as_str(), a.ifname.as_str())).collect();
    let unwanted = |label: &str| {
        Attachment::from_label(label).is_some_and(|attachment| {
            attachment.network == request.conf.name
                && !valid.contains(&(attachment.container.as_str(), attachment.ifname.as_str()))
                && collection.claims(&attachment)
        })
    };
    let mut errors = Errors::default();
    let ipam = errors.note(Ipam::of(request)).flatten();
    // Over links that are still there.
    let is_swept = matches!(ipam, Some(Ipam::Dhcp(_)));
    if let Some(ipam) = ipam.filter(|_| is_swept) {
        errors.note(ipam.gc(&|attachment| !collection.claims(attachment)));
    }
    let swept = errors.note(delete_links(unwanted));
    // Whatever the configuration says now: elements may be of a time when their keys were set.
    if let Some(mut rules) = errors.note(nft::open_if_supported()).flatten() {
        errors.note(masquerade::sweep(&mut rules, unwanted));
        errors.note(spoof_check::sweep(&mut rules, unwanted));
        let containers = valid.iter().map(|(container, _)| *container).collect();
        errors.note(takeover::sweep(&mut rules, &request.conf.name, &containers));
    }
    // As with DEL, a lease stays with what could not be removed; with rules it is not known whose they are.
    if let Some(Swept { left, are_all_known, refusals }) = swept {
        if errors.is_empty() && !is_swept {
            let is_spared = |attachment: &Attachment| {
                !collection.claims(attachment) || !are_all_known && may_have_link(attachment)
            };
            errors.note(sweep_leases(request, &left, &is_spared));
        }
        errors.note(refusals);
    }
    errors.into_result()
}

/// Releases what belongs to no valid attachment, nor to one of which something is left.
fn sweep_leases(
    request: &Request,
    left: &[Attachment],
    is_spared: &dyn Fn(&Attachment) -> bool,
) -> Result<(), Error> {
    if left.is_empty() {
        return Ipam::of(request)?.map_or(Ok(()), |ipam| ipam.gc(is_spared));
    }
    let request = request.keeping(left)?;
    Ipam::of(&request)?.map_or(Ok(()), |ipam| ipam.gc(is_spared))
}

/// Whether an attachment has a link on the host, as far as that can be told by its name.
fn may_have_link(attachment: &Attachment) -> bool {
    let index = Socket::open(Family::Route)
        .and_then(|mut host| link::index_of(&mut host, &attachment.host_link()));
    !matches!(index, Ok(None))
}

/// What has become of links that belong to no valid attachment.
struct Swept {
    /// The attachments whose links are still there.
    left: Vec<Attachment>,
    /// Whether the kernel has told all links: others may have kept it from that by adding and deleting theirs.
    are_all_known: bool,
    /// Why.
    refusals: Result<(), Error>,
}

/// Deletes the links with such an alias, and restores those that are not ours to delete. Goes on after a failure.
fn delete_links(unwanted: impl Fn(&str) -> bool) -> Result<Swept, Error> {
    let mut host = Socket::open(Family::Route)?;
    let mut errors = Errors::default();
    let mut left = Vec::new();
    let mut veths = HashMap::new();
    let links = link::list_once(&mut host)?;
    let mut seen = HashSet::new();
    for link in links.objects.into_iter().filter(|link| seen.insert(link.index)) {
        let Some(alias) = link.alias.as_deref().filter(|alias| unwanted(alias)) else { continue };
        let Some(attachment) = Attachment::from_label(alias) else { continue };
        let restored = match Origin::read(alias) {
            // A device of the host's own, which a container was given.
            Some(origin) => origin.restore(&mut host, &link, &attachment),
            None if link.is_veth() => {
                veths.insert(link.index, attachment);
                continue;
            }
            // On the host a plugin leaves no others. The alias of a device that was in a container may be the
            // container's.
            None => {
                let (name, kind) = (&link.name, link.kind_name());
                let msg = format!(
                    "link {name:?} has alias {alias:?}, but is a {kind}, which no plugin makes on the host; \
                     it is left alone"
                );
                Err(Error::new(Code::Internal, msg))
            }
        };
        if errors.note(restored).is_none() {
            left.push(attachment);
        }
    }
    let indices: Vec<_> = veths.keys().copied().collect();
    let (still_there, refusals) = deletion::many(&mut host, &indices);
    errors.note(refusals);
    left.extend(still_there.iter().filter_map(|index| veths.remove(index)));
    Ok(Swept { left, are_all_known: links.is_whole, refusals: errors.into_result() })
}
