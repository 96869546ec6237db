//! Subnets that networks share with each other, or with the host.

use super::finding::{Finding, Id};
use super::networks::{Networks, Plugin};
use crate::net::Cidr;
use crate::nl::link::Link;
use crate::nl::route::Route;
use crate::nl::{Family, Socket, addr, link, route};

pub fn look(networks: &Networks) -> Vec<Finding> {
    let mut findings = between_networks(networks);
    match Host::read() {
        Ok(host) => findings.extend(with_host(networks, &host)),
        Err(why) => findings.push(Finding::unseen("routes and addresses", why)),
    }
    findings
}

fn between_networks(networks: &Networks) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, one) in networks.plugins.iter().enumerate() {
        for other in networks.plugins.iter().skip(at + 1) {
            if one.network == other.network || shares_segment(one, other) {
                continue;
            }
            let clash = one
                .subnets()
                .into_iter()
                .find_map(|a| other.subnets().into_iter().find(|b| a.overlaps(*b)).map(|b| (a, b)));
            if let Some((a, b)) = clash {
                findings.push(Finding::error(
                    Id::SubnetsClash,
                    format_args!("networks {} and {}", one.network, other.network),
                    format_args!("their subnets {a} and {b} overlap: both hand out the same addresses, and the host can reach one of them"),
                    "give one of them another subnet",
                ));
            }
        }
    }
    findings
}

/// Networks on one segment may share its subnet as long as they hand out different addresses of it; that
/// includes those on links of the host, since two of these can be on one wire.
fn shares_segment(one: &Plugin, other: &Plugin) -> bool {
    let is_on_wire =
        |plugin: &Plugin| matches!(&*plugin.kind, "macvlan" | "ipvlan" | "vlan" | "host-device");
    let same_bridge = one.bridge().is_some() && one.bridge() == other.bridge();
    let ranges = |plugin: &Plugin| -> Vec<_> {
        let sets =
            plugin.pools().and_then(Result::ok).map(|config| config.sets).unwrap_or_default();
        let ranges = sets.iter().flat_map(|set| set.rounds(None));
        ranges.map(|round| (round.range.start, round.range.end)).collect()
    };
    let others = ranges(other);
    let apart = ranges(one).iter().all(|(start, end)| {
        others.iter().all(|(s, e)| s.is_ipv4() != start.is_ipv4() || e < start || end < s)
    });
    (same_bridge || is_on_wire(one) && is_on_wire(other)) && apart
}

/// What the host has of its own.
struct Host {
    links: Vec<Link>,
    routes: Vec<Route>,
    addresses: Vec<addr::Address>,
}

impl Host {
    fn read() -> Result<Self, String> {
        let mut socket = Socket::open(Family::Route).map_err(|error| error.to_string())?;
        let links = link::list(&mut socket).map_err(|error| error.to_string())?;
        let routes = route::list(&mut socket).map_err(|error| error.to_string())?;
        let mut addresses = Vec::new();
        // The hosts' ends of containers' links are many, and have what a network gives them.
        for link in links.iter().filter(|link| !link.is_veth()) {
            addresses
                .extend(addr::of_link(&mut socket, link.index).map_err(|error| error.to_string())?);
        }
        Ok(Self { links, routes, addresses })
    }

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

/// Only where the host routes for a network: of others the subnet may well be one of the host's.
fn with_host(networks: &Networks, host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    for plugin in networks.plugins.iter().filter(|plugin| plugin.is_routed()) {
        // Its own bridge with its VLANs, and veths: the reference's bear no label.
        let is_own = |index: u32| {
            host.link(index).is_none_or(|link| {
                let of_bridge = plugin.bridge().is_some_and(|bridge| {
                    link.name == bridge
                        || link
                            .name
                            .strip_prefix(&*bridge)
                            .is_some_and(|rest| rest.starts_with('.'))
                });
                of_bridge || link.is_veth()
            })
        };
        for subnet in plugin.subnets() {
            findings.extend(clash(plugin, subnet, host, is_own));
        }
    }
    findings
}

fn clash(
    plugin: &Plugin,
    subnet: Cidr,
    host: &Host,
    is_own: impl Fn(u32) -> bool,
) -> Option<Finding> {
    let subject = format!("network {}", plugin.network);
    let name = |index: u32| host.link(index).map_or("?", |link| link.name.as_str());
    let address =
        host.addresses.iter().find(|a| !is_own(a.link) && subnet.contains(a.cidr.address));
    if let Some(address) = address {
        return Some(Finding::error(
            Id::SubnetOnHost,
            subject,
            format_args!(
                "its subnet {subnet} has the host's own address {} on {}",
                address.cidr,
                name(address.link)
            ),
            "give the network another subnet",
        ));
    }
    let covers = |route: &&Route| {
        route.destination.prefix > 0 && route.destination.overlaps(subnet) && !is_own(route.link)
    };
    let route = host.routes.iter().find(covers)?;
    let through = format!("{} through {}", route.destination, name(route.link));
    Some(if route.destination.prefix >= subnet.prefix {
        Finding::error(
            Id::SubnetOnHost,
            subject,
            format_args!(
                "the host has a route {through}, within its subnet {subnet}: containers there are not reached"
            ),
            "give the network another subnet, or remove the route",
        )
    } else {
        Finding::warning(
            Id::SubnetOnHost,
            subject,
            format_args!(
                "its subnet {subnet} hides a part of what the host's route {through} leads to"
            ),
            "give the network another subnet if somebody is to be reached there",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::networks;
    use super::*;

    fn network(name: &str, kind: &str, range: &str) -> String {
        let ipam = format!(r#"{{"type":"host-local",{range}}}"#);
        format!(
            r#"{{"name":"{name}","type":"{kind}","bridge":"{name}","isGateway":true,"ipam":{ipam}}}"#
        )
    }

    #[test]
    fn subnets_clash_between_bridges_and_on_one_wire_if_their_ranges_do() {
        let clashes = |kind: &str, one: &str, other: &str| {
            let networks = networks::of(&[&network("a", kind, one), &network("b", kind, other)]);
            between_networks(&networks).len()
        };
        let (whole, low, high) = (
            r#""subnet":"10.1.0.0/24""#,
            r#""subnet":"10.1.0.0/24","rangeEnd":"10.1.0.99""#,
            r#""subnet":"10.1.0.0/24","rangeStart":"10.1.0.100""#,
        );
        assert_eq!(clashes("bridge", whole, r#""subnet":"10.1.0.0/16""#), 1);
        assert_eq!(clashes("bridge", low, high), 1, "two bridges, one subnet");
        assert_eq!(clashes("bridge", whole, r#""subnet":"10.2.0.0/24""#), 0);
        assert_eq!(clashes("macvlan", low, high), 0);
        assert_eq!(clashes("macvlan", whole, high), 1);
    }
}
