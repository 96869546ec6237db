//! Waiting for the kernel: its notifications of changes to links and addresses (rtnetlink(7)).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket as sys;

use super::error::Error;
use super::socket::{Datagram, Family};
use super::trace::Conversation;
use super::wire::Messages;

/// Where the link's index stands in `struct ifinfomsg` as in `struct ifaddrmsg`.
const INDEX: std::ops::Range<usize> = 4..8;

/// What to listen to: `RTMGRP_…` (linux/rtnetlink.h), the groups as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Changes {
    /// Links come, go and change.
    Links = libc::RTMGRP_LINK as u32,
    /// IPv6 addresses do; so does one that proves to be unused, or used by another.
    Ipv6Addresses = libc::RTMGRP_IPV6_IFADDR as u32,
}

/// Listens to changes in one network namespace.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
    trace: Option<Conversation>,
}

impl Monitor {
    /// Begins to listen in the current namespace. What happens from now on is not missed.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(changes: Changes) -> Result<Self, Error> {
        let error = |errno| Error::new(format_args!("listen to changes of {changes:?}"), errno);
        let fd = sys::socket(
            sys::AddressFamily::Netlink,
            sys::SockType::Raw,
            sys::SockFlag::SOCK_CLOEXEC | sys::SockFlag::SOCK_NONBLOCK,
            sys::SockProtocol::NetlinkRoute,
        )
        .map_err(error)?;
        sys::bind(fd.as_raw_fd(), &sys::NetlinkAddr::new(0, changes as u32)).map_err(error)?;
        Ok(Self { fd, trace: Conversation::begin(Family::Route) })
    }

    /// Waits for a change of the link of this index or of its addresses, or what may be one; false if
    /// the deadline passes first.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn wait(&self, link: u32, deadline: Instant) -> Result<bool, Error> {
        self.wait_until(deadline, |index| index == link.to_ne_bytes())
    }

    /// Waits for any change, or what may be one; false if the deadline passes first.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn wait_for_any(&self, deadline: Instant) -> Result<bool, Error> {
        self.wait_until(deadline, |_| true)
    }

    fn wait_until(&self, deadline: Instant, is_it: impl Fn(&[u8]) -> bool) -> Result<bool, Error> {
        let error = |errno| Error::new("wait for a change of links", errno);
        let mut buffer = [0; 8192];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(error(errno)),
            }
            match sys::recv(self.fd.as_raw_fd(), &mut buffer, sys::MsgFlags::empty()) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or(&buffer);
                    if let Some(trace) = &self.trace {
                        trace.received(Ok(Datagram { length, sender: 0 }), datagram);
                    }
                    let mut messages = Messages::new(datagram).flatten();
                    if messages.any(|message| message.payload.get(INDEX).is_some_and(&is_it)) {
                        return Ok(true);
                    }
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                // Some notifications were lost; perhaps the one.
                Err(Errno::ENOBUFS) => return Ok(true),
                Err(errno) => return Err(error(errno)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_index_are_where_the_kernel_has_them() {
        // RTMGRP_LINK, RTMGRP_IPV6_IFADDR
        assert_eq!([Changes::Links as u32, Changes::Ipv6Addresses as u32], [1, 0x100]);
        assert_eq!(INDEX.start, std::mem::offset_of!(libc::ifinfomsg, ifi_index));
        // struct ifaddrmsg, which libc lacks: four bytes before an index of four.
        assert_eq!(INDEX, 4..8);
    }
}
