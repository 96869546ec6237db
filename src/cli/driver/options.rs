//! What the command line and the environment say: validated, and nothing done yet.

use clap::Args;

use super::target::{Target, container_of, netns_path};
use crate::cli::cache::Arguments;
use crate::cli::call::variable;
use crate::cli::network::{Network, configurations};
use crate::cni::Attachment;
use crate::cni::conf::{interface_name_fault, is_identifier};

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

Exit codes:
  0  attached
  1  something failed; standard error says what, or with --json `error`
  2  the command line can't be understood")]
pub struct AddOptions {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub container: ContainerOptions,
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
    pub common: Common,
    #[command(flatten)]
    pub container: ContainerOptions,
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
    pub common: Common,
    #[command(flatten)]
    pub container: ContainerOptions,
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
    pub common: Common,
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
/// of them, as podman does. Leases alone say nothing of the kind: those of containers that nobody named
/// are released.
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
    pub common: Common,
    /// Taken for cnitool's sake, and not used
    #[arg(value_name = "NETNS", hide = true)]
    netns: Option<String>,
    /// Keep this attachment; may be repeated
    #[arg(long, value_name = "CONTAINER/IFNAME", value_parser = parse_keep)]
    pub keep: Vec<(String, String)>,
    /// Delete also what has links on this host and is named by nobody
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Common {
    /// A network's name, or the path of a configuration (.conf) or list (.conflist)
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// Show how long each plugin took
    #[arg(long)]
    pub time: bool,
}

#[derive(Args, Debug)]
pub struct ContainerOptions {
    /// The container's network namespace: a path, or a name of `ip netns`
    #[arg(value_name = "NETNS", required_unless_present = "container")]
    netns: Option<String>,
    /// The container's ID; by default it follows from the path of NETNS, as with cnitool
    #[arg(long, short, value_name = "ID", env = "CNI_CONTAINERID")]
    container: Option<String>,
    /// The container's interface [default: eth0]
    #[arg(long, short, value_name = "NAME", env = "CNI_IFNAME")]
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

impl Common {
    pub fn network(&self) -> Result<Network, String> {
        Network::find(&self.network, &configurations())
    }
}

impl ContainerOptions {
    pub fn target(&self, network: &str) -> Result<Target, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let netns = self.netns.as_deref().map(netns_path).transpose()?.unwrap_or_default();
        let container = match given(&self.container) {
            Some(container) => container,
            None if netns.is_empty() => return Err("expected NETNS or --container".into()),
            None => container_of(&netns),
        };
        let ifname = given(&self.ifname).unwrap_or_else(|| "eth0".to_owned());
        validate(&container, &ifname)?;
        let attachment = Attachment { network: network.to_owned(), container, ifname };
        Ok(Target { attachment, netns })
    }
}

/// What the environment tells plugins beside their configuration; for what it does not say, `otherwise`.
pub fn arguments(otherwise: Arguments) -> Result<Arguments, String> {
    Ok(Arguments {
        pairs: match variable("CNI_ARGS") {
            Some(text) => pairs(&text)?,
            None => otherwise.pairs,
        },
        capabilities: match variable("CAP_ARGS") {
            Some(text) => serde_json::from_str(&text)
                .map_err(|why| format!("CAP_ARGS: expected a JSON object: {why}"))?,
            None => otherwise.capabilities,
        },
    })
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() && !value.contains('=') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(format!("CNI_ARGS: expected KEY=VALUE, got {pair:?}")),
    };
    text.split(';').map(pair).collect()
}
