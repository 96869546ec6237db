//! What the fuzz targets share: calls as a runtime makes them, and a kernel that answers with any bytes.

use std::cell::RefCell;
use std::rc::Rc;

use nix::errno::Errno;
use plumb::cni::env::{Command, Environment};
use plumb::cni::result::Ip;
use plumb::cni::{CniResult, Error, NetConf, Plugin, Request, Version};
use plumb::ipam::{host_local, static_ipam};
use plumb::nl::Socket;
use plumb::nl::link::Child;
use plumb::nl::socket::{Channel, Datagram};
use plumb::plugins::child::Conf;
use plumb::plugins::{bridge, dummy, host_device, ipvlan, loopback, macvlan, ptp, tap, vlan};

/// The verbs that have a configuration.
pub const VERBS: [Command; 5] =
    [Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status];

/// The environment of a call that is about one container, without a namespace: to open one is a matter
/// of the kernel's.
pub fn environment(command: Command) -> Environment {
    Environment {
        command,
        container: "c1".into(),
        netns: String::new(),
        ifname: "eth0".into(),
        args: String::new(),
        path: vec!["/opt/cni/bin".into()],
        netns_override: false,
    }
}

/// Reads all that `plugin` reads of a request before it asks the kernel or the disk for anything, and
/// holds it against what the plugin relies on.
pub fn read(plugin: &Plugin, request: &Request) -> Result<(), Error> {
    let conf = &request.conf;
    conf.ipam_type()?;
    match request.env.command {
        Command::Add | Command::Status => {}
        Command::Check => drop(conf.required_prev_result()?),
        Command::Del => drop(conf.prev_result()?),
        Command::Gc => {
            for valid in conf.valid_attachments()? {
                assert!(!valid.container.is_empty() && !valid.ifname.is_empty());
            }
            return Ok(());
        }
        Command::Version => return Ok(()),
    }
    if plugin.name == loopback::PLUGIN.name {
        conf.prev_result()?;
    } else if plugin.name == ptp::PLUGIN.name {
        let conf = ptp::Conf::read(request)?;
        assert!(conf.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
    } else if plugin.name == static_ipam::PLUGIN.name {
        let result = static_ipam::add(request)?;
        for ip in &result.ips {
            assert!(ip.gateway.is_none_or(|gw| gw.is_ipv4() == ip.address.address.is_ipv4()));
        }
        // What it gives is what it then finds.
        assert_eq!(static_ipam::check(request, &result).is_ok(), are_distinct(&result));
    } else if let Some(read) = child(plugin.name) {
        let conf = read(request)?;
        assert_eq!(conf.child.kind(), plugin.name);
        assert!(conf.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
        assert!(conf.mac.is_none_or(|mac| mac.is_assignable()));
        assert!(!matches!(conf.child, Child::Vlan(id) if id > 4094));
        let name = conf.master.as_ref().and_then(|master| master.name.as_deref());
        assert!(name.is_none_or(|name| plumb::cni::conf::interface_name_fault(name).is_none()));
    } else if plugin.name == tap::PLUGIN.name {
        let conf = tap::read(request)?;
        assert!(conf.mtu.is_none_or(|mtu| (68..=65521).contains(&mtu)));
        assert!(conf.mac.is_none_or(|mac| mac.is_assignable()));
        let name = conf.bridge.as_deref();
        assert!(name.is_none_or(|name| plumb::cni::conf::interface_name_fault(name).is_none()));
        assert!(conf.context.is_none_or(|text| text.len() < 4096 && !text.contains(['\0', '\n'])));
    } else if plugin.name == host_device::PLUGIN.name {
        use host_device::Device;
        let conf = host_device::Conf::read(request)?;
        let is_part = |name: &str| !name.is_empty() && name != ".." && !name.contains('/');
        match conf.device {
            Some(Device::Name(name)) => {
                assert_eq!(plumb::cni::conf::interface_name_fault(&name), None);
            }
            Some(Device::Mac(mac)) => assert!(mac.is_assignable()),
            Some(Device::KernelPath(path)) => {
                assert!(path.starts_with("/sys/devices"));
                assert!(path.components().all(|part| part.as_os_str() != ".."));
            }
            Some(Device::Pci(pci)) => assert!(is_part(pci.address())),
            Some(Device::Auxiliary(name)) => assert!(is_part(&name)),
            None => {}
        }
    } else if plugin.name == bridge::PLUGIN.name {
        let conf = bridge::conf::Conf::read(request)?;
        assert_eq!(plumb::cni::conf::interface_name_fault(&conf.bridge), None);
        assert!(conf.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
        assert!(conf.mac.is_none_or(|mac| mac.is_assignable()));
    } else {
        let config = host_local::config::Config::read(request)?;
        assert!(!config.sets.is_empty() && !config.data_dir.is_empty());
        assert!(config.requested.is_sorted_by(|a, b| a < b));
        for set in &config.sets {
            let rounds = set.rounds(None);
            assert!(!rounds.is_empty());
            for round in rounds {
                assert!(round.from <= round.to);
                let (start, end) = (round.range.start, round.range.end);
                assert!(set.range_of(start).is_some() && set.range_of(end).is_some());
                assert_eq!(set.is_ipv4(), start.is_ipv4());
                // Once around from anywhere is everything.
                let around = set.rounds(Some(end));
                let count =
                    |round: &host_local::range::Round<'_>| (round.to - round.from).checked_add(1);
                let sum = around.iter().map(count).try_fold(0_u128, |sum, n| sum.checked_add(n?));
                let all = set.rounds(None);
                let expected = all.iter().map(count).try_fold(0_u128, |sum, n| sum.checked_add(n?));
                assert_eq!(sum, expected);
            }
        }
        host_local::range::check_overlaps(&config.sets)?;
    }
    Ok(())
}

/// How the configuration of a plugin is read whose link is born in the container.
fn child(plugin: &str) -> Option<fn(&Request) -> Result<Conf, Error>> {
    match plugin {
        "macvlan" => Some(macvlan::read),
        "ipvlan" => Some(ipvlan::read),
        "vlan" => Some(vlan::read),
        "dummy" => Some(dummy::read),
        _ => None,
    }
}

/// Whether no address comes twice, with another gateway than the first time.
fn are_distinct(result: &CniResult) -> bool {
    let first = |ip: &Ip| result.ips.iter().find(|o| o.address.address == ip.address.address);
    let same = |ip: &Ip| ip.gateway.is_none() || first(ip).is_some_and(|o| o.gateway == ip.gateway);
    result.ips.iter().all(same)
}

/// An error must be printable as the specification asks in every version, and say something.
pub fn check_error(error: &Error) {
    assert!(!error.msg.is_empty());
    for version in Version::ALL {
        let text = error.to_json(version);
        let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
        assert_eq!(value["code"], error.code);
        assert_eq!(value["msg"], error.msg.as_str());
        assert_eq!(value["cniVersion"], version.text());
    }
}

/// A request of this verb. `None` if the configuration is none.
pub fn request(env: Environment, stdin: &[u8]) -> Option<Request> {
    match NetConf::parse(stdin).and_then(|conf| Request::new(env, conf, stdin.to_vec())) {
        Ok(request) => Some(request),
        Err(error) => {
            check_error(&error);
            None
        }
    }
}

/// A kernel that answers each request with the same messages, made to belong to it.
pub struct Parrot {
    answer: Vec<u8>,
    sent: Rc<RefCell<Vec<u8>>>,
    sequence: [u8; 4],
    answered: bool,
}

/// A conversation with a [`Parrot`].
pub fn parrot(answer: &[u8]) -> Socket<Parrot> {
    conversation(answer).0
}

/// The datagram that `ask` sends; empty if it sends none.
pub fn sent<T>(ask: impl FnOnce(&mut Socket<Parrot>) -> T) -> Vec<u8> {
    let (mut socket, sent) = conversation(&[]);
    ask(&mut socket);
    sent.take()
}

fn conversation(answer: &[u8]) -> (Socket<Parrot>, Rc<RefCell<Vec<u8>>>) {
    let sent = Rc::default();
    let parrot =
        Parrot { answer: answer.into(), sent: Rc::clone(&sent), sequence: [0; 4], answered: true };
    (Socket::over(parrot), sent)
}

impl Channel for Parrot {
    fn send(&mut self, datagram: &[u8]) -> Result<(), Errno> {
        self.sent.replace(datagram.to_vec());
        self.sequence = datagram[8..12].try_into().unwrap();
        self.answered = false;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Datagram, Errno> {
        if std::mem::replace(&mut self.answered, true) {
            return Err(Errno::EAGAIN);
        }
        let mut answer = self.answer.clone();
        let mut at = 0;
        while let Some(header) = answer.get_mut(at..at + 16) {
            header[8..12].copy_from_slice(&self.sequence);
            let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
            at += length.max(16).next_multiple_of(4);
        }
        let fits = answer.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&answer[..fits]);
        Ok(Datagram { length: answer.len(), sender: 0 })
    }
}
