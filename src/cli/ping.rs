//! ICMP echo (RFC 792, RFC 4443), sent from a network namespace.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvmsg,
    sendto, socket,
};

use crate::sys::netns::Netns;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a request is repeated meanwhile.
const INTERVAL: Duration = Duration::from_millis(200);

/// Offsets in an echo message, RFC 792: type, code, checksum, identifier, sequence.
const CHECKSUM: std::ops::Range<usize> = 2..4;
const IDENTIFIER: std::ops::Range<usize> = 4..6;
const MESSAGE: usize = 8;

/// Types of the echo message, of request and reply.
struct Protocol {
    request: u8,
    reply: u8,
    is_ipv4: bool,
}

const ICMP: Protocol = Protocol { request: 8, reply: 0, is_ipv4: true };
const ICMPV6: Protocol = Protocol { request: 128, reply: 129, is_ipv4: false };

/// Pings `to` from inside `from`, through the link of index `scope` if the address is link-local.
/// Returns how long the answer took, or `None` if there was none in time.
///
/// # Errors
/// The namespace can't be entered, or the kernel does not send: there is no route, for one.
pub fn ping(from: &Netns, to: IpAddr, scope: u32) -> io::Result<Option<Duration>> {
    let protocol = if to.is_ipv4() { ICMP } else { ICMPV6 };
    let fd = from.inside(|| open(&protocol))??;
    // The kernel shows a raw socket everybody's messages, so each ping knows its own by this number.
    let identifier = fd.as_raw_fd().to_be_bytes();
    let request = protocol.message([identifier[2], identifier[3]]);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let sent = Instant::now();
        match send(&fd, &request, to, scope) {
            // The neighbour has not answered yet, or our own link-local address is still on its way.
            Err(Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL) if sent + INTERVAL < deadline => {}
            other => other?,
        }
        if wait_for_reply(&fd, &protocol, &request, sent + INTERVAL)? {
            return Ok(Some(sent.elapsed()));
        }
    }
    Ok(None)
}

fn open(protocol: &Protocol) -> io::Result<OwnedFd> {
    let (family, number) = if protocol.is_ipv4 {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Raw, flags, number)?)
}

fn send(fd: &OwnedFd, request: &[u8], to: IpAddr, scope: u32) -> nix::Result<()> {
    let (fd, flags) = (fd.as_raw_fd(), MsgFlags::empty());
    match to {
        IpAddr::V4(v4) => sendto(fd, request, &SockaddrIn::from(SocketAddrV4::new(v4, 0)), flags),
        IpAddr::V6(v6) => {
            let scope = if v6.is_unicast_link_local() { scope } else { 0 };
            sendto(fd, request, &SockaddrIn6::from(SocketAddrV6::new(v6, 0, 0, scope)), flags)
        }
    }
    .map(drop)
}

fn wait_for_reply(
    fd: &OwnedFd,
    protocol: &Protocol,
    request: &[u8],
    deadline: Instant,
) -> io::Result<bool> {
    let mut buffer = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut parts = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<()>(fd.as_raw_fd(), &mut parts, None, MsgFlags::empty()) {
            Ok(received) => {
                let length = received.bytes;
                if protocol.answers(buffer.get(..length).unwrap_or_default(), request) {
                    return Ok(true);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Protocol {
    fn message(&self, identifier: [u8; 2]) -> [u8; MESSAGE] {
        let [high, low] = identifier;
        let mut message = [self.request, 0, 0, 0, high, low, 0, 1];
        // Of ICMPv6 the kernel fills in the checksum (RFC 3542, section 3.1).
        if self.is_ipv4 {
            let sum = checksum(&message).to_be_bytes();
            message[CHECKSUM].copy_from_slice(&sum);
        }
        message
    }

    /// Whether `datagram` is the reply to `request`. The kernel shows IPv4's header and not IPv6's.
    fn answers(&self, datagram: &[u8], request: &[u8]) -> bool {
        let header = match datagram.first() {
            Some(first) if self.is_ipv4 => usize::from(first & 0x0f) * 4,
            _ => 0,
        };
        let message = datagram.get(header..).unwrap_or_default();
        message.first() == Some(&self.reply)
            && message.get(IDENTIFIER).is_some_and(|id| request.get(IDENTIFIER) == Some(id))
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "the last carry is folded in")]
    let folded = (folded + (folded >> 16)) as u16;
    !folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_ping_sends() {
        // ping -c 1 -e 0x1234 -s 0: 08 00 e5 ca 12 34 00 01
        assert_eq!(ICMP.message([0x12, 0x34]), [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        assert_eq!(ICMPV6.message([0x12, 0x34]), [128, 0, 0, 0, 0x12, 0x34, 0, 1]);
        assert_eq!(checksum(&ICMP.message([0x12, 0x34])), 0, "a sum over itself is zero");
    }

    #[test]
    fn only_the_reply_to_the_own_request_counts() {
        let request = ICMP.message([0x12, 0x34]);
        let reply = |kind, id| {
            let mut datagram = vec![0x45; 20];
            datagram.extend([kind, 0, 0, 0, 0x12, id, 0, 1]);
            datagram
        };
        assert!(ICMP.answers(&reply(0, 0x34), &request));
        assert!(!ICMP.answers(&reply(8, 0x34), &request), "a request");
        assert!(!ICMP.answers(&reply(0, 0x35), &request), "another's");
        for cut in 0..26 {
            assert!(!ICMP.answers(&reply(0, 0x34)[..cut], &request), "{cut}");
        }
        assert!(ICMPV6.answers(&[129, 0, 0, 0, 0x12, 0x34, 0, 1], &ICMPV6.message([0x12, 0x34])));
    }
}
