//! What belongs to no container any more: links, leases, elements of packet rules.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Id, some};
use super::leases::leases;
use super::networks::Networks;
use crate::cli::cache::Entry;
use crate::cli::driver::has_gone;
use crate::cli::ls::{self, Attached};
use crate::cni::Attachment;
use crate::ipam::host_local::store::Sighting;
use crate::nl::nft::{self, set, set::Set};
use crate::nl::{Family, Socket, nsid};
use crate::plugins::{masquerade, spoof_check};

/// For so long an ADD may be at work that has leased an address and made no link yet.
const YOUNG: Duration = Duration::from_secs(60);

pub fn look(networks: &Networks) -> Vec<Finding> {
    let attached = match ls::attached() {
        Ok(attached) => attached,
        Err(why) => return vec![Finding::unseen("links", why)],
    };
    let results = Results::read(networks, &attached);
    let mut findings = match Peers::read() {
        Ok(peers) => links(&attached, &peers, &results),
        Err(why) => vec![Finding::unseen("network namespaces", why)],
    };
    for plugin in &networks.plugins {
        let Some(Ok(config)) = plugin.pools() else { continue };
        let leases = leases(&config.data_dir, &plugin.network);
        let own: Vec<_> =
            attached.iter().filter(|a| a.attachment.network == plugin.network).collect();
        findings.extend(links_without_lease(&plugin.network, &own, &leases));
        // Of others nothing shows on the host.
        if matches!(&*plugin.kind, "bridge" | "ptp") {
            findings.extend(leases_without_link(&plugin.network, &own, &leases, &results));
        }
    }
    match element_labels() {
        Ok(labels) => findings.extend(elements_without_link(&attached, &labels)),
        Err(why) => findings.push(Finding::unseen("packet rules of plumb", why)),
    }
    findings
}

/// What the runtime keeps of its attachments, and whether their namespaces have gone.
struct Results(BTreeMap<String, bool>);

impl Results {
    fn read(networks: &Networks, attached: &[Attached]) -> Self {
        let labelled = attached.iter().map(|attached| attached.attachment.network.as_str());
        let names: BTreeSet<_> = networks.names().into_iter().chain(labelled).collect();
        let entries = names.into_iter().flat_map(|name| Entry::all_of(name).unwrap_or_default());
        Self(entries.map(|entry| (entry.attachment.label(), has_gone(&entry.netns))).collect())
    }

    /// Whether the namespace of an attachment has gone; `None` if nothing is kept of it.
    fn has_gone(&self, attachment: &Attachment) -> Option<bool> {
        self.0.get(&attachment.label()).copied()
    }

    /// The same where the interface may not be known.
    fn has_container_gone(&self, network: &str, lease: &Sighting) -> Option<bool> {
        let attachment = Attachment {
            network: network.to_owned(),
            container: lease.container.clone(),
            ifname: lease.ifname.clone(),
        };
        let label = attachment.label();
        let mut of_container = self.0.iter().filter(|(other, _)| {
            if lease.ifname.is_empty() { other.starts_with(&label) } else { **other == label }
        });
        of_container.next().map(|(_, gone)| *gone)
    }
}

/// The numbers that our namespace has for those that a process is in, or that are mounted somewhere.
struct Peers(HashSet<i32>);

impl Peers {
    fn read() -> Result<Self, String> {
        let mut socket = Socket::open(Family::Route).map_err(|error| error.to_string())?;
        let mut numbers = HashSet::new();
        let mut seen = HashSet::new();
        for file in namespaces().filter_map(|path| File::open(path).ok()) {
            let Ok(metadata) = file.metadata() else { continue };
            if seen.insert((metadata.dev(), metadata.ino())) {
                // What can't be asked about is not known to our namespace, and so no peer of ours.
                numbers.extend(nsid::of(&mut socket, file.as_fd()).ok().flatten());
            }
        }
        Ok(Self(numbers))
    }
}

fn namespaces() -> impl Iterator<Item = String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts
        .lines()
        .filter(|line| line.contains(" - nsfs "))
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.bytes().all(|b| b.is_ascii_digit()).then(|| format!("/proc/{name}/ns/net"))
    });
    mounted.collect::<Vec<_>>().into_iter().chain(processes)
}

fn links(attached: &[Attached], peers: &Peers, results: &Results) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Attached { attachment, link, .. } in attached {
        let Attachment { network, container, ifname } = attachment;
        let why = match (link.is_veth(), link.peer_netns) {
            _ if results.has_gone(attachment) == Some(true) => {
                "certainly: the namespace that its container was attached with has gone"
            }
            (true, None) => "certainly: its other end is on the host, too",
            (true, Some(number)) if !peers.0.contains(&number) => {
                "probably: its other end is in a namespace where no process is to be seen, and that is mounted nowhere"
            }
            (false, _) if link.alias.as_deref().is_some_and(|alias| alias.contains(" was ")) => {
                "certainly: it is a device that has come back from its container"
            }
            _ => continue,
        };
        findings.push(Finding::warning(
            Id::LeftoverLink,
            format_args!("link {}", link.name),
            format_args!(
                "it was left by container {container}, {ifname} of network {network}, {why}"
            ),
            format_args!(
                "plumb del {network} --container {container} --ifname {ifname}, or the runtime's GC"
            ),
        ));
    }
    findings
}

fn links_without_lease(network: &str, own: &[&Attached], leases: &[Sighting]) -> Option<Finding> {
    let holds = |a: &Attachment| {
        leases.iter().any(|lease| {
            lease.container == a.container && (lease.ifname.is_empty() || lease.ifname == a.ifname)
        })
    };
    let without: Vec<_> = own
        .iter()
        .filter(|attached| !holds(&attached.attachment))
        .map(|attached| format!("{}/{}", attached.attachment.container, attached.attachment.ifname))
        .collect();
    (!without.is_empty()).then(|| {
        Finding::warning(
            Id::LinkWithoutLease,
            format_args!("network {network}"),
            format_args!(
                "attached, but no address is leased: {}; another can get the same one",
                some(&without)
            ),
            "start these containers anew, or see who removes lease files",
        )
    })
}

fn leases_without_link(
    network: &str,
    own: &[&Attached],
    leases: &[Sighting],
    results: &Results,
) -> Option<Finding> {
    let has_link = |lease: &Sighting| {
        own.iter().any(|Attached { attachment: a, .. }| {
            a.container == lease.container && (lease.ifname.is_empty() || lease.ifname == a.ifname)
        })
    };
    let is_old = |lease: &Sighting| {
        SystemTime::now().duration_since(lease.since).is_ok_and(|age| age > YOUNG)
    };
    let left: Vec<_> = leases
        .iter()
        .filter(|lease| !lease.container.is_empty() && is_old(lease) && !has_link(lease))
        // Of another plugin's making, and alive.
        .filter(|lease| results.has_container_gone(network, lease) != Some(false))
        .collect();
    if left.is_empty() {
        return None;
    }
    let is_certain = left.iter().all(|l| results.has_container_gone(network, l) == Some(true));
    let certainty = if is_certain {
        "certainly: their namespaces have gone"
    } else {
        "probably: unless another plugin than plumb's has attached them"
    };
    let texts: Vec<_> = left.iter().map(|l| format!("{} of {}", l.address, l.container)).collect();
    Some(Finding::warning(
        Id::LeaseWithoutLink,
        format_args!("network {network}"),
        format_args!(
            "leases were left by containers that have gone ({}), {certainty}",
            some(&texts)
        ),
        format_args!(
            "plumb leases {network} lists them, plumb gc {network} frees them (--keep what lives)"
        ),
    ))
}

/// The labels of all elements of our sets.
fn element_labels() -> Result<BTreeSet<String>, String> {
    let Some(mut rules) = nft::open_if_supported().map_err(|error| error.to_string())? else {
        return Ok(BTreeSet::new());
    };
    let mut labels = BTreeSet::new();
    for table in [masquerade::TABLE, spoof_check::TABLE] {
        let names = match set::names(&mut rules, table) {
            Err(error) if nft::is_absence(&error) => continue,
            other => other.map_err(|error| error.to_string())?,
        };
        for name in names {
            let found = set::elements(&mut rules, Set { table, name: &name });
            let elements = found.map_err(|error| error.to_string())?;
            labels.extend(elements.into_iter().map(|element| element.comment));
        }
    }
    Ok(labels)
}

fn elements_without_link(attached: &[Attached], labels: &BTreeSet<String>) -> Option<Finding> {
    let linked: HashSet<_> = attached.iter().map(|attached| &attached.attachment).collect();
    let owners: BTreeMap<_, _> = labels
        .iter()
        .filter_map(|label| Attachment::from_label(label))
        .map(|attachment| (attachment.label(), attachment))
        .collect();
    let left: Vec<_> = owners.into_values().filter(|owner| !linked.contains(owner)).collect();
    let networks: BTreeSet<_> = left.iter().map(|owner| owner.network.as_str()).collect();
    let names: Vec<_> = left.iter().map(Attachment::label).collect();
    (!left.is_empty()).then(|| {
        Finding::warning(
            Id::ElementWithoutLink,
            "packet rules of plumb",
            format_args!("there are elements for attachments that have no link here: {}; certainly left, as ADD makes the link first and DEL removes it last", some(&names)),
            format_args!("plumb gc of network {} removes them", networks.into_iter().collect::<Vec<_>>().join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(container: &str, age: u64) -> Sighting {
        Sighting {
            address: [10, 1, 0, 2].into(),
            container: container.into(),
            ifname: "eth0".into(),
            since: SystemTime::now() - Duration::from_secs(age),
        }
    }

    #[test]
    fn a_lease_is_left_over_unless_it_is_young_or_its_container_lives() {
        let results = |gone: &[(&str, bool)]| {
            let entry = |(name, gone): &(&str, bool)| (format!("plumb:n/{name}/eth0"), *gone);
            Results(gone.iter().map(entry).collect())
        };
        let found = |age, known: &[(&str, bool)]| {
            leases_without_link("n", &[], &[lease("c", age)], &results(known)).map(|f| f.finding)
        };
        assert_eq!(found(10, &[]), None);
        assert_eq!(found(100, &[("c", false)]), None);
        assert!(found(100, &[]).unwrap().contains("probably"));
        assert!(found(100, &[("c", true)]).unwrap().contains("certainly"));
    }

    #[test]
    fn elements_are_left_over_if_no_link_bears_their_label() {
        let labels = ["plumb:n/c/eth0 02:00:00:00:00:01", "plumb:n/c/eth0", "foreign", ""];
        let labels = labels.map(str::to_owned).into();
        let found = elements_without_link(&[], &labels).unwrap();
        assert!(found.finding.contains("here: plumb:n/c/eth0;"), "{found:?}");
        assert_eq!(elements_without_link(&[], &BTreeSet::new()), None);
    }
}
