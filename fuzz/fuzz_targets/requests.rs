//! Encode, decode, encode: any tree of attributes, any bytes, and our own requests, whose objects must
//! read back as the kernel would tell them.
#![no_main]

use std::net::IpAddr;
use std::os::fd::AsFd;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plumb::net::{Cidr, Mac, width};
use plumb::nl::link::{Change, NewBridge, NewVeth, PortFlags, Target};
use plumb::nl::nft::rule::{AppendRule, Base, Compare, Expression, Meta, Register};
use plumb::nl::nft::set::{AddElement, COMMENT_MAX, Set};
use plumb::nl::nft::{self, Table};
use plumb::nl::request::Request;
use plumb::nl::route::Route;
use plumb::nl::wire::{Attribute, Attributes, Encoder, Flags, Message, Messages, NESTED};
use plumb::nl::{Family, addr, link, nft::rule, nft::set, pretty, route};
use plumb_fuzz::{parrot, sent};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Trees(Vec<(u16, u16, u32, Vec<Tree>)>),
    Bytes(&'a [u8]),
    Address(Network, u32, [bool; 2]),
    Route {
        destination: Network,
        gateway: Option<IpAddr>,
        onlink: bool,
        source: Option<IpAddr>,
        numbers: [u32; 5],
        scope: Option<u8>,
    },
    Bridge(Name<'a>, [u8; 6], Option<u32>, [bool; 2]),
    Veth {
        names: [Name<'a>; 2],
        macs: [[u8; 6]; 2],
        mtu: Option<u32>,
    },
    Change {
        index: u32,
        flags: [bool; 5],
        alias: Option<Name<'a>>,
        mac: Option<[u8; 6]>,
        master: Option<u32>,
        mtu: Option<u32>,
    },
    Named(u32, [Name<'a>; 2]),
    Element(Name<'a>, &'a [u8], Name<'a>),
    Set(Name<'a>, Vec<u8>),
    Rule {
        set: Name<'a>,
        numbers: [u32; 3],
        bytes: &'a [u8],
        inverted: bool,
    },
}

#[derive(Arbitrary, Debug)]
enum Tree {
    Leaf(u16, Vec<u8>),
    Nest(u16, Vec<Tree>),
}

/// Text without NUL, which ends the kernel's.
#[derive(Debug)]
struct Name<'a>(&'a str);

impl<'a> Arbitrary<'a> for Name<'a> {
    fn arbitrary(input: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        let text: &str = input.arbitrary()?;
        Ok(Self(text.split('\0').next().unwrap_or_default()))
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Network(IpAddr, u8);

impl Network {
    fn cidr(self) -> Cidr {
        Cidr { address: self.0, prefix: self.1 % (width(self.0) + 1) }
    }
}

/// Types of attributes have 14 bits.
const KIND: u16 = 0x3fff;

impl Tree {
    fn write(&self, out: &mut Encoder) {
        match self {
            Self::Leaf(kind, bytes) => out.put(kind & KIND, bytes.as_slice()),
            Self::Nest(kind, inner) => {
                out.nest(kind & KIND | NESTED, |out| inner.iter().for_each(|tree| tree.write(out)));
            }
        }
    }

    /// Writes what was read, in the shape of this.
    fn write_again(&self, attribute: Attribute<'_>, out: &mut Encoder) {
        match self {
            Self::Leaf(..) => out.put(attribute.kind, attribute.payload),
            Self::Nest(_, inner) => out.nest(attribute.kind | NESTED, |out| {
                again(inner, attribute.nested(), out);
            }),
        }
    }
}

fn again(trees: &[Tree], attributes: Attributes<'_>, out: &mut Encoder) {
    let attributes: Vec<_> = attributes.map(Result::unwrap).collect();
    assert_eq!(attributes.len(), trees.len());
    trees.iter().zip(attributes).for_each(|(tree, attribute)| tree.write_again(attribute, out));
}

fn trees(messages: &[(u16, u16, u32, Vec<Tree>)]) {
    let mut encoder = Encoder::new();
    for (kind, flags, sequence, trees) in messages {
        encoder.message(*kind, Flags::from_bits_retain(*flags), *sequence, |out| {
            trees.iter().for_each(|tree| tree.write(out));
        });
    }
    let Some(bytes) = encoder.bytes() else { return };
    let mut second = Encoder::new();
    let read: Vec<_> = Messages::new(bytes).map(Result::unwrap).collect();
    assert_eq!(read.len(), messages.len());
    for (message, (.., trees)) in read.into_iter().zip(messages) {
        second.message(message.kind, message.flags, message.sequence, |out| {
            again(trees, Attributes::new(message.payload), out);
        });
    }
    assert_eq!(second.bytes(), Some(bytes));
}

/// What can be read of any bytes is written such that the same is read.
fn bytes(bytes: &[u8]) {
    let mut encoder = Encoder::new();
    let read: Vec<_> = Messages::new(bytes).flatten().collect();
    for message in &read {
        encoder.message(message.kind, message.flags, message.sequence, |out| {
            for attribute in Attributes::new(message.payload).flatten() {
                out.put(attribute.kind, attribute.payload);
            }
        });
    }
    let Some(written) = encoder.bytes() else { return };
    let list = |payload| -> Vec<_> {
        Attributes::new(payload).flatten().map(|a| (a.kind, a.payload.to_vec())).collect()
    };
    let again: Vec<_> = Messages::new(written).map(Result::unwrap).collect();
    assert_eq!(again.len(), read.len());
    for (old, new) in read.iter().zip(&again) {
        assert_eq!((old.kind, old.flags, old.sequence), (new.kind, new.flags, new.sequence));
        assert_eq!(list(old.payload), list(new.payload));
    }
}

/// The messages of a request of ours, each of which has a name in all its parts.
fn named(family: Family, datagram: &[u8]) -> Vec<Message<'_>> {
    for message in pretty::messages(family, datagram) {
        let text = message.to_string();
        for line in text.lines() {
            let line = line.trim_start();
            assert!(!line.starts_with("type ") && !line.starts_with("malformed"), "{text}");
        }
    }
    Messages::new(datagram).map(Result::unwrap).collect()
}

/// The message of this kind as the kernel would tell of the object, with the end of a dump.
fn told(messages: &[Message<'_>], kind: u16) -> Option<Vec<u8>> {
    let message = messages.iter().find(|message| message.kind == kind)?;
    let mut answer = Encoder::new();
    answer.message(kind, Flags::empty(), 0, |out| out.raw(message.payload));
    answer.message(3, Flags::empty(), 0, |out| out.raw(&0_i32.to_ne_bytes()));
    answer.bytes().map(<[u8]>::to_vec)
}

fn answer(family: Family, request: &dyn Request) -> Option<Vec<u8>> {
    let datagram = sent(|socket| match family {
        Family::Route => socket.execute(&[request]),
        Family::Netfilter => nft::commit(socket, &[request]),
    });
    told(&named(family, &datagram), request.kind())
}

const TABLE: Table<'_> = Table { family: nft::Family::Inet, name: "plumb" };

fn read_back(input: &Input<'_>) -> Option<()> {
    match *input {
        Input::Trees(..) | Input::Bytes(..) => {}
        Input::Address(network, link, [without_dad, without_prefix_route]) => {
            let cidr = network.cidr();
            let answer = answer(
                Family::Route,
                &addr::Add { link, cidr, without_dad, without_prefix_route },
            )?;
            let read = addr::of_link(&mut parrot(&answer), link).unwrap();
            assert_eq!(read.iter().map(|a| (a.link, a.cidr)).collect::<Vec<_>>(), [(link, cidr)]);
        }
        Input::Route { destination, gateway, onlink, source, numbers, scope } => {
            let [link, table, priority, mtu, advmss] = numbers;
            let cidr = destination.cidr();
            let destination = Cidr { address: cidr.network(), ..cidr };
            let new = Route {
                destination,
                gateway,
                onlink,
                source,
                link,
                table,
                priority,
                scope,
                mtu,
                advmss,
            };
            let answer = answer(Family::Route, &route::Add(new))?;
            // Both families are asked after, and the parrot knows one answer.
            let read = route::of_link(&mut parrot(&answer), link).unwrap();
            let [read, _] = read.try_into().unwrap();
            assert_eq!(Route { scope, ..read }, new);
            assert!(scope.is_none() || read.scope == scope);
        }
        Input::Bridge(Name(name), mac, mtu, [multicast_snooping, vlan_filtering]) => {
            let mac = Mac(mac);
            let new = NewBridge { name, mac, mtu, multicast_snooping, vlan_filtering };
            let answer = answer(Family::Route, &new)?;
            let read = link::get(&mut parrot(&answer), Target::Index(1)).unwrap().unwrap();
            assert_eq!((read.name.as_str(), read.mac), (name, Some(mac)));
            assert_eq!(read.mtu, mtu.unwrap_or(0));
            assert!(read.is_bridge() && !read.up && read.vlan_filtering == vlan_filtering);
        }
        Input::Veth { ref names, macs, mtu } => {
            let [name, peer_name] = names.each_ref().map(|name| name.0);
            let [mac, peer_mac] = macs.map(Mac);
            let stdin = std::io::stdin();
            let peer_netns = Some(stdin.as_fd());
            let new = NewVeth { name, mac, mtu, peer_name, peer_mac, peer_netns };
            let answer = answer(Family::Route, &new)?;
            let read = link::get(&mut parrot(&answer), Target::Index(1)).unwrap().unwrap();
            assert_eq!(
                (read.name.as_str(), read.mac, read.mtu),
                (name, Some(mac), mtu.unwrap_or(0))
            );
            assert!(read.is_veth() && !read.up);
        }
        Input::Change { index, flags, ref alias, mac, master, mtu } => {
            let [up, promiscuous, hairpin, isolated, arp_notify] = flags;
            let port = Some(PortFlags { hairpin, isolated });
            let alias = alias.as_ref().map(|alias| alias.0);
            let mac = mac.map(Mac);
            let change = Change { up, promiscuous, master, mtu, mac, alias, port, arp_notify };
            let answer =
                answer(Family::Route, &link::Set { target: Target::Index(index), change })?;
            let read = link::get(&mut parrot(&answer), Target::Index(index)).unwrap().unwrap();
            assert_eq!((read.index, read.up, read.promiscuous), (index, up, promiscuous));
            assert_eq!((read.alias.as_deref(), read.mac, Some(read.port)), (alias, mac, port));
            assert_eq!((read.master, read.mtu), (master, mtu.unwrap_or(0)));
        }
        Input::Named(link, ref names) => {
            let [name, other] = names.each_ref().map(|name| name.0);
            let (stdin, target) = (std::io::stdin(), Target::Index(link));
            let to = link::Move { link, netns: stdin.as_fd(), name };
            let rename = link::Rename { link, name };
            for request in [&to as &dyn Request, &rename] {
                let answer = answer(Family::Route, request)?;
                let read = link::get(&mut parrot(&answer), target).unwrap().unwrap();
                assert_eq!((read.index, read.name.as_str()), (link, name));
            }
            let add = link::AddAltName { target, name: other };
            let delete = link::DeleteAltName { target, name: other };
            let datagram = sent(|socket| socket.execute(&[&add, &delete]));
            assert_eq!(named(Family::Route, &datagram).len(), 2);
        }
        Input::Element(Name(name), key, Name(comment)) => {
            let set = Set { table: TABLE, name };
            let answer = answer(Family::Netfilter, &AddElement { set, key, comment })?;
            let [read] = set::elements(&mut parrot(&answer), set).unwrap().try_into().unwrap();
            assert_eq!(read.key, key);
            if comment.len() <= COMMENT_MAX {
                assert_eq!(read.comment, comment);
            }
        }
        Input::Set(Name(name), ref fields) => {
            use plumb::nl::nft::set::Field::{Ether, Ifname, Ipv4, Ipv6};
            let field = |number: &u8| [Ipv4, Ipv6, Ether, Ifname][usize::from(number % 4)];
            let key: Vec<_> = fields.iter().take(4).map(field).collect();
            let new = set::New { table: TABLE, name, key: &key };
            let answer = answer(Family::Netfilter, &new)?;
            assert_eq!(set::names(&mut parrot(&answer), TABLE).unwrap(), [name]);
        }
        Input::Rule { set: Name(set), numbers: [offset, length, register], bytes, inverted } => {
            let register = Register(register);
            let mask = bytes.get(..16).unwrap_or(bytes);
            let expressions = [
                Expression::Meta { key: Meta::InputName, to: register },
                Expression::Payload { base: Base::Link, offset, length, to: register },
                Expression::Mask { register, mask },
                Expression::Compare { register, operation: Compare::Equal, with: bytes },
                Expression::Lookup { set, register, inverted },
                Expression::Masquerade,
                Expression::Drop,
            ];
            let new = AppendRule { table: TABLE, chain: "postrouting", expressions: &expressions };
            let answer = answer(Family::Netfilter, &new)?;
            assert!(rule::looks_up(&mut parrot(&answer), TABLE, "postrouting", set).unwrap());
        }
    }
    Some(())
}

fuzz_target!(|input: Input<'_>| {
    match &input {
        Input::Trees(messages) => trees(messages),
        Input::Bytes(any) => bytes(any),
        // What is too long for its lengths is not sent.
        other => drop(read_back(other)),
    }
});
