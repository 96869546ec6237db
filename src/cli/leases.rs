//! `plumb leases`: what host-local has leased, and to whom.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::ls::attached;
use super::{say, say_json, table};
use crate::cni::conf::is_identifier;
use crate::ipam::host_local::config::DATA_DIR;
use crate::ipam::host_local::store::{Sighting, Store};

/// List host-local's leases, and which of them have no attachment
///
/// A lease is a file in DIR/NETWORK. It has an attachment if a link on this host names its network,
/// container and interface in its alias; of a file that names no interface, as old releases wrote them,
/// network and container. Other plugins than plumb's make links that name nobody: theirs show as leases
/// without attachment. Nothing is locked or changed; `plumb gc` is what frees leases.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb leases
  sudo plumb leases mynet --data-dir /run/cni/networks
  sudo plumb leases --json | jq -r '.leases[] | select(.attached | not) | .address'

Exit codes:
  0  listed, were it nothing
  1  the leases or the kernel's links can't be read
  2  the command line can't be understood")]
pub struct Options {
    /// Only those of this network
    #[arg(value_name = "NETWORK")]
    network: Option<String>,
    /// Where the leases are: ipam.dataDir
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<i32, String> {
    let networks = match &options.network {
        Some(name) if is_identifier(name) => vec![name.clone()],
        Some(name) => return Err(format!("{name:?} is no network's name")),
        None => networks_in(&options.data_dir)?,
    };
    let attached: HashSet<_> = attached()?
        .into_iter()
        .map(|attached| attached.attachment)
        .flat_map(|a| {
            let of_old_releases = (a.network.clone(), a.container.clone(), String::new());
            [of_old_releases, (a.network, a.container, a.ifname)]
        })
        .collect();
    let is_attached = |network: &str, lease: &Sighting| {
        let names = (network.to_owned(), lease.container.clone(), lease.ifname.clone());
        attached.contains(&names)
    };
    let mut leases = Vec::new();
    for network in networks {
        let data_dir = options.data_dir.to_string_lossy();
        let Some(store) = Store::open(&data_dir, &network).map_err(|error| error.msg)? else {
            continue;
        };
        let found = store.look().map_err(|error| error.msg)?;
        leases.extend(found.into_iter().map(|lease| (network.clone(), lease)));
    }
    let now = SystemTime::now();
    let age = |lease: &Sighting| now.duration_since(lease.since).unwrap_or_default();

    if options.json {
        let item = |(network, lease): &(String, Sighting)| {
            let named = |text: &String| (!text.is_empty()).then(|| text.clone());
            json!({
                "network": network, "address": lease.address,
                "container": named(&lease.container), "ifname": named(&lease.ifname),
                "ageSeconds": age(lease).as_secs(), "attached": is_attached(network, lease),
            })
        };
        let leases: Vec<_> = leases.iter().map(item).collect();
        say_json(&json!({"leases": leases}));
        return Ok(0);
    }
    let headings = ["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE", ""];
    let mut rows = vec![headings.map(str::to_owned)];
    for (network, lease) in leases {
        let note = if is_attached(&network, &lease) { "" } else { "no attachment" };
        let age = age_text(age(&lease));
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        rows.push([
            network,
            lease.address.to_string(),
            or_dash(lease.container),
            or_dash(lease.ifname),
            age,
            note.to_owned(),
        ]);
    }
    table::lines(&rows).iter().for_each(say);
    Ok(0)
}

/// Names of the directories in `data_dir` that can be networks'; none if there is no `data_dir`.
///
/// # Errors
/// It can't be listed, for people.
pub fn networks_in(data_dir: &Path) -> Result<Vec<String>, String> {
    let error = |why: io::Error| format!("cannot list {}: {why}", data_dir.display());
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(error(why)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(error)?;
        let name = entry.file_name().into_string().ok().filter(|name| is_identifier(name));
        names.extend(name.filter(|_| entry.path().is_dir()));
    }
    names.sort();
    Ok(names)
}

/// A length of time in its two largest units.
fn age_text(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h 0 min"),
            (180_000, "2 d 2 h"),
        ] {
            assert_eq!(age_text(Duration::from_secs(seconds)), expected);
        }
    }
}
