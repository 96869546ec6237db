//! `plumb doctor`: each of its findings is provoked, and it changes nothing.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{BIN, Host, PLUMB, with};

const CONFIGURATIONS: &str = "/run/net.d";

fn bridge(name: &str, keys: &Value) -> Value {
    let conf = json!({"cniVersion": "1.1.0", "name": name, "type": "bridge", "bridge": "br0",
        "isGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}});
    with(conf, keys)
}

fn host_local(keys: &Value) -> Value {
    with(json!({"type": "host-local", "subnet": "10.1.0.0/24"}), keys)
}

fn configure(host: &Host, networks: &[&Value]) {
    host.sh(&format!("rm -rf {CONFIGURATIONS}; mkdir -p {CONFIGURATIONS}"));
    for (number, network) in networks.iter().enumerate() {
        host.write(format!("{CONFIGURATIONS}/{number}.conf"), &network.to_string());
    }
}

/// A host with this network configured.
fn host_with(network: &Value) -> Host {
    let host = Host::new();
    configure(&host, &[network]);
    host
}

fn run(host: &Host, prefix: &[&str], args: &[&str]) -> Output {
    let mut words = prefix.iter().copied().chain([PLUMB, "doctor", "--conf-dir", CONFIGURATIONS]);
    let mut command = host.command(words.next().unwrap());
    command.args(words).args(args).env("CNI_PATH", BIN);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// What is found, by JSON.
struct Report(Vec<Value>);

impl Report {
    fn of(host: &Host) -> Self {
        Self::under(host, &[])
    }

    /// Of the doctor run by another program.
    #[track_caller]
    fn under(host: &Host, prefix: &[&str]) -> Self {
        let output = run(host, prefix, &["--json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{text}");
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        let findings = report["findings"].as_array().unwrap().clone();
        let fails = findings.iter().any(|finding| finding["severity"] == "error");
        assert_eq!(output.status.code(), Some(i32::from(fails)), "{report:#}");
        assert_eq!(report["ok"], !fails);
        for finding in &findings {
            let keys: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["advice", "finding", "id", "severity", "subject"]);
        }
        Self(findings)
    }

    /// There is a finding with all of these words.
    #[track_caller]
    fn has(&self, severity: &str, id: &str, words: &[&str]) {
        let is_it = |finding: &&Value| {
            let text =
                format!("{} {} {}", finding["subject"], finding["finding"], finding["advice"]);
            finding["id"] == id
                && finding["severity"] == severity
                && words.iter().all(|word| text.contains(word))
        };
        assert!(self.0.iter().any(|f| is_it(&f)), "{severity} {id} {words:?}: {:#?}", self.0);
    }

    #[track_caller]
    fn has_no(&self, id: &str) {
        assert!(self.0.iter().all(|finding| finding["id"] != id), "{id}: {:#?}", self.0);
    }

    /// What is more than good to know.
    fn faults(&self) -> Vec<&Value> {
        self.0.iter().filter(|finding| finding["severity"] != "note").collect()
    }
}

/// With attachments, and with faults: nothing of the kernel's, no file, no setting is another afterwards.
#[test]
fn nothing_is_wrong_with_a_clean_node_and_nothing_is_changed() {
    let conf = bridge("net", &json!({}));
    let host = host_with(&conf);
    let none = Vec::<&Value>::new();
    assert_eq!(Report::of(&host).faults(), none);
    let pods = host.pods(3);
    for pod in &pods {
        host.add(&conf, pod).ok();
    }
    assert_eq!(Report::of(&host).faults(), none);
    host.sh("touch /var/lib/cni/networks/net/10.1.0.99; nft add table ip x");
    let files = "find /run /var/lib -printf '%p %m %s %T@ %C@\n' | sort; nft -a list ruleset";
    let (before, listed) = (host.snapshot(), host.sh(files));
    let report = Report::of(&host);
    report.has("warning", "lease-file-damaged", &["10.1.0.99"]);
    assert_eq!(host.sh(files), listed);
    assert_eq!(host.snapshot(), before);
}

/// For people: a line for each finding and one for what to do, the worst first, then what is in order.
#[test]
fn people_are_told_in_lines() {
    let conf = bridge("net", &json!({"type": "nosuch"}));
    let host = host_with(&conf);
    let output = run(&host, &[], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("error    network net, nosuch: there is no program nosuch in"),
        "{text}"
    );
    assert!(lines[0].ends_with("[plugin-missing]"), "{text}");
    assert!(lines[1].starts_with("         → install it"), "{text}");
    let last = lines.last().unwrap();
    assert!(last.starts_with("ok       network configurations, "), "{text}");
    assert!(last.contains("subnets, leases, leftovers"), "{text}");
}

#[test]
fn configurations() {
    let host = Host::new();
    configure(&host, &[]);
    Report::of(&host).has("note", "config-none", &[CONFIGURATIONS, "--conf-dir"]);

    let net = bridge("net", &json!({}));
    let other = bridge("other", &json!({"ipam": host_local(&json!({"subnet": "10.2.0.0/24"}))}));
    configure(&host, &[&net, &other]);
    let report = Report::of(&host);
    report.has("warning", "bridge-shared", &["br0", "net and other", "10.2.0.0/24"]);
    report.has("note", "config-several", &["0.conf", "1.conf"]);
    configure(&host, &[&net, &net]);
    Report::of(&host).has("error", "config-name-twice", &["0.conf and", "1.conf"]);

    configure(&host, &[&net]);
    host.write(format!("{CONFIGURATIONS}/broken.conflist"), r#"{"name": "#);
    host.write(
        format!("{CONFIGURATIONS}/new.conf"),
        r#"{"cniVersion": "9.9.9", "name": "new", "type": "ptp"}"#,
    );
    host.sh(&format!("ln -s nowhere {CONFIGURATIONS}/gone.conf"));
    let report = Report::of(&host);
    report.has("error", "config-invalid", &["broken.conflist", "JSON"]);
    report.has("error", "config-version", &["new.conf", "9.9.9", "1.1.0"]);
    report.has("error", "config-unreadable", &["gone.conf"]);

    configure(&host, &[&bridge("net", &json!({"mtu": 1}))]);
    Report::of(&host).has("error", "plugin-refuses", &["network net, bridge", "mtu"]);
}

#[test]
fn plugins() {
    let host = host_with(&bridge("net", &json!({})));
    host.sh(&format!("rm {BIN}/bridge {BIN}/host-local"));
    let report = Report::of(&host);
    report.has("error", "plugin-missing", &["bridge", BIN, "plumb install"]);
    report.has("error", "plugin-missing", &["host-local"]);
    host.write(format!("{BIN}/bridge"), "#!/bin/sh\n# github.com/containernetworking/plugins\n");
    host.sh(&format!("chmod 755 {BIN}/bridge"));
    Report::of(&host).has("note", "plugin-reference", &["bridge", "plumb install"]);
}

#[test]
fn kernels() {
    let host = Host::new();
    let kinds =
        [("dummy", "dummy links"), ("ipvlan", "ipvlan links"), ("macvlan", "macvlan links")];
    for (kind, name) in kinds {
        configure(
            &host,
            &[&json!({"cniVersion": "1.1.0", "name": "net", "type": kind, "master": "up0"})],
        );
        let link = if kind == "dummy" { "" } else { "link up0" };
        let made = host.sh(&format!(
            "ip link add up0 type veth peer up1; ip link set up0 up
             ip link add {link} t0 type {kind} 2> /dev/null && echo made && ip link del t0 || true
             ip link del up0"
        ));
        let report = Report::of(&host);
        if made == "made\n" {
            assert!(
                report.0.iter().all(|f| !f["finding"].to_string().contains(name)),
                "{:#?}",
                report.0
            );
        } else {
            report.has("error", "kernel-feature", &[name, "network net", "CONFIG_"]);
        }
        configure(&host, &[]);
        if made != "made\n" {
            Report::of(&host).has("note", "kernel-feature", &[name, "no network uses"]);
        }
    }
    // Whatever the kernel has, a host without the device has no taps.
    configure(&host, &[&json!({"cniVersion": "1.1.0", "name": "net", "type": "tap"})]);
    host.sh("mount -t tmpfs tmpfs /dev/net");
    Report::of(&host).has("error", "kernel-feature", &["taps", "network net", "CONFIG_TUN"]);
    configure(&host, &[]);
    Report::of(&host).has("note", "kernel-feature", &["taps", "no network uses"]);
    host.sh("umount /dev/net");
    host.sh(
        "echo 4.19.1-test > /run/release; mount --bind /run/release /proc/sys/kernel/osrelease",
    );
    Report::of(&host).has("warning", "kernel-old", &["4.19.1-test", "5.3"]);
    host.sh("umount /proc/sys/kernel/osrelease");
    let unprivileged = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    Report::under(&host, &unprivileged).has("note", "kernel-unknown", &["CAP_SYS_ADMIN"]);
}

#[test]
fn settings() {
    let conf = bridge("net", &json!({}));
    let host = host_with(&conf);
    let pod = host.pod("a");
    host.sh("sysctl -qw net.ipv4.ip_forward=0");
    Report::of(&host).has("note", "forwarding-off", &["ipv4/ip_forward", "the first ADD sets it"]);
    host.add(&conf, &pod).ok();
    Report::of(&host).has_no("forwarding-off");
    host.sh("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    let report = Report::of(&host);
    report.has("error", "forwarding-off", &["ipv4/ip_forward", "sysctl -w net.ipv4.ip_forward=1"]);
    report.has("error", "forwarding-off", &["ipv6/conf/all/forwarding"]);
    host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");

    host.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    Report::of(&host).has("error", "ipv6-disabled", &["conf/default/disable_ipv6", "network net"]);
    host.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=0");

    host.sh(
        "ip link add up0 type veth peer up1; ip link set up0 up; ip link set up1 up
         ip address add 192.0.2.1/24 dev up0; ip address add 198.51.100.1/24 dev up1
         ip route add default via 192.0.2.9; ip route add default via 198.51.100.9 metric 9
         sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up0.rp_filter=0 net.ipv4.conf.up1.rp_filter=0",
    );
    Report::of(&host).has_no("rp-filter");
    host.sh("sysctl -qw net.ipv4.conf.up1.rp_filter=1");
    Report::of(&host).has("warning", "rp-filter", &["up1", "2 ways out"]);
}

/// Files take the place of settings that are those of the whole machine.
#[test]
fn settings_that_not_all_kernels_have() {
    let host = host_with(&bridge("net", &json!({})));
    let put = |name: &str, value: &str| {
        host.sh(&format!(
            "echo {value} > /run/value.{value}
             mount --bind /run/value.{value} /proc/sys/net/{name}"
        ));
    };
    let has = |name: &str| !host.sh(&format!("ls -d /proc/sys/net/{name} || true")).is_empty();
    if has("bridge") {
        put("bridge/bridge-nf-call-iptables", "1");
        Report::of(&host).has("note", "bridge-nf-call", &["bridge-nf-call-iptables", "kube-proxy"]);
    } else {
        Report::of(&host).has_no("bridge-nf-call");
    }
    if has("netfilter/nf_conntrack_count") {
        put("netfilter/nf_conntrack_count", "95");
        put("netfilter/nf_conntrack_max", "100");
        Report::of(&host).has("warning", "conntrack-full", &["95 of 100"]);
    } else {
        Report::of(&host).has_no("conntrack-full");
    }
}

#[test]
fn packet_filters() {
    let host = host_with(&bridge("net", &json!({})));
    host.sh(
        "nft 'table inet fw { chain f { type filter hook forward priority 0; policy drop; }; }'",
    );
    let report = Report::of(&host);
    report.has(
        "error",
        "forward-drop",
        &["table inet fw, chain f", "there is no rule", "nft add rule inet fw f"],
    );
    host.sh("nft add rule inet fw f ip saddr 10.1.0.0/24 accept");
    Report::of(&host).has("warning", "forward-drop", &["unless a rule accepts"]);
    host.sh("nft add table ip nat; nft add chain ip nat CNI-0123456789abcdef");
    Report::of(&host).has("note", "reference-rules", &["nat/CNI-0123456789abcdef"]);
    configure(&host, &[]);
    Report::of(&host).has("note", "forward-drop", &["no configured network needs that"]);
}

#[test]
fn legacy_iptables() {
    let host = host_with(&bridge("net", &json!({})));
    let known = host.sh("iptables-legacy -t nat -S > /dev/null 2>&1 && echo known || true");
    if known.is_empty() {
        // A kernel without: then nothing is there to be found.
        let report = Report::of(&host);
        report.has_no("legacy-iptables");
        report.has_no("legacy-cni-chains");
        return;
    }
    host.sh("iptables-legacy -t nat -N mine");
    Report::of(&host).has("note", "legacy-iptables", &["iptables-legacy, table nat"]);
    host.sh("iptables-legacy -t nat -N CNI-0123456789abcdef; iptables-legacy -P FORWARD DROP");
    let report = Report::of(&host);
    report.has("warning", "legacy-cni-chains", &["CNI-0123456789abcdef", "can't remove"]);
    report.has(
        "error",
        "forward-drop",
        &["iptables-legacy, table filter", "-A FORWARD -s SUBNET -j ACCEPT"],
    );
}

#[test]
fn subnets() {
    let net = bridge("net", &json!({}));
    let host = host_with(&net);
    let other = bridge(
        "other",
        &json!({"bridge": "br1", "ipam": host_local(&json!({"subnet": "10.1.0.128/25"}))}),
    );
    configure(&host, &[&net, &other]);
    Report::of(&host).has("error", "subnets-clash", &["net and other", "10.1.0.128/25"]);
    configure(&host, &[&net]);

    host.sh("ip link add up0 type bridge; ip link set up0 up; ip address add 10.1.0.7/24 dev up0");
    Report::of(&host).has("error", "subnet-on-host", &["network net", "10.1.0.7/24 on up0"]);
    host.sh("ip address flush dev up0; ip route add 10.1.0.0/25 dev up0");
    Report::of(&host).has("error", "subnet-on-host", &["10.1.0.0/25 through up0"]);
    host.sh("ip route del 10.1.0.0/25; ip route add 10.0.0.0/8 dev up0");
    Report::of(&host).has("warning", "subnet-on-host", &["10.0.0.0/8 through up0", "hides"]);
}

#[test]
fn lease_directories() {
    let host =
        host_with(&bridge("net", &json!({"ipam": host_local(&json!({"dataDir": "/run/leases"}))})));
    host.sh("mkdir /run/leases; mount -t tmpfs -o size=400k,mode=755 tmpfs /run/leases");
    assert_eq!(Report::of(&host).faults(), Vec::<&Value>::new());
    host.sh("dd if=/dev/zero of=/run/leases/log bs=4k 2> /dev/null || true");
    Report::of(&host).has("error", "lease-disk-full", &["/run/leases", "no space left"]);
    host.sh("rm /run/leases/log; mount -o remount,ro /run/leases");
    Report::of(&host).has("error", "lease-read-only", &["/run/leases", "read-only"]);
    host.sh("mount -o remount,rw /run/leases; mkdir -m 777 /run/leases/net");
    Report::of(&host).has(
        "warning",
        "lease-directory-mode",
        &["/run/leases/net", "777", "chmod 755"],
    );
    host.sh("rmdir /run/leases/net; touch /run/leases/net");
    Report::of(&host).has(
        "error",
        "lease-directory-unusable",
        &["/run/leases/net", "no directory"],
    );
}

#[test]
fn lease_files() {
    let conf = bridge(
        "net",
        &json!({"ipam": host_local(&json!({"rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.11"}))}),
    );
    let host = host_with(&conf);
    let pods = host.pods(10);
    for pod in &pods[..9] {
        host.add(&conf, pod).ok();
    }
    Report::of(&host).has("warning", "pool-nearly-exhausted", &["network net", "9 of 10"]);
    host.add(&conf, &pods[9]).ok();
    Report::of(&host).has("error", "pool-exhausted", &["all 10 addresses", "plumb gc net"]);

    let leases = "/var/lib/cni/networks/net";
    host.sh(&format!("touch {leases}/10.1.0.99 {leases}/notes.txt"));
    let report = Report::of(&host);
    report.has("warning", "lease-file-damaged", &["10.1.0.99"]);
    report.has("note", "lease-foreign-file", &["notes.txt"]);
    let index = host.sh(&format!("ls -A {leases} | grep index")).trim().to_owned();
    host.sh(&format!("printf 'garbage, garbage, garbage, garbage' > {leases}/{index}"));
    Report::of(&host).has("note", "lease-index-damaged", &[&index]);
    host.sh(&format!("rm {leases}/{index}; touch -d 2001-01-01 {leases}/10.1.0.2"));
    Report::of(&host).has(
        "note",
        "lease-earlier-boot",
        &["earlier boot", "through: 1", "the next ADD frees them"],
    );
}

#[test]
fn leftovers() {
    let conf = bridge("net", &json!({}));
    let host = host_with(&conf);
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    let leases = "/var/lib/cni/networks/net";

    host.sh(&format!("mkdir /run/kept; mv {leases}/10.* {leases}/fd01* /run/kept"));
    Report::of(&host).has("warning", "link-without-lease", &["network net", "a/eth0"]);
    host.sh(&format!("mv /run/kept/* {leases}"));
    Report::of(&host).has_no("link-without-lease");

    host.sh("ip -n a link set eth0 netns $$ name stray");
    Report::of(&host).has(
        "warning",
        "leftover-link",
        &["container a, eth0 of network net", "plumb del net"],
    );
    host.sh("ip link del stray");
    let report = Report::of(&host);
    report.has("warning", "element-without-link", &["plumb:net/a/eth0", "plumb gc"]);
    // It may be of an ADD that is under way.
    report.has_no("lease-without-link");
    host.sh(&format!("touch -d '2 minutes ago' {leases}/10.*"));
    Report::of(&host).has("warning", "lease-without-link", &["10.1.0.2 of a", "plumb gc net"]);
    host.del(&conf, &pod).ok();
    assert_eq!(Report::of(&host).faults(), Vec::<&Value>::new());
}

#[test]
fn other_places() {
    let host = host_with(&bridge("net", &json!({"ipam": {"type": "dhcp"}})));
    Report::of(&host).has(
        "error",
        "dhcp-daemon-missing",
        &["/run/cni/dhcp.sock", "network net", "plumb dhcp daemon"],
    );
    configure(&host, &[&bridge("net", &json!({}))]);
    host.sh("rm -f /run/plumb.lock; mkdir /run/plumb.lock");
    Report::of(&host).has("error", "lock-unusable", &["/run/plumb.lock", "no file"]);
    host.sh("rmdir /run/plumb.lock; mkdir -p /var/lib/cni; touch /var/lib/cni/results");
    Report::of(&host).has("warning", "results-unusable", &["/var/lib/cni/results"]);
}

/// What can't be seen is said, not passed over.
#[test]
fn without_privilege_it_is_said_what_was_not_looked_at() {
    let host = host_with(&bridge("net", &json!({})));
    let unprivileged = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    Report::under(&host, &unprivileged).has("note", "not-looked-at", &["nf_tables"]);
}

/// A directory that is none is an error of the command line's, not a finding.
#[test]
fn a_directory_that_can_not_be_listed_is_told() {
    let host = Host::new();
    host.sh(&format!("touch {CONFIGURATIONS}"));
    let output = run(&host, &[], &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(CONFIGURATIONS), "{text}");
}

/// The rows of docs/doctor.md are the program's findings, and each is provoked above.
#[test]
fn the_documentation_explains_all_findings_and_no_others() {
    let code = include_str!("../../src/cli/doctor/finding.rs");
    let declared = code.split("ids! {").nth(1).unwrap().split("\n}").next().unwrap();
    let declared: BTreeSet<_> =
        declared.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let documented: BTreeSet<_> = include_str!("../../docs/doctor.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(declared.len() > 30);
    assert_eq!(documented, declared);
    let tests = include_str!("doctor.rs");
    let untested: Vec<_> =
        declared.iter().filter(|id| !tests.contains(&format!("\"{id}\""))).collect();
    assert_eq!(untested, Vec::<&&str>::new());
}
