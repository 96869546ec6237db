//! The format of messages (RFC 8415 sections 8 and 21, RFC 3646), as far as a client needs it.

use std::fmt;
use std::net::Ipv6Addr;

use crate::ipam::dhcp::v4::terms::domains;

/// The ports of servers and clients (section 7.2).
pub const SERVER_PORT: u16 = 547;
/// See [`SERVER_PORT`].
pub const CLIENT_PORT: u16 = 546;
/// `All_DHCP_Relay_Agents_and_Servers` (section 7.1).
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Codes of options (section 21, RFC 3646).
mod option {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_ADDRESS: u16 = 5;
    pub const REQUESTED: u16 = 6;
    pub const ELAPSED: u16 = 8;
    pub const STATUS: u16 = 13;
    pub const NAME_SERVERS: u16 = 23;
    pub const SEARCH: u16 = 24;
}

/// What a client asks for.
const REQUESTED: [u16; 2] = [option::NAME_SERVERS, option::SEARCH];
/// How many addresses or name servers are taken at most.
const MOST: usize = 64;

/// What a message is for (section 7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Who has an address for me?
    Solicit = 1,
    /// I do.
    Advertise = 2,
    /// I take it.
    Request = 3,
    /// I want to keep it, of the server that I have it of.
    Renew = 5,
    /// I want to keep it, of any server.
    Rebind = 6,
    /// So it is; or why not.
    Reply = 7,
    /// I have no use for it any more.
    Release = 8,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Solicit,
            2 => Self::Advertise,
            3 => Self::Request,
            5 => Self::Renew,
            6 => Self::Rebind,
            7 => Self::Reply,
            8 => Self::Release,
            _ => return None,
        })
    }
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// By which an answer is told from others: 24 bits.
    pub xid: u32,
    /// The client's DUID.
    pub client_id: Vec<u8>,
    /// The server's DUID; empty if it is to be any.
    pub server_id: Vec<u8>,
    /// Hundredths of a second since the client began; a client's only.
    pub elapsed: u16,
    /// What it is about.
    pub ia: Option<Ia>,
    /// How it went; success if nothing is said.
    pub status: Status,
    /// Servers for name resolution; a server's only.
    pub nameservers: Vec<Ipv6Addr>,
    /// Domains to search; a server's only.
    pub search: Vec<String>,
}

/// An association of a client's interface with addresses, `IA_NA` (section 21.4).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ia {
    /// Which of the client's.
    pub id: u32,
    /// T1 in seconds; 0 leaves it to the client.
    pub renew: u32,
    /// T2 in seconds; 0 leaves it to the client.
    pub rebind: u32,
    /// The addresses.
    pub addresses: Vec<Address>,
    /// How it went.
    pub status: Status,
}

/// An address (section 21.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address itself.
    pub address: Ipv6Addr,
    /// For how many seconds new connections may be made from it.
    pub preferred: u32,
    /// For how many seconds it may be used; 0: no longer.
    pub valid: u32,
}

/// How it went (section 21.13).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Status {
    /// 0: well.
    pub code: u16,
    /// In the server's words.
    pub text: String,
}

impl Status {
    /// Whether it went well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == 0
    }

    fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let (code, text) = value.split_first_chunk().ok_or(Malformed("status cut short"))?;
        let text = String::from_utf8_lossy(text);
        let text = text.chars().filter(|c| !c.is_control()).collect();
        Ok(Self { code: u16::from_be_bytes(*code), text })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.code {
            0 => "Success",
            1 => "UnspecFail",
            2 => "NoAddrsAvail",
            3 => "NoBinding",
            4 => "NotOnLink",
            5 => "UseMulticast",
            code => return write!(f, "status {code} {}", self.text),
        };
        f.write_str(name)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl Message {
    /// The message as a client sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let [_, xid @ ..] = self.xid.to_be_bytes();
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(&xid);
        put(&mut bytes, option::CLIENT_ID, &self.client_id);
        if !self.server_id.is_empty() {
            put(&mut bytes, option::SERVER_ID, &self.server_id);
        }
        put(&mut bytes, option::ELAPSED, &self.elapsed.to_be_bytes());
        if let Some(ia) = &self.ia {
            put(&mut bytes, option::IA_NA, &ia.encode());
        }
        if self.kind != Kind::Release {
            let requested: Vec<u8> = REQUESTED.iter().flat_map(|code| code.to_be_bytes()).collect();
            put(&mut bytes, option::REQUESTED, &requested);
        }
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is not one, or an option does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let ([kind, a, b, c], options) =
            bytes.split_first_chunk().ok_or(Malformed("message too short"))?;
        let mut message = Self {
            kind: Kind::from_code(*kind).ok_or(Malformed("none that a client or server sends"))?,
            xid: u32::from_be_bytes([0, *a, *b, *c]),
            client_id: Vec::new(),
            server_id: Vec::new(),
            elapsed: 0,
            ia: None,
            status: Status::default(),
            nameservers: Vec::new(),
            search: Vec::new(),
        };
        for entry in Options(options) {
            let (code, value) = entry?;
            match code {
                option::CLIENT_ID => message.client_id = value.to_vec(),
                option::SERVER_ID => message.server_id = value.to_vec(),
                option::ELAPSED => {
                    let elapsed = value.try_into().map_err(|_| Malformed("elapsed time"))?;
                    message.elapsed = u16::from_be_bytes(elapsed);
                }
                // Of several the first is ours: the client asks for one.
                option::IA_NA if message.ia.is_none() => message.ia = Some(Ia::decode(value)?),
                option::STATUS => message.status = Status::decode(value)?,
                option::NAME_SERVERS => {
                    let (addresses, _) = value.as_chunks::<16>();
                    let addresses = addresses.iter().take(MOST).copied();
                    message.nameservers = addresses.map(Ipv6Addr::from).collect();
                }
                option::SEARCH => message.search = domains(value),
                _ => {}
            }
        }
        Ok(message)
    }
}

impl Ia {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [self.id, self.renew, self.rebind] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        for Address { address, preferred, valid } in &self.addresses {
            let mut value = address.octets().to_vec();
            value.extend_from_slice(&preferred.to_be_bytes());
            value.extend_from_slice(&valid.to_be_bytes());
            put(&mut bytes, option::IA_ADDRESS, &value);
        }
        bytes
    }

    fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let (fields, options) = value.split_first_chunk::<12>().ok_or(Malformed("IA cut short"))?;
        let ([id, renew, rebind], _) = fields.as_chunks::<4>() else {
            return Err(Malformed("IA cut short"));
        };
        let [id, renew, rebind] = [id, renew, rebind].map(|field| u32::from_be_bytes(*field));
        let mut ia = Self { id, renew, rebind, addresses: Vec::new(), status: Status::default() };
        for entry in Options(options) {
            match entry? {
                (option::IA_ADDRESS, value) if ia.addresses.len() < MOST => {
                    ia.addresses.push(Address::decode(value)?);
                }
                (option::STATUS, value) => ia.status = Status::decode(value)?,
                _ => {}
            }
        }
        Ok(ia)
    }
}

impl Address {
    fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let cut = Malformed("address cut short");
        let (address, rest) = value.split_first_chunk::<16>().ok_or(cut)?;
        let (preferred, rest) = rest.split_first_chunk().ok_or(cut)?;
        let (valid, _) = rest.split_first_chunk().ok_or(cut)?;
        Ok(Self {
            address: Ipv6Addr::from(*address),
            preferred: u32::from_be_bytes(*preferred),
            valid: u32::from_be_bytes(*valid),
        })
    }
}

fn put(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(value);
}

/// Options, one after the other: code and value.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = |bytes: &'a [u8]| {
            let ([a, b, c, d], rest) = bytes.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            let (value, rest) = rest.split_at_checked(length)?;
            Some((u16::from_be_bytes([*a, *b]), value, rest))
        };
        let Some((code, value, rest)) = read(self.0) else {
            self.0 = &[];
            return Some(Err(Malformed("option longer than the message")));
        };
        self.0 = rest;
        Some(Ok((code, value)))
    }
}

#[cfg(test)]
mod tests;
