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

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::container::{self, Container, Dad, Ipv6};
use super::masquerade::Masquerade;
use super::setting_error;
use super::spoof_check::SpoofCheck;
use super::undo::Undo;
use crate::cni::conf::interface_name_fault;
use crate::cni::error::Errors;
use crate::cni::json::Node;
use crate::cni::result::{CniResult, Dns, Interface, Route};
use crate::cni::{Attachment, Code, Error, Plugin, Request};
use crate::ipam::{self, Ipam};
use crate::net::{Cidr, Mac, from_bits, to_bits};
use crate::nl::link::{Change, Link, PortFlags, Target};
use crate::nl::monitor::{Changes, Monitor};
use crate::nl::{Family, Socket, addr, link};
use crate::sha256;
use crate::sys::sysctl;

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
/// How often a bridge is looked for again that vanishes under our hands.
const BRIDGE_ATTEMPTS: usize = 4;

/// The configuration.
#[derive(Debug)]
struct Conf {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    mtu: Option<u32>,
    promiscuous: bool,
    port: PortFlags,
    mac_spoof_check: bool,
    enable_dad: bool,
    leave_down: bool,
    mac: Option<Mac>,
    dns: Dns,
}

impl Conf {
    fn read(request: &Request) -> Result<Self, Error> {
        let root = request.conf.root();
        let is_default_gateway = root.flag("isDefaultGateway")?;
        let conf = Self {
            bridge: bridge_name(&root)?,
            is_gateway: root.flag("isGateway")? || is_default_gateway,
            is_default_gateway,
            force_address: root.flag("forceAddress")?,
            ip_masq: root.flag("ipMasq")?,
            mtu: mtu(&root)?,
            promiscuous: root.flag("promiscMode")?,
            port: PortFlags {
                hairpin: root.flag("hairpinMode")?,
                isolated: root.flag("portIsolation")?,
            },
            mac_spoof_check: root.flag("macspoofchk")?,
            enable_dad: root.flag("enabledad")?,
            leave_down: root.flag("disableContainerInterface")?,
            mac: mac(request)?,
            dns: request.conf.dns()?,
        };
        check_backend(&root)?;
        check_vlans(&root)?;
        if conf.port.hairpin && conf.promiscuous {
            return Err(Error::invalid("promiscMode", "true", "false, as hairpinMode is true"));
        }
        if conf.leave_down && request.conf.ipam_type()?.is_some() {
            return Err(Error::invalid(
                "disableContainerInterface",
                "true",
                "false, as addresses are configured (ipam.type)",
            ));
        }
        Ok(conf)
    }

    /// How the container's end treats IPv6. An attachment that has only IPv4 addresses is left alone:
    /// nobody waits for its link-local address.
    fn ipv6(&self, result: &CniResult) -> Ipv6 {
        let keep_addresses = container::has_ipv6(result);
        let dad = if self.enable_dad {
            Dad::On
        } else if result.ips.is_empty() || keep_addresses {
            Dad::Off
        } else {
            Dad::Default
        };
        Ipv6 { dad, keep_addresses }
    }
}

fn bridge_name(root: &Node<'_>) -> Result<String, Error> {
    let Some(node) = root.get("bridge")? else { return Ok("cni0".to_owned()) };
    let name = node.text()?;
    match interface_name_fault(name) {
        None => Ok(name.to_owned()),
        Some(fault) => Err(Error::invalid(
            "bridge",
            format_args!("{name:?}, which {fault}"),
            "an interface name",
        )),
    }
}

/// The kernel's bounds for a veth pair: `ETH_MIN_MTU` and `ETH_MAX_MTU` (linux/if_ether.h).
fn mtu(root: &Node<'_>) -> Result<Option<u32>, Error> {
    let mtu = root.number("mtu", 0..=65535)?.filter(|mtu| *mtu != 0);
    if mtu.is_some_and(|mtu| mtu < 68) {
        return Err(root.get("mtu")?.map_or_else(
            || root.invalid("an MTU"),
            |node| node.invalid("0 for the kernel's default, or 68 to 65535"),
        ));
    }
    Ok(mtu)
}

/// The container's address, of the three places in rising order of precedence.
fn mac(request: &Request) -> Result<Option<Mac>, Error> {
    let root = request.conf.root();
    let read = |object: Option<Node<'_>>| match object {
        Some(object) => match object.get("mac")? {
            Some(node) if !node.text()?.is_empty() => node.mac().map(Some),
            _ => Ok(None),
        },
        None => Ok(None),
    };
    if let Some(mac) = read(root.get("runtimeConfig")?)? {
        return Ok(Some(mac));
    }
    if let Some(args) = root.get("args")?
        && let Some(mac) = read(args.get("cni")?)?
    {
        return Ok(Some(mac));
    }
    let Some(text) = &request.args()?.mac else { return Ok(None) };
    match text.parse::<Mac>() {
        Ok(mac) if mac.is_assignable() => Ok(Some(mac)),
        _ => {
            let msg = format!("CNI_ARGS: MAC: expected a unicast MAC address, got {text:?}");
            Err(Error::new(Code::InvalidEnvironment, msg))
        }
    }
}

/// Both of the reference's backends are served by the same nf_tables rules.
fn check_backend(root: &Node<'_>) -> Result<(), Error> {
    let Some(backend) = root.get("ipMasqBackend")? else { return Ok(()) };
    match backend.text()? {
        "" | "iptables" | "nftables" => Ok(()),
        _ => Err(backend.invalid("\"iptables\" or \"nftables\"")),
    }
}

/// The VLAN keys are validated; to honour them is not in yet, and to ignore them would connect what is
/// to be kept apart.
fn check_vlans(root: &Node<'_>) -> Result<(), Error> {
    let unsupported = |key: &str, value: &str| {
        let msg = format!("{key}: VLANs on bridges are not supported yet, got {value}");
        Err(Error::new(Code::UnsupportedField, msg))
    };
    root.flag("preserveDefaultVlan")?;
    let trunk = root.list("vlanTrunk", |item| {
        let id = item.number("id", 1..=4094)?;
        let (min, max) = (item.number("minID", 1..=4094)?, item.number("maxID", 1..=4094)?);
        match (id, min, max) {
            (_, Some(min), Some(max)) if min <= max => Ok(()),
            (Some(_), None, None) => Ok(()),
            _ => Err(item.invalid("an id, or minID and maxID in this order")),
        }
    })?;
    match root.number("vlan", 0..=4094)? {
        Some(vlan) if vlan != 0 => unsupported("vlan", &vlan.to_string()),
        _ if !trunk.is_empty() => unsupported("vlanTrunk", &format!("{} items", trunk.len())),
        _ => Ok(()),
    }
}

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
    let gateways = if conf.is_gateway { gateways(&mut result) } else { Vec::new() };

    let bridge = ensure_bridge(&mut host, request, conf, undo)?;
    let changes = GatewayChanges::plan(&mut host, &bridge, &gateways, conf)?;
    if !changes.missing.is_empty() {
        keep_mac(&mut host, &bridge)?;
    }
    let mac = container_mac(conf, attachment, &result);
    make_veth(&mut host, request, conf, attachment, mac, &bridge, undo)?;

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
    enable_forwarding(&gateways)?;
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
        complete_gateways(&mut result);
        add_default_routes(&mut result);
    }
    Ok(result)
}

/// The addresses that the bridge has to have, one for each gateway.
fn gateways(result: &mut CniResult) -> Vec<Cidr> {
    complete_gateways(result);
    let mut gateways: Vec<Cidr> = Vec::new();
    for ip in &result.ips {
        if let Some(address) = ip.gateway {
            let gateway = Cidr { address, prefix: ip.address.prefix };
            if !gateways.contains(&gateway) {
                gateways.push(gateway);
            }
        }
    }
    gateways
}

/// Where address management names no gateway it is the network's first address.
fn complete_gateways(result: &mut CniResult) {
    for ip in &mut result.ips {
        let network = ip.address.network();
        ip.gateway.get_or_insert_with(|| from_bits(network, to_bits(network).wrapping_add(1)));
    }
}

/// One default route for each family, unless there is one that leads the same way.
fn add_default_routes(result: &mut CniResult) {
    for is_ipv4 in [true, false] {
        let of_family = |address: IpAddr| address.is_ipv4() == is_ipv4;
        let gateway = result.ips.iter().filter_map(|ip| ip.gateway).find(|gw| of_family(*gw));
        let Some(gateway) = gateway else { continue };
        let default = Route::via(Cidr::default_of(gateway), Some(gateway));
        let equivalent = |route: &Route| {
            let with_gateway = Route { gw: container::next_hop(route, result), ..route.clone() };
            route.dst == default.dst && (route.gw.is_some() || with_gateway == default)
        };
        if !result.routes.iter().any(equivalent) {
            result.routes.push(default);
        }
    }
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

/// Finds the bridge, or makes it, and sees to it that it is up.
fn ensure_bridge<'a>(
    host: &mut Socket,
    request: &'a Request,
    conf: &'a Conf,
    undo: &mut Undo<'a>,
) -> Result<Link, Error> {
    let name = &conf.bridge;
    for _ in 0..BRIDGE_ATTEMPTS {
        let Some(bridge) = link::get(host, Target::Name(name))? else {
            make_bridge(host, request, conf, undo)?;
            continue;
        };
        if !bridge.is_bridge() {
            let kind = bridge.kind.as_deref().unwrap_or("physical device");
            let got = format!("{name:?}, which exists and is a {kind}");
            return Err(Error::invalid(
                "bridge",
                got,
                "the name of a bridge, or a name that is free",
            ));
        }
        let change = Change {
            up: !bridge.up,
            promiscuous: conf.promiscuous && !bridge.promiscuous,
            ..Change::default()
        };
        if change.up {
            refuse_router_advertisements(name)?;
        }
        if change.up || change.promiscuous {
            host.execute(&[&link::Set { target: Target::Index(bridge.index), change }])?;
        }
        return Ok(bridge);
    }
    Err(Error::new(Code::TryAgainLater, format!("bridge {name:?} keeps vanishing")))
}

/// Makes the bridge, down. That another process does so at the same time is no error.
fn make_bridge<'a>(
    host: &mut Socket,
    request: &'a Request,
    conf: &'a Conf,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    // A bridge is not made for an attachment that can't come about.
    let ifname = &request.env.ifname;
    if Container::enter(request.netns()?, ifname, Ipv6::DEFAULT)?.is_some() {
        return Err(interface_exists(ifname));
    }
    let name = &conf.bridge;
    let made = host.execute(&[&link::NewBridge { name, mac: bridge_mac(name), mtu: conf.mtu }]);
    if made.as_ref().is_err_and(|error| error.errno == Errno::EEXIST) {
        return Ok(());
    }
    // An answer that did not come through may have been a good one.
    undo.push(move || remove_unused_bridge(name));
    Ok(made?)
}

/// A bridge's address: always the same on this machine, so that it outlives a new bridge of the same
/// name, and another on any other machine that might share a link.
fn bridge_mac(name: &str) -> Mac {
    let machine = std::fs::read("/etc/machine-id")
        .ok()
        .filter(|id| id.len() >= 32)
        .or_else(|| std::fs::read("/proc/sys/kernel/random/uuid").ok())
        .unwrap_or_default();
    Mac::local(&sha256::digest_parts(&[b"bridge mac", &machine, name.as_bytes()]))
}

/// Has a bridge that becomes a gateway keep the address that it has. One that somebody made without would
/// take the lowest of its ports', and another one's when that port goes.
fn keep_mac(host: &mut Socket, bridge: &Link) -> Result<(), Error> {
    let change = Change { mac: bridge.mac, ..Change::default() };
    Ok(host.execute(&[&link::Set { target: Target::Index(bridge.index), change }])?)
}

/// The host takes no advice on routing from its containers.
fn refuse_router_advertisements(bridge: &str) -> Result<(), Error> {
    let name = format!("ipv6/conf/{bridge}/accept_ra");
    match sysctl::write(&name, "0") {
        // A kernel without IPv6.
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|why| setting_error(format_args!("set sysctl {name} to 0"), &why)),
    }
}

/// Takes back a bridge of ours, unless others have come to use it.
fn remove_unused_bridge(name: &str) -> Result<(), Error> {
    let mut host = Socket::open(Family::Route)?;
    let links = link::list(&mut host)?;
    let Some(bridge) = links.iter().find(|link| link.name == name) else { return Ok(()) };
    if links.iter().any(|link| link.master == Some(bridge.index)) {
        return Ok(());
    }
    Ok(host.execute(&[&link::Delete(Target::Index(bridge.index))])?)
}

/// What has to change about the bridge's addresses.
struct GatewayChanges {
    /// Gateways' addresses that it has not.
    missing: Vec<Cidr>,
    /// Addresses that stand in their way, and that `forceAddress` gives up.
    replaced: Vec<Cidr>,
}

impl GatewayChanges {
    /// Compares what is with what is to be.
    fn plan(
        host: &mut Socket,
        bridge: &Link,
        gateways: &[Cidr],
        conf: &Conf,
    ) -> Result<Self, Error> {
        if gateways.is_empty() {
            return Ok(Self { missing: Vec::new(), replaced: Vec::new() });
        }
        let found = addr::of_link(host, bridge.index)?;
        let is_missing = |gateway: &&Cidr| !found.iter().any(|address| address.cidr == **gateway);
        let missing: Vec<_> = gateways.iter().filter(is_missing).copied().collect();
        let conflicts = conflicts(&found, gateways, &missing);
        if let Some(conflict) = conflicts.first()
            && !conf.force_address
        {
            return Err(conflict.error(bridge));
        }
        let replaced = conflicts.iter().map(|conflict| conflict.found).collect();
        Ok(Self { missing, replaced })
    }

    /// Gives the bridge the gateways' addresses.
    fn carry_out<'a>(
        self,
        host: &mut Socket,
        bridge: &Link,
        gateways: &[Cidr],
        attachment: &'a Attachment,
        undo: &mut Undo<'a>,
    ) -> Result<(), Error> {
        let Self { missing, replaced } = self;
        if missing.is_empty() {
            return Ok(());
        }
        let index = bridge.index;
        let changed = change_addresses(host, index, &replaced, &missing);
        let wanted = missing.clone();
        undo.push(move || {
            let mut host = Socket::open(Family::Route)?;
            // Others of this network may rely on them by now; those of other networks, on the old ones.
            if has_other_ports(&mut host, index, attachment)? {
                return Ok(());
            }
            change_addresses(&mut host, index, &missing, &replaced)
        });
        changed?;
        // Another first ADD, of another configuration, may have done the same at the same time.
        let found = addr::of_link(host, index)?;
        match conflicts(&found, gateways, &wanted).first() {
            Some(conflict) => Err(conflict.error(bridge)),
            None => Ok(()),
        }
    }
}

/// An address of the bridge that stands in the way of a gateway's.
struct Conflict {
    found: Cidr,
    gateway: Cidr,
}

impl Conflict {
    fn error(&self, bridge: &Link) -> Error {
        let (name, Self { found, gateway }) = (&bridge.name, self);
        let msg = format!(
            "bridge {name:?} already has an IP address different from {gateway}: {found}; \
             forceAddress would replace it"
        );
        Error::new(Code::Internal, msg)
    }
}

/// What stands in the way of those gateways that are missing: of IPv4 any address that is no gateway, of
/// IPv6 those that overlap.
fn conflicts(found: &[addr::Address], gateways: &[Cidr], missing: &[Cidr]) -> Vec<Conflict> {
    let conflict = |address: &addr::Address| {
        let found = address.cidr;
        let in_its_way = |gateway: &&Cidr| match found.address {
            IpAddr::V4(_) => gateway.address.is_ipv4(),
            IpAddr::V6(_) => !address.link_local && gateway.overlaps(found),
        };
        if gateways.contains(&found) {
            return None;
        }
        missing.iter().find(in_its_way).map(|gateway| Conflict { found, gateway: *gateway })
    };
    found.iter().filter_map(conflict).collect()
}

fn change_addresses(
    host: &mut Socket,
    link: u32,
    remove: &[Cidr],
    add: &[Cidr],
) -> Result<(), Error> {
    for cidr in remove {
        match host.execute(&[&addr::Delete { link, cidr: *cidr }]) {
            Err(error) if error.errno == Errno::EADDRNOTAVAIL => {}
            other => other?,
        }
    }
    for cidr in add {
        host.execute(&[&addr::Add { link, cidr: *cidr, without_dad: true }])?;
    }
    Ok(())
}

/// Whether the bridge has ports of other attachments of the same network.
fn has_other_ports(host: &mut Socket, bridge: u32, own: &Attachment) -> Result<bool, Error> {
    let of_other = |link: &Link| {
        let attachment = link.alias.as_deref().and_then(Attachment::from_label);
        attachment.is_some_and(|a| a.network == own.network && a != *own)
    };
    Ok(link::list(host)?.iter().any(|link| link.master == Some(bridge) && of_other(link)))
}

/// Makes the veth pair.
fn make_veth<'a>(
    host: &mut Socket,
    request: &'a Request,
    conf: &Conf,
    attachment: &'a Attachment,
    mac: Mac,
    bridge: &Link,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let (name, label) = (attachment.host_link(), attachment.label());
    let netns = request.netns()?;
    let veth = link::NewVeth {
        name: &name,
        mac: attachment.host_mac(),
        mtu: conf.mtu,
        master: Some(bridge.index),
        peer_name: &attachment.ifname,
        peer_mac: mac,
        peer_netns: netns.as_fd(),
    };
    // What the kernel does not take when it makes a link.
    let target = Target::Name(&name);
    let change = Change {
        alias: Some(&label),
        port: (conf.port != PortFlags::default()).then_some(conf.port),
        ..Change::default()
    };
    let settings = link::Set { target, change };
    // A bridge's port speaks no IPv6 itself.
    let change = Change { no_ipv6_link_local: true, ..Change::default() };
    let silence = link::Set { target, change };

    let exists = || match Container::enter(netns, &attachment.ifname, Ipv6::DEFAULT)? {
        Some(_) => Err(interface_exists(&attachment.ifname)),
        None => Ok::<_, Error>(()),
    };
    // A refusal to make the pair would not keep the kernel from setting up the link that has the name.
    if link::index_of(host, &name)?.is_some() {
        exists()?;
        // It is of an earlier ADD, into another namespace, that was never undone.
        remove_own_link(host, &name, &label)?;
    }
    let made = host.execute(&[&veth, &settings, &silence]);
    if let Err(error) = &made
        && (error.errno, error.request) == (Errno::EEXIST, 0)
    {
        exists()?;
    } else {
        undo.push(move || remove_own_link(&mut Socket::open(Family::Route)?, &name, &label));
    }
    Ok(made?)
}

fn interface_exists(ifname: &str) -> Error {
    let msg = format!(
        "container interface {ifname:?} already exists; DEL of its attachment would remove it"
    );
    Error::new(Code::Internal, msg).with_details("EEXIST")
}

/// Deletes a link unless it says that it is another's.
fn remove_own_link(host: &mut Socket, name: &str, label: &str) -> Result<(), Error> {
    match link::get(host, Target::Name(name))? {
        Some(link) if link.alias.as_deref().is_none_or(|alias| alias == label) => {
            delete_link(host, name).map(drop)
        }
        Some(link) => {
            let msg = format!("link {name:?} exists and is another's: {:?}", link.alias);
            Err(Error::new(Code::Internal, msg))
        }
        None => Ok(()),
    }
}

/// Deletes a link; false if there was none.
fn delete_link(host: &mut Socket, name: &str) -> Result<bool, Error> {
    match host.execute(&[&link::Delete(Target::Name(name))]) {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::ENODEV => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The host forwards between the container and the world, of the families that there are gateways for.
fn enable_forwarding(gateways: &[Cidr]) -> Result<(), Error> {
    let families = [(true, "ipv4/ip_forward"), (false, "ipv6/conf/all/forwarding")];
    for (is_ipv4, name) in families {
        if gateways.iter().any(|gateway| gateway.address.is_ipv4() == is_ipv4) {
            sysctl::ensure(name, "1")
                .map_err(|why| setting_error(format_args!("set sysctl {name} to 1"), &why))?;
        }
    }
    Ok(())
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
    let prev = request.conf.prev_result().ok().flatten().unwrap_or_default();

    // The kernel frees elements after an RCU grace period, and closing the socket waits for that. To
    // delete a link takes longer, so with the socket open until then nobody waits twice.
    let mut rules = None;
    if masquerade {
        rules = errors.note(remove_masquerade(&label, held, &prev)).flatten();
    }
    errors.note(remove_veth(request, &name, &label));
    drop(rules);
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

/// Deletes the pair by its host's end. If there is none the pair may be one that the reference's plugin
/// has made, under a name that only its peer tells.
fn remove_veth(request: &Request, name: &str, label: &str) -> Result<(), Error> {
    let mut host = Socket::open(Family::Route)?;
    if delete_link(&mut host, name)? {
        return Ok(());
    }
    let Ok(netns) = request.netns() else { return Ok(()) };
    let ifname = &request.env.ifname;
    let container = Container::enter(netns, ifname, Ipv6::DEFAULT)?;
    let Some(mut container) = container else { return Ok(()) };
    let Some(peer) = container.peer()? else { return Ok(()) };
    let of_another = link::get(&mut host, Target::Index(peer))?
        .and_then(|link| link.alias)
        .is_some_and(|alias| alias != label && Attachment::from_label(&alias).is_some());
    if of_another { Ok(()) } else { container.delete() }
}

/// Ends the masquerading of all addresses that the attachment is known to have. Returns the open
/// conversation, if there was one.
fn remove_masquerade(
    label: &str,
    held: Option<Vec<Cidr>>,
    prev: &CniResult,
) -> Result<Option<Masquerade>, Error> {
    let leases_tell = held.is_some();
    let mut addresses = held.unwrap_or_default();
    addresses.extend(prev.ips.iter().map(|ip| ip.address));
    addresses.sort_by_key(|cidr| (cidr.address, cidr.prefix));
    addresses.dedup();
    if addresses.is_empty() && leases_tell {
        return Ok(None);
    }
    let Some(mut rules) = Masquerade::open_if_supported()? else { return Ok(None) };
    if addresses.is_empty() {
        // A foreign address management, and a runtime that does not tell what ADD returned.
        rules.remove_by_label(label)?;
    } else {
        rules.remove(label, &addresses)?;
    }
    Ok(Some(rules))
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
        check_gateways(&mut host, &bridge, &gateways(&mut expected))?;
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

fn check_gateways(host: &mut Socket, bridge: &Link, gateways: &[Cidr]) -> Result<(), Error> {
    let found = addr::of_link(host, bridge.index)?;
    for gateway in gateways {
        if !found.iter().any(|address| address.cidr == *gateway) {
            let msg = format!("bridge {:?} has lost address {gateway}", bridge.name);
            return Err(Error::new(Code::Internal, msg));
        }
        let name = match gateway.address {
            IpAddr::V4(_) => "ipv4/ip_forward",
            IpAddr::V6(_) => "ipv6/conf/all/forwarding",
        };
        if sysctl::read(name).is_ok_and(|value| value == "0") {
            return Err(Error::new(Code::Internal, format!("sysctl {name} is 0, not 1")));
        }
    }
    Ok(())
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
            errors.note(delete_link(&mut host, &link.name));
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
