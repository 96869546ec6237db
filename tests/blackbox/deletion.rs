//! DELs at the same time share the kernel's wait, and nobody's link is deleted but theirs.

use std::fs::File;
use std::thread;
use std::time::Duration;

use plumb::cni::queue::{DELETION, MARKING};
use plumb::sys::lock::{Kind, try_lock};
use serde_json::json;

use crate::crash::Network;
use crate::harness::{Call, Host, Pod, patience, with};

const QUEUE: &str = "/run/plumb.lock";
/// The group of links that are to be deleted, as docs/reliability.md tells it.
const GROUP: u32 = 0x706c_756d;

/// The queue with this lock held by somebody who never lets go; until it is dropped.
fn stuck(host: &Host, kind: Kind) -> File {
    let queue = host.open(QUEUE);
    assert!(try_lock(&queue, kind).unwrap());
    queue
}

fn host_end(host: &Host, pod: &Pod<'_>) -> String {
    let inside = &pod.ip("link show eth0")[0];
    let index = inside["link_index"].as_u64().unwrap();
    let links = host.ip("link show type veth");
    let found = links.as_array().unwrap().iter().find(|link| link["ifindex"] == index);
    found.unwrap()["ifname"].as_str().unwrap().to_owned()
}

fn exists(host: &Host, link: &str) -> bool {
    host.ip("link show").as_array().unwrap().iter().any(|found| found["ifname"] == link)
}

/// A DEL that has been killed may have left its link in the group. It goes with the next one's; those of pods that
/// nobody detaches stay, and so do those that an administrator has grouped.
#[test]
fn with_a_link_go_those_of_its_group_and_no_others() {
    let host = Host::new();
    let conf = Network::bridge_v4().conf;
    let [mine, killed, live, grouped] = ["a", "b", "c", "d"].map(|name| host.pod(name));
    let ends = [&mine, &killed, &live, &grouped].map(|pod| {
        host.add(&conf, pod).ok();
        host_end(&host, pod)
    });
    host.sh(&format!("ip link set {} group {GROUP}; ip link set {} group 7", ends[1], ends[3]));

    host.del(&conf, &killed).ok();
    host.add(&conf, &killed).ok();
    host.sh(&format!("ip link set {} group {GROUP}", ends[1]));
    let _other = stuck(&host, Kind::Byte(DELETION));
    host.del(&conf, &mine).ok();
    assert_eq!(ends.each_ref().map(|end| exists(&host, end)), [false, false, true, true]);
    live.must_reach("10.1.0.1");
    grouped.must_reach("10.1.0.1");
    for pod in [&mine, &killed, &live, &grouped] {
        host.del(&conf, pod).ok();
        host.del(&conf, pod).ok();
    }
    assert_eq!(host.leases("net"), Vec::<String>::new());
}

/// The one that deletes by itself never ends, nor do those that are about to put their link into the group.
#[test]
fn who_never_ends_keeps_nobody_waiting() {
    let host = Host::new();
    let conf = Network::bridge_v4().conf;
    let pod = host.pod("a");
    let locks = [
        vec![Kind::Byte(DELETION)],
        vec![Kind::Byte(DELETION), Kind::SharedByte(MARKING)],
        vec![Kind::Byte(DELETION), Kind::Byte(MARKING)],
    ];
    for kinds in locks {
        host.add(&conf, &pod).ok();
        let held: Vec<_> = kinds.iter().map(|kind| stuck(&host, *kind)).collect();
        let deleted = host.del(&conf, &pod);
        deleted.ok();
        assert!(deleted.took < patience(Duration::from_secs(2)), "{kinds:?}: {:?}", deleted.took);
        let links = host.ip("link show type veth");
        assert_eq!(links.as_array().unwrap().len(), 0, "{kinds:?}: {links:#}");
        drop(held);
    }
}

/// A group that the kernel refuses to delete, for a link that only its driver can remove, refuses nobody else's: here
/// the host's loopback interface is put into it.
#[test]
fn a_link_in_the_group_that_can_not_be_deleted_keeps_no_other() {
    let host = Host::new();
    let conf = Network::bridge_v4().conf;
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    let end = host_end(&host, &pod);
    host.sh(&format!("ip link set lo group {GROUP}"));
    let _other = stuck(&host, Kind::Byte(DELETION));
    host.del(&conf, &pod).ok();
    assert!(!exists(&host, &end));
    assert_eq!(host.ip("link show lo")[0]["ifname"], "lo");
}

/// Each DEL returns with its link gone, though most of them have another delete it.
#[test]
fn dels_of_many_at_once_share() {
    for callers in [16, 64, 256] {
        let host = Host::new();
        let conf = with(
            Network::bridge_v4().conf,
            &json!({"ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}}),
        );
        let before = host.snapshot();
        let pods = host.pods(callers);
        let ends: Vec<_> = pods
            .iter()
            .map(|pod| {
                host.add(&conf, pod).ok();
                host_end(&host, pod)
            })
            .collect();
        // So that nobody is alone.
        let _other = stuck(&host, Kind::Byte(DELETION));
        thread::scope(|scope| {
            for (number, (pod, end)) in pods.iter().zip(&ends).enumerate() {
                let (host, conf) = (&host, &conf);
                scope.spawn(move || {
                    let trace = format!("/run/trace.{number}");
                    Call::new(host, "DEL", conf).of(pod).env("PLUMB_TRACE", &trace).run().ok();
                    let found =
                        host.sh(&format!("[ -e /sys/class/net/{end} ] && echo there || true"));
                    assert_eq!(found, "", "{end}");
                });
            }
        });
        let count = |pattern: &str| {
            let count = host.sh(&format!("cat /run/trace.* | grep -c '{pattern}' || true"));
            count.trim().parse::<usize>().unwrap()
        };
        assert_eq!(count("→ RTM_SETLINK"), callers);
        // Of those that ask for the group to be deleted most find that others have done so.
        let deletions = count("→ RTM_DELLINK") - count("← NLMSG_ERROR .*ENODEV");
        assert!((1..=callers / 2).contains(&deletions), "{deletions} deletions for {callers}");
        host.sh("rm /run/trace.*");
        host.snapshot().assert_nothing_but_shared(&before, "br0");
    }
}
