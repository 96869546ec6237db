//! The CNI protocol: environment, versions, results in every form, what else comes in and goes out.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plumb::cni::{Plugin, Request, frame};
use serde_json::{Value, json};

use crate::harness::{BIN, Call, Host, PLUMB, Pod, VERSIONS, ipv4, patience, with};

/// The names of all plugins.
fn plugins() -> impl Iterator<Item = &'static str> {
    plumb::plugins::ALL.into_iter().map(|plugin| plugin.name)
}

/// Those that need nothing but the kernel: dhcp, whose calls need its daemon, has tests of its own.
fn plugins_by_themselves() -> impl Iterator<Item = &'static str> {
    plugins().filter(|plugin| *plugin != "dhcp")
}

/// A host with a link `up0` for those plugins that need one.
fn host_with_link() -> Host {
    let host = Host::new();
    host.sh("ip link add up0 type veth peer name other; ip link set up0 up; ip link set other up");
    host
}

/// Whether this kernel has the kind of link that a plugin makes; most are everywhere.
fn is_served(host: &Host, plugin: &str) -> bool {
    let link = match plugin {
        "ipvlan" => "link up0 type ipvlan",
        "vlan" => "link up0 type vlan id 9",
        "dummy" => "type dummy",
        _ => return true,
    };
    let probe = format!("ip link add probe {link} 2>&1 && ip link del probe || true");
    let refusal = host.sh(&probe);
    assert!(refusal.is_empty() || refusal.contains("Unknown device type"), "{plugin}: {refusal}");
    refusal.is_empty()
}

/// A configuration for another plugin, with what it needs. To tap `bridge` is one in the container.
fn of_plugin(plugin: &str, conf: Value) -> Value {
    let needs = match plugin {
        "macvlan" | "ipvlan" => json!({"master": "up0"}),
        "vlan" => json!({"master": "up0", "vlanId": 7}),
        "host-device" => json!({"device": "up0"}),
        "tap" => json!({"bridge": null}),
        _ => json!({}),
    };
    with(with(conf, &json!({"type": plugin})), &needs)
}

/// A configuration that all plugins accept, but for what [`of_plugin`] adds.
fn conf(version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "net", "type": "bridge", "bridge": "br0",
        "ipam": {"type": "host-local", "subnet": "10.5.0.0/24"},
        "cni.dev/valid-attachments": [],
    })
}

/// Waits for a process that has to end by itself.
fn ends(mut child: Child) -> ExitStatus {
    let deadline = Instant::now() + patience(Duration::from_secs(20));
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the plugin hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn all_missing_variables_are_named_at_once_and_in_order() {
    const ALL: [&str; 4] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    let needed = [
        ("ADD", &ALL[..]),
        ("CHECK", &ALL[..]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &["CNI_PATH"]),
    ];
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    for plugin in plugins() {
        for (command, needed) in needed {
            let call = Call::new(&host, command, &of_plugin(plugin, conf("1.1.0"))).of(&pod);
            let none = ALL.iter().fold(call.clone(), |call, name| call.without(name));
            let expected = format!(
                "{{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 4,\n    \"msg\": \"required env \
                 variables [{}] missing\"\n}}",
                needed.join(",")
            );
            let outcome = none.run();
            outcome.error();
            assert_eq!(outcome.stdout, expected);
            for name in needed {
                let message = format!("required env variables [{name}] missing");
                assert_eq!(call.clone().without(name).run().fails(4, &[])["msg"], *message);
                let empty = call.clone().env(name, "").run();
                assert_eq!(empty.fails(4, &[])["msg"], *message, "empty is missing");
            }
        }
    }
    assert_eq!(host.snapshot(), before);
}

#[test]
fn values_are_validated_only_where_the_command_needs_them() {
    let host = host_with_link();
    let before = host.snapshot();
    let pod = host.pod("a");
    for plugin in plugins_by_themselves() {
        for command in ["ADD", "CHECK", "DEL"] {
            let call = Call::new(&host, command, &of_plugin(plugin, conf("1.1.0"))).of(&pod);
            for container in ["../c", "-c", ".c", "a/b", "a b", "ä", "c\n"] {
                let outcome = call.clone().env("CNI_CONTAINERID", container).run();
                outcome.fails(4, &["CNI_CONTAINERID", &format!("{container:?}")]);
            }
            for ifname in
                [".", "..", "a/b", "a:0", "a b", "a\u{a0}b", "sixteen-bytes-xx", "all", "default"]
            {
                let outcome = call.clone().env("CNI_IFNAME", ifname).run();
                outcome.fails(4, &["CNI_IFNAME", &format!("{ifname:?}")]);
            }
            // Bytes that are no text can't be told in a result.
            let shell = ["sh", "-c", "export CNI_IFNAME=$(printf 'a\\377'); exec \"$0\""];
            call.under(&shell).run().fails(4, &["CNI_IFNAME", "not UTF-8"]);
        }
        for command in ["GC", "STATUS"] {
            let call = Call::new(&host, command, &of_plugin(plugin, conf("1.1.0")));
            let call = call.env("CNI_CONTAINERID", "../c").env("CNI_IFNAME", "a/b");
            let outcome = call.env("CNI_NETNS", "/nowhere").run();
            if command == "GC" || is_served(&host, plugin) {
                outcome.ok();
            } else {
                outcome.fails(50, &["no support for this kind of link"]);
            }
        }
        // DEL needs no namespace.
        let del = Call::new(&host, "DEL", &of_plugin(plugin, conf("1.1.0"))).of(&pod);
        del.clone().without("CNI_NETNS").run().ok();
        del.clone().env("CNI_NETNS", "").run().ok();
        assert_eq!(del.env("CNI_NETNS", "/run/netns/gone").run().stdout, "");
    }
    assert_eq!(host.snapshot(), before);
}

#[test]
fn unknown_commands_are_refused_by_name() {
    let host = Host::new();
    let pod = host.pod("a");
    for plugin in plugins() {
        for command in ["add", "Version", "UPDATE", " ADD", "ADD "] {
            let call = Call::new(&host, command, &of_plugin(plugin, conf("1.1.0"))).of(&pod);
            call.run().fails(4, &["CNI_COMMAND", command]);
        }
    }
}

#[test]
fn without_a_command_a_plugin_tells_what_it_is() {
    let host = Host::new();
    let call = Call::new(&host, "", &Value::Null).without("CNI_PATH").stdin("");
    for plugin in plugins() {
        let by_name = call.clone().plugin(plugin);
        let shell = format!("exec \"$0\" {plugin}");
        let by_argument = call.clone().under(&["sh", "-c", &shell, PLUMB]);
        for call in [by_name.clone(), by_argument, by_name.without("CNI_COMMAND")] {
            let outcome = call.run();
            assert!(outcome.status.success(), "{outcome:#?}");
            assert_eq!(outcome.stdout, "");
            let mut lines = outcome.stderr.lines();
            let version = format!("CNI {plugin} plugin v{} (plumb)", env!("CARGO_PKG_VERSION"));
            assert_eq!(lines.next(), Some(version.as_str()));
            let versions = format!("CNI protocol versions supported: {}", VERSIONS.join(", "));
            assert_eq!(lines.next(), Some(versions.as_str()));
        }
    }
}

/// Engines ask with made-up values, and often; some leave standard input open.
#[test]
fn version_is_answered_without_a_look_at_anything_else() {
    let host = Host::new();
    for plugin in plugins() {
        let mut command = host.command(format!("{BIN}/{plugin}"));
        command.env("CNI_COMMAND", "VERSION").env("CNI_CONTAINERID", "");
        command.env("CNI_NETNS", "dummy").env("CNI_IFNAME", "a/b").env("CNI_PATH", "dummy");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let open = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        assert!(ends(child).success());
        drop(open);
        let expected = format!(
            "{{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"{}\"]}}\n",
            VERSIONS.join("\",\"")
        );
        assert_eq!(std::io::read_to_string(stdout).unwrap(), expected);
        assert_eq!(std::io::read_to_string(stderr).unwrap(), "");
    }
    let call = Call::new(&host, "VERSION", &Value::Null).stdin("no JSON");
    assert!(call.run().status.success());
}

#[test]
fn unknown_versions_and_verbs_newer_than_the_version_have_code_1() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    for plugin in plugins() {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            for version in ["9.9.9", "1", "1.1", "1.1.0 ", "v1.0.0", "0.0.0"] {
                let call = Call::new(&host, command, &of_plugin(plugin, conf(version))).of(&pod);
                let error = call.run().fails(1, &[]);
                assert_eq!(error["msg"], "incompatible CNI versions");
                let supported = VERSIONS.join("\", \"");
                let expected = format!("config is {version:?}, plugin supports [\"{supported}\"]");
                assert_eq!(error["details"], *expected);
            }
        }
        for (command, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
            let mut without = conf("");
            without.as_object_mut().unwrap().remove("cniVersion");
            let too_old = VERSIONS.into_iter().filter(|version| *version < since).map(conf);
            for conf in too_old.chain([conf(""), without]) {
                let call = Call::new(&host, command, &of_plugin(plugin, conf.clone())).of(&pod);
                let error = call.run().fails(1, &[command, since]);
                let version = conf["cniVersion"].as_str().filter(|v| !v.is_empty());
                assert_eq!(error["cniVersion"], version.unwrap_or("0.1.0"), "{conf}");
            }
        }
    }
    assert_eq!(host.snapshot(), before);
}

/// One attachment that always comes out the same, whatever the version that it is asked for in.
fn full(version: Option<&str>) -> Value {
    let mut conf = json!({
        "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
        "mtu": 1400,
        "dns": {
            "nameservers": ["10.5.0.1", "fd05::1"], "domain": "a.example",
            "search": ["b.example", "c.example"], "options": ["ndots:5"],
        },
        "ipam": {
            "type": "host-local",
            "ranges": [
                [{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.7", "rangeEnd": "10.5.0.7"}],
                [{"subnet": "fd05::/64", "rangeStart": "fd05::7", "rangeEnd": "fd05::7"}],
            ],
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "192.0.2.0/24", "gw": "10.5.0.9", "mtu": 1300, "advmss": 1200,
                 "priority": 7, "table": 100, "scope": 0},
                {"dst": "::/0", "gw": "fd05::9"},
            ],
        },
    });
    if let Some(version) = version {
        conf["cniVersion"] = version.into();
    }
    conf
}

/// The addresses of the bridge, the host's end and the container's, and the host's end's name.
fn links(host: &Host, pod: &Pod<'_>) -> (String, String, String, String) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let bridge = host.ip("link show dev br0");
    let port = host.ip("link show master br0");
    let inside = pod.ip("link show dev eth0");
    let mac = |links: &Value| text(&links[0]["address"]);
    (mac(&bridge), mac(&port), mac(&inside), text(&port[0]["ifname"]))
}

const OLDEST: &str = r#"{
    "cniVersion": "VERSION",
    "ip4": {
        "ip": "10.5.0.7/24",
        "gateway": "10.5.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            },
            {
                "dst": "192.0.2.0/24",
                "gw": "10.5.0.9",
                "mtu": 1300,
                "advmss": 1200,
                "priority": 7,
                "table": 100,
                "scope": 0
            }
        ]
    },
    "ip6": {
        "ip": "fd05::7/64",
        "gateway": "fd05::1",
        "routes": [
            {
                "dst": "::/0",
                "gw": "fd05::9"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "10.5.0.1",
            "fd05::1"
        ],
        "domain": "a.example",
        "search": [
            "b.example",
            "c.example"
        ],
        "options": [
            "ndots:5"
        ]
    }
}"#;

const MIDDLE: &str = r#"{
    "cniVersion": "VERSION",
    "interfaces": [
        {
            "name": "br0",
            "mac": "BRIDGE"
        },
        {
            "name": "VETH",
            "mac": "PORT"
        },
        {
            "name": "eth0",
            "mac": "INSIDE",
            "sandbox": "/run/netns/a"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 2,
            "address": "10.5.0.7/24",
            "gateway": "10.5.0.1"
        },
        {
            "version": "6",
            "interface": 2,
            "address": "fd05::7/64",
            "gateway": "fd05::1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "192.0.2.0/24",
            "gw": "10.5.0.9",
            "mtu": 1300,
            "advmss": 1200,
            "priority": 7,
            "table": 100,
            "scope": 0
        },
        {
            "dst": "::/0",
            "gw": "fd05::9"
        }
    ],
    "dns": {
        "nameservers": [
            "10.5.0.1",
            "fd05::1"
        ],
        "domain": "a.example",
        "search": [
            "b.example",
            "c.example"
        ],
        "options": [
            "ndots:5"
        ]
    }
}"#;

/// Of 1.1.0; 1.0.0 lacks the lines with `mtu` of interfaces.
const NEWEST: &str = r#"{
    "cniVersion": "VERSION",
    "dns": {
        "domain": "a.example",
        "nameservers": [
            "10.5.0.1",
            "fd05::1"
        ],
        "options": [
            "ndots:5"
        ],
        "search": [
            "b.example",
            "c.example"
        ]
    },
    "interfaces": [
        {
            "mac": "BRIDGE",
            "mtu": 1400,
            "name": "br0"
        },
        {
            "mac": "PORT",
            "mtu": 1400,
            "name": "VETH"
        },
        {
            "mac": "INSIDE",
            "mtu": 1400,
            "name": "eth0",
            "sandbox": "/run/netns/a"
        }
    ],
    "ips": [
        {
            "address": "10.5.0.7/24",
            "gateway": "10.5.0.1",
            "interface": 2
        },
        {
            "address": "fd05::7/64",
            "gateway": "fd05::1",
            "interface": 2
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "advmss": 1200,
            "dst": "192.0.2.0/24",
            "gw": "10.5.0.9",
            "mtu": 1300,
            "priority": 7,
            "scope": 0,
            "table": 100
        },
        {
            "dst": "::/0",
            "gw": "fd05::9"
        }
    ]
}"#;

fn expected_text(version: Option<&str>, host: &Host, pod: &Pod<'_>) -> String {
    let form = match version {
        None | Some("0.1.0" | "0.2.0") => OLDEST.to_owned(),
        Some("0.3.0" | "0.3.1" | "0.4.0") => MIDDLE.to_owned(),
        Some("1.0.0") => NEWEST.replace("            \"mtu\": 1400,\n", ""),
        _ => NEWEST.to_owned(),
    };
    let (bridge, port, inside, veth) = links(host, pod);
    form.replace("VERSION", version.unwrap_or("0.1.0"))
        .replace("BRIDGE", &bridge)
        .replace("PORT", &port)
        .replace("INSIDE", &inside)
        .replace("VETH", &veth)
}

/// The forms of one and the same result, by version.
fn every_form(host: &Host, pod: &Pod<'_>) -> BTreeMap<&'static str, Value> {
    let mut forms = BTreeMap::new();
    for version in VERSIONS {
        forms.insert(version, host.add(&full(Some(version)), pod).ok());
        host.del(&full(Some(version)), pod).ok();
    }
    forms
}

#[test]
fn results_are_printed_in_the_version_asked_for() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    for version in [None].into_iter().chain(VERSIONS.map(Some)) {
        let outcome = host.add(&full(version), &pod);
        outcome.ok();
        assert_eq!(outcome.stdout, expected_text(version, &host, &pod), "{version:?}");
        assert_eq!(outcome.stderr, "");
        host.del(&full(version), &pod).ok();
    }
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// host-local by itself: the same without interfaces.
#[test]
fn results_of_address_management_are_printed_in_the_version_asked_for() {
    let host = Host::new();
    let pod = host.pod("a");
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\n");
    for version in [None].into_iter().chain(VERSIONS.map(Some)) {
        for resolv_conf in ["", "/run/resolv.conf"] {
            let mut conf = conf("");
            conf["cniVersion"] = version.into();
            conf["type"] = "host-local".into();
            conf["ipam"]["routes"] = json!([{"dst": "192.0.2.9/24", "gw": "10.5.0.9"}]);
            conf["ipam"]["rangeEnd"] = "10.5.0.2".into();
            conf["ipam"]["resolvConf"] = resolv_conf.into();
            let text = version.unwrap_or("0.1.0");
            let dns = if resolv_conf.is_empty() {
                "{}".to_owned()
            } else {
                "{\n        \"nameservers\": [\n            \"192.0.2.53\"\n        ]\n    }"
                    .to_owned()
            };
            let expected = match text {
                "0.1.0" | "0.2.0" => format!(
                    r#"{{
    "cniVersion": "{text}",
    "ip4": {{
        "ip": "10.5.0.2/24",
        "gateway": "10.5.0.1",
        "routes": [
            {{
                "dst": "192.0.2.9/24",
                "gw": "10.5.0.9"
            }}
        ]
    }},
    "dns": {dns}
}}"#
                ),
                "0.3.0" | "0.3.1" | "0.4.0" => format!(
                    r#"{{
    "cniVersion": "{text}",
    "ips": [
        {{
            "version": "4",
            "address": "10.5.0.2/24",
            "gateway": "10.5.0.1"
        }}
    ],
    "routes": [
        {{
            "dst": "192.0.2.9/24",
            "gw": "10.5.0.9"
        }}
    ],
    "dns": {dns}
}}"#
                ),
                _ => {
                    let told = !resolv_conf.is_empty();
                    let dns = if told { format!("\n    \"dns\": {dns},") } else { String::new() };
                    format!(
                        r#"{{
    "cniVersion": "{text}",{dns}
    "ips": [
        {{
            "address": "10.5.0.2/24",
            "gateway": "10.5.0.1"
        }}
    ],
    "routes": [
        {{
            "dst": "192.0.2.9/24",
            "gw": "10.5.0.9"
        }}
    ]
}}"#
                    )
                }
            };
            let outcome = host.add(&conf, &pod);
            outcome.ok();
            assert_eq!(outcome.stdout, expected, "{version:?}");
            host.del(&conf, &pod).ok();
        }
    }
}

#[test]
fn a_routes_settings_arrive_in_the_kernel() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = |settings: Value| {
        let mut route = settings;
        route["dst"] = "192.0.2.0/24".into();
        json!({"name": "net", "type": "bridge", "cniVersion": "1.1.0",
               "ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "routes": [route]}})
    };
    // What `ip route` calls a scope by number: 0 global, 253 link, 200 site.
    for (settings, expected) in [
        (json!({}), json!({"gateway": "10.5.0.1"})),
        (json!({"gw": "10.5.0.9"}), json!({"gateway": "10.5.0.9"})),
        (json!({"mtu": 1300}), json!({"gateway": "10.5.0.1", "metrics": [{"mtu": 1300}]})),
        (json!({"advmss": 1200}), json!({"gateway": "10.5.0.1", "metrics": [{"advmss": 1200}]})),
        (json!({"priority": 77}), json!({"gateway": "10.5.0.1", "metric": 77})),
        (json!({"table": 100}), json!({"gateway": "10.5.0.1", "table": "100"})),
        (json!({"table": 70000}), json!({"gateway": "10.5.0.1", "table": "70000"})),
        (json!({"scope": 0}), json!({"gateway": "10.5.0.1", "scope": "global"})),
        (json!({"scope": 200}), json!({"gateway": "10.5.0.1", "scope": "site"})),
    ] {
        let conf = conf(settings.clone());
        let result = host.add(&conf, &pod).ok();
        let mut route = settings.clone();
        route["dst"] = "192.0.2.0/24".into();
        assert_eq!(result["routes"], json!([route]));
        let routes = pod.ip("route show table all 192.0.2.0/24");
        let found = &routes.as_array().unwrap()[..];
        assert_eq!(found.len(), 1, "{routes:#}");
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(found[0][key], *value, "{settings}: {key}: {routes:#}");
        }
        for key in ["metric", "metrics"] {
            let asked = !expected[key].is_null();
            assert_eq!(!found[0][key].is_null(), asked, "{settings}: {key}: {routes:#}");
        }
        if expected["table"].is_null() {
            assert_eq!(found[0]["table"], "main", "{settings}: {routes:#}");
        }
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
    }
}

#[test]
fn check_takes_the_previous_result_in_every_form() {
    let host = Host::new();
    let pod = host.pod("a");
    let forms = every_form(&host, &pod);
    host.add(&full(Some("1.1.0")), &pod).ok();
    for asked in ["0.4.0", "1.0.0", "1.1.0"] {
        for (version, form) in &forms {
            let outcome = host.check(&full(Some(asked)), form, &pod);
            if *version < "0.3.0" {
                outcome.fails(7, &["prevResult.interfaces", "\"eth0\""]);
                continue;
            }
            outcome.ok();
            assert_eq!(outcome.stdout, "", "{asked} {version}");
            // What it says is believed: an address that is not there is missed.
            let mut other = form.clone();
            other["ips"][1]["address"] = "fd05::99/64".into();
            let outcome = host.check(&full(Some(asked)), &other, &pod);
            outcome.fails(999, &["fd05::99"]);
        }
        // Without a version of its own it is of the configuration's.
        let mut bare = forms[asked].clone();
        bare.as_object_mut().unwrap().remove("cniVersion");
        host.check(&full(Some(asked)), &bare, &pod).ok();
        bare["cniVersion"] = "9.9.9".into();
        host.check(&full(Some(asked)), &bare, &pod).fails(1, &["9.9.9"]);
        let without = Call::new(&host, "CHECK", &full(Some(asked))).of(&pod).run();
        without.fails(7, &["prevResult"]);
    }
}

/// The leases are lost, so that nothing but the previous result tells which addresses were masqueraded.
#[test]
fn del_takes_the_previous_result_in_every_form() {
    let host = Host::new();
    let pod = host.pod("a");
    let forms = every_form(&host, &pod);
    let elements = |expected: usize, what: &str| {
        let comments = host.element_comments();
        assert_eq!(comments.len(), expected, "{what}: {comments:?}");
    };
    for asked in VERSIONS {
        for own_version in [true, false] {
            // Every version once, and the versions of forms shifted against those asked for.
            let shift = if own_version { 3 } else { 0 };
            let at = VERSIONS.iter().position(|version| *version == asked).unwrap();
            let version = VERSIONS[(at + shift) % VERSIONS.len()];
            let mut form = forms[version].clone();
            if !own_version {
                form.as_object_mut().unwrap().remove("cniVersion");
            }
            host.add(&full(Some(asked)), &pod).ok();
            elements(2, asked);
            host.sh("rm -r /var/lib/cni");
            let mut conf = full(Some(asked));
            conf["prevResult"] = form;
            host.del(&conf, &pod).ok();
            elements(0, &format!("asked {asked}, previous {version}, {own_version}"));
        }
    }
    // A previous result that can't be read keeps nobody from cleaning up.
    host.add(&full(Some("1.0.0")), &pod).ok();
    let mut conf = full(Some("1.0.0"));
    conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": 5});
    host.del(&conf, &pod).ok();
    elements(0, "unreadable");
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

#[test]
fn keys_match_in_any_case_and_exact_ones_win() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = json!({
        "CNIVersion": "1.0.0", "NAME": "net", "Type": "bridge", "Bridge": "Br7", "IPMasq": true,
        "ISGateway": true, "MTU": 1300, "HairpinMode": true, "DNS": {"NameServers": ["10.6.0.1"]},
        "IPAM": {
            "TYPE": "host-local", "Ranges": [[{"Subnet": "10.6.0.0/24", "RANGESTART": "10.6.0.9"}]],
            "Routes": [{"DST": "192.0.2.0/24", "GW": "10.6.0.8", "Priority": 5}],
        },
    });
    let result = host.add(&conf, &pod).ok();
    assert_eq!(result["cniVersion"], "1.0.0");
    assert_eq!(result["interfaces"][0]["name"], "Br7", "values keep their case");
    assert_eq!(result["ips"][0]["address"], "10.6.0.9/24");
    assert_eq!(result["dns"], json!({"nameservers": ["10.6.0.1"]}));
    assert_eq!(pod.addresses("eth0"), ["10.6.0.9/24"]);
    assert_eq!(pod.ip("link show dev eth0")[0]["mtu"], 1300);
    let port = &host.ip("link show master Br7")[0];
    assert_eq!(port["linkinfo"]["info_slave_data"]["hairpin"], true, "{port:#}");
    assert_eq!(host.element_comments().len(), 1);
    host.del(&conf, &pod).ok();
    assert_eq!(host.element_comments().len(), 0);
    assert_eq!(host.leases("net"), [] as [&str; 0]);

    // Whichever comes first.
    for text in [
        r#"{"name":"n","type":"bridge","bridge":"exact0","Bridge":"other0","BRIDGE":"other1"}"#,
        r#"{"name":"n","type":"bridge","BRIDGE":"other1","Bridge":"other0","bridge":"exact0"}"#,
    ] {
        let call = Call::new(&host, "ADD", &conf).of(&pod).stdin(text);
        call.run().ok();
        assert_eq!(host.ip("link show master exact0").as_array().unwrap().len(), 1, "{text}");
        Call::new(&host, "DEL", &conf).of(&pod).stdin(text).run().ok();
    }
    assert!(!host.sh("ip -br link").contains("other"), "no bridge of another name");
}

#[test]
fn null_and_empty_are_as_if_absent() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let layer2 = [
        json!({"ipam": null}),
        json!({"ipam": {}}),
        json!({"ipam": {"type": ""}}),
        json!({"ipam": {"type": null}}),
        json!({"ipam": null, "dns": null, "args": null, "runtimeConfig": null, "bridge": null,
               "mtu": null, "isGateway": null, "isDefaultGateway": null, "forceAddress": null,
               "ipMasq": null, "ipMasqBackend": null, "hairpinMode": null, "promiscMode": null,
               "vlan": null, "vlanTrunk": null, "preserveDefaultVlan": null, "macspoofchk": null,
               "enabledad": null, "disableContainerInterface": null, "portIsolation": null,
               "capabilities": null, "prevResult": null}),
        json!({"dns": {}, "args": {}, "runtimeConfig": {}, "vlanTrunk": [], "vlan": 0, "mtu": 0,
               "ipMasqBackend": "", "args": {"cni": null}, "runtimeConfig": {"mac": ""}}),
    ];
    for form in layer2 {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge"});
        conf.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
        let result = host.add(&conf, &pod).ok();
        let keys: Vec<_> = result.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["cniVersion", "interfaces"], "{conf}");
        assert_eq!(result["interfaces"][0]["name"], "cni0");
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
        host.status(&conf).ok();
    }
    let leasing = [
        json!({"routes": null, "ranges": null, "dataDir": null, "resolvConf": null,
               "rangeStart": null, "rangeEnd": null, "gateway": null}),
        json!({"routes": [], "ranges": [], "dataDir": "", "resolvConf": ""}),
    ];
    for form in leasing {
        for runtime in [json!(null), json!({"ips": null, "ipRanges": null}), json!({"ips": []})] {
            let mut conf = conf("1.1.0");
            conf["bridge"] = "cni0".into();
            conf["ipam"].as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
            conf["runtimeConfig"] = runtime.clone();
            conf["args"] = json!({"cni": {"ips": runtime["ips"]}});
            let result = host.add(&conf, &pod).ok();
            assert_eq!(result["ips"][0]["gateway"], "10.5.0.1", "{conf}");
            assert_eq!(result.get("routes"), None);
            assert_eq!(result.get("dns"), None);
            host.check(&conf, &result, &pod).ok();
            host.del(&conf, &pod).ok();
        }
    }
    host.snapshot().assert_nothing_but_shared(&before, "cni0");
}

#[test]
fn name_resolution_of_the_configuration_replaces_that_of_the_leases() {
    let host = Host::new();
    let pod = host.pod("a");
    host.write("/run/resolv.conf", "nameserver 192.0.2.53\nsearch of.leases\noptions ndots:1\n");
    let of_leases = json!({"nameservers": ["192.0.2.53"], "search": ["of.leases"],
                           "options": ["ndots:1"]});
    for version in VERSIONS {
        for (dns, expected) in [
            (json!(null), of_leases.clone()),
            (json!({}), of_leases.clone()),
            (json!({"nameservers": [], "domain": "", "search": null}), of_leases.clone()),
            (json!({"domain": "own"}), json!({"domain": "own"})),
            (json!({"options": ["rotate"]}), json!({"options": ["rotate"]})),
        ] {
            let mut conf = conf(version);
            conf["ipam"]["resolvConf"] = "/run/resolv.conf".into();
            conf["dns"] = dns;
            assert_eq!(host.add(&conf, &pod).ok()["dns"], expected, "{conf}");
            host.del(&conf, &pod).ok();
        }
    }
}

#[test]
fn the_three_sources_of_arguments() {
    const ARGS: &str = "02:00:00:00:00:01";
    const CNI: &str = "02:00:00:00:00:02";
    const RUNTIME: &str = "02:00:00:00:00:03";
    let host = Host::new();
    let pod = host.pod("a");
    let mac_of = |conf: &Value, args: &str| {
        let add = Call::new(&host, "ADD", conf).of(&pod).env("CNI_ARGS", args);
        let result = add.run().ok();
        let inside = pod.ip("link show dev eth0")[0]["address"].clone();
        assert_eq!(result["interfaces"][2]["mac"], inside);
        Call::new(&host, "DEL", conf).of(&pod).env("CNI_ARGS", args).run().ok();
        inside
    };
    let of = |args: Value, runtime: Value| {
        json!({"cniVersion": "1.0.0", "name": "n", "type": "bridge",
               "args": args, "runtimeConfig": runtime})
    };
    let args = format!("IgnoreUnknown=1;K8S_POD_NAME=x;MAC={ARGS}");
    let (cni, runtime) = (json!({"cni": {"mac": CNI}}), json!({"mac": RUNTIME}));
    assert_eq!(mac_of(&of(json!(null), json!(null)), &args), ARGS);
    assert_eq!(mac_of(&of(cni.clone(), json!(null)), &args), CNI);
    assert_eq!(mac_of(&of(cni.clone(), runtime), &args), RUNTIME);
    assert_eq!(mac_of(&of(cni, json!({"Mac": "02-00-00-00-00-03"})), ""), RUNTIME);

    let leased = |conf: &Value, args: &str| {
        let add = Call::new(&host, "ADD", conf).of(&pod).env("CNI_ARGS", args);
        let result = add.run().ok();
        host.del(conf, &pod).ok();
        result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].clone()).collect::<Vec<_>>()
    };
    let mut conf = conf("1.0.0");
    assert_eq!(leased(&conf, "IP=10.5.0.70"), ["10.5.0.70/24"]);
    assert_eq!(leased(&conf, "IP=10.5.0.71/24;GATEWAY=10.5.0.1"), ["10.5.0.71/24"]);
    conf["args"] = json!({"cni": {"ips": ["10.5.0.72"]}});
    assert_eq!(leased(&conf, ""), ["10.5.0.72/24"]);
    conf["args"] = json!({"CNI": {"IPs": ["10.5.0.73/24"]}});
    assert_eq!(leased(&conf, ""), ["10.5.0.73/24"]);
    // As CRI writes them.
    conf["args"] = json!(null);
    conf["runtimeConfig"] = json!({"IPs": ["10.5.0.74", "fd05::74"],
        "IPRanges": [[{"Subnet": "fd05::/64", "RangeStart": "fd05::70"}]]});
    assert_eq!(leased(&conf, ""), ["fd05::74/64", "10.5.0.74/24"]);
}

#[test]
fn cni_args_are_strict_unless_told_otherwise() {
    let host = host_with_link();
    let before = host.snapshot();
    let pod = host.pod("a");
    // Plugin loopback has no use for them.
    for plugin in plugins_by_themselves().filter(|plugin| *plugin != "loopback") {
        let add = |args: &str| {
            let conf = of_plugin(plugin, conf("1.0.0"));
            Call::new(&host, "ADD", &conf).of(&pod).env("CNI_ARGS", args)
        };
        for (args, named) in [
            ("none", "\"none\""),
            ("IP=10.5.0.9=1", "\"IP=10.5.0.9=1\""),
            ("IP=10.5.0.9;", "\"\""),
            ("ip=10.5.0.9", "ip=10.5.0.9"),
            ("K8S_POD_NAME=x", "K8S_POD_NAME=x"),
            ("IgnoreUnknown=0;K8S_POD_NAME=x", "K8S_POD_NAME=x"),
            ("IgnoreUnknown=perhaps", "\"perhaps\""),
            ("IP=10.5.0", "\"10.5.0\""),
        ] {
            add(args).run().fails(4, &["CNI_ARGS", named]);
        }
        assert_eq!(host.snapshot(), before, "{plugin}");
    }
    for args in ["IgnoreUnknown=1;A=b", "A=b;IgnoreUnknown=true", "IgnoreUnknown=True;A=b"] {
        let call = |command| {
            Call::new(&host, command, &conf("1.0.0")).of(&pod).env("CNI_ARGS", args).run()
        };
        call("ADD").ok();
        call("DEL").ok();
    }
    // What is wrong with them keeps nobody from cleaning up.
    host.add(&conf("1.0.0"), &pod).ok();
    Call::new(&host, "DEL", &conf("1.0.0")).of(&pod).env("CNI_ARGS", "none").run().ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

const PANIC_OUTPUT: &str = "PLUMB_TEST_PANIC_OUTPUT";

/// The test runs itself again, as a plugin that panics; the harness' own words go elsewhere.
#[test]
fn a_panic_is_one_error_object_as_well() {
    fn panics<T>(_: &Request) -> T {
        panic!("the \"floor\" is lava");
    }
    const PLUGIN: Plugin = Plugin {
        name: "panics",
        about: "Panics.",
        add: panics,
        del: panics,
        check: panics,
        gc: panics,
        status: panics,
    };
    if let Some(path) = std::env::var_os(PANIC_OUTPUT) {
        let output = std::fs::File::create(path).unwrap();
        nix::unistd::dup2_stdout(&output).unwrap();
        std::process::exit(frame::run(&PLUGIN));
    }
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("stdout");
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "protocol::a_panic_is_one_error_object_as_well", "--nocapture"]);
        child.env(PANIC_OUTPUT, &output).env("CNI_COMMAND", command).env("CNI_PATH", "/x");
        child.env("CNI_CONTAINERID", "c").env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/nowhere");
        child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(br#"{"cniVersion":"1.1.0","name":"n"}"#).unwrap();
        drop(stdin);
        assert_eq!(ends(child).code(), Some(1), "{command}");
        let text = std::fs::read_to_string(&output).unwrap();
        let error: Value =
            serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        assert_eq!(error["code"], 999);
        assert!(error["msg"].as_str().unwrap().contains("protocol.rs:"), "{text}");
        assert_eq!(error["details"], "the \"floor\" is lava");
    }
}

/// A result that nobody has received belongs to nobody.
#[test]
fn an_add_that_can_not_tell_its_result_is_undone() {
    let host = host_with_link();
    let before = host.snapshot();
    let pod = host.pod("a");
    let mut conf = full(Some("1.0.0"));
    conf["macspoofchk"] = true.into();
    let close = || {
        // SAFETY: nobody else in this process has a use for its standard output.
        unsafe { libc::close(1) };
        Ok(())
    };
    for plugin in plugins_by_themselves().filter(|plugin| is_served(&host, plugin)) {
        let add = Call::new(&host, "ADD", &of_plugin(plugin, conf.clone())).of(&pod);
        for (call, why) in [
            (add.clone().stdout("/dev/full"), "No space left"),
            (add.clone().before_exec(close), "Bad file"),
        ] {
            let outcome = call.run();
            assert_eq!(outcome.status.code(), Some(1), "{outcome:#?}");
            // There is no other way left to say so.
            assert!(outcome.stderr.contains("cannot print the result"), "{outcome:#?}");
            assert!(outcome.stderr.contains(why), "{outcome:#?}");
            assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo is left");
            host.snapshot().assert_nothing_but_shared(&before, "br0");
        }
        // The runtime has gone before the plugin answers.
        let mut child = add.start_with_stdin_open();
        drop(child.stdout.take());
        drop(child.stdin.take());
        let stderr = child.stderr.take().unwrap();
        assert_eq!(ends(child).code(), Some(1));
        let stderr = std::io::read_to_string(stderr).unwrap();
        assert!(stderr.contains("Broken pipe"), "{stderr}");
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "only lo is left");
        host.snapshot().assert_nothing_but_shared(&before, "br0");
    }
    for command in ["VERSION", "NONSENSE"] {
        let outcome = Call::new(&host, command, &conf).stdout("/dev/full").run();
        assert_eq!(outcome.status.code(), Some(1), "{outcome:#?}");
    }
}

/// A socket tells its namespace to who has CAP_NET_ADMIN, which address management alone does not need.
#[test]
fn our_own_namespace_is_refused_without_privilege_too() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": ipv4(),
    });
    let without = ["setpriv", "--bounding-set=-net_admin"];
    let call = Call::new(&host, "ADD", &conf).of(&pod).under(&without);
    let own = call.clone().env("CNI_NETNS", "/proc/self/ns/net");
    own.run().fails(8, &["CNI_NETNS", "should not be the same"]);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    call.run().ok();
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
}

#[test]
fn our_own_namespace_is_refused_before_anything_is_done() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    host.sh("touch /run/netns/own; mount --bind /proc/self/ns/net /run/netns/own");
    let mut conf = full(Some("1.0.0"));
    conf["prevResult"] = json!({"interfaces": [{"name": "eth0", "sandbox": "/x"}]});
    for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net", "/run/netns/own"] {
        for plugin in plugins() {
            for command in ["ADD", "DEL", "CHECK"] {
                let call = Call::new(&host, command, &of_plugin(plugin, conf.clone())).of(&pod);
                let call = call.env("CNI_NETNS", path);
                call.run().fails(8, &["CNI_NETNS", path, "should not be the same"]);
                for value in ["", "0", "yes"] {
                    call.clone().env("CNI_NETNS_OVERRIDE", value).run().fails(8, &[path]);
                }
            }
        }
    }
    assert_eq!(host.snapshot(), before);
    assert_eq!(host.sh("ls -A /var/lib/cni 2>/dev/null || true"), "");

    for value in ["1", "true", "TRUE"] {
        let call = |command| {
            Call::new(&host, command, &conf)
                .of(&pod)
                .env("CNI_NETNS", "/run/netns/own")
                .env("CNI_NETNS_OVERRIDE", value)
                .run()
        };
        call("ADD").ok();
        assert_eq!(host.ip("addr show dev eth0")[0]["addr_info"][0]["local"], "10.5.0.7");
        call("DEL").ok();
    }
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn standard_input_without_end_is_refused() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    for plugin in plugins() {
        let whole = [b" ".repeat(17 << 20), conf("1.0.0").to_string().into_bytes()].concat();
        let outcome = Call::new(&host, "ADD", &of_plugin(plugin, conf("1.0.0"))).of(&pod);
        outcome.stdin(whole).run().fails(5, &["standard input", "16777216 bytes"]);

        let mut command = host.command(format!("{BIN}/{plugin}"));
        command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", "a").env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", pod.path()).env("CNI_PATH", BIN);
        command.stdin(std::fs::File::open("/dev/zero").unwrap()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        assert_eq!(ends(child).code(), Some(1));
        let error: Value = serde_json::from_str(&std::io::read_to_string(stdout).unwrap()).unwrap();
        assert_eq!(error["code"], 5, "{error}");
    }
    assert_eq!(host.snapshot(), before);
    // One that is merely large is read whole.
    let mut large = conf("1.0.0");
    large["comment"] = "x".repeat(1 << 20).into();
    host.add(&large, &pod).ok();
    host.del(&large, &pod).ok();
}

/// What a plugin opens next would be standard output, and its result go into a lease file.
#[test]
fn closed_standard_descriptors_are_nobody_elses() {
    let host = Host::new();
    let mut leasing = conf("1.1.0");
    leasing["type"] = "host-local".into();
    leasing["ipam"] = ipv4();
    let call = |command: &str, script: &str| {
        let calls = "trace=open,openat,socket";
        let words = ["strace", "-f", "-qq", "-o", "/run/trace", "-e", calls, "sh", "-c", script];
        let call = Call::new(&host, command, &leasing).attachment("a", "eth0");
        let outcome = call.under(&words).run();
        let is_standard = |call: &&str| ["= 0", "= 1", "= 2"].iter().any(|end| call.ends_with(end));
        let is_opened = |call: &&str| !call.contains("\"/\", O_");
        let trace = host.read("/run/trace");
        let taken: Vec<_> = trace.lines().filter(is_standard).filter(is_opened).collect();
        assert_eq!(taken, [] as [&str; 0], "{command} {script}");
        outcome
    };
    for script in ["exec \"$0\" >&-", "exec \"$0\" >&- 2>&-", "exec \"$0\" <&- >&- 2>&-"] {
        let outcome = call("ADD", script);
        assert_eq!(outcome.status.code(), Some(1), "{script}: {outcome:?}");
        assert_eq!(host.leases("net"), [] as [&str; 0], "{script}");
        host.sh("! grep -r cniVersion /var/lib/cni");
    }
    call("ADD", "exec \"$0\" <&-").fails(5, &["standard input", "EBADF"]);
    call("ADD", "exec \"$0\" 2>&-").ok();
    let lease = format!("/var/lib/cni/networks/net/{}", host.leases("net")[0]);
    assert_eq!(host.read(&lease).split_whitespace().collect::<Vec<_>>(), ["a", "eth0"]);
    call("DEL", "exec \"$0\" >&- 2>&-").ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}
