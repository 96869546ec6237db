//! `PLUMB_TRACE` and `plumb trace`: what a plugin and the kernel say to each other.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{BIN, Call, Host, PLUMB, Pod, bridge_conf, dual, ipv4};

const TRACE: &str = "/run/trace";

/// Type and sequence number of each message, in order, with the direction.
type Messages = Vec<(char, String, u32)>;

/// The messages of a trace: `0.412 ms 4711 host → RTM_GETLINK #1 REQUEST …`.
fn traced(trace: &str) -> Messages {
    let message = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| matches!(*word, "→" | "←"))?;
        let number = words[at + 2].strip_prefix('#').expect(line);
        Some((words[at].chars().next()?, words[at + 1].to_owned(), number.parse().expect(line)))
    };
    trace.lines().filter_map(message).collect()
}

/// The same as strace(1) decodes it: [`UNKNOWN`] in the first datagram of a socket, before the kernel
/// has given it the port by which strace finds out what it is.
fn straced(trace: &str) -> Messages {
    let mut messages = Messages::new();
    for line in trace.lines() {
        let arrow = match line.split('(').next().unwrap().split_whitespace().last() {
            Some("sendto") => '→',
            Some("recvmsg") => '←',
            _ => continue,
        };
        for (at, _) in line.match_indices("{nlmsg_len=") {
            // An error repeats the request that it answers.
            if line[..at].trim_end_matches('[').ends_with("msg=") {
                continue;
            }
            let value =
                |key: &str| line[at..].split(key).nth(1).unwrap().split(',').next().unwrap();
            // `NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_NEWTABLE`
            let kind = value("nlmsg_type=").rsplit(['|', ' ']).next().unwrap();
            messages.push((arrow, kind.to_owned(), value("nlmsg_seq=").parse().expect(line)));
        }
    }
    messages
}

const UNKNOWN: &str = "*/";

/// Names of links whose index is asked for, in order, and what is answered: the index, or the error.
fn traced_indices(trace: &str) -> Vec<(String, String)> {
    let question = |line: &str| {
        let (_, question) = line.split_once(" SO_BINDTODEVICE \"")?;
        let (name, answer) = question.split_once("\": ").expect(line);
        Some((name.to_owned(), answer.to_owned()))
    };
    trace.lines().filter_map(question).collect()
}

/// The same as strace(1) decodes it: `SO_BINDTODEVICE, "veth0", 5) = 0`, of an error `-1 ENODEV (No such
/// device)`, then `SO_BINDTOIFINDEX, [2], [4]) = 0`. What has four bytes it takes for a number.
fn straced_indices(trace: &str) -> Vec<(String, String)> {
    let mut lines = trace.lines();
    let mut indices = Vec::new();
    while let Some(line) = lines.next() {
        let Some((_, question)) = line.split_once("SO_BINDTODEVICE, ") else { continue };
        let name = match question.strip_prefix('[') {
            Some(number) => {
                let number: u32 = number.split(']').next().unwrap().parse().expect(line);
                String::from_utf8(number.to_ne_bytes().to_vec()).expect(line)
            }
            None => question.split('"').nth(1).expect(line).to_owned(),
        };
        let answer = match question.split_once(" = -1 ") {
            Some((_, error)) => error,
            None => {
                let (_, index) =
                    lines.next().unwrap().split_once("SO_BINDTOIFINDEX, [").expect(line);
                index.split(']').next().unwrap()
            }
        };
        indices.push((name, answer.to_owned()));
    }
    indices
}

fn everything() -> Value {
    bridge_conf(&json!({
        "isDefaultGateway": true,
        "ipMasq": true,
        "macspoofchk": true,
        "ipam": dual(),
    }))
}

/// A call that is traced by itself and by strace, and both traces.
fn both(host: &Host, call: &Call<'_>) -> (String, String) {
    host.sh(&format!("rm -f {TRACE}"));
    let words = [
        "-f",
        "-qq",
        "-v",
        "-s",
        "9999",
        "-o",
        "/run/strace",
        "-e",
        "trace=sendto,recvmsg,openat,setsockopt,getsockopt",
    ];
    let words = [["strace"].as_slice(), &words].concat();
    call.clone().env("PLUMB_TRACE", TRACE).under(&words).run().ok();
    (host.read(TRACE), host.read("/run/strace"))
}

#[test]
fn a_trace_has_every_message_in_order_and_every_file_as_strace_sees_them() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = everything();
    for (verb, some) in [
        ("ADD", ["RTM_NEWLINK", "RTM_NEWADDR", "RTM_NEWROUTE", "NFT_MSG_NEWSETELEM"].as_slice()),
        ("DEL", &["RTM_DELLINK", "NFT_MSG_DELSETELEM", "NFNL_MSG_BATCH_END"]),
    ] {
        let (trace, strace) = both(&host, &Call::new(&host, verb, &conf).of(&pod));
        let messages = traced(&trace);
        let mut expected = straced(&strace);
        for ((_, expected, _), (_, kind, _)) in expected.iter_mut().zip(&messages) {
            if expected == UNKNOWN {
                kind.clone_into(expected);
            }
        }
        assert_eq!(messages, expected);
        for kind in some {
            assert!(messages.iter().any(|(_, other, _)| other == kind), "{kind}: {trace}");
        }
        let lines: Vec<_> = trace.lines().collect();
        assert!(lines[0].contains(&format!("bridge {verb} container \"a\"")), "{}", lines[0]);
        assert!(lines.last().unwrap().ends_with(" bridge has succeeded"), "{trace}");
        // And every file that is opened, which strace tells by the name that the call has.
        let opened = strace.lines().filter(|line| line.contains("openat("));
        let names: Vec<_> = opened.filter_map(|line| line.split('"').nth(1)).collect();
        for name in names.iter().filter(|name| !["/run/trace", "."].contains(name)) {
            assert!(trace.contains(name), "{name} is missing from\n{trace}");
        }
        assert!(names.contains(&"plumb.index") && names.contains(&"/run/netns/a"), "{names:?}");
        // And every question for a link's index, with the answer.
        assert_eq!(traced_indices(&trace), straced_indices(&strace), "{trace}\n{strace}");
        // Each datagram is timed.
        let datagrams = strace.lines().filter(|line| line.contains("sendto(")).count();
        assert_eq!(trace.matches(" ms in the kernel\n").count(), datagrams, "{trace}");
    }
}

/// What belongs to one message or event, from its line to the next.
fn event<'a>(trace: &'a str, words: &[&str]) -> &'a str {
    let is_event = |line: &str| line.contains(" ms ");
    let mut begin = None;
    let mut at = 0;
    for line in trace.split_inclusive('\n') {
        match begin {
            Some(begin) if is_event(line) => return &trace[begin..at],
            None if words.iter().all(|word| line.contains(word)) => begin = Some(at),
            _ => {}
        }
        at += line.len();
    }
    &trace[begin.unwrap_or_else(|| panic!("no event with {words:?}:\n{trace}"))..]
}

#[test]
fn a_trace_tells_what_is_asked_where_and_with_which_files() {
    let host = Host::new();
    let pod = host.pod("a");
    let call = Call::new(&host, "ADD", &everything()).of(&pod).env("PLUMB_TRACE", TRACE);
    let result = call.run().ok();
    let trace = host.read(TRACE);
    let veth = result["interfaces"][1]["name"].as_str().unwrap();
    let mac = result["interfaces"][2]["mac"].as_str().unwrap();
    let pair = event(&trace, &["host", "→ RTM_NEWLINK", " REQUEST|EXCL|CREATE "]);
    for line in [
        format!("IFLA_IFNAME {veth:?}\n"),
        "IFLA_INFO_KIND \"veth\"\n".to_owned(),
        "VETH_INFO_PEER AF_UNSPEC link 0".to_owned(),
        "IFLA_IFNAME \"eth0\"\n".to_owned(),
        format!("IFLA_ADDRESS {mac}\n"),
    ] {
        assert!(pair.contains(&line), "{line}: {pair}");
    }
    let address = event(&trace, &["container", "→ RTM_NEWADDR", "AF_INET "]);
    assert!(address.contains("IFA_LOCAL 10.1.0.2\n"), "{address}");
    let address = event(&trace, &["host", "→ RTM_NEWADDR", "AF_INET6"]);
    assert!(address.contains("IFA_LOCAL fd01::1\n"), "{address}");
    let element = event(&trace, &["→ NFT_MSG_NEWSETELEM", "bridge"]);
    assert!(element.contains(" comment \"plumb:net/a/eth0"), "{element}");
    let index = pod.ip("link show eth0")[0]["ifindex"].to_string();
    event(&trace, &["container", &format!("SO_BINDTODEVICE \"eth0\": {index}\n")]);
    event(&trace, &["host", &format!("SO_BINDTODEVICE {veth:?}: ENODEV (No such device)")]);
    for words in [
        ["host", "create /var/lib/cni/networks/net/10.1.0.2"],
        ["host", "open /run/netns/a"],
        ["host", "write /proc/sys/net/ipv4/ip_forward 1"],
        ["container", "write /proc/sys/net/ipv6/conf/eth0/accept_dad 0"],
        ["host", "open /var/lib/cni/networks/net: ENOENT"],
    ] {
        event(&trace, &words);
    }

    // The same file has the next process's, behind.
    Call::new(&host, "DEL", &everything()).of(&pod).env("PLUMB_TRACE", TRACE).run().ok();
    let both = host.read(TRACE);
    let rest = both.strip_prefix(&trace).expect("it is appended to");
    event(rest, &["host", "→ RTM_DELLINK"]);
    event(rest, &["host", "remove /var/lib/cni/networks/net/fd01::2"]);
    let pid = |trace: &str| trace.split_whitespace().nth(2).unwrap().to_owned();
    assert_ne!(pid(&trace), pid(rest));
    assert_eq!(host.sh(&format!("stat -c %a {TRACE}")), "600\n");
}

#[test]
fn a_trace_has_the_kernels_words_and_what_they_point_at() {
    let host = Host::new();
    let pod = host.pod("a");
    host.scripted_ipam(&json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.0.2/16"}],
        "routes": [{"dst": "192.0.2.0/24", "gw": "172.31.0.1"}],
    }));
    let conf = bridge_conf(&json!({"ipam": {"type": "scripted"}}));
    let call = Call::new(&host, "ADD", &conf).of(&pod);
    let error = call.clone().env("PLUMB_TRACE", TRACE).run().fails(999, &["192.0.2.0/24"]);
    let trace = host.read(TRACE);
    let words = ["container", "← NLMSG_ERROR", "for RTM_NEWROUTE: ENETUNREACH (Network is"];
    let refusal = event(&trace, &words);
    assert!(refusal.contains("NLMSGERR_ATTR_MSG \"Nexthop has invalid gateway\"\n"), "{refusal}");
    event(&trace, &["execute /run/cni/bin/scripted ADD"]);
    // The plugin's error, and how it is undone.
    event(&trace, &["bridge has failed: ", error["msg"].as_str().unwrap()]);
    event(&trace, &["host", "→ RTM_DELLINK"]);

    // The first masquerading on a host finds no table.
    host.sh(&format!("rm {TRACE}"));
    let call = Call::new(&host, "ADD", &everything()).of(&pod).env("PLUMB_TRACE", TRACE);
    call.run().ok();
    let trace = host.read(TRACE);
    let refusal = event(&trace, &["← NLMSG_ERROR", "for NFT_MSG_NEWSETELEM: ENOENT"]);
    assert!(refusal.contains("NLMSGERR_ATTR_OFFS 20 (NFTA_SET_ELEM_LIST_TABLE)\n"), "{refusal}");
}

/// The answer to the runtime is what it would be.
#[test]
fn a_trace_changes_nothing_and_its_failure_neither() {
    let host = Host::new();
    let conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": ipv4()});
    let call = Call::new(&host, "ADD", &conf).attachment("c1", "eth0");
    let untraced = call.run();
    assert_eq!(
        (untraced.ok()["ips"][0]["address"].as_str(), &*untraced.stderr),
        (Some("10.1.0.2/16"), "")
    );
    host.sh("ln -s target /run/link; mkdir /run/directory; mkfifo /run/fifo");
    for (path, words) in [
        (TRACE, ""),
        ("", ""),
        (
            "/run/link",
            "plumb: PLUMB_TRACE: cannot open /run/link: Too many levels of symbolic links",
        ),
        ("/run/directory", "Is a directory"),
        ("/run/none/trace", "No such file or directory"),
        // Nobody reads from it, and nobody waits for that.
        ("/run/fifo", "No such device or address"),
        // A full disk.
        ("/dev/full", ""),
    ] {
        let traced = call.clone().env("PLUMB_TRACE", path).run();
        assert_eq!((traced.status, &traced.stdout), (untraced.status, &untraced.stdout), "{path}");
        assert!(traced.stderr.contains(words), "{path}: {}", traced.stderr);
        assert!(!words.is_empty() || traced.stderr.is_empty(), "{path}: {}", traced.stderr);
    }
    assert_eq!(host.sh("ls /run/target 2>/dev/null || true"), "");
    let error = call.without("CNI_PATH").env("PLUMB_TRACE", TRACE).run();
    error.fails(4, &["CNI_PATH"]);
    event(&host.read(TRACE), &["host-local has failed: ", "CNI_PATH"]);
}

fn plumb_trace(host: &Host, pod: &Pod<'_>, verb: &str, conf: &Value, words: &[&str]) -> Output {
    let mut command = host.command(PLUMB);
    command.arg("trace").args(words).env("CNI_COMMAND", verb).env("CNI_PATH", BIN);
    command
        .env("CNI_CONTAINERID", &pod.name)
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(conf.to_string().as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn plumb_trace_runs_a_plugin_and_shows_what_it_does() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = everything();
    let output = plumb_trace(&host, &pod, "ADD", &conf, &["bridge"]);
    assert!(output.status.success(), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pod.addresses("eth0"), ["10.1.0.2/16", "fd01::2/64"]);
    assert_eq!(result["ips"][0]["address"], "10.1.0.2/16");
    let trace = String::from_utf8(output.stderr).unwrap();
    event(&trace, &["container", "→ RTM_NEWADDR", "AF_INET "]);

    let words = ["--output", TRACE, "bridge"];
    let output = plumb_trace(&host, &pod, "DEL", &conf, &words);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    event(&host.read(TRACE), &["host", "→ RTM_DELLINK"]);
    assert_eq!(host.sh(&format!("stat -c %a {TRACE}")), "600\n");
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "eth0 is gone");

    // The plugin's own failure is told to the runtime as ever.
    let output = plumb_trace(&host, &pod, "ADD", &json!({"name": "net"}), &["host-local"]);
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 7);

    // A file that can't be written to is told before anything is done.
    host.sh("ln -s target /run/link");
    let output = plumb_trace(&host, &pod, "ADD", &conf, &["bridge", "--output", "/run/link"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot open /run/link"));
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 1, "nothing was attached");

    let output = plumb_trace(&host, &pod, "ADD", &conf, &["brigde"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("'bridge'"), "{output:?}");
    let output = plumb_trace(&host, &pod, "", &conf, &["bridge"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CNI_COMMAND is not set"));
}
