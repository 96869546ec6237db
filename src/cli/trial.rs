//! `plumb try`: a network tried out in namespaces that are thrown away.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::call::{Call, SearchPath};
use super::network::{Extra, Network, Plugin};
use super::{ping, sandbox, say, say_json, summary};
use crate::cni::env::Command;
use crate::cni::{CniResult, Version};
use crate::net::{Cidr, from_bits, to_bits};
use crate::nl::nft::set::{self, Set};
use crate::nl::{Family, Socket, addr, link};
use crate::plugins::bridge::vlan_gateway;
use crate::plugins::{masquerade, spoof_check};
use crate::sys::netns::Netns;

/// The network that is tried for each plugin; the first also if none is given.
const EXAMPLES: [(&str, &str); 11] = [
    ("bridge", include_str!("../../examples/dual-stack.conflist")),
    ("ptp", include_str!("../../examples/ptp-dual-stack.conflist")),
    ("macvlan", include_str!("../../examples/macvlan.conf")),
    ("ipvlan", include_str!("../../examples/ipvlan.conf")),
    ("vlan", include_str!("../../examples/vlan.conflist")),
    ("dummy", include_str!("../../examples/dummy.conflist")),
    ("tap", include_str!("../../examples/tap.conf")),
    ("host-device", include_str!("../../examples/host-device.conf")),
    ("loopback", include_str!("../../examples/loopback.conflist")),
    ("host-local", include_str!("../../examples/dual-stack.conflist")),
    ("static", include_str!("../../examples/static.conflist")),
];
/// Each pod's interface.
const IFNAME: &str = "eth0";
/// Where host-local keeps leases. In the throw-away host this is a file system of its own.
const LEASES: &str = "/var/lib/cni/networks";

/// Try a network: attach two throw-away pods, ping across, detach them
///
/// Makes a host and two pods out of namespaces that exist only for this, so that nothing on this
/// machine is touched. Needs no privilege where user namespaces are allowed. Every plugin is started
/// as a runtime starts it: a fresh process, environment and standard input; the time shown is that of
/// the whole process.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  plumb try                                    a dual-stack network that comes with plumb
  plumb try --type ptp                         a network that shows what a plugin does
  plumb try /etc/cni/net.d/10-mynet.conflist   a network of yours
  plumb try --verbose mynet.conf               with each result as the runtime gets it
  plumb try --json mynet.conf | jq .ok

Leases go with the namespaces too: ipam.dataDir is left out. With static addresses the second pod gets
those that follow (args.cni.ips). A master of the host is one end of a cable there; where the master
can't serve both pods, as with a VLAN, the other end is the second pod's. So is a device of the host's,
which is one pod's alone. Plugins that are not plumb's are looked for along CNI_PATH.

Exit codes:
  0  all went well and nothing was left behind
  1  something failed, did not answer, or was left behind
  2  the command line can't be understood")]
pub struct Options {
    /// A network configuration (.conf) or a list (.conflist)
    #[arg(value_name = "CONF")]
    conf: Option<PathBuf>,
    /// Try a network with this plugin, one of those that come with plumb
    #[arg(
        long = "type",
        value_name = "NAME",
        conflicts_with = "conf",
        value_parser = PossibleValuesParser::new(EXAMPLES.map(|(name, _)| name))
    )]
    plugin: Option<String>,
    /// Show each result as the runtime gets it
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON, for programs
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

impl Options {
    /// The network that is tried without a configuration.
    fn example(&self) -> &'static str {
        let asked = |(name, _): &&(&str, _)| self.plugin.as_deref().is_none_or(|p| p == *name);
        EXAMPLES.iter().find(asked).map_or("", |(_, text)| text)
    }
}

pub fn run(options: &Options) -> Result<i32, String> {
    let mut network = match &options.conf {
        Some(path) => Network::read(path)?,
        None => Network::parse(options.example())?,
    };
    if network.asks_dhcp() {
        return Err("a network whose addresses come from a DHCP server (ipam.type dhcp) can't be tried: in a \
                    throw-away one there is no server"
            .to_owned());
    }
    let data_dir = network.take_data_dirs();
    sandbox::enter()?;
    let mut trial = Trial::prepare(network, options)?;
    trial.say_what_is_tried(data_dir);
    trial.carry_out();
    Ok(trial.report.finish(options.json))
}

/// A pod, and what it was given.
struct Pod {
    name: &'static str,
    path: PathBuf,
    netns: Netns,
    /// The addresses that it is to have, if the network does not choose.
    ips: Option<Vec<String>>,
    /// The master that its link is to be on, if not that of the network.
    master: Option<String>,
    /// The device that it is to have, if not that of the network.
    device: Option<String>,
    result: Option<Value>,
}

impl Pod {
    fn make(name: &'static str) -> Result<Self, String> {
        let error = |why: &dyn std::fmt::Display| format!("cannot make pod {name}: {why}");
        let path = sandbox::make_pod(name).map_err(|why| error(&why))?;
        let netns = Netns::open(&path).map_err(|why| error(&why))?;
        Ok(Self { name, path, netns, ips: None, master: None, device: None, result: None })
    }
}

struct Trial {
    network: Network,
    version: Version,
    pods: [Pod; 2],
    /// Links of the host before anything was attached.
    links_before: BTreeSet<String>,
    report: Report,
}

impl Trial {
    fn prepare(network: Network, options: &Options) -> Result<Self, String> {
        let (first, mut second) = (Pod::make("pod1")?, Pod::make("pod2")?);
        let next = |cidr: Cidr| Cidr {
            address: from_bits(cidr.address, to_bits(cidr.address).wrapping_add(1)),
            ..cidr
        };
        let ips: Vec<_> =
            network.static_addresses().into_iter().map(|cidr| next(cidr).to_string()).collect();
        if !ips.is_empty() {
            second.ips = Some(ips);
        }
        for (number, master) in network.masters().into_iter().enumerate() {
            let far_end = format!("far{number}");
            sandbox::make_segment(&master, &far_end)
                .map_err(|why| format!("cannot make master {master}: {why}"))?;
            if network.has_vlans() {
                second.master = Some(far_end);
            }
        }
        for (number, device) in network.devices().into_iter().enumerate() {
            let far_end = format!("fardev{number}");
            sandbox::make_segment(&device, &far_end)
                .map_err(|why| format!("cannot make device {device}: {why}"))?;
            second.device = Some(far_end);
        }
        Ok(Self {
            version: network.version(),
            pods: [first, second],
            links_before: links()?.into_iter().map(|link| link.name).collect(),
            report: Report::new(options, &network.name),
            network,
        })
    }

    fn say_what_is_tried(&self, data_dir: bool) {
        let plugins: Vec<_> = self.network.plugins.iter().map(|p| p.name.as_str()).collect();
        let (name, version) = (&self.network.name, self.version);
        self.report.note(&format!(
            "network {name}: {}, CNI {version}, in namespaces that exist only for this\n",
            plugins.join(", ")
        ));
        if data_dir {
            self.report.note("ipam.dataDir is left out: leases go with the namespaces\n");
        }
    }

    /// The whole life of two attachments. A failure ends what it makes pointless; the pods are detached
    /// in any case.
    fn carry_out(&mut self) {
        if (0..self.pods.len()).all(|pod| self.attach(pod)) {
            self.ping_across();
            (0..self.pods.len()).for_each(|pod| self.check(pod));
        }
        (0..self.pods.len()).for_each(|pod| self.detach(pod));
        self.look_for_remains();
    }

    fn attach(&mut self, pod: usize) -> bool {
        let Some(pod) = self.pods.get_mut(pod) else { return false };
        let mut total = Duration::ZERO;
        let mut printed = String::new();
        for plugin in &self.network.plugins {
            match call(&self.network, plugin, Command::Add, pod) {
                Ok((answer, took)) => {
                    total += took;
                    pod.result = serde_json::from_str(&answer).ok();
                    printed = answer;
                }
                Err(what) => {
                    self.report.step("ADD", pod.name, None, Err(&what));
                    return false;
                }
            }
        }
        let result = read_result(pod, self.version);
        // Plugin loopback has an interface of its own.
        let inside = result.interfaces.iter().find(|interface| !interface.sandbox.is_empty());
        let ifname = inside.map_or(IFNAME, |interface| &interface.name);
        let summary = summary::of_result(ifname, &result);
        self.report.step("ADD", pod.name, Some(total), Ok(&summary));
        self.report.result(&printed);
        true
    }

    fn check(&mut self, pod: usize) {
        let Some(pod) = self.pods.get(pod) else { return };
        if self.version < Version::V0_4_0 {
            let text = format!("not asked: CNI {} has no CHECK", self.version);
            return self.report.step("CHECK", pod.name, None, Ok(&text));
        }
        if self.network.disable_check {
            let text = "not asked: the network sets disableCheck";
            return self.report.step("CHECK", pod.name, None, Ok(text));
        }
        let mut total = Duration::ZERO;
        for plugin in &self.network.plugins {
            match call(&self.network, plugin, Command::Check, pod) {
                Ok((_, took)) => total += took,
                Err(what) => {
                    return self.report.step("CHECK", pod.name, None, Err(&what));
                }
            }
        }
        self.report.step("CHECK", pod.name, Some(total), Ok("all is as ADD left it"));
    }

    fn detach(&mut self, pod: usize) {
        let Some(pod) = self.pods.get_mut(pod) else { return };
        if self.version < Version::V0_4_0 {
            // Then DEL does not learn what ADD has returned.
            pod.result = None;
        }
        let (mut total, mut failures) = (Duration::ZERO, Vec::new());
        for plugin in self.network.plugins.iter().rev() {
            match call(&self.network, plugin, Command::Del, pod) {
                Ok((_, took)) => total += took,
                Err(what) => failures.push(what),
            }
        }
        let failures = failures.join("; ");
        let outcome = if failures.is_empty() { Ok("") } else { Err(failures.as_str()) };
        self.report.step("DEL", pod.name, Some(total), outcome);
    }

    fn ping_across(&mut self) {
        let [from, to] = &self.pods;
        let (of_from, of_to) = (read_result(from, self.version), read_result(to, self.version));
        let alone = self.network.is_disconnected();
        let of_to = if alone { of_from.clone() } else { of_to };
        let name =
            |address: IpAddr| if alone || address.is_loopback() { "itself" } else { to.name };
        let mut targets: Vec<_> = of_to
            .ips
            .iter()
            .map(|ip| (name(ip.address.address).to_owned(), ip.address.address))
            .collect();
        if targets.is_empty() {
            targets.extend(link_local(to).map(|address| (to.name.to_owned(), address)));
        }
        let isolated = self.network.isolates_ports();
        let scope = inside(from, |socket| link::index_of(socket, IFNAME)).flatten().unwrap_or(0);
        for (name, address) in targets {
            let answer = ping::ping(&from.netns, address, scope);
            let to = format!("→ {name} {address}");
            let outcome = match (&answer, isolated) {
                (Ok(Some(_)), false) => Ok(to),
                (Ok(None), true) => Ok(format!("{to}: no answer, as portIsolation asks")),
                (Ok(Some(_)), true) => Err(format!("{to}: it answers in spite of portIsolation")),
                (Ok(None), false) => Err(format!("{to}: no answer")),
                (Err(why), _) => Err(format!("{to}: {why}")),
            };
            self.report.step("ping", from.name, answer.ok().flatten(), outcome_ref(&outcome));
        }
        let on_host = host_addresses();
        let gateways: BTreeSet<_> = of_from.ips.iter().filter_map(|ip| ip.gateway).collect();
        for gateway in gateways.into_iter().filter(|gateway| on_host.contains(gateway)) {
            let answer = ping::ping(&from.netns, gateway, scope);
            let to = format!("→ gateway {gateway}");
            let outcome = match &answer {
                Ok(Some(_)) => Ok(to),
                Ok(None) => Err(format!("{to}: no answer")),
                Err(why) => Err(format!("{to}: {why}")),
            };
            self.report.step("ping", from.name, answer.ok().flatten(), outcome_ref(&outcome));
        }
    }

    /// Proves that the pods have left nothing, and taken nothing along. What serves all pods of a network stays,
    /// as with the reference plugins: a bridge with nothing but VLANs' gateways on it, and the rules without
    /// elements.
    fn look_for_remains(&mut self) {
        let mut left: Vec<String> = Vec::new();
        let mut bridges = Vec::new();
        match links() {
            Ok(links) => {
                let is_there = |name: &String| links.iter().any(|link| link.name == *name);
                let lost = self.links_before.iter().filter(|name| !is_there(name));
                left.extend(lost.map(|name| format!("no link {name} any more")));
                for link in links.iter().filter(|link| !self.links_before.contains(&link.name)) {
                    let mut ports = links.iter().filter(|port| port.master == Some(link.index));
                    if link.is_bridge() && ports.all(is_gateway) {
                        bridges.push(link.name.clone());
                    } else if !is_gateway(link) {
                        left.push(format!("link {}", link.name));
                    }
                }
            }
            Err(what) => left.push(what),
        }
        for pod in &self.pods {
            let links = inside(pod, link::list).unwrap_or_default();
            let others = links.iter().filter(|link| link.name != "lo");
            left.extend(others.map(|link| format!("link {} in {}", link.name, pod.name)));
        }
        left.extend(elements().into_iter().map(|element| format!("nf_tables element {element}")));
        left.extend(leases().into_iter().map(|lease| format!("lease {lease}")));
        let outcome = if left.is_empty() {
            Ok(match bridges.as_slice() {
                [] => "nothing".to_owned(),
                _ => {
                    format!("nothing of the pods (bridge {} stays for others)", bridges.join(", "))
                }
            })
        } else {
            Err(left.join("; "))
        };
        self.report.step("left", "", None, outcome_ref(&outcome));
    }
}

fn outcome_ref(outcome: &Result<String, String>) -> Result<&str, &str> {
    outcome.as_deref().map_err(String::as_str)
}

/// Starts a plugin as a runtime does. Returns what it prints, and how long the process took.
fn call(
    network: &Network,
    plugin: &Plugin,
    command: Command,
    pod: &Pod,
) -> Result<(String, Duration), String> {
    let netns = pod.path.to_string_lossy();
    let path = SearchPath::from_directory(sandbox::PLUGIN_DIR);
    let call =
        Call { command, container: pod.name, netns: &netns, ifname: IFNAME, args: "", path: &path };
    let extra = Extra {
        prev: pod.result.as_ref(),
        ips: pod.ips.as_deref(),
        master: pod.master.as_deref(),
        device: pod.device.as_deref(),
        ..Extra::default()
    };
    let answer = call.run(&plugin.name, &network.request(plugin, &extra));
    match answer.outcome {
        Ok(printed) => Ok((printed, answer.took.unwrap_or_default())),
        Err(failure) => Err(failure.to_string()),
    }
}

fn read_result(pod: &Pod, version: Version) -> CniResult {
    let read = |document| summary::read_result(document, version).ok();
    pod.result.as_ref().and_then(read).unwrap_or_default()
}

/// Asks the kernel about a pod.
fn inside<T>(pod: &Pod, ask: impl FnOnce(&mut Socket) -> Result<T, crate::nl::Error>) -> Option<T> {
    let socket = pod.netns.inside(|| Socket::open(Family::Route)).ok()?;
    ask(&mut socket.ok()?).ok()
}

/// The address that a pod's interface gives itself.
fn link_local(pod: &Pod) -> Option<IpAddr> {
    let addresses = inside(pod, |socket| {
        let index = link::index_of(socket, IFNAME)?;
        addr::of_link(socket, index.unwrap_or(0))
    });
    addresses?.into_iter().find(|a| a.link_local).map(|a| a.cidr.address)
}

/// Whether a link is either end of the pair by which a VLAN's gateway is on its bridge.
fn is_gateway(link: &link::Link) -> bool {
    link.alias.as_ref().is_some_and(|alias| alias.starts_with(vlan_gateway::LABEL_PREFIX))
}

fn links() -> Result<Vec<link::Link>, String> {
    Socket::open(Family::Route)
        .and_then(|mut socket| link::list(&mut socket))
        .map_err(|error| error.to_string())
}

fn host_addresses() -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    if let Ok(mut socket) = Socket::open(Family::Route) {
        for link in link::list(&mut socket).unwrap_or_default() {
            let addresses = addr::of_link(&mut socket, link.index).unwrap_or_default();
            found.extend(addresses.into_iter().map(|address| address.cidr.address));
        }
    }
    found
}

/// Comments of all elements of plumb's sets; none in a kernel without nf_tables.
fn elements() -> Vec<String> {
    let Ok(mut socket) = Socket::open(Family::Netfilter) else { return Vec::new() };
    let mut found = Vec::new();
    for table in [masquerade::TABLE, spoof_check::TABLE] {
        for name in set::names(&mut socket, table).unwrap_or_default() {
            let elements = set::elements(&mut socket, Set { table, name: &name });
            found.extend(elements.unwrap_or_default().into_iter().map(|e| e.comment));
        }
    }
    found
}

fn leases() -> Vec<String> {
    let names = |path: &Path| -> Vec<_> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let of_networks = names(Path::new(LEASES)).into_iter().flat_map(|network| names(&network));
    let is_lease = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<IpAddr>().is_ok())
    };
    of_networks.filter(is_lease).map(|path| path.display().to_string()).collect()
}

/// What has happened so far: printed as it happens, or as one document at the end.
struct Report {
    network: String,
    json: bool,
    verbose: bool,
    steps: Vec<Value>,
    failed: bool,
}

impl Report {
    fn new(options: &Options, network: &str) -> Self {
        let Options { json, verbose, .. } = *options;
        Self { network: network.to_owned(), json, verbose, steps: Vec::new(), failed: false }
    }

    fn note(&self, text: &str) {
        if !self.json {
            say(text);
        }
    }

    fn step(&mut self, step: &str, pod: &str, took: Option<Duration>, outcome: Result<&str, &str>) {
        self.failed |= outcome.is_err();
        let ms = took.map(|took| took.as_secs_f64() * 1e3);
        if self.json {
            let (Ok(text) | Err(text)) = outcome;
            self.steps.push(json!({
                "step": step, "pod": pod, "ok": outcome.is_ok(), "ms": ms, "text": text,
            }));
            return;
        }
        let time = ms.map(|ms| format!("{ms:.2} ms")).unwrap_or_default();
        let text = match outcome {
            Ok(text) => text.to_owned(),
            Err(text) => format!("FAILED: {text}"),
        };
        say(format_args!("{step:5} {pod:4} {time:>9}  {text}").to_string().trim_end());
    }

    /// What the step just reported has returned to the runtime.
    fn result(&mut self, printed: &str) {
        if let Some(Value::Object(step)) = self.steps.last_mut() {
            let result = serde_json::from_str(printed).unwrap_or_default();
            step.insert("result".into(), result);
        } else if self.verbose {
            say(printed);
        }
    }

    fn finish(self, json: bool) -> i32 {
        if json {
            let (network, steps) = (self.network, self.steps);
            say_json(&json!({"network": network, "ok": !self.failed, "steps": steps}));
        }
        i32::from(self.failed)
    }
}
