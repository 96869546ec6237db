//! The two value types that every layer shares: link-layer addresses and addresses with a prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A 48-bit link-layer (Ethernet) address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A stable unicast address of the locally administered range, made of the first six `bytes` of
    /// a digest.
    #[must_use]
    pub fn local(bytes: &[u8; 32]) -> Self {
        let [first, b, c, d, e, f, ..] = *bytes;
        Self([first & 0xfc | 0x02, b, c, d, e, f])
    }

    /// Whether an interface can carry this address: neither a group address nor all zeros (the
    /// kernel's `is_valid_ether_addr`, linux/etherdevice.h).
    #[must_use]
    pub fn is_assignable(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ();

    /// Reads the three common notations: `02:00:5e:10:00:01`, `02-00-5e-10-00-01`, `0200.5e10.0001`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (separator, group) = match text.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            _ => ('.', 4),
        };
        if text.len() != if group == 2 { 17 } else { 14 } {
            return Err(());
        }
        let mut bytes = Vec::with_capacity(6);
        for part in text.split(separator) {
            if part.len() != group || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(());
            }
            let value = u16::from_str_radix(part, 16).map_err(|_| ())?.to_be_bytes();
            bytes.extend_from_slice(if group == 2 { &value[1..] } else { &value });
        }
        Ok(Self(bytes.try_into().map_err(|_| ())?))
    }
}

/// An address with the length of its network prefix, `10.1.2.3/24`. The host part is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cidr {
    /// The address, host part included.
    pub address: IpAddr,
    /// Length of the prefix in bits: 0–32 for IPv4, 0–128 for IPv6.
    pub prefix: u8,
}

impl Cidr {
    /// The default route's destination of `family`'s own family.
    #[must_use]
    pub fn default_of(family: IpAddr) -> Self {
        let address = match family {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { address, prefix: 0 }
    }

    /// An address as a network of its own: `/32` or `/128`.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: width(address) }
    }

    /// The address with its host bits cleared.
    #[must_use]
    pub fn network(self) -> IpAddr {
        from_bits(self.address, to_bits(self.address) & self.mask())
    }

    /// The prefix as a mask, right-aligned to the address's width: `/24` of IPv4 is `0xffff_ff00`.
    #[must_use]
    pub fn mask(self) -> u128 {
        let width = u32::from(width(self.address));
        let host = width - u32::from(self.prefix).min(width);
        let all = if width == 128 { u128::MAX } else { (1 << width) - 1 };
        all & u128::MAX.checked_shl(host).unwrap_or(0)
    }

    /// The address with all host bits set: the broadcast address of an IPv4 network.
    #[must_use]
    pub fn last(self) -> IpAddr {
        let full = Self { prefix: 0, ..self }.mask_of_width();
        from_bits(self.address, to_bits(self.address) | (full & !self.mask()))
    }

    /// Whether `address` is of this family and within this network.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (to_bits(self.address) ^ to_bits(address)) & self.mask() == 0
    }

    /// Whether the two networks share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    fn mask_of_width(self) -> u128 {
        if self.address.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address = parse_ip(address).ok_or(())?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        let prefix: u8 = prefix.parse().map_err(|_| ())?;
        if prefix > width(address) {
            return Err(());
        }
        Ok(Self { address, prefix })
    }
}

/// Reads an address as the reference's library does: an IPv4 address mapped into IPv6 is IPv4.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Width of the address in bits: 32 or 128.
#[must_use]
pub fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number, right-aligned.
#[must_use]
pub fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The number `bits` as an address of the family of `family`; bits that don't fit are dropped.
#[must_use]
pub fn from_bits(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address has 32 bits")]
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn mac_addresses_are_read_in_three_notations_and_printed_in_one() {
        for text in ["02:00:5e:10:0a:01", "02-00-5E-10-0a-01", "0200.5e10.0a01"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "02:00:5e:10:0a:01", "{text}");
        }
        let bad = [
            "",
            "02",
            "02:00:5e:10:0a",
            "02:00:5e:10:0a:01:02",
            "02:00:5e:10:0a:0g",
            "+2:00:5e:10:0a:01",
        ];
        for text in bad {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn group_and_zero_macs_are_not_assignable() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_assignable());
        assert!(!Mac([1, 0, 0, 0, 0, 1]).is_assignable());
        assert!(!Mac([0; 6]).is_assignable());
        assert!(Mac::local(&[0xff; 32]).is_assignable());
    }

    #[test]
    fn cidr_arithmetic_holds_at_the_edges() {
        assert_eq!(cidr("10.1.2.3/16").network(), cidr("10.1.0.0/16").address);
        assert_eq!(cidr("10.1.2.3/16").last().to_string(), "10.1.255.255");
        assert_eq!(cidr("10.1.2.3/0").network().to_string(), "0.0.0.0");
        assert_eq!(cidr("10.1.2.3/32").last().to_string(), "10.1.2.3");
        assert_eq!(cidr("fd00::5/64").network().to_string(), "fd00::");
        assert_eq!(cidr("fd00::5/0").last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(cidr("fd00::5/128").mask(), u128::MAX);
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.2.0.0/16")));
        assert!(!cidr("10.0.0.0/9").overlaps(cidr("10.128.0.0/9")));
        assert!(!cidr("0.0.0.0/0").overlaps(cidr("::/0")));
    }

    #[test]
    fn malformed_networks_are_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::/129",
            "010.0.0.0/8",
            "10.0.0.0/+8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert_eq!(cidr("::ffff:10.0.0.1/32").to_string(), "10.0.0.1/32");
    }
}
