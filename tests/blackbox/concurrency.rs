//! Many at once.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Call, Host, Pod, bridge_conf, ipv4, network, patience};

const PODS: usize = 64;
const CALLERS: usize = 16;

fn dual_stack() -> Value {
    network(include_str!("../../examples/dual-stack.conflist"))[0].clone()
}

/// Does `work` for all of `items`, by as many callers at a time as a busy runtime has.
fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// Everybody's first ADD makes bridge, gateway addresses, table, sets and rules at the same time.
#[test]
fn pods_attached_and_detached_by_many_at_once_end_right() {
    let conf = &dual_stack();
    let host = Host::new();
    let before = host.snapshot();
    let pods = host.pods(PODS);
    for round in 0..2 {
        for_each(&pods, |pod| {
            host.add(conf, pod).ok();
        });
        let expected: BTreeSet<String> =
            pods.iter().map(|pod| format!("plumb:dual-stack/{}/eth0", pod.name)).collect();

        let links = host.ip("link show type veth");
        let links = links.as_array().unwrap();
        let aliases: BTreeSet<_> =
            links.iter().map(|link| link["ifalias"].as_str().unwrap().to_owned()).collect();
        assert_eq!((links.len(), &aliases), (PODS, &expected), "round {round}");
        assert!(links.iter().all(|link| link["master"] == "dual0"), "{links:#?}");

        let bridge = &host.ip("addr show dev dual0")[0];
        let addresses: Vec<_> = bridge["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|address| address["scope"] == "global")
            .map(|address| {
                format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"])
            })
            .collect();
        assert_eq!(addresses, ["10.20.0.1/16", "fd20::1/64"]);

        assert_eq!(host.ruleset("rule").len(), 2, "one rule a family: {:#?}", host.ruleset("rule"));
        let comments = host.element_comments();
        assert_eq!(comments.len(), 2 * PODS);
        assert_eq!(comments.into_iter().collect::<BTreeSet<_>>(), expected);

        let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| pod.addresses("eth0")).collect();
        assert_eq!(addresses.len(), 2 * PODS, "every address is given once");
        let leased: BTreeSet<_> = host.leases("dual-stack").into_iter().collect();
        let plain = |address: &String| address.split('/').next().unwrap().to_owned();
        assert_eq!(leased, addresses.iter().map(plain).collect());
        pods[0].must_reach(&plain(&pods[PODS - 1].addresses("eth0")[0]));
        pods[PODS - 1].must_reach(&plain(&pods[0].addresses("eth0")[1]));

        for_each(&pods, |pod| {
            host.del(conf, pod).ok();
        });
        host.snapshot().assert_nothing_but_shared(&before, "dual0");
    }
}

/// ADDs and DELs of different pods at the same time, each pod several times over.
#[test]
fn churn_of_many_pods_leaves_nothing() {
    let conf = &dual_stack();
    let host = Host::new();
    let before = host.snapshot();
    let pods = host.pods(CALLERS);
    for_each(&pods, |pod| {
        for _ in 0..6 {
            let result = host.add(conf, pod).ok();
            host.check(conf, &result, pod).ok();
            host.del(conf, pod).ok();
        }
    });
    host.snapshot().assert_nothing_but_shared(&before, "dual0");
}

/// A runtime that believes its first try lost. One ADD wins; what it holds, the other must not release.
#[test]
fn of_two_adds_of_one_attachment_at_once_one_wins_and_keeps_its_lease() {
    let conf = &dual_stack();
    let host = Host::new();
    let pods = host.pods(2);
    let (pod, other) = (&pods[0], &pods[1]);
    for round in 0..20 {
        if round == 15 {
            // As where another user's processes may not write: the namespace itself is locked then.
            host.sh("rm /run/plumb.lock; mount -o remount,ro /run");
        }
        let calls = [(); 2].map(|()| Call::new(&host, "ADD", conf).of(pod));
        let children = calls.map(|call| call.start());
        let outcomes = children.map(|child| child.wait_with_output().unwrap());
        let won = outcomes.iter().filter(|output| output.status.success()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:#?}");
        let leased = host.leases("dual-stack");
        let plain = |address: String| address.split('/').next().unwrap().to_owned();
        let held: BTreeSet<_> = pod.addresses("eth0").into_iter().map(plain).collect();
        assert_eq!(leased.into_iter().collect::<BTreeSet<_>>(), held, "round {round}");
        host.add(conf, other).ok();
        assert!(other.addresses("eth0").iter().all(|a| !pod.addresses("eth0").contains(a)));
        host.del(conf, other).ok();
        // And a DEL beside an ADD: whichever comes last, nothing of the other is left.
        let calls = ["DEL", "ADD"].map(|command| Call::new(&host, command, conf).of(pod));
        let children = calls.map(|call| call.start());
        let _ = children.map(|child| child.wait_with_output().unwrap());
        let attached = !the_pod_is_empty(pod);
        assert_eq!(host.leases("dual-stack").len(), if attached { 2 } else { 0 }, "round {round}");
        assert_eq!(host.element_comments().len(), if attached { 2 } else { 0 }, "round {round}");
        host.del(conf, pod).ok();
    }
}

/// An ADD that fails takes back the gateway's address that it gave to the bridge, but not from under one
/// that has come in between.
#[test]
fn a_failing_first_add_takes_no_gateway_from_one_that_succeeds() {
    let good = &dual_stack();
    let mut bad = good.clone();
    // This one fails once the gateway's address is there: see below.
    bad["ipMasq"] = json!(false);
    bad["macspoofchk"] = json!(true);
    for _ in 0..10 {
        let host = Host::new();
        let pods = host.pods(8);
        // Something of another make has the name of macspoofchk's table: its set can't be made.
        host.sh(
            "nft add table bridge plumb; nft 'add set bridge plumb guarded { type ipv4_addr; }'",
        );
        thread::scope(|scope| {
            for (number, pod) in pods.iter().enumerate() {
                let conf = if number % 2 == 0 { &bad } else { good };
                let host = &host;
                scope.spawn(move || {
                    let outcome = host.add(conf, pod);
                    assert_eq!(outcome.status.success(), number % 2 == 1, "{outcome:#?}");
                });
            }
        });
        for pod in pods.iter().skip(1).step_by(2) {
            pod.must_reach("10.20.0.1");
            pod.must_reach("fd20::1");
        }
    }
}

/// Who finds its bridge taken back, by a first ADD that failed, makes another.
#[test]
fn an_add_whose_bridge_vanishes_meanwhile_joins_a_new_one() {
    let host = Host::new();
    let (first, pod) = (host.pod("first"), host.pod("a"));
    let conf = bridge_conf(&json!({"isGateway": true, "ipam": ipv4()}));
    host.add(&conf, &first).ok();
    host.del(&conf, &first).ok();
    // Of the conversations the fourth joins the bridge: see docs/budget.md. It comes when the bridge is gone.
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let late = "inject=sendto:delay_enter=2000000:when=4";
    let call = Call::new(&host, "ADD", &conf).of(&pod);
    let child = call.under(&["strace", "-f", "-qq", "-o", path, "-e", late]).start();
    let deadline = Instant::now() + patience(Duration::from_secs(20));
    while the_pod_is_empty(&pod) || pod.addresses("eth0").is_empty() {
        assert!(Instant::now() < deadline, "the container's end is not configured");
        thread::sleep(Duration::from_millis(5));
    }
    let old = host.ip("link show br0")[0]["ifindex"].clone();
    host.sh("ip link del br0");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_ne!(host.ip("link show br0")[0]["ifindex"], old);
    pod.must_reach("10.1.0.1");
}

/// Whoever is in the container can lock its namespace, and never let go.
#[test]
fn a_container_keeps_no_call_waiting() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = bridge_conf(&json!({}));
    let mut holder = pod.command("flock");
    holder.args(["/proc/self/ns/net", "-c", "echo held; exec cat"]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 5];
    holder.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    let began = Instant::now();
    host.add(&conf, &pod).ok();
    host.del(&conf, &pod).ok();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(host.run("stat", &["-c", "%a %u %s", "/run/plumb.lock"]), "600 0 0\n");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
}

fn the_pod_is_empty(pod: &Pod<'_>) -> bool {
    pod.ip("link show").as_array().unwrap().len() == 1
}
