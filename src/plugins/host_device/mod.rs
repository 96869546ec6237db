//! host-device: gives a container a device of the host's, and takes it back.
//!
//! ADD, in the order in which things happen: the device is found; addresses are leased; what it was is written
//! on it, and it is moved into the container and renamed, in one step of the kernel's, so that nobody sees it
//! there by another name; it is brought up with addresses and routes; and the neighbours' silence is waited
//! for.
//!
//! DEL takes it back under its old name and in its old state, from the container, or from where the kernel has
//! returned it to if the namespace has gone; [`origin`] has the way. Addresses and routes that it had on the
//! host go with the move, and a bridge or bond that it was a port of loses it.
//!
//! A PCI device that is bound to a driver for programs in user space (DPDK) has no link. Then only addresses
//! are leased, and the result names the device.

mod device;

use std::time::{Duration, Instant};

use super::container::{Container, Ipv6};
use super::undo::Undo;
use super::{attach, conf, detach, origin, veth};
use crate::cni::result::{CniResult, Dns, Interface};
use crate::cni::{Attachment, Error, Plugin, Request};
use crate::ipam::{self, Ipam};
use crate::nl::link::{Change, Link};
use crate::nl::monitor::{Changes, Monitor};
use crate::nl::{Family, Socket};

pub use device::{Device, Pci};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "host-device",
    about: "Gives a container a device of the host's.",
    add,
    del,
    check,
    gc: detach::collect_garbage,
    status,
};

/// How long DEL waits for a device whose namespace has gone: the kernel takes some 10 ms to end it.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);

/// What it is configured with, beside address management.
#[derive(Debug)]
pub struct Conf {
    /// The device. Only ADD can't do without.
    pub device: Option<Device>,
    /// `runtimeConfig.deviceID` or `pciBusID`
    pub pci: Option<Pci>,
    /// `DPDKMode`: the device, if it is none that the PCI address tells more of, is for a program in user
    /// space.
    pub dpdk_mode: bool,
    /// `dns`
    pub dns: Dns,
}

impl Conf {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A key has the wrong type or value.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let root = request.conf.root();
        let given = |key| Ok::<_, Error>(root.string(key)?.filter(|text| !text.is_empty()));
        let name = conf::link_name(&root, "device")?.map(Device::Name);
        let mac = match (given("hwaddr")?, root.get("hwaddr")?) {
            (Some(_), Some(node)) => Some(Device::Mac(node.mac()?)),
            _ => None,
        };
        let path = match (given("kernelpath")?, root.get("kernelpath")?) {
            (Some(_), Some(node)) => Some(Device::kernel_path(&node)?),
            _ => None,
        };
        let (pci, auxiliary) = match (device_id(request)?, given("pciBusID")?) {
            (Some(Device::Pci(pci)), _) => (Some(pci), None),
            (Some(other), _) => (None, Some(other)),
            (None, Some(text)) => {
                let expected = "a PCI address, such as \"0000:00:1f.6\"";
                let invalid = || Error::invalid("pciBusID", format_args!("{text:?}"), expected);
                (Some(Pci::parse(&text).ok_or_else(invalid)?), None)
            }
            (None, None) => (None, None),
        };
        let by_pci = pci.clone().map(Device::Pci);
        Ok(Self {
            device: name.or(mac).or(path).or(by_pci).or(auxiliary),
            pci,
            dpdk_mode: root.flag("DPDKMode")?,
            dns: request.conf.dns()?,
        })
    }

    /// Whether the device has no link, being left to a program in user space.
    fn has_no_link(&self) -> Result<bool, Error> {
        self.pci.as_ref().map_or(Ok(self.dpdk_mode), Pci::is_left_to_user_space)
    }

    fn device(&self) -> Result<&Device, Error> {
        let expected =
            "a device, by device, hwaddr, kernelpath, pciBusID or runtimeConfig.deviceID";
        self.device.as_ref().ok_or_else(|| Error::invalid("configuration", "none", expected))
    }
}

/// `runtimeConfig.deviceID`: what a device plugin has allotted.
fn device_id(request: &Request) -> Result<Option<Device>, Error> {
    let root = request.conf.root();
    let Some(runtime) = root.get("runtimeConfig")? else { return Ok(None) };
    let Some(id) = runtime.get("deviceID")? else { return Ok(None) };
    let text = id.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let device = Pci::parse(text).map(Device::Pci).or_else(|| Device::auxiliary(text));
    let expected = "a PCI address, such as \"0000:00:1f.6\", or an auxiliary device, such as \"mlx5_core.sf.4\"";
    device.ok_or_else(|| id.invalid(expected)).map(Some)
}

fn add(request: &Request) -> Result<CniResult, Error> {
    let conf = Conf::read(request)?;
    conf.device()?;
    request.attachment().check_length_within(origin::LABEL_MAX)?;
    let (attachment, ipam) = attach::begin(request)?;
    attach::carry_out(request, |undo| attach(request, &conf, &attachment, ipam.as_ref(), undo))
}

fn attach<'a>(
    request: &'a Request,
    conf: &Conf,
    attachment: &'a Attachment,
    ipam: Option<&'a Ipam<'a>>,
    undo: &mut Undo<'a>,
) -> Result<CniResult, Error> {
    let (mut result, interface) = if conf.has_no_link()? {
        let interface = Interface {
            name: attachment.ifname.clone(),
            sandbox: request.env.netns.clone(),
            pci_id: conf.pci.as_ref().map(|pci| pci.address().to_owned()).unwrap_or_default(),
            ..Interface::default()
        };
        (attach::lease(request, ipam, undo)?, interface)
    } else {
        let mut host = Socket::open(Family::Route)?;
        origin::restore_on_host(&mut host, attachment)?;
        let device = conf.device()?.find(&mut host)?;
        // What is moved loses its addresses, so nothing is tried that is known to fail.
        veth::refuse_if_interface_exists(request.netns()?, &attachment.ifname)?;
        let mut result = attach::lease_unless_over_link(request, ipam, undo)?;

        undo.push(move || origin::take_back(request).map(drop));
        let record = origin::give(&mut host, &device, request.netns()?, attachment)?;
        let mut link = configure(request, attachment, &result, &record)?;
        if let Some(leased) = attach::lease_over_link(ipam, undo)? {
            result = leased;
            link = configure(request, attachment, &result, &record)?;
            let (netns, ifname) = (request.netns()?, &attachment.ifname);
            Container::require(netns, ifname, Ipv6::DEFAULT)?.announce()?;
        }
        let pci_id = pci_id(conf, &link);
        (result, Interface { pci_id, ..attach::own_interface(request, &link) })
    };
    attach::complete(&mut result, vec![interface], &conf.dns);
    Ok(result)
}

/// Brings the device up in the container, with addresses and routes.
fn configure(
    request: &Request,
    attachment: &Attachment,
    result: &CniResult,
    record: &str,
) -> Result<Link, Error> {
    let ipv6 = Ipv6::on_segment(result);
    let mut container = Container::require(request.netns()?, &attachment.ifname, ipv6)?;
    // Another call that was about to give the same device may have written on it a moment ago.
    let change = Change { alias: Some(record), ..Change::default() };
    let link = container.bring_up(result, ipv6.dad, change)?;
    origin::claim(&mut container, &link, attachment)?;
    Ok(link)
}

/// The device's PCI address, as it was configured or as the kernel tells.
fn pci_id(conf: &Conf, link: &Link) -> String {
    match (&conf.device, &link.parent) {
        (Some(Device::Pci(pci)), _) => pci.address().to_owned(),
        (_, Some(parent)) if link.bus.as_deref() == Some("pci") => parent.clone(),
        _ => String::new(),
    }
}

fn del(request: &Request) -> Result<(), Error> {
    detach::detach(request, || {
        if !may_be_returning(request) {
            return origin::take_back(request);
        }
        // In this order: what arrives in between is told.
        let arrivals = Monitor::open(Changes::Links)?;
        let deadline = Instant::now() + RETURN_PATIENCE;
        loop {
            if origin::take_back(request)? {
                return Ok(true);
            }
            if !arrivals.wait_for_any(deadline)? {
                return Ok(false);
            }
        }
    })
}

/// Whether the device may be on its way to the host, which the kernel sends it on some time after its namespace
/// has gone: this is the first DEL, for which the runtime knows what ADD returned, and the host lacks it.
fn may_be_returning(request: &Request) -> bool {
    let is_gone = || matches!(request.netns_if_any(), Ok(None));
    let returned = || request.conf.prev_result().ok().flatten();
    let ifname = &request.env.ifname;
    let had_link = || {
        let prev = returned().unwrap_or_default();
        let is_link = |interface: &Interface| !interface.mac.is_empty() || interface.mtu != 0;
        attach::of_container(&prev, ifname).is_ok_and(|(interface, _)| is_link(interface))
    };
    let lacks = |device: Device| {
        Socket::open(Family::Route).is_ok_and(|mut host| device.find(&mut host).is_err())
    };
    is_gone() && had_link() && Conf::read(request).is_ok_and(|conf| conf.device.is_some_and(lacks))
}

fn check(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    request.netns()?;
    let prev = request.conf.required_prev_result()?;
    let ipam = Ipam::of(request)?;
    let (returned, _) = attach::of_container(&prev, &request.env.ifname)?;
    // A link may have no Ethernet address.
    if returned.mac.is_empty() && conf.has_no_link()? {
        return ipam.map_or(Ok(()), |ipam| ipam.check(&prev));
    }
    let attachment = request.attachment();
    let is_the_one = |link: &Link| match origin::of_container(link, &attachment) {
        Some(_) => Ok(()),
        None => {
            let alias = link.alias.as_deref().unwrap_or_default();
            let what = format_args!("is not the device that ADD gave; its alias is {alias:?}");
            Err(attach::fault(link, what))
        }
    };
    let (_, link) = attach::check_inside(request, ipam.as_ref(), &prev, is_the_one)?;
    if returned.mtu != 0 && returned.mtu != link.mtu {
        let what = format_args!("has an MTU of {}, not {}", link.mtu, returned.mtu);
        return Err(attach::fault(&link, what));
    }
    Ok(())
}

/// Sees whether an ADD would find what it needs. A device that a container has is not there for another.
fn status(request: &Request) -> Result<(), Error> {
    let conf = Conf::read(request)?;
    let mut host = Socket::open(Family::Route).map_err(|error| Error::from(error).unavailable())?;
    // Which device a runtime allots it says with ADD.
    if let Some(device) = &conf.device
        && !conf.has_no_link().map_err(Error::unavailable)?
    {
        device.find(&mut host).map_err(Error::unavailable)?;
    }
    ipam::status(request)
}
