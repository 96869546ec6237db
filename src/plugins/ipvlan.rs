//! ipvlan: gives a container a link with IP addresses of its own, and the link-layer address of a link of the
//! host that it is on.

use super::child::{self, Addresses, Conf, Master};
use super::{conf, detach};
use crate::cni::{CniResult, Code, Error, Plugin, Request};
use crate::nl::link::{Child, IpvlanMode};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "ipvlan",
    about: "Gives a container IP addresses of its own on a link of the host.",
    add,
    del: |request| child::del(request, "ipvlan"),
    check: |request| child::check(request, &read(request)?),
    gc: detach::collect_garbage,
    status: |request| child::status(request, &read(request)?),
};

/// Reads the configuration.
///
/// # Errors
/// A key has the wrong type or value.
pub fn read(request: &Request) -> Result<Conf, Error> {
    let root = request.conf.root();
    let mode = match root.get("mode")? {
        None => IpvlanMode::L2,
        Some(mode) => match mode.text()? {
            "" | "l2" => IpvlanMode::L2,
            "l3" => IpvlanMode::L3,
            "l3s" => IpvlanMode::L3s,
            _ => return Err(mode.invalid(r#""l2", "l3" or "l3s""#)),
        },
    };
    Ok(Conf {
        child: Child::Ipvlan(mode),
        master: Some(Master::read(request)?),
        mtu: conf::mtu(&root)?,
        mac: None,
        addresses: Addresses::OrOfChain,
        dns: request.conf.dns()?,
    })
}

fn add(request: &Request) -> Result<CniResult, Error> {
    let mut conf = read(request)?;
    if let Some(master @ Master { name: None, .. }) = &mut conf.master {
        master.name = master_of_chain(request)?;
    }
    child::add(request, &conf)
}

/// The one interface that the plugin before in the chain has made; none if there is no plugin before.
fn master_of_chain(request: &Request) -> Result<Option<String>, Error> {
    let Some(prev) = request.conf.prev_result()? else { return Ok(None) };
    match prev.interfaces.as_slice() {
        [interface] if !interface.name.is_empty() => Ok(Some(interface.name.clone())),
        others => {
            let names: Vec<_> = others.iter().map(|interface| &interface.name).collect();
            let msg = format!(
                "prevResult.interfaces: expected one, to be the master as none is configured, got {names:?}"
            );
            Err(Error::new(Code::InvalidConfig, msg))
        }
    }
}
