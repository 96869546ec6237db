//! static: addresses as they are configured. It keeps no leases; that an address is nobody else's is for
//! whoever configures it to know.

use std::net::IpAddr;

use crate::cni::json::Node;
use crate::cni::result::{CniResult, Dns, Ip, Route};
use crate::cni::{Code, Error, Plugin, Request, Version};
use crate::net::{Cidr, parse_ip};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "static",
    about: "Address management: the addresses that the configuration or the call names.",
    add,
    // There is nothing to release.
    del: |_| Ok(()),
    check: |request| check(request, &request.conf.required_prev_result()?),
    gc: |_| Ok(()),
    status,
};

/// The addresses, routes and name resolution that are configured. Without an address it is for the calling
/// plugin to object.
///
/// # Errors
/// A key has the wrong type or value; more than the configuration's version can express.
pub fn add(request: &Request) -> Result<CniResult, Error> {
    let ips = addresses(request)?;
    let root = request.conf.root();
    let Some(ipam) = root.get("ipam")? else { return Err(no_ipam()) };
    let dns = match ipam.get("dns")? {
        Some(dns) => Dns::read(&dns)?,
        None => Dns::default(),
    };
    let routes = ipam.list("routes", Route::read)?;
    Ok(CniResult { interfaces: Vec::new(), ips, routes, dns })
}

/// Sees whether `prev` has the configured addresses, with their gateways.
///
/// # Errors
/// It has not.
pub fn check(request: &Request, prev: &CniResult) -> Result<(), Error> {
    for ip in addresses(request)? {
        let same = |other: &&Ip| other.address.address == ip.address.address;
        let what = match prev.ips.iter().find(same) {
            None => "is missing".to_owned(),
            Some(found) if ip.gateway.is_some() && found.gateway != ip.gateway => {
                let named = |gateway: Option<IpAddr>| {
                    gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string())
                };
                let (found, expected) = (named(found.gateway), named(ip.gateway));
                format!("has gateway {found}, not {expected}")
            }
            Some(_) => continue,
        };
        let msg = format!("static: prevResult.ips: address {} {what}", ip.address);
        return Err(Error::new(Code::Internal, msg));
    }
    Ok(())
}

/// Sees whether the configuration is sound. Addresses may be in the calls to come.
///
/// # Errors
/// It is not.
pub fn status(request: &Request) -> Result<(), Error> {
    add(request).map(drop)
}

/// The addresses: those of `runtimeConfig.ips`; else of `args.cni.ips`; else of `ipam.addresses` and
/// `CNI_ARGS` together.
///
/// # Errors
/// A key has the wrong type or value; more than the configuration's version can express.
pub fn addresses(request: &Request) -> Result<Vec<Ip>, Error> {
    let root = request.conf.root();
    let Some(ipam) = root.get("ipam")? else { return Err(no_ipam()) };
    let mut ips = ipam.list("addresses", configured)?;
    add_arguments(request, &mut ips)?;
    let of_call = |object: Option<Node<'_>>| match object {
        Some(object) => object.list("ips", |item| item.cidr().map(without_gateway)),
        None => Ok(Vec::new()),
    };
    let of_args = match root.get("args")? {
        Some(args) => of_call(args.get("cni")?)?,
        None => Vec::new(),
    };
    for replacing in [of_args, of_call(root.get("runtimeConfig")?)?] {
        if !replacing.is_empty() {
            ips = replacing;
        }
    }
    check_number(&ips, request.conf.version)?;
    Ok(ips)
}

fn no_ipam() -> Error {
    Error::invalid("ipam", "nothing", "an object with addresses")
}

fn without_gateway(address: Cidr) -> Ip {
    Ip { interface: None, address, gateway: None }
}

/// One of `ipam.addresses`. Its `version`, which old configurations have, is told by the address itself.
fn configured(node: &Node<'_>) -> Result<Ip, Error> {
    let Some(address) = node.get("address")? else {
        return Err(Error::invalid(
            format_args!("{node}.address"),
            "nothing",
            "an IP address with prefix length",
        ));
    };
    let address = address.cidr()?;
    let gateway = match node.get("gateway")? {
        Some(gateway) if !gateway.text()?.is_empty() => {
            let found = gateway.ip()?;
            if found.is_ipv4() != address.address.is_ipv4() {
                let expected = format!("an address of the family of {address}");
                return Err(gateway.invalid(&expected));
            }
            Some(found)
        }
        _ => None,
    };
    Ok(Ip { interface: None, address, gateway })
}

/// `CNI_ARGS`: `IP`, addresses with prefix, and `GATEWAY`, each for the addresses in whose network it is.
fn add_arguments(request: &Request, ips: &mut Vec<Ip>) -> Result<(), Error> {
    let args = request.args()?;
    let items = |text: &Option<String>| -> Vec<String> {
        let text = text.as_deref().unwrap_or_default();
        text.split(',').map(|item| item.trim().to_owned()).filter(|_| !text.is_empty()).collect()
    };
    let fault = |key: &str, item: &str, expected: &str| {
        let msg = format!("CNI_ARGS: {key}: expected {expected}, got {item:?}");
        Error::new(Code::InvalidEnvironment, msg)
    };
    for item in items(&args.ip) {
        let expected = "IP addresses with prefix length, separated by commas";
        let address = item.parse().map_err(|()| fault("IP", &item, expected))?;
        ips.push(without_gateway(address));
    }
    for item in items(&args.gateway) {
        let expected = "IP addresses, separated by commas";
        let gateway = parse_ip(&item).ok_or_else(|| fault("GATEWAY", &item, expected))?;
        for ip in ips.iter_mut().filter(|ip| ip.address.contains(gateway)) {
            ip.gateway = Some(gateway);
        }
    }
    Ok(())
}

fn check_number(ips: &[Ip], version: Version) -> Result<(), Error> {
    let ipv4 = ips.iter().filter(|ip| ip.address.address.is_ipv4()).count();
    if version < Version::V0_3_0 && (ipv4 > 1 || ips.len() - ipv4 > 1) {
        return Err(Error::invalid(
            "ipam.addresses",
            format_args!("{} addresses", ips.len()),
            &format!("one per address family, as cniVersion {version} can't express more"),
        ));
    }
    Ok(())
}
