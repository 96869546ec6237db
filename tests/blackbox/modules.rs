//! What a kernel with modules is not asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use plumb::cni::Attachment;
use serde_json::json;

use crate::child::{self, segment};
use crate::harness::{Call, Host, ipv4};

const MODPROBE: &str = "/proc/sys/kernel/modprobe";

/// Who asks for the index of a name that the kernel does not know, by an interface ioctl, has it run modprobe(8)
/// for a module of that name, and waits: milliseconds that no other kernel shows.
#[test]
#[ignore = "needs modules"]
fn no_call_has_the_kernel_look_for_a_module_by_a_links_name() {
    let directory = tempfile::tempdir().unwrap();
    let (program, log) = (directory.path().join("modprobe"), directory.path().join("log"));
    let usual = fs::read_to_string(MODPROBE).unwrap();
    let script =
        format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", log.display(), usual.trim());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(MODPROBE, program.to_str().unwrap()).unwrap();

    let host = Host::new();
    segment(&host, "up0");
    let pod = host.pod("a");
    host.sh("ip link add given0 type veth peer name far0");
    let mut ours = vec!["link0".to_owned()];
    for (kind, keys) in [
        ("bridge", json!({"bridge": "br0", "isGateway": true, "ipam": ipv4()})),
        ("ptp", json!({"ipam": ipv4()})),
        ("macvlan", json!({"master": "up0", "ipam": ipv4()})),
        ("tap", json!({"ipam": ipv4()})),
        ("host-device", json!({"device": "given0", "ipam": ipv4()})),
        ("loopback", json!({})),
    ] {
        let mut conf = child::conf(kind, &keys);
        conf["name"] = json!(format!("of-{kind}"));
        let call = |command| Call::new(&host, command, &conf).of(&pod).env("CNI_IFNAME", "link0");
        call("DEL").run().ok();
        call("ADD").run().ok();
        // Again: it is there, or gone.
        call("ADD").run();
        call("DEL").run().ok();
        call("DEL").run().ok();
        host.gc(&conf, &[]).ok();
        host.status(&conf).ok();
        let attachment = Attachment {
            network: format!("of-{kind}"),
            container: "a".into(),
            ifname: "link0".into(),
        };
        ours.extend([attachment.host_link(), attachment.given_link()]);
    }
    // What is looked for shows in the log.
    host.sh("python3 -c 'import socket; socket.if_nametoindex(\"unknown0\")' 2>/dev/null || true");
    fs::write(MODPROBE, usual).unwrap();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("netdev-unknown0"), "{log}");
    for name in ours {
        assert!(!log.contains(&name), "{name}: {log}");
    }
}
