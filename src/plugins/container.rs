//! The container's side of an attachment: the link that was born there, its addresses and routes.
//!
//! The namespace is entered once, to open a socket and to write settings; all else goes over the
//! socket, which belongs to the namespace for ever.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::setting_error;
use crate::cni::result::{CniResult, Route};
use crate::cni::{Code, Error};
use crate::net::Cidr;
use crate::nl::monitor::{Changes, Monitor};
use crate::nl::request::Request as NlRequest;
use crate::nl::route::Route as KernelRoute;
use crate::nl::{self, Family, Socket, addr, link, route};
use crate::sys::netns::Netns;
use crate::sys::sysctl;

/// How long neighbours may take to object to an address.
const DAD_PATIENCE: Duration = Duration::from_secs(10);

/// Whether addresses are asked for among the neighbours before they are used (RFC 4862, section 5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dad {
    /// Left to the kernel's settings.
    Default,
    /// Left to the kernel's settings, and waited for.
    Awaited,
    /// Not done: address management knows that the addresses are unique.
    Off,
    /// Done, and waited for.
    On,
}

/// How a link in a container treats IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6 {
    /// Duplicate address detection.
    pub dad: Dad,
    /// Addresses stay when the link goes down, as those of IPv4 do.
    pub keep_addresses: bool,
    /// Neighbours are told when addresses come, as `arp_notify` does for IPv4.
    pub announce: bool,
}

impl Ipv6 {
    /// As the kernel does it by default.
    pub const DEFAULT: Self = Self { dad: Dad::Default, keep_addresses: false, announce: false };

    /// As fits the addresses of `result`, which are known to be unique. A link that has only IPv4 addresses
    /// is left alone: nobody waits for its link-local address.
    #[must_use]
    pub fn of(result: &CniResult) -> Self {
        let keep_addresses = has_ipv6(result);
        let dad = if result.ips.is_empty() || keep_addresses { Dad::Off } else { Dad::Default };
        Self { dad, keep_addresses, announce: false }
    }

    /// As fits the addresses of `result` on a segment with others, who are asked before an address is used, and
    /// told when it is.
    #[must_use]
    pub fn on_segment(result: &CniResult) -> Self {
        let has_ipv6 = has_ipv6(result);
        let dad = if has_ipv6 { Dad::Awaited } else { Dad::Default };
        Self { dad, keep_addresses: has_ipv6, announce: has_ipv6 }
    }

    /// The settings of the link that this takes, under `ipv6/conf/`.
    fn settings(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let dad: &[_] = match self.dad {
            Dad::Default | Dad::Awaited => &[],
            Dad::Off => &[("accept_dad", "0")],
            Dad::On => &[("enhanced_dad", "1"), ("accept_dad", "1")],
        };
        let keep = self.keep_addresses.then_some(("keep_addr_on_down", "1"));
        let announce = self.announce.then_some(("ndisc_notify", "1"));
        dad.iter().copied().chain(keep).chain(announce)
    }
}

/// A link in a container.
#[derive(Debug)]
pub struct Container<'a> {
    netns: &'a Netns,
    socket: Socket,
    /// Where changes of addresses show, if they are to be waited for.
    monitor: Option<Monitor>,
    ifname: &'a str,
    index: u32,
    /// The link's own routes, in the place of those to the networks of its addresses.
    own_routes: Option<Vec<KernelRoute>>,
}

impl<'a> Container<'a> {
    /// Enters the container and finds the link of this name; `None` if there is none.
    ///
    /// # Errors
    /// The namespace can't be entered, or a setting not be written.
    pub fn enter(netns: &'a Netns, ifname: &'a str, ipv6: Ipv6) -> Result<Option<Self>, Error> {
        let (container, ()) = Self::enter_after(netns, ifname, ipv6, |_| Ok(()))?;
        Ok(container)
    }

    /// Enters the container, has `make` make the link there, and finds it.
    ///
    /// # Errors
    /// As [`enter`](Self::enter); those of `make`.
    pub fn make<T>(
        netns: &'a Netns,
        ifname: &'a str,
        ipv6: Ipv6,
        make: impl FnOnce(&mut Socket) -> Result<T, Error>,
    ) -> Result<(Self, T), Error> {
        let (container, made) = Self::enter_after(netns, ifname, ipv6, make)?;
        Ok((container.ok_or_else(|| vanished(ifname))?, made))
    }

    fn enter_after<T>(
        netns: &'a Netns,
        ifname: &'a str,
        ipv6: Ipv6,
        first: impl FnOnce(&mut Socket) -> Result<T, Error>,
    ) -> Result<(Option<Self>, T), Error> {
        let inside = netns.inside(|| {
            let mut socket = Socket::open(Family::Route)?;
            let done = first(&mut socket)?;
            let Some(index) = link::index_of(&mut socket, ifname)? else { return Ok((None, done)) };
            set_ipv6(ifname, ipv6)?;
            if ipv6.keep_addresses {
                // The container reaches itself over the loopback interface.
                enable_ipv6("lo")?;
            }
            let waits = matches!(ipv6.dad, Dad::On | Dad::Awaited);
            let monitor = waits.then(|| Monitor::open(Changes::Ipv6Addresses)).transpose()?;
            let container = Self { netns, socket, monitor, ifname, index, own_routes: None };
            Ok::<_, Error>((Some(container), done))
        });
        inside.map_err(|why| setting_error("enter the container's network namespace", &why))?
    }

    /// Enters the container and finds the link that ADD has made there.
    ///
    /// # Errors
    /// As [`enter`](Self::enter); there is none.
    pub fn require(netns: &'a Netns, ifname: &'a str, ipv6: Ipv6) -> Result<Self, Error> {
        Self::enter(netns, ifname, ipv6)?.ok_or_else(|| vanished(ifname))
    }

    /// Has the link get these routes, made for its index, before the result's, in the place of the kernel's
    /// to the networks that its addresses are in.
    #[must_use]
    pub fn with_own_routes(self, routes: impl FnOnce(u32) -> Vec<KernelRoute>) -> Self {
        Self { own_routes: Some(routes(self.index)), ..self }
    }

    /// Brings the link up with its addresses and routes, in one conversation. Addresses come when it is up,
    /// so the kernel announces them (`arp_notify`) only if it comes up again: nobody knows them by another
    /// link-layer address yet.
    ///
    /// # Errors
    /// The kernel's refusal; `EACCES` that is due to IPv6 being off is mended first.
    pub fn configure(&mut self, result: &CniResult, dad: Dad) -> Result<(), Error> {
        let change = link::Change { up: true, arp_notify: true, ..link::Change::default() };
        match self.carry_out(result, dad, change, None)? {
            Some(refusal) => Err(self.refused(refusal)),
            None => Ok(()),
        }
    }

    /// The same with other changes of the link, where neighbours may know the addresses by another
    /// link-layer address: the kernel announces (`arp_notify`) those that are there when the link comes up.
    /// Returns the kernel's refusal as it came.
    ///
    /// # Errors
    /// IPv6 can't be switched on.
    pub fn bring_up_announced(
        &mut self,
        result: &CniResult,
        dad: Dad,
        change: link::Change<'_>,
    ) -> Result<Option<nl::Error>, Error> {
        let up = link::Change { up: true, ..link::Change::default() };
        self.carry_out(result, dad, link::Change { arp_notify: true, ..change }, Some(up))
    }

    /// The same, to the end: returns the link once its addresses can be used.
    ///
    /// # Errors
    /// The kernel's refusal; an address is in use by a neighbour.
    pub fn bring_up(
        &mut self,
        result: &CniResult,
        dad: Dad,
        change: link::Change<'_>,
    ) -> Result<link::Link, Error> {
        if let Some(refusal) = self.bring_up_announced(result, dad, change)? {
            return Err(self.refused(refusal));
        }
        let link = self.link()?;
        self.await_addresses(result)?;
        Ok(link)
    }

    /// Tells the neighbours of addresses that have come to a link that was up already: by its coming up the kernel
    /// would have told them.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn announce(&mut self) -> Result<(), Error> {
        let Some(mac) = self.link()?.mac else { return Ok(()) };
        let announce = link::Announce { link: self.index, mac };
        self.socket.execute(&[&announce]).map_err(|refusal| self.refused(refusal))
    }

    /// Changes the link before and after it is given its addresses, then come the routes.
    fn carry_out(
        &mut self,
        result: &CniResult,
        dad: Dad,
        before: link::Change<'_>,
        after: Option<link::Change<'_>>,
    ) -> Result<Option<nl::Error>, Error> {
        let target = link::Target::Index(self.index);
        let before = link::Set { target, change: before };
        let after = after.map(|change| link::Set { target, change });
        let address = |ip: &crate::cni::result::Ip| addr::Add {
            link: self.index,
            cidr: ip.address,
            without_dad: dad == Dad::Off,
            without_prefix_route: self.own_routes.is_some(),
        };
        let addresses: Vec<_> = result.ips.iter().map(address).collect();
        let routes: Vec<_> = self.routes(result).into_iter().map(route::Add).collect();
        let mut requests: Vec<&dyn NlRequest> = vec![&before];
        requests.extend(addresses.iter().map(|request| request as &dyn NlRequest));
        requests.extend(after.iter().map(|request| request as &dyn NlRequest));
        requests.extend(routes.iter().map(|request| request as &dyn NlRequest));

        let configured = match self.socket.execute(&requests) {
            Err(error) if error.errno == Errno::EACCES && has_ipv6(result) => {
                self.enable_ipv6()?;
                self.socket.execute(&requests)
            }
            other => other,
        };
        Ok(configured.err())
    }

    /// The kernel's refusal as an error that says where it happened.
    #[must_use]
    pub fn refused(&self, refusal: nl::Error) -> Error {
        Error::from(refusal).of(format_args!("container interface {:?}", self.ifname))
    }

    /// Reads another link of the container; `None` if there is none of that name.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn find_other(&mut self, name: &str) -> Result<Option<link::Link>, Error> {
        Ok(link::get(&mut self.socket, link::Target::Name(name))?)
    }

    /// Reads all links of the container.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn links(&mut self) -> Result<Vec<link::Link>, Error> {
        Ok(link::list(&mut self.socket)?)
    }

    /// Reads the link; `None` if it has gone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn find(&mut self) -> Result<Option<link::Link>, Error> {
        Ok(link::get(&mut self.socket, link::Target::Index(self.index))?)
    }

    /// Reads the link.
    ///
    /// # Errors
    /// It has gone, or the kernel refuses.
    pub fn link(&mut self) -> Result<link::Link, Error> {
        self.find()?.ok_or_else(|| {
            let msg = format!("container interface {:?}: it is missing", self.ifname);
            Error::new(Code::Internal, msg)
        })
    }

    /// Waits until the result's IPv6 addresses have proved to be unused by the neighbours, if that is
    /// asked of them. Without a carrier there is nobody to ask.
    ///
    /// # Errors
    /// One is in use, or its state is still open after 10 s.
    pub fn await_addresses(&mut self, result: &CniResult) -> Result<(), Error> {
        if self.monitor.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + DAD_PATIENCE;
        loop {
            let found = addr::of_link(&mut self.socket, self.index)?;
            let ours = |address: &&addr::Address| {
                result.ips.iter().any(|ip| ip.address.address == address.cidr.address)
            };
            if let Some(duplicate) = found.iter().filter(ours).find(|a| a.duplicate) {
                let msg = format!("address {} is in use by a neighbour", duplicate.cidr);
                return Err(Error::new(Code::Internal, msg));
            }
            let Some(open) = found.iter().filter(ours).find(|a| a.tentative) else { return Ok(()) };
            if !self.link()?.carrier {
                return Ok(());
            }
            let Some(monitor) = &self.monitor else { return Ok(()) };
            if !monitor.wait(self.index, deadline)? {
                let msg = format!(
                    "whether address {} is in use by a neighbour is still open after {} s",
                    open.cidr,
                    DAD_PATIENCE.as_secs()
                );
                return Err(Error::new(Code::Internal, msg));
            }
        }
    }

    /// Sees whether the link is as [`configure`](Self::configure) has left it.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&mut self, result: &CniResult) -> Result<link::Link, Error> {
        let ifname = self.ifname;
        let fault = |what: String| {
            Error::new(Code::Internal, format!("container interface {ifname:?}: {what}"))
        };
        let link = self.link()?;
        let found = addr::of_link(&mut self.socket, self.index)?;
        for ip in &result.ips {
            if !found.iter().any(|address| address.cidr == ip.address && !address.duplicate) {
                return Err(fault(format!("address {} is missing", ip.address)));
            }
        }
        let found = route::of_link(&mut self.socket, self.index)?;
        for route in self.routes(result) {
            if !found.iter().any(|other| route.is(other)) {
                return Err(fault(format!("route {route} is missing")));
            }
        }
        Ok(link)
    }

    /// Index of the link's other end on the host; `None` if it is no end of a veth pair.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn peer(&mut self) -> Result<Option<u32>, Error> {
        Ok(self.find()?.filter(link::Link::is_veth).and_then(|link| link.peer))
    }

    /// Has the kernel carry out these requests in the container.
    ///
    /// # Errors
    /// Its refusal.
    pub fn execute(&mut self, requests: &[&dyn NlRequest]) -> Result<(), nl::Error> {
        self.socket.execute(requests)
    }

    /// Deletes the link. That it has gone already is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete(&mut self) -> Result<(), Error> {
        match self.socket.execute(&[&link::Delete(link::Target::Index(self.index))]) {
            Err(error) if error.errno == Errno::ENODEV => Ok(()),
            other => other.map_err(Error::from),
        }
    }

    /// The link's own routes, and the result's as the kernel is to have them: without a next hop of their
    /// own they lead through the first gateway of their family.
    fn routes(&self, result: &CniResult) -> Vec<KernelRoute> {
        // A next hop that no route of its own leads to was on the link by the network's.
        let is_reached = |hop: IpAddr, own: &[KernelRoute]| {
            own.iter().any(|route| route.gateway.is_none() && route.destination.contains(hop))
                || !result.ips.iter().any(|ip| ip.address.contains(hop))
        };
        let onlink = |hop| self.own_routes.as_ref().is_some_and(|own| !is_reached(hop, own));
        let route = |route: &Route| KernelRoute {
            destination: Cidr { address: route.dst.network(), prefix: route.dst.prefix },
            gateway: next_hop(route, result),
            onlink: next_hop(route, result).is_some_and(onlink),
            source: None,
            link: self.index,
            // The kernel takes 0 for the main table.
            table: route.table.filter(|table| *table != 0).unwrap_or(route::TABLE_MAIN),
            priority: route.priority,
            scope: route.scope.and_then(|scope| u8::try_from(scope).ok()),
            mtu: route.mtu,
            advmss: route.advmss,
        };
        let own = self.own_routes.iter().flatten().copied();
        own.chain(result.routes.iter().map(route)).collect()
    }

    /// Turns IPv6 on where the container's defaults have it off for the link.
    fn enable_ipv6(&self) -> Result<(), Error> {
        let written = self.netns.inside(|| enable_ipv6(self.ifname));
        written.map_err(|why| setting_error("enter the container's network namespace", &why))?
    }
}

fn vanished(ifname: &str) -> Error {
    Error::new(Code::Internal, format!("container interface {ifname:?} has vanished"))
}

/// The next hop of a route: its own, or the first gateway of its family, unless its scope says that who is there is
/// on the link.
#[must_use]
pub fn next_hop(route: &Route, result: &CniResult) -> Option<IpAddr> {
    let is_on_link = route.scope.is_some_and(|scope| scope >= libc::RT_SCOPE_LINK.into());
    let of_family = |gateway: &IpAddr| gateway.is_ipv4() == route.dst.address.is_ipv4();
    let mut gateways = result.ips.iter().filter_map(|ip| ip.gateway).filter(|_| !is_on_link);
    route.gw.or_else(|| gateways.find(of_family))
}

/// Whether there is an IPv6 address among the result's.
#[must_use]
pub fn has_ipv6(result: &CniResult) -> bool {
    result.ips.iter().any(|ip| ip.address.address.is_ipv6())
}

/// Turns IPv6 on for a link, if it is off. A kernel without IPv6 has nothing to turn on.
fn enable_ipv6(ifname: &str) -> Result<(), Error> {
    let name = format!("ipv6/conf/{ifname}/disable_ipv6");
    match sysctl::ensure(&name, "0") {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(setting_error(format_args!("set sysctl {name} to 0"), &why))
        }
        _ => Ok(()),
    }
}

/// Writes the link's settings; those of DAD are for the link-local address above all. A link without
/// IPv6 has none.
fn set_ipv6(ifname: &str, ipv6: Ipv6) -> Result<(), Error> {
    for (name, value) in ipv6.settings() {
        let name = format!("ipv6/conf/{ifname}/{name}");
        match sysctl::write(&name, value) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                return Err(setting_error(format_args!("set sysctl {name} to {value}"), &why));
            }
            _ => {}
        }
    }
    Ok(())
}
