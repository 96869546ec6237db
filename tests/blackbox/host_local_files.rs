//! host-local's files: the reference's format, shared with the reference itself; damage, full disks,
//! restarts, many processes at once; and what a call costs however many leases there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Call, Host, Outcome, patience};
use crate::host_local::{DIR, REFERENCE, add, address, addresses, conf, del};

const NO_LEASES: [&str; 0] = [];

/// Numbers that look random and are the same in every run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit).unwrap()
    }
}

/// A network of a version that Debian's reference knows.
fn shared(ipam: &Value) -> Value {
    let mut conf = conf(ipam);
    conf["cniVersion"] = "1.0.0".into();
    conf
}

fn small(first: u8, last: u8) -> Value {
    let bound = |number| format!("10.1.0.{number}");
    conf(&json!({"subnet": "10.1.0.0/24", "rangeStart": bound(first), "rangeEnd": bound(last)}))
}

/// Container of each lease, by address.
fn holders(host: &Host) -> BTreeMap<String, String> {
    let script = format!(
        "cd {DIR} 2>/dev/null || exit 0; for f in *.*.*.* *:*; do test -f $f && echo $f $(head -1 $f) || true; done"
    );
    let text = host.sh(&script);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(a, c)| (a.to_owned(), c.trim().to_owned())).collect()
}

/// Runs a call that must end by itself.
fn bounded(call: &Call<'_>) -> Outcome {
    let mut child = call.start();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > patience(Duration::from_secs(10)) {
            child.kill().unwrap();
            panic!("it hangs");
        }
        thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    Outcome {
        took: began.elapsed(),
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn files_are_the_references_by_name_mode_and_content() {
    let host = Host::new();
    let ipam = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:0:0:1::/64"}]]});
    let call = |conf: &Value| Call::new(&host, "ADD", conf).attachment("cont-1_x.y", "eth0.5");
    call(&shared(&ipam)).run().ok();
    let mut other = shared(&ipam);
    other["name"] = "other".into();
    call(&other).plugin(REFERENCE).run().ok();
    let listing = |network: &str, files: &str| {
        host.sh(&format!(
            "cd /var/lib/cni/networks/{network}; stat -c '%a %n' .; stat -c '%F %s %n' {files}; head -c 99 {files} | od -c"
        ))
    };
    let leases = "10.1.0.2 fd00:0:0:1::2";
    assert_eq!(listing("net", leases), listing("other", leases));
    assert_eq!(host.read(&format!("{DIR}/fd00:0:0:1::2")), "cont-1_x.y\r\neth0.5");
    // Debian's release lets everybody read them; newer ones don't.
    let modes = host.sh(&format!("stat -c %a {DIR}/10.1.0.2 {DIR}/fd00:0:0:1::2"));
    assert_eq!(modes, "600\n600\n");
    let rotors = "last_reserved_ip.0 last_reserved_ip.1";
    let contents = |network: &str| {
        host.sh(&format!("cd /var/lib/cni/networks/{network}; head -c 99 {rotors}"))
    };
    assert_eq!(contents("net"), contents("other"));
    let names = |network: &str| host.sh(&format!("ls -A /var/lib/cni/networks/{network}"));
    assert_eq!(names("net").replace("plumb.index\n", ""), names("other"));
}

/// Each sees the other's leases, and the rotor is one.
#[test]
fn the_reference_and_we_take_turns_on_one_network() {
    let host = Host::new();
    for (seed, ipam) in [
        (1, json!({"ranges": [[{"subnet": "10.1.0.0/27"}]]})),
        (
            2,
            json!({"ranges": [[{"subnet": "10.1.0.0/27"}], [{"subnet": "fd00::/64", "rangeEnd": "fd00::20"}]]}),
        ),
    ] {
        host.sh("rm -rf /var/lib/cni");
        let conf = shared(&ipam);
        let mut random = Random(seed);
        let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut rotor = 1;
        for step in 0..150 {
            let container = format!("c{}", random.below(24));
            let theirs = random.below(2) == 0;
            let command = if random.below(3) == 0 { "DEL" } else { "ADD" };
            let mut call = Call::new(&host, command, &conf).attachment(&container, "eth0");
            if theirs {
                call = call.plugin(REFERENCE);
            }
            let outcome = call.run();
            let what = format!("step {step}: {command} {container}, theirs: {theirs}");
            if command == "DEL" {
                outcome.ok();
                held.remove(&container);
            } else if let Some(known) = held.get(&container) {
                if theirs {
                    outcome.fails(999, &["duplicate allocation is not allowed"]);
                } else {
                    assert_eq!(&addresses(&outcome.ok()), known, "{what}");
                }
            } else {
                let got = addresses(&outcome.ok());
                let taken = |n: &usize| held.values().any(|a| a[0] == format!("10.1.0.{n}"));
                let next = (rotor + 1..31).chain(2..=rotor).find(|n| !taken(n)).unwrap();
                assert_eq!(got[0], format!("10.1.0.{next}"), "{what}");
                rotor = next;
                let all: Vec<_> = held.values().flatten().collect();
                assert!(got.iter().all(|a| !all.contains(&a)), "{what}: {got:?} of {held:?}");
                held.insert(container, got);
            }
            let mut expected: Vec<_> = held.values().flatten().cloned().collect();
            expected.sort();
            assert_eq!(host.leases("net"), expected, "{what}");
        }
    }
}

/// Runs `work` for each number below `count`, 16 at a time, and returns what it returns in any order.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, results) = (Mutex::new(0..count), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let Some(number) = next.lock().unwrap().next() else { break };
                    let result = work(number);
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

#[test]
fn the_reference_and_we_work_at_once_on_one_network() {
    let host = Host::new();
    let conf = shared(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]}));
    let call = |command: &str, number: usize, theirs: bool| {
        let call = Call::new(&host, command, &conf).attachment(&format!("c{number}"), "eth0");
        if theirs { call.plugin(REFERENCE) } else { call }.run()
    };
    for round in 0..2 {
        let got = at_once(96, |number| {
            let theirs = (number + round) % 2 == 0;
            let first = address(&call("ADD", number, theirs).ok());
            if number % 3 != 0 {
                return (number, first);
            }
            call("DEL", number, number % 4 == 0).ok();
            (number, address(&call("ADD", number, !theirs).ok()))
        });
        let expected: BTreeMap<_, _> =
            got.iter().map(|(n, a)| (a.clone(), format!("c{n}"))).collect();
        assert_eq!(expected.len(), 96, "no address twice: {got:?}");
        assert_eq!(holders(&host), expected);
        at_once(96, |number| call("DEL", number, number % 2 == 0).ok());
        assert_eq!(host.leases("net"), NO_LEASES);
    }
}

/// Which of the container's interfaces such a lease is of can't be told. So no ADD takes it over, which
/// could give one address to two interfaces; and a DEL releases it where nothing else is to be released,
/// as the reference's does.
#[test]
fn leases_of_old_releases_name_no_interface() {
    let host = Host::new();
    let conf = small(10, 19);
    host.sh(&format!("mkdir -p {DIR}; cd {DIR}; printf a > 10.1.0.12; printf 'b\\n' > 10.1.0.13"));
    let call = |command: &str, ifname: &str| {
        Call::new(&host, command, &conf).attachment("a", ifname).run()
    };
    assert_eq!(address(&call("ADD", "net1").ok()), "10.1.0.10");
    del(&host, &conf, "b").ok();
    assert_eq!(host.leases("net"), ["10.1.0.10", "10.1.0.12"]);
    call("DEL", "net1").ok();
    assert_eq!(host.leases("net"), ["10.1.0.12"], "it had a lease of its own");
    call("CHECK", "eth0").ok();
    call("DEL", "eth0").ok();
    assert_eq!(host.leases("net"), NO_LEASES);
}

/// One lease that can't be read does not keep DEL from releasing the other; it is told.
#[test]
fn an_unreadable_lease_does_not_keep_the_other_one() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    add(&host, &conf, "a").ok();
    // Without the directory's noticing: so the index still names the address.
    host.sh(&format!(
        "cd {DIR}; m=$(stat -c %y .); ln -sfn nowhere 10.1.0.2; touch -m -d \"$m\" ."
    ));
    del(&host, &conf, "a").fails(5, &["read lease", "10.1.0.2"]);
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
    host.sh(&format!("rm {DIR}/10.1.0.2"));
    del(&host, &conf, "a").ok();
    assert_eq!(host.leases("net"), NO_LEASES);
}

#[test]
fn what_others_do_to_the_directory_is_seen() {
    let host = Host::new();
    let conf = small(10, 13);
    let adds = |from: usize, count: usize| -> Vec<String> {
        (from..from + count).map(|n| address(&add(&host, &conf, &format!("c{n}")).ok())).collect()
    };
    assert_eq!(adds(0, 2), ["10.1.0.10", "10.1.0.11"]);
    // Each of these happens right after a call of ours, as likely as not in the same tick of the clock.
    host.sh(&format!("printf 'x\\r\\neth0' > {DIR}/10.1.0.12"));
    assert_eq!(adds(2, 1), ["10.1.0.13"]);
    host.sh(&format!("rm {DIR}/10.1.0.11"));
    assert_eq!(adds(3, 1), ["10.1.0.11"]);
    host.sh(&format!("mv {DIR}/10.1.0.10 {DIR}/.away"));
    assert_eq!(adds(4, 1), ["10.1.0.10"]);
    add(&host, &conf, "more").fails(11, &["4 of 4 held"]);
    del(&host, &conf, "x").ok();
    assert_eq!(adds(5, 1), ["10.1.0.12"], "whoever made a lease, its owner releases it");
    // The directory is made anew, with or without what was in it.
    host.sh(&format!("rm -r {DIR}"));
    assert_eq!(adds(6, 1), ["10.1.0.10"]);
    host.sh(&format!("cp -a {DIR} {DIR}.new; rm -r {DIR}; mv {DIR}.new {DIR}; printf 'x\\r\\neth0' > {DIR}/10.1.0.11"));
    assert_eq!(adds(6, 2), ["10.1.0.10", "10.1.0.12"]);
}

#[test]
fn a_clock_that_is_set_back_doubles_nothing() {
    let host = Host::new();
    let conf = small(10, 13);
    for container in ["a", "b"] {
        add(&host, &conf, container).ok();
    }
    host.sh(&format!("touch -d '1 day' {DIR} {DIR}/*"));
    assert_eq!(address(&add(&host, &conf, "c").ok()), "10.1.0.12");
    assert_eq!(address(&add(&host, &conf, "a").ok()), "10.1.0.10");
    host.sh(&format!("touch -d '1 day ago' {DIR} {DIR}/*"));
    assert_eq!(address(&add(&host, &conf, "d").ok()), "10.1.0.13");
    add(&host, &conf, "e").fails(11, &["4 of 4 held"]);
}

/// plugins#498: dozens of empty files after a power loss, which nobody could ever release.
#[test]
fn plugins_498_lease_files_that_name_no_holder_are_free() {
    let host = Host::new();
    let conf = small(10, 15);
    host.sh(&format!(
        "mkdir -p {DIR}; cd {DIR}; for n in 10 11 12 13 14 15; do : > 10.1.0.$n; done"
    ));
    assert_eq!(address(&add(&host, &conf, "a").ok()), "10.1.0.10");
    host.sh(&format!(
        "cd {DIR}; printf '\\0\\0\\0\\0\\0' > 10.1.0.11; printf '\\377\\376' > 10.1.0.12; printf '/etc\\r\\neth0' > 10.1.0.13
         head -c 100000 /dev/zero | tr '\\0' a > 10.1.0.14; printf '\\r\\neth0' > 10.1.0.15"
    ));
    let call =
        Call::new(&host, "ADD", &conf).attachment("b", "eth0").env("CNI_ARGS", "IP=10.1.0.14");
    let outcome = call.run();
    assert_eq!(address(&outcome.ok()), "10.1.0.14");
    assert!(outcome.stderr.contains("10.1.0.11: its file names no holder"), "{outcome:#?}");
    let got: Vec<_> =
        ["c", "d", "e", "f"].iter().map(|c| address(&add(&host, &conf, c).ok())).collect();
    assert_eq!(got, ["10.1.0.15", "10.1.0.11", "10.1.0.12", "10.1.0.13"]);
    assert_eq!(holders(&host).len(), 6);
}

#[test]
fn what_is_no_regular_file_is_not_followed_and_does_not_hang() {
    let host = Host::new();
    let conf = small(10, 13);
    host.write("/run/victim", "precious\r\neth0");
    let run = |command: &str| bounded(&Call::new(&host, command, &conf).attachment("a", "eth0"));
    let kinds = [
        ("link", "ln -s /run/victim"),
        ("dangling link", "ln -s /run/nothing"),
        ("FIFO", "mkfifo"),
        ("directory", "mkdir"),
        (
            "socket",
            "socat /dev/null UNIX-LISTEN:x,unlink-close=0 & until test -S x; do :; done; kill $!; wait $! || true; mv x",
        ),
    ];
    for name in ["lock", "plumb.index", "last_reserved_ip.0", "10.1.0.10"] {
        for (kind, make) in kinds {
            host.sh(&format!("rm -rf {DIR}; mkdir -p {DIR}; cd {DIR}; {make} {name}"));
            let what = format!("{name} is a {kind}");
            let outcome = run("ADD");
            match (name, kind) {
                // What is called like an address and can't be read may be a lease.
                ("10.1.0.10", "FIFO") => assert_eq!(address(&outcome.ok()), "10.1.0.10", "{what}"),
                ("10.1.0.10", _) => {
                    assert_eq!(address(&outcome.ok()), "10.1.0.11", "{what}");
                    assert!(outcome.stderr.contains("cannot read lease 10.1.0.10"), "{outcome:#?}");
                }
                // It can be locked all the same, and more is not done with it.
                ("lock", "FIFO") => drop(outcome.ok()),
                _ => {
                    outcome.fails(5, &[&format!("{DIR}/{name}: ")]);
                    assert_eq!(host.leases("net"), NO_LEASES, "{what}");
                }
            }
            if run("DEL").status.success() {
                let left = holders(&host);
                assert!(!left.values().any(|container| container == "a"), "{what}: {left:?}");
            }
            host.sh(&format!("cd {DIR}; rm -rf {name}"));
            assert!(!addresses(&run("ADD").ok()).is_empty(), "{what}: works without it");
        }
    }
    assert_eq!(host.read("/run/victim"), "precious\r\neth0");
    host.sh("test ! -e /run/nothing");
    // Nor does something else in the directory's place.
    for make in [": >", "mkfifo", "ln -s /run/nothing"] {
        host.sh(&format!("rm -rf {DIR}; {make} {DIR}"));
        run("ADD").fails(5, &["lease directory", DIR]);
    }
}

/// Overwrites a part of the index, or cuts it; its directory's times stay as they are.
fn damage(host: &Host, at: usize, bytes: &[u8]) {
    let script = format!("exec dd of={DIR}/plumb.index bs=1 seek={at} conv=notrunc status=none");
    let mut child = host.command("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_damaged_index_never_gives_an_address_twice() {
    let host = Host::new();
    let conf = small(10, 15);
    let mut random = Random(42);
    type Harm<'a> = Box<dyn FnMut(&Host) + 'a>;
    let mut harms: Vec<(String, Harm<'_>)> = Vec::new();
    for (field, at, length) in [
        ("magic", 0, 8),
        ("boot", 8, 16),
        ("seconds", 24, 8),
        ("nanoseconds", 32, 8),
        ("slots_log2", 40, 4),
        ("blocks_log2", 44, 4),
        ("slots_used", 48, 4),
        ("blocks_used", 52, 4),
        ("checksum", 56, 4),
    ] {
        for byte in [0, 0x1f, 0xff] {
            harms.push((
                format!("{field} {byte:#x}"),
                Box::new(move |host| damage(host, at, &vec![byte; length])),
            ));
        }
    }
    for length in [0, 1, 63, 64, 65, 100, 4159, 4160, 4161, 5000, 6335] {
        let cut =
            move |host: &Host| drop(host.sh(&format!("truncate -s {length} {DIR}/plumb.index")));
        harms.push((format!("cut to {length}"), Box::new(cut)));
    }
    // The tables, under a header that is sound: slots, then blocks.
    for (at, length) in [(64, 4096), (4160, 2176), (64, 6272)] {
        for byte in [0, 4, 6, 0xff] {
            harms.push((
                format!("tables at {at} {byte:#x}"),
                Box::new(move |host| damage(host, at, &vec![byte; length])),
            ));
        }
    }
    for round in 0..10 {
        let bytes: Vec<_> = (0..6272).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        let start = if round < 5 { 64 } else { 0 };
        harms.push((format!("noise {round}"), Box::new(move |host| damage(host, start, &bytes))));
    }
    harms
        .push(("removed".into(), Box::new(|host| drop(host.sh(&format!("rm {DIR}/plumb.index"))))));

    for (what, mut harm) in harms {
        host.sh(&format!("rm -rf {DIR}"));
        let mut expected = BTreeMap::new();
        let mut add_one = |container: &str| {
            let got = address(&add(&host, &conf, container).ok());
            let before = expected.insert(got.clone(), container.to_owned());
            assert_eq!(before, None, "{what}: {got}");
        };
        for container in ["a", "b", "c"] {
            add_one(container);
        }
        harm(&host);
        for container in ["d", "e", "f"] {
            add_one(container);
        }
        assert_eq!(holders(&host), expected, "{what}");
        add(&host, &conf, "g").fails(11, &["6 of 6 held"]);
        // To find the range full has the index made anew, so that now all is as it should be.
        for container in ["a", "b", "c", "d", "e", "f"] {
            del(&host, &conf, container).ok();
        }
        assert_eq!(host.leases("net"), NO_LEASES, "{what}");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_done() {
    let host = Host::new();
    let networks = "/var/lib/cni/networks";
    let conf = conf(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    host.sh(&format!("mkdir -p {networks}"));
    let (mut failed, mut succeeded) = (0, 0);
    // One page more each time, so that each write in turn is the one that fails.
    for pages in 1..=12 {
        let limit = format!("size={}", pages * 4096);
        host.sh(&format!("mount -t tmpfs -o {limit},mode=755 tmpfs {networks}"));
        let outcome = add(&host, &conf, "a");
        if outcome.status.success() {
            succeeded += 1;
            assert_eq!(host.leases("net"), ["10.1.0.2", "fd00::2"]);
        } else {
            failed += 1;
            outcome.fails(5, &[DIR, "No space left on device"]);
            assert_eq!(host.leases("net"), NO_LEASES, "{pages} pages");
            del(&host, &conf, "a").ok();
        }
        host.sh(&format!("mount -t tmpfs -o remount,size=1m tmpfs {networks}"));
        add(&host, &conf, "b").ok();
        add(&host, &conf, "a").ok();
        assert_eq!(host.leases("net").len(), 4, "{pages} pages");
        for container in ["a", "b"] {
            del(&host, &conf, container).ok();
        }
        assert_eq!(host.leases("net"), NO_LEASES);
        host.sh(&format!("umount {networks}"));
    }
    assert!(failed >= 4 && succeeded >= 2, "{failed} failed, {succeeded} succeeded");
}

/// Room on a disk is made by releasing what is held.
#[test]
fn leases_are_released_on_a_full_disk() {
    let host = Host::new();
    let conf = shared(&json!({"subnet": "10.1.0.0/24"}));
    let networks = "/var/lib/cni/networks";
    host.sh(&format!(
        "mkdir -p {networks}; mount -t tmpfs -o size=256k,nr_inodes=64,mode=755 tmpfs {networks}"
    ));
    let theirs = |container: &str| {
        Call::new(&host, "ADD", &conf).attachment(container, "eth0").plugin(REFERENCE).run().ok()
    };
    let fill = format!("cd {networks}; cat /dev/zero > full 2>/dev/null || true");
    // Without an index so far, and no room for one.
    theirs("a");
    host.sh(&format!("{fill}; n=0; while touch i$n 2>/dev/null; do n=$((n + 1)); done"));
    let outcome = del(&host, &conf, "a");
    outcome.ok();
    assert!(outcome.stderr.contains("cannot write plumb.index"), "{outcome:#?}");
    assert_eq!(host.leases("net"), NO_LEASES);
    // With one that is out of date and has grown too small.
    host.sh(&format!("cd {networks}; rm -f full i*"));
    add(&host, &conf, "b").ok();
    for number in 0..40 {
        host.sh(&format!("printf 'x{number}\\r\\neth0' > {DIR}/10.1.0.1{number:02}"));
    }
    host.sh(&fill);
    for number in 0..40 {
        del(&host, &conf, &format!("x{number}")).ok();
    }
    assert_eq!(host.leases("net"), [address(&add(&host, &conf, "b").ok())]);
    host.sh(&format!("rm {networks}/full"));
    add(&host, &conf, "c").ok();
}

#[test]
fn a_read_only_file_system_is_told() {
    let host = Host::new();
    let networks = "/var/lib/cni/networks";
    let conf = conf(&json!({"subnet": "10.1.0.0/24"}));
    host.sh(&format!(
        "mkdir -p {networks}; mount -t tmpfs tmpfs {networks}; mount -t tmpfs -o remount,ro tmpfs {networks}"
    ));
    let words = ["Read-only file system", DIR];
    add(&host, &conf, "a").fails(5, &words);
    del(&host, &conf, "a").ok();
    host.sh(&format!("mount -t tmpfs -o remount,rw tmpfs {networks}"));
    let first = add(&host, &conf, "a").ok();
    host.sh(&format!("mount -t tmpfs -o remount,ro tmpfs {networks}"));
    add(&host, &conf, "b").fails(5, &words);
    del(&host, &conf, "a").fails(5, &words);
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
    host.sh(&format!("mount -t tmpfs -o remount,rw tmpfs {networks}"));
    assert_eq!(add(&host, &conf, "a").ok(), first);
    del(&host, &conf, "a").ok();
    assert_eq!(host.leases("net"), NO_LEASES);
}

/// Has the host be of another boot, as far as its identity tells.
fn boot(host: &Host, number: u32) {
    host.write("/run/boot_id", &format!("{number:08x}-0000-4000-8000-000000000000\n"));
    host.sh("umount /proc/sys/kernel/random/boot_id 2>/dev/null || true
             mount --bind /run/boot_id /proc/sys/kernel/random/boot_id");
}

/// The most reported problem of the reference (plugins#252, cni#26 and many more): addresses that were
/// leased before a reboot are held for ever.
#[test]
fn plugins_252_leases_do_not_survive_a_reboot() {
    let host = Host::new();
    let conf = small(10, 13);
    let status = || Call::new(&host, "STATUS", &conf).run();
    let fill = |name: &str| {
        for number in 0..4 {
            add(&host, &conf, &format!("{name}{number}")).ok();
        }
        add(&host, &conf, "one-more").fails(11, &["4 of 4 held"]);
    };
    boot(&host, 1);
    fill("a");
    boot(&host, 1);
    add(&host, &conf, "one-more").fails(11, &["4 of 4 held"]);

    boot(&host, 2);
    let outcome = add(&host, &conf, "b0");
    assert_eq!(address(&outcome.ok()), "10.1.0.10", "the rotor goes on");
    assert!(outcome.stderr.contains("released 4 leases of an earlier boot"), "{outcome:#?}");
    assert_eq!(host.leases("net"), ["10.1.0.10"]);
    fill("b");
    assert!(!add(&host, &conf, "b0").stderr.contains("released"), "only the first time");

    // A runtime asks first whether the network can serve at all.
    boot(&host, 3);
    status().ok();
    assert_eq!(host.leases("net"), NO_LEASES);
    fill("c");
    // DEL for what ran before the reboot may come first.
    boot(&host, 4);
    del(&host, &conf, "c0").ok();
    assert_eq!(host.leases("net").len(), 3);
    add(&host, &conf, "d0").ok();
    assert_eq!(host.leases("net").len(), 1);
    fill("d");
    // GC as well, with what the runtime believes to be running.
    boot(&host, 5);
    host.gc(&conf, &[("d1", "eth0")]).ok();
    assert_eq!(holders(&host).into_values().collect::<Vec<_>>(), ["d1"]);
    assert_eq!(holders(&host).len(), 1);
    add(&host, &conf, "e0").ok();
    assert_eq!(holders(&host).into_values().collect::<Vec<_>>(), ["e0"]);
    // The same container's ADD counts anew: it gets a lease of this boot.
    boot(&host, 6);
    add(&host, &conf, "e0").ok();
    boot(&host, 6);
    fill("e");
}

#[test]
fn after_a_reboot_only_strangers_leases_of_this_boot_are_kept() {
    let host = Host::new();
    let conf = small(10, 19);
    boot(&host, 1);
    for container in ["a", "b", "c"] {
        add(&host, &conf, container).ok();
    }
    // The test's machine has not been started since: the leases must be as old as they look.
    let age = format!("cd {DIR}; touch -d 2020-01-01 10.*");
    let young = format!("printf 'x\\r\\neth0' > {DIR}/10.1.0.15");
    host.sh(&format!("{age}; rm 10.1.0.10; cp -a {DIR} /run/copy; {young}"));
    boot(&host, 2);
    assert_eq!(address(&add(&host, &conf, "d").ok()), "10.1.0.13");
    assert_eq!(host.leases("net"), ["10.1.0.13", "10.1.0.15"]);
    del(&host, &conf, "x").ok();
    assert_eq!(host.leases("net"), ["10.1.0.13"]);

    // What has been copied from another node is nobody's here.
    host.sh(&format!("rm -r {DIR}; cp -a /run/copy {DIR}"));
    assert_eq!(address(&add(&host, &conf, "d").ok()), "10.1.0.13");
    assert_eq!(host.leases("net"), ["10.1.0.13"]);
}

/// Without an index no boot is recorded: as where the reference has been at work so far, or where the
/// index is damaged. What is older than this boot, which the kernel tells, is nobody's any more; what is
/// younger is in use.
#[test]
fn without_an_index_the_leases_from_before_this_boot_go_and_those_since_stay() {
    let host = Host::new();
    let newest = small(10, 14);
    let conf = shared(&newest["ipam"]);
    let lost: [(&str, &str); 3] = [
        ("taken over from the reference", "rm -f plumb.index"),
        ("damaged", "printf x | dd of=plumb.index bs=1 seek=3 conv=notrunc status=none"),
        ("emptied", ": > plumb.index"),
    ];
    type First<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str]);
    let firsts: [First<'_>; 3] = [
        ("ADD", &|| assert_eq!(address(&add(&host, &conf, "new").ok()), "10.1.0.10"), &["new"]),
        ("DEL", &|| drop(del(&host, &conf, "none").ok()), &[]),
        ("STATUS", &|| drop(host.status(&newest).ok()), &[]),
    ];
    for (how, lose) in lost {
        for (command, first, made) in firsts {
            host.sh("rm -rf /var/lib/cni");
            for number in 0..5 {
                let call = Call::new(&host, "ADD", &conf);
                let call = call.attachment(&format!("c{number}"), "eth0");
                if lose.contains("rm") { call.plugin(REFERENCE) } else { call }.run().ok();
            }
            add(&host, &conf, "one-more").fails(11, &["5 of 5 held"]);
            // A minute to either side of the moment when the machine was started.
            host.sh(&format!(
                "cd {DIR}; boot=$(awk '/^btime/ {{ print $2 }}' /proc/stat)
                 touch -d @$((boot - 60)) 10.1.0.10 10.1.0.11 10.1.0.12
                 touch -d @$((boot + 60)) 10.1.0.13; {lose}"
            ));
            first();
            let left: BTreeSet<_> = holders(&host).into_values().collect();
            let expected = ["c3", "c4"].iter().chain(made).map(|name| (*name).to_owned()).collect();
            assert_eq!(left, expected, "{how}, then {command}");
        }
    }
}

/// Runs a plugin under strace, and tells whether it has ended well.
fn strace(host: &Host, options: &[&str], conf: &Value, command: &str, container: &str) -> bool {
    let program = [&["strace", "-qq", "-o", "/run/trace"], options].concat();
    let call = Call::new(host, command, conf).attachment(container, "eth0");
    call.under(&program).run().status.success()
}

/// System calls of a plugin, one a line.
fn trace(host: &Host, conf: &Value, command: &str, container: &str) -> Vec<String> {
    assert!(strace(host, &[], conf, command, container));
    host.read("/run/trace").lines().map(str::to_owned).collect()
}

/// Bytes that a trace's calls have read and written.
fn transferred(calls: &[String]) -> usize {
    let moves = |call: &&String| {
        let name = call.split('(').next().unwrap_or_default();
        name.contains("read") || name.contains("write")
    };
    // `pwrite64(4, "…"..., 544, 4160) = 544`; -1 is an error.
    let result = |call: &String| call.rsplit_once(" = ")?.1.parse::<usize>().ok();
    calls.iter().filter(moves).filter_map(result).sum()
}

/// Leases there are, system calls, and bytes read and written.
type Cost = (usize, usize, usize);

#[test]
fn the_cost_of_a_call_does_not_depend_on_the_number_of_leases() {
    let host = Host::new();
    let ranges = [
        json!([[{"subnet": "10.1.0.0/16"}]]),
        json!([[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]]),
    ];
    for ranges in ranges {
        let conf = conf(&json!({"ranges": ranges}));
        let mut costs: BTreeMap<(&str, &str), Vec<Cost>> = BTreeMap::new();
        for leases in [0, 500, 5000] {
            host.sh(&format!(
                "rm -rf {DIR}; mkdir -p {DIR}; cd {DIR}; n=0
                 while [ $n -lt {leases} ]; do
                     printf 'old%d\\r\\neth0' $n > 10.1.$((1 + n / 250)).$((n % 250)); n=$((n + 1))
                 done
                 printf 10.1.100.0 > last_reserved_ip.0"
            ));
            // The index is made by the first call, and has room from then on.
            add(&host, &conf, "warm").ok();
            del(&host, &conf, "warm").ok();
            // Far from the others, the only attachment in its part of the index comes and goes.
            for (what, command) in [
                ("first", "ADD"),
                ("repeated", "ADD"),
                ("first", "DEL"),
                ("repeated", "DEL"),
                ("again", "ADD"),
                ("again", "DEL"),
                ("again", "ADD"),
                ("again", "DEL"),
                ("", "CHECK"),
            ] {
                let mut conf = conf.clone();
                if command == "CHECK" {
                    add(&host, &conf, "c").ok();
                    conf["prevResult"] = json!({"ips": []});
                }
                let calls = trace(&host, &conf, command, "c");
                let listings: Vec<_> = calls.iter().filter(|c| c.contains("getdents")).collect();
                assert!(
                    listings.is_empty(),
                    "{command} with {leases} leases lists them: {listings:#?}"
                );
                let cost = (leases, calls.len(), transferred(&calls));
                assert!(cost.2 > 500, "no plausible count: {calls:#?}");
                costs.entry((command, what)).or_default().push(cost);
            }
        }
        for (call, costs) in &costs {
            let spread = |of: fn(&Cost) -> usize| {
                costs.iter().map(of).max().unwrap() - costs.iter().map(of).min().unwrap()
            };
            // Two places of a hash table may happen to be one, and cost a read or two more.
            let (calls, bytes) = (spread(|cost| cost.1), spread(|cost| cost.2));
            let what = format!("{call:?} of {ranges}: (leases, system calls, bytes) {costs:?}");
            assert!(calls <= 4, "{what}");
            assert!(bytes <= 2048, "{what}");
        }
        // What a lone attachment costs; more would need a reason.
        for (call, most) in [("ADD", 85), ("DEL", 70)] {
            let (_, count, _) = costs[&(call, "first")][0];
            assert!(count <= most, "{call}: {count} system calls, {most} were enough");
        }
    }
}

#[test]
fn sixteen_processes_at_once_share_one_network() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    let name = |number: usize| format!("c{number}");
    // From nothing on: directory, index and rotor are made by whoever comes first.
    let first = at_once(64, |number| addresses(&add(&host, &conf, &name(number)).ok()));
    let all: BTreeSet<_> = first.iter().flatten().cloned().collect();
    let expected: BTreeSet<_> =
        (2..66).flat_map(|n| [format!("10.1.0.{n}"), format!("fd00::{n:x}")]).collect();
    assert_eq!(all, expected, "no address twice, none left out");

    let second = at_once(64, |number| {
        if number % 2 == 0 {
            del(&host, &conf, &name(number)).ok();
            (number, addresses(&add(&host, &conf, &name(number)).ok()))
        } else {
            (number, addresses(&add(&host, &conf, &name(number)).ok()))
        }
    });
    let mut held = BTreeMap::new();
    for (number, got) in second {
        if number % 2 == 0 {
            assert!(got.iter().all(|a| !all.contains(a)), "{got:?} has not rested");
        }
        held.extend(got.into_iter().map(|address| (address, name(number))));
    }
    assert_eq!(held.len(), 128);
    assert_eq!(holders(&host), held);
    at_once(64, |number| del(&host, &conf, &name(number)).ok());
    assert_eq!(host.leases("net"), NO_LEASES);
}

#[test]
fn under_exhaustion_each_of_many_gets_all_of_its_addresses_or_none() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [
        [{"subnet": "10.1.0.0/24"}],
        [{"subnet": "fd00::/64", "rangeStart": "fd00::10", "rangeEnd": "fd00::23"}],
    ]}));
    let outcomes = at_once(48, |number| {
        let container = format!("c{number}");
        (container.clone(), add(&host, &conf, &container))
    });
    let (served, refused): (Vec<_>, Vec<_>) =
        outcomes.iter().partition(|(_, o)| o.status.success());
    assert_eq!(served.len(), 20, "as many as there are addresses");
    for (_, outcome) in &refused {
        outcome.fails(11, &["fd00::10-fd00::23", "20 of 20 held"]);
    }
    let mut expected = BTreeMap::new();
    for (container, outcome) in &served {
        let got = addresses(&outcome.ok());
        expected.extend(got.into_iter().map(|address| (address, container.clone())));
    }
    assert_eq!(expected.len(), 40);
    assert_eq!(holders(&host), expected);
}

#[test]
fn a_lock_is_waited_for() {
    let host = Host::new();
    let conf = small(10, 19);
    add(&host, &conf, "a").ok();
    // Holds the lock until its standard input ends.
    let mut holder = host.command("flock");
    holder.args([&format!("{DIR}/lock"), "-c", "echo held; cat"]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut word).unwrap();
    let mut waiting = Call::new(&host, "ADD", &conf).attachment("b", "eth0").start();
    let began = Instant::now();
    // "-> FLOCK" is who waits. The process ID is the plugin's own, since nothing is executed between.
    while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        fields.get(1) == Some(&"->") && fields.get(5) == Some(&&*waiting.id().to_string())
    }) {
        assert!(began.elapsed() < patience(Duration::from_secs(10)), "it does not wait");
        assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
        thread::sleep(Duration::from_millis(1));
    }
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert!(waiting.wait().unwrap().success());
    assert_eq!(host.leases("net"), ["10.1.0.10", "10.1.0.11"]);
}

/// ADD and DEL are killed before each of their system calls in turn.
#[test]
fn a_process_killed_before_any_of_its_system_calls_leaks_and_doubles_nothing() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [
        [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.13"}],
        [{"subnet": "fd00::/64", "rangeStart": "fd00::10", "rangeEnd": "fd00::13"}],
    ]}));
    let stays = addresses(&add(&host, &conf, "stays").ok());
    // With an index that is current, and with one that has to be made anew.
    for (command, outdated) in [("ADD", false), ("DEL", false), ("ADD", true)] {
        let prepare = || {
            if command == "DEL" {
                add(&host, &conf, "victim").ok();
            }
            if outdated {
                host.sh(&format!("cd {DIR}; : > x; rm x"));
            }
        };
        prepare();
        let calls = trace(&host, &conf, command, "victim");
        del(&host, &conf, "victim").ok();
        let mut before: BTreeMap<&str, usize> = BTreeMap::new();
        let begin = calls.iter().position(|call| call.contains(DIR)).expect("it opens files");
        for (number, call) in calls.iter().enumerate() {
            let Some((name, _)) = call.split_once('(') else { continue };
            *before.entry(name).or_default() += 1;
            if number < begin {
                continue;
            }
            prepare();
            // strace counts the calls of each name by themselves.
            let inject = format!("inject={name}:signal=SIGKILL:when={}", before[name]);
            assert!(!strace(&host, &["-e", &inject], &conf, command, "victim"), "{call}");
            let what = format!("{command}, call {number}:\n{}", host.read("/run/trace"));
            // Nobody gets what may be the victim's, whether it is released before or after.
            if number % 2 == 0 {
                let held = holders(&host);
                let got = addresses(&add(&host, &conf, "other").ok());
                for address in got {
                    // An empty file is a lease that was never made.
                    let holder = held.get(&address).map_or("", String::as_str);
                    assert_eq!(holder, "", "{address}: {what}");
                }
            }
            del(&host, &conf, "victim").ok();
            let left: BTreeSet<_> = holders(&host).into_values().collect();
            assert!(!left.contains("victim") && !left.contains(""), "{left:?}: {what}");
            del(&host, &conf, "other").ok();
            assert_eq!(host.leases("net"), stays, "{what}");
        }
        assert!(calls.len() > begin + 20, "{command}: {calls:#?}");
    }
    for number in 0..3 {
        add(&host, &conf, &format!("c{number}")).ok();
    }
    add(&host, &conf, "c3").fails(11, &["4 of 4 held"]);
}

fn kill_after(child: &mut Child, delay: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < delay {
        std::hint::spin_loop();
    }
    let _ = child.kill();
    child.wait().unwrap().success()
}

#[test]
fn a_process_killed_at_any_moment_leaks_and_doubles_nothing() {
    let host = Host::new();
    let conf = conf(&json!({"ranges": [
        [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.19"}],
        [{"subnet": "fd00::/64"}],
    ]}));
    let mut random = Random(7);
    // How long a whole call takes, from start to end, so that the kills are spread over it.
    let whole = u64::try_from(add(&host, &conf, "c0").took.as_micros()).unwrap();
    // What a container was told that it has, as long as nobody tries to take it back.
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut killed, mut round) = (0, 0);
    while killed < 200 {
        round += 1;
        assert!(round < 5000, "only {killed} processes were killed in time");
        let container = format!("c{}", random.below(10));
        let command = if random.below(2) == 0 { "ADD" } else { "DEL" };
        let mut child = Call::new(&host, command, &conf).attachment(&container, "eth0").start();
        if command == "DEL" {
            told.remove(&container);
        }
        let delay = Duration::from_micros(random.below(whole) as u64);
        killed += u32::from(!kill_after(&mut child, delay));
        if round % 4 == 0 {
            let other = format!("c{}", random.below(10));
            told.insert(other.clone(), addresses(&add(&host, &conf, &other).ok()));
        }
        if round % 20 == 0 {
            let held = holders(&host);
            for (container, got) in &told {
                for address in got {
                    assert_eq!(held.get(address), Some(container), "round {round}: {held:?}");
                }
            }
        }
    }
    for number in 0..10 {
        del(&host, &conf, &format!("c{number}")).ok();
    }
    assert_eq!(host.leases("net"), NO_LEASES);
    // All of the range can be given.
    let got: BTreeSet<_> =
        (0..10).map(|n| addresses(&add(&host, &conf, &format!("d{n}")).ok())[0].clone()).collect();
    assert_eq!(got.len(), 10);
}
