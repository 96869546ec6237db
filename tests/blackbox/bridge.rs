//! Plugin bridge: what each key of its configuration does, and what it refuses.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, bridge_conf, dual, ipv4, patience};

/// The one link of this name, as `ip -d link` tells it.
fn link(host: &Host, name: &str) -> Value {
    host.ip(&format!("link show dev {name}"))[0].clone()
}

/// Name of the host's end of the veth pair in a result.
fn host_end(result: &Value) -> String {
    result["interfaces"][1]["name"].as_str().unwrap().to_owned()
}

/// What `bridge -d link` tells of a port.
fn port(host: &Host, name: &str) -> Value {
    serde_json::from_str::<Value>(&host.sh(&format!("bridge -d -j link show dev {name}"))).unwrap()
        [0]
    .clone()
}

fn has_flag(link: &Value, flag: &str) -> bool {
    link["flags"].as_array().unwrap().iter().any(|f| f == flag)
}

/// Addresses of a link of the host, with prefix, but for the IPv6 link-local one.
fn addresses(host: &Host, name: &str) -> Vec<String> {
    let links = host.ip(&format!("addr show dev {name}"));
    let of_link = links[0]["addr_info"].as_array().unwrap().iter();
    let global = of_link.filter(|a| a["scope"] == "global");
    global.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect()
}

/// A pod's routes of both families, as ip-route(8) writes them; but for those that the kernel makes.
fn routes(pod: &Pod<'_>) -> Vec<String> {
    let text = pod.sh("ip -o -4 route; ip -o -6 route");
    let by_us = text.lines().filter(|line| !line.contains("proto kernel"));
    by_us.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_bridge_is_cni0_unless_another_is_named() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mut conf = bridge_conf(&json!({}));
    conf.as_object_mut().unwrap().remove("bridge");
    let result = host.add(&conf, &a).ok();
    assert_eq!(result["interfaces"][0]["name"], "cni0");
    assert_eq!(link(&host, "cni0")["linkinfo"]["info_kind"], "bridge");
    assert_eq!(link(&host, &host_end(&result))["master"], "cni0");
    let result = host.add(&bridge_conf(&json!({"bridge": "other-bridge.15"})), &b).ok();
    assert_eq!(result["interfaces"][0]["name"], "other-bridge.15");
    assert_eq!(link(&host, &host_end(&result))["master"], "other-bridge.15");
}

#[test]
fn a_link_that_is_no_bridge_is_not_used_as_one() {
    let host = Host::new();
    host.sh("ip link add br0 type veth peer name br1");
    let before = host.snapshot();
    let pod = host.pod("a");
    for (name, kind) in [("br0", "veth"), ("lo", "device")] {
        let conf = bridge_conf(&json!({"bridge": name, "ipam": ipv4()}));
        host.add(&conf, &pod).fails(7, &["bridge", name, kind]);
    }
    assert_eq!(host.snapshot(), before);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    for name in ["", "sixteen-bytes-xx", "a/b", ".", "..", "a b", "a:b"] {
        let conf = bridge_conf(&json!({"bridge": name}));
        host.add(&conf, &pod).fails(7, &["bridge", &format!("{name:?}")]);
    }
    assert_eq!(host.snapshot(), before);
}

#[test]
fn an_existing_bridge_is_used_as_it_is() {
    let host = Host::new();
    host.sh("ip link add br0 address 02:00:00:00:00:0b type bridge ageing_time 12300 stp_state 0
             ip link set br0 mtu 4000; ip addr add 192.0.2.1/24 dev br0
             ip addr add 2001:db8::1/64 dev br0
             ip link add port0 mtu 4000 type veth peer name other0
             ip link set port0 up master br0");
    let pod = host.pod("a");
    let conf = bridge_conf(&json!({"ipam": ipv4(), "mtu": 4000}));
    let settings = |host: &Host| {
        let link = link(host, "br0");
        let data = &link["linkinfo"]["info_data"];
        json!([
            link["mtu"],
            link["address"],
            link["promiscuity"],
            data["ageing_time"],
            data["vlan_filtering"],
            data["stp_state"]
        ])
    };
    let before = settings(&host);
    assert!(!has_flag(&link(&host, "br0"), "UP"));
    let result = host.add(&conf, &pod).ok();
    assert!(has_flag(&link(&host, "br0"), "UP"), "it is brought up");
    assert_eq!(settings(&host), before);
    assert_eq!(addresses(&host, "br0"), ["192.0.2.1/24", "2001:db8::1/64"], "no gateway asked for");
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:0b");
    assert_eq!(result["interfaces"][0]["mtu"], 4000);
    assert_eq!(link(&host, "port0")["master"], "br0");

    // An MTU below the bridge's, which an administrator has set, does not change it.
    let conf = bridge_conf(&json!({"ipam": ipv4(), "mtu": 1400}));
    let small = host.pod("small");
    let result = host.add(&conf, &small).ok();
    assert_eq!(link(&host, &host_end(&result))["mtu"], 1400);
    assert_eq!(settings(&host), before);
    for pod in [&pod, &small] {
        host.del(&conf, pod).ok();
    }
    assert_eq!(settings(&host), before);
    assert_eq!(link(&host, "port0")["master"], "br0");
}

#[test]
fn an_mtu_is_that_of_a_new_bridge_and_of_both_ends() {
    let host = Host::new();
    for (number, (mtu, expected)) in [
        (json!(0), 1500),
        (json!(null), 1500),
        (json!(68), 68),
        (json!(9000), 9000),
        (json!(65535), 65535),
    ]
    .into_iter()
    .enumerate()
    {
        let pod = host.pod(&format!("pod{number}"));
        let bridge = format!("br{number}");
        let result = host.add(&bridge_conf(&json!({"bridge": bridge, "mtu": mtu})), &pod).ok();
        assert_eq!(link(&host, &bridge)["mtu"], expected, "{mtu}");
        assert_eq!(link(&host, &host_end(&result))["mtu"], expected, "{mtu}");
        assert_eq!(pod.ip("link show dev eth0")[0]["mtu"], expected, "{mtu}");
        for interface in result["interfaces"].as_array().unwrap() {
            assert_eq!(interface["mtu"], expected, "{mtu}: {interface}");
        }
    }
    let before = host.snapshot();
    let pod = host.pod("refused");
    for mtu in [json!(1), json!(67), json!(65536), json!(-1), json!(4_294_967_296_u64)] {
        host.add(&bridge_conf(&json!({"mtu": mtu})), &pod).fails(7, &["mtu", &mtu.to_string()]);
    }
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_gateway_address_is_put_on_the_bridge_and_no_default_route_in_the_container() {
    let host = Host::new();
    let pods = host.pods(3);
    let plain = bridge_conf(&json!({"name": "plain", "bridge": "plain0", "ipam": dual()}));
    let result = host.add(&plain, &pods[0]).ok();
    assert_eq!(addresses(&host, "plain0"), [] as [&str; 0], "not unless asked for");
    assert_eq!(result["ips"][0]["gateway"], "10.1.0.1", "told all the same");

    let conf = bridge_conf(&json!({"isGateway": true, "ipam": dual()}));
    host.add(&conf, &pods[1]).ok();
    assert_eq!(addresses(&host, "br0"), ["10.1.0.1/16", "fd01::1/64"]);
    assert_eq!(routes(&pods[1]), [] as [&str; 0]);
    pods[1].must_reach("10.1.0.1");
    pods[1].must_reach("fd01::1");
    // Others' attachments find it there.
    host.add(&conf, &pods[2]).ok();
    assert_eq!(addresses(&host, "br0"), ["10.1.0.1/16", "fd01::1/64"]);
    host.del(&conf, &pods[1]).ok();
    host.del(&conf, &pods[2]).ok();
    assert_eq!(addresses(&host, "br0"), ["10.1.0.1/16", "fd01::1/64"], "it stays");
}

/// What an IPv4 broadcast address is: of the gateway's as of the container's.
#[test]
fn ipv4_addresses_have_their_broadcast_address() {
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&bridge_conf(&json!({"isGateway": true, "ipam": ipv4()})), &pod).ok();
    for links in [host.ip("-4 addr show dev br0"), pod.ip("-4 addr show dev eth0")] {
        assert_eq!(links[0]["addr_info"][0]["broadcast"], "10.1.255.255", "{links:#}");
    }
}

#[test]
fn a_gateway_that_address_management_does_not_name_is_the_networks_first_address() {
    let host = Host::new();
    host.scripted_ipam(&json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.7.3.9/20"}, {"address": "fd07::9/80"}],
    }));
    let pod = host.pod("a");
    let ipam = json!({"type": "scripted"});
    let conf = bridge_conf(&json!({"isDefaultGateway": true, "ipam": ipam}));
    let result = host.add(&conf, &pod).ok();
    assert_eq!(addresses(&host, "br0"), ["10.7.0.1/20", "fd07::1/80"]);
    assert_eq!(result["ips"][0]["gateway"], "10.7.0.1");
    assert_eq!(result["ips"][1]["gateway"], "fd07::1");
    assert_eq!(
        routes(&pod),
        ["default via 10.7.0.1 dev eth0", "default via fd07::1 dev eth0 metric 1024 pref medium"]
    );
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
    assert_eq!(host.read("/run/scripted.log"), "ADD\nCHECK\nDEL\n");
}

/// One default route for each family, unless address management has one with a next hop.
#[test]
fn default_routes_complete_those_of_address_management() {
    let default4 = |gateway: &str| format!("default via {gateway} dev eth0");
    let default6 =
        |gateway: &str| format!("default via {gateway} dev eth0 metric 1024 pref medium");
    let cases = [
        (json!([]), default4("10.1.0.1"), default6("fd01::1")),
        (json!([{"dst": "0.0.0.0/0"}]), default4("10.1.0.1"), default6("fd01::1")),
        (
            json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.77"}]),
            default4("10.1.0.77"),
            default6("fd01::1"),
        ),
        (json!([{"dst": "::/0", "gw": "fd01::77"}]), default4("10.1.0.1"), default6("fd01::77")),
        (
            json!([{"dst": "::/0", "gw": "fd01::77"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]),
            default4("10.1.0.1"),
            default6("fd01::77"),
        ),
    ];
    let host = Host::new();
    for (number, (of_ipam, ipv4, ipv6)) in cases.into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        let mut ipam = dual();
        ipam["routes"] = of_ipam.clone();
        let conf = bridge_conf(&json!({"isDefaultGateway": true, "ipam": ipam}));
        let result = host.add(&conf, &pod).ok();
        assert_eq!(routes(&pod), [ipv4, ipv6], "{of_ipam}");
        let told = result["routes"].as_array().unwrap();
        let defaults = |dst: &str| told.iter().filter(|route| route["dst"] == dst).count();
        assert_eq!((defaults("0.0.0.0/0"), defaults("::/0")), (1, 1), "{result:#}");
        host.check(&conf, &result, &pod).ok();
    }
    // A family that is not there has no default route.
    let pod = host.pod("ipv4");
    let conf = json!({"name": "n4", "bridge": "br4", "isDefaultGateway": true, "ipam": ipv4()});
    host.add(&bridge_conf(&conf), &pod).ok();
    assert_eq!(routes(&pod), [default4("10.1.0.1")]);
    assert_eq!(addresses(&host, "br4"), ["10.1.0.1/16"], "isDefaultGateway implies isGateway");
}

#[test]
fn the_host_forwards_the_families_that_it_is_a_gateway_for_and_no_others() {
    let ipv6 = json!({"type": "host-local", "ranges": [[{"subnet": "fd01::/64"}]]});
    let cases = [
        (json!({"ipam": dual()}), ["0", "0"]),
        (json!({"isGateway": true, "ipam": ipv4()}), ["1", "0"]),
        (json!({"isGateway": true, "ipam": ipv6}), ["0", "1"]),
        (json!({"isDefaultGateway": true, "ipam": dual()}), ["1", "1"]),
        (json!({"isGateway": true}), ["0", "0"]),
    ];
    let host = Host::new();
    let names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    for (number, (keys, expected)) in cases.into_iter().enumerate() {
        for name in names {
            host.sh(&format!("echo 0 > /proc/sys/net/{name}"));
        }
        let pod = host.pod(&format!("pod{number}"));
        let mut conf = bridge_conf(&keys);
        conf["bridge"] = json!(format!("br{number}"));
        conf["name"] = json!(format!("net{number}"));
        host.add(&conf, &pod).ok();
        assert_eq!(names.map(|name| host.sysctl(name)), expected, "{keys}");
        assert_eq!(pod.sysctl("ipv4/ip_forward"), "0", "the container does not: {keys}");
    }
}

#[test]
fn a_bridge_with_another_address_is_refused_unless_forced() {
    let host = Host::new();
    host.sh("ip link add br0 type bridge; ip link set br0 up");
    let pod = host.pod("a");
    let refused = bridge_conf(&json!({"isGateway": true, "ipam": dual()}));
    let forced = bridge_conf(&json!({"isGateway": true, "forceAddress": true, "ipam": dual()}));
    // Another IPv4 address, in the same network or not, and IPv6 addresses whose networks overlap.
    let cases =
        ["10.1.0.9/16", "192.0.2.1/24", "10.1.0.1/24", "fd01::9/64", "fd01::1/48", "fd01::1/128"];
    for address in cases {
        host.sh(&format!("ip addr flush dev br0 scope global; ip addr add {address} dev br0"));
        let before = host.snapshot();
        let words = ["br0", "already has an IP address different from", address, "forceAddress"];
        host.add(&refused, &pod).fails(999, &words);
        assert_eq!(host.snapshot(), before, "{address}");

        host.add(&forced, &pod).ok();
        assert_eq!(addresses(&host, "br0"), ["10.1.0.1/16", "fd01::1/64"], "{address}");
        pod.must_reach("10.1.0.1");
        pod.must_reach("fd01::1");
        host.del(&forced, &pod).ok();
    }
}

/// IPv6 addresses that don't overlap stand side by side, with force and without.
#[test]
fn ipv6_addresses_of_other_networks_stay() {
    let host = Host::new();
    host.sh("ip link add br0 type bridge; ip link set br0 up
             ip addr add fd02::1/64 dev br0; ip addr add 2001:db8::5/32 dev br0");
    for (name, force) in [("a", false), ("b", true)] {
        let pod = host.pod(name);
        let conf = bridge_conf(&json!({"isGateway": true, "forceAddress": force, "ipam": dual()}));
        host.add(&conf, &pod).ok();
        let expected = ["10.1.0.1/16", "2001:db8::5/32", "fd01::1/64", "fd02::1/64"];
        let found: BTreeSet<_> = addresses(&host, "br0").into_iter().collect();
        assert_eq!(found, expected.map(str::to_owned).into(), "forceAddress {force}");
    }
    // A third network on the same bridge.
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "fd03::/64"}]]});
    let conf = bridge_conf(&json!({"name": "third", "isGateway": true, "ipam": ipam}));
    host.add(&conf, &host.pod("c")).ok();
    assert!(addresses(&host, "br0").contains(&"fd03::1/64".to_owned()));
}

/// A gateway's address that is there already needs nobody to make way: an administrator's second
/// address beside it is none of the plugin's business, forced or not.
#[test]
fn a_bridge_that_has_the_gateways_address_keeps_its_others() {
    for force in [false, true] {
        let host = Host::new();
        host.sh("ip link add br0 type bridge; ip link set br0 up
                 ip addr add 10.1.0.1/16 dev br0; ip addr add 192.0.2.1/24 dev br0
                 ip addr add 10.1.0.5/16 dev br0");
        let conf = bridge_conf(&json!({"isGateway": true, "forceAddress": force, "ipam": ipv4()}));
        let pod = host.pod("a");
        let result = host.add(&conf, &pod).ok();
        let expected = ["10.1.0.1/16", "192.0.2.1/24", "10.1.0.5/16"];
        assert_eq!(addresses(&host, "br0"), expected, "forceAddress {force}");
        host.check(&conf, &result, &pod).ok();
    }
}

/// Two range sets of one family are two gateways, of which neither is in the other's way.
#[test]
fn two_gateways_of_one_family_stand_side_by_side() {
    let host = Host::new();
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}], [{"subnet": "fd01::/64"}]],
    });
    let conf = bridge_conf(&json!({"isDefaultGateway": true, "ipam": ipam}));
    let pods = host.pods(2);
    for pod in &pods {
        let result = host.add(&conf, pod).ok();
        assert_eq!(addresses(&host, "br0"), ["10.1.0.1/24", "10.2.0.1/24", "fd01::1/64"]);
        host.check(&conf, &result, pod).ok();
    }
    pods[0].must_reach("10.1.0.3");
    pods[0].must_reach("10.2.0.3");
    pods[0].must_reach("10.2.0.1");
}

/// containerd saw ten pods at once fail on the bridge's address; podman_12306 saw "already has an IP
/// address different from" without reason.
#[test]
fn containerd_3508_first_use_by_many_at_once_with_an_address_to_replace() {
    let host = Host::new();
    host.sh("ip link add br0 type bridge; ip link set br0 up
             ip addr add 192.0.2.1/24 dev br0; ip addr add fd01::9/64 dev br0");
    let conf =
        bridge_conf(&json!({"isDefaultGateway": true, "forceAddress": true, "ipam": dual()}));
    let pods = host.pods(8);
    let calls: Vec<_> = pods.iter().map(|pod| Call::new(&host, "ADD", &conf).of(pod)).collect();
    let children: Vec<_> = calls.iter().map(Call::start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(addresses(&host, "br0"), ["10.1.0.1/16", "fd01::1/64"]);
    for pod in &pods {
        pod.must_reach("10.1.0.1");
    }
}

#[test]
fn flags_of_the_port_are_as_asked_for() {
    let host = Host::new();
    let cases = [
        (json!({}), [false, false]),
        (json!({"hairpinMode": false, "portIsolation": false}), [false, false]),
        (json!({"hairpinMode": true}), [true, false]),
        (json!({"portIsolation": true}), [false, true]),
        (json!({"hairpinMode": true, "portIsolation": true}), [true, true]),
    ];
    for (number, (keys, expected)) in cases.into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        let conf = bridge_conf(&keys);
        let result = host.add(&conf, &pod).ok();
        let port = port(&host, &host_end(&result));
        assert_eq!(json!([port["hairpin"], port["isolated"]]), json!(expected), "{keys}: {port:#}");
        assert_eq!(port["state"], "forwarding");
        host.check(&conf, &result, &pod).ok();
    }
}

/// Two isolated ports don't reach each other, but whoever is not isolated.
#[test]
fn isolated_ports_reach_all_but_each_other() {
    let host = Host::new();
    let pods = host.pods(3);
    let isolated = bridge_conf(&json!({"isGateway": true, "portIsolation": true, "ipam": ipv4()}));
    let open = bridge_conf(&json!({"isGateway": true, "ipam": ipv4()}));
    host.add(&isolated, &pods[0]).ok();
    host.add(&isolated, &pods[1]).ok();
    host.add(&open, &pods[2]).ok();
    assert!(!pods[0].reaches("10.1.0.3"));
    pods[0].must_reach("10.1.0.4");
    pods[2].must_reach("10.1.0.3");
    pods[0].must_reach("10.1.0.1");
}

#[test]
fn promiscuous_mode_is_switched_on_and_never_off() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let plain = bridge_conf(&json!({}));
    let promiscuous = bridge_conf(&json!({"promiscMode": true}));
    host.add(&plain, &a).ok();
    assert!(!has_flag(&link(&host, "br0"), "PROMISC"));
    let result = host.add(&promiscuous, &b).ok();
    assert!(has_flag(&link(&host, "br0"), "PROMISC"), "of a bridge that exists, too");
    host.check(&promiscuous, &result, &b).ok();
    host.del(&promiscuous, &b).ok();
    host.add(&plain, &b).ok();
    assert!(has_flag(&link(&host, "br0"), "PROMISC"));
    let other = host.pod("c");
    host.add(&bridge_conf(&json!({"bridge": "br1", "promiscMode": true})), &other).ok();
    assert!(has_flag(&link(&host, "br1"), "PROMISC"), "of a new one");
}

#[test]
fn hairpin_and_promiscuous_mode_exclude_each_other() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let conf = bridge_conf(&json!({"hairpinMode": true, "promiscMode": true, "ipam": ipv4()}));
    host.add(&conf, &pod).fails(7, &["hairpinMode", "promiscMode"]);
    assert_eq!(host.snapshot(), before);
    host.del(&conf, &pod).ok();
}

/// A frame of the container's with this source address is seen by the bridge: it learns the address.
fn frame_gets_through(host: &Host, pod: &Pod<'_>, source: &str) -> bool {
    pod.sh(&format!(
        "ip link set dev eth0 address {source}; ip neigh replace 10.1.0.1 lladdr 02:00:00:00:00:ee dev eth0
         echo | socat - UDP4-SENDTO:10.1.0.1:9"
    ));
    let fdb: Value = serde_json::from_str(&host.sh("bridge -j fdb show br br0")).unwrap();
    fdb.as_array().unwrap().iter().any(|entry| entry["mac"] == source)
}

#[test]
fn forged_link_layer_addresses_are_dropped() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let guarded = bridge_conf(&json!({"macspoofchk": true, "ipam": ipv4()}));
    let result = host.add(&guarded, &a).ok();
    host.add(&bridge_conf(&json!({"ipam": ipv4()})), &b).ok();
    assert!(!frame_gets_through(&host, &a, "02:00:00:00:0a:0a"), "forged");
    assert!(frame_gets_through(&host, &b, "02:00:00:00:0b:0b"), "not guarded, so not dropped");
    assert!(frame_gets_through(&host, &a, result["interfaces"][2]["mac"].as_str().unwrap()));

    let mac = result["interfaces"][2]["mac"].as_str().unwrap();
    let expected = ["plumb:net/a/eth0".to_owned(), format!("plumb:net/a/eth0 {mac}")];
    assert_eq!(host.element_comments(), expected);
    let rules = host.ruleset("rule");
    assert_eq!(rules.len(), 1, "{rules:#?}");
    assert_eq!(rules[0]["family"], "bridge");
    // A second guarded container shares the rule.
    let c = host.pod("c");
    host.add(&guarded, &c).ok();
    assert_eq!(host.ruleset("rule"), rules);
    assert_eq!(host.element_comments().len(), 4);
    host.del(&guarded, &c).ok();
    assert_eq!(host.element_comments(), expected, "the other's stays");
}

/// The rules go whatever DEL is told, and whatever is left of the container.
#[test]
fn plugins_810_the_guard_goes_without_a_namespace() {
    let host = Host::new();
    let conf = bridge_conf(&json!({"macspoofchk": true, "ipam": ipv4()}));
    for (number, netns) in [Some(""), Some("/run/netns/gone"), None].into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        host.add(&conf, &pod).ok();
        assert_eq!(host.element_comments().len(), 2);
        let call = Call::new(&host, "DEL", &conf).of(&pod);
        let call = match netns {
            Some(path) => call.env("CNI_NETNS", path),
            None => call.without("CNI_NETNS"),
        };
        call.run().ok();
        assert_eq!(host.element_comments(), [] as [&str; 0], "CNI_NETNS {netns:?}");
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "the pair is gone, too");
        call.run().ok();
    }
}

/// The pod vanished without DEL; the next one of the same name has another address, and the old one's
/// must not pass.
#[test]
fn a_guard_left_behind_is_replaced_by_the_next() {
    let host = Host::new();
    let with = |mac: &str| {
        let args = json!({"cni": {"mac": mac}});
        bridge_conf(&json!({"macspoofchk": true, "ipam": ipv4(), "args": args}))
    };
    let old = host.pod("a");
    host.add(&with("02:00:00:00:00:01"), &old).ok();
    host.sh("ip netns del a; while ip link show type veth | grep -q veth; do sleep 0.01; done");
    assert_eq!(host.element_comments().len(), 2, "left behind");
    let pod = host.pod("a");
    let conf = with("02:00:00:00:00:02");
    let result = host.add(&conf, &pod).ok();
    let expected = ["plumb:net/a/eth0", "plumb:net/a/eth0 02:00:00:00:00:02"];
    assert_eq!(host.element_comments(), expected);
    host.check(&conf, &result, &pod).ok();
    assert!(!frame_gets_through(&host, &pod, "02:00:00:00:00:01"));
    assert!(frame_gets_through(&host, &pod, "02:00:00:00:00:02"));
}

fn tentative(pod: &Pod<'_>) -> Vec<String> {
    let links = pod.ip("-6 addr show dev eth0");
    let found = links[0]["addr_info"].as_array().unwrap();
    assert!(!found.is_empty(), "{links:#}");
    let tentative = found.iter().filter(|address| address["tentative"] == true);
    tentative.map(|address| address["local"].to_string()).collect()
}

#[test]
fn plugins_680_addresses_are_usable_at_once_without_waiting() {
    let host = Host::new();
    for (number, keys) in
        [json!({"isDefaultGateway": true, "ipam": dual()}), json!({})].into_iter().enumerate()
    {
        let pod = host.pod(&format!("pod{number}"));
        let mut conf = bridge_conf(&keys);
        conf["bridge"] = json!(format!("br{number}"));
        let trace = tempfile::NamedTempFile::new().unwrap();
        let path = trace.path().to_str().unwrap();
        // To listen for changes of IPv6 addresses is what waiting for DAD begins with.
        let waits = "trace=bind,select,pselect6,epoll_wait,epoll_pwait,nanosleep,clock_nanosleep";
        let call = Call::new(&host, "ADD", &conf).of(&pod);
        call.under(&["strace", "-f", "-qq", "-o", path, "-e", waits]).run().ok();
        // The kernel has a worker of its own find that there is nothing to ask; to ask takes a second.
        let began = Instant::now();
        while !tentative(&pod).is_empty() {
            assert!(began.elapsed() < patience(Duration::from_millis(500)), "{keys}");
        }
        let trace = std::fs::read_to_string(path).unwrap();
        // What may be waited for, on a busy machine, is the bridge's port: RTMGRP_LINK.
        let mut others = trace.lines().filter(|line| !line.contains("nl_groups=0x000001}"));
        assert_eq!(others.next(), None, "nothing is waited for: {trace}");
        assert_eq!(pod.sysctl("ipv6/conf/eth0/accept_dad"), "0", "{keys}");
    }
    // Without IPv6 addresses nobody waits for the link-local one, and no setting is touched.
    let pod = host.pod("ipv4");
    let default = pod.sysctl("ipv6/conf/default/accept_dad");
    host.add(&bridge_conf(&json!({"ipam": ipv4()})), &pod).ok();
    assert_eq!(pod.sysctl("ipv6/conf/eth0/accept_dad"), default);
}

#[test]
fn enabledad_asks_the_neighbours_and_waits_for_their_silence() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = bridge_conf(&json!({"isDefaultGateway": true, "enabledad": true, "ipam": dual()}));
    let before = host.snapshot();
    a.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
          echo 0 > /proc/sys/net/ipv6/conf/default/enhanced_dad");
    let result = host.add(&conf, &a).ok();
    for name in ["accept_dad", "enhanced_dad"] {
        assert_eq!(a.sysctl(&format!("ipv6/conf/eth0/{name}")), "1", "{name}");
    }
    let global = tentative(&a).into_iter().filter(|address| address.contains("fd01"));
    assert_eq!(global.collect::<Vec<_>>(), [] as [&str; 0], "ADD returns when it is usable");
    host.check(&conf, &result, &a).ok();

    // The address that comes next is in use.
    a.sh("ip addr add fd01::3/64 dev eth0 nodad");
    let error = host.add(&conf, &b).fails(999, &["fd01::3", "in use by a neighbour"]);
    assert_eq!(b.ip("link show").as_array().unwrap().len(), 1, "{error}");
    assert_eq!(host.leases("net"), ["10.1.0.2", "fd01::2"]);
    host.del(&conf, &a).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn a_containers_interface_can_be_left_down() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = bridge_conf(&json!({"disableContainerInterface": true, "macspoofchk": true}));
    let result = host.add(&conf, &pod).ok();
    let eth0 = pod.ip("link show dev eth0")[0].clone();
    assert!(!has_flag(&eth0, "UP"), "{eth0:#}");
    assert_eq!(result["interfaces"][2]["mac"], eth0["address"]);
    assert_eq!(link(&host, &host_end(&result))["master"], "br0");
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();

    let before = host.snapshot();
    let conf = bridge_conf(&json!({"disableContainerInterface": true, "ipam": ipv4()}));
    host.add(&conf, &pod).fails(7, &["disableContainerInterface", "ipam"]);
    assert_eq!(host.snapshot(), before);
    for none in [json!(null), json!({}), json!({"type": ""})] {
        let conf = bridge_conf(&json!({"disableContainerInterface": true, "ipam": none}));
        host.add(&conf, &pod).ok();
        host.del(&conf, &pod).ok();
    }
}

/// VLANs that there are: see bridge_vlan.rs.
#[test]
fn vlans_that_are_none_are_refused() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let add = |keys: &Value| {
        let mut conf = bridge_conf(keys);
        conf["ipam"] = ipv4();
        host.add(&conf, &pod)
    };
    for (keys, named) in [
        (json!({"vlan": 4095}), "vlan"),
        (json!({"vlan": -1}), "vlan"),
        (json!({"vlanTrunk": [{"id": 0}]}), "vlanTrunk[0].id"),
        (json!({"vlanTrunk": [{"id": 1}, {"id": 4095}]}), "vlanTrunk[1].id"),
        (json!({"vlanTrunk": [{"minID": 5}]}), "vlanTrunk[0]"),
        (json!({"vlanTrunk": [{"maxID": 5}]}), "vlanTrunk[0]"),
        (json!({"vlanTrunk": [{"id": 5, "maxID": 5}]}), "vlanTrunk[0]"),
        (json!({"vlanTrunk": [{"minID": 6, "maxID": 5}]}), "vlanTrunk[0]"),
        (json!({"vlanTrunk": [{"minID": 0, "maxID": 5}]}), "vlanTrunk[0].minID"),
        (json!({"vlanTrunk": [{"minID": 1, "maxID": 4095}]}), "vlanTrunk[0].maxID"),
    ] {
        let error = add(&keys).fails(7, &[named]);
        assert!(error["msg"].as_str().unwrap().starts_with(&format!("{named}: ")), "{error:#}");
    }
    assert_eq!(host.snapshot(), before);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    // Said explicitly, no VLAN is still none.
    for keys in [
        json!({"vlan": 0, "preserveDefaultVlan": true}),
        json!({"vlanTrunk": [], "preserveDefaultVlan": false}),
        json!({"vlanTrunk": [{}]}),
        json!({"vlan": null, "vlanTrunk": null}),
    ] {
        add(&keys).ok();
        host.del(&bridge_conf(&json!({"ipam": ipv4()})), &pod).ok();
    }
    // An attachment of the reference's can still be deleted.
    host.del(&bridge_conf(&json!({"vlan": 5, "ipam": ipv4()})), &pod).ok();
}

#[test]
fn both_backends_of_masquerading_are_served_by_the_same_rules() {
    let host = Host::new();
    let mut comments = Vec::new();
    for (number, backend) in
        [json!("iptables"), json!("nftables"), json!(null), json!("")].into_iter().enumerate()
    {
        let pod = host.pod(&format!("pod{number}"));
        let conf = bridge_conf(&json!({"ipMasq": true, "ipMasqBackend": backend, "ipam": ipv4()}));
        let result = host.add(&conf, &pod).ok();
        comments.push(format!("plumb:net/pod{number}/eth0"));
        assert_eq!(host.element_comments(), comments, "{backend}");
        assert_eq!(host.ruleset("rule").len(), 1);
        host.check(&conf, &result, &pod).ok();
    }
    let pod = host.pod("refused");
    let before = host.snapshot();
    for backend in ["ipvs", "IPTABLES", "nft"] {
        let keys = json!({"ipMasq": true, "ipMasqBackend": backend, "ipam": ipv4()});
        host.add(&bridge_conf(&keys), &pod).fails(7, &["ipMasqBackend", backend, "nftables"]);
    }
    assert_eq!(host.snapshot(), before);
    // Without addresses there is nothing to masquerade.
    host.add(&bridge_conf(&json!({"ipMasq": true, "bridge": "br1"})), &pod).ok();
    assert_eq!(host.element_comments(), comments);
}

#[test]
fn dns_of_the_configuration_takes_the_place_of_address_managements() {
    let host = Host::new();
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\nsearch ipam.example\n");
    let mut ipam = ipv4();
    ipam["resolvConf"] = json!("/run/resolv.conf");
    let of_ipam = json!({"nameservers": ["192.0.2.53"], "search": ["ipam.example"]});
    let cases = [
        (json!(null), of_ipam.clone()),
        (json!({}), of_ipam.clone()),
        (json!({"nameservers": []}), of_ipam),
        (json!({"domain": "conf.example"}), json!({"domain": "conf.example"})),
        (
            json!({"nameservers": ["fd01::53"], "search": ["a", "b"], "options": ["ndots:5"]}),
            json!({"nameservers": ["fd01::53"], "search": ["a", "b"], "options": ["ndots:5"]}),
        ),
    ];
    for (number, (dns, expected)) in cases.into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        let result = host.add(&bridge_conf(&json!({"dns": dns, "ipam": ipam})), &pod).ok();
        assert_eq!(result["dns"], expected, "{dns}");
    }
}

/// `runtimeConfig.mac` over `args.cni.mac` over `MAC` in `CNI_ARGS`.
#[test]
fn the_containers_address_comes_from_three_places() {
    let host = Host::new();
    let (runtime, args, env) = ("02:00:00:00:00:01", "02-00-00-00-00-02", "0200.0000.0003");
    let cases = [
        (
            json!({"runtimeConfig": {"mac": runtime}, "args": {"cni": {"mac": args}}}),
            Some(env),
            "01",
        ),
        (json!({"args": {"cni": {"mac": args}}}), Some(env), "02"),
        (json!({"runtimeConfig": {"mac": ""}, "args": {"cni": {"mac": null}}}), Some(env), "03"),
        (json!({"runtimeConfig": {"mac": runtime}}), None, "01"),
        (json!({"args": {"cni": {}}, "runtimeConfig": {}}), Some(env), "03"),
    ];
    for (number, (keys, variable, last)) in cases.into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        let mut call = Call::new(&host, "ADD", &bridge_conf(&keys)).of(&pod);
        if let Some(mac) = variable {
            call = call.env("CNI_ARGS", &format!("IgnoreUnknown=1;K8S_POD_NAME=x;MAC={mac}"));
        }
        let result = call.run().ok();
        let expected = format!("02:00:00:00:00:{last}");
        assert_eq!(result["interfaces"][2]["mac"], expected, "{keys}");
        assert_eq!(pod.ip("link show dev eth0")[0]["address"], expected, "{keys}");
    }
    let before = host.snapshot();
    let pod = host.pod("refused");
    for mac in
        ["02:00:00:00:00", "01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "x"]
    {
        for (keys, named) in [
            (json!({"runtimeConfig": {"mac": mac}}), "runtimeConfig.mac"),
            (json!({"args": {"cni": {"mac": mac}}}), "args.cni.mac"),
        ] {
            host.add(&bridge_conf(&keys), &pod).fails(7, &[named, mac]);
        }
        let call = Call::new(&host, "ADD", &bridge_conf(&json!({"ipam": ipv4()}))).of(&pod);
        call.env("CNI_ARGS", &format!("MAC={mac}")).run().fails(4, &["CNI_ARGS", "MAC", mac]);
    }
    assert_eq!(host.snapshot(), before);
}

/// Another container that gets the address later gets the link-layer address with it, so that what
/// neighbours know of it still holds.
#[test]
fn cni_194_an_ip_address_has_always_the_same_link_layer_address() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = bridge_conf(&json!({"ipam": ipv4()}));
    let mut asked = conf.clone();
    asked["args"] = json!({"cni": {"ips": ["10.1.0.50"]}});
    let first = host.add(&asked, &a).ok();
    host.del(&asked, &a).ok();
    let second = host.add(&asked, &b).ok();
    assert_eq!(first["ips"][0]["address"], "10.1.0.50/16");
    assert_eq!(first["interfaces"][2]["mac"], second["interfaces"][2]["mac"]);
    let third = host.add(&conf, &a).ok();
    assert_ne!(first["interfaces"][2]["mac"], third["interfaces"][2]["mac"]);
}

#[test]
fn both_ends_of_a_pair_are_as_an_operator_wants_to_find_them() {
    let host = Host::new();
    // A link of the container's name on the host is in nobody's way.
    host.sh("ip link add eth0 type veth peer name eth1");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = bridge_conf(&json!({"isGateway": true, "ipam": dual()}));
    let result = host.add(&conf, &a).ok();
    let name = host_end(&result);
    let end = link(&host, &name);
    assert!(name.len() == 15 && name.starts_with("veth"), "{name}");
    assert_eq!(end["ifalias"], "plumb:net/a/eth0");
    assert_eq!(end["master"], "br0");
    assert_eq!(end["operstate"], "UP");
    assert_eq!(end["address"], result["interfaces"][1]["mac"]);
    assert_eq!((&end["num_tx_queues"], &end["num_rx_queues"]), (&json!(1), &json!(1)));
    assert_eq!(end["linkinfo"]["info_kind"], "veth");
    assert_eq!(host.ip(&format!("addr show dev {name}"))[0]["addr_info"], json!([]), "no address");
    assert_eq!(host.sysctl(&format!("ipv6/conf/{name}/disable_ipv6")), "1");

    let eth0 = a.ip("link show dev eth0")[0].clone();
    assert_eq!(eth0["address"], result["interfaces"][2]["mac"]);
    assert_eq!((&eth0["num_tx_queues"], &eth0["num_rx_queues"]), (&json!(1), &json!(1)));
    assert_eq!(eth0["link_index"], end["ifindex"]);
    assert_eq!(eth0["operstate"], "UP");
    assert_eq!(a.sysctl("ipv4/conf/eth0/arp_notify"), "1");
    assert_eq!(link(&host, "eth0")["link"], "eth1", "the host's own is as it was");

    // The names follow from the attachment alone.
    host.del(&conf, &a).ok();
    assert_eq!(host_end(&host.add(&conf, &a).ok()), name);
    let other = host.add(&conf, &b).ok();
    assert_ne!(host_end(&other), name);
    assert_ne!(other["interfaces"][1]["mac"], result["interfaces"][1]["mac"]);
}

/// Assigned by somebody (`NET_ADDR_SET`), so that udev leaves it alone, and a bridge does not take
/// another port's.
#[test]
fn plugins_805_link_layer_addresses_count_as_set() {
    let host = Host::new();
    let pod = host.pod("a");
    let result = host.add(&bridge_conf(&json!({})), &pod).ok();
    for name in ["br0", &host_end(&result)] {
        let kind = host.sh(&format!(
            "mkdir -p /run/sys; mount -t sysfs none /run/sys
             cat /run/sys/class/net/{name}/addr_assign_type; umount /run/sys"
        ));
        assert_eq!(kind.trim(), "3", "{name}");
    }
}

#[test]
fn a_bridge_heeds_no_router_advertisements() {
    let host = Host::new();
    host.sh("echo 1 > /proc/sys/net/ipv6/conf/default/accept_ra");
    let pod = host.pod("a");
    host.add(&bridge_conf(&json!({})), &pod).ok();
    assert_eq!(host.sysctl("ipv6/conf/br0/accept_ra"), "0");
    assert_eq!(host.sysctl("ipv6/conf/default/accept_ra"), "1");
}

/// A pod could turn the host's IPv6 traffic to itself, through a bridge that somebody made beforehand.
#[test]
fn cve_2020_10749_nor_does_a_bridge_that_was_there_before() {
    let host = Host::new();
    host.sh("ip link add br0 type bridge; ip link set br0 up");
    host.sh("echo 2 > /proc/sys/net/ipv6/conf/br0/accept_ra");
    host.add(&bridge_conf(&json!({})), &host.pod("a")).ok();
    assert_eq!(host.sysctl("ipv6/conf/br0/accept_ra"), "0");
    // Where settings can't be written, the network works all the same, and that is told.
    host.sh("echo 1 > /proc/sys/net/ipv6/conf/br0/accept_ra
             mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys");
    let outcome = host.add(&bridge_conf(&json!({"ipam": ipv4()})), &host.pod("b"));
    outcome.ok();
    assert!(outcome.stderr.contains("ipv6/conf/br0/accept_ra"), "{outcome:#?}");
}

#[test]
fn a_name_that_the_kernel_would_complete_is_refused() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    host.add(&bridge_conf(&json!({"bridge": "br%d"})), &pod).fails(7, &["bridge", "br%d", "'%'"]);
    let call = Call::new(&host, "ADD", &bridge_conf(&json!({}))).of(&pod);
    call.env("CNI_IFNAME", "eth%d").run().fails(4, &["CNI_IFNAME", "eth%d", "'%'"]);
    assert_eq!(host.snapshot(), before);
}

/// After a flush the sets were there and no rule asked for them: new pods were not checked.
#[test]
fn macspoofchk_is_in_force_also_after_a_flush() {
    let host = Host::new();
    let conf = bridge_conf(&json!({"macspoofchk": true, "isGateway": true, "ipam": ipv4()}));
    for (number, flush) in
        ["table bridge plumb", "chain bridge plumb prerouting"].iter().enumerate()
    {
        let name = format!("p{number}");
        let pod = host.pod(&name);
        host.add(&conf, &pod).ok();
        host.sh(&format!("nft flush {flush}"));
        let other = host.pod(&format!("q{number}"));
        let result = host.add(&conf, &other).ok();
        host.check(&conf, &result, &other).ok();
        other.must_reach("10.1.0.1");
        other.sh("ip link set dev eth0 address 02:00:00:00:00:99");
        assert!(!other.reaches("10.1.0.1"), "{flush}: a forged address is let through");
        host.del(&conf, &pod).ok();
        host.del(&conf, &other).ok();
    }
    assert_eq!(host.ruleset("rule").len(), 1, "{:#?}", host.ruleset("rule"));
    // One of the two elements of an attachment has gone.
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    host.sh("nft flush set bridge plumb guarded");
    host.del(&conf, &pod).ok();
    let result = host.add(&conf, &pod).ok();
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
    host.gc(&conf, &[]).ok();
    assert_eq!(host.element_comments(), [] as [&str; 0]);
}

/// The bridge's address changed with the lowest of its ports', and took pods off the net for half a
/// minute.
#[test]
fn flannel_1381_a_bridge_keeps_its_address_while_ports_come_and_go() {
    let host = Host::new();
    host.sh("mount -t tmpfs none /etc; echo 0123456789abcdef0123456789abcdef > /etc/machine-id");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mac = |host: &Host| link(host, "br0")["address"].as_str().unwrap().to_owned();
    // L2, and with a gateway; the lowest address that there can be, and the highest.
    let lowest = bridge_conf(&json!({"args": {"cni": {"mac": "00:00:00:00:00:01"}}}));
    let gateway = bridge_conf(&json!({"name": "g", "isGateway": true, "ipam": dual()}));
    let first = host.add(&lowest, &a).ok();
    let address = mac(&host);
    assert_eq!(first["interfaces"][0]["mac"], address);
    let second = host.add(&gateway, &b).ok();
    assert_eq!(second["interfaces"][0]["mac"], address);
    host.sh("ip link add zero address 00:00:00:00:00:02 type veth peer name one
             ip link set zero master br0 up");
    assert_eq!(mac(&host), address, "a lower one comes");
    host.sh("ip link del zero");
    host.del(&lowest, &a).ok();
    assert_eq!(mac(&host), address, "one goes");
    host.del(&gateway, &b).ok();
    assert_eq!(mac(&host), address, "all have gone");

    host.sh("ip link del br0");
    host.add(&gateway, &a).ok();
    assert_eq!(mac(&host), address, "a new bridge of the same name");
    host.add(&bridge_conf(&json!({"bridge": "br1"})), &b).ok();
    assert_ne!(link(&host, "br1")["address"], address, "another bridge");
    host.del(&gateway, &a).ok();
    host.sh("ip link del br0; echo 0123456789abcdef0123456789abcdee > /etc/machine-id");
    host.add(&gateway, &a).ok();
    assert_ne!(mac(&host), address, "another machine, which may be on the same link");
    // A machine without identity gets an address all the same.
    host.del(&gateway, &a).ok();
    host.sh("ip link del br0; rm /etc/machine-id");
    let result = host.add(&gateway, &a).ok();
    assert_eq!(result["interfaces"][0]["mac"], mac(&host));
}

/// The result named the address that a bridge had before the container's port came, where that changed
/// it; one that has become a gateway keeps its address from then on.
#[test]
fn cni_285_the_address_of_a_bridge_made_by_others_is_told_as_it_is_in_the_end() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mac = |host: &Host| link(host, "br0")["address"].clone();
    host.sh("ip link add br0 type bridge; ip link set br0 up");
    let conf = bridge_conf(&json!({"ipam": ipv4()}));
    let result = host.add(&conf, &a).ok();
    assert_eq!(result["interfaces"][0]["mac"], mac(&host), "after the first port");
    host.check(&conf, &result, &a).ok();

    let conf = bridge_conf(&json!({"isGateway": true, "ipam": ipv4()}));
    let result = host.add(&conf, &b).ok();
    let address = mac(&host);
    assert_eq!(result["interfaces"][0]["mac"], address);
    host.sh("ip link add zero address 00:00:00:00:00:02 type veth peer name one
             ip link set zero master br0 up");
    assert_eq!(mac(&host), address, "a lower one comes");
    host.check(&conf, &result, &b).ok();
    host.del(&conf, &a).ok();
    host.del(&conf, &b).ok();
    host.sh("ip link del zero");
    assert_eq!(mac(&host), address, "all have gone");
}

#[test]
fn a_container_has_two_interfaces_on_two_networks_and_on_one() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let keys = json!({"isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": ipv4()});
    let one = bridge_conf(&keys);
    let mut two = bridge_conf(&keys);
    two["name"] = json!("two");
    two["bridge"] = json!("br2");
    two["ipam"] = json!({"type": "host-local", "subnet": "10.2.0.0/24"});
    let call = |command: &str, conf: &Value, ifname: &str| {
        Call::new(&host, command, conf).of(&pod).env("CNI_IFNAME", ifname)
    };
    let attachments = [(&one, "eth0"), (&one, "net1"), (&two, "net2")];
    let mut results = Vec::new();
    for (conf, ifname) in attachments {
        let result = call("ADD", conf, ifname).run().ok();
        assert_eq!(result["interfaces"][2]["name"], ifname);
        results.push(result);
    }
    let address = |at: usize| results[at]["ips"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!([0, 1, 2].map(address), ["10.1.0.2/16", "10.1.0.3/16", "10.2.0.2/24"]);
    for ((_, ifname), at) in attachments.iter().zip(0..) {
        assert_eq!(pod.addresses(ifname), [address(at)]);
    }
    assert_eq!(host.leases("net"), ["10.1.0.2", "10.1.0.3"]);
    assert_eq!(host.leases("two"), ["10.2.0.2"]);
    let names: BTreeSet<_> = results.iter().map(host_end).collect();
    assert_eq!(names.len(), 3);
    let checks = |among: &[usize]| {
        for at in among {
            let (conf, ifname) = attachments[*at];
            let mut conf = conf.clone();
            conf["prevResult"] = results[*at].clone();
            call("CHECK", &conf, ifname).run().ok();
        }
    };
    checks(&[0, 1, 2]);

    // Each goes alone, and leaves the others as they are.
    call("DEL", &one, "eth0").run().ok();
    checks(&[1, 2]);
    assert_eq!(host.leases("net"), ["10.1.0.3"]);
    call("DEL", &two, "net2").run().ok();
    checks(&[1]);
    pod.must_reach("10.1.0.1");
    let of_second = |comment: &String| comment.starts_with("plumb:net/a/net1");
    let comments = host.element_comments();
    assert!(comments.len() == 3 && comments.iter().all(of_second), "{comments:?}");
    call("DEL", &one, "net1").run().ok();
    host.sh("ip link del br2");
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// The same container ID and interface name on two networks, which is two containers to them.
#[test]
fn names_are_apart_from_network_to_network() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = |name: &str| {
        let keys = json!({"name": name, "isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": ipv4()});
        bridge_conf(&keys)
    };
    let call = |command: &str, name: &str, pod: &Pod<'_>| {
        Call::new(&host, command, &conf(name)).of(pod).env("CNI_CONTAINERID", "same")
    };
    let first = call("ADD", "one", &a).run().ok();
    let mut wide = conf("two");
    wide["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/16", "rangeStart": "10.1.9.1"}]]);
    Call::new(&host, "ADD", &wide).of(&b).env("CNI_CONTAINERID", "same").run().ok();
    call("DEL", "two", &b).run().ok();
    let comments = host.element_comments();
    assert_eq!(comments.len(), 3, "{comments:?}");
    assert!(comments.iter().all(|c| c.starts_with("plumb:one/same/eth0")), "{comments:?}");
    let mut check = conf("one");
    check["prevResult"] = first;
    Call::new(&host, "CHECK", &check).of(&a).env("CNI_CONTAINERID", "same").run().ok();
    call("DEL", "one", &a).run().ok();
    assert_eq!(host.element_comments(), [] as [&str; 0]);
}

#[test]
fn a_namespace_can_be_given_by_its_process() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut process = pod.command("cat").stdin(Stdio::piped()).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", process.id());
    let conf = bridge_conf(&json!({"isGateway": true, "ipMasq": true, "ipam": dual()}));
    let result = Call::new(&host, "ADD", &conf).of(&pod).env("CNI_NETNS", &path).run().ok();
    assert_eq!(result["interfaces"][2]["sandbox"], path);
    pod.must_reach("10.1.0.1");
    let mut check = conf.clone();
    check["prevResult"] = result;
    Call::new(&host, "CHECK", &check).of(&pod).env("CNI_NETNS", &path).run().ok();
    drop(process.stdin.take());
    process.wait().unwrap();
    // The process is gone, and its path with it; the namespace, mounted elsewhere, is not.
    Call::new(&host, "DEL", &conf).of(&pod).env("CNI_NETNS", &path).run().ok();
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    assert_eq!(host.element_comments(), [] as [&str; 0]);
}

#[test]
fn results_name_bridge_host_end_and_container_end_in_every_version() {
    let host = Host::new();
    for (number, version) in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        let keys =
            json!({"cniVersion": version, "isDefaultGateway": true, "mtu": 1400, "ipam": dual()});
        let result = host.add(&bridge_conf(&keys), &pod).ok();
        let name = host_end(&result);
        let mut expected = json!([
            {"name": "br0", "mac": link(&host, "br0")["address"]},
            {"name": name, "mac": link(&host, &name)["address"]},
            {
                "name": "eth0",
                "mac": pod.ip("link show dev eth0")[0]["address"],
                "sandbox": pod.path(),
            },
        ]);
        if version == "1.1.0" {
            for interface in expected.as_array_mut().unwrap() {
                interface["mtu"] = json!(1400);
            }
        }
        assert_eq!(result["interfaces"], expected, "{version}");
        for ip in result["ips"].as_array().unwrap() {
            assert_eq!(ip["interface"], 2, "{version}: {ip}");
        }
    }
}

/// An address outlives its interface going down, as the reference has it; the route through it doesn't,
/// nor does that of IPv4.
#[test]
fn ipv6_addresses_stay_when_the_interface_goes_down() {
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&bridge_conf(&json!({"ipam": dual()})), &pod).ok();
    pod.sh("ip link set eth0 down; ip link set eth0 up");
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/16", "fd01::2/64"]);
}

/// Nothing of a living attachment changes when it is added again by mistake.
#[test]
fn a_second_add_is_refused_and_changes_nothing() {
    let host = Host::new();
    let pod = host.pod("a");
    let first = bridge_conf(
        &json!({"isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": dual()}),
    );
    let result = host.add(&first, &pod).ok();
    let name = host_end(&result);
    let alias = |host: &Host| link(host, &name)["ifalias"].clone();
    let before = (host.snapshot(), port(&host, &name), alias(&host));
    let mut second = first.clone();
    second["hairpinMode"] = json!(true);
    second["portIsolation"] = json!(true);
    host.add(&second, &pod).fails(999, &["eth0", "already exists", "DEL"]);
    assert_eq!((host.snapshot(), port(&host, &name), alias(&host)), before);
    host.check(&first, &result, &pod).ok();
}

/// A link that by chance bears the name which the host's end is to have.
#[test]
fn a_link_of_another_that_has_the_name_is_left_alone() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = bridge_conf(&json!({"ipam": ipv4()}));
    let name = host_end(&host.add(&conf, &pod).ok());
    host.del(&conf, &pod).ok();
    for alias in ["mine", "plumb:net/b/eth0"] {
        host.sh(&format!(
            "ip link add {name} type veth peer name x; ip link set {name} alias {alias}"
        ));
        let before = (host.snapshot(), link(&host, &name));
        host.add(&conf, &pod).fails(999, &[&name, alias]);
        assert_eq!((host.snapshot(), link(&host, &name)), before);
        assert_eq!(host.leases("net"), [] as [&str; 0]);
        host.sh(&format!("ip link del {name}"));
    }
}

/// The pod's namespace was replaced, with the attachment's pair left in the old one.
#[test]
fn a_pair_left_in_a_lost_namespace_makes_way() {
    let host = Host::new();
    let (old, new) = (host.pod("old"), host.pod("new"));
    let conf = bridge_conf(&json!({"isGateway": true, "ipMasq": true, "ipam": ipv4()}));
    let call = |pod: &Pod<'_>| Call::new(&host, "ADD", &conf).of(pod).env("CNI_CONTAINERID", "c");
    let first = call(&old).run().ok();
    let second = call(&new).run().ok();
    assert_eq!(first["ips"], second["ips"], "the addresses are still its own");
    assert_eq!(old.ip("link show").as_array().unwrap().len(), 1);
    new.must_reach("10.1.0.1");
}
