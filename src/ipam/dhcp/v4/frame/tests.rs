use proptest::prelude::*;

use super::*;
use crate::nl::testing::{Bytes, hex};
use crate::sys::filter::tests::passes;

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
        45 00 0020 0000 4000 40 11 3ace        # version, length, don't fragment, TTL, UDP, checksum
        00000000 ffffffff                      # source, destination
        0044 0043 000c 3a89 61626364           # ports, length, checksum; abcd
    ");
    let found = udp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"abcd");
    assert_eq!(Bytes(found), expected);
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

proptest! {
    #[test]
    fn every_byte_sequence_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Datagram::read(&bytes, Checksum::Verify);
        let _ = Datagram::read(&bytes, Checksum::NotComputedYet);
    }
}
