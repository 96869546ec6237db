//! A foreign flush of the packet rules: CHECK notices, whatever part of them it took, and `plumb restore` puts
//! them back for all live attachments and for nobody else.

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Call, Host, PLUMB, Pod, bridge_conf, dual, ipv4};
use crate::real_input::{outside, peer_seen_by};

/// A bridge with all packet rules that there are.
fn guarded() -> Value {
    bridge_conf(&json!({
        "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": dual(),
    }))
}

fn routed() -> Value {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}]]});
    json!({"cniVersion": "1.1.0", "name": "routed", "type": "ptp", "ipMasq": true, "ipam": ipam})
}

/// Runs `plumb restore` with the networks that [`configure`] has put there.
fn restore(host: &Host, args: &[&str]) -> Output {
    let mut command = host.command(PLUMB);
    command.arg("restore").args(args).env("NETCONFPATH", "/run/net.d");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

#[track_caller]
fn restored(host: &Host, args: &[&str]) -> String {
    let output = restore(host, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout).trim().to_owned()
}

fn configure(host: &Host, networks: &[&Value]) {
    host.sh("mkdir -p /run/net.d");
    for network in networks {
        let name = network["name"].as_str().unwrap();
        host.write(format!("/run/net.d/{name}.conf"), &network.to_string());
    }
}

/// The packet rules as nft(8) shows them, elements in order, without numbers that only count.
fn ruleset(host: &Host) -> Vec<String> {
    let mut objects = Vec::new();
    for mut object in host.nft("list ruleset") {
        let Some((kind, inner)) = object.as_object_mut().and_then(|o| o.iter_mut().next()) else {
            continue;
        };
        if kind == "metainfo" {
            continue;
        }
        if let Some(inner) = inner.as_object_mut() {
            inner.remove("handle");
            if let Some(Value::Array(elements)) = inner.get_mut("elem") {
                elements.sort_by_key(Value::to_string);
            }
        }
        objects.push(object.to_string());
    }
    objects.sort();
    objects
}

/// What a firewall's restart, or an administrator, takes away of our rules.
const FLUSHES: [&str; 12] = [
    "flush ruleset",
    "delete table inet plumb",
    "delete table bridge plumb",
    "flush table inet plumb",
    "flush table bridge plumb",
    "flush chain inet plumb postrouting",
    "flush chain bridge plumb prerouting",
    "flush set inet plumb masq4_16",
    "flush set inet plumb masq6_64",
    "flush set bridge plumb guarded",
    "flush set bridge plumb genuine",
    "'flush chain bridge plumb prerouting; delete set bridge plumb genuine'",
];

#[test]
fn a_flush_of_any_part_is_noticed_and_made_good() {
    let host = Host::new();
    let (conf, routed) = (guarded(), routed());
    configure(&host, &[&conf, &routed]);
    let (a, b, c) = (host.pod("a"), host.pod("b"), host.pod("c"));
    let first = host.add(&conf, &a).ok();
    let second = host.add(&conf, &b).ok();
    let third = host.add(&routed, &c).ok();
    let before = ruleset(&host);
    assert_eq!(
        restored(&host, &[]),
        "nothing to restore: 3 attachments in 2 networks have all their rules"
    );
    // One rule of a chain that has others.
    let handles = host.ruleset("rule");
    let rule = handles.iter().find(|rule| rule.to_string().contains("masq6_64")).unwrap();
    let one = format!("delete rule inet plumb postrouting handle {}", rule["handle"]);
    for flush in [&*one].into_iter().chain(FLUSHES) {
        host.sh(&format!("nft {flush}"));
        let noticed = [(&conf, &first, &a), (&conf, &second, &b), (&routed, &third, &c)]
            .iter()
            .filter(|(conf, result, pod)| !host.check(conf, result, pod).status.success())
            .count();
        assert!(noticed > 0, "CHECK has not seen: nft {flush}");

        let flushed = ruleset(&host);
        let dry = restored(&host, &["--dry-run"]);
        assert!(dry.contains("would restore "), "{flush}: {dry}");
        assert_eq!(ruleset(&host), flushed, "a dry run changes nothing");
        let line = restored(&host, &[]);
        assert!(line.starts_with("restored "), "{flush}: {line}");
        assert_eq!(ruleset(&host), before, "{flush}: {line}");
        for (conf, result, pod) in
            [(&conf, &first, &a), (&conf, &second, &b), (&routed, &third, &c)]
        {
            host.check(conf, result, pod).ok();
        }
        assert!(restored(&host, &[]).starts_with("nothing to restore"), "{flush}");
    }
    host.sh("nft flush ruleset");
    assert_eq!(
        restored(&host, &[]),
        "restored 4 rules and 9 elements of 3 attachments in 2 networks"
    );
    let document: Value = serde_json::from_str(&restored(&host, &["--json"])).unwrap();
    assert_eq!((&document["elements"], &document["rules"]), (&json!(0), &json!(0)));
    // DEL takes away what restore has put there.
    for (conf, pod) in [(&conf, &a), (&conf, &b), (&routed, &c)] {
        host.del(conf, pod).ok();
    }
    assert_eq!(host.element_comments(), [] as [&str; 0]);
}

#[test]
fn what_is_restored_is_in_force() {
    let host = Host::new();
    let outside = outside(&host);
    let conf = guarded();
    configure(&host, &[&conf]);
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    host.sh("nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward");
    let said = restored(&host, &[]);
    assert!(said.contains("set sysctl ipv4/ip_forward to 1"), "{said}");
    assert_eq!(peer_seen_by(&outside, "10.99.0.2", &pod), "10.99.0.1");
    pod.must_reach("10.1.0.1");
    pod.sh("ip link set dev eth0 address 02:00:00:00:00:99");
    assert!(!pod.reaches("10.1.0.1"), "a forged address is let through");
}

/// The lease counts, not what a container with CAP_NET_ADMIN has given itself: that would take the rules, or the
/// masquerading, of another's address.
#[test]
fn addresses_are_those_of_the_leases() {
    let host = Host::new();
    let conf = guarded();
    configure(&host, &[&conf]);
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&conf, &a).ok();
    host.add(&conf, &b).ok();
    let before = ruleset(&host);
    a.sh("ip addr add 10.1.0.3/16 dev eth0; ip addr add 10.1.0.77/16 dev eth0
          ip addr del 10.1.0.2/16 dev eth0");
    host.sh("nft flush ruleset");
    restored(&host, &[]);
    assert_eq!(ruleset(&host), before);
    // Of a forged link-layer address it is said that nothing speaks for it.
    a.sh("ip link set dev eth0 address 02:00:00:00:00:99");
    host.sh("nft flush ruleset");
    let output = restore(&host, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("net a/eth0: macspoofchk is for 02:00:00:00:00:99"), "{error}");
}

/// Address management of others, and static: what the configuration says, else what the runtime has kept, else
/// what the container has.
#[test]
fn addresses_of_other_address_management_are_found() {
    let host = Host::new();
    let fixed = json!({"type": "static", "addresses": [{"address": "10.3.0.9/24"}]});
    let fixed = bridge_conf(&json!({"name": "fixed", "ipMasq": true, "ipam": fixed}));
    let foreign = json!({"name": "foreign", "ipMasq": true, "ipam": {"type": "scripted"}});
    let foreign = bridge_conf(&foreign);
    host.scripted_ipam(&json!({"cniVersion": "1.1.0", "ips": [{"address": "10.4.0.5/24"}]}));
    configure(&host, &[&fixed, &foreign]);
    host.add(&fixed, &host.pod("a")).ok();
    let pod = host.pod("b");
    host.add(&foreign, &pod).ok();
    let before = ruleset(&host);
    host.sh("nft flush ruleset");
    assert_eq!(
        restored(&host, &[]),
        "restored 1 rule and 2 elements of 2 attachments in 2 networks"
    );
    assert_eq!(ruleset(&host), before);
}

/// A network that is not configured any more is taken as the runtime has kept it; without that its attachments
/// are told, and the others restored.
#[test]
fn a_network_whose_configuration_has_gone_fails_nobody_else() {
    let host = Host::new();
    let conf = guarded();
    configure(&host, &[&conf, &routed()]);
    let pods = [host.pod("a"), host.pod("b"), host.pod("c")];
    host.add(&conf, &pods[0]).ok();
    host.add(&routed(), &pods[1]).ok();
    let add = host
        .command(PLUMB)
        .args(["add", "routed", "c", "--container", "kept"])
        .env("NETCONFPATH", "/run/net.d")
        .status();
    assert!(add.unwrap().success());
    host.sh("rm /run/net.d/routed.conf; nft flush ruleset");
    let output = restore(&host, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("routed b/eth0: the network is not configured any more"), "{error}");
    let comments = host.element_comments().join("\n");
    for label in ["plumb:net/a/eth0", "plumb:routed/kept/eth0"] {
        assert!(comments.contains(label), "{label}: {comments}");
    }
    assert!(!comments.contains("plumb:routed/b/eth0"), "{comments}");
    // Given in a file it is known, and of the others nothing is said.
    host.write("/run/routed.conf", &routed().to_string());
    let line = restored(&host, &["/run/routed.conf"]);
    assert_eq!(line, "restored 0 rules and 1 element of 1 attachment in 1 network");
}

/// ADDs, DELs and flushes at the same time as restore: in the end each live attachment has its rules, and a gone
/// one has none.
#[test]
fn restore_beside_adds_and_dels_resurrects_nothing() {
    let host = Host::new();
    let conf = guarded();
    configure(&host, &[&conf]);
    let pods = host.pods(6);
    std::thread::scope(|scope| {
        for pod in &pods {
            let (host, conf) = (&host, &conf);
            scope.spawn(move || {
                for _ in 0..8 {
                    host.add(conf, pod).ok();
                    host.del(conf, pod).ok();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..12 {
                    host.sh("nft flush set inet plumb masq4_16 2>/dev/null || true");
                    // While others add and delete addresses may be leased that no link shows any more.
                    restore(&host, &[]);
                }
            });
        }
    });
    assert_eq!(host.element_comments(), [] as [&str; 0]);
    for pod in &pods {
        let result = host.add(&conf, pod).ok();
        host.check(&conf, &result, pod).ok();
    }
}

/// A DEL that has taken its own rules away, and is then held up before its link goes: what restore has put back
/// meanwhile goes when it does. Address management is a foreign plugin that waits for a file.
#[test]
fn what_was_restored_for_an_attachment_that_is_being_deleted_goes_again() {
    let host = Host::new();
    host.scripted_ipam(&json!({"cniVersion": "1.1.0", "ips": [{"address": "10.4.0.5/24"}]}));
    let conf = bridge_conf(&json!({"ipMasq": true, "ipam": {"type": "scripted"}}));
    configure(&host, &[&conf]);
    let pod = host.pod("a");
    let result = host.add(&conf, &pod).ok();
    let script = "#!/bin/sh\n[ $CNI_COMMAND = DEL ] || exit 1\ntouch /run/begun\n\
                  while ! [ -e /run/go ]; do sleep 0.02; done\n";
    host.write(format!("{}/scripted", crate::harness::BIN), script);
    let mut conf_with_result = conf;
    conf_with_result["prevResult"] = result;
    std::thread::scope(|scope| {
        scope.spawn(|| Call::new(&host, "DEL", &conf_with_result).of(&pod).run().ok());
        host.sh("while ! [ -e /run/begun ]; do sleep 0.02; done");
        assert_eq!(host.element_comments(), [] as [&str; 0], "DEL has not taken its rules away");
        let restoring = scope.spawn(|| restored(&host, &[]));
        host.sh("while ! nft list set inet plumb masq4_24 | grep -q a/eth0; do sleep 0.02; done
                 touch /run/go");
        assert!(restoring.join().unwrap().starts_with("nothing to restore"));
    });
    assert_eq!(host.element_comments(), [] as [&str; 0]);
}

/// What the unit for systemd leaves of privileges is enough, also to read what only the container tells; and what
/// has it run after a firewall: a start pulls it in, a stop or restart takes it along, a reload, too, each in
/// its turn.
#[test]
fn the_unit_for_systemd_suffices() {
    const UNIT: &str = include_str!("../../docs/systemd/plumb-restore.service");
    let value = |key: &str| UNIT.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    for key in ["After", "PartOf", "ReloadPropagatedFrom", "WantedBy"] {
        for firewall in ["nftables.service", "firewalld.service"] {
            assert!(value(key).unwrap().split(' ').any(|unit| unit == firewall), "{key}");
        }
    }
    assert_eq!(value("RemainAfterExit"), Some("yes"));
    let command = value("ExecStart").unwrap().strip_prefix("/opt/cni/bin/plumb ").unwrap();
    assert_eq!(value("ExecReload"), value("ExecStart"));

    let host = Host::new();
    let foreign = json!({"ipMasq": true, "macspoofchk": true, "isGateway": true, "ipam": {"type": "scripted"}});
    let conf = bridge_conf(&foreign);
    let ips = json!([{"address": "10.4.0.5/24", "gateway": "10.4.0.1"}]);
    host.scripted_ipam(&json!({"cniVersion": "1.1.0", "ips": ips}));
    configure(&host, &[&conf]);
    host.add(&conf, &host.pod("a")).ok();
    let before = ruleset(&host);
    host.sh("nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward");
    let kept = value("CapabilityBoundingSet").unwrap().replace("CAP_", "+").to_lowercase();
    let bounding = format!("--bounding-set=-all,{}", kept.replace(' ', ","));
    host.sh(&format!("NETCONFPATH=/run/net.d setpriv {bounding} --no-new-privs {PLUMB} {command}"));
    assert_eq!(ruleset(&host), before);
    assert_eq!(host.sysctl("ipv4/ip_forward"), "1");
}

/// Among the firewalls' units that they name.
#[test]
fn systemd_accepts_the_units() {
    let host = Host::new();
    let firewall =
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecReload=/bin/true\n";
    let units = [
        ("nftables.service", firewall),
        ("firewalld.service", firewall),
        ("plumb-restore.service", include_str!("../../docs/systemd/plumb-restore.service")),
        ("plumb-dhcp.service", include_str!("../../docs/systemd/plumb-dhcp.service")),
        ("plumb-dhcp.socket", include_str!("../../docs/systemd/plumb-dhcp.socket")),
    ];
    host.sh("mkdir -p /run/units");
    for (name, unit) in units {
        let unit = unit.replace("/opt/cni/bin/", "/run/bin/");
        host.write(format!("/run/units/{name}"), &unit);
    }
    host.sh(&format!("mkdir /run/bin; ln -s {PLUMB} /run/bin/plumb; ln -s {PLUMB} /run/bin/dhcp"));
    let verify =
        "cd /run/units; SYSTEMD_UNIT_PATH=/run/units: systemd-analyze verify --man=no plumb-* 2>&1";
    assert_eq!(host.sh(verify), "");
    host.sh("sed -i s/^After=/Afterwards=/ /run/units/plumb-restore.service");
    assert!(host.sh(&format!("{verify} || true")).contains("Afterwards"), "verify sees nothing");
}

/// Few transactions, whatever the number: 300 attachments cost hardly more messages than one does.
#[test]
fn many_are_restored_in_few_transactions() {
    let host = Host::new();
    let conf = bridge_conf(&json!({"ipMasq": true, "macspoofchk": true, "ipam": ipv4()}));
    configure(&host, &[&conf]);
    let pods: Vec<Pod<'_>> = host.pods(40);
    for pod in &pods {
        for number in 0..3 {
            let call = Call::new(&host, "ADD", &conf).of(pod);
            call.env("CNI_IFNAME", &format!("eth{number}")).run().ok();
        }
    }
    let before = ruleset(&host);
    host.sh("nft flush ruleset");
    let trace = "strace -f -e trace=sendmsg,sendto -e signal=none -o /run/trace";
    host.sh(&format!("NETCONFPATH=/run/net.d {trace} {PLUMB} restore > /run/said"));
    assert_eq!(
        host.read("/run/said").trim(),
        "restored 2 rules and 360 elements of 120 attachments in 1 network"
    );
    assert_eq!(ruleset(&host), before);
    let sent = host.sh("grep -c sendmsg /run/trace || true; grep -c sendto /run/trace || true");
    let sent: usize = sent.lines().map(|line| line.trim().parse::<usize>().unwrap()).sum();
    // Beside the container's address of each, which it is asked for twice, and its link.
    assert!((10..=2 * 120 + 60).contains(&sent), "{sent} messages");
}
