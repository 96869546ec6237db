//! The floor: a static process that does no more than a runtime sees of a plugin, read its configuration and
//! print a result; and the bare requests that the job can't do without, which this program itself sends: no
//! checks, no way back, nothing looked at.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use plumb::cni::Attachment;
use plumb::net::Cidr;
use plumb::nl::bridge_vlan::{self, Range, Treatment};
use plumb::nl::link::{
    Change, Child, Delete, LOOPBACK_INDEX, Move, NewChild, NewVeth, Set, SetDown, Target,
};
use plumb::nl::nft::set::{self, AddElement, DeleteElement};
use plumb::nl::request::Request;
use plumb::nl::route::Route;
use plumb::nl::{Family, Socket, addr, link, nft, route};
use plumb::plugins::masquerade;
use plumb::sys::netns::Netns;
use plumb::sys::tun::{self, Tun};
use std::os::fd::AsFd;

use crate::contender::{Process, Scenario, VLAN, Verb, Work};
use crate::stage::{DEVICE, Host, LEASES, Pod, VLAN_BRIDGE, master_of};

/// What the process is. Its result, if there is one, is its argument.
const SOURCE: &[u8] = br#"
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    static char configuration[4096];
    while (read(0, configuration, sizeof configuration) > 0);
    return argc > 1 && write(1, argv[1], strlen(argv[1])) < 0;
}
"#;

/// The process.
pub struct Floor {
    pub program: PathBuf,
}

impl Floor {
    /// Compiles it.
    pub fn compile(program: &Path) -> Result<()> {
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-O2", "-x", "c", "-", "-o"]).arg(program);
        let mut compiler = compiler.stdin(Stdio::piped()).spawn().context("cc")?;
        let mut source = compiler.stdin.take().context("cc")?;
        source.write_all(SOURCE)?;
        drop(source);
        ensure!(compiler.wait()?.success(), "cc can't build a static program");
        Ok(())
    }

    pub fn prepare<'a>(
        &self,
        verb: Verb,
        scenario: &'a Scenario,
        network: &str,
        host: &Host,
        pod: &'a Pod,
    ) -> Call<'a> {
        let configuration = scenario.configuration(network).to_string().into_bytes();
        // Addresses that no lease of the same network has.
        let addresses = scenario.addresses(50_000 + pod.number);
        let leases = addresses.iter().map(|a| Path::new(LEASES).join(network).join(a)).collect();
        let cidrs = addresses.iter().filter_map(|a| a.parse().ok()).map(|address: IpAddr| Cidr {
            address,
            prefix: if address.is_ipv4() { 16 } else { 64 },
        });
        let gateways = scenario.addresses(1);
        let mut process = Command::new(&self.program);
        process.env_clear();
        if verb != Verb::Del {
            process.arg("{}");
        }
        Call {
            process: Process::new(process, configuration),
            verb,
            scenario,
            attachment: Attachment {
                network: network.into(),
                container: pod.name.clone(),
                ifname: "eth0".into(),
            },
            cidrs: cidrs.collect(),
            gateways: gateways.iter().filter_map(|a| a.parse().ok()).collect(),
            leases: if scenario.leases() { leases } else { Vec::new() },
            bridge: host.bridge,
            pod,
        }
    }
}

/// One attachment's bare work.
pub struct Call<'a> {
    process: Process,
    verb: Verb,
    scenario: &'a Scenario,
    attachment: Attachment,
    cidrs: Vec<Cidr>,
    gateways: Vec<IpAddr>,
    leases: Vec<PathBuf>,
    bridge: u32,
    pod: &'a Pod,
}

impl Call<'_> {
    pub fn run(&mut self) -> Result<()> {
        self.process.run()?;
        match self.verb {
            Verb::Version => Ok(()),
            Verb::Add => self.add(),
            Verb::Del => self.del(),
        }
    }

    fn add(&self) -> Result<()> {
        for lease in &self.leases {
            File::create_new(lease)?.write_all(self.attachment.container.as_bytes())?;
        }
        match self.scenario.work {
            Work::Nothing | Work::Lease => Ok(()),
            Work::Port => self.add_port(),
            Work::MasqueradedPort => self.add_port().and_then(|()| self.add_element()),
            Work::VlanPort => self.add_vlan_port(),
            Work::Pair => self.add_pair(),
            Work::MasqueradedPair => self.add_pair().and_then(|()| self.add_element()),
            Work::Child(child) => self.add_child(child),
            Work::Tap => self.add_tap(),
            Work::Device => self.give_device(),
            Work::Loopback => self.set_loopback_up(),
        }
    }

    fn del(&self) -> Result<()> {
        let mut rules = None;
        if self.masquerades() {
            let key = self.element();
            nft::commit(rules.insert(nft::open()?), &[&DeleteElement { set: SET, key: &key }])?;
        }
        match self.scenario.work {
            Work::Nothing | Work::Lease => {}
            Work::Port
            | Work::MasqueradedPort
            | Work::VlanPort
            | Work::Pair
            | Work::MasqueradedPair => {
                let name = self.attachment.host_link();
                Socket::open(Family::Route)?.execute(&[&Delete(Target::Name(&name))])?;
            }
            Work::Child(_) | Work::Tap => {
                let eth0 = Target::Name(&self.attachment.ifname);
                self.enter()?.execute(&[&Delete(eth0)])?;
            }
            Work::Device => self.take_device_back()?,
            Work::Loopback => self.enter()?.execute(&[&SetDown(LOOPBACK)])?,
        }
        // Closing waits for the element to be freed, and that was over before the link was deleted.
        drop(rules);
        for lease in &self.leases {
            fs::remove_file(lease)?;
        }
        Ok(())
    }

    /// A veth pair, its host end a port of the bridge.
    fn add_port(&self) -> Result<()> {
        let name = self.attachment.host_link();
        let mut host = Socket::open(Family::Route)?;
        let netns = self.netns()?;
        let up = Set { target: Target::Name(&name), change: UP };
        host.execute(&[&self.pair(&name, &netns), &up])?;
        self.configure_container(&netns, |link| self.default_routes(link))?;
        let change = Change { master: Some(self.bridge), ..Change::default() };
        host.execute(&[&Set { target: Target::Name(&name), change }])?;
        Ok(())
    }

    /// A veth pair, its host end a port in a VLAN before it comes up. The bridge is the one that Plumb has made.
    fn add_vlan_port(&self) -> Result<()> {
        let name = self.attachment.host_link();
        let mut host = Socket::open(Family::Route)?;
        let netns = self.netns()?;
        host.execute(&[&self.pair(&name, &netns)])?;
        let port = link::index_of(&mut host, &name)?.context("the host's link")?;
        let master = link::index_of(&mut host, VLAN_BRIDGE)?;
        let target = Target::Index(port);
        let join = Set { target, change: Change { master, ..Change::default() } };
        let leave = bridge_vlan::Remove { link: port, vlan: DEFAULT_VLAN };
        let ranges = [Range::one(VLAN, Treatment::NATIVE)];
        let enter = bridge_vlan::Add { link: port, ranges: &ranges };
        host.execute(&[&join, &leave, &enter, &Set { target, change: UP }])?;
        self.configure_container(&netns, |link| self.default_routes(link))
    }

    /// A veth pair, its host end the gateway.
    fn add_pair(&self) -> Result<()> {
        let name = self.attachment.host_link();
        let mut host = Socket::open(Family::Route)?;
        let netns = self.netns()?;
        host.execute(&[&self.pair(&name, &netns)])?;
        let link = link::index_of(&mut host, &name)?.context("the host's link")?;
        let up = Set { target: Target::Index(link), change: UP };
        let gateways: Vec<_> = self.gateways.iter().copied().map(Cidr::host).collect();
        let addresses = addresses_of(link, &gateways, false);
        let routes = self.cidrs.iter().map(|cidr| {
            let container = Cidr::host(cidr.address);
            let scope = Some(libc::RT_SCOPE_HOST);
            route::Add(Route { scope, ..Route::through(link, container) })
        });
        let routes: Vec<_> = routes.collect();
        host.execute(&[as_requests(&addresses), vec![&up], as_requests(&routes)].concat())?;
        self.configure_container(&netns, |link| {
            let gateways = self.gateways.iter().zip(&self.cidrs);
            let routes = gateways.flat_map(|(gateway, cidr)| {
                let network = Cidr { address: cidr.network(), ..*cidr };
                let on_link = Route::through(link, Cidr::host(*gateway));
                [on_link, Route { gateway: Some(*gateway), ..Route::through(link, network) }]
            });
            routes.map(route::Add).chain(self.default_routes(link)).collect()
        })
    }

    /// A link that is made in the container.
    fn add_child(&self, child: Child) -> Result<()> {
        let mut host = Socket::open(Family::Route)?;
        let netns = self.netns()?;
        let master = match child {
            Child::Dummy => None,
            _ => link::index_of(&mut host, &master_of(child))?,
        };
        host.execute(&[&NewChild {
            name: &self.attachment.ifname,
            index: None,
            netns: Some(netns.as_fd()),
            master,
            mtu: None,
            mac: None,
            child,
        }])?;
        self.configure_container(&netns, |link| self.default_routes(link))
    }

    /// A link that a file in the container becomes.
    fn add_tap(&self) -> Result<()> {
        let netns = self.netns()?;
        let tap = netns.inside(Tun::open)??;
        tun::make_tap(tap.as_fd(), &self.attachment.ifname, false)?;
        self.configure_container(&netns, |link| self.default_routes(link))?;
        Ok(tap.stay()?)
    }

    fn give_device(&self) -> Result<()> {
        let mut host = Socket::open(Family::Route)?;
        let netns = self.netns()?;
        let link = link::index_of(&mut host, DEVICE)?.context("the host's device")?;
        host.execute(&[&Move { link, netns: netns.as_fd(), name: &self.attachment.ifname }])?;
        self.configure_container(&netns, |link| self.default_routes(link))
    }

    fn take_device_back(&self) -> Result<()> {
        let netns = self.netns()?;
        let mut container = netns.inside(|| Socket::open(Family::Route))??;
        let link = link::index_of(&mut container, &self.attachment.ifname)?;
        let link = link.context("the container's device")?;
        container.execute(&[&Move { link, netns: netns.host()?, name: DEVICE }])?;
        let up = Set { target: Target::Name(DEVICE), change: UP };
        Ok(Socket::open(Family::Route)?.execute(&[&up])?)
    }

    fn set_loopback_up(&self) -> Result<()> {
        let up = Set { target: LOOPBACK, change: UP };
        addr::execute_then_list(&mut self.enter()?, &[&up], LOOPBACK_INDEX)?;
        Ok(())
    }

    fn pair<'a>(&'a self, name: &'a str, netns: &'a Netns) -> NewVeth<'a> {
        NewVeth {
            name,
            mac: self.attachment.host_mac(),
            mtu: None,
            peer_name: &self.attachment.ifname,
            peer_mac: self.attachment.container_mac(),
            peer_netns: Some(netns.as_fd()),
        }
    }

    /// Brings the container's link up, with its addresses and these routes.
    fn configure_container(
        &self,
        netns: &Netns,
        routes: impl Fn(u32) -> Vec<route::Add>,
    ) -> Result<()> {
        let inside = netns.inside(|| {
            let mut socket = Socket::open(Family::Route)?;
            let index = link::index_of(&mut socket, &self.attachment.ifname)?;
            Ok::<_, plumb::nl::Error>((socket, index))
        });
        let (mut container, index) = inside??;
        let index = index.context("the container's link")?;
        let up = Set { target: Target::Index(index), change: UP };
        let own_routes = matches!(self.scenario.work, Work::Pair | Work::MasqueradedPair);
        let addresses = addresses_of(index, &self.cidrs, own_routes);
        let routes = routes(index);
        let up: Vec<&dyn Request> = vec![&up];
        container.execute(&[up, as_requests(&addresses), as_requests(&routes)].concat())?;
        Ok(())
    }

    fn default_routes(&self, link: u32) -> Vec<route::Add> {
        let route = |gateway: &IpAddr| {
            let any = if gateway.is_ipv4() { IpAddr::V4(0.into()) } else { IpAddr::V6(0.into()) };
            let destination = Cidr { address: any, prefix: 0 };
            route::Add(Route { gateway: Some(*gateway), ..Route::through(link, destination) })
        };
        self.gateways.iter().map(route).collect()
    }

    fn netns(&self) -> Result<Netns> {
        Netns::open(&self.pod.path).map_err(|why| anyhow!("{}: {why}", self.pod.path.display()))
    }

    /// Moves this thread into the container, as a process would that has nothing to do elsewhere. It is the
    /// turn's own, and the next turn has another.
    fn enter(&self) -> Result<Socket> {
        self.netns()?.enter()?;
        Ok(Socket::open(Family::Route)?)
    }

    fn masquerades(&self) -> bool {
        matches!(self.scenario.work, Work::MasqueradedPort | Work::MasqueradedPair)
    }

    fn add_element(&self) -> Result<()> {
        let (key, label) = (self.element(), self.attachment.label());
        let element = AddElement { set: SET, key: &key, comment: &label };
        nft::commit(&mut nft::open()?, &[&element])?;
        Ok(())
    }

    /// Key of the container's element in Plumb's set: its address, and its network's.
    fn element(&self) -> Vec<u8> {
        let mut key = Vec::new();
        for cidr in &self.cidrs {
            for address in [cidr.address, cidr.network()] {
                if let IpAddr::V4(address) = address {
                    key.extend(address.octets());
                }
            }
        }
        key
    }
}

/// What a bridge puts a new port in.
const DEFAULT_VLAN: u16 = 1;

/// What Plumb's plugins have made by now.
const SET: set::Set<'_> = set::Set { table: masquerade::TABLE, name: "masq4_16" };

const UP: Change<'_> = Change {
    up: true,
    promiscuous: false,
    master: None,
    mac: None,
    mtu: None,
    alias: None,
    port: None,
    arp_notify: false,
};

const LOOPBACK: Target<'_> = Target::Index(LOOPBACK_INDEX);

fn addresses_of(link: u32, cidrs: &[Cidr], without_prefix_route: bool) -> Vec<addr::Add> {
    let add =
        |cidr: &Cidr| addr::Add { link, cidr: *cidr, without_dad: true, without_prefix_route };
    cidrs.iter().map(add).collect()
}

fn as_requests<R: Request>(requests: &[R]) -> Vec<&dyn Request> {
    requests.iter().map(|request| request as &dyn Request).collect()
}
