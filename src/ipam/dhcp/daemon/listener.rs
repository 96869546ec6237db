//! Where plugins connect.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

use super::options::Options;
use crate::cni::{Code, Error};

/// The first descriptor that systemd hands over (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// The socket, and what goes with it when the daemon ends.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    /// Removed at the end. A socket that systemd has made is systemd's.
    files: Vec<PathBuf>,
}

impl Listener {
    /// Takes over the socket that systemd has made, or else makes one; then writes the process's number where the
    /// command line says.
    ///
    /// # Errors
    /// It can't be made; another program listens there.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let mut opened = match handed_over()? {
            Some(listener) => Self { listener, files: Vec::new() },
            None => {
                let path = options.socket();
                Self { listener: make(&path)?, files: vec![path] }
            }
        };
        let nonblocking = opened.listener.set_nonblocking(true);
        nonblocking.map_err(|why| Error::io("listen", why))?;
        if let Some(path) = &options.pidfile {
            write_pid(path)
                .map_err(|why| Error::io(format_args!("write {:?}", path.display()), why))?;
            opened.files.push(path.clone());
        }
        Ok(opened)
    }

    /// The next plugin that connects.
    ///
    /// # Errors
    /// Those of accept(2): `EAGAIN` if none does now, `EMFILE` if too many files are open.
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

/// The socket that systemd hands over, if it does: sd_listen_fds(3).
fn handed_over() -> Result<Option<UnixListener>, Error> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        Some(1) => {}
        None | Some(0) => return Ok(None),
        Some(more) => {
            let msg = format!("LISTEN_FDS: expected one socket, got {more}");
            return Err(Error::new(Code::InvalidEnvironment, msg));
        }
    }
    // SAFETY: systemd has opened it for this process, in which nothing else has taken it.
    let fd = unsafe { OwnedFd::from_raw_fd(LISTEN_FDS_START) };
    let listener = UnixListener::from(fd);
    let known = listener.local_addr();
    known.map_err(|why| Error::io("take over the socket of LISTEN_FDS", why))?;
    Ok(Some(listener))
}

/// Makes the socket, for its owner alone. One that nobody listens to any more is replaced.
fn make(path: &Path) -> Result<UnixListener, Error> {
    let error = |why: &dyn std::fmt::Display| {
        Error::io(format_args!("listen on {:?}", path.display()), why)
    };
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|why| error(&why))?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(error(&"another program does")),
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|why| error(&why))?;
        }
        // Nothing is there; or what is will be in the way.
        Err(_) => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|e| error(&e))?;
    // The file that bind(2) makes takes over the socket's mode.
    fchmod(&fd, Mode::from_bits_truncate(0o600)).map_err(|errno| error(&errno))?;
    let address = UnixAddr::new(path).map_err(|errno| error(&errno))?;
    bind(fd.as_raw_fd(), &address).map_err(|errno| error(&errno))?;
    listen(&fd, Backlog::MAXCONN).map_err(|errno| error(&errno))?;
    Ok(fd.into())
}

fn write_pid(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    writeln!(options.open(path)?, "{}", std::process::id())
}
