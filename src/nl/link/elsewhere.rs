//! Links of other namespaces, by the number that our own has for those.

use std::fmt;

use nix::errno::Errno;

use super::{Link, RTEXT_FILTER_SKIP_STATS, header};
use crate::nl::error::Error;
use crate::nl::request::{Query, Request};
use crate::nl::socket::{Channel, Socket};
use crate::nl::wire::{Encoder, Malformed, Message};

/// `IFLA_TARGET_NETNSID` (linux/if_link.h, since 4.20, for links since 4.16 as `IFLA_IF_NETNSID`).
const IFLA_TARGET_NETNSID: u16 = 46;

struct Get {
    netns: i32,
    link: u32,
}

impl fmt::Display for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read link {} of namespace {}", self.link, self.netns)
    }
}

impl Request for Get {
    fn kind(&self) -> u16 {
        libc::RTM_GETLINK
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.link, 0, 0);
        out.put(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS);
        out.put(IFLA_TARGET_NETNSID, &self.netns.cast_unsigned());
    }
}

impl Query for Get {
    type Reply = Link;

    fn decode(&self, message: &Message<'_>) -> Result<Link, Malformed> {
        Link::decode(message)
    }
}

/// Reads a link in another namespace, by its index there ([`Link::peer`], [`Link::peer_netns`]); `None` if
/// there is none.
///
/// # Errors
/// The kernel's refusal: `EPERM` without `CAP_NET_ADMIN` there.
pub fn get_in<C: Channel>(
    socket: &mut Socket<C>,
    netns: i32,
    link: u32,
) -> Result<Option<Link>, Error> {
    match socket.query(&Get { netns, link }) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.errno == Errno::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}
