use proptest::prelude::*;

use serde_json::Value;

use super::*;
use crate::cni::json::Node;
use crate::ipam::dhcp::v4::message::Kind;
use crate::net::Mac;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn offer(options: &[(u8, &[u8])]) -> Message {
    let mut all = Options::default();
    all.set(option::KIND, &[Kind::Offer as u8]);
    all.set(option::SERVER, &[10, 0, 0, 1]);
    all.set(option::SUBNET_MASK, &[255, 255, 255, 0]);
    for (code, value) in options {
        all.set(*code, value);
    }
    Message {
        is_reply: true,
        xid: 1,
        secs: 0,
        broadcast: false,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: ip("10.0.0.7"),
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        options: all,
    }
}

fn terms(options: &[(u8, &[u8])]) -> Terms {
    read(&offer(options)).unwrap()
}

fn routes(options: &[(u8, &[u8])]) -> Vec<String> {
    let show = |route: &Route| match route.via {
        Some(via) => format!("{} via {via}", route.to),
        None => format!("{} on link", route.to),
    };
    terms(options).routes.iter().map(show).collect()
}

#[test]
fn an_address_a_mask_and_a_server_are_needed() {
    assert_eq!(terms(&[]).address, "10.0.0.7/24".parse().unwrap());
    for (address, sound) in [
        ("0.0.0.0", false),
        ("127.0.0.1", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("1.2.3.4", true),
    ] {
        let message = Message { yiaddr: ip(address), ..offer(&[]) };
        assert_eq!(read(&message).is_ok(), sound, "{address}");
    }
    for (code, value, named) in [
        (option::SUBNET_MASK, &[255, 0, 255, 0][..], "gaps"),
        (option::SUBNET_MASK, &[255], "option 1"),
        (option::SERVER, &[0, 0, 0, 0], "option 54"),
        (option::SERVER, &[], "option 54"),
        (option::LEASE_TIME, &[0, 0, 0, 0], "option 51"),
        (option::CLASSLESS_ROUTES, &[33, 1, 2, 3, 4, 5, 6, 7, 8, 9], "option 121"),
    ] {
        let why = read(&offer(&[(code, value)])).unwrap_err();
        assert!(why.contains(named), "{why}");
    }
    for (mask, prefix) in
        [([0; 4], 0), ([128, 0, 0, 0], 1), ([255; 4], 32), ([255, 255, 254, 0], 23)]
    {
        assert_eq!(terms(&[(option::SUBNET_MASK, &mask)]).address.prefix, prefix);
    }
}

#[test]
fn routes_of_option_121_are_before_33_before_3() {
    let routers: (u8, &[u8]) = (option::ROUTERS, &[10, 0, 0, 1, 10, 0, 0, 2]);
    let of_old: (u8, &[u8]) =
        (option::STATIC_ROUTES, &[192, 168, 1, 9, 10, 0, 0, 3, 10, 9, 9, 9, 10, 0, 0, 4]);
    let classless: (u8, &[u8]) = (
        option::CLASSLESS_ROUTES,
        &[
            24, 172, 16, 5, 10, 0, 0, 5, // whole bytes
            20, 172, 16, 255, 10, 0, 0, 6, // part of one: host bits are ignored
            0, 10, 0, 0, 7, // default
            32, 10, 9, 8, 7, 0, 0, 0, 0, // on the link
        ],
    );
    assert_eq!(routes(&[routers]), ["0.0.0.0/0 via 10.0.0.1"]);
    assert_eq!(
        routes(&[routers, of_old]),
        ["192.168.1.0/24 via 10.0.0.3", "10.0.0.0/8 via 10.0.0.4", "0.0.0.0/0 via 10.0.0.1"]
    );
    assert_eq!(
        routes(&[routers, of_old, classless]),
        [
            "172.16.5.0/24 via 10.0.0.5",
            "172.16.240.0/20 via 10.0.0.6",
            "0.0.0.0/0 via 10.0.0.7",
            "10.9.8.7/32 on link"
        ]
    );
    assert_eq!(terms(&[routers, classless]).gateway, Some(ip("10.0.0.1").into()));
    for cut in 1..classless.1.len() {
        // Where a route ends there is no fault to be seen.
        if ![8, 16, 21].contains(&cut) {
            let message = offer(&[(option::CLASSLESS_ROUTES, &classless.1[..cut])]);
            assert!(read(&message).is_err(), "cut to {cut} bytes");
        }
    }
    assert_eq!(routes(&[(option::STATIC_ROUTES, &[0, 0, 0, 0, 10, 0, 0, 3])]), [""; 0]);
}

#[test]
fn a_result_says_it_all() {
    let read = terms(&[
        (option::ROUTERS, &[10, 0, 0, 1]),
        (option::CLASSLESS_ROUTES, &[8, 11, 10, 0, 0, 9, 32, 10, 1, 1, 1, 0, 0, 0, 0]),
        (option::NAME_SERVERS, &[10, 0, 0, 53, 9, 9, 9, 9]),
        (option::DOMAIN, b"example.org"),
        (option::SEARCH, b"\x01a\x07example\0"),
    ]);
    let result = read.result(50);
    assert_eq!(result.ips[0].address.to_string(), "10.0.0.7/24");
    assert_eq!(result.ips[0].gateway, Some(ip("10.0.0.1").into()));
    let [via, on_link] = result.routes.as_slice() else { panic!("{:?}", result.routes) };
    assert_eq!((via.gw, via.scope, via.priority), (Some(ip("10.0.0.9").into()), None, 50));
    assert_eq!((on_link.gw, on_link.scope, on_link.priority), (None, Some(253), 50));
    assert_eq!(result.dns.nameservers, ["10.0.0.53", "9.9.9.9"]);
    assert_eq!(
        (result.dns.domain.as_str(), result.dns.search[0].as_str()),
        ("example.org", "a.example")
    );
}

#[test]
fn times_come_in_order_whatever_the_server_says() {
    let times = |lease: Option<u32>, renew: Option<u32>, rebind: Option<u32>| {
        let mut message = offer(&[]);
        for (code, value) in [
            (option::LEASE_TIME, lease),
            (option::RENEWAL_TIME, renew),
            (option::REBINDING_TIME, rebind),
        ] {
            if let Some(value) = value {
                message.options.set(code, &value.to_be_bytes());
            }
        }
        let Times { renew, rebind, expire } = read(&message).unwrap().times;
        [renew, rebind, expire.unwrap_or(Duration::from_millis(u64::MAX))]
            .map(|time| u64::try_from(time.as_millis()).unwrap())
    };
    assert_eq!(times(Some(80), None, None), [40_000, 70_000, 80_000]);
    assert_eq!(times(None, None, None), [1_800_000, 3_150_000, 3_600_000]);
    assert_eq!(times(Some(80), Some(10), Some(20)), [10_000, 20_000, 80_000]);
    assert_eq!(times(Some(80), Some(75), Some(90)), [40_000, 70_000, 80_000]);
    assert_eq!(times(Some(80), None, Some(20)), [20_000, 20_000, 80_000]);
    assert_eq!(times(Some(u32::MAX), Some(5), None)[2], u64::MAX);
}

#[test]
fn domains_are_followed_back_and_never_round_in_circles() {
    let read = |value: &[u8]| domains(value);
    assert_eq!(
        read(b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04"),
        ["eng.apple.com", "marketing.apple.com"]
    );
    assert_eq!(read(b"\x01a\0\xc0\x03"), ["a"], "to itself");
    assert_eq!(read(b"\xc0\x00"), [""; 0]);
    assert_eq!(read(b"\x01a\xc0\x00"), [""; 0], "grows for ever");
    assert_eq!(read(b"\x01a\0\xc0\x63"), ["a"], "outside");
    assert_eq!(read(b"\x01a\0\x05ab"), ["a"], "cut short");
    assert_eq!(read(b"\x03a\nb\0"), [""; 0]);
    assert_eq!(read(b"\x80a\0"), [""; 0]);
    let long: Vec<u8> = (0..5).flat_map(|_| [&[63][..], &[b'x'; 63]].concat()).chain([0]).collect();
    assert_eq!(read(&long), [""; 0], "longer than 255 bytes");
}

#[test]
fn what_is_too_small_to_be_an_mtu_is_none() {
    assert_eq!(terms(&[(option::MTU, &[5, 0xdc])]).mtu, Some(1500));
    assert_eq!(terms(&[(option::MTU, &[0, 67])]).mtu, None);
}

#[test]
fn what_is_kept_is_read_again() {
    let all = terms(&[
        (option::ROUTERS, &[10, 0, 0, 1]),
        (option::CLASSLESS_ROUTES, &[8, 11, 10, 0, 0, 9, 32, 10, 1, 1, 1, 0, 0, 0, 0]),
        (option::NAME_SERVERS, &[10, 0, 0, 53]),
        (option::DOMAIN, b"example.org"),
        (option::SEARCH, b"\x01a\x07example\0"),
        (option::MTU, &[5, 0xdc]),
    ]);
    let for_ever = terms(&[(option::LEASE_TIME, &[255; 4])]);
    for terms in [all, terms(&[]), for_ever] {
        let value: Value = serde_json::from_str(&terms.to_value().to_string()).unwrap();
        let read = Terms::read_json(&Node::root("", &value)).unwrap();
        assert_eq!(read, terms);
    }
}

proptest! {
    #[test]
    fn every_value_is_survived(code in prop::sample::select(vec![1_u8, 3, 6, 15, 26, 33, 51, 54, 58, 59, 119, 121]), value in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(terms) = read(&offer(&[(code, &value)])) {
            let value = terms.to_value();
            prop_assert!(Terms::read_json(&Node::root("", &value)).is_ok());
            let _ = terms.result(1);
        }
    }
}
