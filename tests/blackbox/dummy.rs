//! Plugin dummy: what it does, and what it refuses.

use serde_json::{Value, json};

use crate::child;
use crate::harness::{Host, VERSIONS, dual, fails_without_a_trace, ipv4, with};

fn conf(keys: &Value) -> Value {
    with(json!({"cniVersion": "1.1.0", "name": "net", "type": "dummy", "ipam": ipv4()}), keys)
}

#[test]
#[ignore = "needs dummy"]
fn a_pod_has_addresses_that_are_its_own() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    pod.sh("ip link set lo up");
    for version in VERSIONS {
        let conf = conf(&json!({"cniVersion": version, "ipam": dual(),
            "dns": {"nameservers": ["192.0.2.1"]}}));
        let result = host.add(&conf, &pod).ok();
        let link = pod.ip("link show dev eth0")[0].clone();
        assert_eq!(link["linkinfo"]["info_kind"], "dummy");
        if version >= "0.3.0" {
            assert_eq!(result["interfaces"][0]["mac"], link["address"]);
            assert_eq!(result["ips"][1]["interface"], 0);
        }
        assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.1"]}));
        for address in pod.addresses("eth0") {
            pod.must_reach(address.split('/').next().unwrap());
        }
        assert_eq!(pod.addresses("eth0").len(), 2);
        if version >= "0.4.0" {
            host.check(&conf, &result, &pod).ok();
        }
        host.del(&conf, &pod).ok();
        host.del(&conf, &pod).ok();
        child::assert_bare(&pod);
    }
    host.snapshot().assert_same_but_for_rules(&before);
}

#[test]
#[ignore = "needs dummy"]
fn it_needs_address_management_and_nothing_else() {
    let host = Host::new();
    let pod = host.pod("a");
    for none in [json!(null), json!({}), json!({"type": ""})] {
        let conf = conf(&json!({"ipam": none}));
        fails_without_a_trace(&host, &conf, &pod, 7, &["ipam.type", "got nothing"]);
        host.status(&conf).fails(7, &["ipam.type"]);
    }
    let small = json!({"type": "host-local", "subnet": "10.1.0.0/30"});
    let conf = conf(&json!({"ipam": small, "master": "nosuch"}));
    host.status(&conf).ok();
    host.add(&conf, &pod).ok();
    host.status(&conf).fails(50, &["no IP addresses available"]);
}

#[test]
#[ignore = "needs dummy"]
fn its_verbs_are_those_of_all_links_in_containers() {
    let conf = conf(&json!({}));
    child::is_born_under_its_final_name(&conf);
    child::del_leaves_alone_what_is_not_its_own(&conf);
    child::a_late_refusal_undoes_all(&conf);
    child::gc_keeps_the_valid(&conf);
    child::del_needs_nothing(&conf);
    child::drifts(&self::conf(&json!({"ipam": child::with_route()})), &child::DRIFTS);
}

#[test]
#[ignore = "needs dummy"]
fn it_costs_what_macvlan_does() {
    let mut conf = conf(&json!({}));
    conf["master"] = json!("up0");
    child::costs_what_macvlan_does(&conf);
}

#[test]
#[ignore = "needs dummy"]
fn an_add_is_undone_whatever_fails() {
    let failures = child::CONVERSATION.map(|syscall| (syscall, ""));
    child::an_add_is_undone_whatever_fails(&conf(&json!({})), &failures);
}

#[test]
#[ignore = "needs dummy"]
fn a_del_that_fails_is_made_up_for_by_the_next() {
    let conf = conf(&json!({}));
    child::a_del_that_fails_is_made_up_for_by_the_next(&conf, &child::CONVERSATION);
}
