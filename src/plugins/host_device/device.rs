//! Which device of the host's is meant, and where it is now.
//!
//! Sysfs tells what belongs to a PCI address or another place: below a device's directory, `net/` has its
//! links. The way there is made of names that were checked, without a slash or `..`. Sysfs is made of symbolic
//! links, so they are followed: they are the kernel's, as is all of /sys.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::cni::conf::interface_name_fault;
use crate::cni::json::Node;
use crate::cni::{Code, Error};
use crate::net::Mac;
use crate::nl::Socket;
use crate::nl::link::{self, LOOPBACK_INDEX, Link, Target};
use crate::plugins::origin::{self, Origin};
use crate::trace;

const DEVICES: &str = "/sys/devices";
const PCI: &str = "/sys/bus/pci/devices";
const AUXILIARY: &str = "/sys/bus/auxiliary/devices";

/// Drivers that leave a PCI device to a program in user space.
const USER_SPACE_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// A PCI device, by its address: `0000:00:1f.6`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pci(String);

impl Pci {
    /// The address that `text` is: domain, bus, device, function. Sysfs has it in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        // A domain behind a volume management device has more digits.
        let is_address = (4..=8).contains(&domain.len())
            && (bus.len(), device.len(), function.len()) == (2, 2, 1)
            && [domain, bus, device].into_iter().all(is_hex)
            && matches!(function, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7");
        is_address.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0
    }

    fn directory(&self) -> PathBuf {
        Path::new(PCI).join(&self.0)
    }

    /// Whether the device is bound to a driver that leaves it to a program in user space (DPDK).
    ///
    /// # Errors
    /// Its driver can't be read.
    pub fn is_left_to_user_space(&self) -> Result<bool, Error> {
        let path = self.directory().join("driver");
        let driver = fs::read_link(&path);
        trace::file("read", path.display(), &driver);
        match driver {
            Ok(driver) => Ok(USER_SPACE_DRIVERS.iter().any(|name| driver.ends_with(name))),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(why) => Err(Error::io(format_args!("read {}", path.display()), why)),
        }
    }
}

/// A device, as the configuration names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// By the name of its link.
    Name(String),
    /// By its link-layer address.
    Mac(Mac),
    /// By its directory under `/sys/devices`.
    KernelPath(PathBuf),
    /// By its PCI address.
    Pci(Pci),
    /// By its name on the auxiliary bus: a subfunction, `mlx5_core.sf.4`.
    Auxiliary(String),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "device {name:?}"),
            Self::Mac(mac) => write!(f, "a device with address {mac}"),
            Self::KernelPath(path) => write!(f, "a device at {}", path.display()),
            Self::Pci(pci) => write!(f, "a link of PCI device {}", pci.0),
            Self::Auxiliary(name) => write!(f, "a link of auxiliary device {name}"),
        }
    }
}

impl Device {
    /// The device whose directory `node` names.
    ///
    /// # Errors
    /// It is no absolute path below `/sys/devices`, or leads up.
    pub fn kernel_path(node: &Node<'_>) -> Result<Self, Error> {
        let path = Path::new(node.text()?);
        let is_plain =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if path.starts_with(DEVICES)
            && path != Path::new(DEVICES)
            && path.components().all(is_plain)
        {
            return Ok(Self::KernelPath(path.to_owned()));
        }
        Err(node.invalid("an absolute path below /sys/devices, without \"..\""))
    }

    /// The auxiliary device that `text` names; `None` if it can be no such name.
    #[must_use]
    pub fn auxiliary(text: &str) -> Option<Self> {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let is_name = text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.len() <= 255
            && text.bytes().all(is_part);
        is_name.then(|| Self::Auxiliary(text.to_owned()))
    }

    /// Finds its link on the host.
    ///
    /// # Errors
    /// It is not there; or several are meant; or the kernel refuses to tell.
    pub fn find(&self, host: &mut Socket) -> Result<Link, Error> {
        let found = match self {
            Self::Name(name) => by_name(host, name)?,
            Self::Mac(mac) => by_mac(host, *mac)?,
            Self::KernelPath(path) => self.below(host, &resolve(path)?)?,
            Self::Pci(pci) => self.below(host, &pci.directory())?,
            Self::Auxiliary(name) => self.below(host, &Path::new(AUXILIARY).join(name))?,
        };
        let Some(link) = found else {
            let msg = format!("cannot find {self} on the host; it may be in a container");
            return Err(Error::new(Code::Internal, msg).with_details("ENODEV"));
        };
        if link.index == LOOPBACK_INDEX {
            let expected =
                "another device than the loopback interface, which each namespace has its own of";
            return Err(Error::invalid("device", format_args!("{:?}", link.name), expected));
        }
        if let Some(fault) = interface_name_fault(&link.name) {
            let msg = format!("{self} has name {:?}, which {fault}", link.name);
            return Err(Error::new(Code::Internal, msg));
        }
        Ok(link)
    }

    /// The first link, by name, of the device with this directory, or of the virtio device in it.
    fn below(&self, host: &mut Socket, directory: &Path) -> Result<Option<Link>, Error> {
        let mut at = directory.to_owned();
        let mut names = names(&at.join("net"))?;
        if names.is_empty()
            && let Some(virtio) =
                self::names(directory)?.into_iter().find(|name| name.starts_with("virtio"))
        {
            at.push(virtio);
            names = self::names(&at.join("net"))?;
        }
        let Some(name) = names.first() else { return Ok(None) };
        let Some(link) = link::get(host, Target::Name(name))? else { return Ok(None) };
        // Sysfs shows the links of the namespace that it was mounted in.
        let owner = at.file_name().map(|name| name.to_string_lossy().into_owned());
        if link.parent.is_some() && link.parent != owner {
            let (parent, at) = (link.parent.unwrap_or_default(), at.display());
            let msg = format!(
                "{self}: {at} has a link {name:?}, which on the host is that of {parent}; /sys is another network \
                 namespace's"
            );
            return Err(Error::new(Code::Internal, msg));
        }
        Ok(Some(link))
    }
}

/// The link of this name; or the one that had it when it was given to a container, and that the kernel has
/// returned under another.
fn by_name(host: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    let found = link::get(host, Target::Name(name))?;
    let is_itself = |link: &Link| {
        let origin = link.alias.as_deref().and_then(Origin::read);
        origin.is_none_or(|origin| origin.name == name) || origin::had_name(link, name)
    };
    match found.filter(is_itself) {
        None => Ok(origin::returned(host, name)?),
        found => Ok(found),
    }
}

/// The link with this address. Links on top of a device have it, too, so a physical one comes first.
fn by_mac(host: &mut Socket, mac: Mac) -> Result<Option<Link>, Error> {
    let mut found = link::list(host)?;
    found.retain(|link| link.mac == Some(mac));
    if found.len() > 1 && found.iter().any(|link| link.kind.is_none()) {
        found.retain(|link| link.kind.is_none());
    }
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|link| link.name.as_str()).collect();
        let expected = format!("the address of one link; {} have it", names.join(", "));
        return Err(Error::invalid("hwaddr", mac, &expected));
    }
    Ok(found.pop())
}

/// Where a path below `/sys/devices` leads.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let resolved = fs::canonicalize(path);
    trace::file("resolve", path.display(), &resolved);
    match resolved {
        Ok(resolved) if resolved.starts_with(DEVICES) => Ok(resolved),
        Ok(resolved) => {
            let got = format!("{}, which leads to {}", path.display(), resolved.display());
            Err(Error::invalid("kernelpath", got, "a directory below /sys/devices"))
        }
        // There is nothing in it either.
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(why) => Err(Error::io(format_args!("resolve {}", path.display()), why)),
    }
}

/// What is in a directory, in order; nothing if there is none.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(directory);
    trace::file("list", directory.display(), &entries);
    let error = |why| Error::io(format_args!("list {}", directory.display()), why);
    let entries = match entries {
        Ok(entries) => entries,
        Err(why)
            if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(why) => return Err(error(why)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(error)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pci_addresses_are_told_from_paths() {
        for (text, address) in [
            ("0000:00:1f.6", "0000:00:1f.6"),
            ("10000:E1:00.0", "10000:e1:00.0"),
            ("0000:AF:0b.7", "0000:af:0b.7"),
        ] {
            assert_eq!(Pci::parse(text).unwrap().address(), address);
        }
        for text in [
            "",
            "00:1f.6",
            "0000:00:1f",
            "0000:00:1f.8",
            "0000:00:1f.66",
            "0000:00:../.6",
            "0000:0g:1f.6",
            "000000000:00:1f.6",
            "0000:00:1f.6/..",
            "../../../etc",
        ] {
            assert_eq!(Pci::parse(text), None, "{text}");
        }
    }

    #[test]
    fn auxiliary_names_are_told_from_paths() {
        for text in ["mlx5_core.sf.4", "ice.eth-1.0", "a"] {
            assert!(Device::auxiliary(text).is_some(), "{text}");
        }
        for text in ["", ".", "..", "a/b", "/a", "a b", "-a", "a\n", "\u{e4}"] {
            assert!(Device::auxiliary(text).is_none(), "{text:?}");
        }
        assert!(Device::auxiliary(&"a".repeat(256)).is_none());
    }

    #[test]
    fn kernel_paths_stay_below_the_devices() {
        let read = |path: &str| {
            let value = json!({ "kernelpath": path });
            let root = Node::root("", &value);
            Device::kernel_path(&root.get("kernelpath").unwrap().unwrap())
        };
        let path = "/sys/devices/pci0000:00/0000:00:1f.6";
        assert_eq!(read(path).unwrap(), Device::KernelPath(path.into()));
        assert_eq!(read("/sys/devices//x/").unwrap(), Device::KernelPath("/sys/devices/x".into()));
        for path in [
            "",
            "/",
            "/sys/devices",
            "/sys/devices/",
            "/sys/devicesx/y",
            "/sys/devices/../class/net",
            "sys/devices/x",
            "/sys/devices/x/../../..",
        ] {
            let error = read(path).unwrap_err();
            assert!(error.msg.starts_with("kernelpath: expected an absolute path"), "{error}");
        }
    }
}
