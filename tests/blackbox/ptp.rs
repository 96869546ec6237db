//! Plugin ptp: a veth pair of its own for each container, and the host as its router.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, VERSIONS, dual, ipv4, with};
use crate::real_input::{outside, peer_seen_by};

const REFERENCE: &str = "/usr/lib/cni/ptp";

fn conf(keys: &Value) -> Value {
    with(json!({"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipam": dual()}), keys)
}

/// Addresses of static, with their gateways.
fn fixed(ips: &[(&str, Option<&str>)]) -> Value {
    let item =
        |(address, gateway): &(&str, Option<&str>)| json!({"address": address, "gateway": gateway});
    json!({"type": "static", "addresses": ips.iter().map(item).collect::<Vec<_>>()})
}

fn reference<'a>(host: &'a Host, command: &str, conf: &Value, pod: &Pod<'_>) -> Call<'a> {
    let call = Call::new(host, command, conf).of(pod).plugin(REFERENCE);
    call.env("CNI_PATH", "/usr/lib/cni")
}

/// Waits until the host is this gateway, too: the kernel makes the route to an IPv6 address of its own a
/// little later than the address.
#[track_caller]
fn settled(pod: &Pod<'_>, gateway: &str) {
    pod.must_reach(gateway);
}

/// Name of the host's end that a result tells.
fn host_end(result: &Value) -> String {
    result["interfaces"][0]["name"].as_str().unwrap().to_owned()
}

/// Lines of `ip route` for both families, without link-local ones; `LINK` stands for a veth's name. That
/// the other end is up, too, shows a little later.
fn routes(text: &str) -> BTreeSet<String> {
    let unnamed = |line: &str| {
        let words =
            line.split_whitespace().filter(|word| *word != "linkdown").map(|word| {
                match word.starts_with("veth") {
                    true => "LINK",
                    false => word,
                }
            });
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().filter(|line| !line.starts_with("fe80::/64")).map(unnamed).collect()
}

const ROUTES: &str = "ip -o route; ip -o -6 route";

fn lines(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn pods_reach_each_other_through_the_host_in_every_version() {
    let host = Host::new();
    let before = host.snapshot();
    for version in VERSIONS {
        let conf = conf(&json!({"cniVersion": version, "name": format!("net-{version}")}));
        let pods = ["a", "b"].map(|name| host.pod(&format!("{name}-{version}")));
        let [a, b] = &pods;
        let result = host.add(&conf, a).ok();
        host.add(&conf, b).ok();
        // At once, and of both families.
        for address in ["10.1.0.3", "fd01::3", "10.1.0.1", "fd01::1"] {
            a.must_reach(address);
        }
        b.must_reach("10.1.0.2");
        if version >= "0.3.0" {
            assert_eq!(result["interfaces"].as_array().unwrap().len(), 2, "{result:#}");
            assert!(host_end(&result).starts_with("veth"), "{result:#}");
            assert_eq!(result["interfaces"][1]["name"], "eth0");
            assert_eq!(result["interfaces"][1]["sandbox"], a.path());
            for ip in result["ips"].as_array().unwrap() {
                assert_eq!(ip["interface"], 1);
            }
        }
        if version >= "0.4.0" {
            assert_eq!(host.check(&conf, &result, a).ok(), Value::Null);
        }
        host.del(&conf, a).ok();
        assert_eq!(a.ip("link show").as_array().unwrap().len(), 1, "only lo is left");
        b.must_reach("10.1.0.1");
        b.must_reach("fd01::1");
        host.del(&conf, b).ok();
        host.snapshot().assert_same_but_for_rules(&before);
        pods.iter().for_each(|pod| drop(host.del(&conf, pod).ok()));
    }
}

/// What the host and the container get is what they get of the reference, line by line.
#[test]
fn addresses_and_routes_are_the_references() {
    let mut ipam = dual();
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24"},
                            {"dst": "198.51.100.0/24", "gw": "10.1.0.1"}]);
    let conf = conf(&json!({"cniVersion": "1.0.0", "ipam": ipam}));
    let state = |by_reference: bool| {
        let host = Host::new();
        let pod = host.pod("a");
        // The reference would wait for them to be found unique.
        pod.sh(
            "for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done",
        );
        let call = match by_reference {
            true => reference(&host, "ADD", &conf, &pod),
            false => Call::new(&host, "ADD", &conf).of(&pod),
        };
        let result = call.run().ok();
        let link = host_end(&result);
        let addresses = host.ip(&format!("addr show dev {link} scope global"))[0]["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|a| Some(format!("{}/{}", a["local"].as_str()?, a["prefixlen"])))
            .collect::<BTreeSet<_>>();
        let accept_ra = host.sysctl(&format!("ipv6/conf/{link}/accept_ra"));
        let mut shown = result;
        for interface in shown["interfaces"].as_array_mut().unwrap() {
            interface["mac"] = "MAC".into();
            if interface["name"] != "eth0" {
                interface["name"] = "LINK".into();
            }
        }
        // An empty one is left out.
        shown.as_object_mut().unwrap().remove("dns");
        let (inside, outside) = (routes(&pod.sh(ROUTES)), routes(&host.sh(ROUTES)));
        (shown, pod.addresses("eth0"), addresses, inside, outside, accept_ra)
    };
    let ours = state(false);
    assert_eq!(ours, state(true));
    let expected = lines(&[
        "default via 10.1.0.1 dev eth0",
        "10.1.0.0/16 via 10.1.0.1 dev eth0 src 10.1.0.2",
        "10.1.0.1 dev eth0 scope link src 10.1.0.2",
        "192.0.2.0/24 via 10.1.0.1 dev eth0",
        "198.51.100.0/24 via 10.1.0.1 dev eth0",
        "default via fd01::1 dev eth0 metric 1024 pref medium",
        "fd01::/64 via fd01::1 dev eth0 src fd01::2 metric 1024 pref medium",
        "fd01::1 dev eth0 src fd01::2 metric 1024 pref medium",
    ]);
    assert_eq!(ours.3, expected);
    let expected = lines(&[
        "10.1.0.2 dev LINK scope host",
        "fd01::1 dev LINK proto kernel metric 256 pref medium",
        "fd01::2 dev LINK metric 1024 pref medium",
    ]);
    assert_eq!(ours.4, expected);
    assert_eq!(ours.5, "0", "no advice on routing from a container: CVE-2020-10749");
}

/// What is attached by the reference is checked and detached by ours.
#[test]
fn attachments_of_the_reference_are_taken_over() {
    let host = Host::new();
    for (number, keys) in [json!({"ipam": ipv4()}), json!({"mtu": 1400})].iter().enumerate() {
        let mut conf = conf(keys);
        conf["cniVersion"] = json!("1.0.0");
        conf["name"] = json!(format!("net{number}"));
        let (a, b) = (host.pod(&format!("a{number}")), host.pod(&format!("b{number}")));
        for pod in [&a, &b] {
            pod.sh("for name in all default; do
                    echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done");
        }
        let before = host.snapshot();
        let result = reference(&host, "ADD", &conf, &a).run().ok();
        host.check(&conf, &result, &a).ok();
        host.add(&conf, &b).ok();
        a.must_reach("10.1.0.3");
        // Without prevResult, too.
        host.del(&conf, &a).ok();
        host.del(&conf, &b).ok();
        host.snapshot().assert_same_but_for_rules(&before);
        assert_eq!(a.ip("link show").as_array().unwrap().len(), 1);
        // With the namespace the link has gone; the leases have not.
        reference(&host, "ADD", &conf, &a).run().ok();
        host.sh(&format!("ip netns del a{number}"));
        host.del(&conf, &a).ok();
        assert_eq!(host.leases(&format!("net{number}")), [] as [&str; 0]);
        // And back again.
        host.add(&conf, &b).ok();
        reference(&host, "DEL", &conf, &b).run().ok();
        host.snapshot().assert_same_but_for_rules(&before);
    }
}

/// The reference takes 1.7 s for an IPv6 address to be found unique, of which address management knows.
#[test]
fn plugins_680_nothing_is_tentative_when_add_returns() {
    let host = Host::new();
    let outside = outside(&host);
    let pod = host.pod("a");
    // What the host needs to forward to the container, without having heard of it.
    let mut ipam = dual();
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let conf = conf(&json!({"ipam": ipam}));
    outside.sh("ip route add default via 10.99.0.1; ip -6 route add default via fd99::1");
    let result = host.add(&conf, &pod).ok();
    let tentative = |links: &Value| {
        let addresses = links[0]["addr_info"].as_array().unwrap().clone();
        addresses.iter().any(|address| address["tentative"] == true)
    };
    let inside = pod.ip("addr show dev eth0");
    let on_host = host.ip(&format!("addr show dev {}", host_end(&result)));
    assert!(!tentative(&inside), "{inside:#}");
    assert!(!tentative(&on_host), "{on_host:#}");
    assert_eq!(on_host[0]["addr_info"].as_array().unwrap().len(), 3, "{on_host:#}");
    outside.must_reach("fd01::2");
    outside.must_reach("10.1.0.2");
}

#[test]
fn the_host_forwards_the_families_that_there_are() {
    const SETTINGS: [&str; 2] = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    for (ipam, expected) in [
        (ipv4(), ["1", "0"]),
        (fixed(&[("fd01::2/64", Some("fd01::1"))]), ["0", "1"]),
        (dual(), ["1", "1"]),
    ] {
        let host = Host::new();
        let pod = host.pod("a");
        SETTINGS.iter().for_each(|name| {
            drop(host.sh(&format!("echo 0 > /proc/sys/net/{name}")));
        });
        let conf = conf(&json!({"ipam": ipam}));
        let result = host.add(&conf, &pod).ok();
        assert_eq!(SETTINGS.map(|name| host.sysctl(name)), expected, "{ipam}");
        host.check(&conf, &result, &pod).ok();
    }
}

#[test]
fn what_leaves_the_network_is_masqueraded_if_asked_for() {
    let host = Host::new();
    let outside = outside(&host);
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mut ipam = dual();
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    for backend in [json!(null), json!("iptables"), json!("nftables")] {
        let keys = json!({"ipMasq": true, "ipMasqBackend": backend, "ipam": ipam});
        let conf = conf(&keys);
        let result = host.add(&conf, &a).ok();
        let other = host.add(&conf, &b).ok();
        for (server, own) in [("10.99.0.2", "10.99.0.1"), ("fd99::2", "fd99::1")] {
            let seen: std::net::IpAddr = peer_seen_by(&outside, server, &a).parse().unwrap();
            assert_eq!(seen, own.parse::<std::net::IpAddr>().unwrap());
        }
        // Within the network addresses are as they are.
        for ip in other["ips"].as_array().unwrap() {
            let server = ip["address"].as_str().unwrap().split('/').next().unwrap();
            let seen: std::net::IpAddr = peer_seen_by(&b, server, &a).parse().unwrap();
            let own = result["ips"].as_array().unwrap().iter().filter_map(|ip| {
                ip["address"].as_str()?.split('/').next()?.parse::<std::net::IpAddr>().ok()
            });
            assert!(own.into_iter().any(|own| own == seen), "{seen} in {result:#}");
        }
        assert_eq!(host.element_comments().len(), 4);
        host.check(&conf, &result, &a).ok();
        host.del(&conf, &a).ok();
        host.del(&conf, &b).ok();
        host.snapshot().assert_same_but_for_rules(&before);
    }
}

#[test]
fn the_mtu_is_that_of_both_ends_and_told() {
    let host = Host::new();
    for (mtu, expected) in [(json!(1400), 1400), (json!(0), 1500), (json!(null), 1500)] {
        let pod = host.pod(&format!("pod{mtu}"));
        let conf = conf(&json!({"mtu": mtu}));
        let result = host.add(&conf, &pod).ok();
        for interface in result["interfaces"].as_array().unwrap() {
            assert_eq!(interface["mtu"], expected);
        }
        assert_eq!(pod.ip("link show dev eth0")[0]["mtu"], expected);
        let link = host.ip(&format!("link show dev {}", host_end(&result)));
        assert_eq!(link[0]["mtu"], expected);
        assert_eq!(link[0]["ifalias"], format!("plumb:net/{}/eth0", pod.name));
    }
}

/// Of address management, or of the plugin itself if it says anything.
#[test]
fn name_resolution_is_in_the_result() {
    let host = Host::new();
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\n");
    let mut ipam = ipv4();
    ipam["resolvConf"] = json!("/run/resolv.conf");
    for (number, (dns, expected)) in [
        (json!({}), json!({"nameservers": ["192.0.2.53"]})),
        (json!(null), json!({"nameservers": ["192.0.2.53"]})),
        (json!({"search": ["example.org"]}), json!({"search": ["example.org"]})),
        (json!({"domain": "x", "options": ["a"]}), json!({"domain": "x", "options": ["a"]})),
    ]
    .into_iter()
    .enumerate()
    {
        let pod = host.pod(&format!("pod{number}"));
        let result = host.add(&conf(&json!({"ipam": ipam, "dns": dns})), &pod).ok();
        assert_eq!(result["dns"], expected, "{dns}");
    }
}

/// It is what the host is to the container, so there has to be one.
#[test]
fn a_gateway_that_is_not_named_is_the_first_address_of_the_network() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = conf(&json!({"ipam": fixed(&[("10.1.0.9/24", None), ("fd01::9/64", None)])}));
    let result = host.add(&conf, &pod).ok();
    assert_eq!(result["ips"][0]["gateway"], "10.1.0.1");
    assert_eq!(result["ips"][1]["gateway"], "fd01::1");
    pod.must_reach("10.1.0.1");
    pod.must_reach("fd01::1");
    host.check(&conf, &result, &pod).ok();
}

#[test]
fn gateways_that_the_host_cannot_be_are_refused() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    for (ips, words) in [
        (vec![("10.1.0.1/24", None)], ["10.1.0.1/24", "10.1.0.1 is the container's own"]),
        (vec![("10.1.0.5/24", Some("10.1.0.5"))], ["10.1.0.5/24", "the container's own"]),
        (
            vec![("10.1.0.5/24", Some("10.1.0.6")), ("10.1.0.6/24", Some("10.1.0.1"))],
            ["10.1.0.5/24", "10.1.0.6 is the container's own"],
        ),
        (vec![("10.1.0.5/32", None)], ["10.1.0.5/32", "names none"]),
        (vec![("fd01::5/128", None)], ["fd01::5/128", "names none"]),
    ] {
        host.add(&conf(&json!({"ipam": fixed(&ips)})), &pod).fails(7, &words);
        assert_eq!(host.snapshot(), before, "{ips:?}");
    }
    let ips = json!([{"address": "10.1.0.5/24", "gateway": "fd01::1"}]);
    host.scripted_ipam(&json!({"cniVersion": "1.1.0", "ips": ips}));
    let scripted = conf(&json!({"ipam": {"type": "scripted"}}));
    host.add(&scripted, &pod).fails(7, &["10.1.0.5/24", "fd01::1 is of the other address family"]);
    assert_eq!(host.read("/run/scripted.log"), "ADD\nDEL\n");
    assert_eq!(host.snapshot(), before);
}

/// One address for all pods to send to, in no network of theirs.
#[test]
fn a_gateway_may_be_outside_the_network() {
    let host = Host::new();
    let ipam = |number: u8| {
        let mut ipam = fixed(&[
            (&format!("10.1.0.{number}/32"), Some("169.254.1.1")),
            (&format!("fd01::{number}/128"), Some("fe80::1")),
        ]);
        ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        ipam
    };
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.snapshot();
    let [of_a, of_b] = [5, 6].map(|number| conf(&json!({"ipam": ipam(number)})));
    let result = host.add(&of_a, &a).ok();
    host.add(&of_b, &b).ok();
    for address in ["10.1.0.6", "fd01::6", "169.254.1.1", "fe80::1%eth0"] {
        a.must_reach(address);
    }
    let expected = lines(&[
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1 dev eth0 scope link src 10.1.0.5",
        "default via fe80::1 dev eth0 metric 1024 pref medium",
        "fe80::1 dev eth0 src fd01::5 metric 1024 pref medium",
    ]);
    assert_eq!(routes(&a.sh(ROUTES)), expected);
    host.check(&of_a, &result, &a).ok();
    host.del(&of_a, &a).ok();
    host.del(&of_b, &b).ok();
    host.snapshot().assert_same_but_for_rules(&before);
}

#[test]
fn several_addresses_of_a_family_share_what_they_can() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let ips = [
        ("10.1.0.5/24", Some("10.1.0.1")),
        ("10.1.0.6/24", Some("10.1.0.1")),
        ("10.2.0.5/24", Some("10.2.0.1")),
        ("fd01::5/64", Some("fd01::1")),
        ("fd01::6/64", Some("fd01::1")),
    ];
    let conf = conf(&json!({"ipam": fixed(&ips)}));
    let result = host.add(&conf, &pod).ok();
    for address in ["10.1.0.5", "10.1.0.6", "10.2.0.5", "fd01::5", "fd01::6"] {
        host.run("ping", &["-n", "-q", "-c", "1", "-W", "2", address]);
    }
    let routes = routes(&pod.sh(ROUTES));
    let of_10_1 = routes.iter().filter(|line| line.starts_with("10.1."));
    assert_eq!(
        of_10_1.collect::<Vec<_>>(),
        [
            "10.1.0.0/24 via 10.1.0.1 dev eth0 src 10.1.0.5",
            "10.1.0.1 dev eth0 scope link src 10.1.0.5"
        ]
    );
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
    host.snapshot().assert_same_but_for_rules(&before);
}

/// With the reference it is reached by the network's route, which is there for a moment.
#[test]
fn a_route_through_another_neighbour_is_accepted() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut ipam = dual();
    ipam["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "10.1.0.77"}, {"dst": "2001:db8::/32", "gw": "fd01::77"}]);
    let conf = conf(&json!({"ipam": ipam}));
    let result = host.add(&conf, &pod).ok();
    let routes = pod.sh(ROUTES);
    assert!(routes.contains("192.0.2.0/24 via 10.1.0.77 dev eth0 onlink"), "{routes}");
    assert!(routes.contains("2001:db8::/32 via fd01::77 dev eth0"), "{routes}");
    host.check(&conf, &result, &pod).ok();

    settled(&pod, "fd01::1");
    let other = host.pod("b");
    let mut refused = conf;
    refused["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "172.31.0.1"}]);
    let before = host.snapshot();
    host.add(&refused, &other).fails(999, &["192.0.2.0/24 via 172.31.0.1"]);
    host.snapshot().assert_same_but_for_rules(&before);
}

#[test]
fn check_names_what_has_gone_astray() {
    let host = Host::new();
    let conf = conf(&json!({"ipMasq": true, "mtu": 1400}));
    let pod = host.pod("a");
    let in_pod: &[(&str, &[&str])] = &[
        ("ip addr del 10.1.0.2/16 dev eth0", &["eth0", "10.1.0.2/16", "missing"]),
        ("ip addr del fd01::2/64 dev eth0", &["eth0", "fd01::2/64", "missing"]),
        ("ip route del 10.1.0.1", &["route 10.1.0.1/32", "missing"]),
        ("ip route del 10.1.0.0/16", &["route 10.1.0.0/16 via 10.1.0.1", "missing"]),
        ("ip -6 route del fd01::/64", &["route fd01::/64 via fd01::1", "missing"]),
        ("ip link set eth0 address 02:00:00:00:00:66", &["eth0", "02:00:00:00:00:66"]),
        ("ip link set eth0 down", &["eth0", "missing"]),
        ("ip link set eth0 down; ip link set eth0 name eth9", &["eth0", "vanished"]),
    ];
    let on_host: &[(&str, &[&str])] = &[
        ("ip addr del 10.1.0.1/32 dev LINK", &["LINK", "address 10.1.0.1/32", "missing"]),
        ("ip addr del fd01::1/128 dev LINK", &["LINK", "address fd01::1/128", "missing"]),
        ("ip route del 10.1.0.2", &["LINK", "route 10.1.0.2/32", "missing"]),
        ("ip -6 route del fd01::2", &["LINK", "route fd01::2/128", "missing"]),
        ("ip link set LINK down", &["LINK", "down"]),
        ("ip link set LINK mtu 1300", &["LINK", "1300", "1400"]),
        ("ip link set LINK address 02:00:00:00:00:55", &["LINK", "02:00:00:00:00:55"]),
        (
            "ip link set LINK down; ip link set LINK name other; ip link set other up",
            &["LINK", "missing"],
        ),
        ("nft flush set inet plumb masq4_16", &["masquerading", "10.1.0.2"]),
        ("echo 0 > /proc/sys/net/ipv4/ip_forward", &["ipv4/ip_forward"]),
        ("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", &["ipv6/conf/all/forwarding"]),
        ("rm /var/lib/cni/networks/net/10.1.*", &["10.1.0.2", "not leased"]),
    ];
    let cases = in_pod.iter().map(|case| (true, case)).chain(on_host.iter().map(|c| (false, c)));
    for (inside, (script, words)) in cases {
        host.sh("rm -rf /var/lib/cni");
        let result = host.add(&conf, &pod).ok();
        settled(&pod, "fd01::1");
        let before = host.snapshot();
        host.check(&conf, &result, &pod).ok();
        assert_eq!(host.snapshot(), before, "CHECK changes nothing");
        let link = host_end(&result);
        let script = script.replace("LINK", &link);
        if inside {
            pod.sh(&script);
        } else {
            host.sh(&script);
        }
        let words: Vec<_> = words.iter().map(|word| word.replace("LINK", &link)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let outcome = host.check(&conf, &result, &pod);
        assert!(!outcome.status.success(), "CHECK has not seen: {script}");
        outcome.fails(999, &words);
        host.del(&conf, &pod).ok();
        host.sh("ip link del other 2>/dev/null || true");
    }
    // Another pair in its place.
    host.sh("rm -rf /var/lib/cni");
    let result = host.add(&conf, &pod).ok();
    let link = host_end(&result);
    let mac = |at: usize| result["interfaces"][at]["mac"].as_str().unwrap().to_owned();
    host.sh(&format!(
        "ip link del {link}; ip link add {link} mtu 1400 address {} type veth peer name x
         ip addr add 10.1.0.1/32 dev {link}; ip addr add fd01::1/128 dev {link} nodad
         ip link set {link} up; ip link set x up; ip route add 10.1.0.2 dev {link} scope host
         ip -6 route add fd01::2 dev {link}",
        mac(0)
    ));
    pod.sh(&format!(
        "ip link add eth0 address {} type veth peer name y; ip link set eth0 up; ip link set y up
         ip addr add 10.1.0.2/16 dev eth0 noprefixroute
         ip addr add fd01::2/64 dev eth0 nodad noprefixroute
         ip route add 10.1.0.1 dev eth0 src 10.1.0.2
         ip route add 10.1.0.0/16 via 10.1.0.1 dev eth0 src 10.1.0.2
         ip -6 route add fd01::1 dev eth0 src fd01::2
         ip -6 route add fd01::/64 via fd01::1 dev eth0 src fd01::2",
        mac(1)
    ));
    host.check(&conf, &result, &pod).fails(999, &["eth0", &link, "veth pair"]);
    Call::new(&host, "CHECK", &conf).of(&pod).run().fails(7, &["prevResult"]);
}

/// Neither the namespace, nor what ADD returned, nor a lease, nor the link.
#[test]
fn plugins_810_del_needs_nothing() {
    let host = Host::new();
    let conf = conf(&json!({"ipMasq": true}));
    let pod = host.pod("a");
    let before = host.snapshot();
    let never = host.del(&conf, &pod);
    assert_eq!(never.ok(), Value::Null);
    host.snapshot().assert_same_but_for_rules(&before);
    let result = host.add(&conf, &pod).ok();
    let link = host_end(&result);
    let mut with_result = conf.clone();
    with_result["prevResult"] = result;
    host.del(&conf, &pod).ok();
    let broken = [
        "rm -rf /var/lib/cni".to_owned(),
        format!("ip link del {link}"),
        "nft flush ruleset".to_owned(),
        "true".to_owned(),
    ];
    for script in broken {
        for conf in [&conf, &with_result] {
            for netns in [pod.path().as_str(), "", "/run/netns/gone"] {
                host.add(conf, &pod).ok();
                host.sh(&script);
                let del = Call::new(&host, "DEL", conf).of(&pod).env("CNI_NETNS", netns);
                del.run().ok();
                host.snapshot().assert_same_but_for_rules(&before);
                assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "{script} {netns}");
                del.run().ok();
            }
        }
    }
    host.add(&conf, &pod).ok();
    host.sh("ip netns del a");
    host.del(&conf, &pod).ok();
    host.snapshot().assert_same_but_for_rules(&before);
}

/// A runtime that did not hear the answer asks again, for the same container or its successor.
#[test]
fn what_an_earlier_add_has_left_is_replaced() {
    let host = Host::new();
    let conf = conf(&json!({"ipMasq": true}));
    let pod = host.pod("a");
    let first = host.add(&conf, &pod).ok();
    host.add(&conf, &pod).fails(999, &["eth0", "already exists"]);
    host.check(&conf, &first, &pod).ok();
    pod.must_reach("10.1.0.1");
    let other = host.pod("b");
    let call = Call::new(&host, "ADD", &conf).of(&pod).env("CNI_NETNS", &other.path());
    let second = call.run().ok();
    assert_eq!(second["ips"], first["ips"]);
    other.must_reach("10.1.0.1");
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1);
}

#[test]
fn plugins_1289_gc_removes_what_no_valid_attachment_has() {
    let host = Host::new();
    let conf = conf(&json!({"ipMasq": true}));
    let mut another = conf.clone();
    another["name"] = json!("another");
    another["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/16"}], [{"subnet": "fd02::/64"}]]);
    let (valid, stranger) = (host.pod("valid"), host.pod("stranger"));
    let kept = host.add(&conf, &valid).ok();
    let strangers = host.add(&another, &stranger).ok();
    settled(&valid, "fd01::1");
    settled(&stranger, "fd02::1");
    let before = host.snapshot();
    let (stale, dead) = (host.pod("stale"), host.pod("dead"));
    host.add(&conf, &stale).ok();
    host.add(&conf, &dead).ok();
    host.sh("ip netns del dead");
    host.gc(&conf, &[("valid", "eth0")]).ok();
    host.snapshot().assert_same_but_for_rules(&before);
    host.check(&conf, &kept, &valid).ok();
    host.check(&another, &strangers, &stranger).ok();
    Call::new(&host, "GC", &conf).run().fails(7, &["cni.dev/valid-attachments"]);
    host.gc(&conf, &[]).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    host.check(&another, &strangers, &stranger).ok();
}

#[test]
fn status_tells_what_would_keep_add_from_working() {
    let host = Host::new();
    let small = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/30"}]]});
    let conf = conf(&json!({"ipMasq": true, "ipam": small}));
    assert_eq!(host.status(&conf).ok(), Value::Null);
    assert_eq!(host.ruleset("table"), [] as [Value; 0], "it makes nothing");
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    host.status(&conf).fails(50, &["no IP addresses available"]);
    host.add(&conf, &host.pod("b")).fails(11, &["no IP addresses available"]);
    host.del(&conf, &pod).ok();
    host.status(&conf).ok();
}

#[test]
fn keys_are_checked_before_anything_is_done() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let mut cases = vec![
        (json!({"mtu": 67}), 7, vec!["mtu", "68", "67"]),
        (json!({"mtu": -1}), 7, vec!["mtu", "-1"]),
        (json!({"mtu": 65536}), 7, vec!["mtu", "65536"]),
        (json!({"mtu": "1400"}), 6, vec!["mtu", "1400"]),
        (json!({"mtu": 1279}), 7, vec!["mtu", "1280", "1279"]),
        (json!({"ipMasq": "true"}), 6, vec!["ipMasq", "true or false"]),
        (json!({"ipMasqBackend": "pf"}), 7, vec!["ipMasqBackend", "pf"]),
        (json!({"dns": {"nameservers": "x"}}), 6, vec!["dns.nameservers", "a list"]),
        (json!({"ipam": {"type": "unknown"}}), 7, vec!["plugin", "unknown"]),
        (json!({"ipam": {"type": "ptp"}}), 7, vec!["ipam.type", "ptp"]),
    ];
    // The reference fails with an empty type, too.
    for none in [json!(null), json!({}), json!({"type": ""}), json!({"type": null})] {
        cases.push((json!({"ipam": none}), 7, vec!["ipam.type", "nothing"]));
    }
    for (keys, code, words) in &cases {
        let conf = conf(keys);
        host.add(&conf, &pod).fails(*code, words);
        assert_eq!(host.snapshot(), before, "{keys}");
        // DEL only looks for what could be there.
        if keys["ipam"]["type"] != "unknown" && keys["ipam"]["type"] != "ptp" {
            host.del(&conf, &pod).ok();
        }
        if words[1] != "1280" {
            host.status(&conf).fails(*code, words);
        }
    }
    // What other plugins have is not ours: neither keys nor arguments.
    let strange = conf(&json!({"bridge": 5, "isGateway": "x", "vlan": 9, "ipam": fixed(&[(
        "10.1.0.5/24", None)])}));
    let call = Call::new(&host, "ADD", &strange).of(&pod);
    call.env("CNI_ARGS", "MAC=none;IgnoreUnknown=1").run().ok();
}
