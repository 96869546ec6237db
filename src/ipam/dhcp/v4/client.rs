//! The life of a lease (RFC 2131 section 4.4), without a system call: messages and the time go in, and what is to
//! be done comes out, an [`Effect`] each.
//!
//! ```text
//!  selecting ──OFFER──▶ requesting ──ACK──▶ probing ──nobody answers──▶ bound ──T1──▶ renewing ──T2──▶ rebinding
//!      ▲                    │ NAK              │ somebody does            ▲              │ ACK           │ ACK
//!      └─────── pause ◀─────┴──────────────────┘ (DECLINE)                └──────────────┴───────────────┘
//! ```
//! From renewing and rebinding a NAK leads back to selecting, and the end of the lease to the end.
//!
//! A client that has a lease listens only for a while after it has asked: in between it needs no socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::message::{Kind, Message, Options, option};
use super::terms;
use crate::ipam::dhcp::life::{Due, Holding, Lease, Phase, Random, Timing, Whom};
use crate::ipam::dhcp::terms::Terms;
use crate::net::Mac;
use crate::sys::clock::Time;

/// How often a message is sent again quickly, and after how long.
const QUICK_RESENDS: u32 = 4;
const QUICK_PAUSE: Duration = Duration::from_secs(2);
/// After how long then, at first; that doubles each time.
const SLOW_PAUSE: Duration = Duration::from_secs(4);
/// By how much more or less each of these is, so that clients that begin at once do not go on so.
const JITTER: Duration = Duration::from_secs(1);
/// How long to wait after a DECLINE or a NAK. RFC 2131 (section 3.1.5) asks for ten seconds, so that a loop does
/// no harm; of a first one nobody can say that it is one, and somebody waits for the container.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LATER_PAUSE: Duration = Duration::from_secs(10);
/// How many probes are sent (RFC 5227, section 1.1: `PROBE_NUM`).
const PROBES: u32 = 3;
/// The longest message that is taken: what fits into an Ethernet frame.
const LONGEST_MESSAGE: u16 = 1500 - 20 - 8;

/// Who the client is and what it asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conf {
    /// The link's address.
    pub mac: Mac,
    /// Option 61, its type included; [`provided`](Self::provided) may have another.
    pub client_id: Vec<u8>,
    /// Codes of options to ask for.
    pub requested: Vec<u8>,
    /// Options to send.
    pub provided: Vec<(u8, Vec<u8>)>,
    /// Whether servers are to answer by broadcast.
    pub broadcast: Broadcast,
    /// Whether addresses are probed.
    pub probe: Probing,
}

/// Whether servers are to answer by broadcast as long as the client has no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broadcast {
    /// Yes.
    Always,
    /// They may send to the link's address.
    WhenNeeded,
}

/// Whether the network is asked for another user of an address before that is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probing {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send a message.
    Send(Message, Destination),
    /// Ask the network who has this address.
    Probe(Ipv4Addr),
    /// There is a lease: a first one, one that goes on, or another.
    Bound,
    /// The lease is no more; another is looked for.
    Unbound(Refusal),
    /// The lease has ended, and so has the client.
    Expired,
    /// There is no lease to be had; the client has ended.
    Failed(Failure),
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To everybody on the link, from nobody.
    Broadcast,
    /// To a server.
    Server {
        /// The client's address.
        source: Ipv4Addr,
        /// The server's.
        server: Ipv4Addr,
    },
}

/// What the client waits to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listens {
    /// Nothing.
    Nothing,
    /// Messages of servers.
    Messages,
    /// ARP about this address.
    Neighbours(Ipv4Addr),
}

/// A server's no.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The server, if it says who it is.
    pub server: Option<Ipv4Addr>,
    /// Why, in its words.
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server {
            Some(server) => write!(f, "DHCP server {server} refused (NAK)")?,
            None => f.write_str("a DHCP server refused (NAK)")?,
        }
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
    }
}

/// In which step it ended that there is no lease, as text that follows the link's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    trouble: Trouble,
    /// After how long.
    after: Duration,
}

/// What was in the way last.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    /// No server has offered anything.
    NoOffer,
    /// What a server has offered can't be taken.
    BadOffer(String),
    /// A server has not acknowledged what it had offered.
    NoAck(Ipv4Addr),
    /// A server has refused.
    Refused(Refusal),
    /// Another uses the address that this server has offered.
    InUse(Ipv4Addr, Ipv4Addr),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_secs();
        match &self.trouble {
            Trouble::NoOffer => write!(f, "no OFFER from any DHCP server within {after} s"),
            Trouble::BadOffer(why) => {
                write!(f, "no OFFER that can be taken within {after} s: {why}")
            }
            Trouble::NoAck(server) => {
                write!(
                    f,
                    "no ACK from DHCP server {server}, which had made an OFFER, within {after} s"
                )
            }
            Trouble::Refused(refusal) => write!(f, "{refusal}, until {after} s had passed"),
            Trouble::InUse(address, server) => write!(
                f,
                "address {address}, which DHCP server {server} had offered, is in use by another on this \
                 network; no other offer within {after} s"
            ),
        }
    }
}

/// A client, for one address on one link.
#[derive(Debug)]
pub struct Client {
    conf: Conf,
    timing: Timing,
    random: Random,
    /// Of the messages that are to be answered.
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
    /// How often it had to begin anew.
    setbacks: u32,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Waits before it looks for a server.
    Pausing { until: Time },
    /// Has asked for offers.
    Selecting(Resend),
    /// Has taken an offer.
    Requesting { offer: Terms, sent: Time, until: Time, resend: Resend },
    /// Has a lease that it does not use yet.
    Probing { lease: Lease, sent: u32, next: Time },
}

/// When a message is to be sent again.
#[derive(Clone, Copy, Debug)]
struct Resend {
    count: u32,
    at: Time,
}

impl Client {
    /// A client that has no lease yet. `seed` is what its random numbers come from.
    #[must_use]
    pub fn new(conf: Conf, timing: Timing, seed: u64, now: Time) -> Self {
        let step = Step::Pausing { until: now };
        let until = Some(now + timing.resend_timeout);
        let trouble = Trouble::NoOffer;
        let search = Search { since: now, until, trouble, setbacks: 0, step };
        let state = State::Searching(Box::new(search));
        Self { conf, timing, random: Random(seed), xid: 0, state }
    }

    /// A client that had a lease before.
    #[must_use]
    pub fn resume(conf: Conf, timing: Timing, seed: u64, lease: Lease) -> Self {
        Self { conf, timing, random: Random(seed), xid: 0, state: holding(lease) }
    }

    /// What it was made with.
    #[must_use]
    pub fn conf(&self) -> &Conf {
        &self.conf
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
                Step::Pausing { .. } | Step::Selecting(_) => Phase::Selecting,
                Step::Requesting { .. } => Phase::Requesting,
                Step::Probing { .. } => Phase::Probing,
            },
            State::Holding(holding) => holding.phase(),
            State::Ended => Phase::Ended,
        }
    }

    /// What it waits to hear.
    #[must_use]
    pub fn listens(&self) -> Listens {
        match &self.state {
            State::Searching(search) => match &search.step {
                Step::Pausing { .. } => Listens::Nothing,
                Step::Selecting(_) | Step::Requesting { .. } => Listens::Messages,
                Step::Probing { lease, .. } => Listens::Neighbours(address(&lease.terms)),
            },
            State::Holding(holding) if holding.listens_to().is_some() => Listens::Messages,
            State::Holding(_) | State::Ended => Listens::Nothing,
        }
    }

    /// When [`elapsed`](Self::elapsed) is to be called; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Searching(search) => {
                let next = match &search.step {
                    Step::Pausing { until } => *until,
                    Step::Selecting(resend) => resend.at,
                    Step::Requesting { until, resend, .. } => resend.at.min(*until),
                    // The lease is there.
                    Step::Probing { next, .. } => return Some(*next),
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

    /// A message has come. What is not for this client, or not what it waits for, changes nothing.
    pub fn received(&mut self, message: &Message, now: Time) -> Vec<Effect> {
        if !message.is_reply || message.xid != self.xid || message.mac != self.conf.mac {
            return Vec::new();
        }
        let Some(kind) = message.kind() else { return Vec::new() };
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Searching(search) => self.found(search, kind, message, now),
            State::Holding(holding) => self.answered(holding, kind, message, now),
            other => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// Somebody else uses the address that is being probed.
    pub fn conflict(&mut self, now: Time) -> Vec<Effect> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Searching(mut search) if matches!(search.step, Step::Probing { .. }) => {
                let pause = pause_after(search.setbacks);
                let next = Step::Pausing { until: now + pause };
                let step = std::mem::replace(&mut search.step, next);
                search.setbacks += 1;
                let mut effects = Vec::new();
                if let Step::Probing { lease, .. } = step {
                    let (address, server) = (address(&lease.terms), server(&lease.terms));
                    search.trouble = Trouble::InUse(address, server);
                    let mut options = self.identity(Kind::Decline);
                    options.set(option::REQUESTED_ADDRESS, &address.octets());
                    options.set(option::SERVER, &server.octets());
                    options.set(option::TEXT, b"the address is in use");
                    let message = self.message(0, Ipv4Addr::UNSPECIFIED, options);
                    effects.push(Effect::Send(message, Destination::Broadcast));
                }
                self.state = State::Searching(search);
                effects
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
        let lease = match &self.state {
            // Its server has counted on it being used.
            State::Searching(search) => match &search.step {
                Step::Probing { lease, .. } => lease,
                _ => return None,
            },
            _ => self.lease()?,
        };
        let mut options = self.identity(Kind::Release);
        options.set(option::SERVER, &server(&lease.terms).octets());
        let message = self.message(0, address(&lease.terms), options);
        let destination =
            Destination::Server { source: address(&lease.terms), server: server(&lease.terms) };
        Some(Effect::Send(message, destination))
    }

    // ------------------------------------------------------------------------------------ looking for a lease

    fn search_on(&mut self, mut search: Box<Search>, now: Time) -> Vec<Effect> {
        let is_late = search.until.is_some_and(|until| now >= until);
        if is_late && !matches!(search.step, Step::Probing { .. }) {
            let trouble = match search.step {
                Step::Requesting { offer, .. } => Trouble::NoAck(server(&offer)),
                _ => search.trouble,
            };
            return vec![Effect::Failed(Failure { trouble, after: now - search.since })];
        }
        let (step, effects) = match search.step {
            Step::Pausing { .. } => self.discover(search.since, None, now),
            Step::Selecting(resend) => self.discover(search.since, Some(resend), now),
            Step::Requesting { offer, until, .. } if now >= until => {
                search.trouble = Trouble::NoAck(server(&offer));
                self.discover(search.since, None, now)
            }
            Step::Requesting { offer, sent, until, resend } => {
                let effect = self.request(search.since, &offer, now);
                let resend = self.resend(resend.count + 1, now);
                (Step::Requesting { offer, sent, until, resend }, vec![effect])
            }
            Step::Probing { lease, sent: PROBES, .. } => {
                self.state = holding(lease);
                return vec![Effect::Bound];
            }
            Step::Probing { lease, sent, .. } => self.probe(lease, sent, now),
        };
        search.step = step;
        self.state = State::Searching(search);
        effects
    }

    /// Asks for offers: for the first time, or again.
    fn discover(&mut self, since: Time, before: Option<Resend>, now: Time) -> (Step, Vec<Effect>) {
        let count = before.map_or(0, |resend| resend.count + 1);
        if before.is_none() {
            self.xid = self.random.next_u32();
        }
        let options = self.question(Kind::Discover);
        let message = self.message(seconds(now - since), Ipv4Addr::UNSPECIFIED, options);
        let effect = Effect::Send(message, Destination::Broadcast);
        (Step::Selecting(self.resend(count, now)), vec![effect])
    }

    /// Takes an offer.
    fn request(&self, since: Time, offer: &Terms, now: Time) -> Effect {
        let mut options = self.question(Kind::Request);
        options.set(option::REQUESTED_ADDRESS, &address(offer).octets());
        options.set(option::SERVER, &server(offer).octets());
        let message = self.message(seconds(now - since), Ipv4Addr::UNSPECIFIED, options);
        Effect::Send(message, Destination::Broadcast)
    }

    fn probe(&self, lease: Lease, sent: u32, now: Time) -> (Step, Vec<Effect>) {
        let effect = Effect::Probe(address(&lease.terms));
        let next = now + self.timing.probe / PROBES;
        (Step::Probing { lease, sent: sent + 1, next }, vec![effect])
    }

    fn found(
        &mut self,
        mut search: Box<Search>,
        kind: Kind,
        message: &Message,
        now: Time,
    ) -> Vec<Effect> {
        let said_by = message.options.address(option::SERVER).map(IpAddr::V4);
        let (step, effects) = match (search.step, kind) {
            (Step::Selecting(resend), Kind::Offer) => match terms::read(message) {
                Ok(offer) => {
                    let effect = self.request(search.since, &offer, now);
                    let until = now + self.timing.timeout;
                    let resend = self.resend(0, now);
                    (Step::Requesting { offer, sent: now, until, resend }, vec![effect])
                }
                Err(why) => {
                    let of = said_by.map_or_else(String::new, |server| format!(" of {server}"));
                    search.trouble = Trouble::BadOffer(format!("the one{of} has {why}"));
                    (Step::Selecting(resend), Vec::new())
                }
            },
            (Step::Requesting { offer, sent, until, resend }, Kind::Ack) => {
                match terms::read(message) {
                    Ok(terms)
                        if (terms.address.address, terms.server)
                            == (offer.address.address, offer.server) =>
                    {
                        let lease = Lease { terms, since: sent };
                        if self.conf.probe == Probing::Off || self.timing.probe.is_zero() {
                            self.state = holding(lease);
                            return vec![Effect::Bound];
                        }
                        self.probe(lease, 0, now)
                    }
                    _ => (Step::Requesting { offer, sent, until, resend }, Vec::new()),
                }
            }
            (Step::Requesting { offer, .. }, Kind::Nak)
                if said_by.is_none_or(|server| server == offer.server) =>
            {
                search.trouble = Trouble::Refused(refusal(message));
                let until = now + pause_after(search.setbacks);
                search.setbacks += 1;
                (Step::Pausing { until }, Vec::new())
            }
            (step, _) => (step, Vec::new()),
        };
        search.step = step;
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
                self.xid = self.random.next_u32();
                let terms = &holding.lease().terms;
                let (source, server) = (address(terms), server(terms));
                let options = self.question(Kind::Request);
                let message = self.message(seconds(holding.asked_for(now)), source, options);
                let to = match whom {
                    Whom::ItsServer => Destination::Server { source, server },
                    Whom::AnyServer => Destination::Broadcast,
                };
                vec![Effect::Send(message, to)]
            }
        };
        self.state = State::Holding(holding);
        effects
    }

    fn answered(
        &mut self,
        before: Box<Holding>,
        kind: Kind,
        message: &Message,
        now: Time,
    ) -> Vec<Effect> {
        let server = message.options.address(option::SERVER).map(IpAddr::V4);
        let own = before.lease().terms.server;
        let may_answer = match before.listens_to() {
            Some(Whom::ItsServer) => server.is_none_or(|server| server == own),
            Some(Whom::AnyServer) => true,
            None => false,
        };
        match (kind, terms::read(message)) {
            // Some servers acknowledge another address where they should refuse.
            (Kind::Ack, Ok(terms)) if may_answer => {
                self.state = State::Holding(Box::new(before.extended(terms)));
                vec![Effect::Bound]
            }
            (Kind::Nak, _) if may_answer => {
                let refusal = refusal(message);
                let (step, mut effects) = self.discover(now, None, now);
                let trouble = Trouble::Refused(refusal.clone());
                let search = Search { since: now, until: None, trouble, setbacks: 1, step };
                self.state = State::Searching(Box::new(search));
                effects.insert(0, Effect::Unbound(refusal));
                effects
            }
            _ => {
                self.state = State::Holding(before);
                Vec::new()
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ messages

    /// What every message says: what it is for, and who the client is.
    fn identity(&self, kind: Kind) -> Options {
        let mut options = Options::default();
        options.set(option::KIND, &[kind as u8]);
        let provided = self.conf.provided.iter().find(|(code, _)| *code == option::CLIENT_ID);
        options.set(option::CLIENT_ID, provided.map_or(&self.conf.client_id, |(_, value)| value));
        options
    }

    /// What a message says that asks for a lease.
    fn question(&self, kind: Kind) -> Options {
        let mut options = self.identity(kind);
        options.set(option::PARAMETERS, &self.conf.requested);
        options.set(option::LONGEST_MESSAGE, &LONGEST_MESSAGE.to_be_bytes());
        for (code, value) in &self.conf.provided {
            if options.get(*code).is_none() {
                options.set(*code, value);
            }
        }
        options
    }

    fn message(&self, secs: u16, ciaddr: Ipv4Addr, options: Options) -> Message {
        Message {
            is_reply: false,
            xid: self.xid,
            secs,
            // Who has an address can be reached at it.
            broadcast: self.conf.broadcast == Broadcast::Always && ciaddr.is_unspecified(),
            ciaddr,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            mac: self.conf.mac,
            options,
        }
    }

    /// When a message is to be sent again that was sent so often already.
    fn resend(&mut self, count: u32, now: Time) -> Resend {
        let pause = match count.checked_sub(QUICK_RESENDS) {
            None => QUICK_PAUSE,
            Some(slow) => SLOW_PAUSE.saturating_mul(1_u32.checked_shl(slow).unwrap_or(u32::MAX)),
        };
        let pause = pause.min(self.timing.resend_max);
        Resend { count, at: now + self.random.around(pause, JITTER) }
    }
}

fn holding(lease: Lease) -> State {
    State::Holding(Box::new(Holding::new(lease)))
}

fn address(terms: &Terms) -> Ipv4Addr {
    ipv4(terms.address.address)
}

fn server(terms: &Terms) -> Ipv4Addr {
    ipv4(terms.server)
}

/// The terms of this family have no others.
fn ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn refusal(message: &Message) -> Refusal {
    let options = &message.options;
    Refusal { server: options.address(option::SERVER), text: options.text(option::TEXT) }
}

fn pause_after(setbacks: u32) -> Duration {
    if setbacks == 0 { FIRST_PAUSE } else { LATER_PAUSE }
}

fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
