//! ARP for IPv4 on Ethernet (RFC 826, RFC 5227): who has an address.

use std::net::Ipv4Addr;

use libc::sock_filter;

use super::filter::{jump, statement};
use crate::net::Mac;

/// An ARP packet for IPv4 on Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// `ares_op`: 1 for a request, 2 for a reply.
    pub operation: u16,
    /// The sender's link-layer address.
    pub sender_mac: Mac,
    /// The sender's address; unspecified if it has none yet.
    pub sender: Ipv4Addr,
    /// The link-layer address asked for, or that of who has asked.
    pub target_mac: Mac,
    /// The address asked for, or that of who has asked.
    pub target: Ipv4Addr,
}

/// What an ARP packet begins with: Ethernet, IPv4, lengths of their addresses.
const ARP: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LENGTH: usize = 28;
const ARP_REQUEST: u16 = 1;

impl Arp {
    /// Asks whether somebody has an address that the sender is about to use (RFC 5227, section 2.1.1).
    #[must_use]
    pub const fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation: ARP_REQUEST,
            sender_mac: mac,
            sender: Ipv4Addr::UNSPECIFIED,
            target_mac: Mac([0; 6]),
            target: address,
        }
    }

    /// Whether it shows that another than `own` uses `address`, or is about to (RFC 5227, section 2.1.1).
    #[must_use]
    pub fn is_of_another_user(&self, address: Ipv4Addr, own: Mac) -> bool {
        let is_probe = self.sender.is_unspecified() && self.target == address;
        self.sender_mac != own && (self.sender == address || is_probe)
    }

    /// The packet.
    #[must_use]
    pub fn encode(&self) -> [u8; ARP_LENGTH] {
        let mut packet = [0; ARP_LENGTH];
        let parts: [&[u8]; 6] = [
            &ARP,
            &self.operation.to_be_bytes(),
            &self.sender_mac.0,
            &self.sender.octets(),
            &self.target_mac.0,
            &self.target.octets(),
        ];
        for (to, from) in packet.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        packet
    }

    /// Reads a packet; `None` if it is not of this kind.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (kind, rest) = packet.split_first_chunk()?;
        if *kind != ARP {
            return None;
        }
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        let (target, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            operation: u16::from_be_bytes(*operation),
            sender_mac: Mac(*sender_mac),
            sender: (*sender).into(),
            target_mac: Mac(*target_mac),
            target: (*target).into(),
        })
    }
}

/// A filter that lets pass what is about an address, of all ARP packets.
#[must_use]
pub fn about(address: Ipv4Addr) -> Vec<sock_filter> {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const SENDER: u32 = 14;
    const TARGET: u32 = 24;
    let address = address.to_bits();
    vec![
        statement(LOAD_WORD, SENDER),
        jump(IS, address, 2, 0),
        statement(LOAD_WORD, TARGET),
        jump(IS, address, 0, 1),
        statement(RETURN, u32::MAX),
        statement(RETURN, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nl::testing::hex;
    use crate::sys::filter::tests::passes;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn announcement(mac: Mac, address: Ipv4Addr) -> Arp {
        Arp { sender: address, ..Arp::probe(mac, address) }
    }

    #[test]
    fn arp_packets_go_both_ways() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let probe = Arp::probe(MAC, address);
        let expected = hex("
            0001 0800 06 04 0001                   # Ethernet, IPv4, lengths, request
            020000000001 00000000                  # sender
            000000000000 0a000009                  # target
        ");
        assert_eq!(probe.encode(), expected.0.as_slice());
        let announcement = announcement(MAC, address);
        for arp in [probe, announcement] {
            assert_eq!(Arp::read(&arp.encode()), Some(arp));
            for length in 0..ARP_LENGTH {
                assert_eq!(Arp::read(&arp.encode()[..length]), None);
            }
        }
    }

    #[test]
    fn a_neighbour_who_asks_for_an_address_is_no_user_of_it() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let of_another = |arp: Arp| arp.is_of_another_user(address, MAC);
        assert!(of_another(announcement(OTHER, address)));
        assert!(of_another(Arp { operation: 2, ..announcement(OTHER, address) }));
        assert!(of_another(Arp::probe(OTHER, address)), "it is about to use it");
        assert!(!of_another(Arp { sender: SERVER_ADDRESS, ..Arp::probe(OTHER, address) }));
        assert!(!of_another(Arp::probe(MAC, address)), "our own, come back");
        assert!(!of_another(announcement(MAC, address)));
    }

    #[test]
    fn the_kernel_drops_what_is_about_other_addresses() {
        let [address, other] = [9, 10].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let program = about(address);
        assert!(passes(&program, &Arp::probe(OTHER, address).encode()));
        assert!(passes(&program, &announcement(OTHER, address).encode()));
        let reply = Arp { sender: address, target: other, ..Arp::probe(OTHER, other) };
        assert!(passes(&program, &reply.encode()));
        assert!(!passes(&program, &announcement(OTHER, other).encode()));
    }
}
