//! The result of ADD, and `prevResult`, in every version of the specification.
//!
//! One type holds what the newest version can say. Reading and printing convert: versions before 0.3.0
//! know one address of each family and no interfaces, those before 1.0.0 repeat each address' family,
//! those before 1.1.0 have no `mtu`, `socketPath` and `pciID` of interfaces.

use std::net::IpAddr;

use super::error::{Code, Error};
use super::json::Node;
use super::print::Printer;
use super::version::Version;
use crate::net::Cidr;

/// What an attachment consists of.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CniResult {
    /// Links made or used, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses of the container.
    pub ips: Vec<Ip>,
    /// Routes of the container.
    pub routes: Vec<Route>,
    /// Name resolution in the container.
    pub dns: Dns,
}

/// A link.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link-layer address; may be empty.
    pub mac: String,
    /// Its MTU in bytes; 0 if unknown.
    pub mtu: u32,
    /// The container's network namespace; empty for a link on the host.
    pub sandbox: String,
    /// Socket of a device in user space; may be empty.
    pub socket_path: String,
    /// PCI address of the device; may be empty.
    pub pci_id: String,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Index of its link in [`CniResult::interfaces`].
    pub interface: Option<u32>,
    /// The address and its prefix.
    pub address: Cidr,
    /// The way out of its network.
    pub gateway: Option<IpAddr>,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads, as written: host bits are kept.
    pub dst: Cidr,
    /// The next hop; if none, the first gateway of its family.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes; 0 for none.
    pub mtu: u32,
    /// MSS to advertise in bytes; 0 for none.
    pub advmss: u32,
    /// Metric; 0 for the kernel's default.
    pub priority: u32,
    /// Routing table; if none, the main one.
    pub table: Option<u32>,
    /// `RT_SCOPE_…` (linux/rtnetlink.h).
    pub scope: Option<u32>,
}

/// Name resolution.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Dns {
    /// Addresses of servers, by preference.
    pub nameservers: Vec<String>,
    /// The local domain; may be empty.
    pub domain: String,
    /// Domains to search.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Dns {
    /// Reads a `dns` object.
    ///
    /// # Errors
    /// A key has the wrong type.
    pub fn read(node: &Node<'_>) -> Result<Self, Error> {
        let texts = |key| node.list(key, |item| item.text().map(str::to_owned));
        Ok(Self {
            nameservers: texts("nameservers")?,
            domain: node.string("domain")?.unwrap_or_default(),
            search: texts("search")?,
            options: texts("options")?,
        })
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn print(&self, p: &mut Printer, order: Order) {
        let texts = |p: &mut Printer, key, texts: &[String]| {
            if !texts.is_empty() {
                p.key(key).list_of(texts, |p, text| p.string(text));
            }
        };
        p.object(|p| {
            if order == Order::Declared {
                texts(p, "nameservers", &self.nameservers);
                print_text(p, "domain", &self.domain);
                texts(p, "search", &self.search);
                texts(p, "options", &self.options);
            } else {
                print_text(p, "domain", &self.domain);
                texts(p, "nameservers", &self.nameservers);
                texts(p, "options", &self.options);
                texts(p, "search", &self.search);
            }
        });
    }
}

impl Route {
    /// A route with nothing but a destination and a next hop.
    #[must_use]
    pub fn via(dst: Cidr, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: 0, advmss: 0, priority: 0, table: None, scope: None }
    }

    /// Reads a route object.
    ///
    /// # Errors
    /// `dst` is missing, `gw` of the other address family, or a key has the wrong type or is out of
    /// range.
    pub fn read(node: &Node<'_>) -> Result<Self, Error> {
        let number = |key| Ok::<_, Error>(node.number(key, 0..=u32::MAX)?.unwrap_or(0));
        let dst = required(node, "dst")?.cidr()?;
        let gw = optional_ip(node, "gw")?;
        if let Some(gw) = gw.filter(|gw| gw.is_ipv4() != dst.address.is_ipv4()) {
            let expected = format!("an address of the family of dst {dst}");
            return Err(Error::invalid(format_args!("{node}.gw"), gw, &expected));
        }
        Ok(Self {
            dst,
            gw,
            mtu: number("mtu")?,
            advmss: number("advmss")?,
            priority: number("priority")?,
            table: node.number("table", 0..=u32::MAX)?,
            scope: node.number("scope", 0..=255)?,
        })
    }

    fn print(&self, p: &mut Printer, order: Order) {
        let number = |p: &mut Printer, key, value: Option<u32>| {
            if let Some(value) = value {
                p.key(key).number(value);
            }
        };
        let positive = |value| (value != 0).then_some(value);
        let destination = |p: &mut Printer| p.key("dst").string(&self.dst.to_string());
        let gateway = |p: &mut Printer| print_ip(p, "gw", self.gw);
        p.object(|p| {
            if order == Order::Declared {
                destination(p);
                gateway(p);
                number(p, "mtu", positive(self.mtu));
                number(p, "advmss", positive(self.advmss));
                number(p, "priority", positive(self.priority));
                number(p, "table", self.table);
                number(p, "scope", self.scope);
            } else {
                number(p, "advmss", positive(self.advmss));
                destination(p);
                gateway(p);
                number(p, "mtu", positive(self.mtu));
                number(p, "priority", positive(self.priority));
                number(p, "scope", self.scope);
                number(p, "table", self.table);
            }
        });
    }
}

impl Interface {
    fn read(node: &Node<'_>) -> Result<Self, Error> {
        let text = |key| Ok::<_, Error>(node.string(key)?.unwrap_or_default());
        Ok(Self {
            name: text("name")?,
            mac: text("mac")?,
            mtu: node.number("mtu", 0..=u32::MAX)?.unwrap_or(0),
            sandbox: text("sandbox")?,
            socket_path: text("socketPath")?,
            pci_id: text("pciID")?,
        })
    }

    fn print(&self, p: &mut Printer, version: Version) {
        p.object(|p| {
            if version < Version::V1_0_0 {
                p.key("name").string(&self.name);
                print_text(p, "mac", &self.mac);
                print_text(p, "sandbox", &self.sandbox);
                return;
            }
            print_text(p, "mac", &self.mac);
            if version >= Version::V1_1_0 && self.mtu != 0 {
                p.key("mtu").number(self.mtu);
            }
            p.key("name").string(&self.name);
            if version >= Version::V1_1_0 {
                print_text(p, "pciID", &self.pci_id);
            }
            print_text(p, "sandbox", &self.sandbox);
            if version >= Version::V1_1_0 {
                print_text(p, "socketPath", &self.socket_path);
            }
        });
    }
}

impl Ip {
    fn read(node: &Node<'_>) -> Result<Self, Error> {
        Ok(Self {
            interface: node.number("interface", 0..=u32::MAX)?,
            address: required(node, "address")?.cidr()?,
            gateway: optional_ip(node, "gateway")?,
        })
    }

    fn print(&self, p: &mut Printer, version: Version) {
        let index = |p: &mut Printer| {
            if let Some(index) = self.interface {
                p.key("interface").number(index);
            }
        };
        p.object(|p| {
            if version < Version::V1_0_0 {
                p.key("version").string(if self.address.address.is_ipv4() { "4" } else { "6" });
                index(p);
            }
            p.key("address").string(&self.address.to_string());
            print_ip(p, "gateway", self.gateway);
            if version >= Version::V1_0_0 {
                index(p);
            }
        });
    }
}

/// In which order members are printed: as the reference declares them up to 0.4.0, by name from 1.0.0.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Declared,
    Sorted,
}

impl CniResult {
    /// Reads a result object, in the version that it names, or else in `default`.
    ///
    /// # Errors
    /// The version is unknown, or a key is missing or has the wrong type.
    pub fn read(node: &Node<'_>, default: Version) -> Result<Self, Error> {
        let version = match node.string("cniVersion")? {
            Some(text) => Version::parse(&text).ok_or_else(|| Error::incompatible(&text))?,
            None => default,
        };
        let dns = match node.get("dns")? {
            Some(dns) => Dns::read(&dns)?,
            None => Dns::default(),
        };
        if version < Version::V0_3_0 {
            return Self::read_oldest(node, dns);
        }
        Ok(Self {
            interfaces: node.list("interfaces", Interface::read)?,
            ips: node.list("ips", Ip::read)?,
            routes: node.list("routes", Route::read)?,
            dns,
        })
    }

    fn read_oldest(node: &Node<'_>, dns: Dns) -> Result<Self, Error> {
        let mut result = Self { dns, ..Self::default() };
        for key in ["ip4", "ip6"] {
            let Some(family) = node.get(key)? else { continue };
            result.ips.push(Ip {
                interface: None,
                address: required(&family, "ip")?.cidr()?,
                gateway: optional_ip(&family, "gateway")?,
            });
            result.routes.extend(family.list("routes", Route::read)?);
        }
        Ok(result)
    }

    /// The result as it is printed on standard output.
    #[must_use]
    pub fn to_json(&self, version: Version) -> String {
        let mut printer = Printer::new();
        printer.object(|p| {
            p.key("cniVersion").string(version.text());
            if version < Version::V0_3_0 {
                self.print_oldest(p);
            } else if version < Version::V1_0_0 {
                self.print_lists(p, version, Order::Declared);
                self.dns.print(p.key("dns"), Order::Declared);
            } else {
                if !self.dns.is_empty() {
                    self.dns.print(p.key("dns"), Order::Sorted);
                }
                self.print_lists(p, version, Order::Sorted);
            }
        });
        printer.finish()
    }

    fn print_lists(&self, p: &mut Printer, version: Version, order: Order) {
        if !self.interfaces.is_empty() {
            p.key("interfaces").list_of(&self.interfaces, |p, link| link.print(p, version));
        }
        if !self.ips.is_empty() {
            p.key("ips").list_of(&self.ips, |p, ip| ip.print(p, version));
        }
        if !self.routes.is_empty() {
            p.key("routes").list_of(&self.routes, |p, route| route.print(p, order));
        }
    }

    /// The first address of each family, and the family's routes.
    fn print_oldest(&self, p: &mut Printer) {
        for (key, is_ipv4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.address.is_ipv4() == is_ipv4)
            else {
                continue;
            };
            let routes = self.routes.iter().filter(|route| route.dst.address.is_ipv4() == is_ipv4);
            p.key(key).object(|p| {
                p.key("ip").string(&ip.address.to_string());
                print_ip(p, "gateway", ip.gateway);
                if routes.clone().next().is_some() {
                    p.key("routes").list_of(routes, |p, route| route.print(p, Order::Declared));
                }
            });
        }
        self.dns.print(p.key("dns"), Order::Declared);
    }
}

fn print_text(p: &mut Printer, key: &str, text: &str) {
    if !text.is_empty() {
        p.key(key).string(text);
    }
}

fn print_ip(p: &mut Printer, key: &str, ip: Option<IpAddr>) {
    if let Some(ip) = ip {
        p.key(key).string(&ip.to_string());
    }
}

fn required<'a>(node: &'a Node<'a>, key: &'a str) -> Result<Node<'a>, Error> {
    node.get(key)?.ok_or_else(|| {
        Error::new(Code::InvalidConfig, format!("{node}.{key}: expected an address, got nothing"))
    })
}

/// An address that may be absent, or empty, which some write.
fn optional_ip(node: &Node<'_>, key: &str) -> Result<Option<IpAddr>, Error> {
    match node.get(key)? {
        Some(ip) if ip.text()?.is_empty() => Ok(None),
        Some(ip) => ip.ip().map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CniResult {
        CniResult {
            interfaces: vec![
                Interface {
                    name: "cni0".into(),
                    mac: "02:00:00:00:00:01".into(),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    mtu: 1400,
                    sandbox: "/run/netns/x".into(),
                    ..Interface::default()
                },
            ],
            ips: vec![
                Ip {
                    interface: Some(1),
                    address: "10.1.0.2/24".parse().unwrap(),
                    gateway: Some("10.1.0.1".parse().unwrap()),
                },
                Ip { interface: Some(1), address: "fd00::2/64".parse().unwrap(), gateway: None },
            ],
            routes: vec![
                Route {
                    mtu: 1300,
                    table: Some(5),
                    ..Route::via("0.0.0.0/0".parse().unwrap(), Some("10.1.0.1".parse().unwrap()))
                },
                Route::via("fd01::5/32".parse().unwrap(), None),
            ],
            dns: Dns::default(),
        }
    }

    fn read(text: &str, default: Version) -> Result<CniResult, Error> {
        let value = serde_json::from_str(text).unwrap();
        CniResult::read(&Node::root("prevResult", &value), default)
    }

    #[test]
    fn the_oldest_form_has_one_address_of_each_family() {
        let expected = r#"{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.1.0.2/24",
        "gateway": "10.1.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0",
                "gw": "10.1.0.1",
                "mtu": 1300,
                "table": 5
            }
        ]
    },
    "ip6": {
        "ip": "fd00::2/64",
        "routes": [
            {
                "dst": "fd01::5/32"
            }
        ]
    },
    "dns": {}
}"#;
        assert_eq!(sample().to_json(Version::V0_2_0), expected);
        let empty = "{\n    \"cniVersion\": \"0.1.0\",\n    \"dns\": {}\n}";
        assert_eq!(CniResult::default().to_json(Version::V0_1_0), empty);
    }

    #[test]
    fn the_middle_form_keeps_the_declared_order_and_prints_empty_dns() {
        let text = sample().to_json(Version::V0_4_0);
        let keys: Vec<_> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.split_once('"').map(|(key, _)| key))
            .collect();
        let expected = [
            "cniVersion",
            "interfaces",
            "name",
            "mac",
            "name",
            "mac",
            "sandbox",
            "ips",
            "version",
            "interface",
            "address",
            "gateway",
            "version",
            "interface",
            "address",
            "routes",
            "dst",
            "gw",
            "mtu",
            "table",
            "dst",
            "dns",
        ];
        assert_eq!(keys, expected);
        assert!(text.ends_with("\"dns\": {}\n}"), "{text}");
    }

    #[test]
    fn the_newest_form_is_sorted_and_drops_empty_dns() {
        let expected = r#"{
    "cniVersion": "1.1.0",
    "interfaces": [
        {
            "mac": "02:00:00:00:00:01",
            "name": "cni0"
        },
        {
            "mac": "02:00:00:00:00:02",
            "mtu": 1400,
            "name": "eth0",
            "sandbox": "/run/netns/x"
        }
    ],
    "ips": [
        {
            "address": "10.1.0.2/24",
            "gateway": "10.1.0.1",
            "interface": 1
        },
        {
            "address": "fd00::2/64",
            "interface": 1
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "10.1.0.1",
            "mtu": 1300,
            "table": 5
        },
        {
            "dst": "fd01::5/32"
        }
    ]
}"#;
        assert_eq!(sample().to_json(Version::V1_1_0), expected);
        assert!(!sample().to_json(Version::V1_0_0).contains("mtu\": 1400"));
    }

    #[test]
    fn every_version_reads_back_what_it_can_say() {
        let mut result = sample();
        result.dns = Dns {
            nameservers: vec!["10.1.0.1".into()],
            domain: "x".into(),
            search: vec!["a".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        for version in Version::ALL {
            let text = result.to_json(version);
            // Once without its version, which is then the configuration's.
            let bare = text.replacen(&format!("\"cniVersion\": \"{version}\",\n    "), "", 1);
            for (text, default) in [(&text, Version::V1_0_0), (&bare, version)] {
                let mut expected = result.clone();
                if version < Version::V0_3_0 {
                    expected.interfaces.clear();
                    expected.ips.iter_mut().for_each(|ip| ip.interface = None);
                } else if version < Version::V1_1_0 {
                    expected.interfaces.iter_mut().for_each(|link| link.mtu = 0);
                }
                assert_eq!(read(text, default).unwrap(), expected, "{version}");
            }
        }
    }

    #[test]
    fn what_engines_send_is_tolerated() {
        let text = r#"{"cniVersion":"1.0.0","ips":[{"version":"4","address":"10.0.0.2/8","gateway":""}],"routes":null}"#;
        assert_eq!(read(text, Version::V1_0_0).unwrap().ips.len(), 1);
    }

    #[test]
    fn faults_name_their_place() {
        let text = r#"{"ips":[{"address":"10.0.0.2/8"},{"address":"10.0.0"}]}"#;
        let error = read(text, Version::V1_0_0).unwrap_err();
        assert!(error.msg.starts_with("prevResult.ips[1].address: expected"), "{}", error.msg);
        let error = read(r#"{"cniVersion":"7.0.0"}"#, Version::V1_0_0).unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion as u32);
    }
}
