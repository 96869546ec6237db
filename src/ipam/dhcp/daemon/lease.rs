//! One lease, from its first message to its last: a client, the link that it speaks through, and what the lease
//! does to that link.

use std::fmt::{self, Display};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::client::{Client, Hears, Incoming, Outgoing, Start, Step};
use super::interface::{Inside, mac_of};
use super::log::{Level, log};
use super::options::Options;
use super::poller::{Ear, Poller, Source};
use super::store::Record;
use crate::cni::{Attachment, CniResult, Code, Error};
use crate::ipam::dhcp::life::{self, Family};
use crate::ipam::dhcp::protocol::{Add, Held, Wanted};
use crate::ipam::dhcp::terms::Terms;
use crate::ipam::dhcp::v4::client::Destination;
use crate::ipam::dhcp::v4::frame;
use crate::ipam::dhcp::v6::message::{CLIENT_PORT, SERVER_PORT, SERVERS};
use crate::net::Mac;
use crate::nl::Socket;
use crate::nl::link::{Link, Target};
use crate::nl::watch::Nsid;
use crate::sys::arp::{self, Arp};
use crate::sys::clock::Time;
use crate::sys::filter;
use crate::sys::packet::{BROADCAST, Protocol};

/// After how long it is seen again whether a link that has just come up can be spoken over: at first, and at most;
/// the pause doubles each time.
const CARRIER_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_CARRIER_PAUSE: Duration = Duration::from_millis(160);
/// How many packets are taken at a time, so that a flood on one link does not keep the others waiting.
const PACKETS_AT_A_TIME: usize = 32;
/// The longest packet: an Ethernet frame's without its header, jumbo frames aside. DHCP's are at most 576 bytes
/// long unless the client says that it takes more.
const LONGEST_PACKET: usize = 1500;

/// Where a lease's link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The namespace's path, as the plugin named it.
    pub netns: Box<str>,
    /// See [`Inside::identity`].
    pub identity: u64,
    /// The number by which the namespace is heard of.
    pub number: Nsid,
    /// The link's index.
    pub link: u32,
    /// The link's address.
    pub mac: Mac,
}

/// What a lease needs of the daemon.
pub struct World<'a> {
    /// What the daemon was told.
    pub options: &'a Options,
    /// Where sockets are waited for.
    pub poller: &'a Rc<Poller>,
    /// By which this lease's are known there.
    pub token: u64,
    /// Now.
    pub now: Time,
}

/// What has become of a lease.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing that others need know.
    Same,
    /// It has come to be, or goes on under terms that may be new: it is to be kept.
    Bound,
    /// It has ended; for those who wait for it, why.
    Over(Error),
}

/// A lease.
#[derive(Debug)]
pub struct Lease {
    attachment: Attachment,
    place: Place,
    /// Metric of its routes.
    priority: u32,
    /// Whether the link gets the server's MTU.
    mtu: bool,
    client: Client,
    /// As long as the link has no carrier yet.
    carrier: Option<Carrier>,
    /// The socket that is open, and for what.
    ear: Option<(Ear, Hears)>,
    /// Where the server's last answer came from: it, or the relay that leads to it.
    next_hop: Mac,
    /// The plugin was told, so the interface has what the lease says, or gets it by the plugin.
    is_told: bool,
    /// The connections that wait for it.
    waiters: Vec<u32>,
    /// When it wants to be woken, as the daemon has noted it.
    pub wakes: Option<Time>,
}

/// A link that was brought up just now and may not have a carrier yet, or for IPv6 no address.
#[derive(Clone, Copy, Debug)]
struct Carrier {
    /// For how long it may have none.
    until: Time,
    /// When to look again.
    again: Time,
    /// How long to wait then.
    pause: Duration,
}

impl Lease {
    /// Finds the link of an attachment and begins to look for an address of a family.
    ///
    /// # Errors
    /// There is no such namespace or link, or it can't be brought up.
    pub fn begin(
        add: &Add,
        family: Family,
        host: &mut Socket,
        world: &World<'_>,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut inside = Inside::enter(&netns_path(&add.netns, world))?;
        let link = find(&mut inside, &add.attachment.ifname)?;
        let place = Place::of(&add.netns, &inside, &link, host)?;
        if !link.up {
            inside.bring_up(link.index)?;
        }
        let only = family.only();
        let wanted = Wanted { ipv4: only.ipv4, ipv6: only.ipv6, ..add.wanted.clone() };
        let start = Start::New(world.now);
        let link = (&link, place.mac);
        let client = Client::new(&add.attachment, wanted, link, world.options, seed, start);
        let until = world.now + world.options.timeout;
        Ok(Self {
            attachment: add.attachment.clone(),
            place,
            priority: add.wanted.priority,
            mtu: add.wanted.mtu,
            client,
            carrier: Some(Carrier { until, again: world.now, pause: CARRIER_PAUSE }),
            ear: None,
            next_hop: BROADCAST,
            is_told: false,
            waiters: Vec::new(),
            wakes: None,
        })
    }

    /// Takes up a lease that a daemon before this one has kept.
    ///
    /// # Errors
    /// Its namespace or link has gone.
    pub fn resume(
        record: Record,
        host: &mut Socket,
        world: &World<'_>,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut inside = Inside::enter(&netns_path(&record.netns, world))?;
        let link = inside.link(Target::Index(record.link))?.ok_or_else(|| gone(record.link))?;
        let place = Place::of(&record.netns, &inside, &link, host)?;
        if (place.identity, place.mac) != (record.identity, record.mac) {
            let msg =
                format!("network namespace {:?} or link {:?} is another", record.netns, link.name);
            return Err(Error::new(Code::Internal, msg));
        }
        let (priority, mtu) = (record.wanted.priority, record.wanted.mtu);
        let start = Start::With(Box::new(record.lease));
        let link = (&link, place.mac);
        let (attachment, options) = (record.attachment, world.options);
        let client = Client::new(&attachment, record.wanted, link, options, seed, start);
        Ok(Self {
            attachment,
            place,
            priority,
            mtu,
            client,
            carrier: None,
            ear: None,
            next_hop: record.next_hop,
            is_told: true,
            waiters: Vec::new(),
            wakes: None,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Of which family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.client.family()
    }

    /// Where its link is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether this is still the link of its attachment, as a plugin names it.
    pub fn is_of(&self, netns: &str, world: &World<'_>) -> bool {
        let look = || {
            let mut inside = Inside::enter(&netns_path(netns, world))?;
            let link = find(&mut inside, &self.attachment.ifname)?;
            let same = inside.identity()? == self.place.identity && link.index == self.place.link;
            Ok::<_, Error>(same && link.mac == Some(self.place.mac))
        };
        look().unwrap_or(false)
    }

    /// Whether its link is still there.
    #[must_use]
    pub fn is_there(&self, world: &World<'_>) -> bool {
        let target = Target::Index(self.place.link);
        let link = self.inside(world).and_then(|mut inside| inside.link(target));
        link.is_ok_and(|link| link.is_some())
    }

    /// What the plugin is told, if there is a lease.
    pub fn result(&self) -> Option<CniResult> {
        self.client.lease().map(|lease| lease.terms.result(self.priority))
    }

    /// The connections that wait for it.
    #[must_use]
    pub fn waiters(&self) -> &[u32] {
        &self.waiters
    }

    /// Another connection waits for it.
    pub fn await_by(&mut self, connection: u32) {
        self.waiters.push(connection);
    }

    /// A connection waits no longer.
    pub fn leave(&mut self, connection: u32) {
        self.waiters.retain(|waiter| *waiter != connection);
        self.waiters.shrink_to_fit();
    }

    /// Whether it has only begun, and nothing was asked yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.carrier.is_some()
    }

    /// Whether the plugin has been told the result.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The plugin is told the result.
    pub fn tell(&mut self) {
        self.is_told = true;
    }

    /// The lease as it is kept; `None` if there is none.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        let lease = self.client.lease()?.clone();
        Some(Record {
            attachment: self.attachment.clone(),
            netns: self.place.netns.to_string(),
            identity: self.place.identity,
            link: self.place.link,
            mac: self.place.mac,
            wanted: self.client.wanted(self.priority, self.mtu),
            next_hop: self.next_hop,
            lease,
        })
    }

    /// The lease as people are told it.
    #[must_use]
    pub fn held(&self, now: Time) -> Held {
        let lease = self.client.lease();
        let seconds = |time: Option<Time>| time.map(|time| (time - now).as_secs());
        Held {
            attachment: self.attachment.clone(),
            netns: self.place.netns.to_string(),
            mac: self.place.mac.to_string(),
            address: lease.map(|lease| lease.terms.address.to_string()).unwrap_or_default(),
            server: lease.map(|lease| lease.terms.server.to_string()).unwrap_or_default(),
            phase: self.client.phase().to_string(),
            renews_in: seconds(lease.and_then(life::Lease::renew_at)),
            expires_in: seconds(lease.and_then(life::Lease::expires_at)),
        }
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.carrier.map_or_else(|| self.client.deadline(), |carrier| Some(carrier.again))
    }

    /// Does what is due.
    pub fn wake(&mut self, world: &World<'_>) -> Outcome {
        match self.carrier {
            Some(carrier) => self.look_for_carrier(carrier, world),
            // An open socket keeps the namespace alive, so that it does not tell its end: as long as there
            // is one, it is seen here that the container is there.
            None if self.is_told && self.ear.is_some() && !self.is_there(world) => {
                Outcome::Over(gone(self.place.link))
            }
            None => self.drive(world, None, |client| client.elapsed(world.now)),
        }
    }

    /// Reads what has come in.
    pub fn hear(&mut self, world: &World<'_>) -> Outcome {
        let mut buffer = [0; LONGEST_PACKET];
        let mut outcome = Outcome::Same;
        for _ in 0..PACKETS_AT_A_TIME {
            let Some((ear, hears)) = &self.ear else { break };
            let Some(source) = ear.source() else { break };
            let incoming = match Incoming::read(source, *hears, self.place.mac, &mut buffer) {
                Ok(Some(incoming)) => incoming,
                Ok(None) | Err(Errno::EINTR) => continue,
                // There is no more; or the link is down, or about to vanish, which the kernel tells in its own way.
                Err(_) => break,
            };
            let sender = match &incoming {
                Incoming::V4(_, sender) => Some(*sender),
                Incoming::OtherUser(address, user) => {
                    let fields: [(&str, &dyn Display); 2] = [("address", address), ("user", user)];
                    self.log(Level::Warning, "declines an address that another uses", &fields);
                    None
                }
                Incoming::V6(..) => None,
            };
            match self.drive(world, sender, |client| client.heard(&incoming, world.now)) {
                Outcome::Same => {}
                Outcome::Bound => outcome = Outcome::Bound,
                over @ Outcome::Over(_) => return over,
            }
        }
        outcome
    }

    /// Gives the address back to the server, if there is one and it can be reached. That is the end.
    pub fn release(&mut self, world: &World<'_>) {
        let Some(release) = self.client.release() else { return };
        let address = self.client.lease().map(|lease| lease.terms.address.to_string());
        let address = address.unwrap_or_default();
        match self.send(&release, world) {
            Ok(()) => self.log(Level::Info, "released", &[("address", &address)]),
            // The server learns it when the lease expires.
            Err(why) => {
                self.log(Level::Warning, "cannot tell the server of the release", &[("why", &why)]);
            }
        }
    }

    /// Logs an event of this lease.
    pub fn log(&self, level: Level, what: &str, fields: &[(&str, &dyn Display)]) {
        let name = Name(&self.attachment);
        let mut all: Vec<(&str, &dyn Display)> =
            vec![("lease", &name), ("netns", &self.place.netns), ("mac", &self.place.mac)];
        all.extend_from_slice(fields);
        log(level, what, &all);
    }

    fn look_for_carrier(&mut self, carrier: Carrier, world: &World<'_>) -> Outcome {
        let index = self.place.link;
        let needs_address = self.family() == Family::V6;
        let looked = self.inside(world).and_then(|mut inside| {
            let link = inside.link(Target::Index(index))?.ok_or_else(|| gone(index))?;
            let lacks_address = needs_address && inside.link_local(index)?.is_none();
            Ok((link, lacks_address))
        });
        let (link, lacks_address) = match looked {
            Ok(looked) => looked,
            Err(error) => return Outcome::Over(error),
        };
        if link.carrier && !lacks_address {
            self.carrier = None;
            return self.drive(world, None, |client| client.elapsed(world.now));
        }
        if world.now < carrier.until {
            let again = (world.now + carrier.pause).min(carrier.until);
            let pause = (carrier.pause * 2).min(LONGEST_CARRIER_PAUSE);
            self.carrier = Some(Carrier { again, pause, ..carrier });
            return Outcome::Same;
        }
        let state = match &link {
            Link { up: false, .. } => "is down",
            Link { carrier: false, .. } => "has no carrier",
            _ => "has no link-local IPv6 address (is sysctl disable_ipv6 set?)",
        };
        let msg = format!("link {:?} {state}: no DHCP server can be asked", link.name);
        Outcome::Over(Error::new(Code::Internal, msg))
    }

    /// Has the client do something, and does what that leads to. `sender` is who has said what it is about.
    fn drive(
        &mut self,
        world: &World<'_>,
        sender: Option<Mac>,
        work: impl FnOnce(&mut Client) -> Vec<Step>,
    ) -> Outcome {
        let before = self.client.lease().map(|lease| lease.terms.clone());
        let steps = work(&mut self.client);
        if let Some(sender) = sender.filter(|_| !steps.is_empty()) {
            self.next_hop = sender;
        }
        // What is sent may be answered at once.
        let mut failure = self.listen(world).err();
        let mut outcome = Outcome::Same;
        for step in steps {
            match step {
                Step::Send(outgoing) => failure = failure.or(self.send(&outgoing, world).err()),
                Step::Bound => {
                    self.bound(before.as_ref(), world);
                    outcome = Outcome::Bound;
                }
                Step::Unbound(why) => self.unbound(before.as_ref(), &why, world),
                Step::Expired => return self.expired(before.as_ref(), world),
                Step::Failed(why) => {
                    let msg = format!("link {:?}: {why}", self.attachment.ifname);
                    return Outcome::Over(Error::new(Code::Internal, msg));
                }
            }
        }
        if let Some(why) = failure {
            // The client tries again, as long as it is patient.
            self.log(Level::Warning, "cannot speak to servers", &[("why", &why)]);
        }
        outcome
    }

    /// Opens the socket for what the client waits for, and closes the one before.
    fn listen(&mut self, world: &World<'_>) -> Result<(), Error> {
        let hears = self.client.hears();
        if self.ear.as_ref().is_some_and(|(_, heard)| *heard == hears) {
            return Ok(());
        }
        self.ear = None;
        let link = self.place.link;
        let source = match hears {
            Hears::Nothing => return Ok(()),
            Hears::V4 => {
                let filter = frame::messages_filter(self.place.mac);
                Source::Packets(self.inside(world)?.packets(Protocol::Ipv4, link, &filter)?)
            }
            Hears::Neighbours(address) => {
                let filter = arp::about(address);
                Source::Packets(self.inside(world)?.packets(Protocol::Arp, link, &filter)?)
            }
            Hears::V6 => Source::Datagrams(self.inside(world)?.datagrams(CLIENT_PORT, link)?),
        };
        let ear = Ear::new(source, world.token, world.poller);
        let ear = ear.map_err(|errno| Error::io("wait for packets", errno))?;
        self.ear = Some((ear, hears));
        Ok(())
    }

    fn send(&self, outgoing: &Outgoing, world: &World<'_>) -> Result<(), Error> {
        match outgoing {
            Outgoing::V4(message, destination) => {
                let (source, to, next_hop) = match *destination {
                    Destination::Broadcast => {
                        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, BROADCAST)
                    }
                    Destination::Server { source, server } => (source, server, self.next_hop),
                };
                let packet = frame::udp(source, to, &message.encode());
                self.send_packet(Protocol::Ipv4, next_hop, &packet, world)
            }
            Outgoing::Probe(address) => {
                let probe = Arp::probe(self.place.mac, *address).encode();
                self.send_packet(Protocol::Arp, BROADCAST, &probe, world)
            }
            Outgoing::V6(message) => self.send_datagram(&message.encode(), world),
        }
    }

    /// Sends by the socket that is open, if it is for this, or else by one for the purpose.
    fn send_packet(
        &self,
        protocol: Protocol,
        to: Mac,
        packet: &[u8],
        world: &World<'_>,
    ) -> Result<(), Error> {
        let sent = match self.source() {
            Some(Source::Packets(socket)) if socket.protocol() == protocol => {
                socket.send(to, packet)
            }
            _ => {
                let inside = self.inside(world)?;
                let socket = inside.packets(protocol, self.place.link, &filter::nothing())?;
                let sent = socket.send(to, packet);
                world.poller.close_later(socket);
                sent
            }
        };
        sent.map_err(|errno| self.unsent(&errno.into()))
    }

    /// The same with a datagram to all DHCPv6 servers on the link.
    fn send_datagram(&self, datagram: &[u8], world: &World<'_>) -> Result<(), Error> {
        let link = self.place.link;
        let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, link);
        let sent = match self.source() {
            Some(Source::Datagrams(socket)) => socket.send_to(datagram, to),
            _ => self.inside(world)?.datagrams(CLIENT_PORT, link)?.send_to(datagram, to),
        };
        sent.map(drop).map_err(|why| self.unsent(&why))
    }

    fn source(&self) -> Option<&Source> {
        self.ear.as_ref().and_then(|(ear, _)| ear.source())
    }

    fn unsent(&self, why: &io::Error) -> Error {
        Error::io(format_args!("send a packet on link {:?}", self.attachment.ifname), why)
    }

    /// There is a lease, or it goes on. What is new goes to the interface; of the first lease the plugin sees to
    /// that, but for the link's own.
    fn bound(&mut self, before: Option<&Terms>, world: &World<'_>) {
        let Some(lease) = self.client.lease() else { return };
        let terms = lease.terms.clone();
        let what = match before {
            None => "leased",
            Some(before) if *before == terms => "renewed",
            Some(_) => "renewed with changes",
        };
        let seconds = |time: Option<Time>| {
            time.map_or_else(|| "never".to_owned(), |time| (time - world.now).as_secs().to_string())
        };
        let (renews, expires) = (seconds(lease.renew_at()), seconds(lease.expires_at()));
        let fields: [(&str, &dyn Display); 4] = [
            ("address", &terms.address),
            ("server", &terms.server),
            ("renews_in_s", &renews),
            ("expires_in_s", &expires),
        ];
        self.log(Level::Info, what, &fields);
        if before == Some(&terms) {
            return;
        }
        let (index, mac) = (self.place.link, self.place.mac);
        let is_told = self.is_told;
        let (priority, wants_mtu) = (self.priority, self.mtu);
        let apply = |inside: &mut Inside| {
            let is_new = before.map(|before| before.mtu) != Some(terms.mtu);
            let set = if wants_mtu && is_new { inside.set_mtu(index, &terms) } else { Ok(()) };
            if is_told {
                inside.change(index, mac, before, Some(&terms), priority)?;
            }
            set
        };
        let applied = self.inside(world).and_then(|mut inside| apply(&mut inside));
        if let Err(why) = applied {
            self.log(Level::Error, "cannot apply the lease to the link", &[("why", &why)]);
        }
    }

    /// The server has taken the lease back; another is looked for.
    fn unbound(&self, before: Option<&Terms>, why: &str, world: &World<'_>) {
        self.log(Level::Warning, "lost the lease", &[("why", &why)]);
        let index = self.place.link;
        let priority = self.priority;
        let removed = self
            .inside(world)
            .and_then(|mut i| i.change(index, self.place.mac, before, None, priority));
        if let Err(why) = removed {
            self.log(Level::Error, "cannot take the address from the link", &[("why", &why)]);
        }
    }

    /// The lease was not renewed in time: nobody may use the address any more.
    fn expired(&self, before: Option<&Terms>, world: &World<'_>) -> Outcome {
        let address = before.map(|terms| terms.address.to_string()).unwrap_or_default();
        self.log(Level::Error, "expired; the link goes down", &[("address", &address)]);
        let index = self.place.link;
        let priority = self.priority;
        let end = |inside: &mut Inside| {
            let removed = inside.change(index, self.place.mac, before, None, priority);
            inside.take_down(index).and(removed)
        };
        if let Err(why) = self.inside(world).and_then(|mut inside| end(&mut inside)) {
            self.log(Level::Error, "cannot take the link down", &[("why", &why)]);
        }
        Outcome::Over(Error::new(Code::Internal, format!("the lease of {address} has expired")))
    }

    /// Enters the namespace, which must still be the one.
    fn inside(&self, world: &World<'_>) -> Result<Inside, Error> {
        let inside = Inside::enter(&netns_path(&self.place.netns, world))?;
        if inside.identity()? == self.place.identity {
            return Ok(inside);
        }
        let msg = format!("network namespace {:?} is another by now", self.place.netns);
        Err(Error::new(Code::InvalidNetns, msg))
    }
}

impl Place {
    fn of(netns: &str, inside: &Inside, link: &Link, host: &mut Socket) -> Result<Self, Error> {
        Ok(Self {
            netns: netns.into(),
            identity: inside.identity()?,
            number: inside.number(host)?,
            link: link.index,
            mac: mac_of(link)?,
        })
    }
}

/// An attachment in the log.
struct Name<'a>(&'a Attachment);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attachment { network, container, ifname } = self.0;
        write!(f, "{network}/{container}/{ifname}")
    }
}

fn netns_path(netns: &str, world: &World<'_>) -> PathBuf {
    world.options.below_prefix(Path::new(netns))
}

fn find(inside: &mut Inside, ifname: &str) -> Result<Link, Error> {
    inside.link(Target::Name(ifname))?.ok_or_else(|| {
        let msg = format!("there is no link {ifname:?} in the container to lease an address for");
        Error::new(Code::Internal, msg)
    })
}

fn gone(link: u32) -> Error {
    Error::new(Code::Internal, format!("link {link} has vanished"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside it an idle lease has a few names and lists in memory, and its places in the daemon's tables.
    #[test]
    fn a_lease_is_small() {
        assert!(size_of::<Lease>() <= 768, "{}", size_of::<Lease>());
    }
}
