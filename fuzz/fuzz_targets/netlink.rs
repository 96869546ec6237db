//! What comes out of a netlink socket: through the pretty printer, and through the readers of all
//! objects. The first byte says of which family it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb::net::width;
use plumb::nl::link::Target;
use plumb::nl::nft::set::Set;
use plumb::nl::nft::{self, Table, chain, foreign, rule, set};
use plumb::nl::{Family, addr, link, pretty, route};
use plumb_fuzz::parrot;

fuzz_target!(|data: &[u8]| {
    let Some((first, datagram)) = data.split_first() else { return };
    let family = if first & 1 == 0 { Family::Route } else { Family::Netfilter };
    for message in pretty::messages(family, datagram) {
        assert!(!message.to_string().is_empty());
    }
    match family {
        Family::Route => {
            let _ = link::get(&mut parrot(datagram), Target::Name("eth0"));
            let _ = link::list(&mut parrot(datagram));
            if let Ok(addresses) = addr::of_link(&mut parrot(datagram), 2) {
                let sound =
                    |a: &addr::Address| a.link == 2 && a.cidr.prefix <= width(a.cidr.address);
                assert!(addresses.iter().all(sound), "{addresses:?}");
            }
            if let Ok(routes) = route::of_link(&mut parrot(datagram), 2) {
                let sound = |r: &route::Route| {
                    r.link == 2 && r.destination.prefix <= width(r.destination.address)
                };
                assert!(routes.iter().all(sound), "{routes:?}");
            }
        }
        Family::Netfilter => {
            let table = Table { family: nft::Family::Inet, name: "plumb" };
            let set = Set { table, name: "masq4_16" };
            let _ = set::element(&mut parrot(datagram), set, &[10, 1, 0, 2, 10, 1, 0, 0]);
            let _ = set::elements(&mut parrot(datagram), set);
            let _ = chain::list(&mut parrot(datagram));
            let _ = foreign::rules(&mut parrot(datagram), table, "POSTROUTING");
            let _ = set::names(&mut parrot(datagram), table);
            let _ = rule::looks_up(&mut parrot(datagram), table, "postrouting", "masq4_16");
        }
    }
});
