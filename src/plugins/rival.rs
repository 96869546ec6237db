//! Who stands in the way: the kernel refuses a second link on a master without saying which one is the
//! first, and that is in another container as a rule. Only a failed ADD looks for it.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::cni::{Error, Request};
use crate::nl::link::{self, Link, Target};
use crate::nl::{Family, Socket, nsid};
use crate::sys::netns::Netns;

/// The same error with the one that stands in the way, if it is known.
#[must_use]
pub fn named(error: Error, rival: Option<String>) -> Error {
    match rival {
        Some(rival) => Error { msg: format!("{}: {rival}", error.msg), ..error },
        None => error,
    }
}

/// Where to look: in the master's namespace, and in the others that are kept where the container's is.
#[derive(Debug)]
pub struct Search<'a> {
    /// The call that has failed.
    pub request: &'a Request,
    /// What the links are on.
    pub master: &'a Link,
    /// A conversation in the master's namespace.
    pub below: &'a mut Socket,
}

impl Search<'_> {
    /// Who has the master to itself: the link that it is a port of, or one on it.
    pub fn who_has_it(self, is_other: impl Fn(&Link) -> bool) -> Option<String> {
        let Some(port_of) = self.master.master else {
            return self.who_has_the_rest(|_, link| is_other(link));
        };
        let upper = link::get(self.below, Target::Index(port_of)).ok().flatten()?;
        let kind = upper.kind.as_deref().unwrap_or("link");
        Some(format!("master {:?} is a port of {kind} {:?}", self.master.name, upper.name))
    }

    /// As [`first`](Self::first); it must be somewhere.
    pub fn who_has_the_rest(self, is_it: impl Fn(&mut Socket, &Link) -> bool) -> Option<String> {
        let unseen = format!(
            "a link on master {:?}, in a namespace that is not kept beside {:?}, is in the way",
            self.master.name, self.request.env.netns
        );
        self.first(is_it).or(Some(unseen))
    }

    /// The first link on the master that is the one.
    pub fn first(self, is_it: impl Fn(&mut Socket, &Link) -> bool) -> Option<String> {
        let Self { request, master, below } = self;
        let home = Netns::of_socket(below.fd()).ok()?;
        let lowest = lowest_of(master);
        let shown = |link: &Link, place: &str| {
            let kind = link.kind.as_deref().unwrap_or("link");
            let owner = link.alias.as_ref().map(|alias| format!(" ({alias})")).unwrap_or_default();
            format!("{kind} {:?}{place}{owner} is on master {:?}", link.name, master.name)
        };
        let find = |socket: &mut Socket, netns: &Netns| {
            let links = link::list(socket).unwrap_or_default();
            // By the number of another namespace an index is another link's. The kernel gives numbers as
            // it lists.
            let is_home = home.is_same(netns);
            let home_id = match is_home {
                true => None,
                false => Some(nsid::of(socket, home.as_fd()).ok()??),
            };
            // What the call has made itself, and would still take back.
            let is_container = request.netns().is_ok_and(|container| container.is_same(netns));
            let ours = |link: &Link| is_container && link.name == request.env.ifname;
            let is_on_it = |link: &Link| link.peer == Some(lowest) && link.peer_netns == home_id;
            let not_itself = |link: &Link| !is_home || link.index != master.index;
            let mut others =
                links.into_iter().filter(|link| is_on_it(link) && not_itself(link) && !ours(link));
            others.find(|link| is_it(socket, link))
        };
        if let Some(link) = find(below, &home) {
            return Some(shown(&link, ""));
        }
        for path in siblings(Path::new(&request.env.netns)) {
            let Ok(netns) = Netns::open(&path) else { continue };
            let Ok(Ok(mut socket)) = netns.inside(|| Socket::open(Family::Route)) else { continue };
            if let Some(link) = find(&mut socket, &netns) {
                return Some(shown(&link, &format!(" in {}", path.display())));
            }
        }
        None
    }
}

/// On top of a macvlan or ipvlan the kernel takes what that one is on.
fn lowest_of(master: &Link) -> u32 {
    let is_child = matches!(master.kind.as_deref(), Some("macvlan" | "ipvlan"));
    match master.peer {
        Some(below) if is_child && master.peer_netns.is_none() => below,
        _ => master.index,
    }
}

/// What is kept in the same directory.
fn siblings(netns: &Path) -> Vec<PathBuf> {
    let entries = netns.parent().and_then(|directory| fs::read_dir(directory).ok());
    let mut paths: Vec<_> = entries.into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}
