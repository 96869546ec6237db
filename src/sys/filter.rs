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

/// A filter that drops everything, of a socket that only sends.
#[must_use]
pub const fn nothing() -> [sock_filter; 1] {
    [statement(libc::BPF_RET | libc::BPF_K, 0)]
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// Whether the kernel lets a packet pass.
    pub(crate) fn passes(program: &[sock_filter], packet: &[u8]) -> bool {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        attach(ours.as_fd(), program).unwrap();
        // What is dropped is refused to who sends it, on a unix socket.
        let _ = theirs.send(packet);
        ours.recv(&mut [0; 2000]).is_ok()
    }

    #[test]
    fn what_is_to_be_dropped_is() {
        assert!(passes(&[statement(libc::BPF_RET | libc::BPF_K, u32::MAX)], b"x"));
        assert!(!passes(&nothing(), b"x"));
    }
}
