//! dummy: gives a container a link with nothing behind it, for addresses that are its own wherever packets
//! for them come from.

use super::child::{self, Addresses, Conf};
use super::detach;
use crate::cni::{Error, Plugin, Request};
use crate::nl::link::Child;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "dummy",
    about: "Gives a container a link with nothing behind it.",
    add: |request| child::add(request, &read(request)?),
    del: |request| child::del(request, "dummy"),
    check: |request| child::check(request, &read(request)?),
    gc: detach::collect_garbage,
    status: |request| child::status(request, &read(request)?),
};

/// Reads the configuration.
///
/// # Errors
/// A key has the wrong type.
pub fn read(request: &Request) -> Result<Conf, Error> {
    Ok(Conf {
        child: Child::Dummy,
        master: None,
        mtu: None,
        mac: None,
        addresses: Addresses::Required,
        dns: request.conf.dns()?,
    })
}
