//! Plugin host-device: how a device is found, that it is in the container under its new name, and that it comes
//! back as it was, whatever happens.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::child::{assert_bare, with_route};
use crate::failure::{CONTENTS, CONVERSATIONS, injected, walk};
use crate::harness::{
    Call, Host, Outcome, Pod, VERSIONS, dual, fails_without_a_trace, ipv4, network, with,
};

const REAL_INPUT: &str = include_str!("../../examples/host-device.conf");

/// A configuration for device `up0` of network `net`, with these keys in addition or instead; without what is
/// `null`.
fn conf(keys: &Value) -> Value {
    let conf = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "host-device", "device": "up0", "ipam": ipv4(),
    });
    with(conf, keys)
}

/// A device of the host's, up and with all that can be remembered of it, on a segment with one other machine:
/// `10.1.0.200` and `fd01::200`.
fn device<'a>(host: &'a Host, name: &str) -> Pod<'a> {
    let neighbour = host.pod("neighbour");
    // Routes of IPv6 would come and go some time after the device.
    host.sh(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
         ip link add {name} mtu 1400 address 02:00:00:00:00:01 type veth peer name eth0 netns neighbour
         ip link set {name} alias 'uplink  to rack 7 '; ip link set {name} up"
    ));
    neighbour.sh("ip addr add 10.1.0.200/16 dev eth0; ip addr add fd01::200/64 dev eth0 nodad
                  ip link set lo up; ip link set eth0 up");
    neighbour
}

/// What can be told of a device on the host, but for what comes and goes with its carrier.
fn state(host: &Host, name: &str) -> Value {
    let link = host.ip(&format!("link show dev {name}"))[0].clone();
    let is_up = link["flags"].as_array().unwrap().contains(&json!("UP"));
    let told = ["ifname", "address", "mtu", "ifalias", "altnames", "master", "promiscuity"];
    let mut state: Value = told.iter().map(|key| ((*key).to_owned(), link[*key].clone())).collect();
    state["up"] = json!(is_up);
    for mode in ["PROMISC", "ALLMULTI", "NOARP"] {
        state[mode] = json!(link["flags"].as_array().unwrap().contains(&json!(mode)));
    }
    state
}

/// Asserts that the pod has the device under the interface's name, up.
#[track_caller]
fn assert_given(pod: &Pod<'_>) {
    let links = pod.ip("link show");
    assert_eq!(links.as_array().unwrap().len(), 2, "{links:#}");
    assert_eq!(links[1]["ifname"], "eth0", "{links:#}");
    assert!(links[1]["flags"].as_array().unwrap().contains(&json!("UP")), "{links:#}");
}

#[test]
fn a_device_goes_to_a_pod_and_comes_back_in_every_version() {
    let plain: Value = serde_json::from_str(REAL_INPUT).unwrap();
    let mut unversioned = plain.clone();
    unversioned.as_object_mut().unwrap().remove("cniVersion");
    let list = |version: &str| {
        let list = json!({"cniVersion": version, "name": plain["name"], "plugins": [plain]});
        (network(&list.to_string())[0].clone(), version.to_owned())
    };
    let mut confs = vec![(unversioned, "0.1.0".to_owned())];
    confs.extend(VERSIONS.map(list));
    let host = Host::new();
    let neighbour = device(&host, "ens4");
    neighbour.sh("ip addr add 10.50.0.254/24 dev eth0; ip addr add fd50::fe/64 dev eth0 nodad");
    let pod = host.pod("a");
    let (before, was) = (host.snapshot(), state(&host, "ens4"));
    for (conf, version) in confs {
        let result = host.add(&conf, &pod).ok();
        assert_eq!(result["cniVersion"], version);
        assert_given(&pod);
        let addresses = pod.addresses("eth0");
        let told: Vec<_> = if version.as_str() < "0.3.0" {
            assert_eq!(result.get("interfaces"), None);
            ["ip4", "ip6"].map(|family| result[family]["ip"].clone()).into()
        } else {
            let mut interface = json!({
                "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a",
            });
            if version.as_str() >= "1.1.0" {
                interface["mtu"] = json!(1400);
            }
            assert_eq!(result["interfaces"], json!([interface]), "{version}");
            let ips = result["ips"].as_array().unwrap();
            assert!(ips.iter().all(|ip| ip["interface"] == 0), "{result:#}");
            ips.iter().map(|ip| ip["address"].clone()).collect()
        };
        assert_eq!(json!(addresses), json!(told), "{version}");
        pod.must_reach("10.50.0.254");
        pod.must_reach("fd50::fe");
        assert_eq!(pod.ip("route show 10.51.0.0/16")[0]["gateway"], "10.50.0.254");
        if version.as_str() >= "0.4.0" {
            let before = host.snapshot();
            host.check(&conf, &result, &pod).ok();
            assert_eq!(host.snapshot(), before, "CHECK changes nothing");
        }
        host.del(&conf, &pod).ok();
        assert_bare(&pod);
        assert_eq!(state(&host, "ens4"), was, "{version}");
        host.snapshot().assert_same_but_for_rules(&before);
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "ens4"), was, "{version}");
        if version.as_str() >= "1.1.0" {
            host.status(&conf).ok();
            host.gc(&conf, &[]).ok();
            assert_eq!(state(&host, "ens4"), was, "{version}");
        }
    }
}

/// On the device itself, where it is seen on a node, too.
#[test]
fn what_a_device_was_stands_in_its_alias() {
    let host = Host::new();
    device(&host, "up0");
    let pod = host.pod("a");
    host.add(&conf(&json!({})), &pod).ok();
    let link = pod.ip("link show dev eth0")[0].clone();
    assert_eq!(
        link["ifalias"],
        "plumb:net/a/eth0 was up0 up 1400 02:00:00:00:00:01 uplink  to rack 7 "
    );
    host.del(&conf(&json!({})), &pod).ok();
    assert_eq!(host.ip("link show dev up0")[0]["ifalias"], "uplink  to rack 7 ");
    assert_eq!(host.ip("link show dev up0")[0].get("altnames"), None);
}

/// No address is asked for, so there is none; the device is up.
#[test]
fn without_address_management_it_is_layer_2_only() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let pod = host.pod("a");
    for none in [json!(null), json!({}), json!({"type": ""})] {
        let conf = conf(&json!({"ipam": none}));
        let result = host.add(&conf, &pod).ok();
        assert_eq!(result.get("ips"), None, "{result:#}");
        assert_given(&pod);
        assert_eq!(pod.addresses("eth0"), [] as [&str; 0]);
        pod.sh("ip addr add 10.1.7.7/16 dev eth0");
        pod.must_reach("10.1.0.200");
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "up0"), was);
    }
}

#[test]
fn name_resolution_is_the_configurations() {
    let host = Host::new();
    device(&host, "up0");
    let pod = host.pod("a");
    let dns =
        json!({"nameservers": ["192.0.2.1"], "domain": "x", "search": ["a"], "options": ["b"]});
    let conf = conf(&json!({"dns": dns}));
    assert_eq!(host.add(&conf, &pod).ok()["dns"], dns);
}

// How a device is found.

/// A /sys in which there are the links `up0` to `up4`, each a function of a device of another kind.
fn sysfs(host: &Host) {
    host.sh(
        "mount -t tmpfs tmpfs /sys
         for n in 0 1 2 3 4; do
             ip link add up$n address 02:00:00:00:01:0$n type veth peer name far$n; ip link set up$n up
             ip link set far$n up
         done
         devices=/sys/devices/pci0000:00
         mkdir -p $devices/0000:00:03.0/net/up0 $devices/0000:00:04.0/virtio1/net/up1
         mkdir -p $devices/0000:00:05.0/mlx5_core.sf.4/net/up2 $devices/0000:00:0A.0
         mkdir -p $devices/0000:00:06.0/net/up3 $devices/0000:00:07.0/net
         mkdir -p $devices/0000:00:0b.0/net/up4 $devices/0000:00:0b.0/net/up4_rep
         mkdir -p /sys/bus/pci/devices /sys/bus/auxiliary/devices /sys/bus/pci/drivers/vfio-pci
         for id in 03 04 05 06 07 0b; do
             ln -s ../../../devices/pci0000:00/0000:00:$id.0 /sys/bus/pci/devices/
         done
         ln -s ../../../devices/pci0000:00/0000:00:05.0/mlx5_core.sf.4 /sys/bus/auxiliary/devices/
         ln -s /run $devices/0000:00:03.0/elsewhere",
    );
}

#[test]
fn a_device_is_found_by_each_of_its_names() {
    let host = Host::new();
    sysfs(&host);
    host.sh("ip link property add dev up4 altname a-second-name-of-more-than-15-bytes
             ip link property add dev up4 altname enp9s0");
    let path = |path: &str| format!("/sys/devices/pci0000:00/{path}");
    let runtime = |id: &str| json!({"deviceID": id});
    for (keys, name, pci) in [
        (json!({"device": "up1"}), "up1", None),
        (json!({"device": "enp9s0"}), "up4", None),
        (json!({"hwaddr": "02:00:00:00:01:02"}), "up2", None),
        (json!({"hwaddr": "0200.0000.0103"}), "up3", None),
        (json!({"kernelpath": path("0000:00:03.0")}), "up0", None),
        (json!({"kernelpath": path("0000:00:04.0/virtio1")}), "up1", None),
        (json!({"pciBusID": "0000:00:03.0"}), "up0", Some("0000:00:03.0")),
        (json!({"pciBusID": "0000:00:04.0"}), "up1", Some("0000:00:04.0")),
        (json!({"pciBusID": "0000:00:0B.0"}), "up4", Some("0000:00:0b.0")),
        (json!({"runtimeConfig": runtime("0000:00:06.0")}), "up3", Some("0000:00:06.0")),
        (json!({"runtimeConfig": runtime("mlx5_core.sf.4")}), "up2", None),
        // One before the other.
        (json!({"device": "up1", "hwaddr": "02:00:00:00:01:02"}), "up1", None),
        (json!({"hwaddr": "02:00:00:00:01:02", "kernelpath": path("0000:00:03.0")}), "up2", None),
        (json!({"kernelpath": path("0000:00:03.0"), "pciBusID": "0000:00:04.0"}), "up0", None),
        (
            json!({"pciBusID": "0000:00:03.0", "runtimeConfig": runtime("0000:00:04.0")}),
            "up1",
            Some("0000:00:04.0"),
        ),
        (
            json!({"pciBusID": "0000:00:03.0", "runtimeConfig": runtime("mlx5_core.sf.4")}),
            "up2",
            None,
        ),
        (json!({"device": "up3", "runtimeConfig": runtime("0000:00:04.0")}), "up3", None),
        // What is empty is not there.
        (
            json!({"device": "", "hwaddr": "", "kernelpath": "", "pciBusID": "0000:00:06.0",
            "runtimeConfig": {"deviceID": ""}}),
            "up3",
            Some("0000:00:06.0"),
        ),
    ] {
        let conf = with(conf(&json!({"device": null})), &keys);
        let pod = host.pod("a");
        let was = state(&host, name);
        host.status(&conf).ok();
        let result = host.add(&conf, &pod).ok();
        assert_given(&pod);
        let mac = &result["interfaces"][0]["mac"];
        assert_eq!(pod.ip("link show dev eth0")[0]["address"], was["address"], "{keys}");
        assert_eq!(*mac, was["address"], "{keys}");
        assert_eq!(
            result["interfaces"][0].get("pciID"),
            pci.map(|id| json!(id)).as_ref(),
            "{keys}"
        );
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, name), was, "{keys}");
        host.sh("ip netns del a");
    }
}

#[test]
fn a_device_that_is_not_there_is_said_to_be_missing() {
    let host = Host::new();
    sysfs(&host);
    let pod = host.pod("a");
    for (keys, words) in [
        (json!({"device": "nosuch"}), "\"nosuch\""),
        (json!({"hwaddr": "02:00:00:00:00:99"}), "02:00:00:00:00:99"),
        (json!({"kernelpath": "/sys/devices/none/x"}), "/sys/devices/none/x"),
        (json!({"kernelpath": "/sys/devices/pci0000:00/0000:00:0A.0"}), "0000:00:0A.0"),
        // It has a place for links, and none is there.
        (json!({"pciBusID": "0000:00:07.0"}), "PCI device 0000:00:07.0"),
        (json!({"pciBusID": "0000:00:1f.7"}), "PCI device 0000:00:1f.7"),
        (json!({"runtimeConfig": {"deviceID": "0000:00:1f.7"}}), "PCI device 0000:00:1f.7"),
        (
            json!({"runtimeConfig": {"deviceID": "mlx5_core.sf.5"}}),
            "auxiliary device mlx5_core.sf.5",
        ),
    ] {
        let conf = with(conf(&json!({"device": null})), &keys);
        let words = ["cannot find", words, "on the host", "ENODEV"];
        fails_without_a_trace(&host, &conf, &pod, 999, &words);
        host.status(&conf).fails(50, &words);
    }
}

#[test]
fn what_names_no_device_is_refused() {
    let host = Host::new();
    sysfs(&host);
    let pod = host.pod("a");
    let outside = "/sys/devices/pci0000:00/0000:00:03.0/elsewhere";
    for (keys, code, words) in [
        (json!({}), 7, ["device, hwaddr, kernelpath, pciBusID", "none"]),
        (json!({"device": "lo"}), 7, ["device", "loopback"]),
        (json!({"device": "a/b"}), 7, ["device", "a/b"]),
        (json!({"device": "../x"}), 7, ["device", "../x"]),
        (json!({"device": "sixteen-bytes-xx"}), 7, ["device", "15 bytes"]),
        (json!({"device": 5}), 6, ["device", "5"]),
        (json!({"hwaddr": "02:00"}), 7, ["hwaddr", "02:00"]),
        (json!({"hwaddr": "00:00:00:00:00:00"}), 7, ["hwaddr", "unicast"]),
        (json!({"hwaddr": true}), 6, ["hwaddr", "true"]),
        (json!({"kernelpath": "/sys/class/net/up0"}), 7, ["kernelpath", "/sys/devices"]),
        (json!({"kernelpath": "/sys/devices/../class"}), 7, ["kernelpath", ".."]),
        (json!({"kernelpath": "devices/x"}), 7, ["kernelpath", "absolute"]),
        (json!({"kernelpath": outside}), 7, ["kernelpath", "leads to /run"]),
        (json!({"pciBusID": "../../../run"}), 7, ["pciBusID", "../../../run"]),
        (json!({"pciBusID": "00:03.0"}), 7, ["pciBusID", "00:03.0"]),
        (json!({"runtimeConfig": {"deviceID": "../x"}}), 7, ["runtimeConfig.deviceID", "../x"]),
        (json!({"runtimeConfig": {"deviceID": 3}}), 6, ["runtimeConfig.deviceID", "3"]),
        (json!({"device": "up0", "DPDKMode": "yes"}), 6, ["DPDKMode", "yes"]),
        // What another goes before is read all the same.
        (json!({"device": "up0", "pciBusID": "x"}), 7, ["pciBusID", "x"]),
    ] {
        let conf = with(conf(&json!({"device": null})), &keys);
        fails_without_a_trace(&host, &conf, &pod, code, &words);
    }
}

/// Which one of them has an address is not for the order of links to decide.
#[test]
fn an_address_that_several_links_have_is_refused() {
    let host = Host::new();
    host.sh("for n in 0 1; do
                 ip link add up$n address 02:00:00:00:01:00 type veth peer name far$n
             done");
    let conf = conf(&json!({"device": null, "hwaddr": "02:00:00:00:01:00"}));
    let words = ["hwaddr", "up0, up1", "02:00:00:00:01:00"];
    fails_without_a_trace(&host, &conf, &host.pod("a"), 7, &words);
}

/// A link that belongs to its namespace.
#[test]
fn what_the_kernel_does_not_move_is_refused() {
    let host = Host::new();
    host.sh("ip link add br7 type bridge; ip addr add 198.51.100.1/24 dev br7; ip link set br7 up");
    let words = ["device \"br7\"", "EINVAL", "kind bridge"];
    let conf = conf(&json!({"device": "br7"}));
    fails_without_a_trace(&host, &conf, &host.pod("a"), 999, &words);
}

/// As in the reference a bridge loses its port; the device comes back without it.
#[test]
fn a_bridges_port_is_given_too() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    host.sh("ip link add br7 type bridge; ip link set up0 master br7");
    let pod = host.pod("a");
    host.add(&conf(&json!({})), &pod).ok();
    pod.must_reach("10.1.0.200");
    host.del(&conf(&json!({})), &pod).ok();
    assert_eq!(state(&host, "up0"), was);
}

// Devices without a link.

#[test]
fn a_device_that_is_left_to_user_space_is_not_moved() {
    let host = Host::new();
    sysfs(&host);
    host.sh(
        "ln -s ../../../../bus/pci/drivers/vfio-pci /sys/devices/pci0000:00/0000:00:03.0/driver
             ln -s ../../../../bus/pci/drivers/e1000 /sys/devices/pci0000:00/0000:00:04.0/driver",
    );
    let pod = host.pod("a");
    let before = host.snapshot();
    let by_pci =
        |keys: Value| with(conf(&json!({"device": null, "pciBusID": "0000:00:03.0"})), &keys);
    for (conf, id) in [
        (by_pci(json!({})), Some("0000:00:03.0")),
        (by_pci(json!({"DPDKMode": false})), Some("0000:00:03.0")),
        // That of the PCI device decides, whatever goes before it.
        (by_pci(json!({"device": "up3"})), Some("0000:00:03.0")),
        (conf(&json!({"device": "up3", "DPDKMode": true})), None),
        (by_pci(json!({"ipam": null})), Some("0000:00:03.0")),
    ] {
        host.status(&conf).ok();
        let result = host.add(&conf, &pod).ok();
        let mut interface = json!({"name": "eth0", "sandbox": "/run/netns/a"});
        if let Some(id) = id {
            interface["pciID"] = json!(id);
        }
        assert_eq!(result["interfaces"], json!([interface]));
        let has_addresses = conf["ipam"].is_object();
        assert_eq!(result["ips"].is_array(), has_addresses, "{result:#}");
        assert_eq!(host.leases("net").len(), usize::from(has_addresses));
        assert_bare(&pod);
        host.check(&conf, &result, &pod).ok();
        host.del(&conf, &pod).ok();
        host.snapshot().assert_same_but_for_rules(&before);
    }
    // Of another driver's device there is a link; the key does not make it otherwise.
    let with_link = by_pci(json!({"pciBusID": "0000:00:04.0", "DPDKMode": true}));
    host.add(&with_link, &pod).ok();
    assert_given(&pod);
    host.del(&with_link, &pod).ok();
    host.snapshot().assert_same_but_for_rules(&before);
}

/// The reference looks at the driver, and fails.
#[test]
fn plugins_1196_del_does_not_look_at_the_device() {
    let host = Host::new();
    sysfs(&host);
    host.sh(
        "ln -s ../../../../bus/pci/drivers/vfio-pci /sys/devices/pci0000:00/0000:00:03.0/driver",
    );
    let pod = host.pod("a");
    let conf = conf(&json!({"device": null, "pciBusID": "0000:00:03.0"}));
    host.add(&conf, &pod).ok();
    host.sh("rm /sys/bus/pci/devices/0000:00:03.0");
    host.del(&conf, &pod).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    // Nor at what the configuration says of it.
    let mut without = conf;
    without.as_object_mut().unwrap().remove("pciBusID");
    host.del(&without, &pod).ok();
}

// Names.

#[test]
fn names_that_are_in_use_elsewhere_are_no_matter() {
    let host = Host::new();
    device(&host, "up0");
    // The interface's name is another link's on the host, the device's another's in the container.
    host.sh("ip link add eth0 type veth peer name other");
    let pod = host.pod("a");
    pod.sh("ip link add up0 type veth peer name another");
    let (before, was) = (host.snapshot(), state(&host, "up0"));
    let conf = conf(&json!({}));
    let result = host.add(&conf, &pod).ok();
    pod.must_reach("10.1.0.200");
    host.check(&conf, &result, &pod).ok();
    host.del(&conf, &pod).ok();
    assert_eq!(state(&host, "up0"), was);
    host.snapshot().assert_same_but_for_rules(&before);
    assert_eq!(pod.ip("link show").as_array().unwrap().len(), 3);
}

/// It is seen before the device is touched: what is moved loses its addresses.
#[test]
fn a_name_that_the_container_has_is_refused_first() {
    let host = Host::new();
    device(&host, "up0");
    host.sh("ip addr add 198.51.100.1/24 dev up0; ip route add 192.0.2.0/24 via 198.51.100.9");
    host.scripted_ipam(&json!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.9.9/16"}]}));
    let pod = host.pod("a");
    pod.sh("ip link add eth0 type veth peer name peer0; ip link set eth0 alias mine");
    for ipam in [json!(null), ipv4(), json!({"type": "scripted"})] {
        let (before, was) = (host.snapshot(), state(&host, "up0"));
        host.add(&conf(&json!({"ipam": ipam})), &pod).fails(999, &["eth0", "already exists"]);
        host.snapshot().assert_same_but_for_rules(&before);
        assert_eq!(state(&host, "up0"), was);
    }
    host.sh("[ ! -e /run/scripted.log ]");
    assert_eq!(pod.ip("link show dev eth0")[0]["ifalias"], "mine");
}

/// So are the addresses that address management has not got.
#[test]
fn a_device_keeps_its_addresses_when_there_is_none_to_lease() {
    let host = Host::new();
    device(&host, "up0");
    host.sh("ip addr add 198.51.100.1/24 dev up0; ip route add 192.0.2.0/24 via 198.51.100.9");
    let full = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/30"}]]});
    let conf = conf(&json!({"ipam": full}));
    let mut other = conf.clone();
    other["type"] = json!("host-local");
    Call::new(&host, "ADD", &other).attachment("other", "eth0").run().ok();
    fails_without_a_trace(&host, &conf, &host.pod("a"), 11, &["no IP addresses available"]);
}

/// An alias that does not fit beside the rest would be lost.
#[test]
fn an_alias_that_is_too_long_to_be_kept_is_refused() {
    let host = Host::new();
    device(&host, "up0");
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    let room = 255 - "plumb:net/a/eth0 was up0 up 1400 02:00:00:00:00:01 ".len();
    host.sh(&format!("ip link set up0 alias {}", "x".repeat(room + 1)));
    let words = ["up0", "alias", &format!("at most {room}")];
    fails_without_a_trace(&host, &conf, &pod, 999, &words);
    host.sh(&format!("ip link set up0 alias {}", "x".repeat(room)));
    let was = state(&host, "up0");
    host.add(&conf, &pod).ok();
    host.del(&conf, &pod).ok();
    assert_eq!(state(&host, "up0"), was);
    let long = "c".repeat(230);
    let call = Call::new(&host, "ADD", &conf).of(&pod).env("CNI_CONTAINERID", &long);
    call.run().fails(4, &["too long"]);
}

// The way back.

#[test]
fn del_needs_nothing() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let conf = conf(&json!({}));
    let no_namespaces = [None, Some(""), Some("/run/netns/none"), Some("/run/cni/bin/bridge")];
    for (number, netns) in no_namespaces.into_iter().enumerate() {
        let pod = host.pod(&format!("pod{number}"));
        host.add(&conf, &pod).ok();
        let del = Call::new(&host, "DEL", &conf).of(&pod);
        let del = match netns {
            Some(path) => del.env("CNI_NETNS", path),
            None => del.without("CNI_NETNS"),
        };
        del.run().ok();
        assert_eq!(host.leases("net"), [] as [&str; 0], "{netns:?}");
        del.run().ok();
        // The container lives, and has the device.
        assert_given(&pod);
        host.del(&conf, &pod).ok();
        assert_bare(&pod);
        assert_eq!(state(&host, "up0"), was);
        host.del(&conf, &pod).ok();
    }
    // The device has gone from the container.
    let pod = host.pod("orphan");
    let mut result = host.add(&conf, &pod).ok();
    pod.sh("ip link del eth0");
    result["ips"] = json!("nonsense");
    let mut with_nonsense = conf.clone();
    with_nonsense["prevResult"] = result;
    host.del(&with_nonsense, &pod).ok();
    host.del(&conf, &pod).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

#[test]
fn what_was_changed_in_the_container_is_undone() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    for (before, inside) in [
        ("true", "ip link set eth0 down; ip link set eth0 mtu 1300 address 02:00:00:00:00:77"),
        ("ip link set up0 down", "ip link set eth0 up"),
        ("ip link set up0 alias ''", "ip link set eth0 down; ip link set eth0 name mine"),
        (
            "ip link set up0 up alias 'a b  c'",
            "ip link set eth0 down; ip link set eth0 name up0; ip link set up0 up",
        ),
    ] {
        host.sh(before);
        let was = state(&host, "up0");
        host.add(&conf, &pod).ok();
        pod.sh(inside);
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "up0"), was, "{inside}");
        assert_bare(&pod);
    }
}

/// The kernel does not move a device of which a name is in use where it goes.
#[test]
fn other_names_of_the_containers_stay_behind() {
    let host = Host::new();
    device(&host, "up0");
    host.sh("ip link property add dev up0 altname rack7
             ip link property add dev up0 altname a-second-name-of-more-than-15-bytes
             ip link add server type veth peer name server0; ip link set server alias mine up");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    let (was, others) = (state(&host, "up0"), state(&host, "server"));
    for inside in [
        "ip link property add dev eth0 altname server",
        "ip link property add dev eth0 altname new; ip link property add dev eth0 altname server0",
        // Without ours nobody knows which ones came in the container.
        "ip link property del dev eth0 altname OURS; ip link property add dev eth0 altname server",
        "ip link property del dev eth0 altname OURS; ip link set eth0 mtu 1300",
    ] {
        host.add(&conf, &pod).ok();
        let ours = pod.ip("link show dev eth0")[0]["altnames"][2].as_str().unwrap().to_owned();
        assert!(ours.starts_with("plumb"), "{ours}");
        pod.sh(&inside.replace("OURS", &ours));
        host.del(&conf, &pod).ok();
        assert_bare(&pod);
        assert_eq!(state(&host, "up0"), was, "{inside}");
        assert_eq!(state(&host, "server"), others, "{inside}");
    }
    // A name that it had is another's now.
    host.add(&conf, &pod).ok();
    host.sh("ip link add rack7 type veth peer name rack8");
    host.del(&conf, &pod).ok();
    assert_bare(&pod);
    let now = state(&host, "up0");
    assert_eq!(now["altnames"], json!(["a-second-name-of-more-than-15-bytes"]));
    assert_eq!((&now["ifname"], &now["up"]), (&json!("up0"), &json!(true)));
}

/// What is written on the device is all that the next try has to go by.
#[test]
fn what_cannot_be_restored_yet_stays_written_down() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    let record = pod.ip("link show dev eth0")[0]["ifalias"].as_str().unwrap().to_owned();
    // More than a veth takes.
    let forged = record.replace(" 1400 ", " 99999 ");
    pod.sh(&format!("ip link set eth0 alias '{forged}'"));
    for _ in 0..2 {
        host.del(&conf, &pod).fails(999, &["host device \"up0\"", "mtu", "EINVAL"]);
        assert_bare(&pod);
        assert_eq!(host.ip("link show dev up0")[0]["ifalias"], forged);
        assert_eq!(host.leases("net").len(), 1);
    }
    host.sh(&format!("ip link set up0 alias '{record}'"));
    host.del(&conf, &pod).ok();
    assert_eq!(state(&host, "up0"), was);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

/// The container has its device until it is moved, and may change it when DEL has looked at it already.
#[test]
fn what_is_changed_while_del_is_at_work_is_undone() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    let mut changed = 0;
    for n in 1..=8 {
        host.add(&conf, &pod).ok();
        let delay = format!("inject=sendto:delay_enter=600000:when={n}");
        let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", &delay];
        let del = Call::new(&host, "DEL", &conf).of(&pod).under(&words);
        let child = del.start();
        std::thread::sleep(Duration::from_millis(300));
        let told = pod
            .sh("ip link set eth0 mtu 1300 address 02:00:00:00:00:77 2>&1 && echo changed || true");
        changed += usize::from(told.contains("changed"));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{n}: {output:?}");
        assert_eq!(state(&host, "up0"), was, "{n}");
        assert_bare(&pod);
    }
    assert!(changed > 2, "{changed}");
}

#[test]
fn modes_are_those_that_it_had() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    let all = "promisc on allmulticast on arp off";
    let none = "promisc off allmulticast off arp on";
    for (before, inside, recorded) in [
        (none, all, " up 1400 "),
        (all, none, " up+pmn 1400 "),
        (all, "up", " up+pmn 1400 "),
        ("promisc off allmulticast on arp on", "promisc on allmulticast off", " up+m 1400 "),
    ] {
        host.sh(&format!("ip link set up0 {before}"));
        let was = state(&host, "up0");
        host.add(&conf, &pod).ok();
        let alias = pod.ip("link show dev eth0")[0]["ifalias"].as_str().unwrap().to_owned();
        assert!(alias.contains(recorded), "{alias}");
        pod.sh(&format!("ip link set eth0 {inside}"));
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "up0"), was, "{before}, {inside}");
    }
}

/// They would stay on top of it, and with them what the container does by them.
#[test]
fn links_on_top_of_the_device_do_not_survive_it() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    pod.sh(
        "ip link add v0 type veth peer name v1; ip link add mv9 link v0 type macvlan mode bridge
            for n in 1 2; do ip link add mv$n link eth0 type macvlan mode bridge; done
            ip link set mv1 up",
    );
    host.del(&conf, &pod).ok();
    let links = pod.ip("link show");
    let mut names: Vec<_> =
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["lo", "mv9", "v0", "v1"], "those of others stay");
    assert_eq!(state(&host, "up0"), was);
}

/// A tun has no Ethernet address, and does not answer ARP.
#[test]
fn a_device_without_ethernet_lives_as_others_do() {
    let host = Host::new();
    host.sh("ip tuntap add mode tun name tun7; ip link set tun7 mtu 1400 up");
    let was = state(&host, "tun7");
    assert_eq!((&was["address"], &was["NOARP"]), (&json!(null), &json!(true)));
    let pod = host.pod("a");
    for version in VERSIONS {
        let conf = conf(&json!({"cniVersion": version, "device": "tun7"}));
        let result = host.add(&conf, &pod).ok();
        if version >= "0.3.0" {
            assert_eq!(result["interfaces"][0].get("mac"), None, "{result:#}");
        }
        assert_given(&pod);
        if version >= "0.4.0" {
            host.check(&conf, &result, &pod).ok();
            pod.sh("ip link set eth0 down; ip link set eth0 name mine");
            host.check(&conf, &result, &pod).fails(999, &["eth0", "vanished"]);
            pod.sh("ip link set mine name eth0");
        }
        host.del(&conf, &pod).ok();
        assert_bare(&pod);
        assert_eq!(state(&host, "tun7"), was, "{version}");
        assert_eq!(host.leases("net"), [] as [&str; 0]);
    }
}

#[test]
fn del_leaves_alone_what_is_not_its_own() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    let mut another = conf.clone();
    another["name"] = json!("another");
    host.add(&conf, &pod).ok();
    host.del(&another, &pod).ok();
    assert_given(&pod);
    host.del(&conf, &pod).ok();
    // One of another plugin's, or nobody's.
    pod.sh("ip link add eth0 type veth peer name other");
    for alias in ["", "plumb:net/a/eth0", "plumb:net/b/eth0", "a b"] {
        pod.sh(&format!("ip link set eth0 alias '{alias}'"));
        host.del(&conf, &pod).ok();
        assert_eq!(pod.ip("link show").as_array().unwrap().len(), 3, "{alias:?}");
    }
}

/// It writes the old name into the alias, and takes the device down.
#[test]
fn what_the_reference_has_given_is_taken_back() {
    let host = Host::new();
    device(&host, "up0");
    let pod = host.pod("a");
    host.sh("ip link set up0 down; ip link set up0 alias up0; ip link set up0 netns a name eth0");
    pod.sh("ip link set eth0 up");
    host.del(&conf(&json!({})), &pod).ok();
    assert_bare(&pod);
    let state = state(&host, "up0");
    assert_eq!((&state["up"], &state["ifalias"]), (&json!(false), &json!(null)), "{state:#}");
    assert_eq!((&state["mtu"], &state["altnames"]), (&json!(1400), &json!(null)), "{state:#}");
}

/// It comes back under a name of the kernel's, which the error tells, and gets its own as soon as it can.
#[test]
fn a_device_whose_name_is_taken_comes_back_under_another() {
    let host = Host::new();
    let conf = conf(&json!({}));
    let words = ["host device \"dev", "which was \"up0\"", "EEXIST"];
    for by_reference in [false, true] {
        device(&host, "up0");
        let mut was = state(&host, "up0");
        let pod = host.pod("a");
        if by_reference {
            host.sh("ip link set up0 down alias up0; ip link set up0 netns a name eth0");
            (was["up"], was["ifalias"]) = (json!(false), json!(null));
        } else {
            host.add(&conf, &pod).ok();
        }
        host.sh("ip link add up0 type veth peer name other; ip link set up0 alias thief");
        for _ in 0..2 {
            host.del(&conf, &pod).fails(999, &words);
            assert_bare(&pod);
            assert_eq!(host.ip("link show dev up0")[0]["ifalias"], "thief");
            let links = host.ip("link show");
            let is_it = |link: &&Value| link["address"] == was["address"];
            let name = links.as_array().unwrap().iter().find(is_it).unwrap()["ifname"].clone();
            let now = state(&host, name.as_str().unwrap());
            assert_eq!((&now["up"], &now["mtu"]), (&was["up"], &was["mtu"]), "it is of use");
        }
        host.gc(&conf, &[]).fails(999, &words);
        host.sh("ip link del up0");
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "up0"), was);
        assert_eq!(host.leases("net"), [] as [&str; 0]);
        host.sh("ip netns del a; ip netns del neighbour; ip link del up0 2>/dev/null || true");
    }
}

/// What the kernel does with a physical device as its namespace ends: it is on the host, down, under the
/// container's name for it or one of the kernel's. Then there is no namespace.
fn let_the_namespace_end(host: &Host, pod: &str, name: &str) {
    host.sh(&format!(
        "ip -n {pod} link set eth0 down; ip -n {pod} link set eth0 netns $$ name {name}
         ip netns del {pod}"
    ));
}

#[test]
fn a_device_that_the_kernel_has_returned_is_found() {
    let host = Host::new();
    device(&host, "up0");
    let (before, was) = (host.snapshot(), state(&host, "up0"));
    let conf = conf(&json!({}));
    for name in ["eth0", "dev3", "up0"] {
        let pod = host.pod("a");
        host.add(&conf, &pod).ok();
        let_the_namespace_end(&host, "a", name);
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "up0"), was, "{name}");
        host.snapshot().assert_same_but_for_rules(&before);
        host.del(&conf, &pod).ok();
    }
    // GC finds it, too, and so does the next ADD: by the same container, or another.
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    let_the_namespace_end(&host, "a", "eth0");
    host.gc(&conf, &[("a", "eth0")]).ok();
    assert_eq!(host.leases("net").len(), 1);
    let mut others = conf.clone();
    others["name"] = json!("others");
    host.gc(&others, &[]).ok();
    assert_eq!(state(&host, "eth0")["ifname"], "eth0", "it is not theirs");
    host.gc(&conf, &[]).ok();
    assert_eq!(state(&host, "up0"), was);
    host.snapshot().assert_same_but_for_rules(&before);

    for next in ["a", "b"] {
        let a = host.pod("a");
        host.add(&conf, &a).ok();
        let_the_namespace_end(&host, "a", "eth0");
        let pod = host.pod(next);
        host.add(&conf, &pod).ok();
        pod.must_reach("10.1.0.200");
        if next == "b" {
            host.del(&conf, &a).ok();
            assert_given(&pod);
        }
        host.del(&conf, &pod).ok();
        assert_eq!(state(&host, "up0"), was, "{next}");
        host.snapshot().assert_same_but_for_rules(&before);
        host.sh(&format!("ip netns del {next}"));
    }
}

/// Its other names it keeps, and one of them may be what the configuration names it by.
#[test]
fn a_device_that_the_kernel_has_returned_is_found_by_its_other_name() {
    let host = Host::new();
    device(&host, "up0");
    host.sh("ip link property add dev up0 altname enp9s0");
    let was = state(&host, "up0");
    let conf = conf(&json!({"device": "enp9s0"}));
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&conf, &a).ok();
    a.sh("ip link property add dev eth0 altname enp1s0");
    let_the_namespace_end(&host, "a", "dev3");
    host.status(&conf).ok();
    // Not by one that the container has given it.
    let by_containers = self::conf(&json!({"device": "enp1s0"}));
    host.add(&by_containers, &b).fails(999, &["cannot find device \"enp1s0\""]);
    host.add(&conf, &b).ok();
    assert_given(&b);
    let names = b.ip("link show dev eth0")[0]["altnames"].clone();
    let names = names.as_array().unwrap();
    assert_eq!((names.len(), &names[0]), (2, &json!("enp9s0")), "{names:?}");
    host.del(&conf, &b).ok();
    assert_eq!(state(&host, "up0"), was);
}

/// The kernel ends a namespace some time after it has gone for all others.
#[test]
fn a_device_that_is_on_its_way_is_waited_for() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let mut conf = conf(&json!({}));
    let pod = host.pod("a");
    conf["prevResult"] = host.add(&conf, &pod).ok();
    host.sh("mkdir /run/dying; touch /run/dying/a; mount --bind /run/netns/a /run/dying/a
             ip netns del a");
    let mut kernel = host.command("sh");
    kernel.args([
        "-euc",
        "sleep 0.3; nsenter --net=/run/dying/a ip link set eth0 down
         nsenter --net=/run/dying/a ip link set eth0 netns $$ name dev3",
    ]);
    let mut kernel = kernel.spawn().unwrap();
    host.del(&conf, &pod).ok();
    assert!(kernel.wait().unwrap().success());
    assert_eq!(state(&host, "up0"), was);
    // What does not come is not waited for without end; the second time there is no result.
    host.add(&conf, &host.pod("b")).ok();
    let b = Call::new(&host, "DEL", &conf).attachment("b", "eth0");
    let began = Instant::now();
    b.run().ok();
    assert!(began.elapsed() < Duration::from_secs(10));
    conf.as_object_mut().unwrap().remove("prevResult");
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let sleeps = ["strace", "-f", "-qq", "-o", path, "-e", "trace=clock_nanosleep,nanosleep"];
    Call::new(&host, "DEL", &conf).attachment("b", "eth0").under(&sleeps).run().ok();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "", "nothing is waited for");
}

// Failures.

#[test]
fn a_late_refusal_undoes_all() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let mut conf = conf(&json!({}));
    conf["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "172.31.0.1"}]);
    let words = ["container interface \"eth0\"", "192.0.2.0/24", "172.31.0.1"];
    fails_without_a_trace(&host, &conf, &host.pod("a"), 999, &words);
    assert_eq!(state(&host, "up0"), was);
}

#[test]
fn neighbours_are_asked_for_ipv6_addresses() {
    let host = Host::new();
    let neighbour = device(&host, "up0");
    neighbour.sh("ip addr add fd01::2/64 dev eth0 nodad");
    let was = state(&host, "up0");
    let conf = conf(&json!({"ipam": dual()}));
    let pod = host.pod("a");
    fails_without_a_trace(&host, &conf, &pod, 999, &["fd01::2", "in use by a neighbour"]);
    assert_eq!(state(&host, "up0"), was);
    host.add(&conf, &pod).ok();
    assert_eq!(pod.addresses("eth0"), ["10.1.0.3/16", "fd01::3/64"]);
    pod.must_reach("fd01::200");
    for name in [
        "ipv6/conf/eth0/ndisc_notify",
        "ipv6/conf/eth0/keep_addr_on_down",
        "ipv4/conf/eth0/arp_notify",
    ] {
        assert_eq!(pod.sysctl(name), "1", "{name}");
    }
}

/// ADD fails at the n-th system call of each kind, for every n: all is undone, or if nothing can be done any
/// more, by DEL.
#[test]
fn an_add_is_undone_whatever_fails() {
    let host = Host::new();
    device(&host, "up0");
    let pod = host.pod("a");
    let conf = conf(&json!({"ipam": dual()}));
    // The lease directory and its index are there.
    host.add(&conf, &pod).ok();
    host.del(&conf, &pod).ok();
    let (before, was) = (host.snapshot(), state(&host, "up0"));
    let call = Call::new(&host, "ADD", &conf).of(&pod);
    let once = CONVERSATIONS.iter().chain(&CONTENTS).map(|syscall| (*syscall, ""));
    let from_then_on = ["sendto", "socket", "setns", "ioctl"].map(|syscall| (syscall, "+"));
    for (syscall, suffix) in once.chain(from_then_on) {
        walk(syscall, |n| {
            let (outcome, reached) = injected(&call, syscall, &format!("{n}{suffix}"));
            eprintln!("{syscall} {n}{suffix}: {}", outcome.stdout);
            if outcome.status.success() {
                host.check(&conf, &outcome.ok(), &pod).ok();
            } else {
                outcome.error();
                let can_undo =
                    suffix.is_empty() && !outcome.stdout.contains("cannot return to the host");
                if can_undo {
                    assert_eq!(state(&host, "up0"), was);
                    host.snapshot().assert_same_but_for_rules(&before);
                    assert_bare(&pod);
                }
            }
            host.del(&conf, &pod).ok();
            assert_eq!(state(&host, "up0"), was);
            host.snapshot().assert_same_but_for_rules(&before);
            assert_bare(&pod);
            reached
        });
    }
}

/// DEL fails at the n-th system call of each kind: an address keeps its lease while the container has the
/// device, and the next DEL leaves nothing.
#[test]
fn a_del_that_fails_is_made_up_for_by_the_next() {
    let host = Host::new();
    device(&host, "up0");
    let pod = host.pod("a");
    let conf = conf(&json!({}));
    let (before, was) = (host.snapshot(), state(&host, "up0"));
    let call = Call::new(&host, "DEL", &conf).of(&pod);
    for syscall in crate::child::FAILURES_OF_DEL {
        walk(syscall, |n| {
            host.add(&conf, &pod).ok();
            let (outcome, reached) = injected(&call, syscall, n);
            eprintln!("{syscall} {n}: {}", outcome.stdout);
            let has_link = pod.ip("link show").as_array().unwrap().len() > 1;
            if outcome.status.success() {
                assert!(!has_link, "{syscall} {n}: told that all is gone");
                assert_eq!(state(&host, "up0"), was);
                assert_eq!(host.leases("net"), [] as [&str; 0]);
            } else {
                outcome.error();
                let leases = host.leases("net").len();
                assert!(!has_link || leases == 1, "{syscall} {n}: the lease has gone first");
            }
            host.del(&conf, &pod).ok();
            assert_eq!(state(&host, "up0"), was);
            host.snapshot().assert_same_but_for_rules(&before);
            assert_bare(&pod);
            reached
        });
    }
}

/// Runs a call that is killed as it enters its `n`-th system call of this name. Tells also whether it was.
fn killed(call: &Call<'_>, syscall: &str, n: usize) -> (Outcome, bool) {
    let inject = format!("inject={syscall}:signal=KILL:when={n}");
    let trace = format!("trace={syscall}");
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let outcome = call.clone().under(&words).run();
    let is_killed = outcome.status.code().is_none();
    (outcome, is_killed)
}

/// Whatever step ADD or DEL is killed before, the device comes back; also if the namespace has gone since.
#[test]
fn a_call_that_is_killed_is_made_up_for_by_del() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let (before, was) = (host.snapshot(), state(&host, "up0"));
    for (command, ends) in [("ADD", false), ("ADD", true), ("DEL", false)] {
        for syscall in ["sendto", "recvmsg", "setns", "getsockopt"] {
            for n in 1.. {
                let pod = host.pod("a");
                if command == "DEL" {
                    host.add(&conf, &pod).ok();
                }
                let call = Call::new(&host, command, &conf).of(&pod);
                let (outcome, is_killed) = killed(&call, syscall, n);
                if !is_killed {
                    outcome.ok();
                }
                if ends {
                    host.sh("for name in eth0 up0; do
                                 ip -n a link set $name netns $$ name eth0 2>/dev/null || true
                             done");
                    host.sh("ip netns del a");
                }
                host.del(&conf, &pod).ok();
                assert_eq!(state(&host, "up0"), was, "{command} killed at {syscall} {n}");
                host.snapshot().assert_same_but_for_rules(&before);
                if !ends {
                    assert_bare(&pod);
                    host.sh("ip netns del a");
                }
                if !is_killed {
                    break;
                }
                assert!(n < 50);
            }
        }
    }
}

/// Two containers want the same device at the same moment.
#[test]
fn one_of_two_gets_the_device() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let was = state(&host, "up0");
    let (a, b) = (host.pod("a"), host.pod("b"));
    for _ in 0..10 {
        let calls = [&a, &b].map(|pod| Call::new(&host, "ADD", &conf).of(pod));
        let children = calls.each_ref().map(Call::start);
        let outcomes = children.map(|child| child.wait_with_output().unwrap());
        let won = outcomes.each_ref().map(|outcome| outcome.status.success());
        assert_ne!(won[0], won[1], "{outcomes:#?}");
        let (winner, loser) = if won[0] { (&a, &b) } else { (&b, &a) };
        assert_given(winner);
        assert_bare(loser);
        assert_eq!(host.leases("net").len(), 1);
        let names = winner.ip("link show dev eth0")[0]["altnames"].clone();
        assert_eq!(names.as_array().map(Vec::len), Some(1), "{names}");
        // What the runtime does for the one that failed takes nothing from the other.
        host.del(&conf, loser).ok();
        assert_given(winner);
        host.del(&conf, winner).ok();
        assert_eq!(state(&host, "up0"), was);
        host.del(&conf, loser).ok();
        assert_eq!(state(&host, "up0"), was);
    }
}

/// The name by which it would be found again is another link's.
#[test]
fn a_device_that_could_not_be_found_again_is_not_given() {
    let host = Host::new();
    device(&host, "up0");
    let was = state(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    let ours = pod.ip("link show dev eth0")[0]["altnames"][0].as_str().unwrap().to_owned();
    host.del(&conf, &pod).ok();
    host.sh(&format!("ip link add {ours} type veth peer name other"));
    let words = ["up0", &ours, "EEXIST"];
    fails_without_a_trace(&host, &conf, &pod, 999, &words);
    assert_eq!(state(&host, "up0"), was);
}

// CHECK, STATUS, GC.

#[test]
fn check_names_what_has_gone_astray() {
    let conf = conf(&json!({"ipam": with_route()}));
    let host = Host::new();
    let cases: [(&str, &[&str]); 8] = [
        ("ip link set eth0 down; ip link set eth0 name mine", &["eth0", "vanished"]),
        ("ip addr del IP4/16 dev eth0", &["eth0", "IP4/16", "missing"]),
        ("ip route del 192.0.2.0/24", &["eth0", "route 192.0.2.0/24", "missing"]),
        ("ip link set eth0 address 02:00:00:00:00:66", &["eth0", "02:00:00:00:00:66, not "]),
        ("ip link set eth0 mtu 1300", &["eth0", "MTU of 1300, not 1400"]),
        ("ip link set eth0 alias ''", &["eth0", "is not the device that ADD gave"]),
        ("ip link set eth0 alias plumb:net/b/eth0", &["not the device", "plumb:net/b/eth0"]),
        ("HOST: rm /var/lib/cni/networks/net/IP4", &["holds no address"]),
    ];
    for (number, (script, words)) in cases.iter().enumerate() {
        host.sh("ip link del up0 2>/dev/null || true; ip netns del neighbour 2>/dev/null || true");
        device(&host, "up0");
        let pod = host.pod(&format!("pod{number}"));
        let result = host.add(&conf, &pod).ok();
        host.check(&conf, &result, &pod).ok();
        let ip = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
        match script.strip_prefix("HOST: ") {
            Some(script) => host.sh(&script.replace("IP4", ip)),
            None => pod.sh(&script.replace("IP4", ip)),
        };
        let words: Vec<_> = words.iter().map(|word| word.replace("IP4", ip)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        host.check(&conf, &result, &pod).fails(999, &words);
        host.del(&conf, &pod).ok();
    }
    device_is_down_without_addresses();
}

fn device_is_down_without_addresses() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({"ipam": null}));
    let pod = host.pod("a");
    let result = host.add(&conf, &pod).ok();
    pod.sh("ip link set eth0 down");
    host.check(&conf, &result, &pod).fails(999, &["eth0", "is down"]);
    Call::new(&host, "CHECK", &conf).of(&pod).run().fails(7, &["prevResult"]);
}

#[test]
fn status_tells_of_the_device() {
    let host = Host::new();
    let conf = conf(&json!({}));
    host.status(&conf).fails(50, &["device \"up0\"", "on the host", "may be in a container"]);
    device(&host, "up0");
    let before = host.snapshot();
    assert_eq!(host.status(&conf).stdout, "");
    host.status(&conf).ok();
    assert_eq!(host.snapshot(), before);
    // Which one it is to be the runtime says with ADD.
    let mut of_runtime = conf.clone();
    of_runtime.as_object_mut().unwrap().remove("device");
    host.status(&of_runtime).ok();
    let pod = host.pod("a");
    host.add(&conf, &pod).ok();
    host.status(&conf).fails(50, &["device \"up0\"", "may be in a container"]);
    host.del(&conf, &pod).ok();
    let mut full = conf;
    full["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/30"}]]});
    host.add(&full, &pod).ok();
    full.as_object_mut().unwrap().remove("device");
    host.status(&full).fails(50, &["no IP addresses available"]);
}

#[test]
fn gc_keeps_the_valid() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let pod = host.pod("a");
    let result = host.add(&conf, &pod).ok();
    host.gc(&conf, &[("a", "eth0")]).ok();
    assert_eq!(host.leases("net"), ["10.1.0.2"]);
    host.check(&conf, &result, &pod).ok();
    // A device in a container can't be seen from the host.
    host.gc(&conf, &[]).ok();
    assert_given(&pod);
    host.del(&conf, &pod).ok();
    Call::new(&host, "GC", &conf).run().fails(7, &["cni.dev/valid-attachments"]);
}

/// What keeps one attachment from going is no reason to keep what is left of others.
#[test]
fn gc_goes_on_behind_what_is_stuck() {
    let host = Host::new();
    device(&host, "up0");
    let conf = conf(&json!({}));
    let a = host.pod("a");
    host.add(&conf, &a).ok();
    let_the_namespace_end(&host, "a", "dev3");
    host.sh("ip link add up0 type veth peer name other");
    let leased = conf_of_leases(&conf);
    for (container, address) in [("dead", "10.1.0.3"), ("alive", "10.1.0.4")] {
        let add = Call::new(&host, "ADD", &leased).attachment(container, "eth0").run().ok();
        assert_eq!(add["ips"][0]["address"], format!("{address}/16"));
    }
    let valid = [("alive", "eth0")];
    host.gc(&conf, &valid).fails(999, &["host device \"dev3\"", "which was \"up0\""]);
    assert_eq!(host.leases("net"), ["10.1.0.2", "10.1.0.4"]);
    // Another program for addresses is told what to keep.
    let mut foreign = conf.clone();
    foreign["ipam"] = json!({"type": "keeper"});
    host.write("/run/cni/bin/keeper", "#!/bin/sh\ncat > /run/kept\n");
    host.sh("chmod 755 /run/cni/bin/keeper");
    host.gc(&foreign, &valid).fails(999, &["which was \"up0\""]);
    let kept: Value = serde_json::from_str(&host.read("/run/kept")).unwrap();
    let expected = json!([
        {"containerID": "alive", "ifname": "eth0"}, {"containerID": "a", "ifname": "eth0"},
    ]);
    assert_eq!(kept["cni.dev/valid-attachments"], expected);
    host.sh("ip link del up0");
    host.gc(&conf, &valid).ok();
    assert_eq!(state(&host, "up0")["ifalias"], "uplink  to rack 7 ");
    assert_eq!(host.leases("net"), ["10.1.0.4"]);
}

/// The same network's addresses by themselves.
fn conf_of_leases(conf: &Value) -> Value {
    let mut conf = conf.clone();
    conf["type"] = json!("host-local");
    conf
}

/// A container can write what it likes on its device.
#[test]
fn gc_deletes_no_device_that_only_says_it_is_ours() {
    let host = Host::new();
    host.sh("ip tuntap add mode tap name tap7; ip link set tap7 alias plumb:net/a/eth0");
    let conf = conf(&json!({}));
    let before = state(&host, "tap7");
    Call::new(&host, "ADD", &conf_of_leases(&conf)).attachment("dead", "eth0").run().ok();
    let words = ["\"tap7\"", "plumb:net/a/eth0", "tun", "left alone"];
    host.gc(&conf, &[]).fails(999, &words);
    assert_eq!(state(&host, "tap7"), before);
    assert_eq!(host.leases("net"), [] as [&str; 0]);
}

// Real devices: those of the guest, which the kernel returns to the initial namespace.

/// The guest's PCI devices: address, and the name of the link, of one that is a virtio device and one that is
/// not.
fn pci_devices(host: &Host) -> [(String, String); 2] {
    let found = |pattern: &str| {
        let path = host.sh(&format!("ls -d /sys/bus/pci/devices/{pattern}/*"));
        let parts: Vec<_> = path.trim().split('/').map(str::to_owned).collect();
        (parts[5].clone(), parts.last().unwrap().clone())
    };
    [found("*/virtio*/net"), found("*/net")]
}

fn by_pci(address: &str, keys: &Value) -> Value {
    with(conf(&json!({"device": null, "pciBusID": address})), keys)
}

#[test]
#[ignore = "needs pci"]
fn pci_devices_come_back_wherever_they_were() {
    let host = Host::of_guest();
    let [(virtio, first), (e1000, second)] = pci_devices(&host);
    host.sh(&format!(
        "ip link set {first} up; ip link set {second} mtu 1400 alias 'the other'; ip link set {second} up"
    ));
    let was = || [state(&host, &first), state(&host, &second)];
    let before = was();
    assert_eq!((&before[0]["up"], &before[1]["up"]), (&json!(true), &json!(true)));
    let confs =
        [by_pci(&virtio, &json!({"ipam": dual()})), by_pci(&e1000, &json!({"ipam": dual()}))];

    // Real frames go from one to the other.
    let pods = [host.pod("a"), host.pod("b")];
    for ((conf, pod), address) in confs.iter().zip(&pods).zip([&virtio, &e1000]) {
        host.status(conf).ok();
        let result = host.add(conf, pod).ok();
        assert_eq!(result["interfaces"][0]["pciID"], **address);
        assert_given(pod);
        host.check(conf, &result, pod).ok();
    }
    let addresses = pods[1].addresses("eth0");
    for address in &addresses {
        pods[0].must_reach(address.split('/').next().unwrap());
    }
    for (conf, pod) in confs.iter().zip(&pods) {
        host.del(conf, pod).ok();
        assert_bare(pod);
    }
    assert_eq!(was(), before);

    // By other names; the kernel tells the address.
    let path = host.sh(&format!("readlink -f /sys/class/net/{second}/device"));
    for keys in [
        json!({"pciBusID": null, "device": second}),
        json!({"pciBusID": null, "kernelpath": path.trim()}),
        json!({"runtimeConfig": {"deviceID": e1000}}),
    ] {
        let conf = by_pci(&virtio, &keys);
        let result = host.add(&conf, &pods[1]).ok();
        assert_eq!(result["interfaces"][0]["pciID"], *e1000, "{keys}");
        host.del(&conf, &pods[1]).ok();
        assert_eq!(was(), before);
    }

    // The namespace goes with a device in it. DEL comes at once, or later, or is left to GC, or to an ADD.
    for case in ["at once", "later", "GC", "ADD"] {
        for (at, conf) in confs.iter().enumerate() {
            let pod = host.pod("dying");
            let mut with_result = conf.clone();
            with_result["prevResult"] = host.add(conf, &pod).ok();
            host.sh("ip netns del dying");
            if case != "at once" {
                let deadline = Instant::now() + Duration::from_secs(20);
                while host.ip("link show").as_array().unwrap().len() < 3 {
                    assert!(Instant::now() < deadline, "the kernel returns it");
                    std::thread::sleep(Duration::from_millis(20));
                }
                let links = host.ip("link show").to_string();
                assert!(links.contains("plumb:net/dying/eth0 was "), "{links}");
            }
            match case {
                "at once" => drop(host.del(&with_result, &pod).ok()),
                "later" => drop(host.del(conf, &pod).ok()),
                "GC" => drop(host.gc(conf, &[]).ok()),
                _ => {
                    let by_name = by_pci(
                        &virtio,
                        &json!({
                            "pciBusID": null, "device": before[at]["ifname"], "ipam": null,
                        }),
                    );
                    host.add(&by_name, &pods[0]).ok();
                    assert_given(&pods[0]);
                    host.del(&by_name, &pods[0]).ok();
                    host.del(conf, &pod).ok();
                }
            }
            assert_eq!(was(), before, "{case}");
            assert_eq!(host.leases("net"), [] as [&str; 0], "{case}");
        }
    }

    // Bound to a driver for programs in user space it has no link.
    let modprobe =
        std::process::Command::new("/run/guest/modprobe").arg("uio_pci_generic").status();
    assert!(modprobe.unwrap().success());
    host.sh(&format!(
        "cd /sys/bus/pci; echo uio_pci_generic > devices/{e1000}/driver_override
         echo {e1000} > drivers/e1000/unbind; echo {e1000} > drivers/uio_pci_generic/bind"
    ));
    let result = host.add(&confs[1], &pods[1]).ok();
    let expected = json!([{"name": "eth0", "sandbox": "/run/netns/b", "pciID": e1000}]);
    assert_eq!(result["interfaces"], expected);
    assert_eq!(host.leases("net").len(), 2);
    assert_bare(&pods[1]);
    host.check(&confs[1], &result, &pods[1]).ok();
    host.sh(&format!("echo {e1000} > /sys/bus/pci/drivers/uio_pci_generic/unbind"));
    host.del(&confs[1], &pods[1]).ok();
    assert_eq!(host.leases("net"), [] as [&str; 0]);
    let words = ["cannot find", "PCI device", e1000.as_str()];
    host.add(&confs[1], &pods[1]).fails(999, &words);
}
