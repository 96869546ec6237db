//! Takes the addresses and routes of many links away at once (`ip address flush`, `ip route flush`).
//!
//! When a link goes down, and again when it is deleted, the kernel looks through all IPv6 addresses and routes of
//! the namespace for those of the link, and for each IPv4 address through all routes. With thousands of
//! links that have some it would take minutes.

use std::collections::HashSet;
use std::fmt;

use nix::errno::Errno;

use super::{FAMILIES, List, Route, family_of};
use crate::nl::addr::{self, Address};
use crate::nl::error::Error;
use crate::nl::request::{Query, Request};
use crate::nl::socket::{Channel, Socket};
use crate::nl::wire::{Encoder, Malformed, Message};

/// How many are removed in one datagram.
const CHUNK: usize = 256;

/// Removes all routes that lead through one of these links alone, of all tables, also those that the kernel keeps for
/// IPv6 addresses; then the addresses. Only for links that are about to be deleted.
///
/// # Errors
/// The kernel's refusal.
pub fn flush<C: Channel>(socket: &mut Socket<C>, links: &HashSet<u32>) -> Result<(), Error> {
    for family in FAMILIES.map(family_of) {
        let mut routes = socket.dump_once(&ListAll(family))?.objects;
        routes.retain(|route| links.contains(&route.link));
        // In the order of the list each is the first of its kind that the kernel comes upon.
        execute_all(socket, &routes.into_iter().map(Remove).collect::<Vec<_>>())?;
    }
    let mut addresses = addr::of_all_links(socket)?;
    addresses.retain(|address| links.contains(&address.link));
    let delete = |found: &Address| addr::Delete { link: found.link, cidr: found.cidr };
    execute_all(socket, &addresses.iter().map(delete).collect::<Vec<_>>())
}

fn execute_all<C: Channel, R: Request>(socket: &mut Socket<C>, all: &[R]) -> Result<(), Error> {
    all.chunks(CHUNK).try_for_each(|some| {
        let requests: Vec<_> = some.iter().map(|request| request as &dyn Request).collect();
        socket.execute(&requests)
    })
}

/// Asks for all routes of a family. One over several links is read as one through none: to remove a part of it
/// could remove it whole.
#[derive(Clone, Copy, Debug)]
struct ListAll(u8);

impl fmt::Display for ListAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("list routes of all tables")
    }
}

impl Request for ListAll {
    fn kind(&self) -> u16 {
        libc::RTM_GETROUTE
    }

    fn body(&self, out: &mut Encoder) {
        out.raw(&[self.0, 0, 0, 0, libc::RT_TABLE_UNSPEC, 0, 0, libc::RTN_UNSPEC]);
        out.raw(&0_u32.to_ne_bytes());
    }
}

impl Query for ListAll {
    type Reply = Route;

    fn decode(&self, message: &Message<'_>) -> Result<Route, Malformed> {
        List { family: self.0, link: None }.decode(message)
    }
}

/// Removes a route, whoever has made it.
#[derive(Clone, Copy, Debug)]
struct Remove(Route);

impl fmt::Display for Remove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove route {}", self.0)
    }
}

impl Request for Remove {
    fn kind(&self) -> u16 {
        libc::RTM_DELROUTE
    }

    fn body(&self, out: &mut Encoder) {
        let Route { destination, link, table, priority, .. } = self.0;
        // Table, origin, scope and type: what is unspecified is not compared.
        let any =
            [libc::RT_TABLE_UNSPEC, libc::RTPROT_UNSPEC, libc::RT_SCOPE_NOWHERE, libc::RTN_UNSPEC];
        out.raw(&[family_of(destination.address), destination.prefix, 0, 0]);
        out.raw(&any);
        out.raw(&0_u32.to_ne_bytes());
        if destination.prefix > 0 {
            out.put(libc::RTA_DST, &destination.address);
        }
        out.put(libc::RTA_OIF, &link);
        out.put(libc::RTA_TABLE, &table);
        out.put(libc::RTA_PRIORITY, &priority);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::ESRCH
    }
}
