//! bridge: connects a container to a bridge on the host by a veth pair.
//!
//! ADD, in the order in which things happen: addresses are leased; the bridge is found, or made; the
//! veth pair is made whole, its host end up and in the bridge, the other born in the container under its
//! final name; the container's end gets addresses and routes; then the host gets what the container
//! needs of it: the gateway's address on the bridge, masquerading, forwarding. The bridge's port is up
//! when ADD returns.
//!
//! DEL needs nothing but the configuration: the host's end bears a name that follows from the
//! attachment's.
//!
//! `conf` is what is configured, `device` the bridge itself, `gateway` its part as gateway.

mod conf;
mod device;
mod gateway;

use std::time::{Duration, Instant};

use super::container::{Container, Ipv6};
use super::masquerade::Masquerade;
use super::spoof_check::SpoofCheck;
use super::undo::Undo;
use super::veth;
use crate::cni::error::Errors;
use crate::cni::result::{CniResult, Interface};
use crate::cni::{Attachment, Code, Error, Plugin, Request};
use crate::ipam::{self, Ipam};
use crate::net::{Cidr, Mac};
use crate::nl::link::{Link, Target};
use crate::nl::monitor::{Changes, Monitor};
use crate::nl::{Family, Socket, link};
use crate::sha256;

use conf::Conf;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "bridge",
    about: "Connects a container to a bridge on the host by a veth pair.",
    add,
    del,
    check,
    gc,
    status,
};

/// How long the kernel may take to bring a bridge's port up.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

fn add(request: &Request) -> Result<CniResult, Error> {
    let conf = Conf::read(request)?;
    let attachment = request.attachment();
    attachment.check_length()?;
    request.netns()?;
    let ipam = Ipam::of(request)?;

    let mut undo = Undo::new();
    let result = attach(request, &conf, &attachment, ipam.as_ref(), &mut undo);
    result.map_err(|error| undo.unwind(error))
}

fn attach<'a>(
    request: &'a Request,
    conf: &'a Conf,
    attachment: &'a Attachment,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let mut host = Socket::open(Family::Route)?;
    let mut result = lease(conf, ipam, undo)?;
    let gateways = if conf.is_gateway { gateway::addresses(&mut result) } else { Vec::new() };

    let bridge = device::ensure(&mut host, request, conf, undo)?;
    let changes = gateway::Changes::plan(&mut host, &bridge, &gateways, conf)?;
    if !changes.missing.is_empty() {
        device::keep_mac(&mut host, &bridge)?;
    }
    let mac = container_mac(conf, attachment, &result);
    let pair = veth::Pair {
        attachment,
        netns: request.netns()?,
        container_mac: mac,
        mtu: conf.mtu,
        bridge: bridge.index,
        port: conf.port,
    };
    pair.make(&mut host, undo)?;

    let ipv6 = conf.ipv6(&result);
    let container = Container::enter(request.netns()?, &attachment.ifname, ipv6)?;
    let mut container = container.ok_or_else(|| vanished(&attachment.ifname))?;
    if !conf.leave_down {
        container.configure(&result, ipv6.dad)?;
    }

    changes.carry_out(&mut host, &bridge, &gateways, attachment, undo)?;
    let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address).collect();
    if conf.ip_masq && !addresses.is_empty() {
        let label = attachment.label();
        let added = Masquerade::open()?.add(&label, &addresses);
        undo.push(move || match Masquerade::open_if_supported()? {
            Some(mut rules) => rules.remove(&label, &addresses),
            None => Ok(()),
        });
        added?;
    }
    if conf.mac_spoof_check {
        let name = attachment.host_link();
        let added = SpoofCheck::open()?.add(&attachment.label(), &name, mac);
        undo.push(move || remove_spoof_check(&name));
        added?;
    }
    gateway::enable_forwarding(&gateways)?;
    let port = port_up(&mut host, conf, attachment, &bridge)?;
    container.await_addresses(&result)?;
    // A bridge whose MTU nobody has set takes on its ports' smallest.
    let bridge = if port.mtu == bridge.mtu {
        bridge
    } else {
        link::get(&mut host, Target::Index(bridge.index))?.unwrap_or(bridge)
    };

    result.interfaces = vec![
        interface(&bridge, port.bridge_mac.or(bridge.mac).unwrap_or_default()),
        interface(&port, attachment.host_mac()),
        Interface {
            name: attachment.ifname.clone(),
            sandbox: request.env.netns.clone(),
            ..interface(&port, mac)
        },
    ];
    for ip in &mut result.ips {
        ip.interface = Some(2);
    }
    if !conf.dns.is_empty() {
        result.dns = conf.dns.clone();
    }
    Ok(result)
}

fn interface(link: &Link, mac: Mac) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: mac.to_string(),
        mtu: link.mtu,
        ..Interface::default()
    }
}

fn vanished(ifname: &str) -> Error {
    Error::new(Code::Internal, format!("container interface {ifname:?} has vanished"))
}

/// Leases the container's addresses; none in a network without address management.
fn lease<'a>(
    conf: &Conf,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let Some(ipam) = ipam else { return Ok(CniResult::default()) };
    let leased = ipam.add()?;
    undo.push_last(move || ipam.undo(&leased.undo));
    let mut result = leased.result;
    // What interfaces address management has made is not ours to tell.
    result.interfaces.clear();
    ipam::require_addresses(&result)?;
    if conf.is_default_gateway {
        gateway::complete(&mut result);
        gateway::add_default_routes(&mut result);
    }
    Ok(result)
}

/// The container's address: as configured, or such that it follows from the IP address. Then the
/// neighbours' ARP entries hold when another container gets the address.
fn container_mac(conf: &Conf, attachment: &Attachment, result: &CniResult) -> Mac {
    conf.mac.unwrap_or_else(|| match result.ips.first() {
        Some(ip) => {
            let address = ip.address.address.to_string();
            let parts: [&[u8]; 3] = [b"ip mac", attachment.network.as_bytes(), address.as_bytes()];
            Mac::local(&sha256::digest_parts(&parts))
        }
        None => attachment.container_mac(),
    })
}

/// Waits until the bridge forwards what the container sends, and returns its port.
fn port_up(
    host: &mut Socket,
    conf: &Conf,
    attachment: &Attachment,
    bridge: &Link,
) -> Result<Link, Error> {
    let name = attachment.host_link();
    let port = read_port(host, &name, bridge)?;
    if port.operational || conf.leave_down {
        return Ok(port);
    }
    // A kernel before 6.8, which does not bring the change to an end when it is asked.
    let monitor = Monitor::open(Changes::Links)?;
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        let port = read_port(host, &name, bridge)?;
        if port.operational {
            return Ok(port);
        }
        if !monitor.wait(port.index, deadline)? {
            let msg = format!(
                "bridge port in error state: {name:?} is not up after {} s",
                PORT_PATIENCE.as_secs()
            );
            return Err(Error::new(Code::Internal, msg));
        }
    }
}

fn read_port(host: &mut Socket, name: &str, bridge: &Link) -> Result<Link, Error> {
    let port = link::get(host, Target::Name(name))?;
    port.filter(|port| port.master == Some(bridge.index)).ok_or_else(|| {
        let msg = format!("link {name:?} is no longer a port of bridge {:?}", bridge.name);
        Error::new(Code::Internal, msg)
    })
}

fn del(request: &Request) -> Result<(), Error> {
    let root = request.conf.root();
    let attachment = request.attachment();
    let (name, label) = (attachment.host_link(), attachment.label());
    let mut errors = Errors::default();
    let ipam = errors.note(Ipam::of(request)).flatten();
    // What can't be read counts as set: to look is cheap, to leave something behind is not.
    let is_set = |key| root.flag(key).unwrap_or(true);

    // Which addresses are masqueraded shows in the leases, which go last.
    let masquerade = is_set("ipMasq");
    let held = match &ipam {
        Some(ipam) if masquerade => errors.note(ipam.held()).flatten(),
        _ => None,
    };
    let leases_tell = held.is_some();
    let known = known_addresses(request, held);

    // The kernel frees elements after an RCU grace period, and closing the socket waits for that. To
    // delete a link takes longer, so with the socket open until then nobody waits twice.
    let mut rules = None;
    if masquerade && !known.is_empty() {
        rules = errors.note(remove_masquerade(&label, &known)).flatten();
    }
    let there_was_a_pair = errors.note(veth::delete(request)).unwrap_or(false);
    drop(rules);
    if masquerade && known.is_empty() && (there_was_a_pair || !leases_tell) {
        // Somebody has taken the leases away; or address management is foreign, and the runtime does
        // not tell what ADD has returned.
        errors.note(remove_masquerade_by_label(&label));
    }
    // What could not be removed still has the address, and is found by its lease next time.
    if let Some(ipam) = ipam
        && errors.is_empty()
    {
        errors.note(ipam.del());
    }
    if is_set("macspoofchk") {
        errors.note(remove_spoof_check(&name));
    }
    errors.into_result()
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

/// Ends the masquerading of these addresses. Returns the open conversation, if there was one.
fn remove_masquerade(label: &str, addresses: &[Cidr]) -> Result<Option<Masquerade>, Error> {
    let Some(mut rules) = Masquerade::open_if_supported()? else { return Ok(None) };
    rules.remove(label, addresses)?;
    Ok(Some(rules))
}

fn remove_masquerade_by_label(label: &str) -> Result<(), Error> {
    match Masquerade::open_if_supported()? {
        Some(mut rules) => rules.remove_by_label(label),
        None => Ok(()),
    }
}

fn remove_spoof_check(host_link: &str) -> Result<(), Error> {
    match SpoofCheck::open_if_supported()? {
        Some(mut check) => check.remove(host_link),
        None => Ok(()),
    }
}

fn check(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    request.netns()?;
    let prev = request.conf.required_prev_result()?;
    let attachment = request.attachment();
    let fault = |what: String| Error::new(Code::Internal, what);
    if let Some(ipam) = Ipam::of(request)? {
        ipam.check(&prev)?;
    }

    let at =
        prev.interfaces.iter().position(|i| i.name == attachment.ifname && !i.sandbox.is_empty());
    let in_container = at.and_then(|at| prev.interfaces.get(at)).ok_or_else(|| {
        let msg = format!(
            "prevResult.interfaces: expected one named {:?} with a sandbox",
            attachment.ifname
        );
        Error::new(Code::InvalidConfig, msg)
    })?;
    let on_host = prev.interfaces.iter().find(|i| i.sandbox.is_empty() && i.name != conf.bridge);
    let name = on_host.map_or_else(|| attachment.host_link(), |link| link.name.clone());

    let mut host = Socket::open(Family::Route)?;
    let bridge = link::get(&mut host, Target::Name(&conf.bridge))?
        .filter(Link::is_bridge)
        .ok_or_else(|| fault(format!("bridge {:?} is missing", conf.bridge)))?;
    if !bridge.up {
        return Err(fault(format!("bridge {:?} is down", conf.bridge)));
    }
    if bridge.promiscuous != conf.promiscuous {
        let (is, ought) = (bridge.promiscuous, conf.promiscuous);
        return Err(fault(format!("bridge {:?}: promiscuous is {is}, not {ought}", conf.bridge)));
    }
    check_mac(&bridge, prev.interfaces.iter().find(|i| i.name == conf.bridge))?;
    let port = read_port(&mut host, &name, &bridge)?;
    if !port.is_veth() {
        return Err(fault(format!("host interface {name:?} is not a veth")));
    }
    if port.port != conf.port {
        return Err(fault(format!(
            "bridge port {name:?} has {:?}, not {:?}",
            port.port, conf.port
        )));
    }

    let container = Container::enter(request.netns()?, &attachment.ifname, Ipv6::DEFAULT)?;
    let mut container = container.ok_or_else(|| vanished(&attachment.ifname))?;
    let of_container = |interface: Option<u32>| {
        interface.is_none() || interface.and_then(|i| usize::try_from(i).ok()) == at
    };
    let mut expected = prev.clone();
    expected.ips.retain(|ip| of_container(ip.interface));
    let link = container.check(&expected)?;
    check_mac(&link, Some(in_container))?;
    if !link.is_veth() || link.peer != Some(port.index) || port.peer != Some(link.index) {
        let ifname = &attachment.ifname;
        return Err(fault(format!("{ifname:?} and {name:?} are not the two ends of a veth pair")));
    }
    if link.up == conf.leave_down {
        let state = if link.up { "up" } else { "down" };
        return Err(fault(format!("container interface {:?} is {state}", attachment.ifname)));
    }
    if !port.operational && !conf.leave_down {
        return Err(fault(format!("bridge port {name:?} is not up")));
    }

    let addresses: Vec<_> = expected.ips.iter().map(|ip| ip.address).collect();
    if conf.is_gateway {
        gateway::check(&mut host, &bridge, &gateway::addresses(&mut expected))?;
    }
    if conf.ip_masq && !addresses.is_empty() {
        Masquerade::open()?.check(&attachment.label(), &addresses)?;
    }
    if conf.mac_spoof_check {
        SpoofCheck::open()?.check(&name, link.mac.unwrap_or_default())?;
    }
    Ok(())
}

fn check_mac(link: &Link, expected: Option<&Interface>) -> Result<(), Error> {
    let expected = expected.map(|interface| interface.mac.as_str()).unwrap_or_default();
    let found = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if expected.is_empty() || expected.eq_ignore_ascii_case(&found) {
        return Ok(());
    }
    let msg = format!("link {:?} has address {found}, not {expected}", link.name);
    Err(Error::new(Code::Internal, msg))
}

/// Removes what belongs to this network and to none of the valid attachments: links by their alias,
/// elements by their comment, then leases.
fn gc(request: &Request) -> Result<(), Error> {
    let valid = request.conf.valid_attachments()?;
    let valid: std::collections::HashSet<_> =
        valid.iter().map(|a| (a.container.as_str(), a.ifname.as_str())).collect();
    let unwanted = |label: &str| {
        Attachment::from_label(label).is_some_and(|attachment| {
            attachment.network == request.conf.name
                && !valid.contains(&(attachment.container.as_str(), attachment.ifname.as_str()))
        })
    };
    let mut errors = Errors::default();
    errors.note(remove_links(unwanted));
    // Whatever the configuration says now: elements may be of a time when their keys were set.
    if let Some(mut rules) = errors.note(Masquerade::open_if_supported()).flatten() {
        errors.note(rules.sweep(unwanted));
    }
    if let Some(mut check) = errors.note(SpoofCheck::open_if_supported()).flatten() {
        errors.note(check.sweep(unwanted));
    }
    // As with DEL, a lease stays with what could not be removed.
    if errors.is_empty()
        && let Some(ipam) = errors.note(Ipam::of(request)).flatten()
    {
        errors.note(ipam.gc());
    }
    errors.into_result()
}

fn remove_links(unwanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    let mut host = Socket::open(Family::Route)?;
    let mut errors = Errors::default();
    for link in link::list(&mut host)? {
        if link.alias.as_deref().is_some_and(&unwanted) {
            errors.note(veth::delete_link(&mut host, &link.name));
        }
    }
    errors.into_result()
}

/// Sees whether an ADD would find what it needs.
fn status(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    let unavailable = |error: Error| Error { code: Code::Unavailable as u32, ..error };
    let mut host = Socket::open(Family::Route).map_err(|error| unavailable(error.into()))?;
    if let Some(link) = link::get(&mut host, Target::Name(&conf.bridge))?
        && !link.is_bridge()
    {
        let msg = format!("link {:?} exists and is not a bridge", conf.bridge);
        return Err(Error::new(Code::Unavailable, msg));
    }
    if conf.ip_masq {
        Masquerade::open().and_then(|mut rules| rules.probe()).map_err(unavailable)?;
    }
    if conf.mac_spoof_check {
        SpoofCheck::open().and_then(|mut check| check.probe()).map_err(unavailable)?;
    }
    match Ipam::of(request)? {
        Some(ipam) => ipam.status(),
        None => Ok(()),
    }
}
