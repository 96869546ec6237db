use proptest::prelude::*;

use super::*;
use crate::nl::testing::{Answer, Bytes, answered, answering, done, hex, message, sent};
use crate::nl::wire::Messages;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// A route through link 2 of the main table.
fn route(destination: &str, gateway: Option<&str>) -> Route {
    Route {
        destination: cidr(destination),
        gateway: gateway.map(|text| text.parse().unwrap()),
        onlink: false,
        source: None,
        link: 2,
        table: TABLE_MAIN,
        priority: 0,
        scope: None,
        mtu: 0,
        advmss: 0,
    }
}

fn add(route: Route) -> Bytes {
    sent(|kernel| kernel.execute(&[&Add(route)]))
}

/// `ip route prepend 10.20.0.0/16 via 10.1.0.1 dev cni0 metric 50 mtu 1300 advmss 1260`
///
/// ip(8) writes the link behind the priority.
#[test]
fn a_route_is_added_with_its_metrics() {
    let route =
        Route { priority: 50, mtu: 1300, advmss: 1260, ..route("10.20.0.0/16", Some("10.1.0.1")) };
    let expected = hex("
        50000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02100000 fe030001 00000000             # struct rtmsg
        0800 0100 0a140000                     # RTA_DST 10.20.0.0
        0800 0500 0a010001                     # RTA_GATEWAY 10.1.0.1
        0800 0400 02000000                     # RTA_OIF 2
        0800 0600 32000000                     # RTA_PRIORITY 50
        1400 0800                              # RTA_METRICS
          0800 0200 14050000                   # RTAX_MTU 1300
          0800 0800 ec040000                   # RTAX_ADVMSS 1260
        ");
    assert_eq!(add(route), expected);
}

/// `ip route prepend 10.21.0.0/16 via 10.1.0.1 dev cni0 table 1000`
///
/// ip(8) writes the table before the link.
#[test]
fn a_table_beyond_a_byte_is_an_attribute() {
    let route = Route { table: 1000, ..route("10.21.0.0/16", Some("10.1.0.1")) };
    let expected = hex("
        3c000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02100000 00030001 00000000             # struct rtmsg
        0800 0100 0a150000                     # RTA_DST 10.21.0.0
        0800 0500 0a010001                     # RTA_GATEWAY 10.1.0.1
        0800 0400 02000000                     # RTA_OIF 2
        0800 0f00 e8030000                     # RTA_TABLE 1000
        ");
    assert_eq!(add(route), expected);
}

/// `ip route prepend 10.23.0.0/16 dev cni0`, and the same with `scope global`
#[test]
fn a_route_without_gateway_is_of_the_link_unless_said_otherwise() {
    let route = route("10.23.0.0/16", None);
    let expected = hex("
        2c000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02100000 fe03fd01 00000000             # struct rtmsg
        0800 0100 0a170000                     # RTA_DST 10.23.0.0
        0800 0400 02000000                     # RTA_OIF 2
        ");
    assert_eq!(add(route), expected);

    let expected = hex("
        2c000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02100000 fe030001 00000000             # struct rtmsg
        0800 0100 0a170000                     # RTA_DST 10.23.0.0
        0800 0400 02000000                     # RTA_OIF 2
        ");
    assert_eq!(add(Route { scope: Some(libc::RT_SCOPE_UNIVERSE), ..route }), expected);
}

/// `ip route prepend default via 10.1.0.1 dev cni0`
#[test]
fn a_default_route_has_no_destination() {
    let expected = hex("
        2c000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02000000 fe030001 00000000             # struct rtmsg
        0800 0500 0a010001                     # RTA_GATEWAY 10.1.0.1
        0800 0400 02000000                     # RTA_OIF 2
        ");
    assert_eq!(add(route("0.0.0.0/0", Some("10.1.0.1"))), expected);
}

/// `ip route prepend 2001:db8:5::/48 via 2001:db8::1 dev cni0 metric 50 mtu 1300 advmss 1260 table 1000`
///
/// ip(8) writes the priority and the table before the link.
#[test]
fn an_ipv6_route_is_added_with_all_it_has() {
    let route = Route {
        table: 1000,
        priority: 50,
        mtu: 1300,
        advmss: 1260,
        ..route("2001:db8:5::/48", Some("2001:db8::1"))
    };
    let expected = hex("
        70000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        0a300000 00030001 00000000             # struct rtmsg
        1400 0100 20010db8 00050000 00000000 00000000 # RTA_DST 2001:db8:5::
        1400 0500 20010db8 00000000 00000000 00000001 # RTA_GATEWAY 2001:db8::1
        0800 0400 02000000                     # RTA_OIF 2
        0800 0f00 e8030000                     # RTA_TABLE 1000
        0800 0600 32000000                     # RTA_PRIORITY 50
        1400 0800                              # RTA_METRICS
          0800 0200 14050000                   # RTAX_MTU 1300
          0800 0800 ec040000                   # RTAX_ADVMSS 1260
        ");
    assert_eq!(add(route), expected);
}

/// `ip route prepend default via 2001:db8::1 dev cni0`
#[test]
fn an_ipv6_default_route_has_no_destination() {
    let expected = hex("
        38000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        0a000000 fe030001 00000000             # struct rtmsg
        1400 0500 20010db8 00000000 00000000 00000001 # RTA_GATEWAY 2001:db8::1
        0800 0400 02000000                     # RTA_OIF 2
        ");
    assert_eq!(add(route("::/0", Some("2001:db8::1"))), expected);
}

/// `ip route show table all dev cni0 type unicast`
///
/// ip(8) picks the type from the answers itself, rather than have the kernel do it.
#[test]
fn routes_are_asked_for_of_each_family_through_one_link() {
    let end = |sequence| vec![Answer::Datagram(done(sequence, 0))];
    let (mut kernel, record) = answering(vec![end(1), end(2)]);
    assert_eq!(of_link(&mut kernel, 2), Ok(vec![]));
    let expected = vec![
        hex("
        24000000 1a00 0103 01000000 00000000   # RTM_GETROUTE, REQUEST | DUMP
        02000000 00000001 00000000             # struct rtmsg
        0800 0400 02000000                     # RTA_OIF 2
        "),
        hex("
        24000000 1a00 0103 02000000 00000000   # RTM_GETROUTE, REQUEST | DUMP
        0a000000 00000001 00000000             # struct rtmsg
        0800 0400 02000000                     # RTA_OIF 2
        "),
    ];
    assert_eq!(*record.borrow(), expected);
}

/// `ip -4 route show type unicast`, then the same with -6
///
/// ip(8) picks the type from the answers itself, rather than have the kernel do it.
#[test]
fn routes_of_all_links_are_asked_for_in_the_main_table() {
    let end = |sequence| vec![Answer::Datagram(done(sequence, 0))];
    let (mut kernel, record) = answering(vec![end(1), end(2)]);
    assert_eq!(default_link(&mut kernel), Ok(None));
    let expected = vec![
        hex("
        1c000000 1a00 0103 01000000 00000000   # RTM_GETROUTE, REQUEST | DUMP
        02000000 fe000001 00000000             # struct rtmsg
        "),
        hex("
        1c000000 1a00 0103 02000000 00000000   # RTM_GETROUTE, REQUEST | DUMP
        0a000000 fe000001 00000000             # struct rtmsg
        "),
    ];
    assert_eq!(*record.borrow(), expected);
}

/// Routes as the kernel describes them: family, length of the destination's prefix, table, link, metric.
#[test]
fn the_default_routes_link_is_that_of_the_lowest_metric_and_of_ipv4_first() {
    let default_link_among = |routes: &[(u8, u8, u8, u32, u32)]| {
        let answer = |sequence, family| {
            let of_family = routes.iter().filter(|route| route.0 == family);
            let mut bytes: Vec<_> = of_family
                .flat_map(|(family, prefix, table, link, priority)| {
                    message(libc::RTM_NEWROUTE, Flags::from_bits_retain(2), sequence, |out| {
                        out.raw(&[*family, *prefix, 0, 0, *table, 3, 0, 1, 0, 0, 0, 0]);
                        if *prefix > 0 && *family == 2 {
                            out.put(libc::RTA_DST, &IpAddr::from([10, 0, 0, 0]));
                        }
                        out.put(libc::RTA_OIF, link);
                        out.put(libc::RTA_PRIORITY, priority);
                    })
                })
                .collect();
            bytes.extend(done(sequence, 0));
            vec![Answer::Datagram(bytes)]
        };
        default_link(&mut answering(vec![answer(1, 2), answer(2, 10)]).0).unwrap()
    };
    assert_eq!(default_link_among(&[(2, 8, 254, 3, 0), (2, 0, 100, 4, 0)]), None);
    assert_eq!(default_link_among(&[(2, 0, 254, 5, 200), (2, 0, 254, 6, 100)]), Some(6));
    assert_eq!(default_link_among(&[(2, 0, 254, 5, 100), (2, 0, 254, 6, 100)]), Some(5));
    assert_eq!(default_link_among(&[(10, 0, 254, 7, 0), (2, 0, 254, 5, 200)]), Some(5));
    assert_eq!(default_link_among(&[(10, 0, 254, 7, 1024), (2, 8, 254, 5, 0)]), Some(7));
}

/// The answers to the requests above, after the `ip route` commands quoted with the other tests.
#[test]
fn routes_through_a_link_are_read() {
    let v4 = [
        hex("
            3c000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            02100000 fc030001 00000000             # struct rtmsg
            0800 0f00 e8030000                     # RTA_TABLE 1000
            0800 0100 0a150000                     # RTA_DST 10.21.0.0
            0800 0500 0a010001                     # RTA_GATEWAY 10.1.0.1
            0800 0400 02000000                     # RTA_OIF 2
            34000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            02000000 fe030001 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            0800 0500 0a010001                     # RTA_GATEWAY 10.1.0.1
            0800 0400 02000000                     # RTA_OIF 2
            3c000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            02180000 fe02fd01 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            0800 0100 0a010000                     # RTA_DST 10.1.0.0
            0800 0700 0a010002                     # RTA_PREFSRC 10.1.0.2
            0800 0400 02000000                     # RTA_OIF 2
            3c000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            02200000 fe02fd01 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            0800 0100 0a070002                     # RTA_DST 10.7.0.2
            0800 0700 0a070001                     # RTA_PREFSRC 10.7.0.1
            0800 0400 02000000                     # RTA_OIF 2
            58000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            02100000 fe030001 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            0800 0100 0a140000                     # RTA_DST 10.20.0.0
            0800 0600 32000000                     # RTA_PRIORITY 50
            1400 0800                              # RTA_METRICS
              0800 0200 14050000                   # RTAX_MTU 1300
              0800 0800 ec040000                   # RTAX_ADVMSS 1260
            0800 0500 0a010001                     # RTA_GATEWAY 10.1.0.1
            0800 0400 02000000                     # RTA_OIF 2
            34000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            02100000 fe03fd01 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            0800 0100 0a170000                     # RTA_DST 10.23.0.0
            0800 0400 02000000                     # RTA_OIF 2
            "),
        hex("
            14000000 0300 2200 01000000 00000000   # NLMSG_DONE, MULTI | DUMP_FILTERED
            00000000                               # 0
            "),
    ];
    let v6 = [
        hex("
            9c000000 1800 2200 02000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            0a300000 fc030001 00000000             # struct rtmsg
            0800 0f00 e8030000                     # RTA_TABLE 1000
            1400 0100 20010db8 00050000 00000000 00000000 # RTA_DST 2001:db8:5::
            1400 0800                              # RTA_METRICS
              0800 0200 14050000                   # RTAX_MTU 1300
              0800 0800 ec040000                   # RTAX_ADVMSS 1260
            0800 0600 32000000                     # RTA_PRIORITY 50
            1400 0500 20010db8 00000000 00000000 00000001 # RTA_GATEWAY 2001:db8::1
            0800 0400 02000000                     # RTA_OIF 2
            2400 0c00 00000000 00000000 00000000 00000000 # RTA_CACHEINFO
                      00000000 00000000 00000000 00000000
            0500 1400 00000000                     # RTA_PREF
            74000000 1800 2200 02000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            0a400000 fe020001 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            1400 0100 20010db8 00000000 00000000 00000000 # RTA_DST 2001:db8::
            0800 0600 00010000                     # RTA_PRIORITY 256
            0800 0400 02000000                     # RTA_OIF 2
            2400 0c00 00000000 00000000 00000000 00000000 # RTA_CACHEINFO
                      00000000 00000000 00000000 00000000
            0500 1400 00000000                     # RTA_PREF
            74000000 1800 2200 02000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            0a400000 fe020001 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            1400 0100 20010db8 00010000 00000000 00000000 # RTA_DST 2001:db8:1::
            0800 0600 00010000                     # RTA_PRIORITY 256
            0800 0400 02000000                     # RTA_OIF 2
            2400 0c00 00000000 00000000 00000000 00000000 # RTA_CACHEINFO
                      00000000 00000000 00000000 00000000
            0500 1400 00000000                     # RTA_PREF
            74000000 1800 2200 02000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            0a400000 fe020001 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            1400 0100 20010db8 00020000 00000000 00000000 # RTA_DST 2001:db8:2::
            0800 0600 00010000                     # RTA_PRIORITY 256
            0800 0400 02000000                     # RTA_OIF 2
            2400 0c00 00000000 00000000 00000000 00000000 # RTA_CACHEINFO
                      00000000 00000000 00000000 00000000
            0500 1400 00000000                     # RTA_PREF
            74000000 1800 2200 02000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
            0a000000 fe030001 00000000             # struct rtmsg
            0800 0f00 fe000000                     # RTA_TABLE 254
            0800 0600 00040000                     # RTA_PRIORITY 1024
            1400 0500 20010db8 00000000 00000000 00000001 # RTA_GATEWAY 2001:db8::1
            0800 0400 02000000                     # RTA_OIF 2
            2400 0c00 00000000 00000000 00000000 00000000 # RTA_CACHEINFO
                      00000000 00000000 00000000 00000000
            0500 1400 00000000                     # RTA_PREF
            "),
        hex("
            14000000 0300 2200 02000000 00000000   # NLMSG_DONE, MULTI | DUMP_FILTERED
            00000000                               # 0
            "),
    ];
    let datagrams = |family: &[Bytes]| {
        family.iter().map(|bytes| Answer::Datagram(bytes.0.clone())).collect::<Vec<_>>()
    };
    let (mut kernel, _) = answering(vec![datagrams(&v4), datagrams(&v6)]);
    let universe = Some(libc::RT_SCOPE_UNIVERSE);
    let link = Some(libc::RT_SCOPE_LINK);
    let source = |text: &str| Some(text.parse().unwrap());
    let expected = vec![
        Route { scope: universe, table: 1000, ..route("10.21.0.0/16", Some("10.1.0.1")) },
        Route { scope: universe, ..route("0.0.0.0/0", Some("10.1.0.1")) },
        Route { scope: link, source: source("10.1.0.2"), ..route("10.1.0.0/24", None) },
        Route { scope: link, source: source("10.7.0.1"), ..route("10.7.0.2/32", None) },
        Route {
            scope: universe,
            priority: 50,
            mtu: 1300,
            advmss: 1260,
            ..route("10.20.0.0/16", Some("10.1.0.1"))
        },
        Route { scope: link, ..route("10.23.0.0/16", None) },
        Route {
            scope: universe,
            table: 1000,
            priority: 50,
            mtu: 1300,
            advmss: 1260,
            ..route("2001:db8:5::/48", Some("2001:db8::1"))
        },
        Route { scope: universe, priority: 256, ..route("2001:db8::/64", None) },
        Route { scope: universe, priority: 256, ..route("2001:db8:1::/64", None) },
        Route { scope: universe, priority: 256, ..route("2001:db8:2::/64", None) },
        Route { scope: universe, priority: 1024, ..route("::/0", Some("2001:db8::1")) },
    ];
    assert_eq!(of_link(&mut kernel, 2), Ok(expected));
}

/// `ip -6 route append default via fd01::1 dev v0; ip -6 route append default via fd02::1 dev v1`, which
/// the kernel puts together; seen through v0, link 3.
#[test]
fn a_route_over_several_links_is_one_through_each() {
    let answer = hex("
        94000000 1800 2200 01000000 00000000   # RTM_NEWROUTE, MULTI | DUMP_FILTERED
        0a000000 fe030001 00000000             # struct rtmsg
        0800 0f00 fe000000                     # RTA_TABLE 254
        0800 0600 00040000                     # RTA_PRIORITY 1024
        3c00 0900                              # RTA_MULTIPATH
          1c00 0000 03000000                   # struct rtnexthop: link 3
            1400 0500 fd010000 00000000 00000000 00000001 # RTA_GATEWAY fd01::1
          1c00 0000 02000000                   # struct rtnexthop: link 2
            1400 0500 fd020000 00000000 00000000 00000001 # RTA_GATEWAY fd02::1
        2400 0c00 00000000 00000000 00000000 00000000 # RTA_CACHEINFO
                  00000000 00000000 00000000 00000000
        0500 1400 00000000                     # RTA_PREF
        ");
    let message = Messages::new(&answer.0).next().unwrap().unwrap();
    let found = List { family: 10, link: Some(3) }.decode_item(&message);
    let through = |gateway, link| Route {
        scope: Some(libc::RT_SCOPE_UNIVERSE),
        priority: 1024,
        link,
        ..route("::/0", Some(gateway))
    };
    assert_eq!(found, Ok(vec![through("fd01::1", 3), through("fd02::1", 2)]));

    let cut = next_hops(&through("fd01::1", 3), &[6, 0, 0, 0, 3, 0]);
    assert_eq!(cut, Err(Malformed("next hop without link")));
}

/// `ip route prepend 10.1.0.1/32 dev d0 scope link src 10.1.0.2`
///
/// `ip route prepend 10.20.0.0/16 via 10.1.0.9 dev d0 src 10.1.0.2 onlink`
///
/// ip(8) writes the source behind the gateway, too.
#[test]
fn a_route_may_say_its_source_and_that_its_next_hop_is_on_the_link() {
    let source = Some("10.1.0.2".parse().unwrap());
    let expected = hex("
        34000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02200000 fe03fd01 00000000             # struct rtmsg: scope link
        0800 0100 0a010001                     # RTA_DST 10.1.0.1
        0800 0700 0a010002                     # RTA_PREFSRC 10.1.0.2
        0800 0400 03000000                     # RTA_OIF 3
        ");
    assert_eq!(add(Route { source, link: 3, ..route("10.1.0.1/32", None) }), expected);
    let expected = hex("
        3c000000 1800 0504 01000000 00000000   # RTM_NEWROUTE, REQUEST | ACK | CREATE
        02100000 fe030001 04000000             # struct rtmsg: RTNH_F_ONLINK
        0800 0100 0a140000                     # RTA_DST 10.20.0.0
        0800 0500 0a010009                     # RTA_GATEWAY 10.1.0.9
        0800 0700 0a010002                     # RTA_PREFSRC 10.1.0.2
        0800 0400 03000000                     # RTA_OIF 3
        ");
    let onlink = Route { source, onlink: true, link: 3, ..route("10.20.0.0/16", Some("10.1.0.9")) };
    assert_eq!(add(onlink), expected);
    assert_eq!(onlink.to_string(), "10.20.0.0/16 via 10.1.0.9 dev 3 src 10.1.0.2 onlink");
}

/// `ip route prepend 10.20.0.0/16 via 10.1.0.1 dev cni0`, a second time.
#[test]
fn a_route_that_is_there_already_is_no_error() {
    let answer = hex("
        24000000 0200 0001 01000000 00000000   # NLMSG_ERROR, CAPPED
        efffffff                               # error -17
        50000000 18000504 01000000 00000000    # the request's header
        ");
    let request = Add(route("10.20.0.0/16", Some("10.1.0.1")));
    assert_eq!(answered(&[answer], |kernel| kernel.execute(&[&request])), Ok(()));
}

/// `ip route prepend 10.20.0.0/16 via 192.0.2.1 dev cni0`
#[test]
fn a_gateway_that_is_not_on_the_link_is_refused() {
    let answer = hex("
        44000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        9bffffff                               # error -101
        50000000 18000504 01000000 00000000    # the request's header
        2000 0100 4e657874 686f7020 68617320 696e7661 # NLMSGERR_ATTR_MSG Nexthop has invalid gateway
                  6c696420 67617465 77617900
        ");
    let request = Add(route("10.20.0.0/16", Some("192.0.2.1")));
    let error = answered(&[answer], |kernel| kernel.execute(&[&request])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add route 10.20.0.0/16 via 192.0.2.1 dev 2: ENETUNREACH \
         (kernel: Nexthop has invalid gateway)"
    );
}

/// What the kernel fills in does not make another route of it.
#[test]
fn a_route_is_recognised_as_the_kernel_has_it() {
    let universe = Some(libc::RT_SCOPE_UNIVERSE);
    let link = Some(libc::RT_SCOPE_LINK);
    let v4 = route("10.20.0.0/16", Some("10.1.0.1"));
    let v6 = route("2001:db8:5::/48", Some("2001:db8::1"));
    let direct = route("10.23.0.0/16", None);
    let same = [
        (v4, Route { scope: universe, ..v4 }),
        (v4, Route { scope: universe, mtu: 1300, advmss: 1260, ..v4 }),
        (v4, Route { scope: universe, source: Some("10.1.0.2".parse().unwrap()), ..v4 }),
        (direct, Route { scope: link, ..direct }),
        (v6, Route { scope: universe, priority: IP6_RT_PRIO_USER, ..v6 }),
        (Route { scope: link, ..v6 }, Route { scope: universe, priority: 1024, ..v6 }),
    ];
    for (asked, read) in same {
        assert!(asked.is(&read), "{asked:?} is {read:?}");
    }
    let read = Route { scope: universe, ..v4 };
    let different = [
        (v4, Route { scope: link, ..v4 }),
        (v4, Route { priority: 50, ..read }),
        (v4, Route { table: 1000, ..read }),
        (v4, Route { link: 3, ..read }),
        (v4, Route { gateway: None, ..read }),
        (v4, Route { destination: cidr("10.20.0.0/17"), ..read }),
        (Route { mtu: 1300, ..v4 }, read),
        (Route { source: Some("10.1.0.2".parse().unwrap()), ..v4 }, read),
        (Route { advmss: 1260, ..v4 }, read),
        (v6, Route { scope: universe, ..v6 }),
        (Route { priority: 50, ..v6 }, Route { scope: universe, priority: 1024, ..v6 }),
    ];
    for (asked, read) in different {
        assert!(!asked.is(&read), "{asked:?} is not {read:?}");
    }
}

#[test]
fn purposes_are_written_as_by_ip() {
    let full = Route { table: 1000, priority: 50, ..route("10.20.0.0/16", Some("10.1.0.1")) };
    let family = family_of([0; 4].into());
    let purposes: [(&dyn Request, &str); 4] = [
        (&Add(full), "add route 10.20.0.0/16 via 10.1.0.1 dev 2 table 1000 metric 50"),
        (&Add(route("::/0", None)), "add route ::/0 dev 2"),
        (&List { family, link: Some(2) }, "list routes of link 2"),
        (&List { family, link: None }, "list routes"),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
}

fn decode(message: &[u8]) -> Result<Route, Malformed> {
    List { family: 0, link: None }.decode(&Messages::new(message).next().unwrap().unwrap())
}

#[test]
fn a_malformed_route_is_an_error() {
    let answer = |kind, family, prefix| {
        message(kind, Flags::empty(), 1, |out| {
            out.raw(&[family, prefix, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        })
    };
    let cases = [
        (answer(libc::RTM_NEWADDR, 2, 24), "expected a route"),
        (answer(libc::RTM_NEWROUTE, 2, 33), "prefix longer than its address"),
        (answer(libc::RTM_NEWROUTE, 10, 129), "prefix longer than its address"),
        (
            message(libc::RTM_NEWROUTE, Flags::empty(), 1, |out| out.raw(&[0; 8])),
            "message without family header",
        ),
        // A destination of another family than the header says.
        (
            message(libc::RTM_NEWROUTE, Flags::empty(), 1, |out| {
                out.raw(&[10, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                out.put::<IpAddr>(libc::RTA_DST, &[10, 0, 0, 0].into());
            }),
            "prefix longer than its address",
        ),
        (
            message(libc::RTM_NEWROUTE, Flags::empty(), 1, |out| {
                out.raw(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                out.put(libc::RTA_OIF, &2_u16);
            }),
            "attribute of unexpected length",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(&bytes), Err(Malformed(expected)));
    }
}

/// libc has no `struct rtmsg` for Linux. linux/rtnetlink.h: eight bytes, of which the fifth is the table,
/// the seventh the scope and the eighth the type; then `unsigned rtm_flags`.
#[test]
fn the_header_is_laid_out_as_the_kernels() {
    assert_eq!(HEADER, 8 + size_of::<libc::c_uint>());
    let scoped = Route { scope: Some(7), table: 5, ..route("10.0.0.0/8", None) };
    let message = add(scoped).0;
    let header = Bytes(message[16..16 + HEADER].to_vec());
    //                            family, destination, source, TOS, table, protocol, scope, type, flags
    assert_eq!(header, hex("02 08 00 00 05 03 07 01 00000000"));
}

#[test]
fn constants_are_the_kernels() {
    assert_eq!(TABLE_MAIN, u32::from(libc::RT_TABLE_MAIN));
}

proptest! {
    #[test]
    fn a_route_as_added_is_read_back(
        address: IpAddr,
        prefix in 0_u8..=128,
        [gateway, source]: [Option<u128>; 2],
        onlink: bool,
        numbers: [u32; 5],
        scope: Option<u8>,
    ) {
        let prefix = prefix.min(width(address));
        let network = Cidr { address, prefix }.network();
        let [gateway, source] =
            [gateway, source].map(|bits| Some(crate::net::from_bits(address, bits?)));
        let [link, table, priority, mtu, advmss] = numbers;
        // No table has the number 0.
        let table = table.max(1);
        let destination = Cidr { address: network, prefix };
        let asked =
            Route { destination, gateway, onlink, source, link, table, priority, scope, mtu, advmss };
        let expected = Route { scope: Some(asked.effective_scope()), ..asked };
        prop_assert_eq!(decode(&add(asked).0), Ok(expected));
    }

    #[test]
    fn any_answer_is_survived(bytes: Vec<u8>) {
        let _ = decode(&message(libc::RTM_NEWROUTE, Flags::empty(), 1, |out| out.raw(&bytes)));
    }
}
