//! A connection of a plugin's: requests come in, answers go out, and nobody waits for either.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Uid, geteuid};

use crate::cni::Error;
use crate::ipam::dhcp::protocol::{Answer, Frames, Request};
use crate::sys::clock::Time;

/// How long a connection may be silent, with no request at work.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much is read at a time.
const READ: usize = 4096;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    frames: Frames,
    /// What could not be written yet.
    unsent: Vec<u8>,
    /// The leases that the ADD at work is to give; none if no ADD is.
    pub awaits: Vec<u32>,
    /// Since when it has been silent.
    since: Time,
    /// When it is to be looked at again, as the daemon has noted it.
    pub wakes: Option<Time>,
}

/// What a connection has to say.
#[derive(Debug)]
pub enum Heard {
    /// A request, or why what came is none.
    Request(Result<Request, Error>),
    /// Nothing yet.
    Nothing,
    /// It is closed, or can't go on.
    End,
}

impl Connection {
    /// Takes over an accepted connection; `None` if it is of a stranger's.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn accept(stream: UnixStream, now: Time) -> io::Result<Option<Self>> {
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        if ![Uid::from_raw(0), geteuid()].contains(&Uid::from_raw(peer.uid())) {
            return Ok(None);
        }
        stream.set_nonblocking(true)?;
        let (frames, unsent) = (Frames::default(), Vec::new());
        Ok(Some(Self { stream, frames, unsent, awaits: Vec::new(), since: now, wakes: None }))
    }

    /// Reads on.
    pub fn read(&mut self, now: Time) -> Heard {
        let mut buffer = [0; READ];
        loop {
            match self.frames.take() {
                Ok(Some(value)) => return Heard::Request(Request::read(&value)),
                Ok(None) => {}
                // Where the next one begins is not known.
                Err(_) => return Heard::End,
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::End,
                Ok(length) => {
                    self.since = now;
                    self.frames.push(buffer.get(..length).unwrap_or_default());
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::End,
            }
        }
    }

    /// Answers, as far as the other side takes it now.
    ///
    /// # Errors
    /// It takes no more at all.
    pub fn answer(&mut self, answer: &Answer, now: Time) -> io::Result<()> {
        self.since = now;
        self.unsent.extend_from_slice(&answer.frame());
        self.write_on()
    }

    /// Writes what could not be written yet.
    ///
    /// # Errors
    /// The other side takes no more at all.
    pub fn write_on(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Whether there is something left to write.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// When its silence has lasted long enough to end it; never while it waits itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.awaits.is_empty().then(|| self.since + PATIENCE)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
