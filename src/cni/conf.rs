//! The network configuration: the keys that every plugin has in common (spec section 1).

use serde_json::{Value, json};

use super::attachment::Attachment;
use super::error::{Code, Error};
use super::json::Node;
use super::result::{CniResult, Dns};
use super::version::Version;

/// The key under which a runtime tells GC what to keep.
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// A network configuration as it came on standard input.
#[derive(Clone, PartialEq, Debug)]
pub struct NetConf {
    document: Value,
    /// `cniVersion`; 0.1.0 if absent.
    pub version: Version,
    /// `name`
    pub name: String,
}

/// One of `cni.dev/valid-attachments`: an attachment of this network that GC must leave alone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ValidAttachment {
    /// `containerID`
    pub container: String,
    /// `ifname`
    pub ifname: String,
}

impl NetConf {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It is not JSON (code 6), its version is unknown (1), or its name missing or malformed (7).
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let document: Value = serde_json::from_slice(text).map_err(|error| {
            let what = if text.iter().all(u8::is_ascii_whitespace) {
                "standard input is empty; expected a network configuration".to_owned()
            } else {
                "standard input is not a JSON document".to_owned()
            };
            Error::new(Code::Decode, what).with_details(error.to_string())
        })?;
        let root = Node::root("", &document);
        let version = root.string("cniVersion")?.unwrap_or_default();
        let version = Version::parse(&version).ok_or_else(|| Error::incompatible(&version))?;
        root.string("type")?;
        let name = root.string("name")?.unwrap_or_default();
        if name.is_empty() {
            return Err(Error::new(Code::InvalidConfig, "missing network name: key \"name\""));
        }
        if !is_identifier(&name) {
            return Err(Error::invalid(
                "name",
                format_args!("{name:?}"),
                "a network name: a letter or digit, then letters, digits, '_', '.' or '-'",
            ));
        }
        Ok(Self { version, name, document })
    }

    /// The whole document.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node::root("", &self.document)
    }

    /// `dns`
    ///
    /// # Errors
    /// A key in it has the wrong type.
    pub fn dns(&self) -> Result<Dns, Error> {
        match self.root().get("dns")? {
            Some(dns) => Dns::read(&dns),
            None => Ok(Dns::default()),
        }
    }

    /// `prevResult`, in its own version or else the configuration's.
    ///
    /// # Errors
    /// It is malformed, or of an unknown version.
    pub fn prev_result(&self) -> Result<Option<CniResult>, Error> {
        match self.root().get("prevResult")? {
            Some(result) => CniResult::read(&result, self.version).map(Some),
            None => Ok(None),
        }
    }

    /// `prevResult` where it can't be done without.
    ///
    /// # Errors
    /// It is missing or malformed.
    pub fn required_prev_result(&self) -> Result<CniResult, Error> {
        self.prev_result()?.ok_or_else(|| {
            Error::new(Code::InvalidConfig, "prevResult: expected the result of ADD, got nothing")
        })
    }

    /// `ipam.type`; `None` if there is no address management, however that is expressed.
    ///
    /// # Errors
    /// A key has the wrong type.
    pub fn ipam_type(&self) -> Result<Option<String>, Error> {
        let root = self.root();
        let Some(ipam) = root.get("ipam")? else { return Ok(None) };
        Ok(ipam.string("type")?.filter(|name| !name.is_empty()))
    }

    /// `cni.dev/valid-attachments`, which GC can't do without: no list is not an empty list.
    ///
    /// # Errors
    /// It is missing or malformed.
    pub fn valid_attachments(&self) -> Result<Vec<ValidAttachment>, Error> {
        const KEY: &str = VALID_ATTACHMENTS;
        let root = self.root();
        if root.get(KEY)?.is_none() {
            let msg = format!("{KEY}: expected a list of attachments to keep, got nothing");
            return Err(Error::new(Code::InvalidConfig, msg));
        }
        root.list(KEY, |item| {
            // One that names nobody would have somebody removed who was to be kept.
            let name = |key| {
                item.string(key)?.filter(|name| !name.is_empty()).ok_or_else(|| {
                    Error::invalid(format_args!("{item}.{key}"), "nothing", "the attachment's")
                })
            };
            Ok(ValidAttachment { container: name("containerID")?, ifname: name("ifname")? })
        })
    }

    /// The same configuration with more attachments that GC must leave alone.
    ///
    /// # Errors
    /// As [`valid_attachments`](Self::valid_attachments).
    pub fn also_valid(&self, others: &[Attachment]) -> Result<Self, Error> {
        let mut valid = self.valid_attachments()?;
        let other = |a: &Attachment| ValidAttachment {
            container: a.container.clone(),
            ifname: a.ifname.clone(),
        };
        valid.extend(others.iter().map(other));
        let item = |a: ValidAttachment| json!({"containerID": a.container, "ifname": a.ifname});
        let mut conf = self.clone();
        if let Some(root) = conf.document.as_object_mut() {
            root.insert(VALID_ATTACHMENTS.to_owned(), valid.into_iter().map(item).collect());
        }
        Ok(conf)
    }

    /// The document as text.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.document.to_string()
    }

    /// An attachment to this network.
    #[must_use]
    pub fn attachment(&self, container: &str, ifname: &str) -> Attachment {
        Attachment {
            network: self.name.clone(),
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        }
    }
}

/// Whether `text` is a network name or container ID of the specification: a letter or digit, then
/// letters, digits, `_`, `.`, `-`.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// What is wrong with `name` as the name of an interface; `None` if it is one (`dev_valid_name`,
/// `dev_alloc_name` and `sysctl_dev_name_is_allowed` of the kernel, and no colon, which ifconfig's aliases have).
#[must_use]
pub fn interface_name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > 15 {
        Some("has more than 15 bytes")
    } else if name == "." || name == ".." {
        Some("is a directory's")
    } else if name == "all" || name == "default" {
        Some("means the settings of all interfaces")
    } else if name.contains('%') {
        Some("contains '%', in whose place the kernel would put a number")
    } else if name.contains(char::REPLACEMENT_CHARACTER) {
        Some("is not UTF-8 text")
    } else if name.contains(['/', ':', '\0']) || name.contains(char::is_whitespace) {
        Some("contains a slash, a colon, white space or NUL")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_no_identifiers() {
        for name in ["a", "0", "net-1_x.y", "podman"] {
            assert!(is_identifier(name), "{name}");
        }
        for name in ["", ".", "..", "-a", "_a", "a/b", "../x", "a b", "ä", "a\0", "a\n"] {
            assert!(!is_identifier(name), "{name:?}");
        }
    }

    #[test]
    fn interface_names_are_the_kernels() {
        assert_eq!(interface_name_fault("eth0"), None);
        assert_eq!(interface_name_fault("eth0.100"), None);
        let faulty = [
            "",
            ".",
            "..",
            "a/b",
            "a:0",
            "a b",
            "a\u{a0}b",
            "sixteen-bytes-xx",
            "all",
            "default",
            "a\u{fffd}",
            "br%d",
        ];
        for name in faulty {
            assert!(interface_name_fault(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn a_configuration_needs_a_name_and_a_known_version() {
        for (text, code) in [
            ("", Code::Decode),
            ("{", Code::Decode),
            ("[]", Code::Decode),
            ("null", Code::Decode),
            ("{}", Code::InvalidConfig),
            (r#"{"name":""}"#, Code::InvalidConfig),
            (r#"{"name":"../x"}"#, Code::InvalidConfig),
            (r#"{"name":5}"#, Code::Decode),
            (r#"{"name":"a","cniVersion":"9.9.9"}"#, Code::IncompatibleVersion),
            (r#"{"name":"a","cniVersion":1}"#, Code::Decode),
        ] {
            assert_eq!(NetConf::parse(text.as_bytes()).unwrap_err().code, code as u32, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(NetConf::parse(deep.as_bytes()).unwrap_err().code, Code::Decode as u32);
    }

    #[test]
    fn address_management_may_be_absent_in_many_ways() {
        for text in ["", r#","ipam":null"#, r#","ipam":{}"#, r#","ipam":{"type":""}"#] {
            let conf = NetConf::parse(format!(r#"{{"name":"a"{text}}}"#).as_bytes()).unwrap();
            assert_eq!(conf.ipam_type().unwrap(), None, "{text}");
        }
    }
}
