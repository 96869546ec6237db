//! A node that changes from the reference plugins to plumb's, or back, with containers attached; and one on which
//! both are at work. The reference is Debian's package containernetworking-plugins.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, dual, ipv4, with};

const REFERENCE: &str = "/usr/lib/cni";

/// A call of the reference's plugin that `conf` names, with its own address management.
fn reference<'a>(host: &'a Host, command: &str, conf: &Value, pod: &Pod<'_>) -> Call<'a> {
    let plugin = format!("{REFERENCE}/{}", conf["type"].as_str().unwrap());
    Call::new(host, command, conf).of(pod).plugin(&plugin).env("CNI_PATH", REFERENCE)
}

/// The configuration of `plugin`, which Debian's release knows, too.
fn conf(plugin: &str, ipam: &Value) -> Value {
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": plugin, "ipam": ipam});
    match plugin {
        "bridge" => with(conf, &json!({"bridge": "br0", "isGateway": true, "ipMasq": true})),
        "ptp" => with(conf, &json!({"ipMasq": true})),
        _ => with(conf, &json!({"master": "uplink"})),
    }
}

/// What iptables has for containers, in lines.
fn iptables(host: &Host) -> Vec<String> {
    let rules = host.sh("iptables -t nat -S; ip6tables -t nat -S");
    rules.lines().filter(|line| line.contains("CNI-")).map(str::to_owned).collect()
}

fn links(host: &Host) -> usize {
    host.ip("link show type veth").as_array().unwrap().len()
}

/// Links, leases and packet rules of the reference's containers: DEL removes those of one, whatever else is there.
#[test]
fn del_removes_all_that_the_reference_has_made_for_a_container() {
    for plugin in ["bridge", "ptp"] {
        for ipam in [ipv4(), dual()] {
            let host = Host::new();
            host.sh("iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE");
            let conf = conf(plugin, &ipam);
            let (a, b, own) = (host.pod("a"), host.pod("b"), host.pod("own"));
            // Another network of the same container.
            let elsewhere = json!({"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/16"}]]});
            let keys = json!({"name": "other", "bridge": "br1", "ipam": elsewhere});
            let other = with(conf.clone(), &keys);
            reference(&host, "ADD", &conf, &b).run().ok();
            reference(&host, "ADD", &other, &a).env("CNI_IFNAME", "eth1").run().ok();
            let rules_before = iptables(&host);
            let leases_before = host.leases("net");
            reference(&host, "ADD", &conf, &a).run().ok();
            host.add(&conf, &own).ok();
            assert!(iptables(&host).len() > rules_before.len(), "{:?}", iptables(&host));

            host.del(&conf, &a).ok();
            assert_eq!(iptables(&host), rules_before, "{plugin}");
            assert!(!a.sh("ip -o link").contains("eth0"), "{plugin}: the link is there");
            host.del(&conf, &own).ok();
            assert_eq!(host.leases("net"), leases_before, "{plugin}");
            assert_eq!(links(&host), 2);
            host.del(&conf, &a).ok();

            host.del(&conf, &b).ok();
            Call::new(&host, "DEL", &other).of(&a).env("CNI_IFNAME", "eth1").run().ok();
            assert_eq!(iptables(&host), [] as [&str; 0], "{plugin}");
            assert_eq!((links(&host), host.leases("net").len()), (0, 0), "{plugin}");
            assert!(host.sh("iptables -t nat -S").contains("192.0.2.0/24"), "an administrator's");
        }
    }
}

/// Two interfaces of a container in one network share a chain: it goes with the second.
#[test]
fn the_chain_of_two_interfaces_goes_with_the_last() {
    let host = Host::new();
    let conf = conf("bridge", &dual());
    let pod = host.pod("a");
    for ifname in ["eth0", "eth1"] {
        reference(&host, "ADD", &conf, &pod).env("CNI_IFNAME", ifname).run().ok();
    }
    let of = |address: &str| {
        iptables(&host).iter().filter(|line| line.contains(&format!("-s {address}/"))).count()
    };
    assert_eq!([of("10.1.0.2"), of("10.1.0.3"), of("fd01::2"), of("fd01::3")], [1; 4]);
    host.del(&conf, &pod).ok();
    assert_eq!([of("10.1.0.2"), of("10.1.0.3"), of("fd01::2"), of("fd01::3")], [0, 1, 0, 1]);
    assert!(iptables(&host).iter().any(|line| line.contains("-j MASQUERADE")));
    Call::new(&host, "DEL", &conf).of(&pod).env("CNI_IFNAME", "eth1").run().ok();
    assert_eq!(iptables(&host), [] as [&str; 0]);
}

/// The namespace has gone, and the link with it; of the rules only the lease tells.
#[test]
fn plugins_810_rules_of_the_reference_go_also_without_a_namespace() {
    let host = Host::new();
    let conf = conf("ptp", &dual());
    let pod = host.pod("a");
    reference(&host, "ADD", &conf, &pod).run().ok();
    host.sh("ip netns del a");
    Call::new(&host, "DEL", &conf).of(&pod).env("CNI_NETNS", "").run().ok();
    assert_eq!(iptables(&host), [] as [&str; 0]);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

/// The nftables rules of newer releases than Debian's, made here as pkg/ip/ipmasq_nftables_linux.go of 1.6 makes
/// them: comments begin with 16 digits of two digests each, and are cut to 128 bytes.
#[test]
fn the_references_nftables_rules_go_too() {
    let host = Host::new();
    let long = format!("{}x", "f0123456789abcde".repeat(6));
    let conf = conf("ptp", &ipv4());
    let rule = |address: &str, ifname: &str, id: &str| {
        let comment =
            format!("0123456789abcdef-fedcba9876543210, net: net, if: {ifname}, id: {id}");
        let comment: String = comment.chars().take(128).collect();
        format!(
            "nft 'add rule inet cni_plugins_masquerade masq_checks ip saddr == {address} \
             ip daddr != 10.1.0.0/16 masquerade comment \"{comment}\"'\n"
        )
    };
    host.sh(&format!(
        "nft 'add table inet cni_plugins_masquerade; add chain inet cni_plugins_masquerade masq_checks
         add chain inet cni_plugins_masquerade postrouting {{ type nat hook postrouting priority srcnat; }}
         add rule inet cni_plugins_masquerade postrouting ip daddr 224.0.0.0/4 return
         add rule inet cni_plugins_masquerade postrouting goto masq_checks'\n{}{}{}{}",
        rule("10.1.0.2", "eth0", "a"),
        rule("10.1.0.3", "eth0", "b"),
        rule("10.1.0.4", "eth0", &long),
        rule("10.1.0.5", "eth0", "valid"),
    ));
    let lease = |address: &str, id: &str| {
        host.sh("mkdir -p /var/lib/cni/networks/net");
        host.write(format!("/var/lib/cni/networks/net/{address}"), &format!("{id}\r\neth0"));
    };
    let checks = || -> Vec<String> {
        let rules = host.sh("nft list chain inet cni_plugins_masquerade masq_checks");
        let of = |line: &str| Some(line.split("saddr ").nth(1)?.split(' ').next()?.to_owned());
        rules.lines().filter_map(of).collect()
    };
    for (address, id) in [("10.1.0.2", "a"), ("10.1.0.3", "b"), ("10.1.0.4", &*long)] {
        lease(address, id);
    }
    assert_eq!(checks(), ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"]);
    Call::new(&host, "DEL", &conf).attachment("a", "eth0").env("CNI_NETNS", "").run().ok();
    assert_eq!(checks(), ["10.1.0.3", "10.1.0.4", "10.1.0.5"]);
    Call::new(&host, "DEL", &conf).attachment(&long, "eth0").env("CNI_NETNS", "").run().ok();
    assert_eq!(checks(), ["10.1.0.3", "10.1.0.5"]);
    host.gc(&with(conf, &json!({"cniVersion": "1.1.0"})), &[("valid", "eth0")]).ok();
    assert_eq!(checks(), ["10.1.0.5"]);
}

/// GC frees what the reference's containers had that are no more, and keeps what those have that are valid.
#[test]
fn gc_collects_what_the_reference_has_left() {
    for plugin in ["bridge", "ptp"] {
        let host = Host::new();
        let conf = conf(plugin, &dual());
        let (a, b) = (host.pod("a"), host.pod("b"));
        reference(&host, "ADD", &conf, &b).run().ok();
        let (rules, leases) = (iptables(&host), host.leases("net"));
        reference(&host, "ADD", &conf, &a).run().ok();
        host.sh("ip netns del a");
        let newer = with(conf.clone(), &json!({"cniVersion": "1.1.0"}));
        host.gc(&newer, &[("a", "eth0"), ("b", "eth0")]).ok();
        assert_eq!(host.leases("net").len(), 4, "both are valid");
        assert!(iptables(&host).len() > rules.len());
        host.gc(&newer, &[("b", "eth0")]).ok();
        assert_eq!((iptables(&host), host.leases("net")), (rules, leases), "{plugin}");
    }
}

/// The way back: the reference's DEL takes links and leases of what plumb has attached. With `ipMasq` it then complains
/// that its own chain does not exist, once. Set elements stay, since the reference knows nothing of them; a later
/// GC removes them, and an ADD that gets the address replaces them.
#[test]
fn the_references_del_takes_links_and_leases_of_plumbs() {
    for plugin in ["bridge", "ptp"] {
        for ipam in [ipv4(), dual()] {
            let host = Host::new();
            let conf = conf(plugin, &ipam);
            let (a, b) = (host.pod("a"), host.pod("b"));
            host.add(&conf, &a).ok();
            host.add(&conf, &b).ok();
            reference_del(&host, &conf, &a);
            assert_eq!(links(&host), 1, "{plugin}");
            assert!(!a.sh("ip -o link").contains("eth0"));
            let families = host.leases("net").len();
            let elements = host.element_comments();
            assert_eq!(elements.len(), 2 * families, "one of each family for each");
            reference_del(&host, &conf, &b);
            assert_eq!((links(&host), host.leases("net").len()), (0, 0), "{plugin}");
            host.gc(&with(conf, &json!({"cniVersion": "1.1.0"})), &[]).ok();
            assert_eq!(host.element_comments(), [] as [&str; 0], "{plugin}");
        }
    }
}

/// DEL by the reference of what plumb has masqueraded: the first complains, and has done all but that.
fn reference_del(host: &Host, conf: &Value, pod: &Pod<'_>) {
    let first = reference(host, "DEL", conf, pod).run();
    first.fails(999, &["CNI-", "does not exist"]);
    reference(host, "DEL", conf, pod).run().ok();
}

/// macvlan has no packet rules: link and lease, in both directions.
#[test]
fn macvlan_goes_in_both_directions() {
    let host = Host::new();
    host.sh(
        "ip link add uplink type veth peer name far; ip link set uplink up; ip link set far up",
    );
    let conf = conf("macvlan", &ipv4());
    let (a, b) = (host.pod("a"), host.pod("b"));
    let first = reference(&host, "ADD", &conf, &a).run().ok();
    let second = host.add(&conf, &b).ok();
    assert_ne!(first["ips"][0]["address"], second["ips"][0]["address"]);
    host.del(&conf, &a).ok();
    assert_eq!(host.leases("net").len(), 1);
    assert!(!a.sh("ip -o link").contains("eth0"));
    reference(&host, "DEL", &conf, &b).run().ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    assert!(!b.sh("ip -o link").contains("eth0"));
}

/// Both at work at once on one bridge and one lease directory: each address is given once, and whoever deletes
/// frees it.
#[test]
fn both_at_once_double_no_address() {
    let host = Host::new();
    let mut conf = conf("bridge", &dual());
    // Of iptables a reference plugin runs dozens.
    conf["ipMasq"] = json!(false);
    let pods = host.pods(16);
    let attached: Vec<Value> = std::thread::scope(|scope| {
        let add = |(number, pod): (usize, &Pod<'_>)| {
            let call = if number % 2 == 0 {
                Call::new(&host, "ADD", &conf).of(pod)
            } else {
                reference(&host, "ADD", &conf, pod)
            };
            call.run().ok()
        };
        let handles: Vec<_> =
            pods.iter().enumerate().map(|pod| scope.spawn(move || add(pod))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    let addresses: Vec<_> = attached
        .iter()
        .flat_map(|result| result["ips"].as_array().unwrap())
        .map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect();
    let distinct: HashSet<_> = addresses.iter().collect();
    assert_eq!((addresses.len(), distinct.len()), (32, 32), "{addresses:?}");
    assert_eq!(host.leases("net").len(), 32);
    std::thread::scope(|scope| {
        for (number, pod) in pods.iter().enumerate() {
            let (host, conf) = (&host, &conf);
            scope.spawn(move || {
                // The other one of the two than attached it, in turn.
                let call = match number % 4 {
                    0 | 1 => Call::new(host, "DEL", conf).of(pod),
                    _ => reference(host, "DEL", conf, pod),
                };
                call.run().ok();
            });
        }
    });
    assert_eq!((links(&host), host.leases("net").len()), (0, 0));
}
