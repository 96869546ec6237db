//! Plugin dhcp with DHCPv6, and both families at once.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::dhcp::{Daemon, Running, dnsmasq, eventually, kept, lan, leases, start_kea};
use crate::harness::{Call, Host, Pod, with};

const SOON: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(25);
/// What a daemon of these tests has patience for: without a server nobody wants to wait for minutes.
const QUICK: [&str; 2] = ["-resendmax=1s", "-resendtimeout=3s"];

/// Both families, or with `keys` one of them.
fn conf(keys: &Value) -> Value {
    let ipam = with(json!({"type": "dhcp", "ipv6": true}), keys);
    json!({"cniVersion": "1.1.0", "name": "mynet", "type": "macvlan", "master": "eth0", "ipam": ipam})
}

fn only_ipv6() -> Value {
    conf(&json!({"ipv4": false}))
}

/// dnsmasq for both families, with router advertisements.
fn both(host: &Host, lan: &Pod<'_>) -> Running {
    let arguments = [
        "--enable-ra",
        "--dhcp-range=10.0.0.10,10.0.0.250,1h",
        "--dhcp-range=fd00::100,fd00::1ff,64,1h",
        "--dhcp-option=option6:dns-server,[fd00::53]",
        "--dhcp-option=option6:domain-search,six.example.org",
    ];
    dnsmasq(host, lan, &arguments)
}

/// Kea for IPv6, whose leases last ten seconds.
fn kea6(host: &Host, lan: &Pod<'_>, pool: &str) -> Running {
    let conf = json!({"Dhcp6": {
        "interfaces-config": {"interfaces": ["eth0"]},
        "preferred-lifetime": 8, "valid-lifetime": 10, "renew-timer": 3, "rebind-timer": 5,
        "lease-database": {"type": "memfile", "persist": true, "name": "/run/kea/leases6.csv", "lfc-interval": 0},
        "subnet6": [{"subnet": "fd00::/64", "interface": "eth0", "pools": [{"pool": pool}]}],
        "loggers": [{
            "name": "kea-dhcp6", "severity": "DEBUG", "debuglevel": 50,
            "output_options": [{"output": "/run/kea/kea.log", "flush": true}],
        }],
    }});
    // It listens on link-local addresses that can be used.
    eventually("the link has its address", SOON, || {
        let shown = lan.sh("ip -6 addr show dev eth0 scope link");
        shown.contains("fe80") && !shown.contains("tentative")
    });
    start_kea(host, lan, "kea-dhcp6", "DHCP6_STARTED", &conf)
}

#[test]
fn both_families_are_leased_and_released() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = both(&host, &lan);
    let mut daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    let result = host.add(&conf, &pod).ok();
    let address = |at: usize| result["ips"][at]["address"].as_str().unwrap().to_owned();
    let (ipv4, ipv6) = (address(0), address(1));
    assert!(ipv4.starts_with("10.0.0.") && ipv6.starts_with("fd00::1"), "{result:#}");
    assert_eq!(pod.addresses("eth0"), [ipv4.clone(), ipv6.clone()]);
    assert!(ipv6.ends_with("/128"), "the prefix is the routers' to tell");
    assert_eq!(result["dns"]["nameservers"], json!(["fd00::53"]));
    assert_eq!(result["dns"]["search"], json!(["six.example.org"]));
    pod.must_reach("10.0.0.1");
    // By what the kernel learns from a router's advertisement, which it asks for.
    eventually("a router has told of itself", LIFE, || pod.sh("ip -6 route").contains("proto ra"));
    pod.must_reach("fd00::1");
    lan.must_reach(ipv6.split('/').next().unwrap());
    host.check(&conf, &result, &pod).ok();

    // Both outlive the daemon.
    let held = || leases(&host).iter().map(|l| l["address"].clone()).collect::<Vec<_>>();
    assert_eq!(held(), [json!(ipv4), json!(ipv6)]);
    daemon.end(Signal::SIGKILL);
    let _daemon = Daemon::start(&host, &[]);
    assert_eq!(held(), [json!(ipv4), json!(ipv6)]);
    let again = Call::new(&host, "ADD", &conf).of(&pod).plugin("dhcp").run().ok();
    assert_eq!(again["ips"][1]["address"], json!(ipv6), "the lease that lives");

    host.del(&conf, &pod).ok();
    eventually("both are released", SOON, || {
        let log = host.read("/run/dnsmasq.log");
        let released = |address: &str| {
            let plain = address.split('/').next().unwrap();
            !host.read("/run/dnsmasq.leases").contains(plain)
        };
        log.matches("DHCPRELEASE(eth0)").count() == 2 && released(&ipv4) && released(&ipv6)
    });
    assert_eq!((leases(&host).len(), kept(&host).len()), (0, 0));
    host.del(&conf, &pod).ok();
}

#[test]
fn the_oldest_results_have_a_place_for_each_family() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = both(&host, &lan);
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let conf = with(conf(&json!({})), &json!({"cniVersion": "0.2.0"}));
    let result = host.add(&conf, &pod).ok();
    assert!(result["ip4"]["ip"].as_str().unwrap().starts_with("10.0.0."), "{result:#}");
    assert!(result["ip6"]["ip"].as_str().unwrap().starts_with("fd00::1"), "{result:#}");
    host.del(&conf, &pod).ok();
}

#[test]
fn an_ipv6_lease_is_renewed_and_expires_when_its_server_has_gone() {
    let host = Host::new();
    let lan = lan(&host);
    let mut server = kea6(&host, &lan, "fd00::10 - fd00::20");
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let result = host.add(&only_ipv6(), &pod).ok();
    let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(address, "fd00::10/128");
    daemon.awaits_log(LIFE, &["msg=\"renewed\"", &address]);
    let log = host.read("/run/kea/kea.log");
    assert!(log.contains("RENEW"), "the server was asked to");
    assert_eq!(pod.addresses("eth0"), std::slice::from_ref(&address));

    server.end(Signal::SIGKILL);
    eventually("any server is asked", LIFE, || {
        leases(&host).first().is_some_and(|lease| lease["phase"] == "rebinding")
    });
    daemon.awaits_log(LIFE, &["expired", &address]);
    assert_eq!(pod.addresses("eth0"), [""; 0]);
    assert_eq!((leases(&host).len(), kept(&host).len()), (0, 0));
}

#[test]
fn an_ipv6_server_that_knows_nothing_of_the_lease_gives_another() {
    let host = Host::new();
    let lan = lan(&host);
    let mut server = kea6(&host, &lan, "fd00::10 - fd00::10");
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    host.add(&only_ipv6(), &pod).ok();
    server.end(Signal::SIGTERM);
    host.sh("rm /run/kea/leases6.csv*");
    let _server = kea6(&host, &lan, "fd00::30 - fd00::30");
    eventually("it has another", LIFE, || pod.addresses("eth0") == ["fd00::30/128"]);
    let told = [daemon.logged(&["lost the lease"]), daemon.logged(&["renewed with changes"])];
    assert_eq!(told.concat().len(), 1, "{}", daemon.log());
}

#[test]
fn errors_say_in_which_step_of_dhcpv6_it_ended() {
    let host = Host::new();
    let lan = lan(&host);
    let daemon = Daemon::start(&host, &QUICK);
    let pod = host.pod("a");
    host.add(&only_ipv6(), &pod).fails(999, &["link \"eth0\"", "no ADVERTISE", "3 s"]);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo");

    let _server = kea6(&host, &lan, "fd00::10 - fd00::10");
    let first = host.pod("first");
    host.add(&only_ipv6(), &first).ok();
    host.add(&only_ipv6(), &pod).fails(999, &["link \"eth0\"", "NoAddrsAvail"]);
    assert_eq!(leases(&host).len(), 1);
    drop(daemon);

    // Of both families, one: the other is given back.
    let other = Host::new();
    let lan = self::lan(&other);
    let _server = dnsmasq(&other, &lan, &[]);
    let daemon = Daemon::start(&other, &QUICK);
    let pod = other.pod("a");
    other.add(&conf(&json!({})), &pod).fails(999, &["no ADVERTISE"]);
    daemon.awaits_log(SOON, &["leased", "10.0.0."]);
    eventually("IPv4 is released", SOON, || other.read("/run/dnsmasq.leases").is_empty());
    assert_eq!((leases(&other).len(), kept(&other).len()), (0, 0));
}

#[test]
fn a_container_without_ipv6_is_told_what_it_lacks() {
    let host = Host::new();
    let _lan = lan(&host);
    let _daemon = Daemon::start(&host, &["-timeout=1s"]);
    let pod = host.pod("a");
    pod.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    host.add(&only_ipv6(), &pod).fails(999, &["\"eth0\"", "link-local", "disable_ipv6"]);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo");
}
