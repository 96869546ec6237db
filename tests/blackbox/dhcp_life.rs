//! The life of a lease, with real servers and one that means harm: it is renewed, lost, declined; the daemon is
//! killed at any time; hundreds come at once.

use std::collections::HashSet;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::dhcp::{
    Daemon, LOG, Running, STATE, dnsmasq, eventually, kea, kept, lan, leases,
};
use crate::harness::{Call, Host, Pod, with};

const SOON: Duration = Duration::from_secs(5);
/// How long the leases of these tests last, in seconds; they are renewed after two fifths, with any server after
/// three.
const SHORT: u32 = 10;
/// Within that anything has happened that comes to a short lease.
const LIFE: Duration = Duration::from_secs(20);

fn conf(keys: &Value) -> Value {
    let conf = json!({
        "cniVersion": "1.1.0", "name": "mynet", "type": "macvlan", "master": "eth0", "ipam": {"type": "dhcp"},
    });
    with(conf, keys)
}

/// A pod with a link on the network, without address, and the plugin's own call for it.
fn plugged<'a>(host: &'a Host, name: &str) -> (Pod<'a>, Call<'a>) {
    let pod = host.pod(name);
    host.sh(&format!("ip link add link eth0 name eth0 netns {name} type macvlan mode bridge"));
    pod.sh("ip link set eth0 up");
    let add = Call::new(host, "ADD", &conf(&json!({}))).of(&pod).plugin("dhcp");
    (pod, add)
}

fn phase(host: &Host) -> String {
    let leases = leases(host);
    assert!(leases.len() <= 1, "{leases:?}");
    leases.first().map(|lease| lease["phase"].as_str().unwrap().to_owned()).unwrap_or_default()
}

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

fn result_of(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

// ---------------------------------------------------------------------------------------------- it goes on

#[test]
fn it_is_renewed_in_time_and_what_has_changed_is_applied() {
    let host = Host::new();
    let lan = lan(&host);
    let mut server = kea(&host, &lan, SHORT, &json!({}));
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let leased = address(&host.add(&conf(&json!({})), &pod).ok());
    let own = leased.split('/').next().unwrap();
    daemon.awaits_log(LIFE, &["msg=\"renewed\"", &leased, "server=10.0.0.1"]);
    let unicast = format!("from {own} to 10.0.0.1");
    let log = host.read("/run/kea/kea.log");
    assert!(
        log.lines().any(|line| line.contains("DHCPREQUEST") && line.contains(&unicast)),
        "by unicast"
    );
    assert_eq!(pod.addresses("eth0"), std::slice::from_ref(&leased));

    // Other routes, and another MTU.
    server.end(Signal::SIGTERM);
    let changed = json!({"option-data": [
        {"name": "routers", "data": "10.0.0.9"},
        {"name": "interface-mtu", "data": "1350"},
        {"code": 121, "name": "x", "csv-format": false, "data": "18C0A8070A00000900 0A000009"},
    ]});
    let mut changed = changed;
    // 192.168.7.0/24 via 10.0.0.9; default via 10.0.0.9.
    changed["option-data"][2] =
        json!({"code": 121, "csv-format": false, "data": "18C0A8070A000009000A000009"});
    let _server = kea(&host, &lan, SHORT, &changed);
    daemon.awaits_log(LIFE, &["renewed with changes", &leased]);
    let routes = pod.sh("ip route");
    assert!(routes.contains("192.168.7.0/24 via 10.0.0.9"), "{routes}");
    assert!(routes.contains("default via 10.0.0.9"), "{routes}");
    assert!(!routes.contains("via 10.0.0.1 "), "{routes}");
    assert_eq!(pod.addresses("eth0"), [leased]);
    assert_eq!(pod.ip("link show eth0")[0]["mtu"], 1350);
}

#[test]
fn a_server_that_unicast_does_not_reach_is_asked_by_broadcast() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = kea(&host, &lan, SHORT, &json!({}));
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let leased = address(&host.add(&conf(&json!({})), &pod).ok());
    // Kea reads below packet rules, so what is sent to it goes no further than the host's link.
    host.sh("nft add table netdev cut
             nft add chain netdev cut out '{ type filter hook egress device eth0 priority 0; }'
             nft add rule netdev cut out ip daddr 10.0.0.1 udp dport 67 counter drop");
    eventually("it is rebinding", LIFE, || {
        phase(&host) == "rebinding" || !daemon.logged(&["renewed"]).is_empty()
    });
    daemon.awaits_log(LIFE, &["msg=\"renewed\"", &leased]);
    let dropped = host.sh("nft list table netdev cut");
    assert!(!dropped.contains("packets 0"), "it was asked by unicast first: {dropped}");
    let log = host.read("/run/kea/kea.log");
    let broadcast =
        |line: &&str| line.contains("DHCPREQUEST") && line.contains("to 255.255.255.255");
    assert!(log.lines().filter(broadcast).count() >= 2, "of the first request and of rebinding");
    assert_eq!(pod.addresses("eth0"), [leased]);
}

// ------------------------------------------------------------------------------------------------ it ends

#[test]
fn without_a_server_it_expires_and_the_link_goes_down() {
    let host = Host::new();
    let lan = lan(&host);
    let mut server = kea(&host, &lan, SHORT, &json!({}));
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    let result = host.add(&conf, &pod).ok();
    server.end(Signal::SIGKILL);
    eventually("it is rebinding", LIFE, || phase(&host) == "rebinding");
    assert_eq!(pod.addresses("eth0"), [address(&result)], "it is still its own");
    daemon.awaits_log(LIFE, &["level=error", "expired", &address(&result), "mynet/a/eth0"]);
    assert_eq!(pod.addresses("eth0"), [""; 0]);
    let link = pod.ip("link show eth0");
    assert!(!link[0]["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    assert_eq!(leases(&host), [json!(null); 0]);
    assert_eq!(kept(&host), [""; 0]);
    host.check(&conf, &result, &pod).fails(999, &["no lease"]);
    host.del(&conf, &pod).ok();
}

#[test]
fn a_server_that_refuses_is_asked_for_another_address() {
    let host = Host::new();
    let lan = lan(&host);
    let soon = ["--dhcp-option=option:T1,3s", "--dhcp-option=option:T2,60s"];
    let mut server = dnsmasq(&host, &lan, &soon);
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let leased = address(&host.add(&conf(&json!({})), &pod).ok());
    server.end(Signal::SIGTERM);
    host.sh("rm /run/dnsmasq.leases");
    let moved = "--dhcp-range=10.0.0.251,10.0.0.252,1h";
    let _server = dnsmasq(&host, &lan, &[soon[0], soon[1], moved]);
    daemon.awaits_log(LIFE, &["lost the lease", "DHCP server 10.0.0.1 refused (NAK)"]);
    eventually("it has another", LIFE, || {
        pod.addresses("eth0").first().is_some_and(|address| address.starts_with("10.0.0.25"))
    });
    assert_eq!(pod.addresses("eth0").len(), 1, "{leased} has gone");
    let routes = pod.sh("ip route");
    assert!(routes.contains("default via 10.0.0.1"), "{routes}");
    pod.must_reach("10.0.0.1");
    assert_eq!((phase(&host), kept(&host).len()), ("bound".to_owned(), 1));
}

#[test]
fn an_address_that_another_uses_is_declined() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = kea(&host, &lan, 600, &json!({}));
    let squatter = host.pod("squatter");
    host.sh("ip link add link eth0 name eth0 netns squatter type macvlan mode bridge");
    squatter.sh("ip link set eth0 up; ip addr add 10.0.0.10/32 dev eth0");
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let result = host.add(&conf(&json!({})), &pod).ok();
    let mac = squatter.ip("link show eth0")[0]["address"].as_str().unwrap().to_owned();
    daemon.awaits_log(SOON, &["declines", "address=10.0.0.10", &mac]);
    let log = host.read("/run/kea/kea.log");
    assert!(log.contains("DHCP4_DECLINE_LEASE"), "the server knows");
    assert_eq!(address(&result), "10.0.0.11/24");
    assert_eq!(pod.addresses("eth0"), ["10.0.0.11/24"]);

    // Who is told not to look does not.
    let careless = host.pod("b");
    squatter.sh("ip addr add 10.0.0.12/32 dev eth0");
    let unprobed = conf(&json!({"ipam": {"type": "dhcp", "probe": false}}));
    assert_eq!(address(&host.add(&unprobed, &careless).ok()), "10.0.0.12/24");
    // Nor does anybody of a daemon that gives it no time.
    drop(daemon);
    let _daemon = Daemon::start(&host, &["-probe=0"]);
    squatter.sh("ip addr add 10.0.0.13/32 dev eth0");
    let third = host.pod("c");
    assert_eq!(address(&host.add(&conf(&json!({})), &third).ok()), "10.0.0.13/24");
}

#[test]
fn it_ends_with_its_namespace_or_link_and_nothing_else_wakes_the_daemon() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let daemon = Daemon::start(&host, &[]);
    let pods = host.pods(3);
    for pod in &pods {
        host.add(&conf(&json!({})), pod).ok();
    }
    assert_eq!((leases(&host).len(), kept(&host).len()), (3, 3));
    // The connection of the last question has gone.
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.unwrap().split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = switches();
    host.sh("for n in $(seq 50); do ip link add x$n type bridge; ip link set x$n up; done");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(switches(), before, "links come and change, and it sleeps");
    host.sh("for n in $(seq 50); do ip link del x$n; done");

    host.sh("ip netns del pod0");
    pods[1].sh("ip link del eth0");
    let ended = |pod: &str| daemon.awaits_log(SOON, &["ended", "its link has gone", pod]);
    ended("mynet/pod0/eth0");
    ended("mynet/pod1/eth0");
    let left = leases(&host);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["container"], "pod2");
    assert_eq!(kept(&host).len(), 1);
}

// ------------------------------------------------------------------------------------ the daemon is killed

#[test]
fn a_daemon_that_ends_or_is_killed_leaves_its_leases_to_the_next() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = kea(&host, &lan, SHORT, &json!({}));
    let mut daemon = Daemon::start(&host, &[]);
    let (pod, gone) = (host.pod("a"), host.pod("gone"));
    let leased = address(&host.add(&conf(&json!({})), &pod).ok());
    host.add(&conf(&json!({})), &gone).ok();
    let discovers =
        |host: &Host| host.read("/run/kea/kea.log").matches("DHCPDISCOVER (type 1)").count();
    let before = discovers(&host);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        daemon.end(signal);
        assert!(!kept(&host).is_empty());
        if signal == Signal::SIGTERM {
            host.sh("ip netns del gone");
        }
        daemon = Daemon::start(&host, &[]);
        daemon.awaits_log(SOON, &["took up again", "mynet/a/eth0"]);
        let left = leases(&host);
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0]["address"], json!(leased));
        assert!(left[0]["expiresInSeconds"].as_u64().unwrap() <= u64::from(SHORT));
        assert_eq!(kept(&host).len(), 1);
    }
    assert_eq!(daemon.logged(&["forgot", "mynet/gone/eth0"]).len(), 1);
    daemon.awaits_log(LIFE, &["msg=\"renewed\"", &leased]);
    assert_eq!(discovers(&host), before, "it was renewed, not sought anew");
    assert_eq!(pod.addresses("eth0"), [leased]);
}

/// In each phase: the plugin that waits, or comes later, finds a lease, and there is one only.
#[test]
fn a_daemon_that_is_killed_in_any_phase_loses_and_doubles_nothing() {
    let host = Host::new();
    let lan = lan(&host);

    // Selecting: there is no server yet.
    let mut daemon = Daemon::start(&host, &[]);
    let (pod, add) = plugged(&host, "a");
    let waiting = add.start();
    eventually("it is selecting", SOON, || phase(&host) == "selecting");
    daemon.end(Signal::SIGKILL);
    let mut server = dnsmasq(&host, &lan, &[]);
    let mut daemon = Daemon::start(&host, &["-probe=3s"]);

    // Probing: the server has counted on it.
    eventually("it is probing", SOON, || phase(&host) == "probing");
    daemon.end(Signal::SIGKILL);
    let mut daemon = Daemon::start(&host, &[]);
    let result = result_of(waiting);
    let held = |host: &Host| host.read("/run/dnsmasq.leases").lines().count();
    assert_eq!((leases(&host).len(), kept(&host).len(), held(&host)), (1, 1, 1));

    // Bound: a second ADD has the same.
    daemon.end(Signal::SIGKILL);
    let mut daemon = Daemon::start(&host, &[]);
    assert_eq!(add.run().ok(), result);

    // Releasing: the plugin comes again.
    let del = Call::new(&host, "DEL", &conf(&json!({}))).of(&pod).plugin("dhcp");
    daemon.signal(Signal::SIGSTOP);
    let releasing = del.start();
    std::thread::sleep(Duration::from_millis(200));
    daemon.end(Signal::SIGKILL);
    releasing.wait_with_output().unwrap();
    let mut daemon = Daemon::start(&host, &[]);
    del.run().ok();
    eventually("it is released", SOON, || held(&host) == 0);
    assert_eq!((leases(&host).len(), kept(&host).len()), (0, 0));

    // Requesting: the server offers, and says no more.
    server.end(Signal::SIGTERM);
    let mut silent = hostile(&lan, "offer");
    let waiting = add.start();
    eventually("it is requesting", SOON, || phase(&host) == "requesting");
    daemon.end(Signal::SIGKILL);
    silent.end(Signal::SIGKILL);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    result_of(waiting);
    assert_eq!((leases(&host).len(), kept(&host).len(), held(&host)), (1, 1, 1));
}

#[test]
fn a_daemon_that_is_killed_while_it_renews_or_rebinds_goes_on() {
    // There has to be time left for a server to start.
    const SECONDS: u32 = 2 * SHORT;
    let host = Host::new();
    let lan = lan(&host);
    let mut server = kea(&host, &lan, SECONDS, &json!({}));
    let mut daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let leased = address(&host.add(&conf(&json!({})), &pod).ok());
    for phase_of_death in ["renewing", "rebinding"] {
        server.end(Signal::SIGTERM);
        eventually(phase_of_death, LIFE, || phase(&host) == phase_of_death);
        daemon.end(Signal::SIGKILL);
        server = kea(&host, &lan, SECONDS, &json!({}));
        let before = daemon.logged(&["msg=\"renewed\""]).len();
        daemon = Daemon::start(&host, &[]);
        eventually("it is renewed", LIFE, || {
            daemon.logged(&["msg=\"renewed\"", &leased]).len() > before
        });
        assert_eq!(pod.addresses("eth0"), std::slice::from_ref(&leased));
        assert_eq!((leases(&host).len(), kept(&host).len()), (1, 1));
    }
}

#[test]
fn a_plugin_whose_daemon_does_not_come_back_says_so() {
    let host = Host::new();
    let _lan = lan(&host);
    let mut daemon = Daemon::start(&host, &[]);
    let (_pod, add) = plugged(&host, "a");
    let waiting = add.start();
    eventually("it is selecting", SOON, || phase(&host) == "selecting");
    daemon.end(Signal::SIGKILL);
    let began = Instant::now();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("has gone while it looked for a lease"), "{printed}");
    assert!((9..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn what_was_kept_of_another_boot_or_is_damaged_is_forgotten() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let mut daemon = Daemon::start(&host, &[]);
    let pods = host.pods(2);
    for pod in &pods {
        host.add(&conf(&json!({})), pod).ok();
    }
    daemon.end(Signal::SIGTERM);
    host.sh(&format!(
        "cd {STATE}; set -- *.lease
         sed -i 's/\"boot\":\"[0-9a-f-]*\"/\"boot\":\"00000000-0000-0000-0000-000000000000\"/' \"$1\"
         head -c 100 \"$2\" > torn; cp \"$2\" whole; mv torn \"$2\"
         mv whole 00000000000000000000000000000000.lease
         printf x > 11111111111111111111111111111111.lease.new
         : > 22222222222222222222222222222222.lease
         ln -s /etc/passwd 33333333333333333333333333333333.lease"
    ));
    let daemon = Daemon::start(&host, &[]);
    assert_eq!(daemon.logged(&["forgot a lease"]).len(), 6, "{}", daemon.log());
    assert_eq!(daemon.logged(&["forgot a lease", "started anew"]).len(), 1);
    assert_eq!(daemon.logged(&["forgot a lease", "another attachment's"]).len(), 1);
    assert_eq!((leases(&host).len(), kept(&host).len()), (0, 0));
    host.sh("test -s /etc/passwd");
}

// ----------------------------------------------------------------------------------------- who means harm

/// A server that answers as it is told: `offer` offers and acknowledges nothing; `all` sends whatever a client must
/// not believe, and a flood of it, before what it must.
fn hostile(lan: &Pod<'_>, how: &str) -> Running {
    let script = r"
import os, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')
s.bind(('', 67))
how = sys.argv[1]
GOOD, BAD = bytes([10, 0, 0, 77]), bytes([10, 0, 0, 66])
MASK = b'\x01\x04\xff\xff\xff\x00'
def reply(q, kind, yiaddr, options=b'', xid=None, mac=None, server=b'\x0a\x00\x00\x01'):
    return (b'\x02\x01\x06\x00' + (xid or q[4:8]) + b'\x00' * 4 + b'\x00' * 4 + yiaddr + b'\x00' * 8
            + (mac or q[28:34]) + b'\x00' * 10 + b'\x00' * 192 + b'\x63\x82\x53\x63'
            + b'\x35\x01' + bytes([kind]) + b'\x36\x04' + server + options)
def send(*packets):
    for p in packets:
        try: s.sendto(p, ('255.255.255.255', 68))
        except OSError: pass
while True:
    q, _ = s.recvfrom(2000)
    if len(q) < 244 or q[0] != 1: continue
    kind = q[242] if q[240:242] == b'\x35\x01' else 0
    lease = b'\x33\x04\x00\x00\x0e\x10'
    if kind in (1, 3) and how == 'all':
        answer = 2 if kind == 1 else 5
        bad = reply(q, answer, BAD, MASK + lease)
        send(reply(q, answer, BAD, MASK + lease, xid=b'\x01\x02\x03\x04'),
             reply(q, answer, BAD, MASK + lease, mac=b'\x02\x99\x99\x99\x99\x99'),
             reply(q, answer, BAD, MASK[:-1]), reply(q, answer, BAD, b'\x01\xff\xff'),
             reply(q, answer, BAD, b'\x01\x03\xff\xff\xff'), reply(q, answer, BAD, b'\x01\x04\xff\x00\xff\x00'),
             reply(q, answer, b'\xff' * 4, MASK), reply(q, answer, b'\x00' * 4, MASK), reply(q, answer, b'\x7f\0\0\1', MASK),
             reply(q, 9, BAD, MASK), reply(q, 0, BAD, MASK), reply(q, 6 if kind == 1 else 2, BAD, MASK),
             b'\x01' + bad[1:], b'', bad[:100], bad[:239], bad[:240], bad[:4] + os.urandom(200), os.urandom(600),
             # Overload that leads nowhere: 'file' holds an option longer than it.
             bad[:108] + b'\x01\xff' + bad[110:240] + b'\x34\x01\x03' + bad[240:],
             # Routes that don't end.
             reply(q, answer, BAD, MASK + b'\x79\x05\x21\x01\x02\x03\x04'),
             reply(q, answer, BAD, MASK + lease, server=b'\x00' * 4))
        junk = reply(q, answer, BAD, MASK + lease, xid=b'\x0f\x0f\x0f\x0f')
        send(*[junk] * 5000, *[reply(q, answer, BAD, b'\x01\x03\xff')] * 5000)
        if kind == 3:
            send(reply(q, 5, BAD, MASK + lease), reply(q, 6, b'\x00' * 4, server=b'\x0a\x00\x00\x63'))
    if kind == 1:
        send(reply(q, 2, GOOD, MASK + lease + b'\xff'))
    elif kind == 3 and how == 'all':
        send(reply(q, 5, GOOD, MASK + lease + b'\xff'))
";
    lan.sh("test -e /run/netns/lan");
    let mut command = lan.command("/usr/bin/python3");
    Running::start(command.args(["-c", script, how]))
}

#[test]
fn a_hostile_server_gives_no_wrong_lease_and_does_no_harm() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = hostile(&lan, "all");
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let result = host.add(&conf(&json!({})), &pod).ok();
    assert_eq!(address(&result), "10.0.0.77/24", "{}", host.read(LOG));
    assert_eq!(pod.addresses("eth0"), ["10.0.0.77/24"]);
    let before = daemon.pid();
    assert_eq!(phase(&host), "bound");
    assert!(std::path::Path::new(&format!("/proc/{before}")).exists());
    host.del(&conf(&json!({})), &pod).ok();
}

// ------------------------------------------------------------------------------------------- many at once

/// How much memory the daemon has of its own, in KiB: without its program, which is in memory as far as it was used.
fn own_memory(daemon: &Daemon<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn five_hundred_at_once_each_have_a_lease_of_their_own() {
    const PODS: usize = 50;
    const LINKS: usize = 10;
    const MEMORY_OF_A_LEASE: u64 = 2;
    let host = Host::new();
    let lan = lan(&host);
    lan.sh("ip addr add 10.1.0.1/16 dev eth0");
    let range = "--dhcp-range=10.1.0.10,10.1.20.250,255.255.0.0,1h";
    let _server = dnsmasq(&host, &lan, &[range, "--dhcp-lease-max=2000"]);
    let pods = host.pods(PODS);
    let mut batch = String::new();
    for pod in &pods {
        for link in 0..LINKS {
            let name = &pod.name;
            batch +=
                &format!("link add link eth0 name e{link} netns {name} type macvlan mode bridge\n");
        }
    }
    host.write("/run/batch", &batch);
    host.sh("ip -batch /run/batch");
    let daemon = Daemon::start(&host, &[]);

    let conf = conf(&json!({}));
    let call = |pod: &Pod<'_>, link: usize| {
        Call::new(&host, "ADD", &conf).of(pod).env("CNI_IFNAME", &format!("e{link}")).plugin("dhcp")
    };
    // What it has for the first it has for all.
    for (pod, link) in [(&pods[0], 0), (&pods[0], 0), (&pods[1], 1)] {
        call(pod, link).run().ok();
    }
    let before = own_memory(&daemon);
    let began = Instant::now();
    let running: Vec<_> =
        pods.iter().flat_map(|pod| (0..LINKS).map(|link| call(pod, link).start())).collect();
    let results: Vec<_> = running.into_iter().map(result_of).collect();
    let took = began.elapsed();
    let addresses: HashSet<_> = results.iter().map(address).collect();
    assert_eq!(addresses.len(), PODS * LINKS, "each has its own");
    assert_eq!((leases(&host).len(), kept(&host).len()), (PODS * LINKS, PODS * LINKS));

    let of_a_lease = (own_memory(&daemon) - before) * 1024 / (PODS * LINKS) as u64;
    println!("{} leases in {took:?}, {of_a_lease} bytes each", PODS * LINKS);
    assert!(of_a_lease <= MEMORY_OF_A_LEASE * 1024, "{of_a_lease} bytes of memory for a lease");
    // The kernel takes its time to close a socket, and the daemon does it when there is nothing else to do.
    eventually(
        "no file stays open for a lease that has nothing to do",
        Duration::from_secs(60),
        || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() < 20,
    );
    host.gc(&conf, &[]).ok();
    assert_eq!((leases(&host).len(), kept(&host).len()), (0, 0));
}
