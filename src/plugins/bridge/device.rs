//! The bridge itself: found, or made, and taken back.

use nix::errno::Errno;

use super::conf::Conf;
use super::vlan;
use crate::cni::{Code, Error};
use crate::net::Mac;
use crate::nl::link::{Change, Link, Target};
use crate::nl::{Family, Socket, link};
use crate::plugins::forwarding;
use crate::plugins::undo::Undo;
use crate::sha256;
use crate::trace;

/// How often a bridge that vanishes in between is looked for.
pub(super) const ATTEMPTS: usize = 4;

/// Finds the bridge, or makes it unless `before_making` has something against that, and sees to it that it
/// is up.
pub(super) fn ensure<'a>(
    host: &mut Socket,
    conf: &'a Conf,
    undo: &mut Undo<'a>,
    before_making: impl Fn() -> Result<(), Error>,
) -> Result<Link, Error> {
    let name = &conf.bridge;
    for _ in 0..ATTEMPTS {
        let Some(mut bridge) = link::get(host, Target::Name(name))? else {
            before_making()?;
            make(host, conf, undo)?;
            continue;
        };
        if !bridge.is_bridge() {
            let kind = bridge.kind_name();
            let got = format!("{name:?}, which exists and is a {kind}");
            return Err(Error::invalid(
                "bridge",
                got,
                "the name of a bridge, or a name that is free",
            ));
        }
        vlan::ensure_filtering(host, conf, &mut bridge)?;
        let change = Change {
            up: !bridge.up,
            promiscuous: conf.promiscuous && !bridge.promiscuous,
            ..Change::default()
        };
        forwarding::refuse_router_advertisements(&bridge);
        if change.up || change.promiscuous {
            host.execute(&[&link::Set { target: Target::Index(bridge.index), change }])?;
        }
        return Ok(bridge);
    }
    Err(keeps_vanishing(name))
}

/// Others make it and take it back again and again.
pub(super) fn keeps_vanishing(name: &str) -> Error {
    Error::new(Code::TryAgainLater, format!("bridge {name:?} keeps vanishing"))
}

/// Makes the bridge, down. That another process does so at the same time is no error.
fn make<'a>(host: &mut Socket, conf: &'a Conf, undo: &mut Undo<'a>) -> Result<(), Error> {
    let name = &conf.bridge;
    let bridge = link::NewBridge {
        name,
        mac: stable_mac(name),
        mtu: conf.mtu,
        // Whom the host is the gateway of is in a network of the host's own, where nobody is a querier.
        multicast_snooping: !conf.is_gateway,
        vlan_filtering: conf.vlans.is_some(),
    };
    let made = host.execute(&[&bridge]);
    if made.as_ref().is_err_and(|error| error.errno == Errno::EEXIST) {
        return Ok(());
    }
    // An answer that did not come through may have been a good one.
    undo.push(move || remove_unused(name));
    made.map_err(|error| vlan::refused(conf.vlans.as_ref(), error))
}

/// The address of a bridge or gateway interface: the same for each of that name on this machine, and another on
/// any other machine that might share a link.
pub(super) fn stable_mac(name: &str) -> Mac {
    let read = |path| {
        let content = std::fs::read(path);
        trace::file("read", path, &content);
        content.ok()
    };
    let machine = read("/etc/machine-id")
        .filter(|id| id.len() >= 32)
        .or_else(|| read("/proc/sys/kernel/random/uuid"))
        .unwrap_or_default();
    Mac::local(&sha256::digest_parts(&[b"bridge mac", &machine, name.as_bytes()]))
}

/// Has a bridge that becomes a gateway keep the address that it has. One that somebody made without would
/// take the lowest of its ports', and another one's when that port goes.
pub(super) fn keep_mac(host: &mut Socket, bridge: &Link) -> Result<(), Error> {
    // As it was before our port joined; a bridge without ports and address has none to keep.
    let mac = match bridge.mac.filter(|mac| mac.is_assignable()) {
        Some(mac) => Some(mac),
        None => link::get(host, Target::Index(bridge.index))?.and_then(|bridge| bridge.mac),
    };
    let change = Change { mac, ..Change::default() };
    Ok(host.execute(&[&link::Set { target: Target::Index(bridge.index), change }])?)
}

/// Takes back a bridge of ours, unless others have come to use it.
fn remove_unused(name: &str) -> Result<(), Error> {
    let mut host = Socket::open(Family::Route)?;
    let links = link::list(&mut host)?;
    let Some(bridge) = links.iter().find(|link| link.name == name) else { return Ok(()) };
    if links.iter().any(|link| link.master == Some(bridge.index)) {
        return Ok(());
    }
    Ok(host.execute(&[&link::Delete(Target::Index(bridge.index))])?)
}
