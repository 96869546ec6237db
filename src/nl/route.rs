//! Routes: `RTM_NEWROUTE`, `RTM_DELROUTE`, `RTM_GETROUTE` (rtnetlink(7), linux/rtnetlink.h).

mod flush;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::addr::family_of;
use super::error::Error;
use super::request::{Query, Request};
use super::socket::{Channel, Socket};
use super::wire::{Attribute, Attributes, Encoder, Flags, Malformed, Message};
use crate::net::{Cidr, width};

pub use flush::flush;

/// Length of `struct rtmsg` (linux/rtnetlink.h).
const HEADER: usize = 12;
/// `RTAX_MTU`, `RTAX_ADVMSS` (linux/rtnetlink.h).
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
/// `RTNH_F_ONLINK` (linux/rtnetlink.h).
const RTNH_F_ONLINK: u32 = 4;
/// `RT_TABLE_MAIN` (linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = libc::RT_TABLE_MAIN as u32;
/// Of which families there are routes, an address of each.
const FAMILIES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
/// The metric of an IPv6 route that names none: `IP6_RT_PRIO_USER` (linux/ipv6_route.h).
const IP6_RT_PRIO_USER: u32 = 1024;

/// A unicast route through a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads; host bits must be zero.
    pub destination: Cidr,
    /// The next hop; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The next hop is on the link although no other route says so.
    pub onlink: bool,
    /// The address that packets are sent from; if none, the kernel chooses.
    pub source: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// Routing table.
    pub table: u32,
    /// Metric; 0 for the kernel's default.
    pub priority: u32,
    /// `RT_SCOPE_…`; if none, what suits the gateway.
    pub scope: Option<u8>,
    /// Path MTU in bytes; 0 for the link's.
    pub mtu: u32,
    /// MSS to advertise in bytes; 0 for one that suits the MTU.
    pub advmss: u32,
}

impl Route {
    /// A route through a link, in the main table.
    #[must_use]
    pub fn through(link: u32, destination: Cidr) -> Self {
        Self {
            destination,
            gateway: None,
            onlink: false,
            source: None,
            link,
            table: TABLE_MAIN,
            priority: 0,
            scope: None,
            mtu: 0,
            advmss: 0,
        }
    }

    /// Whether `other`, as read from the kernel, is this route.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        // The kernel fills in what is left to it, and IPv6 knows no scope.
        let priority = match (self.priority, self.destination.address) {
            (0, IpAddr::V6(_)) => IP6_RT_PRIO_USER,
            (priority, _) => priority,
        };
        let scope = match self.destination.address {
            IpAddr::V4(_) => other.scope == Some(self.effective_scope()),
            IpAddr::V6(_) => true,
        };
        scope
            && other.priority == priority
            && (self.mtu == 0 || other.mtu == self.mtu)
            && (self.advmss == 0 || other.advmss == self.advmss)
            && self.destination == other.destination
            && self.gateway == other.gateway
            && (self.source.is_none() || self.source == other.source)
            && self.link == other.link
            && self.table == other.table
    }

    fn effective_scope(&self) -> u8 {
        let fitting = if self.gateway.is_some() || self.destination.address.is_ipv6() {
            libc::RT_SCOPE_UNIVERSE
        } else {
            libc::RT_SCOPE_LINK
        };
        self.scope.unwrap_or(fitting)
    }

    fn encode(&self, out: &mut Encoder) {
        let Cidr { address, prefix } = self.destination;
        // A table beyond a byte goes into its attribute alone.
        let table = u8::try_from(self.table).unwrap_or(libc::RT_TABLE_UNSPEC);
        let family = family_of(address);
        // struct rtmsg: family, lengths of destination and source, TOS, table, origin, scope, type.
        out.raw(&[family, prefix, 0, 0, table, libc::RTPROT_BOOT, self.effective_scope()]);
        out.raw(&[libc::RTN_UNICAST]);
        out.raw(&if self.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
        if prefix > 0 {
            out.put(libc::RTA_DST, &address);
        }
        if let Some(gateway) = self.gateway {
            out.put(libc::RTA_GATEWAY, &gateway);
        }
        if let Some(source) = self.source {
            out.put(libc::RTA_PREFSRC, &source);
        }
        out.put(libc::RTA_OIF, &self.link);
        if table == libc::RT_TABLE_UNSPEC {
            out.put(libc::RTA_TABLE, &self.table);
        }
        if self.priority != 0 {
            out.put(libc::RTA_PRIORITY, &self.priority);
        }
        if self.mtu != 0 || self.advmss != 0 {
            out.nest(libc::RTA_METRICS, |out| {
                for (kind, value) in [(RTAX_MTU, self.mtu), (RTAX_ADVMSS, self.advmss)] {
                    if value != 0 {
                        out.put(kind, &value);
                    }
                }
            });
        }
    }
}

impl fmt::Display for Route {
    /// As ip-route(8) writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.link)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " table {}", self.table)?;
        }
        if self.priority != 0 {
            write!(f, " metric {}", self.priority)?;
        }
        Ok(())
    }
}

/// Adds a route: `ip route prepend 10.0.0.0/8 via 10.1.0.1 dev eth0`. One that is there already,
/// exactly as asked, is no error (that is what `EEXIST` means without `NLM_F_EXCL`).
#[derive(Clone, Copy, Debug)]
pub struct Add(pub Route);

impl fmt::Display for Add {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "add route {}", self.0)
    }
}

impl Request for Add {
    fn kind(&self) -> u16 {
        libc::RTM_NEWROUTE
    }

    fn flags(&self) -> Flags {
        Flags::CREATE
    }

    fn body(&self, out: &mut Encoder) {
        self.0.encode(out);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::EEXIST
    }
}

/// Removes a route: `ip route del …`. One that is not there is no error.
#[derive(Clone, Copy, Debug)]
pub struct Delete(pub Route);

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove route {}", self.0)
    }
}

impl Request for Delete {
    fn kind(&self) -> u16 {
        libc::RTM_DELROUTE
    }

    fn body(&self, out: &mut Encoder) {
        self.0.encode(out);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::ESRCH
    }
}

/// Asks for the unicast routes of one family: of one link those of all tables, `ip route show table all
/// dev eth0`, or of all links those of the main table, `ip route show`.
#[derive(Clone, Copy, Debug)]
struct List {
    family: u8,
    link: Option<u32>,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link {
            Some(link) => write!(f, "list routes of link {link}"),
            None => f.write_str("list routes"),
        }
    }
}

impl Request for List {
    fn kind(&self) -> u16 {
        libc::RTM_GETROUTE
    }

    fn body(&self, out: &mut Encoder) {
        let table = if self.link.is_none() { libc::RT_TABLE_MAIN } else { libc::RT_TABLE_UNSPEC };
        out.raw(&[self.family, 0, 0, 0, table, 0, 0, libc::RTN_UNICAST]);
        out.raw(&0_u32.to_ne_bytes());
        if let Some(link) = self.link {
            out.put(libc::RTA_OIF, &link);
        }
    }
}

impl Query for List {
    type Reply = Route;

    fn decode(&self, message: &Message<'_>) -> Result<Route, Malformed> {
        if message.kind != libc::RTM_NEWROUTE {
            return Err(Malformed("expected a route"));
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let [family, prefix, _, _, table, _, scope, _, flags @ ..] = *header;
        let unspecified: IpAddr = if family == family_of(IpAddr::from([0; 4])) {
            [0; 4].into()
        } else {
            [0_u16; 8].into()
        };
        let mut route = Route {
            destination: Cidr { address: unspecified, prefix },
            gateway: None,
            onlink: u32::from_ne_bytes(flags) & RTNH_F_ONLINK != 0,
            source: None,
            link: 0,
            table: table.into(),
            priority: 0,
            scope: Some(scope),
            mtu: 0,
            advmss: 0,
        };
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                libc::RTA_DST => route.destination.address = attribute.ip()?,
                libc::RTA_GATEWAY => route.gateway = Some(attribute.ip()?),
                libc::RTA_PREFSRC => route.source = Some(attribute.ip()?),
                libc::RTA_OIF => route.link = attribute.u32()?,
                libc::RTA_TABLE => route.table = attribute.u32()?,
                libc::RTA_PRIORITY => route.priority = attribute.u32()?,
                libc::RTA_METRICS => {
                    for metric in attribute.nested() {
                        let metric = metric?;
                        match metric.kind {
                            RTAX_MTU => route.mtu = metric.u32()?,
                            RTAX_ADVMSS => route.advmss = metric.u32()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if prefix > width(route.destination.address) {
            return Err(Malformed("prefix longer than its address"));
        }
        Ok(route)
    }

    /// A route over several links is read as one through each: that is what it was before the kernel put
    /// it together, as it does with IPv6 routes of one destination and metric.
    fn decode_item(&self, message: &Message<'_>) -> Result<Vec<Route>, Malformed> {
        let route = self.decode(message)?;
        let (_, attributes) = message.split::<HEADER>()?;
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == libc::RTA_MULTIPATH {
                return next_hops(&route, attribute.payload);
            }
        }
        Ok(vec![route])
    }
}

/// The parts of a route over several links: `struct rtnexthop` (linux/rtnetlink.h) for each, which begins
/// as an attribute does, with its length and two bytes; then the link's index, then attributes.
fn next_hops(route: &Route, hops: &[u8]) -> Result<Vec<Route>, Malformed> {
    let hop = |hop: Result<Attribute<'_>, Malformed>| {
        let (link, attributes) =
            hop?.payload.split_first_chunk::<4>().ok_or(Malformed("next hop without link"))?;
        let mut route = Route { link: u32::from_ne_bytes(*link), gateway: None, ..*route };
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            if attribute.kind == libc::RTA_GATEWAY {
                route.gateway = Some(attribute.ip()?);
            }
        }
        Ok(route)
    };
    Attributes::new(hops).map(hop).collect()
}

/// Reads the unicast routes of both families, of all tables, through one link.
///
/// # Errors
/// The kernel's refusal.
pub fn of_link<C: Channel>(socket: &mut Socket<C>, link: u32) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for family in FAMILIES {
        routes.extend(socket.dump(&List { family: family_of(family), link: Some(link) })?);
    }
    routes.retain(|route| route.link == link);
    Ok(routes)
}

/// Reads the unicast routes of the main table, of both families.
///
/// # Errors
/// The kernel's refusal.
pub fn list<C: Channel>(socket: &mut Socket<C>) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for family in FAMILIES {
        routes.extend(socket.dump(&List { family: family_of(family), link: None })?);
    }
    routes.retain(|route| route.table == TABLE_MAIN);
    Ok(routes)
}

/// Index of the link that the default route of the main table leads through, of IPv4 if there is one, or
/// else of IPv6; of several the one with the lowest metric. `None` if there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn default_link<C: Channel>(socket: &mut Socket<C>) -> Result<Option<u32>, Error> {
    for family in FAMILIES {
        let routes = socket.dump(&List { family: family_of(family), link: None })?;
        let is_default = |route: &&Route| {
            route.destination == Cidr::default_of(family) && route.table == TABLE_MAIN
        };
        // The first of equals.
        let preferred = routes.iter().filter(is_default).min_by_key(|route| route.priority);
        if let Some(route) = preferred {
            return Ok(Some(route.link));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
