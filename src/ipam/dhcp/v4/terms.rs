//! What a server grants: an address, for how long, and what goes with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::net::Cidr;

/// What a server grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The address, with the prefix that option 1 tells.
    pub address: Cidr,
    /// Who granted it (option 54).
    pub server: Ipv4Addr,
    /// The first router (option 3).
    pub gateway: Option<Ipv4Addr>,
    /// Routes: those of option 121, or else those of option 33 and the default route through the first router.
    pub routes: Vec<Route>,
    /// MTU in bytes (option 26).
    pub mtu: Option<u16>,
    /// Servers for name resolution (option 6).
    pub nameservers: Vec<Ipv4Addr>,
    /// The local domain (option 15).
    pub domain: Option<String>,
    /// Domains to search (option 119).
    pub search: Vec<String>,
    /// For how long.
    pub times: Times,
}

/// A route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads; host bits are clear.
    pub to: Cidr,
    /// The next hop; if none, who is there is on the link.
    pub via: Option<Ipv4Addr>,
}

/// How long a lease lasts, from when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// T1: when its server is asked to renew it.
    pub renew: Duration,
    /// T2: when any server is.
    pub rebind: Duration,
    /// When it ends; if never, the other two have no meaning.
    pub expire: Option<Duration>,
}
