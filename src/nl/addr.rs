//! Addresses of links: `RTM_NEWADDR`, `RTM_DELADDR`, `RTM_GETADDR` (rtnetlink(7), linux/if_addr.h).

use std::fmt;
use std::net::IpAddr;

use nix::errno::Errno;

use super::error::Error;
use super::request::{Query, Request};
use super::socket::{Channel, Socket};
use super::wire::{Encoder, Flags, Malformed, Message};
use crate::net::{Cidr, width};

/// Length of `struct ifaddrmsg` (linux/if_addr.h).
const HEADER: usize = 8;
/// `IFA_TARGET_NETNSID` (linux/if_addr.h, since 4.20): the namespace that is asked about.
const IFA_TARGET_NETNSID: u16 = 10;

/// `struct ifaddrmsg`: family, prefix length, flags, scope, link index.
fn header(out: &mut Encoder, family: u8, prefix: u8, flags: u8, link: u32) {
    const SCOPE_UNIVERSE: u8 = libc::RT_SCOPE_UNIVERSE;
    out.raw(&[family, prefix, flags, SCOPE_UNIVERSE]);
    out.raw(&link.to_ne_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "address families are below 256")]
pub(super) const fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// An address as the kernel describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Index of its link.
    pub link: u32,
    /// The address and its prefix.
    pub cidr: Cidr,
    /// Valid on this link only (`RT_SCOPE_LINK`): an IPv6 link-local address, for one.
    pub link_local: bool,
    /// Found to be in use by another (`IFA_F_DADFAILED`).
    pub duplicate: bool,
    /// Not yet found to be unused, so not yet usable (`IFA_F_TENTATIVE`).
    pub tentative: bool,
}

/// Gives a link an address: `ip addr add 10.1.0.2/24 brd + dev eth0`. One that is there already is no
/// error.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// Index of the link.
    pub link: u32,
    /// The address and its prefix.
    pub cidr: Cidr,
    /// Of IPv6: use it at once, without first asking the neighbours (`IFA_F_NODAD`).
    pub without_dad: bool,
    /// Make no route to the network that the address is in (`IFA_F_NOPREFIXROUTE`).
    pub without_prefix_route: bool,
}

impl fmt::Display for Add {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "add address {} to link {}", self.cidr, self.link)
    }
}

impl Request for Add {
    fn kind(&self) -> u16 {
        libc::RTM_NEWADDR
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        let Cidr { address, prefix } = self.cidr;
        let mut flags = 0;
        if self.without_dad && address.is_ipv6() {
            flags |= libc::IFA_F_NODAD;
        }
        if self.without_prefix_route {
            flags |= libc::IFA_F_NOPREFIXROUTE;
        }
        // Those beyond a byte go into an attribute, which then counts instead of the header.
        let in_header = u8::try_from(flags);
        header(out, family_of(address), prefix, in_header.unwrap_or(0), self.link);
        out.put(libc::IFA_LOCAL, &address);
        if in_header.is_err() {
            out.put(libc::IFA_FLAGS, &flags);
        }
        out.put(libc::IFA_ADDRESS, &address);
        // A /31 or /32 has no broadcast address (RFC 3021).
        if address.is_ipv4() && prefix < width(address) - 1 {
            out.put(libc::IFA_BROADCAST, &self.cidr.last());
        }
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::EEXIST
    }
}

/// Takes an address from a link: `ip addr del …`. One that is not there is no error.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// Index of the link.
    pub link: u32,
    /// The address and its prefix.
    pub cidr: Cidr,
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove address {} from link {}", self.cidr, self.link)
    }
}

impl Request for Delete {
    fn kind(&self) -> u16 {
        libc::RTM_DELADDR
    }

    fn body(&self, out: &mut Encoder) {
        let Cidr { address, prefix } = self.cidr;
        header(out, family_of(address), prefix, 0, self.link);
        out.put(libc::IFA_LOCAL, &address);
        out.put(libc::IFA_ADDRESS, &address);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::EADDRNOTAVAIL
    }
}

/// Asks for the addresses of one link: `ip addr show dev cni0`.
#[derive(Clone, Copy, Debug)]
struct List {
    link: u32,
    /// Number by which our namespace knows the one that the link is in, if that is another.
    netns: Option<i32>,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list addresses of link {}", self.link)
    }
}

impl Request for List {
    fn kind(&self) -> u16 {
        libc::RTM_GETADDR
    }

    fn body(&self, out: &mut Encoder) {
        header(out, 0, 0, 0, self.link);
        if let Some(netns) = self.netns {
            out.put(IFA_TARGET_NETNSID, &netns.cast_unsigned());
        }
    }
}

impl Query for List {
    type Reply = Address;

    fn decode(&self, message: &Message<'_>) -> Result<Address, Malformed> {
        if message.kind != libc::RTM_NEWADDR {
            return Err(Malformed("expected an address"));
        }
        let ([_family, prefix, flags, scope, link @ ..], attributes) = message.split::<HEADER>()?;
        let (mut local, mut address, mut flags) = (None, None, u32::from(*flags));
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                libc::IFA_LOCAL => local = Some(attribute.ip()?),
                libc::IFA_ADDRESS => address = Some(attribute.ip()?),
                libc::IFA_FLAGS => flags = attribute.u32()?,
                _ => {}
            }
        }
        // Of a point-to-point address IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL otherwise.
        let address = local.or(address).ok_or(Malformed("address message without address"))?;
        if *prefix > width(address) {
            return Err(Malformed("prefix longer than its address"));
        }
        Ok(Address {
            link: u32::from_ne_bytes(*link),
            cidr: Cidr { address, prefix: *prefix },
            link_local: *scope == libc::RT_SCOPE_LINK,
            duplicate: flags & libc::IFA_F_DADFAILED != 0,
            tentative: flags & libc::IFA_F_TENTATIVE != 0,
        })
    }

    /// Asked without a family, the kernel also lists what is no IP address: MCTP's, Phonet's.
    fn decode_item(&self, message: &Message<'_>) -> Result<Vec<Address>, Malformed> {
        #[expect(clippy::cast_possible_truncation, reason = "address families are below 256")]
        const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
        match message.payload.first() {
            Some(family) if !FAMILIES.contains(family) => Ok(Vec::new()),
            // A kernel that does not know the question answers about our own namespace.
            _ if netns_of(message)? != self.netns => Ok(Vec::new()),
            _ => self.decode(message).map(|address| vec![address]),
        }
    }
}

/// The namespace that an answer is about, if it is not our own.
fn netns_of(message: &Message<'_>) -> Result<Option<i32>, Malformed> {
    let (_, attributes) = message.split::<HEADER>()?;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == IFA_TARGET_NETNSID {
            return Ok(Some(attribute.u32()?.cast_signed()));
        }
    }
    Ok(None)
}

/// Reads the addresses of one link, of both families.
///
/// # Errors
/// The kernel's refusal.
pub fn of_link<C: Channel>(socket: &mut Socket<C>, link: u32) -> Result<Vec<Address>, Error> {
    list(socket, List { link, netns: None })
}

/// Reads the addresses of all links as one answer tells them, which need not be all.
///
/// # Errors
/// The kernel's refusal.
pub fn of_all_links<C: Channel>(socket: &mut Socket<C>) -> Result<Vec<Address>, Error> {
    Ok(socket.dump_once(&List { link: 0, netns: None })?.objects)
}

/// Reads the addresses of a link in another namespace, by the number that our own has for it
/// ([`Link::peer_netns`](super::link::Link::peer_netns)).
///
/// # Errors
/// The kernel's refusal: `EPERM` without `CAP_NET_ADMIN` there; it is older than 4.20.
pub fn of_link_in<C: Channel>(
    socket: &mut Socket<C>,
    netns: i32,
    link: u32,
) -> Result<Vec<Address>, Error> {
    list(socket, List { link, netns: Some(netns) })
}

/// Has the kernel carry out `requests`, and reads the addresses of one link as they leave them, in one
/// datagram.
///
/// # Errors
/// The first refusal.
pub fn execute_then_list<C: Channel>(
    socket: &mut Socket<C>,
    requests: &[&dyn Request],
    link: u32,
) -> Result<Vec<Address>, Error> {
    execute_then(socket, requests, List { link, netns: None })
}

fn list<C: Channel>(socket: &mut Socket<C>, question: List) -> Result<Vec<Address>, Error> {
    execute_then(socket, &[], question)
}

fn execute_then<C: Channel>(
    socket: &mut Socket<C>,
    requests: &[&dyn Request],
    question: List,
) -> Result<Vec<Address>, Error> {
    let link = question.link;
    let mut addresses = socket.execute_then_dump(requests, &question)?;
    // A kernel before 5.0 ignores the filter.
    addresses.retain(|address| address.link == link);
    Ok(addresses)
}

#[cfg(test)]
mod tests;
