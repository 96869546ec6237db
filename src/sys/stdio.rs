//! Standard input and output as a plugin uses them: read to the end once, written once (read(2), write(2)).
//! The library's own come with buffers that nothing here has a use for.
//!
//! # Safety
//! Descriptors 0 and 1 are never closed by this program, so they can be borrowed for ever; if whoever started
//! it has closed them, the kernel says `EBADF`: [`reserve`] keeps their numbers from other files.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Room for the usual configuration, in bytes: it grows as needed.
const USUAL: usize = 2048;

/// Takes those of the descriptors 0 to 2 that whoever started us has closed, so that no file is opened under
/// their numbers, to be written to as if it were standard output. Reading and writing them fails with `EBADF`
/// all the same. One system call if all are open.
///
/// # Errors
/// Those of poll(2) and open(2).
pub fn reserve() -> Result<(), Errno> {
    let standard = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];
    let mut asked = standard.map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array outlives the call, and the number is that of its entries.
    let told = unsafe { libc::poll(asked.as_mut_ptr(), 3, 0) };
    Errno::result(told)?;
    let is_closed = |asked: &&libc::pollfd| asked.revents & libc::POLLNVAL != 0;
    for _ in asked.iter().filter(is_closed) {
        // The lowest free number is the one that is meant. A file that is opened by path only can neither be
        // read nor written (open(2)), and looks closed to poll(2): of one that we were given there will be two.
        // SAFETY: the path is a string that ends with NUL.
        let opened = unsafe { libc::open(c"/".as_ptr(), libc::O_PATH) };
        Errno::result(opened)?;
    }
    Ok(())
}

/// Reads standard input to its end. `None`: it has more than `most` bytes.
///
/// # Errors
/// Those of read(2).
pub fn read_all(most: usize) -> Result<Option<Vec<u8>>, Errno> {
    // SAFETY: as said at the top.
    let input = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
    read_to_end(input, most)
}

/// Writes all to standard output: one system call, unless the other end takes less.
///
/// # Errors
/// Those of write(2).
pub fn write_all(mut bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: as said at the top.
    let output = unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) };
    while !bytes.is_empty() {
        match nix::unistd::write(output, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn read_to_end(input: BorrowedFd<'_>, most: usize) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = Vec::with_capacity(USUAL);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        match read_some(input, &mut bytes) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(_) if bytes.len() > most => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Appends what there is, as much as there is room for, and returns how many bytes that was: 0 at the end.
fn read_some(input: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> Result<usize, Errno> {
    let room = bytes.spare_capacity_mut();
    // SAFETY: the kernel writes at most the length of the room, to where it begins.
    let read = unsafe { libc::read(input.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    let read = Errno::result(read)?.unsigned_abs();
    // SAFETY: so many bytes more have been written, and there was room for them.
    unsafe { bytes.set_len(bytes.len() + read) };
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::thread;

    #[test]
    fn all_is_read_but_no_more_than_allowed() {
        const MOST: usize = 4 * USUAL;
        for length in [0, 1, USUAL - 1, USUAL, USUAL + 1, MOST - 1, MOST, MOST + 1, 3 * MOST] {
            let text: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (reader, mut writer) = std::io::pipe().unwrap();
            let told = text.clone();
            let read = thread::scope(|scope| {
                // Nobody may be listening to the rest.
                scope.spawn(move || told.chunks(1000).try_for_each(|part| writer.write_all(part)));
                let read = read_to_end(reader.as_fd(), MOST).unwrap();
                drop(reader);
                read
            });
            assert_eq!(read, (length <= MOST).then_some(text), "{length} bytes");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let (_reader, writer) = std::io::pipe().unwrap();
        assert_eq!(read_to_end(writer.as_fd(), 1), Err(Errno::EBADF));
    }
}
