//! host-local by itself, as runtimes and other plugins call it: what each key does, what is refused,
//! and what each verb does to the leases.

use serde_json::{Value, json};

use crate::harness::{Call, Host, Outcome, VERSIONS};

/// Debian's.
pub const REFERENCE: &str = "/usr/lib/cni/host-local";
/// Where leases are unless `dataDir` says otherwise.
pub const DIR: &str = "/var/lib/cni/networks/net";

/// The network `net` in the newest version, with these keys in `ipam`.
pub fn conf(ipam: &Value) -> Value {
    conf_of("1.1.0", ipam)
}

fn conf_of(version: &str, ipam: &Value) -> Value {
    let mut conf =
        json!({"cniVersion": version, "name": "net", "type": "host-local", "ipam": ipam});
    conf["ipam"]["type"] = "host-local".into();
    conf
}

fn with(conf: &Value, key: &str, value: Value) -> Value {
    let mut conf = conf.clone();
    conf[key] = value;
    conf
}

pub fn add(host: &Host, conf: &Value, container: &str) -> Outcome {
    Call::new(host, "ADD", conf).attachment(container, "eth0").run()
}

pub fn del(host: &Host, conf: &Value, container: &str) -> Outcome {
    Call::new(host, "DEL", conf).attachment(container, "eth0").run()
}

fn check(host: &Host, conf: &Value, prev: &Value, container: &str) -> Outcome {
    let conf = with(conf, "prevResult", prev.clone());
    Call::new(host, "CHECK", &conf).attachment(container, "eth0").run()
}

/// The addresses of a result of any version, without their prefixes.
pub fn addresses(result: &Value) -> Vec<String> {
    let bare = |value: &Value| value.as_str().unwrap().split('/').next().unwrap().to_owned();
    match &result["ips"] {
        Value::Array(ips) => ips.iter().map(|ip| bare(&ip["address"])).collect(),
        _ => {
            ["ip4", "ip6"].iter().filter_map(|k| result.get(k)).map(|ip| bare(&ip["ip"])).collect()
        }
    }
}

/// The only address of a result.
pub fn address(result: &Value) -> String {
    let addresses = addresses(result);
    assert_eq!(addresses.len(), 1, "{result:#}");
    addresses.into_iter().next().unwrap()
}

/// ADDs containers c0, c1, … and returns their addresses.
fn add_many(host: &Host, conf: &Value, count: usize) -> Vec<String> {
    (0..count).map(|number| address(&add(host, conf, &format!("c{number}")).ok())).collect()
}

fn range_of(start: &str, end: &str) -> Value {
    json!({"subnet": "10.1.0.0/24", "rangeStart": start, "rangeEnd": end})
}

#[test]
fn results_are_the_references() {
    let host = Host::new();
    host.write(
        "/run/resolv.conf",
        "nameserver 10.0.0.53\nsearch a.example b.example\noptions ndots:5\n",
    );
    let v4 = json!({"subnet": "10.1.0.0/24"});
    let v6 = json!({"subnet": "fd00:1::/64", "gateway": "fd00:1::fffe"});
    let routes = json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "10.7.1.2/8", "gw": "10.1.0.9"},
        {"dst": "::/0", "gw": "fd00:1::9"},
    ]);
    let confs = [
        json!({"ranges": [[v4]]}),
        json!({"ranges": [[v6]]}),
        json!({"ranges": [[v6], [v4]], "routes": routes}),
        json!({"subnet": "10.9.0.0/16", "rangeStart": "10.9.1.1", "rangeEnd": "10.9.1.9", "gateway": "10.9.0.7",
               "resolvConf": "/run/resolv.conf", "routes": null, "ranges": [[v6]]}),
    ];
    for version in VERSIONS {
        for ipam in &confs {
            let conf = conf_of(version, ipam);
            let ours = add(&host, &conf, "c");
            host.sh("rm -r /var/lib/cni");
            if version == "1.1.0" {
                // Which Debian's release does not know yet.
                assert_eq!(ours.ok()["cniVersion"], version);
                continue;
            }
            let call = Call::new(&host, "ADD", &conf).attachment("c", "eth0");
            let theirs = call.plugin(REFERENCE).run();
            host.sh("rm -r /var/lib/cni");
            if version == "1.0.0" {
                // Newer releases of the reference sort the keys and leave out an empty dns.
                let mut theirs = theirs.ok();
                if theirs["dns"] == json!({}) {
                    theirs.as_object_mut().unwrap().remove("dns");
                }
                assert_eq!(ours.ok(), theirs);
            } else {
                assert_eq!(ours.stdout, theirs.stdout);
            }
        }
    }
}

#[test]
fn a_set_gives_the_addresses_of_all_its_ranges_in_turn() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [[
        range_of("10.1.0.10", "10.1.0.11"),
        {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.4", "rangeEnd": "10.2.0.6", "gateway": "10.2.0.5"},
    ]]}));
    let result = add(&host, &conf, "c0").ok();
    assert_eq!(result["ips"], json!([{"address": "10.1.0.10/24", "gateway": "10.1.0.1"}]));
    let all = ["10.1.0.10", "10.1.0.11", "10.2.0.4", "10.2.0.6"];
    assert_eq!(add_many(&host, &conf, 4), all, "the gateway is left out");
    let prev = add(&host, &conf, "c3").ok();
    assert_eq!(prev["ips"], json!([{"address": "10.2.0.6/24", "gateway": "10.2.0.5"}]));
    add(&host, &conf, "one-more").fails(
        11,
        &[
            "no IP addresses available in range set: 10.1.0.10-10.1.0.11,10.2.0.4-10.2.0.6",
            "4 of 4 held",
            DIR,
        ],
    );
    assert_eq!(host.leases("net"), all);
}

#[test]
fn each_set_gives_an_address_in_the_order_of_the_sets() {
    let host = Host::new();
    let ranges = json!([
        [{"subnet": "fd00::/64"}],
        [{"subnet": "10.1.0.0/24"}],
        [{"subnet": "10.2.0.0/24"}],
    ]);
    let result = add(&host, &conf(&json!({"ranges": ranges})), "c").ok();
    let ips = json!([
        {"address": "fd00::2/64", "gateway": "fd00::1"},
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"address": "10.2.0.2/24", "gateway": "10.2.0.1"},
    ]);
    assert_eq!(result, json!({"cniVersion": "1.1.0", "ips": ips}));
    assert_eq!(host.leases("net"), ["10.1.0.2", "10.2.0.2", "fd00::2"]);
    assert_eq!(host.read(&format!("{DIR}/last_reserved_ip.0")), "fd00::2");
    assert_eq!(host.read(&format!("{DIR}/last_reserved_ip.2")), "10.2.0.2");
}

#[test]
fn the_runtimes_ranges_come_first_and_the_single_range_of_old_next() {
    let host = Host::new();
    let conf = with(
        &conf(&json!({
            "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.20", "rangeEnd": "10.2.0.29", "gateway": "10.2.0.9",
            "ranges": [[{"subnet": "10.3.0.0/24"}]],
        })),
        "runtimeConfig",
        json!({"ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}),
    );
    let result = add(&host, &conf, "c").ok();
    let ips = json!([
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"address": "fd00::2/64", "gateway": "fd00::1"},
        {"address": "10.2.0.20/24", "gateway": "10.2.0.9"},
        {"address": "10.3.0.2/24", "gateway": "10.3.0.1"},
    ]);
    assert_eq!(result["ips"], ips);
    // Ranges of the runtime alone do as well.
    let alone = with(&with(&conf, "ipam", json!({"type": "host-local"})), "name", "alone".into());
    assert_eq!(addresses(&add(&host, &alone, "c").ok()), ["10.1.0.2", "fd00::2"]);
}

#[test]
fn bounds_and_gateway_of_a_range() {
    let host = Host::new();
    for (number, (range, expected)) in [
        (json!({"subnet": "10.1.0.0/30"}), vec!["10.1.0.2"]),
        (json!({"subnet": "fd00::/126"}), vec!["fd00::2", "fd00::3"]),
        (json!({"subnet": "10.1.0.0/30", "gateway": "10.1.0.2"}), vec!["10.1.0.1"]),
        (json!({"subnet": "10.1.0.0/29", "gateway": "10.1.0.4"}), vec!["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.5", "10.1.0.6"]),
        (json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.253"}), vec!["10.1.0.253", "10.1.0.254"]),
        (json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.3"}), vec!["10.1.0.2", "10.1.0.3"]),
        (json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.7", "rangeEnd": "10.1.0.7"}), vec!["10.1.0.7"]),
        // As in the reference: whoever asks for network and broadcast address gets them.
        (json!({"subnet": "10.1.0.0/30", "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.3"}), vec!["10.1.0.0", "10.1.0.2", "10.1.0.3"]),
        (json!({"subnet": "fd00::/64", "rangeStart": "fd00::ffff:ffff:ffff:fffe"}), vec!["fd00::ffff:ffff:ffff:fffe", "fd00::ffff:ffff:ffff:ffff"]),
        (json!({"subnet": "fd00::/64", "rangeStart": "fd00::5", "rangeEnd": "fd00::5", "gateway": "fe80::1"}), vec!["fd00::5"]),
    ]
    .into_iter()
    .enumerate()
    {
        let conf = with(&conf(&json!({"ranges": [[range]]})), "name", format!("net{number}").into());
        assert_eq!(add_many(&host, &conf, expected.len()), expected, "{range}");
        add(&host, &conf, "one-more").fails(11, &["no IP addresses available"]);
    }
}

#[test]
fn ranges_that_can_t_be_served_are_refused_by_name_and_change_nothing() {
    let host = Host::new();
    let v4 = |text: &str| json!([[{"subnet": text}]]);
    let wrong = [
        (json!({}), 7, "ipam.ranges: expected at least one range set"),
        (json!({"ranges": []}), 7, "ipam.ranges: expected at least one range set"),
        (json!({"ranges": [[]]}), 7, "ipam.ranges[0]: expected at least one range"),
        (json!({"ranges": [[{}]]}), 7, "ipam.ranges[0][0].subnet: expected a subnet, got nothing"),
        (
            json!({"ranges": v4("10.1.0.0/31")}),
            7,
            "ipam.ranges[0][0].subnet: expected a subnet with room for hosts",
        ),
        (json!({"ranges": v4("10.1.0.0/32")}), 7, "ipam.ranges[0][0].subnet"),
        (json!({"ranges": v4("fd00::/127")}), 7, "ipam.ranges[0][0].subnet"),
        (json!({"ranges": v4("10.1.0.1/24")}), 7, "without host bits, here 10.1.0.0/24"),
        (json!({"ranges": v4("10.1.0.0")}), 7, "expected an IP address with prefix length"),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}),
            7,
            "ipam.ranges[0]: expected ranges of one address family",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]}),
            7,
            "don't overlap",
        ),
        (
            json!({"subnet": "10.1.0.0/16", "ranges": [[{"subnet": "10.1.0.0/24"}]]}),
            7,
            "10.1.0.1-10.1.255.254",
        ),
        (
            json!({"ranges": [[range_of("10.2.0.1", "10.1.0.9")]]}),
            7,
            "ipam.ranges[0][0].rangeStart: expected an address of subnet 10.1.0.0/24",
        ),
        (
            json!({"ranges": [[range_of("10.1.0.1", "10.2.0.9")]]}),
            7,
            "ipam.ranges[0][0].rangeEnd: expected an address of subnet 10.1.0.0/24",
        ),
        (json!({"ranges": [[range_of("10.1.0.9", "10.1.0.8")]]}), 7, "ipam.ranges[0][0].rangeEnd"),
        (json!({"ranges": [[range_of("fd00::1", "10.1.0.8")]]}), 7, "ipam.ranges[0][0].rangeStart"),
        (json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}), 7, "ipam.rangeStart"),
        (json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}), 7, "ipam.rangeEnd"),
        (json!({"subnet": "10.1.0.0/24", "gateway": "fd00::1"}), 7, "ipam.gateway"),
        (json!({"subnet": 5}), 6, "ipam.subnet: expected a string, got 5"),
        (json!({"ranges": {"subnet": "10.1.0.0/24"}}), 6, "ipam.ranges: expected a list"),
        (json!({"ranges": [{"subnet": "10.1.0.0/24"}]}), 6, "ipam.ranges[0]: expected a list"),
        (json!({"ranges": [["10.1.0.0/24"]]}), 6, "ipam.ranges[0][0]: expected an object"),
        (
            json!({"subnet": "10.1.0.0/24", "gateway": true}),
            6,
            "ipam.gateway: expected a string, got true",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "dataDir": 5}),
            6,
            "ipam.dataDir: expected a string, got 5",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "resolvConf": []}),
            6,
            "ipam.resolvConf: expected a string",
        ),
        (json!({"subnet": "10.1.0.0/24", "routes": {}}), 6, "ipam.routes: expected a list"),
        (json!({"subnet": "10.1.0.0/24", "routes": [{}]}), 7, "ipam.routes[0].dst"),
        (
            json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "10.0.0.0"}]}),
            7,
            "ipam.routes[0].dst",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}),
            7,
            "ipam.routes[0].gw",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "10.0.0.0/8", "mtu": "1"}]}),
            6,
            "ipam.routes[0].mtu",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "10.0.0.0/8", "scope": 256}]}),
            7,
            "ipam.routes[0].scope",
        ),
    ];
    for (ipam, code, words) in wrong {
        add(&host, &conf(&ipam), "c").fails(code, &[words]);
    }
    let good = conf(&json!({"subnet": "10.1.0.0/24"}));
    for (key, value, code, words) in [
        ("ipam", json!(5), 6, "ipam: expected an object"),
        ("ipam", Value::Null, 7, "ipam: expected an object with ranges, got nothing"),
        ("runtimeConfig", json!([]), 6, "runtimeConfig: expected an object"),
        ("runtimeConfig", json!({"ipRanges": 5}), 6, "runtimeConfig.ipRanges: expected a list"),
        ("runtimeConfig", json!({"ipRanges": [[{"subnet": "10.1.0.0/24"}]]}), 7, "don't overlap"),
        ("runtimeConfig", json!({"ips": "10.1.0.5"}), 6, "runtimeConfig.ips: expected a list"),
        ("runtimeConfig", json!({"ips": [5]}), 6, "runtimeConfig.ips[0]: expected a string"),
        (
            "runtimeConfig",
            json!({"ips": ["10.1.0.5/33"]}),
            7,
            "runtimeConfig.ips[0]: expected an IP address",
        ),
        (
            "args",
            json!({"cni": {"ips": ["x"]}}),
            7,
            "args.cni.ips[0]: expected an IP address, got \"x\"",
        ),
        ("args", json!({"cni": 5}), 6, "args.cni: expected an object"),
    ] {
        add(&host, &with(&good, key, value), "c").fails(code, &[words]);
    }
    for (args, words) in [
        ("IP=10.1.0", "CNI_ARGS: IP: expected an IP address"),
        ("IP=10.1.0.5/99", "CNI_ARGS: IP: expected an IP address"),
        ("ip=10.1.0.5", "unknown args"),
        ("IP", "expected KEY=value"),
    ] {
        let call = Call::new(&host, "ADD", &good).attachment("c", "eth0").env("CNI_ARGS", args);
        call.run().fails(4, &[words]);
    }
    for version in VERSIONS {
        for subnets in [["10.1.0.0/24", "10.2.0.0/24"], ["fd01::/64", "fd02::/64"]] {
            let ranges = subnets.map(|subnet| json!([{"subnet": subnet}]));
            let outcome = add(&host, &conf_of(version, &json!({"ranges": ranges})), "c");
            if version < "0.3.0" {
                outcome.fails(7, &["2 range sets", "one range set per address family", version]);
            } else {
                assert_eq!(addresses(&outcome.ok()).len(), 2);
                host.sh("rm -r /var/lib/cni");
            }
        }
    }
    assert_eq!(host.sh("ls -A /var/lib"), "", "nothing was made for what was refused");
}

#[test]
fn routes_are_copied_with_all_their_keys() {
    let host = Host::new();
    let routes = json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "10.7.1.2/8", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 100, "scope": 0},
        {"dst": "fd00:9::5/48", "gw": "fd00::9"},
    ]);
    let ipam = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]], "routes": routes});
    let result = add(&host, &conf(&ipam), "c").ok();
    assert_eq!(result["routes"], routes, "host bits of a destination included");
    for version in ["0.1.0", "0.2.0"] {
        let result = add(&host, &conf_of(version, &ipam), "c").ok();
        let dst = |family: &str| -> Vec<Value> {
            result[family]["routes"].as_array().unwrap().iter().map(|r| r["dst"].clone()).collect()
        };
        assert_eq!(dst("ip4"), ["0.0.0.0/0", "10.7.1.2/8"]);
        assert_eq!(dst("ip6"), ["fd00:9::5/48"]);
    }
}

#[test]
fn name_resolution_comes_from_a_file() {
    let host = Host::new();
    let ipam = json!({"subnet": "10.1.0.0/24", "resolvConf": "/run/resolv.conf"});
    add(&host, &conf(&ipam), "c")
        .fails(5, &["read ipam.resolvConf \"/run/resolv.conf\"", "No such file"]);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    host.write(
        "/run/resolv.conf",
        "# nameserver 9.9.9.9\n;x\nnameserver 10.0.0.53\nnameserver fd00::53\ndomain example.org\nsearch a b\noptions ndots:5 edns0\n",
    );
    let dns = json!({
        "nameservers": ["10.0.0.53", "fd00::53"],
        "domain": "example.org",
        "search": ["a", "b"],
        "options": ["ndots:5", "edns0"],
    });
    for version in VERSIONS {
        assert_eq!(add(&host, &conf_of(version, &ipam), "c").ok()["dns"], dns, "{version}");
    }
    let empty = with(&conf(&ipam), "ipam", json!({"subnet": "10.1.0.0/24", "resolvConf": ""}));
    assert_eq!(add(&host, &empty, "c").ok().get("dns"), None);
}

/// The reference reads the addresses of the single range of old even where there is no such range.
#[test]
fn addresses_of_a_range_are_read_like_the_references_with_and_without_a_subnet() {
    let host = Host::new();
    let ranges = json!([[{"subnet": "10.1.0.0/24"}]]);
    for key in ["rangeStart", "rangeEnd", "gateway"] {
        for (value, code) in [
            (json!(5), Some(6)),
            (json!(true), Some(6)),
            (json!([]), Some(6)),
            (json!({}), Some(6)),
            (json!("x"), Some(7)),
            (json!(""), None),
            (Value::Null, None),
            (json!("10.9.0.1"), None),
            (json!("fe80::1"), None),
        ] {
            let unused = json!({"ranges": ranges, key: value});
            let mut confs = vec![unused];
            // Other addresses are not of that subnet.
            if code.is_some() || value.as_str().is_none_or(str::is_empty) {
                confs.push(json!({"subnet": "10.1.0.0/24", key: value}));
                confs.push(json!({"ranges": [[{"subnet": "10.1.0.0/24", key: value}]]}));
            }
            for ipam in confs {
                let conf = conf_of("1.0.0", &ipam);
                let ours = add(&host, &conf, "c");
                host.sh("rm -rf /var/lib/cni");
                let call = Call::new(&host, "ADD", &conf).attachment("c", "eth0");
                let theirs = call.plugin(REFERENCE).run();
                host.sh("rm -rf /var/lib/cni");
                assert_eq!(theirs.status.success(), code.is_none(), "{ipam}: {theirs:#?}");
                match code {
                    Some(code) => {
                        ours.fails(code, &[&format!("{key}: expected")]);
                    }
                    None => assert_eq!(ours.ok()["ips"], theirs.ok()["ips"], "{ipam}"),
                }
            }
        }
    }
}

#[test]
fn leases_are_where_data_dir_says() {
    let host = Host::new();
    let ipam = json!({"subnet": "10.1.0.0/24", "dataDir": "/run/a/b"});
    add(&host, &conf(&ipam), "c").ok();
    assert_eq!(host.read("/run/a/b/net/10.1.0.2"), "c\r\neth0");
    let elsewhere = with(&conf(&ipam), "name", "other".into());
    assert_eq!(address(&add(&host, &elsewhere, "c").ok()), "10.1.0.2", "each network has its own");
    assert_eq!(host.sh("ls -A /var/lib"), "");
    del(&host, &conf(&ipam), "c").ok();
    host.sh("test ! -e /run/a/b/net/10.1.0.2; test -e /run/a/b/other/10.1.0.2");
    let usual = conf(&json!({"subnet": "10.1.0.0/24", "dataDir": ""}));
    add(&host, &usual, "c").ok();
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
    // Moved to another disk by its administrator.
    host.sh(&format!("mv {DIR} /run/moved; ln -s /run/moved {DIR}"));
    add(&host, &usual, "d").ok();
    host.sh("test -e /run/moved/10.1.0.3");
}

#[test]
fn addresses_are_asked_for_in_three_ways() {
    let host = Host::new();
    let ranges = json!([
        [{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.99"}, {"subnet": "10.9.0.0/24"}],
        [{"subnet": "10.2.0.0/24"}],
        [{"subnet": "fd00::/64"}],
    ]);
    let plain = conf(&json!({"ranges": ranges}));
    let call = |conf: &Value, container: &str, args: &str| {
        Call::new(&host, "ADD", conf).attachment(container, "eth0").env("CNI_ARGS", args).run()
    };
    let asking = |args: &[&str], runtime: &[&str]| {
        let conf = with(&plain, "args", json!({"cni": {"ips": args}}));
        with(&conf, "runtimeConfig", json!({"ips": runtime}))
    };
    // Each alone, with and without a prefix, which does not matter.
    let rest = ["10.2.0.2", "fd00::2"];
    let first = |got: Value, address: &str| {
        assert_eq!(addresses(&got)[0], address, "{got:#}");
        assert_eq!(addresses(&got).len(), 3);
    };
    let got = call(&plain, "a", "IP=10.1.0.50").ok();
    assert_eq!(addresses(&got), ["10.1.0.50", rest[0], rest[1]]);
    assert_eq!(got["ips"][0], json!({"address": "10.1.0.50/24", "gateway": "10.1.0.1"}));
    first(call(&plain, "b", "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.0.51/8").ok(), "10.1.0.51");
    first(call(&asking(&["10.1.0.52/32"], &[]), "c", "").ok(), "10.1.0.52");
    first(call(&asking(&[], &["10.9.0.53"]), "d", "").ok(), "10.9.0.53");
    // All three together, in any order, one named twice.
    let together = asking(&["fd00:0::0:60/64", "10.2.0.60"], &["10.2.0.60/24"]);
    let got = call(&together, "e", "IP=10.1.0.60").ok();
    assert_eq!(addresses(&got), ["10.1.0.60", "10.2.0.60", "fd00::60"]);
    // The rotor stands behind the last one that was asked for.
    let next = addresses(&add(&host, &plain, "f").ok());
    assert_eq!(next, ["10.1.0.61", "10.2.0.61", "fd00::61"]);

    let before = host.leases("net");
    let refused = |outcome: Outcome, code: u64, words: &[&str]| {
        outcome.fails(code, words);
        assert_eq!(host.leases("net"), before, "all or nothing");
    };
    let left = "failed to allocate all requested IPs";
    refused(call(&plain, "x", "IP=192.0.2.1"), 7, &[left, "192.0.2.1"]);
    refused(call(&plain, "x", "IP=10.1.0.100"), 7, &[left, "10.1.0.100"]);
    // A set gives one address at most.
    refused(call(&asking(&["10.1.0.70", "10.9.0.71"], &[]), "x", ""), 7, &[left, "10.9.0.71"]);
    refused(call(&plain, "x", "IP=10.1.0.1"), 7, &["10.1.0.1 is the gateway"]);
    refused(call(&plain, "x", "IP=10.9.0.1"), 7, &["10.9.0.1 is the gateway"]);
    // The second is taken, so the first is given back.
    let taken = asking(&["10.1.0.70", "fd00::60"], &[]);
    refused(call(&taken, "x", ""), 11, &["fd00::60", "container e holds it"]);
    // Whoever holds it may ask again.
    assert_eq!(addresses(&call(&together, "e", "IP=10.1.0.60").ok())[0], "10.1.0.60");
    assert_eq!(host.leases("net"), before);
    del(&host, &plain, "e").ok();
    let got = addresses(&call(&taken, "x", "").ok());
    assert_eq!([&got[0], &got[2]], ["10.1.0.70", "fd00::60"]);
}

#[test]
fn an_address_rests_as_long_as_possible_before_it_is_used_again() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [[range_of("10.1.0.10", "10.1.0.13")]]}));
    let rotor = format!("{DIR}/last_reserved_ip.0");
    let mut seen = Vec::new();
    for number in 0..9 {
        let container = format!("c{number}");
        let got = address(&add(&host, &conf, &container).ok());
        assert_eq!(host.read(&rotor), got, "as the reference writes it");
        seen.push(got);
        del(&host, &conf, &container).ok();
    }
    let round = ["10.1.0.10", "10.1.0.11", "10.1.0.12", "10.1.0.13"];
    let expected: Vec<_> = round.iter().cycle().take(9).collect();
    assert_eq!(seen.iter().collect::<Vec<_>>(), expected);

    // From wherever the rotor stands all of them are found.
    for (text, first) in [
        ("10.1.0.12", "10.1.0.13"),
        ("10.1.0.13", "10.1.0.10"),
        ("10.1.0.12\n", "10.1.0.13"),
        ("", "10.1.0.10"),
        ("garbage", "10.1.0.10"),
        ("10.1.0.9", "10.1.0.10"),
        ("192.0.2.1", "10.1.0.10"),
        ("fd00::1", "10.1.0.10"),
        (
            "10.1.0.1222222222222222222222222222222222222222222222222222222222222222222222",
            "10.1.0.10",
        ),
    ] {
        host.sh(&format!("rm -r {DIR}; mkdir {DIR}"));
        host.write(&rotor, text);
        let mut all = add_many(&host, &conf, 4);
        assert_eq!(all[0], first, "{text:?}");
        assert_eq!(host.read(&rotor), all[3]);
        all.sort();
        assert_eq!(all, round, "{text:?}");
        add(&host, &conf, "one-more").fails(11, &["4 of 4 held"]);
    }
}

#[test]
fn a_full_range_is_told_exactly_and_has_room_again_at_once() {
    let host = Host::new();
    let ranges = json!([[{"subnet": "fd00::/64"}], [range_of("10.1.0.10", "10.1.0.12")]]);
    let conf = conf(&json!({"ranges": ranges}));
    let status = |code: Option<u64>| {
        let outcome = Call::new(&host, "STATUS", &conf).run();
        match code {
            Some(code) => drop(outcome.fails(code, &["10.1.0.10-10.1.0.12", "3 of 3 held", DIR])),
            None => assert_eq!(outcome.ok(), Value::Null),
        }
    };
    status(None);
    for number in 0..3 {
        add(&host, &conf, &format!("c{number}")).ok();
        status((number == 2).then_some(50));
    }
    let before = host.leases("net");
    for _ in 0..3 {
        let words = ["no IP addresses available", "10.1.0.10-10.1.0.12", "3 of 3 held", DIR];
        add(&host, &conf, "x").fails(11, &words);
        assert_eq!(host.leases("net"), before, "the address of the first set is given back");
    }
    del(&host, &conf, "c1").ok();
    status(None);
    assert_eq!(addresses(&add(&host, &conf, "x").ok())[1], "10.1.0.11");
    status(Some(50));
}

#[test]
fn a_repeated_add_returns_what_the_attachment_holds() {
    for version in VERSIONS {
        let host = Host::new();
        let ipam = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]});
        let conf = conf_of(version, &ipam);
        let first = add(&host, &conf, "a").ok();
        let other = add(&host, &conf, "b").ok();
        assert_eq!(addresses(&other), ["10.1.0.3", "fd00::3"]);
        let leases = host.leases("net");
        for _ in 0..2 {
            assert_eq!(add(&host, &conf, "a").ok(), first, "{version}");
        }
        assert_eq!(host.leases("net"), leases, "{version}");
        // One of the two has been lost.
        for (lost, replaced) in
            [("10.1.0.2", ["10.1.0.4", "fd00::2"]), ("fd00::2", ["10.1.0.4", "fd00::4"])]
        {
            host.sh(&format!("rm {DIR}/{lost}"));
            assert_eq!(addresses(&add(&host, &conf, "a").ok()), replaced, "{version}");
        }
        del(&host, &conf, "a").ok();
        assert_eq!(host.leases("net"), ["10.1.0.3", "fd00::3"], "{version}");
    }
}

/// `X has been allocated to Y, duplicate allocation is not allowed`, after the runtime or the node had
/// crashed.
#[test]
fn kubefire_3_an_add_that_is_repeated_after_a_crash_succeeds() {
    let host = Host::new();
    let conf = conf(&json!({"subnet": "10.1.0.0/24"}));
    let call = Call::new(&host, "ADD", &conf).attachment("c", "eth0");
    let theirs = address(
        &call
            .clone()
            .plugin(REFERENCE)
            .stdin(conf_of("1.0.0", &conf["ipam"]).to_string())
            .run()
            .ok(),
    );
    assert_eq!(address(&call.run().ok()), theirs, "the reference's lease is ours as well");
    assert_eq!(host.leases("net"), [theirs]);
}

#[test]
fn interfaces_of_one_container_are_attachments_of_their_own() {
    let host = Host::new();
    let conf = conf(&json!({"subnet": "10.1.0.0/24"}));
    let call = |command: &str, ifname: &str| {
        Call::new(&host, command, &conf).attachment("c", ifname).run().ok()
    };
    let (eth0, net1) = (call("ADD", "eth0"), call("ADD", "net1"));
    assert_eq!([address(&eth0), address(&net1)], ["10.1.0.2", "10.1.0.3"]);
    assert_eq!(host.read(&format!("{DIR}/10.1.0.3")), "c\r\nnet1");
    assert_eq!(call("ADD", "eth0"), eth0);
    call("DEL", "eth0");
    assert_eq!(host.leases("net"), ["10.1.0.3"]);
    check(&host, &conf, &json!({"cniVersion": "1.1.0", "ips": []}), "c")
        .fails(999, &["eth0", "holds no address"]);
    call("DEL", "net1");
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

#[test]
fn del_releases_whatever_the_configuration_says_of_ranges() {
    let host = Host::new();
    let good = conf(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    for (number, broken) in [
        with(&good, "ipam", json!({"type": "host-local", "subnet": "nonsense", "ranges": 5, "routes": {}, "resolvConf": "/none"})),
        with(&good, "ipam", json!({"type": "host-local"})),
        with(&good, "ipam", Value::Null),
        with(&good, "runtimeConfig", json!({"ipRanges": 5, "ips": ["x"]})),
        with(&good, "args", json!({"cni": 5})),
        with(&good, "ipam", json!({"type": "host-local", "subnet": "192.168.0.0/24"})),
        with(&good, "prevResult", json!(5)),
    ]
    .iter()
    .enumerate()
    {
        let container = format!("c{number}");
        add(&host, &good, &container).ok();
        let call = Call::new(&host, "DEL", broken).attachment(&container, "eth0");
        let call = call.env("CNI_ARGS", "nonsense").without("CNI_NETNS");
        for _ in 0..2 {
            let outcome = call.run();
            assert_eq!(outcome.ok(), Value::Null, "{broken}: {outcome:#?}");
        }
        assert_eq!(host.leases("net"), [] as [&str; 0], "{broken}");
    }
    let nowhere = conf(&json!({"dataDir": "/run/none"}));
    del(&host, &nowhere, "c").ok();
    host.sh("test ! -e /run/none");
}

#[test]
fn check_demands_the_leases_of_the_previous_result() {
    let host = Host::new();
    let ranges = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]);
    for version in VERSIONS {
        let conf = conf_of(version, &json!({"ranges": ranges}));
        let result = add(&host, &conf, "c").ok();
        if version < "0.4.0" {
            check(&host, &conf, &result, "c").fails(1, &["CHECK", "0.4.0"]);
            del(&host, &conf, "c").ok();
            continue;
        }
        assert_eq!(check(&host, &conf, &result, "c").ok(), Value::Null);
        check(&host, &conf, &result, "d").fails(999, &["container d", "holds no address"]);
        // Addresses that are not of these ranges are another plugin's.
        let mut more = result.clone();
        let mut ip = result["ips"][0].clone();
        ip["address"] = "192.0.2.9/24".into();
        more["ips"].as_array_mut().unwrap().push(ip);
        check(&host, &conf, &more, "c").ok();
        let v6 = addresses(&result)[1].clone();
        host.sh(&format!("rm {DIR}/{v6}"));
        check(&host, &conf, &result, "c").fails(999, &["container c", &v6, "not leased"]);
        host.sh(&format!("printf 'd\\r\\neth0' > {DIR}/{v6}"));
        check(&host, &conf, &result, "c").fails(999, &[&v6, "not leased"]);
        del(&host, &conf, "c").ok();
        check(&host, &conf, &result, "c").fails(999, &["holds no address"]);
        host.sh("rm -r /var/lib/cni");
    }
}

#[test]
fn gc_keeps_the_valid_attachments_of_its_network_alone() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    let other = with(&conf, "name", "other".into());
    for container in ["a", "b", "c"] {
        add(&host, &conf, container).ok();
        add(&host, &other, container).ok();
    }
    Call::new(&host, "ADD", &conf).attachment("a", "net1").run().ok();
    // Old releases did not name the interface; what is no lease is not touched.
    host.sh(&format!(
        "cd {DIR}; printf a > 10.1.0.101; printf gone > 10.1.0.102; echo x > notes; mkdir sub"
    ));
    let others = host.leases("other");
    let inodes = || {
        host.sh(&format!("cd {DIR}; stat -c '%n %i' lock last_reserved_ip.* plumb.index notes sub"))
    };
    let (files, rotor) = (inodes(), host.read(&format!("{DIR}/last_reserved_ip.0")));

    host.gc(&conf, &[("a", "eth0"), ("c", "eth0"), ("unknown", "eth0")]).ok();
    let left = ["10.1.0.101", "10.1.0.2", "10.1.0.4", "fd00::2", "fd00::4"];
    assert_eq!(host.leases("net"), left);
    Call::new(&host, "GC", &conf).run().fails(7, &["cni.dev/valid-attachments"]);
    assert_eq!(host.leases("net"), left, "without a list nothing is known to be invalid");
    host.gc(&conf, &[]).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0], "an empty list means that there are none");
    assert_eq!(host.leases("other"), others);
    assert_eq!(inodes(), files);
    assert_eq!(host.read(&format!("{DIR}/last_reserved_ip.0")), rotor);
    assert_eq!(addresses(&add(&host, &conf, "d").ok()), ["10.1.0.6", "fd00::6"]);
    host.gc(&with(&conf, "name", "unheard-of".into()), &[]).ok();
    host.sh("test ! -e /var/lib/cni/networks/unheard-of");
}

#[test]
fn gc_and_status_need_a_version_that_has_them() {
    let host = Host::new();
    for version in VERSIONS {
        let conf = conf_of(version, &json!({"subnet": "10.1.0.0/24"}));
        for outcome in [host.gc(&conf, &[]), host.status(&conf)] {
            if version < "1.1.0" {
                outcome.fails(1, &["1.1.0"]);
            } else {
                assert_eq!(outcome.ok(), Value::Null);
            }
        }
    }
    let broken = conf(&json!({"subnet": "10.1.0.0/31"}));
    host.status(&broken).fails(7, &["ipam.subnet"]);
}
