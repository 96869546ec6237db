//! `struct ifreq`: what an ioctl(2) about one interface takes (netdevice(7)).

/// One about the interface of this name, with nothing else in it. A name that is too long is cut, as no
/// interface has it.
#[must_use]
pub fn about(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let length = name.len().min(libc::IFNAMSIZ - 1);
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes().iter().take(length)) {
        *to = from.cast_signed();
    }
    request
}
