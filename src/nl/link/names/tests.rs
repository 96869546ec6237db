use std::os::fd::AsFd;

use super::*;
use crate::nl::testing::{hex, sent};

/// `ip link set dev up0 netns pod name eth0`
///
/// ip(8) had the index of `up0` from a question before, and 4 for the namespace.
#[test]
fn a_link_is_moved_and_renamed_in_one_message() {
    let netns = std::io::stderr();
    let request = Move { link: 3, netns: netns.as_fd(), name: "eth0" };
    let expected = hex("
        34000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 03000000 00000000 00000000    # struct ifinfomsg
        0800 1c00 02000000                     # IFLA_NET_NS_FD 2
        0900 0300 65746830 00000000            # IFLA_IFNAME eth0
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `ip link set dev eth0 name ens3`
#[test]
fn a_link_is_renamed() {
    let rename = Rename { link: 3, name: "ens3" };
    let expected = hex("
        2c000000 1000 0500 01000000 00000000   # RTM_NEWLINK, REQUEST | ACK
        00000000 03000000 00000000 00000000    # struct ifinfomsg
        0900 0300 656e7333 00000000            # IFLA_IFNAME ens3
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&rename])), expected);
    assert_eq!(sent(|kernel| kernel.execute(&[&RenameIfFree(rename)])), expected);
    assert!(RenameIfFree(rename).tolerates(Errno::EEXIST) && !rename.tolerates(Errno::EEXIST));
}

/// `ip link property add dev up0 altname plumbx`, and `del`, by index as ip(8) has it from a question before
#[test]
fn a_link_is_given_another_name() {
    let target = Target::Index(3);
    let add = AddAltName { target, name: "plumbx" };
    let expected = hex("
        30000000 6c00 0506 01000000 00000000   # RTM_NEWLINKPROP, REQUEST | ACK | EXCL | CREATE
        00000000 03000000 00000000 00000000    # struct ifinfomsg
        1000 3480                              # IFLA_PROP_LIST
          0b00 3500 706c756d 62780000          # IFLA_ALT_IFNAME plumbx
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&add])), expected);
    let delete = DeleteAltName { target, name: "plumbx" };
    let expected = hex("
        30000000 6d00 0500 01000000 00000000   # RTM_DELLINKPROP, REQUEST | ACK
        00000000 03000000 00000000 00000000    # struct ifinfomsg
        1000 3480                              # IFLA_PROP_LIST
          0b00 3500 706c756d 62780000          # IFLA_ALT_IFNAME plumbx
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&delete])), expected);
}

#[test]
fn purposes_name_the_link_and_what_is_done_to_it() {
    let netns = std::io::stderr();
    let target = Target::Name("ens3");
    let rename = Rename { link: 3, name: "ens3" };
    let purposes: [(&dyn Request, &str); 5] = [
        (&rename, r#"rename link 3 to "ens3""#),
        (&RenameIfFree(rename), r#"rename link 3 to "ens3""#),
        (
            &Move { link: 3, netns: netns.as_fd(), name: "eth0" },
            r#"move link 3 into another network namespace as "eth0""#,
        ),
        (&AddAltName { target, name: "x" }, r#"give link "ens3" the other name "x""#),
        (&DeleteAltName { target, name: "x" }, r#"take the other name "x" from link "ens3""#),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
}
