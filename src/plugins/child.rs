//! A link that is born in the container, on top of a master or by itself: what macvlan, ipvlan, vlan and
//! dummy have in common, which is all but what they are configured with.
//!
//! ADD, in the order in which things happen: the master is found; addresses are leased; the link is made,
//! in the container and under its final name, so that nothing ever moves; it gets addresses and routes, and
//! the label by which DEL knows it; and where neighbours share the segment, their silence is waited for. Addresses
//! that are asked for over the link itself are leased when that is up.
//!
//! DEL needs nothing but the namespace, and if that has gone, nothing at all: the link went with it.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::container::{Container, Dad, Ipv6};
use super::undo::Undo;
use super::{attach, conf, detach, rival, setting_error, veth};
use crate::cni::result::{CniResult, Dns};
use crate::cni::{Attachment, Code, Error, Request};
use crate::ipam::Ipam;
use crate::net::Mac;
use crate::nl::link::{Change, Child, Link, MacvlanMode, NewChild, Target};
use crate::nl::{self, Family, Socket, addr, link, route};
use crate::sha256;

/// Kinds of links of which a master has either the ones or the others.
const MACVLANS: [&str; 2] = ["macvlan", "macvtap"];
const IPVLANS: [&str; 2] = ["ipvlan", "ipvtap"];

/// What such a plugin is configured with.
#[derive(Debug)]
pub struct Conf {
    /// The kind of link, with what is special to it.
    pub child: Child,
    /// What it is on top of; none if it is by itself.
    pub master: Option<Master>,
    /// `mtu`; none for the master's
    pub mtu: Option<u32>,
    /// The address asked for.
    pub mac: Option<Mac>,
    /// Where addresses come from.
    pub addresses: Addresses,
    /// `dns`
    pub dns: Dns,
}

/// The link on top of which another is.
#[derive(Debug)]
pub struct Master {
    /// `master`; if none, that of the default route
    pub name: Option<String>,
    /// `linkInContainer`: it is in the container's namespace, not on the host.
    pub in_container: bool,
}

/// Where addresses come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// Address management, or nowhere: then the link is layer 2 only.
    Optional,
    /// Address management.
    Required,
    /// Address management; without it the plugin before in the chain has leased them.
    OrOfChain,
}

impl Master {
    /// Reads `master` and `linkInContainer`.
    ///
    /// # Errors
    /// A key has the wrong type; the master is no name, or that of the interface to be made.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let root = request.conf.root();
        let read = Self {
            name: conf::link_name(&root, "master")?,
            in_container: root.flag("linkInContainer")?,
        };
        let ifname = &request.env.ifname;
        if read.in_container && read.name.as_ref().is_some_and(|name| name == ifname) {
            let expected = "another name than CNI_IFNAME's, as linkInContainer is set";
            return Err(Error::invalid("master", format_args!("{ifname:?}"), expected));
        }
        Ok(read)
    }

    fn place(&self) -> &'static str {
        if self.in_container { "in the container" } else { "on the host" }
    }

    /// Finds the link.
    fn find(&self, socket: &mut Socket) -> Result<Link, Error> {
        let place = self.place();
        let Some(name) = &self.name else {
            let found = match route::default_link(socket)? {
                Some(index) => link::get(socket, Target::Index(index))?,
                None => None,
            };
            return found.ok_or_else(|| {
                let msg = format!("master: none is named, and there is no default route {place}");
                Error::new(Code::Internal, msg)
            });
        };
        link::get(socket, Target::Name(name))?.ok_or_else(|| {
            let msg = format!("cannot find master {name:?} {place}");
            Error::new(Code::Internal, msg).with_details("ENODEV")
        })
    }
}

impl Conf {
    /// Refuses an MTU that is larger than the master's, whose frames these are.
    fn check_mtu_on(&self, master: &Link) -> Result<(), Error> {
        match self.mtu {
            Some(mtu) if mtu > master.mtu => {
                let expected = format!("at most {}, as master {:?} has", master.mtu, master.name);
                Err(Error::invalid("mtu", mtu, &expected))
            }
            _ => Ok(()),
        }
    }

    /// Sees whether addresses come from where they must. `prev` is what the plugin before has returned.
    fn check_addresses(
        &self,
        ipam: Option<&Ipam<'_>>,
        prev: Option<&CniResult>,
    ) -> Result<(), Error> {
        let expected = match self.addresses {
            _ if ipam.is_some() => return Ok(()),
            Addresses::Optional => return Ok(()),
            Addresses::OrOfChain if prev.is_some_and(|prev| !prev.ips.is_empty()) => return Ok(()),
            Addresses::OrOfChain => {
                "a plugin for address management, or addresses in prevResult (ips)"
            }
            Addresses::Required => "a plugin for address management",
        };
        Err(Error::invalid("ipam.type", "nothing", expected))
    }

    /// How the link treats IPv6. Who shares a segment with others asks them before it uses an address.
    fn ipv6(&self, result: &CniResult) -> Ipv6 {
        let on_segment = Ipv6::on_segment(result);
        if self.master.is_some() {
            return on_segment;
        }
        Ipv6 { dad: Dad::Default, ..on_segment }
    }

    /// The socket by which the link is made: of the namespace that its master is in.
    fn socket(&self, request: &Request) -> Result<Socket, Error> {
        if !self.master.as_ref().is_some_and(|master| master.in_container) {
            return Ok(Socket::open(Family::Route)?);
        }
        let opened = request.netns()?.inside(|| Socket::open(Family::Route));
        Ok(opened
            .map_err(|why| setting_error("enter the container's network namespace", &why))??)
    }
}

/// ADD
///
/// # Errors
/// Whatever keeps the attachment from being whole; then nothing of it is left.
pub fn add(request: &Request, conf: &Conf) -> Result<CniResult, Error> {
    let (attachment, ipam) = attach::begin(request)?;
    let prev = match conf.addresses {
        Addresses::OrOfChain => request.conf.prev_result()?,
        _ => None,
    };
    conf.check_addresses(ipam.as_ref(), prev.as_ref())?;
    attach::carry_out(request, |undo| attach(request, conf, &attachment, ipam.as_ref(), prev, undo))
}

fn attach<'a>(
    request: &'a Request,
    conf: &'a Conf,
    attachment: &'a Attachment,
    ipam: Option<&'a Ipam<'a>>,
    prev: Option<CniResult>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let mut below = conf.socket(request)?;
    let master = match &conf.master {
        Some(master) => Some(master.find(&mut below)?),
        None => None,
    };
    if let Some(master) = &master {
        conf.check_mtu_on(master)?;
    }
    let mut result = match (ipam, prev) {
        (None, Some(prev)) => prev,
        _ => attach::lease_unless_over_link(request, ipam, undo)?,
    };
    conf::check_mtu_for(conf.mtu, &result)?;

    let birth = Birth { request, conf, attachment, master: master.as_ref() };
    birth.make(&mut below, undo)?;
    let label = attachment.label();
    let change = Change {
        alias: Some(&label),
        // The kernel gives it the master's, whatever was asked for.
        mac: conf.mac.filter(|_| birth.has_master_to_itself()),
        ..Change::default()
    };
    let mut container = birth.configure(&mut below, &result, change)?;
    if let Some(leased) = attach::lease_over_link(ipam, undo)? {
        conf::check_mtu_for(conf.mtu, &leased)?;
        result = leased;
        container = birth.configure(&mut below, &result, Change::default())?;
        container.announce()?;
    }
    let link = container.link()?;
    container.await_addresses(&result)?;

    attach::complete(&mut result, vec![attach::own_interface(request, &link)], &conf.dns);
    Ok(result)
}

/// How the link comes to be.
struct Birth<'a, 'm> {
    request: &'a Request,
    conf: &'a Conf,
    attachment: &'a Attachment,
    master: Option<&'m Link>,
}

impl<'a> Birth<'a, '_> {
    /// Makes the link, in the container.
    fn make(&self, below: &mut Socket, undo: &mut Undo<'a>) -> Result<(), Error> {
        let (request, name) = (self.request, &self.attachment.ifname);
        let netns = request.netns()?;
        let is_elsewhere = !self.conf.master.as_ref().is_some_and(|master| master.in_container);
        let new = NewChild {
            name,
            index: None,
            netns: is_elsewhere.then(|| netns.as_fd()),
            master: self.master.map(|master| master.index),
            mtu: self.conf.mtu,
            mac: self.conf.mac,
            child: self.conf.child,
        };
        let mut made = below.execute(&[&new]);
        if is_refused(&made, Errno::EEXIST) {
            veth::refuse_if_interface_exists(netns, name)?;
            if is_elsewhere && link::index_of(below, name)?.is_some() {
                // A kernel before 6.15 that takes the host's link of that name for ours.
                let index = Some(self.free_index(below)?);
                made = below.execute(&[&NewChild { index, ..new }]);
            }
        }
        match &made {
            // Before 6.15 others come before it that have the same cause.
            Err(refusal) if refusal.request.is_some() => {
                veth::refuse_if_interface_exists(netns, name)?;
            }
            // An answer that did not come through may have been a good one.
            _ => {
                let child = self.conf.child;
                undo.push(move || delete(request, child.kind()).map(drop));
            }
        }
        made.map_err(|refusal| {
            let rival = self.rival_of_link(&refusal, below);
            rival::named(refusal.into(), rival)
        })
    }

    /// An index for the link that no link on the host has; those of containers are far lower.
    fn free_index(&self, host: &mut Socket) -> Result<u32, Error> {
        let [a, b, c, ..] = sha256::digest_parts(&[b"index", self.attachment.label().as_bytes()]);
        let first = 1 << 24 | u32::from_be_bytes([0, a, b, c]);
        for index in first.. {
            if link::get(host, Target::Index(index))?.is_none() {
                return Ok(index);
            }
        }
        Ok(first)
    }

    /// Changes the link and brings it up with the result's addresses and routes.
    fn configure(
        &self,
        below: &mut Socket,
        result: &CniResult,
        change: Change<'_>,
    ) -> Result<Container<'a>, Error> {
        let ipv6 = self.conf.ipv6(result);
        let ifname = &self.attachment.ifname;
        let mut container = Container::require(self.request.netns()?, ifname, ipv6)?;
        if let Some(refusal) = container.bring_up_announced(result, ipv6.dad, change)? {
            let rival = self.rival_of_addresses(&refusal, below, result);
            return Err(rival::named(container.refused(refusal), rival));
        }
        Ok(container)
    }

    fn has_master_to_itself(&self) -> bool {
        matches!(self.conf.child, Child::Macvlan { mode: MacvlanMode::Passthru, .. })
    }

    /// What keeps the kernel from making the link.
    fn rival_of_link(&self, refusal: &nl::Error, below: &mut Socket) -> Option<String> {
        let master = self.master?;
        let search = rival::Search { request: self.request, master, below };
        let is_kind = |link: &Link, kinds: [&str; 2]| {
            link.kind.as_deref().is_some_and(|kind| kinds.contains(&kind))
        };
        match (refusal.errno, self.conf.child) {
            (Errno::EBUSY, Child::Macvlan { .. }) => {
                search.who_has_it(|link| is_kind(link, IPVLANS))
            }
            (Errno::EBUSY, Child::Ipvlan(_)) => search.who_has_it(|link| is_kind(link, MACVLANS)),
            (Errno::EINVAL, Child::Macvlan { .. }) => search.first(|_, link| {
                is_kind(link, MACVLANS)
                    && (self.has_master_to_itself()
                        || link.variant == Some(MacvlanMode::Passthru as u32))
            }),
            (Errno::EEXIST, Child::Vlan(id)) => search.who_has_the_rest(|_, link| {
                is_kind(link, ["vlan"; 2]) && link.variant == Some(id.into())
            }),
            _ => None,
        }
    }

    /// Who has an address that the kernel refuses.
    fn rival_of_addresses(
        &self,
        refusal: &nl::Error,
        below: &mut Socket,
        result: &CniResult,
    ) -> Option<String> {
        let master = self.master?;
        let search = rival::Search { request: self.request, master, below };
        match (refusal.errno, self.conf.child) {
            (Errno::EADDRINUSE, Child::Macvlan { .. }) => {
                let mac = self.conf.mac?;
                if master.mac == Some(mac) {
                    return Some(format!("master {:?} itself has address {mac}", master.name));
                }
                search.who_has_the_rest(|_, link| link.mac == Some(mac))
            }
            (Errno::EADDRINUSE, Child::Ipvlan(_)) => search.who_has_the_rest(|socket, link| {
                let found = addr::of_link(socket, link.index).unwrap_or_default();
                let wanted = |address| result.ips.iter().any(|ip| ip.address.address == address);
                found.iter().any(|found| wanted(found.cidr.address))
            }),
            (Errno::ENETDOWN, _) if !master.up => Some(format!("master {:?} is down", master.name)),
            _ => None,
        }
    }
}

fn is_refused(made: &Result<(), nl::Error>, errno: Errno) -> bool {
    made.as_ref().is_err_and(|error| error.errno == errno)
}

/// DEL of a plugin that makes links of this kind.
///
/// # Errors
/// The first failure, with the others behind it.
pub fn del(request: &Request, kind: &str) -> Result<(), Error> {
    detach::detach(request, || delete(request, kind))
}

fn delete(request: &Request, kind: &str) -> Result<bool, Error> {
    detach::delete_inside(request, |link| link.kind.as_deref() == Some(kind))
}

/// CHECK
///
/// # Errors
/// What is not as ADD has left it.
pub fn check(request: &Request, conf: &Conf) -> Result<(), Error> {
    request.netns()?;
    let prev = request.conf.required_prev_result()?;
    let ipam = Ipam::of(request)?;
    conf.check_addresses(ipam.as_ref(), Some(&prev))?;
    let check_kind = |link: &Link| check_kind(conf, link);
    let (_, link) = attach::check_inside(request, ipam.as_ref(), &prev, check_kind)?;
    check_master(request, conf, &link)
}

fn check_kind(conf: &Conf, link: &Link) -> Result<(), Error> {
    let expected = conf.child.kind();
    let found = link.kind_name();
    if found != expected {
        return Err(attach::fault(link, format_args!("is a {found}, not a {expected}")));
    }
    if link.variant == conf.child.variant() {
        return Ok(());
    }
    let what = if matches!(conf.child, Child::Vlan(_)) { "number" } else { "mode" };
    let shown = |variant: Option<u32>| variant.map_or("none".to_owned(), |v| v.to_string());
    let (found, expected) = (shown(link.variant), shown(conf.child.variant()));
    Err(attach::fault(link, format_args!("has {what} {found}, not {expected}")))
}

/// Sees whether the link is on the master that the configuration names. Where the default route leads may
/// have changed since ADD.
fn check_master(request: &Request, conf: &Conf, link: &Link) -> Result<(), Error> {
    let Some(master) = conf.master.as_ref().filter(|master| master.name.is_some()) else {
        return Ok(());
    };
    let found = master.find(&mut conf.socket(request)?)?;
    // On top of a macvlan or ipvlan the kernel takes what that one is on.
    let is_on_it = link.peer == Some(found.index) || link.peer.is_some() && link.peer == found.peer;
    if is_on_it && link.peer_netns.is_none() == master.in_container {
        return Ok(());
    }
    let (name, place) = (&found.name, master.place());
    Err(attach::fault(link, format_args!("is not on master {name:?} {place}")))
}

/// STATUS: sees whether an ADD would find what it needs.
///
/// # Errors
/// Code 50: the kernel lacks the kind of link; the master is missing or down; or address management can't.
pub fn status(request: &Request, conf: &Conf) -> Result<(), Error> {
    let mut host = Socket::open(Family::Route).map_err(|error| Error::from(error).unavailable())?;
    link::probe(&mut host, &[conf.child.kind()])
        .map_err(|error| Error::from(error).unavailable())?;
    if let Some(master) = conf.master.as_ref().filter(|master| !master.in_container)
        && !(master.name.is_none() && conf.addresses == Addresses::OrOfChain)
    {
        let found = master.find(&mut host).map_err(Error::unavailable)?;
        if !found.up {
            let msg = format!("master {:?} is down", found.name);
            return Err(Error::new(Code::Unavailable, msg));
        }
        conf.check_mtu_on(&found)?;
    }
    match Ipam::of(request)? {
        Some(ipam) => ipam.status(),
        None if conf.addresses == Addresses::Required => conf.check_addresses(None, None),
        // What the plugin before in the chain will lease is known to ADD alone: STATUS is given no prevResult
        // (spec section 4, "STATUS"), nor told whether there is a plugin before.
        None => Ok(()),
    }
}
