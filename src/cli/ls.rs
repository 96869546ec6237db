//! `plumb ls`: the attachments of this node, read back from the kernel.

use std::collections::HashMap;

use clap::Args;
use serde_json::json;

use super::{say, say_json, table};
use crate::cni::Attachment;
use crate::net::Cidr;
use crate::nl::{Family, Socket, addr, link};

/// List the attachments of this node, as the kernel has them
///
/// An attachment is a link on this host whose alias names it; no file is read. Addresses are those that
/// the container's interface has at this moment, which the kernel tells across namespaces to who has
/// CAP_NET_ADMIN; `?` stands for what can't be read. Bytes are counted as the container sees them. What
/// other plugins than plumb's have attached is not shown.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo plumb ls
  sudo plumb ls mynet
  sudo plumb ls --json | jq -r '.attachments[] | select(.bytesIn == 0) | .container'

Exit codes:
  0  listed, were it nothing
  1  the kernel can't be asked
  2  the command line can't be understood")]
pub struct Options {
    /// Only those of this network
    #[arg(value_name = "NETWORK")]
    network: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// An attachment that has a link on this host.
pub struct Attached {
    /// Whose link it is.
    pub attachment: Attachment,
    /// The link.
    pub link: link::Link,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
}

/// All attachments that have a link of ours on this host, in the order of their names.
///
/// # Errors
/// The kernel's refusal, for people.
pub fn attached() -> Result<Vec<Attached>, String> {
    let mut socket = Socket::open(Family::Route).map_err(|error| error.to_string())?;
    let links = link::list(&mut socket).map_err(|error| error.to_string())?;
    let names: HashMap<_, _> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    let attached = |link: link::Link| {
        let attachment = Attachment::from_label(link.alias.as_deref()?)?;
        let bridge = link.master.and_then(|index| names.get(&index).cloned());
        Some(Attached { attachment, link, bridge })
    };
    let mut all: Vec<_> = links.into_iter().filter_map(attached).collect();
    all.sort_by_key(|attached| attached.attachment.label());
    Ok(all)
}

pub fn run(options: &Options) -> Result<i32, String> {
    let mut all = attached()?;
    if let Some(network) = &options.network {
        all.retain(|attached| attached.attachment.network == *network);
    }
    let mut socket = Socket::open(Family::Route).map_err(|error| error.to_string())?;
    let addresses: Vec<_> = all.iter().map(|attached| addresses(&mut socket, attached)).collect();
    let texts =
        |addresses: &Vec<Cidr>| -> Vec<_> { addresses.iter().map(ToString::to_string).collect() };
    // Of a pair, what leaves one end comes out of the other.
    let bytes = |attached: &Attached| (attached.link.traffic.sent, attached.link.traffic.received);

    if options.json {
        let item = |(attached, addresses): (&Attached, &Option<Vec<Cidr>>)| {
            let Attachment { network, container, ifname } = &attached.attachment;
            let (received, sent) = bytes(attached);
            json!({
                "network": network, "container": container, "ifname": ifname,
                "addresses": addresses.as_ref().map(texts),
                "hostInterface": attached.link.name, "bridge": attached.bridge,
                "bytesIn": received, "bytesOut": sent,
            })
        };
        let attachments: Vec<_> = all.iter().zip(&addresses).map(item).collect();
        say_json(&json!({"attachments": attachments}));
        return Ok(0);
    }
    let headings =
        ["NETWORK", "CONTAINER", "INTERFACE", "HOST", "BRIDGE", "IN", "OUT", "ADDRESSES"];
    let mut rows = vec![headings.map(str::to_owned)];
    for (attached, addresses) in all.into_iter().zip(&addresses) {
        let (received, sent) = bytes(&attached);
        rows.push([
            attached.attachment.network,
            attached.attachment.container,
            attached.attachment.ifname,
            attached.link.name,
            attached.bridge.unwrap_or_else(|| "-".to_owned()),
            received.to_string(),
            sent.to_string(),
            match addresses.as_ref().map(texts).as_deref() {
                None => "?".to_owned(),
                Some([]) => "-".to_owned(),
                Some(list) => list.join(" "),
            },
        ]);
    }
    table::lines(&rows).iter().for_each(say);
    Ok(0)
}

/// The addresses of the container's end, but for those that it gives itself; `None` if they can't be
/// read.
pub fn addresses(socket: &mut Socket, attached: &Attached) -> Option<Vec<Cidr>> {
    let peer = attached.link.peer?;
    let found = addr::of_link_in(socket, attached.link.peer_netns?, peer).ok()?;
    Some(found.into_iter().filter(|a| !a.link_local).map(|a| a.cidr).collect())
}
