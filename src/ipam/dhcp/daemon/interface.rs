//! A container's interface, and what a lease does with it.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;

use crate::cni::{Code, Error};
use crate::ipam::dhcp::terms::{self, Terms};
use crate::net::Mac;
use crate::nl::link::{self, Change, Link, Target};
use crate::nl::request::Request;
use crate::nl::watch::Nsid;
use crate::nl::{Family, Socket, addr, nsid, route};
use crate::sys::netns::Netns;
use crate::sys::packet::{PacketSocket, Protocol};

/// `SO_NETNS_COOKIE` (asm-generic/socket.h, since Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;
/// Servers' MTUs below this are not believed: a host must take datagrams of this size (RFC 791).
const SMALLEST_MTU: u16 = 576;

/// A network namespace, entered as far as a socket is.
pub struct Inside {
    netns: Netns,
    socket: Socket,
}

impl Inside {
    /// Opens the namespace at `path`, and a socket in it.
    ///
    /// # Errors
    /// Code 8: there is none, or it can't be entered.
    pub fn enter(path: &Path) -> Result<Self, Error> {
        let error = |why: &dyn std::fmt::Display| {
            let msg = format!("cannot open network namespace {:?}: {why}", path.display());
            Error::new(Code::InvalidNetns, msg)
        };
        let netns = Netns::open(path).map_err(|why| error(&why))?;
        let socket = netns.inside(|| Socket::open(Family::Route)).map_err(|why| error(&why))??;
        Ok(Self { netns, socket })
    }

    /// By what the namespace is told from all others since the machine was started; as far as an old kernel
    /// tells, from those that are there.
    ///
    /// # Errors
    /// Those of getsockopt(2) and stat(2).
    pub fn identity(&self) -> Result<u64, Error> {
        let mut cookie = 0_u64;
        let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).unwrap_or(0);
        let (to, room) = ((&raw mut cookie).cast(), &raw mut length);
        let fd = self.socket.fd().as_raw_fd();
        // SAFETY: both outlive the call, and the length is that of the cookie.
        let told = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, to, room) };
        match Errno::result(told) {
            Ok(_) => Ok(cookie),
            Err(_) => {
                self.netns.number().map_err(|why| Error::io("identify a network namespace", why))
            }
        }
    }

    /// The number by which it is heard of; see [`crate::nl::watch`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn number(&self, host: &mut Socket) -> Result<Nsid, Error> {
        if self.netns.is_current().unwrap_or(false) {
            return Ok(None);
        }
        Ok(Some(nsid::assign(host, self.netns.as_fd())?))
    }

    /// Reads a link; `None` if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn link(&mut self, target: Target<'_>) -> Result<Option<Link>, Error> {
        Ok(link::get(&mut self.socket, target)?)
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn bring_up(&mut self, index: u32) -> Result<(), Error> {
        let change = Change { up: true, ..Change::default() };
        Ok(self.socket.execute(&[&link::Set { target: Target::Index(index), change }])?)
    }

    /// Opens a packet socket on a link.
    ///
    /// # Errors
    /// The namespace can't be entered, or the link has vanished.
    pub fn packets(
        &self,
        protocol: Protocol,
        link: u32,
        filter: &[libc::sock_filter],
    ) -> Result<PacketSocket, Error> {
        let error = |errno: Errno| {
            let msg = format!("cannot open a packet socket on link {link}: {errno:?}");
            Error::new(Code::Internal, msg).with_details(errno.desc())
        };
        let opened = self.netns.inside(|| PacketSocket::open(protocol, link, filter));
        opened.map_err(|why| Error::io("enter a network namespace", why))?.map_err(error)
    }

    /// The link-local address of a link, once it can be used (RFC 4862, section 5.3).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn link_local(&mut self, link: u32) -> Result<Option<Ipv6Addr>, Error> {
        let is_usable =
            |found: &&addr::Address| found.link_local && !found.tentative && !found.duplicate;
        let addresses = addr::of_link(&mut self.socket, link)?;
        Ok(addresses.iter().filter(is_usable).find_map(|found| match found.cidr.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }))
    }

    /// Opens a UDP socket on a link's link-local address.
    ///
    /// # Errors
    /// The namespace can't be entered; there is no such address; another program has the port.
    pub fn datagrams(&mut self, port: u16, link: u32) -> Result<UdpSocket, Error> {
        let address = self.link_local(link)?.ok_or_else(|| {
            let msg = format!("link {link} has no link-local IPv6 address");
            Error::new(Code::Internal, msg)
        })?;
        let address = SocketAddrV6::new(address, port, 0, link);
        let opened = self.netns.inside(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let opened = opened.map_err(|why| Error::io("enter a network namespace", why))?;
        let what = format_args!("open UDP port {port} on link {link}");
        opened.map_err(|why: io::Error| Error::io(what, why))
    }

    /// Gives the link the MTU that the server names, if it has another.
    ///
    /// # Errors
    /// The kernel's refusal: the link below has a smaller one.
    pub fn set_mtu(&mut self, index: u32, terms: &Terms) -> Result<(), Error> {
        let Some(mtu) = terms.mtu.filter(|mtu| *mtu >= SMALLEST_MTU) else { return Ok(()) };
        let change = Change { mtu: Some(mtu.into()), ..Change::default() };
        Ok(self.socket.execute(&[&link::Set { target: Target::Index(index), change }])?)
    }

    /// Changes addresses and routes of a link from those of one lease to those of another; of none to none.
    /// Routes come with the metric `priority`. What is not there to be removed is passed over. Neighbours are told of
    /// a new address, by the link's address `mac`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn change(
        &mut self,
        index: u32,
        mac: Mac,
        from: Option<&Terms>,
        to: Option<&Terms>,
        priority: u32,
    ) -> Result<(), Error> {
        let routes = |terms: Option<&Terms>| -> Vec<route::Route> {
            let route = |route: &terms::Route| kernel_route(index, route, priority);
            terms.map_or_else(Vec::new, |terms| terms.routes.iter().map(route).collect())
        };
        let (old_routes, new_routes) = (routes(from), routes(to));
        let stays = from.map(|terms| terms.address) == to.map(|terms| terms.address);
        // With the address goes all that leads through it, so routes come again.
        let is_new = |route: &&route::Route| !stays || !old_routes.contains(route);
        let is_old = |route: &&route::Route| !stays || !new_routes.contains(route);
        let removed: Vec<_> = old_routes.iter().filter(is_old).map(|r| route::Delete(*r)).collect();
        let added: Vec<_> = new_routes.iter().filter(is_new).map(|r| route::Add(*r)).collect();
        let old = from.filter(|_| !stays);
        let old = old.map(|terms| addr::Delete { link: index, cidr: terms.address });
        let new = to.filter(|_| !stays).map(|terms| addr::Add {
            link: index,
            cidr: terms.address,
            without_dad: false,
            without_prefix_route: false,
        });
        let change = Change { arp_notify: true, ..Change::default() };
        let notify = new.map(|_| link::Set { target: Target::Index(index), change });
        let announce = new.map(|_| link::Announce { link: index, mac });
        let mut requests: Vec<&dyn Request> = Vec::new();
        requests.extend(removed.iter().map(|request| request as &dyn Request));
        // The old one first: one that is second in its network goes with the first.
        requests.extend(old.iter().map(|request| request as &dyn Request));
        requests.extend(new.iter().map(|request| request as &dyn Request));
        requests.extend(added.iter().map(|request| request as &dyn Request));
        requests.extend(notify.iter().map(|request| request as &dyn Request));
        requests.extend(announce.iter().map(|request| request as &dyn Request));
        Ok(self.socket.execute(&requests)?)
    }

    /// Takes a link down.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn take_down(&mut self, index: u32) -> Result<(), Error> {
        Ok(self.socket.execute(&[&link::SetDown(Target::Index(index))])?)
    }
}

/// The address of a link that can carry a lease.
///
/// # Errors
/// It has none of Ethernet's.
pub fn mac_of(link: &Link) -> Result<Mac, Error> {
    link.mac.ok_or_else(|| {
        let msg = format!("link {:?} has no Ethernet address to lease for", link.name);
        Error::new(Code::Internal, msg)
    })
}

/// A route as the plugins make it of a result.
fn kernel_route(link: u32, route: &terms::Route, priority: u32) -> route::Route {
    route::Route {
        gateway: route.via,
        priority,
        scope: route.via.is_none().then_some(libc::RT_SCOPE_LINK),
        ..route::Route::through(link, route.to)
    }
}
