//! What the daemon waits for, and packet sockets that it has done with.
//!
//! To close a packet socket the kernel waits until no processor is at work with it any more (an RCU grace period,
//! 10 to 20 ms), and with it whoever closes. So that nobody else has to wait as well, sockets are closed when there
//! is nothing else to do, one at a time.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::sys::packet::PacketSocket;

/// Events are waited for here.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    closing: RefCell<Vec<PacketSocket>>,
}

impl Poller {
    /// One that waits for nothing yet.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new() -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, closing: RefCell::default() })
    }

    /// Waits also until this can be read; `token` tells then who it is.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn add(&self, source: impl AsFd, token: u64) -> Result<(), Errno> {
        self.epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, token))
    }

    /// Waits until this can be done with a source.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn change(&self, source: impl AsFd, token: u64, to: EpollFlags) -> Result<(), Errno> {
        self.epoll.modify(source, &mut EpollEvent::new(to, token))
    }

    /// Waits for a source no longer.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn remove(&self, source: impl AsFd) -> Result<(), Errno> {
        self.epoll.delete(source)
    }

    /// Waits, and returns how many of `events` have come. There may be none.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub fn wait(&self, events: &mut [EpollEvent]) -> Result<usize, Errno> {
        let is_idle = self.closing.borrow().is_empty();
        let patience = if is_idle { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = match self.epoll.wait(events, patience) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        if count == 0 {
            let closed = self.closing.borrow_mut().pop();
            drop(closed);
        }
        Ok(count)
    }

    /// Closes a socket when there is time.
    pub fn close_later(&self, socket: PacketSocket) {
        self.closing.borrow_mut().push(socket);
    }
}

/// Where something may come from.
#[derive(Debug)]
pub enum Source {
    /// Packets of one protocol.
    Packets(PacketSocket),
    /// Datagrams to one port.
    Datagrams(UdpSocket),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Packets(socket) => socket.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

/// A source that is waited for until this is dropped.
#[derive(Debug)]
pub struct Ear {
    source: Option<Source>,
    poller: Rc<Poller>,
}

impl Ear {
    /// Begins to wait.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(source: Source, token: u64, poller: &Rc<Poller>) -> Result<Self, Errno> {
        let ear = Self { source: Some(source), poller: Rc::clone(poller) };
        ear.source.as_ref().map_or(Ok(()), |source| poller.add(source, token))?;
        Ok(ear)
    }

    /// What is waited for.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            let _ = self.poller.remove(&source);
            if let Source::Packets(socket) = source {
                self.poller.close_later(socket);
            }
        }
    }
}
