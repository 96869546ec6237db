//! The other system calls: the clock, ARP, network namespaces, sysctls, file locks, legacy iptables, taps, packet sockets, security contexts, standard input and
//! output. Nothing in here knows of CNI.

pub mod arp;
pub mod clock;
pub mod filter;
pub mod iptables;
pub mod lock;
pub mod netns;
pub mod packet;
pub mod selinux;
pub mod stdio;
pub mod sysctl;
pub mod tun;

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Sets a socket option, setsockopt(2), to a value that is as the kernel has it.
pub(crate) fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(|_| Errno::EINVAL)?;
    let value = (&raw const *value).cast();
    // SAFETY: the value outlives the call, and the length given is its size.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) };
    Errno::result(set).map(drop)
}

/// Makes a system call again for as long as a signal interrupts it.
pub(crate) fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
