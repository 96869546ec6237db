//! Socket filters: programs by which the kernel drops what a socket is not to receive (socket(7),
//! `SO_ATTACH_FILTER`; Documentation/networking/filter.rst).

use std::os::fd::BorrowedFd;

use libc::sock_filter;
use nix::errno::Errno;

/// Takes effect for what comes from now on.
///
/// # Errors
/// `EINVAL`: the kernel does not take it for a program.
pub fn attach(socket: BorrowedFd<'_>, program: &[sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    super::set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// An instruction that does not jump: `BPF_STMT` (linux/filter.h).
#[must_use]
pub const fn statement(code: u32, value: u32) -> sock_filter {
    jump(code, value, 0, 0)
}

/// An instruction that jumps so many instructions further if its condition holds, or if not: `BPF_JUMP`.
#[must_use]
pub const fn jump(code: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "codes are a byte")]
    sock_filter { code: code as u16, jt: if_so, jf: if_not, k: value }
}
