//! nf_tables: packet rules, through the same netlink that nft(8) speaks
//! (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h).
//!
//! A change is a transaction: it happens whole or not at all, and costs the same whatever else the
//! ruleset holds. [`rule`] has tables, chains and rules, [`set`] sets and their elements, [`chain`] the chains
//! of everybody, [`foreign`] rules of others.

pub mod chain;
pub mod foreign;
pub mod rule;
pub mod set;

use std::fmt;

use nix::errno::Errno;

use super::error::Error;
use super::request::Request;
use super::socket::{Channel, Socket};
use super::wire::{Encoder, NESTED};

/// Length of `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
const HEADER: usize = 4;
/// `NFTA_LIST_ELEM`
const NFTA_LIST_ELEM: u16 = 1;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// The table's family (`NFPROTO_…`, linux/netfilter.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ipv4 = 2,
    /// Frames that cross a bridge.
    Bridge = 7,
    /// IPv6.
    Ipv6 = 10,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
            Family::Bridge => "bridge",
        })
    }
}

/// A table: what all objects of nf_tables are named within.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table<'a> {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} {}", self.family, self.name)
    }
}

impl Table<'_> {
    fn header(self, out: &mut Encoder) {
        header(out, self.family as u8, 0);
    }
}

/// `struct nfgenmsg`: family, version, a number in network order.
fn header(out: &mut Encoder, family: u8, resource: u16) {
    out.raw(&[family, 0]);
    out.raw(&resource.to_be_bytes());
}

/// `nlmsg_type` of an nf_tables message: the subsystem and `NFT_MSG_…`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are below 256")]
const fn kind(message: libc::c_int) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | message as u16
}

/// Writes a register's worth of data as nested `NFTA_DATA_VALUE`.
fn put_data(out: &mut Encoder, attribute: u16, data: &[u8]) {
    out.nest(attribute | NESTED, |out| out.put(NFTA_DATA_VALUE, data));
}

/// Opens a socket for nf_tables in the current network namespace.
///
/// # Errors
/// `EPROTONOSUPPORT` if the kernel has no nf_tables.
pub fn open() -> Result<Socket, Error> {
    Socket::open(super::Family::Netfilter)
}

/// The same where only what is there is of interest; `None` if the kernel can have none.
///
/// # Errors
/// There is no room for a socket.
pub fn open_if_supported() -> Result<Option<Socket>, Error> {
    match open() {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the kernel carry out all `requests`, or none.
///
/// # Errors
/// The first refusal; then nothing has changed.
pub fn commit<C: Channel>(socket: &mut Socket<C>, requests: &[&dyn Request]) -> Result<(), Error> {
    socket.execute_framed(&Frame::Begin, requests, &Frame::End)
}

/// Makes what many may want to make at the same time: all in one transaction, of which one request
/// fails if its object is there. Then others have made the whole.
///
/// # Errors
/// The first refusal other than `EEXIST`; then nothing has changed.
pub fn create_once<C: Channel>(
    socket: &mut Socket<C>,
    requests: &[&dyn Request],
) -> Result<(), Error> {
    match commit(socket, requests) {
        Err(error) if error.errno == Errno::EEXIST => Ok(()),
        other => other,
    }
}

/// Carries out deletions, of which others may have carried out some: then one at a time, in order, so
/// that what has gone already does not keep the rest.
///
/// # Errors
/// The first refusal other than `ENOENT`; what comes behind it is done all the same.
pub fn delete<C: Channel>(socket: &mut Socket<C>, deletions: &[&dyn Request]) -> Result<(), Error> {
    match commit(socket, deletions) {
        Err(error) if error.errno == Errno::ENOENT => {}
        other => return other,
    }
    let mut result = Ok(());
    for deletion in deletions {
        match commit(socket, &[*deletion]) {
            Err(error) if error.errno != Errno::ENOENT => result = result.and(Err(error)),
            _ => {}
        }
    }
    result
}

/// Whether `error` says that this kernel can't have what was asked about: it has no nf_tables, or what
/// bears the name is of another make.
#[must_use]
pub fn is_absence(error: &Error) -> bool {
    matches!(
        error.errno,
        Errno::ENOENT
            | Errno::EINVAL
            | Errno::EOPNOTSUPP
            | Errno::EAFNOSUPPORT
            | Errno::EPROTONOSUPPORT
    )
}

/// The messages around a transaction.
enum Frame {
    Begin,
    End,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("change the nf_tables ruleset")
    }
}

impl Request for Frame {
    #[expect(clippy::cast_possible_truncation, reason = "below 256")]
    fn kind(&self) -> u16 {
        match self {
            Frame::Begin => libc::NFNL_MSG_BATCH_BEGIN as u16,
            Frame::End => libc::NFNL_MSG_BATCH_END as u16,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "below 256")]
    fn body(&self, out: &mut Encoder) {
        header(out, 0, libc::NFNL_SUBSYS_NFTABLES as u16);
    }
}

#[cfg(test)]
mod tests;
