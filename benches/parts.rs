//! The parts of a call that are not the kernel's: `cargo bench --bench parts`.
//!
//! Times of one part are for comparing one state of the code with another. What a call costs as a whole is
//! in `docs/budget.md`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::fs::File;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nix::errno::Errno;
use plumb::cli::network::Network;
use plumb::cni::env::{Command, Environment};
use plumb::cni::result::{CniResult, Interface, Ip, Route};
use plumb::cni::{NetConf, Request, Version};
use plumb::ipam::host_local::config::Config;
use plumb::ipam::host_local::index::{Entry, Index};
use plumb::ipam::host_local::range::{Range, RangeSet};
use plumb::net::{Mac, to_bits};
use plumb::nl::link::{Change, NewVeth, Target};
use plumb::nl::nft::set::{AddElement, Set};
use plumb::nl::nft::{self, Family, Table};
use plumb::nl::request::Request as NlRequest;
use plumb::nl::socket::{Channel, Datagram, Socket};
use plumb::nl::wire::{Flags, Messages};
use plumb::nl::{addr, link, route};
use plumb::plugins::bridge::conf::Conf;
use serde_json::Value;

const LABEL: &str =
    "plumb:net/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/eth0";

/// A kernel that answers every datagram with the same one, whose sequence number it makes fit.
struct Kernel(Vec<u8>);

impl Channel for Kernel {
    fn send(&mut self, datagram: &[u8]) -> Result<(), Errno> {
        let messages: Vec<_> = Messages::new(datagram).map(Result::unwrap).collect();
        // Of several requests one asks for an answer; of a transaction it is not the last message.
        let asks = messages.iter().find(|message| message.flags.contains(Flags::ACK));
        let sequence = asks.or(messages.last()).unwrap().sequence;
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno> {
        buffer[..self.0.len()].copy_from_slice(&self.0);
        Ok(Datagram { length: self.0.len(), sender: 0 })
    }
}

/// `NLMSG_ERROR` with the number 0 and the header of what it acknowledges, as the kernel sends it.
fn acknowledging() -> Socket<Kernel> {
    let mut ack = vec![0; 36];
    ack[..8].copy_from_slice(&[36, 0, 0, 0, 2, 0, 0, 1]);
    Socket::over(Kernel(ack))
}

/// Requests are built, handed to a kernel that does nothing, and its acknowledgement is read.
fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("requests");
    let mut socket = acknowledging();
    let netns = File::open("/proc/self/ns/net").unwrap();
    let target = Target::Name("vethzfbzf62rxzj");
    group.bench_function("veth pair, alias, up", |b| {
        b.iter(|| {
            let veth = NewVeth {
                name: "vethzfbzf62rxzj",
                mac: Mac([2, 0, 0, 0, 0, 1]),
                mtu: None,
                peer_name: "eth0",
                peer_mac: Mac([2, 0, 0, 0, 0, 2]),
                peer_netns: Some(netns.as_fd()),
            };
            let change = Change { alias: Some(LABEL), ..Change::default() };
            let alias = link::Set { target, change };
            let up = link::Set { target, change: Change { up: true, ..Change::default() } };
            socket.execute(black_box(&[&veth as &dyn NlRequest, &alias, &up])).unwrap();
        });
    });
    group.bench_function("up, address, default route", |b| {
        b.iter(|| {
            let change = Change { up: true, arp_notify: true, ..Change::default() };
            let up = link::Set { target: Target::Index(2), change };
            let cidr = "10.1.0.2/16".parse().unwrap();
            let address =
                addr::Add { link: 2, cidr, without_dad: true, without_prefix_route: false };
            let route = route::Add(route::Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: Some(Ipv4Addr::new(10, 1, 0, 1).into()),
                onlink: false,
                source: None,
                link: 2,
                table: route::TABLE_MAIN,
                priority: 0,
                scope: None,
                mtu: 0,
                advmss: 0,
            });
            socket.execute(black_box(&[&up as &dyn NlRequest, &address, &route])).unwrap();
        });
    });
    group.bench_function("element of a set", |b| {
        let table = Table { family: Family::Inet, name: "plumb" };
        b.iter(|| {
            let set = Set { table, name: "masq4_16" };
            let element = AddElement { set, key: &[10, 1, 0, 2, 10, 1, 0, 0], comment: LABEL };
            nft::commit(&mut socket, black_box(&[&element as &dyn NlRequest])).unwrap();
        });
    });
    group.finish();
}

/// A port of a bridge, as Linux 6.18 describes it.
fn answers(c: &mut Criterion) {
    let link = include_bytes!("../fuzz/seeds/netlink/link-14");
    let mut socket = Socket::over(Kernel(link[1..].to_vec()));
    c.bench_function("answers/link", |b| {
        b.iter(|| link::get(&mut socket, black_box(Target::Index(2))).unwrap().unwrap());
    });
}

/// What an engine sends to the bridge with a DEL, up to the plan of both plugins, and a network's file as
/// it lies in /etc/cni/net.d.
fn configurations(c: &mut Criterion) {
    let mut group = c.benchmark_group("configurations");
    let environment = |path: Vec<_>| Environment {
        command: Command::Add,
        container: "c1".into(),
        netns: String::new(),
        ifname: "eth0".into(),
        args: String::new(),
        path,
        netns_override: false,
    };
    for (name, engine) in [
        ("containerd, bridge", include_str!("../tests/fixtures/engines/ctr-bridge.json")),
        ("podman, dual stack", include_str!("../tests/fixtures/engines/podman-dual-stack.json")),
    ] {
        let scenario: Value = serde_json::from_str(engine).unwrap();
        let calls = scenario["calls"].as_array().unwrap();
        let call = calls.iter().find(|call| call["env"]["CNI_COMMAND"] == "ADD").unwrap();
        let stdin = call["stdin"].to_string().into_bytes();
        group.bench_function(name, |b| {
            b.iter(|| {
                let conf = NetConf::parse(black_box(&stdin)).unwrap();
                let request = Request::new(environment(Vec::new()), conf, Vec::new()).unwrap();
                (Conf::read(&request).unwrap(), Config::read(&request).unwrap())
            });
        });
    }
    let list = include_str!("../examples/dual-stack.conflist");
    group.bench_function("a network's file", |b| {
        b.iter(|| Network::parse(black_box(list)).unwrap());
    });
    group.finish();
}

/// Dual stack, in the oldest form of a result and the newest.
fn results(c: &mut Criterion) {
    let mut group = c.benchmark_group("results");
    let interface = |name: &str, mac: &str, sandbox: &str| Interface {
        name: name.into(),
        mac: mac.into(),
        mtu: 1500,
        sandbox: sandbox.into(),
        ..Interface::default()
    };
    let ip = |address: &str, gateway: &str| Ip {
        interface: Some(2),
        address: address.parse().unwrap(),
        gateway: gateway.parse().ok(),
    };
    let route = |dst: &str, gateway: &str| Route::via(dst.parse().unwrap(), gateway.parse().ok());
    let result = CniResult {
        interfaces: vec![
            interface("cni0", "02:00:00:00:00:01", ""),
            interface("vethzfbzf62rxzj", "02:00:00:00:00:02", ""),
            interface("eth0", "02:00:00:00:00:03", "/run/netns/pod"),
        ],
        ips: vec![ip("10.1.0.2/16", "10.1.0.1"), ip("fd01::2/64", "fd01::1")],
        routes: vec![route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd01::1")],
        ..CniResult::default()
    };
    for version in [Version::V0_1_0, Version::NEWEST] {
        group.bench_function(version.text(), |b| {
            b.iter(|| black_box(&result).to_json(black_box(version)));
        });
    }
    group.finish();
}

/// The next free address of a /16, through the index as ADD reads it, from a file in memory.
fn addresses(c: &mut Criterion) {
    let mut group = c.benchmark_group("addresses");
    let conf: Value = serde_json::from_str(r#"{"subnet": "10.1.0.0/16"}"#).unwrap();
    let range = Range::read(&plumb::cni::json::Node::root("range", &conf)).unwrap();
    let (start, end) = (to_bits(range.start), to_bits(range.end));
    let set = RangeSet::of(range);
    let address = |number: u128| plumb::net::from_bits(Ipv4Addr::UNSPECIFIED.into(), number);
    let leased = |numbers: &mut dyn Iterator<Item = u128>| {
        let entries: Vec<Entry> = numbers.map(|number| (address(number), None)).collect();
        let mut index = Index::open(tempfile::tempfile().unwrap()).unwrap();
        index.rebuild([1; 16], &entries).unwrap();
        index
    };
    for (name, index, last, expected) in [
        ("the first of none", leased(&mut std::iter::empty()), None, start),
        ("the last of all", leased(&mut (start..end)), None, end),
        // Behind the address given last all are leased.
        ("once around", leased(&mut (start + 9..=end)), Some(address(start + 8)), start),
    ] {
        let find = || {
            let mut rounds = set.rounds(black_box(last)).into_iter();
            rounds.find_map(|round| {
                index.next_free(IpAddr::V4(Ipv4Addr::UNSPECIFIED), round.from, round.to).unwrap()
            })
        };
        assert_eq!(find(), Some(expected), "{name}");
        group.bench_function(name, |b| b.iter(find));
    }
    group.finish();
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = requests, answers, configurations, results, addresses
}
criterion_main!(parts);
