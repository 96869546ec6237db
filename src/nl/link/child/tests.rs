use std::os::fd::AsFd;

use super::*;
use crate::nl::link::Link;
use crate::nl::testing::{hex, sent};
use crate::nl::wire::Messages;

/// A descriptor of a known number: 2. With ip(8) it was 4.
fn netns() -> std::io::Stderr {
    std::io::stderr()
}

/// `ip link add link eth0 name net1 netns pod mtu 1400 address 02:00:5e:10:00:07 type macvlan mode bridge
/// bcqueuelen 500`
///
/// ip(8) writes the mode behind the length.
#[test]
fn a_macvlan_is_made_in_its_namespace() {
    let netns = netns();
    let request = NewChild {
        name: "net1",
        index: None,
        netns: Some(netns.as_fd()),
        master: Some(3),
        mtu: Some(1400),
        mac: Some(Mac([0x02, 0, 0x5e, 0x10, 0, 0x07])),
        child: Child::Macvlan { mode: MacvlanMode::Bridge, broadcast_queue: Some(500) },
    };
    let expected = hex("
        74000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0800 1c00 02000000                     # IFLA_NET_NS_FD 2
        0800 0400 78050000                     # IFLA_MTU 1400
        0a00 0100 02005e10 00070000            # IFLA_ADDRESS 02:00:5e:10:00:07
        0800 0500 03000000                     # IFLA_LINK 3
        0900 0300 6e657431 00000000            # IFLA_IFNAME net1
        2400 1200                              # IFLA_LINKINFO
          0b00 0100 6d616376 6c616e00          # IFLA_INFO_KIND macvlan
          1400 0200                            # IFLA_INFO_DATA
            0800 0100 04000000                 # IFLA_MACVLAN_MODE 4
            0800 0700 f4010000                 # IFLA_MACVLAN_BC_QUEUE_LEN 500
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add index 7 link eth0 name net2 netns pod type macvlan mode passthru`
#[test]
fn an_index_can_be_asked_for() {
    let netns = netns();
    let request = NewChild {
        name: "net2",
        index: Some(7),
        netns: Some(netns.as_fd()),
        master: Some(3),
        mtu: None,
        mac: None,
        child: Child::Macvlan { mode: MacvlanMode::Passthru, broadcast_queue: None },
    };
    let expected = hex("
        58000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 07000000 00000000 00000000    # struct ifinfomsg
        0800 1c00 02000000                     # IFLA_NET_NS_FD 2
        0800 0500 03000000                     # IFLA_LINK 3
        0900 0300 6e657432 00000000            # IFLA_IFNAME net2
        1c00 1200                              # IFLA_LINKINFO
          0b00 0100 6d616376 6c616e00          # IFLA_INFO_KIND macvlan
          0c00 0200                            # IFLA_INFO_DATA
            0800 0100 08000000                 # IFLA_MACVLAN_MODE 8
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add link eth0 name net1 netns pod type ipvlan mode l3s`
///
/// ip(8) sends flags of 0 besides. Here the namespace is our own.
#[test]
fn an_ipvlan_is_made() {
    let request = NewChild {
        name: "net1",
        index: None,
        netns: None,
        master: Some(3),
        mtu: None,
        mac: None,
        child: Child::Ipvlan(IpvlanMode::L3s),
    };
    let expected = hex("
        50000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0800 0500 03000000                     # IFLA_LINK 3
        0900 0300 6e657431 00000000            # IFLA_IFNAME net1
        1c00 1200                              # IFLA_LINKINFO
          0a00 0100 6970766c 616e0000          # IFLA_INFO_KIND ipvlan
          0c00 0200                            # IFLA_INFO_DATA
            0600 0100 02000000                 # IFLA_IPVLAN_MODE 2
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add link eth0 name net1 netns pod mtu 1400 type vlan id 100`
#[test]
fn a_vlan_is_made() {
    let netns = netns();
    let request = NewChild {
        name: "net1",
        index: None,
        netns: Some(netns.as_fd()),
        master: Some(3),
        mtu: Some(1400),
        mac: None,
        child: Child::Vlan(100),
    };
    let expected = hex("
        5c000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0800 1c00 02000000                     # IFLA_NET_NS_FD 2
        0800 0400 78050000                     # IFLA_MTU 1400
        0800 0500 03000000                     # IFLA_LINK 3
        0900 0300 6e657431 00000000            # IFLA_IFNAME net1
        1800 1200                              # IFLA_LINKINFO
          0800 0100 766c616e                   # IFLA_INFO_KIND vlan
          0c00 0200                            # IFLA_INFO_DATA
            0600 0100 64000000                 # IFLA_VLAN_ID 100
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add name net1 netns pod type dummy`
#[test]
fn a_dummy_is_made() {
    let netns = netns();
    let request = NewChild {
        name: "net1",
        index: None,
        netns: Some(netns.as_fd()),
        master: None,
        mtu: None,
        mac: None,
        child: Child::Dummy,
    };
    let expected = hex("
        44000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0800 1c00 02000000                     # IFLA_NET_NS_FD 2
        0900 0300 6e657431 00000000            # IFLA_IFNAME net1
        1000 1200                              # IFLA_LINKINFO
          0900 0100 64756d6d 79000000          # IFLA_INFO_KIND dummy
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add address 00:00:00:00:00:00 type ipvlan`
#[test]
fn a_kind_is_asked_for_with_what_no_kernel_accepts() {
    let expected = hex("
        3c000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0a00 0100 00000000 00000000            # IFLA_ADDRESS 00:00:00:00:00:00
        1000 1200                              # IFLA_LINKINFO
          0a00 0100 6970766c 616e0000          # IFLA_INFO_KIND ipvlan
        ");
    assert_eq!(sent(|kernel| probe(kernel, "ipvlan")), expected);
    let known = [Errno::EADDRNOTAVAIL, Errno::EINVAL];
    assert!(known.into_iter().all(|errno| Probe("ipvlan").tolerates(errno)));
    assert!(!Probe("ipvlan").tolerates(Errno::EOPNOTSUPP));
    assert_eq!(Probe("ipvlan").to_string(), "create links of kind ipvlan");
}

#[test]
fn purposes_name_kind_and_link() {
    let macvlan = Child::Macvlan { mode: MacvlanMode::Vepa, broadcast_queue: None };
    for (child, expected) in [
        (macvlan, r#"create macvlan "eth0""#),
        (Child::Ipvlan(IpvlanMode::L2), r#"create ipvlan "eth0""#),
        (Child::Vlan(5), r#"create vlan "eth0""#),
        (Child::Dummy, r#"create dummy "eth0""#),
    ] {
        let request = NewChild {
            name: "eth0",
            index: None,
            netns: None,
            master: None,
            mtu: None,
            mac: None,
            child,
        };
        assert_eq!(request.to_string(), expected);
    }
}

/// The kernel describes a link as it is asked for one.
#[test]
fn kind_and_variant_are_read_back() {
    let macvlan = |mode| Child::Macvlan { mode, broadcast_queue: Some(9) };
    for (child, kind, variant) in [
        (macvlan(MacvlanMode::Private), "macvlan", Some(1)),
        (macvlan(MacvlanMode::Vepa), "macvlan", Some(2)),
        (macvlan(MacvlanMode::Bridge), "macvlan", Some(4)),
        (macvlan(MacvlanMode::Passthru), "macvlan", Some(8)),
        (Child::Ipvlan(IpvlanMode::L2), "ipvlan", Some(0)),
        (Child::Ipvlan(IpvlanMode::L3), "ipvlan", Some(1)),
        (Child::Ipvlan(IpvlanMode::L3s), "ipvlan", Some(2)),
        (Child::Vlan(4094), "vlan", Some(4094)),
        (Child::Dummy, "dummy", None),
    ] {
        let request = NewChild {
            name: "net1",
            index: Some(9),
            netns: None,
            master: Some(3),
            mtu: Some(1400),
            mac: None,
            child,
        };
        let bytes = sent(|kernel| kernel.execute(&[&request])).0;
        let link = Link::decode(&Messages::new(&bytes).next().unwrap().unwrap());
        let expected = Link {
            index: 9,
            name: "net1".to_owned(),
            mtu: 1400,
            kind: Some(kind.to_owned()),
            peer: Some(3),
            variant,
            ..Link::default()
        };
        assert_eq!(link, Ok(expected));
        assert_eq!((child.kind(), child.variant()), (kind, variant));
    }
}
