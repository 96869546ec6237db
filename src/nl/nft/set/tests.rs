use proptest::prelude::*;

use super::*;
use crate::nl::nft::Family;
use crate::nl::testing::{Bytes, Refusal, answered, hex, message, sent};
use crate::nl::wire::Messages;

const INET: Table<'_> = Table { family: Family::Inet, name: "plumb" };
const BRIDGE: Table<'_> = Table { family: Family::Bridge, name: "plumb" };
const PAIRS: Set<'_> = Set { table: INET, name: "m4" };
const SENDERS: Set<'_> = Set { table: BRIDGE, name: "spoof" };
/// `10.1.0.2 . 10.1.0.0`
const PAIR: &[u8] = &[10, 1, 0, 2, 10, 1, 0, 0];
/// `"veth1234" . 02:00:5e:10:00:03`, each padded to 4 bytes.
const SENDER: &[u8] = b"veth1234\0\0\0\0\0\0\0\0\x02\x00\x5e\x10\x00\x03\0\0";

fn create(table: Table<'_>, name: &str, key: &[Field]) -> Bytes {
    sent(|kernel| kernel.execute(&[&New { table, name, key }]))
}

/// `nft create set inet plumb m5 '{ type ipv4_addr; }'`
///
/// nft(8) also leaves itself a note on the key's byte order and type (`NFTA_SET_USERDATA`), without
/// which it shows the set all the same; the set's number is of its own counting. nft(8) asks for no
/// acknowledgement.
#[test]
fn a_set_of_one_field_is_created() {
    let expected = hex("
        48000000 090a 0506 01000000 00000000   # NFT_MSG_NEWSET, REQUEST | ACK | EXCL | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
        0700 0200 6d350000                     # NFTA_SET_NAME m5
        0800 0300 00000000                     # NFTA_SET_FLAGS
        0800 0400 00000007                     # NFTA_SET_KEY_TYPE
        0800 0500 00000004                     # NFTA_SET_KEY_LEN
        0800 0a00 00000001                     # NFTA_SET_ID
        ");
    assert_eq!(create(INET, "m5", &[Field::Ipv4]), expected);
}

/// `nft create set inet plumb single '{ type ether_addr; }'`
///
/// nft(8) also leaves itself a note on the key's byte order and type (`NFTA_SET_USERDATA`), without
/// which it shows the set all the same; the set's number is of its own counting. nft(8) asks for no
/// acknowledgement.
#[test]
fn a_single_field_is_not_padded() {
    let expected = hex("
        4c000000 090a 0506 01000000 00000000   # NFT_MSG_NEWSET, REQUEST | ACK | EXCL | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
        0b00 0200 73696e67 6c650000            # NFTA_SET_NAME single
        0800 0300 00000000                     # NFTA_SET_FLAGS
        0800 0400 00000009                     # NFTA_SET_KEY_TYPE
        0800 0500 00000006                     # NFTA_SET_KEY_LEN
        0800 0a00 00000001                     # NFTA_SET_ID
        ");
    assert_eq!(create(INET, "single", &[Field::Ether]), expected);
}

/// `nft create set bridge plumb spoof '{ type ifname . ether_addr; }'`
///
/// nft(8) also leaves itself a note on the key's byte order and type (`NFTA_SET_USERDATA`), without
/// which it shows the set all the same; the set's number is of its own counting. nft(8) asks for no
/// acknowledgement.
#[test]
fn the_fields_of_a_key_are_padded() {
    let expected = hex("
        4c000000 090a 0506 01000000 00000000   # NFT_MSG_NEWSET, REQUEST | ACK | EXCL | CREATE
        07000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
        0a00 0200 73706f6f 66000000            # NFTA_SET_NAME spoof
        0800 0300 00000000                     # NFTA_SET_FLAGS
        0800 0400 00000a49                     # NFTA_SET_KEY_TYPE
        0800 0500 00000018                     # NFTA_SET_KEY_LEN
        0800 0a00 00000001                     # NFTA_SET_ID
        ");
    assert_eq!(create(BRIDGE, "spoof", &[Field::Ifname, Field::Ether]), expected);
}

/// `nft create set inet plumb masq4_16 '{ type ipv4_addr . ipv6_addr . ether_addr . ifname; }'`
///
/// nft(8) also leaves itself a note on the key's byte order and type (`NFTA_SET_USERDATA`), without
/// which it shows the set all the same; the set's number is of its own counting. nft(8) asks for no
/// acknowledgement.
#[test]
fn a_set_of_all_fields_is_created() {
    let key = [Field::Ipv4, Field::Ipv6, Field::Ether, Field::Ifname];
    let expected = hex("
        50000000 090a 0506 01000000 00000000   # NFT_MSG_NEWSET, REQUEST | ACK | EXCL | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
        0d00 0200 6d617371 345f3136 00000000   # NFTA_SET_NAME masq4_16
        0800 0300 00000000                     # NFTA_SET_FLAGS
        0800 0400 001c8269                     # NFTA_SET_KEY_TYPE
        0800 0500 0000002c                     # NFTA_SET_KEY_LEN
        0800 0a00 00000001                     # NFTA_SET_ID
        ");
    assert_eq!(create(INET, "masq4_16", &key), expected);
}

/// `nft create element inet plumb m4 '{ 10.1.0.2 . 10.1.0.0 comment "abc eth0" }'`
///
/// nft(8) also gives the number of the set within the transaction (`…_SET_ID`), which only a set made
/// in the same transaction needs. nft(8) asks for no acknowledgement.
#[test]
fn an_element_is_added_with_its_comment() {
    let request = AddElement { set: PAIRS, key: PAIR, comment: "abc eth0" };
    let expected = hex("
        50000000 0c0a 0506 01000000 00000000   # NFT_MSG_NEWSETELEM, REQUEST | ACK | EXCL | CREATE
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
        0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
        2800 0380                              # NFTA_SET_ELEM_LIST_ELEMENTS
          2400 0180                            # NFTA_LIST_ELEM
            1000 0180                          # NFTA_SET_ELEM_KEY
              0c00 0100 0a010002 0a010000      # NFTA_DATA_VALUE
            0f00 0600 00096162 63206574 68300000 # NFTA_SET_ELEM_USERDATA
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft create element bridge plumb spoof '{ "veth1234" . 02:00:5e:10:00:03 comment "abc eth0" }'`
///
/// nft(8) also gives the number of the set within the transaction (`…_SET_ID`), which only a set made
/// in the same transaction needs. nft(8) asks for no acknowledgement.
#[test]
fn the_fields_of_an_elements_key_are_padded() {
    let request = AddElement { set: SENDERS, key: SENDER, comment: "abc eth0" };
    let expected = hex("
        64000000 0c0a 0506 01000000 00000000   # NFT_MSG_NEWSETELEM, REQUEST | ACK | EXCL | CREATE
        07000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
        0a00 0200 73706f6f 66000000            # NFTA_SET_ELEM_LIST_SET spoof
        3800 0380                              # NFTA_SET_ELEM_LIST_ELEMENTS
          3400 0180                            # NFTA_LIST_ELEM
            2000 0180                          # NFTA_SET_ELEM_KEY
              1c00 0100 76657468 31323334 00000000 00000000 # NFTA_DATA_VALUE
                        02005e10 00030000
            0f00 0600 00096162 63206574 68300000 # NFTA_SET_ELEM_USERDATA
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft delete element inet plumb m4 '{ 10.1.0.2 . 10.1.0.0 }'`
///
/// nft(8) asks for no acknowledgement.
#[test]
fn an_element_is_deleted_by_its_key() {
    let request = DeleteElement { set: PAIRS, key: PAIR };
    let expected = hex("
        40000000 0e0a 0500 01000000 00000000   # NFT_MSG_DELSETELEM, REQUEST | ACK
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
        0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
        1800 0380                              # NFTA_SET_ELEM_LIST_ELEMENTS
          1400 0180                            # NFTA_LIST_ELEM
            1000 0180                          # NFTA_SET_ELEM_KEY
              0c00 0100 0a010002 0a010000      # NFTA_DATA_VALUE
        ");
    assert_eq!(sent(|kernel| kernel.execute(&[&request])), expected);
}

/// `nft get element inet plumb m4 '{ 10.1.0.2 . 10.1.0.0 }'`
///
/// nft(8) asks for an acknowledgement behind the answer, and writes the set before the table.
#[test]
fn an_element_is_asked_for_by_its_key() {
    let expected = hex("
        40000000 0d0a 0100 01000000 00000000   # NFT_MSG_GETSETELEM, REQUEST
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
        0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
        1800 0380                              # NFTA_SET_ELEM_LIST_ELEMENTS
          1400 0180                            # NFTA_LIST_ELEM
            1000 0180                          # NFTA_SET_ELEM_KEY
              0c00 0100 0a010002 0a010000      # NFTA_DATA_VALUE
        ");
    assert_eq!(sent(|kernel| element(kernel, PAIRS, PAIR)), expected);
}

/// `nft list set inet plumb m4`
///
/// nft(8) writes the set before the table.
#[test]
fn all_elements_of_a_set_are_asked_for() {
    let expected = hex("
        28000000 0d0a 0103 01000000 00000000   # NFT_MSG_GETSETELEM, REQUEST | DUMP
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
        0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
        ");
    assert_eq!(sent(|kernel| elements(kernel, PAIRS)), expected);
}

/// `nft list sets table inet plumb`
///
/// nft(8) asks for the sets of all tables and picks from the answers.
#[test]
fn the_sets_of_a_table_are_asked_for() {
    let expected = hex("
        20000000 0a0a 0103 01000000 00000000   # NFT_MSG_GETSET, REQUEST | DUMP
        01000000                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
        ");
    assert_eq!(sent(|kernel| names(kernel, INET)), expected);
}

#[test]
fn an_element_is_read_with_its_comment() {
    let answer = hex("
        50000000 0c0a 0000 01000000 00000000   # NFT_MSG_NEWSETELEM
        01000010                               # struct nfgenmsg
        0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
        0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
        2800 0300                              # NFTA_SET_ELEM_LIST_ELEMENTS
          2400 0100                            # NFTA_LIST_ELEM
            1000 0100                          # NFTA_SET_ELEM_KEY
              0c00 0100 0a010002 0a010000      # NFTA_DATA_VALUE
            0f00 0600 00096162 63206574 68300000 # NFTA_SET_ELEM_USERDATA
        ");
    let expected = Element { key: PAIR.to_vec(), comment: "abc eth0".to_owned() };
    assert_eq!(answered(&[answer], |kernel| element(kernel, PAIRS, PAIR)), Ok(Some(expected)));
}

/// After `nft create element inet plumb m4 '{ 10.1.0.3 . 10.1.0.0 }'` as well.
#[test]
fn elements_are_read_from_a_dump() {
    let datagrams = [
        hex("
            64000000 0c0a 0200 01000000 00000000   # NFT_MSG_NEWSETELEM, MULTI
            01000010                               # struct nfgenmsg
            0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
            0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
            3c00 0300                              # NFTA_SET_ELEM_LIST_ELEMENTS
              2400 0100                            # NFTA_LIST_ELEM
                1000 0100                          # NFTA_SET_ELEM_KEY
                  0c00 0100 0a010002 0a010000      # NFTA_DATA_VALUE
                0f00 0600 00096162 63206574 68300000 # NFTA_SET_ELEM_USERDATA
              1400 0100                            # NFTA_LIST_ELEM
                1000 0100                          # NFTA_SET_ELEM_KEY
                  0c00 0100 0a010003 0a010000      # NFTA_DATA_VALUE
            "),
        hex("
            2c000000 0c0a 0200 01000000 00000000   # NFT_MSG_NEWSETELEM, MULTI
            01000010                               # struct nfgenmsg
            0a00 0100 706c756d 62000000            # NFTA_SET_ELEM_LIST_TABLE plumb
            0700 0200 6d340000                     # NFTA_SET_ELEM_LIST_SET m4
            0400 0300                              # NFTA_SET_ELEM_LIST_ELEMENTS
            14000000 0300 0200 01000000 00000000   # NLMSG_DONE, MULTI
            00000000                               # 0
            "),
    ];
    let expected = vec![
        Element { key: PAIR.to_vec(), comment: "abc eth0".to_owned() },
        Element { key: vec![10, 1, 0, 3, 10, 1, 0, 0], comment: String::new() },
    ];
    assert_eq!(answered(&datagrams, |kernel| elements(kernel, PAIRS)), Ok(expected));
}

#[test]
fn the_names_of_sets_are_read_from_a_dump() {
    let datagrams = [
        hex("
            68000000 090a 0200 01000000 00000000   # NFT_MSG_NEWSET, MULTI
            01000012                               # struct nfgenmsg
            0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
            0700 0200 6d350000                     # NFTA_SET_NAME m5
            0c00 1000 00000000 00000002            # NFTA_SET_HANDLE
            0800 0400 00000007                     # NFTA_SET_KEY_TYPE
            0800 0500 00000004                     # NFTA_SET_KEY_LEN
            0400 0900                              # NFTA_SET_DESC
            1700 1300 30786666 66666666 66663832 35303766 # type 19
                      34300000
            0800 1400 00000000                     # type 20
            7c000000 090a 0200 01000000 00000000   # NFT_MSG_NEWSET, MULTI
            01000012                               # struct nfgenmsg
            0a00 0100 706c756d 62000000            # NFTA_SET_TABLE plumb
            0700 0200 6d340000                     # NFTA_SET_NAME m4
            0c00 1000 00000000 00000004            # NFTA_SET_HANDLE
            0800 0400 000001c7                     # NFTA_SET_KEY_TYPE
            0800 0500 00000008                     # NFTA_SET_KEY_LEN
            1400 0d00 00040000 00000308 00040d00 00000100 # NFTA_SET_USERDATA
            0400 0900                              # NFTA_SET_DESC
            1700 1300 30786666 66666666 66663832 35303766 # type 19
                      34300000
            0800 1400 00000002                     # type 20
            "),
        hex("
            14000000 0300 0200 01000000 00000000   # NLMSG_DONE, MULTI
            00000000                               # 0
            "),
    ];
    let expected = vec!["m5".to_owned(), "m4".to_owned()];
    assert_eq!(answered(&datagrams, |kernel| names(kernel, INET)), Ok(expected));
}

/// `nft get element inet plumb m5 '{ 10.1.0.9 }'`, `nft list set inet plumb nosuch`, `nft list sets table
/// inet nosuch`
#[test]
fn what_is_missing_is_none() {
    let answer = hex("
        2c000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        feffffff                               # error -2
        40000000 0d0a0100 01000000 00000000    # the request's header
        0800 0200 2c000000                     # NLMSGERR_ATTR_OFFS 44
        ");
    assert_eq!(answered(&[answer], |kernel| element(kernel, PAIRS, PAIR)), Ok(None));
    let answer = hex("
        2c000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        feffffff                               # error -2
        28000000 0d0a0103 01000000 00000000    # the request's header
        0800 0200 20000000                     # NLMSGERR_ATTR_OFFS 32
        ");
    assert_eq!(answered(&[answer], |kernel| elements(kernel, PAIRS)), Ok(vec![]));
    let answer = hex("
        2c000000 0200 0003 01000000 00000000   # NLMSG_ERROR, CAPPED | ACK_TLVS
        feffffff                               # error -2
        20000000 0a0a0103 01000000 00000000    # the request's header
        0800 0200 14000000                     # NLMSGERR_ATTR_OFFS 20
        ");
    assert_eq!(answered(&[answer], |kernel| names(kernel, INET)), Ok(vec![]));
}

#[test]
fn another_refusal_than_enoent_is_an_error() {
    let refusal = Refusal { sequence: 1, errno: libc::EPERM, ..Refusal::default() };
    let answer = [Bytes(refusal.bytes())];
    let error = |purpose| Error::new(purpose, Errno::EPERM);
    let of_set = error("read set m4 of table inet plumb");
    assert_eq!(answered(&answer, |kernel| element(kernel, PAIRS, PAIR)), Err(of_set.clone()));
    assert_eq!(answered(&answer, |kernel| elements(kernel, PAIRS)), Err(of_set));
    let of_table = error("list sets of table inet plumb");
    assert_eq!(answered(&answer, |kernel| names(kernel, INET)), Err(of_table));
}

fn decode(message: &[u8]) -> Result<Vec<Element>, Malformed> {
    let query = GetElements { set: PAIRS, key: None };
    query.decode_item(&Messages::new(message).next().unwrap().unwrap())
}

#[test]
fn a_malformed_answer_is_an_error() {
    let message = |kind, body: &dyn Fn(&mut Encoder)| message(kind, Flags::empty(), 1, body);
    let elements = kind(libc::NFT_MSG_NEWSETELEM);
    let cases = [
        (message(kind(libc::NFT_MSG_NEWSET), &|out| out.raw(&[0; 4])), "expected set elements"),
        (message(elements, &|_| ()), "message without family header"),
        (
            message(elements, &|out| {
                INET.header(out);
                out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| out.raw(&[3, 0, 1, 0]));
            }),
            "attribute length out of bounds",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(&bytes), Err(Malformed(expected)));
    }
    let empty = message(elements, &|out| INET.header(out));
    let one = answered(&[Bytes(empty)], |kernel| element(kernel, PAIRS, PAIR));
    let expected = Error::protocol("read set m4 of table inet plumb", "no element in the answer");
    assert_eq!(one, Err(expected));

    let nameless = message(kind(libc::NFT_MSG_NEWSET), &|out| INET.header(out));
    let expected = Error::protocol("list sets of table inet plumb", "set without name");
    assert_eq!(answered(&[Bytes(nameless)], |kernel| names(kernel, INET)), Err(expected));
}

/// nft(8) keeps an interval's marks beside the comment, under type 1.
#[test]
fn a_comment_is_found_among_other_user_data() {
    assert_eq!(comment(b"\x01\x04\0\0\0\x01\x00\x05gain\0"), "gain");
    assert_eq!(comment(b"\x00\x04gain"), "gain");
    assert_eq!(comment(b"\x01\x04\0\0\0\x01"), "");
    assert_eq!(comment(b""), "");
    assert_eq!(comment(b"\x00\x09cut"), "");
    assert_eq!(comment(b"\x00"), "");
}

/// User data of an element is 256 bytes at most (`NFT_USERDATA_MAXLEN`), a value in it 255.
#[test]
fn a_comment_too_long_for_its_length_is_cut() {
    let long = "x".repeat(COMMENT_MAX + 1);
    let request = AddElement { set: PAIRS, key: PAIR, comment: &long };
    let read = decode(&sent(|kernel| kernel.execute(&[&request])).0);
    let expected = Element { key: PAIR.to_vec(), comment: "x".repeat(COMMENT_MAX) };
    assert_eq!(read, Ok(vec![expected]));
}

#[test]
fn purposes_name_set_and_table() {
    let purposes: [(&dyn Request, &str); 5] = [
        (&New { table: INET, name: "m4", key: &[] }, "create set m4 in table inet plumb"),
        (
            &AddElement { set: PAIRS, key: &[10, 1], comment: "" },
            "add element [0a, 01] to set m4 of table inet plumb",
        ),
        (
            &DeleteElement { set: SENDERS, key: &[10, 1] },
            "remove element [0a, 01] from set spoof of table bridge plumb",
        ),
        (&GetElements { set: PAIRS, key: None }, "read set m4 of table inet plumb"),
        (&List(BRIDGE), "list sets of table bridge plumb"),
    ];
    for (request, expected) in purposes {
        assert_eq!(request.to_string(), expected);
    }
}

proptest! {
    #[test]
    fn an_element_as_added_is_read_back(
        key in proptest::collection::vec(any::<u8>(), 1..=64),
        comment in "[^\0]{0,60}",
    ) {
        let request = AddElement { set: PAIRS, key: &key, comment: &comment };
        let read = decode(&sent(|kernel| kernel.execute(&[&request])).0);
        prop_assert_eq!(read, Ok(vec![Element { key, comment }]));
    }

    #[test]
    fn a_set_as_created_is_read_back(name in "[a-z][a-z0-9_]{0,30}") {
        let bytes = create(INET, &name, &[Field::Ipv4]);
        let message = Messages::new(&bytes.0).next().unwrap().unwrap();
        prop_assert_eq!(List(INET).decode(&message), Ok(name));
    }

    #[test]
    fn any_answer_is_survived(bytes: Vec<u8>) {
        let elements = kind(libc::NFT_MSG_NEWSETELEM);
        let _ = decode(&message(elements, Flags::empty(), 1, |out| out.raw(&bytes)));
    }

    #[test]
    fn any_user_data_is_survived(bytes: Vec<u8>) {
        let _ = comment(&bytes);
    }
}
