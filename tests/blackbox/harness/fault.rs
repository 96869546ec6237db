//! Calls of which one step goes wrong: the process is killed there, or a system call or a netlink request
//! fails. Steps are counted from `main` on.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::call::{Call, Outcome};
use super::host::patience;
use super::tracee::{Entry, Stop, Tracee};

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Nothing,
    /// The process is killed (SIGKILL) before this system call.
    Kill(usize),
    /// This system call is not made, and returns the error.
    Fail(usize, Errno),
    /// The kernel carries all netlink requests out but this one, which it acknowledges with the error.
    Refuse(usize, Errno),
}

/// A step that has been reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The system call's name, or its number if it is none that fails here; `request` for a netlink request.
    pub name: String,
    /// The path, or what the descriptor is open for; a request's type.
    pub object: String,
}

/// What has become of a call.
#[derive(Debug)]
pub struct Faulty {
    pub outcome: Outcome,
    /// All system calls up to the fault.
    pub calls: Vec<Step>,
    /// All netlink requests up to the fault.
    pub requests: Vec<Step>,
    /// The step that has gone wrong, if the call has come to it.
    pub hit: Option<Step>,
}

/// Where a system call's object is among its arguments.
#[derive(Clone, Copy)]
enum Object {
    Descriptor,
    Path(usize),
    None,
}

const E: [&[Errno]; 6] = [
    &[Errno::ENOMEM, Errno::EIO],
    &[Errno::ENOMEM, Errno::EIO, Errno::EINTR],
    &[Errno::ENOSPC, Errno::EIO, Errno::EINTR, Errno::ENOMEM],
    &[Errno::ENOMEM, Errno::ENOBUFS],
    &[Errno::ENOMEM, Errno::ENOBUFS, Errno::EINTR],
    &[Errno::ENOMEM, Errno::EINTR],
];

/// System calls that can fail for want of something, and with which errors of those that are walked.
const FALLIBLE: [(i64, &str, Object, &[Errno]); 23] = [
    (libc::SYS_openat, "openat", Object::Path(1), E[2]),
    (libc::SYS_mkdir, "mkdir", Object::Path(0), &[Errno::ENOSPC, Errno::EIO, Errno::ENOMEM]),
    (libc::SYS_statx, "statx", Object::Path(1), E[0]),
    (libc::SYS_newfstatat, "newfstatat", Object::Path(1), E[0]),
    (libc::SYS_readlink, "readlink", Object::Path(0), E[0]),
    (libc::SYS_getdents64, "getdents64", Object::Descriptor, E[0]),
    (
        libc::SYS_unlinkat,
        "unlinkat",
        Object::Path(1),
        &[Errno::EBUSY, Errno::EIO, Errno::ENOMEM, Errno::ENOSPC],
    ),
    (libc::SYS_read, "read", Object::Descriptor, E[1]),
    (libc::SYS_pread64, "pread64", Object::Descriptor, E[1]),
    (libc::SYS_write, "write", Object::Descriptor, E[2]),
    (libc::SYS_pwrite64, "pwrite64", Object::Descriptor, E[2]),
    (libc::SYS_ftruncate, "ftruncate", Object::Descriptor, E[2]),
    (libc::SYS_fdatasync, "fdatasync", Object::Descriptor, E[2]),
    (libc::SYS_utimensat, "utimensat", Object::Descriptor, E[0]),
    (libc::SYS_flock, "flock", Object::Descriptor, E[5]),
    (libc::SYS_fcntl, "fcntl", Object::Descriptor, E[5]),
    (libc::SYS_socket, "socket", Object::None, E[3]),
    (libc::SYS_setsockopt, "setsockopt", Object::Descriptor, E[3]),
    (libc::SYS_getsockopt, "getsockopt", Object::Descriptor, E[3]),
    (libc::SYS_sendto, "sendto", Object::Descriptor, E[4]),
    (libc::SYS_recvmsg, "recvmsg", Object::Descriptor, E[4]),
    (libc::SYS_ioctl, "ioctl", Object::Descriptor, &[Errno::ENOMEM, Errno::EBUSY]),
    (libc::SYS_setns, "setns", Object::Descriptor, &[Errno::ENOMEM]),
];

/// Errors of a netlink request.
pub const REFUSALS: [Errno; 6] =
    [Errno::ENOMEM, Errno::EBUSY, Errno::ENOSPC, Errno::EIO, Errno::EINTR, Errno::ENOBUFS];

impl Step {
    /// The errors with which this system call can fail.
    pub fn errors(&self) -> &'static [Errno] {
        FALLIBLE.iter().find(|(_, name, ..)| *name == self.name).map_or(&[], |row| row.3)
    }

    fn of(tracee: &Tracee, entry: &Entry) -> Self {
        let row = FALLIBLE.iter().find(|(number, ..)| *number == entry.number);
        // Of fcntl(2) the locks.
        let is_lock = matches!(entry.arguments[1], 36..=38);
        let row = row.filter(|(number, ..)| *number != libc::SYS_fcntl || is_lock);
        let Some((_, name, object, _)) = row else {
            return Self { name: entry.number.to_string(), object: String::new() };
        };
        let path = |at: usize| match entry.arguments[at] {
            0 => String::new(),
            address => tracee.read_string(address),
        };
        let object = match object {
            Object::None => String::new(),
            Object::Descriptor => tracee.file(entry.arguments[0]),
            // Without a path it is the descriptor that is meant.
            Object::Path(at) => match path(*at) {
                empty if empty.is_empty() => tracee.file(entry.arguments[0]),
                path => path,
            },
        };
        Self { name: (*name).to_owned(), object }
    }
}

impl Call<'_> {
    /// Runs it with this fault. It must end by itself.
    pub fn with(&self, fault: Fault) -> Faulty {
        let began = Instant::now();
        let (child, tracee) = Tracee::start(self);
        let process = Pid::from_raw(child.id().cast_signed());
        let (done, ended) = channel::<()>();
        let watchdog = thread::spawn(move || {
            let hangs = ended.recv_timeout(patience(Duration::from_secs(50)));
            if hangs == Err(RecvTimeoutError::Timeout) {
                let _ = kill(process, Signal::SIGKILL);
            }
            hangs == Err(RecvTimeoutError::Timeout)
        });
        tracee.run_to_main();
        // To ignore a signal can't fail, and nothing is done so far.
        tracee.go(libc::PTRACE_SYSCALL);
        let mut run = Run { tracee, fault, calls: vec![], requests: vec![], hit: None };
        run.run_out();
        let Run { tracee, calls, requests, hit, .. } = run;
        if hit.is_some() && matches!(fault, Fault::Kill(_)) {
            tracee.kill();
        }
        let output = child.wait_with_output().unwrap();
        drop(done);
        assert!(!watchdog.join().unwrap(), "it hangs: {fault:?}, after {:?}", calls.last());
        let outcome = Outcome {
            took: began.elapsed(),
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        Faulty { outcome, calls, requests, hit }
    }
}

/// The request that is refused.
struct Refused {
    socket: String,
    sequence: u32,
    /// Of its type the low byte, as it was.
    kind: u8,
}

struct Run {
    tracee: Tracee,
    fault: Fault,
    calls: Vec<Step>,
    requests: Vec<Step>,
    hit: Option<Step>,
}

impl Run {
    fn run_out(&mut self) {
        let mut refused: Option<Refused> = None;
        loop {
            let entry = match self.tracee.go(libc::PTRACE_SYSCALL) {
                Stop::Entry(entry) => entry,
                Stop::Exit => continue,
                Stop::Gone => return,
                stop => panic!("{stop:?} is not asked for"),
            };
            let step = Step::of(&self.tracee, &entry);
            self.calls.push(step.clone());
            match self.fault {
                Fault::Kill(number) if number == self.calls.len() => {
                    self.hit = Some(step);
                    return;
                }
                // From run to run the calls may differ by what the kernel has not yet done.
                Fault::Fail(number, errno)
                    if number == self.calls.len() && step.errors().contains(&errno) =>
                {
                    self.hit = Some(step);
                    self.tracee.skip_call();
                    self.tracee.go(libc::PTRACE_SYSCALL);
                    self.tracee.set_result(-i64::from(errno as i32));
                    continue;
                }
                _ => {}
            }
            if entry.number == libc::SYS_sendto {
                refused = self.send(&entry).or(refused);
            }
            let stop = self.tracee.go(libc::PTRACE_SYSCALL);
            match (stop, self.fault, &refused) {
                (Stop::Return(length), Fault::Refuse(_, errno), Some(refused))
                    if length > 0 && entry.number == libc::SYS_recvmsg =>
                {
                    self.receive(&entry, usize::try_from(length).unwrap(), refused, errno);
                }
                (Stop::Exit, ..) => {}
                (Stop::Gone, ..) => return,
                _ => {}
            }
        }
    }

    /// Looks through the requests that are about to be sent. The one to be refused gets a type that the kernel
    /// does not know, which it says, and goes on as it does after any other refusal.
    fn send(&mut self, entry: &Entry) -> Option<Refused> {
        let [_, address, length, ..] = entry.arguments;
        let bytes = self.tracee.read(address, usize::try_from(length).unwrap());
        let mut refused = None;
        for (at, message) in messages(&bytes) {
            let kind = message[4];
            // Begin and end of a transaction of nf_tables are no requests (linux/netfilter/nfnetlink.h).
            if message.len() == 20 && message[5] == 0 && matches!(kind, 0x10 | 0x11) {
                continue;
            }
            let object = format!("{}/{kind}", message[5]);
            let step = Step { name: "request".into(), object };
            self.requests.push(step.clone());
            if matches!(self.fault, Fault::Refuse(number, _) if number == self.requests.len()) {
                self.hit = Some(step);
                self.tracee.write(address + at as u64 + 4, &[0xff]);
                let socket = self.tracee.file(entry.arguments[0]);
                refused = Some(Refused { socket, sequence: u32_at(message, 8), kind });
            }
        }
        refused
    }

    /// Has the kernel's refusal be for another reason.
    fn receive(&self, entry: &Entry, length: usize, refused: &Refused, errno: Errno) {
        if self.tracee.file(entry.arguments[0]) != refused.socket {
            return;
        }
        // Of struct msghdr the vector is the third member, of that the base the first.
        let address = self.tracee.read_u64(self.tracee.read_u64(entry.arguments[1] + 16));
        let bytes = self.tracee.read(address, length);
        for (at, message) in messages(&bytes) {
            let is_error = message[4] == 2 && message[5] == 0;
            if is_error && u32_at(message, 8) == refused.sequence && u32_at(message, 16) != 0 {
                let place = address + at as u64;
                self.tracee.write(place + 16, &(-(errno as i32)).to_ne_bytes());
                self.tracee.write(place + 20 + 4, &[refused.kind]);
            }
        }
    }
}

/// The netlink messages in `bytes`, each with its place.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| rest.len() >= 16)?;
        let length = usize::try_from(u32_at(rest, 0)).unwrap();
        let message = (at, rest.get(..length)?);
        at += length.next_multiple_of(4);
        Some(message)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The last part of a path.
pub fn base_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}
