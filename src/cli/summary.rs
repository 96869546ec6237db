//! What an attachment consists of, in a line.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cni::json::Node;
use crate::cni::{CniResult, Error, Version};

/// Reads a result that is a document of `version` unless it says otherwise.
///
/// # Errors
/// It is malformed.
pub fn read_result(document: &Value, version: Version) -> Result<CniResult, Error> {
    CniResult::read(&Node::root("result", document), version)
}

/// A result in a line: `eth0 10.1.0.2/16, 0.0.0.0/0 via 10.1.0.1, on the host cni0 veth…`.
#[must_use]
pub fn of_result(ifname: &str, result: &CniResult) -> String {
    let mut parts = vec![ifname.to_owned()];
    parts.extend(result.ips.iter().map(|ip| ip.address.to_string()));
    let mut text = parts.join(" ");
    for route in &result.routes {
        let _ = match route.gw {
            Some(gateway) => write!(text, ", {} via {gateway}", route.dst),
            None => write!(text, ", {}", route.dst),
        };
    }
    let on_host: Vec<_> = result
        .interfaces
        .iter()
        .filter(|i| i.sandbox.is_empty())
        .map(|i| i.name.as_str())
        .collect();
    if !on_host.is_empty() {
        let _ = write!(text, ", on the host {}", on_host.join(" "));
    }
    text
}
