//! The netlink socket and the conversation over it.
//!
//! # How a conversation goes
//! Any number of requests go to the kernel in one datagram. The kernel carries them out one after the
//! other *within* the `send` call and leaves its answers in the receive queue, so nothing here ever
//! waits: the socket is non-blocking, and an empty queue means that an answer is missing. Only the last
//! request asks for an acknowledgement; errors are always answered. A conversation in which all goes
//! well is two system calls, however many requests it holds.
//!
//! # Whom we believe
//! Only datagrams from the kernel (`nl_pid` 0) that bear a sequence number of this conversation count;
//! all else is dropped (netlink(7): any process may send to a netlink socket).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket as sys;

use super::error::Error;
use super::request::{Query, Request};
use super::trace::Conversation;
use super::wire::{Attributes, Encoder, Flags, Message, Messages};

/// `NLMSG_ERROR` (linux/netlink.h): an acknowledgement if its error number is 0.
pub(super) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE` (linux/netlink.h): the end of a dump.
pub(super) const NLMSG_DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`, `NLMSGERR_ATTR_OFFS` (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
pub(super) const NLMSGERR_ATTR_OFFS: u16 = 2;

/// How often a dump that others disturb is begun again before it counts as failed.
const DUMP_ATTEMPTS: usize = 16;
/// The largest part of a dump, in bytes: 32 KiB less what the kernel needs (netlink_recvmsg in net/netlink/af_netlink.c).
const LARGEST_PART: usize = 32 * 1024;
/// Room for an answer at first. A link takes half of it; and the kernel fills no more than this with the
/// beginning of a dump (`NLMSG_GOODSIZE`, linux/netlink.h). Memory that nothing is received into costs a
/// page fault all the same.
const BUFFER: usize = 4096;
/// The largest answer that a buffer is grown for.
const LARGEST_ANSWER: usize = 1 << 20;
/// How many datagrams a dump may take: one that has no end is to fail, not to fill the memory. A link takes no
/// more than one, and of all else dozens share one, so these are more links than a host can bear.
const LONGEST_DUMP: usize = 500_000;

/// What is said of a dump that is longer.
const ENDLESS: &str = "answer has no end";

/// The netlink families in use (linux/netlink.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Links, addresses, routes: rtnetlink(7).
    Route,
    /// nf_tables.
    Netfilter,
}

/// A datagram as received: its full length even if the buffer was smaller, and its sender's port.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Length of the datagram; more than the buffer's if it was cut.
    pub length: usize,
    /// `nl_pid` of the sender; 0 is the kernel.
    pub sender: u32,
}

/// What carries datagrams: the kernel's socket, or in tests a scripted kernel.
pub trait Channel {
    /// Sends one datagram to the kernel.
    ///
    /// # Errors
    /// Those of send(2).
    fn send(&mut self, datagram: &[u8]) -> Result<(), Errno>;

    /// Takes the next datagram without waiting.
    ///
    /// # Errors
    /// Those of recvmsg(2); `EAGAIN` if there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno>;
}

/// A netlink socket of the network namespace in which it was opened; it stays there for ever.
#[derive(Debug)]
pub struct KernelChannel {
    fd: OwnedFd,
    trace: Option<Conversation>,
}

impl Channel for KernelChannel {
    fn send(&mut self, datagram: &[u8]) -> Result<(), Errno> {
        let send = || sys::send(self.fd.as_raw_fd(), datagram, sys::MsgFlags::empty()).map(drop);
        match &self.trace {
            Some(trace) => trace.send(datagram, send),
            None => send(),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno> {
        let mut parts = [std::io::IoSliceMut::new(buffer)];
        let received = sys::recvmsg::<sys::NetlinkAddr>(
            self.fd.as_raw_fd(),
            &mut parts,
            None,
            sys::MsgFlags::MSG_TRUNC,
        )
        .map(|received| Datagram {
            length: received.bytes,
            sender: received.address.map_or(u32::MAX, |address| address.pid()),
        });
        if let Some(trace) = &self.trace {
            trace.received(received, buffer);
        }
        received
    }
}

/// What a dump has told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dump<T> {
    /// The objects.
    pub objects: Vec<T>,
    /// Nobody has changed anything meanwhile. Otherwise some may be missing, and some there twice.
    pub is_whole: bool,
}

/// A conversation partner: the kernel's side of one network namespace.
#[derive(Debug)]
pub struct Socket<C = KernelChannel> {
    channel: C,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the current network namespace, with extended acknowledgements and strict
    /// checking of dump filters (netlink(7)).
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` if the kernel has not this netlink family.
    pub fn open(family: Family) -> Result<Self, Error> {
        // An older kernel without one of the options still does the work, with fewer words. That
        // refusals repeat the request (no NETLINK_CAP_ACK) costs less than a system call each time.
        let (protocol, name, options): (_, _, &[_]) = match family {
            Family::Route => (
                sys::SockProtocol::NetlinkRoute,
                "rtnetlink",
                &[libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK],
            ),
            Family::Netfilter => {
                (sys::SockProtocol::NetlinkNetFilter, "nf_tables", &[libc::NETLINK_EXT_ACK])
            }
        };
        let fd = sys::socket(
            sys::AddressFamily::Netlink,
            sys::SockType::Raw,
            sys::SockFlag::SOCK_CLOEXEC | sys::SockFlag::SOCK_NONBLOCK,
            protocol,
        )
        .map_err(|errno| Error::new(format_args!("open a netlink socket for {name}"), errno))?;
        for option in options {
            enable(fd.as_fd(), *option);
        }
        Ok(Self::over(KernelChannel { fd, trace: Conversation::begin(family) }))
    }

    /// The socket itself, which knows its namespace, and links by name.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.channel.fd.as_fd()
    }

    /// Where what is said over the socket is told; `None` if nobody looks.
    pub(super) fn trace(&self) -> Option<&Conversation> {
        self.channel.trace.as_ref()
    }
}

fn enable(fd: BorrowedFd<'_>, option: libc::c_int) {
    static ON: libc::c_int = 1;
    #[expect(clippy::cast_possible_truncation, reason = "4")]
    const LENGTH: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `ON` is alive for the call, and the length given is its size.
    unsafe {
        let fd = fd.as_raw_fd();
        libc::setsockopt(fd, libc::SOL_NETLINK, option, (&raw const ON).cast(), LENGTH);
    }
}

impl<C: Channel> Socket<C> {
    /// A conversation over `channel`.
    pub fn over(channel: C) -> Self {
        Self { channel, sequence: 0, buffer: vec![0; BUFFER] }
    }

    /// Has the kernel carry out all `requests`, in order, in one datagram.
    ///
    /// A refused request does not keep the kernel from the ones behind it.
    ///
    /// # Errors
    /// The first refusal that its request does not tolerate.
    pub fn execute(&mut self, requests: &[&dyn Request]) -> Result<(), Error> {
        self.converse(requests, None)
    }

    /// Like [`execute`](Self::execute), between an opening and a closing message that make all
    /// requests one transaction.
    pub(super) fn execute_framed(
        &mut self,
        open: &dyn Request,
        requests: &[&dyn Request],
        close: &dyn Request,
    ) -> Result<(), Error> {
        self.converse(requests, Some((open, close)))
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// The kernel's refusal; `ENODEV` or `ENOENT` if there is no such object.
    pub fn query<Q: Query>(&mut self, query: &Q) -> Result<Q::Reply, Error> {
        self.execute_then_query(&[], query)
    }

    /// Has the kernel carry out all `requests`, in order, and asks for one object as they leave it, in one
    /// datagram.
    ///
    /// # Errors
    /// The first refusal that its request does not tolerate, or else that of the question.
    pub fn execute_then_query<Q: Query>(
        &mut self,
        mut requests: &[&dyn Request],
        query: &Q,
    ) -> Result<Q::Reply, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let asked = self.ask(requests, query, Flags::empty())?;
            match self.read_reply(query, &asked)? {
                Some(reply) => return Ok(reply),
                // It was cut; the buffer has grown. What came before it is done.
                None => requests = &[],
            }
        }
        Err(Error::protocol(query, "answer does not fit"))
    }

    /// Asks for all objects that match.
    ///
    /// # Errors
    /// The kernel's refusal; `EINTR` if others kept changing what is dumped.
    pub fn dump<Q: Query>(&mut self, query: &Q) -> Result<Vec<Q::Reply>, Error> {
        self.execute_then_dump(&[], query)
    }

    /// Has the kernel carry out all `requests`, in order, and asks for all objects that match as they leave
    /// them, in one datagram.
    ///
    /// # Errors
    /// As [`execute_then_query`](Self::execute_then_query) and [`dump`](Self::dump).
    pub fn execute_then_dump<Q: Query>(
        &mut self,
        mut requests: &[&dyn Request],
        query: &Q,
    ) -> Result<Vec<Q::Reply>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let asked = self.ask(requests, query, Flags::DUMP)?;
            if let Some(dump) = self.read_dump(query, &asked, |_, _| false)?
                && dump.is_whole
            {
                return Ok(dump.objects);
            }
            requests = &[];
        }
        Err(Error::new(query, Errno::EINTR))
    }

    /// Asks for all objects that match, of which there may be thousands, and goes by the first answer: where
    /// others keep changing what is dumped there may never be one that tells all.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn dump_once<Q: Query>(&mut self, query: &Q) -> Result<Dump<Q::Reply>, Error> {
        self.expect_many();
        for _ in 0..DUMP_ATTEMPTS {
            let asked = self.ask(&[], query, Flags::DUMP)?;
            if let Some(dump) = self.read_dump(query, &asked, |_, _| false)? {
                return Ok(dump);
            }
        }
        Err(Error::new(query, Errno::ENOBUFS))
    }

    /// Makes room for the largest part of a dump that the kernel hands out at a time: for each it waits anew for
    /// the lock of what is dumped.
    pub fn expect_many(&mut self) {
        self.buffer.resize(self.buffer.len().max(LARGEST_PART), 0);
    }

    /// Asks for all objects that match, up to the first of which `is_beyond` says, from those before it, that
    /// it is none of them any more: some kernels come to no end. What they have left to tell is never
    /// received, so this ends the conversation.
    ///
    /// # Errors
    /// As [`dump`](Self::dump).
    pub fn dump_up_to<Q: Query>(
        mut self,
        query: &Q,
        is_beyond: impl Fn(&[Q::Reply], &Q::Reply) -> bool,
    ) -> Result<Vec<Q::Reply>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let asked = self.ask(&[], query, Flags::DUMP)?;
            if let Some(dump) = self.read_dump(query, &asked, &is_beyond)?
                && dump.is_whole
            {
                return Ok(dump.objects);
            }
        }
        Err(Error::new(query, Errno::EINTR))
    }

    fn ask<'r, Q: Query>(
        &mut self,
        requests: &'r [&'r dyn Request],
        query: &Q,
        flags: Flags,
    ) -> Result<Asked<'r>, Error> {
        let mut sent = Encoder::new();
        let first = self.sequence.wrapping_add(1);
        for request in requests {
            self.encode(&mut sent, *request, Flags::empty());
        }
        let sequence = self.encode(&mut sent, query, flags);
        self.send(&sent, query)?;
        Ok(Asked { requests, first, sequence, sent })
    }

    fn converse(
        &mut self,
        requests: &[&dyn Request],
        frame: Option<(&dyn Request, &dyn Request)>,
    ) -> Result<(), Error> {
        let Some((last, _)) = requests.split_last() else { return Ok(()) };
        let mut encoder = Encoder::new();
        let opening = frame.map(|(open, _)| self.encode(&mut encoder, open, Flags::empty()));
        let mut sequence = 0;
        let first = self.sequence.wrapping_add(1);
        for (index, request) in requests.iter().enumerate() {
            let flags = if index + 1 == requests.len() { Flags::ACK } else { Flags::empty() };
            sequence = self.encode(&mut encoder, *request, flags);
        }
        if let Some((_, close)) = frame {
            self.encode(&mut encoder, close, Flags::empty());
        }
        self.send(&encoder, *last)?;

        let mut failure = None;
        loop {
            let length = match self.receive(*last) {
                Ok(length) => length,
                // A transaction that is refused as a whole is not acknowledged.
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            for message in Messages::new(filled(&self.buffer, length)) {
                let message = message.map_err(|m| Error::protocol(*last, m.0))?;
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let index = message.sequence.wrapping_sub(first) as usize;
                let (index, request) = match (requests.get(index), frame) {
                    (Some(request), _) => (index, *request),
                    (None, Some((open, _))) if Some(message.sequence) == opening => (0, open),
                    (None, _) => continue,
                };
                let refusal = refusal(&message, request, &encoder)
                    .map_err(|what| Error::protocol(request, what))?;
                if let Some(refusal) = refusal
                    && !request.tolerates(refusal.errno)
                {
                    failure.get_or_insert(Error { request: Some(index), ..refusal });
                }
                if message.sequence == sequence || Some(message.sequence) == opening {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// The answer to `query`; `None` if it was cut.
    fn read_reply<Q: Query>(
        &mut self,
        query: &Q,
        asked: &Asked<'_>,
    ) -> Result<Option<Q::Reply>, Error> {
        let mut failure = None;
        loop {
            let length = self.receive(query)?;
            if self.grow_if_cut(length, query)? {
                return failure.map_or(Ok(None), Err);
            }
            for message in Messages::new(filled(&self.buffer, length)) {
                let message = message.map_err(|m| Error::protocol(query, m.0))?;
                if message.sequence != asked.sequence {
                    asked.note(&message, &mut failure)?;
                    continue;
                }
                if let Some(failure) = failure {
                    return Err(failure);
                }
                if message.kind == NLMSG_ERROR {
                    let refusal = refusal(&message, query, &asked.sent)
                        .map_err(|what| Error::protocol(query, what))?;
                    return Err(
                        refusal.unwrap_or_else(|| Error::protocol(query, "answer without object"))
                    );
                }
                return query.decode(&message).map(Some).map_err(|m| Error::protocol(query, m.0));
            }
        }
    }

    /// The objects of a dump, read to its end, or to the first object that is beyond it; `None` if it was cut.
    fn read_dump<Q: Query>(
        &mut self,
        query: &Q,
        asked: &Asked<'_>,
        is_beyond: impl Fn(&[Q::Reply], &Q::Reply) -> bool,
    ) -> Result<Option<Dump<Q::Reply>>, Error> {
        let mut objects = Vec::new();
        let (mut usable, mut is_whole) = (true, true);
        let mut failure = None;
        for _ in 0..LONGEST_DUMP {
            let length = match self.receive(query) {
                // The kernel had no room for a part; what follows is incomplete.
                Err(error) if error.errno == Errno::ENOBUFS => {
                    usable = false;
                    continue;
                }
                other => other?,
            };
            if self.grow_if_cut(length, query)? {
                self.drain(query)?;
                return failure.map_or(Ok(None), Err);
            }
            for message in Messages::new(filled(&self.buffer, length)) {
                let message = message.map_err(|m| Error::protocol(query, m.0))?;
                if message.sequence != asked.sequence {
                    asked.note(&message, &mut failure)?;
                    continue;
                }
                if message.flags.contains(Flags::DUMP_INTR) {
                    is_whole = false;
                }
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let refusal = refusal(&message, query, &asked.sent)
                            .map_err(|what| Error::protocol(query, what))?;
                        return match failure.or(refusal) {
                            Some(refusal) => Err(refusal),
                            None => Ok(usable.then_some(Dump { objects, is_whole })),
                        };
                    }
                    _ => {
                        let items = query.decode_item(&message);
                        for object in items.map_err(|m| Error::protocol(query, m.0))? {
                            if is_beyond(&objects, &object) {
                                return Ok(usable.then_some(Dump { objects, is_whole }));
                            }
                            objects.push(object);
                        }
                    }
                }
            }
        }
        Err(Error::protocol(query, ENDLESS))
    }

    fn encode<R: Request + ?Sized>(
        &mut self,
        encoder: &mut Encoder,
        request: &R,
        flags: Flags,
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = Flags::REQUEST | request.flags() | flags;
        encoder.message(request.kind(), flags, self.sequence, |m| request.body(m));
        self.sequence
    }

    fn send<R: Request + ?Sized>(&mut self, encoder: &Encoder, purpose: &R) -> Result<(), Error> {
        let bytes = encoder.bytes().ok_or_else(|| Error::new(purpose, Errno::EMSGSIZE))?;
        loop {
            match self.channel.send(bytes) {
                Err(Errno::EINTR) => {}
                other => return other.map_err(|errno| Error::new(purpose, errno)),
            }
        }
    }

    /// Takes the next datagram of the kernel's into the buffer and returns its full length.
    fn receive<R: Request + ?Sized>(&mut self, purpose: &R) -> Result<usize, Error> {
        loop {
            match self.channel.receive(&mut self.buffer) {
                Ok(datagram) if datagram.sender == 0 => return Ok(datagram.length),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Error::protocol(purpose, "answer is missing")),
                Err(errno) => return Err(Error::new(purpose, errno)),
            }
        }
    }

    /// Drops what is left of a dump. The kernel goes on with it only as it is received, and begins no
    /// other before its end.
    fn drain<R: Request + ?Sized>(&mut self, purpose: &R) -> Result<(), Error> {
        for _ in 0..LONGEST_DUMP {
            match self.channel.receive(&mut self.buffer) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(Error::new(purpose, errno)),
            }
        }
        Err(Error::protocol(purpose, ENDLESS))
    }

    /// Makes room for a datagram of `length` if it was cut, and says whether it was.
    fn grow_if_cut<R: Request + ?Sized>(
        &mut self,
        length: usize,
        purpose: &R,
    ) -> Result<bool, Error> {
        if length <= self.buffer.len() {
            return Ok(false);
        }
        if length > LARGEST_ANSWER {
            return Err(Error::protocol(purpose, "answer of more than 1 MiB"));
        }
        self.buffer.resize(length.next_power_of_two(), 0);
        Ok(true)
    }
}

/// What was sent with a question behind it.
struct Asked<'r> {
    requests: &'r [&'r dyn Request],
    /// Sequence number of the first request.
    first: u32,
    /// That of the question.
    sequence: u32,
    sent: Encoder,
}

impl Asked<'_> {
    /// Notes the first refusal of a request that does not tolerate it, if `message` is one.
    fn note(&self, message: &Message<'_>, failure: &mut Option<Error>) -> Result<(), Error> {
        let index = message.sequence.wrapping_sub(self.first) as usize;
        let Some(request) = self.requests.get(index) else { return Ok(()) };
        if message.kind != NLMSG_ERROR {
            return Ok(());
        }
        let refusal = refusal(message, *request, &self.sent)
            .map_err(|what| Error::protocol(request, what))?;
        if let Some(refusal) = refusal
            && !request.tolerates(refusal.errno)
        {
            failure.get_or_insert(Error { request: Some(index), ..refusal });
        }
        Ok(())
    }
}

/// The part of the buffer that a datagram of `length` filled.
fn filled(buffer: &[u8], length: usize) -> &[u8] {
    buffer.get(..length).unwrap_or(buffer)
}

/// What an `NLMSG_ERROR` or `NLMSG_DONE` says; `None` if it says success.
fn refusal<R: Request + ?Sized>(
    message: &Message<'_>,
    request: &R,
    sent: &Encoder,
) -> Result<Option<Error>, &'static str> {
    let Some((code, rest)) = message.payload.split_first_chunk::<4>() else {
        // A dump's end need not carry a number.
        return if message.kind == NLMSG_DONE { Ok(None) } else { Err("error without number") };
    };
    let code = i32::from_ne_bytes(*code);
    if code >= 0 {
        return Ok(None);
    }
    let mut error = Error::new(request, Errno::from_raw(code.saturating_neg()));
    if message.flags.contains(Flags::ACK_TLVS) {
        let echoed = match message.kind {
            NLMSG_DONE => 0,
            _ => echoed_length(message, rest),
        };
        for attribute in Attributes::new(rest.get(echoed..).unwrap_or_default()).flatten() {
            match attribute.kind {
                NLMSGERR_ATTR_MSG => error.kernel = Some(attribute.text()),
                NLMSGERR_ATTR_OFFS => {
                    error.attribute = attribute
                        .u32()
                        .ok()
                        .and_then(|at| attribute_at(sent, message.sequence, at));
                }
                _ => {}
            }
        }
    }
    Ok(Some(error))
}

/// How much of the request an error repeats before its attributes: the header alone if capped.
pub(super) fn echoed_length(message: &Message<'_>, echoed: &[u8]) -> usize {
    if message.flags.contains(Flags::CAPPED) {
        return super::wire::MESSAGE_HEADER;
    }
    let length = echoed.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize);
    length.next_multiple_of(4)
}

/// Type of the attribute at `offset` of the request with this sequence number.
fn attribute_at(sent: &Encoder, sequence: u32, offset: u32) -> Option<u16> {
    let request = Messages::new(sent.bytes()?).flatten().find(|m| m.sequence == sequence)?;
    let at = (offset as usize).checked_sub(super::wire::MESSAGE_HEADER)?;
    Attributes::new(request.payload.get(at..)?).next()?.ok().map(|attribute| attribute.kind)
}

#[cfg(test)]
mod tests;
