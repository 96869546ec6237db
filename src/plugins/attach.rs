//! Steps of ADD and of CHECK that interface plugins have in common, each with its way back.

use super::container::{Container, Ipv6};
use super::undo::Undo;
use super::{masquerade, veth};
use crate::cni::result::{CniResult, Dns, Interface};
use crate::cni::{Attachment, Code, Error, Request};
use crate::ipam::{self, Ipam};
use crate::net::{Cidr, Mac, from_bits, to_bits};
use crate::nl::link::Link;
use crate::nl::{Socket, nft};
use crate::sha256;

/// What an ADD begins with: the attachment, whose names fit into a label, and its address management, if there
/// is any; the container has a namespace.
///
/// # Errors
/// The names don't fit; there is no such namespace or plugin.
pub fn begin(request: &Request) -> Result<(Attachment, Option<Ipam<'_>>), Error> {
    let attachment = request.attachment();
    attachment.check_length()?;
    request.netns()?;
    Ok((attachment, Ipam::of(request)?))
}

/// Carries out the work of an ADD when it is its container's turn: all of it, or nothing.
///
/// # Errors
/// Whatever keeps the attachment from being whole; then nothing of it is left.
pub fn carry_out<'a>(
    request: &'a Request,
    work: impl FnOnce(&mut Undo<'a>) -> Result<CniResult, Error>,
) -> Result<CniResult, Error> {
    request.take_turn()?;
    let mut undo = Undo::new();
    work(&mut undo).map_err(|error| undo.unwind(error))
}

/// Leases the container's addresses before it has a link; none in a network without address management.
///
/// # Errors
/// Those of address management; it has no address to give; the container has the interface already.
pub fn lease<'a>(
    request: &Request,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let Some(ipam) = ipam else { return Ok(CniResult::default()) };
    if ipam.needs_link() {
        // Its way back is to release all that the attachment holds: not what a live one has.
        veth::refuse_if_interface_exists(request.netns()?, &request.env.ifname)?;
    }
    let leased = ipam.add()?;
    undo.push_last(move || ipam.undo(&leased.undo));
    checked(leased.result)
}

/// Leases the container's addresses before it has a link, unless that is what they are asked for over: then
/// there are none yet, and [`lease_over_link`] comes later.
///
/// # Errors
/// As [`lease`].
pub fn lease_unless_over_link<'a>(
    request: &Request,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    lease(request, ipam.filter(|ipam| !ipam.needs_link()), undo)
}

/// Leases the addresses that are asked for over the container's link, which is there, and up; `None` if they are
/// not. The lease is released before the link goes.
///
/// # Errors
/// Those of address management; it has no address to give.
pub fn lease_over_link<'a>(
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<Option<CniResult>, Error> {
    let Some(ipam) = ipam.filter(|ipam| ipam.needs_link()) else { return Ok(None) };
    let leased = ipam.add()?;
    undo.push(move || ipam.undo(&leased.undo));
    checked(leased.result).map(Some)
}

fn checked(mut result: CniResult) -> Result<CniResult, Error> {
    // What interfaces address management has made is not ours to tell.
    result.interfaces.clear();
    ipam::require_addresses(&result)?;
    Ok(result)
}

/// Where address management names no gateway it is the network's first address.
pub fn complete_gateways(result: &mut CniResult) {
    for ip in &mut result.ips {
        let network = ip.address.network();
        ip.gateway.get_or_insert_with(|| from_bits(network, to_bits(network).wrapping_add(1)));
    }
}

/// The container's addresses, each once.
#[must_use]
pub fn addresses(result: &CniResult) -> Vec<Cidr> {
    let mut addresses: Vec<_> = result.ips.iter().map(|ip| ip.address).collect();
    addresses.sort_by_key(|cidr| (cidr.address, cidr.prefix));
    addresses.dedup();
    addresses
}

/// The address of the container's interface: as configured, or such that it follows from the IP address.
/// Then the neighbours' ARP entries hold when another container gets the address.
#[must_use]
pub fn container_mac(configured: Option<Mac>, attachment: &Attachment, result: &CniResult) -> Mac {
    configured.unwrap_or_else(|| match result.ips.first() {
        Some(ip) => {
            let address = ip.address.address.to_string();
            let parts: [&[u8]; 3] = [b"ip mac", attachment.network.as_bytes(), address.as_bytes()];
            Mac::local(&sha256::digest_parts(&parts))
        }
        None => attachment.container_mac(),
    })
}

/// Masquerades the container's addresses.
///
/// # Errors
/// The kernel's refusal.
pub fn add_masquerade(
    rules: &mut Socket,
    attachment: &Attachment,
    addresses: &[Cidr],
    undo: &mut Undo<'_>,
) -> Result<(), Error> {
    let (label, addresses) = (attachment.label(), addresses.to_vec());
    let added = masquerade::add(rules, &label, &addresses);
    // An answer that did not come through may have been a good one.
    undo.push(move || match nft::open_if_supported()? {
        Some(mut rules) => masquerade::remove(&mut rules, &label, &addresses).map(drop),
        None => Ok(()),
    });
    added
}

/// A link as it is told to the runtime.
#[must_use]
pub fn interface(link: &Link, mac: Mac) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: mac.to_string(),
        mtu: link.mtu,
        ..Interface::default()
    }
}

/// The container's own interface as it is told to the runtime. Of a veth pair `link` may be either end.
#[must_use]
pub fn container_interface(request: &Request, link: &Link, mac: Mac) -> Interface {
    Interface {
        name: request.env.ifname.clone(),
        sandbox: request.env.netns.clone(),
        ..interface(link, mac)
    }
}

/// The same of a link that is in the container whole, and may be of a kind without Ethernet address.
#[must_use]
pub fn own_interface(request: &Request, link: &Link) -> Interface {
    let interface = container_interface(request, link, link.mac.unwrap_or_default());
    Interface { mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(), ..interface }
}

/// Sees whether the kernel has what packet rules need, by asking it something.
///
/// # Errors
/// It has not (code 50).
pub fn probe_rules(ask: impl FnOnce(&mut Socket) -> Result<(), Error>) -> Result<(), Error> {
    let answer = nft::open().map_err(Error::from).and_then(|mut rules| ask(&mut rules));
    answer.map_err(Error::unavailable)
}

/// What ADD returned of the container's own interface: that, and the result with its addresses only.
///
/// # Errors
/// `prevResult` names no such interface.
pub fn of_container<'r>(
    prev: &'r CniResult,
    ifname: &str,
) -> Result<(&'r Interface, CniResult), Error> {
    let at = prev.interfaces.iter().position(|i| i.name == ifname && !i.sandbox.is_empty());
    let Some((at, interface)) = at.and_then(|at| Some((at, prev.interfaces.get(at)?))) else {
        let msg = format!("prevResult.interfaces: expected one named {ifname:?} with a sandbox");
        return Err(Error::new(Code::InvalidConfig, msg));
    };
    let is_its = |index: u32| usize::try_from(index) == Ok(at);
    let mut own = prev.clone();
    own.ips.retain(|ip| ip.interface.is_none_or(is_its));
    Ok((interface, own))
}

/// Makes address management's result that of the plugin: of `interfaces` the one in the container has the
/// addresses, and `dns` replaces what address management knows of name resolution.
pub fn complete(result: &mut CniResult, interfaces: Vec<Interface>, dns: &Dns) {
    let own = interfaces.iter().position(|interface| !interface.sandbox.is_empty());
    for ip in &mut result.ips {
        ip.interface = own.and_then(|index| u32::try_from(index).ok());
    }
    result.interfaces = interfaces;
    if !dns.is_empty() {
        result.dns = dns.clone();
    }
}

/// Sees whether the container's interface is as ADD has returned it and left it: it has its addresses and
/// routes, is what `check_kind` expects, has its link-layer address and is up.
///
/// # Errors
/// What is not so.
pub fn check_inside<'r>(
    request: &'r Request,
    ipam: Option<&Ipam<'_>>,
    prev: &CniResult,
    check_kind: impl FnOnce(&Link) -> Result<(), Error>,
) -> Result<(Container<'r>, Link), Error> {
    if let Some(ipam) = ipam {
        ipam.check(prev)?;
    }
    let ifname = &request.env.ifname;
    let (returned, expected) = of_container(prev, ifname)?;
    let mut container = Container::require(request.netns()?, ifname, Ipv6::DEFAULT)?;
    let link = container.check(&expected)?;
    check_kind(&link)?;
    check_mac(&link, Some(returned))?;
    if !link.up {
        return Err(fault(&link, "is down"));
    }
    Ok((container, link))
}

/// What CHECK has found of the container's interface.
#[must_use]
pub fn fault(link: &Link, what: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("container interface {:?} {what}", link.name))
}

/// Sees whether a link has the address that ADD returned, if it returned one.
///
/// # Errors
/// It has another.
pub fn check_mac(link: &Link, returned: Option<&Interface>) -> Result<(), Error> {
    let expected = returned.map(|interface| interface.mac.as_str()).unwrap_or_default();
    let found = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if expected.is_empty() || expected.eq_ignore_ascii_case(&found) {
        return Ok(());
    }
    let msg = format!("link {:?} has address {found}, not {expected}", link.name);
    Err(Error::new(Code::Internal, msg))
}
