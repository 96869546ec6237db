//! What plugin bridge is configured with.

use crate::cni::conf::interface_name_fault;
use crate::cni::json::Node;
use crate::cni::result::{CniResult, Dns};
use crate::cni::{Code, Error, Request};
use crate::net::Mac;
use crate::nl::link::PortFlags;
use crate::plugins::container::{self, Dad, Ipv6};

/// The configuration.
#[derive(Debug)]
pub(super) struct Conf {
    /// `bridge`
    pub bridge: String,
    /// `isGateway`, or what implies it
    pub is_gateway: bool,
    /// `isDefaultGateway`
    pub is_default_gateway: bool,
    /// `forceAddress`
    pub force_address: bool,
    /// `ipMasq`
    pub ip_masq: bool,
    /// `mtu`, of a bridge that is made and of the veth pair; none for the kernel's default
    pub mtu: Option<u32>,
    /// `promiscMode`
    pub promiscuous: bool,
    /// `hairpinMode`, `portIsolation`
    pub port: PortFlags,
    /// `macspoofchk`
    pub mac_spoof_check: bool,
    /// `enabledad`
    pub enable_dad: bool,
    /// `disableContainerInterface`
    pub leave_down: bool,
    /// The address asked for the container's end, of `mac` in its three places
    pub mac: Option<Mac>,
    /// `dns`
    pub dns: Dns,
}

impl Conf {
    /// Reads all that ADD and CHECK need.
    ///
    /// # Errors
    /// A key has the wrong type or value, or two contradict each other.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let root = request.conf.root();
        let is_default_gateway = root.flag("isDefaultGateway")?;
        let conf = Self {
            bridge: bridge_name(&root)?,
            is_gateway: root.flag("isGateway")? || is_default_gateway,
            is_default_gateway,
            force_address: root.flag("forceAddress")?,
            ip_masq: root.flag("ipMasq")?,
            mtu: mtu(&root)?,
            promiscuous: root.flag("promiscMode")?,
            port: PortFlags {
                hairpin: root.flag("hairpinMode")?,
                isolated: root.flag("portIsolation")?,
            },
            mac_spoof_check: root.flag("macspoofchk")?,
            enable_dad: root.flag("enabledad")?,
            leave_down: root.flag("disableContainerInterface")?,
            mac: mac(request)?,
            dns: request.conf.dns()?,
        };
        check_backend(&root)?;
        check_vlans(&root)?;
        if conf.port.hairpin && conf.promiscuous {
            return Err(Error::invalid("promiscMode", "true", "false, as hairpinMode is true"));
        }
        if conf.leave_down && request.conf.ipam_type()?.is_some() {
            return Err(Error::invalid(
                "disableContainerInterface",
                "true",
                "false, as addresses are configured (ipam.type)",
            ));
        }
        Ok(conf)
    }

    /// How the container's end treats IPv6. An attachment that has only IPv4 addresses is left alone:
    /// nobody waits for its link-local address.
    pub fn ipv6(&self, result: &CniResult) -> Ipv6 {
        let keep_addresses = container::has_ipv6(result);
        let dad = if self.enable_dad {
            Dad::On
        } else if result.ips.is_empty() || keep_addresses {
            Dad::Off
        } else {
            Dad::Default
        };
        Ipv6 { dad, keep_addresses }
    }
}

fn bridge_name(root: &Node<'_>) -> Result<String, Error> {
    let Some(node) = root.get("bridge")? else { return Ok("cni0".to_owned()) };
    let name = node.text()?;
    match interface_name_fault(name) {
        None => Ok(name.to_owned()),
        Some(fault) => Err(Error::invalid(
            "bridge",
            format_args!("{name:?}, which {fault}"),
            "an interface name",
        )),
    }
}

/// The kernel's bounds for a veth pair: `ETH_MIN_MTU` and `ETH_MAX_MTU` (linux/if_ether.h).
fn mtu(root: &Node<'_>) -> Result<Option<u32>, Error> {
    let mtu = root.number("mtu", 0..=65535)?.filter(|mtu| *mtu != 0);
    if mtu.is_some_and(|mtu| mtu < 68) {
        return Err(root.get("mtu")?.map_or_else(
            || root.invalid("an MTU"),
            |node| node.invalid("0 for the kernel's default, or 68 to 65535"),
        ));
    }
    Ok(mtu)
}

/// The container's address, of the three places in rising order of precedence.
fn mac(request: &Request) -> Result<Option<Mac>, Error> {
    let root = request.conf.root();
    let read = |object: Option<Node<'_>>| match object {
        Some(object) => match object.get("mac")? {
            Some(node) if !node.text()?.is_empty() => node.mac().map(Some),
            _ => Ok(None),
        },
        None => Ok(None),
    };
    if let Some(mac) = read(root.get("runtimeConfig")?)? {
        return Ok(Some(mac));
    }
    if let Some(args) = root.get("args")?
        && let Some(mac) = read(args.get("cni")?)?
    {
        return Ok(Some(mac));
    }
    let Some(text) = &request.args()?.mac else { return Ok(None) };
    match text.parse::<Mac>() {
        Ok(mac) if mac.is_assignable() => Ok(Some(mac)),
        _ => {
            let msg = format!("CNI_ARGS: MAC: expected a unicast MAC address, got {text:?}");
            Err(Error::new(Code::InvalidEnvironment, msg))
        }
    }
}

/// Both of the reference's backends are served by the same nf_tables rules.
fn check_backend(root: &Node<'_>) -> Result<(), Error> {
    let Some(backend) = root.get("ipMasqBackend")? else { return Ok(()) };
    match backend.text()? {
        "" | "iptables" | "nftables" => Ok(()),
        _ => Err(backend.invalid("\"iptables\" or \"nftables\"")),
    }
}

/// The VLAN keys are validated; to honour them is not in yet, and to ignore them would connect what is
/// to be kept apart.
fn check_vlans(root: &Node<'_>) -> Result<(), Error> {
    let unsupported = |key: &str, value: &str| {
        let msg = format!("{key}: VLANs on bridges are not supported yet, got {value}");
        Err(Error::new(Code::UnsupportedField, msg))
    };
    root.flag("preserveDefaultVlan")?;
    let trunk = root.list("vlanTrunk", |item| {
        let id = item.number("id", 1..=4094)?;
        let (min, max) = (item.number("minID", 1..=4094)?, item.number("maxID", 1..=4094)?);
        match (id, min, max) {
            (_, Some(min), Some(max)) if min <= max => Ok(()),
            (Some(_), None, None) => Ok(()),
            _ => Err(item.invalid("an id, or minID and maxID in this order")),
        }
    })?;
    match root.number("vlan", 0..=4094)? {
        Some(vlan) if vlan != 0 => unsupported("vlan", &vlan.to_string()),
        _ if !trunk.is_empty() => unsupported("vlanTrunk", &format!("{} items", trunk.len())),
        _ => Ok(()),
    }
}
