use proptest::prelude::*;

use super::*;
use crate::nl::testing::{Bytes, hex};

fn solicit() -> Message {
    Message {
        kind: Kind::Solicit,
        xid: 0x00ab_cdef,
        client_id: vec![0, 4, 1, 2],
        server_id: Vec::new(),
        elapsed: 150,
        ia: Some(Ia { id: 1, ..Ia::default() }),
        status: Status::default(),
        nameservers: Vec::new(),
        search: Vec::new(),
    }
}

#[test]
fn a_message_is_as_rfc_8415_draws_it() {
    let expected = hex("
        01 abcdef                              # SOLICIT, transaction
        0001 0004 00040102                     # client's DUID
        0008 0002 0096                         # 1.5 s
        0003 000c 00000001 00000000 00000000   # IA_NA
        0006 0004 0017 0018                    # name servers, domains
    ");
    assert_eq!(Bytes(solicit().encode()), expected);
    assert_eq!(Message::decode(&expected.0), Ok(solicit()));
}

#[test]
fn a_servers_message_is_read() {
    let bytes = hex("
        07 abcdef                              # REPLY
        0001 0004 00040102
        0002 0003 0001ff                       # server's DUID
        0003 002c 00000001 0000000a 00000014   # T1, T2
            0005 0018 fd000000000000000000000000000007 0000001e 0000003c
            000d 0000
        0017 0010 fd000000000000000000000000000053
        0018 0007 0161 036f7267 00
        00ff 0000                              # something else
    ");
    // A status without a code is malformed.
    assert!(Message::decode(&bytes.0).is_err());
    let bytes = hex("
        07 abcdef
        0001 0004 00040102
        0002 0003 0001ff
        0003 0030 00000001 0000000a 00000014
            0005 0018 fd000000000000000000000000000007 0000001e 0000003c
            000d 0004 0000 6f6b
        0017 0010 fd000000000000000000000000000053
        0018 0007 0161 036f7267 00
        00ff 0000
    ");
    let read = Message::decode(&bytes.0).unwrap();
    let ia = read.ia.unwrap();
    let address = Address { address: "fd00::7".parse().unwrap(), preferred: 30, valid: 60 };
    assert_eq!((ia.id, ia.renew, ia.rebind, ia.addresses), (1, 10, 20, vec![address]));
    assert_eq!(ia.status.to_string(), "Success: ok");
    assert_eq!(read.nameservers, ["fd00::53".parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(read.search, ["a.org"]);
    assert_eq!(read.server_id, [0, 1, 0xff]);
    for cut in 1..4 {
        assert!(Message::decode(&bytes.0[..cut]).is_err());
    }
    for cut in 5..12 {
        assert!(Message::decode(&bytes.0[..cut]).is_err(), "cut to {cut}");
    }
}

#[test]
fn addresses_and_associations_cut_short_are_refused() {
    let with = |option: &str| Message::decode(&hex(&format!("07 abcdef {option}")).0);
    assert!(with("0003 000b 00000001 0000000a 000000").is_err());
    assert!(with("0003 0018 00000001 0000000a 00000014 0005 0008 fd00000000000000").is_err());
    assert!(with("0003 0010 00000001 0000000a 00000014 0005 0008").is_err());
    assert!(with("0008 0001 00").is_err());
    assert!(with("000d 0001 00").is_err());
    assert!(Message::decode(&[99, 0, 0, 0]).is_err(), "unknown");
}

proptest! {
    #[test]
    fn every_byte_sequence_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        for kind in [1, 2, 7] {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(message) = Message::decode(&bytes) {
                let again = Message::decode(&message.encode()).unwrap();
                prop_assert_eq!((again.kind, again.xid, again.client_id), (message.kind, message.xid, message.client_id));
            }
        }
    }
}
