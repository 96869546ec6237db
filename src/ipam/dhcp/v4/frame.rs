//! What carries messages: IPv4 and UDP (RFC 791, RFC 768), without the link layer's header, which the kernel reads
//! and writes (packet(7), `SOCK_DGRAM`). And the filter by which it tells what is for a client from all else.

use std::net::Ipv4Addr;

use libc::sock_filter;

use crate::net::Mac;
use crate::sys::filter::{jump, statement};

/// The ports of servers and clients.
const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// The protocol number of UDP.
const UDP: u8 = 17;
/// Lengths of an IPv4 header without options and of UDP's.
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// In IPv4's header: no fragment may be made of it; what tells a fragment from a whole datagram.
const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT: u16 = 0x3fff;
const TIME_TO_LIVE: u8 = 64;

/// Whether a datagram's UDP checksum is there to be verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// It is.
    Verify,
    /// The sender is on this machine and has left it to the device, which there is none of.
    NotComputedYet,
}

/// A datagram of a server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// Who has sent it.
    pub source: Ipv4Addr,
    /// To whom: the client, or everybody.
    pub destination: Ipv4Addr,
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads an IPv4 packet; `None` if it is no whole datagram from a server's port to a client's, or damaged.
    #[must_use]
    pub fn read(packet: &'a [u8], checksum: Checksum) -> Option<Self> {
        let first = packet.first()?;
        let header_length = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_length < IP_HEADER {
            return None;
        }
        let header = packet.get(..header_length)?;
        let [_, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *header.first_chunk::<IP_HEADER>()?;
        if sum(0, header) != u16::MAX
            || protocol != UDP
            || u16::from_be_bytes([f0, f1]) & FRAGMENT != 0
        {
            return None;
        }
        let source = Ipv4Addr::new(s0, s1, s2, s3);
        let destination = Ipv4Addr::new(d0, d1, d2, d3);
        // Behind it there may be padding of the link's.
        let total = usize::from(u16::from_be_bytes([l0, l1]));
        let udp = packet.get(header_length..total)?;
        let (udp_header, _) = udp.split_first_chunk::<UDP_HEADER>()?;
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *udp_header;
        let length = u16::from_be_bytes([l0, l1]);
        let udp = udp.get(..usize::from(length))?;
        let has_checksum = [c0, c1] != [0, 0] && checksum == Checksum::Verify;
        if [[s0, s1], [d0, d1]].map(u16::from_be_bytes) != [SERVER, CLIENT]
            || has_checksum && udp_sum(source, destination, length, udp) != u16::MAX
        {
            return None;
        }
        Some(Self { source, destination, payload: udp.get(UDP_HEADER..)? })
    }
}

/// A message as an IPv4 packet from a client to a server.
#[must_use]
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    // A message is far shorter than that.
    let length = |header: usize| u16::try_from(header + message.len()).unwrap_or(u16::MAX);
    let udp_length = length(UDP_HEADER);
    let mut udp = Vec::with_capacity(UDP_HEADER + message.len());
    for field in [CLIENT, SERVER, udp_length, 0] {
        udp.extend_from_slice(&field.to_be_bytes());
    }
    udp.extend_from_slice(message);
    let checksum = match !udp_sum(source, destination, udp_length, &udp) {
        // Zero would say that there is none.
        0 => u16::MAX,
        checksum => checksum,
    };
    if let Some(field) = udp.get_mut(6..8) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }

    let mut packet = vec![0x45, 0];
    for field in [length(IP_HEADER + UDP_HEADER), 0, DONT_FRAGMENT] {
        packet.extend_from_slice(&field.to_be_bytes());
    }
    packet.extend_from_slice(&[TIME_TO_LIVE, UDP, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let checksum = !sum(0, &packet);
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    packet.append(&mut udp);
    packet
}

/// The sum that UDP's checksum makes complete: of a header made of IP's, and all of the datagram.
fn udp_sum(source: Ipv4Addr, destination: Ipv4Addr, length: u16, udp: &[u8]) -> u16 {
    let mut begin = sum(0, &source.octets());
    begin = sum(begin, &destination.octets());
    begin = sum(begin, &[0, UDP]);
    begin = sum(begin, &length.to_be_bytes());
    sum(begin, udp)
}

/// The ones' complement sum of 16-bit words (RFC 1071), added to that of others.
fn sum(begin: u16, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map(|byte| [*byte, 0]);
    let mut sum = u32::from(begin);
    for word in words.iter().chain(&last) {
        sum += u32::from(u16::from_be_bytes(*word));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
/// Four times the lower half of a byte, into the index register: the length of an IPv4 header.
const LOAD_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
/// The same loads, so many bytes behind the index register.
const LOAD_BYTE_BEHIND: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_WORD_BEHIND: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const HAS_ANY: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const ALL: u32 = u32::MAX;

/// Lets pass what a server says to the client of this link-layer address, of all IPv4 packets. What a load does
/// not find has the packet dropped.
#[must_use]
pub fn messages_filter(mac: Mac) -> Vec<sock_filter> {
    /// Where fields are, in IPv4's header and behind it: UDP's port, and `op` and `chaddr` of the message.
    const PROTOCOL: u32 = 9;
    const FLAGS: u32 = 6;
    const PORT: u32 = 2;
    const OP: u32 = 8;
    const CHADDR: u32 = 8 + 28;
    let [a, b, c, d, e, f] = mac.0;
    let (first, last) = (u32::from_be_bytes([a, b, c, d]), u32::from(u16::from_be_bytes([e, f])));
    // A jump is that many instructions further: to the last but one if all is well, or else to the last.
    vec![
        statement(LOAD_BYTE, PROTOCOL),
        jump(IS, UDP.into(), 0, 12),
        statement(LOAD_HALF, FLAGS),
        jump(HAS_ANY, FRAGMENT.into(), 10, 0),
        statement(LOAD_LENGTH, 0),
        statement(LOAD_HALF_BEHIND, PORT),
        jump(IS, CLIENT.into(), 0, 7),
        statement(LOAD_BYTE_BEHIND, OP),
        jump(IS, 2, 0, 5),
        statement(LOAD_WORD_BEHIND, CHADDR),
        jump(IS, first, 0, 3),
        statement(LOAD_HALF_BEHIND, CHADDR + 4),
        jump(IS, last, 0, 1),
        statement(RETURN, ALL),
        statement(RETURN, 0),
    ]
}

#[cfg(test)]
mod tests;
