//! VLANs of bridges and their ports: `RTM_NEWVLAN`, `RTM_DELVLAN`, `RTM_GETVLAN` (linux/if_bridge.h, since
//! Linux 5.6). A kernel without `CONFIG_BRIDGE_VLAN_FILTERING` answers all of them with `EOPNOTSUPP`.

use std::fmt;

use nix::errno::Errno;

use super::error::Error;
use super::request::{Query, Request};
use super::socket::{Channel, Family, Socket};
use super::wire::{Attributes, Encoder, Malformed, Message, NESTED};

/// `RTM_NEWVLAN`, `RTM_DELVLAN`, `RTM_GETVLAN` (linux/rtnetlink.h).
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;
const RTM_GETVLAN: u16 = 114;
/// Length of `struct br_vlan_msg`.
const HEADER: usize = 8;
/// `BRIDGE_VLANDB_ENTRY`: VLANs that are treated alike.
const BRIDGE_VLANDB_ENTRY: u16 = 1;
/// `BRIDGE_VLANDB_ENTRY_INFO`: a `struct bridge_vlan_info`, flags and the first VLAN's number, 16 bits each.
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
/// `BRIDGE_VLANDB_ENTRY_RANGE`: the last VLAN's number, if it is not the first.
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
/// `BRIDGE_VLAN_INFO_PVID`, `BRIDGE_VLAN_INFO_UNTAGGED`.
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;
/// How many entries fit into one request, such that a refusal that repeats it is received whole.
pub const AT_ONCE: usize = 128;
/// An index that no link has.
const NO_LINK: u32 = i32::MAX.cast_unsigned();

/// `struct br_vlan_msg`: family, three pad bytes, link index.
fn header(out: &mut Encoder, link: u32) {
    #[expect(clippy::cast_possible_truncation, reason = "address families are below 256")]
    const FAMILY: u8 = libc::AF_BRIDGE as u8;
    out.raw(&[FAMILY, 0, 0, 0]);
    out.raw(&link.to_ne_bytes());
}

/// What a port does with the frames of a VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Treatment {
    /// What comes in without a tag belongs to it. Of one VLAN of a port at most.
    pub pvid: bool,
    /// What goes out has no tag.
    pub untagged: bool,
}

impl Treatment {
    /// What is without a tag on the link: of an access port its only VLAN.
    pub const NATIVE: Self = Self { pvid: true, untagged: true };
    /// What bears its tag on the link.
    pub const TAGGED: Self = Self { pvid: false, untagged: false };

    const fn flags(self) -> u16 {
        let pvid = if self.pvid { BRIDGE_VLAN_INFO_PVID } else { 0 };
        let untagged = if self.untagged { BRIDGE_VLAN_INFO_UNTAGGED } else { 0 };
        pvid | untagged
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.pvid, self.untagged) {
            (true, true) => "native",
            (true, false) => "tagged, and that of what has no tag",
            (false, true) => "untagged",
            (false, false) => "tagged",
        })
    }
}

/// VLANs that are treated alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first one's number, from 1.
    pub first: u16,
    /// The last one's number, up to 4094.
    pub last: u16,
    /// What is done with their frames.
    pub treatment: Treatment,
}

impl Range {
    /// One VLAN.
    #[must_use]
    pub const fn one(number: u16, treatment: Treatment) -> Self {
        Self { first: number, last: number, treatment }
    }

    fn put(&self, out: &mut Encoder) {
        out.nest(BRIDGE_VLANDB_ENTRY | NESTED, |out| {
            let (flags, first) = (self.treatment.flags().to_ne_bytes(), self.first.to_ne_bytes());
            out.put(BRIDGE_VLANDB_ENTRY_INFO, [flags, first].concat().as_slice());
            if self.last != self.first {
                out.put(BRIDGE_VLANDB_ENTRY_RANGE, &self.last);
            }
        });
    }

    fn decode(entry: Attributes<'_>) -> Result<Self, Malformed> {
        let (mut info, mut last) = (None, None);
        for attribute in entry {
            let attribute = attribute?;
            match attribute.kind {
                BRIDGE_VLANDB_ENTRY_INFO => info = attribute.payload.first_chunk::<4>(),
                BRIDGE_VLANDB_ENTRY_RANGE => last = Some(attribute.u16()?),
                _ => {}
            }
        }
        let [f0, f1, v0, v1] = *info.ok_or(Malformed("VLAN without number"))?;
        let (flags, first) = (u16::from_ne_bytes([f0, f1]), u16::from_ne_bytes([v0, v1]));
        let treatment = Treatment {
            pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
            untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
        };
        Ok(Self { first, last: last.unwrap_or(first), treatment })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

fn shown(f: &mut fmt::Formatter<'_>, ranges: &[Range]) -> fmt::Result {
    let (first, more) = match ranges {
        [] => return f.write_str("no VLAN"),
        [first] => (first, ""),
        [first, ..] => (first, ", …"),
    };
    write!(f, "VLAN {first}{more}")
}

/// Has a port be in these VLANs, too: `bridge vlan add dev veth… vid 10-20`. What is done with the frames of
/// one that it is in already changes. At most [`AT_ONCE`] ranges, not empty.
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// Index of the port.
    pub link: u32,
    /// The VLANs. One that is a [`pvid`](Treatment::pvid) stands by itself.
    pub ranges: &'a [Range],
}

impl fmt::Display for Add<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "add bridge port {} to ", self.link)?;
        shown(f, self.ranges)
    }
}

impl Request for Add<'_> {
    fn kind(&self) -> u16 {
        RTM_NEWVLAN
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.link);
        self.ranges.iter().for_each(|range| range.put(out));
    }
}

/// Takes a port out of a VLAN: `bridge vlan del dev veth… vid 1`. That it is not in it is no error.
#[derive(Clone, Copy, Debug)]
pub struct Remove {
    /// Index of the port.
    pub link: u32,
    /// The VLAN's number.
    pub vlan: u16,
}

impl fmt::Display for Remove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove bridge port {} from VLAN {}", self.link, self.vlan)
    }
}

impl Request for Remove {
    fn kind(&self) -> u16 {
        RTM_DELVLAN
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.link);
        Range::one(self.vlan, Treatment::TAGGED).put(out);
    }
}

/// VLANs of one bridge or port, or some of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Index of the link.
    pub link: u32,
    /// The VLANs that it is in.
    pub ranges: Vec<Range>,
}

/// Asks which VLANs a link is in: `bridge vlan show dev veth…`; or all links.
#[derive(Clone, Copy, Debug)]
struct List(Option<u32>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(link) => write!(f, "list bridge VLANs of link {link}"),
            None => f.write_str("list bridge VLANs"),
        }
    }
}

impl Request for List {
    fn kind(&self) -> u16 {
        RTM_GETVLAN
    }

    fn body(&self, out: &mut Encoder) {
        header(out, self.0.unwrap_or(0));
    }
}

impl Query for List {
    type Reply = Member;

    fn decode(&self, message: &Message<'_>) -> Result<Member, Malformed> {
        if message.kind != RTM_NEWVLAN {
            return Err(Malformed("expected VLANs"));
        }
        let ([_, _, _, _, link @ ..], attributes) = message.split::<HEADER>()?;
        let mut ranges = Vec::new();
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == BRIDGE_VLANDB_ENTRY {
                ranges.push(Range::decode(attribute.nested())?);
            }
        }
        Ok(Member { link: u32::from_ne_bytes(*link), ranges })
    }
}

/// Reads which VLANs a bridge or a bridge's port in the current network namespace is in, by a socket of its
/// own, which is why none is taken.
///
/// # Errors
/// `EINVAL`: it is neither; `ENODEV`: there is none; `EOPNOTSUPP`: see above.
pub fn of_link(link: u32) -> Result<Vec<Range>, Error> {
    read(Socket::open(Family::Route)?, link)
}

/// VLANs come in ascending order. Before Linux 5.18 the kernel begins again at the end, and so on for ever
/// (corrected by dcb2c5c6ca9b, "net: bridge: vlan: fix single net device option dumping").
fn read<C: Channel>(socket: Socket<C>, link: u32) -> Result<Vec<Range>, Error> {
    let of_it = |member: &&Member| member.link == link;
    let begins_again = |before: &[Member], next: &Member| {
        let last = before.iter().rev().filter(of_it).find_map(|member| member.ranges.last());
        match (last, next.ranges.first()) {
            _ if next.link != link => false,
            (Some(last), Some(next)) => next.first <= last.last,
            // A link in no VLAN is told of by an empty message.
            (_, None) => true,
            (None, _) => false,
        }
    };
    let members = socket.dump_up_to(&List(Some(link)), begins_again)?;
    Ok(members.into_iter().filter(|m| m.link == link).flat_map(|m| m.ranges).collect())
}

/// Reads which VLANs all bridges and their ports are in. One link may be told of several times.
///
/// # Errors
/// The kernel's refusal.
pub fn list<C: Channel>(socket: &mut Socket<C>) -> Result<Vec<Member>, Error> {
    socket.dump(&List(None))
}

/// Sees whether the kernel has bridges that filter VLANs; it must have bridges.
///
/// # Errors
/// `EOPNOTSUPP`: it has not; or another refusal.
pub fn probe<C: Channel>(socket: &mut Socket<C>) -> Result<(), Error> {
    match socket.dump(&List(Some(NO_LINK))) {
        Err(error) if error.errno != Errno::ENODEV => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
