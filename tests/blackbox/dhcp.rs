//! Plugin dhcp and its daemon, with a real server: what a runtime sees, and what an operator does.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::dhcp::{
    Daemon, LOG, Running, STATE, dnsmasq, eventually, kea, kept, lan, leases,
};
use crate::harness::{BIN, Call, Host, Outcome, PLUMB, Pod, VERSIONS, network, with};

const SOON: Duration = Duration::from_secs(5);

/// Exactly as it was asked for.
const REAL_INPUT: &str = include_str!("../../examples/macvlan-dhcp.conf");

fn conf(keys: &Value) -> Value {
    let conf = json!({
        "cniVersion": "1.1.0", "name": "mynet", "type": "macvlan", "master": "eth0", "ipam": {"type": "dhcp"},
    });
    with(conf, keys)
}

/// The plugin's own call, for a link of the pod's: a dummy that is there already.
fn ipam(keys: &Value) -> Value {
    let ipam = with(json!({"type": "dhcp"}), keys);
    json!({"cniVersion": "1.1.0", "name": "mynet", "type": "macvlan", "ipam": ipam})
}

fn dhcp<'a>(host: &'a Host, command: &str, conf: &Value, pod: &Pod<'_>) -> Call<'a> {
    Call::new(host, command, conf).of(pod).plugin("dhcp")
}

/// Gives a pod a link on the network, without address.
fn plug(host: &Host, pod: &Pod<'_>) {
    let name = &pod.name;
    host.sh(&format!("ip link add link eth0 name eth0 netns {name} type macvlan mode bridge"));
    pod.sh("ip link set eth0 up");
}

/// STATUS of the plugin itself, which needs no link.
fn status(host: &Host) -> Outcome {
    Call::new(host, "STATUS", &ipam(&json!({}))).plugin("dhcp").run()
}

fn plain(address: &str) -> &str {
    address.split('/').next().unwrap()
}

/// The addresses of a result, in whatever version.
fn addresses(result: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match result["ips"].as_array() {
        Some(ips) => ips.iter().filter_map(|ip| text(&ip["address"])).collect(),
        None => ["ip4", "ip6"].iter().filter_map(|key| text(&result[key]["ip"])).collect(),
    }
}

/// Two containers live on the network in every version: they reach each other and the server, and leave nothing.
fn lives_in_every_version(host: &Host, conf: &Value, released: impl Fn(&str) -> bool) {
    let list = |version: &str| {
        let list = json!({"cniVersion": version, "name": conf["name"], "plugins": [conf]});
        (network(&list.to_string())[0].clone(), version.to_owned())
    };
    let mut confs = vec![(conf.clone(), "0.1.0".to_owned())];
    confs.extend(VERSIONS.map(list));
    let (a, b) = (host.pod("a"), host.pod("b"));
    for (conf, version) in confs {
        let results = [host.add(&conf, &a).ok(), host.add(&conf, &b).ok()];
        for (pod, result) in [&a, &b].into_iter().zip(&results) {
            let told = addresses(result);
            assert_eq!(pod.addresses("eth0"), told, "{version}: {result:#}");
            assert!(told[0].starts_with("10.0.0.") && told[0].ends_with("/24"), "{told:?}");
            pod.must_reach("10.0.0.1");
        }
        a.must_reach(plain(&addresses(&results[1])[0]));
        b.must_reach(plain(&addresses(&results[0])[0]));
        assert_eq!(leases(host).len(), 2);
        if version.as_str() >= "0.4.0" {
            host.check(&conf, &results[0], &a).ok();
        }
        for (pod, result) in [&a, &b].into_iter().zip(&results) {
            host.del(&conf, pod).ok();
            assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "{version}: only lo");
            let address = plain(&addresses(result)[0]).to_owned();
            eventually(&format!("{address} is released"), SOON, || released(&address));
            host.del(&conf, pod).ok();
        }
        assert_eq!(leases(host), [json!(null); 0]);
        assert_eq!(kept(host), [""; 0]);
        if version.as_str() >= "1.1.0" {
            host.status(&conf).ok();
            host.gc(&conf, &[]).ok();
        }
    }
}

fn released_by_dnsmasq(host: &Host) -> impl Fn(&str) -> bool + '_ {
    |address| !host.read("/run/dnsmasq.leases").contains(address)
}

#[test]
fn the_real_input_leases_for_macvlan() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let conf: Value = serde_json::from_str(REAL_INPUT).unwrap();
    let expected = r#"{"name":"mynet","type":"macvlan","master":"eth0","ipam":{"type":"dhcp"}}"#;
    assert_eq!(conf, serde_json::from_str::<Value>(expected).unwrap());
    lives_in_every_version(&host, &conf, released_by_dnsmasq(&host));
}

#[test]
fn kea_serves_as_well() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = kea(&host, &lan, 600, &json!({}));
    let _daemon = Daemon::start(&host, &[]);
    let released = |address: &str| {
        let log = host.read("/run/kea/kea.log");
        log.lines().any(|line| line.contains("DHCP4_RELEASE ") && line.contains(address))
    };
    lives_in_every_version(&host, &conf(&json!({})), released);
}

#[test]
fn a_bridge_leads_to_the_server() {
    let host = Host::new();
    let lan = lan(&host);
    host.sh("ip link add br0 type bridge; ip link set eth0 master br0; ip link set br0 up");
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let bridge = conf(&json!({"type": "bridge", "bridge": "br0"}));
    lives_in_every_version(&host, &bridge, released_by_dnsmasq(&host));
}

#[test]
#[ignore = "needs ipvlan"]
fn ipvlans_share_a_link_layer_address_and_have_leases_of_their_own() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    lives_in_every_version(&host, &conf(&json!({"type": "ipvlan"})), released_by_dnsmasq(&host));
}

#[test]
#[ignore = "needs vlan"]
fn a_vlan_leads_to_the_server() {
    let host = Host::new();
    let lan = lan(&host);
    lan.sh("ip link add link eth0 name tagged type vlan id 7; ip link set tagged up
            ip addr del 10.0.0.1/24 dev eth0; ip addr add 10.0.0.1/24 dev tagged");
    let _server = dnsmasq(&host, &lan, &["--interface=tagged"]);
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let conf = conf(&json!({"type": "vlan", "vlanId": 7}));
    let result = host.add(&conf, &pod).ok();
    assert_eq!(pod.addresses("eth0"), addresses(&result));
    pod.must_reach("10.0.0.1");
    host.del(&conf, &pod).ok();
    eventually("it is released", SOON, || host.read("/run/dnsmasq.leases").is_empty());
}

#[test]
fn a_device_of_the_hosts_has_a_lease_of_its_own() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let conf = conf(&json!({"type": "host-device", "device": "eth0"}));
    let result = host.add(&conf, &pod).ok();
    assert_eq!(pod.addresses("eth0"), addresses(&result));
    pod.must_reach("10.0.0.1");
    host.del(&conf, &pod).ok();
    eventually("it is released", SOON, || host.read("/run/dnsmasq.leases").is_empty());
    assert_eq!(host.ip("link show eth0").as_array().unwrap().len(), 1, "it is back");
}

/// The link is up before it has its address, so its coming up announces nothing.
#[test]
fn neighbours_learn_at_once_who_has_a_leased_address_now() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = kea(&host, &lan, 600, &json!({"pools": [{"pool": "10.0.0.10 - 10.0.0.10"}]}));
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    // By default the kernel holds on to an entry for a second after its last change.
    lan.sh("echo 0 > /proc/sys/net/ipv4/neigh/eth0/locktime
            ip neigh add 10.0.0.10 lladdr 02:00:00:00:00:99 dev eth0 nud stale");
    let result = host.add(&conf(&json!({})), &pod).ok();
    let mac = &result["interfaces"][0]["mac"];
    eventually("the neighbour knows", SOON, || {
        lan.ip("neigh show to 10.0.0.10")[0]["lladdr"] == *mac
    });
}

// ------------------------------------------------------------------------------------- what a result has

#[test]
fn a_result_has_all_that_the_server_says() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(
        &host,
        &lan,
        &[
            "--dhcp-option=option:router,10.0.0.1",
            "--dhcp-option=option:dns-server,10.0.0.53,9.9.9.9",
            "--dhcp-option=option:domain-name,example.org",
            "--dhcp-option=option:domain-search,a.example.org,b.example.org",
            "--dhcp-option=option:mtu,1400",
            "--dhcp-option=option:static-route,192.168.5.0,10.0.0.3",
            "--dhcp-option=tag:classless,option:classless-static-route,172.16.0.0/12,10.0.0.4,10.9.9.9/32,0.0.0.0",
            "--dhcp-vendorclass=set:classless,classless",
        ],
    );
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");

    // Routes of option 33, and of 3.
    let added = conf(&json!({"ipam": {"type": "dhcp", "priority": 77}}));
    let result = host.add(&added, &pod).ok();
    let route = |dst: &str, gw: &str| json!({"dst": dst, "gw": gw, "priority": 77});
    assert_eq!(
        result["routes"],
        json!([route("192.168.5.0/24", "10.0.0.3"), route("0.0.0.0/0", "10.0.0.1")])
    );
    assert_eq!(result["ips"][0]["gateway"], "10.0.0.1");
    assert_eq!(
        result["dns"],
        json!({
            "nameservers": ["10.0.0.53", "9.9.9.9"],
            "domain": "example.org",
            "search": ["a.example.org", "b.example.org"],
        })
    );
    assert_eq!(result["interfaces"][0]["mtu"], 1400);
    assert_eq!(pod.ip("link show eth0")[0]["mtu"], 1400);
    let routes = pod.sh("ip route");
    assert!(routes.contains("default via 10.0.0.1 dev eth0 metric 77"), "{routes}");
    host.check(&added, &result, &pod).ok();
    host.del(&added, &pod).ok();

    // Those of option 121 in their place; and an MTU that is configured counts more than the server's.
    let provide = json!([{"option": "vendor-class-identifier", "value": "classless"}]);
    let added = conf(&json!({"mtu": 1300, "ipam": {"type": "dhcp", "provide": provide}}));
    let result = host.add(&added, &pod).ok();
    let expected = json!([
        {"dst": "172.16.0.0/12", "gw": "10.0.0.4"},
        {"dst": "10.9.9.9/32", "scope": 253},
    ]);
    assert_eq!(result["routes"], expected);
    let routes = pod.sh("ip route");
    assert!(routes.contains("10.9.9.9 dev eth0 scope link"), "{routes}");
    assert!(!routes.contains("default"), "{routes}");
    assert_eq!(pod.ip("link show eth0")[0]["mtu"], 1300);
    host.del(&added, &pod).ok();
}

#[test]
fn the_server_sees_what_is_provided_and_requested() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &["-broadcast"]);
    let pod = host.pod("a");
    let ipam = json!({
        "type": "dhcp",
        "request": [{"skipDefault": true}, {"option": "subnet-mask"}, {"option": "42"}],
        "provide": [
            {"option": "host-name", "value": "unnamed", "fromArg": "K8S_POD_NAME"},
            {"option": "77", "value": "users"},
        ],
    });
    let conf = conf(&json!({"ipam": ipam}));
    let add = Call::new(&host, "ADD", &conf).of(&pod);
    add.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web-0").run().ok();
    let log = host.read("/run/dnsmasq.log");
    for word in
        ["client provides name: web-0", "user class: users", "requested options: 1:netmask, 42"]
    {
        assert!(log.contains(word), "{word} in {log}");
    }
    // By what the reference has its containers known, so that they keep their addresses.
    let id: Vec<_> = "a/mynet/eth0".bytes().map(|byte| format!("{byte:02x}")).collect();
    let kept = host.read("/run/dnsmasq.leases");
    assert!(kept.contains(&format!("00:{}", id.join(":"))), "{kept}");
    host.del(&conf, &pod).ok();

    for (ipam, code, words) in [
        (json!({"requests": []}), 7, &["ipam.requests", "ipam.request"][..]),
        (json!({"request": [{"option": "hostname"}]}), 7, &["ipam.request[0].option", "host-name"]),
        (json!({"request": {}}), 6, &["ipam.request"]),
        (
            json!({"provide": [{"option": "12", "value": "x".repeat(256)}]}),
            7,
            &["ipam.provide[0].value", "255"],
        ),
        (json!({"provide": [{"option": "53", "value": "x"}]}), 7, &["ipam.provide[0].option"]),
        (json!({"daemonSocketPath": "run/x"}), 7, &["ipam.daemonSocketPath", "absolute"]),
        (json!({"daemonSocketPath": 5}), 6, &["ipam.daemonSocketPath"]),
        (json!({"priority": -1}), 7, &["ipam.priority"]),
        (json!({"ipv4": false}), 7, &["ipam.ipv4"]),
        (json!({"probe": "no"}), 6, &["ipam.probe"]),
    ] {
        let conf = with(conf.clone(), &json!({"ipam": with(json!({"type": "dhcp"}), &ipam)}));
        host.add(&conf, &pod).fails(code, words);
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo");
    }
    assert_eq!(leases(&host), [json!(null); 0]);
}

// ---------------------------------------------------------------------------------------------- the verbs

#[test]
fn a_second_add_returns_the_lease_that_lives() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    plug(&host, &pod);
    let conf = ipam(&json!({}));
    let first = dhcp(&host, "ADD", &conf, &pod).run().ok();
    let asked = host.read("/run/dnsmasq.log").matches("DHCPREQUEST").count();
    let second = dhcp(&host, "ADD", &conf, &pod).run().ok();
    assert_eq!(first, second);
    assert_eq!(
        host.read("/run/dnsmasq.log").matches("DHCPREQUEST").count(),
        asked,
        "nobody is asked"
    );

    // Another link in its place has another lease.
    pod.sh("ip link del eth0");
    eventually("the lease has ended", SOON, || leases(&host).is_empty());
    plug(&host, &pod);
    dhcp(&host, "ADD", &conf, &pod).run().ok();
    assert!(host.read("/run/dnsmasq.log").matches("DHCPREQUEST").count() > asked);
    assert_eq!(leases(&host).len(), 1);
}

#[test]
fn check_asks_and_never_leases() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let (pod, other) = (host.pod("a"), host.pod("b"));
    let conf = conf(&json!({}));
    let result = host.add(&conf, &pod).ok();
    host.check(&conf, &result, &pod).ok();
    let asked = host.read("/run/dnsmasq.log").len();
    host.check(&conf, &result, &other).fails(999, &["no lease", "\"b\"", "mynet"]);
    let mut wrong = result.clone();
    wrong["ips"][0]["address"] = json!("10.0.0.99/24");
    host.check(&conf, &wrong, &pod).fails(999, &["prevResult", plain(&addresses(&result)[0])]);
    let both = with(conf, &json!({"ipam": {"type": "dhcp", "ipv6": true}}));
    host.check(&both, &result, &pod).fails(999, &["no lease of an IPv6 address"]);
    assert_eq!(host.read("/run/dnsmasq.log").len(), asked, "no server is asked");
    assert_eq!(leases(&host).len(), 1);
}

#[test]
fn gc_releases_all_but_the_valid() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let other = conf(&json!({"name": "other"}));
    let conf = conf(&json!({}));
    let pods = host.pods(3);
    for pod in &pods {
        host.add(&conf, pod).ok();
    }
    let stranger = host.pod("stranger");
    host.add(&other, &stranger).ok();
    host.gc(&conf, &[("pod1", "eth0"), ("../x", "a/b")]).ok();
    let held: Vec<_> =
        leases(&host).iter().map(|l| l["container"].as_str().unwrap().to_owned()).collect();
    assert_eq!(held, ["pod1", "stranger"]);
    eventually("the server has two", SOON, || {
        host.read("/run/dnsmasq.leases").lines().count() == 2
    });
}

#[test]
fn without_a_daemon_add_and_status_say_so_and_del_succeeds() {
    let host = Host::new();
    let lan = lan(&host);
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    let words = ["/run/cni/dhcp.sock", "dhcp daemon"];
    let before = host.snapshot();
    host.add(&conf, &pod).fails(11, &words);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo");
    host.status(&conf).fails(50, &words);
    host.del(&conf, &pod).ok();
    host.gc(&conf, &[]).ok();
    host.snapshot().assert_same_but_for_rules(&before);

    // With a socket that nobody listens to any more.
    let _server = dnsmasq(&host, &lan, &[]);
    let mut daemon = Daemon::start(&host, &[]);
    let result = host.add(&conf, &pod).ok();
    host.status(&conf).ok();
    daemon.end(Signal::SIGKILL);
    host.sh("test -S /run/cni/dhcp.sock");
    host.status(&conf).fails(50, &words);
    host.check(&conf, &result, &pod).fails(11, &words);
    host.del(&conf, &pod).ok();
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo");
    // And without its namespace.
    let gone = host.pod("b");
    host.sh("ip netns del b");
    host.del(&conf, &gone).ok();

    // Another path.
    let elsewhere =
        with(conf, &json!({"ipam": {"type": "dhcp", "daemonSocketPath": "/run/other/x.sock"}}));
    host.status(&elsewhere).fails(50, &["/run/other/x.sock"]);
    let _daemon = Daemon::start(&host, &["--socketpath", "/run/other/x.sock"]);
    host.status(&elsewhere).ok();
    host.add(&elsewhere, &pod).ok();
    assert_eq!(host.sh("ls /run/other/x").lines().count(), 2, "the lock and a lease");
    host.del(&elsewhere, &pod).ok();
}

#[test]
fn errors_say_on_which_link_and_in_which_step_it_ended() {
    let host = Host::new();
    let lan = lan(&host);
    let quick = ["-timeout=1s", "-resendmax=1s", "-resendtimeout=2s"];
    let daemon = Daemon::start(&host, &quick);
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    host.add(&conf, &pod).fails(999, &["link \"eth0\"", "no OFFER", "2 s"]);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo");
    assert_eq!(leases(&host), [json!(null); 0]);

    // The link is there and leads nowhere.
    lan.sh("ip link set eth0 down");
    host.add(&conf, &pod).fails(999, &["link \"eth0\"", "no carrier"]);
    lan.sh("ip link set eth0 up");
    // There is none.
    dhcp(&host, "ADD", &ipam(&json!({})), &pod).run().fails(999, &["no link \"eth0\""]);
    host.sh("mkdir -p /run/netns; : > /run/netns/file");
    let call = dhcp(&host, "ADD", &ipam(&json!({})), &pod).env("CNI_NETNS", "/run/netns/file");
    call.run().fails(8, &["/run/netns/file"]);
    assert_eq!(daemon.logged(&["level=info", "leased"]), [""; 0]);
}

/// The plugin is told no more, so nobody would ever release it.
#[test]
fn a_plugin_that_goes_away_leaves_no_lease() {
    let host = Host::new();
    let lan = lan(&host);
    let daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    plug(&host, &pod);
    let mut child = dhcp(&host, "ADD", &ipam(&json!({})), &pod).start();
    eventually("it looks for a server", SOON, || leases(&host).len() == 1);
    assert_eq!(leases(&host)[0]["phase"], "selecting");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("nobody looks any more", SOON, || leases(&host).is_empty());
    daemon.awaits_log(SOON, &["nobody waits for it", "mynet/a/eth0"]);
    drop(lan);
}

// --------------------------------------------------------------------------------------------- the daemon

#[test]
fn the_socket_is_its_owners_and_the_daemon_the_only_one() {
    let host = Host::new();
    let mut daemon = Daemon::start(&host, &["-pidfile", "/run/dhcp.pid"]);
    let modes = host.sh(&format!("stat -c '%a %n' /run/cni/dhcp.sock {STATE} {STATE}/lock"));
    assert_eq!(modes, format!("600 /run/cni/dhcp.sock\n700 {STATE}\n600 {STATE}/lock\n"));
    assert_eq!(host.read("/run/dhcp.pid").trim(), daemon.pid().to_string());

    let mut second = Daemon::start_unready(&host, &[]);
    daemon.awaits_log(SOON, &["level=error", "another daemon", STATE]);
    eventually("the second has ended", SOON, || {
        host.sh(&format!("cat /proc/{}/stat 2>/dev/null || true", second.pid())).contains(") Z")
            || !std::path::Path::new(&format!("/proc/{}", second.pid())).exists()
    });
    assert_eq!(second.end(Signal::SIGCONT), Some(1));
    status(&host).ok();

    daemon.signal(Signal::SIGHUP);
    daemon.awaits_log(SOON, &["SIGHUP", "no configuration"]);
    status(&host).ok();
    assert_eq!(daemon.end(Signal::SIGTERM), Some(0));
    host.sh("test ! -e /run/cni/dhcp.sock; test ! -e /run/dhcp.pid");

    // What was killed leaves a socket that nobody listens to, which the next one replaces.
    let mut daemon = Daemon::start(&host, &[]);
    daemon.end(Signal::SIGKILL);
    host.sh("test -S /run/cni/dhcp.sock");
    let _daemon = Daemon::start(&host, &[]);
    status(&host).ok();
}

#[test]
fn a_socket_that_another_program_listens_to_is_left_alone() {
    let host = Host::new();
    host.sh("mkdir -p /run/cni");
    let mut command = host.command("socat");
    let _other =
        Running::start(command.args(["UNIX-LISTEN:/run/cni/dhcp.sock,fork", "SYSTEM:cat"]));
    eventually("the other listens", SOON, || {
        host.command("test").args(["-S", "/run/cni/dhcp.sock"]).status().unwrap().success()
    });
    let mut daemon = Daemon::start_unready(&host, &[]);
    eventually("it refuses", SOON, || host.read(LOG).contains("another program"));
    assert_eq!(daemon.end(Signal::SIGCONT), Some(1));
}

#[test]
fn systemd_may_hand_over_the_socket() {
    let host = Host::new();
    // What systemd does, in Python.
    host.write(
        "/run/activate.py",
        "import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind('/run/cni/dhcp.sock'); s.listen()
os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[1])
os.execv('/run/cni/bin/dhcp', ['dhcp', 'daemon'])
",
    );
    let start = |count: &str| {
        let mut command = host.command("/usr/bin/python3");
        Running::start(command.args(["/run/activate.py", count]).stderr(Stdio::piped()))
    };
    let mut daemon = start("1");
    eventually("it serves", SOON, || status(&host).status.success());
    assert_eq!(daemon.end(Signal::SIGTERM), Some(0));
    // It is systemd's, and stays.
    host.sh("test -S /run/cni/dhcp.sock; rm /run/cni/dhcp.sock");
    let mut daemon = start("2");
    eventually("it refuses", SOON, || daemon.is_over());
    assert!(daemon.stderr().contains("LISTEN_FDS"), "it says why");
}

#[test]
fn strangers_are_not_heard() {
    let host = Host::new();
    if !nix::unistd::geteuid().is_root() {
        // A user namespace of one user has no strangers; who is root has them.
        return;
    }
    let daemon = Daemon::start(&host, &[]);
    host.sh("chmod 711 /run/cni; chmod 666 /run/cni/dhcp.sock");
    let conf = conf(&json!({}));
    let as_nobody = ["/usr/bin/setpriv", "--reuid=65534", "--clear-groups", "--"];
    let refused = Call::new(&host, "STATUS", &conf).plugin("dhcp").under(&as_nobody).run();
    refused.fails(50, &["it has gone"]);
    daemon.awaits_log(SOON, &["refused another user's connection"]);

    // Nor is a stranger believed who listens.
    drop(daemon);
    host.sh("rm -f /run/cni/dhcp.sock; chmod 777 /run/cni");
    let mut command = host.command("setpriv");
    let listen = ["socat", "UNIX-LISTEN:/run/cni/dhcp.sock,fork", "SYSTEM:cat"];
    let _impostor = Running::start(command.args(&as_nobody[1..]).args(listen));
    eventually("the impostor listens", SOON, || {
        host.command("test").args(["-S", "/run/cni/dhcp.sock"]).status().unwrap().success()
    });
    status(&host).fails(50, &["user 65534", "not to be believed"]);
}

#[test]
fn nonsense_on_the_socket_is_survived() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    for bytes in [
        "\\377\\377\\377\\377",
        "\\0\\0\\0\\2[]",
        "\\0\\0\\0\\1{",
        "\\0",
        "GET / HTTP/1.0\\r\\n\\r\\n",
    ] {
        host.sh(&format!(
            "printf '{bytes}' | socat -t 0.2 - UNIX-CONNECT:/run/cni/dhcp.sock >/dev/null"
        ));
    }
    let answer = host.sh(
        "printf '\\0\\0\\0\\16{\"verb\":\"eat\"}' | socat -t 1 - UNIX-CONNECT:/run/cni/dhcp.sock | tail -c +5",
    );
    assert!(answer.contains("\"error\"") && answer.contains("add, del, check"), "{answer}");
    let pod = host.pod("a");
    host.add(&conf(&json!({})), &pod).ok();
}

#[test]
fn leases_are_listed_for_people_and_programs() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let _daemon = Daemon::start(&host, &[]);
    let pod = host.pod("a");
    let result = host.add(&conf(&json!({})), &pod).ok();
    let listed = leases(&host);
    let [lease] = listed.as_slice() else { panic!("{listed:?}") };
    let mac = pod.ip("link show eth0")[0]["address"].clone();
    for (key, expected) in [
        ("network", json!("mynet")),
        ("container", json!("a")),
        ("ifname", json!("eth0")),
        ("netns", json!("/run/netns/a")),
        ("mac", mac),
        ("address", json!(addresses(&result)[0])),
        ("server", json!("10.0.0.1")),
        ("phase", json!("bound")),
    ] {
        assert_eq!(lease[key], expected, "{key}");
    }
    let between = |key: &str, least: u64, most: u64| {
        let seconds = lease[key].as_u64().unwrap();
        assert!((least..=most).contains(&seconds), "{key}: {seconds}");
    };
    between("renewsInSeconds", 1700, 1800);
    between("expiresInSeconds", 3500, 3600);
    let table = host.run(PLUMB, &["dhcp", "leases"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NETWORK  CONTAINER  INTERFACE  ADDRESS"), "{table}");
    assert!(lines[1].contains("mynet") && lines[1].contains("bound"), "{table}");
    let nobody = host
        .command(format!("{BIN}/dhcp"))
        .args(["leases", "--socketpath", "/run/x"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("/run/x"));
}

#[test]
fn help_names_every_flag() {
    let host = Host::new();
    let help = host.run(&format!("{BIN}/dhcp"), &["daemon", "--help"]);
    for flag in [
        "--pidfile",
        "--hostprefix",
        "--socketpath",
        "--broadcast",
        "--timeout",
        "--resendmax",
        "--resendtimeout",
        "--probe",
        "--statedir",
        "SIGTERM",
        "Exit codes",
        "LISTEN_FDS",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    for flags in [&["-pidfile", "x"][..], &["-timeout", "5"], &["-nonsense"]] {
        let refused =
            host.command(format!("{BIN}/dhcp")).arg("daemon").args(flags).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
    }
}

/// What the unit for systemd leaves of privileges is enough for a lease's whole life.
#[test]
fn the_capabilities_of_the_unit_suffice() {
    const UNIT: &str = include_str!("../../docs/systemd/plumb-dhcp.service");
    let set = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let kept: Vec<_> =
        set.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
    let bounding = format!("--bounding-set=-all,{}", kept.join(","));
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &["--dhcp-option=option:mtu,1400"]);
    let script = format!("exec setpriv {bounding} --no-new-privs {BIN}/dhcp daemon 2>>{LOG}");
    let mut command = host.command("sh");
    let _daemon = Running::start(command.args(["-c", &script]));
    eventually("it is ready", SOON, || status(&host).status.success());
    let pod = host.pod("a");
    let added = conf(&json!({}));
    let result = host.add(&added, &pod).ok();
    assert_eq!(pod.ip("link show eth0")[0]["mtu"], 1400);
    host.check(&added, &result, &pod).ok();
    host.del(&added, &pod).ok();
    host.add(&added, &pod).ok();
    host.sh("ip netns del a");
    eventually("it ends with its namespace", SOON, || leases(&host).is_empty());
}

/// Seen on the host's link, where servers' answers come by.
#[test]
fn servers_answer_by_broadcast_if_they_are_to() {
    for (flags, expected) in [(&[][..], false), (&["-broadcast"][..], true)] {
        let host = Host::new();
        let lan = lan(&host);
        let _server = dnsmasq(&host, &lan, &[]);
        let _daemon = Daemon::start(&host, flags);
        host.sh(
            "nft add table netdev seen
                 nft add chain netdev seen in '{ type filter hook ingress device eth0 priority 0; }'
                 nft add rule netdev seen in ether daddr ff:ff:ff:ff:ff:ff udp sport 67 counter
                 nft add rule netdev seen in ether daddr != ff:ff:ff:ff:ff:ff udp sport 67 counter",
        );
        let pod = host.pod("a");
        host.add(&conf(&json!({})), &pod).ok();
        let listed = host.nft("list table netdev seen");
        let packets: Vec<_> = listed
            .iter()
            .filter_map(|object| object["rule"]["expr"].as_array())
            .flatten()
            .filter_map(|part| part["counter"]["packets"].as_u64())
            .collect();
        // OFFER and ACK.
        assert_eq!(packets, if expected { [2, 0] } else { [0, 2] }, "{flags:?}");
        host.del(&conf(&json!({})), &pod).ok();
    }
}

/// As where the daemon runs in a container, and has the host's root below a directory.
#[test]
fn a_prefix_leads_to_the_hosts_files() {
    let host = Host::new();
    let lan = lan(&host);
    let _server = dnsmasq(&host, &lan, &[]);
    let pod = host.pod("a");
    host.sh("mkdir -p /run/root/run/netns; mount --rbind /run/netns /run/root/run/netns");
    let _daemon = Daemon::start(&host, &["-hostprefix", "/run/root"]);
    host.sh("test -S /run/root/run/cni/dhcp.sock; test ! -e /run/cni/dhcp.sock; ls /run/root/run/cni/dhcp/lock");
    let ipam = json!({"type": "dhcp", "daemonSocketPath": "/run/root/run/cni/dhcp.sock"});
    let conf = conf(&json!({"ipam": ipam}));
    let result = host.add(&conf, &pod).ok();
    assert_eq!(pod.addresses("eth0"), addresses(&result));
    host.del(&conf, &pod).ok();
    assert!(host.read("/run/dnsmasq.leases").is_empty());
}
