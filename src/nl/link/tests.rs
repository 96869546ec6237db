use std::mem::offset_of;
use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;
use crate::nl::testing::{Bytes, Refusal, answered, hex, message, sent};
use crate::nl::wire::Messages;

const MAC: Mac = Mac([0x02, 0, 0x5e, 0x10, 0, 0x01]);

/// `ip link add name cni0 address 02:00:5e:10:00:01 mtu 1400 type bridge mcast_snooping 0`
///
/// ip(8) writes the name behind what else the command line says.
#[test]
fn a_bridge_is_made_with_its_address_and_mtu() {
    let request = NewBridge {
        name: "cni0",
        mac: MAC,
        mtu: Some(1400),
        multicast_snooping: false,
        vlan_filtering: false,
    };
    let expected = hex("
        5c000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0900 0300 636e6930 00000000            # IFLA_IFNAME cni0
        0a00 0100 02005e10 00010000            # IFLA_ADDRESS 02:00:5e:10:00:01
        0800 0400 78050000                     # IFLA_MTU 1400
        1c00 1200                              # IFLA_LINKINFO
          0a00 0100 62726964 67650000          # IFLA_INFO_KIND bridge
          0c00 0200                            # IFLA_INFO_DATA
            0500 1700 00000000                 # IFLA_BR_MCAST_SNOOPING 0
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add name cni2 address 02:00:5e:10:00:02 type bridge mcast_snooping 1`
///
/// ip(8) writes the name behind what else the command line says.
#[test]
fn a_bridge_without_mtu_is_left_the_kernels() {
    let mac = Mac([0x02, 0, 0x5e, 0x10, 0, 0x02]);
    let request =
        NewBridge { name: "cni2", mac, mtu: None, multicast_snooping: true, vlan_filtering: false };
    let expected = hex("
        54000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0900 0300 636e6932 00000000            # IFLA_IFNAME cni2
        0a00 0100 02005e10 00020000            # IFLA_ADDRESS 02:00:5e:10:00:02
        1c00 1200                              # IFLA_LINKINFO
          0a00 0100 62726964 67650000          # IFLA_INFO_KIND bridge
          0c00 0200                            # IFLA_INFO_DATA
            0500 1700 01000000                 # IFLA_BR_MCAST_SNOOPING 1
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add name br7 address 02:00:5e:10:00:02 type bridge mcast_snooping 0 vlan_filtering 1`
///
/// ip(8) writes the name behind what else the command line says.
#[test]
fn a_bridge_can_be_made_to_filter_vlans() {
    let mac = Mac([0x02, 0, 0x5e, 0x10, 0, 0x02]);
    let request =
        NewBridge { name: "br7", mac, mtu: None, multicast_snooping: false, vlan_filtering: true };
    let expected = hex("
        58000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0800 0300 62723700                     # IFLA_IFNAME br7
        0a00 0100 02005e10 00020000            # IFLA_ADDRESS 02:00:5e:10:00:02
        2400 1200                              # IFLA_LINKINFO
          0a00 0100 62726964 67650000          # IFLA_INFO_KIND bridge
          1400 0200                            # IFLA_INFO_DATA
            0500 1700 00000000                 # IFLA_BR_MCAST_SNOOPING 0
            0500 0700 01000000                 # IFLA_BR_VLAN_FILTERING 1
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set br1 type bridge vlan_filtering 1`
///
/// ip(8) asks for the index first.
#[test]
fn filtering_of_vlans_is_switched() {
    for (on, byte) in [(true, "01"), (false, "00")] {
        let request = SetVlanFiltering { target: Target::Index(2), on };
        let expected = hex(&format!(
            "
            3c000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
            00000000 02000000 00000000 00000000    # struct ifinfomsg
            1c00 1200                              # IFLA_LINKINFO
              0a00 0100 62726964 67650000          # IFLA_INFO_KIND bridge
              0c00 0200                            # IFLA_INFO_DATA
                0500 0700 {byte}000000             # IFLA_BR_VLAN_FILTERING
            "
        ));
        assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
    }
}

/// `ip link add name vethcafe mtu 1400 address 02:00:5e:10:00:03 numtxqueues 1 numrxqueues 1 type
/// veth peer name eth0 mtu 1400 address 02:00:5e:10:00:04 numtxqueues 1 numrxqueues 1 netns
/// pod`
///
/// ip(8) writes the name behind what else the command line says. The namespace's descriptor was 4
/// there.
#[test]
fn a_veth_pair_is_made_whole_and_in_its_namespaces() {
    // A descriptor of a known number: 2.
    let netns = std::io::stderr();
    let request = NewVeth {
        name: "vethcafe",
        mac: Mac([0x02, 0, 0x5e, 0x10, 0, 0x03]),
        mtu: Some(1400),
        peer_name: "eth0",
        peer_mac: Mac([0x02, 0, 0x5e, 0x10, 0, 0x04]),
        peer_netns: Some(netns.as_fd()),
    };
    let expected = hex("
        b0000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0d00 0300 76657468 63616665 00000000   # IFLA_IFNAME vethcafe
        0800 0400 78050000                     # IFLA_MTU 1400
        0a00 0100 02005e10 00030000            # IFLA_ADDRESS 02:00:5e:10:00:03
        0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
        0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
        5c00 1200                              # IFLA_LINKINFO
          0800 0100 76657468                   # IFLA_INFO_KIND veth
          5000 0200                            # IFLA_INFO_DATA
            4c00 0100                          # VETH_INFO_PEER
              00000000 00000000 00000000 00000000 # struct ifinfomsg
              0900 0300 65746830 00000000      # IFLA_IFNAME eth0
              0800 0400 78050000               # IFLA_MTU 1400
              0a00 0100 02005e10 00040000      # IFLA_ADDRESS 02:00:5e:10:00:04
              0800 1f00 01000000               # IFLA_NUM_TX_QUEUES 1
              0800 2000 01000000               # IFLA_NUM_RX_QUEUES 1
              0800 1c00 02000000               # IFLA_NET_NS_FD 2
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link add name vethbeef address 02:00:5e:10:00:05 numtxqueues 1 numrxqueues 1 type veth peer
/// name eth1 address 02:00:5e:10:00:06 numtxqueues 1 numrxqueues 1 netns pod`
///
/// ip(8) writes the name behind what else the command line says. The namespace's descriptor was 4
/// there.
#[test]
fn a_veth_pair_needs_no_mtu() {
    let netns = std::io::stderr();
    let request = NewVeth {
        name: "vethbeef",
        mac: Mac([0x02, 0, 0x5e, 0x10, 0, 0x05]),
        mtu: None,
        peer_name: "eth1",
        peer_mac: Mac([0x02, 0, 0x5e, 0x10, 0, 0x06]),
        peer_netns: Some(netns.as_fd()),
    };
    let expected = hex("
        a0000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0d00 0300 76657468 62656566 00000000   # IFLA_IFNAME vethbeef
        0a00 0100 02005e10 00050000            # IFLA_ADDRESS 02:00:5e:10:00:05
        0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
        0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
        5400 1200                              # IFLA_LINKINFO
          0800 0100 76657468                   # IFLA_INFO_KIND veth
          4800 0200                            # IFLA_INFO_DATA
            4400 0100                          # VETH_INFO_PEER
              00000000 00000000 00000000 00000000 # struct ifinfomsg
              0900 0300 65746831 00000000      # IFLA_IFNAME eth1
              0a00 0100 02005e10 00060000      # IFLA_ADDRESS 02:00:5e:10:00:06
              0800 1f00 01000000               # IFLA_NUM_TX_QUEUES 1
              0800 2000 01000000               # IFLA_NUM_RX_QUEUES 1
              0800 1c00 02000000               # IFLA_NET_NS_FD 2
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// The same without a namespace: the other end is born where the kernel is asked.
#[test]
fn a_veth_pair_can_be_made_in_one_namespace() {
    let peer_mac = Mac([0x02, 0, 0x5e, 0x10, 0, 0x06]);
    let request = NewVeth {
        name: "br0.100",
        mac: MAC,
        mtu: None,
        peer_name: "vethbeef",
        peer_mac,
        peer_netns: None,
    };
    let expected = hex("
        98000000 1000 0506 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK | EXCL | CREATE
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0c00 0300 6272302e 31303000            # IFLA_IFNAME br0.100
        0a00 0100 02005e10 00010000            # IFLA_ADDRESS 02:00:5e:10:00:01
        0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
        0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
        5000 1200                              # IFLA_LINKINFO
          0800 0100 76657468                   # IFLA_INFO_KIND veth
          4400 0200                            # IFLA_INFO_DATA
            4000 0100                          # VETH_INFO_PEER
              00000000 00000000 00000000 00000000 # struct ifinfomsg
              0d00 0300 76657468 62656566 00000000 # IFLA_IFNAME vethbeef
              0a00 0100 02005e10 00060000      # IFLA_ADDRESS 02:00:5e:10:00:06
              0800 1f00 01000000               # IFLA_NUM_TX_QUEUES 1
              0800 2000 01000000               # IFLA_NUM_RX_QUEUES 1
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set dev vethcafe up promisc on master cni0 mtu 1400 alias plumb:a/b type bridge_slave hairpin on
/// isolated on`, and `sysctl net.ipv4.conf.vethcafe.arp_notify=1`
///
/// ip(8) asks for the index first. It writes the kind as `IFLA_INFO_KIND` of `bridge_slave`, a name
/// that no kind bears: the kernel goes by the link's master alone. It has `IFLA_AF_SPEC` before
/// `IFLA_LINKINFO`, and nothing for arp_notify, which was seen to change by reading the sysctl.
#[test]
fn all_changes_of_a_link_are_one_message() {
    let change = Change {
        up: true,
        promiscuous: true,
        master: Some(2),
        mtu: Some(1400),
        mac: None,
        alias: Some("plumb:a/b"),
        port: Some(PortFlags { hairpin: true, isolated: true }),
        arp_notify: true,
    };
    let request = Set { target: Target::Index(6), change };
    let expected = hex("
        78000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 06000000 01010000 01010000    # struct ifinfomsg
        0800 0a00 02000000                     # IFLA_MASTER 2
        0800 0400 78050000                     # IFLA_MTU 1400
        0d00 1400 706c756d 623a612f 62000000   # IFLA_IFALIAS plumb:a/b
        2400 1200                              # IFLA_LINKINFO
          0a00 0400 62726964 67650000          # IFLA_INFO_SLAVE_KIND bridge
          1400 0500                            # IFLA_INFO_SLAVE_DATA
            0500 0400 01000000                 # IFLA_BRPORT_MODE 1
            0500 2100 01000000                 # IFLA_BRPORT_ISOLATED 1
        1400 1a00                              # IFLA_AF_SPEC
          1000 0200                            # AF_INET
            0c00 0100                          # IFLA_INET_CONF
              0800 1600 01000000               # IPV4_DEVCONF_ARP_NOTIFY
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set dev cni0 mtu 1400 address 02:00:5e:10:00:01`
///
/// ip(8) writes the address first.
#[test]
fn a_link_is_given_an_address() {
    let mac = Mac([0x02, 0, 0x5e, 0x10, 0, 0x01]);
    let change = Change { mtu: Some(1400), mac: Some(mac), ..Change::default() };
    let request = Set { target: Target::Index(2), change };
    let expected = hex("
        34000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 02000000 00000000 00000000    # struct ifinfomsg
        0800 0400 78050000                     # IFLA_MTU 1400
        0a00 0100 02005e10 00010000            # IFLA_ADDRESS 02:00:5e:10:00:01
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set dev cni0 promisc on`
#[test]
fn a_change_leaves_alone_what_it_does_not_name() {
    let change = Change { promiscuous: true, ..Change::default() };
    let request = Set { target: Target::Index(2), change };
    let expected = hex("
        20000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 02000000 00010000 00010000    # struct ifinfomsg
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set dev vethcafe type bridge_slave hairpin off isolated on`
///
/// ip(8) writes the kind as `IFLA_INFO_KIND` of `bridge_slave`, a name that no kind bears: the kernel
/// goes by the link's master alone.
#[test]
fn port_flags_are_written_also_if_off() {
    let port = Some(PortFlags { hairpin: false, isolated: true });
    let request = Set { target: Target::Index(6), change: Change { port, ..Change::default() } };
    let expected = hex("
        44000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 06000000 00000000 00000000    # struct ifinfomsg
        2400 1200                              # IFLA_LINKINFO
          0a00 0400 62726964 67650000          # IFLA_INFO_SLAVE_KIND bridge
          1400 0500                            # IFLA_INFO_SLAVE_DATA
            0500 0400 00000000                 # IFLA_BRPORT_MODE 0
            0500 2100 01000000                 # IFLA_BRPORT_ISOLATED 1
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set dev vethcafe up`
///
/// ip(8) asks for the index first, and gives that.
#[test]
fn a_link_can_be_named_in_a_change() {
    let change = Change { up: true, ..Change::default() };
    let request = Set { target: Target::Name("vethcafe"), change };
    let expected = hex("
        30000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 00000000 01000000 01000000    # struct ifinfomsg
        0d00 0300 76657468 63616665 00000000   # IFLA_IFNAME vethcafe
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set d0 down`
#[test]
fn a_link_is_taken_down() {
    let expected = hex("
        20000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 03000000 00000000 01000000    # struct ifinfomsg: index 3, IFF_UP is to be off
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&SetDown(Target::Index(3))])), expected);
}

/// `ip link del dev vethbeef`
///
/// ip(8) asks for the index first, and gives that: the second message.
#[test]
fn a_link_is_deleted_by_name_or_index() {
    let expected = hex("
        30000000 1100 0500 01000000 00000000   # RTM_DELLINK, REQUEST | ACK
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0d00 0300 76657468 62656566 00000000   # IFLA_IFNAME vethbeef
        ");
    let by_name = Delete(Target::Name("vethbeef"));
    assert_eq!(sent(|kernel| kernel.execute(&[&by_name])), expected);

    let expected = hex("
        20000000 1100 0500 01000000 00000000   # RTM_DELLINK, REQUEST | ACK
        00000000 07000000 00000000 00000000    # struct ifinfomsg
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&Delete(Target::Index(7))])), expected);
}

/// `ip link show dev cni0`
///
/// ip(8) asks for virtual functions (`RTEXT_FILTER_VF`) besides, sets the family to `AF_PACKET`,
/// which the kernel ignores here, and writes the name first. With an index there is no name.
#[test]
fn a_link_is_asked_for_by_name_or_index() {
    let expected = hex("
        34000000 1200 0100 01000000 00000000   # RTM_GETLINK, REQUEST
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0900 0300 636e6930 00000000            # IFLA_IFNAME cni0
        0800 1d00 08000000                     # IFLA_EXT_MASK
        ");
    assert_eq!(sent(|kernel| get(kernel, Target::Name("cni0"))), expected);

    let expected = hex("
        28000000 1200 0100 01000000 00000000   # RTM_GETLINK, REQUEST
        00000000 02000000 00000000 00000000    # struct ifinfomsg
        0800 1d00 08000000                     # IFLA_EXT_MASK
        ");
    assert_eq!(sent(|kernel| get(kernel, Target::Index(2))), expected);
}

/// `ip link show`
///
/// ip(8) asks for virtual functions (`RTEXT_FILTER_VF`) and all counters, and sets the family to
/// `AF_PACKET`, which the kernel ignores here.
#[test]
fn links_are_listed_with_fewer_counters() {
    let expected = hex("
        28000000 1200 0103 01000000 00000000   # RTM_GETLINK, REQUEST | DUMP
        00000000 00000000 00000000 00000000    # struct ifinfomsg
        0800 1d00 08000000                     # IFLA_EXT_MASK
        ");
    assert_eq!(sent(list), expected);
}

/// The answer to the request above: a bridge that is up, has an MTU of 1400, and is promiscuous.
#[test]
fn a_bridge_is_read() {
    let answer = hex("
        ec050000 1000 0000 01000000 00000000   # RTM_NEWLINK
        00000100 02000000 43110100 00000000    # struct ifinfomsg
        0900 0300 636e6930 00000000            # IFLA_IFNAME cni0
        0800 0d00 e8030000                     # IFLA_TXQLEN 1000
        0500 1000 06000000                     # IFLA_OPERSTATE 6
        0500 1100 00000000                     # IFLA_LINKMODE
        0500 4300 01000000                     # IFLA_NETNS_IMMUTABLE
        0800 0400 78050000                     # IFLA_MTU 1400
        0800 3200 44000000                     # IFLA_MIN_MTU
        0800 3300 ffff0000                     # IFLA_MAX_MTU
        0800 1b00 00000000                     # IFLA_GROUP
        0800 1e00 01000000                     # IFLA_PROMISCUITY
        0800 3d00 00000000                     # IFLA_ALLMULTI
        0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
        0800 2800 ffff0000                     # IFLA_GSO_MAX_SEGS
        0800 2900 00000100                     # IFLA_GSO_MAX_SIZE
        0800 3a00 00000100                     # IFLA_GRO_MAX_SIZE
        0800 3f00 00000100                     # IFLA_GSO_IPV4_MAX_SIZE
        0800 4000 00000100                     # IFLA_GRO_IPV4_MAX_SIZE
        0800 3b00 f8ff0700                     # IFLA_TSO_MAX_SIZE
        0800 3c00 ffff0000                     # IFLA_TSO_MAX_SEGS
        0800 4200 00000000                     # IFLA_MAX_PACING_OFFLOAD_HORIZON
        0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
        0500 2100 01000000                     # IFLA_CARRIER
        0800 2300 02000000                     # IFLA_CARRIER_CHANGES
        0800 2f00 01000000                     # IFLA_CARRIER_UP_COUNT
        0800 3000 01000000                     # IFLA_CARRIER_DOWN_COUNT
        0600 4400 00000000                     # IFLA_HEADROOM
        0600 4500 00000000                     # IFLA_TAILROOM
        0500 2700 00000000                     # IFLA_PROTO_DOWN
        0a00 0100 02005e10 00010000            # IFLA_ADDRESS 02:00:5e:10:00:01
        0a00 0200 ffffffff ffff0000            # IFLA_BROADCAST
        cc00 1700 03000000 00000000 06000000 00000000 # IFLA_STATS64
                  e0000000 00000000 f8010000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  03000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000
        6400 0700 03000000 06000000 e0000000 f8010000 # IFLA_STATS
                  00000000 00000000 00000000 00000000
                  03000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
        0c00 2b00 05000200 00000000            # IFLA_XDP
        9c01 1200                              # IFLA_LINKINFO
          0b00 0100 62726964 67650000          # IFLA_INFO_KIND bridge
          8c01 0200                            # IFLA_INFO_DATA
            0c00 1000 00000000 00000000        # IFLA_BR_HELLO_TIMER
            0c00 1100 00000000 00000000        # IFLA_BR_TCN_TIMER
            0c00 1200 00000000 00000000        # IFLA_BR_TOPOLOGY_CHANGE_TIMER
            0c00 1300 c2740000 00000000        # IFLA_BR_GC_TIMER
            0800 0100 dc050000                 # IFLA_BR_FORWARD_DELAY
            0800 0200 c8000000                 # IFLA_BR_HELLO_TIME
            0800 0300 d0070000                 # IFLA_BR_MAX_AGE
            0800 0400 30750000                 # IFLA_BR_AGEING_TIME
            0800 0500 00000000                 # IFLA_BR_STP_STATE
            0600 0600 00800000                 # IFLA_BR_PRIORITY
            0500 0700 00000000                 # IFLA_BR_VLAN_FILTERING 0
            0600 0900 00000000                 # IFLA_BR_GROUP_FWD_MASK
            0c00 0b00 80000200 5e100001        # IFLA_BR_BRIDGE_ID
            0c00 0a00 80000200 5e100001        # IFLA_BR_ROOT_ID
            0600 0c00 00000000                 # IFLA_BR_ROOT_PORT
            0800 0d00 00000000                 # IFLA_BR_ROOT_PATH_COST
            0500 0e00 00000000                 # IFLA_BR_TOPOLOGY_CHANGE
            0500 0f00 00000000                 # IFLA_BR_TOPOLOGY_CHANGE_DETECTED
            0a00 1400 0180c200 00000000        # IFLA_BR_GROUP_ADDR
            0c00 2e00 00000000 1f000000        # IFLA_BR_MULTI_BOOLOPT
            0800 3000 01000000                 # type 48
            0800 3100 00000000                 # type 49
            0500 1600 01000000                 # IFLA_BR_MCAST_ROUTER
            0500 1700 01000000                 # IFLA_BR_MCAST_SNOOPING
            0500 1800 00000000                 # IFLA_BR_MCAST_QUERY_USE_IFADDR
            0500 1900 00000000                 # IFLA_BR_MCAST_QUERIER
            0500 2a00 00000000                 # IFLA_BR_MCAST_STATS_ENABLED
            0800 1a00 10000000                 # IFLA_BR_MCAST_HASH_ELASTICITY
            0800 1b00 00100000                 # type 27
            0800 1c00 02000000                 # IFLA_BR_MCAST_LAST_MEMBER_CNT
            0800 1d00 02000000                 # IFLA_BR_MCAST_STARTUP_QUERY_CNT
            0500 2b00 02000000                 # IFLA_BR_MCAST_IGMP_VERSION
            0500 2c00 01000000                 # IFLA_BR_MCAST_MLD_VERSION
            0c00 1e00 64000000 00000000        # IFLA_BR_MCAST_LAST_MEMBER_INTVL
            0c00 1f00 90650000 00000000        # IFLA_BR_MCAST_MEMBERSHIP_INTVL
            0c00 2000 9c630000 00000000        # IFLA_BR_MCAST_QUERIER_INTVL
            0c00 2100 d4300000 00000000        # IFLA_BR_MCAST_QUERY_INTVL
            0c00 2200 e8030000 00000000        # IFLA_BR_MCAST_QUERY_RESPONSE_INTVL
            0c00 2300 340c0000 00000000        # IFLA_BR_MCAST_STARTUP_QUERY_INTVL
            0500 2400 00000000                 # IFLA_BR_NF_CALL_IPTABLES
            0500 2500 00000000                 # IFLA_BR_NF_CALL_IP6TABLES
            0500 2600 00000000                 # IFLA_BR_NF_CALL_ARPTABLES
        0c00 0600 6e6f7175 65756500            # IFLA_QDISC
        c001 1a00                              # IFLA_AF_SPEC
          8c00 0200                            # AF_INET
            8800 0100 00000000 00000000 00000000 01000000 # IFLA_INET_CONF
                      01000000 01000000 01000000 00000000
                      01000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 10270000 e8030000
                      00000000 00000000 00000000 00000000
                      01000000
          3001 0a00                            # AF_INET6
            0800 0100 00000080                 # IFLA_INET6_FLAGS
            1400 0500 ffff0000 3cac0100 10650000 e8030000 # IFLA_INET6_CACHEINFO
            f400 0200 00000000 40000000 78050000 01000000 # IFLA_INET6_CONF
                      01000000 01000000 01000000 ffffffff
                      a00f0000 e8030000 00000000 803a0900
                      80510100 03000000 58020000 10000000
                      00000000 01000000 01000000 01000000
                      60ea0000 00000000 00000000 00000000
                      00000000 00000000 00000000 01000000
                      00000000 00000000 10270000 e8030000
                      01000000 00000000 00000000 01000000
                      00000000 00000000 01000000 00000000
                      00000000 00000000 00000000 80ee3600
                      00000000 00000000 01000000 00000000
                      00000000 00000000 00000000 00000000
                      00040000 00000000 ffff0000 ffffffff
                      01000000 00000000 00000000 00000000
            1400 0700 00000000 00000000 00000000 00000000 # IFLA_INET6_TOKEN
            0500 0800 00000000                 # IFLA_INET6_ADDR_GEN_MODE 0
        2400 0e00 00000000 00000000 00000000 00000000 # IFLA_MAP
                  00000000 00000000 00000000 00000000
        0400 3e80                              # IFLA_DEVLINK_PORT
        0400 4180                              # IFLA_DPLL_PIN
        ");
    let expected = Link {
        index: 2,
        name: "cni0".to_owned(),
        up: true,
        altnames: Vec::new(),
        all_multicast: false,
        no_arp: false,
        queues: 0,
        promiscuous: true,
        operational: true,
        mac: Some(MAC),
        mtu: 1400,
        kind: Some("bridge".to_owned()),
        master: None,
        peer: None,
        peer_netns: None,
        carrier: true,
        variant: None,
        traffic: Traffic { received: 224, sent: 504 },
        alias: None,
        parent: None,
        bus: None,
        vlan_filtering: false,
        default_pvid: None,
        port: PortFlags::default(),
        bridge_mac: None,
        accepts_router_advertisements: true,
    };
    let link = answered(&[answer], |kernel| get(kernel, Target::Name("cni0")));
    assert_eq!(link, Ok(Some(expected.clone())));
    assert!(expected.is_bridge() && !expected.is_veth());
}

/// A port of a bridge after `ip link set dev vethcafe alias plumb:a/b type bridge_slave hairpin on
/// isolated on`, and after our own message had set arp_notify (`IPV4_DEVCONF_ARP_NOTIFY`).
#[test]
fn a_veth_that_is_a_bridges_port_is_read() {
    let answer = hex("
        e8050000 1000 0000 01000000 00000000   # RTM_NEWLINK
        00000100 06000000 43100100 00000000    # struct ifinfomsg
        0d00 0300 76657468 63616665 00000000   # IFLA_IFNAME vethcafe
        0800 0d00 e8030000                     # IFLA_TXQLEN 1000
        0500 1000 06000000                     # IFLA_OPERSTATE 6
        0500 1100 00000000                     # IFLA_LINKMODE
        0500 4300 00000000                     # IFLA_NETNS_IMMUTABLE
        0800 0400 78050000                     # IFLA_MTU 1400
        0800 3200 44000000                     # IFLA_MIN_MTU
        0800 3300 ffff0000                     # IFLA_MAX_MTU
        0800 1b00 00000000                     # IFLA_GROUP
        0800 1e00 01000000                     # IFLA_PROMISCUITY
        0800 3d00 01000000                     # IFLA_ALLMULTI
        0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
        0800 2800 ffff0000                     # IFLA_GSO_MAX_SEGS
        0800 2900 00000100                     # IFLA_GSO_MAX_SIZE
        0800 3a00 00000100                     # IFLA_GRO_MAX_SIZE
        0800 3f00 00000100                     # IFLA_GSO_IPV4_MAX_SIZE
        0800 4000 00000100                     # IFLA_GRO_IPV4_MAX_SIZE
        0800 3b00 f8ff0700                     # IFLA_TSO_MAX_SIZE
        0800 3c00 ffff0000                     # IFLA_TSO_MAX_SEGS
        0800 4200 00000000                     # IFLA_MAX_PACING_OFFLOAD_HORIZON
        0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
        0800 0a00 02000000                     # IFLA_MASTER 2
        0500 2100 01000000                     # IFLA_CARRIER
        0e00 1400 706c756d 623a612f 62000000   # IFLA_IFALIAS plumb:a/b
        0800 2300 02000000                     # IFLA_CARRIER_CHANGES
        0800 2f00 01000000                     # IFLA_CARRIER_UP_COUNT
        0800 3000 01000000                     # IFLA_CARRIER_DOWN_COUNT
        0600 4400 00000000                     # IFLA_HEADROOM
        0600 4500 00000000                     # IFLA_TAILROOM
        0500 2700 00000000                     # IFLA_PROTO_DOWN
        0a00 0100 02005e10 00030000            # IFLA_ADDRESS 02:00:5e:10:00:03
        0a00 0200 ffffffff ffff0000            # IFLA_BROADCAST
        cc00 1700 03000000 00000000 0d000000 00000000 # IFLA_STATS64
                  0a010000 00000000 6a040000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000
        6400 0700 03000000 0d000000 0a010000 6a040000 # IFLA_STATS
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
                  00000000 00000000 00000000 00000000
        0c00 2b00 05000200 00000000            # IFLA_XDP
        6c01 1200                              # IFLA_LINKINFO
          0900 0100 76657468 00000000          # IFLA_INFO_KIND veth
          0b00 0400 62726964 67650000          # IFLA_INFO_SLAVE_KIND bridge
          5001 0500                            # IFLA_INFO_SLAVE_DATA
            0500 0100 03000000                 # IFLA_BRPORT_STATE
            0600 0200 20000000                 # IFLA_BRPORT_PRIORITY
            0800 0300 02000000                 # IFLA_BRPORT_COST
            0500 0400 01000000                 # IFLA_BRPORT_MODE 1
            0500 0500 00000000                 # IFLA_BRPORT_GUARD
            0500 0600 00000000                 # IFLA_BRPORT_PROTECT
            0500 0700 00000000                 # IFLA_BRPORT_FAST_LEAVE
            0500 1c00 00000000                 # IFLA_BRPORT_MCAST_TO_UCAST
            0500 0800 01000000                 # IFLA_BRPORT_LEARNING
            0500 0900 01000000                 # IFLA_BRPORT_UNICAST_FLOOD
            0500 1b00 01000000                 # IFLA_BRPORT_MCAST_FLOOD
            0500 1e00 01000000                 # IFLA_BRPORT_BCAST_FLOOD
            0500 0a00 00000000                 # IFLA_BRPORT_PROXYARP
            0500 0c00 00000000                 # IFLA_BRPORT_PROXYARP_WIFI
            0c00 0d00 80000200 5e100001        # IFLA_BRPORT_ROOT_ID
            0c00 0e00 80000200 5e100001        # IFLA_BRPORT_BRIDGE_ID
            0600 0f00 01800000                 # IFLA_BRPORT_DESIGNATED_PORT
            0600 1000 00000000                 # IFLA_BRPORT_DESIGNATED_COST
            0600 1100 01800000                 # IFLA_BRPORT_ID
            0600 1200 01000000                 # IFLA_BRPORT_NO
            0500 1300 00000000                 # IFLA_BRPORT_TOPOLOGY_CHANGE_ACK
            0500 1400 00000000                 # IFLA_BRPORT_CONFIG_PENDING
            0500 1d00 00000000                 # IFLA_BRPORT_VLAN_TUNNEL
            0600 1f00 00000000                 # IFLA_BRPORT_GROUP_FWD_MASK
            0500 2000 00000000                 # IFLA_BRPORT_NEIGH_SUPPRESS
            0500 2300 00000000                 # IFLA_BRPORT_MRP_RING_OPEN
            0500 2400 00000000                 # IFLA_BRPORT_MRP_IN_OPEN
            0500 2100 01000000                 # IFLA_BRPORT_ISOLATED 1
            0500 2700 00000000                 # IFLA_BRPORT_LOCKED
            0500 2800 00000000                 # type 40
            0500 2b00 00000000                 # type 43
            0c00 1500 00000000 00000000        # IFLA_BRPORT_MESSAGE_AGE_TIMER
            0c00 1600 6c050000 00000000        # IFLA_BRPORT_FORWARD_DELAY_TIMER
            0c00 1700 00000000 00000000        # IFLA_BRPORT_HOLD_TIMER
            0500 1900 01000000                 # IFLA_BRPORT_MULTICAST_ROUTER
            0800 2500 00020000                 # IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT
            0800 2600 00000000                 # IFLA_BRPORT_MCAST_EHT_HOSTS_CNT
            0800 2900 01000000                 # type 41
            0800 2a00 00000000                 # type 42
        0800 2500 00000000                     # IFLA_LINK_NETNSID 0
        0800 0500 02000000                     # IFLA_LINK 2
        0c00 0600 6e6f7175 65756500            # IFLA_QDISC
        c001 1a00                              # IFLA_AF_SPEC
          8c00 0200                            # AF_INET
            8800 0100 00000000 00000000 00000000 01000000 # IFLA_INET_CONF
                      01000000 01000000 01000000 00000000
                      01000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 01000000 00000000 00000000
                      00000000 00000000 10270000 e8030000
                      00000000 00000000 00000000 00000000
                      01000000
          3001 0a00                            # AF_INET6
            0800 0100 00000080                 # IFLA_INET6_FLAGS
            1400 0500 ffff0000 3cac0100 24680000 e8030000 # IFLA_INET6_CACHEINFO
            f400 0200 00000000 40000000 78050000 01000000 # IFLA_INET6_CONF
                      01000000 01000000 01000000 ffffffff
                      a00f0000 e8030000 00000000 803a0900
                      80510100 03000000 58020000 10000000
                      00000000 01000000 01000000 01000000
                      60ea0000 00000000 00000000 00000000
                      00000000 00000000 00000000 01000000
                      00000000 00000000 10270000 e8030000
                      01000000 00000000 00000000 01000000
                      00000000 00000000 01000000 00000000
                      00000000 00000000 00000000 80ee3600
                      00000000 00000000 01000000 01000000
                      00000000 00000000 00000000 00000000
                      00040000 00000000 ffff0000 ffffffff
                      01000000 00000000 00000000 00000000
            1400 0700 00000000 00000000 00000000 00000000 # IFLA_INET6_TOKEN
            0500 0800 01000000                 # IFLA_INET6_ADDR_GEN_MODE 1
        2400 0e00 00000000 00000000 00000000 00000000 # IFLA_MAP
                  00000000 00000000 00000000 00000000
        0400 3e80                              # IFLA_DEVLINK_PORT
        0400 4180                              # IFLA_DPLL_PIN
        ");
    let expected = Link {
        index: 6,
        name: "vethcafe".to_owned(),
        up: true,
        altnames: Vec::new(),
        all_multicast: false,
        no_arp: false,
        queues: 0,
        promiscuous: false,
        operational: true,
        mac: Some(Mac([0x02, 0, 0x5e, 0x10, 0, 0x03])),
        mtu: 1400,
        kind: Some("veth".to_owned()),
        master: Some(2),
        peer: Some(2),
        peer_netns: Some(0),
        carrier: true,
        variant: None,
        traffic: Traffic { received: 266, sent: 1130 },
        alias: Some("plumb:a/b".to_owned()),
        parent: None,
        bus: None,
        vlan_filtering: false,
        default_pvid: None,
        port: PortFlags { hairpin: true, isolated: true },
        bridge_mac: Some(MAC),
        accepts_router_advertisements: true,
    };
    let link = answered(&[answer], |kernel| get(kernel, Target::Name("vethcafe")));
    assert_eq!(link, Ok(Some(expected.clone())));
    assert!(expected.is_veth() && !expected.is_bridge());
}

/// A veth whose other end is down, and a loopback: one dump of two links, then its end.
#[test]
fn links_are_read_from_a_dump() {
    let datagrams = [
        hex("
            4c040000 1000 0200 01000000 00000000   # RTM_NEWLINK, MULTI
            00000403 01000000 49000100 00000000    # struct ifinfomsg
            0700 0300 6c6f0000                     # IFLA_IFNAME lo
            0800 0d00 e8030000                     # IFLA_TXQLEN 1000
            0500 1000 00000000                     # IFLA_OPERSTATE 0
            0500 1100 00000000                     # IFLA_LINKMODE
            0500 4300 01000000                     # IFLA_NETNS_IMMUTABLE
            0800 0400 00000100                     # IFLA_MTU 65536
            0800 3200 00000000                     # IFLA_MIN_MTU
            0800 3300 00000000                     # IFLA_MAX_MTU
            0800 1b00 00000000                     # IFLA_GROUP
            0800 1e00 00000000                     # IFLA_PROMISCUITY
            0800 3d00 00000000                     # IFLA_ALLMULTI
            0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
            0800 2800 ffff0000                     # IFLA_GSO_MAX_SEGS
            0800 2900 00000100                     # IFLA_GSO_MAX_SIZE
            0800 3a00 00000100                     # IFLA_GRO_MAX_SIZE
            0800 3f00 00000100                     # IFLA_GSO_IPV4_MAX_SIZE
            0800 4000 00000100                     # IFLA_GRO_IPV4_MAX_SIZE
            0800 3b00 f8ff0700                     # IFLA_TSO_MAX_SIZE
            0800 3c00 ffff0000                     # IFLA_TSO_MAX_SEGS
            0800 4200 00000000                     # IFLA_MAX_PACING_OFFLOAD_HORIZON
            0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
            0500 2100 01000000                     # IFLA_CARRIER
            0800 2300 00000000                     # IFLA_CARRIER_CHANGES
            0800 2f00 00000000                     # IFLA_CARRIER_UP_COUNT
            0800 3000 00000000                     # IFLA_CARRIER_DOWN_COUNT
            0600 4400 00000000                     # IFLA_HEADROOM
            0600 4500 00000000                     # IFLA_TAILROOM
            0500 2700 00000000                     # IFLA_PROTO_DOWN
            0a00 0100 00000000 00000000            # IFLA_ADDRESS 00:00:00:00:00:00
            0a00 0200 00000000 00000000            # IFLA_BROADCAST
            cc00 1700 00000000 00000000 00000000 00000000 # IFLA_STATS64
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000
            6400 0700 00000000 00000000 00000000 00000000 # IFLA_STATS
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
            0c00 2b00 05000200 00000000            # IFLA_XDP
            0c00 0600 6e6f7175 65756500            # IFLA_QDISC
            c001 1a00                              # IFLA_AF_SPEC
              8c00 0200                            # AF_INET
                8800 0100 00000000 00000000 00000000 01000000 # IFLA_INET_CONF
                          01000000 01000000 01000000 00000000
                          01000000 00000000 00000000 00000000
                          00000000 00000000 01000000 01000000
                          00000000 00000000 00000000 00000000
                          00000000 00000000 00000000 00000000
                          00000000 00000000 10270000 e8030000
                          00000000 00000000 00000000 00000000
                          01000000
              3001 0a00                            # AF_INET6
                0800 0100 00000080                 # IFLA_INET6_FLAGS
                1400 0500 ffff0000 bdc60100 14670000 e8030000 # IFLA_INET6_CACHEINFO
                f400 0200 00000000 40000000 00000100 01000000 # IFLA_INET6_CONF
                          01000000 01000000 01000000 ffffffff
                          a00f0000 e8030000 ffffffff 803a0900
                          80510100 03000000 58020000 10000000
                          00000000 01000000 01000000 01000000
                          60ea0000 00000000 00000000 00000000
                          00000000 00000000 00000000 ffffffff
                          00000000 00000000 10270000 e8030000
                          01000000 00000000 00000000 01000000
                          00000000 00000000 01000000 00000000
                          00000000 00000000 00000000 80ee3600
                          00000000 00000000 01000000 00000000
                          00000000 00000000 00000000 00000000
                          00040000 00000000 ffff0000 ffffffff
                          01000000 00000000 00000000 00000000
                1400 0700 00000000 00000000 00000000 00000000 # IFLA_INET6_TOKEN
                0500 0800 00000000                 # IFLA_INET6_ADDR_GEN_MODE 0
            2400 0e00 00000000 00000000 00000000 00000000 # IFLA_MAP
                      00000000 00000000 00000000 00000000
            0400 3e80                              # IFLA_DEVLINK_PORT
            0400 4180                              # IFLA_DPLL_PIN
            74040000 1000 0200 01000000 00000000   # RTM_NEWLINK, MULTI
            00000100 02000000 03100000 00000000    # struct ifinfomsg
            0d00 0300 76657468 62656566 00000000   # IFLA_IFNAME vethbeef
            0800 0d00 e8030000                     # IFLA_TXQLEN 1000
            0500 1000 02000000                     # IFLA_OPERSTATE 2
            0500 1100 00000000                     # IFLA_LINKMODE
            0500 4300 00000000                     # IFLA_NETNS_IMMUTABLE
            0800 0400 dc050000                     # IFLA_MTU 1500
            0800 3200 44000000                     # IFLA_MIN_MTU
            0800 3300 ffff0000                     # IFLA_MAX_MTU
            0800 1b00 00000000                     # IFLA_GROUP
            0800 1e00 00000000                     # IFLA_PROMISCUITY
            0800 3d00 00000000                     # IFLA_ALLMULTI
            0800 1f00 01000000                     # IFLA_NUM_TX_QUEUES 1
            0800 2800 ffff0000                     # IFLA_GSO_MAX_SEGS
            0800 2900 00000100                     # IFLA_GSO_MAX_SIZE
            0800 3a00 00000100                     # IFLA_GRO_MAX_SIZE
            0800 3f00 00000100                     # IFLA_GSO_IPV4_MAX_SIZE
            0800 4000 00000100                     # IFLA_GRO_IPV4_MAX_SIZE
            0800 3b00 f8ff0700                     # IFLA_TSO_MAX_SIZE
            0800 3c00 ffff0000                     # IFLA_TSO_MAX_SEGS
            0800 4200 00000000                     # IFLA_MAX_PACING_OFFLOAD_HORIZON
            0800 2000 01000000                     # IFLA_NUM_RX_QUEUES 1
            0500 2100 00000000                     # IFLA_CARRIER
            0800 2300 01000000                     # IFLA_CARRIER_CHANGES
            0800 2f00 00000000                     # IFLA_CARRIER_UP_COUNT
            0800 3000 01000000                     # IFLA_CARRIER_DOWN_COUNT
            0600 4400 00000000                     # IFLA_HEADROOM
            0600 4500 00000000                     # IFLA_TAILROOM
            0500 2700 00000000                     # IFLA_PROTO_DOWN
            0a00 0100 02005e10 00050000            # IFLA_ADDRESS 02:00:5e:10:00:05
            0a00 0200 ffffffff ffff0000            # IFLA_BROADCAST
            cc00 1700 00000000 00000000 00000000 00000000 # IFLA_STATS64
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000
            6400 0700 00000000 00000000 00000000 00000000 # IFLA_STATS
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
                      00000000 00000000 00000000 00000000
            0c00 2b00 05000200 00000000            # IFLA_XDP
            1000 1200                              # IFLA_LINKINFO
              0900 0100 76657468 00000000          # IFLA_INFO_KIND veth
            0800 2500 00000000                     # IFLA_LINK_NETNSID 0
            0800 0500 02000000                     # IFLA_LINK 2
            0c00 0600 6e6f7175 65756500            # IFLA_QDISC
            c001 1a00                              # IFLA_AF_SPEC
              8c00 0200                            # AF_INET
                8800 0100 00000000 00000000 00000000 01000000 # IFLA_INET_CONF
                          01000000 01000000 01000000 00000000
                          01000000 00000000 00000000 00000000
                          00000000 00000000 00000000 00000000
                          00000000 00000000 00000000 00000000
                          00000000 00000000 00000000 00000000
                          00000000 00000000 10270000 e8030000
                          00000000 00000000 00000000 00000000
                          01000000
              3001 0a00                            # AF_INET6
                0800 0100 00000000                 # IFLA_INET6_FLAGS
                1400 0500 ffff0000 bec60100 6c720000 e8030000 # IFLA_INET6_CACHEINFO
                f400 0200 00000000 40000000 dc050000 01000000 # IFLA_INET6_CONF
                          01000000 01000000 01000000 ffffffff
                          a00f0000 e8030000 00000000 803a0900
                          80510100 03000000 58020000 10000000
                          00000000 01000000 01000000 01000000
                          60ea0000 00000000 00000000 00000000
                          00000000 00000000 00000000 01000000
                          00000000 00000000 10270000 e8030000
                          01000000 00000000 00000000 01000000
                          00000000 00000000 01000000 00000000
                          00000000 00000000 00000000 80ee3600
                          00000000 00000000 01000000 01000000
                          00000000 00000000 00000000 00000000
                          00040000 00000000 ffff0000 ffffffff
                          01000000 00000000 00000000 00000000
                1400 0700 00000000 00000000 00000000 00000000 # IFLA_INET6_TOKEN
                0500 0800 01000000                 # IFLA_INET6_ADDR_GEN_MODE 1
            2400 0e00 00000000 00000000 00000000 00000000 # IFLA_MAP
                      00000000 00000000 00000000 00000000
            0400 3e80                              # IFLA_DEVLINK_PORT
            0400 4180                              # IFLA_DPLL_PIN
            "),
        hex("
            14000000 0300 0200 01000000 00000000   # NLMSG_DONE, MULTI
            00000000                               # 0
            "),
    ];
    let loopback = Link {
        index: 1,
        name: "lo".to_owned(),
        up: true,
        mac: Some(Mac([0; 6])),
        mtu: 65536,
        carrier: true,
        accepts_router_advertisements: true,
        ..Link::default()
    };
    let veth = Link {
        index: 2,
        name: "vethbeef".to_owned(),
        up: true,
        mac: Some(Mac([0x02, 0, 0x5e, 0x10, 0, 0x05])),
        mtu: 1500,
        kind: Some("veth".to_owned()),
        peer: Some(2),
        accepts_router_advertisements: true,
        peer_netns: Some(0),
        ..Link::default()
    };
    assert_eq!(answered(&datagrams, list), Ok(vec![loopback, veth]));
}

/// `ip link show dev nosuch`
#[test]
fn a_missing_link_is_none() {
    let answer = hex("
        24000000 0200 0001 01000000 00000000   # NLMSG_ERROR, CAPPED
        edffffff                               # error -19
        34000000 12000100 01000000 00000000    # the request's header
        ");
    assert_eq!(answered(&[answer], |kernel| get(kernel, Target::Name("nosuch"))), Ok(None));
}

#[test]
fn a_refusal_to_show_a_link_is_an_error() {
    let refusal = Refusal { sequence: 1, errno: libc::EPERM, ..Refusal::default() };
    let result = answered(&[Bytes(refusal.bytes())], |kernel| get(kernel, Target::Name("cni0")));
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), r#"cannot read link "cni0": EPERM"#);
}

fn decode(message: &[u8]) -> Result<Link, Malformed> {
    Link::decode(&Messages::new(message).next().unwrap().unwrap())
}

/// The kernel that the other answers are from lacks `CONFIG_BRIDGE_VLAN_FILTERING`, so this one is written
/// by hand.
#[test]
fn vlan_filtering_of_a_bridge_is_read() {
    let bridge = |filtering: u8, default_pvid: u16| {
        message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
            header(out, 2, 0, 0);
            out.nest(libc::IFLA_LINKINFO, |out| {
                out.put(libc::IFLA_INFO_KIND, "bridge");
                out.nest(libc::IFLA_INFO_DATA, |out| {
                    out.put(IFLA_BR_VLAN_FILTERING, &filtering);
                    out.put(IFLA_BR_VLAN_DEFAULT_PVID, &default_pvid);
                });
            });
        })
    };
    let link = |vlan_filtering, default_pvid| Link {
        index: 2,
        kind: Some("bridge".to_owned()),
        vlan_filtering,
        default_pvid: Some(default_pvid),
        ..Link::default()
    };
    assert_eq!(decode(&bridge(1, 1)), Ok(link(true, 1)));
    assert_eq!(decode(&bridge(0, 0)), Ok(link(false, 0)));
}

/// The numbers mean other things to other kinds of links: 7 is `IFLA_VXLAN_…`, 4 is `IFLA_BOND_SLAVE_…`.
#[test]
fn options_of_other_kinds_are_not_taken_for_a_bridges() {
    let bytes = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
        header(out, 2, 0, 0);
        out.nest(libc::IFLA_LINKINFO, |out| {
            out.put(libc::IFLA_INFO_KIND, "vxlan");
            out.nest(libc::IFLA_INFO_DATA, |out| out.put(IFLA_BR_VLAN_FILTERING, &1_u8));
            out.put(libc::IFLA_INFO_SLAVE_KIND, "bond");
            out.nest(libc::IFLA_INFO_SLAVE_DATA, |out| out.put(IFLA_BRPORT_MODE, &1_u8));
        });
    });
    let expected = Link { index: 2, kind: Some("vxlan".to_owned()), ..Link::default() };
    assert_eq!(decode(&bytes), Ok(expected));
}

#[test]
fn a_device_tells_what_it_is_a_function_of() {
    let answer = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
        out.raw(&[0; 16]);
        out.put(libc::IFLA_PARENT_DEV_NAME, "0000:00:1f.6");
        out.put(libc::IFLA_PARENT_DEV_BUS_NAME, "pci");
    });
    let link = decode(&answer).unwrap();
    assert_eq!((link.parent.as_deref(), link.bus.as_deref()), (Some("0000:00:1f.6"), Some("pci")));
}

/// `ip link set dev eth0 promisc on allmulticast off arp off`, which ip(8) makes one message
#[test]
fn modes_of_a_link_are_set_all_at_once() {
    let modes = Modes { promiscuous: true, all_multicast: false, no_arp: true };
    let expected = hex("
        20000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 03000000 80010000 80030000    # struct ifinfomsg
        ");
    let request = SetModes { target: Target::Index(3), modes };
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
    assert_eq!(request.to_string(), "set link 3 (promiscuous, all multicast, ARP)");
}

#[test]
fn modes_and_other_names_are_read() {
    let answer = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
        header(out, 3, IFF_ALLMULTI | IFF_NOARP, 0);
        out.nest(libc::IFLA_PROP_LIST | crate::nl::wire::NESTED, |out| {
            out.put(libc::IFLA_ALT_IFNAME, "first");
            out.put(libc::IFLA_ALT_IFNAME, "second");
        });
    });
    let link = decode(&answer).unwrap();
    assert_eq!(link.altnames, ["first", "second"]);
    assert_eq!(link.modes(), Modes { promiscuous: false, all_multicast: true, no_arp: true });
}

#[test]
fn queues_of_a_tap_are_counted_in_use_or_not() {
    let answer = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
        out.raw(&[0; 16]);
        out.nest(libc::IFLA_LINKINFO, |out| {
            out.put(libc::IFLA_INFO_KIND, "tun");
            out.nest(libc::IFLA_INFO_DATA, |out| {
                out.put(IFLA_TUN_NUM_QUEUES, &2_u32);
                out.put(IFLA_TUN_NUM_DISABLED_QUEUES, &1_u32);
            });
        });
    });
    assert_eq!(decode(&answer).unwrap().queues, 3);
}

#[test]
fn a_malformed_link_is_an_error() {
    let of_other_kind = message(libc::RTM_NEWADDR, Flags::empty(), 1, |out| out.raw(&[0; 16]));
    assert_eq!(decode(&of_other_kind), Err(Malformed("expected a link")));
    let short = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| out.raw(&[0; 12]));
    assert_eq!(decode(&short), Err(Malformed("message without family header")));
    let narrow = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
        out.raw(&[0; 16]);
        out.put(libc::IFLA_MTU, &1_u16);
    });
    assert_eq!(decode(&narrow), Err(Malformed("attribute of unexpected length")));
}

/// Who reads `tun` learns by its type whether it is a tap; old kernels don't tell.
#[test]
fn a_tap_is_a_tun_with_ethernet() {
    let read = |kind: &str, tun_type: Option<u8>| {
        let bytes = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| {
            out.raw(&[0; 16]);
            out.nest(libc::IFLA_LINKINFO, |out| {
                out.put(libc::IFLA_INFO_KIND, kind);
                out.nest(libc::IFLA_INFO_DATA, |out| {
                    if let Some(tun_type) = tun_type {
                        out.put(IFLA_TUN_TYPE, &tun_type);
                    }
                });
            });
        });
        decode(&bytes).unwrap()
    };
    assert_eq!(read("tun", Some(2)).variant, Some(TYPE_TAP));
    assert!(read("tun", Some(2)).is_tap());
    assert!(read("tun", None).is_tap());
    assert!(!read("tun", Some(1)).is_tap());
    assert!(!read("veth", Some(2)).is_tap());
}

#[test]
fn purposes_name_the_link_and_what_is_done_to_it() {
    let all = Change {
        up: true,
        promiscuous: true,
        master: Some(2),
        mtu: Some(1400),
        mac: Some(MAC),
        alias: Some(""),
        port: Some(PortFlags::default()),
        arp_notify: true,
    };
    let netns = std::io::stderr();
    let veth = NewVeth {
        name: "vethcafe",
        mac: MAC,
        mtu: None,
        peer_name: "eth0",
        peer_mac: MAC,
        peer_netns: Some(netns.as_fd()),
    };
    let bridge = NewBridge {
        name: "cni0",
        mac: MAC,
        mtu: None,
        multicast_snooping: true,
        vlan_filtering: true,
    };
    let on_the_host = NewVeth { peer_name: "vethbabe", peer_netns: None, ..veth };
    let filtering = |on| SetVlanFiltering { target: Target::Name("cni0"), on };
    let purposes: [(&dyn Request, &str); 10] = [
        (&Get(Some(Target::Index(7))), "read link 7"),
        (&Get(None), "list links"),
        (&bridge, r#"create bridge "cni0""#),
        (&veth, r#"create veth pair "vethcafe" (host) and "eth0" (container)"#),
        (&on_the_host, r#"create veth pair "vethcafe" and "vethbabe""#),
        (&filtering(true), r#"set link "cni0" (VLAN filtering on)"#),
        (&filtering(false), r#"set link "cni0" (VLAN filtering off)"#),
        (
            &Set { target: Target::Name("eth0"), change: all },
            r#"set link "eth0" (up, promiscuous, master, mtu, address, alias, bridge port flags, arp_notify)"#,
        ),
        (&SetDown(Target::Name("eth0")), r#"set link "eth0" (down)"#),
        (&Delete(Target::Name("eth0")), r#"delete link "eth0""#),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
}

#[test]
fn the_header_is_laid_out_as_the_kernels() {
    assert_eq!(HEADER, size_of::<libc::ifinfomsg>());
    assert_eq!(offset_of!(libc::ifinfomsg, ifi_index), 4);
    assert_eq!(offset_of!(libc::ifinfomsg, ifi_flags), 8);
    assert_eq!(offset_of!(libc::ifinfomsg, ifi_change), 12);
    let mut encoder = Encoder::new();
    header(&mut encoder, 0x0403_0201, 0x0807_0605, 0x0c0b_0a09);
    let expected = hex("00000000 01020304 05060708 090a0b0c");
    assert_eq!(Bytes(encoder.bytes().unwrap().to_vec()), expected);
}

/// libc has but these of the constants; the others are held against what ip(8) sends, above.
#[test]
fn constants_are_the_kernels() {
    assert_eq!(RTEXT_FILTER_SKIP_STATS, libc::RTEXT_FILTER_SKIP_STATS.cast_unsigned());
    assert_eq!(i32::from(IF_OPER_UP), libc::IF_OPER_UP);
    assert_eq!(i32::from(IPV4), libc::AF_INET);
    assert_eq!(i32::from(IPV6), libc::AF_INET6);
    assert_eq!(IFF_UP, libc::IFF_UP.cast_unsigned());
    assert_eq!(IFF_PROMISC, libc::IFF_PROMISC.cast_unsigned());
}

proptest! {
    #[test]
    fn a_bridge_as_made_is_read_back(
        name in "[a-z][a-z0-9]{0,14}",
        mac: [u8; 6],
        mtu: Option<u32>,
        vlan_filtering: bool,
    ) {
        let mac = Mac(mac);
        let request = NewBridge { name: &name, mac, mtu, multicast_snooping: true, vlan_filtering };
        let read = decode(&sent(|kernel| kernel.execute(&[&request])).0);
        let expected = Link {
            name: name.clone(),
            mac: Some(mac),
            mtu: mtu.unwrap_or_default(),
            kind: Some("bridge".to_owned()),
            vlan_filtering,
            ..Link::default()
        };
        prop_assert_eq!(read, Ok(expected));
    }

    #[test]
    fn a_change_is_read_back(
        index: u32,
        up: bool,
        promiscuous: bool,
        alias in proptest::option::of("[ -~]{0,255}"),
        master: Option<u32>,
        hairpin: bool,
        isolated: bool,
    ) {
        let port = PortFlags { hairpin, isolated };
        let change = Change {
            up,
            promiscuous,
            master,
            alias: alias.as_deref(),
            port: Some(port),
            ..Change::default()
        };
        let request = Set { target: Target::Index(index), change };
        let read = decode(&sent(|kernel| kernel.execute(&[&request])).0);
        prop_assert_eq!(read, Ok(Link { index, up, promiscuous, master, alias, port, ..Link::default() }));
    }

    #[test]
    fn any_answer_is_survived(bytes: Vec<u8>) {
        let bytes = message(libc::RTM_NEWLINK, Flags::empty(), 1, |out| out.raw(&bytes));
        let _ = decode(&bytes);
    }
}
