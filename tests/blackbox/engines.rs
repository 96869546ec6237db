//! What podman and containerd really send, replayed: the answers have the shape of the reference's, and
//! in the end nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{BIN, Call, Host, Outcome};

/// A scenario of tests/fixtures/engines: its calls in order.
struct Scenario {
    pods: usize,
    calls: Vec<Value>,
}

impl Scenario {
    fn read(name: &str) -> Self {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/engines");
        let text = std::fs::read_to_string(format!("{directory}/{name}.json")).unwrap();
        let scenario: Value = serde_json::from_str(&text).unwrap();
        let pods = usize::try_from(scenario["pods"].as_u64().unwrap()).unwrap();
        Self { pods, calls: scenario["calls"].as_array().unwrap().clone() }
    }

    /// What the bridge called host-local with, instead of the bridge's own calls.
    fn of_address_management(self) -> Self {
        let address_management = |mut call: Value| {
            if call["plugin"] == call["stdin"]["ipam"]["type"] {
                return Some(call);
            }
            let answer = call["ipam"].take();
            call["plugin"] = call["stdin"]["ipam"]["type"].clone();
            call["exit_code"] = answer.get("exit_code")?.clone();
            call["stdout"] = answer["stdout"].clone();
            Some(call)
        };
        let calls: Vec<_> = self.calls.into_iter().filter_map(address_management).collect();
        assert!(!calls.is_empty());
        Self { calls, ..self }
    }

    /// Carries the calls out, then deletes what the engine has not.
    fn replay(&self) {
        let host = Host::new();
        let before = host.snapshot();
        let _pods = host.pods(self.pods);
        let mut live: BTreeMap<String, (Value, Value)> = BTreeMap::new();
        let mut bridges = BTreeSet::new();
        for (number, call) in self.calls.iter().enumerate() {
            let what = format!("call {number}: {call}");
            let command = call["env"]["CNI_COMMAND"].as_str().unwrap();
            let attachment =
                format!("{}{}", call["env"]["CNI_CONTAINERID"], call["env"]["CNI_IFNAME"]);
            bridges.extend(call["stdin"]["bridge"].as_str().map(str::to_owned));
            let mut call = call.clone();
            if let (true, Some((_, result))) =
                (call["stdin"].get("prevResult").is_some(), live.get(&attachment))
            {
                // An engine would send what we have answered.
                call["stdin"]["prevResult"] = result.clone();
            }
            for (file, content) in call["before"].as_object().into_iter().flatten() {
                let network = call["stdin"]["name"].as_str().unwrap();
                let directory = format!("/var/lib/cni/networks/{network}");
                host.sh(&format!("mkdir -p {directory}"));
                host.write(format!("{directory}/{file}"), content.as_str().unwrap());
            }
            let outcome = run(&host, &call);
            let failed = compare(&call, &outcome, &what);
            if command == "ADD" && !failed {
                live.insert(attachment, (call, outcome.ok()));
            } else if command == "DEL" && !failed {
                live.remove(&attachment);
            }
        }
        for (call, _) in live.into_values() {
            let mut call = call;
            call["env"]["CNI_COMMAND"] = "DEL".into();
            call["env"]["CNI_NETNS"] = "".into();
            assert_eq!(run(&host, &call).ok(), Value::Null);
        }
        let left = host.snapshot().since(&before);
        let of_bridges = |line: &String| {
            bridges.iter().any(|bridge| line.contains(bridge.as_str()))
                || line.starts_with("nft ") && !line.starts_with("nft element ")
        };
        let left: Vec<_> = left.into_iter().filter(|line| !of_bridges(line)).collect();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

fn run(host: &Host, call: &Value) -> Outcome {
    let command = call["env"]["CNI_COMMAND"].as_str().unwrap();
    let mut replayed =
        Call::new(host, command, &call["stdin"]).plugin(call["plugin"].as_str().unwrap());
    for (name, value) in call["env"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let value = if value.starts_with("/opt/cni/bin") { BIN } else { value };
        replayed = replayed.env(name, value);
    }
    replayed.run()
}

/// Compares the answer with the reference's, and tells whether it is an error.
fn compare(call: &Value, outcome: &Outcome, what: &str) -> bool {
    let reference = &call["stdout"];
    if call["env"]["CNI_COMMAND"] == "VERSION" {
        let answer = outcome.ok();
        let ours = answer["supportedVersions"].as_array().unwrap();
        for version in reference["supportedVersions"].as_array().unwrap() {
            assert!(ours.contains(version), "{what}\n{answer}");
        }
        return false;
    }
    if call["exit_code"] == 0 {
        let answer = outcome.ok();
        same_shape(reference, &answer, "result", &format!("{what}\n{answer:#}"));
        return false;
    }
    if call["env"]["CNI_COMMAND"] == "DEL" {
        // The reference can't delete with a faulty configuration; engines then try for ever.
        outcome.ok();
        return false;
    }
    // The reference has but one code for all errors of host-local; what it means decides on ours.
    let msg = reference["msg"].as_str().unwrap();
    let (code, words): (u64, &[&str]) = if msg.contains("no IP addresses available") {
        (11, &["no IP addresses available in range set: 10.99.0.2-10.99.0.2"])
    } else if msg.contains("invalid CIDR address") {
        (7, &["ipam.ranges[0][0].subnet", "10.99.0.0/99"])
    } else if msg.contains("requested IP address 10.91.0.77 is not available") {
        (11, &["requested IP address 10.91.0.77 is not available in range set"])
    } else if msg.contains("failed to allocate all requested IPs") {
        (7, &[msg.rsplit_once(": ").unwrap().0])
    } else {
        panic!("{what}\nhas an error that is new here; ours: {outcome:#?}");
    };
    assert_eq!(reference["code"], 999);
    outcome.fails(code, words);
    true
}

/// The same keys with the same values; links' addresses and the names of the host's ends are each
/// plugin's own.
fn same_shape(reference: &Value, ours: &Value, place: &str, what: &str) {
    match (reference, ours) {
        (Value::Object(theirs), Value::Object(mine)) => {
            // Since 1.0.0 the reference's later releases leave an empty one out, as we do.
            let told = |(key, value): &(&String, &Value)| *key != "dns" || **value != json!({});
            let keys = |members: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                members.iter().filter(told).map(|(key, _)| key.clone()).collect()
            };
            assert_eq!(keys(theirs), keys(mine), "{place} of {what}");
            for (key, value) in theirs.iter().filter(told) {
                same_shape(value, &mine[key], &format!("{place}.{key}"), what);
            }
        }
        (Value::Array(theirs), Value::Array(mine)) => {
            assert_eq!(theirs.len(), mine.len(), "{place} of {what}");
            for (index, (reference, ours)) in theirs.iter().zip(mine).enumerate() {
                same_shape(reference, ours, &format!("{place}[{index}]"), what);
            }
        }
        (Value::String(theirs), Value::String(mine)) if place.ends_with(".mac") => {
            assert_eq!(theirs.len(), mine.len(), "{place} of {what}");
            // One that was asked for is kept.
            if theirs.starts_with("02:11:22:33:44") {
                assert_eq!(theirs, mine, "{place} of {what}");
            }
        }
        (Value::String(theirs), Value::String(mine)) if theirs.starts_with("veth") => {
            assert!(mine.starts_with("veth"), "{place} of {what}");
        }
        _ => assert_eq!(reference, ours, "{place} of {what}"),
    }
}

/// Declares the two tests of a scenario: the engine's calls of bridge, and bridge's of host-local.
macro_rules! scenarios {
    ($($test:ident $name:literal),* $(,)?) => {
        $(mod $test {
            use super::Scenario;

            #[test]
            fn the_engines_calls() {
                Scenario::read($name).replay();
            }

            #[test]
            fn the_calls_of_address_management() {
                Scenario::read($name).of_address_management().replay();
            }
        })*

        #[test]
        fn no_scenario_is_forgotten() {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/engines");
            let files = std::fs::read_dir(directory).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let names: BTreeSet<_> = names.filter_map(|n| n.strip_suffix(".json").map(str::to_owned)).collect();
            assert_eq!(names, BTreeSet::from([$($name.to_owned()),*]));
        }
    };
}

scenarios! {
    ctr_bandwidth "ctr-bandwidth",
    ctr_bridge "ctr-bridge",
    ctr_dual_stack_and_firewall "ctr-bridge-dual-firewall",
    ctr_errors "ctr-errors",
    ctr_macvlan_with_static_addresses "ctr-macvlan-static",
    ctr_ptp "ctr-ptp",
    podman_after_a_crash "podman-crash",
    podman_default_network "podman-default-bridge",
    podman_dual_stack "podman-dual-stack",
    podman_forwarding_dropped "podman-forward-drop",
    podman_macvlan "podman-macvlan",
    podman_several_networks "podman-network-create",
    podman_in_parallel "podman-parallel",
    podman_port_mappings "podman-portmap",
    podman_static_addresses "podman-static-ip-mac",
}
