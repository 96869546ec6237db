//! A device of the host's that a container is given: what it was before, and its way back.
//!
//! What it was is written on the device itself, in its alias behind the attachment's label, before it is
//! moved: name, up or down, MTU, link-layer address, former alias. Behind up or down and a `+` stand the modes
//! that it was in, if any: `p` promiscuous, `m` all multicast, `n` no ARP. So it is known whatever becomes of
//! this process, of the container, of the namespace.
//!
//! ```text
//! plumb:mynet/3f9c/eth0 was ens3 up 1500 52:54:00:12:34:56 uplink to rack 7
//! ```
//!
//! The device also has another name for the time ([`Attachment::given_link`]), by which the kernel finds it
//! without a walk over all links: in the container, whatever it is called there, and on the host, to where
//! the kernel returns a physical device when its namespace ends, down, under the container's name or `dev…`.
//!
//! A container that may configure its links (CAP_NET_ADMIN) may also change what is written there. The worst
//! of that: its device, or another link of its own, comes back under another free name, with another address,
//! MTU, alias or state, as it can with the reference's plugin; or it is not known for the attachment's, and
//! stays until the namespace ends. What another link of the host's has can't be taken away: a name that is in
//! use is refused, and other names that came in the container stay behind.
//!
//! What a container can do to its device beside that is undone as far as it is told above. Links on top of it
//! (macvlan, vlan, …) are deleted in the namespace that it is taken from. Not covered are those that were moved
//! on into another namespace, which stay on top of the device on the host; nor its queues, offloads and XDP
//! programs.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::container::{Container, Ipv6};
use super::setting_error;
use crate::cni::conf::interface_name_fault;
use crate::cni::error::Errors;
use crate::cni::{Attachment, Code, Error, Request};
use crate::net::Mac;
use crate::nl::link::{
    self, ALIAS_MAX, AddAltName, Change, Delete, DeleteAltName, Link, Modes, Move, Rename,
    RenameIfFree, Set, SetDown, SetModes, Target,
};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Family, Socket};
use crate::sys::netns::Netns;

/// The longest label that leaves room for what the device was, its former alias aside:
/// ` was `, a name, ` down` and modes, a number of 32 bits, an address.
pub const LABEL_MAX: usize = ALIAS_MAX - 5 - 15 - 9 - 11 - 18;
/// Its name on the host if it can't have its own, as the kernel calls what it returns.
const STRANDED: &str = "dev%d";
/// Kinds of links that sit on top of another, and stay there when that one is moved.
const UPPER_KINDS: [&str; 6] = ["macvlan", "macvtap", "ipvlan", "ipvtap", "vlan", "macsec"];

/// What a device was before it was given to a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// It was up.
    pub up: bool,
    /// What it took and answered.
    pub modes: Modes,
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
            modes: link.modes(),
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
        let (state, modes) = read_state(words.next()?)?;
        let up = match state {
            "up" => true,
            "down" => false,
            _ => return None,
        };
        let mtu = words.next()?.parse().ok()?;
        let mac = match words.next()? {
            "-" => None,
            text => Some(text.parse().ok()?),
        };
        Some(Self { name, up, modes, mtu, mac, alias: words.next().unwrap_or_default().to_owned() })
    }

    /// What is written on a device that `attachment` is given.
    ///
    /// # Errors
    /// Its former alias is too long to go with it.
    pub fn record(&self, attachment: &Attachment) -> Result<String, Error> {
        let state = write_state(if self.up { "up" } else { "down" }, self.modes);
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
            modes: link.modes(),
            mtu: link.mtu,
            mac: link.mac,
            alias: String::new(),
        })
    }

    /// Makes a link of the host what it was, as far as it is not, and then takes off what was written on it. If
    /// anything is refused that stays, for the next try.
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
        let target = Target::Index(link.index);
        let mut up = link.up;
        if link.name != self.name {
            let down = SetDown(target);
            let rename = Rename { link: link.index, name: &self.name };
            let renamed = host.execute(&[&down, &rename]);
            up = false;
            errors.note(renamed.map_err(|refusal| Error::from(refusal).of(object)));
        }

        let set = |change| Set { target, change };
        let mtu = set(Change { mtu: Some(self.mtu), ..Change::default() });
        let mac = set(Change { mac: self.mac, ..Change::default() });
        let modes = SetModes { target, modes: self.modes };
        let bring_up = set(Change { up: true, ..Change::default() });
        let take_down = SetDown(target);
        let mut requests: Vec<&dyn NlRequest> = Vec::new();
        if self.mtu != link.mtu {
            requests.push(&mtu);
        }
        if self.mac.is_some() && self.mac != link.mac {
            requests.push(&mac);
        }
        if self.modes != link.modes() {
            requests.push(&modes);
        }
        match (self.up, up) {
            (true, false) => requests.push(&bring_up),
            (false, true) => requests.push(&take_down),
            _ => {}
        }
        if !requests.is_empty() {
            let restored = host.execute(&requests);
            errors.note(restored.map_err(|refusal| Error::from(refusal).of(object)));
        }
        if errors.is_empty() {
            // A conversation of its own: a refusal would not keep the kernel from what is behind it.
            let alias = set(Change { alias: Some(&self.alias), ..Change::default() });
            let name = attachment.given_link();
            let own_name = DeleteAltName { target, name: &name };
            let later_names: Vec<_> = later_names(link)
                .filter(|later| *later != name)
                .map(|name| DeleteAltName { target, name })
                .collect();
            let mut requests: Vec<&dyn NlRequest> = vec![&alias, &own_name];
            requests.extend(later_names.iter().map(|request| request as &dyn NlRequest));
            let cleared = host.execute(&requests);
            errors.note(cleared.map_err(|refusal| Error::from(refusal).of(object)));
        }
        errors.into_result()
    }
}

/// One of the modes.
type Mode = fn(&mut Modes) -> &mut bool;
/// The letters of the modes in a record.
const MODES: [(char, Mode); 3] = [
    ('p', |modes| &mut modes.promiscuous),
    ('m', |modes| &mut modes.all_multicast),
    ('n', |modes| &mut modes.no_arp),
];

fn write_state(state: &str, mut modes: Modes) -> String {
    let letters: String =
        MODES.iter().filter(|(_, mode)| *mode(&mut modes)).map(|(letter, _)| letter).collect();
    if letters.is_empty() { state.to_owned() } else { format!("{state}+{letters}") }
}

fn read_state(word: &str) -> Option<(&str, Modes)> {
    let mut modes = Modes::default();
    let (state, letters) = word.split_once('+').unwrap_or((word, ""));
    for letter in letters.chars() {
        let (_, mode) = MODES.iter().find(|(known, _)| *known == letter)?;
        *mode(&mut modes) = true;
    }
    Some((state, modes))
}

/// The other names that a link has had since it was given to a container: those of ours, and since the kernel
/// keeps names in the order in which they came, what is behind the first of those.
fn later_names(link: &Link) -> impl Iterator<Item = &str> {
    let names = link.altnames.iter().map(String::as_str);
    names.skip_while(|name| !Attachment::is_given_link(name))
}

/// Whether a link had this other name before it was given to a container.
#[must_use]
pub fn had_name(link: &Link, name: &str) -> bool {
    link.altnames.iter().any(|other| other == name) && later_names(link).all(|other| other != name)
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
    let origin = Origin::of(device);
    let record = origin.record(attachment)?;
    let target = Target::Index(device.index);
    let alias = Set { target, change: Change { alias: Some(&record), ..Change::default() } };
    let name = attachment.given_link();
    let other_name = AddAltName { target, name: &name };
    // Of attachments that it was never taken back from.
    let later_names: Vec<_> = later_names(device)
        .filter(|later| *later != name)
        .map(|name| DeleteAltName { target, name })
        .collect();
    let mut requests: Vec<&dyn NlRequest> = vec![&alias];
    requests.extend(later_names.iter().map(|request| request as &dyn NlRequest));
    requests.push(&other_name);
    // What is not written down does not go: a refusal would not keep the kernel from what is behind it.
    let marked = link::execute_then_get(host, &requests, target);
    let marked = marked.map_err(|refusal| cannot_give(refusal, device))?;
    if !marked.altnames.contains(&name)
        && let Some(other) = link::get(host, Target::Name(&name))?
    {
        // Where there is none the kernel knows no other names, or another call has taken it away.
        let (device, other) = (&device.name, &other.name);
        let msg =
            format!("cannot give device {device:?} the other name {name:?}: link {other:?} has it");
        let error = Error::new(Code::Internal, msg).with_details("EEXIST");
        // Who takes back what has been done would look for that name.
        return Err(match origin.restore(host, &marked, attachment) {
            Ok(()) => error,
            Err(failure) => error.and(&failure),
        });
    }

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

/// Sees to it that of our names a device in the container has the attachment's, and no other: another call
/// that was about to give the same device may have written on it, and taken that away, a moment before it was
/// moved.
///
/// # Errors
/// The kernel's refusal.
pub fn claim(
    container: &mut Container<'_>,
    device: &Link,
    attachment: &Attachment,
) -> Result<(), Error> {
    let target = Target::Index(device.index);
    let name = attachment.given_link();
    let add = AddAltName { target, name: &name };
    let is_anothers = |other: &&String| Attachment::is_given_link(other) && **other != name;
    let others = device.altnames.iter().filter(is_anothers);
    let others: Vec<_> = others.map(|name| DeleteAltName { target, name }).collect();
    let mut requests: Vec<&dyn NlRequest> =
        others.iter().map(|request| request as &dyn NlRequest).collect();
    if !device.altnames.contains(&name) {
        requests.push(&add);
    }
    if requests.is_empty() {
        return Ok(());
    }
    container.execute(&requests).map_err(|refusal| container.refused(refusal))
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
    delete_uppers(&mut container, &device)?;
    mark(&mut container, &device, &origin, &attachment)?;
    move_back(&mut host, &mut container, &device, netns, &origin.name, &other_name)?;
    // Until now the container could change it, and what is written on it: it is read again.
    if restore_on_host(&mut host, &attachment)? {
        return Ok(true);
    }
    // Before Linux 5.5 it has no other name.
    let arrived = link::get(&mut host, Target::Name(&origin.name))?;
    let recorded =
        arrived.and_then(|link| Some((Origin::for_attachment(&link, &attachment)?, link)));
    let Some((origin, device)) = recorded else {
        let (name, was) = (&device.name, &origin.name);
        let msg = format!(
            "container interface {name:?}, which was {was:?}, is on the host, but there it does not say what it was"
        );
        return Err(Error::new(Code::Internal, msg));
    };
    origin.restore(&mut host, &device, &attachment).map(|()| true)
}

/// Deletes what was put on top of the device in the container's namespace, and would stay there.
fn delete_uppers(container: &mut Container<'_>, device: &Link) -> Result<(), Error> {
    let is_upper = |link: &Link| {
        link.peer == Some(device.index)
            && link.peer_netns.is_none()
            && link.kind.as_deref().is_some_and(|kind| UPPER_KINDS.contains(&kind))
    };
    for upper in container.links()?.into_iter().filter(is_upper) {
        match container.execute(&[&Delete(Target::Index(upper.index))]) {
            // With another one.
            Err(refusal) if refusal.errno == Errno::ENODEV => {}
            deleted => deleted.map_err(|refusal| container.refused(refusal))?,
        }
    }
    Ok(())
}

/// Writes on a device of the attachment's what is missing there: all of it if the reference's plugin has given
/// it; its other name if that was taken away in the container.
fn mark(
    container: &mut Container<'_>,
    device: &Link,
    origin: &Origin,
    attachment: &Attachment,
) -> Result<(), Error> {
    let record = origin.record(attachment)?;
    let name = attachment.given_link();
    let target = Target::Index(device.index);
    let alias = Set { target, change: Change { alias: Some(&record), ..Change::default() } };
    let other_name = AddAltName { target, name: &name };
    let mut requests: Vec<&dyn NlRequest> = Vec::new();
    if device.alias.as_ref() != Some(&record) {
        requests.push(&alias);
    }
    if !device.altnames.contains(&name) {
        requests.push(&other_name);
    }
    if requests.is_empty() {
        return Ok(());
    }
    container.execute(&requests).map_err(|refusal| container.refused(refusal))
}

/// Moves a device to the host, down, under this name, or if that is in use there, under one of the kernel's.
/// Other names that came in the container stay behind; so do those that are in use on the host, since the
/// kernel does not move what has them.
fn move_back(
    host: &mut Socket,
    container: &mut Container<'_>,
    device: &Link,
    netns: &Netns,
    name: &str,
    own_name: &str,
) -> Result<(), Error> {
    let host_netns = netns.host();
    let host_netns =
        host_netns.map_err(|why| setting_error("open the host's network namespace", &why))?;
    let later: Vec<_> = later_names(device).filter(|other| *other != own_name).collect();
    let mut moved = move_to_host(container, device, host_netns, name, &later);
    if moved.as_ref().is_err_and(|refusal| refusal.errno == Errno::EEXIST) {
        let mut taken = HashSet::new();
        for link in link::list(host)? {
            taken.insert(link.name);
            taken.extend(link.altnames);
        }
        let others = device.altnames.iter().map(String::as_str);
        let in_use: Vec<_> =
            others.filter(|other| *other != own_name && taken.contains(*other)).collect();
        let name = if taken.contains(name) { STRANDED } else { name };
        moved = match move_to_host(container, device, host_netns, name, &in_use) {
            // It has gone, under the container's name, and could not be renamed then.
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(()),
            other => other,
        };
    }
    moved.map_err(|refusal| {
        // Who keeps it can go on with it.
        let target = Target::Index(device.index);
        let rename = RenameIfFree(Rename { link: device.index, name: &device.name });
        let up = Set { target, change: Change { up: device.up, ..Change::default() } };
        let _ = container.execute(&[&rename, &up]);
        container.refused(refusal)
    })
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

/// Moves a device to the host, down, without these other names. It is renamed before, if it can be, so that
/// nobody on the host sees it by another name and takes that for a reason to rename it.
fn move_to_host(
    container: &mut Container<'_>,
    device: &Link,
    host: BorrowedFd<'_>,
    name: &str,
    without: &[&str],
) -> Result<(), nl::Error> {
    let target = Target::Index(device.index);
    let down = SetDown(target);
    let rename = RenameIfFree(Rename { link: device.index, name });
    let to_host = Move { link: device.index, netns: host, name };
    let without: Vec<_> = without.iter().map(|name| DeleteAltName { target, name }).collect();
    let mut requests: Vec<&dyn NlRequest> =
        without.iter().map(|request| request as &dyn NlRequest).collect();
    requests.extend([&down as &dyn NlRequest, &rename, &to_host]);
    container.execute(&requests)
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
            modes: Modes::default(),
            mtu: 9000,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            alias: "uplink was here  ".into(),
        }
    }

    #[test]
    fn what_a_device_was_is_read_back() {
        let bare = Origin { up: false, mac: None, alias: String::new(), ..origin() };
        let modes = Modes { promiscuous: true, all_multicast: false, no_arp: true };
        let in_modes = Origin { modes, ..bare.clone() };
        for (origin, expected) in [
            (origin(), "plumb:net/c1/eth0 was ens3 up 9000 02:00:00:00:00:01 uplink was here  "),
            (bare, "plumb:net/c1/eth0 was ens3 down 9000 -"),
            (in_modes, "plumb:net/c1/eth0 was ens3 down+pn 9000 -"),
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
            "plumb:net/c1/eth0 was ens3 up+x 1500 -",
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
            modes: Modes { promiscuous: true, all_multicast: true, no_arp: true },
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
