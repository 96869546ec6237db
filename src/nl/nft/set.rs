//! Sets and their elements. An element carries a comment, in the form in which nft(8) shows it.

use std::fmt;

use nix::errno::Errno;

use super::super::error::Error;
use super::super::request::{Query, Request};
use super::super::socket::{Channel, Socket};
use super::super::wire::{Be32, Encoder, Flags, Malformed, Message, NESTED};
use super::{HEADER, NFTA_DATA_VALUE, NFTA_LIST_ELEM, Table, kind, put_data};

/// `NFTA_SET_TABLE`, `…_NAME`, `…_FLAGS`, `…_KEY_TYPE`, `…_KEY_LEN`, `…_ID`
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_ID: u16 = 10;
/// `NFTA_SET_ELEM_LIST_TABLE`, `…_SET`, `…_ELEMENTS`
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
/// `NFTA_SET_ELEM_KEY`, `…_USERDATA`
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
/// `NFTNL_UDATA_SET_ELEM_COMMENT`: the type under which nft(8) keeps an element's comment.
const UDATA_COMMENT: u8 = 0;
/// The longest comment: user data is a list of type, 8-bit length and value, here text with its NUL.
pub const COMMENT_MAX: usize = 254;

/// Type of a field of a set's key, by the number that nft(8) knows it by, and its length.
///
/// A key of several fields pads each to 4 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `ether_addr`
    Ether,
    /// `ifname`, padded with NULs.
    Ifname,
}

impl Field {
    const fn number(self) -> u32 {
        match self {
            Field::Ipv4 => 7,
            Field::Ipv6 => 8,
            Field::Ether => 9,
            Field::Ifname => 41,
        }
    }

    const fn length(self) -> usize {
        match self {
            Field::Ipv4 => 4,
            Field::Ipv6 | Field::Ifname => 16,
            Field::Ether => 6,
        }
    }
}

/// Makes a set; `EEXIST` if it is there: `nft create set inet plumb masq4_16 { type … ; }`
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// The set's table.
    pub table: Table<'a>,
    /// Its name.
    pub name: &'a str,
    /// The fields of its key.
    pub key: &'a [Field],
}

impl fmt::Display for New<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create set {} in {}", self.name, self.table)
    }
}

impl Request for New<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_NEWSET)
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    #[expect(clippy::cast_possible_truncation, reason = "a key has at most 64 bytes")]
    fn body(&self, out: &mut Encoder) {
        let number = self.key.iter().fold(0, |number, field| number << 6 | field.number());
        let length = match self.key {
            [field] => field.length(),
            fields => fields.iter().map(|field| field.length().next_multiple_of(4)).sum(),
        };
        self.table.header(out);
        out.put(NFTA_SET_TABLE, self.table.name);
        out.put(NFTA_SET_NAME, self.name);
        out.put(NFTA_SET_FLAGS, &Be32(0));
        out.put(NFTA_SET_KEY_TYPE, &Be32(number));
        out.put(NFTA_SET_KEY_LEN, &Be32(length as u32));
        // The kernel demands a number by which the same transaction could refer to the set.
        out.put(NFTA_SET_ID, &Be32(1));
    }
}

/// A set of a table, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Set<'a> {
    /// Its table.
    pub table: Table<'a>,
    /// Its name.
    pub name: &'a str,
}

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} of {}", self.name, self.table)
    }
}

impl Set<'_> {
    /// Writes the header and the list of the one element that a request is about.
    fn with_element(self, out: &mut Encoder, element: impl FnOnce(&mut Encoder)) {
        self.table.header(out);
        out.put(NFTA_SET_ELEM_LIST_TABLE, self.table.name);
        out.put(NFTA_SET_ELEM_LIST_SET, self.name);
        out.nest(NFTA_SET_ELEM_LIST_ELEMENTS | NESTED, |out| {
            out.nest(NFTA_LIST_ELEM | NESTED, element);
        });
    }
}

/// Adds an element; `EEXIST` if its key is there, `ENOENT` if the set is not:
/// `nft create element inet plumb masq4_16 { … comment "…" }`
#[derive(Clone, Copy, Debug)]
pub struct AddElement<'a> {
    /// Where to.
    pub set: Set<'a>,
    /// The key, in network order, fields padded.
    pub key: &'a [u8],
    /// At most [`COMMENT_MAX`] bytes.
    pub comment: &'a str,
}

impl fmt::Display for AddElement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "add element {:02x?} to {}", self.key, self.set)
    }
}

impl Request for AddElement<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_NEWSETELEM)
    }

    fn flags(&self) -> Flags {
        Flags::CREATE | Flags::EXCL
    }

    fn body(&self, out: &mut Encoder) {
        self.set.with_element(out, |out| {
            put_data(out, NFTA_SET_ELEM_KEY, self.key);
            let text = self.comment.as_bytes();
            let text = text.get(..COMMENT_MAX).unwrap_or(text);
            let mut userdata = Vec::with_capacity(text.len() + 3);
            #[expect(clippy::cast_possible_truncation, reason = "cut to COMMENT_MAX")]
            userdata.extend_from_slice(&[UDATA_COMMENT, text.len() as u8 + 1]);
            userdata.extend_from_slice(text);
            userdata.push(0);
            out.put(NFTA_SET_ELEM_USERDATA, userdata.as_slice());
        });
    }
}

/// Removes an element; `ENOENT` if there is none.
#[derive(Clone, Copy, Debug)]
pub struct DeleteElement<'a> {
    /// Where from.
    pub set: Set<'a>,
    /// The key, as in [`AddElement`].
    pub key: &'a [u8],
}

impl fmt::Display for DeleteElement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove element {:02x?} from {}", self.key, self.set)
    }
}

impl Request for DeleteElement<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_DELSETELEM)
    }

    fn body(&self, out: &mut Encoder) {
        self.set.with_element(out, |out| put_data(out, NFTA_SET_ELEM_KEY, self.key));
    }
}

/// An element as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// The key, as in [`AddElement`].
    pub key: Vec<u8>,
    /// The comment; empty if there is none.
    pub comment: String,
}

/// Asks for one element, or in a dump for all.
struct GetElements<'a> {
    set: Set<'a>,
    key: Option<&'a [u8]>,
}

impl fmt::Display for GetElements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {}", self.set)
    }
}

impl Request for GetElements<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_GETSETELEM)
    }

    fn body(&self, out: &mut Encoder) {
        if let Some(key) = self.key {
            self.set.with_element(out, |out| put_data(out, NFTA_SET_ELEM_KEY, key));
        } else {
            self.set.table.header(out);
            out.put(NFTA_SET_ELEM_LIST_TABLE, self.set.table.name);
            out.put(NFTA_SET_ELEM_LIST_SET, self.set.name);
        }
    }
}

impl Query for GetElements<'_> {
    type Reply = Element;

    fn decode(&self, message: &Message<'_>) -> Result<Element, Malformed> {
        self.decode_item(message)?.pop().ok_or(Malformed("no element in the answer"))
    }

    fn decode_item(&self, message: &Message<'_>) -> Result<Vec<Element>, Malformed> {
        if message.kind != kind(libc::NFT_MSG_NEWSETELEM) {
            return Err(Malformed("expected set elements"));
        }
        let mut elements = Vec::new();
        let (_, attributes) = message.split::<HEADER>()?;
        for list in attributes {
            let list = list?;
            if list.kind != NFTA_SET_ELEM_LIST_ELEMENTS {
                continue;
            }
            for item in list.nested() {
                let mut element = Element { key: Vec::new(), comment: String::new() };
                for attribute in item?.nested() {
                    let attribute = attribute?;
                    match attribute.kind {
                        NFTA_SET_ELEM_KEY => {
                            for data in attribute.nested() {
                                let data = data?;
                                if data.kind == NFTA_DATA_VALUE {
                                    element.key = data.payload.to_vec();
                                }
                            }
                        }
                        NFTA_SET_ELEM_USERDATA => element.comment = comment(attribute.payload),
                        _ => {}
                    }
                }
                elements.push(element);
            }
        }
        Ok(elements)
    }
}

/// The comment in an element's user data; empty if there is none.
pub(in crate::nl) fn comment(mut userdata: &[u8]) -> String {
    while let [kind, length, rest @ ..] = userdata {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        if *kind == UDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8_lossy(text).into_owned();
        }
        userdata = rest;
    }
    String::new()
}

/// Reads the element of this key; `None` if it, its set or its table is missing.
///
/// # Errors
/// The kernel's refusal.
pub fn element<C: Channel>(
    socket: &mut Socket<C>,
    set: Set<'_>,
    key: &[u8],
) -> Result<Option<Element>, Error> {
    match socket.query(&GetElements { set, key: Some(key) }) {
        Ok(element) => Ok(Some(element)),
        Err(error) if error.errno == Errno::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all elements of a set; none if the set or its table is missing.
///
/// # Errors
/// The kernel's refusal.
pub fn elements<C: Channel>(socket: &mut Socket<C>, set: Set<'_>) -> Result<Vec<Element>, Error> {
    match socket.dump(&GetElements { set, key: None }) {
        Err(error) if error.errno == Errno::ENOENT => Ok(Vec::new()),
        other => other,
    }
}

/// The same as one answer tells them, which need not be all.
///
/// # Errors
/// The kernel's refusal.
pub fn elements_once<C: Channel>(
    socket: &mut Socket<C>,
    set: Set<'_>,
) -> Result<Vec<Element>, Error> {
    match socket.dump_once(&GetElements { set, key: None }) {
        Err(error) if error.errno == Errno::ENOENT => Ok(Vec::new()),
        other => other.map(|dump| dump.objects),
    }
}

/// Asks for the sets of a table.
struct List<'a>(Table<'a>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list sets of {}", self.0)
    }
}

impl Request for List<'_> {
    fn kind(&self) -> u16 {
        kind(libc::NFT_MSG_GETSET)
    }

    fn body(&self, out: &mut Encoder) {
        self.0.header(out);
        out.put(NFTA_SET_TABLE, self.0.name);
    }
}

impl Query for List<'_> {
    type Reply = String;

    fn decode(&self, message: &Message<'_>) -> Result<String, Malformed> {
        if message.kind != kind(libc::NFT_MSG_NEWSET) {
            return Err(Malformed("expected a set"));
        }
        let (_, attributes) = message.split::<HEADER>()?;
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == NFTA_SET_NAME {
                return Ok(attribute.text());
            }
        }
        Err(Malformed("set without name"))
    }
}

/// Names of the sets of a table; none if the table is missing.
///
/// # Errors
/// The kernel's refusal.
pub fn names<C: Channel>(socket: &mut Socket<C>, table: Table<'_>) -> Result<Vec<String>, Error> {
    match socket.dump(&List(table)) {
        Err(error) if error.errno == Errno::ENOENT => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
