//! Other plugins: how they are found, and how they are run (spec section 4, "Delegation").

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::env::Command;
use super::error::{Code, Error};
use super::frame::Request;
use super::json::Node;
use super::result::CniResult;
use crate::trace;

/// As an entry of `CNI_PATH`: the plugins that this very program is, though no directory has their names.
/// A process of ours that is started with it finds itself there, whatever its file is called.
pub const ITSELF: &str = "/proc/self/exe";

/// While a plugin's file is being replaced it can't be executed; for so long it is tried again.
const BUSY_RETRIES: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A plugin as found along `CNI_PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delegate {
    /// The file found is this very program, so what it does can be called.
    SameProgram,
    /// Another program, to be executed.
    Foreign(PathBuf),
}

impl Delegate {
    /// Looks for the plugin `name` along `path`: the first regular file of that name, or [`ITSELF`].
    ///
    /// # Errors
    /// There is none, or the name could lead elsewhere.
    pub fn find(name: &str, path: &[PathBuf]) -> Result<Self, Error> {
        if name.contains('/') || name == "." || name == ".." {
            return Err(Error::invalid("ipam.type", format_args!("{name:?}"), "a plugin's name"));
        }
        let mut unreadable = Vec::new();
        for directory in path {
            if directory.as_os_str() == ITSELF {
                return Ok(Self::SameProgram);
            }
            let file = directory.join(name);
            let found = match std::fs::metadata(&file) {
                Ok(found) => found,
                Err(why) => {
                    if why.kind() != io::ErrorKind::NotFound {
                        unreadable.push(format!("{}: {why}", file.display()));
                    }
                    continue;
                }
            };
            if !found.is_file() {
                continue;
            }
            let same = std::fs::metadata(ITSELF)
                .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()));
            return Ok(if same { Self::SameProgram } else { Self::Foreign(file) });
        }
        let path: Vec<_> = path.iter().map(|directory| directory.display().to_string()).collect();
        let msg = format!("failed to find plugin {name:?} in path {path:?}");
        Err(Error::new(Code::InvalidConfig, msg).with_details(unreadable.join("; ")))
    }
}

/// Executes another plugin with this request's environment and configuration, but `command`. Returns
/// what it prints.
///
/// # Errors
/// The plugin's own error as it is, or what kept it from running.
pub fn execute(program: &Path, command: Command, request: &Request) -> Result<Vec<u8>, Error> {
    let error = |what: &str, why: io::Error| {
        Error::new(Code::Internal, format!("cannot {what} plugin {:?}: {why}", program.display()))
    };
    // Files in memory instead of pipes: nobody has to read while somebody writes.
    let mut input = memory_file().map_err(|why| error("prepare input for", why))?;
    input
        .write_all(&request.stdin)
        .and_then(|()| input.rewind())
        .map_err(|why| error("prepare input for", why))?;
    let mut output = memory_file().map_err(|why| error("prepare output of", why))?;
    let mut complaints = memory_file().map_err(|why| error("prepare output of", why))?;

    trace::note(format_args!("execute {} {}", program.display(), command.text()));
    let mut attempts = 0;
    let mut child = loop {
        let streams = [&input, &output, &complaints].map(File::try_clone);
        let [Ok(stdin), Ok(stdout), Ok(stderr)] = streams else {
            return Err(error("prepare output of", io::Error::last_os_error()));
        };
        let spawned = Process::new(program)
            .env("CNI_COMMAND", command.text())
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::from(OwnedFd::from(stdout)))
            .stderr(Stdio::from(OwnedFd::from(stderr)))
            .spawn();
        match spawned {
            Err(why)
                if why.kind() == io::ErrorKind::ExecutableFileBusy && attempts < BUSY_RETRIES =>
            {
                attempts += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            other => break other.map_err(|why| error("execute", why))?,
        }
    };
    let status = child.wait().map_err(|why| error("wait for", why))?;
    let printed = read_back(&mut output).map_err(|why| error("read output of", why))?;
    let complained = read_back(&mut complaints).map_err(|why| error("read output of", why))?;
    if status.success() {
        let _ = io::stderr().write_all(&complained);
        return Ok(printed);
    }
    Err(own_error(&printed).unwrap_or_else(|| {
        Error::new(
            Code::Internal,
            format!("plugin {:?} failed with no error message: {status}", program.display()),
        )
        .with_details(String::from_utf8_lossy(&complained).trim())
    }))
}

/// Reads the result that another plugin has printed.
///
/// # Errors
/// It is no result.
pub fn read_result(program: &Path, printed: &[u8], request: &Request) -> Result<CniResult, Error> {
    let value = serde_json::from_slice(printed).map_err(|error| {
        let msg = format!("plugin {:?} has not printed a result", program.display());
        Error::new(Code::Decode, msg).with_details(error.to_string())
    })?;
    CniResult::read(&Node::root("result", &value), request.conf.version)
}

/// The error object that a plugin has printed; `None` if it is none.
#[must_use]
pub fn own_error(printed: &[u8]) -> Option<Error> {
    let value: serde_json::Value = serde_json::from_slice(printed).ok()?;
    let text = |key: &str| value.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    Some(Error {
        code: value.get("code")?.as_u64()?.try_into().ok()?,
        msg: text("msg"),
        details: text("details"),
    })
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"plumb", MFdFlags::MFD_CLOEXEC)?))
}

fn read_back(file: &mut File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}
