//! Starts plugins as a runtime does: a fresh process, environment and standard input.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cni::Error;
use crate::cni::delegate::{self, ITSELF};
use crate::cni::env::Command;
use crate::plugins;

/// Where plugins are looked for, `CNI_PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchPath(String);

impl SearchPath {
    /// What our own environment says, then the plugins that this program is.
    #[must_use]
    pub fn of_environment() -> Self {
        let mut entries = Self::entries_of_environment();
        entries.push(ITSELF.to_owned());
        Self(entries.join(":"))
    }

    /// `directory`, then what our own environment says.
    #[must_use]
    pub fn from_directory(directory: &str) -> Self {
        let mut entries = Self::entries_of_environment();
        entries.insert(0, directory.to_owned());
        Self(entries.join(":"))
    }

    fn entries_of_environment() -> Vec<String> {
        let path = variable("CNI_PATH").unwrap_or_default();
        path.split(':').filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    /// How to start the plugin of this name; `None` if there is none.
    fn find(&self, plugin: &str) -> Option<Process> {
        self.0.split(':').find_map(|entry| {
            if entry == ITSELF {
                plugins::find(plugin)?;
                let mut process = Process::new(ITSELF);
                process.arg0(plugin);
                return Some(process);
            }
            let file: PathBuf = Path::new(entry).join(plugin);
            file.is_file().then(|| Process::new(file))
        })
    }
}

/// What a plugin is told by its environment.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `CNI_COMMAND`
    pub command: Command,
    /// `CNI_CONTAINERID`; empty unless the command is about an attachment, as are the next two.
    pub container: &'a str,
    /// `CNI_NETNS`
    pub netns: &'a str,
    /// `CNI_IFNAME`
    pub ifname: &'a str,
    /// `CNI_ARGS`
    pub args: &'a str,
    /// `CNI_PATH`
    pub path: &'a SearchPath,
}

/// What a plugin has answered, and how long its process took, if there was one.
#[derive(Debug)]
pub struct Answer {
    /// What it has printed on success.
    pub outcome: Result<String, Failure>,
    /// From the start of the process to its end.
    pub took: Option<Duration>,
}

impl<'a> Call<'a> {
    /// A call about a network and no attachment.
    #[must_use]
    pub fn about_network(command: Command, path: &'a SearchPath) -> Self {
        Self { command, container: "", netns: "", ifname: "", args: "", path }
    }

    /// Calls `plugin` with this configuration on standard input.
    #[must_use]
    pub fn run(&self, plugin: &str, stdin: &[u8]) -> Answer {
        let broken = |what: String| Failure::Broken { plugin: plugin.to_owned(), what };
        let Some(process) = self.path.find(plugin) else {
            let what = format!("plugin {plugin:?} is none of plumb's, and not in CNI_PATH");
            return Answer { outcome: Err(broken(what)), took: None };
        };
        let began = Instant::now();
        let output = match self.execute(process, stdin) {
            Ok(output) => output,
            Err(why) => {
                let what = format!("cannot run plugin {plugin:?}: {why}");
                return Answer { outcome: Err(broken(what)), took: None };
            }
        };
        let took = Some(began.elapsed());
        let outcome = if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else if let Some(error) = delegate::own_error(&output.stdout) {
            Err(Failure::Refused { plugin: plugin.to_owned(), error })
        } else {
            let status = output.status;
            Err(broken(format!("{plugin} failed without an error object: {status}")))
        };
        Answer { outcome, took }
    }

    fn execute(&self, mut process: Process, stdin: &[u8]) -> io::Result<std::process::Output> {
        let mut child = process
            .env("CNI_COMMAND", self.command.text())
            .env("CNI_CONTAINERID", self.container)
            .env("CNI_NETNS", self.netns)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_ARGS", self.args)
            .env("CNI_PATH", &self.path.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // Should the plugin not read it, its own error tells more.
            let _ = input.write_all(stdin);
        }
        child.wait_with_output()
    }
}

/// Why a plugin did not do what it was called for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It says so itself.
    Refused {
        /// Its name.
        plugin: String,
        /// Its error object.
        error: Error,
    },
    /// It could not be called, or has not kept to the protocol.
    Broken {
        /// Its name.
        plugin: String,
        /// What happened, for people.
        what: String,
    },
}

impl Failure {
    /// For programs: the plugin's error object as far as there is one.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Refused { error: Error { code, msg, details }, .. } if details.is_empty() => {
                json!({"code": code, "msg": msg})
            }
            Self::Refused { error: Error { code, msg, details }, .. } => {
                json!({"code": code, "msg": msg, "details": details})
            }
            Self::Broken { what, .. } => json!({"msg": what}),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { plugin, error } => write!(f, "{plugin}: {error}"),
            Self::Broken { what, .. } => f.write_str(what),
        }
    }
}

/// A variable of our own environment; what is set to nothing counts as not set.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}
