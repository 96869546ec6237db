use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;

use super::*;
use crate::nl::testing::hex;
use crate::sys::filter;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// What a server sends: the ports the other way round, with checksums to fit.
fn from_server(message: &[u8]) -> Vec<u8> {
    let mut packet = udp(SERVER_ADDRESS, Ipv4Addr::BROADCAST, message);
    // Swapping words changes no sum.
    packet[20..24].rotate_left(2);
    packet
}

/// The beginning of a reply to the client of this address.
fn reply(mac: Mac) -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0];
    message.resize(28, 0);
    message.extend_from_slice(&mac.0);
    message.resize(300, 0);
    message
}

#[test]
fn a_datagram_is_as_rfc_791_and_768_draw_it() {
    let expected = hex("
        45 00 0020 0000 4000 40 11 3acd        # version, length, don't fragment, TTL, UDP, checksum
        00000000 ffffffff                      # source, destination
        0044 0043 000c 9766 61626364           # ports, length, checksum; abcd
    ");
    let found = udp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"abcd");
    assert_eq!(found, expected);
}

#[test]
fn a_servers_datagram_is_read_whatever_follows_it() {
    let mut packet = from_server(b"message");
    packet.extend_from_slice(&[0; 18]);
    let read = Datagram::read(&packet, Checksum::Verify).unwrap();
    let expected =
        Datagram { source: SERVER_ADDRESS, destination: Ipv4Addr::BROADCAST, payload: b"message" };
    assert_eq!(read, expected);
}

#[test]
fn every_damaged_bit_is_noticed() {
    let packet = from_server(&reply(MAC));
    assert!(Datagram::read(&packet, Checksum::Verify).is_some());
    for byte in 0..packet.len() {
        for bit in 0..8 {
            let mut damaged = packet.clone();
            damaged[byte] ^= 1 << bit;
            assert_eq!(
                Datagram::read(&damaged, Checksum::Verify),
                None,
                "bit {bit} of byte {byte}"
            );
        }
    }
    for length in 0..packet.len() {
        assert_eq!(Datagram::read(&packet[..length], Checksum::Verify), None, "{length} bytes");
    }
}

#[test]
fn a_checksum_that_is_not_there_is_not_asked_for() {
    let mut packet = from_server(b"message");
    packet[26..28].fill(0);
    assert!(Datagram::read(&packet, Checksum::Verify).is_some(), "UDP may come without");
    packet[26..28].fill(1);
    assert!(Datagram::read(&packet, Checksum::Verify).is_none());
    assert!(Datagram::read(&packet, Checksum::NotComputedYet).is_some());
}

#[test]
fn what_a_client_sends_is_no_servers() {
    let packet = udp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"message");
    assert_eq!(Datagram::read(&packet, Checksum::Verify), None);
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
    assert_eq!(probe.encode(), expected.as_slice());
    let announcement = Arp::announcement(MAC, address);
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
    assert!(of_another(Arp::announcement(OTHER, address)));
    assert!(of_another(Arp { operation: 2, ..Arp::announcement(OTHER, address) }));
    assert!(of_another(Arp::probe(OTHER, address)), "it is about to use it");
    assert!(!of_another(Arp { sender: SERVER_ADDRESS, ..Arp::probe(OTHER, address) }));
    assert!(!of_another(Arp::probe(MAC, address)), "our own, come back");
    assert!(!of_another(Arp::announcement(MAC, address)));
}

/// Whether the kernel lets a packet pass.
fn passes(program: &[sock_filter], packet: &[u8]) -> bool {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    filter::attach(ours.as_fd(), program).unwrap();
    // What is dropped is refused to who sends it, on a unix socket.
    let _ = theirs.send(packet);
    ours.recv(&mut [0; 2000]).is_ok()
}

#[test]
fn the_kernel_drops_what_is_for_others() {
    let program = messages_filter(MAC);
    let packet = from_server(&reply(MAC));
    assert!(passes(&program, &packet));
    assert!(!passes(&program, &from_server(&reply(OTHER))), "another client's");
    let changed = |byte: usize, value: u8| {
        let mut packet = packet.clone();
        packet[byte] = value;
        passes(&program, &packet)
    };
    assert!(!changed(9, 6), "TCP");
    assert!(!changed(7, 1), "not the first fragment");
    assert!(!changed(6, 0x20), "not the last fragment");
    assert!(!changed(23, 67), "to another port");
    assert!(!changed(28, 1), "a client's");
    assert!(!passes(&program, &packet[..60]), "cut short");
    // With options in IP's header.
    let mut longer = packet.clone();
    longer[0] = 0x46;
    longer.splice(20..20, [1, 1, 1, 1]);
    assert!(passes(&program, &longer));
}

#[test]
fn the_kernel_drops_what_is_about_other_addresses() {
    let [address, other] = [9, 10].map(|last| Ipv4Addr::new(10, 0, 0, last));
    let program = arp_filter(address);
    assert!(passes(&program, &Arp::probe(OTHER, address).encode()));
    assert!(passes(&program, &Arp::announcement(OTHER, address).encode()));
    let reply = Arp { sender: address, target: other, ..Arp::probe(OTHER, other) };
    assert!(passes(&program, &reply.encode()));
    assert!(!passes(&program, &Arp::announcement(OTHER, other).encode()));
}

proptest! {
    #[test]
    fn every_byte_sequence_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Datagram::read(&bytes, Checksum::Verify);
        let _ = Datagram::read(&bytes, Checksum::NotComputedYet);
        let _ = Arp::read(&bytes);
    }
}
