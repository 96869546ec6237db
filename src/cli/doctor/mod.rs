//! `plumb doctor`: looks at a node and says what would go wrong. It reads, and changes nothing.
//!
//! An area a file: each reads its facts, and makes findings of them. [`networks`] is what is configured,
//! which decides how bad most of the rest is.

mod configuration;
mod finding;
mod firewall;
mod kernel;
mod leases;
mod leftovers;
mod networks;
mod places;
mod plugin_files;
mod routing;
mod subnets;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::network::CONFIGURATIONS;
use super::{say, say_json};
use finding::{Finding, Severity};
use networks::Networks;

/// Look at this node and say what would go wrong
///
/// Looks at the kernel, the network configurations and the plugins that they name, forwarding and packet
/// filters, leases and where they are, subnets, and what detached containers have left; and says what to do.
/// Changes nothing and runs no other program: what only a try can tell is tried in a network namespace that
/// is gone at once, for which the kernel may load a module that it has.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb doctor
  sudo plumb doctor --conf-dir /etc/cni/net.d
  sudo plumb doctor --json | jq -r '.findings[] | select(.severity == \"error\") | .id'

Each finding of --json has `id`, `severity` (error, warning, note), `subject`, `finding` and `advice`; the
ids stay as they are and are explained in docs/doctor.md. `ok` is false if one is an error.

Environment:
  NETCONFPATH      directory of networks, instead of /etc/cni/net.d
  CNI_PATH         where the runtime looks for plugins, instead of /opt/cni/bin and /usr/lib/cni

Exit codes:
  0  nothing found that will fail
  1  an error was found
  2  the command line can't be understood")]
pub struct Options {
    /// Where the runtime's networks are configured
    #[arg(long, value_name = "DIR", env = "NETCONFPATH", default_value = CONFIGURATIONS)]
    conf_dir: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Looks at one area.
type Look = fn(&Networks) -> Vec<Finding>;

/// What is looked at, in the order in which it is told.
const AREAS: [(&str, Look); 9] = [
    ("network configurations", configuration::look),
    ("plugins", plugin_files::look),
    ("kernel", kernel::look),
    ("forwarding and settings", routing::look),
    ("packet filters", firewall::look),
    ("subnets", subnets::look),
    ("leases", leases::look),
    ("leftovers", leftovers::look),
    ("lock, results and DHCP daemon", places::look),
];

pub fn run(options: &Options) -> Result<i32, String> {
    let networks = Networks::read(&options.conf_dir)?;
    let found: Vec<_> = AREAS.iter().map(|(name, look)| (*name, look(&networks))).collect();
    let clean: Vec<_> =
        found.iter().filter(|(_, found)| found.is_empty()).map(|(name, _)| *name).collect();
    let mut findings: Vec<_> = found.iter().flat_map(|(_, found)| found).collect();
    findings.sort_by_key(|finding| finding.severity);
    let fails = findings.iter().any(|finding| finding.severity == Severity::Error);
    if options.json {
        let list: Vec<_> = findings.iter().map(|finding| finding.to_json()).collect();
        let looked: Vec<_> = AREAS.iter().map(|(name, _)| *name).collect();
        say_json(&json!({"ok": !fails, "findings": list, "lookedAt": looked, "clean": clean}));
        return Ok(i32::from(fails));
    }
    for severity in Severity::ALL {
        for finding in findings.iter().filter(|finding| finding.severity == severity) {
            let Finding { id, subject, finding, advice, .. } = finding;
            say(format_args!("{:7}  {subject}: {finding}  [{}]", severity.text(), id.text()));
            say(format_args!("         → {advice}"));
        }
    }
    if !clean.is_empty() {
        say(format_args!("ok       {}", clean.join(", ")));
    }
    Ok(i32::from(fails))
}
