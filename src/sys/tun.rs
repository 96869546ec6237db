//! Taps: links whose other end is a file, and thereby a program (linux/if_tun.h,
//! Documentation/networking/tuntap.rst).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::trace;

/// The device of which each opened file may become a link.
pub const DEVICE: &str = "/dev/net/tun";
/// The largest MTU of a tap: `MAX_MTU` less an Ethernet header (`tun_net_initialize`, drivers/net/tun.c).
pub const TAP_MAX_MTU: u32 = 65535 - 14;

/// [`DEVICE`], opened. A link that is made of it goes when this is dropped, unless it is to
/// [`stay`](Self::stay).
#[derive(Debug)]
pub struct Tun(File);

impl Tun {
    /// Opens the device, for a link in the network namespace that the thread is in now.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(DEVICE);
        trace::file("open", DEVICE, &file);
        file.map(Self)
    }

    /// Says which user may open the link, beside who has `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `EINVAL`: the process's user namespace has no such user.
    pub fn set_owner(&self, user: u32) -> Result<(), Errno> {
        self.set("TUNSETOWNER", libc::TUNSETOWNER, user)
    }

    /// Says which group's members may open the link.
    ///
    /// # Errors
    /// `EINVAL`: the process's user namespace has no such group.
    pub fn set_group(&self, group: u32) -> Result<(), Errno> {
        self.set("TUNSETGROUP", libc::TUNSETGROUP, group)
    }

    /// Has the link be without a carrier, as it is when no program has it open: what it is given here would
    /// be sent to nobody.
    ///
    /// # Errors
    /// `EINVAL`: the kernel is older than 5.0 and can't.
    pub fn drop_carrier(&self) -> Result<(), Errno> {
        let carrier: libc::c_int = 0;
        // SAFETY: the request reads an int, which outlives the call.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETCARRIER, &raw const carrier) };
        told("TUNSETCARRIER", carrier, result)
    }

    /// Has the link stay when no program has it open.
    ///
    /// # Errors
    /// Those of ioctl(2).
    pub fn stay(&self) -> Result<(), Errno> {
        self.set("TUNSETPERSIST", libc::TUNSETPERSIST, 1)
    }

    fn set(&self, name: &str, request: libc::Ioctl, value: u32) -> Result<(), Errno> {
        // SAFETY: these requests take their value in the place of the pointer.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), request, libc::c_ulong::from(value)) };
        told(name, value, result)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a tap of this name, down, out of the opened device. Several programs at once may have one with
/// `multi_queue`. The other flags are those of `ip tuntap add`; who opens the link replaces them by its own.
///
/// # Errors
/// `EBUSY`: there is a link of this name; `EPERM`: no `CAP_NET_ADMIN` in the namespace.
pub fn make_tap(device: BorrowedFd<'_>, name: &str, multi_queue: bool) -> Result<(), Errno> {
    let queues = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL | queues;
    // SAFETY: `ifreq` (netdevice(7)) is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name that is too long is cut, as no interface has it.
    let length = name.len().min(libc::IFNAMSIZ - 1);
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes().iter().take(length)) {
        *to = from.cast_signed();
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the flags are 16 bits, of which one is the sign"
    )]
    {
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
    }
    // SAFETY: the request is an `ifreq` that outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    told("TUNSETIFF", name, result)
}

fn told(name: &str, value: impl std::fmt::Display, result: libc::c_int) -> Result<(), Errno> {
    let result = Errno::result(result).map(drop);
    trace::file(name, value, &result);
    result
}
