//! The daemon: one thread, one loop, for all leases of the node.
//!
//! Everything that can happen is an event of epoll(7): a plugin connects or asks (`connection`), a packet comes
//! in on a socket of a lease (`lease`), a deadline passes (one timer for all), the kernel tells that a link or
//! a namespace has gone ([`crate::nl::watch`]), a signal comes. A lease that has nothing to wait for has no
//! socket open: one in a container's namespace would keep that alive.
//!
//! `poller` is what is waited for, `options` the command line, `store` the state directory, `interface` what is done to a container's
//! interface, `log` the log.

mod client;
mod connection;
mod interface;
mod lease;
mod listener;
mod log;
mod options;
mod poller;
mod store;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use self::connection::{Connection, Heard};
use self::lease::{Lease, Outcome, World};
use self::listener::Listener;
use self::log::{Level, log};
use self::options::Options;
use self::poller::Poller;
use self::store::{Key, Store, key};
use crate::cni::{Attachment, CniResult, Code, Error};
use crate::ipam::dhcp::life::Family;
use crate::ipam::dhcp::protocol::{Add, Answer, Request};
use crate::nl::watch::{Gone, Nsid, Watch};
use crate::nl::{self, Socket};
use crate::sys::clock::Time;

/// How many events are taken at a time.
const EVENTS: usize = 64;
/// When there are too many open files for another connection, it is tried again after this.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Who an event is for. As a number: the kind in the upper half, which of the kind in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Token {
    Listener,
    Signals,
    Timer,
    Watch,
    Connection(u32),
    Lease(u32),
}

impl Token {
    fn to_number(self) -> u64 {
        let (kind, which) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Timer => (2, 0),
            Self::Watch => (3, 0),
            Self::Connection(id) => (4, id),
            Self::Lease(id) => (5, id),
        };
        kind << 32 | u64::from(which)
    }

    fn from_number(number: u64) -> Option<Self> {
        let which = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        Some(match number >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Timer,
            3 => Self::Watch,
            4 => Self::Connection(which),
            5 => Self::Lease(which),
            _ => return None,
        })
    }
}

/// Runs the daemon until it is told to end, and returns the exit status. `arguments` are those behind `daemon`.
#[must_use]
pub fn run(arguments: &[OsString]) -> i32 {
    let options = Options::read(arguments);
    match Daemon::start(options).and_then(Daemon::serve) {
        Ok(()) => 0,
        Err(error) => {
            log(Level::Error, "cannot go on", &[("why", &error)]);
            1
        }
    }
}

struct Daemon {
    options: Options,
    poller: Rc<Poller>,
    listener: Listener,
    signals: SignalFd,
    timer: TimerFd,
    /// For when the timer is set.
    set_for: Option<Time>,
    watch: Watch,
    host: Socket,
    store: Store,
    connections: HashMap<u32, Connection>,
    leases: HashMap<u32, Box<Lease>>,
    /// Leases by attachment and family.
    by_key: HashMap<Key, u32>,
    /// Leases by the link that they are for.
    by_link: BTreeSet<(Nsid, u32, u32)>,
    /// Who wants to be woken, and when.
    deadlines: BTreeSet<(Time, Token)>,
    /// What the next connection or lease is called.
    next: u32,
    seeds: RandomState,
}

impl Daemon {
    fn start(options: Options) -> Result<Self, Error> {
        let error = |what: &'static str| move |errno: Errno| Error::io(what, errno);
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block().map_err(error("block signals"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).map_err(error("wait for signals"))?;
        raise_limit_of_files();
        let store = Store::open(&options.state_directory())?;
        let listener = Listener::open(&options)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).map_err(error("make a timer"))?;
        let poller = Poller::new().map_err(error("wait for events"))?;
        // Before leases are taken up, so that none is missed that goes meanwhile.
        let watch = Watch::open()?;
        let host = Socket::open(nl::Family::Route)?;
        let sources = [
            (listener.as_fd(), Token::Listener),
            (signals.as_fd(), Token::Signals),
            (timer.as_fd(), Token::Timer),
            (watch.as_fd(), Token::Watch),
        ];
        for (source, token) in sources {
            poller.add(source, token.to_number()).map_err(error("wait for events"))?;
        }
        let mut daemon = Self {
            options,
            poller: Rc::new(poller),
            listener,
            signals,
            timer,
            set_for: None,
            watch,
            host,
            store,
            connections: HashMap::new(),
            leases: HashMap::new(),
            by_key: HashMap::new(),
            by_link: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            next: 0,
            seeds: RandomState::new(),
        };
        daemon.resume()?;
        let (socket, state) = (daemon.options.socket(), daemon.store.path().to_owned());
        let fields: [(&str, &dyn std::fmt::Display); 3] = [
            ("socket", &socket.display()),
            ("state", &state.display()),
            ("leases", &daemon.leases.len()),
        ];
        log(Level::Info, "ready", &fields);
        Ok(daemon)
    }

    /// Takes up what the daemon before has left.
    fn resume(&mut self) -> Result<(), Error> {
        let loaded = self.store.load()?;
        for (file, why) in loaded.refused {
            log(Level::Warning, "forgot a lease", &[("file", &file), ("why", &why)]);
        }
        for record in loaded.records {
            let id = self.new_id();
            let (attachment, family) = (record.attachment.clone(), Family::of(&record.wanted));
            let seed = self.seeds.hash_one((id, Time::now().since_boot()));
            let world = world(&self.options, &self.poller, id);
            match Lease::resume(record, &mut self.host, &world, seed) {
                Ok(lease) => {
                    lease.log(Level::Info, "took up again", &[]);
                    self.insert(id, lease);
                }
                Err(why) => {
                    let name = attachment.label();
                    log(Level::Warning, "forgot a lease", &[("lease", &name), ("why", &why)]);
                    self.note(self.store.forget(&attachment, family));
                }
            }
        }
        Ok(())
    }

    fn serve(mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            self.set_timer()?;
            let count = self.poller.wait(&mut events);
            let count = count.map_err(|errno| Error::io("wait for events", errno))?;
            for event in events.iter().take(count) {
                match Token::from_number(event.data()) {
                    Some(Token::Listener) => self.accept()?,
                    Some(Token::Signals) if self.signal()? => return Ok(()),
                    Some(Token::Signals) => {}
                    Some(Token::Timer) => self.wake()?,
                    Some(Token::Watch) => self.look_who_has_gone()?,
                    Some(Token::Connection(id)) => self.hear_connection(id),
                    Some(Token::Lease(id)) => self.with_lease(id, Lease::hear),
                    None => {}
                }
            }
        }
    }

    /// Sees which signal has come; true if it is to end.
    fn signal(&mut self) -> Result<bool, Error> {
        let signal = self.signals.read_signal();
        let Some(info) = signal.map_err(|errno| Error::io("read a signal", errno))? else {
            return Ok(false);
        };
        if info.ssi_signo.cast_signed() == Signal::SIGHUP as i32 {
            log(Level::Info, "SIGHUP: there is no configuration to read again", &[]);
            return Ok(false);
        }
        log(Level::Info, "ends; leases stay", &[("leases", &self.leases.len())]);
        Ok(true)
    }

    // ----------------------------------------------------------------------------------------------- time

    /// Sets the timer for the first deadline, unless it is.
    fn set_timer(&mut self) -> Result<(), Error> {
        let first = self.deadlines.first().map(|(time, _)| *time);
        if first == self.set_for {
            return Ok(());
        }
        let set = match first {
            Some(time) => {
                // Zero would switch it off.
                let time = time.since_boot().max(Duration::from_nanos(1));
                let at = Expiration::OneShot(time.into());
                self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.timer.unset(),
        };
        set.map_err(|errno| Error::io("set the timer", errno))?;
        self.set_for = first;
        Ok(())
    }

    /// Does all that is due.
    fn wake(&mut self) -> Result<(), Error> {
        // It has gone off, so it must be set again for what comes next.
        let _ = self.timer.wait();
        self.set_for = None;
        let now = Time::now();
        while let Some((_, token)) =
            self.deadlines.first().copied().filter(|(time, _)| *time <= now)
        {
            self.deadlines.pop_first();
            match token {
                Token::Lease(id) => {
                    self.with_lease(id, |lease, world| {
                        lease.wakes = None;
                        lease.wake(world)
                    });
                }
                Token::Connection(id) => {
                    let silent = self.connections.get_mut(&id).is_some_and(|connection| {
                        connection.wakes = None;
                        connection.deadline().is_some_and(|deadline| deadline <= now)
                    });
                    if silent { self.close(id) } else { self.schedule_connection(id) }
                }
                Token::Listener => self.listen_again()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn schedule_lease(&mut self, id: u32) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let deadline = lease.deadline();
        reschedule(&mut self.deadlines, Token::Lease(id), &mut lease.wakes, deadline);
    }

    fn schedule_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let deadline = connection.deadline();
        reschedule(&mut self.deadlines, Token::Connection(id), &mut connection.wakes, deadline);
    }

    // ------------------------------------------------------------------------------------------ connections

    fn accept(&mut self) -> Result<(), Error> {
        loop {
            let accepted =
                self.listener.accept().and_then(|stream| Connection::accept(stream, Time::now()));
            match accepted {
                Ok(Some(connection)) => {
                    let id = self.new_id();
                    let token = Token::Connection(id).to_number();
                    if self.poller.add(&connection, token).is_ok() {
                        self.connections.insert(id, connection);
                        self.schedule_connection(id);
                    }
                }
                Ok(None) => log(Level::Warning, "refused another user's connection", &[]),
                Err(why) => match why.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => return Ok(()),
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        log(Level::Warning, "a connection has to wait", &[("why", &why)]);
                        let stopped = self.poller.remove(&self.listener);
                        stopped.map_err(|errno| Error::io("wait for connections", errno))?;
                        let again = Time::now() + FULL_PAUSE;
                        self.deadlines.insert((again, Token::Listener));
                        return Ok(());
                    }
                    // Of the one that wanted to connect.
                    _ => {}
                },
            }
        }
    }

    /// There may be room for another connection by now.
    fn listen_again(&mut self) -> Result<(), Error> {
        let added = self.poller.add(&self.listener, Token::Listener.to_number());
        added.map_err(|errno| Error::io("wait for connections", errno))
    }

    fn hear_connection(&mut self, id: u32) {
        let now = Time::now();
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if connection.write_on().is_err() {
                return self.close(id);
            }
            // Who does not take answers is asked for no more requests.
            if connection.is_behind() {
                break;
            }
            let is_at_work = !connection.awaits.is_empty();
            match connection.read(now) {
                // One at a time.
                Heard::Request(_) if is_at_work => return self.close(id),
                Heard::Request(Ok(request)) => self.carry_out(id, request),
                Heard::Request(Err(error)) => self.answer(id, &Answer::Failed(error)),
                Heard::Nothing => break,
                Heard::End => return self.close(id),
            }
        }
        self.watch_connection(id);
        self.schedule_connection(id);
    }

    /// Waits for what a connection can do next: take what is left to write, or else ask.
    fn watch_connection(&self, id: u32) {
        let Some(connection) = self.connections.get(&id) else { return };
        let flags = if connection.is_behind() { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        // If it can't be waited for, its silence ends it.
        let _ = self.poller.change(connection, Token::Connection(id).to_number(), flags);
    }

    fn answer(&mut self, id: u32, answer: &Answer) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.awaits.clear();
        if connection.answer(answer, Time::now()).is_err() {
            return self.close(id);
        }
        self.watch_connection(id);
        self.schedule_connection(id);
    }

    /// Ends a connection. What was begun for it alone, and nobody was told of, is taken back.
    fn close(&mut self, id: u32) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Some(time) = connection.wakes {
            self.deadlines.remove(&(time, Token::Connection(id)));
        }
        self.abandon(id, &connection.awaits);
        if self.connections.is_empty() {
            give_back_memory();
        }
    }

    /// A connection waits for these leases no longer.
    fn abandon(&mut self, connection: u32, leases: &[u32]) {
        for id in leases {
            let Some(lease) = self.leases.get_mut(id) else { continue };
            lease.leave(connection);
            if lease.waiters().is_empty() && !lease.is_told() {
                lease.log(Level::Info, "nobody waits for it any more", &[]);
                self.release(*id);
            }
        }
    }

    // --------------------------------------------------------------------------------------------- requests

    fn carry_out(&mut self, connection: u32, request: Request) {
        let answer = match request {
            Request::Add(add) => return self.add(connection, &add),
            Request::Del(attachment) => {
                for id in self.leases_of(&attachment) {
                    self.release(id);
                }
                Answer::Done
            }
            Request::Check(attachment) => self.check(&attachment),
            Request::Status => Answer::Done,
            Request::Leases => {
                let now = Time::now();
                let mut held: Vec<_> = self.leases.values().map(|lease| lease.held(now)).collect();
                held.sort_by_cached_key(|held| (held.attachment.label(), held.address.clone()));
                Answer::Leases(held)
            }
        };
        self.answer(connection, &answer);
    }

    fn add(&mut self, connection: u32, add: &Add) {
        let wanted = Family::ALL.into_iter().filter(|family| family.is_in(&add.wanted));
        let mut leases = Vec::new();
        for family in wanted {
            match self.begin(add, family) {
                Ok(id) => leases.push(id),
                Err(error) => {
                    self.abandon(connection, &leases);
                    return self.answer(connection, &Answer::Failed(error));
                }
            }
        }
        for id in &leases {
            if let Some(lease) = self.leases.get_mut(id) {
                lease.await_by(connection);
            }
        }
        if let Some(waiter) = self.connections.get_mut(&connection) {
            waiter.awaits.clone_from(&leases);
        }
        self.answer_if_all_there(connection);
        for id in leases {
            if self.leases.get(&id).is_some_and(|lease| lease.is_new()) {
                self.with_lease(id, Lease::wake);
            }
        }
    }

    /// The lease of an attachment: the one that lives, or else one that is being looked for.
    fn begin(&mut self, add: &Add, family: Family) -> Result<u32, Error> {
        if let Some(id) = self.by_key.get(&key(&add.attachment, family)).copied() {
            let world = world(&self.options, &self.poller, id);
            if self.leases.get(&id).is_some_and(|lease| lease.is_of(&add.netns, &world)) {
                return Ok(id);
            }
            self.end(id, "another link is in its link's place");
        }
        let id = self.new_id();
        let seed = self.seeds.hash_one((id, Time::now().since_boot()));
        let world = world(&self.options, &self.poller, id);
        let lease = Lease::begin(add, family, &mut self.host, &world, seed)?;
        self.insert(id, lease);
        Ok(id)
    }

    /// Answers an ADD once there are all leases that it waits for.
    fn answer_if_all_there(&mut self, connection: u32) {
        let Some(waiter) = self.connections.get(&connection) else { return };
        let awaits = waiter.awaits.clone();
        let Some(result) = self.result(&awaits) else { return };
        for id in &awaits {
            if let Some(lease) = self.leases.get_mut(id) {
                lease.leave(connection);
                lease.tell();
            }
        }
        self.answer(connection, &Answer::Leased(result));
    }

    /// What leases come to together; `None` if one of them is not there yet, or there is none.
    fn result(&self, leases: &[u32]) -> Option<CniResult> {
        let mut result = CniResult::default();
        for id in leases {
            let part = self.leases.get(id).and_then(|lease| lease.result())?;
            result.ips.extend(part.ips);
            result.routes.extend(part.routes);
            result.dns.nameservers.extend(part.dns.nameservers);
            let others = part.dns.search.into_iter();
            let others: Vec<_> = others.filter(|name| !result.dns.search.contains(name)).collect();
            result.dns.search.extend(others);
            if result.dns.domain.is_empty() {
                result.dns.domain = part.dns.domain;
            }
        }
        (!leases.is_empty()).then_some(result)
    }

    /// The leases of an attachment, of whatever family.
    fn leases_of(&self, attachment: &Attachment) -> Vec<u32> {
        let of_family = |family| self.by_key.get(&key(attachment, family)).copied();
        Family::ALL.into_iter().filter_map(of_family).collect()
    }

    fn check(&self, attachment: &Attachment) -> Answer {
        let Some(result) = self.result(&self.leases_of(attachment)) else {
            let Attachment { network, container, ifname } = attachment;
            let msg = format!(
                "the DHCP daemon has no lease for container {container:?} interface {ifname:?} on network \
                 {network:?}"
            );
            return Answer::Failed(Error::new(Code::Internal, msg));
        };
        Answer::Leased(result)
    }

    // ----------------------------------------------------------------------------------------------- leases

    /// Has a lease do something, and sees to what that means for others.
    fn with_lease(&mut self, id: u32, work: impl FnOnce(&mut Lease, &World<'_>) -> Outcome) {
        let world = world(&self.options, &self.poller, id);
        let Some(lease) = self.leases.get_mut(&id) else { return };
        match work(lease, &world) {
            Outcome::Same => {}
            Outcome::Bound => {
                let waiters = lease.waiters().to_vec();
                if let Some(record) = lease.record() {
                    self.note(self.store.keep(&record));
                }
                for connection in waiters {
                    self.answer_if_all_there(connection);
                }
            }
            Outcome::Over(error) => {
                lease.log(Level::Warning, "ended", &[("why", &error)]);
                return self.fail(id, &error);
            }
        }
        self.schedule_lease(id);
    }

    /// Takes a lease off the list that has ended, and tells those who wait for it.
    fn fail(&mut self, id: u32, error: &Error) {
        let Some(lease) = self.remove(id) else { return };
        for waiter in lease.waiters().to_vec() {
            let Some(connection) = self.connections.get_mut(&waiter) else { continue };
            let others = std::mem::take(&mut connection.awaits);
            self.abandon(waiter, &others);
            self.answer(waiter, &Answer::Failed(error.clone()));
        }
    }

    /// Gives a lease back to its server.
    fn release(&mut self, id: u32) {
        let world = world(&self.options, &self.poller, id);
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.release(&world);
        }
        self.fail(id, &Error::new(Code::Internal, "the lease was released meanwhile"));
    }

    /// Ends a lease that can't be given back.
    fn end(&mut self, id: u32, why: &str) {
        if let Some(lease) = self.leases.get(&id) {
            lease.log(Level::Info, "ended", &[("why", &why)]);
        }
        self.fail(id, &Error::new(Code::Internal, why));
    }

    fn insert(&mut self, id: u32, lease: Lease) {
        let place = lease.place();
        self.by_link.insert((place.number, place.link, id));
        self.by_key.insert(key(lease.attachment(), lease.family()), id);
        self.leases.insert(id, Box::new(lease));
        self.schedule_lease(id);
    }

    fn remove(&mut self, id: u32) -> Option<Box<Lease>> {
        let lease = self.leases.remove(&id)?;
        let place = lease.place();
        self.by_link.remove(&(place.number, place.link, id));
        self.by_key.remove(&key(lease.attachment(), lease.family()));
        if let Some(time) = lease.wakes {
            self.deadlines.remove(&(time, Token::Lease(id)));
        }
        self.note(self.store.forget(lease.attachment(), lease.family()));
        Some(lease)
    }

    /// Ends the leases whose link or namespace has gone.
    fn look_who_has_gone(&mut self) -> Result<(), Error> {
        while let Some(gone) = self.watch.next()? {
            let range = match gone {
                Gone::Link(netns, link) => (netns, link, 0)..=(netns, link, u32::MAX),
                Gone::Netns(number) => (Some(number), 0, 0)..=(Some(number), u32::MAX, u32::MAX),
                Gone::Unknown => (None, 0, 0)..=(Some(i32::MAX), u32::MAX, u32::MAX),
            };
            let affected: Vec<_> = self.by_link.range(range).map(|(.., id)| *id).collect();
            for id in affected {
                let world = world(&self.options, &self.poller, id);
                // The numbers may be another's by now.
                if self.leases.get_mut(&id).is_some_and(|lease| !lease.is_there(&world)) {
                    self.end(id, "its link has gone");
                }
            }
        }
        Ok(())
    }

    fn new_id(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let id = self.next;
            if !self.leases.contains_key(&id) && !self.connections.contains_key(&id) {
                return id;
            }
        }
    }

    /// Logs what could not be written: the lease itself is not affected.
    fn note(&self, written: Result<(), Error>) {
        if let Err(why) = written {
            log(Level::Error, "the state directory is not as it should be", &[("why", &why)]);
        }
    }
}

/// What a lease needs of the daemon, which is at work on other parts of itself meanwhile.
fn world<'a>(options: &'a Options, poller: &'a Rc<Poller>, id: u32) -> World<'a> {
    World { options, poller, token: Token::Lease(id).to_number(), now: Time::now() }
}

/// Allows as many open files as the process may have at all: a lease at work has one, and so has a connection.
fn raise_limit_of_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What is not allowed is done without.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Gives back what was in use while somebody asked: it lies between what stays, where the allocator leaves it.
fn give_back_memory() {
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// Notes when somebody wants to be woken, in the place of when they wanted it before.
fn reschedule(
    deadlines: &mut BTreeSet<(Time, Token)>,
    token: Token,
    noted: &mut Option<Time>,
    deadline: Option<Time>,
) {
    if *noted == deadline {
        return;
    }
    if let Some(time) = *noted {
        deadlines.remove(&(time, token));
    }
    if let Some(time) = deadline {
        deadlines.insert((time, token));
    }
    *noted = deadline;
}
