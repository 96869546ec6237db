//! What plugin and daemon say to each other.
//!
//! The daemon listens on a unix stream socket, `/run/cni/dhcp.sock` unless told otherwise. A connection carries
//! any number of requests, one after the other, each with one answer. Each is a *frame*: its length in bytes, 32
//! bits with the highest byte first, then that much JSON. A frame is at most [`LARGEST`] bytes long. Either side
//! knows from the kernel who the other is (`SO_PEERCRED`, unix(7)) and believes only root and its own user.
//!
//! If the plugin goes away before its answer, what was begun for it is taken back.
//!
//! | request | answer |
//! | --- | --- |
//! | `{"verb":"add", NAMES, "netns":…, "wanted":{…}}` | `{"result":{…}}`, a result of the newest version |
//! | `{"verb":"del", NAMES}` | `{}` |
//! | `{"verb":"check", NAMES}` | `{"result":{…}}` |
//! | `{"verb":"status"}` | `{}` |
//! | `{"verb":"leases"}` | `{"leases":[{…}, …]}` |
//!
//! NAMES are `network`, `container` and `ifname`. Any may be answered by `{"error":{"code":…,"msg":…,"details":…}}`.
//! Both sides are the same program, so there is no version; what a newer one says more is ignored.

use serde_json::{Map, Value, json};

use crate::cni::conf::{interface_name_fault, is_identifier};
use crate::cni::json::Node;
use crate::cni::{Attachment, CniResult, Code, Error, Version};

/// Where the daemon listens unless told otherwise.
pub const SOCKET: &str = "/run/cni/dhcp.sock";
/// The longest frame: GC's can name 100,000 attachments.
pub const LARGEST: usize = 16 << 20;

/// The longest value of an option.
pub const LONGEST_OPTION: usize = 255;

/// What a plugin asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Lease addresses for an attachment whose link is there; answered once there are, or can't be. For one
    /// that has a live lease that is the answer.
    Add(Add),
    /// Release what the attachment has, if anything.
    Del(Attachment),
    /// Tell what the attachment has. Leases nothing.
    Check(Attachment),
    /// Answer.
    Status,
    /// Tell all that is leased.
    Leases,
}

/// For what addresses are to be leased, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Add {
    /// The attachment.
    pub attachment: Attachment,
    /// The container's network namespace: an absolute path.
    pub netns: String,
    /// What is asked of servers.
    pub wanted: Wanted,
}

/// What is asked of servers, as configured.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    /// An IPv4 address.
    pub ipv4: bool,
    /// An IPv6 address.
    pub ipv6: bool,
    /// Codes of options to ask for (option 55), in this order.
    pub requested: Vec<u8>,
    /// Options to send, code and value of 1 to 255 bytes each; no code twice.
    pub provided: Vec<(u8, Vec<u8>)>,
    /// Metric of all routes; 0 for the kernel's default.
    pub priority: u32,
    /// Whether the link is to get the MTU that the server names.
    pub mtu: bool,
    /// Whether the network is asked for another user of an IPv4 address before that is used (RFC 5227).
    pub probe: bool,
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To ADD and CHECK: addresses, routes and name resolution. There is a lease.
    Leased(CniResult),
    /// To DEL, GC and STATUS: done.
    Done,
    /// To LEASES.
    Leases(Vec<Held>),
    /// It can't be done.
    Failed(Error),
}

/// A lease as the daemon tells it. An attachment with both families has two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Whose it is.
    pub attachment: Attachment,
    /// Where the link is: the namespace's path.
    pub netns: String,
    /// The link-layer address of the link.
    pub mac: String,
    /// The address with its prefix; empty as long as there is none.
    pub address: String,
    /// The server; empty as long as there is none.
    pub server: String,
    /// Where the lease is in its life: `selecting`, `requesting`, `probing`, `bound`, `renewing`, `rebinding`.
    pub phase: String,
    /// Seconds until it is renewed; `None` if it need not be.
    pub renews_in: Option<u64>,
    /// Seconds until it expires; `None` if it does not.
    pub expires_in: Option<u64>,
}

/// A message as it goes over the socket.
fn frame(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(text.len() + size_of_val(&length));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// What has come over the socket, in whatever pieces.
#[derive(Default, Debug)]
pub struct Frames {
    unread: Vec<u8>,
}

impl Frames {
    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next message, once it is whole.
    ///
    /// # Errors
    /// It is too long, or not JSON: where the next one begins is not known.
    pub fn take(&mut self) -> Result<Option<Value>, Error> {
        let Some((length, rest)) = self.unread.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > LARGEST {
            let msg = format!("a message of {length} bytes: at most {LARGEST} are taken");
            return Err(Error::new(Code::Decode, msg));
        }
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let value = serde_json::from_slice(text).map_err(|why| {
            Error::new(Code::Decode, "a message is not JSON").with_details(why.to_string())
        })?;
        self.unread.drain(..length + 4);
        // The next one is not likely to be as long.
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        Ok(Some(value))
    }
}

impl Request {
    /// As it goes over the socket.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame(&match self {
            Self::Add(Add { attachment, netns, wanted }) => {
                let mut value = names("add", attachment);
                value.insert("netns".to_owned(), json!(netns));
                value.insert("wanted".to_owned(), wanted.to_value());
                Value::Object(value)
            }
            Self::Del(attachment) => Value::Object(names("del", attachment)),
            Self::Check(attachment) => Value::Object(names("check", attachment)),
            Self::Status => json!({"verb": "status"}),
            Self::Leases => json!({"verb": "leases"}),
        })
    }

    /// Reads a request, whose names and paths are then fit to be used.
    ///
    /// # Errors
    /// A key is missing, or has the wrong type or value.
    pub fn read(value: &Value) -> Result<Self, Error> {
        let node = Node::root("request", value);
        Ok(match text(&node, "verb")?.as_str() {
            "add" => {
                let netns = required(&node, "netns")?;
                let absolute = |text: &str| {
                    (text.starts_with('/') && !text.contains('\0')).then(|| text.to_owned())
                };
                Self::Add(Add {
                    attachment: attachment(&node)?,
                    netns: netns.parse("an absolute path", absolute)?,
                    wanted: Wanted::read(&required(&node, "wanted")?)?,
                })
            }
            "del" => Self::Del(attachment(&node)?),
            "check" => Self::Check(attachment(&node)?),
            "status" => Self::Status,
            "leases" => Self::Leases,
            _ => {
                return Err(required(&node, "verb")?.invalid("add, del, check, status or leases"));
            }
        })
    }
}

impl Wanted {
    /// For [`read`](Self::read).
    #[must_use]
    pub fn to_value(&self) -> Value {
        let Self { ipv4, ipv6, requested, provided, priority, mtu, probe } = self;
        json!({
            "ipv4": ipv4,
            "ipv6": ipv6,
            "requested": requested,
            "provided": provided.iter().map(|(code, value)| json!({"code": code, "value": value})).collect::<Vec<_>>(),
            "priority": priority,
            "mtu": mtu,
            "probe": probe,
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// A key is missing, or has the wrong type or value.
    pub fn read(node: &Node<'_>) -> Result<Self, Error> {
        let option = |item: &Node<'_>| {
            let value = item.list("value", byte)?;
            if value.is_empty() || value.len() > LONGEST_OPTION {
                return Err(item.invalid("a value of 1 to 255 bytes"));
            }
            Ok((byte(&required(item, "code")?)?, value))
        };
        Ok(Self {
            ipv4: node.flag("ipv4")?,
            ipv6: node.flag("ipv6")?,
            requested: node.list("requested", byte)?,
            provided: node.list("provided", option)?,
            priority: node.number("priority", 0..=u32::MAX)?.unwrap_or(0),
            mtu: node.flag("mtu")?,
            probe: node.flag("probe")?,
        })
    }
}

impl Answer {
    /// As it goes over the socket.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame(&match self {
            Self::Leased(result) => {
                // It is printed as JSON, which is what it is read as.
                let printed = result.to_json(Version::NEWEST);
                let result: Value = serde_json::from_str(&printed).unwrap_or_default();
                json!({"result": result})
            }
            Self::Done => json!({}),
            Self::Leases(leases) => {
                json!({"leases": leases.iter().map(Held::to_value).collect::<Vec<_>>()})
            }
            Self::Failed(Error { code, msg, details }) => {
                json!({"error": {"code": code, "msg": msg, "details": details}})
            }
        })
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// A key is missing, or has the wrong type or value.
    pub fn read(value: &Value) -> Result<Self, Error> {
        let node = Node::root("answer", value);
        if let Some(error) = node.get("error")? {
            return Ok(Self::Failed(Error {
                code: required(&error, "code")?.integer(0..=u32::MAX)?,
                msg: text(&error, "msg")?,
                details: error.string("details")?.unwrap_or_default(),
            }));
        }
        if let Some(result) = node.get("result")? {
            return Ok(Self::Leased(CniResult::read(&result, Version::NEWEST)?));
        }
        if node.get("leases")?.is_some() {
            return Ok(Self::Leases(node.list("leases", Held::read)?));
        }
        Ok(Self::Done)
    }
}

impl Held {
    /// As `dhcp leases --json` tells it, too.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let Self { attachment, netns, mac, address, server, phase, renews_in, expires_in } = self;
        let Attachment { network, container, ifname } = attachment;
        let named = |text: &String| (!text.is_empty()).then(|| text.clone());
        json!({
            "network": network, "container": container, "ifname": ifname, "netns": netns, "mac": mac,
            "address": named(address), "server": named(server), "phase": phase,
            "renewsInSeconds": renews_in, "expiresInSeconds": expires_in,
        })
    }

    fn read(node: &Node<'_>) -> Result<Self, Error> {
        let or_empty = |key| node.string(key).map(Option::unwrap_or_default);
        let seconds = |key| Ok::<_, Error>(node.number(key, 0..=u32::MAX)?.map(u64::from));
        Ok(Self {
            attachment: attachment(node)?,
            netns: or_empty("netns")?,
            mac: or_empty("mac")?,
            address: or_empty("address")?,
            server: or_empty("server")?,
            phase: or_empty("phase")?,
            renews_in: seconds("renewsInSeconds")?,
            expires_in: seconds("expiresInSeconds")?,
        })
    }
}

fn names(verb: &str, attachment: &Attachment) -> Map<String, Value> {
    let Attachment { network, container, ifname } = attachment;
    let members =
        [("verb", verb), ("network", network), ("container", container), ("ifname", ifname)];
    let said = members.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(key, text)| (key.to_owned(), json!(text))).collect()
}

fn attachment(node: &Node<'_>) -> Result<Attachment, Error> {
    let name = |key| {
        let identifier = |text: &str| is_identifier(text).then(|| text.to_owned());
        required(node, key)?.parse("a name", identifier)
    };
    let interface = |text: &str| interface_name_fault(text).is_none().then(|| text.to_owned());
    Ok(Attachment {
        network: name("network")?,
        container: name("container")?,
        ifname: required(node, "ifname")?.parse("an interface's name", interface)?,
    })
}

fn byte(node: &Node<'_>) -> Result<u8, Error> {
    Ok(u8::try_from(node.integer(0..=u8::MAX.into())?).unwrap_or_default())
}

fn required<'a>(node: &'a Node<'a>, key: &'a str) -> Result<Node<'a>, Error> {
    let missing = || Error::invalid(format_args!("{node}.{key}"), "nothing", "a value");
    node.get(key)?.ok_or_else(missing)
}

fn text(node: &Node<'_>, key: &str) -> Result<String, Error> {
    required(node, key)?.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named() -> Attachment {
        Attachment { network: "net".into(), container: "c1".into(), ifname: "eth0".into() }
    }

    fn wanted() -> Wanted {
        Wanted {
            ipv4: true,
            ipv6: false,
            requested: vec![1, 3, 121],
            provided: vec![(12, b"host".to_vec())],
            priority: 5,
            mtu: true,
            probe: false,
        }
    }

    fn request(text: &str) -> Result<Request, Error> {
        Request::read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn requests_and_answers_go_both_ways() {
        let netns = "/run/netns/c1".to_owned();
        let requests = [
            Request::Add(Add { attachment: named(), netns, wanted: wanted() }),
            Request::Del(named()),
            Request::Check(named()),
            Request::Status,
            Request::Leases,
        ];
        let mut frames = Frames::default();
        // In the smallest pieces.
        requests.iter().flat_map(Request::frame).for_each(|byte| frames.push(&[byte]));
        for request in requests {
            assert_eq!(Request::read(&frames.take().unwrap().unwrap()).unwrap(), request);
        }
        assert_eq!(frames.take().unwrap(), None);

        let held = Held {
            attachment: named(),
            netns: "/run/netns/c1".into(),
            mac: "02:00:00:00:00:01".into(),
            address: "10.0.0.7/24".into(),
            server: "10.0.0.1".into(),
            phase: "bound".into(),
            renews_in: Some(60),
            expires_in: None,
        };
        let answers = [
            Answer::Leased(CniResult::default()),
            Answer::Done,
            Answer::Leases(vec![held]),
            Answer::Failed(Error::new(Code::TryAgainLater, "no").with_details("why")),
        ];
        for answer in answers {
            frames.push(&answer.frame());
            assert_eq!(Answer::read(&frames.take().unwrap().unwrap()).unwrap(), answer);
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for (text, named) in [
            (
                r#"{"verb":"del","network":"../x","container":"c","ifname":"eth0"}"#,
                "request.network",
            ),
            (
                r#"{"verb":"del","network":"n","container":"a/b","ifname":"eth0"}"#,
                "request.container",
            ),
            (r#"{"verb":"del","network":"n","container":"c","ifname":"a/b"}"#, "request.ifname"),
            (r#"{"verb":"del","network":"n","container":"c"}"#, "request.ifname"),
            (
                r#"{"verb":"add","network":"n","container":"c","ifname":"e","netns":"x","wanted":{}}"#,
                "request.netns",
            ),
            (r#"{"verb":"eat"}"#, "request.verb"),
            (r#"{"verb":7}"#, "request.verb"),
            ("[]", "request"),
            (
                r#"{"verb":"add","network":"n","container":"c","ifname":"e","netns":"/x","wanted":{"provided":[{"code":1,"value":[]}]}}"#,
                "request.wanted.provided[0]",
            ),
            (
                r#"{"verb":"add","network":"n","container":"c","ifname":"e","netns":"/x","wanted":{"requested":[256]}}"#,
                "request.wanted.requested[0]",
            ),
        ] {
            let error = request(text).unwrap_err();
            assert!(error.msg.starts_with(named), "{text}: {}", error.msg);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_has_come() {
        let mut frames = Frames::default();
        frames.push(&u32::try_from(LARGEST + 1).unwrap().to_be_bytes());
        assert!(frames.take().is_err());
        let mut frames = Frames::default();
        frames.push(&[0, 0, 0, 1, b'{']);
        assert!(frames.take().is_err());
    }

    proptest! {
        #[test]
        fn every_byte_sequence_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(value)) = frames.take() {
                let _ = Request::read(&value);
                let _ = Answer::read(&value);
            }
        }
    }
}
