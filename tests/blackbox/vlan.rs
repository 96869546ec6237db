//! Plugin vlan: what each key of its configuration does, and what it refuses.

use serde_json::{Value, json};

use crate::child::{self, segment};
use crate::harness::{Host, Pod, VERSIONS, fails_without_a_trace, ipv4, with};

fn conf(keys: &Value) -> Value {
    with(child::conf("vlan", &json!({"vlanId": 7, "ipam": ipv4()})), keys)
}

/// The neighbour on the segment is in VLAN 7, too, with addresses `10.1.0.200` and `fd01::200` there.
fn segment_with_vlan<'a>(host: &'a Host, name: &str) -> Pod<'a> {
    let neighbour = segment(host, name);
    neighbour.sh("ip addr flush dev eth0; ip link add link eth0 name v7 type vlan id 7
                  ip addr add 10.1.0.200/16 dev v7; ip addr add fd01::200/64 dev v7 nodad
                  ip link set v7 up");
    neighbour
}

#[test]
#[ignore = "needs vlan"]
fn a_pod_reaches_whoever_is_in_the_vlan() {
    let host = Host::new();
    let neighbour = segment_with_vlan(&host, "up0");
    let before = host.snapshot();
    let pod = host.pod("a");
    for version in VERSIONS {
        let conf = conf(&json!({"cniVersion": version}));
        let result = host.add(&conf, &pod).ok();
        let link = pod.ip("link show dev eth0")[0].clone();
        assert_eq!(link["linkinfo"]["info_kind"], "vlan");
        assert_eq!(link["linkinfo"]["info_data"]["id"], 7);
        assert_eq!(link["address"], host.ip("link show dev up0")[0]["address"]);
        if version >= "0.3.0" {
            assert_eq!(result["interfaces"].as_array().unwrap().len(), 1, "{result:#}");
            assert_eq!(result["interfaces"][0]["mac"], link["address"]);
            assert_eq!(result["ips"][0]["interface"], 0);
        }
        pod.must_reach("10.1.0.200");
        if version >= "0.4.0" {
            host.check(&conf, &result, &pod).ok();
        }
        host.del(&conf, &pod).ok();
        host.del(&conf, &pod).ok();
        child::assert_bare(&pod);
    }
    host.snapshot().assert_same_but_for_rules(&before);
    // The same frames without the tag are not for it.
    neighbour.sh("ip addr flush dev v7; ip addr add 10.1.0.200/16 dev eth0");
    host.add(&conf(&json!({})), &pod).ok();
    assert!(!pod.reaches("10.1.0.200"));
}

#[test]
#[ignore = "needs vlan"]
fn the_number_is_bounded_and_bears_one_pod() {
    let host = Host::new();
    segment(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    for (id, expected) in [(json!(null), 0), (json!(0), 0), (json!(1), 1), (json!(4094), 4094)] {
        let conf = conf(&json!({"vlanId": id}));
        let result = host.add(&conf, &a).ok();
        assert_eq!(a.ip("link show dev eth0")[0]["linkinfo"]["info_data"]["id"], expected, "{id}");
        host.check(&conf, &result, &a).ok();
        host.del(&conf, &a).ok();
    }
    for id in [json!(4095), json!(-1), json!(4096), json!(65543)] {
        let words = ["vlanId", "0 to 4094", &id.to_string()];
        fails_without_a_trace(&host, &conf(&json!({"vlanId": id})), &a, 7, &words);
    }
    fails_without_a_trace(&host, &conf(&json!({"vlanId": "7"})), &a, 6, &["vlanId"]);

    host.add(&conf(&json!({})), &a).ok();
    let words = ["create vlan", "EEXIST", "vlan \"eth0\" in /run/netns/a (plumb:net/a/eth0)"];
    fails_without_a_trace(&host, &conf(&json!({})), &b, 999, &words);
    host.del(&conf(&json!({})), &a).ok();
    host.sh("ip link add link up0 name own type vlan id 7");
    let words = ["create vlan", "EEXIST", "vlan \"own\" is on master \"up0\""];
    fails_without_a_trace(&host, &conf(&json!({})), &b, 999, &words);
}

#[test]
#[ignore = "needs vlan"]
fn it_needs_a_master_that_is_up_and_address_management() {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    host.sh("ip route add default via 10.1.0.200");
    for none in [json!(null), json!("")] {
        let words = ["master", "got nothing"];
        fails_without_a_trace(&host, &conf(&json!({"master": none})), &pod, 7, &words);
    }
    for none in [json!(null), json!({}), json!({"type": ""})] {
        let conf = conf(&json!({"ipam": none}));
        fails_without_a_trace(&host, &conf, &pod, 7, &["ipam.type", "got nothing"]);
        host.status(&conf).fails(7, &["ipam.type"]);
    }
    host.sh("ip link set up0 down");
    let words = ["ENETDOWN", "master \"up0\" is down"];
    fails_without_a_trace(&host, &conf(&json!({})), &pod, 999, &words);
}

#[test]
#[ignore = "needs vlan"]
fn its_verbs_are_those_of_all_links_in_containers() {
    let conf = conf(&json!({}));
    child::master_and_mtu_are_bounded(&conf);
    child::the_master_can_be_in_the_container(&conf);
    child::is_born_under_its_final_name(&conf);
    child::del_leaves_alone_what_is_not_its_own(&conf);
    child::a_late_refusal_undoes_all(&conf);
    child::gc_keeps_the_valid(&conf);
    child::status_tells_of_the_master(&conf);
}

#[test]
#[ignore = "needs vlan"]
fn del_needs_nothing() {
    child::del_needs_nothing(&conf(&json!({})));
}

#[test]
#[ignore = "needs vlan"]
fn check_names_what_has_gone_astray() {
    let conf = conf(&json!({"ipam": child::with_route()}));
    child::drifts(&conf, &child::DRIFTS);
    let number: (&str, &[&str]) = (
        "ip link set eth0 down; ip link set eth0 name old
         ip link add link old name eth0 type vlan id 9; ip link set old up; ip link set eth0 up
         ip addr del IP4/16 dev old; ip addr add IP4/16 dev eth0",
        &["eth0", "has number 9, not 7"],
    );
    child::drifts(&self::conf(&json!({})), &[number]);
}

#[test]
#[ignore = "needs vlan"]
fn neighbours_are_asked_for_ipv6_addresses() {
    let host = Host::new();
    let neighbour = segment_with_vlan(&host, "up0");
    neighbour.sh("ip addr add fd01::2/64 dev v7 nodad");
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "fd01::/64"}]]});
    let conf = conf(&json!({"ipam": ipam}));
    let pod = host.pod("a");
    fails_without_a_trace(&host, &conf, &pod, 999, &["fd01::2", "in use by a neighbour"]);
    let result = host.add(&conf, &pod).ok();
    assert_eq!(pod.addresses("eth0"), ["fd01::3/64"]);
    pod.must_reach("fd01::200");
    host.check(&conf, &result, &pod).ok();
}

#[test]
#[ignore = "needs vlan"]
fn it_costs_what_macvlan_does() {
    let mut conf = conf(&json!({}));
    conf["master"] = json!("up0");
    child::costs_what_macvlan_does(&conf);
}

#[test]
#[ignore = "needs vlan"]
fn an_add_is_undone_whatever_fails() {
    let failures = child::CONVERSATION.map(|syscall| (syscall, ""));
    child::an_add_is_undone_whatever_fails(&conf(&json!({})), &failures);
}

#[test]
#[ignore = "needs vlan"]
fn a_del_that_fails_is_made_up_for_by_the_next() {
    let conf = conf(&json!({}));
    child::a_del_that_fails_is_made_up_for_by_the_next(&conf, &child::CONVERSATION);
}
