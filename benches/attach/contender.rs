//! Who is measured, doing what.

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use plumb::nl::link::{Child, IpvlanMode, MacvlanMode};
use serde_json::{Value, json};

use crate::floor::Floor;
use crate::stage::{BRIDGE, DEVICE, Host, Pod, VLAN_BRIDGE, master_of};

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

/// A configuration that is measured: all that is said of one is its entry in [`ALL`](Self::ALL).
pub struct Scenario {
    /// What it is called in the figures.
    pub name: &'static str,
    /// The plugin that is called.
    plugin: &'static str,
    /// Its own keys.
    keys: fn() -> Value,
    ipam: Ipam,
    /// What the kernel is to make.
    pub work: Work,
    pub extent: Extent,
}

/// Where a configuration's addresses come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ipam {
    Nowhere,
    HostLocal,
    /// host-local, an address of each family
    DualStack,
    Static,
}

/// What there is to do for the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Not even a lease.
    Nothing,
    Lease,
    /// A veth pair, whose host end is a port of [`BRIDGE`].
    Port,
    /// The same, and an element for the packet rules to go by.
    MasqueradedPort,
    /// A veth pair, whose host end is a port of [`VLAN_BRIDGE`] in [`VLAN`].
    VlanPort,
    /// A veth pair, whose host end is the gateway.
    Pair,
    /// The same, and an element for the packet rules to go by.
    MasqueradedPair,
    /// A link that is made in the container, on the host's [`master_of`](crate::stage::master_of) its kind.
    Child(Child),
    /// A link whose other end is a program's, made in the container.
    Tap,
    /// [`DEVICE`], which goes there.
    Device,
    /// The container's loopback interface, which comes up.
    Loopback,
}

/// Under how many conditions a configuration is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// One caller and many, with few and many present.
    Full,
    /// One caller, on the first host.
    Brief,
}

const MACVLAN: Child = Child::Macvlan { mode: MacvlanMode::Bridge, broadcast_queue: None };
/// The VLAN of what is in one.
pub const VLAN: u16 = 5;

impl Scenario {
    /// In the order of the figures.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "VERSION",
            plugin: "bridge",
            keys: || json!({}),
            ipam: Ipam::Nowhere,
            work: Work::Nothing,
            extent: Extent::Full,
        },
        Self {
            name: "host-local",
            plugin: "host-local",
            keys: || json!({}),
            ipam: Ipam::HostLocal,
            work: Work::Lease,
            extent: Extent::Full,
        },
        Self {
            name: "bridge, layer 2",
            plugin: "bridge",
            keys: || json!({"bridge": BRIDGE}),
            ipam: Ipam::Nowhere,
            work: Work::Port,
            extent: Extent::Full,
        },
        Self {
            name: "bridge + host-local",
            plugin: "bridge",
            keys: || json!({"bridge": BRIDGE, "isGateway": true}),
            ipam: Ipam::HostLocal,
            work: Work::Port,
            extent: Extent::Full,
        },
        Self {
            name: "bridge + host-local, ipMasq",
            plugin: "bridge",
            keys: || json!({"bridge": BRIDGE, "isGateway": true, "ipMasq": true}),
            ipam: Ipam::HostLocal,
            work: Work::MasqueradedPort,
            extent: Extent::Full,
        },
        Self {
            name: "bridge + host-local, dual stack",
            plugin: "bridge",
            keys: || json!({"bridge": BRIDGE, "isGateway": true}),
            ipam: Ipam::DualStack,
            work: Work::Port,
            extent: Extent::Full,
        },
        Self {
            name: "bridge + host-local, vlan",
            plugin: "bridge",
            keys: || json!({"bridge": VLAN_BRIDGE, "vlan": VLAN}),
            ipam: Ipam::HostLocal,
            work: Work::VlanPort,
            extent: Extent::Brief,
        },
        Self {
            name: "ptp + host-local",
            plugin: "ptp",
            keys: || json!({}),
            ipam: Ipam::HostLocal,
            work: Work::Pair,
            extent: Extent::Brief,
        },
        Self {
            name: "ptp + host-local, ipMasq",
            plugin: "ptp",
            keys: || json!({"ipMasq": true}),
            ipam: Ipam::HostLocal,
            work: Work::MasqueradedPair,
            extent: Extent::Brief,
        },
        Self {
            name: "ptp + static",
            plugin: "ptp",
            keys: || json!({}),
            ipam: Ipam::Static,
            work: Work::Pair,
            extent: Extent::Brief,
        },
        Self {
            name: "macvlan + host-local",
            plugin: "macvlan",
            keys: || json!({"master": master_of(MACVLAN), "mode": "bridge"}),
            ipam: Ipam::HostLocal,
            work: Work::Child(MACVLAN),
            extent: Extent::Brief,
        },
        Self {
            name: "ipvlan + host-local",
            plugin: "ipvlan",
            keys: || json!({"master": master_of(Child::Ipvlan(IpvlanMode::L2)), "mode": "l2"}),
            ipam: Ipam::HostLocal,
            work: Work::Child(Child::Ipvlan(IpvlanMode::L2)),
            extent: Extent::Brief,
        },
        Self {
            name: "vlan + host-local",
            plugin: "vlan",
            keys: || json!({"master": master_of(Child::Vlan(VLAN)), "vlanId": VLAN}),
            ipam: Ipam::HostLocal,
            work: Work::Child(Child::Vlan(VLAN)),
            extent: Extent::Brief,
        },
        Self {
            name: "dummy + host-local",
            plugin: "dummy",
            keys: || json!({}),
            ipam: Ipam::HostLocal,
            work: Work::Child(Child::Dummy),
            extent: Extent::Brief,
        },
        Self {
            name: "tap + host-local",
            plugin: "tap",
            keys: || json!({}),
            ipam: Ipam::HostLocal,
            work: Work::Tap,
            extent: Extent::Brief,
        },
        Self {
            name: "host-device + host-local",
            plugin: "host-device",
            keys: || json!({"device": DEVICE}),
            ipam: Ipam::HostLocal,
            work: Work::Device,
            extent: Extent::Brief,
        },
        // The last, since it leaves the pods' loopback interfaces down.
        Self {
            name: "loopback",
            plugin: "loopback",
            keys: || json!({}),
            ipam: Ipam::Nowhere,
            work: Work::Loopback,
            extent: Extent::Brief,
        },
    ];

    /// All plugins that are called, each once.
    pub fn plugins() -> Vec<&'static str> {
        let mut plugins: Vec<_> =
            Self::ALL.iter().flat_map(|s| [Some(s.plugin), s.ipam.plugin()]).flatten().collect();
        plugins.sort_unstable();
        plugins.dedup();
        plugins
    }

    pub fn verbs(&self) -> &'static [Verb] {
        if self.work == Work::Nothing { &[Verb::Version] } else { &[Verb::Add, Verb::Del] }
    }

    /// Whether there is an attachment, so that others can be present.
    pub fn attaches(&self) -> bool {
        !matches!(self.work, Work::Nothing | Work::Lease)
    }

    /// The link in the container, of a kind that a kernel may lack.
    pub fn child(&self) -> Option<Child> {
        if let Work::Child(child) = self.work { Some(child) } else { None }
    }

    /// Tells the networks of scenarios apart.
    pub fn number(&self) -> usize {
        Self::ALL.iter().position(|other| other == self).unwrap_or_default()
    }

    /// The network's addresses by number, one for each family that it has.
    pub fn addresses(&self, number: usize) -> Vec<String> {
        let ipv4 = || format!("10.{}.{}.{}", self.ipv4_network(), number / 256, number % 256);
        match self.ipam {
            Ipam::Nowhere => Vec::new(),
            Ipam::HostLocal | Ipam::Static => vec![ipv4()],
            Ipam::DualStack => vec![ipv4(), format!("fd00:100::{number:x}")],
        }
    }

    /// Whether host-local keeps them.
    pub fn leases(&self) -> bool {
        matches!(self.ipam, Ipam::HostLocal | Ipam::DualStack)
    }

    /// A bridge has one gateway: its networks share the addresses, though not the leases.
    fn ipv4_network(&self) -> u8 {
        if matches!(self.work, Work::Port | Work::MasqueradedPort) { 100 } else { 99 }
    }

    /// The configuration of a network of this name.
    pub fn configuration(&self, network: &str) -> Value {
        let subnet = format!("10.{}.0.0/16", self.ipv4_network());
        let mut ranges = vec![json!([{"subnet": subnet}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if self.ipam == Ipam::DualStack {
            ranges.push(json!([{"subnet": "fd00:100::/64"}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let ipam = match self.ipam {
            Ipam::Nowhere => json!({}),
            Ipam::HostLocal | Ipam::DualStack => {
                json!({"type": "host-local", "ranges": ranges, "routes": routes})
            }
            Ipam::Static => {
                let own = |number| self.addresses(number).concat();
                let address = json!({"address": own(2) + "/16", "gateway": own(1)});
                json!({"type": "static", "addresses": [address], "routes": routes})
            }
        };
        let mut conf =
            json!({"cniVersion": "1.0.0", "name": network, "type": self.plugin, "ipam": ipam});
        if let (Some(conf), Value::Object(keys)) = (conf.as_object_mut(), (self.keys)()) {
            conf.extend(keys);
        }
        conf
    }
}

impl Ipam {
    fn plugin(self) -> Option<&'static str> {
        match self {
            Self::Nowhere => None,
            Self::HostLocal | Self::DualStack => Some("host-local"),
            Self::Static => Some("static"),
        }
    }
}

impl PartialEq for Scenario {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
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

    /// Whether it has the plugins for it.
    pub fn can(&self, scenario: &Scenario) -> bool {
        match self {
            Self::Floor(_) => true,
            Self::Plumb(plugins) | Self::Reference(plugins) => {
                let called = [Some(scenario.plugin), scenario.ipam.plugin()];
                called.iter().flatten().all(|plugin| plugins.directory.join(plugin).exists())
            }
        }
    }

    /// Prepares a call, so that nothing but the call itself is timed.
    pub fn prepare<'a>(
        &self,
        verb: Verb,
        scenario: &'a Scenario,
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
        let conf = scenario.configuration(network);
        Prepared::Process(plugins.call(scenario.plugin, verb, &conf, pod))
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
