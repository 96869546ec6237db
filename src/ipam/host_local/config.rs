//! What host-local is configured with: the `ipam` object and the addresses asked for.

use std::net::IpAddr;

use super::range::{Range, RangeSet, check_overlaps};
use crate::cni::json::Node;
use crate::cni::result::Route;
use crate::cni::{Code, Error, NetConf, Request, Version};
use crate::net::{Cidr, parse_ip};

/// Where the reference keeps its leases.
pub const DATA_DIR: &str = "/var/lib/cni/networks";

/// The configuration of an ADD.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `ipam.dataDir`
    pub data_dir: String,
    /// One address is handed out of each.
    pub sets: Vec<RangeSet>,
    /// `ipam.routes`
    pub routes: Vec<Route>,
    /// `ipam.resolvConf`
    pub resolv_conf: Option<String>,
    /// Addresses asked for, of `CNI_ARGS`, `args.cni.ips` and `runtimeConfig.ips` together.
    pub requested: Vec<IpAddr>,
}

impl Config {
    /// Reads all that ADD needs.
    ///
    /// # Errors
    /// A key has the wrong type, or the ranges can't be served.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let conf = &request.conf;
        let root = conf.root();
        let Some(ipam) = root.get("ipam")? else {
            return Err(Error::invalid("ipam", "nothing", "an object with ranges"));
        };
        let runtime = root.get("runtimeConfig")?;

        // In the reference's order: the runtime's, the single range of old, the list.
        let mut sets = match &runtime {
            Some(runtime) => runtime.list("ipRanges", RangeSet::read)?,
            None => Vec::new(),
        };
        sets.extend(Range::read_if_any(&ipam)?.map(RangeSet::of));
        sets.extend(ipam.list("ranges", RangeSet::read)?);
        check_sets(&sets, conf.version)?;

        let mut requested = Vec::new();
        if let Some(ip) = &request.args()?.ip {
            requested.push(address(ip).ok_or_else(|| {
                let msg = format!("CNI_ARGS: IP: expected an IP address, got {ip:?}");
                Error::new(Code::InvalidEnvironment, msg)
            })?);
        }
        if let Some(args) = root.get("args")?
            && let Some(cni) = args.get("cni")?
        {
            requested.extend(cni.list("ips", requested_address)?);
        }
        if let Some(runtime) = &runtime {
            requested.extend(runtime.list("ips", requested_address)?);
        }
        requested.sort();
        requested.dedup();

        Ok(Self {
            data_dir: data_dir(conf)?,
            sets,
            routes: ipam.list("routes", Route::read)?,
            resolv_conf: ipam.string("resolvConf")?.filter(|path| !path.is_empty()),
            requested,
        })
    }
}

/// Where the leases are. It is all that DEL needs, so nothing else is read for it.
///
/// # Errors
/// The key has the wrong type.
pub fn data_dir(conf: &NetConf) -> Result<String, Error> {
    let root = conf.root();
    let configured = match root.get("ipam")? {
        Some(ipam) => ipam.string("dataDir")?,
        None => None,
    };
    Ok(configured.filter(|path| !path.is_empty()).unwrap_or_else(|| DATA_DIR.to_owned()))
}

fn check_sets(sets: &[RangeSet], version: Version) -> Result<(), Error> {
    if sets.is_empty() {
        return Err(Error::invalid("ipam.ranges", "nothing", "at least one range set"));
    }
    check_overlaps(sets)?;
    let ipv4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V0_3_0 && (ipv4 > 1 || sets.len() - ipv4 > 1) {
        return Err(Error::invalid(
            "ipam.ranges",
            format_args!("{} range sets", sets.len()),
            &format!(
                "one range set per address family, as cniVersion {version} can't express more"
            ),
        ));
    }
    Ok(())
}

fn requested_address(node: &Node<'_>) -> Result<IpAddr, Error> {
    node.parse("an IP address", address)
}

/// An address, with a prefix length that does not matter.
fn address(text: &str) -> Option<IpAddr> {
    if text.contains('/') {
        text.parse().ok().map(|cidr: Cidr| cidr.address)
    } else {
        parse_ip(text)
    }
}
