//! What a server grants: an address, for how long, and what goes with it. It is the same for both families, only
//! read from other messages.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cni::Error;
use crate::cni::json::Node;
use crate::cni::result::{CniResult, Dns, Ip, Route as ResultRoute};
use crate::net::Cidr;

/// What a server grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The address with its prefix. DHCPv6 tells none: it is an address of its own then.
    pub address: Cidr,
    /// The address of who granted it.
    pub server: IpAddr,
    /// By what a DHCPv6 server knows itself; empty of others.
    pub server_id: Vec<u8>,
    /// The first router. DHCPv6 tells none: routers tell of themselves.
    pub gateway: Option<IpAddr>,
    /// Routes.
    pub routes: Vec<Route>,
    /// MTU in bytes.
    pub mtu: Option<u16>,
    /// Servers for name resolution.
    pub nameservers: Vec<IpAddr>,
    /// The local domain.
    pub domain: Option<String>,
    /// Domains to search.
    pub search: Vec<String>,
    /// For how long.
    pub times: Times,
}

/// A route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads; host bits are clear.
    pub to: Cidr,
    /// The next hop; if none, who is there is on the link.
    pub via: Option<IpAddr>,
}

/// How long a lease lasts, from when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// T1: when its server is asked to renew it.
    pub renew: Duration,
    /// T2: when any server is.
    pub rebind: Duration,
    /// When it ends; if never, the other two have no meaning.
    pub expire: Option<Duration>,
}

impl Terms {
    /// What the plugin returns; routes have the metric `priority`.
    #[must_use]
    pub fn result(&self, priority: u32) -> CniResult {
        let route = |route: &Route| ResultRoute {
            priority,
            // A route to somebody on the link.
            scope: route.via.is_none().then_some(libc::RT_SCOPE_LINK.into()),
            ..ResultRoute::via(route.to, route.via)
        };
        CniResult {
            interfaces: Vec::new(),
            ips: vec![Ip { interface: None, address: self.address, gateway: self.gateway }],
            routes: self.routes.iter().map(route).collect(),
            dns: Dns {
                nameservers: self.nameservers.iter().map(IpAddr::to_string).collect(),
                domain: self.domain.clone().unwrap_or_default(),
                search: self.search.clone(),
                options: Vec::new(),
            },
        }
    }

    /// As it is kept, for [`read_json`](Self::read_json).
    #[must_use]
    pub fn to_value(&self) -> Value {
        let text = |address: &IpAddr| address.to_string();
        let route = |route: &Route| json!({"to": route.to.to_string(), "via": route.via.as_ref().map(text)});
        let milliseconds = |time: Duration| time.as_millis().to_string();
        json!({
            "address": self.address.to_string(),
            "server": text(&self.server),
            "serverId": self.server_id,
            "gateway": self.gateway.as_ref().map(text),
            "routes": self.routes.iter().map(route).collect::<Vec<_>>(),
            "mtu": self.mtu,
            "nameservers": self.nameservers.iter().map(text).collect::<Vec<_>>(),
            "domain": self.domain,
            "search": self.search,
            "renewMs": milliseconds(self.times.renew),
            "rebindMs": milliseconds(self.times.rebind),
            "expireMs": self.times.expire.map(milliseconds),
        })
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// A key is missing or has the wrong type.
    pub fn read_json(node: &Node<'_>) -> Result<Self, Error> {
        let required = |key| match node.get(key)? {
            Some(value) => Ok(value),
            None => Err(Error::invalid(format_args!("{node}.{key}"), "nothing", "a value")),
        };
        let time = |node: &Node<'_>| {
            let read = |text: &str| text.parse().ok().map(Duration::from_millis);
            node.parse("milliseconds", read)
        };
        let route = |node: &Node<'_>| {
            let Some(to) = node.get("to")? else {
                return Err(Error::invalid(node, "nothing", "a route"));
            };
            let via = node.get("via")?.map(|via| via.ip()).transpose()?;
            Ok(Route { to: to.cidr()?, via })
        };
        let mtu = node.number("mtu", 0..=u16::MAX.into())?;
        Ok(Self {
            address: required("address")?.cidr()?,
            server: required("server")?.ip()?,
            server_id: compact(node.list("serverId", byte)?),
            gateway: node.get("gateway")?.map(|gateway| gateway.ip()).transpose()?,
            routes: compact(node.list("routes", route)?),
            mtu: mtu.and_then(|mtu| u16::try_from(mtu).ok()),
            nameservers: compact(node.list("nameservers", |item| item.ip())?),
            domain: node.string("domain")?,
            search: compact(node.list("search", |name| name.text().map(str::to_owned))?),
            times: Times {
                renew: time(&required("renewMs")?)?,
                rebind: time(&required("rebindMs")?)?,
                expire: node.get("expireMs")?.map(|expire| time(&expire)).transpose()?,
            },
        })
    }
}

/// Without the room that a list has for more: it stays as it is for as long as the lease.
pub(super) fn compact<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

fn byte(node: &Node<'_>) -> Result<u8, Error> {
    Ok(u8::try_from(node.integer(0..=u8::MAX.into())?).unwrap_or_default())
}
