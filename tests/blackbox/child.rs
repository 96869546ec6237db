//! What holds for every plugin whose link is born in the container: macvlan, ipvlan, vlan, dummy, tap. Their
//! own files say for which configuration, and whether this kernel must have the kind of link.

use serde_json::{Value, json};

use crate::failure::{CONTENTS, CONVERSATIONS, injected, walk};
use crate::harness::{Call, Host, Pod, VERSIONS, dual, fails_without_a_trace, ipv4, network, with};

/// A configuration of this plugin, on master `up0`, for network `net`, with these keys in addition or instead.
pub fn conf(kind: &str, keys: &Value) -> Value {
    with(json!({"cniVersion": "1.1.0", "name": "net", "type": kind, "master": "up0"}), keys)
}

/// A host's link of this name, up and with address `10.1.0.201/16`, to a segment with one other machine:
/// `10.1.0.200` and `fd01::200`.
pub fn segment<'a>(host: &'a Host, name: &str) -> Pod<'a> {
    let neighbour = host.pod("neighbour");
    host.sh(&format!(
        "ip link add {name} type veth peer name eth0 netns neighbour
         ip addr add 10.1.0.201/16 dev {name}; ip link set {name} up"
    ));
    neighbour.sh("ip addr add 10.1.0.200/16 dev eth0; ip addr add fd01::200/64 dev eth0 nodad
                  ip link set lo up; ip link set eth0 up");
    neighbour
}

/// Asserts that all links that came after `lo` have gone.
#[track_caller]
pub fn assert_bare(pod: &Pod<'_>) {
    let links = pod.ip("link show");
    assert_eq!(links.as_array().unwrap().len(), 1, "{links:#}");
}

/// A network as somebody wrote it, without a version, lives its life; and as a list of every version.
/// `each` sees two pods that are attached.
pub fn lives_in_every_version(text: &str, each: impl Fn(&Host, [&Pod<'_>; 2], &[Value; 2])) {
    let plain: Value = serde_json::from_str(text).unwrap();
    let list = |version: &str| {
        let list = json!({"cniVersion": version, "name": plain["name"], "plugins": [plain]});
        (network(&list.to_string())[0].clone(), version.to_owned())
    };
    let mut confs = vec![(plain.clone(), "0.1.0".to_owned())];
    confs.extend(VERSIONS.map(list));
    let host = Host::new();
    segment(&host, "eth0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.snapshot();
    for (conf, version) in confs {
        let results = [host.add(&conf, &a).ok(), host.add(&conf, &b).ok()];
        let told: Vec<_> = results.iter().map(|result| addresses(result, &version)).collect();
        for (pod, told) in [&a, &b].into_iter().zip(&told) {
            assert_eq!(pod.addresses("eth0"), *told, "{version}: {results:#?}");
        }
        each(&host, [&a, &b], &results);
        if version.as_str() >= "0.4.0" {
            host.check(&conf, &results[0], &a).ok();
        }
        for pod in [&a, &b] {
            host.del(&conf, pod).ok();
            assert_bare(pod);
            host.del(&conf, pod).ok();
        }
        host.snapshot().assert_same_but_for_rules(&before);
        if version.as_str() >= "1.1.0" {
            host.status(&conf).ok();
            host.gc(&conf, &[]).ok();
        }
    }
}

/// The addresses of a result, and that it is of the version's form.
fn addresses(result: &Value, version: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{result:#}")).to_owned();
    assert_eq!(result["cniVersion"], version, "{result:#}");
    if version < "0.3.0" {
        assert_eq!(result.get("interfaces"), None, "{result:#}");
        return vec![text(&result["ip4"]["ip"])];
    }
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 1, "{result:#}");
    assert_eq!(interfaces[0]["name"], "eth0", "{result:#}");
    assert!(text(&interfaces[0]["sandbox"]).starts_with("/run/netns/"), "{result:#}");
    assert_eq!(interfaces[0].get("mtu").is_some(), version >= "1.1.0", "{result:#}");
    let ips = result["ips"].as_array().unwrap();
    assert!(ips.iter().all(|ip| ip["interface"] == 0), "{result:#}");
    ips.iter().map(|ip| text(&ip["address"])).collect()
}

/// DEL needs neither namespace nor master nor what ADD returned, and may be called twice.
pub fn del_needs_nothing(conf: &Value) {
    let host = Host::new();
    let before = host.snapshot();
    segment(&host, "up0");
    let no_namespaces = [None, Some(""), Some("/run/netns/none"), Some("/run/cni/bin/bridge")];
    for (number, netns) in no_namespaces.into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        host.add(conf, &pod).ok();
        let del = Call::new(&host, "DEL", conf).of(&pod);
        let del = match netns {
            Some(path) => del.env("CNI_NETNS", path),
            None => del.without("CNI_NETNS"),
        };
        del.run().ok();
        assert_eq!(host.leases("net"), [] as [&str; 0], "{netns:?}");
        del.run().ok();
        // What the call could not know of goes with the namespace.
        host.del(conf, &pod).ok();
        assert_bare(&pod);
    }
    // The namespace has gone, and with it the link.
    let pod = host.pod("dead");
    host.add(conf, &pod).ok();
    host.sh("ip netns del dead");
    host.del(conf, &pod).ok();
    host.del(conf, &pod).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);

    // Without the master; if there is one, the link has gone with it.
    let pod = host.pod("orphan");
    let mut result = host.add(conf, &pod).ok();
    host.sh("ip link del up0");
    result["ips"] = json!("nonsense");
    let mut with_nonsense = conf.clone();
    with_nonsense["prevResult"] = result;
    host.del(&with_nonsense, &pod).ok();
    host.del(conf, &pod).ok();
    assert_bare(&pod);
    host.snapshot().assert_same_but_for_rules(&before);
}

/// A DEL leaves alone what another attachment has, or what the plugin has not made.
pub fn del_leaves_alone_what_is_not_its_own(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    host.add(conf, &pod).ok();
    let mut another = conf.clone();
    another["name"] = json!("another");
    host.del(&another, &pod).ok();
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 2, "another network's");
    // The reference's plugin labels nothing.
    pod.sh("ip link set eth0 alias ''");
    host.del(conf, &pod).ok();
    assert_bare(&pod);
    pod.sh("ip link add eth0 type veth peer name other");
    host.del(conf, &pod).ok();
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 3, "of another kind");
}

/// The link bears its final name from the beginning, whatever links the host has; nothing moves.
pub fn is_born_under_its_final_name(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    host.sh("ip link add eth0 address 02:00:00:00:00:99 type veth peer name other
             ip link set eth0 alias mine");
    let pod = host.pod("a");
    let before = host.snapshot();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let strace = ["strace", "-f", "-qq", "-v", "-s", "9999", "-e", "trace=sendto", "-o", path];
    let result = Call::new(&host, "ADD", conf).of(&pod).under(&strace).run().ok();
    let trace = std::fs::read_to_string(path).unwrap();
    for line in trace.lines().filter(|line| line.contains("RTM_NEWLINK")) {
        let creates = line.contains("NLM_F_CREATE");
        assert_eq!(line.contains("IFLA_IFNAME"), creates, "no name is changed: {line}");
        let in_container = conf["linkInContainer"] == true;
        let moves = line.contains("IFLA_NET_NS_FD");
        assert_eq!(moves, creates && !in_container, "nothing is moved: {line}");
        assert!(!creates || line.contains("IFLA_IFNAME}, \"eth0\""), "{line}");
    }
    let kind = if conf["type"] == "tap" { json!("tun") } else { conf["type"].clone() };
    assert_eq!(pod.ip("link show dev eth0")[0]["linkinfo"]["info_kind"], kind);
    assert_eq!(pod.ip("link show dev eth0")[0]["ifalias"], "plumb:net/a/eth0");
    host.check(conf, &result, &pod).ok();
    host.del(conf, &pod).ok();
    host.snapshot().assert_same_but_for_rules(&before);

    // The container's own is another matter.
    pod.sh("ip link add eth0 type veth peer name other; ip addr add 198.51.100.1/24 dev eth0");
    host.add(conf, &pod).fails(999, &["eth0", "already exists"]);
    assert_eq!(pod.addresses("eth0"), ["198.51.100.1/24"]);
    host.snapshot().assert_same_but_for_rules(&before);
}

/// What the kernel refuses in the container undoes all.
pub fn a_late_refusal_undoes_all(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    let mut conf = conf.clone();
    conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "172.31.0.1"}]);
    let words = ["container interface \"eth0\"", "192.0.2.0/24", "172.31.0.1"];
    fails_without_a_trace(&host, &conf, &pod, 999, &words);
}

/// The system call in which the kinds of links differ from each other, which is by what they ask of the kernel;
/// macvlan stands for them in all others.
pub const CONVERSATION: [&str; 1] = ["sendto"];

/// All that ADD fails by: the system call, and `+` if every one from the n-th on fails.
pub fn failures_of_add() -> Vec<(&'static str, &'static str)> {
    let once = CONVERSATIONS.iter().chain(&CONTENTS).map(|syscall| (*syscall, ""));
    once.chain([("sendto", "+"), ("socket", "+")]).collect()
}

/// All that DEL fails by.
pub const FAILURES_OF_DEL: [&str; 10] = [
    "socket",
    "setsockopt",
    "getsockopt",
    "sendto",
    "recvmsg",
    "setns",
    "openat",
    "ioctl",
    "fcntl",
    "unlinkat",
];

/// ADD fails at the n-th system call of each kind, for every n: all is undone, or if nothing can be done any
/// more, by DEL.
pub fn an_add_is_undone_whatever_fails(conf: &Value, failures: &[(&str, &str)]) {
    let host = Host::new();
    segment(&host, "up0");
    let (other, pod) = (host.pod("other"), host.pod("a"));
    let of_other = for_another(conf);
    let others = host.add(&of_other, &other).ok();
    let before = host.snapshot();
    let call = Call::new(&host, "ADD", conf).of(&pod);
    for (syscall, suffix) in failures {
        walk(syscall, |n| {
            let (outcome, reached) = injected(&call, syscall, &format!("{n}{suffix}"));
            eprintln!("{syscall} {n}{suffix}: {}", outcome.stdout);
            if outcome.status.success() {
                host.check(conf, &outcome.ok(), &pod).ok();
            } else {
                outcome.error();
                let can_undo = suffix.is_empty()
                    && !outcome.stdout.contains("cannot return to the host")
                    && !outcome.stdout.contains("print the result");
                if can_undo {
                    host.snapshot().assert_same_but_for_rules(&before);
                    assert_bare(&pod);
                }
            }
            host.del(conf, &pod).ok();
            host.snapshot().assert_same_but_for_rules(&before);
            assert_bare(&pod);
            reached
        });
    }
    host.check(&of_other, &others, &other).ok();
}

/// DEL fails at the n-th system call of each kind: what it says is gone is gone, an address keeps its lease
/// while the link has it, and the next DEL leaves nothing.
pub fn a_del_that_fails_is_made_up_for_by_the_next(conf: &Value, syscalls: &[&str]) {
    let host = Host::new();
    segment(&host, "up0");
    let (other, pod) = (host.pod("other"), host.pod("a"));
    let of_other = for_another(conf);
    let others = host.add(&of_other, &other).ok();
    let before = host.snapshot();
    let call = Call::new(&host, "DEL", conf).of(&pod);
    for syscall in syscalls {
        walk(syscall, |n| {
            host.add(conf, &pod).ok();
            let (outcome, reached) = injected(&call, syscall, n);
            eprintln!("{syscall} {n}: {}", outcome.stdout);
            let has_link = pod.ip("link show").as_array().unwrap().len() > 1;
            let leases = host.snapshot().since(&before).len();
            if outcome.status.success() {
                assert!(leases == 0, "{syscall} {n}: told that all is gone");
                assert!(!has_link, "{syscall} {n}: told that all is gone");
            } else {
                outcome.error();
                assert!(!has_link || leases == 1, "{syscall} {n}: the lease has gone first");
            }
            host.del(conf, &pod).ok();
            host.snapshot().assert_same_but_for_rules(&before);
            assert_bare(&pod);
            reached
        });
    }
    host.check(&of_other, &others, &other).ok();
}

/// ADDs, makes something go astray in the pod or on the host (`HOST: …`), and has CHECK find it.
pub fn drifts(conf: &Value, cases: &[(&str, &[&str])]) {
    let host = Host::new();
    for (number, (script, words)) in cases.iter().enumerate() {
        host.sh("ip link del up0 2>/dev/null || true; ip netns del neighbour 2>/dev/null || true");
        segment(&host, "up0");
        let pod = host.pod(&format!("pod{number}"));
        let result = host.add(conf, &pod).ok();
        let before = host.snapshot();
        host.check(conf, &result, &pod).ok();
        assert_eq!(host.snapshot(), before, "CHECK changes nothing");
        let ip = result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
        let ip = ip.split('/').next().unwrap();
        match script.strip_prefix("HOST: ") {
            Some(script) => host.sh(&script.replace("IP4", ip)),
            None => pod.sh(&script.replace("IP4", ip)),
        };
        let outcome = host.check(conf, &result, &pod);
        assert!(!outcome.status.success(), "CHECK has not seen: {script}");
        let words: Vec<_> = words.iter().map(|word| word.replace("IP4", ip)).collect();
        outcome.fails(999, &words.iter().map(String::as_str).collect::<Vec<_>>());
        host.del(conf, &pod).ok();
    }
}

/// What goes astray with any of them.
pub const DRIFTS: [(&str, &[&str]); 6] = [
    ("ip link del eth0", &["eth0", "vanished"]),
    ("ip link set eth0 down", &["eth0"]),
    ("ip addr del IP4/16 dev eth0", &["eth0", "IP4/16", "missing"]),
    ("ip route del 192.0.2.0/24", &["eth0", "route 192.0.2.0/24", "missing"]),
    (
        "ip link set eth0 down; ip link set eth0 name old; ip addr del IP4/16 dev old
         ip link add eth0 type veth peer name p; ip link set eth0 up; ip addr add IP4/16 dev eth0
         ip route add 192.0.2.0/24 via 10.1.0.9",
        &["eth0", "is a veth, not a "],
    ),
    ("HOST: rm /var/lib/cni/networks/net/IP4", &["holds no address"]),
];

/// `ipam` for one IPv4 address, with a route.
pub fn with_route() -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/16"}]],
        "routes": [{"dst": "192.0.2.0/24", "gw": "10.1.0.9"}],
    })
}

/// The network's for another pod on the same master, of which a VLAN bears only one.
fn for_another(conf: &Value) -> Value {
    let mut conf = conf.clone();
    if conf["vlanId"].is_number() {
        conf["vlanId"] = json!(99);
    }
    conf
}

/// GC frees what belongs to no valid attachment of the network.
pub fn gc_keeps_the_valid(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let (valid, dead) = (host.pod("valid"), host.pod("dead"));
    let second = for_another(conf);
    let kept = host.add(conf, &valid).ok();
    host.add(&second, &dead).ok();
    host.sh("ip netns del dead");
    host.gc(conf, &[("valid", "eth0")]).ok();
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
    host.check(conf, &kept, &valid).ok();
    host.gc(conf, &[]).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    Call::new(&host, "GC", conf).run().fails(7, &["cni.dev/valid-attachments"]);
}

/// STATUS, and ADD as well, tell of a kind of link that the kernel does not know, as iproute2 sees it; and there
/// is always one such kernel among those that the tests run on.
#[test]
fn a_kind_that_the_kernel_does_not_know_is_told_of() {
    for kind in ["macvlan", "ipvlan", "vlan", "dummy", "ptp", "bridge"] {
        let host = Host::new();
        segment(&host, "up0");
        let pod = host.pod("a");
        let mut conf = conf(kind, &json!({"vlanId": 7, "ipam": ipv4()}));
        let link = match kind {
            "dummy" | "bridge" => format!("type {kind}"),
            "ptp" => "type veth".to_owned(),
            "vlan" => "link up0 type vlan id 7".to_owned(),
            _ => format!("link up0 type {kind}"),
        };
        let add = format!("ip link add probe {link} 2>&1 || true; ip link del probe 2>&1 || true");
        let is_known = !host.sh(&add).contains("Unknown device type");
        eprintln!("{kind}: {is_known}");
        conf["bridge"] = json!("br0");
        let before = host.snapshot();
        if is_known {
            host.status(&conf).ok();
            host.add(&conf, &pod).ok();
            host.del(&conf, &pod).ok();
            continue;
        }
        let words = [kind, "EOPNOTSUPP", "the kernel has no support for this kind of link"];
        host.status(&conf).fails(50, &words);
        fails_without_a_trace(&host, &conf, &pod, 999, &words);
        assert_eq!(host.snapshot(), before, "{kind}");
        assert_eq!(host.leases("net"), [] as [&str; 0], "{kind}");
    }
}

/// STATUS of a plugin with a master.
pub fn status_tells_of_the_master(conf: &Value) {
    let host = Host::new();
    host.status(conf).fails(50, &["master", "up0", "on the host"]);
    segment(&host, "up0");
    let before = host.snapshot();
    host.status(conf).ok();
    assert_eq!(host.status(conf).stdout, "");
    assert_eq!(host.snapshot(), before, "it makes nothing");
    host.sh("ip link set up0 down");
    host.status(conf).fails(50, &["master", "up0", "is down"]);
    host.sh("ip link set up0 up");
    let mut large = conf.clone();
    large["mtu"] = json!(1501);
    host.status(&large).fails(7, &["mtu", "1500", "up0", "1501"]);
    let mut full = conf.clone();
    full["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/30"}]]});
    let pod = host.pod("a");
    host.add(&full, &pod).ok();
    host.status(&full).fails(50, &["no IP addresses available"]);
    let mut in_container = conf.clone();
    in_container["linkInContainer"] = json!(true);
    in_container["master"] = json!("elsewhere");
    host.status(&in_container).ok();
}

/// `master` and `mtu`, which all with a master have.
pub fn master_and_mtu_are_bounded(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let with = |key: &str, value: Value| {
        let mut conf = conf.clone();
        conf[key] = value;
        conf
    };
    let pod = host.pod("a");
    for (mtu, expected) in
        [(json!(null), 1500), (json!(0), 1500), (json!(1500), 1500), (json!(1280), 1280)]
    {
        let conf = with("mtu", mtu.clone());
        let result = host.add(&conf, &pod).ok();
        assert_eq!(pod.ip("link show dev eth0")[0]["mtu"], expected, "{mtu}");
        assert_eq!(result["interfaces"][0]["mtu"], expected, "{mtu}");
        host.del(&conf, &pod).ok();
    }
    for mtu in [json!(1501), json!(65535), json!(67), json!(-1), json!(65536)] {
        let words = ["mtu", &mtu.to_string()];
        fails_without_a_trace(&host, &with("mtu", mtu.clone()), &pod, 7, &words);
    }
    let words = ["mtu", "at most 1500", "up0", "got 1501"];
    fails_without_a_trace(&host, &with("mtu", json!(1501)), &pod, 7, &words);
    fails_without_a_trace(&host, &with("mtu", json!("1500")), &pod, 6, &["mtu"]);

    let words = ["master", "nosuch", "on the host"];
    fails_without_a_trace(&host, &with("master", json!("nosuch")), &pod, 999, &words);
    for name in ["sixteen-bytes-xx", "a/b", ".", "a b"] {
        let words = ["master", name];
        fails_without_a_trace(&host, &with("master", json!(name)), &pod, 7, &words);
    }
    fails_without_a_trace(&host, &with("master", json!(5)), &pod, 6, &["master"]);
    fails_without_a_trace(
        &host,
        &with("linkInContainer", json!("yes")),
        &pod,
        6,
        &["linkInContainer"],
    );
}

/// In rising order of precedence: the configuration, `CNI_ARGS`, `args.cni`, `runtimeConfig`. Else the kernel
/// draws one, another each time: it must not come twice on a segment of many hosts.
pub fn the_address_is_asked_for_in_four_places(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    let with = |keys: &Value| with(conf.clone(), keys);
    let address = || pod.ip("link show dev eth0")[0]["address"].clone();
    let of = |last: u8| format!("02:00:00:00:00:0{last}");
    let keys = [
        json!({"mac": of(1)}),
        json!({"mac": of(1), "args": {"cni": {}}}),
        json!({"mac": of(1), "args": {"cni": {"mac": of(3)}}}),
        json!({"mac": of(1), "args": {"cni": {"mac": of(3)}}, "runtimeConfig": {"mac": of(4)}}),
    ];
    for (at, expected) in [1, 2, 3, 4].into_iter().enumerate() {
        let conf = with(&keys[at]);
        let mut call = Call::new(&host, "ADD", &conf).of(&pod);
        if at > 0 {
            call = call.env("CNI_ARGS", &format!("IgnoreUnknown=1;K8S_POD_NAME=x;MAC={}", of(2)));
        }
        let result = call.run().ok();
        assert_eq!(address(), of(expected), "{conf:#}");
        assert_eq!(result["interfaces"][0]["mac"], of(expected));
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
    }
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let result = host.add(conf, &pod).ok();
        assert_eq!(address(), result["interfaces"][0]["mac"]);
        drawn.push(result["interfaces"][0]["mac"].clone());
        host.del(conf, &pod).ok();
    }
    assert_ne!(drawn[0], drawn[1]);
    for mac in ["02:00:00:00:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "x"] {
        fails_without_a_trace(&host, &with(&json!({"mac": mac})), &pod, 7, &["mac", mac]);
    }
    let args = |text: &str| Call::new(&host, "ADD", conf).of(&pod).env("CNI_ARGS", text).run();
    args("MAC=01:00:00:00:00:01").fails(4, &["MAC", "01:00:00:00:00:01"]);
    args("X=1").fails(4, &["X=1", "IgnoreUnknown"]);
    assert_bare(&pod);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

/// Name resolution is the network's own, or else that of address management.
pub fn name_resolution_is_told(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    host.scripted_ipam(&json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "of-ipam"}],
        "ips": [{"address": "10.1.9.9/16", "interface": 0}],
        "dns": {"nameservers": ["192.0.2.53"], "domain": "of.ipam"},
    }));
    let pod = host.pod("a");
    let own = json!({"nameservers": ["192.0.2.1"], "search": ["a", "b"]});
    for (dns, expected) in [
        (json!(null), json!({"nameservers": ["192.0.2.53"], "domain": "of.ipam"})),
        (own.clone(), own),
    ] {
        let mut conf = conf.clone();
        conf["ipam"] = json!({"type": "scripted"});
        conf["dns"] = dns;
        let result = host.add(&conf, &pod).ok();
        assert_eq!(result["dns"], expected);
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 1, "{result:#}");
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        host.del(&conf, &pod).ok();
    }
}

/// Without `master` it is the link of the default route, of IPv4 first.
pub fn the_master_is_the_default_routes(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    host.sh("ip link add up6 type veth peer name peer6; ip link set peer6 up; ip link set up6 up
             ip addr add fd06::1/64 dev up6 nodad");
    let pod = host.pod("a");
    let mut conf = conf.clone();
    conf.as_object_mut().unwrap().remove("master");
    let words = ["master", "no default route on the host"];
    fails_without_a_trace(&host, &conf, &pod, 999, &words);
    let index = |name: &str| host.ip(&format!("link show dev {name}"))[0]["ifindex"].clone();
    for (script, expected) in [
        ("ip -6 route add default via fd06::9", "up6"),
        ("ip route add default via 10.1.0.200", "up0"),
    ] {
        host.sh(script);
        let result = host.add(&conf, &pod).ok();
        assert_eq!(pod.ip("link show dev eth0")[0]["link_index"], index(expected), "{script}");
        // Where the default route leads later on is no fault of the attachment's.
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
    }
}

/// `linkInContainer`: the master is in the container, where the host's of the same name is not meant.
pub fn the_master_can_be_in_the_container(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let (pod, peer) = (host.pod("a"), host.pod("b"));
    let mut conf = conf.clone();
    conf["linkInContainer"] = json!(true);
    fails_without_a_trace(&host, &conf, &pod, 999, &["master", "up0", "in the container"]);
    pod.sh("ip link add up0 type veth peer name up0 netns b; ip link set up0 up");
    peer.sh("ip link set up0 up; ip link set lo up");
    let result = host.add(&conf, &pod).ok();
    let link = pod.ip("link show dev eth0")[0].clone();
    assert_eq!(link["link"], "up0", "{link:#}");
    host.check(&conf, &result, &pod).ok();
    let other = host.add(&conf, &peer).ok();
    let address = other["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    pod.must_reach(address);
    // Another of the same name on the host is another.
    let mut on_host = conf.clone();
    on_host["linkInContainer"] = json!(false);
    host.check(&on_host, &result, &pod).fails(999, &["not on master", "on the host"]);
    for pod in [&pod, &peer] {
        host.del(&conf, pod).ok();
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 2, "its master stays");
    }
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    conf["master"] = json!("eth0");
    fails_without_a_trace(&host, &conf, &pod, 7, &["master", "CNI_IFNAME", "linkInContainer"]);
    // By default it is the one of the container's default route.
    conf.as_object_mut().unwrap().remove("master");
    if conf["type"] == "vlan" {
        return;
    }
    fails_without_a_trace(&host, &conf, &pod, 999, &["no default route in the container"]);
    pod.sh("ip route add default dev up0");
    host.add(&conf, &pod).ok();
    assert_eq!(pod.ip("link show dev eth0")[0]["link"], "up0");
    host.del(&conf, &pod).ok();
}

/// Neighbours on the segment are asked for an IPv6 address before it is used; if one has it, all is undone.
pub fn neighbours_are_asked_for_ipv6_addresses(conf: &Value) {
    let host = Host::new();
    let neighbour = segment(&host, "up0");
    neighbour.sh("ip addr add fd01::3/64 dev eth0 nodad");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mut conf = conf.clone();
    conf["ipam"] = dual();
    let result = host.add(&conf, &a).ok();
    let found = a.ip("-6 addr show dev eth0")[0]["addr_info"].clone();
    let ours = found.as_array().unwrap().iter().find(|address| address["local"] == "fd01::2");
    assert!(ours.is_some_and(|address| address.get("tentative").is_none()), "{found:#}");
    for name in [
        "ipv6/conf/eth0/ndisc_notify",
        "ipv6/conf/eth0/keep_addr_on_down",
        "ipv4/conf/eth0/arp_notify",
    ] {
        assert_eq!(a.sysctl(name), "1", "{name}");
    }
    host.check(&conf, &result, &a).ok();
    a.must_reach("fd01::200");
    fails_without_a_trace(&host, &conf, &b, 999, &["fd01::3", "in use by a neighbour"]);

    // Without a carrier there is nobody to ask, and nothing to wait for.
    neighbour.sh("ip link set eth0 down");
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let waits = ["strace", "-f", "-qq", "-o", path, "-e", "trace=poll,ppoll"];
    Call::new(&host, "ADD", &conf).of(&b).under(&waits).run().ok();
    assert_eq!(waits_in(path), [] as [&str; 0], "nothing is waited for");
}

/// The calls of a trace in which something was waited for. Whether the standard descriptors are open is asked
/// without that.
pub fn waits_in(trace: &str) -> Vec<String> {
    let trace = std::fs::read_to_string(trace).unwrap();
    trace.lines().filter(|call| !call.contains("], 3, 0)")).map(str::to_owned).collect()
}

/// ADD and DEL make the system calls that those of macvlan make, which are in docs/budget.md.
pub fn costs_what_macvlan_does(conf: &Value) {
    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    let calls = |kind: &str, command: &str| {
        let mut conf = conf.clone();
        conf["type"] = json!(kind);
        let trace = tempfile::NamedTempFile::new().unwrap();
        let path = trace.path().to_str().unwrap();
        let call = Call::new(&host, command, &conf).of(&pod);
        call.under(&["strace", "-f", "-qq", "-o", path]).run().ok();
        let trace = std::fs::read_to_string(path).unwrap();
        let name =
            |line: &str| line.split_once(' ')?.1.trim().split_once('(').map(|c| c.0.to_owned());
        // How often the allocator asks for more, and where in its table an index finds a place, is chance.
        let chance = |name: &String| matches!(name.as_str(), "brk" | "mmap" | "munmap" | "pread64");
        trace.lines().filter_map(name).filter(|name| !chance(name)).collect::<Vec<_>>()
    };
    let life = |kind: &str| ["ADD", "DEL"].map(|command| calls(kind, command));
    // The first makes the lease directory.
    life("macvlan");
    let expected = life("macvlan");
    let found = life(conf["type"].as_str().unwrap());
    if conf["type"] == "dummy" {
        // It does not look for a master.
        let count =
            |calls: &[String], name: &str| calls.iter().filter(|call| *call == name).count();
        assert_eq!(count(&found[0], "sendto") + 1, count(&expected[0], "sendto"));
        assert_eq!(found[0].len() + 2, expected[0].len(), "{found:#?}");
        assert_eq!(found[1], expected[1]);
    } else {
        assert_eq!(found, expected);
    }
}
