//! `ipMasq`: who is masqueraded and who is not, as seen from the other end, and the rules' life as
//! nft(8) shows it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, bridge_conf, dual, ipv4};
use crate::real_input::{outside, peer_seen_by};

fn masqueraded(keys: &Value) -> Value {
    let mut conf = bridge_conf(keys);
    conf["isDefaultGateway"] = json!(true);
    conf["ipMasq"] = json!(true);
    conf
}

/// A second network, of other lengths of prefix.
fn second() -> Value {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd02::/112"}]],
    });
    masqueraded(&json!({"name": "second", "bridge": "br2", "ipam": ipam}))
}

/// Whom `receiver` sees to be the sender of a datagram that `send` sends.
fn datagram_seen(receiver: &Pod<'_>, listen: &str, send: impl Fn()) -> String {
    let mut socat = receiver.command("socat");
    socat.args(["-u", listen, "SYSTEM:printenv SOCAT_PEERADDR"]).stdout(Stdio::piped());
    let mut child = socat.spawn().unwrap();
    for _ in 0..250 {
        send();
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            return text.trim().trim_matches(['[', ']']).to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    panic!("nothing arrived at {listen}");
}

fn same(left: &str, right: &str) {
    let parse = |text: &str| text.parse::<std::net::IpAddr>();
    assert_eq!(parse(left), parse(right), "{left} and {right}");
}

#[test]
fn what_leaves_the_network_is_masqueraded_and_nothing_else() {
    let host = Host::new();
    let outside = outside(&host);
    let pod = host.pod("a");
    host.add(&masqueraded(&json!({"ipam": dual()})), &pod).ok();

    same(&peer_seen_by(&outside, "10.99.0.2", &pod), "10.99.0.1");
    same(&peer_seen_by(&outside, "fd99::2", &pod), "fd99::1");

    // A part of the network that is behind another link of the host: the host routes to it.
    let inside = host.pod("inside");
    host.sh("ip link add part type veth peer name eth0 netns inside; ip link set part up
             ip addr add 10.1.200.1/24 dev part; ip addr add fd01::c8:1/112 dev part nodad
             echo 1 > /proc/sys/net/ipv4/conf/br0/proxy_arp
             echo 1 > /proc/sys/net/ipv6/conf/br0/proxy_ndp
             ip -6 neigh add proxy fd01::c8:2 dev br0");
    inside.sh("ip addr add 10.1.200.2/24 dev eth0; ip addr add fd01::c8:2/112 dev eth0 nodad
               ip link set lo up; ip link set eth0 up
               ip route add default via 10.1.200.1; ip route add default via fd01::c8:1");
    same(&peer_seen_by(&inside, "10.1.200.2", &pod), "10.1.0.2");
    same(&peer_seen_by(&inside, "fd01::c8:2", &pod), "fd01::2");
}

/// The gateway, and the host by its other addresses, see the container itself.
#[test]
fn the_host_sees_containers_by_their_own_addresses() {
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&masqueraded(&json!({"ipam": dual()})), &pod).ok();
    host.sh(
        "ip link add other type bridge; ip link set other up; ip addr add 192.0.2.9/24 dev other",
    );
    for (server, own) in
        [("10.1.0.1", "10.1.0.2"), ("192.0.2.9", "10.1.0.2"), ("fd01::1", "fd01::2")]
    {
        let listen = if server.contains(':') { "TCP6-LISTEN" } else { "TCP4-LISTEN" };
        let mut listener = host
            .command("socat")
            .args([&format!("{listen}:8080,reuseaddr"), "SYSTEM:printenv SOCAT_PEERADDR"])
            .spawn()
            .unwrap();
        let address = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
        let seen = pod.sh(&format!("socat -T 5 - TCP:{address}:8080,retry=100,interval=0.02"));
        listener.wait().unwrap();
        same(seen.trim().trim_matches(['[', ']']), own);
    }
}

/// What goes to a multicast group keeps its source, which receivers may select it by. The host itself
/// sends here with the container's address, as a multicast router would.
#[test]
fn multicast_is_not_masqueraded() {
    let host = Host::new();
    let outside = outside(&host);
    let pod = host.pod("a");
    host.add(&masqueraded(&json!({"ipam": dual()})), &pod).ok();
    host.sh("ip addr add 10.1.0.2/32 dev lo; ip addr add fd01::2/128 dev lo
             ip route add 224.0.0.0/4 dev uplink; ip -6 route add ff00::/8 dev uplink table local metric 1");
    let send = |to: &str, bind: &str| {
        let host = &host;
        let out = if to.starts_with('2') { ",ip-multicast-if=10.99.0.1" } else { "" };
        let script = format!("echo x | socat -u - UDP-DATAGRAM:{to},bind={bind}{out}");
        move || drop(host.sh(&script))
    };
    let unicast = send("10.99.0.2:9000", "10.1.0.2");
    same(&datagram_seen(&outside, "UDP4-RECVFROM:9000", unicast), "10.99.0.1");
    let unicast = send("[fd99::2]:9000", "[fd01::2]");
    same(&datagram_seen(&outside, "UDP6-RECVFROM:9000", unicast), "fd99::1");

    // The lowest group, and the highest.
    for group in ["224.0.0.7", "239.255.255.250"] {
        let listen = format!("UDP4-RECVFROM:9000,ip-add-membership={group}:eth0");
        same(
            &datagram_seen(&outside, &listen, send(&format!("{group}:9000"), "10.1.0.2")),
            "10.1.0.2",
        );
    }
    for group in ["ff05::99", "ff0e::1"] {
        let listen = format!("UDP6-RECVFROM:9000,ipv6-join-group=[{group}]:eth0");
        let seen = datagram_seen(&outside, &listen, send(&format!("[{group}]:9000"), "[fd01::2]"));
        same(&seen, "fd01::2");
    }
}

#[test]
fn two_networks_are_each_others_outside() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let plain = host.pod("plain");
    host.add(&masqueraded(&json!({"ipam": dual()})), &a).ok();
    host.add(&second(), &b).ok();
    let mut third =
        bridge_conf(&json!({"name": "third", "bridge": "br3", "isDefaultGateway": true}));
    third["ipam"] = json!({"type": "host-local", "subnet": "10.3.0.0/24"});
    host.add(&third, &plain).ok();
    for (server, client, address, gateway) in [
        (&b, &a, "10.2.0.2", "10.2.0.1"),
        (&b, &a, "fd02::2", "fd02::1"),
        (&a, &b, "10.1.0.2", "10.1.0.1"),
        (&a, &b, "fd01::2", "fd01::1"),
    ] {
        same(&peer_seen_by(server, address, client), gateway);
    }
    same(&peer_seen_by(&a, "10.1.0.2", &plain), "10.3.0.2");
    same(&peer_seen_by(&plain, "10.3.0.2", &a), "10.3.0.1");
}

fn count(host: &Host, kind: &str) -> usize {
    host.ruleset(kind).len()
}

#[test]
fn one_rule_serves_all_containers_of_a_length_of_prefix() {
    let host = Host::new();
    host.sh("nft add table inet mine; nft add set inet mine masq4_16 '{ type ipv4_addr; }'");
    let before = host.snapshot();
    let conf = masqueraded(&json!({"ipam": dual()}));
    let pods = host.pods(5);
    let mut expected = Vec::new();
    for pod in &pods {
        host.add(&conf, pod).ok();
        expected.extend([
            format!("plumb:net/{}/eth0", pod.name),
            format!("plumb:net/{}/eth0", pod.name),
        ]);
        assert_eq!(host.element_comments(), expected);
        assert_eq!((count(&host, "table"), count(&host, "chain"), count(&host, "rule")), (2, 1, 2));
    }
    let other = host.pod("other");
    host.add(&second(), &other).ok();
    assert_eq!((count(&host, "table"), count(&host, "chain"), count(&host, "rule")), (2, 1, 4));
    assert_eq!(count(&host, "set"), 5, "one of them not ours");

    let sets = host.ruleset("set");
    let of = |name: &str| sets.iter().find(|s| s["name"] == name && s["table"] == "plumb").unwrap();
    assert_eq!(
        of("masq4_24")["elem"],
        json!([
            {"elem": {"val": {"concat": ["10.2.0.2", "10.2.0.0"]}, "comment": "plumb:second/other/eth0"}}
        ])
    );
    assert_eq!(
        of("masq6_112")["elem"],
        json!([
            {"elem": {"val": {"concat": ["fd02::2", "fd02::"]}, "comment": "plumb:second/other/eth0"}}
        ])
    );
    for pod in &pods {
        host.del(&conf, pod).ok();
    }
    host.del(&second(), &other).ok();
    assert_eq!(host.element_comments(), [] as [&str; 0]);
    host.sh("ip link del br2");
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// DEL finds its elements whatever it is told, and whatever is left of the container.
#[test]
fn plugins_810_masquerading_ends_without_a_namespace() {
    let host = Host::new();
    let other = host.pod("other");
    let conf = masqueraded(&json!({"ipam": dual()}));
    host.add(&conf, &other).ok();
    let others = host.element_comments();
    host.scripted_ipam(&json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.7.7/16", "gateway": "10.1.0.1"}, {"address": "fd01::7/64"}],
    }));
    let foreign = masqueraded(&json!({"ipam": {"type": "scripted"}}));
    let mut number = 0;
    for conf in [&conf, &foreign] {
        for told in [false, true] {
            for netns in [None, Some(""), Some("/run/netns/gone"), Some("/run"), Some("real")] {
                number += 1;
                let pod = host.pod(&format!("pod{number}"));
                let result = host.add(conf, &pod).ok();
                assert_eq!(host.element_comments().len(), 4);
                let mut del = conf.clone();
                if told {
                    del["prevResult"] = result;
                }
                let call = Call::new(&host, "DEL", &del).of(&pod);
                let call = match netns {
                    Some("real") => call,
                    Some(path) => call.env("CNI_NETNS", path),
                    None => call.without("CNI_NETNS"),
                };
                for round in ["once", "twice"] {
                    call.run().ok();
                    let case = format!("{round}, CNI_NETNS {netns:?}, prevResult {told}, {conf}");
                    assert_eq!(host.element_comments(), others, "{case}");
                }
                assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1);
            }
        }
    }
}

/// The namespace is destroyed first, as by a runtime whose container has crashed.
#[test]
fn nerdctl_1872_masquerading_ends_after_its_container() {
    let host = Host::new();
    let conf = masqueraded(&json!({"ipam": ipv4()}));
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    host.sh("ip netns del a; while ip link show type veth | grep -q veth; do sleep 0.01; done");
    assert_eq!(host.element_comments(), ["plumb:net/a/eth0"]);
    host.del(&conf, &pod).ok();
    assert_eq!(host.element_comments(), [] as [&str; 0]);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

/// The range was changed between ADD and DEL, and the runtime does not tell what ADD returned.
#[test]
fn masquerading_ends_although_the_networks_prefix_has_changed() {
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&masqueraded(&json!({"ipam": ipv4()})), &pod).ok();
    assert_eq!(host.element_comments(), ["plumb:net/a/eth0"]);
    let ipam = json!({"type": "host-local", "subnet": "10.1.0.0/24"});
    host.del(&masqueraded(&json!({"ipam": ipam})), &pod).ok();
    assert_eq!(host.element_comments(), [] as [&str; 0]);
}

/// Somebody has emptied the lease directory, as the cure that is passed around for leaked addresses has
/// it. The leases don't tell any more what was masqueraded.
#[test]
fn masquerading_ends_although_the_leases_have_been_taken_away() {
    let host = Host::new();
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = masqueraded(&json!({"ipam": dual()}));
    host.add(&conf, &a).ok();
    host.add(&conf, &b).ok();
    host.sh("rm -r /var/lib/cni/networks/net");
    host.del(&conf, &a).ok();
    assert_eq!(host.element_comments(), ["plumb:net/b/eth0"; 2]);
    host.del(&conf, &b).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn podman_8048_rules_lost_to_a_flush_fail_no_del_and_come_back_with_the_next_add() {
    let host = Host::new();
    let outside = outside(&host);
    let conf = masqueraded(&json!({"macspoofchk": true, "ipam": dual()}));
    let (a, b) = (host.pod("a"), host.pod("b"));
    let first = host.add(&conf, &a).ok();
    let rules = host.ruleset("rule");
    host.check(&conf, &first, &a).ok();
    host.sh("nft flush ruleset");
    host.check(&conf, &first, &a).fails(999, &["masquerading", "10.1.0.2/16"]);

    let second = host.add(&conf, &b).ok();
    assert_eq!(host.ruleset("rule"), rules, "made again");
    host.check(&conf, &second, &b).ok();
    same(&peer_seen_by(&outside, "10.99.0.2", &b), "10.99.0.1");
    host.check(&conf, &first, &a).fails(999, &["masquerading", "10.1.0.2/16"]);
    host.del(&conf, &a).ok();
    let comments = host.element_comments();
    assert_eq!(comments.len(), 4, "{comments:?}");
    assert!(comments.iter().all(|comment| comment.starts_with("plumb:net/b/eth0")), "{comments:?}");
    host.sh("nft flush ruleset");
    host.del(&conf, &b).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

/// What an attachment that vanished has left for an address goes to the one that has the address now,
/// and does not follow the late DEL of the old one.
#[test]
fn an_element_left_behind_goes_to_who_has_the_address_now() {
    let host = Host::new();
    let pods = host.pods(2);
    let conf = masqueraded(&json!({"ipam": dual()}));
    let first = host.add(&conf, &pods[0]).ok();
    // Its leases are released, and nothing else.
    host.sh("rm /var/lib/cni/networks/net/10.1.0.2 /var/lib/cni/networks/net/fd01::2");
    let mut again = conf.clone();
    again["args"] = json!({"cni": {"ips": ["10.1.0.2", "fd01::2"]}});
    host.sh("ip link del $(ip -br link show type veth | cut -d@ -f1)");
    let second = host.add(&again, &pods[1]).ok();
    assert_eq!(second["ips"], first["ips"]);
    let expected = ["plumb:net/pod1/eth0", "plumb:net/pod1/eth0"];
    assert_eq!(host.element_comments(), expected);

    let mut late = conf.clone();
    late["prevResult"] = first;
    host.del(&late, &pods[0]).ok();
    host.del(&conf, &pods[0]).ok();
    assert_eq!(host.element_comments(), expected);
    host.check(&conf, &second, &pods[1]).ok();
}

/// Keys that have left the configuration since ADD are believed by DEL, which looks for nothing then.
/// It is GC that finds the rest.
#[test]
fn elements_whose_key_has_left_the_configuration_are_found_by_gc() {
    let host = Host::new();
    let pods = host.pods(2);
    let conf = masqueraded(&json!({"macspoofchk": true, "ipam": ipv4()}));
    for pod in &pods {
        host.add(&conf, pod).ok();
    }
    let without = bridge_conf(&json!({"ipam": ipv4()}));
    host.del(&without, &pods[0]).ok();
    assert_eq!(host.element_comments().len(), 6);
    host.gc(&without, &[("pod1", "eth0")]).ok();
    let comments = host.element_comments();
    assert!(
        comments.iter().all(|comment| comment.starts_with("plumb:net/pod1/eth0")),
        "{comments:?}"
    );
    assert_eq!(comments.len(), 3, "{comments:?}");
}
