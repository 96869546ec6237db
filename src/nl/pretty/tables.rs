//! What there is to name, one table per kind of object. In a table of attributes the place is the
//! attribute's number, as in the kernel's enumeration of the same names.
//!
//! Whoever sends or reads an attribute that is not in here adds it: a test holds our own requests
//! against these tables.

use super::Format::{
    Be, BeNamed, BeSigned, Bits, Bytes, Comment, Data, Flag, Ip, Mac, Name, Named, Nest, NextHops,
    Number, Peer, Signed, Text, VlanInfo,
};
use super::{FamilyHeader, Kind, Table};

/// linux/netlink.h
pub const NLMSGERR: Table = &[
    ("NLMSGERR_ATTR_UNUSED", Bytes),
    ("NLMSGERR_ATTR_MSG", Text),
    ("NLMSGERR_ATTR_OFFS", Number),
    ("NLMSGERR_ATTR_COOKIE", Bytes),
    ("NLMSGERR_ATTR_POLICY", Bytes),
    ("NLMSGERR_ATTR_MISS_TYPE", Number),
    ("NLMSGERR_ATTR_MISS_NEST", Number),
];

/// rtnetlink's messages (linux/rtnetlink.h).
pub const ROUTE: &[Kind] = &[
    Kind::new(16, "RTM_NEWLINK", FamilyHeader::Link, LINK),
    Kind::new(17, "RTM_DELLINK", FamilyHeader::Link, LINK),
    Kind::new(18, "RTM_GETLINK", FamilyHeader::Link, LINK),
    Kind::new(19, "RTM_SETLINK", FamilyHeader::Link, LINK),
    Kind::new(20, "RTM_NEWADDR", FamilyHeader::Address, ADDRESS),
    Kind::new(21, "RTM_DELADDR", FamilyHeader::Address, ADDRESS),
    Kind::new(22, "RTM_GETADDR", FamilyHeader::Address, ADDRESS),
    Kind::new(24, "RTM_NEWROUTE", FamilyHeader::Route, ROUTES),
    Kind::new(25, "RTM_DELROUTE", FamilyHeader::Route, ROUTES),
    Kind::new(26, "RTM_GETROUTE", FamilyHeader::Route, ROUTES),
    Kind::new(108, "RTM_NEWLINKPROP", FamilyHeader::Link, LINK),
    Kind::new(109, "RTM_DELLINKPROP", FamilyHeader::Link, LINK),
    Kind::new(112, "RTM_NEWVLAN", FamilyHeader::BridgeVlan, VLANDB),
    Kind::new(113, "RTM_DELVLAN", FamilyHeader::BridgeVlan, VLANDB),
    Kind::new(114, "RTM_GETVLAN", FamilyHeader::BridgeVlan, VLANDB_DUMP),
];

/// `BRIDGE_VLANDB_…` (linux/if_bridge.h)
const VLANDB: Table = &[
    ("BRIDGE_VLANDB_UNSPEC", Bytes),
    ("BRIDGE_VLANDB_ENTRY", Nest(VLANDB_ENTRY)),
    ("BRIDGE_VLANDB_GLOBAL_OPTIONS", Bytes),
];

/// `BRIDGE_VLANDB_DUMP_…` (linux/if_bridge.h)
const VLANDB_DUMP: Table =
    &[("BRIDGE_VLANDB_DUMP_UNSPEC", Bytes), ("BRIDGE_VLANDB_DUMP_FLAGS", Number)];

/// `BRIDGE_VLANDB_ENTRY_…` (linux/if_bridge.h)
const VLANDB_ENTRY: Table = &[
    ("BRIDGE_VLANDB_ENTRY_UNSPEC", Bytes),
    ("BRIDGE_VLANDB_ENTRY_INFO", VlanInfo),
    ("BRIDGE_VLANDB_ENTRY_RANGE", Number),
    ("BRIDGE_VLANDB_ENTRY_STATE", Named(PORT_STATES)),
    ("BRIDGE_VLANDB_ENTRY_TUNNEL_INFO", Bytes),
    ("BRIDGE_VLANDB_ENTRY_STATS", Bytes),
    ("BRIDGE_VLANDB_ENTRY_MCAST_ROUTER", Number),
    ("BRIDGE_VLANDB_ENTRY_MCAST_N_GROUPS", Number),
    ("BRIDGE_VLANDB_ENTRY_MCAST_MAX_GROUPS", Number),
    ("BRIDGE_VLANDB_ENTRY_NEIGH_SUPPRESS", Number),
];

/// `BRIDGE_VLAN_INFO_…` by bit (linux/if_bridge.h).
pub const VLAN_FLAGS: &[&str] =
    &["MASTER", "PVID", "UNTAGGED", "RANGE_BEGIN", "RANGE_END", "BRENTRY", "ONLY_OPTS"];

/// nf_tables' messages, with the subsystem in the upper byte (linux/netfilter/nf_tables.h), and those
/// around a transaction (linux/netfilter/nfnetlink.h).
pub const NETFILTER: &[Kind] = &[
    Kind::new(0x10, "NFNL_MSG_BATCH_BEGIN", FamilyHeader::Netfilter, &[]),
    Kind::new(0x11, "NFNL_MSG_BATCH_END", FamilyHeader::Netfilter, &[]),
    Kind::new(0xa00, "NFT_MSG_NEWTABLE", FamilyHeader::Netfilter, NFT_TABLE),
    Kind::new(0xa01, "NFT_MSG_GETTABLE", FamilyHeader::Netfilter, NFT_TABLE),
    Kind::new(0xa02, "NFT_MSG_DELTABLE", FamilyHeader::Netfilter, NFT_TABLE),
    Kind::new(0xa03, "NFT_MSG_NEWCHAIN", FamilyHeader::Netfilter, NFT_CHAIN),
    Kind::new(0xa04, "NFT_MSG_GETCHAIN", FamilyHeader::Netfilter, NFT_CHAIN),
    Kind::new(0xa05, "NFT_MSG_DELCHAIN", FamilyHeader::Netfilter, NFT_CHAIN),
    Kind::new(0xa06, "NFT_MSG_NEWRULE", FamilyHeader::Netfilter, NFT_RULE),
    Kind::new(0xa07, "NFT_MSG_GETRULE", FamilyHeader::Netfilter, NFT_RULE),
    Kind::new(0xa08, "NFT_MSG_DELRULE", FamilyHeader::Netfilter, NFT_RULE),
    Kind::new(0xa09, "NFT_MSG_NEWSET", FamilyHeader::Netfilter, NFT_SET),
    Kind::new(0xa0a, "NFT_MSG_GETSET", FamilyHeader::Netfilter, NFT_SET),
    Kind::new(0xa0b, "NFT_MSG_DELSET", FamilyHeader::Netfilter, NFT_SET),
    Kind::new(0xa0c, "NFT_MSG_NEWSETELEM", FamilyHeader::Netfilter, NFT_ELEMENTS),
    Kind::new(0xa0d, "NFT_MSG_GETSETELEM", FamilyHeader::Netfilter, NFT_ELEMENTS),
    Kind::new(0xa0e, "NFT_MSG_DELSETELEM", FamilyHeader::Netfilter, NFT_ELEMENTS),
];

/// `IFF_…` by bit (linux/if.h).
pub const LINK_FLAGS: &[&str] = &[
    "UP",
    "BROADCAST",
    "DEBUG",
    "LOOPBACK",
    "POINTOPOINT",
    "NOTRAILERS",
    "RUNNING",
    "NOARP",
    "PROMISC",
    "ALLMULTI",
    "MASTER",
    "SLAVE",
    "MULTICAST",
    "PORTSEL",
    "AUTOMEDIA",
    "DYNAMIC",
    "LOWER_UP",
    "DORMANT",
    "ECHO",
];

/// `IFA_F_…` by bit (linux/if_addr.h).
pub const ADDRESS_FLAGS: &[&str] = &[
    "SECONDARY",
    "NODAD",
    "OPTIMISTIC",
    "DADFAILED",
    "HOMEADDRESS",
    "DEPRECATED",
    "TENTATIVE",
    "PERMANENT",
    "MANAGETEMPADDR",
    "NOPREFIXROUTE",
    "MCAUTOJOIN",
    "STABLE_PRIVACY",
];

/// `RTN_…` (linux/rtnetlink.h).
pub const ROUTE_TYPES: &[&str] = &[
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
    "xresolve",
];

/// `RTPROT_…` (linux/rtnetlink.h): the kernel's own.
pub const ROUTE_PROTOCOLS: &[&str] = &["unspec", "redirect", "kernel", "boot", "static"];

/// `IF_OPER_…` (linux/if.h).
const OPER_STATES: &[&str] =
    &["UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"];

/// `IN6_ADDR_GEN_MODE_…` (linux/if_link.h).
const ADDR_GEN_MODES: &[&str] = &["EUI64", "NONE", "STABLE_PRIVACY", "RANDOM"];

/// `BR_STATE_…` (linux/if_bridge.h).
const PORT_STATES: &[&str] = &["DISABLED", "LISTENING", "LEARNING", "FORWARDING", "BLOCKING"];

/// `IFLA_…` (linux/if_link.h)
pub const LINK: Table = &[
    ("IFLA_UNSPEC", Bytes),
    ("IFLA_ADDRESS", Mac),
    ("IFLA_BROADCAST", Mac),
    ("IFLA_IFNAME", Text),
    ("IFLA_MTU", Number),
    ("IFLA_LINK", Number),
    ("IFLA_QDISC", Text),
    ("IFLA_STATS", Bytes),
    ("IFLA_COST", Bytes),
    ("IFLA_PRIORITY", Bytes),
    ("IFLA_MASTER", Number),
    ("IFLA_WIRELESS", Bytes),
    ("IFLA_PROTINFO", Bytes),
    ("IFLA_TXQLEN", Number),
    ("IFLA_MAP", Bytes),
    ("IFLA_WEIGHT", Number),
    ("IFLA_OPERSTATE", Named(OPER_STATES)),
    ("IFLA_LINKMODE", Number),
    ("IFLA_LINKINFO", Nest(LINK_INFO)),
    ("IFLA_NET_NS_PID", Number),
    ("IFLA_IFALIAS", Text),
    ("IFLA_NUM_VF", Number),
    ("IFLA_VFINFO_LIST", Bytes),
    ("IFLA_STATS64", Bytes),
    ("IFLA_VF_PORTS", Bytes),
    ("IFLA_PORT_SELF", Bytes),
    ("IFLA_AF_SPEC", Nest(LINK_FAMILIES)),
    ("IFLA_GROUP", Number),
    ("IFLA_NET_NS_FD", Number),
    ("IFLA_EXT_MASK", Number),
    ("IFLA_PROMISCUITY", Number),
    ("IFLA_NUM_TX_QUEUES", Number),
    ("IFLA_NUM_RX_QUEUES", Number),
    ("IFLA_CARRIER", Number),
    ("IFLA_PHYS_PORT_ID", Bytes),
    ("IFLA_CARRIER_CHANGES", Number),
    ("IFLA_PHYS_SWITCH_ID", Bytes),
    ("IFLA_LINK_NETNSID", Signed),
    ("IFLA_PHYS_PORT_NAME", Text),
    ("IFLA_PROTO_DOWN", Number),
    ("IFLA_GSO_MAX_SEGS", Number),
    ("IFLA_GSO_MAX_SIZE", Number),
    ("IFLA_PAD", Bytes),
    ("IFLA_XDP", Nest(LINK_XDP)),
    ("IFLA_EVENT", Number),
    ("IFLA_NEW_NETNSID", Signed),
    ("IFLA_TARGET_NETNSID", Signed),
    ("IFLA_CARRIER_UP_COUNT", Number),
    ("IFLA_CARRIER_DOWN_COUNT", Number),
    ("IFLA_NEW_IFINDEX", Signed),
    ("IFLA_MIN_MTU", Number),
    ("IFLA_MAX_MTU", Number),
    ("IFLA_PROP_LIST", Nest(LINK_PROPERTIES)),
    ("IFLA_ALT_IFNAME", Text),
    ("IFLA_PERM_ADDRESS", Mac),
    ("IFLA_PROTO_DOWN_REASON", Bytes),
    ("IFLA_PARENT_DEV_NAME", Text),
    ("IFLA_PARENT_DEV_BUS_NAME", Text),
    ("IFLA_GRO_MAX_SIZE", Number),
    ("IFLA_TSO_MAX_SIZE", Number),
    ("IFLA_TSO_MAX_SEGS", Number),
    ("IFLA_ALLMULTI", Number),
    ("IFLA_DEVLINK_PORT", Bytes),
    ("IFLA_GSO_IPV4_MAX_SIZE", Number),
    ("IFLA_GRO_IPV4_MAX_SIZE", Number),
    ("IFLA_DPLL_PIN", Bytes),
    ("IFLA_MAX_PACING_OFFLOAD_HORIZON", Number),
    ("IFLA_NETNS_IMMUTABLE", Number),
    ("IFLA_HEADROOM", Number),
    ("IFLA_TAILROOM", Number),
];

/// Within `IFLA_PROP_LIST` attributes have the same numbers.
const LINK_PROPERTIES: Table = &{
    let mut table = [("", Bytes); 54];
    table[53] = ("IFLA_ALT_IFNAME", Text);
    table
};

/// `IFLA_XDP_…` (linux/if_link.h)
const LINK_XDP: Table = &[
    ("IFLA_XDP_UNSPEC", Bytes),
    ("IFLA_XDP_FD", Signed),
    ("IFLA_XDP_ATTACHED", Number),
    ("IFLA_XDP_FLAGS", Number),
    ("IFLA_XDP_PROG_ID", Number),
];

/// `IFLA_INFO_…` (linux/if_link.h)
const LINK_INFO: Table = &[
    ("IFLA_INFO_UNSPEC", Bytes),
    ("IFLA_INFO_KIND", Name),
    (
        "IFLA_INFO_DATA",
        Data(&[
            ("bridge", BRIDGE),
            ("veth", VETH),
            ("macvlan", MACVLAN),
            ("ipvlan", IPVLAN),
            ("vlan", VLAN),
            ("tun", TUN),
        ]),
    ),
    ("IFLA_INFO_XSTATS", Bytes),
    ("IFLA_INFO_SLAVE_KIND", Name),
    ("IFLA_INFO_SLAVE_DATA", Data(&[("bridge", BRIDGE_PORT)])),
];

/// `VETH_INFO_…` (linux/veth.h)
const VETH: Table = &[("VETH_INFO_UNSPEC", Bytes), ("VETH_INFO_PEER", Peer)];

/// `MACVLAN_MODE_…` (linux/if_link.h), a bit each.
const MACVLAN_MODES: &[&str] = &["PRIVATE", "VEPA", "BRIDGE", "PASSTHRU", "SOURCE"];

/// `IFLA_MACVLAN_…` (linux/if_link.h)
const MACVLAN: Table = &[
    ("IFLA_MACVLAN_UNSPEC", Bytes),
    ("IFLA_MACVLAN_MODE", Bits(MACVLAN_MODES)),
    ("IFLA_MACVLAN_FLAGS", Number),
    ("IFLA_MACVLAN_MACADDR_MODE", Number),
    ("IFLA_MACVLAN_MACADDR", Mac),
    ("IFLA_MACVLAN_MACADDR_DATA", Bytes),
    ("IFLA_MACVLAN_MACADDR_COUNT", Number),
    ("IFLA_MACVLAN_BC_QUEUE_LEN", Number),
    ("IFLA_MACVLAN_BC_QUEUE_LEN_USED", Number),
    ("IFLA_MACVLAN_BC_CUTOFF", Signed),
];

/// `IFLA_IPVLAN_…` (linux/if_link.h)
const IPVLAN: Table = &[
    ("IFLA_IPVLAN_UNSPEC", Bytes),
    ("IFLA_IPVLAN_MODE", Named(&["L2", "L3", "L3S"])),
    ("IFLA_IPVLAN_FLAGS", Number),
];

/// `IFLA_VLAN_…` (linux/if_link.h)
const VLAN: Table = &[
    ("IFLA_VLAN_UNSPEC", Bytes),
    ("IFLA_VLAN_ID", Number),
    ("IFLA_VLAN_FLAGS", Bytes),
    ("IFLA_VLAN_EGRESS_QOS", Bytes),
    ("IFLA_VLAN_INGRESS_QOS", Bytes),
    ("IFLA_VLAN_PROTOCOL", Be),
];

/// `IFLA_TUN_…` (linux/if_link.h)
const TUN: Table = &[
    ("IFLA_TUN_UNSPEC", Bytes),
    ("IFLA_TUN_OWNER", Number),
    ("IFLA_TUN_GROUP", Number),
    ("IFLA_TUN_TYPE", Named(&["0", "TUN", "TAP"])),
    ("IFLA_TUN_PI", Number),
    ("IFLA_TUN_VNET_HDR", Number),
    ("IFLA_TUN_PERSIST", Number),
    ("IFLA_TUN_MULTI_QUEUE", Number),
    ("IFLA_TUN_NUM_QUEUES", Number),
    ("IFLA_TUN_NUM_DISABLED_QUEUES", Number),
];

/// `IFLA_BR_…` (linux/if_link.h)
const BRIDGE: Table = &[
    ("IFLA_BR_UNSPEC", Bytes),
    ("IFLA_BR_FORWARD_DELAY", Number),
    ("IFLA_BR_HELLO_TIME", Number),
    ("IFLA_BR_MAX_AGE", Number),
    ("IFLA_BR_AGEING_TIME", Number),
    ("IFLA_BR_STP_STATE", Number),
    ("IFLA_BR_PRIORITY", Number),
    ("IFLA_BR_VLAN_FILTERING", Number),
    ("IFLA_BR_VLAN_PROTOCOL", Be),
    ("IFLA_BR_GROUP_FWD_MASK", Number),
    ("IFLA_BR_ROOT_ID", Bytes),
    ("IFLA_BR_BRIDGE_ID", Bytes),
    ("IFLA_BR_ROOT_PORT", Number),
    ("IFLA_BR_ROOT_PATH_COST", Number),
    ("IFLA_BR_TOPOLOGY_CHANGE", Number),
    ("IFLA_BR_TOPOLOGY_CHANGE_DETECTED", Number),
    ("IFLA_BR_HELLO_TIMER", Number),
    ("IFLA_BR_TCN_TIMER", Number),
    ("IFLA_BR_TOPOLOGY_CHANGE_TIMER", Number),
    ("IFLA_BR_GC_TIMER", Number),
    ("IFLA_BR_GROUP_ADDR", Mac),
    ("IFLA_BR_FDB_FLUSH", Flag),
    ("IFLA_BR_MCAST_ROUTER", Number),
    ("IFLA_BR_MCAST_SNOOPING", Number),
    ("IFLA_BR_MCAST_QUERY_USE_IFADDR", Number),
    ("IFLA_BR_MCAST_QUERIER", Number),
    ("IFLA_BR_MCAST_HASH_ELASTICITY", Number),
    ("IFLA_BR_MCAST_HASH_MAX", Number),
    ("IFLA_BR_MCAST_LAST_MEMBER_CNT", Number),
    ("IFLA_BR_MCAST_STARTUP_QUERY_CNT", Number),
    ("IFLA_BR_MCAST_LAST_MEMBER_INTVL", Number),
    ("IFLA_BR_MCAST_MEMBERSHIP_INTVL", Number),
    ("IFLA_BR_MCAST_QUERIER_INTVL", Number),
    ("IFLA_BR_MCAST_QUERY_INTVL", Number),
    ("IFLA_BR_MCAST_QUERY_RESPONSE_INTVL", Number),
    ("IFLA_BR_MCAST_STARTUP_QUERY_INTVL", Number),
    ("IFLA_BR_NF_CALL_IPTABLES", Number),
    ("IFLA_BR_NF_CALL_IP6TABLES", Number),
    ("IFLA_BR_NF_CALL_ARPTABLES", Number),
    ("IFLA_BR_VLAN_DEFAULT_PVID", Number),
    ("IFLA_BR_PAD", Bytes),
    ("IFLA_BR_VLAN_STATS_ENABLED", Number),
    ("IFLA_BR_MCAST_STATS_ENABLED", Number),
    ("IFLA_BR_MCAST_IGMP_VERSION", Number),
    ("IFLA_BR_MCAST_MLD_VERSION", Number),
    ("IFLA_BR_VLAN_STATS_PER_PORT", Number),
    ("IFLA_BR_MULTI_BOOLOPT", Bytes),
    ("IFLA_BR_MCAST_QUERIER_STATE", Bytes),
    ("IFLA_BR_FDB_N_LEARNED", Number),
    ("IFLA_BR_FDB_MAX_LEARNED", Number),
];

/// `IFLA_BRPORT_…` (linux/if_link.h)
const BRIDGE_PORT: Table = &[
    ("IFLA_BRPORT_UNSPEC", Bytes),
    ("IFLA_BRPORT_STATE", Named(PORT_STATES)),
    ("IFLA_BRPORT_PRIORITY", Number),
    ("IFLA_BRPORT_COST", Number),
    ("IFLA_BRPORT_MODE", Number),
    ("IFLA_BRPORT_GUARD", Number),
    ("IFLA_BRPORT_PROTECT", Number),
    ("IFLA_BRPORT_FAST_LEAVE", Number),
    ("IFLA_BRPORT_LEARNING", Number),
    ("IFLA_BRPORT_UNICAST_FLOOD", Number),
    ("IFLA_BRPORT_PROXYARP", Number),
    ("IFLA_BRPORT_LEARNING_SYNC", Number),
    ("IFLA_BRPORT_PROXYARP_WIFI", Number),
    ("IFLA_BRPORT_ROOT_ID", Bytes),
    ("IFLA_BRPORT_BRIDGE_ID", Bytes),
    ("IFLA_BRPORT_DESIGNATED_PORT", Number),
    ("IFLA_BRPORT_DESIGNATED_COST", Number),
    ("IFLA_BRPORT_ID", Number),
    ("IFLA_BRPORT_NO", Number),
    ("IFLA_BRPORT_TOPOLOGY_CHANGE_ACK", Number),
    ("IFLA_BRPORT_CONFIG_PENDING", Number),
    ("IFLA_BRPORT_MESSAGE_AGE_TIMER", Number),
    ("IFLA_BRPORT_FORWARD_DELAY_TIMER", Number),
    ("IFLA_BRPORT_HOLD_TIMER", Number),
    ("IFLA_BRPORT_FLUSH", Flag),
    ("IFLA_BRPORT_MULTICAST_ROUTER", Number),
    ("IFLA_BRPORT_PAD", Bytes),
    ("IFLA_BRPORT_MCAST_FLOOD", Number),
    ("IFLA_BRPORT_MCAST_TO_UCAST", Number),
    ("IFLA_BRPORT_VLAN_TUNNEL", Number),
    ("IFLA_BRPORT_BCAST_FLOOD", Number),
    ("IFLA_BRPORT_GROUP_FWD_MASK", Number),
    ("IFLA_BRPORT_NEIGH_SUPPRESS", Number),
    ("IFLA_BRPORT_ISOLATED", Number),
    ("IFLA_BRPORT_BACKUP_PORT", Number),
    ("IFLA_BRPORT_MRP_RING_OPEN", Number),
    ("IFLA_BRPORT_MRP_IN_OPEN", Number),
    ("IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT", Number),
    ("IFLA_BRPORT_MCAST_EHT_HOSTS_CNT", Number),
    ("IFLA_BRPORT_LOCKED", Number),
    ("IFLA_BRPORT_MAB", Number),
    ("IFLA_BRPORT_MCAST_N_GROUPS", Number),
    ("IFLA_BRPORT_MCAST_MAX_GROUPS", Number),
    ("IFLA_BRPORT_NEIGH_VLAN_SUPPRESS", Number),
    ("IFLA_BRPORT_BACKUP_NHID", Number),
];

/// The families within `IFLA_AF_SPEC`.
const LINK_FAMILIES: Table = &[
    ("AF_UNSPEC", Bytes),
    ("AF_UNIX", Bytes),
    ("AF_INET", Nest(LINK_INET)),
    ("AF_AX25", Bytes),
    ("AF_IPX", Bytes),
    ("AF_APPLETALK", Bytes),
    ("AF_NETROM", Bytes),
    ("AF_BRIDGE", Bytes),
    ("AF_ATMPVC", Bytes),
    ("AF_X25", Bytes),
    ("AF_INET6", Nest(LINK_INET6)),
];

/// `IFLA_INET_…` (linux/if_link.h). The kernel tells all settings as an array, which is no nest.
const LINK_INET: Table = &[("IFLA_INET_UNSPEC", Bytes), ("IFLA_INET_CONF", Nest(IPV4_DEVCONF))];

/// `IPV4_DEVCONF_…` (linux/ip.h)
const IPV4_DEVCONF: Table = &[
    ("", Bytes),
    ("IPV4_DEVCONF_FORWARDING", Number),
    ("IPV4_DEVCONF_MC_FORWARDING", Number),
    ("IPV4_DEVCONF_PROXY_ARP", Number),
    ("IPV4_DEVCONF_ACCEPT_REDIRECTS", Number),
    ("IPV4_DEVCONF_SECURE_REDIRECTS", Number),
    ("IPV4_DEVCONF_SEND_REDIRECTS", Number),
    ("IPV4_DEVCONF_SHARED_MEDIA", Number),
    ("IPV4_DEVCONF_RP_FILTER", Number),
    ("IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE", Number),
    ("IPV4_DEVCONF_BOOTP_RELAY", Number),
    ("IPV4_DEVCONF_LOG_MARTIANS", Number),
    ("IPV4_DEVCONF_TAG", Number),
    ("IPV4_DEVCONF_ARPFILTER", Number),
    ("IPV4_DEVCONF_MEDIUM_ID", Number),
    ("IPV4_DEVCONF_NOXFRM", Number),
    ("IPV4_DEVCONF_NOPOLICY", Number),
    ("IPV4_DEVCONF_FORCE_IGMP_VERSION", Number),
    ("IPV4_DEVCONF_ARP_ANNOUNCE", Number),
    ("IPV4_DEVCONF_ARP_IGNORE", Number),
    ("IPV4_DEVCONF_PROMOTE_SECONDARIES", Number),
    ("IPV4_DEVCONF_ARP_ACCEPT", Number),
    ("IPV4_DEVCONF_ARP_NOTIFY", Number),
];

/// `IFLA_INET6_…` (linux/if_link.h)
const LINK_INET6: Table = &[
    ("IFLA_INET6_UNSPEC", Bytes),
    ("IFLA_INET6_FLAGS", Number),
    ("IFLA_INET6_CONF", Bytes),
    ("IFLA_INET6_STATS", Bytes),
    ("IFLA_INET6_MCAST", Bytes),
    ("IFLA_INET6_CACHEINFO", Bytes),
    ("IFLA_INET6_ICMP6STATS", Bytes),
    ("IFLA_INET6_TOKEN", Ip),
    ("IFLA_INET6_ADDR_GEN_MODE", Named(ADDR_GEN_MODES)),
    ("IFLA_INET6_RA_MTU", Number),
];

/// `IFA_…` (linux/if_addr.h)
const ADDRESS: Table = &[
    ("IFA_UNSPEC", Bytes),
    ("IFA_ADDRESS", Ip),
    ("IFA_LOCAL", Ip),
    ("IFA_LABEL", Text),
    ("IFA_BROADCAST", Ip),
    ("IFA_ANYCAST", Ip),
    ("IFA_CACHEINFO", Bytes),
    ("IFA_MULTICAST", Ip),
    ("IFA_FLAGS", Bits(ADDRESS_FLAGS)),
    ("IFA_RT_PRIORITY", Number),
    ("IFA_TARGET_NETNSID", Signed),
    ("IFA_PROTO", Number),
];

/// `RTA_…` (linux/rtnetlink.h)
pub const ROUTES: Table = &[
    ("RTA_UNSPEC", Bytes),
    ("RTA_DST", Ip),
    ("RTA_SRC", Ip),
    ("RTA_IIF", Number),
    ("RTA_OIF", Number),
    ("RTA_GATEWAY", Ip),
    ("RTA_PRIORITY", Number),
    ("RTA_PREFSRC", Ip),
    ("RTA_METRICS", Nest(ROUTE_METRICS)),
    ("RTA_MULTIPATH", NextHops),
    ("RTA_PROTOINFO", Bytes),
    ("RTA_FLOW", Number),
    ("RTA_CACHEINFO", Bytes),
    ("RTA_SESSION", Bytes),
    ("RTA_MP_ALGO", Bytes),
    ("RTA_TABLE", Number),
    ("RTA_MARK", Number),
    ("RTA_MFC_STATS", Bytes),
    ("RTA_VIA", Bytes),
    ("RTA_NEWDST", Bytes),
    ("RTA_PREF", Number),
    ("RTA_ENCAP_TYPE", Number),
    ("RTA_ENCAP", Bytes),
    ("RTA_EXPIRES", Number),
    ("RTA_PAD", Bytes),
    ("RTA_UID", Number),
    ("RTA_TTL_PROPAGATE", Number),
    ("RTA_IP_PROTO", Number),
    ("RTA_SPORT", Be),
    ("RTA_DPORT", Be),
    ("RTA_NH_ID", Number),
];

/// `RTAX_…` (linux/rtnetlink.h)
const ROUTE_METRICS: Table = &[
    ("RTAX_UNSPEC", Bytes),
    ("RTAX_LOCK", Number),
    ("RTAX_MTU", Number),
    ("RTAX_WINDOW", Number),
    ("RTAX_RTT", Number),
    ("RTAX_RTTVAR", Number),
    ("RTAX_SSTHRESH", Number),
    ("RTAX_CWND", Number),
    ("RTAX_ADVMSS", Number),
    ("RTAX_REORDERING", Number),
    ("RTAX_HOPLIMIT", Number),
    ("RTAX_INITCWND", Number),
    ("RTAX_FEATURES", Number),
    ("RTAX_RTO_MIN", Number),
    ("RTAX_INITRWND", Number),
    ("RTAX_QUICKACK", Number),
    ("RTAX_CC_ALGO", Text),
    ("RTAX_FASTOPEN_NO_COOKIE", Number),
];

/// `NFTA_TABLE_…` (linux/netfilter/nf_tables.h, as all below)
const NFT_TABLE: Table = &[
    ("NFTA_TABLE_UNSPEC", Bytes),
    ("NFTA_TABLE_NAME", Text),
    ("NFTA_TABLE_FLAGS", Be),
    ("NFTA_TABLE_USE", Be),
    ("NFTA_TABLE_HANDLE", Be),
    ("NFTA_TABLE_PAD", Bytes),
    ("NFTA_TABLE_USERDATA", Bytes),
    ("NFTA_TABLE_OWNER", Be),
];

const NFT_CHAIN: Table = &[
    ("NFTA_CHAIN_UNSPEC", Bytes),
    ("NFTA_CHAIN_TABLE", Text),
    ("NFTA_CHAIN_HANDLE", Be),
    ("NFTA_CHAIN_NAME", Text),
    ("NFTA_CHAIN_HOOK", Nest(NFT_HOOK)),
    ("NFTA_CHAIN_POLICY", BeNamed(VERDICTS)),
    ("NFTA_CHAIN_USE", Be),
    ("NFTA_CHAIN_TYPE", Text),
    ("NFTA_CHAIN_COUNTERS", Bytes),
    ("NFTA_CHAIN_PAD", Bytes),
    ("NFTA_CHAIN_FLAGS", Be),
    ("NFTA_CHAIN_ID", Be),
    ("NFTA_CHAIN_USERDATA", Bytes),
];

const NFT_HOOK: Table = &[
    ("NFTA_HOOK_UNSPEC", Bytes),
    ("NFTA_HOOK_HOOKNUM", Be),
    ("NFTA_HOOK_PRIORITY", BeSigned),
    ("NFTA_HOOK_DEV", Text),
    ("NFTA_HOOK_DEVS", Bytes),
];

const NFT_RULE: Table = &[
    ("NFTA_RULE_UNSPEC", Bytes),
    ("NFTA_RULE_TABLE", Text),
    ("NFTA_RULE_CHAIN", Text),
    ("NFTA_RULE_HANDLE", Be),
    ("NFTA_RULE_EXPRESSIONS", Nest(NFT_EXPRESSIONS)),
    ("NFTA_RULE_COMPAT", Bytes),
    ("NFTA_RULE_POSITION", Be),
    ("NFTA_RULE_USERDATA", Bytes),
    ("NFTA_RULE_PAD", Bytes),
    ("NFTA_RULE_ID", Be),
    ("NFTA_RULE_POSITION_ID", Be),
    ("NFTA_RULE_CHAIN_ID", Be),
];

const NFT_EXPRESSIONS: Table =
    &[("NFTA_LIST_UNSPEC", Bytes), ("NFTA_LIST_ELEM", Nest(NFT_EXPRESSION))];

const NFT_EXPRESSION: Table = &[
    ("NFTA_EXPR_UNSPEC", Bytes),
    ("NFTA_EXPR_NAME", Name),
    (
        "NFTA_EXPR_DATA",
        Data(&[
            ("bitwise", NFT_BITWISE),
            ("cmp", NFT_CMP),
            ("immediate", NFT_IMMEDIATE),
            ("lookup", NFT_LOOKUP),
            ("masq", NFT_MASQ),
            ("meta", NFT_META),
            ("payload", NFT_PAYLOAD),
        ]),
    ),
];

/// `NF_…` (linux/netfilter.h)
const VERDICTS: &[&str] = &["NF_DROP", "NF_ACCEPT"];

/// `NFT_META_…`
const META_KEYS: &[&str] = &[
    "LEN",
    "PROTOCOL",
    "PRIORITY",
    "MARK",
    "IIF",
    "OIF",
    "IIFNAME",
    "OIFNAME",
    "IIFTYPE",
    "OIFTYPE",
    "SKUID",
    "SKGID",
    "NFTRACE",
    "RTCLASSID",
    "SECMARK",
    "NFPROTO",
    "L4PROTO",
];

/// `NFT_PAYLOAD_…_HEADER`
const PAYLOAD_BASES: &[&str] = &["LL", "NETWORK", "TRANSPORT", "INNER"];

/// `NFT_CMP_…`
const COMPARISONS: &[&str] = &["EQ", "NEQ", "LT", "LTE", "GT", "GTE"];

const NFT_META: Table = &[
    ("NFTA_META_UNSPEC", Bytes),
    ("NFTA_META_DREG", Be),
    ("NFTA_META_KEY", BeNamed(META_KEYS)),
    ("NFTA_META_SREG", Be),
];

const NFT_PAYLOAD: Table = &[
    ("NFTA_PAYLOAD_UNSPEC", Bytes),
    ("NFTA_PAYLOAD_DREG", Be),
    ("NFTA_PAYLOAD_BASE", BeNamed(PAYLOAD_BASES)),
    ("NFTA_PAYLOAD_OFFSET", Be),
    ("NFTA_PAYLOAD_LEN", Be),
    ("NFTA_PAYLOAD_SREG", Be),
    ("NFTA_PAYLOAD_CSUM_TYPE", Be),
    ("NFTA_PAYLOAD_CSUM_OFFSET", Be),
    ("NFTA_PAYLOAD_CSUM_FLAGS", Be),
];

const NFT_BITWISE: Table = &[
    ("NFTA_BITWISE_UNSPEC", Bytes),
    ("NFTA_BITWISE_SREG", Be),
    ("NFTA_BITWISE_DREG", Be),
    ("NFTA_BITWISE_LEN", Be),
    ("NFTA_BITWISE_MASK", Nest(NFT_DATA)),
    ("NFTA_BITWISE_XOR", Nest(NFT_DATA)),
    ("NFTA_BITWISE_OP", Be),
    ("NFTA_BITWISE_DATA", Nest(NFT_DATA)),
];

const NFT_CMP: Table = &[
    ("NFTA_CMP_UNSPEC", Bytes),
    ("NFTA_CMP_SREG", Be),
    ("NFTA_CMP_OP", BeNamed(COMPARISONS)),
    ("NFTA_CMP_DATA", Nest(NFT_DATA)),
];

const NFT_LOOKUP: Table = &[
    ("NFTA_LOOKUP_UNSPEC", Bytes),
    ("NFTA_LOOKUP_SET", Text),
    ("NFTA_LOOKUP_SREG", Be),
    ("NFTA_LOOKUP_DREG", Be),
    ("NFTA_LOOKUP_SET_ID", Be),
    ("NFTA_LOOKUP_FLAGS", Be),
];

const NFT_MASQ: Table = &[
    ("NFTA_MASQ_UNSPEC", Bytes),
    ("NFTA_MASQ_FLAGS", Be),
    ("NFTA_MASQ_REG_PROTO_MIN", Be),
    ("NFTA_MASQ_REG_PROTO_MAX", Be),
];

const NFT_IMMEDIATE: Table = &[
    ("NFTA_IMMEDIATE_UNSPEC", Bytes),
    ("NFTA_IMMEDIATE_DREG", Be),
    ("NFTA_IMMEDIATE_DATA", Nest(NFT_DATA)),
];

const NFT_DATA: Table = &[
    ("NFTA_DATA_UNSPEC", Bytes),
    ("NFTA_DATA_VALUE", Bytes),
    ("NFTA_DATA_VERDICT", Nest(NFT_VERDICT)),
];

const NFT_VERDICT: Table = &[
    ("NFTA_VERDICT_UNSPEC", Bytes),
    ("NFTA_VERDICT_CODE", BeNamed(VERDICTS)),
    ("NFTA_VERDICT_CHAIN", Text),
    ("NFTA_VERDICT_CHAIN_ID", Be),
];

const NFT_SET: Table = &[
    ("NFTA_SET_UNSPEC", Bytes),
    ("NFTA_SET_TABLE", Text),
    ("NFTA_SET_NAME", Text),
    ("NFTA_SET_FLAGS", Be),
    ("NFTA_SET_KEY_TYPE", Be),
    ("NFTA_SET_KEY_LEN", Be),
    ("NFTA_SET_DATA_TYPE", Be),
    ("NFTA_SET_DATA_LEN", Be),
    ("NFTA_SET_POLICY", Be),
    ("NFTA_SET_DESC", Nest(NFT_SET_DESC)),
    ("NFTA_SET_ID", Be),
    ("NFTA_SET_TIMEOUT", Be),
    ("NFTA_SET_GC_INTERVAL", Be),
    ("NFTA_SET_USERDATA", Bytes),
    ("NFTA_SET_PAD", Bytes),
    ("NFTA_SET_OBJ_TYPE", Be),
    ("NFTA_SET_HANDLE", Be),
    ("NFTA_SET_EXPR", Nest(NFT_EXPRESSION)),
    ("NFTA_SET_EXPRESSIONS", Nest(NFT_EXPRESSIONS)),
    ("NFTA_SET_TYPE", Text),
    ("NFTA_SET_COUNT", Be),
];

const NFT_SET_DESC: Table =
    &[("NFTA_SET_DESC_UNSPEC", Bytes), ("NFTA_SET_DESC_SIZE", Be), ("NFTA_SET_DESC_CONCAT", Bytes)];

const NFT_ELEMENTS: Table = &[
    ("NFTA_SET_ELEM_LIST_UNSPEC", Bytes),
    ("NFTA_SET_ELEM_LIST_TABLE", Text),
    ("NFTA_SET_ELEM_LIST_SET", Text),
    (
        "NFTA_SET_ELEM_LIST_ELEMENTS",
        Nest(&[("NFTA_LIST_UNSPEC", Bytes), ("NFTA_LIST_ELEM", Nest(NFT_ELEMENT))]),
    ),
    ("NFTA_SET_ELEM_LIST_SET_ID", Be),
];

const NFT_ELEMENT: Table = &[
    ("NFTA_SET_ELEM_UNSPEC", Bytes),
    ("NFTA_SET_ELEM_KEY", Nest(NFT_DATA)),
    ("NFTA_SET_ELEM_DATA", Nest(NFT_DATA)),
    ("NFTA_SET_ELEM_FLAGS", Be),
    ("NFTA_SET_ELEM_TIMEOUT", Be),
    ("NFTA_SET_ELEM_EXPIRATION", Be),
    ("NFTA_SET_ELEM_USERDATA", Comment),
    ("NFTA_SET_ELEM_EXPR", Nest(NFT_EXPRESSION)),
    ("NFTA_SET_ELEM_PAD", Bytes),
    ("NFTA_SET_ELEM_OBJREF", Text),
    ("NFTA_SET_ELEM_KEY_END", Nest(NFT_DATA)),
    ("NFTA_SET_ELEM_EXPRESSIONS", Nest(NFT_EXPRESSIONS)),
];
