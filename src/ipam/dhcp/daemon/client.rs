//! The client of a lease, of either family: what it says and hears, in the form in which sockets carry it.

use std::net::{Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::options::Options;
use super::poller::Source;
use crate::cni::Attachment;
use crate::ipam::dhcp::life::{Family, Lease, Phase};
use crate::ipam::dhcp::protocol::Wanted;
use crate::ipam::dhcp::v4::client::{Broadcast, Destination, Listens, Probing};
use crate::ipam::dhcp::v4::frame::{Checksum, Datagram};
use crate::ipam::dhcp::{v4, v6};
use crate::net::Mac;
use crate::nl::link::Link;
use crate::sha256;
use crate::sys::arp::Arp;
use crate::sys::clock::Time;

/// The longest client identifier of DHCPv4, without its type: an option has room for 255 bytes.
const LONGEST_CLIENT_ID: usize = 254;
/// `DUID-UUID` (RFC 8415, section 11.5).
const DUID_UUID: [u8; 2] = [0, 4];

/// A client.
#[derive(Debug)]
pub enum Client {
    /// Of DHCPv4.
    V4(v4::client::Client),
    /// Of DHCPv6.
    V6(v6::client::Client),
}

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Send(Outgoing),
    /// There is a lease: a first one, one that goes on, or another.
    Bound,
    /// The lease is no more, and why; another is looked for.
    Unbound(String),
    /// The lease has ended, and so has the client.
    Expired,
    /// There is no lease to be had, and why; the client has ended.
    Failed(String),
}

/// What a client says.
#[derive(Debug)]
pub enum Outgoing {
    /// A message of DHCPv4.
    V4(v4::message::Message, Destination),
    /// To the neighbours: who has this address?
    Probe(Ipv4Addr),
    /// A message of DHCPv6, to all servers.
    V6(v6::message::Message),
}

/// What a client waits to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hears {
    /// Nothing.
    Nothing,
    /// Messages of DHCPv4.
    V4,
    /// ARP about this address.
    Neighbours(Ipv4Addr),
    /// Messages of DHCPv6.
    V6,
}

/// What a client hears.
#[derive(Debug)]
pub enum Incoming {
    /// A message of DHCPv4, and the link-layer address that it comes from.
    V4(v4::message::Message, Mac),
    /// That this link-layer address has the address, too.
    OtherUser(Ipv4Addr, Mac),
    /// A message of DHCPv6, and who it comes from.
    V6(v6::message::Message, Ipv6Addr),
}

/// How a client begins.
#[derive(Debug)]
pub enum Start {
    /// It looks for a lease, from now on.
    New(Time),
    /// It had this one before.
    With(Box<Lease>),
}

impl Client {
    /// A client for a link of an attachment. `seed` is what its random numbers come from.
    #[must_use]
    pub fn new(
        attachment: &Attachment,
        wanted: Wanted,
        link: (&Link, Mac),
        options: &Options,
        seed: u64,
        start: Start,
    ) -> Self {
        let timing = options.timing();
        match Family::of(&wanted) {
            Family::V4 => {
                let conf = conf(attachment, wanted, link, options);
                Self::V4(match start {
                    Start::New(now) => v4::client::Client::new(conf, timing, seed, now),
                    Start::With(lease) => v4::client::Client::resume(conf, timing, seed, *lease),
                })
            }
            Family::V6 => {
                let id = duid(attachment);
                Self::V6(match start {
                    Start::New(now) => v6::client::Client::new(id, timing, seed, now),
                    Start::With(lease) => v6::client::Client::resume(id, timing, seed, *lease),
                })
            }
        }
    }

    /// Which family it is of.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }

    /// What it was made to want.
    #[must_use]
    pub fn wanted(&self, priority: u32, mtu: bool) -> Wanted {
        let of_family = Family::only(self.family());
        match self {
            Self::V4(client) => {
                let v4::client::Conf { requested, provided, probe, .. } = client.conf();
                Wanted {
                    requested: requested.clone(),
                    provided: provided.clone(),
                    probe: *probe == Probing::On,
                    priority,
                    mtu,
                    ..of_family
                }
            }
            Self::V6(_) => Wanted { priority, mtu, ..of_family },
        }
    }

    /// The lease, if there is one that may be used.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::V4(client) => client.lease(),
            Self::V6(client) => client.lease(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::V4(client) => client.phase(),
            Self::V6(client) => client.phase(),
        }
    }

    /// When [`elapsed`](Self::elapsed) is to be called; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self {
            Self::V4(client) => client.deadline(),
            Self::V6(client) => client.deadline(),
        }
    }

    /// What it waits to hear.
    #[must_use]
    pub fn hears(&self) -> Hears {
        match self {
            Self::V4(client) => match client.listens() {
                Listens::Nothing => Hears::Nothing,
                Listens::Messages => Hears::V4,
                Listens::Neighbours(address) => Hears::Neighbours(address),
            },
            Self::V6(client) if client.listens() => Hears::V6,
            Self::V6(_) => Hears::Nothing,
        }
    }

    /// Time has passed.
    pub fn elapsed(&mut self, now: Time) -> Vec<Step> {
        match self {
            Self::V4(client) => client.elapsed(now).into_iter().map(Step::from).collect(),
            Self::V6(client) => client.elapsed(now).into_iter().map(Step::from).collect(),
        }
    }

    /// Something has come.
    pub fn heard(&mut self, what: &Incoming, now: Time) -> Vec<Step> {
        match (self, what) {
            (Self::V4(client), Incoming::V4(message, _)) => {
                client.received(message, now).into_iter().map(Step::from).collect()
            }
            (Self::V4(client), Incoming::OtherUser(..)) => {
                client.conflict(now).into_iter().map(Step::from).collect()
            }
            (Self::V6(client), Incoming::V6(message, from)) => {
                client.received(message, *from, now).into_iter().map(Step::from).collect()
            }
            _ => Vec::new(),
        }
    }

    /// How to give the address back; `None` if there is none.
    #[must_use]
    pub fn release(&self) -> Option<Outgoing> {
        let step = match self {
            Self::V4(client) => client.release().map(Step::from),
            Self::V6(client) => client.release().map(Step::from),
        };
        match step {
            Some(Step::Send(outgoing)) => Some(outgoing),
            _ => None,
        }
    }
}

impl From<v4::client::Effect> for Step {
    fn from(effect: v4::client::Effect) -> Self {
        use v4::client::Effect;
        match effect {
            Effect::Send(message, to) => Self::Send(Outgoing::V4(message, to)),
            Effect::Probe(address) => Self::Send(Outgoing::Probe(address)),
            Effect::Bound => Self::Bound,
            Effect::Unbound(why) => Self::Unbound(why.to_string()),
            Effect::Expired => Self::Expired,
            Effect::Failed(why) => Self::Failed(why.to_string()),
        }
    }
}

impl From<v6::client::Effect> for Step {
    fn from(effect: v6::client::Effect) -> Self {
        use v6::client::Effect;
        match effect {
            Effect::Send(message) => Self::Send(Outgoing::V6(message)),
            Effect::Bound => Self::Bound,
            Effect::Unbound(why) => Self::Unbound(why),
            Effect::Expired => Self::Expired,
            Effect::Failed(why) => Self::Failed(why.to_string()),
        }
    }
}

impl Incoming {
    /// Takes the next packet that a client of link-layer address `own` waits for; `None` if what has come is none.
    ///
    /// # Errors
    /// Those of recvmsg(2); `EAGAIN` if there is nothing.
    pub fn read(
        source: &Source,
        hears: Hears,
        own: Mac,
        buffer: &mut [u8],
    ) -> Result<Option<Self>, Errno> {
        match source {
            Source::Datagrams(socket) => {
                let error =
                    |why: std::io::Error| Errno::from_raw(why.raw_os_error().unwrap_or(libc::EIO));
                let (length, from) = socket.recv_from(buffer).map_err(error)?;
                let std::net::SocketAddr::V6(from) = from else { return Ok(None) };
                let message =
                    v6::message::Message::decode(buffer.get(..length).unwrap_or_default());
                Ok(message.ok().map(|message| Self::V6(message, *from.ip())))
            }
            Source::Packets(socket) => {
                let packet = socket.receive(buffer)?;
                let bytes = buffer.get(..packet.length).unwrap_or_default();
                if let Hears::Neighbours(address) = hears {
                    let arp = Arp::read(bytes).filter(|arp| arp.is_of_another_user(address, own));
                    return Ok(arp.map(|arp| Self::OtherUser(address, arp.sender_mac)));
                }
                let checksum =
                    if packet.lacks_checksum { Checksum::NotComputedYet } else { Checksum::Verify };
                let datagram = Datagram::read(bytes, checksum);
                let message = datagram.and_then(|d| v4::message::Message::decode(d.payload).ok());
                Ok(message.map(|message| Self::V4(message, packet.from)))
            }
        }
    }
}

fn conf(
    attachment: &Attachment,
    wanted: Wanted,
    (link, mac): (&Link, Mac),
    options: &Options,
) -> v4::client::Conf {
    // An ipvlan has its master's link-layer address, as all its siblings: what is sent to that is the master's.
    let shares_its_mac = link.kind_name() == "ipvlan";
    v4::client::Conf {
        mac,
        client_id: client_id(attachment),
        requested: wanted.requested,
        provided: wanted.provided,
        broadcast: if options.broadcast || shares_its_mac {
            Broadcast::Always
        } else {
            Broadcast::WhenNeeded
        },
        probe: if wanted.probe { Probing::On } else { Probing::Off },
    }
}

/// By what DHCPv4 servers know the container: as with the reference, so that a container keeps its address when
/// the daemon is changed.
fn client_id(attachment: &Attachment) -> Vec<u8> {
    let Attachment { network, container, ifname } = attachment;
    let names = format!("{container}/{network}/{ifname}");
    // Type 0: not a link-layer address (RFC 2132, section 9.14).
    std::iter::once(0).chain(names.bytes().take(LONGEST_CLIENT_ID)).collect()
}

/// By what DHCPv6 servers know the container.
fn duid(attachment: &Attachment) -> Vec<u8> {
    let Attachment { network, container, ifname } = attachment;
    let names = [b"duid", network.as_bytes(), container.as_bytes(), ifname.as_bytes()];
    let uuid = sha256::digest_parts(&names);
    DUID_UUID.into_iter().chain(uuid.into_iter().take(16)).collect()
}
