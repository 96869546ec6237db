use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::host::Host;

/// What could be left behind on a host, a line each: links, addresses, routes, packet rules and set
/// elements, leases.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub(super) fn of(host: &Host) -> Self {
        let mut lines = BTreeSet::new();
        for link in host.ip("addr show").as_array().unwrap() {
            let name = link["ifname"].as_str().unwrap();
            lines.insert(format!("link {name}"));
            let settings = ["mtu", "master", "ifalias"].map(|key| link[key].to_string()).join(" ");
            lines.insert(format!("settings {settings} of {name}"));
            for address in link["addr_info"].as_array().into_iter().flatten() {
                // A bridge's own link-local address comes and goes with its carrier.
                if address["scope"] != "link" {
                    let (local, prefix) = (&address["local"], &address["prefixlen"]);
                    lines.insert(format!("address {local}/{prefix} of {name}"));
                }
            }
        }
        for family in ["-4", "-6"] {
            for route in host.ip(&format!("{family} route show table all")).as_array().unwrap() {
                // A host that forwards answers to the anycast address of each IPv6 subnet. The route to an
                // IPv6 address of its own the kernel makes of the address, a little later.
                let of_address =
                    route["type"] == "anycast" || family == "-6" && route["type"] == "local";
                if !of_address && !route["dst"].as_str().is_some_and(|d| d.starts_with("fe80:")) {
                    let (dst, dev) = (&route["dst"], &route["dev"]);
                    lines.insert(format!("route {dst} dev {dev} type {}", route["type"]));
                }
            }
        }
        for object in host.nft("list ruleset") {
            let object = object.as_object().unwrap();
            for (kind, value) in object.iter().filter(|(kind, _)| *kind != "metainfo") {
                let mut value = value.clone();
                let elements = value["elem"].take();
                value.as_object_mut().unwrap().remove("handle");
                value.as_object_mut().unwrap().remove("elem");
                lines.insert(format!("nft {kind} {value}"));
                let of = value["name"].clone();
                for element in elements.as_array().into_iter().flatten() {
                    let element: &Value = element;
                    lines.insert(format!("nft element {element} of {of}"));
                }
            }
        }
        let files = host.sh("find /var/lib/cni -type f 2>/dev/null || true");
        for file in files.lines() {
            let name = file.rsplit('/').next().unwrap();
            // What serves all leases of a network alike.
            if !matches!(name, "lock" | "plumb.index") && !name.starts_with("last_reserved_ip.") {
                lines.insert(format!("file {file}"));
            }
        }
        Self(lines)
    }

    /// What is here and not in `before`.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    /// Asserts that all is as it was `before`, but for tables, sets, chains and rules that all
    /// attachments share: those stay once they are made.
    #[track_caller]
    pub fn assert_same_but_for_rules(&self, before: &Self) {
        let is_structure =
            |line: &String| line.starts_with("nft ") && !line.starts_with("nft element ");
        let left: Vec<_> = self.since(before).into_iter().filter(|l| !is_structure(l)).collect();
        let lost = before.since(self);
        let report = format!("left behind:\n{}\nlost:\n{}", left.join("\n"), lost.join("\n"));
        assert!(left.is_empty() && lost.is_empty(), "{report}");
    }

    /// Asserts that nothing of one attachment is left: what has come since `before` belongs to all
    /// attachments together, which is `bridge` with its addresses and routes, and the rules of
    /// `table … plumb` that are made once; elements and leases do not.
    #[track_caller]
    pub fn assert_nothing_but_shared(&self, before: &Self, bridge: &str) {
        let quoted = format!("{bridge:?}");
        let shared = |line: &str| {
            line == format!("link {bridge}")
                || line.starts_with("settings ") && line.ends_with(&format!(" of {bridge}"))
                || line.starts_with("address ") && line.ends_with(&format!(" of {bridge}"))
                || line.starts_with("route ") && line.contains(&quoted)
                || line.starts_with("nft ") && !line.starts_with("nft element ")
        };
        let left: Vec<_> = self.since(before).into_iter().filter(|line| !shared(line)).collect();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
