//! The files of the configuration directory, and whether they agree with each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::finding::{Finding, Id, some};
use super::networks::{Networks, Plugin};
use crate::cni::Version;
use crate::plugins;

pub fn look(networks: &Networks) -> Vec<Finding> {
    let mut findings = faulty_files(networks);
    findings.extend(names_twice(networks));
    findings.extend(several_files(networks));
    findings.extend(shared_bridges(networks));
    findings.extend(networks.plugins.iter().filter_map(refused));
    findings
}

fn faulty_files(networks: &Networks) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, network) in &networks.files {
        let Err(what) = network else { continue };
        let subject = file.display();
        let what = what.strip_prefix(&format!("{subject}: ")).unwrap_or(what);
        findings.push(match unknown_version(file) {
            Some(version) => Finding::error(
                Id::ConfigVersion,
                subject,
                format_args!("cniVersion {version:?} is not supported"),
                format_args!("set cniVersion to {} or older", Version::NEWEST),
            ),
            None if fs::read(file).is_err() => Finding::error(
                Id::ConfigUnreadable,
                subject,
                what,
                "make it a readable file, or remove it: some runtimes stop at it",
            ),
            None => Finding::error(
                Id::ConfigInvalid,
                subject,
                what,
                "correct it, or move it out of the directory: some runtimes stop at it",
            ),
        });
    }
    findings
}

/// The version that a file is of, if none of ours.
fn unknown_version(file: &Path) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let version = document.get("cniVersion")?.as_str()?;
    Version::parse(version).is_none().then(|| version.to_owned())
}

fn names_twice(networks: &Networks) -> Vec<Finding> {
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (file, network) in &networks.files {
        if let Ok(network) = network {
            files.entry(&network.name).or_default().push(file.display().to_string());
        }
    }
    let twice = files.into_iter().filter(|(_, files)| files.len() > 1);
    let finding = |(name, files): (&str, Vec<String>)| {
        Finding::error(
            Id::ConfigNameTwice,
            format_args!("network {name}"),
            format_args!(
                "is configured by {}: they share leases, and who names it gets one of them",
                files.join(" and ")
            ),
            "give each network a name of its own, or remove the file that is not meant",
        )
    };
    twice.map(finding).collect()
}

fn several_files(networks: &Networks) -> Option<Finding> {
    let subject = networks.directory.display();
    let names: Vec<_> = networks
        .files
        .iter()
        .map(|(file, _)| file.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    match names.as_slice() {
        [] => Some(Finding::note(
            Id::ConfigNone,
            subject,
            "no network is configured here, so what would need something is not known",
            "point --conf-dir at the runtime's configurations if they are elsewhere",
        )),
        [_] => None,
        [first, others @ ..] => Some(Finding::note(
            Id::ConfigSeveral,
            subject,
            format_args!(
                "a runtime that takes only one network, as containerd and CRI-O do for Kubernetes, takes \
                 {first} and none of {}",
                some(others)
            ),
            format_args!(
                "see that {first} is the one that is meant; the order is that of the names"
            ),
        )),
    }
}

/// Networks that share a bridge without agreeing on what it is like.
fn shared_bridges(networks: &Networks) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bridges: Vec<_> = networks.plugins.iter().filter_map(|p| Some((p.bridge()?, p))).collect();
    for (at, (bridge, one)) in bridges.iter().enumerate() {
        for (_, other) in bridges.iter().skip(at + 1).filter(|(name, _)| name == bridge) {
            if let Some(difference) = difference(one, other) {
                findings.push(Finding::warning(
                    Id::BridgeShared,
                    format_args!("bridge {bridge}"),
                    format_args!(
                        "networks {} and {} share it and differ in {difference}",
                        one.network, other.network
                    ),
                    "give one of them another bridge, or both the same settings",
                ));
            }
        }
    }
    findings
}

fn difference(one: &Plugin, other: &Plugin) -> Option<String> {
    if one.network == other.network {
        return None;
    }
    let subnets = |plugin: &Plugin| {
        plugin.subnets().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let mtu =
        |plugin: &Plugin| plugin.conf.root().number("mtu", 0..=65536).ok().flatten().unwrap_or(0);
    let mut differences = Vec::new();
    // Who has a gateway on it puts an address on the bridge, which is refused beside another's.
    if one.is_routed() && other.is_routed() && subnets(one) != subnets(other) {
        differences.push(format!("subnets ({}; {})", subnets(one), subnets(other)));
    }
    if mtu(one) != mtu(other) {
        differences.push(format!("mtu ({}; {})", mtu(one), mtu(other)));
    }
    if one.filters_vlans() != other.filters_vlans() {
        differences.push("VLAN filtering (vlan, vlanTrunk)".to_owned());
    }
    (!differences.is_empty()).then(|| differences.join(", "))
}

/// What the plugin itself, or its address management, would say to its configuration.
fn refused(plugin: &Plugin) -> Option<Finding> {
    let ours = plugins::find(&plugin.kind)?;
    let asked = plugin.status_request().and_then(|request| (ours.status)(&request));
    let error = asked.err().or_else(|| plugin.pools()?.err())?;
    Some(Finding::error(
        Id::PluginRefuses,
        format_args!("network {}, {}", plugin.network, plugin.kind),
        error.msg,
        format_args!(
            "ADD will fail until this is put right, or {} is changed",
            plugin.file.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::networks;
    use super::*;

    fn bridge(name: &str, keys: &str) -> String {
        format!(r#"{{"name":"{name}","cniVersion":"1.0.0","type":"bridge","bridge":"b0"{keys}}}"#)
    }

    fn gateway(name: &str, subnet: &str) -> String {
        bridge(
            name,
            &format!(r#","isGateway":true,"ipam":{{"type":"host-local","subnet":"{subnet}"}}"#),
        )
    }

    #[test]
    fn a_bridge_is_shared_in_peace_or_not() {
        let found = |one: &str, other: &str| shared_bridges(&networks::of(&[one, other]));
        let same = (gateway("a", "10.1.0.0/16"), gateway("b", "10.1.0.0/16"));
        assert_eq!(found(&same.0, &same.1), []);
        for (one, other, word) in [
            (gateway("a", "10.1.0.0/16"), gateway("b", "10.2.0.0/16"), "10.2.0.0/16"),
            (bridge("a", r#","mtu":1400"#), bridge("b", ""), "mtu (1400; 0)"),
            (bridge("a", r#","vlan":5"#), bridge("b", ""), "VLAN filtering"),
        ] {
            let findings = found(&one, &other);
            assert_eq!(findings.len(), 1, "{one} {other}");
            assert!(findings[0].finding.contains(word), "{findings:?}");
        }
    }

    #[test]
    fn a_runtime_takes_the_first_of_several() {
        let one = several_files(&networks::of(&[&bridge("a", "")]));
        assert_eq!(one, None);
        let two = several_files(&networks::of(&[&bridge("a", ""), &bridge("b", "")])).unwrap();
        assert!(two.finding.contains("takes 0.conflist and none of 1.conflist"), "{two:?}");
        assert_eq!(several_files(&networks::of(&[])).unwrap().id, Id::ConfigNone);
    }
}
