//! host-local: leases addresses out of ranges that belong to this node alone.
//!
//! [`config`] is what is asked, [`range`] what there is to give, [`store`] the leases on disk and
//! [`index`] what makes them quick to search.

pub mod config;
pub mod index;
pub mod range;
pub mod resolv_conf;
pub mod store;

use std::net::IpAddr;

use crate::cni::error::Errors;
use crate::cni::queue::Collection;
use crate::cni::result::{CniResult, Ip};
use crate::cni::{Attachment, Code, Error, Plugin, Request};
use crate::net::Cidr;

use config::Config;
use range::RangeSet;
use store::{Owner, Requested, Session, Store};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "host-local",
    about: "Address management: leases addresses out of ranges that belong to this node.",
    add: |request| {
        request.take_turn_of_delegate()?;
        add(request).map(|leased| leased.result)
    },
    del,
    check,
    gc: |request| {
        let collection = Collection::begin()?;
        gc(request, &|attachment| !collection.claims(attachment))
    },
    status,
};

/// What an ADD has leased.
#[derive(Debug)]
pub struct Leased {
    /// Addresses, routes and name resolution.
    pub result: CniResult,
    /// The addresses that were not held before: those that go if the ADD fails later.
    pub fresh: Vec<IpAddr>,
}

/// Leases one address of each range set, all or none. An attachment that holds addresses already, of
/// an ADD that was repeated, gets the same ones.
///
/// # Errors
/// The configuration is refused, a range exhausted (code 11), or a file can't be written.
pub fn add(request: &Request) -> Result<Leased, Error> {
    let config = Config::read(request)?;
    let dns = config.resolv_conf.as_deref().map(resolv_conf::read).transpose()?;
    let store = Store::create(&config.data_dir, &request.conf.name)?;
    let mut session = store.lock()?;
    session.expire()?;

    let owner = owner_of(request);
    let mut allocation = Allocation { owner, config: &config, store: &store, fresh: Vec::new() };
    let ips = match allocation.all(&mut session) {
        Ok(ips) => ips,
        Err(error) => {
            let mut errors = Errors::default();
            for address in &allocation.fresh {
                errors.note(session.release(*address, owner));
            }
            session.finish();
            return Err(match errors.into_result() {
                Ok(()) => error,
                Err(undo) => error.and(&undo),
            });
        }
    };
    let fresh = allocation.fresh;
    session.finish();
    let result = CniResult {
        interfaces: Vec::new(),
        ips,
        routes: config.routes,
        dns: dns.unwrap_or_default(),
    };
    Ok(Leased { result, fresh })
}

/// Takes back what [`add`] has leased freshly.
///
/// # Errors
/// A lease can't be removed.
pub fn undo(request: &Request, fresh: &[IpAddr]) -> Result<(), Error> {
    release(request, |session, owner| {
        let mut errors = Errors::default();
        for address in fresh {
            errors.note(session.release(*address, owner));
        }
        errors.into_result()
    })
}

/// Releases all that the attachment holds. To hold nothing is no error.
///
/// # Errors
/// A lease can't be removed.
pub fn del(request: &Request) -> Result<(), Error> {
    release(request, |session, owner| session.release_all(owner))
}

/// The addresses that the attachment holds, with the prefix of their range as it is configured now.
///
/// # Errors
/// The directory can't be read.
pub fn held(request: &Request) -> Result<Vec<Cidr>, Error> {
    let Some(store) = Store::open(&config::data_dir(&request.conf)?, &request.conf.name)? else {
        return Ok(Vec::new());
    };
    let mut session = store.lock()?;
    let held = session.possibly_held_by(owner_of(request))?;
    session.finish();
    // Which range an address is of shows only in a sound configuration; without, it stands alone.
    let sets = Config::read(request).map(|config| config.sets).unwrap_or_default();
    let cidr = |address| match sets.iter().find_map(|set| set.range_of(address)) {
        Some(range) => Cidr { address, prefix: range.subnet.prefix },
        None => Cidr::host(address),
    };
    Ok(held.into_iter().map(cidr).collect())
}

fn check(request: &Request) -> Result<(), Error> {
    let prev = request.conf.prev_result()?.unwrap_or_default();
    check_leases(request, &prev)
}

/// Sees whether the attachment holds leases, and among them those of `prev` that are of our ranges.
///
/// # Errors
/// A lease is missing.
pub fn check_leases(request: &Request, prev: &CniResult) -> Result<(), Error> {
    let config = Config::read(request)?;
    let attachment = request.attachment();
    let missing = |what: &str| {
        let msg =
            format!("container {}, interface {}: {what}", attachment.container, attachment.ifname);
        Error::new(Code::Internal, format!("host-local: {msg}"))
    };
    let held = held(request)?;
    if held.is_empty() {
        return Err(missing("holds no address"));
    }
    let ours = |ip: &&Ip| config.sets.iter().any(|s| s.range_of(ip.address.address).is_some());
    for ip in prev.ips.iter().filter(ours) {
        if !held.iter().any(|cidr| cidr.address == ip.address.address) {
            return Err(missing(&format!("address {} is not leased to it", ip.address.address)));
        }
    }
    Ok(())
}

/// Releases what is held by none of the valid attachments, but what is spared.
///
/// # Errors
/// `cni.dev/valid-attachments` is missing, or a lease can't be removed.
pub fn gc(request: &Request, is_spared: &dyn Fn(&Attachment) -> bool) -> Result<(), Error> {
    let valid = request.conf.valid_attachments()?;
    let valid: std::collections::HashSet<_> =
        valid.iter().map(|a| (a.container.as_str(), a.ifname.as_str())).collect();
    let Some(store) = Store::open(&config::data_dir(&request.conf)?, &request.conf.name)? else {
        return Ok(());
    };
    let mut session = store.lock()?;
    let swept = session.sweep(|container, ifname| {
        // Old releases did not name the interface.
        let any_interface = || ifname.is_empty() && valid.iter().any(|(c, _)| *c == container);
        valid.contains(&(container, ifname))
            || any_interface()
            || is_spared(&request.conf.attachment(container, ifname))
    });
    session.finish();
    swept.map(drop)
}

/// Sees whether each range set has an address to give.
///
/// # Errors
/// The configuration is refused, or a range exhausted (code 50).
pub fn status(request: &Request) -> Result<(), Error> {
    let config = Config::read(request)?;
    let Some(store) = Store::open(&config.data_dir, &request.conf.name)? else { return Ok(()) };
    let mut session = store.lock()?;
    let full = config.sets.iter().find_map(|set| match session.has_free(set) {
        Ok(true) => None,
        Ok(false) => Some(exhausted(&session, &store, set)),
        Err(error) => Some(Err(error)),
    });
    session.finish();
    match full {
        Some(error) => Err(Error { code: Code::Unavailable as u32, ..error? }),
        None => Ok(()),
    }
}

fn owner_of(request: &Request) -> Owner<'_> {
    Owner { container: &request.env.container, ifname: &request.env.ifname }
}

fn release(
    request: &Request,
    work: impl FnOnce(&mut Session<'_>, Owner<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(store) = Store::open(&config::data_dir(&request.conf)?, &request.conf.name)? else {
        return Ok(());
    };
    let mut session = store.lock()?;
    let result = work(&mut session, owner_of(request));
    session.finish();
    result
}

fn exhausted(session: &Session<'_>, store: &Store, set: &RangeSet) -> Result<Error, Error> {
    let held = session.count_held(set)?;
    let msg = format!(
        "no IP addresses available in range set: {set} ({held} of {} held; leases are in {})",
        set.capacity(),
        store.path().display(),
    );
    Ok(Error::new(Code::TryAgainLater, msg))
}

/// The allocation of one address per range set.
struct Allocation<'a> {
    owner: Owner<'a>,
    config: &'a Config,
    store: &'a Store,
    fresh: Vec<IpAddr>,
}

impl Allocation<'_> {
    fn all(&mut self, session: &mut Session<'_>) -> Result<Vec<Ip>, Error> {
        let held = session.held_by(self.owner)?;
        let mut requested = self.config.requested.clone();
        let mut ips = Vec::with_capacity(self.config.sets.len());
        for (number, set) in self.config.sets.iter().enumerate() {
            let wanted = requested.iter().position(|address| set.range_of(*address).is_some());
            let address = match wanted.map(|at| requested.remove(at)) {
                Some(address) => self.requested(session, set, number, address)?,
                None => match held.iter().find(|address| set.range_of(**address).is_some()) {
                    Some(address) => *address,
                    None => self.next(session, set, number)?,
                },
            };
            if let Some(range) = set.range_of(address) {
                ips.push(Ip {
                    interface: None,
                    address: Cidr { address, prefix: range.subnet.prefix },
                    gateway: Some(range.gateway),
                });
            }
        }
        if requested.is_empty() {
            return Ok(ips);
        }
        let left: Vec<_> = requested.iter().map(ToString::to_string).collect();
        Err(Error::new(
            Code::InvalidConfig,
            format!("failed to allocate all requested IPs: {}: not in any range", left.join(",")),
        ))
    }

    fn requested(
        &mut self,
        session: &mut Session<'_>,
        set: &RangeSet,
        number: usize,
        address: IpAddr,
    ) -> Result<IpAddr, Error> {
        if set.range_of(address).is_some_and(|range| range.gateway == address) {
            let msg = format!("requested IP address {address} is the gateway of its subnet");
            return Err(Error::new(Code::InvalidConfig, msg));
        }
        match session.lease_requested(self.owner, address, number)? {
            Requested::Leased => self.fresh.push(address),
            Requested::HeldAlready => {}
            Requested::HeldBy(holder) => {
                return Err(Error::new(
                    Code::TryAgainLater,
                    format!(
                        "requested IP address {address} is not available in range set {set}: \
                         container {holder} holds it"
                    ),
                ));
            }
        }
        Ok(address)
    }

    fn next(
        &mut self,
        session: &mut Session<'_>,
        set: &RangeSet,
        number: usize,
    ) -> Result<IpAddr, Error> {
        let address = match session.lease_next(self.owner, set, number)? {
            Some(address) => address,
            None => return Err(exhausted(session, self.store, set)?),
        };
        self.fresh.push(address);
        Ok(address)
    }
}
