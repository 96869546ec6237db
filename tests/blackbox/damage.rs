//! Damage to a lease directory, a table of it: whatever has become of the files, each operation ends by itself
//! with a result or with an error that names a file, and no address is given twice.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Call, Fault, Host};
use crate::host_local::{DIR, add, addresses, conf, del};

/// What becomes of a directory in which `a` and `b` hold addresses, and a shell script that does it there.
const DAMAGES: [(&str, &str); 24] = [
    ("a lease is empty", ": > 10.1.0.2"),
    ("a lease is torn", "printf 'a' > 10.1.0.2; truncate -s 1 fd01::2"),
    ("a lease is zeros", "head -c 20 /dev/zero > 10.1.0.2"),
    ("a lease is huge", "truncate -s 1G 10.1.0.2"),
    ("leases have vanished", "rm 10.* fd*"),
    ("a lease is a directory", "rm 10.1.0.2; mkdir 10.1.0.2"),
    ("a lease is a link", "mv 10.1.0.2 /run/away; ln -s /run/away 10.1.0.2"),
    ("a lease is a FIFO", "rm 10.1.0.2; mkfifo 10.1.0.2"),
    ("a lease is outside of the ranges", "printf 'x\\r\\neth0' > 192.0.2.1"),
    ("files are no leases", "touch 10.1.0 10.1.0.2.bak .10.1.0.4 'a b' fd01; mkdir sub"),
    ("an address is written otherwise", "printf 'x\\r\\neth0' > fd01:0:0::4"),
    ("a rotor is empty", ": > last_reserved_ip.0"),
    ("a rotor is torn", "printf '10.1' > last_reserved_ip.0; printf 'fd01:' > last_reserved_ip.1"),
    ("a rotor is noise", "printf '\\377\\376\\000\\001' > last_reserved_ip.0"),
    (
        "a rotor is of the other family",
        "cp last_reserved_ip.0 x; mv last_reserved_ip.1 last_reserved_ip.0; mv x last_reserved_ip.1",
    ),
    ("a rotor is outside of the ranges", "printf 192.0.2.9 > last_reserved_ip.0"),
    ("the index is gone", "rm plumb.index"),
    ("the index is empty", ": > plumb.index"),
    ("the index is cut", "truncate -s 100 plumb.index"),
    ("the index is longer", "truncate -s 1M plumb.index"),
    ("the index is another network's", "cp /run/foreign plumb.index"),
    ("the index is stale", "cp /run/stale plumb.index"),
    ("the lock is gone", "rm lock"),
    ("all times are in the future", "touch -d '1 year' . *"),
];

fn network(name: &str) -> Value {
    let mut conf = conf(&json!({"ranges": [
        [{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.5"}],
        [{"subnet": "fd01::/64", "rangeEnd": "fd01::5"}],
    ]}));
    conf["name"] = json!(name);
    conf
}

#[test]
fn whatever_has_become_of_the_files_no_address_is_given_twice() {
    let host = Host::new();
    let conf = network("net");
    host.sh("mkdir -p /var/lib/cni/networks");
    add(&host, &network("foreign"), "x").ok();
    host.sh("cp /var/lib/cni/networks/foreign/plumb.index /run/foreign");
    for (what, script) in DAMAGES {
        for first in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            host.sh(&format!("rm -rf {DIR}; cd /run; rm -rf away stale"));
            let a = add(&host, &conf, "a").ok();
            host.sh(&format!("cp {DIR}/plumb.index /run/stale"));
            let b = add(&host, &conf, "b").ok();
            // What becomes of leases the directory's times show, as whoever renames or makes a file has it.
            let touch = if what.contains("index") { "" } else { ": > .x; rm .x" };
            host.sh(&format!("cd {DIR}; {script}; {touch}"));
            let mut asked = conf.clone();
            asked["prevResult"] = a.clone();
            asked["cni.dev/valid-attachments"] = json!([
                {"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth0"},
            ]);
            let container = if first == "ADD" { "c" } else { "a" };
            // It is ended if it hangs, which fails.
            let done =
                Call::new(&host, first, &asked).attachment(container, "eth0").with(Fault::Nothing);
            if !done.outcome.status.success() {
                let error = done.outcome.error();
                let text = error["msg"].as_str().unwrap();
                let says = [DIR, "10.1.0.", "fd01::", "holds no address"];
                assert!(says.iter().any(|words| text.contains(words)), "{what}, {first}: {text}");
            }
            // Who still holds what it was told, as its file says, is the only one to be told so.
            let mut given: Vec<String> = Vec::new();
            for (container, result) in [("a", &a), ("b", &b)] {
                let held = addresses(result).into_iter().filter(|address| {
                    let words = format!("cd {DIR}; test ! -L {address} && test -f {address} && head -c 40 {address} || true");
                    host.sh(&words).starts_with(&format!("{container}\r"))
                });
                given.extend(held);
            }
            if first == "ADD" && done.outcome.status.success() {
                given.extend(addresses(&done.outcome.ok()));
            }
            for container in ["d", "e"] {
                let outcome = add(&host, &conf, container);
                if outcome.status.success() {
                    given.extend(addresses(&outcome.ok()));
                } else {
                    outcome.fails(11, &["no IP addresses available"]);
                }
            }
            let distinct: BTreeSet<_> = given.iter().collect();
            assert_eq!(distinct.len(), given.len(), "{what}, {first}: {given:?}");
            for container in ["a", "b", "c", "d", "e"] {
                del(&host, &conf, container).ok();
            }
            // What names no holder, or can't be read, may stay; nothing of these containers does.
            let left = host.sh(&format!("find {DIR} -maxdepth 1 -type f -name '*[.:]*' -exec grep -lsE '^[a-e].?$' {{}} + || true"));
            assert_eq!(left, "", "{what}, {first}");
        }
    }
}

/// A power loss in the midst of writing the index: whatever part of it got to the disk.
#[test]
fn an_index_that_got_to_the_disk_in_part_gives_no_address_twice() {
    let host = Host::new();
    let conf = network("net");
    let held: Vec<_> =
        ["a", "b"].iter().flat_map(|c| addresses(&add(&host, &conf, c).ok())).collect();
    host.sh(&format!("cp -a {DIR} /run/whole"));
    let size: usize = host.sh(&format!("stat -c %s {DIR}/plumb.index")).trim().parse().unwrap();
    for kept in (0..64).step_by(8).chain((64..size).step_by(size / 16)) {
        // Cut there, or with zeros from there on; the directory's times are as recorded.
        for and_then in ["", &format!("truncate -s {size} plumb.index")] {
            host.sh(&format!(
                "rm -rf {DIR}; cp -a /run/whole {DIR}; cd {DIR}; truncate -s {kept} plumb.index; {and_then}"
            ));
            let given = ["c", "d"].iter().flat_map(|c| addresses(&add(&host, &conf, c).ok()));
            let distinct: BTreeSet<_> = given.chain(held.clone()).collect();
            assert_eq!(distinct.len(), 8, "cut at {kept}: {distinct:?}");
            add(&host, &conf, "e").fails(11, &["4 of 4 held"]);
        }
    }
}
