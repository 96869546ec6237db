//! Settings of the host that keep packets of containers from getting anywhere.

use std::collections::BTreeSet;

use super::finding::{Finding, Id};
use super::kernel::has_ipv6;
use super::networks::{Networks, Plugin};
use crate::cli::ls;
use crate::nl::{Family, Socket, link, route};
use crate::sys::sysctl;

/// From how many hundredths of its size on the table of connections is nearly full.
const NEARLY_FULL: u64 = 90;

pub fn look(networks: &Networks) -> Vec<Finding> {
    let attached: BTreeSet<_> =
        ls::attached().unwrap_or_default().into_iter().map(|a| a.attachment.network).collect();
    let mut findings = Vec::new();
    for (is_ipv4, setting) in [(true, "ipv4/ip_forward"), (false, "ipv6/conf/all/forwarding")] {
        let value = sysctl::read(setting).unwrap_or_default();
        findings.extend(forwarding(networks, &attached, is_ipv4, setting, &value));
    }
    if has_ipv6() {
        for which in ["all", "default"] {
            let name = format!("ipv6/conf/{which}/disable_ipv6");
            let value = sysctl::read(&name).unwrap_or_default();
            findings.extend(ipv6_disabled(networks, &name, &value));
        }
    } else {
        findings.extend(ipv6_disabled(networks, "ipv6", "1"));
    }
    for family in ["iptables", "ip6tables"] {
        let name = format!("bridge/bridge-nf-call-{family}");
        let value = sysctl::read(&name).unwrap_or_default();
        findings.extend(bridge_nf_call(networks, &name, &value));
    }
    findings.extend(conntrack(
        &sysctl::read("netfilter/nf_conntrack_count").unwrap_or_default(),
        &sysctl::read("netfilter/nf_conntrack_max").unwrap_or_default(),
    ));
    match uplinks() {
        Ok(uplinks) => findings.extend(rp_filter(networks, &uplinks)),
        Err(why) => findings.push(Finding::unseen("routes", why)),
    }
    findings
}

/// ADD switches it on where it is needed; so it only matters to what is attached already.
fn forwarding(
    networks: &Networks,
    attached: &BTreeSet<String>,
    is_ipv4: bool,
    setting: &str,
    value: &str,
) -> Option<Finding> {
    let needs = |plugin: &Plugin| plugin.is_routed() && plugin.has_family(is_ipv4);
    let advice =
        format!("sysctl -w net.{}=1, and see what switches it off", setting.replace('/', "."));
    let cut_off = networks.with(|plugin| needs(plugin) && attached.contains(&plugin.network));
    if value != "0" {
        return None;
    }
    if let Some(users) = cut_off {
        let finding =
            format!("it is 0, so containers of network {users} reach nobody beyond the host");
        return Some(Finding::error(
            Id::ForwardingOff,
            format_args!("sysctl {setting}"),
            finding,
            advice,
        ));
    }
    let users = networks.with(needs)?;
    Some(Finding::note(
        Id::ForwardingOff,
        format_args!("sysctl {setting}"),
        format_args!("it is 0, which network {users} needs to be 1"),
        "nothing: the first ADD sets it",
    ))
}

fn ipv6_disabled(networks: &Networks, name: &str, value: &str) -> Option<Finding> {
    let users = networks.with(|plugin| plugin.is_routed() && plugin.has_family(false))?;
    (value == "1").then(|| {
        Finding::error(
            Id::Ipv6Disabled,
            format_args!("sysctl {name}"),
            format_args!("IPv6 is off on the host, on which network {users} has an IPv6 gateway"),
            format_args!(
                "sysctl -w net.{}=0, or leave IPv6 out of the network",
                name.replace('/', ".")
            ),
        )
    })
}

fn bridge_nf_call(networks: &Networks, name: &str, value: &str) -> Option<Finding> {
    let users = networks.with(|plugin| plugin.kind == "bridge")?;
    (value == "1").then(|| {
        Finding::note(
            Id::BridgeNfCall,
            format_args!("sysctl {name}"),
            format_args!("what containers on one bridge send each other is filtered as if it were forwarded, in network {users}"),
            format_args!("sysctl -w net.{}=0, unless kube-proxy or the like needs it", name.replace('/', ".")),
        )
    })
}

fn conntrack(count: &str, max: &str) -> Option<Finding> {
    let (count, max): (u64, u64) = (count.parse().ok()?, max.parse().ok()?);
    (max > 0 && count.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL)).then(|| {
        Finding::warning(
            Id::ConntrackFull,
            "connection tracking",
            format_args!(
                "{count} of {max} connections: when the table is full new ones are dropped"
            ),
            "sysctl -w net.netfilter.nf_conntrack_max to a larger number, or see who opens so many",
        )
    })
}

/// Names of the links that IPv4 leaves by, each with its own setting for the reverse path.
fn uplinks() -> Result<Vec<(String, String)>, String> {
    let mut socket = Socket::open(Family::Route).map_err(|error| error.to_string())?;
    let routes = route::list(&mut socket).map_err(|error| error.to_string())?;
    let indexes: BTreeSet<_> = routes
        .iter()
        .filter(|route| route.destination.prefix == 0 && route.destination.address.is_ipv4())
        .map(|route| route.link)
        .collect();
    let links = link::list(&mut socket).map_err(|error| error.to_string())?;
    let all = sysctl::read("ipv4/conf/all/rp_filter").unwrap_or_default();
    let effective = |name: &str| {
        // The kernel takes the larger of the two numbers.
        let own = sysctl::read(&format!("ipv4/conf/{name}/rp_filter")).unwrap_or_default();
        own.max(all.clone())
    };
    let uplinks = links.into_iter().filter(|link| indexes.contains(&link.index));
    Ok(uplinks.map(|link| (effective(&link.name), link.name)).map(|(v, name)| (name, v)).collect())
}

/// Strict checks drop what comes back by another link than it would leave by, which only a host with
/// several ways out sees.
fn rp_filter(networks: &Networks, uplinks: &[(String, String)]) -> Option<Finding> {
    let users = networks.with(|plugin| plugin.is_routed() && plugin.has_family(true))?;
    let strict: Vec<_> =
        uplinks.iter().filter(|(_, v)| v == "1").map(|(name, _)| name.as_str()).collect();
    (uplinks.len() > 1 && !strict.is_empty()).then(|| {
        Finding::warning(
            Id::RpFilter,
            format_args!("sysctl rp_filter of {}", strict.join(", ")),
            format_args!("there are {} ways out, and answers to containers of network {users} are dropped that come back by another one", uplinks.len()),
            "set rp_filter to 2 (loose) for these links and for all",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::networks;
    use super::*;

    fn routed(subnet: &str) -> Networks {
        let ipam = format!(r#"{{"type":"host-local","subnet":"{subnet}"}}"#);
        networks::of(&[&format!(r#"{{"name":"n","type":"ptp","ipam":{ipam}}}"#)])
    }

    #[test]
    fn forwarding_matters_by_family_and_by_what_is_attached() {
        let severity = |subnet: &str, attached: &[&str], value: &str| {
            let attached = attached.iter().map(ToString::to_string).collect();
            forwarding(&routed(subnet), &attached, true, "ipv4/ip_forward", value)
                .map(|f| f.severity)
        };
        assert_eq!(severity("10.1.0.0/16", &["n"], "0"), Some(Severity::Error));
        assert_eq!(severity("10.1.0.0/16", &[], "0"), Some(Severity::Note));
        assert_eq!(severity("10.1.0.0/16", &["n"], "1"), None);
        assert_eq!(severity("fd00::/64", &["n"], "0"), None);
    }

    #[test]
    fn strict_reverse_path_filters_hurt_where_there_are_two_ways_out() {
        let link = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let network = routed("10.1.0.0/16");
        assert_eq!(rp_filter(&network, &[link("a", "1")]), None);
        assert_eq!(rp_filter(&network, &[link("a", "2"), link("b", "0")]), None);
        let found = rp_filter(&network, &[link("a", "1"), link("b", "2")]).unwrap();
        assert_eq!(found.subject, "sysctl rp_filter of a");
    }

    #[test]
    fn a_table_of_connections_is_nearly_full_at_nine_tenths() {
        assert_eq!(conntrack("899", "1000"), None);
        assert_eq!(conntrack("900", "1000").unwrap().id, Id::ConntrackFull);
        assert_eq!(conntrack("", ""), None);
        assert_eq!(conntrack("0", "0"), None);
    }
}
