//! The bridge as its containers' gateway: its addresses, and the default routes that lead to them.

use std::net::IpAddr;

use nix::errno::Errno;

use super::conf::Conf;
use crate::cni::result::{CniResult, Route};
use crate::cni::{Attachment, Code, Error};
use crate::net::Cidr;
use crate::nl::link::{Link, Target};
use crate::nl::{Family, Socket, addr, link};
use crate::plugins::container;
use crate::plugins::undo::Undo;

/// The addresses that the bridge has to have, one for each gateway.
pub(super) fn addresses(result: &CniResult) -> Vec<Cidr> {
    let mut gateways: Vec<Cidr> = Vec::new();
    for ip in &result.ips {
        if let Some(address) = ip.gateway {
            let gateway = Cidr { address, prefix: ip.address.prefix };
            if !gateways.contains(&gateway) {
                gateways.push(gateway);
            }
        }
    }
    gateways
}

/// One default route for each family, unless there is one that leads the same way.
pub(super) fn add_default_routes(result: &mut CniResult) {
    for is_ipv4 in [true, false] {
        let of_family = |address: IpAddr| address.is_ipv4() == is_ipv4;
        let gateway = result.ips.iter().filter_map(|ip| ip.gateway).find(|gw| of_family(*gw));
        let Some(gateway) = gateway else { continue };
        let default = Route::via(Cidr::default_of(gateway), Some(gateway));
        let equivalent = |route: &Route| {
            let with_gateway = Route { gw: container::next_hop(route, result), ..route.clone() };
            route.dst == default.dst && (route.gw.is_some() || with_gateway == default)
        };
        if !result.routes.iter().any(equivalent) {
            result.routes.push(default);
        }
    }
}

/// What the addresses of the bridge, or of its gateway interface, are to be, and what has to change for it.
pub(super) struct Plan<'g> {
    /// The gateways' addresses.
    gateways: &'g [Cidr],
    /// Those that the holder has not.
    missing: Vec<Cidr>,
    /// Addresses that stand in their way, and that `forceAddress` gives up.
    replaced: Vec<Cidr>,
}

impl<'g> Plan<'g> {
    /// Compares what `holder` has with what it is to have.
    ///
    /// # Errors
    /// An address stands in the way, and may not be replaced.
    pub fn make(
        host: &mut Socket,
        holder: &Link,
        gateways: &'g [Cidr],
        conf: &Conf,
    ) -> Result<Self, Error> {
        if gateways.is_empty() {
            return Ok(Self { gateways, missing: Vec::new(), replaced: Vec::new() });
        }
        let found = addr::of_link(host, holder.index)?;
        let is_missing = |gateway: &&Cidr| !found.iter().any(|address| address.cidr == **gateway);
        let missing: Vec<_> = gateways.iter().filter(is_missing).copied().collect();
        let conflicts = conflicts(&found, gateways, &missing);
        if let Some(conflict) = conflicts.first()
            && !conf.force_address
        {
            return Err(conflict.error(holder));
        }
        let replaced = conflicts.iter().map(|conflict| conflict.found).collect();
        Ok(Self { gateways, missing, replaced })
    }

    /// Whether the holder is no gateway yet, or not all that it is to be.
    pub fn makes_a_gateway(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Gives `holder`, which is the bridge or its gateway interface, the gateways' addresses.
    ///
    /// # Errors
    /// The kernel's refusal; another process has given it one that stands in the way.
    pub fn carry_out<'a>(
        &self,
        host: &mut Socket,
        bridge: &Link,
        holder: &Link,
        attachment: &'a Attachment,
        undo: &mut Undo<'a>,
    ) -> Result<(), Error> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let (bridge, index) = (bridge.index, holder.index);
        let (missing, replaced) = (self.missing.clone(), self.replaced.clone());
        let changed = change_addresses(host, index, &replaced, &missing);
        undo.push(move || {
            let mut host = Socket::open(Family::Route)?;
            // The interface beside the bridge may have gone, and they with it.
            if link::get(&mut host, Target::Index(index))?.is_none() {
                return Ok(());
            }
            // Others of this network may rely on them by now; those of other networks, on the old ones.
            if has_other_ports(&mut host, bridge, attachment)? {
                return Ok(());
            }
            change_addresses(&mut host, index, &missing, &replaced)?;
            // One that came in between may have seen the addresses before they went.
            if has_other_ports(&mut host, bridge, attachment)? {
                change_addresses(&mut host, index, &replaced, &missing)?;
            }
            Ok(())
        });
        changed.map_err(|error| error.of(shown(holder)))?;
        // Another first ADD, of another configuration, may have done the same at the same time.
        let found = addr::of_link(host, index)?;
        match conflicts(&found, self.gateways, &self.missing).first() {
            Some(conflict) => Err(conflict.error(holder)),
            None => Ok(()),
        }
    }
}

/// An address of the bridge that stands in the way of a gateway's.
struct Conflict {
    found: Cidr,
    gateway: Cidr,
}

impl Conflict {
    fn error(&self, holder: &Link) -> Error {
        let (holder, Self { found, gateway }) = (shown(holder), self);
        let msg = format!(
            "{holder} already has an IP address different from {gateway}: {found}; \
             forceAddress would replace it"
        );
        Error::new(Code::Internal, msg)
    }
}

/// Who has a gateway's addresses.
fn shown(holder: &Link) -> String {
    let kind = if holder.is_bridge() { "bridge" } else { "gateway interface" };
    format!("{kind} {:?}", holder.name)
}

/// What stands in the way of those gateways that are missing: of IPv4 any address that is no gateway, of
/// IPv6 those that overlap.
fn conflicts(found: &[addr::Address], gateways: &[Cidr], missing: &[Cidr]) -> Vec<Conflict> {
    let conflict = |address: &addr::Address| {
        let found = address.cidr;
        let in_its_way = |gateway: &&Cidr| match found.address {
            IpAddr::V4(_) => gateway.address.is_ipv4(),
            IpAddr::V6(_) => !address.link_local && gateway.overlaps(found),
        };
        if gateways.contains(&found) {
            return None;
        }
        missing.iter().find(in_its_way).map(|gateway| Conflict { found, gateway: *gateway })
    };
    found.iter().filter_map(conflict).collect()
}

fn change_addresses(
    host: &mut Socket,
    link: u32,
    remove: &[Cidr],
    add: &[Cidr],
) -> Result<(), Error> {
    for cidr in remove {
        match host.execute(&[&addr::Delete { link, cidr: *cidr }]) {
            Err(error) if error.errno == Errno::ENODEV => {}
            other => other?,
        }
    }
    for cidr in add {
        let add = addr::Add { link, cidr: *cidr, without_dad: true, without_prefix_route: false };
        host.execute(&[&add])?;
    }
    Ok(())
}

/// Whether the bridge has ports of other attachments of the same network.
fn has_other_ports(host: &mut Socket, bridge: u32, own: &Attachment) -> Result<bool, Error> {
    let of_other = |link: &Link| {
        let attachment = link.alias.as_deref().and_then(Attachment::from_label);
        attachment.is_some_and(|a| a.network == own.network && a != *own)
    };
    Ok(link::list(host)?.iter().any(|link| link.master == Some(bridge) && of_other(link)))
}

/// Sees whether the bridge, or its gateway interface, has all gateways' addresses.
pub(super) fn check(host: &mut Socket, holder: &Link, gateways: &[Cidr]) -> Result<(), Error> {
    let found = addr::of_link(host, holder.index)?;
    for gateway in gateways {
        if !found.iter().any(|address| address.cidr == *gateway) {
            let msg = format!("{} has lost address {gateway}", shown(holder));
            return Err(Error::new(Code::Internal, msg));
        }
    }
    Ok(())
}
