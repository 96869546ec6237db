//! Groups of links (`ip link set dev … group …`, `ip link del group …`).

use std::fmt;

use nix::errno::Errno;

use super::{Target, header};
use crate::nl::request::Request;
use crate::nl::wire::Encoder;

/// Puts a link into a group.
#[derive(Clone, Copy, Debug)]
pub struct SetGroup<'a> {
    /// The link.
    pub target: Target<'a>,
    /// The group; all links are in 0 at first.
    pub group: u32,
}

impl fmt::Display for SetGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "put {} into group {}", self.target, self.group)
    }
}

impl Request for SetGroup<'_> {
    /// Not `RTM_NEWLINK`: up to Linux 5.17 one for a link that is not there would be about all links that are
    /// in the group already.
    fn kind(&self) -> u16 {
        libc::RTM_SETLINK
    }

    fn body(&self, out: &mut Encoder) {
        self.target.header(out, 0, 0);
        out.put(libc::IFLA_GROUP, &self.group);
    }
}

/// Deletes all links of the namespace that are in a group, in one go: the kernel waits for RCU once, not once a
/// link. It looks through all links of the namespace. That there are none is fine.
#[derive(Clone, Copy, Debug)]
pub struct DeleteGroup(pub u32);

impl fmt::Display for DeleteGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete the links of group {}", self.0)
    }
}

impl Request for DeleteGroup {
    fn kind(&self) -> u16 {
        libc::RTM_DELLINK
    }

    fn body(&self, out: &mut Encoder) {
        header(out, 0, 0, 0);
        out.put(libc::IFLA_GROUP, &self.0);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::ENODEV
    }
}
