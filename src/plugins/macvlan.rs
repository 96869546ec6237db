//! macvlan: gives a container a link with an address of its own on a link of the host.

use super::child::{self, Addresses, Conf, Master};
use super::{conf, detach};
use crate::cni::{Error, Plugin, Request};
use crate::nl::link::{Child, MacvlanMode};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "macvlan",
    about: "Gives a container a link-layer address of its own on a link of the host.",
    add: |request| child::add(request, &read(request)?),
    del: |request| child::del(request, "macvlan"),
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
        None => MacvlanMode::Bridge,
        Some(mode) => match mode.text()? {
            "" | "bridge" => MacvlanMode::Bridge,
            "private" => MacvlanMode::Private,
            "vepa" => MacvlanMode::Vepa,
            "passthru" => MacvlanMode::Passthru,
            _ => {
                let expected = r#""bridge", "private", "vepa" or "passthru""#;
                return Err(mode.invalid(expected));
            }
        },
    };
    let broadcast_queue = root.number("bcqueuelen", 0..=u32::MAX)?.filter(|length| *length != 0);
    Ok(Conf {
        child: Child::Macvlan { mode, broadcast_queue },
        master: Some(Master::read(request)?),
        mtu: conf::mtu(&root)?,
        mac: conf::mac(request)?.or(conf::own_mac(&root)?),
        addresses: Addresses::Optional,
        dns: request.conf.dns()?,
    })
}
