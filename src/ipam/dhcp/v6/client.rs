//! The life of a lease (RFC 8415 section 18.2), without a system call: messages and the time go in, and what is to
//! be done comes out.
//!
//! It is DHCPv4's ([`v4::client`](crate::ipam::dhcp::v4::client)) with other words: SOLICIT, ADVERTISE, REQUEST,
//! REPLY; RENEW and REBIND. All messages go to all servers. Whether another uses the address the kernel sees, when
//! it is given to the link (RFC 4862, section 5.4). Two things are other than the RFC has them: the first server
//! that has an address is taken at once, not the best of a second's, since somebody waits; and the server is told
//! once that an address is released.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::message::{Address, Ia, Kind, Message, Status};
use crate::ipam::dhcp::life::{Due, Holding, Lease, Phase, Random, Timing, Whom};
use crate::ipam::dhcp::terms::{Terms, Times, compact};
use crate::net::Cidr;
use crate::sys::clock::Time;

/// After how long a message is sent again, at first; that doubles each time (`SOL_TIMEOUT`, `REQ_TIMEOUT`, section
/// 7.6).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before looking anew, after a refusal.
const SETBACK_PAUSE: Duration = Duration::from_secs(1);
/// The pauses are this part more or less (`RAND`, section 15).
const JITTER: u32 = 10;
/// Seconds that mean for ever (section 7.7).
const FOR_EVER: u32 = u32::MAX;
/// The client's only association.
const IAID: u32 = 1;

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send a message to all servers.
    Send(Message),
    /// There is a lease: a first one, one that goes on, or another.
    Bound,
    /// The lease is no more, and why; another is looked for.
    Unbound(String),
    /// The lease has ended, and so has the client.
    Expired,
    /// There is no lease to be had; the client has ended.
    Failed(Failure),
}

/// In which step it ended that there is no lease, as text that follows the link's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    trouble: Trouble,
    after: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    NoAdvertise,
    NoReply(IpAddr),
    Refused(IpAddr, Status),
    NoAddress(IpAddr),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trouble {
            Trouble::NoAdvertise => f.write_str("no ADVERTISE from any DHCPv6 server")?,
            Trouble::NoReply(server) => {
                write!(f, "no REPLY from DHCPv6 server {server}, which had sent an ADVERTISE,")?;
            }
            Trouble::Refused(server, status) => {
                write!(f, "DHCPv6 server {server} refused ({status}); no other")?;
            }
            Trouble::NoAddress(server) => {
                write!(f, "DHCPv6 server {server} has no address to give; no other")?;
            }
        }
        write!(f, " within {} s", self.after.as_secs())
    }
}

/// A client, for one address on one link.
#[derive(Debug)]
pub struct Client {
    /// The DUID.
    id: Vec<u8>,
    timing: Timing,
    random: Random,
    xid: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Looks for a lease.
    Searching(Box<Search>),
    /// Has one.
    Holding(Box<Holding>),
    /// Is no more.
    Ended,
}

#[derive(Debug)]
struct Search {
    since: Time,
    /// When to give up; never if the container had a lease before.
    until: Option<Time>,
    trouble: Trouble,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Waits before it looks for a server.
    Pausing { until: Time },
    /// Has asked who has an address.
    Soliciting(Resend),
    /// Has taken one.
    Requesting { of: Offer, sent: Time, until: Time, resend: Resend },
}

/// What a server has advertised.
#[derive(Clone, Debug)]
struct Offer {
    server: IpAddr,
    server_id: Vec<u8>,
    address: Ipv6Addr,
}

#[derive(Clone, Copy, Debug)]
struct Resend {
    pause: Duration,
    at: Time,
}

impl Client {
    /// A client that has no lease yet, known by the DUID `id`. `seed` is what its random numbers come from.
    #[must_use]
    pub fn new(id: Vec<u8>, timing: Timing, seed: u64, now: Time) -> Self {
        let search = Search {
            since: now,
            until: Some(now + timing.resend_timeout),
            trouble: Trouble::NoAdvertise,
            step: Step::Pausing { until: now },
        };
        let state = State::Searching(Box::new(search));
        Self { id, timing, random: Random(seed), xid: 0, state }
    }

    /// A client that had a lease before.
    #[must_use]
    pub fn resume(id: Vec<u8>, timing: Timing, seed: u64, lease: Lease) -> Self {
        Self { id, timing, random: Random(seed), xid: 0, state: holding(lease) }
    }

    /// The lease, if there is one that may be used.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Holding(holding) => Some(holding.lease()),
            State::Searching(_) | State::Ended => None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Searching(search) => match search.step {
                Step::Pausing { .. } | Step::Soliciting(_) => Phase::Selecting,
                Step::Requesting { .. } => Phase::Requesting,
            },
            State::Holding(holding) => holding.phase(),
            State::Ended => Phase::Ended,
        }
    }

    /// Whether it waits for a server's message.
    #[must_use]
    pub fn listens(&self) -> bool {
        match &self.state {
            State::Searching(search) => !matches!(search.step, Step::Pausing { .. }),
            State::Holding(holding) => holding.listens_to().is_some(),
            State::Ended => false,
        }
    }

    /// When [`elapsed`](Self::elapsed) is to be called; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Searching(search) => {
                let next = match &search.step {
                    Step::Pausing { until } => *until,
                    Step::Soliciting(resend) => resend.at,
                    Step::Requesting { until, resend, .. } => resend.at.min(*until),
                };
                Some(search.until.map_or(next, |until| next.min(until)))
            }
            State::Holding(holding) => holding.deadline(),
            State::Ended => None,
        }
    }

    /// Time has passed.
    pub fn elapsed(&mut self, now: Time) -> Vec<Effect> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Searching(search) => self.search_on(search, now),
            State::Holding(holding) => self.hold_on(holding, now),
            State::Ended => Vec::new(),
        }
    }

    /// A message has come from this address. What is not for this client, or not what it waits for, changes nothing.
    pub fn received(&mut self, message: &Message, from: Ipv6Addr, now: Time) -> Vec<Effect> {
        let is_for_us = message.xid == self.xid && message.client_id == self.id;
        if !is_for_us || message.server_id.is_empty() {
            return Vec::new();
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Searching(search) => self.found(search, message, from, now),
            State::Holding(holding) if message.kind == Kind::Reply => {
                self.answered(holding, message, from, now)
            }
            other => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// How to give the address back; `None` if there is none.
    #[must_use]
    pub fn release(&self) -> Option<Effect> {
        let terms = &self.lease()?.terms;
        let ia = association(&[ipv6(terms.address.address)]);
        Some(Effect::Send(self.message(Kind::Release, &terms.server_id, ia, Duration::ZERO)))
    }

    // ------------------------------------------------------------------------------------ looking for a lease

    fn search_on(&mut self, mut search: Box<Search>, now: Time) -> Vec<Effect> {
        if search.until.is_some_and(|until| now >= until) {
            let trouble = match search.step {
                Step::Requesting { of, .. } => Trouble::NoReply(of.server),
                _ => search.trouble,
            };
            return vec![Effect::Failed(Failure { trouble, after: now - search.since })];
        }
        let effect;
        (search.step, effect) = match search.step {
            Step::Pausing { .. } => self.solicit(search.since, None, now),
            Step::Soliciting(resend) => self.solicit(search.since, Some(resend), now),
            Step::Requesting { of, until, .. } if now >= until => {
                search.trouble = Trouble::NoReply(of.server);
                self.solicit(search.since, None, now)
            }
            Step::Requesting { of, sent, until, resend } => {
                let effect = self.request(search.since, &of, now);
                let resend = self.resend(Some(resend), now);
                (Step::Requesting { of, sent, until, resend }, effect)
            }
        };
        self.state = State::Searching(search);
        vec![effect]
    }

    fn solicit(&mut self, since: Time, before: Option<Resend>, now: Time) -> (Step, Effect) {
        if before.is_none() {
            self.xid = self.random.next_u32() & 0x00ff_ffff;
        }
        let message = self.message(Kind::Solicit, &[], association(&[]), now - since);
        (Step::Soliciting(self.resend(before, now)), Effect::Send(message))
    }

    fn request(&self, since: Time, of: &Offer, now: Time) -> Effect {
        let ia = association(&[of.address]);
        Effect::Send(self.message(Kind::Request, &of.server_id, ia, now - since))
    }

    fn found(
        &mut self,
        mut search: Box<Search>,
        message: &Message,
        from: Ipv6Addr,
        now: Time,
    ) -> Vec<Effect> {
        let server = IpAddr::V6(from);
        let mut effects = Vec::new();
        search.step = match (search.step, message.kind) {
            (Step::Soliciting(resend), Kind::Advertise) => match granted(message) {
                Ok((_, address)) => {
                    let server_id = message.server_id.clone();
                    let of = Offer { server, server_id, address: address.address };
                    // Another exchange (section 16.1).
                    self.xid = self.random.next_u32() & 0x00ff_ffff;
                    effects.push(self.request(search.since, &of, now));
                    let until = now + self.timing.timeout;
                    Step::Requesting { of, sent: now, until, resend: self.resend(None, now) }
                }
                Err(status) => {
                    search.trouble = trouble(server, status);
                    Step::Soliciting(resend)
                }
            },
            (Step::Requesting { of, sent, until, resend }, Kind::Reply)
                if message.server_id == of.server_id =>
            {
                match granted(message) {
                    Ok((ia, address)) => {
                        let terms = terms(message, ia, address, from);
                        self.state = holding(Lease { terms, since: sent });
                        return vec![Effect::Bound];
                    }
                    Err(None) => Step::Requesting { of, sent, until, resend },
                    Err(status) => {
                        search.trouble = trouble(server, status);
                        Step::Pausing { until: now + SETBACK_PAUSE }
                    }
                }
            }
            (step, _) => step,
        };
        self.state = State::Searching(search);
        effects
    }

    // ----------------------------------------------------------------------------------------- having a lease

    /// Asks for more time, if it is time to ask; or it is over.
    fn hold_on(&mut self, mut holding: Box<Holding>, now: Time) -> Vec<Effect> {
        let effects = match holding.elapsed(self.timing.timeout, now) {
            Due::End => return vec![Effect::Expired],
            Due::Nothing => Vec::new(),
            Due::Ask(whom) => {
                self.xid = self.random.next_u32() & 0x00ff_ffff;
                let terms = &holding.lease().terms;
                let (kind, server_id): (_, &[u8]) = match whom {
                    Whom::ItsServer => (Kind::Renew, &terms.server_id),
                    Whom::AnyServer => (Kind::Rebind, &[]),
                };
                let ia = association(&[ipv6(terms.address.address)]);
                let message = self.message(kind, server_id, ia, holding.asked_for(now));
                vec![Effect::Send(message)]
            }
        };
        self.state = State::Holding(holding);
        effects
    }

    fn answered(
        &mut self,
        before: Box<Holding>,
        message: &Message,
        from: Ipv6Addr,
        now: Time,
    ) -> Vec<Effect> {
        let may_answer = match before.listens_to() {
            Some(Whom::ItsServer) => message.server_id == before.lease().terms.server_id,
            Some(Whom::AnyServer) => true,
            None => false,
        };
        match granted(message) {
            Ok((ia, address)) if may_answer => {
                let terms = terms(message, ia, address, from);
                self.state = State::Holding(Box::new(before.extended(terms)));
                vec![Effect::Bound]
            }
            Err(Some(status)) if may_answer => {
                let (step, effect) = self.solicit(now, None, now);
                let why = format!("DHCPv6 server {from} refused ({status})");
                let trouble = Trouble::Refused(from.into(), status);
                let search = Search { since: now, until: None, trouble, step };
                self.state = State::Searching(Box::new(search));
                vec![Effect::Unbound(why), effect]
            }
            // It is another server's, or says nothing of the association.
            _ => {
                self.state = State::Holding(before);
                Vec::new()
            }
        }
    }

    fn message(&self, kind: Kind, server_id: &[u8], ia: Ia, elapsed: Duration) -> Message {
        Message {
            kind,
            xid: self.xid,
            client_id: self.id.clone(),
            server_id: server_id.to_vec(),
            elapsed: u16::try_from(elapsed.as_millis() / 10).unwrap_or(u16::MAX),
            ia: Some(ia),
            status: Status::default(),
            nameservers: Vec::new(),
            search: Vec::new(),
        }
    }

    /// When a message is to be sent again that was sent at `before` last.
    fn resend(&mut self, before: Option<Resend>, now: Time) -> Resend {
        let pause = before.map_or(FIRST_PAUSE, |resend| resend.pause * 2);
        let pause = pause.min(self.timing.resend_max);
        Resend { pause, at: now + self.random.around(pause, pause / JITTER) }
    }
}

fn holding(lease: Lease) -> State {
    State::Holding(Box::new(Holding::new(lease)))
}

fn association(addresses: &[Ipv6Addr]) -> Ia {
    let address = |address: &Ipv6Addr| Address { address: *address, preferred: 0, valid: 0 };
    Ia { id: IAID, addresses: addresses.iter().map(address).collect(), ..Ia::default() }
}

/// The address that a message grants, with its association; or why it grants none, if it says so.
fn granted(message: &Message) -> Result<(&Ia, Address), Option<Status>> {
    if !message.status.is_success() {
        return Err(Some(message.status.clone()));
    }
    let ia = message.ia.as_ref().filter(|ia| ia.id == IAID).ok_or(None)?;
    if !ia.status.is_success() {
        return Err(Some(ia.status.clone()));
    }
    // Times that can't be make an association void (section 21.4).
    if ia.renew > ia.rebind && ia.rebind > 0 {
        return Err(None);
    }
    let is_sound = |address: &&Address| {
        let Address { address, preferred, valid } = **address;
        valid > 0 && preferred <= valid && is_unicast(address)
    };
    let no_address = || Some(Status { code: 3, text: "no address is left".to_owned() });
    ia.addresses.iter().find(is_sound).map(|address| (ia, *address)).ok_or_else(no_address)
}

fn is_unicast(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local())
}

fn trouble(server: IpAddr, status: Option<Status>) -> Trouble {
    status.map_or(Trouble::NoAddress(server), |status| Trouble::Refused(server, status))
}

fn terms(message: &Message, ia: &Ia, address: Address, from: Ipv6Addr) -> Terms {
    Terms {
        address: Cidr::host(address.address.into()),
        server: from.into(),
        server_id: compact(message.server_id.clone()),
        gateway: None,
        routes: Vec::new(),
        mtu: None,
        nameservers: compact(message.nameservers.iter().copied().map(IpAddr::V6).collect()),
        domain: None,
        search: compact(message.search.clone()),
        times: times(ia, address),
    }
}

/// T1 and T2 are half and four fifths of the preferred lifetime where the server leaves it to the client (section
/// 21.4), and come before the end.
fn times(ia: &Ia, address: Address) -> Times {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    if address.valid == FOR_EVER {
        let never = seconds(FOR_EVER);
        return Times { renew: never, rebind: never, expire: None };
    }
    let (valid, preferred) = (seconds(address.valid), seconds(address.preferred));
    let rebind = if ia.rebind == 0 { preferred * 4 / 5 } else { seconds(ia.rebind) }.min(valid);
    let renew = if ia.renew == 0 { preferred / 2 } else { seconds(ia.renew) }.min(rebind);
    Times { renew, rebind, expire: Some(valid) }
}

/// The terms of this family have no others.
fn ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    }
}

#[cfg(test)]
mod tests;
