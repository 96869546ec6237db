//! What plugin and daemon say to each other.
//!
//! The daemon listens on a unix stream socket, `/run/cni/dhcp.sock` unless told otherwise. A connection carries
//! any number of requests, one after the other, each with one answer. Each is a *frame*: its length in bytes, 32
//! bits with the highest byte first, then that much JSON. A frame is at most [`LARGEST`] bytes long. Either side
//! knows from the kernel who the other is (`SO_PEERCRED`, unix(7)) and believes only root and its own user.
//!
//! If the plugin goes away before its answer, what was begun for it is taken back.

use crate::cni::{Attachment, CniResult, Error};

/// Where the daemon listens unless told otherwise.
pub const SOCKET: &str = "/run/cni/dhcp.sock";
/// The longest frame: GC's can name 100,000 attachments.
pub const LARGEST: usize = 16 << 20;

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
    /// Release whatever attachments of the network have that are not among the valid ones.
    Gc {
        /// The network's name.
        network: String,
        /// The valid attachments.
        valid: Vec<Attachment>,
    },
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
#[derive(Clone, PartialEq, Eq, Debug)]
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
