//! tap: gives a container a link whose other end is a program's, such as a virtual machine's.
//!
//! Until its last step ADD holds the link open, and a link that is not told to stay goes with who has it
//! open: whatever ends ADD before that, be it SIGKILL, nothing is left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;

use super::container::{Container, Ipv6};
use super::undo::Undo;
use super::{attach, conf, detach, refusal, setting_error, veth};
use crate::cni::conf::interface_name_fault;
use crate::cni::result::{CniResult, Dns};
use crate::cni::{Attachment, Code, Error, Plugin, Request, delegate};
use crate::ipam::{self, Ipam};
use crate::net::Mac;
use crate::nl::link::{self, Change, Link, Target};
use crate::sys::selinux::{self, Refusal};
use crate::sys::tun::{self, Tun};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "tap",
    about: "Gives a container a link whose other end is a program's, such as a virtual machine's.",
    add,
    del: |request| detach::detach(request, || detach::delete_inside(request, Link::is_tap)),
    check,
    gc: detach::collect_garbage,
    status,
};

/// The longest context that the kernel takes: what is written to `attr/exec` fits a page.
const CONTEXT_MAX: usize = 4095;

/// How many queues a tap with many has that nobody else has opened.
const OWN_QUEUE: u32 = 1;

/// What it is configured with.
#[derive(Debug)]
pub struct Conf {
    /// `multiQueue`: it can be opened several times at once, each with a queue of its own.
    pub multi_queue: bool,
    /// `mtu`; none for the kernel's default
    pub mtu: Option<u32>,
    /// The address asked for; drawn by the kernel if none.
    pub mac: Option<Mac>,
    /// `owner`: the user that may open it.
    pub owner: Option<u32>,
    /// `group`: the group whose members may open it.
    pub group: Option<u32>,
    /// `selinuxContext`: as whose it counts.
    pub context: Option<String>,
    /// `bridge`: a bridge in the container that it is a port of.
    pub bridge: Option<String>,
    /// `dns`
    pub dns: Dns,
}

/// Reads the configuration.
///
/// # Errors
/// A key has the wrong type or value.
pub fn read(request: &Request) -> Result<Conf, Error> {
    // All ones is the kernel's way to say nobody.
    const IDS: std::ops::RangeInclusive<u32> = 0..=u32::MAX - 1;
    let root = request.conf.root();
    let context = match root.get("selinuxContext")? {
        Some(node) if !node.text()?.is_empty() => {
            let expected = "a security context, such as system_u:system_r:container_t:s0";
            let context = |text: &str| is_context(text).then(|| text.to_owned());
            Some(node.parse(expected, context)?)
        }
        _ => None,
    };
    Ok(Conf {
        multi_queue: root.flag("multiQueue")?,
        mtu: conf::mtu_up_to(&root, tun::TAP_MAX_MTU)?,
        mac: conf::mac(request)?.or(conf::own_mac(&root)?),
        owner: root.number("owner", IDS)?,
        group: root.number("group", IDS)?,
        context,
        bridge: conf::link_name(&root, "bridge")?,
        dns: request.conf.dns()?,
    })
}

/// Whether `text` has the form of a security context: user, role and type, and a level which may have colons
/// of its own.
fn is_context(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(4, ':').collect();
    parts.len() >= 3
        && parts.iter().all(|part| !part.is_empty())
        && text.len() <= CONTEXT_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn add(request: &Request) -> Result<CniResult, Error> {
    let conf = read(request)?;
    let (attachment, ipam) = attach::begin(request)?;
    // The link itself needs no way back: it goes when it is closed.
    attach::carry_out(request, |undo| attach(request, &conf, &attachment, ipam.as_ref(), undo))
}

fn attach<'a>(
    request: &Request,
    conf: &Conf,
    attachment: &Attachment,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let mut result = attach::lease(request, ipam, undo)?;
    conf::check_mtu_for(conf.mtu, &result)?;

    let (netns, ifname) = (request.netns()?, &attachment.ifname);
    let ipv6 = Ipv6::of(&result);
    let (mut container, (tap, bridge)) = Container::make(netns, ifname, ipv6, |socket| {
        let bridge = match &conf.bridge {
            Some(name) => Some(require_bridge(name, link::get(socket, Target::Name(name))?)?),
            None => None,
        };
        Ok((make(conf, ifname)?, bridge))
    })?;
    let label = attachment.label();
    let change = Change {
        master: bridge.map(|bridge| bridge.index),
        mac: conf.mac,
        mtu: conf.mtu,
        alias: Some(&label),
        ..Change::default()
    };
    let link = container.bring_up(&result, ipv6.dad, change)?;
    if link.queues > OWN_QUEUE && (conf.owner.is_some() || conf.group.is_some()) {
        // With a queue open the link would outlive us.
        container.delete()?;
        let msg = format!(
            "tap {ifname:?} was opened by a program before it had its owner and group; expected one queue, our \
             own, got {}",
            link.queues
        );
        return Err(Error::new(Code::Internal, msg));
    }
    attach::complete(&mut result, vec![attach::own_interface(request, &link)], &conf.dns);
    tap.stay().map_err(|errno| refused(format_args!("keep tap {ifname:?}"), errno))?;
    Ok(result)
}

fn require_bridge(name: &str, found: Option<Link>) -> Result<Link, Error> {
    let got = match found {
        Some(link) if link.is_bridge() => return Ok(link),
        Some(link) => {
            let kind = link.kind_name();
            format!("{name:?}, which is a {kind}")
        }
        None => format!("{name:?}, which is not there"),
    };
    Err(Error::invalid("bridge", got, "the name of a bridge in the container"))
}

/// Makes the link, down, in the namespace that the thread is in.
fn make(conf: &Conf, name: &str) -> Result<Tun, Error> {
    let tap = open()?;
    let is_enabled = || {
        selinux::is_enabled().map_err(|why| setting_error("see whether SELinux is in use", &why))
    };
    // Without SELinux nothing has a context.
    match &conf.context {
        Some(context) if is_enabled()? => make_in(context, &tap, name, conf.multi_queue)?,
        _ => tun::make_tap(tap.as_fd(), name, conf.multi_queue).map_err(|errno| match errno {
            Errno::EBUSY => veth::interface_exists(name),
            errno => refused(format_args!("create tap {name:?}"), errno),
        })?,
    }
    if let Some(user) = conf.owner {
        tap.set_owner(user).map_err(|errno| refused_id("owner", user, errno))?;
    }
    if let Some(group) = conf.group {
        tap.set_group(group).map_err(|errno| refused_id("group", group, errno))?;
    }
    // Neither a bridge nor IPv6 is to take us for the program that will use it. Kernels before 5.0 can't
    // help that.
    let _ = tap.drop_carrier();
    Ok(tap)
}

fn open() -> Result<Tun, Error> {
    Tun::open().map_err(|why| {
        let errno = errno_of(&why);
        let hint = match errno {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
                "; the kernel's module tun, or its device file, is missing"
            }
            Errno::EPERM | Errno::EACCES => "; the mode of the file or a cgroup forbids it",
            _ => "",
        };
        refusal(format_args!("open {}", tun::DEVICE), errno, hint)
    })
}

fn refused(what: impl std::fmt::Display, errno: Errno) -> Error {
    setting_error(what, &errno.into())
}

fn refused_id(key: &str, id: u32, errno: Errno) -> Error {
    if errno == Errno::EINVAL {
        return Error::invalid(key, id, "an ID that is mapped in the plugin's user namespace");
    }
    refused(format_args!("set {key} {id} of the tap"), errno)
}

fn errno_of(why: &io::Error) -> Errno {
    Errno::from_raw(why.raw_os_error().unwrap_or_default())
}

/// The name by which the program calls itself to do [`make_for_parent`]. It is no plugin's and no command's.
pub const MAKER: &str = "plumb: make a tap";
/// What it is told first.
const ONE_QUEUE: &str = "one queue";
const MANY_QUEUES: &str = "many queues";

/// Makes the link in a security context, which is that of the process that makes it. So it is another
/// process, of this program: it makes the link out of the device that we have opened, and ends.
fn make_in(context: &str, tap: &Tun, name: &str, multi_queue: bool) -> Result<(), Error> {
    const POLICY: &str = "; the policy must let it run this program and make taps";
    let place = format!("in SELinux context {context:?}");
    let device = tap.as_fd().try_clone_to_owned();
    let device = device.map_err(|why| setting_error("hand on the tap", &why))?;
    let mut program = Command::new(delegate::ITSELF);
    let queues = if multi_queue { MANY_QUEUES } else { ONE_QUEUE };
    program.arg0(MAKER).args([queues, name]).env_clear();
    program.stdin(device).stdout(Stdio::null()).stderr(Stdio::null());
    let status = selinux::run_in(context, &mut program).map_err(|why| match why {
        Refusal::Context(why) if errno_of(&why) == Errno::EINVAL => {
            let expected = "a security context that the policy of SELinux knows";
            Error::invalid("selinuxContext", format_args!("{context:?}"), expected)
        }
        Refusal::Context(why) | Refusal::Program(why) => {
            refusal(format_args!("run a program {place}"), errno_of(&why), POLICY)
        }
    })?;
    match status.code() {
        Some(0) => Ok(()),
        Some(libc::EBUSY) => Err(veth::interface_exists(name)),
        Some(errno) => {
            let what = format_args!("create tap {name:?} {place}");
            Err(refusal(what, Errno::from_raw(errno), POLICY))
        }
        None => {
            let msg = format!("cannot create tap {name:?} {place}: {status}");
            Err(Error::new(Code::Internal, msg))
        }
    }
}

/// What the process named [`MAKER`] does: makes a tap out of the device that it is given. Returns its exit
/// status, which is the errno. Whoever else calls it can do no more by it than by the ioctl itself.
#[must_use]
pub fn make_for_parent(device: BorrowedFd<'_>, queues: &str, name: &str) -> i32 {
    let multi_queue = match queues {
        ONE_QUEUE => false,
        MANY_QUEUES => true,
        _ => return libc::EINVAL,
    };
    if interface_name_fault(name).is_some() {
        return libc::EINVAL;
    }
    tun::make_tap(device, name, multi_queue).map_or_else(|errno| errno as i32, |()| 0)
}

fn check(request: &Request) -> Result<(), Error> {
    let conf = read(request)?;
    request.netns()?;
    let prev = request.conf.required_prev_result()?;
    let ipam = Ipam::of(request)?;
    let (mut container, link) = attach::check_inside(request, ipam.as_ref(), &prev, check_kind)?;
    let Some(name) = &conf.bridge else { return Ok(()) };
    let bridge = require_bridge(name, container.find_other(name)?)?;
    if link.master == Some(bridge.index) {
        return Ok(());
    }
    Err(attach::fault(&link, format_args!("is no port of bridge {name:?}")))
}

fn check_kind(link: &Link) -> Result<(), Error> {
    if link.is_tap() {
        return Ok(());
    }
    let found = link.kind_name();
    Err(attach::fault(link, format_args!("is a {found}, not a tap")))
}

/// Sees whether an ADD would find what it needs.
fn status(request: &Request) -> Result<(), Error> {
    read(request)?;
    open().map_err(Error::unavailable)?;
    ipam::status(request)
}
