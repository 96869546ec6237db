//! Waiting for the kernel: its notifications of changes to links (`RTNLGRP_LINK`, rtnetlink(7)).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket as sys;

use super::error::Error;
use super::wire::Messages;

/// `RTMGRP_LINK` (linux/rtnetlink.h): the group of changes to links, as a bit.
const RTMGRP_LINK: u32 = 1;
/// Length of `struct nlmsghdr` and of `struct ifinfomsg` up to the index's end.
const INDEX: std::ops::Range<usize> = 4..8;

/// Listens to changes of the links of one network namespace.
#[derive(Debug)]
pub struct LinkMonitor(OwnedFd);

impl LinkMonitor {
    /// Begins to listen in the current namespace. What happens from now on is not missed.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open() -> Result<Self, Error> {
        let error = |errno| Error::new("listen to changes of links", errno);
        let fd = sys::socket(
            sys::AddressFamily::Netlink,
            sys::SockType::Raw,
            sys::SockFlag::SOCK_CLOEXEC | sys::SockFlag::SOCK_NONBLOCK,
            sys::SockProtocol::NetlinkRoute,
        )
        .map_err(error)?;
        sys::bind(fd.as_raw_fd(), &sys::NetlinkAddr::new(0, RTMGRP_LINK)).map_err(error)?;
        Ok(Self(fd))
    }

    /// Waits until the link of this index changes, or may have; false if the deadline passes first.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn wait(&self, link: u32, deadline: Instant) -> Result<bool, Error> {
        let error = |errno| Error::new(format_args!("wait for link {link}"), errno);
        let mut buffer = [0; 8192];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(error(errno)),
            }
            match sys::recv(self.0.as_raw_fd(), &mut buffer, sys::MsgFlags::empty()) {
                Ok(length) => {
                    let about_it = |payload: &[u8]| {
                        payload.get(INDEX).is_some_and(|index| index == link.to_ne_bytes())
                    };
                    let datagram = buffer.get(..length).unwrap_or(&buffer);
                    if Messages::new(datagram).flatten().any(|m| about_it(m.payload)) {
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
    fn group_and_index_are_where_the_kernel_has_them() {
        assert_eq!(RTMGRP_LINK, libc::RTMGRP_LINK.cast_unsigned());
        assert_eq!(INDEX.start, std::mem::offset_of!(libc::ifinfomsg, ifi_index));
        assert_eq!(INDEX.len(), size_of::<libc::c_int>());
    }
}
