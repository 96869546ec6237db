//! The format of messages (RFC 2131 section 2, RFC 2132, RFC 3396).
//!
//! [`Message::decode`] checks what every message must have, and takes options apart; what an option's value means
//! is for whoever asks: a value of the wrong length is as if the option were not there.

use std::fmt;
use std::net::Ipv4Addr;

use crate::net::Mac;

/// Codes of options (RFC 2132, RFC 3004, RFC 3397, RFC 3442).
pub mod option {
    /// Nothing, one byte long.
    pub const PAD: u8 = 0;
    /// The network's mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers, by preference.
    pub const ROUTERS: u8 = 3;
    /// Servers for name resolution, by preference.
    pub const NAME_SERVERS: u8 = 6;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// The local domain.
    pub const DOMAIN: u8 = 15;
    /// The link's MTU.
    pub const MTU: u8 = 26;
    /// Routes to addresses, by the classes that networks had.
    pub const STATIC_ROUTES: u8 = 33;
    /// The address that the client wants.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Seconds that the lease lasts.
    pub const LEASE_TIME: u8 = 51;
    /// The fields `file` and `sname` hold options.
    pub const OVERLOAD: u8 = 52;
    /// What the message is for.
    pub const KIND: u8 = 53;
    /// The server's address.
    pub const SERVER: u8 = 54;
    /// Codes of the options that the client asks for.
    pub const PARAMETERS: u8 = 55;
    /// Why a server refuses, or a client declines.
    pub const TEXT: u8 = 56;
    /// The longest message that the client takes, in bytes.
    pub const LONGEST_MESSAGE: u8 = 57;
    /// Seconds until T1.
    pub const RENEWAL_TIME: u8 = 58;
    /// Seconds until T2.
    pub const REBINDING_TIME: u8 = 59;
    /// What kind of client it is.
    pub const VENDOR_CLASS: u8 = 60;
    /// What the client is known by.
    pub const CLIENT_ID: u8 = 61;
    /// What its users belong to.
    pub const USER_CLASS: u8 = 77;
    /// Domains to search.
    pub const SEARCH: u8 = 119;
    /// Routes.
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// The end of options, one byte long.
    pub const END: u8 = 255;
}

/// Length of the fields before options (RFC 2131, figure 1), the cookie included.
const HEADER: usize = 240;
/// What a message begins with: hardware type 1 (Ethernet), addresses of 6 bytes.
const ETHERNET: [u8; 2] = [1, 6];
const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
/// What tells options from what BOOTP had in their place.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// In `flags`: answer by broadcast.
const BROADCAST: u16 = 0x8000;
/// The shortest message: BOOTP's, which some relays insist on (RFC 1542, section 2.1).
const SHORTEST: usize = 300;
/// The longest part of an option's value that fits behind one length.
const LONGEST_PART: usize = 255;

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

impl Kind {
    /// The kind of this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => return None,
        })
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Message {
    /// What it is for; `None` if it is no message of DHCP's.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self.options.get(option::KIND)? {
            [code] => Kind::from_code(*code),
            _ => None,
        }
    }

    /// The message as it is sent. What it is for comes first among the options.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SHORTEST);
        bytes.push(if self.is_reply { BOOTREPLY } else { BOOTREQUEST });
        bytes.extend_from_slice(&ETHERNET);
        bytes.push(0); // hops
        bytes.extend_from_slice(&self.xid.to_be_bytes());
        bytes.extend_from_slice(&self.secs.to_be_bytes());
        bytes.extend_from_slice(&if self.broadcast { BROADCAST } else { 0 }.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend_from_slice(&address.octets());
        }
        bytes.extend_from_slice(&self.mac.0);
        // The rest of chaddr, sname and file.
        bytes.resize(HEADER - COOKIE.len(), 0);
        bytes.extend_from_slice(&COOKIE);
        let (first, others): (Vec<_>, Vec<_>) =
            self.options.iter().partition(|(code, _)| *code == option::KIND);
        for (code, value) in first.into_iter().chain(others) {
            put(&mut bytes, code, value);
        }
        bytes.push(option::END);
        bytes.resize(bytes.len().max(SHORTEST), option::PAD);
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is not one: too short, not for Ethernet, without the cookie, or an option does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, options) =
            bytes.split_first_chunk::<HEADER>().ok_or(Malformed("message too short"))?;
        let mut header = Reader(header);
        let is_reply = match header.take()? {
            [BOOTREQUEST] => false,
            [BOOTREPLY] => true,
            _ => return Err(Malformed("neither request nor reply")),
        };
        if header.take()? != ETHERNET {
            return Err(Malformed("not for Ethernet"));
        }
        let [_hops] = header.take()?;
        let xid = u32::from_be_bytes(header.take()?);
        let secs = u16::from_be_bytes(header.take()?);
        let flags = u16::from_be_bytes(header.take()?);
        let [ciaddr, yiaddr, siaddr, giaddr] =
            [header.take::<4>()?, header.take()?, header.take()?, header.take()?]
                .map(Ipv4Addr::from);
        let mac = Mac(header.take()?);
        let _padding_of_chaddr = header.take::<10>()?;
        let sname = header.take::<64>()?;
        let file = header.take::<128>()?;
        if header.take()? != COOKIE {
            return Err(Malformed("no options of DHCP's"));
        }
        Ok(Self {
            is_reply,
            xid,
            secs,
            broadcast: flags & BROADCAST != 0,
            ciaddr,
            yiaddr,
            siaddr,
            giaddr,
            mac,
            options: Options::decode(options, &file, &sname)?,
        })
    }
}

fn put(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    // An empty value has one part, too.
    let mut parts = value.chunks(LONGEST_PART);
    let first = parts.next().unwrap_or_default();
    for part in std::iter::once(first).chain(parts) {
        bytes.push(code);
        bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(part);
    }
}

/// Bytes that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }
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

    /// Sets an option, in the place of its value before. Padding and end are no options.
    pub fn set(&mut self, code: u8, value: &[u8]) {
        if matches!(code, option::PAD | option::END) {
            return;
        }
        match self.entries.iter_mut().find(|(other, _)| *other == code) {
            Some((_, old)) => *old = value.to_vec(),
            None => self.entries.push((code, value.to_vec())),
        }
    }

    /// All options.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.entries.iter().map(|(code, value)| (*code, value.as_slice()))
    }

    /// The address that an option holds.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(self.get(code)?).ok().map(Ipv4Addr::from)
    }

    /// The addresses that an option holds; none if its length is no multiple of theirs.
    #[must_use]
    pub fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let (addresses, rest) = self.get(code).unwrap_or_default().as_chunks::<4>();
        if rest.is_empty() {
            addresses.iter().copied().map(Ipv4Addr::from).collect()
        } else {
            Vec::new()
        }
    }

    /// The 16-bit number that an option holds.
    #[must_use]
    pub fn u16(&self, code: u8) -> Option<u16> {
        self.get(code)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// The 32-bit number that an option holds.
    #[must_use]
    pub fn u32(&self, code: u8) -> Option<u32> {
        self.get(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// The text that an option holds, without the NULs that some servers end it with; none if it is empty or
    /// has what can't be printed.
    #[must_use]
    pub fn text(&self, code: u8) -> Option<String> {
        let text = std::str::from_utf8(self.get(code)?).ok()?.trim_end_matches('\0');
        (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
    }

    /// Reads the field `options`, then what it says of the fields `file` and `sname`: they may hold options, too,
    /// and are read in this order (RFC 3396, section 5).
    fn decode(options: &[u8], file: &[u8], sname: &[u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        read.append(options)?;
        let overload = match read.get(option::OVERLOAD) {
            Some([fields]) => *fields,
            _ => 0,
        };
        if overload & 1 != 0 {
            read.append(file)?;
        }
        if overload & 2 != 0 {
            read.append(sname)?;
        }
        Ok(read)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        // Some servers leave out the end.
        while let Some((code, rest)) = bytes.split_first() {
            match *code {
                option::PAD => bytes = rest,
                option::END => break,
                code => {
                    let (length, rest) = rest.split_first().ok_or(Malformed("option cut short"))?;
                    let (value, rest) = rest
                        .split_at_checked(usize::from(*length))
                        .ok_or(Malformed("option longer than the message"))?;
                    match self.entries.iter_mut().find(|(other, _)| *other == code) {
                        Some((_, parts)) => parts.extend_from_slice(value),
                        None => self.entries.push((code, value.to_vec())),
                    }
                    bytes = rest;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
