//! What plugin bridge is configured with.

use super::vlan::Vlans;
use crate::cni::conf::interface_name_fault;
use crate::cni::json::Node;
use crate::cni::result::{CniResult, Dns};
use crate::cni::{Error, Request};
use crate::net::Mac;
use crate::nl::link::PortFlags;
use crate::plugins::conf;
use crate::plugins::container::{Dad, Ipv6};

/// The configuration.
#[derive(Debug)]
pub struct Conf {
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
    /// `vlan`, `vlanTrunk`, `preserveDefaultVlan`; none if the port is in the bridge's default VLAN
    pub vlans: Option<Vlans>,
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
        let read = Self {
            bridge: bridge_name(&root)?,
            is_gateway: root.flag("isGateway")? || is_default_gateway,
            is_default_gateway,
            force_address: root.flag("forceAddress")?,
            ip_masq: root.flag("ipMasq")?,
            mtu: conf::mtu(&root)?,
            promiscuous: root.flag("promiscMode")?,
            port: PortFlags {
                hairpin: root.flag("hairpinMode")?,
                isolated: root.flag("portIsolation")?,
            },
            vlans: Vlans::read(&root)?,
            mac_spoof_check: root.flag("macspoofchk")?,
            enable_dad: root.flag("enabledad")?,
            leave_down: root.flag("disableContainerInterface")?,
            mac: conf::mac(request)?,
            dns: request.conf.dns()?,
        };
        conf::check_masquerade_backend(&root)?;
        if read.port.hairpin && read.promiscuous {
            return Err(Error::invalid("promiscMode", "true", "false, as hairpinMode is true"));
        }
        if read.leave_down && request.conf.ipam_type()?.is_some() {
            return Err(Error::invalid(
                "disableContainerInterface",
                "true",
                "false, as addresses are configured (ipam.type)",
            ));
        }
        if let (Some(name), true) = (read.gateway_link(), request.conf.ipam_type()?.is_some())
            && let Some(fault) = interface_name_fault(&name)
        {
            let expected = "a shorter name, as that of the VLAN's gateway interface begins with it";
            let got = format_args!("{:?}: {name:?} {fault}", read.bridge);
            return Err(Error::invalid("bridge", got, expected));
        }
        Ok(read)
    }

    /// Name of the interface that the gateway of the VLAN has beside the bridge; none if it is the bridge.
    pub fn gateway_link(&self) -> Option<String> {
        let vlan = self.vlans.as_ref()?.access.filter(|_| self.is_gateway)?;
        Some(format!("{}.{vlan}", self.bridge))
    }

    /// How the container's end treats IPv6.
    pub fn ipv6(&self, result: &CniResult) -> Ipv6 {
        let fitting = Ipv6::of(result);
        if self.enable_dad { Ipv6 { dad: Dad::On, ..fitting } } else { fitting }
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
