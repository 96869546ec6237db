use proptest::prelude::*;

use super::*;
use crate::nl::testing::{done, hex, message};
use crate::nl::wire::{Encoder, NESTED};

fn shown(family: Family, datagram: &[u8]) -> String {
    messages(family, datagram).map(|message| format!("{message}\n")).collect()
}

/// The bytes in the tests of one file, each with what stands beside them.
struct Fixture {
    text: &'static str,
    family: Family,
}

fn fixtures() -> Vec<Fixture> {
    [
        (Family::Route, include_str!("../addr/tests.rs")),
        (Family::Route, include_str!("../bridge_vlan/tests.rs")),
        (Family::Route, include_str!("../link/tests.rs")),
        (Family::Route, include_str!("../link/child/tests.rs")),
        (Family::Route, include_str!("../route/tests.rs")),
        (Family::Netfilter, include_str!("../nft/tests.rs")),
        (Family::Netfilter, include_str!("../nft/rule/tests.rs")),
        (Family::Netfilter, include_str!("../nft/set/tests.rs")),
    ]
    .into_iter()
    .flat_map(|(family, file)| {
        let blocks = file.split("hex(\"").skip(1).filter_map(|rest| rest.split_once("\")"));
        blocks.map(move |(text, _)| Fixture { text, family })
    })
    .filter(|fixture| fixture.text.contains('#'))
    .collect()
}

/// The kernel's names that lines begin with.
fn names<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let name = |line: &'a str| line.trim_start().split([' ', ',', ':']).next().unwrap();
    let is_name = |name: &&str| {
        name.contains('_') && name.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
    };
    lines.map(name).filter(is_name).collect()
}

/// All bytes of the other tests, of which most are the kernel's and other tools', against what is
/// written beside them there.
#[test]
fn every_message_and_attribute_has_the_name_that_it_has_elsewhere() {
    let fixtures = fixtures();
    assert!(fixtures.len() > 60, "{}", fixtures.len());
    for Fixture { text, family } in fixtures {
        let shown = shown(family, &hex(text).0);
        let beside = text.lines().filter_map(|line| line.split_once("# ").map(|(_, words)| words));
        let mut all = names(shown.lines()).into_iter();
        // Of what the kernel tells, not everything is named there.
        for name in names(beside) {
            assert!(all.any(|other| other == name), "{name} is missing from\n{shown}of{text}");
        }
        let nameless = |line: &&str| line.contains("type ") && line.contains(':');
        let nameless: Vec<_> = shown.lines().filter(nameless).collect();
        assert_eq!(nameless, [] as [&str; 0], "{shown}of{text}");
        assert!(!shown.contains("malformed"), "{shown}of{text}");
    }
}

#[test]
fn requests_read_as_what_they_ask() {
    // The veth pair of ../link/tests.rs, cut to what is of interest.
    let request = message(16, Flags::from_bits_retain(0x601), 7, |out| {
        out.raw(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        out.put(3, "veth\n\u{1b}[31m");
        out.nest(18, |out| {
            out.put(1, b"veth".as_slice());
            out.nest(2, |out| {
                out.nest(1, |out| {
                    out.raw(&[0; 16]);
                    out.put(3, "eth0");
                    out.put(28, &4_u32);
                });
            });
        });
    });
    let expected = r#"RTM_NEWLINK #7 REQUEST|EXCL|CREATE AF_UNSPEC link 0 flags UP change UP
    IFLA_IFNAME "veth\n\u{1b}[31m"
    IFLA_LINKINFO
        IFLA_INFO_KIND "veth"
        IFLA_INFO_DATA
            VETH_INFO_PEER AF_UNSPEC link 0 flags 0 change 0
                IFLA_IFNAME "eth0"
                IFLA_NET_NS_FD 4
"#;
    assert_eq!(shown(Family::Route, &request), expected);

    let request = message(26, Flags::REQUEST | Flags::DUMP, 8, |out| {
        out.raw(&[2, 0, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0]);
        out.put(4, &3_u32);
    });
    let expected = "RTM_GETROUTE #8 DUMP|REQUEST AF_INET prefix 0 from 0 tos 0 table main protocol \
                    static scope link type unicast flags 0x0\n    RTA_OIF 3\n";
    assert_eq!(shown(Family::Route, &request), expected);

    let request = message(0xa03, Flags::REQUEST, 9, |out| {
        out.raw(&[7, 0, 0, 0]);
        out.nest(4 | NESTED, |out| out.put(2, [0xff, 0xff, 0xfe, 0xd4].as_slice()));
    });
    let expected = "NFT_MSG_NEWCHAIN #9 REQUEST bridge version 0 resource 0
    NFTA_CHAIN_HOOK\n        NFTA_HOOK_PRIORITY -300\n";
    assert_eq!(shown(Family::Netfilter, &request), expected);
    let bridge_header = "type 2563 #9 REQUEST: 070000000c00048008000200fffffed4";
    assert!(shown(Family::Route, &request).starts_with(bridge_header), "of another family");
}

#[test]
fn vlans_of_a_port_are_shown_with_what_is_done_with_them() {
    let request = message(112, Flags::REQUEST, 3, |out| {
        out.raw(&[7, 0, 0, 0, 4, 0, 0, 0]);
        out.nest(1 | NESTED, |out| out.put(1, [6, 0, 100, 0].as_slice()));
        out.nest(1 | NESTED, |out| {
            out.put(1, [0, 0, 10, 0].as_slice());
            out.put(2, &20_u16);
        });
    });
    let expected = "RTM_NEWVLAN #3 REQUEST AF_BRIDGE link 4
    BRIDGE_VLANDB_ENTRY
        BRIDGE_VLANDB_ENTRY_INFO 100 flags PVID|UNTAGGED
    BRIDGE_VLANDB_ENTRY
        BRIDGE_VLANDB_ENTRY_INFO 10 flags 0
        BRIDGE_VLANDB_ENTRY_RANGE 20\n";
    assert_eq!(shown(Family::Route, &request), expected);
}

#[test]
fn a_route_over_several_links_is_shown_with_each() {
    let route = message(24, Flags::empty(), 1, |out| {
        out.raw(&[10, 64, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
        out.nest(9, |out| {
            out.raw(&hex("1c00 00 00 02000000 1400 0500 fd000000000000000000000000000001").0);
            out.raw(&hex("0800 00 00 03000000").0);
        });
    });
    let shown = shown(Family::Route, &route);
    let expected = "\n    RTA_MULTIPATH\n        next hop link 2\n            RTA_GATEWAY fd00::1
        next hop link 3\n";
    assert!(shown.ends_with(expected), "{shown}");
}

/// The answer of ../socket/tests.rs to a request whose MTU has two bytes, and the same of a nested
/// attribute.
#[test]
fn a_refusal_shows_the_kernels_words_and_the_attribute() {
    let uncapped = "
        98000000 0200 0002 01000000 00000000   # NLMSG_ERROR, ACK_TLVS
        deffffff                               # error -34
        30000000 10000500 01000000 00000000    # the request's header
        00000000 02000000 00000000 00000000 08000d00 e8030000 06000400 78050000 # the request
        2700 0100 41747472 69627574 65206661 696c6564 # NLMSGERR_ATTR_MSG Attribute failed policy validation
                  20706f6c 69637920 76616c69 64617469
                  6f6e0000
        0800 0200 28000000                     # NLMSGERR_ATTR_OFFS 40
        2400 0480 0c000400 00000000 00000000 0c000500 # NLMSGERR_ATTR_POLICY
                  ffffffff 00000000 08000100 04000000
        ";
    let expected = r#"NLMSG_ERROR #1 ACK_TLVS for RTM_NEWLINK: ERANGE (Math result not representable)
    NLMSGERR_ATTR_MSG "Attribute failed policy validation"
    NLMSGERR_ATTR_OFFS 40 (IFLA_MTU)
    NLMSGERR_ATTR_POLICY 0c00040000000000000000000c000500ffffffff000000000800010004000000
"#;
    assert_eq!(shown(Family::Route, &hex(uncapped).0), expected);

    // Where the name of what holds it has to be read on the way.
    let request = message(16, Flags::REQUEST, 2, |out| {
        out.raw(&[0; 16]);
        out.put(13, &1000_u32);
        out.nest(18, |out| {
            out.put(1, "bridge");
            out.nest(2, |out| {
                out.put(1, &1500_u32);
                out.put(7, &2_u8);
            });
        });
    });
    let refused = |offset: u32| {
        let refusal = message(2, Flags::ACK_TLVS, 2, |out| {
            out.raw(&(-libc::EINVAL).to_ne_bytes());
            out.raw(&request);
            out.put(2, &offset);
        });
        shown(Family::Route, &refusal).lines().last().unwrap().to_owned()
    };
    for (offset, name) in [
        (32, " (IFLA_TXQLEN)"),
        (40, " (IFLA_LINKINFO)"),
        (44, " (IFLA_INFO_KIND)"),
        (56, " (IFLA_INFO_DATA)"),
        (60, " (IFLA_BR_FORWARD_DELAY)"),
        (68, " (IFLA_BR_VLAN_FILTERING)"),
        (64, ""),
        (16, ""),
        (9999, ""),
        (u32::MAX, ""),
    ] {
        assert_eq!(refused(offset), format!("    NLMSGERR_ATTR_OFFS {offset}{name}"));
    }
}

#[test]
fn an_end_shows_how_it_ended() {
    let ack = message(2, Flags::CAPPED, 3, |out| {
        out.raw(&0_i32.to_ne_bytes());
        // Of a request that was longer.
        out.raw(&hex("30000000 1800 0506 03000000 00000000").0);
    });
    let text = "NLMSG_ERROR #3 CAPPED for RTM_NEWROUTE: 0 (no error)\n";
    assert_eq!(shown(Family::Route, &ack), text);
    assert_eq!(shown(Family::Route, &done(4, 0)), "NLMSG_DONE #4 MULTI: 0 (no error)\n");
    let text = "NLMSG_DONE #4 MULTI: EPERM (Operation not permitted)\n";
    assert_eq!(shown(Family::Netfilter, &done(4, libc::EPERM)), text);
    let short = hex("12000000 0200 0000 05000000 00000000 0102").0;
    assert_eq!(shown(Family::Route, &short), "NLMSG_ERROR #5: 0102\n");
}

#[test]
fn what_is_not_known_or_not_as_it_should_be_is_shown_as_bytes() {
    let link = |body: &dyn Fn(&mut Encoder)| {
        let link = message(16, Flags::empty(), 1, |out| {
            out.raw(&[0; 16]);
            body(out);
        });
        shown(Family::Route, &link).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(link(&|out| out.put(0x3ff, &0x0201_u16)), ["    type 1023: 0102"]);
    assert_eq!(link(&|out| out.put(4, [1, 2, 3].as_slice())), ["    IFLA_MTU 010203"]);
    assert_eq!(link(&|out| out.put(1, [1, 2, 3].as_slice())), ["    IFLA_ADDRESS 010203"]);
    assert_eq!(link(&|out| out.put(18, [9, 0, 1].as_slice())), ["    IFLA_LINKINFO 090001"]);
    let many = format!("    IFLA_STATS {}… (40 bytes)", "ab".repeat(32));
    assert_eq!(link(&|out| out.put(7, [0xab; 40].as_slice())), [many]);
    let cut = link(&|out| out.raw(&[200, 0, 3, 0]));
    assert_eq!(cut, ["    malformed: attribute length out of bounds"]);
    // Data of a kind that we know nothing of.
    let data = link(&|out| {
        out.nest(18, |out| {
            out.put(1, "vxlan");
            out.put(2, [1, 2].as_slice());
        });
    });
    assert_eq!(data.last().unwrap(), "        IFLA_INFO_DATA 0102");

    let short = message(16, Flags::empty(), 1, |out| out.raw(&[0; 8]));
    assert_eq!(shown(Family::Route, &short), "RTM_NEWLINK #1: 0000000000000000\n");
    let mut cut = message(99, Flags::empty(), 1, |_| ());
    assert_eq!(shown(Family::Route, &cut), "type 99 #1\n");
    cut.push(1);
    assert_eq!(shown(Family::Route, &cut), "type 99 #1\nmalformed: truncated message header\n");
}

/// A peer within a peer within a peer…: no kernel has that, and no stack room for it.
#[test]
fn nests_are_looked_into_only_so_deep() {
    fn write(out: &mut Encoder, depth: usize) {
        if depth == 0 {
            return;
        }
        out.nest(18, |out| {
            out.put(1, "veth");
            out.nest(2, |out| {
                out.nest(1, |out| {
                    out.raw(&[0; 16]);
                    write(out, depth - 1);
                });
            });
        });
    }
    let link = message(16, Flags::empty(), 1, |out| {
        out.raw(&[0; 16]);
        write(out, 1500);
    });
    let shown = shown(Family::Route, &link);
    assert!(shown.lines().last().unwrap().ends_with(" bytes)"), "{shown}");
    assert!(shown.lines().count() <= 2 * DEEPEST, "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_can_be_shown(datagram: Vec<u8>) {
        shown(Family::Route, &datagram);
        shown(Family::Netfilter, &datagram);
    }

    #[test]
    fn any_payload_can_be_shown(
        family in prop::sample::select(vec![Family::Route, Family::Netfilter]),
        at in 0..17_usize,
        flags: u16,
        payload: Vec<u8>,
    ) {
        let kinds = match family {
            Family::Route => tables::ROUTE,
            Family::Netfilter => tables::NETFILTER,
        };
        let kind = kinds.get(at).map_or(2, |kind| kind.number);
        let flags = Flags::from_bits_retain(flags);
        shown(family, &message(kind, flags, 1, |out| out.raw(&payload)));
    }
}
