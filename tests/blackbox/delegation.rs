//! Address management by other plugins: in process where the plugin is this very binary, by execution
//! where it is not, and all or nothing in either case.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{BIN, Call, Host, PLUMB, Pod, patience};

/// The reference plugins, as Debian packages them.
const REFERENCE: &str = "/usr/lib/cni";

/// A foreign plugin in [`BIN`]: a script that notes how it is called, then runs `body`.
fn script(host: &Host, name: &str, body: &str) {
    let text = format!(
        "#!/bin/sh
         echo \"$CNI_COMMAND\" >> /run/calls
         env | sort > \"/run/env.$CNI_COMMAND\"
         cat > \"/run/stdin.$CNI_COMMAND\"
         ls -l /proc/$$/fd > /run/fds
         {body}\n"
    );
    host.write(format!("{BIN}/{name}"), &text);
    host.sh(&format!("chmod +x {BIN}/{name}; rm -f /run/calls"));
}

/// The commands that the script was called with since the last time that this was asked.
fn calls(host: &Host) -> Vec<String> {
    let text = host.sh("cat /run/calls 2>/dev/null || true; rm -f /run/calls");
    text.lines().map(str::to_owned).collect()
}

/// A network whose addresses come from the plugin `ipam`.
fn conf(ipam: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0",
        "isGateway": true, "ipMasq": true, "ipam": {"type": ipam, "own": {"key": [1, "two"]}},
        "cni.dev/valid-attachments": [],
    })
}

/// What a script that leases one address does on ADD.
const LEASES: &str = r#"[ "$CNI_COMMAND" != ADD ] || echo '{
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "foreign", "mac": "02:00:00:00:00:01"}],
    "ips": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1", "interface": 0}],
    "routes": [{"dst": "192.0.2.0/24"}],
    "dns": {"nameservers": ["10.7.0.53"]}
}'"#;

fn only_loopback(pod: &Pod<'_>) -> bool {
    pod.ip("link show").as_array().unwrap().len() == 1
}

#[test]
fn ipam_that_is_this_very_binary_runs_within_the_process() {
    let host = Host::new();
    let pod = host.pod("a");
    host.sh(&format!(
        "cp {PLUMB} /run/plumb; mkdir /run/hard /run/copy /run/mixed
         ln /run/plumb /run/hard/bridge; ln /run/plumb /run/hard/host-local
         ln /run/plumb /run/mixed/bridge; ln -s ../plumb /run/mixed/host-local
         cp /run/plumb /run/copy/bridge; cp /run/plumb /run/copy/host-local"
    ));
    let mut conf = conf("host-local");
    conf["ipam"] = json!({"type": "host-local", "subnet": "10.7.0.0/24"});
    let all = ["STATUS", "ADD", "CHECK", "DEL", "GC"];
    // A copy is another file, so it is executed; that shows that the count means something.
    for (path, executed) in [(BIN, 1), ("/run/hard", 1), ("/run/mixed", 1), ("/run/copy", 2)] {
        for command in all {
            let call = Call::new(&host, command, &conf).of(&pod).env("CNI_PATH", path);
            let call = call.plugin(&format!("{path}/bridge"));
            let trace = ["strace", "-f", "-o", "/run/trace", "-e", "trace=execve,execveat"];
            let result = call.under(&trace).run().ok();
            if command == "ADD" {
                conf["prevResult"] = result;
            }
            let trace = host.read("/run/trace");
            let count = trace.lines().filter(|line| line.contains("exec")).count();
            assert_eq!(count, executed, "{path} {command}:\n{trace}");
        }
        conf.as_object_mut().unwrap().remove("prevResult");
        assert!(only_loopback(&pod));
        assert_eq!(host.leases("net"), [] as [&str; 0]);
    }
}

#[test]
fn foreign_ipam_gets_all_that_we_got_and_gives_addresses() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    script(&host, "foreign", LEASES);
    let mut conf = conf("foreign");
    let call = |command: &str, conf: &Value| {
        let call = Call::new(&host, command, conf).of(&pod);
        call.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=x").env("TRACEPARENT", "00-1-2-03")
    };
    let result = call("ADD", &conf).run().ok();
    let links = result["interfaces"].as_array().unwrap();
    let names: Vec<_> = links.iter().map(|link| link["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "what interfaces it names is dropped: {result:#}");
    assert_eq!((names[0], names[2]), ("br0", "eth0"));
    let ip = json!({"address": "10.7.0.9/24", "gateway": "10.7.0.1", "interface": 2});
    assert_eq!(result["ips"], json!([ip]));
    assert_eq!(result["routes"], json!([{"dst": "192.0.2.0/24"}]));
    assert_eq!(result["dns"], json!({"nameservers": ["10.7.0.53"]}));
    assert_eq!(pod.addresses("eth0"), ["10.7.0.9/24"]);
    pod.must_reach("10.7.0.1");
    assert_eq!(host.element_comments(), ["plumb:net/a/eth0"]);

    let sent = conf.clone();
    conf["prevResult"] = result;
    for command in ["ADD", "CHECK", "STATUS", "GC", "DEL"] {
        let stdin = if command == "ADD" { &sent } else { &conf };
        if command != "ADD" {
            assert_eq!(call(command, stdin).run().ok(), Value::Null, "{command}");
        }
        assert_eq!(calls(&host), [command]);
        let received: Value =
            serde_json::from_str(&host.read(&format!("/run/stdin.{command}"))).unwrap();
        assert_eq!(received, *stdin, "{command}: the whole configuration");
        let env = host.read(&format!("/run/env.{command}"));
        let env: Vec<_> =
            env.lines().filter(|l| l.starts_with("CNI_") || l.starts_with("TRACE")).collect();
        let expected = [
            "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=x",
            &format!("CNI_COMMAND={command}"),
            "CNI_CONTAINERID=a",
            "CNI_IFNAME=eth0",
            "CNI_NETNS=/run/netns/a",
            "CNI_PATH=/run/cni/bin",
            "TRACEPARENT=00-1-2-03",
        ];
        assert_eq!(env, expected);
        let fds = host.read("/run/fds");
        let strange = |line: &&str| line.contains("socket:") || line.contains("net:[");
        assert_eq!(fds.lines().find(strange), None, "it inherits none of our files:\n{fds}");
        assert_eq!(fds.matches("memfd").count(), 3, "but its three streams:\n{fds}");
    }
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn foreign_ipam_may_answer_in_any_version() {
    let host = Host::new();
    let pod = host.pod("a");
    for (answer, version) in [
        (
            r#"{"ip4":{"ip":"10.7.0.9/24","gateway":"10.7.0.1","routes":[{"dst":"192.0.2.0/24"}]}}"#,
            "0.2.0",
        ),
        (
            r#"{"cniVersion":"0.1.0","ip4":{"ip":"10.7.0.9/24","gateway":"10.7.0.1","routes":[{"dst":"192.0.2.0/24"}]}}"#,
            "1.1.0",
        ),
        (
            r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.7.0.9/24","gateway":"10.7.0.1"}],"routes":[{"dst":"192.0.2.0/24"}],"dns":{}}"#,
            "0.3.0",
        ),
        (
            r#"{"ips":[{"address":"10.7.0.9/24","gateway":"10.7.0.1"}],"routes":[{"dst":"192.0.2.0/24"}],"dns":null}"#,
            "1.0.0",
        ),
    ] {
        script(&host, "foreign", &format!("[ $CNI_COMMAND != ADD ] || echo '{answer}'"));
        let mut conf = conf("foreign");
        conf["cniVersion"] = version.into();
        let result = host.add(&conf, &pod).ok();
        assert_eq!(result["cniVersion"], version, "the answer is in the version asked for");
        assert_eq!(pod.addresses("eth0"), ["10.7.0.9/24"], "{answer}");
        assert!(pod.sh("ip route").contains("192.0.2.0/24 via 10.7.0.1"), "{answer}");
        host.del(&conf, &pod).ok();
    }
}

/// An ADD that fails after the addresses were leased, or may have been, gives them back.
#[test]
fn what_foreign_ipam_gets_wrong() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let path = format!("{BIN}/foreign");
    let add_del = &["ADD", "DEL"][..];
    let cases: [(&str, u64, &[&str], &[&str]); 13] = [
        // Its own error passes, code and all.
        (
            r#"echo '{"cniVersion":"1.0.0","code":111,"msg":"no luck","details":"today"}'; exit 1"#,
            111,
            &["no luck", "today"],
            &["ADD"],
        ),
        (r#"echo '{"code":11,"msg":"later"}'; exit 7"#, 11, &["later"], &["ADD"]),
        ("exit 3", 999, &[&path, "no error message", "exit status: 3"], &["ADD"]),
        ("echo why >&2; exit 3", 999, &[&path, "why"], &["ADD"]),
        ("echo no JSON; echo why >&2; exit 3", 999, &[&path, "why"], &["ADD"]),
        (r#"echo '{"msg":"no code"}'; exit 1"#, 999, &[&path], &["ADD"]),
        ("kill -9 $$", 999, &[&path, "signal: 9"], &["ADD"]),
        // It says that it has done it, and does not say what.
        ("exit 0", 6, &[&path, "result"], add_del),
        ("echo no JSON", 6, &[&path, "result"], add_del),
        ("echo '[]'", 6, &["result", "an object", "[]"], add_del),
        (r#"echo '{"ips":[{"address":5}]}'"#, 6, &["result.ips[0].address", "5"], add_del),
        (r#"echo '{"cniVersion":"7.0.0"}'"#, 1, &["7.0.0"], add_del),
        (r#"echo '{"cniVersion":"1.0.0"}'"#, 999, &["no addresses"], add_del),
    ];
    for (body, code, words, called) in cases {
        script(&host, "foreign", &format!("[ $CNI_COMMAND != ADD ] || {{ {body}; }}"));
        let outcome = host.add(&conf("foreign"), &pod);
        outcome.fails(code, words);
        assert_eq!(outcome.stderr, "", "{body}: complaints of a failure are in the error");
        assert_eq!(calls(&host), called, "{body}");
        assert!(only_loopback(&pod), "{body}");
        host.snapshot().assert_nothing_but_shared(&before, "none");
    }

    // What goes wrong on the way back is told, too.
    let body = r#"[ $CNI_COMMAND = ADD ] || { echo '{"code":5,"msg":"stuck"}'; exit 1; }"#;
    script(&host, "foreign", body);
    host.add(&conf("foreign"), &pod).fails(6, &["has not printed a result", "stuck"]);
}

#[test]
fn complaints_of_a_foreign_ipam_that_succeeds_are_passed_on() {
    let host = Host::new();
    let pod = host.pod("a");
    script(&host, "foreign", &format!("echo \"about $CNI_COMMAND\" >&2\n{LEASES}"));
    let added = host.add(&conf("foreign"), &pod);
    added.ok();
    assert_eq!(added.stderr, "about ADD\n");
    let deleted = host.del(&conf("foreign"), &pod);
    deleted.ok();
    assert_eq!((deleted.stdout.as_str(), deleted.stderr.as_str()), ("", "about DEL\n"));
}

#[test]
fn errors_of_other_verbs_pass_through() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    script(&host, "foreign", LEASES);
    let mut conf = conf("foreign");
    conf["prevResult"] = host.add(&conf, &pod).ok();
    script(&host, "foreign", r#"echo '{"code":50,"msg":"the pool is on fire"}'; exit 1"#);
    for command in ["CHECK", "STATUS", "GC", "DEL"] {
        let outcome = Call::new(&host, command, &conf).of(&pod).run();
        outcome.fails(50, &["the pool is on fire"]);
        assert_eq!(calls(&host), [command]);
    }
    // All else is cleaned up all the same; the runtime has reason to come again.
    assert!(only_loopback(&pod));
    host.snapshot().assert_nothing_but_shared(&before, "br0");
    script(&host, "foreign", "exit 0");
    host.del(&conf, &pod).ok();
    assert_eq!(calls(&host), ["DEL"]);
}

#[test]
fn an_add_that_fails_later_has_the_addresses_released() {
    let host = Host::new();
    let pod = host.pod("a");
    script(&host, "foreign", LEASES);
    host.sh("ip link add br0 up type bridge; ip addr add 10.8.0.1/24 dev br0");
    let before = host.snapshot();
    let msg = "already has an IP address different from 10.7.0.1/24: 10.8.0.1/24";
    let leasing = json!({"type": "host-local", "subnet": "10.7.0.0/24"});
    for ipam in [json!({"type": "foreign"}), leasing] {
        let mut conf = conf("foreign");
        conf["ipam"] = ipam.clone();
        host.add(&conf, &pod).fails(999, &["\"br0\"", msg]);
        assert_eq!(host.snapshot(), before, "{ipam}");
        assert!(only_loopback(&pod));
        if ipam["type"] == "foreign" {
            assert_eq!(calls(&host), ["ADD", "DEL"]);
        }
    }

    // The interface is there already: then nothing is leased that would have to be released.
    pod.sh("ip link add eth0 type bridge");
    host.sh("ip addr flush dev br0");
    let before = host.snapshot();
    host.add(&conf("foreign"), &pod).fails(999, &["\"eth0\"", "exists"]);
    assert_eq!(calls(&host), [] as [&str; 0]);
    assert_eq!(host.snapshot(), before);
    assert_eq!(pod.ip("link show dev eth0")[0]["linkinfo"]["info_kind"], "bridge");
}

/// Debian's host-local, which keeps the same lease files as ours.
#[test]
fn the_reference_host_local_serves_our_bridge() {
    let host = Host::new();
    let before = host.snapshot();
    let pods = host.pods(2);
    let path = format!("{REFERENCE}:{BIN}");
    for version in ["0.1.0", "0.3.1", "0.4.0", "1.0.0"] {
        let mut conf = conf("host-local");
        conf["cniVersion"] = version.into();
        conf["ipam"] = json!({"type": "host-local", "ranges": [
            [{"subnet": "10.7.0.0/24"}], [{"subnet": "fd07::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
        let call = |command: &str, conf: &Value, pod| {
            Call::new(&host, command, conf).of(pod).env("CNI_PATH", &path)
        };
        let results: Vec<_> = pods.iter().map(|pod| call("ADD", &conf, pod).run().ok()).collect();
        assert_eq!(host.leases("net").len(), 4, "{results:#?}");
        assert_eq!(host.element_comments().len(), 4);
        assert!(host.sh("ls -a /var/lib/cni/networks/net").find("plumb").is_none());
        let address = pods[1].addresses("eth0")[0].replace("/24", "");
        pods[0].must_reach(&address);
        pods[0].must_reach("10.7.0.1");
        for (pod, result) in pods.iter().zip(&results) {
            let mut with_previous = conf.clone();
            with_previous["prevResult"] = result.clone();
            if version >= "0.4.0" {
                call("CHECK", &with_previous, pod).run().ok();
            }
        }
        let mut with_previous = conf.clone();
        with_previous["prevResult"] = results[0].clone();
        call("DEL", &with_previous, &pods[0]).run().ok();
        assert_eq!(host.element_comments(), ["plumb:net/pod1/eth0"; 2]);
        // As engines do that keep no results: without, and without the namespace.
        call("DEL", &conf, &pods[1]).env("CNI_NETNS", "").run().ok();
        call("DEL", &conf, &pods[1]).run().ok();
        host.snapshot().assert_nothing_but_shared(&before, "br0");
    }

    // One network's leases are the same to either.
    let mut conf = conf("host-local");
    conf["cniVersion"] = "1.0.0".into();
    conf["ipam"] = json!({"type": "host-local", "subnet": "10.7.0.0/24"});
    let theirs = Call::new(&host, "ADD", &conf).of(&pods[0]).env("CNI_PATH", &path).run().ok();
    let ours = host.add(&conf, &pods[1]).ok();
    assert_ne!(theirs["ips"][0]["address"], ours["ips"][0]["address"]);
    host.del(&conf, &pods[0]).ok();
    Call::new(&host, "DEL", &conf).of(&pods[1]).env("CNI_PATH", &path).run().ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    host.snapshot().assert_nothing_but_shared(&before, "br0");

    // Its errors pass through as they are.
    conf["ipam"]["subnet"] = "10.7.0.0/99".into();
    let outcome = Call::new(&host, "ADD", &conf).of(&pods[0]).env("CNI_PATH", &path).run();
    assert_eq!(outcome.fails(999, &[])["msg"], "invalid CIDR address: 10.7.0.0/99");
}

#[test]
fn the_reference_static_serves_our_bridge() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let path = format!("{BIN}:{REFERENCE}");
    let mut conf = conf("static");
    conf["cniVersion"] = "1.0.0".into();
    conf["macspoofchk"] = true.into();
    conf["ipam"] = json!({"type": "static",
        "addresses": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}, {"address": "fd07::9/64"}],
        "routes": [{"dst": "192.0.2.0/24"}], "dns": {"nameservers": ["10.7.0.53"]}});
    let call = |command: &str, conf: &Value| {
        Call::new(&host, command, conf).of(&pod).env("CNI_PATH", &path)
    };
    for with_previous in [true, false] {
        for netns in [pod.path(), String::new(), "/run/netns/gone".to_owned()] {
            let result = call("ADD", &conf).run().ok();
            assert_eq!(pod.addresses("eth0"), ["10.7.0.9/24", "fd07::9/64"]);
            assert_eq!(result["ips"][1]["gateway"], "fd07::1", "the network's first address");
            assert_eq!(result["dns"], json!({"nameservers": ["10.7.0.53"]}));
            pod.must_reach("10.7.0.1");
            let mut previous = conf.clone();
            previous["prevResult"] = result;
            call("CHECK", &previous).run().ok();
            let masqueraded = |element: &&String| !element.contains(' ');
            let comments = host.element_comments();
            assert_eq!(comments.iter().filter(masqueraded).count(), 3, "{comments:?}");
            let conf = if with_previous { &previous } else { &conf };
            call("DEL", conf).env("CNI_NETNS", &netns).run().ok();
            assert!(only_loopback(&pod));
            host.snapshot().assert_nothing_but_shared(&before, "br0");
        }
    }
}

/// An installer is just writing the plugin's file.
#[test]
fn a_plugin_that_is_being_replaced_is_waited_for() {
    let host = Host::new();
    let pod = host.pod("a");
    host.sh(&format!("cp {PLUMB} /run/plumb; mkdir /run/copy; cp {PLUMB} /run/copy/host-local"));
    let mut conf = conf("host-local");
    conf["ipam"] = json!({"type": "host-local", "subnet": "10.7.0.0/24"});

    let mut writer = host
        .command("sh")
        .args(["-c", "exec 3>> /run/copy/host-local; echo; read done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut ready).unwrap();

    let call = Call::new(&host, "ADD", &conf).of(&pod).env("CNI_PATH", "/run/copy");
    let call = call.under(&["strace", "-f", "-o", "/run/trace", "-e", "trace=execve"]);
    let plugin = call.start();
    let deadline = Instant::now() + patience(Duration::from_secs(20));
    while !host.sh("cat /run/trace 2>/dev/null || true").contains("ETXTBSY") {
        assert!(Instant::now() < deadline, "{}", host.read("/run/trace"));
    }
    writer.stdin.take().unwrap().write_all(b"\n").unwrap();
    writer.wait().unwrap();
    let output = plugin.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}\n{}", host.read("/run/trace"));
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24"]);
}

#[test]
fn the_plugin_is_the_first_file_of_its_name_along_the_path() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    script(&host, "foreign", LEASES);
    host.sh(&format!(
        "mkdir -p /run/first/foreign /run/second; echo no program > /run/second/foreign
         ln -s {PLUMB} /run/second/bridge"
    ));
    let conf = conf("foreign");
    let add = |path: &str| Call::new(&host, "ADD", &conf).of(&pod).env("CNI_PATH", path).run();
    add(&format!("/nowhere::/run/first:{BIN}")).ok();
    host.del(&conf, &pod).ok();
    let path = format!("/run/second:{BIN}");
    add(&path).fails(999, &["execute", "/run/second/foreign", "Permission denied"]);
    add("/nowhere:/run/first").fails(7, &["\"foreign\"", "/nowhere", "/run/first"]);
    host.snapshot().assert_nothing_but_shared(&before, "br0");

    // What can't be found keeps nobody from cleaning up the rest.
    host.add(&conf, &pod).ok();
    let del = Call::new(&host, "DEL", &conf).of(&pod).env("CNI_PATH", "/nowhere").run();
    del.fails(7, &["\"foreign\"", "/nowhere"]);
    assert!(only_loopback(&pod));
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn a_name_that_leads_elsewhere_or_to_no_address_management_is_refused() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    script(&host, "foreign", LEASES);
    host.sh(&format!("cp {BIN}/foreign /run/foreign; mkdir {BIN}/sub; cp {BIN}/foreign {BIN}/sub"));
    for command in ["ADD", "STATUS", "GC"] {
        for name in ["../foreign", "../../foreign", "sub/foreign", "/run/foreign", ".", "..", "/"] {
            let outcome = Call::new(&host, command, &conf(name)).of(&pod).run();
            outcome.fails(7, &["ipam.type", &format!("{name:?}")]);
        }
        let outcome = Call::new(&host, command, &conf("bridge")).of(&pod).run();
        outcome.fails(7, &["ipam.type", "\"bridge\"", "address management"]);
    }
    assert_eq!(calls(&host), [] as [&str; 0]);
    assert!(only_loopback(&pod));
    assert_eq!(host.snapshot(), before);
}

/// A runtime's second try must not cost the live attachment its address.
#[test]
fn a_second_add_has_a_foreign_plugin_release_nothing() {
    let host = Host::new();
    let pod = host.pod("a");
    let address = json!({"address": "10.1.0.7/24"});
    // The same address twice, as well: that is one to be configured.
    host.scripted_ipam(&json!({"cniVersion": "1.0.0", "ips": [address, address]}));
    let conf = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0", "ipMasq": true,
        "ipam": {"type": "scripted"},
    });
    host.add(&conf, &pod).ok();
    host.add(&conf, &pod).fails(999, &["eth0", "already exists"]);
    assert_eq!(host.read("/run/scripted.log"), "ADD\n");
    assert_eq!(host.element_comments(), ["plumb:net/a/eth0"]);
}

/// One that asks the network, as the reference's dhcp does, needs the container's link for it: there, up, and
/// leading to the network, before the address is leased and until it is released.
#[test]
fn foreign_ipam_may_ask_the_network_over_the_containers_link() {
    let host = Host::new();
    let neighbour = host.pod("neighbour");
    host.sh("ip link add up0 type veth peer name eth0 netns neighbour; ip link set up0 up
             ip link add br0 up type bridge; ip link add port type veth peer name bridged netns neighbour
             ip link set port master br0 up");
    neighbour.sh("ip link set eth0 up; ip link set bridged up");
    // What it gets by the link: the neighbour's link-local address answers.
    let reach = || {
        format!(
            "case $CNI_COMMAND in ADD|DEL)
             nsenter --net=$CNI_NETNS sh -c '
                 ip -o link show dev eth0 up | grep -c eth0
                 ip addr add 169.254.7.7/16 dev eth0 2>/dev/null
                 ping -n -q -c 1 -w 5 169.254.7.8 >/dev/null 2>&1 && ip neigh show 169.254.7.8
                 ip addr del 169.254.7.7/16 dev eth0' >> /run/seen 2>&1 ;; esac
             {LEASES}"
        )
    };
    for (plugin, link) in [("bridge", "bridged"), ("macvlan", "eth0")] {
        neighbour.sh(&format!("ip addr flush dev eth0; ip addr flush dev bridged; ip addr add 169.254.7.8/16 dev {link}"));
        script(&host, "foreign", &reach());
        let pod = host.pod(plugin);
        let conf = json!({
            "cniVersion": "1.1.0", "name": "net", "type": plugin, "master": "up0", "bridge": "br0",
            "ipam": {"type": "foreign"},
        });
        host.sh(": > /run/seen");
        let mac = neighbour.ip(&format!("link show dev {link}"))[0]["address"].clone();
        let result = host.add(&conf, &pod).ok();
        assert_eq!(pod.addresses("eth0"), ["10.7.0.9/24"], "{plugin}: {result:#}");
        host.del(&conf, &pod).ok();
        assert!(only_loopback(&pod));
        assert_eq!(calls(&host), ["ADD", "DEL"], "{plugin}");
        let seen = host.read("/run/seen");
        let mac = mac.as_str().unwrap();
        assert_eq!(seen.matches("1\n").count(), 2, "{plugin}: up, twice: {seen}");
        assert_eq!(seen.matches(mac).count(), 2, "{plugin}: {mac} has answered, twice: {seen}");

        // If it fails there is no link left.
        script(
            &host,
            "foreign",
            r#"[ $CNI_COMMAND != ADD ] || { echo '{"code":11,"msg":"nobody answers"}'; exit 1; }"#,
        );
        host.add(&conf, &pod).fails(11, &["nobody answers"]);
        assert!(only_loopback(&pod), "{plugin}");
    }
}
