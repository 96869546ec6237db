//! What an attachment is called: in the kernel, in lease files, in messages.

use super::error::{Code, Error};
use crate::net::Mac;
use crate::sha256;

/// What marks an object of the kernel's as ours, before the names.
const LABEL_PREFIX: &str = "plumb:";
/// The longest label: an alias holds 255 bytes and an nf_tables comment 254; some room is left for
/// what goes with it.
const LABEL_MAX: usize = 230;

/// What [`Attachment::given_link`] begins with.
const GIVEN_PREFIX: &str = "plumb";
/// The longest name of a link: `IFNAMSIZ` (linux/if.h) less the terminating NUL.
const LONGEST_NAME: usize = libc::IFNAMSIZ - 1;
/// The letters of names that are made of a digest.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// One interface of one container on one network: what the specification identifies by the triple of
/// network name, `CNI_CONTAINERID` and `CNI_IFNAME`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_IFNAME`
    pub ifname: String,
}

impl Attachment {
    /// What the kernel's objects of this attachment carry: the alias of links, the comment of set
    /// elements. `plumb:network/container/interface`; none of the names can hold a slash or a space.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{LABEL_PREFIX}{}/{}/{}", self.network, self.container, self.ifname)
    }

    /// The attachment that a label names, whatever stands behind a space after it; `None` if it is no label of
    /// ours.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        let names = label.strip_prefix(LABEL_PREFIX)?.split(' ').next()?;
        let mut names = names.split('/').map(str::to_owned);
        let attachment =
            Self { network: names.next()?, container: names.next()?, ifname: names.next()? };
        names.next().is_none().then_some(attachment)
    }

    /// Refuses names that together don't fit into a label. Only what is made needs one.
    ///
    /// # Errors
    /// They don't fit.
    pub fn check_length(&self) -> Result<(), Error> {
        self.check_length_within(LABEL_MAX)
    }

    /// The same for a label of at most `most` bytes, where more goes with it.
    ///
    /// # Errors
    /// They don't fit.
    pub fn check_length_within(&self, most: usize) -> Result<(), Error> {
        let length = self.label().len();
        if length <= most {
            return Ok(());
        }
        Err(Error::new(
            Code::InvalidEnvironment,
            format!(
                "network name, CNI_CONTAINERID and CNI_IFNAME are too long to label a link with: \
                 expected at most {} bytes together, got {}",
                most - LABEL_PREFIX.len() - 2,
                length - LABEL_PREFIX.len() - 2,
            ),
        ))
    }

    /// Name of the host's end of a veth pair: `veth` and 55 bits of a digest, so that it can be found
    /// again from the names alone, and that nobody can choose names to hit another's.
    #[must_use]
    pub fn host_link(&self) -> String {
        veth_name(&self.digest(b"link"))
    }

    /// The other name of a device that the host gives to a container, by which it is found wherever it is and
    /// whatever it is called there. The label says whether it is the one.
    #[must_use]
    pub fn given_link(&self) -> String {
        link_name(GIVEN_PREFIX, &self.digest(b"given"))
    }

    /// Whether `name` has the form of [`given_link`](Self::given_link), be it whose it may.
    #[must_use]
    pub fn is_given_link(name: &str) -> bool {
        name.len() == LONGEST_NAME
            && name
                .strip_prefix(GIVEN_PREFIX)
                .is_some_and(|letters| letters.bytes().all(|letter| ALPHABET.contains(&letter)))
    }

    /// Address of the host's end of a veth pair. Set at birth it is left alone by udev, which replaces
    /// addresses that the kernel drew.
    #[must_use]
    pub fn host_mac(&self) -> Mac {
        Mac::local(&self.digest(b"host mac"))
    }

    /// Address of the container's end, if it has no IP address to derive it from.
    #[must_use]
    pub fn container_mac(&self) -> Mac {
        Mac::local(&self.digest(b"container mac"))
    }

    fn digest(&self, purpose: &[u8]) -> [u8; 32] {
        sha256::digest_parts(&[
            purpose,
            self.network.as_bytes(),
            self.container.as_bytes(),
            self.ifname.as_bytes(),
        ])
    }
}

/// A name for a link that nobody need know: `veth` and the first 55 bits of a digest.
#[must_use]
pub fn veth_name(digest: &[u8; 32]) -> String {
    link_name("veth", digest)
}

/// A name as long as a link's may be: `prefix` and the first bits of a digest, five a letter.
fn link_name(prefix: &str, digest: &[u8; 32]) -> String {
    let mut bits = digest.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
    let mut name = String::from(prefix);
    while name.len() < LONGEST_NAME {
        let index = (bits >> 59) as usize;
        name.push(ALPHABET.get(index).map_or('a', |letter| char::from(*letter)));
        bits <<= 5;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment { network: "net".into(), container: "c1".into(), ifname: "eth0".into() }
    }

    #[test]
    fn labels_go_both_ways() {
        assert_eq!(attachment().label(), "plumb:net/c1/eth0");
        assert_eq!(Attachment::from_label("plumb:net/c1/eth0"), Some(attachment()));
        assert_eq!(Attachment::from_label("plumb:net/c1/eth0 was a/b"), Some(attachment()));
        for text in ["net/c1/eth0", "plumb:net/c1", "plumb:net/c1/eth0/x", ""] {
            assert_eq!(Attachment::from_label(text), None, "{text}");
        }
    }

    /// A DEL by a later release must find what an earlier one made.
    #[test]
    fn derived_names_never_change() {
        assert_eq!(attachment().host_link(), "vetheskvmigwr72");
        assert_eq!(attachment().host_mac().to_string(), "62:5b:31:5b:f0:1c");
        assert_eq!(attachment().given_link(), "plumbq6npwmvlnq");
        assert_eq!([attachment().host_link().len(), attachment().given_link().len()], [15, 15]);
    }

    #[test]
    fn other_names_of_given_links_are_told_from_an_administrators() {
        assert!(Attachment::is_given_link(&attachment().given_link()));
        for name in
            ["plumb", "plumbing-uplink", "plumbq6npwmvlnq2", "plumbq6npwmvln", "veths6npwmvlnqa"]
        {
            assert!(!Attachment::is_given_link(name), "{name}");
        }
    }

    #[test]
    fn names_too_long_for_an_alias_are_refused() {
        assert!(Attachment { container: "c".repeat(210), ..attachment() }.check_length().is_ok());
        let error = Attachment { container: "c".repeat(230), ..attachment() }.check_length();
        assert_eq!(error.unwrap_err().code, Code::InvalidEnvironment as u32);
    }
}
