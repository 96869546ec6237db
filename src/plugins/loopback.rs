//! loopback: brings up the loopback interface of a container. `CNI_IFNAME` does not matter.

use super::setting_error;
use crate::cni::result::{CniResult, Interface, Ip};
use crate::cni::{Code, Error, Plugin, Request};
use crate::net::Cidr;
use crate::nl::link::{self, Change, LOOPBACK_INDEX as INDEX, Target};
use crate::nl::{Family, Socket, addr};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "loopback",
    about: "Brings up a container's loopback interface.",
    add,
    del,
    check,
    // It goes with the container, and nothing of it is on the host.
    gc: |_| Ok(()),
    status: |_| Ok(()),
};

const NAME: &str = "lo";

/// The result of a plugin before this one is passed on as it is.
fn add(request: &Request) -> Result<CniResult, Error> {
    let prev = request.conf.prev_result()?;
    let mut container = enter(request)?;
    let change = Change { up: true, ..Change::default() };
    let up = link::Set { target: Target::Index(INDEX), change };
    // The kernel gives it its addresses as it comes up.
    let addresses = addr::execute_then_list(&mut container, &[&up], INDEX).map_err(of_loopback)?;
    let addresses: Vec<_> = addresses.into_iter().map(|address| address.cidr).collect();
    if let Some(foreign) = addresses.iter().find(|cidr| !cidr.address.is_loopback()) {
        let msg = format!("loopback interface found with non-loopback address {foreign}");
        return Err(Error::new(Code::Internal, msg));
    }
    Ok(prev.unwrap_or_else(|| result(request, &addresses)))
}

/// One address of each family, as the reference tells.
fn result(request: &Request, addresses: &[Cidr]) -> CniResult {
    let first = |is_ipv4| addresses.iter().find(move |cidr| cidr.address.is_ipv4() == is_ipv4);
    let ip = |cidr: &Cidr| Ip { interface: Some(0), address: *cidr, gateway: None };
    CniResult {
        interfaces: vec![Interface {
            name: NAME.to_owned(),
            mac: "00:00:00:00:00:00".to_owned(),
            sandbox: request.env.netns.clone(),
            ..Interface::default()
        }],
        ips: [true, false].into_iter().filter_map(first).map(ip).collect(),
        ..CniResult::default()
    }
}

/// Takes the interface down, as the reference does. Where the namespace has gone, so has the interface.
fn del(request: &Request) -> Result<(), Error> {
    if request.netns_if_any()?.is_none() {
        return Ok(());
    }
    let down = link::SetDown(Target::Index(INDEX));
    enter(request)?.execute(&[&down]).map_err(of_loopback)
}

/// Sees whether the interface is up, and has those addresses that were told as its own.
fn check(request: &Request) -> Result<(), Error> {
    let fault = |what: String| of_loopback(Error::new(Code::Internal, what));
    let prev = request.conf.prev_result()?.unwrap_or_default();
    let mut container = enter(request)?;
    let link = link::get(&mut container, Target::Index(INDEX)).map_err(of_loopback)?;
    if !link.is_some_and(|link| link.up) {
        return Err(fault("it is down".into()));
    }
    let is_ours = |ip: &&Ip| {
        let at = ip.interface.and_then(|index| usize::try_from(index).ok());
        at.and_then(|at| prev.interfaces.get(at)).is_some_and(|interface| interface.name == NAME)
    };
    let mut told = prev.ips.iter().filter(is_ours).peekable();
    if told.peek().is_none() {
        return Ok(());
    }
    let found = addr::of_link(&mut container, INDEX).map_err(of_loopback)?;
    match told.find(|ip| !found.iter().any(|address| address.cidr == ip.address)) {
        Some(ip) => Err(fault(format!("address {} is missing", ip.address))),
        None => Ok(()),
    }
}

fn of_loopback(error: impl Into<Error>) -> Error {
    error.into().of(format_args!("container interface {NAME:?}"))
}

/// Enters the container, where this process then stays: there is nothing to do on the host.
fn enter(request: &Request) -> Result<Socket, Error> {
    request
        .netns()?
        .enter()
        .map_err(|errno| setting_error("enter the container's network namespace", &errno.into()))?;
    Ok(Socket::open(Family::Route)?)
}
