//! Keys that several interface plugins have in common.

use super::container;
use crate::cni::conf::interface_name_fault;
use crate::cni::json::Node;
use crate::cni::result::CniResult;
use crate::cni::{Code, Error, Request};
use crate::net::Mac;

/// The container's address, of the three places in rising order of precedence:
/// `CNI_ARGS`, `args.cni`, `runtimeConfig`.
///
/// # Errors
/// It is no address that an interface can have.
pub fn mac(request: &Request) -> Result<Option<Mac>, Error> {
    let root = request.conf.root();
    let read = |object: Option<Node<'_>>| object.map_or(Ok(None), |object| own_mac(&object));
    let of_runtime = read(root.get("runtimeConfig")?)?;
    let of_args = match root.get("args")? {
        Some(args) => read(args.get("cni")?)?,
        None => None,
    };
    if let Some(mac) = of_runtime.or(of_args) {
        return Ok(Some(mac));
    }
    let Some(text) = request.args()?.mac.as_ref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse::<Mac>() {
        Ok(mac) if mac.is_assignable() => Ok(Some(mac)),
        _ => {
            let msg = format!("CNI_ARGS: MAC: expected a unicast MAC address, got {text:?}");
            Err(Error::new(Code::InvalidEnvironment, msg))
        }
    }
}

/// `mac` of this object; none if it is absent or empty.
///
/// # Errors
/// It is no address that an interface can have.
pub fn own_mac(object: &Node<'_>) -> Result<Option<Mac>, Error> {
    match object.get("mac")? {
        Some(node) if !node.text()?.is_empty() => node.mac().map(Some),
        _ => Ok(None),
    }
}

/// `mtu`; none for the kernel's default. The bounds are the kernel's: `ETH_MIN_MTU` and
/// `ETH_MAX_MTU` (linux/if_ether.h).
///
/// # Errors
/// It is no integer, or out of bounds.
pub fn mtu(root: &Node<'_>) -> Result<Option<u32>, Error> {
    mtu_up_to(root, 65535)
}

/// `mtu` of a link that takes one of at most `max`.
///
/// # Errors
/// As of [`mtu`].
pub fn mtu_up_to(root: &Node<'_>, max: u32) -> Result<Option<u32>, Error> {
    let mtu = root.number("mtu", 0..=max)?.filter(|mtu| *mtu != 0);
    if mtu.is_some_and(|mtu| mtu < 68) {
        return Err(root.get("mtu")?.map_or_else(
            || root.invalid("an MTU"),
            |node| node.invalid(&format!("0 for the kernel's default, or 68 to {max}")),
        ));
    }
    Ok(mtu)
}

/// Refuses an MTU that IPv6 can't do with (RFC 8200, section 5): the kernel would refuse the address, with
/// less to say about it.
///
/// # Errors
/// There is an IPv6 address, and the MTU is too small for it.
pub fn check_mtu_for(mtu: Option<u32>, result: &CniResult) -> Result<(), Error> {
    const IPV6_MIN_MTU: u32 = 1280;
    match mtu {
        Some(mtu) if mtu < IPV6_MIN_MTU && container::has_ipv6(result) => {
            let expected = format!("at least {IPV6_MIN_MTU}, as there is an IPv6 address");
            Err(Error::invalid("mtu", mtu, &expected))
        }
        _ => Ok(()),
    }
}

/// The name of an interface that a key holds; none if it is absent or empty.
///
/// # Errors
/// It is no name that an interface can have.
pub fn link_name(root: &Node<'_>, key: &str) -> Result<Option<String>, Error> {
    let Some(name) = root.string(key)?.filter(|name| !name.is_empty()) else { return Ok(None) };
    match interface_name_fault(&name) {
        None => Ok(Some(name)),
        Some(fault) => {
            let got = format!("{name:?}, which {fault}");
            Err(Error::invalid(key, got, "an interface name"))
        }
    }
}

/// Sees whether `ipMasqBackend` is one that there is: both of the reference's are served by the same
/// nf_tables rules.
///
/// # Errors
/// It is another.
pub fn check_masquerade_backend(root: &Node<'_>) -> Result<(), Error> {
    let Some(backend) = root.get("ipMasqBackend")? else { return Ok(()) };
    match backend.text()? {
        "" | "iptables" | "nftables" => Ok(()),
        _ => Err(backend.invalid("\"iptables\" or \"nftables\"")),
    }
}
