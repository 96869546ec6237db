//! vlan: gives a container the frames of a link of the host that are tagged with a number.

use super::child::{self, Addresses, Conf, Master};
use super::{conf, detach};
use crate::cni::{Error, Plugin, Request};
use crate::nl::link::Child;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "vlan",
    about: "Gives a container a VLAN (IEEE 802.1Q) of a link of the host.",
    add: |request| child::add(request, &read(request)?),
    del: |request| child::del(request, "vlan"),
    check: |request| child::check(request, &read(request)?),
    gc: detach::collect_garbage,
    status: |request| child::status(request, &read(request)?),
};

/// Reads the configuration.
///
/// # Errors
/// A key has the wrong type or value, or there is no `master`.
pub fn read(request: &Request) -> Result<Conf, Error> {
    let root = request.conf.root();
    let id = root.number("vlanId", 0..=4094)?.unwrap_or(0);
    let master = Master::read(request)?;
    if master.name.is_none() {
        return Err(Error::invalid("master", "nothing", "the name of the link that has the VLAN"));
    }
    Ok(Conf {
        child: Child::Vlan(u16::try_from(id).unwrap_or_default()),
        master: Some(master),
        mtu: conf::mtu(&root)?,
        mac: None,
        addresses: Addresses::Required,
        dns: request.conf.dns()?,
    })
}
