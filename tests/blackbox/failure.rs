//! All or nothing: an ADD that fails, wherever it does, leaves the host as it was; a DEL goes on and
//! can be repeated; STATUS tells beforehand, GC afterwards.

use serde_json::{Value, json};

use crate::harness::{Call, Host, Outcome, bridge_conf, dual, fails_without_a_trace, ipv4};

/// Three kinds of rules, leases of two families, a gateway.
fn everything() -> Value {
    bridge_conf(&json!({
        "isDefaultGateway": true,
        "ipMasq": true,
        "macspoofchk": true,
        "portIsolation": true,
        "ipam": dual(),
    }))
}

/// As much of plugin ptp.
fn routed() -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipMasq": true, "ipam": dual()})
}

fn scripted(keys: &Value) -> Value {
    let mut conf = bridge_conf(keys);
    conf["ipam"] = json!({"type": "scripted"});
    conf
}

#[test]
fn an_address_management_that_fails_late_is_told_to_take_it_back() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = scripted(&json!({"isGateway": true, "ipMasq": true}));
    let log = |host: &Host| host.read("/run/scripted.log").replace('\n', " ");
    // No result at all; one of another version; one without addresses; one that is malformed.
    for (result, code, words) in [
        (json!("nonsense"), 6, ["result", "object"]),
        (json!({"cniVersion": "9.0.0"}), 1, ["incompatible", "9.0.0"]),
        (json!({"cniVersion": "1.1.0", "ips": []}), 999, ["no addresses", "IPAM"]),
        (
            json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0"}]}),
            7,
            ["ips[0].address", "10.1.0"],
        ),
    ] {
        host.scripted_ipam(&result);
        host.sh("rm -f /run/scripted.log");
        let before = host.snapshot();
        host.add(&conf, &pod).fails(code, &words);
        assert_eq!(host.snapshot(), before, "{result}");
        assert_eq!(log(&host), "ADD DEL ", "{result}");
    }
    // The plugin's own error passes through; what it has done is its own affair.
    let script = "#!/bin/sh\necho $CNI_COMMAND >> /run/scripted.log\n[ $CNI_COMMAND != ADD ] || \
                  { echo '{\"code\": 111, \"msg\": \"no more\", \"details\": \"at all\"}'; exit 1; }\n";
    host.write("/run/cni/bin/scripted", script);
    fails_without_a_trace(&host, &conf, &pod, 111, &["no more", "at all"]);
    let unknown = bridge_conf(&json!({"ipam": {"type": "unknown"}}));
    let before = host.snapshot();
    host.add(&unknown, &pod).fails(7, &["unknown", "/run/cni/bin"]);
    assert_eq!(host.snapshot(), before);
}

#[test]
fn what_the_kernel_refuses_in_the_container_undoes_all() {
    let host = Host::new();
    let other = host.pod("other");
    let others = bridge_conf(&json!({"name": "others", "isDefaultGateway": true, "ipMasq": true,
        "macspoofchk": true, "ipam": ipv4()}));
    let keys = json!({"isGateway": true, "ipMasq": true, "macspoofchk": true});
    let ips = json!([{"address": "10.1.9.9/16", "gateway": "10.1.0.1"}]);
    let with_route = |route: Value| json!({"cniVersion": "1.1.0", "ips": ips, "routes": [route]});
    let with_ip = |ip: Value| json!({"cniVersion": "1.1.0", "ips": [ips[0], ip]});
    let cases = [
        (
            with_route(json!({"dst": "192.0.2.0/24", "gw": "172.31.0.1"})),
            ["192.0.2.0/24", "172.31.0.1"],
        ),
        (with_ip(json!({"address": "ff02::5/64"})), ["add address ff02::5/64", "cannot"]),
    ];
    // First with the bridge to be made, then with one that another's attachment is on.
    for round in ["new bridge", "bridge in use"] {
        for (number, (result, words)) in cases.iter().enumerate() {
            host.scripted_ipam(result);
            let pod = host.pod(&format!("pod{number}-{}", round.len()));
            fails_without_a_trace(&host, &scripted(&keys), &pod, 999, words);
        }
        let result = host.add(&others, &other);
        if round == "new bridge" {
            result.ok();
        }
    }
    other.must_reach("10.1.0.1");
}

/// IPv6 needs an MTU of 1280.
#[test]
fn an_mtu_that_is_too_small_for_the_addresses_undoes_all() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf =
        bridge_conf(&json!({"mtu": 1000, "isGateway": true, "ipMasq": true, "ipam": dual()}));
    fails_without_a_trace(&host, &conf, &pod, 7, &["mtu", "1280", "got 1000"]);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    let conf =
        bridge_conf(&json!({"mtu": 1000, "isGateway": true, "ipMasq": true, "ipam": ipv4()}));
    host.add(&conf, &pod).ok();
    pod.must_reach("10.1.0.1");
}

#[test]
fn a_container_interface_that_exists_is_left_alone_and_no_bridge_made() {
    let host = Host::new();
    let pod = host.pod("a");
    pod.sh("ip link add eth0 type veth peer name peer0; ip addr add 198.51.100.1/24 dev eth0");
    for conf in [everything(), bridge_conf(&json!({}))] {
        let before = host.snapshot();
        host.add(&conf, &pod).fails(999, &["eth0", "already exists"]);
        assert_eq!(host.snapshot(), before);
        assert_eq!(pod.addresses("eth0"), ["198.51.100.1/24"]);
    }
    // With the bridge there already it is the kernel that says so.
    let other = host.pod("other");
    host.add(&everything(), &other).ok();
    let before = host.snapshot();
    host.add(&everything(), &pod).fails(999, &["eth0", "already exists"]);
    assert_eq!(host.snapshot(), before);
    assert_eq!(pod.addresses("eth0"), ["198.51.100.1/24"]);
}

/// Routes that the pod has already through another interface stand beside ours, as in the reference.
#[test]
fn a_default_route_through_another_interface_is_no_conflict() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut second = everything();
    second["name"] = json!("second");
    second["bridge"] = json!("br2");
    second["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/16"}], [{"subnet": "fd02::/64"}]]);
    host.add(&everything(), &pod).ok();
    let call = Call::new(&host, "ADD", &second).of(&pod).env("CNI_IFNAME", "net1");
    let result = call.run().ok();
    second["prevResult"] = result;
    Call::new(&host, "CHECK", &second).of(&pod).env("CNI_IFNAME", "net1").run().ok();
    let routes = pod.sh("ip route show default; ip -6 route show default");
    for gateway in ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1"] {
        assert!(routes.contains(gateway), "{gateway} in {routes}");
    }
}

/// The bridge is that of another network, whose pods need its address.
#[test]
fn a_gateway_that_was_to_be_replaced_comes_back() {
    let host = Host::new();
    let other = host.pod("other");
    let others = bridge_conf(&json!({"name": "others", "isDefaultGateway": true, "ipam": dual()}));
    host.add(&others, &other).ok();
    host.scripted_ipam(&json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.9.0.9/24", "gateway": "10.9.0.1"}],
    }));
    let pod = host.pod("a");
    let refused = scripted(&json!({"isGateway": true}));
    let words = ["br0", "already has an IP address different from", "10.1.0.1/16"];
    fails_without_a_trace(&host, &refused, &pod, 999, &words);
    // The address is replaced first, then a rule is refused.
    host.sh("nft add table inet plumb; nft add set inet plumb masq4_24 '{ type inet_service; }'");
    let forced = scripted(&json!({"isGateway": true, "forceAddress": true, "ipMasq": true}));
    fails_without_a_trace(&host, &forced, &pod, 999, &["masq4_24"]);
    other.must_reach("10.1.0.1");
    other.must_reach("fd01::1");
}

/// All but the last step is done: the host's settings are read-only. What is right already need not be
/// written.
#[test]
fn settings_that_cannot_be_written_undo_all() {
    let host = Host::new();
    host.sh(
        "ip link add br0 type bridge; ip link set br0 up; echo 0 > /proc/sys/net/ipv4/ip_forward
             mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
    );
    let pod = host.pod("a");
    let keys = json!({"isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": ipv4()});
    let conf = bridge_conf(&keys);
    fails_without_a_trace(&host, &conf, &pod, 999, &["sysctl ipv4/ip_forward"]);
    host.sh("umount /proc/sys; echo 1 > /proc/sys/net/ipv4/ip_forward
             mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys");
    let result = host.add(&conf, &pod).ok();
    host.check(&conf, &result, &pod).ok();
}

#[test]
fn a_namespace_that_is_missing_is_noticed_before_anything_is_done() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    for path in ["/run/netns/none", "/run", "/proc/self/ns/mnt"] {
        let call = Call::new(&host, "ADD", &everything()).of(&pod).env("CNI_NETNS", path);
        call.run().fails(8, &[path]);
        assert_eq!(host.snapshot(), before, "{path}");
        assert_eq!(host.leases("net"), [] as [&str; 0]);
    }
}

/// Runtimes that find no IPv6 on the machine switch it off in the pod. Who has an IPv6 address gets it
/// back, on the loopback interface, too.
#[test]
fn plugins_59_ipv6_is_switched_on_where_it_is_off() {
    let host = Host::new();
    let pods = host.pods(3);
    let off =
        "for name in all default lo; do echo 1 > /proc/sys/net/ipv6/conf/$name/disable_ipv6; done";
    pods.iter().for_each(|pod| drop(pod.sh(&format!("ip link set lo up; {off}"))));
    let conf = everything();
    let result = host.add(&conf, &pods[0]).ok();
    assert_eq!(pods[0].addresses("eth0"), ["10.1.0.2/16", "fd01::2/64"]);
    for name in ["lo", "eth0"] {
        assert_eq!(pods[0].sysctl(&format!("ipv6/conf/{name}/disable_ipv6")), "0", "{name}");
    }
    host.check(&conf, &result, &pods[0]).ok();
    pods[0].must_reach("fd01::1");
    pods[0].must_reach("::1");
    host.del(&conf, &pods[0]).ok();
    // With lo alone off the container would not reach itself.
    pods[0].sh("echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6
                echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
    host.add(&conf, &pods[0]).ok();
    pods[0].must_reach("::1");
    // Without IPv6 addresses nothing is switched on.
    let conf = bridge_conf(&json!({"name": "v4", "bridge": "br4", "ipam": ipv4()}));
    host.add(&conf, &pods[1]).ok();
    assert_eq!(pods[1].sysctl("ipv6/conf/eth0/disable_ipv6"), "1");

    // On the host it is the administrator's to decide.
    host.sh("ip link del br0; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    host.del(&everything(), &pods[0]).ok();
    let words = ["fd01::1/64", "IPv6", "disable_ipv6"];
    fails_without_a_trace(&host, &everything(), &pods[2], 999, &words);
}

#[test]
fn rules_that_the_kernel_refuses_undo_all() {
    let host = Host::new();
    let pod = host.pod("a");
    // Sets of these names that are not as ours are.
    for (table, set, kind) in [("inet", "masq6_64", "inet_service"), ("bridge", "genuine", "mark")]
    {
        host.sh(&format!(
            "nft add table {table} plumb; nft add set {table} plumb {set} '{{ type {kind}; }}'
             [ {table} = inet ] || nft add set bridge plumb guarded '{{ type ifname; }}'"
        ));
        fails_without_a_trace(&host, &everything(), &pod, 999, &[set]);
        host.sh(&format!("nft delete table {table} plumb"));
    }
    host.add(&everything(), &pod).ok();
}

// Failure injection: the n-th system call of a kind fails, for every n. What bridge, ptp and macvlan do with
// host-local is walked in `faults`.

/// Runs a call whose `when`-th system call of this name fails for want of memory. Tells also whether it
/// came to that.
pub fn injected(call: &Call<'_>, syscall: &str, when: &str) -> (Outcome, bool) {
    injected_error(call, syscall, "ENOMEM", when)
}

fn injected_error(call: &Call<'_>, syscall: &str, errno: &str, when: &str) -> (Outcome, bool) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let trace = format!("trace={syscall}");
    let inject = format!("inject={syscall}:error={errno}:when={when}");
    let words = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", path, "-e", &trace, "-e", &inject];
    let outcome = call.clone().under(&words).run();
    (outcome, std::fs::read_to_string(path).unwrap().contains("(INJECTED)"))
}

/// Calls `each` with every position of this system call in turn, until one is no longer reached.
pub fn walk(syscall: &str, mut each: impl FnMut(&str) -> bool) {
    let reached = (1..).take_while(|n| each(&n.to_string())).count();
    assert!(reached < 100, "{syscall}");
}

pub const CONVERSATIONS: [&str; 7] =
    ["socket", "setsockopt", "getsockopt", "sendto", "recvmsg", "ioctl", "setns"];
pub const CONTENTS: [&str; 7] =
    ["read", "write", "pread64", "pwrite64", "unlinkat", "utimensat", "ftruncate"];

/// The first ADD of a host, which makes everything.
fn first_add_under_failures(conf: &Value, syscalls: &[&str]) {
    let host = Host::new();
    let clean = |host: &Host| {
        host.sh("ip link del br0 2>/dev/null || true; nft flush ruleset; rm -rf /var/lib/cni");
    };
    let pod = host.pod("a");
    let before = host.snapshot();
    let call = Call::new(&host, "ADD", conf).of(&pod);
    for syscall in syscalls {
        walk(syscall, |n| {
            let (outcome, reached) = injected(&call, syscall, n);
            let case = format!("{syscall} {n}: {}", outcome.stdout);
            if outcome.status.success() {
                host.check(conf, &outcome.ok(), &pod).ok();
            } else {
                outcome.error();
                eprintln!("{case}");
                // Who can't tell the result does a DEL; who can't come back from the container can't
                // undo, but a DEL does.
                if case.contains("print the result") {
                    host.snapshot().assert_nothing_but_shared(&before, "br0");
                } else if !case.contains("cannot return to the host") {
                    host.snapshot().assert_same_but_for_rules(&before);
                }
            }
            host.del(conf, &pod).ok();
            eprintln!("{case}");
            host.snapshot().assert_nothing_but_shared(&before, "br0");
            clean(&host);
            reached
        });
    }
}

#[test]
fn a_first_add_of_ptp_with_static_addresses_is_undone_whatever_fails() {
    let mut conf = routed();
    conf["ipam"] = json!({"type": "static", "addresses": [
        {"address": "10.1.0.5/16", "gateway": "10.1.0.1"}, {"address": "fd01::5/64"},
    ]});
    first_add_under_failures(&conf, &["socket", "sendto", "recvmsg", "setns", "write"]);
}

/// An ADD beside others' attachments, to the same network and to another, which stay as they are.
#[test]
fn a_later_add_is_undone_and_others_are_not_touched() {
    let host = Host::new();
    let conf = everything();
    let mut another = conf.clone();
    another["name"] = json!("another");
    another["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/16", "rangeStart": "10.1.9.0"}],
                                       [{"subnet": "fd01::/64", "rangeStart": "fd01::9:0"}]]);
    let (other, stranger) = (host.pod("other"), host.pod("stranger"));
    let others = host.add(&conf, &other).ok();
    let strangers = host.add(&another, &stranger).ok();
    let pod = host.pod("a");
    let before = host.snapshot();
    let call = Call::new(&host, "ADD", &conf).of(&pod);
    for syscall in CONVERSATIONS.iter().chain(&CONTENTS) {
        walk(syscall, |n| {
            let (outcome, reached) = injected(&call, syscall, n);
            eprintln!("{syscall} {n}: {}", outcome.stdout);
            if outcome.status.success() {
                host.check(&conf, &outcome.ok(), &pod).ok();
            } else {
                outcome.error();
                if !outcome.stdout.contains("cannot return to the host") {
                    host.snapshot().assert_same_but_for_rules(&before);
                }
            }
            host.del(&conf, &pod).ok();
            host.snapshot().assert_same_but_for_rules(&before);
            reached
        });
    }
    host.check(&conf, &others, &other).ok();
    host.check(&another, &strangers, &stranger).ok();
}

/// From some moment on everything fails, what would undo the rest as well. Then it is for DEL to do.
#[test]
fn what_an_add_could_not_undo_goes_with_del() {
    let host = Host::new();
    let conf = everything();
    let other = host.pod("other");
    let others = host.add(&conf, &other).ok();
    let pod = host.pod("a");
    let before = host.snapshot();
    let call = Call::new(&host, "ADD", &conf).of(&pod);
    for syscall in ["socket", "sendto", "recvmsg", "openat", "unlinkat", "write"] {
        walk(syscall, |n| {
            let (outcome, reached) = injected(&call, syscall, &format!("{n}+"));
            eprintln!("{syscall} {n}+: {}", outcome.stdout);
            // An error that can't be written can't be told.
            if !outcome.status.success() && syscall != "write" {
                outcome.error();
            }
            host.del(&conf, &pod).ok();
            host.snapshot().assert_same_but_for_rules(&before);
            reached
        });
    }
    host.check(&conf, &others, &other).ok();
}

/// The sockets of nf_tables are refused, as by a kernel without.
#[test]
fn a_kernel_without_packet_rules_keeps_no_lease() {
    let host = Host::new();
    let pod = host.pod("a");
    let plain = bridge_conf(&json!({"isGateway": true, "ipam": ipv4()}));
    let before = host.snapshot();
    for key in ["ipMasq", "macspoofchk"] {
        let mut conf = plain.clone();
        conf[key] = json!(true);
        let call = Call::new(&host, "ADD", &conf).of(&pod);
        let mut refused = 0;
        walk("socket", |n| {
            let (outcome, reached) = injected_error(&call, "socket", "EPROTONOSUPPORT", n);
            if outcome.stdout.contains("nf_tables") {
                outcome.fails(999, &["nf_tables", "the kernel has no support for it"]);
                host.snapshot().assert_same_but_for_rules(&before);
                refused += 1;
            }
            host.del(&conf, &pod).ok();
            host.sh("ip link del br0 2>/dev/null || true");
            reached
        });
        assert_eq!(refused, 1, "{key}");

        // Added before the key was set, say.
        let call = Call::new(&host, "DEL", &conf).of(&pod);
        let mut tolerated = 0;
        walk("socket", |n| {
            host.add(&plain, &pod).ok();
            let (outcome, reached) = injected_error(&call, "socket", "EPROTONOSUPPORT", n);
            if outcome.status.success() {
                host.snapshot().assert_nothing_but_shared(&before, "br0");
                assert_eq!(host.leases("net"), [] as [&str; 0], "{key} {n}");
                tolerated += usize::from(reached);
            }
            host.del(&conf, &pod).ok();
            reached
        });
        // And the one that is asked for our own namespace, in whose place /proc is.
        assert_eq!(tolerated, 2, "{key}");
        host.sh("ip link del br0");
    }
}

#[test]
fn a_del_that_fails_from_some_moment_on_is_made_up_for_by_the_next() {
    let conf = &everything();
    let host = Host::new();
    let other = host.pod("other");
    let others = host.add(conf, &other).ok();
    // The kernel makes the route to an IPv6 address of its own a little later than the address.
    other.must_reach("fd01::1");
    let pod = host.pod("a");
    let before = host.snapshot();
    let call = Call::new(&host, "DEL", conf).of(&pod);
    for syscall in ["sendto", "recvmsg", "unlinkat", "pwrite64", "write"] {
        walk(syscall, |n| {
            host.add(conf, &pod).ok();
            let (outcome, reached) = injected(&call, syscall, &format!("{n}+"));
            eprintln!("{syscall} {n}+: {}", outcome.stdout);
            let left = host.snapshot().since(&before);
            if outcome.status.success() {
                assert_eq!(left, [] as [&str; 0], "{syscall} {n}: told that all is gone");
            } else if syscall != "write" {
                outcome.error();
            }
            host.del(conf, &pod).ok();
            host.snapshot().assert_same_but_for_rules(&before);
            assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1);
            reached
        });
    }
    host.check(conf, &others, &other).ok();
}

/// Nothing of it is on the host; a namespace that can't be entered is left as it is.
#[test]
fn a_loopback_interface_is_up_or_an_error_is_told() {
    let host = Host::new();
    let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "loopback"});
    let before = host.snapshot();
    for command in ["ADD", "DEL"] {
        for syscall in ["socket", "sendto", "recvmsg", "setns", "openat", "ioctl", "statx", "read"]
        {
            walk(syscall, |n| {
                let pod = host.pod(&format!("{command}-{syscall}-{n}"));
                if command == "DEL" {
                    host.add(&conf, &pod).ok();
                }
                let call = Call::new(&host, command, &conf).of(&pod);
                let (outcome, reached) = injected(&call, syscall, n);
                if outcome.status.success() {
                    let flags = pod.ip("link show dev lo")[0]["flags"].clone();
                    let is_up = flags.as_array().unwrap().contains(&json!("UP"));
                    assert_eq!(is_up, command == "ADD", "{command} {syscall} {n}");
                } else {
                    outcome.error();
                }
                assert_eq!(host.snapshot(), before, "{command} {syscall} {n}");
                reached
            });
        }
    }
}

#[test]
fn status_tells_what_would_keep_add_from_working() {
    let host = Host::new();
    let small = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/30"}]]});
    let mut conf = everything();
    conf["ipam"] = small;
    host.status(&conf).ok();
    assert_eq!(host.status(&conf).stdout, "");
    assert_eq!(host.ruleset("table"), [] as [Value; 0], "it makes nothing");
    assert!(!host.sh("ip -br link").contains("br0"));

    let pod = host.pod("a");
    let holding = host.add(&conf, &pod).ok();
    host.status(&conf).fails(50, &["10.1.0.1-10.1.0.2", "no IP addresses available", "1 of 1"]);
    host.check(&conf, &holding, &pod).ok();
    host.del(&conf, &pod).ok();
    host.status(&conf).ok();

    host.sh("ip link del br0; ip link add br0 type veth peer name br1");
    host.status(&conf).fails(50, &["br0", "not a bridge"]);
    host.status(&bridge_conf(&json!({"bridge": "br2"}))).ok();
    let refused = json!({"bridge": "br2", "hairpinMode": true, "promiscMode": true});
    host.status(&bridge_conf(&refused)).fails(7, &["promiscMode"]);
    let unknown = json!({"bridge": "br2", "ipam": {"type": "unknown"}});
    host.status(&bridge_conf(&unknown)).fails(7, &["unknown"]);
    host.scripted_ipam(&json!({}));
    host.status(&scripted(&json!({"bridge": "br2"}))).ok();
    assert_eq!(host.read("/run/scripted.log"), "STATUS\n");
}

/// nobody else's, of this network or of others, and nothing that only looks like it.
#[test]
fn plugins_1289_gc_removes_what_no_valid_attachment_has() {
    let host = Host::new();
    let conf = everything();
    let mut another = conf.clone();
    another["name"] = json!("another");
    another["ipam"]["ranges"] = json!([[{"subnet": "10.2.0.0/16"}], [{"subnet": "fd02::/64"}]]);
    another["bridge"] = json!("br2");
    let (valid, stranger) = (host.pod("valid"), host.pod("stranger"));
    let kept = host.add(&conf, &valid).ok();
    let strangers = host.add(&another, &stranger).ok();
    host.sh("ip link add own0 type veth peer name own1; ip link set own0 alias 'plumb:net'
             ip link set own1 alias 'my plumb:net/x/eth0'
             nft add table inet mine; nft add set inet mine masq4_16 '{ type ipv4_addr; }'
             nft add element inet mine masq4_16 '{ 10.1.0.9 comment \"plumb:net/x/eth0\" }'
             nft add element inet plumb masq4_16 '{ 10.1.0.200 . 10.1.0.0 comment \"mine\" }'
             printf 'x\\r\\neth0' > /var/lib/cni/networks/another/10.2.0.200");
    let before = host.snapshot();

    // Stale ones: as they are, with the namespace gone, of the valid container but another interface.
    let (stale, dead) = (host.pod("stale"), host.pod("dead"));
    host.add(&conf, &stale).ok();
    host.add(&conf, &dead).ok();
    Call::new(&host, "ADD", &conf).of(&valid).env("CNI_IFNAME", "net1").run().ok();
    host.sh("ip netns del dead");
    host.gc(&conf, &[("valid", "eth0"), ("unheard-of", "eth0")]).ok();
    host.snapshot().assert_same_but_for_rules(&before);
    host.check(&conf, &kept, &valid).ok();
    host.check(&another, &strangers, &stranger).ok();
    assert_eq!(stale.ip("link show").as_array().unwrap().len(), 1);
    host.gc(&conf, &[("valid", "eth0")]).ok();
    host.snapshot().assert_same_but_for_rules(&before);

    // No list is not an empty list.
    Call::new(&host, "GC", &conf).run().fails(7, &["cni.dev/valid-attachments"]);
    host.snapshot().assert_same_but_for_rules(&before);
    host.check(&conf, &kept, &valid).ok();
    host.gc(&conf, &[]).ok();
    assert_eq!(valid.ip("link show").as_array().unwrap().len(), 1);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    assert_eq!(host.leases("another"), ["10.2.0.2", "10.2.0.200", "fd02::2"]);
    let ours = |comment: &String| comment.starts_with("plumb:net/");
    let comments = host.element_comments();
    let of_network: Vec<_> = comments.iter().filter(|comment| ours(comment)).collect();
    assert_eq!(of_network, ["plumb:net/x/eth0"], "only the foreign table's");
    host.check(&another, &strangers, &stranger).ok();
}
