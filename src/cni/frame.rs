//! The frame around every plugin: environment and standard input in, one result or one error object out.

use std::cell::OnceCell;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::path::Path;

use super::args::Args;
use super::attachment::Attachment;
use super::conf::NetConf;
use super::env::{Command, Environment};
use super::error::{Code, Error};
use super::queue::Turn;
use super::result::CniResult;
use super::version::Version;
use crate::sys::netns::{Netns, OpenError};
use crate::sys::stdio;
use crate::trace;

/// The largest configuration that is read, in bytes. GC's can name 100,000 attachments.
const LARGEST_CONFIG: usize = 16 << 20;

/// What a plugin does for each verb.
#[derive(Debug)]
pub struct Plugin {
    /// The name by which it is called, `type` in configurations.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// ADD
    pub add: fn(&Request) -> Result<CniResult, Error>,
    /// DEL
    pub del: fn(&Request) -> Result<(), Error>,
    /// CHECK
    pub check: fn(&Request) -> Result<(), Error>,
    /// GC
    pub gc: fn(&Request) -> Result<(), Error>,
    /// STATUS
    pub status: fn(&Request) -> Result<(), Error>,
}

/// One call of a plugin.
#[derive(Debug)]
pub struct Request {
    /// The environment.
    pub env: Environment,
    /// The configuration.
    pub conf: NetConf,
    /// The configuration as it came, for delegates.
    pub stdin: Vec<u8>,
    netns: Option<Result<Netns, OpenError>>,
    args: OnceCell<Args>,
    turn: OnceCell<Turn>,
}

impl Request {
    /// Puts a request together, and sees to it that `CNI_NETNS` is not the namespace we are in: there
    /// a plugin would take the host's interfaces for the container's.
    ///
    /// # Errors
    /// Code 8: the namespace is our own.
    pub fn new(env: Environment, conf: NetConf, stdin: Vec<u8>) -> Result<Self, Error> {
        let netns = (env.command.is_of_attachment() && !env.netns.is_empty())
            .then(|| Netns::open(Path::new(&env.netns)));
        if let Some(Ok(netns)) = &netns
            && !env.netns_override
        {
            let same = netns.is_current().map_err(|why| {
                Error::new(
                    Code::InvalidNetns,
                    format!("cannot look up our own network namespace: {why}"),
                )
            })?;
            if same {
                let msg = format!(
                    "plugin's netns and netns from CNI_NETNS should not be the same: {}",
                    env.netns
                );
                return Err(Error::new(Code::InvalidNetns, msg));
            }
        }
        Ok(Self { env, conf, stdin, netns, args: OnceCell::new(), turn: OnceCell::new() })
    }

    /// Waits for this call's turn ([`Turn::wait`]). It lasts as long as the request, which of a plugin is until the
    /// process ends: what ADD has made is known to the runtime by then.
    ///
    /// # Errors
    /// Code 11: another call takes too long; else those of fcntl(2) and flock(2).
    pub fn take_turn(&self) -> Result<(), Error> {
        self.keep_turn(Turn::wait)
    }

    /// Does the same for a plugin that another one calls, as [`Turn::of_delegate`].
    ///
    /// # Errors
    /// A garbage collection that can't be told takes too long.
    pub fn take_turn_of_delegate(&self) -> Result<(), Error> {
        self.keep_turn(Turn::of_delegate)
    }

    fn keep_turn(&self, wait: fn(&Self) -> Result<Turn, Error>) -> Result<(), Error> {
        if self.turn.get().is_none() {
            let _ = self.turn.set(wait(self)?);
        }
        Ok(())
    }

    /// A call of GC that keeps these attachments, too.
    ///
    /// # Errors
    /// The valid ones are not told.
    pub fn keeping(&self, others: &[Attachment]) -> Result<Self, Error> {
        let conf = self.conf.also_valid(others)?;
        let stdin = conf.to_json().into_bytes();
        Self::new(self.env.clone(), conf, stdin)
    }

    /// The container's network namespace.
    ///
    /// # Errors
    /// Code 8: there is none at the path.
    pub fn netns(&self) -> Result<&Netns, Error> {
        let error = |why: &str| {
            let msg =
                format!("CNI_NETNS: cannot open network namespace {:?}: {why}", self.env.netns);
            Error::new(Code::InvalidNetns, msg)
        };
        match &self.netns {
            Some(Ok(netns)) => Ok(netns),
            Some(Err(why)) => Err(error(&why.to_string())),
            None => Err(error("none is given")),
        }
    }

    /// The container's network namespace; none if there is none at the path any more, or no path. For DEL,
    /// for which a namespace that can't be opened has not gone.
    ///
    /// # Errors
    /// Code 8: it can't be opened.
    pub fn netns_if_any(&self) -> Result<Option<&Netns>, Error> {
        match &self.netns {
            None | Some(Err(OpenError::Missing | OpenError::NotNetns)) => Ok(None),
            // Such a path leads nowhere.
            Some(Err(OpenError::Io(why)))
                if matches!(why.raw_os_error(), Some(libc::ELOOP | libc::ENAMETOOLONG)) =>
            {
                Ok(None)
            }
            Some(_) => self.netns().map(Some),
        }
    }

    /// `CNI_ARGS`, which only some plugins have a use for.
    ///
    /// # Errors
    /// They are malformed or unknown.
    pub fn args(&self) -> Result<&Args, Error> {
        if let Some(args) = self.args.get() {
            return Ok(args);
        }
        let args = Args::parse(&self.env.args)?;
        Ok(self.args.get_or_init(|| args))
    }

    /// The attachment that the call is about.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        self.conf.attachment(&self.env.container, &self.env.ifname)
    }
}

/// Runs `plugin` as a runtime's call demands and returns the exit status.
///
/// Without `CNI_COMMAND` nobody is calling, so it says on standard error what it is.
pub fn run(plugin: &Plugin) -> i32 {
    std::panic::set_hook(Box::new(report_panic));
    if !is_called() {
        let _ = io::stderr().write_all(about(plugin).as_bytes());
        return 0;
    }
    // Until the configuration is read, the newest version is the best guess for an error's.
    let mut version = Version::NEWEST;
    let outcome = serve(plugin, &mut version);
    match &outcome {
        Ok(_) => trace::note(format_args!("{} has succeeded", plugin.name)),
        Err(error) => trace::note(format_args!("{} has failed: {error}", plugin.name)),
    }
    let (text, status) = match outcome {
        Ok(text) => (text, 0),
        Err(error) => (error.to_json(version), 1),
    };
    if print(&text).is_err() {
        // Nobody hears us there; runtimes keep what is said on standard error, too.
        let _ = io::stderr().write_all(text.as_bytes());
        return 1;
    }
    status
}

/// Answers a runtime that called a name for which there is no plugin, through a stray link for example.
/// Returns the exit status.
pub fn refuse(name: &str, plugins: &[&Plugin]) -> i32 {
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.name).collect();
    let msg = format!("plumb has no plugin {name:?}; it has {}", names.join(", "));
    let _ = print(&Error::new(Code::InvalidConfig, msg).to_json(Version::NEWEST));
    1
}

/// Whether a runtime is calling.
#[must_use]
pub fn is_called() -> bool {
    std::env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty())
}

/// Writes to standard output.
fn print(text: &str) -> io::Result<()> {
    stdio::write_all(text.as_bytes()).map_err(Into::into)
}

fn serve(plugin: &Plugin, version: &mut Version) -> Result<String, Error> {
    let variable =
        |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let env = Environment::read(variable)?;
    let command = env.command;
    trace::note(format_args!(
        "{} {} container {:?} interface {:?} namespace {:?}",
        plugin.name,
        command.text(),
        env.container,
        env.ifname,
        env.netns
    ));
    if command == Command::Version {
        return Ok(versions());
    }
    let stdin = read_stdin()?;
    let conf = NetConf::parse(&stdin)?;
    *version = conf.version;
    // The process ends behind this: the kernel closes its files then, without being asked for each.
    let request = ManuallyDrop::new(Request::new(env, conf, stdin)?);
    let since = match command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        Command::Add | Command::Del | Command::Version => Version::V0_1_0,
    };
    if request.conf.version < since {
        let error = Error::incompatible(request.conf.version.text());
        return Err(Error {
            msg: format!("config version does not allow {}; it needs {since}", command.text()),
            ..error
        });
    }
    match command {
        Command::Add => return add(plugin, &request),
        Command::Del => (plugin.del)(&request),
        Command::Check => (plugin.check)(&request),
        Command::Gc => (plugin.gc)(&request),
        Command::Status => (plugin.status)(&request),
        Command::Version => Ok(()),
    }
    .map(|()| String::new())
}

/// ADD prints its result itself: what can't be told to the runtime must not stay.
fn add(plugin: &Plugin, request: &Request) -> Result<String, Error> {
    let result = (plugin.add)(request)?.to_json(request.conf.version);
    print(&result).map(|()| String::new()).map_err(|why| {
        let error = Error::io("print the result", why);
        match (plugin.del)(request) {
            Ok(()) => error,
            Err(undo) => error.and(&undo),
        }
    })
}

fn read_stdin() -> Result<Vec<u8>, Error> {
    let text = stdio::read_all(LARGEST_CONFIG)
        .map_err(|errno| Error::io("read the network configuration from standard input", errno))?;
    text.ok_or_else(|| {
        let msg = format!("standard input has more than {LARGEST_CONFIG} bytes");
        Error::new(Code::Io, msg)
    })
}

/// The answer to VERSION, on one line as the reference prints it.
fn versions() -> String {
    let supported: Vec<_> = Version::ALL.iter().map(|v| format!("\"{v}\"")).collect();
    let newest = Version::NEWEST;
    format!("{{\"cniVersion\":\"{newest}\",\"supportedVersions\":[{}]}}\n", supported.join(","))
}

fn about(plugin: &Plugin) -> String {
    let supported: Vec<_> = Version::ALL.iter().map(|version| version.text()).collect();
    format!(
        "CNI {} plugin v{} (plumb)\nCNI protocol versions supported: {}\n{}\n",
        plugin.name,
        env!("CARGO_PKG_VERSION"),
        supported.join(", "),
        plugin.about,
    )
}

/// A defect of ours is told to the runtime in the form that it understands.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place =
        panic.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
    let payload = panic.payload();
    let what = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let error = Error::new(Code::Internal, format!("defect in plumb{place}; please report it"))
        .with_details(what);
    let _ = print(&error.to_json(Version::NEWEST));
    std::process::exit(1);
}
