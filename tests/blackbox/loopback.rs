//! Plugin loopback: the container's `lo` up and down, whatever it is called with.

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, VERSIONS};

fn conf(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

/// As engines call it.
fn call<'a>(host: &'a Host, command: &str, conf: &Value, pod: &Pod<'_>) -> Call<'a> {
    Call::new(host, command, conf).of(pod).env("CNI_IFNAME", "lo")
}

fn is_up(pod: &Pod<'_>) -> bool {
    pod.ip("link show dev lo")[0]["flags"].as_array().unwrap().contains(&json!("UP"))
}

#[test]
fn it_is_brought_up_and_told_in_the_form_of_every_version() {
    let host = Host::new();
    let before = host.snapshot();
    for version in VERSIONS {
        let pod = host.pod(&format!("pod-{version}"));
        let conf = conf(version);
        assert!(!is_up(&pod));
        let result = call(&host, "ADD", &conf, &pod).run();
        let path = pod.path();
        let ip = |address: &str, family: &str| match version {
            "1.0.0" | "1.1.0" => json!({"address": address, "interface": 0}),
            _ => json!({"version": family, "address": address, "interface": 0}),
        };
        let mut expected = match version {
            "0.1.0" | "0.2.0" => json!({"ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}}),
            _ => json!({
                "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": path}],
                "ips": [ip("127.0.0.1/8", "4"), ip("::1/128", "6")],
            }),
        };
        expected["cniVersion"] = json!(version);
        if version < "1.0.0" {
            expected["dns"] = json!({});
        }
        assert_eq!(result.ok(), expected);
        assert!(is_up(&pod));
        pod.must_reach("127.0.0.1");
        pod.must_reach("::1");
        // As runtimes do that try again.
        assert_eq!(call(&host, "ADD", &conf, &pod).run().stdout, result.stdout);

        let mut with_result = conf.clone();
        with_result["prevResult"] = result.ok();
        if version >= "0.4.0" {
            assert_eq!(call(&host, "CHECK", &with_result, &pod).run().ok(), Value::Null);
            call(&host, "CHECK", &conf, &pod).run().ok();
        }
        for conf in [&conf, &with_result] {
            assert_eq!(call(&host, "DEL", conf, &pod).run().ok(), Value::Null);
            assert!(!is_up(&pod));
        }
    }
    assert_eq!(host.snapshot(), before);
    assert!(host.sh("ip link show lo").contains("LOOPBACK,UP"), "the host's is not touched");
}

/// Whatever `CNI_IFNAME` and `CNI_ARGS` say.
#[test]
fn it_does_not_matter_what_the_interface_is_called() {
    let host = Host::new();
    let pod = host.pod("a");
    let add = Call::new(&host, "ADD", &conf("1.0.0")).of(&pod).env("CNI_ARGS", "none");
    assert_eq!(add.run().ok()["interfaces"][0]["name"], "lo");
    assert!(is_up(&pod));
    Call::new(&host, "DEL", &conf("1.0.0")).of(&pod).env("CNI_IFNAME", "net7").run().ok();
    assert!(!is_up(&pod));
}

#[test]
fn the_result_of_a_plugin_before_it_is_passed_on() {
    let host = Host::new();
    let pod = host.pod("a");
    let prev = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:01"},
                       {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": pod.path()}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.1.0.1"]},
    });
    let mut chained = conf("1.0.0");
    chained["prevResult"] = prev.clone();
    assert_eq!(call(&host, "ADD", &chained, &pod).run().ok(), prev);
    assert!(is_up(&pod));
    // The addresses in it are not those of the loopback interface.
    call(&host, "CHECK", &chained, &pod).run().ok();
    chained["prevResult"] = json!("nonsense");
    call(&host, "ADD", &chained, &pod).run().fails(6, &["prevResult", "nonsense"]);
}

#[test]
fn without_ipv6_only_the_ipv4_address_is_told() {
    let host = Host::new();
    let pod = host.pod("a");
    pod.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
    let result = call(&host, "ADD", &conf("1.0.0"), &pod).run().ok();
    assert_eq!(result["ips"], json!([{"address": "127.0.0.1/8", "interface": 0}]));
}

#[test]
fn addresses_that_are_not_loopback_ones_are_refused() {
    let host = Host::new();
    for (name, address) in [("a", "192.0.2.1/32"), ("b", "2001:db8::1/128")] {
        let pod = host.pod(name);
        pod.sh(&format!("ip addr add {address} dev lo"));
        call(&host, "ADD", &conf("1.0.0"), &pod).run().fails(999, &["non-loopback", address]);
    }
    // One more of 127.0.0.0/8 is none of them, and the first is what is told.
    let pod = host.pod("c");
    pod.sh("ip addr add 127.0.0.53/8 dev lo");
    let result = call(&host, "ADD", &conf("1.0.0"), &pod).run().ok();
    assert_eq!(result["ips"][0]["address"], "127.0.0.53/8");
    assert_eq!(result["ips"][1]["address"], "::1/128");
}

#[test]
fn other_interfaces_of_the_container_do_not_count() {
    let host = Host::new();
    let pod = host.pod("a");
    pod.sh("ip link add eth0 type veth peer name eth1
            ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up");
    let result = call(&host, "ADD", &conf("1.0.0"), &pod).run().ok();
    assert_eq!(result["ips"].as_array().unwrap().len(), 2, "{result:#}");
    call(&host, "DEL", &conf("1.0.0"), &pod).run().ok();
    assert_eq!(pod.addresses("eth0"), ["192.0.2.1/24"]);
}

#[test]
fn check_tells_what_has_gone_astray() {
    let host = Host::new();
    let pod = host.pod("a");
    let result = call(&host, "ADD", &conf("1.1.0"), &pod).run().ok();
    let mut with_result = conf("1.1.0");
    with_result["prevResult"] = result;
    for (script, words) in [
        ("ip addr del 127.0.0.1/8 dev lo", ["127.0.0.1/8", "missing"]),
        ("ip -6 addr flush dev lo; ip addr add 127.0.0.1/8 dev lo", ["::1/128", "missing"]),
        ("ip link set lo down", ["\"lo\"", "down"]),
    ] {
        pod.sh(script);
        call(&host, "CHECK", &with_result, &pod).run().fails(999, &words);
    }
    let missing = call(&host, "CHECK", &with_result, &pod).env("CNI_NETNS", "/run/netns/none");
    missing.run().fails(8, &["/run/netns/none"]);
}

/// The namespace may have gone, or never been; nothing is left then.
#[test]
fn k8s_43014_del_succeeds_without_the_namespace() {
    let host = Host::new();
    let pod = host.pod("a");
    call(&host, "ADD", &conf("1.0.0"), &pod).run().ok();
    host.sh("ip netns del a");
    for version in VERSIONS {
        let del = call(&host, "DEL", &conf(version), &pod);
        del.run().ok();
        del.clone().env("CNI_NETNS", "").run().ok();
        del.without("CNI_NETNS").run().ok();
    }
    let add = call(&host, "ADD", &conf("1.0.0"), &pod);
    add.run().fails(8, &[&pod.path()]);
}

#[test]
fn there_is_nothing_to_collect_and_nothing_that_could_be_missing() {
    let host = Host::new();
    assert_eq!(host.gc(&conf("1.1.0"), &[("a", "lo")]).ok(), Value::Null);
    assert_eq!(host.status(&conf("1.1.0")).ok(), Value::Null);
}
