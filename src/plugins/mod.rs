//! The plugins, a file or folder each, and what they share.
//!
//! An interface plugin reads from top to bottom: what it is configured with, ADD, DEL, CHECK, GC,
//! STATUS. What it has in common with others: [`conf`], keys; [`attach`], steps of ADD and CHECK;
//! [`detach`], DEL and GC; [`veth`], the pair that reaches from the host into a container; [`child`], a
//! link that is born there by netlink, and [`rival`], what keeps it from that; [`origin`], what a device was
//! that is given away, and its way back; [`container`], the container's side
//! of any link; [`forwarding`]; [`masquerade`] and [`spoof_check`], packet rules, and [`takeover`], those
//! of the reference's plugins; [`undo`], the way back
//! of a failed ADD.

pub mod attach;
pub mod bridge;
pub mod child;
pub mod conf;
pub mod container;
pub mod deletion;
pub mod detach;
pub mod dummy;
pub mod forwarding;
pub mod host_device;
pub mod ipvlan;
pub mod loopback;
pub mod macvlan;
pub mod masquerade;
pub mod origin;
pub mod ptp;
pub mod rival;
pub mod spoof_check;
pub mod takeover;
pub mod tap;
pub mod undo;
pub mod veth;
pub mod vlan;

use std::io;

use nix::errno::Errno;

use crate::cni::{Code, Error, Plugin};
use crate::ipam;
use crate::nl;

/// All plugins, by name.
pub const ALL: [&Plugin; 12] = [
    &bridge::PLUGIN,
    &ptp::PLUGIN,
    &macvlan::PLUGIN,
    &ipvlan::PLUGIN,
    &vlan::PLUGIN,
    &dummy::PLUGIN,
    &tap::PLUGIN,
    &host_device::PLUGIN,
    &loopback::PLUGIN,
    &ipam::host_local::PLUGIN,
    &ipam::static_ipam::PLUGIN,
    &ipam::dhcp::PLUGIN,
];

/// The plugin of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Plugin> {
    ALL.into_iter().find(|plugin| plugin.name == name)
}

/// What the kernel says to `RTM_NEWLINK` with an `IFLA_INFO_KIND` that it has no module for (net/core/rtnetlink.c).
const UNKNOWN_KIND: &str = "Unknown device type";
const PRIVILEGE: &str = "; CAP_NET_ADMIN and CAP_SYS_ADMIN are needed";

/// The one place where the kernel's refusals become CNI errors.
impl From<nl::Error> for Error {
    fn from(error: nl::Error) -> Self {
        let hint = match error.errno {
            Errno::EPERM => PRIVILEGE,
            Errno::EACCES => "; IPv6 may be off there (sysctl disable_ipv6)",
            Errno::EPROTONOSUPPORT => "; the kernel has no support for it",
            // The same number also says that a link lacks some operation.
            Errno::EOPNOTSUPP if error.kernel.as_deref() == Some(UNKNOWN_KIND) => {
                "; the kernel has no support for this kind of link"
            }
            _ => "",
        };
        Self::new(Code::Internal, format!("{error}{hint}")).with_details(error.reason())
    }
}

/// An error of namespaces and of the host's settings, which are no netlink matter.
fn setting_error(what: impl std::fmt::Display, why: &io::Error) -> Error {
    let Some(errno) = why.raw_os_error().map(Errno::from_raw) else {
        return Error::new(Code::Internal, format!("cannot {what}: {why}"));
    };
    let hint = if matches!(errno, Errno::EPERM | Errno::EACCES) { PRIVILEGE } else { "" };
    refusal(what, errno, hint)
}

/// A refusal that is no netlink matter.
fn refusal(what: impl std::fmt::Display, errno: Errno, hint: &str) -> Error {
    Error::new(Code::Internal, format!("cannot {what}: {errno:?}{hint}"))
        .with_details(format!("{errno:?} ({})", errno.desc()))
}
