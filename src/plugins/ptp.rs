//! ptp: connects a container to the host by a veth pair of its own, without a bridge; the host routes.
//!
//! ADD, in the order in which things happen: addresses are leased; the veth pair is made, one end born in
//! the container under its final name; the host's end gets the gateways' addresses, each alone in its
//! network, is brought up, and gets a route to each of the container's; the container's end is brought up
//! with addresses and routes; the packet rules are told of it; the host forwards. To the container its own
//! networks, too, lie behind the gateways:
//!
//! ```text
//! container   10.1.0.1 dev eth0 scope link src 10.1.0.2          fd01::1 dev eth0 src fd01::2
//!             10.1.0.0/16 via 10.1.0.1 dev eth0 src 10.1.0.2     fd01::/64 via fd01::1 dev eth0 src fd01::2
//! host        10.1.0.2 dev veth… scope host                      fd01::2 dev veth…
//! ```
//!
//! DEL needs nothing but the configuration, as with every veth pair: all of this goes with the pair.

use std::net::Ipv6Addr;

use super::container::{Container, Ipv6, has_ipv6};
use super::undo::Undo;
use super::{attach, conf, detach, forwarding, masquerade, veth};
use crate::cni::result::{CniResult, Dns, Ip};
use crate::cni::{Attachment, Code, Error, Plugin, Request};
use crate::ipam::{self, Ipam};
use crate::net::{Cidr, Mac};
use crate::nl::link::{self, Change, Link, Target};
use crate::nl::request::Request as NlRequest;
use crate::nl::route::Route;
use crate::nl::{Family, Socket, addr, nft, route};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "ptp",
    about: "Connects a container to the host by a veth pair, and routes.",
    add,
    del,
    check,
    gc: detach::collect_garbage,
    status,
};

/// What it is configured with, beside address management.
#[derive(Debug)]
pub struct Conf {
    /// `ipMasq`
    pub ip_masq: bool,
    /// `mtu` of the veth pair; none for the kernel's default
    pub mtu: Option<u32>,
    /// `dns`
    pub dns: Dns,
}

impl Conf {
    /// Reads all that ADD and CHECK need.
    ///
    /// # Errors
    /// A key has the wrong type or value, or there is no address management.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let root = request.conf.root();
        conf::check_masquerade_backend(&root)?;
        if request.conf.ipam_type()?.is_none() {
            return Err(Error::invalid("ipam.type", "nothing", "a plugin for address management"));
        }
        Ok(Self { ip_masq: root.flag("ipMasq")?, mtu: conf::mtu(&root)?, dns: request.conf.dns()? })
    }
}

fn add(request: &Request) -> Result<CniResult, Error> {
    let conf = Conf::read(request)?;
    let (attachment, ipam) = attach::begin(request)?;
    attach::carry_out(request, |undo| attach(request, &conf, &attachment, ipam.as_ref(), undo))
}

fn attach<'a>(
    request: &'a Request,
    conf: &Conf,
    attachment: &'a Attachment,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let mut host = Socket::open(Family::Route)?;
    let mut result = attach::lease(request, ipam, undo)?;
    conf::check_mtu_for(conf.mtu, &result)?;
    complete_gateways(&mut result)?;
    let addresses = attach::addresses(&result);

    let mac = attach::container_mac(None, attachment, &result);
    let pair = veth::Pair {
        attachment,
        netns: request.netns()?,
        container_mac: mac,
        mtu: conf.mtu,
        port: None,
        up: false,
    };
    let host_end = pair.make_and_read(&mut host, undo)?;
    if has_ipv6(&result) {
        forwarding::refuse_router_advertisements(&host_end);
    } else {
        veth::disable_ipv6(&host_end.name);
    }
    connect(&mut host, &host_end, attachment, &result)?;
    let ipv6 = Ipv6::of(&result);
    Container::require(request.netns()?, &attachment.ifname, ipv6)?
        .with_own_routes(|link| routes_of_container(link, &result))
        .configure(&result, ipv6.dad)?;
    if conf.ip_masq {
        attach::add_masquerade(&mut nft::open()?, attachment, &addresses, undo)?;
    }
    forwarding::enable(&addresses)?;
    let mut read = || {
        let vanished = || Error::new(Code::Internal, format!("{:?} has vanished", host_end.name));
        link::get(&mut host, Target::Index(host_end.index))?.ok_or_else(vanished)
    };
    let host_end = veth::await_carrier(read()?, read)?;

    let interfaces = vec![
        attach::interface(&host_end, attachment.host_mac()),
        attach::container_interface(request, &host_end, mac),
    ];
    attach::complete(&mut result, interfaces, &conf.dns);
    Ok(result)
}

/// Sees to it that each address has a gateway, which is what the host's end is to the container.
fn complete_gateways(result: &mut CniResult) -> Result<(), Error> {
    let is_alone = |ip: &&Ip| ip.gateway.is_none() && ip.address == Cidr::host(ip.address.address);
    if let Some(ip) = result.ips.iter().find(is_alone) {
        return Err(unsuitable(ip.address, "address management names none"));
    }
    attach::complete_gateways(result);
    for ip in &result.ips {
        let Some(gateway) = ip.gateway else { continue };
        if result.ips.iter().any(|ip| ip.address.address == gateway) {
            return Err(unsuitable(ip.address, &format!("{gateway} is the container's own")));
        }
        if gateway.is_ipv4() != ip.address.address.is_ipv4() {
            let fault = format!("{gateway} is of the other address family");
            return Err(unsuitable(ip.address, &fault));
        }
    }
    Ok(())
}

fn unsuitable(address: Cidr, fault: &str) -> Error {
    let msg = format!("address {address} needs a gateway for the host to have, and {fault}");
    Error::new(Code::InvalidConfig, msg)
}

/// The gateways' addresses as the host's end has them: each is a network of its own, so that many links
/// can have the same one.
fn gateways(result: &CniResult) -> Vec<Cidr> {
    let mut gateways: Vec<_> =
        result.ips.iter().filter_map(|ip| ip.gateway).map(Cidr::host).collect();
    gateways.sort_by_key(|cidr| cidr.address);
    gateways.dedup();
    gateways
}

/// Makes the host's end the container's gateways, and brings it up.
fn connect(
    host: &mut Socket,
    link: &Link,
    attachment: &Attachment,
    result: &CniResult,
) -> Result<(), Error> {
    let mut addresses = gateways(result);
    if has_ipv6(result) {
        addresses.push(link_local(attachment.host_mac()));
    }
    let address =
        |cidr| addr::Add { link: link.index, cidr, without_dad: true, without_prefix_route: false };
    let addresses: Vec<_> = addresses.into_iter().map(address).collect();
    let routes: Vec<_> =
        routes_to_container(link.index, result).into_iter().map(route::Add).collect();
    let change = Change { up: true, ..Change::default() };
    let up = link::Set { target: Target::Index(link.index), change };

    // The kernel gives a link that comes up a link-local address of its own, unless it has the same one.
    let mut requests: Vec<&dyn NlRequest> = Vec::new();
    requests.extend(addresses.iter().map(|request| request as &dyn NlRequest));
    requests.push(&up);
    requests.extend(routes.iter().map(|request| request as &dyn NlRequest));
    let configured = host.execute(&requests);
    let object = format_args!("host interface {:?}", link.name);
    configured.map_err(|error| Error::from(error).of(object))
}

/// The link-local address that the kernel would give a link, too, but only use after a second of duplicate
/// address detection (RFC 4291, appendix A). From it the host asks for the container's link-layer address
/// to forward to it.
fn link_local(mac: Mac) -> Cidr {
    let [a, b, c, d, e, f] = mac.0;
    let address =
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]);
    Cidr { address: address.into(), prefix: 64 }
}

fn routes_to_container(link: u32, result: &CniResult) -> Vec<Route> {
    let route = |cidr: Cidr| Route {
        scope: Some(libc::RT_SCOPE_HOST),
        ..Route::through(link, Cidr::host(cidr.address))
    };
    attach::addresses(result).into_iter().map(route).collect()
}

/// The gateways are on the link, and nothing else: what is in the container's networks is routed there, too.
fn routes_of_container(link: u32, result: &CniResult) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut add = |new: Route| {
        let known =
            |route: &Route| (route.destination, route.gateway) == (new.destination, new.gateway);
        if !routes.iter().any(known) {
            routes.push(new);
        }
    };
    let ips = || result.ips.iter().filter_map(|ip| Some((ip.address, ip.gateway?)));
    for (address, gateway) in ips() {
        add(Route { source: Some(address.address), ..Route::through(link, Cidr::host(gateway)) });
    }
    for (address, gateway) in ips() {
        let network = Cidr { address: address.network(), ..address };
        if network != Cidr::host(address.address) {
            add(Route {
                gateway: Some(gateway),
                source: Some(address.address),
                ..Route::through(link, network)
            });
        }
    }
    routes
}

fn del(request: &Request) -> Result<(), Error> {
    detach::detach(request, || veth::delete(request))
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
    complete_gateways(&mut expected)?;

    let mut container = Container::require(request.netns()?, &attachment.ifname, Ipv6::DEFAULT)?
        .with_own_routes(|link| routes_of_container(link, &expected));
    let link = container.check(&expected)?;
    attach::check_mac(&link, Some(returned))?;

    let mut host = Socket::open(Family::Route)?;
    let host_end = check_host_end(&mut host, &conf, &attachment, &prev, &expected)?;
    veth::check_ends(&link, &host_end)?;
    let addresses = attach::addresses(&expected);
    forwarding::check(&addresses)?;
    if conf.ip_masq {
        masquerade::check(&mut nft::open()?, &attachment.label(), &addresses)?;
    }
    Ok(())
}

fn check_host_end(
    host: &mut Socket,
    conf: &Conf,
    attachment: &Attachment,
    prev: &CniResult,
    expected: &CniResult,
) -> Result<Link, Error> {
    // The reference's plugin draws another name.
    let returned = prev.interfaces.iter().find(|interface| interface.sandbox.is_empty());
    let name = returned.map_or_else(|| attachment.host_link(), |link| link.name.clone());
    let fault =
        |what: String| Error::new(Code::Internal, format!("host interface {name:?}: {what}"));
    let link =
        link::get(host, Target::Name(&name))?.ok_or_else(|| fault("it is missing".into()))?;
    if !link.up {
        return Err(fault("it is down".into()));
    }
    veth::check_host_end(&link, conf.mtu)?;
    attach::check_mac(&link, returned)?;
    let found = addr::of_link(host, link.index)?;
    if let Some(gateway) =
        gateways(expected).iter().find(|cidr| !found.iter().any(|address| address.cidr == **cidr))
    {
        return Err(fault(format!("address {gateway} is missing")));
    }
    let found = route::of_link(host, link.index)?;
    let routes = routes_to_container(link.index, expected);
    if let Some(route) = routes.iter().find(|route| !found.iter().any(|other| route.is(other))) {
        return Err(fault(format!("route {route} is missing")));
    }
    Ok(link)
}

/// Sees whether an ADD would find what it needs.
fn status(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    let probe = || link::probe(&mut Socket::open(Family::Route)?, &["veth"]);
    probe().map_err(|error| Error::from(error).unavailable())?;
    if conf.ip_masq {
        attach::probe_rules(masquerade::probe)?;
    }
    ipam::status(request)
}
