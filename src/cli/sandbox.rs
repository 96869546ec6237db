//! A throw-away host: namespaces of this process's own, which go when it does.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::net::Mac;
use crate::nl::link::{Change, NewVeth, Set, Target};
use crate::nl::request::Request;
use crate::nl::{Family, Socket};
use crate::sha256;
use crate::sys::netns::Netns;

/// Where the plugins are, as a runtime's `CNI_PATH` has it.
pub const PLUGIN_DIR: &str = "/run/plumb";
/// Where pods' namespaces are.
const NETNS_DIR: &str = "/run/netns";

/// Moves this process into a host of its own: network and mounts, with an empty `/run` and `/var/lib`;
/// without privilege inside a user namespace. The process must have a single thread.
///
/// # Errors
/// What the machine does not allow, for people.
pub fn enter() -> Result<(), String> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    match unshare(own) {
        Ok(()) => {}
        Err(Errno::EPERM) => enter_user_namespace(own)?,
        Err(errno) => return Err(format!("cannot make namespaces: {}", errno.desc())),
    }
    prepare().map_err(|why| format!("cannot prepare the throw-away host: {why}"))
}

fn enter_user_namespace(own: CloneFlags) -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(own | CloneFlags::CLONE_NEWUSER).map_err(|errno| {
        let why = match errno {
            Errno::ENOSPC | Errno::EUSERS => "their number is limited",
            _ => errno.desc(),
        };
        format!(
            "cannot make a user namespace: {why}; run as root, or allow user namespaces \
             (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns)"
        )
    })?;
    let map = |file: &str, content: String| {
        fs::write(format!("/proc/self/{file}"), content)
            .map_err(|why| format!("cannot become root of a user namespace ({file}): {why}"))
    };
    map("setgroups", "deny".into())?;
    map("uid_map", format!("0 {uid} 1"))?;
    map("gid_map", format!("0 {gid} 1"))
}

fn prepare() -> io::Result<()> {
    let none: Option<&str> = None;
    // What is mounted from here on is not to be seen outside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for directory in ["/run", "/var/lib"] {
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    }
    fs::create_dir(NETNS_DIR)?;
    fs::create_dir(PLUGIN_DIR)?;
    // By its own path it may be hidden now; by this one it is found as long as this process lives.
    let program = format!("/proc/{}/exe", std::process::id());
    for plugin in crate::plugins::ALL {
        std::os::unix::fs::symlink(&program, Path::new(PLUGIN_DIR).join(plugin.name))?;
    }
    set_loopback_up()
}

/// Makes a pod: a network namespace with a name, where its loopback interface is up.
///
/// # Errors
/// Those of unshare(2) and mount(2).
pub fn make_pod(name: &str) -> io::Result<PathBuf> {
    let path = Path::new(NETNS_DIR).join(name);
    Netns::create_at(&path)?.inside(set_loopback_up)??;
    Ok(path)
}

/// Makes a link of the host that is connected with `far_end`, another one of it, as by a cable.
///
/// # Errors
/// The kernel's refusal.
pub fn make_segment(name: &str, far_end: &str) -> io::Result<()> {
    let here = Netns::current()?;
    let mac = |name: &str| Mac::local(&sha256::digest(name.as_bytes()));
    let cable = NewVeth {
        name,
        mac: mac(name),
        mtu: None,
        peer_name: far_end,
        peer_mac: mac(far_end),
        peer_netns: Some(here.as_fd()),
    };
    execute(&[&cable, &up(far_end), &up(name)])
}

fn set_loopback_up() -> io::Result<()> {
    execute(&[&up("lo")])
}

fn up(name: &str) -> Set<'_> {
    Set { target: Target::Name(name), change: Change { up: true, ..Change::default() } }
}

fn execute(requests: &[&dyn Request]) -> io::Result<()> {
    Socket::open(Family::Route)
        .and_then(|mut socket| socket.execute(requests))
        .map_err(|error| io::Error::other(error.to_string()))
}
