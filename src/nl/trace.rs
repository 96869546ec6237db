//! Tells of a conversation with the kernel to who looks inside (see [`crate::trace`]).

use std::time::Instant;

use nix::errno::Errno;

use super::pretty;
use super::socket::{Datagram, Family};
use crate::trace::{self, Trace};

/// A conversation that is told of.
#[derive(Debug)]
pub struct Conversation {
    trace: &'static Trace,
    family: Family,
    /// The namespace of its socket.
    place: &'static str,
}

impl Conversation {
    /// A conversation over a socket that has just been opened, in the current namespace; `None` if nobody
    /// looks.
    pub fn begin(family: Family) -> Option<Self> {
        let trace = trace::current()?;
        Some(Self { trace, family, place: trace.place() })
    }

    /// Sends a datagram by `send`, and tells of its messages and how long the kernel has taken. It
    /// carries them out while they are sent.
    pub fn send(
        &self,
        datagram: &[u8],
        send: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.tell("→", datagram);
        let began = Instant::now();
        let outcome = send();
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let end = match outcome {
            Ok(()) => format!("  {ms:.3} ms in the kernel"),
            Err(errno) => format!("  not sent: {errno:?} ({}), after {ms:.3} ms", errno.desc()),
        };
        self.trace.tell(self.place, &[end]);
        outcome
    }

    /// Tells of a datagram that was received into `buffer`, or why none was.
    pub fn received(&self, outcome: Result<Datagram, Errno>, buffer: &[u8]) {
        match outcome {
            Ok(Datagram { length, sender: 0 }) => {
                self.tell("←", buffer.get(..length).unwrap_or(buffer));
                if length > buffer.len() {
                    let cut = format!("  cut: {} of {length} bytes", buffer.len());
                    self.trace.tell(self.place, &[cut]);
                }
            }
            Ok(Datagram { sender, .. }) => {
                self.trace.tell(self.place, &[format!("  ignored: a datagram of port {sender}")]);
            }
            // There is nothing to tell of in an empty queue.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => {
                let what = format!("  not received: {errno:?} ({})", errno.desc());
                self.trace.tell(self.place, &[what]);
            }
        }
    }

    /// Tells of an interface ioctl (netdevice(7)) about the link of this name, and what it has answered.
    pub fn asked(&self, ioctl: &str, link: &str, answer: Result<u32, Errno>) {
        let event = match answer {
            Ok(number) => format!("{ioctl} {link:?}: {number}"),
            Err(errno) => format!("{ioctl} {link:?}: {errno:?} ({})", errno.desc()),
        };
        self.trace.tell(self.place, &[event]);
    }

    fn tell(&self, arrow: &str, datagram: &[u8]) {
        let messages = pretty::messages(self.family, datagram);
        let messages: Vec<_> = messages.map(|message| format!("{arrow} {message}")).collect();
        self.trace.tell(self.place, &messages);
    }
}
