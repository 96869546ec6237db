use proptest::prelude::*;

use super::*;
use crate::nl::testing::{Answer, Bytes, Refusal, answered, answering, done, hex, message, sent};
use crate::nl::wire::{Flags, Messages};

/// `bridge vlan set dev v0 vid 10-20 state forwarding`
///
/// bridge(8) has no other command that adds VLANs by this message. It says that only options are to be set
/// (`BRIDGE_VLAN_INFO_ONLY_OPTS`, 0x40) and which; all else is ours.
#[test]
fn a_port_is_added_to_vlans() {
    let ranges = [
        Range::one(100, Treatment::NATIVE),
        Range { first: 10, last: 20, treatment: Treatment::TAGGED },
    ];
    let request = Add { link: 4, ranges: &ranges };
    let expected = hex("
        38000000 7000 0500 01000000 00000000   # RTM_NEWVLAN, REQUEST | ACK
        07000000 04000000                      # struct br_vlan_msg
        0c00 0180                              # BRIDGE_VLANDB_ENTRY
          0800 0100 06006400                   # BRIDGE_VLANDB_ENTRY_INFO PVID | UNTAGGED, 100
        1400 0180                              # BRIDGE_VLANDB_ENTRY
          0800 0100 00000a00                   # BRIDGE_VLANDB_ENTRY_INFO 10
          0600 0200 14000000                   # BRIDGE_VLANDB_ENTRY_RANGE 20
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

#[test]
fn a_port_is_removed_from_a_vlan() {
    let expected = hex("
        24000000 7100 0500 01000000 00000000   # RTM_DELVLAN, REQUEST | ACK
        07000000 04000000                      # struct br_vlan_msg
        0c00 0180                              # BRIDGE_VLANDB_ENTRY
          0800 0100 00000100                   # BRIDGE_VLANDB_ENTRY_INFO 1
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&Remove { link: 4, vlan: 1 }])), expected);
}

/// `bridge -d vlan show`, which adds an attribute that asks for nothing special.
#[test]
fn vlans_are_asked_for_of_one_link_or_all() {
    let one = hex("
        18000000 7200 0103 01000000 00000000   # RTM_GETVLAN, REQUEST | DUMP
        07000000 04000000                      # struct br_vlan_msg
        ");
    let all = hex("
        18000000 7200 0103 01000000 00000000   # RTM_GETVLAN, REQUEST | DUMP
        07000000 00000000                      # struct br_vlan_msg
        ");
    let (kernel, record) = answering(vec![vec![]]);
    drop(read(kernel, 4));
    assert_eq!(*record.borrow(), [one]);
    assert_eq!(sent(list), all);
}

fn ranges() -> [Range; 3] {
    let untagged = Treatment { pvid: false, untagged: true };
    [
        Range::one(1, untagged),
        Range::one(7, Treatment::NATIVE),
        Range { first: 10, last: 4094, treatment: Treatment::TAGGED },
    ]
}

fn member(link: u32, ranges: &[Range]) -> Bytes {
    Bytes(message(RTM_NEWVLAN, Flags::from_bits_retain(2), 1, |out| Add { link, ranges }.body(out)))
}

/// A port's VLANs may come in several messages. A kernel that knew no filter would tell of other links.
#[test]
fn vlans_of_a_link_are_read() {
    let [first, second, third] = ranges();
    let end = Bytes(done(1, 0));
    let answer = [member(4, &[first, second]), member(5, &[first]), member(4, &[third]), end];
    assert_eq!(of_link_4(&answer), Ok(ranges().to_vec()));
    let all = answered(&answer, list).unwrap();
    let links: Vec<_> = all.iter().map(|member| (member.link, member.ranges.len())).collect();
    assert_eq!(links, [(4, 2), (5, 1), (4, 1)]);
    assert_eq!(of_link_4(&[Bytes(done(1, 0))]), Ok(vec![]));
}

/// What is read of link 4 from these datagrams.
fn of_link_4(datagrams: &[Bytes]) -> Result<Vec<Range>, Error> {
    let answer = datagrams.iter().map(|bytes| Answer::Datagram(bytes.0.clone())).collect();
    read(answering(vec![answer]).0, 4)
}

/// Linux 5.6 to 5.17 come to no end.
#[test]
fn vlans_of_a_link_are_read_until_they_come_again() {
    let [first, second, third] = ranges();
    let round = |messages: &[&[Range]]| {
        let messages: Vec<_> = messages.iter().map(|ranges| member(4, ranges)).collect();
        of_link_4(&[messages.clone(), messages.clone(), messages].concat())
    };
    assert_eq!(round(&[&ranges()]), Ok(ranges().to_vec()));
    assert_eq!(round(&[&[first, second], &[third]]), Ok(ranges().to_vec()));
    assert_eq!(round(&[&[second]]), Ok(vec![second]));
    assert_eq!(round(&[&[third]]), Ok(vec![third]));
    // Of a link in none there is nothing but the header.
    assert_eq!(round(&[&[]]), Ok(vec![]));
}

#[test]
fn a_kernel_without_filtering_is_told_from_one_with() {
    let unsupported = Refusal { sequence: 1, errno: libc::EOPNOTSUPP, ..Refusal::default() };
    let error = answered(&[Bytes(unsupported.bytes())], probe).unwrap_err();
    assert_eq!(error.errno, Errno::EOPNOTSUPP);
    // A kernel with it looks for the link.
    assert_eq!(answered(&[Bytes(done(1, libc::ENODEV))], probe), Ok(()));
}

#[test]
fn a_malformed_answer_is_an_error() {
    let read = |bytes: Vec<u8>| {
        let decoded = List(None).decode(&Messages::new(&bytes).next().unwrap().unwrap());
        decoded.map(|member| member.ranges)
    };
    let of_other_kind = message(RTM_DELVLAN, Flags::empty(), 1, |out| header(out, 4));
    assert_eq!(read(of_other_kind), Err(Malformed("expected VLANs")));
    let short = message(RTM_NEWVLAN, Flags::empty(), 1, |out| out.raw(&[0; 4]));
    assert_eq!(read(short), Err(Malformed("message without family header")));
    let nameless = message(RTM_NEWVLAN, Flags::empty(), 1, |out| {
        header(out, 4);
        out.nest(BRIDGE_VLANDB_ENTRY | NESTED, |out| out.put(BRIDGE_VLANDB_ENTRY_RANGE, &7_u16));
    });
    assert_eq!(read(nameless), Err(Malformed("VLAN without number")));
}

#[test]
fn purposes_name_the_port_and_the_vlans() {
    let [first, _, third] = ranges();
    let purposes: [(&dyn Request, &str); 5] = [
        (&Add { link: 4, ranges: &[first] }, "add bridge port 4 to VLAN 1"),
        (&Add { link: 4, ranges: &[third, first] }, "add bridge port 4 to VLAN 10-4094, …"),
        (&Remove { link: 4, vlan: 1 }, "remove bridge port 4 from VLAN 1"),
        (&List(Some(4)), "list bridge VLANs of link 4"),
        (&List(None), "list bridge VLANs"),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
}

/// A refusal repeats the request, and is received in one go.
#[test]
fn the_longest_request_is_shorter_than_a_buffer() {
    let ranges = [Range { first: 1, last: 2, treatment: Treatment::TAGGED }; AT_ONCE];
    let request = sent(|kernel| kernel.execute(&[&Add { link: 4, ranges: &ranges }]));
    assert!(request.0.len() < 3000, "{}", request.0.len());
}

proptest! {
    #[test]
    fn vlans_as_added_are_read_back(
        link: u32,
        all in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>()), 0..20),
    ) {
        let range = |(first, last, pvid, untagged)| Range { first, last, treatment: Treatment { pvid, untagged } };
        let ranges: Vec<_> = all.into_iter().map(range).collect();
        let request = sent(|kernel| kernel.execute(&[&Add { link, ranges: &ranges }]));
        let read = List(None).decode(&Messages::new(&request.0).next().unwrap().unwrap());
        prop_assert_eq!(read, Ok(Member { link, ranges }));
    }

    #[test]
    fn any_answer_is_survived(bytes: Vec<u8>) {
        let bytes = message(RTM_NEWVLAN, Flags::empty(), 1, |out| out.raw(&bytes));
        let _ = List(None).decode(&Messages::new(&bytes).next().unwrap().unwrap());
    }
}
