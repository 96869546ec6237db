//! Links that sit on top of another, their master, or on none: made in the namespace that they are for.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::header;
use crate::net::Mac;
use crate::nl::error::Error;
use crate::nl::request::Request;
use crate::nl::socket::{Channel, Socket};
use crate::nl::wire::{Encoder, Flags};

/// `IFLA_MACVLAN_MODE`, `IFLA_MACVLAN_BC_QUEUE_LEN` (linux/if_link.h).
pub(super) const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_MACVLAN_BC_QUEUE_LEN: u16 = 7;
/// `IFLA_IPVLAN_MODE` (linux/if_link.h).
pub(super) const IFLA_IPVLAN_MODE: u16 = 1;
/// `IFLA_VLAN_ID` (linux/if_link.h).
pub(super) const IFLA_VLAN_ID: u16 = 1;

/// `MACVLAN_MODE_…` (linux/if_link.h): to whom a macvlan may speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum MacvlanMode {
    /// Not to others on the same master.
    Private = 1,
    /// To others on the same master by way of a switch that reflects.
    Vepa = 2,
    /// To others on the same master directly.
    Bridge = 4,
    /// It has the master to itself.
    Passthru = 8,
}

/// `IPVLAN_MODE_…` (linux/if_link.h): what an ipvlan's master does for it. All on one master have the
/// same: the one that was asked for last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum IpvlanMode {
    /// It switches by address.
    L2 = 0,
    /// It routes, by the routes of its own namespace.
    L3 = 1,
    /// The same, through netfilter.
    L3s = 2,
}

/// What kind of link, with what there is to set for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Child {
    /// A link-layer address of its own on the master.
    Macvlan {
        /// To whom it may speak.
        mode: MacvlanMode,
        /// How many broadcast frames are queued; the kernel's default if none.
        broadcast_queue: Option<u32>,
    },
    /// IP addresses of its own on the master.
    Ipvlan(IpvlanMode),
    /// The frames of the master that are tagged with this number (IEEE 802.1Q).
    Vlan(u16),
    /// Nothing behind it.
    Dummy,
}

impl Child {
    /// The name by which the kernel knows the kind.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
            Self::Vlan(_) => "vlan",
            Self::Dummy => "dummy",
        }
    }

    /// What tells links of the kind apart: mode or number; none if nothing does.
    #[must_use]
    pub const fn variant(self) -> Option<u32> {
        match self {
            Self::Macvlan { mode, .. } => Some(mode as u32),
            Self::Ipvlan(mode) => Some(mode as u32),
            Self::Vlan(id) => Some(id as u32),
            Self::Dummy => None,
        }
    }

    fn data(self, out: &mut Encoder) {
        match self {
            Self::Macvlan { mode, broadcast_queue } => out.nest(libc::IFLA_INFO_DATA, |out| {
                out.put(IFLA_MACVLAN_MODE, &(mode as u32));
                if let Some(length) = broadcast_queue {
                    out.put(IFLA_MACVLAN_BC_QUEUE_LEN, &length);
                }
            }),
            Self::Ipvlan(mode) => out.nest(libc::IFLA_INFO_DATA, |out| {
                out.put(IFLA_IPVLAN_MODE, &(mode as u16));
            }),
            Self::Vlan(id) => out.nest(libc::IFLA_INFO_DATA, |out| out.put(IFLA_VLAN_ID, &id)),
            Self::Dummy => {}
        }
    }
}

/// Makes a link, down, in a namespace of its own under its final name, so that it never moves:
/// `ip link add link eth0 name net1 netns pod … type macvlan mode bridge`
#[derive(Clone, Copy, Debug)]
pub struct NewChild<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index; the kernel's choice if none. Kernels before 6.15 look for the name among the links of
    /// our own namespace, too, unless an index is given, and refuse one that is there (`EEXIST`).
    pub index: Option<u32>,
    /// The namespace that it is for; our own if none.
    pub netns: Option<BorrowedFd<'a>>,
    /// Index of its master in our own namespace.
    pub master: Option<u32>,
    /// Its MTU; if none the master's, or the kernel's default.
    pub mtu: Option<u32>,
    /// Its address; drawn by the kernel if none, or the master's, as befits the kind.
    pub mac: Option<Mac>,
    /// Its kind.
    pub child: Child,
}

impl fmt::Display for NewChild<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create {} {:?}", self.child.kind(), self.name)
    }
}

impl Request for NewChild<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.index.unwrap_or(0), 0, 0);
        if let Some(netns) = self.netns {
            out.put(libc::IFLA_NET_NS_FD, &netns.as_raw_fd().cast_unsigned());
        }
        if let Some(mtu) = self.mtu {
            out.put(libc::IFLA_MTU, &mtu);
        }
        if let Some(mac) = self.mac {
            out.put(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(master) = self.master {
            out.put(libc::IFLA_LINK, &master);
        }
        out.put(libc::IFLA_IFNAME, self.name);
        out.nest(libc::IFLA_LINKINFO, |out| {
            out.put(libc::IFLA_INFO_KIND, self.child.kind().as_bytes());
            self.child.data(out);
        });
    }
}

/// Asks for a link of a kind that the kernel can't make: without master and with an impossible address.
#[derive(Clone, Copy, Debug)]
struct Probe(&'static str);

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create links of kind {}", self.0)
    }
}

impl Request for Probe {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        header(out, 0, 0, 0);
        out.put(libc::IFLA_ADDRESS, &Mac::default());
        let kind = self.0.as_bytes();
        out.nest(libc::IFLA_LINKINFO, |out| out.put(libc::IFLA_INFO_KIND, kind));
    }

    /// A kernel that knows the kind objects to the address, or to there being no master.
    fn tolerates(&self, errno: Errno) -> bool {
        matches!(errno, Errno::EADDRNOTAVAIL | Errno::EINVAL)
    }
}

/// Sees whether the kernel knows the kind, and has it load the module if there is one. Makes nothing.
///
/// # Errors
/// `EOPNOTSUPP`: it does not; or another refusal.
pub fn probe<C: Channel>(socket: &mut Socket<C>, kind: &'static str) -> Result<(), Error> {
    socket.execute(&[&Probe(kind)])
}

#[cfg(test)]
mod tests;
