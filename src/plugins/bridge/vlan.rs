//! `vlan`, `vlanTrunk`, `preserveDefaultVlan`: which VLANs a port is in, and a bridge that keeps them apart.

use nix::errno::Errno;

use super::conf::Conf;
use super::fault;
use crate::cni::json::Node;
use crate::cni::{Code, Error};
use crate::nl::bridge_vlan::{self, Range, Treatment};
use crate::nl::link::{self, Link, Target};
use crate::nl::request::Request as NlRequest;
use crate::nl::{self, Socket};

/// The largest number of a VLAN; 4095 is reserved (IEEE 802.1Q, table 9-2).
const MOST: u16 = 4094;
/// What a trunk's native VLAN is if none is named.
pub(super) const DEFAULT_NATIVE: u16 = 1;
/// Linux 5.6 has the messages of [`bridge_vlan`].
const LACKING: &str =
    "the kernel has no bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING, Linux 5.6)";

/// The VLANs of a container's port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vlans {
    /// `vlan`: the one of what bears no tag, in which the gateway is; none in a trunk that names none.
    pub access: Option<u16>,
    /// `vlanTrunk`: those of what bears a tag, from and to, in order and apart.
    trunk: Vec<(u16, u16)>,
    /// `preserveDefaultVlan`: the port stays in the VLAN that the bridge puts a new port in.
    preserve_default: bool,
}

impl Vlans {
    /// Reads the keys; none if no VLAN is asked for.
    ///
    /// # Errors
    /// A key has the wrong type or value.
    pub fn read(root: &Node<'_>) -> Result<Option<Self>, Error> {
        let preserve_default = root.flag("preserveDefaultVlan")?;
        let items = root.list("vlanTrunk", |item| {
            let id = number(item, "id", 1)?;
            let (min, max) = (number(item, "minID", 1)?, number(item, "maxID", 1)?);
            let range = match (min, max) {
                (Some(min), Some(max)) if min <= max => Some((min, max)),
                // Of an item that names none the reference's plugin takes no notice, either.
                (None, None) => None,
                _ => return Err(item.invalid("an id, or minID and maxID in this order")),
            };
            Ok(id.map(|id| (id, id)).into_iter().chain(range))
        })?;
        let trunk = merged(items.into_iter().flatten().collect());
        let access = number(root, "vlan", 0)?.filter(|vlan| *vlan != 0);
        let any = access.is_some() || !trunk.is_empty();
        Ok(any.then_some(Self { access, trunk, preserve_default }))
    }

    /// A port in the VLAN of what bears no tag alone.
    pub fn without_trunk(&self) -> Self {
        Self { trunk: Vec::new(), ..self.clone() }
    }

    /// What the configuration asks for, as a phrase.
    fn key(&self) -> &'static str {
        if self.access.is_some() { "vlan" } else { "vlanTrunk" }
    }

    fn native(&self) -> u16 {
        self.access.unwrap_or(DEFAULT_NATIVE)
    }

    /// What the port is to be in. The native VLAN bears no tag, be it one of the trunk's.
    fn ranges(&self) -> Vec<Range> {
        let native = self.native();
        let mut ranges = vec![Range::one(native, Treatment::NATIVE)];
        for (first, last) in self.trunk.iter().copied() {
            let parts = if (first..=last).contains(&native) {
                [(first, native - 1), (native + 1, last)]
            } else {
                // The second is empty.
                [(first, last), (1, 0)]
            };
            let parts = parts.into_iter().filter(|(first, last)| first <= last);
            ranges.extend(parts.map(|(first, last)| Range {
                first,
                last,
                treatment: Treatment::TAGGED,
            }));
        }
        ranges
    }

    /// Hands on the requests by which a port that has just joined `bridge` gets into its VLANs.
    pub fn with_requests<T>(
        &self,
        port: u32,
        bridge: &Link,
        hand_on: impl FnOnce(&[&dyn NlRequest]) -> T,
    ) -> T {
        let ranges = self.ranges();
        let left = bridge
            .default_pvid
            .filter(|vlan| *vlan != 0 && *vlan != self.native() && !self.preserve_default)
            .map(|vlan| bridge_vlan::Remove { link: port, vlan });
        let added: Vec<_> = ranges
            .chunks(bridge_vlan::AT_ONCE)
            .map(|ranges| bridge_vlan::Add { link: port, ranges })
            .collect();
        let left = left.iter().map(|request| request as &dyn NlRequest);
        let added = added.iter().map(|request| request as &dyn NlRequest);
        hand_on(&left.chain(added).collect::<Vec<_>>())
    }

    /// Sees whether a port is in its VLANs, and in no others. With `preserveDefaultVlan` it may be: which one
    /// the bridge had put it in can't be told any more.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, port: &Link) -> Result<(), Error> {
        let found = by_number(&bridge_vlan::of_link(port.index)?);
        let expected = by_number(&self.ranges());
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let what = match (found, expected) {
                (Some(_), None) if self.preserve_default => continue,
                _ if found == expected => continue,
                (None, _) => format!("is not in VLAN {number}"),
                (Some(_), None) => format!("is in VLAN {number}, which is not configured"),
                (Some(found), Some(expected)) => {
                    format!("has VLAN {number} {found}, not {expected}")
                }
            };
            return Err(fault(format!("bridge port {:?} {what}", port.name)));
        }
        Ok(())
    }
}

/// The number of a VLAN that a key holds.
fn number(node: &Node<'_>, key: &str, least: u32) -> Result<Option<u16>, Error> {
    let number = node.number(key, least..=MOST.into())?;
    Ok(number.and_then(|number| u16::try_from(number).ok()))
}

/// The same VLANs in order, in as few ranges as can be.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, before)) if first <= *before + 1 => *before = last.max(*before),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// What is done with the frames of each VLAN, by its number.
fn by_number(ranges: &[Range]) -> Vec<Option<Treatment>> {
    let mut all = vec![None; usize::from(MOST) + 1];
    for range in ranges {
        let numbers = usize::from(range.first)..=usize::from(range.last.min(MOST));
        if let Some(treatments) = all.get_mut(numbers) {
            treatments.fill(Some(range.treatment));
        }
    }
    all
}

/// Whether a link is in this VLAN, treated so.
pub(super) fn is_in(ranges: &[Range], vlan: u16, treatment: Treatment) -> bool {
    let is_it = |range: &Range| (range.first..=range.last).contains(&vlan);
    ranges.iter().any(|range| is_it(range) && range.treatment == treatment)
}

/// Says of the kernel's refusal to make a bridge that filters VLANs, or to add a port to one, what it lacks:
/// Linux 5.3 to 5.5 can filter, and have none of the messages by which ports are added.
pub(super) fn refused(vlans: Option<&Vlans>, error: nl::Error) -> Error {
    match vlans {
        Some(vlans) if error.errno == Errno::EOPNOTSUPP => lacking(vlans, error.reason()),
        _ => error.into(),
    }
}

fn lacking(vlans: &Vlans, details: impl Into<String>) -> Error {
    let msg = format!("{}: {LACKING}", vlans.key());
    Error::new(Code::Internal, msg).with_details(details)
}

/// Sees to it that the bridge filters VLANs, if any are configured. Of one that is there already that is only
/// switched on as long as it has no ports: whose frames it would stop can't be known.
///
/// It stays on, also if the ADD fails. Another one may have seen it, and its port need not be there yet; and
/// a bridge without ports has no frames to stop.
///
/// # Errors
/// The kernel can't; the bridge has ports.
pub(super) fn ensure_filtering(
    host: &mut Socket,
    conf: &Conf,
    bridge: &mut Link,
) -> Result<(), Error> {
    let Some(vlans) = &conf.vlans else { return Ok(()) };
    if bridge.vlan_filtering {
        return Ok(());
    }
    check_can_filter(host, vlans, bridge)?;
    let target = Target::Index(bridge.index);
    host.execute(&[&link::SetVlanFiltering { target, on: true }])?;
    bridge.vlan_filtering = true;
    Ok(())
}

/// Sees whether filtering can be switched on, of a bridge on which it is off.
fn check_can_filter(host: &mut Socket, vlans: &Vlans, bridge: &Link) -> Result<(), Error> {
    if bridge.default_pvid.is_none() {
        return Err(lacking(vlans, ""));
    }
    if !has_ports(host, bridge.index)? {
        return Ok(());
    }
    let (key, name) = (vlans.key(), &bridge.name);
    let got = format!(
        "{name:?}, which has it off and has ports, whose traffic filtering might stop; to switch it on: \
         ip link set {name} type bridge vlan_filtering 1"
    );
    Err(Error::invalid("bridge", got, &format!("one with VLAN filtering, as {key} is set")))
}

fn has_ports(host: &mut Socket, bridge: u32) -> Result<bool, Error> {
    Ok(link::list(host)?.iter().any(|link| link.master == Some(bridge)))
}

/// STATUS: sees whether the kernel, and the bridge if there is one, can keep VLANs apart.
///
/// # Errors
/// It can't (code 50).
pub(super) fn status(host: &mut Socket, conf: &Conf, bridge: Option<&Link>) -> Result<(), Error> {
    let Some(vlans) = &conf.vlans else { return Ok(()) };
    bridge_vlan::probe(host).map_err(|error| refused(Some(vlans), error).unavailable())?;
    match bridge {
        Some(bridge) if !bridge.vlan_filtering => {
            check_can_filter(host, vlans, bridge).map_err(Error::unavailable)
        }
        _ => Ok(()),
    }
}

/// Sees whether the bridge, as just read, keeps VLANs apart, if any are configured.
///
/// # Errors
/// It does not.
pub(super) fn check_filtering(conf: &Conf, bridge: &Link) -> Result<(), Error> {
    if conf.vlans.is_none() || bridge.vlan_filtering {
        return Ok(());
    }
    Err(fault(format!("bridge {:?} does not filter VLANs", bridge.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vlans(access: Option<u16>, trunk: &[(u16, u16)], preserve_default: bool) -> Vlans {
        Vlans { access, trunk: merged(trunk.to_vec()), preserve_default }
    }

    fn tagged(first: u16, last: u16) -> Range {
        Range { first, last, treatment: Treatment::TAGGED }
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        type Ranges<'a> = &'a [(u16, u16)];
        let cases: [(Ranges<'_>, Ranges<'_>); 6] = [
            (&[], &[]),
            (&[(7, 7)], &[(7, 7)]),
            (&[(9, 9), (7, 7), (7, 7)], &[(7, 7), (9, 9)]),
            (&[(8, 8), (7, 7), (9, 12)], &[(7, 12)]),
            (&[(1, 4094), (5, 6)], &[(1, 4094)]),
            (&[(10, 20), (15, 30), (32, 40)], &[(10, 30), (32, 40)]),
        ];
        for (ranges, expected) in cases {
            assert_eq!(merged(ranges.to_vec()), expected, "{ranges:?}");
        }
    }

    /// A trunk that names no native VLAN has VLAN 1, as with the reference's plugin.
    #[test]
    fn the_native_vlan_is_left_out_of_the_trunk() {
        let native = |number| Range::one(number, Treatment::NATIVE);
        let cases: [(Vlans, Vec<Range>); 7] = [
            (vlans(Some(7), &[], false), vec![native(7)]),
            (vlans(None, &[(10, 20)], false), vec![native(1), tagged(10, 20)]),
            (vlans(None, &[(1, 4094)], false), vec![native(1), tagged(2, 4094)]),
            (vlans(Some(7), &[(7, 7)], false), vec![native(7)]),
            (vlans(Some(7), &[(5, 9)], false), vec![native(7), tagged(5, 6), tagged(8, 9)]),
            (vlans(Some(4094), &[(1, 4094)], false), vec![native(4094), tagged(1, 4093)]),
            (
                vlans(Some(7), &[(8, 9), (11, 11)], true),
                vec![native(7), tagged(8, 9), tagged(11, 11)],
            ),
        ];
        for (vlans, expected) in cases {
            assert_eq!(vlans.ranges(), expected, "{vlans:?}");
        }
    }

    #[test]
    fn the_default_vlan_is_left_unless_it_is_wanted() {
        let requests = |vlans: &Vlans, default_pvid| {
            let bridge = Link { default_pvid, ..Link::default() };
            vlans.with_requests(9, &bridge, |requests| {
                requests.iter().map(ToString::to_string).collect::<Vec<_>>()
            })
        };
        let access = vlans(Some(7), &[], false);
        let added = "add bridge port 9 to VLAN 7";
        let left = |vlan| format!("remove bridge port 9 from VLAN {vlan}");
        assert_eq!(requests(&access, Some(1)), [&left(1), added]);
        assert_eq!(requests(&access, Some(5)), [&left(5), added]);
        for none in [None, Some(0), Some(7)] {
            assert_eq!(requests(&access, none), [added], "{none:?}");
        }
        assert_eq!(requests(&vlans(Some(7), &[], true), Some(1)), [added]);
        let trunk = vlans(None, &[(10, 20)], false);
        assert_eq!(requests(&trunk, Some(1)), ["add bridge port 9 to VLAN 1, …"]);
    }

    /// Linux 5.3 to 5.5, once the bridge is there.
    #[test]
    fn a_kernel_that_adds_no_port_to_a_vlan_is_told_of() {
        let unsupported = nl::Error::new("add bridge port 9 to VLAN 7", Errno::EOPNOTSUPP);
        let error = refused(Some(&vlans(Some(7), &[], false)), unsupported.clone());
        assert_eq!(error.msg, format!("vlan: {LACKING}"));
        assert_eq!(error.details, unsupported.reason());
        let trunk = refused(Some(&vlans(None, &[(10, 20)], false)), unsupported.clone());
        assert_eq!(trunk.msg, format!("vlanTrunk: {LACKING}"));
        let others = [(refused(None, unsupported.clone()), unsupported), {
            let busy = nl::Error::new("add bridge port 9 to VLAN 7", Errno::EBUSY);
            (refused(Some(&vlans(Some(7), &[], false)), busy.clone()), busy)
        }];
        for (error, cause) in others {
            assert_eq!(error.msg, Error::from(cause).msg);
        }
    }

    /// Every other VLAN is the most ranges that there can be.
    #[test]
    fn the_longest_trunk_is_several_requests() {
        let odd: Vec<_> = (1..=MOST).step_by(2).map(|number| (number, number)).collect();
        let trunk = vlans(Some(2), &odd, false);
        let count = trunk.with_requests(9, &Link::default(), |requests| requests.len());
        assert_eq!((odd.len(), count), (2047, 16));
    }
}
