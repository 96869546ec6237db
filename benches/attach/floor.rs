//! The floor: a static process that does nothing, and the bare requests that the job can't do without,
//! which this program itself sends: no configuration, no checks, no way back, no result.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use plumb::cni::Attachment;
use plumb::net::Cidr;
use plumb::nl::link::{Change, Delete, NewVeth, Set, Target};
use plumb::nl::nft::set::{self, AddElement, DeleteElement};
use plumb::nl::request::Request;
use plumb::nl::route::Route;
use plumb::nl::{Family, Socket, addr, link, nft, route};
use plumb::plugins::masquerade;
use plumb::sys::netns::Netns;
use std::os::fd::AsFd;

use crate::contender::{Process, Scenario, Verb};
use crate::stage::{Host, LEASES, Pod};

/// The process that does nothing.
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
        source.write_all(b"int main(void) { return 0; }\n")?;
        drop(source);
        ensure!(compiler.wait()?.success(), "cc can't build a static program");
        Ok(())
    }

    pub fn prepare<'a>(
        &self,
        verb: Verb,
        scenario: Scenario,
        network: &str,
        host: &Host,
        pod: &'a Pod,
    ) -> Call<'a> {
        // Addresses that no lease of the same network has.
        let addresses = scenario.addresses(50_000 + pod.number);
        let leases = addresses.iter().map(|a| Path::new(LEASES).join(network).join(a)).collect();
        let cidrs = addresses.iter().filter_map(|a| a.parse().ok()).map(|address: IpAddr| Cidr {
            address,
            prefix: if address.is_ipv4() { 16 } else { 64 },
        });
        let gateways = scenario.addresses(1);
        let mut noop = Command::new(&self.program);
        noop.env_clear();
        Call {
            noop: Process::new(noop, Vec::new()),
            verb,
            scenario,
            attachment: Attachment {
                network: network.into(),
                container: pod.name.clone(),
                ifname: "eth0".into(),
            },
            cidrs: cidrs.collect(),
            gateways: gateways.iter().filter_map(|a| a.parse().ok()).collect(),
            leases,
            bridge: host.bridge,
            pod,
        }
    }
}

/// One attachment's bare work.
pub struct Call<'a> {
    noop: Process,
    verb: Verb,
    scenario: Scenario,
    attachment: Attachment,
    cidrs: Vec<Cidr>,
    gateways: Vec<IpAddr>,
    leases: Vec<PathBuf>,
    bridge: u32,
    pod: &'a Pod,
}

impl Call<'_> {
    pub fn run(&mut self) -> Result<()> {
        self.noop.run()?;
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
        if !self.scenario.attaches() {
            return Ok(());
        }
        let name = self.attachment.host_link();
        let netns = Netns::open(&self.pod.path)
            .map_err(|why| anyhow::anyhow!("{}: {why}", self.pod.path.display()))?;
        let mut host = Socket::open(Family::Route)?;
        let pair = NewVeth {
            name: &name,
            mac: self.attachment.host_mac(),
            mtu: None,
            peer_name: &self.attachment.ifname,
            peer_mac: self.attachment.container_mac(),
            peer_netns: Some(netns.as_fd()),
        };
        let up = Change { up: true, ..Change::default() };
        host.execute(&[&pair, &Set { target: Target::Name(&name), change: up }])?;

        let inside = netns.inside(|| {
            let socket = Socket::open(Family::Route)?;
            let index = link::index_of(&socket, &self.attachment.ifname)?;
            Ok::<_, plumb::nl::Error>((socket, index))
        });
        let (mut container, index) = inside??;
        let index = index.context("the container's link")?;
        let up = Set { target: Target::Index(index), change: up };
        let addresses: Vec<_> = self
            .cidrs
            .iter()
            .map(|cidr| addr::Add {
                link: index,
                cidr: *cidr,
                without_dad: true,
                without_prefix_route: false,
            })
            .collect();
        let routes: Vec<_> =
            self.gateways.iter().map(|gateway| default_route(*gateway, index)).collect();
        let mut requests: Vec<&dyn Request> = vec![&up];
        requests.extend(addresses.iter().map(|request| request as &dyn Request));
        requests.extend(routes.iter().map(|request| request as &dyn Request));
        container.execute(&requests)?;
        let change = Change { master: Some(self.bridge), ..Change::default() };
        host.execute(&[&Set { target: Target::Name(&name), change }])?;

        if self.scenario.masquerades() {
            let label = self.attachment.label();
            let key = self.element();
            nft::commit(
                &mut nft::open()?,
                &[&AddElement { set: SET, key: &key, comment: &label }],
            )?;
        }
        Ok(())
    }

    fn del(&self) -> Result<()> {
        let mut rules = None;
        if self.scenario.masquerades() {
            let key = self.element();
            nft::commit(rules.insert(nft::open()?), &[&DeleteElement { set: SET, key: &key }])?;
        }
        if self.scenario.attaches() {
            let name = self.attachment.host_link();
            Socket::open(Family::Route)?.execute(&[&Delete(Target::Name(&name))])?;
        }
        // Closing waits for the element to be freed, and that was over before the link was deleted.
        drop(rules);
        for lease in &self.leases {
            fs::remove_file(lease)?;
        }
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

/// What Plumb's plugins have made by now.
const SET: set::Set<'_> = set::Set { table: masquerade::TABLE, name: "masq4_16" };

fn default_route(gateway: IpAddr, link: u32) -> route::Add {
    let any = if gateway.is_ipv4() { IpAddr::V4(0.into()) } else { IpAddr::V6(0.into()) };
    let destination = Cidr { address: any, prefix: 0 };
    route::Add(Route { gateway: Some(gateway), ..Route::through(link, destination) })
}
