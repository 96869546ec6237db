//! What the kernel can do, tried in a network namespace that is gone at once.

use std::fmt::Display;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::finding::{Finding, Id};
use super::networks::{Networks, Plugin};
use crate::net::{Cidr, Mac};
use crate::nl::link::{self, NewBridge, Target};
use crate::nl::{Family, Socket, nft};
use crate::plugins::{masquerade, spoof_check};
use crate::sys::tun;

/// The oldest supported kernel, and what it is the oldest for.
const OLDEST: (u32, u32) = (5, 3);
const OLDEST_FOR_VLANS: (u32, u32) = (5, 6);
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Something that a kernel may lack.
struct Feature {
    /// What it is.
    name: &'static str,
    /// What needs it.
    needed_by: &'static str,
    /// How to get it.
    option: &'static str,
    /// Whether a configured plugin needs it.
    uses: fn(&Plugin) -> bool,
    /// Tries it, in a network namespace where nothing else is.
    probe: fn() -> Result<(), String>,
}

const FEATURES: [Feature; 10] = [
    Feature {
        name: "veth links",
        needed_by: "bridge, ptp",
        option: "CONFIG_VETH, module veth",
        uses: |plugin| matches!(&*plugin.kind, "bridge" | "ptp"),
        probe: || kind("veth"),
    },
    Feature {
        name: "bridges",
        needed_by: "bridge",
        option: "CONFIG_BRIDGE, module bridge",
        uses: |plugin| plugin.kind == "bridge",
        probe: || kind("bridge"),
    },
    Feature {
        name: "VLAN filtering of bridges",
        needed_by: "bridge with vlan or vlanTrunk",
        option: "CONFIG_BRIDGE_VLAN_FILTERING",
        uses: Plugin::filters_vlans,
        probe: vlan_filtering,
    },
    Feature {
        name: "macvlan links",
        needed_by: "macvlan",
        option: "CONFIG_MACVLAN, module macvlan",
        uses: |plugin| plugin.kind == "macvlan",
        probe: || kind("macvlan"),
    },
    Feature {
        name: "ipvlan links",
        needed_by: "ipvlan",
        option: "CONFIG_IPVLAN, module ipvlan",
        uses: |plugin| plugin.kind == "ipvlan",
        probe: || kind("ipvlan"),
    },
    Feature {
        name: "VLAN links",
        needed_by: "vlan, bridge with vlan and isGateway",
        option: "CONFIG_VLAN_8021Q, module 8021q",
        uses: |plugin| plugin.kind == "vlan" || plugin.filters_vlans() && plugin.is_routed(),
        probe: || kind("vlan"),
    },
    Feature {
        name: "dummy links",
        needed_by: "dummy",
        option: "CONFIG_DUMMY, module dummy",
        uses: |plugin| plugin.kind == "dummy",
        probe: || kind("dummy"),
    },
    Feature {
        name: "taps",
        needed_by: "tap",
        option: "CONFIG_TUN, module tun",
        uses: |plugin| plugin.kind == "tap",
        probe: || tun::Tun::open().map(drop).map_err(|why| format!("{}: {why}", tun::DEVICE)),
    },
    Feature {
        name: "masquerading by nf_tables",
        needed_by: "bridge and ptp with ipMasq",
        option: "CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ",
        uses: |plugin| matches!(&*plugin.kind, "bridge" | "ptp") && plugin.flag("ipMasq"),
        probe: masquerading,
    },
    Feature {
        name: "nf_tables of bridges",
        needed_by: "bridge with macspoofchk",
        option: "CONFIG_NF_TABLES_BRIDGE",
        uses: |plugin| plugin.kind == "bridge" && plugin.flag("macspoofchk"),
        probe: spoof_check,
    },
];

pub fn look(networks: &Networks) -> Vec<Finding> {
    let release = std::fs::read_to_string(RELEASE).unwrap_or_default();
    let mut findings: Vec<_> = old(networks, release.trim()).into_iter().collect();
    match probe() {
        Ok(outcomes) => {
            for (feature, outcome) in FEATURES.iter().zip(outcomes) {
                findings.extend(outcome.err().map(|why| lacks(networks, feature, &why)));
            }
        }
        Err(why) => findings.push(Finding::note(
            Id::KernelUnknown,
            "kernel",
            format_args!("can't try what it can do, as no network namespace can be made: {why}"),
            "run plumb doctor with CAP_SYS_ADMIN",
        )),
    }
    findings
}

fn old(networks: &Networks, release: &str) -> Option<Finding> {
    let mut numbers = release.split(['.', '-']).map(|text| text.parse().ok());
    let version: (u32, u32) = (numbers.next()??, numbers.next()??);
    let (subject, advice) =
        (format!("Linux {release}"), "use a newer kernel; docs/kernel.md says what for");
    if version < OLDEST {
        let (major, minor) = OLDEST;
        let finding = format!("it is older than {major}.{minor}, the oldest that is supported");
        return Some(Finding::warning(Id::KernelOld, subject, finding, advice));
    }
    let users = networks.with(Plugin::filters_vlans).filter(|_| version < OLDEST_FOR_VLANS)?;
    let finding =
        format!("it is older than 5.6, which VLANs of bridge ports need, of network {users}");
    Some(Finding::error(Id::KernelOld, subject, finding, advice))
}

fn lacks(networks: &Networks, feature: &Feature, why: &str) -> Finding {
    let Feature { name, needed_by, option, .. } = feature;
    let advice = format!("use a kernel with it: {option}");
    match networks.with(feature.uses) {
        Some(users) => Finding::error(
            Id::KernelFeature,
            "kernel",
            format_args!("it has no {name}, which network {users} needs: {why}"),
            advice,
        ),
        None => Finding::note(
            Id::KernelFeature,
            "kernel",
            format_args!("it has no {name}, for {needed_by}, which no network uses: {why}"),
            format_args!("nothing, unless such a network is to come: {advice}"),
        ),
    }
}

/// What becomes of each of [`FEATURES`]. The namespace ends with the thread.
fn probe() -> Result<Vec<Result<(), String>>, Errno> {
    let trial = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(FEATURES.iter().map(|feature| (feature.probe)()).collect())
    });
    trial.join().unwrap_or(Err(Errno::EIO))
}

fn kind(kind: &'static str) -> Result<(), String> {
    link::probe(&mut route_socket()?, &[kind]).map_err(|error| error.reason())
}

fn vlan_filtering() -> Result<(), String> {
    const NAME: &str = "plumb-trial";
    let mut socket = route_socket()?;
    let bridge = NewBridge {
        name: NAME,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: None,
        multicast_snooping: true,
        vlan_filtering: true,
    };
    socket.execute(&[&bridge]).map_err(|error| error.reason())?;
    match link::get(&mut socket, Target::Name(NAME)) {
        Ok(Some(link)) if link.vlan_filtering => Ok(()),
        Ok(_) => Err("vlan_filtering has no effect".into()),
        Err(error) => Err(error.reason()),
    }
}

/// As the first ADD of a network with ipMasq does it.
fn masquerading() -> Result<(), String> {
    let mut rules = nft::open().map_err(text)?;
    let address = Cidr { address: [192, 0, 2, 1].into(), prefix: 24 };
    masquerade::add(&mut rules, "plumb doctor", &[address]).map_err(text)
}

fn spoof_check() -> Result<(), String> {
    let mut rules = nft::open().map_err(text)?;
    spoof_check::add(&mut rules, "plumb doctor", "trial", Mac([2, 0, 0, 0, 0, 1])).map_err(text)
}

fn route_socket() -> Result<Socket, String> {
    Socket::open(Family::Route).map_err(text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Whether the kernel has IPv6.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::networks;
    use super::*;

    #[test]
    fn an_old_kernel_is_told_by_its_release() {
        let vlans = networks::of(&[r#"{"name":"v","type":"bridge","vlan":5}"#]);
        let severity = |release: &str| old(&vlans, release).map(|finding| finding.severity);
        assert_eq!(severity("4.19.0-28-amd64"), Some(Severity::Warning));
        assert_eq!(severity("5.4.0"), Some(Severity::Error));
        assert_eq!(severity("5.6-rc1"), None);
        assert_eq!(severity("6.18.4"), None);
        assert_eq!(severity("?"), None);
        assert_eq!(old(&networks::of(&[]), "5.4.0"), None);
    }

    #[test]
    fn what_is_lacking_is_an_error_to_who_needs_it() {
        let dummy = FEATURES.iter().find(|feature| feature.name == "dummy links").unwrap();
        let uses = networks::of(&[r#"{"name":"d","type":"dummy"}"#]);
        let found = lacks(&uses, dummy, "EOPNOTSUPP");
        assert_eq!(found.severity, Severity::Error);
        assert!(found.finding.contains("network d needs"), "{found:?}");
        assert_eq!(lacks(&networks::of(&[]), dummy, "EOPNOTSUPP").severity, Severity::Note);
    }
}
