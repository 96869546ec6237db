//! The main job: two pods on a bridge reach each other, their gateway and the outside, and are
//! deleted without a trace.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, network, patience};

/// A router and a server beyond it: `10.99.0.2` and `fd99::2`, which know no way back to pods.
pub fn outside(host: &Host) -> Pod<'_> {
    let outside = host.pod("outside");
    host.sh("ip link add uplink type veth peer name eth0 netns outside
             ip addr add 10.99.0.1/24 dev uplink; ip addr add fd99::1/64 dev uplink nodad
             ip link set uplink up");
    outside.sh("ip addr add 10.99.0.2/24 dev eth0; ip addr add fd99::2/64 dev eth0 nodad
                ip link set lo up; ip link set eth0 up");
    outside
}

/// Who a server outside believes to be talking to, over TCP.
pub fn peer_seen_by(outside: &Pod<'_>, server: &str, pod: &Pod<'_>) -> String {
    let listen = if server.contains(':') { "TCP6-LISTEN" } else { "TCP4-LISTEN" };
    let mut listener = outside
        .command("socat")
        .args([&format!("{listen}:8080,reuseaddr"), "SYSTEM:printenv SOCAT_PEERADDR"])
        .spawn()
        .unwrap();
    let address = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
    let silence = patience(Duration::from_secs(5)).as_secs();
    let answer =
        pod.sh(&format!("socat -T {silence} - TCP:{address}:8080,retry=500,interval=0.02"));
    listener.wait().unwrap();
    answer.trim().trim_matches(['[', ']']).to_owned()
}

fn whole_life(text: &str, bridge: &str, expect: impl Fn(&Value, &Value)) {
    let conf = &network(text)[0];
    let host = Host::new();
    let outside = outside(&host);
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let (result_a, result_b) = (host.add(conf, &a).ok(), host.add(conf, &b).ok());
    expect(&result_a, &result_b);

    let addresses = b.addresses("eth0");
    assert!(!addresses.is_empty());
    for address in &addresses {
        a.must_reach(address.split('/').next().unwrap());
    }
    for gateway in gateways(&result_a) {
        a.must_reach(&gateway);
    }
    for (server, own) in [("10.99.0.2", "10.99.0.1"), ("fd99::2", "fd99::1")] {
        if addresses.iter().any(|a| a.contains(':') == server.contains(':')) {
            a.must_reach(server);
            let seen = peer_seen_by(&outside, server, &a);
            let expected: std::net::IpAddr = own.parse().unwrap();
            assert_eq!(seen.parse(), Ok(expected), "traffic is masqueraded as the host's");
        }
    }
    for pod in [&a, &b] {
        host.del(conf, pod).ok();
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo is left");
        host.del(conf, pod).ok();
    }
    host.snapshot().assert_nothing_but_shared(&before, bridge);
}

fn gateways(result: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ips = result["ips"].as_array().cloned().unwrap_or_default();
    let newer = ips.iter().filter_map(|ip| text(&ip["gateway"]));
    newer.chain(text(&result["ip4"]["gateway"])).collect()
}

#[test]
fn a_network_without_version_whose_default_route_comes_twice() {
    whole_life(include_str!("../../examples/default-route-twice.conf"), "br0", |a, b| {
        let expected = |ip: &str| {
            json!({
                "cniVersion": "0.1.0",
                "ip4": {
                    "ip": ip,
                    "gateway": "10.244.1.1",
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
                "dns": {},
            })
        };
        assert_eq!(*a, expected("10.244.0.1/16"));
        assert_eq!(*b, expected("10.244.0.2/16"));
    });
}

#[test]
fn a_gateway_with_hairpin_and_a_default_route_of_its_own() {
    whole_life(include_str!("../../examples/mynet.conf"), "mynet0", |a, _| {
        let mac = |index: usize| a["interfaces"][index]["mac"].clone();
        let host_link = a["interfaces"][1]["name"].as_str().unwrap();
        assert!(host_link.starts_with("veth"), "{host_link}");
        let expected = json!({
            "cniVersion": "0.3.0",
            "interfaces": [
                {"name": "mynet0", "mac": mac(0)},
                {"name": host_link, "mac": mac(1)},
                {"name": "eth0", "mac": mac(2), "sandbox": "/run/netns/a"},
            ],
            "ips": [{
                "version": "4",
                "interface": 2,
                "address": "10.10.0.2/16",
                "gateway": "10.10.0.1",
            }],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.10.0.1"}],
            "dns": {},
        });
        assert_eq!(*a, expected);
    });
}

#[test]
fn two_families_from_two_range_sets() {
    whole_life(include_str!("../../examples/dual-stack.conflist"), "dual0", |a, b| {
        let addresses = |result: &Value| [0, 1].map(|at| result["ips"][at]["address"].clone());
        assert_eq!(addresses(a), ["10.20.0.2/16", "fd20::2/64"]);
        assert_eq!(addresses(b), ["10.20.0.3/16", "fd20::3/64"]);
        let routes = json!([
            {"dst": "0.0.0.0/0", "gw": "10.20.0.1"},
            {"dst": "::/0", "gw": "fd20::1"},
        ]);
        assert_eq!(a["routes"], routes);
        assert_eq!(a.get("dns"), None, "from 1.0.0 on an empty dns is left out");
    });
}

/// Pods without addresses of address management reach each other by those that they give themselves.
#[test]
fn a_layer_2_network_without_address_management() {
    let conf = &network(include_str!("../../examples/layer2.conf"))[0];
    let host = Host::new();
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let result = host.add(conf, &a).ok();
    host.add(conf, &b).ok();
    assert_eq!(result.get("ips"), None, "{result:#}");
    let links = result["interfaces"].as_array().unwrap();
    assert_eq!(links.len(), 3);
    for link in links {
        assert_eq!(link["mtu"], 1500, "from 1.1.0 on the MTU is told: {link}");
    }

    let link_local = b.ip("addr show dev eth0 scope link")[0]["addr_info"][0]["local"].clone();
    a.must_reach(&format!("{}%eth0", link_local.as_str().unwrap()));
    a.sh("ip addr add 192.0.2.1/24 dev eth0");
    b.sh("ip addr add 192.0.2.2/24 dev eth0");
    a.must_reach("192.0.2.2");
    assert_eq!(host.ruleset("table"), [] as [Value; 0], "no masquerading, no rules");

    host.check(conf, &result, &a).ok();
    for pod in [&a, &b] {
        host.del(conf, pod).ok();
    }
    host.snapshot().assert_nothing_but_shared(&before, "l2br0");
}

#[test]
fn isolated_ports_that_take_no_forged_addresses() {
    let conf = &network(include_str!("../../examples/guarded.conflist"))[0];
    let host = Host::new();
    let outside = outside(&host);
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let result = host.add(conf, &a).ok();
    host.add(conf, &b).ok();
    assert_eq!(result["ips"][0]["address"], "10.30.0.10/24");
    assert_eq!(a.addresses("eth0"), ["10.30.0.10/24"]);
    assert_eq!(a.ip("link show dev eth0")[0]["mtu"], 1400);
    a.must_reach("10.30.0.1");
    a.must_reach("10.99.0.2");
    assert_eq!(peer_seen_by(&outside, "10.99.0.2", &a), "10.99.0.1");
    assert!(!a.reaches("10.30.0.11"), "isolated from each other");
    host.check(conf, &result, &a).ok();
    a.sh("ip link set dev eth0 address 02:00:00:00:00:99");
    assert!(!a.reaches("10.30.0.1"), "a forged link-layer address is not let through");
    for pod in [&a, &b] {
        host.del(conf, pod).ok();
    }
    host.snapshot().assert_nothing_but_shared(&before, "guarded0");
}

#[test]
fn routes_of_a_private_network() {
    let conf = &network(include_str!("../../examples/private-routes.conf"))[0];
    let host = Host::new();
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let result = host.add(conf, &a).ok();
    host.add(conf, &b).ok();
    assert_eq!(a.addresses("eth0"), ["10.40.0.100/24"]);
    a.must_reach("10.40.0.101");
    a.must_reach("10.40.0.254");
    let routes = a.sh("ip -o route show dev eth0");
    let routes: Vec<_> = routes.lines().map(str::trim).collect();
    assert_eq!(
        routes,
        [
            "10.0.0.0/8 via 10.40.0.254",
            "10.40.0.0/24 proto kernel scope link src 10.40.0.100",
            "192.168.0.0/16 via 10.40.0.253 metric 100 mtu 1400 advmss 1360",
        ],
        "no default route unless asked for"
    );
    host.check(conf, &result, &a).ok();
    for pod in [&a, &b] {
        host.del(conf, pod).ok();
    }
    host.snapshot().assert_nothing_but_shared(&before, "private0");
}

/// The pods of a network reach each other through the host, which each is connected with by itself.
fn whole_routed_life(network_of: impl Fn(&str) -> Value, expected: impl Fn(&str, &str) -> Value) {
    let host = Host::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let conf = &network_of(version);
        let before = host.snapshot();
        let pods = ["a", "b"].map(|name| host.pod(&format!("{name}-{version}")));
        let [a, b] = &pods;
        let result = host.add(conf, a).ok();
        host.add(conf, b).ok();
        for (pod, other) in [(a, b), (b, a)] {
            for address in other.addresses("eth0") {
                pod.must_reach(address.split('/').next().unwrap());
            }
        }
        for gateway in gateways(&result) {
            a.must_reach(&gateway);
        }
        let ip = a.addresses("eth0")[0].clone();
        let mut expected = expected(version, &ip);
        if version >= "0.3.0" {
            let mut interfaces = result["interfaces"].clone();
            assert!(interfaces[0]["name"].as_str().unwrap().starts_with("veth"));
            for interface in interfaces.as_array_mut().unwrap() {
                let interface = interface.as_object_mut().unwrap();
                assert!(interface.remove("mac").is_some());
                assert_eq!(interface.remove("mtu"), (version == "1.1.0").then(|| json!(1500)));
            }
            let name = &interfaces[0]["name"];
            let shape = json!([{"name": name}, {"name": "eth0", "sandbox": a.path()}]);
            assert_eq!(interfaces, shape);
            expected["interfaces"] = result["interfaces"].clone();
        }
        assert_eq!(result, expected);
        if version >= "0.4.0" {
            host.check(conf, &result, a).ok();
        }
        for pod in &pods {
            host.del(conf, pod).ok();
            assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo is left");
            host.del(conf, pod).ok();
        }
        host.snapshot().assert_same_but_for_rules(&before);
    }
}

/// The oldest form as it is written, and a list of each later version.
#[test]
fn a_routed_network_with_name_resolution() {
    let text = include_str!("../../examples/ptp.conf");
    let of_version = |version: &str| {
        let plugin: Value = serde_json::from_str(text).unwrap();
        if version == "0.1.0" {
            return plugin;
        }
        let list = json!({"cniVersion": version, "name": "mynet", "plugins": [plugin]});
        network(&list.to_string()).remove(0)
    };
    whole_routed_life(of_version, |version, ip| {
        let dns = json!({"nameservers": ["10.1.1.1", "8.8.8.8"]});
        let mut expected = json!({"cniVersion": version, "dns": dns});
        match version {
            "0.1.0" | "0.2.0" => expected["ip4"] = json!({"ip": ip, "gateway": "10.1.1.1"}),
            _ => {
                expected["ips"] = json!([{"interface": 1, "address": ip, "gateway": "10.1.1.1"}]);
                if version < "1.0.0" {
                    expected["ips"][0]["version"] = json!("4");
                }
            }
        }
        expected
    });
}

/// Of both families, with a way to the outside.
#[test]
fn a_routed_network_of_two_families() {
    let conf = &network(include_str!("../../examples/ptp-dual-stack.conflist"))[0];
    let host = Host::new();
    let outside = outside(&host);
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let result = host.add(conf, &a).ok();
    host.add(conf, &b).ok();
    for address in ["10.60.0.3", "fd60::3", "10.60.0.1", "fd60::1", "10.99.0.2", "fd99::2"] {
        a.must_reach(address);
    }
    for (server, own) in [("10.99.0.2", "10.99.0.1"), ("fd99::2", "fd99::1")] {
        let seen: std::net::IpAddr = peer_seen_by(&outside, server, &a).parse().unwrap();
        assert_eq!(seen, own.parse::<std::net::IpAddr>().unwrap());
    }
    assert_eq!(a.ip("link show dev eth0")[0]["mtu"], 1400);
    host.check(conf, &result, &a).ok();
    for pod in [&a, &b] {
        host.del(conf, pod).ok();
    }
    host.snapshot().assert_same_but_for_rules(&before);
}

/// Addresses that the configuration names; the second pod's come with the call.
#[test]
fn static_addresses_on_a_bridge() {
    let conf = &network(include_str!("../../examples/static.conflist"))[0];
    let host = Host::new();
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let result = host.add(conf, &a).ok();
    let mut of_b = conf.clone();
    of_b["args"] = json!({"cni": {"ips": ["10.70.0.11/24", "fd70::11/64"]}});
    host.add(&of_b, &b).ok();
    assert_eq!(a.addresses("eth0"), ["10.70.0.10/24", "fd70::10/64"]);
    assert_eq!(b.addresses("eth0"), ["10.70.0.11/24", "fd70::11/64"]);
    for address in ["10.70.0.11", "fd70::11", "10.70.0.1", "fd70::1"] {
        a.must_reach(address);
    }
    let dns = json!({"nameservers": ["10.70.0.1"], "search": ["example.org"]});
    assert_eq!(result["dns"], dns);
    let route = a.sh("ip route show 192.168.0.0/16");
    assert!(route.starts_with("192.168.0.0/16 via 10.70.0.254 dev eth0"), "{route}");
    host.check(conf, &result, &a).ok();
    host.del(conf, &a).ok();
    host.del(&of_b, &b).ok();
    host.snapshot().assert_nothing_but_shared(&before, "fixed0");
}

#[test]
fn the_loopback_interface_of_a_pod() {
    let conf = &network(include_str!("../../examples/loopback.conflist"))[0];
    let host = Host::new();
    let pod = host.pod("a");
    let call = |command| Call::new(&host, command, conf).of(&pod).env("CNI_IFNAME", "lo").run();
    let result = call("ADD").ok();
    let expected = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"mac": "00:00:00:00:00:00", "name": "lo", "sandbox": pod.path()}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
    });
    assert_eq!(result, expected);
    pod.must_reach("127.0.0.1");
    call("DEL").ok();
    assert!(!pod.reaches("127.0.0.1"));
}
