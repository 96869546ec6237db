//! Who has gone: the kernel's notifications, in one place, that links and whole network namespaces are no
//! more (rtnetlink(7), `NETLINK_LISTEN_ALL_NSID` of netlink(7)).
//!
//! A namespace is heard of that ours has a number for: [`super::nsid::assign`].

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket as sys;

use super::error::Error;
use super::wire::{Message, Messages};
use crate::sys::filter::{self, jump, statement};
use crate::sys::set_option;

/// `RTNLGRP_LINK`, `RTNLGRP_NSID` (linux/rtnetlink.h), as bits.
const GROUPS: u32 = 1 << 0 | 1 << 27;
/// `NETLINK_LISTEN_ALL_NSID` (linux/netlink.h)
const NETLINK_LISTEN_ALL_NSID: libc::c_int = 8;
/// `NETNSA_NSID` (linux/net_namespace.h).
const NETNSA_NSID: u16 = 1;
/// Length of `struct rtgenmsg` (linux/rtnetlink.h), padded.
const NSID_HEADER: usize = 4;
/// Length of `struct ifinfomsg` (linux/rtnetlink.h).
const LINK_HEADER: usize = 16;

/// The number of a namespace as ours knows it; none for our own.
pub type Nsid = Option<i32>;

/// What has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The link of this index in this namespace.
    Link(Nsid, u32),
    /// A namespace, and all that was in it.
    Netns(i32),
    /// Some notifications are lost: anything.
    Unknown,
}

/// Listens, over all namespaces.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Begins to listen in the current namespace.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open() -> Result<Self, Error> {
        let error = |errno| Error::new("listen to what becomes of links", errno);
        let flags = sys::SockFlag::SOCK_CLOEXEC | sys::SockFlag::SOCK_NONBLOCK;
        let (family, route) = (sys::AddressFamily::Netlink, sys::SockProtocol::NetlinkRoute);
        let fd = sys::socket(family, sys::SockType::Raw, flags, route).map_err(error)?;
        filter::attach(fd.as_fd(), &only_what_has_gone()).map_err(error)?;
        let on: libc::c_int = 1;
        set_option(fd.as_fd(), libc::SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &on).map_err(error)?;
        sys::bind(fd.as_raw_fd(), &sys::NetlinkAddr::new(0, GROUPS)).map_err(error)?;
        Ok(Self { fd })
    }

    /// What has gone since it was asked last; `None` if nothing has.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn next(&self) -> Result<Option<Gone>, Error> {
        let mut buffer = [0; 8192];
        loop {
            match self.receive(&mut buffer) {
                Ok((length, netns)) => {
                    let datagram = buffer.get(..length).unwrap_or(&buffer);
                    if let Some(gone) = read(datagram, netns) {
                        return Ok(Some(gone));
                    }
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(Some(Gone::Unknown)),
                Err(errno) => return Err(Error::new("hear what becomes of links", errno)),
            }
        }
    }

    /// A datagram, and the number of the namespace that it is about.
    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Nsid), Errno> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(libc::c_int);
        let flags = sys::MsgFlags::empty();
        let fd = self.fd.as_raw_fd();
        let received = sys::recvmsg::<sys::NetlinkAddr>(fd, &mut parts, Some(&mut control), flags)?;
        // Anybody may send to a netlink socket (netlink(7)).
        if received.address.is_none_or(|sender| sender.pid() != 0) {
            return Ok((0, None));
        }
        let netns = received.cmsgs()?.find_map(|control| match control {
            sys::ControlMessageOwned::Unknown(control) => control.data_bytes.first_chunk().copied(),
            _ => None,
        });
        Ok((received.bytes, netns.map(i32::from_ne_bytes)))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a notification says; `None` if that nothing is of interest.
fn read(datagram: &[u8], netns: Nsid) -> Option<Gone> {
    let message = Messages::new(datagram).next()?.ok()?;
    match message.kind {
        libc::RTM_DELLINK => {
            let (header, _) = message.split::<LINK_HEADER>().ok()?;
            let [family, _, _, _, index @ .., _, _, _, _, _, _, _, _] = *header;
            // A bridge tells of its ports, too, in a family of its own.
            (family == 0).then(|| Gone::Link(netns, u32::from_ne_bytes(index)))
        }
        libc::RTM_DELNSID => number(&message).map(Gone::Netns),
        _ => None,
    }
}

fn number(message: &Message<'_>) -> Option<i32> {
    let (_, mut attributes) = message.split::<NSID_HEADER>().ok()?;
    let number = attributes.find_map(|attribute| attribute.ok().filter(|a| a.kind == NETNSA_NSID));
    number.and_then(|attribute| attribute.u32().ok()).map(u32::cast_signed)
}

/// Only messages of these two kinds wake whoever listens: links come and change a hundred times a second.
fn only_what_has_gone() -> [libc::sock_filter; 5] {
    // nlmsg_type (struct nlmsghdr, linux/netlink.h). A filter reads numbers highest byte first.
    const KIND: u32 = 4;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        statement(LOAD, KIND),
        jump(IS, kind(libc::RTM_DELLINK), 1, 0),
        jump(IS, kind(libc::RTM_DELNSID), 0, 1),
        statement(RETURN, u32::MAX),
        statement(RETURN, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nl::testing::hex;

    #[test]
    fn it_is_told_what_has_gone_and_where() {
        let link = hex("
            20000000 1100 0000 00000000 00000000   # RTM_DELLINK
            00 00 0100 05000000 00000000 ffffffff  # struct ifinfomsg, index 5
            ");
        assert_eq!(read(&link.0, Some(3)), Some(Gone::Link(Some(3), 5)));
        assert_eq!(read(&link.0, None), Some(Gone::Link(None, 5)));
        let port = hex("
            20000000 1100 0000 00000000 00000000   # RTM_DELLINK
            07 00 0100 05000000 00000000 ffffffff  # struct ifinfomsg, AF_BRIDGE
            ");
        assert_eq!(read(&port.0, None), None);
        let netns = hex("
            1c000000 5900 0000 00000000 00000000   # RTM_DELNSID
            00000000                               # struct rtgenmsg
            0800 0100 07000000                     # NETNSA_NSID 7
            ");
        assert_eq!(read(&netns.0, None), Some(Gone::Netns(7)));
        for cut in 0..netns.0.len() {
            assert_eq!(read(&netns.0[..cut], None), None, "cut to {cut} bytes");
        }
    }
}
