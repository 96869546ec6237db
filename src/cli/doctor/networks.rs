//! The networks that are configured on this node, as far as the other checks ask.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::network::{Extra, Network, files};
use crate::cni::delegate::ITSELF;
use crate::cni::env::{Command, Environment};
use crate::cni::json::Node;
use crate::cni::{Error, NetConf, Request};
use crate::ipam::host_local::config::Config;
use crate::ipam::{dhcp, host_local};
use crate::net::Cidr;

/// What a configuration directory holds.
#[derive(Debug)]
pub struct Networks {
    /// The directory.
    pub directory: PathBuf,
    /// Its files, by name, as runtimes read them.
    pub files: Vec<(PathBuf, Result<Network, String>)>,
    /// The plugins of those that can be read.
    pub plugins: Vec<Plugin>,
}

/// One plugin of a network.
#[derive(Debug)]
pub struct Plugin {
    /// The network's file.
    pub file: PathBuf,
    /// `name` of the network.
    pub network: String,
    /// `type`
    pub kind: String,
    /// Its configuration, as the plugin gets it.
    pub conf: NetConf,
}

impl Networks {
    /// Reads all files of `directory`; there are none if there is no directory.
    ///
    /// # Errors
    /// The directory can't be listed, for people.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let files: Vec<_> = files(directory, &["conf", "conflist", "json"])?
            .into_iter()
            .map(|file| {
                let network = Network::read(&file);
                (file, network)
            })
            .collect();
        let plugins =
            files.iter().flat_map(|(file, network)| plugins_of(file, network.as_ref().ok()));
        let plugins = plugins.collect();
        Ok(Self { directory: directory.to_owned(), files, plugins })
    }

    /// Names of the networks that can be read.
    pub fn names(&self) -> BTreeSet<&str> {
        self.plugins.iter().map(|plugin| plugin.network.as_str()).collect()
    }

    /// The networks of whose plugins one is such, for a sentence; `None` if there is none.
    pub fn with(&self, is_it: impl Fn(&Plugin) -> bool) -> Option<String> {
        let names: BTreeSet<_> =
            self.plugins.iter().filter(|p| is_it(p)).map(|p| p.network.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

fn plugins_of(file: &Path, network: Option<&Network>) -> Vec<Plugin> {
    let Some(network) = network else { return Vec::new() };
    let plugin = |plugin| {
        let conf = NetConf::parse(&network.request(plugin, &Extra::default())).ok()?;
        Some(Plugin {
            file: file.into(),
            network: network.name.clone(),
            kind: plugin.name.clone(),
            conf,
        })
    };
    network.plugins.iter().filter_map(plugin).collect()
}

impl Plugin {
    /// A truth value of the configuration; one that is malformed is told of elsewhere.
    pub fn flag(&self, key: &str) -> bool {
        self.conf.root().flag(key).unwrap_or(false)
    }

    /// The bridge that it makes ports of.
    pub fn bridge(&self) -> Option<String> {
        let name = self.conf.root().string("bridge").ok()?;
        (self.kind == "bridge").then(|| name.unwrap_or_else(|| "cni0".to_owned()))
    }

    /// Whether the host routes for its containers.
    pub fn is_routed(&self) -> bool {
        let is_gateway = self.flag("isGateway") || self.flag("isDefaultGateway");
        self.kind == "ptp" || self.kind == "bridge" && is_gateway
    }

    /// Whether it keeps a VLAN for its ports.
    pub fn filters_vlans(&self) -> bool {
        let has = |key| matches!(self.conf.root().get(key), Ok(Some(_)));
        self.kind == "bridge" && (has("vlan") || has("vlanTrunk"))
    }

    /// `ipam.type`
    pub fn ipam(&self) -> Option<String> {
        self.conf.ipam_type().ok().flatten()
    }

    /// What host-local is configured with; `None` if it is not asked.
    ///
    /// # Errors
    /// What host-local would say.
    pub fn pools(&self) -> Option<Result<Config, Error>> {
        (self.ipam()? == host_local::PLUGIN.name)
            .then(|| request(self.conf.clone()).and_then(|request| Config::read(&request)))
    }

    /// The DHCP daemon's socket; `None` if it is not asked.
    pub fn dhcp_socket(&self) -> Option<PathBuf> {
        (self.ipam()? == dhcp::PLUGIN.name).then_some(())?;
        dhcp::conf::socket_of(&request(self.conf.clone()).ok()?).ok()
    }

    /// The subnets that its containers get addresses of, as far as that is configured.
    pub fn subnets(&self) -> Vec<Cidr> {
        let network = |cidr: Cidr| Cidr { address: cidr.network(), ..cidr };
        let mut subnets: Vec<_> = match self.pools() {
            Some(Ok(config)) => config
                .sets
                .iter()
                .flat_map(|set| set.rounds(None))
                .map(|r| r.range.subnet)
                .collect(),
            _ => self.static_addresses().into_iter().map(network).collect(),
        };
        subnets.sort_by_key(|cidr| (cidr.address, cidr.prefix));
        subnets.dedup();
        subnets
    }

    fn static_addresses(&self) -> Vec<Cidr> {
        let root = self.conf.root();
        let Ok(Some(ipam)) = root.get("ipam") else { return Vec::new() };
        let address =
            |item: &Node<'_>| Ok(item.string("address")?.and_then(|text| text.parse().ok()));
        let addresses = ipam.list("addresses", address).unwrap_or_default();
        addresses.into_iter().flatten().collect()
    }

    /// Whether its containers get addresses of the family.
    pub fn has_family(&self, is_ipv4: bool) -> bool {
        self.subnets().iter().any(|subnet| subnet.address.is_ipv4() == is_ipv4)
    }

    /// What the plugin's STATUS gets, but for address management, which would lock and mend its files:
    /// none is asked.
    ///
    /// # Errors
    /// The configuration is none.
    pub fn status_request(&self) -> Result<Request, Error> {
        let mut document: serde_json::Value =
            serde_json::from_str(&self.conf.to_json()).unwrap_or_default();
        if self.ipam().is_some()
            && let Some(members) = document.as_object_mut()
        {
            members.retain(|key, _| !key.eq_ignore_ascii_case("ipam"));
            members.insert("ipam".into(), json!({"type": "static"}));
        }
        request(NetConf::parse(document.to_string().as_bytes())?)
    }
}

/// A call about a network and no attachment, in which only this program's own plugins are found.
fn request(conf: NetConf) -> Result<Request, Error> {
    let env = Environment {
        command: Command::Status,
        container: String::new(),
        netns: String::new(),
        ifname: String::new(),
        args: String::new(),
        path: vec![ITSELF.into()],
        netns_override: false,
    };
    let stdin = conf.to_json().into_bytes();
    Request::new(env, conf, stdin)
}

/// The networks of one configuration, as if it were in a file of that name.
#[cfg(test)]
pub fn of(texts: &[&str]) -> Networks {
    let files: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            (PathBuf::from(format!("/n/{number}.conflist")), Network::parse(text))
        })
        .collect();
    let plugins = files.iter().flat_map(|(file, n)| plugins_of(file, n.as_ref().ok())).collect();
    Networks { directory: "/n".into(), files, plugins }
}
