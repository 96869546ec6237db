//! Each system call and each netlink request of ADD and DEL fails once, with each error that it can fail with:
//! ADD leaves all as it was, DEL goes on, both say what has failed, and an interrupted call is made again.
//!
//! In the short form each step fails with one of its errors, in turn, and of the first ADD a third of the
//! steps; with `PLUMB_TEST_WALK=all` each with each.

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use nix::errno::Errno;

use crate::crash::{Network, Stage, Walked, walks_all};
use crate::harness::{Fault, Faulty, Host, REFUSALS, Step, base_name};

/// Objects of which one is named where the kernel refuses something.
const OBJECTS: [&str; 14] = [
    "link",
    "address",
    "route",
    "bridge",
    "interface",
    "veth pair",
    "macvlan",
    "nf_tables",
    "table",
    "set ",
    "element",
    "socket",
    "namespace",
    "standard input",
];

/// What is wrong with an error message, if anything is.
fn complaint(step: &Step, errno: Errno, faulty: &Faulty) -> Option<String> {
    let error = faulty.outcome.error();
    let text = format!("{} {}", error["msg"].as_str().unwrap(), error["details"]);
    let code = error["code"].as_u64().unwrap();
    let tells_why = [errno.desc().into(), format!("{errno:?}"), io::Error::from(errno).to_string()]
        .iter()
        .any(|words: &String| text.contains(words));
    let named = |object: &str| text.contains(base_name(object));
    let names_it = match (step.name.as_str(), step.object.as_str()) {
        // Locks are for a container, for an attachment and for a lease directory, and are called so.
        ("fcntl" | "flock", path) if path.ends_with("/plumb.lock") => {
            named("namespace") || named("attachment")
        }
        ("fcntl" | "flock", path) => named(path.rsplit_once('/').unwrap().0),
        ("openat", ".") => named("list leases"),
        ("write", object) if !object.starts_with('/') => named("print the result"),
        (_, path) if path.starts_with('/') && !path.starts_with("/proc/self") => named(path),
        ("openat" | "unlinkat", name) => named(name),
        _ => OBJECTS.iter().any(|object| text.contains(object)),
    };
    (!tells_why || !names_it || code < 5).then(|| format!("{step:?} {errno:?}: {text}"))
}

/// One step of a DEL has failed; the others were gone on with, unless it had not begun. `whole` is how much an
/// attachment is. An address keeps its lease for as long as it may be in use.
fn assert_others_went(left: &[String], whole: usize) {
    if left.len() == whole {
        return;
    }
    let is_left = |what: &str| left.iter().any(|line| line.contains(what));
    let steps = [is_left("masq"), is_left("link veth"), is_left("guarded")];
    assert!(steps.iter().filter(|step| **step).count() <= 1, "{left:#?}");
    if steps[0] || steps[1] {
        assert!(is_left("file /var/lib/cni/networks/net/10."), "{left:#?}");
    }
}

fn judge(
    stage: &Stage<'_>,
    whole: usize,
    fault: Fault,
    errno: Errno,
    faulty: &Faulty,
    complaints: &mut Vec<String>,
) {
    let Some(step) = &faulty.hit else { return };
    let (host, conf) = (stage.host, &stage.network.conf);
    let is_told = step.object.contains("pipe:") && step.name == "write";
    let succeeded = faulty.outcome.status.success();
    if !succeeded {
        complaints.extend(complaint(step, errno, faulty));
        if matches!(fault, Fault::Fail(..)) && errno == Errno::EINTR {
            complaints.push(format!("{step:?} is not made again: {}", faulty.outcome.stdout));
        }
    }
    match (stage.walked, succeeded) {
        (Walked::Del, true) => assert_eq!(stage.left(), [] as [&str; 0], "told that all is gone"),
        (Walked::Del, false) => assert_others_went(&stage.left(), whole),
        (_, true) => drop(host.check(conf, &faulty.outcome.ok(), &stage.pod).ok()),
        // Who can't come back from the container can't undo, but a DEL does.
        (_, false) if faulty.outcome.stdout.contains("cannot return to the host") => {}
        (_, false) if is_told => stage.assert_clean(),
        (_, false) => {
            stage.assert_clean();
            stage.assert_pod_is_empty();
        }
    }
}

fn walk(network: &Network, offset: usize) {
    let mut complaints = Vec::new();
    let mut met = BTreeSet::new();
    for walked in [Walked::FirstAdd, Walked::LaterAdd, Walked::Del] {
        let host = Host::new();
        let stage = Stage::new(&host, network, walked);
        stage.prepare();
        let attached = stage.left().len();
        let whole = stage.call().with(Fault::Nothing);
        whole.outcome.ok();
        stage.del(&stage.pod);
        stage.reset();

        let calls = whole.calls.iter().enumerate().map(|(at, step)| (at, step.errors(), false));
        let requests = (0..whole.requests.len()).map(|at| (at, &REFUSALS[..], true));
        let (mut steps, mut errors, began) = (0, 0, Instant::now());
        for (at, all, is_request) in calls.chain(requests).filter(|(_, all, _)| !all.is_empty()) {
            steps += 1;
            // The first ADD's own steps are many, and its others are those of a later one.
            let stride = if walked == Walked::FirstAdd && !walks_all() { 3 } else { 1 };
            if steps % stride != offset % stride {
                continue;
            }
            let turn = [all[(steps / stride + offset) % all.len()]];
            for errno in if walks_all() { all } else { &turn[..] } {
                stage.prepare();
                let fault = match is_request {
                    true => Fault::Refuse(at + 1, *errno),
                    false => Fault::Fail(at + 1, *errno),
                };
                let faulty = stage.call().with(fault);
                let said = faulty.outcome.stdout.replace('\n', "");
                eprintln!("{walked:?}, {fault:?}, {:?}: {said}", faulty.hit);
                errors += usize::from(faulty.hit.is_some());
                met.extend(faulty.hit.as_ref().map(|step| (step.name.clone(), *errno as i32)));
                judge(&stage, attached, fault, *errno, &faulty, &mut complaints);
                stage.del(&stage.pod);
                stage.assert_pod_is_empty();
                stage.assert_clean();
                stage.reset();
            }
        }
        let took = began.elapsed().as_secs_f64();
        eprintln!(
            "walk: {}, {walked:?}: {steps} steps, {errors} errors in {took:.1} s",
            network.name
        );
        assert!(steps > 40, "{steps}");
        stage.finish();
    }
    for errno in REFUSALS {
        assert!(met.iter().any(|(_, met)| *met == errno as i32), "{errno:?} has not been met");
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn whatever_fails_bridge_undoes_or_goes_on_and_says_so() {
    walk(&Network::bridge(), 0);
    if walks_all() {
        walk(&Network::bridge_v4(), 0);
    }
}

#[test]
fn whatever_fails_ptp_undoes_or_goes_on_and_says_so() {
    walk(&Network::ptp(), 1);
    if walks_all() {
        walk(&Network::ptp_v4(), 1);
    }
}

#[test]
fn whatever_fails_macvlan_undoes_or_goes_on_and_says_so() {
    walk(&Network::macvlan_v4(), 2);
    // Each ADD waits a second for duplicates of its IPv6 address.
    if walks_all() {
        walk(&Network::macvlan(), 2);
    }
}
