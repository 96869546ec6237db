//! Plugin ipvlan: what each key of its configuration does, and what it refuses.

use serde_json::{Value, json};

use crate::child::{self, segment};
use crate::harness::{Call, Host, Pod, fails_without_a_trace, ipv4, with};

fn conf(keys: &Value) -> Value {
    with(child::conf("ipvlan", &json!({"ipam": ipv4()})), keys)
}

/// What `ip -d link` tells of a pod's interface.
fn link(pod: &Pod<'_>) -> Value {
    pod.ip("link show dev eth0")[0].clone()
}

const REAL_INPUT: &str = include_str!("../../examples/ipvlan.conf");

#[test]
#[ignore = "needs ipvlan"]
fn two_pods_share_the_hosts_link() {
    child::lives_in_every_version(REAL_INPUT, |host, [a, b], _| {
        host.sh("ip netns exec neighbour ip addr replace 10.1.2.200/24 dev eth0");
        let address =
            |pod: &Pod<'_>| pod.addresses("eth0")[0].split('/').next().unwrap().to_owned();
        a.must_reach(&address(b));
        b.must_reach(&address(a));
        a.must_reach("10.1.2.200");
    });
}

#[test]
#[ignore = "needs ipvlan"]
fn pods_reach_each_other_in_every_mode_and_never_the_host() {
    for (mode, told) in
        [(json!(null), "l2"), (json!(""), "l2"), (json!("l3"), "l3"), (json!("l3s"), "l3s")]
    {
        let host = Host::new();
        segment(&host, "up0");
        let (a, b) = (host.pod("a"), host.pod("b"));
        let conf = conf(&json!({"mode": mode}));
        let result = host.add(&conf, &a).ok();
        host.add(&conf, &b).ok();
        assert_eq!(link(&a)["linkinfo"]["info_data"]["mode"], told, "{mode}");
        a.must_reach("10.1.0.3");
        b.must_reach("10.1.0.2");
        assert!(!a.reaches("10.1.0.201"), "{mode}");
        host.check(&conf, &result, &a).ok();
        // It has the master's address.
        let master = host.ip("link show dev up0")[0]["address"].clone();
        assert_eq!(link(&a)["address"], master, "{mode}");
        assert_eq!(result["interfaces"][0]["mac"], master, "{mode}");
    }
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    for mode in ["L2", "l4", "private"] {
        let words = ["mode", mode, "\"l3s\""];
        fails_without_a_trace(&host, &conf(&json!({"mode": mode})), &pod, 7, &words);
    }
    fails_without_a_trace(&host, &conf(&json!({"mode": 2})), &pod, 6, &["mode"]);
}

/// The addresses are those of the plugin before, and its one interface is the master unless one is named.
#[test]
#[ignore = "needs ipvlan"]
fn it_takes_addresses_and_master_from_the_plugin_before() {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    let prev = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "up0", "mac": "02:00:00:00:00:01"}],
        "ips": [{"address": "10.1.0.77/16", "gateway": "10.1.0.200", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24"}],
    });
    for master in [json!(null), json!(""), json!("up0")] {
        let conf = conf(&json!({"master": master, "ipam": null, "prevResult": prev}));
        let result = host.add(&conf, &pod).ok();
        assert_eq!(pod.addresses("eth0"), ["10.1.0.77/16"]);
        assert_eq!(result["ips"], prev["ips"], "{result:#}");
        assert_eq!(result["routes"], prev["routes"]);
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        pod.must_reach("10.1.0.200");
        host.check(&conf, &result, &pod).ok();
        let mut del = conf.clone();
        del["prevResult"] = result;
        host.del(&del, &pod).ok();
        child::assert_bare(&pod);
    }
    // With address management of its own, and before in the chain only a link.
    let mut bare = prev.clone();
    bare["ips"] = json!([]);
    let chained = conf(&json!({"master": null, "prevResult": bare}));
    host.add(&chained, &pod).ok();
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/16"]);
    host.del(&chained, &pod).ok();

    let without = conf(&json!({"ipam": null, "prevResult": bare}));
    fails_without_a_trace(&host, &without, &pod, 7, &["ipam.type", "prevResult"]);
    let nothing = conf(&json!({"ipam": {}}));
    fails_without_a_trace(&host, &nothing, &pod, 7, &["ipam.type", "prevResult"]);
    for interfaces in [json!([]), json!([{"name": "x"}, {"name": "y"}]), json!([{"name": ""}])] {
        let mut prev = prev.clone();
        prev["interfaces"] = interfaces;
        let conf = conf(&json!({"master": null, "ipam": null, "prevResult": prev}));
        let words = ["prevResult.interfaces", "master"];
        host.add(&conf, &pod).fails(7, &words);
        child::assert_bare(&pod);
    }
    // Before it is called in a chain, STATUS can't know the master; alone it can't do without.
    host.status(&conf(&json!({"master": null, "ipam": null}))).ok();
}

/// The kernel says no more than EBUSY.
#[test]
#[ignore = "needs ipvlan"]
fn multus_1339_a_master_that_another_kind_has_is_said_to_be_whose() {
    let host = Host::new();
    segment(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mut macvlan = conf(&json!({"name": "other"}));
    macvlan["type"] = json!("macvlan");
    host.add(&conf(&json!({})), &a).ok();
    let words = ["create macvlan", "EBUSY", "ipvlan \"eth0\" in /run/netns/a (plumb:net/a/eth0)"];
    fails_without_a_trace(&host, &macvlan, &b, 999, &words);
    host.del(&conf(&json!({})), &a).ok();
    host.add(&macvlan, &a).ok();
    let words = ["create ipvlan", "EBUSY", "macvlan \"eth0\" in /run/netns/a (plumb:other/a/eth0)"];
    fails_without_a_trace(&host, &conf(&json!({})), &b, 999, &words);
    host.del(&macvlan, &a).ok();
    host.sh("ip link add br7 type bridge; ip link set up0 master br7");
    let words = ["create ipvlan", "EBUSY", "master \"up0\" is a port of bridge \"br7\""];
    fails_without_a_trace(&host, &conf(&json!({})), &b, 999, &words);
}

#[test]
#[ignore = "needs ipvlan"]
fn an_address_in_use_is_said_to_be_whose() {
    let host = Host::new();
    segment(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&conf(&json!({})), &a).ok();
    let mut other = conf(&json!({"name": "other"}));
    other["ipam"] = json!({"type": "host-local", "subnet": "10.1.0.0/16"});
    let words = ["10.1.0.2/16", "EADDRINUSE", "ipvlan \"eth0\" in /run/netns/a (plumb:net/a/eth0)"];
    fails_without_a_trace(&host, &other, &b, 999, &words);
}

#[test]
#[ignore = "needs ipvlan"]
fn its_verbs_are_those_of_all_links_in_containers() {
    let conf = conf(&json!({}));
    child::master_and_mtu_are_bounded(&conf);
    child::the_master_is_the_default_routes(&conf);
    child::the_master_can_be_in_the_container(&conf);
    child::is_born_under_its_final_name(&conf);
    child::del_leaves_alone_what_is_not_its_own(&conf);
    child::a_late_refusal_undoes_all(&conf);
    child::gc_keeps_the_valid(&conf);
    child::status_tells_of_the_master(&conf);
}

#[test]
#[ignore = "needs ipvlan"]
fn neighbours_are_asked_for_ipv6_addresses() {
    child::neighbours_are_asked_for_ipv6_addresses(&conf(&json!({})));
}

#[test]
#[ignore = "needs ipvlan"]
fn del_needs_nothing() {
    child::del_needs_nothing(&conf(&json!({})));
}

#[test]
#[ignore = "needs ipvlan"]
fn check_names_what_has_gone_astray() {
    let conf = conf(&json!({"ipam": child::with_route()}));
    child::drifts(&conf, &child::DRIFTS);
    let mode: (&str, &[&str]) =
        ("ip link set eth0 type ipvlan mode l3", &["eth0", "has mode 1, not 0"]);
    child::drifts(&self::conf(&json!({})), &[mode]);
}

/// What a key is no concern of is not even looked at: `CNI_ARGS`, `mac`.
#[test]
#[ignore = "needs ipvlan"]
fn it_has_no_address_of_its_own_to_ask_for() {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    let conf = conf(&json!({"mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": "x"},
        "ipam": {"type": "scripted"}}));
    host.scripted_ipam(&json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9/16"}]}));
    let call = Call::new(&host, "ADD", &conf).of(&pod).env("CNI_ARGS", "none");
    call.run().ok();
    assert_eq!(link(&pod)["address"], host.ip("link show dev up0")[0]["address"]);
}

#[test]
#[ignore = "needs ipvlan"]
fn it_costs_what_macvlan_does() {
    let mut conf = conf(&json!({}));
    conf["master"] = json!("up0");
    child::costs_what_macvlan_does(&conf);
}

#[test]
#[ignore = "needs ipvlan"]
fn an_add_is_undone_whatever_fails() {
    let failures = child::CONVERSATION.map(|syscall| (syscall, ""));
    child::an_add_is_undone_whatever_fails(&conf(&json!({})), &failures);
}

#[test]
#[ignore = "needs ipvlan"]
fn a_del_that_fails_is_made_up_for_by_the_next() {
    let conf = conf(&json!({}));
    child::a_del_that_fails_is_made_up_for_by_the_next(&conf, &child::CONVERSATION);
}
