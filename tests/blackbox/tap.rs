//! Plugin tap: what each key of its configuration does, and what it refuses; and what a program finds that
//! opens the link.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use serde_json::{Value, json};

use crate::child;
use crate::failure::walk;
use crate::harness::{Call, Host, PLUMB, Pod, dual, fails_without_a_trace, ipv4, with};

fn conf(keys: &Value) -> Value {
    with(json!({"cniVersion": "1.1.0", "name": "net", "type": "tap", "ipam": ipv4()}), keys)
}

/// What `ip -d link` tells of a pod's interface.
fn link(pod: &Pod<'_>) -> Value {
    pod.ip("link show dev eth0")[0].clone()
}

/// How a program opens a tap: with these flags beside those of a tap's frames without more to them, and as
/// this user of this group.
#[derive(Clone, Copy)]
struct Open {
    flags: libc::c_int,
    user: Option<(u32, u32)>,
}

const PLAIN: Open = Open { flags: 0, user: None };
const QUEUE_OF_MANY: Open = Open { flags: libc::IFF_MULTI_QUEUE, user: None };

impl Open {
    /// Opens `eth0` of the namespace that the process is in, as its standard input.
    fn as_stdin(self) -> io::Result<()> {
        if let Some((user, group)) = self.user {
            setgroups(&[])?;
            setgid(Gid::from_raw(group))?;
            setuid(Uid::from_raw(user))?;
        }
        let tap = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: `ifreq` is plain data, for which all zeros is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | self.flags;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
        // SAFETY: the request is an `ifreq` that outlives the call.
        let opened = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        Errno::result(opened)?;
        // SAFETY: both are open; the copy is not closed when the program is executed.
        Errno::result(unsafe { libc::dup2(tap.as_raw_fd(), 0) })?;
        Ok(())
    }
}

/// A program that has a pod's tap open, as a virtual machine's would.
struct Machine(Child);

impl Machine {
    /// Runs `program`, whose standard input the tap is.
    fn new(open: Open, program: &mut Command) -> io::Result<Self> {
        program.stderr(Stdio::null());
        // SAFETY: the hook does no more than a few system calls.
        unsafe { program.pre_exec(move || open.as_stdin()) };
        program.spawn().map(Self)
    }

    /// One that does nothing with it.
    fn idle(pod: &Pod<'_>, open: Open) -> io::Result<Self> {
        Self::new(open, pod.command("sleep").arg("60"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cable between the taps of two pods.
fn cable(pods: [&Pod<'_>; 2], open: Open) -> [Machine; 2] {
    let (here, there) = UnixDatagram::pair().unwrap();
    let end = |pod: &Pod<'_>, socket: UnixDatagram| {
        let mut carrier = pod.command("socat");
        carrier.args(["FD:0", "FD:1"]).stdout(OwnedFd::from(socket));
        Machine::new(open, &mut carrier).unwrap()
    };
    [end(pods[0], here), end(pods[1], there)]
}

fn first_address(pod: &Pod<'_>) -> String {
    pod.addresses("eth0")[0].split('/').next().unwrap().to_owned()
}

const REAL_INPUT: &str = include_str!("../../examples/tap.conf");

#[test]
fn two_pods_reach_each_other_by_what_programs_carry() {
    child::lives_in_every_version(REAL_INPUT, |_, [a, b], _| {
        assert_eq!(link(a)["linkinfo"]["info_data"]["multi_queue"], true);
        let _cable = cable([a, b], QUEUE_OF_MANY);
        a.must_reach(&first_address(b));
        b.must_reach(&first_address(a));
    });
}

/// A program is the neighbour, and comes later. So nobody is asked for an address before it is used, and
/// nothing is waited for.
#[test]
fn ipv6_addresses_are_usable_at_once() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let conf = conf(&json!({"ipam": dual()}));
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let waits = ["strace", "-f", "-qq", "-o", path, "-e", "trace=poll,ppoll,nanosleep"];
    let result = Call::new(&host, "ADD", &conf).of(&a).under(&waits).run().ok();
    assert_eq!(child::waits_in(path), [] as [&str; 0], "nothing is waited for");
    host.add(&conf, &b).ok();
    assert_eq!(result["ips"][1]["address"], "fd01::2/64");
    let found = a.ip("-6 addr show dev eth0")[0]["addr_info"].clone();
    let tentative = found.as_array().unwrap().iter().any(|a| a.get("tentative").is_some());
    assert!(!tentative, "{found:#}");
    assert_eq!(a.sysctl("ipv4/conf/eth0/arp_notify"), "1");
    assert_eq!(a.sysctl("ipv6/conf/eth0/keep_addr_on_down"), "1");
    let _cable = cable([&a, &b], PLAIN);
    a.must_reach("fd01::3");
    a.must_reach("10.1.0.3");
    host.check(&conf, &result, &a).ok();
}

/// Until a program has it open there is no carrier, also while ADD itself has it open.
#[test]
fn the_carrier_is_the_programs() {
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&conf(&json!({})), &pod).ok();
    let has_carrier = || link(&pod)["flags"].as_array().unwrap().contains(&json!("LOWER_UP"));
    assert!(!has_carrier());
    let machine = Machine::idle(&pod, PLAIN).unwrap();
    assert!(has_carrier());
    drop(machine);
    assert!(!has_carrier());
    assert_eq!(link(&pod)["linkinfo"]["info_data"]["persist"], true, "it stays");
}

#[test]
fn several_programs_open_one_with_many_queues() {
    let host = Host::new();
    let (one, many) = (host.pod("one"), host.pod("many"));
    let queues = |pod: &Pod<'_>| link(pod)["linkinfo"]["info_data"]["multi_queue"].clone();
    let refused = |pod: &Pod<'_>, open| Machine::idle(pod, open).err().unwrap().raw_os_error();
    for multi_queue in [json!(null), json!(false)] {
        let conf = conf(&json!({"multiQueue": multi_queue}));
        host.add(&conf, &one).ok();
        assert_ne!(queues(&one), true);
        assert_eq!(refused(&one, QUEUE_OF_MANY), Some(libc::EINVAL));
        let first = Machine::idle(&one, PLAIN).unwrap();
        assert_eq!(refused(&one, PLAIN), Some(libc::EBUSY));
        drop(first);
        host.del(&conf, &one).ok();
    }
    host.add(&conf(&json!({"multiQueue": true})), &many).ok();
    assert_eq!(queues(&many), true);
    let machines = [(); 3].map(|()| Machine::idle(&many, QUEUE_OF_MANY).unwrap());
    assert_eq!(link(&many)["linkinfo"]["info_data"]["numqueues"], 3);
    assert_eq!(refused(&many, PLAIN), Some(libc::EINVAL));
    drop(machines);
    let pod = host.pod("refused");
    let conf = conf(&json!({"multiQueue": 2}));
    fails_without_a_trace(&host, &conf, &pod, 6, &["multiQueue", "got 2"]);
}

/// Whom the kernel lets open a tap: the owner, members of the group; if both are set, who is both.
#[test]
fn it_belongs_to_a_user_and_a_group() {
    let host = Host::new();
    let pod = host.pod("a");
    let of = |name: &str| link(&pod)["linkinfo"]["info_data"][name].clone();
    let everybody = json!({});
    host.add(&conf(&everybody), &pod).ok();
    assert_eq!((of("user"), of("group")), (json!(null), json!(null)));
    host.del(&conf(&everybody), &pod).ok();
    host.add(&conf(&json!({"owner": 0, "group": 0})), &pod).ok();
    assert_eq!((of("user"), of("group")), (json!("root"), json!("root")));
    host.del(&conf(&everybody), &pod).ok();
    for key in ["owner", "group"] {
        for value in [json!(-1), json!(4_294_967_295_u32), json!(4_294_967_296_u64)] {
            let words = [key, &value.to_string(), "0 to 4294967294"];
            fails_without_a_trace(&host, &conf(&json!({key: value})), &pod, 7, &words);
        }
        fails_without_a_trace(&host, &conf(&json!({key: "root"})), &pod, 6, &[key, "\"root\""]);
    }
    if !geteuid().is_root() {
        // This user namespace has no other.
        for key in ["owner", "group"] {
            let words = [key, "mapped", "got 1234"];
            fails_without_a_trace(&host, &conf(&json!({key: 1234})), &pod, 7, &words);
        }
        return;
    }
    // The device file lets everybody in, as udev has it.
    host.sh("mknod -m 666 /run/tun c 10 200; mount --bind /run/tun /dev/net/tun");
    for (keys, user, opens) in [
        (json!({"owner": 1234}), (1234, 1), true),
        (json!({"owner": 1234}), (1235, 1), false),
        (json!({"group": 5678}), (1, 5678), true),
        (json!({"group": 5678}), (1234, 1), false),
        (json!({"owner": 1234, "group": 5678}), (1234, 5678), true),
        (json!({"owner": 1234, "group": 5678}), (1234, 1), false),
        (json!({"owner": 1234, "group": 5678}), (1, 5678), false),
    ] {
        let conf = conf(&keys);
        host.add(&conf, &pod).ok();
        let shown = |key: &str| keys.get(key).cloned().unwrap_or_default();
        assert_eq!((of("user"), of("group")), (shown("owner"), shown("group")));
        let open = Open { flags: 0, user: Some(user) };
        let error = Machine::idle(&pod, open).err().map(|why| why.raw_os_error());
        assert_eq!(error, (!opens).then_some(Some(libc::EPERM)), "{keys} {user:?}");
        host.del(&conf, &pod).ok();
    }
}

/// Until it has its owner it is anybody's.
#[test]
fn who_opens_it_before_it_has_its_owner_does_not_keep_it() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = conf(&json!({"multiQueue": true, "owner": 0}));
    let delay = "inject=ioctl:delay_enter=1000000:when=2";
    let strace = ["strace", "-f", "-o", "/dev/null", "-P", "/dev/net/tun", "-e", delay];
    let child = Call::new(&host, "ADD", &conf).of(&pod).under(&strace).start();
    while !pod.sh("ip link show dev eth0 2>&1 || true").contains("mtu") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let thief = Machine::idle(&pod, QUEUE_OF_MANY).expect("it is open to all until then");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stdout).unwrap();
    assert!(error.contains("expected one queue, our own, got 2"), "{error}");
    child::assert_bare(&pod);
    drop(thief);
    host.add(&conf, &pod).ok();
}

#[test]
fn the_mtu_is_bounded_by_what_a_tap_takes() {
    let host = Host::new();
    let pod = host.pod("a");
    for (mtu, expected) in [
        (json!(null), 1500),
        (json!(0), 1500),
        (json!(68), 68),
        (json!(9000), 9000),
        (json!(65521), 65521),
    ] {
        let conf = conf(&json!({"mtu": mtu}));
        let result = host.add(&conf, &pod).ok();
        assert_eq!(link(&pod)["mtu"], expected, "{mtu}");
        assert_eq!(link(&pod)["max_mtu"], 65521);
        assert_eq!(result["interfaces"][0]["mtu"], expected, "{mtu}");
        host.del(&conf, &pod).ok();
    }
    for mtu in [json!(65522), json!(65535), json!(67), json!(-1)] {
        let words = ["mtu", "65521", &mtu.to_string()];
        fails_without_a_trace(&host, &conf(&json!({"mtu": mtu})), &pod, 7, &words);
    }
    fails_without_a_trace(&host, &conf(&json!({"mtu": "1500"})), &pod, 6, &["mtu"]);
    let conf = conf(&json!({"mtu": 1000, "ipam": dual()}));
    fails_without_a_trace(&host, &conf, &pod, 7, &["mtu", "1280", "got 1000"]);
}

#[test]
fn the_address_is_asked_for_in_four_places_in_order_of_precedence() {
    child::the_address_is_asked_for_in_four_places(&conf(&json!({})));
    // Also where it belongs to somebody: there the reference forgets it.
    let host = Host::new();
    let pod = host.pod("a");
    let keys = json!({"mac": "02:00:00:00:00:07", "mtu": 1400, "owner": 0, "group": 0});
    host.add(&conf(&keys), &pod).ok();
    assert_eq!(link(&pod)["address"], "02:00:00:00:00:07");
    assert_eq!(link(&pod)["mtu"], 1400);
}

/// What is on the bridge reaches what is on the tap.
#[test]
fn it_is_a_port_of_a_bridge_in_the_container() {
    let host = Host::new();
    let (pod, machine) = (host.pod("a"), host.pod("machine"));
    let conf = |bridge: Value| conf(&json!({"bridge": bridge, "ipam": null}));
    host.sh("ip link add br0 type bridge");
    let words = ["bridge", "in the container", "\"br0\"", "not there"];
    fails_without_a_trace(&host, &conf(json!("br0")), &pod, 7, &words);
    fails_without_a_trace(&host, &conf(json!("lo")), &pod, 7, &["bridge", "\"lo\"", "physical"]);
    fails_without_a_trace(&host, &conf(json!("eth0")), &pod, 7, &["bridge", "\"eth0\""]);
    fails_without_a_trace(&host, &conf(json!("a b")), &pod, 7, &["bridge", "a b"]);
    fails_without_a_trace(&host, &conf(json!(5)), &pod, 6, &["bridge"]);
    // A lease that was taken before goes back.
    let leased = self::conf(&json!({"bridge": "br0"}));
    fails_without_a_trace(&host, &leased, &pod, 7, &words);

    pod.sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.9.0.1/24 dev br0
            ip link add veth0 type veth peer name veth1");
    let words = ["bridge", "\"veth0\", which is a veth"];
    fails_without_a_trace(&host, &conf(json!("veth0")), &pod, 7, &words);
    let conf = conf(json!("br0"));
    let result = host.add(&conf, &pod).ok();
    assert_eq!(link(&pod)["master"], "br0");
    host.add(&self::conf(&json!({"ipam": null})), &machine).ok();
    machine.sh("ip addr add 10.9.0.2/24 dev eth0");
    let _cable = cable([&pod, &machine], PLAIN);
    machine.must_reach("10.9.0.1");
    host.check(&conf, &result, &pod).ok();

    pod.sh("ip link set eth0 nomaster");
    host.check(&conf, &result, &pod).fails(999, &["eth0", "is no port of bridge \"br0\""]);
    pod.sh("ip link add br1 type bridge; ip link set eth0 master br1");
    host.check(&conf, &result, &pod).fails(999, &["eth0", "is no port of bridge \"br0\""]);
    pod.sh("ip link del br0");
    host.check(&conf, &result, &pod).fails(7, &["bridge", "\"br0\"", "not there"]);
    host.del(&conf, &pod).ok();
    assert_eq!(pod.ip("link show type bridge").as_array().unwrap().len(), 1, "br1 stays");
}

#[test]
fn without_address_management_it_is_layer_2_only() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    for none in [json!(null), json!({}), json!({"type": ""})] {
        let conf = conf(&json!({"ipam": none}));
        let result = host.add(&conf, &a).ok();
        host.add(&conf, &b).ok();
        assert_eq!(result.get("ips"), None, "{result:#}");
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(a.addresses("eth0"), [] as [&str; 0]);
        assert!(link(&a)["flags"].as_array().unwrap().contains(&json!("UP")));
        a.sh("ip addr add 10.1.7.7/16 dev eth0");
        b.sh("ip addr add 10.1.7.8/16 dev eth0");
        let cable = cable([&a, &b], PLAIN);
        a.must_reach("10.1.7.8");
        drop(cable);
        host.check(&conf, &result, &a).ok();
        host.del(&conf, &a).ok();
        host.del(&conf, &b).ok();
        child::assert_bare(&a);
    }
}

#[test]
fn name_resolution_is_told() {
    child::name_resolution_is_told(&conf(&json!({})));
}

#[test]
fn it_is_born_under_its_final_name() {
    child::is_born_under_its_final_name(&conf(&json!({})));
    // A tap that is there is not taken for ours, open or not, and stays as it is.
    let host = Host::new();
    let pod = host.pod("a");
    pod.sh("ip tuntap add eth0 mode tap");
    let before = link(&pod);
    for _ in 0..2 {
        let words = ["container interface \"eth0\" already exists", "DEL of its attachment"];
        host.add(&conf(&json!({})), &pod).fails(999, &words);
        assert_eq!(link(&pod), before);
        assert_eq!(host.leases("net"), [] as [&str; 0]);
    }
    host.del(&conf(&json!({})), &pod).ok();
    child::assert_bare(&pod);
}

/// What has no Ethernet is no tap.
#[test]
fn a_tun_is_left_alone() {
    let host = Host::new();
    let pod = host.pod("a");
    let result = host.add(&conf(&json!({})), &pod).ok();
    host.del(&conf(&json!({})), &pod).ok();
    pod.sh("ip tuntap add eth0 mode tun; ip addr add 10.1.0.2/16 dev eth0; ip link set eth0 up");
    host.del(&conf(&json!({})), &pod).ok();
    assert_eq!(link(&pod)["linkinfo"]["info_data"]["type"], "tun");
    let layer2 = conf(&json!({"ipam": null}));
    host.check(&layer2, &result, &pod).fails(999, &["eth0", "is a tun, not a tap"]);
}

#[test]
fn del_needs_nothing() {
    child::del_needs_nothing(&conf(&json!({})));
}

#[test]
fn del_leaves_alone_what_is_not_its_own() {
    child::del_leaves_alone_what_is_not_its_own(&conf(&json!({})));
}

#[test]
fn a_program_that_has_it_open_is_no_hindrance_to_del() {
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&conf(&json!({})), &pod).ok();
    let _machine = Machine::idle(&pod, PLAIN).unwrap();
    host.del(&conf(&json!({})), &pod).ok();
    child::assert_bare(&pod);
}

#[test]
fn a_late_refusal_undoes_all() {
    child::a_late_refusal_undoes_all(&conf(&json!({})));
}

/// Killed before any of its system calls it leaves no link, but for the last, which has it stay.
#[test]
fn a_killed_add_leaves_no_link() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = conf(&json!({"owner": 0}));
    let call = Call::new(&host, "ADD", &conf).of(&pod);
    let mut kept = 0;
    for syscall in ["ioctl", "getsockopt", "sendto", "recvmsg", "setns", "write", "close"] {
        walk(syscall, |n| {
            let inject = format!("inject={syscall}:signal=SIGKILL:when={n}");
            let outcome = call.clone().under(&["strace", "-qq", "-o", "/dev/null", "-e", &inject]);
            let killed = !outcome.run().status.success();
            // The device is closed, and the result written, after it is to stay.
            if killed && !matches!(syscall, "write" | "close") {
                child::assert_bare(&pod);
            }
            kept += usize::from(killed && pod.ip("link show").as_array().unwrap().len() > 1);
            host.del(&conf, &pod).ok();
            child::assert_bare(&pod);
            killed
        });
    }
    assert!((1..=4).contains(&kept), "{kept}");
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

#[test]
fn check_names_what_has_gone_astray() {
    let conf = conf(&json!({"ipam": child::with_route()}));
    child::drifts(&conf, &child::DRIFTS);
    let mac = ["eth0", "has address 02:00:00:00:00:66, not "];
    child::drifts(&conf, &[("ip link set eth0 address 02:00:00:00:00:66", &mac)]);
    let layer2 = self::conf(&json!({"ipam": null}));
    child::drifts(&layer2, &[("ip link set eth0 down", &["eth0", "is down"])]);
    let host = Host::new();
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    Call::new(&host, "CHECK", &conf).of(&pod).run().fails(7, &["prevResult"]);
}

#[test]
fn gc_keeps_the_valid() {
    child::gc_keeps_the_valid(&conf(&json!({})));
}

#[test]
fn status_tells_of_addresses_and_of_the_configuration() {
    let host = Host::new();
    let full = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/30"}]]});
    let conf = conf(&json!({"ipam": full}));
    let before = host.snapshot();
    assert_eq!(host.status(&conf).ok(), Value::Null);
    assert_eq!(host.snapshot(), before, "it makes nothing");
    host.status(&self::conf(&json!({"ipam": null}))).ok();
    host.add(&conf, &host.pod("a")).ok();
    host.status(&conf).fails(50, &["no IP addresses available"]);
    host.status(&self::conf(&json!({"mtu": 5}))).fails(7, &["mtu"]);
}

/// The kernel's module may be missing, or the file by which it is reached.
#[test]
fn a_node_without_the_device_is_told_from_one_with_it() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    host.sh("mount -t tmpfs tun /dev/net");
    let words = ["open /dev/net/tun", "ENOENT", "module tun"];
    fails_without_a_trace(&host, &conf, &pod, 999, &words);
    host.status(&conf).fails(50, &words);
    // A file that is no such device.
    host.sh("touch /dev/net/tun");
    fails_without_a_trace(&host, &conf, &pod, 999, &["create tap \"eth0\"", "ENOTTY"]);
    if geteuid().is_root() {
        host.sh("rm /dev/net/tun; mknod /dev/net/tun c 10 254");
        host.status(&conf).fails(50, &["open /dev/net/tun", "ENODEV", "module tun"]);
    }
}

#[test]
fn an_add_is_undone_whatever_fails() {
    let conf = conf(&json!({"owner": 0, "group": 0, "mtu": 1400}));
    child::an_add_is_undone_whatever_fails(&conf, &child::failures_of_add());
}

#[test]
fn a_del_that_fails_is_made_up_for_by_the_next() {
    let conf = conf(&json!({}));
    child::a_del_that_fails_is_made_up_for_by_the_next(&conf, &child::FAILURES_OF_DEL);
}

const CONTEXT: &str = "system_u:system_r:container_t:s0:c1,c2";

/// A host of which it seems that SELinux is in use there.
/// A host whose kernel knows SELinux, while its file system is mounted elsewhere at most.
fn host_with_selinux() -> Host {
    let host = Host::new();
    host.sh("printf 'nodev\\tselinuxfs\\n' | cat /proc/filesystems - > /run/filesystems
         mount --bind /run/filesystems /proc/filesystems");
    host
}

/// What makes the plugin's `attr/exec` take any context. The shell becomes the plugin, whose process it is.
const TAKES_ANY: &str =
    ": > /run/exec; mount --bind /run/exec /proc/$$/task/$$/attr/exec; exec \"$0\"";

#[test]
fn without_selinux_nothing_has_a_context() {
    let host = Host::new();
    let pod = host.pod("a");
    let conf = conf(&json!({"selinuxContext": CONTEXT}));
    let result = host.add(&conf, &pod).ok();
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
    // Also not if there is none to be had.
    for none in [json!(null), json!("")] {
        let conf = self::conf(&json!({"selinuxContext": none}));
        let host = host_with_selinux();
        host.add(&conf, &host.pod("a")).ok();
    }
}

/// The link is made by another process of this program, in the context; that of all else stays as it is.
#[test]
fn it_is_made_in_a_context_of_selinux() {
    let host = host_with_selinux();
    let pod = host.pod("a");
    let keys = json!({"selinuxContext": CONTEXT, "multiQueue": true, "mtu": 1400, "owner": 0});
    let conf = conf(&keys);
    let calls = "trace=execve,write,ioctl,openat";
    let strace = ["strace", "-f", "-s", "999", "-o", "/run/trace", "-e", calls];
    let words = [&strace[..], &["sh", "-c", TAKES_ANY]].concat();
    let result = Call::new(&host, "ADD", &conf).of(&pod).under(&words).run().ok();
    let trace = host.read("/run/trace");
    let mut steps = trace.lines().filter(|line| {
        line.contains(CONTEXT) && line.contains("write(")
            || line.contains("\"/proc/self/exe\", [")
            || line.contains("TUNSETIFF")
            || line.contains(r#", "\n", 1)"#)
            || line.contains("TUNSETPERSIST")
    });
    let mut next = |what: &str| {
        let step = steps.next().unwrap_or_else(|| panic!("no {what}: {trace}"));
        assert!(step.contains(what), "expected {what}, got {step}: {trace}");
        step.split_whitespace().next().unwrap().to_owned()
    };
    let plugin = next(CONTEXT);
    let maker = next(r#"["plumb: make a tap", "many queues", "eth0"], 0x"#);
    assert_ne!(maker, plugin);
    assert_eq!(next("TUNSETIFF"), maker);
    assert_eq!(next(r#""\n""#), plugin, "what it executes later is not meant");
    assert_eq!(next("TUNSETPERSIST"), plugin);
    assert!(steps.next().is_none(), "{trace}");

    assert_eq!(link(&pod)["linkinfo"]["info_data"]["multi_queue"], true);
    assert_eq!(link(&pod)["mtu"], 1400);
    let machines = [(); 2].map(|()| Machine::idle(&pod, QUEUE_OF_MANY).unwrap());
    drop(machines);
    host.check(&conf, &result, &pod).ok();
    // An interface of that name is found by the other process.
    let again = Call::new(&host, "ADD", &conf).of(&pod).under(&["sh", "-c", TAKES_ANY]);
    again.run().fails(999, &["\"eth0\" already exists"]);
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
    child::assert_bare(&pod);
}

#[test]
fn what_selinux_refuses_is_told_and_leaves_nothing() {
    let host = host_with_selinux();
    let pod = host.pod("a");
    // The kernel here knows no contexts at all.
    let conf = conf(&json!({"selinuxContext": CONTEXT}));
    fails_without_a_trace(&host, &conf, &pod, 7, &["selinuxContext", CONTEXT, "policy"]);
    // The policy does not let it be executed, or make a tap.
    let before = host.snapshot();
    for (path, inject, words) in [
        (
            "/proc/self/exe",
            "inject=execve:error=EACCES",
            ["run a program in SELinux context", "EACCES"],
        ),
        (
            "/dev/net/tun",
            "inject=ioctl:error=EACCES",
            ["create tap \"eth0\" in SELinux context", "EACCES"],
        ),
    ] {
        let strace = ["strace", "-f", "-o", "/dev/null", "-P", path, "-e", inject];
        let strace = [&strace[..], &["sh", "-c", TAKES_ANY]].concat();
        let outcome = Call::new(&host, "ADD", &conf).of(&pod).under(&strace).run();
        outcome.fails(999, &[&words[..], &[CONTEXT, "policy"]].concat());
        child::assert_bare(&pod);
        host.snapshot().assert_same_but_for_rules(&before);
    }
}

#[test]
fn what_is_no_context_is_refused_selinux_or_not() {
    let long = format!("u:r:{}", "t".repeat(4092));
    for host in [Host::new(), host_with_selinux()] {
        let pod = host.pod("a");
        for context in
            ["x", "u:r", "u::t", ":r:t", "u:r:t:", "u:r:t t", "u:r:t\n", "u:r:t\0", "u:r:ä", &long]
        {
            let words = ["selinuxContext: expected a security context", "got"];
            let conf = conf(&json!({"selinuxContext": context}));
            fails_without_a_trace(&host, &conf, &pod, 7, &words);
            host.status(&conf).fails(7, &words);
        }
        let conf = conf(&json!({"selinuxContext": 5}));
        fails_without_a_trace(&host, &conf, &pod, 6, &["selinuxContext"]);
    }
}

/// The other process can be called by anybody, to no avail.
#[test]
fn the_other_process_does_only_what_it_is_for() {
    let host = Host::new();
    let pod = host.pod("a");
    let call = |arguments: [&str; 2]| {
        let mut maker = pod.command(PLUMB);
        let output = maker.arg0("plumb: make a tap").args(arguments).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0), "{output:?}");
        output.status.code().unwrap()
    };
    assert_eq!(call(["one queue", "eth0"]), libc::ENOTTY, "its standard input is no device");
    for arguments in [
        ["", ""],
        ["one queue", ""],
        ["eth0", "one queue"],
        ["two queues", "eth0"],
        ["one queue", "a/b"],
    ] {
        assert_eq!(call(arguments), libc::EINVAL, "{arguments:?}");
    }
    child::assert_bare(&pod);
}
