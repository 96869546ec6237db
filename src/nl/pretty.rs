//! Shows netlink messages to people: message types, flags, family headers and attributes in the
//! kernel's own names, one attribute a line, what an attribute holds indented below it.
//!
//! ```text
//! RTM_NEWADDR #4 REQUEST|EXCL|CREATE AF_INET prefix 24 flags 0 scope global link 2
//!     IFA_LOCAL 10.1.0.2
//!     IFA_ADDRESS 10.1.0.2
//!     IFA_BROADCAST 10.1.0.255
//! ```
//!
//! Any bytes can be shown. What is of no known type is `type 37: 0102…`; what has not the form that its
//! type asks for is shown in hexadecimal.

mod tables;

use std::fmt::{self, Write};

use nix::errno::Errno;

use super::nft::set::comment;
use super::socket::{Family, NLMSG_DONE, NLMSG_ERROR, NLMSGERR_ATTR_OFFS, echoed_length};
use super::wire::{
    ATTRIBUTE_HEADER, Attribute, Attributes, Flags, MESSAGE_HEADER, Malformed, Message, Messages,
};

/// How many bytes are shown of a value that means nothing to us.
const SHOWN: usize = 32;
/// How deep attributes are looked into. The kernel's own go down to 9.
const DEEPEST: usize = 16;

/// Attributes by number: name, and what they hold.
type Table = &'static [(&'static str, Format)];

/// What an attribute holds.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// Something that is not looked into.
    Bytes,
    /// Nothing: it is there or not.
    Flag,
    /// A number in host order, of the payload's width.
    Number,
    /// The same with a sign, of 32 bits.
    Signed,
    /// A number in network order.
    Be,
    /// The same with a sign, of 32 bits.
    BeSigned,
    /// A number in host order that has a name.
    Named(&'static [&'static str]),
    /// A number in network order that has a name.
    BeNamed(&'static [&'static str]),
    /// A number in host order whose bits have names.
    Bits(&'static [&'static str]),
    /// Text.
    Text,
    /// A link-layer address.
    Mac,
    /// An IP address.
    Ip,
    /// Attributes.
    Nest(Table),
    /// A veth's other end: a link's header and attributes.
    Peer,
    /// Text that says what [`Data`](Self::Data) behind it is about.
    Name,
    /// Attributes of the table that the name stands for.
    Data(&'static [(&'static str, Table)]),
    /// `struct rtnexthop` (linux/rtnetlink.h), each with a route's attributes.
    NextHops,
    /// An element's user data.
    Comment,
    /// `struct bridge_vlan_info` (linux/if_bridge.h)
    VlanInfo,
}

/// What stands between a message's header and its attributes.
#[derive(Clone, Copy, Debug)]
enum FamilyHeader {
    /// `struct ifinfomsg`
    Link,
    /// `struct ifaddrmsg`
    Address,
    /// `struct rtmsg`
    Route,
    /// `struct br_vlan_msg`
    BridgeVlan,
    /// `struct nfgenmsg`
    Netfilter,
}

/// A type of message.
#[derive(Debug)]
struct Kind {
    number: u16,
    name: &'static str,
    header: FamilyHeader,
    attributes: Table,
}

impl Kind {
    const fn new(number: u16, name: &'static str, header: FamilyHeader, attributes: Table) -> Self {
        Self { number, name, header, attributes }
    }

    fn of(family: Family, number: u16) -> Option<&'static Self> {
        let kinds = match family {
            Family::Route => tables::ROUTE,
            Family::Netfilter => tables::NETFILTER,
        };
        kinds.iter().find(|kind| kind.number == number)
    }
}

/// A message to be shown: as `Display`, without a line end.
#[derive(Clone, Copy, Debug)]
pub struct Pretty<'a> {
    family: Family,
    message: Result<Message<'a>, Malformed>,
}

/// The messages of a datagram, sent or received. What does not keep to the format is the last one.
pub fn messages(family: Family, datagram: &[u8]) -> impl Iterator<Item = Pretty<'_>> {
    Messages::new(datagram).map(move |message| Pretty { family, message })
}

impl fmt::Display for Pretty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = match &self.message {
            Ok(message) => message,
            Err(Malformed(what)) => return write!(f, "malformed: {what}"),
        };
        if matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
            return end(f, self.family, message);
        }
        let kind = Kind::of(self.family, message.kind);
        match kind {
            Some(kind) => f.write_str(kind.name)?,
            None => write!(f, "type {}", message.kind)?,
        }
        write!(f, " #{}", message.sequence)?;
        flags(f, message.flags, kind.map_or("", |kind| kind.name))?;
        let shown = kind.and_then(|kind| {
            let attributes = family_header(f, kind.header, message.payload)?;
            Some((kind.attributes, attributes))
        });
        match shown {
            Some((table, Ok(rest))) => attributes(f, table, Attributes::new(rest), 1),
            Some((_, Err(error))) => Err(error),
            None if message.payload.is_empty() => Ok(()),
            None => {
                f.write_str(": ")?;
                hexadecimal(f, message.payload)
            }
        }
    }
}

/// `NLMSG_ERROR` and `NLMSG_DONE`: an error number, of an error the request that it answers, and
/// attributes.
fn end(f: &mut fmt::Formatter<'_>, family: Family, message: &Message<'_>) -> fmt::Result {
    let of_dump = message.kind == NLMSG_DONE;
    f.write_str(if of_dump { "NLMSG_DONE" } else { "NLMSG_ERROR" })?;
    write!(f, " #{}", message.sequence)?;
    flags(f, message.flags, "")?;
    let Some((code, rest)) = message.payload.split_first_chunk::<4>() else {
        f.write_str(": ")?;
        return hexadecimal(f, message.payload);
    };
    // Capped, an error repeats the request's header alone, with the length that the request had.
    let whole = !of_dump && !message.flags.contains(Flags::CAPPED);
    let request = Messages::new(rest).next().and_then(Result::ok).filter(|_| whole);
    let number = rest.get(4..6).and_then(|kind| kind.first_chunk()).filter(|_| !of_dump);
    if let Some(number) = number.map(|number| u16::from_ne_bytes(*number)) {
        match Kind::of(family, number) {
            Some(kind) => write!(f, " for {}", kind.name)?,
            None => write!(f, " for type {number}")?,
        }
    }
    match i32::from_ne_bytes(*code) {
        0 => f.write_str(": 0 (no error)")?,
        code if code < 0 => {
            let errno = Errno::from_raw(code.saturating_neg());
            write!(f, ": {errno:?} ({})", errno.desc())?;
        }
        code => write!(f, ": {code}")?,
    }
    if !message.flags.contains(Flags::ACK_TLVS) {
        return Ok(());
    }
    let echoed = if of_dump { 0 } else { echoed_length(message, rest) };
    for attribute in Attributes::new(rest.get(echoed..).unwrap_or_default()) {
        new_line(f, 1)?;
        let Ok(attribute) = attribute else { return f.write_str("malformed") };
        show(f, tables::NLMSGERR, &attribute, None, 1)?;
        if let Ok(offset) = attribute.u32()
            && attribute.kind == NLMSGERR_ATTR_OFFS
            && let Some(name) = request.and_then(|request| name_at(family, &request, offset))
        {
            write!(f, " ({name})")?;
        }
    }
    Ok(())
}

/// Name of the attribute at this offset of a request.
fn name_at(family: Family, request: &Message<'_>, offset: u32) -> Option<&'static str> {
    let kind = Kind::of(family, request.kind)?;
    let header = kind.header.length();
    let mut offset = (offset as usize).checked_sub(MESSAGE_HEADER + header)?;
    let (mut table, mut bytes) = (kind.attributes, request.payload.get(header..)?);
    // Down from attribute to attribute, to the one that begins there.
    for _ in 0..DEEPEST {
        let (mut begin, mut names) = (0, Names::default());
        let found = Attributes::new(bytes).flatten().find(|attribute| {
            let next = begin + (ATTRIBUTE_HEADER + attribute.payload.len()).next_multiple_of(4);
            names.note(table, attribute);
            if offset < next {
                return true;
            }
            begin = next;
            false
        })?;
        let (name, format) = table.get(usize::from(found.kind))?;
        if begin == offset {
            return Some(name);
        }
        let (skipped, inner) = match *format {
            Format::Nest(table) => (0, table),
            Format::Peer => (FamilyHeader::Link.length(), tables::LINK),
            Format::Data(choice) => (0, names.choose(choice)?),
            _ => return None,
        };
        table = inner;
        offset = offset.checked_sub(begin + ATTRIBUTE_HEADER + skipped)?;
        bytes = found.payload.get(skipped..)?;
    }
    None
}

/// The name that was told last at one level of attributes.
#[derive(Default)]
struct Names(Option<String>);

impl Names {
    fn note(&mut self, table: Table, attribute: &Attribute<'_>) {
        if let Some((_, Format::Name)) = table.get(usize::from(attribute.kind)) {
            self.0 = Some(attribute.text());
        }
    }

    fn choose(&self, choice: &[(&str, Table)]) -> Option<Table> {
        let name = self.0.as_deref()?;
        choice.iter().find(|(of, _)| *of == name).map(|(_, table)| *table)
    }
}

/// What flags mean depends on the type of message.
fn flags(f: &mut fmt::Formatter<'_>, flags: Flags, name: &str) -> fmt::Result {
    const COMMON: [&str; 8] =
        ["REQUEST", "MULTI", "ACK", "ECHO", "DUMP_INTR", "DUMP_FILTERED", "0x40", "0x80"];
    let special = if !flags.contains(Flags::REQUEST) {
        ["CAPPED", "ACK_TLVS", "0x400", "0x800"]
    } else if name.contains("_GET") {
        ["ROOT", "MATCH", "ATOMIC", "0x800"]
    } else if name.contains("_DEL") {
        ["NONREC", "BULK", "0x400", "0x800"]
    } else {
        ["REPLACE", "EXCL", "CREATE", "APPEND"]
    };
    let mut names = COMMON.to_vec();
    names.extend(special);
    if flags.is_empty() {
        return Ok(());
    }
    f.write_char(' ')?;
    if name.contains("_GET") && flags.contains(Flags::DUMP) {
        f.write_str("DUMP|")?;
        return bits(f, (flags - Flags::DUMP).bits().into(), &names);
    }
    bits(f, flags.bits().into(), &names)
}

impl FamilyHeader {
    const fn length(self) -> usize {
        match self {
            Self::Link => 16,
            Self::Address | Self::BridgeVlan => 8,
            Self::Route => 12,
            Self::Netfilter => 4,
        }
    }
}

/// Shows a family header, and returns what is behind it; `None` if there is none.
fn family_header<'a>(
    f: &mut fmt::Formatter<'_>,
    header: FamilyHeader,
    bytes: &'a [u8],
) -> Option<Result<&'a [u8], fmt::Error>> {
    let (bytes, rest) = bytes.split_at_checked(header.length())?;
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let number = |at: usize| {
        let number = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
        number.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    let shown = match header {
        FamilyHeader::Link => address_family(f, byte(0)).and_then(|()| {
            write!(f, " link {} flags ", number(4))?;
            bits(f, number(8).into(), tables::LINK_FLAGS)?;
            f.write_str(" change ")?;
            bits(f, number(12).into(), tables::LINK_FLAGS)
        }),
        FamilyHeader::Address => address_family(f, byte(0)).and_then(|()| {
            write!(f, " prefix {} flags ", byte(1))?;
            bits(f, byte(2).into(), tables::ADDRESS_FLAGS)?;
            write!(f, " scope ")?;
            scope(f, byte(3))?;
            write!(f, " link {}", number(4))
        }),
        FamilyHeader::Route => address_family(f, byte(0)).and_then(|()| {
            write!(f, " prefix {} from {} tos {} table ", byte(1), byte(2), byte(3))?;
            match byte(4) {
                libc::RT_TABLE_MAIN => f.write_str("main")?,
                libc::RT_TABLE_LOCAL => f.write_str("local")?,
                other => write!(f, "{other}")?,
            }
            f.write_str(" protocol ")?;
            named(f, byte(5).into(), tables::ROUTE_PROTOCOLS)?;
            f.write_str(" scope ")?;
            scope(f, byte(6))?;
            f.write_str(" type ")?;
            named(f, byte(7).into(), tables::ROUTE_TYPES)?;
            write!(f, " flags {:#x}", number(8))
        }),
        FamilyHeader::BridgeVlan => {
            address_family(f, byte(0)).and_then(|()| write!(f, " link {}", number(4)))
        }
        FamilyHeader::Netfilter => {
            let family = match byte(0) {
                0 => "unspec".to_owned(),
                1 => "inet".to_owned(),
                2 => "ip".to_owned(),
                7 => "bridge".to_owned(),
                10 => "ip6".to_owned(),
                other => format!("family {other}"),
            };
            let resource = u16::from_be_bytes([byte(2), byte(3)]);
            write!(f, " {family} version {} resource {resource}", byte(1))
        }
    };
    Some(shown.map(|()| rest))
}

fn address_family(f: &mut fmt::Formatter<'_>, family: u8) -> fmt::Result {
    match i32::from(family) {
        libc::AF_UNSPEC => f.write_str(" AF_UNSPEC"),
        libc::AF_INET => f.write_str(" AF_INET"),
        libc::AF_INET6 => f.write_str(" AF_INET6"),
        libc::AF_BRIDGE => f.write_str(" AF_BRIDGE"),
        other => write!(f, " family {other}"),
    }
}

/// `RT_SCOPE_…` (linux/rtnetlink.h), as ip(8) writes it.
fn scope(f: &mut fmt::Formatter<'_>, scope: u8) -> fmt::Result {
    match scope {
        libc::RT_SCOPE_UNIVERSE => f.write_str("global"),
        libc::RT_SCOPE_SITE => f.write_str("site"),
        libc::RT_SCOPE_LINK => f.write_str("link"),
        libc::RT_SCOPE_HOST => f.write_str("host"),
        libc::RT_SCOPE_NOWHERE => f.write_str("nowhere"),
        other => write!(f, "{other}"),
    }
}

fn attributes(
    f: &mut fmt::Formatter<'_>,
    table: Table,
    attributes: Attributes<'_>,
    depth: usize,
) -> fmt::Result {
    let mut names = Names::default();
    for attribute in attributes {
        new_line(f, depth)?;
        match attribute {
            Ok(attribute) => {
                names.note(table, &attribute);
                show(f, table, &attribute, Some(&names), depth)?;
            }
            Err(Malformed(what)) => write!(f, "malformed: {what}")?,
        }
    }
    Ok(())
}

/// Shows an attribute: its name and what it holds.
fn show(
    f: &mut fmt::Formatter<'_>,
    table: Table,
    attribute: &Attribute<'_>,
    names: Option<&Names>,
    depth: usize,
) -> fmt::Result {
    let payload = attribute.payload;
    let format = match table.get(usize::from(attribute.kind)) {
        Some((name, format)) if !name.is_empty() => {
            f.write_str(name)?;
            *format
        }
        _ => {
            write!(f, "type {}:", attribute.kind)?;
            Format::Bytes
        }
    };
    let nested = |bytes| {
        let attributes = Attributes::new(bytes);
        (depth < DEEPEST && attributes.clone().all(|a| a.is_ok())).then_some(attributes)
    };
    let shown = match format {
        Format::Bytes | Format::Flag => None,
        Format::Number => number(payload).map(|number| write!(f, " {number}")),
        Format::Signed => attribute.u32().ok().map(|number| write!(f, " {}", number.cast_signed())),
        Format::Be => be_number(payload).map(|number| write!(f, " {number}")),
        Format::BeSigned => {
            attribute.be32().ok().map(|number| write!(f, " {}", number.cast_signed()))
        }
        Format::Named(names) => number(payload).map(|number| {
            f.write_char(' ')?;
            named(f, number, names)
        }),
        Format::BeNamed(names) => be_number(payload).map(|number| {
            f.write_char(' ')?;
            named(f, number, names)
        }),
        Format::Bits(names) => number(payload).map(|number| {
            f.write_char(' ')?;
            bits(f, number, names)
        }),
        Format::Text | Format::Name => Some(write!(f, " {:?}", attribute.text())),
        Format::Mac => attribute.mac().map(|mac| write!(f, " {mac}")),
        Format::Ip => attribute.ip().ok().map(|ip| write!(f, " {ip}")),
        Format::Nest(table) => nested(payload).map(|inner| attributes(f, table, inner, depth + 1)),
        Format::Data(choice) => names
            .and_then(|names| names.choose(choice))
            .and_then(|table| nested(payload).map(|inner| attributes(f, table, inner, depth + 1))),
        Format::Peer => payload
            .get(FamilyHeader::Link.length()..)
            .and_then(nested)
            .and_then(|inner| Some((family_header(f, FamilyHeader::Link, payload)?, inner)))
            .map(|(shown, inner)| {
                shown.and_then(|_| attributes(f, tables::LINK, inner, depth + 1))
            }),
        Format::NextHops => nested(payload).map(|hops| next_hops(f, hops, depth + 1)),
        Format::Comment => Some(comment(payload))
            .filter(|comment| !comment.is_empty())
            .map(|comment| write!(f, " comment {comment:?}")),
        Format::VlanInfo => payload
            .split_first_chunk::<2>()
            .and_then(|(flags, number)| {
                let number = u16::from_ne_bytes(*number.first_chunk()?);
                Some((u16::from_ne_bytes(*flags), number))
            })
            .map(|(flags, number)| {
                write!(f, " {number} flags ")?;
                bits(f, flags.into(), tables::VLAN_FLAGS)
            }),
    };
    match shown {
        Some(shown) => shown,
        None if payload.is_empty() => Ok(()),
        None => {
            f.write_char(' ')?;
            hexadecimal(f, payload)
        }
    }
}

/// `struct rtnexthop` begins as an attribute does, with its length and two bytes; then the link's index,
/// then attributes.
fn next_hops(f: &mut fmt::Formatter<'_>, hops: Attributes<'_>, depth: usize) -> fmt::Result {
    for hop in hops.flatten() {
        new_line(f, depth)?;
        match hop.payload.split_first_chunk::<4>() {
            Some((link, inner)) if depth < DEEPEST => {
                write!(f, "next hop link {}", u32::from_ne_bytes(*link))?;
                attributes(f, tables::ROUTES, Attributes::new(inner), depth + 1)?;
            }
            _ => hexadecimal(f, hop.payload)?,
        }
    }
    Ok(())
}

fn new_line(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    write!(f, "\n{:1$}", "", 4 * depth)
}

/// A number in host order, of any width.
fn number(bytes: &[u8]) -> Option<u64> {
    Some(match *bytes {
        [byte] => byte.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        _ => u64::from_ne_bytes(bytes.try_into().ok()?),
    })
}

/// A number in network order, of any width.
fn be_number(bytes: &[u8]) -> Option<u64> {
    matches!(bytes.len(), 1 | 2 | 4 | 8)
        .then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn named(f: &mut fmt::Formatter<'_>, number: u64, names: &[&str]) -> fmt::Result {
    match usize::try_from(number).ok().and_then(|number| names.get(number)) {
        Some(name) => f.write_str(name),
        None => write!(f, "{number}"),
    }
}

/// Names of the bits that are set; those without name as one number.
fn bits(f: &mut fmt::Formatter<'_>, mut number: u64, names: &[&str]) -> fmt::Result {
    if number == 0 {
        return f.write_char('0');
    }
    let mut separator = "";
    for (bit, name) in names.iter().enumerate() {
        if number & 1 << bit != 0 {
            write!(f, "{separator}{name}")?;
            separator = "|";
            number &= !(1 << bit);
        }
    }
    if number != 0 { write!(f, "{separator}{number:#x}") } else { Ok(()) }
}

fn hexadecimal(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
    if bytes.len() > SHOWN { write!(f, "… ({} bytes)", bytes.len()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
