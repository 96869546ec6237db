//! bridge: connects a container to a bridge on the host by a veth pair.
//!
//! ADD, in the order in which things happen: addresses are leased; the bridge is found, or made; the
//! veth pair is made, one end born in the container under its final name; the container's end is brought
//! up with addresses and routes; the host's end becomes a port of the bridge; then the host gets what else
//! the container needs of it: the gateway's address on the bridge, masquerading, forwarding. The port
//! forwards when ADD returns. Addresses that are asked for over the link itself are leased when the port forwards.
//!
//! DEL needs nothing but the configuration: the host's end bears a name that follows from the
//! attachment's.
//!
//! With `vlan` or `vlanTrunk` the bridge keeps VLANs apart. The port is in its own before the host's end comes
//! up, and the gateway's addresses are on an interface beside the bridge.
//!
//! `conf` is what is configured, `device` the bridge itself, `gateway` its part as gateway; `vlan` which VLANs
//! the port is in, `vlan_gateway` the gateway of one.

pub mod conf;
mod device;
mod gateway;
mod vlan;
pub mod vlan_gateway;

use super::container::{Container, Dad, Ipv6};
use super::undo::Undo;
use super::{attach, detach, forwarding, masquerade, spoof_check, veth};
use crate::cni::error::Errors;
use crate::cni::result::CniResult;
use crate::cni::{Attachment, Code, Error, Plugin, Request};
use crate::ipam::{self, Ipam};
use crate::net::{Cidr, Mac};
use crate::nl::link::{Link, Target};
use crate::nl::{Family, Socket, link, nft};

use conf::Conf;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "bridge",
    about: "Connects a container to a bridge on the host by a veth pair.",
    add,
    del,
    check,
    gc: detach::collect_garbage,
    status,
};

fn add(request: &Request) -> Result<CniResult, Error> {
    let conf = Conf::read(request)?;
    let (attachment, ipam) = attach::begin(request)?;
    attach::carry_out(request, |undo| attach(request, &conf, &attachment, ipam.as_ref(), undo))
}

fn attach<'a>(
    request: &'a Request,
    conf: &'a Conf,
    attachment: &'a Attachment,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let mut host = Socket::open(Family::Route)?;
    let leased = attach::lease_unless_over_link(request, ipam, undo)?;
    let mut result = with_gateways(conf, leased)?;

    let mut bridge = device::ensure(&mut host, conf, undo, || {
        // A bridge is not made for an attachment that can't come about.
        veth::refuse_if_interface_exists(request.netns()?, &attachment.ifname)
    })?;
    let mac = attach::container_mac(conf.mac, attachment, &result);
    let pair = veth::Pair {
        attachment,
        netns: request.netns()?,
        container_mac: mac,
        mtu: conf.mtu,
        port: Some(conf.port),
        // A process in the container may bring up the other end as soon as it is there, and a new port is in
        // the bridge's default VLAN at first.
        up: conf.vlans.is_none(),
    };
    pair.make(&mut host, undo)?;

    let ipv6 = conf.ipv6(&result);
    let mut container = Container::require(request.netns()?, &attachment.ifname, ipv6)?;
    // What the container asks of its neighbours of its own accord, for a router or whether an address is
    // in use, is to reach them; and nothing is to get through a port that is not yet in its VLANs. Else the
    // container's end comes up first, which spares the kernel work.
    let comes_last = result.ips.is_empty() || ipv6.dad == Dad::On || conf.vlans.is_some();
    if !comes_last && !conf.leave_down {
        container.configure(&result, ipv6.dad)?;
    }
    let mut port = connect(&pair, &mut host, conf, &mut bridge, undo)?;
    if !conf.leave_down {
        let name = port.name.clone();
        if comes_last {
            container.configure(&result, ipv6.dad)?;
            port = read_port(&mut host, &name, &bridge)?;
        }
        port = veth::await_carrier(port, || read_port(&mut host, &name, &bridge))?;
    }
    if let Some(leased) = attach::lease_over_link(ipam, undo)? {
        result = with_gateways(conf, leased)?;
        let ipv6 = conf.ipv6(&result);
        container = Container::require(request.netns()?, &attachment.ifname, ipv6)?;
        container.configure(&result, ipv6.dad)?;
        container.announce()?;
    }

    let gateways = if conf.is_gateway { gateway::addresses(&result) } else { Vec::new() };
    // Only now, with a port in the bridge: who takes an address back looks for ports before and after.
    let beside = become_gateway(&mut host, conf, &bridge, &port, attachment, &gateways, undo)?;
    add_rules(conf, attachment, &result, mac, undo)?;
    forwarding::enable(&gateways)?;
    container.await_addresses(&result)?;
    // A bridge whose MTU nobody has set takes on its ports' smallest.
    let bridge = if port.mtu == bridge.mtu {
        bridge
    } else {
        link::get(&mut host, Target::Index(bridge.index))?.unwrap_or(bridge)
    };

    let mut interfaces = vec![
        attach::interface(&bridge, port.bridge_mac.or(bridge.mac).unwrap_or_default()),
        attach::interface(&port, attachment.host_mac()),
        attach::container_interface(request, &port, mac),
    ];
    interfaces.extend(beside.map(|link| attach::interface(&link, link.mac.unwrap_or_default())));
    attach::complete(&mut result, interfaces, &conf.dns);
    Ok(result)
}

/// What is leased, with the gateways that the configuration has the container use.
fn with_gateways(conf: &Conf, mut result: CniResult) -> Result<CniResult, Error> {
    super::conf::check_mtu_for(conf.mtu, &result)?;
    if conf.is_gateway {
        attach::complete_gateways(&mut result);
    }
    if conf.is_default_gateway {
        gateway::add_default_routes(&mut result);
    }
    Ok(result)
}

/// Gives the gateways' addresses to the bridge, or to the interface beside it, which is returned; to a new one
/// if that has vanished meanwhile, as [`connect`] does with the bridge.
fn become_gateway<'a>(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    port: &Link,
    attachment: &'a Attachment,
    gateways: &[Cidr],
    undo: &mut Undo<'a>,
) -> Result<Option<Link>, Error> {
    for _ in 0..device::ATTEMPTS {
        let beside = vlan_gateway::ensure(host, conf, bridge, port, attachment, gateways, undo)?;
        let given = give_addresses(host, conf, bridge, beside.as_ref(), attachment, gateways, undo);
        match (given, &beside) {
            (Ok(()), _) => return Ok(beside),
            (Err(_), Some(lost)) if link::get(host, Target::Index(lost.index))?.is_none() => {}
            (Err(error), _) => return Err(error),
        }
    }
    Err(vlan_gateway::keeps_vanishing(&conf.gateway_link().unwrap_or_default()))
}

fn give_addresses<'a>(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    beside: Option<&Link>,
    attachment: &'a Attachment,
    gateways: &[Cidr],
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let holder = beside.unwrap_or(bridge);
    let plan = gateway::Plan::make(host, holder, gateways, conf)?;
    if plan.makes_a_gateway() && beside.is_none() {
        device::keep_mac(host, bridge)?;
    }
    plan.carry_out(host, bridge, holder, attachment, undo)
}

/// Adds the container to the packet rules that are configured, over one socket.
fn add_rules(
    conf: &Conf,
    attachment: &Attachment,
    result: &CniResult,
    mac: Mac,
    undo: &mut Undo<'_>,
) -> Result<(), Error> {
    let addresses = attach::addresses(result);
    let is_masqueraded = conf.ip_masq && !addresses.is_empty();
    if !is_masqueraded && !conf.mac_spoof_check {
        return Ok(());
    }
    let mut rules = nft::open()?;
    if is_masqueraded {
        attach::add_masquerade(&mut rules, attachment, &addresses, undo)?;
    }
    if conf.mac_spoof_check {
        let name = attachment.host_link();
        let added = spoof_check::add(&mut rules, &attachment.label(), &name, mac);
        undo.push(move || remove_spoof_check(&name));
        added?;
    }
    Ok(())
}

/// Makes the host's end a port of the bridge; of a new one if that has vanished meanwhile: a first ADD that
/// fails takes back the bridge that it had made.
fn connect<'a>(
    pair: &veth::Pair<'a>,
    host: &mut Socket,
    conf: &'a Conf,
    bridge: &mut Link,
    undo: &mut Undo<'a>,
) -> Result<Link, Error> {
    for _ in 0..device::ATTEMPTS {
        let connected = match &conf.vlans {
            None => pair.connect(host, bridge.index),
            Some(vlans) => {
                let name = pair.attachment.host_link();
                let port = link::index_of(host, &name)?.ok_or_else(|| vanished(&name))?;
                let joined = vlans.with_requests(port, bridge, |requests| {
                    pair.connect_down(host, bridge.index, requests)
                });
                match joined {
                    Ok(joined) => {
                        vlan::check_filtering(conf, &joined)?;
                        pair.bring_up(host)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let error = match connected {
            Ok(port) => return Ok(port),
            Err(error) => error,
        };
        if link::get(host, Target::Index(bridge.index))?.is_some() {
            let refused = vlan::refused(conf.vlans.as_ref(), error);
            return Err(refused.of(format_args!("bridge {:?}", conf.bridge)));
        }
        *bridge = device::ensure(host, conf, undo, || Ok(()))?;
    }
    Err(device::keeps_vanishing(&conf.bridge))
}

fn vanished(link: &str) -> Error {
    fault(format!("link {link:?} has vanished"))
}

fn read_port(host: &mut Socket, name: &str, bridge: &Link) -> Result<Link, Error> {
    let port = link::get(host, Target::Name(name))?;
    port.filter(|port| port.master == Some(bridge.index)).ok_or_else(|| {
        let msg = format!("link {name:?} is no longer a port of bridge {:?}", bridge.name);
        Error::new(Code::Internal, msg)
    })
}

fn del(request: &Request) -> Result<(), Error> {
    let mut errors = Errors::default();
    errors.note(detach::detach(request, || veth::delete(request)));
    // What can't be read counts as set: to look is cheap, to leave something behind is not.
    if request.conf.root().flag("macspoofchk").unwrap_or(true) {
        errors.note(remove_spoof_check(&request.attachment().host_link()));
    }
    errors.into_result()
}

fn remove_spoof_check(host_link: &str) -> Result<(), Error> {
    match nft::open_if_supported()? {
        Some(mut rules) => spoof_check::remove(&mut rules, host_link),
        None => Ok(()),
    }
}

fn check(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    request.netns()?;
    let prev = request.conf.required_prev_result()?;
    let attachment = request.attachment();
    if let Some(ipam) = Ipam::of(request)? {
        ipam.check(&prev)?;
    }
    let (returned, mut expected) = attach::of_container(&prev, &attachment.ifname)?;

    let mut host = Socket::open(Family::Route)?;
    let bridge = check_bridge(&mut host, &conf, &prev)?;
    let port = check_port(&mut host, &conf, &attachment, &prev, &bridge)?;
    let mut container = Container::require(request.netns()?, &attachment.ifname, Ipv6::DEFAULT)?;
    let link = container.check(&expected)?;
    attach::check_mac(&link, Some(returned))?;
    check_pair(&conf, &link, &port)?;

    if conf.is_gateway {
        attach::complete_gateways(&mut expected);
        let gateways = gateway::addresses(&expected);
        if !gateways.is_empty() {
            let beside = vlan_gateway::check(&mut host, &conf, &bridge, &prev)?;
            gateway::check(&mut host, beside.as_ref().unwrap_or(&bridge), &gateways)?;
        }
        forwarding::check(&gateways)?;
    }
    let addresses = attach::addresses(&expected);
    if conf.ip_masq && !addresses.is_empty() {
        masquerade::check(&mut nft::open()?, &attachment.label(), &addresses)?;
    }
    if conf.mac_spoof_check {
        spoof_check::check(&mut nft::open()?, &port.name, link.mac.unwrap_or_default())?;
    }
    Ok(())
}

fn fault(what: impl Into<String>) -> Error {
    Error::new(Code::Internal, what)
}

fn check_bridge(host: &mut Socket, conf: &Conf, prev: &CniResult) -> Result<Link, Error> {
    let name = &conf.bridge;
    let bridge = link::get(host, Target::Name(name))?
        .filter(Link::is_bridge)
        .ok_or_else(|| fault(format!("bridge {name:?} is missing")))?;
    if !bridge.up {
        return Err(fault(format!("bridge {name:?} is down")));
    }
    if bridge.promiscuous != conf.promiscuous {
        let state = if bridge.promiscuous { "is" } else { "is not" };
        return Err(fault(format!("bridge {name:?} {state} promiscuous")));
    }
    vlan::check_filtering(conf, &bridge)?;
    attach::check_mac(&bridge, prev.interfaces.iter().find(|i| i.name == *name))?;
    Ok(bridge)
}

fn check_port(
    host: &mut Socket,
    conf: &Conf,
    attachment: &Attachment,
    prev: &CniResult,
    bridge: &Link,
) -> Result<Link, Error> {
    // The reference's plugin draws another name.
    let on_host = prev.interfaces.iter().find(|i| i.sandbox.is_empty() && i.name != conf.bridge);
    let name = on_host.map_or_else(|| attachment.host_link(), |link| link.name.clone());
    let port = read_port(host, &name, bridge)?;
    veth::check_host_end(&port, conf.mtu)?;
    if port.port != conf.port {
        let (found, expected) = (port.port, conf.port);
        return Err(fault(format!("bridge port {name:?} has {found}, not {expected}")));
    }
    if let Some(vlans) = &conf.vlans {
        vlans.check(&port)?;
    }
    Ok(port)
}

/// Sees whether `link` in the container and `port` on the host are one pair, in the state that ADD leaves.
fn check_pair(conf: &Conf, link: &Link, port: &Link) -> Result<(), Error> {
    let (inside, outside) = (&link.name, &port.name);
    veth::check_ends(link, port)?;
    if link.up == conf.leave_down {
        let state = if link.up { "up" } else { "down" };
        return Err(fault(format!("container interface {inside:?} is {state}")));
    }
    if !port.operational && !conf.leave_down {
        return Err(fault(format!("bridge port {outside:?} is not up")));
    }
    Ok(())
}

/// Sees whether an ADD would find what it needs.
fn status(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    let mut host = Socket::open(Family::Route).map_err(|error| Error::from(error).unavailable())?;
    link::probe(&mut host, &["bridge", "veth"]).map_err(|e| Error::from(e).unavailable())?;
    let bridge = link::get(&mut host, Target::Name(&conf.bridge))?;
    if bridge.as_ref().is_some_and(|link| !link.is_bridge()) {
        let msg = format!("link {:?} exists and is not a bridge", conf.bridge);
        return Err(Error::new(Code::Unavailable, msg));
    }
    vlan::status(&mut host, &conf, bridge.as_ref())?;
    if request.conf.ipam_type()?.is_some() {
        vlan_gateway::status(&mut host, &conf, bridge.as_ref())?;
    }
    if conf.ip_masq {
        attach::probe_rules(masquerade::probe)?;
    }
    if conf.mac_spoof_check {
        attach::probe_rules(spoof_check::probe)?;
    }
    ipam::status(request)
}
