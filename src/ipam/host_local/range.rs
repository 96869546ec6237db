//! Ranges of addresses, and the order in which they are handed out.

use std::fmt;
use std::net::IpAddr;

use crate::cni::Error;
use crate::cni::json::Node;
use crate::net::{Cidr, from_bits, to_bits, width};

/// A run of consecutive addresses within a subnet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The subnet, host bits zero.
    pub subnet: Cidr,
    /// The first address.
    pub start: IpAddr,
    /// The last address.
    pub end: IpAddr,
    /// The gateway, which is never handed out.
    pub gateway: IpAddr,
}

impl Range {
    /// Reads a range object: `subnet`, `rangeStart`, `rangeEnd`, `gateway`.
    ///
    /// # Errors
    /// A key has the wrong type, or the addresses don't make a range.
    pub fn read(node: &Node<'_>) -> Result<Self, Error> {
        Self::read_if_any(node)?
            .ok_or_else(|| Error::invalid(format_args!("{node}.subnet"), "nothing", "a subnet"))
    }

    /// Reads a range object that without a `subnet` is none. Its other keys don't count then, but they
    /// have to be addresses all the same, as in the reference.
    ///
    /// # Errors
    /// A key has the wrong type, or the addresses don't make a range.
    pub fn read_if_any(node: &Node<'_>) -> Result<Option<Self>, Error> {
        let Some(subnet_node) = node.get("subnet")? else {
            for key in ["rangeStart", "rangeEnd", "gateway"] {
                given(node, key)?.map(|ip| ip.ip()).transpose()?;
            }
            return Ok(None);
        };
        let subnet = subnet_node.cidr()?;
        let bits = width(subnet.address);
        if subnet.prefix > bits - 2 {
            return Err(subnet_node.invalid("a subnet with room for hosts, of /30 or /126 at most"));
        }
        if subnet.network() != subnet.address {
            let network = Cidr { address: subnet.network(), ..subnet };
            return Err(subnet_node.invalid(&format!("a subnet without host bits, here {network}")));
        }
        let network = to_bits(subnet.address);
        let last = to_bits(subnet.last()) - u128::from(subnet.address.is_ipv4());
        let inside = |key: &'static str, default: u128| match given(node, key)? {
            Some(ip) => {
                let address = ip.ip()?;
                if subnet.contains(address) {
                    Ok(address)
                } else {
                    Err(ip.invalid(&format!("an address of subnet {subnet}")))
                }
            }
            None => Ok(from_bits(subnet.address, default)),
        };
        let start = inside("rangeStart", network + 1)?;
        let end = inside("rangeEnd", last)?;
        if start > end {
            let expected = format!("an address not below rangeStart {start}");
            return Err(Error::invalid(format_args!("{node}.rangeEnd"), end, &expected));
        }
        let gateway = match given(node, "gateway")? {
            // A router's link-local address is a gateway of any IPv6 subnet.
            Some(ip) if is_link_local(ip.ip()?) && subnet.address.is_ipv6() => ip.ip()?,
            _ => inside("gateway", network + 1)?,
        };
        Ok(Some(Self { subnet, start, end, gateway }))
    }

    /// Whether `address` lies between start and end.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address) && self.start <= address && address <= self.end
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4()
            && self.start <= other.end
            && other.start <= self.end
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// An address of a range object. An empty text is none, as in the reference: templates leave it.
fn given<'a>(node: &'a Node<'a>, key: &'a str) -> Result<Option<Node<'a>>, Error> {
    match node.get(key)? {
        Some(ip) if ip.text()?.is_empty() => Ok(None),
        other => Ok(other),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Ranges of one family of which a container gets one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set of one range.
    #[must_use]
    pub fn of(range: Range) -> Self {
        Self(vec![range])
    }

    /// Reads a list of ranges.
    ///
    /// # Errors
    /// A range is refused, or they don't make a set: none at all, or of both families.
    pub fn read(node: &Node<'_>) -> Result<Self, Error> {
        let ranges: Vec<_> =
            node.items()?.map(|range| Range::read(&range)).collect::<Result<_, _>>()?;
        let Some(first) = ranges.first() else { return Err(node.invalid("at least one range")) };
        if ranges.iter().any(|range| range.start.is_ipv4() != first.start.is_ipv4()) {
            return Err(node.invalid("ranges of one address family"));
        }
        Ok(Self(ranges))
    }

    /// Whether the addresses are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.0.first().is_some_and(|range| range.start.is_ipv4())
    }

    /// The range that `address` lies in.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// The set's addresses in the order in which they are to be tried: from behind `last`, the one
    /// handed out before, once around.
    #[must_use]
    pub fn rounds(&self, last: Option<IpAddr>) -> Vec<Round<'_>> {
        let round = |range, from, to| Round { range, from, to };
        let begin =
            last.and_then(|last| Some((last, self.0.iter().position(|r| r.contains(last))?)));
        let Some((last, at)) = begin else {
            return self.0.iter().map(|r| round(r, to_bits(r.start), to_bits(r.end))).collect();
        };
        let mut rounds = Vec::with_capacity(self.0.len() + 1);
        let (before, from_here) = self.0.split_at(at);
        if let Some((here, after)) = from_here.split_first() {
            if last < here.end {
                rounds.push(round(here, to_bits(last) + 1, to_bits(here.end)));
            }
            let others = after.iter().chain(before);
            rounds.extend(others.map(|r| round(r, to_bits(r.start), to_bits(r.end))));
            rounds.push(round(here, to_bits(here.start), to_bits(last)));
        }
        rounds
    }

    /// How many addresses can be handed out.
    #[must_use]
    pub fn capacity(&self) -> u128 {
        let size = |range: &Range| {
            let count = (to_bits(range.end) - to_bits(range.start)).saturating_add(1);
            count - u128::from(range.contains(range.gateway))
        };
        self.0.iter().map(size).fold(0, u128::saturating_add)
    }
}

/// Consecutive addresses of a range that are to be tried, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round<'a> {
    /// The range that they belong to.
    pub range: &'a Range,
    /// The first.
    pub from: u128,
    /// The last.
    pub to: u128,
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

/// Refuses sets that share addresses: one address could be handed out twice.
///
/// # Errors
/// Two ranges overlap.
pub fn check_overlaps(sets: &[RangeSet]) -> Result<(), Error> {
    let mut ranges: Vec<_> = sets.iter().flat_map(|set| &set.0).collect();
    // By family, too. If any two overlap, then two neighbours do.
    ranges.sort_by_key(|range| range.start);
    for (a, b) in ranges.iter().zip(ranges.iter().skip(1)) {
        if a.overlaps(b) {
            return Err(Error::invalid(
                "ipam.ranges",
                format_args!("{a} and {b}"),
                "ranges that don't overlap",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn range(value: &serde_json::Value) -> Result<Range, String> {
        Range::read(&Node::root("range", value)).map_err(|error| error.msg)
    }

    fn set(value: &serde_json::Value) -> RangeSet {
        RangeSet::read(&Node::root("ranges", value)).unwrap()
    }

    #[test]
    fn bounds_default_to_the_usable_addresses() {
        let v4 = range(&json!({"subnet": "10.1.0.0/24"})).unwrap();
        assert_eq!(
            (v4.to_string().as_str(), v4.gateway.to_string().as_str()),
            ("10.1.0.1-10.1.0.254", "10.1.0.1")
        );
        let v6 = range(&json!({"subnet": "fd00::/126"})).unwrap();
        assert_eq!(
            (v6.to_string().as_str(), v6.gateway.to_string().as_str()),
            ("fd00::1-fd00::3", "fd00::1")
        );
        let all = range(&json!({"subnet": "::/0"})).unwrap();
        assert_eq!(RangeSet::of(all).capacity(), u128::MAX - 1);
    }

    #[test]
    fn what_makes_no_range_is_refused_by_name() {
        for (value, expected) in [
            (json!({}), "range.subnet: expected a subnet, got nothing"),
            (json!({"subnet": "10.1.0.0/99"}), "range.subnet: expected an IP address with prefix"),
            (json!({"subnet": "10.1.0.0/31"}), "range.subnet: expected a subnet with room"),
            (json!({"subnet": "10.1.0.5/24"}), "a subnet without host bits, here 10.1.0.0/24"),
            (
                json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}),
                "range.rangeStart: expected an address of subnet 10.1.0.0/24",
            ),
            (
                json!({"subnet": "10.1.0.0/24", "rangeEnd": "fd00::1"}),
                "range.rangeEnd: expected an address of subnet",
            ),
            (
                json!({"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}),
                "range.gateway: expected an address of subnet",
            ),
            (
                json!({"subnet": "10.1.0.0/24", "gateway": "fe80::1"}),
                "range.gateway: expected an address of subnet",
            ),
            (
                json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}),
                "range.rangeEnd: expected an address not below",
            ),
            (
                json!({"subnet": "10.1.0.0/24", "rangeStart": 5}),
                "range.rangeStart: expected a string, got 5",
            ),
        ] {
            let msg = range(&value).unwrap_err();
            assert!(msg.contains(expected), "{value}: {msg}");
        }
        assert!(range(&json!({"subnet": "fd00::/64", "gateway": "fe80::1"})).is_ok());
    }

    #[test]
    fn sets_are_of_one_family_and_don_t_overlap() {
        let mixed = json!([{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]);
        assert!(RangeSet::read(&Node::root("r", &mixed)).is_err());
        assert!(RangeSet::read(&Node::root("r", &json!([]))).is_err());
        let within = set(
            &json!([{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/16", "rangeStart": "10.1.0.254"}]),
        );
        assert!(check_overlaps(&[within]).is_err());
        let across =
            [set(&json!([{"subnet": "10.0.0.0/8"}])), set(&json!([{"subnet": "10.1.0.0/24"}]))];
        assert!(check_overlaps(&across).unwrap_err().msg.contains("10.0.0.1-10.255.255.254"));
        let apart = [
            set(
                &json!([{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.99"}, {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100"}]),
            ),
            set(&json!([{"subnet": "fd00::/64"}])),
        ];
        assert!(check_overlaps(&apart).is_ok());
    }

    #[test]
    fn the_round_begins_behind_the_last_address() {
        let set = set(&json!([
            {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.12"},
            {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.20", "rangeEnd": "10.2.0.21"},
            {"subnet": "10.3.0.0/24", "rangeStart": "10.3.0.30", "rangeEnd": "10.3.0.30"},
        ]));
        let order = |last: Option<&str>| -> Vec<String> {
            let last = last.map(|text| text.parse().unwrap());
            set.rounds(last)
                .iter()
                .flat_map(|round| round.from..=round.to)
                .map(|bits| from_bits([0; 4].into(), bits).to_string())
                .collect()
        };
        let plain = ["10.1.0.10", "10.1.0.11", "10.1.0.12", "10.2.0.20", "10.2.0.21", "10.3.0.30"];
        assert_eq!(order(None), plain);
        assert_eq!(order(Some("10.9.0.1")), plain);
        let rotated = |by: usize| [&plain[by..], &plain[..by]].concat();
        assert_eq!(order(Some("10.1.0.11")), rotated(2));
        assert_eq!(order(Some("10.1.0.12")), rotated(3));
        assert_eq!(order(Some("10.2.0.20")), rotated(4));
        assert_eq!(order(Some("10.2.0.21")), rotated(5));
        assert_eq!(order(Some("10.3.0.30")), rotated(0));
    }

    proptest! {
        /// From wherever the round begins, each address comes once, in the order of the set.
        #[test]
        fn a_round_is_the_set_turned_to_begin_behind_the_last_address(
            ranges in prop::collection::vec((0_u8..100, 0_u8..100), 1..6),
            last in prop::option::of((0_u8..7, any::<u8>())),
        ) {
            let ranges: Vec<_> = ranges
                .iter()
                .enumerate()
                .map(|(number, (start, more))| json!({
                    "subnet": format!("10.{number}.0.0/24"),
                    "rangeStart": format!("10.{number}.0.{start}"),
                    "rangeEnd": format!("10.{number}.0.{}", start + more),
                }))
                .collect();
            let set = set(&json!(ranges));
            let all: Vec<_> =
                set.0.iter().flat_map(|r| to_bits(r.start)..=to_bits(r.end)).collect();
            let last = last.map(|(number, host)| IpAddr::from([10, number, 0, host]));
            let at = last.and_then(|last| all.iter().position(|bits| *bits == to_bits(last)));
            let (before, behind) = all.split_at(at.map_or(0, |at| at + 1));
            let order: Vec<_> =
                set.rounds(last).iter().flat_map(|round| round.from..=round.to).collect();
            prop_assert_eq!(order, [behind, before].concat());
            let gateways =
                all.iter().filter(|b| set.0.iter().any(|r| to_bits(r.gateway) == **b)).count();
            prop_assert_eq!(set.capacity(), (all.len() - gateways) as u128);
        }
    }
}
