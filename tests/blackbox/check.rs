//! CHECK: it passes after ADD, and names what has gone astray since, whatever ADD has promised.

use serde_json::{Value, json};

use crate::harness::{Call, Host, bridge_conf, dual, ipv4};

/// All that an attachment can have.
fn everything() -> Value {
    let mut ipam = dual();
    ipam["routes"] = json!([
        {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1300},
        {"dst": "2001:db8::/32", "priority": 7},
    ]);
    bridge_conf(&json!({
        "isDefaultGateway": true,
        "ipMasq": true,
        "macspoofchk": true,
        "portIsolation": true,
        "ipam": ipam,
    }))
}

/// Where a drift happens.
enum At {
    Host,
    Pod,
}

/// ADDs, makes something go astray, and has CHECK find it; then DELs what is left. `LINK` stands for
/// the host's end in scripts.
fn drifts(conf: &Value, cases: &[(At, &str, &[&str])]) {
    let host = Host::new();
    let bystander = host.pod("bystander");
    for (number, (at, script, words)) in cases.iter().enumerate() {
        // What the case before has damaged is made anew.
        host.sh("ip link del br0 2>/dev/null || true; nft flush ruleset");
        host.add(conf, &bystander).ok();
        let pod = host.pod(&format!("pod{number}"));
        let result = host.add(conf, &pod).ok();
        let before = host.snapshot();
        host.check(conf, &result, &pod).ok();
        assert_eq!(host.snapshot(), before, "CHECK changes nothing");

        let link = result["interfaces"][1]["name"].as_str().unwrap();
        let ip = |at: usize| {
            let address = result["ips"][at]["address"].as_str().unwrap_or_default();
            address.split('/').next().unwrap().to_owned()
        };
        let script = script.replace("LINK", link).replace("IP4", &ip(0)).replace("IP6", &ip(1));
        match at {
            At::Host => host.sh(&script),
            At::Pod => pod.sh(&script),
        };
        let words: Vec<_> = words
            .iter()
            .map(|word| word.replace("LINK", link).replace("IP4", &ip(0)).replace("IP6", &ip(1)))
            .collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let outcome = host.check(conf, &result, &pod);
        assert!(!outcome.status.success(), "CHECK has not seen: {script}");
        outcome.fails(999, &words);
        host.del(conf, &pod).ok();
        host.del(conf, &bystander).ok();
    }
}

#[test]
fn what_goes_astray_on_the_host_is_named() {
    drifts(
        &everything(),
        &[
            (At::Host, "ip link del br0", &["bridge", "br0", "missing"]),
            (
                At::Host,
                "ip link del br0; ip link add br0 type veth peer name br1",
                &["bridge", "br0", "missing"],
            ),
            (At::Host, "ip link set br0 down", &["bridge", "br0", "down"]),
            (
                At::Host,
                "ip link set br0 address 02:00:00:00:00:55",
                &["br0", "has address 02:00:00:00:00:55, not "],
            ),
            (At::Host, "ip link set br0 promisc on", &["br0", "is promiscuous"]),
            (At::Host, "ip link set LINK nomaster", &["LINK", "no longer a port", "br0"]),
            (
                At::Host,
                "ip link add br1 type bridge; ip link set LINK master br1; ip link set br1 up",
                &["LINK", "no longer a port", "br0"],
            ),
            (At::Host, "bridge link set dev LINK hairpin on", &["LINK", "hairpin"]),
            (At::Host, "bridge link set dev LINK isolated off", &["LINK", "isolated"]),
            (At::Host, "ip link set LINK down", &["LINK", "not up"]),
            (At::Host, "ip link del LINK", &["LINK", "no longer a port"]),
            (
                At::Host,
                "ip link del LINK; ip link add LINK type veth peer name other
                 ip link set other up; ip link set LINK master br0 up
                 bridge link set dev LINK isolated on",
                &["eth0", "vanished"],
            ),
            (At::Host, "ip addr del 10.1.0.1/16 dev br0", &["br0", "10.1.0.1/16"]),
            (At::Host, "ip addr del fd01::1/64 dev br0", &["br0", "fd01::1/64"]),
            (At::Host, "echo 0 > /proc/sys/net/ipv4/ip_forward", &["ipv4/ip_forward", "0"]),
            (
                At::Host,
                "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
                &["ipv6/conf/all/forwarding", "0"],
            ),
            (
                At::Host,
                "rm /var/lib/cni/networks/net/IP4",
                &["host-local", "address IP4 is not leased"],
            ),
            (
                At::Host,
                r"printf 'other\r\neth0' > /var/lib/cni/networks/net/IP6",
                &["host-local", "address IP6 is not leased"],
            ),
            (
                At::Host,
                "rm /var/lib/cni/networks/net/IP4 /var/lib/cni/networks/net/IP6",
                &["host-local", "holds no address"],
            ),
        ],
    );
}

#[test]
fn packet_rules_that_have_gone_are_named() {
    drifts(
        &everything(),
        &[
            (At::Host, "nft flush ruleset", &["masquerading", "IP4/16", "missing"]),
            (At::Host, "nft delete table inet plumb", &["masquerading", "IP4/16", "missing"]),
            (
                At::Host,
                "nft delete element inet plumb masq4_16 '{ IP4 . 10.1.0.0 }'",
                &["masquerading", "IP4/16", "missing"],
            ),
            (
                At::Host,
                "nft delete element inet plumb masq6_64 '{ IP6 . fd01:: }'",
                &["masquerading", "IP6/64", "missing"],
            ),
            (
                At::Host,
                r#"nft delete element inet plumb masq4_16 '{ IP4 . 10.1.0.0 }'
                   nft add element inet plumb masq4_16 '{ IP4 . 10.1.0.0 comment "plumb:net/x/y" }'"#,
                &["masquerading", "IP4/16", "missing"],
            ),
            (
                At::Host,
                "nft flush chain inet plumb postrouting",
                &["masquerading", "IP4/16", "no rule", "masq4_16"],
            ),
            (
                At::Host,
                "nft delete rule inet plumb postrouting handle $(nft -a list chain inet plumb \
                 postrouting | sed -n 's/.*masq6_64.*handle //p')",
                &["masquerading", "IP6/64", "no rule", "masq6_64"],
            ),
            (At::Host, "nft delete table bridge plumb", &["macspoofchk", "LINK", "guarded"]),
            (At::Host, "nft flush set bridge plumb guarded", &["macspoofchk", "LINK", "guarded"]),
            (At::Host, "nft flush set bridge plumb genuine", &["macspoofchk", "LINK", "genuine"]),
            (At::Host, "nft flush chain bridge plumb prerouting", &["macspoofchk", "no rule"]),
        ],
    );
}

#[test]
fn what_goes_astray_in_the_container_is_named() {
    drifts(
        &everything(),
        &[
            (At::Pod, "ip link del eth0", &["LINK", "no longer a port"]),
            (At::Pod, "ip link set eth0 down; ip link set eth0 name eth9", &["eth0", "vanished"]),
            (
                At::Pod,
                "ip link set eth0 address 02:00:00:00:00:66",
                &["eth0", "has address 02:00:00:00:00:66, not "],
            ),
            (At::Pod, "ip addr del IP4/16 dev eth0", &["eth0", "IP4/16", "missing"]),
            (At::Pod, "ip addr del IP6/64 dev eth0", &["eth0", "IP6/64", "missing"]),
            (
                At::Pod,
                "ip addr del IP4/16 dev eth0; ip addr add IP4/24 dev eth0",
                &["eth0", "IP4/16", "missing"],
            ),
            (At::Pod, "ip route del default", &["eth0", "route 0.0.0.0/0 via 10.1.0.1", "missing"]),
            (At::Pod, "ip -6 route del default", &["eth0", "route ::/0 via fd01::1", "missing"]),
            (
                At::Pod,
                "ip route replace default via 10.1.0.9",
                &["eth0", "route 0.0.0.0/0 via 10.1.0.1", "missing"],
            ),
            (
                At::Pod,
                "ip route del 192.0.2.0/24",
                &["eth0", "route 192.0.2.0/24 via 10.1.0.9", "missing"],
            ),
            (
                At::Pod,
                "ip route replace 192.0.2.0/24 via 10.1.0.9 mtu 1200 advmss 1300",
                &["eth0", "route 192.0.2.0/24 via 10.1.0.9", "missing"],
            ),
            (
                At::Pod,
                "ip -6 route del 2001:db8::/32; ip -6 route add 2001:db8::/32 via fd01::1 metric 8",
                &["eth0", "route 2001:db8::/32 via fd01::1", "metric 7", "missing"],
            ),
        ],
    );
}

/// Without addresses a link that is down shows as such, rather than by the routes that it takes along.
#[test]
fn layer_2_attachments_are_checked_as_well() {
    let cases: &[(At, &str, &[&str])] = &[
        (At::Pod, "ip link set eth0 down", &["container interface", "eth0", "down"]),
        (At::Pod, "ip link set eth0 address 02:00:00:00:00:66", &["eth0", "02:00:00:00:00:66"]),
        (At::Pod, "ip link set eth0 down; ip link set eth0 name eth9", &["eth0", "vanished"]),
        (
            At::Pod,
            "ip link set eth0 down; ip link set eth0 name old; ip link set old up
             ip link add eth0 address $(ip -br link show old | awk '{print $3}') type veth peer name p
             ip link set eth0 up; ip link set p up",
            &["eth0", "LINK", "veth pair"],
        ),
        (At::Host, "ip link set LINK nomaster", &["LINK", "no longer a port"]),
        (At::Host, "bridge link set dev LINK hairpin off", &["LINK", "hairpin"]),
        (At::Host, "ip link set LINK down", &["LINK", "not up"]),
        (At::Host, "ip link set br0 down", &["br0", "down"]),
        (At::Host, "ip link set br0 address 02:00:00:00:00:55", &["br0", "02:00:00:00:00:55"]),
        (At::Host, "nft delete table bridge plumb", &["macspoofchk", "LINK"]),
    ];
    drifts(&bridge_conf(&json!({"hairpinMode": true, "macspoofchk": true})), cases);
}

#[test]
fn promises_of_single_keys_are_checked() {
    let down = bridge_conf(&json!({"disableContainerInterface": true}));
    drifts(&down, &[(At::Pod, "ip link set eth0 up", &["container interface", "eth0", "up"])]);
    let promiscuous = bridge_conf(&json!({"promiscMode": true}));
    let off: &[&str] = &["br0", "is not promiscuous"];
    drifts(&promiscuous, &[(At::Host, "ip link set br0 promisc off", off)]);
    let v4 = bridge_conf(&json!({"isGateway": true, "ipam": ipv4()}));
    let missing: &[&str] = &["eth0", "IP4/16", "missing"];
    drifts(&v4, &[(At::Pod, "ip addr flush dev eth0", missing)]);
}

#[test]
fn it_passes_after_add_in_every_mode_and_version() {
    let host = Host::new();
    let modes = [
        json!({}),
        json!({"ipam": ipv4()}),
        json!({"isGateway": true, "ipam": ipv4()}),
        json!({"isDefaultGateway": true, "ipMasq": true, "ipam": dual()}),
        json!({"hairpinMode": true, "ipMasq": true, "ipam": ipv4()}),
        json!({"portIsolation": true, "macspoofchk": true, "ipam": dual()}),
        json!({"mtu": 1300, "disableContainerInterface": true}),
        json!({"runtimeConfig": {"mac": "0A-00-00-00-00-01"}, "ipam": ipv4()}),
    ];
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        for (number, keys) in modes.iter().enumerate() {
            let pod = host.pod(&format!("pod{number}-{version}"));
            let mut conf = bridge_conf(keys);
            conf["cniVersion"] = json!(version);
            let result = host.add(&conf, &pod).ok();
            host.check(&conf, &result, &pod).ok();
            host.del(&conf, &pod).ok();
        }
    }
}

/// The reference tells no MTU, and of an older version no interface of each address need be told; an
/// address that belongs to another interface is not this one's.
#[test]
fn results_of_the_references_shape_are_understood() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = everything();
    let result = host.add(&conf, &pod).ok();
    let mut reference = result;
    for interface in reference["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    host.check(&conf, &reference, &pod).ok();
    reference.as_object_mut().unwrap().remove("cniVersion");
    host.check(&conf, &reference, &pod).ok();
    // A chained plugin has added an interface with an address of its own.
    let chained = json!({"name": "vrf0", "sandbox": pod.path()});
    reference["interfaces"].as_array_mut().unwrap().push(chained);
    let address = json!({"address": "198.51.100.1/32", "interface": 3});
    reference["ips"].as_array_mut().unwrap().push(address);
    host.check(&conf, &reference, &pod).ok();
    reference["ips"][2]["interface"] = json!(2);
    host.check(&conf, &reference, &pod).fails(999, &["198.51.100.1/32"]);
}

#[test]
fn it_needs_a_result_to_check() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = bridge_conf(&json!({"ipam": ipv4()}));
    let result = host.add(&conf, &pod).ok();
    Call::new(&host, "CHECK", &conf).of(&pod).run().fails(7, &["prevResult"]);
    host.check(&conf, &json!(null), &pod).fails(7, &["prevResult"]);
    let mut other = result.clone();
    other["interfaces"][2]["name"] = json!("eth1");
    host.check(&conf, &other, &pod).fails(7, &["prevResult.interfaces", "eth0"]);
    let mut nowhere = result.clone();
    nowhere["interfaces"][2].as_object_mut().unwrap().remove("sandbox");
    host.check(&conf, &nowhere, &pod).fails(7, &["prevResult.interfaces", "eth0"]);
    // What was never attached does not pass.
    let stranger = host.pod("b");
    host.check(&conf, &result, &stranger).fails(999, &["container b"]);
    host.check(&bridge_conf(&json!({})), &result, &stranger).fails(999, &["eth0", "vanished"]);
}

#[test]
fn what_is_as_asked_is_not_taken_for_drift() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut ipam = ipv4();
    // Table 0 is the main one.
    ipam["routes"] = json!([{"dst": "10.9.0.0/16", "table": 0}]);
    let conf = bridge_conf(&json!({"isGateway": true, "mtu": 1400, "ipam": ipam}));
    let result = host.add(&conf, &pod).ok();
    host.check(&conf, &result, &pod).ok();
    // As plugin tuning does it, behind bridge in a chain.
    pod.sh("ip link set eth0 mtu 1300");
    host.check(&conf, &result, &pod).ok();
    let name = result["interfaces"][1]["name"].as_str().unwrap();
    host.sh(&format!("ip link set {name} mtu 1300"));
    host.check(&conf, &result, &pod).fails(999, &[name, "1300", "1400"]);
}
