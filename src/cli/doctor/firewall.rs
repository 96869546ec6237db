//! Packet filters of others: what drops what is forwarded, and what the reference plugins have left.

use super::finding::{Finding, Id, Severity, some};
use super::networks::{Networks, Plugin};
use crate::nl::nft::{self, chain, chain::Chain};
use crate::sys::iptables::{Family, Table};

/// `NF_INET_FORWARD`; of the families below it is the same.
const FORWARD: u32 = 2;
/// Families whose chains see what is forwarded, `NFPROTO_…`.
const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];
/// Chains of the reference plugins begin with this; their table of nf_tables.
const REFERENCE_CHAIN: &str = "CNI-";
const REFERENCE_TABLE: &str = "cni_plugins_masquerade";

pub fn look(networks: &Networks) -> Vec<Finding> {
    let mut findings = match chains() {
        Ok(chains) => {
            let mut findings = dropping_chains(networks, &chains);
            findings.extend(reference_rules(&chains));
            findings
        }
        Err(why) => vec![Finding::unseen("nf_tables", why)],
    };
    for family in [Family::Ipv4, Family::Ipv6] {
        match family.tables() {
            Ok(tables) => {
                for name in tables {
                    findings.extend(legacy_table(networks, family, &name, family.read(&name)));
                }
            }
            Err(why) => {
                findings.push(Finding::unseen(format_args!("legacy {}", family.program()), why));
            }
        }
    }
    findings
}

fn chains() -> Result<Vec<Chain>, String> {
    let Some(mut socket) = nft::open_if_supported().map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    match chain::list(&mut socket) {
        Err(error) if nft::is_absence(&error) => Ok(Vec::new()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// Each base chain decides for itself: what one accepts another still drops.
fn dropping_chains(networks: &Networks, chains: &[Chain]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for chain in chains.iter().filter(|chain| chain.hook == Some(FORWARD) && chain.drops) {
        let Some((_, family)) = FAMILIES.iter().find(|(number, _)| *number == chain.family) else {
            continue;
        };
        let place = format!("table {family} {}, chain {}", chain.table, chain.name);
        let needs = |plugin: &Plugin| {
            plugin.is_routed()
                && (chain.family != 10 && plugin.has_family(true)
                    || chain.family != 2 && plugin.has_family(false))
        };
        let accept = format!(
            "accept the networks' subnets there, as in nft add rule {family} {} {} ip saddr SUBNET accept, \
             and the same with daddr",
            chain.table, chain.name
        );
        findings.push(dropped(networks, needs, &place, chain.uses == 0, &accept));
    }
    findings
}

fn dropped(
    networks: &Networks,
    needs: impl Fn(&Plugin) -> bool,
    place: &str,
    has_no_rules: bool,
    accept: &str,
) -> Finding {
    let Some(users) = networks.with(needs) else {
        let finding = "the policy for what is forwarded is drop; no configured network needs that";
        return Finding::note(Id::ForwardDrop, place, finding, "nothing");
    };
    let (severity, what) = if has_no_rules {
        (Severity::Error, "and there is no rule: containers reach nobody beyond the host")
    } else {
        (
            Severity::Warning,
            "and containers reach nobody beyond the host unless a rule accepts that",
        )
    };
    let finding = format!("the policy for what is forwarded is drop, {what}, in network {users}");
    Finding::of(severity, Id::ForwardDrop, place, finding, accept)
}

/// Whose they are can't be told by their names: those of a container that lives look alike.
fn reference_rules(chains: &[Chain]) -> Option<Finding> {
    let is_theirs =
        |chain: &&Chain| chain.name.starts_with(REFERENCE_CHAIN) || chain.table == REFERENCE_TABLE;
    let theirs: Vec<_> = chains
        .iter()
        .filter(is_theirs)
        .map(|chain| format!("{}/{}", chain.table, chain.name))
        .collect();
    (!theirs.is_empty()).then(|| {
        Finding::note(
            Id::ReferenceRules,
            "nf_tables",
            format_args!(
                "the reference plugins have made chains ({}), of containers that live or have gone",
                some(&theirs)
            ),
            "drain the node and delete them, or restart it, once no container of theirs is left",
        )
    })
}

fn legacy_table(
    networks: &Networks,
    family: Family,
    name: &str,
    table: Result<Table, nix::errno::Errno>,
) -> Vec<Finding> {
    let program = format!("{}-legacy", family.program());
    let subject = format!("{program}, table {name}");
    let table = match table {
        Ok(table) => table,
        Err(why) => return vec![Finding::unseen(subject, why.desc())],
    };
    let mut findings = Vec::new();
    if name == "filter" && table.drops_forwarded {
        let is_ipv4 = family == Family::Ipv4;
        let needs = |plugin: &Plugin| plugin.is_routed() && plugin.has_family(is_ipv4);
        let accept = format!("{program} -A FORWARD -s SUBNET -j ACCEPT, and the same with -d");
        // The policies of three chains, and the table's end.
        findings.push(dropped(networks, needs, &subject, table.rules <= 3, &accept));
    }
    let theirs: Vec<_> =
        table.chains.iter().filter(|name| name.starts_with(REFERENCE_CHAIN)).cloned().collect();
    if theirs.is_empty() {
        findings.push(Finding::note(
            Id::LegacyIptables,
            subject,
            format_args!("it is in use ({} chains of its own); plumb's rules are in nf_tables, and both are asked", table.chains.len()),
            "nothing, as long as it is known that there are two firewalls",
        ));
    } else {
        findings.push(Finding::warning(
            Id::LegacyCniChains,
            subject,
            format_args!("the reference plugins have made chains ({}), of containers that live or have gone; plumb's DEL can't remove them", some(&theirs)),
            format_args!("drain the node and restart it, or remove them with {program} once no container of theirs is left"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::networks;
    use super::*;

    fn forward(family: u8, uses: u32) -> Chain {
        Chain {
            family,
            table: "filter".into(),
            name: "FORWARD".into(),
            hook: Some(2),
            drops: true,
            uses,
        }
    }

    fn routed() -> Networks {
        let ipam = r#"{"type":"host-local","subnet":"10.1.0.0/16"}"#;
        networks::of(&[&format!(r#"{{"name":"n","type":"ptp","ipam":{ipam}}}"#)])
    }

    #[test]
    fn a_policy_of_drop_is_as_bad_as_what_it_drops() {
        let severity = |networks: &Networks, chain: Chain| {
            dropping_chains(networks, &[chain]).first().map(|finding| finding.severity)
        };
        let none = networks::of(&[]);
        assert_eq!(severity(&routed(), forward(1, 0)), Some(Severity::Error));
        assert_eq!(severity(&routed(), forward(2, 5)), Some(Severity::Warning));
        assert_eq!(severity(&routed(), forward(10, 0)), Some(Severity::Note), "the other family");
        assert_eq!(severity(&none, forward(1, 0)), Some(Severity::Note));
        assert_eq!(severity(&routed(), forward(7, 0)), None, "a bridge's forward hook");
        let accepting = Chain { drops: false, ..forward(1, 0) };
        assert_eq!(severity(&routed(), accepting), None);
    }

    #[test]
    fn legacy_tables_are_told_of_with_what_can_be_read() {
        let ids = |table| -> Vec<_> {
            legacy_table(&routed(), Family::Ipv4, "filter", table).iter().map(|f| f.id).collect()
        };
        let table = Table { drops_forwarded: false, chains: Vec::new(), rules: 3 };
        assert_eq!(ids(Ok(table.clone())), [Id::LegacyIptables]);
        let dropping = Table { drops_forwarded: true, ..table.clone() };
        assert_eq!(ids(Ok(dropping)), [Id::ForwardDrop, Id::LegacyIptables]);
        let theirs = Table { chains: vec!["CNI-01".into()], ..table };
        assert_eq!(ids(Ok(theirs)), [Id::LegacyCniChains]);
        assert_eq!(ids(Err(nix::errno::Errno::EPERM)), [Id::NotLookedAt]);
    }
}
