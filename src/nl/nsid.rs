//! Numbers of network namespaces: `RTM_NEWNSID`, `RTM_GETNSID` (linux/net_namespace.h). Each namespace has its own for the
//! others, and tells by them where a link's other end is.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::error::Error;
use super::request::{Query, Request};
use super::socket::{Channel, Socket};
use super::wire::{Encoder, Malformed, Message};

/// `NETNSA_NSID`, `NETNSA_FD` (linux/net_namespace.h).
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `NETNSA_NSID_NOT_ASSIGNED`
const NOT_ASSIGNED: i32 = -1;
/// Length of `struct rtgenmsg` (linux/rtnetlink.h), padded.
const HEADER: usize = 4;

/// Asks for the number of a namespace.
#[derive(Clone, Copy, Debug)]
struct Get<'a>(BorrowedFd<'a>);

impl fmt::Display for Get<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read the number of a network namespace")
    }
}

impl Request for Get<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_GETNSID
    }

    fn body(&self, out: &mut Encoder) {
        out.raw(&[0; HEADER]);
        out.put(NETNSA_FD, &self.0.as_raw_fd().cast_unsigned());
    }
}

impl Query for Get<'_> {
    type Reply = Option<i32>;

    fn decode(&self, message: &Message<'_>) -> Result<Option<i32>, Malformed> {
        if message.kind != libc::RTM_NEWNSID {
            return Err(Malformed("expected the number of a namespace"));
        }
        let (_, attributes) = message.split::<HEADER>()?;
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == NETNSA_NSID {
                let number = attribute.u32()?.cast_signed();
                return Ok((number != NOT_ASSIGNED).then_some(number));
            }
        }
        Err(Malformed("a namespace without number"))
    }
}

/// The number that the socket's namespace has for another; `None` if it has had no need of one yet.
///
/// # Errors
/// The kernel's refusal.
pub fn of<C: Channel>(socket: &mut Socket<C>, other: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
    socket.query(&Get(other))
}

/// Has the kernel give a namespace a number. One that it has stays.
#[derive(Clone, Copy, Debug)]
struct Assign<'a>(BorrowedFd<'a>);

impl fmt::Display for Assign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give a network namespace a number")
    }
}

impl Request for Assign<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWNSID
    }

    fn body(&self, out: &mut Encoder) {
        out.raw(&[0; HEADER]);
        out.put(NETNSA_NSID, &NOT_ASSIGNED.cast_unsigned());
        out.put(NETNSA_FD, &self.0.as_raw_fd().cast_unsigned());
    }

    fn tolerates(&self, errno: Errno) -> bool {
        errno == Errno::EEXIST
    }
}

/// The number that the socket's namespace has for another, from now on.
///
/// # Errors
/// The kernel's refusal.
pub fn assign<C: Channel>(socket: &mut Socket<C>, other: BorrowedFd<'_>) -> Result<i32, Error> {
    let number = socket.execute_then_query(&[&Assign(other)], &Get(other))?;
    number.ok_or_else(|| Error::protocol(Get(other), "it has none"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::nl::testing::{answered, hex, sent};

    /// As `ip netns list-id` has it (with `NETNSA_FD`).
    #[test]
    fn a_number_is_asked_for() {
        let netns = std::io::stderr();
        let expected = hex("
            1c000000 5a00 0100 01000000 00000000   # RTM_GETNSID, REQUEST
            00000000                               # struct rtgenmsg
            0800 0300 02000000                     # NETNSA_FD 2
            ");
        assert_eq!(sent(|kernel| of(kernel, netns.as_fd())), expected);
    }

    /// As `ip netns set NAME auto` has it.
    #[test]
    fn a_number_is_given() {
        let netns = std::io::stderr();
        let expected = hex("
            24000000 5800 0100 01000000 00000000   # RTM_NEWNSID, REQUEST
            00000000                               # struct rtgenmsg
            0800 0100 ffffffff                     # NETNSA_NSID -1: any
            0800 0300 02000000                     # NETNSA_FD 2
            1c000000 5a00 0100 02000000 00000000   # RTM_GETNSID, REQUEST
            00000000                               # struct rtgenmsg
            0800 0300 02000000                     # NETNSA_FD 2
            ");
        assert_eq!(sent(|kernel| assign(kernel, netns.as_fd())), expected);
    }

    #[test]
    fn a_number_is_read_and_its_lack_too() {
        let netns = std::io::stderr();
        let answer = |number| {
            hex(&format!(
                "
                1c000000 5800 0000 01000000 00000000   # RTM_NEWNSID
                00000000                               # struct rtgenmsg
                0800 0100 {number}                     # NETNSA_NSID
                "
            ))
        };
        let read = |number| answered(&[answer(number)], |kernel| of(kernel, netns.as_fd()));
        assert_eq!(read("05000000").unwrap(), Some(5));
        assert_eq!(read("ffffffff").unwrap(), None);
    }
}
