//! DHCPv6 as a client speaks it that wants one address (RFC 8415, `IA_NA`), without a system call, as in
//! [`v4`](super::v4).
//!
//! Prefix and routers are none of its business: the kernel learns them from router advertisements. It speaks by
//! UDP from the link's own link-local address, so there are no frames to build.

pub mod client;
pub mod message;
