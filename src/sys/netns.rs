//! Network namespaces (network_namespaces(7), setns(2), ioctl_ns(2), linux/sockios.h).

use std::cell::OnceCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::lock::{Kind, lock};
use crate::trace;

/// The thread's own namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";
/// `NS_GET_NSTYPE` (linux/nsfs.h): `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// `SIOCGSKNS` (linux/sockios.h, since 4.10): the network namespace of a socket.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// A network namespace, held open.
#[derive(Debug)]
pub struct Netns {
    file: File,
    /// The namespace that the thread was in when that was first asked: to look it up takes the kernel
    /// longer than to enter another.
    home: OnceCell<File>,
    id: OnceCell<Id>,
}

/// Device and inode of a namespace, by which it is told from others.
type Id = (u64, u64);

/// Why a path does not lead to a network namespace.
#[derive(Debug)]
pub enum OpenError {
    /// There is nothing at the path.
    Missing,
    /// What is there is no network namespace.
    NotNetns,
    /// It can't be opened.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::NotNetns => f.write_str("it is not a network namespace"),
            Self::Io(why) => write!(f, "{why}"),
        }
    }
}

impl Netns {
    /// Opens the namespace at `path`: a file that a namespace is mounted on, or one of
    /// `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // Whatever the path leads to, opening it does not wait: a FIFO would.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        trace::file("open", path.display(), &file);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenError::Missing,
            _ => OpenError::Io(error),
        })?;
        // SAFETY: this request takes no argument; of a file that is no namespace it fails.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        match Errno::result(kind) {
            Ok(libc::CLONE_NEWNET) => Ok(Self::of(file)),
            Ok(_) | Err(Errno::ENOTTY) => Err(OpenError::NotNetns),
            Err(errno) => Err(OpenError::Io(errno.into())),
        }
    }

    /// Opens the namespace that this thread is in.
    ///
    /// # Errors
    /// Those of open(2), where only /proc tells: it is not mounted.
    pub fn current() -> io::Result<Self> {
        open_current().map(Self::of)
    }

    /// Opens the namespace that a socket is of.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN` there.
    pub fn of_socket(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        namespace_of(socket).map(Self::of)
    }

    /// Makes a namespace and keeps it at `path`, a file that is created; this thread stays where it is.
    ///
    /// # Errors
    /// Those of unshare(2) and mount(2): `EPERM` without `CAP_SYS_ADMIN`; `path` exists.
    pub fn create_at(path: &Path) -> io::Result<Self> {
        let home = Self::current()?;
        File::create_new(path)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let none: Option<&str> = None;
        let kept = mount(Some(CURRENT), path, none, MsFlags::MS_BIND, none);
        let created = Self::current();
        setns(&home.file, CloneFlags::CLONE_NEWNET)?;
        kept?;
        created
    }

    /// Whether this is the namespace that the thread is in.
    ///
    /// # Errors
    /// Those of [`current`](Self::current) and stat(2).
    pub fn is_current(&self) -> io::Result<bool> {
        Ok(self.id()? == id(self.home()?)?)
    }

    /// Whether both are the same namespace.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        matches!((self.id(), other.id()), (Ok(this), Ok(other)) if this == other)
    }

    /// The number by which no other namespace of this kernel is known (`lsns`), as long as this one is.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn number(&self) -> io::Result<u64> {
        self.id().map(|(_, inode)| inode)
    }

    /// Waits until no other process holds the namespace locked, and locks it until this is dropped. Who is
    /// in the namespace can lock it too.
    ///
    /// # Errors
    /// `EINTR` if `patience` ends first; otherwise those of flock(2).
    pub fn lock(&self, patience: Duration) -> Result<(), Errno> {
        lock(&self.file, Kind::Flock, patience)
    }

    /// Has this thread enter the namespace, to stay there.
    ///
    /// # Errors
    /// Those of setns(2): `EPERM` without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> Result<(), Errno> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
    }

    /// Does `work` inside this namespace and comes back to the one before.
    ///
    /// # Errors
    /// Those of setns(2): `EPERM` without `CAP_SYS_ADMIN`.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = self.home()?;
        self.enter()?;
        let result = work();
        // Failing here would leave later work in the wrong namespace, and can't happen: the right to
        // enter was held a moment ago.
        setns(home, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            io::Error::other(format!("cannot return to the host's network namespace: {errno}"))
        })?;
        Ok(result)
    }

    /// The namespace that this thread came from, and is in whenever it is not [`inside`](Self::inside) this
    /// one: the host's.
    ///
    /// # Errors
    /// Those of open(2): /proc is not mounted.
    pub fn host(&self) -> io::Result<BorrowedFd<'_>> {
        self.home().map(AsFd::as_fd)
    }

    fn of(file: File) -> Self {
        Self { file, home: OnceCell::new(), id: OnceCell::new() }
    }

    fn id(&self) -> io::Result<Id> {
        if let Some(id) = self.id.get() {
            return Ok(*id);
        }
        let id = id(&self.file)?;
        Ok(*self.id.get_or_init(|| id))
    }

    fn home(&self) -> io::Result<&File> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        let home = open_current()?;
        Ok(self.home.get_or_init(|| home))
    }
}

fn id(file: &File) -> io::Result<Id> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn open_current() -> io::Result<File> {
    let file = namespace_of_new_socket();
    trace::file("ask", "a new socket for its namespace (SIOCGSKNS)", &file);
    file.or_else(|_| {
        let file = File::open(CURRENT);
        trace::file("open", CURRENT, &file);
        file
    })
}

/// A socket is of the namespace that the thread is in. To open that in /proc takes the kernel several times
/// as long, since it has no entries yet for a process that has only begun, and drops them as it ends. But
/// this needs `CAP_NET_ADMIN`, which address management alone can do without.
fn namespace_of_new_socket() -> Result<File, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    namespace_of(socket.as_fd())
}

fn namespace_of(socket: BorrowedFd<'_>) -> Result<File, Errno> {
    // SAFETY: this request takes no argument; of what is no socket it fails.
    let fd = Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) })?;
    // SAFETY: the kernel has opened it, close-on-exec, for this call, so it is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(fd.into())
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
