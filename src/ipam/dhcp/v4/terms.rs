//! What a server grants, as its messages say it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Message, Options, option};
use crate::ipam::dhcp::terms::{Route, Terms, Times, compact};
use crate::net::Cidr;

/// How long a lease lasts of which the server does not say it, as with the reference.
const DEFAULT_LEASE: Duration = Duration::from_secs(3600);
/// Seconds that mean for ever (RFC 2131, section 3.3).
const FOR_EVER: u32 = u32::MAX;
/// The smallest MTU (RFC 2132, section 5.1).
const SMALLEST_MTU: u16 = 68;
/// The longest name of a domain, and of a part of one (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
/// How many routes, name servers or domains are taken at most: no network needs as many, and a lease is to stay
/// small.
const MOST: usize = 64;

/// Reads an offer or an acknowledgement.
///
/// # Errors
/// What is missing or can't be.
pub fn read(message: &Message) -> Result<Terms, String> {
    let options = &message.options;
    let address = message.yiaddr;
    if !is_unicast(address) {
        return Err(format!("address {address} can't be a client's"));
    }
    let server = options.address(option::SERVER).filter(|server| is_unicast(*server));
    let server = server.ok_or("no server's address (option 54)")?;
    let mask = options.address(option::SUBNET_MASK).ok_or("no subnet mask (option 1)")?;
    let prefix = prefix(mask).ok_or_else(|| format!("subnet mask {mask} has gaps"))?;
    if options.u32(option::LEASE_TIME) == Some(0) {
        return Err("a lease of no time at all (option 51)".to_owned());
    }
    let mut routers = options.addresses(option::ROUTERS).into_iter().filter(|a| is_unicast(*a));
    let gateway = routers.next();
    let routes = match options.get(option::CLASSLESS_ROUTES).map(classless_routes) {
        Some(routes) => routes.ok_or("routes (option 121) can't be read")?,
        None => routes_of_old(options, gateway),
    };
    let nameservers = options.addresses(option::NAME_SERVERS).into_iter().take(MOST);
    let search = options.get(option::SEARCH).map(domains).unwrap_or_default();
    Ok(Terms {
        address: Cidr { address: address.into(), prefix },
        server: server.into(),
        server_id: Vec::new(),
        gateway: gateway.map(Into::into),
        routes: compact(routes),
        mtu: options.u16(option::MTU).filter(|mtu| *mtu >= SMALLEST_MTU),
        nameservers: compact(nameservers.map(Into::into).collect()),
        domain: options.text(option::DOMAIN),
        search: compact(search),
        times: times(options),
    })
}

/// T1 and T2 are half of the lease and seven eighths (RFC 2131, section 4.4.5) where the server does not say,
/// or says what can't be: they come in this order.
fn times(options: &Options) -> Times {
    let seconds = |code| options.u32(code).map(|seconds| Duration::from_secs(seconds.into()));
    let lease = match options.u32(option::LEASE_TIME) {
        Some(FOR_EVER) => {
            let never = Duration::from_secs(FOR_EVER.into());
            return Times { renew: never, rebind: never, expire: None };
        }
        Some(seconds) => Duration::from_secs(seconds.into()),
        None => DEFAULT_LEASE,
    };
    let rebind = seconds(option::REBINDING_TIME).filter(|rebind| *rebind < lease);
    let rebind = rebind.unwrap_or(lease * 7 / 8);
    let renew = seconds(option::RENEWAL_TIME).filter(|renew| *renew < rebind);
    let renew = renew.unwrap_or((lease / 2).min(rebind));
    Times { renew, rebind, expire: Some(lease) }
}
/// Whether a host can have this address.
fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        // 240.0.0.0/4 is reserved, the broadcast address in it.
        || address.octets().starts_with(&[0])
        || address.is_broadcast())
}

fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let prefix = bits.leading_ones();
    (prefix + bits.trailing_zeros() >= 32).then(|| u8::try_from(prefix).ok()).flatten()
}

/// Option 121 (RFC 3442): prefix length, as many bytes of the destination as that has, router. A router 0.0.0.0
/// says that the destination is on the link.
fn classless_routes(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((prefix, rest)) = value.split_first() {
        if *prefix > 32 {
            return None;
        }
        let (significant, rest) = rest.split_at_checked(usize::from(*prefix).div_ceil(8))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut destination = [0; 4];
        for (to, from) in destination.iter_mut().zip(significant) {
            *to = *from;
        }
        let written = Cidr { address: Ipv4Addr::from(destination).into(), prefix: *prefix };
        // What a server leaves of host bits is to be ignored (RFC 3442).
        let to = Cidr { address: written.network(), prefix: *prefix };
        let router = Ipv4Addr::from(*router);
        routes.push(Route { to, via: (!router.is_unspecified()).then_some(router.into()) });
        value = rest;
    }
    routes.truncate(MOST);
    Some(routes)
}

/// Options 33 and 3: routes to networks of the classes that there were, and the default route.
fn routes_of_old(options: &Options, gateway: Option<Ipv4Addr>) -> Vec<Route> {
    let listed = options.addresses(option::STATIC_ROUTES);
    let (pairs, _) = listed.as_chunks::<2>();
    let to_class = |[destination, router]: &[Ipv4Addr; 2]| {
        let class = Cidr { address: (*destination).into(), prefix: class_prefix(*destination)? };
        let to = Cidr { address: class.network(), prefix: class.prefix };
        Some(Route { to, via: Some((*router).into()) })
    };
    let default = Cidr::default_of(Ipv4Addr::UNSPECIFIED.into());
    let default = gateway.map(|gateway| Route { to: default, via: Some(gateway.into()) });
    pairs.iter().take(MOST).filter_map(to_class).chain(default).collect()
}

/// The prefix of the class that an address was in; none of those that are no host's. 0.0.0.0 is not allowed (RFC
/// 2132, section 5.8).
fn class_prefix(address: Ipv4Addr) -> Option<u8> {
    match address.octets() {
        [0, ..] => None,
        [..128, ..] => Some(8),
        [128..192, ..] => Some(16),
        [192..224, ..] => Some(24),
        _ => None,
    }
}

/// Option 119 (RFC 3397): names as in DNS messages, with pointers to earlier ones. From what can't be read on
/// there is nothing.
pub(in crate::ipam::dhcp) fn domains(value: &[u8]) -> Vec<String> {
    let mut domains = Vec::new();
    let mut at = 0;
    while at < value.len() && domains.len() < MOST {
        let Some((name, next)) = name_at(value, at) else { break };
        if !name.is_empty() {
            domains.push(name);
        }
        at = next;
    }
    domains
}

/// The name that begins at an offset, and where the next one does.
fn name_at(value: &[u8], begin: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut next = None;
    let mut at = begin;
    loop {
        match *value.get(at)? {
            0 => return Some((name, next.unwrap_or(at + 1))),
            length if usize::from(length) <= LONGEST_LABEL => {
                let label = value.get(at + 1..at + 1 + usize::from(length))?;
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
                if !label.iter().all(is_plain) || name.len() + label.len() + 1 > LONGEST_NAME {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(*byte)));
                at += 1 + label.len();
            }
            high if high >= 0xc0 => {
                let low = *value.get(at + 1)?;
                let to = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                next.get_or_insert(at + 2);
                // Backwards only, so that there is an end.
                if to >= at {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
