//! Bad input: each case is refused with the right code and a message that names the culprit, and
//! nothing is changed.

use std::io;

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, Snapshot};

/// Wrong type or malformed input; a value that can't be accepted; a bad environment; a bad namespace.
const DECODE: u64 = 6;
const INVALID: u64 = 7;
const ENVIRONMENT: u64 = 4;
const NETNS: u64 = 8;

/// What DEL makes of a configuration that ADD refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Del {
    /// It has no use for what is wrong, and cleans up.
    Cleans,
    /// It can't know where to look, and says so.
    Refuses,
}
use Del::{Cleans, Refuses};

/// A host on which nothing is to change.
struct Untouched<'a> {
    host: &'a Host,
    pod: &'a Pod<'a>,
    before: Snapshot,
    glance: String,
    failures: Vec<String>,
}

impl<'a> Untouched<'a> {
    fn new(host: &'a Host, pod: &'a Pod<'a>) -> Self {
        let (before, glance) = (host.snapshot(), Self::glance(host));
        Self { host, pod, before, glance, failures: Vec::new() }
    }

    /// What shows most changes at little cost: links with their state, and whether there are leases.
    fn glance(host: &Host) -> String {
        host.sh("ip -o link; find /var/lib/cni 2>/dev/null || true")
    }

    fn call(&self, command: &str, conf: &Value) -> Call<'a> {
        Call::new(self.host, command, conf).of(self.pod)
    }

    /// The call has to fail with this code, all of the words, and no change.
    fn refuses(&mut self, call: &Call<'_>, code: u64, words: &[&str], what: &str) {
        self.fails(call, code, words, what);
        self.unchanged(what);
    }

    /// The call has to succeed without a change.
    fn accepts(&mut self, call: &Call<'_>, what: &str) {
        self.succeeds(call, what);
        self.unchanged(what);
    }

    fn fails(&mut self, call: &Call<'_>, code: u64, words: &[&str], what: &str) {
        let outcome = call.run();
        let error: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
        let text = format!("{} {}", error["msg"], error["details"]);
        let text = text.replace("\\\"", "\"").replace("\\\\", "\\");
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        if outcome.status.code() != Some(1) || error["code"] != code || !missing.is_empty() {
            self.failures.push(format!("{what}\n  expected {code} {missing:?}: {outcome:?}"));
        }
    }

    fn succeeds(&mut self, call: &Call<'_>, what: &str) {
        let outcome = call.run();
        if !outcome.status.success() || !outcome.stdout.is_empty() || !outcome.stderr.is_empty() {
            self.failures.push(format!("{what}\n  expected success: {outcome:?}"));
        }
    }

    fn unchanged(&mut self, what: &str) {
        let now = Self::glance(self.host);
        if now != self.glance {
            self.failures.push(format!("{what}\n  changed {}\n  to {now}", self.glance));
            self.glance = now;
        }
    }

    /// ADD and STATUS refuse the configuration; what DEL does is said.
    fn conf(&mut self, conf: &Value, code: u64, words: &[&str], del: Del) {
        // Looked at before DEL could tidy up.
        self.refuses(&self.call("ADD", conf), code, words, &format!("ADD {conf}"));
        self.fails(&self.call("STATUS", conf), code, words, &format!("STATUS {conf}"));
        let what = format!("DEL {conf}");
        match del {
            Cleans => self.succeeds(&self.call("DEL", conf), &what),
            Refuses => self.fails(&self.call("DEL", conf), code, words, &what),
        }
    }

    /// The key at `path` gets each of the values in turn; the error names it and the value.
    fn key(&mut self, base: &Value, path: &str, code: u64, values: &[Value], del: Del) {
        for value in values {
            let mut conf = base.clone();
            set(&mut conf, path, value.clone());
            let got = value.to_string();
            let got = got.strip_suffix('"').unwrap_or(&got);
            self.conf(&conf, code, &[&format!("{path}: expected "), "got ", got], del);
        }
    }

    fn end(self) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        let links = self.pod.ip("link show");
        assert_eq!(links.as_array().unwrap().len(), 1, "{links:#}");
        assert_eq!(self.host.snapshot(), self.before);
    }
}

/// Puts `value` at a path such as `ipam.ranges[0][0].subnet`, making what is not there.
fn set(conf: &mut Value, path: &str, value: Value) {
    let path = path.replace('[', ".#");
    let mut place = conf;
    for step in path.split('.') {
        place = match step.strip_prefix('#') {
            Some(index) => {
                let index: usize = index.strip_suffix(']').unwrap().parse().unwrap();
                if !place.is_array() {
                    *place = json!([]);
                }
                let list = place.as_array_mut().unwrap();
                list.resize(list.len().max(index + 1), Value::Null);
                &mut list[index]
            }
            None => &mut place[step],
        };
    }
    *place = value;
}

/// Values of every JSON type but those named.
fn all_but(right: &[&str]) -> Vec<Value> {
    let types = [
        ("boolean", json!(true)),
        ("number", json!(7)),
        ("fraction", json!(1.5)),
        ("string", json!("x")),
        ("list", json!(["x"])),
        ("object", json!({"x": 1})),
    ];
    types.into_iter().filter(|(name, _)| !right.contains(name)).map(|(_, value)| value).collect()
}

fn layer2() -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0"})
}

fn leasing() -> Value {
    let mut conf = layer2();
    conf["ipam"] = json!({"type": "host-local", "subnet": "10.5.0.0/24"});
    conf
}

#[test]
fn standard_input_that_is_no_configuration() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let whole = leasing().to_string();
    let texts: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "empty"),
        (b" \n\t ".to_vec(), "empty"),
        (b"\0".to_vec(), "not a JSON document"),
        (b"\xff\xfe".to_vec(), "not a JSON document"),
        (b"\xef\xbb\xbf{}".to_vec(), "not a JSON document"),
        (b"bridge: br0".to_vec(), "not a JSON document"),
        (b"{'name':'net'}".to_vec(), "not a JSON document"),
        (format!("{whole}{whole}").into_bytes(), "not a JSON document"),
        (format!("{whole},").into_bytes(), "not a JSON document"),
        ("[".repeat(100_000).into_bytes(), "not a JSON document"),
        ([vec![b'['; 100_000], vec![b']'; 100_000]].concat(), "not a JSON document"),
        ("{\"a\":".repeat(100_000).into_bytes(), "not a JSON document"),
        (b"{\"name\":\"a\xff\"}".to_vec(), "not a JSON document"),
        (b"[]".to_vec(), "configuration: expected an object, got []"),
        (b"null".to_vec(), "configuration: expected an object, got null"),
        (b"\"net\"".to_vec(), "configuration: expected an object, got \"net\""),
        (b"5".to_vec(), "configuration: expected an object, got 5"),
    ];
    let truncated = (1..whole.len())
        .step_by(7)
        .map(|at| (whole.as_bytes()[..at].to_vec(), "not a JSON document"));
    for (text, words) in texts.into_iter().chain(truncated) {
        let what = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
        for plugin in ["bridge", "host-local"] {
            for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
                // What is wrong with the text is the same for all; a few will do for most.
                if command == "ADD" || text.len() < 10 {
                    let call = host.call(command, &Value::Null).plugin(plugin).stdin(text.clone());
                    host.refuses(&call, DECODE, &[words], &format!("{plugin} {command} {what}"));
                }
            }
        }
    }
    host.end();
}

#[test]
fn names_that_lead_elsewhere() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let names = ["../net", "..", ".", "/etc", "a/b", "-net", "_net", "a b", "a\u{0}", "ä", "a\n"];
    for plugin in ["bridge", "host-local"] {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            for name in names {
                let mut conf = leasing();
                conf["name"] = name.into();
                let got = format!("got {}", json!(name)).replace("\\u0000", "\\0");
                let call = host.call(command, &conf).plugin(plugin);
                let what = format!("{plugin} {command} {name}");
                host.refuses(&call, INVALID, &["name: expected a network name", &got], &what);
            }
            for name in [json!(""), json!(null)] {
                let mut conf = leasing();
                conf["name"] = name;
                let call = host.call(command, &conf).plugin(plugin);
                host.refuses(
                    &call,
                    INVALID,
                    &["missing network name"],
                    &format!("{command} {conf}"),
                );
            }
        }
        // Containers and interfaces; what their names may look like is a matter of the protocol.
        for command in ["ADD", "DEL", "CHECK"] {
            for (variable, value) in [
                ("CNI_CONTAINERID", "../../etc/passwd"),
                ("CNI_CONTAINERID", "/a"),
                ("CNI_CONTAINERID", "a\r\neth0"),
                ("CNI_IFNAME", "../eth0"),
                ("CNI_IFNAME", "/eth0"),
                ("CNI_IFNAME", ".."),
                ("CNI_IFNAME", "conf/all"),
            ] {
                let call = host.call(command, &leasing()).plugin(plugin).env(variable, value);
                let got = format!("{value:?}");
                let what = format!("{plugin} {command} {value:?}");
                host.refuses(&call, ENVIRONMENT, &[variable, &got], &what);
            }
        }
    }
    host.end();
}

#[test]
fn names_too_long_to_label_what_is_made() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let long = "x".repeat(300);
    let add = host.call("ADD", &leasing()).env("CNI_CONTAINERID", &long);
    host.refuses(&add, ENVIRONMENT, &["CNI_CONTAINERID", "too long", "expected at most"], "ADD");
    let del = host.call("DEL", &leasing()).env("CNI_CONTAINERID", &long);
    host.accepts(&del, "DEL of what can't have been made");

    let mut conf = leasing();
    conf["name"] = long.clone().into();
    let add = host.call("ADD", &conf);
    host.refuses(&add, ENVIRONMENT, &["network name", "too long", "expected at most"], "ADD");
    let add = host.call("ADD", &conf).plugin("host-local");
    host.refuses(&add, 5, &["lease directory", &long], "ADD of host-local");
    for plugin in ["bridge", "host-local"] {
        let del = host.call("DEL", &conf).plugin(plugin);
        host.accepts(&del, "DEL of what can't have been made");
    }
    host.end();
}

#[test]
fn every_key_of_bridge_with_every_wrong_type() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let base = layer2();
    for key in ["cniVersion", "name"] {
        host.key(&base, key, DECODE, &all_but(&["string"]), Refuses);
    }
    for key in [
        "isGateway",
        "isDefaultGateway",
        "forceAddress",
        "ipMasq",
        "hairpinMode",
        "promiscMode",
        "preserveDefaultVlan",
        "macspoofchk",
        "enabledad",
        "disableContainerInterface",
        "portIsolation",
    ] {
        host.key(&base, key, DECODE, &all_but(&["boolean"]), Cleans);
        // As an example of the documentation's has it, where it fails as well.
        host.key(&base, key, DECODE, &[json!("true"), json!(0)], Cleans);
    }
    for key in ["bridge", "ipMasqBackend", "dns.domain", "args.cni.mac", "runtimeConfig.mac"] {
        host.key(&base, key, DECODE, &all_but(&["string"]), Cleans);
    }
    for key in ["mtu", "vlan", "vlanTrunk[0].id", "vlanTrunk[1].minID", "vlanTrunk[0].maxID"] {
        let mut base = base.clone();
        if key.ends_with("minID") {
            base["vlanTrunk"] = json!([{"id": 5}]);
        }
        host.key(&base, key, DECODE, &all_but(&["number"]), Cleans);
    }
    for key in ["vlanTrunk", "dns.nameservers", "dns.search", "dns.options"] {
        host.key(&base, key, DECODE, &all_but(&["list"]), Cleans);
    }
    for key in ["dns.nameservers[0]", "dns.search[2]", "dns.options[0]"] {
        let mut base = base.clone();
        base["dns"] = json!({"search": ["a", "b"]});
        host.key(&base, key, DECODE, &all_but(&["string"]), Cleans);
    }
    for key in ["dns", "args", "args.cni", "runtimeConfig", "vlanTrunk[0]"] {
        host.key(&base, key, DECODE, &all_but(&["object"]), Cleans);
    }
    host.key(&base, "ipam", DECODE, &all_but(&["object"]), Refuses);
    host.key(&base, "ipam.type", DECODE, &all_but(&["string"]), Refuses);
    host.end();
}

#[test]
fn values_of_bridge_out_of_range() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let base = layer2();
    let names =
        ["", ".", "..", "a/b", "../br0", "a:0", "a b", "sixteen-bytes-xx", "all", "default"];
    for name in names {
        host.key(&base, "bridge", INVALID, &[name.into()], Cleans);
    }
    let mtus = [json!(-1), json!(1), json!(67), json!(65536), json!(u64::MAX)];
    host.key(&base, "mtu", INVALID, &mtus, Cleans);
    host.key(&base, "mtu", DECODE, &[json!(1e30)], Cleans);
    host.key(&base, "vlan", INVALID, &[json!(-1), json!(4095), json!(1_u64 << 40)], Cleans);
    for key in ["vlanTrunk[0].id", "vlanTrunk[0].minID", "vlanTrunk[0].maxID"] {
        host.key(&base, key, INVALID, &[json!(0), json!(4095), json!(-5)], Cleans);
    }
    let trunks = [
        json!({"minID": 5}),
        json!({"maxID": 5}),
        json!({"maxID": 5, "minID": 6}),
        json!({"id": 5, "minID": 6}),
    ];
    host.key(&base, "vlanTrunk[0]", INVALID, &trunks, Cleans);
    let backends = [json!("ebtables"), json!("nft"), json!("IPTables ")];
    host.key(&base, "ipMasqBackend", INVALID, &backends, Cleans);
    let macs = [
        "x",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "02:00:00:00:00:0g",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
    ];
    for mac in macs {
        host.key(&base, "args.cni.mac", INVALID, &[mac.into()], Cleans);
        host.key(&base, "runtimeConfig.mac", INVALID, &[mac.into()], Cleans);
        let call = host.call("ADD", &base).env("CNI_ARGS", &format!("MAC={mac}"));
        host.refuses(&call, ENVIRONMENT, &["CNI_ARGS: MAC: expected", mac], mac);
    }
    let both = json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "promiscMode": true,
                      "hairpinMode": true});
    host.conf(&both, INVALID, &["promiscMode", "hairpinMode"], Cleans);
    let mut down = leasing();
    down["disableContainerInterface"] = true.into();
    host.conf(&down, INVALID, &["disableContainerInterface", "ipam.type"], Cleans);
    let mut long = leasing();
    long["bridge"] = "twelve-bytes".into();
    long["vlan"] = 100.into();
    long["isGateway"] = true.into();
    host.conf(&long, INVALID, &["bridge", "\"twelve-bytes.100\"", "15 bytes"], Cleans);
    host.end();
}

/// Each of the keys of host-local's, through bridge and by itself.
fn address_management(host: &mut Untouched<'_>, conf: &Value, code: u64, words: &[&str], del: Del) {
    host.conf(conf, code, words, del);
    let mut alone = conf.clone();
    alone["type"] = "host-local".into();
    host.conf(&alone, code, words, del);
}

fn address_key(
    host: &mut Untouched<'_>,
    base: &Value,
    path: &str,
    code: u64,
    values: &[Value],
    del: Del,
) {
    host.key(base, path, code, values, del);
    let mut alone = base.clone();
    alone["type"] = "host-local".into();
    host.key(&alone, path, code, values, del);
}

#[test]
fn every_key_of_host_local_with_every_wrong_type() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let base = leasing();
    for key in ["subnet", "rangeStart", "rangeEnd", "gateway", "resolvConf"] {
        let key = format!("ipam.{key}");
        address_key(&mut host, &base, &key, DECODE, &all_but(&["string"]), Cleans);
    }
    address_key(&mut host, &base, "ipam.dataDir", DECODE, &all_but(&["string"]), Refuses);
    let mut ranges = leasing();
    ranges["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "10.6.0.0/24"}]]});
    for list in ["ipam.ranges", "runtimeConfig.ipRanges"] {
        let mut base = ranges.clone();
        set(&mut base, list, json!([[{"subnet": "10.7.0.0/24"}]]));
        let base = &base;
        for key in ["subnet", "rangeStart", "rangeEnd", "gateway"] {
            let key = format!("{list}[0][0].{key}");
            address_key(&mut host, base, &key, DECODE, &all_but(&["string"]), Cleans);
        }
        for key in [list.to_owned(), format!("{list}[0]"), format!("{list}[1]")] {
            address_key(&mut host, base, &key, DECODE, &all_but(&["list"]).to_vec(), Cleans);
        }
        for key in [format!("{list}[0][0]"), format!("{list}[0][1]")] {
            address_key(&mut host, base, &key, DECODE, &all_but(&["object"]), Cleans);
        }
    }
    address_key(&mut host, &base, "ipam.routes", DECODE, &all_but(&["list"]), Cleans);
    address_key(&mut host, &base, "ipam.routes[0]", DECODE, &all_but(&["object"]), Cleans);
    let mut routes = leasing();
    routes["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24"}]);
    for key in ["dst", "gw"] {
        let key = format!("ipam.routes[0].{key}");
        address_key(&mut host, &routes, &key, DECODE, &all_but(&["string"]), Cleans);
    }
    for key in ["mtu", "advmss", "priority", "table", "scope"] {
        let key = format!("ipam.routes[0].{key}");
        address_key(&mut host, &routes, &key, DECODE, &all_but(&["number"]), Cleans);
    }
    for list in ["args.cni.ips", "runtimeConfig.ips"] {
        address_key(&mut host, &base, list, DECODE, &all_but(&["list"]), Cleans);
        let item = format!("{list}[0]");
        address_key(&mut host, &base, &item, DECODE, &all_but(&["string"]), Cleans);
    }
    for key in ["args", "args.cni", "runtimeConfig"] {
        address_key(&mut host, &base, key, DECODE, &all_but(&["object"]), Cleans);
    }
    host.end();
}

#[test]
fn ranges_that_can_not_be() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let of_ranges = |ranges: Value| {
        let mut conf = layer2();
        conf["ipam"] = json!({"type": "host-local", "ranges": ranges});
        conf
    };
    let cases = [
        // No network, host bits, no room.
        (json!([[{"subnet": "10.5.0.0"}]]), "ranges[0][0].subnet", "\"10.5.0.0\""),
        (json!([[{"subnet": "10.5.0.0/33"}]]), "ranges[0][0].subnet", "\"10.5.0.0/33\""),
        (json!([[{"subnet": "fd05::/129"}]]), "ranges[0][0].subnet", "\"fd05::/129\""),
        (json!([[{"subnet": "10.5.0/24"}]]), "ranges[0][0].subnet", "\"10.5.0/24\""),
        (json!([[{"subnet": ""}]]), "ranges[0][0].subnet", "\"\""),
        (json!([[{"subnet": "10.5.0.9/24"}]]), "ranges[0][0].subnet", "here 10.5.0.0/24"),
        (json!([[{"subnet": "fd05::9/64"}]]), "ranges[0][0].subnet", "here fd05::/64"),
        (json!([[{"subnet": "10.5.0.0/31"}]]), "ranges[0][0].subnet", "\"10.5.0.0/31\""),
        (json!([[{"subnet": "10.5.0.0/32"}]]), "ranges[0][0].subnet", "\"10.5.0.0/32\""),
        (json!([[{"subnet": "fd05::/127"}]]), "ranges[0][0].subnet", "\"fd05::/127\""),
        (json!([[{}]]), "ranges[0][0].subnet", "got nothing"),
        (json!([[{"subnet": null}]]), "ranges[0][0].subnet", "got nothing"),
        (json!([[]]), "ipam.ranges[0]", "at least one range"),
        (json!([]), "ipam.ranges", "at least one range set"),
        (json!([[{"subnet": "10.5.0.0/24"}], []]), "ipam.ranges[1]", "at least one range"),
        // Outside.
        (
            json!([[{"subnet": "10.5.0.0/24", "rangeStart": "10.6.0.9"}]]),
            "[0][0].rangeStart",
            "\"10.6.0.9\"",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24", "rangeEnd": "10.5.1.1"}]]),
            "[0][0].rangeEnd",
            "\"10.5.1.1\"",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.9", "rangeEnd": "10.5.0.8"}]]),
            "[0][0].rangeEnd",
            "10.5.0.8",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24", "gateway": "10.6.0.1"}]]),
            "[0][0].gateway",
            "\"10.6.0.1\"",
        ),
        (json!([[{"subnet": "10.5.0.0/24", "rangeStart": "x"}]]), "[0][0].rangeStart", "\"x\""),
        (
            json!([[{"subnet": "10.5.0.0/24", "gateway": "10.5.0.1/24"}]]),
            "[0][0].gateway",
            "\"10.5.0.1/24\"",
        ),
        // Mixed families.
        (
            json!([[{"subnet": "10.5.0.0/24", "rangeStart": "fd05::9"}]]),
            "[0][0].rangeStart",
            "\"fd05::9\"",
        ),
        (
            json!([[{"subnet": "fd05::/64", "rangeEnd": "10.5.0.9"}]]),
            "[0][0].rangeEnd",
            "\"10.5.0.9\"",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24", "gateway": "fd05::1"}]]),
            "[0][0].gateway",
            "\"fd05::1\"",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24", "gateway": "fe80::1"}]]),
            "[0][0].gateway",
            "\"fe80::1\"",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24"}, {"subnet": "fd05::/64"}]]),
            "ipam.ranges[0]",
            "one address family",
        ),
        // Overlaps.
        (
            json!([[{"subnet": "10.5.0.0/24"}, {"subnet": "10.5.0.0/24"}]]),
            "ipam.ranges",
            "10.5.0.1-10.5.0.254",
        ),
        (
            json!([[{"subnet": "10.5.0.0/16"}], [{"subnet": "10.5.3.0/24"}]]),
            "ipam.ranges",
            "10.5.3.1-10.5.3.254",
        ),
        (
            json!([[{"subnet": "10.5.0.0/24", "rangeEnd": "10.5.0.9"}],
                [{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.9"}]]),
            "ipam.ranges",
            "10.5.0.9-10.5.0.254",
        ),
        (json!([[{"subnet": "fd05::/64"}], [{"subnet": "fd05::/96"}]]), "ipam.ranges", "fd05::1-"),
    ];
    for (ranges, path, words) in cases {
        let conf = of_ranges(ranges.clone());
        address_management(&mut host, &conf, INVALID, &[path, "expected", words], Cleans);
        // The same by the runtime, on top of what would do by itself.
        if ranges.as_array().unwrap().is_empty() {
            continue;
        }
        let mut conf = of_ranges(json!([[{"subnet": "10.9.0.0/24"}]]));
        conf["runtimeConfig"] = json!({"ipRanges": ranges});
        let path = path.replace("ipam.ranges[", "runtimeConfig.ipRanges[");
        let path =
            path.strip_prefix("ranges").map_or(path.clone(), |rest| format!("ipRanges{rest}"));
        address_management(&mut host, &conf, INVALID, &[&path, "expected", words], Cleans);
    }
    // The single range of old, and against the list.
    for (ipam, path, words) in [
        (json!({"subnet": "10.5.0.9/24"}), "ipam.subnet", "here 10.5.0.0/24"),
        (json!({"subnet": "10.5.0.0/24", "rangeStart": "10.6.0.1"}), "ipam.rangeStart", "10.6.0.1"),
        (json!({"subnet": "10.5.0.0/24", "rangeEnd": "10.6.0.1"}), "ipam.rangeEnd", "10.6.0.1"),
        (json!({"subnet": "10.5.0.0/24", "gateway": "10.6.0.1"}), "ipam.gateway", "10.6.0.1"),
        (
            json!({"subnet": "10.5.0.0/24", "ranges": [[{"subnet": "10.5.0.0/25"}]]}),
            "ipam.ranges",
            "10.5.0.1-10.5.0.126",
        ),
        (json!({}), "ipam.ranges", "got nothing"),
    ] {
        let mut conf = layer2();
        conf["ipam"] = ipam;
        conf["ipam"]["type"] = "host-local".into();
        address_management(&mut host, &conf, INVALID, &[path, "expected", words], Cleans);
    }
    // What 0.2.0 can't express. STATUS came later.
    for plugin in ["bridge", "host-local"] {
        let mut conf = of_ranges(json!([[{"subnet": "10.5.0.0/24"}], [{"subnet": "10.6.0.0/24"}]]));
        conf["cniVersion"] = "0.2.0".into();
        let call = host.call("ADD", &conf).plugin(plugin);
        host.refuses(&call, INVALID, &["ipam.ranges", "2 range sets", "0.2.0"], "0.2.0");
        let call = host.call("DEL", &conf).plugin(plugin);
        host.accepts(&call, "DEL 0.2.0");
    }
    host.end();
}

#[test]
fn routes_and_requests_that_can_not_be() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut host = Untouched::new(&host, &pod);
    let mut routes = leasing();
    routes["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24"}]);
    let texts = [json!(""), json!("192.0.2.0"), json!("192.0.2.0/33"), json!("default")];
    address_key(&mut host, &routes, "ipam.routes[0].dst", INVALID, &texts, Cleans);
    let texts = [json!("x"), json!("10.5.0.1/24"), json!("10.5.0")];
    address_key(&mut host, &routes, "ipam.routes[0].gw", INVALID, &texts, Cleans);
    for key in ["mtu", "advmss", "priority", "table", "scope"] {
        let key = format!("ipam.routes[0].{key}");
        let mut values = vec![json!(-1), json!(1_u64 << 32)];
        values.extend(key.ends_with("scope").then(|| json!(256)));
        address_key(&mut host, &routes, &key, INVALID, &values, Cleans);
    }
    for route in [json!({}), json!({"gw": "10.5.0.1"}), json!({"dst": null})] {
        let mut conf = leasing();
        conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24"}, route]);
        address_management(&mut host, &conf, INVALID, &["ipam.routes[1].dst", "nothing"], Cleans);
    }
    for (dst, gw) in [("192.0.2.0/24", "fd05::1"), ("fd99::/64", "10.5.0.1")] {
        let mut conf = leasing();
        conf["ipam"]["routes"] = json!([{"dst": dst, "gw": gw}]);
        address_management(&mut host, &conf, INVALID, &["ipam.routes[0].gw", gw, dst], Cleans);
    }

    for list in ["args.cni.ips", "runtimeConfig.ips"] {
        let item = format!("{list}[0]");
        let values = [json!(""), json!("x"), json!("10.5.0"), json!("10.5.0.9/33")];
        address_key(&mut host, &leasing(), &item, INVALID, &values, Cleans);
    }
    for text in ["", "x", "10.5.0", "10.5.0.9/33"] {
        let call = host.call("ADD", &leasing()).env("CNI_ARGS", &format!("IP={text}"));
        let got = format!("CNI_ARGS: IP: expected an IP address, got {text:?}");
        host.refuses(&call, ENVIRONMENT, &[&got], text);
    }
    host.end();
}

/// What shows only when leases are looked for, after their directory has been made.
#[test]
fn requests_that_can_not_be_met_leave_no_lease() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let cases = [
        (json!(["10.6.0.9"]), "10.6.0.9"),
        (json!(["fd05::9"]), "fd05::9"),
        (json!(["10.5.0.1"]), "requested IP address 10.5.0.1 is the gateway"),
        (json!(["10.5.0.8", "10.5.0.9"]), "failed to allocate all requested IPs: 10.5.0.9"),
        (json!(["10.5.0.0"]), "10.5.0.0"),
        (json!(["10.5.0.255"]), "10.5.0.255"),
    ];
    for plugin in ["bridge", "host-local"] {
        for (ips, words) in &cases {
            let mut conf = leasing();
            conf["runtimeConfig"] = json!({"ips": ips});
            let call = Call::new(&host, "ADD", &conf).plugin(plugin).of(&pod);
            call.run().fails(INVALID, &[words]);
            assert_eq!(host.snapshot(), before, "{ips}");
        }
        for (key, path) in [
            ("resolvConf", "/nowhere/resolv.conf"),
            ("resolvConf", "/run"),
            ("resolvConf", "/dev/zero"),
            ("resolvConf", "/run/fifo"),
            ("dataDir", "/proc/nowhere"),
            ("dataDir", "/run/file"),
            ("dataDir", "/dev/null"),
        ] {
            host.sh("[ -e /run/fifo ] || mkfifo /run/fifo; echo > /run/file");
            let mut conf = leasing();
            conf["ipam"][key] = path.into();
            let call = Call::new(&host, "ADD", &conf).plugin(plugin).of(&pod);
            call.run().fails(5, &[path]);
            assert_eq!(host.snapshot(), before, "{path}");
        }
    }
}

/// Without a sound list of those to keep nothing is removed.
#[test]
fn attachments_to_keep_that_name_nobody() {
    let host = Host::new();
    let pod = host.pod("a");
    let mut conf = leasing();
    conf["isGateway"] = true.into();
    conf["ipMasq"] = true.into();
    host.add(&conf, &pod).ok();
    let before = host.snapshot();
    const KEY: &str = "cni.dev/valid-attachments";
    for (list, code, words) in [
        (json!(null), INVALID, "got nothing"),
        (json!("a"), DECODE, "got \"a\""),
        (json!({"containerID": "a", "ifname": "eth0"}), DECODE, "a list"),
        (json!(["a"]), DECODE, "[0]: expected an object, got \"a\""),
        (json!([null]), DECODE, "[0]: expected an object, got null"),
        (json!([{}]), INVALID, "[0].containerID: expected"),
        (json!([{"containerID": "", "ifname": "eth0"}]), INVALID, "[0].containerID: expected"),
        (
            json!([{"containerID": "b", "ifname": "eth0"}, {"containerID": "a"}]),
            INVALID,
            "[1].ifname: expected",
        ),
        (json!([{"containerID": 5, "ifname": "eth0"}]), DECODE, "[0].containerID: expected"),
        (json!([{"containerID": "a", "ifname": 5}]), DECODE, "[0].ifname: expected"),
        (json!([{"container": "a", "ifname": "eth0"}]), INVALID, "[0].containerID: expected"),
    ] {
        let mut conf = conf.clone();
        conf[KEY] = list.clone();
        for plugin in ["bridge", "host-local"] {
            let outcome = Call::new(&host, "GC", &conf).plugin(plugin).run();
            outcome.fails(code, &[KEY, words]);
            assert_eq!(host.snapshot(), before, "{plugin} {list}");
        }
    }
    host.gc(&conf, &[("a", "eth0")]).ok();
    assert_eq!(host.snapshot(), before);
    host.gc(&conf, &[]).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0], "the list is believed if it is sound");
}

/// Whether ranges overlap takes no time worth naming, however many there are.
#[test]
fn a_hundred_thousand_ranges() {
    let host = Host::new();
    let pod = host.pod("a");
    let range = |n: u32| json!({"subnet": format!("fd05:{:x}:{:x}::/64", n >> 16, n & 0xffff)});
    let mut ranges: Vec<_> = (0..100_000).map(range).collect();
    let mut conf = leasing();
    conf["ipam"] = json!({"type": "host-local", "ranges": [ranges]});
    let result = host.add(&conf, &pod).ok();
    assert_eq!(result["ips"][0]["address"], "fd05::2/64");
    host.del(&conf, &pod).ok();
    ranges.push(range(77_777));
    conf["ipam"]["ranges"] = json!([ranges]);
    let words = ["ipam.ranges", "fd05:1:2fd1::1-", "don't overlap"];
    host.add(&conf, &pod).fails(INVALID, &words);
}

#[test]
fn unknown_keys_are_ignored() {
    let host = Host::new();
    let before = host.snapshot();
    let pod = host.pod("a");
    let mut conf = leasing();
    conf["unknown"] = json!({"deep": [1, 2.5, null, true, {"x": "y"}]});
    conf["ipam"]["unknown"] = json!([1]);
    conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "unknown": 5}]);
    conf["dns"] = json!({"unknown": 5});
    conf["args"] = json!({"unknown": 5, "cni": {"unknown": 5, "labels": []}});
    conf["runtimeConfig"] = json!({"unknown": 5, "portMappings": [], "bandwidth": {}});
    conf["capabilities"] = json!({"ips": true, "unknown": false});
    let result = host.add(&conf, &pod).ok();
    assert!(!result.to_string().contains("unknown"));
    host.check(&conf, &result, &pod).ok();
    host.status(&conf).ok();
    host.del(&conf, &pod).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

#[test]
fn namespaces_that_are_none() {
    let host = Host::new();
    let pod = host.pod("a");
    host.sh(
        "cd /run; echo > file; mkfifo fifo; mkdir directory; ln -s loop loop; ln -s gone dangling
         touch mnt uts; mount --bind /proc/self/ns/uts uts",
    );
    let mut host = Untouched::new(&host, &pod);
    let long = format!("/run/{}", "x".repeat(300));
    for path in [
        "/run/gone",
        "/run/file/netns",
        "/run/dangling",
        "/run/loop",
        &long,
        "netns",
        "/run/file",
        "/run/fifo",
        "/run/directory",
        "/dev/null",
        "/dev/zero",
        "/proc/self/ns/mnt",
        "/proc/self/ns/uts",
        "/proc/self/ns/user",
        "/proc/self/ns/pid",
        "/run/uts",
        "/proc/self/status",
    ] {
        for conf in [layer2(), leasing()] {
            let call = host.call("ADD", &conf).env("CNI_NETNS", path);
            host.refuses(&call, NETNS, &["CNI_NETNS", path], &format!("ADD {path} {conf}"));
            // For DEL it is as if there were none.
            let call = host.call("DEL", &conf).env("CNI_NETNS", path);
            host.accepts(&call, &format!("DEL {path} {conf}"));
        }
        let call = host.call("CHECK", &layer2()).env("CNI_NETNS", path);
        host.refuses(&call, NETNS, &["CNI_NETNS", path], &format!("CHECK {path}"));
    }
    host.end();
}

#[test]
fn an_interface_that_exists_is_left_alone() {
    let host = Host::new();
    let pod = host.pod("a");
    pod.sh("ip link add eth0 type veth peer name other; ip link set eth0 mtu 1234 up
            ip addr add 192.0.2.9/24 dev eth0");
    let inside = || pod.sh("ip addr; ip route; ip -6 route show table all");
    let (before, state) = (host.snapshot(), inside());
    let mut gateway = leasing();
    gateway["isDefaultGateway"] = true.into();
    gateway["ipMasq"] = true.into();
    gateway["macspoofchk"] = true.into();
    let with_mtu = json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "mtu": 1400,
                          "enabledad": true});
    for conf in [layer2(), gateway.clone(), with_mtu] {
        let outcome = host.add(&conf, &pod);
        outcome.fails(999, &["container interface \"eth0\" already exists", "EEXIST"]);
        assert_eq!(host.snapshot(), before, "{conf}");
        assert_eq!(inside(), state, "{conf}");
    }
    // Also where the bridge is there and in use.
    let other = host.pod("b");
    host.add(&gateway, &other).ok();
    let before = host.snapshot();
    host.add(&gateway, &pod).fails(999, &["\"eth0\" already exists"]);
    assert_eq!(host.snapshot(), before);
    assert_eq!(inside(), state);
    // And what is there already is an attachment of ours: the second ADD changes nothing of it.
    let state = || other.sh("ip -o -4 addr; ip link; ip route");
    let attached = state();
    host.add(&gateway, &other).fails(999, &["\"eth0\" already exists"]);
    assert_eq!(state(), attached);
    assert_eq!(host.snapshot(), before, "not even its lease or rules");
}

#[test]
fn a_bridge_that_is_another_kind_of_link_is_left_alone() {
    let host = Host::new();
    let pod = host.pod("a");
    host.sh("ip link add veth0 type veth peer name veth1
         ip link add macvlan0 link veth0 type macvlan
         ip link add ifb0 type ifb
         ip link add vxlan0 type vxlan id 5 dstport 4789");
    let mut host = Untouched::new(&host, &pod);
    for (name, kind) in [
        ("lo", "physical device"),
        ("veth0", "veth"),
        ("macvlan0", "macvlan"),
        ("ifb0", "ifb"),
        ("vxlan0", "vxlan"),
    ] {
        for gateway in [false, true] {
            let mut conf = layer2();
            conf["bridge"] = name.into();
            conf["isGateway"] = gateway.into();
            conf["promiscMode"] = gateway.into();
            let call = host.call("ADD", &conf);
            host.refuses(&call, INVALID, &["bridge: expected", name, kind], &format!("ADD {conf}"));
            let call = host.call("STATUS", &conf);
            host.refuses(&call, 50, &[name, "not a bridge"], &format!("STATUS {conf}"));
            host.accepts(&host.call("DEL", &conf), &format!("DEL {conf}"));
        }
    }
    host.end();
}

/// A lease that was taken before the bridge was found wanting goes back.
#[test]
fn a_bridge_that_is_none_costs_no_lease() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let mut conf = leasing();
    conf["bridge"] = "lo".into();
    conf["ipMasq"] = true.into();
    host.add(&conf, &pod).fails(INVALID, &["bridge: expected", "\"lo\""]);
    assert_eq!(host.snapshot(), before);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

/// The plugin without some of root's capabilities.
fn without<'a>(call: Call<'a>, capabilities: &str) -> Call<'a> {
    let (inheritable, bounding) =
        (format!("--inh-caps={capabilities}"), format!("--bounding-set={capabilities}"));
    call.under(&["setpriv", &inheritable, &bounding])
}

#[test]
fn without_privilege_nothing_is_changed_and_the_hint_is_clear() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let mut full = leasing();
    full["isDefaultGateway"] = true.into();
    full["ipMasq"] = true.into();
    for capabilities in ["-net_admin", "-sys_admin", "-all"] {
        for conf in [layer2(), full.clone()] {
            let add = without(Call::new(&host, "ADD", &conf).of(&pod), capabilities);
            add.run().fails(999, &["EPERM", "CAP_NET_ADMIN and CAP_SYS_ADMIN are needed"]);
            assert_eq!(host.snapshot(), before, "{capabilities} {conf}");
            assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "{capabilities} {conf}");
            // Of what was never made nothing is left.
            host.del(&conf, &pod).ok();
        }
    }

    // DEL can't do its work, and says so; what the container still uses stays leased to it.
    let result = host.add(&full, &pod).ok();
    let attached = host.snapshot();
    let del = without(Call::new(&host, "DEL", &full).of(&pod), "-all");
    del.run().fails(999, &["EPERM", "CAP_NET_ADMIN and CAP_SYS_ADMIN are needed"]);
    assert_eq!(host.snapshot(), attached);
    host.check(&full, &result, &pod).ok();
    host.del(&full, &pod).ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// For the process that becomes the plugin the kernel has no `NETLINK_NETFILTER`.
fn no_nf_tables() -> io::Result<()> {
    let instruction = |code: u32, value: libc::c_long, skip| libc::sock_filter {
        code: code.try_into().unwrap(),
        jt: 0,
        jf: skip,
        k: value.try_into().unwrap(),
    };
    // Offsets in `struct seccomp_data` (linux/seccomp.h); the low half of an argument on a
    // little-endian machine.
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0);
    let unless =
        |value, skip| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip);
    let answer = |value: u32| instruction(libc::BPF_RET | libc::BPF_K, value.into(), 0);
    let refusal = libc::EPROTONOSUPPORT.unsigned_abs();
    let mut filter = [
        load(0),
        unless(libc::SYS_socket, 5),
        load(16),
        unless(libc::AF_NETLINK.into(), 3),
        load(32),
        unless(libc::NETLINK_NETFILTER.into(), 1),
        answer(libc::SECCOMP_RET_ERRNO | refusal),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let len = filter.len().try_into().unwrap();
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let set = |option, argument: *const libc::sock_fprog, value: libc::c_ulong| {
        // SAFETY: the program and the filter that it points to are alive for the call.
        match unsafe { libc::prctl(option, value, argument, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    set(libc::PR_SET_NO_NEW_PRIVS, std::ptr::null(), 1)?;
    set(libc::PR_SET_SECCOMP, &raw const program, libc::SECCOMP_MODE_FILTER.into())
}

#[test]
fn a_kernel_without_nf_tables() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let call = |command: &str, conf: &Value| {
        Call::new(&host, command, conf).of(&pod).before_exec(no_nf_tables)
    };
    for key in ["ipMasq", "macspoofchk"] {
        let mut conf = leasing();
        conf["isGateway"] = true.into();
        conf[key] = true.into();
        let words = &["nf_tables", "EPROTONOSUPPORT", "the kernel has no support for it"];
        call("ADD", &conf).run().fails(999, words);
        assert_eq!(host.snapshot(), before, "{key}");
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "{key}");
        call("STATUS", &conf).run().fails(50, words);
        // What can't be there needs no removal: a runtime would try for ever. With a previous result
        // or without, also of another's leases.
        call("DEL", &conf).run().ok();
        let mut previous = conf.clone();
        previous["prevResult"] = json!({"ips": [{"address": "10.5.0.2/24"}]});
        call("DEL", &previous).run().ok();
        previous["cni.dev/valid-attachments"] = json!([]);
        call("GC", &previous).run().ok();
    }
    let mut conf = leasing();
    conf["isDefaultGateway"] = true.into();
    let result = call("ADD", &conf).run().ok();
    pod.must_reach("10.5.0.1");
    let mut previous = conf.clone();
    previous["prevResult"] = result;
    call("CHECK", &previous).run().ok();
    call("STATUS", &conf).run().ok();
    call("DEL", &conf).run().ok();
    host.snapshot().assert_nothing_but_shared(&before, "br0");
}

/// An attachment was made; then somebody breaks the configuration. DEL cleans up what it still can.
#[test]
fn del_with_a_configuration_that_has_been_broken_since() {
    let host = Host::new();
    let pod = host.pod("a");
    let before = host.snapshot();
    let mut sound = leasing();
    sound["isDefaultGateway"] = true.into();
    sound["ipMasq"] = true.into();
    sound["macspoofchk"] = true.into();
    let cases = [
        ("mtu", json!("many")),
        ("bridge", json!(5)),
        ("bridge", json!("another0")),
        ("ipMasq", json!("yes")),
        ("macspoofchk", json!(1)),
        ("isGateway", json!({})),
        ("vlan", json!(5)),
        ("vlanTrunk", json!("all")),
        ("dns", json!([])),
        ("args", json!("x")),
        ("runtimeConfig", json!({"mac": 5, "ips": 5, "ipRanges": 5})),
        ("ipam.subnet", json!("10.5.0.0/99")),
        ("ipam.subnet", json!("10.77.0.0/24")),
        ("ipam.subnet", json!(null)),
        ("ipam.ranges", json!([[{}]])),
        ("ipam.routes", json!(5)),
        ("ipam.resolvConf", json!("/gone")),
        ("prevResult", json!("x")),
        ("cniVersion", json!("0.1.0")),
    ];
    for (key, value) in cases {
        for with_previous in [true, false] {
            let result = host.add(&sound, &pod).ok();
            let mut broken = sound.clone();
            if with_previous {
                broken["prevResult"] = result;
            }
            set(&mut broken, key, value.clone());
            host.del(&broken, &pod).ok();
            host.snapshot().assert_nothing_but_shared(&before, "br0");
        }
    }
    // Here something can't be done, and is told; all else is.
    for (key, value) in [("ipam", json!("x")), ("ipam.type", json!(5)), ("ipam.dataDir", json!(5))]
    {
        host.add(&sound, &pod).ok();
        let mut broken = sound.clone();
        set(&mut broken, key, value);
        host.del(&broken, &pod).fails(DECODE, &[key]);
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "{key}");
        assert!(host.element_comments().iter().all(|c| !c.contains(' ')), "{key}");
        assert_eq!(host.leases("net").len(), 1, "nobody can tell where they are");
        host.del(&sound, &pod).ok();
        host.snapshot().assert_nothing_but_shared(&before, "br0");
    }
}
