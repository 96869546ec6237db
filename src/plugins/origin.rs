//! A device of the host's that a container is given: what it was before, and its way back.
//!
//! What it was is written on the device itself, in its alias behind the attachment's label, before it is
//! moved: name, up or down, MTU, link-layer address, former alias. So it is known whatever becomes of this
//! process, of the container, of the namespace.
//!
//! ```text
//! plumb:mynet/3f9c/eth0 was ens3 up 1500 52:54:00:12:34:56 uplink to rack 7
//! ```
//!
//! The device also has another name for the time ([`Attachment::given_link`]), by which the kernel finds it
//! without a walk over all links: in the container, whatever it is called there, and on the host, to where
//! the kernel returns a physical device when its namespace ends, down, under the container's name or `dev…`.
//!
//! A container that may configure its links (CAP_NET_ADMIN) may also change what is written there. It can have
//! its device, or another link of its own, come back under another free name and address, as it can with the
//! reference's plugin; not take away what another link of the host's has.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::container::{Container, Ipv6};
use super::setting_error;
use crate::cni::conf::interface_name_fault;
use crate::cni::error::Errors;
use crate::cni::{Attachment, Code, Error, Request};
use crate::net::Mac;
use crate::nl::link::{
    self, ALIAS_MAX, AddAltName, Change, DeleteAltName, Link, Move, Rename, RenameIfFree, Set,
    SetDown, Target,
};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Family, Socket};
use crate::sys::netns::Netns;

/// The longest label that leaves room for what the device was, its former alias aside:
/// ` was `, a name, ` down`, a number of 32 bits, an address.
pub const LABEL_MAX: usize = ALIAS_MAX - 5 - 15 - 5 - 11 - 18;
/// Its name on the host if it can't have its own, as the kernel calls what it returns.
const STRANDED: &str = "dev%d";

/// What a device was before it was given to a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// It was up.
    pub up: bool,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its link-layer address, if it was an Ethernet address.
    pub mac: Option<Mac>,
    /// Its alias; empty if it had none.
    pub alias: String,
}

impl Origin {
    /// What a link is, or if it was given to a container and never taken back, what it was before.
    #[must_use]
    pub fn of(link: &Link) -> Self {
        link.alias.as_deref().and_then(Self::read).unwrap_or_else(|| Self {
            name: link.name.clone(),
            up: link.up,
            mtu: link.mtu,
            mac: link.mac,
            alias: link.alias.clone().unwrap_or_default(),
        })
    }

    /// What an alias of ours tells.
    #[must_use]
    pub fn read(alias: &str) -> Option<Self> {
        Attachment::from_label(alias)?;
        let mut words = alias.split_once(' ')?.1.strip_prefix("was ")?.splitn(5, ' ');
        let name = words.next().filter(|name| interface_name_fault(name).is_none())?.to_owned();
        let up = match words.next()? {
            "up" => true,
            "down" => false,
            _ => return None,
        };
        let mtu = words.next()?.parse().ok()?;
        let mac = match words.next()? {
            "-" => None,
            text => Some(text.parse().ok()?),
        };
        Some(Self { name, up, mtu, mac, alias: words.next().unwrap_or_default().to_owned() })
    }

    /// What is written on a device that `attachment` is given.
    ///
    /// # Errors
    /// Its former alias is too long to go with it.
    pub fn record(&self, attachment: &Attachment) -> Result<String, Error> {
        let state = if self.up { "up" } else { "down" };
        let mac = self.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
        let Self { name, mtu, .. } = self;
        let mut record = format!("{} was {name} {state} {mtu} {mac}", attachment.label());
        if !self.alias.is_empty() {
            let room = ALIAS_MAX.saturating_sub(record.len() + 1);
            if self.alias.len() > room {
                let (length, alias) = (self.alias.len(), &self.alias);
                let msg = format!(
                    "device {name:?} has an alias of {length} bytes, {alias:?}; expected at most {room}, to be \
                     kept beside its name while the container has it"
                );
                return Err(Error::new(Code::Internal, msg));
            }
            record = format!("{record} {}", self.alias);
        }
        Ok(record)
    }

    /// What a link is recorded to have been before this attachment was given it.
    #[must_use]
    pub fn for_attachment(link: &Link, attachment: &Attachment) -> Option<Self> {
        let alias = link.alias.as_deref()?;
        let is_its = Attachment::from_label(alias).is_some_and(|other| other == *attachment);
        if is_its { Self::read(alias) } else { None }
    }

    /// What the reference's plugin has left of a link's past: its name is the alias.
    fn of_reference(link: &Link) -> Option<Self> {
        let name = link.alias.clone()?;
        let is_name = interface_name_fault(&name).is_none();
        is_name.then(|| Self {
            name,
            up: false,
            mtu: link.mtu,
            mac: link.mac,
            alias: String::new(),
        })
    }

    /// Makes a link of the host what it was, as far as it is not, and takes off what was written on it. If
    /// it can't have its name it keeps the rest, by which the next try finds it.
    ///
    /// # Errors
    /// The kernel's refusals.
    pub fn restore(
        &self,
        host: &mut Socket,
        link: &Link,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        let object = format_args!("host device {:?}, which was {:?}", link.name, self.name);
        let mut errors = Errors::default();
        let (mut name, mut up) = (&self.name, link.up);
        if link.name != self.name {
            let down = SetDown(Target::Index(link.index));
            let rename = Rename { link: link.index, name: &self.name };
            let renamed = host.execute(&[&down, &rename]);
            up = false;
            if renamed.is_err() {
                name = &link.name;
                errors.note(renamed.map_err(|refusal| Error::from(refusal).of(object)));
            }
        }

        let target = Target::Name(name);
        let set = |change| Set { target, change };
        let mtu = set(Change { mtu: Some(self.mtu), ..Change::default() });
        let mac = set(Change { mac: self.mac, ..Change::default() });
        let alias = set(Change { alias: Some(&self.alias), ..Change::default() });
        let other_name = attachment.given_link();
        let other_name = DeleteAltName { target, name: &other_name };
        let bring_up = set(Change { up: true, ..Change::default() });
        let take_down = SetDown(target);

        let mut requests: Vec<&dyn NlRequest> = Vec::new();
        if self.mtu != link.mtu {
            requests.push(&mtu);
        }
        if self.mac.is_some() && self.mac != link.mac {
            requests.push(&mac);
        }
        if errors.is_empty() {
            requests.extend([&alias as &dyn NlRequest, &other_name]);
        }
        match (self.up, up) {
            (true, false) => requests.push(&bring_up),
            (false, true) => requests.push(&take_down),
            _ => {}
        }
        errors.note(host.execute(&requests).map_err(|refusal| Error::from(refusal).of(object)));
        errors.into_result()
    }
}

/// Gives a device of the host's to a container, down, under the interface's name. Returns what is written on
/// it.
///
/// # Errors
/// The kernel's refusal; the device's alias is too long.
pub fn give(
    host: &mut Socket,
    device: &Link,
    netns: &Netns,
    attachment: &Attachment,
) -> Result<String, Error> {
    let record = Origin::of(device).record(attachment)?;
    let target = Target::Index(device.index);
    let alias = Set { target, change: Change { alias: Some(&record), ..Change::default() } };
    let name = attachment.given_link();
    let other_name = AddAltName { target, name: &name };
    // Of an attachment that it was never taken back from.
    let former = device.alias.as_deref().and_then(Attachment::from_label);
    let former = former.filter(|former| former != attachment).map(|former| former.given_link());
    let former_name = former.as_deref().map(|name| DeleteAltName { target, name });
    let mut requests: Vec<&dyn NlRequest> = vec![&alias, &other_name];
    requests.extend(former_name.iter().map(|request| request as &dyn NlRequest));
    // What is not written down does not go: a refusal would not keep the kernel from what is behind it.
    host.execute(&requests).map_err(|refusal| cannot_give(refusal, device))?;

    let to_container = Move { link: device.index, netns: netns.as_fd(), name: &attachment.ifname };
    host.execute(&[&to_container]).map_err(|refusal| cannot_give(refusal, device))?;
    Ok(record)
}

fn cannot_give(refusal: nl::Error, device: &Link) -> Error {
    let why = match refusal.errno {
        Errno::EINVAL => {
            let kind = device.kind.as_deref().unwrap_or("this kind");
            format!("; links of kind {kind} may be bound to their namespace (netns-immutable)")
        }
        Errno::ENODEV => "; it has gone, perhaps to another container".to_owned(),
        _ => String::new(),
    };
    let error = Error::from(refusal).of(format_args!("device {:?}", device.name));
    Error { msg: error.msg + &why, ..error }
}

/// Takes the attachment's device back, from the container or from where the kernel has returned it to on the
/// host, and says whether there was one.
///
/// # Errors
/// The kernel's refusals.
pub fn take_back(request: &Request) -> Result<bool, Error> {
    let attachment = request.attachment();
    let mut host = Socket::open(Family::Route)?;
    let Some(netns) = request.netns_if_any()? else {
        return restore_on_host(&mut host, &attachment);
    };
    let other_name = attachment.given_link();
    let found = find_in_container(netns, &attachment, &other_name)?;
    let Some((mut container, device, origin)) = found else {
        return restore_on_host(&mut host, &attachment);
    };
    if Origin::for_attachment(&device, &attachment).is_none() {
        // The reference's plugin has not written as much on it.
        let (alias, name) = (origin.record(&attachment)?, &other_name);
        let target = Target::Index(device.index);
        let alias = Set { target, change: Change { alias: Some(&alias), ..Change::default() } };
        let marked = container.execute(&[&alias, &AddAltName { target, name }]);
        marked.map_err(|refusal| container.refused(refusal))?;
    }
    let host_netns = netns.host();
    let host_netns =
        host_netns.map_err(|why| setting_error("open the host's network namespace", &why))?;
    let moved = move_to_host(&mut container, &device, host_netns, &origin.name);
    if let Err(refusal) = moved {
        if refusal.errno != Errno::EEXIST {
            return Err(container.refused(refusal));
        }
        // Another has its name. Unless it has gone under the container's, it goes under one of the kernel's.
        match move_to_host(&mut container, &device, host_netns, STRANDED) {
            Err(refusal) if refusal.errno != Errno::ENODEV => {
                return Err(container.refused(refusal));
            }
            _ => return restore_on_host(&mut host, &attachment),
        }
    }
    let arrived = Link { name: origin.name.clone(), up: false, ..device };
    origin.restore(&mut host, &arrived, &attachment).map(|()| true)
}

/// Finds the attachment's device in the container: by the interface's name, or if it was renamed there, by
/// its other one.
fn find_in_container<'a>(
    netns: &'a Netns,
    attachment: &'a Attachment,
    other_name: &'a str,
) -> Result<Option<(Container<'a>, Link, Origin)>, Error> {
    let find = |name, recorded: &dyn Fn(&Link) -> Option<Origin>| {
        let container = Container::enter(netns, name, Ipv6::DEFAULT)?;
        let Some(mut container) = container else { return Ok::<_, Error>(None) };
        let Some(device) = container.find()? else { return Ok(None) };
        Ok(recorded(&device).map(|origin| (container, device, origin)))
    };
    match find(&attachment.ifname, &|link| of_container(link, attachment))? {
        None => find(other_name, &|link| Origin::for_attachment(link, attachment)),
        found => Ok(found),
    }
}

/// What a link that has the interface's name in the container was before; `None` if it is not the attachment's
/// device.
#[must_use]
pub fn of_container(link: &Link, attachment: &Attachment) -> Option<Origin> {
    Origin::for_attachment(link, attachment).or_else(|| Origin::of_reference(link))
}

/// Moves a device to the host, down. It is renamed before, if it can be, so that nobody on the host sees it
/// by another name and takes that for a reason to rename it.
fn move_to_host(
    container: &mut Container<'_>,
    device: &Link,
    host: BorrowedFd<'_>,
    name: &str,
) -> Result<(), nl::Error> {
    let down = SetDown(Target::Index(device.index));
    let rename = RenameIfFree(Rename { link: device.index, name });
    let to_host = Move { link: device.index, netns: host, name };
    container.execute(&[&down, &rename, &to_host])
}

/// Makes the attachment's device what it was, if it is on the host: the kernel has returned it, or an ADD
/// ended before it was moved, or a DEL after.
///
/// # Errors
/// The kernel's refusals.
pub fn restore_on_host(host: &mut Socket, attachment: &Attachment) -> Result<bool, Error> {
    let name = attachment.given_link();
    let Some(found) = link::get(host, Target::Name(&name))? else { return Ok(false) };
    let target = Target::Index(found.index);
    // Before 6.6 the kernel finds a device by its other name where that was given to it, wherever it is now:
    // whether it is here shows in the link of that index.
    let Some(device) = link::get(host, target)? else { return Ok(false) };
    let Some(origin) = Origin::for_attachment(&device, attachment) else {
        // Another attachment was given it at the same moment.
        host.execute(&[&DeleteAltName { target, name: &name }])?;
        return Ok(false);
    };
    origin.restore(host, &device, attachment).map(|()| true)
}

/// Finds the device of this name that the kernel has returned under another.
///
/// # Errors
/// The kernel's refusal.
pub fn returned(host: &mut Socket, name: &str) -> Result<Option<Link>, nl::Error> {
    let was = |link: &Link| {
        let origin = link.alias.as_deref().and_then(Origin::read);
        origin.is_some_and(|origin| origin.name == name)
    };
    Ok(link::list(host)?.into_iter().find(was))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment { network: "net".into(), container: "c1".into(), ifname: "eth0".into() }
    }

    fn origin() -> Origin {
        Origin {
            name: "ens3".into(),
            up: true,
            mtu: 9000,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            alias: "uplink was here  ".into(),
        }
    }

    #[test]
    fn what_a_device_was_is_read_back() {
        let bare = Origin { up: false, mac: None, alias: String::new(), ..origin() };
        for (origin, expected) in [
            (origin(), "plumb:net/c1/eth0 was ens3 up 9000 02:00:00:00:00:01 uplink was here  "),
            (bare, "plumb:net/c1/eth0 was ens3 down 9000 -"),
        ] {
            let record = origin.record(&attachment()).unwrap();
            assert_eq!(record, expected);
            assert_eq!(Origin::read(&record), Some(origin.clone()));
            let link = Link { alias: Some(record), name: "dev7".into(), ..Link::default() };
            assert_eq!(Origin::of(&link), origin);
            assert_eq!(Origin::for_attachment(&link, &attachment()), Some(origin));
            let other = Attachment { container: "c2".into(), ..attachment() };
            assert_eq!(Origin::for_attachment(&link, &other), None);
        }
    }

    #[test]
    fn other_aliases_tell_nothing() {
        for alias in [
            "",
            "ens3",
            "plumb:net/c1/eth0",
            "plumb:net/c1/eth0 was ens3",
            "plumb:net/c1/eth0 was ens3 sideways 1500 -",
            "plumb:net/c1/eth0 was ens3 up many -",
            "plumb:net/c1/eth0 was ens3 up 1500 x",
            "plumb:net/c1/eth0 was en/3 up 1500 -",
            "net/c1/eth0 was ens3 up 1500 -",
        ] {
            assert_eq!(Origin::read(alias), None, "{alias:?}");
        }
    }

    #[test]
    fn the_longest_names_leave_room_for_all_but_an_alias() {
        let longest = Origin {
            name: "x".repeat(15),
            up: false,
            mtu: u32::MAX,
            alias: String::new(),
            ..origin()
        };
        let container = "c".repeat(LABEL_MAX - "plumb:net//eth0".len());
        let attachment = Attachment { container, ..attachment() };
        attachment.check_length_within(LABEL_MAX).unwrap();
        assert_eq!(longest.record(&attachment).unwrap().len(), ALIAS_MAX);
        let with_alias = Origin { alias: "x".into(), ..longest };
        let error = with_alias.record(&attachment).unwrap_err();
        assert!(error.msg.contains("at most 0"), "{error}");
    }
}
