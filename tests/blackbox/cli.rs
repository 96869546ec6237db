//! The command line for people.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Host, PLUMB};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

fn plumb(args: &[&str]) -> Output {
    Command::new(PLUMB).args(args).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> &str {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// Kinds of links that a kernel may lack; plugins and examples have their names.
const OPTIONAL: [&str; 3] = ["ipvlan", "vlan", "dummy"];
/// Examples of what else it may lack.
const OPTIONAL_EXAMPLES: [&str; 1] = ["bridge-vlan"];

fn is_optional(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    OPTIONAL.into_iter().chain(OPTIONAL_EXAMPLES).any(|kind| stem.starts_with(kind))
}

/// Each example, tried from start to end: attached, pinged, checked, detached, nothing left.
#[test]
fn every_example_can_be_tried() {
    assert!(try_examples(|path| !is_optional(path) && !needs_a_server(path)) >= 11);
    let dhcp = plumb(&["try", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/macvlan-dhcp.conf")]);
    assert_eq!(dhcp.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&dhcp.stderr).contains("DHCP server"));
}

#[test]
#[ignore = "needs ipvlan, vlan, dummy, vlan_filtering"]
fn examples_and_plugins_with_what_a_kernel_may_lack_can_be_tried() {
    assert!(try_examples(is_optional) >= 4);
    for name in OPTIONAL {
        try_plugin(name);
    }
}

/// Whether an example asks a server that a throw-away network has not. `dhcp.rs` is about it.
fn needs_a_server(path: &Path) -> bool {
    path.file_stem().unwrap().to_str().unwrap().ends_with("-dhcp")
}

fn try_examples(which: impl Fn(&Path) -> bool) -> usize {
    let mut tried = 0;
    for entry in std::fs::read_dir(EXAMPLES).unwrap() {
        let path = entry.unwrap().path();
        if !which(&path) {
            continue;
        }
        let host = Host::new();
        let before = host.snapshot();
        let output = host.command(PLUMB).args(["try", "--json"]).arg(&path).output().unwrap();
        let report: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(report["ok"], true, "{}: {report:#}", path.display());
        let steps: Vec<_> = report["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["step"].as_str().unwrap())
            .collect();
        let count = |step| steps.iter().filter(|s| **s == step).count();
        assert_eq!((count("ADD"), count("CHECK"), count("DEL"), count("left")), (2, 2, 2, 1));
        assert!(count("ping") > 0, "{report:#}");
        for step in report["steps"].as_array().unwrap().iter().filter(|s| s["step"] == "ADD") {
            assert!(step["ms"].as_f64().unwrap() > 0.0, "{step:#}");
            assert!(step["result"]["cniVersion"].is_string(), "{step:#}");
        }
        assert_eq!(host.snapshot(), before, "the host around it is not touched");
        tried += 1;
    }
    tried
}

fn try_plugin(name: &str) {
    let host = Host::new();
    let before = host.snapshot();
    let output = host.command(PLUMB).args(["try", "--type", name, "--json"]).output().unwrap();
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["ok"], true, "{name}: {report:#}");
    assert_eq!(host.snapshot(), before, "the host around it is not touched");
}

/// For each plugin there is a network that shows it.
#[test]
fn every_plugin_can_be_tried_by_its_name() {
    let names = plumb::plugins::ALL.map(|plugin| plugin.name);
    names
        .into_iter()
        .filter(|name| !OPTIONAL.contains(name) && *name != "dhcp")
        .for_each(try_plugin);
    for (name, lines) in [
        ("macvlan", ["network mynet: macvlan, CNI 0.1.0", "eth0 10.1.3.2/24", "→ pod2 10.1.3.3"]),
        ("ptp", ["network routed: ptp, CNI 1.1.0", "→ pod2 fd60::3", "→ gateway 10.60.0.1"]),
        ("host-device", ["eth0 10.50.0.2/24 fd50::2/64", "→ pod2 10.50.0.3", "→ pod2 fd50::3"]),
        ("loopback", ["ADD   pod1", "lo 127.0.0.1/8 ::1/128", "→ itself ::1"]),
        ("static", ["eth0 10.70.0.10/24 fd70::10/64", "→ pod2 10.70.0.11", "→ pod2 fd70::11"]),
    ] {
        let output = Host::new().command(PLUMB).args(["try", "--type", name]).output().unwrap();
        let text = stdout(&output);
        for line in lines {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
    let output = plumb(&["try", "--type", "weave"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ptp"), "it tells what there is");
}

#[test]
fn without_a_configuration_a_network_of_its_own_is_tried_and_told_in_lines() {
    let output = Host::new().command(PLUMB).arg("try").output().unwrap();
    let text = stdout(&output);
    for line in [
        "network dual-stack: bridge, CNI 1.0.0",
        "→ pod2 10.20.0.3",
        "→ pod2 fd20::3",
        "→ gateway 10.20.0.1",
        "left ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("\"cniVersion\""), "results are shown only on demand: {text}");
    let output = Host::new().command(PLUMB).args(["try", "--verbose"]).output().unwrap();
    assert!(stdout(&output).contains("\"cniVersion\": \"1.0.0\""));
}

#[test]
fn a_trial_that_fails_says_so_and_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new();
    for (conf, expected) in [
        // The second pod finds no address.
        (
            r#"{"name":"n","type":"bridge","ipam":{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":"10.1.0.9"}}"#,
            "ADD   pod2            FAILED: bridge: no IP addresses available in range set",
        ),
        (r#"{"name":"n","type":"bridge","mtu":"x"}"#, "FAILED: bridge: mtu: expected an integer"),
        (r#"{"name":"n","type":"weave"}"#, "plugin \"weave\" is none of plumb's"),
    ] {
        let path = directory.path().join("n.conf");
        std::fs::write(&path, conf).unwrap();
        let output = host.command(PLUMB).arg("try").arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(text.contains("nothing"), "also then nothing is left: {text}");
    }
    for (content, expected) in
        [("{", "not a JSON document"), (r#"{"type":"bridge"}"#, "missing network name")]
    {
        let path = directory.path().join("bad.conf");
        std::fs::write(&path, content).unwrap();
        let output = plumb(&["try", path.to_str().unwrap()]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected) && text.contains("bad.conf"), "{text}");
    }
    let output = plumb(&["try", "/nowhere.conf"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere.conf"));
}

/// A trial takes a network as the driver and runtimes do.
#[test]
fn a_trial_has_the_networks_other_files_and_leaves_out_what_is_disabled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("n.conflist");
    let text = r#"{"name":"n","cniVersions":["1.0.0","9.0.0"],"disableCheck":true}"#;
    std::fs::write(&path, text).unwrap();
    std::fs::create_dir(directory.path().join("n")).unwrap();
    let plugin = r#"{"type":"bridge","bridge":"n0"}"#;
    std::fs::write(directory.path().join("n/10.conf"), plugin).unwrap();
    let output = Host::new().command(PLUMB).arg("try").arg(&path).output().unwrap();
    let text = stdout(&output);
    assert!(text.contains("network n: bridge, CNI 1.0.0"), "{text}");
    assert_eq!(text.matches("not asked: the network sets disableCheck").count(), 2, "{text}");
}

/// The leases of a node must not be touched by a trial of its network.
#[test]
fn a_trial_leaves_a_data_directory_alone() {
    let directory = tempfile::tempdir().unwrap();
    let leases = directory.path().join("leases");
    let conf = format!(
        r#"{{"name":"n","type":"bridge","isGateway":true,"ipam":{{"type":"host-local","subnet":"10.1.0.0/24","dataDir":{leases:?}}}}}"#
    );
    let path = directory.path().join("n.conf");
    std::fs::write(&path, conf).unwrap();
    let output = Host::new().command(PLUMB).arg("try").arg(&path).output().unwrap();
    assert!(stdout(&output).contains("ipam.dataDir is left out"));
    assert!(!leases.exists());
}

/// All plugins, as they are listed.
fn names() -> String {
    plumb::plugins::ALL.map(|plugin| plugin.name).join(", ")
}

fn identity(path: &Path) -> (u64, u64) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
fn an_installation_keeps_what_it_replaces_and_can_be_undone() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("opt/cni/bin");
    let at = |name: &str| directory.join(name);
    let dir = directory.to_str().unwrap();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(at("bridge"), "the reference's").unwrap();
    std::fs::write(at("weave"), "another's").unwrap();
    symlink("elsewhere", at("host-local")).unwrap();

    let names = plumb::plugins::ALL.map(|plugin| plugin.name);
    for name in ["bridge", "ptp", "loopback", "host-local", "static"] {
        assert!(names.contains(&name), "{name}");
    }
    let text = stdout(&plumb(&["install", dir])).to_owned();
    assert!(text.contains("installed into") && text.contains(&names.join(", ")), "{text}");
    assert!(text.contains(".plumb-replaced: bridge, host-local"), "{text}");
    for name in names {
        assert_eq!(identity(&at(name)), identity(&at("plumb")), "hard links of one file");
        let about = Command::new(at(name)).output().unwrap();
        assert!(String::from_utf8_lossy(&about.stderr).starts_with(&format!("CNI {name} plugin")));
    }
    assert_eq!(std::fs::metadata(at("plumb")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(std::fs::read(at("plumb")).unwrap(), std::fs::read(PLUMB).unwrap());

    // An upgrade replaces our own and keeps what was first replaced.
    let old = identity(&at("bridge"));
    let report: Value = serde_json::from_str(stdout(&plumb(&["install", "--json", dir]))).unwrap();
    assert_eq!(report["replaced"], serde_json::json!([]));
    assert_ne!(identity(&at("bridge")), old);
    assert_eq!(identity(&at("bridge")), identity(&at("plumb")));

    let text = stdout(&plumb(&["install", "--uninstall", dir])).to_owned();
    assert!(text.contains("put back into"), "{text}");
    assert_eq!(std::fs::read_to_string(at("bridge")).unwrap(), "the reference's");
    assert_eq!(std::fs::read_link(at("host-local")).unwrap(), Path::new("elsewhere"));
    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bridge", "host-local", "weave"]);

    let text = stdout(&plumb(&["install", "--uninstall", dir])).to_owned();
    assert!(text.contains("nothing of plumb's"), "{text}");
    assert_eq!(std::fs::read_to_string(at("bridge")).unwrap(), "the reference's");
}

#[test]
fn an_installation_into_an_empty_place_is_removed_whole() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("new/bin");
    let dir = directory.to_str().unwrap();
    stdout(&plumb(&["install", dir]));
    stdout(&plumb(&["install", dir, "--uninstall"]));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

/// The reference, installed again over plumb, is neither removed nor replaced by an older one.
#[test]
fn what_others_have_installed_since_is_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().to_str().unwrap();
    let bridge = temporary.path().join("bridge");
    std::fs::write(&bridge, "old").unwrap();
    stdout(&plumb(&["install", dir]));
    std::fs::remove_file(&bridge).unwrap();
    std::fs::write(&bridge, "new").unwrap();
    let text = stdout(&plumb(&["install", dir, "--uninstall"])).to_owned();
    assert!(text.contains("left alone") && text.contains("bridge"), "{text}");
    assert_eq!(std::fs::read_to_string(&bridge).unwrap(), "new");

    stdout(&plumb(&["install", dir]));
    stdout(&plumb(&["install", dir, "--uninstall"]));
    assert_eq!(std::fs::read_to_string(&bridge).unwrap(), "new", "the newest goes back");
}

#[test]
fn an_installation_that_cannot_be_says_where_it_failed() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = plumb(&["install", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(file.to_str().unwrap()));
    let output = plumb(&["install", "--uninstall", "/nowhere/bin"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/bin"));
}

#[test]
fn plugins_are_listed_for_people_and_for_programs() {
    let text = stdout(&plumb(&["plugins"])).to_owned();
    assert!(
        text.contains("bridge ") && text.contains("host-local ") && text.contains("1.1.0"),
        "{text}"
    );
    let report: Value = serde_json::from_str(stdout(&plumb(&["plugins", "--json"]))).unwrap();
    assert_eq!(report["plugins"][0]["name"], "bridge");
    assert_eq!(report["cniVersions"][6], "1.1.0");
}

#[test]
fn help_is_complete_and_a_wrong_line_ends_with_2() {
    let text = stdout(&plumb(&["--help"])).to_owned();
    let commands =
        ["try", "add", "check", "del", "status", "gc", "ls", "leases", "install", "plugins"];
    for word in commands.iter().chain(&["trace", "Examples:", "Exit codes:"]) {
        assert!(text.contains(word), "{word}: {text}");
    }
    for command in commands {
        let text = stdout(&plumb(&[command, "--help"])).to_owned();
        assert!(text.contains("Examples:") && text.contains("--json"), "{text}");
    }
    let text = stdout(&plumb(&["trace", "--help"])).to_owned();
    // Where lines are broken is of no matter.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let names = format!("[possible values: {}]", names());
    for word in ["Examples:", "--output", "PLUMB_TRACE", &names] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let output = plumb(&["instal"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("'install'"), "did you mean");
    assert_eq!(plumb(&[]).status.code(), Some(2));
    assert!(stdout(&plumb(&["--version"])).starts_with("plumb "));
}

/// A runtime that calls a plugin which there is not gets an error that it understands.
#[test]
fn a_stray_link_answers_a_runtime_with_an_error_object() {
    let temporary = tempfile::tempdir().unwrap();
    let link = temporary.path().join("weave");
    symlink(PLUMB, &link).unwrap();
    let output = Command::new(&link).env("CNI_COMMAND", "VERSION").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 7);
    assert_eq!(error["msg"], format!("plumb has no plugin \"weave\"; it has {}", names()));
}
