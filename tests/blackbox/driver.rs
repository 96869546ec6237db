//! The driver for people: `plumb add`, `check`, `del`, `status`, `gc`, `ls`, `leases`.

use serde_json::{Value, json};

use crate::harness::{Host, PLUMB, Pod};

/// Where the hosts of these tests have their networks.
const NETWORKS: &str = "/run/net.d";
/// Where they have foreign plugins.
const FOREIGN: &str = "/run/foreign";
const RESULTS: &str = "/var/lib/cni/results";
/// The reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// What a command has printed, and how it ended.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Told {
    #[track_caller]
    fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.stdout
    }

    /// The document of a command that was asked for JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|why| panic!("{why}: {self:#?}"))
    }

    /// Asserts that it has failed and says all of `words`.
    #[track_caller]
    fn fails(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?} in {self:#?}");
        }
    }
}

fn plumb_with(host: &Host, variables: &[(&str, &str)], line: &str) -> Told {
    let mut command = host.command(PLUMB);
    command.env("NETCONFPATH", NETWORKS).envs(variables.iter().copied());
    let output = command.args(line.split_whitespace()).output().unwrap();
    Told {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn plumb(host: &Host, line: &str) -> Told {
    plumb_with(host, &[], line)
}

/// The same with the foreign plugins in `CNI_PATH`.
fn plumb_foreign(host: &Host, line: &str) -> Told {
    plumb_with(host, &[("CNI_PATH", FOREIGN)], line)
}

fn bridge() -> Value {
    let ranges = json!([[{"subnet": "10.1.0.0/16"}]]);
    json!({
        "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    })
}

fn list(version: &str, plugins: &[Value]) -> Value {
    json!({"cniVersion": version, "name": "net", "plugins": plugins})
}

fn configure(host: &Host, file: &str, network: &Value) {
    let path = format!("{NETWORKS}/{file}");
    host.sh(&format!("mkdir -p $(dirname {path})"));
    host.write(path, &network.to_string());
}

/// A host with a network `net` of this list.
fn host_with(network: &Value) -> Host {
    let host = Host::new();
    configure(&host, "net.conflist", network);
    host
}

/// A foreign plugin that hands on `prevResult`, or an empty result, and keeps of each call the
/// configuration and the environment. It fails for the commands that stand in `/run/NAME.fails`.
fn foreign(host: &Host, name: &str) {
    let script = format!(
        r#"#!/bin/sh
conf=$(cat)
jq -cn --arg plugin {name} --argjson conf "$conf" \
    '{{plugin: $plugin, conf: $conf, env: ($ENV | with_entries(select(.key | startswith("CNI_"))))}}' >> /run/calls
if grep -qs "$CNI_COMMAND" /run/{name}.fails; then
    echo '{{"code": 123, "msg": "no wish to", "details": "at all"}}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || echo "$conf" | jq '.prevResult // {{cniVersion: .cniVersion}} | .dns = {{domain: "{name}"}}'
"#
    );
    host.sh(&format!("mkdir -p {FOREIGN}"));
    host.write(format!("{FOREIGN}/{name}"), &script);
    host.sh(&format!("chmod 755 {FOREIGN}/{name}"));
}

/// The calls of foreign plugins since they were looked at last.
fn calls(host: &Host) -> Vec<Value> {
    let text = host.sh("touch /run/calls; cat /run/calls; rm /run/calls");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `PLUGIN COMMAND` of each call.
fn sequence(calls: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    calls
        .iter()
        .map(|call| format!("{} {}", text(&call["plugin"]), text(&call["env"]["CNI_COMMAND"])))
        .collect()
}

/// The ID that cnitool gives to the container of a namespace.
fn cnitool_id(host: &Host, netns: &str) -> String {
    let digest = host.sh(&format!("printf %s {netns} | sha512sum"));
    format!("cnitool-{}", &digest[..20])
}

/// The file that is kept of an attachment to `net`.
fn kept(host: &Host, container: &str) -> Option<Value> {
    let text = host.sh(&format!("cat {RESULTS}/net-{container}-eth0 2>/dev/null || true"));
    (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
}

fn labels(host: &Host) -> Vec<String> {
    let links = host.ip("link show");
    let mut labels: Vec<_> = links
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|link| link["ifalias"].as_str().map(str::to_owned))
        .collect();
    labels.sort();
    labels
}

/// The whole life of two attachments to a chain of an own and a foreign plugin, without a directory of
/// own plugins anywhere.
#[test]
fn a_chain_of_own_and_foreign_plugins_lives_and_dies() {
    let host = host_with(&list("1.1.0", &[bridge(), json!({"type": "last", "x": 1})]));
    host.sh("rm -r /run/cni");
    foreign(&host, "last");
    let before = host.snapshot();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let id = cnitool_id(&host, "/var/run/netns/a");

    let told = plumb_foreign(&host, "add net a");
    let line = told.ok();
    for word in [&id, "net", "eth0 10.1.0.2/16", "0.0.0.0/0", "br0"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let added = calls(&host);
    assert_eq!(sequence(&added), ["last ADD"]);
    let (conf, env) = (&added[0]["conf"], &added[0]["env"]);
    assert_eq!(conf["name"], "net");
    assert_eq!(conf["cniVersion"], "1.1.0");
    assert_eq!(conf["x"], 1);
    assert_eq!(conf["prevResult"]["ips"][0]["address"], "10.1.0.2/16");
    assert_eq!(env["CNI_CONTAINERID"], *id);
    assert_eq!(env["CNI_NETNS"], "/var/run/netns/a");
    assert_eq!(env["CNI_IFNAME"], "eth0");
    assert_eq!(env["CNI_ARGS"], "");

    let document = plumb_foreign(&host, "add net b --json").json();
    assert_eq!(document["ok"], true, "{document:#}");
    let result = &document["result"];
    assert_eq!(result["dns"]["domain"], "last", "the last plugin's result counts: {document:#}");
    assert_eq!(result["ips"][0]["address"], "10.1.0.3/16");
    let called: Vec<_> = document["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| (call["plugin"].as_str().unwrap(), call["ms"].as_f64().unwrap() > 0.0))
        .collect();
    assert_eq!(called, [("bridge", true), ("last", true)]);
    a.must_reach("10.1.0.3");
    calls(&host);

    let kept_of_a = kept(&host, &id).unwrap();
    plumb_foreign(&host, "check net a").ok();
    let checked = calls(&host);
    assert_eq!(sequence(&checked), ["last CHECK"]);
    assert_eq!(checked[0]["conf"]["prevResult"], kept_of_a["result"], "what ADD has returned");
    a.sh("ip addr flush dev eth0");
    plumb_foreign(&host, "check net a").fails(&["bridge: ", "10.1.0.2"]);
    assert_eq!(sequence(&calls(&host)), [] as [&str; 0], "a failed check ends there");

    let told = plumb_foreign(&host, "del net a --time");
    let lines: Vec<_> = told.ok().lines().collect();
    assert!(lines[0].contains(&id) && lines.len() == 3, "{told:#?}");
    for (line, plugin) in lines[1..].iter().zip(["last", "bridge"]) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1], words[3]), ("DEL", plugin, "ms"), "{line}");
    }
    let deleted = calls(&host);
    assert_eq!(deleted[0]["conf"]["prevResult"], kept_of_a["result"], "what ADD has returned");
    assert_eq!(kept(&host, &id), None);
    assert_eq!(a.ip("link show").as_array().unwrap().len(), 1);
    for _ in 0..2 {
        plumb_foreign(&host, "del net b").ok();
    }
    assert_eq!(b.ip("link show").as_array().unwrap().len(), 1);
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// The format is libcni's: what is here spelt out is what it writes and reads.
#[test]
fn what_is_kept_is_what_libcni_keeps() {
    let plugin = |keys: &Value| {
        let mut plugin = bridge();
        plugin["capabilities"] = keys.clone();
        plugin
    };
    let network = list("1.0.0", &[plugin(&json!({"mac": true}))]);
    let host = host_with(&network);
    host.pod("a");
    let environment = [
        ("CAP_ARGS", r#"{"mac":"02:00:00:00:00:07"}"#),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_CONTAINERID", "c1"),
    ];
    let result = plumb_with(&host, &environment, "add net a --json").json()["result"].clone();
    let mut document = kept(&host, "c1").unwrap();
    let config = document["config"].take();
    let config = host.sh(&format!("echo {} | base64 -d", config.as_str().unwrap()));
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap(), network);
    assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:07");
    let expected = json!({
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": null,
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/var/run/netns/a",
        "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "x"]],
        "capabilityArgs": {"mac": "02:00:00:00:00:07"},
        "result": result,
    });
    assert_eq!(document, expected);
    let modes = host.sh(&format!("stat -c %a {RESULTS} {RESULTS}/*; ls -A {RESULTS}"));
    assert_eq!(modes.lines().collect::<Vec<_>>(), ["700", "600", "net-c1-eth0"]);
    // What is set to nothing is as if it were not set.
    plumb_with(&host, &[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "")], "del net").ok();
    assert_eq!(kept(&host, "c1"), None);
}

/// A file as cnitool writes it, of an attachment that the reference plugins have made, with libcni up to
/// 1.1, which does not tell the namespace, and one as libcni before 0.8 wrote it.
#[test]
fn what_others_have_attached_can_be_checked_and_deleted() {
    for legacy in [false, true] {
        let host = host_with(&list("1.0.0", &[bridge()]));
        let pod = host.pod("a");
        let id = cnitool_id(&host, "/run/netns/a");
        let mut conf = bridge();
        conf["cniVersion"] = "1.0.0".into();
        conf["name"] = "net".into();
        conf["ipMasq"] = false.into();
        let result = crate::harness::Call::new(&host, "ADD", &conf)
            .of(&pod)
            .plugin(&format!("{REFERENCE}/bridge"))
            .env("CNI_PATH", REFERENCE)
            .env("CNI_CONTAINERID", &id)
            .run()
            .ok();
        host.sh(&format!("mkdir -p {RESULTS}"));
        let file = format!("{RESULTS}/net-{id}-eth0");
        if legacy {
            host.write(&file, &result.to_string());
        } else {
            let config = host.sh(&format!("base64 -w0 {NETWORKS}/net.conflist"));
            let text = format!(
                "{{\"kind\":\"cniCacheV1\",\"containerId\":\"{id}\",\"config\":\"{config}\",\
                 \"ifName\":\"eth0\",\"networkName\":\"net\",\"result\":{result}}}"
            );
            host.write(&file, &text);
        }
        assert_eq!(host.leases("net"), ["10.1.0.2"]);
        let reference = [("CNI_PATH", REFERENCE)];
        plumb_with(&host, &reference, "check net /run/netns/a").ok();
        plumb_with(&host, &reference, &format!("check net --container {id}")).ok();
        plumb(&host, "del net /run/netns/a").ok();
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "legacy: {legacy}");
        assert_eq!(host.leases("net"), [] as [&str; 0]);
        assert_eq!(kept(&host, &id), None);
    }
}

/// The reference plugins, called by this driver from start to end, and deleted by plumb's.
#[test]
fn a_chain_of_reference_plugins_can_be_driven() {
    let mut plugin = bridge();
    plugin["ipMasq"] = false.into();
    let tuning = json!({"type": "tuning", "mtu": 1400});
    let host = host_with(&list("1.0.0", &[plugin, tuning]));
    let before = host.snapshot();
    let pod = host.pod("a");
    let reference = [("CNI_PATH", REFERENCE)];
    plumb_with(&host, &reference, "add net a").ok();
    assert_eq!(pod.ip("link show dev eth0")[0]["mtu"], 1400);
    plumb_with(&host, &reference, "check net a").ok();
    assert_eq!(labels(&host), [] as [&str; 0], "it was the reference's bridge");
    plumb_with(&host, &reference, "del net a").ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");

    plumb_with(&host, &reference, "add net a").ok();
    host.sh(&format!("mkdir {FOREIGN}; ln -s {REFERENCE}/tuning {FOREIGN}/tuning"));
    plumb_foreign(&host, "del net a").ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// Chains of every version: whether CHECK may be called, and what DEL learns.
#[test]
fn each_version_has_the_calls_that_it_knows() {
    for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut network = list(version, &[json!({"type": "first"}), json!({"type": "last"})]);
        if version.is_empty() {
            network.as_object_mut().unwrap().remove("cniVersion");
        }
        let host = host_with(&network);
        for name in ["first", "last"] {
            foreign(&host, name);
        }
        host.pod("a");
        let rank = ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
            .iter()
            .position(|v| *v == version)
            .unwrap();
        plumb_foreign(&host, "add net a").ok();
        let added = calls(&host);
        assert_eq!(sequence(&added), ["first ADD", "last ADD"], "{version}");
        assert_eq!(added[1]["conf"]["prevResult"]["dns"]["domain"], "first", "{version}");

        let told = plumb_foreign(&host, "check net a");
        if rank >= 5 {
            told.ok();
            assert_eq!(sequence(&calls(&host)), ["first CHECK", "last CHECK"]);
        } else {
            told.fails(&["has no CHECK"]);
            assert_eq!(sequence(&calls(&host)), [] as [&str; 0]);
        }
        for (line, command) in [("status net a", "STATUS"), ("gc net a", "GC")] {
            plumb_foreign(&host, line).ok();
            let expected = [format!("first {command}"), format!("last {command}")];
            let expected = if rank >= 7 { expected.as_slice() } else { &[] };
            assert_eq!(sequence(&calls(&host)), expected, "{version}");
        }
        plumb_foreign(&host, "del net a").ok();
        let deleted = calls(&host);
        assert_eq!(sequence(&deleted), ["last DEL", "first DEL"], "{version}");
        for call in &deleted {
            let prev = &call["conf"]["prevResult"]["dns"]["domain"];
            let expected = if rank >= 5 { json!("last") } else { Value::Null };
            assert_eq!(*prev, expected, "{version}: {call:#}");
        }
        assert_eq!(host.sh(&format!("ls -A {RESULTS}")), "", "{version}");
    }
}

#[test]
fn capability_and_other_arguments_reach_those_whom_they_are_for() {
    let able = json!({"type": "able", "capabilities": {"mac": true, "ips": false}});
    let host = host_with(&list("1.0.0", &[able, json!({"type": "plain"})]));
    for name in ["able", "plain"] {
        foreign(&host, name);
    }
    host.pod("a");
    let environment = [
        ("CNI_PATH", FOREIGN),
        ("CAP_ARGS", r#"{"mac":"02:00:00:00:00:01","ips":["10.0.0.1/8"]}"#),
        ("CNI_ARGS", "A=b;C=d"),
    ];
    let only_mac = json!({"mac": "02:00:00:00:00:01"});
    plumb_with(&host, &environment, "add net a -i net1").ok();
    // What is not given is as it was for ADD.
    plumb_foreign(&host, "check net a --ifname net1").ok();
    plumb_with(&host, &[("CNI_PATH", FOREIGN), ("CNI_IFNAME", "net1")], "del net a").ok();
    let calls = calls(&host);
    let expected = ["able ADD", "plain ADD", "able CHECK", "plain CHECK", "plain DEL", "able DEL"];
    assert_eq!(sequence(&calls), expected);
    for call in &calls {
        let expected = if call["plugin"] == "able" { only_mac.clone() } else { Value::Null };
        assert_eq!(call["conf"]["runtimeConfig"], expected, "{call:#}");
        assert_eq!(call["conf"].get("capabilities"), None, "{call:#}");
        assert_eq!(call["env"]["CNI_ARGS"], "A=b;C=d", "{call:#}");
        assert_eq!(call["env"]["CNI_IFNAME"], "net1", "{call:#}");
    }
}

/// Networks are found as libcni finds them: lists before single plugins, each by the names of files; a
/// faulty file among them is no hindrance.
#[test]
fn networks_are_found_in_the_order_of_libcni() {
    let host = Host::new();
    foreign(&host, "p");
    host.pod("a");
    let single = |x: u32| json!({"name": "net", "type": "p", "x": x});
    let many = |x: u32| json!({"name": "net", "plugins": [{"type": "p", "x": x}]});
    let used = |host: &Host| {
        plumb_foreign(host, "del net a").ok();
        calls(host)[0]["conf"]["x"].clone()
    };
    let steps = [
        ("30.json", single(1)),
        ("20.conf", single(2)),
        ("90.conflist", many(3)),
        ("80.conflist", many(4)),
        ("70.txt", many(5)),
        ("60.conflist.bak", many(6)),
        ("10.conflist", json!({"name": "other", "plugins": [{"type": "p", "x": 7}]})),
    ];
    let expected = [1, 2, 3, 4, 4, 4, 4];
    for ((file, network), expected) in steps.into_iter().zip(expected) {
        configure(&host, file, &network);
        assert_eq!(used(&host), expected, "{file}");
    }
    host.write(format!("{NETWORKS}/00.conflist"), "{");
    assert_eq!(used(&host), 4, "a faulty file does not hide another");
    let told = plumb_foreign(&host, "del nonet a");
    told.fails(&["no network \"nonet\"", NETWORKS, "other", "00.conflist: not a JSON document"]);
    let told = plumb_with(&host, &[("NETCONFPATH", "/nowhere")], "status net");
    told.fails(&["no network \"net\" in /nowhere"]);

    // A path is not looked for, and what it is called does not matter.
    plumb_foreign(&host, &format!("del {NETWORKS}/70.txt a")).ok();
    assert_eq!(calls(&host)[0]["conf"]["x"], 5);
    host.sh(&format!("cd {FOREIGN}; CNI_PATH={FOREIGN} {PLUMB} del ../net.d/20.conf a"));
    assert_eq!(calls(&host)[0]["conf"]["x"], 2);
}

#[test]
fn plugins_in_files_of_their_own_are_appended_unless_the_list_is_closed() {
    for (closed, inlined) in [
        (json!(false), true),
        (Value::Null, true),
        (json!(false), false),
        (json!(true), true),
        (json!("true"), true),
    ] {
        let mut network = json!({
            "name": "net", "cniVersion": "1.1.0", "loadOnlyInlinedPlugins": closed,
        });
        if inlined {
            network["plugins"] = json!([{"type": "first"}]);
        }
        if closed.is_null() {
            network.as_object_mut().unwrap().remove("loadOnlyInlinedPlugins");
        }
        let host = host_with(&network);
        for name in ["first", "second", "third"] {
            foreign(&host, name);
        }
        configure(&host, "net/20.conf", &json!({"type": "third"}));
        configure(&host, "net/10.conf", &json!({"type": "second"}));
        configure(&host, "net/00.json", &json!({"type": "absent"}));
        configure(&host, "other/00.conf", &json!({"type": "absent"}));
        host.pod("a");
        plumb_foreign(&host, "add net a --container c1").ok();
        let is_open = !matches!(closed, Value::Bool(true) | Value::String(_));
        let mut expected = Vec::new();
        expected.extend(inlined.then_some("first ADD"));
        expected.extend(is_open.then_some(["second ADD", "third ADD"]).into_iter().flatten());
        assert_eq!(sequence(&calls(&host)), expected, "{network}");

        // What is kept stands alone: all of it is deleted when the files have gone.
        host.sh(&format!("rm -r {NETWORKS}"));
        plumb_foreign(&host, "del net a --container c1").ok();
        assert_eq!(calls(&host).len(), expected.len(), "{network}");
    }
    let host = host_with(&json!({"name": "net", "cniVersion": "1.1.0", "plugins": []}));
    plumb(&host, "status net").fails(&["net.conflist", "plugins: expected a list of plugins"]);
    let host = host_with(&json!({"name": "net", "cniVersion": "1.1.0"}));
    plumb(&host, "status net").fails(&["net.conflist", "expected the name of a plugin"]);
    configure(&host, "net/10.conf", &json!({"x": 1}));
    plumb(&host, "status net").fails(&["net/10.conf: type: expected the name of a plugin"]);
}

#[test]
fn the_newest_known_of_the_versions_that_a_network_supports_is_spoken() {
    let mut network = list("0.4.0", &[json!({"type": "p"})]);
    network["cniVersions"] = json!(["0.3.1", "1.1.0", "1.0.0", "99.0.0"]);
    let host = host_with(&network);
    foreign(&host, "p");
    plumb_foreign(&host, "status net").ok();
    assert_eq!(calls(&host)[0]["conf"]["cniVersion"], "1.1.0");
}

#[test]
fn a_chain_that_fails_half_way_is_taken_back_whole() {
    let plugins =
        [json!({"type": "first"}), bridge(), json!({"type": "bad"}), json!({"type": "never"})];
    let host = host_with(&list("1.0.0", &plugins));
    for name in ["first", "bad", "never"] {
        foreign(&host, name);
    }
    let before = host.snapshot();
    let pod = host.pod("a");
    host.write("/run/bad.fails", "ADD");
    plumb_foreign(&host, "add net a").fails(&["bad: no wish to (code 123): at all", "rolled back"]);
    let made = calls(&host);
    let expected = ["first ADD", "bad ADD", "never DEL", "bad DEL", "first DEL"];
    assert_eq!(sequence(&made), expected);
    let address = &made[3]["conf"]["prevResult"]["ips"][0]["address"];
    assert_eq!(*address, "10.1.0.2/16", "what had been reached: {:#}", made[3]);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1);
    host.snapshot().assert_nothing_but_shared(&before, "br0");
    assert_eq!(host.sh(&format!("ls -A {RESULTS} 2>/dev/null || true")), "");

    // A failure of the way back is told too, and hinders no other plugin's.
    host.write("/run/bad.fails", "ADD DEL");
    let told = plumb_foreign(&host, "add net a --json");
    assert_eq!((told.code, told.stderr.as_str()), (Some(1), ""));
    let document = told.json();
    assert_eq!(document["ok"], false);
    let text = document["error"].as_str().unwrap();
    assert!(text.contains("rolling it back: bad: no wish to"), "{text}");
    let error = json!({"code": 123, "msg": "no wish to", "details": "at all"});
    assert_eq!(document["plugins"][2]["error"], error);
    assert_eq!(document["plugins"][0]["error"], Value::Null);
    assert_eq!(sequence(&calls(&host)), expected);
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// A result that can't be kept could not be deleted with what it says, so the attachment is taken back.
#[test]
fn an_attachment_that_cannot_be_kept_is_taken_back() {
    let host = host_with(&list("1.0.0", &[bridge()]));
    let before = host.snapshot();
    host.sh(&format!("mkdir -p /var/lib/cni; ln -s /proc/none {RESULTS}"));
    host.pod("a");
    plumb(&host, "add net a").fails(&["cannot write", RESULTS, "rolled back"]);
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// What was attached before must not be detached by the failure of a second attempt.
#[test]
fn a_second_add_that_fails_leaves_the_first_alone() {
    let host = host_with(&list("1.0.0", &[bridge()]));
    let (a, b) = (host.pod("a"), host.pod("b"));
    plumb(&host, "add net a").ok();
    plumb(&host, "add net b").ok();
    plumb(&host, "add net a").fails(&["already exists", "not rolled back"]);
    a.must_reach("10.1.0.3");
    plumb(&host, "check net a").ok();
    // The same if nothing is kept of the first.
    host.sh(&format!("rm -r {RESULTS}"));
    plumb(&host, "add net b").fails(&["already exists", "not rolled back"]);
    b.must_reach("10.1.0.2");
}

/// plugins PR 1282: a plugin that fails to delete kept those before it in the chain from it.
#[test]
fn plugins_1282_a_failed_del_does_not_keep_the_rest_of_the_chain_from_it() {
    let host = host_with(&list("1.0.0", &[bridge(), json!({"type": "bad"})]));
    foreign(&host, "bad");
    let before = host.snapshot();
    let pod = host.pod("a");
    plumb_foreign(&host, "add net a --container c1").ok();
    host.write("/run/bad.fails", "DEL");
    plumb_foreign(&host, "del net --container c1").fails(&["bad: no wish to (code 123)"]);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1);
    assert!(kept(&host, "c1").is_some(), "so that it can be tried again");
    host.sh("rm /run/bad.fails");
    plumb_foreign(&host, "del net --container c1").ok();
    let last = calls(&host).pop().unwrap();
    assert_eq!(last["env"]["CNI_NETNS"], "/var/run/netns/a", "what add was told");
    assert_eq!(kept(&host, "c1"), None);
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn a_container_is_detached_though_its_namespace_and_its_networks_file_have_gone() {
    let host = host_with(&list("1.0.0", &[bridge()]));
    let before = host.snapshot();
    for name in ["a", "b"] {
        host.pod(name);
        plumb(&host, &format!("add net {name} --container {name}")).ok();
    }
    host.sh(&format!("ip netns del a; rm {NETWORKS}/net.conflist"));
    plumb(&host, "del net a --container a").ok();
    assert_eq!(labels(&host), ["plumb:net/b/eth0"]);
    assert_eq!(host.leases("net"), ["10.1.0.3"]);
    plumb(&host, "del net --container b").ok();
    plumb(&host, "del net --container b").fails(&["no network \"net\""]);
    host.sh(&format!("touch {NETWORKS}/net.conflist; rm -d {RESULTS}"));
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// In CNI_PATH a plugin of the same name comes before plumb's own.
#[test]
fn the_plugins_of_cni_path_come_first() {
    let host = host_with(&list("1.0.0", &[bridge()]));
    foreign(&host, "bridge");
    host.pod("a");
    plumb_foreign(&host, "add net a").ok();
    assert_eq!(sequence(&calls(&host)), ["bridge ADD"]);
    plumb(&host, "del net a").ok();
    assert_eq!(sequence(&calls(&host)), [] as [&str; 0]);
    let host = host_with(&list("1.0.0", &[json!({"type": "weave"})]));
    host.pod("a");
    plumb(&host, "add net a").fails(&["plugin \"weave\" is none of plumb's, and not in CNI_PATH"]);
}

/// Address management of another maker, called by plumb's bridge, which is called by plumb's driver.
#[test]
fn an_own_plugin_delegates_along_cni_path() {
    let mut plugin = bridge();
    plugin["ipam"] = json!({"type": "scripted"});
    let host = host_with(&list("1.0.0", &[plugin]));
    let address = json!({"address": "10.7.0.2/24", "gateway": "10.7.0.1"});
    host.scripted_ipam(&json!({"cniVersion": "1.0.0", "ips": [address]}));
    let pod = host.pod("a");
    plumb(&host, "add net a").fails(&["scripted"]);
    plumb_with(&host, &[("CNI_PATH", crate::harness::BIN)], "add net a").ok();
    assert_eq!(pod.addresses("eth0"), ["10.7.0.2/24"]);
}

#[test]
fn a_network_that_disables_check_or_gc_is_not_asked() {
    let mut network = list("1.1.0", &[json!({"type": "p"})]);
    network["disableCheck"] = true.into();
    network["disableGC"] = true.into();
    let host = host_with(&network);
    foreign(&host, "p");
    host.pod("a");
    plumb_foreign(&host, "add net a --container c1").ok();
    host.sh("ip netns del a");
    calls(&host);
    assert!(plumb_foreign(&host, "check net a").ok().contains("disableCheck"));
    assert!(plumb_foreign(&host, "gc net").ok().contains("disableGC"));
    assert_eq!(calls(&host), [] as [Value; 0]);
    assert!(kept(&host, "c1").is_some());
    for key in ["disableCheck", "disableGC"] {
        network[key] = false.into();
    }
    configure(&host, "net.conflist", &network);
    plumb_foreign(&host, "check net --container c1").ok();
    plumb_foreign(&host, "gc net").ok();
    assert_eq!(sequence(&calls(&host)), ["p CHECK", "p DEL", "p GC"]);
}

#[test]
fn gc_keeps_what_is_attached_and_removes_what_is_not() {
    let host = host_with(&list("1.1.0", &[bridge(), json!({"type": "last"})]));
    foreign(&host, "last");
    for name in ["live", "gone", "named"] {
        host.pod(name);
        plumb_foreign(&host, &format!("add net {name} --container {name}")).ok();
    }
    // A runtime's, which keeps its account elsewhere; and a lease that nobody remembers.
    host.pod("foreign");
    plumb_foreign(&host, "add net foreign --container foreign").ok();
    host.sh(&format!("rm {RESULTS}/net-foreign-eth0 {RESULTS}/net-named-eth0"));
    host.write("/var/lib/cni/networks/net/10.1.0.99", "lost\r\neth0");
    host.write(format!("{RESULTS}/notes"), "not a file of the cache");
    host.sh("ip netns del gone");
    calls(&host);

    let told = plumb_foreign(&host, "gc net --keep named/eth0");
    told.fails(&["foreign/eth0", "--force", "--keep"]);
    assert!(!told.stderr.contains("named") && !told.stderr.contains("live"), "{told:#?}");
    assert_eq!(calls(&host), [] as [Value; 0], "nothing has been done");

    let told = plumb_foreign(&host, "gc net --keep named/eth0 --keep foreign/eth0 --json");
    let document = told.json();
    assert_eq!(document["deleted"], json!(["gone/eth0"]), "{document:#}");
    let made = calls(&host);
    assert_eq!(sequence(&made), ["last DEL", "last GC"]);
    assert_eq!(made[0]["env"]["CNI_CONTAINERID"], "gone");
    assert!(made[0]["conf"]["prevResult"].is_object(), "{:#}", made[0]);
    let item = |name| json!({"containerID": name, "ifname": "eth0"});
    let expected = json!([item("named"), item("foreign"), item("live")]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(made[1]["conf"][key], expected);
    }
    assert_eq!(made[1]["env"]["CNI_CONTAINERID"], "");
    let left = ["plumb:net/foreign/eth0", "plumb:net/live/eth0", "plumb:net/named/eth0"];
    assert_eq!(labels(&host), left);
    assert_eq!(host.element_comments(), left);
    assert_eq!(host.leases("net"), ["10.1.0.2", "10.1.0.4", "10.1.0.5"]);

    plumb_foreign(&host, "gc net --force").ok();
    assert_eq!(labels(&host), ["plumb:net/live/eth0"]);
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
    assert_eq!(host.sh(&format!("ls {RESULTS}")), "net-live-eth0\nnotes\n");
    plumb_foreign(&host, "check net live --container live").ok();
}

#[test]
fn status_says_whether_a_container_could_be_attached() {
    let mut plugin = bridge();
    plugin["ipam"]["ranges"] =
        json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}]]);
    let host = host_with(&list("1.1.0", &[plugin]));
    host.pod("a");
    assert!(plumb(&host, "status net").ok().contains("net is ready: bridge"));
    plumb(&host, "add net a").ok();
    plumb(&host, "status net").fails(&["bridge: no IP addresses available", "code 50"]);
    let document = plumb(&host, "status net --json").json();
    assert_eq!(document["ok"], false);
    assert_eq!(document["plugins"][0]["error"]["code"], 50, "{document:#}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_done() {
    let host = host_with(&list("1.0.0", &[json!({"type": "p"})]));
    foreign(&host, "p");
    host.pod("a");
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 8] = [
        ("add net a --container ../x", &[], &["container ID \"../x\""]),
        ("add net a", &[("CNI_CONTAINERID", "a/b")], &["container ID \"a/b\""]),
        ("add net a --ifname eth/0", &[], &["interface name \"eth/0\""]),
        ("add net a", &[("CNI_IFNAME", "..")], &["interface name \"..\""]),
        ("add net a", &[("CNI_ARGS", "A=b;")], &["CNI_ARGS: expected KEY=VALUE, got \"\""]),
        ("del net a", &[("CNI_ARGS", "A=b=c")], &["CNI_ARGS: expected KEY=VALUE, got \"A=b=c\""]),
        ("add net a", &[("CAP_ARGS", "[]")], &["CAP_ARGS: expected a JSON object"]),
        ("add net --container c1", &[], &["NETNS"]),
    ];
    for (line, variables, words) in cases {
        let mut all = vec![("CNI_PATH", FOREIGN)];
        all.extend(variables);
        plumb_with(&host, &all, line).fails(words);
    }
    plumb_foreign(&host, "check net a").fails(&["is not attached to net", RESULTS]);
    assert_eq!(calls(&host), [] as [Value; 0]);
    for line in ["add net", "check net", "del net", "gc net --keep x", "status", "add net a --what"]
    {
        assert_eq!(plumb_foreign(&host, line).code, Some(2), "{line}");
    }
}

#[test]
fn a_plugin_that_does_not_keep_to_the_protocol_is_named() {
    let host = host_with(&list("1.0.0", &[json!({"type": "p"})]));
    host.pod("a");
    host.sh(&format!("mkdir -p {FOREIGN}"));
    for (script, words) in [
        ("echo hello", ["p has not printed a result", "expected value"]),
        ("true", ["p has not printed a result", "EOF"]),
        (
            "echo '{\"ips\":[{\"address\":\"x\"}]}'",
            ["p has not printed a result", "ips[0].address"],
        ),
        ("exit 3", ["p failed without an error object", "3"]),
        ("kill -9 $$", ["p failed without an error object", "signal: 9"]),
    ] {
        let script = format!("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\n{script}\n");
        host.write(format!("{FOREIGN}/p"), &script);
        host.sh(&format!("chmod 755 {FOREIGN}/p"));
        plumb_foreign(&host, "add net a").fails(&words);
    }
}

fn statistics(pod: &Pod<'_>) -> (Value, Value) {
    let link = pod.ip("-s link show dev eth0")[0].clone();
    (link["stats64"]["rx"]["bytes"].clone(), link["stats64"]["tx"]["bytes"].clone())
}

#[test]
fn ls_lists_what_the_kernel_has() {
    let mut dual = bridge();
    dual["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd01::/64"}]]);
    let host = host_with(&list("1.0.0", &[dual]));
    configure(
        &host,
        "flat.conf",
        &json!({"name": "flat", "type": "bridge", "bridge": "br1", "cniVersion": "1.0.0"}),
    );
    let (a, b) = (host.pod("a"), host.pod("b"));
    assert_eq!(plumb(&host, "ls --json").json(), json!({"attachments": []}));
    plumb(&host, "add net a --container ca").ok();
    plumb(&host, "add net b --container cb").ok();
    plumb(&host, "add flat b --container cb --ifname net1").ok();
    a.must_reach("10.1.0.3");
    // What has happened since ADD counts, not what ADD has returned.
    b.sh("ip addr del 10.1.0.3/16 dev eth0; ip addr add 10.1.0.77/16 dev eth0");
    host.sh(&format!("rm -r {RESULTS} /var/lib/cni/networks"));

    // Neighbours still talk now and then, so it is tried until nothing has passed meanwhile.
    let (attachments, traffic) = (0..50)
        .find_map(|_| {
            let before = statistics(&a);
            let listed = plumb(&host, "ls --json").json()["attachments"].clone();
            (statistics(&a) == before).then_some((listed, before))
        })
        .unwrap();
    let host_link = |index: usize| attachments[index]["hostInterface"].as_str().unwrap();
    assert_eq!(attachments.as_array().unwrap().len(), 3, "{attachments:#}");
    let expected = json!({
        "network": "net", "container": "ca", "ifname": "eth0",
        "addresses": ["10.1.0.2/16", "fd01::2/64"],
        "hostInterface": host_link(1), "bridge": "br0",
        "bytesIn": traffic.0, "bytesOut": traffic.1,
    });
    assert_eq!(attachments[1], expected);
    assert!(traffic.0.as_u64().unwrap() > 84, "the answers to a ping came in: {traffic:?}");
    let link = host.ip(&format!("link show dev {}", host_link(1)));
    assert_eq!(link[0]["ifalias"], "plumb:net/ca/eth0");
    let parts = ["network", "container", "ifname", "addresses", "bridge"];
    let of = |index: usize| parts.map(|key| attachments[index][key].clone());
    assert_eq!(of(0), [json!("flat"), json!("cb"), json!("net1"), json!([]), json!("br1")]);
    assert_eq!(of(2)[3], json!(["10.1.0.77/16", "fd01::3/64"]));

    let told = plumb(&host, "ls net");
    let lines: Vec<Vec<_>> = told.ok().lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{told:#?}");
    assert_eq!(lines[0][..3], ["NETWORK", "CONTAINER", "INTERFACE"]);
    assert_eq!(lines[1][..5], ["net", "ca", "eth0", host_link(1), "br0"]);
    assert_eq!(lines[1][7..], ["10.1.0.2/16", "fd01::2/64"]);
}

/// Everyone may see the links, not everyone what is in a container.
#[test]
fn ls_says_what_it_may_not_read() {
    let host = host_with(&list("1.0.0", &[bridge()]));
    host.pod("a");
    plumb(&host, "add net a --container ca").ok();
    let line = format!("setpriv --bounding-set=-net_admin {PLUMB} ls");
    let text = host.sh(&line);
    assert_eq!(text.lines().last().unwrap().split_whitespace().last(), Some("?"), "{text}");
    let text = host.sh(&format!("{line} --json"));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["attachments"][0]["addresses"], Value::Null, "{document:#}");
    assert_eq!(document["attachments"][0]["container"], "ca");
}

#[test]
fn leases_are_listed_with_their_age_and_who_has_none() {
    let host = host_with(&list("1.0.0", &[bridge()]));
    assert_eq!(plumb(&host, "leases --json").json(), json!({"leases": []}));
    assert_eq!(plumb(&host, "leases net").ok().lines().count(), 1);
    host.pod("a");
    plumb(&host, "add net a --container ca").ok();
    let directory = "/var/lib/cni/networks";
    host.sh(&format!("mkdir {directory}/empty {directory}/other"));
    for (file, content) in [
        ("net/10.1.0.10", "lost\r\neth0"),
        ("net/10.1.0.9", "ca\r\neth9"),
        ("net/10.1.0.8", "ca"),
        ("net/10.1.0.7", ""),
        ("net/notes", "not a lease"),
        ("other/fd01::5", "ca\r\neth0"),
    ] {
        host.write(format!("{directory}/{file}"), content);
    }
    host.sh(&format!("touch -d '90061 seconds ago' {directory}/net/10.1.0.10"));
    let files = |host: &Host| host.sh(&format!("cd {directory}; find . | sort; cat */1* */f*"));
    let before = files(&host);

    let document = plumb(&host, "leases --json").json();
    let leases = document["leases"].as_array().unwrap();
    let parts = ["network", "address", "container", "ifname", "attached"];
    let found: Vec<_> =
        leases.iter().map(|lease| Value::from_iter(parts.map(|key| lease[key].clone()))).collect();
    let expected = [
        json!(["net", "10.1.0.2", "ca", "eth0", true]),
        json!(["net", "10.1.0.7", null, null, false]),
        json!(["net", "10.1.0.8", "ca", null, true]),
        json!(["net", "10.1.0.9", "ca", "eth9", false]),
        json!(["net", "10.1.0.10", "lost", "eth0", false]),
        json!(["other", "fd01::5", "ca", "eth0", false]),
    ];
    assert_eq!(found, expected, "{document:#}");
    let age = |index: usize| leases[index]["ageSeconds"].as_u64().unwrap();
    assert!(age(0) < 60 && (90_061..90_121).contains(&age(4)), "{document:#}");

    let told = plumb(&host, "leases net");
    let lines: Vec<_> = told.ok().lines().collect();
    assert_eq!(lines.len(), 6, "{told:#?}");
    assert!(!lines[1].contains("no attachment"), "{told:#?}");
    assert!(lines[5].ends_with("1 d 1 h  no attachment"), "{told:#?}");
    assert_eq!(files(&host), before, "nothing is changed, and no lock left");

    host.sh(&format!("mv {directory} /run/leases"));
    assert_eq!(plumb(&host, "leases --json").json(), json!({"leases": []}));
    let elsewhere = plumb(&host, "leases other --data-dir /run/leases --json").json();
    assert_eq!(elsewhere["leases"][0]["address"], "fd01::5");
    plumb(&host, "leases ../x").fails(&["\"../x\" is no network's name"]);
}
