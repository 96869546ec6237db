//! GC beside calls: what is attached after a garbage collection has begun, or just then, is not in its list of
//! valid attachments, and survives.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use plumb::cni::queue::COLLECTION;
use plumb::sys::lock::is_held;
use serde_json::{Value, json};

use crate::crash::{Network, walks_all};
use crate::harness::{Call, Host, Outcome, Pod, Stop, Tracee, patience, with};

const QUEUE: &str = "/run/plumb.lock";

/// Runs `call` up to its system call `number`, there `other` to its end, unless that waits for the first, and then the
/// rest. `at` is called in between. None if the first has fewer system calls.
fn interleaved(
    call: &Call<'_>,
    number: usize,
    other: &Call<'_>,
    at: impl FnOnce(),
) -> Option<[Outcome; 2]> {
    let (child, tracee) = Tracee::start(call);
    tracee.run_to_main();
    let mut entries = 1;
    while entries < number {
        match tracee.go(libc::PTRACE_SYSCALL) {
            Stop::Entry(_) => entries += 1,
            Stop::Gone => return None,
            _ => {}
        }
    }
    at();
    let mut running = other.start();
    let deadline = Instant::now() + patience(Duration::from_millis(150));
    while running.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    tracee.release();
    Some([child, running].map(ended))
}

fn ended(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        took: Duration::ZERO,
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A host where a stale attachment of the network is left each time.
struct Stage {
    host: Host,
    conf: Value,
    /// With no valid attachment.
    list: Value,
}

impl Stage {
    fn new() -> Self {
        let host = Host::new();
        let conf = Network::bridge().conf;
        let mut list = conf.clone();
        list["cni.dev/valid-attachments"] = json!([]);
        Self { host, conf, list }
    }

    fn has_survived(&self, result: &Value, pod: &Pod<'_>, what: &str) {
        let checked = self.host.check(&self.conf, result, pod);
        assert!(checked.status.success(), "{what}: {checked:#?}");
        let mut leases: Vec<_> = result["ips"].as_array().unwrap().iter().collect();
        leases.sort_by_key(|ip| ip["address"].as_str().unwrap());
        let leases = leases.iter().map(|ip| ip["address"].as_str().unwrap());
        let leases: Vec<_> = leases.map(|address| address.split('/').next().unwrap()).collect();
        assert_eq!(self.host.leases("net"), leases, "{what}: the stale one's have gone");
        let links = self.host.ip("link show type veth");
        assert_eq!(links.as_array().unwrap().len(), 1, "{what}: {links:#}");
        self.host.del(&self.conf, pod).ok();
        assert_eq!(self.host.element_comments(), Vec::<String>::new(), "{what}");
        assert_eq!(self.host.leases("net"), Vec::<String>::new(), "{what}");
    }
}

/// Whatever ADD is about when the collection comes.
#[test]
fn an_add_that_is_under_way_survives() {
    let stage = Stage::new();
    let (stale, pod) = (stage.host.pod("stale"), stage.host.pod("a"));
    let (mut number, mut walked) = (1, 0);
    loop {
        stage.host.add(&stage.conf, &stale).ok();
        let add = Call::new(&stage.host, "ADD", &stage.conf).of(&pod);
        let gc = Call::new(&stage.host, "GC", &stage.list);
        let Some([added, collected]) = interleaved(&add, number, &gc, || {}) else { break };
        let what = format!("collected before call {number} of ADD");
        assert!(collected.status.success(), "{what}: {collected:#?}");
        assert!(added.status.success(), "{what}: {added:#?}");
        stage.has_survived(&added.ok(), &pod, &what);
        number += if walks_all() { 1 } else { 5 };
        walked += 1;
    }
    assert!(walked > 15, "{walked}");
}

/// Whatever the collection is about when the ADD comes, to another container or to that whose attachment is stale.
#[test]
fn an_add_that_begins_meanwhile_survives() {
    for again in [false, true] {
        let stage = Stage::new();
        let stale = stage.host.pod("stale");
        let other = stage.host.pod("a");
        let pod = if again { &stale } else { &other };
        let (mut number, mut walked) = (1, 0);
        loop {
            stage.host.add(&stage.conf, &stale).ok();
            if again {
                stage.host.sh("ip netns exec stale ip link del eth0");
            }
            let add = Call::new(&stage.host, "ADD", &stage.conf).of(pod);
            let gc = Call::new(&stage.host, "GC", &stage.list);
            let mut has_begun = false;
            let at = || {
                has_begun = is_held(&stage.host.open(QUEUE), COLLECTION).unwrap();
            };
            let Some([collected, added]) = interleaved(&gc, number, &add, at) else { break };
            let what = format!("added before call {number} of GC");
            assert!(collected.status.success(), "{what}: {collected:#?}");
            assert!(added.status.success(), "{what}: {added:#?}");
            if has_begun {
                stage.has_survived(&added.ok(), pod, &what);
                walked += 1;
            }
            stage.host.del(&stage.conf, pod).ok();
            number += if walks_all() { 1 } else { 3 };
        }
        assert!(walked > 5, "{walked}");
    }
}

/// Their links go some at a time, and their addresses and routes before: the cost of each would grow with the number
/// of all.
#[test]
fn many_go_in_few_requests_and_the_valid_one_keeps_its_routes() {
    const STALE: usize = 150;
    let host = Host::new();
    let conf = with(
        Network::ptp().conf,
        &json!({"ipam": {"type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd01::/64"}]]}}),
    );
    let (valid, crowd) = (host.pod("valid"), host.pod("crowd"));
    let result = host.add(&conf, &valid).ok();
    for number in 0..STALE {
        let add = Call::new(&host, "ADD", &conf)
            .attachment(&format!("stale{number}"), &format!("eth{number}"))
            .env("CNI_NETNS", &crowd.path());
        add.run().ok();
    }
    let mut list = conf.clone();
    list["cni.dev/valid-attachments"] = json!([{"containerID": "valid", "ifname": "eth0"}]);
    Call::new(&host, "GC", &list).env("PLUMB_TRACE", "/run/trace").run().ok();
    let count = |kind: &str| {
        let count = host.sh(&format!("grep -c '→ {kind}' /run/trace || true"));
        count.trim().parse::<usize>().unwrap()
    };
    assert_eq!(count("RTM_DELLINK"), 2);
    assert!(count("RTM_DELROUTE") >= 2 * STALE, "{}", count("RTM_DELROUTE"));

    assert_eq!(host.ip("link show type veth").as_array().unwrap().len(), 1);
    assert_eq!(host.leases("net").len(), 2);
    assert_eq!(host.element_comments(), ["plumb:net/valid/eth0"; 2]);
    host.check(&conf, &result, &valid).ok();
    valid.must_reach("10.1.0.1");
    valid.must_reach("fd01::1");
    let routes = host.sh("ip -4 route show; ip -6 route show | grep -v '^fe80'");
    assert_eq!(routes.lines().filter(|line| line.contains("veth")).count(), 3, "{routes}");
}
