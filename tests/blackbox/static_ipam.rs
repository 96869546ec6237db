//! Plugin static: addresses out of each of their four places, within another plugin's process and alone.

use serde_json::{Value, json};

use crate::harness::{BIN, Call, Host, PLUMB, VERSIONS, bridge_conf};

fn conf(mut ipam: Value) -> Value {
    ipam["type"] = json!("static");
    let mut conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "static"});
    conf["ipam"] = ipam;
    conf
}

fn call<'a>(host: &'a Host, command: &str, conf: &Value) -> Call<'a> {
    Call::new(host, command, conf).attachment("c1", "eth0")
}

/// Address and gateway of each address that ADD returns.
fn added(call: &Call<'_>) -> Vec<(String, Option<String>)> {
    let result = call.run().ok();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ips = result["ips"].as_array().cloned().unwrap_or_default();
    ips.iter().map(|ip| (text(&ip["address"]).unwrap(), text(&ip["gateway"]))).collect()
}

fn with(address: &str, gateway: &str) -> (String, Option<String>) {
    (address.to_owned(), Some(gateway.to_owned()))
}

fn without(address: &str) -> (String, Option<String>) {
    (address.to_owned(), None)
}

#[test]
fn all_that_is_configured_is_in_the_result_of_every_version() {
    let host = Host::new();
    let before = host.snapshot();
    let mut conf = conf(json!({
        "addresses": [
            {"address": "10.10.0.1/24", "gateway": "10.10.0.254", "version": "4"},
            {"address": "3ffe:ffff:0:01ff::1/64", "gateway": "3ffe:ffff:0::1", "version": "6"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "192.168.0.0/16", "gw": "10.10.5.1", "mtu": 1400, "advmss": 1300,
             "priority": 5, "table": 100, "scope": 0},
            {"dst": "3ffe:ffff:0:01ff::1/64"},
        ],
        "dns": {"nameservers": ["8.8.8.8"], "domain": "example.com", "search": ["example.org"],
                "options": ["ndots:2"]},
    }));
    for version in VERSIONS {
        conf["cniVersion"] = json!(version);
        let result = call(&host, "ADD", &conf).run().ok();
        let v4_routes = &conf["ipam"]["routes"].as_array().unwrap()[..2];
        // Addresses are told in their canonical form.
        let v6_route = json!({"dst": "3ffe:ffff:0:1ff::1/64"});
        let mut expected = json!({"cniVersion": version, "dns": conf["ipam"]["dns"]});
        if version < "0.3.0" {
            expected["ip4"] = json!({"ip": "10.10.0.1/24", "gateway": "10.10.0.254",
                                     "routes": v4_routes});
            expected["ip6"] = json!({"ip": "3ffe:ffff:0:1ff::1/64", "gateway": "3ffe:ffff::1",
                                     "routes": [v6_route]});
        } else {
            expected["ips"] = json!([
                {"address": "10.10.0.1/24", "gateway": "10.10.0.254"},
                {"address": "3ffe:ffff:0:1ff::1/64", "gateway": "3ffe:ffff::1"},
            ]);
            if version < "1.0.0" {
                expected["ips"][0]["version"] = json!("4");
                expected["ips"][1]["version"] = json!("6");
            }
            expected["routes"] = json!([v4_routes[0], v4_routes[1], v6_route]);
        }
        assert_eq!(result, expected);
        for _ in 0..2 {
            assert_eq!(call(&host, "DEL", &conf).run().ok(), Value::Null);
        }
    }
    assert_eq!(host.snapshot(), before, "no lease is kept");
}

#[test]
fn arguments_are_added_and_the_call_s_addresses_come_instead() {
    let host = Host::new();
    let mut conf = conf(json!({
        "addresses": [{"address": "10.1.0.5/24"}, {"address": "10.2.0.5/24", "gateway": "10.2.0.9"}],
    }));
    let add = |conf: &Value, args: &str| added(&call(&host, "ADD", conf).env("CNI_ARGS", args));
    let configured = [without("10.1.0.5/24"), with("10.2.0.5/24", "10.2.0.9")];
    assert_eq!(add(&conf, ""), configured);

    // A gateway is for each address in whose network it is, also for a configured one.
    let args = "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.3.0.5/16, fd00::5/64;\
                GATEWAY=10.1.0.1,10.3.9.9 ,fd00::1,10.9.9.9";
    let appended = [
        with("10.1.0.5/24", "10.1.0.1"),
        with("10.2.0.5/24", "10.2.0.9"),
        with("10.3.0.5/16", "10.3.9.9"),
        with("fd00::5/64", "fd00::1"),
    ];
    assert_eq!(add(&conf, args), appended);

    // args.cni.ips before both, runtimeConfig.ips before all; gateways are not known then.
    conf["args"] = json!({"cni": {"ips": ["10.4.0.5/24", "fd04::5/64"]}});
    assert_eq!(add(&conf, args), [without("10.4.0.5/24"), without("fd04::5/64")]);
    conf["runtimeConfig"] = json!({"ips": ["10.5.0.5/24"]});
    assert_eq!(add(&conf, args), [without("10.5.0.5/24")]);
    // An empty list is none.
    conf["runtimeConfig"] = json!({"ips": []});
    assert_eq!(add(&conf, args), [without("10.4.0.5/24"), without("fd04::5/64")]);
    conf["args"] = json!({"cni": {"ips": []}});
    assert_eq!(add(&conf, ""), configured);
    for nothing in [json!(null), json!({}), json!({"cni": null})] {
        conf["args"] = nothing;
        conf["runtimeConfig"] = json!(null);
        assert_eq!(add(&conf, ""), configured);
    }
}

#[test]
fn no_address_is_left_to_the_calling_plugin_to_refuse() {
    let host = Host::new();
    let pod = host.pod("a");
    let empty = json!({"cniVersion": "1.1.0"});
    for ipam in [json!({}), json!({"addresses": []}), json!({"addresses": null, "routes": null})] {
        assert_eq!(call(&host, "ADD", &conf(ipam)).run().ok(), empty);
    }
    let before = host.snapshot();
    let bridge = bridge_conf(&json!({"ipam": {"type": "static"}}));
    host.add(&bridge, &pod).fails(999, &["no addresses"]);
    assert_eq!(host.snapshot(), before);
}

#[test]
fn faulty_values_are_named() {
    let host = Host::new();
    let addresses = |item: Value| conf(json!({"addresses": [item]}));
    let cases = [
        (addresses(json!({})), 7, ["ipam.addresses[0].address", "nothing"]),
        (addresses(json!({"address": "10.1.0.5"})), 7, ["ipam.addresses[0].address", "10.1.0.5"]),
        (addresses(json!({"address": "10.1.0.5/33"})), 7, ["addresses[0].address", "10.1.0.5/33"]),
        (addresses(json!({"address": 5})), 6, ["addresses[0].address", "5"]),
        (addresses(json!("10.1.0.5/24")), 6, ["addresses[0]", "10.1.0.5/24"]),
        (
            addresses(json!({"address": "10.1.0.5/24", "gateway": "x"})),
            7,
            ["addresses[0].gateway", "x"],
        ),
        (
            addresses(json!({"address": "10.1.0.5/24", "gateway": "fd00::1"})),
            7,
            ["addresses[0].gateway", "family of 10.1.0.5/24"],
        ),
        (conf(json!({"addresses": {}})), 6, ["ipam.addresses", "a list"]),
        (conf(json!({"routes": [{"gw": "10.1.0.1"}]})), 7, ["ipam.routes[0].dst", "nothing"]),
        (conf(json!({"dns": {"search": "x"}})), 6, ["ipam.dns.search", "a list"]),
    ];
    for (conf, code, words) in &cases {
        call(&host, "ADD", conf).run().fails(*code, words);
        call(&host, "STATUS", conf).run().fails(*code, words);
        // Nothing has to be read to release nothing.
        call(&host, "DEL", conf).run().ok();
    }
    let mut of_call = conf(json!({}));
    of_call["runtimeConfig"] = json!({"ips": ["10.1.0.5"]});
    call(&host, "ADD", &of_call).run().fails(7, &["runtimeConfig.ips[0]", "10.1.0.5"]);
    of_call["runtimeConfig"] = json!(null);
    of_call["args"] = json!({"cni": {"ips": [7]}});
    call(&host, "ADD", &of_call).run().fails(6, &["args.cni.ips[0]", "7"]);
    for (args, words) in [
        ("IP=10.1.0.5", ["CNI_ARGS: IP", "\"10.1.0.5\""]),
        ("IP=10.1.0.5/24,", ["CNI_ARGS: IP", "\"\""]),
        ("GATEWAY=10.1.0", ["CNI_ARGS: GATEWAY", "\"10.1.0\""]),
        ("ip=10.1.0.5/24", ["unknown args", "ip=10.1.0.5/24"]),
        ("none", ["KEY=value", "none"]),
    ] {
        call(&host, "ADD", &conf(json!({}))).env("CNI_ARGS", args).run().fails(4, &words);
    }
    let mut bare = conf(json!({}));
    bare["ipam"] = json!(null);
    call(&host, "ADD", &bare).run().fails(7, &["ipam", "nothing"]);
}

/// Versions before 0.3.0 can express one address of each family.
#[test]
fn several_addresses_of_a_family_need_0_3_0() {
    let host = Host::new();
    let mut conf = conf(json!({"addresses": [
        {"address": "10.1.0.5/24"}, {"address": "10.1.0.6/24"}, {"address": "fd00::5/64"},
    ]}));
    for version in VERSIONS {
        conf["cniVersion"] = json!(version);
        let outcome = call(&host, "ADD", &conf).run();
        if version < "0.3.0" {
            outcome.fails(7, &["ipam.addresses", "3 addresses", version]);
        } else {
            assert_eq!(outcome.ok()["ips"].as_array().unwrap().len(), 3);
        }
    }
}

/// The reference lets an address pass that is not in the result at all.
#[test]
fn check_wants_each_address_with_its_gateway() {
    let host = Host::new();
    let conf = conf(json!({"addresses": [
        {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"},
    ]}));
    let result = call(&host, "ADD", &conf).run().ok();
    let check = |change: &dyn Fn(&mut Value)| {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        change(&mut conf);
        call(&host, "CHECK", &conf).run()
    };
    assert_eq!(check(&|_| ()).ok(), Value::Null);
    // Where none is configured the calling plugin may have found one.
    check(&|conf| conf["prevResult"]["ips"][1]["gateway"] = json!("fd00::1")).ok();
    check(&|conf| drop(conf["prevResult"]["ips"].as_array_mut().unwrap().remove(1)))
        .fails(999, &["fd00::5/64", "missing"]);
    check(&|conf| conf["prevResult"]["ips"][0]["gateway"] = json!("10.1.0.2"))
        .fails(999, &["10.1.0.5/24", "10.1.0.2", "10.1.0.1"]);
    check(&|conf| conf["prevResult"]["ips"][0]["gateway"] = json!(null))
        .fails(999, &["10.1.0.5/24", "none", "10.1.0.1"]);
    check(&|conf| conf["prevResult"] = json!(null)).fails(7, &["prevResult"]);
}

#[test]
fn there_is_nothing_to_collect() {
    let host = Host::new();
    let conf = conf(json!({"addresses": [{"address": "10.1.0.5/24"}]}));
    assert_eq!(host.gc(&conf, &[("c1", "eth0")]).ok(), Value::Null);
    assert_eq!(host.status(&conf).ok(), Value::Null);
}

/// Other plugins find it within their own process; where `CNI_PATH` has another file of that name they
/// execute that.
#[test]
fn an_interface_plugin_gets_its_addresses_without_another_process() {
    let host = Host::new();
    let conf = |kind: &str| {
        let mut conf = bridge_conf(&json!({"isGateway": true, "ipMasq": true, "ipam": {
            "type": "static",
            "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}],
        }}));
        conf["type"] = json!(kind);
        conf
    };
    for kind in ["bridge", "ptp"] {
        let conf = conf(kind);
        let pod = host.pod(kind);
        let before = host.snapshot();
        let alone = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", "/run/trace"];
        let result = Call::new(&host, "ADD", &conf).of(&pod).under(&alone).run().ok();
        assert_eq!(host.read("/run/trace").matches("execve(").count(), 1, "the plugin's own");
        assert_eq!(pod.addresses("eth0"), ["10.1.0.5/24"]);
        pod.must_reach("10.1.0.1");
        host.check(&conf, &result, &pod).ok();
        let mut moved = conf.clone();
        moved["ipam"]["addresses"][0]["address"] = json!("10.1.0.6/24");
        host.check(&moved, &result, &pod).fails(999, &["10.1.0.6/24", "missing"]);
        host.status(&conf).ok();
        host.gc(&conf, &[(kind, "eth0")]).ok();
        host.check(&conf, &result, &pod).ok();

        // The elements of ipMasq are found by the configured address, without what ADD returned.
        host.del(&conf, &pod).ok();
        host.snapshot().assert_nothing_but_shared(&before, "br0");
        host.add(&conf, &pod).ok();
        host.gc(&conf, &[]).ok();
        host.snapshot().assert_nothing_but_shared(&before, "br0");
        host.sh("ip link del br0 2>/dev/null || true");
    }
    // A copy is another file.
    host.sh(&format!("rm {BIN}/static; cp {PLUMB} {BIN}/static"));
    let pod = host.pod("a");
    let conf = conf("ptp");
    let traced = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", "/run/trace"];
    let result = Call::new(&host, "ADD", &conf).of(&pod).under(&traced).run().ok();
    assert_eq!(host.read("/run/trace").matches("execve(").count(), 2);
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
}

/// An address that a call has asked for is masqueraded, and found again by what the call tells; or by GC.
#[test]
fn the_addresses_of_a_call_are_detached_as_they_were_attached() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let base = bridge_conf(&json!({"isGateway": true, "ipMasq": true, "ipam": {"type": "static"}}));
    let mut of_call = base.clone();
    of_call["runtimeConfig"] = json!({"ips": ["10.1.0.7/24", "fd01::7/64"]});
    let result = host.add(&of_call, &pod).ok();
    assert_eq!(pod.addresses("eth0"), ["10.1.0.7/24", "fd01::7/64"]);
    assert_eq!(host.element_comments().len(), 2);
    host.check(&of_call, &result, &pod).ok();

    host.del(&of_call, &pod).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
    host.add(&of_call, &pod).ok();
    let mut with_result = base.clone();
    with_result["prevResult"] = result;
    host.del(&with_result, &pod).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
    // Told nothing at all, DEL looks for what bears the attachment's name.
    host.add(&of_call, &pod).ok();
    host.del(&base, &pod).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}
