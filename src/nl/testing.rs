//! What the tests of this directory share: bytes written as text, and a scripted kernel.
//!
//! # Where the bytes come from
//! Those in the tests were read off ip(8) of iproute2 6.1, nft(8) of nftables 1.0.6 and Linux 6.18 on
//! x86-64, so they are little-endian. Sequence numbers are counted from 1, as ours are, and the sender's
//! port is 0; both were whatever the tool had. Each line is an attribute; what it holds stands indented
//! below it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use nix::errno::Errno;

use super::Socket;
use super::socket::{Channel, Datagram};
use super::wire::{Attributes, Encoder, Flags, Messages};

/// Bytes that are shown one message or attribute a line when a comparison fails.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in self.0.chunks(4).enumerate() {
            let separator = if word.0 % 8 == 0 { '\n' } else { ' ' };
            write!(f, "{separator}")?;
            word.1.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Reads hexadecimal text; white space is skipped, and a line's rest after `#`.
pub fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap().bytes())
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let number = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    Bytes(digits.chunks(2).map(number).collect())
}

/// What the kernel leaves in the receive queue.
pub enum Answer {
    /// A datagram of its own.
    Datagram(Vec<u8>),
    /// A datagram of the process with this port.
    From(u32, Vec<u8>),
    /// No datagram but an error.
    Fails(Errno),
}

/// Answers each datagram that is sent: a function from the request to what is then received, or to the
/// error that sending it fails with.
type Script = dyn FnMut(&[u8]) -> Result<Vec<Answer>, Errno>;

/// A kernel that keeps to a script, and a record of what it was sent.
pub struct Scripted {
    script: Box<Script>,
    /// What is still to be received.
    pub queue: VecDeque<Answer>,
    record: Rc<RefCell<Vec<Bytes>>>,
}

/// What a [`Scripted`] kernel was sent, a datagram each.
pub type Record = Rc<RefCell<Vec<Bytes>>>;

impl Channel for Scripted {
    fn send(&mut self, datagram: &[u8]) -> Result<(), Errno> {
        self.record.borrow_mut().push(Bytes(datagram.to_vec()));
        self.queue.extend((self.script)(datagram)?);
        Ok(())
    }

    /// As recvmsg(2) with `MSG_TRUNC`: the length is the datagram's, whatever fits is copied.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno> {
        let (sender, bytes) = match self.queue.pop_front() {
            Some(Answer::Datagram(bytes)) => (0, bytes),
            Some(Answer::From(sender, bytes)) => (sender, bytes),
            Some(Answer::Fails(errno)) => return Err(errno),
            None => return Err(Errno::EAGAIN),
        };
        let fits = bytes.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&bytes[..fits]);
        Ok(Datagram { length: bytes.len(), sender })
    }
}

/// A conversation with a kernel that keeps to `script`, and what that kernel is sent.
pub fn scripted(
    script: impl FnMut(&[u8]) -> Result<Vec<Answer>, Errno> + 'static,
) -> (Socket<Scripted>, Record) {
    let record = Record::default();
    let kernel =
        Scripted { script: Box::new(script), queue: VecDeque::new(), record: Rc::clone(&record) };
    (Socket::over(kernel), record)
}

/// A conversation with a kernel that answers the n-th datagram it is sent by the n-th of `answers`.
pub fn answering(answers: Vec<Vec<Answer>>) -> (Socket<Scripted>, Record) {
    let mut answers = answers.into_iter();
    scripted(move |_| Ok(answers.next().expect("one datagram more than the script has answers")))
}

/// The datagram that `conversation` sends. The kernel answers nothing.
pub fn sent<T>(conversation: impl FnOnce(&mut Socket<Scripted>) -> T) -> Bytes {
    let (mut socket, record) = answering(vec![vec![]]);
    drop(conversation(&mut socket));
    let sent = record.borrow();
    let [datagram] = sent.as_slice() else { panic!("sent {} datagrams: {sent:?}", sent.len()) };
    datagram.clone()
}

/// What `conversation` makes of `datagrams`, the answer to its one request.
pub fn answered<T>(
    datagrams: &[Bytes],
    conversation: impl FnOnce(&mut Socket<Scripted>) -> T,
) -> T {
    let datagrams = datagrams.iter().map(|bytes| Answer::Datagram(bytes.0.clone())).collect();
    let (mut socket, _) = answering(vec![datagrams]);
    conversation(&mut socket)
}

/// An acknowledgement of the request with this sequence number.
pub fn ack(sequence: u32) -> Vec<u8> {
    Refusal { sequence, ..Refusal::default() }.bytes()
}

/// An `NLMSG_ERROR` as [`Socket::open`] asks for it: capped.
#[derive(Clone, Copy, Default)]
pub struct Refusal<'a> {
    /// The refused request's sequence number.
    pub sequence: u32,
    /// Why; 0 acknowledges.
    pub errno: i32,
    /// `NLMSGERR_ATTR_MSG`
    pub words: Option<&'a str>,
    /// `NLMSGERR_ATTR_OFFS`
    pub offset: Option<u32>,
}

impl Refusal<'_> {
    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = Flags::CAPPED;
        flags.set(Flags::ACK_TLVS, self.words.is_some() || self.offset.is_some());
        message(2, flags, self.sequence, |out| {
            out.raw(&(-self.errno).to_ne_bytes());
            out.raw(&message(0, Flags::empty(), self.sequence, |_| ()));
            if let Some(words) = self.words {
                out.put(1, words);
            }
            if let Some(offset) = self.offset {
                out.put(2, &offset);
            }
        })
    }
}

/// An `NLMSG_DONE` that ends a dump with this error, 0 if it went well.
pub fn done(sequence: u32, errno: i32) -> Vec<u8> {
    message(3, Flags::from_bits_retain(2), sequence, |out| out.raw(&(-errno).to_ne_bytes()))
}

/// One message.
pub fn message(kind: u16, flags: Flags, sequence: u32, body: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.message(kind, flags, sequence, body);
    encoder.bytes().unwrap().to_vec()
}

/// Sequence numbers of the messages of a datagram.
pub fn sequences(datagram: &[u8]) -> Vec<u32> {
    Messages::new(datagram).map(|message| message.unwrap().sequence).collect()
}

/// Where the first attribute of this type begins in a message of one datagram, counted as
/// `NLMSGERR_ATTR_OFFS` does: from the start of the message with this sequence number.
pub fn offset_of(datagram: &[u8], sequence: u32, family_header: usize, kind: u16) -> u32 {
    let message = Messages::new(datagram).flatten().find(|m| m.sequence == sequence).unwrap();
    let mut offset = 16 + family_header;
    for attribute in Attributes::new(&message.payload[family_header..]).flatten() {
        if attribute.kind == kind {
            return u32::try_from(offset).unwrap();
        }
        offset += (4 + attribute.payload.len()).next_multiple_of(4);
    }
    panic!("no attribute of type {kind} in message {sequence}")
}
