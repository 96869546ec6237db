//! `plumb add`, `check`, `del`, `status`, `gc`: a network's plugins called by hand, as cnitool calls them.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::cache::{self, Entry};
use super::call::{Call, Failure, SearchPath, variable};
use super::network::{Extra, Network, Plugin};
use super::{ls, say, say_json, summary};
use crate::cni::conf::{interface_name_fault, is_identifier};
use crate::cni::env::Command;
use crate::cni::{Attachment, Version};
use crate::nl::{Family, Socket, link};
use crate::sys::netns::{Netns, OpenError};

/// Where networks are configured.
const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// Where `ip netns` keeps the namespaces that it gives names to.
const NAMED: &str = "/var/run/netns";

/// Attach a container to a network
///
/// Calls each plugin of the network with ADD, one after the other, and hands on what each returns. What
/// the last one returns is kept for check, del and gc. If a plugin fails, all are called with DEL in
/// reverse order, so that nothing is left; unless the container was attached before.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo ip netns add blue
  sudo plumb add mynet blue                      of /etc/cni/net.d, in /var/run/netns/blue
  sudo plumb add ./mynet.conflist blue --time    with each plugin's share of the time
  sudo plumb add mynet /proc/1234/ns/net --container c1 --json | jq .result
  sudo CAP_ARGS='{\"mac\":\"02:00:00:00:00:07\"}' plumb add mynet blue

Environment, as of cnitool:
  NETCONFPATH      directory of networks, instead of /etc/cni/net.d
  CNI_PATH         where plugins are looked for before plumb's own
  CNI_ARGS         KEY=VALUE pairs, separated by semicolons, for the plugins
  CAP_ARGS         a JSON object with what plugins that declare a capability get of it
  CNI_IFNAME, CNI_CONTAINERID    as --ifname and --container

Exit codes:
  0  attached
  1  something failed; standard error says what, or with --json `error`
  2  the command line can't be understood")]
pub struct AddOptions {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    container: ContainerOptions,
}

/// See whether an attachment is as it was left by add
///
/// Calls each plugin of the network with CHECK, and what add has returned.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb check mynet blue
  sudo plumb check mynet --container c1 --json | jq .ok

A network of a CNI version before 0.4.0 has no CHECK, which is an error; of one that sets disableCheck no
plugin is called. Environment as of `plumb add`.

Exit codes:
  0  all is as it should be, or disableCheck is set
  1  it is not, or there is no such attachment
  2  the command line can't be understood")]
pub struct CheckOptions {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    container: ContainerOptions,
}

/// Detach a container from a network
///
/// Calls each plugin of the network with DEL, in reverse order, with what add has returned. Goes on past
/// a plugin that fails. May be repeated, needs no namespace that is still there, and also detaches what
/// cnitool or a runtime has attached. Should the network not be configured any more, it is taken as it
/// was when the container was attached.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb del mynet blue
  sudo plumb del mynet --container c1            whose namespace add was told
  sudo plumb del mynet blue --ifname eth1 --time

Arguments that CNI_ARGS and CAP_ARGS don't give are those of add. Environment as of `plumb add`.

Exit codes:
  0  nothing of the attachment is left
  1  something failed; it can be tried again
  2  the command line can't be understood")]
pub struct DelOptions {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    container: ContainerOptions,
}

/// See whether a network could be attached to
///
/// Calls each plugin of the network with STATUS. A network of a CNI version before 1.1.0 has no STATUS:
/// no plugin is called, which counts as ready.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb status mynet
  sudo plumb status mynet --json | jq .ok

Environment as of `plumb add`.

Exit codes:
  0  ready, as far as the plugins can tell
  1  not ready; a plugin's code 50 says that no attachment can be made
  2  the command line can't be understood")]
pub struct StatusOptions {
    #[command(flatten)]
    common: Common,
    /// Taken for cnitool's sake, and not used
    #[arg(value_name = "NETNS", hide = true)]
    netns: Option<String>,
}

/// Remove what belongs to no attachment of a network any more
///
/// Attachments that are kept are those that /var/lib/cni/results names, by plumb, cnitool or a runtime,
/// and whose namespace is still there, and those that --keep names. Those that it names whose namespace
/// has gone are deleted; then each plugin is called with GC. Where the network has links on this host
/// for containers that nobody named, nothing is done without --force: a runtime may keep its own account
/// of them, as podman does.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb gc mynet
  sudo plumb gc mynet --keep 3f9c1a/eth0 --keep 77ab02/eth0
  sudo plumb gc mynet --force --json | jq .deleted

A network of a CNI version before 1.1.0 has no GC: only what has a file is deleted. Of one that sets
disableGC nothing is. Environment as of `plumb add`.

Exit codes:
  0  nothing is left that belongs to no attachment, or disableGC is set
  1  something failed, or --force is needed
  2  the command line can't be understood")]
pub struct GcOptions {
    #[command(flatten)]
    common: Common,
    /// Taken for cnitool's sake, and not used
    #[arg(value_name = "NETNS", hide = true)]
    netns: Option<String>,
    /// Keep this attachment; may be repeated
    #[arg(long, value_name = "CONTAINER/IFNAME", value_parser = parse_keep)]
    keep: Vec<(String, String)>,
    /// Delete also what has links on this host and is named by nobody
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
struct Common {
    /// A network's name, or the path of a configuration (.conf) or list (.conflist)
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Show how long each plugin took
    #[arg(long)]
    time: bool,
}

#[derive(Args, Debug)]
struct ContainerOptions {
    /// The container's network namespace: a path, or a name of `ip netns`
    #[arg(value_name = "NETNS", required_unless_present = "container")]
    netns: Option<String>,
    /// The container's ID; by default it follows from the path of NETNS, as with cnitool
    #[arg(long, short, value_name = "ID")]
    container: Option<String>,
    /// The container's interface [default: eth0]
    #[arg(long, short, value_name = "NAME")]
    ifname: Option<String>,
}

fn parse_keep(text: &str) -> Result<(String, String), String> {
    let (container, ifname) = text.split_once('/').ok_or("expected CONTAINER/IFNAME")?;
    validate(container, ifname)?;
    Ok((container.to_owned(), ifname.to_owned()))
}

fn validate(container: &str, ifname: &str) -> Result<(), String> {
    if !is_identifier(container) {
        return Err(format!(
            "container ID {container:?}: expected a letter or digit, then letters, digits, '_', '.' \
             or '-'"
        ));
    }
    match interface_name_fault(ifname) {
        Some(fault) => Err(format!("interface name {ifname:?} {fault}")),
        None => Ok(()),
    }
}

pub fn add(options: &AddOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = version_of(&network)?;
    let target = options.container.target(&network.name)?;
    if target.netns.is_empty() {
        return Err("add: NETNS: expected the container's network namespace".into());
    }
    let args = cni_args()?.unwrap_or_default();
    let capability_args = capability_args()?.unwrap_or_default();
    let existed = Entry::load(&target.attachment)?.is_some() || target.has_interface();

    let mut run = Run::new(&network, &target, &args, &capability_args);
    let outcome = run.add(version).and_then(|result| {
        let entry = Entry {
            attachment: target.attachment.clone(),
            netns: target.netns.clone(),
            config: network.to_list(),
            args: args.clone(),
            capability_args: capability_args.clone(),
            result,
        };
        entry.store().map(|()| entry.result).map_err(|what| Stopped { what, prev: None })
    });
    let attachment = &target.attachment;
    let outcome = match outcome {
        Ok(result) => {
            run.report.members.insert("result".into(), result.clone());
            let line = match summary::read_result(&result, version) {
                Ok(result) => summary::of_result(&attachment.ifname, &result),
                Err(error) => error.to_string(),
            };
            Ok(format!("attached {} to {}: {line}", attachment.container, attachment.network))
        }
        Err(Stopped { what, .. }) if existed => Err(format!(
            "{what}; not rolled back, since {} of {} was there before",
            attachment.ifname, attachment.container,
        )),
        Err(Stopped { what, prev }) => {
            let prev = prev.filter(|_| version >= Version::V0_4_0);
            Err(match run.del(prev.as_ref()) {
                Ok(()) => format!("{what}; rolled back"),
                Err(more) => format!("{what}; rolling it back: {more}"),
            })
        }
    };
    run.report.attachment(&target);
    run.report.finish(&options.common, outcome)
}

pub fn check(options: &CheckOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = version_of(&network)?;
    let target = options.container.target(&network.name)?;
    if version < Version::V0_4_0 {
        return Err(format!("network {}: CNI {version} has no CHECK", network.name));
    }
    let mut report = Report::default();
    if network.disable_check {
        let text = format!("not checked: network {} sets disableCheck", network.name);
        report.attachment(&target);
        return report.finish(&options.common, Ok(text));
    }
    let Attachment { container, ifname, .. } = &target.attachment.clone();
    let entry = Entry::load(&target.attachment)?.ok_or_else(|| {
        format!(
            "{container} is not attached to {} by {ifname}: {} has nothing of it",
            network.name,
            cache::DIRECTORY
        )
    })?;
    let target = target.or_netns_of(&entry);
    let args = cni_args()?.unwrap_or_else(|| entry.args.clone());
    let capability_args = capability_args()?.unwrap_or_else(|| entry.capability_args.clone());
    let prev = result_as(&entry.result, version)?;
    let mut run = Run::new(&network, &target, &args, &capability_args);
    let outcome = run.check(&prev).map(|()| {
        format!("{container} is attached to {} by {ifname} as add has left it", network.name)
    });
    run.report.attachment(&target);
    run.report.finish(&options.common, outcome)
}

pub fn del(options: &DelOptions) -> Result<i32, String> {
    // Of a network that is not configured any more the name alone is known.
    let (network, name) = match options.common.network() {
        Ok(network) => (Ok(network.clone()), network.name),
        Err(what) if is_identifier(&options.common.network) => {
            (Err(what), options.common.network.clone())
        }
        Err(what) => return Err(what),
    };
    let target = options.container.target(&name)?;
    let entry = Entry::load(&target.attachment)?;
    let network = network.or_else(|what| match &entry {
        Some(entry) if !entry.config.is_empty() => Network::parse(&entry.config),
        _ => Err(what),
    })?;
    let args = cni_args()?;
    let capability_args = capability_args()?;
    let mut report = Report::default();
    let outcome = detach(&network, &target, entry, args, capability_args, &mut report);
    let Attachment { container, ifname, .. } = &target.attachment;
    let outcome = outcome.map(|()| format!("detached {container} from {name}: {ifname}"));
    report.attachment(&target);
    report.finish(&options.common, outcome)
}

pub fn status(options: &StatusOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = version_of(&network)?;
    let mut report = Report { network: network.name.clone(), ..Report::default() };
    let name = &network.name;
    if version < Version::V1_1_0 {
        let text = format!("{name} is not asked: CNI {version} has no STATUS");
        return report.finish(&options.common, Ok(text));
    }
    let path = SearchPath::of_environment();
    let call = Call::about_network(Command::Status, &path);
    let names: Vec<_> = network.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let outcome = network
        .plugins
        .iter()
        .try_for_each(|plugin| report.call(&call, &network, plugin, &Extra::default()).map(drop))
        .map(|()| format!("{name} is ready: {}", names.join(", ")));
    report.finish(&options.common, outcome)
}

pub fn gc(options: &GcOptions) -> Result<i32, String> {
    let network = options.common.network()?;
    let version = version_of(&network)?;
    let name = &network.name;
    let mut report = Report { network: name.clone(), ..Report::default() };
    if network.disable_gc {
        let text = format!("nothing is removed: network {name} sets disableGC");
        return report.finish(&options.common, Ok(text));
    }
    let kept = |attachment: &Attachment| {
        options.keep.iter().any(|(c, i)| (c, i) == (&attachment.container, &attachment.ifname))
    };
    let (stale, live): (Vec<_>, Vec<_>) = Entry::all_of(name)?
        .into_iter()
        .partition(|entry| !kept(&entry.attachment) && has_gone(&entry.netns));
    let mut valid = options.keep.clone();
    for entry in live.into_iter().filter(|entry| !kept(&entry.attachment)) {
        valid.push((entry.attachment.container, entry.attachment.ifname));
    }
    let is_known = |found: &Attachment| {
        valid.iter().any(|(c, i)| (c, i) == (&found.container, &found.ifname))
            || stale.iter().any(|entry| entry.attachment == *found)
    };
    let unknown: Vec<_> = ls::attached()?
        .into_iter()
        .map(|attached| attached.attachment)
        .filter(|found| found.network == *name && !is_known(found))
        .map(|found| format!("{}/{}", found.container, found.ifname))
        .collect();
    if !unknown.is_empty() && version >= Version::V1_1_0 && !options.force {
        return Err(format!(
            "network {name} has links on this host for {}, which {} does not name; a runtime may \
             know them: --keep keeps one, --force deletes them",
            unknown.join(", "),
            cache::DIRECTORY,
        ));
    }

    let mut failures = Vec::new();
    let mut deleted = Vec::new();
    for entry in stale {
        let attachment = entry.attachment.clone();
        let target = Target { attachment: attachment.clone(), netns: entry.netns.clone() };
        let label = format!("{}/{}", attachment.container, attachment.ifname);
        match detach(&network, &target, Some(entry), None, None, &mut report) {
            Ok(()) => deleted.push(label),
            Err(what) => failures.push(format!("{label}: {what}")),
        }
    }
    let item = |(container, ifname): &(String, String)| json!({"containerID": container, "ifname": ifname});
    let list: Value = valid.iter().map(item).collect();
    if version >= Version::V1_1_0 {
        let path = SearchPath::of_environment();
        let call = Call::about_network(Command::Gc, &path);
        let extra = Extra { valid_attachments: Some(&list), ..Extra::default() };
        for plugin in &network.plugins {
            if let Err(what) = report.call(&call, &network, plugin, &extra) {
                failures.push(what);
            }
        }
    }
    let labels: Vec<_> = valid.iter().map(|(c, i)| format!("{c}/{i}")).collect();
    let outcome = if failures.is_empty() {
        let listed = |labels: &[String]| match labels {
            [] => "none".to_owned(),
            labels => labels.join(", "),
        };
        let mut text = format!(
            "{name}: kept {}; deleted of a namespace gone {}",
            listed(&labels),
            listed(&deleted)
        );
        if version < Version::V1_1_0 {
            let _ = write!(text, "; plugins are not asked, since CNI {version} has no GC");
        }
        Ok(text)
    } else {
        Err(failures.join("; "))
    };
    report.members.insert("kept".into(), labels.into());
    report.members.insert("deleted".into(), deleted.into());
    report.finish(&options.common, outcome)
}

impl Common {
    fn network(&self) -> Result<Network, String> {
        let directory = variable("NETCONFPATH").unwrap_or_else(|| CONFIGURATIONS.to_owned());
        Network::find(&self.network, Path::new(&directory))
    }
}

fn version_of(network: &Network) -> Result<Version, String> {
    let text = network.version.as_deref().unwrap_or_default();
    Version::parse(text).ok_or_else(|| format!("network {}: CNI {text} is unknown", network.name))
}

/// The attachment that a call is about, and where the container is.
#[derive(Clone, Debug)]
struct Target {
    attachment: Attachment,
    /// May be empty.
    netns: String,
}

impl ContainerOptions {
    fn target(&self, network: &str) -> Result<Target, String> {
        let netns = self.netns.as_deref().map(netns_path).transpose()?.unwrap_or_default();
        let container = self.container.clone().or_else(|| variable("CNI_CONTAINERID"));
        let container = container.unwrap_or_else(|| container_of(&netns));
        let ifname = self.ifname.clone().or_else(|| variable("CNI_IFNAME"));
        let ifname = ifname.unwrap_or_else(|| "eth0".to_owned());
        validate(&container, &ifname)?;
        let attachment = Attachment { network: network.to_owned(), container, ifname };
        Ok(Target { attachment, netns })
    }
}

impl Target {
    /// The same, in the namespace that ADD was told if none was given.
    fn or_netns_of(mut self, entry: &Entry) -> Self {
        if self.netns.is_empty() {
            self.netns.clone_from(&entry.netns);
        }
        self
    }

    /// Whether the container has an interface of that name; false where that can't be told, which is
    /// for a plugin to complain about.
    fn has_interface(&self) -> bool {
        let Ok(netns) = Netns::open(Path::new(&self.netns)) else { return false };
        let socket = netns.inside(|| Socket::open(Family::Route));
        let found = socket.ok().and_then(Result::ok).map(|socket| {
            link::index_of(&socket, &self.attachment.ifname).is_ok_and(|index| index.is_some())
        });
        found.unwrap_or(false)
    }
}

/// The absolute path of a namespace, from a path or a name of `ip netns`.
fn netns_path(text: &str) -> Result<String, String> {
    let path = if text.contains('/') || Path::new(text).exists() {
        let home = std::env::current_dir();
        home.map_err(|why| format!("cannot tell the current directory: {why}"))?.join(text)
    } else {
        Path::new(NAMED).join(text)
    };
    // As Go's filepath.Abs does: by the names alone, since the container's ID follows from the path.
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let text = clean.to_str().ok_or_else(|| format!("NETNS: {} is not UTF-8", clean.display()))?;
    Ok(text.to_owned())
}

/// The ID that cnitool gives to the container in this namespace.
fn container_of(netns: &str) -> String {
    let digest = Sha512::digest(netns.as_bytes());
    let mut id = String::from("cnitool-");
    for byte in digest.iter().take(10) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// Whether the namespace at `netns` is no more. Where none is told, or it can't be looked at, it may
/// well be there.
fn has_gone(netns: &str) -> bool {
    let opened = (!netns.is_empty()).then(|| Netns::open(Path::new(netns)));
    matches!(opened, Some(Err(OpenError::Missing | OpenError::NotNetns)))
}

/// `CNI_ARGS` as pairs; `None` if it is not set.
fn cni_args() -> Result<Option<Vec<(String, String)>>, String> {
    let Some(text) = variable("CNI_ARGS") else { return Ok(None) };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() && !value.contains('=') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!("CNI_ARGS: expected KEY=VALUE, got {pair:?}")),
    };
    text.split(';').map(pair).collect::<Result<_, _>>().map(Some)
}

/// `CAP_ARGS`; `None` if it is not set.
fn capability_args() -> Result<Option<Map<String, Value>>, String> {
    let Some(text) = variable("CAP_ARGS") else { return Ok(None) };
    let args = serde_json::from_str(&text);
    args.map(Some).map_err(|why| format!("CAP_ARGS: expected a JSON object: {why}"))
}

/// A kept result in the version that the network has now.
fn result_as(result: &Value, version: Version) -> Result<Value, String> {
    let own = result.get("cniVersion").and_then(Value::as_str);
    if own == Some(version.text()) {
        return Ok(result.clone());
    }
    let converted = summary::read_result(result, version).map(|result| result.to_json(version));
    let text = converted.map_err(|error| format!("what add has returned: {error}"))?;
    serde_json::from_str(&text).map_err(|why| format!("what add has returned: {why}"))
}

/// Calls DEL, and forgets the attachment if all goes well.
fn detach(
    network: &Network,
    target: &Target,
    entry: Option<Entry>,
    args: Option<Vec<(String, String)>>,
    capability_args: Option<Map<String, Value>>,
    report: &mut Report,
) -> Result<(), String> {
    let version = version_of(network)?;
    let (mut prev, mut kept_args, mut kept_capability_args) = (None, Vec::new(), Map::new());
    let mut target = target.clone();
    if let Some(entry) = entry {
        // Without, DEL still does what it can.
        prev = result_as(&entry.result, version).ok().filter(|_| version >= Version::V0_4_0);
        target = target.or_netns_of(&entry);
        (kept_args, kept_capability_args) = (entry.args, entry.capability_args);
    }
    let args = args.unwrap_or(kept_args);
    let capability_args = capability_args.unwrap_or(kept_capability_args);
    let mut run = Run::new(network, &target, &args, &capability_args);
    std::mem::swap(&mut run.report, report);
    let outcome = run.del(prev.as_ref());
    std::mem::swap(&mut run.report, report);
    outcome.and_then(|()| Entry::remove(&target.attachment))
}

/// The plugins of a network, called about one attachment.
struct Run<'a> {
    network: &'a Network,
    target: &'a Target,
    args: String,
    capability_args: &'a Map<String, Value>,
    path: SearchPath,
    report: Report,
}

/// An ADD that has ended half way.
struct Stopped {
    what: String,
    /// What the last plugin that succeeded has returned.
    prev: Option<Value>,
}

impl<'a> Run<'a> {
    fn new(
        network: &'a Network,
        target: &'a Target,
        args: &[(String, String)],
        capability_args: &'a Map<String, Value>,
    ) -> Self {
        let args: Vec<_> = args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (args, path) = (args.join(";"), SearchPath::of_environment());
        Self { network, target, args, capability_args, path, report: Report::default() }
    }

    fn add(&mut self, version: Version) -> Result<Value, Stopped> {
        let mut prev: Option<Value> = None;
        for plugin in &self.network.plugins {
            let outcome = self.call(Command::Add, plugin, prev.as_ref()).and_then(|printed| {
                let what = |why: String| format!("{} has not printed a result: {why}", plugin.name);
                let result: Value =
                    serde_json::from_str(&printed).map_err(|why| what(why.to_string()))?;
                summary::read_result(&result, version).map_err(|error| what(error.to_string()))?;
                Ok(result)
            });
            match outcome {
                Ok(result) => prev = Some(with_version(result, version)),
                Err(what) => return Err(Stopped { what, prev }),
            }
        }
        Ok(prev.unwrap_or_default())
    }

    fn check(&mut self, prev: &Value) -> Result<(), String> {
        let network = self.network;
        network
            .plugins
            .iter()
            .try_for_each(|plugin| self.call(Command::Check, plugin, Some(prev)).map(drop))
    }

    /// Goes on past a plugin that fails: what the others hold can be freed all the same.
    fn del(&mut self, prev: Option<&Value>) -> Result<(), String> {
        let network = self.network;
        let calls = network.plugins.iter().rev();
        let failures: Vec<_> =
            calls.filter_map(|plugin| self.call(Command::Del, plugin, prev).err()).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    fn call(
        &mut self,
        command: Command,
        plugin: &Plugin,
        prev: Option<&Value>,
    ) -> Result<String, String> {
        let Target { attachment, netns } = self.target;
        let call = Call {
            command,
            container: &attachment.container,
            netns,
            ifname: &attachment.ifname,
            args: &self.args,
            path: &self.path,
        };
        let capability_args = Some(self.capability_args);
        let extra = Extra { prev, capability_args, ..Extra::default() };
        self.report.call(&call, self.network, plugin, &extra)
    }
}

/// A result that names its version, as those of 0.1.0 need not.
fn with_version(mut result: Value, version: Version) -> Value {
    if let Value::Object(members) = &mut result {
        members.entry("cniVersion").or_insert_with(|| version.text().into());
    }
    result
}

/// A plugin that has been called, and how it went.
struct Called {
    plugin: String,
    command: Command,
    took: Option<Duration>,
    failure: Option<Failure>,
}

/// What has been done, for people or for programs.
#[derive(Default)]
struct Report {
    network: String,
    calls: Vec<Called>,
    /// More for the document.
    members: Map<String, Value>,
}

impl Report {
    fn call(
        &mut self,
        call: &Call<'_>,
        network: &Network,
        plugin: &Plugin,
        extra: &Extra<'_>,
    ) -> Result<String, String> {
        let answer = call.run(&plugin.name, &network.request(plugin, extra));
        let failure = answer.outcome.as_ref().err().cloned();
        let (plugin, command, took) = (plugin.name.clone(), call.command, answer.took);
        self.calls.push(Called { plugin, command, took, failure });
        answer.outcome.map_err(|failure| failure.to_string())
    }

    fn attachment(&mut self, target: &Target) {
        let Attachment { network, container, ifname } = &target.attachment;
        self.network.clone_from(network);
        for (key, value) in [("container", container), ("ifname", ifname), ("netns", &target.netns)]
        {
            self.members.insert(key.to_owned(), value.clone().into());
        }
    }

    /// Tells the outcome, and returns the exit status.
    fn finish(self, options: &Common, outcome: Result<String, String>) -> Result<i32, String> {
        let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
        if options.json {
            let call = |call: &Called| {
                json!({
                    "plugin": call.plugin, "command": call.command.text(),
                    "ms": call.took.map(milliseconds),
                    "error": call.failure.as_ref().map(Failure::to_json),
                })
            };
            let mut document = self.members;
            document.insert("network".into(), self.network.into());
            document.insert("ok".into(), outcome.is_ok().into());
            document.insert("plugins".into(), self.calls.iter().map(call).collect());
            let (Ok(text) | Err(text)) = &outcome;
            let key = if outcome.is_ok() { "text" } else { "error" };
            document.insert(key.into(), text.clone().into());
            say_json(&document.into());
            return Ok(i32::from(outcome.is_err()));
        }
        if let Ok(text) = &outcome {
            say(text);
        }
        if options.time {
            let width = self.calls.iter().map(|call| call.plugin.len()).max().unwrap_or(0);
            for Called { plugin, command, took, failure } in &self.calls {
                let took = took.map(|took| format!("{:.2} ms", milliseconds(took)));
                let failed = if failure.is_some() { "  FAILED" } else { "" };
                say(format_args!(
                    "{:6} {plugin:width$} {:>11}{failed}",
                    command.text(),
                    took.unwrap_or_default(),
                ));
            }
        }
        outcome.map(|_| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cnitool makes it, for `/var/run/netns/testing` of its documentation.
    #[test]
    fn a_containers_id_follows_from_the_path_as_with_cnitool() {
        assert_eq!(container_of(""), "cnitool-cf83e1357eefb8bdf154");
        assert_eq!(netns_path("/var/run/../run//netns/./x/").unwrap(), "/var/run/netns/x");
        assert_eq!(netns_path("no-such-name").unwrap(), "/var/run/netns/no-such-name");
        assert_eq!(netns_path("/../x").unwrap(), "/x");
    }
}
