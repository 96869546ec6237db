//! What comes from a container's network, and over the daemon's socket. Packets, each behind its length in two
//! bytes, reach a client as they come; the first byte says how.
#![no_main]

use std::net::Ipv4Addr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use plumb::cni::json::Node;
use plumb::ipam::dhcp::life::{Phase, Timing};
use plumb::ipam::dhcp::protocol::{Answer, Frames, Request};
use plumb::ipam::dhcp::terms::Terms;
use plumb::ipam::dhcp::v4::client::{Broadcast, Client, Conf, Effect, Listens, Probing};
use plumb::ipam::dhcp::v4::frame::{Checksum, Datagram};
use plumb::ipam::dhcp::v4::message::Message;
use plumb::ipam::dhcp::v4::terms;
use plumb::ipam::dhcp::v6;
use plumb::net::{Mac, width};
use plumb::sys::arp::Arp;
use plumb::sys::clock::Time;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    match first & 3 {
        0 => speak(data, 3),
        2 => speak(data, data.len().max(1)),
        1 => listen(data),
        _ => listen_to_ipv6(data),
    }
});

/// What a plugin or the daemon may hear from the other.
fn speak(data: &[u8], size: usize) {
    let mut frames = Frames::default();
    for piece in data.chunks(size) {
        frames.push(piece);
        while let Ok(Some(value)) = frames.take() {
            if let Ok(request) = Request::read(&value) {
                assert_eq!(again(&request.frame(), Request::read), request);
            }
            if let Ok(answer) = Answer::read(&value) {
                let _ = answer.frame();
            }
        }
    }
}

fn again<T>(frame: &[u8], read: fn(&serde_json::Value) -> Result<T, plumb::cni::Error>) -> T {
    let mut frames = Frames::default();
    frames.push(frame);
    let value = frames.take().expect("our own").expect("whole");
    read(&value).expect("our own")
}

fn timing() -> Timing {
    let second = Duration::from_secs(1);
    Timing {
        timeout: 10 * second,
        resend_max: 62 * second,
        resend_timeout: 208 * second,
        probe: second / 5,
    }
}

/// The same with IPv6.
fn listen_to_ipv6(mut data: &[u8]) {
    use v6::client::Effect;
    use v6::message::Message;
    let id = vec![0, 4, 1];
    let mut now = Time::after_boot(Duration::from_secs(1));
    let mut client = v6::client::Client::new(id.clone(), timing(), 1, now);
    let sent = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Send(message) => Some(message.xid),
            _ => None,
        })
    };
    let mut xid = sent(&client.elapsed(now)).unwrap_or_default();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (datagram, rest) = rest.split_at(length);
        data = rest;
        let effects = match Message::decode(datagram) {
            Ok(message) => {
                let written = Message::decode(&message.encode()).expect("our own");
                assert_eq!((written.kind, written.xid), (message.kind, message.xid));
                let message = Message { xid, client_id: id.clone(), ..message };
                client.received(&message, std::net::Ipv6Addr::LOCALHOST, now)
            }
            Err(_) => {
                now = client.deadline().unwrap_or(now).max(now);
                client.elapsed(now)
            }
        };
        xid = sent(&effects).unwrap_or(xid);
        if let Some(lease) = client.lease() {
            let times = lease.terms.times;
            assert!(times.renew <= times.rebind);
            assert!(times.expire.is_none_or(|expire| times.rebind <= expire));
            let kept = lease.terms.to_value();
            assert_eq!(Terms::read_json(&Node::root("", &kept)).expect("our own"), lease.terms);
        }
    }
}

/// A client, and whatever comes from its network.
fn listen(mut data: &[u8]) {
    let timing = timing();
    let conf = Conf {
        mac: MAC,
        client_id: vec![0, b'c'],
        requested: vec![1, 3, 121],
        provided: Vec::new(),
        broadcast: Broadcast::WhenNeeded,
        probe: Probing::On,
    };
    let mut now = Time::after_boot(Duration::from_secs(1));
    let mut client = Client::new(conf, timing, 1, now);
    let mut xid = sent_xid(&client.elapsed(now)).unwrap_or_default();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        data = rest;
        if let Some(arp) = Arp::read(packet) {
            assert_eq!(arp.encode(), packet[..28]);
            let _ = arp.is_of_another_user(Ipv4Addr::LOCALHOST, MAC);
        }
        let datagram = Datagram::read(packet, Checksum::NotComputedYet);
        let payload = datagram.map_or(packet, |datagram| datagram.payload);
        let effects = match Message::decode(payload) {
            Ok(message) => {
                let written = Message::decode(&message.encode()).expect("our own");
                assert_eq!(written.kind(), message.kind());
                check_terms(&message);
                // A fuzzer does not guess these.
                client.received(&Message { xid, mac: MAC, is_reply: true, ..message }, now)
            }
            Err(_) if packet.first() == Some(&b'c') => client.conflict(now),
            Err(_) => {
                now = client.deadline().unwrap_or(now).max(now);
                client.elapsed(now)
            }
        };
        xid = sent_xid(&effects).unwrap_or(xid);
        let has_lease = matches!(client.phase(), Phase::Bound | Phase::Renewing | Phase::Rebinding);
        assert_eq!(client.lease().is_some(), has_lease);
        assert!(client.phase() != Phase::Bound || client.listens() == Listens::Nothing);
    }
}

fn sent_xid(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send(message, _) => Some(message.xid),
        _ => None,
    })
}

fn check_terms(message: &Message) {
    let Ok(terms) = terms::read(message) else { return };
    let kept = terms.to_value();
    assert_eq!(Terms::read_json(&Node::root("", &kept)).expect("our own"), terms);
    for route in &terms.routes {
        assert!(
            route.to.prefix <= width(route.to.address) && route.to.network() == route.to.address
        );
    }
    let times = terms.times;
    assert!(times.renew <= times.rebind);
    assert!(times.expire.is_none_or(|expire| times.rebind <= expire));
    assert_eq!(terms.result(1).ips.len(), 1);
}
