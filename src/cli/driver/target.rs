//! The container that a call is about: its namespace, its ID, its interface.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha512};

use crate::cli::cache::Entry;
use crate::cni::Attachment;
use crate::nl::{Family, Socket, link};
use crate::sys::netns::{Netns, OpenError};

/// Where `ip netns` keeps the namespaces that it gives names to.
const NAMED: &str = "/var/run/netns";

/// The attachment that a call is about, and where the container is.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose it is.
    pub attachment: Attachment,
    /// Path of its network namespace; may be empty.
    pub netns: String,
}

impl Target {
    /// The same, in the namespace that ADD was told if none was given.
    pub fn or_netns_of(mut self, entry: &Entry) -> Self {
        if self.netns.is_empty() {
            self.netns.clone_from(&entry.netns);
        }
        self
    }

    /// Whether the container has an interface of that name; false where that can't be told, which is
    /// for a plugin to complain about.
    pub fn has_interface(&self) -> bool {
        let Ok(netns) = Netns::open(Path::new(&self.netns)) else { return false };
        let socket = netns.inside(|| Socket::open(Family::Route));
        let found = socket.ok().and_then(Result::ok).map(|mut socket| {
            link::index_of(&mut socket, &self.attachment.ifname).is_ok_and(|index| index.is_some())
        });
        found.unwrap_or(false)
    }
}

/// The absolute path of a namespace, from a path or a name of `ip netns`.
pub fn netns_path(text: &str) -> Result<String, String> {
    let path = if text.contains('/') || Path::new(text).exists() {
        let home = std::env::current_dir();
        home.map_err(|why| format!("cannot tell the current directory: {why}"))?.join(text)
    } else {
        Path::new(NAMED).join(text)
    };
    // As Go's filepath.Abs does: by the names alone, since the container's ID follows from the path.
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let text = clean.to_str().ok_or_else(|| format!("NETNS: {} is not UTF-8", clean.display()))?;
    Ok(text.to_owned())
}

/// The ID that cnitool gives to the container in this namespace.
pub fn container_of(netns: &str) -> String {
    let digest = Sha512::digest(netns.as_bytes());
    let mut id = String::from("cnitool-");
    for byte in digest.iter().take(10) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// Whether the namespace at `netns` is no more. Where none is told, or it can't be looked at, it may
/// well be there.
pub fn has_gone(netns: &str) -> bool {
    let opened = (!netns.is_empty()).then(|| Netns::open(Path::new(netns)));
    matches!(opened, Some(Err(OpenError::Missing | OpenError::NotNetns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cnitool makes it, for `/var/run/netns/testing` of its documentation.
    #[test]
    fn a_containers_id_follows_from_the_path_as_with_cnitool() {
        assert_eq!(container_of(""), "cnitool-cf83e1357eefb8bdf154");
        assert_eq!(netns_path("/var/run/../run//netns/./x/").unwrap(), "/var/run/netns/x");
        assert_eq!(netns_path("no-such-name").unwrap(), "/var/run/netns/no-such-name");
        assert_eq!(netns_path("/../x").unwrap(), "/x");
    }
}
