//! Exclusive file locks that are waited for in the kernel's queue, but not for ever.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::stat::{major, minor};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

use super::again;

/// What is locked, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The whole file, by flock(2): what the reference's host-local takes.
    Flock,
    /// The whole file, by an open file description lock of fcntl(2).
    OpenFileDescription,
    /// The byte at this offset only, be it there or not, by an open file description lock of fcntl(2).
    Byte(i64),
    /// The byte at this offset, together with all others that take it so. A lock of the file's own on it becomes this one.
    SharedByte(i64),
}

/// Takes an exclusive lock on `file`, which holds until the file is closed.
///
/// Who comes first is served first: no polling. A lock that is free costs one system call.
///
/// # Errors
/// `EINTR` if `patience` ends first; otherwise those of flock(2) and fcntl(2).
pub fn lock(file: &File, kind: Kind, patience: Duration) -> Result<(), Errno> {
    if try_lock(file, kind)? {
        return Ok(());
    }
    let alarm = Alarm::set(patience)?;
    let result = acquire(file, kind, Wait::Yes);
    drop(alarm);
    result
}

/// Takes a lock on `file` if it is free, and says whether it was.
///
/// # Errors
/// Those of flock(2) and fcntl(2).
pub fn try_lock(file: &File, kind: Kind) -> Result<bool, Errno> {
    match again(|| acquire(file, kind, Wait::No)) {
        Ok(()) => Ok(true),
        Err(Errno::EWOULDBLOCK | Errno::EACCES) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Gives up the lock on the byte at this offset.
///
/// # Errors
/// Those of fcntl(2).
pub fn unlock(file: &File, offset: i64) -> Result<(), Errno> {
    let range = libc::flock { l_type: unlocked(), ..range(libc::F_WRLCK, offset, 1) };
    again(|| fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&range)).map(drop))
}

/// Whether others hold a lock on the byte at this offset at this moment, shared or not.
///
/// # Errors
/// Those of fcntl(2).
pub fn is_held(file: &File, offset: i64) -> Result<bool, Errno> {
    let mut range = range(libc::F_WRLCK, offset, 1);
    again(|| fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut range)).map(drop))?;
    Ok(range.l_type != unlocked())
}

/// Offsets of the bytes of `file` from `from` on that others hold locks on at this moment ([`Kind::Byte`]), in no order.
///
/// # Errors
/// Those of fcntl(2).
pub fn held_bytes(file: &File, from: i64) -> Result<Vec<i64>, Errno> {
    let mut held = Vec::new();
    // First byte, and how many; 0 for all behind it.
    let mut ranges = vec![(from, 0)];
    while let Some((start, length)) = ranges.pop() {
        let mut range = range(libc::F_WRLCK, start, length);
        fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut range))?;
        if range.l_type == unlocked() {
            continue;
        }
        // The kernel tells one of those that it finds, not the first.
        let at = range.l_start.max(start);
        held.push(at);
        if at > start {
            ranges.push((start, at - start));
        }
        let behind = at + 1;
        match length {
            0 => ranges.push((behind, 0)),
            _ if behind < start + length => ranges.push((behind, start + length - behind)),
            _ => {}
        }
    }
    Ok(held)
}

#[expect(clippy::cast_possible_truncation, reason = "2")]
const fn unlocked() -> libc::c_short {
    libc::F_UNLCK as libc::c_short
}

/// Process that holds a flock(2) lock on `file`, as far as /proc/locks tells: it does not know the
/// processes of other PID namespaces, and some file systems show another device there than in stat(2).
#[must_use]
pub fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let object = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    // The kernel lists a page at a time, and passes over some when others come and go in between.
    let pid =
        (0..5).find_map(|_| lock_holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &object));
    pid.filter(|pid| *pid != 0)
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:2a:56 0 EOF`, and `1: -> FLOCK …` for who waits.
fn lock_holder_in(locks: &str, object: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, "FLOCK", _, _, pid, locked, ..] = fields.as_slice() else { return None };
        if locked == object { pid.parse().ok() } else { None }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    Yes,
}

fn acquire(file: &File, kind: Kind, wait: Wait) -> Result<(), Errno> {
    match kind {
        Kind::Flock => {
            let flags = libc::LOCK_EX | if wait == Wait::No { libc::LOCK_NB } else { 0 };
            // SAFETY: flock(2) works on a descriptor alone, which is open.
            Errno::result(unsafe { libc::flock(file.as_raw_fd(), flags) }).map(drop)
        }
        Kind::OpenFileDescription | Kind::Byte(_) | Kind::SharedByte(_) => {
            let range = match kind {
                Kind::Byte(offset) => range(libc::F_WRLCK, offset, 1),
                Kind::SharedByte(offset) => range(libc::F_RDLCK, offset, 1),
                // To the end, wherever that will be.
                _ => range(libc::F_WRLCK, 0, 0),
            };
            let command = match wait {
                Wait::No => FcntlArg::F_OFD_SETLK(&range),
                Wait::Yes => FcntlArg::F_OFD_SETLKW(&range),
            };
            fcntl(file.as_fd(), command).map(drop)
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "all are below 4")]
const fn range(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Interrupts a waiting system call of this thread after a while; until it is dropped.
struct Alarm {
    timer: Option<Timer>,
    /// The thread's signal mask and the process's action as they were.
    mask: SigSet,
    action: SigAction,
    _alone: MutexGuard<'static, ()>,
}

/// The action on a signal is the process's, so one thread at a time waits: or the first that is done
/// would put the old action back, which the other's signal then meets.
static ALONE: Mutex<()> = Mutex::new(());

impl Alarm {
    fn set(after: Duration) -> Result<Self, Errno> {
        extern "C" fn nothing(_: libc::c_int) {}
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mask = SigSet::thread_get_mask()?;
        // Without SA_RESTART, so that the call ends with EINTR.
        let action =
            SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, so it is safe at any moment.
        let action = unsafe { sigaction(Signal::SIGALRM, &action) }?;
        let mut alarm = Self { timer: None, mask, action, _alone: alone };
        // Whoever has started us may have blocked the signal; it would never come.
        SigSet::from(Signal::SIGALRM).thread_unblock()?;
        let event = SigEvent::new(SigevNotify::SigevThreadId {
            signal: Signal::SIGALRM,
            thread_id: gettid().as_raw(),
            si_value: 0,
        });
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        // Again every 10 ms, in case the signal came just before the call that it is to interrupt.
        let again = Duration::from_millis(10);
        let expiration = Expiration::IntervalDelayed(after.max(again).into(), again.into());
        timer.set(expiration, TimerSetTimeFlags::empty())?;
        alarm.timer = Some(timer);
        Ok(alarm)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // The timer must be still before the old action is back, which may be to end the process.
        self.timer = None;
        let _ = self.mask.thread_set_mask();
        // SAFETY: this restores what was in force before.
        let _ = unsafe { sigaction(Signal::SIGALRM, &self.action) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    #[test]
    fn waiting_ends_when_patience_does_and_the_holder_is_known() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        for kind in [Kind::Flock, Kind::OpenFileDescription, Kind::Byte(1 << 32)] {
            let (first, second) = (open(), open());
            lock(&first, kind, Duration::ZERO).unwrap();
            let began = Instant::now();
            let result = lock(&second, kind, Duration::from_millis(50));
            assert_eq!(result, Err(Errno::EINTR), "{kind:?}");
            assert!(began.elapsed() >= Duration::from_millis(45), "{:?}", began.elapsed());
            if kind == Kind::Flock {
                assert_eq!(holder(&second), Some(std::process::id()));
            }
            drop(first);
            lock(&second, kind, Duration::from_millis(50)).unwrap();
        }
    }

    #[test]
    fn who_locks_another_byte_does_not_wait() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        let (first, second) = (open(), open());
        lock(&first, Kind::Byte(5), Duration::ZERO).unwrap();
        lock(&second, Kind::Byte(4), Duration::ZERO).unwrap();
        lock(&second, Kind::Byte(6), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_shared_byte_keeps_only_those_away_that_want_it_for_themselves() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        let (first, second, third) = (open(), open(), open());
        assert!(!is_held(&third, 5).unwrap());
        assert!(try_lock(&first, Kind::Byte(5)).unwrap());
        assert!(is_held(&third, 5).unwrap() && !try_lock(&second, Kind::SharedByte(5)).unwrap());
        assert!(try_lock(&first, Kind::SharedByte(5)).unwrap(), "its own becomes a shared one");
        assert!(try_lock(&second, Kind::SharedByte(5)).unwrap());
        assert!(is_held(&third, 5).unwrap() && !try_lock(&third, Kind::Byte(5)).unwrap());
        unlock(&first, 5).unwrap();
        assert!(is_held(&third, 5).unwrap(), "the second's");
        drop(second);
        assert!(try_lock(&third, Kind::Byte(5)).unwrap());
        assert_eq!(held_bytes(&first, 0).unwrap(), [5]);
    }

    /// As a runtime may leave it that waits for signals with sigwaitinfo(2) or signalfd(2).
    #[test]
    fn patience_ends_although_the_signal_is_blocked() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        let (first, second) = (open(), open());
        lock(&first, Kind::Flock, Duration::ZERO).unwrap();
        let alarm = SigSet::from(Signal::SIGALRM);
        alarm.thread_block().unwrap();
        // The wait ends even if it is not interrupted.
        let (done, wait) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _ = wait.recv_timeout(Duration::from_secs(5));
            drop(first);
        });
        let result = lock(&second, Kind::Flock, Duration::from_millis(50));
        assert_eq!(result, Err(Errno::EINTR));
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGALRM), "blocked as before");
        drop(done);
        holder.join().unwrap();
    }

    /// Without care the signal ends the whole process.
    #[test]
    fn threads_whose_waits_overlap_do_not_take_the_handler_from_each_other() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        let held = open();
        lock(&held, Kind::Flock, Duration::ZERO).unwrap();
        thread::scope(|scope| {
            for patience in [30, 60, 90] {
                scope.spawn(move || {
                    let result = lock(&open(), Kind::Flock, Duration::from_millis(patience));
                    assert_eq!(result, Err(Errno::EINTR));
                });
            }
        });
    }
}
