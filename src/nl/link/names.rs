//! The names of a link, and the namespace that it has them in (`ip link set dev … netns … name …`,
//! `ip link property`).

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::{Target, header};
use crate::nl::request::Request;
use crate::nl::wire::{Encoder, Flags, NESTED};

/// `RTM_NEWLINKPROP`, `RTM_DELLINKPROP` (linux/rtnetlink.h).
const RTM_NEWLINKPROP: u16 = 108;
const RTM_DELLINKPROP: u16 = 109;

/// Gives a link, which must be down, another name: `ip link set dev … name …`. The kernel puts a number in the
/// place of `%d`.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// Its index.
    pub link: u32,
    /// Its name from now on.
    pub name: &'a str,
}

impl fmt::Display for Rename<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rename link {} to {:?}", self.link, self.name)
    }
}

impl Request for Rename<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.link, 0, 0);
        out.put(libc::IFLA_IFNAME, self.name);
    }
}

/// The same, unless another link of the namespace has the name.
#[derive(Clone, Copy, Debug)]
pub struct RenameIfFree<'a>(pub Rename<'a>);

impl fmt::Display for RenameIfFree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Request for RenameIfFree<'_> {
    fn kind(&self) -> u16 {
        self.0.kind()
    }

    fn body(&self, out: &mut Encoder) {
        self.0.body(out);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::EEXIST
    }
}

/// Moves a link into another network namespace under this name: `ip link set dev … netns … name …`.
///
/// The kernel takes it down, and with that its addresses and routes away. It goes under the name that it
/// has, if nobody there has that one, and is renamed on arrival, before anybody else sees it there; if then
/// the new name is taken, the kernel says so (`EEXIST`), and the link has moved all the same.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// Its index.
    pub link: u32,
    /// Where it goes.
    pub netns: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a str,
}

impl fmt::Display for Move<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "move link {} into another network namespace as {:?}", self.link, self.name)
    }
}

impl Request for Move<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.link, 0, 0);
        out.put(libc::IFLA_NET_NS_FD, &self.netns.as_raw_fd().cast_unsigned());
        out.put(libc::IFLA_IFNAME, self.name);
    }
}

/// Gives a link another name beside its own, by which it is found as well (since Linux 5.5), and which it
/// takes along into other namespaces: `ip link property add dev … altname …`.
#[derive(Clone, Copy, Debug)]
pub struct AddAltName<'a> {
    /// The link.
    pub target: Target<'a>,
    /// The other name.
    pub name: &'a str,
}

/// Takes such a name away.
#[derive(Clone, Copy, Debug)]
pub struct DeleteAltName<'a> {
    /// The link.
    pub target: Target<'a>,
    /// The other name.
    pub name: &'a str,
}

fn property(out: &mut Encoder, target: Target<'_>, name: &str) {
    target.header(out, 0, 0);
    // Such messages are checked strictly.
    out.nest(libc::IFLA_PROP_LIST | NESTED, |out| out.put(libc::IFLA_ALT_IFNAME, name));
}

impl fmt::Display for AddAltName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "give {} the other name {:?}", self.target, self.name)
    }
}

impl Request for AddAltName<'_> {
    fn kind(&self) -> u16 {
        RTM_NEWLINKPROP
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        property(out, self.target, self.name);
    }

    /// It has the name already; or another link has it, which shows in [`Link::altnames`](super::Link::altnames);
    /// or the kernel knows no such names.
    fn tolerates(&self, errno: Errno) -> bool {
        matches!(errno, Errno::EEXIST | Errno::EOPNOTSUPP)
    }
}

impl fmt::Display for DeleteAltName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "take the other name {:?} from {}", self.name, self.target)
    }
}

impl Request for DeleteAltName<'_> {
    fn kind(&self) -> u16 {
        RTM_DELLINKPROP
    }

    fn body(&self, out: &mut Encoder) {
        property(out, self.target, self.name);
    }

    /// It has no such name; or another link has it; or the kernel knows no such names.
    fn tolerates(&self, errno: Errno) -> bool {
        matches!(errno, Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP)
    }
}

#[cfg(test)]
mod tests;
