use proptest::prelude::*;

use super::*;
use crate::nl::testing::hex;

fn discover() -> Message {
    let mut options = Options::default();
    options.set(option::PARAMETERS, &[1, 3, 121]);
    options.set(option::KIND, &[Kind::Discover as u8]);
    Message {
        is_reply: false,
        xid: 0x1234_5678,
        secs: 3,
        broadcast: true,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        options,
    }
}

/// A reply that has these options.
fn reply(options: &[u8]) -> Vec<u8> {
    let mut bytes = discover().encode();
    bytes[0] = BOOTREPLY;
    bytes.truncate(HEADER);
    bytes.extend_from_slice(options);
    bytes
}

fn decode(options: &[u8]) -> Result<Options, Malformed> {
    Message::decode(&reply(options)).map(|message| message.options)
}

#[test]
fn a_message_is_as_rfc_2131_draws_it() {
    let mut expected = hex("
        01 01 06 00 12345678 0003 8000         # op, htype, hlen, hops, xid, secs, flags
        00000000 00000000 00000000 00000000    # ciaddr, yiaddr, siaddr, giaddr
        020000000001 00000000000000000000      # chaddr
    ")
    .0;
    expected.resize(236, 0); // sname, file
    expected.extend(
        hex("
        63825363
        35 01 01                               # DHCPDISCOVER, which comes first
        37 03 01 03 79                         # what is asked for
        ff
    ")
        .0,
    );
    expected.resize(300, 0);
    assert_eq!(discover().encode(), expected);
    let read = Message::decode(&expected).unwrap();
    assert_eq!(read.kind(), Some(Kind::Discover));
    assert_eq!(
        Message { options: Options::default(), ..read },
        Message { options: Options::default(), ..discover() }
    );
}

#[test]
fn what_is_no_message_is_refused() {
    let good = reply(&[53, 1, 5, 255]);
    assert!(Message::decode(&good).is_ok());
    for (at, value) in [(0, 3), (1, 6), (2, 16), (236, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(Message::decode(&bad).is_err(), "byte {at} is {value}");
    }
    for length in 0..HEADER {
        assert!(Message::decode(&good[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn options_that_do_not_fit_are_refused() {
    for options in [&[53_u8][..], &[53, 2, 5], &[3, 255, 1], &[53, 1, 5, 6]] {
        assert!(decode(options).is_err(), "{options:?}");
    }
    // Without an end, and with padding.
    assert_eq!(decode(&[0, 0, 53, 1, 5]).unwrap().get(53), Some(&[5_u8][..]));
    // What is behind the end does not count.
    assert_eq!(decode(&[53, 1, 5, 255, 53, 9]).unwrap().get(53), Some(&[5_u8][..]));
}

#[test]
fn long_values_go_in_parts_and_come_together_again() {
    let value: Vec<u8> = (0..=250).cycle().take(600).collect();
    let mut message = discover();
    message.options.set(option::SEARCH, &value);
    let bytes = message.encode();
    let parts: Vec<_> =
        bytes.windows(2).filter(|w| w[0] == option::SEARCH && [255, 90].contains(&w[1])).collect();
    assert_eq!(parts.len(), 3, "255, 255 and 90 bytes");
    let read = Message::decode(&bytes).unwrap();
    assert_eq!(read.options.get(option::SEARCH), Some(value.as_slice()));
    // Also where others are in between (RFC 3396, section 5).
    assert_eq!(
        decode(&[6, 2, 1, 2, 53, 1, 5, 6, 2, 3, 4]).unwrap().get(6),
        Some(&[1_u8, 2, 3, 4][..])
    );
}

#[test]
fn options_are_found_in_file_and_sname_if_the_message_says_so() {
    let with = |overload: u8| {
        let mut bytes = reply(&[53, 1, 5, 52, 1, overload, 255]);
        bytes[108..116].copy_from_slice(&[6, 4, 10, 0, 0, 1, 255, 9]);
        bytes[44..50].copy_from_slice(&[6, 4, 10, 0, 0, 2]);
        Message::decode(&bytes).map(|message| message.options.addresses(option::NAME_SERVERS))
    };
    let [file, sname] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<Ipv4Addr>().unwrap());
    assert_eq!(with(0), Ok(vec![]));
    assert_eq!(with(1), Ok(vec![file]));
    assert_eq!(with(2), Ok(vec![sname]));
    assert_eq!(with(3), Ok(vec![file, sname]), "in this order");
    let mut bytes = reply(&[52, 1, 1]);
    bytes[108..236].fill(7);
    assert!(Message::decode(&bytes).is_err(), "an option of the field does not end in it");
}

#[test]
fn values_of_the_wrong_length_are_as_if_absent() {
    let options =
        decode(&[1, 3, 255, 255, 255, 3, 5, 1, 2, 3, 4, 5, 26, 1, 9, 51, 2, 0, 1, 15, 0]).unwrap();
    assert_eq!(options.address(1), None);
    assert_eq!(options.addresses(3), Vec::<Ipv4Addr>::new());
    assert_eq!(options.u16(26), None);
    assert_eq!(options.u32(51), None);
    assert_eq!(options.text(15), None);
    assert_eq!(Message::decode(&reply(&[53, 2, 5, 5])).unwrap().kind(), None);
}

#[test]
fn text_is_only_what_can_be_printed() {
    let text = |value: &[u8]| {
        let mut options = Options::default();
        options.set(option::DOMAIN, value);
        options.text(option::DOMAIN)
    };
    assert_eq!(text(b"example.org\0"), Some("example.org".to_owned()));
    for bad in [&b"a\nb"[..], b"\xff\xfe", b"\0", b"a\0b", b"\x1b[31m"] {
        assert_eq!(text(bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn every_byte_sequence_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), options in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
        if let Ok(message) = Message::decode(&reply(&options)) {
            let again = Message::decode(&message.encode()).unwrap();
            prop_assert_eq!(again.kind(), message.kind());
            for (code, value) in message.options.iter() {
                prop_assert_eq!(again.options.get(code), Some(value));
            }
        }
    }
}
