//! The format of messages (RFC 2131 section 2, RFC 2132, RFC 3396).

use std::net::Ipv4Addr;

use crate::net::Mac;

/// A message, of a client or a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// `op`: a server's.
    pub is_reply: bool,
    /// By which an answer is told from others.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// `flags`: answer by broadcast.
    pub broadcast: bool,
    /// `ciaddr`: the address that the client has and can be reached at; else unspecified.
    pub ciaddr: Ipv4Addr,
    /// `yiaddr`: the address that the server gives.
    pub yiaddr: Ipv4Addr,
    /// `siaddr`: the next server to boot from. It is not the DHCP server's.
    pub siaddr: Ipv4Addr,
    /// `giaddr`: the relay's.
    pub giaddr: Ipv4Addr,
    /// `chaddr`: the client's link-layer address.
    pub mac: Mac,
    /// What else there is to say, the message's [`Kind`] among it.
    pub options: Options,
}

/// Option 53, what a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Who has an address for me?
    Discover = 1,
    /// You may have this one.
    Offer = 2,
    /// I take it; or, I want to keep it.
    Request = 3,
    /// Somebody else uses it.
    Decline = 4,
    /// It is yours.
    Ack = 5,
    /// It is not.
    Nak = 6,
    /// I have no use for it any more.
    Release = 7,
    /// I have an address, what else is there to know?
    Inform = 8,
}

/// Options, each code once: what came in several parts is put together (RFC 3396).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Options {
    /// In the order in which they came, or were set.
    entries: Vec<(u8, Vec<u8>)>,
}

impl Options {
    /// The value of an option.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.entries.iter().find(|(other, _)| *other == code).map(|(_, value)| value.as_slice())
    }

    /// Sets an option, in the place of its value before.
    pub fn set(&mut self, code: u8, value: &[u8]) {
        match self.entries.iter_mut().find(|(other, _)| *other == code) {
            Some((_, old)) => *old = value.to_vec(),
            None => self.entries.push((code, value.to_vec())),
        }
    }
}
