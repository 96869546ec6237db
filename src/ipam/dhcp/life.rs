//! What the lives of all leases have in common, of whatever family.

use std::fmt;
use std::time::Duration;

use crate::ipam::dhcp::protocol::Wanted;
use crate::ipam::dhcp::terms::Terms;
use crate::sys::clock::Time;

/// The least time before a lease's server is asked again (RFC 2131, section 4.4.5); of a short lease it is part of
/// that.
const RENEW_PAUSE: Duration = Duration::from_secs(60);
const RENEW_PAUSES_OF_LEASE: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Of which kind an address is: each has a lease of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether it is asked for.
    #[must_use]
    pub fn is_in(self, wanted: &Wanted) -> bool {
        match self {
            Self::V4 => wanted.ipv4,
            Self::V6 => wanted.ipv6,
        }
    }

    /// Which one it is, of those that ask for one only.
    #[must_use]
    pub fn of(wanted: &Wanted) -> Self {
        if wanted.ipv6 && !wanted.ipv4 { Self::V6 } else { Self::V4 }
    }

    /// What asks for nothing but this family.
    #[must_use]
    pub fn only(self) -> Wanted {
        Wanted { ipv4: self == Self::V4, ipv6: self == Self::V6, ..Wanted::default() }
    }
}

/// How patient a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How long a server may take to acknowledge what it has offered, and how long an answer is listened for.
    pub timeout: Duration,
    /// How long to wait at most before a message is sent again.
    pub resend_max: Duration,
    /// How long to look for an address at all.
    pub resend_timeout: Duration,
    /// How long to probe an address.
    pub probe: Duration,
}

/// A lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// What was granted.
    pub terms: Terms,
    /// When it was asked for: what its times count from.
    pub since: Time,
}

impl Lease {
    /// T1; `None` if it lasts for ever.
    #[must_use]
    pub fn renew_at(&self) -> Option<Time> {
        self.terms.times.expire.map(|_| self.since + self.terms.times.renew)
    }

    /// T2; `None` if it lasts for ever.
    #[must_use]
    pub fn rebind_at(&self) -> Option<Time> {
        self.terms.times.expire.map(|_| self.since + self.terms.times.rebind)
    }

    /// Its end; `None` if it lasts for ever.
    #[must_use]
    pub fn expires_at(&self) -> Option<Time> {
        self.terms.times.expire.map(|expire| self.since + expire)
    }
}

/// A lease that a client has, and the asking for more time.
#[derive(Debug)]
pub struct Holding {
    lease: Lease,
    /// Once T1 has come.
    asked: Option<Box<Asked>>,
}

/// What was asked last.
#[derive(Debug)]
struct Asked {
    whom: Whom,
    /// When: what the times of what is granted count from.
    at: Time,
    /// Until when an answer is listened for, if it still is.
    hears_until: Option<Time>,
    /// When to ask again, or when the lease ends.
    next: Time,
}

/// Who is asked for more time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// The server that has granted the lease.
    ItsServer,
    /// Whoever answers.
    AnyServer,
}

/// What is to be done for a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Ask for more time.
    Ask(Whom),
    /// It is over.
    End,
}

impl Holding {
    /// Nothing has been asked yet.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self { lease, asked: None }
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.asked.as_ref().map(|asked| asked.whom) {
            None => Phase::Bound,
            Some(Whom::ItsServer) => Phase::Renewing,
            Some(Whom::AnyServer) => Phase::Rebinding,
        }
    }

    /// Who was asked last and may answer now; `None` if nobody is listened to.
    #[must_use]
    pub fn listens_to(&self) -> Option<Whom> {
        let asked = self.asked.as_ref()?;
        asked.hears_until.map(|_| asked.whom)
    }

    /// When [`elapsed`](Self::elapsed) is to be called; `None`: never, as the lease lasts for ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.asked {
            None => self.lease.renew_at(),
            Some(asked) => {
                Some(asked.hears_until.map_or(asked.next, |until| until.min(asked.next)))
            }
        }
    }

    /// Time has passed. An answer is listened for as long as `timeout`.
    pub fn elapsed(&mut self, timeout: Duration, now: Time) -> Due {
        if let Some(asked) = &mut self.asked
            && now < asked.next
        {
            asked.hears_until = None;
            return Due::Nothing;
        }
        let times = (self.lease.rebind_at(), self.lease.expires_at());
        let (Some(rebind_at), Some(expires_at)) = times else { return Due::Nothing };
        if now >= expires_at {
            return Due::End;
        }
        let (whom, end) = if now < rebind_at {
            (Whom::ItsServer, rebind_at)
        } else {
            (Whom::AnyServer, expires_at)
        };
        let next = self.next_question(end, now);
        self.asked =
            Some(Box::new(Asked { whom, at: now, hears_until: Some(now + timeout), next }));
        Due::Ask(whom)
    }

    /// How long it has been asked for more time.
    #[must_use]
    pub fn asked_for(&self, now: Time) -> Duration {
        self.lease.renew_at().map_or(Duration::ZERO, |renew_at| now - renew_at)
    }

    /// What was asked for is granted: the lease goes on under these terms.
    #[must_use]
    pub fn extended(&self, terms: Terms) -> Self {
        let since = self.asked.as_ref().map_or(self.lease.since, |asked| asked.at);
        Self::new(Lease { terms, since })
    }

    /// When to ask again, of whom is asked until `end`: when half of the time that is left has passed, but not too
    /// soon.
    fn next_question(&self, end: Time, now: Time) -> Time {
        let all = self.lease.terms.times.expire.unwrap_or_default();
        let shortest = (all / RENEW_PAUSES_OF_LEASE).clamp(SHORTEST_PAUSE, RENEW_PAUSE);
        (now + ((end - now) / 2).max(shortest)).min(end)
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Looks for a server, or is about to.
    Selecting,
    /// Has taken an offer.
    Requesting,
    /// Sees whether another uses the address.
    Probing,
    /// Has a lease.
    Bound,
    /// Asks its server for more time.
    Renewing,
    /// Asks any server for more time.
    Rebinding,
    /// Is no more.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Selecting => "selecting",
            Self::Requesting => "requesting",
            Self::Probing => "probing",
            Self::Bound => "bound",
            Self::Renewing => "renewing",
            Self::Rebinding => "rebinding",
            Self::Ended => "ended",
        })
    }
}

/// Random numbers that nobody's secrecy depends on: `SplitMix64`.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)
    }

    /// A time that is up to `by` more or less, but at least half.
    pub fn around(&mut self, time: Duration, by: Duration) -> Duration {
        let by = by.min(time / 2);
        time - by + (by * 2).mul_f64(f64::from(self.next_u32()) / f64::from(u32::MAX))
    }
}
