//! Links: `RTM_NEWLINK`, `RTM_GETLINK`, `RTM_DELLINK` (rtnetlink(7), linux/if_link.h).

mod child;
mod elsewhere;
mod group;
mod names;

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::error::Error;
use super::request::{Query, Request};
use super::socket::{Channel, Dump, Socket};
use super::wire::{Attributes, Encoder, Flags, Malformed, Message};
use crate::net::Mac;

pub use child::{Child, IpvlanMode, MacvlanMode, NewChild, probe};
pub use elsewhere::get_in;
pub use group::{DeleteGroup, SetGroup};
pub use names::{AddAltName, DeleteAltName, Move, Rename, RenameIfFree};

/// Length of `struct ifinfomsg` (linux/rtnetlink.h).
const HEADER: usize = 16;
/// `RTEXT_FILTER_SKIP_STATS` (linux/rtnetlink.h): leave IPv6's counters out of the answer; the link's own
/// come all the same.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// `VETH_INFO_PEER` (linux/veth.h).
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_BR_MCAST_SNOOPING` (linux/if_link.h).
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
/// `IFLA_BR_VLAN_FILTERING`, `IFLA_BR_VLAN_DEFAULT_PVID` (linux/if_link.h).
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
/// `IFLA_BRPORT_MODE`, hairpin; `IFLA_BRPORT_ISOLATED` (linux/if_link.h).
const IFLA_BRPORT_MODE: u16 = 4;
/// `IFLA_BRPORT_BRIDGE_ID`: priority and link-layer address of the designated bridge, two bytes and six.
const IFLA_BRPORT_BRIDGE_ID: u16 = 14;
const IFLA_BRPORT_ISOLATED: u16 = 33;
/// `IFLA_INET_CONF` (linux/if_link.h): IPv4 settings of the interface, by number.
const IFLA_INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_ARP_NOTIFY` (linux/ip.h).
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
/// `IFLA_INET6_CONF` (linux/if_link.h): IPv6 settings of the interface, an array of 32-bit numbers.
const IFLA_INET6_CONF: u16 = 2;
/// `DEVCONF_ACCEPT_RA` (linux/ipv6.h) as a part of that array.
const ACCEPT_RA: std::ops::Range<usize> = 12..16;
/// `IFLA_TUN_TYPE` (linux/if_link.h): [`TYPE_TAP`], or that of a link without Ethernet.
const IFLA_TUN_TYPE: u16 = 3;
/// `IFLA_TUN_NUM_QUEUES`, `IFLA_TUN_NUM_DISABLED_QUEUES` (linux/if_link.h): of a tun with many queues, those that
/// programs have open, in use and out of use.
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
/// `IFF_TAP` (linux/if_tun.h)
const TYPE_TAP: u32 = libc::IFF_TAP.cast_unsigned();
/// `IF_OPER_UP` (linux/if.h, RFC 2863).
const IF_OPER_UP: u8 = 6;
/// Index of the loopback interface in every namespace: `LOOPBACK_IFINDEX` (net/flow.h).
pub const LOOPBACK_INDEX: u32 = 1;
/// The longest alias: `IFALIASZ` (linux/if.h) less the terminating NUL.
pub const ALIAS_MAX: usize = 255;

/// `struct ifinfomsg`: family, a pad byte, device type, index, flags, mask of flags to change.
fn header(out: &mut Encoder, index: u32, flags: u32, change: u32) {
    out.raw(&[0; 4]);
    out.raw(&index.to_ne_bytes());
    out.raw(&flags.to_ne_bytes());
    out.raw(&change.to_ne_bytes());
}

/// The families as types of attributes within `IFLA_AF_SPEC`.
#[expect(clippy::cast_possible_truncation, reason = "address families are below 256")]
const IPV4: u16 = libc::AF_INET as u16;
#[expect(clippy::cast_possible_truncation, reason = "address families are below 256")]
const IPV6: u16 = libc::AF_INET6 as u16;

const IFF_UP: u32 = libc::IFF_UP as u32;
const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;
const IFF_ALLMULTI: u32 = libc::IFF_ALLMULTI as u32;
const IFF_NOARP: u32 = libc::IFF_NOARP as u32;

/// Which link a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// The link of this index.
    Index(u32),
    /// The link of this name.
    Name(&'a str),
}

impl Target<'_> {
    fn header(self, out: &mut Encoder, flags: u32, change: u32) {
        match self {
            Target::Index(index) => header(out, index, flags, change),
            Target::Name(name) => {
                header(out, 0, flags, change);
                out.put(libc::IFLA_IFNAME, name);
            }
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Index(index) => write!(f, "link {index}"),
            Target::Name(name) => write!(f, "link {name:?}"),
        }
    }
}

/// A link as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `IFLA_ALT_IFNAME`: its other names, the oldest first, since Linux 5.5.
    pub altnames: Vec<String>,
    /// `IFF_UP`: administratively up.
    pub up: bool,
    /// `IFF_PROMISC`, as set by an administrator.
    pub promiscuous: bool,
    /// `IFF_ALLMULTI`, as set by an administrator.
    pub all_multicast: bool,
    /// `IFF_NOARP`
    pub no_arp: bool,
    /// Operational state is up (RFC 2863): carrier is there and the link forwards.
    pub operational: bool,
    /// Link-layer address, if it is an Ethernet address.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// `bridge`, `veth`, …; none of a physical device.
    pub kind: Option<String>,
    /// Index of the link this one is a port of.
    pub master: Option<u32>,
    /// Index of a veth's other end, in that end's namespace; of a macvlan, ipvlan or vlan that of the link
    /// below.
    pub peer: Option<u32>,
    /// Number by which our namespace knows the one that the peer is in, if that is another.
    pub peer_netns: Option<i32>,
    /// There is a carrier: what is sent may reach somebody.
    pub carrier: bool,
    /// Of a macvlan, ipvlan, vlan or tun: `IFLA_MACVLAN_MODE`, `IFLA_IPVLAN_MODE`, `IFLA_VLAN_ID` or
    /// `IFLA_TUN_TYPE`.
    pub variant: Option<u32>,
    /// `IFLA_IFALIAS`.
    pub alias: Option<String>,
    /// Of a physical device: `IFLA_PARENT_DEV_NAME`, the device that it is a function of, such as a PCI address,
    /// since Linux 5.14.
    pub parent: Option<String>,
    /// `IFLA_PARENT_DEV_BUS_NAME`: the bus that this one is on, such as `pci`.
    pub bus: Option<String>,
    /// It heeds IPv6 router advertisements (sysctl `accept_ra` is not 0).
    pub accepts_router_advertisements: bool,
    /// What has passed through it.
    pub traffic: Traffic,
    /// Of a tun with many queues: how many of them programs have open.
    pub queues: u32,
    /// Of a bridge: VLAN filtering is on.
    pub vlan_filtering: bool,
    /// Of a bridge: the VLAN that a new port is in, native; 0 for none. None if the kernel can't filter VLANs.
    pub default_pvid: Option<u16>,
    /// Of a bridge's port.
    pub port: PortFlags,
    /// Of a bridge's port: the link-layer address of its bridge, as the port's designated bridge. None if the
    /// kernel tells none, as for a bridge that has kept the address that it was created with.
    pub bridge_mac: Option<Mac>,
}

/// Traffic since a link was made: `struct rtnl_link_stats64` (linux/if_link.h), in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// `rx_bytes`
    pub received: u64,
    /// `tx_bytes`
    pub sent: u64,
}

impl Traffic {
    /// Packets received and sent come first. Longer structures are newer kernels'.
    fn decode(payload: &[u8]) -> Option<Self> {
        let bytes = payload.get(16..)?;
        let (received, bytes) = bytes.split_first_chunk()?;
        let sent = bytes.first_chunk()?;
        Some(Self { received: u64::from_ne_bytes(*received), sent: u64::from_ne_bytes(*sent) })
    }
}

/// Settings of a bridge's port.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortFlags {
    /// A frame may leave through the port it came in by.
    pub hairpin: bool,
    /// Frames are not exchanged with other isolated ports.
    pub isolated: bool,
}

impl fmt::Display for PortFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |on| if on { "on" } else { "off" };
        write!(f, "hairpin {}, isolated {}", state(self.hairpin), state(self.isolated))
    }
}

impl Link {
    fn decode(message: &Message<'_>) -> Result<Self, Malformed> {
        if message.kind != libc::RTM_NEWLINK {
            return Err(Malformed("expected a link"));
        }
        let (header, attributes) = message.split::<HEADER>()?;
        let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let mut link = Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            up: flags & IFF_UP != 0,
            promiscuous: flags & IFF_PROMISC != 0,
            all_multicast: flags & IFF_ALLMULTI != 0,
            no_arp: flags & IFF_NOARP != 0,
            ..Self::default()
        };
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                libc::IFLA_IFNAME => link.name = attribute.text(),
                libc::IFLA_PROP_LIST => {
                    for property in attribute.nested() {
                        let property = property?;
                        if property.kind == libc::IFLA_ALT_IFNAME {
                            link.altnames.push(property.text());
                        }
                    }
                }
                libc::IFLA_ADDRESS => link.mac = attribute.mac(),
                libc::IFLA_MTU => link.mtu = attribute.u32()?,
                libc::IFLA_MASTER => link.master = Some(attribute.u32()?),
                libc::IFLA_LINK => link.peer = Some(attribute.u32()?),
                libc::IFLA_LINK_NETNSID => {
                    link.peer_netns = Some(attribute.u32()?.cast_signed());
                }
                libc::IFLA_STATS64 => {
                    let expected = Malformed("link statistics too short");
                    link.traffic = Traffic::decode(attribute.payload).ok_or(expected)?;
                }
                libc::IFLA_CARRIER => link.carrier = attribute.u8()? != 0,
                libc::IFLA_OPERSTATE => link.operational = attribute.u8()? == IF_OPER_UP,
                libc::IFLA_IFALIAS => link.alias = Some(attribute.text()),
                libc::IFLA_PARENT_DEV_NAME => link.parent = Some(attribute.text()),
                libc::IFLA_PARENT_DEV_BUS_NAME => link.bus = Some(attribute.text()),
                libc::IFLA_LINKINFO => link.decode_info(attribute.nested())?,
                libc::IFLA_AF_SPEC => link.decode_families(attribute.nested())?,
                _ => {}
            }
        }
        Ok(link)
    }

    /// `IFLA_AF_SPEC`
    fn decode_families(&mut self, families: Attributes<'_>) -> Result<(), Malformed> {
        for family in families {
            let family = family?;
            if family.kind != IPV6 {
                continue;
            }
            for option in family.nested() {
                let option = option?;
                if option.kind == IFLA_INET6_CONF {
                    let accept_ra = option.payload.get(ACCEPT_RA).unwrap_or_default();
                    self.accepts_router_advertisements = accept_ra.iter().any(|byte| *byte != 0);
                }
            }
        }
        Ok(())
    }

    /// `IFLA_LINKINFO`. The kind comes before the data that it gives a meaning to.
    fn decode_info(&mut self, info: Attributes<'_>) -> Result<(), Malformed> {
        let mut port_of_bridge = false;
        for attribute in info {
            let attribute = attribute?;
            match attribute.kind {
                libc::IFLA_INFO_KIND => self.kind = Some(attribute.text()),
                libc::IFLA_INFO_SLAVE_KIND => port_of_bridge = attribute.text() == "bridge",
                libc::IFLA_INFO_DATA => {
                    for option in attribute.nested() {
                        let option = option?;
                        match (self.kind.as_deref(), option.kind) {
                            (Some("bridge"), IFLA_BR_VLAN_FILTERING) => {
                                self.vlan_filtering = option.u8()? != 0;
                            }
                            (Some("bridge"), IFLA_BR_VLAN_DEFAULT_PVID) => {
                                self.default_pvid = Some(option.u16()?);
                            }
                            (Some("macvlan"), child::IFLA_MACVLAN_MODE) => {
                                self.variant = Some(option.u32()?);
                            }
                            (Some("ipvlan"), child::IFLA_IPVLAN_MODE)
                            | (Some("vlan"), child::IFLA_VLAN_ID) => {
                                self.variant = Some(option.u16()?.into());
                            }
                            (Some("tun"), IFLA_TUN_TYPE) => {
                                self.variant = Some(option.u8()?.into());
                            }
                            (Some("tun"), IFLA_TUN_NUM_QUEUES | IFLA_TUN_NUM_DISABLED_QUEUES) => {
                                self.queues = self.queues.saturating_add(option.u32()?);
                            }
                            _ => {}
                        }
                    }
                }
                libc::IFLA_INFO_SLAVE_DATA if port_of_bridge => {
                    for option in attribute.nested() {
                        let option = option?;
                        match option.kind {
                            IFLA_BRPORT_MODE => self.port.hairpin = option.u8()? != 0,
                            IFLA_BRPORT_ISOLATED => self.port.isolated = option.u8()? != 0,
                            IFLA_BRPORT_BRIDGE_ID => {
                                let mac = option.payload.last_chunk().map(|mac| Mac(*mac));
                                self.bridge_mac = mac.filter(|mac| *mac != Mac::default());
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What an administrator has set it to take and to answer.
    #[must_use]
    pub fn modes(&self) -> Modes {
        let Self { promiscuous, all_multicast, no_arp, .. } = *self;
        Modes { promiscuous, all_multicast, no_arp }
    }

    /// Its kind as it is told to people.
    #[must_use]
    pub fn kind_name(&self) -> &str {
        self.kind.as_deref().unwrap_or("physical device")
    }

    /// Whether this is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// Whether this is a tap. Kernels before 4.17 don't tell a tap from a tun.
    #[must_use]
    pub fn is_tap(&self) -> bool {
        self.kind.as_deref() == Some("tun") && self.variant.is_none_or(|kind| kind == TYPE_TAP)
    }

    /// Whether this is one end of a veth pair.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }
}

/// Asks for a link: `ip link show dev cni0`; in a dump for all.
#[derive(Clone, Copy, Debug)]
struct Get<'a>(Option<Target<'a>>);

impl fmt::Display for Get<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(target) => write!(f, "read {target}"),
            None => f.write_str("list links"),
        }
    }
}

impl Request for Get<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_GETLINK
    }

    fn body(&self, out: &mut Encoder) {
        match self.0 {
            Some(target) => target.header(out, 0, 0),
            None => header(out, 0, 0, 0),
        }
        out.put(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS);
    }
}

impl Query for Get<'_> {
    type Reply = Link;

    fn decode(&self, message: &Message<'_>) -> Result<Link, Malformed> {
        Link::decode(message)
    }
}

/// Reads a link; `None` if there is none of that name or index.
///
/// The kernel brings a carrier change that is still on its way to an end before it answers (since
/// 6.8), so a port whose other end just came up is seen as operational.
///
/// # Errors
/// The kernel's refusal.
pub fn get<C: Channel>(socket: &mut Socket<C>, target: Target<'_>) -> Result<Option<Link>, Error> {
    match socket.query(&Get(Some(target))) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.errno == Errno::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the kernel carry out `requests`, and reads a link as they leave it, in one datagram.
///
/// # Errors
/// The first refusal; `ENODEV` if there is no such link.
pub fn execute_then_get<C: Channel>(
    socket: &mut Socket<C>,
    requests: &[&dyn Request],
    target: Target<'_>,
) -> Result<Link, Error> {
    socket.execute_then_query(requests, &Get(Some(target)))
}

/// Reads all links of the namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn list<C: Channel>(socket: &mut Socket<C>) -> Result<Vec<Link>, Error> {
    socket.expect_many();
    socket.dump(&Get(None))
}

/// Reads the links as one answer tells them, which need not be all.
///
/// # Errors
/// The kernel's refusal.
pub fn list_once<C: Channel>(socket: &mut Socket<C>) -> Result<Dump<Link>, Error> {
    socket.dump_once(&Get(None))
}

/// Index of the link of this name; `None` if there is none. Unlike `RTM_GETLINK` this waits for no lock.
///
/// The socket is bound to the link, which means nothing to netlink, and tells the link's index (socket(7)). An
/// interface ioctl (`SIOCGIFINDEX`, netdevice(7)) would be one call less, but of a name that the kernel does
/// not know it runs modprobe(8), twice, and waits for that.
///
/// # Errors
/// The kernel's refusal.
pub fn index_of(socket: &mut Socket, name: &str) -> Result<Option<u32>, Error> {
    let bound = setsockopt(&socket.fd(), sockopt::BindToDevice, &OsString::from(name));
    if bound == Err(Errno::EPERM) {
        // Without CAP_NET_RAW a socket can't be bound a second time.
        return Ok(get(socket, Target::Name(name))?.map(|link| link.index));
    }
    let index = bound.and_then(|()| bound_index(socket.fd()));
    if let Some(trace) = socket.trace() {
        trace.asked("SO_BINDTODEVICE", name, index);
    }
    match index {
        Ok(index) => Ok(Some(index)),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(Error::new(format_args!("look up link {name:?}"), errno)),
    }
}

/// Index of the link that a socket is bound to.
fn bound_index(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut index: libc::c_int = 0;
    #[expect(clippy::cast_possible_truncation, reason = "4")]
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    let (to, room) = ((&raw mut index).cast(), &raw mut length);
    // SAFETY: both outlive the call, and the length is that of the index.
    let told = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, to, room) };
    Errno::result(told).map(|_| index.cast_unsigned())
}

/// Makes a bridge, down: `ip link add name cni0 address 02:… type bridge`.
///
/// Given an address at birth the bridge keeps it. Otherwise it takes the lowest of its ports', which
/// changes as pods come and go.
#[derive(Clone, Copy, Debug)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub mac: Mac,
    /// Its MTU; the kernel's default if none.
    pub mtu: Option<u32>,
    /// Look into multicast to carry it only to who wants it. Without a querier in the network that
    /// decides nothing, and each new port costs the kernel a walk over the timers of all.
    pub multicast_snooping: bool,
    /// Keep VLANs apart. A kernel that can't refuses to (`EOPNOTSUPP`), whether it is told to or not to.
    pub vlan_filtering: bool,
}

impl fmt::Display for NewBridge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create bridge {:?}", self.name)
    }
}

impl Request for NewBridge<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        header(out, 0, 0, 0);
        out.put(libc::IFLA_IFNAME, self.name);
        out.put(libc::IFLA_ADDRESS, &self.mac);
        if let Some(mtu) = self.mtu {
            out.put(libc::IFLA_MTU, &mtu);
        }
        out.nest(libc::IFLA_LINKINFO, |out| {
            out.put(libc::IFLA_INFO_KIND, b"bridge".as_slice());
            let snooping = u8::from(self.multicast_snooping);
            out.nest(libc::IFLA_INFO_DATA, |out| {
                out.put(IFLA_BR_MCAST_SNOOPING, &snooping);
                if self.vlan_filtering {
                    out.put(IFLA_BR_VLAN_FILTERING, &1_u8);
                }
            });
        });
    }
}

/// Makes a veth pair, both ends down, the other born in its namespace under its final name, so that no
/// interface ever moves.
///
/// `ip link add name veth… mtu … address … numtxqueues 1 numrxqueues 1 type veth peer name eth0 netns …`
#[derive(Clone, Copy, Debug)]
pub struct NewVeth<'a> {
    /// This end's name.
    pub name: &'a str,
    /// This end's address.
    pub mac: Mac,
    /// MTU of both ends; the kernel's default if none.
    pub mtu: Option<u32>,
    /// The other end's name.
    pub peer_name: &'a str,
    /// The other end's address.
    pub peer_mac: Mac,
    /// The other end's network namespace; our own if none.
    pub peer_netns: Option<BorrowedFd<'a>>,
}

impl fmt::Display for NewVeth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer_netns {
            Some(_) => {
                let (host, container) = (self.name, self.peer_name);
                write!(f, "create veth pair {host:?} (host) and {container:?} (container)")
            }
            None => write!(f, "create veth pair {:?} and {:?}", self.name, self.peer_name),
        }
    }
}

impl NewVeth<'_> {
    fn end(&self, out: &mut Encoder, name: &str, mac: Mac) {
        out.put(libc::IFLA_IFNAME, name);
        if let Some(mtu) = self.mtu {
            out.put(libc::IFLA_MTU, &mtu);
        }
        out.put(libc::IFLA_ADDRESS, &mac);
        // By default a veth is given a queue for each CPU the machine could have, of which it uses one.
        out.put(libc::IFLA_NUM_TX_QUEUES, &1_u32);
        out.put(libc::IFLA_NUM_RX_QUEUES, &1_u32);
    }
}

impl Request for NewVeth<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        header(out, 0, 0, 0);
        self.end(out, self.name, self.mac);
        out.nest(libc::IFLA_LINKINFO, |out| {
            out.put(libc::IFLA_INFO_KIND, b"veth".as_slice());
            out.nest(libc::IFLA_INFO_DATA, |out| {
                out.nest(VETH_INFO_PEER, |out| {
                    header(out, 0, 0, 0);
                    self.end(out, self.peer_name, self.peer_mac);
                    if let Some(netns) = self.peer_netns {
                        out.put(libc::IFLA_NET_NS_FD, &netns.as_raw_fd().cast_unsigned());
                    }
                });
            });
        });
    }
}

/// Changes a link. What is `None` or false stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Change<'a> {
    /// Bring it up.
    pub up: bool,
    /// Have it take all frames.
    pub promiscuous: bool,
    /// Make it a port of the link of this index.
    pub master: Option<u32>,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Its address. A bridge that was given one keeps it, be it the one that it had.
    pub mac: Option<Mac>,
    /// Its alias, none if empty, at most [`ALIAS_MAX`] bytes.
    pub alias: Option<&'a str>,
    /// Settings of a bridge's port.
    pub port: Option<PortFlags>,
    /// Announce addresses by gratuitous ARP when it comes up (sysctl `arp_notify`).
    pub arp_notify: bool,
}

/// A [`Change`] of one link: `ip link set dev …`.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// The link.
    pub target: Target<'a>,
    /// What to change.
    pub change: Change<'a>,
}

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { up, promiscuous, master, mtu, mac, alias, port, arp_notify } = self.change;
        let parts = [
            (up, "up"),
            (promiscuous, "promiscuous"),
            (master.is_some(), "master"),
            (mtu.is_some(), "mtu"),
            (mac.is_some(), "address"),
            (alias.is_some(), "alias"),
            (port.is_some(), "bridge port flags"),
            (arp_notify, "arp_notify"),
        ];
        let parts: Vec<_> = parts.iter().filter(|part| part.0).map(|part| part.1).collect();
        write!(f, "set {} ({})", self.target, parts.join(", "))
    }
}

impl Request for Set<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        let change = &self.change;
        let mut flags = 0;
        if change.up {
            flags |= IFF_UP;
        }
        if change.promiscuous {
            flags |= IFF_PROMISC;
        }
        self.target.header(out, flags, flags);
        if let Some(master) = change.master {
            out.put(libc::IFLA_MASTER, &master);
        }
        if let Some(mtu) = change.mtu {
            out.put(libc::IFLA_MTU, &mtu);
        }
        if let Some(mac) = change.mac {
            out.put(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(alias) = change.alias {
            out.put(libc::IFLA_IFALIAS, alias.as_bytes());
        }
        if let Some(port) = change.port {
            out.nest(libc::IFLA_LINKINFO, |out| {
                out.put(libc::IFLA_INFO_SLAVE_KIND, b"bridge".as_slice());
                out.nest(libc::IFLA_INFO_SLAVE_DATA, |out| {
                    out.put(IFLA_BRPORT_MODE, &u8::from(port.hairpin));
                    out.put(IFLA_BRPORT_ISOLATED, &u8::from(port.isolated));
                });
            });
        }
        if change.arp_notify {
            out.nest(libc::IFLA_AF_SPEC, |out| {
                out.nest(IPV4, |out| {
                    out.nest(IFLA_INET_CONF, |out| out.put(IPV4_DEVCONF_ARP_NOTIFY, &1_u32));
                });
            });
        }
    }
}

/// Switches the filtering of VLANs by a bridge: `ip link set dev … type bridge vlan_filtering 1`.
#[derive(Clone, Copy, Debug)]
pub struct SetVlanFiltering<'a> {
    /// The bridge.
    pub target: Target<'a>,
    /// On or off.
    pub on: bool,
}

impl fmt::Display for SetVlanFiltering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.on { "on" } else { "off" };
        write!(f, "set {} (VLAN filtering {state})", self.target)
    }
}

impl Request for SetVlanFiltering<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        self.target.header(out, 0, 0);
        out.nest(libc::IFLA_LINKINFO, |out| {
            out.put(libc::IFLA_INFO_KIND, b"bridge".as_slice());
            let on = u8::from(self.on);
            out.nest(libc::IFLA_INFO_DATA, |out| out.put(IFLA_BR_VLAN_FILTERING, &on));
        });
    }
}

/// Takes a link down: `ip link set dev … down`.
#[derive(Clone, Copy, Debug)]
pub struct SetDown<'a>(pub Target<'a>);

impl fmt::Display for SetDown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} (down)", self.0)
    }
}

impl Request for SetDown<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        self.0.header(out, 0, IFF_UP);
    }
}

/// Has the kernel tell the neighbours of a link's addresses, as far as sysctls `arp_notify` and `ndisc_notify` have
/// it do so: it does when the link's own address changes, be it to the same. A link that shares its master's has none to change, and a
/// device may not take one while it is up: then neighbours learn it when they are spoken to.
#[derive(Clone, Copy, Debug)]
pub struct Announce {
    /// Index of the link.
    pub link: u32,
    /// The address that it has.
    pub mac: Mac,
}

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "announce addresses of link {}", self.link)
    }
}

impl Request for Announce {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        let change = Change { mac: Some(self.mac), ..Change::default() };
        Set { target: Target::Index(self.link), change }.body(out);
    }

    fn tolerates(&self, errno: Errno) -> bool {
        matches!(errno, Errno::EOPNOTSUPP | Errno::EBUSY | Errno::EADDRNOTAVAIL)
    }
}

/// What a link takes and answers, as an administrator sets it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Modes {
    /// `IFF_PROMISC`: it takes all frames.
    pub promiscuous: bool,
    /// `IFF_ALLMULTI`: it takes all multicast frames.
    pub all_multicast: bool,
    /// `IFF_NOARP`: it neither asks nor answers by ARP.
    pub no_arp: bool,
}

/// Sets all modes of a link: `ip link set dev … promisc … allmulticast … arp …`.
#[derive(Clone, Copy, Debug)]
pub struct SetModes<'a> {
    /// The link.
    pub target: Target<'a>,
    /// Its modes from now on.
    pub modes: Modes,
}

impl fmt::Display for SetModes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} (promiscuous, all multicast, ARP)", self.target)
    }
}

impl Request for SetModes<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_NEWLINK
    }

    fn body(&self, out: &mut Encoder) {
        let Modes { promiscuous, all_multicast, no_arp } = self.modes;
        let bits = [(promiscuous, IFF_PROMISC), (all_multicast, IFF_ALLMULTI), (no_arp, IFF_NOARP)];
        let flags = bits.iter().filter(|bit| bit.0).fold(0, |flags, bit| flags | bit.1);
        self.target.header(out, flags, IFF_PROMISC | IFF_ALLMULTI | IFF_NOARP);
    }
}

/// Deletes a link: `ip link del dev …`. Of a veth, both ends go.
#[derive(Clone, Copy, Debug)]
pub struct Delete<'a>(pub Target<'a>);

impl fmt::Display for Delete<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete {}", self.0)
    }
}

impl Request for Delete<'_> {
    fn kind(&self) -> u16 {
        libc::RTM_DELLINK
    }

    fn body(&self, out: &mut Encoder) {
        self.0.header(out, 0, 0);
    }
}

#[cfg(test)]
mod tests;
