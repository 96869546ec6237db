//! The veth pair that connects a container with the host: made in one conversation, connected in another
//! once the container's end is ready, found again by a name that follows from the attachment's, and
//! deleted.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::container::{Container, Ipv6};
use super::undo::Undo;
use super::{deletion, setting_error};
use crate::cni::{Attachment, Code, Error, Request};
use crate::net::Mac;
use crate::nl::link::{Change, Link, PortFlags, Target};
use crate::nl::monitor::{Changes, Monitor};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Family, Socket, link};
use crate::sys::netns::Netns;
use crate::sys::sysctl;

/// How long the kernel may take to see that both ends of a pair are up.
const CARRIER_PATIENCE: Duration = Duration::from_secs(5);

/// What a pair is to be like.
#[derive(Debug)]
pub struct Pair<'a> {
    /// Whose it is; its interface name is that of the container's end.
    pub attachment: &'a Attachment,
    /// Where the container's end is born.
    pub netns: &'a Netns,
    /// Address of the container's end.
    pub container_mac: Mac,
    /// MTU of both ends; none for the kernel's default.
    pub mtu: Option<u32>,
    /// Settings of the bridge's port that the host's end is to be; none for a link by itself.
    pub port: Option<PortFlags>,
    /// Whether the host's end is up from the beginning, or not before [`bring_up`](Self::bring_up).
    pub up: bool,
}

impl<'a> Pair<'a> {
    /// Makes the pair. What an earlier ADD of the same attachment has left on the host is replaced.
    ///
    /// # Errors
    /// The kernel's refusal; the container has an interface of that name.
    pub fn make(&self, host: &mut Socket, undo: &mut Undo<'a>) -> Result<(), Error> {
        self.make_by(host, undo, |host, requests| host.execute(requests))
    }

    /// Makes the pair, and reads its host end in the same conversation.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub fn make_and_read(&self, host: &mut Socket, undo: &mut Undo<'a>) -> Result<Link, Error> {
        let name = self.attachment.host_link();
        let read = |host: &mut Socket, requests: &[&dyn NlRequest]| {
            link::execute_then_get(host, requests, Target::Name(&name))
        };
        self.make_by(host, undo, read)
    }

    fn make_by<T>(
        &self,
        host: &mut Socket,
        undo: &mut Undo<'a>,
        execute: impl FnOnce(&mut Socket, &[&dyn NlRequest]) -> Result<T, nl::Error>,
    ) -> Result<T, Error> {
        let attachment = self.attachment;
        let (name, label) = (attachment.host_link(), attachment.label());
        let veth = link::NewVeth {
            name: &name,
            mac: attachment.host_mac(),
            mtu: self.mtu,
            peer_name: &attachment.ifname,
            peer_mac: self.container_mac,
            peer_netns: Some(self.netns.as_fd()),
        };
        // What the kernel does not take when it makes a link. The link comes up last: while it is up a
        // change of the alias would be told to everybody, and IPv6 would look through all its routes.
        let target = Target::Name(&name);
        let alias =
            link::Set { target, change: Change { alias: Some(&label), ..Change::default() } };
        let up = link::Set { target, change: Change { up: true, ..Change::default() } };

        // A refusal to make the pair would not keep the kernel from setting up the link that has the
        // name.
        if link::index_of(host, &name)?.is_some() {
            refuse_if_interface_exists(self.netns, &attachment.ifname)?;
            // It is of an earlier ADD, into another namespace, that was never undone.
            delete_own(host, &name, &label)?;
        }
        let mut requests: Vec<&dyn NlRequest> = vec![&veth, &alias];
        if self.up {
            requests.push(&up);
        }
        let made = execute(host, &requests);
        if let Err(error) = &made
            && (error.errno, error.request) == (Errno::EEXIST, Some(0))
        {
            refuse_if_interface_exists(self.netns, &attachment.ifname)?;
        } else {
            undo.push(move || delete_own(&mut Socket::open(Family::Route)?, &name, &label));
        }
        let made = made?;
        if self.port.is_some() {
            disable_ipv6(&attachment.host_link());
        }
        Ok(made)
    }

    /// Makes the host's end a port of a bridge, and returns it.
    ///
    /// If the container's end is up already the port has a carrier, and the bridge enables it a single time;
    /// each time costs the kernel a walk over all ports.
    ///
    /// # Errors
    /// The kernel's refusal: the bridge has no room for another port, for one.
    pub fn connect(&self, host: &mut Socket, bridge: u32) -> Result<Link, nl::Error> {
        let name = self.attachment.host_link();
        self.join(bridge, |requests| link::execute_then_get(host, requests, Target::Name(&name)))
    }

    /// Makes the host's end, which is down, a port of a bridge, has the kernel carry out what `then` asks of
    /// the port, and returns the bridge as it is afterwards.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). What is behind a refused request is carried out all the same.
    pub fn connect_down(
        &self,
        host: &mut Socket,
        bridge: u32,
        then: &[&dyn NlRequest],
    ) -> Result<Link, nl::Error> {
        self.join(bridge, |requests| {
            let requests = [requests, then].concat();
            link::execute_then_get(host, &requests, Target::Index(bridge))
        })
    }

    fn join<T>(&self, bridge: u32, hand_on: impl FnOnce(&[&dyn NlRequest]) -> T) -> T {
        let name = self.attachment.host_link();
        let target = Target::Name(&name);
        let change = Change { master: Some(bridge), ..Change::default() };
        let join = link::Set { target, change };
        // Only a port has a port's settings.
        let settings =
            link::Set { target, change: Change { port: self.port, ..Change::default() } };
        let has_settings = self.port.is_some_and(|flags| flags != PortFlags::default());
        let requests: &[&dyn NlRequest] = if has_settings { &[&join, &settings] } else { &[&join] };
        hand_on(requests)
    }

    /// Brings up the host's end, and returns it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn bring_up(&self, host: &mut Socket) -> Result<Link, nl::Error> {
        let name = self.attachment.host_link();
        let target = Target::Name(&name);
        let up = link::Set { target, change: Change { up: true, ..Change::default() } };
        link::execute_then_get(host, &[&up], target)
    }
}

/// Waits until the host's end of a pair, as just read, is in operation, and returns it as `read` sees it.
///
/// Its other end came up after it. The kernel brings that change to an end when it is asked for the link,
/// since 6.8.
///
/// # Errors
/// Those of `read`; the link is still not in operation after 5 s.
pub fn await_carrier(
    link: Link,
    mut read: impl FnMut() -> Result<Link, Error>,
) -> Result<Link, Error> {
    if link.operational {
        return Ok(link);
    }
    let monitor = Monitor::open(Changes::Links)?;
    let deadline = Instant::now() + CARRIER_PATIENCE;
    loop {
        let link = read()?;
        if link.operational {
            return Ok(link);
        }
        if !monitor.wait(link.index, deadline)? {
            let (name, patience) = (&link.name, CARRIER_PATIENCE.as_secs());
            let msg = format!("host interface {name:?} is not up after {patience} s");
            return Err(Error::new(Code::Internal, msg));
        }
    }
}

/// Turns IPv6 off on a host's end that speaks none itself. The kernel would give it a route for multicast,
/// and look at those of all other links first. Where the setting can't be written that is all the harm.
pub fn disable_ipv6(link: &str) {
    let _ = sysctl::write(&format!("ipv6/conf/{link}/disable_ipv6"), "1");
}

/// Sees to it that the container has no interface of this name yet.
///
/// # Errors
/// It has one.
pub fn refuse_if_interface_exists(netns: &Netns, ifname: &str) -> Result<(), Error> {
    let read = || link::get(&mut Socket::open(Family::Route)?, Target::Name(ifname));
    let found = netns.inside(read);
    let found =
        found.map_err(|why| setting_error("enter the container's network namespace", &why))?;
    match found? {
        None => Ok(()),
        Some(_) => Err(interface_exists(ifname)),
    }
}

/// The container has an interface of this name already.
#[must_use]
pub fn interface_exists(ifname: &str) -> Error {
    let msg = format!(
        "container interface {ifname:?} already exists; DEL of its attachment would remove it"
    );
    Error::new(Code::Internal, msg).with_details("EEXIST")
}

/// Sees whether a link is the host's end of a pair with this MTU, if one is asked for. The container's end
/// is not compared: plugin tuning may have given it another.
///
/// # Errors
/// It is not.
pub fn check_host_end(link: &Link, mtu: Option<u32>) -> Result<(), Error> {
    let fault = |what: String| {
        let msg = format!("host interface {:?} {what}", link.name);
        Err(Error::new(Code::Internal, msg))
    };
    match mtu {
        _ if !link.is_veth() => fault("is not a veth".into()),
        Some(mtu) if link.mtu != mtu => fault(format!("has an MTU of {}, not {mtu}", link.mtu)),
        _ => Ok(()),
    }
}

/// Sees whether two links, in the container and on the host, are one pair.
///
/// # Errors
/// They are not.
pub fn check_ends(inside: &Link, outside: &Link) -> Result<(), Error> {
    let connected = inside.peer == Some(outside.index) && outside.peer == Some(inside.index);
    if inside.is_veth() && connected {
        return Ok(());
    }
    let (inside, outside) = (&inside.name, &outside.name);
    let msg = format!("{inside:?} and {outside:?} are not the two ends of a veth pair");
    Err(Error::new(Code::Internal, msg))
}

/// Deletes the attachment's pair by its host's end, and says whether there was one. If there is none the
/// pair may be one that the reference's plugin has made, under a name that only its peer tells.
///
/// # Errors
/// The kernel's refusal.
pub fn delete(request: &Request) -> Result<bool, Error> {
    let attachment = request.attachment();
    let mut host = Socket::open(Family::Route)?;
    if deletion::shared(&mut host, &attachment.host_link())? {
        return Ok(true);
    }
    let Some(netns) = request.netns_if_any()? else { return Ok(false) };
    let container = Container::enter(netns, &attachment.ifname, Ipv6::DEFAULT)?;
    let Some(mut container) = container else { return Ok(false) };
    let Some(peer) = container.peer()? else { return Ok(false) };
    let of_another = link::get(&mut host, Target::Index(peer))?
        .and_then(|link| link.alias)
        .and_then(|alias| Attachment::from_label(&alias))
        .is_some_and(|other| other != attachment);
    if of_another {
        return Ok(false);
    }
    container.delete().map(|()| true)
}

/// Deletes a link unless it says that it is another's.
///
/// # Errors
/// It is another's; the kernel's refusal.
pub fn delete_own(host: &mut Socket, name: &str, label: &str) -> Result<(), Error> {
    match link::get(host, Target::Name(name))? {
        Some(link) if link.alias.as_deref().is_none_or(|alias| alias == label) => {
            deletion::by_name(host, name).map(drop)
        }
        Some(link) => {
            let owner = link.alias.unwrap_or_default();
            let msg = format!("link {name:?} exists and is another's: its alias is {owner:?}");
            Err(Error::new(Code::Internal, msg))
        }
        None => Ok(()),
    }
}
