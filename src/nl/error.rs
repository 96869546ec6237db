//! What went wrong in a conversation with the kernel.

use std::fmt;

use nix::errno::Errno;

/// A request that the kernel refused, or that could not be carried to it.
///
/// `cannot add "eth0" to bridge "cni0": EBUSY (kernel: Device is already a port of "br1")`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What was asked, as a phrase that follows "cannot".
    pub purpose: String,
    /// The kernel's error number; `EBADMSG` when the conversation itself broke down.
    pub errno: Errno,
    /// The kernel's own words: `NLMSGERR_ATTR_MSG` (linux/netlink.h).
    pub kernel: Option<String>,
    /// Type of the attribute that the kernel objects to (`NLMSGERR_ATTR_OFFS`).
    pub attribute: Option<u16>,
    /// Which of the requests of a conversation was refused, counted from 0; none if there was no answer, so
    /// that all of them may have been carried out.
    pub request: Option<usize>,
}

impl Error {
    /// An error without an answer from the kernel's netlink code.
    pub fn new(purpose: impl fmt::Display, errno: Errno) -> Self {
        Self { purpose: purpose.to_string(), errno, kernel: None, attribute: None, request: None }
    }

    /// A conversation that broke down, and how.
    pub fn protocol(purpose: impl fmt::Display, what: &str) -> Self {
        Self { kernel: Some(what.to_owned()), ..Self::new(purpose, Errno::EBADMSG) }
    }

    /// The kernel's part of the story, without the purpose: errno, its words, the attribute.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut text = format!("{:?} ({})", self.errno, self.errno.desc());
        if let Some(words) = &self.kernel {
            text.push_str(&format!(", kernel: {words}"));
        }
        if let Some(kind) = self.attribute {
            text.push_str(&format!(", at attribute of type {kind}"));
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {:?}", self.purpose, self.errno)?;
        if let Some(words) = &self.kernel {
            write!(f, " (kernel: {words})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
