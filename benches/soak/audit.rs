//! Compares what the kernel and the lease directories hold with what must be there, through other tools' eyes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::PoisonError;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::figures::Figures;
use crate::pods::{LEASES, Network, Node, State, addresses, name_of};

/// How many pods have to reach their gateways.
const SAMPLE: usize = 5;

/// Has garbage collected while nobody works, and returns all differences.
pub fn run(node: &Node, figures: &Figures) -> Vec<String> {
    // What is not known of is not in the list.
    for pod in &node.pods {
        let mut state = pod.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Unknown {
            *state = State::Forgotten;
        }
    }
    node.collect_garbage(figures);
    let mut faults = node.faults();
    match compare(node) {
        Ok(found) => faults.extend(found),
        Err(why) => faults.push(format!("no audit: {why:#}")),
    }
    faults
}

fn compare(node: &Node) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let (links, elements) = (links()?, elements()?);
    let mut expected_links = BTreeSet::new();
    let mut expected_elements = BTreeMap::new();
    let mut expected_leases: BTreeMap<&str, BTreeMap<IpAddr, String>> = BTreeMap::new();
    let mut sample = Vec::new();
    for (pod, state) in node.pods.iter().enumerate() {
        let State::Attached(result) = &*state.lock().unwrap_or_else(PoisonError::into_inner) else {
            continue;
        };
        let addresses = addresses(result);
        let network = node.network_of(pod);
        let label = format!("plumb:{}/{}/eth0", network.name, name_of(pod));
        expected_elements.insert(label.clone(), addresses.len());
        expected_links.insert(label);
        let leases = expected_leases.entry(network.name).or_default();
        for address in addresses {
            if let Some(other) = leases.insert(address, name_of(pod)) {
                faults.push(format!("{address} is {}'s and {other}'s", name_of(pod)));
            }
        }
        sample.push((pod, &network.gateways));
    }
    for held in &node.foreign {
        for (container, address) in &*held.lock().unwrap_or_else(PoisonError::into_inner) {
            let leases = expected_leases.entry(node.networks[0].name).or_default();
            if let Some(other) = leases.insert(*address, container.clone()) {
                faults.push(format!("{address} is {container}'s and {other}'s"));
            }
        }
    }
    faults.extend(
        links.difference(&expected_links).map(|label| format!("a link has leaked: {label}")),
    );
    faults
        .extend(expected_links.difference(&links).map(|label| format!("a link is lost: {label}")));
    for label in elements.keys().chain(expected_elements.keys()).collect::<BTreeSet<_>>() {
        let (found, expected) = (elements.get(label), expected_elements.get(label));
        if found != expected {
            let count = |number: Option<&usize>| number.copied().unwrap_or(0);
            faults.push(format!("{label} has {} elements, not {}", count(found), count(expected)));
        }
    }
    for network in &node.networks {
        let expected = expected_leases.remove(network.name).unwrap_or_default();
        let found = leases(network)?;
        for address in found.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
            if found.get(address) != expected.get(address) {
                faults.push(format!(
                    "{}: {address} is leased to {:?}, not {:?}",
                    network.name,
                    found.get(address),
                    expected.get(address)
                ));
            }
        }
    }
    let step = (sample.len() / SAMPLE).max(1);
    let asked = sample.into_iter().step_by(step);
    for (pod, gateway) in asked.flat_map(|(pod, both)| both.iter().map(move |one| (pod, one))) {
        let name = name_of(pod);
        let reached = Command::new("ip")
            .args(["netns", "exec", &name, "ping", "-q", "-c", "1", "-W", "5", gateway])
            .output()?;
        if !reached.status.success() {
            faults.push(format!("{name} does not reach {gateway}"));
        }
    }
    Ok(faults)
}

fn json_of(program: &str, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Aliases of the host's links.
fn links() -> Result<BTreeSet<String>> {
    let links = json_of("ip", &["-j", "link", "show", "type", "veth"])?;
    let links = links.as_array().context("links")?;
    // One without an alias is of a call that has been killed just behind its birth.
    let alias = |link: &Value| {
        link["ifalias"]
            .as_str()
            .map_or_else(|| format!("{} without alias", link["ifname"]), str::to_owned)
    };
    Ok(links.iter().map(alias).collect())
}

/// How many elements bear which comment.
fn elements() -> Result<BTreeMap<String, usize>> {
    let rules = json_of("nft", &["-j", "list", "ruleset"])?;
    let mut elements = BTreeMap::new();
    let objects = rules["nftables"].as_array().into_iter().flatten();
    for element in objects.flat_map(|object| object["set"]["elem"].as_array().into_iter().flatten())
    {
        let comment = element["elem"]["comment"].as_str().unwrap_or("no comment");
        *elements.entry(comment.to_owned()).or_default() += 1;
    }
    Ok(elements)
}

/// Who holds which address.
fn leases(network: &Network) -> Result<BTreeMap<IpAddr, String>> {
    let mut leases = BTreeMap::new();
    let directory = format!("{LEASES}/{}", network.name);
    let Ok(entries) = fs::read_dir(&directory) else { return Ok(leases) };
    for entry in entries {
        let entry = entry?;
        if let Ok(address) = entry.file_name().to_string_lossy().parse() {
            let text = fs::read_to_string(entry.path())?;
            leases.insert(address, text.lines().next().unwrap_or_default().to_owned());
        }
    }
    Ok(leases)
}

/// What is still there when nothing is attached.
pub fn emptiness() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    faults.extend(links()?.into_iter().map(|label| format!("left in the end: {label}")));
    faults.extend(
        elements()?.into_keys().map(|label| format!("left in the end: an element of {label}")),
    );
    Ok(faults)
}
