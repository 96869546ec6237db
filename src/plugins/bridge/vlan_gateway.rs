//! The gateway of a VLAN: an interface `<bridge>.<vlan>` beside the bridge, which has the addresses that
//! otherwise the bridge itself has. It is one end of a veth pair, whose other end is a port of the bridge in
//! that VLAN. As the bridge does, it belongs to all containers in the VLAN, and stays.
//!
//! An administrator's own is used as it is, also if it is a VLAN of the bridge itself
//! (`ip link add link br0 name br0.100 type vlan id 100`).

use nix::errno::Errno;

use super::conf::Conf;
use super::vlan::{self, Vlans};
use super::{device, fault};
use crate::cni::attachment::veth_name;
use crate::cni::result::CniResult;
use crate::cni::{Attachment, Code, Error};
use crate::net::Cidr;
use crate::nl::bridge_vlan::{self, Treatment};
use crate::nl::link::{Change, Link, Set, Target};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Family, Socket, addr, link};
use crate::plugins::undo::Undo;
use crate::plugins::{attach, forwarding, veth};
use crate::sha256;

/// Begins the alias of both ends of a pair of ours, before the interface's name. No attachment's label does.
pub const LABEL_PREFIX: &str = "plumb:gateway ";

/// The gateway interface as it is to be.
#[derive(Clone, Debug)]
struct Gateway {
    name: String,
    /// Its VLAN.
    vlan: u16,
    /// Those of the bridge's port.
    vlans: Vlans,
    bridge: Link,
    /// That of a pair that is made.
    mtu: u32,
}

/// What keeps a link from being the gateway.
enum Fault {
    /// It is the end of a pair whose other end, this one, is no port or not in the VLAN.
    Open(Box<Link>, String),
    /// It is something else.
    Other(String),
}

/// Finds the gateway interface, or makes it, and sees to it that it is up. None if the bridge itself is the
/// gateway. `port` is the container's; `addresses` are those that the gateway is about to have.
///
/// # Errors
/// Another link has the name; the kernel's refusal.
pub(super) fn ensure<'a>(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    port: &Link,
    attachment: &'a Attachment,
    addresses: &[Cidr],
    undo: &mut Undo<'a>,
) -> Result<Option<Link>, Error> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let Some(gateway) = Gateway::of(conf, bridge) else {
        return check_bridge(conf, bridge).map(|()| None);
    };
    // The bridge was read before the port joined, whose MTU it may have taken on.
    let gateway = Gateway { mtu: bridge.mtu.min(port.mtu), ..gateway };
    gateway.establish(host, attachment, addresses, undo).map(Some)
}

impl Gateway {
    fn of(conf: &Conf, bridge: &Link) -> Option<Self> {
        let (name, vlans) = (conf.gateway_link()?, conf.vlans.as_ref()?);
        let (vlan, vlans) = (vlans.access?, vlans.without_trunk());
        Some(Self { name, vlan, vlans, bridge: bridge.clone(), mtu: bridge.mtu })
    }

    fn label(&self) -> String {
        format!("{LABEL_PREFIX}{}", self.name)
    }

    fn establish<'a>(
        &self,
        host: &mut Socket,
        attachment: &'a Attachment,
        addresses: &[Cidr],
        undo: &mut Undo<'a>,
    ) -> Result<Link, Error> {
        let target = Target::Name(&self.name);
        for _ in 0..device::ATTEMPTS {
            let Some(found) = link::get(host, target)? else {
                let made = self.make(host);
                // Another process has made it at the same time.
                if made.as_ref().is_err_and(|error| error.errno == Errno::EEXIST) {
                    self.check_ports_name(host)?;
                    continue;
                }
                // An answer that did not come through may have been a good one.
                let (gateway, addresses) = (self.clone(), addresses.to_vec());
                undo.push(move || gateway.remove_unused(attachment, &addresses));
                made?;
                continue;
            };
            match self.complete(host, &found) {
                Ok(()) => return Ok(found),
                // It has vanished meanwhile: the first ADD that had made it has failed.
                Err(_) if link::get(host, Target::Index(found.index))?.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Err(keeps_vanishing(&self.name))
    }

    /// Sees whether the name of the pair's port is free, or the port's.
    ///
    /// # Errors
    /// Something else has it: one end of a pair whose other end was renamed or moved, for one.
    fn check_ports_name(&self, host: &mut Socket) -> Result<(), Error> {
        let Some(port) = link::get(host, Target::Name(&self.port()))? else { return Ok(()) };
        if port.is_veth() && port.peer_netns.is_none() {
            // Without other end it is about to vanish.
            let Some(peer) = port.peer else { return Ok(()) };
            match link::get(host, Target::Index(peer))? {
                Some(other) if other.name != self.name => {}
                _ => return Ok(()),
            }
        }
        let port = &port.name;
        let msg = format!(
            "link {port:?} has the name of the other end of gateway interface {:?}, which is not there; \
             to remove it: ip link del {port}",
            self.name
        );
        Err(Error::new(Code::Internal, msg))
    }

    /// Makes the pair, down and no port yet.
    fn make(&self, host: &mut Socket) -> Result<(), nl::Error> {
        let (port, label) = (self.port(), self.label());
        let veth = link::NewVeth {
            name: &self.name,
            mac: device::stable_mac(&self.name),
            mtu: Some(self.mtu),
            peer_name: &port,
            peer_mac: device::stable_mac(&port),
            peer_netns: None,
        };
        let alias = |name| Set {
            target: Target::Name(name),
            change: Change { alias: Some(&label), ..Change::default() },
        };
        // A refusal to make the pair would not keep the kernel from setting up the link that has the name.
        host.execute(&[&veth])?;
        host.execute(&[&alias(&self.name), &alias(&port)])
    }

    /// Name of the port that the other end of the pair is.
    fn port(&self) -> String {
        let digest = sha256::digest_parts(&[b"gateway port", self.name.as_bytes()]);
        veth_name(&digest)
    }

    /// Connects a pair of ours that is not yet, or no longer, and brings up the interface.
    fn complete(&self, host: &mut Socket, found: &Link) -> Result<(), Error> {
        let is_ready = match self.fault(host, found)? {
            None => found.operational,
            Some(Fault::Open(port, _)) if self.is_ours(&port) => {
                self.connect(host, &port)?;
                false
            }
            Some(Fault::Open(_, what) | Fault::Other(what)) => return Err(self.unfit(what)),
        };
        forwarding::refuse_router_advertisements(found);
        if is_ready {
            return Ok(());
        }
        let up = |index| Set {
            target: Target::Index(index),
            change: Change { up: true, ..Change::default() },
        };
        let (below, above) = (found.peer.map(up), up(found.index));
        let below = below.iter().map(|request| request as &dyn NlRequest);
        host.execute(&below.chain([&above as &dyn NlRequest]).collect::<Vec<_>>())?;
        match found.peer {
            Some(port) if found.is_veth() => self.await_carrier(host, port),
            // What else leads there follows the bridge, which may take its time (STP).
            _ => Ok(()),
        }
    }

    /// Waits until the other end of the pair, which has just come up, forwards.
    fn await_carrier(&self, host: &mut Socket, port: u32) -> Result<(), Error> {
        let gone = || fault("its other end has vanished");
        let mut read = || link::get(host, Target::Index(port))?.ok_or_else(gone);
        let carrier = read().and_then(|port| veth::await_carrier(port, read));
        carrier
            .map(drop)
            .map_err(|error| error.of(format_args!("gateway interface {:?}", self.name)))
    }

    /// Makes the other end of the pair a port in the VLAN. It is down meanwhile, so nothing gets into another
    /// VLAN.
    fn connect(&self, host: &mut Socket, port: &Link) -> Result<(), Error> {
        veth::disable_ipv6(&port.name);
        let change = Change { master: Some(self.bridge.index), ..Change::default() };
        let target = Target::Index(port.index);
        let (down, join) = (link::SetDown(target), Set { target, change });
        let joined = self.vlans.with_requests(port.index, &self.bridge, |requests| {
            host.execute(&[&[&down as &dyn NlRequest, &join], requests].concat())
        });
        joined.map_err(|error| Error::from(error).of(format_args!("bridge {:?}", self.bridge.name)))
    }

    /// Its name says so from the moment that it is there, which its alias does not.
    fn is_ours(&self, port: &Link) -> bool {
        port.name == self.port()
    }

    fn unfit(&self, what: impl std::fmt::Display) -> Error {
        let expected = format!(
            "one that has {:?} for its gateway in VLAN {}, or nothing of that name",
            self.name, self.vlan
        );
        Error::invalid(
            "bridge",
            format_args!("{:?}: {:?} {what}", self.bridge.name, self.name),
            &expected,
        )
    }

    /// What keeps a link from being the gateway, if anything does.
    fn fault(&self, host: &mut Socket, found: &Link) -> Result<Option<Fault>, Error> {
        let (name, vlan) = (&self.bridge.name, self.vlan);
        let kind = found.kind_name();
        let peer = found.peer.filter(|_| found.peer_netns.is_none());
        match (kind, peer) {
            ("veth", Some(peer)) => {
                let Some(port) = link::get(host, Target::Index(peer))? else {
                    return Ok(Some(Fault::Other("has lost its other end".into())));
                };
                let end = format!("is a veth whose other end {:?}", port.name);
                if port.master.is_some_and(|master| master != self.bridge.index) {
                    let what = format!("{end} is no port of {name:?} but of another");
                    return Ok(Some(Fault::Other(what)));
                }
                if port.master.is_none() {
                    let what = format!("{end} is no port of {name:?}");
                    return Ok(Some(Fault::Open(Box::new(port), what)));
                }
                let ranges = bridge_vlan::of_link(peer)?;
                let is_in_it = vlan::is_in(&ranges, vlan, Treatment::NATIVE);
                let what = format!("{end} does not have VLAN {vlan} native");
                Ok((!is_in_it).then(|| Fault::Open(Box::new(port), what)))
            }
            ("vlan", Some(below))
                if below == self.bridge.index && found.variant == Some(vlan.into()) =>
            {
                let ranges = bridge_vlan::of_link(below)?;
                let is_in_it = vlan::is_in(&ranges, vlan, Treatment::TAGGED);
                let what = || {
                    format!(
                        "is VLAN {vlan} of a bridge that is not in it; to add it: \
                         bridge vlan add dev {name} vid {vlan} self"
                    )
                };
                Ok((!is_in_it).then(|| Fault::Other(what())))
            }
            _ => Ok(Some(Fault::Other(format!("is a {kind} that does not lead there")))),
        }
    }

    /// Takes back a pair of ours, unless others have come to use it.
    fn remove_unused(&self, own: &Attachment, addresses: &[Cidr]) -> Result<(), Error> {
        let mut host = Socket::open(Family::Route)?;
        if self.is_used(&mut host, own)? {
            return Ok(());
        }
        let addresses = self.with_its_own(&mut host, addresses)?;
        veth::delete_own(&mut host, &self.name, &self.label())?;
        // One that came in between may have seen it before it went.
        if self.is_used(&mut host, own)? {
            let link = self.establish(&mut host, own, &addresses, &mut Undo::new())?.index;
            for cidr in addresses {
                let (without_dad, without_prefix_route) = (true, false);
                host.execute(&[&addr::Add { link, cidr, without_dad, without_prefix_route }])?;
            }
        }
        Ok(())
    }

    /// These addresses, and those that the interface has, be they of another network.
    fn with_its_own(&self, host: &mut Socket, addresses: &[Cidr]) -> Result<Vec<Cidr>, Error> {
        let mut all = addresses.to_vec();
        let Some(found) = link::get(host, Target::Name(&self.name))? else { return Ok(all) };
        let found = addr::of_link(host, found.index)?.into_iter();
        all.extend(found.filter(|a| !a.link_local && !addresses.contains(&a.cidr)).map(|a| a.cidr));
        Ok(all)
    }

    /// Whether another attachment's port of the bridge is in the VLAN.
    fn is_used(&self, host: &mut Socket, own: &Attachment) -> Result<bool, Error> {
        let members = bridge_vlan::list(host)?;
        let is_in_it = |link: &Link| {
            let of_link = members.iter().filter(|member| member.link == link.index);
            let mut ranges = of_link.flat_map(|member| &member.ranges);
            ranges.any(|range| (range.first..=range.last).contains(&self.vlan))
        };
        let of_other = |link: &Link| {
            let attachment = link.alias.as_deref().and_then(Attachment::from_label);
            link.master == Some(self.bridge.index) && attachment.is_some_and(|a| a != *own)
        };
        Ok(link::list(host)?.iter().any(|link| of_other(link) && is_in_it(link)))
    }
}

/// Others make it and take it back again and again.
pub(super) fn keeps_vanishing(name: &str) -> Error {
    Error::new(Code::TryAgainLater, format!("gateway interface {name:?} keeps vanishing"))
}

/// Sees whether a bridge that is the gateway itself is in the native VLAN of a trunk without `vlan`.
///
/// # Errors
/// It is not.
fn check_bridge(conf: &Conf, bridge: &Link) -> Result<(), Error> {
    let vlan = vlan::DEFAULT_NATIVE;
    if conf.vlans.is_none()
        || vlan::is_in(&bridge_vlan::of_link(bridge.index)?, vlan, Treatment::NATIVE)
    {
        return Ok(());
    }
    let name = &bridge.name;
    let expected = format!(
        "one that has VLAN {vlan} native itself, as it is the gateway of a trunk without vlan"
    );
    let got = format!(
        "{name:?}, which does not; to add it: bridge vlan add dev {name} vid {vlan} pvid untagged self"
    );
    Err(Error::invalid("bridge", got, &expected))
}

/// CHECK: sees whether the gateway interface is there, up and in its VLAN, and returns it. None if the bridge
/// itself is the gateway.
///
/// # Errors
/// It is not.
pub(super) fn check(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    prev: &CniResult,
) -> Result<Option<Link>, Error> {
    let Some(gateway) = Gateway::of(conf, bridge) else {
        check_bridge(conf, bridge).map_err(|error| fault(error.msg))?;
        return Ok(None);
    };
    let name = &gateway.name;
    let found = link::get(host, Target::Name(name))?
        .ok_or_else(|| fault(format!("gateway interface {name:?} is missing")))?;
    if let Some(Fault::Open(_, what) | Fault::Other(what)) = gateway.fault(host, &found)? {
        return Err(fault(format!("gateway interface {name:?} {what}")));
    }
    if !found.operational {
        return Err(fault(format!("gateway interface {name:?} is not up")));
    }
    attach::check_mac(&found, prev.interfaces.iter().find(|i| i.name == *name))?;
    Ok(Some(found))
}

/// STATUS: sees whether nothing else has the gateway interface's name; or that the bridge can be the gateway.
///
/// # Errors
/// Something has; it can't (code 50).
pub(super) fn status(host: &mut Socket, conf: &Conf, bridge: Option<&Link>) -> Result<(), Error> {
    let absent = Link { name: conf.bridge.clone(), ..Link::default() };
    let Some(gateway) = Gateway::of(conf, bridge.unwrap_or(&absent)) else {
        let bridge = bridge.filter(|_| conf.is_gateway);
        return bridge
            .map_or(Ok(()), |bridge| check_bridge(conf, bridge))
            .map_err(Error::unavailable);
    };
    let Some(found) = link::get(host, Target::Name(&gateway.name))? else {
        return gateway.check_ports_name(host).map_err(Error::unavailable);
    };
    match gateway.fault(host, &found)? {
        None => Ok(()),
        Some(Fault::Open(port, _)) if gateway.is_ours(&port) => Ok(()),
        Some(Fault::Open(_, what) | Fault::Other(what)) => Err(gateway.unfit(what).unavailable()),
    }
}
