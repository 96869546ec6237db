//! What packet rules the attachments of this node are to have: who they are tells the kernel, what they are to
//! have the network's configuration, by which addresses the leases.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::cli::cache::Entry;
use crate::cli::ls::{self, Attached};
use crate::cli::network::{Extra, Network};
use crate::cli::summary::read_result;
use crate::cni::env::{Command, Environment};
use crate::cni::result::Ip;
use crate::cni::{Attachment, CniResult, Error, NetConf, Request, Version};
use crate::ipam::host_local::config::{Config, data_dir};
use crate::ipam::host_local::store::Store;
use crate::ipam::static_ipam;
use crate::net::{Cidr, Mac};
use crate::nl::{Family, Socket, link};
use crate::plugins::{attach, bridge, masquerade, ptp, spoof_check};

/// What is to be there.
#[derive(Default, Debug)]
pub struct Plan {
    /// `ipMasq`
    pub masqueraded: Vec<masquerade::restore::Wanted>,
    /// `macspoofchk`
    pub guarded: Vec<spoof_check::restore::Wanted>,
    /// Addresses that the host is to forward for.
    pub forwarded: Vec<Cidr>,
    /// The attachments that any of this is for.
    pub attachments: Vec<Attachment>,
    /// The attachments whose network is not configured, nor kept by the runtime, for people.
    pub unconfigured: Vec<String>,
    /// What can't be told, and of whom, for people.
    pub unknown: Vec<String>,
}

/// What a network's configuration says of packet rules.
struct Rules {
    masquerade: bool,
    guard: bool,
    forward: bool,
    /// The address that all containers are to have.
    mac: Option<Mac>,
    /// As if the network were asked about no container in particular.
    request: Request,
    /// Leases by container and interface; none if its addresses are not host-local's.
    leases: Option<HashMap<(String, String), Vec<IpAddr>>>,
}

impl Plan {
    /// Looks at the links, then at what `networks` say of them. An attachment whose network is not among those
    /// is taken as the runtime has kept it.
    ///
    /// # Errors
    /// The links can't be read, for people.
    pub fn make(networks: &[Network], is_asked_for: impl Fn(&str) -> bool) -> Result<Self, String> {
        let mut host = Socket::open(Family::Route).map_err(|error| error.to_string())?;
        let mut plan = Self::default();
        let mut known: HashMap<String, Result<Option<Rules>, String>> = HashMap::new();
        for attached in ls::attached()? {
            // What else there is of plumb's on the host has no packet rules.
            if !attached.link.is_veth() || !is_asked_for(&attached.attachment.network) {
                continue;
            }
            let name = &attached.attachment.network;
            let kept = Entry::load(&attached.attachment).ok().flatten();
            let network = networks.iter().find(|network| network.name == *name);
            let kept_rules;
            let rules = match (network, &kept) {
                (Some(network), _) => {
                    known.entry(name.clone()).or_insert_with(|| Rules::read(network))
                }
                (None, Some(entry)) if !entry.config.is_empty() => {
                    kept_rules = Network::parse(&entry.config).and_then(|n| Rules::read(&n));
                    &kept_rules
                }
                (None, _) => {
                    plan.unconfigured.push(of(&attached.attachment));
                    continue;
                }
            };
            match rules {
                Ok(Some(rules)) => plan.include(&mut host, rules, &attached, kept.as_ref()),
                Ok(None) => {}
                Err(what) => plan.unknown.push(format!("{}: {what}", of(&attached.attachment))),
            }
        }
        Ok(plan)
    }

    fn include(
        &mut self,
        host: &mut Socket,
        rules: &Rules,
        attached: &Attached,
        kept: Option<&Entry>,
    ) {
        let attachment = &attached.attachment;
        let returned = kept.and_then(|entry| returned(entry, attachment));
        let addresses = rules.addresses(host, attached, returned.as_ref().map(|(ips, _)| ips));
        let mut any = false;
        if rules.masquerade || rules.forward {
            if addresses.is_empty() && rules.request.conf.ipam_type().ok().flatten().is_some() {
                self.unknown.push(format!("{}: its addresses can't be told", of(attachment)));
            }
            any |= !addresses.is_empty();
        }
        let label = attachment.label();
        if rules.forward {
            self.forwarded.extend(&addresses);
        }
        if rules.masquerade {
            let wanted = |address: &Cidr| masquerade::restore::Wanted {
                label: label.clone(),
                address: *address,
            };
            self.masqueraded.extend(addresses.iter().map(wanted));
        }
        if rules.guard {
            any = true;
            match rules.mac(host, attached, &addresses, returned.and_then(|(_, mac)| mac)) {
                Ok((mac, doubt)) => {
                    self.unknown.extend(doubt.map(|what| format!("{}: {what}", of(attachment))));
                    let link = attached.link.name.clone();
                    self.guarded.push(spoof_check::restore::Wanted { label, link, mac });
                }
                Err(what) => self.unknown.push(format!("{}: {what}", of(attachment))),
            }
        }
        if any {
            self.attachments.push(attachment.clone());
        }
    }
}

impl Rules {
    /// What the network says; `None` if it has no packet rules.
    fn read(network: &Network) -> Result<Option<Self>, String> {
        let is_ours = |name: &str| name == bridge::PLUGIN.name || name == ptp::PLUGIN.name;
        let Some(plugin) = network.plugins.iter().find(|plugin| is_ours(&plugin.name)) else {
            return Ok(None);
        };
        let text = network.request(plugin, &Extra::default());
        let fault = |what: &dyn std::fmt::Display| format!("network {}: {what}", network.name);
        let conf = NetConf::parse(&text).map_err(|error| fault(&error))?;
        let environment = Environment {
            command: Command::Status,
            container: String::new(),
            netns: String::new(),
            ifname: String::new(),
            args: String::new(),
            path: Vec::new(),
            netns_override: false,
        };
        let request = Request::new(environment, conf, text).map_err(|error| fault(&error))?;
        let mut rules = Self {
            masquerade: false,
            guard: false,
            forward: false,
            mac: None,
            request,
            leases: None,
        };
        if plugin.name == bridge::PLUGIN.name {
            let conf = bridge::conf::Conf::read(&rules.request).map_err(|error| fault(&error))?;
            rules.masquerade = conf.ip_masq;
            rules.guard = conf.mac_spoof_check;
            rules.forward = conf.is_gateway;
            rules.mac = conf.mac;
        } else {
            let conf = ptp::Conf::read(&rules.request).map_err(|error| fault(&error))?;
            (rules.masquerade, rules.forward) = (conf.ip_masq, true);
        }
        if !rules.masquerade && !rules.guard && !rules.forward {
            return Ok(None);
        }
        let ipam = rules.request.conf.ipam_type().map_err(|error| fault(&error))?;
        if ipam.as_deref() == Some("host-local") {
            rules.leases = Some(leases(&rules.request).map_err(|error| fault(&error))?);
        }
        Ok(Some(rules))
    }

    /// The addresses of an attachment, as ADD returned them: what is leased to it, or what the configuration
    /// gives it, or what ADD is known to have returned; only then what the container has, which could give
    /// itself any.
    fn addresses(
        &self,
        host: &mut Socket,
        attached: &Attached,
        returned: Option<&Vec<Cidr>>,
    ) -> Vec<Cidr> {
        let Attachment { container, ifname, .. } = &attached.attachment;
        if let Some(leases) = &self.leases {
            let by = |ifname: &str| leases.get(&(container.clone(), ifname.to_owned()));
            // Files of old releases name no interface.
            let leased = by(ifname).or_else(|| by("")).cloned().unwrap_or_default();
            if leased.is_empty() {
                return Vec::new();
            }
            let inside = || inside(host, attached);
            return self.with_prefixes(&leased, returned, inside);
        }
        if let Some(returned) = returned {
            return returned.clone();
        }
        let is_static = self.request.conf.ipam_type().ok().flatten().as_deref() == Some("static");
        let configured = if is_static { static_ipam::addresses(&self.request).ok() } else { None };
        let configured: Vec<_> =
            configured.unwrap_or_default().into_iter().map(|ip| ip.address).collect();
        if configured.is_empty() { inside(host, attached) } else { configured }
    }

    /// Leased addresses with the length of prefix that ADD gave them, which their ranges have: those of the
    /// configuration, or others that the runtime told of.
    fn with_prefixes(
        &self,
        leased: &[IpAddr],
        returned: Option<&Vec<Cidr>>,
        inside: impl FnOnce() -> Vec<Cidr>,
    ) -> Vec<Cidr> {
        let sets = Config::read(&self.request).map(|config| config.sets).unwrap_or_default();
        let by =
            |list: &[Cidr], address: IpAddr| list.iter().find(|c| c.address == address).copied();
        let mut inside = Some(inside);
        let mut found_inside = Vec::new();
        let mut addresses = Vec::new();
        for address in leased {
            let range = sets.iter().find_map(|set| set.range_of(*address));
            let known = returned
                .and_then(|list| by(list, *address))
                .or_else(|| range.map(|r| Cidr { address: *address, prefix: r.subnet.prefix }));
            addresses.extend(known.or_else(|| {
                if let Some(inside) = inside.take() {
                    found_inside = inside();
                }
                by(&found_inside, *address)
            }));
        }
        addresses
    }

    /// The address of a container's interface: as ADD returned it, or as it is configured; else as the
    /// container has it, with what speaks against that: one that does not follow from an address of it, as ADD
    /// makes it, may have been asked for by the runtime, or be forged.
    fn mac(
        &self,
        host: &mut Socket,
        attached: &Attached,
        addresses: &[Cidr],
        returned: Option<Mac>,
    ) -> Result<(Mac, Option<String>), String> {
        if let Some(mac) = returned.or(self.mac) {
            return Ok((mac, None));
        }
        let (Some(peer), Some(netns)) = (attached.link.peer, attached.link.peer_netns) else {
            return Err("its other end is in no namespace of a container".into());
        };
        let inside = link::get_in(host, netns, peer).map_err(|error| error.to_string())?;
        let mac = inside
            .and_then(|link| link.mac)
            .ok_or_else(|| "its link-layer address can't be told".to_owned())?;
        let attachment = &attached.attachment;
        let follows = mac == attachment.container_mac()
            || addresses.iter().any(|address| mac == derived(attachment, *address));
        let doubt = (!follows).then(|| {
            format!("macspoofchk is for {mac}, which the container has and may have given itself")
        });
        Ok((mac, doubt))
    }
}

/// The link-layer address that ADD derives from an address.
fn derived(attachment: &Attachment, address: Cidr) -> Mac {
    let ip = Ip { interface: None, address, gateway: None };
    let result = CniResult { ips: vec![ip], ..CniResult::default() };
    attach::container_mac(None, attachment, &result)
}

/// All leases of the request's network, in one look.
fn leases(request: &Request) -> Result<HashMap<(String, String), Vec<IpAddr>>, Error> {
    let mut leases: HashMap<_, Vec<IpAddr>> = HashMap::new();
    if let Some(store) = Store::open(&data_dir(&request.conf)?, &request.conf.name)? {
        for lease in store.look()? {
            leases.entry((lease.container, lease.ifname)).or_default().push(lease.address);
        }
    }
    Ok(leases)
}

/// The addresses of the container's end, but for those that it gives itself; none if they can't be read.
fn inside(host: &mut Socket, attached: &Attached) -> Vec<Cidr> {
    ls::addresses(host, attached).unwrap_or_default()
}

/// What ADD is known to have returned of the attachment's own interface: addresses, and link-layer address.
fn returned(entry: &Entry, attachment: &Attachment) -> Option<(Vec<Cidr>, Option<Mac>)> {
    let result = read_result(&entry.result, Version::V1_0_0).ok()?;
    let (interface, own) = attach::of_container(&result, &attachment.ifname).ok()?;
    Some((attach::addresses(&own), interface.mac.parse().ok()))
}

fn of(attachment: &Attachment) -> String {
    format!("{} {}/{}", attachment.network, attachment.container, attachment.ifname)
}
