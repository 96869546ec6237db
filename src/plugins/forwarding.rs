//! The host as router between containers and the world.

use std::io::Write;

use super::setting_error;
use crate::cni::{Code, Error};
use crate::net::Cidr;
use crate::nl::link::Link;
use crate::sys::sysctl;

/// By family, whether it is IPv4, the setting by which the kernel forwards.
const SETTINGS: [(bool, &str); 2] =
    [(true, "ipv4/ip_forward"), (false, "ipv6/conf/all/forwarding")];

fn settings(addresses: &[Cidr]) -> impl Iterator<Item = &'static str> {
    let any = |is_ipv4| addresses.iter().any(|cidr| cidr.address.is_ipv4() == is_ipv4);
    SETTINGS.into_iter().filter(move |(is_ipv4, _)| any(*is_ipv4)).map(|(_, name)| name)
}

/// Has the host forward packets of the families that `addresses` are of.
///
/// # Errors
/// A setting can't be written.
pub fn enable(addresses: &[Cidr]) -> Result<(), Error> {
    for name in settings(addresses) {
        sysctl::ensure(name, "1")
            .map_err(|why| setting_error(format_args!("set sysctl {name} to 1"), &why))?;
    }
    Ok(())
}

/// The settings by which the host would have to forward packets of these families, and does not.
#[must_use]
pub fn missing(addresses: &[Cidr]) -> Vec<&'static str> {
    settings(addresses).filter(|name| sysctl::read(name).is_ok_and(|value| value == "0")).collect()
}

/// Has the host take no advice on routing from its containers (CVE-2020-10749) through this link of its
/// own, whoever made it. Where the setting can't be written, the network works all the same.
pub fn refuse_router_advertisements(link: &Link) {
    if !link.accepts_router_advertisements {
        return;
    }
    let name = format!("ipv6/conf/{}/accept_ra", link.name);
    if let Err(why) = sysctl::write(&name, "0") {
        let line = format!("plumb: cannot set sysctl {name} to 0: {why}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Sees whether the host forwards packets of these families.
///
/// # Errors
/// It does not.
pub fn check(addresses: &[Cidr]) -> Result<(), Error> {
    match missing(addresses).first() {
        Some(name) => Err(Error::new(Code::Internal, format!("sysctl {name} is 0, not 1"))),
        None => Ok(()),
    }
}
