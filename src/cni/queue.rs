//! Which calls wait for which, and what a garbage collection knows of the calls beside it: locks on bytes of one
//! file.
//!
//! The bytes need not be there. Their locks are those of an open file description (fcntl(2)), so they end with the
//! process that holds them, however it ends. What the file holds is the attachments that a garbage
//! collection is to spare, each by its byte's offset.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use nix::errno::Errno;

use super::{Attachment, Code, Error, Request};
use crate::sys::lock::{Kind, held_bytes, is_held, lock, try_lock, unlock};
use crate::trace;

/// How long another call is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The file.
pub const QUEUE: &str = "/run/plumb.lock";

/// Held by a pass over all attachments, such as follow each other.
const PASS: i64 = 0;
/// Held by all garbage collections from their beginning on.
pub const COLLECTION: i64 = 1;
/// Held by a call that deletes a link without sharing that with others.
pub const DELETION: i64 = 2;
/// Held by all calls that are about to mark their link as one to be deleted together with others.
pub const MARKING: i64 = 3;
/// From here on the bytes of containers, by the number of their namespace, each held by a call for it.
const CONTAINERS: i64 = 4;
/// From here on the bytes of attachments, by a hash of their names, each held by a call about it.
const ATTACHMENTS: i64 = 1 << 62;

/// Length of an entry of the file.
const ENTRY: usize = 8;

/// Opens the file. Each lock that is to end by itself needs a file of its own.
///
/// # Errors
/// Those of open(2).
pub fn open() -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true).mode(0o600);
    let queue = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(QUEUE);
    trace::file("open", QUEUE, &queue);
    queue
}

/// The turn of a call, which ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    _queue: Option<File>,
}

impl Turn {
    /// Waits for this call's turn. Calls for one container follow each other, and so do those about one attachment:
    /// two at once, as of a runtime that tries again what it believes to have failed, would take each
    /// other's lease or link for their own.
    ///
    /// The lock is not the namespace's own, which a process in the container could hold against us; only where
    /// none but the container's owner may write, that has to do.
    ///
    /// # Errors
    /// Code 11: another call takes too long; else those of fcntl(2) and flock(2).
    pub fn wait(request: &Request) -> Result<Self, Error> {
        let queue = open().ok();
        if let Ok(netns) = request.netns() {
            let number = netns.number().ok().and_then(|number| i64::try_from(number).ok());
            let locked = match (&queue, number) {
                (Some(queue), Some(number)) => lock(queue, Kind::Byte(number), PATIENCE),
                _ => netns.lock(PATIENCE),
            };
            let what = format_args!("network namespace {:?}", request.env.netns);
            locked.map_err(|errno| refused(what, errno))?;
        }
        if let Some(queue) = &queue {
            let attachment = request.attachment();
            let byte = byte_of(&attachment);
            let what = format_args!("attachment {:?}", attachment.label());
            lock(queue, Kind::Byte(byte), PATIENCE).map_err(|errno| refused(what, errno))?;
            announce(queue, byte).map_err(|errno| refused(what, errno))?;
        }
        Ok(Self { _queue: queue })
    }

    /// Has garbage collections spare the request's attachment, and waits for no other call: the turn of a plugin that
    /// another one calls, which may hold the attachment's byte itself.
    ///
    /// # Errors
    /// A collection that can't be told takes too long.
    pub fn of_delegate(request: &Request) -> Result<Self, Error> {
        let queue = open().ok();
        if let Some(queue) = &queue {
            let attachment = request.attachment();
            let byte = byte_of(&attachment);
            let held = try_lock(queue, Kind::Byte(byte)).and_then(|_| announce(queue, byte));
            held.map_err(|errno| {
                refused(format_args!("attachment {:?}", attachment.label()), errno)
            })?;
        }
        Ok(Self { _queue: queue })
    }

    /// Waits for the turn of a pass over all attachments.
    ///
    /// # Errors
    /// Another takes too long; else those of open(2) and fcntl(2).
    pub fn of_pass() -> Result<Self, Error> {
        let queue = opened()?;
        let locked = lock(&queue, Kind::Byte(PASS), PATIENCE);
        locked.map_err(|why| Error::io(format_args!("lock {QUEUE}"), why.desc()))?;
        Ok(Self { _queue: Some(queue) })
    }
}

/// Waits until the calls that are at work for containers now are not any more; others may have begun. Such as
/// can't open the queue are not waited for.
///
/// # Errors
/// Code 11: one takes too long; else those of open(2) and fcntl(2).
pub fn await_calls() -> Result<(), Error> {
    let held = held_bytes(&opened()?, CONTAINERS);
    for byte in held.map_err(|why| Error::io(format_args!("lock {QUEUE}"), why.desc()))? {
        lock(&opened()?, Kind::Byte(byte), PATIENCE)
            .map_err(|errno| refused(format_args!("what a call is about"), errno))?;
    }
    Ok(())
}

fn opened() -> Result<File, Error> {
    open().map_err(|why| Error::io(format_args!("open {QUEUE}"), why))
}

fn refused(what: std::fmt::Arguments<'_>, errno: Errno) -> Error {
    let msg = format!("cannot lock {what}");
    if errno == Errno::EINTR {
        let patience = PATIENCE.as_secs();
        let msg = format!("{msg}: another call has held it for {patience} s");
        return Error::new(Code::TryAgainLater, msg);
    }
    Error::new(Code::Internal, format!("{msg}: {errno:?}")).with_details(errno.desc())
}

/// The byte of an attachment: FNV-1a of its label. Two that share one wait for each other, and are spared together.
fn byte_of(attachment: &Attachment) -> i64 {
    let hash = attachment.label().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ATTACHMENTS | (hash.cast_signed() & (ATTACHMENTS - 1))
}

/// Tells garbage collections that are under way to spare an attachment, whose byte is held. If that can't be
/// written, waits for them.
fn announce(queue: &File, byte: i64) -> Result<(), Errno> {
    let mut entries = queue;
    if !is_held(queue, COLLECTION)? || entries.write_all(&byte.to_ne_bytes()).is_ok() {
        return Ok(());
    }
    lock(queue, Kind::Byte(COLLECTION), PATIENCE)?;
    unlock(queue, COLLECTION)
}

/// A garbage collection under way: tells the attachments that it may take apart from those that are none of its
/// business, because a call was about them when it began, or has been since.
///
/// Who begins one and only then lists the valid attachments is exact, also if it has others collect.
pub struct Collection {
    /// None if it can't be opened, and then not by other calls either.
    queue: Option<File>,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    /// Those that are to be spared, as far as the file has been read.
    spared: HashSet<i64>,
    /// How far that is.
    read: u64,
    /// What has been said of an attachment, which holds until the end.
    claims: HashMap<i64, bool>,
}

impl Collection {
    /// Begins one. Calls that are at work or begin from here on are known to it.
    ///
    /// # Errors
    /// Those of fcntl(2) and write(2).
    pub fn begin() -> Result<Self, Error> {
        let queue = open().ok();
        let mut known = Known::default();
        if let Some(queue) = &queue {
            let mut begun = || -> io::Result<()> {
                // Before the lock, after which calls add to it.
                let length = queue.metadata()?.len();
                if try_lock(queue, Kind::Byte(COLLECTION))? {
                    known.read = length;
                }
                lock(queue, Kind::SharedByte(COLLECTION), PATIENCE)?;
                let held = held_bytes(queue, ATTACHMENTS)?;
                let held: Vec<_> = held.iter().flat_map(|byte| byte.to_ne_bytes()).collect();
                let mut entries = queue;
                entries.write_all(&held)
            };
            begun().map_err(|why| Error::io(format_args!("begin a collection in {QUEUE}"), why))?;
        }
        Ok(Self { queue, known: RefCell::new(known) })
    }

    /// Whether an attachment, of which something has been found since this began, may be taken. Then calls about it
    /// wait until the end.
    #[must_use]
    pub fn claims(&self, attachment: &Attachment) -> bool {
        let Some(queue) = &self.queue else { return true };
        let byte = byte_of(attachment);
        let mut known = self.known.borrow_mut();
        if let Some(claimed) = known.claims.get(&byte) {
            return *claimed;
        }
        // What can't be told apart is left for another time.
        let mut claimed = try_lock(queue, Kind::Byte(byte)) == Ok(true);
        if claimed && (known.read_on(queue).is_err() || known.spared.contains(&byte)) {
            let _ = unlock(queue, byte);
            claimed = false;
        }
        known.claims.insert(byte, claimed);
        claimed
    }
}

impl Drop for Collection {
    /// The last one that ends empties the file.
    fn drop(&mut self) {
        if let Some(queue) = &self.queue
            && try_lock(queue, Kind::Byte(COLLECTION)) == Ok(true)
        {
            let _ = queue.set_len(0);
        }
    }
}

impl Known {
    /// Reads what has been added to the file.
    fn read_on(&mut self, queue: &File) -> io::Result<()> {
        let mut buffer = [0; 512 * ENTRY];
        loop {
            let length = queue.read_at(&mut buffer, self.read)?;
            let entries = buffer.get(..length).unwrap_or_default().chunks_exact(ENTRY);
            let found = entries.len();
            let entries = entries.filter_map(|entry| entry.first_chunk::<ENTRY>());
            self.spared.extend(entries.map(|entry| i64::from_ne_bytes(*entry)));
            self.read += (found * ENTRY) as u64;
            if found == 0 {
                return Ok(());
            }
        }
    }
}
