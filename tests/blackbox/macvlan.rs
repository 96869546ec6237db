//! Plugin macvlan: what each key of its configuration does, and what it refuses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::child::{self, segment};
use crate::harness::{Call, Host, Pod, fails_without_a_trace, ipv4, patience, with};

fn conf(keys: &Value) -> Value {
    with(child::conf("macvlan", &json!({"ipam": ipv4()})), keys)
}

/// What `ip -d link` tells of a pod's interface.
fn link(pod: &Pod<'_>) -> Value {
    pod.ip("link show dev eth0")[0].clone()
}

const REAL_INPUT: &str = include_str!("../../examples/macvlan.conf");

#[test]
fn two_pods_share_the_hosts_link() {
    child::lives_in_every_version(REAL_INPUT, |host, [a, b], _| {
        host.sh("ip addr replace 10.1.3.201/24 dev eth0");
        host.sh("ip netns exec neighbour ip addr replace 10.1.3.200/24 dev eth0");
        let address =
            |pod: &Pod<'_>| pod.addresses("eth0")[0].split('/').next().unwrap().to_owned();
        a.must_reach(&address(b));
        b.must_reach(&address(a));
        a.must_reach("10.1.3.200");
        host.sh("ip addr del 10.1.3.201/24 dev eth0");
    });
}

/// Who may speak to whom, beside the neighbour on the segment.
#[test]
fn the_mode_says_who_is_reached() {
    for (mode, reaches_others) in [
        (json!(null), true),
        (json!(""), true),
        (json!("bridge"), true),
        (json!("private"), false),
        (json!("vepa"), false),
    ] {
        let host = Host::new();
        segment(&host, "up0");
        let (a, b) = (host.pod("a"), host.pod("b"));
        let conf = conf(&json!({"mode": mode}));
        let result = host.add(&conf, &a).ok();
        host.add(&conf, &b).ok();
        let told = link(&a)["linkinfo"]["info_data"]["mode"].clone();
        let name = mode.as_str().filter(|mode| !mode.is_empty()).unwrap_or("bridge");
        assert_eq!(told, name);
        a.must_reach("10.1.0.200");
        if reaches_others {
            a.must_reach("10.1.0.3");
        } else {
            assert!(!a.reaches("10.1.0.3"), "{mode}");
        }
        assert!(mode != "bridge" || !a.reaches("10.1.0.201"), "the host itself is not reached");
        host.check(&conf, &result, &a).ok();
    }
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    for mode in ["source", "Bridge", "none"] {
        let words = ["mode", mode, "passthru"];
        fails_without_a_trace(&host, &conf(&json!({"mode": mode})), &pod, 7, &words);
    }
    fails_without_a_trace(&host, &conf(&json!({"mode": 4})), &pod, 6, &["mode"]);
}

/// Its address is new with each ADD: who has known the IP address before is told.
#[test]
fn neighbours_learn_at_once_who_has_an_address_now() {
    let host = Host::new();
    let neighbour = segment(&host, "up0");
    let pod = host.pod("a");
    // By default the kernel holds on to an entry for a second after its last change.
    neighbour.sh("echo 0 > /proc/sys/net/ipv4/neigh/eth0/locktime
                  ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:99 dev eth0 nud stale");
    let result = host.add(&conf(&json!({"ipam": ipv4()})), &pod).ok();
    let mac = &result["interfaces"][0]["mac"];
    let known = || neighbour.ip("neigh show to 10.1.0.2")[0]["lladdr"].clone();
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    while known() != *mac {
        assert!(Instant::now() < deadline, "{} is not {mac}", known());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// It takes the master's address, or gives it another.
#[test]
fn a_passthru_link_has_the_master_to_itself() {
    let host = Host::new();
    segment(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let of_master = || host.ip("link show dev up0")[0]["address"].clone();
    let before = of_master();
    let passthru = conf(&json!({"mode": "passthru"}));
    let result = host.add(&passthru, &a).ok();
    assert_eq!(result["interfaces"][0]["mac"], before);
    a.must_reach("10.1.0.200");
    host.check(&passthru, &result, &a).ok();
    // A kernel before 6.15 refuses it because of the master before it comes to the name.
    host.add(&passthru, &a).fails(999, &["\"eth0\" already exists"]);
    host.check(&passthru, &result, &a).ok();
    for mode in ["passthru", "bridge"] {
        let words = ["macvlan \"eth0\" in /run/netns/a (plumb:net/a/eth0)", "up0"];
        fails_without_a_trace(&host, &conf(&json!({"mode": mode})), &b, 999, &words);
    }
    host.del(&passthru, &a).ok();

    let with_mac = conf(&json!({"mode": "passthru", "mac": "02:00:00:00:00:05"}));
    let result = host.add(&with_mac, &a).ok();
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:05");
    assert_eq!(link(&a)["address"], "02:00:00:00:00:05");
    assert_eq!(of_master(), "02:00:00:00:00:05");
    a.must_reach("10.1.0.200");
    host.del(&with_mac, &a).ok();
    assert_eq!(of_master(), before, "the kernel gives the master its own back");

    // Others on the master keep one from having it to itself.
    host.add(&conf(&json!({})), &b).ok();
    let words = ["macvlan \"eth0\" in /run/netns/b (plumb:net/b/eth0)"];
    fails_without_a_trace(&host, &passthru, &a, 999, &words);
}

#[test]
fn the_address_is_asked_for_in_four_places_in_order_of_precedence() {
    child::the_address_is_asked_for_in_four_places(&conf(&json!({})));
}

/// The kernel says no more than EADDRINUSE.
#[test]
fn netavark_1308_an_address_in_use_is_said_to_be_whose() {
    let host = Host::new();
    segment(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = conf(&json!({"mac": "02:00:00:00:00:01"}));
    host.add(&conf, &a).ok();
    let words = ["EADDRINUSE", "macvlan \"eth0\" in /run/netns/a (plumb:net/a/eth0)", "up0"];
    fails_without_a_trace(&host, &conf, &b, 999, &words);
    // On top of a macvlan it is a link on the same one below.
    host.sh("ip link add link up0 name mv0 type macvlan mode bridge; ip link set mv0 up");
    let stacked = self::conf(&json!({"mac": "02:00:00:00:00:01", "master": "mv0"}));
    let words = ["EADDRINUSE", "macvlan \"eth0\" in /run/netns/a (plumb:net/a/eth0)", "mv0"];
    fails_without_a_trace(&host, &stacked, &b, 999, &words);
    host.sh(
        "mkdir /run/elsewhere; touch /run/elsewhere/a; mount --bind /run/netns/a /run/elsewhere/a
             umount /run/netns/a; rm /run/netns/a",
    );
    let words = ["EADDRINUSE", "not kept beside \"/run/netns/b\"", "up0"];
    fails_without_a_trace(&host, &conf, &b, 999, &words);
    let mac = host.ip("link show dev up0")[0]["address"].clone();
    let masters = self::conf(&json!({"mac": mac}));
    let words = ["EADDRINUSE", "master \"up0\" itself has address", mac.as_str().unwrap()];
    fails_without_a_trace(&host, &masters, &b, 999, &words);
}

/// Of each namespace the links are counted anew.
#[test]
fn who_is_in_the_way_is_on_the_same_master_not_on_another_of_its_index() {
    let host = Host::new();
    let master = "ip link add m0 index 500 type veth peer name p0; ip link set m0 up";
    host.sh(master);
    let (a, aa, b) = (host.pod("a"), host.pod("aa"), host.pod("b"));
    aa.sh(&format!(
        "{master}
             ip link add link m0 name other address 02:00:00:00:00:01 type macvlan mode bridge"
    ));
    let conf = conf(&json!({"mac": "02:00:00:00:00:01", "master": "m0"}));
    host.add(&conf, &a).ok();
    a.sh("ip link set eth0 down; ip link set eth0 name first; ip link set first up");
    let words = ["EADDRINUSE", "macvlan \"first\" in /run/netns/a (plumb:net/a/eth0)"];
    fails_without_a_trace(&host, &conf, &b, 999, &words);
    host.sh(
        "mkdir /run/elsewhere; touch /run/elsewhere/a; mount --bind /run/netns/a /run/elsewhere/a
             umount /run/netns/a; rm /run/netns/a",
    );
    let words = ["EADDRINUSE", "not kept beside \"/run/netns/b\"", "m0"];
    fails_without_a_trace(&host, &conf, &b, 999, &words);
}

/// The kernel says no more than EBUSY.
#[test]
fn multus_715_a_master_that_is_a_port_is_said_to_be_whose() {
    let host = Host::new();
    segment(&host, "up0");
    host.sh("ip link add br7 type bridge; ip link set up0 master br7");
    let pod = host.pod("a");
    let words = ["create macvlan", "EBUSY", "master \"up0\" is a port of bridge \"br7\""];
    fails_without_a_trace(&host, &conf(&json!({})), &pod, 999, &words);
    host.add(&conf(&json!({"master": "br7"})), &pod).ok();
}

#[test]
fn broadcasts_are_queued_as_long_as_asked_for() {
    let host = Host::new();
    segment(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let length = |pod: &Pod<'_>| link(pod)["linkinfo"]["info_data"]["bcqueuelen"].clone();
    host.add(&conf(&json!({"bcqueuelen": 0})), &a).ok();
    assert_eq!(length(&a), 1000, "the kernel's default");
    host.add(&conf(&json!({"bcqueuelen": 4_294_967_295_u32})), &b).ok();
    assert_eq!(length(&b), 4_294_967_295_u32);
    let refused = host.pod("refused");
    for value in [json!(-1), json!(4_294_967_296_u64)] {
        let conf = conf(&json!({"bcqueuelen": value}));
        fails_without_a_trace(&host, &conf, &refused, 7, &["bcqueuelen", &value.to_string()]);
    }
    let conf = conf(&json!({"bcqueuelen": "5"}));
    fails_without_a_trace(&host, &conf, &refused, 6, &["bcqueuelen"]);
}

#[test]
fn without_address_management_it_is_layer_2_only() {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    for none in [json!(null), json!({}), json!({"type": ""})] {
        let conf = conf(&json!({"ipam": none}));
        let result = host.add(&conf, &pod).ok();
        assert_eq!(result.get("ips"), None, "{result:#}");
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(pod.addresses("eth0"), [] as [&str; 0]);
        assert!(link(&pod)["flags"].as_array().unwrap().contains(&json!("UP")));
        pod.sh("ip addr add 10.1.7.7/16 dev eth0");
        pod.must_reach("10.1.0.200");
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
    }
}

#[test]
fn name_resolution_is_told() {
    child::name_resolution_is_told(&conf(&json!({})));
}

#[test]
fn master_and_mtu_are_bounded() {
    child::master_and_mtu_are_bounded(&conf(&json!({})));
    let host = Host::new();
    segment(&host, "up0");
    let ipv6 = json!({"type": "host-local", "ranges": [[{"subnet": "fd01::/64"}]]});
    let conf = conf(&json!({"mtu": 1000, "ipam": ipv6}));
    fails_without_a_trace(&host, &conf, &host.pod("a"), 7, &["mtu", "1280", "got 1000"]);
}

#[test]
fn the_master_is_the_default_routes() {
    child::the_master_is_the_default_routes(&conf(&json!({})));
}

#[test]
fn the_master_can_be_in_the_container() {
    child::the_master_can_be_in_the_container(&conf(&json!({})));
}

#[test]
fn it_is_born_under_its_final_name() {
    child::is_born_under_its_final_name(&conf(&json!({})));
}

#[test]
fn neighbours_are_asked_for_ipv6_addresses() {
    child::neighbours_are_asked_for_ipv6_addresses(&conf(&json!({})));
}

#[test]
fn del_needs_nothing() {
    child::del_needs_nothing(&conf(&json!({})));
}

#[test]
fn del_leaves_alone_what_is_not_its_own() {
    child::del_leaves_alone_what_is_not_its_own(&conf(&json!({})));
}

#[test]
fn a_late_refusal_undoes_all() {
    child::a_late_refusal_undoes_all(&conf(&json!({})));
}

#[test]
fn check_names_what_has_gone_astray() {
    let conf = conf(&json!({"ipam": child::with_route()}));
    child::drifts(&conf, &child::DRIFTS);
    let more: [(&str, &[&str]); 4] = [
        (
            "ip link set eth0 address 02:00:00:00:00:66",
            &["eth0", "has address 02:00:00:00:00:66, not "],
        ),
        ("ip link set eth0 type macvlan mode private", &["eth0", "has mode 1, not 4"]),
        (
            "HOST: ip link del up0; ip link add up0 type veth peer name p0",
            &["eth0", "vanished"],
        ),
        (
            "HOST: ip link set up0 down; ip link set up0 name old; ip link add up0 type veth peer name p0
             ip link set old up; ip netns exec pod3 ip route add 192.0.2.0/24 via 10.1.0.9 dev eth0 || true",
            &["eth0", "is not on master \"up0\" on the host"],
        ),
    ];
    child::drifts(&conf, &more);
    let layer2 = self::conf(&json!({"ipam": null}));
    child::drifts(&layer2, &[("ip link set eth0 down", &["eth0", "is down"])]);
}

#[test]
fn check_needs_a_result() {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    host.add(&conf(&json!({})), &pod).ok();
    Call::new(&host, "CHECK", &conf(&json!({}))).of(&pod).run().fails(7, &["prevResult"]);
}

#[test]
fn gc_keeps_the_valid() {
    child::gc_keeps_the_valid(&conf(&json!({})));
}

#[test]
fn status_tells_of_the_master() {
    child::status_tells_of_the_master(&conf(&json!({})));
    let host = Host::new();
    let mut conf = conf(&json!({}));
    conf.as_object_mut().unwrap().remove("master");
    host.status(&conf).fails(50, &["no default route"]);
}

#[test]
fn an_add_is_undone_whatever_fails() {
    child::an_add_is_undone_whatever_fails(&conf(&json!({})), &child::failures_of_add());
}

#[test]
fn a_del_that_fails_is_made_up_for_by_the_next() {
    let conf = conf(&json!({}));
    child::a_del_that_fails_is_made_up_for_by_the_next(&conf, &child::FAILURES_OF_DEL);
}
