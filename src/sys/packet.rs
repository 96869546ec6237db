//! Packet sockets (packet(7)): packets of one link, whatever addresses it has. The link layer's header is the
//! kernel's to read and write.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self as sys, ControlMessageOwned, LinkAddr, MsgFlags, SockaddrLike};

use super::{filter, set_option};
use crate::net::Mac;

/// `PACKET_AUXDATA` (linux/if_packet.h)
const PACKET_AUXDATA: libc::c_int = 8;
/// Length of `struct tpacket_auxdata` (linux/if_packet.h).
const AUXDATA: usize = 20;
/// `TP_STATUS_CSUMNOTREADY` (linux/if_packet.h)
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;

/// The link-layer address of everybody on a link.
pub const BROADCAST: Mac = Mac([0xff; 6]);

/// What a socket receives and sends (linux/if_ether.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Protocol {
    /// `ETH_P_IP`
    Ipv4 = 0x0800,
    /// `ETH_P_ARP`
    Arp = 0x0806,
}

/// A packet as received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Length of what is in the buffer.
    pub length: usize,
    /// Who sent it.
    pub from: Mac,
    /// It comes from this machine, and its transport's checksum is not computed yet.
    pub lacks_checksum: bool,
}

/// A socket for packets of one protocol on one link.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    protocol: Protocol,
    link: u32,
}

impl PacketSocket {
    /// Opens a socket on a link of the current network namespace. It receives what the filter `program` lets
    /// pass, from the start.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `ENODEV`: there is no such link.
    pub fn open(
        protocol: Protocol,
        link: u32,
        program: &[libc::sock_filter],
    ) -> Result<Self, Errno> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Of protocol 0 it receives nothing until it is bound, when it has its filter.
        // SAFETY: socket(2) takes no pointer.
        let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor is new, so it is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        filter::attach(fd.as_fd(), program)?;
        let on: libc::c_int = 1;
        set_option(fd.as_fd(), libc::SOL_PACKET, PACKET_AUXDATA, &on)?;
        let socket = Self { fd, protocol, link };
        sys::bind(socket.fd.as_raw_fd(), &socket.address(BROADCAST)?)?;
        Ok(socket)
    }

    /// What it is for.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// `ENETDOWN`: the link is down; `ENXIO`: it has vanished; `ENOBUFS`: its queue is full.
    pub fn send(&self, to: Mac, packet: &[u8]) -> Result<(), Errno> {
        let to = self.address(to)?;
        sys::sendto(self.fd.as_raw_fd(), packet, &to, MsgFlags::empty()).map(drop)
    }

    /// Takes the next packet without waiting. What does not fit into the buffer is cut off.
    ///
    /// # Errors
    /// `EAGAIN`: there is none; `ENETDOWN`: the link has gone down, or vanished.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Packet, Errno> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!([u8; AUXDATA]);
        let (fd, flags) = (self.fd.as_raw_fd(), MsgFlags::empty());
        let received = sys::recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), flags)?;
        let status = received.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Unknown(auxdata) => auxdata.data_bytes.first_chunk().copied(),
            _ => None,
        });
        Ok(Packet {
            length: received.bytes,
            from: received.address.and_then(|from| from.addr()).map_or(BROADCAST, Mac),
            lacks_checksum: status.map_or(0, u32::from_ne_bytes) & TP_STATUS_CSUMNOTREADY != 0,
        })
    }

    fn address(&self, to: Mac) -> Result<LinkAddr, Errno> {
        // SAFETY: `sockaddr_ll` is plain data, for which all zeros is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EINVAL)?;
        address.sll_protocol = (self.protocol as u16).to_be();
        address.sll_ifindex = self.link.cast_signed();
        address.sll_halen = 6;
        for (byte, value) in address.sll_addr.iter_mut().zip(to.0) {
            *byte = value;
        }
        let length = libc::socklen_t::try_from(size_of_val(&address)).ok();
        // SAFETY: it points to a whole `sockaddr_ll` of this length, which is copied.
        let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), length) };
        address.ok_or(Errno::EINVAL)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
