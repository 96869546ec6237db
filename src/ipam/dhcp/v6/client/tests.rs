use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    timeout: Duration::from_secs(10),
    resend_max: Duration::from_secs(62),
    resend_timeout: Duration::from_secs(208),
    probe: Duration::ZERO,
};
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);

fn at(seconds: f64) -> Time {
    Time::after_boot(Duration::from_secs_f64(1000.0 + seconds))
}

fn client() -> Client {
    Client::new(b"\0\x04me".to_vec(), TIMING, 1, at(0.0))
}

fn answer(to: &Message, kind: Kind) -> Message {
    let address = Address { address: ADDRESS, preferred: 60, valid: 80 };
    let ia = Ia { id: IAID, renew: 40, rebind: 70, addresses: vec![address], ..Ia::default() };
    Message { kind, server_id: b"server".to_vec(), ia: Some(ia), ..to.clone() }
}

fn refuse(to: &Message, kind: Kind, code: u16) -> Message {
    let status = Status { code, text: "no".to_owned() };
    let ia = Ia { id: IAID, status, ..Ia::default() };
    Message { ia: Some(ia), ..answer(to, kind) }
}

#[track_caller]
fn sent(effects: &[Effect]) -> Message {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Send(message) => Some(message.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing is sent: {effects:?}"))
}

fn bound() -> Client {
    let mut client = client();
    let solicit = sent(&client.elapsed(at(0.0)));
    let request = sent(&client.received(&answer(&solicit, Kind::Advertise), SERVER, at(0.0)));
    let effects = client.received(&answer(&request, Kind::Reply), SERVER, at(0.1));
    assert_eq!(effects, [Effect::Bound]);
    client
}

#[test]
fn a_lease_comes_of_four_messages() {
    let mut client = client();
    let solicit = sent(&client.elapsed(at(0.0)));
    assert_eq!((solicit.kind, solicit.server_id.len()), (Kind::Solicit, 0));
    assert_eq!(solicit.ia.as_ref().unwrap().addresses, []);
    assert!(client.listens());
    let advertise = answer(&solicit, Kind::Advertise);
    for bad in [
        Message { xid: advertise.xid ^ 1, ..advertise.clone() },
        Message { client_id: b"other".to_vec(), ..advertise.clone() },
        Message { server_id: Vec::new(), ..advertise.clone() },
        Message { ia: None, ..advertise.clone() },
        answer(&solicit, Kind::Reply),
        refuse(&solicit, Kind::Advertise, 2),
    ] {
        assert_eq!(client.received(&bad, SERVER, at(0.1)), [], "{bad:?}");
    }
    let request = sent(&client.received(&advertise, SERVER, at(0.2)));
    assert_eq!((request.kind, request.server_id.as_slice()), (Kind::Request, &b"server"[..]));
    assert_eq!(request.ia.as_ref().unwrap().addresses[0].address, ADDRESS);
    assert_eq!(client.phase(), Phase::Requesting);
    let other = Message { server_id: b"other".to_vec(), ..answer(&request, Kind::Reply) };
    assert_eq!(client.received(&other, SERVER, at(0.3)), []);
    assert_eq!(client.received(&answer(&request, Kind::Reply), SERVER, at(0.3)), [Effect::Bound]);
    let lease = client.lease().unwrap();
    assert_eq!(lease.terms.address.to_string(), "fd00::7/128");
    assert_eq!((lease.since, lease.terms.server), (at(0.2), SERVER.into()));
    assert_eq!((client.deadline(), client.listens()), (Some(at(40.2)), false));
}

#[test]
fn without_a_server_it_gives_up_and_says_in_which_step() {
    let mut client = client();
    let mut now = at(0.0);
    let mut pauses = Vec::new();
    loop {
        if let [Effect::Failed(failure)] = client.elapsed(now).as_slice() {
            assert_eq!(failure.to_string(), "no ADVERTISE from any DHCPv6 server within 208 s");
            break;
        }
        let next = client.deadline().unwrap();
        pauses.push((next - now).as_secs_f64());
        now = next;
    }
    for (pause, middle) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 62.0]) {
        assert!((middle * 0.9..=middle * 1.1).contains(pause), "{pauses:?}");
    }
    assert_eq!((now, client.phase()), (at(208.0), Phase::Ended));
}

#[test]
fn a_refusal_leads_back_to_the_beginning_and_is_told() {
    let mut client = client();
    let solicit = sent(&client.elapsed(at(0.0)));
    let request = sent(&client.received(&answer(&solicit, Kind::Advertise), SERVER, at(0.0)));
    assert_eq!(client.received(&refuse(&request, Kind::Reply, 4), SERVER, at(0.0)), []);
    assert_eq!(client.deadline(), Some(at(1.0)));
    let mut now = at(1.0);
    loop {
        if let [Effect::Failed(failure)] = client.elapsed(now).as_slice() {
            let expected = "DHCPv6 server fe80::1 refused (NotOnLink: no); no other within 208 s";
            assert_eq!(failure.to_string(), expected);
            break;
        }
        now = client.deadline().unwrap();
    }
}

#[test]
fn a_lease_is_renewed_with_its_server_and_then_with_any() {
    let mut client = bound();
    let renew = sent(&client.elapsed(at(40.0)));
    assert_eq!((renew.kind, renew.server_id.as_slice()), (Kind::Renew, &b"server"[..]));
    let rebind = loop {
        let now = client.deadline().unwrap();
        let effects = client.elapsed(now);
        if client.phase() == Phase::Rebinding {
            assert_eq!(now, at(70.0));
            break sent(&effects);
        }
    };
    assert_eq!((rebind.kind, rebind.server_id.len()), (Kind::Rebind, 0));
    let other = Message { server_id: b"other".to_vec(), ..answer(&rebind, Kind::Reply) };
    assert_eq!(client.received(&other, SERVER, at(71.0)), [Effect::Bound]);
    assert_eq!(client.lease().unwrap().since, at(70.0));
}

#[test]
fn a_lease_that_is_taken_back_is_looked_for_anew() {
    for valid in [false, true] {
        let mut client = bound();
        let renew = sent(&client.elapsed(at(40.0)));
        let mut reply = refuse(&renew, Kind::Reply, 3);
        if valid {
            reply = answer(&renew, Kind::Reply);
            reply.ia.as_mut().unwrap().addresses[0].valid = 0;
        }
        let effects = client.received(&reply, SERVER, at(41.0));
        let [Effect::Unbound(why), Effect::Send(solicit)] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert!(why.contains("NoBinding"), "{why}");
        assert_eq!((solicit.kind, client.lease()), (Kind::Solicit, None));
    }
}

#[test]
fn a_lease_that_nobody_renews_expires_and_one_for_ever_does_not() {
    let mut client = bound();
    loop {
        let now = client.deadline().unwrap();
        if client.elapsed(now) == [Effect::Expired] {
            assert_eq!(now, at(80.0));
            break;
        }
    }
    let address = Address { address: ADDRESS, preferred: FOR_EVER, valid: FOR_EVER };
    assert_eq!(times(&Ia::default(), address).expire, None);
    let left_to_us = times(&Ia::default(), Address { preferred: 60, valid: 80, ..address });
    assert_eq!([left_to_us.renew.as_secs(), left_to_us.rebind.as_secs()], [30, 48]);
}

#[test]
fn a_lease_is_released_to_its_server() {
    assert_eq!(client().release(), None);
    let release = sent(&[bound().release().unwrap()]);
    assert_eq!((release.kind, release.server_id.as_slice()), (Kind::Release, &b"server"[..]));
    assert_eq!(release.ia.unwrap().addresses[0].address, ADDRESS);
}

#[test]
fn a_resumed_lease_goes_on_where_it_was() {
    let lease = bound().lease().unwrap().clone();
    for (now, phase) in [
        (20.0, Phase::Bound),
        (45.0, Phase::Renewing),
        (75.0, Phase::Rebinding),
        (81.0, Phase::Ended),
    ] {
        let mut client = Client::resume(b"\0\x04me".to_vec(), TIMING, 2, lease.clone());
        client.elapsed(at(now));
        assert_eq!(client.phase(), phase, "{now}");
    }
}

proptest! {
    /// Whatever comes, and whenever: it neither panics nor stops short.
    #[test]
    fn a_client_goes_on_whatever_comes(steps in proptest::collection::vec((0_u8..6, 0_u64..100_000), 1..80)) {
        let mut client = client();
        let mut now = at(0.0);
        let mut last = None;
        for (step, milliseconds) in steps {
            now = now + Duration::from_millis(milliseconds);
            let effects = match (step, &last) {
                (0, Some(message)) => client.received(&answer(message, Kind::Advertise), SERVER, now),
                (1, Some(message)) => client.received(&answer(message, Kind::Reply), SERVER, now),
                (2, Some(message)) => client.received(&refuse(message, Kind::Reply, 3), SERVER, now),
                _ => client.elapsed(client.deadline().map_or(now, |deadline| deadline.max(now))),
            };
            for effect in &effects {
                if let Effect::Send(message) = effect {
                    last = Some(message.clone());
                }
            }
            let has_lease = matches!(client.phase(), Phase::Bound | Phase::Renewing | Phase::Rebinding);
            prop_assert_eq!(client.lease().is_some(), has_lease);
            prop_assert_eq!(client.deadline().is_none(), client.phase() == Phase::Ended);
        }
    }
}
