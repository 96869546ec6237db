//! What is configured under `ipam`.

use std::path::PathBuf;

use crate::cni::json::Node;
use crate::cni::{Code, Error, Request};
use crate::ipam::dhcp::protocol::{LONGEST_OPTION, SOCKET, Wanted};
use crate::ipam::dhcp::v4::message::option;

/// The options that the result is made of, which are asked for unless `skipDefault` is set. Of routes those
/// without classes come first (RFC 3442).
const DEFAULT: [u8; 8] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTERS,
    option::STATIC_ROUTES,
    option::NAME_SERVERS,
    option::DOMAIN,
    option::MTU,
    option::SEARCH,
];
/// What options may be called.
const NAMES: [(&str, u8); 6] = [
    ("dhcp-client-identifier", option::CLIENT_ID),
    ("subnet-mask", option::SUBNET_MASK),
    ("routers", option::ROUTERS),
    ("host-name", option::HOST_NAME),
    ("user-class", option::USER_CLASS),
    ("vendor-class-identifier", option::VENDOR_CLASS),
];
/// Options that every message has anyway, as DHCP itself needs them.
const OWN: [u8; 8] = [
    option::PAD,
    option::REQUESTED_ADDRESS,
    option::OVERLOAD,
    option::KIND,
    option::SERVER,
    option::PARAMETERS,
    option::LONGEST_MESSAGE,
    option::END,
];
/// Keys that are taken for one that there is (containernetworking/plugins#761).
const SLIPS: [(&str, &str); 2] = [("requests", "request"), ("provides", "provide")];

/// What is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conf {
    /// `daemonSocketPath`: where the daemon is.
    pub socket: PathBuf,
    /// What is asked of servers.
    pub wanted: Wanted,
}

impl Conf {
    /// Reads and checks what is configured, and the arguments of the call that it names.
    ///
    /// # Errors
    /// A key has the wrong type or value.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let root = request.conf.root();
        let Some(ipam) = root.get("ipam")? else {
            return Err(Error::invalid("ipam", "nothing", "an object"));
        };
        for (slip, key) in SLIPS {
            if ipam.get(slip)?.is_some() {
                let expected = format!("ipam.{key}, which is what the key is called");
                return Err(Error::invalid(format_args!("ipam.{slip}"), "it", &expected));
            }
        }
        let flag = |key, default| {
            ipam.get(key).and_then(|node| node.map_or(Ok(default), |node| node.boolean()))
        };
        let wanted = Wanted {
            ipv4: flag("ipv4", true)?,
            ipv6: flag("ipv6", false)?,
            requested: requested(&ipam)?,
            provided: provided(&ipam, &request.env.args)?,
            priority: ipam.number("priority", 0..=u32::MAX)?.unwrap_or(0),
            // What is configured for the interface counts more than what a server says.
            mtu: root.number("mtu", 0..=u32::MAX)?.unwrap_or(0) == 0,
            probe: flag("probe", true)?,
        };
        if !wanted.ipv4 && !wanted.ipv6 {
            let msg =
                "ipam.ipv4 and ipam.ipv6: expected one of them to be true, got false for both";
            return Err(Error::new(Code::InvalidConfig, msg));
        }
        Ok(Self { socket: socket(&ipam)?, wanted })
    }
}

/// Where the daemon is, for verbs that need nothing else.
///
/// # Errors
/// The key has the wrong type or value.
pub fn socket_of(request: &Request) -> Result<PathBuf, Error> {
    let root = request.conf.root();
    root.get("ipam")?.map_or_else(|| Ok(SOCKET.into()), |ipam| socket(&ipam))
}

fn socket(ipam: &Node<'_>) -> Result<PathBuf, Error> {
    match ipam.get("daemonSocketPath")? {
        Some(path) if !path.text()?.is_empty() => path.parse("an absolute path", |text| {
            (text.starts_with('/') && !text.contains('\0')).then(|| text.into())
        }),
        _ => Ok(SOCKET.into()),
    }
}

fn requested(ipam: &Node<'_>) -> Result<Vec<u8>, Error> {
    let mut skips_default = false;
    let listed = ipam.list("request", |item| {
        skips_default |= item.flag("skipDefault")?;
        item.get("option")?.filter(|name| name.text() != Ok("")).map(|name| code(&name)).transpose()
    })?;
    let mut codes = if skips_default { Vec::new() } else { DEFAULT.to_vec() };
    for code in listed.into_iter().flatten() {
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    codes.shrink_to_fit();
    Ok(codes)
}

/// Options to send: with a value that is configured, or one of the call's arguments; that counts if there is one.
fn provided(ipam: &Node<'_>, args: &str) -> Result<Vec<(u8, Vec<u8>)>, Error> {
    let mut provided: Vec<(u8, Vec<u8>)> = Vec::new();
    let items = ipam.list("provide", |item| {
        let Some(name) = item.get("option")? else {
            let expected = "an option's name or number";
            return Err(Error::invalid(format_args!("{item}.option"), "nothing", expected));
        };
        let code = code(&name)?;
        if OWN.contains(&code) {
            return Err(name.invalid("an option that is not DHCP's own"));
        }
        let mut value = item.string("value")?.unwrap_or_default();
        if value.len() > LONGEST_OPTION {
            return Err(Error::invalid(
                format_args!("{item}.value"),
                format_args!("{} bytes", value.len()),
                "at most 255 bytes",
            ));
        }
        if let Some(key) = item.string("fromArg")?
            && let Some(argument) = argument(args, &key)
        {
            if argument.len() > LONGEST_OPTION {
                let msg = format!(
                    "CNI_ARGS: {key}: expected at most 255 bytes for {item}, got {}",
                    argument.len()
                );
                return Err(Error::new(Code::InvalidEnvironment, msg));
            }
            argument.clone_into(&mut value);
        }
        Ok((code, value.into_bytes()))
    })?;
    for (code, value) in items {
        if value.is_empty() {
            continue;
        }
        provided.retain(|(other, _)| *other != code);
        provided.push((code, value));
    }
    provided.shrink_to_fit();
    Ok(provided)
}

/// An argument of `CNI_ARGS`, of which any may be named here. What is no pair is no argument.
fn argument<'a>(args: &'a str, key: &str) -> Option<&'a str> {
    let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
    pairs.rev().find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn code(name: &Node<'_>) -> Result<u8, Error> {
    let expected = "an option's number from 0 to 255, or dhcp-client-identifier, subnet-mask, routers, \
                    host-name, user-class or vendor-class-identifier";
    name.parse(expected, |text| {
        let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, code)| *code);
        named.or_else(|| text.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ipam(value: &Value, read: impl Fn(&Node<'_>) -> Result<String, Error>) -> String {
        let root = Node::root("", value);
        let result = root.get("ipam").unwrap().map(|ipam| read(&ipam)).unwrap();
        result.unwrap_or_else(|error| error.msg)
    }

    #[test]
    fn what_is_asked_for_is_the_default_and_what_is_listed() {
        let read = |value: Value| {
            ipam(&json!({"ipam": {"request": value}}), |ipam| Ok(format!("{:?}", requested(ipam)?)))
        };
        let default = "1, 121, 3, 33, 6, 15, 26, 119";
        assert_eq!(read(json!(null)), format!("[{default}]"));
        assert_eq!(
            read(json!([{"option": "host-name"}, {"option": "42"}, {"option": "routers"}])),
            format!("[{default}, 12, 42]")
        );
        assert_eq!(read(json!([{"skipDefault": true}, {"option": "subnet-mask"}])), "[1]");
        assert!(read(json!([{"option": "256"}])).starts_with("ipam.request[0].option: expected"));
        assert!(read(json!([{"option": "hostname"}])).contains("host-name"));
    }

    #[test]
    fn what_is_sent_is_configured_or_an_argument() {
        let read = |value: Value, args: &str| {
            ipam(&json!({"ipam": {"provide": value}}), |ipam| {
                let shown = provided(ipam, args)?.into_iter();
                Ok(shown
                    .map(|(code, v)| format!("{code}={} ", String::from_utf8(v).unwrap()))
                    .collect())
            })
        };
        let conf = json!([
            {"option": "host-name", "value": "a", "fromArg": "K8S_POD_NAME"},
            {"option": "60", "value": "b"},
            {"option": "user-class", "fromArg": "NONE"}
        ]);
        assert_eq!(read(conf.clone(), ""), "12=a 60=b ");
        assert_eq!(read(conf, "IgnoreUnknown=1;K8S_POD_NAME=pod=1;x"), "12=pod=1 60=b ");
        assert!(read(json!([{"option": "53", "value": "x"}]), "").contains("provide[0].option"));
        assert!(read(json!([{"value": "x"}]), "").contains("provide[0].option"));
        let long = "x".repeat(256);
        assert!(read(json!([{"option": "60", "value": long}]), "").contains("at most 255"));
        let args = format!("A={long}");
        assert!(read(json!([{"option": "60", "fromArg": "A"}]), &args).starts_with("CNI_ARGS: A"));
    }
}
