//! Who is measured, doing what.

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::floor::Floor;
use crate::stage::{BRIDGE, Host, Pod};

/// What is done with a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Version,
    Add,
    Del,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "VERSION",
            Self::Add => "ADD",
            Self::Del => "DEL",
        })
    }
}

/// A configuration that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    Version,
    HostLocal,
    /// A bridge's port without an address.
    Layer2,
    Bridge,
    Masquerade,
    DualStack,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "VERSION",
            Self::HostLocal => "host-local",
            Self::Layer2 => "bridge, layer 2",
            Self::Bridge => "bridge + host-local",
            Self::Masquerade => "bridge + host-local, ipMasq",
            Self::DualStack => "bridge + host-local, dual stack",
        })
    }
}

impl Scenario {
    pub const ALL: [Self; 6] = [
        Self::Version,
        Self::HostLocal,
        Self::Layer2,
        Self::Bridge,
        Self::Masquerade,
        Self::DualStack,
    ];

    pub fn verbs(self) -> &'static [Verb] {
        if self == Self::Version { &[Verb::Version] } else { &[Verb::Add, Verb::Del] }
    }

    /// Whether there is an attachment, so that others can be present.
    pub fn attaches(self) -> bool {
        !matches!(self, Self::Version | Self::HostLocal)
    }

    /// Tells the networks of scenarios apart.
    pub fn number(self) -> u8 {
        match self {
            Self::Version => 0,
            Self::HostLocal => 1,
            Self::Layer2 => 2,
            Self::Bridge => 3,
            Self::Masquerade => 4,
            Self::DualStack => 5,
        }
    }

    /// The address of this number, for each family that the scenario has.
    pub fn addresses(self, number: usize) -> Vec<String> {
        let (high, low) = (number / 256, number % 256);
        match self {
            Self::Version | Self::Layer2 => Vec::new(),
            Self::HostLocal | Self::Bridge | Self::Masquerade => {
                vec![format!("10.100.{high}.{low}")]
            }
            Self::DualStack => {
                vec![format!("10.100.{high}.{low}"), format!("fd00:100::{number:x}")]
            }
        }
    }

    pub fn masquerades(self) -> bool {
        self == Self::Masquerade
    }

    /// The plugin that is called.
    fn plugin(self) -> &'static str {
        if self == Self::HostLocal { "host-local" } else { "bridge" }
    }

    /// The configuration of a network of this name, on a bridge that others use too.
    fn configuration(self, network: &str, bridge: &str) -> Value {
        // A bridge has one gateway: its networks share the addresses, though not the leases.
        let mut ranges = vec![json!([{"subnet": "10.100.0.0/16"}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if self == Self::DualStack {
            ranges.push(json!([{"subnet": "fd00:100::/64"}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let ipam = if self == Self::Layer2 {
            json!({})
        } else {
            json!({"type": "host-local", "ranges": ranges, "routes": routes})
        };
        json!({
            "cniVersion": "1.0.0", "name": network, "type": self.plugin(), "bridge": bridge,
            "isGateway": self.attaches() && self != Self::Layer2, "ipMasq": self.masquerades(),
            "ipam": ipam,
        })
    }
}

/// Plugins in a directory.
pub struct Plugins {
    pub directory: PathBuf,
}

/// Who does it.
pub enum Contender {
    Plumb(Plugins),
    Reference(Plugins),
    Floor(Floor),
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Contender {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plumb(_) => "plumb",
            Self::Reference(_) => "reference",
            Self::Floor(_) => "floor",
        }
    }

    /// Prepares a call, so that nothing but the call itself is timed.
    pub fn prepare<'a>(
        &self,
        verb: Verb,
        scenario: Scenario,
        network: &str,
        host: &Host,
        pod: &'a Pod,
    ) -> Prepared<'a> {
        let plugins = match self {
            Self::Floor(floor) => {
                return Prepared::Floor(floor.prepare(verb, scenario, network, host, pod));
            }
            Self::Plumb(plugins) | Self::Reference(plugins) => plugins,
        };
        let conf = scenario.configuration(network, BRIDGE);
        Prepared::Process(plugins.call(scenario.plugin(), verb, &conf, pod))
    }
}

impl Plugins {
    pub fn call(&self, plugin: &str, verb: Verb, conf: &Value, pod: &Pod) -> Process {
        let mut command = Command::new(self.directory.join(plugin));
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb.to_string())
            .env("CNI_CONTAINERID", &pod.name)
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench")
            .env("CNI_PATH", &self.directory);
        Process::new(command, conf.to_string().into_bytes())
    }
}

/// A call that is ready to be timed.
pub enum Prepared<'a> {
    Process(Process),
    Floor(crate::floor::Call<'a>),
}

impl Prepared<'_> {
    pub fn run(&mut self) -> Result<()> {
        match self {
            Self::Process(process) => process.run(),
            Self::Floor(call) => call.run(),
        }
    }
}

/// A process, its standard input prepared.
pub struct Process {
    command: Command,
    stdin: Vec<u8>,
}

impl Process {
    pub fn new(mut command: Command, stdin: Vec<u8>) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self { command, stdin }
    }

    /// Starts it, feeds it, reads what it prints, waits for its end: what a runtime does.
    pub fn run(&mut self) -> Result<()> {
        let mut child = self.command.spawn().with_context(|| format!("{:?}", self.command))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, mut stdout) = stdin.zip(stdout).context("pipes")?;
        // Who reads nothing may have gone.
        let _ = stdin.write_all(&self.stdin);
        drop(stdin);
        let mut answer = String::new();
        stdout.read_to_string(&mut answer)?;
        let status = child.wait()?;
        ensure!(status.success(), "{:?}: {status}: {answer}", self.command);
        Ok(())
    }
}
