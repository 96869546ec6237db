use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::net::Cidr;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const TIMING: Timing = Timing {
    timeout: Duration::from_secs(10),
    resend_max: Duration::from_secs(62),
    resend_timeout: Duration::from_secs(208),
    probe: Duration::from_millis(300),
};

fn at(seconds: f64) -> Time {
    Time::after_boot(Duration::from_secs_f64(1000.0 + seconds))
}

fn conf() -> Conf {
    Conf {
        mac: MAC,
        client_id: b"\0c/net/eth0".to_vec(),
        requested: vec![1, 3],
        provided: vec![(12, b"name".to_vec())],
        broadcast: Broadcast::WhenNeeded,
        probe: Probing::On,
    }
}

fn client() -> Client {
    Client::new(conf(), TIMING, 1, at(0.0))
}

/// A server's answer to a message.
fn answer(to: &Message, kind: Kind, options: &[(u8, &[u8])]) -> Message {
    let mut all = Options::default();
    all.set(option::KIND, &[kind as u8]);
    all.set(option::SERVER, &SERVER.octets());
    if kind != Kind::Nak {
        all.set(option::SUBNET_MASK, &[255, 255, 255, 0]);
        all.set(option::LEASE_TIME, &80_u32.to_be_bytes());
    }
    for (code, value) in options {
        all.set(*code, value);
    }
    let yiaddr = if kind == Kind::Nak { Ipv4Addr::UNSPECIFIED } else { ADDRESS };
    Message { is_reply: true, yiaddr, options: all, ..to.clone() }
}

#[track_caller]
fn sent(effects: &[Effect]) -> (Message, Destination) {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Send(message, destination) => Some((message.clone(), *destination)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing is sent: {effects:?}"))
}

/// Brings a client to where it has a lease, which was asked for at 0.
fn bound(conf: Conf) -> Client {
    let mut client = Client::new(Conf { probe: Probing::Off, ..conf }, TIMING, 1, at(0.0));
    let (discover, _) = sent(&client.elapsed(at(0.0)));
    let (request, _) = sent(&client.received(&answer(&discover, Kind::Offer, &[]), at(0.0)));
    let effects = client.received(&answer(&request, Kind::Ack, &[]), at(0.1));
    assert_eq!(effects, [Effect::Bound]);
    client
}

#[test]
fn a_lease_comes_of_four_messages_and_three_probes() {
    let mut client = client();
    assert_eq!((client.phase(), client.listens()), (Phase::Selecting, Listens::Nothing));
    let (discover, destination) = sent(&client.elapsed(at(0.0)));
    assert_eq!((discover.kind(), destination), (Some(Kind::Discover), Destination::Broadcast));
    assert_eq!(client.listens(), Listens::Messages);
    for (code, value) in
        [(61, &b"\0c/net/eth0"[..]), (55, &[1, 3]), (12, b"name"), (57, &1472_u16.to_be_bytes())]
    {
        assert_eq!(discover.options.get(code), Some(value), "option {code}");
    }
    assert_eq!((discover.options.get(50), discover.options.get(54)), (None, None));

    let (request, destination) =
        sent(&client.received(&answer(&discover, Kind::Offer, &[]), at(0.5)));
    assert_eq!((request.kind(), destination), (Some(Kind::Request), Destination::Broadcast));
    // RFC 2131, table 5, SELECTING.
    assert_eq!(request.options.address(50), Some(ADDRESS));
    assert_eq!(request.options.address(54), Some(SERVER));
    assert!(request.ciaddr.is_unspecified());
    assert_eq!(request.xid, discover.xid);
    assert_eq!(client.phase(), Phase::Requesting);

    let mut effects = client.received(&answer(&request, Kind::Ack, &[]), at(1.0));
    for probe in 0..3 {
        assert_eq!(effects, [Effect::Probe(ADDRESS)], "probe {probe}");
        assert_eq!(client.listens(), Listens::Neighbours(ADDRESS));
        assert_eq!((client.phase(), client.lease()), (Phase::Probing, None));
        let next = client.deadline().unwrap();
        assert_eq!(next, at(1.0) + TIMING.probe / 3 * (probe + 1));
        effects = client.elapsed(next);
    }
    assert_eq!(effects, [Effect::Bound]);
    let lease = client.lease().unwrap();
    assert_eq!(lease.since, at(0.5), "when it was requested");
    assert_eq!(lease.terms.address.to_string(), "10.0.0.7/24");
    assert_eq!((client.phase(), client.listens()), (Phase::Bound, Listens::Nothing));
    assert_eq!(client.deadline(), Some(at(40.5)), "T1 is half");
}

#[test]
fn what_is_for_others_or_makes_no_sense_is_passed_over() {
    let mut client = client();
    let (discover, _) = sent(&client.elapsed(at(0.0)));
    let good = answer(&discover, Kind::Offer, &[]);
    for bad in [
        Message { xid: good.xid ^ 1, ..good.clone() },
        Message { mac: Mac([2, 0, 0, 0, 0, 2]), ..good.clone() },
        Message { is_reply: false, ..good.clone() },
        answer(&discover, Kind::Ack, &[]),
        answer(&discover, Kind::Nak, &[]),
        answer(&discover, Kind::Offer, &[(option::SUBNET_MASK, &[])]),
        answer(&discover, Kind::Offer, &[(option::KIND, &[99])]),
        Message { yiaddr: Ipv4Addr::UNSPECIFIED, ..good.clone() },
    ] {
        assert_eq!(client.received(&bad, at(0.1)), []);
        assert_eq!(client.phase(), Phase::Selecting);
    }
    let (request, _) = sent(&client.received(&good, at(0.2)));
    let other = OTHER_SERVER.octets();
    for bad in [
        answer(&request, Kind::Offer, &[]),
        answer(&request, Kind::Ack, &[(option::SERVER, &other)]),
        answer(&request, Kind::Nak, &[(option::SERVER, &other)]),
        Message { yiaddr: OTHER_SERVER, ..answer(&request, Kind::Ack, &[]) },
    ] {
        assert_eq!(client.received(&bad, at(0.3)), []);
        assert_eq!(client.phase(), Phase::Requesting);
    }
    assert_eq!(
        client.received(&answer(&request, Kind::Ack, &[]), at(0.4)),
        [Effect::Probe(ADDRESS)]
    );
}

#[test]
fn without_a_server_it_asks_less_and_less_often_and_gives_up() {
    let mut seen = HashSet::new();
    for seed in 0..20 {
        let mut client = Client::new(conf(), TIMING, seed, at(0.0));
        let mut now = at(0.0);
        let mut pauses = Vec::new();
        let failure = loop {
            match client.elapsed(now).as_slice() {
                [Effect::Send(message, Destination::Broadcast)] => {
                    assert_eq!(message.kind(), Some(Kind::Discover));
                    assert_eq!(u64::from(message.secs), (now - at(0.0)).as_secs());
                }
                [Effect::Failed(failure)] => break failure.clone(),
                other => panic!("{other:?}"),
            }
            let next = client.deadline().unwrap();
            assert!(next > now);
            pauses.push((next - now).as_secs_f64());
            now = next;
        };
        assert_eq!(now, at(208.0));
        for (pause, middle) in pauses.iter().zip([2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 16.0, 32.0, 62.0]) {
            assert!((middle - 1.0..=middle + 1.0).contains(pause), "{pauses:?}");
        }
        assert_eq!(pauses.len(), 11, "{pauses:?}");
        seen.insert(pauses[0].to_bits());
        assert_eq!(failure.to_string(), "no OFFER from any DHCP server within 208 s");
        assert_eq!((client.phase(), client.deadline()), (Phase::Ended, None));
    }
    assert!(seen.len() > 15, "they don't go on at the same time");
}

#[test]
fn a_server_that_does_not_acknowledge_is_left_for_another() {
    let mut client = client();
    let (discover, _) = sent(&client.elapsed(at(0.0)));
    client.received(&answer(&discover, Kind::Offer, &[]), at(0.0));
    let mut requests = 0;
    loop {
        let now = client.deadline().unwrap();
        let (message, _) = sent(&client.elapsed(now));
        if message.kind() == Some(Kind::Discover) {
            assert_eq!(now, at(10.0));
            assert_ne!(message.xid, discover.xid);
            break;
        }
        requests += 1;
    }
    assert!((2..=9).contains(&requests), "{requests}");
    // Once and again, until it gives up.
    loop {
        let now = client.deadline().unwrap();
        match client.elapsed(now).as_slice() {
            [Effect::Failed(failure)] => {
                let expected =
                    "no ACK from DHCP server 10.0.0.1, which had made an OFFER, within 208 s";
                assert_eq!(failure.to_string(), expected);
                break;
            }
            effects => {
                let (message, _) = sent(effects);
                if message.kind() == Some(Kind::Discover) {
                    client.received(&answer(&message, Kind::Offer, &[]), now);
                }
            }
        }
    }
}

#[test]
fn a_refusal_and_an_address_in_use_lead_back_to_the_beginning() {
    let mut client = client();
    let mut now = at(0.0);
    let mut pauses = Vec::new();
    for round in 0..4 {
        let (discover, _) = sent(&client.elapsed(now));
        assert_eq!(discover.kind(), Some(Kind::Discover));
        let (request, _) = sent(&client.received(&answer(&discover, Kind::Offer, &[]), now));
        if round % 2 == 0 {
            let nak = answer(&request, Kind::Nak, &[(option::TEXT, b"not here")]);
            assert_eq!(client.received(&nak, now), []);
        } else {
            client.received(&answer(&request, Kind::Ack, &[]), now);
            let (decline, destination) = sent(&client.conflict(now));
            assert_eq!(
                (decline.kind(), destination),
                (Some(Kind::Decline), Destination::Broadcast)
            );
            assert_eq!(decline.options.address(50), Some(ADDRESS));
            assert_eq!(decline.options.address(54), Some(SERVER));
            assert_eq!(decline.options.get(55), None, "RFC 2131, table 5");
        }
        assert_eq!(client.listens(), Listens::Nothing);
        let next = client.deadline().unwrap();
        pauses.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(pauses, [1, 10, 10, 10]);
    while client.phase() != Phase::Ended {
        now = client.deadline().unwrap();
        if let [Effect::Failed(failure)] = client.elapsed(now).as_slice() {
            let text = failure.to_string();
            assert!(
                text.starts_with(
                    "address 10.0.0.7, which DHCP server 10.0.0.1 had offered, is in use"
                ),
                "{text}"
            );
        }
    }
    assert_eq!(client.conflict(now), [], "there is nothing to decline");
}

#[test]
fn a_lease_is_renewed_with_its_server_and_then_with_any() {
    let mut client = bound(Conf { broadcast: Broadcast::Always, ..conf() });
    let (renew, destination) = sent(&client.elapsed(at(40.0)));
    let own = Destination::Server { source: ADDRESS, server: SERVER };
    assert_eq!((renew.kind(), destination), (Some(Kind::Request), own));
    // RFC 2131, table 5, RENEWING: the address is where it can be reached.
    assert_eq!(renew.ciaddr, ADDRESS);
    assert_eq!((renew.options.get(50), renew.options.get(54)), (None, None));
    assert!(!renew.broadcast);
    assert_eq!((client.phase(), client.listens()), (Phase::Renewing, Listens::Messages));
    assert_eq!(
        client.received(&answer(&renew, Kind::Ack, &[(54, &OTHER_SERVER.octets())]), at(40.5)),
        []
    );

    // It listens for ten seconds, asks once more, and from T2 on everybody.
    assert_eq!(client.deadline(), Some(at(50.0)));
    assert_eq!(client.elapsed(at(50.0)), []);
    assert_eq!(client.listens(), Listens::Nothing);
    assert_eq!(client.deadline(), Some(at(55.0)), "half of what is left until T2");
    assert_eq!(sent(&client.elapsed(at(55.0))).1, own);
    let (rebind, destination) = loop {
        let now = client.deadline().unwrap();
        let effects = client.elapsed(now);
        if !effects.is_empty() && client.phase() == Phase::Rebinding {
            assert_eq!(now, at(70.0));
            break sent(&effects);
        }
    };
    assert_eq!((rebind.ciaddr, destination), (ADDRESS, Destination::Broadcast));
    let effects =
        client.received(&answer(&rebind, Kind::Ack, &[(54, &OTHER_SERVER.octets())]), at(71.0));
    assert_eq!(effects, [Effect::Bound]);
    let lease = client.lease().unwrap();
    assert_eq!((lease.since, lease.terms.server), (at(70.0), OTHER_SERVER.into()));
    assert_eq!(client.deadline(), Some(at(110.0)));
}

#[test]
fn a_lease_that_nobody_renews_expires() {
    let mut client = bound(conf());
    let mut last = at(0.0);
    loop {
        let now = client.deadline().unwrap();
        assert!(now > last, "time goes on");
        last = now;
        if client.elapsed(now) == [Effect::Expired] {
            assert_eq!(now, at(80.0));
            break;
        }
    }
    assert_eq!((client.phase(), client.lease(), client.deadline()), (Phase::Ended, None, None));
}

#[test]
fn a_lease_that_is_taken_back_is_looked_for_anew_for_ever() {
    let mut client = bound(conf());
    let (renew, _) = sent(&client.elapsed(at(40.0)));
    let effects = client.received(&answer(&renew, Kind::Nak, &[(option::TEXT, b"gone")]), at(41.0));
    let [Effect::Unbound(refusal), Effect::Send(discover, _)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(refusal.to_string(), "DHCP server 10.0.0.1 refused (NAK): gone");
    assert_eq!((discover.kind(), client.lease()), (Some(Kind::Discover), None));
    let mut now = at(41.0);
    for _ in 0..50 {
        now = client.deadline().unwrap();
        assert_eq!(sent(&client.elapsed(now)).0.kind(), Some(Kind::Discover));
    }
    assert!(now > at(1000.0), "no failure");
}

/// Where RFC 2131 has a server refuse, some change the address at once.
#[test]
fn another_address_is_taken_over_with_what_goes_with_it() {
    let mut client = bound(conf());
    let (renew, _) = sent(&client.elapsed(at(40.0)));
    let other = Ipv4Addr::new(10, 0, 0, 99);
    let bad = answer(&renew, Kind::Ack, &[(option::SUBNET_MASK, &[])]);
    assert_eq!(client.received(&bad, at(41.0)), []);
    let ack = Message { yiaddr: other, ..answer(&renew, Kind::Ack, &[]) };
    assert_eq!(client.received(&ack, at(41.0)), [Effect::Bound]);
    assert_eq!(client.lease().unwrap().terms.address.address, other);
}

#[test]
fn a_lease_for_ever_is_never_renewed() {
    let mut client = Client::new(Conf { probe: Probing::Off, ..conf() }, TIMING, 1, at(0.0));
    let (discover, _) = sent(&client.elapsed(at(0.0)));
    let for_ever: (u8, &[u8]) = (option::LEASE_TIME, &[255; 4]);
    let (request, _) =
        sent(&client.received(&answer(&discover, Kind::Offer, &[for_ever]), at(0.0)));
    client.received(&answer(&request, Kind::Ack, &[for_ever]), at(0.0));
    assert_eq!((client.phase(), client.deadline()), (Phase::Bound, None));
    assert_eq!(client.lease().unwrap().expires_at(), None);
}

#[test]
fn a_resumed_lease_goes_on_where_it_was() {
    let lease = bound(conf()).lease().unwrap().clone();
    for (now, phase, destination) in [
        (20.0, Phase::Bound, None),
        (45.0, Phase::Renewing, Some(Destination::Server { source: ADDRESS, server: SERVER })),
        (75.0, Phase::Rebinding, Some(Destination::Broadcast)),
        (81.0, Phase::Ended, None),
    ] {
        let mut client = Client::resume(conf(), TIMING, 2, lease.clone());
        assert_eq!(client.lease(), Some(&lease));
        let effects = client.elapsed(at(now));
        assert_eq!(client.phase(), phase, "{now}");
        assert_eq!(effects == [Effect::Expired], phase == Phase::Ended);
        if let Some(destination) = destination {
            assert_eq!(sent(&effects).1, destination, "{now}");
        }
    }
}

#[test]
fn a_lease_is_released_to_its_server_also_before_it_is_used() {
    let mut client = client();
    assert_eq!(client.release(), None);
    let (discover, _) = sent(&client.elapsed(at(0.0)));
    let (request, _) = sent(&client.received(&answer(&discover, Kind::Offer, &[]), at(0.0)));
    assert_eq!(client.release(), None);
    client.received(&answer(&request, Kind::Ack, &[]), at(0.0));
    for client in [client, bound(conf())] {
        let (release, destination) = sent(&[client.release().unwrap()]);
        assert_eq!(release.kind(), Some(Kind::Release));
        assert_eq!(destination, Destination::Server { source: ADDRESS, server: SERVER });
        assert_eq!((release.ciaddr, release.options.address(54)), (ADDRESS, Some(SERVER)));
        assert_eq!(release.options.get(61), Some(&b"\0c/net/eth0"[..]));
        assert_eq!(release.options.get(55), None);
    }
}

#[test]
fn what_is_provided_replaces_the_client_id_and_nothing_of_dhcps_own() {
    let provided = vec![(61, b"\x01mine".to_vec()), (55, vec![9])];
    let mut client = Client::new(Conf { provided, ..conf() }, TIMING, 1, at(0.0));
    let (discover, _) = sent(&client.elapsed(at(0.0)));
    assert_eq!(discover.options.get(61), Some(&b"\x01mine"[..]));
    assert_eq!(discover.options.get(55), Some(&[1_u8, 3][..]));
}

/// What an idle lease takes: thousands of them are to fit into a small daemon.
#[test]
fn an_idle_client_is_small() {
    assert!(size_of::<Client>() <= 512, "{}", size_of::<Client>());
}

proptest! {
    /// Whatever comes, and whenever: it neither panics nor stops short.
    #[test]
    fn a_client_goes_on_whatever_comes(steps in proptest::collection::vec((0_u8..9, 0_u64..100_000), 1..80)) {
        let mut client = client();
        let mut now = at(0.0);
        let mut last = None;
        for (step, milliseconds) in steps {
            now = now + Duration::from_millis(milliseconds);
            let kinds = [Kind::Offer, Kind::Ack, Kind::Nak, Kind::Offer, Kind::Ack];
            let effects = match (step, &last) {
                (0..5, Some(message)) => client.received(&answer(message, kinds[usize::from(step)], &[]), now),
                (5, _) => client.conflict(now),
                _ => client.elapsed(client.deadline().map_or(now, |deadline| deadline.max(now))),
            };
            for effect in &effects {
                if let Effect::Send(message, _) = effect {
                    last = Some(message.clone());
                }
            }
            let has_lease = matches!(client.phase(), Phase::Bound | Phase::Renewing | Phase::Rebinding);
            prop_assert_eq!(client.lease().is_some(), has_lease);
            prop_assert_eq!(client.deadline().is_none(), client.phase() == Phase::Ended);
            if client.phase() == Phase::Bound {
                prop_assert_eq!(client.listens(), Listens::Nothing);
            }
            if let Some(lease) = client.lease() {
                let expected: Cidr = "10.0.0.7/24".parse().unwrap();
                prop_assert_eq!(lease.terms.address, expected);
            }
        }
    }
}
