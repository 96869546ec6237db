//! The netlink wire format: messages of a 16-byte header, a family header and attributes, all aligned
//! to 4 bytes, in host byte order unless said otherwise (linux/netlink.h, netlink(7)).
//!
//! [`Encoder`] appends messages to one buffer; lengths are filled in when a message or a nested
//! attribute ends, so none can be forgotten. [`Messages`] and [`Attributes`] read without copying;
//! every length is checked before it is used, and a malformed one ends the iteration with an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::Mac;

/// Length of `struct nlmsghdr`.
pub const MESSAGE_HEADER: usize = 16;
/// Length of `struct nlattr`.
pub const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED` (linux/netlink.h): marks an attribute that holds attributes. nf_tables' tools set
/// it, rtnetlink's don't; the kernel takes both.
pub const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK` (linux/netlink.h): the attribute's type without its two flag bits.
const TYPE_MASK: u16 = 0x3fff;

bitflags::bitflags! {
    /// `nlmsg_flags` (linux/netlink.h).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u16 {
        /// `NLM_F_REQUEST`
        const REQUEST = 0x1;
        /// `NLM_F_ACK`: answer even if there is no error.
        const ACK = 0x4;
        /// `NLM_F_DUMP_INTR`: the dump was inconsistent.
        const DUMP_INTR = 0x10;
        /// `NLM_F_DUMP`: return all objects.
        const DUMP = 0x300;
        /// `NLM_F_EXCL`: fail if the object exists. Of requests that create.
        const EXCL = 0x200;
        /// `NLM_F_CREATE`: make the object if it is missing. Of requests that create.
        const CREATE = 0x400;
        /// `NLM_F_CAPPED`: the acknowledgement does not repeat the request. Of acknowledgements.
        const CAPPED = 0x100;
        /// `NLM_F_ACK_TLVS`: attributes follow in the acknowledgement.
        const ACK_TLVS = 0x200;
        const _ = !0;
    }
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// What arrived does not keep to the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

/// Builds messages, one behind the other.
#[derive(Default, Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    oversized: bool,
}

impl Encoder {
    /// An encoder with room for a usual batch.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(2048), oversized: false }
    }

    /// Appends a message whose family header and attributes `body` writes.
    pub fn message(
        &mut self,
        kind: u16,
        flags: Flags,
        sequence: u32,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.raw(&0u32.to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(&flags.bits().to_ne_bytes());
        self.raw(&sequence.to_ne_bytes());
        self.raw(&0u32.to_ne_bytes());
        body(self);
        self.pad();
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.oversized = true,
        }
    }

    /// Appends bytes as they are: a family header.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends an attribute.
    pub fn put<V: Value + ?Sized>(&mut self, kind: u16, value: &V) {
        self.attribute(kind, |encoder| value.write(&mut encoder.bytes));
    }

    /// Appends an attribute without payload.
    pub fn put_flag(&mut self, kind: u16) {
        self.attribute(kind, |_| ());
    }

    /// Appends an attribute that holds what `body` writes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind, body);
    }

    /// The messages so far; `None` if a length did not fit its field.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        (!self.oversized).then_some(&self.bytes)
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.raw(&0u16.to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        body(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.oversized = true,
        }
        self.pad();
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// Payload of an attribute.
pub trait Value {
    /// Appends the payload, unpadded.
    fn write(&self, out: &mut Vec<u8>);
}

/// A number in network byte order: what nf_tables uses throughout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Be32(pub u32);

impl Value for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
}

impl Value for u16 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_ne_bytes());
    }
}

impl Value for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_ne_bytes());
    }
}

impl Value for Be32 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

/// Text, written with the terminating NUL that the kernel's string attributes carry.
impl Value for str {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
        out.push(0);
    }
}

impl Value for [u8] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl Value for Mac {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

impl Value for IpAddr {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
        }
    }
}

/// One message as received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: Flags,
    /// `nlmsg_seq`
    pub sequence: u32,
    /// Family header and attributes.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The family header of `N` bytes, and the attributes behind it.
    ///
    /// # Errors
    /// The message is shorter than its header.
    pub fn split<const N: usize>(&self) -> Result<(&'a [u8; N], Attributes<'a>), Malformed> {
        let (header, rest) =
            self.payload.split_first_chunk().ok_or(Malformed("message without family header"))?;
        Ok((header, Attributes { rest }))
    }
}

/// Iterates over the messages of a datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((header, _)) = self.rest.split_first_chunk::<MESSAGE_HEADER>() else {
            self.rest = &[];
            return Some(Err(Malformed("truncated message header")));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(payload) = self.rest.get(MESSAGE_HEADER..length) else {
            self.rest = &[];
            return Some(Err(Malformed("message length out of bounds")));
        };
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: Flags::from_bits_retain(u16::from_ne_bytes([f0, f1])),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        }))
    }
}

/// Iterates over attributes.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(([l0, l1, k0, k1], _)) = self.rest.split_first_chunk::<ATTRIBUTE_HEADER>() else {
            self.rest = &[];
            return Some(Err(Malformed("truncated attribute header")));
        };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(payload) = self.rest.get(ATTRIBUTE_HEADER..length) else {
            self.rest = &[];
            return Some(Err(Malformed("attribute length out of bounds")));
        };
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok(Attribute { kind: u16::from_ne_bytes([*k0, *k1]) & TYPE_MASK, payload }))
    }
}

/// One attribute as received.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// The type, without its flag bits.
    pub kind: u16,
    /// The value.
    pub payload: &'a [u8],
}

/// Each reader fails if the payload has not the length of the type.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl<'a> Attribute<'a> {
    /// A byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        let [value] = self.array()?;
        Ok(value)
    }

    /// A 16-bit number in host order.
    pub fn u16(&self) -> Result<u16, Malformed> {
        Ok(u16::from_ne_bytes(self.array()?))
    }

    /// A 32-bit number in host order.
    pub fn u32(&self) -> Result<u32, Malformed> {
        Ok(u32::from_ne_bytes(self.array()?))
    }

    /// A 32-bit number in network order.
    pub fn be32(&self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Text up to the first NUL; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        up_to_nul(self.payload)
    }

    /// An address of the family that its length tells.
    pub fn ip(&self) -> Result<IpAddr, Malformed> {
        if let Ok(octets) = <[u8; 4]>::try_from(self.payload) {
            return Ok(Ipv4Addr::from(octets).into());
        }
        Ok(Ipv6Addr::from(self.array::<16>()?).into())
    }

    /// A link-layer address; `None` if it is not an Ethernet address.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.payload.try_into().ok().map(Mac)
    }

    /// The attributes nested in this one.
    #[must_use]
    pub fn nested(&self) -> Attributes<'a> {
        Attributes { rest: self.payload }
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.try_into().map_err(|_| Malformed("attribute of unexpected length"))
    }
}

/// Text up to the first NUL, as the kernel pads names; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn up_to_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nl::testing::{Bytes, hex};
    use proptest::prelude::*;

    /// The encoder appends, so each byte of the result is one it wrote; the pattern around shows it.
    #[test]
    fn messages_nest_and_align() {
        let mut encoder = Encoder::new();
        encoder.message(16, Flags::REQUEST | Flags::ACK, 7, |m| {
            m.raw(&[0xa5; 4]);
            m.put(3, "eth0");
            m.nest(18 | NESTED, |m| m.put(1, &0x0102_u16));
        });
        let expected: &[u8] = &[
            0x2c, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // header
            0xa5, 0xa5, 0xa5, 0xa5, // family header
            9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0, // name, padded
            12, 0, 18, 0x80, 6, 0, 1, 0, 2, 1, 0, 0, // nested
        ];
        assert_eq!(encoder.bytes().unwrap(), expected);

        let message = Messages::new(expected).next().unwrap().unwrap();
        let (header, attributes) = message.split::<4>().unwrap();
        assert_eq!(header, &[0xa5; 4]);
        let attributes: Vec<_> = attributes.map(Result::unwrap).collect();
        assert_eq!(attributes[0].text(), "eth0");
        assert_eq!(attributes[1].kind, 18);
        assert_eq!(attributes[1].nested().next().unwrap().unwrap().u16().unwrap(), 0x0102);
    }

    #[test]
    fn an_attribute_that_exceeds_its_length_field_is_noticed() {
        let mut encoder = Encoder::new();
        encoder.message(16, Flags::REQUEST, 1, |m| m.put(1, &[0u8; 70_000][..]));
        assert!(encoder.bytes().is_none());
    }

    #[test]
    fn lengths_out_of_bounds_end_with_an_error() {
        for bytes in [&[1u8, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4], &[0, 0, 0, 0]] {
            let read: Vec<_> = Attributes::new(bytes).collect();
            assert_eq!(read.len(), 1, "{bytes:?}");
            assert!(read[0].is_err(), "{bytes:?}");
        }
        let mut header = [0u8; 16];
        for length in [0u32, 15, 17, u32::MAX] {
            header[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Messages::new(&header).next().unwrap().is_err(), "{length}");
        }
    }

    #[test]
    fn header_lengths_are_the_kernels() {
        assert_eq!(MESSAGE_HEADER, size_of::<libc::nlmsghdr>());
        assert_eq!(ATTRIBUTE_HEADER, size_of::<libc::nlattr>());
        assert_eq!(std::mem::offset_of!(libc::nlmsghdr, nlmsg_type), 4);
        assert_eq!(std::mem::offset_of!(libc::nlmsghdr, nlmsg_flags), 6);
        assert_eq!(std::mem::offset_of!(libc::nlmsghdr, nlmsg_seq), 8);
        assert_eq!(std::mem::offset_of!(libc::nlattr, nla_type), 2);
        let flags = [
            (Flags::REQUEST, libc::NLM_F_REQUEST),
            (Flags::ACK, libc::NLM_F_ACK),
            (Flags::DUMP_INTR, libc::NLM_F_DUMP_INTR),
            (Flags::DUMP, libc::NLM_F_DUMP),
            (Flags::EXCL, libc::NLM_F_EXCL),
            (Flags::CREATE, libc::NLM_F_CREATE),
            (Flags::CAPPED, libc::NLM_F_CAPPED),
            (Flags::ACK_TLVS, libc::NLM_F_ACK_TLVS),
        ];
        for (ours, kernel) in flags {
            assert_eq!(i32::from(ours.bits()), kernel);
        }
        assert_eq!(i32::from(NESTED), libc::NLA_F_NESTED);
        assert_eq!(i32::from(TYPE_MASK), 0xffff & libc::NLA_TYPE_MASK);
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        let attribute = |write: &dyn Fn(&mut Encoder)| {
            let mut encoder = Encoder::new();
            write(&mut encoder);
            encoder.bytes().unwrap().to_vec()
        };
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let cases: [(Vec<u8>, Bytes); 10] = [
            (attribute(&|out| out.put(1, &0x12_u8)), hex("0500 0100 12 000000")),
            (attribute(&|out| out.put(1, &0x1234_u16)), hex("0600 0100 3412 0000")),
            (attribute(&|out| out.put(1, &0x1234_5678_u32)), hex("0800 0100 78563412")),
            (attribute(&|out| out.put(1, &Be32(0x1234_5678))), hex("0800 0100 12345678")),
            (attribute(&|out| out.put(1, "")), hex("0500 0100 00 000000")),
            (attribute(&|out| out.put(1, b"eth".as_slice())), hex("0700 0100 657468 00")),
            (
                attribute(&|out| out.put(1, &Mac([1, 2, 3, 4, 5, 6]))),
                hex("0a00 0100 01020304 0506 0000"),
            ),
            (attribute(&|out| out.put::<IpAddr>(1, &v4)), hex("0800 0100 c0000201")),
            (
                attribute(&|out| out.put::<IpAddr>(1, &v6)),
                hex("1400 0100 20010db8 00000000 00000000 00000001"),
            ),
            (attribute(&|out| out.put_flag(1)), hex("0400 0100")),
        ];
        for (written, expected) in &cases {
            assert_eq!(Bytes(written.clone()), *expected);
        }
        let read = |case: usize| Attributes::new(&cases[case].0).next().unwrap().unwrap();
        assert_eq!(read(0).u8(), Ok(0x12));
        assert_eq!(read(1).u16(), Ok(0x1234));
        assert_eq!(read(2).u32(), Ok(0x1234_5678));
        assert_eq!(read(3).be32(), Ok(0x1234_5678));
        assert_eq!(read(4).text(), "");
        assert_eq!(read(5).text(), "eth", "the kernel may leave out the NUL");
        assert_eq!(read(6).mac(), Some(Mac([1, 2, 3, 4, 5, 6])));
        assert_eq!(read(7).ip(), Ok(v4));
        assert_eq!(read(8).ip(), Ok(v6));
        assert_eq!(read(9).payload, &[] as &[u8]);
    }

    #[test]
    fn a_value_of_another_length_is_malformed() {
        let unexpected = Malformed("attribute of unexpected length");
        for payload in [&[][..], &[1; 3], &[1; 5], &[1; 15], &[1; 17]] {
            let attribute = Attribute { kind: 1, payload };
            assert_eq!(attribute.u8(), Err(unexpected), "{payload:?}");
            assert_eq!(attribute.u16(), Err(unexpected), "{payload:?}");
            assert_eq!(attribute.u32(), Err(unexpected), "{payload:?}");
            assert_eq!(attribute.be32(), Err(unexpected), "{payload:?}");
            assert_eq!(attribute.ip(), Err(unexpected), "{payload:?}");
            assert_eq!(attribute.mac(), None, "{payload:?}");
        }
    }

    #[test]
    fn text_ends_at_the_first_nul_and_is_always_valid() {
        let text = |payload| Attribute { kind: 1, payload }.text();
        assert_eq!(text(b"eth0\0junk"), "eth0");
        assert_eq!(text(b"\xff\0"), "\u{fffd}");
    }

    /// The kernel pads a message, but need not pad the last one of a datagram.
    #[test]
    fn the_last_attribute_and_message_may_lack_padding() {
        let attribute = Attributes::new(&[5, 0, 1, 0, 7]).next().unwrap().unwrap();
        assert_eq!(attribute.u8(), Ok(7));
        let datagram = [17, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7];
        let mut messages = Messages::new(&datagram);
        assert_eq!(messages.next().unwrap().unwrap().payload, &[7]);
        assert!(messages.next().is_none());
    }

    /// An attribute that holds bytes or attributes.
    #[derive(Clone, PartialEq, Debug)]
    enum Tree {
        Leaf(u16, Vec<u8>),
        Nest(u16, Vec<Tree>),
    }

    impl Tree {
        fn any() -> impl Strategy<Value = Self> {
            let bytes = proptest::collection::vec(any::<u8>(), 0..40);
            let leaf = (0..=TYPE_MASK, bytes).prop_map(|(kind, bytes)| Tree::Leaf(kind, bytes));
            leaf.prop_recursive(4, 32, 5, |inner| {
                (0..=TYPE_MASK, proptest::collection::vec(inner, 0..5))
                    .prop_map(|(kind, inner)| Tree::Nest(kind, inner))
            })
        }

        fn write(&self, out: &mut Encoder) {
            match self {
                Tree::Leaf(kind, bytes) => out.put(*kind, bytes.as_slice()),
                Tree::Nest(kind, inner) => {
                    out.nest(*kind | NESTED, |out| inner.iter().for_each(|tree| tree.write(out)));
                }
            }
        }

        /// Reads what was written as `shape`: the format alone does not tell a nest from bytes.
        fn read(attribute: Attribute<'_>, shape: &Self) -> Self {
            match shape {
                Tree::Leaf(..) => Tree::Leaf(attribute.kind, attribute.payload.to_vec()),
                Tree::Nest(_, shapes) => {
                    Tree::Nest(attribute.kind, Self::read_all(attribute.nested(), shapes))
                }
            }
        }

        fn read_all(attributes: Attributes<'_>, shapes: &[Self]) -> Vec<Self> {
            let attributes: Vec<_> = attributes.map(Result::unwrap).collect();
            assert_eq!(attributes.len(), shapes.len());
            attributes.into_iter().zip(shapes).map(|(a, shape)| Self::read(a, shape)).collect()
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            messages in proptest::collection::vec(
                (any::<[u16; 2]>(), any::<u32>(), proptest::collection::vec(Tree::any(), 0..6)),
                0..4,
            ),
        ) {
            let mut encoder = Encoder::new();
            for ([kind, flags], sequence, trees) in &messages {
                encoder.message(*kind, Flags::from_bits_retain(*flags), *sequence, |out| {
                    out.raw(&[0xa5; 4]);
                    trees.iter().for_each(|tree| tree.write(out));
                });
            }
            let read: Vec<_> = Messages::new(encoder.bytes().unwrap()).map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), messages.len());
            for (message, ([kind, flags], sequence, trees)) in read.iter().zip(&messages) {
                prop_assert_eq!(message.kind, *kind);
                prop_assert_eq!(message.flags.bits(), *flags);
                prop_assert_eq!(message.sequence, *sequence);
                let (header, attributes) = message.split::<4>().unwrap();
                prop_assert_eq!(header, &[0xa5; 4]);
                prop_assert_eq!(&Tree::read_all(attributes, trees), trees);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            for message in Messages::new(&bytes).flatten() {
                for attribute in Attributes::new(message.payload).flatten() {
                    let _ = (attribute.text(), attribute.ip(), attribute.u32());
                    attribute.nested().for_each(drop);
                }
            }
        }
    }
}
