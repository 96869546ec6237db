//! dhcp: addresses from a DHCP server on the container's network.
//!
//! A lease wants to be renewed for as long as the container lives, and a plugin's process ends at once. So there
//! is a [`daemon`], one for all leases of the node, which the plugin asks over a unix socket ([`protocol`]). What
//! is said to DHCP servers is in [`v4`]: messages, and the life of a lease, without a system call.

pub mod conf;
pub mod daemon;
pub mod life;
pub mod protocol;
pub mod terms;
pub mod v4;
pub mod v6;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use self::conf::Conf;
use self::protocol::{Add, Answer, Frames};
use crate::cni::error::Errors;
use crate::cni::queue::Collection;
use crate::cni::{Attachment, CniResult, Code, Error, Plugin, Request};
use crate::trace;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "dhcp",
    about: "Address management: leases from a DHCP server, kept by the daemon (dhcp daemon).",
    add,
    del,
    check: |request| check(request, &request.conf.required_prev_result()?),
    gc: |request| {
        let collection = Collection::begin()?;
        gc(request, &|attachment| !collection.claims(attachment))
    },
    status,
};

/// How long the daemon may take to answer what it need ask nobody for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to lease an address. It is the one to give up (`-resendtimeout`): this is for one that
/// hangs.
const LEASE_PATIENCE: Duration = Duration::from_secs(900);
/// How long a daemon that has gone is waited for: it may be being restarted.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// Leases an address. For an attachment that has one, that is the result.
///
/// # Errors
/// The configuration is not acceptable; there is no daemon (code 11); or why there is no lease.
pub fn add(request: &Request) -> Result<CniResult, Error> {
    let conf = Conf::read(request)?;
    request.netns()?;
    let netns = std::path::absolute(&request.env.netns);
    let netns = netns.map_err(|why| Error::io("tell where the network namespace is", why))?;
    let question = protocol::Request::Add(Add {
        attachment: request.attachment(),
        netns: netns.to_string_lossy().into_owned(),
        wanted: conf.wanted,
    });
    let mut daemon = connect(&conf.socket).map_err(|why| unreachable(&conf.socket, &why))?;
    loop {
        match daemon.ask(&question, LEASE_PATIENCE) {
            Ok(Answer::Leased(result)) => return Ok(result),
            Ok(Answer::Failed(error)) => return Err(error),
            Ok(_) => return Err(other_answer()),
            // The one that comes after it takes up what it had done; what it had not it does now.
            Err(why) if is_lost(&why) => daemon = connect_again(&conf.socket)?,
            Err(why) => return Err(unreachable(&conf.socket, &why)),
        }
    }
}

/// Releases what the attachment has. Without a daemon there is nothing to be done: whoever starts it finds that
/// the container has gone.
///
/// # Errors
/// There is a daemon, and it does not answer.
pub fn del(request: &Request) -> Result<(), Error> {
    tell(request, &protocol::Request::Del(request.attachment()))
}

/// Sees whether `prev` has the address that the daemon keeps.
///
/// # Errors
/// It has not; there is no lease of a family that is asked for; the daemon can't be asked.
pub fn check(request: &Request, prev: &CniResult) -> Result<(), Error> {
    let Conf { socket, wanted } = Conf::read(request)?;
    let question = protocol::Request::Check(request.attachment());
    let answer = connect(&socket).and_then(|mut daemon| daemon.ask(&question, PATIENCE));
    let leased = match answer.map_err(|why| unreachable(&socket, &why))? {
        Answer::Leased(leased) => leased,
        Answer::Failed(error) => return Err(error),
        _ => return Err(other_answer()),
    };
    for (is_wanted, is_ipv4) in [(wanted.ipv4, true), (wanted.ipv6, false)] {
        if is_wanted && !leased.ips.iter().any(|ip| ip.address.address.is_ipv4() == is_ipv4) {
            let family = if is_ipv4 { "IPv4" } else { "IPv6" };
            let msg = format!("dhcp: the DHCP daemon has no lease of an {family} address");
            return Err(Error::new(Code::Internal, msg));
        }
    }
    for ip in &leased.ips {
        if !prev.ips.iter().any(|other| other.address == ip.address) {
            let msg = format!("dhcp: address {} is leased, and not in prevResult", ip.address);
            return Err(Error::new(Code::Internal, msg));
        }
    }
    Ok(())
}

/// Releases what the network's attachments have that are not valid, but what is spared.
///
/// # Errors
/// The valid ones are not told; there is a daemon, and it does not answer.
pub fn gc(request: &Request, is_spared: &dyn Fn(&Attachment) -> bool) -> Result<(), Error> {
    let valid = request.conf.valid_attachments()?;
    let is_valid = |held: &Attachment| {
        valid.iter().any(|a| (&a.container, &a.ifname) == (&held.container, &held.ifname))
    };
    let leases = match ask_if_any(request, &protocol::Request::Leases)? {
        None => return Ok(()),
        Some(Answer::Leases(leases)) => leases,
        Some(_) => return Err(other_answer()),
    };
    let mut errors = Errors::default();
    for held in leases.into_iter().map(|held| held.attachment) {
        if held.network == request.conf.name && !is_valid(&held) && !is_spared(&held) {
            errors.note(tell(request, &protocol::Request::Del(held)));
        }
    }
    errors.into_result()
}

/// Sees whether there is a daemon.
///
/// # Errors
/// Code 50: there is none.
pub fn status(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    let asked = connect(&conf.socket)
        .and_then(|mut daemon| daemon.ask(&protocol::Request::Status, PATIENCE));
    asked.map(drop).map_err(|why| unreachable(&conf.socket, &why).unavailable())
}

/// Asks the daemon for all leases.
///
/// # Errors
/// It can't be asked.
pub fn leases(socket: &Path) -> Result<Vec<protocol::Held>, Error> {
    let question = protocol::Request::Leases;
    let answer = connect(socket).and_then(|mut daemon| daemon.ask(&question, PATIENCE));
    match answer.map_err(|why| unreachable(socket, &why))? {
        Answer::Leases(leases) => Ok(leases),
        Answer::Failed(error) => Err(error),
        _ => Err(other_answer()),
    }
}

/// Has the daemon do something, if there is one.
fn tell(request: &Request, question: &protocol::Request) -> Result<(), Error> {
    ask_if_any(request, question).map(drop)
}

/// Asks the daemon; none if there is no daemon.
fn ask_if_any(request: &Request, question: &protocol::Request) -> Result<Option<Answer>, Error> {
    let socket = conf::socket_of(request)?;
    let mut daemon = match connect(&socket) {
        Ok(daemon) => daemon,
        Err(why) if is_nobody(&why) => return Ok(None),
        Err(why) => return Err(unreachable(&socket, &why)),
    };
    match daemon.ask(question, PATIENCE) {
        Ok(Answer::Failed(error)) => Err(error),
        Ok(answer) => Ok(Some(answer)),
        Err(why) => Err(unreachable(&socket, &why)),
    }
}

/// A connection to the daemon.
struct Daemon {
    stream: UnixStream,
    frames: Frames,
}

/// Connects, and sees that whoever listens is root's or our own.
fn connect(socket: &Path) -> io::Result<Daemon> {
    let connected = UnixStream::connect(socket);
    trace::file("connect to", socket.display(), &connected);
    let stream = connected?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials)?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        let what = format!("user {peer} listens there, who is not to be believed");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(Daemon { stream, frames: Frames::default() })
}

fn connect_again(socket: &Path) -> Result<Daemon, Error> {
    let until = Instant::now() + RESTART_PATIENCE;
    loop {
        match connect(socket) {
            Ok(daemon) => return Ok(daemon),
            Err(why) if is_nobody(&why) && Instant::now() < until => {
                std::thread::sleep(RESTART_PAUSE);
            }
            Err(why) => {
                let error = unreachable(socket, &why);
                let msg =
                    format!("the DHCP daemon has gone while it looked for a lease; {}", error.msg);
                return Err(Error { msg, ..error });
            }
        }
    }
}

impl Daemon {
    fn ask(&mut self, question: &protocol::Request, patience: Duration) -> io::Result<Answer> {
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))?;
        self.stream.write_all(&question.frame())?;
        let invalid = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error.msg);
        let mut buffer = [0; 4096];
        loop {
            if let Some(value) = self.frames.take().map_err(invalid)? {
                return Answer::read(&value).map_err(invalid);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.frames.push(buffer.get(..length).unwrap_or_default()),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
    }
}

/// Whether nobody listens.
fn is_nobody(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    matches!(why.kind(), NotFound | NotADirectory | ConnectionRefused)
}

/// Whether whoever listened has gone.
fn is_lost(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(why.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

fn unreachable(socket: &Path, why: &io::Error) -> Error {
    let why = match why.kind() {
        _ if is_lost(why) => "it has gone".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => why.to_string(),
    };
    let msg = format!(
        "cannot reach the DHCP daemon at {:?}: {why}; does \"dhcp daemon\" run?",
        socket.display()
    );
    Error::new(Code::TryAgainLater, msg)
}

fn other_answer() -> Error {
    Error::new(Code::Internal, "the DHCP daemon has answered another question")
}
