use std::mem::offset_of;

use proptest::prelude::*;

use super::*;
use crate::nl::testing::{Bytes, Refusal, answered, done, hex, message, sent};
use crate::nl::wire::Messages;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn add(text: &str, without_dad: bool) -> Bytes {
    let request = Add { link: 2, cidr: cidr(text), without_dad, without_prefix_route: false };
    sent(|kernel| kernel.execute(&[&request]))
}

/// `ip addr add 10.1.0.2/24 brd + dev d0 noprefixroute`
///
/// `ip addr add 2001:db8::2/64 dev d0 nodad noprefixroute`
#[test]
fn an_address_can_be_added_without_a_route_to_its_network() {
    let add = |text| {
        let request =
            Add { link: 3, cidr: cidr(text), without_dad: true, without_prefix_route: true };
        sent(|kernel| kernel.execute(&[&request]))
    };
    let expected = hex("
        38000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        02180000 03000000                      # struct ifaddrmsg
        0800 0200 0a010002                     # IFA_LOCAL 10.1.0.2
        0800 0800 00020000                     # IFA_FLAGS noprefixroute
        0800 0100 0a010002                     # IFA_ADDRESS 10.1.0.2
        0800 0400 0a0100ff                     # IFA_BROADCAST 10.1.0.255
        ");
    assert_eq!(add("10.1.0.2/24"), expected);
    let expected = hex("
        48000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        0a400000 03000000                      # struct ifaddrmsg
        1400 0200 20010db8 00000000 00000000 00000002 # IFA_LOCAL 2001:db8::2
        0800 0800 02020000                     # IFA_FLAGS nodad, noprefixroute
        1400 0100 20010db8 00000000 00000000 00000002 # IFA_ADDRESS 2001:db8::2
        ");
    assert_eq!(add("2001:db8::2/64"), expected);
}

/// `ip addr add 10.1.0.2/24 brd + dev cni0`
#[test]
fn an_ipv4_address_is_added_with_its_broadcast_address() {
    let expected = hex("
        30000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        02180000 02000000                      # struct ifaddrmsg
        0800 0200 0a010002                     # IFA_LOCAL 10.1.0.2
        0800 0100 0a010002                     # IFA_ADDRESS 10.1.0.2
        0800 0400 0a0100ff                     # IFA_BROADCAST 10.1.0.255
        ");
    assert_eq!(add("10.1.0.2/24", false), expected);
    // There is nothing to detect duplicates by.
    assert_eq!(add("10.1.0.2/24", true), expected);
}

/// `ip addr add 10.9.0.2/32 dev cni0`
#[test]
fn an_ipv4_network_of_one_or_two_has_no_broadcast_address() {
    let expected = hex("
        28000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        02200000 02000000                      # struct ifaddrmsg
        0800 0200 0a090002                     # IFA_LOCAL 10.9.0.2
        0800 0100 0a090002                     # IFA_ADDRESS 10.9.0.2
        ");
    assert_eq!(add("10.9.0.2/32", false), expected);

    let expected = hex("
        28000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        021f0000 02000000                      # struct ifaddrmsg
        0800 0200 0a090002                     # IFA_LOCAL 10.9.0.2
        0800 0100 0a090002                     # IFA_ADDRESS 10.9.0.2
        ");
    assert_eq!(add("10.9.0.2/31", false), expected);
}

/// `ip addr add 2001:db8::2/64 dev cni0 nodad`
#[test]
fn an_ipv6_address_can_be_added_for_use_at_once() {
    let expected = hex("
        40000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        0a400200 02000000                      # struct ifaddrmsg
        1400 0200 20010db8 00000000 00000000 00000002 # IFA_LOCAL 2001:db8::2
        1400 0100 20010db8 00000000 00000000 00000002 # IFA_ADDRESS 2001:db8::2
        ");
    assert_eq!(add("2001:db8::2/64", true), expected);
}

/// `ip addr add 2001:db8:1::2/64 dev cni0`
#[test]
fn an_ipv6_address_is_otherwise_tentative_at_first() {
    let expected = hex("
        40000000 1400 0506 01000000 00000000   # RTM_NEWADDR, REQUEST | ACK | EXCL | CREATE
        0a400000 02000000                      # struct ifaddrmsg
        1400 0200 20010db8 00010000 00000000 00000002 # IFA_LOCAL 2001:db8:1::2
        1400 0100 20010db8 00010000 00000000 00000002 # IFA_ADDRESS 2001:db8:1::2
        ");
    assert_eq!(add("2001:db8:1::2/64", false), expected);
}

/// `ip addr del 10.1.0.2/24 dev cni0`, `ip addr del 2001:db8::2/64 dev cni0`
#[test]
fn an_address_is_deleted() {
    let expected = hex("
        28000000 1500 0500 01000000 00000000   # RTM_DELADDR, REQUEST | ACK
        02180000 02000000                      # struct ifaddrmsg
        0800 0200 0a010002                     # IFA_LOCAL 10.1.0.2
        0800 0100 0a010002                     # IFA_ADDRESS 10.1.0.2
        ");
    let request = Delete { link: 2, cidr: cidr("10.1.0.2/24") };
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);

    let expected = hex("
        40000000 1500 0500 01000000 00000000   # RTM_DELADDR, REQUEST | ACK
        0a400000 02000000                      # struct ifaddrmsg
        1400 0200 20010db8 00000000 00000000 00000002 # IFA_LOCAL 2001:db8::2
        1400 0100 20010db8 00000000 00000000 00000002 # IFA_ADDRESS 2001:db8::2
        ");
    let request = Delete { link: 2, cidr: cidr("2001:db8::2/64") };
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip addr show dev cni0`
#[test]
fn addresses_are_asked_for_of_one_link() {
    let expected = hex("
        18000000 1600 0103 01000000 00000000   # RTM_GETADDR, REQUEST | DUMP
        00000000 02000000                      # struct ifaddrmsg
        ");
    assert_eq!(sent(|kernel| of_link(kernel, 2)), expected);
}

/// The answer to the request above, of both families: after `ip addr add` of `10.1.0.2/24 brd +`,
/// `10.9.0.2/32`, `10.7.0.1 peer 10.7.0.2`, of `2001:db8::2/64 nodad`, of `2001:db8:1::2/64` a moment
/// ago, and of `2001:db8:2::2/64` that a neighbour has too.
#[test]
fn addresses_of_a_link_are_read() {
    let datagrams = [
        hex("
            58000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            02188000 02000000                      # struct ifaddrmsg
            0800 0100 0a010002                     # IFA_ADDRESS 10.1.0.2
            0800 0200 0a010002                     # IFA_LOCAL 10.1.0.2
            0800 0400 0a0100ff                     # IFA_BROADCAST 10.1.0.255
            0900 0300 636e6930 00000000            # IFA_LABEL cni0
            0800 0800 80000000                     # IFA_FLAGS
            1400 0600 ffffffff ffffffff abac0100 abac0100 # IFA_CACHEINFO
            50000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            02208000 02000000                      # struct ifaddrmsg
            0800 0100 0a090002                     # IFA_ADDRESS 10.9.0.2
            0800 0200 0a090002                     # IFA_LOCAL 10.9.0.2
            0900 0300 636e6930 00000000            # IFA_LABEL cni0
            0800 0800 80000000                     # IFA_FLAGS
            1400 0600 ffffffff ffffffff abac0100 abac0100 # IFA_CACHEINFO
            50000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            02208000 02000000                      # struct ifaddrmsg
            0800 0100 0a070002                     # IFA_ADDRESS 10.7.0.2
            0800 0200 0a070001                     # IFA_LOCAL 10.7.0.1
            0900 0300 636e6930 00000000            # IFA_LABEL cni0
            0800 0800 80000000                     # IFA_FLAGS
            1400 0600 ffffffff ffffffff abac0100 abac0100 # IFA_CACHEINFO
            48000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            0a40c000 02000000                      # struct ifaddrmsg
            1400 0100 20010db8 00010000 00000000 00000003 # IFA_ADDRESS 2001:db8:1::3
            1400 0600 ffffffff ffffffff a6ad0100 a6ad0100 # IFA_CACHEINFO
            0800 0800 c0000000                     # IFA_FLAGS
            48000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            0a40c800 02000000                      # struct ifaddrmsg
            1400 0100 20010db8 00020000 00000000 00000002 # IFA_ADDRESS 2001:db8:2::2
            1400 0600 ffffffff ffffffff abac0100 abac0100 # IFA_CACHEINFO
            0800 0800 c8000000                     # IFA_FLAGS
            48000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            0a408000 02000000                      # struct ifaddrmsg
            1400 0100 20010db8 00010000 00000000 00000002 # IFA_ADDRESS 2001:db8:1::2
            1400 0600 ffffffff ffffffff abac0100 abac0100 # IFA_CACHEINFO
            0800 0800 80000000                     # IFA_FLAGS
            48000000 1400 2200 01000000 00000000   # RTM_NEWADDR, MULTI | DUMP_FILTERED
            0a408200 02000000                      # struct ifaddrmsg
            1400 0100 20010db8 00000000 00000000 00000002 # IFA_ADDRESS 2001:db8::2
            1400 0600 ffffffff ffffffff abac0100 abac0100 # IFA_CACHEINFO
            0800 0800 82000000                     # IFA_FLAGS
            "),
        hex("
            14000000 0300 2200 01000000 00000000   # NLMSG_DONE, MULTI | DUMP_FILTERED
            00000000                               # 0
            "),
    ];
    let address = |text, link_local, duplicate, tentative| Address {
        link: 2,
        cidr: cidr(text),
        link_local,
        duplicate,
        tentative,
    };
    let expected = vec![
        address("10.1.0.2/24", false, false, false),
        address("10.9.0.2/32", false, false, false),
        address("10.7.0.1/32", false, false, false),
        address("2001:db8:1::3/64", false, false, true),
        address("2001:db8:2::2/64", false, true, true),
        address("2001:db8:1::2/64", false, false, false),
        address("2001:db8::2/64", false, false, false),
    ];
    assert_eq!(answered(&datagrams, |kernel| of_link(kernel, 2)), Ok(expected));
}

#[test]
fn an_address_of_scope_link_is_link_local() {
    let bytes = message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| {
        out.raw(&[10, 64, 0, libc::RT_SCOPE_LINK]);
        out.raw(&2_u32.to_ne_bytes());
        out.put(libc::IFA_ADDRESS, &cidr("fe80::2/64").address);
    });
    let expected = Address {
        link: 2,
        cidr: cidr("fe80::2/64"),
        link_local: true,
        duplicate: false,
        tentative: false,
    };
    assert_eq!(decode(&bytes), Ok(expected));
}

/// An MCTP address is a byte: AF_MCTP is 45, and its IFA_LOCAL the endpoint's number.
#[test]
fn what_is_no_ip_address_is_left_out() {
    let mut dump = message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| {
        out.raw(&[45, 0, 0, 0]);
        out.raw(&2_u32.to_ne_bytes());
        out.put(libc::IFA_LOCAL, &8_u8);
    });
    dump.extend(done(1, 0));
    assert_eq!(answered(&[Bytes(dump)], |kernel| of_link(kernel, 2)), Ok(Vec::new()));
}

/// Before Linux 5.0 a dump is of all links.
#[test]
fn addresses_of_other_links_are_left_out() {
    let mut dump = Vec::new();
    for link in [1, 2, 3] {
        dump.extend(message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| {
            Add {
                link,
                cidr: cidr("10.1.0.2/24"),
                without_dad: false,
                without_prefix_route: false,
            }
            .body(out);
        }));
    }
    dump.extend(done(1, 0));
    let expected = Address {
        link: 2,
        cidr: cidr("10.1.0.2/24"),
        link_local: false,
        duplicate: false,
        tentative: false,
    };
    assert_eq!(answered(&[Bytes(dump)], |kernel| of_link(kernel, 2)), Ok(vec![expected]));
}

/// `ip addr add 10.1.0.2/24 dev cni0`, a second time.
#[test]
fn an_address_that_is_there_already_is_no_error() {
    let answer = hex("
        48000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        efffffff                               # error -17
        30000000 14000506 01000000 00000000    # the request's header
        2300 0100 69707634 3a204164 64726573 7320616c # NLMSGERR_ATTR_MSG ipv4: Address already assigned
                  72656164 79206173 7369676e 65640000
        ");
    let request =
        Add { link: 2, cidr: cidr("10.1.0.2/24"), without_dad: false, without_prefix_route: false };
    assert_eq!(answered(&[answer], |kernel| kernel.execute(&[&request])), Ok(()));
}

/// `ip addr del 10.99.0.2/24 dev cni0`
#[test]
fn a_missing_address_is_gone_already() {
    let answer = hex("
        40000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        9dffffff                               # error -99
        28000000 15000500 01000000 00000000    # the request's header
        1c00 0100 69707634 3a204164 64726573 73206e6f # NLMSGERR_ATTR_MSG ipv4: Address not found
                  7420666f 756e6400
        ");
    let request = Delete { link: 2, cidr: cidr("10.99.0.2/24") };
    assert_eq!(answered(&[answer], |kernel| kernel.execute(&[&request])), Ok(()));
}

fn decode(message: &[u8]) -> Result<Address, Malformed> {
    List { link: 2, netns: None }.decode(&Messages::new(message).next().unwrap().unwrap())
}

#[test]
fn a_malformed_address_is_an_error() {
    let answer = |kind, prefix, address: &[u8]| {
        message(kind, Flags::empty(), 1, |out| {
            header(out, 2, prefix, 0, 2);
            if !address.is_empty() {
                out.put(libc::IFA_ADDRESS, address);
            }
        })
    };
    let cases = [
        (answer(libc::RTM_NEWLINK, 24, &[10, 1, 0, 2]), "expected an address"),
        (answer(libc::RTM_NEWADDR, 24, &[]), "address message without address"),
        (answer(libc::RTM_NEWADDR, 24, &[10, 1, 0]), "attribute of unexpected length"),
        (answer(libc::RTM_NEWADDR, 33, &[10, 1, 0, 2]), "prefix longer than its address"),
        (answer(libc::RTM_NEWADDR, 129, &[0; 16]), "prefix longer than its address"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(&bytes), Err(Malformed(expected)));
    }
    let short = message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| out.raw(&[0; 4]));
    assert_eq!(decode(&short), Err(Malformed("message without family header")));
}

/// Of a kernel that ignores the question which namespace is meant, the answers are not taken for those of
/// the link of the same index there.
#[test]
fn addresses_of_another_namespace_are_told_from_our_own() {
    let answer = |netns: Option<u32>| {
        let mut bytes = message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| {
            header(out, 2, 24, 0, 2);
            out.put(libc::IFA_LOCAL, [10, 1, 0, 2].as_slice());
            if let Some(netns) = netns {
                out.put(IFA_TARGET_NETNSID, &netns);
            }
        });
        bytes.extend(done(1, 0));
        Bytes(bytes)
    };
    for (from, found) in [(Some(7), true), (Some(8), false), (None, false)] {
        let addresses = answered(&[answer(from)], |kernel| of_link_in(kernel, 7, 2)).unwrap();
        assert_eq!(addresses.len() == 1, found, "{from:?}: {addresses:?}");
    }
    let request = sent(|kernel| of_link_in(kernel, 7, 2));
    let expected = hex("
        20000000 1600 0103 01000000 00000000   # RTM_GETADDR, REQUEST | DUMP
        00000000 02000000                      # struct ifaddrmsg
        0800 0a00 07000000                     # IFA_TARGET_NETNSID 7
        ");
    assert_eq!(request, expected);
}

#[test]
fn purposes_name_address_and_link() {
    let purposes: [(&dyn Request, &str); 3] = [
        (
            &Add {
                link: 2,
                cidr: cidr("10.1.0.2/24"),
                without_dad: false,
                without_prefix_route: false,
            },
            "add address 10.1.0.2/24 to link 2",
        ),
        (
            &Delete { link: 2, cidr: cidr("2001:db8::2/64") },
            "remove address 2001:db8::2/64 from link 2",
        ),
        (&List { link: 2, netns: None }, "list addresses of link 2"),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
    let refusal = Refusal { sequence: 1, errno: libc::EINVAL, ..Refusal::default() };
    let error = answered(&[Bytes(refusal.bytes())], |kernel| of_link(kernel, 2)).unwrap_err();
    assert_eq!(error.to_string(), "cannot list addresses of link 2: EINVAL");
}

#[test]
fn the_header_is_laid_out_as_the_kernels() {
    assert_eq!(HEADER, size_of::<libc::ifaddrmsg>());
    assert_eq!(offset_of!(libc::ifaddrmsg, ifa_family), 0);
    assert_eq!(offset_of!(libc::ifaddrmsg, ifa_prefixlen), 1);
    assert_eq!(offset_of!(libc::ifaddrmsg, ifa_flags), 2);
    assert_eq!(offset_of!(libc::ifaddrmsg, ifa_scope), 3);
    assert_eq!(offset_of!(libc::ifaddrmsg, ifa_index), 4);
    let mut encoder = Encoder::new();
    header(&mut encoder, 1, 2, 3, 0x0807_0605);
    assert_eq!(Bytes(encoder.bytes().unwrap().to_vec()), hex("01 02 03 00 05060708"));
}

#[test]
fn families_are_the_kernels() {
    assert_eq!(i32::from(family_of([0_u8; 4].into())), libc::AF_INET);
    assert_eq!(i32::from(family_of([0_u8; 16].into())), libc::AF_INET6);
}

proptest! {
    #[test]
    fn an_address_as_added_is_read_back(
        link: u32,
        address: IpAddr,
        prefix in 0_u8..=128,
        without_dad: bool,
        without_prefix_route: bool,
    ) {
        let cidr = Cidr { address, prefix: prefix.min(width(address)) };
        let add = Add { link, cidr, without_dad, without_prefix_route };
        let read = decode(&sent(|kernel| kernel.execute(&[&add])).0);
        let expected =
            Address { link, cidr, link_local: false, duplicate: false, tentative: false };
        prop_assert_eq!(read, Ok(expected));
    }

    #[test]
    fn any_answer_is_survived(bytes: Vec<u8>) {
        let _ = decode(&message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| out.raw(&bytes)));
    }
}
